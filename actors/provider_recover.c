/* SPDX-License-Identifier: ISC */
/*
 * The start: the ledger is read page by page, oldest first.
 *
 *   pending_approval        waits on, with the expiry it had
 *   queued                  into the queue again, in the same order
 *   provisioning, running   left alone when the queue or the executor still has it (only we, or we
 *                           and the queue, were restarted); else lost, and queued again where the
 *                           job asks for it.  After a restart of the daemon the ledger has seen to
 *                           this.
 *
 * The provider is ready when all answers of the last page are there; then it opens the queue, so that
 * nothing starts before all is back in its place.
 *
 * The end: no submissions, no starts, then until nothing runs.  What runs at the deadline is ended, each
 * job with its undo and its record, in a time that is bounded too.  Each stop has a number, and an answer
 * to an earlier one is not heard.  If broken: its deadline ends the jobs of the one that took its place.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/executor.h"
#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"

#define RECOVER_RETRY_MS 1000
#define DRAIN_DEFAULT_MS 30000

/* The service stops in the middle of it. */
void
provider_recover_fini(struct provider *p)
{
	while (!LIST_EMPTY(&p->comebacks)) {
		struct comeback *job = LIST_FIRST(&p->comebacks);

		LIST_REMOVE(job, link);
		free(job);
	}
	free(p->moved);
	p->moved = NULL;
}

static void recover_page(struct om_service *sv, struct provider *p);
static bool recover_moved(struct om_service *sv, struct provider *p);

/* --- jobs ------------------------------------------------------------------------------------- */

static void
recover_on_open(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)state;
	if (answer->err != OM_OK &&
	    answer->err != OM_ERR_GONE) { /* with the queue we restart too */
		om_error("provider.recover", "the queue does not open: %s", answer->text);
		om_service_fail(sv, answer->err);
	}
}

static void
recover_open(struct om_service *sv)
{
	const struct om_empty nothing = { 0 };
	enum om_err err;

	err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_OPEN, &nothing, NULL, PROVIDER_QUEUE_MS,
			     recover_on_open, 0);
	if (err != OM_OK && err != OM_ERR_NOT_FOUND) {
		om_error("provider.recover", "the queue cannot be asked to open: %s",
			 om_err_text(err));
		om_service_fail(sv, err);
	}
}

static void
recover_ready(struct om_service *sv, struct provider *p)
{
	p->ready = true;
	recover_open(sv);
	om_info("provider.ready", "%" PRIu64 " jobs recovered, %" PRIu64 " of them were lost",
		p->recovered, p->lost);
	for (size_t i = 0; i < p->ping_count; i++) {
		struct om_empty ok = { 0 };

		om_service_reply_to(sv, &p->pings[i], OM_MSG_OK, &ok);
	}
	p->ping_count = 0;
}

void
provider_recover_step(struct om_service *sv, struct provider *p)
{
	OM_ASSERT(p->recovering > 0);
	if (--p->recovering > 0 || p->ready) {
		return;
	}
	if (!p->last_page) {
		recover_page(sv, p);
	} else if (!recover_moved(sv, p)) {
		recover_ready(sv, p);
	}
}

/*
 * Nobody has it.  Where the job asks for another attempt the ledger queues it again, and says so with
 * an event.
 */
static void
recover_lost(struct om_service *sv, struct provider *p, struct comeback *job)
{
	provider_move(sv, om_str_of(job->plan.id.text), OM_JOB_LOST, "daemon_ended",
		      "the daemon ended while the job was running");
	p->lost++;
	LIST_REMOVE(job, link);
	free(job);
	provider_recover_step(sv, p);
}

static void
recover_skip(struct om_service *sv, struct provider *p, struct comeback *job)
{
	LIST_REMOVE(job, link);
	free(job);
	provider_recover_step(sv, p);
}

/* The executor has it: it ends it now and records the end.  NOT_FOUND: nobody has it. */
static void
recover_on_cancelled(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct comeback *job = (struct comeback *)(uintptr_t)answer->cookie;

	if (answer->err == OM_OK) {
		recover_skip(sv, p, job);
		return;
	}
	recover_lost(sv, p, job);
}

