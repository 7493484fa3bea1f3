/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "actors/ledger_impl.h"
#include "base/log.h"
#include "base/parse.h"

/*
 * Questions.  A requester is shown its own jobs alone: another's job is not_found, not denied, so
 * that nobody learns which ids exist.
 */

/*
 * Rows that one list looks at, a few milliseconds: then its page is shorter, or empty, and has a cursor.
 * Anybody may ask, and everybody's commits wait for it.
 */
#define LIST_LOOKS_MAX 4000
#define OUTPUT_DEFAULT 262144
#define OUTPUT_MAX     1048576
#define CANDIDATES     4
#define ENTRIES_MAX    1000000

/* Whose jobs the caller may see: absent for the operator and for the daemon's own services. */
static struct om_str
read_owner(const struct om_in *in)
{
	return in->caller->role == OM_ROLE_REQUESTER ? om_str_of(in->caller->peer)
						     : (struct om_str){ 0 };
}

/* What a question found; candidates: ids that its text fits. */
struct found {
	struct om_job_row row;
	struct om_job_id ids[CANDIDATES];
	size_t count;
};

/* The row of the job that `text` names or begins. */
static enum om_err
read_job(struct ledger *l, const struct om_in *in, struct om_str text, struct found *out)
{
	enum om_err err;

	err = om_store_job_find(l->store, text, read_owner(in), out->ids, CANDIDATES, &out->count);
	return err != OM_OK ? err : om_store_job_get(l->store, &out->ids[0], &out->row);
}

/* The refusal; of a text that fits several jobs with their ids, for a program that asks again. */
static enum om_err
read_refuse(struct om_service *sv, struct ledger *l, const struct om_in *in, enum om_err err,
	    struct om_str asked, const struct found *found)
{
	struct om_pair details[2] = { { .key = OM_STR("candidates") }, { .key = OM_STR("array") } };
	struct om_job_id array;
	struct om_error error = { .code = om_str_of(om_err_code(err)) };
	char ids[CANDIDATES * (OM_JOB_ID_MAX + 1) + 1];
	size_t len = 0;

	if (err != OM_ERR_INVALID || found->count < 2) {
		return ledger_refuse(sv, l, in, err);
	}
	for (size_t i = 0; i < found->count && i < CANDIDATES; i++) {
		len += (size_t)snprintf(ids + len, sizeof(ids) - len, "%s%s", i > 0 ? " " : "",
					found->ids[i].text);
	}
	details[0].value = (struct om_str){ ids, len };
	OM_SET(&error, error, text, ledger_keep(l, om_store_why(l->store)));
	OM_SET(&error, error, details, ((struct om_pairs){ details, 1 }));
	if (ledger_array_find(l, asked, read_owner(in), &array)) {
		details[1].value = om_str_of(array.text);
		error.details.n = 2;
		OM_SET(&error, error, text, OM_STR("it is an array of jobs"));
	}
	return om_service_reply(sv, in, OM_MSG_ERROR, &error);
}

enum om_err
ledger_on_get(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_job_ref *m = in->body;
	struct found found = { .count = 0 };
	enum om_err err;

	err = read_job(l, in, m->job, &found);
	if (err != OM_OK) {
		return read_refuse(sv, l, in, err, m->job, &found);
	}
	return ledger_answer_read(sv, l, in, OM_MSG_JOB_INFO, ledger_info_full(l, &found.row));
}

/* --- lists -------------------------------------------------------------------------------------- */

static enum om_err
list_filter(const struct om_in *in, const struct om_job_query *m, struct om_job_filter *out)
{
	enum om_job_state state;
	size_t i;

	for (i = 0; i < m->states.n; i++) {
		if (om_job_state_parse(m->states.v[i].ptr, m->states.v[i].len, &state) != OM_OK) {
			return OM_ERR_INVALID;
		}
		out->states |= OM_JOB_BIT(state);
	}
	out->requester = m->peer.len > 0 ? m->peer : (struct om_str){ 0 };
	if (in->caller->role == OM_ROLE_REQUESTER) {
		out->requester = read_owner(in);
	}
	out->since = ledger_wall(m->since_ms);
	if (m->cursor.len > 0 && om_parse_u64(m->cursor, 1, INT64_MAX, &out->cursor) != OM_OK) {
		return OM_ERR_INVALID;
	}
	return OM_OK;
}

