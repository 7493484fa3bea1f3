/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_SQLITE_IMPL_H
#define OM_STORE_SQLITE_IMPL_H

/* Shared by the files of the SQLite backend.  No other folder includes it. */
#include <pthread.h>
#include <sqlite3.h>
#include <stddef.h>
#include <string.h>
#include "base/assert.h"
#include "store/audit_chain.h"
#include "store/commit_log.h"
#include "store/id_filter.h"
#include "store/sqlite.h"
#include "store/store.h"

#define SQ_MAGIC UINT32_C(0x53514c54)

/*
 * Every statement of the hot paths, prepared at its first use and kept.  Those that change the tables
 * are in the commit log by their numbers: a change of those or of their parameters needs a new schema
 * version.
 */
enum sq_stmt {
	SQ_JOB_INSERT,
	SQ_JOB_UPDATE,
	SQ_JOB_DELETE,
	SQ_SPEC_INSERT,
	SQ_SPEC_DELETE,
	SQ_SPEC_SET,
	SQ_AFTER_INSERT,
	SQ_AFTER_DELETE,
	SQ_STREAM_INSERT,
	SQ_STREAM_GROW,
	SQ_STREAM_DELETE,
	SQ_CHUNK_INSERT,
	SQ_CHUNK_DELETE,
	SQ_ENTRY_PUT,
	SQ_ENTRY_DEL,
	SQ_AUDIT_ADD, /* no statement: sq_audit_add */
	SQ_AUDIT_CUT,
	SQ_AUDIT_TRIM,
	SQ_CHAIN_SET,
	SQ_COUNT_SET,
	SQ_TALLY_ADD,
	SQ_TALLY_CUT,
	SQ_RAN_ADD,
	SQ_RAN_CUT,
	/* not in the log */
	SQ_BEGIN,
	SQ_COMMIT,
	SQ_OTHERS,
	SQ_GENERATION_SET,
	SQ_JOB_INSERT_GROWN,
	SQ_JOB_UPDATE_LIVE,
	SQ_JOB_IDS,
	SQ_JOB_BY_ID,
	SQ_JOB_SEQ,
	SQ_JOB_PREFIX,
	SQ_JOB_LIST_UP,
	SQ_JOB_LIST_DOWN,
	SQ_JOB_LIST_LIVE,
	SQ_JOB_LIST_LIVE_DOWN,
	SQ_JOB_LIST_ARRAY,
	SQ_JOB_OLDEST,
	SQ_SPEC_GET,
	SQ_AFTER_LIST,
	SQ_AFTER_WAITS,
	SQ_STREAM_GET,
	SQ_STREAM_LIST,
	SQ_CHUNK_READ,
	SQ_ENTRY_GET,
	SQ_ENTRY_EACH,
	SQ_AUDIT_EACH,
	SQ_AUDIT_PACK,
	SQ_CHAIN_GET,
	SQ_TALLY_SUM,
	SQ_RAN_SUM,
	SQ_STMTS
};

/* What the transaction works on in memory; begin copies it, rollback puts the copy back. */
struct sq_cached {
	struct om_audit_mark head;
	struct om_audit_mark base; /* the chain starts after this row: older ones were purged */
	uint64_t counts[OM_JOB_STATES];
	uint64_t next_seq;
};

/* How many came into each state, in one quarter of an hour. */
struct sq_tally {
	int64_t slot;
	uint64_t n[OM_JOB_STATES];
};

enum sq_flight_stage {
	SQ_FLIGHT_WRITTEN, /* or there is none */
	SQ_FLIGHT_DUE,
	SQ_FLIGHT_WRITING
};

/* A group that is being appended to the log, from commit_start to commit_end. */
struct sq_flight {
	pthread_mutex_t lock;
	pthread_cond_t done;
	enum sq_flight_stage stage; /* under the lock, with rc */
	int rc;
	/* the store's thread */
	bool on; /* between start and end */
	bool known; /* what became of it: err, why */
	bool lose; /* what it left in memory is not whole */
	enum om_err err;
	struct om_why why;
	struct om_commit_log *log;
	struct om_buf group; /* empty: it changed nothing */
	struct sq_cached before;
};

struct om_sqlite {
	struct om_store st; /* first: a struct om_store * is a struct om_sqlite * */
	uint32_t magic;
	sqlite3 *db;
	sqlite3_stmt *stmts[SQ_STMTS];
	struct om_hasher *hasher;
	char *path, *vfs;
	uint32_t cache_kib, busy_ms;
	uint64_t wal_bytes;
	int lock_fd;
	bool read_only;

