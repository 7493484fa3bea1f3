/* SPDX-License-Identifier: ISC */
/*
 * Bells (runtime/mailbox.h): queues beside the mailbox tell their owner that something came.
 *
 * The message lies in the bell, so ringing needs no memory; it is in at most one mailbox at a time.
 *
 * 1. rung > 0 and an owner is alive: the node is in the owner's mailbox, or somebody is about to put
 *    it there or to look again.  If broken: items lie in a queue that nobody is told of.
 * 2. Who sets `queued` from 0 to 1 owns the node until he clears it.  If broken: two threads write
 *    one node.
 * 3. A node in a mailbox holds a reference.  If broken: a mailbox leads to freed memory.
 */
#include <ck_pr.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/runtime_impl.h"

struct om_bell {
	struct om_node node; /* in at most one mailbox: guarded by `queued` */
	struct om_system *sys;
	uint64_t owner; /* shared */
	uint64_t cookie; /* shared */
	uint32_t limit;
	uint32_t refs; /* shared */
	uint32_t reserved; /* shared */
	uint32_t rung; /* shared */
	uint32_t queued; /* shared: node is in a mailbox, or somebody is about to put it there */
};

enum om_err
om_bell_new(struct om_system *sys, uint32_t limit, struct om_bell **out)
{
	struct om_bell *bell = aligned_alloc(OM_CACHE_LINE, (sizeof(*bell) + OM_CACHE_LINE - 1) &
								~(size_t)(OM_CACHE_LINE - 1));

	if (bell == NULL) {
		return OM_ERR_NOMEM;
	}
	memset(bell, 0, sizeof(*bell));
	om_mbox_node_init(&bell->node, OM_KIND_BELL, OM_SYS_BELL, sizeof(struct om_bell_rung));
	bell->sys = sys;
	bell->limit = limit != 0 ? limit : UINT32_MAX;
	bell->refs = 1;
	*out = bell;
	return OM_OK;
}

struct om_bell *
om_bell_ref(struct om_bell *bell)
{
	ck_pr_inc_32(&bell->refs);
	return bell;
}

void
om_bell_unref(struct om_bell *bell)
{
	if (bell == NULL) {
		return;
	}
	om_tsan_release(&bell->refs);
	/* Order: our use of the bell before the count.  Pairs with the same line of the last one. */
	ck_pr_fence_release();
	if (ck_pr_faa_32(&bell->refs, (uint32_t)-1) == 1) {
		ck_pr_fence_acquire();
		om_tsan_acquire(&bell->refs);
		free(bell);
	}
}

/*
 * The node is in no mailbox any more.  Order: our use of the node before the flag.  Pairs with the
 * exchange in bell_post, after which another thread writes the node.
 */
static void
bell_unqueue(struct om_bell *bell)
{
	ck_pr_fence_release();
	om_tsan_release(&bell->queued);
	ck_pr_store_32(&bell->queued, 0);
}

/* Puts the node into the owner's mailbox unless it is in one. */
static void
bell_post(struct om_bell *bell)
{
	uint64_t owner;

	while (ck_pr_load_32(&bell->rung) != 0 && ck_pr_fas_32(&bell->queued, 1) == 0) {
		ck_pr_fence_acquire(); /* pairs with bell_unqueue */
		om_tsan_acquire(&bell->queued);
		owner = ck_pr_load_64(&bell->owner);
		(void)om_bell_ref(bell); /* the mailbox's */
		if (om_mbox_post_sys(bell->sys, owner, &bell->node.msg) == OM_OK) {
			return;
		}
		bell_unqueue(bell);
		/*
		 * Order: `queued` is clear before we look at the owner again.  Pairs with
		 * om_bell_own (owner, then queued).  Without it a new owner relies on our post, we
		 * on his, and the rings stay silent.
		 */
		ck_pr_fence_memory();
		om_bell_unref(bell);
		if (ck_pr_load_64(&bell->owner) == owner) {
			return;
		}
	}
}

void
om_bell_own(struct om_ctx *cx, struct om_bell *bell, uint64_t cookie)
{
	ck_pr_store_64(&bell->cookie, cookie);
	ck_pr_store_64(&bell->owner, cx->self_id);
	ck_pr_fence_memory(); /* owner before queued: see bell_post */
	bell_post(bell);
}

enum om_err
om_bell_reserve_force(struct om_bell *bell)
{
	uint64_t owner = ck_pr_load_64(&bell->owner);

	if (owner == 0 || !om_actor_is(bell->sys, owner)) {
		return OM_ERR_GONE;
	}
	ck_pr_inc_32(&bell->reserved);
	return OM_OK;
}

enum om_err
om_bell_reserve(struct om_bell *bell)
{
	uint64_t owner = ck_pr_load_64(&bell->owner);

	if (owner == 0 || !om_actor_is(bell->sys, owner)) {
		return OM_ERR_GONE;
	}
	if (ck_pr_faa_32(&bell->reserved, 1) >= bell->limit) {
		ck_pr_dec_32(&bell->reserved);
		return OM_ERR_FULL;
	}
	return OM_OK;
}

void
om_bell_cancel(struct om_bell *bell)
{
	ck_pr_dec_32(&bell->reserved);
}

void
om_bell_ring_many(struct om_bell *bell, uint32_t n)
{
	/*
	 * Order: the item before the ring.  Pairs with the acquire fence in om_bell_take.
	 * Without it the owner counts an item that is not yet in its queue.
	 */
	ck_pr_fence_release();
	om_tsan_release(&bell->rung);
	if (ck_pr_faa_32(&bell->rung, n) == 0) {
		bell_post(bell);
	}
}

void
om_bell_ring(struct om_bell *bell)
{
	om_bell_ring_many(bell, 1);
}

void
om_bell_poke(struct om_bell *bell)
{
	ck_pr_inc_32(&bell->reserved);
	om_bell_ring(bell);
}

uint32_t
om_bell_depth(const struct om_bell *bell)
{
	return ck_pr_load_32(&bell->reserved);
}

bool
om_bell_is_ours(const struct om_ctx *cx, const struct om_node *node)
{
	return ck_pr_load_64(&om_container_of(node, struct om_bell, node)->owner) == cx->self_id;
}

/* Owner thread: the node was taken out of the mailbox.  false: nothing to deliver. */
bool
om_bell_take(struct om_ctx *cx, struct om_node *node, struct om_bell_rung *rung)
{
	struct om_bell *bell = om_container_of(node, struct om_bell, node);
	bool ours = ck_pr_load_64(&bell->owner) == cx->self_id;

	bell_unqueue(bell);
	/*
	 * Order: `queued` is clear before we take the rings.  Pairs with om_bell_ring_many (rung, then
	 * queued).  Without it a ring after our exchange finds `queued` set and posts nothing.
	 */
	ck_pr_fence_memory();
	rung->count = 0;
	if (ours) {
		rung->cookie = ck_pr_load_64(&bell->cookie);
		rung->count = ck_pr_fas_32(&bell->rung, 0);
		ck_pr_fence_acquire();
		om_tsan_acquire(&bell->rung);
		(void)ck_pr_faa_32(&bell->reserved, (uint32_t)-rung->count);
	} else {
		bell_post(bell); /* another actor owns it now */
	}
	om_bell_unref(bell);
	return rung->count > 0;
}

/* The mailbox that held the node is gone. */
void
om_bell_discard(struct om_node *node)
{
	struct om_bell *bell = om_container_of(node, struct om_bell, node);

	bell_unqueue(bell);
	ck_pr_fence_memory(); /* as in bell_post: a new owner may have come meanwhile */
	bell_post(bell);
	om_bell_unref(bell);
}
