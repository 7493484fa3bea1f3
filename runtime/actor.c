/* SPDX-License-Identifier: ISC */
/*
 * An actor's life: spawn, start, the end, and the wait for a restart.  dispatch.c handles messages.
 *
 *	FREE -> NEW -> RUN -> ENDED -> FREE
 *	               RUN -> SUSPENDED -> RUN	   a supervisor restarts it
 *		              SUSPENDED -> ENDED   a supervisor gives it up
 *
 * Only the thread that runs the actor touches these fields; the order between successive runners
 * comes from the idle bit and the doors (mailbox.c, scheduler.c).
 */
#include "runtime/runtime_impl.h"
#include <stdlib.h>
#include <string.h>

struct om_actor_ext *
om_actor_ext(struct om_actor *a)
{
	if (a->ext == NULL) {
		a->ext = calloc(1, sizeof(*a->ext));
	}
	return a->ext;
}

/* --- start ----------------------------------------------------------------------------------------- */

static uint32_t
actor_limit(const struct om_actor_def *def)
{
	uint32_t limit = def->mailbox_slots != 0 ? def->mailbox_slots : OM_MAILBOX_SLOTS_DEFAULT;

	if (limit > OM_MBOX_SLOTS_MAX) {
		limit = OM_MBOX_SLOTS_MAX;
	}
	if (def->mailbox_bytes != 0 || def->overload == OM_OVERLOAD_DROP_OLDEST) {
		limit |= OM_LIMIT_LOCKED;
	}
	if (def->overload == OM_OVERLOAD_DROP_NEW) {
		limit |= OM_LIMIT_DROP_NEW;
	}
	if (def->overload == OM_OVERLOAD_BLOCK) {
		limit |= OM_LIMIT_BLOCK;
	}
	if (def->detached) {
		limit |= OM_LIMIT_DETACHED;
	}
	return limit;
}

/* What few actors need and must not fail later. */
static enum om_err
spawn_extra(struct om_ctx *cx, struct om_actor *a, const void *arg, const struct om_spawn_how *how)
{
	struct om_actor_ext *ext = om_actor_ext(a);
	enum om_err err = OM_OK;

	if (ext == NULL) {
		return OM_ERR_NOMEM;
	}
	if (how->supervisor != 0) {
		a->flags |= OM_ACTOR_SUPERVISED;
		ext->supervisor = how->supervisor;
		ext->start_arg = arg;
		ext->spare = om_pool_msg(cx, 0, sizeof(struct om_pay_child));
		if (ext->spare == NULL) {
			return OM_ERR_NOMEM;
		}
	}
	if (how->name != NULL) {
		err = om_reg_name(cx->sys, a, om_mbox_next_id(cx->sys, a), how->name);
	}
	if (err == OM_OK && (a->limit & OM_LIMIT_DETACHED) != 0) {
		a->flags |= OM_ACTOR_DETACHED;
		err = om_detached_start(cx, a);
	}
	return err;
}

/* Gives back what an actor had beside its slot; nobody else knows of it any more. */
static void
ext_free(struct om_ctx *cx, struct om_actor *a)
{
	struct om_actor_ext *ext = a->ext;
	pthread_mutex_t *lock = &cx->sys->lane_lock[om_actor_slot(cx->sys, a) % OM_LANE_LOCKS];

	if (ext == NULL) {
		return;
	}
	(void)pthread_mutex_lock(lock); /* somebody may be reading statistics */
	a->ext = NULL;
	(void)pthread_mutex_unlock(lock);
	om_slotmap_fini(&ext->asks);
	om_slotmap_fini(&ext->monitors);
	om_slotmap_fini(&ext->timers);
	om_slotmap_fini(&ext->watches);
	if (ext->spare != NULL) {
		om_pool_msg_free(cx, ext->spare);
	}
	free(ext->laters);
	free(ext->hist);
	free(ext);
}

/* out: NULL is fine. */
enum om_err
om_actor_spawn(struct om_ctx *cx, const struct om_actor_def *def, const void *arg,
	       const struct om_spawn_how *how, uint64_t *out)
{
	struct om_actor *a;
	enum om_err err;
	uint32_t limit = actor_limit(def);
	uint64_t id;

	if (om_unlikely(om_shared_peek(&cx->sys->stopping) != 0)) {
		return OM_ERR_SHUTDOWN;
	}
	a = om_pool_actor(cx);
	if (om_unlikely(a == NULL)) {
		return OM_ERR_LIMIT;
	}
	a->limit = limit;
	a->first = NULL;
	om_tsan_release(
	    &a->def); /* pairs with the watchdog's, which knows an actor by its worker alone */
	a->def = def;
	a->state = (void *)(uintptr_t)arg;
	a->ext = NULL;
	a->handled = 0;
	a->birth = (uint64_t)om_shared_peek(&cx->sys->epoch) << 32 | (++cx->births);
	a->sys_left = 0;
	a->dropped = 0;
	a->high_water = 0;
	a->worker = cx->index;
	a->phase = OM_PHASE_NEW;
	a->flags = def->budget_us != 0 ? OM_ACTOR_TIMED : 0;
	if (om_unlikely(how != NULL || (limit & (OM_LIMIT_DETACHED | OM_LIMIT_LOCKED)) != 0)) {
		static const struct om_spawn_how plain;

		if (how != NULL && how->birth != 0) {
			a->birth = how->birth;
		}
		err = spawn_extra(cx, a, arg, how != NULL ? how : &plain);
		if (err != OM_OK) {
			if (a->ext != NULL) {
				om_reg_end(cx->sys, a);
			}
			ext_free(cx, a);
			om_pool_actor_free(cx, a);
			return err;
		}
	}
	cx->n.spawned++;
	id = om_mbox_open(cx->sys, a);
	if (out != NULL) {
		*out = id;
	}
	if (om_unlikely(cx->tracing != 0)) {
		om_trace_put(cx->sys, OM_TRACE_SPAWN, id, NULL, cx->self_id);
	}
	om_sched_spawned(cx, a);
	return OM_OK;
}

