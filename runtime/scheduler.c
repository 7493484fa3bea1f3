/* SPDX-License-Identifier: ISC */
/*
 * Workers: who runs which actor, and when a thread sleeps.
 *
 * Each worker has a private run queue (a list, no atomics).  Actors come to it in two ways: its own
 * actors made them ready, or another thread left them at its door (struct om_wake: a stack and an
 * event count).  There is no stealing.  A worker that runs dry sets its bit in `hungry`; a busy
 * worker that sees the bit hands over half of its queue, but only when that pays: a message that
 * crosses cores costs some 70 ns, so actors that handle messages in 20 ns are better off together.
 * A lone runnable actor is never moved.  A sender that overloads its receiver goes to the receiver's
 * worker (run_again): cheap streams come together by themselves, wherever their actors began.
 *
 * Invariants
 * 1. An actor is in at most one run queue or at one door (mailbox.c, invariant 1).
 * 2. Who leaves an actor at a door increments the event count after it; who sleeps on it has read
 *    the count before it looked at the door.  If broken: work waits behind a sleeping thread.
 * 3. An idle system makes no system calls: parked workers have no time-out.
 *
 * Beside this file: wait.c (event counts, and threads that wait for an end or for room), threads.c
 * (contexts, start and end of the workers), detached.c, watchdog.c, port.c.
 */
#include <sched.h>
#include <unistd.h>
#include "runtime/dispatch_impl.h"
#include "runtime/mailbox_impl.h"
#include "runtime/scheduler_impl.h"

#define SCHED_PAYS_CYCLES     400 /* an operation dearer than this may cross to another core */
#define SCHED_CHEAP_CYCLES    100 /* one cheaper than this only if somebody waits very long */
#define SCHED_WAIT_CYCLES     250000 /* about 100 us: so long may a runnable actor wait */
#define SCHED_WAIT_MAX_CYCLES (500 * SCHED_WAIT_CYCLES)
#define SCHED_WAKE_CYCLES     50000 /* about 20 us: less is done before a sleeping worker is there */
#define SCHED_YIELD_NS        5000 /* a spin that ends before does not offer the core: it is left soon */
#define SCHED_WINDOW_MAX      64 /* runs between two looks at the clock */
#define SCHED_WINDOW_CYCLES   50000
#define SCHED_HANDOVER_MAX    256
#define SCHED_DOZE_CREDIT     16 /* vain second looks after a good one before they become rare */
#define SCHED_DOZE_RARE       64 /* then one empty mailbox in so many gets one */

__thread struct om_ctx *om_tls_ctx __attribute__((tls_model("initial-exec")));

static bool
door_is_empty(const struct om_ctx *cx)
{
	return ck_pr_load_64(&cx->wake->inject) == 0;
}

/* --- run queues ---------------------------------------------------------------------------------- */

/* Any thread.  Leaves a chain at a door and wakes who sleeps behind it.  model: wake_leave. */
static void
wake_leave(struct om_wake *wake, struct om_actor *first, struct om_actor *last)
{
	uint64_t old = ck_pr_load_64(&wake->inject);

	do {
		last->run_next = (struct om_actor *)(uintptr_t)old;
		/*
		 * Order: what we did to the actors before they can be found.  Pairs with the acquire
		 * fence in om_sched_take_inject.  Without it they run on half-written state.
		 */
		ck_pr_fence_release();
		om_tsan_release(wake);
	} while (!ck_pr_cas_64_value(&wake->inject, old, (uint64_t)(uintptr_t)first, &old));
	ck_ec32_inc(&wake->ec, &ec_mode_forever); /* a locked add: after the push (invariant 2) */
}

/* Owner thread.  Takes in what others left, in the order in which they left it. */
bool
om_sched_take_inject(struct om_ctx *cx)
{
	struct om_actor *a, *list = NULL;

	if (ck_pr_load_64(&cx->wake->inject) == 0) {
		return false;
	}
	a = (struct om_actor *)(uintptr_t)ck_pr_fas_64(&cx->wake->inject, 0);
	ck_pr_fence_acquire(); /* pairs with wake_leave */
	om_tsan_acquire(cx->wake);
	while (a != NULL) {
		struct om_actor *next = a->run_next;

		a->run_next = list;
		list = a;
		a = next;
	}
	while (list != NULL) {
		struct om_actor *next = list->run_next;

		runq_push(cx, list);
		list = next;
	}
	return true;
}

