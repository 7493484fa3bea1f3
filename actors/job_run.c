/* SPDX-License-Identifier: ISC */
/*
 * The life of one running job: a list of steps walked forward, then back.
 *
 * 1. steps[0..done-1] are done; exactly one step or undo is under way while `busy`.  If broken: an
 *    undo runs twice, or a resource is left.
 * 2. The way back starts when `ended` is set and nothing is busy, never earlier: an answer that is
 *    still to come finds the state it was asked in.
 * 3. The first end wins (run_end); a cancel that meets a timeout does not rewrite history.  Only the
 *    detector's word does, until the end is recorded.
 *
 * The order of the list is the order of the way back: the VM is killed first, then its network is
 * taken away (the last counters come from there), its files are removed, the end is recorded, and
 * only then do we wait for the hypervisor to have tidied up; so a requester does not wait for that.
 * What ends before "record" is recorded last, from `queued` ("end").  If broken: the row stays queued,
 * nobody has it, and the next start of the daemon runs it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "actors/job_run_impl.h"
#include "actors/names.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/secret.h"
#include "msg/codec.h"

struct run_step {
	const char *name;
	void (*enter)(struct om_ctx *cx, struct run *run);
	void (*undo)(struct om_ctx *cx, struct run *run);
};

static void undo_end(struct om_ctx *cx, struct run *run);
static void enter_spec(struct om_ctx *cx, struct run *run);
static void undo_spec(struct om_ctx *cx, struct run *run);
static void enter_nothing(struct om_ctx *cx, struct run *run);
static void undo_nothing(struct om_ctx *cx, struct run *run);
static void enter_record(struct om_ctx *cx, struct run *run);
static void undo_record(struct om_ctx *cx, struct run *run);

static const struct run_step steps[] = {
	{ "end", enter_nothing, undo_end },
	{ "spec", enter_spec, undo_spec },
	{ "teardown", enter_nothing, undo_teardown },
	{ "record", enter_record, undo_record },
	{ "files", enter_files, undo_files },
	{ "network", enter_network, undo_network },
	{ "vm", enter_vm, undo_vm },
	{ "watch", enter_watch, undo_watch },
	{ "boot", enter_boot, undo_boot },
	{ "run", enter_run, undo_nothing },
};
#define STEP_RUN (OM_COUNT(steps) - 1)

static void
run_finish(struct om_ctx *cx, struct run *run)
{
	struct om_jr_done *done = malloc(sizeof(*done));
	struct om_msg *msg = NULL;

	if (done != NULL) {
		*done = (struct om_jr_done){ .job = run->job, .state = run->state };
		msg = om_msg_new_owner(cx, OM_JR_DONE, done, free);
	}
	/* The executor monitors us: should this not arrive, our end does. */
	if (msg == NULL || om_send_urgent(cx, run->executor, &msg) != OM_OK) {
		om_msg_free(cx, msg);
	}
	om_exit(cx);
}

/* Walks until something has to be waited for.  A step that ends at once, inside the walk, only
 * clears `busy` and lets the loop go on. */
static void
run_go(struct om_ctx *cx, struct run *run)
{
	if (run->walking) {
		return;
	}
	run->walking = true;
	while (!run->busy) {
		if (run->ended && !run->unwinding) {
			run->unwinding = true;
			if (!run->exited) {
				run->exited_at = om_now(cx);
			}
			run_flush_rest(cx, run);
		}
		if (run->unwinding && run->done == 0) {
			run_finish(cx, run);
			break;
		}
		run->busy = true;
		if (run->unwinding) {
			steps[run->done - 1].undo(cx, run);
		} else {
			OM_ASSERT(run->done < OM_COUNT(steps));
			steps[run->done].enter(cx, run);
		}
	}
	run->walking = false;
}

void
run_entered(struct om_ctx *cx, struct run *run, enum om_err err, const struct om_why *why)
{
	OM_ASSERT(run->busy && !run->unwinding);
	run->busy = false;
	if (err == OM_OK) {
		run->done++;
		OM_ASSERT(run->done < OM_COUNT(steps) || run->ended);
	} else if (!run->ended) {
		const char *text =
		    why != NULL && why->text[0] != '\0' ? why->text : om_err_text(err);

		run_end(cx, run, OM_JOB_FAILED, om_err_code(err), 0, "%s: %s",
			steps[run->done].name, text);
	}
	run_go(cx, run);
}

void
run_undone(struct om_ctx *cx, struct run *run)
{
	OM_ASSERT(run->busy && run->unwinding && run->done > 0);
	run->busy = false;
	run->done--;
	run_go(cx, run);
}

