/* SPDX-License-Identifier: ISC */
/*
 * What an actor sees of the runtime: itself, its messages, sending.
 *
 * One message's way, for the newcomer: om_send (here) -> mbox_try (mailbox_impl.h) -> om_sched_ready
 * (runtime_impl.h) ... -> run_actor (scheduler.c) -> dispatch_message (dispatch_impl.h) -> the handler.
 *
 * What costs on this way, beside the locked instructions, are the stores before each of them: it
 * waits until they have left the core.  So the usual case makes no calls that save registers.
 */
#include <stdlib.h>
#include <string.h>
#include "runtime/mailbox_impl.h"

struct om_actor_id
om_self(const struct om_ctx *cx)
{
	return om_id_of(cx->self_id);
}

struct om_system *
om_ctx_system(const struct om_ctx *cx)
{
	return cx->sys;
}

struct om_mono
om_now(const struct om_ctx *cx)
{
	return om_system_now(cx->sys);
}

uint64_t
om_rand(struct om_ctx *cx)
{
	return om_rng_next(&cx->rng);
}

/* --- messages ------------------------------------------------------------------------------------ */

struct om_msg *
om_msg_new(struct om_ctx *cx, uint32_t type, size_t size)
{
	return om_pool_msg(cx, type, size);
}

struct om_msg *
om_system_msg_new(struct om_system *sys, uint32_t type, size_t size)
{
	bool locked;
	struct om_ctx *cx = om_system_enter(sys, &locked);
	struct om_msg *msg = om_pool_msg(cx, type, size);

	om_system_leave(sys, locked);
	return msg;
}

static void
msg_own(struct om_msg *msg, void *obj, om_free_fn free_fn)
{
	struct om_owned *owned = (struct om_owned *)(void *)msg->payload;

	om_hdr(msg)->flags |= OM_HDR_OWNER;
	owned->obj = obj;
	owned->free_fn = free_fn;
}

struct om_msg *
om_msg_new_owner(struct om_ctx *cx, uint32_t type, void *obj, om_free_fn free_fn)
{
	struct om_msg *msg = om_pool_msg(cx, type, sizeof(struct om_owned));

	if (msg != NULL) {
		msg_own(msg, obj, free_fn);
	}
	return msg;
}

struct om_msg *
om_system_msg_new_owner(struct om_system *sys, uint32_t type, void *obj, om_free_fn free_fn)
{
	struct om_msg *msg = om_system_msg_new(sys, type, sizeof(struct om_owned));

	if (msg != NULL) {
		msg_own(msg, obj, free_fn);
	}
	return msg;
}

void *
om_msg_obj(const struct om_msg *msg)
{
	if ((om_hdr(msg)->flags & OM_HDR_OWNER) == 0) {
		return NULL;
	}
	return ((const struct om_owned *)(const void *)msg->payload)->obj;
}

void *
om_msg_take_obj(const struct om_msg *msg)
{
	void *obj = om_msg_obj(msg);

	if (obj != NULL) {
		((struct om_owned *)(uintptr_t)msg->payload)->obj = NULL;
	}
	return obj;
}

struct om_msg *
om_msg_take(struct om_ctx *cx, const struct om_msg *msg)
{
	struct om_msg_hdr *hdr = om_hdr(msg);
	struct om_msg *copy;

	if (hdr->cls != OM_CLS_EMBEDDED) {
		copy = (struct om_msg *)(uintptr_t)msg;
		if (cx->current != msg || cx->current_moved) {
			return copy; /* is kept already */
		}
		/* A kept request stays answerable: if this actor ends, the asker hears OM_ERR_GONE. */
		if (msg->tag != 0 && hdr->kind == OM_KIND_USER &&
		    (hdr->flags & OM_HDR_ANSWERED) == 0 && om_ask_note_later(cx, msg) != OM_OK) {
			return NULL;
		}
		if (hdr->kind == OM_KIND_REPLY) { /* now a message like any other */
			hdr->kind = OM_KIND_USER;
			copy->tag = 0;
		}
		cx->current_moved = true;
		return copy;
	}
	copy = om_pool_msg(cx, msg->type, msg->size);
	if (copy != NULL) {
		copy->from = msg->from;
		memcpy(copy->payload, msg->payload, msg->size);
	}
	return copy;
}

