/* SPDX-License-Identifier: ISC */
/*
 * Supervisors.
 *
 * A child that ends by itself is not gone: it is suspended, with its handle and its mailbox, and
 * reports to its supervisor, which sends RESTART (after the back-off) or RELEASE.  To restart
 * several (one_for_all, rest_for_one) the supervisor suspends the others, newest first.
 *
 * The supervisor is one machine with one task at a time:
 *
 *	SUP_START  starts children from `at` upwards, each after the one before has started
 *	SUP_RUN    all is up; restarts of single children (one_for_one) happen here
 *	SUP_DOWN   suspends children from the last down to `low`, then waits, then SUP_START; a
 *		   failure of one below `low` meanwhile counts too, and lowers `low` to it
 *	SUP_STOP   ends children from the last to the first, then ends itself with `why`
 *
 * Each step waits for a report of one child; a child that does not report in time is killed, and
 * then (its handle is dead) started anew.
 */
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "runtime/runtime_impl.h"

#define SUP_STOP_MS_DEFAULT 5000
#define SUP_START_WAIT_MS   60000 /* om_supervisor_start */
#define SUP_BACKOFF_SHIFT   20 /* doublings of the back-off */
#define SUP_TIMER_GROUP     UINT32_MAX

enum child_state {
	CHILD_GONE, /* no actor */
	CHILD_STARTING,
	CHILD_UP,
	CHILD_SUSPENDED, /* has reported, waits for our verdict */
	CHILD_GOING, /* was told to suspend or to end */
};

struct child {
	uint64_t id;
	enum child_state state;
	uint32_t failures; /* in a row, for the back-off */
	int64_t up_since_ns;
	uint64_t timer; /* restart to come, or time-out of its end */
};

enum sup_state { SUP_START, SUP_RUN, SUP_DOWN, SUP_STOP };

struct supervisor {
	const struct om_supervisor_spec *spec;
	struct child *children;
	int64_t *restarts; /* times of the last spec->max_restarts, a ring */
	uint32_t restart_next, restart_count;
	enum sup_state state;
	bool started; /* the first start has succeeded */
	size_t at; /* SUP_START: child that is starting; SUP_DOWN, SUP_STOP: one past the next */
	size_t low;
	uint64_t group_timer;
	int64_t group_at_ns; /* end of the longest back-off */
	enum om_err why;
	struct om_request waiting; /* om_supervisor_start */
};

static void sup_step(struct om_ctx *cx, struct supervisor *sup);

static const struct om_child_spec *
spec_of(const struct supervisor *sup, size_t i)
{
	return &sup->spec->children[i];
}

static void
child_order(struct om_ctx *cx, struct child *c, enum om_kind kind)
{
	struct om_msg *msg = om_pool_msg(cx, 0, sizeof(struct om_pay_child));

	if (msg == NULL) {
		om_kill(cx, om_id_of(c->id)); /* without memory for an order: the end needs none */
		return;
	}
	om_hdr(msg)->kind = (uint8_t)kind;
	if (om_mbox_push_sys(cx, c->id, msg) != OM_OK) {
		om_pool_msg_free(cx, msg);
	}
}

/* false: no memory for a timer; the caller acts now rather than never. */
static bool
child_timer(struct om_ctx *cx, struct supervisor *sup, size_t i, uint64_t ms)
{
	struct child *c = &sup->children[i];

	om_timer_cancel(cx, c->timer);
	c->timer = 0;
	return om_timer_start(cx, ms, 0, i, &c->timer) == OM_OK;
}

/* It was told to go.  A supervisor has no deadline of its own: each of its children has one. */
static void
child_deadline(struct om_ctx *cx, struct supervisor *sup, size_t i)
{
	const struct om_child_spec *spec = spec_of(sup, i);
	uint32_t ms = spec->stop_timeout_ms != 0 ? spec->stop_timeout_ms : SUP_STOP_MS_DEFAULT;

	if (spec->def == &om_supervisor_def && spec->stop_timeout_ms == 0) {
		return;
	}
	if (!child_timer(cx, sup, i, ms)) {
		om_kill(cx, om_id_of(sup->children[i].id));
	}
}

