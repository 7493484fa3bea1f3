/* SPDX-License-Identifier: ISC */
/*
 * The cost of the bus, encode and decode of a message with three fields included.
 *
 *	hop_bench WORKLOAD WORKERS	prints one JSON object
 *
 *	B1	one hop: two services send a message to and fro; p50 and p99 of a round trip, halved
 *	B2	streaming: one service sends as fast as the other takes; messages a second
 *	B3	ask and answer: p50 of a request with its answer, time-out armed and cancelled
 *	B4	as B1, while two services in turn write to a third: no socket may fall asleep
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/assert.h"
#include "base/clock.h"
#include "msg/bus.h"

#define ROUNDS       400000u
#define WARM_UP      20000u
#define STREAM_TOTAL 6291456u /* a multiple of STREAM_ACK */
#define STREAM_TURN  64u /* messages sent in one turn of the producer */
#define STREAM_ACK   512u /* messages after which the consumer says how far it is */
#define STREAM_AHEAD 2048u /* messages that may be under way */
#define TICK_MSG     1u

struct bench {
	struct om_system *sys;
	struct om_bus *bus;
	const char *workload;
	uint32_t *round_ns;
	uint32_t rounds;
	struct om_mono start, end;
};

static struct bench bench;

struct side {
	struct om_mono sent_at;
	uint64_t sent, acked, taken;
	bool shut; /* the window: an acknowledgement opens it */
};

static const struct om_exec_start message = {
	.job = { "3f9a0c51e2d4", 12 },
	.cores = 2,
	.mem_mib = 2048,
};

static const struct om_empty nothing;

static void
send_or_die(struct om_service *sv, const char *to)
{
	OM_ASSERT(om_service_send(sv, to, OM_MSG_EXEC_START, &message) == OM_OK);
}

/* A round is over: notes its time and says whether there is another. */
static bool
round_done(struct side *s)
{
	struct om_mono now = om_mono_now();

	if (s->sent > WARM_UP && bench.rounds < ROUNDS) {
		bench.round_ns[bench.rounds++] = (uint32_t)(now.ns - s->sent_at.ns);
	}
	s->sent++;
	s->sent_at = now;
	return bench.rounds < ROUNDS;
}

/* --- the first service: drives ---------------------------------------------------------------- */

static void stream(struct om_service *sv, struct side *s);
static void ask(struct om_service *sv);

/* A message to itself: behind what others have sent. */
static void
tick(struct om_service *sv)
{
	struct om_msg *msg = om_msg_new(om_service_cx(sv), TICK_MSG, 0);

	OM_ASSERT(om_send(om_service_cx(sv), om_self(om_service_cx(sv)), &msg) == OM_OK);
}

static enum om_err
first_start(struct om_service *sv, void *state, const void *arg)
{
	(void)arg;
	(void)state;
	tick(sv);
	return OM_OK;
}

static enum om_err
first_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct side *s = state;

	(void)msg;
	if (s->sent == 0) {
		if (om_service_send(sv, "second", OM_MSG_PING, &nothing) != OM_OK ||
		    om_service_send(sv, "third", OM_MSG_PING, &nothing) != OM_OK) {
			tick(sv); /* they start on another worker: not there yet */
			return OM_OK;
		}
		s->sent_at = om_mono_now();
		bench.start = s->sent_at;
	}
	if (strcmp(bench.workload, "B2") == 0) {
		stream(sv, s);
	} else if (strcmp(bench.workload, "B3") == 0) {
		ask(sv);
	} else {
		send_or_die(sv, "second");
	}
	return OM_OK;
}

static enum om_err
first_on_start(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_exec_start *m = in->body;
	struct side *s = state;

	OM_ASSERT(m->mem_mib == message.mem_mib);
	if (strcmp(bench.workload, "B2") == 0) {
		s->acked += STREAM_ACK;
		if (s->acked >= STREAM_TOTAL) {
			bench.end = om_mono_now();
			om_service_exit(sv);
			return OM_OK;
		}
		if (s->shut) {
			s->shut = false;
			stream(sv, s);
		}
		return OM_OK;
	}
	if (round_done(s)) {
		send_or_die(sv, "second");
	} else {
		om_service_exit(sv);
	}
	return OM_OK;
}

/* Sends one turn's worth while the window is open. */
static void
stream(struct om_service *sv, struct side *s)
{
	for (uint32_t i = 0; i < STREAM_TURN; i++) {
		if (s->sent == STREAM_TOTAL || s->sent - s->acked >= STREAM_AHEAD) {
			s->shut = true;
			return;
		}
		send_or_die(sv, "second");
		s->sent++;
	}
	tick(sv); /* the consumer gets its turn when both share a worker */
}

static void
on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	OM_ASSERT(answer->err == OM_OK);
	if (round_done(state)) {
		ask(sv);
	} else {
		om_service_exit(sv);
	}
}

static void
ask(struct om_service *sv)
{
	OM_ASSERT(om_service_ask(sv, "second", OM_MSG_EXEC_START, &message, NULL, 5000, on_answer,
				 0) == OM_OK);
}

