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

/* The trail in steps of 1,000; one entry of the job, behind 2,500 others. */
static void
give_steps(struct fake *f, struct fake_request *r)
{
	struct om_audit_entry entry = { .seq = 2501, .at_ms = 1, .event = OM_STR("received") };
	struct om_audit_table table = { .entries = { &entry, 0 } };
	struct om_audit_query q = { 0 };

	(void)f;
	fake_body(r, &q);
	OM_SET(&table, audit_table, scanned, q.after_seq + 1000 < 2501 ? q.after_seq + 1000 : 2501);
	OM_SET(&table, audit_table, more, table.scanned < 2501);
	table.entries.n = table.scanned == 2501 && q.after_seq < 2501;
	fake_answer(r, OM_MSG_AUDIT_TABLE, &table);
}

static void
test_audit_goes_on_over_empty_pages(void **state)
{
	struct fake f;
	struct ran r;

	(void)state;
	fake_new(&f, give_steps, NULL);
	r = run(&f, "audit --job a1 --json");
	assert_int_equal(r.status, 0);
	assert_string_equal(r.out,
			    "{\"version\":1,\"type\":\"audit.entry\",\"seq\":2501,\"at_ms\":1,"
			    "\"event\":\"received\"}\n");
	ran_free(&r);
	fake_free(&f);
}

/* --- several jobs ---------------------------------------------------------------------------------- */

static _Atomic int64_t last_deadline_ms; /* written by the fake */

/* "good..." is done, "denied" is in the wrong state; an array has one of each. */
static void
give_refs(struct fake *f, struct fake_request *r)
{
	struct om_ref_failed row = { .job = OM_STR("arr_1"), .code = OM_STR("wrong_state") };
	struct om_count count = { .count = 1 };
	struct om_job_info info = { .state = OM_STR("queued") };
	struct om_str job = { 0 };

	(void)f;
	last_deadline_ms = (int64_t)r->envelope.deadline_ms;
	if (r->envelope.type == OM_MSG_JOB_GET) {
		struct om_job_ref m = { 0 };

		fake_body(r, &m);
		info.job = m.job;
		OM_SET(&info, job_info, level, OM_STR("external"));
		fake_answer(r, OM_MSG_JOB_INFO, &info);
		return;
	}
	if (r->envelope.type == OM_MSG_JOB_CANCEL) {
		struct om_job_cancel m = { 0 };

		fake_body(r, &m);
		job = m.job;
	} else if (r->envelope.type == OM_MSG_JOB_MOVE) {
		struct om_job_move m = { 0 };

		fake_body(r, &m);
		job = m.jobs.v[0];
	} else {
		struct om_job_refs m = { 0 };

		fake_body(r, &m);
		job = m.jobs.v[0];
	}
	if (om_str_is(job, "denied")) {
		fake_error(r, OM_ERR_STATE, "job denied is denied");
		return;
	}
	if (om_str_is(job, "arr")) {
		OM_SET(&row, ref_failed, text, OM_STR("job arr_1 is failed"));
		OM_SET(&count, count, failed, ((struct om_ref_failed_list){ &row, 1 }));
	}
	fake_answer(r, OM_MSG_COUNTED, &count);
}

static void
ran_is(struct fake *f, const char *line, int status, const char *out, const char *err)
{
	struct ran r = run(f, line);

	assert_string_equal(r.out, out);
	assert_string_equal(r.err, err);
	assert_int_equal(r.status, status);
	ran_free(&r);
}

#define DENIED "omerta: denied: job denied is denied (wrong_state)\n"

/* What was not done is not said to be done, and does not keep the rest from being done. */
static void
test_each_of_several_jobs_has_its_own_result(void **state)
{
	struct fake f;

	(void)state;
	fake_new(&f, give_refs, NULL);
	ran_is(&f, "approve denied good", 1, "approved good: queued at level external\n", DENIED);
	ran_is(&f, "deny good1 good2", 0,
	       "denied good1: queued at level external\n"
	       "denied good2: queued at level external\n",
	       "");
	ran_is(&f, "hold good denied good2", 1, "held: 2\n", DENIED);
	ran_is(&f, "release denied good", 1, "released: 1\n", DENIED);
	ran_is(&f, "move --to front denied good", 1, "moved: 1\n", DENIED);
	ran_is(&f, "cancel denied good good2", 1, "cancelled: 2\n", DENIED);
	ran_is(&f, "cancel arr", 1, "cancelled: 1\n",
	       "omerta: arr_1: job arr_1 is failed (wrong_state)\n");
	/* One alone: its error, and the exit code that goes with it. */
	ran_is(&f, "hold denied", 1, "", "omerta: job denied is denied (wrong_state)\n");
	ran_is(&f, "hold denied good --json", 1,
	       "{\"version\":1,\"type\":\"count\",\"count\":1,\"failed\":[{\"job\":\"denied\","
	       "\"code\":\"wrong_state\",\"text\":\"job denied is denied\"}]}\n",
	       "");
	fake_free(&f);
}