static enum om_err
child_start(struct om_ctx *cx, struct supervisor *sup, size_t i)
{
	struct child *c = &sup->children[i];
	const struct om_child_spec *spec = spec_of(sup, i);
	struct om_spawn_how how = { .supervisor = cx->self_id, .name = spec->name };
	enum om_err err = OM_OK;

	if (c->state == CHILD_SUSPENDED) {
		child_order(cx, c, OM_KIND_RESTART);
	} else {
		err = om_actor_spawn(cx, spec->def, spec->arg, &how, &c->id);
	}
	if (err == OM_OK) {
		c->state = CHILD_STARTING;
	}
	return err;
}

/* --- restarts -------------------------------------------------------------------------------------- */

/* Notes one restart; false: too many in the window. */
static bool
sup_may_restart(struct om_ctx *cx, struct supervisor *sup)
{
	const struct om_supervisor_spec *spec = sup->spec;
	int64_t now = om_now(cx).ns;

	if (spec->max_restarts == 0) {
		return false;
	}
	if (sup->restart_count == spec->max_restarts &&
	    now - sup->restarts[sup->restart_next] <= (int64_t)spec->window_ms * OM_NS_PER_MS) {
		return false;
	}
	sup->restarts[sup->restart_next] = now;
	sup->restart_next = (sup->restart_next + 1) % spec->max_restarts;
	if (sup->restart_count < spec->max_restarts) {
		sup->restart_count++;
	}
	return true;
}

/* 0, then min, 2 min, 4 min ... max, each with jitter of a half downwards. */
static uint64_t
sup_backoff(struct om_ctx *cx, const struct supervisor *sup, uint32_t failures)
{
	uint64_t ms = sup->spec->backoff_min_ms;
	uint32_t shift = failures > 1 ? failures - 2 : 0;

	if (failures <= 1 || ms == 0) {
		return 0;
	}
	ms <<= shift < SUP_BACKOFF_SHIFT ? shift : SUP_BACKOFF_SHIFT;
	if (ms > sup->spec->backoff_max_ms && sup->spec->backoff_max_ms != 0) {
		ms = sup->spec->backoff_max_ms;
	}
	return ms - om_rand(cx) % (ms / 2 + 1);
}

static void
sup_stop(struct om_ctx *cx, struct supervisor *sup, enum om_err why)
{
	om_timer_cancel(cx, sup->group_timer);
	sup->group_timer = 0;
	sup->state = SUP_STOP;
	sup->why = why;
	sup->at = sup->spec->child_count;
	sup_step(cx, sup);
}

/* Children from `low` upwards go down and come again; joins what is going down already. */
static void
sup_group_down(struct om_ctx *cx, struct supervisor *sup, size_t low, uint64_t backoff_ms)
{
	int64_t now = om_now(cx).ns;
	int64_t at = now + (int64_t)backoff_ms * OM_NS_PER_MS;

	if (sup->state == SUP_DOWN) {
		low = sup->low < low ? sup->low : low;
		at = sup->group_at_ns > at ? sup->group_at_ns : at;
	}
	sup->low = low;
	sup->group_at_ns = at;
	sup->state = SUP_DOWN;
	sup->at = sup->spec->child_count;
	om_timer_cancel(cx, sup->group_timer);
	sup->group_timer = 0;
	if (om_timer_start(cx, (uint64_t)((at - now) / OM_NS_PER_MS), 0, SUP_TIMER_GROUP,
			   &sup->group_timer) != OM_OK) {
		sup->group_timer = 0;
	}
	sup_step(cx, sup);
}

/* A child failed (or ended although it is permanent): what the strategy says. */
static void
sup_restart(struct om_ctx *cx, struct supervisor *sup, size_t i)
{
	struct child *c = &sup->children[i];
	const struct om_supervisor_spec *spec = sup->spec;
	int64_t now = om_now(cx).ns;

	if (!sup_may_restart(cx, sup)) {
		om_warn("supervisor.gave_up", "%s: more than %u restarts in %u ms",
			spec->name != NULL ? spec->name : "supervisor", spec->max_restarts,
			spec->window_ms);
		sup_stop(cx, sup, OM_ERR_LIMIT);
		return;
	}
	if (c->up_since_ns != 0 && now - c->up_since_ns > (int64_t)spec->window_ms * OM_NS_PER_MS) {
		c->failures = 0; /* it ran well for a while: not the same trouble */
	}
	c->failures++;
	if (spec->strategy == OM_ONE_FOR_ONE) {
		if (!child_timer(cx, sup, i, sup_backoff(cx, sup, c->failures))) {
			enum om_err err = child_start(cx, sup, i);

			if (err != OM_OK) {
				sup_stop(cx, sup, err);
			}
		}
		return;
	}
	sup_group_down(cx, sup, spec->strategy == OM_ONE_FOR_ALL ? 0 : i,
		       sup_backoff(cx, sup, c->failures));
}

