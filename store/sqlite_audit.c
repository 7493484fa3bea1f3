/* SPDX-License-Identifier: ISC */
#include <string.h>
#include "store/sqlite_impl.h"

/*
 * The audit rows.  The end of the chain is kept in memory and logged once a group, with the rows
 * (sqlite_tx.c).  It is never taken from the last row: rows that somebody
 * removed from the end are missed for ever.
 */

/* A view that is never absent, cut at a character's start. */
static struct om_str
audit_text(struct om_str text, size_t max)
{
	if (text.ptr == NULL) {
		return OM_STR("");
	}
	if (text.len > max) {
		text.len = max;
		while (text.len > 0 && ((uint8_t)text.ptr[text.len] & 0xc0) == 0x80) {
			text.len--;
		}
	}
	return text;
}

static enum om_err
audit_insert(struct om_sqlite *sq, const struct om_audit_row *row)
{
	sq_log_stmt(sq, SQ_AUDIT_INSERT);
	sq_log_u64(sq, row->seq);
	sq_log_i64(sq, row->at.ns);
	sq_log_str(sq, row->event);
	sq_log_str(sq, row->actor);
	sq_log_str(sq, row->job);
	sq_log_str(sq, row->requester);
	sq_log_str(sq, row->network);
	sq_log_str(sq, row->activity);
	sq_log_str(sq, row->details);
	sq_log_bin(sq, (struct om_bin){ row->hash, OM_HASH_LEN });
	return sq_log_later(sq);
}

enum om_err
sq_audit_note(struct om_sqlite *sq, struct om_wall at, const struct om_audit_note *note,
	      const struct om_job_row *job)
{
	struct om_audit_row row = {
		.seq = sq->now.head.seq + 1,
		.at = at,
		.event = note->event,
		.actor = audit_text(note->actor, OM_PEER_ID_MAX),
		.details = audit_text(note->details, OM_AUDIT_TEXT_MAX),
	};
	enum om_err err;

	OM_ASSERT(note->event.len > 0 && note->event.len <= OM_AUDIT_EVENT_MAX);
	if (job != NULL) {
		row.job = om_str_of(job->id.text);
		row.requester = om_str_of(job->requester.text);
		row.network = om_str_of(job->network.text);
		row.activity = om_str_of(job->activity);
	}
	if (!om_audit_hash(sq->hasher, sq->now.head.hash, &row, row.hash)) {
		/* The job's own row may be written already: the group cannot go on. */
		sq->doomed = sq_why(sq, OM_ERR_NOMEM, "no memory for a hash");
		return sq->doomed;
	}
	err = audit_insert(sq, &row);
	if (err == OM_OK) {
		sq->now.head.seq = row.seq;
		memcpy(sq->now.head.hash, row.hash, OM_HASH_LEN);
	}
	return err;
}

enum om_err
sq_audit_append(struct om_store *st, struct om_wall at, const struct om_audit_note *note)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = sq_writable(sq);

	return err != OM_OK ? err : sq_audit_note(sq, at, note, NULL);
}

/* Views into the statement, until its next step. */
static bool
audit_row(sqlite3_stmt *s, struct om_audit_row *row)
{
	memset(row, 0, sizeof(*row));
	row->seq = sq_col_u64(s, 0);
	row->at.ns = sqlite3_column_int64(s, 1);
	row->event = sq_col_str(s, 2);
	row->actor = sq_col_str(s, 3);
	row->job = sq_col_str(s, 4);
	row->requester = sq_col_str(s, 5);
	row->network = sq_col_str(s, 6);
	row->activity = sq_col_str(s, 7);
	row->details = sq_col_str(s, 8);
	return sq_col_hash(s, 9, row->hash);
}

enum om_err
sq_audit_each(struct om_store *st, struct om_audit_filter *filter, size_t limit, om_audit_fn fn,
	      void *arg, bool *more)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_audit_row row;
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	size_t given = 0;
	bool found = false, go_on = true;
	uint32_t looks = filter->looks == 0 ? OM_STORE_SCAN_MAX : filter->looks;

	*more = false;
	s = sq_stmt(sq, SQ_AUDIT_EACH, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_u64(s, 1, filter->after_seq);
	for (; go_on && given < limit && looks > 0; looks--) {
		err = sq_step(sq, s, &found, "read the audit");
		if (err != OM_OK || !found) {
			break;
		}
		(void)audit_row(s, &row);
		filter->after_seq = row.seq;
		if (row.at.ns < filter->since.ns ||
		    (filter->job.ptr != NULL && !om_str_eq(row.job, filter->job))) {
			continue;
		}
		given++;
		go_on = fn(arg, &row);
	}
	(void)sqlite3_reset(s);
	*more = err == OM_OK && found;
	return err;
}

