/* SPDX-License-Identifier: ISC */
/*
 * A job that stands still: its VM is suspended, and so is the clock of its time limit.
 *
 * 1. One suspend or resume is under way at a time (`pause_busy`); what is wanted is looked at again
 *    when it is done.  If broken: a resume overtakes a suspend, and the job stands still for ever.
 * 2. A stop with a grace period needs a guest that runs: it waits for the resume (`stop_waits`).  A stop
 *    without one kills the VM as it is.  If broken: a cancelled job never ends.
 * 3. Only the script's own time stands still: provisioning and boot go on, and the pause begins when
 *    the script does.
 * 4. The clock stands still only while the VM is known to: from the end of the suspend to the beginning
 *    of the resume.  If broken: a hypervisor that hangs gives a job time without a limit.
 */
#include <stdio.h>
#include <stdlib.h>
#include "actors/job_run_impl.h"
#include "actors/names.h"
#include "base/log.h"

struct pause_work {
	struct om_vm_driver driver;
	char name[OM_VM_NAME_MAX + 1];
	bool suspend;
	struct om_why why;
};

static void pause_look(struct om_ctx *cx, struct run *run);

static enum om_err
pause_work(void *arg)
{
	struct pause_work *w = arg;

	return w->suspend ? w->driver.ops->suspend(w->driver.state, w->name, &w->why)
			  : w->driver.ops->resume(w->driver.state, w->name, &w->why);
}

static void
clock_stop(struct om_ctx *cx, struct run *run)
{
	const struct om_mono now = om_now(cx);

	om_timer_cancel(cx, run->runtime_timer);
	run->runtime_timer = 0;
	run->paused_at = now;
	run->runtime_left_ms = run->runtime_until.ns > now.ns
				   ? (uint64_t)(run->runtime_until.ns - now.ns) / OM_NS_PER_MS + 1
				   : 1;
}

static void
clock_start(struct om_ctx *cx, struct run *run)
{
	if (!run->ended && !run->exited) {
		run_clock(cx, run, run->runtime_left_ms);
	}
}

static void
pause_record(struct om_ctx *cx, struct run *run)
{
	struct om_ledger_place m = { 0 };

	OM_SET(&m, ledger_place, job, om_str_of(run->job.text));
	OM_SET(&m, ledger_place, paused, run->suspended);
	OM_SET(&m, ledger_place, reason, om_str_of(run->suspended ? "quiet_hours" : ""));
	OM_SET(&m, ledger_place, text,
	       run->suspended ? run_clean_text(run->pause_text) : OM_STR(""));
	run_write(cx, run, OM_MSG_LEDGER_PLACE, &m, false);
}

/* The VM is suspended, or it runs again. */
static void
pause_took_effect(struct om_ctx *cx, struct run *run, bool suspended)
{
	run->suspended = suspended;
	if (suspended) {
		clock_stop(cx, run);
	} else if (!run->exited) {
		run->paused_ns += om_now(cx).ns - run->paused_at.ns;
	}
	pause_record(cx, run);
}

/* It stands still for good. */
static void
pause_give_up(struct om_ctx *cx, struct run *run, const char *why)
{
	run->stop_waits = false;
	if (run->ended) {
		run_stop_guest(cx, run, 0);
	} else {
		run_end(cx, run, OM_JOB_FAILED, "vm_resume", 0,
			"it was paused and could not go on: %s", why);
	}
}

static void
pause_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct run *run = state;
	struct pause_work *w = arg;

	run->pause_busy = false;
	if (result == OM_OK && !run->unwinding) {
		pause_took_effect(cx, run, w->suspend);
	} else if (result != OM_OK) {
		om_warn("job.pause", "%s is not %s: %s", run->job.text,
			w->suspend ? "paused" : "resumed", w->why.text);
		run->pause_wanted = false; /* not again and again */
	}
	if (result != OM_OK && !w->suspend && !run->unwinding) {
		pause_give_up(cx, run, w->why.text);
	} else {
		pause_look(cx, run);
	}
	free(w);
}

static void
pause_start(struct om_ctx *cx, struct run *run, bool suspend)
{
	struct pause_work *w = calloc(1, sizeof(*w));

	if (w == NULL) {
		om_fail(cx, OM_ERR_NOMEM);
		return;
	}
	w->driver = *run->conf->driver;
	w->suspend = suspend;
	(void)snprintf(w->name, sizeof(w->name), "%s", run->vm_name);
	if (!suspend) {
		clock_start(cx, run);
	}
	if (om_offload_to(cx, OM_POOL_VM, pause_work, w, pause_done, free) != OM_OK) {
		free(w);
		om_fail(cx, OM_ERR_NOMEM);
		return;
	}
	run->pause_busy = true;
}

/* Does what comes next: suspend, resume, or the stop that has waited for the resume. */
static void
pause_look(struct om_ctx *cx, struct run *run)
{
	const bool may = run->started && !run->exited && !run->ended && !run->unwinding;

	if (run->pause_busy || run->unwinding) {
		return;
	}
	if (may && run->pause_wanted && !run->suspended) {
		pause_start(cx, run, true);
	} else if (run->suspended && !(may && run->pause_wanted)) {
		pause_start(cx, run, false);
	} else if (run->stop_waits) {
		run->stop_waits = false;
		run_stop_guest(cx, run, run->stop_grace_ms);
	}
}

void
run_pause(struct om_ctx *cx, struct run *run, bool on, const char *text)
{
	run->pause_wanted = on;
	(void)snprintf(run->pause_text, sizeof(run->pause_text), "%s", text);
	pause_look(cx, run);
}

void
run_pause_started(struct om_ctx *cx, struct run *run)
{
	pause_look(cx, run);
}

bool
run_pause_defers_stop(struct om_ctx *cx, struct run *run, uint32_t grace_ms)
{
	if (grace_ms == 0 || (!run->suspended && !run->pause_busy)) {
		return false;
	}
	run->stop_waits = true;
	run->stop_grace_ms = grace_ms;
	pause_look(cx, run);
	return true;
}

uint64_t
run_ran_ms(const struct run *run)
{
	int64_t ns = run->exited_at.ns - run->started_at.ns - run->paused_ns;

	if (run->suspended && run->exited_at.ns > run->paused_at.ns) {
		/* It was ended while it stood still. */
		ns -= run->exited_at.ns - run->paused_at.ns;
	}
	return ns > 0 ? (uint64_t)ns / OM_NS_PER_MS : 0;
}
