/* SPDX-License-Identifier: ISC */
/*
 * Timers: a hierarchical wheel (Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP
 * 1987) of 4 levels of 256 slots, one tick a millisecond.  Start and cancel are O(1); a timer is
 * moved down at most three times in its life.  One wheel and one lock a system: the hot path of
 * requests stays out of it (ask.c).
 *
 * A timer holds its own message.  While that is in a mailbox, a period that ends again is counted
 * into the same message: a slow actor has at most one message per timer waiting.
 */
#include <stdlib.h>
#include <string.h>
#include "runtime/runtime_impl.h"

#define WHEEL_LEVELS     4
#define WHEEL_BITS       8
#define WHEEL_SLOTS      (1u << WHEEL_BITS)
#define WHEEL_MASK       (WHEEL_SLOTS - 1)
#define WHEEL_TICK       OM_NS_PER_MS
#define WHEEL_PERIOD_MAX (UINT64_C(1) << 40) /* ticks: 34 years, and their sum does not overflow */
#define WHEEL_FAR        ((UINT64_C(1) << (WHEEL_LEVELS * WHEEL_BITS)) - 1) /* 49 days: looks again */

struct om_timer {
	struct om_node node; /* user timers: payload from the copy in om_timer_on_message */
	struct om_timer *prev, *next;
	struct om_timer **slot; /* NULL: not in the wheel */
	uint64_t owner;
	uint64_t key; /* in the owner's ext->timers; 0: the runtime's own */
	uint64_t cookie;
	uint64_t expiry; /* tick */
	uint64_t period; /* ticks */
	bool queued; /* node is in the mailbox */
	bool dead; /* freed when the node comes out of the mailbox */
};

struct om_wheel {
	pthread_mutex_t lock;
	int64_t origin_ns;
	uint64_t now; /* tick that has been fired last */
	uint64_t sleep_until; /* what the I/O thread waits for */
	uint64_t armed;
	struct om_timer *slot[WHEEL_LEVELS][WHEEL_SLOTS];
};

enum om_err
om_timer_init(struct om_system *sys)
{
	sys->wheel = calloc(1, sizeof(*sys->wheel));
	if (sys->wheel == NULL) {
		return OM_ERR_NOMEM;
	}
	(void)pthread_mutex_init(&sys->wheel->lock, NULL);
	sys->wheel->origin_ns = om_system_now(sys).ns;
	sys->wheel->sleep_until = UINT64_MAX;
	return OM_OK;
}

void
om_timer_fini(struct om_system *sys)
{
	if (sys->wheel != NULL) {
		(void)pthread_mutex_destroy(&sys->wheel->lock);
		free(sys->wheel);
	}
}

/* --- the wheel; the lock is held ----------------------------------------------------------------------- */

static void
wheel_add(struct om_wheel *w, struct om_timer *t)
{
	uint64_t at = t->expiry > w->now ? t->expiry : w->now + 1;
	uint64_t delta = at - w->now;
	unsigned level = 0;

	if (delta > WHEEL_FAR) {
		at = w->now + WHEEL_FAR;
		delta = WHEEL_FAR;
	}
	while (delta >> (WHEEL_BITS * (level + 1)) != 0) {
		level++;
	}
	t->slot = &w->slot[level][at >> (WHEEL_BITS * level) & WHEEL_MASK];
	t->prev = NULL;
	t->next = *t->slot;
	if (t->next != NULL) {
		t->next->prev = t;
	}
	*t->slot = t;
	w->armed++;
}

static void
wheel_remove(struct om_wheel *w, struct om_timer *t)
{
	if (t->slot == NULL) {
		return;
	}
	if (t->prev != NULL) {
		t->prev->next = t->next;
	} else {
		*t->slot = t->next;
	}
	if (t->next != NULL) {
		t->next->prev = t->prev;
	}
	t->slot = NULL;
	w->armed--;
}

