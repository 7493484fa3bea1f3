/* SPDX-License-Identifier: ISC */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "store/sqlite_impl.h"

/*
 * The embedded store: opening, closing, and what an SQLite result code means to us.
 *
 * 1. One process writes: a lock file beside the database sees to it, so a commit never waits for
 *    another writer (a person with the sqlite3 shell apart, who gets busy_ms).
 * 2. A group is on the disk when its commit returned: in the commit log (sqlite_log.c), and with the
 *    next fold in the tables: SQLite's own log, synchronous=FULL.
 * 3. The file holds scripts and their environment: it is made 0600, and the log beside it inherits
 *    that.
 */

#define SQ_WAL_BYTES (UINT64_C(16) << 20)
/* Some 6,000 submits: what a fold writes at once, and a start reads after a power cut, stays small. */
#define SQ_LOG_BYTES (UINT64_C(4) << 20)
#define SQ_CACHE_KIB (UINT32_C(64) << 10)
#define SQ_BUSY_MS   2000
/* Files up to this size are read through at the open; `check` does it for larger ones. */
#define SQ_QUICK_CHECK_BYTES (INT64_C(64) << 20)

const struct om_store_ops sq_ops;

enum om_err
sq_why(struct om_sqlite *sq, enum om_err err, const char *fmt, ...)
{
	va_list va;

	va_start(va, fmt);
	(void)vsnprintf(sq->st.why.text, sizeof(sq->st.why.text), fmt, va);
	va_end(va);
	return err;
}

enum om_err
sq_err_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
	case SQLITE_NOLFS:
		return OM_ERR_DISK;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return OM_ERR_CORRUPT;
	case SQLITE_NOMEM:
		return OM_ERR_NOMEM;
	case SQLITE_TOOBIG:
		return OM_ERR_TOO_BIG;
	default:
		return OM_ERR_INTERNAL;
	}
}

