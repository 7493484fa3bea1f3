/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_FAKE_LEDGER_H
#define OM_TESTS_ACTORS_FAKE_LEDGER_H

/* The played ledger of actors_fake.h: its jobs. */
#include "actors_fake_disk.h"
#include "actors_fake_entries.h"

/* What the row needs to know of the body. */
static void
fake_spec(struct fake_row *row, struct om_bin spec)
{
	struct om_job_submit body = { 0 };
	struct om_arena arena = { 0 };
	struct om_why why = { "" };

	om_buf_add(&row->spec, spec.ptr, spec.len);
	assert_int_equal(om_body_decode(OM_BODY_job_submit, spec, &body, &arena, &why), OM_OK);
	row->attempts_max = body.retries + 1;
	row->backoff_s = body.backoff_s;
	row->held = body.hold;
	row->requeue = body.requeue;
	row->after_any = body.after_any;
	om_arena_fini(&arena);
}

/* told: the row that is new; NULL: there was one. */
static enum om_err
fake_put(const struct om_ledger_submit *m, struct fake_row **told, struct om_str *state)
{
	char id[65];
	struct fake_row *row;

	if (disk.fail != OM_OK) {
		return disk.fail;
	}
	fake_copy(m->info->job, id, sizeof(id));
	row = fake_row(id);
	if (row != NULL) {
		if (!m->chosen || !om_str_is(m->info->peer, row->peer) ||
		    row->spec.len != m->spec.len ||
		    memcmp(row->spec.data, m->spec.ptr, m->spec.len) != 0) {
			return OM_ERR_EXISTS;
		}
		*state = om_str_of(om_job_state_text(row->state));
		*told = NULL;
		return OM_OK;
	}
	for (size_t i = 0; i < m->after.n; i++) {
		char other[65];

		fake_copy(m->after.v[i], other, sizeof(other));
		if (fake_row(other) == NULL) {
			return OM_ERR_NOT_FOUND;
		}
	}
	assert_true(disk.row_count < FAKE_JOBS);
	row = &disk.rows[disk.row_count++];
	memcpy(row->id, id, sizeof(row->id));
	assert_int_equal(om_job_state_parse(m->info->state.ptr, m->info->state.len, &row->state),
			 OM_OK);
	fake_copy(m->info->peer, row->peer, sizeof(row->peer));
	fake_copy(m->info->network_id, row->network, sizeof(row->network));
	fake_copy(m->info->level, row->level, sizeof(row->level));
	fake_copy(m->info->reason, row->reason, sizeof(row->reason));
	fake_copy(m->info->text, row->text, sizeof(row->text));
	row->cores = m->info->cores;
	row->mem_mib = m->info->mem_mib;
	row->runtime_s = m->info->runtime_s;
	row->expires_ms = m->info->expires_ms;
	row->submitted_ms = (uint64_t)(fake_now.ns / OM_NS_PER_MS);
	row->not_before_ms = m->not_before * 1000;
	for (size_t i = 0; i < m->after.n; i++) {
		fake_copy(m->after.v[i], row->after[row->after_count++], 65);
	}
	fake_spec(row, m->spec);
	*state = m->info->state;
	*told = row;
	return OM_OK;
}

static enum om_err
fake_on_submit(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_submit *m = in->body;
	struct om_ledger_stored stored = { .job = m->info->job };
	struct fake_row *row = NULL;
	enum om_err err = fake_put(m, &row, &stored.state);

	(void)state;
	if (err != OM_OK) {
		return err;
	}
	if (row == NULL) {
		OM_SET(&stored, ledger_stored, duplicate, true);
		return om_service_reply(sv, in, OM_MSG_LEDGER_STORED, &stored);
	}
	err = fake_reply(sv, in, OM_MSG_LEDGER_STORED, &stored);
	fake_tell(sv, row, "received", false);
	return err;
}

