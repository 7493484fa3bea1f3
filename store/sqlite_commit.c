/* SPDX-License-Identifier: ISC */
#include "store/sqlite_impl.h"

/*
 * The end of a group: sealed by the store's thread, appended to the log by any, ended by the store's.
 *
 * 1. One group is in flight.  While it is, nobody but the writer touches its log and its bytes; the log
 *    learns of it (count, end) when it is known to be there.  The writer is who comes first: the thread
 *    that was asked to, or the store's own when it needs the outcome.  If broken: the store waits for a
 *    thread that may never come.
 * 2. What it wrote down may be in the tables' transaction before it is in the log, never in a fold: that
 *    waits for it (sq_fold) or leaves it out (sq_lend).  If broken: what was refused is there after a crash.
 * 3. When it fails, everything is as before it: also the group that was begun behind it, which is doomed.
 */

void
sq_flight_init(struct sq_flight *f)
{
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)pthread_cond_init(&f->done, NULL);
}

void
sq_flight_fini(struct sq_flight *f)
{
	om_buf_fini(&f->group);
	(void)pthread_cond_destroy(&f->done);
	(void)pthread_mutex_destroy(&f->lock);
}

/* The group's bytes for the flight, and empty ones for the next group. */
static void
flight_load(struct om_sqlite *sq)
{
	struct sq_flight *f = &sq->flight;
	const struct om_buf bytes = sq->group;

	f->log = sq_log_now(sq);
	om_buf_reset(&f->group);
	/* A group that changed nothing costs nothing. */
	if (bytes.len > OM_COMMIT_LOG_HEAD) {
		om_commit_log_seal(f->log, &sq->group);
		sq_log_hand(sq);
		sq->group = f->group;
		f->group = bytes;
		sq_group_reset(sq);
	}
	f->before = sq->saved;
	f->known = false;
	f->on = true;
	(void)pthread_mutex_lock(&f->lock);
	f->stage = SQ_FLIGHT_DUE;
	(void)pthread_mutex_unlock(&f->lock);
}

enum om_err
sq_commit_start(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = sq_writable(sq);

	OM_ASSERT(!sq->flight.on);
	if (err == OM_OK) {
		err = sq_rows_log(sq);
	}
	if (err == OM_OK) {
		err = sq_counters_log(sq);
	}
	if (err != OM_OK) {
		sq_rollback(st);
		return err;
	}
	sq->in_tx = false;
	flight_load(sq);
	sq->flight.lose = sq_tally_merge(sq) != OM_OK;
	return OM_OK;
}

/* false: somebody else writes it, or has. */
static bool
flight_take(struct sq_flight *f)
{
	bool mine;

	(void)pthread_mutex_lock(&f->lock);
	mine = f->stage == SQ_FLIGHT_DUE;
	if (mine) {
		f->stage = SQ_FLIGHT_WRITING;
	}
	(void)pthread_mutex_unlock(&f->lock);
	return mine;
}

void
sq_commit_write(struct om_store *st)
{
	struct sq_flight *f = &sq_of(st)->flight;
	int rc;

	if (!flight_take(f)) {
		return;
	}
	rc = f->group.len > 0 ? om_commit_log_write(f->log, &f->group) : SQLITE_OK;
	(void)pthread_mutex_lock(&f->lock);
	f->rc = rc;
	f->stage = SQ_FLIGHT_WRITTEN;
	(void)pthread_cond_signal(&f->done);
	(void)pthread_mutex_unlock(&f->lock);
}

/* The group that was begun behind one that left nothing whole in memory. */
static void
flight_doom(struct om_sqlite *sq, enum om_err err)
{
	if (sq->in_tx && sq->doomed == OM_OK) {
		sq->doomed = err;
	}
}

static void
flight_failed(struct om_sqlite *sq, int rc)
{
	struct sq_flight *f = &sq->flight;

	f->err = sq_log_fail(sq, f->log, rc, "append a group");
	f->why = sq->st.why;
	sq->stuck = true;
	sq->now = f->before;
	sq->saved = f->before;
	flight_doom(sq, f->err);
	sq_lost(sq);
	sq->st.why = f->why;
}

void
sq_flight_land(struct om_sqlite *sq)
{
	struct sq_flight *f = &sq->flight;
	int rc;

	if (!f->on || f->known) {
		return;
	}
	sq_commit_write(&sq->st);
	(void)pthread_mutex_lock(&f->lock);
	while (f->stage != SQ_FLIGHT_WRITTEN) {
		(void)pthread_cond_wait(&f->done, &f->lock);
	}
	rc = f->rc;
	(void)pthread_mutex_unlock(&f->lock);
	f->known = true;
	f->err = OM_OK;
	if (f->group.len > 0) {
		rc = om_commit_log_written(f->log, &f->group, rc);
	}
	if (rc != SQLITE_OK) {
		flight_failed(sq, rc);
		return;
	}
	sq->commits++;
	if (f->lose) { /* the group is safe: it is in the log */
		flight_doom(sq, sq_why(sq, OM_ERR_NOMEM, "no memory for the tables' records"));
		sq_lost(sq);
	}
	sq->st.unfolded = sq_is_unfolded(sq);
	sq->st.fold_due = sq_log_now(sq)->end >= sq->log_bytes;
}

enum om_err
sq_commit_end(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	struct sq_flight *f = &sq->flight;

	OM_ASSERT(f->on);
	sq_flight_land(sq);
	f->on = false;
	if (f->err != OM_OK) {
		sq->rollbacks++;
		st->why = f->why;
	}
	if (!sq->in_tx) {
		sq_tx_again(sq);
		sq_tx_let_go(sq);
	}
	return f->err;
}
