/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_STORE_H
#define OM_STORE_STORE_H

/*
 * The durable state: jobs, results and output, lists and settings, the audit chain.
 *
 * A store is an ops table, so that another engine can serve; store/sqlite.h opens the embedded
 * one.  One owner thread at a time; every call may block on the disk.
 *
 * Writing.  Functions marked [tx] are called between om_store_begin and om_store_commit; nothing is
 * durable before the commit returned OM_OK, and everything is when it did.  Each [tx] function is
 * atomic by itself: one that fails for a reason of the request (NOT_FOUND, EXISTS, STATE, INVALID)
 * has changed nothing and the transaction goes on.  OM_ERR_DISK (no room, I/O error, read-only
 * disk, locked) and OM_ERR_CORRUPT doom the transaction: later calls, reads too, and the commit return
 * the same error, nothing of it is kept, and the next begin tries anew.
 *
 * A job's state never changes without its audit row: both are written by one function.  Errors leave
 * the reason in words in om_store_why().  Views (om_str, om_bin) that go in are borrowed for the
 * call; what comes out is copied to the caller's memory.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "store/audit.h"
#include "store/job_state.h"
#include "store/limits.h"

/* Text shorter than its limit, NUL-terminated. */
struct om_peer_name {
	char text[OM_PEER_ID_MAX + 1];
};

/* --- jobs ------------------------------------------------------------------------------------- */

struct om_job_needs {
	uint32_t cores;
	uint64_t mem_mib;
	uint64_t disk_mib;
	uint64_t runtime_s;
};

struct om_job_result {
	int32_t exit_code; /* valid when exited */
	int32_t signal; /* 0: none */
	bool exited; /* the script ended by itself: exit_code counts */
	uint64_t cpu_ms, wall_ms, boot_ms, mem_peak_kib;
	uint64_t rx_bytes, tx_bytes, dropped_bytes; /* through its network; output over its limit */
	struct om_wall handshake; /* the last one of its tunnel; 0: none */
};

enum om_after_when {
	OM_AFTER_SUCCESS, /* the other job completed */
	OM_AFTER_END, /* the other job ended, however */
};

/* This job starts after that one. */
struct om_job_after {
	struct om_job_id id;
	enum om_after_when when;
	enum om_job_state state; /* out: its state now */
};

/* A job as it is stored.  Times: 0 when it has not come to that.  Behind a text's NUL is anything. */
struct om_job_row {
	uint64_t seq; /* order of submission, from 1 */
	int64_t rank; /* order inside a level: seq << OM_JOB_RANK_SHIFT unless it was moved */
	struct om_job_id id;
	struct om_peer_name requester, network;
	char lang[OM_JOB_LANG_MAX + 1];
	int32_t level; /* 100 owner, 50 network, 10 external */
	enum om_job_state state;
	char reason[OM_JOB_REASON_MAX + 1];
	struct om_job_needs needs;
	struct om_wall submitted, picked, started, finished; /* picked: left the queue */
	struct om_wall not_before, expires;
	uint32_t attempts, attempts_max; /* attempts begun; limit, at least 1 */
	uint32_t after_count;
	bool held;
	bool requeue; /* lost in a crash of the provider: queue it again */
	bool in_array; /* its id is ARRAY_INDEX */
	bool sealed; /* false: its body has no sealed keys */
	bool has_output; /* false: nothing was stored for it */
	uint32_t array_limit; /* of its array: so many run at one time; 0: no limit */
	struct om_job_result result; /* valid when finished is set */
	uint8_t spec_hash[OM_HASH_LEN];
	char text[OM_JOB_TEXT_MAX + 1]; /* the long ones last: copied as far as they are used */
	char activity[OM_JOB_ACTIVITY_MAX + 1];
};
#define OM_JOB_RANK_SHIFT 20

