/* SPDX-License-Identifier: ISC */
/*
 * The queue's verbs: hold, release, move, pause, resume, limits, counters.  The row of a job is the
 * provider's to change; whether the queue is paused is ours, an entry of the ledger's list "queue".
 */
#include <inttypes.h>
#include <stdio.h>

#include "actors/job_queue_impl.h"
#include "actors/names.h"
#include "base/log.h"

#define QUEUE_LIST    "queue"
#define QUEUE_PAUSED  "paused"
#define GATE_RETRY_MS 1000

enum om_err
jobq_on_hold(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_job_ref *m = in->body;
	enum om_err err = om_job_order_hold(q->order, m->job);

	jobq_run(sv, q);
	return err == OM_OK ? om_service_reply_ok(sv, in) : err;
}

enum om_err
jobq_on_release(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_job_ref *m = in->body;
	enum om_err err = om_job_order_release(q->order, m->job, q->wall());

	jobq_run(sv, q);
	return err == OM_OK ? om_service_reply_ok(sv, in) : err;
}

enum om_err
jobq_on_move(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_queue_move *m = in->body;
	enum om_job_level level;
	enum om_err err;

	err = om_job_order_level(q->order, m->job, &level);
	if (err == OM_OK && OM_HAS(m, queue_move, level)) {
		err = om_job_level_parse(m->level, &level);
	}
	if (err == OM_OK) {
		err = om_job_order_move(q->order, m->job, level, om_str_is(m->to, "front"));
	}
	jobq_run(sv, q);
	return err == OM_OK ? om_service_reply_ok(sv, in) : err;
}

/* --- pause ------------------------------------------------------------------------------------ */

static void
gate_open(struct om_service *sv, struct job_queue *q)
{
	q->gated = false;
	jobq_run(sv, q);
}

static void
gate_later(struct om_service *sv)
{
	uint64_t timer;

	if (om_timer_start(om_service_cx(sv), GATE_RETRY_MS, 0, TIMER_GATE, &timer) != OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM);
	}
}

static void
gate_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct job_queue *q = jobq_of(state);
	const struct om_ledger_items *m = answer->body;

	if (!q->gated) {
		return;
	}
	if (answer->err != OM_OK) {
		om_warn("queue.paused", "whether it was paused is not known yet: %s", answer->text);
		gate_later(sv);
		return;
	}
	for (size_t i = 0; i < m->items.n; i++) {
		const struct om_ledger_item *item = &m->items.v[i];

		if (om_str_is(item->key, QUEUE_PAUSED)) {
			om_job_order_pause(q->order, (struct om_str){ (const char *)item->value.ptr,
								      item->value.len });
			om_info("queue.paused", "still, since before the start");
		}
	}
	gate_open(sv, q);
}

void
jobq_gate(struct om_service *sv, struct job_queue *q)
{
	struct om_ledger_list list = { .list = OM_STR(QUEUE_LIST) };
	enum om_err err;

	q->gated = true;
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_LIST, &list, NULL, JOBQ_LEDGER_MS,
			     gate_on_answer, 0);
	if (err == OM_ERR_NOT_FOUND) { /* a queue without a ledger */
		gate_open(sv, q);
	} else if (err != OM_OK) {
		gate_later(sv);
	}
}

static void
pause_on_kept(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct jobq_ask *ask = jobq_ask_of(answer->cookie);

	(void)state;
	if (answer->err == OM_OK) {
		om_service_reply_to(sv, &ask->rq, OM_MSG_OK, &(struct om_empty){ 0 });
	} else {
		struct om_why why;

		(void)om_why_set(&why, answer->err, "in force, but a restart will undo it: %s",
				 answer->text);
		om_service_reply_err_to(sv, &ask->rq, answer->err, why.text);
	}
	jobq_ask_free(ask);
}

/* In force at once, answered when a restart would not undo it. */
static enum om_err
pause_keep(struct om_service *sv, struct job_queue *q, const struct om_in *in,
	   const struct om_str *reason)
{
	struct om_ledger_set set = { .list = OM_STR(QUEUE_LIST), .key = OM_STR(QUEUE_PAUSED) };
	struct jobq_ask *ask;
	enum om_err err;

	if (in->caller->role == OM_ROLE_ACTOR) { /* the daemon stops: no operator's wish */
		return om_service_reply_ok(sv, in);
	}
	if (reason != NULL) {
		OM_SET(&set, ledger_set, value,
		       ((struct om_bin){ (const uint8_t *)reason->ptr, reason->len }));
	} else {
		OM_SET(&set, ledger_set, remove, true);
	}
	OM_SET(&set, ledger_set, by, om_str_of(in->caller->peer));
	ask = jobq_ask_new(q, (struct om_str){ NULL, 0 });
	if (ask == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_SET, &set, NULL, JOBQ_LEDGER_MS,
			     pause_on_kept, (uintptr_t)ask);
	if (err != OM_OK) {
		jobq_ask_free(ask);
		return err;
	}
	ask->rq = om_service_later(sv, in);
	return OM_OK;
}

enum om_err
jobq_on_pause(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_reason *m = in->body;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	q->gated = false; /* it is known now */
	om_job_order_pause(q->order, m->reason);
	om_info("queue.paused", "%.*s", OM_STR_ARG(m->reason));
	return pause_keep(sv, q, in, &m->reason);
}

