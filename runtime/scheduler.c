/* SPDX-License-Identifier: ISC */
/*
 * Workers: who runs which actor, and when a thread sleeps.
 *
 * Each worker has a private run queue (a list, no atomics).  Actors come to it in two ways: its own
 * actors made them ready, or another thread left them at its door (struct om_wake: a stack and an
 * event count).  There is no stealing.  A worker that runs dry sets its bit in `hungry`; a busy
 * worker that sees the bit hands over half of its queue, but only when that pays: a message that
 * crosses cores costs some 70 ns, so actors that handle messages in 20 ns are better off together.
 * A lone runnable actor is never moved.
 *
 * Invariants
 * 1. An actor is in at most one run queue or at one door (mailbox.c, invariant 1).
 * 2. Who leaves an actor at a door increments the event count after it; who sleeps on it has read
 *    the count before it looked at the door.  If broken: work waits behind a sleeping thread.
 * 3. An idle system makes no system calls: parked workers have no time-out.
 */
#include "runtime/mailbox_impl.h"
#include <ck_ec.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"

#define SCHED_PAYS_CYCLES     400	 /* an operation dearer than this may cross to another core */
#define SCHED_CHEAP_CYCLES    100	 /* one cheaper than this only if somebody waits very long */
#define SCHED_WAIT_CYCLES     250000	 /* about 100 us: so long may a runnable actor wait */
#define SCHED_WAIT_MAX_CYCLES (500 * SCHED_WAIT_CYCLES)
#define SCHED_SPIN            16 /* looks between two offers of the core: half a microsecond */
#define SCHED_WINDOW_MAX      64 /* runs between two looks at the clock */
#define SCHED_WINDOW_CYCLES   50000
#define SCHED_HANDOVER_MAX    256
#define SCHED_QUIET_TICKS     20 /* watchdog ticks without work before the watchdog sleeps too */

struct om_wake {
	uint64_t inject; /* shared: struct om_actor *, newest first, linked by run_next */
	struct ck_ec32 ec;
} __attribute__((aligned(OM_CACHE_LINE)));

struct watch_entry {
	const struct om_actor *actor;
	uint64_t handled;
	uint64_t cpu_ns; /* of the worker's thread, when the handler was first seen */
	uint32_t ticks;
	bool reported;
};

struct om_detached {
	struct om_detached *next;
	pthread_t thread;
	struct om_ctx *cx;
};

struct om_sched {
	uint64_t hungry; /* shared: one bit a worker */
	uint32_t quit; /* shared */
	uint32_t awake; /* shared: the watchdog ticks */
	uint32_t end_waiters, room_waiters; /* shared */
	struct ck_ec32 ended __attribute__((aligned(OM_CACHE_LINE)));
	struct ck_ec32 room;
	unsigned started;
	pthread_t threads[OM_WORKER_MAX];
	uint32_t tid[OM_WORKER_MAX]; /* shared */
	struct watch_entry watch[OM_WORKER_MAX];
	uint32_t quiet_ticks;
	pthread_mutex_t detached_lock;
	pthread_cond_t detached_cond;
	struct om_detached *detached_done, *detached_spare;
	unsigned detached_live;
};

__thread struct om_ctx *om_tls_ctx __attribute__((tls_model("initial-exec")));

/* --- event counts -------------------------------------------------------------------------------- */

static int
ec_gettime(const struct ck_ec_ops *ops, struct timespec *out)
{
	(void)ops;
	return clock_gettime(CLOCK_MONOTONIC, out);
}

static void
ec_wait(const struct ck_ec_wait_state *state, const uint32_t *word, uint32_t expected,
	const struct timespec *deadline)
{
	(void)state;
	(void)syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, deadline,
		      NULL, FUTEX_BITSET_MATCH_ANY);
}

/* ck_ec probes now and then (for its single-producer mode, which we do not use): invariant 3. */
static void
ec_wait_forever(const struct ck_ec_wait_state *state, const uint32_t *word, uint32_t expected,
		const struct timespec *deadline)
{
	(void)deadline;
	ec_wait(state, word, expected, NULL);
}

static void
ec_wake(const struct ck_ec_ops *ops, const uint32_t *word)
{
	(void)ops;
	(void)syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX, NULL, NULL, 0);
}

static const struct ck_ec_ops ec_ops = { .gettime = ec_gettime,
					 .wait32 = ec_wait,
					 .wake32 = ec_wake };
