/* SPDX-License-Identifier: ISC */
#include <string.h>
#include "store/sqlite_param.h"

/*
 * The commit log in front of the tables.
 *
 * Every statement that changes the tables is written down with its parameters.  A commit appends what
 * the group wrote down to the log, which is one write and one sync; the tables take it in within one
 * SQLite transaction that goes on over many groups, behind their answers, and is committed (folded) now
 * and then.  What a group costs does not depend on how many pages it touched.
 *
 * 1. The open transaction, the rows that are remembered (sqlite_rows.c), the audit's that wait for
 *    their pack (sqlite_audit.c) and the statements that wait here are together what the log says.  So
 *    what the transaction had can always be made again: read the log from its start (replay).  If
 *    broken: something acknowledged is lost.
 * 2. A fold commits the tables together with a new generation, in one transaction; from then on the
 *    groups in the log are of an old one.  If broken: a group is taken in twice.
 * 3. After a failed append or a failed fold nothing is appended before a fold has worked (stuck): what
 *    the disk has of that group is not known, and only a new generation makes it void.
 * 4. Statements that wait are run before anything is read, and before any other but those that say
 *    they do not depend on them.
 * 5. The tables are read through sq_stmt, which replays first when the transaction was lost (SQLite
 *    rolls back by itself after most I/O errors).  If broken: acknowledged jobs are not seen.
 * 6. A statement's number and its parameters are part of the file's format: see enum sq_stmt.
 */

#define GROUP_KEEP_BYTES (1 << 20) /* of memory, from one group to the next */
#define RECORD_HEAD      8 /* u32 bytes behind it, u16 statement, u16: not of what waits (in memory) */

struct record {
	uint32_t len;
	uint16_t stmt, done;
};

/* Large ones are seldom. */
static void
records_forget(struct om_buf *records)
{
	if (records->cap > GROUP_KEEP_BYTES) {
		om_buf_fini(records);
	}
	om_buf_reset(records);
}

static struct record
record_at(const uint8_t *at)
{
	struct record r;

	memcpy(&r.len, at, sizeof(r.len));
	memcpy(&r.stmt, at + 4, sizeof(r.stmt));
	memcpy(&r.done, at + 6, sizeof(r.done));
	return r;
}

static void
record_put(uint8_t *at, struct record r)
{
	memcpy(at, &r.len, sizeof(r.len));
	memcpy(at + 4, &r.stmt, sizeof(r.stmt));
	memcpy(at + 6, &r.done, sizeof(r.done));
}

/* --- writing down ------------------------------------------------------------------------------- */

void
sq_log_stmt(struct om_sqlite *sq, enum sq_stmt which)
{
	const uint8_t head[RECORD_HEAD] = { 0 };

	sq->record = sq->group.len;
	sq->record_stmt = which;
	om_buf_add(&sq->group, head, sizeof(head));
}

/* --- taking in ---------------------------------------------------------------------------------- */

struct param {
	uint8_t kind;
	int64_t i64;
	const void *data;
	uint32_t len;
};

/* Gives what is behind it.  A damaged one cannot be: the group's hash was right. */
static const uint8_t *
param_read(const uint8_t *at, struct param *out)
{
	*out = (struct param){ .kind = *at++ };
	switch (out->kind) {
	case SQ_PARAM_NULL:
		return at;
	case SQ_PARAM_I8:
		out->i64 = (int8_t)*at;
		return at + 1;
	case SQ_PARAM_I64:
		memcpy(&out->i64, at, sizeof(out->i64));
		return at + sizeof(out->i64);
	default:
		OM_ASSERT(out->kind == SQ_PARAM_TEXT || out->kind == SQ_PARAM_BLOB);
		memcpy(&out->len, at, sizeof(out->len));
		out->data = at + sizeof(out->len);
		return at + sizeof(out->len) + out->len;
	}
}

static const uint8_t *
param_bind(sqlite3_stmt *s, int index, const uint8_t *at)
{
	struct param p;

	at = param_read(at, &p);
	switch (p.kind) {
	case SQ_PARAM_NULL:
		sq_bind_str(s, index, (struct om_str){ NULL, 0 });
		break;
	case SQ_PARAM_TEXT:
		sq_bind_str(s, index, (struct om_str){ p.data, p.len });
		break;
	case SQ_PARAM_BLOB:
		sq_bind_bin(s, index, (struct om_bin){ p.data, p.len });
		break;
	default:
		sq_bind_i64(s, index, p.i64);
	}
	return at;
}

static int
record_audit(struct om_sqlite *sq, const uint8_t *at)
{
	struct param seq, row;

	at = param_read(at, &seq);
	(void)param_read(at, &row);
	return sq_audit_add(sq, (uint64_t)seq.i64, (struct om_str){ row.data, row.len });
}

