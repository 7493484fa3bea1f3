/* SPDX-License-Identifier: ISC */
/* The same job once more: by its id, in other bytes, by hand after what it waited for had failed. */
#include "actors_fake_jobs.h"

#include "base/mp.h"

static void
duplicate(const struct fake_answer *a)
{
	struct om_job_accepted got = { 0 };
	struct om_arena arena = { 0 };

	fake_body(a, OM_MSG_JOB_ACCEPTED, &got, &arena);
	assert_true(got.duplicate);
	om_arena_fini(&arena);
}

/* A lost answer and another try used up the rate of whoever asked. */
static void
a_repeated_submit_is_no_job_more(void **state)
{
	struct om_pair pair = { OM_STR("max"), OM_STR("2") };
	struct om_rule rule = { .name = OM_STR("r"), .kind = OM_STR("rate") };
	struct om_caller operator= OPERATOR;
	struct om_filter_stats stats = { 0 };
	struct om_empty nothing = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	OM_SET(&rule, rule, settings, ((struct om_pairs){ &pair, 1 }));
	fake.filter.rules = &rule;
	fake.filter.rule_count = 1;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	for (int i = 0; i < 3; i++) {
		duplicate(submit_id(BOB, "j1"));
	}
	accepted(submit_id(BOB, "j"), "queued", "network"); /* only the beginning of j1 */
	refused(submit_id(BOB, "j3"), OM_ERR_REJECTED, "2 jobs in");
	duplicate(submit_id(BOB, "j1"));
	fake_body(fake_ask(&operator, OM_FILTER_MANAGER, OM_MSG_FILTER_STATS, &nothing),
		  OM_MSG_FILTER_STATE, &stats, &arena);
	assert_int_equal(stats.evaluated, 3);
	fake_advance(UINT64_C(3600) * 1000); /* another window */
	accepted(submit_id(BOB, "j4"), "queued", "network");
	om_arena_fini(&arena);
}

static struct fake_answer *
submit_raw(const struct om_buf *buf)
{
	struct om_caller bob = BOB;
	struct fake_answer *a = fake_post(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, NULL);

	a->raw_body = (struct om_bin){ buf->data, buf->len };
	(void)om_sim_run(fake.sys);
	return a;
}

/* Keys in another order, the script as a string, the environment turned round. */
static void
the_same_job_in_other_bytes(void **state)
{
	struct om_pair env[2] = { { OM_STR("A"), OM_STR("1") }, { OM_STR("B"), OM_STR("2") } };
	struct om_job_submit m = job("j1");
	struct om_job_batch batch = { .jobs = { &m, 1 } };
	struct om_batch_results got = { 0 };
	struct om_arena arena = { 0 };
	struct om_caller bob = BOB;
	struct om_buf buf = { 0 };

	(void)state;
	fake_up();
	OM_SET(&m, job_submit, env, ((struct om_pairs){ env, 2 }));
	accepted(submit(BOB, &m), "queued", "network");
	om_mp_put_map(&buf, 5);
	om_mp_put_cstr(&buf, "env");
	om_mp_put_map(&buf, 2);
	om_mp_put_cstr(&buf, "B");
	om_mp_put_cstr(&buf, "2");
	om_mp_put_cstr(&buf, "A");
	om_mp_put_cstr(&buf, "1");
	om_mp_put_cstr(&buf, "network");
	om_mp_put_cstr(&buf, "none");
	om_mp_put_cstr(&buf, "script");
	om_mp_put_cstr(&buf, "true");
	om_mp_put_cstr(&buf, "job");
	om_mp_put_cstr(&buf, "j1");
	om_mp_put_cstr(&buf, "lang");
	om_mp_put_cstr(&buf, "sh");
	duplicate(submit_raw(&buf));
	fake_body(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT_BATCH, &batch), OM_MSG_JOB_BATCH,
		  &got, &arena);
	assert_int_equal(got.accepted, 1);
	assert_true(got.results.v[0].accepted->duplicate);
	buf.data[buf.len - 1] = 'x'; /* sx: another interpreter */
	refused(submit_raw(&buf), OM_ERR_EXISTS, "");
	om_buf_fini(&buf);
	om_arena_fini(&arena);
}

/* It ran without what it waits for. */
static void
a_retry_waits_as_before(void **state)
{
	struct om_str one = OM_STR("a");
	struct om_job_submit m = job("b");

	(void)state;
	fake.queue.max_jobs = 2;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network");
	OM_SET(&m, job_submit, after, ((struct om_strs){ &one, 1 }));
	accepted(submit(BOB, &m), "queued", "network");
	fake_finish("a", OM_JOB_FAILED);
	state_is("b", OM_JOB_FAILED);
	counted(refs(BOB, OM_MSG_JOB_RETRY, "b", false), 1);
	state_is("b", OM_JOB_FAILED); /* for the same reason */
	assert_string_equal(fake_row("b")->reason, "dependency_failed");
	counted(refs(BOB, OM_MSG_JOB_RETRY, "a", false), 1);
	counted(refs(BOB, OM_MSG_JOB_RETRY, "b", false), 1);
	state_is("b", OM_JOB_QUEUED);
	fake_finish("a", OM_JOB_COMPLETED);
	state_is("b", OM_JOB_RUNNING);
	/* One that has run once does not wait again. */
	fake_finish("b", OM_JOB_FAILED);
	counted(refs(BOB, OM_MSG_JOB_RETRY, "b", false), 1);
	state_is("b", OM_JOB_RUNNING);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(a_repeated_submit_is_no_job_more),
		T(the_same_job_in_other_bytes),
		T(a_retry_waits_as_before),
	};

	return FAKE_RUN(tests);
}
