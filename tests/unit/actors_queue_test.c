/* SPDX-License-Identifier: ISC */
/* job_queue on the real bus in sim mode. */
#include "actors_manager_rig.h"

static void
submit(const char *id, uint64_t not_before, bool hold)
{
	struct om_job_submit m = { .lang = OM_STR("sh") };
	struct om_caller bob = BOB;

	OM_SET(&m, job_submit, script, ((struct om_bin){ (const uint8_t *)"true", 4 }));
	OM_SET(&m, job_submit, network, OM_STR("none"));
	OM_SET(&m, job_submit, job, om_str_of(id));
	if (not_before != 0) {
		OM_SET(&m, job_submit, not_before, not_before);
	}
	if (hold) {
		OM_SET(&m, job_submit, hold, true);
	}
	ok(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m));
}

static void
state_is(const char *id, enum om_job_state state)
{
	assert_non_null(fake_row(id));
	assert_string_equal(om_job_state_text(fake_row(id)->state), om_job_state_text(state));
}

static void
queue_stats(struct om_queue_stats *out, struct om_arena *arena)
{
	struct om_empty nothing = { 0 };

	*out = (struct om_queue_stats){ 0 };
	fake_body(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_STATS, &nothing), OM_MSG_QUEUE_STATE,
		  out, arena);
}

static void
at_most_so_many_at_a_time(void **state)
{
	struct om_queue_limits limits = { .max_jobs = 3 };
	struct om_queue_stats s;
	struct om_arena arena = { 0 };
	char id[16];

	(void)state;
	fake.queue.max_jobs = 2;
	fake_up();
	for (int i = 0; i < 6; i++) {
		(void)snprintf(id, sizeof(id), "j%d", i);
		submit(id, 0, false);
	}
	assert_int_equal(fake.running_count, 2);
	fake_finish("j0", OM_JOB_COMPLETED);
	fake_finish("j1", OM_JOB_FAILED);
	assert_int_equal(fake.running_peak, 2);
	ok(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_LIMITS, &limits)); /* acts at once */
	assert_int_equal(fake.running_count, 3);
	limits.max_jobs = 0;
	refused(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_LIMITS, &limits), OM_ERR_INVALID);
	queue_stats(&s, &arena);
	assert_int_equal(s.queued, 1);
	assert_int_equal(s.running, 3);
	assert_int_equal(s.total_queued, 6);
	assert_int_equal(s.total_completed, 1);
	assert_int_equal(s.total_failed, 1); /* a non-zero exit is no success */
	assert_true(s.success_rate == 0.5);
	assert_int_equal(s.waiting_reasons.n, 1);
	om_arena_fini(&arena);
}

/* BUG: asked for its quiet hours while it still read its lists the filter refused, and the queue held
 * all jobs until it asked again, a second later. */
static void
jobs_start_as_soon_as_all_is_up(void **state)
{
	(void)state;
	fake.together = true;
	fake_up();
	(void)om_sim_run(fake.sys);
	submit("j", 0, false);
	state_is("j", OM_JOB_RUNNING);
}

static void
pause_and_resume(void **state)
{
	struct om_reason reason = { 0 };
	struct om_empty nothing = { 0 };
	struct om_queue_stats s;
	struct om_arena arena = { 0 };

	(void)state;
	fake_up();
	OM_SET(&reason, reason, reason, OM_STR("new disk"));
	ok(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_PAUSE, &reason));
	submit("j1", 0, false);
	state_is("j1", OM_JOB_QUEUED);
	queue_stats(&s, &arena);
	assert_true(s.paused);
	assert_true(om_str_is(s.pause_reason, "new disk"));
	ok(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_RESUME, &nothing));
	state_is("j1", OM_JOB_RUNNING);
	om_arena_fini(&arena);
}

static void
hold_release_and_not_before(void **state)
{
	struct om_str held = OM_STR("held");
	struct om_job_refs refs = { .jobs = { &held, 1 } };
	struct om_caller bob = BOB;

	(void)state;
	fake.queue.max_jobs = 4;
	fake_up();
	submit("held", 0, true);
	submit("late", (uint64_t)FAKE_NOW + 7200, false);
	state_is("held", OM_JOB_QUEUED);
	ok(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_RELEASE, &refs));
	state_is("held", OM_JOB_RUNNING);
	refused(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_HOLD, &refs), OM_ERR_STATE);
	fake_advance(7199 * 1000);
	state_is("late", OM_JOB_QUEUED);
	fake_advance(2000);
	state_is("late", OM_JOB_RUNNING);
}

static void
hold_and_not_before_survive_a_restart(void **state)
{
	fake_up();
	submit("held", 0, true);
	submit("late", (uint64_t)FAKE_NOW + 7200, false);
	restart(state);
	fake_up();
	state_is("held", OM_JOB_QUEUED);
	state_is("late", OM_JOB_QUEUED);
	fake_advance(7201 * 1000);
	state_is("late", OM_JOB_RUNNING);
	state_is("held", OM_JOB_QUEUED);
}

static void
an_executor_without_room_gets_it_again(void **state)
{
	(void)state;
	fake.exec_start_err = OM_ERR_FULL;
	fake_up();
	submit("j1", 0, false);
	state_is("j1", OM_JOB_QUEUED);
	fake_advance(1100);
	state_is("j1", OM_JOB_QUEUED);
	fake.exec_start_err = OM_OK;
	fake_advance(1100);
	state_is("j1", OM_JOB_RUNNING);
	assert_int_equal(fake.started, 1);
}

static void
a_job_that_the_executor_refuses_has_failed(void **state)
{
	struct om_queue_stats s;
	struct om_arena arena = { 0 };

	(void)state;
	fake.exec_start_err = OM_ERR_UNSUPPORTED;
	fake_up();
	submit("j1", 0, false);
	state_is("j1", OM_JOB_FAILED);
	assert_string_equal(fake_row("j1")->reason, "unsupported");
	queue_stats(&s, &arena);
	assert_int_equal(s.total_failed, 1);
	assert_int_equal(s.running, 0);
	om_arena_fini(&arena);
}

static void
without_an_executor_jobs_wait(void **state)
{
	(void)state;
	fake.no_executor = true;
	fake_up();
	submit("j1", 0, false);
	state_is("j1", OM_JOB_QUEUED);
	fake.executor = fake_spawn(&fake_executor, NULL);
	fake_advance(1100);
	state_is("j1", OM_JOB_RUNNING);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(at_most_so_many_at_a_time),
		T(jobs_start_as_soon_as_all_is_up),
		T(pause_and_resume),
		T(hold_release_and_not_before),
		T(hold_and_not_before_survive_a_restart),
		T(an_executor_without_room_gets_it_again),
		T(a_job_that_the_executor_refuses_has_failed),
		T(without_an_executor_jobs_wait),
	};

	return FAKE_RUN(tests);
}
