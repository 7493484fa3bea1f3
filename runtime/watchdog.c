/* SPDX-License-Identifier: ISC */
/*
 * The watchdog: which worker has been inside one handler for longer than the actor's budget?  The
 * I/O thread looks at what the workers write anyway, so a worker pays nothing for it; when no worker
 * has had work for a while the watchdog sleeps too (invariant 3 of scheduler.c).
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "runtime/scheduler_impl.h"

#define SCHED_QUIET_TICKS 20 /* watchdog ticks without work before the watchdog sleeps too */

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

/* Changes with each handler that returns, also by OM_AGAIN. */
uint64_t
om_sched_call(const struct om_ctx *cx)
{
	return ck_pr_load_64(&cx->n.handled) + ck_pr_load_64(&cx->n.again) + 1;
}

/* Any thread.  The watchdog and the worker itself may both notice; one of them speaks. */
bool
om_sched_tell(struct om_ctx *cx, uint64_t call)
{
	uint64_t told = ck_pr_load_64(&cx->told);

	return told != call && ck_pr_cas_64(&cx->told, told, call);
}

/*
 * The I/O thread, every OM_WATCHDOG_TICK_MS.  A worker that shows the same actor and the same call
 * in successive ticks is inside one handler.
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
		uint64_t call = om_sched_call(sys->worker[i]);
		const struct om_actor_def *def = a != NULL ? ck_pr_load_ptr(&a->def) : NULL;
		uint64_t us = (uint64_t)w->ticks * OM_WATCHDOG_TICK_MS * 1000;

		om_tsan_acquire(&a->def);
		busy = busy || a != NULL;
		if (a == NULL || def == NULL || a != w->actor || call != w->call) {
			*w = (struct watch_entry){ .actor = a, .call = call };
			continue;
		}
		if (w->ticks++ == 0) {
			w->cpu_ns = watch_cpu_ns(sys, i);
		}
		if (us >= OM_BUDGET_US(def) && !w->reported &&
		    watch_is_stuck(sys, i, w->cpu_ns, OM_BUDGET_US(def))) {
			w->reported = true;
			if (om_sched_tell(sys->worker[i], call)) {
				om_stats_slow(io, a, us);
			}
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