/* The first tick after `now` at which something is due or must be moved down; UINT64_MAX: none. */
static uint64_t
wheel_next(const struct om_wheel *w)
{
	uint64_t best = UINT64_MAX;

	if (w->armed == 0) {
		return best;
	}
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		unsigned shift = WHEEL_BITS * level;
		uint64_t base = w->now >> shift;

		for (uint64_t i = 1; i <= WHEEL_SLOTS; i++) {
			uint64_t at = (base + i) << shift;

			if (at >= best) {
				break;
			}
			if (w->slot[level][(base + i) & WHEEL_MASK] != NULL) {
				best = at;
				break;
			}
		}
	}
	return best;
}

static uint64_t
wheel_tick_of(const struct om_wheel *w, int64_t ns)
{
	return ns <= w->origin_ns ? 0 : (uint64_t)((ns - w->origin_ns) / WHEEL_TICK);
}

/* --- firing -------------------------------------------------------------------------------------------- */

static void
timer_fire(struct om_ctx *cx, struct om_wheel *w, struct om_timer *t)
{
	if (t->period != 0) {
		t->expiry += t->period;
		if (t->expiry <= w->now) { /* the machine slept: no burst */
			t->expiry = w->now + t->period;
		}
		wheel_add(w, t);
	}
	if (t->queued) {
		return;
	}
	t->queued = true;
	if (om_mbox_push_node(cx, t->owner, &t->node) != OM_OK) {
		t->queued = false; /* the owner is ending: om_timer_end will see to it */
	}
}

/* The I/O thread, or the sim.  Fires what is due; ns until the next tick of interest, -1: none. */
int64_t
om_timer_fire(struct om_ctx *cx, int64_t now_ns)
{
	struct om_wheel *w = cx->sys->wheel;
	struct om_timer *t, *due;
	uint64_t target, next;
	int64_t left = -1;

	(void)pthread_mutex_lock(&w->lock);
	target = wheel_tick_of(w, now_ns);
	while ((next = wheel_next(w)) <= target) {
		w->now = next;
		for (unsigned level = WHEEL_LEVELS; level-- > 0;) {
			unsigned shift = WHEEL_BITS * level;

			if ((w->now & ((UINT64_C(1) << shift) - 1)) != 0) {
				continue;
			}
			due = w->slot[level][w->now >> shift & WHEEL_MASK];
			while ((t = due) != NULL) {
				due = t->next;
				wheel_remove(w, t);
				if (t->expiry <= w->now) {
					timer_fire(cx, w, t);
				} else {
					wheel_add(w, t);
				}
			}
		}
	}
	if (target > w->now && w->armed == 0) {
		w->now = target;
	}
	w->sleep_until = next;
	if (next != UINT64_MAX) {
		left = w->origin_ns + (int64_t)next * WHEEL_TICK - now_ns;
	}
	(void)pthread_mutex_unlock(&w->lock);
	return left;
}

/* When the next timer is due (sim); -1: none. */
int64_t
om_timer_next(struct om_system *sys)
{
	struct om_wheel *w = sys->wheel;
	uint64_t next;

	(void)pthread_mutex_lock(&w->lock);
	next = wheel_next(w);
	(void)pthread_mutex_unlock(&w->lock);
	return next == UINT64_MAX ? -1 : w->origin_ns + (int64_t)next * WHEEL_TICK;
}

/* --- what an actor asks for --------------------------------------------------------------------------- */

/* Rounds up: a timer never fires early. */
static void
timer_arm(struct om_system *sys, struct om_timer *t, int64_t at_ns)
{
	struct om_wheel *w = sys->wheel;
	bool poke;

	(void)pthread_mutex_lock(&w->lock);
	wheel_remove(w, t);
	if (w->armed == 0) { /* nothing to fire in between: catch up with the clock */
		uint64_t now = wheel_tick_of(w, om_system_now(sys).ns);

		w->now = now > w->now ? now : w->now;
	}
	t->expiry = wheel_tick_of(w, at_ns + WHEEL_TICK - 1);
	wheel_add(w, t);
	poke = t->expiry < w->sleep_until;
	if (poke) {
		w->sleep_until = t->expiry;
	}
	(void)pthread_mutex_unlock(&w->lock);
	if (poke) {
		om_io_poke(sys);
	}
}

