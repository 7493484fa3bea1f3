/* SPDX-License-Identifier: ISC */
/*
 * Requests and answers.
 *
 * A request is a message with a tag: the key of the asker's entry in ext->asks.  Who deletes the
 * entry runs the continuation: the reply, an error, the time-out.  So it runs exactly once, and a
 * second answer finds nothing (it is counted as unknown).
 *
 * Every way that a request can take ends in an answer: the handler's reply or error, the
 * dispatcher's (no handler), the mailbox's (dropped), the table of duties (om_later) when the actor
 * that owes the answer ends.  An error travels in the request's own memory.
 *
 * All time-outs of an actor share one timer, armed for the earliest; an answered request costs no
 * timer operation at all.  They lie in a list by deadline, whose end is the place of most; one whose
 * place is further away than a few steps has a timer of its own.
 */
#include <stdlib.h>
#include <string.h>
#include "runtime/runtime_impl.h"

#define ASK_STEPS 8

struct om_ask {
	struct om_ask *prev, *next;
	struct om_timer *own; /* NULL: it is in the list */
	uint64_t key;
	om_answer_fn fn;
	uint64_t cookie;
	int64_t deadline_ns;
	uint32_t trace; /* the continuation goes on with the question's way */
	uint8_t cls;
};

/* --- the asker's side ------------------------------------------------------------------------------ */

static void
ask_unlink(struct om_ctx *cx, struct om_actor_ext *ext, struct om_ask *ask)
{
	if (ask->own != NULL) {
		om_timer_drop_internal(cx->sys, ask->own);
		return;
	}
	if (ask->prev != NULL) {
		ask->prev->next = ask->next;
	} else {
		ext->ask_first = ask->next;
	}
	if (ask->next != NULL) {
		ask->next->prev = ask->prev;
	} else {
		ext->ask_last = ask->prev;
	}
}

/* Sorted by deadline; with like time-outs the place is the end. */
static void
ask_insert(struct om_ctx *cx, struct om_actor_ext *ext, struct om_ask *ask)
{
	struct om_ask *at = ext->ask_last;

	for (unsigned steps = 0; at != NULL && at->deadline_ns > ask->deadline_ns; steps++) {
		if (steps == ASK_STEPS) {
			ask->own = om_timer_new_internal(cx, ask->key);
			if (ask->own != NULL) {
				om_timer_arm_internal(cx, ask->own, ask->deadline_ns);
				return;
			}
		}
		at = at->prev; /* also without memory: it only takes longer */
	}
	ask->prev = at;
	ask->next = at != NULL ? at->next : ext->ask_first;
	if (ask->next != NULL) {
		ask->next->prev = ask;
	} else {
		ext->ask_last = ask;
	}
	if (at != NULL) {
		at->next = ask;
	} else {
		ext->ask_first = ask;
	}
}

static struct om_ask *
ask_new(struct om_ctx *cx, struct om_actor_ext *ext)
{
	uint8_t cls;
	struct om_ask *ask;

	if (ext->ask_timer == NULL) {
		ext->ask_timer = om_timer_new_internal(cx, 0);
		if (ext->ask_timer == NULL) {
			return NULL;
		}
	}
	ask = om_pool_alloc(cx, sizeof(*ask), &cls);
	if (ask == NULL) {
		return NULL;
	}
	ask->cls = cls;
	ask->own = NULL;
	ask->key = om_slotmap_add(&ext->asks, ask);
	if (ask->key == 0) {
		om_pool_free(cx, ask, cls);
		return NULL;
	}
	return ask;
}

enum om_err
om_ask(struct om_ctx *cx, struct om_actor_id to, struct om_msg **msgp, uint64_t timeout_ms,
       om_answer_fn fn, uint64_t cookie)
{
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_msg *msg = *msgp;
	struct om_request duty;
	struct om_ask *ask;
	enum om_err err;

	if (ext == NULL || (ask = ask_new(cx, ext)) == NULL) {
		return OM_ERR_NOMEM;
	}
	ask->fn = fn;
	ask->cookie = cookie;
	ask->deadline_ns = om_ns_after(om_system_now(cx->sys).ns, timeout_ms);
	duty = om_ask_lift_duty(cx, msg);
	msg->tag = ask->key;
	msg->from.v = cx->self_id;
	if (om_unlikely(cx->tracing != 0 && om_hdr(msg)->trace == 0 &&
			(cx->self->flags & OM_ACTOR_TRACED) != 0)) {
		om_trace_message(cx->sys, msg);
	}
	ask->trace = om_hdr(msg)->trace;
	err = om_send_as_is(cx, to.v, msgp);
	if (err != OM_OK) {
		om_ask_owe_again(msg, &duty);
		(void)om_slotmap_del(&ext->asks, ask->key);
		om_pool_free(cx, ask, ask->cls);
		return err;
	}
	om_reply_err_to(cx, &duty, OM_ERR_CANCELLED);
	cx->n.asks++;
	ask_insert(cx, ext, ask);
	if (ext->ask_first == ask) {
		om_timer_arm_internal(cx, ext->ask_timer, ask->deadline_ns);
	}
	return OM_OK;
}