struct om_job_new {
	struct om_job_id id;
	struct om_str requester, network, lang, activity;
	int32_t level;
	enum om_job_state state; /* received, rejected, pending_approval or queued */
	struct om_str reason, text;
	struct om_job_needs needs;
	struct om_wall submitted, not_before, expires;
	uint32_t attempts_max; /* 0 is 1 */
	bool held, requeue, in_array;
	uint32_t array_limit;
	struct om_bin spec; /* opaque; its hash decides whether a second submit is the same */
	struct om_bin stored; /* what is kept of it; empty: all */
	const struct om_job_after *after; /* jobs that exist: so there are no cycles */
	size_t after_count;
	const struct om_audit_note *notes; /* 1 to OM_JOB_NOTES_MAX, in this order */
	size_t note_count;
};

struct om_job_change {
	enum om_job_state to;
	struct om_wall at;
	struct om_str reason, text;
	uint32_t attempt; /* fence: must be the row's attempts; 0: any */
	const struct om_job_result *result; /* for the states after running; NULL: none measured */
	bool set_level; /* to queued: */
	int32_t level;
	struct om_wall not_before, expires; /* 0: as it is */
	struct om_audit_note note; /* the event is required */
};

/* Changes that are no change of state.  Only what is set is changed. */
struct om_job_place {
	bool set_level, set_rank, set_held, set_not_before, set_text;
	int32_t level;
	int64_t rank;
	bool held;
	struct om_wall not_before;
	struct om_str reason, text; /* set_text: why it waits */
	struct om_wall at;
	struct om_audit_note note; /* event absent: not audited */
};

struct om_job_filter {
	uint32_t states; /* OM_JOB_BIT set; 0: all */
	struct om_str requester; /* absent: all */
	struct om_wall since; /* submitted at or after; 0: all */
	bool newest_first;
	struct om_str array; /* jobs of this array alone, in order; absent: all */
	uint64_t cursor; /* in: 0 to start; out: 0 at the end, else pass it again */
	uint32_t looks; /* in: rows to look at, 0: OM_STORE_SCAN_MAX; out: what is left of them */
};

/* --- output ----------------------------------------------------------------------------------- */

enum om_out_kind {
	OM_OUT_STDOUT,
	OM_OUT_STDERR,
	OM_OUT_EVIDENCE, /* what a rogue job was caught with, lines of text */
	OM_OUT_MISSING, /* files that were not taken: each name and the reason, a NUL after both */
	OM_OUT_TRUNCATED, /* a byte: stdout and stderr reached their limit */
	OM_OUT_FILE, /* with a name */
};

struct om_out_ref {
	enum om_out_kind kind;
	struct om_str name;
};

struct om_out_info {
	enum om_out_kind kind;
	char name[OM_OUT_NAME_MAX + 1];
	uint64_t size;
};

/* --- the rest --------------------------------------------------------------------------------- */

/* Views are valid during the call.  false: enough. */
typedef bool (*om_entry_fn)(void *arg, struct om_str key, struct om_bin value);

struct om_purge {
	struct om_wall finished_before; /* 0: no limit by age */
	struct om_wall audit_before; /* 0: the audit is not cut */
	uint64_t bytes_max; /* used bytes of the store; 0: no limit by size */
	uint32_t states; /* only these (of the final ones); 0: all final */
	uint32_t batch; /* jobs (and audit rows) at most in this call; 0: 500 */
	uint64_t jobs, audit_rows; /* out: removed */
	bool more; /* out: call again */
};

struct om_store_stat {
	uint64_t jobs, audit_rows;
	uint64_t used_bytes, free_bytes; /* free: inside the file, reused first */
	uint64_t wal_bytes; /* log not yet folded into the file */
	uint64_t commits, rollbacks, checkpoints, recoveries;
	uint32_t schema;
};

struct om_store;
struct om_store_ran; /* store/ran.h */

struct om_store_ops {
	const char *engine;
	void (*close)(struct om_store *st);
	enum om_err (*begin)(struct om_store *st);
	enum om_err (*commit_start)(struct om_store *st);
	void (*commit_write)(struct om_store *st);
	enum om_err (*commit_end)(struct om_store *st);
	void (*rollback)(struct om_store *st);
	enum om_err (*maintain)(struct om_store *st);
	enum om_err (*fold)(struct om_store *st, bool wait);
	enum om_err (*wipe)(struct om_store *st);
	enum om_err (*check)(struct om_store *st);
	enum om_err (*stat)(struct om_store *st, struct om_store_stat *out);

