/* SPDX-License-Identifier: ISC */
#include "base/log.h"
#include "base/parse.h"
#include "store/audit_pack.h"
#include "tests/unit/store_image.h"

/* The audit's rows lie in packs: whoever reads them gets rows, each once. */

static void
append(struct fx *fx, struct om_str event, struct om_str actor, struct om_str details, int64_t at_s)
{
	const struct om_audit_note note = { event, actor, details };

	OK(om_store_begin(fx->st));
	OK(om_store_audit_append(fx->st, fx_at(at_s), &note));
	OK(om_store_commit(fx->st));
}

/* n rows, of every so many-th job, in groups of a few. */
static void
fill(struct fx *fx, int n, int jobs)
{
	struct om_job_place place = { .set_text = true,
				      .note = { OM_STR("placed"), OM_STR("test"), { 0 } } };
	char name[16];

	for (int i = 0; i < jobs; i++) {
		(void)snprintf(name, sizeof(name), "job%d", i);
		fx_put(fx, name);
	}
	for (int i = 0; i < n; i++) {
		const struct om_job_id id =
		    ((void)snprintf(name, sizeof(name), "job%d", i % jobs), fx_id(name));

		if (i % 1000 == 0) {
			OK(om_store_begin(fx->st));
		}
		place.at = fx_at(i);
		OK(om_store_job_place(fx->st, &id, &place, NULL));
		if (i % 1000 == 999 || i == n - 1) {
			OK(om_store_commit(fx->st));
		}
	}
}

struct seen {
	uint64_t last, rows;
	struct om_str job; /* all must be of it */
	bool tampered;
};

static bool
see(void *arg, const struct om_audit_row *row)
{
	struct seen *seen = arg;

	if (row->seq == 0 && seen->tampered) {
		return true; /* what is no row has no number */
	}
	assert_true(row->seq > seen->last);
	assert_true(seen->job.ptr == NULL || om_str_eq(row->job, seen->job));
	seen->last = row->seq;
	seen->rows++;
	return true;
}

/* All pages of a list; gives how many calls it took. */
static int
list(struct fx *fx, struct om_audit_filter *filter, size_t limit, struct seen *seen)
{
	bool more = true;
	int calls = 0;

	seen->last = 0;
	seen->rows = 0;
	seen->job = filter->job;
	while (more) {
		const uint64_t rows = seen->rows;

		OK(om_store_audit_each(fx->st, filter, limit, see, seen, &more));
		assert_true(seen->rows - rows <= limit);
		calls++;
	}
	return calls;
}

/* --- texts -------------------------------------------------------------------------------------- */

static const struct {
	struct om_str in, want; /* want absent: as it came */
} texts[] = {
	{ OM_STR("\"quoted\" and \\ and \\\\\" /"), { 0 } },
	{ OM_STR("\x01\x02\b\t\n\v\f\r\x1f\x7f"), { 0 } },
	{ OM_STR("a\0b\0"), { 0 } },
	{ OM_STR("\xf0\x9f\x98\x80 \xe2\x82\xac \xc3\xa9 \xf4\x8f\xbf\xbf"), { 0 } },
	{ OM_STR(""), { 0 } },
	{ OM_STR("null"), { 0 } },
	{ OM_STR("],[1,2"), { 0 } },
	{ OM_STR("\xff"), OM_STR("?") },
	{ OM_STR("a\x80z"), OM_STR("a?z") },
	{ OM_STR("cut \xe2\x82"), OM_STR("cut ??") },
	{ OM_STR("\xe2\x82z\xc3\xa9"), OM_STR("??z\xc3\xa9") },
	{ OM_STR("\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xf8"), OM_STR("?? ??? ???? ?") },
};

/* One row to JSON and back. */
static void
there_and_back(struct om_str text, int64_t number)
{
	const struct om_audit_row row = { .seq = (uint64_t)number,
					  .at = { number },
					  .event = text,
					  .actor = OM_STR(""),
					  .details = text,
					  .hash = { 0x01, 0x9a, 0xf0 } };
	struct om_buf buf = { 0 };
	struct om_audit_pack pack;
	struct om_audit_row got;

	om_buf_add(&buf, "[", 1);
	om_audit_pack_put(&buf, &row);
	om_buf_add(&buf, "]", 1);
	assert_true(om_audit_pack_open(&pack, (struct om_str){ (const char *)buf.data, buf.len }));
	om_audit_pack_row(&pack, 0, &got);
	assert_true(got.seq == row.seq && got.at.ns == number);
	assert_true(om_str_eq(got.event, text) && om_str_eq(got.details, text));
	assert_true(got.actor.len == 0 && got.job.ptr == NULL);
	assert_memory_equal(got.hash, row.hash, OM_HASH_LEN);
	om_audit_pack_fini(&pack);
	om_buf_fini(&buf);
}