enum om_err
sq_fail(struct om_sqlite *sq, int rc, const char *what)
{
	OM_ASSERT(!sq->lent);
	const bool is_its = sq->db != NULL && sqlite3_extended_errcode(sq->db) == rc;
	const int sys = is_its ? sqlite3_system_errno(sq->db) : 0;
	const bool show_sys =
	    sys != 0 && ((rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN);
	const enum om_err err = sq_err_of(rc);

	(void)sq_why(sq, err, "%.100s: %.60s: %s%s%s", sq->path, what,
		     is_its ? sqlite3_errmsg(sq->db) : sqlite3_errstr(rc), show_sys ? ": " : "",
		     show_sys ? strerror(sys) : "");
	if (sq->in_tx && sq->doomed == OM_OK) {
		sq->doomed = err;
	}
	/* SQLite rolls back by itself after most failures of the disk. */
	if (sq->in_fold && sqlite3_get_autocommit(sq->db) != 0) {
		sq_lost(sq);
	}
	return err;
}

enum om_err
sq_writable(struct om_sqlite *sq)
{
	OM_ASSERT(sq->in_tx);
	return sq->doomed; /* st.why still has its reason */
}

static int
sq_on_wal(void *arg, sqlite3 *db, const char *name, int frames)
{
	struct om_sqlite *sq = arg;

	(void)db;
	(void)name;
	sq->wal_frames = frames < 0 ? 0 : (uint32_t)frames;
	sq->wal_dirty = sq->wal_frames > sq->wal_dirty ? sq->wal_frames : sq->wal_dirty;
	return SQLITE_OK;
}

static enum om_err
sq_configure(struct om_sqlite *sq)
{
	char sql[512];
	int keep_wal = 1;

	(void)snprintf(
	    sql, sizeof(sql),
	    "PRAGMA trusted_schema=OFF; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-%" PRIu32 ";",
	    sq->cache_kib);
	if (sq->read_only) {
		return sq_exec(sq, sql);
	}
	(void)sqlite3_file_control(sq->db, "main", SQLITE_FCNTL_PERSIST_WAL, &keep_wal);
	(void)snprintf(
	    sql + strlen(sql), sizeof(sql) - strlen(sql),
	    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;"
	    "PRAGMA secure_delete=ON; PRAGMA journal_size_limit=%" PRIu64 ";",
	    sq->wal_bytes);
	return sq_exec(sq, sql);
}

enum om_err
sq_connect(struct om_sqlite *sq)
{
	const int flags = sq->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
	enum om_err err;
	int rc;

	rc = sqlite3_open_v2(sq->path, &sq->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
			     sq->vfs);
	if (rc != SQLITE_OK) {
		return sq_fail(sq, rc, "open");
	}
	(void)sqlite3_busy_timeout(sq->db, (int)sq->busy_ms);
	err = sq_configure(sq);
	if (err == OM_OK) {
		(void)sqlite3_wal_hook(sq->db, sq_on_wal, sq);
		err = sq_schema_open(sq);
	}
	if (err == OM_OK && !sq->read_only) {
		err = sq_wal_open(sq);
	}
	if (err == OM_OK && !sq->read_only) {
		err = sq_log_attach(sq);
	}
	if (err == OM_OK) {
		err = sq_cached_load(sq);
	}
	if (err == OM_OK && !sq->read_only) {
		err = sq_ids_load(sq);
	}
	return err;
}

void
sq_disconnect(struct om_sqlite *sq)
{
	sq_finalize_all(sq);
	/* Folds the log into the file; what cannot be folded stays in the log and is as safe. */
	(void)sqlite3_close_v2(sq->db);
	sq->db = NULL;
}

/* The file and its lock, before SQLite looks at it. */
static enum om_err
sq_claim(struct om_sqlite *sq)
{
	char lock[4096];
	int fd, n;

	n = snprintf(lock, sizeof(lock), "%s.lock", sq->path);
	if (n < 0 || (size_t)n >= sizeof(lock)) {
		return sq_why(sq, OM_ERR_INVALID, "%.60s...: the path is too long", sq->path);
	}
	sq->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (sq->lock_fd < 0) {
		return sq_why(sq, OM_ERR_DISK, "%s: %s", lock, strerror(errno));
	}
	if (flock(sq->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		return sq_why(sq, OM_ERR_STATE, "%s: another process has it open", sq->path);
	}
	/* Closed before SQLite opens it: a later close would drop SQLite's own locks. */
	fd = open(sq->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		return sq_why(sq, OM_ERR_DISK, "%s: %s", sq->path, strerror(errno));
	}
	(void)close(fd);
	return OM_OK;
}

enum om_err
sq_reconnect(struct om_sqlite *sq)
{
	enum om_err err;

	OM_ASSERT(sq->unusable && !sq->in_tx);
	sq_disconnect(sq);
	sq->in_fold = false;
	sq->unusable = false;
	err = sq_connect(sq);
	if (err != OM_OK) {
		sq->unusable = true;
	}
	return err;
}

static enum om_err
sq_quick_check(struct om_sqlite *sq)
{
	sqlite3_stmt *s = NULL;
	struct stat info;
	enum om_err err;
	bool row;
	int rc;

	if (stat(sq->path, &info) == 0 && info.st_size > SQ_QUICK_CHECK_BYTES) {
		return OM_OK;
	}
	rc = sqlite3_prepare_v2(sq->db, "PRAGMA quick_check(1)", -1, &s, NULL);
	if (rc != SQLITE_OK) {
		return sq_fail(sq, rc, "check");
	}
	err = sq_step(sq, s, &row, "check");
	if (err == OM_OK && (!row || !om_str_is(sq_col_str(s, 0), "ok"))) {
		err =
		    sq_why(sq, OM_ERR_CORRUPT, "%s: %.*s", sq->path, OM_STR_ARG(sq_col_str(s, 0)));
	}
	(void)sqlite3_finalize(s);
	return err;
}

static void
sq_close(struct om_store *st)
{
	struct om_sqlite *sq = sq_of(st);

	if (sq->db != NULL) {
		sq_rollback(st);
		/* What cannot be folded stays in the log, as safe, for the next open. */
		if (sq->log[0].file != NULL) {
			(void)!sq_fold(sq);
		}
		sq_recall(sq);
		sq_disconnect(sq);
	}
	sq_log_close(sq);
	sq_applier_free(sq->applier);
	om_buf_fini(&sq->group);
	om_buf_fini(&sq->wait);
	sq_flight_fini(&sq->flight);
	om_buf_fini(&sq->pack);
	om_buf_fini(&sq->json);
	om_hasher_free(sq->hasher);
	sq_rows_free(sq->rows);
	om_id_filter_free(sq->ids);
	if (sq->lock_fd >= 0) {
		(void)close(sq->lock_fd);
	}
	free(sq->path);
	free(sq->vfs);
	sq->magic = 0;
	free(sq);
}

static struct om_sqlite *
sq_new(const struct om_sqlite_conf *conf)
{
	struct om_sqlite *sq = calloc(1, sizeof(*sq));

	if (sq == NULL) {
		return NULL;
	}
	sq->st.ops = &sq_ops;
	sq->magic = SQ_MAGIC;
	sq->lock_fd = -1;
	sq_flight_init(&sq->flight);
	sq->read_only = conf->read_only;
	sq->wal_bytes = conf->wal_bytes != 0 ? conf->wal_bytes : SQ_WAL_BYTES;
	sq->log_bytes = conf->log_bytes != 0 ? conf->log_bytes : SQ_LOG_BYTES;
	sq->cache_kib = conf->cache_kib != 0 ? conf->cache_kib : SQ_CACHE_KIB;
	sq->busy_ms = conf->busy_ms != 0 ? conf->busy_ms : SQ_BUSY_MS;
	sq->path = strdup(conf->path);
	sq->vfs = conf->vfs == NULL ? NULL : strdup(conf->vfs);
	sq->hasher = om_hasher_new();
	sq->rows = conf->read_only ? NULL : sq_rows_new();
	sq->ids = conf->read_only ? NULL : om_id_filter_new();
	sq->applier = conf->read_only ? NULL : sq_applier_new(sq);
	if (sq->path == NULL || (conf->vfs != NULL && sq->vfs == NULL) || sq->hasher == NULL ||
	    (!conf->read_only && (sq->rows == NULL || sq->ids == NULL || sq->applier == NULL))) {
		sq_close(&sq->st);
		return NULL;
	}
	return sq;
}

/* Nobody reads SQLite's own memory statistics, and counting takes a lock at every allocation. */
static void
sq_configure_library(void)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* refused when somebody was here first */
}

enum om_err
om_sqlite_open(const struct om_sqlite_conf *conf, struct om_store **out, struct om_why *why)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct om_sqlite *sq;
	enum om_err err;

	*out = NULL;
	(void)pthread_once(&once, sq_configure_library);
	sq = sq_new(conf);
	if (sq == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "open the store: out of memory");
	}
	err = conf->read_only ? OM_OK : sq_claim(sq);
	if (err == OM_OK) {
		err = sq_connect(sq);
	}
	if (err == OM_OK && !conf->skip_check) {
		err = sq_quick_check(sq);
	}
	if (err == OM_OK && !conf->read_only && sq_log_clean(sq, sq->log_bytes) != OM_OK) {
		/* A full disk is no reason not to start: the next group tries again. */
		om_warn("store.log", "the commit log cannot be written: %s", sq->st.why.text);
	}
	if (err != OM_OK) {
		err = om_why_set(why, err, "%s", sq->st.why.text);
		sq_log_close(sq); /* nobody folds it into what is not as it should be */
		sq_close(&sq->st);
		return err;
	}
	*out = &sq->st;
	return OM_OK;
}