static void
ask_finish(struct om_ctx *cx, struct om_actor *a, struct om_ask *ask, enum om_err err,
	   const struct om_msg *msg)
{
	struct om_answer answer = { .err = err, .msg = msg, .cookie = ask->cookie };
	om_answer_fn fn = ask->fn;
	uint32_t trace = ask->trace;

	ask_unlink(cx, a->ext, ask);
	om_pool_free(cx, ask, ask->cls);
	if (om_unlikely(om_trace_wants(a, trace))) {
		om_trace_begin(cx, trace, cx->current != NULL ? OM_TRACE_HANDLE : OM_TRACE_TIMEOUT,
			       cx->current);
	}
	fn(cx, a->state, &answer);
	om_trace_end(cx);
}

/* Takes msg. */
void
om_ask_on_reply(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_ask *ask = a->ext != NULL ? om_slotmap_get(&a->ext->asks, msg->tag) : NULL;
	enum om_err err = (enum om_err)om_hdr(msg)->err;

	if (ask == NULL) { /* after the time-out */
		cx->n.handled--;
		om_stats_drop(cx, msg, OM_DROP_UNKNOWN);
		om_msg_free(cx, msg);
		return;
	}
	(void)om_slotmap_del(&a->ext->asks, msg->tag);
	if (err == OM_ERR_GONE) {
		cx->n.asks_gone++;
	}
	cx->current = msg;
	cx->current_moved = false;
	ask_finish(cx, a, ask, err, err == OM_OK ? msg : NULL);
	cx->current = NULL;
	if (!cx->current_moved) {
		om_msg_free(cx, msg);
	}
}

void
om_ask_on_timer(struct om_ctx *cx, struct om_actor *a, uint64_t own)
{
	struct om_actor_ext *ext = a->ext;
	int64_t now = om_system_now(cx->sys).ns;
	struct om_ask *ask = own != 0 ? om_slotmap_del(&ext->asks, own) : NULL;

	if (ask != NULL) {
		cx->n.asks_timed_out++;
		ask_finish(cx, a, ask, OM_ERR_TIMEOUT, NULL);
		return;
	}
	while ((ask = ext->ask_first) != NULL && ask->deadline_ns <= now) {
		(void)om_slotmap_del(&ext->asks, ask->key);
		cx->n.asks_timed_out++;
		ask_finish(cx, a, ask, OM_ERR_TIMEOUT, NULL);
	}
	if (ext->ask_first != NULL) {
		om_timer_arm_internal(cx, ext->ask_timer, ext->ask_first->deadline_ns);
	}
}

/* --- duties: requests whose answer comes later -------------------------------------------------------- */

static uint32_t
later_hash(uint64_t from, uint64_t tag, uint32_t cap)
{
	uint64_t x = from * UINT64_C(0x9e3779b97f4a7c15) ^ tag * UINT64_C(0xc2b2ae3d27d4eb4f);

	return (uint32_t)(x >> 32) & (cap - 1);
}

static void
later_put(struct om_actor_ext *ext, struct om_later_entry entry)
{
	uint32_t i = later_hash(entry.from, entry.tag, ext->later_cap);

	while (ext->laters[i].from != 0) {
		i = (i + 1) & (ext->later_cap - 1);
	}
	ext->laters[i] = entry;
	ext->later_used++;
}

/* Open addressing, at most half full (Knuth 6.4, algorithm R for deletion). */
static enum om_err
later_add(struct om_actor_ext *ext, uint64_t from, uint64_t tag)
{
	if (2 * (ext->later_used + 1) > ext->later_cap) {
		struct om_later_entry *old = ext->laters;
		uint32_t old_cap = ext->later_cap;
		uint32_t cap = old_cap != 0 ? old_cap * 2 : 8;
		struct om_later_entry *v = calloc(cap, sizeof(*v));

		if (v == NULL) {
			return OM_ERR_NOMEM;
		}
		ext->laters = v;
		ext->later_cap = cap;
		ext->later_used = 0;
		for (uint32_t i = 0; i < old_cap; i++) {
			if (old[i].from != 0) {
				later_put(ext, old[i]);
			}
		}
		free(old);
	}
	later_put(ext, (struct om_later_entry){ .from = from, .tag = tag });
	return OM_OK;
}

