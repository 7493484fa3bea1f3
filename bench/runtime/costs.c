/* SPDX-License-Identifier: ISC */
/*
 * Does a message cost more when there are more actors, or more messages before it; a timer, when more
 * are armed?  And what does a system do that has nothing to do?
 *
 * The cost of an actor that is not in any cache is a fact of the machine: a ring visits its actors
 * in order, so the rows show what is left when the next actor can be foreseen, and the shuffled ring
 * what is left when it cannot.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/assert.h"
#include "bench/runtime/bench.h"

#define RING_HOPS   4000000
#define DEPTH_ALL   4194304 /* messages, whatever the depth: a power of two */
#define TIMER_ALL   1000000 /* starts and cancels, however many others are armed */
#define TIMER_TURN  1000
#define TIMER_FAR   3600000 /* ms: in an hour or two, so that none fires */
#define IDLE_S      10
#define IDLE_ACTORS 1000

enum { T_START = 1, T_NUM, T_NEXT };

/* --- a ring of n actors ------------------------------------------------------------------------------- */

struct ring {
	struct om_actor_id next;
};

static enum om_err
ring_on_next(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct ring *r = state;

	(void)cx;
	r->next.v = om_msg_u64(msg);
	return OM_OK;
}

static enum om_err
ring_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct ring *r = state;
	uint64_t left = om_msg_u64(msg);

	if (left == 0) {
		bench_done();
		return OM_OK;
	}
	return om_send_u64(cx, r->next, T_NUM, left - 1);
}

static const struct om_handler ring_handlers[] = { { T_NUM, ring_on_num },
						   { T_NEXT, ring_on_next } };
static const struct om_actor_def ring_def = { .name = "ring",
					      .state_size = sizeof(struct ring),
					      .handlers = ring_handlers,
					      .handler_count = OM_COUNT(ring_handlers) };

/* Fisher and Yates: each order is as likely as any other. */
static void
shuffle(struct om_actor_id *all, unsigned n)
{
	uint64_t seed = 88172645463325252u; /* xorshift64, Marsaglia: each run has the same order */

	for (unsigned i = n - 1; i > 0; i--) {
		struct om_actor_id other;
		uint64_t j;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		j = seed % (i + 1);
		other = all[j];
		all[j] = all[i];
		all[i] = other;
	}
}

static struct bench_result
ring_run(unsigned workers, unsigned n, bool shuffled)
{
	struct om_system *sys = bench_system(workers);
	struct om_actor_id *all = calloc(n, sizeof(*all));
	double start, took;

	OM_ASSERT(all != NULL);
	for (unsigned i = 0; i < n; i++) {
		all[i] = bench_spawn(sys, &ring_def, NULL);
	}
	if (shuffled) {
		shuffle(all, n);
	}
	for (unsigned i = 0; i < n; i++) {
		bench_post(sys, all[i], T_NEXT, all[(i + 1) % n].v);
	}
	bench_post(sys, all[0], T_NUM, n); /* once round: all have heard of their neighbour */
	bench_wait();
	start = bench_now();
	bench_post(sys, all[0], T_NUM, RING_HOPS);
	bench_wait();
	took = bench_now() - start;
	free(all);
	bench_system_end(sys);
	return (struct bench_result){ took / RING_HOPS * 1e9, 0 };
}

struct bench_result
bench_c1k_run(unsigned workers)
{
	return ring_run(workers, 1000, false);
}

struct bench_result
bench_c100k_run(unsigned workers)
{
	return ring_run(workers, 100000, false);
}

struct bench_result
bench_c1m_run(unsigned workers)
{
	return ring_run(workers, 1000000, false);
}

struct bench_result
bench_c1ms_run(unsigned workers)
{
	return ring_run(workers, 1000000, true);
}

/* --- a queue of n messages ------------------------------------------------------------------------------ */

/* An actor that sends itself n messages, waits for the last, and begins again. */
struct depth {
	uint64_t n, left, waiting;
};

static enum om_err
depth_fill(struct om_ctx *cx, struct depth *d)
{
	d->waiting = d->n;
	for (uint64_t i = 0; i < d->n; i++) {
		OM_ASSERT(om_send_u64(cx, om_self(cx), T_NUM, i) == OM_OK);
	}
	return OM_OK;
}

static enum om_err
depth_on_start(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct depth *d = state;

	d->n = om_msg_u64(msg);
	d->left = DEPTH_ALL;
	return depth_fill(cx, d);
}

static enum om_err
depth_on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct depth *d = state;

	(void)msg;
	if (--d->left == 0) {
		bench_done();
		return OM_OK;
	}
	return --d->waiting == 0 ? depth_fill(cx, d) : OM_OK;
}

static const struct om_handler depth_handlers[] = { { T_NUM, depth_on_num },
						    { T_START, depth_on_start } };