/*
 * Has the worker nothing else to do?  Advice: it has just run this actor and its queue is empty, but
 * it has not got round to saying that it is hungry.
 */
static bool
worker_is_free(const struct om_ctx *cx, const struct om_actor *a)
{
	const struct om_actor *self = ck_pr_load_ptr(&cx->self);

	return (self == NULL || self == a) && ck_pr_load_32(&cx->run_count) == 0;
}

/*
 * Which worker should run an actor that a thread without a run queue made ready.  One that this thread has
 * just woken and that is not there yet: two wake-ups for two actors cost more than the second one's wait.
 */
static struct om_ctx *
sched_pick(struct om_ctx *cx, const struct om_actor *a)
{
	struct om_system *sys = cx->sys;
	uint64_t hungry = ck_pr_load_64(&sys->sched->hungry);
	struct om_ctx *last = sys->worker[a->worker < sys->workers ? a->worker : 0];

	if ((hungry >> cx->woke & 1) != 0 && !door_is_empty(sys->worker[cx->woke])) {
		return sys->worker[cx->woke];
	}
	if (hungry == 0 || (hungry >> last->index & 1) != 0 || worker_is_free(last, a)) {
		return last;
	}
	return sys->worker[__builtin_ctzll(hungry)];
}

void
om_sched_ready_elsewhere(struct om_ctx *cx, struct om_actor *a)
{
	struct om_ctx *to;

	if (om_unlikely((a->limit & OM_LIMIT_DETACHED) != 0 && !cx->sys->sim)) {
		wake_leave(a->ext->detached->cx->wake, a, a);
		return;
	}
	if (om_likely(cx->kind == OM_CTX_WORKER)) {
		runq_push(cx, a);
		return;
	}
	cx->n.wakes++;
	to = sched_pick(cx, a);
	cx->woke = to->index;
	wake_leave(to->wake, a, a);
}

void
om_sched_requeue(struct om_ctx *cx, struct om_actor *a)
{
	runq_push(cx, a);
}

/* --- running an actor ---------------------------------------------------------------------------- */

static inline bool
run_has_sys(const struct om_actor *a)
{
	return a->sys_first != NULL || ck_pr_load_64(&a->sys) != 0;
}

/*
 * The system lane, as far as a turn goes; what is left of it then goes first in the next one.  false:
 * the actor has ended, do not touch it.  model: run_sys.
 */
static bool
run_sys(struct om_ctx *cx, struct om_actor *a)
{
	uint32_t budget = OM_RUN_BUDGET;
	struct om_msg *msg;

	while (!cx->yield && (a->sys_first != NULL || om_mbox_take_sys(a))) {
		msg = a->sys_first;
		a->sys_first = msg->next;
		ck_pr_store_32(&a->sys_left, a->sys_left - 1);
		om_actor_dispatch_sys(cx, a, msg);
		a->handled++;
		cx->n.handled++;
		if (om_unlikely(a->phase == OM_PHASE_NEW) && !om_actor_start(cx, a)) {
			return false;
		}
		if (om_unlikely(cx->leaving)) {
			cx->leaving = false;
			if (om_actor_leave(cx, a, cx->leave_why, cx->leave_ordered)) {
				return false;
			}
		}
		/* In simulation one message is a turn. */
		cx->yield = cx->yield || cx->sys->sim || --budget == 0;
	}
	return true;
}

/* A stop or a kill is due.  true: the actor has ended. */
static __attribute__((noinline)) bool
run_order(struct om_ctx *cx, struct om_actor *a, uint64_t order)
{
	if (order == OM_LIFE_STOP && om_actor_drains(cx, a)) {
		if (!cx->leaving) { /* it may end at once after all */
			return false;
		}
		cx->leaving = false;
	}
	return om_actor_leave(cx, a, order == OM_LIFE_KILL ? OM_ERR_CANCELLED : OM_OK, true);
}

enum run_next { RUN_ON, RUN_LOOK_AGAIN, RUN_LATER, RUN_OVER };

