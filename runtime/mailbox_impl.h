/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_MAILBOX_IMPL_H
#define OM_RUNTIME_MAILBOX_IMPL_H

/*
 * The words of a mailbox.  Included by mailbox.c, lane.c, context.c, scheduler.c and stats.c only.
 *
 *	head: | message address / 32 (43 bits) | pushes, modulo 2^20 | idle |
 *	sys:  | message address / 16 (44 bits)      | length, at most 2^20 - 1 |
 */
#include <ck_pr.h>
#include "runtime/runtime_impl.h"

#define MBOX_IDLE       UINT64_C(1)
#define MBOX_COUNT_MASK UINT32_C(0xfffff)

static inline uint32_t
head_count(uint64_t head)
{
	return (uint32_t)(head >> 1) & MBOX_COUNT_MASK;
}

static inline struct om_msg *
head_msg(uint64_t head)
{
	return (struct om_msg *)((struct om_msg_hdr *)(uintptr_t)((head >> 21) << 5) + 1);
}

static inline uint64_t
head_pack(const struct om_msg *msg, uint32_t count)
{
	return (uint64_t)(uintptr_t)om_hdr(msg) << 16 | (uint64_t)(count & MBOX_COUNT_MASK) << 1;
}

/* Messages that were pushed and not taken out. */
static inline uint32_t
head_depth(uint64_t head, uint32_t taken)
{
	return (head_count(head) - taken) & MBOX_COUNT_MASK;
}

static inline struct om_msg *
sys_msg(uint64_t sys)
{
	return (struct om_msg *)(uintptr_t)((sys >> 20) << 4);
}

static inline uint32_t
sys_len(uint64_t sys)
{
	return (uint32_t)sys & MBOX_COUNT_MASK;
}

static inline uint64_t
sys_pack(const struct om_msg *msg, uint32_t len)
{
	return (uint64_t)(uintptr_t)msg << 16 | len;
}

static inline bool
life_is(uint64_t life, uint64_t id)
{
	return (life ^ id) >> OM_SLOT_BITS == 0;
}

/* Any thread.  NULL: there is no such slot. */
static inline struct om_actor *
mbox_actor_at(struct om_system *sys, uint64_t id)
{
	uint64_t slot = id & OM_SLOT_MASK;

	if (om_unlikely(slot >= ck_pr_load_32(&sys->slot_mark) || (id & OM_PORT_BIT) != 0)) {
		return NULL;
	}
	return &sys->slots[slot];
}

/* The actor has work: whoever finds it idle schedules it (invariant 1).  model: rouse. */
static inline void
mbox_rouse(struct om_ctx *cx, struct om_actor *a)
{
	uint64_t head = ck_pr_load_64(&a->head);

	while ((head & MBOX_IDLE) != 0) {
		if (ck_pr_cas_64_value(&a->head, head, head & ~MBOX_IDLE, &head)) {
			ck_pr_fence_acquire(); /* pairs with the release fence in mbox_rest */
			om_tsan_acquire(&a->head);
			om_sched_ready(cx, a);
			return;
		}
	}
}

/* The receiver is behind: the sender's turn is over, and its next one is at the receiver's worker. */
static inline void
mbox_overload(struct om_ctx *cx, const struct om_actor *a)
{
	cx->yield = true;
	cx->follow = ck_pr_load_8(&a->worker);
}

enum mbox_try { MBOX_PUSHED, MBOX_MOVED, MBOX_STALE, MBOX_LOCKED, MBOX_FULL };

/*
 * Any thread.  Pushes if the user lane is what `*head` says.  MOVED: it is not, and *head is new.
 * FULL: by this *head.  LOCKED: it has a lane of its own.  Not PUSHED: nothing was done.
 * model: push.
 */
