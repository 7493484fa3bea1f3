/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_STORE_FAULT_VFS_H
#define OM_TESTS_STORE_FAULT_VFS_H

/*
 * A disk that fails when it is told to: an SQLite VFS over the system's own.  Operations that
 * change the disk are counted; number `at` (from 1) fails with `rc`, and all after it too when
 * `stays` is set.  Only those in `ops` are counted.  One operation at a time: the store has a thread of
 * its own.  An operation can also be held until the test lets it go: the disk takes its time.
 */
#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FAULT_WRITE = 1, FAULT_SYNC = 2, FAULT_TRUNCATE = 4, FAULT_READ = 8 };

/* Of all operations that fail in turn. ThreadSanitizer makes a test twenty times as long, and looks for races. */
#ifdef __SANITIZE_THREAD__
#define FAULT_STEP 5
#else
#define FAULT_STEP 1
#endif

static struct {
	int ops, at, rc;
	int stays;
	const char *end; /* of the file's name; NULL: of any */
	int seen, failed;
} fault;

#define HOLD_S 60 /* a test that waits longer has failed */

/* Number `at` (0: none, they are counted) of these operations on this file is held. */
static struct {
	const char *end; /* NULL: on no file */
	int ops, at, seen;
	int there; /* it is held now */
	int others; /* of those seen: not by the thread that asked for it */
	pthread_t by;
} hold;
static pthread_cond_t hold_changed = PTHREAD_COND_INITIALIZER;

/* A write that no fsync has followed: what was there before. */
struct fault_undo {
	struct fault_undo *next;
	sqlite3_int64 at, size; /* size: of the file before */
	int len, had; /* had: bytes of old content */
	char old[];
};

struct fault_file {
	sqlite3_file base;
	sqlite3_file *real;
	const char *name; /* NULL: it has none */
	struct fault_file *next;
	struct fault_undo *undo; /* the newest first */
};

static struct fault_file *fault_files;
static int fault_track; /* keep what power_cut needs */

static pthread_mutex_t fault_lock =
    PTHREAD_MUTEX_INITIALIZER; /* of all above, while a store is open */

static sqlite3_vfs fault_vfs;
static sqlite3_vfs *fault_real;

static inline void
fault_set(int ops, int at, int rc, int stays)
{
	(void)pthread_mutex_lock(&fault_lock);
	memset(&fault, 0, sizeof(fault));
	fault.ops = ops;
	fault.at = at;
	fault.rc = rc;
	fault.stays = stays;
	(void)pthread_mutex_unlock(&fault_lock);
}

/* The count as it is now: the store's own thread may be at work. */
static inline int
fault_count(const int *count)
{
	int n;

	(void)pthread_mutex_lock(&fault_lock);
	n = *count;
	(void)pthread_mutex_unlock(&fault_lock);
	return n;
}

static inline int
fault_failed(void)
{
	return fault_count(&fault.failed);
}

static inline void
fault_clear(void)
{
	fault_set(0, 0, 0, 0);
}

/* As fault_set, of one file. */
static inline void
fault_set_on(const char *end, int ops, int at, int rc, int stays)
{
	fault_set(ops, at, rc, stays);
	(void)pthread_mutex_lock(&fault_lock);
	fault.end = end;
	(void)pthread_mutex_unlock(&fault_lock);
}

static inline int
fault_is(const struct fault_file *file, const char *end)
{
	const size_t len = file->name == NULL ? 0 : strlen(file->name), n = strlen(end);

	return len >= n && strcmp(file->name + len - n, end) == 0;
}

static inline int
fault_hits(const struct fault_file *file, int op)
{
	if ((fault.ops & op) == 0 || (fault.end != NULL && !fault_is(file, fault.end))) {
		return 0;
	}
	fault.seen++;
	if (fault.seen == fault.at || (fault.stays && fault.seen > fault.at)) {
		fault.failed++;
		return 1;
	}
	return 0;
}

/* --- what is held ------------------------------------------------------------------------------- */

static inline void
hold_set(const char *end, int ops, int at)
{
	(void)pthread_mutex_lock(&fault_lock);
	memset(&hold, 0, sizeof(hold));
	hold.end = end;
	hold.ops = ops;
	hold.at = at;
	hold.by = pthread_self();
	(void)pthread_mutex_unlock(&fault_lock);
}

/* The lock is held.  Until it is (is not) so. */
static inline void
hold_wait(const int *what, int is)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += HOLD_S;
	while ((*what != 0) != is) {
		if (pthread_cond_timedwait(&hold_changed, &fault_lock, &until) == ETIMEDOUT) {
			abort();
		}
	}
}