	enum om_err (*job_put)(struct om_store *st, const struct om_job_new *job, bool *existed,
			       struct om_job_row *row);
	enum om_err (*job_move)(struct om_store *st, const struct om_job_id *id,
				const struct om_job_change *change, struct om_job_row *row);
	enum om_err (*job_place)(struct om_store *st, const struct om_job_id *id,
				 const struct om_job_place *place, struct om_job_row *row);
	enum om_err (*job_get)(struct om_store *st, const struct om_job_id *id,
			       struct om_job_row *row);
	enum om_err (*job_find)(struct om_store *st, struct om_str prefix, struct om_str requester,
				struct om_job_id *ids, size_t cap, size_t *count);
	enum om_err (*job_list)(struct om_store *st, struct om_job_filter *filter,
				struct om_job_row *rows, size_t cap, size_t *count);
	enum om_err (*job_spec)(struct om_store *st, const struct om_job_id *id,
				struct om_buf *out);
	enum om_err (*job_spec_set)(struct om_store *st, const struct om_job_id *id,
				    struct om_bin spec);
	enum om_err (*job_after)(struct om_store *st, const struct om_job_id *id,
				 struct om_job_after *out, size_t cap, size_t *count);
	enum om_err (*counts)(struct om_store *st, uint64_t counts[OM_JOB_STATES]);
	enum om_err (*counts_since)(struct om_store *st, struct om_wall since,
				    uint64_t counts[OM_JOB_STATES]);
	enum om_err (*ran_since)(struct om_store *st, struct om_wall since, struct om_str after,
				 struct om_store_ran *out, size_t cap, size_t *count);

	enum om_err (*output_append)(struct om_store *st, const struct om_job_id *id,
				     struct om_out_ref ref, uint64_t offset, struct om_bin data,
				     uint64_t *size);
	enum om_err (*output_read)(struct om_store *st, const struct om_job_id *id,
				   struct om_out_ref ref, uint64_t offset, void *out, size_t cap,
				   size_t *len, uint64_t *size);
	enum om_err (*output_list)(struct om_store *st, const struct om_job_id *id,
				   struct om_out_info *out, size_t cap, size_t *count);

	enum om_err (*entry_put)(struct om_store *st, struct om_str kind, struct om_str key,
				 struct om_bin value);
	enum om_err (*entry_del)(struct om_store *st, struct om_str kind, struct om_str key);
	enum om_err (*entry_get)(struct om_store *st, struct om_str kind, struct om_str key,
				 struct om_buf *out);
	enum om_err (*entry_each)(struct om_store *st, struct om_str kind, struct om_str after_key,
				  om_entry_fn fn, void *arg);

	enum om_err (*audit_append)(struct om_store *st, struct om_wall at,
				    const struct om_audit_note *note);
	enum om_err (*audit_each)(struct om_store *st, struct om_audit_filter *filter, size_t limit,
				  om_audit_fn fn, void *arg, bool *more);
	enum om_err (*audit_head)(struct om_store *st, struct om_audit_mark *out);
	enum om_err (*audit_verify)(struct om_store *st, struct om_audit_check *check,
				    size_t limit);

	enum om_err (*purge)(struct om_store *st, struct om_purge *purge);
	enum om_err (*job_remove)(struct om_store *st, const struct om_job_id *id);
};

/* The head of every backend's own struct. */
struct om_store {
	const struct om_store_ops *ops;
	struct om_why why;
	bool unfolded; /* something was committed that fold would write */
	bool fold_due; /* maintain waits for a whole commit to fold: om_store_commit */
};

/* All below: owner thread. */

/* Why the last call failed, for a person.  Borrowed until the next call. */
static inline const char *
om_store_why(const struct om_store *st)
{
	return st->why.text;
}

