/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_MAILBOX_H
#define OM_RUNTIME_MAILBOX_H

/*
 * A counting doorbell, for queues that lie beside the mailbox (the bus's ZeroMQ sockets).
 *
 * A sender reserves, puts its item into that queue, and rings.  The owner gets one OM_SYS_BELL with
 * the number of rings since the last one, and takes exactly that many items: each rung item was in
 * place before its ring.  Delivery needs no memory and is never refused.
 *
 *	sender				owner's OM_SYS_BELL handler
 *	om_bell_reserve(bell)		rung = om_bell_rung_of(msg)
 *	put one item			take rung->count items of queue rung->cookie
 *	om_bell_ring(bell)
 *
 * A bell is counted by references and outlives its owner: while nobody owns it a reservation is
 * OM_ERR_GONE.  A restarted owner keeps its handle, so the same bell rings again; rings from the
 * time between are delivered after the restart.  A new actor takes it over by om_bell_own; what an
 * owner that waits for its restart has been told of, the new one hears when that restart is over.
 *
 * Example:
 *	extern void queue_put(int item);
 *	extern int queue_take(void);
 *
 *	static enum om_err
 *	put(struct om_bell *bell, int item)
 *	{
 *		enum om_err err = om_bell_reserve(bell);
 *
 *		if (err != OM_OK) {
 *			return err;
 *		}
 *		queue_put(item);
 *		om_bell_ring(bell);
 *		return OM_OK;
 *	}
 *
 *	static enum om_err
 *	on_bell(struct om_ctx *cx, void *state, const struct om_msg *msg)
 *	{
 *		for (uint32_t i = om_bell_rung_of(msg)->count; i > 0; i--) {
 *			(void)queue_take();
 *		}
 *		return OM_OK;
 *	}
 */
#include <stdint.h>
#include "runtime/actor.h"

struct om_bell;

/* Payload of OM_SYS_BELL. */
struct om_bell_rung {
	uint64_t cookie; /* what om_bell_own was given */
	uint32_t count; /* > 0 */
};

static inline const struct om_bell_rung *
om_bell_rung_of(const struct om_msg *msg)
{
	return (const struct om_bell_rung *)(const void *)msg->payload;
}

/*
 * Any thread.  Gives a bell without an owner, with one reference.  limit: items reserved and not
 * yet delivered; 0: no limit.  NOMEM.  All references must be gone before om_system_free.
 */
enum om_err om_bell_new(struct om_system *sys, uint32_t limit, struct om_bell **out) OM_MUST_CHECK;
/* Any thread. */
struct om_bell *om_bell_ref(struct om_bell *bell);
void om_bell_unref(struct om_bell *bell); /* NULL is fine */

/* The running actor becomes the owner, also in place of another; what was rung before comes now. */
void om_bell_own(struct om_ctx *cx, struct om_bell *bell, uint64_t cookie);

/*
 * Any thread.  A right to put one item: FULL (limit reached), GONE (no owner, or it has ended).
 * After OM_OK exactly one om_bell_ring or om_bell_cancel must follow; one om_bell_ring_many may follow many.
 */
enum om_err om_bell_reserve(struct om_bell *bell) OM_MUST_CHECK;
/* The same for replies: never FULL. */
enum om_err om_bell_reserve_force(struct om_bell *bell) OM_MUST_CHECK;
/* Any thread.  The item could not be put. */
void om_bell_cancel(struct om_bell *bell);
/* Any thread.  The item is in place; n > 0 items are. */
void om_bell_ring(struct om_bell *bell);
void om_bell_ring_many(struct om_bell *bell, uint32_t n);
/*
 * Any thread, no reservation: for a queue that is fed from outside (a socket that the kernel says
 * is readable).  Counts as one ring.
 */
void om_bell_poke(struct om_bell *bell);

/* Any thread.  Items reserved and not yet delivered. */
uint32_t om_bell_depth(const struct om_bell *bell);

#endif /* OM_RUNTIME_MAILBOX_H */
