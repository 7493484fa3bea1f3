/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "store/sqlite_param.h"

/* Lists and settings, retention, figures. */

#define PURGE_BATCH         500
#define PURGE_AUDIT_PER_JOB 20 /* audit rows are smaller and cheaper to remove */
#define TALLY_KEEP_S        (INT64_C(400) * 86400)

static enum om_err
entry_check(struct om_sqlite *sq, struct om_str kind, struct om_str key, size_t value_len)
{
	if (kind.len == 0 || kind.len > OM_ENTRY_KIND_MAX || key.len == 0 ||
	    key.len > OM_ENTRY_KEY_MAX || value_len > OM_ENTRY_VALUE_MAX) {
		return sq_why(sq, OM_ERR_INVALID, "an entry has a kind (%d), key (%d), value (%u)",
			      OM_ENTRY_KIND_MAX, OM_ENTRY_KEY_MAX, OM_ENTRY_VALUE_MAX);
	}
	return OM_OK;
}

enum om_err
sq_entry_put(struct om_store *st, struct om_str kind, struct om_str key, struct om_bin value)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = sq_writable(sq);

	if (err == OM_OK) {
		err = entry_check(sq, kind, key, value.len);
	}
	if (err != OM_OK) {
		return err;
	}
	sq_log_stmt(sq, SQ_ENTRY_PUT);
	sq_log_str(sq, kind);
	sq_log_str(sq, key);
	sq_log_bin(sq, value);
	return sq_log_run(sq);
}

enum om_err
sq_entry_del(struct om_store *st, struct om_str kind, struct om_str key)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = sq_writable(sq);

	if (err == OM_OK) {
		err = entry_check(sq, kind, key, 0);
	}
	if (err != OM_OK) {
		return err;
	}
	sq_log_stmt(sq, SQ_ENTRY_DEL);
	sq_log_str(sq, kind);
	sq_log_str(sq, key);
	err = sq_log_run(sq);
	if (err == OM_OK && sqlite3_changes(sq->db) == 0) {
		sq_log_drop(sq);
		err = sq_why(sq, OM_ERR_NOT_FOUND, "%.*s is not in the list \"%.*s\"",
			     OM_STR_ARG(key), OM_STR_ARG(kind));
	}
	return err;
}

enum om_err
sq_entry_get(struct om_store *st, struct om_str kind, struct om_str key, struct om_buf *out)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err;
	struct om_bin value;
	sqlite3_stmt *s;
	bool found;

	err = entry_check(sq, kind, key, 0);
	if (err != OM_OK) {
		return err;
	}
	s = sq_stmt(sq, SQ_ENTRY_GET, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_str(s, 1, kind);
	sq_bind_str(s, 2, key);
	err = sq_step(sq, s, &found, "read an entry");
	if (err == OM_OK && !found) {
		err = sq_why(sq, OM_ERR_NOT_FOUND, "%.*s is not in the list \"%.*s\"",
			     OM_STR_ARG(key), OM_STR_ARG(kind));
	}
	if (err == OM_OK) {
		value = sq_col_bin(s, 0);
		om_buf_add(out, value.ptr, value.len);
		if (out->failed) {
			err = sq_why(sq, OM_ERR_NOMEM, "no memory for an entry");
		}
	}
	(void)sqlite3_reset(s);
	return err;
}

enum om_err
sq_entry_each(struct om_store *st, struct om_str kind, struct om_str after_key, om_entry_fn fn,
	      void *arg)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found;

	s = sq_stmt(sq, SQ_ENTRY_EACH, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_str(s, 1, kind);
	sq_bind_str(s, 2, after_key.ptr == NULL ? OM_STR("") : after_key);
	while ((err = sq_step(sq, s, &found, "read a list")) == OM_OK && found) {
		if (!fn(arg, sq_col_str(s, 0), sq_col_bin(s, 1))) {
			break;
		}
	}
	(void)sqlite3_reset(s);
	return err;
}

static enum om_err
admin_used(struct om_sqlite *sq, uint64_t *used, uint64_t *unused)
{
	int64_t pages = 0, spare = 0, size = 0;
	enum om_err err;

	err = sq_settle(sq);
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "PRAGMA page_count", &pages);
	}
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "PRAGMA freelist_count", &spare);
	}
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "PRAGMA page_size", &size);
	}
	if (err == OM_OK) {
		*used = (uint64_t)((pages - spare) * size);
		*unused = (uint64_t)(spare * size);
	}
	return err;
}

