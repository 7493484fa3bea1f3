/* SPDX-License-Identifier: ISC */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/assert.h"
#include "store/commit_log.h"

/*
 * 1. A group is written and synced before write returns.  If broken: something is
 *    acknowledged that a power cut takes away.
 * 2. Groups lie without a gap from the file's start.  A group that was written over another's place
 *    has another generation or index.  If broken: a read goes on into what is no more.
 * 3. The hash covers generation and index.  It finds accidents, not people: who can write this file
 *    can write the tables.
 */

#define GROUP_MAGIC UINT32_C(0x676c6d6f) /* "omlg" */
#define HASHED      32 /* of the head; the hash follows it */
#define PIECE_BYTES (64 << 10) /* SQLite's VFS takes less than 128 KiB a call */

static void
put_int(uint8_t *at, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++) {
		at[i] = (uint8_t)(v >> (8 * i));
	}
}

static uint64_t
get_int(const uint8_t *at, int bytes)
{
	uint64_t v = 0;

	for (int i = 0; i < bytes; i++) {
		v |= (uint64_t)at[i] << (8 * i);
	}
	return v;
}

static uint64_t
group_hash(const uint8_t *head, const uint8_t *body, size_t len)
{
	return XXH3_64bits_withSeed(body, len, XXH3_64bits(head, HASHED));
}

int
om_commit_log_open(struct om_commit_log *log, const char *vfs, const char *path, uint32_t format)
{
	sqlite3_vfs *v = sqlite3_vfs_find(vfs);
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_WAL;
	sqlite3_int64 size = 0;
	int rc;

	if (v == NULL) {
		return SQLITE_CANTOPEN;
	}
	log->format = format;
	log->file = calloc(1, (size_t)v->szOsFile);
	log->path = strdup(path);
	if (log->file == NULL || log->path == NULL) {
		return SQLITE_NOMEM;
	}
	/* As a log of SQLite's: with the mode and owner of the database, its folder synced with it. */
	rc = v->xOpen(v, log->path, log->file, flags, &flags);
	if (rc != SQLITE_OK) {
		log->file->pMethods = NULL;
		return rc;
	}
	rc = log->file->pMethods->xFileSize(log->file, &size);
	log->used = (uint64_t)size; /* what was in it before is not known */
	return rc;
}

void
om_commit_log_close(struct om_commit_log *log)
{
	if (log->file != NULL && log->file->pMethods != NULL) {
		(void)log->file->pMethods->xClose(log->file);
	}
	free(log->file);
	free(log->path);
	om_buf_fini(&log->body);
	memset(log, 0, sizeof(*log));
}

typedef int (*piece_fn)(sqlite3_file *, void *, int, sqlite3_int64);

static int
in_pieces(sqlite3_file *file, piece_fn fn, uint8_t *data, size_t len, uint64_t at)
{
	int rc = SQLITE_OK;

	while (rc == SQLITE_OK && len > 0) {
		const size_t n = len < PIECE_BYTES ? len : PIECE_BYTES;

		rc = fn(file, data, (int)n, (sqlite3_int64)at);
		data += n;
		len -= n;
		at += n;
	}
	return rc;
}

static int
write_piece(sqlite3_file *file, void *data, int len, sqlite3_int64 at)
{
	return file->pMethods->xWrite(file, data, len, at);
}

static int
read_piece(sqlite3_file *file, void *data, int len, sqlite3_int64 at)
{
	return file->pMethods->xRead(file, data, len, at);
}

void
om_commit_log_restart(struct om_commit_log *log, uint64_t generation)
{
	log->generation = generation;
	log->follows = 0;
	log->first = 0;
	log->count = 0;
	log->end = 0;
}

void
om_commit_log_follow(struct om_commit_log *log, uint64_t generation,
		     const struct om_commit_log *other)
{
	om_commit_log_restart(log, generation);
	log->follows = (uint32_t)other->generation;
	log->first = other->first + other->count;
}

void
om_commit_log_seal(const struct om_commit_log *log, struct om_buf *group)
{
	uint8_t *head = group->data;
	const size_t len = group->len - OM_COMMIT_LOG_HEAD;

	OM_ASSERT(group->len >= OM_COMMIT_LOG_HEAD && group->len <= INT32_MAX);
	put_int(head, GROUP_MAGIC, 4);
	put_int(head + 4, log->format, 4);
	put_int(head + 8, len, 4);
	put_int(head + 12, log->follows, 4);
	put_int(head + 16, log->generation, 8);
	put_int(head + 24, log->first + log->count, 8);
	put_int(head + HASHED, group_hash(head, head + OM_COMMIT_LOG_HEAD, len), 8);
}

