/* SPDX-License-Identifier: ISC */
#include "tests/unit/store_fixture.h"

static enum om_err
append(struct fx *fx, const char *id, struct om_out_ref ref, uint64_t offset, const char *data,
       uint64_t *size)
{
	const struct om_job_id job = fx_id(id);
	enum om_err err;

	OK(om_store_begin(fx->st));
	err = om_store_output_append(fx->st, &job, ref, offset,
				     (struct om_bin){ (const uint8_t *)data, strlen(data) }, size);
	OK(om_store_commit(fx->st));
	return err;
}

/* All of it, read in pieces of `piece` bytes. */
static void
read_all(struct fx *fx, const char *id, struct om_out_ref ref, size_t piece, char *out, size_t cap)
{
	const struct om_job_id job = fx_id(id);
	uint64_t size = 0;
	size_t at = 0, len;

	do {
		assert_true(at + piece < cap);
		OK(om_store_output_read(fx->st, &job, ref, at, out + at, piece, &len, &size));
		at += len;
	} while (len > 0);
	assert_int_equal(at, size);
	out[at] = '\0';
}

static void
test_streams_stay_apart(void **state)
{
	struct fx *fx = *state;
	const struct om_out_ref out = { .kind = OM_OUT_STDOUT }, err = { .kind = OM_OUT_STDERR };
	struct om_job_id id = fx_id("a1");
	struct om_out_info info[4];
	char got[64];
	uint64_t size;
	size_t piece, count;

	fx_put(fx, "a1");
	fx_put(fx, "a2");
	OK(append(fx, "a1", out, 0, "Hello ", &size));
	OK(append(fx, "a1", err, 0, "warning", &size));
	OK(append(fx, "a2", out, 0, "other", &size));
	OK(append(fx, "a1", out, 6, "from ", &size));
	OK(append(fx, "a1", out, 11, "VM", &size));
	assert_int_equal(size, 13);
	for (piece = 1; piece < 16; piece++) {
		read_all(fx, "a1", out, piece, got, sizeof(got));
		assert_string_equal(got, "Hello from VM");
	}
	read_all(fx, "a1", err, 3, got, sizeof(got));
	assert_string_equal(got, "warning");
	OK(om_store_output_list(fx->st, &id, info, 4, &count));
	assert_int_equal(count, 2);
	assert_int_equal(info[0].kind, OM_OUT_STDOUT);
	assert_int_equal(info[0].size, 13);
	assert_int_equal(info[1].kind, OM_OUT_STDERR);
	FX_ASK_IS(fx, "SELECT group_concat(data, '') FROM outputs WHERE job='a1' AND name='stdout'",
		  "Hello from VM");
}

static void
test_append_is_fenced_by_its_offset(void **state)
{
	struct fx *fx = *state;
	const struct om_out_ref out = { .kind = OM_OUT_STDOUT };
	uint64_t size;
	char got[16];

	fx_put(fx, "a1");
	OK(append(fx, "a1", out, 0, "abc", &size));
	/* Sent twice, or with a gap: refused, and told where it stands. */
	ERR(OM_ERR_STATE, append(fx, "a1", out, 0, "abc", &size));
	assert_int_equal(size, 3);
	ERR(OM_ERR_STATE, append(fx, "a1", out, 4, "x", &size));
	assert_int_equal(size, 3);
	ERR(OM_ERR_NOT_FOUND, append(fx, "zz", out, 0, "x", &size));
	read_all(fx, "a1", out, 8, got, sizeof(got));
	assert_string_equal(got, "abc");
}

static void
test_reading_at_and_past_the_end(void **state)
{
	struct fx *fx = *state;
	const struct om_out_ref out = { .kind = OM_OUT_STDOUT };
	const struct om_out_ref file = { .kind = OM_OUT_FILE, .name = OM_STR("model.bin") };
	struct om_job_id id = fx_id("a1");
	char got[16];
	uint64_t size = 99;
	size_t len = 99;

	fx_put(fx, "a1");
	OK(om_store_output_read(fx->st, &id, out, 0, got, sizeof(got), &len, &size));
	assert_int_equal(len, 0);
	assert_int_equal(size, 0);
	ERR(OM_ERR_NOT_FOUND,
	    om_store_output_read(fx->st, &id, file, 0, got, sizeof(got), &len, &size));
	OK(append(fx, "a1", out, 0, "abc", &size));
	OK(om_store_output_read(fx->st, &id, out, 3, got, sizeof(got), &len, &size));
	assert_int_equal(len, 0);
	assert_int_equal(size, 3);
	OK(om_store_output_read(fx->st, &id, out, UINT64_MAX, got, sizeof(got), &len, &size));
	assert_int_equal(len, 0);
	OK(om_store_output_read(fx->st, &id, out, 1, got, 0, &len, &size));
	assert_int_equal(len, 0);
}

