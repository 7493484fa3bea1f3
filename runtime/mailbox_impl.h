/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_MAILBOX_IMPL_H
#define OM_RUNTIME_MAILBOX_IMPL_H

/*
 * The words of a mailbox.  Included by mailbox.c, lane.c, scheduler.c and stats.c only.
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
			ck_pr_fence_acquire(); /* pairs with the release fence in om_mbox_rest */
			om_tsan_acquire(&a->head);
			om_sched_ready(cx, a);
			return;
		}
	}
}

/*
 * Owner thread.  Everything that was pushed since the last pull becomes the private list, oldest
 * first.  Called with an empty list, so the count in head tells exactly how many messages are new;
 * the chain is not followed beyond them, because what lies below is freed.
 */
static inline bool
mbox_pull(struct om_actor *a)
{
	uint64_t head = ck_pr_load_64(&a->head);
	uint32_t n = head_depth(head, a->taken);
	struct om_msg *msg = head_msg(head);
	struct om_msg *list = NULL;

	if (n == 0) {
		return false;
	}
	/*
	 * Order: head before the messages that it leads to.  Pairs with the release fence before the
	 * exchange in mbox_push_free.  Without it we may read a message before its sender wrote it.
	 */
	ck_pr_fence_acquire();
	om_tsan_acquire(&a->head);
	if (om_unlikely(n > a->high_water)) {
		a->high_water = n;
	}
	do {
		struct om_msg *older = msg->next;

		msg->next = list;
		list = msg;
		msg = older;
	} while (--n > 0);
	a->first = list;
	return true;
}

#endif /* OM_RUNTIME_MAILBOX_IMPL_H */