/* What goes before the user lane: system lane, orders, a supervisor's verdict.  model: again. */
static enum run_next
run_first(struct om_ctx *cx, struct om_actor *a)
{
	uint64_t life, order;

	if (run_has_sys(a) && !run_sys(cx, a)) {
		return RUN_OVER;
	}
	life = ck_pr_load_64(&a->life);
	if ((life & OM_LIFE_CTL) != 0 && (order = om_mbox_order(a, life)) != 0) {
		/*
		 * Order: life before a second look at the lane.  Pairs with om_mbox_push_sys and
		 * om_mbox_control of one sender.  Without it what was sent before a stop, a bell
		 * say, is dropped.  A kill waits for nothing.
		 */
		ck_pr_fence_load();
		if (order == OM_LIFE_KILL || !run_has_sys(a)) {
			return run_order(cx, a, order) ? RUN_OVER : RUN_LOOK_AGAIN;
		}
		return cx->yield ? RUN_LATER : RUN_LOOK_AGAIN;
	}
	if (cx->yield && (run_has_sys(a) || cx->sys->sim)) {
		return RUN_LATER;
	}
	if (a->phase == OM_PHASE_SUSPENDED) {
		return mbox_rest(a, ck_pr_load_64(&a->head)) ? RUN_OVER : RUN_LOOK_AGAIN;
	}
	return RUN_ON;
}

/* One message of the user lane.  false: it is wanted again later.  model: message. */
static OM_HOT bool
run_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	bool done = dispatch_message(cx, a, msg);

	if (om_likely(done)) {
		ck_pr_store_32(&a->taken, a->taken + 1);
		a->handled++;
		cx->n.handled++;
	} else {
		cx->n.again++;
		mbox_put_back(a, msg);
		done = cx->leaving;
	}
	if (om_unlikely((a->limit & OM_LIMIT_BLOCK) != 0)) {
		om_sched_room_made(cx->sys);
	}
	return done;
}

/*
 * The mailbox is empty.  Going idle costs a locked instruction, and clearing the idle bit makes the
 * next sender schedule the actor: for actors that answer each other it is cheaper to stay in the
 * queue and look once more.  Whether that pays the worker learns from its last looks.  true: stay.
 */
static inline bool
run_dozes(struct om_ctx *cx, struct om_actor *a, bool handled)
{
	if ((a->flags & OM_ACTOR_DOZES) != 0) {
		if (handled && cx->run_head != NULL) {
			cx->doze = SCHED_DOZE_CREDIT;
			return true;
		}
		a->flags &= (uint8_t)~OM_ACTOR_DOZES;
		cx->doze = cx->doze > 0 ? (uint8_t)(cx->doze - 1) : 0;
		return false;
	}
	if (cx->run_head == NULL || (cx->doze == 0 && --cx->doze_skip % SCHED_DOZE_RARE != 0)) {
		return false; /* nobody here could send to it, or it was in vain too often */
	}
	a->flags |= OM_ACTOR_DOZES;
	return true;
}

/*
 * The actor's turn is over but not its work.  A sender that is ahead of its receiver goes where the
 * receiver is: it could only wait here, and make each of its messages cross between the cores.
 */
static void
run_again(struct om_ctx *cx, struct om_actor *a)
{
	if (om_unlikely(cx->follow < cx->sys->workers && cx->follow != cx->index) && !cx->paid &&
	    cx->kind == OM_CTX_WORKER) {
		cx->n.handovers++;
		wake_leave(cx->sys->worker[cx->follow]->wake, a, a);
		return;
	}
	runq_push(cx, a);
}

static inline void
run_begin(struct om_ctx *cx, struct om_actor *a)
{
	cx->self = a;
	cx->self_id =
	    (ck_pr_load_64(&a->life) >> OM_SLOT_BITS) << OM_SLOT_BITS | om_actor_slot(cx->sys, a);
	if (om_unlikely(cx->yield)) { /* of the turn before */
		cx->yield = false;
		cx->follow = OM_NOWHERE;
	}
	if (om_unlikely(a->worker != cx->index)) {
		ck_pr_store_8(&a->worker, cx->index);
	}
}

/*
 * One turn of an actor: the system lane first, then up to `budget` messages of the user lane.  It
 * ends idle, or in the run queue again, or ended.  After mbox_rest or om_actor_leave said true
 * the actor is not ours: another thread may run it already.  model: worker (of mailbox.pml).
 */
