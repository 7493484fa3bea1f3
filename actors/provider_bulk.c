/* SPDX-License-Identifier: ISC */
/*
 * Cancelling in bulk: the ledger lists, page by page and as the caller, so that a requester's list
 * holds its own jobs alone.  The next page is asked for when all jobs of a page are done with.
 */
#include "actors/names.h"
#include "actors/provider_impl.h"

static void
bulk_on_page(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_verb *verb = (struct provider_verb *)(uintptr_t)answer->cookie;
	const struct om_job_table *m = answer->body;

	verb->cursor[0] = '\0';
	if (answer->err != OM_OK) {
		provider_verb_failed(verb, answer->err, answer->text);
		provider_verb_unpend(sv, p, verb);
		return;
	}
	for (size_t i = 0; i < m->jobs.n; i++) {
		const struct om_job_info *info = &m->jobs.v[i];
		struct provider_task *task;

		if (!verb->any_level && !om_str_is(info->level, om_job_level_text(verb->level))) {
			continue;
		}
		task = provider_task_new(p, verb);
		if (task == NULL) {
			provider_verb_failed(verb, OM_ERR_FULL, "too many questions wait already");
			break;
		}
		provider_task_got(sv, p, task, info);
	}
	if (om_str_copy(m->next, verb->cursor, sizeof(verb->cursor)) != OM_OK) {
		verb->cursor[0] = '\0';
	}
	provider_verb_unpend(sv, p, verb);
}

void
provider_bulk_page(struct om_service *sv, struct provider *p, struct provider_verb *verb)
{
	static const enum om_job_state live[] = { OM_JOB_PENDING, OM_JOB_QUEUED,
						  OM_JOB_PROVISIONING, OM_JOB_RUNNING };
	struct om_str states[OM_COUNT(live)];
	struct om_job_query query = { 0 };
	enum om_err err;

	for (size_t i = 0; i < OM_COUNT(live); i++) {
		states[i] = om_str_of(om_job_state_text(live[i]));
	}
	OM_SET(&query, job_query, states, ((struct om_strs){ states, OM_COUNT(states) }));
	if (verb->state[0] != '\0') {
		states[0] = om_str_of(verb->state);
		query.states.n = 1;
	}
	if (verb->peer[0] != '\0') {
		OM_SET(&query, job_query, peer, om_str_of(verb->peer));
	}
	if (verb->cursor[0] != '\0') {
		OM_SET(&query, job_query, cursor, om_str_of(verb->cursor));
	}
	OM_SET(&query, job_query, limit, PROVIDER_PAGE);
	verb->pending = 1;
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_JOB_LIST, &query, &verb->caller,
			     PROVIDER_LEDGER_MS, bulk_on_page, (uintptr_t)verb);
	if (err != OM_OK) {
		verb->cursor[0] = '\0';
		provider_verb_failed(verb, err, om_err_text(err));
		provider_verb_unpend(sv, p, verb);
	}
}

enum om_err
provider_bulk_begin(struct om_service *sv, struct provider *p, struct provider_verb *verb,
		    const struct om_job_cancel *m)
{
	enum om_job_state state;
	enum om_err err = OM_OK;

	if (OM_HAS(m, job_cancel, state)) {
		err = om_job_state_parse(m->state.ptr, m->state.len, &state);
	}
	if (err == OM_OK && OM_HAS(m, job_cancel, level)) {
		verb->any_level = false;
		err = om_job_level_parse(m->level, &verb->level);
	}
	if (err == OM_OK) {
		err = om_str_copy(m->state, verb->state, sizeof(verb->state));
	}
	if (err == OM_OK) {
		err = om_str_copy(m->peer, verb->peer, sizeof(verb->peer));
	}
	if (err == OM_OK) {
		verb->bulk = true;
		provider_bulk_page(sv, p, verb);
	}
	return err;
}
