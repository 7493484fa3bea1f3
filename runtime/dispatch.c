/* SPDX-License-Identifier: ISC */
/*
 * A message that left a mailbox: finds its handler and settles what the handler left; or drops it.
 *
 * 1. Each message that leaves a mailbox passes through dispatch_message, om_actor_dispatch_sys or
 *    om_actor_discard, exactly once.  If broken: sent != handled + queued + dropped.
 * 2. Each request that passes there is answered there, unless its duty moved (om_later, om_forward,
 *    om_msg_take).  If broken: an asker waits for its time-out.
 */
#include <string.h>
#include "runtime/dispatch_impl.h"

/* Traced, timed, or this call's turn to be sampled. */
enum om_err
om_handler_call_slow(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn,
		     const struct om_msg *msg)
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

/* The handler is through: answers a request that nobody answered, frees. */
void
om_dispatch_settle(struct om_ctx *cx, struct om_msg *msg, enum om_err err)
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

/* What no handler is for: of the slot's last tenant, or of a type that nobody knows.  Takes msg. */
void
om_dispatch_refuse(struct om_ctx *cx, struct om_msg *msg)
{
	cx->n.handled--; /* the caller counts it */
	if (om_hdr(msg)->to != cx->self_id) {
		om_actor_discard(cx, msg, OM_DROP_STALE);
		return;
	}
	om_stats_drop(cx, msg, OM_DROP_UNKNOWN);
	om_dispatch_settle(cx, msg, OM_ERR_UNKNOWN_TYPE);
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
	if (!dispatch_message(cx, a, msg)) {
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
