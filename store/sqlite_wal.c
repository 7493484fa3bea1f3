/* SPDX-License-Identifier: ISC */
#include "base/log.h"
#include "store/sqlite_impl.h"

/*
 * The write-ahead log file.
 *
 * 1. It is filled with zeros up to wal_bytes when it is opened and used again from its start after
 *    each checkpoint: an fsync then writes data alone and no metadata, which halves its cost.
 *    (Zeros are no frames: a recovery stops at them.)  Extents that fallocate made are of no use,
 *    their first write is a change of metadata.
 *    The zeros also take away what the process before left in it: bodies of jobs, with their keys.
 * 2. A checkpoint runs behind a fold, by whoever made that, not inside a commit.
 * 3. A failed fsync.  The kernel may have dropped what it could not write and marked it clean, so
 *    a second fsync that says OK proves nothing (https://lwn.net/Articles/752063/).  Frames of folds
 *    before are safe: their own fsync said so.  The failed fold's are written anew, from the commit
 *    log, at the same place, before anything says that they are there; and if they come to life in a
 *    crash before, they hold what was acknowledged, and void what the commit log has of it.
 * 4. The log is overwritten (wipe) only when all of it is folded, no reader has a snapshot in it
 *    (a RESTART checkpoint says so), and while we hold the lock of the writer.  If broken: a frame of
 *    somebody's commit is zeroed.
 */

#define WAL_HEAD       32
#define WAL_FRAME_HEAD 24
#define WAL_PAGE       4096

static uint64_t
wal_bytes_used(const struct om_sqlite *sq)
{
	return (uint64_t)sq->wal_frames * (WAL_PAGE + WAL_FRAME_HEAD);
}

static int
wal_checkpoint_raw(struct om_sqlite *sq, int mode)
{
	int frames = 0, folded = 0;
	const int rc = sqlite3_wal_checkpoint_v2(sq->db, "main", mode, &frames, &folded);

	if (rc != SQLITE_OK) {
		return rc;
	}
	sq->checkpoints++;
	if (folded >= frames) {
		sq->wal_frames = 0; /* the next commit starts at the beginning */
	}
	return SQLITE_OK;
}

enum om_err
sq_wal_checkpoint(struct om_sqlite *sq, int mode)
{
	int rc;

	OM_ASSERT(!sq->lent);
	rc = wal_checkpoint_raw(sq, mode);
	return rc == SQLITE_OK ? OM_OK : sq_fail(sq, rc, "checkpoint");
}

/* Zeros up to `end` (0: all, at least wal_bytes), when the data is still of that version (invariant 4). */
static enum om_err
wal_zero(struct om_sqlite *sq, int64_t version, sqlite3_int64 end)
{
	sqlite3_file *file = NULL;
	sqlite3_int64 size = 0;
	int64_t now = 0;
	enum om_err err;
	int rc;

	err = sq_exec(sq, "BEGIN IMMEDIATE");
	if (err != OM_OK) {
		return err;
	}
	err = sq_pragma_i64(sq, "PRAGMA data_version", &now);
	if (err == OM_OK && now != version) {
		err = sq_why(sq, OM_ERR_DISK, "%.100s: somebody else has written", sq->path);
	}
	if (err != OM_OK) {
		goto out;
	}
	rc = sqlite3_file_control(sq->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file);
	if (rc == SQLITE_OK && file != NULL && file->pMethods != NULL) {
		rc = end == 0 ? file->pMethods->xFileSize(file, &size) : SQLITE_OK;
		if (end == 0) {
			end = size > (sqlite3_int64)sq->wal_bytes ? size
								  : (sqlite3_int64)sq->wal_bytes;
		}
		if (rc == SQLITE_OK) {
			rc = om_file_zero(file, 0, end);
		}
	}
	if (rc != SQLITE_OK) {
		err = sq_fail(sq, rc, "overwrite the log");
	} else {
		sq->wal_dirty = 0;
	}
out:
	(void)sqlite3_exec(sq->db, "ROLLBACK", NULL, NULL, NULL);
	return err;
}

enum om_err
sq_wal_open(struct om_sqlite *sq)
{
	int64_t version = 0;
	enum om_err err;

	/* What the last process left is folded in; the log then starts from its beginning. */
	err = sq_pragma_i64(sq, "PRAGMA data_version", &version);
	if (err == OM_OK) {
		err = sq_wal_checkpoint(sq, SQLITE_CHECKPOINT_RESTART);
	}
	if (err == OM_OK && sq->wal_frames == 0) {
		err = wal_zero(sq, version, 0);
	}
	if (err == OM_ERR_DISK) {
		/* A full disk or a reader is no reason not to start: the log grows as it goes. */
		om_warn("store.log", "the log cannot be preallocated: %s", sq->st.why.text);
		err = OM_OK;
	}
	return err;
}

/*
 * Up to where frames may lie, 0: anywhere.  Those of a transaction that was given up are not in
 * wal_dirty: pages for which there was no room in memory, and what a failed commit has written.
 */
static sqlite3_int64
wal_dirty_end(const struct om_sqlite *sq, int spills)
{
	if (sq->wal_given_up || spills != sq->wal_spills) {
		return 0;
	}
	return WAL_HEAD + (sqlite3_int64)sq->wal_dirty * (WAL_PAGE + WAL_FRAME_HEAD);
}

enum om_err
sq_wal_wipe(struct om_sqlite *sq)
{
	int64_t version = 0;
	int spills = 0, most = 0;
	enum om_err err;

	OM_ASSERT(!sq->in_fold);
	(void)sqlite3_db_status(sq->db, SQLITE_DBSTATUS_CACHE_SPILL, &spills, &most, 0);
	if (sq->wal_dirty == 0 && wal_dirty_end(sq, spills) != 0) {
		return OM_OK;
	}
	(void)sqlite3_busy_timeout(sq->db, 0); /* nobody waits for a reader */
	err = sq_pragma_i64(sq, "PRAGMA data_version", &version);
	if (err == OM_OK) {
		err = sq_wal_checkpoint(sq, SQLITE_CHECKPOINT_RESTART);
	}
	(void)sqlite3_busy_timeout(sq->db, (int)sq->busy_ms);
	if (err == OM_OK && sq->wal_frames > 0) {
		err = sq_why(sq, OM_ERR_DISK, "%.100s: not all of the log is folded", sq->path);
	}
	if (err == OM_OK) {
		err = wal_zero(sq, version, wal_dirty_end(sq, spills));
	}
	if (err == OM_OK) {
		sq->wal_spills = spills;
		sq->wal_given_up = false;
	}
	return err;
}

enum om_err
sq_wal_maintain(struct om_sqlite *sq)
{
	int rc;

	if (sq->lent) {
		return OM_OK;
	}
	rc = sq->checkpoint_rc;
	sq->checkpoint_rc = SQLITE_OK;
	if (rc == SQLITE_OK && !sq->in_fold) {
		rc = sq_wal_maintain_raw(sq);
	}
	return rc == SQLITE_OK ? OM_OK : sq_fail(sq, rc, "checkpoint");
}

int
sq_wal_maintain_raw(struct om_sqlite *sq)
{
	return wal_bytes_used(sq) < sq->wal_bytes / 2
		   ? SQLITE_OK
		   : wal_checkpoint_raw(sq, SQLITE_CHECKPOINT_PASSIVE);
}
