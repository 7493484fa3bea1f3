/* SPDX-License-Identifier: ISC */
#include <string.h>
#include "store/ran.h"
#include "store/sqlite_impl.h"

/*
 * Transactions, and the few things that are kept in memory beside the file: the end of the audit
 * chain, the counts by state, the next seq.
 *
 * 1. They change only inside a transaction; begin copies them, a rollback puts the copy back.  If
 *    broken: a failed group leaves the chain's end ahead of its rows.
 * 2. A group writes each of them once, however many jobs it holds.
 */

#define TALLY_SLOT_S 900

enum om_err
sq_cached_load(struct om_sqlite *sq)
{
	enum om_err err;
	sqlite3_stmt *s;
	int64_t seq = 0;
	bool row;

	memset(&sq->now, 0, sizeof(sq->now));
	err = sq_chain_load(sq, &sq->now.head, &sq->now.base);
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "SELECT max(seq) FROM job", &seq);
	}
	if (err != OM_OK) {
		return err;
	}
	sq->now.next_seq = (uint64_t)seq + 1;
	if (sqlite3_prepare_v2(sq->db, "SELECT state, n FROM state_count", -1, &s, NULL) !=
	    SQLITE_OK) {
		return sq_fail(sq, sqlite3_errcode(sq->db), "read the counts");
	}
	while ((err = sq_step(sq, s, &row, "read the counts")) == OM_OK && row) {
		const struct om_str text = sq_col_str(s, 0);
		enum om_job_state state;

		if (om_job_state_parse(text.ptr, text.len, &state) == OM_OK) {
			sq->now.counts[state] = sq_col_u64(s, 1);
		}
	}
	(void)sqlite3_finalize(s);
	return err;
}

/* Rows that we remember may be old when somebody else has written. */
static enum om_err
tx_see_others(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s = sq_stmt(sq, SQ_OTHERS, &err);
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
		sq_rows_clear(sq);
		sq->others = version;
	}
	return err;
}

enum om_err
sq_begin(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = OM_OK;
	sqlite3_stmt *s;

	OM_ASSERT(!sq->in_tx && !sq->read_only);
	if (sq->suspect) {
		err = sq_wal_recover(sq);
		if (err != OM_OK) {
			return err;
		}
	}
	s = sq_stmt(sq, SQ_BEGIN, &err);
	if (s == NULL) {
		return err;
	}
	err = sq_run(sq, s, "begin");
	if (err != OM_OK) {
		return err;
	}
	sq->in_tx = true;
	sq->doomed = OM_OK;
	sq->saved = sq->now;
	sq->head_dirty = false;
	memset(sq->tally, 0, sizeof(sq->tally));
	err = tx_see_others(sq);
	if (err != OM_OK) {
		sq_rollback(st);
	}
	return err;
}

static enum om_err
tx_flush_tally(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	unsigned i;

	for (i = 0; i < OM_JOB_STATES; i++) {
		if (sq->tally[i] == 0) {
			continue;
		}
		s = sq_stmt(sq, SQ_TALLY_ADD, &err);
		if (s == NULL) {
			return err;
		}
		sq_bind_i64(s, 1, sq->tally_slot);
		sq_bind_text(s, 2, om_job_state_text((enum om_job_state)i));
		sq_bind_u64(s, 3, sq->tally[i]);
		err = sq_run(sq, s, "count");
		if (err != OM_OK) {
			return err;
		}
		sq->tally[i] = 0;
	}
	return OM_OK;
}

static enum om_err
tx_flush_counts(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	unsigned i;

	for (i = 0; i < OM_JOB_STATES; i++) {
		if (sq->now.counts[i] == sq->saved.counts[i]) {
			continue;
		}
		s = sq_stmt(sq, SQ_COUNT_SET, &err);
		if (s == NULL) {
			return err;
		}
		sq_bind_text(s, 1, om_job_state_text((enum om_job_state)i));
		sq_bind_u64(s, 2, sq->now.counts[i]);
		err = sq_run(sq, s, "count");
		if (err != OM_OK) {
			return err;
		}
	}
	return OM_OK;
}

static enum om_err
tx_flush_chain(struct om_sqlite *sq)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s;

	if (!sq->head_dirty) {
		return OM_OK;
	}
	s = sq_stmt(sq, SQ_CHAIN_SET, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_u64(s, 1, sq->now.head.seq);
	sq_bind_bin(s, 2, (struct om_bin){ sq->now.head.hash, OM_HASH_LEN });
	sq_bind_u64(s, 3, sq->now.base.seq);
	sq_bind_bin(s, 4, (struct om_bin){ sq->now.base.hash, OM_HASH_LEN });
	return sq_run(sq, s, "end of the audit chain");
}

enum om_err
sq_commit(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = sq_writable(sq);
	sqlite3_stmt *s;

	if (err == OM_OK) {
		err = sq_rows_flush(sq);
	}
	if (err == OM_OK) {
		err = tx_flush_tally(sq);
	}
	if (err == OM_OK) {
		err = tx_flush_counts(sq);
	}
	if (err == OM_OK) {
		err = tx_flush_chain(sq);
	}
	if (err == OM_OK) {
		s = sq_stmt(sq, SQ_COMMIT, &err);
		if (s != NULL) {
			err = sq_run(sq, s, "commit");
		}
	}
	if (err != OM_OK) {
		sq_rollback(st);
		return err;
	}
	sq->in_tx = false;
	sq->commits++;
	sq_wal_after_commit(sq);
	return OM_OK;
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
	sq_rows_clear(sq);
	sq->rollbacks++;
	/* Some errors (disk full among them) have rolled back already. */
	if (sqlite3_get_autocommit(sq->db) == 0 &&
	    sqlite3_exec(sq->db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK &&
	    sqlite3_get_autocommit(sq->db) == 0) {
		sq->suspect = true; /* the connection is of no use: open it anew */
	}
}

enum om_err
sq_count_move(struct om_sqlite *sq, enum om_job_state from, enum om_job_state to, struct om_wall at)
{
	const int64_t slot = at.ns / OM_NS_PER_S / TALLY_SLOT_S * TALLY_SLOT_S;
	enum om_err err;

	if (from < OM_JOB_STATES && sq->now.counts[from] > 0) {
		sq->now.counts[from]--;
	}
	if (to >= OM_JOB_STATES) {
		return OM_OK;
	}
	sq->now.counts[to]++;
	if (slot != sq->tally_slot) {
		err = tx_flush_tally(sq);
		if (err != OM_OK) {
			return err;
		}
		sq->tally_slot = slot;
	}
	sq->tally[to]++;
	return OM_OK;
}

enum om_err
sq_count_ran(struct om_sqlite *sq, const char *requester, uint64_t ms, struct om_wall at)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s = sq_stmt(sq, SQ_RAN_ADD, &err);

	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, at.ns / OM_NS_PER_S / TALLY_SLOT_S * TALLY_SLOT_S);
	sq_bind_text(s, 2, requester);
	sq_bind_u64(s, 3, ms);
	return sq_run(sq, s, "count a run time");
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
