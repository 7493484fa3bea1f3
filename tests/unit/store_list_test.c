/* SPDX-License-Identifier: ISC */
#include "tests/unit/store_fixture.h"

/* Jobs looked up: by the beginning of an id, in pages, of an array, those that live. */

static void
test_find_by_prefix(void **state)
{
	struct fx *fx = *state;
	struct om_job_id ids[3];
	size_t count;

	fx_put(fx, "7f3a1c");
	fx_put(fx, "7f3b00");
	fx_put(fx, "7f");
	fx_put(fx, "80");
	OK(om_store_job_find(fx->st, OM_STR("7f3a"), OM_STR("alice"), ids, 3, &count));
	assert_string_equal(ids[0].text, "7f3a1c");
	ERR(OM_ERR_INVALID,
	    om_store_job_find(fx->st, OM_STR("7f3"), OM_STR("alice"), ids, 3, &count));
	assert_int_equal(count, 2);
	assert_string_equal(ids[1].text, "7f3b00");
	assert_string_equal(om_store_why(fx->st), "7f3 fits more than one job: 7f3a1c, 7f3b00");
	ERR(OM_ERR_INVALID,
	    om_store_job_find(fx->st, OM_STR("7"), OM_STR("alice"), ids, 2, &count));
	assert_int_equal(count, 2);
	/* A whole id is meant. */
	OK(om_store_job_find(fx->st, OM_STR("7f"), OM_STR("alice"), ids, 3, &count));
	assert_string_equal(ids[0].text, "7f");
	OK(om_store_job_find(fx->st, OM_STR("8"), (struct om_str){ 0 }, ids, 3, &count));
	/* Somebody else's job is not there, not even as a candidate. */
	ERR(OM_ERR_NOT_FOUND,
	    om_store_job_find(fx->st, OM_STR("8"), OM_STR("bob"), ids, 3, &count));
	ERR(OM_ERR_NOT_FOUND,
	    om_store_job_find(fx->st, OM_STR("7f3a1c0"), OM_STR("alice"), ids, 3, &count));
	ERR(OM_ERR_INVALID, om_store_job_find(fx->st, OM_STR(""), OM_STR("alice"), ids, 3, &count));
}

/* BUG: behind 20,000 jobs of others it said that there is none, and one of two was the only one. */
static void
test_find_says_when_it_gave_up(void **state)
{
	static const char others[] =
	    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20001)"
	    " INSERT INTO job(seq, rank, id, requester, network, lang, activity, level, state, "
	    "reason,"
	    " text, cores, mem_mib, disk_mib, runtime_s, submitted, attempts, attempts_max, held,"
	    " requeue, spec_hash) SELECT j.seq + 1000 + n, rank, printf('7f8%05d', n), 'carol', "
	    "network,"
	    " lang, activity, level, state, reason, text, cores, mem_mib, disk_mib, runtime_s,"
	    " submitted, attempts, attempts_max, held, requeue, spec_hash FROM c, job j"
	    " WHERE j.id = '7ff'";
	struct fx *fx = *state;
	const struct om_str alice = OM_STR("alice");
	struct om_job_id ids[3];
	size_t count;

	fx_put(fx, "7ff");
	fx_sql(fx, others);
	ERR(OM_ERR_INVALID, om_store_job_find(fx->st, OM_STR("7f"), alice, ids, 3, &count));
	assert_int_equal(count, 0);
	assert_string_equal(om_store_why(fx->st),
			    "7f is too short among so many jobs: give more of the id");
	OK(om_store_job_find(fx->st, OM_STR("7ff"), alice, ids, 3, &count));
	assert_string_equal(ids[0].text, "7ff");
	ERR(OM_ERR_NOT_FOUND, om_store_job_find(fx->st, OM_STR("7fe"), alice, ids, 3, &count));
	/* The first of two, with the crowd between them. */
	fx_put(fx, "7f7");
	ERR(OM_ERR_INVALID, om_store_job_find(fx->st, OM_STR("7f"), alice, ids, 3, &count));
	OK(om_store_job_find(fx->st, OM_STR("7f7"), alice, ids, 3, &count));
	fx_sql(fx, "DELETE FROM job WHERE requester = 'carol'");
	ERR(OM_ERR_INVALID, om_store_job_find(fx->st, OM_STR("7f"), alice, ids, 3, &count));
	assert_int_equal(count, 2);
}

/* The ids of all pages, in one string. */
static void
list_all(struct fx *fx, struct om_job_filter filter, size_t page, char *out, size_t size)
{
	struct om_job_row rows[8];
	size_t count, i;

	out[0] = '\0';
	do {
		OK(om_store_job_list(fx->st, &filter, rows, page, &count));
		for (i = 0; i < count; i++) {
			(void)snprintf(out + strlen(out), size - strlen(out), "%s ",
				       rows[i].id.text);
		}
	} while (filter.cursor != 0);
}

