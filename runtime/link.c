/* SPDX-License-Identifier: ISC */
/*
 * Monitors and links.
 *
 * A monitor is a message that is sent to the target, lies in its list of watchers, and comes back
 * when the target ends: the notice needs no memory at that moment.  A target that has ended already
 * sends it back at once, also out of its last mailbox (om_link_discard).
 *
 * A link is two such records, one in each actor's list, each naming the other.  An exit counts only
 * while the receiver's own record is there, so after om_unlink nothing more is delivered.
 */
#include <string.h>
#include "runtime/runtime_impl.h"

static struct om_pay_monitor *
rec_of(struct om_msg *msg)
{
	return (struct om_pay_monitor *)(void *)msg->payload;
}

static struct om_msg *
rec_new(struct om_ctx *cx, enum om_kind kind, uint64_t watcher, uint64_t target)
{
	struct om_msg *msg = om_pool_msg(cx, 0, sizeof(struct om_pay_monitor));

	if (msg != NULL) {
		om_hdr(msg)->kind = (uint8_t)kind;
		msg->from.v = cx->self_id;
		*rec_of(msg) = (struct om_pay_monitor){ .watcher = watcher,
							.target = target,
							.linked = kind == OM_KIND_LINK };
	}
	return msg;
}

static void
watchers_add(struct om_actor_ext *ext, struct om_msg *msg)
{
	struct om_pay_monitor *rec = rec_of(msg);

	rec->prev = NULL;
	rec->next = ext->watchers;
	if (ext->watchers != NULL) {
		rec_of(ext->watchers)->prev = msg;
	}
	ext->watchers = msg;
}

static void
watchers_remove(struct om_actor_ext *ext, struct om_msg *msg)
{
	struct om_pay_monitor *rec = rec_of(msg);

	if (rec->prev != NULL) {
		rec_of(rec->prev)->next = rec->next;
	} else {
		ext->watchers = rec->next;
	}
	if (rec->next != NULL) {
		rec_of(rec->next)->prev = rec->prev;
	}
}

/* Needed only after a record could not be kept for want of memory. */
static bool
watchers_has(struct om_actor_ext *ext, const struct om_msg *msg)
{
	struct om_msg *at = ext != NULL ? ext->watchers : NULL;

	while (at != NULL && at != msg) {
		at = rec_of(at)->next;
	}
	return at != NULL;
}

static struct om_msg *
link_find(struct om_actor_ext *ext, uint64_t other)
{
	struct om_msg *msg = ext != NULL ? ext->watchers : NULL;

	while (msg != NULL && (!rec_of(msg)->linked || rec_of(msg)->watcher != other)) {
		msg = rec_of(msg)->next;
	}
	return msg;
}

/* Sends the record home as a notice of the end.  Takes msg. */
static void
rec_fire(struct om_ctx *cx, struct om_msg *msg, enum om_err why)
{
	struct om_pay_monitor *rec = rec_of(msg);

	om_hdr(msg)->kind = rec->linked ? OM_KIND_EXIT : OM_KIND_DOWN;
	rec->why = why;
	if (om_mbox_push_sys(cx, rec->watcher, msg) != OM_OK) {
		om_pool_msg_free(cx, msg);
	}
}

/* --- what an actor asks for --------------------------------------------------------------------------- */

enum om_err
om_monitor(struct om_ctx *cx, struct om_actor_id who, uint64_t *ref)
{
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_msg *msg = rec_new(cx, OM_KIND_MONITOR, cx->self_id, who.v);

	if (msg == NULL || ext == NULL || (*ref = om_slotmap_add(&ext->monitors, msg)) == 0) {
		om_msg_free(cx, msg);
		return OM_ERR_NOMEM;
	}
	rec_of(msg)->ref = *ref;
	if (om_mbox_push_sys(cx, who.v, msg) != OM_OK) {
		rec_fire(cx, msg, OM_ERR_GONE);
	}
	return OM_OK;
}

/* Tells the target that the record is wanted back; it is only tidying, so no memory is no harm. */
static void
monitor_drop(struct om_ctx *cx, struct om_msg *msg)
{
	struct om_msg *order = om_pool_msg(cx, 0, sizeof(uint64_t));

	if (order == NULL) {
		return;
	}
	om_hdr(order)->kind = OM_KIND_DEMONITOR;
	*(uint64_t *)(void *)order->payload = (uint64_t)(uintptr_t)msg;
	if (om_mbox_push_sys(cx, rec_of(msg)->target, order) != OM_OK) {
		om_pool_msg_free(cx, order);
	}
}

void
om_demonitor(struct om_ctx *cx, uint64_t ref)
{
	struct om_actor_ext *ext = cx->self->ext;
	struct om_msg *msg = ext != NULL ? om_slotmap_del(&ext->monitors, ref) : NULL;

	if (msg != NULL) {
		monitor_drop(cx, msg);
	}
}

enum om_err
om_link(struct om_ctx *cx, struct om_actor_id who)
{
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_msg *mine, *theirs;

	if (ext == NULL) {
		return OM_ERR_NOMEM;
	}
	if (who.v == cx->self_id || link_find(ext, who.v) != NULL) {
		return OM_OK;
	}
	mine = rec_new(cx, OM_KIND_LINK, who.v, cx->self_id);
	theirs = rec_new(cx, OM_KIND_LINK, cx->self_id, who.v);
	if (mine == NULL || theirs == NULL) {
		om_msg_free(cx, mine);
		om_msg_free(cx, theirs);
		return OM_ERR_NOMEM;
	}
	watchers_add(ext, mine);
	if (om_mbox_push_sys(cx, who.v, theirs) != OM_OK) {
		theirs->from = who; /* as if it had ended just now */
		rec_fire(cx, theirs, OM_ERR_GONE);
	}
	return OM_OK;
}

