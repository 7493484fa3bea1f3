/* SPDX-License-Identifier: ISC */
/*
 * Groups: what is written together, and answered when it is durable.
 *
 * 1. A write is answered after the commit that holds it, never before.  If broken: an acknowledged
 *    job is lost in a crash.
 * 2. Answers go out in the order of the requests, then the events of the group in theirs.  If broken:
 *    the provider hears of a job's end before it knows the job.
 * 3. A failed group leaves nothing behind; every write in it gets the reason.  The writes that
 *    follow are groups of their own (`degraded`) until one works, so that questions between them are
 *    answered although nothing can be written.
 * 4. A large group is `sent`: a thread of the pool waits for the disk, and the next group is made.  Who
 *    read what it wrote is answered after it, and fails with it, as that next group does.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "actors/ledger_impl.h"
#include "base/log.h"

#define LEDGER_FOLD_MS 200 /* from a commit until the file has it for other readers */
#define LEDGER_WIPE_MS 1000 /* the keys of all jobs that ended meanwhile go together */
/* Writes for which two more threads are woken: the disk takes longer, and more wait already. */
#define LEDGER_SEND_MIN 24

enum om_err
ledger_begin(struct ledger *l)
{
	enum om_err err;

	if (l->in_tx) {
		return OM_OK;
	}
	err = om_store_begin(l->store);
	l->in_tx = err == OM_OK;
	return err;
}

static void
group_reset(struct ledger *l)
{
	STAILQ_INIT(&l->answers);
	STAILQ_INIT(&l->events);
	l->group = 0;
	l->group_bytes = 0;
	memset(l->group_moves, 0, sizeof(l->group_moves));
	om_arena_reset(&l->arena);
}

void
ledger_group_init(struct ledger *l, size_t arena_max)
{
	l->arena.max = arena_max;
	l->sent.arena.max = arena_max;
	group_reset(l);
}

void
ledger_group_fini(struct ledger *l)
{
	om_arena_fini(&l->arena);
	om_arena_fini(&l->sent.arena);
}

void
ledger_group_undo(struct ledger *l)
{
	OM_ASSERT(STAILQ_EMPTY(&l->answers));
	om_store_rollback(l->store);
	l->in_tx = false;
	group_reset(l);
}

static void
group_answer(struct om_service *sv, struct ledger *l, const struct ledger_answers *answers,
	     enum om_err err)
{
	static const struct om_empty nothing = { 0 };
	struct ledger_answer *a;

	STAILQ_FOREACH(a, answers, link)
	{
		if (err != OM_OK) {
			om_service_reply_err_to(sv, &a->rq, err, om_store_why(l->store));
		} else if (a->ok) {
			om_service_reply_to(sv, &a->rq, OM_MSG_OK, &nothing);
		} else {
			om_service_reply_to(sv, &a->rq, a->type, a->body);
		}
	}
}

/* Followers whose time ends and messages that found no room are looked at again; else we sleep. */
void
ledger_tick_when_needed(struct om_service *sv, struct ledger *l)
{
	if (l->keys_left && l->wipe_timer == 0 &&
	    om_timer_start(om_service_cx(sv), LEDGER_WIPE_MS, 0, 0, &l->wipe_timer) != OM_OK) {
		l->wipe_timer = 0;
	}
	if (l->store->unfolded && l->fold_timer == 0 &&
	    om_timer_start(om_service_cx(sv), l->fold_failed ? LEDGER_TICK_MS : LEDGER_FOLD_MS, 0,
			   0, &l->fold_timer) != OM_OK) {
		l->fold_timer = 0;
	}
	const bool needed = l->follower_count > 0 || !STAILQ_EMPTY(&l->unsent) || l->audit_behind;

	if (needed && l->tick_timer == 0 &&
	    om_timer_start(om_service_cx(sv), LEDGER_TICK_MS, 0, 0, &l->tick_timer) != OM_OK) {
		l->tick_timer = 0; /* the next group tries */
	}
}

/* --- the end of a group ------------------------------------------------------------------------- */

/* It is known what became of a group of so many writes. */
static void
group_told(struct om_service *sv, struct ledger *l, size_t writes, enum om_err err,
	   struct om_mono began)
{
	ledger_count_commit(l, err, om_mono_now().ns - began.ns);
	if (err == OM_OK && l->degraded) {
		om_info("ledger.recovered", "writing works again");
	} else if (err != OM_OK && !l->degraded) {
		om_error("ledger.failed", "%zu writes refused: %s", writes, om_store_why(l->store));
	}
	l->degraded = err != OM_OK;
	if (err == OM_OK) {
		ledger_purge_soon(sv, l);
	}
}

