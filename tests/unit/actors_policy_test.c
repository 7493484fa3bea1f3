/* SPDX-License-Identifier: ISC */
/*
 * What jobs wait for, attempts, holds and moves: provider and queue on the real bus in sim mode,
 * with a played ledger and executor.
 */
#include "actors_fake_jobs.h"

#include "actors/usage.h"
#include "runtime/stats.h"

/* Submits a job that waits for one or two others. */
static struct fake_answer *
submit_after(struct om_caller as, const char *id, const char *first, const char *second, bool any)
{
	struct om_str ids[2] = { om_str_of(first), om_str_of(second != NULL ? second : "") };
	struct om_job_submit m = job(id);

	OM_SET(&m, job_submit, after, ((struct om_strs){ ids, second != NULL ? 2 : 1 }));
	if (any) {
		OM_SET(&m, job_submit, after_any, true);
	}
	return submit(as, &m);
}

static struct fake_answer *
move(struct om_caller as, const char *id, const char *to, const char *level)
{
	struct om_str one = om_str_of(id);
	struct om_job_move m = { .jobs = { &one, 1 } };

	if (to != NULL) {
		OM_SET(&m, job_move, to, om_str_of(to));
	}
	if (level != NULL) {
		OM_SET(&m, job_move, level, om_str_of(level));
	}
	return fake_ask(&as, OM_PROVIDER, OM_MSG_JOB_MOVE, &m);
}

/* The daemon is killed and starts again. */
static void
restart(void **state)
{
	struct om_wall now = fake_now;

	fake_down();
	(void)fake_setup(state);
	fake_now = now;
	fake_up();
}

/* The oldest in the ledger is read first, and is not the first to start. */
static void
nothing_starts_before_all_is_back(void **state)
{
	struct om_wall now;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "first"), "queued", "network");
	accepted(submit_id(BOB, "low"), "queued", "network");
	accepted(submit_id(OPERATOR, "high"), "queued", "owner");
	now = fake_now;
	fake_down();
	(void)fake_setup(state);
	fake_now = now;
	fake.queue.wait_for_recovery = true;
	fake_up();
	state_is("high", OM_JOB_RUNNING);
	state_is("low", OM_JOB_QUEUED);
}

/* --- after ------------------------------------------------------------------------------------ */

static void
a_job_waits_for_the_success_of_others(void **state)
{
	(void)state;
	fake.queue.max_jobs = 4;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network");
	accepted(submit_id(BOB, "b"), "queued", "network");
	accepted(submit_after(BOB, "c", "a", "b", false), "queued", "network");
	assert_string_equal(fake_row("c")->reason, "dependency");
	fake_finish("a", OM_JOB_COMPLETED);
	state_is("c", OM_JOB_QUEUED);
	fake_finish("b", OM_JOB_COMPLETED);
	state_is("c", OM_JOB_RUNNING);
	assert_string_equal(fake_row("c")->reason, "");
	/* What it waits for may have ended long before. */
	accepted(submit_after(BOB, "d", "a", "b", false), "queued", "network");
	state_is("d", OM_JOB_RUNNING);
}

static void
a_failure_fails_those_who_wait_and_so_on(void **state)
{
	struct fake_answer *w;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network");
	accepted(submit_after(BOB, "b", "a", NULL, false), "queued", "network");
	accepted(submit_after(BOB, "c", "b", NULL, false), "queued", "network");
	accepted(submit_after(BOB, "d", "b", NULL, true), "queued", "network");
	w = wait_for(BOB, "c");
	fake_finish("a", OM_JOB_TIMED_OUT);
	state_is("b", OM_JOB_FAILED);
	assert_string_equal(fake_row("b")->reason, "dependency_failed");
	assert_non_null(strstr(fake_row("b")->text, "job a"));
	assert_non_null(strstr(fake_row("b")->text, "timed_out"));
	state_is("c", OM_JOB_FAILED);
	assert_true(w->done);
	state_is("d", OM_JOB_RUNNING); /* any end will do */
	/* And one that failed long before. */
	accepted(submit_after(BOB, "e", "a", NULL, false), "queued", "network");
	state_is("e", OM_JOB_FAILED);
}

static void
there_is_no_cycle(void **state)
{
	(void)state;
	fake_up();
	refused(submit_after(BOB, "a", "a", NULL, false), OM_ERR_INVALID, "itself");
	refused(submit_after(BOB, "a", "b", NULL, false), OM_ERR_NOT_FOUND, "");
	assert_int_equal(disk.row_count, 0);
}

