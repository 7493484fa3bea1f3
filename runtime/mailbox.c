/* SPDX-License-Identifier: ISC */
/*
 * The mailbox: two lanes of messages in intrusive chains.
 *
 * The user lane is one word: the newest message, the count of all pushes, and the bit "idle: empty
 * and in nobody's run queue".  A send is one compare-and-swap of that word; it checks the bound
 * exactly, links the message, and tells by itself whether the sender has to schedule the actor.
 * The actor pulls by reading the word (mailbox_impl.h): no exchange, no stub, no gap in which a
 * message is half in.  It goes idle by one compare-and-swap, so a ping-pong costs two locked
 * instructions a message.
 *
 * Why not Vyukov's queue: its exchange can neither refuse (the bound would need a second locked
 * instruction) nor be undone when the receiver has ended meanwhile, and its consumer must wait for
 * a sender that was pre-empted between exchange and link.
 *
 * The system lane is a stack that the actor takes whole; it has no bound and also takes nodes that
 * live inside other objects.
 *
 * Invariants
 * 1. idle is set: the actor is in no run queue and nobody runs it.  Who clears it, by a successful
 *    compare-and-swap, must schedule it.  If broken: two threads run one actor, or none does.
 * 2. idle is not set: whoever runs or will run the actor looks at both lanes and at life once more
 *    after it has set idle.  If broken: a message sleeps in a mailbox.
 * 3. life is dead before head changes for the last time (om_mbox_close), and a sender reads head
 *    before life.  If broken: a message enters a mailbox that nobody will open.
 * 4. Each message carries the handle it was sent to; delivery compares it.  This holds even when a
 *    sender sleeps through 2^20 pushes and its old word matches again.
 *
 * `model: x` names the action of the models (tests/model) that a function is.
 */
#include "runtime/mailbox_impl.h"
#include <string.h>

struct om_actor *
om_actor_at(struct om_system *sys, uint64_t id)
{
	return mbox_actor_at(sys, id);
}

bool
om_actor_is(struct om_system *sys, uint64_t id)
{
	const struct om_actor *a = mbox_actor_at(sys, id);

	return a != NULL && life_is(ck_pr_load_64(&a->life), id);
}

uint64_t
om_mbox_life(const struct om_actor *a)
{
	return ck_pr_load_64(&a->life);
}

bool
om_mbox_is_ending(struct om_system *sys, uint64_t id)
{
	const struct om_actor *a = mbox_actor_at(sys, id);
	uint64_t life = a != NULL ? ck_pr_load_64(&a->life) : 0;

	return !life_is(life, id) || (life & OM_LIFE_CTL) != 0;
}

uint32_t
om_mbox_depth(const struct om_actor *a, uint32_t *sys_depth)
{
	uint32_t taken;

	if (sys_depth != NULL) {
		*sys_depth = sys_len(ck_pr_load_64(&a->sys)) + ck_pr_load_32(&a->sys_left);
	}
	/* `taken` first: it only grows, so the difference is never negative. */
	taken = ck_pr_load_32(&a->taken);
	ck_pr_fence_load();
	return head_depth(ck_pr_load_64(&a->head), taken);
}

/* Any thread.  One message to the end of the user lane.  STALE, FULL: the caller keeps it. */
enum om_err
om_mbox_push(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	struct om_actor *a = mbox_actor_at(cx->sys, to);
	uint64_t head, seen;

	om_hdr(msg)->to = to; /* also of one that is dropped: whom it was for */
	if (a == NULL) {
		return OM_ERR_STALE;
	}
	head = ck_pr_load_64(&a->head);
	for (;;) {
		seen = head;
		switch (mbox_try(cx, a, to, msg, &head)) {
		case MBOX_PUSHED:
			return OM_OK;
		case MBOX_STALE:
			return OM_ERR_STALE;
		case MBOX_LOCKED:
			return om_lane_push(cx, a, to, msg);
		case MBOX_MOVED:
			break;
		case MBOX_FULL:
			/*
			 * Order: taken before a second look at head.  The owner may have taken what was
			 * pushed after our head: then taken is ahead of it and the depth wraps.  Without
			 * it a sender that was interrupted between the two is told FULL.
			 */
			ck_pr_fence_load();
			head = ck_pr_load_64(&a->head);
			if (head == seen) {
				mbox_overload(cx, a);
				return OM_ERR_FULL;
			}
			break;
		}
	}
}

