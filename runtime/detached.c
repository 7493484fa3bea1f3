/* SPDX-License-Identifier: ISC */
/*
 * Detached actors: each owns a thread, with a door like a worker's, and may block.
 */
#include <stdlib.h>
#include "runtime/scheduler_impl.h"

static void *
detached_main(void *arg)
{
	struct om_detached *d = arg;
	struct om_ctx *cx = d->cx;
	struct om_sched *sched = cx->sys->sched;
	struct om_actor *a;
	uint32_t mark;

	om_tls_ctx = cx;
	while (!cx->quit) {
		mark = ck_ec32_value(&cx->wake->ec);
		(void)om_sched_take_inject(cx);
		a = runq_pop(cx);
		if (a != NULL) {
			om_sched_run(cx, a, OM_RUN_BUDGET);
		} else {
			(void)ck_ec32_wait(&cx->wake->ec, &ec_mode_forever, mark, NULL);
		}
	}
	om_tls_ctx = NULL;
	(void)pthread_mutex_lock(&sched->ends_lock);
	d->next = sched->detached_done;
	sched->detached_done = d;
	sched->detached_live--;
	(void)pthread_cond_broadcast(&sched->ends_cond);
	(void)pthread_mutex_unlock(&sched->ends_lock);
	return NULL;
}

/*
 * Joins threads whose actors have ended.  Their contexts are kept for the next detached actors and
 * never freed before the system: a sender may still be inside ck_ec32_inc of the door.
 */
void
om_detached_reap(struct om_system *sys)
{
	struct om_sched *sched = sys->sched;
	struct om_detached *d;

	(void)pthread_mutex_lock(&sched->ends_lock);
	while ((d = sched->detached_done) != NULL) {
		sched->detached_done = d->next;
		(void)pthread_mutex_unlock(&sched->ends_lock);
		(void)pthread_join(d->thread, NULL);
		(void)pthread_mutex_lock(&sched->ends_lock);
		d->next = sched->detached_spare;
		sched->detached_spare = d;
	}
	(void)pthread_mutex_unlock(&sched->ends_lock);
}

/* Makes the thread that will run the (not yet opened) actor. */
enum om_err
om_detached_start(struct om_ctx *cx, struct om_actor *a)
{
	struct om_sched *sched = cx->sys->sched;
	struct om_detached *d;

	if (cx->sys->sim) {
		return OM_OK;
	}
	om_detached_reap(cx->sys);
	(void)pthread_mutex_lock(&sched->ends_lock);
	d = sched->detached_spare;
	if (d != NULL) {
		sched->detached_spare = d->next;
	}
	(void)pthread_mutex_unlock(&sched->ends_lock);
	if (d == NULL) {
		d = calloc(1, sizeof(*d));
		if (d == NULL) {
			return OM_ERR_NOMEM;
		}
		d->cx = om_ctx_new(cx->sys, OM_CTX_DETACHED, UINT8_MAX);
		if (d->cx == NULL) {
			free(d);
			return OM_ERR_NOMEM;
		}
	}
	d->cx->quit = false;
	a->ext->detached = d;
	(void)pthread_mutex_lock(&sched->ends_lock);
	sched->detached_live++;
	(void)pthread_mutex_unlock(&sched->ends_lock);
	if (pthread_create(&d->thread, NULL, detached_main, d) != 0) {
		(void)pthread_mutex_lock(&sched->ends_lock);
		sched->detached_live--;
		d->next = sched->detached_spare;
		sched->detached_spare = d;
		(void)pthread_mutex_unlock(&sched->ends_lock);
		return OM_ERR_NOMEM;
	}
	return OM_OK;
}
