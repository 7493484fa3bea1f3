/* SPDX-License-Identifier: ISC */
#include <string.h>
#include "store/ran.h"
#include "store/sqlite_param.h"

/*
 * Groups, and the few things that are kept in memory beside the file: the end of the audit chain, the
 * counts by state, the next seq.
 *
 * 1. They change only inside a group; begin copies them, a rollback puts the copy back.  If broken: a
 *    failed group leaves the chain's end ahead of its rows.
 * 2. A group logs each of them once, however many jobs it holds; a fold writes each once.
 */

#define TALLY_SLOT_S  900
#define LOG_FOLDS_MAX 4 /* times log_bytes */

enum om_err
sq_cached_load(struct om_sqlite *sq)
{
	struct sq_cached now = { 0 };
	enum om_err err;
	sqlite3_stmt *s;
	int64_t seq = 0;
	bool row;

	err = sq_chain_load(sq, &now.head, &now.base);
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "SELECT max(seq) FROM job", &seq);
	}
	if (err != OM_OK) {
		return err;
	}
	now.next_seq = (uint64_t)seq + 1;
	if (sqlite3_prepare_v2(sq->db, "SELECT state, n FROM state_count", -1, &s, NULL) !=
	    SQLITE_OK) {
		return sq_fail(sq, sqlite3_errcode(sq->db), "read the counts");
	}
	while ((err = sq_step(sq, s, &row, "read the counts")) == OM_OK && row) {
		const struct om_str text = sq_col_str(s, 0);
		enum om_job_state state;

		if (om_job_state_parse(text.ptr, text.len, &state) == OM_OK) {
			now.counts[state] = sq_col_u64(s, 1);
		}
	}
	(void)sqlite3_finalize(s);
	if (err == OM_OK) {
		sq->now = now;
		sq->folded = now; /* the tables have all of it */
	}
	return err;
}

enum om_err
sq_see_others(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s = sq_stmt_now(sq, SQ_OTHERS, &err);
	int64_t version = 0;
	bool row;

	if (s == NULL) {
		return err;
	}
	err = sq_step(sq, s, &row, "look for other writers");
	if (err == OM_OK && row) {
		version = sqlite3_column_int64(s, 0);
	}
	(void)sqlite3_reset(s);
	if (version != sq->others) {
		sq_rows_doubt(sq); /* rows that we remember may be old */
		if (sq->others != 0) {
			om_id_filter_add_all(sq->ids); /* there may be jobs that are not ours */
		}
		sq->others = version;
	}
	return err;
}

enum om_err
sq_begin(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;

	OM_ASSERT(!sq->in_tx && !sq->read_only);
	/* (A log that nobody maintains does not grow for ever.) */
	if (sq->stuck || sq_log_now(sq)->end >= LOG_FOLDS_MAX * sq->log_bytes) {
		err = sq_fold(sq);
	}
	if (err == OM_OK && sq->behind) {
		err = sq_replay(sq);
	}
	if (err == OM_OK) {
		sq_log_hand(sq);
	}
	if (err == OM_OK && !sq->in_fold) {
		err = sq_fold_begin(sq);
	}
	if (err != OM_OK) {
		return err;
	}
	sq_group_reset(sq);
	sq->in_tx = true;
	sq->doomed = OM_OK;
	sq->saved = sq->now;
	memset(&sq->tally, 0, sizeof(sq->tally));
	return OM_OK;
}

/* The ids of all jobs, after the open. */
enum om_err
sq_ids_load(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s = sq_stmt(sq, SQ_JOB_IDS, &err);
	bool row = true;

	om_id_filter_clear(sq->ids);
	while (s != NULL && (err = sq_step(sq, s, &row, "read the ids")) == OM_OK && row) {
		const char *id = (const char *)sqlite3_column_text(s, 0);

		if (id == NULL) {
			(void)sqlite3_reset(s);
			return sq_why(sq, OM_ERR_NOMEM, "no memory for an id");
		}
		om_id_filter_add(sq->ids, om_id_filter_hash(sq->ids, id));
	}
	return err;
}

/* --- counters ----------------------------------------------------------------------------------- */

static void
tally_record(struct om_sqlite *sq, int64_t slot, enum om_job_state state, uint64_t n)
{
	sq_log_stmt(sq, SQ_TALLY_ADD);
	sq_log_i64(sq, slot);
	sq_log_text(sq, om_job_state_text(state));
	sq_log_u64(sq, n);
}