/* The chain of a system lane, which was taken out, oldest first. */
static struct om_msg *
sys_in_order(uint64_t word, uint32_t *count)
{
	struct om_msg *msg = sys_msg(word), *list = NULL;

	for (*count = 0; msg != NULL; ++*count) {
		struct om_msg *older = msg->next;

		msg->next = list;
		list = msg;
		msg = older;
	}
	return list;
}

/* The slot was closed while we pushed: takes out what no tenant will look at.  model: mbox_reap. */
static void
mbox_reap(struct om_ctx *cx, struct om_actor *a)
{
	uint64_t word;
	struct om_msg *msg, *next;
	uint32_t n;

	do {
		word = ck_pr_load_64(&a->sys);
		/*
		 * Order: the lane before life.  Pairs with om_mbox_open: a message of a new tenant
		 * comes after its life, so it is not in `word` if life is dead now, and the exchange
		 * fails if it comes later.  Without it we take a message from under a tenant.
		 */
		ck_pr_fence_load();
		if (word == 0 || (ck_pr_load_64(&a->life) & OM_LIFE_DEAD) == 0) {
			return; /* a new tenant finds it and sees that it is not addressed to it */
		}
	} while (!ck_pr_cas_64(&a->sys, word, 0));
	ck_pr_fence_acquire(); /* pairs with the release fence in om_mbox_push_sys */
	om_tsan_acquire(&a->sys);
	for (msg = sys_in_order(word, &n); msg != NULL; msg = next) {
		next = msg->next;
		/* The same word again (its memory was used again meanwhile): it goes back. */
		if (om_mbox_push_sys(cx, om_hdr(msg)->to, msg) != OM_OK) {
			om_actor_discard(cx, msg, OM_DROP_STALE);
		} else {
			cx->n.sent--;
		}
	}
}

/*
 * Any thread.  One message to the end of the system lane; never full.  STALE: the caller keeps it.
 * model: push_sys.
 */
enum om_err
om_mbox_push_sys(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	struct om_actor *a = mbox_actor_at(cx->sys, to);
	uint64_t sys;
	uint32_t len;

	if (a == NULL || !life_is(ck_pr_load_64(&a->life), to)) {
		return OM_ERR_STALE;
	}
	cx->n.sent++;
	om_hdr(msg)->to = to;
	sys = ck_pr_load_64(&a->sys);
	do {
		msg->next = sys_msg(sys);
		len = sys_len(sys);
		/* Pairs with the acquire fence in om_mbox_take_sys: the message before its address. */
		ck_pr_fence_release();
		om_tsan_release(&a->sys);
	} while (!ck_pr_cas_64_value(&a->sys, sys,
				     sys_pack(msg, len < MBOX_COUNT_MASK ? len + 1 : len), &sys));
	/*
	 * Order: the message in the lane before our second look at life, and before our look at the
	 * idle bit.  Pairs with om_mbox_close (life dead, then look at the lane) and with
	 * mbox_rest (idle, then look at the lane).  Without it each side can miss the other: the
	 * message stays in a dead slot, or in an actor that sleeps.
	 */
	ck_pr_fence_atomic_load();
	if (om_unlikely(!life_is(ck_pr_load_64(&a->life), to))) {
		mbox_reap(cx, a);
		return OM_OK;
	}
	mbox_rouse(cx, a);
	return OM_OK;
}

enum om_err
om_mbox_push_node(struct om_ctx *cx, uint64_t to, struct om_node *node)
{
	return om_mbox_push_sys(cx, to, &node->msg);
}

uint32_t
om_mbox_sys_len(struct om_system *sys, uint64_t to)
{
	const struct om_actor *a = om_actor_at(sys, to);

	return a == NULL ? 0 : sys_len(ck_pr_load_64(&a->sys)) + ck_pr_load_32(&a->sys_left);
}

uint32_t
om_mbox_limit(struct om_system *sys, uint64_t to)
{
	const struct om_actor *a = om_actor_at(sys, to);

	return a == NULL ? 0 : ck_pr_load_32(&a->limit);
}

