/* SPDX-License-Identifier: ISC */
/* A job's place in the queue, what it waits for, and its removal. */
#include <inttypes.h>
#include <stdio.h>
#include "actors/ledger_impl.h"

#define PURGE_MAX 10000 /* jobs that one request removes; who wants more asks again */

/* --- place ------------------------------------------------------------------------------------ */

/*
 * The rank of a job that is moved: before or behind all ranks that submission gives, and before or
 * behind those moved earlier, for as long as the clock runs forward.
 */
static enum om_err
place_rank(struct om_str to, struct om_wall now, struct om_job_place *place)
{
	if (om_str_is(to, "front")) {
		place->rank = -now.ns;
	} else if (om_str_is(to, "back")) {
		place->rank = now.ns;
	} else {
		return OM_ERR_INVALID;
	}
	place->set_rank = true;
	return OM_OK;
}

static enum om_err
place_fill(const struct om_ledger_place *m, struct om_job_place *place)
{
	enum om_job_level level;
	enum om_err err = OM_OK;

	if (OM_HAS(m, ledger_place, held)) {
		place->set_held = true;
		place->held = m->held;
		place->note.event = m->held ? OM_STR("held") : OM_STR("released");
	}
	if (OM_HAS(m, ledger_place, paused)) {
		place->note.event = m->paused ? OM_STR("paused") : OM_STR("resumed");
	}
	if (OM_HAS(m, ledger_place, to)) {
		err = place_rank(m->to, place->at, place);
	}
	if (err == OM_OK && OM_HAS(m, ledger_place, level)) {
		err = om_job_level_parse(m->level, &level);
		if (err == OM_OK) {
			place->set_level = true;
			place->level = (int32_t)om_job_level_priority(level);
		}
	}
	if (place->set_rank || place->set_level) {
		place->note.event = OM_STR("moved");
	}
	if (OM_HAS(m, ledger_place, reason)) {
		place->set_text = true;
		place->reason = m->reason;
		place->text = m->text;
	}
	return err;
}

enum om_err
ledger_on_place(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_ledger_place *m = in->body;
	struct om_job_place place = { .at = ledger_now(l) };
	char details[OM_JOB_TEXT_MAX + 128];
	struct om_job_row row;
	struct om_job_id id;
	enum om_err err;

	if (om_job_id_parse(m->job.ptr, m->job.len, &id) != OM_OK ||
	    place_fill(m, &place) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "no such job, level or place");
	}
	(void)snprintf(details, sizeof(details), "%s%.*s%s%.*s%s%.*s",
		       m->to.len > 0 ? "to the " : "", OM_STR_ARG(m->to),
		       m->level.len > 0 ? " level " : "", OM_STR_ARG(m->level),
		       m->text.len > 0 ? " " : "", OM_STR_ARG(m->text));
	place.note.actor = m->by.len > 0 ? m->by : om_str_of(in->from);
	place.note.details = om_str_of(details);
	err = ledger_begin(l);
	if (err == OM_OK) {
		err = om_store_job_place(l->store, &id, &place, &row);
	}
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	return ledger_answer_later(sv, l, in, OM_MSG_JOB_INFO, ledger_info(l, &row));
}

/* --- what a job waits for --------------------------------------------------------------------- */

enum om_err
ledger_on_after(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_job_ref *m = in->body;
	struct om_ledger_deps *deps = om_arena_alloc(&l->arena, sizeof(*deps));
	struct om_job_after after[OM_JOB_AFTER_MAX];
	struct om_job_id id;
	size_t count = 0;
	enum om_err err;

	if (om_job_id_parse(m->job.ptr, m->job.len, &id) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "no such job");
	}
	err = om_store_job_after(l->store, &id, after, OM_COUNT(after), &count);
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	if (deps != NULL && count > 0) {
		deps->deps.v = om_arena_alloc(&l->arena, count * sizeof(*deps->deps.v));
	}
	if (deps == NULL || (count > 0 && deps->deps.v == NULL)) {
		return OM_ERR_NOMEM;
	}
	for (size_t i = 0; i < count; i++) {
		struct om_ledger_dep *dep = &deps->deps.v[deps->deps.n++];

		*dep = (struct om_ledger_dep){ 0 };
		OM_SET(dep, ledger_dep, job, ledger_keep(l, after[i].id.text));
		OM_SET(dep, ledger_dep, state, om_str_of(om_job_state_text(after[i].state)));
		OM_SET(dep, ledger_dep, any, after[i].when == OM_AFTER_END);
	}
	return ledger_answer_read(sv, l, in, OM_MSG_LEDGER_DEPS, deps);
}

/* --- purge ------------------------------------------------------------------------------------ */

