/* SPDX-License-Identifier: ISC */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include "store/sqlite_impl.h"

/*
 * The applier: a thread that writes what waits to the tables while the store's own thread makes the next
 * groups.
 *
 * 1. The connection, its statements and the audit's open pack belong to one thread at a time: to the
 *    applier from sq_lend until it is done, else to the store's.  Everything of them that the
 *    store's thread touches goes through sq_own first (sq_stmt, sq_settle, sq_lost).  If broken: two
 *    threads are inside SQLite.
 * 2. It is lent between groups alone, when no statement is half read.
 * 3. Records go on in the order in which they were given: those that are lent before those that wait.
 *    If broken: a row is changed before it is there.
 * 4. The applier touches nothing else.  What failed is told by sq_own, to the thread that has the
 *    transaction made anew from the log.
 */

/* Bytes of records.  Fewer wait for more, or for a reader: a thread is woken for them. */
#define LEND_MIN (64 << 10)
/* A smaller group says that there is time between groups: who has it writes the tables himself. */
#define GROUP_LARGE (16 << 10)
/* As many make the store's thread wait: what a reader waits for stays some milliseconds. */
#define WAIT_MAX (4 << 20)

struct sq_applier {
	struct om_sqlite *sq;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t lent, done;
	struct om_buf records;
	uint64_t generation; /* to fold with, 0: not yet */
	bool busy, stop;
	int rc; /* of the last work */
};

static int
applier_work(struct sq_applier *a)
{
	int rc = sq_records_run(a->sq, &a->records);

	if (rc == SQLITE_OK && a->generation != 0) {
		rc = sq_fold_commit(a->sq, a->generation);
		if (rc == SQLITE_OK) {
			a->sq->checkpoint_rc = sq_wal_maintain_raw(a->sq);
		}
	}
	return rc;
}

static void *
applier_main(void *arg)
{
	struct sq_applier *a = arg;
	int rc;

	(void)pthread_mutex_lock(&a->lock);
	for (;;) {
		while (!a->busy && !a->stop) {
			(void)pthread_cond_wait(&a->lent, &a->lock);
		}
		if (!a->busy) {
			break;
		}
		(void)pthread_mutex_unlock(&a->lock);
		rc = applier_work(a);
		(void)pthread_mutex_lock(&a->lock);
		a->rc = rc;
		a->busy = false;
		(void)pthread_cond_signal(&a->done);
	}
	(void)pthread_mutex_unlock(&a->lock);
	return NULL;
}

struct sq_applier *
sq_applier_new(struct om_sqlite *sq)
{
	struct sq_applier *a = calloc(1, sizeof(*a));
	sigset_t all, before;
	int rc;

	if (a == NULL) {
		return NULL;
	}
	a->sq = sq;
	(void)pthread_mutex_init(&a->lock, NULL);
	(void)pthread_cond_init(&a->lent, NULL);
	(void)pthread_cond_init(&a->done, NULL);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&a->thread, NULL, applier_main, a);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0) {
		a->sq = NULL;
		sq_applier_free(a);
		return NULL;
	}
	(void)pthread_setname_np(a->thread, "tables");
	return a;
}

void
sq_applier_free(struct sq_applier *a)
{
	if (a == NULL) {
		return;
	}
	if (a->sq != NULL) {
		(void)pthread_mutex_lock(&a->lock);
		a->stop = true;
		(void)pthread_cond_signal(&a->lent);
		(void)pthread_mutex_unlock(&a->lock);
		(void)pthread_join(a->thread, NULL);
	}
	om_buf_fini(&a->records);
	(void)pthread_cond_destroy(&a->lent);
	(void)pthread_cond_destroy(&a->done);
	(void)pthread_mutex_destroy(&a->lock);
	free(a);
}

/* Waits for it; SQLite's code. */
static int
applier_join(struct om_sqlite *sq)
{
	struct sq_applier *a = sq->applier;
	int rc;

	(void)pthread_mutex_lock(&a->lock);
	while (a->busy) {
		(void)pthread_cond_wait(&a->done, &a->lock);
	}
	rc = a->rc;
	(void)pthread_mutex_unlock(&a->lock);
	sq->lent = false;
	if (sq->folding && rc == SQLITE_OK) {
		sq_fold_done(sq, sq_log_other(sq));
	} else if (sq->folding) {
		sq->stuck = true;
		sq->wal_given_up = true;
	}
	sq->folding = false;
	return rc;
}

void
sq_recall(struct om_sqlite *sq)
{
	if (sq->lent) {
		(void)applier_join(sq);
	}
}

enum om_err
sq_own(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	int rc;

	if (!sq->lent) {
		return OM_OK;
	}
	rc = applier_join(sq);
	if (rc != SQLITE_OK) {
		return sq_records_fail(sq, rc);
	}
	/* The fold has ended the transaction under what was done meanwhile. */
	if (!sq->in_fold && (sq->in_tx || sq_is_unfolded(sq))) {
		err = sq_fold_begin(sq);
	}
	return err == OM_OK ? OM_OK : sq_tables_fail(sq, err);
}

static bool
applier_is_busy(struct sq_applier *a)
{
	bool busy;

	(void)pthread_mutex_lock(&a->lock);
	busy = a->busy;
	(void)pthread_mutex_unlock(&a->lock);
	return busy;
}

/* generation, unless 0: to fold with. */
static void
applier_give(struct om_sqlite *sq, uint64_t generation)
{
	struct sq_applier *a = sq->applier;
	const struct om_buf records = sq->wait;

	(void)pthread_mutex_lock(&a->lock);
	sq->wait = a->records; /* empty */
	a->records = records;
	a->generation = generation;
	a->busy = true;
	(void)pthread_cond_signal(&a->lent);
	(void)pthread_mutex_unlock(&a->lock);
	sq->lent = true;
	sq->folding = generation != 0;
}

/* From here on groups go to the other log. */
static enum om_err
lend_fold(struct om_sqlite *sq)
{
	uint64_t generation = 0;
	enum om_err err = sq_fold_collect(sq, &generation);

	if (err != OM_OK) {
		return sq_tables_fail(sq, err); /* some of it is noted as written */
	}
	om_commit_log_follow(sq_log_other(sq), generation, sq_log_now(sq));
	sq->log_now = !sq->log_now;
	sq->st.fold_due = false;
	applier_give(sq, generation);
	return OM_OK;
}

enum om_err
sq_lend(struct om_sqlite *sq, bool fold)
{
	enum om_err err;

	OM_ASSERT(!sq->in_tx);
	if (!sq->lent && !fold && sq->flight.group.len < GROUP_LARGE) {
		return sq_settle(sq);
	}
	sq_log_hand(sq);
	if (sq->lent && sq->wait.len < WAIT_MAX && applier_is_busy(sq->applier)) {
		return OM_OK;
	}
	err = sq_own(sq);
	if (err != OM_OK || !sq->in_fold) {
		return err;
	}
	if (sq->wait.failed) {
		return sq_records_fail(sq, SQLITE_NOMEM);
	}
	/* Of a group in flight nobody knows yet whether it may be in the tables for ever. */
	if (fold && !sq->stuck && (!sq->flight.on || sq->flight.known)) {
		return lend_fold(sq);
	}
	if (sq->wait.len >= LEND_MIN) {
		applier_give(sq, 0);
	}
	return OM_OK;
}