static void
test_files(void **state)
{
	struct fx *fx = *state;
	const struct om_out_ref file = { .kind = OM_OUT_FILE, .name = OM_STR("stdout") };
	const struct om_out_ref empty = { .kind = OM_OUT_FILE, .name = OM_STR("empty") };
	char longer[OM_OUT_NAME_MAX + 1];
	struct om_job_id id = fx_id("a1");
	struct om_out_info info[4];
	uint64_t size;
	size_t count;
	char got[16];

	fx_put(fx, "a1");
	/* A file may have a stream's name and is something else. */
	OK(append(fx, "a1", file, 0, "file", &size));
	OK(append(fx, "a1", (struct om_out_ref){ .kind = OM_OUT_STDOUT }, 0, "stream", &size));
	OK(append(fx, "a1", empty, 0, "", &size));
	read_all(fx, "a1", file, 8, got, sizeof(got));
	assert_string_equal(got, "file");
	read_all(fx, "a1", empty, 8, got, sizeof(got));
	assert_string_equal(got, "");
	OK(om_store_output_list(fx->st, &id, info, 1, &count));
	assert_int_equal(count, 3);
	OK(om_store_output_list(fx->st, &id, info, 4, &count));
	assert_int_equal(info[0].kind, OM_OUT_FILE);
	assert_string_equal(info[0].name, "stdout");
	assert_string_equal(info[2].name, "empty");
	memset(longer, 'x', sizeof(longer));
	ERR(OM_ERR_INVALID,
	    append(fx, "a1",
		   (struct om_out_ref){ .kind = OM_OUT_FILE, .name = { longer, sizeof(longer) } },
		   0, "x", &size));
	ERR(OM_ERR_INVALID,
	    append(fx, "a1", (struct om_out_ref){ .kind = OM_OUT_FILE }, 0, "x", &size));
	ERR(OM_ERR_INVALID,
	    append(fx, "a1", (struct om_out_ref){ .kind = OM_OUT_FILE, .name = { "a\0b", 3 } }, 0,
		   "x", &size));
}

static void
test_large_output_in_pieces(void **state)
{
	struct fx *fx = *state;
	const struct om_out_ref out = { .kind = OM_OUT_STDOUT };
	struct om_job_id id = fx_id("a1");
	uint8_t piece[4096], got[10000];
	uint64_t size = 0, at;
	size_t len, i;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	for (at = 0; at < (2u << 20); at += sizeof(piece)) {
		memset(piece, (int)(at / sizeof(piece)), sizeof(piece));
		OK(om_store_output_append(fx->st, &id, out, at,
					  (struct om_bin){ piece, sizeof(piece) }, &size));
	}
	ERR(OM_ERR_TOO_BIG,
	    om_store_output_append(fx->st, &id, out, at,
				   (struct om_bin){ piece, OM_OUT_CHUNK_MAX + 1 }, &size));
	OK(om_store_commit(fx->st));
	for (at = 0; at < (2u << 20); at += len) {
		OK(om_store_output_read(fx->st, &id, out, at, got, sizeof(got), &len, &size));
		assert_true(len > 0);
		for (i = 0; i < len; i++) {
			assert_int_equal(got[i], (uint8_t)((at + i) / sizeof(piece)));
		}
	}
	assert_int_equal(at, size);
	OK(om_store_check(fx->st));
}

struct entries {
	char text[256];
	int limit;
};

static bool
entry_add(void *arg, struct om_str key, struct om_bin value)
{
	struct entries *e = arg;

	(void)snprintf(e->text + strlen(e->text), sizeof(e->text) - strlen(e->text), "%.*s=%.*s ",
		       OM_STR_ARG(key), (int)value.len, (const char *)value.ptr);
	return --e->limit > 0;
}

static void
entry_put(struct fx *fx, const char *kind, const char *key, const char *value)
{
	OK(om_store_begin(fx->st));
	OK(om_store_entry_put(fx->st, om_str_of(kind), om_str_of(key),
			      (struct om_bin){ (const uint8_t *)value, strlen(value) }));
	OK(om_store_commit(fx->st));
}

