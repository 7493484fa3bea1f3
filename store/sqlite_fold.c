/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "store/sqlite_impl.h"

/* The commit log and SQLite's transaction: appending, folding, and making the one from the other.  The
 * invariants are in sqlite_log.c. */

/* --- commit ------------------------------------------------------------------------------------- */

enum om_err
sq_log_fail(struct om_sqlite *sq, const struct om_commit_log *log, int rc, const char *what)
{
	return sq_why(sq, sq_err_of(rc), "%.100s: %s: %s", log->path, what, sqlite3_errstr(rc));
}

/* --- replay ------------------------------------------------------------------------------------- */

void
sq_lost(struct om_sqlite *sq)
{
	sq_flight_land(sq); /* what is in the log is read again */
	sq_recall(sq);
	om_buf_reset(&sq->wait);
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

/* As far as they go: what an earlier process has left. */
static enum om_err
replay_left(struct om_sqlite *sq, struct om_commit_log *log, uint64_t generation)
{
	struct replay r = { .sq = sq };
	const int rc = om_commit_log_read(log, generation, UINT64_MAX, replay_group, &r);

	return rc != SQLITE_OK && r.err == OM_OK ? sq_log_fail(sq, log, rc, "read") : r.err;
}

/* Our own: all must be there. */
static enum om_err
replay_ours(struct om_sqlite *sq, struct om_commit_log *log)
{
	struct replay r = { .sq = sq };
	const uint64_t count = log->count, end = log->end;
	int rc;

	if (count == 0) {
		return OM_OK;
	}
	rc = om_commit_log_read(log, log->generation, count, replay_group, &r);
	if (rc != SQLITE_OK && r.err == OM_OK) {
		r.err = sq_log_fail(sq, log, rc, "read");
	}
	if (r.err == OM_OK && log->count != count) {
		r.err = sq_why(sq, OM_ERR_CORRUPT, "%.100s: group %" PRIu64 " is gone", log->path,
			       log->count);
	}
	log->count = count;
	log->end = end;
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
	if (sq_is_unfolded(sq)) {
		err = sq_fold_begin(sq);
		if (err == OM_OK) {
			err = replay_ours(sq, sq_log_other(sq));
		}
		if (err == OM_OK) {
			err = replay_ours(sq, sq_log_now(sq));
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

/* A random number; neither it nor its low half is 0, which is none. */
static uint64_t
generation_new(void)
{
	uint64_t generation = 0;

	while ((uint32_t)generation == 0) {
		sqlite3_randomness(sizeof(generation), &generation);
	}
	return generation;
}

enum om_err
sq_fold_collect(struct om_sqlite *sq, uint64_t *generation)
{
	enum om_err err = sq_rows_flush(sq);

	if (err == OM_OK) {
		err = sq_counters_flush(sq);
	}
	sq->folded = sq->now;
	*generation = generation_new();
	return err;
}

int
sq_fold_commit(struct om_sqlite *sq, uint64_t generation)
{
	sqlite3_stmt *s = NULL;
	int rc = sq_audit_flush(sq);

	if (rc == SQLITE_OK) {
		rc = sq_stmt_raw(sq, SQ_GENERATION_SET, &s);
	}
	if (rc == SQLITE_OK) {
		sq_bind_i64(s, 1, (int64_t)generation);
		rc = sq_run_raw(s);
	}
	if (rc == SQLITE_OK && sqlite3_changes(sq->db) != 1) {
		rc = SQLITE_CORRUPT; /* somebody has taken it out */
	}
	if (rc == SQLITE_OK) {
		rc = sq_stmt_raw(sq, SQ_COMMIT, &s);
	}
	return rc == SQLITE_OK ? sq_run_raw(s) : rc;
}

void
sq_fold_done(struct om_sqlite *sq, struct om_commit_log *log)
{
	log->count = 0;
	log->end = 0;
	sq->in_fold = false;
	sq->st.unfolded = sq_is_unfolded(sq);
	sq->folds++;
}

/* All of it, here and now. */
static enum om_err
fold_run(struct om_sqlite *sq, uint64_t *generation)
{
	enum om_err err = sq->in_fold ? OM_OK : sq_fold_begin(sq);
	int rc;

	if (err == OM_OK) {
		err = sq_fold_collect(sq, generation);
	}
	if (err == OM_OK) {
		err = sq_settle(sq);
	}
	if (err != OM_OK) {
		return err;
	}
	rc = sq_fold_commit(sq, *generation);
	return rc == SQLITE_OK ? OM_OK : sq_fail(sq, rc, "fold the commit log");
}

enum om_err
sq_fold(struct om_sqlite *sq)
{
	uint64_t generation = 0;
	enum om_err err;
	bool was_stuck;

	OM_ASSERT(!sq->in_tx && !sq->read_only);
	sq_flight_land(sq);
	err = sq_own(sq);
	if (sq->behind) {
		err = sq_replay(sq);
	}
	was_stuck = sq->stuck;
	if (err != OM_OK || (!sq->in_fold && !sq->stuck)) {
		return err;
	}
	err = fold_run(sq, &generation);
	if (err != OM_OK) {
		sq->stuck = true;
		sq->wal_given_up = true;
		sq_lost(sq);
		return err;
	}
	sq_log_other(sq)->count = 0;
	sq_log_other(sq)->end = 0;
	sq_fold_done(sq, sq_log_now(sq));
	sq->stuck = false;
	sq->st.fold_due = false;
	sq_group_reset(sq);
	om_commit_log_restart(sq_log_now(sq), generation);
	if (was_stuck) {
		sq->recoveries++;
		om_info("store.recovered", "%s: a new commit log after a failed write", sq->path);
	}
	/* The fold itself is safe, whatever becomes of this. */
	sq->checkpoint_rc = sq_wal_maintain_raw(sq);
	return OM_OK;
}

/* --- open --------------------------------------------------------------------------------------- */

static enum om_err
log_foreign(struct om_sqlite *sq)
{
	return sq_why(
	    sq, OM_ERR_VERSION,
	    "%.100s-log is of another version, and not folded: start that one once, and stop it",
	    sq->path);
}

void
sq_log_close(struct om_sqlite *sq)
{
	om_commit_log_close(&sq->log[0]);
	om_commit_log_close(&sq->log[1]);
}

static enum om_err
log_open_one(struct om_sqlite *sq, struct om_commit_log *log, const char *suffix)
{
	char path[4096];
	int rc, n;

	n = snprintf(path, sizeof(path), "%s%s", sq->path, suffix);
	if (n < 0 || (size_t)n >= sizeof(path)) {
		return sq_why(sq, OM_ERR_INVALID, "%.60s...: the path is too long", sq->path);
	}
	rc = om_commit_log_open(log, sq->vfs, path, sq_schema_version);
	return rc == SQLITE_OK ? OM_OK : sq_log_fail(sq, log, rc, "open");
}

/* Opens both.  *generation: the one that the tables go on with. */
static enum om_err
log_open(struct om_sqlite *sq, uint64_t *generation)
{
	enum om_err err = log_open_one(sq, &sq->log[0], "-log");
	int64_t g = 0;

	if (err == OM_OK) {
		err = log_open_one(sq, &sq->log[1], "-log2");
	}
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "SELECT generation FROM commit_log", &g);
	}
	*generation = (uint64_t)g;
	if (err == OM_OK && g == 0) { /* somebody has taken it out */
		err = sq_why(sq, OM_ERR_CORRUPT, "%.100s: the commit log's generation is not there",
			     sq->path);
	}
	return err;
}

static bool
stop_at_first(void *arg, struct om_bin body)
{
	(void)arg;
	(void)body;
	return false;
}

/* Which log has groups of the generation?  The first one, when none has. */
static enum om_err
log_find(struct om_sqlite *sq, uint64_t generation)
{
	for (sq->log_now = 0; sq->log_now < 2; sq->log_now++) {
		struct om_commit_log *log = sq_log_now(sq);
		const int rc = om_commit_log_read(log, generation, 1, stop_at_first, NULL);

		if (rc != SQLITE_OK) {
			return sq_log_fail(sq, log, rc, "read");
		}
		if (log->other_format) {
			return log_foreign(sq);
		}
		if (log->count > 0) {
			return OM_OK;
		}
	}
	sq->log_now = 0;
	return OM_OK;
}

enum om_err
sq_log_before_migration(struct om_sqlite *sq)
{
	uint64_t generation = 0;
	int64_t tables = 0;
	enum om_err err;

	err = sq_pragma_i64(sq, "SELECT count(*) FROM sqlite_schema WHERE name = 'commit_log'",
			    &tables);
	if (err != OM_OK || tables == 0) {
		return err;
	}
	err = log_open(sq, &generation);
	if (err == OM_OK) {
		err = log_find(sq, generation);
	}
	if (err == OM_OK && sq_is_unfolded(sq)) {
		err = log_foreign(sq);
	}
	sq_log_close(sq);
	return err;
}

/* The groups that were written while those of `sq_log_now` were being folded. */
static enum om_err
attach_follower(struct om_sqlite *sq)
{
	const struct om_commit_log *before = sq_log_now(sq);
	struct om_commit_log *log = sq_log_other(sq);
	uint64_t generation = 0;
	enum om_err err;
	int rc = om_commit_log_follower(log, before, &generation);

	if (rc != SQLITE_OK) {
		return sq_log_fail(sq, log, rc, "read");
	}
	if (before->count == 0 || generation == 0) {
		return OM_OK;
	}
	err = replay_left(sq, log, generation);
	if (err == OM_OK && log->count > 0 && log->first != before->first + before->count) {
		err = sq_why(sq, OM_ERR_CORRUPT, "%.100s: group %" PRIu64 " is gone", before->path,
			     before->first + before->count);
	}
	if (log->count > 0) {
		sq->log_now = !sq->log_now;
	}
	return err;
}

/* What the last process has not folded. */
static enum om_err
attach_leftover(struct om_sqlite *sq, uint64_t generation)
{
	enum om_err err = sq_fold_begin(sq);

	if (err == OM_OK) {
		err = log_find(sq, generation);
	}
	if (err == OM_OK) {
		err = replay_left(sq, sq_log_now(sq), generation);
	}
	if (err == OM_OK) {
		err = attach_follower(sq);
	}
	if (err == OM_OK && (sq->log[0].other_format || sq->log[1].other_format)) {
		err = log_foreign(sq);
	}
	if (err != OM_OK) {
		sq_lost(sq);
		sq_log_close(sq); /* nobody folds what was read of it */
		return err;
	}
	sq->st.unfolded = sq_is_unfolded(sq);
	if (sq->st.unfolded) {
		om_info("store.replayed", "%s: %" PRIu64 " groups from the commit log", sq->path,
			sq->log[0].count + sq->log[1].count);
	}
	return OM_OK;
}

enum om_err
sq_log_attach(struct om_sqlite *sq)
{
	uint64_t generation = 0;
	enum om_err err;

	if (sq->log[0].file != NULL) { /* opened anew: the log goes on */
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

	for (unsigned i = 0; err == OM_OK && i < OM_COUNT(sq->log); i++) {
		const int rc = om_commit_log_wipe(&sq->log[i], bytes);

		err = rc == SQLITE_OK ? OM_OK : sq_log_fail(sq, &sq->log[i], rc, "overwrite");
	}
	return err;
}
