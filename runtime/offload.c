/* SPDX-License-Identifier: ISC */
/*
 * Blocking work on a bounded pool of threads.  Threads are made when work waits and none is idle,
 * up to the limit; they sleep on a condition variable without a time-out.
 *
 * A work is in one of four places: the queue, a thread, its owner's mailbox, gone.  An owner that
 * ends orphans its works (under the lock): a queued one is dropped at once, a running one when it
 * returns, one in the mailbox when the mailbox is closed.  drop(arg) or done(arg), exactly once.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "runtime/runtime_impl.h"

struct om_work {
	struct om_node node;
	struct om_work *next; /* in the queue */
	struct om_work *owner_prev, *owner_next;
	uint64_t owner;
	om_work_fn fn;
	void *arg;
	om_work_done_fn done;
	om_free_fn drop;
	enum om_err result;
	bool orphan;
	enum { WORK_QUEUED, WORK_RUNNING, WORK_POSTED } where;
};

struct om_offload {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct om_work *first, *last;
	uint32_t waiting, threads, idle;
	bool quit;
	pthread_t *thread;
};

static void
work_drop(struct om_work *work)
{
	if (work->drop != NULL) {
		work->drop(work->arg);
	}
	free(work);
}

/* Runs on a thread of the pool (in sim mode: as a step). */
static void
work_run(struct om_system *sys, struct om_work *work)
{
	bool orphan;

	work->result = work->fn(work->arg);
	(void)pthread_mutex_lock(&sys->offload->lock);
	orphan = work->orphan;
	if (!orphan) {
		/* The owner is alive: to end it would have to orphan this work, under this lock. */
		work->where = WORK_POSTED;
		orphan = om_mbox_post_sys(sys, work->owner, &work->node.msg) != OM_OK;
	}
	(void)pthread_mutex_unlock(&sys->offload->lock);
	if (orphan) {
		work_drop(work);
	}
}

/* The lock is held. */
static struct om_work *
queue_pop(struct om_offload *off)
{
	struct om_work *work = off->first;

	if (work != NULL) {
		off->first = work->next;
		if (off->first == NULL) {
			off->last = NULL;
		}
		off->waiting--;
		work->where = WORK_RUNNING;
	}
	return work;
}

static void *
offload_main(void *arg)
{
	struct om_system *sys = arg;
	struct om_offload *off = sys->offload;
	struct om_work *work;

	(void)pthread_mutex_lock(&off->lock);
	while (!off->quit) {
		work = queue_pop(off);
		if (work == NULL) {
			off->idle++;
			(void)pthread_cond_wait(&off->cond, &off->lock);
			off->idle--;
			continue;
		}
		(void)pthread_mutex_unlock(&off->lock);
		work_run(sys, work);
		(void)pthread_mutex_lock(&off->lock);
	}
	(void)pthread_mutex_unlock(&off->lock);
	return NULL;
}

/* The lock is held.  false: there is no thread and none can be made. */
static bool
offload_staff(struct om_system *sys)
{
	struct om_offload *off = sys->offload;

	if (sys->sim) {
		return true;
	}
	if (off->idle >= off->waiting || off->threads == sys->offload_max) {
		(void)pthread_cond_signal(&off->cond);
		return true;
	}
	if (pthread_create(&off->thread[off->threads], NULL, offload_main, sys) == 0) {
		off->threads++;
	}
	return off->threads > 0;
}

enum om_err
om_offload(struct om_ctx *cx, om_work_fn fn, void *arg, om_work_done_fn done, om_free_fn drop)
{
	struct om_offload *off = cx->sys->offload;
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_work *work = aligned_alloc(16, (sizeof(*work) + 15) & ~(size_t)15);
	enum om_err err = OM_OK;

	if (ext == NULL || work == NULL) {
		free(work);
		return OM_ERR_NOMEM;
	}
	memset(work, 0, sizeof(*work));
	om_mbox_node_init(&work->node, OM_KIND_WORK, 0, 0);
	work->owner = cx->self_id;
	work->fn = fn;
	work->arg = arg;
	work->done = done;
	work->drop = drop;
	(void)pthread_mutex_lock(&off->lock);
	if (off->waiting >= OM_WORK_QUEUE_MAX) {
		err = OM_ERR_FULL;
		goto out;
	}
	off->waiting++;
	if (!offload_staff(cx->sys)) {
		off->waiting--;
		err = OM_ERR_NOMEM;
		goto out;
	}
	if (off->last != NULL) {
		off->last->next = work;
	} else {
		off->first = work;
	}
	off->last = work;
	work->owner_next = ext->works;
	if (ext->works != NULL) {
		ext->works->owner_prev = work;
	}
	ext->works = work;
out:
	(void)pthread_mutex_unlock(&off->lock);
	if (err != OM_OK) {
		free(work);
	}
	return err;
}

