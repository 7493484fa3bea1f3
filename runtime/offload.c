/* SPDX-License-Identifier: ISC */
/*
 * Blocking work on bounded pools of threads.  Threads are made when work waits and none is idle, up
 * to the limit; they sleep on a condition variable without a time-out.
 *
 * A work is in one of four places: the queue, a thread, its owner's mailbox, gone.  An owner that
 * ends orphans its works (under the lock, before its `stop`).  An orphan is not run any more, only
 * dropped, and that on a thread of its pool too: to undo a work blocks as much as to do it, and an
 * actor's thread must never wait for either.  drop(arg) or done(arg), exactly once.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "runtime/runtime_impl.h"

#define OFFLOAD_GRACE_MS 1000 /* more than workers get: works block by their nature */

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
	unsigned pool;
	bool orphan;
	enum { WORK_QUEUED, WORK_RUNNING, WORK_DROPPING, WORK_POSTED } where;
};

struct om_pool {
	struct om_system *sys;
	pthread_cond_t cond;
	struct om_work *first, *last;
	uint32_t waiting, threads, idle;
	pthread_t *thread;
};

struct om_offload {
	pthread_mutex_t lock;
	pthread_cond_t ended; /* a thread is about to end */
	uint32_t live; /* threads of all pools */
	bool quit;
	struct om_pool pool[OM_OFFLOAD_POOLS];
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
	struct om_ctx *cx;
	bool orphan, locked;

	if (work->where == WORK_DROPPING) {
		work_drop(work);
		return;
	}
	work->result = work->fn(work->arg);
	/*
	 * Locks: the foreign context's first.  A foreign thread that holds it may have to discard a
	 * work, and takes this one in work_give_back.
	 */
	cx = om_system_enter(sys, &locked);
	(void)pthread_mutex_lock(&sys->offload->lock);
	orphan = work->orphan;
	if (!orphan) {
		/* The owner is alive: to end it would have to orphan this work, under this lock. */
		work->where = WORK_POSTED;
		orphan = om_mbox_push_sys(cx, work->owner, &work->node.msg) != OM_OK;
	}
	(void)pthread_mutex_unlock(&sys->offload->lock);
	om_system_leave(sys, locked);
	if (orphan) {
		work_drop(work);
	}
}

/* The lock is held.  Afterwards the work is this thread's. */
static struct om_work *
queue_pop(struct om_pool *pool)
{
	struct om_work *work = pool->first;

	if (work != NULL) {
		pool->first = work->next;
		if (pool->first == NULL) {
			pool->last = NULL;
		}
		pool->waiting--;
		work->where = work->orphan ? WORK_DROPPING : WORK_RUNNING;
	}
	return work;
}

/* The lock is held. */
static void
queue_push(struct om_pool *pool, struct om_work *work)
{
	work->next = NULL;
	work->where = WORK_QUEUED;
	if (pool->last != NULL) {
		pool->last->next = work;
	} else {
		pool->first = work;
	}
	pool->last = work;
}

static void *
offload_main(void *arg)
{
	struct om_pool *pool = arg;
	struct om_offload *off = pool->sys->offload;
	struct om_work *work;

	(void)pthread_mutex_lock(&off->lock);
	/* At the end the actors are gone, and what still waits are orphans. */
	while (!off->quit || pool->first != NULL) {
		work = queue_pop(pool);
		if (work == NULL) {
			pool->idle++;
			(void)pthread_cond_wait(&pool->cond, &off->lock);
			pool->idle--;
			continue;
		}
		(void)pthread_mutex_unlock(&off->lock);
		work_run(pool->sys, work);
		(void)pthread_mutex_lock(&off->lock);
	}
	off->live--;
	(void)pthread_cond_broadcast(&off->ended);
	(void)pthread_mutex_unlock(&off->lock);
	return NULL;
}

/* The lock is held.  false: there is no thread and none can be made. */
static bool
pool_staff(struct om_pool *pool)
{
	if (pool->sys->sim) {
		return true;
	}
	if (pool->idle >= pool->waiting || pool->threads == pool->sys->offload_max) {
		(void)pthread_cond_signal(&pool->cond);
		return true;
	}
	if (pthread_create(&pool->thread[pool->threads], NULL, offload_main, pool) == 0) {
		pool->threads++;
		pool->sys->offload->live++;
	}
	return pool->threads > 0;
}

/* An orphan that came back: dropped on its pool, or here when that is closed already. */
static void
work_give_back(struct om_system *sys, struct om_work *work)
{
	struct om_offload *off = sys->offload;
	struct om_pool *pool = &off->pool[work->pool];
	bool taken = false;

	(void)pthread_mutex_lock(&off->lock);
	if (!off->quit && work->drop != NULL) {
		pool->waiting++;
		taken = pool_staff(pool);
		if (taken) {
			work->orphan = true;
			queue_push(pool, work);
		} else {
			pool->waiting--;
		}
	}
	(void)pthread_mutex_unlock(&off->lock);
	if (!taken) {
		work_drop(work);
	}
}

