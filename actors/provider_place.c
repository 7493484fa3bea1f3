/* SPDX-License-Identifier: ISC */
/* Verbs that change what comes next for a job: approve, hold, release, move, retry. */
#include <string.h>

#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"

/* --- approve ------------------------------------------------------------------- */

static void
approve_on_moved(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);
	struct schedule plan;

	if (answer->err != OM_OK) {
		if (answer->err == OM_ERR_TIMEOUT) { /* it may be approved all the same */
			provider_look(sv, p, om_str_of(task->id.text), false);
		}
		provider_task_finish(sv, p, task, answer->err, answer->text);
		return;
	}
	provider_live_decided(sv, p, om_str_of(task->id.text));
	provider_schedule_of(answer->body, &plan);
	provider_schedule(sv, p, &plan);
	provider_task_finish(sv, p, task, OM_OK, "");
}

static void
approve_move(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	if (task->adopted) {
		provider_task_finish(sv, p, task, OM_OK, "");
		return;
	}
	provider_task_move(sv, p, task, OM_JOB_QUEUED, "approved", "approved by the operator",
			   approve_on_moved);
}

static void
trust_failed(struct om_service *sv, struct provider *p, struct provider_task *task, enum om_err err,
	     const char *text)
{
	struct om_why why;

	(void)om_why_set(&why, err, "job %s is not approved: %s", task->id.text, text);
	provider_task_finish(sv, p, task, err, why.text);
}

static void
approve_on_trusted(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);

	if (answer->err != OM_OK) {
		trust_failed(sv, p, task, answer->err, answer->text);
		return;
	}
	approve_move(sv, p, task);
}

/*
 * Trust comes first: whoever is told that it failed has approved nothing, and can say again what is
 * meant.
 */
void
provider_approve_got(struct om_service *sv, struct provider *p, struct provider_task *task,
		     const struct om_job_info *info)
{
	const enum provider_trust trust = task->verb->trust;
	struct om_list_change m = { .value = trust == TRUST_PEER ? info->peer : info->network_id };
	enum om_err err;

	if (trust == TRUST_NOTHING) {
		approve_move(sv, p, task);
		return;
	}
	if (m.value.len == 0) {
		trust_failed(
		    sv, p, task, OM_ERR_INVALID,
		    "its requester is in no network that could be trusted, trust the peer");
		return;
	}
	err = om_service_ask(sv, OM_FILTER_MANAGER,
			     trust == TRUST_PEER ? OM_MSG_CONFIG_TRUST_PEER : OM_MSG_CONFIG_TRUST,
			     &m, &task->verb->caller, PROVIDER_LEDGER_MS, approve_on_trusted,
			     (uintptr_t)task);
	if (err != OM_OK) {
		trust_failed(sv, p, task, err, om_err_text(err));
	}
}

/* --- hold, release, move ----------------------------------------------------------------------- */

static void hold_on_held(struct om_service *sv, void *state, const struct om_bus_answer *answer);

/*
 * A hold is in force before it is written and a release is written before it is in force: whatever
 * fails between, a job that is said to be held does not start.
 */
static void
task_ask_queue(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	const struct provider_verb *verb = task->verb;
	struct om_job_ref ref = { .job = om_str_of(task->id.text) };
	struct om_queue_move move = { .job = ref.job };

	if (verb->type == OM_MSG_JOB_HOLD) {
		provider_task_ask(sv, p, task, OM_JOB_QUEUE, OM_MSG_QUEUE_HOLD, &ref, hold_on_held);
	} else if (verb->type == OM_MSG_JOB_RELEASE) {
		provider_task_ask(sv, p, task, OM_JOB_QUEUE, OM_MSG_QUEUE_RELEASE, &ref,
				  provider_task_on_last);
	} else {
		OM_SET(&move, queue_move, to, om_str_of(verb->to));
		if (verb->to_level[0] != '\0') {
			OM_SET(&move, queue_move, level, om_str_of(verb->to_level));
		}
		provider_task_ask(sv, p, task, OM_JOB_QUEUE, OM_MSG_QUEUE_MOVE, &move,
				  provider_task_on_last);
	}
}

/* The same for a job that the queue does not have yet.  false: the queue has it. */
static bool
task_waiting_job(struct provider *p, struct provider_task *task)
{
	const struct provider_verb *verb = task->verb;
	struct live *live = provider_live_find(p, om_str_of(task->id.text));
	enum om_job_level level;

	if (live == NULL) {
		return false;
	}
	if (verb->type != OM_MSG_JOB_MOVE) {
		return provider_waits_hold(live, verb->type == OM_MSG_JOB_HOLD);
	}
	return provider_waits_move(
	    live, strcmp(verb->to, "front") == 0,
	    om_job_level_parse(om_str_of(verb->to_level), &level) == OM_OK ? &level : NULL);
}

static void
hold_on_undone(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	if (answer->err != OM_OK && answer->err != OM_ERR_NOT_FOUND) {
		om_warn("provider.hold", "a hold that is not written is in force: %s",
			answer->text);
	}
}

/* It could not be written, and nobody was told that it is held. */
static void
hold_undo(struct om_service *sv, struct provider *p, const struct provider_task *task)
{
	struct om_job_ref ref = { .job = om_str_of(task->id.text) };
	struct live *live = provider_live_find(p, ref.job);

	if (task->was_held || (live != NULL && provider_waits_hold(live, false))) {
		return;
	}
	if (om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_RELEASE, &ref, NULL, PROVIDER_QUEUE_MS,
			   hold_on_undone, 0) != OM_OK) {
		om_warn("provider.hold", "job %s is held, though that is not written",
			task->id.text);
	}
}

