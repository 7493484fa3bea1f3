/* SPDX-License-Identifier: ISC */
/*
 * The provider that stops, and what it finds when it begins again, on the real bus in sim mode, with
 * a played ledger and executor.
 */
#include "actors_fake_jobs.h"

/* daemon.stop of the operator: now, or with this time (0: none is said). */
static struct fake_answer *
stop_daemon(bool now, uint64_t timeout_ms)
{
	struct om_daemon_stop stop = { 0 };
	struct om_caller operator= OPERATOR;

	if (now) {
		OM_SET(&stop, daemon_stop, now, true);
	}
	if (timeout_ms != 0) {
		OM_SET(&stop, daemon_stop, timeout_ms, timeout_ms);
	}
	return fake_ask(&operator, OM_PROVIDER, OM_MSG_DAEMON_STOP, &stop);
}

static void
bug_10_nothing_is_accepted_while_draining(void **state)
{
	struct om_daemon_stop stop = { 0 };
	struct om_caller bob = BOB;
	struct fake_answer *a;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "queue"), "queued", "network");
	refused(fake_ask(&bob, OM_PROVIDER, OM_MSG_DAEMON_STOP, &stop), OM_ERR_DENIED, "");
	a = stop_daemon(false, 0);
	assert_false(a->done);
	refused(submit_id(BOB, "late"), OM_ERR_SHUTDOWN, "");
	fake_finish("run", OM_JOB_COMPLETED);
	assert_true(a->done && a->err == OM_OK);
	state_is("queue", OM_JOB_QUEUED); /* not started, and not thrown away */
}

static void
stop_now_ends_what_runs(void **state)
{
	struct fake_answer *a;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	a = stop_daemon(true, 0);
	assert_true(a->done && a->err == OM_OK);
	state_is("run", OM_JOB_CANCELLED);
}

/* At the deadline the jobs stayed `running`, and the next start called them lost. */
static void
the_deadline_of_a_stop_ends_what_runs(void **state)
{
	struct fake_answer *a;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	a = stop_daemon(false, 5000);
	assert_false(a->done);
	fake_advance(10000);
	assert_true(a->done && a->err == OM_OK);
	state_is("run", OM_JOB_CANCELLED);
}

/* The first one's deadline was taken for the second's. */
static void
a_second_stop_has_its_own_deadline(void **state)
{
	struct fake_answer *first, *second;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	first = stop_daemon(false, 5000);
	assert_false(first->done);
	second = stop_daemon(false, 600000);
	assert_true(first->done && first->err == OM_ERR_CANCELLED);
	fake_advance(20000);
	assert_false(second->done);
	state_is("run", OM_JOB_RUNNING);
	fake_finish("run", OM_JOB_COMPLETED);
	assert_true(second->done && second->err == OM_OK);
}

static void
bug_11_after_a_stop_the_queue_runs_again(void **state)
{
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "q1"), "queued", "network");
	accepted(submit_id(BOB, "q2"), "queued", "network");
	accepted(submit_id(EVE, "held"), "pending_approval", "external");
	(void)stop_daemon(false, 0);
	fake_finish("run", OM_JOB_COMPLETED);
	fake_down();
	(void)fake_setup(state);
	fake_up();
	state_is("q1", OM_JOB_RUNNING); /* in the same order */
	state_is("q2", OM_JOB_QUEUED);
	state_is("held", OM_JOB_PENDING);
	fake_advance(OM_PROVIDER_HOLD_EXPIRY_MS + 1000);
	state_is("held", OM_JOB_EXPIRED); /* its time went on */
	fake_finish("q1", OM_JOB_COMPLETED);
	state_is("q2", OM_JOB_RUNNING);
}

/* --- recovery --------------------------------------------------------------------------------- */

static void
after_a_crash_running_jobs_are_lost(void **state)
{
	struct om_job_submit m = job("again");

	fake.queue.max_jobs = 2;
	fake_up();
	accepted(submit_id(BOB, "once"), "queued", "network");
	OM_SET(&m, job_submit, requeue, true);
	accepted(submit(BOB, &m), "queued", "network");
	state_is("again", OM_JOB_RUNNING);
	fake_down();
	(void)fake_setup(state);
	fake.provider.peer_jobs_max = 2;
	fake_up();
	state_is("once", OM_JOB_LOST);
	assert_true(fake_trail("again running->lost") >= 0);
	state_is("again", OM_JOB_RUNNING);
	/* The books are right after it: one unfinished job. */
	accepted(submit_id(BOB, "n1"), "queued", "network");
	refused(submit_id(BOB, "n2"), OM_ERR_LIMIT, "");
	fake_finish("again", OM_JOB_COMPLETED);
	accepted(submit_id(BOB, "n2"), "queued", "network");
}

