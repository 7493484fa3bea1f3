/* SPDX-License-Identifier: ISC */
/*
 * The Savina workloads (Imam and Sarkar, AGERE! 2014) about messages; lives.c has those about making
 * and ending actors.  Messages of one 64-bit integer, promises on: default bounds, accounting,
 * generations, statistics.  Each checks its counts.
 */
#include <stdlib.h>
#include <time.h>
#include "base/assert.h"
#include "bench/runtime/bench.h"

#define W1_ROUND_TRIPS 2000000
#define W2_PRODUCERS   4
#define W2_EACH        2500000
#define W2C_BATCH      1000
#define W3_ACTORS      1000
#define W3_HOPS        5000000
#define W5_ACTORS      200
#define W5_PINGS       5000
#define W8_ASKS        200000 /* as the peers */
#define W8_IDLE_ASKS   300

enum { T_START = 1, T_PING, T_PONG, T_NUM, T_NEXT };

/* --- W1: ping-pong --------------------------------------------------------------------------------- */

struct w1 {
	uint64_t left;
};

static enum om_err
w1_on_start(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w1 *w = state;

	w->left = W1_ROUND_TRIPS;
	return om_send_u64(cx, (struct om_actor_id){ om_msg_u64(msg) }, T_PING, w->left);
}

static enum om_err
w1_on_ping(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_send_u64(cx, msg->from, T_PONG, om_msg_u64(msg));
}

static enum om_err
w1_on_pong(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w1 *w = state;

	OM_ASSERT(om_msg_u64(msg) == w->left);
	if (--w->left == 0) {
		bench_done();
		return OM_OK;
	}
	return om_send_u64(cx, msg->from, T_PING, w->left);
}

static const struct om_handler w1_handlers[] = {
	{ T_PING, w1_on_ping },
	{ T_PONG, w1_on_pong },
	{ T_START, w1_on_start },
};
static const struct om_actor_def w1_def = { .name = "pinger",
					    .state_size = sizeof(struct w1),
					    .handlers = w1_handlers,
					    .handler_count = OM_COUNT(w1_handlers) };

static struct bench_result
w1_run(unsigned workers)
{
	struct om_system *sys = bench_system(workers);
	struct om_actor_id ping = bench_spawn(sys, &w1_def, NULL);
	struct om_actor_id pong = bench_spawn(sys, &w1_def, NULL);
	double start = bench_now(), took;

	bench_post(sys, ping, T_START, pong.v);
	bench_wait();
	took = bench_now() - start;
	bench_system_end(sys);
	return (struct bench_result){ 2.0 * W1_ROUND_TRIPS / took / 1e6, 0 };
}

/* --- W2: counting ----------------------------------------------------------------------------------- */

struct w2_counter {
	uint64_t seen;
};
struct w2_producer {
	uint64_t sent;
};
static struct om_actor_id w2_to;
static uint64_t w2_batch;

static enum om_err
w2_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w2_counter *c = state;

	(void)cx;
	(void)msg;
	if (++c->seen == (uint64_t)W2_PRODUCERS * W2_EACH) {
		bench_done();
	}
	return OM_OK;
}

/* A full mailbox, or the end of a batch: others have their turn, then it goes on. */
static enum om_err
w2_on_start(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w2_producer *p = state;
	uint64_t until = w2_batch == 0 ? W2_EACH : p->sent + w2_batch;

	(void)msg;
	until = until > W2_EACH ? W2_EACH : until;
	while (p->sent < until) {
		enum om_err err = om_send_u64(cx, w2_to, T_NUM, p->sent);

		if (err == OM_ERR_FULL) {
			return OM_AGAIN;
		}
		OM_ASSERT(err == OM_OK);
		p->sent++;
	}
	return p->sent < W2_EACH ? OM_AGAIN : OM_OK;
}

static const struct om_handler w2_counter_handlers[] = { { T_NUM, w2_on_num } };
static const struct om_actor_def w2_counter_def = { .name = "counter",
						    .state_size = sizeof(struct w2_counter),
						    .handlers = w2_counter_handlers,
						    .handler_count = 1 };
static const struct om_handler w2_producer_handlers[] = { { T_START, w2_on_start } };
static const struct om_actor_def w2_producer_def = { .name = "producer",
						     .state_size = sizeof(struct w2_producer),
						     .handlers = w2_producer_handlers,
						     .handler_count = 1 };

/* As in Savina an actor makes the others. */
static enum om_err
w2_on_main(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	OM_ASSERT(om_spawn(cx, &w2_counter_def, NULL, &w2_to) == OM_OK);
	for (unsigned i = 0; i < W2_PRODUCERS; i++) {
		struct om_actor_id id;

		OM_ASSERT(om_spawn(cx, &w2_producer_def, NULL, &id) == OM_OK);
		OM_ASSERT(om_send_u64(cx, id, T_START, 0) == OM_OK);
	}
	return OM_OK;
}