void
run_end(struct om_ctx *cx, struct run *run, enum om_job_state state, const char *reason,
	uint32_t grace_ms, const char *fmt, ...)
{
	va_list va;

	if (run->ended) {
		return;
	}
	run->ended = true;
	run->state = state;
	(void)snprintf(run->reason, sizeof(run->reason), "%s", reason);
	va_start(va, fmt);
	(void)vsnprintf(run->text, sizeof(run->text), fmt, va);
	va_end(va);

	if (!run->busy) {
		return;
	}
	if (run->done == STEP_RUN && !run->guest_done) {
		/* The guest runs: let it say how it ended, or kill it. */
		run_stop_guest(cx, run, grace_ms);
	} else if (steps[run->done].enter == enter_boot) {
		run_abort_boot(cx, run);
	} else if (steps[run->done].enter == enter_vm) {
		run_abandon_vm(cx, run);
	} else if (run->done < STEP_RUN) {
		/* It ends by itself, and the way back begins then; but no guest may run meanwhile. */
		run_kill_vm(run);
	}
}

void
run_over(struct om_ctx *cx, struct run *run)
{
	OM_ASSERT(run->ended);
	if (run->busy && !run->unwinding && run->done == STEP_RUN) {
		run_entered(cx, run, OM_OK, NULL);
	}
}

static void
enter_nothing(struct om_ctx *cx, struct run *run)
{
	run_entered(cx, run, OM_OK, NULL);
}

static void
undo_nothing(struct om_ctx *cx, struct run *run)
{
	run_undone(cx, run);
}

/* --- the job's body -------------------------------------------------------------------------- */

/* A start that came twice, the second time after the end, must not run the job again. */
static enum om_err
spec_expect_queued(struct run *run, const struct om_ledger_spec *m, struct om_why *why)
{
	enum om_job_state is;

	if (!OM_HAS(m, ledger_spec, info) ||
	    om_job_state_parse(m->info->state.ptr, m->info->state.len, &is) != OM_OK) {
		return om_why_set(why, OM_ERR_INTERNAL, "the ledger does not say its state");
	}
	if (is == OM_JOB_QUEUED) {
		return OM_OK;
	}
	run->ended = run->recorded = true; /* long ago */
	run->state = om_job_is_final(is) ? is : OM_JOB_FAILED;
	om_warn("job.not_queued", "%s: not run: it is %s", run->job.text, om_job_state_text(is));
	return OM_ERR_STATE;
}

static enum om_err
spec_take(struct run *run, const struct om_jr_relayed *a, struct om_why *why)
{
	struct om_ledger_spec *m;
	enum om_err err;

	m = om_arena_alloc(&run->arena, sizeof(*m));
	run->submit = om_arena_alloc(&run->arena, sizeof(*run->submit));
	if (m == NULL || run->submit == NULL) {
		return OM_ERR_NOMEM;
	}
	om_buf_add(&run->spec_raw, a->body.data, a->body.len);
	if (run->spec_raw.failed) {
		return OM_ERR_NOMEM;
	}
	err = om_body_decode(OM_BODY_ledger_spec,
			     (struct om_bin){ run->spec_raw.data, run->spec_raw.len }, m,
			     &run->arena, why);
	if (err == OM_OK) {
		err = spec_expect_queued(run, m, why);
	}
	if (err == OM_OK) {
		err = om_body_decode(OM_BODY_job_submit, m->spec, run->submit, &run->arena, why);
	}
	if (err == OM_OK) {
		err = om_job_spec_from(run->submit, &run->arena, &run->spec, why);
	}
	return err;
}

static void
on_spec(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct om_why why = { "" };
	enum om_err err = a->err;

	if (err == OM_ERR_DISK || err == OM_ERR_TIMEOUT || err == OM_ERR_FULL) {
		run->retry_timer = 0;
		if (!run->ended &&
		    om_timer_start(cx, RUN_RETRY_MS, 0, TIMER_RETRY, &run->retry_timer) == OM_OK) {
			return;
		}
	}
	if (err == OM_OK) {
		err = spec_take(run, a, &why);
	} else {
		why = a->why;
	}
	run_entered(cx, run, err, &why);
}

static void
enter_spec(struct om_ctx *cx, struct run *run)
{
	struct om_job_ref ref = { 0 };
	enum om_err err;

	OM_SET(&ref, job_ref, job, om_str_of(run->job.text));
	err = run_relay(cx, run, OM_LEDGER, OM_MSG_LEDGER_SPEC_GET, &ref, RUN_LEDGER_MS, on_spec);
	if (err != OM_OK) {
		run_entered(cx, run, err, NULL);
	}
}

static void
undo_spec(struct om_ctx *cx, struct run *run)
{
	/* The tunnel's private key may be in it. */
	if (run->spec_raw.data != NULL) {
		om_secret_wipe(run->spec_raw.data, run->spec_raw.cap);
	}
	run_undone(cx, run);
}