/* Each byte at each place of the eight that are looked at together; numbers of all lengths. */
static void
test_bytes_and_numbers(void **state)
{
	static const int64_t some[] = { 0, 9, 10, 99, 100, 101, INT64_MAX, INT64_MIN };
	char text[40];

	(void)state;
	for (size_t len = 1; len <= sizeof(text); len += len < 18 ? 1 : 7) {
		memset(text, 'x', len);
		for (size_t i = 0; i < len; i++) {
			for (int c = 0; c < 0x80; c++) {
				text[i] = (char)c;
				there_and_back((struct om_str){ text, len }, c);
			}
			text[i] = 'x';
		}
	}
	for (size_t i = 0; i < OM_COUNT(some); i++) {
		there_and_back(OM_STR("x"), some[i]);
	}
	for (int64_t n = 1; n < INT64_MAX / 10; n *= 10) {
		there_and_back(OM_STR("x"), n - 1);
		there_and_back(OM_STR("x"), n + 7);
		there_and_back(OM_STR("x"), -n);
	}
}

static bool
see_text(void *arg, const struct om_audit_row *row)
{
	size_t *n = arg;
	const size_t i = (*n)++ % OM_COUNT(texts);
	const struct om_str want = texts[i].want.ptr == NULL ? texts[i].in : texts[i].want;

	assert_true(om_str_eq(row->details, want));
	assert_true(om_str_eq(row->actor, want));
	assert_true(want.len == 0 || om_str_eq(row->event, want));
	return true;
}

static void
see_texts(struct fx *fx)
{
	struct om_audit_filter filter = { 0 };
	size_t n = 0;
	struct om_audit_check check;
	bool more;

	OK(om_store_audit_each(fx->st, &filter, 1000, see_text, &n, &more));
	assert_int_equal(n, 3 * OM_COUNT(texts));
	check = fx_verify(fx, NULL);
	assert_false(check.broken);
	assert_int_equal(check.rows, 3 * OM_COUNT(texts));
}

static void
test_texts(void **state)
{
	struct fx *fx = *state;
	const struct om_audit_mark none = { 0 };
	struct om_purge purge = { .audit_before = fx_at(50) };

	for (size_t i = 0; i < 3 * OM_COUNT(texts); i++) {
		const struct om_str text = texts[i % OM_COUNT(texts)].in;

		append(fx, text.len == 0 ? OM_STR("x") : text, text, text, (int64_t)i);
	}
	see_texts(fx);
	image_same(fx);
	see_texts(fx);
	fx_close(fx);
	fx_open(fx);
	see_texts(fx);
	/* A pack that is cut in the middle is written anew by SQLite's functions. */
	purge.audit_before = fx_at(17);
	OK(om_store_begin(fx->st));
	OK(om_store_purge(fx->st, &purge));
	OK(om_store_commit(fx->st));
	assert_int_equal(purge.audit_rows, 17);
	assert_false(fx_verify(fx, NULL).broken);
	assert_int_equal(fx_verify(fx, &none).rows, 3 * OM_COUNT(texts) - 17 + 1);
	fx_close(fx);
	fx_open(fx);
	assert_false(fx_verify(fx, NULL).broken);
	FX_ASK_IS(fx, "SELECT min(seq) || ' ' || count(*) FROM audit_log", "18 20");
}

/* A job's own texts are in its rows too: what came to the store with bytes that are no text. */
static void
test_texts_of_a_job(void **state)
{
	struct fx *fx = *state;
	struct om_job_new job = fx_job("a1", "x");
	struct om_job_row row;
	bool existed;

	job.activity = OM_STR("b\xff\xffz");
	job.network = OM_STR("n\x80t");
	job.requester = OM_STR("al\xc3");
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	assert_false(fx_verify(fx, NULL).broken);
	FX_ASK_IS(fx, "SELECT activity || ' ' || network || ' ' || requester FROM audit_log",
		  "b??z n?t al?");
}

/* --- broken packs ------------------------------------------------------------------------------- */

