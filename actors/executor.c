/* SPDX-License-Identifier: ISC */
/*
 * The executor: a child actor per running job.
 *
 * Every job in `jobs` ends in exactly one exec.done: on the child's last word (OM_JR_DONE), or
 * when the child itself failed (OM_SYS_DOWN), after its VM and files were removed in its place.
 * If broken: job_queue counts a slot as taken for ever.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "actors/executor.h"
#include "actors/executor_impl.h"
#include "actors/job_run.h"
#include "actors/names.h"
#include "base/assert.h"
#include "base/log.h"

static struct om_str
job_name_of(const struct om_name_node *node)
{
	const struct exec_job *job =
	    (const void *)((const char *)node - offsetof(struct exec_job, node));

	return om_str_of(job->id.text);
}

static void
job_free(struct exec_job *job)
{
	free(job->cleanup);
	free(job);
}

static struct exec_job *
job_find(const struct executor *ex, struct om_str id)
{
	struct om_name_node *node = om_name_table_find(&ex->jobs, id);

	return node != NULL ? om_exec_job_of(node) : NULL;
}

static struct exec_job *
job_of_actor(const struct executor *ex, struct om_actor_id actor)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&ex->jobs, &walk)) != NULL) {
		if (om_actor_id_eq(om_exec_job_of(node)->actor, actor)) {
			return om_exec_job_of(node);
		}
	}
	return NULL;
}

static void
drains_answer(struct om_service *sv, struct executor *ex)
{
	while (ex->jobs.count == 0 && ex->sweeping == 0 && ex->drains != NULL) {
		struct exec_drain *d = ex->drains;
		struct om_empty empty = { 0 };

		ex->drains = d->next;
		om_service_reply_to(sv, &d->rq, OM_MSG_OK, &empty);
		free(d);
	}
}

void
om_exec_swept(struct om_service *sv)
{
	struct executor *ex = om_service_state(sv);

	OM_ASSERT(ex->magic == EXEC_MAGIC && ex->sweeping > 0);
	ex->sweeping--;
	drains_answer(sv, ex);
}

void
om_exec_job_done(struct om_service *sv, struct executor *ex, struct exec_job *job)
{
	struct om_exec_done done = { 0 };

	OM_SET(&done, exec_done, job, om_str_of(job->id.text));
	OM_SET(&done, exec_done, state, om_str_of(om_job_state_text(job->state)));
	if (om_service_send(sv, OM_JOB_QUEUE, OM_MSG_EXEC_DONE, &done) != OM_OK) {
		om_error("exec.done_lost", "%s: the queue does not listen", job->id.text);
	}
	om_name_table_remove(&ex->jobs, &job->node);
	job_free(job);
	drains_answer(sv, ex);
}

/* --- starting and ending ------------------------------------------------------------------------- */

static void
on_null_recorded(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct exec_job *job = (struct exec_job *)(uintptr_t)answer->cookie;

	if (answer->err != OM_OK) {
		om_error("exec.record_failed", "%s: %s", job->id.text, answer->text);
	}
	om_exec_job_done(sv, state, job);
}

/* The null executor: every state is recorded as for a real job, nothing runs. */
static enum om_err
null_run(struct om_service *sv, struct executor *ex, struct exec_job *job)
{
	static const enum om_job_state way[] = { OM_JOB_PROVISIONING, OM_JOB_RUNNING };
	struct om_job_info result = { 0 };
	struct om_ledger_move m = { 0 };
	enum om_err err = OM_OK;
	size_t i;

	(void)ex;
	OM_SET(&m, ledger_move, job, om_str_of(job->id.text));
	for (i = 0; i < OM_COUNT(way) && err == OM_OK; i++) {
		OM_SET(&m, ledger_move, state, om_str_of(om_job_state_text(way[i])));
		err = om_service_send(sv, OM_LEDGER, OM_MSG_LEDGER_MOVE, &m);
	}
	job->state = OM_JOB_COMPLETED;
	OM_SET(&result, job_info, job, om_str_of(job->id.text));
	OM_SET(&result, job_info, state, om_str_of("completed"));
	OM_SET(&result, job_info, exit_code, 0);
	OM_SET(&m, ledger_move, state, om_str_of("completed"));
	OM_SET(&m, ledger_move, reason, om_str_of("null_executor"));
	OM_SET(&m, ledger_move, result, &result);
	if (err == OM_OK) {
		err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_MOVE, &m, NULL, EXEC_LEDGER_MS,
				     on_null_recorded, (uint64_t)(uintptr_t)job);
	}
	return err;
}

