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
	(void)pthread_mutex_init(&sched->detached_lock, NULL);
	(void)pthread_cond_init(&sched->detached_cond, NULL);
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
	for (unsigned i = 0; i < sys->workers; i++) {
		if (pthread_create(&sys->sched->threads[i], NULL, om_sched_worker_main,
				   sys->worker[i]) != 0) {
			return OM_ERR_NOMEM;
		}
		sys->sched->started++;
	}
	return OM_OK;
}

/*
 * Ends the threads.  false: a worker or a detached actor is stuck in a handler after grace_ms; its
 * thread goes on and the system's memory must stay.
 */
bool
om_sched_stop(struct om_system *sys, uint64_t grace_ms)
{
	struct om_sched *sched = sys->sched;
	struct timespec until;
	bool clean = true;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(grace_ms / 1000);
	until.tv_nsec += (long)(grace_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_mutex_lock(&sched->detached_lock);
	while (sched->detached_live > 0 && clean) {
		clean = pthread_cond_timedwait(&sched->detached_cond, &sched->detached_lock,
					       &until) == 0;
	}
	(void)pthread_mutex_unlock(&sched->detached_lock);
	om_detached_reap(sys);
	ck_pr_store_32(&sched->quit, 1);
	ck_pr_fence_memory();
	for (unsigned i = 0; i < sched->started; i++) {
		ck_ec32_inc(&sys->worker[i]->wake->ec, &ec_mode_forever);
	}
	while (sched->started > 0) {
		if (pthread_timedjoin_np(sched->threads[sched->started - 1], NULL, &until) != 0) {
			return false;
		}
		sched->started--;
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
	(void)pthread_mutex_destroy(&sched->detached_lock);
	(void)pthread_cond_destroy(&sched->detached_cond);
	free(sched);
}