static enum om_err
fake_on_submit_many(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_submits *m = in->body;
	struct om_ledger_result results[FAKE_JOBS] = { 0 };
	struct om_error errors[FAKE_JOBS] = { 0 };
	struct om_ledger_results out = { .results = { results, m->jobs.n } };
	struct fake_row *told[FAKE_JOBS] = { NULL };
	struct om_str now;
	enum om_err err;

	(void)state;
	assert_true(m->jobs.n > 0 && m->jobs.n <= FAKE_JOBS);
	if (disk.many_fail != OM_OK) {
		return disk.many_fail;
	}
	disk.questions++;
	disk.together = m->jobs.n > disk.together ? m->jobs.n : disk.together;
	for (size_t i = 0; i < m->jobs.n; i++) {
		assert_false(m->jobs.v[i].array);
		err = fake_put(&m->jobs.v[i], &told[i], &now);
		if (err != OM_OK) {
			errors[i].code = om_str_of(om_err_code(err));
			OM_SET(&errors[i], error, text, om_str_of(om_err_text(err)));
			OM_SET(&results[i], ledger_result, error, &errors[i]);
		} else if (told[i] == NULL) {
			OM_SET(&results[i], ledger_result, duplicate, true);
		}
	}
	err = fake_reply(sv, in, OM_MSG_LEDGER_STORED_MANY, &out);
	for (size_t i = 0; i < m->jobs.n; i++) {
		if (told[i] != NULL) {
			fake_tell(sv, told[i], "received", false);
		}
	}
	return err;
}

/* The ledger's rule about attempts, as its own tests have it. */
static enum om_job_state
fake_again(const struct fake_row *row, enum om_job_state from)
{
	if (row->state == OM_JOB_LOST && row->requeue) {
		return OM_JOB_QUEUED;
	}
	if ((from != OM_JOB_PROVISIONING && from != OM_JOB_RUNNING) ||
	    (row->state != OM_JOB_FAILED && row->state != OM_JOB_TIMED_OUT &&
	     row->state != OM_JOB_LOST) ||
	    row->attempts_max <= 1) {
		return row->state;
	}
	return row->attempts < row->attempts_max ? OM_JOB_QUEUED : OM_JOB_DEAD;
}

