/* SPDX-License-Identifier: ISC */
#include <stdio.h>
#include <string.h>
#include "store/sqlite_impl.h"

/*
 * Statements and their parameters.
 *
 * 1. A statement is reset before it is handed out and by whoever stepped it to its end.  If broken:
 *    a forgotten read keeps its snapshot, and the log cannot be reused.
 * 2. Every parameter is bound anew at every use; texts are bound without a copy and are never read
 *    after the call that bound them.  If broken: a dangling pointer.
 */

#define JOB_UPDATE(finished)                                                                     \
	"UPDATE job SET rank=?2, level=?3, state=?4, reason=?5, text=?6, picked=?7, started=?8," \
	" " finished " not_before=?10, expires=?11, attempts=?12, held=?13, exited=?14,"         \
	" exit_code=?15, signal=?16, cpu_ms=?17, wall_ms=?18, mem_peak_kib=?19, rx_bytes=?20,"   \
	" tx_bytes=?21, dropped_bytes=?22, boot_ms=?23, handshake=?24,"                          \
	" has_output=?25 WHERE seq=?1"

static const char *const sq_sql[SQ_STMTS] = {
	[SQ_BEGIN] = "BEGIN IMMEDIATE",
	[SQ_COMMIT] = "COMMIT",
	[SQ_OTHERS] = "PRAGMA data_version",
	[SQ_GENERATION_SET] = "UPDATE commit_log SET generation=?1",
	[SQ_JOB_INSERT] =
	    "INSERT INTO job(seq, rank, id, requester, network, lang, activity, level, state,"
	    " reason, text,"
	    " cores, mem_mib, disk_mib, runtime_s, submitted, finished, not_before, expires,"
	    " attempts, attempts_max, after_count, held, requeue, spec_hash, array_limit, sealed,"
	    " has_output) "
	    "VALUES(?1, ?2, ?3, "
	    "?4, ?5, ?6,"
	    " ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, 0, ?20, ?21, ?22, ?23,"
	    " ?24, ?25, ?26, 0)",
	[SQ_JOB_INSERT_GROWN] =
	    "INSERT INTO job(seq, rank, id, requester, network, lang, activity, level, state,"
	    " reason, text,"
	    " cores, mem_mib, disk_mib, runtime_s, submitted, finished, not_before, expires,"
	    " attempts_max, after_count, held, requeue, spec_hash, array_limit, sealed,"
	    " picked, started, attempts, exited, exit_code, signal, cpu_ms, wall_ms,"
	    " mem_peak_kib, rx_bytes, tx_bytes, dropped_bytes, boot_ms, handshake, has_output) "
	    "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,"
	    " ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33,"
	    " ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41)",
	[SQ_JOB_IDS] = "SELECT id FROM job",
	[SQ_JOB_UPDATE] = JOB_UPDATE("finished=?9,"),
	/* The indexes that name it are left alone. */
	[SQ_JOB_UPDATE_LIVE] = JOB_UPDATE(""),
	[SQ_JOB_BY_ID] = "SELECT " SQ_JOB_COLS " FROM job WHERE id=?1",
	[SQ_JOB_SEQ] = "SELECT seq FROM job WHERE id=?1",
	[SQ_JOB_PREFIX] = "SELECT id, requester FROM job WHERE id>=?1 ORDER BY id",
	[SQ_JOB_LIST_UP] = "SELECT " SQ_JOB_COLS " FROM job WHERE seq>?1 ORDER BY seq",
	[SQ_JOB_LIST_DOWN] = "SELECT " SQ_JOB_COLS " FROM job WHERE seq<?1 ORDER BY seq DESC",
	[SQ_JOB_LIST_LIVE] = "SELECT " SQ_JOB_COLS " FROM job INDEXED BY job_live"
			     " WHERE finished IS NULL AND seq>?1 ORDER BY seq",
	[SQ_JOB_LIST_LIVE_DOWN] = "SELECT " SQ_JOB_COLS " FROM job INDEXED BY job_live"
				  " WHERE finished IS NULL AND seq<?1 ORDER BY seq DESC",
	[SQ_JOB_LIST_ARRAY] = "SELECT " SQ_JOB_COLS " FROM job WHERE id>?2 AND id<?3 AND +seq>?1"
			      " AND array_limit IS NOT NULL ORDER BY +seq",
	[SQ_JOB_OLDEST] = "SELECT seq, finished, state FROM job INDEXED BY job_finished WHERE "
			  "finished IS NOT NULL"
			  " AND NOT EXISTS (SELECT 1 FROM job_after a JOIN job w ON w.seq=a.job"
			  " WHERE a.other=job.seq AND w.finished IS NULL) ORDER BY finished",
	[SQ_JOB_DELETE] = "DELETE FROM job WHERE seq=?1",
	[SQ_SPEC_INSERT] = "INSERT INTO job_spec(job, body) VALUES(?1, ?2)",
	[SQ_SPEC_GET] = "SELECT body FROM job_spec WHERE job=?1",
	[SQ_SPEC_DELETE] = "DELETE FROM job_spec WHERE job=?1",
	[SQ_SPEC_SET] = "UPDATE job_spec SET body=?2 WHERE job=?1",
	[SQ_AFTER_INSERT] = "INSERT INTO job_after(job, other, condition) VALUES(?1, ?2, ?3)"
			    " ON CONFLICT DO NOTHING",
	[SQ_AFTER_LIST] = "SELECT o.id, o.state, a.condition FROM job_after a JOIN job o"
			  " ON o.seq=a.other WHERE a.job=?1 ORDER BY a.other",
	[SQ_AFTER_WAITS] = "SELECT 1 FROM job_after a JOIN job w ON w.seq=a.job"
			   " WHERE a.other=?1 AND w.finished IS NULL LIMIT 1",
	[SQ_AFTER_DELETE] = "DELETE FROM job_after WHERE job=?1",
	[SQ_STREAM_GET] = "SELECT id, size FROM stream WHERE job=?1 AND name=?2",
	[SQ_STREAM_INSERT] = "INSERT INTO stream(job, name, size) VALUES(?1, ?2, 0)",
	[SQ_STREAM_GROW] = "UPDATE stream SET size=?2 WHERE id=?1",
	[SQ_STREAM_LIST] = "SELECT name, size FROM stream WHERE job=?1 ORDER BY id",
	[SQ_STREAM_DELETE] = "DELETE FROM stream WHERE job=?1",
	[SQ_CHUNK_INSERT] = "INSERT INTO chunk(stream, off, data) VALUES(?1, ?2, ?3)",
	[SQ_CHUNK_READ] =
	    "SELECT off, data FROM chunk WHERE stream=?1 AND off>=coalesce((SELECT max(off)"
	    " FROM chunk WHERE stream=?1 AND off<=?2), 0) ORDER BY off",
	[SQ_CHUNK_DELETE] =
	    "DELETE FROM chunk WHERE stream IN (SELECT id FROM stream WHERE job=?1)",
	[SQ_ENTRY_PUT] = "INSERT INTO entry(kind, key, value) VALUES(?1, ?2, ?3)"
			 " ON CONFLICT(kind, key) DO UPDATE SET value=excluded.value",
	[SQ_ENTRY_DEL] = "DELETE FROM entry WHERE kind=?1 AND key=?2",
	[SQ_ENTRY_GET] = "SELECT value FROM entry WHERE kind=?1 AND key=?2",
	[SQ_ENTRY_EACH] = "SELECT key, value FROM entry WHERE kind=?1 AND key>?2 ORDER BY key",
	[SQ_AUDIT_PACK] = "INSERT INTO audit(first, last, rows) VALUES(?1, ?2, ?3)",
	[SQ_AUDIT_EACH] = "SELECT first, last, rows FROM audit WHERE first>?1-?2 AND last>?1"
			  " ORDER BY first",
	[SQ_AUDIT_CUT] = "DELETE FROM audit WHERE first<=?1 AND last<=?1",
	[SQ_AUDIT_TRIM] =
	    "UPDATE audit SET first=?1+1, rows=(SELECT json_group_array(json(r.value))"
	    " FROM json_each(audit.rows) r WHERE r.key>?1-audit.first) WHERE first<=?1",
	[SQ_CHAIN_GET] = "SELECT seq, hash, base_seq, base_hash FROM chain WHERE one=1",
	[SQ_CHAIN_SET] = "UPDATE chain SET seq=?1, hash=?2, base_seq=?3, base_hash=?4 WHERE one=1",
	[SQ_COUNT_SET] = "INSERT INTO state_count(state, n) VALUES(?1, ?2)"
			 " ON CONFLICT(state) DO UPDATE SET n=excluded.n",
	[SQ_TALLY_ADD] = "INSERT INTO tally(slot, state, n) VALUES(?1, ?2, ?3)"
			 " ON CONFLICT(slot, state) DO UPDATE SET n=n+excluded.n",
	[SQ_TALLY_SUM] = "SELECT state, sum(n) FROM tally WHERE slot>=?1 GROUP BY state",
	[SQ_TALLY_CUT] = "DELETE FROM tally WHERE slot<?1",
	[SQ_RAN_ADD] = "INSERT INTO ran(slot, requester, ms) VALUES(?1, ?2, ?3)"
		       " ON CONFLICT(slot, requester) DO UPDATE SET ms=ms+excluded.ms",
	[SQ_RAN_SUM] = "SELECT requester, sum(ms) FROM ran WHERE slot>=?1 AND requester>?2"
		       " GROUP BY requester ORDER BY requester LIMIT ?3",
	[SQ_RAN_CUT] = "DELETE FROM ran WHERE slot<?1",
};