/* The node came out of the mailbox. */
void
om_offload_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_work *work = om_container_of(msg, struct om_work, node.msg);
	om_work_done_fn done = work->done;
	void *arg = work->arg;
	enum om_err result = work->result;

	if (work->orphan) { /* of an incarnation that is over */
		work_drop(work);
		return;
	}
	if (work->owner_prev != NULL) {
		work->owner_prev->owner_next = work->owner_next;
	} else {
		a->ext->works = work->owner_next;
	}
	if (work->owner_next != NULL) {
		work->owner_next->owner_prev = work->owner_prev;
	}
	free(work);
	done(cx, a->state, arg, result);
}

void
om_offload_discard(struct om_ctx *cx, struct om_msg *msg)
{
	(void)cx;
	work_drop(om_container_of(msg, struct om_work, node.msg));
}

void
om_offload_end(struct om_ctx *cx, struct om_actor *a)
{
	struct om_offload *off = cx->sys->offload;
	struct om_work *work = a->ext->works, **at, *dropped = NULL, *last = NULL;

	a->ext->works = NULL;
	if (work == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&off->lock);
	for (; work != NULL; work = work->owner_next) {
		work->orphan = true;
	}
	at = &off->first;
	while ((work = *at) != NULL) {
		if (work->orphan) {
			*at = work->next;
			off->waiting--;
			work->next = dropped;
			dropped = work;
		} else {
			last = work;
			at = &work->next;
		}
	}
	off->last = last;
	(void)pthread_mutex_unlock(&off->lock);
	while ((work = dropped) != NULL) {
		dropped = work->next;
		work_drop(work);
	}
}

/* --- sim ------------------------------------------------------------------------------------------------ */

size_t
om_offload_waiting(struct om_system *sys)
{
	return sys->offload->waiting;
}

/* Runs the n-th waiting work here and now. */
void
om_offload_run_nth(struct om_system *sys, size_t n)
{
	struct om_offload *off = sys->offload;
	struct om_work **at = &off->first, *work;

	while (n-- > 0) {
		at = &(*at)->next;
	}
	work = *at;
	*at = work->next;
	off->last = off->first;
	while (off->last != NULL && off->last->next != NULL) {
		off->last = off->last->next;
	}
	off->waiting--;
	work->where = WORK_RUNNING;
	work_run(sys, work);
}

/* --- life ----------------------------------------------------------------------------------------------- */

enum om_err
om_offload_init(struct om_system *sys)
{
	struct om_offload *off = calloc(1, sizeof(*off));

	if (off == NULL) {
		return OM_ERR_NOMEM;
	}
	sys->offload = off;
	(void)pthread_mutex_init(&off->lock, NULL);
	(void)pthread_cond_init(&off->cond, NULL);
	off->thread = calloc(sys->offload_max, sizeof(pthread_t));
	return off->thread == NULL ? OM_ERR_NOMEM : OM_OK;
}

/* Waits for the works that run now.  false: one did not end in time; its thread goes on. */
bool
om_offload_stop(struct om_system *sys, uint64_t grace_ms)
{
	struct om_offload *off = sys->offload;
	struct timespec until;

	if (off == NULL) {
		return true;
	}
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(grace_ms / 1000) + 1;
	(void)pthread_mutex_lock(&off->lock);
	off->quit = true;
	(void)pthread_cond_broadcast(&off->cond);
	(void)pthread_mutex_unlock(&off->lock);
	while (off->threads > 0) {
		if (pthread_timedjoin_np(off->thread[off->threads - 1], NULL, &until) != 0) {
			return false;
		}
		off->threads--;
	}
	return true;
}

void
om_offload_fini(struct om_system *sys)
{
	struct om_offload *off = sys->offload;

	if (off == NULL) {
		return;
	}
	(void)pthread_mutex_destroy(&off->lock);
	(void)pthread_cond_destroy(&off->cond);
	free(off->thread);
	free(off);
}
