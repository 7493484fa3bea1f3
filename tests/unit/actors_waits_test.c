/* SPDX-License-Identifier: ISC */
/* Why does my job not run?  job.get tells whoever submitted it. */
#include "actors_fake_jobs.h"

#include "actors/job_order.h"

/* ahead -1: none is told */
static void
waits(const char *id, const char *code, const char *text, int64_t ahead)
{
	struct om_job_ref m = { .job = om_str_of(id) };
	struct om_caller bob = BOB;
	struct om_job_info got = { 0 };
	struct om_arena arena = { 0 };

	fake_body(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_GET, &m), OM_MSG_JOB_INFO, &got, &arena);
	assert_true(om_str_is(got.job, id));
	if (!om_str_is(got.waits, code) ||
	    (got.waits.len > 0 && strstr(got.waits_text.ptr, text) == NULL)) {
		fail_msg("%s: %.*s: %.*s", id, OM_STR_ARG(got.waits), OM_STR_ARG(got.waits_text));
	}
	assert_int_equal(OM_HAS(&got, job_info, ahead), ahead >= 0);
	assert_int_equal(got.ahead, ahead >= 0 ? ahead : 0);
	om_arena_fini(&arena);
}

static void
each_reason_is_told(void **state)
{
	struct om_job_submit later = job("later"), after = job("after"), held = job("held");
	const struct om_caller operator= OPERATOR, eve = EVE;
	const struct om_empty nothing = { 0 };
	struct om_str one = OM_STR("run");
	struct om_job_ref ref = { .job = OM_STR("run") };
	struct om_reason lunch = { 0 };

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "q1"), "queued", "network");
	accepted(submit_id(BOB, "q2"), "queued", "network");
	OM_SET(&later, job_submit, not_before, FAKE_NOW + 3600);
	accepted(submit(BOB, &later), "queued", "network");
	OM_SET(&held, job_submit, hold, true);
	accepted(submit(BOB, &held), "queued", "network");
	OM_SET(&after, job_submit, after, ((struct om_strs){ &one, 1 }));
	accepted(submit(BOB, &after), "queued", "network");
	accepted(submit_id(OPERATOR, "own"), "queued", "owner");

	waits("run", "", "", -1);
	waits("q1", "slots", "1 of 1 jobs are running", 1);
	waits("q2", "slots", "1 of 1 jobs are running", 2);
	waits("later", "not_before", "no earlier than 2023-11-15T13:00:00Z", -1);
	waits("held", "held", "waits for a release", -1);
	waits("after", "dependency", "waits for 1 other job to end", -1);
	OM_SET(&lunch, reason, reason, OM_STR("lunch"));
	assert_int_equal(fake_ask(&operator, OM_JOB_QUEUE, OM_MSG_QUEUE_PAUSE, &lunch)->err, OM_OK);
	waits("q1", "paused", "paused: lunch", 1);
	assert_int_equal(fake_ask(&operator, OM_JOB_QUEUE, OM_MSG_QUEUE_RESUME, &nothing)->err,
			 OM_OK);
	refused(fake_ask(&eve, OM_PROVIDER, OM_MSG_JOB_GET, &ref), OM_ERR_NOT_FOUND, "");
	fake_finish("run", OM_JOB_COMPLETED);
	waits("run", "", "", -1);
	waits("after", "slots", "1 of 1", 2); /* its turn is behind those that were ready before */
	fake_advance(UINT64_C(3601) * 1000);
	waits("later", "slots", "1 of 1", 3);
}

static void
room_is_told(void **state)
{
	struct om_job_submit big = job("big"), small = job("small");

	(void)state;
	fake.queue.max_jobs = 10;
	fake.queue.cores_total = fake.provider.cores_total = 4;
	fake_up();
	OM_SET(&small, job_submit, cores, 3);
	accepted(submit(BOB, &small), "queued", "network");
	OM_SET(&big, job_submit, cores, 4);
	accepted(submit(BOB, &big), "queued", "network");
	waits("big", "resources", "4 cores, 1 of 4 are free", 0);
	fake_finish("small", OM_JOB_COMPLETED);
	waits("big", "", "", -1);
}

static void
the_array_is_told(void **state)
{
	struct om_order_limits limits = { .max_jobs = 10 };
	struct om_order_job j = { .level = OM_LEVEL_NETWORK,
				  .group = OM_STR("a"),
				  .group_limit = 1 };
	struct om_wall now = { FAKE_NOW * OM_NS_PER_S };
	struct om_job_order *o = NULL;
	struct om_order_why why;
	struct om_why text;
	uint64_t ahead;

	(void)state;
	assert_int_equal(om_job_order_new(&limits, &o), OM_OK);
	j.id = OM_STR("a_0");
	assert_int_equal(om_job_order_add(o, &j, now, &ahead, &text), OM_OK);
	j.id = OM_STR("a_1");
	assert_int_equal(om_job_order_add(o, &j, now, &ahead, &text), OM_OK);
	assert_int_equal(om_job_order_why(o, OM_STR("a_1"), &why), OM_OK);
	assert_string_equal(why.code, "array_limit");
	assert_int_equal(om_job_order_why(o, OM_STR("a_2"), &why), OM_ERR_NOT_FOUND);
	for (int i = 0; i < OM_ORDER_AHEAD_MAX + 10; i++) { /* the walk has an end */
		char id[16];

		(void)snprintf(id, sizeof(id), "x%d", i);
		j = (struct om_order_job){ .id = om_str_of(id), .level = OM_LEVEL_NETWORK };
		assert_int_equal(om_job_order_add(o, &j, now, &ahead, &text), OM_OK);
	}
	assert_int_equal(om_job_order_why(o, OM_STR("x1009"), &why), OM_OK);
	assert_int_equal(why.ahead, OM_ORDER_AHEAD_MAX);
	assert_int_equal(om_job_order_why(o, OM_STR("x5"), &why), OM_OK);
	assert_int_equal(why.ahead, 6);
	om_job_order_free(o);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(each_reason_is_told),
		T(room_is_told),
		T(the_array_is_told),
	};

	return FAKE_RUN(tests);
}
