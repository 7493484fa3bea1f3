/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_SCHEDULER_IMPL_H
#define OM_RUNTIME_SCHEDULER_IMPL_H

/*
 * What the files about threads share: scheduler.c, wait.c, threads.c, detached.c, watchdog.c and
 * port.c.  Invariants 1 to 3 are in scheduler.c.
 */
#include <ck_ec.h>
#include <ck_pr.h>
#include "runtime/runtime_impl.h"

#define SCHED_SPIN 16 /* looks between two offers of the core: half a microsecond */

struct om_wake {
	uint64_t inject; /* shared: struct om_actor *, newest first, linked by run_next */
	struct ck_ec32 ec;
} __attribute__((aligned(OM_CACHE_LINE)));

struct watch_entry {
	const struct om_actor *actor;
	uint64_t call;
	uint64_t cpu_ns; /* of the worker's thread, when the handler was first seen */
	uint32_t ticks;
	bool reported;
};

struct om_detached {
	struct om_detached *next;
	pthread_t thread;
	struct om_ctx *cx;
};

struct om_sched {
	uint64_t hungry; /* shared: one bit a worker */
	uint32_t quit; /* shared */
	uint32_t awake; /* shared: the watchdog ticks */
	uint32_t end_waiters, room_waiters; /* shared */
	struct ck_ec32 ended __attribute__((aligned(OM_CACHE_LINE)));
	struct ck_ec32 room;
	unsigned started;
	pthread_t threads[OM_WORKER_MAX];
	uint32_t tid[OM_WORKER_MAX]; /* shared */
	struct watch_entry watch[OM_WORKER_MAX];
	uint32_t quiet_ticks;
	/* ends_cond: a thread is about to end */
	pthread_mutex_t ends_lock;
	pthread_cond_t ends_cond;
	unsigned workers_live, detached_live;
	struct om_detached *detached_done, *detached_spare;
};

/*
 * wait.c.  The modes are constants here, so that ck_ec's inline code folds what it asks of them.
 * _forever: for waits without a deadline (invariant 3).
 */
extern const struct ck_ec_ops om_ec_ops, om_ec_ops_forever;
static const struct ck_ec_mode ec_mode = { .ops = &om_ec_ops };
static const struct ck_ec_mode ec_mode_forever = { .ops = &om_ec_ops_forever };

/* An argument of pthread_create: the struct om_ctx of the worker. */
void *om_sched_worker_main(void *arg);

static inline uint64_t
sched_tsc(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return (uint64_t)om_mono_now().ns;
#endif
}

/* --- the run queue of one thread: no atomics ------------------------------------------------------ */

/*
 * The next actor.  Fresh ones go first, the newest before the others: a tree of actors that spawn
 * actors is walked depth first, so it needs memory for its height, not for its width, and a short
 * life is over while it is in the cache.  worker_mix_fresh sees to it that nobody starves.
 */
static inline struct om_actor *
runq_pop(struct om_ctx *cx)
{
	struct om_actor *a = cx->fresh;

	if (a != NULL) {
		cx->fresh = a->run_next;
		cx->fresh_count--;
		return a;
	}
	a = cx->run_head;
	if (a != NULL) {
		cx->run_head = --cx->run_count > 0 ? a->run_next : NULL;
	}
	return a;
}

#endif /* OM_RUNTIME_SCHEDULER_IMPL_H */