static OM_HOT void
run_actor(struct om_ctx *cx, struct om_actor *a, uint32_t budget)
{
	const uint32_t turn = budget;

	run_begin(cx, a);
	if (om_unlikely(a->phase == OM_PHASE_NEW) && !om_actor_start(cx, a)) {
		return;
	}
	for (;;) {
		uint64_t life = ck_pr_load_64(&a->life);
		struct om_msg *msg;

		if (om_unlikely(run_has_sys(a) || (life & OM_LIFE_CTL) != 0 ||
				a->phase == OM_PHASE_SUSPENDED)) {
			enum run_next next = run_first(cx, a);

			if (next == RUN_OVER) {
				return;
			}
			if (next == RUN_LATER) {
				break;
			}
			if (next == RUN_LOOK_AGAIN) {
				continue;
			}
		}
		msg = a->first;
		if (msg != NULL) {
			a->first = msg->next;
		} else {
			uint64_t head = ck_pr_load_64(&a->head);

			msg = mbox_pull_any(cx, a, head);
			if (msg == NULL) {
				if (run_dozes(cx, a, budget != turn)) {
					break;
				}
				if (mbox_rest(a, head)) {
					return;
				}
				continue;
			}
			/*
			 * Order: the messages before a second look at lane and life.  Whoever sent
			 * them may have sent a reply or a stop before: it goes before them.
			 */
			if (om_unlikely(
				(ck_pr_load_64(&a->sys) | (ck_pr_load_64(&a->life) ^ life)) != 0)) {
				mbox_put_back(a, msg);
				continue;
			}
		}
		if (budget-- == 0 || cx->yield) {
			mbox_put_back(a, msg);
			break;
		}
		if (om_unlikely(!run_message(cx, a, msg))) {
			break;
		}
		if (om_unlikely(cx->leaving)) {
			cx->leaving = false;
			if (om_actor_leave(cx, a, cx->leave_why, false)) {
				return;
			}
		}
	}
	run_again(cx, a);
}

void
om_sched_run(struct om_ctx *cx, struct om_actor *a, uint32_t budget)
{
	run_actor(cx, a, budget);
}

/* --- workers ------------------------------------------------------------------------------------- */

/*
 * Gives the older half of our queue, whose last would wait so long, to a worker that has nothing.  One that
 * sleeps has to be woken first, and whoever wakes it works no quicker meanwhile.
 */
static void
worker_hand_over(struct om_ctx *cx, uint64_t hungry, uint64_t wait)
{
	struct om_ctx *to = cx->sys->worker[__builtin_ctzll(hungry)];
	struct om_actor *first, *last;
	uint32_t n = cx->run_count / 2;

	if (n == 0 || !door_is_empty(to) ||
	    (wait < SCHED_WAKE_CYCLES && ck_ec_has_waiters(&to->wake->ec))) {
		return;
	}
	if (n > SCHED_HANDOVER_MAX) {
		n = SCHED_HANDOVER_MAX;
	}
	/* A door keeps the newest first: build the chain backwards. */
	last = runq_pop(cx);
	first = last;
	for (uint32_t i = 1; i < n; i++) {
		struct om_actor *a = runq_pop(cx);

		a->run_next = first;
		first = a;
	}
	cx->n.handovers += n;
	wake_leave(to->wake, first, last);
}

/* Those who wait behind fresh actors have waited long enough: all are equal now. */
static void
worker_mix_fresh(struct om_ctx *cx)
{
	if (cx->fresh == NULL) {
		return;
	}
	if (cx->run_head != NULL) {
		cx->run_tail->run_next = cx->fresh;
	} else {
		cx->run_head = cx->fresh;
	}
	cx->run_tail = cx->fresh_last;
	cx->run_count += cx->fresh_count;
	cx->fresh = NULL;
	cx->fresh_count = 0;
}

/* Does it pay to move actors to another core?  `wait`: how long the last in the queue will wait. */
static bool
worker_pays(uint64_t cycles, uint64_t ops, uint64_t wait)
{
	return cycles > ops * SCHED_PAYS_CYCLES || wait > SCHED_WAIT_MAX_CYCLES ||
	       (wait > SCHED_WAIT_CYCLES && cycles > ops * SCHED_CHEAP_CYCLES);
}

/*
 * Every few runs: what does an operation (a message handled or sent, an actor made) cost here, and
 * should somebody else have some of the work?
 */