void
om_msg_free(struct om_ctx *cx, struct om_msg *msg)
{
	struct om_msg_hdr *hdr;
	struct om_system *sys;
	bool locked = false;

	if (msg == NULL) {
		return;
	}
	hdr = om_hdr(msg);
	if ((hdr->flags & OM_HDR_OWNER) != 0) {
		struct om_owned *owned = (struct om_owned *)(void *)msg->payload;

		if (owned->obj != NULL && owned->free_fn != NULL) {
			owned->free_fn(owned->obj);
		}
		owned->obj = NULL;
	}
	if (cx != NULL && msg->tag != 0 && hdr->kind == OM_KIND_USER &&
	    (hdr->flags & OM_HDR_ANSWERED) == 0) {
		/* A kept request that is thrown away: its duty is discharged here. */
		struct om_request rq = om_ask_lift_duty(cx, msg);

		om_reply_err_to(cx, &rq, OM_ERR_CANCELLED);
	}
	if (hdr->cls == OM_CLS_HEAP) {
		free(hdr);
		return;
	}
	if (cx == NULL) {
		sys = om_pool_sys_of(msg);
		cx = om_system_enter(sys, &locked);
		om_pool_msg_free(cx, msg);
		om_system_leave(sys, locked);
		return;
	}
	om_pool_msg_free(cx, msg);
}

/* --- sending ------------------------------------------------------------------------------------- */

/* The receiver's mailbox is full: its overload policy. */
static __attribute__((noinline)) enum om_err
send_full(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	uint32_t limit = om_mbox_limit(cx->sys, to);
	enum om_err err;
	uint32_t mark;

	if ((limit & OM_LIMIT_DROP_NEW) != 0) {
		cx->n.sent++;
		om_hdr(msg)->to = to;
		om_actor_discard(cx, msg, OM_DROP_FULL);
		return OM_OK;
	}
	/* Nobody but ourselves could make room in our own mailbox. */
	if ((limit & OM_LIMIT_BLOCK) == 0 || cx->kind != OM_CTX_DETACHED || to == cx->self_id) {
		return OM_ERR_FULL;
	}
	do {
		mark = om_sched_room_mark(cx->sys);
		err = om_mbox_push(cx, to, msg);
		/* Two that wait for each other are ended by a kill (om_mbox_control wakes them). */
		if (err == OM_ERR_FULL && (om_mbox_life(cx->self) & OM_LIFE_KILL) != 0) {
			err = OM_ERR_CANCELLED;
		}
		om_sched_room_wait(cx->sys, mark, err == OM_ERR_FULL);
	} while (err == OM_ERR_FULL);
	if (err == OM_OK) {
		cx->n.sent++;
	}
	return err;
}

/* The usual case of send_it, without a call: no trace, room, nobody between.  false: nothing done. */
static OM_HOT bool
send_at_once(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	struct om_actor *a = mbox_actor_at(cx->sys, to);
	uint64_t head;

	if (om_unlikely(a == NULL || (om_hdr(msg)->trace | cx->tracing) != 0)) {
		return false;
	}
	head = ck_pr_load_64(&a->head);
	if (om_unlikely(mbox_try(cx, a, to, msg, &head) != MBOX_PUSHED)) {
		return false;
	}
	cx->n.sent++;
	return true;
}

/* On an error the caller keeps msg. */
static enum om_err
send_it(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	enum om_err err;

	if (om_unlikely((om_hdr(msg)->trace | cx->tracing) != 0)) {
		om_trace_sent(cx, to, msg);
	}
	err = om_mbox_push(cx, to, msg);
	if (om_likely(err == OM_OK)) {
		cx->n.sent++;
	} else if (err == OM_ERR_FULL) {
		err = send_full(cx, to, msg);
	}
	return err;
}

/* As send_it; takes *msgp.  msg->from stays as it is. */
enum om_err
om_send_as_is(struct om_ctx *cx, uint64_t to, struct om_msg **msgp)
{
	enum om_err err = send_it(cx, to, *msgp);

	if (om_likely(err == OM_OK)) {
		*msgp = NULL;
	}
	return err;
}

/* A request that was kept goes on as a plain message: its asker hears of that. */
static __attribute__((noinline)) enum om_err
send_kept(struct om_ctx *cx, uint64_t to, struct om_msg **msgp)
{
	struct om_msg *msg = *msgp;
	struct om_request duty = om_ask_lift_duty(cx, msg);
	enum om_err err;

	msg->from.v = cx->self_id;
	err = om_send_as_is(cx, to, msgp);
	if (err == OM_OK) {
		om_reply_err_to(cx, &duty, OM_ERR_CANCELLED);
	} else {
		om_ask_owe_again(msg, &duty);
	}
	return err;
}

enum om_err
om_send(struct om_ctx *cx, struct om_actor_id to, struct om_msg **msgp)
{
	struct om_msg *msg = *msgp;

	if (om_unlikely(msg->tag != 0)) {
		return send_kept(cx, to.v, msgp);
	}
	msg->from.v = cx->self_id;
	if (om_likely(send_at_once(cx, to.v, msg))) {
		*msgp = NULL;
		return OM_OK;
	}
	return om_send_as_is(cx, to.v, msgp);
}