/* --- the machine ---------------------------------------------------------------------------------------- */

static void
sup_answer(struct om_ctx *cx, struct supervisor *sup, enum om_err err)
{
	struct om_msg *msg;

	if (sup->waiting.tag == 0) {
		return;
	}
	msg = err == OM_OK ? om_msg_new(cx, OM_SYS_REPLY, 0) : NULL;
	if (msg == NULL || om_reply_to(cx, &sup->waiting, &msg) != OM_OK) {
		om_msg_free(cx, msg);
		om_reply_err_to(cx, &sup->waiting, err != OM_OK ? err : OM_ERR_NOMEM);
	}
}

/*
 * Does somebody have the name who is ending?  A killed supervisor, whose place we take, cannot wait
 * for its children; we can, for OM_SYS_DOWN.
 */
static bool
name_will_be_free(struct om_ctx *cx, const char *name)
{
	struct om_actor_id who = om_whereis(cx->sys, name);
	uint64_t ref;

	return om_mbox_is_ending(cx->sys, who.v) && om_monitor(cx, who, &ref) == OM_OK;
}

static void
sup_step_start(struct om_ctx *cx, struct supervisor *sup)
{
	enum om_err err;

	for (; sup->at < sup->spec->child_count; sup->at++) {
		struct child *c = &sup->children[sup->at];

		if (c->state == CHILD_UP) {
			continue;
		}
		if (c->state == CHILD_GONE && sup->started &&
		    spec_of(sup, sup->at)->restart == OM_RESTART_NEVER) {
			continue;
		}
		if (c->state == CHILD_STARTING) {
			return; /* its report brings us here again */
		}
		err = child_start(cx, sup, sup->at);
		if (err != OM_OK &&
		    !(err == OM_ERR_EXISTS && name_will_be_free(cx, spec_of(sup, sup->at)->name))) {
			sup_stop(cx, sup, err);
		}
		return;
	}
	sup->state = SUP_RUN;
	sup->started = true;
	om_actor_started(cx, cx->self);
	sup_answer(cx, sup, OM_OK);
}

/* Down to `low`, newest first, one at a time. */
static void
sup_step_down(struct om_ctx *cx, struct supervisor *sup)
{
	bool for_good = sup->state == SUP_STOP;
	size_t low = for_good ? 0 : sup->low;

	while (sup->at > low) {
		struct child *c = &sup->children[sup->at - 1];
		const struct om_child_spec *spec = spec_of(sup, sup->at - 1);

		if (c->state == CHILD_GOING) {
			return; /* its report brings us here again */
		}
		if (c->state == CHILD_GONE || (c->state == CHILD_SUSPENDED && !for_good)) {
			om_timer_cancel(cx, c->timer);
			c->timer = 0;
			sup->at--;
			continue;
		}
		if (c->state == CHILD_SUSPENDED) {
			child_order(cx, c, OM_KIND_RELEASE);
		} else if (for_good || spec->restart == OM_RESTART_NEVER) {
			om_stop(cx, om_id_of(c->id));
		} else {
			child_order(cx, c, OM_KIND_SUSPEND);
		}
		c->state = CHILD_GOING;
		child_deadline(cx, sup, sup->at - 1);
		return;
	}
	if (for_good) {
		sup_answer(cx, sup, sup->why != OM_OK ? sup->why : OM_ERR_CANCELLED);
		om_fail(cx, sup->why);
	} else if (sup->group_timer == 0) { /* the back-off is over too */
		sup->state = SUP_START;
		sup->at = sup->low;
		sup_step(cx, sup);
	}
}

