/* SPDX-License-Identifier: ISC */
/*
 * The actor around job_order: messages in, exec.start out.
 *
 * 1. A job that was picked is with the executor, or is put back, or is ended here.  The executor's
 *    answer to exec.start decides which; exec.done ends it.  If broken: a slot is lost for ever.
 * 2. The queue never changes a job's state in the ledger, except for a job that the executor
 *    refused (failed) or that was cancelled while the executor refused it (cancelled): nobody else
 *    would.
 */
#include "actors/job_queue_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "actors/names.h"
#include "base/log.h"
#include "store/job_state.h"

#define START_TIMEOUT_MS  10000 /* the executor only takes the job, it does not boot yet */
#define CANCEL_TIMEOUT_MS 10000
#define RETRY_MS          1000 /* after the executor refused */
#define DUE_MAX_MS        (UINT64_C(3600) * 1000) /* wall clocks are set: look again */

struct jobq_ask *
jobq_ask_new(struct job_queue *q, struct om_str job)
{
	struct jobq_ask *ask = calloc(1, sizeof(*ask));

	if (ask != NULL && om_str_copy(job, ask->job.text, sizeof(ask->job.text)) != OM_OK) {
		free(ask);
		return NULL;
	}
	if (ask != NULL) {
		LIST_INSERT_HEAD(&q->asks, ask, link);
	}
	return ask;
}

void
jobq_ask_free(struct jobq_ask *ask)
{
	if (ask != NULL) {
		LIST_REMOVE(ask, link);
		free(ask);
	}
}

/* --- starting --------------------------------------------------------------------------------- */

static void
jobq_on_moved(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	if (answer->err != OM_OK) {
		om_warn("queue.ledger", "a job's end could not be recorded: %s", answer->text);
	}
}

static void
jobq_record_end(struct om_service *sv, struct om_str job, enum om_job_state to, const char *reason,
		const char *text)
{
	struct om_ledger_move move = { .job = job, .state = om_str_of(om_job_state_text(to)) };
	enum om_err err;

	OM_SET(&move, ledger_move, reason, om_str_of(reason));
	OM_SET(&move, ledger_move, text, om_str_of(text));
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_MOVE, &move, NULL, JOBQ_LEDGER_MS,
			     jobq_on_moved, 0);
	if (err != OM_OK) {
		om_warn("queue.ledger", "job %.*s: its end could not be recorded: %s",
			OM_STR_ARG(job), om_err_text(err));
	}
}

/* The executor could not take it now: back to its place, and nothing starts for a while. */
static void
jobq_put_back(struct om_service *sv, struct job_queue *q, struct om_str job)
{
	if (om_job_order_put_back(q->order, job) == OM_ERR_CANCELLED) {
		jobq_record_end(sv, job, OM_JOB_CANCELLED, "cancelled",
				"cancelled before it started");
	}
	if (q->retry_timer == 0 &&
	    om_timer_start(om_service_cx(sv), RETRY_MS, 0, TIMER_RETRY, &q->retry_timer) != OM_OK) {
		q->retry_timer = 0;
	}
}

static bool
may_try_again(enum om_err err)
{
	return err == OM_ERR_FULL || err == OM_ERR_GONE || err == OM_ERR_TIMEOUT ||
	       err == OM_ERR_SHUTDOWN || err == OM_ERR_NOMEM || err == OM_ERR_NOT_FOUND;
}

static void
jobq_refused(struct om_service *sv, struct job_queue *q, struct om_str job, enum om_err err,
	     const char *text)
{
	om_warn("queue.start_refused", "job %.*s: %s", OM_STR_ARG(job), text);
	if (may_try_again(err)) {
		jobq_put_back(sv, q, job);
	} else if (om_job_order_end(q->order, job, OM_ORDER_FAILED) == OM_OK) {
		jobq_record_end(sv, job, OM_JOB_FAILED, om_err_code(err), text);
	}
}