/* The queue does not count its slot: the executor shall end it. */
static void
recover_end(struct om_service *sv, struct provider *p, struct comeback *job)
{
	struct om_queue_cancel m = { .job = om_str_of(job->plan.id.text) };
	enum om_err err;

	OM_SET(&m, queue_cancel, reason, OM_STR("the queue was restarted"));
	err = om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_CANCEL, &m, NULL, PROVIDER_QUEUE_MS,
			     recover_on_cancelled, (uintptr_t)job);
	if (err != OM_OK) { /* there is no executor: nothing runs */
		recover_lost(sv, p, job);
	}
}

static void
recover_on_out(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	recover_end(sv, provider_of(state), (struct comeback *)(uintptr_t)answer->cookie);
}

/*
 * A hold tells whether the queue has it: STATE means that it runs.  A queue that was restarted does not
 * have it.  OK means that it waits there although it was started (that start's answer came too late): it
 * is taken out, or it would be held there for ever, and its next attempt could not come.
 */
static void
recover_on_held(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct comeback *job = (struct comeback *)(uintptr_t)answer->cookie;
	struct om_queue_cancel out = { .job = om_str_of(job->plan.id.text) };

	if (answer->err == OM_ERR_STATE) {
		recover_skip(sv, p, job);
	} else if (answer->err != OM_OK ||
		   om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_CANCEL, &out, NULL,
				  PROVIDER_QUEUE_MS, recover_on_out, (uintptr_t)job) != OM_OK) {
		recover_end(sv, p, job);
	}
}

static void
recover_started(struct om_service *sv, struct provider *p, struct comeback *job)
{
	struct om_job_ref ref = { .job = om_str_of(job->plan.id.text) };
	enum om_err err;

	err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_HOLD, &ref, NULL, PROVIDER_QUEUE_MS,
			     recover_on_held, (uintptr_t)job);
	if (err != OM_OK) {
		/* The queue cannot tell, so the executor has to: else it "runs" for ever. */
		om_warn("provider.recover", "job %s: %s", job->plan.id.text, om_err_text(err));
		recover_end(sv, p, job);
	}
}

/* Jobs that were moved by hand are added last, the rest in order of submission. */
static bool
recover_keep_moved(struct provider *p, const struct schedule *plan)
{
	if (p->moved_count == p->moved_cap) {
		size_t cap = p->moved_cap == 0 ? 16 : p->moved_cap * 2;
		struct schedule *more = reallocarray(p->moved, cap, sizeof(*more));

		if (more == NULL) {
			return false;
		}
		p->moved = more;
		p->moved_cap = cap;
	}
	p->moved[p->moved_count++] = *plan;
	return true;
}

/* Those at the back in order; then those at the front, the foremost last: each goes first. */
static int
moved_cmp(const void *a, const void *b)
{
	const struct schedule *x = a, *y = b;
	int less = x->rank < y->rank ? -1 : x->rank > y->rank;

	if ((x->rank < 0) != (y->rank < 0)) {
		return -less;
	}
	return x->rank < 0 ? -less : less;
}

/* The recovery waits until the queue has it. */
static struct comeback *
recover_comeback(struct provider *p, const struct schedule *plan)
{
	struct comeback *job = calloc(1, sizeof(*job));

	if (job == NULL) {
		om_error("provider.recover", "job %s: out of memory", plan->id.text);
		return NULL;
	}
	job->plan = *plan;
	job->counted = true;
	LIST_INSERT_HEAD(&p->comebacks, job, link);
	p->recovering++; /* the page itself is counted too, so this cannot end here */
	return job;
}

/* A page of those that were moved, and no more: the queue's mailbox holds so many.  false: that was all. */
static bool
recover_moved(struct om_service *sv, struct provider *p)
{
	size_t end = p->moved_count;

	if (p->moved_next == 0 && p->moved_count > 0) {
		qsort(p->moved, p->moved_count, sizeof(*p->moved), moved_cmp);
	}
	if (p->moved_next == p->moved_count) {
		free(p->moved);
		p->moved = NULL;
		p->moved_count = p->moved_cap = p->moved_next = 0;
		return false;
	}
	end = end - p->moved_next > PROVIDER_PAGE ? p->moved_next + PROVIDER_PAGE : end;
	p->recovering = 1;
	while (p->moved_next < end) {
		struct comeback *job = recover_comeback(p, &p->moved[p->moved_next++]);

		if (job != NULL) {
			provider_schedule_comeback(sv, p, job);
		}
	}
	provider_recover_step(sv, p);
	return true;
}