static enum om_err
fake_on_move(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_move *m = in->body;
	struct om_job_info info;
	enum om_job_state to, from, again;
	struct fake_row *row;
	char id[65];

	(void)state;
	if (disk.fail != OM_OK) {
		return disk.fail;
	}
	fake_copy(m->job, id, sizeof(id));
	row = fake_row(id);
	if (row == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	assert_int_equal(om_job_state_parse(m->state.ptr, m->state.len, &to), OM_OK);
	if (!om_job_may_become(row->state, to)) {
		return OM_ERR_STATE;
	}
	from = row->state;
	row->state = to;
	fake_copy(m->reason, row->reason, sizeof(row->reason));
	fake_copy(m->text, row->text, sizeof(row->text));
	if (m->result != NULL) {
		struct fake_ran *ran = &disk.ran[disk.ran_count++];

		assert_true(disk.ran_count < FAKE_JOBS);
		row->wall_ms = m->result->wall_ms;
		*ran = (struct fake_ran){ .ms = row->wall_ms, .at_ns = fake_now.ns };
		memcpy(ran->peer, row->peer, sizeof(ran->peer));
		row->finished_ms = (uint64_t)(fake_now.ns / OM_NS_PER_MS);
	}
	row->attempts += to == OM_JOB_PROVISIONING;
	if (to == OM_JOB_PROVISIONING) {
		row->started_ms = (uint64_t)(fake_now.ns / OM_NS_PER_MS);
	}
	fake_info(row, &info);
	again = fake_again(row, from);
	fake_tell(sv, row, om_job_state_text(from), again != to);
	if (again != to) {
		row->state = again;
		if (again == OM_JOB_QUEUED && to != OM_JOB_LOST) {
			row->not_before_ms = (uint64_t)(fake_now.ns / OM_NS_PER_MS) +
					     (row->backoff_s << (row->attempts - 1)) * 1000;
		}
		fake_tell(sv, row, om_job_state_text(to), false);
	}
	return fake_reply(sv, in, OM_MSG_JOB_INFO, &info);
}

/* One entry for each attempt: the provider adds them up. */
static enum om_err
fake_on_ran(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_ran_query *m = in->body;
	struct om_ran peers[FAKE_JOBS];
	struct om_ledger_ran_table out = { .peers = { peers, 0 },
					   .at_ms = (uint64_t)(fake_now.ns / OM_NS_PER_MS) };

	(void)state;
	if (disk.fail != OM_OK) {
		return disk.fail;
	}
	for (size_t i = 0; i < disk.ran_count; i++) {
		if (disk.ran[i].at_ns / OM_NS_PER_MS >= (int64_t)m->since_ms) {
			peers[out.peers.n++] = (struct om_ran){ .peer = om_str_of(disk.ran[i].peer),
								.ms = disk.ran[i].ms };
		}
	}
	return om_service_reply(sv, in, OM_MSG_LEDGER_RAN_TABLE, &out);
}

static enum om_err
fake_on_place(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_place *m = in->body;
	int64_t now = fake_now.ns + disk.moves;
	struct om_job_info info;
	struct fake_row *row;
	char id[65];

	(void)state;
	if (disk.fail != OM_OK) {
		return disk.fail;
	}
	fake_copy(m->job, id, sizeof(id));
	row = fake_row(id);
	if (row == NULL || om_job_is_final(row->state)) {
		return row == NULL ? OM_ERR_NOT_FOUND : OM_ERR_STATE;
	}
	if (OM_HAS(m, ledger_place, held)) {
		row->held = m->held;
	}
	if (OM_HAS(m, ledger_place, to)) {
		row->rank = om_str_is(m->to, "front") ? -now : now;
		disk.moves++;
	}
	if (OM_HAS(m, ledger_place, level)) {
		fake_copy(m->level, row->level, sizeof(row->level));
	}
	if (OM_HAS(m, ledger_place, reason)) {
		fake_copy(m->reason, row->reason, sizeof(row->reason));
	}
	fake_info(row, &info);
	return om_service_reply(sv, in, OM_MSG_JOB_INFO, &info);
}

static enum om_err
fake_on_after(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_job_ref *m = in->body;
	struct om_ledger_dep deps[4] = { 0 };
	struct om_ledger_deps out = { .deps = { deps, 0 } };
	struct fake_row *row;
	char id[65];

	(void)state;
	if (disk.fail != OM_OK) {
		return disk.fail;
	}
	fake_copy(m->job, id, sizeof(id));
	row = fake_row(id);
	assert_non_null(row);
	for (size_t i = 0; i < row->after_count; i++) {
		struct om_ledger_dep *dep = &deps[out.deps.n++];

		OM_SET(dep, ledger_dep, job, om_str_of(row->after[i]));
		OM_SET(dep, ledger_dep, state,
		       om_str_of(om_job_state_text(fake_row(row->after[i])->state)));
		OM_SET(dep, ledger_dep, any, row->after_any);
	}
	return om_service_reply(sv, in, OM_MSG_LEDGER_DEPS, &out);
}

static bool
fake_may_see(const struct om_in *in, const struct fake_row *row)
{
	return in->caller->role != OM_ROLE_REQUESTER || strcmp(in->caller->peer, row->peer) == 0;
}

static enum om_err
fake_on_get(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_job_ref *m = in->body;
	const struct fake_row *got = NULL;
	struct om_job_info info;

	(void)state;
	for (size_t i = 0; i < disk.row_count; i++) {
		const struct fake_row *row = &disk.rows[i];

		/* A whole id is meant, however many longer ones begin so. */
		if (strncmp(row->id, m->job.ptr, m->job.len) == 0 && fake_may_see(in, row) &&
		    (got == NULL || strlen(row->id) == m->job.len)) {
			got = row;
		}
	}
	if (got == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	fake_info(got, &info);
	disk.asked++;
	return fake_reply(sv, in, OM_MSG_JOB_INFO, &info);
}

static bool
fake_in_states(const struct fake_row *row, const struct om_strs *states)
{
	for (size_t i = 0; i < states->n; i++) {
		if (om_str_is(states->v[i], om_job_state_text(row->state))) {
			return true;
		}
	}
	return states->n == 0;
}

/* Pages of two rows, so that paging is exercised. */
static enum om_err
fake_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_job_query *m = in->body;
	bool recover = in->type == OM_MSG_LEDGER_RECOVER;
	struct om_job_info infos[2];
	struct om_ledger_live live = { .jobs = { infos, 0 } };
	struct om_job_table table = { .jobs = { infos, 0 } };
	char cursor[16] = "";
	size_t i = 0, n = 0;

	(void)state;
	if (disk.fail != OM_OK && recover) {
		return disk.fail;
	}
	if (m->cursor.len > 0) {
		fake_copy(m->cursor, cursor, sizeof(cursor));
		i = (size_t)atoi(cursor);
	}
	for (; i < disk.row_count && n < 2; i++) {
		const struct fake_row *row = &disk.rows[i];

		if (recover ? !om_job_is_final(row->state)
			    : fake_in_states(row, &m->states) && fake_may_see(in, row) &&
				  (m->peer.len == 0 || om_str_is(m->peer, row->peer))) {
			fake_info(row, &infos[n++]);
		}
	}
	(void)snprintf(cursor, sizeof(cursor), "%zu", i);
	if (recover) {
		live.jobs.n = n;
		if (i < disk.row_count) {
			OM_SET(&live, ledger_live, next, om_str_of(cursor));
		}
		return om_service_reply(sv, in, OM_MSG_LEDGER_LIVE, &live);
	}
	table.jobs.n = n;
	if (i < disk.row_count) {
		OM_SET(&table, job_table, next, om_str_of(cursor));
	}
	return om_service_reply(sv, in, OM_MSG_JOB_TABLE, &table);
}

static enum om_err
fake_on_spec(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_job_ref *m = in->body;
	struct om_ledger_spec out = { .job = m->job };
	char id[65];
	struct fake_row *row;

	(void)state;
	fake_copy(m->job, id, sizeof(id));
	row = fake_row(id);
	if (row == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	out.spec = (struct om_bin){ row->spec.data, row->spec.len };
	return om_service_reply(sv, in, OM_MSG_LEDGER_SPEC, &out);
}

static enum om_err
fake_start_nothing(struct om_service *sv, void *state, const void *arg)
{
	(void)sv;
	(void)state;
	(void)arg;
	return OM_OK;
}

static const struct om_service_handler fake_ledger_handlers[] = {
	{ OM_MSG_LEDGER_SUBMIT_MANY, fake_on_submit_many },
	{ OM_MSG_LEDGER_SUBMIT, fake_on_submit },
	{ OM_MSG_LEDGER_MOVE, fake_on_move },
	{ OM_MSG_JOB_GET, fake_on_get },
	{ OM_MSG_JOB_LIST, fake_on_list },
	{ OM_MSG_LEDGER_RECOVER, fake_on_list },
	{ OM_MSG_LEDGER_SPEC_GET, fake_on_spec },
	{ OM_MSG_LEDGER_SET, fake_on_set },
	{ OM_MSG_LEDGER_PLACE, fake_on_place },
	{ OM_MSG_LEDGER_AFTER, fake_on_after },
	{ OM_MSG_LEDGER_RAN, fake_on_ran },
	{ OM_MSG_LEDGER_LIST, fake_on_items },
	{ OM_MSG_AUDIT_APPEND, fake_on_append },
	{ OM_MSG_LEDGER_AUDIT, fake_on_audit },
	{ OM_MSG_LEDGER_AUDIT_VERIFY, fake_on_verify },
};

static const struct om_service_def fake_ledger = {
	.name = OM_LEDGER,
	.state_size = 8,
	.start = fake_start_nothing,
	.on = fake_ledger_handlers,
	.on_count = OM_COUNT(fake_ledger_handlers),
};

#endif /* OM_TESTS_ACTORS_FAKE_LEDGER_H */
