/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "store/sqlite_impl.h"

/* Looking jobs up.  Lists look at a bounded number of rows a call: one client's long list must not
 * hold up everybody's commits. */

enum om_err
sq_job_row(struct om_sqlite *sq, sqlite3_stmt *s, struct om_job_row *row)
{
	struct om_str state;
	int c = 0;

	memset(row, 0, SQ_ROW_HEAD);
	row->seq = sq_col_u64(s, c++);
	row->rank = sqlite3_column_int64(s, c++);
	sq_col_copy(s, c++, row->id.text, sizeof(row->id.text));
	sq_col_copy(s, c++, row->requester.text, sizeof(row->requester.text));
	sq_col_copy(s, c++, row->network.text, sizeof(row->network.text));
	sq_col_copy(s, c++, row->lang, sizeof(row->lang));
	sq_col_copy(s, c++, row->activity, sizeof(row->activity));
	row->level = sqlite3_column_int(s, c++);
	state = sq_col_str(s, c++);
	if (om_job_state_parse(state.ptr, state.len, &row->state) != OM_OK) {
		return sq_why(sq, OM_ERR_CORRUPT, "job %s: \"%.*s\" is not a state", row->id.text,
			      OM_STR_ARG(state));
	}
	sq_col_copy(s, c++, row->reason, sizeof(row->reason));
	sq_col_copy(s, c++, row->text, sizeof(row->text));
	row->needs.cores = (uint32_t)sq_col_u64(s, c++);
	row->needs.mem_mib = sq_col_u64(s, c++);
	row->needs.disk_mib = sq_col_u64(s, c++);
	row->needs.runtime_s = sq_col_u64(s, c++);
	row->submitted.ns = sqlite3_column_int64(s, c++);
	row->picked.ns = sqlite3_column_int64(s, c++);
	row->started.ns = sqlite3_column_int64(s, c++);
	row->finished.ns = sqlite3_column_int64(s, c++);
	row->not_before.ns = sqlite3_column_int64(s, c++);
	row->expires.ns = sqlite3_column_int64(s, c++);
	row->attempts = (uint32_t)sq_col_u64(s, c++);
	row->attempts_max = (uint32_t)sq_col_u64(s, c++);
	row->after_count = (uint32_t)sq_col_u64(s, c++);
	row->held = sqlite3_column_int(s, c++) != 0;
	row->requeue = sqlite3_column_int(s, c++) != 0;
	row->in_array = sqlite3_column_type(s, c) != SQLITE_NULL;
	row->array_limit = (uint32_t)sq_col_u64(s, c++);
	row->sealed = sqlite3_column_int(s, c++) != 0;
	row->has_output = sqlite3_column_int(s, c++) != 0;
	row->result.exited = sqlite3_column_int(s, c++) != 0;
	row->result.exit_code = sqlite3_column_int(s, c++);
	row->result.signal = sqlite3_column_int(s, c++);
	row->result.cpu_ms = sq_col_u64(s, c++);
	row->result.wall_ms = sq_col_u64(s, c++);
	row->result.boot_ms = sq_col_u64(s, c++);
	row->result.mem_peak_kib = sq_col_u64(s, c++);
	row->result.rx_bytes = sq_col_u64(s, c++);
	row->result.tx_bytes = sq_col_u64(s, c++);
	row->result.handshake.ns = sqlite3_column_int64(s, c++);
	row->result.dropped_bytes = sq_col_u64(s, c++);
	(void)sq_col_hash(s, c++, row->spec_hash);
	return OM_OK;
}

static enum om_err
read_unknown(struct om_sqlite *sq, const char *id)
{
	return sq_why(sq, OM_ERR_NOT_FOUND, "there is no job %s", id);
}

enum om_err
sq_job_get(struct om_store *st, const struct om_job_id *id, struct om_job_row *row)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found;

	if (sq_rows_find(sq, id, row)) {
		return OM_OK;
	}
	s = sq_stmt(sq, SQ_JOB_BY_ID, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_text(s, 1, id->text);
	err = sq_step(sq, s, &found, "read a job");
	if (err == OM_OK) {
		err = found ? sq_job_row(sq, s, row) : read_unknown(sq, id->text);
	}
	(void)sqlite3_reset(s);
	if (err == OM_OK) {
		sq_rows_keep(sq, row);
	}
	return err;
}