static bool
later_remove(struct om_actor_ext *ext, uint64_t from, uint64_t tag)
{
	uint32_t mask, i, hole;

	if (ext == NULL || ext->later_used == 0) {
		return false;
	}
	mask = ext->later_cap - 1;
	for (i = later_hash(from, tag, ext->later_cap);
	     ext->laters[i].from != from || ext->laters[i].tag != tag; i = (i + 1) & mask) {
		if (ext->laters[i].from == 0) {
			return false;
		}
	}
	hole = i;
	for (i = (i + 1) & mask; ext->laters[i].from != 0; i = (i + 1) & mask) {
		uint32_t home = later_hash(ext->laters[i].from, ext->laters[i].tag, ext->later_cap);

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			ext->laters[hole] = ext->laters[i];
			hole = i;
		}
	}
	ext->laters[hole].from = 0;
	ext->later_used--;
	return true;
}

enum om_err
om_ask_note_later(struct om_ctx *cx, const struct om_msg *req)
{
	struct om_actor_ext *ext = om_actor_ext(cx->self);

	return ext == NULL ? OM_ERR_NOMEM : later_add(ext, req->from.v, req->tag);
}

void
om_ask_on_later_done(struct om_actor *a, const struct om_msg *msg)
{
	(void)later_remove(a->ext, msg->from.v, msg->tag);
}

void
om_ask_forget_later(struct om_actor *a, const struct om_request *duty)
{
	(void)later_remove(a->ext, duty->from.v, duty->tag);
}

struct om_request
om_later(struct om_ctx *cx, const struct om_msg *req)
{
	struct om_request rq = { .from = OM_NOBODY, .tag = 0 };

	if (req->tag == 0 || (om_hdr(req)->flags & OM_HDR_ANSWERED) != 0) {
		return rq;
	}
	om_hdr(req)->flags |= OM_HDR_ANSWERED;
	rq.from = req->from;
	rq.tag = req->tag;
	rq.debtor.v = cx->self_id;
	rq.trace = om_hdr(req)->trace;
	/* No memory for the note: the asker still has its time-out.  A kept request is noted already. */
	if (req == cx->current && !cx->current_moved) {
		(void)om_ask_note_later(cx, req);
	}
	return rq;
}

/* The duty is discharged: whoever noted it forgets it. */
static void
later_settle(struct om_ctx *cx, const struct om_request *rq)
{
	struct om_msg *done;

	if (rq->debtor.v == cx->self_id) {
		if (cx->self != NULL) {
			om_ask_forget_later(cx->self, rq);
		}
		return;
	}
	done = om_pool_msg(cx, 0, 0);
	if (done == NULL) {
		return; /* the debtor will answer once more when it ends, and nobody will listen */
	}
	om_hdr(done)->kind = OM_KIND_LATER_DONE;
	done->from = rq->from;
	done->tag = rq->tag;
	if (om_mbox_push_sys(cx, rq->debtor.v, done) != OM_OK) {
		om_pool_msg_free(cx, done);
	}
}

struct om_request
om_ask_lift_duty(struct om_ctx *cx, struct om_msg *msg)
{
	struct om_msg_hdr *hdr = om_hdr(msg);
	struct om_request rq = { .from = OM_NOBODY, .tag = 0 };

	if (msg->tag != 0 && (hdr->flags & OM_HDR_ANSWERED) == 0) {
		rq = (struct om_request){ .from = msg->from,
					  .tag = msg->tag,
					  .debtor = om_id_of(cx->self_id) };
	}
	hdr->flags &= (uint8_t)~OM_HDR_ANSWERED;
	msg->tag = 0;
	return rq;
}

void
om_ask_owe_again(struct om_msg *msg, const struct om_request *duty)
{
	msg->tag = duty->tag;
	msg->from = duty->from;
}

/* --- answering ------------------------------------------------------------------------------------------ */

/* Takes msg (NULL: one is made).  An asker that is gone is no error; the answer is counted. */
static void
ask_answer(struct om_ctx *cx, const struct om_request *rq, struct om_msg *msg, enum om_err err)
{
	enum om_err sent;

	if (msg == NULL) {
		msg = om_pool_msg(cx, OM_SYS_REPLY, 0);
		if (msg == NULL) {
			return; /* the asker has its time-out */
		}
	}
	om_hdr(msg)->kind = OM_KIND_REPLY;
	om_hdr(msg)->err = (uint8_t)err;
	msg->from.v = cx->self_id;
	msg->tag = rq->tag;
	if (om_unlikely((rq->trace | om_hdr(msg)->trace | cx->tracing) != 0)) {
		om_hdr(msg)->trace = rq->trace != 0 ? rq->trace : om_hdr(msg)->trace;
		om_trace_sent(cx, rq->from.v, msg);
	}
	if ((rq->from.v & OM_PORT_BIT) != 0) {
		sent = om_port_answer(cx->sys, rq->from.v, msg);
	} else {
		sent = om_mbox_push_sys(cx, rq->from.v, msg);
	}
	if (sent != OM_OK) {
		cx->n.sent++;
		om_hdr(msg)->to = rq->from.v;
		om_actor_discard(cx, msg, OM_DROP_STALE);
	}
}