static void
jobq_on_started(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct job_queue *q = jobq_of(state);
	struct jobq_ask *ask = jobq_ask_of(answer->cookie);

	/* EXISTS: an earlier start whose answer came too late; the executor has the job. */
	if (answer->err != OM_OK && answer->err != OM_ERR_EXISTS) {
		jobq_refused(sv, q, om_str_of(ask->job.text), answer->err, answer->text);
	}
	jobq_ask_free(ask);
	jobq_run(sv, q);
}

static enum om_err
jobq_start_one(struct om_service *sv, struct job_queue *q, const struct om_order_job *job)
{
	struct om_exec_start start = { .job = job->id,
				       .cores = job->cores,
				       .mem_mib = job->mem_mib };
	struct jobq_ask *ask = jobq_ask_new(q, job->id);
	enum om_err err;

	if (ask == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_START, &start, NULL, START_TIMEOUT_MS,
			     jobq_on_started, (uintptr_t)ask);
	if (err != OM_OK) {
		jobq_ask_free(ask);
	}
	return err;
}

/* Starts are not kept back by what is not known yet, or by an executor that has refused one. */
static bool
jobq_is_open(const struct job_queue *q)
{
	return q->retry_timer == 0 && !q->gated && !q->quiet_unknown && !q->closed;
}

static void
jobq_arm_due(struct om_service *sv, struct job_queue *q)
{
	struct om_ctx *cx = om_service_cx(sv);
	/* While nothing starts nobody wakes a job that is due: its time would come again and again. */
	int64_t due_ns = jobq_is_open(q) ? om_job_order_due(q->order).ns : 0;
	int64_t wait_ms;

	if (due_ns == q->due_ns) {
		return;
	}
	om_timer_cancel(cx, q->due_timer);
	q->due_timer = 0;
	q->due_ns = due_ns;
	if (due_ns == 0) {
		return;
	}
	wait_ms = (due_ns - q->wall().ns) / OM_NS_PER_MS + 1;
	if (wait_ms < 1) {
		wait_ms = 1;
	} else if ((uint64_t)wait_ms > DUE_MAX_MS) {
		wait_ms = (int64_t)DUE_MAX_MS;
	}
	if (om_timer_start(cx, (uint64_t)wait_ms, 0, TIMER_DUE, &q->due_timer) != OM_OK) {
		q->due_ns = 0; /* the next message arms it */
	}
}

static void
jobq_run_at(struct om_service *sv, struct job_queue *q, struct om_wall now)
{
	struct om_order_job job;

	while (jobq_is_open(q) && om_job_order_pick(q->order, now, &job)) {
		struct om_job_id id; /* a copy: a refused job may be freed */
		enum om_err err = om_str_copy(job.id, id.text, sizeof(id.text));

		OM_ASSERT(err == OM_OK);
		err = jobq_start_one(sv, q, &job);
		if (err != OM_OK) {
			jobq_refused(sv, q, om_str_of(id.text), err, om_err_text(err));
		}
	}
	jobq_arm_due(sv, q);
}

/* Starts what may start.  After every change. */
void
jobq_run(struct om_service *sv, struct job_queue *q)
{
	jobq_run_at(sv, q, q->wall());
}

/* --- jobs in and out -------------------------------------------------------------------------- */

/*
 * The next attempt of a job whose last one is not known here to have ended: exec.done and the
 * provider's word come from two services, in any order.  It is added when exec.done is there.
 */
static enum om_err
again_keep(struct job_queue *q, const struct om_order_job *job)
{
	struct jobq_again *again;

	if (job->group.len > job->id.len) {
		return OM_ERR_INVALID;
	}
	again = calloc(1, sizeof(*again));
	if (again == NULL) {
		return OM_ERR_NOMEM;
	}
	if (om_str_copy(job->id, again->id.text, sizeof(again->id.text)) != OM_OK) {
		free(again);
		return OM_ERR_INVALID;
	}
	again->job = *job;
	again->job.id = om_str_of(again->id.text);
	again->job.group.ptr = again->id.text; /* the beginning of its jobs' ids */
	LIST_INSERT_HEAD(&q->agains, again, link);
	return OM_OK;
}

