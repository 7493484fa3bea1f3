/* SPDX-License-Identifier: ISC */
/*
 * Submits jobs to a running omertad and waits for the acknowledgements.  Its queue is paused first,
 * so that accepting is all that is measured; with `cycle` it is not, and the time runs until the
 * daemon has ended all jobs.  The daemon is meant to run the null executor; bench/pipeline.py starts
 * it.
 *
 *	submit_bench ENDPOINT CLIENTS IN_FLIGHT JOBS [cycle] [batch]
 *
 * Each client is a thread with a DEALER socket.  It has IN_FLIGHT requests of one job on their way;
 * with `batch` one request of IN_FLIGHT jobs, and the next when that is answered.  Prints one JSON
 * object: jobs/s, p50 and p99 of the time from a request to its answer in microseconds.  A job that
 * is not acknowledged, for itself, fails the run: nothing is counted that is not durable.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>
#include "base/clock.h"
#include "msg/codec.h"
#include "msg/envelope.h"

#define BODY_BYTES 200

struct client {
	pthread_t thread;
	void *zmq;
	const char *endpoint;
	size_t jobs, in_flight;
	bool batch;
	size_t requests; /* answered */
	int64_t *took_ns; /* per request */
	const char *failed;
};

static char script[BODY_BYTES]; /* constant once main has filled it */

static struct om_job_submit
submit_body(void)
{
	struct om_job_submit m = { 0 };

	OM_SET(&m, job_submit, lang, OM_STR("sh"));
	OM_SET(&m, job_submit, script,
	       ((struct om_bin){ (const uint8_t *)script, sizeof(script) }));
	OM_SET(&m, job_submit, network, OM_STR("none"));
	return m;
}

static struct om_buf
submit_frame(uint64_t id)
{
	struct om_job_submit m = submit_body();
	struct om_buf frame = { 0 };

	if (om_envelope_encode(OM_MSG_JOB_SUBMIT, id, 60000, &m, &frame) != OM_OK) {
		abort();
	}
	return frame;
}

static struct om_buf
batch_frame(uint64_t id, size_t count)
{
	struct om_job_submit *jobs = calloc(count, sizeof(*jobs));
	struct om_job_batch m = { .jobs = { jobs, count } };
	struct om_buf frame = { 0 };

	for (size_t i = 0; jobs != NULL && i < count; i++) {
		jobs[i] = submit_body();
	}
	if (jobs == NULL ||
	    om_envelope_encode(OM_MSG_JOB_SUBMIT_BATCH, id, 60000, &m, &frame) != OM_OK) {
		abort();
	}
	free(jobs);
	return frame;
}

static void *
client_connect(void *zmq, const char *endpoint)
{
	int hwm = 0, linger = 0, timeout = 60000;
	void *s = zmq_socket(zmq, ZMQ_DEALER);

	if (s == NULL || zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof(hwm)) != 0 ||
	    zmq_setsockopt(s, ZMQ_RCVHWM, &hwm, sizeof(hwm)) != 0 ||
	    zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof(linger)) != 0 ||
	    zmq_setsockopt(s, ZMQ_RCVTIMEO, &timeout, sizeof(timeout)) != 0 ||
	    zmq_connect(s, endpoint) != 0) {
		fprintf(stderr, "connect %s: %s\n", endpoint, zmq_strerror(zmq_errno()));
		exit(1);
	}
	return s;
}

/* Takes one answer; gives its id, or UINT64_MAX on a failure that *why names. */
static uint64_t
client_answer(void *s, enum om_msg_type want, struct om_arena *arena, void *body, const char **why)
{
	struct om_envelope env;
	struct om_why text;
	zmq_msg_t msg;
	uint64_t id = UINT64_MAX;

	(void)zmq_msg_init(&msg);
	if (zmq_msg_recv(&msg, s, 0) < 0) {
		*why = "no answer within 60 s";
	} else if (om_envelope_decode((struct om_bin){ zmq_msg_data(&msg), zmq_msg_size(&msg) },
				      &env, &text) != OM_OK) {
		*why = "an answer that is no envelope";
	} else if (env.type != want) {
		*why = env.type == OM_MSG_ERROR ? "an error instead of an acknowledgement"
						: "an unexpected answer";
	} else if (body != NULL &&
		   om_body_decode(om_msg_info(want)->body, env.body, body, arena, &text) != OM_OK) {
		*why = "a body that does not decode";
	} else {
		id = env.id;
	}
	(void)zmq_msg_close(&msg);
	return id;
}

