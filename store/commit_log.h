/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_COMMIT_LOG_H
#define OM_STORE_COMMIT_LOG_H

/*
 * A file of groups, each on the disk when its write returned.  It lies in front of the tables: a
 * group costs one write and one sync, and the tables follow (store/sqlite_log.c).
 *
 * The groups from the file's start on belong to one generation, a random number; the tables say
 * which one continues them.  When the tables have taken them all in, they say so with another number,
 * and the file is written from its start again: what an older generation left in it counts no more.
 *
 * While the tables take a generation in, the next one is written to another file.  Its groups say which
 * one it follows, and go on counting; so whoever finds the tables as they were before reads both.
 *
 * A group: magic, format, bytes of its body, the low half of the generation before (0: none),
 * generation, index, the XXH3 of the body seeded with that of the head before it
 * (https://github.com/Cyan4973/xxHash); then the body.  Integers little-endian.  A torn or old group
 * fails that hash, and is the end.
 *
 * All functions but write: owner thread.  Results are SQLite's codes: the file is reached through an SQLite
 * VFS, so that a test's disk is everybody's disk.
 */
#include <sqlite3.h>
#include "base/buf.h"

#define OM_COMMIT_LOG_HEAD 40 /* bytes that a group leaves free at its start */

struct om_commit_log {
	sqlite3_file *file;
	char *path;
	uint32_t format; /* of the bodies: groups of another are not read */
	uint64_t generation, count, end; /* count groups, the next one is written at end */
	uint64_t first; /* index of the generation's first group */
	uint32_t follows; /* low half of the generation before, 0: none */
	uint64_t used; /* the most bytes that were written since it was zeros */
	bool other_format; /* read met a group of this generation that this program does not know */
	struct om_buf body; /* what read gives */
};

/* Makes the file beside a database (vfs NULL: the default).  log: zeros.  close after a failure too. */
int om_commit_log_open(struct om_commit_log *log, const char *vfs, const char *path,
		       uint32_t format) OM_MUST_CHECK;
void om_commit_log_close(struct om_commit_log *log);

/* The next group is the first of that generation, which follows nothing. */
void om_commit_log_restart(struct om_commit_log *log, uint64_t generation);
/* The same; it follows what the other log has, of which no more groups come. */
void om_commit_log_follow(struct om_commit_log *log, uint64_t generation,
			  const struct om_commit_log *other);

/*
 * A group: OM_COMMIT_LOG_HEAD bytes for us, then its body; appended in three steps.  The second one may be
 * any thread's, while the owner leaves the log and the group alone; it gives what the third one takes,
 * and returns.  After a failure it is not known whether the group is on the disk: nothing may be
 * appended before the next restart.
 */
void om_commit_log_seal(const struct om_commit_log *log, struct om_buf *group);
int om_commit_log_write(const struct om_commit_log *log, const struct om_buf *group) OM_MUST_CHECK;
int om_commit_log_written(struct om_commit_log *log, const struct om_buf *group, int rc);

/* false: stop. */
typedef bool (*om_commit_log_fn)(void *arg, struct om_bin body);

/*
 * The groups of the generation in order, at most limit; leaves the log after the last one that was
 * given.  Its first group says what it follows.  Stops without an error at the first that is none.  SQLITE_NOMEM, or what reading gave.
 */
int om_commit_log_read(struct om_commit_log *log, uint64_t generation, uint64_t limit,
		       om_commit_log_fn fn, void *arg) OM_MUST_CHECK;

/* *generation: the one in this log that follows that of the other one, 0: none. */
int om_commit_log_follower(struct om_commit_log *log, const struct om_commit_log *other,
			   uint64_t *generation) OM_MUST_CHECK;

/*
 * Zeros over all that was written, and a sync.  The log must be empty.  bytes, unless 0: what the file
 * is long afterwards.
 */
int om_commit_log_wipe(struct om_commit_log *log, uint64_t bytes) OM_MUST_CHECK;

/* Zeros from `from` to `to`, and a sync: of any file. */
int om_file_zero(sqlite3_file *file, sqlite3_int64 from, sqlite3_int64 to) OM_MUST_CHECK;

#endif /* OM_STORE_COMMIT_LOG_H */
