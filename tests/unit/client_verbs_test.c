/* SPDX-License-Identifier: ISC */
/* Verbs of the command line that ask several times, or of several jobs. */
#include "tests/unit/client_cli_rig.h"

/* --- lists ----------------------------------------------------------------------------------------- */

/* Jobs that are newer and somebody else's: a page without a row, and then one with. */
static void
give_sparse(struct fake *f, struct fake_request *r)
{
	struct om_job_query q = { 0 };
	struct om_job_info info = { .job = OM_STR("7f3a"), .state = OM_STR("pending_approval") };
	struct om_job_table table = { .jobs = { &info, 0 } };

	(void)f;
	fake_body(r, &q);
	if (q.cursor.len == 0) {
		OM_SET(&table, job_table, next, OM_STR("90"));
	} else if (om_str_is(q.cursor, "90")) {
		table.jobs.n = 1;
		OM_SET(&table, job_table, next, OM_STR("80"));
	} else {
		OM_ASSERT(om_str_is(q.cursor, "80"));
	}
	fake_answer(r, OM_MSG_JOB_TABLE, &table);
}

static void
test_an_empty_page_is_not_the_end(void **state)
{
	struct fake f;
	struct ran r;

	(void)state;
	fake_new(&f, give_sparse, NULL);
	r = run(&f, "list");
	assert_string_equal(r.out, "7f3a\tpending_approval\t-\t-\t-\t-\t-\t-\n");
	ran_free(&r);
	r = run(&f, "pending");
	assert_has(r.out, "7f3a\t");
	assert_int_equal(f.seen, 6);
	ran_free(&r);
	r = run(&f, "pending --json");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"job.table\",\"jobs\":[{\"job\":"
				   "\"7f3a\",\"state\":\"pending_approval\"}]}\n");
	ran_free(&r);
	fake_free(&f);
}

/* One job that runs, and more newer ones that wait than are shown. */
static void
give_busy(struct fake *f, struct fake_request *r)
{
	static struct om_job_info infos[100];
	struct om_job_table table = { .jobs = { infos, 0 } };
	struct om_job_query q = { 0 };
	struct om_daemon_status status = { .version = OM_STR("0.1.0") };
	struct om_actor_table actors = { 0 };
	bool running = false, queued = false;

	(void)f;
	if (r->envelope.type == OM_MSG_DAEMON_STATUS) {
		fake_answer(r, OM_MSG_DAEMON_STATE, &status);
		return;
	}
	if (r->envelope.type == OM_MSG_DAEMON_ACTORS) {
		fake_answer(r, OM_MSG_ACTOR_TABLE, &actors);
		return;
	}
	fake_body(r, &q);
	for (size_t i = 0; i < q.states.n; i++) {
		running = running || om_str_is(q.states.v[i], "running");
		queued = queued || om_str_is(q.states.v[i], "queued");
	}
	/* Newest first. */
	while (queued && table.jobs.n < q.limit && table.jobs.n + 1 < OM_COUNT(infos)) {
		infos[table.jobs.n++] =
		    (struct om_job_info){ .job = OM_STR("waits"), .state = OM_STR("queued") };
	}
	if (running && table.jobs.n < q.limit) {
		infos[table.jobs.n++] =
		    (struct om_job_info){ .job = OM_STR("runs"), .state = OM_STR("running") };
	}
	fake_answer(r, OM_MSG_JOB_TABLE, &table);
}

static void
test_top_shows_what_runs_first(void **state)
{
	const char *runs, *waits;
	size_t lines = 0;
	struct fake f;
	struct ran r;

	(void)state;
	fake_new(&f, give_busy, NULL);
	r = run(&f, "top");
	assert_int_equal(r.status, 0);
	runs = strstr(r.out, "runs\trunning");
	waits = strstr(r.out, "waits\tqueued");
	assert_non_null(runs);
	assert_non_null(waits);
	assert_true(runs < waits);
	for (; waits != NULL; waits = strstr(waits + 1, "waits\t")) {
		lines++;
	}
	assert_int_equal(lines, 19);
	ran_free(&r);
	r = run(&f, "top --json");
	assert_has(r.out, "\"jobs\":[{\"job\":\"runs\",\"state\":\"running\"},{\"job\":\"waits\"");
	ran_free(&r);
	fake_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_empty_page_is_not_the_end),
		cmocka_unit_test(test_top_shows_what_runs_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
