/* SPDX-License-Identifier: ISC */
/*
 * Verbs over jobs.  A verb is one request; it makes a task for each job it names (or, in bulk, that
 * a list of the ledger gives) and is answered when all of them are finished.
 *
 * Every task begins with job.get asked *as the caller*: the ledger resolves the beginning of an id
 * and refuses what is not the caller's, so ownership is decided in one place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"

#define WAIT_DEFAULT_MS (UINT64_C(24) * 3600 * 1000)

/* --- verbs ------------------------------------------------------------------------------------ */

enum om_err
provider_is_ready(const struct provider *p, struct om_why *why)
{
	return p->ready
		   ? OM_OK
		   : om_why_set(why, OM_ERR_STATE, "starting: the ledger is being read, try again");
}

struct provider_verb *
provider_verb_new(struct om_service *sv, struct provider *p, const struct om_in *in)
{
	struct provider_verb *verb = calloc(1, sizeof(*verb));
	uint64_t wait_ms = in->deadline_ms != 0 ? in->deadline_ms : WAIT_DEFAULT_MS;

	if (verb == NULL) {
		return NULL;
	}
	verb->type = in->type;
	verb->caller = *in->caller;
	verb->any_level = true;
	verb->pending = 1;
	verb->until.ns = om_now(om_service_cx(sv)).ns + (int64_t)wait_ms * OM_NS_PER_MS;
	STAILQ_INIT(&verb->failed);
	TAILQ_INSERT_TAIL(&p->verbs, verb, link);
	return verb;
}

void
provider_verb_free(struct provider *p, struct provider_verb *verb)
{
	TAILQ_REMOVE(&p->verbs, verb, link);
	provider_failures_free(verb);
	free(verb);
}

void
provider_verb_failed(struct provider_verb *verb, enum om_err err, const char *text)
{
	verb->err = err;
	(void)snprintf(verb->err_text, sizeof(verb->err_text), "%s", text);
}

/* The last error, with what a program needs to ask again. */
static void
verb_reply_err(struct om_service *sv, struct provider_verb *verb)
{
	struct om_error error = { .code = om_str_of(om_err_code(verb->err)) };
	struct om_pair details[2];
	size_t n = 0;

	if (verb->candidates[0] != '\0') {
		details[n++] =
		    (struct om_pair){ OM_STR("candidates"), om_str_of(verb->candidates) };
	}
	if (verb->array[0] != '\0') {
		details[n++] = (struct om_pair){ OM_STR("array"), om_str_of(verb->array) };
	}
	OM_SET(&error, error, text, om_str_of(verb->err_text));
	if (n > 0) {
		OM_SET(&error, error, details, ((struct om_pairs){ details, n }));
	}
	om_service_reply_to(sv, &verb->rq, OM_MSG_ERROR, &error);
}

/* One task less, or the making of tasks is over. */
void
provider_verb_unpend(struct om_service *sv, struct provider *p, struct provider_verb *verb)
{
	if (--verb->pending > 0) {
		return;
	}
	if (verb->bulk && verb->cursor[0] != '\0' && verb->err != OM_ERR_SHUTDOWN) {
		provider_bulk_page(sv, p, verb);
		return;
	}
	if (verb->done > 0 || verb->err == OM_OK) {
		provider_verb_counted(sv, verb);
	} else {
		verb_reply_err(sv, verb);
	}
	provider_verb_free(p, verb);
}

/* --- tasks ------------------------------------------------------------------------------------ */

struct provider_task *
provider_task_new(struct provider *p, struct provider_verb *verb)
{
	struct provider_task *task;

	if (p->task_count >= PROVIDER_TASKS_MAX) {
		return NULL;
	}
	task = calloc(1, sizeof(*task));
	if (task != NULL) {
		task->verb = verb;
		task->list = &p->tasks;
		TAILQ_INSERT_TAIL(&p->tasks, task, link);
		p->task_count++;
		verb->pending++;
	}
	return task;
}