/* One request a job, in_flight of them on their way. */
static void
client_singles(struct client *c, void *s)
{
	int64_t *sent = calloc(c->jobs, sizeof(*sent));
	size_t next = 0, answered = 0;

	while (answered < c->jobs && c->failed == NULL) {
		while (next < c->jobs && next - answered < c->in_flight) {
			struct om_buf frame = submit_frame(next + 1);

			sent[next] = om_mono_now().ns;
			if (zmq_send(s, frame.data, frame.len, 0) < 0) {
				c->failed = "cannot send";
			}
			om_buf_fini(&frame);
			next++;
		}
		uint64_t id = client_answer(s, OM_MSG_JOB_ACCEPTED, NULL, NULL, &c->failed);

		if (c->failed == NULL && id >= 1 && id <= c->jobs) {
			c->took_ns[id - 1] = om_mono_now().ns - sent[id - 1];
			answered++;
		}
	}
	c->requests = answered;
	free(sent);
}

/* Each job of the batch, and no other, is acknowledged in a result of its own. */
static bool
batch_is_accepted(const struct om_batch_results *m, size_t count)
{
	for (size_t i = 0; i < m->results.n; i++) {
		const struct om_batch_result *r = &m->results.v[i];

		if (!OM_HAS(r, batch_result, accepted) || OM_HAS(r, batch_result, error) ||
		    r->accepted->job.len == 0 || r->accepted->duplicate) {
			return false;
		}
	}
	return m->results.n == count;
}

/* One request of in_flight jobs, then the next. */
static void
client_batches(struct client *c, void *s)
{
	struct om_arena arena = { 0 };
	size_t answered = 0;

	while (answered < c->jobs && c->failed == NULL) {
		size_t left = c->jobs - answered;
		size_t count = left < c->in_flight ? left : c->in_flight;
		struct om_buf frame = batch_frame(c->requests + 1, count);
		struct om_batch_results m = { 0 };
		int64_t sent = om_mono_now().ns;

		if (zmq_send(s, frame.data, frame.len, 0) < 0) {
			c->failed = "cannot send";
		}
		om_buf_fini(&frame);
		om_arena_reset(&arena);
		if (client_answer(s, OM_MSG_JOB_BATCH, &arena, &m, &c->failed) == UINT64_MAX) {
			break;
		}
		c->took_ns[c->requests++] = om_mono_now().ns - sent;
		answered += count;
		if (!batch_is_accepted(&m, count)) {
			c->failed = "a job of a batch was not acknowledged";
		}
	}
	om_arena_fini(&arena);
}

static void *
client_run(void *arg)
{
	struct client *c = arg;
	void *s = client_connect(c->zmq, c->endpoint);

	if (c->batch) {
		client_batches(c, s);
	} else {
		client_singles(c, s);
	}
	(void)zmq_close(s);
	return NULL;
}

/* Nothing starts any more. */
static void
pause_queue(void *s)
{
	struct om_reason reason = { .reason = OM_STR("submit_bench") };
	struct om_buf frame = { 0 };
	const char *why = NULL;

	if (om_envelope_encode(OM_MSG_QUEUE_PAUSE, 1, 10000, &reason, &frame) != OM_OK ||
	    zmq_send(s, frame.data, frame.len, 0) < 0 ||
	    client_answer(s, OM_MSG_OK, NULL, NULL, &why) == UINT64_MAX) {
		fprintf(stderr, "queue.pause: %s\n", why != NULL ? why : "cannot ask");
		exit(1);
	}
	om_buf_fini(&frame);
}