static const struct ck_ec_ops ec_ops_forever = { .gettime = ec_gettime,
						 .wait32 = ec_wait_forever,
						 .wake32 = ec_wake };
static const struct ck_ec_mode ec_mode = { .ops = &ec_ops };
static const struct ck_ec_mode ec_mode_forever = { .ops = &ec_ops_forever };

static inline uint64_t
sched_tsc(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return (uint64_t)om_mono_now().ns;
#endif
}

uint32_t
om_shared_load(const uint32_t *word)
{
	uint32_t v = ck_pr_load_32(word);

	ck_pr_fence_acquire();
	om_tsan_acquire(word);
	return v;
}

void
om_shared_store(uint32_t *word, uint32_t v)
{
	om_tsan_release(word);
	ck_pr_fence_release();
	ck_pr_store_32(word, v);
}

uint32_t
om_shared_add(uint32_t *word, int32_t v)
{
	om_tsan_release(word);
	return ck_pr_faa_32(word, (uint32_t)v) + (uint32_t)v;
}

/* --- run queues ---------------------------------------------------------------------------------- */

static inline void
runq_push(struct om_ctx *cx, struct om_actor *a)
{
	a->run_next = NULL;
	if (cx->run_tail != NULL) {
		cx->run_tail->run_next = a;
	} else {
		cx->run_head = a;
	}
	cx->run_tail = a;
	cx->run_count++;
}

/*
 * The next actor.  Fresh ones go first, the newest before the others: a tree of actors that spawn
 * actors is walked depth first, so it needs memory for its height, not for its width, and a short
 * life is over while it is in the cache.  worker_measure sees to it that nobody starves.
 */
static inline struct om_actor *
runq_pop(struct om_ctx *cx)
{
	struct om_actor *a = cx->fresh;

	if (a != NULL) {
		cx->fresh = a->run_next;
		cx->fresh_count--;
		return a;
	}
	a = cx->run_head;
	if (a != NULL) {
		cx->run_head = a->run_next;
		if (cx->run_head == NULL) {
			cx->run_tail = NULL;
		}
		cx->run_count--;
	}
	return a;
}

/* Any thread.  Leaves a chain first..last at a door and wakes who sleeps behind it. */
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

/* Which worker should run an actor that a thread without a run queue made ready. */
static struct om_ctx *
sched_pick(struct om_system *sys, const struct om_actor *a)
{
	uint64_t hungry = ck_pr_load_64(&sys->sched->hungry);
	unsigned last = a->worker < sys->workers ? a->worker : 0;

	if (hungry == 0 || (hungry >> last & 1) != 0) {
		return sys->worker[last];
	}
	return sys->worker[__builtin_ctzll(hungry)];
}

/* The caller has cleared the idle bit, or made the actor: it must run. */
void
om_sched_ready(struct om_ctx *cx, struct om_actor *a)
{
	if (om_unlikely((a->limit & OM_LIMIT_DETACHED) != 0 && !cx->sys->sim)) {
		wake_leave(a->ext->detached->cx->wake, a, a);
		return;
	}
	if (om_likely(cx->kind == OM_CTX_WORKER)) {
		runq_push(cx, a);
		return;
	}
	cx->n.wakes++;
	wake_leave(sched_pick(cx->sys, a)->wake, a, a);
}

/* The caller has just made the actor. */
void
om_sched_spawned(struct om_ctx *cx, struct om_actor *a)
{
	if (cx->kind != OM_CTX_WORKER || cx->sys->sim || (a->limit & OM_LIMIT_DETACHED) != 0) {
		om_sched_ready(cx, a);
		return;
	}
	if (cx->fresh == NULL) {
		cx->fresh_last = a;
	}
	a->run_next = cx->fresh;
	cx->fresh = a;
	cx->fresh_count++;
}

void
om_sched_requeue(struct om_ctx *cx, struct om_actor *a)
{
	runq_push(cx, a);
}

/* --- running an actor ---------------------------------------------------------------------------- */