/* Fills infos with up to limit rows; *next is "" at the end.  filter->looks says when it is enough. */
static enum om_err
list_page(struct ledger *l, struct om_job_filter *filter, size_t limit,
	  struct om_job_info_list *out, struct om_str *next)
{
	struct om_job_row rows[16];
	size_t count, want, i;
	char cursor[24];
	enum om_err err;

	out->v = om_arena_alloc(&l->arena, limit * sizeof(*out->v));
	if (out->v == NULL) {
		return OM_ERR_NOMEM;
	}
	do {
		want = limit - out->n < OM_COUNT(rows) ? limit - out->n : OM_COUNT(rows);
		err = om_store_job_list(l->store, filter, rows, want, &count);
		for (i = 0; err == OM_OK && i < count; i++) {
			const struct om_job_info *info = ledger_info(l, &rows[i]);

			if (info == NULL) {
				return OM_ERR_NOMEM;
			}
			out->v[out->n++] = *info;
		}
	} while (err == OM_OK && filter->cursor != 0 && out->n < limit && filter->looks > 0);
	if (err == OM_OK && filter->cursor != 0) {
		(void)snprintf(cursor, sizeof(cursor), "%" PRIu64, filter->cursor);
		*next = ledger_keep(l, cursor);
	}
	return err;
}

size_t
ledger_limit(uint64_t limit)
{
	return limit == 0                ? LEDGER_LIST_DEFAULT
	       : limit > LEDGER_LIST_MAX ? LEDGER_LIST_MAX
					 : (size_t)limit;
}

/*
 * The few among many.  The store counts its jobs by state, so it is known when all that are wanted were seen:
 * none at once, and the ones that run after a look from the oldest on, where they are.  *done: out is the
 * whole list; else it has to be walked.
 */
static enum om_err
list_few(struct ledger *l, const struct om_job_filter *filter, size_t limit,
	 struct om_job_info_list *out, bool *done)
{
	struct om_job_filter from_oldest = { .states = filter->states, .looks = filter->looks };
	uint64_t counts[OM_JOB_STATES], wanted = 0;
	struct om_str next = { 0 };
	enum om_err err;

	*done = false;
	if (filter->states == 0 || filter->cursor != 0 || filter->array.ptr != NULL) {
		return OM_OK;
	}
	err = om_store_counts(l->store, counts);
	for (unsigned i = 0; i < OM_JOB_STATES; i++) {
		wanted += (OM_JOB_BIT(i) & filter->states) != 0 ? counts[i] : 0;
	}
	if (err != OM_OK || wanted == 0) {
		*done = err == OM_OK;
		return err;
	}
	if (wanted > limit || filter->requester.ptr != NULL || filter->since.ns > 0) {
		return OM_OK;
	}
	err = list_page(l, &from_oldest, (size_t)wanted, out, &next);
	if (err != OM_OK || out->n < wanted) {
		*out = (struct om_job_info_list){ 0 };
		return err;
	}
	for (size_t i = 0; i < out->n / 2; i++) { /* newest first */
		struct om_job_info kept = out->v[i];

		out->v[i] = out->v[out->n - 1 - i];
		out->v[out->n - 1 - i] = kept;
	}
	*done = true;
	return OM_OK;
}