sqlite3_stmt *
sq_stmt(struct om_sqlite *sq, enum sq_stmt which, enum om_err *err)
{
	if (sq->in_tx && sq->doomed != OM_OK) {
		*err =
		    sq->doomed; /* rows that wait in memory can no more be written for it to see */
		return NULL;
	}
	if (sq->behind) {
		*err = sq_replay(sq);
	}
	if (*err == OM_OK) {
		*err = sq_settle(sq);
		if (*err != OM_OK && sq->behind && !sq->in_tx) {
			*err =
			    sq_replay(sq); /* what failed was not this reader's: the log has it */
		}
	}
	return *err == OM_OK ? sq_stmt_now(sq, which, err) : NULL;
}

int
sq_stmt_raw(struct om_sqlite *sq, enum sq_stmt which, sqlite3_stmt **out)
{
	sqlite3_stmt **slot = &sq->stmts[which];
	int rc = SQLITE_OK;

	if (sq->db == NULL) {
		return SQLITE_CANTOPEN; /* closed after a failure */
	}
	if (*slot != NULL) {
		(void)sqlite3_reset(
		    *slot); /* repeats the error of its last step, which was reported */
	} else {
		rc = sqlite3_prepare_v3(sq->db, sq_sql[which], -1, SQLITE_PREPARE_PERSISTENT, slot,
					NULL);
	}
	*out = *slot;
	return rc;
}