static void
worker_measure(struct om_ctx *cx)
{
	uint64_t now = sched_tsc();
	uint64_t cycles = now - cx->tsc;
	uint64_t ops = cx->n.handled + cx->n.sent + cx->n.spawned;
	/* A run counts too: one that only found a mailbox full is cheap, not infinitely dear. */
	uint64_t done = ops - cx->window_ops + cx->window;
	uint64_t hungry = ck_pr_load_64(&cx->sys->sched->hungry);
	uint32_t waiting = cx->run_count + cx->fresh_count;

	uint64_t wait = cycles / cx->window * waiting;

	bool pays = worker_pays(cycles, done, wait);

	/* Twice in a row: once may be a cold cache, or a moment without a CPU. */
	if (pays && cx->paid && hungry != 0 && waiting >= 2) {
		worker_mix_fresh(cx);
		worker_hand_over(cx, hungry, wait);
	}
	cx->paid = pays;
	if (now - cx->mixed > SCHED_WAIT_CYCLES) {
		cx->mixed = now;
		worker_mix_fresh(cx);
	}
	if (cycles > SCHED_WINDOW_CYCLES) {
		cx->window = cx->window > 1 ? cx->window / 2 : 1;
	} else if (cx->window < SCHED_WINDOW_MAX) {
		cx->window *= 2;
	}
	cx->window_left = cx->window;
	cx->window_ops = ops;
	cx->tsc = now;
}

/* Nothing to do: say so, wait, then sleep until somebody comes.  model: worker of park.pml. */
static void
worker_idle(struct om_ctx *cx)
{
	struct om_sched *sched = cx->sys->sched;
	uint64_t bit = UINT64_C(1) << cx->index;
	int64_t until = om_mono_now().ns + (int64_t)cx->sys->spin_us * 1000;
	int64_t left;
	uint32_t mark;

	cx->self = NULL;
	ck_pr_or_64(&sched->hungry, bit);
	for (;;) {
		for (int i = 0; i < SCHED_SPIN && door_is_empty(cx); i++) {
			ck_pr_stall();
		}
		left = until - om_mono_now().ns;
		if (!door_is_empty(cx) || left <= 0) {
			break;
		}
		if (left > SCHED_YIELD_NS) {
			(void)sched_yield(); /* whoever will bring us work may wait for this core */
		}
	}
	/* ck_ec: the count first, then the last look, then the sleep (invariant 2). */
	mark = ck_ec32_value(&cx->wake->ec);
	if (door_is_empty(cx) && ck_pr_load_32(&sched->quit) == 0) {
		cx->n.parks++;
		(void)ck_ec32_wait(&cx->wake->ec, &ec_mode_forever, mark, NULL);
	}
	ck_pr_and_64(&sched->hungry, ~bit);
	cx->window = 1;
	cx->window_left = 1;
	cx->window_ops = cx->n.handled + cx->n.sent + cx->n.spawned;
	cx->tsc = sched_tsc();
	om_sched_busy(cx->sys);
}

void *
om_sched_worker_main(void *arg)
{
	struct om_ctx *cx = arg;
	struct om_sched *sched = cx->sys->sched;
	struct om_actor *a;

	om_tls_ctx = cx;
	ck_pr_store_32(&sched->tid[cx->index], (uint32_t)gettid());
	om_sched_busy(cx->sys); /* there may be work before we are idle for the first time */
	while (ck_pr_load_32(&sched->quit) == 0) {
		if (om_unlikely(!door_is_empty(cx))) {
			(void)om_sched_take_inject(cx);
		}
		a = runq_pop(cx);
		if (om_unlikely(a == NULL)) {
			worker_idle(cx);
			continue;
		}
		run_actor(cx, a, OM_RUN_BUDGET);
		if (om_unlikely(--cx->window_left == 0)) {
			worker_measure(cx);
		}
	}
	ck_pr_store_ptr(&cx->self, NULL); /* the watchdog asks no thread that has ended */
	om_tls_ctx = NULL;
	(void)pthread_mutex_lock(&sched->ends_lock);
	sched->workers_live--;
	(void)pthread_cond_broadcast(&sched->ends_cond);
	(void)pthread_mutex_unlock(&sched->ends_lock);
	return NULL;
}