static uint64_t
completed(void *s)
{
	struct om_arena arena = { 0 };
	struct om_empty none = { 0 };
	struct om_queue_stats stats = { 0 };
	struct om_buf frame = { 0 };
	const char *why = NULL;
	uint64_t total;

	if (om_envelope_encode(OM_MSG_QUEUE_STATS, 1, 10000, &none, &frame) != OM_OK ||
	    zmq_send(s, frame.data, frame.len, 0) < 0 ||
	    client_answer(s, OM_MSG_QUEUE_STATE, &arena, &stats, &why) == UINT64_MAX) {
		fprintf(stderr, "queue.stats: %s\n", why != NULL ? why : "cannot ask");
		exit(1);
	}
	total = stats.total_completed;
	om_buf_fini(&frame);
	om_arena_fini(&arena);
	return total;
}

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

struct options {
	const char *endpoint;
	size_t clients, in_flight, jobs;
	bool cycle, batch;
};

static bool
options_read(int argc, char **argv, struct options *o)
{
	if (argc < 5) {
		return false;
	}
	*o = (struct options){ .endpoint = argv[1],
			       .clients = strtoul(argv[2], NULL, 10),
			       .in_flight = strtoul(argv[3], NULL, 10) };
	for (int i = 5; i < argc; i++) {
		if (strcmp(argv[i], "cycle") == 0) {
			o->cycle = true;
		} else if (strcmp(argv[i], "batch") == 0) {
			o->batch = true;
		} else {
			return false;
		}
	}
	if (o->clients == 0 || o->in_flight == 0) {
		return false;
	}
	o->jobs = strtoul(argv[4], NULL, 10) / o->clients * o->clients;
	return o->jobs > 0;
}

/* Gives the number of requests; what they took is in took, without gaps. */
static size_t
clients_run(const struct options *o, void *zmq, int64_t *took)
{
	struct client *c = calloc(o->clients, sizeof(*c));
	const size_t jobs = o->jobs / o->clients;
	size_t requests = 0, i;

	for (i = 0; i < o->clients; i++) {
		c[i] = (struct client){ .zmq = zmq,
					.endpoint = o->endpoint,
					.jobs = jobs,
					.in_flight = o->in_flight,
					.batch = o->batch,
					.took_ns = took + i * jobs };
		if (pthread_create(&c[i].thread, NULL, client_run, &c[i]) != 0) {
			abort();
		}
	}
	for (i = 0; i < o->clients; i++) {
		(void)pthread_join(c[i].thread, NULL);
		if (c[i].failed != NULL) {
			fprintf(stderr, "client %zu: %s\n", i, c[i].failed);
			exit(1);
		}
	}
	for (i = 0; i < o->clients; i++) {
		memmove(took + requests, c[i].took_ns, c[i].requests * sizeof(*took));
		requests += c[i].requests;
	}
	free(c);
	return requests;
}

int
main(int argc, char **argv)
{
	struct options o;
	int64_t *took, start, ns;
	uint64_t before;
	size_t requests;
	void *zmq, *watch;

	if (!options_read(argc, argv, &o)) {
		fprintf(stderr, "usage: submit_bench ENDPOINT CLIENTS IN_FLIGHT JOBS [cycle] "
				"[batch]\n");
		return 2;
	}
	memset(script, '#', sizeof(script));
	zmq = zmq_ctx_new();
	took = calloc(o.jobs, sizeof(*took));
	watch = client_connect(zmq, o.endpoint);
	before = completed(watch);
	if (!o.cycle) {
		pause_queue(watch);
	}

	start = om_mono_now().ns;
	requests = clients_run(&o, zmq, took);
	while (o.cycle && completed(watch) - before < o.jobs) {
		struct timespec pause = { .tv_nsec = 2000000 };

		(void)nanosleep(&pause, NULL); /* 2 ms: under 1 % of the shortest run */
	}
	ns = om_mono_now().ns - start;
	qsort(took, requests, sizeof(*took), compare);
	printf("{\"name\":\"%s/%zux%zu%s\",\"value\":%.6g,\"unit\":\"jobs/s\",\"p50_us\":%.6g,"
	       "\"p99_us\":%.6g,\"jobs\":%zu}\n",
	       o.cycle ? "cycle" : "submit", o.clients, o.in_flight, o.batch ? " batch" : "",
	       (double)o.jobs / ((double)ns / 1e9), (double)took[requests / 2] / 1e3,
	       (double)took[requests * 99 / 100] / 1e3, o.jobs);
	(void)zmq_close(watch);
	(void)zmq_ctx_term(zmq);
	free(took);
	return 0;
}