static enum om_err
purge_job(struct om_sqlite *sq, int64_t seq, enum om_job_state state)
{
	static const enum sq_stmt parts[] = { SQ_SPEC_DELETE, SQ_AFTER_DELETE, SQ_JOB_DELETE };
	enum om_err err;
	size_t i;

	err = sq_output_drop(sq, seq);
	for (i = 0; err == OM_OK && i < OM_COUNT(parts); i++) {
		sq_log_stmt(sq, parts[i]);
		sq_log_i64(sq, seq);
		err = sq_log_run(sq);
	}
	if (err == OM_OK) {
		err = sq_count_move(sq, state, OM_JOB_STATES, (struct om_wall){ 0 });
	}
	return err;
}

enum om_err
sq_job_remove(struct om_store *st, const struct om_job_id *id)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_job_row row;
	enum om_err err;
	sqlite3_stmt *s;
	bool waits;

	err = sq_writable(sq);
	if (err == OM_OK) {
		err = sq_job_get(st, id, &row);
	}
	if (err == OM_OK) {
		err = sq_rows_flush(sq);
		sq_rows_clear(sq); /* jobs that go must not be remembered */
	}
	if (err != OM_OK) {
		return err;
	}
	if (!om_job_is_final(row.state)) {
		return sq_why(sq, OM_ERR_STATE, "job %s is %s", id->text,
			      om_job_state_text(row.state));
	}
	s = sq_stmt(sq, SQ_AFTER_WAITS, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_u64(s, 1, row.seq);
	err = sq_step(sq, s, &waits, "find who waits");
	(void)sqlite3_reset(s);
	if (err == OM_OK && waits) {
		err = sq_why(sq, OM_ERR_STATE, "another job waits for job %s", id->text);
	}
	return err == OM_OK ? purge_job(sq, (int64_t)row.seq, row.state) : err;
}

struct purge_pick {
	int64_t seq;
	enum om_job_state state;
};

/*
 * The oldest finished jobs that may go, at most cap.  Picked first and removed then: removing rows
 * under a running scan would be undefined.  *limit_hit: more would follow.
 */
static enum om_err
purge_select(struct om_sqlite *sq, const struct om_purge *purge, bool by_size,
	     struct purge_pick *picks, size_t cap, size_t *count)
{
	enum om_err err = OM_OK;
	struct om_str text;
	sqlite3_stmt *s;
	bool found;
	int looked;

	*count = 0;
	s = sq_stmt(sq, SQ_JOB_OLDEST, &err);
	if (s == NULL) {
		return err;
	}
	for (looked = 0; *count < cap && looked < OM_STORE_SCAN_MAX; looked++) {
		struct purge_pick *pick = &picks[*count];

		err = sq_step(sq, s, &found, "find old jobs");
		if (err != OM_OK || !found ||
		    (!by_size && sqlite3_column_int64(s, 1) >= purge->finished_before.ns)) {
			break;
		}
		pick->seq = sqlite3_column_int64(s, 0);
		text = sq_col_str(s, 2);
		if (om_job_state_parse(text.ptr, text.len, &pick->state) == OM_OK &&
		    (purge->states == 0 || (OM_JOB_BIT(pick->state) & purge->states) != 0)) {
			(*count)++;
		}
	}
	(void)sqlite3_reset(s);
	return err;
}

/* By age when by_size is false; else oldest first until the store is small enough. */
static enum om_err
purge_jobs(struct om_sqlite *sq, struct om_purge *purge, bool by_size)
{
	struct purge_pick picks[PURGE_BATCH];
	const size_t batch =
	    purge->batch == 0 || purge->batch > PURGE_BATCH ? PURGE_BATCH : purge->batch;
	uint64_t used = 0, unused = 0;
	size_t count = 0, i;
	enum om_err err;

	err = purge_select(sq, purge, by_size, picks, batch, &count);
	for (i = 0; err == OM_OK && i < count; i++) {
		if (by_size) {
			err = admin_used(sq, &used, &unused);
			if (err != OM_OK || used <= purge->bytes_max) {
				return err;
			}
		}
		err = purge_job(sq, picks[i].seq, picks[i].state);
		purge->jobs += err == OM_OK;
	}
	purge->more = purge->more || count == batch;
	return err;
}