/* The request itself becomes the answer: needs no memory.  Takes req. */
void
om_ask_turn_round(struct om_ctx *cx, struct om_msg *req, enum om_err err)
{
	const struct om_request rq = { .from = req->from, .tag = req->tag };
	struct om_msg_hdr *hdr = om_hdr(req);

	if ((hdr->flags & OM_HDR_OWNER) != 0) {
		struct om_owned *owned = (struct om_owned *)(void *)req->payload;

		if (owned->obj != NULL && owned->free_fn != NULL) {
			owned->free_fn(owned->obj);
		}
	}
	hdr->flags = 0;
	req->type = OM_SYS_REPLY;
	req->size = 0;
	ask_answer(cx, &rq, req, err);
}

/* The answer may be a kept request too: another one, or this one, which is marked by now. */
static void
answer_with(struct om_ctx *cx, const struct om_request *rq, struct om_msg **msgp)
{
	struct om_request duty = om_ask_lift_duty(cx, *msgp);

	ask_answer(cx, rq, *msgp, OM_OK);
	*msgp = NULL;
	om_reply_err_to(cx, &duty, OM_ERR_CANCELLED);
}

enum om_err
om_reply(struct om_ctx *cx, const struct om_msg *req, struct om_msg **msgp)
{
	const struct om_request rq = { .from = req->from,
				       .tag = req->tag,
				       .trace = om_hdr(req)->trace };

	if (req->tag == 0 || om_hdr(req)->kind != OM_KIND_USER ||
	    (om_hdr(req)->flags & OM_HDR_ANSWERED) != 0) {
		return OM_ERR_STATE;
	}
	om_hdr(req)->flags |= OM_HDR_ANSWERED;
	if (req != cx->current || cx->current_moved) { /* kept by om_msg_take */
		om_ask_forget_later(cx->self, &rq);
	}
	answer_with(cx, &rq, msgp);
	return OM_OK;
}

enum om_err
om_reply_u64(struct om_ctx *cx, const struct om_msg *req, uint64_t value)
{
	struct om_msg *msg = om_pool_msg(cx, OM_SYS_REPLY, sizeof(value));
	enum om_err err;

	if (msg == NULL) {
		return OM_ERR_NOMEM;
	}
	*(uint64_t *)(void *)msg->payload = value;
	err = om_reply(cx, req, &msg);
	om_msg_free(cx, msg);
	return err;
}

enum om_err
om_reply_to(struct om_ctx *cx, struct om_request *rq, struct om_msg **msgp)
{
	if (rq->tag == 0) {
		return OM_ERR_STATE;
	}
	later_settle(cx, rq);
	answer_with(cx, rq, msgp);
	rq->tag = 0;
	return OM_OK;
}

void
om_reply_err_to(struct om_ctx *cx, struct om_request *rq, enum om_err err)
{
	if (rq->tag == 0) {
		return;
	}
	later_settle(cx, rq);
	ask_answer(cx, rq, NULL, err);
	rq->tag = 0;
}

/* The end of an incarnation: its own requests are forgotten, its duties are answered. */
void
om_ask_end(struct om_ctx *cx, struct om_actor *a)
{
	struct om_actor_ext *ext = a->ext;

	for (uint32_t i = 0; i < ext->asks.used; i++) {
		uint64_t key = om_slotmap_key(&ext->asks, i);
		struct om_ask *ask = key != 0 ? om_slotmap_del(&ext->asks, key) : NULL;

		if (ask != NULL) {
			ask_unlink(cx, ext, ask);
			om_pool_free(cx, ask, ask->cls);
		}
	}
	for (uint32_t i = 0; i < ext->later_cap && ext->later_used > 0; i++) {
		struct om_later_entry *e = &ext->laters[i];

		if (e->from != 0) {
			const struct om_request rq = { .from.v = e->from, .tag = e->tag };

			ask_answer(cx, &rq, NULL, OM_ERR_GONE);
			e->from = 0;
		}
	}
	ext->later_used = 0;
}