/* Gives it, or NULL; the caller frees it. */
static struct jobq_again *
again_take(struct job_queue *q, struct om_str id)
{
	struct jobq_again *again;

	LIST_FOREACH(again, &q->agains, link)
	{
		if (om_str_eq(again->job.id, id)) {
			LIST_REMOVE(again, link);
			return again;
		}
	}
	return NULL;
}

static void
again_add(struct om_service *sv, struct job_queue *q, struct om_str id)
{
	struct jobq_again *again = again_take(q, id);
	struct om_why why = { "" };
	uint64_t ahead;

	if (again == NULL) {
		return;
	}
	if (om_job_order_add(q->order, &again->job, q->wall(), &ahead, &why) != OM_OK) {
		jobq_record_end(sv, again->job.id, OM_JOB_REJECTED, "queue", why.text);
	}
	free(again);
}

static enum om_err
jobq_add(struct job_queue *q, const struct om_queue_add *m, uint32_t hash, struct om_wall now,
	 uint64_t *ahead, struct om_why *why)
{
	struct om_order_job job = {
		.id = m->job,
		.hash = hash,
		.cores = (uint32_t)m->cores,
		.mem_mib = (uint32_t)m->mem_mib,
		.not_before = { (int64_t)m->not_before * OM_NS_PER_S },
		.held = m->held,
		.group = m->array,
		.group_limit = (uint32_t)m->array_limit,
	};
	enum om_err err;

	if (om_job_level_parse(m->level, &job.level) != OM_OK ||
	    m->not_before > INT64_MAX / OM_NS_PER_S) {
		return om_why_set(why, OM_ERR_INVALID, "the level or time is not valid");
	}
	err = om_job_order_add(q->order, &job, now, ahead, why);
	if (err == OM_ERR_EXISTS && m->again) {
		err = again_keep(q, &job);
	}
	return err;
}