static void
recover_job(struct om_service *sv, struct provider *p, const struct om_job_info *info,
	    bool was_started)
{
	struct comeback *job;
	struct schedule plan;

	provider_schedule_of(info, &plan);
	if (!was_started && plan.rank != 0 && !plan.waits && recover_keep_moved(p, &plan)) {
		return;
	}
	if (!was_started && plan.waits) {
		provider_schedule(sv, p, &plan);
		return;
	}
	job = recover_comeback(p, &plan);
	if (job == NULL) {
		return;
	}
	if (was_started) {
		recover_started(sv, p, job);
	} else {
		provider_schedule_comeback(sv, p, job);
	}
}

static void
recover_row(struct om_service *sv, struct provider *p, const struct om_job_info *info)
{
	enum om_job_state state;
	struct live *live;

	if (om_job_state_parse(info->state.ptr, info->state.len, &state) != OM_OK ||
	    om_job_is_final(state)) {
		return;
	}
	live = provider_live_add(p, info->job, info->peer, info->runtime_s);
	if (live == NULL) {
		om_error("provider.recover", "job %.*s: out of memory", OM_STR_ARG(info->job));
		return;
	}
	p->recovered++;
	switch ((int)state) {
	case OM_JOB_PENDING:
		if (provider_live_expires(sv, p, live, (int64_t)info->expires_ms * OM_NS_PER_MS) !=
		    OM_OK) {
			om_error("provider.recover", "job %.*s will not expire: out of memory",
				 OM_STR_ARG(info->job));
		}
		break;
	case OM_JOB_RECEIVED: /* never stored by us; whoever made the row meant it undecided */
		provider_move(sv, info->job, OM_JOB_REJECTED, "daemon_ended",
			      "the daemon ended before the job was decided");
		break;
	default:
		recover_job(sv, p, info, state != OM_JOB_QUEUED);
	}
}

static void
recover_on_page(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	const struct om_ledger_live *m = answer->body;
	uint64_t timer;

	if (answer->err != OM_OK) {
		om_warn("provider.recover", "the ledger cannot be read yet: %s", answer->text);
		p->recovering = 0;
		if (om_timer_start(om_service_cx(sv), RECOVER_RETRY_MS, 0, PROVIDER_TIMER_RECOVER,
				   &timer) != OM_OK) {
			om_service_fail(sv, OM_ERR_NOMEM);
		}
		return;
	}
	for (size_t i = 0; i < m->jobs.n; i++) {
		recover_row(sv, p, &m->jobs.v[i]);
	}
	p->last_page =
	    m->next.len == 0 || om_str_copy(m->next, p->cursor, sizeof(p->cursor)) != OM_OK;
	provider_recover_step(sv, p);
}

static void
recover_page(struct om_service *sv, struct provider *p)
{
	struct om_job_query query = { 0 };
	enum om_err err;
	uint64_t timer;

	OM_SET(&query, job_query, limit, PROVIDER_PAGE);
	if (p->cursor[0] != '\0') {
		OM_SET(&query, job_query, cursor, om_str_of(p->cursor));
	}
	p->recovering = 1;
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_RECOVER, &query, NULL, PROVIDER_LEDGER_MS,
			     recover_on_page, 0);
	if (err == OM_OK) {
		return;
	}
	p->recovering = 0;
	om_warn("provider.recover", "the ledger cannot be asked yet: %s", om_err_text(err));
	if (om_timer_start(om_service_cx(sv), RECOVER_RETRY_MS, 0, PROVIDER_TIMER_RECOVER,
			   &timer) != OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM);
	}
}

void
provider_recover(struct om_service *sv, struct provider *p)
{
	if (p->ready || p->recovering != 0) {
		return;
	}
	if (!p->drain_known) {
		provider_drain_look(sv, p);
	} else if (!p->ran_known) {
		provider_ran_look(sv, p);
	} else {
		recover_page(sv, p);
	}
}