static const struct om_service_handler first_on[] = { { OM_MSG_EXEC_START, first_on_start } };
static const struct om_service_def first_def = {
	.name = "first",
	.state_size = sizeof(struct side),
	.start = first_start,
	.on = first_on,
	.on_count = OM_COUNT(first_on),
	.on_msg = first_on_msg,
};

/* --- the others: answer ----------------------------------------------------------------------- */

static enum om_err
second_on_start(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_exec_start *m = in->body;
	struct side *s = state;

	OM_ASSERT(m->cores == message.cores);
	s->taken++;
	if (in->wants_answer) {
		return om_service_reply_ok(sv, in);
	}
	if (strcmp(bench.workload, "B2") == 0) {
		if (s->taken % STREAM_ACK == 0) {
			send_or_die(sv, "first");
		}
		return OM_OK;
	}
	/* B4: the round goes on through a third service, so "first" hears of two senders. */
	send_or_die(sv, strcmp(bench.workload, "B4") == 0 && s->taken % 2 == 0 ? "third" : "first");
	return OM_OK;
}

static enum om_err
third_on_start(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)state;
	(void)in;
	send_or_die(sv, "first");
	return OM_OK;
}

static enum om_err
on_ping(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)sv;
	(void)state;
	(void)in;
	return OM_OK;
}

static const struct om_service_handler second_on[] = {
	{ OM_MSG_EXEC_START, second_on_start },
	{ OM_MSG_PING, on_ping },
};
static const struct om_service_def second_def = {
	.name = "second",
	.state_size = sizeof(struct side),
	.on = second_on,
	.on_count = OM_COUNT(second_on),
};
static const struct om_service_handler third_on[] = {
	{ OM_MSG_EXEC_START, third_on_start },
	{ OM_MSG_PING, on_ping },
};
static const struct om_service_def third_def = {
	.name = "third",
	.on = third_on,
	.on_count = OM_COUNT(third_on),
};

/* --- result ----------------------------------------------------------------------------------- */

static int
by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* On a shared machine the processor time says what the wall clock hides. */
static double
cpu_seconds(void)
{
	struct rusage use;

	OM_ASSERT(getrusage(RUSAGE_SELF, &use) == 0);
	return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
	       (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void
print_result(unsigned workers)
{
	if (strcmp(bench.workload, "B2") == 0) {
		printf("{\"name\": \"B2\", \"workers\": %u, \"value\": %.3f, ", workers,
		       (double)STREAM_TOTAL * 1e3 / (double)(bench.end.ns - bench.start.ns));
		printf("\"unit\": \"M msg/s\", \"cpu_us\": %.3f}\n",
		       cpu_seconds() * 1e6 / STREAM_TOTAL);
		return;
	}
	/* A round of B4 is two hops and three hops in turn. */
	double hops = strcmp(bench.workload, "B3") == 0   ? 1
		      : strcmp(bench.workload, "B4") == 0 ? 2.5
							  : 2;
	double sum = 0;

	for (uint32_t i = 0; i < bench.rounds; i++) {
		sum += bench.round_ns[i];
	}
	qsort(bench.round_ns, bench.rounds, sizeof(*bench.round_ns), by_value);
	printf(
	    "{\"name\": \"%s\", \"workers\": %u, \"value\": %.3f, \"p99\": %.3f, \"mean\": %.3f, "
	    "\"unit\": \"us\"}\n",
	    bench.workload, workers, bench.round_ns[bench.rounds / 2] / 1e3 / hops,
	    bench.round_ns[bench.rounds - bench.rounds / 100 - 1] / 1e3 / hops,
	    sum / bench.rounds / 1e3 / hops);
}

int
main(int argc, char **argv)
{
	struct om_system_conf conf = { .workers = argc > 2 ? (unsigned)atoi(argv[2]) : 1 };
	struct om_service_arg first, second, third;
	struct om_actor_id id, driver;

	if (argc < 2 || strlen(argv[1]) != 2 || argv[1][0] != 'B' || argv[1][1] < '1' ||
	    argv[1][1] > '4') {
		(void)fprintf(stderr, "usage: hop_bench B1|B2|B3|B4 [WORKERS]\n");
		return 2;
	}
	bench.workload = argv[1];
	bench.round_ns = malloc(ROUNDS * sizeof(*bench.round_ns));
	OM_ASSERT(bench.round_ns != NULL);
	OM_ASSERT(om_system_new(&conf, &bench.sys) == OM_OK);
	OM_ASSERT(om_bus_new(bench.sys, &bench.bus, NULL) == OM_OK);
	first = (struct om_service_arg){ bench.bus, &first_def, NULL };
	second = (struct om_service_arg){ bench.bus, &second_def, NULL };
	third = (struct om_service_arg){ bench.bus, &third_def, NULL };
	OM_ASSERT(om_service_spawn(bench.bus, &third, &id) == OM_OK);
	OM_ASSERT(om_service_spawn(bench.bus, &second, &id) == OM_OK);
	OM_ASSERT(om_service_spawn(bench.bus, &first, &driver) == OM_OK);
	OM_ASSERT(om_system_wait(bench.sys, driver, 60000) == OM_OK);
	(void)om_system_stop(bench.sys, 1000, NULL, 0);
	om_bus_free(bench.bus);
	om_system_free(bench.sys);
	print_result(conf.workers);
	free(bench.round_ns);
	return 0;
}