/* Commits nothing.  NULL is fine. */
static inline void
om_store_close(struct om_store *st)
{
	if (st != NULL) {
		st->ops->close(st);
	}
}

static inline OM_MUST_CHECK enum om_err
om_store_begin(struct om_store *st)
{
	return st->ops->begin(st);
}

/* On an error the transaction has been rolled back. */
static inline OM_MUST_CHECK enum om_err
om_store_commit(struct om_store *st)
{
	enum om_err err = st->ops->commit_start(st);

	if (err == OM_OK) {
		st->ops->commit_write(st);
		err = st->ops->commit_end(st);
	}
	return err;
}

/*
 * The same in steps.  After start has returned OM_OK, any thread may call write, which waits for the
 * disk; end, by the store's thread, waits for it, or writes itself when nobody has begun to: a write that
 * comes late does nothing.  Between them the next group may be begun: it sees this one, and fails with it.
 */
static inline OM_MUST_CHECK enum om_err
om_store_commit_start(struct om_store *st)
{
	return st->ops->commit_start(st);
}

static inline void
om_store_commit_write(struct om_store *st)
{
	st->ops->commit_write(st);
}

static inline OM_MUST_CHECK enum om_err
om_store_commit_end(struct om_store *st)
{
	return st->ops->commit_end(st);
}

/* Without a transaction it does nothing. */
static inline void
om_store_rollback(struct om_store *st)
{
	st->ops->rollback(st);
}

/*
 * Outside a transaction, after the answers are out: folds the log into the main file when enough
 * has gathered.  An error costs nothing but log space.
 */
static inline OM_MUST_CHECK enum om_err
om_store_maintain(struct om_store *st)
{
	return st->ops->maintain(st);
}

/*
 * Outside a transaction: what was committed is in the main file's tables, for whoever reads it beside
 * us.  Costs a sync when there is something.  wait false: it is begun, and done when a later call
 * leaves nothing `unfolded`.  DISK: it stays in the log, as safe.
 */
static inline OM_MUST_CHECK enum om_err
om_store_fold(struct om_store *st, bool wait)
{
	return st->ops->fold(st, wait);
}

/*
 * Outside a transaction: what was overwritten or removed is nowhere in the store's files any more, logs
 * included.  Costs a few syncs.  DISK: not now (somebody else reads, the disk refuses): call it again.
 */
static inline OM_MUST_CHECK enum om_err
om_store_wipe(struct om_store *st)
{
	return st->ops->wipe(st);
}

/* Reads everything: structure, counters.  Takes long on a big store.  CORRUPT: om_store_why. */
static inline OM_MUST_CHECK enum om_err
om_store_check(struct om_store *st)
{
	return st->ops->check(st);
}

static inline OM_MUST_CHECK enum om_err
om_store_stat(struct om_store *st, struct om_store_stat *out)
{
	return st->ops->stat(st, out);
}

/*
 * [tx] Adds a job.  The same id, requester and spec again: OM_OK, *existed, the row as it is now,
 * nothing written.  The id with anything else: OM_ERR_EXISTS.  A job named in `after` that does not
 * exist: OM_ERR_NOT_FOUND.
 */
static inline OM_MUST_CHECK enum om_err
om_store_job_put(struct om_store *st, const struct om_job_new *job, bool *existed,
		 struct om_job_row *row)
{
	return st->ops->job_put(st, job, existed, row);
}

/*
 * [tx] The only way to change a state.  OM_ERR_STATE: the table of moves or the fence forbids it;
 * *row then holds the job as it is.  To provisioning: attempts + 1, output of an earlier attempt
 * is removed.  row may be NULL.
 */
static inline OM_MUST_CHECK enum om_err
om_store_job_move(struct om_store *st, const struct om_job_id *id,
		  const struct om_job_change *change, struct om_job_row *row)
{
	return st->ops->job_move(st, id, change, row);
}

