/* SPDX-License-Identifier: ISC */
/*
 * Jobs on their way into the queue, and jobs that wait for others before that.
 *
 * A waiting job is not in the queue.  Its row says `queued`, with the reason `dependency`; the
 * ledger knows for ever what it waits for and is asked once, when the job is stored or recovered.
 * An edge leads from each job that has not ended to those that wait for it.
 *
 * 1. Answers and events of the ledger arrive in order: what the answer calls live is in `live`, and
 *    its end comes after the answer.  If broken: a job waits for ever.
 * 2. An end that another attempt follows is no end: the ledger says `final` once.
 * 3. A cycle cannot be made: a job waits for jobs that are stored already, and never for itself.
 */
#include <stdio.h>
#include <stdlib.h>

#include "actors/job_array.h"
#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"

#define WRITE_RETRY_NS (INT64_C(60) * OM_NS_PER_S)
#define QUEUE_RETRY_MS 1000

struct waiting {
	LIST_ENTRY(waiting) link; /* in provider.orphans */
	struct live *live; /* NULL: it is over */
	struct schedule plan;
	struct edges edges;
	size_t left; /* edges */
	bool asked; /* the ledger's answer is on its way */
	bool stopped; /* it has failed, or is being cancelled: not to be released */
	bool failed;
	bool unknown; /* the ledger could not say */
	char why[OM_WHY_MAX];
};

struct edge {
	LIST_ENTRY(edge) at_other; /* in other->more->dependents */
	LIST_ENTRY(edge) at_waiting;
	struct waiting *waiting;
	bool any; /* any end will do */
};

/* --- into the queue --------------------------------------------------------------------------- */

void
provider_schedule_of(const struct om_job_info *info, struct schedule *out)
{
	*out = (struct schedule){
		.cores = info->cores,
		.mem_mib = info->mem_mib,
		.not_before_s = info->not_before_ms / 1000 + (info->not_before_ms % 1000 != 0),
		.held = info->held,
		/* One that has run once has waited already. */
		.waits = info->after_count > 0 && info->attempt == 0,
		.rank = info->rank,
		.first = info->rank < 0,
		.array_limit = (uint32_t)info->array_limit,
	};
	if (om_str_copy(info->job, out->id.text, sizeof(out->id.text)) != OM_OK) {
		out->id.text[0] = '\0'; /* the queue refuses it */
	}
	if (om_job_level_parse(info->level, &out->level) != OM_OK) {
		out->level = OM_LEVEL_EXTERNAL;
	}
}

void
provider_schedule_add(const struct schedule *s, struct om_str peer, struct om_queue_add *add)
{
	struct om_str array;
	uint32_t index;

	*add = (struct om_queue_add){ .job = om_str_of(s->id.text),
				      .level = om_str_of(om_job_level_text(s->level)),
				      .cores = s->cores,
				      .mem_mib = s->mem_mib };
	if (peer.len > 0) {
		OM_SET(add, queue_add, peer, peer);
	}
	if (s->not_before_s > 0) {
		OM_SET(add, queue_add, not_before, s->not_before_s);
	}
	if (s->held) {
		OM_SET(add, queue_add, held, true);
	}
	if (s->array_limit > 0 && om_job_array_split(add->job, &array, &index)) {
		OM_SET(add, queue_add, array, array);
		OM_SET(add, queue_add, array_limit, s->array_limit);
	}
	if (s->again) {
		OM_SET(add, queue_add, again, true);
	}
}

static void
comeback_done(struct om_service *sv, struct provider *p, struct comeback *job)
{
	const bool counted = job->counted;

	LIST_REMOVE(job, link);
	free(job);
	if (counted) {
		provider_recover_step(sv, p);
	}
}

static void
queue_refused(struct om_service *sv, const struct schedule *s, enum om_err err, const char *text)
{
	om_warn("provider.queue", "job %s is not queued: %s", s->id.text, text);
	provider_move(sv, om_str_of(s->id.text), OM_JOB_REJECTED, om_err_code(err), text);
}