/* Owner thread.  The whole system lane becomes the private list, oldest first. */
bool
om_mbox_take_sys(struct om_actor *a)
{
	uint64_t word;
	uint32_t n;

	if (ck_pr_load_64(&a->sys) == 0) {
		return false;
	}
	word = ck_pr_fas_64(&a->sys, 0);
	/* Pairs with the release fence in om_mbox_push_sys. */
	ck_pr_fence_acquire();
	om_tsan_acquire(&a->sys);
	a->sys_first = sys_in_order(word, &n);
	ck_pr_store_32(&a->sys_left, a->sys_left + n); /* what is deferred counts too */
	return n > 0;
}

void
om_mbox_defer(struct om_actor *a, struct om_msg *msg)
{
	struct om_actor_ext *ext = a->ext;

	msg->next = NULL;
	if (ext->deferred != NULL) {
		ext->deferred_last->next = msg;
	} else {
		ext->deferred = msg;
	}
	ext->deferred_last = msg;
	ck_pr_store_32(&a->sys_left, a->sys_left + 1);
}

void
om_mbox_undefer(struct om_actor *a)
{
	struct om_actor_ext *ext = a->ext;

	if (ext->deferred != NULL) {
		ext->deferred_last->next = a->sys_first;
		a->sys_first = ext->deferred;
		ext->deferred = NULL;
	}
}

/*
 * Any thread.  A stop takes effect when all that is in the user lane now has been handled.
 * model: stopper.
 */
void
om_mbox_control(struct om_ctx *cx, uint64_t to, uint64_t bit)
{
	struct om_actor *a = mbox_actor_at(cx->sys, to);
	uint64_t life, next;

	if (a == NULL) {
		return;
	}
	life = ck_pr_load_64(&a->life);
	do {
		if (!life_is(life, to) || (life & bit) != 0) {
			return;
		}
		next = life | bit;
		if (bit == OM_LIFE_STOP) {
			next |= (uint64_t)head_count(ck_pr_load_64(&a->head)) << OM_LIFE_STOP_SHIFT;
		}
		/* The compare-and-swap fails when the generation changed: never another actor. */
	} while (!ck_pr_cas_64_value(&a->life, life, next, &life));
	/* Order: the bit before our look at idle.  Pairs with the second fence in mbox_rest. */
	ck_pr_fence_atomic_load();
	mbox_rouse(cx, a);
	if (bit == OM_LIFE_KILL) {
		om_sched_room_made(cx->sys); /* it may wait for room elsewhere: send_full */
	}
}

/* Owner thread: an order to end is there (`life`); the bit of it that is due, or 0.  model: DUE. */
uint64_t
om_mbox_order(const struct om_actor *a, uint64_t life)
{
	uint32_t past;

	if ((life & OM_LIFE_KILL) != 0) {
		return OM_LIFE_KILL;
	}
	if (om_unlikely(a->ext != NULL && a->ext->draining)) {
		return 0;
	}
	if (a->phase == OM_PHASE_SUSPENDED || a->def->drop_on_stop) {
		return OM_LIFE_STOP;
	}
	/*
	 * "Passed" counts too: om_mbox_control reads head before its exchange of life, and we may have
	 * handled more meanwhile.  An empty lane does in any case, whatever has been counted round.
	 */
	past = (a->taken - (uint32_t)(life >> OM_LIFE_STOP_SHIFT)) & MBOX_COUNT_MASK;
	if (past < OM_MBOX_SLOTS_MAX || head_depth(ck_pr_load_64(&a->head), a->taken) == 0) {
		return OM_LIFE_STOP;
	}
	return 0;
}

/* The slot is free and ours: the id that om_mbox_open will give. */
uint64_t
om_mbox_next_id(struct om_system *sys, const struct om_actor *a)
{
	return (ck_pr_load_64(&a->life) >> OM_SLOT_BITS) << OM_SLOT_BITS | om_actor_slot(sys, a);
}

/*
 * The slot is free and ours, all fields are set: gives the id of the new tenant.  The idle bit is
 * not set: the caller schedules it.
 */
uint64_t
om_mbox_open(struct om_system *sys, struct om_actor *a)
{
	uint64_t gen = ck_pr_load_64(&a->life) >> OM_SLOT_BITS;

	ck_pr_store_32(&a->taken, head_count(ck_pr_load_64(&a->head)));
	/* Order: the fields before life.  Pairs with mbox_try: life, then limit and taken. */
	ck_pr_fence_store();
	ck_pr_store_64(&a->life, gen << OM_SLOT_BITS);
	return gen << OM_SLOT_BITS | om_actor_slot(sys, a);
}