	bool in_tx; /* a group is being made */
	enum om_err doomed; /* in_tx: OM_OK, or what every further write returns */
	bool in_fold; /* SQLite's transaction is open, over the groups since the last fold */
	bool behind; /* that transaction was lost: replay before the tables are read */
	bool stuck; /* a group or a fold failed: nothing is appended before a fold has worked */
	bool unusable; /* the connection cannot even roll back: open it anew (sq_reconnect) */

	struct om_commit_log log[2];
	unsigned
	    log_now; /* the one that is appended to; the other one has groups until it is folded */
	uint64_t log_bytes; /* folded when it is as long */
	struct sq_flight flight;
	struct om_buf group; /* the records of this group, or of the last until they are settled */
	size_t record,
	    settled; /* where the open record starts; those before are in the tables or wait */
	enum sq_stmt record_stmt;
	struct om_buf wait; /* records for the tables, of groups before it and of this one */
	struct sq_applier *applier; /* NULL when read_only */
	bool lent; /* the connection is the applier's */
	bool folding; /* and it folds the other log */

	struct om_buf pack,
	    json; /* the audit's rows that are not in the tables; the last row alone */
	uint64_t pack_first, pack_rows, json_seq;

	struct sq_cached now, saved, folded;
	struct sq_rows *rows; /* NULL when read_only */
	struct om_id_filter *ids; /* of all jobs; NULL when read_only */
	int64_t others; /* PRAGMA data_version: changes when another connection has written */
	struct sq_tally tally,
	    tally_fold; /* of this group; of those before it, not in the tables */

	uint32_t wal_frames; /* as of the last commit */
	uint32_t wal_dirty; /* the most frames that the log has held since it was zeros */
	int wal_spills; /* of pages out of memory, when it was zeros */
	bool wal_given_up; /* a fold has failed since */
	int checkpoint_rc; /* of the last one that the applier made; reported by maintain */
	uint64_t commits, rollbacks, checkpoints, recoveries, folds;
};

static inline struct om_commit_log *
sq_log_now(struct om_sqlite *sq)
{
	return &sq->log[sq->log_now];
}

static inline struct om_commit_log *
sq_log_other(struct om_sqlite *sq)
{
	return &sq->log[!sq->log_now];
}

/* Groups that the tables do not have for ever. */
static inline bool
sq_is_unfolded(const struct om_sqlite *sq)
{
	return sq->log[0].count > 0 || sq->log[1].count > 0 || (sq->flight.on && !sq->flight.known);
}

static inline struct om_sqlite *
sq_of(struct om_store *st)
{
	struct om_sqlite *sq = (struct om_sqlite *)st;

	OM_ASSERT(sq->magic == SQ_MAGIC);
	return sq;
}

/* sqlite.c */
/* Opens the connection and what belongs to it. */
enum om_err sq_connect(struct om_sqlite *sq) OM_MUST_CHECK;
void sq_disconnect(struct om_sqlite *sq);
enum om_err sq_reconnect(struct om_sqlite *sq) OM_MUST_CHECK;
/* The error for a result code, with the reason in st.why; dooms a running transaction. */
enum om_err sq_fail(struct om_sqlite *sq, int rc, const char *what) OM_MUST_CHECK;
enum om_err sq_err_of(int rc);
enum om_err sq_why(struct om_sqlite *sq, enum om_err err, const char *fmt, ...) OM_PRINTF(3, 4);
/* OM_OK when a write may go ahead. */
enum om_err sq_writable(struct om_sqlite *sq) OM_MUST_CHECK;
extern const struct om_store_ops sq_ops;

/* sqlite_stmt.c */
/*
 * A statement that reads, reset, with the tables as the log says; NULL when that cannot be had or it
 * cannot be prepared (*err, and st.why).
 */
sqlite3_stmt *sq_stmt(struct om_sqlite *sq, enum sq_stmt which, enum om_err *err);
/* Any statement, and the tables as they are. */
sqlite3_stmt *sq_stmt_now(struct om_sqlite *sq, enum sq_stmt which, enum om_err *err);
/* Both for whoever has the connection: SQLite's code, and its message is left for sq_fail. */
int sq_stmt_raw(struct om_sqlite *sq, enum sq_stmt which, sqlite3_stmt **out) OM_MUST_CHECK;
int sq_run_raw(sqlite3_stmt *s) OM_MUST_CHECK;
void sq_finalize_all(struct om_sqlite *sq);
/* Runs a statement that gives no rows, and resets it. */
enum om_err sq_run(struct om_sqlite *sq, sqlite3_stmt *s, const char *what) OM_MUST_CHECK;
/* *row: there is one.  The caller resets the statement when it has read the row. */
enum om_err sq_step(struct om_sqlite *sq, sqlite3_stmt *s, bool *row,
		    const char *what) OM_MUST_CHECK;