static const struct om_handler w2_main_handlers[] = { { T_START, w2_on_main } };
static const struct om_actor_def w2_main_def = { .name = "main",
						 .handlers = w2_main_handlers,
						 .handler_count = 1 };

static struct bench_result
w2_run_batch(unsigned workers, uint64_t batch)
{
	struct om_system *sys;
	double start, took, peak;

	bench_peak_reset();
	sys = bench_system(workers);
	w2_batch = batch;
	start = bench_now();
	bench_post(sys, bench_spawn(sys, &w2_main_def, NULL), T_START, 0);
	bench_wait();
	took = bench_now() - start;
	peak = bench_peak_rss_mib();
	bench_system_end(sys);
	return (struct bench_result){ (double)W2_PRODUCERS * W2_EACH / took / 1e6, peak };
}

static struct bench_result
w2_run(unsigned workers)
{
	return w2_run_batch(workers, 0);
}

static struct bench_result
w2c_run(unsigned workers)
{
	return w2_run_batch(workers, W2C_BATCH);
}

/* --- W3: thread ring --------------------------------------------------------------------------------- */

struct w3 {
	struct om_actor_id next;
};

static enum om_err
w3_on_next(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w3 *w = state;

	(void)cx;
	w->next.v = om_msg_u64(msg);
	return OM_OK;
}

static enum om_err
w3_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w3 *w = state;
	uint64_t left = om_msg_u64(msg);

	if (left == 0) {
		bench_done();
		return OM_OK;
	}
	return om_send_u64(cx, w->next, T_NUM, left - 1);
}

static const struct om_handler w3_handlers[] = { { T_NUM, w3_on_num }, { T_NEXT, w3_on_next } };
static const struct om_actor_def w3_def = {
	.name = "ring", .state_size = sizeof(struct w3), .handlers = w3_handlers, .handler_count = 2
};

static struct bench_result
w3_run(unsigned workers)
{
	static struct om_actor_id ring[W3_ACTORS];
	struct om_system *sys = bench_system(workers);
	double start, took;

	for (unsigned i = 0; i < W3_ACTORS; i++) {
		ring[i] = bench_spawn(sys, &w3_def, NULL);
	}
	for (unsigned i = 0; i < W3_ACTORS; i++) {
		bench_post(sys, ring[i], T_NEXT, ring[(i + 1) % W3_ACTORS].v);
	}
	start = bench_now();
	bench_post(sys, ring[0], T_NUM, W3_HOPS);
	bench_wait();
	took = bench_now() - start;
	bench_system_end(sys);
	return (struct bench_result){ W3_HOPS / took / 1e6, 0 };
}

/* --- W5: big ------------------------------------------------------------------------------------------- */

static struct om_actor_id w5_all[W5_ACTORS];
static uint64_t w5_ended;

struct w5 {
	uint64_t self; /* its place in w5_all */
	uint64_t left;
};

/* To anybody but itself. */
static enum om_err
w5_ping(struct om_ctx *cx, struct w5 *w)
{
	uint64_t to;

	if (w->left-- == 0) {
		if (__atomic_add_fetch(&w5_ended, 1, __ATOMIC_RELAXED) == W5_ACTORS) {
			bench_done();
		}
		return OM_OK;
	}
	/* A random number below W5_ACTORS - 1 without a division (Lemire, 2019). */
	to = (om_rand(cx) >> 32) * (W5_ACTORS - 1) >> 32;
	to += to >= w->self;
	return om_send_u64(cx, w5_all[to], T_PING, w->left);
}

static enum om_err
w5_on_ping(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_send_u64(cx, msg->from, T_PONG, om_msg_u64(msg));
}

static enum om_err
w5_on_pong(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w5 *w = state;

	OM_ASSERT(om_msg_u64(msg) == w->left);
	return w5_ping(cx, w);
}

static enum om_err
w5_on_start(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w5 *w = state;

	w->self = om_msg_u64(msg);
	w->left = W5_PINGS;
	return w5_ping(cx, w);
}

static const struct om_handler w5_handlers[] = {
	{ T_PING, w5_on_ping },
	{ T_PONG, w5_on_pong },
	{ T_START, w5_on_start },
};
static const struct om_actor_def w5_def = { .name = "big",
					    .state_size = sizeof(struct w5),
					    .handlers = w5_handlers,
					    .handler_count = OM_COUNT(w5_handlers) };

static enum om_err
w5_on_main(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	for (unsigned i = 0; i < W5_ACTORS; i++) {
		OM_ASSERT(om_spawn(cx, &w5_def, NULL, &w5_all[i]) == OM_OK);
	}
	for (unsigned i = 0; i < W5_ACTORS; i++) {
		OM_ASSERT(om_send_u64(cx, w5_all[i], T_START, i) == OM_OK);
	}
	return OM_OK;
}

static const struct om_handler w5_main_handlers[] = { { T_START, w5_on_main } };
static const struct om_actor_def w5_main_def = { .name = "main",
						 .handlers = w5_main_handlers,
						 .handler_count = 1 };