enum om_err
jobq_on_resume(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	q->gated = false;
	om_job_order_resume(q->order);
	om_info("queue.resumed", "starts are allowed");
	jobq_run(sv, q);
	return pause_keep(sv, q, in, NULL);
}

/* --- limits and counters ---------------------------------------------------------------------- */

enum om_err
jobq_on_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_queue_limits *m = in->body;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (om_job_order_set_max_jobs(q->order, m->max_jobs) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "max_jobs is at least 1");
	}
	if (q->live != NULL) {
		q->live->max_jobs = m->max_jobs;
	}
	om_info("queue.limits", "at most %" PRIu64 " jobs at a time", m->max_jobs);
	jobq_run(sv, q);
	return om_service_reply_ok(sv, in);
}

enum om_err
jobq_on_policy(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_policy *m = in->body;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	om_job_order_set_age(q->order, m->age_after_ms);
	if (q->live != NULL) {
		q->live->has_age = true;
		q->live->age_ms = m->age_after_ms;
	}
	jobq_run(sv, q); /* ageing changes who is next */
	return om_service_reply_ok(sv, in);
}

/* What keeps all jobs goes before what keeps this one. */
enum om_err
jobq_on_why(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_job_ref *m = in->body;
	struct om_queue_waits out = { 0 };
	struct om_order_why why;
	enum om_err err = om_job_order_why(q->order, m->job, &why);

	if (err != OM_OK) {
		return err;
	}
	if (why.may_start && (q->gated || q->closed || q->quiet_unknown || q->retry_timer != 0)) {
		why.code = "starting";
		(void)snprintf(why.text, sizeof(why.text), "%s",
			       q->retry_timer != 0 ? "the machine cannot take a job at the moment"
						   : "the daemon is starting");
	}
	if (why.code != NULL) {
		OM_SET(&out, queue_waits, waits, om_str_of(why.code));
		OM_SET(&out, queue_waits, text, om_str_of(why.text));
	}
	if (why.may_start) {
		OM_SET(&out, queue_waits, ahead, why.ahead);
	}
	return om_service_reply(sv, in, OM_MSG_QUEUE_WAITS, &out);
}

enum om_err
jobq_on_draining(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_drain *m = in->body;

	(void)sv;
	if (in->caller->role != OM_ROLE_ACTOR) {
		return OM_ERR_DENIED;
	}
	q->draining = m->on;
	return om_str_copy(m->reason, q->drain_reason, sizeof(q->drain_reason));
}

enum om_err
jobq_on_stats(struct om_service *sv, void *state, const struct om_in *in)
{
	struct job_queue *q = jobq_of(state);
	const struct om_order_limits *limits = om_job_order_limits(q->order);
	char text[OM_LEVELS][OM_ORDER_TEXT_MAX];
	struct om_str reasons[OM_LEVELS];
	struct om_queue_stats out = { 0 };
	struct om_order_stats s;
	char counts[OM_LEVELS][24];
	struct om_pair levels[OM_LEVELS];
	size_t n = 0;

	om_job_order_stats(q->order, &s);
	for (unsigned level = 0; level < OM_LEVELS; level++) {
		(void)snprintf(counts[level], sizeof(counts[level]), "%" PRIu64, s.ready[level]);
		levels[level] =
		    (struct om_pair){ om_str_of(om_job_level_text((enum om_job_level)level)),
				      om_str_of(counts[level]) };
	}
	for (unsigned level = 0; level < OM_LEVELS; level++) {
		if (om_job_order_waiting(q->order, (enum om_job_level)level, text[n],
					 sizeof(text[n]))) {
			reasons[n] = om_str_of(text[n]);
			n++;
		}
	}
	out.queued = s.queued;
	out.held = s.held;
	out.running = s.running;
	out.max_jobs = limits->max_jobs;
	out.paused = om_job_order_paused(q->order);
	out.total_queued = s.total_queued;
	out.total_completed = s.total_completed;
	out.total_failed = s.total_failed;
	out.total_cancelled = s.total_cancelled;
	out.success_rate = s.success_rate;
	OM_SET(&out, queue_stats, levels, ((struct om_pairs){ levels, OM_LEVELS }));
	OM_SET(&out, queue_stats, delayed, s.delayed);
	OM_SET(&out, queue_stats, parked, s.parked);
	OM_SET(&out, queue_stats, cores_used, s.cores_used);
	OM_SET(&out, queue_stats, cores_total, limits->cores_total);
	OM_SET(&out, queue_stats, mem_mib_used, s.mem_mib_used);
	OM_SET(&out, queue_stats, mem_mib_total, limits->mem_mib_total);
	if (in->caller->role != OM_ROLE_REQUESTER) { /* they name jobs of others */
		OM_SET(&out, queue_stats, waiting_reasons, ((struct om_strs){ reasons, n }));
	}
	if (out.paused) {
		OM_SET(&out, queue_stats, pause_reason,
		       om_str_of(om_job_order_pause_reason(q->order)));
	}
	if (q->draining) {
		OM_SET(&out, queue_stats, draining, true);
		OM_SET(&out, queue_stats, drain_reason, om_str_of(q->drain_reason));
	}
	return om_service_reply(sv, in, OM_MSG_QUEUE_STATE, &out);
}