static void
a_waiting_job_can_be_cancelled_and_held(void **state)
{
	(void)state;
	fake.queue.max_jobs = 4;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network");
	accepted(submit_after(BOB, "b", "a", NULL, false), "queued", "network");
	accepted(submit_after(BOB, "c", "a", NULL, false), "queued", "network");
	accepted(submit_after(BOB, "d", "c", NULL, false), "queued", "network");
	counted(refs(BOB, OM_MSG_JOB_HOLD, "b", false), 1);
	counted(cancel(BOB, "c"), 1);
	state_is("c", OM_JOB_CANCELLED);
	state_is("d", OM_JOB_FAILED); /* it waited for a success of c */
	fake_finish("a", OM_JOB_COMPLETED);
	state_is("b", OM_JOB_QUEUED); /* held */
	counted(refs(BOB, OM_MSG_JOB_RELEASE, "b", false), 1);
	state_is("b", OM_JOB_RUNNING);
}

/* Of several jobs some cannot: the answer names them, with the reason of each. */
static void
test_an_answer_names_those_that_failed(void **state)
{
	const struct om_str names[] = { OM_STR("a"), OM_STR("nobody"), OM_STR("b"), OM_STR("c") };
	struct om_job_refs m = { .jobs = { names, OM_COUNT(names) } };
	struct om_arena arena = { 0 };
	struct om_caller bob = BOB;
	struct om_count count = { 0 };

	(void)state;
	fake.queue.max_jobs = 1;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network"); /* runs */
	accepted(submit_id(BOB, "b"), "queued", "network");
	(void)submit_id(EVE, "c");
	fake_body(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_HOLD, &m), OM_MSG_COUNTED, &count, &arena);
	assert_int_equal(count.count, 1);
	assert_int_equal(count.failed.n, 3);
	for (size_t i = 0; i < count.failed.n; i++) {
		const struct om_ref_failed *row = &count.failed.v[i];

		if (om_str_is(row->job, "a")) {
			assert_true(om_str_is(row->code, "wrong_state"));
			assert_true(om_str_is(row->text, "job a is running"));
		} else {
			assert_true(om_str_is(row->job, "nobody") || om_str_is(row->job, "c"));
			assert_true(om_str_is(row->code, "not_found"));
		}
	}
	om_arena_fini(&arena);
}

static void
a_cancel_that_cannot_be_written_is_not_half_done(void **state)
{
	(void)state;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network");
	accepted(submit_after(BOB, "b", "a", NULL, false), "queued", "network");
	disk.fail = OM_ERR_DISK;
	refused(cancel(BOB, "b"), OM_ERR_DISK, "");
	disk.fail = OM_OK;
	fake_finish("a", OM_JOB_COMPLETED);
	state_is("b", OM_JOB_RUNNING);
}

static void
who_waits_is_remembered_over_a_restart(void **state)
{
	fake.queue.max_jobs = 1;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network");
	accepted(submit_id(BOB, "b"), "queued", "network");
	accepted(submit_after(BOB, "c", "b", NULL, false), "queued", "network");
	accepted(submit_after(BOB, "d", "a", NULL, false), "queued", "network");
	restart(state); /* a is lost */
	state_is("a", OM_JOB_LOST);
	state_is("d", OM_JOB_FAILED);
	state_is("b", OM_JOB_RUNNING);
	state_is("c", OM_JOB_QUEUED);
	fake_finish("b", OM_JOB_COMPLETED);
	state_is("c", OM_JOB_RUNNING);
}

static void
a_held_job_waits_after_its_approval_too(void **state)
{
	(void)state;
	fake.queue.max_jobs = 4;
	fake_up();
	accepted(submit_id(EVE, "a"), "pending_approval", "external");
	accepted(submit_after(EVE, "b", "a", NULL, false), "pending_approval", "external");
	counted(refs(OPERATOR, OM_MSG_JOB_APPROVE, "b", false), 1);
	state_is("b", OM_JOB_QUEUED);
	counted(refs(OPERATOR, OM_MSG_JOB_APPROVE, "a", false), 1);
	state_is("a", OM_JOB_RUNNING);
	fake_finish("a", OM_JOB_COMPLETED);
	state_is("b", OM_JOB_RUNNING);
}

/* --- attempts --------------------------------------------------------------------------------- */

