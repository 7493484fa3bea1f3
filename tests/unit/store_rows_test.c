/* SPDX-License-Identifier: ISC */
#include "tests/unit/store_fixture.h"

/* The rows that a group works on in memory: nobody can tell that they are there. */

#define MANY 6000 /* more than the table has places, so that rows send each other away */

static void
must_move(struct fx *fx, const char *name, enum om_job_state to, int64_t at_s)
{
	const struct om_job_change change = fx_change(to, at_s);
	const struct om_job_id id = fx_id(name);

	OK(om_store_job_move(fx->st, &id, &change, NULL));
}

/* A list inside the group sees what the group has changed, and so does the file after it. */
static void
test_seen_inside_and_after(void **state)
{
	struct fx *fx = *state;
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_RUNNING) };
	struct om_job_row rows[4], row;
	struct om_job_id id = fx_id("a1");
	size_t count;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_PROVISIONING, 5);
	must_move(fx, "a1", OM_JOB_RUNNING, 6);
	OK(om_store_job_list(fx->st, &filter, rows, 4, &count));
	assert_int_equal(count, 1);
	assert_int_equal(rows[0].started.ns, fx_at(6).ns);
	must_move(fx, "a1", OM_JOB_CANCELLED, 7);
	OK(om_store_job_get(fx->st, &id, &row));
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT state || ' ' || finished FROM jobs",
		  "cancelled 2023-11-14T22:13:27.000Z");
	OK(om_store_job_get(fx->st, &id, &rows[0]));
	assert_memory_equal(&rows[0], &row, sizeof(row));
	OK(om_store_check(fx->st));
}

static void
test_rollback_forgets(void **state)
{
	struct fx *fx = *state;
	struct om_job_id id = fx_id("a1");
	struct om_job_row row;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_PROVISIONING, 5);
	om_store_rollback(fx->st);
	OK(om_store_begin(fx->st));
	OK(om_store_job_get(fx->st, &id, &row));
	assert_int_equal(row.state, OM_JOB_QUEUED);
	must_move(fx, "a1", OM_JOB_CANCELLED, 6);
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT state FROM job", "cancelled");
}

/* A person with the sqlite3 shell between two groups. */
static void
test_others_are_seen(void **state)
{
	struct fx *fx = *state;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_PROVISIONING, 5);
	OK(om_store_commit(fx->st));
	fx_sql(fx, "UPDATE job SET mem_mib = 77, level = 3");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_RUNNING, 6);
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT mem_mib || ' ' || level || ' ' || state FROM job", "77 3 running");
}

static void
test_more_than_fit(void **state)
{
	struct fx *fx = *state;
	char name[16];
	int i;

	OK(om_store_begin(fx->st));
	for (i = 0; i < MANY; i++) {
		struct om_job_new job;
		struct om_job_row row;
		bool existed;

		(void)snprintf(name, sizeof(name), "j%d", i);
		job = fx_job(name, "x");
		OK(om_store_job_put(fx->st, &job, &existed, &row));
		must_move(fx, name, OM_JOB_PROVISIONING, 5);
	}
	for (i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "j%d", i);
		must_move(fx, name, OM_JOB_RUNNING, 6);
	}
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx,
		  "SELECT count(*) || ' ' || sum(state = 'running') || ' ' || count(started) FROM "
		  "job",
		  "6000 6000 6000");
	OK(om_store_check(fx->st));
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_seen_inside_and_after),
		T(test_rollback_forgets),
		T(test_others_are_seen),
		T(test_more_than_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
