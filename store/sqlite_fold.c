/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "store/sqlite_impl.h"

/* The commit log and SQLite's transaction: appending, folding, and making the one from the other.  The
 * invariants are in sqlite_log.c. */

/* --- commit ------------------------------------------------------------------------------------- */

static enum om_err
log_fail(struct om_sqlite *sq, int rc, const char *what)
{
	return sq_why(sq, sq_err_of(rc), "%.100s: %s: %s", sq->log.path, what, sqlite3_errstr(rc));
}

enum om_err
sq_log_append(struct om_sqlite *sq)
{
	const int rc = om_commit_log_append(&sq->log, &sq->group);

	if (rc != SQLITE_OK) {
		sq->stuck = true;
		return log_fail(sq, rc, "append a group");
	}
	return OM_OK;
}

/* --- replay ------------------------------------------------------------------------------------- */

void
sq_lost(struct om_sqlite *sq)
{
	if (sqlite3_get_autocommit(sq->db) == 0 &&
	    sqlite3_exec(sq->db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK &&
	    sqlite3_get_autocommit(sq->db) == 0) {
		sq->unusable = true;
	}
	sq_rows_clear(sq);
	sq_audit_forget(sq);
	memset(&sq->tally_fold, 0, sizeof(sq->tally_fold));
	sq->in_fold = false;
	sq->behind = true;
}

struct replay {
	struct om_sqlite *sq;
	enum om_err err;
};

static bool
replay_group(void *arg, struct om_bin body)
{
	struct replay *r = arg;

	r->err = sq_log_take(r->sq, body);
	return r->err == OM_OK;
}

static enum om_err
replay_run(struct om_sqlite *sq, uint64_t generation, uint64_t limit)
{
	struct replay r = { .sq = sq };
	const uint64_t count = sq->log.count, end = sq->log.end;
	int rc = om_commit_log_read(&sq->log, generation, limit, replay_group, &r);

	if (rc != SQLITE_OK && r.err == OM_OK) {
		r.err = log_fail(sq, rc, "read");
	}
	if (limit != UINT64_MAX) { /* our own groups: all must be there */
		if (r.err == OM_OK && sq->log.count != count) {
			r.err = sq_why(sq, OM_ERR_CORRUPT, "%.100s: group %" PRIu64 " is gone",
				       sq->log.path, sq->log.count);
		}
		sq->log.count = count;
		sq->log.end = end;
	}
	return r.err;
}

enum om_err
sq_fold_begin(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s = sq_stmt_now(sq, SQ_BEGIN, &err);

	if (s != NULL) {
		err = sq_run(sq, s, "begin");
	}
	if (err == OM_OK) {
		sq->in_fold = true;
		err = sq_see_others(sq);
	}
	return err;
}

enum om_err
sq_replay(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;

	OM_ASSERT(sq->behind && !sq->in_fold && !sq->in_tx);
	if (sq->unusable) {
		return sq_reconnect(sq); /* which replays */
	}
	sq_group_reset(sq);
	sq->behind = false;
	if (sq->log.count > 0) {
		err = sq_fold_begin(sq);
		if (err == OM_OK) {
			err = replay_run(sq, sq->log.generation, sq->log.count);
		}
		if (err == OM_OK) {
			sq->folded = sq->now; /* the transaction has all that the groups said */
		} else {
			sq_lost(sq);
		}
	}
	return err;
}

/* --- fold --------------------------------------------------------------------------------------- */

/* Somebody has taken it out; 0 is what nobody's random number is. */
static enum om_err
log_no_generation(struct om_sqlite *sq)
{
	return sq_why(sq, OM_ERR_CORRUPT, "%.100s: the commit log's generation is not there",
		      sq->path);
}

static enum om_err
generation_new(struct om_sqlite *sq, int64_t *generation)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s = sq_stmt_now(sq, SQ_GENERATION_NEW, &err);
	bool row = false;

	if (s == NULL) {
		return err;
	}
	err = sq_step(sq, s, &row, "begin a generation of the commit log");
	if (err == OM_OK) {
		*generation = row ? sqlite3_column_int64(s, 0) : 0;
		err = *generation == 0 ? log_no_generation(sq) : OM_OK;
	}
	(void)sqlite3_reset(s);
	return err;
}

static enum om_err
fold_commit(struct om_sqlite *sq, int64_t *generation)
{
	enum om_err err = sq_settle(sq);
	sqlite3_stmt *s;

	if (err == OM_OK) {
		err = sq_rows_flush(sq);
	}
	if (err == OM_OK) {
		err = sq_audit_flush(sq);
	}
	if (err == OM_OK) {
		err = sq_counters_flush(sq);
	}
	if (err == OM_OK) {
		err = generation_new(sq, generation);
	}
	if (err == OM_OK) {
		s = sq_stmt_now(sq, SQ_COMMIT, &err);
		if (s != NULL) {
			err = sq_run(sq, s, "commit");
		}
	}
	return err;
}