static void
sup_step(struct om_ctx *cx, struct supervisor *sup)
{
	if (sup->state == SUP_START) {
		sup_step_start(cx, sup);
	} else if (sup->state != SUP_RUN) {
		sup_step_down(cx, sup);
	}
}

static bool
child_comes_back(const struct supervisor *sup, size_t i, enum om_err why)
{
	enum om_restart restart = spec_of(sup, i)->restart;

	return restart == OM_RESTART_ALWAYS || (restart == OM_RESTART_ON_FAILURE && why != OM_OK);
}

/* It is one of a group that goes down: it will be started with the others. */
static bool
child_is_going_down(const struct supervisor *sup, size_t i)
{
	return sup->state == SUP_DOWN && i >= sup->low &&
	       spec_of(sup, i)->restart != OM_RESTART_NEVER;
}

/* A child has ended by itself, or because we said so, and waits. */
static void
sup_on_suspended(struct om_ctx *cx, struct supervisor *sup, size_t i, enum om_err why)
{
	struct child *c = &sup->children[i];
	bool was_asked = c->state == CHILD_GOING && spec_of(sup, i)->restart != OM_RESTART_NEVER;

	om_timer_cancel(cx, c->timer);
	c->timer = 0;
	c->state = CHILD_SUSPENDED;
	if (was_asked || sup->state == SUP_STOP || child_is_going_down(sup, i)) {
		sup_step(cx, sup);
		return;
	}
	if (!sup->started) { /* the first start of all: an error of one is an error of all */
		sup_stop(cx, sup, why != OM_OK ? why : OM_ERR_CANCELLED);
		return;
	}
	if (child_comes_back(sup, i, why)) {
		sup_restart(cx, sup, i);
		return;
	}
	c->state = CHILD_GOING;
	child_order(cx, c, OM_KIND_RELEASE);
}

/* A child has ended for good: because we said so, or somebody else stopped or killed it. */
static void
sup_on_ended(struct om_ctx *cx, struct supervisor *sup, size_t i, enum om_err why)
{
	struct child *c = &sup->children[i];
	bool expected = c->state == CHILD_GOING;

	om_timer_cancel(cx, c->timer);
	c->timer = 0;
	c->state = CHILD_GONE;
	c->id = 0;
	if (expected || sup->state == SUP_STOP || child_is_going_down(sup, i)) {
		sup_step(cx, sup);
	} else if (!sup->started) {
		sup_stop(cx, sup, why != OM_OK ? why : OM_ERR_CANCELLED);
	} else if (child_comes_back(sup, i, why)) {
		sup_restart(cx, sup, i);
	} else {
		sup_step(cx, sup);
	}
}

/* A report of a child, from its last breath or its first. */
void
om_supervisor_on_child(struct om_ctx *cx, struct om_actor *a, const struct om_msg *msg)
{
	const struct om_pay_child *pay = (const struct om_pay_child *)(const void *)msg->payload;
	struct supervisor *sup = a->state;
	size_t i = 0;

	if (a->def != &om_supervisor_def || a->phase != OM_PHASE_RUN) {
		return;
	}
	while (i < sup->spec->child_count && sup->children[i].id != pay->child) {
		i++;
	}
	if (i == sup->spec->child_count) {
		return; /* of a child that was given up */
	}
	switch ((enum om_child_event)pay->what) {
	case OM_CHILD_STARTED:
		if (sup->children[i].state == CHILD_STARTING) {
			sup->children[i].state = CHILD_UP;
			sup->children[i].up_since_ns = om_now(cx).ns;
			sup_step(cx, sup);
		}
		break;
	case OM_CHILD_SUSPENDED:
		sup_on_suspended(cx, sup, i, pay->why);
		break;
	case OM_CHILD_ENDED:
		sup_on_ended(cx, sup, i, pay->why);
		break;
	}
}