/* Owner thread.  Takes out and drops everything that both lanes hold now. */
void
om_mbox_drop_all(struct om_ctx *cx, struct om_actor *a, enum om_drop why)
{
	struct om_msg *msg;

	for (;;) {
		if (a->sys_first == NULL) {
			(void)om_mbox_take_sys(a);
		}
		if ((msg = a->sys_first) != NULL) {
			a->sys_first = msg->next;
			ck_pr_store_32(&a->sys_left, a->sys_left - 1);
		} else {
			if ((msg = a->first) != NULL) {
				a->first = msg->next;
			} else {
				msg = mbox_pull_any(cx, a, ck_pr_load_64(&a->head));
			}
			if (msg == NULL) {
				return;
			}
			ck_pr_store_32(&a->taken, a->taken + 1);
		}
		om_actor_discard(cx, msg, why);
	}
}

static inline bool
mbox_sys_is_bare(const struct om_actor *a)
{
	return a->sys_first == NULL && ck_pr_load_64(&a->sys) == 0;
}

/*
 * Owner thread.  Ends the tenancy: new senders see STALE, what came before is dropped, and a sender
 * in between fails its compare-and-swap and looks at life again.  The slot is ours to reuse.
 * model: close.
 */
void
om_mbox_close(struct om_ctx *cx, struct om_actor *a)
{
	uint64_t gen = (ck_pr_load_64(&a->life) >> OM_SLOT_BITS) + 1;
	pthread_mutex_t *lock = NULL;
	uint64_t head;

	if ((a->limit & OM_LIMIT_LOCKED) != 0) {
		lock = &cx->sys->lane_lock[om_actor_slot(cx->sys, a) % OM_LANE_LOCKS];
		(void)pthread_mutex_lock(lock);
	}
	/*
	 * Order: all that the actor did before its life is dead.  Pairs with the acquire fence in
	 * om_sched_wait_ended.  Without it who has waited for an end reads what comes before it.
	 */
	ck_pr_fence_release();
	om_tsan_release(&a->life);
	/* A plain store: om_mbox_control compares the whole word, so it comes before this or fails. */
	ck_pr_store_64(&a->life, gen << OM_SLOT_BITS | OM_LIFE_DEAD);
	if (lock != NULL) {
		(void)pthread_mutex_unlock(lock);
	}
	for (;;) {
		head = ck_pr_load_64(&a->head);
		if (om_unlikely(a->first != NULL || head_depth(head, a->taken) != 0 ||
				!mbox_sys_is_bare(a))) {
			om_mbox_drop_all(cx, a, OM_DROP_STOP);
			continue;
		}
		/*
		 * Order: life dead before this change of head, and both before the last look at the
		 * system lane.  Pairs with the load fence in mbox_try and the fence in
		 * om_mbox_push_sys.  Without it a message enters a mailbox that nobody opens.
		 */
		ck_pr_fence_store_atomic();
		if (ck_pr_cas_64(&a->head, head,
				 (uint64_t)((head_count(head) + 1) & MBOX_COUNT_MASK) << 1)) {
			break;
		}
	}
	ck_pr_store_32(&a->taken, head_count(head) + 1);
	ck_pr_fence_atomic_load();
	if (om_unlikely(!mbox_sys_is_bare(a))) {
		om_mbox_drop_all(cx, a, OM_DROP_STOP);
	}
}

void
om_mbox_node_init(struct om_node *node, enum om_kind kind, uint32_t type, uint32_t size)
{
	memset(node, 0, sizeof(*node));
	node->hdr.cls = OM_CLS_EMBEDDED;
	node->hdr.kind = (uint8_t)kind;
	node->msg.type = type;
	node->msg.size = size;
}

/* Any thread.  As the calling thread, or as the foreign one. */
enum om_err
om_mbox_post_sys(struct om_system *sys, uint64_t to, struct om_msg *msg)
{
	bool locked;
	struct om_ctx *cx = om_system_enter(sys, &locked);
	enum om_err err = om_mbox_push_sys(cx, to, msg);

	om_system_leave(sys, locked);
	return err;
}