static void
task_free(struct provider *p, struct provider_task *task)
{
	om_time_heap_remove(&p->watches, &task->until);
	TAILQ_REMOVE(task->list, task, link);
	p->task_count--;
	if (task->account != NULL) {
		om_books_close(&p->books, task->account, task->runtime_s, 0, p->wall());
	}
	free(task);
}

void
provider_task_finish(struct om_service *sv, struct provider *p, struct provider_task *task,
		     enum om_err err, const char *text)
{
	struct provider_verb *verb = task->verb;

	if (err == OM_OK) {
		verb->done++;
	} else if (!verb->bulk || err != OM_ERR_STATE) { /* in bulk: it ended by itself meanwhile */
		provider_verb_failed(verb, err, text);
		provider_failures_add(
		    verb, om_str_of(task->asked[0] != '\0' ? task->asked : task->id.text), err,
		    text);
	}
	task_free(p, task);
	provider_verb_unpend(sv, p, verb);
}

void
provider_task_drop(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	struct provider_verb *verb = task->verb;

	task_free(p, task);
	provider_verb_unpend(sv, p, verb);
}

/* Asks and, when that is not possible, finishes the task. */
void
provider_task_ask(struct om_service *sv, struct provider *p, struct provider_task *task,
		  const char *to, enum om_msg_type type, const void *body, om_bus_answer_fn fn)
{
	const struct om_caller *as = type == OM_MSG_JOB_GET ? &task->verb->caller : NULL;
	enum om_err err;

	err = om_service_ask(sv, to, type, body, as,
			     strcmp(to, OM_LEDGER) == 0 ? PROVIDER_LEDGER_MS : PROVIDER_QUEUE_MS,
			     fn, (uintptr_t)task);
	if (err != OM_OK) {
		provider_task_finish(sv, p, task, err, om_err_text(err));
	}
}

/* The answer of the last step. */
void
provider_task_on_last(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	provider_task_finish(sv, provider_of(state), provider_task_of(answer), answer->err,
			     answer->text);
}

void
provider_task_move(struct om_service *sv, struct provider *p, struct provider_task *task,
		   enum om_job_state to, const char *reason, const char *text, om_bus_answer_fn fn)
{
	const struct provider_verb *verb = task->verb;
	struct om_ledger_move move = { .job = om_str_of(task->id.text),
				       .state = om_str_of(om_job_state_text(to)) };

	OM_SET(&move, ledger_move, reason, om_str_of(reason));
	OM_SET(&move, ledger_move, text, om_str_of(verb->reason[0] != '\0' ? verb->reason : text));
	OM_SET(&move, ledger_move, by, om_str_of(verb->caller.peer));
	provider_task_ask(sv, p, task, OM_LEDGER, OM_MSG_LEDGER_MOVE, &move, fn);
}

static void
task_on_got(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);

	if (answer->err != OM_OK) {
		provider_array_got(sv, p, provider_task_of(answer), answer);
		return;
	}
	provider_task_got(sv, p, provider_task_of(answer), answer->body);
}

void
provider_task_begin(struct om_service *sv, struct provider *p, struct provider_verb *verb,
		    struct om_str ref)
{
	struct om_job_ref m = { .job = ref };
	struct provider_task *task = provider_task_new(p, verb);

	if (task == NULL) {
		provider_verb_failed(verb, OM_ERR_FULL, "too many questions wait already");
		provider_failures_add(verb, ref, OM_ERR_FULL, verb->err_text);
		return;
	}
	/* It names the job in the answer; a longer one fits no job. */
	ref.len = ref.len < OM_JOB_ID_MAX ? ref.len : OM_JOB_ID_MAX;
	(void)!om_str_copy(ref, task->asked, sizeof(task->asked));
	provider_task_ask(sv, p, task, OM_LEDGER, OM_MSG_JOB_GET, &m, task_on_got);
}

static void
state_text(const struct provider_task *task, struct om_str state, struct om_why *why)
{
	(void)om_why_set(why, OM_ERR_STATE, "job %s is %.*s", task->id.text, OM_STR_ARG(state));
}

void
provider_task_wrong_state(struct om_service *sv, struct provider *p, struct provider_task *task,
			  struct om_str state)
{
	struct om_why why;