/* The system lane.  false: the actor has ended, do not touch it. */
static bool
run_sys(struct om_ctx *cx, struct om_actor *a)
{
	struct om_msg *msg;

	while (a->sys_first != NULL || om_mbox_take_sys(a)) {
		msg = a->sys_first;
		a->sys_first = msg->next;
		ck_pr_store_32(&a->sys_left, a->sys_left - 1);
		a->handled++;
		cx->n.handled++;
		om_actor_dispatch_sys(cx, a, msg);
		if (om_unlikely(a->phase == OM_PHASE_NEW) && !om_actor_start(cx, a)) {
			return false;
		}
		if (om_unlikely(cx->leaving)) {
			cx->leaving = false;
			if (om_actor_leave(cx, a, cx->leave_why, cx->leave_ordered)) {
				return false;
			}
		}
		if (cx->sys->sim) {
			return true; /* one message a step */
		}
	}
	return true;
}

static inline bool
run_pull(struct om_ctx *cx, struct om_actor *a)
{
	if (om_unlikely((a->limit & OM_LIMIT_LOCKED) != 0)) {
		return om_mbox_pull_locked(cx->sys, a);
	}
	return mbox_pull(a);
}

/*
 * One turn of an actor: the system lane first, then up to `budget` messages of the user lane.  It
 * ends idle, or in the run queue again, or ended.  After om_mbox_rest or om_actor_leave said true
 * the actor is not ours: another thread may run it already.
 */
void
om_sched_run(struct om_ctx *cx, struct om_actor *a, uint32_t budget)
{
	struct om_msg *msg;

	cx->self = a;
	cx->self_id = (ck_pr_load_64(&a->life) >> OM_SLOT_BITS) << OM_SLOT_BITS |
	    om_actor_slot(cx->sys, a);
	cx->yield = false;
	a->worker = cx->index;
	if (om_unlikely(a->phase == OM_PHASE_NEW) && !om_actor_start(cx, a)) {
		return;
	}
	for (;;) {
		uint64_t order, life;

		if (om_unlikely(ck_pr_load_64(&a->sys) != 0 || a->sys_first != NULL)) {
			if (!run_sys(cx, a)) {
				return;
			}
			if (cx->sys->sim) {
				break;
			}
		}
		life = ck_pr_load_64(&a->life);
		if (om_unlikely((life & OM_LIFE_CTL) != 0) &&
		    (order = om_mbox_order(a, life)) != 0) {
			if (order == OM_LIFE_STOP && om_actor_drains(cx, a)) {
				if (!cx->leaving) { /* it may end at once after all */
					continue;
				}
				cx->leaving = false;
			}
			if (om_actor_leave(cx, a, order == OM_LIFE_KILL ? OM_ERR_CANCELLED : OM_OK,
					   true)) {
				return;
			}
			continue;
		}
		if (om_unlikely(a->phase == OM_PHASE_SUSPENDED)) {
			if (om_mbox_rest(a, true)) {
				return;
			}
			continue;
		}
		msg = a->first;
		if (msg == NULL) {
			if (run_pull(cx, a)) {
				continue;
			}
			if (om_mbox_rest(a, false)) {
				return;
			}
			continue;
		}
		if (budget-- == 0 || cx->yield) {
			break;
		}
		a->first = msg->next;
		if (om_unlikely(!om_actor_dispatch(cx, a, msg))) {
			msg->next = a->first; /* OM_AGAIN */
			a->first = msg;
			if (!cx->leaving) {
				break;
			}
		} else {
			ck_pr_store_32(&a->taken, a->taken + 1);
			a->handled++;
			cx->n.handled++;
		}
		if (om_unlikely((a->limit & OM_LIMIT_BLOCK) != 0)) {
			om_sched_room_made(cx->sys);
		}
		if (om_unlikely(cx->leaving)) {
			cx->leaving = false;
			if (om_actor_leave(cx, a, cx->leave_why, false)) {
				return;
			}
		}
	}
	runq_push(cx, a);
}

/* --- workers ------------------------------------------------------------------------------------- */

static bool
door_is_empty(const struct om_ctx *cx)
{
	return ck_pr_load_64(&cx->wake->inject) == 0;
}