enum om_err
sq_job_seq(struct om_sqlite *sq, const struct om_job_id *id, int64_t *seq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found;

	if (sq_rows_seq(sq, id, seq)) {
		return OM_OK;
	}
	s = sq_stmt(sq, SQ_JOB_SEQ, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_text(s, 1, id->text);
	err = sq_step(sq, s, &found, "read a job");
	if (err == OM_OK && !found) {
		err = read_unknown(sq, id->text);
	}
	if (err == OM_OK) {
		*seq = sqlite3_column_int64(s, 0);
	}
	(void)sqlite3_reset(s);
	return err;
}

/* One row of a prefix search: OM_OK and *go_on, until the rows do not start with prefix. */
static void
find_take(sqlite3_stmt *s, struct om_str prefix, struct om_str requester, struct om_job_id *ids,
	  size_t cap, size_t *count, bool *go_on)
{
	const struct om_str id = sq_col_str(s, 0);

	if (id.len < prefix.len || memcmp(id.ptr, prefix.ptr, prefix.len) != 0) {
		*go_on = false;
		return;
	}
	if (requester.ptr != NULL && !om_str_eq(sq_col_str(s, 1), requester)) {
		return;
	}
	if (om_str_copy(id, ids[*count].text, sizeof(ids[*count].text)) != OM_OK) {
		return; /* not an id of ours */
	}
	(*count)++;
	/* A whole id is meant, however many longer ones there are; it is the first in order. */
	*go_on = *count < cap && id.len != prefix.len;
}

enum om_err
sq_job_find(struct om_store *st, struct om_str prefix, struct om_str requester,
	    struct om_job_id *ids, size_t cap, size_t *count)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool go_on = true, found;
	int looked = 0;

	OM_ASSERT(cap >= 2);
	*count = 0;
	if (prefix.len == 0 || prefix.len > OM_JOB_ID_MAX) {
		return sq_why(sq, OM_ERR_INVALID, "a job id has 1 to %d characters", OM_JOB_ID_MAX);
	}
	err = sq_rows_flush(sq);
	if (err != OM_OK) {
		return err;
	}
	s = sq_stmt(sq, SQ_JOB_PREFIX, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_str(s, 1, prefix);
	while (go_on && looked < OM_STORE_SCAN_MAX) {
		err = sq_step(sq, s, &found, "find a job");
		if (err != OM_OK || !found) {
			go_on = false;
			break;
		}
		find_take(s, prefix, requester, ids, cap, count, &go_on);
		looked++;
	}
	(void)sqlite3_reset(s);
	if (err == OM_OK && go_on) { /* there may be one behind them, or one more */
		*count = 0;
		return sq_why(sq, OM_ERR_INVALID,
			      "%.*s is too short among so many jobs: give more of the id",
			      OM_STR_ARG(prefix));
	}
	if (err != OM_OK || *count == 1) {
		return err;
	}
	if (*count == 0) {
		return sq_why(sq, OM_ERR_NOT_FOUND, "there is no job %.*s", OM_STR_ARG(prefix));
	}
	return sq_why(sq, OM_ERR_INVALID, "%.*s fits more than one job: %s, %s%s",
		      OM_STR_ARG(prefix), ids[0].text, ids[1].text, *count > 2 ? ", ..." : "");
}

/* The ids between the two are the array's: "ID_" and what follows all that begin so. */
struct list_range {
	char first[OM_JOB_ID_MAX + 2], behind[OM_JOB_ID_MAX + 2];
};

/* The statement for a list, bound to its place; range is borrowed until it is reset. */
static sqlite3_stmt *
list_stmt(struct om_sqlite *sq, const struct om_job_filter *filter, struct list_range *range,
	  enum om_err *err)
{
	/* Finished jobs pile up: a list of live ones does not walk through them. */
	const bool live = filter->states != 0 && (filter->states & ~OM_JOB_LIVE) == 0;
	const enum sq_stmt which = filter->array.ptr != NULL      ? SQ_JOB_LIST_ARRAY
				   : live && filter->newest_first ? SQ_JOB_LIST_LIVE_DOWN
				   : live                         ? SQ_JOB_LIST_LIVE
				   : filter->newest_first         ? SQ_JOB_LIST_DOWN
								  : SQ_JOB_LIST_UP;
	sqlite3_stmt *s = sq_stmt(sq, which, err);

	if (s == NULL) {
		return NULL;
	}
	if (which == SQ_JOB_LIST_ARRAY) {
		(void)snprintf(range->first, sizeof(range->first), "%.*s_",
			       OM_STR_ARG(filter->array));
		(void)snprintf(range->behind, sizeof(range->behind), "%.*s%c",
			       OM_STR_ARG(filter->array), '_' + 1);
		sq_bind_u64(s, 1, filter->cursor);
		sq_bind_text(s, 2, range->first);
		sq_bind_text(s, 3, range->behind);
		return s;
	}
	sq_bind_u64(s, 1, filter->newest_first && filter->cursor == 0 ? INT64_MAX : filter->cursor);
	return s;
}

/* Is the row that s stands on wanted?  Looks at columns before the whole row is read. */
static bool
list_wants(sqlite3_stmt *s, const struct om_job_filter *filter)
{
	enum { COL_ID = 2, COL_REQUESTER = 3, COL_STATE = 8, COL_SUBMITTED = 15 };
	const struct om_str state = sq_col_str(s, COL_STATE), id = sq_col_str(s, COL_ID);
	const size_t prefix = filter->array.len + 1;
	enum om_job_state at;

	if (filter->states != 0 && om_job_state_parse(state.ptr, state.len, &at) == OM_OK &&
	    (OM_JOB_BIT(at) & filter->states) == 0) {
		return false;
	}
	if (filter->requester.ptr != NULL &&
	    !om_str_eq(sq_col_str(s, COL_REQUESTER), filter->requester)) {
		return false;
	}
	/* ID_X_1 is of the array ID_X, not of ID. */
	if (filter->array.ptr != NULL &&
	    (id.len <= prefix || memchr(id.ptr + prefix, '_', id.len - prefix) != NULL)) {
		return false;
	}
	return sqlite3_column_int64(s, COL_SUBMITTED) >= filter->since.ns;
}

enum om_err
sq_job_list(struct om_store *st, struct om_job_filter *filter, struct om_job_row *rows, size_t cap,
	    size_t *count)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;
	struct list_range range;
	sqlite3_stmt *s;
	bool found = false;

	OM_ASSERT(cap > 0);
	*count = 0;
	filter->looks = filter->looks == 0 ? OM_STORE_SCAN_MAX : filter->looks;
	err = sq_rows_flush(sq);
	if (err != OM_OK) {
		return err;
	}
	s = list_stmt(sq, filter, &range, &err);
	if (s == NULL) {
		return err;
	}
	for (; filter->looks > 0 && *count < cap; filter->looks--) {
		err = sq_step(sq, s, &found, "list jobs");
		if (err != OM_OK || !found) {
			filter->cursor = 0;
			break;
		}
		filter->cursor = sq_col_u64(s, 0);
		if (!list_wants(s, filter)) {
			continue;
		}
		err = sq_job_row(sq, s, &rows[*count]);
		if (err != OM_OK) {
			break;
		}
		(*count)++;
	}
	(void)sqlite3_reset(s);
	return err;
}

