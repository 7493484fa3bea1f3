/* SPDX-License-Identifier: ISC */
/*
 * The Savina workloads that make and end many actors (W4 spawn, W6 skynet), and what an idle one
 * takes (W7).  The rules are those of workloads.c.
 */
#include "base/assert.h"
#include "bench/runtime/bench.h"

#define W4_ACTORS  1000000
#define W4C_BATCH  100
#define W6_LEAVES  1000000
#define W6_FAN_OUT 10
#define W7_ACTORS  1000000

enum { T_START = 1, T_NUM };

/* --- W4: spawn ----------------------------------------------------------------------------------------- */

static uint64_t w4_batch, w4_ended;

struct w4_spawner {
	uint64_t spawned;
};

static enum om_err
w4_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	om_exit(cx);
	return OM_OK;
}

static void
w4_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	(void)cx;
	(void)state;
	OM_ASSERT(why == OM_OK);
	if (__atomic_add_fetch(&w4_ended, 1, __ATOMIC_RELAXED) == W4_ACTORS) {
		bench_done();
	}
}

static const struct om_handler w4_handlers[] = { { T_NUM, w4_on_num } };
static const struct om_actor_def w4_def = {
	.name = "short", .stop = w4_stop, .handlers = w4_handlers, .handler_count = 1
};

static enum om_err
w4_on_start(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w4_spawner *s = state;
	uint64_t until = w4_batch == 0 ? W4_ACTORS : s->spawned + w4_batch;

	(void)msg;
	for (; s->spawned < until; s->spawned++) {
		struct om_actor_id id;

		OM_ASSERT(om_spawn(cx, &w4_def, NULL, &id) == OM_OK);
		OM_ASSERT(om_send_u64(cx, id, T_NUM, s->spawned) == OM_OK);
	}
	return s->spawned < W4_ACTORS ? OM_AGAIN : OM_OK;
}

static const struct om_handler w4_spawner_handlers[] = { { T_START, w4_on_start } };
static const struct om_actor_def w4_spawner_def = { .name = "spawner",
						    .state_size = sizeof(struct w4_spawner),
						    .handlers = w4_spawner_handlers,
						    .handler_count = 1 };

static struct bench_result
w4_run_batch(unsigned workers, uint64_t batch)
{
	struct om_system *sys = bench_system(workers);
	double start, took;

	w4_batch = batch;
	w4_ended = 0;
	start = bench_now();
	bench_post(sys, bench_spawn(sys, &w4_spawner_def, NULL), T_START, 0);
	bench_wait();
	took = bench_now() - start;
	bench_system_end(sys);
	return (struct bench_result){ W4_ACTORS / took / 1e6, 0 };
}

struct bench_result
bench_w4_run(unsigned workers)
{
	return w4_run_batch(workers, 0);
}

struct bench_result
bench_w4c_run(unsigned workers)
{
	return w4_run_batch(workers, W4C_BATCH);
}

/* --- W6: skynet ------------------------------------------------------------------------------------------ */

struct w6_order { /* in the message: number of the first leaf, leaves below */
	uint64_t number, size, parent;
};
static uint64_t w6_sum;

static enum om_err w6_on_order(struct om_ctx *cx, void *state, const struct om_msg *msg);

static enum om_err w6_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg);

static const struct om_handler w6_handlers[] = { { T_START, w6_on_order }, { T_NUM, w6_on_num } };

struct w6 {
	struct om_actor_id parent;
	uint64_t sum;
	uint32_t waiting;
};
static const struct om_actor_def w6_def = { .name = "skynet",
					    .state_size = sizeof(struct w6),
					    .handlers = w6_handlers,
					    .handler_count = 2 };

static enum om_err
w6_finish(struct om_ctx *cx, struct w6 *w, uint64_t sum)
{
	if (w->parent.v == 0) {
		w6_sum = sum;
		bench_done();
	} else if (om_send_u64(cx, w->parent, T_NUM, sum) != OM_OK) {
		OM_ASSERT(false);
	}
	om_exit(cx);
	return OM_OK;
}

