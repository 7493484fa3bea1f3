/* SPDX-License-Identifier: ISC */
/*
 * Submits jobs to a running omertad and waits for the acknowledgements.  Its queue is paused first,
 * so that accepting is all that is measured; with `cycle` it is not, and the time runs until the
 * daemon has ended all jobs.  The daemon is meant to run the null executor; bench/pipeline.py starts
 * it.
 *
 *	submit_bench ENDPOINT CLIENTS IN_FLIGHT JOBS [cycle]
 *
 * Each client is a thread with a DEALER socket.  Prints one JSON object: jobs/s, p50 and p99 of the
 * time from send to acknowledgement in microseconds.  An answer that is no acknowledgement fails
 * the run: nothing is counted that is not durable.
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
	int64_t *took_ns; /* per job */
	const char *failed;
};

static struct om_buf
submit_frame(uint64_t id)
{
	static char script[BODY_BYTES];
	struct om_job_submit m = { 0 };
	struct om_buf frame = { 0 };

	memset(script, '#', sizeof(script));
	OM_SET(&m, job_submit, lang, OM_STR("sh"));
	OM_SET(&m, job_submit, script,
	       ((struct om_bin){ (const uint8_t *)script, sizeof(script) }));
	OM_SET(&m, job_submit, network, OM_STR("none"));
	if (om_envelope_encode(OM_MSG_JOB_SUBMIT, id, 60000, &m, &frame) != OM_OK) {
		abort();
	}
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

static void *
client_run(void *arg)
{
	struct client *c = arg;
	void *s = client_connect(c->zmq, c->endpoint);
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
	free(sent);
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

int
main(int argc, char **argv)
{
	size_t clients, in_flight, jobs, i;
	bool cycle = argc == 6 && strcmp(argv[5], "cycle") == 0;
	struct client *c;
	int64_t *took, start, ns;
	uint64_t before = 0;
	void *zmq, *watch;

	if (argc < 5) {
		fprintf(stderr, "usage: submit_bench ENDPOINT CLIENTS IN_FLIGHT JOBS [cycle]\n");
		return 2;
	}
	clients = strtoul(argv[2], NULL, 10);
	in_flight = strtoul(argv[3], NULL, 10);
	jobs = strtoul(argv[4], NULL, 10) / clients * clients;
	zmq = zmq_ctx_new();
	c = calloc(clients, sizeof(*c));
	took = calloc(jobs, sizeof(*took));
	watch = client_connect(zmq, argv[1]);
	before = completed(watch);
	if (!cycle) {
		pause_queue(watch);
	}

	start = om_mono_now().ns;
	for (i = 0; i < clients; i++) {
		c[i] = (struct client){ .zmq = zmq,
					.endpoint = argv[1],
					.jobs = jobs / clients,
					.in_flight = in_flight,
					.took_ns = took + i * (jobs / clients) };
		if (pthread_create(&c[i].thread, NULL, client_run, &c[i]) != 0) {
			abort();
		}
	}
	for (i = 0; i < clients; i++) {
		(void)pthread_join(c[i].thread, NULL);
		if (c[i].failed != NULL) {
			fprintf(stderr, "client %zu: %s\n", i, c[i].failed);
			return 1;
		}
	}
	while (cycle && completed(watch) - before < jobs) {
		struct timespec pause = { .tv_nsec = 2000000 };

		(void)nanosleep(&pause, NULL); /* 2 ms: under 1 % of the shortest run */
	}
	ns = om_mono_now().ns - start;
	qsort(took, jobs, sizeof(*took), compare);
	printf("{\"name\":\"%s/%zux%zu\",\"value\":%.6g,\"unit\":\"jobs/s\",\"p50_us\":%.6g,"
	       "\"p99_us\":%.6g,\"jobs\":%zu}\n",
	       cycle ? "cycle" : "submit", clients, in_flight, (double)jobs / ((double)ns / 1e9),
	       (double)took[jobs / 2] / 1e3, (double)took[jobs * 99 / 100] / 1e3, jobs);
	(void)zmq_close(watch);
	(void)zmq_ctx_term(zmq);
	free(took);
	free(c);
	return 0;
}
