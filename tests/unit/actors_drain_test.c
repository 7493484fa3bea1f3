/* SPDX-License-Identifier: ISC */
/* Taking no new jobs, and saying why: drain by the operator's word, and at the end of the daemon. */
#include "actors_fake_jobs.h"

static struct fake_answer *
drain(struct om_caller as, const char *reason)
{
	struct om_reason m = { 0 };

	if (reason != NULL) {
		OM_SET(&m, reason, reason, om_str_of(reason));
	}
	return fake_ask(&as, OM_PROVIDER, OM_MSG_QUEUE_DRAIN, &m);
}

static struct fake_answer *
resume(struct om_caller as)
{
	const struct om_empty nothing = { 0 };

	return fake_ask(&as, OM_PROVIDER, OM_MSG_QUEUE_RESUME, &nothing);
}

/* queue.stats says so. */
static void
drains(bool on, const char *reason)
{
	const struct om_empty nothing = { 0 };
	const struct om_caller bob = BOB;
	struct om_queue_stats got = { 0 };
	struct om_arena arena = { 0 };

	fake_body(fake_ask(&bob, OM_JOB_QUEUE, OM_MSG_QUEUE_STATS, &nothing), OM_MSG_QUEUE_STATE,
		  &got, &arena);
	assert_int_equal(got.draining, on);
	assert_true(om_str_is(got.drain_reason, reason));
	om_arena_fini(&arena);
}

static void
restart(void **state)
{
	struct om_wall now = fake_now;

	fake_down();
	(void)fake_setup(state);
	fake_now = now;
	fake_up();
}

static void
no_new_jobs_and_the_others_go_on(void **state)
{
	struct om_job_submit jobs[2] = { job("new"), job(NULL) };
	struct om_job_batch batch = { .jobs = { jobs, 2 } };
	struct om_batch_results got = { 0 };
	struct om_job_accepted again = { 0 };
	struct om_arena arena = { 0 };
	const struct om_caller bob = BOB;
	struct om_job_submit m = job("q");

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "q"), "queued", "network");
	accepted(submit_id(EVE, "held"), "pending_approval", "external");
	drains(false, "");
	refused(drain(BOB, "mine"), OM_ERR_DENIED, "");
	assert_int_equal(drain(OPERATOR, "new disk")->err, OM_OK);
	drains(true, "new disk");
	refused(submit_id(BOB, "new"), OM_ERR_DRAINING, "no new jobs are taken: new disk");
	refused(submit_id(OPERATOR, "own"), OM_ERR_DRAINING, "new disk");
	fake_body(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT_BATCH, &batch), OM_MSG_JOB_BATCH,
		  &got, &arena);
	assert_int_equal(got.accepted, 0);
	assert_true(om_str_is(got.results.v[1].error->code, "draining"));
	assert_null(fake_row("new"));
	/* A job that is here is no new one. */
	fake_body(submit(BOB, &m), OM_MSG_JOB_ACCEPTED, &again, &arena);
	assert_true(again.duplicate);
	counted(refs(OPERATOR, OM_MSG_JOB_APPROVE, "held", false), 1);
	fake_finish("run", OM_JOB_FAILED);
	state_is("q", OM_JOB_RUNNING);
	refused(refs(BOB, OM_MSG_JOB_RETRY, "run", false), OM_ERR_DRAINING, "new disk");
	counted(refs(OPERATOR, OM_MSG_JOB_RETRY, "run", false), 1);
	refused(resume(BOB), OM_ERR_DENIED, "");
	assert_int_equal(resume(OPERATOR)->err, OM_OK);
	drains(false, "");
	accepted(submit_id(BOB, "new"), "queued", "network");
	om_arena_fini(&arena);
}

static void
it_survives_a_restart_and_so_does_its_end(void **state)
{
	const struct om_caller operator= OPERATOR;
	struct om_reason lunch = { 0 };

	fake_up();
	assert_int_equal(drain(OPERATOR, NULL)->err, OM_OK);
	OM_SET(&lunch, reason, reason, OM_STR("lunch"));
	assert_int_equal(fake_ask(&operator, OM_JOB_QUEUE, OM_MSG_QUEUE_PAUSE, &lunch)->err, OM_OK);
	restart(state);
	drains(true, "");
	refused(submit_id(BOB, "j1"), OM_ERR_DRAINING, "no new jobs are taken");
	assert_int_equal(resume(OPERATOR)->err, OM_OK); /* of the pause too */
	accepted(submit_id(BOB, "j1"), "queued", "network");
	state_is("j1", OM_JOB_RUNNING);
	restart(state);
	drains(false, "");
	accepted(submit_id(BOB, "j2"), "queued", "network");
	state_is("j2", OM_JOB_RUNNING);
}

static void
what_the_disk_refuses_is_in_force_but_an_error(void **state)
{
	(void)state;
	fake_up();
	disk.fail = OM_ERR_DISK;
	refused(drain(OPERATOR, "new disk"), OM_ERR_DISK, "a restart will undo it");
	disk.fail = OM_OK;
	refused(submit_id(BOB, "j1"), OM_ERR_DRAINING, "new disk");
}

static void
nothing_is_taken_before_it_is_known(void **state)
{
	struct om_wall now;

	fake_up();
	assert_int_equal(drain(OPERATOR, "new disk")->err, OM_OK);
	now = fake_now;
	fake_down();
	(void)fake_setup(state);
	fake_now = now;
	disk.fail = OM_ERR_DISK;
	fake_up();
	refused(submit_id(BOB, "j1"), OM_ERR_STATE, "starting");
	refused(drain(OPERATOR, "again"), OM_ERR_STATE, "starting");
	disk.fail = OM_OK;
	fake_advance(1100);
	drains(true, "new disk");
	refused(submit_id(BOB, "j1"), OM_ERR_DRAINING, "new disk");
}

static void
a_stop_tells_why(void **state)
{
	const struct om_caller operator= OPERATOR;
	struct om_daemon_stop stop = { 0 };

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	OM_SET(&stop, daemon_stop, reason, OM_STR("moving house"));
	(void)fake_post(&operator, OM_PROVIDER, OM_MSG_DAEMON_STOP, &stop);
	refused(submit_id(BOB, "late"), OM_ERR_SHUTDOWN, "the daemon is stopping: moving house");
	fake_finish("run", OM_JOB_COMPLETED);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(no_new_jobs_and_the_others_go_on),
		T(it_survives_a_restart_and_so_does_its_end),
		T(what_the_disk_refuses_is_in_force_but_an_error),
		T(nothing_is_taken_before_it_is_known),
		T(a_stop_tells_why),
	};

	return FAKE_RUN(tests);
}