/* --- the record ------------------------------------------------------------------------------ */

static void
enter_record(struct om_ctx *cx, struct run *run)
{
	run->provisioning_at = om_now(cx);
	run_write_state(cx, run, OM_JOB_PROVISIONING);
	run_entered(cx, run, OM_OK, NULL);
}

static void
undo_record(struct om_ctx *cx, struct run *run)
{
	run->recorded = true;
	run_write_final(cx, run);
}

static void
undo_end(struct om_ctx *cx, struct run *run)
{
	if (run->recorded) {
		run_undone(cx, run);
	} else {
		undo_record(cx, run);
	}
}

void
run_final_written(struct om_ctx *cx, struct run *run)
{
	run_undone(cx, run);
}

/* --- the actor ------------------------------------------------------------------------------- */

/* For who looks in from outside; without the name it runs as well. */
static void
run_register(struct om_ctx *cx, const struct run *run)
{
	char name[sizeof(OM_JOB_RUN_NAME) + OM_JOB_ID_MAX];

	(void)snprintf(name, sizeof(name), OM_JOB_RUN_NAME "%s", run->job.text);
	if (om_register(cx, name) != OM_OK) {
		om_warn("job.no_name", "%s: its actor has no name of its own", run->job.text);
	}
}

static enum om_err
run_start(struct om_ctx *cx, void *state, const void *arg)
{
	struct run *run = state;
	struct om_job_run_arg *a = (struct om_job_run_arg *)(uintptr_t)arg;

	run->magic = RUN_MAGIC;
	run->conf = a->conf;
	run->executor = a->executor;
	run->job = a->job;
	run->channel_fd = -1;
	run->writes_tail = &run->writes;
	om_vm_handle_init(&run->vm);
	free(a);
	(void)snprintf(run->vm_name, sizeof(run->vm_name), OM_VM_PREFIX "%s", run->job.text);
	if ((size_t)snprintf(run->dir, sizeof(run->dir), "%s/%s", run->conf->run_dir,
			     run->job.text) >= sizeof(run->dir)) {
		return OM_ERR_TOO_BIG;
	}
	run_register(cx, run);
	run_go(cx, run);
	return OM_OK;
}

static void
run_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	struct run *run = state;

	(void)cx;
	(void)why;
	run_kill_vm(run);
	om_vm_handle_fini(&run->vm);
	om_guest_channel_free(run->channel);
	if (run->channel_fd >= 0) {
		(void)close(run->channel_fd);
	}
	run_writes_fini(run);
	om_buf_fini(&run->output[0]);
	om_buf_fini(&run->output[1]);
	om_buf_fini(&run->evidence);
	om_buf_fini(&run->net_raw);
	if (run->spec_raw.data != NULL) {
		om_secret_wipe(run->spec_raw.data, run->spec_raw.cap);
	}
	om_buf_fini(&run->spec_raw);
	om_arena_fini(&run->arena);
}

static enum om_err
run_on_timer(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct run *run = state;
	const struct om_timer_fired *t = (const void *)msg->payload;

	switch ((enum run_timer)t->cookie) {
	case TIMER_BOOT:
		run->boot_timer = 0;
		run_end(cx, run, OM_JOB_FAILED, "boot_timeout", 0,
			"the guest was silent for %llu ms before its job started",
			(unsigned long long)(run->done < STEP_RUN ? run_boot_timeout_ms(run)
								  : run_start_timeout_ms(run)));
		break;
	case TIMER_RUNTIME:
		run->runtime_timer = 0;
		run_end(cx, run, OM_JOB_TIMED_OUT, "runtime_limit",
			run->conf->stop_grace_ms != 0 ? run->conf->stop_grace_ms
						      : OM_EXEC_STOP_GRACE_MS,
			"over its limit of %llu s", (unsigned long long)run->spec.runtime_s);
		break;
	case TIMER_STOP:
		run_on_stop_timer(cx, run);
		break;
	case TIMER_DISK:
		run_on_disk_timer(cx, run);
		break;
	case TIMER_RETRY:
		run->retry_timer = 0;
		if (run->busy && !run->unwinding && steps[run->done].enter == enter_spec) {
			enter_spec(cx, run);
		} else {
			run_retry(cx, run);
		}
		break;
	}
	return OM_OK;
}

static enum om_err
run_on_io(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct run *run = state;
	const struct om_io_ready *io = (const void *)msg->payload;

	if (io->cookie == WATCH_CHANNEL) {
		run_on_channel(cx, run, io->events);
	} else if (io->cookie == WATCH_PIDFD) {
		/* Read what the guest said last before we call it dead. */
		om_io_unwatch(cx, run->pidfd_watch);
		run->pidfd_watch = 0;
		run->reading_stopped = false;
		run->vm_died = !run->ended;
		run_on_channel(cx, run, OM_IO_READ | OM_IO_ERROR);
		run->vm_died = run->vm_died && !run->guest_done;
		run_end(cx, run, OM_JOB_FAILED, "vm_ended", 0, "the VM ended before the job did");
		run_over(cx, run);
	}
	return OM_OK;
}