int
om_commit_log_write(const struct om_commit_log *log, const struct om_buf *group)
{
	int rc = in_pieces(log->file, write_piece, group->data, group->len, log->end);

	if (rc == SQLITE_OK) {
		rc = log->file->pMethods->xSync(log->file,
						SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
	}
	return rc;
}

int
om_commit_log_written(struct om_commit_log *log, const struct om_buf *group, int rc)
{
	log->used = log->end + group->len > log->used ? log->end + group->len : log->used;
	if (rc == SQLITE_OK) {
		log->end += group->len;
		log->count++;
	}
	return rc;
}

/* The head of a group at the log's end.  *left: bytes behind it.  *there false: there is none. */
static int
head_read(struct om_commit_log *log, uint8_t head[OM_COMMIT_LOG_HEAD], uint64_t *left, bool *there)
{
	sqlite3_int64 size = 0;
	int rc;

	*there = false;
	rc = log->file->pMethods->xFileSize(log->file, &size);
	if (rc != SQLITE_OK || log->end + OM_COMMIT_LOG_HEAD > (uint64_t)size) {
		return rc;
	}
	*left = (uint64_t)size - log->end - OM_COMMIT_LOG_HEAD;
	rc = log->file->pMethods->xRead(log->file, head, OM_COMMIT_LOG_HEAD,
					(sqlite3_int64)log->end);
	*there = rc == SQLITE_OK && get_int(head, 4) == GROUP_MAGIC;
	return rc;
}

/* Is it the next group of the log's generation?  The first one says where that begins. */
static bool
head_is_next(struct om_commit_log *log, const uint8_t head[OM_COMMIT_LOG_HEAD])
{
	if (get_int(head + 16, 8) != log->generation) {
		return false;
	}
	if (log->count == 0) {
		log->first = get_int(head + 24, 8);
		log->follows = (uint32_t)get_int(head + 12, 4);
	}
	return get_int(head + 24, 8) == log->first + log->count;
}

/* The group at the log's end into log->body.  *there false: there is none. */
static int
group_read(struct om_commit_log *log, bool *there)
{
	uint8_t head[OM_COMMIT_LOG_HEAD];
	uint64_t len, left = 0;
	int rc;

	rc = head_read(log, head, &left, there);
	if (rc != SQLITE_OK || !*there) {
		return rc;
	}
	*there = false;
	len = get_int(head + 8, 4);
	if (!head_is_next(log, head) || len > INT32_MAX || len > left) {
		return SQLITE_OK;
	}
	om_buf_reset(&log->body);
	if (om_buf_reserve(&log->body, (size_t)len) != OM_OK) {
		return SQLITE_NOMEM;
	}
	rc = in_pieces(log->file, read_piece, log->body.data, (size_t)len, log->end + sizeof(head));
	if (rc != SQLITE_OK) {
		return rc;
	}
	log->body.len = (size_t)len;
	if (get_int(head + HASHED, 8) != group_hash(head, log->body.data, log->body.len)) {
		return SQLITE_OK;
	}
	log->other_format = get_int(head + 4, 4) != log->format;
	*there = !log->other_format;
	return SQLITE_OK;
}

int
om_commit_log_read(struct om_commit_log *log, uint64_t generation, uint64_t limit,
		   om_commit_log_fn fn, void *arg)
{
	bool there = true, go_on = true;
	int rc;

	om_commit_log_restart(log, generation);
	log->other_format = false;
	while (log->count < limit && go_on) {
		rc = group_read(log, &there);
		if (rc != SQLITE_OK || !there) {
			return rc;
		}
		go_on = fn(arg, (struct om_bin){ log->body.data, log->body.len });
		log->end += OM_COMMIT_LOG_HEAD + log->body.len;
		log->count++;
		log->used = log->end > log->used ? log->end : log->used;
	}
	return SQLITE_OK;
}

int
om_commit_log_follower(struct om_commit_log *log, const struct om_commit_log *other,
		       uint64_t *generation)
{
	uint8_t head[OM_COMMIT_LOG_HEAD];
	uint64_t left = 0;
	bool there = false;
	int rc;

	om_commit_log_restart(log, 0);
	rc = head_read(log, head, &left, &there);
	there = there && get_int(head + 12, 4) == (uint32_t)other->generation;
	*generation = there ? get_int(head + 16, 8) : 0;
	return rc;
}

int
om_file_zero(sqlite3_file *file, sqlite3_int64 from, sqlite3_int64 to)
{
	uint8_t *zeros = calloc(1, PIECE_BYTES);
	int rc = zeros == NULL ? SQLITE_NOMEM : SQLITE_OK;

	while (rc == SQLITE_OK && from < to) {
		const sqlite3_int64 left = to - from;
		const int n = left < PIECE_BYTES ? (int)left : PIECE_BYTES;

		rc = file->pMethods->xWrite(file, zeros, n, from);
		from += n;
	}
	if (rc == SQLITE_OK) {
		rc = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
	}
	free(zeros);
	return rc;
}

int
om_commit_log_wipe(struct om_commit_log *log, uint64_t bytes)
{
	const uint64_t to = log->used > bytes ? log->used : bytes;
	int rc;

	OM_ASSERT(log->count == 0);
	if (to == 0) {
		return SQLITE_OK;
	}
	rc = om_file_zero(log->file, 0, (sqlite3_int64)to);
	if (rc == SQLITE_OK && bytes > 0 && to > bytes) {
		/* A group was larger than all of it: not again at every start. */
		rc = log->file->pMethods->xTruncate(log->file, (sqlite3_int64)bytes);
	}
	if (rc == SQLITE_OK) {
		log->used = 0;
	}
	return rc;
}
