/* SPDX-License-Identifier: ISC */
/*
 * Deterministic simulation: the same code on one thread.  Each step the generator picks one of the
 * runnable actors, which handles one message, or one of the waiting works, which runs to its end.
 * Time moves only by om_sim_advance, or while a blocking call waits (om_system_ask, _wait, _stop).
 *
 * One message at a time is enough: handlers share nothing, so every real interleaving of handlers
 * equals some order of whole handlers.
 */
#include "runtime/runtime_impl.h"

uint64_t
om_sim_rand(struct om_system *sys)
{
	return om_rng_next(&sys->sim_rng);
}

/* Takes the n-th actor out of the run queue. */
static struct om_actor *
sim_take(struct om_ctx *cx, uint64_t n)
{
	struct om_actor *a = cx->run_head, *before = NULL;

	while (n-- > 0) {
		before = a;
		a = a->run_next;
	}
	cx->run_count--;
	if (before != NULL) {
		before->run_next = a->run_next;
	} else {
		cx->run_head = cx->run_count > 0 ? a->run_next : NULL;
	}
	if (cx->run_tail == a) {
		cx->run_tail = before;
	}
	return a;
}

bool
om_sim_step(struct om_system *sys)
{
	struct om_ctx *cx = sys->worker[0];
	uint64_t works, total, pick;

	OM_ASSERT(sys->sim && om_tls_ctx == NULL);
	(void)om_sched_take_inject(cx);
	works = om_offload_waiting(sys);
	total = cx->run_count + works;
	if (total == 0) {
		/* Real fds, for tests that have some: looked at when nothing else is left. */
		if (!om_io_poll(cx, 0)) {
			return false;
		}
		(void)om_sched_take_inject(cx);
		return true;
	}
	pick = om_sim_rand(sys) % total;
	om_tls_ctx = cx;
	if (pick < cx->run_count) {
		om_sched_run(cx, sim_take(cx, pick), 1);
	} else {
		om_tls_ctx = NULL; /* as on a thread of the pool */
		om_offload_run_nth(sys, pick - cx->run_count);
	}
	om_tls_ctx = NULL;
	cx->self = NULL;
	cx->self_id = 0;
	return true;
}

size_t
om_sim_run(struct om_system *sys)
{
	size_t steps = 0;

	while (om_sim_step(sys)) {
		steps++;
	}
	return steps;
}

/* Moves the clock to the next timer, at most to `until`; false: there is none before it. */
static bool
sim_tick(struct om_system *sys, int64_t until)
{
	int64_t next = om_timer_next(sys);

	if (next < 0 || next > until) {
		sys->sim_now_ns = sys->sim_now_ns > until ? sys->sim_now_ns : until;
		return false;
	}
	sys->sim_now_ns = sys->sim_now_ns > next ? sys->sim_now_ns : next;
	(void)om_timer_fire(sys->worker[0], sys->sim_now_ns);
	return true;
}

void
om_sim_advance(struct om_system *sys, uint64_t ms)
{
	int64_t until = om_ns_after(sys->sim_now_ns, ms);

	do {
		(void)om_sim_run(sys);
	} while (sim_tick(sys, until));
	(void)om_sim_run(sys);
}

/* A blocking call of the test's thread: runs, and lets time pass only when nothing else can. */
bool
om_sim_wait(struct om_system *sys, bool (*done)(struct om_system *sys, void *arg), void *arg,
	    uint64_t timeout_ms)
{
	int64_t until = om_ns_after(sys->sim_now_ns, timeout_ms);

	while (!done(sys, arg)) {
		if (!om_sim_step(sys) && !sim_tick(sys, until)) {
			(void)om_sim_run(sys);
			return done(sys, arg);
		}
	}
	return true;
}