/* It says nothing of the job. */
static bool
may_be_added_later(enum om_err err)
{
	return err == OM_ERR_FULL || err == OM_ERR_NOMEM || err == OM_ERR_SHUTDOWN;
}

/* The job is durable: it is not given up because there was no room for a message. */
static void
bring_later(struct om_service *sv, struct provider *p, struct comeback *job)
{
	job->refused = true;
	if (p->queue_timer == 0 && om_timer_start(om_service_cx(sv), QUEUE_RETRY_MS, 0,
						  PROVIDER_TIMER_QUEUE, &p->queue_timer) != OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM); /* the restart brings it */
	}
}

void
provider_on_queue_timer(struct om_service *sv, struct provider *p)
{
	struct comeback *job, *next;

	p->queue_timer = 0;
	for (job = LIST_FIRST(&p->comebacks); job != NULL; job = next) {
		next = LIST_NEXT(job, link);
		if (job->refused) {
			job->refused = false;
			provider_schedule_comeback(sv, p, job);
		}
	}
}

static void
on_added(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct comeback *job = (struct comeback *)(uintptr_t)answer->cookie;

	if (may_be_added_later(answer->err)) {
		bring_later(sv, provider_of(state), job);
		return;
	}
	/* EXISTS: only we were restarted.  GONE, TIMEOUT: with the queue we restart too. */
	if (answer->err != OM_OK && answer->err != OM_ERR_EXISTS && answer->err != OM_ERR_GONE &&
	    answer->err != OM_ERR_TIMEOUT) {
		/* What this machine lends may have shrunk since: then it would wait for ever. */
		queue_refused(sv, &job->plan, answer->err, answer->text);
	}
	comeback_done(sv, provider_of(state), job);
}

static void
on_moved_first(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	if (answer->err != OM_OK && answer->err != OM_ERR_STATE) {
		om_debug("provider.queue", "a job is not first of its level: %s", answer->text);
	}
}

void
provider_schedule_comeback(struct om_service *sv, struct provider *p, struct comeback *job)
{
	struct om_queue_move first = { .job = om_str_of(job->plan.id.text) };
	struct om_queue_add add;
	enum om_err err;

	provider_schedule_add(&job->plan, (struct om_str){ NULL, 0 }, &add);
	OM_SET(&first, queue_move, to, OM_STR("front"));
	err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_ADD, &add, NULL, PROVIDER_QUEUE_MS,
			     on_added, (uintptr_t)job);
	if (err == OM_OK && job->plan.first) {
		err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_MOVE, &first, NULL,
				     PROVIDER_QUEUE_MS, on_moved_first, 0);
		if (err != OM_OK) {
			om_debug("provider.queue", "job %s is not first: %s", job->plan.id.text,
				 om_err_text(err));
		}
	} else if (may_be_added_later(err)) {
		bring_later(sv, p, job);
	} else if (err != OM_OK) { /* with the queue we restart too */
		om_error("provider.queue", "job %s: %s", job->plan.id.text, om_err_text(err));
		comeback_done(sv, p, job);
	}
}

void
provider_schedule(struct om_service *sv, struct provider *p, const struct schedule *s)
{
	struct comeback *job;

	if (s->waits) {
		if (provider_wait_for_others(sv, p, s) != OM_OK) {
			queue_refused(sv, s, OM_ERR_NOMEM, "out of memory");
		}
		return;
	}
	job = calloc(1, sizeof(*job));
	if (job == NULL) {
		om_error("provider.queue", "job %s: out of memory", s->id.text);
		return;
	}
	job->plan = *s;
	LIST_INSERT_HEAD(&p->comebacks, job, link);
	provider_schedule_comeback(sv, p, job);
}

/* --- waiting ---------------------------------------------------------------------------------- */

static struct waiting *
waiting_of(const struct live *live)
{
	return live->more != NULL ? live->more->waiting : NULL;
}

static void
edge_free(struct edge *edge)
{
	LIST_REMOVE(edge, at_other);
	LIST_REMOVE(edge, at_waiting);
	free(edge);
}