/* [tx] To a final state with its measured result (change->result is required). */
static inline OM_MUST_CHECK enum om_err
om_store_job_finish(struct om_store *st, const struct om_job_id *id,
		    const struct om_job_change *change, struct om_job_row *row)
{
	if (change->result == NULL || !om_job_is_final(change->to)) {
		return om_why_set(&st->why, OM_ERR_INVALID, "a finished job needs a result");
	}
	return st->ops->job_move(st, id, change, row);
}

/* [tx] Level, rank, hold, not_before, waiting reason of a live job.  OM_ERR_STATE: it is over. */
static inline OM_MUST_CHECK enum om_err
om_store_job_place(struct om_store *st, const struct om_job_id *id,
		   const struct om_job_place *place, struct om_job_row *row)
{
	return st->ops->job_place(st, id, place, row);
}

static inline OM_MUST_CHECK enum om_err
om_store_job_get(struct om_store *st, const struct om_job_id *id, struct om_job_row *row)
{
	return st->ops->job_get(st, id, row);
}

/*
 * The job whose id starts with prefix; a whole id wins over longer ones.  requester absent: of
 * anyone.  OM_OK: ids[0].  OM_ERR_NOT_FOUND.  OM_ERR_INVALID: ambiguous, ids[0..*count) are
 * candidates (at most cap, which is at least 2); none: too many of others begin so for it to know.
 */
static inline OM_MUST_CHECK enum om_err
om_store_job_find(struct om_store *st, struct om_str prefix, struct om_str requester,
		  struct om_job_id *ids, size_t cap, size_t *count)
{
	return st->ops->job_find(st, prefix, requester, ids, cap, count);
}

/*
 * One page in order of submission.  A page may be empty and yet not the last: only cursor 0 ends.
 * All live jobs for recovery: states = OM_JOB_LIVE.
 */
static inline OM_MUST_CHECK enum om_err
om_store_job_list(struct om_store *st, struct om_job_filter *filter, struct om_job_row *rows,
		  size_t cap, size_t *count)
{
	return st->ops->job_list(st, filter, rows, cap, count);
}

/* Appends the body to out. */
static inline OM_MUST_CHECK enum om_err
om_store_job_spec(struct om_store *st, const struct om_job_id *id, struct om_buf *out)
{
	return st->ops->job_spec(st, id, out);
}

/*
 * [tx] Replaces the body, for a job that will not run again: secrets are taken out of it.  The hash
 * that decides about a second submit stays that of the body as it came.
 */
static inline OM_MUST_CHECK enum om_err
om_store_job_spec_set(struct om_store *st, const struct om_job_id *id, struct om_bin spec)
{
	return st->ops->job_spec_set(st, id, spec);
}

/* The jobs that this one waits for, with their present states. */
static inline OM_MUST_CHECK enum om_err
om_store_job_after(struct om_store *st, const struct om_job_id *id, struct om_job_after *out,
		   size_t cap, size_t *count)
{
	return st->ops->job_after(st, id, out, cap, count);
}

/* How many jobs are in each state now. */
static inline OM_MUST_CHECK enum om_err
om_store_counts(struct om_store *st, uint64_t counts[OM_JOB_STATES])
{
	return st->ops->counts(st, counts);
}

/* How many jobs came into each state since then (to the quarter of an hour). */
static inline OM_MUST_CHECK enum om_err
om_store_counts_since(struct om_store *st, struct om_wall since, uint64_t counts[OM_JOB_STATES])
{
	return st->ops->counts_since(st, since, counts);
}

/*
 * [tx] Appends to an output.  offset must be its present size, else OM_ERR_STATE (OM_OUT_AT_END:
 * wherever that is, for a sender that cannot have sent it before); *size is the size
 * afterwards (or the present one), so that a sender can resume.  Makes the output if it is new.
 */
static inline OM_MUST_CHECK enum om_err
om_store_output_append(struct om_store *st, const struct om_job_id *id, struct om_out_ref ref,
		       uint64_t offset, struct om_bin data, uint64_t *size)
{
	return st->ops->output_append(st, id, ref, offset, data, size);
}