/* The answer comes when the job has ended, which its grace puts off. */
static void
test_a_cancel_is_waited_for_as_long_as_its_grace(void **state)
{
	struct fake f;

	(void)state;
	fake_new(&f, give_refs, NULL);
	ran_is(&f, "cancel good --grace 60s", 0, "cancelled: 1\n", "");
	assert_int_equal(last_deadline_ms, 70000);
	ran_is(&f, "cancel good", 0, "cancelled: 1\n", "");
	assert_int_equal(last_deadline_ms, 15000);
	ran_is(&f, "cancel good --grace 60s --reply-timeout 2s", 0, "cancelled: 1\n", "");
	assert_int_equal(last_deadline_ms, 62000);
	ran_is(&f, "hold good", 0, "held: 1\n", "");
	assert_int_equal(last_deadline_ms, 10000);
	fake_free(&f);
}

/* Answers as if the job had been denied, when asked for a change; else it has completed. */
static void
give_change(struct fake *f, struct fake_request *r)
{
	struct om_job_info info = { .job = OM_STR("7f3a"), .state = OM_STR("completed") };
	struct om_job_wait m = { 0 };

	(void)f;
	fake_body(r, &m);
	if (om_str_is(m.job, "nobody")) {
		fake_error(r, OM_ERR_NOT_FOUND, "there is no job nobody");
		return;
	}
	if (om_str_is(m.from, "pending_approval")) {
		info.state = om_str_is(m.job, "good") ? OM_STR("queued") : OM_STR("denied");
	}
	fake_answer(r, OM_MSG_JOB_INFO, &info);
}

static void
test_wait_for_a_change(void **state)
{
	struct fake f;

	(void)state;
	fake_new(&f, give_change, NULL);
	ran_is(&f, "wait good --from pending_approval --json", 0,
	       "{\"version\":1,\"type\":\"job.info\",\"job\":\"7f3a\",\"state\":\"queued\"}\n", "");
	ran_is(&f, "wait bad --from pending_approval -q", OM_EXIT_JOB_FAILED, "", "");
	/* One that is not there does not keep the rest from being waited for. */
	ran_is(&f, "wait -q nobody bad --from pending_approval", 1, "",
	       "omerta: there is no job nobody (not_found)\n");
	assert_int_equal(f.seen, 4);
	ran_is(&f, "wait -q nobody good", 1, "", "omerta: there is no job nobody (not_found)\n");
	fake_free(&f);
}

/* --- trace ----------------------------------------------------------------------------------------- */

/* What was asked for last. */
static pthread_mutex_t traced_lock = PTHREAD_MUTEX_INITIALIZER;
static char traced_actor[64];
static bool traced_off;

static void
traced_is(const char *actor, bool off)
{
	(void)pthread_mutex_lock(&traced_lock);
	assert_string_equal(traced_actor, actor);
	assert_int_equal(traced_off, off);
	(void)pthread_mutex_unlock(&traced_lock);
}

static void
give_trace(struct fake *f, struct fake_request *r)
{
	struct om_trace_lines lines = { .text = OM_STR("actor=1.1 name=job_queue\ntrace us=5\n") };

	struct om_daemon_trace m = { 0 };

	(void)f;
	fake_body(r, &m);
	(void)pthread_mutex_lock(&traced_lock);
	traced_off = m.off;
	(void)snprintf(traced_actor, sizeof(traced_actor), "%.*s", OM_STR_ARG(m.actor));
	(void)pthread_mutex_unlock(&traced_lock);
	fake_answer(r, OM_MSG_TRACE_TEXT, &lines);
}

static void
test_trace_begins_ends_and_shows(void **state)
{
	struct fake f;

	(void)state;
	fake_new(&f, give_trace, NULL);
	ran_is(&f, "trace", 0, "actor=1.1 name=job_queue\ntrace us=5\n", "");
	traced_is("", false);
	ran_is(&f, "trace job_queue", 0, "", "");
	traced_is("job_queue", false);
	ran_is(&f, "trace job_queue --off --dump", 0, "actor=1.1 name=job_queue\ntrace us=5\n", "");
	traced_is("job_queue", true);
	ran_is(&f, "trace --dump --json", 0,
	       "{\"version\":1,\"type\":\"trace.text\",\"text\":\"actor=1.1 "
	       "name=job_queue\\ntrace us=5\\n\"}\n",
	       "");
	assert_int_equal(f.seen, 4);
	fake_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_empty_page_is_not_the_end),
		cmocka_unit_test(test_top_shows_what_runs_first),
		cmocka_unit_test(test_audit_goes_on_over_empty_pages),
		cmocka_unit_test(test_each_of_several_jobs_has_its_own_result),
		cmocka_unit_test(test_a_cancel_is_waited_for_as_long_as_its_grace),
		cmocka_unit_test(test_wait_for_a_change),
		cmocka_unit_test(test_trace_begins_ends_and_shows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