static const struct om_actor_def depth_def = { .name = "depth",
					       .state_size = sizeof(struct depth),
					       .handlers = depth_handlers,
					       .handler_count = OM_COUNT(depth_handlers),
					       .mailbox_slots = 524288 };

static struct bench_result
depth_run(unsigned workers, uint64_t n)
{
	struct om_system *sys = bench_system(workers);
	struct om_actor_id who = bench_spawn(sys, &depth_def, NULL);
	double start = bench_now(), took;

	bench_post(sys, who, T_START, n);
	bench_wait();
	took = bench_now() - start;
	bench_system_end(sys);
	return (struct bench_result){ took / DEPTH_ALL * 1e9, 0 };
}

struct bench_result
bench_d64_run(unsigned workers)
{
	return depth_run(workers, 64);
}

struct bench_result
bench_d4k_run(unsigned workers)
{
	return depth_run(workers, 4096);
}

struct bench_result
bench_d256k_run(unsigned workers)
{
	return depth_run(workers, 262144);
}

/* --- n timers ------------------------------------------------------------------------------------------- */

/* An actor with n timers armed, somewhere in an hour to come, that starts and cancels one more. */
struct timers {
	uint64_t left;
	double start;
};
static double timers_took;

static uint64_t
timer_one(struct om_ctx *cx)
{
	uint64_t delay = TIMER_FAR + om_rand(cx) % TIMER_FAR, timer;

	OM_ASSERT(om_timer_start(cx, delay, 0, 0, &timer) == OM_OK);
	return timer;
}

static enum om_err
timers_on_arm(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct timers *t = state;

	if (t->left == 0) {
		t->left = om_msg_u64(msg);
	}
	for (unsigned i = 0; i < TIMER_TURN && t->left > 0; i++, t->left--) {
		(void)timer_one(cx);
	}
	return t->left > 0 ? OM_AGAIN : OM_OK;
}

static enum om_err
timers_on_start(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct timers *t = state;

	(void)msg;
	if (t->left == 0) {
		t->left = TIMER_ALL;
		t->start = bench_now();
	}
	for (unsigned i = 0; i < TIMER_TURN; i++, t->left--) {
		om_timer_cancel(cx, timer_one(cx));
	}
	if (t->left > 0) {
		return OM_AGAIN;
	}
	timers_took = bench_now() - t->start;
	bench_done();
	return OM_OK;
}

static const struct om_handler timers_handlers[] = { { T_NUM, timers_on_arm },
						     { T_START, timers_on_start } };
static const struct om_actor_def timers_def = { .name = "timers",
						.state_size = sizeof(struct timers),
						.handlers = timers_handlers,
						.handler_count = OM_COUNT(timers_handlers) };

static struct bench_result
timers_run(unsigned workers, uint64_t n)
{
	struct om_system *sys = bench_system(workers);
	struct om_actor_id who = bench_spawn(sys, &timers_def, NULL);

	bench_post(sys, who, T_NUM, n);
	bench_post(sys, who, T_START, 0);
	bench_wait();
	bench_system_end(sys);
	return (struct bench_result){ timers_took / TIMER_ALL * 1e9, 0 };
}

struct bench_result
bench_t1k_run(unsigned workers)
{
	return timers_run(workers, 1000);
}

struct bench_result
bench_t1m_run(unsigned workers)
{
	return timers_run(workers, 1000000);
}

/* --- nothing to do ---------------------------------------------------------------------------------------- */

/* How often the threads of this process but the calling one have been given a core. */
static uint64_t
wake_ups(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *e;
	uint64_t sum = 0;

	OM_ASSERT(dir != NULL);
	while ((e = readdir(dir)) != NULL) {
		char path[300], line[256];
		FILE *f;

		if (e->d_name[0] == '.' || strtol(e->d_name, NULL, 10) == (long)gettid()) {
			continue;
		}
		(void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", e->d_name);
		f = fopen(path, "re");
		OM_ASSERT(f != NULL);
		while (fgets(line, sizeof(line), f) != NULL) {
			const char *count = strstr(line, "ctxt_switches:");

			if (count != NULL) {
				sum += strtoull(count + strlen("ctxt_switches:"), NULL, 10);
			}
		}
		(void)fclose(f);
	}
	(void)closedir(dir);
	return sum;
}

struct bench_result
bench_idle_run(unsigned workers)
{
	struct om_system *sys = bench_system(workers);
	struct timespec settle = { .tv_sec = 1 }, idle = { .tv_sec = IDLE_S };
	uint64_t before, after;

	for (unsigned i = 0; i < IDLE_ACTORS; i++) {
		bench_post(sys, bench_spawn(sys, &ring_def, NULL), T_NEXT, 0);
	}
	(void)nanosleep(&settle, NULL); /* workers park, the watchdog goes to sleep */
	before = wake_ups();
	(void)nanosleep(&idle, NULL);
	after = wake_ups();
	bench_system_end(sys);
	return (struct bench_result){ (double)(after - before) / IDLE_S, 0 };
}