static enum om_err
purge_audit(struct om_sqlite *sq, struct om_purge *purge)
{
	const size_t limit =
	    (purge->batch == 0 ? PURGE_BATCH : purge->batch) * (size_t)PURGE_AUDIT_PER_JOB;
	char text[96];
	struct om_audit_note note = { .event = OM_STR("audit.cut"), .actor = OM_STR("ledger") };
	enum om_err err;
	int n;

	err = sq_audit_cut(sq, purge->audit_before, limit, &purge->audit_rows);
	if (err != OM_OK || purge->audit_rows == 0) {
		return err;
	}
	purge->more = purge->more || purge->audit_rows == limit;
	n = snprintf(text, sizeof(text), "%" PRIu64 " rows up to %" PRIu64 " removed by retention",
		     purge->audit_rows, sq->now.base.seq);
	note.details = (struct om_str){ text, (size_t)n };
	return sq_audit_notes(sq, om_wall_now(), &note, 1, NULL);
}

/* Counts by the quarter of an hour that nobody asks for any more. */
static enum om_err
purge_tally(struct om_sqlite *sq)
{
	static const enum sq_stmt cuts[] = { SQ_TALLY_CUT, SQ_RAN_CUT };
	enum om_err err = sq_tally_flush(sq); /* in the log it is in front of the cut */

	for (size_t i = 0; err == OM_OK && i < OM_COUNT(cuts); i++) {
		sq_log_stmt(sq, cuts[i]);
		sq_log_i64(sq, om_wall_now().ns / OM_NS_PER_S - TALLY_KEEP_S);
		err = sq_log_run(sq);
		if (err == OM_OK && sqlite3_changes(sq->db) == 0) {
			sq_log_drop(sq);
		}
	}
	return err;
}

enum om_err
sq_purge(struct om_store *st, struct om_purge *purge)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = sq_writable(sq);

	if (err == OM_OK) {
		err = sq_rows_flush(sq);
		sq_rows_clear(sq); /* jobs that go must not be remembered */
	}
	purge->jobs = 0;
	purge->audit_rows = 0;
	purge->more = false;
	if (err == OM_OK && purge->finished_before.ns != 0) {
		err = purge_jobs(sq, purge, false);
	}
	if (err == OM_OK && purge->bytes_max != 0) {
		err = purge_jobs(sq, purge, true);
	}
	if (err == OM_OK && purge->audit_before.ns != 0) {
		err = purge_audit(sq, purge);
	}
	return err == OM_OK ? purge_tally(sq) : err;
}

enum om_err
sq_stat(struct om_store *st, struct om_store_stat *out)
{
	struct om_sqlite *sq = sq_of(st);
	uint64_t counts[OM_JOB_STATES];
	enum om_err err;
	size_t i;

	memset(out, 0, sizeof(*out));
	err = sq_counts(st, counts);
	if (err == OM_OK) {
		err = admin_used(sq, &out->used_bytes, &out->free_bytes);
	}
	if (err != OM_OK) {
		return err;
	}
	for (i = 0; i < OM_JOB_STATES; i++) {
		out->jobs += counts[i];
	}
	out->audit_rows = sq->now.head.seq - sq->now.base.seq;
	out->wal_bytes = sq->log[0].end + sq->log[1].end + (uint64_t)sq->wal_frames * 4120;
	out->commits = sq->commits;
	out->rollbacks = sq->rollbacks;
	out->checkpoints = sq->checkpoints;
	out->recoveries = sq->recoveries;
	out->schema = sq_schema_version;
	return OM_OK;
}

enum om_err
sq_check(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	sqlite3_stmt *s = NULL;
	enum om_err err;
	bool found;

	OM_ASSERT(!sq->in_tx);
	err = sq->read_only ? OM_OK : sq_fold(sq);
	if (err != OM_OK) {
		return err;
	}
	if (sqlite3_prepare_v2(sq->db, "PRAGMA integrity_check(1)", -1, &s, NULL) != SQLITE_OK) {
		return sq_fail(sq, sqlite3_errcode(sq->db), "check");
	}
	err = sq_step(sq, s, &found, "check");
	if (err == OM_OK && (!found || !om_str_is(sq_col_str(s, 0), "ok"))) {
		err = sq_why(sq, OM_ERR_CORRUPT, "%.100s: %.*s", sq->path,
			     OM_STR_ARG(sq_col_str(s, 0)));
	}
	(void)sqlite3_finalize(s);
	return err == OM_OK ? sq_schema_check(sq) : err;
}