static struct fake_answer *
submit_retries(struct om_caller as, const char *id, uint64_t retries)
{
	struct om_job_submit m = job(id);

	OM_SET(&m, job_submit, retries, retries);
	OM_SET(&m, job_submit, backoff_s, 10);
	return submit(as, &m);
}

/*
 * The attempt was ending by itself when the cancel came: it was dropped there, the caller waited until
 * its time was over, and the job ran again.
 */
static void
a_cancel_that_meets_the_end_of_an_attempt(void **state)
{
	struct om_caller bob = BOB;
	struct om_job_cancel m = { 0 };
	struct fake_answer *a;

	(void)state;
	fake_up();
	accepted(submit_retries(BOB, "a", 5), "queued", "network");
	state_is("a", OM_JOB_RUNNING);
	fake.end_state = OM_JOB_FAILED; /* what the executor makes of it */
	OM_SET(&m, job_cancel, job, OM_STR("a"));
	a = fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_CANCEL, &m);
	assert_true(a->done && a->err == OM_OK);
	state_is("a", OM_JOB_CANCELLED);
	fake_advance(UINT64_C(24) * 3600 * 1000);
	assert_int_equal(fake_row("a")->attempts, 1);
	state_is("a", OM_JOB_CANCELLED);
}

static void
a_failed_attempt_is_followed_by_another(void **state)
{
	struct fake_answer *w, *b;

	(void)state;
	fake.queue.max_jobs = 4;
	fake_up();
	accepted(submit_retries(BOB, "a", 2), "queued", "network");
	accepted(submit_after(BOB, "b", "a", NULL, false), "queued", "network");
	w = wait_for(BOB, "a");
	b = wait_for(BOB, "b");
	fake_finish("a", OM_JOB_FAILED);
	state_is("a", OM_JOB_QUEUED);
	assert_false(w->done); /* the end of an attempt is not the end */
	fake_advance(9000);
	state_is("a", OM_JOB_QUEUED);
	fake_advance(2000);
	state_is("a", OM_JOB_RUNNING);
	fake_finish("a", OM_JOB_TIMED_OUT);
	fake_advance(19000); /* it doubles */
	state_is("a", OM_JOB_QUEUED);
	fake_advance(2000);
	state_is("a", OM_JOB_RUNNING);
	assert_int_equal(fake_row("a")->attempts, 3);
	assert_false(w->done || b->done);
	fake_finish("a", OM_JOB_COMPLETED);
	assert_true(w->done && w->err == OM_OK);
	state_is("b", OM_JOB_RUNNING);
}

static void
after_the_last_attempt_it_is_dead(void **state)
{
	struct fake_answer *w;

	(void)state;
	fake_up();
	accepted(submit_retries(BOB, "a", 1), "queued", "network");
	accepted(submit_after(BOB, "b", "a", NULL, false), "queued", "network");
	w = wait_for(BOB, "a");
	fake_finish("a", OM_JOB_FAILED);
	fake_advance(11000);
	fake_finish("a", OM_JOB_FAILED);
	state_is("a", OM_JOB_DEAD);
	state_is("b", OM_JOB_FAILED);
	assert_true(w->done);
	/* One more by hand: its requester or the operator, nobody else. */
	refused(refs(EVE, OM_MSG_JOB_RETRY, "a", false), OM_ERR_NOT_FOUND, "");
	counted(refs(BOB, OM_MSG_JOB_RETRY, "a", false), 1);
	fake_advance(100000);
	state_is("a", OM_JOB_RUNNING);
	refused(refs(BOB, OM_MSG_JOB_RETRY, "a", false), OM_ERR_STATE, "running");
	fake_finish("a", OM_JOB_COMPLETED);
	refused(refs(OPERATOR, OM_MSG_JOB_RETRY, "a", false), OM_ERR_STATE, "completed");
}

static void
a_retry_survives_a_restart(void **state)
{
	fake_up();
	accepted(submit_retries(BOB, "a", 3), "queued", "network");
	fake_finish("a", OM_JOB_FAILED);
	restart(state);
	state_is("a", OM_JOB_QUEUED);
	fake_advance(11000);
	state_is("a", OM_JOB_RUNNING);
	restart(state); /* lost: an attempt that failed */
	state_is("a", OM_JOB_RUNNING);
	assert_int_equal(fake_row("a")->attempts, 3);
	assert_int_equal(fake.running_count, 1);
}

/* --- hold, move, pause ------------------------------------------------------------------------ */