enum om_err
ledger_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_job_query *m = in->body;
	struct om_job_filter filter = { .newest_first = true, .looks = LIST_LOOKS_MAX };
	struct om_job_table *table = om_arena_alloc(&l->arena, sizeof(*table));
	struct om_str next = { 0 };
	struct om_job_id array;
	bool done = false;
	enum om_err err;

	if (list_filter(in, m, &filter) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "no such state or cursor");
	}
	if (table == NULL) {
		return OM_ERR_NOMEM;
	}
	if (OM_HAS(m, job_query, array)) {
		if (!ledger_array_find(l, m->array, read_owner(in), &array)) {
			return om_service_reply_err(sv, in, OM_ERR_NOT_FOUND,
						    "there is no array %.*s", OM_STR_ARG(m->array));
		}
		filter.array = ledger_keep(l, array.text);
		filter.looks = OM_STORE_SCAN_MAX; /* its jobs come in one page, and they are few */
		OM_SET(table, job_table, array, filter.array);
	}
	err = list_few(l, &filter, ledger_limit(m->limit), &table->jobs, &done);
	if (err == OM_OK && !done) {
		err = list_page(l, &filter, ledger_limit(m->limit), &table->jobs, &next);
	}
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	if (next.len > 0) {
		OM_SET(table, job_table, next, next);
	}
	return ledger_answer_read(sv, l, in, OM_MSG_JOB_TABLE, table);
}

enum om_err
ledger_on_recover(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_job_query *m = in->body;
	struct om_job_filter filter = { .looks = OM_STORE_SCAN_MAX };
	struct om_ledger_live *live = om_arena_alloc(&l->arena, sizeof(*live));
	struct om_str next = { 0 };
	enum om_err err;

	if (list_filter(in, m, &filter) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "no such state or cursor");
	}
	if (live == NULL) {
		return OM_ERR_NOMEM;
	}
	filter.states = filter.states == 0 ? OM_JOB_LIVE : filter.states & OM_JOB_LIVE;
	err = list_page(l, &filter, ledger_limit(m->limit), &live->jobs, &next);
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	if (next.len > 0) {
		OM_SET(live, ledger_live, next, next);
	}
	return ledger_answer_read(sv, l, in, OM_MSG_LEDGER_LIVE, live);
}

/*
 * A body may hold keys, so no copy of it waits in the group's arena, which nobody wipes: the group ends
 * here, and the answer is made from the one copy that there is.
 */
enum om_err
ledger_on_spec_get(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_job_ref *m = in->body;
	struct om_ledger_spec spec = { 0 };
	struct om_buf body = { 0 };
	struct found found = { .count = 0 };
	enum om_err err;

	ledger_finish(sv, l);
	err = read_job(l, in, m->job, &found);
	if (err == OM_OK) {
		err = om_store_job_spec(l->store, &found.row.id, &body);
	}
	if (err == OM_OK) {
		err = ledger_keys_open(l, &body);
	}
	if (err != OM_OK) {
		ledger_body_fini(&body);
		return ledger_refuse(sv, l, in, err);
	}
	OM_SET(&spec, ledger_spec, job, om_str_of(found.row.id.text));
	OM_SET(&spec, ledger_spec, spec, ((struct om_bin){ body.data, body.len }));
	OM_SET(&spec, ledger_spec, info, ledger_info(l, &found.row));
	err = ledger_answer_read(sv, l, in, OM_MSG_LEDGER_SPEC, spec.info == NULL ? NULL : &spec);
	ledger_body_fini(&body);
	return err;
}

struct entries {
	struct ledger *l;
	struct om_ledger_items *out;
	size_t cap;
	bool failed;
};