enum om_err
om_spawn(struct om_ctx *cx, const struct om_actor_def *def, const void *arg,
	 struct om_actor_id *out)
{
	return om_actor_spawn(cx, def, arg, NULL, out != NULL ? &out->v : NULL);
}

/* a->state becomes zeroed memory of def->state_size bytes. */
static bool
state_new(struct om_ctx *cx, struct om_actor *a)
{
	size_t size = a->def->state_size;
	uint8_t cls;

	a->state = NULL;
	a->flags &= (uint8_t)~OM_ACTOR_STATE_INLINE;
	if (size == 0) {
		return true;
	}
#ifndef OM_ASAN
	if (size <= OM_INLINE_STATE) {
		a->state = a->inline_state;
		a->flags |= OM_ACTOR_STATE_INLINE;
		memset(a->inline_state, 0, OM_INLINE_STATE);
		return true;
	}
#endif
	a->state = om_pool_alloc(cx, size, &cls);
	if (a->state == NULL) {
		return false;
	}
	memset(a->state, 0, size);
	a->state_cls = cls;
	return true;
}

static void
state_free(struct om_ctx *cx, struct om_actor *a)
{
	if (a->state != NULL && (a->flags & OM_ACTOR_STATE_INLINE) == 0) {
		om_pool_free(cx, a->state, a->state_cls);
	}
	a->state = NULL;
}

/* false: the supervisor is not there any more. */
static bool
child_report(struct om_ctx *cx, struct om_actor *a, enum om_child_event what, enum om_err why)
{
	struct om_actor_ext *ext = a->ext;
	struct om_msg *msg = om_pool_msg(cx, 0, sizeof(struct om_pay_child));
	struct om_pay_child *pay;

	if (msg == NULL) {
		msg = ext->spare;
		ext->spare = NULL;
		if (msg == NULL) {
			return false;
		}
	}
	om_hdr(msg)->kind = OM_KIND_CHILD;
	pay = (struct om_pay_child *)(void *)msg->payload;
	*pay = (struct om_pay_child){ .child = cx->self_id, .why = why, .what = (uint8_t)what };
	if (om_mbox_push_sys(cx, ext->supervisor, msg) != OM_OK) {
		om_pool_msg_free(cx, msg);
		return false;
	}
	return true;
}

/* First run, or the run after a restart.  false: the actor has ended. */
bool
om_actor_start(struct om_ctx *cx, struct om_actor *a)
{
	const void *arg = a->state;
	enum om_err err = OM_OK;

	a->phase = OM_PHASE_RUN;
	cx->leaving = false;
	if (!state_new(cx, a)) {
		err = OM_ERR_NOMEM;
	} else if (a->def->start != NULL) {
		err = a->def->start(cx, a->state, arg);
	}
	if (om_unlikely(cx->leaving)) {
		cx->leaving = false;
		if (err == OM_OK) {
			return !om_actor_leave(cx, a, cx->leave_why, false);
		}
	}
	if (om_unlikely(err != OM_OK)) {
		return !om_actor_leave(cx, a, err, false);
	}
	/* A supervisor has started when its children have: it says so itself. */
	if (om_unlikely((a->flags & OM_ACTOR_SUPERVISED) != 0) && a->def != &om_supervisor_def) {
		om_actor_started(cx, a);
	}
	return true;
}

void
om_actor_started(struct om_ctx *cx, struct om_actor *a)
{
	if ((a->flags & OM_ACTOR_SUPERVISED) != 0) {
		(void)child_report(cx, a, OM_CHILD_STARTED, OM_OK);
	}
}

/* --- the end --------------------------------------------------------------------------------------- */