static void
test_broken_pack(void **state)
{
	static const char *const how[] = { "substr(rows, 2)", "'{}'",
					   "'[1,[2],null]'",  "''",
					   "x'ff'",           "replace(rows, 'placed', char(7))" };

	(void)state;
	for (size_t i = 0; i < OM_COUNT(how); i++) {
		struct om_audit_filter filter = { 0 };
		struct om_audit_check check;
		struct seen seen = { .tampered = true };
		char sql[160];
		void *one = NULL;
		struct fx *fx;

		assert_int_equal(fx_setup(&one), 0);
		fx = one;
		fill(fx, 200, 3);
		(void)snprintf(sql, sizeof(sql), "UPDATE audit SET rows = %s WHERE first = 65",
			       how[i]);
		fx_sql(fx, sql);
		FX_ASK_IS(fx, "SELECT count(*) FROM audit WHERE first = 65", "1");
		check = fx_verify(fx, NULL);
		assert_true(check.broken);
		assert_int_equal(check.bad_seq, 65);
		(void)list(fx, &filter, 50, &seen);
		assert_true(seen.rows >= 203 - 64);
		assert_int_equal(seen.last, 203);
		assert_int_equal(fx_teardown(&one), 0);
	}
}

/* --- lists -------------------------------------------------------------------------------------- */

static void
test_list_of_a_job(void **state)
{
	static const size_t limits[] = { 1, 7, 64, 1000 };
	static const uint32_t looks[] = { 1, 3, 64, 0 };
	struct fx *fx = *state;
	struct seen seen = { 0 };

	fill(fx, 900, 9);
	for (size_t i = 0; i < OM_COUNT(limits); i++) {
		for (size_t k = 0; k < OM_COUNT(looks); k++) {
			struct om_audit_filter filter = { .job = OM_STR("job4"),
							  .looks = looks[k] };

			(void)list(fx, &filter, limits[i], &seen);
			assert_int_equal(seen.rows, 101);
			filter = (struct om_audit_filter){ .looks = looks[k] };
			(void)list(fx, &filter, limits[i], &seen);
			assert_int_equal(seen.rows, 909);
			filter =
			    (struct om_audit_filter){ .job = OM_STR("job44"), .looks = looks[k] };
			(void)list(fx, &filter, limits[i], &seen);
			assert_int_equal(seen.rows, 0);
		}
	}
}

/* Follows it live, with rows that wait for their pack and groups that are given up. */
static void
test_follow(void **state)
{
	struct fx *fx = *state;
	struct om_audit_filter filter = { 0 };
	struct seen seen = { 0 };
	bool more;

	for (int i = 0; i < 150; i++) {
		append(fx, OM_STR("e"), OM_STR("a"), OM_STR("d"), i);
		if (i % 3 == 0) {
			const struct om_audit_note note = { OM_STR("lost"), OM_STR("a"), { 0 } };

			OK(om_store_begin(fx->st));
			OK(om_store_audit_append(fx->st, fx_at(i), &note));
			OK(om_store_audit_append(fx->st, fx_at(i), &note));
			om_store_rollback(fx->st);
		}
		if (i % 5 != 4) {
			OK(om_store_audit_each(fx->st, &filter, 10, see, &seen, &more));
			assert_false(more);
			assert_int_equal(seen.last, i + 1);
		}
	}
	assert_int_equal(seen.rows, 149); /* the last one is told next time */
	assert_false(fx_verify(fx, NULL).broken);
	image_same(fx);
}

/* One call reads so many packs at most, whether they name the job or not. */
static void
test_long_audit(void **state)
{
	struct fx *fx = *state;
	struct om_audit_filter filter = { .job = OM_STR("job7"), .looks = 100 };
	struct om_job_id id = fx_id("job7");
	struct seen seen = { 0 };
	int calls;

	fx->conf.log_bytes = 4 << 20;
	fx_close(fx);
	fx_open(fx);
	fill(fx, 100000, 1);
	fx_put(fx, "job7");
	assert_int_equal(fx_try_move(fx, id.text, OM_JOB_CANCELLED, 1), OM_OK);
	calls = list(fx, &filter, 100, &seen);
	assert_int_equal(seen.rows, 2);
	assert_in_range(calls, 100000 / 64 / 100, 100000 / 64 / 100 + 3);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_texts),
		T(test_texts_of_a_job),
		cmocka_unit_test(test_broken_pack),
		cmocka_unit_test(test_bytes_and_numbers),
		T(test_list_of_a_job),
		T(test_follow),
		T(test_long_audit),
	};

	om_log_init(OM_LOG_ERROR, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