enum om_err
provider_on_ping(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);

	if (p->ready) {
		return om_service_reply_ok(sv, in);
	}
	if (p->ping_count == OM_COUNT(p->pings)) {
		return OM_ERR_FULL;
	}
	p->pings[p->ping_count++] = om_service_later(sv, in);
	return OM_OK;
}

/* --- draining --------------------------------------------------------------------------------- */

static void stop_end(struct om_service *sv, struct provider *p, uint64_t grace_ms);

static void
stop_answer(struct om_service *sv, struct provider *p, enum om_err err, const char *text)
{
	struct om_empty ok = { 0 };

	if (err == OM_OK) {
		om_service_reply_to(sv, &p->stop_rq, OM_MSG_OK, &ok);
	} else {
		om_service_reply_err_to(sv, &p->stop_rq, err, text);
	}
}

static void
stop_on_drained(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);

	if (answer->cookie != p->stop_number) {
		return;
	}
	if (answer->err == OM_ERR_TIMEOUT && !p->stop_now) {
		om_warn("provider.stop", "jobs still run at the deadline: they are ended");
		stop_end(sv, p, OM_EXEC_STOP_GRACE_MS);
		return;
	}
	stop_answer(sv, p, answer->err, answer->text);
}

static void
stop_drain(struct om_service *sv, struct provider *p)
{
	struct om_empty nothing = { 0 };
	enum om_err err;

	err = om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_DRAIN, &nothing, NULL,
			     p->stop_now ? OM_EXEC_END_MS : p->drain_ms, stop_on_drained,
			     p->stop_number);
	if (err != OM_OK) {
		stop_answer(sv, p, err, om_err_text(err));
	}
}

static void
stop_on_cancelled(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);

	if (answer->cookie != p->stop_number) {
		return;
	}
	if (answer->err != OM_OK) {
		om_warn("provider.stop", "running jobs were not cancelled: %s", answer->text);
	}
	stop_drain(sv, p);
}

/* Ends what runs. */
static void
stop_end(struct om_service *sv, struct provider *p, uint64_t grace_ms)
{
	struct om_queue_cancel all = { .job = OM_STR("*") };
	enum om_err err;

	p->stop_now = true;
	OM_SET(&all, queue_cancel, grace_ms, grace_ms);
	OM_SET(&all, queue_cancel, reason, OM_STR("the daemon is stopping"));
	err = om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_CANCEL, &all, NULL, PROVIDER_STOP_ASK_MS,
			     stop_on_cancelled, p->stop_number);
	if (err != OM_OK) {
		stop_answer(sv, p, err, om_err_text(err));
	}
}

static void
stop_on_paused(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);

	if (answer->cookie != p->stop_number) {
		return;
	}
	if (answer->err != OM_OK) {
		om_warn("provider.stop", "the queue is not paused: %s", answer->text);
	}
	if (p->stop_now) {
		stop_end(sv, p, 0);
	} else {
		stop_drain(sv, p);
	}
}

/* A second stop (now, after a drain that takes too long) takes the place of the first. */
enum om_err
provider_on_stop(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_daemon_stop *m = in->body;
	struct om_reason reason = { 0 };
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	p->draining = true;
	if (om_str_copy(m->reason, p->stop_reason, sizeof(p->stop_reason)) != OM_OK) {
		p->stop_reason[0] = '\0';
	}
	OM_SET(&reason, reason, reason, OM_STR("the daemon is stopping"));
	err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_PAUSE, &reason, NULL,
			     PROVIDER_STOP_ASK_MS, stop_on_paused, p->stop_number + 1);
	if (err != OM_OK) {
		return err;
	}
	om_service_reply_err_to(sv, &p->stop_rq, OM_ERR_CANCELLED, "another stop took its place");
	p->stop_rq = om_service_later(sv, in);
	p->stop_number++;
	p->stop_now = m->now;
	p->drain_ms = OM_HAS(m, daemon_stop, timeout_ms) ? m->timeout_ms : DRAIN_DEFAULT_MS;
	return OM_OK;
}