static int
record_run(struct om_sqlite *sq, const uint8_t *at)
{
	const struct record r = record_at(at);
	const uint8_t *param = at + RECORD_HEAD, *end = param + r.len;
	sqlite3_stmt *s = NULL;
	int rc = SQLITE_OK;

	if (r.stmt == SQ_AUDIT_ADD) {
		return record_audit(sq, param);
	}
	if (r.stmt == SQ_AUDIT_CUT) {
		rc = sq_audit_flush(sq); /* of what waits, some may be cut */
	}
	if (rc == SQLITE_OK) {
		rc = sq_stmt_raw(sq, (enum sq_stmt)r.stmt, &s);
	}
	if (rc != SQLITE_OK) {
		return rc;
	}
	for (int i = 1; param < end; i++) {
		param = param_bind(s, i, param);
	}
	return sq_run_raw(s);
}

static int
records_run(struct om_sqlite *sq, const uint8_t *ptr, size_t len)
{
	int rc = SQLITE_OK;

	for (size_t at = 0; rc == SQLITE_OK && at < len;) {
		rc = record_run(sq, ptr + at);
		at += RECORD_HEAD + record_at(ptr + at).len;
	}
	return rc;
}

int
sq_records_run(struct om_sqlite *sq, struct om_buf *records)
{
	const int rc =
	    records->failed ? SQLITE_NOMEM : records_run(sq, records->data, records->len);

	records_forget(records);
	return rc;
}

static const char records_what[] = "write to the tables";

enum om_err
sq_log_take(struct om_sqlite *sq, struct om_bin group)
{
	const int rc = records_run(sq, group.ptr, group.len);

	return rc == SQLITE_OK ? OM_OK : sq_fail(sq, rc, records_what);
}

/* Closes the record; NOMEM dooms the group, which would be logged without it. */
static enum om_err
log_close(struct om_sqlite *sq, bool done)
{
	struct record r = { .stmt = (uint16_t)sq->record_stmt, .done = done };

	if (sq->group.failed) {
		sq->doomed = sq_why(sq, OM_ERR_NOMEM, "no memory for the commit log");
		return sq->doomed;
	}
	r.len = (uint32_t)(sq->group.len - sq->record - RECORD_HEAD);
	record_put(sq->group.data + sq->record, r);
	return OM_OK;
}

void
sq_log_drop(struct om_sqlite *sq)
{
	sq->group.len = sq->record;
	if (sq->settled > sq->record) {
		sq->settled = sq->record;
	}
}

enum om_err
sq_log_later(struct om_sqlite *sq)
{
	return log_close(sq, false);
}

enum om_err
sq_log_only(struct om_sqlite *sq)
{
	return log_close(sq, true);
}

enum om_err
sq_log_ahead(struct om_sqlite *sq)
{
	enum om_err err = log_close(sq, true);

	if (err == OM_OK) {
		om_buf_add(&sq->wait, sq->group.data + sq->record, sq->group.len - sq->record);
	}
	return err;
}

enum om_err
sq_log_run(struct om_sqlite *sq)
{
	enum om_err err = log_close(sq, true);
	int rc;

	if (err == OM_OK) {
		err = sq_settle(sq);
	}
	if (err != OM_OK) {
		return err;
	}
	rc = record_run(sq, sq->group.data + sq->record);
	return rc == SQLITE_OK ? OM_OK : sq_fail(sq, rc, records_what);
}

enum om_err
sq_tables_fail(struct om_sqlite *sq, enum om_err err)
{
	if (!sq->in_tx) {
		sq_lost(sq);
	} else if (sq->doomed == OM_OK) {
		sq->doomed = err;
	}
	return err;
}

enum om_err
sq_records_fail(struct om_sqlite *sq, int rc)
{
	records_forget(&sq->wait);
	return sq_tables_fail(sq, sq_fail(sq, rc, records_what));
}

void
sq_log_hand(struct om_sqlite *sq)
{
	while (sq->settled < sq->group.len) {
		const uint8_t *at = sq->group.data + sq->settled;
		const struct record r = record_at(at);

		sq->settled += RECORD_HEAD + r.len;
		if (!r.done) {
			om_buf_add(&sq->wait, at, RECORD_HEAD + r.len);
		}
	}
}

enum om_err
sq_settle(struct om_sqlite *sq)
{
	enum om_err err = sq_own(sq);
	int rc;

	if (err != OM_OK) {
		return err;
	}
	sq_log_hand(sq);
	rc = sq_records_run(sq, &sq->wait);
	return rc == SQLITE_OK ? OM_OK : sq_records_fail(sq, rc);
}

void
sq_group_reset(struct om_sqlite *sq)
{
	records_forget(&sq->group);
	(void)sq_log_room(sq,
			  OM_COMMIT_LOG_HEAD); /* without it the first record fails, and says so */
	sq->settled = OM_COMMIT_LOG_HEAD;
}