/* Sends a message of our own, which goes with an error. */
static __attribute__((noinline)) enum om_err
send_or_free(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	enum om_err err = send_it(cx, to, msg);

	if (err != OM_OK) {
		om_msg_free(cx, msg);
	}
	return err;
}

static __attribute__((noinline)) enum om_err
send_u64_slow(struct om_ctx *cx, uint64_t to, uint32_t type, uint64_t value)
{
	struct om_msg *msg = om_pool_msg(cx, type, sizeof(value));

	if (msg == NULL) {
		return OM_ERR_NOMEM;
	}
	*(uint64_t *)(void *)msg->payload = value;
	msg->from.v = cx->self_id;
	return send_or_free(cx, to, msg);
}

/* All calls are tail calls: no register has to be saved, which would be stores before the exchange. */
enum om_err
om_send_u64(struct om_ctx *cx, struct om_actor_id to, uint32_t type, uint64_t value)
{
	struct om_msg *msg = om_pool_msg_at_once(cx, type, sizeof(value));

	if (om_unlikely(msg == NULL)) {
		return send_u64_slow(cx, to.v, type, value);
	}
	*(uint64_t *)(void *)msg->payload = value;
	msg->from.v = cx->self_id;
	if (om_likely(send_at_once(cx, to.v, msg))) {
		return OM_OK;
	}
	return send_or_free(cx, to.v, msg);
}

enum om_err
om_send_urgent(struct om_ctx *cx, struct om_actor_id to, struct om_msg **msgp)
{
	struct om_msg *msg = *msgp;
	struct om_request duty;
	enum om_err err;

	if (om_mbox_sys_len(cx->sys, to.v) >=
	    2 * (om_mbox_limit(cx->sys, to.v) & OM_LIMIT_MASK) + 1) {
		return om_actor_is(cx->sys, to.v) ? OM_ERR_FULL : OM_ERR_STALE;
	}
	duty = om_ask_lift_duty(cx, msg);
	msg->from.v = cx->self_id;
	if (om_unlikely((om_hdr(msg)->trace | cx->tracing) != 0)) {
		om_trace_sent(cx, to.v, msg);
	}
	err = om_mbox_push_sys(cx, to.v, msg);
	if (err == OM_OK) {
		*msgp = NULL;
		om_reply_err_to(cx, &duty, OM_ERR_CANCELLED);
	} else {
		om_ask_owe_again(msg, &duty);
	}
	return err;
}

static enum om_err
forward_itself(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	const struct om_request duty = { .from = msg->from, .tag = msg->tag };
	bool was_current = cx->current == msg && !cx->current_moved;
	enum om_err err;

	/* Set before the send: after it the message belongs to the receiver. */
	cx->current_moved = cx->current_moved || was_current;
	err = om_send_as_is(cx, to, &msg);
	if (err != OM_OK) {
		cx->current_moved = cx->current_moved && !was_current;
	} else if (!was_current &&
		   duty.tag != 0) { /* kept by om_msg_take: no duty of ours any more */
		om_ask_forget_later(cx->self, &duty);
	}
	return err;
}

enum om_err
om_forward(struct om_ctx *cx, struct om_actor_id to, const struct om_msg *msg)
{
	struct om_msg_hdr *hdr = om_hdr(msg);
	struct om_msg *sent;
	enum om_err err;

	if ((hdr->flags & OM_HDR_ANSWERED) != 0 && msg->tag != 0) {
		return OM_ERR_STATE;
	}
	if (hdr->cls != OM_CLS_EMBEDDED) {
		return forward_itself(cx, to.v, (struct om_msg *)(uintptr_t)msg);
	}
	sent = om_pool_msg(cx, msg->type, msg->size);
	if (sent == NULL) {
		return OM_ERR_NOMEM;
	}
	memcpy(sent->payload, msg->payload, msg->size);
	sent->from = msg->from;
	err = om_send_as_is(cx, to.v, &sent);
	om_msg_free(cx, sent);
	return err;
}

size_t
om_publish(struct om_ctx *cx, const char *group, const struct om_msg *msg)
{
	uint64_t *members = NULL;
	size_t n = om_reg_members(cx->sys, group, &members);
	size_t took = 0;

	if ((om_hdr(msg)->flags & OM_HDR_OWNER) != 0) {
		n = 0; /* an object has one owner */
	}
	for (size_t i = 0; i < n; i++) {
		struct om_msg *copy = om_pool_msg(cx, msg->type, msg->size);

		if (copy == NULL) {
			break;
		}
		memcpy(copy->payload, msg->payload, msg->size);
		if (om_send(cx, om_id_of(members[i]), &copy) == OM_OK) {
			took++;
		}
		om_msg_free(cx, copy);
	}
	free(members);
	return took;
}