static void
place_on_written(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);

	if (answer->err != OM_OK && task->verb->type == OM_MSG_JOB_HOLD) {
		hold_undo(sv, p, task);
	}
	if (answer->err != OM_OK || task->verb->type == OM_MSG_JOB_HOLD ||
	    task_waiting_job(p, task)) {
		provider_task_finish(sv, p, task, answer->err, answer->text);
		return;
	}
	task_ask_queue(sv, p, task);
}

static void
task_place(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	const struct provider_verb *verb = task->verb;
	struct om_ledger_place place = { .job = om_str_of(task->id.text) };

	if (verb->type == OM_MSG_JOB_MOVE) {
		OM_SET(&place, ledger_place, to, om_str_of(verb->to));
		if (verb->to_level[0] != '\0') {
			OM_SET(&place, ledger_place, level, om_str_of(verb->to_level));
		}
	} else {
		OM_SET(&place, ledger_place, held, verb->type == OM_MSG_JOB_HOLD);
	}
	OM_SET(&place, ledger_place, text, om_str_of(verb->reason));
	OM_SET(&place, ledger_place, by, om_str_of(verb->caller.peer));
	provider_task_ask(sv, p, task, OM_LEDGER, OM_MSG_LEDGER_PLACE, &place, place_on_written);
}

static void
hold_on_held(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);

	if (answer->err != OM_OK) {
		provider_task_finish(sv, p, task, answer->err, answer->text);
		return;
	}
	task_place(sv, p, task);
}

void
provider_place_got(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	if (task->verb->type == OM_MSG_JOB_HOLD && !task_waiting_job(p, task)) {
		task_ask_queue(sv, p, task);
	} else {
		task_place(sv, p, task);
	}
}

/* The event of the move brings it into the queue. */
static void
retry_move(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	provider_task_move(sv, p, task, OM_JOB_QUEUED, "retried",
			   "one more attempt, asked for by hand", provider_task_on_last);
}

static void
retry_on_decision(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);
	const struct om_filter_decision *m = answer->body;
	struct om_why why;

	if (answer->err != OM_OK) {
		provider_task_finish(sv, p, task, answer->err, answer->text);
	} else if (om_str_is(m->verdict, "accepted")) {
		retry_move(sv, p, task);
	} else {
		(void)om_why_set(&why, OM_ERR_REJECTED, "job %s: %.*s", task->id.text,
				 OM_STR_ARG(m->text));
		provider_task_finish(sv, p, task, OM_ERR_REJECTED, why.text);
	}
}

static enum om_err
retry_limits(struct provider *p, struct provider_task *task, const struct om_job_info *info,
	     struct om_why *why)
{
	enum om_err err = OM_OK;

	if (p->draining) {
		err = om_why_set(why, OM_ERR_SHUTDOWN, "the daemon is stopping");
	} else {
		err = provider_room(p, info->peer, 1, false, why);
	}
	if (err != OM_OK) {
		return err;
	}
	task->runtime_s = info->runtime_s;
	task->account = om_books_open(&p->books, info->peer, info->runtime_s);
	return task->account != NULL ? OM_OK : om_why_set(why, OM_ERR_NOMEM, "out of memory");
}

/* A requester's retry is decided like a submit: what was accepted once may not be any more. */
static void
retry_decide(struct om_service *sv, struct provider *p, struct provider_task *task,
	     const struct om_job_info *info)
{
	struct om_filter_request m = { .peer = info->peer };
	struct om_why why = { "" };
	enum om_err err = retry_limits(p, task, info, &why);

	if (err != OM_OK) {
		provider_task_finish(sv, p, task, err, why.text);
		return;
	}
	OM_SET(&m, filter_request, network_id, info->network_id);
	OM_SET(&m, filter_request, cores, info->cores);
	OM_SET(&m, filter_request, mem_mib, info->mem_mib);
	OM_SET(&m, filter_request, disk_mib, info->disk_mib);
	OM_SET(&m, filter_request, runtime_s, info->runtime_s);
	if (OM_HAS(info, job_info, activity)) {
		OM_SET(&m, filter_request, activity, info->activity);
	}
	provider_books_tell(om_books_page(&p->books, info->peer, p->wall()), 1, info->runtime_s,
			    &m);
	provider_task_ask(sv, p, task, OM_FILTER_MANAGER, OM_MSG_FILTER_DECIDE, &m,
			  retry_on_decision);
}

/* One more attempt.  The operator's word needs no decision. */
void
provider_retry_got(struct om_service *sv, struct provider *p, struct provider_task *task,
		   const struct om_job_info *info, enum om_job_state now)
{
	if (now != OM_JOB_FAILED && now != OM_JOB_TIMED_OUT && now != OM_JOB_LOST &&
	    now != OM_JOB_DEAD) {
		provider_task_wrong_state(sv, p, task, om_str_of(om_job_state_text(now)));
	} else if (task->verb->caller.role == OM_ROLE_REQUESTER) {
		retry_decide(sv, p, task, info);
	} else {
		retry_move(sv, p, task);
	}
}
