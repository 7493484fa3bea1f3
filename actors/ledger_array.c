/* SPDX-License-Identifier: ISC */
/*
 * Job arrays in the ledger: all jobs of one are written by one commit or not at all, and one of them
 * may be named by the array's id wherever a list of jobs is meant.
 *
 * A body of its own for each: the one that came with the member's id and its index in the environment.
 * So a job of an array is a job like others from here on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "actors/job_array.h"
#include "actors/ledger_impl.h"
#include "base/secret.h"
#include "msg/codec.h"

#define ENV_PAIRS 3

/* The body of one job.  Wiped and emptied by the caller: there may be keys in it. */
static enum om_err
member_body(const struct om_job_submit *all, const struct om_job_id *id, uint32_t index,
	    uint32_t count, struct om_pair *env, struct om_buf *out)
{
	struct om_job_submit one = *all;
	struct om_str array;
	char numbers[2][12];
	uint32_t same;

	if (!om_job_array_split(om_str_of(id->text), &array, &same)) {
		return OM_ERR_INVALID;
	}
	(void)snprintf(numbers[0], sizeof(numbers[0]), "%" PRIu32, index);
	(void)snprintf(numbers[1], sizeof(numbers[1]), "%" PRIu32, count);
	env[all->env.n] = (struct om_pair){ OM_STR("OMERTA_ARRAY_ID"), array };
	env[all->env.n + 1] =
	    (struct om_pair){ OM_STR("OMERTA_ARRAY_INDEX"), om_str_of(numbers[0]) };
	env[all->env.n + 2] =
	    (struct om_pair){ OM_STR("OMERTA_ARRAY_COUNT"), om_str_of(numbers[1]) };
	OM_SET(&one, job_submit, env, ((struct om_pairs){ env, all->env.n + ENV_PAIRS }));
	OM_SET(&one, job_submit, job, om_str_of(id->text));
	one.has &= ~(UINT64_C(1) << OM_FIELD_job_submit_array);
	return om_body_encode(OM_BODY_job_submit, &one, out);
}

struct members {
	const struct om_ledger_submit *m;
	const struct om_job_submit *all;
	struct om_job_array array;
	struct om_pair *env; /* room for the job's own and ours */
	bool known; /* the array is here already: compare, write nothing */
};

static enum om_err
member_put(struct ledger *l, const struct members *ms, uint32_t i, struct om_buf *body,
	   struct om_job_row *row)
{
	struct om_job_info info = *ms->m->info;
	struct om_ledger_submit one = *ms->m;
	struct om_job_id id;
	enum om_err err;
	bool existed;

	err = om_job_array_member(info.job, ms->array.index[i], &id);
	om_buf_reset(body);
	if (err == OM_OK) {
		err = member_body(ms->all, &id, ms->array.index[i], ms->array.count, ms->env, body);
	}
	if (err != OM_OK) {
		return om_why_set(&l->store->why, err, "the body of %s: %s", id.text,
				  om_err_text(err));
	}
	info.job = om_str_of(id.text);
	one.info = &info;
	one.spec = (struct om_bin){ body->data, body->len };
	one.chosen = one.chosen || ms->known;
	return ledger_submit_put(l, &one, ms->all, &ms->array, &existed, row);
}

/* How many of the array are here. */
static enum om_err
members_here(struct ledger *l, const struct members *ms, uint32_t *count)
{
	struct om_job_row row;
	struct om_job_id id;
	enum om_err err;

	*count = 0;
	for (uint32_t i = 0; i < ms->array.count; i++) {
		err = om_job_array_member(ms->m->info->job, ms->array.index[i], &id);
		if (err == OM_OK) {
			err = om_store_job_get(l->store, &id, &row);
		}
		if (err != OM_OK && err != OM_ERR_NOT_FOUND) {
			return err;
		}
		*count += err == OM_OK;
	}
	return OM_OK;
}

static enum om_err
members_put(struct ledger *l, const struct members *ms, struct om_job_row *row)
{
	struct om_buf body = { 0 };
	enum om_err err = OM_OK;

	for (uint32_t i = 0; err == OM_OK && i < ms->array.count; i++) {
		err = member_put(l, ms, i, &body, row);
	}
	if (body.data != NULL) {
		om_secret_wipe(body.data, body.cap);
	}
	om_buf_fini(&body);
	return err;
}

static enum om_err
members_of(struct ledger *l, const struct om_ledger_submit *m, struct members *ms)
{
	enum om_err err;

	*ms = (struct members){ .m = m, .all = ledger_spec_decode(l, m->spec) };
	if (ms->all == NULL) {
		return om_why_set(&l->store->why, OM_ERR_INVALID, "the job's body is not valid");
	}
	err = om_job_array_parse(ms->all->array, &ms->array, &l->store->why);
	ms->env = om_arena_alloc(&l->arena, (ms->all->env.n + ENV_PAIRS) * sizeof(*ms->env));
	if (err == OM_OK && ms->env == NULL) {
		err = OM_ERR_NOMEM;
	}
	if (err == OM_OK && ms->all->env.n > 0) {
		memcpy(ms->env, ms->all->env.v, ms->all->env.n * sizeof(*ms->env));
	}
	return err;
}

