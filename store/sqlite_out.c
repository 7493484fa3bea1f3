/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "store/sqlite_param.h"

/*
 * Output: streams and files of a job, each a run of chunks without gaps.  The size lives in the
 * stream's row and grows in the transaction that adds the chunk.
 */

#define OUT_FILE_PREFIX "file:"
#define OUT_STORED_MAX  (sizeof(OUT_FILE_PREFIX) + OM_OUT_NAME_MAX)

static const char *const out_streams[OM_OUT_FILE] = {
	[OM_OUT_STDOUT] = "stdout",       [OM_OUT_STDERR] = "stderr",
	[OM_OUT_EVIDENCE] = "evidence",   [OM_OUT_MISSING] = "missing",
	[OM_OUT_TRUNCATED] = "truncated",
};

/* How an output is named in the table: "stdout", "stderr", "evidence", "missing", "truncated", "file:NAME". */
static enum om_err
out_name(struct om_sqlite *sq, struct om_out_ref ref, char out[OUT_STORED_MAX])
{
	if (ref.kind != OM_OUT_FILE) {
		(void)snprintf(out, OUT_STORED_MAX, "%s", out_streams[ref.kind]);
		return OM_OK;
	}
	if (ref.name.len == 0 || ref.name.len > OM_OUT_NAME_MAX ||
	    memchr(ref.name.ptr, '\0', ref.name.len) != NULL) {
		return sq_why(sq, OM_ERR_INVALID, "an output file's name has 1 to %d bytes, no NUL",
			      OM_OUT_NAME_MAX);
	}
	(void)snprintf(out, OUT_STORED_MAX, OUT_FILE_PREFIX "%.*s", OM_STR_ARG(ref.name));
	return OM_OK;
}

/* *id 0: there is none. */
static enum om_err
out_find(struct om_sqlite *sq, int64_t job, const char *name, int64_t *id, uint64_t *size)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found;

	*id = 0;
	*size = 0;
	s = sq_stmt(sq, SQ_STREAM_GET, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, job);
	sq_bind_text(s, 2, name);
	err = sq_step(sq, s, &found, "read an output");
	if (err == OM_OK && found) {
		*id = sqlite3_column_int64(s, 0);
		*size = sq_col_u64(s, 1);
	}
	(void)sqlite3_reset(s);
	return err;
}

static enum om_err
out_make(struct om_sqlite *sq, const struct om_job_id *id, int64_t job, const char *name,
	 int64_t *stream)
{
	struct om_job_row row;
	enum om_err err;

	err = sq_job_get(&sq->st, id, &row);
	if (err == OM_OK && !row.has_output) {
		row.has_output = true;
		err = sq_rows_changed(sq, &row);
	}
	if (err != OM_OK) {
		return err;
	}
	sq_log_stmt(sq, SQ_STREAM_INSERT);
	sq_log_i64(sq, job);
	sq_log_text(sq, name);
	err = sq_log_run(sq);
	*stream = sqlite3_last_insert_rowid(sq->db);
	return err;
}

static enum om_err
out_add_chunk(struct om_sqlite *sq, int64_t id, uint64_t offset, struct om_bin data)
{
	enum om_err err;

	sq_log_stmt(sq, SQ_CHUNK_INSERT);
	sq_log_i64(sq, id);
	sq_log_u64(sq, offset);
	sq_log_bin(sq, data);
	err = sq_log_run(sq);
	if (err != OM_OK) {
		return err;
	}
	sq_log_stmt(sq, SQ_STREAM_GROW);
	sq_log_i64(sq, id);
	sq_log_u64(sq, offset + data.len);
	return sq_log_run(sq);
}

enum om_err
sq_output_append(struct om_store *st, const struct om_job_id *id, struct om_out_ref ref,
		 uint64_t offset, struct om_bin data, uint64_t *size)
{
	struct om_sqlite *sq = sq_of(st);
	char name[OUT_STORED_MAX];
	int64_t job = 0, stream = 0;
	enum om_err err;

	*size = 0;
	err = sq_writable(sq);
	if (err == OM_OK) {
		err = out_name(sq, ref, name);
	}
	if (err == OM_OK && data.len > OM_OUT_CHUNK_MAX) {
		err = sq_why(sq, OM_ERR_TOO_BIG, "one piece of output has at most %u bytes",
			     OM_OUT_CHUNK_MAX);
	}
	if (err == OM_OK) {
		err = sq_job_seq(sq, id, &job);
	}
	if (err == OM_OK) {
		err = out_find(sq, job, name, &stream, size);
	}
	if (err == OM_OK && offset == OM_OUT_AT_END) {
		offset = *size;
	}
	if (err == OM_OK && offset != *size) {
		err = sq_why(sq, OM_ERR_STATE, "%s of job %s has %" PRIu64 " bytes, not %" PRIu64,
			     name, id->text, *size, offset);
	}
	if (err == OM_OK && stream == 0) {
		err = out_make(sq, id, job, name, &stream);
	}
	/* An empty file is a stream without chunks. */
	if (err == OM_OK && data.len > 0) {
		err = out_add_chunk(sq, stream, offset, data);
	}
	if (err == OM_OK) {
		*size = offset + data.len;
	}
	return err;
}