/* It has come there. */
static inline void
hold_reached(void)
{
	(void)pthread_mutex_lock(&fault_lock);
	hold_wait(&hold.there, 1);
	(void)pthread_mutex_unlock(&fault_lock);
}

/* Lets it go, if it is there.  How many were seen by then. */
static inline int
hold_let_go(void)
{
	int seen;

	(void)pthread_mutex_lock(&fault_lock);
	seen = hold.seen;
	hold.end = NULL;
	hold.there = 0;
	(void)pthread_cond_broadcast(&hold_changed);
	(void)pthread_mutex_unlock(&fault_lock);
	return seen;
}

/* The lock is held. */
static void
hold_here(const struct fault_file *file, int op)
{
	if (hold.end == NULL || (hold.ops & op) == 0 || !fault_is(file, hold.end)) {
		return;
	}
	hold.others += !pthread_equal(hold.by, pthread_self());
	if (++hold.seen == hold.at) {
		hold.there = 1;
		(void)pthread_cond_broadcast(&hold_changed);
		hold_wait(&hold.there, 0);
	}
}

/* --- the files ---------------------------------------------------------------------------------- */

#define FAULT_REAL(f) (((struct fault_file *)(void *)(f))->real)
#define FAULT_PASS(ret, name, args, pass)                  \
	static ret fault_##name args                       \
	{                                                  \
		return FAULT_REAL(f)->pMethods->name pass; \
	}

FAULT_PASS(int, xFileSize, (sqlite3_file * f, sqlite3_int64 *n), (FAULT_REAL(f), n))
FAULT_PASS(int, xLock, (sqlite3_file * f, int l), (FAULT_REAL(f), l))
FAULT_PASS(int, xUnlock, (sqlite3_file * f, int l), (FAULT_REAL(f), l))
FAULT_PASS(int, xCheckReservedLock, (sqlite3_file * f, int *r), (FAULT_REAL(f), r))
FAULT_PASS(int, xFileControl, (sqlite3_file * f, int op, void *a), (FAULT_REAL(f), op, a))
FAULT_PASS(int, xSectorSize, (sqlite3_file * f), (FAULT_REAL(f)))
FAULT_PASS(int, xDeviceCharacteristics, (sqlite3_file * f), (FAULT_REAL(f)))
FAULT_PASS(int, xShmMap, (sqlite3_file * f, int p, int s, int e, void volatile **o),
	   (FAULT_REAL(f), p, s, e, o))
FAULT_PASS(int, xShmLock, (sqlite3_file * f, int o, int n, int fl), (FAULT_REAL(f), o, n, fl))
FAULT_PASS(int, xShmUnmap, (sqlite3_file * f, int d), (FAULT_REAL(f), d))

static void
fault_forget(struct fault_file *file)
{
	struct fault_undo *u;

	while ((u = file->undo) != NULL) {
		file->undo = u->next;
		free(u);
	}
}

static int
fault_xClose(sqlite3_file *f)
{
	struct fault_file *file = (struct fault_file *)(void *)f, **at = &fault_files;

	while (*at != NULL && *at != file) {
		at = &(*at)->next;
	}
	if (*at != NULL) {
		*at = file->next;
	}
	fault_forget(file);
	return file->real->pMethods->xClose(file->real);
}

/* Remembers what a write or a truncation is about to destroy. */
static void
fault_remember(sqlite3_file *f, sqlite3_int64 at, int len)
{
	struct fault_file *file = (struct fault_file *)(void *)f;
	struct fault_undo *u;

	if (!fault_track) {
		return;
	}
	u = malloc(sizeof(*u) + (size_t)len);
	if (u == NULL) {
		abort();
	}
	u->at = at;
	u->len = len;
	(void)file->real->pMethods->xFileSize(file->real, &u->size);
	u->had = u->size <= at ? 0 : u->size - at < len ? (int)(u->size - at) : len;
	if (u->had > 0 &&
	    file->real->pMethods->xRead(file->real, u->old, u->had, at) != SQLITE_OK) {
		abort();
	}
	u->next = file->undo;
	file->undo = u;
}

/*
 * The power fails: of the writes that no fsync has followed, any may have reached the disk and any
 * may not, in any order.  `keep` decides for each.  Truncations that were not synced are undone.
 */
static inline void
fault_power_cut(int (*keep)(void *arg), void *arg)
{
	struct fault_file *file;
	struct fault_undo *u;

	for (file = fault_files; file != NULL; file = file->next) {
		sqlite3_int64 size;

		for (u = file->undo; u != NULL; u = u->next) {
			if (u->len > 0 && keep(arg)) {
				continue;
			}
			if (u->had > 0) {
				(void)file->real->pMethods->xWrite(file->real, u->old, u->had,
								   u->at);
			}
			(void)file->real->pMethods->xFileSize(file->real, &size);
			if (u->len > 0 && u->had < u->len && u->at + u->len >= size) {
				(void)file->real->pMethods->xTruncate(
				    file->real, u->size > u->at ? u->size : u->at);
			}
		}
		fault_forget(file);
	}
}