static enum om_err
child_start(struct om_service *sv, struct executor *ex, struct exec_job *job)
{
	struct om_ctx *cx = om_service_cx(sv);
	struct om_job_run_arg *arg = calloc(1, sizeof(*arg));
	enum om_err err;

	if (arg == NULL) {
		return OM_ERR_NOMEM;
	}
	*arg = (struct om_job_run_arg){
		.executor = om_self(cx),
		.conf = ex->conf,
		.job = job->id,
	};
	err = om_spawn(cx, &om_job_run_def, arg, &job->actor);
	if (err != OM_OK) {
		free(arg);
		return err;
	}
	err = om_monitor(cx, job->actor, &job->monitor);
	if (err != OM_OK) {
		om_kill(cx, job->actor);
	}
	return err;
}

static enum om_err
exec_on_start(struct om_service *sv, void *state, const struct om_in *in)
{
	struct executor *ex = state;
	const struct om_exec_start *m = in->body;
	struct exec_job *job;
	enum om_err err;

	if (job_find(ex, m->job) != NULL) {
		return OM_ERR_EXISTS;
	}
	if (ex->sweeping > 0 || ex->ending || ex->jobs.count >= OM_EXEC_JOBS_MAX) {
		return OM_ERR_FULL; /* the queue asks again */
	}
	job = calloc(1, sizeof(*job));
	if (job == NULL) {
		return OM_ERR_FULL; /* the queue keeps it and asks again */
	}
	err = om_job_id_parse(m->job.ptr, m->job.len, &job->id);
	if (err == OM_OK && ex->conf->driver != NULL) {
		err = om_exec_cleanup_new(ex->conf, &job->id, &job->cleanup);
	}
	if (err == OM_OK) {
		err = om_name_table_add(&ex->jobs, &job->node);
	}
	if (err != OM_OK) {
		job_free(job);
		return err;
	}
	err = ex->conf->driver == NULL ? null_run(sv, ex, job) : child_start(sv, ex, job);
	if (err != OM_OK) {
		om_name_table_remove(&ex->jobs, &job->node);
		job_free(job);
		return err;
	}
	return om_service_reply_ok(sv, in);
}

/* Takes *end. */
static enum om_err
job_end(struct om_service *sv, const struct exec_job *job, struct om_jr_end *end)
{
	struct om_ctx *cx = om_service_cx(sv);
	struct om_msg *msg = om_msg_new_owner(cx, OM_JR_END, end, om_jr_end_free);
	enum om_err err;

	if (msg == NULL) {
		om_jr_end_free(end);
		return OM_ERR_NOMEM;
	}
	err = om_send_urgent(cx, job->actor, &msg);
	om_msg_free(cx, msg);
	return err == OM_ERR_STALE ? OM_OK : err; /* it ends already */
}

static enum om_err
job_cancel(struct om_service *sv, const struct exec_job *job, const struct om_queue_cancel *m,
	   const char *reason)
{
	struct om_jr_end *end = calloc(1, sizeof(*end));

	if (end == NULL) {
		return OM_ERR_NOMEM;
	}
	end->state = OM_JOB_CANCELLED;
	end->grace_ms =
	    OM_HAS(m, queue_cancel, grace_ms) ? (uint32_t)m->grace_ms : OM_EXEC_CANCEL_GRACE_MS;
	(void)snprintf(end->reason, sizeof(end->reason), "%s", reason);
	(void)snprintf(end->text, sizeof(end->text), "%.*s",
		       OM_STR_ARG(m->reason.len > 0 ? m->reason : OM_STR("cancelled")));
	(void)snprintf(end->by, sizeof(end->by), "%.*s", OM_STR_ARG(m->by));
	return job_end(sv, job, end);
}