static enum om_err
purge_one(struct ledger *l, struct om_str job, struct om_str owner, uint64_t *removed)
{
	struct om_job_id ids[2];
	size_t count;
	enum om_err err;

	err = om_store_job_find(l->store, job, owner, ids, OM_COUNT(ids), &count);
	if (err == OM_OK) {
		err = om_store_job_remove(l->store, &ids[0]);
		*removed += err == OM_OK;
	} else if (ledger_array_find(l, job, owner, &ids[0])) {
		err = ledger_array_remove(l, &ids[0], owner, removed);
	}
	return err;
}

/* By id; a requester its own alone.  Those that may not go are told in *out, and do not keep the rest. */
static enum om_err
purge_named(struct ledger *l, const struct om_in *in, const struct om_job_purge *m,
	    uint64_t *removed, struct om_count *out)
{
	const struct om_str owner = in->caller->role == OM_ROLE_REQUESTER
					? om_str_of(in->caller->peer)
					: (struct om_str){ 0 };
	struct om_ref_failed_list failed = { 0 };
	enum om_err err = OM_OK, one;
	const char *name;

	failed.v = om_arena_alloc(&l->arena, m->jobs.n * sizeof(*failed.v));
	if (failed.v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (size_t i = 0; i < m->jobs.n; i++) {
		struct om_ref_failed *row = &failed.v[failed.n];

		one = purge_one(l, m->jobs.v[i], owner, removed);
		if (one == OM_OK) {
			continue;
		}
		err = one;
		if (one != OM_ERR_NOT_FOUND && one != OM_ERR_STATE && one != OM_ERR_INVALID) {
			break; /* the store's own trouble */
		}
		name = om_arena_str(&l->arena, m->jobs.v[i]); /* the answer outlives the request */
		if (name == NULL) {
			return OM_ERR_NOMEM;
		}
		*row = (struct om_ref_failed){ .job = om_str_of(name),
					       .code = om_str_of(om_err_code(one)) };
		row->job.len = row->job.len < OM_JOB_ID_MAX ? row->job.len : OM_JOB_ID_MAX;
		OM_SET(row, ref_failed, text, ledger_keep(l, om_store_why(l->store)));
		failed.n++;
	}
	if (failed.n > 0) {
		OM_SET(out, count, failed, failed);
	}
	return err;
}

static enum om_err
purge_many(struct ledger *l, const struct om_job_purge *m, uint64_t *removed)
{
	struct om_purge purge = { .finished_before = ledger_wall(m->before_ms) };
	enum om_job_state state;
	enum om_err err;

	if (!OM_HAS(m, job_purge, before_ms)) {
		purge.finished_before.ns = ledger_now(l).ns + 1;
	}
	for (size_t i = 0; i < m->states.n; i++) {
		const struct om_str text = m->states.v[i];

		if (om_job_state_parse(text.ptr, text.len, &state) != OM_OK ||
		    !om_job_is_final(state)) {
			return om_why_set(&l->store->why, OM_ERR_INVALID,
					  "%.*s is not a state of an ended job", OM_STR_ARG(text));
		}
		purge.states |= OM_JOB_BIT(state);
	}
	do {
		err = om_store_purge(l->store, &purge);
		*removed += err == OM_OK ? purge.jobs : 0;
	} while (err == OM_OK && purge.more && purge.jobs > 0 && *removed < PURGE_MAX);
	return err;
}

enum om_err
ledger_on_purge(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_job_purge *m = in->body;
	struct om_count *count = om_arena_alloc(&l->arena, sizeof(*count)); /* zeroed */
	struct om_audit_note note = { .event = OM_STR("purged"),
				      .actor = om_str_of(in->caller->peer) };
	const bool named = m->jobs.n > 0;
	uint64_t removed = 0;
	char text[96];
	enum om_err err;

	if (!named && in->caller->role == OM_ROLE_REQUESTER) {
		return om_service_reply_err(sv, in, OM_ERR_DENIED, "name the jobs");
	}
	err = count != NULL ? ledger_begin(l) : OM_ERR_NOMEM;
	if (err == OM_OK) {
		err = named ? purge_named(l, in, m, &removed, count) : purge_many(l, m, &removed);
	}
	/* Some may be gone already; they are counted, and the rest is told. */
	if (err != OM_OK && removed == 0) {
		return ledger_refuse(sv, l, in, err);
	}
	if (removed > 0) {
		(void)snprintf(text, sizeof(text), "%" PRIu64 " ended jobs removed", removed);
		note.details = om_str_of(text);
		err = om_store_audit_append(l->store, ledger_now(l), &note);
		if (err != OM_OK) {
			return ledger_refuse(sv, l, in, err);
		}
	}
	OM_SET(count, count, count, removed);
	return ledger_answer_later(sv, l, in, OM_MSG_COUNTED, count);
}