static void
count_record(struct om_sqlite *sq, enum om_job_state state)
{
	sq_log_stmt(sq, SQ_COUNT_SET);
	sq_log_text(sq, om_job_state_text(state));
	sq_log_u64(sq, sq->now.counts[state]);
}

static void
chain_record(struct om_sqlite *sq)
{
	sq_log_stmt(sq, SQ_CHAIN_SET);
	sq_log_u64(sq, sq->now.head.seq);
	sq_log_bin(sq, (struct om_bin){ sq->now.head.hash, OM_HASH_LEN });
	sq_log_u64(sq, sq->now.base.seq);
	sq_log_bin(sq, (struct om_bin){ sq->now.base.hash, OM_HASH_LEN });
}

static bool
chain_differs(const struct sq_cached *a, const struct sq_cached *b)
{
	return a->head.seq != b->head.seq || a->base.seq != b->base.seq;
}

enum om_err
sq_counters_log(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;

	for (unsigned i = 0; err == OM_OK && i < OM_JOB_STATES; i++) {
		if (sq->tally.n[i] > 0) {
			tally_record(sq, sq->tally.slot, (enum om_job_state)i, sq->tally.n[i]);
			err = sq_log_only(sq);
		}
		if (err == OM_OK && sq->now.counts[i] != sq->saved.counts[i]) {
			count_record(sq, (enum om_job_state)i);
			err = sq_log_only(sq);
		}
	}
	if (err == OM_OK && chain_differs(&sq->now, &sq->saved)) {
		chain_record(sq);
		err = sq_log_only(sq);
	}
	return err;
}

/* Ends a record that is in the log already. */
static enum om_err
counter_write(struct om_sqlite *sq)
{
	enum om_err err = sq_log_ahead(sq); /* nothing that waits is of their tables */

	sq_log_drop(sq);
	return err;
}

enum om_err
sq_tally_flush(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;

	for (unsigned i = 0; err == OM_OK && i < OM_JOB_STATES; i++) {
		if (sq->tally_fold.n[i] > 0) {
			tally_record(sq, sq->tally_fold.slot, (enum om_job_state)i,
				     sq->tally_fold.n[i]);
			err = counter_write(sq);
			sq->tally_fold.n[i] = 0;
		}
	}
	return err;
}

enum om_err
sq_counters_flush(struct om_sqlite *sq)
{
	enum om_err err = sq_tally_flush(sq);

	for (unsigned i = 0; err == OM_OK && i < OM_JOB_STATES; i++) {
		if (sq->now.counts[i] != sq->folded.counts[i]) {
			count_record(sq, (enum om_job_state)i);
			err = counter_write(sq);
		}
	}
	if (err == OM_OK && chain_differs(&sq->now, &sq->folded)) {
		chain_record(sq);
		err = counter_write(sq);
	}
	return err;
}

enum om_err
sq_tally_merge(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;

	if (sq->tally.slot != sq->tally_fold.slot) {
		err = sq_tally_flush(sq);
		sq->tally_fold.slot = sq->tally.slot;
	}
	for (unsigned i = 0; i < OM_JOB_STATES; i++) {
		sq->tally_fold.n[i] += sq->tally.n[i];
		sq->tally.n[i] = 0;
	}
	return err;
}

/* --- the end of a group ------------------------------------------------------------------------- */

void
sq_tx_let_go(struct om_sqlite *sq)
{
	if (sq->in_fold && !sq_is_unfolded(sq)) {
		sq_lost(sq);
		sq->behind = false;
	}
}

void
sq_tx_again(struct om_sqlite *sq)
{
	const struct om_why why = sq->st.why;

	if (sq->behind && sq_is_unfolded(sq)) {
		(void)!sq_replay(sq);
		sq->st.why = why;
	}
}

void
sq_rollback(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);

	if (!sq->in_tx) {
		return;
	}
	sq->in_tx = false;
	sq->now = sq->saved;
	sq->rollbacks++;
	if (sq->doomed != OM_OK || sq->group.len > OM_COMMIT_LOG_HEAD || sq_rows_are_new(sq)) {
		sq_lost(sq);
		sq_group_reset(sq);
		sq_tx_again(sq);
	}
	sq_tx_let_go(sq);
}