const struct om_store_ops sq_ops = {
	.engine = "sqlite",
	.close = sq_close,
	.begin = sq_begin,
	.commit_start = sq_commit_start,
	.commit_write = sq_commit_write,
	.commit_end = sq_commit_end,
	.rollback = sq_rollback,
	.maintain = sq_maintain,
	.fold = sq_fold_op,
	.wipe = sq_wipe,
	.check = sq_check,
	.stat = sq_stat,
	.job_put = sq_job_put,
	.job_move = sq_job_move,
	.job_place = sq_job_place,
	.job_get = sq_job_get,
	.job_find = sq_job_find,
	.job_list = sq_job_list,
	.job_spec = sq_job_spec,
	.job_spec_set = sq_job_spec_set,
	.job_after = sq_job_after,
	.counts = sq_counts,
	.counts_since = sq_counts_since,
	.ran_since = sq_ran_since,
	.output_append = sq_output_append,
	.output_read = sq_output_read,
	.output_list = sq_output_list,
	.entry_put = sq_entry_put,
	.entry_del = sq_entry_del,
	.entry_get = sq_entry_get,
	.entry_each = sq_entry_each,
	.audit_append = sq_audit_append,
	.audit_each = sq_audit_each,
	.audit_head = sq_audit_head,
	.audit_verify = sq_audit_verify,
	.purge = sq_purge,
	.job_remove = sq_job_remove,
};