static struct bench_result
w5_run(unsigned workers)
{
	struct om_system *sys = bench_system(workers);
	double start, took;

	w5_ended = 0;
	start = bench_now();
	bench_post(sys, bench_spawn(sys, &w5_main_def, NULL), T_START, 0);
	bench_wait();
	took = bench_now() - start;
	bench_system_end(sys);
	return (struct bench_result){ 2.0 * W5_ACTORS * W5_PINGS / took / 1e6, 0 };
}

/* --- W8: a foreign thread asks ----------------------------------------------------------------------------- */

static enum om_err
w8_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_reply_u64(cx, msg, om_msg_u64(msg) + 1);
}

static const struct om_handler w8_handlers[] = { { T_NUM, w8_on_num } };
static const struct om_actor_def w8_def = { .name = "answers",
					    .handlers = w8_handlers,
					    .handler_count = 1 };

static int
double_cmp(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static struct bench_result
w8_asks(unsigned workers, unsigned count, bool idle)
{
	struct om_system *sys = bench_system(workers);
	struct om_actor_id to = bench_spawn(sys, &w8_def, NULL);
	double *us = calloc(count, sizeof(*us));
	struct bench_result result;

	OM_ASSERT(us != NULL);
	for (unsigned i = 0; i < count; i++) {
		struct om_msg *msg = om_system_msg_new(sys, T_NUM, 8), *reply = NULL;
		struct timespec ms = { .tv_nsec = 1000000 };
		double start;

		OM_ASSERT(msg != NULL);
		if (idle) {
			(void)nanosleep(&ms, NULL);
		}
		*(uint64_t *)(void *)msg->payload = i;
		start = bench_now();
		OM_ASSERT(om_system_ask(sys, to, &msg, 10000, &reply) == OM_OK);
		us[i] = (bench_now() - start) * 1e6;
		OM_ASSERT(om_msg_u64(reply) == (uint64_t)i + 1);
		om_msg_free(NULL, reply);
	}
	qsort(us, count, sizeof(*us), double_cmp);
	result = (struct bench_result){ us[count / 2], us[count - count / 100 - 1] };
	free(us);
	bench_system_end(sys);
	return result;
}

static struct bench_result
w8_run(unsigned workers)
{
	return w8_asks(workers, W8_ASKS, false);
}

static struct bench_result
w8_idle_run(unsigned workers)
{
	return w8_asks(workers, W8_IDLE_ASKS, true);
}

const struct bench_workload bench_workloads[] = {
	{ "w1", "ping-pong", "M msg/s", true, 50, NULL, w1_run },
	{ "w2", "counting, 4 producers", "M msg/s", true, 45, "MiB peak", w2_run },
	{ "w2c", "counting, yields every 1000", "M msg/s", true, 55, "MiB peak", w2c_run },
	{ "w3", "thread ring of 1000", "M hops/s", true, 45, NULL, w3_run },
	{ "w4", "spawn 1,000,000", "M spawns/s", true, 12, NULL, bench_w4_run },
	{ "w4c", "spawn, yields every 100", "M spawns/s", true, 40, NULL, bench_w4c_run },
	{ "w5", "big, 200 actors", "M msg/s", true, 50, NULL, w5_run },
	{ "w6", "skynet, 1,000,000 leaves", "s", false, 0.08, NULL, bench_w6_run },
	{ "w7", "memory per idle actor", "B", false, 192, NULL, bench_w7_run },
	{ "w8", "foreign ask, hot", "us p50", false, 1.2, "us p99", w8_run },
	{ "w8i", "foreign ask after 1 ms idle", "us p50", false, 61, "us p99", w8_idle_run },
	{ "c1k", "a hop, ring of 1,000", "ns", false, BENCH_NO_TARGET, NULL, bench_c1k_run },
	{ "c100k", "a hop, ring of 100,000", "ns", false, BENCH_NO_TARGET, NULL, bench_c100k_run },
	{ "c1m", "a hop, ring of 1,000,000", "ns", false, BENCH_NO_TARGET, NULL, bench_c1m_run },
	{ "c1ms", "the same in random order", "ns", false, BENCH_NO_TARGET, NULL, bench_c1ms_run },
	{ "d64", "a message, 64 in the queue", "ns", false, BENCH_NO_TARGET, NULL, bench_d64_run },
	{ "d4k", "a message, 4,096 queued", "ns", false, BENCH_NO_TARGET, NULL, bench_d4k_run },
	{ "d256k", "a message, 262,144 queued", "ns", false, BENCH_NO_TARGET, NULL,
	  bench_d256k_run },
	{ "t1k", "start, cancel, 1,000 armed", "ns", false, BENCH_NO_TARGET, NULL, bench_t1k_run },
	{ "t1m", "start, cancel, 1,000,000 armed", "ns", false, BENCH_NO_TARGET, NULL,
	  bench_t1m_run },
	{ "idle", "wake-ups, idle for 10 s", "1/s", false, 0, NULL, bench_idle_run },
};
const unsigned bench_workload_count = OM_COUNT(bench_workloads);