static enum om_err
jobq_on_add(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	struct om_queue_added added = { 0 };
	struct om_why why = { "" };
	enum om_err err = jobq_add(q, in->body, 0, q->wall(), &added.ahead, &why);

	if (err != OM_OK) {
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	err = om_service_reply(sv, in, OM_MSG_QUEUE_ADDED, &added);
	jobq_run(sv, q);
	return err;
}

/* Without memory for the words: that it is not in the queue is said in any case. */
static void
many_refused(struct job_queue *q, enum om_err err, const char *why, struct om_error *error,
	     struct om_queue_result *out)
{
	const char *copy = om_arena_str(&q->arena, om_str_of(why));

	*error = (struct om_error){ .code = om_str_of(om_err_code(err)) };
	OM_SET(error, error, text, om_str_of(copy));
	OM_SET(out, queue_result, error, error);
}

/* Each may start before the next is added, as if it had come alone. */
static enum om_err
jobq_on_add_many(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_queue_adds *m = in->body;
	struct om_queue_results out = { 0 };
	const struct om_wall now = q->wall();
	struct om_error *errors;
	uint32_t *hashes;

	om_arena_reset(&q->arena);
	out.results.v = om_arena_alloc(&q->arena, m->jobs.n * sizeof(*out.results.v));
	errors = om_arena_alloc(&q->arena, m->jobs.n * sizeof(*errors));
	hashes = om_arena_alloc(&q->arena, m->jobs.n * sizeof(*hashes));
	if (out.results.v == NULL || errors == NULL || hashes == NULL) {
		return OM_ERR_NOMEM; /* of none it is said that it was not added when it was */
	}
	for (size_t i = 0; i < m->jobs.n; i++) {
		hashes[i] = om_job_order_expect(q->order, m->jobs.v[i].job);
	}
	for (; out.results.n < m->jobs.n; out.results.n++) {
		struct om_queue_result *result = &out.results.v[out.results.n];
		struct om_why why = { "" };
		uint64_t ahead = 0;
		enum om_err err = jobq_add(q, &m->jobs.v[out.results.n], hashes[out.results.n], now,
					   &ahead, &why);

		if (err == OM_OK) {
			OM_SET(result, queue_result, ahead, ahead);
			jobq_run_at(sv, q, now);
		} else {
			many_refused(q, err, why.text, &errors[out.results.n], result);
		}
	}
	return om_service_reply(sv, in, OM_MSG_QUEUE_ADDED_MANY, &out);
}

static void
jobq_on_exec_cancelled(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct om_queue_cancelled done = { .was_running = true };
	struct jobq_ask *ask = jobq_ask_of(answer->cookie);

	(void)state;
	/* NOT_FOUND: it has just ended, or was refused and is ended here.  Its last state tells. */
	if (answer->err == OM_OK || answer->err == OM_ERR_NOT_FOUND) {
		om_service_reply_to(sv, &ask->rq, OM_MSG_QUEUE_CANCELLED, &done);
	} else {
		om_service_reply_err_to(sv, &ask->rq, answer->err, answer->text);
	}
	jobq_ask_free(ask);
}

static enum om_err
jobq_cancel_running(struct om_service *sv, struct job_queue *q, const struct om_in *in)
{
	const struct om_queue_cancel *m = in->body;
	struct jobq_ask *ask = jobq_ask_new(q, m->job);
	enum om_err err;

	if (ask == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_CANCEL, m, NULL, CANCEL_TIMEOUT_MS,
			     jobq_on_exec_cancelled, (uintptr_t)ask);
	if (err != OM_OK) {
		jobq_ask_free(ask);
		return err;
	}
	ask->rq = om_service_later(sv, in);
	return OM_OK;
}

static enum om_err
jobq_on_cancel(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_queue_cancel *m = in->body;
	struct om_queue_cancelled done = { .was_running = false };
	struct jobq_again *again = again_take(q, m->job);
	bool running;
	enum om_err err;

	if (again != NULL) { /* of the attempt that runs only the end is missing */
		free(again);
		return om_service_reply(sv, in, OM_MSG_QUEUE_CANCELLED, &done);
	}
	err = om_job_order_cancel(q->order, m->job, &running);
	if (err != OM_OK) {
		return om_service_reply_err(sv, in, err, "job %.*s is not in the queue",
					    OM_STR_ARG(m->job));
	}
	if (running) {
		return jobq_cancel_running(sv, q, in);
	}
	err = om_service_reply(sv, in, OM_MSG_QUEUE_CANCELLED, &done);
	jobq_run(sv, q);
	return err;
}

/*
 * All that the ledger has is here, moved jobs in their places.  If we started jobs before: a lower level's
 * that were read first would go before the owner's.
 */
static enum om_err
jobq_on_open(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);

	q->closed = false;
	jobq_run(sv, q);
	return om_service_reply_ok(sv, in);
}

static enum om_err
jobq_on_done(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_exec_done *m = in->body;
	enum om_job_state to;
	enum om_err err;

	if (om_job_state_parse(m->state.ptr, m->state.len, &to) != OM_OK) {
		to = OM_JOB_FAILED;
	}
	if (to == OM_JOB_QUEUED) {
		jobq_put_back(sv, q, m->job);
		return OM_OK;
	}
	err = om_job_order_end(q->order, m->job,
			       om_job_is_success(to)    ? OM_ORDER_COMPLETED
			       : to == OM_JOB_CANCELLED ? OM_ORDER_CANCELLED
							: OM_ORDER_FAILED);
	if (err == OM_ERR_NOT_FOUND && om_job_order_drop(q->order, m->job) == OM_OK) {
		/* Its start had timed out here, so it was queued again; it is over all the same. */
		om_warn("queue.late_end", "job %.*s ended after its start had timed out",
			OM_STR_ARG(m->job));
	}
	again_add(sv, q, m->job);
	jobq_run(sv, q);
	return OM_OK;
}

/* --- the actor -------------------------------------------------------------------------------- */