enum om_err sq_exec(struct om_sqlite *sq, const char *sql) OM_MUST_CHECK;
enum om_err sq_pragma_i64(struct om_sqlite *sq, const char *sql, int64_t *out) OM_MUST_CHECK;
/* Binding cannot fail but for a bad index (our bug) or length, so a failure is an assert. */
void sq_bind_i64(sqlite3_stmt *s, int index, int64_t v);
void sq_bind_u64(sqlite3_stmt *s, int index, uint64_t v); /* over INT64_MAX: INT64_MAX */
void sq_bind_wall(sqlite3_stmt *s, int index, struct om_wall at); /* 0 is NULL */
void sq_bind_str(sqlite3_stmt *s, int index, struct om_str v); /* absent is NULL */
void sq_bind_text(sqlite3_stmt *s, int index, const char *v);
void sq_bind_bin(sqlite3_stmt *s, int index, struct om_bin v);
struct om_str sq_col_str(sqlite3_stmt *s, int col);
struct om_bin sq_col_bin(sqlite3_stmt *s, int col);
uint64_t sq_col_u64(sqlite3_stmt *s, int col); /* negative: 0 */
void sq_col_copy(sqlite3_stmt *s, int col, char *out, size_t size); /* cut when too long */
bool sq_col_hash(sqlite3_stmt *s, int col, uint8_t out[OM_HASH_LEN]);