/* Reads from offset, at most cap bytes; *len 0 at the end.  *size: all that is stored now.  A stream
 * that nothing was written to is empty; a file that does not exist is OM_ERR_NOT_FOUND. */
static inline OM_MUST_CHECK enum om_err
om_store_output_read(struct om_store *st, const struct om_job_id *id, struct om_out_ref ref,
		     uint64_t offset, void *out, size_t cap, size_t *len, uint64_t *size)
{
	return st->ops->output_read(st, id, ref, offset, out, cap, len, size);
}

/* Streams and files that exist; *count is how many there are, out has the first cap. */
static inline OM_MUST_CHECK enum om_err
om_store_output_list(struct om_store *st, const struct om_job_id *id, struct om_out_info *out,
		     size_t cap, size_t *count)
{
	return st->ops->output_list(st, id, out, cap, count);
}

/* [tx] Sets of key -> value: "trust", "block", "rule", "setting" ...  Replaces. */
static inline OM_MUST_CHECK enum om_err
om_store_entry_put(struct om_store *st, struct om_str kind, struct om_str key, struct om_bin value)
{
	return st->ops->entry_put(st, kind, key, value);
}

/* [tx] OM_ERR_NOT_FOUND when it was not there. */
static inline OM_MUST_CHECK enum om_err
om_store_entry_del(struct om_store *st, struct om_str kind, struct om_str key)
{
	return st->ops->entry_del(st, kind, key);
}

/* Appends the value to out. */
static inline OM_MUST_CHECK enum om_err
om_store_entry_get(struct om_store *st, struct om_str kind, struct om_str key, struct om_buf *out)
{
	return st->ops->entry_get(st, kind, key, out);
}

/* All entries of a kind in key order, those after after_key (absent: from the first). */
static inline OM_MUST_CHECK enum om_err
om_store_entry_each(struct om_store *st, struct om_str kind, struct om_str after_key,
		    om_entry_fn fn, void *arg)
{
	return st->ops->entry_each(st, kind, after_key, fn, arg);
}

/* [tx] An audit row that is not about one job (start, stop, configuration, lists). */
static inline OM_MUST_CHECK enum om_err
om_store_audit_append(struct om_store *st, struct om_wall at, const struct om_audit_note *note)
{
	return st->ops->audit_append(st, at, note);
}

/*
 * Rows in order, at most limit; filter->after_seq moves on.  *more: rows remain (or were not yet
 * looked at).  Polling with the same filter follows the audit live.
 */
static inline OM_MUST_CHECK enum om_err
om_store_audit_each(struct om_store *st, struct om_audit_filter *filter, size_t limit,
		    om_audit_fn fn, void *arg, bool *more)
{
	return st->ops->audit_each(st, filter, limit, fn, arg, more);
}

/* The end of the chain. */
static inline OM_MUST_CHECK enum om_err
om_store_audit_head(struct om_store *st, struct om_audit_mark *out)
{
	return st->ops->audit_head(st, out);
}

/* Looks at up to limit more rows; call until check->done.  OM_OK also when the chain is broken. */
static inline OM_MUST_CHECK enum om_err
om_store_audit_verify(struct om_store *st, struct om_audit_check *check, size_t limit)
{
	return st->ops->audit_verify(st, check, limit);
}

/*
 * [tx] Removes old finished jobs with all that is theirs, oldest first, and old audit rows from the
 * front (the chain starts at a recorded mark then).  A job that a live one waits for stays.
 */
static inline OM_MUST_CHECK enum om_err
om_store_purge(struct om_store *st, struct om_purge *purge)
{
	return st->ops->purge(st, purge);
}

/* [tx] Removes an ended job, not its audit.  OM_ERR_STATE: not ended, or a live one waits for it. */
static inline OM_MUST_CHECK enum om_err
om_store_job_remove(struct om_store *st, const struct om_job_id *id)
{
	return st->ops->job_remove(st, id);
}

#endif /* OM_STORE_STORE_H */