static enum om_err
jobq_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct job_queue *q = jobq_of(state);
	const struct om_timer_fired *fired = (const void *)msg->payload;

	if (msg->type != OM_SYS_TIMER) {
		return OM_ERR_UNKNOWN_TYPE;
	}
	if (fired->cookie == TIMER_RETRY) {
		q->retry_timer = 0;
	} else if (fired->cookie == TIMER_GATE) {
		jobq_gate(sv, q);
	} else if (fired->cookie == TIMER_QUIET) {
		jobq_quiet_ask(sv, q);
	} else {
		q->due_timer = 0;
		q->due_ns = 0;
	}
	jobq_run(sv, q);
	return OM_OK;
}

static enum om_err
jobq_start(struct om_service *sv, void *state, const void *arg)
{
	struct job_queue *q = state;
	const struct om_job_queue_conf *conf = arg;
	struct om_order_limits limits = {
		.max_jobs = conf->max_jobs != 0 ? conf->max_jobs : 1,
		.cores_total = conf->cores_total,
		.mem_mib_total = conf->mem_mib_total,
		.age_ms = conf->age_ms,
	};

	enum om_err err;

	q->magic = JOB_QUEUE_MAGIC;
	q->wall = conf->wall != NULL ? conf->wall : om_wall_now;
	q->closed = conf->wait_for_recovery;
	q->live = conf->live;
	if (q->live != NULL && q->live->max_jobs != 0) {
		limits.max_jobs = q->live->max_jobs;
	}
	if (q->live != NULL && q->live->has_age) {
		limits.age_ms = q->live->age_ms;
	}
	LIST_INIT(&q->asks);
	LIST_INIT(&q->agains);
	err = om_job_order_new(&limits, &q->order);
	if (err == OM_OK) {
		jobq_gate(sv, q);
		jobq_quiet_ask(sv, q);
	}
	return err;
}

static void
jobq_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct job_queue *q = state;

	(void)why;
	while (!LIST_EMPTY(&q->asks)) {
		struct jobq_ask *ask = LIST_FIRST(&q->asks);

		om_service_reply_err_to(sv, &ask->rq, OM_ERR_SHUTDOWN, "the queue has stopped");
		jobq_ask_free(ask);
	}
	while (!LIST_EMPTY(&q->agains)) {
		struct jobq_again *again = LIST_FIRST(&q->agains);

		LIST_REMOVE(again, link);
		free(again);
	}
	om_job_order_free(q->order);
	om_arena_fini(&q->arena);
}

static const struct om_service_handler jobq_handlers[] = {
	{ OM_MSG_QUEUE_ADD, jobq_on_add },         { OM_MSG_EXEC_DONE, jobq_on_done },
	{ OM_MSG_QUEUE_CANCEL, jobq_on_cancel },   { OM_MSG_QUEUE_HOLD, jobq_on_hold },
	{ OM_MSG_QUEUE_RELEASE, jobq_on_release }, { OM_MSG_QUEUE_PAUSE, jobq_on_pause },
	{ OM_MSG_QUEUE_RESUME, jobq_on_resume },   { OM_MSG_QUEUE_LIMITS, jobq_on_limits },
	{ OM_MSG_QUEUE_STATS, jobq_on_stats },     { OM_MSG_QUEUE_MOVE, jobq_on_move },
	{ OM_MSG_QUEUE_QUIET, jobq_on_quiet },     { OM_MSG_QUEUE_OPEN, jobq_on_open },
	{ OM_MSG_CONFIG_POLICY, jobq_on_policy },  { OM_MSG_QUEUE_DRAINING, jobq_on_draining },
	{ OM_MSG_QUEUE_WHY, jobq_on_why },         { OM_MSG_QUEUE_ADD_MANY, jobq_on_add_many },
};

const struct om_service_def om_job_queue_service = {
	.name = OM_JOB_QUEUE,
	.state_size = sizeof(struct job_queue),
	.start = jobq_start,
	.stop = jobq_stop,
	.on = jobq_handlers,
	.on_count = OM_COUNT(jobq_handlers),
	.on_msg = jobq_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