static void
group_commit(struct om_service *sv, struct ledger *l)
{
	const struct om_mono began = om_mono_now();
	const enum om_err err = om_store_commit(l->store);

	group_answer(sv, l, &l->answers, err);
	group_told(sv, l, l->group, err, began);
	if (err == OM_OK) {
		ledger_count_moves(l, l->group_moves);
		ledger_tell_group(sv, l, &l->events);
		ledger_followers_answer(sv, l, false);
	}
}

/* What is open has seen a group that failed. */
static void
group_fail(struct om_service *sv, struct ledger *l, enum om_err err)
{
	if (l->in_tx) {
		om_store_rollback(l->store);
		l->in_tx = false;
	}
	group_answer(sv, l, &l->answers, err);
	group_reset(l);
}

/* --- groups in flight --------------------------------------------------------------------------- */

/*
 * Work of the pool, and the ledger's, which may not wait for its turn: whoever comes first writes
 * (om_store_commit_write).  The lock is held while the store is used, so that it is not closed under it.
 */
struct ledger_sent_work {
	pthread_mutex_t lock;
	struct om_store *store; /* NULL: its group has ended */
	bool shared; /* two have it; the second one that lets go frees it */
};

static struct ledger_sent_work *
work_new(struct om_store *store)
{
	struct ledger_sent_work *w = calloc(1, sizeof(*w));

	if (w != NULL) {
		(void)pthread_mutex_init(&w->lock, NULL);
		w->store = store;
		w->shared = true;
	}
	return w;
}

static void
work_let_go(struct ledger_sent_work *w)
{
	bool last;

	(void)pthread_mutex_lock(&w->lock);
	last = !w->shared;
	w->shared = false;
	(void)pthread_mutex_unlock(&w->lock);
	if (last) {
		(void)pthread_mutex_destroy(&w->lock);
		free(w);
	}
}