int
sq_run_raw(sqlite3_stmt *s)
{
	const int rc = sqlite3_step(s);

	OM_ASSERT(rc != SQLITE_ROW);
	if (rc != SQLITE_DONE) {
		return rc; /* not reset yet: its message is the connection's last */
	}
	(void)sqlite3_reset(s);
	return SQLITE_OK;
}

sqlite3_stmt *
sq_stmt_now(struct om_sqlite *sq, enum sq_stmt which, enum om_err *err)
{
	sqlite3_stmt *s = NULL;
	int rc;

	OM_ASSERT(!sq->lent);
	rc = sq_stmt_raw(sq, which, &s);
	if (rc != SQLITE_OK) {
		*err = sq_fail(sq, rc, "prepare a statement");
		return NULL;
	}
	return s;
}

void
sq_finalize_all(struct om_sqlite *sq)
{
	size_t i;

	for (i = 0; i < SQ_STMTS; i++) {
		(void)sqlite3_finalize(sq->stmts[i]);
		sq->stmts[i] = NULL;
	}
}

enum om_err
sq_step(struct om_sqlite *sq, sqlite3_stmt *s, bool *row, const char *what)
{
	const int rc = sqlite3_step(s);
	enum om_err err;

	*row = rc == SQLITE_ROW;
	if (rc == SQLITE_ROW) {
		return OM_OK;
	}
	/* The reset comes second: the error text belongs to the step. */
	err = rc == SQLITE_DONE ? OM_OK : sq_fail(sq, rc, what);
	(void)sqlite3_reset(s);
	return err;
}

