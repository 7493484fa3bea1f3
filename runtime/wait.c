/* SPDX-License-Identifier: ISC */
/*
 * Sleeping and being woken: the event counts' futex, words that several threads look at, and those
 * who wait for the end of an actor or for room in a mailbox.
 *
 * The two sleepers count themselves before they look; who makes true what they wait for looks at the
 * count after it.  An event that nobody waits for costs one load.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "runtime/scheduler_impl.h"

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

/* ck_ec looks a hundred times before it sleeps: whoever wants to spin has done so. */
const struct ck_ec_ops om_ec_ops = {
	.gettime = ec_gettime, .wait32 = ec_wait, .wake32 = ec_wake, .busy_loop_iter = 1
};
const struct ck_ec_ops om_ec_ops_forever = {
	.gettime = ec_gettime, .wait32 = ec_wait_forever, .wake32 = ec_wake, .busy_loop_iter = 1
};

/* --- shared words --------------------------------------------------------------------------------- */

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
	const struct om_actor *a;
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
	ended = ended || !om_actor_is(sys, id);
	a = om_actor_at(sys, id);
	if (ended && a != NULL) {
		ck_pr_fence_acquire(); /* pairs with om_mbox_close: the end, then what came before it */
		om_tsan_acquire(&a->life);
	}
	return ended;
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