static void
fault_xShmBarrier(sqlite3_file *f)
{
	FAULT_REAL(f)->pMethods->xShmBarrier(FAULT_REAL(f));
}

/* The code that the operation fails with, SQLITE_OK: it goes on, under the lock. */
static int
fault_enter(sqlite3_file *f, int op)
{
	const struct fault_file *file = (const struct fault_file *)(void *)f;

	(void)pthread_mutex_lock(&fault_lock);
	hold_here(file, op);
	return fault_hits(file, op) ? fault.rc : SQLITE_OK;
}

static int
fault_leave(int rc)
{
	(void)pthread_mutex_unlock(&fault_lock);
	return rc;
}

static int
fault_xRead(sqlite3_file *f, void *data, int n, sqlite3_int64 at)
{
	const int rc = fault_enter(f, FAULT_READ);

	return fault_leave(
	    rc != SQLITE_OK ? rc : FAULT_REAL(f)->pMethods->xRead(FAULT_REAL(f), data, n, at));
}

static int
fault_xWrite(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
	const int rc = fault_enter(f, FAULT_WRITE);

	if (rc != SQLITE_OK) {
		/* A write that fails has often written a part. */
		(void)FAULT_REAL(f)->pMethods->xWrite(FAULT_REAL(f), data, n / 2, at);
		return fault_leave(rc);
	}
	fault_remember(f, at, n);
	return fault_leave(FAULT_REAL(f)->pMethods->xWrite(FAULT_REAL(f), data, n, at));
}

static int
fault_xTruncate(sqlite3_file *f, sqlite3_int64 n)
{
	const int rc = fault_enter(f, FAULT_TRUNCATE);

	return fault_leave(rc != SQLITE_OK ? rc
					   : FAULT_REAL(f)->pMethods->xTruncate(FAULT_REAL(f), n));
}

static int
fault_xSync(sqlite3_file *f, int flags)
{
	const int rc = fault_enter(f, FAULT_SYNC);

	if (rc != SQLITE_OK) {
		return fault_leave(rc);
	}
	fault_forget((struct fault_file *)(void *)f);
	return fault_leave(FAULT_REAL(f)->pMethods->xSync(FAULT_REAL(f), flags));
}

static const sqlite3_io_methods fault_io = {
	.iVersion = 2,
	.xClose = fault_xClose,
	.xRead = fault_xRead,
	.xWrite = fault_xWrite,
	.xTruncate = fault_xTruncate,
	.xSync = fault_xSync,
	.xFileSize = fault_xFileSize,
	.xLock = fault_xLock,
	.xUnlock = fault_xUnlock,
	.xCheckReservedLock = fault_xCheckReservedLock,
	.xFileControl = fault_xFileControl,
	.xSectorSize = fault_xSectorSize,
	.xDeviceCharacteristics = fault_xDeviceCharacteristics,
	.xShmMap = fault_xShmMap,
	.xShmLock = fault_xShmLock,
	.xShmBarrier = fault_xShmBarrier,
	.xShmUnmap = fault_xShmUnmap,
};

static int
fault_xOpen(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags, int *out)
{
	struct fault_file *file = (struct fault_file *)(void *)f;
	int rc;

	(void)vfs;
	file->real = (sqlite3_file *)(void *)(file + 1);
	rc = fault_real->xOpen(fault_real, name, file->real, flags, out);
	file->base.pMethods = file->real->pMethods == NULL ? NULL : &fault_io;
	file->undo = NULL;
	file->name = name;
	file->next = NULL;
	if (file->base.pMethods != NULL) {
		file->next = fault_files;
		fault_files = file;
	}
	return rc;
}

/* Registers the VFS "fault". */
static inline void
fault_install(void)
{
	fault_real = sqlite3_vfs_find(NULL);
	fault_vfs = *fault_real; /* what is not about files goes to the real one's functions */
	fault_vfs.pNext = NULL;
	fault_vfs.zName = "fault";
	fault_vfs.szOsFile = (int)sizeof(struct fault_file) + fault_real->szOsFile;
	fault_vfs.xOpen = fault_xOpen;
	(void)sqlite3_vfs_register(&fault_vfs, 0);
}

/* The same without SQLite's many locks, which take long under ThreadSanitizer: one thread at a time is inside. */
static inline void
fault_alone(void)
{
	if (sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) != SQLITE_OK ||
	    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK) { /* as the store's own */
		abort();
	}
	fault_install();
}

#endif /* OM_TESTS_STORE_FAULT_VFS_H */
