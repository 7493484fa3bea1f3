/* SPDX-License-Identifier: ISC */
/*
 * No job that was acknowledged is lost on its way into the queue: not by a limit that was lowered, not
 * by an answer of the ledger that came too late.
 */
#include "actors_fake_jobs.h"

static struct fake_answer *
submit_after(struct om_caller as, const char *id, const char *other)
{
	struct om_str one = om_str_of(other);
	struct om_job_submit m = job(id);

	OM_SET(&m, job_submit, after, ((struct om_strs){ &one, 1 }));
	return submit(as, &m);
}

static void
queue_max_is(uint64_t queue_max)
{
	static const char *const takers[] = { OM_JOB_QUEUE, OM_PROVIDER };
	const struct om_caller actor = fake_caller(OM_ROLE_ACTOR, "", "");
	struct om_policy m = { .default_action = OM_STR("accept_trusted_hold_others"),
			       .approval_expiry_ms = 5000,
			       .queue_max = queue_max };

	for (size_t i = 0; i < OM_COUNT(takers); i++) {
		assert_int_equal(fake_ask(&actor, takers[i], OM_MSG_CONFIG_POLICY, &m)->err, OM_OK);
	}
}

/* --- a lower queue_max ------------------------------------------------------------------------ */

/* It was the queue's limit too: after a restart, and for whatever came back, the jobs were `rejected`. */
static void
a_lower_limit_costs_no_job_that_is_here(void **state)
{
	struct om_job_queue_live queue = { 0 };
	struct om_provider_live provider = { 0 };
	struct om_wall now;

	fake.queue.live = &queue;
	fake.provider.live = &provider;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "q1"), "queued", "network");
	accepted(submit_id(BOB, "q2"), "queued", "network");
	accepted(submit_after(BOB, "dep", "run"), "queued", "network");
	accepted(submit_id(EVE, "held"), "pending_approval", "external");
	queue_max_is(1);
	refused(submit_id(BOB, "new"), OM_ERR_FULL, "1 jobs");
	counted(refs(OPERATOR, OM_MSG_JOB_APPROVE, "held", false), 1);
	state_is("held", OM_JOB_QUEUED);
	fake_finish("run", OM_JOB_COMPLETED);
	state_is("dep", OM_JOB_QUEUED);
	state_is("q1", OM_JOB_RUNNING);
	fake_finish("q1", OM_JOB_FAILED);
	counted(refs(OPERATOR, OM_MSG_JOB_RETRY, "q1", false), 1);
	state_is("q1", OM_JOB_QUEUED);
	now = fake_now;
	fake_down();
	(void)fake_setup(state);
	fake_now = now;
	fake.queue.live = &queue;
	fake.provider.live = &provider;
	fake_up();
	state_is("q1", OM_JOB_RUNNING); /* in the order of submission again */
	refused(submit_id(BOB, "new"), OM_ERR_FULL, "1 jobs");
	fake_finish("q1", OM_JOB_COMPLETED);
	state_is("dep", OM_JOB_RUNNING);
	fake_finish("dep", OM_JOB_COMPLETED);
	state_is("held", OM_JOB_RUNNING);
}

/* --- the ledger is late ------------------------------------------------------------------------ */

/* Until the provider has given up, and a little more. */
static void
too_late(void)
{
	fake_advance(31000);
	disk.late = false;
}

static void
a_submit_that_is_written_late_runs(void **state)
{
	struct om_job_submit m = job("j1");
	struct om_caller bob = BOB;
	struct fake_answer *a;

	(void)state;
	fake_up();
	disk.late = true;
	a = fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m);
	too_late();
	refused(a, OM_ERR_TIMEOUT, "");
	fake_advance(600000); /* the look was not answered either: it asks again */
	state_is("j1", OM_JOB_RUNNING);
	fake_finish("j1", OM_JOB_COMPLETED);
	state_is("j1", OM_JOB_COMPLETED);
	assert_int_equal(fake.started, 1);
}

static void
a_repeated_submit_brings_it_in(void **state)
{
	struct om_job_submit m = job("j1");
	struct om_job_accepted got = { 0 };
	struct om_arena arena = { 0 };
	struct om_caller bob = BOB;

	(void)state;
	fake_up();
	disk.late = true;
	(void)fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m);
	too_late();
	fake_body(submit(BOB, &m), OM_MSG_JOB_ACCEPTED, &got, &arena);
	assert_true(got.duplicate);
	state_is("j1", OM_JOB_RUNNING);
	fake_advance(700000); /* what the look finds is not added twice */
	assert_int_equal(fake.started, 1);
	om_arena_fini(&arena);
}

static void
a_cancel_finds_it(void **state)
{
	struct om_job_submit m = job("j2");
	struct om_caller bob = BOB;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	disk.late = true;
	(void)fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m);
	too_late();
	counted(cancel(BOB, "j2"), 1);
	state_is("j2", OM_JOB_CANCELLED);
}

static void
a_held_job_that_is_written_late_expires(void **state)
{
	struct om_job_submit m = job("j1");
	struct om_caller eve = EVE;

	(void)state;
	fake.provider.hold_expiry_ms = 3600000;
	fake_up();
	disk.late = true;
	(void)fake_ask(&eve, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m);
	too_late();
	fake_advance(600000);
	state_is("j1", OM_JOB_PENDING);
	fake_advance(3600000);
	state_is("j1", OM_JOB_EXPIRED);
}

static void
an_approval_that_is_written_late_holds(void **state)
{
	struct om_str one = OM_STR("j1");
	struct om_job_refs m = { .jobs = { &one, 1 } };
	struct om_caller operator= OPERATOR;
	struct fake_answer *a;

	(void)state;
	fake_up();
	accepted(submit_id(EVE, "j1"), "pending_approval", "external");
	disk.asked = 0;
	a = fake_post(&operator, OM_PROVIDER, OM_MSG_JOB_APPROVE, &m);
	while (disk.rows[0].state ==
	       OM_JOB_PENDING) { /* the answer to the question comes in time */
		assert_true(om_sim_step(fake.sys));
		disk.late = disk.asked > 0;
	}
	too_late();
	refused(a, OM_ERR_TIMEOUT, "");
	if (fake_seed % 2 == 0) { /* asked again, or seen by the look */
		counted(refs(OPERATOR, OM_MSG_JOB_APPROVE, "j1", false), 1);
	}
	fake_advance(600000);
	state_is("j1", OM_JOB_RUNNING);
	assert_int_equal(fake.started, 1);
}

static void
a_cancel_that_the_disk_refuses_leaves_it_in_the_queue(void **state)
{
	(void)state;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	accepted(submit_id(BOB, "j2"), "queued", "network");
	disk.fail = OM_ERR_DISK;
	refused(cancel(BOB, "j2"), OM_ERR_DISK, "");
	disk.fail = OM_OK;
	fake_finish("j1", OM_JOB_COMPLETED);
	state_is("j2", OM_JOB_RUNNING);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(a_lower_limit_costs_no_job_that_is_here),
		T(a_submit_that_is_written_late_runs),
		T(a_repeated_submit_brings_it_in),
		T(a_cancel_finds_it),
		T(a_held_job_that_is_written_late_expires),
		T(an_approval_that_is_written_late_holds),
		T(a_cancel_that_the_disk_refuses_leaves_it_in_the_queue),
	};

	return FAKE_RUN(tests);
}