static struct om_timer *
timer_new(struct om_ctx *cx)
{
	struct om_timer *t = aligned_alloc(16, (sizeof(*t) + 15) & ~(size_t)15);

	if (t != NULL) {
		memset(t, 0, sizeof(*t));
		om_mbox_node_init(&t->node, OM_KIND_TIMER, OM_SYS_TIMER,
				  sizeof(struct om_timer_fired));
		t->owner = cx->self_id;
	}
	return t;
}

struct om_timer *
om_timer_new_internal(struct om_ctx *cx, uint64_t cookie)
{
	struct om_timer *t = timer_new(cx);

	if (t != NULL) {
		t->cookie = cookie;
	}
	return t;
}

void
om_timer_arm_internal(struct om_ctx *cx, struct om_timer *t, int64_t at_ns)
{
	timer_arm(cx->sys, t, at_ns);
}

enum om_err
om_timer_start(struct om_ctx *cx, uint64_t delay_ms, uint64_t period_ms, uint64_t cookie,
	       uint64_t *timer)
{
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_timer *t = timer_new(cx);

	if (ext == NULL || t == NULL || (t->key = om_slotmap_add(&ext->timers, t)) == 0) {
		free(t);
		return OM_ERR_NOMEM;
	}
	t->cookie = cookie;
	t->node.hdr.trace = cx->trace;
	t->period = period_ms < WHEEL_PERIOD_MAX ? period_ms : WHEEL_PERIOD_MAX;
	timer_arm(cx->sys, t, om_ns_after(om_system_now(cx->sys).ns, delay_ms));
	if (timer != NULL) {
		*timer = t->key;
	}
	return OM_OK;
}

static void
timer_drop(struct om_system *sys, struct om_timer *t)
{
	bool queued;

	(void)pthread_mutex_lock(&sys->wheel->lock);
	wheel_remove(sys->wheel, t);
	queued = t->queued;
	t->dead = true;
	(void)pthread_mutex_unlock(&sys->wheel->lock);
	if (!queued) {
		free(t);
	}
}

void
om_timer_drop_internal(struct om_system *sys, struct om_timer *t)
{
	timer_drop(sys, t);
}

void
om_timer_cancel(struct om_ctx *cx, uint64_t timer)
{
	struct om_actor_ext *ext = cx->self->ext;
	struct om_timer *t = ext != NULL ? om_slotmap_del(&ext->timers, timer) : NULL;

	if (t != NULL) {
		timer_drop(cx->sys, t);
	}
}

/* The timer's node came out of the mailbox. */
void
om_timer_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_timer *t = om_container_of(msg, struct om_timer, node.msg);
	struct om_timer_fired fired = { .timer = t->key, .cookie = t->cookie };
	uint32_t trace = om_hdr(msg)->trace;
	bool dead, once;

	(void)pthread_mutex_lock(&cx->sys->wheel->lock);
	t->queued = false;
	dead = t->dead;
	once = t->period == 0;
	(void)pthread_mutex_unlock(&cx->sys->wheel->lock);
	if (dead) {
		free(t);
		return;
	}
	if (t->key == 0) {
		om_ask_on_timer(cx, a, t->cookie);
		return;
	}
	if (once) {
		(void)om_slotmap_del(&a->ext->timers, t->key);
		free(t);
	}
	cx->trace = trace;
	om_actor_deliver(cx, a, OM_SYS_TIMER, &fired, sizeof(fired));
	cx->trace = 0;
}

/* The mailbox that held the node is gone; its owner has ended its timers before (om_timer_end). */
void
om_timer_discard(struct om_msg *msg)
{
	free(om_container_of(msg, struct om_timer, node.msg));
}

void
om_timer_end(struct om_ctx *cx, struct om_actor *a)
{
	struct om_actor_ext *ext = a->ext;

	for (uint32_t i = 0; i < ext->timers.used; i++) {
		uint64_t key = om_slotmap_key(&ext->timers, i);

		if (key != 0) {
			timer_drop(cx->sys, om_slotmap_del(&ext->timers, key));
		}
	}
	if (ext->ask_timer != NULL) {
		timer_drop(cx->sys, ext->ask_timer);
		ext->ask_timer = NULL;
	}
}
