/* SPDX-License-Identifier: ISC */
/*
 * A message that left a mailbox: finds its handler and settles what the handler left; or drops it.
 *
 * 1. Each message that leaves a mailbox passes through om_actor_dispatch, om_actor_dispatch_sys or
 *    om_actor_discard, exactly once.  If broken: sent != handled + queued + dropped.
 * 2. Each request that passes there is answered there, unless its duty moved (om_later, om_forward,
 *    om_msg_take).  If broken: an asker waits for its time-out.
 */
#include <string.h>
#include "runtime/runtime_impl.h"

static inline om_handler_fn
handler_find(const struct om_actor *a, uint32_t type)
{
	const struct om_handler *h = a->def->handlers;
	size_t n = a->def->handler_count;

	if (om_unlikely((a->flags & OM_ACTOR_BECAME) != 0)) {
		h = a->ext->handlers;
		n = a->ext->handler_count;
	}
	for (size_t i = 0; i < n; i++) {
		if (h[i].type == type) {
			return h[i].fn;
		}
	}
	return a->def->otherwise;
}

/* Traced, timed, or this call's turn to be sampled. */
static __attribute__((noinline)) enum om_err
handler_call_slow(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn, const struct om_msg *msg)
{
	uint32_t trace = om_hdr(msg)->trace;
	enum om_err err;

	if (om_trace_wants(a, trace)) {
		om_trace_begin(cx, trace, OM_TRACE_HANDLE, msg);
	}
	err = om_stats_timed(cx, a, fn, msg);
	om_trace_end(cx);
	return err;
}

static inline enum om_err
handler_call(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn, const struct om_msg *msg)
{
	if (om_likely(om_hdr(msg)->trace == 0 &&
		      (a->flags & (OM_ACTOR_TIMED | OM_ACTOR_TRACED)) == 0 && --cx->sample != 0)) {
		return fn(cx, a->state, msg);
	}
	return handler_call_slow(cx, a, fn, msg);
}

/* The handler is through: answers a request that nobody answered, frees. */
static void
dispatch_settle(struct om_ctx *cx, struct om_msg *msg, enum om_err err)
{
	struct om_msg_hdr *hdr = om_hdr(msg);

	if (err != OM_OK) {
		cx->n.errors++;
	}
	if (msg->tag != 0 && (hdr->flags & OM_HDR_ANSWERED) == 0) {
		om_ask_turn_round(cx, msg, err);
		return;
	}
	om_msg_free(cx, msg);
}

/*
 * Handles one message of the user lane.  false: the handler wants it again (OM_AGAIN), the caller
 * keeps it.
 */
bool
om_actor_dispatch(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	om_handler_fn fn;
	enum om_err err;

	if (om_unlikely(om_hdr(msg)->to != cx->self_id)) { /* was for the slot's last tenant */
		om_actor_discard(cx, msg, OM_DROP_STALE);
		cx->n.handled--; /* the caller counts it */
		return true;
	}
	fn = handler_find(a, msg->type);
	if (om_unlikely(fn == NULL)) {
		om_stats_drop(cx, msg, OM_DROP_UNKNOWN);
		cx->n.handled--;
		dispatch_settle(cx, msg, OM_ERR_UNKNOWN_TYPE);
		return true;
	}
	cx->current = msg;
	cx->current_moved = false;
	err = handler_call(cx, a, fn, msg);
	cx->current = NULL;
	if (om_unlikely(cx->current_moved)) {
		return true;
	}
	if (om_unlikely(err == OM_AGAIN)) {
		return false;
	}
	if (om_likely(err == OM_OK && (om_hdr(msg)->flags | msg->tag) == 0)) {
		om_pool_msg_free(cx, msg);
		return true;
	}
	dispatch_settle(cx, msg, err);
	return true;
}

/* Runs the handler for something that the runtime made; the payload is copied. */
void
om_actor_deliver(struct om_ctx *cx, struct om_actor *a, uint32_t type, const void *payload,
		 uint32_t size)
{
	struct om_node node;
	om_handler_fn fn = handler_find(a, type);
	enum om_err err;

	if (fn == NULL || a->phase != OM_PHASE_RUN) {
		return;
	}
	om_mbox_node_init(&node, OM_KIND_USER, type, size);
	node.hdr.to = cx->self_id;
	node.hdr.trace = cx->trace; /* of a timer, else 0 */
	memcpy(node.words, payload, size);
	cx->current = &node.msg;
	cx->current_moved = false;
	err = handler_call(cx, a, fn, &node.msg);
	cx->current = NULL;
	if (err != OM_OK) { /* OM_AGAIN too: there is no message to keep */
		cx->n.errors++;
	}
}

/* Takes msg: the memory of the order becomes the spare for the next report. */
static void
actor_restart(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	if (a->phase != OM_PHASE_SUSPENDED || a->ext->spare != NULL) {
		om_pool_msg_free(cx, msg);
	} else {
		a->ext->spare = msg;
	}
	if (a->phase != OM_PHASE_SUSPENDED) {
		return;
	}
	om_mbox_undefer(a);
	cx->n.restarted++;
	a->ext->restarts++;
	a->state = (void *)(uintptr_t)a->ext->start_arg;
	a->phase = OM_PHASE_NEW;
}

/* The sender was told OK: what comes while the actor is suspended waits for the restart. */
static void
dispatch_defer(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	a->handled--;
	cx->n.handled--;
	om_mbox_defer(a, msg);
}