static enum om_err
sent_write(void *arg)
{
	struct ledger_sent_work *w = arg;

	(void)pthread_mutex_lock(&w->lock);
	if (w->store != NULL) {
		om_store_commit_write(w->store);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return OM_OK;
}

/* The ledger ends, and has ended the group itself. */
static void
sent_drop(void *arg)
{
	work_let_go(arg);
}

static void
sent_end(struct om_service *sv, struct ledger *l)
{
	struct ledger_sent *sent = &l->sent;
	struct ledger_sent_work *w = sent->work;
	const enum om_err err = om_store_commit_end(l->store);

	(void)pthread_mutex_lock(&w->lock);
	w->store = NULL;
	(void)pthread_mutex_unlock(&w->lock);
	work_let_go(w);
	sent->work = NULL;
	group_answer(sv, l, &sent->answers, err);
	group_told(sv, l, sent->group, err, sent->began);
	if (err == OM_OK) {
		ledger_count_moves(l, sent->moves);
		ledger_tell_group(sv, l, &sent->events);
	} else {
		group_fail(sv, l, err);
	}
	om_arena_reset(&sent->arena);
}

static void
sent_written(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct om_service *sv = om_service_of_actor(cx, state);
	struct ledger *l = ledger_of(om_service_state(sv));

	(void)result;
	if (l->sent.work == arg) { /* else the ledger has ended it */
		sent_end(sv, l);
		ledger_flush(sv, l);
	}
	work_let_go(arg);
}

/* Its answers and events lie in its arena, which goes with them. */
static void
sent_take(struct ledger *l, struct ledger_sent_work *work)
{
	struct ledger_sent *sent = &l->sent;
	const struct om_arena arena = sent->arena;

	sent->arena = l->arena;
	l->arena = arena;
	STAILQ_INIT(&sent->answers);
	STAILQ_CONCAT(&sent->answers, &l->answers);
	STAILQ_INIT(&sent->events);
	STAILQ_CONCAT(&sent->events, &l->events);
	memcpy(sent->moves, l->group_moves, sizeof(sent->moves));
	sent->group = l->group;
	sent->work = work;
	group_reset(l);
}

static void
group_send(struct om_service *sv, struct ledger *l)
{
	struct ledger_sent_work *w = work_new(l->store);
	enum om_err err;

	if (w == NULL) {
		group_commit(sv, l);
		return;
	}
	l->sent.began = om_mono_now();
	err = om_store_commit_start(l->store);
	if (err != OM_OK) {
		work_let_go(w);
		work_let_go(w); /* nobody else will have it */
		group_told(sv, l, l->group, err, l->sent.began);
		group_fail(sv, l, err);
		return;
	}
	sent_take(l, w);
	if (om_offload_to(om_service_cx(sv), OM_POOL_LEDGER, sent_write, w, sent_written,
			  sent_drop) != OM_OK) {
		sent_end(sv, l);
		work_let_go(w);
	}
}

/* Whoever waits for what a commit stored, or finds no room, is looked at after it; a fold needs a whole one. */
static bool
group_may_be_sent(const struct ledger *l)
{
	return l->group >= LEDGER_SEND_MIN && !l->degraded && !l->store->fold_due &&
	       l->follower_count == 0 && STAILQ_EMPTY(&l->unsent);
}

/* Nothing is sent.  may_send: the group may be, when that is worth it. */
static void
group_end(struct om_service *sv, struct ledger *l, bool may_send)
{
	const bool in_tx = l->in_tx;

	OM_ASSERT(l->sent.work == NULL);
	l->in_tx = false;
	if (in_tx && may_send && group_may_be_sent(l)) {
		group_send(sv, l);
	} else if (in_tx && l->group > 0) {
		group_commit(sv, l);
	} else {
		/* Every write was refused; only questions wait for their answers. */
		if (in_tx) {
			om_store_rollback(l->store);
		}
		group_answer(sv, l, &l->answers, OM_OK);
	}
	if (l->sent.work == NULL) {
		group_reset(l);
		ledger_tell_unsent(sv, l);
		ledger_tell_audit(sv, l);
	}
	if (om_store_maintain(l->store) != OM_OK) {
		om_warn("ledger.checkpoint", "%s", om_store_why(l->store));
	}
	ledger_tick_when_needed(sv, l);
}

void
ledger_flush(struct om_service *sv, struct ledger *l)
{
	/* sent_written comes back to what gathers meanwhile. */
	if (l->sent.work == NULL) {
		group_end(sv, l, true);
	}
}

void
ledger_finish(struct om_service *sv, struct ledger *l)
{
	if (l->sent.work != NULL) {
		sent_end(sv, l);
	}
	group_end(sv, l, false);
}

/* --- answers ------------------------------------------------------------------------------------ */

/* The one before it is waited for. */
static void
group_full(struct om_service *sv, struct ledger *l)
{
	if (l->sent.work != NULL) {
		sent_end(sv, l);
	}
	group_end(sv, l, true);
}

static void
group_added(struct om_service *sv, struct ledger *l, const struct om_in *in)
{
	l->group++;
	l->group_bytes += in->raw.len;
	if (l->degraded) {
		ledger_finish(sv, l);
	} else if (l->group >= LEDGER_GROUP_MAX || l->group_bytes >= LEDGER_GROUP_BYTES) {
		group_full(sv, l);
	}
}

static struct ledger_answer *
answer_new(struct om_service *sv, struct ledger *l, const struct om_in *in)
{
	struct ledger_answer *a = om_arena_alloc(&l->arena, sizeof(*a));

	if (a != NULL) {
		a->rq = om_service_later(sv, in);
		STAILQ_INSERT_TAIL(&l->answers, a, link);
	}
	return a;
}

enum om_err
ledger_answer_later(struct om_service *sv, struct ledger *l, const struct om_in *in,
		    enum om_msg_type type, const void *body)
{
	struct ledger_answer *a = body == NULL ? NULL : answer_new(sv, l, in);

	if (a == NULL) {
		return OM_ERR_NOMEM; /* it may become durable all the same: as after a time-out */
	}
	a->type = type;
	a->body = body;
	group_added(sv, l, in);
	return OM_OK;
}

enum om_err
ledger_ok_later(struct om_service *sv, struct ledger *l, const struct om_in *in)
{
	struct ledger_answer *a = answer_new(sv, l, in);

	if (a == NULL) {
		return OM_ERR_NOMEM;
	}
	a->ok = true;
	group_added(sv, l, in);
	return OM_OK;
}

enum om_err
ledger_answer_read(struct om_service *sv, struct ledger *l, const struct om_in *in,
		   enum om_msg_type type, const void *body)
{
	struct ledger_answer *a;
	enum om_err err;

	if (!l->in_tx && l->sent.work == NULL) {
		err = body == NULL ? OM_ERR_NOMEM : om_service_reply(sv, in, type, body);
		group_reset(l);
		return err;
	}
	a = body == NULL ? NULL : answer_new(sv, l, in);
	if (a == NULL) {
		return OM_ERR_NOMEM;
	}
	a->type = type;
	a->body = body;
	if (l->arena.used >= LEDGER_GROUP_BYTES) {
		group_full(sv, l); /* questions may ask for much while the disk hangs */
	}
	return OM_OK;
}

enum om_err
ledger_ok_read(struct om_service *sv, struct ledger *l, const struct om_in *in)
{
	struct ledger_answer *a;

	if (!l->in_tx && l->sent.work == NULL) {
		return om_service_reply_ok(sv, in);
	}
	a = answer_new(sv, l, in);
	if (a == NULL) {
		return OM_ERR_NOMEM;
	}
	a->ok = true;
	if (l->degraded) {
		ledger_finish(sv, l);
	}
	return OM_OK;
}

enum om_err
ledger_refuse(struct om_service *sv, struct ledger *l, const struct om_in *in, enum om_err err)
{
	(void)!om_service_reply_err(sv, in, err, "%s", om_store_why(l->store));
	if (l->degraded) {
		ledger_finish(sv, l);
	}
	return OM_OK;
}