static void
a_hold_survives_a_restart(void **state)
{
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "held"), "queued", "network");
	accepted(submit_id(BOB, "free"), "queued", "network");
	counted(refs(BOB, OM_MSG_JOB_HOLD, "held", false), 1);
	counted(refs(BOB, OM_MSG_JOB_HOLD, "free", false), 1);
	counted(refs(BOB, OM_MSG_JOB_RELEASE, "free", false), 1);
	disk.fail = OM_ERR_DISK; /* what cannot be kept is not said to be done */
	refused(refs(BOB, OM_MSG_JOB_RELEASE, "held", false), OM_ERR_DISK, "");
	disk.fail = OM_OK;
	restart(state);
	state_is("held", OM_JOB_QUEUED);
	state_is("free", OM_JOB_RUNNING);
	fake_finish("free", OM_JOB_COMPLETED);
	state_is("held", OM_JOB_QUEUED);
	counted(refs(BOB, OM_MSG_JOB_RELEASE, "held", false), 1);
	state_is("held", OM_JOB_RUNNING);
}

/* It stayed held in memory alone: until the next start nobody could see why. */
static void
a_hold_that_cannot_be_written_is_undone(void **state)
{
	struct om_job_submit kept = job("kept");

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "q"), "queued", "network");
	accepted(submit_after(BOB, "dep", "run", NULL, false), "queued", "network");
	OM_SET(&kept, job_submit, hold, true);
	accepted(submit(BOB, &kept), "queued", "network");
	disk.fail = OM_ERR_DISK;
	refused(refs(BOB, OM_MSG_JOB_HOLD, "q", false), OM_ERR_DISK, "");
	refused(refs(BOB, OM_MSG_JOB_HOLD, "dep", false), OM_ERR_DISK, "");
	refused(refs(BOB, OM_MSG_JOB_HOLD, "kept", false), OM_ERR_DISK, "");
	disk.fail = OM_OK;
	fake_finish("run", OM_JOB_COMPLETED);
	state_is("q", OM_JOB_RUNNING);
	fake_finish("q", OM_JOB_COMPLETED);
	state_is("dep", OM_JOB_RUNNING);
	fake_finish("dep", OM_JOB_COMPLETED);
	state_is("kept", OM_JOB_QUEUED); /* it was held before */
}

static void
count_queue(const struct om_actor_stats *stats, void *arg)
{
	if (strcmp(stats->name, OM_JOB_QUEUE) == 0) {
		*(uint64_t *)arg = stats->handled;
	}
}

/* Its timer fired each millisecond as long as the executor took nothing. */
static void
a_job_that_is_due_does_not_spin(void **state)
{
	struct om_job_submit m = job("late");
	uint64_t before = 0, after = 0;

	(void)state;
	fake.exec_start_err = OM_ERR_FULL;
	fake_up();
	fake_advance(500); /* it comes due between two tries */
	accepted(submit_id(BOB, "a"), "queued", "network");
	OM_SET(&m, job_submit, not_before, FAKE_NOW + 2);
	accepted(submit(BOB, &m), "queued", "network");
	om_system_actors(fake.sys, count_queue, &before);
	for (int i = 0; i < 4000; i++) {
		fake_advance(1);
	}
	om_system_actors(fake.sys, count_queue, &after);
	assert_in_range(after - before, 1, 100); /* a retry a second */
	fake.exec_start_err = OM_OK;
	fake_advance(1100);
	state_is("a", OM_JOB_RUNNING);
	fake_finish("a", OM_JOB_COMPLETED);
	state_is("late", OM_JOB_RUNNING);
}

static void
jobs_are_moved(void **state)
{
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "q1"), "queued", "network");
	accepted(submit_id(BOB, "q2"), "queued", "network");
	accepted(submit_id(BOB, "q3"), "queued", "network");
	accepted(submit_id(BOB, "q4"), "queued", "network");
	refused(move(BOB, "q3", "front", NULL), OM_ERR_DENIED, "");
	refused(move(OPERATOR, "q3", "up", NULL), OM_ERR_INVALID, "front or back");
	refused(move(OPERATOR, "run", "front", NULL), OM_ERR_STATE, "running");
	counted(move(OPERATOR, "q3", "front", NULL), 1);
	counted(move(OPERATOR, "q1", "back", NULL), 1);
	counted(move(OPERATOR, "q4", NULL, "owner"), 1);
	fake_finish("run", OM_JOB_COMPLETED); /* q4 (owner), q3, q2, q1 */
	state_is("q4", OM_JOB_RUNNING);
	assert_string_equal(fake_row("q4")->level, "owner");
	fake_finish("q4", OM_JOB_COMPLETED);
	state_is("q3", OM_JOB_RUNNING);
	restart(state);
	state_is("q2", OM_JOB_RUNNING);
	fake_finish("q2", OM_JOB_COMPLETED);
	state_is("q1", OM_JOB_RUNNING);
}

