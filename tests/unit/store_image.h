/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_STORE_IMAGE_H
#define OM_TESTS_STORE_IMAGE_H

/* What a crash leaves of a store, taken from one that runs, and what is in its tables. */
#include <sys/wait.h>
#include "base/buf.h"
#include "tests/unit/store_fixture.h"

static const char *const image_ends[] = { "", "-wal", "-log", "-log2" };

struct image {
	struct om_buf file[OM_COUNT(image_ends)];
};

static inline void
image_read(const char *path, struct om_buf *out)
{
	char piece[4096];
	FILE *f = fopen(path, "re");
	size_t n;

	om_buf_reset(out);
	if (f == NULL) {
		return;
	}
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0) {
		om_buf_add(out, piece, n);
	}
	(void)fclose(f);
}

static inline void
image_write(const char *path, const struct om_buf *from, size_t len)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	if (len > 0) {
		assert_int_equal(fwrite(from->data, 1, len, f), len);
	}
	assert_int_equal(fclose(f), 0);
}

/* Of a store that is closed: a descriptor that we close would drop SQLite's locks. */
static inline void
image_take(struct fx *fx, struct image *image)
{
	char path[128];

	assert_null(fx->st);
	for (size_t i = 0; i < OM_COUNT(image_ends); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", fx->path, image_ends[i]);
		image_read(path, &image->file[i]);
	}
}

static inline void
image_put(struct fx *fx, const struct image *image)
{
	char path[128];

	assert_null(fx->st);
	for (size_t i = 0; i < OM_COUNT(image_ends); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", fx->path, image_ends[i]);
		image_write(path, &image->file[i], image->file[i].len);
	}
}

static inline void
image_fini(struct image *image)
{
	for (size_t i = 0; i < OM_COUNT(image_ends); i++) {
		om_buf_fini(&image->file[i]);
	}
}

/* The files as they are, of a store that is open: another process copies them (see image_take). */
static inline struct fx *
image_of_running(struct fx *fx)
{
	struct fx *copy = fx_new();
	char to[128], from[128];
	int status = -1;
	pid_t pid;

	assert_non_null(copy);
	copy->conf.wal_bytes = fx->conf.wal_bytes;
	copy->conf.log_bytes = fx->conf.log_bytes;
	pid = fork();
	if (pid == 0) {
		for (size_t i = 0; i < OM_COUNT(image_ends); i++) {
			struct om_buf bytes = { 0 };

			(void)snprintf(from, sizeof(from), "%s%s", fx->path, image_ends[i]);
			(void)snprintf(to, sizeof(to), "%s%s", copy->path, image_ends[i]);
			image_read(from, &bytes);
			image_write(to, &bytes, bytes.len);
			om_buf_fini(&bytes);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return copy;
}

static inline void
dump_row(sqlite3_stmt *s, struct om_buf *out)
{
	for (int c = 0; c < sqlite3_column_count(s); c++) {
		const uint8_t *bytes = sqlite3_column_blob(s, c);
		const int len = sqlite3_column_bytes(s, c);

		om_buf_printf(out, " %s=%d:", sqlite3_column_name(s, c), sqlite3_column_type(s, c));
		for (int i = 0; i < len; i++) {
			om_buf_printf(out, bytes[i] > ' ' && bytes[i] < 0x7f ? "%c" : "%%%02x",
				      bytes[i]);
		}
	}
	om_buf_add_str(out, "\n");
}

/* All of the tables but the generation; the audit by rows, however they lie in packs. */
static inline char *
dump_tables(struct fx *fx)
{
	static const char *const tables[] = {
		"job",   "job_spec",  "job_after", "stream", "chunk",
		"entry", "audit_log", "chain",     "tally",  "state_count WHERE n <> 0",
		"ran"
	};
	struct om_buf out = { 0 };
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;
	char sql[96];

	fx_fold(fx);
	assert_int_equal(sqlite3_open(fx->path, &db), SQLITE_OK);
	for (size_t i = 0; i < OM_COUNT(tables); i++) {
		(void)snprintf(sql, sizeof(sql), "SELECT * FROM %s ORDER BY 1, 2", tables[i]);
		assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
		om_buf_printf(&out, "%s\n", tables[i]);
		while (sqlite3_step(s) == SQLITE_ROW) {
			dump_row(s, &out);
		}
		assert_int_equal(sqlite3_finalize(s), SQLITE_OK);
	}
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	om_buf_add(&out, "", 1);
	assert_false(out.failed);
	return (char *)out.data;
}

/* Like assert_string_equal, but says which row. */
static inline void
dump_same(const char *a, const char *b)
{
	size_t at = 0, line = 0;

	while (a[at] != '\0' && a[at] == b[at]) {
		line = a[at++] == '\n' ? at : line;
	}
	if (a[at] != b[at]) {
		fail_msg("%.600s\nis not\n%.600s", a + line, b + line);
	}
}

/* A crash now would be recovered to what the tables will have. */
static inline void
image_same(struct fx *fx)
{
	struct fx *copy = image_of_running(fx);
	void *state = copy;
	char *folded = dump_tables(fx), *replayed;

	fx_open(copy);
	replayed = dump_tables(copy);
	dump_same(replayed, folded);
	assert_false(fx_verify(copy, NULL).broken);
	OK(om_store_check(copy->st));
	OK(om_store_check(fx->st));
	free(folded);
	free(replayed);
	assert_int_equal(fx_teardown(&state), 0);
}

#endif /* OM_TESTS_STORE_IMAGE_H */