static bool
entries_add(void *arg, struct om_str key, struct om_bin value)
{
	struct entries *e = arg;
	struct om_ledger_item *item;
	uint8_t *copy = om_arena_alloc(&e->l->arena, value.len);
	char *text = om_arena_str(&e->l->arena, key);

	if (e->out->items.n == e->cap) {
		const size_t cap = e->cap == 0 ? 64 : e->cap * 2;
		struct om_ledger_item *more = om_arena_alloc(&e->l->arena, cap * sizeof(*more));

		if (more == NULL) {
			e->failed = true;
			return false;
		}
		if (e->out->items.n > 0) {
			memcpy(more, e->out->items.v, e->out->items.n * sizeof(*more));
		}
		e->out->items.v = more;
		e->cap = cap;
	}
	e->failed = copy == NULL || text == NULL || e->out->items.n == ENTRIES_MAX;
	if (e->failed) {
		return false;
	}
	if (value.len > 0) {
		memcpy(copy, value.ptr, value.len);
	}
	item = &e->out->items.v[e->out->items.n++];
	OM_SET(item, ledger_item, key, ((struct om_str){ text, key.len }));
	OM_SET(item, ledger_item, value, ((struct om_bin){ copy, value.len }));
	return true;
}

enum om_err
ledger_on_entries(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_ledger_list *m = in->body;
	struct entries e = { .l = l, .out = om_arena_alloc(&l->arena, sizeof(*e.out)) };
	enum om_err err;

	if (e.out == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_store_entry_each(l->store, m->list, (struct om_str){ 0 }, entries_add, &e);
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	return e.failed ? OM_ERR_NOMEM : ledger_answer_read(sv, l, in, OM_MSG_LEDGER_ITEMS, e.out);
}

/* --- output ------------------------------------------------------------------------------------- */

/* Reads a piece.  *data NULL: no memory. */
static enum om_err
output_piece(struct ledger *l, const struct om_job_row *row, struct om_out_ref ref, uint64_t offset,
	     uint64_t attempt, size_t limit, struct om_output_data **data)
{
	uint8_t *buf = om_arena_alloc(&l->arena, limit);
	uint64_t size = 0;
	size_t len = 0;
	enum om_err err;

	if (attempt != 0 && attempt != row->attempts) {
		offset = 0; /* another attempt has begun, and its output is another */
	}
	*data = om_arena_alloc(&l->arena, sizeof(**data));
	if (buf == NULL || *data == NULL) {
		*data = NULL;
		return OM_ERR_NOMEM;
	}
	err = om_store_output_read(l->store, &row->id, ref, offset, buf, limit, &len, &size);
	if (err == OM_ERR_NOT_FOUND && !om_job_is_final(row->state)) {
		err = OM_OK; /* files are taken at the end */
	}
	OM_SET(*data, output_data, data, ((struct om_bin){ buf, len }));
	OM_SET(*data, output_data, offset, offset);
	OM_SET(*data, output_data, size, size);
	OM_SET(*data, output_data, end, om_job_is_final(row->state) && offset + len >= size);
	OM_SET(*data, output_data, state, om_str_of(om_job_state_text(row->state)));
	OM_SET(*data, output_data, attempt, row->attempts);
	return err;
}

static bool
follow(struct om_service *sv, struct ledger *l, const struct om_in *in, const struct om_job_id *id,
       struct om_out_ref ref, const struct om_output_query *m, size_t limit)
{
	struct ledger_follower *f;
	uint64_t wait_ms = in->deadline_ms == 0 || in->deadline_ms > LEDGER_FOLLOW_MS
			       ? LEDGER_FOLLOW_MS
			       : in->deadline_ms;

	if (l->follower_count >= LEDGER_FOLLOWERS_MAX) {
		return false;
	}
	f = calloc(1, sizeof(*f));
	if (f == NULL || om_str_copy(ref.name, f->file, sizeof(f->file)) != OM_OK) {
		free(f);
		return false;
	}
	f->rq = om_service_later(sv, in);
	f->job = *id;
	f->kind = ref.kind;
	f->offset = m->offset;
	f->attempt = m->attempt;
	f->limit = limit;
	/* Answered a little before the asker gives up. */
	f->until.ns =
	    om_now(om_service_cx(sv)).ns + (int64_t)(wait_ms - wait_ms / 4) * OM_NS_PER_MS;
	TAILQ_INSERT_TAIL(&l->followers, f, link);
	l->follower_count++;
	return true;
}

enum om_err
ledger_on_job_output(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_output_query *m = in->body;
	const size_t limit = m->limit == 0           ? OUTPUT_DEFAULT
			     : m->limit > OUTPUT_MAX ? OUTPUT_MAX
						     : (size_t)m->limit;
	struct om_out_ref ref = { .kind = OM_OUT_STDOUT };
	struct om_output_data *data = NULL;
	struct found found = { .count = 0 };
	enum om_err err;

	if (m->file.len > 0) {
		ref = (struct om_out_ref){ .kind = OM_OUT_FILE, .name = m->file };
	} else if (om_str_is(m->stream, "stderr")) {
		ref.kind = OM_OUT_STDERR;
	} else if (m->stream.len > 0 && !om_str_is(m->stream, "stdout")) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "stream: stdout or stderr");
	}
	err = read_job(l, in, m->job, &found);
	if (err == OM_OK) {
		err = output_piece(l, &found.row, ref, m->offset, m->attempt, limit, &data);
	}
	if (err != OM_OK) {
		return read_refuse(sv, l, in, err, m->job, &found);
	}
	if (m->file.len > 0 && !m->follow && data->size == 0 && !om_job_is_final(found.row.state)) {
		return om_service_reply_err(sv, in, OM_ERR_STATE,
					    "job %s is %s: its files are taken at its end",
					    found.row.id.text, om_job_state_text(found.row.state));
	}
	if (m->follow && data->data.len == 0 && !data->end &&
	    follow(sv, l, in, &found.row.id, ref, m, limit)) {
		return OM_OK;
	}
	return ledger_answer_read(sv, l, in, OM_MSG_OUTPUT_DATA, data);
}