enum om_err
sq_chain_load(struct om_sqlite *sq, struct om_audit_mark *head, struct om_audit_mark *base)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found;

	s = sq_stmt(sq, SQ_CHAIN_GET, &err);
	if (s == NULL) {
		return err;
	}
	err = sq_step(sq, s, &found, "read the end of the audit chain");
	if (err == OM_OK &&
	    (!found || !sq_col_hash(s, 1, head->hash) || !sq_col_hash(s, 3, base->hash))) {
		err = sq_why(sq, OM_ERR_CORRUPT, "%.100s: the end of the audit chain is not there",
			     sq->path);
	}
	if (err == OM_OK) {
		head->seq = sq_col_u64(s, 0);
		base->seq = sq_col_u64(s, 2);
	}
	(void)sqlite3_reset(s);
	return err;
}

enum om_err
sq_audit_head(struct om_store *st, struct om_audit_mark *out)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_audit_mark base;

	if (sq->read_only) {
		return sq_chain_load(sq, out, &base);
	}
	*out = sq->now.head;
	return OM_OK;
}

/* The rows from check->at on, at most limit; *end: no row is left. */
static enum om_err
verify_rows(struct om_sqlite *sq, struct om_audit_check *check, size_t limit, bool *end)
{
	struct om_audit_row row;
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found = true;
	size_t i;

	s = sq_stmt(sq, SQ_AUDIT_EACH, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_u64(s, 1, check->at.seq);
	for (i = 0; i < limit && !check->done; i++) {
		err = sq_step(sq, s, &found, "read the audit");
		if (err != OM_OK || !found) {
			break;
		}
		(void)audit_row(s, &row); /* a hash of the wrong size reads as zeros: no match */
		(void)om_audit_check_row(sq->hasher, check, &row);
	}
	(void)sqlite3_reset(s);
	*end = !found;
	return err;
}

enum om_err
sq_audit_verify(struct om_store *st, struct om_audit_check *check, size_t limit)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_audit_mark head = sq->now.head, base = sq->now.base;
	enum om_err err;
	bool end = false;

	/* One snapshot for the rows and the end, when another process writes. */
	if (sq->read_only) {
		err = sq_exec(sq, "BEGIN");
		if (err == OM_OK) {
			err = sq_chain_load(sq, &head, &base);
		}
		if (err != OM_OK) {
			goto out;
		}
	}
	if (!check->started || check->at.seq < base.seq) {
		/* The first step; or the rows ahead were purged since the last one. */
		check->started = true;
		check->at = base;
	}
	err = verify_rows(sq, check, limit, &end);
	if (err == OM_OK && end && !check->done) {
		om_audit_check_end(check, &head);
	}
out:
	if (sq->read_only && sqlite3_get_autocommit(sq->db) == 0) {
		(void)sqlite3_exec(sq->db, "COMMIT", NULL, NULL, NULL);
	}
	return err;
}

/* The last row that goes: the front as far as it is older than `before`. */
static enum om_err
cut_find(struct om_sqlite *sq, struct om_wall before, size_t limit, struct om_audit_mark *last)
{
	struct om_audit_row row;
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found;
	size_t i;

	s = sq_stmt(sq, SQ_AUDIT_EACH, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_u64(s, 1, sq->now.base.seq);
	for (i = 0; i < limit; i++) {
		err = sq_step(sq, s, &found, "read the audit");
		if (err != OM_OK || !found) {
			break;
		}
		/* A front with a gap stays: what is wrong with it must remain to be seen. */
		if (!audit_row(s, &row) || row.at.ns >= before.ns || row.seq != last->seq + 1) {
			break;
		}
		last->seq = row.seq;
		memcpy(last->hash, row.hash, OM_HASH_LEN);
	}
	(void)sqlite3_reset(s);
	return err;
}

enum om_err
sq_audit_cut(struct om_sqlite *sq, struct om_wall before, size_t limit, uint64_t *removed)
{
	struct om_audit_mark last = sq->now.base;
	enum om_err err;

	*removed = 0;
	err = cut_find(sq, before, limit, &last);
	if (err != OM_OK || last.seq == sq->now.base.seq) {
		return err;
	}
	sq_log_stmt(sq, SQ_AUDIT_CUT);
	sq_log_u64(sq, last.seq);
	err = sq_log_run(sq);
	if (err == OM_OK) {
		*removed = last.seq - sq->now.base.seq;
		sq->now.base = last;
	}
	return err;
}