enum om_err
sq_maintain(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;

	OM_ASSERT(!sq->in_tx);
	if (sq->read_only) {
		return OM_OK;
	}
	if (!sq->behind) {
		err = sq_rows_trim(sq);
	}
	if (err == OM_OK && !sq->behind) {
		err = sq_lend(sq, sq_log_now(sq)->end >= sq->log_bytes);
	}
	return err == OM_OK ? sq_wal_maintain(sq) : err;
}

enum om_err
sq_fold_op(struct om_store *st, bool wait)
{
	struct om_sqlite *sq = sq_of(st);

	OM_ASSERT(!sq->in_tx);
	if (sq->read_only) {
		return OM_OK;
	}
	return wait || sq->stuck || sq->behind ? sq_fold(sq) : sq_lend(sq, true);
}

enum om_err
sq_wipe(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err;

	OM_ASSERT(!sq->in_tx && !sq->read_only);
	err = sq_log_clean(sq, 0);
	return err == OM_OK ? sq_wal_wipe(sq) : err;
}

/* --- counting ----------------------------------------------------------------------------------- */

enum om_err
sq_count_move(struct om_sqlite *sq, enum om_job_state from, enum om_job_state to, struct om_wall at)
{
	const int64_t slot = at.ns / OM_NS_PER_S / TALLY_SLOT_S * TALLY_SLOT_S;

	if (from < OM_JOB_STATES && sq->now.counts[from] > 0) {
		sq->now.counts[from]--;
	}
	if (to >= OM_JOB_STATES) {
		return OM_OK;
	}
	sq->now.counts[to]++;
	if (slot != sq->tally.slot && sq->tally.slot != 0) {
		/* Seldom: one group holds jobs of two quarters of an hour. */
		tally_record(sq, slot, to, 1);
		return sq_log_run(sq);
	}
	sq->tally.slot = slot;
	sq->tally.n[to]++;
	return OM_OK;
}

enum om_err
sq_count_ran(struct om_sqlite *sq, const char *requester, uint64_t ms, struct om_wall at)
{
	sq_log_stmt(sq, SQ_RAN_ADD);
	sq_log_i64(sq, at.ns / OM_NS_PER_S / TALLY_SLOT_S * TALLY_SLOT_S);
	sq_log_text(sq, requester);
	sq_log_u64(sq, ms);
	return sq_log_later(sq);
}

enum om_err
sq_counts(struct om_store *st, uint64_t counts[OM_JOB_STATES])
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;

	/* Another process may write while we only read. */
	if (sq->read_only) {
		err = sq_cached_load(sq);
	}
	memcpy(counts, sq->now.counts, sizeof(sq->now.counts));
	return err;
}

enum om_err
sq_counts_since(struct om_store *st, struct om_wall since, uint64_t counts[OM_JOB_STATES])
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool row;

	memset(counts, 0, OM_JOB_STATES * sizeof(counts[0]));
	if (sq->in_fold) {
		err = sq_tally_flush(sq);
		if (err != OM_OK) {
			return sq_tables_fail(sq, err);
		}
	}
	s = sq_stmt(sq, SQ_TALLY_SUM, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, since.ns / OM_NS_PER_S / TALLY_SLOT_S * TALLY_SLOT_S);
	while ((err = sq_step(sq, s, &row, "read the counts")) == OM_OK && row) {
		const struct om_str text = sq_col_str(s, 0);
		enum om_job_state state;

		if (om_job_state_parse(text.ptr, text.len, &state) == OM_OK) {
			counts[state] = sq_col_u64(s, 1);
		}
	}
	return err;
}

enum om_err
sq_ran_since(struct om_store *st, struct om_wall since, struct om_str after,
	     struct om_store_ran *out, size_t cap, size_t *count)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;
	sqlite3_stmt *s = sq_stmt(sq, SQ_RAN_SUM, &err);
	bool row;

	*count = 0;
	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, since.ns / OM_NS_PER_S / TALLY_SLOT_S * TALLY_SLOT_S);
	sq_bind_str(s, 2, after.ptr != NULL ? after : OM_STR(""));
	sq_bind_u64(s, 3, cap);
	while ((err = sq_step(sq, s, &row, "read the run times")) == OM_OK && row) {
		if (om_str_copy(sq_col_str(s, 0), out[*count].requester,
				sizeof(out[*count].requester)) == OM_OK) {
			out[(*count)++].ms = sq_col_u64(s, 1);
		}
	}
	return err;
}