enum om_err
sq_fold(struct om_sqlite *sq)
{
	const bool was_stuck = sq->stuck;
	int64_t generation = 0;
	enum om_err err = OM_OK;

	OM_ASSERT(!sq->in_tx && !sq->read_only);
	if (sq->behind) {
		err = sq_replay(sq);
	}
	if (err != OM_OK || (!sq->in_fold && !sq->stuck)) {
		return err;
	}
	if (!sq->in_fold) {
		err = sq_fold_begin(sq);
	}
	if (err == OM_OK) {
		err = fold_commit(sq, &generation);
	}
	if (err != OM_OK) {
		sq->stuck = true;
		sq->wal_given_up = true;
		sq_lost(sq);
		return err;
	}
	sq->in_fold = false;
	sq->stuck = false;
	sq->folded = sq->now;
	sq->st.unfolded = false;
	sq_group_reset(sq);
	om_commit_log_restart(&sq->log, (uint64_t)generation);
	sq->folds++;
	if (was_stuck) {
		sq->recoveries++;
		om_info("store.recovered", "%s: a new commit log after a failed write", sq->path);
	}
	sq_wal_after_commit(sq);
	return OM_OK;
}

/* --- open --------------------------------------------------------------------------------------- */

static enum om_err
log_foreign(struct om_sqlite *sq)
{
	return sq_why(
	    sq, OM_ERR_VERSION,
	    "%.100s is of another version, and not folded: start that one once, and stop it",
	    sq->log.path);
}

/* Opens it.  *generation: the one that the tables go on with. */
static enum om_err
log_open(struct om_sqlite *sq, int64_t *generation)
{
	char path[4096];
	enum om_err err;
	int rc, n;

	n = snprintf(path, sizeof(path), "%s-log", sq->path);
	if (n < 0 || (size_t)n >= sizeof(path)) {
		return sq_why(sq, OM_ERR_INVALID, "%.60s...: the path is too long", sq->path);
	}
	rc = om_commit_log_open(&sq->log, sq->vfs, path, sq_schema_version);
	if (rc != SQLITE_OK) {
		return log_fail(sq, rc, "open");
	}
	err = sq_pragma_i64(sq, "SELECT generation FROM commit_log", generation);
	return err == OM_OK && *generation == 0 ? log_no_generation(sq) : err;
}

static bool
stop_at_first(void *arg, struct om_bin body)
{
	(void)arg;
	(void)body;
	return false;
}

enum om_err
sq_log_before_migration(struct om_sqlite *sq)
{
	int64_t tables = 0, generation = 0;
	enum om_err err;
	int rc;

	err = sq_pragma_i64(sq, "SELECT count(*) FROM sqlite_schema WHERE name = 'commit_log'",
			    &tables);
	if (err != OM_OK || tables == 0) {
		return err;
	}
	err = log_open(sq, &generation);
	if (err == OM_OK) {
		rc = om_commit_log_read(&sq->log, (uint64_t)generation, 1, stop_at_first, NULL);
		if (rc != SQLITE_OK) {
			err = log_fail(sq, rc, "read");
		} else if (sq->log.other_format || sq->log.count > 0) {
			err = log_foreign(sq);
		}
	}
	om_commit_log_close(&sq->log);
	return err;
}

/* What the last process has not folded. */
static enum om_err
attach_leftover(struct om_sqlite *sq, int64_t generation)
{
	enum om_err err = sq_fold_begin(sq);

	if (err == OM_OK) {
		err = replay_run(sq, (uint64_t)generation, UINT64_MAX);
	}
	if (err == OM_OK && sq->log.other_format) {
		err = log_foreign(sq);
	}
	if (err != OM_OK) {
		sq_lost(sq);
		om_commit_log_close(&sq->log); /* nobody folds what was read of it */
		return err;
	}
	sq->st.unfolded = sq->log.count > 0;
	if (sq->log.count > 0) {
		om_info("store.replayed", "%s: %" PRIu64 " groups from the commit log", sq->path,
			sq->log.count);
	}
	return OM_OK;
}

enum om_err
sq_log_attach(struct om_sqlite *sq)
{
	int64_t generation = 0;
	enum om_err err;

	if (sq->log.file != NULL) { /* opened anew: the log goes on */
		sq->behind = true;
		return sq_replay(sq);
	}
	sq_group_reset(sq);
	err = log_open(sq, &generation);
	return err == OM_OK ? attach_leftover(sq, generation) : err;
}

enum om_err
sq_log_clean(struct om_sqlite *sq, uint64_t bytes)
{
	enum om_err err = sq_fold(sq);
	int rc;

	if (err != OM_OK) {
		return err;
	}
	rc = om_commit_log_wipe(&sq->log, bytes);
	return rc == SQLITE_OK ? OM_OK : log_fail(sq, rc, "overwrite");
}