static void
waiting_free(struct provider *p, struct waiting *w)
{
	while (!LIST_EMPTY(&w->edges)) {
		edge_free(LIST_FIRST(&w->edges));
	}
	if (w->live != NULL) {
		w->live->more->waiting = NULL;
		w->live = NULL;
		if (w->asked) { /* the answer frees it */
			LIST_INSERT_HEAD(&p->orphans, w, link);
			return;
		}
	}
	if (!w->asked) {
		free(w);
	}
}

static void
on_placed(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	if (answer->err != OM_OK) {
		om_debug("provider.after", "the reason of a job is not up to date: %s",
			 answer->text);
	}
}

/* Nothing keeps it any more. */
static void
release(struct om_service *sv, struct provider *p, struct waiting *w)
{
	struct om_ledger_place place = { .job = om_str_of(w->plan.id.text) };
	struct schedule plan = w->plan;
	enum om_err err;

	OM_SET(&place, ledger_place, reason, OM_STR("ready"));
	OM_SET(&place, ledger_place, text, OM_STR("the jobs that it waited for have ended"));
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_PLACE, &place, NULL, PROVIDER_LEDGER_MS,
			     on_placed, 0);
	if (err != OM_OK) {
		om_debug("provider.after", "job %s: %s", plan.id.text, om_err_text(err));
	}
	waiting_free(p, w);
	plan.waits = false;
	provider_schedule(sv, p, &plan);
}

static void
release_if_ready(struct om_service *sv, struct provider *p, struct waiting *w)
{
	if (w->left == 0 && !w->stopped && !w->asked && !w->unknown) {
		release(sv, p, w);
	}
}

/* The ledger may not be able to take it, or to say it, now. */
static void
write_later(struct om_service *sv, struct provider *p, struct waiting *w)
{
	if (provider_live_expires(sv, p, w->live, p->wall().ns + WRITE_RETRY_NS) != OM_OK) {
		om_warn("provider.after", "out of memory");
	}
}

/* It cannot run.  When the ledger cannot write that now, the expiry timer tries again. */
static void
waiting_fails(struct om_service *sv, struct provider *p, struct waiting *w, struct om_str other,
	      struct om_str state)
{
	if (w->stopped) {
		return;
	}
	w->stopped = true;
	w->failed = true;
	(void)snprintf(w->why, sizeof(w->why), "job %.*s, which it waited for, ended as %.*s",
		       OM_STR_ARG(other), OM_STR_ARG(state));
	provider_move(sv, om_str_of(w->plan.id.text), OM_JOB_FAILED, "dependency_failed", w->why);
	write_later(sv, p, w);
}

/* One of the jobs that it waits for, as the ledger has it. */
static void
waiting_look(struct om_service *sv, struct provider *p, struct waiting *w,
	     const struct om_ledger_dep *dep)
{
	enum om_job_state state = OM_JOB_LOST;
	struct live *other;
	struct edge *edge;

	if (om_job_state_parse(dep->state.ptr, dep->state.len, &state) == OM_OK &&
	    om_job_is_final(state)) {
		if (!dep->any && !om_job_is_success(state)) {
			waiting_fails(sv, p, w, dep->job, dep->state);
		}
		return;
	}
	other = provider_live_find(p, dep->job);
	edge = calloc(1, sizeof(*edge));
	if (other == NULL || edge == NULL || provider_live_more(other) == NULL) {
		free(edge);
		waiting_fails(sv, p, w, dep->job, OM_STR("unknown: out of memory"));
		return;
	}
	edge->waiting = w;
	edge->any = dep->any;
	LIST_INSERT_HEAD(&other->more->dependents, edge, at_other);
	LIST_INSERT_HEAD(&w->edges, edge, at_waiting);
	w->left++;
}

static void
on_deps(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct waiting *w = (struct waiting *)(uintptr_t)answer->cookie;
	const struct om_ledger_deps *m = answer->body;

	w->asked = false;
	if (w->live == NULL) { /* it ended meanwhile */
		LIST_REMOVE(w, link);
		free(w);
		return;
	}
	if (answer->err != OM_OK) {
		w->unknown = true;
		write_later(sv, p, w);
		return;
	}
	for (size_t i = 0; i < m->deps.n && !w->stopped; i++) {
		waiting_look(sv, p, w, &m->deps.v[i]);
	}
	release_if_ready(sv, p, w);
}