enum om_err
sq_job_spec(struct om_store *st, const struct om_job_id *id, struct om_buf *out)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err;
	struct om_bin body;
	sqlite3_stmt *s;
	int64_t seq = 0;
	bool found;

	err = sq_job_seq(sq, id, &seq);
	if (err != OM_OK) {
		return err;
	}
	s = sq_stmt(sq, SQ_SPEC_GET, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, seq);
	err = sq_step(sq, s, &found, "read a job's body");
	if (err == OM_OK && !found) {
		err = sq_why(sq, OM_ERR_CORRUPT, "job %s has no body", id->text);
	}
	if (err == OM_OK) {
		body = sq_col_bin(s, 0);
		om_buf_add(out, body.ptr, body.len);
		if (out->failed) {
			err = sq_why(sq, OM_ERR_NOMEM, "no memory for a job's body");
		}
	}
	(void)sqlite3_reset(s);
	return err;
}

enum om_err
sq_job_after(struct om_store *st, const struct om_job_id *id, struct om_job_after *out, size_t cap,
	     size_t *count)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err;
	struct om_str state;
	sqlite3_stmt *s;
	int64_t seq = 0;
	bool found;

	*count = 0;
	err = sq_rows_flush(sq);
	if (err == OM_OK) {
		err = sq_job_seq(sq, id, &seq);
	}
	if (err != OM_OK) {
		return err;
	}
	s = sq_stmt(sq, SQ_AFTER_LIST, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, seq);
	while (*count < cap &&
	       (err = sq_step(sq, s, &found, "read what a job waits for")) == OM_OK && found) {
		struct om_job_after *after = &out[(*count)++];

		sq_col_copy(s, 0, after->id.text, sizeof(after->id.text));
		state = sq_col_str(s, 1);
		if (om_job_state_parse(state.ptr, state.len, &after->state) != OM_OK) {
			err = sq_why(sq, OM_ERR_CORRUPT, "job %s: unknown state", after->id.text);
			break;
		}
		after->when = om_str_is(sq_col_str(s, 2), "end") ? OM_AFTER_END : OM_AFTER_SUCCESS;
	}
	(void)sqlite3_reset(s);
	return err;
}