/* ids are those of arrays by a mark in the row alone: a client's own a_7 is none. */
static void
test_list_of_an_array(void **state)
{
	struct fx *fx = *state;
	static const char *const ids[] = { "a_10", "a_2", "a_0", "ab_1", "a_b_3" };
	struct om_job_row row;
	struct om_job_id id = fx_id("a_2");
	char got[128];
	size_t page, i;
	bool existed;

	fx_put(fx, "a");
	fx_put(fx, "a_7");
	OK(om_store_begin(fx->st));
	for (i = 0; i < OM_COUNT(ids); i++) {
		struct om_job_new job = fx_job(ids[i], "x");

		job.in_array = true;
		job.array_limit = (uint32_t)i;
		OK(om_store_job_put(fx->st, &job, &existed, &row));
		assert_true(row.in_array);
	}
	OK(om_store_commit(fx->st));
	for (page = 1; page <= 4; page++) {
		list_all(fx, (struct om_job_filter){ .array = OM_STR("a") }, page, got,
			 sizeof(got));
		assert_string_equal(got, "a_10 a_2 a_0 ");
		list_all(fx, (struct om_job_filter){ .array = OM_STR("a_b") }, page, got,
			 sizeof(got));
		assert_string_equal(got, "a_b_3 ");
		list_all(fx, (struct om_job_filter){ .array = OM_STR("b") }, page, got,
			 sizeof(got));
		assert_string_equal(got, "");
	}
	OK(om_store_job_get(fx->st, &id, &row));
	assert_int_equal(row.array_limit, 1);
	id = fx_id("a_7");
	OK(om_store_job_get(fx->st, &id, &row));
	assert_false(row.in_array);
}

static void
test_list(void **state)
{
	struct fx *fx = *state;
	struct om_job_new job = fx_job("bob1", "x");
	struct om_job_row row;
	char got[128];
	size_t page;
	bool existed;

	fx_put(fx, "a1");
	fx_put(fx, "a2");
	fx_put(fx, "a3");
	job.requester = OM_STR("bob");
	job.submitted = fx_at(100);
	job.state = OM_JOB_PENDING;
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	fx_run(fx, "a2", 10);
	for (page = 1; page <= 8; page++) {
		list_all(fx, (struct om_job_filter){ 0 }, page, got, sizeof(got));
		assert_string_equal(got, "a1 a2 a3 bob1 ");
		list_all(fx, (struct om_job_filter){ .newest_first = true }, page, got,
			 sizeof(got));
		assert_string_equal(got, "bob1 a3 a2 a1 ");
		list_all(fx, (struct om_job_filter){ .states = OM_JOB_LIVE }, page, got,
			 sizeof(got));
		assert_string_equal(got, "a1 a3 bob1 ");
		list_all(fx, (struct om_job_filter){ .states = OM_JOB_BIT(OM_JOB_PENDING) }, page,
			 got, sizeof(got));
		assert_string_equal(got, "bob1 ");
		list_all(fx,
			 (struct om_job_filter){ .states = OM_JOB_BIT(OM_JOB_COMPLETED) |
							   OM_JOB_BIT(OM_JOB_PENDING) },
			 page, got, sizeof(got));
		assert_string_equal(got, "a2 bob1 ");
		list_all(fx, (struct om_job_filter){ .requester = OM_STR("alice") }, page, got,
			 sizeof(got));
		assert_string_equal(got, "a1 a2 a3 ");
		list_all(fx, (struct om_job_filter){ .since = fx_at(100) }, page, got, sizeof(got));
		assert_string_equal(got, "bob1 ");
	}
}

/* However many have ended since, those that live are found at once, also newest first. */
static void
test_list_of_live_jobs_skips_ended_ones(void **state)
{
	struct fx *fx = *state;
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_PENDING),
					.newest_first = true,
					.looks = 4 };
	struct om_job_new job = fx_job("held", "x");
	struct om_job_row rows[2];
	size_t count;
	bool existed;
	char id[8];

	job.state = OM_JOB_PENDING;
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &rows[0]));
	for (int i = 0; i < 10; i++) {
		(void)snprintf(id, sizeof(id), "r%d", i);
		job = fx_job(id, "x");
		job.state = OM_JOB_REJECTED;
		OK(om_store_job_put(fx->st, &job, &existed, &rows[0]));
	}
	OK(om_store_commit(fx->st));
	OK(om_store_job_list(fx->st, &filter, rows, 2, &count));
	assert_int_equal(count, 1);
	assert_string_equal(rows[0].id.text, "held");
	assert_int_equal(filter.cursor, 0);
	/* And a list that must pass them looks at no more than it may. */
	filter = (struct om_job_filter){ .requester = OM_STR("nobody"),
					 .newest_first = true,
					 .looks = 4 };
	OK(om_store_job_list(fx->st, &filter, rows, 2, &count));
	assert_int_equal(count, 0);
	assert_int_equal(filter.looks, 0);
	assert_int_not_equal(filter.cursor, 0);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_find_by_prefix),
		T(test_find_says_when_it_gave_up),
		T(test_list_of_an_array),
		T(test_list),
		T(test_list_of_live_jobs_skips_ended_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