/*
 * The detector kills a VM before it tells anyone, so the VM's end may be heard of first, and a guest
 * may exit in the moment of its refused packet.  That end is a guess until the network is undone:
 * the detector answers the end of its watch after it has told us.
 */
static void
end_correct(struct run *run, const struct om_jr_end *end)
{
	run->state = end->state;
	(void)snprintf(run->reason, sizeof(run->reason), "%s", end->reason);
	(void)snprintf(run->text, sizeof(run->text), "%s", end->text);
	om_buf_add(&run->evidence, end->evidence.data, end->evidence.len);
	run->vm_died = false;
}

/* One that has failed has a reason already; the audit gets both. */
static void
end_detector_failed(struct run *run, const char *what)
{
	char text[OM_WHY_MAX];

	if (om_job_is_failure(run->state)) {
		(void)snprintf(text, sizeof(text), "%.150s; %.100s", run->text, what);
	} else {
		(void)snprintf(text, sizeof(text), "%s", what);
		run->state = OM_JOB_FAILED;
		(void)snprintf(run->reason, sizeof(run->reason), "detector_failed");
	}
	(void)snprintf(run->text, sizeof(run->text), "%s", text);
}

void
run_unseen(struct run *run, uint64_t seen, uint64_t unseen)
{
	char text[OM_WHY_MAX];

	om_error("job.unseen", "%s: %llu refused packets that the detector did not see, %llu seen",
		 run->job.text, (unsigned long long)unseen, (unsigned long long)seen);
	(void)snprintf(text, sizeof(text), "%llu refused packets were not seen",
		       (unsigned long long)unseen);
	end_detector_failed(run, text);
}

void
run_unwitnessed(struct run *run, const char *what)
{
	om_error("job.unwitnessed", "%s: %s", run->job.text, what);
	end_detector_failed(run, what);
}

static enum om_err
run_on_end(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct run *run = state;
	struct om_jr_end *end = om_msg_obj(msg);

	if (run->ended && !run->recorded && end->evidence.len > 0 &&
	    (run->vm_died ||
	     (end->state == OM_JOB_ROGUE_KILLED && run->state != OM_JOB_ROGUE_KILLED))) {
		end_correct(run, end);
		return OM_OK;
	}
	if (run->ended) {
		/* It was given time to stop, and whoever says this gives it less. */
		if (run->done == STEP_RUN && run->busy && !run->unwinding) {
			run_stop_sooner(cx, run, end->grace_ms);
		}
		return OM_OK;
	}
	(void)snprintf(run->by, sizeof(run->by), "%s", end->by);
	om_buf_add(&run->evidence, end->evidence.data, end->evidence.len);
	run_end(cx, run, end->state, end->reason, end->grace_ms, "%s", end->text);
	return OM_OK;
}

static enum om_err
run_on_pause(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	const struct om_jr_pause *m = om_msg_obj(msg);

	run_pause(cx, state, m->on, m->text);
	return OM_OK;
}

static enum om_err
run_on_vm_event(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct run *run = state;
	const struct om_jr_vm_event *ev = om_msg_obj(msg);

	if (run->vm.pid == 0) {
		return OM_OK; /* not of our VM: the last attempt's had the same name */
	}
	/* With a pidfd we hear of the end there, after the guest's last words. */
	if (run->pidfd_watch == 0 && run->vm.pidfd < 0) {
		run_end(cx, run, OM_JOB_FAILED, "vm_ended", 0, "the VM ended: %s", ev->reason);
		run_over(cx, run);
	} else if (ev->kind == OM_VM_EVENT_CRASHED) {
		om_debug("job.vm_event", "%s: %s", run->job.text, ev->reason);
	}
	return OM_OK;
}

static const struct om_handler run_handlers[] = {
	{ OM_SYS_TIMER, run_on_timer }, { OM_SYS_IO, run_on_io },
	{ OM_JR_END, run_on_end },      { OM_JR_VM_EVENT, run_on_vm_event },
	{ OM_JR_PAUSE, run_on_pause },
};

const struct om_actor_def om_job_run_def = {
	.name = "job_run",
	.state_size = sizeof(struct run),
	.start = run_start,
	.stop = run_stop,
	.handlers = run_handlers,
	.handler_count = OM_COUNT(run_handlers),
	.mailbox_slots = 256,
	.restart = OM_RESTART_NEVER,
};
