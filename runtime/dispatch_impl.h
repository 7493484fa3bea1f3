/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_DISPATCH_IMPL_H
#define OM_RUNTIME_DISPATCH_IMPL_H

/*
 * One message, its handler, and what is left of it in the usual case; dispatch.c has the others and
 * the invariants.  Inline: a call and its saved registers would be a tenth of a message.
 */
#include "runtime/runtime_impl.h"

/* dispatch.c */
enum om_err om_handler_call_slow(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn,
				 const struct om_msg *msg);
void om_dispatch_settle(struct om_ctx *cx, struct om_msg *msg, enum om_err err);
void om_dispatch_refuse(struct om_ctx *cx, struct om_msg *msg);

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

static inline enum om_err
handler_call(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn, const struct om_msg *msg)
{
	if (om_likely(om_hdr(msg)->trace == 0 &&
		      (a->flags & (OM_ACTOR_TIMED | OM_ACTOR_TRACED)) == 0 && --cx->sample != 0)) {
		return fn(cx, a->state, msg);
	}
	return om_handler_call_slow(cx, a, fn, msg);
}

/*
 * Handles one message of the user lane.  false: the handler wants it again (OM_AGAIN), the caller
 * keeps it.
 */
static OM_HOT bool
dispatch_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	om_handler_fn fn;
	enum om_err err;

	fn = handler_find(a, msg->type);
	if (om_unlikely(fn == NULL || om_hdr(msg)->to != cx->self_id)) {
		om_dispatch_refuse(cx, msg);
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
	om_dispatch_settle(cx, msg, err);
	return true;
}

#endif /* OM_RUNTIME_DISPATCH_IMPL_H */
