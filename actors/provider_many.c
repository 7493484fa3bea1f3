/* SPDX-License-Identifier: ISC */
/*
 * Submits that are at the same step go on together: one question to the filter, to the ledger and to the
 * queue for all that came in one turn of the service, of a batch or of many clients, and one answer with
 * a result for each.
 *
 * 1. Each is decided, stored and queued as if it had asked alone, in the order in which they came to the
 *    step.
 * 2. What waits here goes at the end of the turn, at the latest.  If broken: nobody asks for it ever.
 * 3. An error of the question is the error of each.
 */
#include <stdio.h>
#include <stdlib.h>

#include "actors/names.h"
#include "actors/provider_submit_impl.h"

/* A question, and whom its results are for. */
struct many {
	LIST_ENTRY(many) link; /* in provider.questions once it is asked */
	size_t n, bytes;
	struct submit *submits[PROVIDER_MANY_MAX];
};

/* --- answers ---------------------------------------------------------------------------------- */

/* The question of an answer; the caller frees it. */
static struct many *
many_of(const struct om_bus_answer *answer)
{
	struct many *q = (struct many *)(uintptr_t)answer->cookie;

	LIST_REMOVE(q, link);
	return q;
}

/* OM_OK: there is a result for each. */
static enum om_err
many_check(const struct many *q, const struct om_bus_answer *answer, size_t results)
{
	return answer->err == OM_OK && results != q->n ? OM_ERR_INTERNAL : answer->err;
}

static const char *
many_text(enum om_err err, const struct om_bus_answer *answer)
{
	return err == answer->err ? answer->text : om_err_text(err);
}

/* The error of one result; NULL: none.  Its text is copied, as it has no NUL. */
static enum om_err
result_error(const struct om_error *error, struct om_why *text)
{
	enum om_err err = OM_OK;

	text->text[0] = '\0';
	if (error != NULL) {
		err = om_err_from_code(error->code.ptr, error->code.len);
		err = err == OM_OK ? OM_ERR_INTERNAL : err;
		(void)om_why_set(text, err, "%.*s", OM_STR_ARG(error->text));
	}
	return err;
}

static void
on_decided(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	const struct om_filter_decisions *m = answer->body;
	struct many *q = many_of(answer);
	enum om_err err = many_check(q, answer, answer->err == OM_OK ? m->decisions.n : 0);

	for (size_t i = 0; i < q->n; i++) {
		if (err == OM_OK) {
			provider_submit_decided(sv, p, q->submits[i], &m->decisions.v[i]);
		} else {
			provider_submit_fail(sv, p, q->submits[i], err, many_text(err, answer));
		}
	}
	free(q);
}

static void
on_stored(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	const struct om_ledger_results *m = answer->body;
	struct many *q = many_of(answer);
	enum om_err err = many_check(q, answer, answer->err == OM_OK ? m->results.n : 0), one;
	struct om_why text;

	/* All are looked up in turn: in a large table each is a cache miss, which they share so. */
	for (size_t i = 0; i < q->n; i++) {
		q->submits[i]->hash = om_name_hash(om_str_of(q->submits[i]->id.text));
		om_name_table_expect(&p->live, q->submits[i]->hash);
	}
	for (size_t i = 0; i < q->n; i++) {
		if (err == OM_OK) {
			one = result_error(m->results.v[i].error, &text);
			provider_submit_stored(sv, p, q->submits[i], one, text.text,
					       m->results.v[i].duplicate);
		} else {
			provider_submit_stored(sv, p, q->submits[i], err, many_text(err, answer),
					       false);
		}
	}
	free(q);
}

static void
on_added(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	const struct om_queue_results *m = answer->body;
	struct many *q = many_of(answer);
	enum om_err err = many_check(q, answer, answer->err == OM_OK ? m->results.n : 0), one;
	struct om_why text;

	for (size_t i = 0; i < q->n; i++) {
		if (err == OM_OK) {
			one = result_error(m->results.v[i].error, &text);
			provider_submit_added(sv, p, q->submits[i], one, text.text,
					      m->results.v[i].ahead);
		} else {
			provider_submit_added(sv, p, q->submits[i], err, many_text(err, answer), 0);
		}
	}
	free(q);
}

/* --- questions -------------------------------------------------------------------------------- */