/* Copies from the chunks that s gives until out is full; *len has what was copied. */
static enum om_err
out_copy(struct om_sqlite *sq, sqlite3_stmt *s, uint64_t offset, uint8_t *out, size_t cap,
	 size_t *len)
{
	enum om_err err;
	bool found;

	while (*len < cap && (err = sq_step(sq, s, &found, "read output")) == OM_OK) {
		const uint64_t at = offset + *len;
		uint64_t off;
		struct om_bin data;
		size_t skip, n;

		if (!found) {
			return OM_OK;
		}
		off = sq_col_u64(s, 0);
		data = sq_col_bin(s, 1);
		if (off > at) {
			return sq_why(sq, OM_ERR_CORRUPT, "stored output has a gap at %" PRIu64,
				      at);
		}
		skip = (size_t)(at - off);
		if (skip >= data.len) {
			continue;
		}
		n = data.len - skip < cap - *len ? data.len - skip : cap - *len;
		memcpy(out + *len, data.ptr + skip, n);
		*len += n;
	}
	return *len == cap ? OM_OK : err;
}

enum om_err
sq_output_read(struct om_store *st, const struct om_job_id *id, struct om_out_ref ref,
	       uint64_t offset, void *out, size_t cap, size_t *len, uint64_t *size)
{
	struct om_sqlite *sq = sq_of(st);
	char name[OUT_STORED_MAX];
	int64_t job = 0, stream = 0;
	enum om_err err;
	sqlite3_stmt *s;

	*len = 0;
	*size = 0;
	err = out_name(sq, ref, name);
	if (err == OM_OK) {
		err = sq_job_seq(sq, id, &job);
	}
	if (err == OM_OK) {
		err = out_find(sq, job, name, &stream, size);
	}
	if (err == OM_OK && stream == 0 && ref.kind == OM_OUT_FILE) {
		err = sq_why(sq, OM_ERR_NOT_FOUND, "job %s left no file \"%.*s\"", id->text,
			     OM_STR_ARG(ref.name));
	}
	if (err != OM_OK || offset >= *size || cap == 0) {
		return err;
	}
	s = sq_stmt(sq, SQ_CHUNK_READ, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, stream);
	sq_bind_u64(s, 2, offset);
	err = out_copy(sq, s, offset, out, cap, len);
	(void)sqlite3_reset(s);
	return err;
}

static void
out_info(sqlite3_stmt *s, struct om_out_info *out)
{
	const size_t skip = sizeof(OUT_FILE_PREFIX) - 1;
	const struct om_str name = sq_col_str(s, 0);
	unsigned kind;

	memset(out, 0, sizeof(*out));
	out->size = sq_col_u64(s, 1);
	for (kind = 0; kind < OM_OUT_FILE && !om_str_is(name, out_streams[kind]); kind++) {
		continue;
	}
	out->kind = (enum om_out_kind)kind;
	if (out->kind == OM_OUT_FILE && name.len > skip) {
		(void)!om_str_copy((struct om_str){ name.ptr + skip, name.len - skip }, out->name,
				   sizeof(out->name));
	}
}

enum om_err
sq_output_list(struct om_store *st, const struct om_job_id *id, struct om_out_info *out, size_t cap,
	       size_t *count)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err;
	sqlite3_stmt *s;
	int64_t job = 0;
	bool found;

	*count = 0;
	err = sq_job_seq(sq, id, &job);
	if (err != OM_OK) {
		return err;
	}
	s = sq_stmt(sq, SQ_STREAM_LIST, &err);
	if (s == NULL) {
		return err;
	}
	sq_bind_i64(s, 1, job);
	while ((err = sq_step(sq, s, &found, "list outputs")) == OM_OK && found) {
		if (*count < cap) {
			out_info(s, &out[*count]);
		}
		(*count)++;
	}
	return err;
}

enum om_err
sq_output_drop(struct om_sqlite *sq, int64_t job_seq)
{
	static const enum sq_stmt parts[] = { SQ_CHUNK_DELETE, SQ_STREAM_DELETE };
	enum om_err err = OM_OK;
	size_t i;

	for (i = 0; err == OM_OK && i < OM_COUNT(parts); i++) {
		sq_log_stmt(sq, parts[i]);
		sq_log_i64(sq, job_seq);
		err = sq_log_run(sq);
	}
	return err;
}