static void
places_survive_a_restart(void **state)
{
	struct om_caller operator= OPERATOR;
	struct om_reason why = { 0 };
	struct om_empty nothing = { 0 };
	static const char *const want[] = { "q4", "q3", "q2", "q5", "q1" };

	fake_up();
	OM_SET(&why, reason, reason, OM_STR("new disk"));
	assert_int_equal(fake_ask(&operator, OM_JOB_QUEUE, OM_MSG_QUEUE_PAUSE, &why)->err, OM_OK);
	for (int i = 1; i <= 5; i++) {
		char id[8];

		(void)snprintf(id, sizeof(id), "q%d", i);
		accepted(submit_id(BOB, id), "queued", "network");
	}
	counted(move(OPERATOR, "q3", "front", NULL), 1);
	counted(move(OPERATOR, "q4", "front", NULL), 1);
	counted(move(OPERATOR, "q1", "back", NULL), 1);
	restart(state);
	for (int i = 1; i <= 5; i++) { /* and so does the pause */
		char id[8];

		(void)snprintf(id, sizeof(id), "q%d", i);
		state_is(id, OM_JOB_QUEUED);
	}
	assert_int_equal(fake_ask(&operator, OM_JOB_QUEUE, OM_MSG_QUEUE_RESUME, &nothing)->err,
			 OM_OK);
	for (size_t i = 0; i < OM_COUNT(want); i++) {
		assert_string_equal(fake.running[0], want[i]);
		fake_finish(want[i], OM_JOB_COMPLETED);
	}
	accepted(submit_id(BOB, "next"), "queued", "network");
	restart(state); /* a resume is for good too */
	state_is("next", OM_JOB_LOST);
	accepted(submit_id(BOB, "last"), "queued", "network");
	state_is("last", OM_JOB_RUNNING);
}

static void
a_pause_that_is_not_durable_is_in_force_but_an_error(void **state)
{
	struct om_caller operator= OPERATOR;
	struct om_reason why = { 0 };

	(void)state;
	fake_up();
	disk.fail = OM_ERR_DISK;
	refused(fake_ask(&operator, OM_JOB_QUEUE, OM_MSG_QUEUE_PAUSE, &why), OM_ERR_DISK,
		"a restart will undo it");
	disk.fail = OM_OK;
	accepted(submit_id(BOB, "a"), "queued", "network");
	state_is("a", OM_JOB_QUEUED);
}

/* --- batches ---------------------------------------------------------------------------------- */

static void
a_batch_has_a_result_for_each_job(void **state)
{
	struct om_job_submit jobs[4] = { job("b0"), job("b0"), job(NULL), job("b3") };
	struct om_job_batch m = { .jobs = { jobs, 4 } };
	struct om_batch_results got = { 0 };
	struct om_arena arena = { 0 };
	struct om_caller bob = BOB;

	(void)state;
	fake.provider.peer_jobs_max = 3;
	fake_up();
	jobs[1].cores = 2; /* the id of the first with another body */
	OM_SET(&jobs[1], job_submit, cores, 2);
	OM_SET(&jobs[3], job_submit, gpu, true);
	fake_body(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT_BATCH, &m), OM_MSG_JOB_BATCH, &got,
		  &arena);
	assert_int_equal(got.results.n, 4);
	assert_int_equal(got.accepted, 2);
	assert_true(om_str_is(got.results.v[0].accepted->job, "b0"));
	assert_true(om_str_is(got.results.v[1].error->code, "exists"));
	assert_int_equal(got.results.v[2].accepted->job.len, OM_JOB_ID_LEN);
	assert_non_null(strstr(got.results.v[3].error->text.ptr, "GPU"));
	assert_int_equal(fake.started, 1); /* b0, or the one whose id nobody has to look up */
	m.jobs.n = 0;
	refused(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT_BATCH, &m), OM_ERR_INVALID, "no job");
	om_arena_fini(&arena);
}