/* Gives the older half of our queue to a worker that has nothing. */
static void
worker_hand_over(struct om_ctx *cx, uint64_t hungry)
{
	struct om_ctx *to = cx->sys->worker[__builtin_ctzll(hungry)];
	struct om_actor *first, *last;
	uint32_t n = cx->run_count / 2;

	if (n == 0 || !door_is_empty(to)) {
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
	if (cx->run_tail != NULL) {
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

	bool pays = worker_pays(cycles, done, cycles / cx->window * waiting);

	/* Twice in a row: once may be a cold cache, or a moment without a CPU. */
	if (pays && cx->paid && hungry != 0 && waiting >= 2) {
		worker_mix_fresh(cx);
		worker_hand_over(cx, hungry);
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

/* Nothing to do: say so, wait a moment, then sleep until somebody comes to the door. */
static void
worker_idle(struct om_ctx *cx)
{
	struct om_sched *sched = cx->sys->sched;
	uint64_t bit = UINT64_C(1) << cx->index;
	int64_t until = om_mono_now().ns + (int64_t)cx->sys->spin_us * 1000;
	uint32_t mark;

	cx->self = NULL;
	ck_pr_or_64(&sched->hungry, bit);
	for (;;) {
		for (int i = 0; i < SCHED_SPIN && door_is_empty(cx); i++) {
			ck_pr_stall();
		}
		if (!door_is_empty(cx) || om_mono_now().ns >= until) {
			break;
		}
		(void)sched_yield(); /* whoever will bring us work may wait for this very core */
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

static void *
worker_main(void *arg)
{
	struct om_ctx *cx = arg;
	struct om_sched *sched = cx->sys->sched;
	struct om_actor *a;

	om_tls_ctx = cx;
	ck_pr_store_32(&sched->tid[cx->index], (uint32_t)gettid());
	while (ck_pr_load_32(&sched->quit) == 0) {
		if (om_unlikely(!door_is_empty(cx))) {
			(void)om_sched_take_inject(cx);
		}
		a = runq_pop(cx);
		if (om_unlikely(a == NULL)) {
			worker_idle(cx);
			continue;
		}
		om_sched_run(cx, a, OM_RUN_BUDGET);
		if (om_unlikely(--cx->window_left == 0)) {
			worker_measure(cx);
		}
	}
	om_tls_ctx = NULL;
	return NULL;
}

/* --- detached actors ------------------------------------------------------------------------------- */

static void *
detached_main(void *arg)
{
	struct om_detached *d = arg;
	struct om_ctx *cx = d->cx;
	struct om_sched *sched = cx->sys->sched;
	struct om_actor *a;
	uint32_t mark;

	om_tls_ctx = cx;
	while (!cx->quit) {
		mark = ck_ec32_value(&cx->wake->ec);
		(void)om_sched_take_inject(cx);
		a = runq_pop(cx);
		if (a != NULL) {
			om_sched_run(cx, a, OM_RUN_BUDGET);
		} else {
			(void)ck_ec32_wait(&cx->wake->ec, &ec_mode_forever, mark, NULL);
		}
	}
	om_tls_ctx = NULL;
	(void)pthread_mutex_lock(&sched->detached_lock);
	d->next = sched->detached_done;
	sched->detached_done = d;
	sched->detached_live--;
	(void)pthread_cond_broadcast(&sched->detached_cond);
	(void)pthread_mutex_unlock(&sched->detached_lock);
	return NULL;
}

/*
 * Joins threads whose actors have ended.  Their contexts are kept for the next detached actors and
 * never freed before the system: a sender may still be inside ck_ec32_inc of the door.
 */
void
om_detached_reap(struct om_system *sys)
{
	struct om_sched *sched = sys->sched;
	struct om_detached *d;

	(void)pthread_mutex_lock(&sched->detached_lock);
	while ((d = sched->detached_done) != NULL) {
		sched->detached_done = d->next;
		(void)pthread_mutex_unlock(&sched->detached_lock);
		(void)pthread_join(d->thread, NULL);
		(void)pthread_mutex_lock(&sched->detached_lock);
		d->next = sched->detached_spare;
		sched->detached_spare = d;
	}
	(void)pthread_mutex_unlock(&sched->detached_lock);
}

/* Makes the thread that will run the (not yet opened) actor. */
enum om_err
om_detached_start(struct om_ctx *cx, struct om_actor *a)
{
	struct om_sched *sched = cx->sys->sched;
	struct om_detached *d;

	if (cx->sys->sim) {
		return OM_OK;
	}
	om_detached_reap(cx->sys);
	(void)pthread_mutex_lock(&sched->detached_lock);
	d = sched->detached_spare;
	if (d != NULL) {
		sched->detached_spare = d->next;
	}
	(void)pthread_mutex_unlock(&sched->detached_lock);
	if (d == NULL) {
		d = calloc(1, sizeof(*d));
		if (d == NULL) {
			return OM_ERR_NOMEM;
		}
		d->cx = om_ctx_new(cx->sys, OM_CTX_DETACHED, UINT8_MAX);
		if (d->cx == NULL) {
			free(d);
			return OM_ERR_NOMEM;
		}
	}
	d->cx->quit = false;
	a->ext->detached = d;
	(void)pthread_mutex_lock(&sched->detached_lock);
	sched->detached_live++;
	(void)pthread_mutex_unlock(&sched->detached_lock);
	if (pthread_create(&d->thread, NULL, detached_main, d) != 0) {
		(void)pthread_mutex_lock(&sched->detached_lock);
		sched->detached_live--;
		d->next = sched->detached_spare;
		sched->detached_spare = d;
		(void)pthread_mutex_unlock(&sched->detached_lock);
		return OM_ERR_NOMEM;
	}
	return OM_OK;
}

/* --- contexts and life of the pool of workers -------------------------------------------------------- */

struct om_ctx *
om_ctx_new(struct om_system *sys, enum om_ctx_kind kind, unsigned index)
{
	size_t size = (sizeof(struct om_ctx) + OM_CACHE_LINE - 1) & ~(size_t)(OM_CACHE_LINE - 1);
	struct om_ctx *cx = aligned_alloc(OM_CACHE_LINE, size + sizeof(struct om_wake));

	if (cx == NULL) {
		return NULL;
	}
	memset(cx, 0, size + sizeof(struct om_wake));
	cx->sys = sys;
	cx->kind = (uint8_t)kind;
	cx->index = (uint8_t)index;
	cx->wake = (struct om_wake *)(void *)((char *)cx + size);
	ck_ec32_init(&cx->wake->ec, 0);
	cx->window = 1;
	cx->window_left = 1;
	cx->sample = 64;
	cx->rng = (sys->sim ? om_sim_rand(sys) : sched_tsc()) + index;
	/* Contexts are never taken out of the list before the system is freed. */
	cx->next_ctx = ck_pr_load_ptr(&sys->contexts);
	do {
		ck_pr_fence_release(); /* the context before it can be found: om_ctx_first */
		om_tsan_release(&sys->contexts);
	} while (!ck_pr_cas_ptr_value(&sys->contexts, cx->next_ctx, cx, (void *)&cx->next_ctx));
	return cx;
}

/* Any thread.  All contexts there are, linked by next_ctx. */
struct om_ctx *
om_ctx_first(struct om_system *sys)
{
	struct om_ctx *cx = ck_pr_load_ptr(&sys->contexts);

	ck_pr_fence_acquire();
	om_tsan_acquire(&sys->contexts);
	return cx;
}

void
om_ctx_free(struct om_ctx *cx)
{
	free(cx);
}

enum om_err
om_sched_init(struct om_system *sys)
{
	struct om_sched *sched = aligned_alloc(OM_CACHE_LINE, (sizeof(*sched) + OM_CACHE_LINE - 1) &
								  ~(size_t)(OM_CACHE_LINE - 1));

	if (sched == NULL) {
		return OM_ERR_NOMEM;
	}
	memset(sched, 0, sizeof(*sched));
	ck_ec32_init(&sched->ended, 0);
	ck_ec32_init(&sched->room, 0);
	(void)pthread_mutex_init(&sched->detached_lock, NULL);
	(void)pthread_cond_init(&sched->detached_cond, NULL);
	sys->sched = sched;
	sys->worker = calloc(sys->workers, sizeof(struct om_ctx *));
	if (sys->worker == NULL) {
		return OM_ERR_NOMEM;
	}
	for (unsigned i = 0; i < sys->workers; i++) {
		sys->worker[i] = om_ctx_new(sys, OM_CTX_WORKER, i);
		if (sys->worker[i] == NULL) {
			return OM_ERR_NOMEM;
		}
	}
	return OM_OK;
}

enum om_err
om_sched_start(struct om_system *sys)
{
	for (unsigned i = 0; i < sys->workers; i++) {
		if (pthread_create(&sys->sched->threads[i], NULL, worker_main, sys->worker[i]) !=
		    0) {
			return OM_ERR_NOMEM;
		}
		sys->sched->started++;
	}
	return OM_OK;
}

/*
 * Ends the threads.  false: a worker or a detached actor is stuck in a handler after grace_ms; its
 * thread goes on and the system's memory must stay.
 */
bool
om_sched_stop(struct om_system *sys, uint64_t grace_ms)
{
	struct om_sched *sched = sys->sched;
	struct timespec until;
	bool clean = true;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(grace_ms / 1000);
	until.tv_nsec += (long)(grace_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_mutex_lock(&sched->detached_lock);
	while (sched->detached_live > 0 && clean) {
		clean = pthread_cond_timedwait(&sched->detached_cond, &sched->detached_lock,
					       &until) == 0;
	}
	(void)pthread_mutex_unlock(&sched->detached_lock);
	om_detached_reap(sys);
	ck_pr_store_32(&sched->quit, 1);
	ck_pr_fence_memory();
	for (unsigned i = 0; i < sched->started; i++) {
		ck_ec32_inc(&sys->worker[i]->wake->ec, &ec_mode_forever);
	}
	while (sched->started > 0) {
		if (pthread_timedjoin_np(sched->threads[sched->started - 1], NULL, &until) != 0) {
			return false;
		}
		sched->started--;
	}
	return clean;
}

void
om_sched_fini(struct om_system *sys)
{
	struct om_sched *sched = sys->sched;

	for (unsigned i = 0; sys->worker != NULL && i < sys->workers; i++) {
		om_ctx_free(sys->worker[i]);
	}
	free(sys->worker);
	if (sched == NULL) {
		return;
	}
	while (sched->detached_spare != NULL) {
		struct om_detached *d = sched->detached_spare;

		sched->detached_spare = d->next;
		om_ctx_free(d->cx);
		free(d);
	}
	(void)pthread_mutex_destroy(&sched->detached_lock);
	(void)pthread_cond_destroy(&sched->detached_cond);
	free(sched);
}

/* --- waiting for the end of an actor, and for room in a mailbox ------------------------------------- */

void
om_sched_ended(struct om_system *sys)
{
	/*
	 * Order: the life word of the ended actor before our look at the waiters.  Pairs with
	 * om_sched_wait_ended (waiters, then life).  Without it a waiter sleeps until its deadline.
	 */
	ck_pr_fence_atomic_load(); /* the exchange of head in om_mbox_close lies between */
	if (om_unlikely(ck_pr_load_32(&sys->sched->end_waiters) != 0)) {
		ck_ec32_inc(&sys->sched->ended, &ec_mode);
	}
}

bool
om_sched_wait_ended(struct om_system *sys, uint64_t id, int64_t deadline_ns)
{
	struct om_sched *sched = sys->sched;
	struct timespec deadline = { .tv_sec = (time_t)(deadline_ns / OM_NS_PER_S),
				     .tv_nsec = (long)(deadline_ns % OM_NS_PER_S) };
	bool ended;
	uint32_t mark;

	ck_pr_inc_32(&sched->end_waiters);
	for (;;) {
		mark = ck_ec32_value(&sched->ended);
		ended = !om_actor_is(sys, id);
		if (ended || ck_ec32_wait(&sched->ended, &ec_mode, mark, &deadline) != 0) {
			break;
		}
	}
	ck_pr_dec_32(&sched->end_waiters);
	return ended || !om_actor_is(sys, id);
}

uint32_t
om_sched_room_mark(struct om_system *sys)
{
	ck_pr_inc_32(&sys->sched->room_waiters);
	return ck_ec32_value(&sys->sched->room);
}

/* wait false: there was room after all. */
void
om_sched_room_wait(struct om_system *sys, uint32_t mark, bool wait)
{
	if (wait) {
		(void)ck_ec32_wait(&sys->sched->room, &ec_mode_forever, mark, NULL);
	}
	ck_pr_dec_32(&sys->sched->room_waiters);
}

void
om_sched_room_made(struct om_system *sys)
{
	ck_pr_fence_memory(); /* `taken` or life before the waiters: pairs with om_sched_room_mark */
	if (ck_pr_load_32(&sys->sched->room_waiters) != 0) {
		ck_ec32_inc(&sys->sched->room, &ec_mode_forever);
	}
}

/* --- watchdog ---------------------------------------------------------------------------------------- */

static uint64_t
watch_cpu_ns(const struct om_system *sys, unsigned i)
{
	struct timespec t = { 0 };
	clockid_t clock;

	if (pthread_getcpuclockid(sys->sched->threads[i], &clock) != 0 ||
	    clock_gettime(clock, &t) != 0) {
		return 0;
	}
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* A worker has work: the watchdog must tick. */
void
om_sched_busy(struct om_system *sys)
{
	if (om_unlikely(ck_pr_load_32(&sys->sched->awake) == 0) &&
	    ck_pr_fas_32(&sys->sched->awake, 1) == 0) {
		om_io_poke(sys);
	}
}

/*
 * Is the worker inside a handler, or only without a CPU since `cpu_ns`?  A thread that waits to run
 * is in state R and makes no progress: that is the machine's load, not the handler's fault.
 */
static bool
watch_is_stuck(const struct om_system *sys, unsigned i, uint64_t cpu_ns, uint64_t budget_us)
{
	char path[64], text[512];
	const char *state;
	FILE *f;
	size_t n;

	if (watch_cpu_ns(sys, i) - cpu_ns >= budget_us * 1000 / 2) {
		return true;
	}
	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat",
		       (int)ck_pr_load_32(&sys->sched->tid[i]));
	f = fopen(path, "re");
	if (f == NULL) {
		return true;
	}
	n = fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	state = strrchr(text, ')'); /* "tid (name) S ..." */
	return state == NULL || state[1] == '\0' || state[2] != 'R';
}

/*
 * The I/O thread, every OM_WATCHDOG_TICK_MS.  A worker that shows the same actor and the same count
 * of handled messages in successive ticks is inside one handler.
 */
bool
om_sched_watchdog(struct om_ctx *io)
{
	struct om_system *sys = io->sys;
	struct om_sched *sched = sys->sched;
	bool busy = false;

	if (ck_pr_load_32(&sched->awake) == 0) {
		return false;
	}
	for (unsigned i = 0; i < sys->workers; i++) {
		struct watch_entry *w = &sched->watch[i];
		const struct om_actor *a = ck_pr_load_ptr(&sys->worker[i]->self);
		uint64_t handled = ck_pr_load_64(&sys->worker[i]->n.handled);
		const struct om_actor_def *def = a != NULL ? ck_pr_load_ptr(&a->def) : NULL;
		uint64_t us = (uint64_t)w->ticks * OM_WATCHDOG_TICK_MS * 1000;

		om_tsan_acquire(&a->def);
		busy = busy || a != NULL;
		if (a == NULL || def == NULL || a != w->actor || handled != w->handled) {
			*w = (struct watch_entry){ .actor = a, .handled = handled };
			continue;
		}
		if (w->ticks++ == 0) {
			w->cpu_ns = watch_cpu_ns(sys, i);
		}
		if (us >= OM_BUDGET_US(def) && !w->reported &&
		    watch_is_stuck(sys, i, w->cpu_ns, OM_BUDGET_US(def))) {
			w->reported = true;
			om_stats_slow(io, a, us);
		}
	}
	sched->quiet_ticks = busy ? 0 : sched->quiet_ticks + 1;
	if (sched->quiet_ticks < SCHED_QUIET_TICKS) {
		return true;
	}
	sched->quiet_ticks = 0;
	ck_pr_store_32(&sched->awake, 0);
	/*
	 * Order: asleep before the last look at who is busy.  Pairs with worker_idle, which clears its
	 * hungry bit (a locked instruction) before it looks at `awake`.  Without it a worker runs
	 * unwatched until it is idle again.
	 */
	ck_pr_fence_memory();
	if (sys->workers - (unsigned)__builtin_popcountll(ck_pr_load_64(&sched->hungry)) != 0) {
		om_sched_busy(sys);
	}
	return ck_pr_load_32(&sched->awake) != 0;
}

/* --- ports: where foreign threads wait for answers ----------------------------------------------------- */

enum { PORT_FREE, PORT_WAIT, PORT_CLAIM, PORT_DONE };
#define PORT_STATE_BITS 2
#define PORT_INDEX_BITS 16

struct om_port {
	uint64_t word; /* shared: number of the request << 2 | state */
	struct om_msg *answer; /* written between CLAIM and DONE */
	struct om_port *next; /* free list, under foreign_lock */
	struct ck_ec32 ec;
} __attribute__((aligned(OM_CACHE_LINE)));

enum om_err
om_port_init(struct om_system *sys)
{
	sys->ports = aligned_alloc(OM_CACHE_LINE, OM_PORT_MAX * sizeof(struct om_port));
	if (sys->ports == NULL) {
		return OM_ERR_NOMEM;
	}
	memset(sys->ports, 0, OM_PORT_MAX * sizeof(struct om_port));
	for (unsigned i = 0; i < OM_PORT_MAX; i++) {
		ck_ec32_init(&sys->ports[i].ec, 0);
		sys->ports[i].next = i + 1 < OM_PORT_MAX ? &sys->ports[i + 1] : NULL;
	}
	sys->port_free = sys->ports;
	return OM_OK;
}

/* The calling thread holds foreign_lock. */
struct om_port *
om_port_get(struct om_system *sys, uint64_t *id)
{
	struct om_port *port = sys->port_free;
	uint64_t number;

	if (port == NULL) {
		return NULL;
	}
	sys->port_free = port->next;
	number = (port->word >> PORT_STATE_BITS) + 1;
	port->answer = NULL;
	ck_pr_store_64(&port->word, number << PORT_STATE_BITS | PORT_WAIT);
	*id = OM_PORT_BIT | number << PORT_INDEX_BITS | (uint64_t)(port - sys->ports);
	return port;
}

/* Any thread.  Takes msg on OM_OK; STALE: nobody waits for it any more. */
enum om_err
om_port_answer(struct om_system *sys, uint64_t id, struct om_msg *msg)
{
	uint64_t index = id & ((UINT64_C(1) << PORT_INDEX_BITS) - 1);
	uint64_t number = (id & ~OM_PORT_BIT) >> PORT_INDEX_BITS;
	struct om_port *port = &sys->ports[index];

	if (index >= OM_PORT_MAX ||
	    !ck_pr_cas_64(&port->word, number << PORT_STATE_BITS | PORT_WAIT,
			  number << PORT_STATE_BITS | PORT_CLAIM)) {
		return OM_ERR_STALE;
	}
	port->answer = msg;
	/* Order: the answer before DONE.  Pairs with the acquire fence in om_port_put. */
	ck_pr_fence_release();
	om_tsan_release(port);
	ck_pr_store_64(&port->word, number << PORT_STATE_BITS | PORT_DONE);
	ck_ec32_inc(&port->ec, &ec_mode);
	return OM_OK;
}

bool
om_port_ready(const struct om_port *port)
{
	return (ck_pr_load_64(&port->word) & 3) == PORT_DONE;
}

/* The waiting thread.  false: the deadline has passed. */
bool
om_port_wait(struct om_system *sys, struct om_port *port, int64_t deadline_ns)
{
	struct timespec deadline = { .tv_sec = (time_t)(deadline_ns / OM_NS_PER_S),
				     .tv_nsec = (long)(deadline_ns % OM_NS_PER_S) };
	int64_t spin_until = om_mono_now().ns + (int64_t)sys->spin_us * 1000;
	uint32_t mark;

	while (!om_port_ready(port)) {
		for (int i = 0; i < SCHED_SPIN && !om_port_ready(port); i++) {
			ck_pr_stall();
		}
		if (om_mono_now().ns >= spin_until) {
			break;
		}
		(void)sched_yield(); /* the worker that answers may wait for this very core */
	}
	for (;;) {
		mark = ck_ec32_value(&port->ec);
		if (om_port_ready(port)) {
			return true;
		}
		if (ck_ec32_wait(&port->ec, &ec_mode, mark, &deadline) != 0) {
			return om_port_ready(port);
		}
	}
}

/* The waiting thread: gives the port back and the answer, if one came at the last moment too. */
struct om_msg *
om_port_put(struct om_system *sys, struct om_port *port)
{
	uint64_t word = ck_pr_load_64(&port->word);
	uint64_t number = word >> PORT_STATE_BITS << PORT_STATE_BITS;
	struct om_msg *answer = NULL;

	if (!ck_pr_cas_64(&port->word, number | PORT_WAIT, number | PORT_FREE)) {
		while (!om_port_ready(port)) {
			ck_pr_stall(); /* between CLAIM and DONE: a few instructions */
		}
		ck_pr_fence_acquire();
		om_tsan_acquire(port);
		answer = port->answer;
		ck_pr_store_64(&port->word, number | PORT_FREE);
	}
	(void)pthread_mutex_lock(&sys->foreign_lock);
	port->next = sys->port_free;
	sys->port_free = port;
	(void)pthread_mutex_unlock(&sys->foreign_lock);
	return answer;
}