	state_text(task, state, &why);
	provider_task_finish(sv, p, task, OM_ERR_STATE, why.text);
}

bool
provider_task_watch(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	struct live *live = provider_live_find(p, om_str_of(task->id.text));
	enum om_err err = OM_ERR_NOT_FOUND;

	if (live != NULL) {
		err = provider_live_watch(sv, p, live, task);
	}
	if (err != OM_OK) {
		provider_task_finish(sv, p, task, err, om_err_text(err));
	}
	return err == OM_OK;
}

/* The watching is over, in this way. */
static void
task_over(struct om_service *sv, struct provider *p, struct provider_task *task, enum om_err err,
	  const char *text)
{
	if (!task->asking) {
		provider_task_finish(sv, p, task, err, text);
		return;
	}
	task->over = true;
	task->over_err = err;
	(void)om_why_set(&task->over_text, err, "%s", text);
}

void
provider_task_timeout(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	provider_live_unwatch(sv, p, task);
	task_over(sv, p, task, OM_ERR_TIMEOUT, "the job has not ended yet");
}

/* --- wait ------------------------------------------------------------------------------------- */

/* Has the job done what the waiting is for? */
static bool
wait_is_over(const struct provider_task *task, enum om_job_state now)
{
	const char *from = task->verb->state;

	return om_job_is_final(now) || task->moved ||
	       (from[0] != '\0' && strcmp(from, om_job_state_text(now)) != 0);
}

/* job.wait is answered with the row, not with a count: the verb ends here. */
static void
wait_answer(struct om_service *sv, struct provider *p, struct provider_task *task,
	    const struct om_job_info *info)
{
	struct provider_verb *verb = task->verb;

	om_service_reply_to(sv, &verb->rq, OM_MSG_JOB_INFO, info);
	provider_task_finish(sv, p, task, OM_OK, "");
}

/* Its row is read anew, and is the answer whatever it says by then: a state was left. */
void
provider_task_moved(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	struct om_job_ref m = { .job = om_str_of(task->id.text) };

	task->moved = true;
	provider_task_ask(sv, p, task, OM_LEDGER, OM_MSG_JOB_GET, &m, task_on_got);
}

void
provider_task_ended(struct om_service *sv, struct provider *p, struct provider_task *task,
		    const struct om_job_event *event)
{
	if (task->verb->type == OM_MSG_JOB_WAIT) {
		if (event->info != NULL) {
			wait_answer(sv, p, task, event->info);
		} else { /* the row did not come with the event: read it */
			struct om_job_ref m = { .job = om_str_of(task->id.text) };

			provider_task_ask(sv, p, task, OM_LEDGER, OM_MSG_JOB_GET, &m, task_on_got);
		}
	} else if (om_str_is(event->state, om_job_state_text(OM_JOB_CANCELLED))) {
		task_over(sv, p, task, OM_OK, "");
	} else {
		struct om_why why;

		state_text(task, event->state, &why);
		task_over(sv, p, task, OM_ERR_STATE, why.text);
	}
}

/* --- which verb -------------------------------------------------------------------------------- */

/* What each verb does with a row that the caller may touch. */
void
provider_task_got(struct om_service *sv, struct provider *p, struct provider_task *task,
		  const struct om_job_info *info)
{
	enum om_job_state now;

	if (om_str_copy(info->job, task->id.text, sizeof(task->id.text)) != OM_OK ||
	    om_job_state_parse(info->state.ptr, info->state.len, &now) != OM_OK) {
		provider_task_finish(sv, p, task, OM_ERR_INTERNAL, "the ledger's row is not valid");
		return;
	}
	task->was_held = info->held;
	task->adopted = provider_adopt(sv, p, info, NULL) && now == OM_JOB_QUEUED;
	switch ((int)task->verb->type) {
	case OM_MSG_JOB_WAIT:
		if (wait_is_over(task, now)) {
			wait_answer(sv, p, task, info);
		} else {
			(void)provider_task_watch(sv, p, task);
		}
		return;
	case OM_MSG_JOB_CANCEL:
		provider_cancel_got(sv, p, task, now);
		return;
	case OM_MSG_JOB_APPROVE:
	case OM_MSG_JOB_DENY:
		if (task->verb->type == OM_MSG_JOB_APPROVE &&
		    (now == OM_JOB_PENDING || task->adopted)) {
			provider_approve_got(sv, p, task, info);
		} else if (now != OM_JOB_PENDING) {
			provider_task_wrong_state(sv, p, task, info->state);
		} else {
			provider_task_move(sv, p, task, OM_JOB_DENIED, "denied",
					   "denied by the operator", provider_task_on_last);
		}
		return;
	case OM_MSG_JOB_RETRY:
		provider_retry_got(sv, p, task, info, now);
		return;
	default:
		if (now != OM_JOB_QUEUED) {
			provider_task_wrong_state(sv, p, task, info->state);
		} else {
			provider_place_got(sv, p, task);
		}
	}
}