static void
dispatch_bell(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_node *node = om_container_of(msg, struct om_node, msg);
	struct om_bell_rung rung;

	if (a->phase == OM_PHASE_SUSPENDED && om_bell_is_ours(cx, node)) {
		dispatch_defer(cx, a, msg); /* the rings stay in the bell, further ones join them */
	} else if (om_bell_take(cx, node, &rung)) {
		om_actor_deliver(cx, a, OM_SYS_BELL, &rung, sizeof(rung));
	}
}

static void
dispatch_urgent(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	if (a->phase == OM_PHASE_SUSPENDED) {
		dispatch_defer(cx, a, msg);
		return;
	}
	if (!om_actor_dispatch(cx, a, msg)) {
		cx->n.handled--;
		cx->n.again++;
		cx->n.sent--; /* the push counts it again */
		if (om_mbox_push_sys(cx, cx->self_id, msg) != OM_OK) {
			om_actor_discard(cx, msg, OM_DROP_STOP);
		}
		cx->yield = true;
	}
}

/* Handles one message of the system lane; takes it. */
void
om_actor_dispatch_sys(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	if (om_unlikely(om_hdr(msg)->to != cx->self_id)) {
		cx->n.handled--;
		om_actor_discard(cx, msg, OM_DROP_STALE);
		return;
	}
	switch ((enum om_kind)om_hdr(msg)->kind) {
	case OM_KIND_USER:
		dispatch_urgent(cx, a, msg);
		break;
	case OM_KIND_REPLY:
		om_ask_on_reply(cx, a, msg);
		break;
	case OM_KIND_LATER_DONE:
		om_ask_on_later_done(a, msg);
		om_pool_msg_free(cx, msg);
		break;
	case OM_KIND_MONITOR:
	case OM_KIND_DEMONITOR:
	case OM_KIND_DOWN:
	case OM_KIND_LINK:
	case OM_KIND_UNLINK:
	case OM_KIND_EXIT:
		om_link_on_message(cx, a, msg);
		break;
	case OM_KIND_TIMER:
		om_timer_on_message(cx, a, msg);
		break;
	case OM_KIND_IO:
		om_io_on_message(cx, a, msg);
		break;
	case OM_KIND_WORK:
		om_offload_on_message(cx, a, msg);
		break;
	case OM_KIND_BELL:
		dispatch_bell(cx, a, msg);
		break;
	case OM_KIND_CHILD:
		om_supervisor_on_child(cx, a, msg);
		om_pool_msg_free(cx, msg);
		break;
	case OM_KIND_RESTART:
		actor_restart(cx, a, msg);
		break;
	case OM_KIND_SUSPEND:
		om_pool_msg_free(cx, msg);
		if (a->phase == OM_PHASE_RUN && om_actor_suspends(cx, a)) {
			om_fail(cx, OM_OK);
		}
		break;
	case OM_KIND_RELEASE:
		om_pool_msg_free(cx, msg);
		om_fail(cx, OM_OK);
		cx->leave_ordered = true;
		break;
	case OM_KIND_TRACE:
		a->flags &= (uint8_t)~OM_ACTOR_TRACED;
		if (om_msg_u64(msg) != 0) {
			a->flags |= OM_ACTOR_TRACED;
		} else {
			om_trace_stop_ways(cx->sys);
		}
		om_pool_msg_free(cx, msg);
		break;
	}
}

/* A message that nobody will handle.  Takes it; counts it; answers a request; exactly once. */
void
om_actor_discard(struct om_ctx *cx, struct om_msg *msg, enum om_drop why)
{
	struct om_msg_hdr *hdr = om_hdr(msg);

	if (hdr->kind != OM_KIND_USER && hdr->kind != OM_KIND_REPLY) {
		cx->n.dropped[why]++;
	} else {
		om_stats_drop(cx, msg, why);
	}
	switch ((enum om_kind)hdr->kind) {
	case OM_KIND_USER:
		if (msg->tag != 0 && (hdr->flags & OM_HDR_ANSWERED) == 0) {
			om_ask_turn_round(cx, msg, why == OM_DROP_FULL ? OM_ERR_FULL : OM_ERR_GONE);
		} else {
			om_msg_free(cx, msg);
		}
		break;
	case OM_KIND_REPLY:
		om_msg_free(cx, msg);
		break;
	case OM_KIND_MONITOR:
	case OM_KIND_LINK:
		om_link_discard(cx, msg);
		break;
	case OM_KIND_TIMER:
		om_timer_discard(msg);
		break;
	case OM_KIND_IO:
		om_io_discard(cx, msg);
		break;
	case OM_KIND_WORK:
		om_offload_discard(cx, msg);
		break;
	case OM_KIND_BELL:
		om_bell_discard(om_container_of(msg, struct om_node, msg));
		break;
	case OM_KIND_DEMONITOR:
	case OM_KIND_DOWN:
	case OM_KIND_UNLINK:
	case OM_KIND_EXIT:
	case OM_KIND_LATER_DONE:
	case OM_KIND_CHILD:
	case OM_KIND_RESTART:
	case OM_KIND_SUSPEND:
	case OM_KIND_RELEASE:
	case OM_KIND_TRACE:
		om_pool_msg_free(cx, msg);
		break;
	}
}