enum om_err
sq_run(struct om_sqlite *sq, sqlite3_stmt *s, const char *what)
{
	bool row;
	enum om_err err = sq_step(sq, s, &row, what);

	OM_ASSERT(!row);
	return err;
}

enum om_err
sq_exec(struct om_sqlite *sq, const char *sql)
{
	int rc;

	OM_ASSERT(!sq->lent);
	rc = sqlite3_exec(sq->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? OM_OK : sq_fail(sq, rc, sql);
}

enum om_err
sq_pragma_i64(struct om_sqlite *sq, const char *sql, int64_t *out)
{
	sqlite3_stmt *s = NULL;
	enum om_err err;
	bool row;
	int rc;

	OM_ASSERT(!sq->lent);
	rc = sqlite3_prepare_v2(sq->db, sql, -1, &s, NULL);
	if (rc != SQLITE_OK) {
		return sq_fail(sq, rc, sql);
	}
	err = sq_step(sq, s, &row, sql);
	if (err == OM_OK) {
		*out = row ? sqlite3_column_int64(s, 0) : 0;
	}
	(void)sqlite3_finalize(s);
	return err;
}

void
sq_bind_i64(sqlite3_stmt *s, int index, int64_t v)
{
	const int rc = sqlite3_bind_int64(s, index, v);

	OM_ASSERT(rc == SQLITE_OK);
}

void
sq_bind_u64(sqlite3_stmt *s, int index, uint64_t v)
{
	sq_bind_i64(s, index, v > INT64_MAX ? INT64_MAX : (int64_t)v);
}

void
sq_bind_wall(sqlite3_stmt *s, int index, struct om_wall at)
{
	if (at.ns == 0) {
		const int rc = sqlite3_bind_null(s, index);

		OM_ASSERT(rc == SQLITE_OK);
		return;
	}
	sq_bind_i64(s, index, at.ns);
}

void
sq_bind_str(sqlite3_stmt *s, int index, struct om_str v)
{
	/* A NULL pointer binds NULL: the absent view. */
	const int rc = sqlite3_bind_text64(s, index, v.ptr, v.len, SQLITE_STATIC, SQLITE_UTF8);

	OM_ASSERT(rc == SQLITE_OK);
}

void
sq_bind_text(sqlite3_stmt *s, int index, const char *v)
{
	sq_bind_str(s, index, (struct om_str){ v, strlen(v) });
}

void
sq_bind_bin(sqlite3_stmt *s, int index, struct om_bin v)
{
	/* An empty blob is not NULL. */
	const int rc = v.len == 0 ? sqlite3_bind_zeroblob(s, index, 0)
				  : sqlite3_bind_blob64(s, index, v.ptr, v.len, SQLITE_STATIC);

	OM_ASSERT(rc == SQLITE_OK);
}

struct om_str
sq_col_str(sqlite3_stmt *s, int col)
{
	/* The pointer first: asking for the text may change the number of bytes. */
	const char *ptr = (const char *)sqlite3_column_text(s, col);

	return (struct om_str){ ptr, ptr == NULL ? 0 : (size_t)sqlite3_column_bytes(s, col) };
}

struct om_bin
sq_col_bin(sqlite3_stmt *s, int col)
{
	const uint8_t *ptr = sqlite3_column_blob(s, col);

	return (struct om_bin){ ptr, (size_t)sqlite3_column_bytes(s, col) };
}

uint64_t
sq_col_u64(sqlite3_stmt *s, int col)
{
	const int64_t v = sqlite3_column_int64(s, col);

	return v < 0 ? 0 : (uint64_t)v;
}

void
sq_col_copy(sqlite3_stmt *s, int col, char *out, size_t size)
{
	const struct om_str v = sq_col_str(s, col);
	const size_t len = v.len < size ? v.len : size - 1;

	if (len > 0) {
		memcpy(out, v.ptr, len);
	}
	out[len] = '\0';
}

bool
sq_col_hash(sqlite3_stmt *s, int col, uint8_t out[OM_HASH_LEN])
{
	const struct om_bin v = sq_col_bin(s, col);

	if (v.len != OM_HASH_LEN) {
		memset(out, 0, OM_HASH_LEN);
		return false;
	}
	memcpy(out, v.ptr, OM_HASH_LEN);
	return true;
}