static enum om_err
ask_deps(struct om_service *sv, struct waiting *w)
{
	struct om_job_ref ref = { .job = om_str_of(w->plan.id.text) };
	enum om_err err;

	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_AFTER, &ref, NULL, PROVIDER_LEDGER_MS,
			     on_deps, (uintptr_t)w);
	w->asked = err == OM_OK;
	return err;
}

enum om_err
provider_wait_for_others(struct om_service *sv, struct provider *p, const struct schedule *s)
{
	struct live *live = provider_live_find(p, om_str_of(s->id.text));
	struct waiting *w;
	enum om_err err;

	if (live == NULL || provider_live_more(live) == NULL) {
		return OM_ERR_NOMEM;
	}
	w = calloc(1, sizeof(*w));
	if (w == NULL) {
		return OM_ERR_NOMEM;
	}
	w->plan = *s;
	LIST_INIT(&w->edges);
	w->live = live;
	live->more->waiting = w;
	err = ask_deps(sv, w);
	if (err != OM_OK) {
		waiting_free(p, w);
	}
	return err;
}

bool
provider_waits_again(struct om_service *sv, struct live *live)
{
	struct waiting *w = waiting_of(live);

	if (w == NULL) {
		return false;
	}
	if (w->failed) {
		provider_move(sv, live_id(live), OM_JOB_FAILED, "dependency_failed", w->why);
	} else if (w->unknown && !w->asked && ask_deps(sv, w) == OM_OK) {
		w->unknown = false;
	}
	return true;
}

/* --- verbs over a waiting job ----------------------------------------------------------------- */

bool
provider_waits(const struct live *live)
{
	return waiting_of(live) != NULL;
}

size_t
provider_waits_for(const struct live *live)
{
	const struct waiting *w = waiting_of(live);

	return w != NULL ? w->left : 0;
}

bool
provider_waits_hold(struct live *live, bool held)
{
	struct waiting *w = waiting_of(live);

	if (w != NULL) {
		w->plan.held = held;
	}
	return w != NULL;
}

bool
provider_waits_move(struct live *live, bool first, const enum om_job_level *level)
{
	struct waiting *w = waiting_of(live);

	if (w != NULL) {
		w->plan.first = first;
		w->plan.level = level != NULL ? *level : w->plan.level;
	}
	return w != NULL;
}

bool
provider_waits_stop(struct live *live)
{
	struct waiting *w = waiting_of(live);

	if (w != NULL) {
		w->stopped = true;
	}
	return w != NULL;
}

void
provider_waits_resume(struct om_service *sv, struct provider *p, struct live *live)
{
	struct waiting *w = waiting_of(live);

	if (w != NULL && !w->failed) {
		w->stopped = false;
		release_if_ready(sv, p, w);
	}
}

/* --- ends ------------------------------------------------------------------------------------- */

void
provider_after_ended(struct om_service *sv, struct provider *p, struct live *live,
		     struct om_str state)
{
	const bool success = om_str_is(state, om_job_state_text(OM_JOB_COMPLETED));
	struct edge *edge;

	if (live->more == NULL) {
		return;
	}
	while ((edge = LIST_FIRST(&live->more->dependents)) != NULL) {
		struct waiting *w = edge->waiting;
		const bool met = success || edge->any;

		edge_free(edge);
		w->left--;
		if (met) {
			release_if_ready(sv, p, w);
		} else {
			waiting_fails(sv, p, w, live_id(live), state);
		}
	}
}

void
provider_after_forget(struct provider *p, struct live *live)
{
	struct waiting *w = waiting_of(live);

	if (w != NULL) {
		waiting_free(p, w);
	}
}

void
provider_after_fini(struct provider *p)
{
	while (!LIST_EMPTY(&p->orphans)) {
		struct waiting *w = LIST_FIRST(&p->orphans);

		LIST_REMOVE(w, link);
		free(w);
	}
}