/* sqlite_schema.c */
enum om_err sq_schema_open(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_schema_check(struct om_sqlite *sq) OM_MUST_CHECK;
extern const uint32_t sq_schema_version;

/* sqlite_wal.c */
enum om_err sq_wal_open(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_wal_checkpoint(struct om_sqlite *sq, int mode) OM_MUST_CHECK;
enum om_err sq_wal_maintain(struct om_sqlite *sq) OM_MUST_CHECK;
/* Whoever has the connection: a checkpoint when it is time.  SQLite's code. */
int sq_wal_maintain_raw(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_wal_wipe(struct om_sqlite *sq) OM_MUST_CHECK;

/*
 * sqlite_log.c.  A statement that changes the tables: sq_log_stmt, its parameters in order (sqlite_param.h), and one of
 * the ways to end it.
 */
void sq_log_stmt(struct om_sqlite *sq, enum sq_stmt which);
enum om_err sq_log_run(struct om_sqlite *sq) OM_MUST_CHECK; /* now */
enum om_err sq_log_later(struct om_sqlite *sq) OM_MUST_CHECK; /* before anything reads */
/* The same, before those of this group that wait already: it must not depend on them. */
enum om_err sq_log_ahead(struct om_sqlite *sq) OM_MUST_CHECK;
/* Only into the log: the tables get it otherwise, by the next fold. */
enum om_err sq_log_only(struct om_sqlite *sq) OM_MUST_CHECK;
void sq_log_drop(struct om_sqlite *sq); /* not into the log: it changed nothing, or not for ever */
/* The tables could not take in what the log has: dooms the group, or outside of one has all made again. */
enum om_err sq_tables_fail(struct om_sqlite *sq, enum om_err err);
enum om_err sq_records_fail(struct om_sqlite *sq, int rc);
/* What waits in the group waits behind it. */
void sq_log_hand(struct om_sqlite *sq);
/* Runs what waits. */
enum om_err sq_settle(struct om_sqlite *sq) OM_MUST_CHECK;
/* Whoever has the connection: runs records, and empties the buffer.  SQLite's code; nothing else is changed. */
int sq_records_run(struct om_sqlite *sq, struct om_buf *records) OM_MUST_CHECK;
/* Runs all of a group that was read from the log. */
enum om_err sq_log_take(struct om_sqlite *sq, struct om_bin group) OM_MUST_CHECK;
void sq_group_reset(struct om_sqlite *sq);

/* sqlite_apply.c */
struct sq_applier *sq_applier_new(struct om_sqlite *sq);
void sq_applier_free(struct sq_applier *a); /* what was lent to it is done first */
/* Between groups: what waits goes to the applier, when it is much and that is free.  fold: all of it. */
enum om_err sq_lend(struct om_sqlite *sq, bool fold) OM_MUST_CHECK;
/* The connection is the caller's. */
enum om_err sq_own(struct om_sqlite *sq) OM_MUST_CHECK;
/* The same, to give up the transaction: whatever has become of what waited. */
void sq_recall(struct om_sqlite *sq);

/* sqlite_commit.c */
enum om_err sq_commit_start(struct om_store *st) OM_MUST_CHECK;
void sq_commit_write(struct om_store *st);
enum om_err sq_commit_end(struct om_store *st) OM_MUST_CHECK;
/* Waits until it is known what became of the group in flight, or writes it; commit_end still tells. */
void sq_flight_land(struct om_sqlite *sq);
void sq_flight_init(struct sq_flight *f);
void sq_flight_fini(struct sq_flight *f);

/* sqlite_fold.c */
enum om_err sq_log_fail(struct om_sqlite *sq, const struct om_commit_log *log, int rc,
			const char *what) OM_MUST_CHECK;
/* SQLite's transaction is given up, and made again from the log before the next use.  st.why stays. */
void sq_lost(struct om_sqlite *sq);
enum om_err sq_replay(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_fold_begin(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_fold(struct om_sqlite *sq) OM_MUST_CHECK;
/* All that changed since the last fold waits for the tables; the generation that it will have. */
enum om_err sq_fold_collect(struct om_sqlite *sq, uint64_t *generation) OM_MUST_CHECK;
/* Whoever has the connection, when nothing waits: the tables say so.  SQLite's code, as sq_run_raw. */
int sq_fold_commit(struct om_sqlite *sq, uint64_t generation) OM_MUST_CHECK;
/* The tables have all groups of a log. */
void sq_fold_done(struct om_sqlite *sq, struct om_commit_log *log);
void sq_log_close(struct om_sqlite *sq);
/* At the open: takes in what an earlier life has left in the log. */
enum om_err sq_log_attach(struct om_sqlite *sq) OM_MUST_CHECK;
/* VERSION: an older program has left groups, which are of its schema: it alone can take them in. */
enum om_err sq_log_before_migration(struct om_sqlite *sq) OM_MUST_CHECK;
/* Folds, and the log is zeros again: nothing of what was in it, and at least so many bytes. */
enum om_err sq_log_clean(struct om_sqlite *sq, uint64_t bytes) OM_MUST_CHECK;

/* sqlite_tx.c */
enum om_err sq_see_others(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_counters_flush(struct om_sqlite *sq) OM_MUST_CHECK; /* into the tables */
enum om_err sq_tally_flush(struct om_sqlite *sq) OM_MUST_CHECK; /* that alone */
/* A transaction that holds nothing is not kept open: others may write. */
void sq_tx_let_go(struct om_sqlite *sq);
/* A lost one is made again at once, before somebody else has the writer's lock; else at the next use. */
void sq_tx_again(struct om_sqlite *sq);
enum om_err sq_counters_log(struct om_sqlite *sq)
    OM_MUST_CHECK; /* what this group changed of them */
/* The group's tally joins those before it. */
enum om_err sq_tally_merge(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_maintain(struct om_store *st) OM_MUST_CHECK;
enum om_err sq_wipe(struct om_store *st) OM_MUST_CHECK;
enum om_err sq_fold_op(struct om_store *st, bool wait) OM_MUST_CHECK;
enum om_err sq_begin(struct om_store *st) OM_MUST_CHECK;
void sq_rollback(struct om_store *st);
enum om_err sq_cached_load(struct om_sqlite *sq) OM_MUST_CHECK;
enum om_err sq_ids_load(struct om_sqlite *sq) OM_MUST_CHECK;
/* Counts a job's change of state (from OM_JOB_STATES: new; to OM_JOB_STATES: removed). */
enum om_err sq_count_move(struct om_sqlite *sq, enum om_job_state from, enum om_job_state to,
			  struct om_wall at) OM_MUST_CHECK;
enum om_err sq_counts(struct om_store *st, uint64_t counts[OM_JOB_STATES]) OM_MUST_CHECK;
/* The requester's attempt ended then, after so long. */
enum om_err sq_count_ran(struct om_sqlite *sq, const char *requester, uint64_t ms,
			 struct om_wall at);
enum om_err sq_ran_since(struct om_store *st, struct om_wall since, struct om_str after,
			 struct om_store_ran *out, size_t cap, size_t *count);
enum om_err sq_counts_since(struct om_store *st, struct om_wall since,
			    uint64_t counts[OM_JOB_STATES]) OM_MUST_CHECK;

/* All but the long texts. */
#define SQ_ROW_HEAD offsetof(struct om_job_row, text)

static inline void
sq_row_copy(struct om_job_row *to, const struct om_job_row *from)
{
	memcpy(to, from, SQ_ROW_HEAD);
	memcpy(to->text, from->text, strlen(from->text) + 1);
	memcpy(to->activity, from->activity, strlen(from->activity) + 1);
}

/* sqlite_job.c */
enum om_err sq_job_put(struct om_store *st, const struct om_job_new *job, bool *existed,
		       struct om_job_row *row) OM_MUST_CHECK;
enum om_err sq_job_move(struct om_store *st, const struct om_job_id *id,
			const struct om_job_change *change, struct om_job_row *row) OM_MUST_CHECK;
enum om_err sq_job_spec_set(struct om_store *st, const struct om_job_id *id,
			    struct om_bin spec) OM_MUST_CHECK;
enum om_err sq_job_place(struct om_store *st, const struct om_job_id *id,
			 const struct om_job_place *place, struct om_job_row *row) OM_MUST_CHECK;

/*
 * The record that writes what may change of a row; the caller ends it.  live: neither has it ended nor
 * do the tables have it so.
 */
void sq_job_update(struct om_sqlite *sq, const struct om_job_row *row, bool live);
/* The same for a row that the tables do not have.  grown: it has changed since it was put. */
void sq_job_insert(struct om_sqlite *sq, const struct om_job_row *row, bool grown);

/* sqlite_rows.c */
struct sq_rows *sq_rows_new(void);
void sq_rows_free(struct sq_rows *rows);
/* The row as this transaction has left it; false: not here, read it. */
bool sq_rows_find(struct om_sqlite *sq, const struct om_job_id *id, struct om_job_row *row);
/* The same, of its seq alone. */
bool sq_rows_seq(const struct om_sqlite *sq, const struct om_job_id *id, int64_t *seq);
/* Its place comes to the cache meanwhile. */
void sq_rows_expect(const struct om_sqlite *sq, const struct om_job_id *id);
/* In a group: a row that is in the log, and not in the tables. */
enum om_err sq_rows_born(struct om_sqlite *sq, const struct om_job_row *row) OM_MUST_CHECK;
/* Between groups: some of what waits, when it is much. */
enum om_err sq_rows_trim(struct om_sqlite *sq) OM_MUST_CHECK;
/* In a group: the row is in the log with its commit, in the tables with the next fold. */
enum om_err sq_rows_changed(struct om_sqlite *sq, const struct om_job_row *row) OM_MUST_CHECK;
bool sq_rows_are_new(const struct om_sqlite *sq); /* this group has changed some */
/* What this group changed goes into the log. */
enum om_err sq_rows_log(struct om_sqlite *sq) OM_MUST_CHECK;
/* The row is in the file as it is; remembered when there is room. */
void sq_rows_keep(struct om_sqlite *sq, const struct om_job_row *row);
/* What changed goes into the tables, before a statement that reads jobs. */
enum om_err sq_rows_flush(struct om_sqlite *sq) OM_MUST_CHECK;
void sq_rows_clear(struct om_sqlite *sq);
void sq_rows_doubt(struct om_sqlite *sq); /* forgets those that the tables have */

/* sqlite_read.c */
#define SQ_JOB_COLS                                                                              \
	"seq, rank, id, requester, network, lang, activity, level, state, reason, text, cores, " \
	"mem_mib, "                                                                              \
	"disk_mib, runtime_s, submitted, picked, started, finished, not_before, expires, "       \
	"attempts, attempts_max, after_count, held, requeue, array_limit, sealed, has_output, "  \
	"exited, exit_code, "                                                                    \
	"signal, cpu_ms, "                                                                       \
	"wall_ms, boot_ms, "                                                                     \
	"mem_peak_kib, rx_bytes, tx_bytes, handshake, dropped_bytes, spec_hash"
enum om_err sq_job_row(struct om_sqlite *sq, sqlite3_stmt *s, struct om_job_row *row) OM_MUST_CHECK;
enum om_err sq_job_seq(struct om_sqlite *sq, const struct om_job_id *id,
		       int64_t *seq) OM_MUST_CHECK;
enum om_err sq_job_get(struct om_store *st, const struct om_job_id *id,
		       struct om_job_row *row) OM_MUST_CHECK;
enum om_err sq_job_find(struct om_store *st, struct om_str prefix, struct om_str requester,
			struct om_job_id *ids, size_t cap, size_t *count) OM_MUST_CHECK;
enum om_err sq_job_list(struct om_store *st, struct om_job_filter *filter, struct om_job_row *rows,
			size_t cap, size_t *count) OM_MUST_CHECK;
enum om_err sq_job_spec(struct om_store *st, const struct om_job_id *id,
			struct om_buf *out) OM_MUST_CHECK;
enum om_err sq_job_after(struct om_store *st, const struct om_job_id *id, struct om_job_after *out,
			 size_t cap, size_t *count) OM_MUST_CHECK;

/* sqlite_out.c */
enum om_err sq_output_append(struct om_store *st, const struct om_job_id *id, struct om_out_ref ref,
			     uint64_t offset, struct om_bin data, uint64_t *size) OM_MUST_CHECK;
enum om_err sq_output_read(struct om_store *st, const struct om_job_id *id, struct om_out_ref ref,
			   uint64_t offset, void *out, size_t cap, size_t *len,
			   uint64_t *size) OM_MUST_CHECK;
enum om_err sq_output_list(struct om_store *st, const struct om_job_id *id, struct om_out_info *out,
			   size_t cap, size_t *count) OM_MUST_CHECK;
enum om_err sq_output_drop(struct om_sqlite *sq, int64_t job_seq) OM_MUST_CHECK;

/* sqlite_admin.c */
enum om_err sq_entry_put(struct om_store *st, struct om_str kind, struct om_str key,
			 struct om_bin value) OM_MUST_CHECK;
enum om_err sq_entry_del(struct om_store *st, struct om_str kind, struct om_str key) OM_MUST_CHECK;
enum om_err sq_entry_get(struct om_store *st, struct om_str kind, struct om_str key,
			 struct om_buf *out) OM_MUST_CHECK;
enum om_err sq_entry_each(struct om_store *st, struct om_str kind, struct om_str after_key,
			  om_entry_fn fn, void *arg) OM_MUST_CHECK;
enum om_err sq_purge(struct om_store *st, struct om_purge *purge) OM_MUST_CHECK;
enum om_err sq_job_remove(struct om_store *st, const struct om_job_id *id) OM_MUST_CHECK;
enum om_err sq_stat(struct om_store *st, struct om_store_stat *out) OM_MUST_CHECK;
enum om_err sq_check(struct om_store *st) OM_MUST_CHECK;

/* sqlite_audit.c */
/* Appends rows; job may be NULL.  Inside a transaction. */
enum om_err sq_audit_notes(struct om_sqlite *sq, struct om_wall at,
			   const struct om_audit_note *notes, size_t count,
			   const struct om_job_row *job) OM_MUST_CHECK;
enum om_err sq_audit_append(struct om_store *st, struct om_wall at,
			    const struct om_audit_note *note) OM_MUST_CHECK;
enum om_err sq_audit_each(struct om_store *st, struct om_audit_filter *filter, size_t limit,
			  om_audit_fn fn, void *arg, bool *more) OM_MUST_CHECK;
enum om_err sq_audit_head(struct om_store *st, struct om_audit_mark *out) OM_MUST_CHECK;
enum om_err sq_audit_verify(struct om_store *st, struct om_audit_check *check,
			    size_t limit) OM_MUST_CHECK;
/* A record of the log: the row waits for its pack.  SQLite's code, as sq_run_raw. */
int sq_audit_add(struct om_sqlite *sq, uint64_t seq, struct om_str row) OM_MUST_CHECK;
void sq_audit_forget(struct om_sqlite *sq);
/* What waits goes into the tables.  The same. */
int sq_audit_flush(struct om_sqlite *sq) OM_MUST_CHECK;
/* Removes at most limit rows older than `before` from the front. */
enum om_err sq_audit_cut(struct om_sqlite *sq, struct om_wall before, size_t limit,
			 uint64_t *removed) OM_MUST_CHECK;
enum om_err sq_chain_load(struct om_sqlite *sq, struct om_audit_mark *head,
			  struct om_audit_mark *base) OM_MUST_CHECK;

#endif /* OM_STORE_SQLITE_IMPL_H */