static void
a_batch_that_a_stop_meets_is_answered(void **state)
{
	struct om_job_submit jobs[3] = { job(NULL), job(NULL), job(NULL) };
	struct om_job_batch m = { .jobs = { jobs, 3 } };
	struct om_caller bob = BOB;
	struct fake_answer *a;

	(void)state;
	fake_up();
	a = fake_post(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT_BATCH, &m);
	for (uint64_t i = 0; i < fake_seed; i++) {
		(void)om_sim_step(fake.sys);
	}
	fake_down(); /* nothing is freed twice or leaks: the sanitizer looks */
	(void)a;
}

/* --- usage ------------------------------------------------------------------------------------ */

static void
percentiles_are_right_to_a_fifth(void **state)
{
	struct om_spread spread = { 0 };

	(void)state;
	assert_int_equal(om_spread_at(&spread, 0.5), 0);
	for (uint64_t ms = 1; ms <= 10000; ms++) {
		om_spread_add(&spread, ms);
	}
	assert_in_range(om_spread_at(&spread, 0.5), 5000, 6000);
	assert_in_range(om_spread_at(&spread, 0.99), 9900, 11880);
	assert_in_range(om_spread_at(&spread, 1.0), 10000, 12000);
	assert_int_equal(om_spread_at(&spread, 0), 1);
	for (uint64_t ms = 1; ms != 0; ms <<= 1) { /* every size has a bucket that holds it */
		struct om_spread one = { 0 };

		om_spread_add(&one, ms);
		assert_true(om_spread_at(&one, 0.5) >= ms || ms >= UINT64_C(1) << 36);
	}
}

static void
usage_is_counted_per_level_and_requester(void **state)
{
	struct om_caller operator= OPERATOR, bob = BOB;
	struct om_empty nothing = { 0 };
	struct om_usage_table table = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "a"), "queued", "network");
	accepted(submit_id(BOB, "b"), "queued", "network");
	accepted(submit_id(OPERATOR, "c"), "queued", "owner");
	fake_advance(5000);
	fake_finish("a", OM_JOB_COMPLETED); /* ran 5 s */
	fake_finish("c", OM_JOB_FAILED); /* waited 5 s, ran 0 s */
	fake_advance(1000);
	counted(cancel(BOB, "b"), 1);
	refused(fake_ask(&bob, OM_PROVIDER, OM_MSG_QUEUE_USAGE, &nothing), OM_ERR_DENIED, "");
	fake_body(fake_ask(&operator, OM_PROVIDER, OM_MSG_QUEUE_USAGE, &nothing),
		  OM_MSG_USAGE_TABLE, &table, &arena);
	assert_int_equal(table.levels.n, 3);
	assert_int_equal(table.levels.v[0].failed, 1);
	assert_in_range(table.levels.v[0].wait_p50_ms, 5000, 6000);
	assert_int_equal(table.levels.v[1].completed, 1);
	assert_int_equal(table.levels.v[1].cancelled, 1);
	assert_int_equal(table.peers.n, 2);
	assert_true(om_str_is(table.peers.v[0].name, "bob"));
	assert_int_equal(table.peers.v[0].run_ms, 6000);
	assert_in_range(table.peers.v[0].run_p99_ms, 5000, 6000);
	om_arena_fini(&arena);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(nothing_starts_before_all_is_back),
		T(a_job_waits_for_the_success_of_others),
		T(a_failure_fails_those_who_wait_and_so_on),
		T(there_is_no_cycle),
		T(a_waiting_job_can_be_cancelled_and_held),
		T(test_an_answer_names_those_that_failed),
		T(a_cancel_that_cannot_be_written_is_not_half_done),
		T(who_waits_is_remembered_over_a_restart),
		T(a_held_job_waits_after_its_approval_too),
		T(a_cancel_that_meets_the_end_of_an_attempt),
		T(a_failed_attempt_is_followed_by_another),
		T(after_the_last_attempt_it_is_dead),
		T(a_retry_survives_a_restart),
		T(a_hold_survives_a_restart),
		T(a_hold_that_cannot_be_written_is_undone),
		T(a_job_that_is_due_does_not_spin),
		T(jobs_are_moved),
		T(places_survive_a_restart),
		T(a_pause_that_is_not_durable_is_in_force_but_an_error),
		T(a_batch_has_a_result_for_each_job),
		T(a_batch_that_a_stop_meets_is_answered),
		T(percentiles_are_right_to_a_fifth),
		T(usage_is_counted_per_level_and_requester),
	};

	return FAKE_RUN(tests);
}