static enum om_err
w6_on_order(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	const struct w6_order *o = (const struct w6_order *)(const void *)msg->payload;
	struct w6 *w = state;

	w->parent.v = o->parent;
	if (o->size == 1) {
		return w6_finish(cx, w, o->number);
	}
	w->waiting = W6_FAN_OUT;
	for (uint64_t i = 0; i < W6_FAN_OUT; i++) {
		struct om_msg *m = om_msg_new(cx, T_START, sizeof(struct w6_order));
		uint64_t size = o->size / W6_FAN_OUT;
		struct om_actor_id id;

		OM_ASSERT(m != NULL && om_spawn(cx, &w6_def, NULL, &id) == OM_OK);
		*(struct w6_order *)(void *)m->payload = (struct w6_order){
			.number = o->number + i * size, .size = size, .parent = om_self(cx).v
		};
		OM_ASSERT(om_send(cx, id, &m) == OM_OK);
	}
	return OM_OK;
}

static enum om_err
w6_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w6 *w = state;

	w->sum += om_msg_u64(msg);
	if (--w->waiting == 0) {
		return w6_finish(cx, w, w->sum);
	}
	return OM_OK;
}

struct bench_result
bench_w6_run(unsigned workers)
{
	struct om_system *sys = bench_system(workers);
	struct om_actor_id root = bench_spawn(sys, &w6_def, NULL);
	struct om_msg *m = om_system_msg_new(sys, T_START, sizeof(struct w6_order));
	double start = bench_now(), took;

	OM_ASSERT(m != NULL);
	*(struct w6_order *)(void *)m->payload = (struct w6_order){ .size = W6_LEAVES };
	OM_ASSERT(om_system_send(sys, root, &m) == OM_OK);
	bench_wait();
	took = bench_now() - start;
	OM_ASSERT(w6_sum == (uint64_t)W6_LEAVES * (W6_LEAVES - 1) / 2);
	bench_system_end(sys);
	return (struct bench_result){ took, 0 };
}

/* --- W7: memory per idle actor --------------------------------------------------------------------------- */

struct w7 {
	uint64_t seen;
};
static uint64_t w7_started;

static enum om_err
w7_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w7 *w = state;

	(void)cx;
	w->seen += om_msg_u64(msg);
	if (__atomic_add_fetch(&w7_started, 1, __ATOMIC_RELAXED) == W7_ACTORS) {
		bench_done();
	}
	return OM_OK;
}

static const struct om_handler w7_handlers[] = { { T_NUM, w7_on_num } };
static const struct om_actor_def w7_def = {
	.name = "idle", .state_size = sizeof(struct w7), .handlers = w7_handlers, .handler_count = 1
};

/* Spawns in turns, so that the messages that wake them are not counted as theirs. */
static enum om_err
w7_on_start(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct w4_spawner *s = state;

	(void)msg;
	for (unsigned i = 0; i < 1000; i++, s->spawned++) {
		struct om_actor_id id;

		OM_ASSERT(om_spawn(cx, &w7_def, NULL, &id) == OM_OK);
		OM_ASSERT(om_send_u64(cx, id, T_NUM, 1) == OM_OK);
	}
	return s->spawned < W7_ACTORS ? OM_AGAIN : OM_OK;
}

static const struct om_handler w7_spawner_handlers[] = { { T_START, w7_on_start } };
static const struct om_actor_def w7_spawner_def = { .name = "spawner",
						    .state_size = sizeof(struct w4_spawner),
						    .handlers = w7_spawner_handlers,
						    .handler_count = 1 };

struct bench_result
bench_w7_run(unsigned workers)
{
	struct om_system *sys = bench_system(workers);
	double before = bench_rss_mib(), after;

	w7_started = 0;
	bench_post(sys, bench_spawn(sys, &w7_spawner_def, NULL), T_START, 0);
	bench_wait();
	after = bench_rss_mib();
	bench_system_end(sys);
	return (struct bench_result){ (after - before) * 1048576.0 / W7_ACTORS, 0 };
}
