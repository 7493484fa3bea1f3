/* SPDX-License-Identifier: ISC */
/*
 * The user lane of an actor with drop-oldest or a byte limit: a list under a lock.  Dropping the
 * oldest takes messages out at the owner's end, and bytes do not fit into the word of mailbox.c.
 *
 * The count in `head` is kept up all the same, so that depth, idle bit, stop and close work as for
 * the others: it grows by one for each message that comes and shrinks by one for each that is
 * dropped again.  It never comes back to an older value while the owner rests: the lane then is
 * empty, and what comes stays until the owner takes it.
 */
#include "runtime/mailbox_impl.h"

static pthread_mutex_t *
lane_lock(struct om_system *sys, const struct om_actor *a)
{
	return &sys->lane_lock[om_actor_slot(sys, a) % OM_LANE_LOCKS];
}

/* A message of `size` bytes has no place. */
static bool
lane_is_full(const struct om_lane *lane, const struct om_actor *a, uint32_t size)
{
	size_t bytes = a->def->mailbox_bytes;

	return lane->count >= (a->limit & OM_LIMIT_MASK) ||
	       (bytes > 0 && lane->bytes + size > bytes);
}

static struct om_msg *
lane_pop(struct om_lane *lane)
{
	struct om_msg *msg = lane->first;

	lane->first = msg->next;
	if (lane->first == NULL) {
		lane->last = NULL;
	}
	lane->count--;
	lane->bytes -= msg->size;
	msg->next = NULL;
	return msg;
}

static void
lane_append(struct om_lane *lane, struct om_msg *msg)
{
	msg->next = NULL;
	if (lane->last != NULL) {
		lane->last->next = msg;
	} else {
		lane->first = msg;
	}
	lane->last = msg;
	lane->count++;
	lane->bytes += msg->size;
}

/* Drops until msg fits.  Gives what it took out, linked, and its number. */
static struct om_msg *
lane_make_room(struct om_lane *lane, const struct om_actor *a, uint32_t size, uint32_t *count)
{
	struct om_msg *dropped = NULL, **end = &dropped;

	for (*count = 0; lane_is_full(lane, a, size); ++*count) {
		*end = lane_pop(lane);
		end = &(*end)->next;
	}
	return dropped;
}

static void
lane_count(struct om_actor *a, uint32_t change)
{
	uint64_t head;

	do {
		head = ck_pr_load_64(&a->head);
	} while (!ck_pr_cas_64(&a->head, head,
			       head_pack(head_msg(head), head_count(head) + change) |
				   (head & MBOX_IDLE)));
}

/* Any thread.  One message to the end.  STALE, FULL, TOO_BIG: the caller keeps it. */
enum om_err
om_lane_push(struct om_ctx *cx, struct om_actor *a, uint64_t to, struct om_msg *msg)
{
	pthread_mutex_t *lock = lane_lock(cx->sys, a);
	struct om_msg *dropped = NULL, *next;
	enum om_err err = OM_OK;
	struct om_lane *lane;
	uint32_t count = 0;

	(void)pthread_mutex_lock(lock);
	/* The end of an actor takes this lock too, between life and ext: alive means ext is there. */
	if (!life_is(ck_pr_load_64(&a->life), to)) {
		err = OM_ERR_STALE;
		goto out;
	}
	lane = &a->ext->lane;
	if (a->def->mailbox_bytes > 0 && msg->size > a->def->mailbox_bytes) {
		err = OM_ERR_TOO_BIG; /* it would never fit */
		goto out;
	}
	if (a->def->overload == OM_OVERLOAD_DROP_OLDEST) {
		dropped = lane_make_room(lane, a, msg->size, &count);
	} else if (lane_is_full(lane, a, msg->size)) {
		err = OM_ERR_FULL;
		goto out;
	}
	lane_append(lane, msg);
	lane_count(a, 1 - count);
out:
	(void)pthread_mutex_unlock(lock);
	if (err == OM_OK) {
		mbox_rouse(cx, a);
	}
	for (; dropped != NULL; dropped = next) {
		next = dropped->next;
		om_actor_discard(cx, dropped, OM_DROP_FULL);
	}
	return err;
}

/* Owner thread.  The oldest message, or NULL. */
struct om_msg *
om_lane_pull(struct om_system *sys, struct om_actor *a)
{
	pthread_mutex_t *lock = lane_lock(sys, a);
	struct om_lane *lane = &a->ext->lane;
	struct om_msg *msg;

	(void)pthread_mutex_lock(lock);
	if (lane->count > a->high_water) {
		a->high_water = lane->count;
	}
	msg = lane->first != NULL ? lane_pop(lane) : NULL;
	(void)pthread_mutex_unlock(lock);
	return msg;
}