/* --- requests --------------------------------------------------------------------------------- */

enum om_err
provider_on_wait(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_job_wait *m = in->body;
	enum om_job_state from;
	struct provider_verb *verb;
	struct om_why why;

	if (provider_is_ready(p, &why) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_STATE, "%s", why.text);
	}
	if (OM_HAS(m, job_wait, from) &&
	    om_job_state_parse(m->from.ptr, m->from.len, &from) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "from: there is no such state");
	}
	verb = provider_verb_new(sv, p, in);
	if (verb == NULL) {
		return OM_ERR_NOMEM;
	}
	(void)!om_str_copy(m->from, verb->state, sizeof(verb->state)); /* a state's name fits */
	verb->rq = om_service_later(sv, in);
	provider_task_begin(sv, p, verb, m->job);
	provider_verb_unpend(sv, p, verb);
	return OM_OK;
}

enum om_err
provider_on_cancel(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_job_cancel *m = in->body;
	bool one = OM_HAS(m, job_cancel, job);
	bool many = OM_HAS(m, job_cancel, state) || OM_HAS(m, job_cancel, peer) ||
		    OM_HAS(m, job_cancel, level);
	struct provider_verb *verb;
	struct om_why why;
	enum om_err err;

	if (provider_is_ready(p, &why) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_STATE, "%s", why.text);
	}
	if (one == many) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID,
					    "say which: job, or state, peer and level");
	}
	verb = provider_verb_new(sv, p, in);
	if (verb == NULL) {
		return OM_ERR_NOMEM;
	}
	verb->has_grace = OM_HAS(m, job_cancel, grace_ms);
	verb->grace_ms = m->grace_ms;
	err = om_str_copy(m->reason, verb->reason, sizeof(verb->reason));
	if (err != OM_OK) {
		provider_verb_free(p, verb);
		return err;
	}
	verb->rq = om_service_later(sv, in);
	if (one) {
		provider_task_begin(sv, p, verb, m->job);
		provider_verb_unpend(sv, p, verb);
		return OM_OK;
	}
	err = provider_bulk_begin(sv, p, verb, m);
	if (err != OM_OK) {
		om_service_reply_err_to(sv, &verb->rq, err, "state, peer or level is not valid");
		provider_verb_free(p, verb);
	}
	return OM_OK;
}

/* The service stops: every asker is told, every task is freed. */
void
provider_verbs_fini(struct om_service *sv, struct provider *p)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&p->live, &walk)) != NULL) {
		struct live *live = (struct live *)node;

		while (live->more != NULL && !TAILQ_EMPTY(&live->more->watchers)) {
			task_free(p, TAILQ_FIRST(&live->more->watchers));
		}
	}
	while (!TAILQ_EMPTY(&p->tasks)) {
		task_free(p, TAILQ_FIRST(&p->tasks));
	}
	while (!TAILQ_EMPTY(&p->verbs)) {
		struct provider_verb *verb = TAILQ_FIRST(&p->verbs);

		om_service_reply_err_to(sv, &verb->rq, OM_ERR_SHUTDOWN, "the daemon is stopping");
		provider_verb_free(p, verb);
	}
}
