/* SPDX-License-Identifier: ISC */
/* What a requester has used and asked for: quota and concurrency, and how rules.test tells of them. */
#include "actors_fake_jobs.h"

/* The played executor says of each attempt that it ran 2 s. */
static struct om_job_submit
minute(const char *id, uint64_t retries)
{
	struct om_job_submit m = job(id);

	OM_SET(&m, job_submit, runtime_s, 60);
	if (retries > 0) {
		OM_SET(&m, job_submit, retries, retries);
		OM_SET(&m, job_submit, backoff_s, 1);
	}
	return m;
}

static void
restart(void **state, const char *runtime)
{
	struct om_wall now = { fake_now.ns + OM_NS_PER_S };

	fake_down();
	(void)fake_setup(state);
	fake_now = now;
	one_rule("quota", "runtime", runtime);
	fake_up();
}

/* So many seconds are used up, as a submit is told that wants too much. */
static void
used_is(const char *used)
{
	struct om_job_submit m = job(NULL);

	OM_SET(&m, job_submit, runtime_s, 100000);
	refused(submit(BOB, &m), OM_ERR_REJECTED, used);
}

/* Only what had ended counted: a hundred at once passed any quota. */
static void
what_may_still_run_counts(void **state)
{
	struct om_job_submit m[5] = { minute("a", 0), minute("b", 0), minute("c", 0),
				      minute("d", 0), minute("e", 0) };
	struct om_caller bob = BOB;
	struct fake_answer *a[5];
	int let_in = 0;

	(void)state;
	one_rule("quota", "runtime", "150s");
	fake_up();
	for (size_t i = 0; i < OM_COUNT(a); i++) {
		a[i] = fake_post(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m[i]);
	}
	(void)om_sim_run(fake.sys);
	for (size_t i = 0; i < OM_COUNT(a); i++) {
		let_in += a[i]->err == OM_OK;
	}
	assert_int_equal(let_in, 2);
	used_is("120 s of the day's 150 s");
	fake_finish(fake.running[0], OM_JOB_COMPLETED); /* 2 s in truth */
	used_is("62 s of the day's 150 s");
	m[0] = minute("f", 0);
	accepted(submit(BOB, &m[0]), "queued", "network");
}

static void
they_count_after_a_restart_too(void **state)
{
	struct om_job_submit a = minute("a", 0), b = minute("b", 0);

	one_rule("quota", "runtime", "150s");
	fake_up();
	accepted(submit(BOB, &a), "queued", "network");
	accepted(submit(BOB, &b), "queued", "network");
	restart(state, "150s"); /* a is lost, b runs */
	used_is("60 s of the day's 150 s");
	counted(cancel(BOB, "b"), 1);
	used_is(", 2 s of the day's 150 s");
}

/* The last attempt of a dead job counted twice; after a restart none of them did. */
static void
each_attempt_counts_once(void **state)
{
	struct om_job_submit a = minute("a", 1), b = minute("b", 3), c = minute("c", 3);

	one_rule("quota", "runtime", "500s");
	fake_up();
	accepted(submit(BOB, &a), "queued", "network");
	fake_finish("a", OM_JOB_FAILED);
	used_is(", 62 s of");
	fake_advance(2000);
	fake_finish("a", OM_JOB_FAILED);
	state_is("a", OM_JOB_DEAD);
	used_is(", 4 s of");
	accepted(submit(BOB, &b), "queued", "network");
	fake_finish("b", OM_JOB_FAILED);
	counted(cancel(BOB, "b"), 1); /* while it waits for the next attempt */
	used_is(", 6 s of");
	accepted(submit(BOB, &c), "queued", "network");
	fake_finish("c", OM_JOB_FAILED);
	fake_advance(2000);
	state_is("c", OM_JOB_RUNNING);
	used_is(", 68 s of");
	restart(state, "500s"); /* c's second attempt is lost, the third is to come */
	used_is(", 68 s of");
	fake_advance(10000);
	fake_finish("c", OM_JOB_COMPLETED);
	used_is(", 10 s of");
}

/* --- rules.test ------------------------------------------------------------------------------- */

static void
tested(struct om_filter_request *rq, const char *verdict, const char *reason, const char *text)
{
	struct om_filter_decision got = { 0 };
	struct om_caller operator= OPERATOR;
	struct om_arena arena = { 0 };

	fake_body(fake_ask(&operator, OM_PROVIDER, OM_MSG_RULES_TEST, rq), OM_MSG_FILTER_DECISION,
		  &got, &arena);
	assert_true(om_str_is(got.verdict, verdict));
	assert_true(om_str_is(got.reason, reason));
	if (strstr(got.text.ptr, text) == NULL) {
		fail_msg("%.*s", OM_STR_ARG(got.text));
	}
	assert_true(got.trace.n > 0);
	assert_true(om_str_is(got.trace.v[got.trace.n - 1].outcome, "hit"));
	om_arena_fini(&arena);
}

static struct om_filter_request
request(const char *peer)
{
	struct om_filter_request rq = { .peer = om_str_of(peer) };

	OM_SET(&rq, filter_request, network_id, OM_STR("home"));
	return rq;
}

/* It asked the filter alone: a requester with nothing, on a machine of any size. */
static void
a_test_has_the_books(void **state)
{
	struct om_filter_request bob = request("bob"), ann = request("ann");
	struct om_filter_stats stats = { 0 };
	struct om_empty nothing = { 0 };
	struct om_caller operator= OPERATOR, requester = BOB;
	struct om_arena arena = { 0 };

	(void)state;
	one_rule("concurrency", "max", "2");
	fake.provider.cores_total = 4;
	fake.provider.peer_jobs_max = 3;
	fake_up();
	tested(&bob, "accepted", "network_trusted", "");
	accepted(submit_id(BOB, "a"), "queued", "network");
	accepted(submit_id(BOB, "b"), "queued", "network");
	tested(&bob, "rejected", "concurrency", "2 unfinished jobs");
	tested(&ann, "accepted", "network_trusted", "");
	OM_SET(&bob, filter_request, jobs, 2);
	tested(&bob, "rejected", "limit", "the limit is 3");
	OM_SET(&ann, filter_request, cores, 5);
	tested(&ann, "rejected", "never_fits", "5 cores");
	refused(fake_ask(&requester, OM_PROVIDER, OM_MSG_RULES_TEST, &bob), OM_ERR_DENIED, "");
	fake_body(fake_ask(&operator, OM_FILTER_MANAGER, OM_MSG_FILTER_STATS, &nothing),
		  OM_MSG_FILTER_STATE, &stats, &arena);
	assert_int_equal(stats.evaluated, 2); /* the submits */
	om_arena_fini(&arena);
}

static void
a_test_without_a_runtime_asks_for_the_default(void **state)
{
	struct om_filter_request bob = request("bob");

	(void)state;
	one_rule("quota", "runtime", "3599s");
	fake_up();
	tested(&bob, "rejected", "quota", "3600 s asked for");
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(what_may_still_run_counts),
		T(they_count_after_a_restart_too),
		T(each_attempt_counts_once),
		T(a_test_has_the_books),
		T(a_test_without_a_runtime_asks_for_the_default),
	};

	return FAKE_RUN(tests);
}