static enum om_err
exec_on_cancel(struct om_service *sv, void *state, const struct om_in *in)
{
	struct executor *ex = state;
	const struct om_queue_cancel *m = in->body;
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;
	enum om_err err = OM_OK;

	if (om_str_is(m->job, "*")) {
		ex->ending = true;
		while (ex->conf->driver != NULL && err == OM_OK &&
		       (node = om_name_table_next(&ex->jobs, &walk)) != NULL) {
			err = job_cancel(sv, om_exec_job_of(node), m, "daemon_stopping");
		}
	} else {
		struct exec_job *job = job_find(ex, m->job);

		if (job == NULL) {
			return OM_ERR_NOT_FOUND;
		}
		if (ex->conf->driver != NULL) {
			err = job_cancel(sv, job, m, "cancelled");
		}
	}
	return err != OM_OK ? err : om_service_reply_ok(sv, in);
}

/* NOT_FOUND: it has ended, and needs no pause. */
static enum om_err
exec_on_pause(struct om_service *sv, void *state, const struct om_in *in)
{
	struct executor *ex = state;
	const struct om_exec_pause *m = in->body;
	struct exec_job *job = job_find(ex, m->job);
	struct om_ctx *cx = om_service_cx(sv);
	struct om_jr_pause *pause;
	struct om_msg *msg;
	enum om_err err;

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (ex->conf->driver == NULL) {
		return om_service_reply_ok(sv, in); /* it ends at once */
	}
	pause = calloc(1, sizeof(*pause));
	if (pause == NULL) {
		return OM_ERR_NOMEM;
	}
	pause->on = m->on;
	(void)snprintf(pause->text, sizeof(pause->text), "%.*s", OM_STR_ARG(m->text));
	msg = om_msg_new_owner(cx, OM_JR_PAUSE, pause, free);
	if (msg == NULL) {
		free(pause);
		return OM_ERR_NOMEM;
	}
	err = om_send_urgent(cx, job->actor, &msg);
	om_msg_free(cx, msg);
	return err == OM_OK || err == OM_ERR_STALE ? om_service_reply_ok(sv, in) : err;
}

static enum om_err
exec_on_drain(struct om_service *sv, void *state, const struct om_in *in)
{
	struct executor *ex = state;
	struct exec_drain *d;

	if (ex->jobs.count == 0 && ex->sweeping == 0) {
		return om_service_reply_ok(sv, in);
	}
	d = calloc(1, sizeof(*d));
	if (d == NULL) {
		return OM_ERR_NOMEM;
	}
	d->rq = om_service_later(sv, in);
	d->next = ex->drains;
	ex->drains = d;
	return OM_OK;
}

static enum om_err
exec_on_rogue(struct om_service *sv, void *state, const struct om_in *in)
{
	struct executor *ex = state;
	const struct om_rogue_caught *m = in->body;
	struct exec_job *job = job_find(ex, m->job);
	struct om_jr_end *end;

	if (job == NULL) {
		return OM_OK; /* it ended by itself in the same moment */
	}
	end = calloc(1, sizeof(*end));
	if (end == NULL) {
		return OM_ERR_NOMEM;
	}
	if (om_job_state_parse(m->state.ptr, m->state.len, &end->state) != OM_OK ||
	    !om_job_is_failure(end->state)) {
		end->state = OM_JOB_FAILED;
	}
	(void)snprintf(end->reason, sizeof(end->reason), "%.*s", OM_STR_ARG(m->reason));
	(void)snprintf(end->text, sizeof(end->text), "%.*s", OM_STR_ARG(m->text));
	om_buf_add(&end->evidence, in->raw.ptr, in->raw.len);
	return job_end(sv, job, end);
}

/* --- mailbox ------------------------------------------------------------------------------------- */