static void
test_entries(void **state)
{
	struct fx *fx = *state;
	struct entries e = { .limit = 9 };
	struct om_buf buf = { 0 };

	entry_put(fx, "trusted", "lab", "2");
	entry_put(fx, "trusted", "home", "");
	entry_put(fx, "blocked", "mallory", "why");
	entry_put(fx, "trusted", "lab", "3");
	OK(om_store_entry_each(fx->st, OM_STR("trusted"), (struct om_str){ 0 }, entry_add, &e));
	assert_string_equal(e.text, "home= lab=3 ");
	e = (struct entries){ .limit = 1 };
	OK(om_store_entry_each(fx->st, OM_STR("trusted"), (struct om_str){ 0 }, entry_add, &e));
	assert_string_equal(e.text, "home= ");
	e = (struct entries){ .limit = 9 };
	OK(om_store_entry_each(fx->st, OM_STR("trusted"), OM_STR("home"), entry_add, &e));
	assert_string_equal(e.text, "lab=3 ");
	OK(om_store_entry_get(fx->st, OM_STR("blocked"), OM_STR("mallory"), &buf));
	assert_int_equal(buf.len, 3);
	ERR(OM_ERR_NOT_FOUND, om_store_entry_get(fx->st, OM_STR("blocked"), OM_STR("bob"), &buf));
	OK(om_store_begin(fx->st));
	OK(om_store_entry_del(fx->st, OM_STR("blocked"), OM_STR("mallory")));
	ERR(OM_ERR_NOT_FOUND, om_store_entry_del(fx->st, OM_STR("blocked"), OM_STR("mallory")));
	ERR(OM_ERR_INVALID,
	    om_store_entry_put(fx->st, OM_STR(""), OM_STR("k"), (struct om_bin){ 0 }));
	OK(om_store_commit(fx->st));
	ERR(OM_ERR_NOT_FOUND,
	    om_store_entry_get(fx->st, OM_STR("blocked"), OM_STR("mallory"), &buf));
	om_buf_fini(&buf);
}

static void
purge(struct fx *fx, struct om_purge *p)
{
	OK(om_store_begin(fx->st));
	OK(om_store_purge(fx->st, p));
	OK(om_store_commit(fx->st));
	OK(om_store_check(fx->st));
}

static void
test_purge_by_age(void **state)
{
	struct fx *fx = *state;
	struct om_purge p = { .finished_before = fx_at(100), .batch = 2 };
	struct om_job_id id = fx_id("old1");
	struct om_job_row row;
	uint64_t size;

	fx_put(fx, "old1");
	fx_put(fx, "old2");
	fx_put(fx, "old3");
	fx_put(fx, "young");
	fx_put(fx, "live");
	fx_run(fx, "old1", 10);
	fx_run(fx, "old2", 11);
	fx_run(fx, "old3", 12);
	fx_run(fx, "young", 100);
	OK(append(fx, "old1", (struct om_out_ref){ .kind = OM_OUT_STDOUT }, 0, "x", &size));
	p.states = OM_JOB_BIT(OM_JOB_FAILED);
	purge(fx, &p);
	assert_int_equal(p.jobs, 0);
	p.states = 0;
	purge(fx, &p);
	assert_int_equal(p.jobs, 2);
	assert_true(p.more);
	purge(fx, &p);
	assert_int_equal(p.jobs, 1);
	assert_false(p.more);
	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &id, &row));
	FX_ASK_IS(fx, "SELECT group_concat(id) FROM (SELECT id FROM job ORDER BY seq)",
		  "young,live");
	FX_ASK_IS(fx, "SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM stream)", "0");
	assert_false(fx_verify(fx, NULL).broken); /* the audit stays */
}

static void
test_purge_by_size(void **state)
{
	struct fx *fx = *state;
	struct om_purge p = { .bytes_max = 600 << 10 };
	static char body[100 << 10];
	struct om_store_stat before, after;
	struct om_job_row row;
	char id[16];
	bool existed;
	int i;

	memset(body, 'x', sizeof(body) - 1);
	for (i = 0; i < 10; i++) {
		struct om_job_new job;

		(void)snprintf(id, sizeof(id), "j%d", i);
		job = fx_job(id, body);
		OK(om_store_begin(fx->st));
		OK(om_store_job_put(fx->st, &job, &existed, &row));
		OK(om_store_commit(fx->st));
		if (i != 1) {
			fx_run(fx, id, i);
		}
	}
	OK(om_store_stat(fx->st, &before));
	purge(fx, &p);
	OK(om_store_stat(fx->st, &after));
	assert_true(before.used_bytes > p.bytes_max);
	assert_true(after.used_bytes <= p.bytes_max);
	assert_true(after.used_bytes > p.bytes_max - (150 << 10)); /* and no more than needed */
	/* The oldest went; the one that has not ended stays. */
	FX_ASK_IS(fx, "SELECT id FROM job ORDER BY seq LIMIT 1", "j1");
	FX_ASK_IS(fx, "SELECT id FROM job ORDER BY seq DESC LIMIT 1", "j9");
	/* What was freed is used again: the file does not grow. */
	fx_put(fx, "next");
	OK(om_store_stat(fx->st, &after));
	assert_true(after.used_bytes + after.free_bytes <= before.used_bytes + (8 << 10));
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_streams_stay_apart),
		T(test_append_is_fenced_by_its_offset),
		T(test_reading_at_and_past_the_end),
		T(test_files),
		T(test_large_output_in_pieces),
		T(test_entries),
		T(test_purge_by_age),
		T(test_purge_by_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