enum om_err
om_offload_to(struct om_ctx *cx, unsigned pool_index, om_work_fn fn, void *arg,
	      om_work_done_fn done, om_free_fn drop)
{
	struct om_offload *off = cx->sys->offload;
	struct om_pool *pool = &off->pool[pool_index];
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_work *work = aligned_alloc(16, (sizeof(*work) + 15) & ~(size_t)15);
	enum om_err err = OM_OK;

	OM_ASSERT(pool_index < OM_OFFLOAD_POOLS);
	if (ext == NULL || work == NULL) {
		free(work);
		return OM_ERR_NOMEM;
	}
	memset(work, 0, sizeof(*work));
	om_mbox_node_init(&work->node, OM_KIND_WORK, 0, 0);
	work->node.hdr.trace = cx->trace;
	work->owner = cx->self_id;
	work->fn = fn;
	work->arg = arg;
	work->done = done;
	work->drop = drop;
	work->pool = pool_index;
	(void)pthread_mutex_lock(&off->lock);
	if (pool->waiting >= OM_WORK_QUEUE_MAX) {
		err = OM_ERR_FULL;
		goto out;
	}
	pool->waiting++;
	if (!pool_staff(pool)) {
		pool->waiting--;
		err = OM_ERR_NOMEM;
		goto out;
	}
	queue_push(pool, work);
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

enum om_err
om_offload(struct om_ctx *cx, om_work_fn fn, void *arg, om_work_done_fn done, om_free_fn drop)
{
	return om_offload_to(cx, 0, fn, arg, done, drop);
}

/* The node came out of the mailbox. */
void
om_offload_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_work *work = om_container_of(msg, struct om_work, node.msg);
	om_work_done_fn done = work->done;
	uint32_t trace = om_hdr(msg)->trace;
	void *arg = work->arg;
	enum om_err result = work->result;

	if (work->orphan) { /* of an incarnation that is over */
		work_give_back(cx->sys, work);
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
	if (om_unlikely(om_trace_wants(a, trace))) {
		om_trace_begin(cx, trace, OM_TRACE_DONE, NULL);
	}
	done(cx, a->state, arg, result);
	om_trace_end(cx);
}

void
om_offload_discard(struct om_ctx *cx, struct om_msg *msg)
{
	work_give_back(cx->sys, om_container_of(msg, struct om_work, node.msg));
}

void
om_offload_end(struct om_ctx *cx, struct om_actor *a)
{
	struct om_offload *off = cx->sys->offload;
	struct om_work *work = a->ext->works;

	a->ext->works = NULL;
	if (work == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&off->lock);
	for (; work != NULL; work = work->owner_next) {
		work->orphan = true;
	}
	(void)pthread_mutex_unlock(&off->lock);
}

/* --- sim ------------------------------------------------------------------------------------------------ */

size_t
om_offload_waiting(struct om_system *sys)
{
	size_t n = 0;

	for (unsigned i = 0; i < OM_OFFLOAD_POOLS; i++) {
		n += sys->offload->pool[i].waiting;
	}
	return n;
}

/* Runs the n-th waiting work here and now. */
void
om_offload_run_nth(struct om_system *sys, size_t n)
{
	struct om_pool *pool = sys->offload->pool;
	struct om_work **at, *work;

	while (n >= pool->waiting) {
		n -= pool->waiting;
		pool++;
	}
	for (at = &pool->first; n > 0; n--) {
		at = &(*at)->next;
	}
	work = *at;
	*at = work->next;
	pool->last = pool->first;
	while (pool->last != NULL && pool->last->next != NULL) {
		pool->last = pool->last->next;
	}
	pool->waiting--;
	work->where = work->orphan ? WORK_DROPPING : WORK_RUNNING;
	work_run(sys, work);
}

/* --- life ----------------------------------------------------------------------------------------------- */

enum om_err
om_offload_init(struct om_system *sys)
{
	struct om_offload *off = calloc(1, sizeof(*off));
	enum om_err err = OM_OK;

	if (off == NULL) {
		return OM_ERR_NOMEM;
	}
	sys->offload = off;
	(void)pthread_mutex_init(&off->lock, NULL);
	om_cond_init(&off->ended);
	for (unsigned i = 0; i < OM_OFFLOAD_POOLS; i++) {
		struct om_pool *pool = &off->pool[i];

		pool->sys = sys;
		(void)pthread_cond_init(&pool->cond, NULL);
		pool->thread = calloc(sys->offload_max, sizeof(pthread_t));
		err = pool->thread == NULL ? OM_ERR_NOMEM : err;
	}
	return err;
}

/* Waits for the works that run now and drops the orphans.  false: one did not end in time. */
bool
om_offload_stop(struct om_system *sys, uint64_t grace_ms)
{
	struct om_offload *off = sys->offload;
	struct om_work *work;
	struct timespec until = om_cond_deadline(grace_ms + OFFLOAD_GRACE_MS);
	bool in_time = true;

	if (off == NULL) {
		return true;
	}
	(void)pthread_mutex_lock(&off->lock);
	off->quit = true;
	for (unsigned i = 0; i < OM_OFFLOAD_POOLS; i++) {
		(void)pthread_cond_broadcast(&off->pool[i].cond);
	}
	while (off->live > 0 && in_time) {
		in_time = pthread_cond_timedwait(&off->ended, &off->lock, &until) == 0;
	}
	in_time = off->live == 0;
	(void)pthread_mutex_unlock(&off->lock);
	if (!in_time) {
		return false;
	}
	for (unsigned i = 0; i < OM_OFFLOAD_POOLS; i++) {
		struct om_pool *pool = &off->pool[i];

		while (pool->threads > 0) {
			(void)pthread_join(pool->thread[--pool->threads], NULL);
		}
		while ((work = queue_pop(pool)) != NULL) { /* sim mode: nobody else does */
			work_drop(work);
		}
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
	for (unsigned i = 0; i < OM_OFFLOAD_POOLS; i++) {
		(void)pthread_cond_destroy(&off->pool[i].cond);
		free(off->pool[i].thread);
	}
	(void)pthread_cond_destroy(&off->ended);
	(void)pthread_mutex_destroy(&off->lock);
	free(off);
}