static OM_HOT enum mbox_try
mbox_try(struct om_ctx *cx, struct om_actor *a, uint64_t to, struct om_msg *msg, uint64_t *head)
{
	uint32_t limit, depth;
	uint64_t mine;

	om_hdr(msg)->to = to;
	/*
	 * Order: head before life.  Pairs with om_mbox_close, which makes life dead before it changes
	 * head.  Without it we could see the old life, then the closed head, and push a message that
	 * nobody takes out.
	 */
	ck_pr_fence_load();
	if (om_unlikely(!life_is(ck_pr_load_64(&a->life), to))) {
		return MBOX_STALE;
	}
	/* Order: life, then this tenant's limit and taken.  Pairs with om_mbox_open. */
	ck_pr_fence_load();
	limit = ck_pr_load_32(&a->limit);
	if (om_unlikely((limit & OM_LIMIT_LOCKED) != 0)) {
		return MBOX_LOCKED;
	}
	depth = head_depth(*head, ck_pr_load_32(&a->taken));
	if (om_unlikely(depth >= (limit & OM_LIMIT_MASK))) {
		return MBOX_FULL;
	}
	msg->next = head_msg(*head);
	mine = head_pack(msg, head_count(*head) + 1);
	/*
	 * Order: the message before the head that leads to it.  Pairs with the acquire fence in
	 * mbox_pull.  Without it the receiver reads a message that is not there.
	 */
	ck_pr_fence_release();
	om_tsan_release(&a->head);
	if (om_unlikely(!ck_pr_cas_64_value(&a->head, *head, mine, head))) {
		return MBOX_MOVED;
	}
	if (om_unlikely(depth > OM_OVERLOAD_DEPTH && depth <= OM_MBOX_SLOTS_MAX)) {
		mbox_overload(cx, a);
	}
	if ((*head & MBOX_IDLE) != 0) {
		/*
		 * Order: the idle bit that we cleared before what we do to the actor.  Pairs with the
		 * release fence in mbox_rest.  Without it we see what the last runner half wrote.
		 */
		ck_pr_fence_acquire();
		om_tsan_acquire(&a->head);
		om_sched_ready(cx, a);
	}
	return MBOX_PUSHED;
}

/*
 * Owner thread, with an empty private list.  Gives the oldest message of those that were pushed since
 * the last pull, and the others become the private list; NULL: none.  The count in head tells exactly
 * how many they are; the chain is not followed beyond them, because what lies below is freed.
 */
static inline struct om_msg *
mbox_pull(struct om_actor *a, uint64_t head)
{
	uint32_t n = head_depth(head, a->taken);
	struct om_msg *msg = head_msg(head);
	struct om_msg *list = NULL;

	if (n == 0) {
		return NULL;
	}
	/*
	 * Order: head before the messages that it leads to.  Pairs with the release fence before the
	 * exchange in mbox_try.  Without it we may read a message before its sender wrote it.
	 */
	ck_pr_fence_acquire();
	om_tsan_acquire(&a->head);
	if (om_unlikely(n > a->high_water)) {
		a->high_water = n;
	}
	if (n > 1) { /* one alone is the usual case, and writes nothing */
		while (--n > 0) {
			struct om_msg *older = msg->next;

			msg->next = list;
			list = msg;
			msg = older;
		}
		a->first = list;
	}
	return msg;
}

/* Owner thread, with an empty private list: as mbox_pull, from whichever user lane the actor has. */
static inline struct om_msg *
mbox_pull_any(struct om_ctx *cx, struct om_actor *a, uint64_t head)
{
	if (om_unlikely((a->limit & OM_LIMIT_LOCKED) != 0)) {
		return om_lane_pull(cx->sys, a);
	}
	return mbox_pull(a, head);
}

/* Owner thread.  It is the oldest again. */
static inline void
mbox_put_back(struct om_actor *a, struct om_msg *msg)
{
	msg->next = a->first;
	a->first = msg;
}

/*
 * Owner thread.  Goes idle if no message came since `head` was read, whatever the user lane holds (of
 * a suspended actor).  true: the actor is no longer ours, do not touch it.  model: rest, look.
 */
static inline bool
mbox_rest(struct om_actor *a, uint64_t head)
{
	/* Read before the idle bit: after it the actor may be another thread's.  An actor that drains
	 * has heard of its stop and rests until it ends itself; only a kill rouses it. */
	uint64_t orders = a->ext != NULL && a->ext->draining ? OM_LIFE_KILL : OM_LIFE_CTL;

	/*
	 * Order: all that this run wrote before the idle bit.  Pairs with the compare-and-swap of
	 * the sender that clears it (and then runs the actor or hands it on).  Without it the next
	 * runner sees a half-written state.
	 */
	ck_pr_fence_release();
	om_tsan_release(&a->head);
	if (!ck_pr_cas_64(&a->head, head, head | MBOX_IDLE)) {
		return false;
	}
	/*
	 * Order: the idle bit before our last look at lane and life.  Pairs with the fence in
	 * om_mbox_push_sys and with om_mbox_control.  Without it a system message or a stop that
	 * came just now wakes nobody (invariant 2).
	 */
	ck_pr_fence_atomic_load();
	if (ck_pr_load_64(&a->sys) == 0 && (ck_pr_load_64(&a->life) & orders) == 0) {
		return true;
	}
	if (!ck_pr_cas_64(&a->head, head | MBOX_IDLE, head)) {
		return true; /* somebody else cleared the bit, and may have run the actor since */
	}
	ck_pr_fence_acquire(); /* as in mbox_rouse: others may have run it between our two exchanges */
	om_tsan_acquire(&a->head);
	return false;
}

#endif /* OM_RUNTIME_MAILBOX_IMPL_H */