/* The played executor says of each job that it ran 2 s; this one asks for 60. */
static void
a_quota_survives_a_restart(void **state)
{
	struct om_pair pair = { OM_STR("runtime"), OM_STR("63s") };
	struct om_rule rule = { .name = OM_STR("q"), .kind = OM_STR("quota") };
	struct om_job_submit m;

	OM_SET(&rule, rule, settings, ((struct om_pairs){ &pair, 1 }));
	for (int life = 0; life < 2; life++) {
		fake.filter.rules = &rule;
		fake.filter.rule_count = 1;
		fake_up();
		m = job(life == 0 ? "j1" : "j2");
		OM_SET(&m, job_submit, runtime_s, 60);
		if (life == 0) {
			accepted(submit(BOB, &m), "queued", "network");
			fake_finish("j1", OM_JOB_COMPLETED);
			m = job("j3"); /* 2 and 60 are 62 */
			OM_SET(&m, job_submit, runtime_s, 60);
			accepted(submit(BOB, &m), "queued", "network");
			fake_finish("j3", OM_JOB_FAILED);
			fake_down();
			fake_now.ns += OM_NS_PER_S;
			struct om_wall later = fake_now;
			(void)fake_setup(state);
			fake_now = later;
		} else {
			refused(submit(BOB, &m), OM_ERR_REJECTED, "4 s of the day's 63 s");
			fake_now.ns += INT64_C(24) * 3600 * OM_NS_PER_S; /* tomorrow */
			m = job("j4");
			OM_SET(&m, job_submit, runtime_s, 60);
			accepted(submit(BOB, &m), "queued", "network");
		}
	}
}

/* The filter reads its three lists one after the other, and asks again a second after an error. */
static void
read_lists(void)
{
	for (int i = 0; i < 3; i++) {
		fake_advance(1100);
	}
}

static void
recovery_waits_for_the_ledger(void **state)
{
	struct om_empty nothing = { 0 };
	struct om_caller actor = fake_caller(OM_ROLE_ACTOR, "", "");
	struct fake_answer *ping;

	(void)state;
	disk.fail = OM_ERR_DISK;
	fake_up();
	ping = fake_ask(&actor, OM_PROVIDER, OM_MSG_PING, &nothing);
	assert_false(ping->done);
	refused(submit_id(BOB, "j1"), OM_ERR_STATE, "starting");
	disk.fail = OM_OK;
	read_lists();
	assert_true(ping->done && ping->err == OM_OK);
	accepted(submit_id(BOB, "j1"), "queued", "network");
}

static struct fake_answer *
move_back(const char *id)
{
	struct om_caller operator= OPERATOR;
	struct om_str one = om_str_of(id);
	struct om_job_move m = { .jobs = { &one, 1 } };

	return fake_ask(&operator, OM_PROVIDER, OM_MSG_JOB_MOVE, &m);
}

/* bug: of a job that was not read yet a verb said not_found. */
static void
bug_verbs_wait_for_the_recovery(void **state)
{
	static const enum om_msg_type types[] = { OM_MSG_JOB_APPROVE, OM_MSG_JOB_DENY,
						  OM_MSG_JOB_HOLD, OM_MSG_JOB_RELEASE,
						  OM_MSG_JOB_RETRY };

	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "j1"), "queued", "network");
	fake_down();
	(void)fake_setup(state);
	disk.fail = OM_ERR_DISK; /* the first page is not read */
	fake_up();
	disk.fail = OM_OK;
	refused(wait_for(BOB, "j1"), OM_ERR_STATE, "starting");
	refused(cancel(BOB, "j1"), OM_ERR_STATE, "starting");
	refused(move_back("j1"), OM_ERR_STATE, "starting");
	for (size_t i = 0; i < OM_COUNT(types); i++) {
		refused(refs(OPERATOR, types[i], "j1", false), OM_ERR_STATE, "starting");
	}
	refused(refs(BOB, OM_MSG_JOB_APPROVE, "j1", false), OM_ERR_DENIED, "");
	read_lists();
	assert_true(cancel(BOB, "j1")->err == OM_OK);
	state_is("j1", OM_JOB_CANCELLED);
}

/* The hold that asked for it was left in the queue, and the job was lost beside it. */
static void
a_started_job_that_waits_in_the_queue_is_taken_out(void **state)
{
	struct om_actor_id provider;
	const struct om_empty empty = { 0 };
	struct om_caller operator= OPERATOR;
	struct om_queue_stats stats = { 0 };
	struct om_arena arena = { .max = 65536 };
	struct fake_answer *a;
	struct om_why why;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "q"), "queued", "network");
	fake_row("q")->state = OM_JOB_RUNNING; /* its start was answered too late */
	provider = om_whereis(fake.sys, OM_PROVIDER);
	om_system_stop_actor(fake.sys, provider);
	fake_advance(1000);
	(void)fake_spawn(&om_provider_service, &fake.provider);
	fake_advance(1000);
	state_is("run", OM_JOB_RUNNING);
	state_is("q", OM_JOB_LOST);
	a = fake_ask(&operator, OM_JOB_QUEUE, OM_MSG_QUEUE_STATS, &empty);
	assert_true(a->done && a->err == OM_OK);
	assert_int_equal(om_body_decode(OM_BODY_queue_stats,
					(struct om_bin){ a->raw.data, a->raw.len }, &stats, &arena,
					&why),
			 OM_OK);
	assert_int_equal(stats.held, 0);
	assert_int_equal(stats.running, 1);
	om_arena_fini(&arena);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(bug_10_nothing_is_accepted_while_draining),
		T(stop_now_ends_what_runs),
		T(the_deadline_of_a_stop_ends_what_runs),
		T(a_second_stop_has_its_own_deadline),
		T(bug_11_after_a_stop_the_queue_runs_again),
		T(after_a_crash_running_jobs_are_lost),
		T(a_quota_survives_a_restart),
		T(recovery_waits_for_the_ledger),
		T(bug_verbs_wait_for_the_recovery),
		T(a_started_job_that_waits_in_the_queue_is_taken_out),
	};

	return FAKE_RUN(tests);
}