static enum om_err
sup_on_timer(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct supervisor *sup = state;
	const struct om_timer_fired *fired =
	    (const struct om_timer_fired *)(const void *)msg->payload;
	struct child *c;

	if (fired->cookie == SUP_TIMER_GROUP) {
		sup->group_timer = 0;
		if (sup->state == SUP_DOWN) {
			sup_step(cx, sup);
		}
		return OM_OK;
	}
	c = &sup->children[fired->cookie];
	c->timer = 0;
	if (c->state == CHILD_GOING) {
		om_warn("supervisor.killed", "%s did not stop in time",
			spec_of(sup, fired->cookie)->def->name);
		om_kill(cx, om_id_of(c->id));
	} else if (c->state == CHILD_SUSPENDED || c->state == CHILD_GONE) {
		if (child_start(cx, sup, fired->cookie) != OM_OK) {
			sup_restart(cx, sup, fired->cookie);
		}
	}
	return OM_OK;
}

static enum om_err
sup_on_down(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)msg;
	sup_step(cx, state); /* a name is free */
	return OM_OK;
}

static enum om_err
sup_on_status(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct supervisor *sup = state;

	if (sup->state == SUP_STOP) {
		return sup->why != OM_OK ? sup->why : OM_ERR_CANCELLED;
	}
	if (!sup->started) {
		sup->waiting = om_later(cx, msg);
	}
	return OM_OK;
}

static enum om_err
sup_start(struct om_ctx *cx, void *state, const void *arg)
{
	struct supervisor *sup = state;

	sup->spec = arg;
	sup->children = calloc(sup->spec->child_count + 1, sizeof(*sup->children));
	sup->restarts = calloc((size_t)sup->spec->max_restarts + 1, sizeof(*sup->restarts));
	if (sup->children == NULL || sup->restarts == NULL) {
		return OM_ERR_NOMEM;
	}
	if (sup->spec->name != NULL) {
		enum om_err err = om_register(cx, sup->spec->name);

		if (err != OM_OK) {
			return err;
		}
	}
	sup->state = SUP_START;
	sup_step(cx, sup);
	return OM_OK;
}

/* om_stop: children first, newest first; then om_exit. */
static enum om_err
sup_drain(struct om_ctx *cx, void *state)
{
	struct supervisor *sup = state;

	if (sup->state != SUP_STOP) {
		sup_stop(cx, sup, OM_OK);
	}
	return OM_AGAIN;
}

static void
sup_end(struct om_ctx *cx, void *state, enum om_err why)
{
	struct supervisor *sup = state;

	(void)why;
	/* Only when we are killed are there any left. */
	for (size_t i = sup->children != NULL ? sup->spec->child_count : 0; i-- > 0;) {
		if (sup->children[i].state != CHILD_GONE) {
			om_kill(cx, om_id_of(sup->children[i].id));
		}
	}
	free(sup->children);
	free(sup->restarts);
}

static const struct om_handler sup_handlers[] = {
	{ OM_SYS_TIMER, sup_on_timer },
	{ OM_SYS_DOWN, sup_on_down },
	{ OM_SUP_STATUS, sup_on_status },
};

const struct om_actor_def om_supervisor_def = {
	.name = "supervisor",
	.state_size = sizeof(struct supervisor),
	.start = sup_start,
	.drain = sup_drain,
	.stop = sup_end,
	.handlers = sup_handlers,
	.handler_count = OM_COUNT(sup_handlers),
	.mailbox_slots = 1024,
	.restart = OM_RESTART_ALWAYS,
};

enum om_err
om_supervisor_start(struct om_system *sys, const struct om_supervisor_spec *spec,
		    struct om_actor_id *out)
{
	struct om_msg *msg = om_system_msg_new(sys, OM_SUP_STATUS, 0), *reply = NULL;
	struct om_actor_id id;
	enum om_err err;

	if (msg == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_system_spawn(sys, &om_supervisor_def, spec, &id);
	if (err != OM_OK) {
		goto out;
	}
	err = om_system_ask(sys, id, &msg, SUP_START_WAIT_MS, &reply);
	if (err == OM_OK) {
		*out = id;
		goto out;
	}
	om_system_stop_actor(sys, id); /* it stops by itself on an error, but not on a time-out */
	if (om_system_wait(sys, id, SUP_START_WAIT_MS) != OM_OK) {
		err = OM_ERR_TIMEOUT;
	}
	/* The supervisor may have ended before our question: then the reason is in the log only. */
	err = err == OM_ERR_STALE ? OM_ERR_GONE : err;
out:
	om_msg_free(NULL, msg);
	om_msg_free(NULL, reply);
	return err;
}
