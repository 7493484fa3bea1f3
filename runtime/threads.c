/* SPDX-License-Identifier: ISC */
/*
 * Contexts, one a thread, and the start and end of the workers' threads.
 *
 * A context is never freed before its system: statistics walk the list of all, and a sender may be
 * inside the event count of a door whose thread has ended.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "runtime/scheduler_impl.h"

/* --- contexts ------------------------------------------------------------------------------------- */

struct om_ctx *
om_ctx_new(struct om_system *sys, enum om_ctx_kind kind, unsigned index)
{
	size_t size = (sizeof(struct om_ctx) + OM_CACHE_LINE - 1) & ~(size_t)(OM_CACHE_LINE - 1);
	struct om_ctx *cx = aligned_alloc(OM_CACHE_LINE, size + sizeof(struct om_wake));

	if (cx == NULL) {
		return NULL;
	}
	memset(cx, 0, size + sizeof(struct om_wake));
	cx->sys = sys;
	cx->kind = (uint8_t)kind;
	cx->index = (uint8_t)index;
	cx->wake = (struct om_wake *)(void *)((char *)cx + size);
	ck_ec32_init(&cx->wake->ec, 0);
	cx->window = 1;
	cx->window_left = 1;
	cx->sample = 64;
	cx->follow = OM_NOWHERE;
	cx->rng = (sys->sim ? om_sim_rand(sys) : sched_tsc()) + index;
	/* Contexts are never taken out of the list before the system is freed. */
	cx->next_ctx = ck_pr_load_ptr(&sys->contexts);
	do {
		ck_pr_fence_release(); /* the context before it can be found: om_ctx_first */
		om_tsan_release(&sys->contexts);
	} while (!ck_pr_cas_ptr_value(&sys->contexts, cx->next_ctx, cx, (void *)&cx->next_ctx));
	return cx;
}

/* Any thread.  All contexts there are, linked by next_ctx. */
struct om_ctx *
om_ctx_first(struct om_system *sys)
{
	struct om_ctx *cx = ck_pr_load_ptr(&sys->contexts);

	ck_pr_fence_acquire();
	om_tsan_acquire(&sys->contexts);
	return cx;
}

void
om_ctx_free(struct om_ctx *cx)
{
	free(cx);
}

/* --- deadlines ---------------------------------------------------------------------------------------- */

/* A condition whose timed waits do not care what the system's clock is set to. */
void
om_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &attr);
	(void)pthread_condattr_destroy(&attr);
}

struct timespec
om_cond_deadline(uint64_t ms)
{
	int64_t ns = om_ns_after(om_mono_now().ns, ms);

	return (struct timespec){ .tv_sec = (time_t)(ns / OM_NS_PER_S),
				  .tv_nsec = (long)(ns % OM_NS_PER_S) };
}

/* --- workers --------------------------------------------------------------------------------------- */

enum om_err
om_sched_init(struct om_system *sys)
{
	struct om_sched *sched = aligned_alloc(OM_CACHE_LINE, (sizeof(*sched) + OM_CACHE_LINE - 1) &
								  ~(size_t)(OM_CACHE_LINE - 1));

	if (sched == NULL) {
		return OM_ERR_NOMEM;
	}
	memset(sched, 0, sizeof(*sched));
	ck_ec32_init(&sched->ended, 0);
	ck_ec32_init(&sched->room, 0);
	(void)pthread_mutex_init(&sched->ends_lock, NULL);
	om_cond_init(&sched->ends_cond);
	sys->sched = sched;
	sys->worker = calloc(sys->workers, sizeof(struct om_ctx *));
	if (sys->worker == NULL) {
		return OM_ERR_NOMEM;
	}
	for (unsigned i = 0; i < sys->workers; i++) {
		sys->worker[i] = om_ctx_new(sys, OM_CTX_WORKER, i);
		if (sys->worker[i] == NULL) {
			return OM_ERR_NOMEM;
		}
	}
	return OM_OK;
}

enum om_err
om_sched_start(struct om_system *sys)
{
	struct om_sched *sched = sys->sched;

	sched->workers_live = sys->workers;
	for (unsigned i = 0; i < sys->workers; i++) {
		if (pthread_create(&sched->threads[i], NULL, om_sched_worker_main,
				   sys->worker[i]) != 0) {
			(void)pthread_mutex_lock(&sched->ends_lock);
			sched->workers_live -= sys->workers - i;
			(void)pthread_mutex_unlock(&sched->ends_lock);
			return OM_ERR_NOMEM;
		}
		sched->started++;
	}
	return OM_OK;
}

/* Waits until *live, which ends_lock guards, is 0.  false: not within grace_ms. */
static bool
sched_wait_ends(struct om_sched *sched, const unsigned *live, uint64_t grace_ms)
{
	struct timespec until = om_cond_deadline(grace_ms);
	bool in_time = true;

	(void)pthread_mutex_lock(&sched->ends_lock);
	while (*live > 0 && in_time) {
		in_time = pthread_cond_timedwait(&sched->ends_cond, &sched->ends_lock, &until) == 0;
	}
	in_time = *live == 0;
	(void)pthread_mutex_unlock(&sched->ends_lock);
	return in_time;
}

/*
 * Ends the threads.  false: a worker or a detached actor is stuck in a handler after grace_ms; its
 * thread goes on and the system's memory must stay.
 */
bool
om_sched_stop(struct om_system *sys, uint64_t grace_ms)
{
	struct om_sched *sched = sys->sched;
	bool clean = sched_wait_ends(sched, &sched->detached_live, grace_ms);

	om_detached_reap(sys);
	ck_pr_store_32(&sched->quit, 1);
	/* Order: quit before the event counts.  Pairs with worker_idle: count, then quit, then sleep. */
	ck_pr_fence_memory();
	for (unsigned i = 0; i < sched->started; i++) {
		ck_ec32_inc(&sys->worker[i]->wake->ec, &ec_mode_forever);
	}
	if (!sched_wait_ends(sched, &sched->workers_live, grace_ms)) {
		return false;
	}
	while (sched->started > 0) {
		(void)pthread_join(sched->threads[--sched->started], NULL);
	}
	return clean;
}

void
om_sched_fini(struct om_system *sys)
{
	struct om_sched *sched = sys->sched;

	for (unsigned i = 0; sys->worker != NULL && i < sys->workers; i++) {
		om_ctx_free(sys->worker[i]);
	}
	free(sys->worker);
	if (sched == NULL) {
		return;
	}
	while (sched->detached_spare != NULL) {
		struct om_detached *d = sched->detached_spare;

		sched->detached_spare = d->next;
		om_ctx_free(d->cx);
		free(d);
	}
	(void)pthread_mutex_destroy(&sched->ends_lock);
	(void)pthread_cond_destroy(&sched->ends_cond);
	free(sched);
}