static enum om_err
exec_on_down(struct om_service *sv, struct executor *ex, const struct om_msg *msg)
{
	const struct om_down *down = (const void *)msg->payload;
	struct exec_job *job = job_of_actor(ex, down->who);

	if (job != NULL) {
		om_exec_job_failed(sv, ex, job, down->why);
	}
	return OM_OK;
}

static enum om_err
exec_on_done(struct om_service *sv, struct executor *ex, const struct om_msg *msg)
{
	const struct om_jr_done *done = om_msg_obj(msg);
	struct exec_job *job = job_find(ex, om_str_of(done->job.text));

	if (job != NULL) {
		om_demonitor(om_service_cx(sv), job->monitor);
		job->state = done->state;
		om_exec_job_done(sv, ex, job);
	}
	return OM_OK;
}

static enum om_err
exec_on_vm_event(struct om_service *sv, struct executor *ex, const struct om_msg *msg)
{
	const struct om_jr_vm_event *ev = om_msg_obj(msg);
	struct exec_job *job = job_find(ex, om_str_of(ev->job.text));

	if (ev->kind == OM_VM_EVENT_DRIVER_DOWN) {
		om_error("vm.driver_down", "%s", ev->reason);
	} else if (ev->kind == OM_VM_EVENT_DRIVER_UP) {
		om_info("vm.driver_up", "%s", ev->reason);
	} else if (job != NULL) {
		return om_forward(om_service_cx(sv), job->actor, msg) == OM_ERR_NOMEM ? OM_ERR_NOMEM
										      : OM_OK;
	}
	return OM_OK;
}

static enum om_err
exec_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct executor *ex = state;

	OM_ASSERT(ex->magic == EXEC_MAGIC);
	switch (msg->type) {
	case OM_JR_RELAY:
		return om_exec_relay(sv, &ex->relays, msg);
	case OM_JR_DONE:
		return exec_on_done(sv, ex, msg);
	case OM_JR_VM_EVENT:
		return exec_on_vm_event(sv, ex, msg);
	case OM_SYS_DOWN:
		return exec_on_down(sv, ex, msg);
	default:
		return OM_ERR_UNKNOWN_TYPE;
	}
}

/* --- the service --------------------------------------------------------------------------------- */

static enum om_err
exec_start(struct om_service *sv, void *state, const void *arg)
{
	struct executor *ex = state;

	ex->magic = EXEC_MAGIC;
	ex->conf = arg;
	om_name_table_init(&ex->jobs, job_name_of);
	if (ex->conf->driver != NULL) {
		ex->sweeping = om_exec_sweep(sv, ex->conf);
	}
	return OM_OK;
}

static void
exec_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct executor *ex = state;
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	(void)why;
	while (ex->drains != NULL) {
		struct exec_drain *d = ex->drains;

		ex->drains = d->next;
		om_service_reply_err_to(sv, &d->rq, OM_ERR_SHUTDOWN, "the executor ends");
		free(d);
	}
	while ((node = om_name_table_next(&ex->jobs, &walk)) != NULL) {
		/* Its stop() kills the VM, and its files are removed by the sweep of the next executor or of
		 * the next daemon, for which the job is lost. */
		om_kill(om_service_cx(sv), om_exec_job_of(node)->actor);
		om_name_table_remove(&ex->jobs, node);
		job_free(om_exec_job_of(node));
	}
	om_exec_relays_fini(&ex->relays);
	om_name_table_fini(&ex->jobs);
}

static const struct om_service_handler exec_handlers[] = {
	{ OM_MSG_EXEC_START, exec_on_start },   { OM_MSG_EXEC_CANCEL, exec_on_cancel },
	{ OM_MSG_EXEC_DRAIN, exec_on_drain },   { OM_MSG_EXEC_PAUSE, exec_on_pause },
	{ OM_MSG_ROGUE_CAUGHT, exec_on_rogue },
};

const struct om_service_def om_executor_service = {
	.name = OM_EXECUTOR,
	.state_size = sizeof(struct executor),
	.start = exec_start,
	.stop = exec_stop,
	.on = exec_handlers,
	.on_count = OM_COUNT(exec_handlers),
	.on_msg = exec_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