void
ledger_followers_due(struct ledger *l, const struct om_job_id *id)
{
	struct ledger_follower *f;

	TAILQ_FOREACH(f, &l->followers, link)
	{
		f->due = f->due || strcmp(f->job.text, id->text) == 0;
	}
}

/* false: there is nothing new for it yet. */
static bool
follower_answer(struct om_service *sv, struct ledger *l, struct ledger_follower *f, bool late)
{
	const struct om_out_ref ref = { .kind = f->kind, .name = om_str_of(f->file) };
	struct om_output_data *data = NULL;
	struct om_job_row row;
	enum om_err err;

	f->due = false;
	err = om_store_job_get(l->store, &f->job, &row);
	if (err == OM_OK) {
		err = output_piece(l, &row, ref, f->offset, f->attempt, f->limit, &data);
	}
	if (err != OM_OK) {
		om_service_reply_err_to(sv, &f->rq, err, om_store_why(l->store));
		return true;
	}
	if (data->data.len == 0 && !data->end && !late) {
		return false;
	}
	om_service_reply_to(sv, &f->rq, OM_MSG_OUTPUT_DATA, data);
	return true;
}

void
ledger_followers_answer(struct om_service *sv, struct ledger *l, bool all_late)
{
	const struct om_mono now = om_now(om_service_cx(sv));
	struct ledger_follower *f = TAILQ_FIRST(&l->followers), *next;

	for (; f != NULL; f = next) {
		const bool late = all_late && f->until.ns <= now.ns;

		next = TAILQ_NEXT(f, link);
		if ((f->due || late) && follower_answer(sv, l, f, late)) {
			TAILQ_REMOVE(&l->followers, f, link);
			l->follower_count--;
			free(f);
		}
	}
}

void
ledger_followers_drop(struct om_service *sv, struct ledger *l)
{
	struct ledger_follower *f;

	while ((f = TAILQ_FIRST(&l->followers)) != NULL) {
		TAILQ_REMOVE(&l->followers, f, link);
		om_service_reply_err_to(sv, &f->rq, OM_ERR_SHUTDOWN, "the ledger is stopping");
		free(f);
	}
	l->follower_count = 0;
}