/* What one incarnation held: it goes with a restart too.  Names and groups stay. */
static void
incarnation_end(struct om_ctx *cx, struct om_actor *a, enum om_err why)
{
	/*
	 * First what other threads look at: an fd that stop closes may be another actor's before stop
	 * has returned, and a work that waits for a thread must not find what stop has taken away.
	 */
	if (a->ext != NULL) {
		om_io_end(cx, a);
		om_offload_end(cx, a);
	}
	/* start may have failed for want of memory for the state: then there is nothing to release */
	if (a->def->stop != NULL && (a->state != NULL || a->def->state_size == 0)) {
		a->def->stop(cx, a->state, why);
	}
	cx->leaving = false;
	if (a->ext != NULL) {
		a->ext->suspending = false;
		om_ask_end(cx, a);
		om_timer_end(cx, a);
		om_io_end(cx, a); /* both again: stop may have asked for more */
		om_offload_end(cx, a);
		om_link_end_own(cx, a, why);
	}
	state_free(cx, a);
	a->flags &= (uint8_t) ~(OM_ACTOR_TRAP | OM_ACTOR_BECAME);
}

static void
actor_end(struct om_ctx *cx, struct om_actor *a, enum om_err why)
{
	struct om_actor_ext *ext = a->ext;
	bool detached = (a->flags & OM_ACTOR_DETACHED) != 0;

	a->phase = OM_PHASE_ENDED;
	if (ext != NULL) {
		om_reg_end(cx->sys, a);
		om_link_end(cx, a, why);
		if ((a->flags & OM_ACTOR_SUPERVISED) != 0) {
			(void)child_report(cx, a, OM_CHILD_ENDED, why);
		}
		om_mbox_undefer(a);
	}
	if (om_unlikely((a->flags & OM_ACTOR_TRACED) != 0)) {
		om_trace_put(cx->sys, OM_TRACE_END, cx->self_id, NULL, (uint64_t)why);
		om_trace_stop_ways(cx->sys); /* nobody can turn it off any more */
	}
	om_mbox_close(cx, a);
	if (om_unlikely((a->limit & OM_LIMIT_BLOCK) != 0)) {
		om_sched_room_made(cx->sys);
	}
	a->phase = OM_PHASE_FREE;
	if (om_unlikely(ext != NULL)) {
		ext_free(cx, a);
	}
	om_pool_actor_free(cx, a);
	cx->n.ended++;
	if (why != OM_OK) {
		cx->n.failed++;
	}
	cx->self = NULL;
	cx->quit = detached;
	om_sched_ended(cx->sys);
}

/*
 * The running actor leaves.  Ordered ends (stop, kill, release by the supervisor) are final; any
 * other end of a supervised actor is for its supervisor to judge.  true: it has ended, the slot is
 * not ours any more.
 */
bool
om_actor_leave(struct om_ctx *cx, struct om_actor *a, enum om_err why, bool ordered)
{
	if (a->phase != OM_PHASE_SUSPENDED) {
		ordered = ordered || (a->ext != NULL && a->ext->draining);
		incarnation_end(cx, a, why);
	} else {
		why = a->ext->why;
	}
	if (!ordered && (a->flags & OM_ACTOR_SUPERVISED) != 0 &&
	    child_report(cx, a, OM_CHILD_SUSPENDED, why)) {
		if (why != OM_OK) {
			cx->n.failed++;
		}
		a->phase = OM_PHASE_SUSPENDED;
		a->ext->why = why;
		return false;
	}
	actor_end(cx, a, why);
	return true;
}

bool
om_actor_drains(struct om_ctx *cx, struct om_actor *a)
{
	struct om_actor_ext *ext;

	if (a->def->drain == NULL || a->phase != OM_PHASE_RUN) {
		return false;
	}
	ext = om_actor_ext(a);
	if (ext == NULL) {
		return false;
	}
	ext->draining = true;
	if (ext->suspending) { /* it ends itself anyway, and now for good */
		return true;
	}
	return a->def->drain(cx, a->state) == OM_AGAIN;
}

bool
om_actor_suspends(struct om_ctx *cx, struct om_actor *a)
{
	struct om_actor_ext *ext = a->ext;

	if (ext->draining) { /* its supervisor will hear of the end instead */
		return false;
	}
	ext->suspending = true;
	return a->def->drain == NULL || a->def->drain(cx, a->state) != OM_AGAIN;
}

void
om_stop(struct om_ctx *cx, struct om_actor_id who)
{
	om_mbox_control(cx, who.v, OM_LIFE_STOP);
}

void
om_kill(struct om_ctx *cx, struct om_actor_id who)
{
	om_mbox_control(cx, who.v, OM_LIFE_KILL);
}

void
om_exit(struct om_ctx *cx)
{
	om_fail(cx, OM_OK);
}

void
om_fail(struct om_ctx *cx, enum om_err why)
{
	cx->leaving = true;
	cx->leave_ordered = false;
	cx->leave_why = why;
}

void
om_become(struct om_ctx *cx, const struct om_handler *handlers, size_t count)
{
	struct om_actor_ext *ext = om_actor_ext(cx->self);

	if (ext == NULL) {
		om_fail(cx, OM_ERR_NOMEM); /* going on with the old table would be worse */
		return;
	}
	ext->handlers = handlers;
	ext->handler_count = count;
	cx->self->flags |= OM_ACTOR_BECAME;
}
