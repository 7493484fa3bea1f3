/* SPDX-License-Identifier: ISC */
/*
 * Cancelling one job, wherever it is.
 *
 * A cancel never lies: a running job's is answered when the ledger reports its end, and counts only
 * if that is `cancelled`.  The ledger's messages arrive in order, so no end is missed.  When the attempt
 * ended by itself and the job comes back for another one, the queue is asked once more, behind its
 * queue.add.  If broken: the job runs again although it was cancelled.
 */
#include "actors/names.h"
#include "actors/provider_impl.h"

/* The queue does not have it any more.  If broken: a cancel that the disk refused leaves it nowhere. */
static void
cancel_on_moved(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);

	if (answer->err != OM_OK) {
		provider_look(sv, p, om_str_of(task->id.text), true);
	}
	provider_task_finish(sv, p, task, answer->err, answer->text);
}

static void cancel_ask(struct om_service *sv, struct provider *p, struct provider_task *task);

/*
 * The job's end and the queue's answer come from two services, in any order: so the task watches
 * before it asks, and an end that comes first is kept until the answer is there.
 */
static void
cancel_on_queue(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);
	const struct om_queue_cancelled *m = answer->body;

	task->asking = false;
	if (task->over) {
		provider_task_finish(sv, p, task, task->over_err, task->over_text.text);
	} else if (answer->err == OM_ERR_NOT_FOUND || (answer->err == OM_OK && m->was_running)) {
		/* NOT_FOUND: it has just ended.  Either way the ledger's word is on its way, or here. */
		if (task->came_back) {
			cancel_ask(sv, p, task);
		}
	} else if (answer->err != OM_OK) {
		provider_task_finish(sv, p, task, answer->err, answer->text);
	} else {
		provider_live_unwatch(sv, p, task);
		provider_task_move(sv, p, task, OM_JOB_CANCELLED, "cancelled",
				   "cancelled while queued", cancel_on_moved);
	}
}

/* It waits for others, so the queue does not have it. */
static void
cancel_on_waiting_moved(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *task = provider_task_of(answer);
	struct live *live = provider_live_find(p, om_str_of(task->id.text));

	if (answer->err != OM_OK && live != NULL) {
		provider_waits_resume(sv, p, live);
	}
	provider_task_finish(sv, p, task, answer->err, answer->text);
}

static void
cancel_ask(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	const struct provider_verb *verb = task->verb;
	struct om_queue_cancel m = { .job = om_str_of(task->id.text) };

	if (verb->has_grace) {
		OM_SET(&m, queue_cancel, grace_ms, verb->grace_ms);
	}
	OM_SET(&m, queue_cancel, by, om_str_of(verb->caller.peer));
	if (verb->reason[0] != '\0') {
		OM_SET(&m, queue_cancel, reason, om_str_of(verb->reason));
	}
	task->asking = true;
	task->came_back = false;
	provider_task_ask(sv, p, task, OM_JOB_QUEUE, OM_MSG_QUEUE_CANCEL, &m, cancel_on_queue);
}

void
provider_cancel_came_back(struct om_service *sv, struct provider *p, struct live *live)
{
	struct provider_task *task, *next;

	for (task = live->more != NULL ? TAILQ_FIRST(&live->more->watchers) : NULL; task != NULL;
	     task = next) {
		next = TAILQ_NEXT(task, link);
		if (task->verb->type != OM_MSG_JOB_CANCEL) {
			continue;
		}
		if (task->asking) {
			task->came_back = true; /* when that is answered */
		} else {
			cancel_ask(sv, p, task);
		}
	}
}

void
provider_cancel_got(struct om_service *sv, struct provider *p, struct provider_task *task,
		    enum om_job_state now)
{
	struct live *live = provider_live_find(p, om_str_of(task->id.text));

	if (now == OM_JOB_PENDING) {
		provider_task_move(sv, p, task, OM_JOB_CANCELLED, "cancelled",
				   "cancelled while it waited for approval", provider_task_on_last);
		return;
	}
	if (om_job_is_final(now)) {
		provider_task_wrong_state(sv, p, task, om_str_of(om_job_state_text(now)));
		return;
	}
	if (live != NULL && provider_waits_stop(live)) {
		provider_task_move(sv, p, task, OM_JOB_CANCELLED, "cancelled",
				   "cancelled while it waited for others", cancel_on_waiting_moved);
		return;
	}
	if (provider_task_watch(sv, p, task)) {
		cancel_ask(sv, p, task);
	}
}