static enum om_err
ask_filter(struct om_service *sv, struct provider *p, struct many *q)
{
	struct om_filter_requests m = { 0 };

	m.requests.v = om_arena_alloc(&p->arena, q->n * sizeof(*m.requests.v));
	if (m.requests.v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (; m.requests.n < q->n; m.requests.n++) {
		provider_submit_ask_filter(q->submits[m.requests.n], &m.requests.v[m.requests.n]);
	}
	return om_service_ask(sv, OM_FILTER_MANAGER, OM_MSG_FILTER_DECIDE_MANY, &m, NULL,
			      PROVIDER_FILTER_MS, on_decided, (uintptr_t)q);
}

static enum om_err
ask_ledger(struct om_service *sv, struct provider *p, struct many *q)
{
	struct om_job_info *info = om_arena_alloc(&p->arena, q->n * sizeof(*info));
	struct om_ledger_submits m = { 0 };

	m.jobs.v = om_arena_alloc(&p->arena, q->n * sizeof(*m.jobs.v));
	if (info == NULL || m.jobs.v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (; m.jobs.n < q->n; m.jobs.n++) {
		provider_submit_ask_ledger(q->submits[m.jobs.n], &info[m.jobs.n],
					   &m.jobs.v[m.jobs.n]);
	}
	return om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_SUBMIT_MANY, &m, NULL,
			      PROVIDER_LEDGER_MS, on_stored, (uintptr_t)q);
}

static enum om_err
ask_queue(struct om_service *sv, struct provider *p, struct many *q)
{
	struct schedule *plans = om_arena_alloc(&p->arena, q->n * sizeof(*plans));
	struct om_queue_adds m = { 0 };

	m.jobs.v = om_arena_alloc(&p->arena, q->n * sizeof(*m.jobs.v));
	if (plans == NULL || m.jobs.v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (; m.jobs.n < q->n; m.jobs.n++) {
		const struct submit *s = q->submits[m.jobs.n];

		provider_submit_plan(s, &plans[m.jobs.n]);
		provider_schedule_add(&plans[m.jobs.n], om_str_of(s->peer), &m.jobs.v[m.jobs.n]);
	}
	return om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_ADD_MANY, &m, NULL, PROVIDER_QUEUE_MS,
			      on_added, (uintptr_t)q);
}

/* It could not be asked. */
static void
step_failed(struct om_service *sv, struct provider *p, enum submit_step step, struct submit *s,
	    enum om_err err)
{
	const char *text = om_err_text(err);

	switch ((int)step) {
	case SUBMIT_AT_LEDGER:
		provider_submit_stored(sv, p, s, err, text, false);
		break;
	case SUBMIT_AT_QUEUE:
		provider_submit_added(sv, p, s, err, text, 0);
		break;
	default:
		provider_submit_fail(sv, p, s, err, text);
	}
}

/* What waits at the step is asked for. */
static void
many_flush(struct om_service *sv, struct provider *p, enum submit_step step)
{
	static enum om_err (*const ask[SUBMIT_STEPS])(struct om_service *, struct provider *,
						      struct many *) = {
		[SUBMIT_AT_FILTER] = ask_filter,
		[SUBMIT_AT_LEDGER] = ask_ledger,
		[SUBMIT_AT_QUEUE] = ask_queue,
	};
	struct many *q = p->waiting_at[step];
	enum om_err err;

	if (q == NULL) {
		return;
	}
	p->waiting_at[step] = NULL;
	om_arena_reset(&p->arena);
	err = ask[step](sv, p, q);
	if (err == OM_OK) {
		LIST_INSERT_HEAD(&p->questions, q, link);
		return;
	}
	for (size_t i = 0; i < q->n; i++) {
		step_failed(sv, p, step, q->submits[i], err);
	}
	free(q);
}

void
provider_many_add(struct om_service *sv, struct provider *p, enum submit_step step,
		  struct submit *s)
{
	struct many *q = p->waiting_at[step];

	if (q != NULL && q->bytes + s->spec_len > PROVIDER_MANY_BYTES) {
		many_flush(sv, p, step);
		q = NULL;
	}
	if (q == NULL) {
		q = malloc(sizeof(*q));
		if (q == NULL) {
			step_failed(sv, p, step, s, OM_ERR_NOMEM);
			return;
		}
		q->n = 0;
		q->bytes = 0;
		p->waiting_at[step] = q;
	}
	q->submits[q->n++] = s;
	q->bytes += s->spec_len;
	if (q->n == PROVIDER_MANY_MAX) {
		many_flush(sv, p, step);
	}
}

void
provider_many_ask(struct om_service *sv, struct provider *p)
{
	for (int step = 0; step < SUBMIT_STEPS; step++) {
		many_flush(sv, p, (enum submit_step)step);
	}
}

void
provider_many_fini(struct provider *p)
{
	for (int step = 0; step < SUBMIT_STEPS; step++) {
		free(p->waiting_at[step]);
		p->waiting_at[step] = NULL;
	}
	while (!LIST_EMPTY(&p->questions)) {
		struct many *q = LIST_FIRST(&p->questions);

		LIST_REMOVE(q, link);
		free(q);
	}
}