void
om_unlink(struct om_ctx *cx, struct om_actor_id who)
{
	struct om_msg *mine = link_find(cx->self->ext, who.v);

	if (mine == NULL) {
		return;
	}
	watchers_remove(cx->self->ext, mine);
	om_hdr(mine)->kind = OM_KIND_UNLINK; /* its memory carries the order to tidy up there */
	mine->from.v = cx->self_id;
	if (om_mbox_push_sys(cx, who.v, mine) != OM_OK) {
		om_pool_msg_free(cx, mine);
	}
}

void
om_trap_exits(struct om_ctx *cx, bool on)
{
	if (on) {
		cx->self->flags |= OM_ACTOR_TRAP;
	} else {
		cx->self->flags &= (uint8_t)~OM_ACTOR_TRAP;
	}
}

/* --- what arrives --------------------------------------------------------------------------------------- */

static void
link_on_down(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_pay_monitor *rec = rec_of(msg);
	struct om_down down = { .who = om_id_of(rec->target), .ref = rec->ref, .why = rec->why };

	/* Demonitored meanwhile, or the incarnation that asked is over: nothing is delivered. */
	if (a->ext != NULL && om_slotmap_get(&a->ext->monitors, rec->ref) == msg) {
		(void)om_slotmap_del(&a->ext->monitors, rec->ref);
		om_pool_msg_free(cx, msg);
		om_actor_deliver(cx, a, OM_SYS_DOWN, &down, sizeof(down));
		return;
	}
	om_pool_msg_free(cx, msg);
}

static void
link_on_exit(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_down down = { .who = om_id_of(rec_of(msg)->target), .why = rec_of(msg)->why };
	struct om_msg *mine = link_find(a->ext, down.who.v);

	om_pool_msg_free(cx, msg);
	if (mine == NULL) {
		return;
	}
	watchers_remove(a->ext, mine);
	om_pool_msg_free(cx, mine);
	if ((a->flags & OM_ACTOR_TRAP) != 0) {
		om_actor_deliver(cx, a, OM_SYS_DOWN, &down, sizeof(down));
	} else if (down.why != OM_OK && a->phase == OM_PHASE_RUN) {
		om_fail(cx, down.why);
	}
}

/* Takes msg. */
void
om_link_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_actor_ext *ext = om_actor_ext(a);
	struct om_msg *old;

	switch (om_hdr(msg)->kind) {
	case OM_KIND_MONITOR:
	case OM_KIND_LINK:
		if (ext == NULL) {
			om_shared_store(&cx->sys->watch_lost, 1);
			rec_fire(cx, msg, OM_ERR_NOMEM);
		} else if (rec_of(msg)->linked && link_find(ext, rec_of(msg)->watcher) != NULL) {
			om_pool_msg_free(cx, msg); /* both asked for the same link */
		} else {
			watchers_add(ext, msg);
		}
		break;
	case OM_KIND_DEMONITOR:
		/* Came by the same lane after the record, which leaves our list only here or at our end. */
		old = *(struct om_msg **)(void *)msg->payload;
		if (om_shared_peek(&cx->sys->watch_lost) == 0 || watchers_has(ext, old)) {
			watchers_remove(ext, old);
			om_pool_msg_free(cx, old);
		}
		om_pool_msg_free(cx, msg);
		break;
	case OM_KIND_UNLINK:
		old = link_find(ext, msg->from.v);
		if (old != NULL) {
			watchers_remove(ext, old);
			om_pool_msg_free(cx, old);
		}
		om_pool_msg_free(cx, msg);
		break;
	case OM_KIND_DOWN:
		link_on_down(cx, a, msg);
		break;
	default:
		link_on_exit(cx, a, msg);
		break;
	}
}

/* A record that came too late: its target has ended.  Takes msg. */
void
om_link_discard(struct om_ctx *cx, struct om_msg *msg)
{
	rec_fire(cx, msg, OM_ERR_GONE);
}

/* --- the end -------------------------------------------------------------------------------------------- */

void
om_link_end_own(struct om_ctx *cx, struct om_actor *a, enum om_err why)
{
	struct om_actor_ext *ext = a->ext;
	struct om_msg *msg = ext->watchers;

	for (uint32_t i = 0; i < ext->monitors.used; i++) {
		uint64_t key = om_slotmap_key(&ext->monitors, i);

		if (key != 0) {
			monitor_drop(cx, om_slotmap_del(&ext->monitors, key));
		}
	}
	while (msg != NULL) {
		struct om_msg *next = rec_of(msg)->next;

		if (rec_of(msg)->linked) {
			watchers_remove(ext, msg);
			rec_fire(cx, msg, why);
		}
		msg = next;
	}
}

void
om_link_end(struct om_ctx *cx, struct om_actor *a, enum om_err why)
{
	struct om_msg *msg;

	while ((msg = a->ext->watchers) != NULL) {
		watchers_remove(a->ext, msg);
		rec_fire(cx, msg, why);
	}
}