/*
 * A group of its own: when one of its jobs cannot be written for whatever reason, all are undone, and
 * nobody else's are.
 */
enum om_err
ledger_submit_array(struct om_service *sv, struct ledger *l, const struct om_in *in)
{
	const struct om_ledger_submit *m = in->body;
	struct om_ledger_stored *stored;
	char *id;
	struct members ms;
	struct om_job_row row = { 0 };
	uint32_t here = 0;
	enum om_err err;

	ledger_finish(sv, l);
	err = ledger_begin(l);
	if (err == OM_OK) {
		err = members_of(l, m, &ms);
	}
	if (err == OM_OK) {
		err = members_here(l, &ms, &here);
	}
	if (err == OM_OK && here > 0 && (!m->chosen || here < ms.array.count)) {
		err = om_why_set(&l->store->why, OM_ERR_EXISTS, "there are jobs %.*s_... already",
				 OM_STR_ARG(m->info->job));
	}
	if (err == OM_OK && here == 0 && om_str_is(m->info->state, "rejected")) {
		return ledger_submit_one(sv, l, in); /* one row says so for all */
	}
	if (err == OM_OK) {
		ms.known = here > 0;
		err = members_put(l, &ms, &row);
	}
	if (err != OM_OK) {
		struct om_why why = l->store->why; /* the rollback has its own */

		ledger_group_undo(l);
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	stored = om_arena_alloc(&l->arena, sizeof(*stored));
	id = om_arena_str(&l->arena, m->info->job);
	if (stored != NULL && id != NULL) {
		OM_SET(stored, ledger_stored, job, om_str_of(id));
		OM_SET(stored, ledger_stored, state, om_str_of(om_job_state_text(row.state)));
		OM_SET(stored, ledger_stored, duplicate, ms.known);
	}
	return ledger_answer_later(sv, l, in, OM_MSG_LEDGER_STORED, id != NULL ? stored : NULL);
}

/* Removes those of an array that have ended.  STATE: none has. */
enum om_err
ledger_array_remove(struct ledger *l, const struct om_job_id *array, struct om_str owner,
		    uint64_t *removed)
{
	struct om_job_filter filter = { .array = om_str_of(array->text), .requester = owner };
	struct om_job_row rows[16];
	enum om_err err = OM_OK, last = OM_ERR_STATE;
	size_t count;

	do {
		err = om_store_job_list(l->store, &filter, rows, OM_COUNT(rows), &count);
		for (size_t i = 0; err == OM_OK && i < count; i++) {
			last = om_store_job_remove(l->store, &rows[i].id);
			*removed += last == OM_OK;
		}
	} while (err == OM_OK && filter.cursor != 0);
	return err != OM_OK || *removed > 0 ? err : last;
}

/* --- naming one ------------------------------------------------------------------------------- */

/* The array of the job with this id.  false: it is in none. */
static bool
array_of(struct ledger *l, const struct om_job_id *id, struct om_str *array)
{
	struct om_job_row row;
	uint32_t index;

	return om_store_job_get(l->store, id, &row) == OM_OK && row.in_array &&
	       om_job_array_split(om_str_of(id->text), array, &index);
}

/* "ID": there may be other jobs that begin so, but those of the array ID are meant. */
static bool
array_whole(struct ledger *l, struct om_str text, struct om_str owner, struct om_job_id *out)
{
	struct om_job_id ids[2];
	char prefix[OM_JOB_ID_MAX + 2];
	struct om_str array;
	size_t count;
	enum om_err err;

	if (text.len > OM_ARRAY_ID_MAX) {
		return false;
	}
	(void)snprintf(prefix, sizeof(prefix), "%.*s_", OM_STR_ARG(text));
	err = om_store_job_find(l->store, om_str_of(prefix), owner, ids, OM_COUNT(ids), &count);
	if ((err != OM_OK && err != OM_ERR_INVALID) || count == 0 ||
	    !array_of(l, &ids[0], &array) || !om_str_eq(array, text)) {
		return false;
	}
	return om_str_copy(text, out->text, sizeof(out->text)) == OM_OK;
}

bool
ledger_array_find(struct ledger *l, struct om_str text, struct om_str owner, struct om_job_id *out)
{
	const size_t cap =
	    OM_ARRAY_JOBS_MAX + 1; /* one more than an array has: then it is not alone */
	struct om_job_id *ids = om_arena_alloc(&l->arena, cap * sizeof(*ids));
	struct om_str array;
	size_t count, i;
	enum om_err err;

	if (array_whole(l, text, owner, out)) {
		return true;
	}
	if (ids == NULL) {
		return false;
	}
	err = om_store_job_find(l->store, text, owner, ids, cap, &count);
	if ((err != OM_OK && err != OM_ERR_INVALID) || count == 0 ||
	    !array_of(l, &ids[0], &array) || text.len > array.len) {
		return false;
	}
	for (i = 0; i < count; i++) {
		const char *id = ids[i].text;

		if (strncmp(id, array.ptr, array.len) != 0 || id[array.len] != '_' ||
		    strchr(id + array.len + 1, '_') != NULL) {
			return false; /* another begins so too */
		}
	}
	return om_str_copy(array, out->text, sizeof(out->text)) == OM_OK;
}
