/* SPDX-License-Identifier: ISC */
/*
 * The order of jobs: who is next, and who has room.  Groups, ageing, and what makes a job wait that
 * has room: actors_job_order_wait_test.c.
 */
#include "actors_job_order_rig.h"
#include "base/parse.h"

/* --- the reference's six ---------------------------------------------------------------------- */

static void
enqueue_and_dequeue(void **state)
{
	struct om_job_order *o = order_new(1, 0, 0);

	(void)state;
	assert_int_equal(add(o, "a", OM_LEVEL_NETWORK, 1, 1), 0);
	assert_int_equal(stats(o).queued, 1);
	assert_string_equal(pick(o, t0), "a");
	assert_int_equal(stats(o).queued, 0);
	assert_int_equal(stats(o).running, 1);
	end(o, "a", OM_ORDER_COMPLETED);
	assert_int_equal(stats(o).running, 0);
	assert_int_equal(stats(o).total_completed, 1);
	assert_string_equal(pick(o, t0), "");
	om_job_order_free(o);
}

static void
priority_ordering(void **state)
{
	struct om_job_order *o = order_new(3, 0, 0);

	(void)state;
	om_job_order_pause(o, OM_STR("test"));
	add(o, "external", OM_LEVEL_EXTERNAL, 1, 1);
	add(o, "network", OM_LEVEL_NETWORK, 1, 1);
	add(o, "owner", OM_LEVEL_OWNER, 1, 1);
	assert_string_equal(pick(o, t0), "");
	om_job_order_resume(o);
	assert_string_equal(pick(o, t0), "owner");
	assert_string_equal(pick(o, t0), "network");
	assert_string_equal(pick(o, t0), "external");
	om_job_order_free(o);
}

static void
concurrent_job_limit(void **state)
{
	struct om_job_order *o = order_new(2, 0, 0);
	char id[] = "0", first[2] = "0";
	uint64_t peak = 0;
	int done = 0;

	(void)state;
	for (; id[0] < '5'; id[0]++) {
		add(o, id, OM_LEVEL_NETWORK, 1, 1);
	}
	while (done < 5) {
		while (pick(o, t0)[0] != '\0') {
		}
		peak = stats(o).running > peak ? stats(o).running : peak;
		end(o, first, OM_ORDER_COMPLETED);
		first[0]++;
		done++;
	}
	assert_int_equal(peak, 2);
	om_job_order_free(o);
}

static void
job_cancellation(void **state)
{
	struct om_job_order *o = order_new(1, 0, 0);
	bool running = true;

	(void)state;
	add(o, "long", OM_LEVEL_NETWORK, 1, 1);
	add(o, "second", OM_LEVEL_NETWORK, 1, 1);
	assert_string_equal(pick(o, t0), "long");
	assert_int_equal(om_job_order_cancel(o, OM_STR("second"), &running), OM_OK);
	assert_false(running);
	assert_int_equal(stats(o).total_cancelled, 1);
	assert_int_equal(om_job_order_cancel(o, OM_STR("second"), &running), OM_ERR_NOT_FOUND);
	end(o, "long", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, t0), "");
	om_job_order_free(o);
}

static void
pause_and_resume(void **state)
{
	struct om_job_order *o = order_new(2, 0, 0);
	char text[OM_ORDER_TEXT_MAX];

	(void)state;
	start(o, "a");
	om_job_order_pause(o, OM_STR("new disk"));
	assert_true(om_job_order_paused(o));
	assert_string_equal(om_job_order_pause_reason(o), "new disk");
	add(o, "b", OM_LEVEL_NETWORK, 1, 1); /* a pause refuses nothing */
	assert_string_equal(pick(o, t0), "");
	assert_int_equal(stats(o).running, 1); /* and stops nothing */
	assert_true(om_job_order_waiting(o, OM_LEVEL_NETWORK, text, sizeof(text)));
	assert_non_null(strstr(text, "paused: new disk"));
	om_job_order_resume(o);
	assert_false(om_job_order_paused(o));
	assert_string_equal(om_job_order_pause_reason(o), "");
	assert_string_equal(pick(o, t0), "b");
	om_job_order_free(o);
}

static void
queue_statistics(void **state)
{
	struct om_job_order *o = order_new(3, 0, 0);

	(void)state;
	assert_true(stats(o).success_rate == 0.0);
	add(o, "a", OM_LEVEL_NETWORK, 1, 1);
	add(o, "b", OM_LEVEL_NETWORK, 1, 1);
	add(o, "c", OM_LEVEL_NETWORK, 1, 1);
	while (pick(o, t0)[0] != '\0') {
	}
	end(o, "b", OM_ORDER_COMPLETED);
	end(o, "a", OM_ORDER_COMPLETED);
	end(o, "c", OM_ORDER_COMPLETED);
	assert_int_equal(stats(o).total_queued, 3);
	assert_int_equal(stats(o).total_completed, 3);
	assert_int_equal(stats(o).total_failed, 0);
	assert_true(stats(o).success_rate == 1.0);
	om_job_order_free(o);
}

/* --- order and room --------------------------------------------------------------------------- */

static void
fifo_inside_a_level(void **state)
{
	struct om_job_order *o = order_new(100, 0, 0);
	char id[16];

	(void)state;
	for (int i = 0; i < 50; i++) {
		(void)snprintf(id, sizeof(id), "j%02d", i);
		assert_int_equal(add(o, id, OM_LEVEL_EXTERNAL, 1, 1), i);
	}
	assert_int_equal(add(o, "net", OM_LEVEL_NETWORK, 1, 1), 0);
	assert_string_equal(pick(o, t0), "net");
	for (int i = 0; i < 50; i++) {
		(void)snprintf(id, sizeof(id), "j%02d", i);
		assert_string_equal(pick(o, t0), id);
	}
	om_job_order_free(o);
}

static void
waits_for_room(void **state) /* A.12 (15): it waits, it does not fail */
{
	struct om_job_order *o = order_new(10, 4, 1000);
	char text[OM_ORDER_TEXT_MAX];

	(void)state;
	add(o, "a", OM_LEVEL_NETWORK, 3, 100);
	add(o, "b", OM_LEVEL_NETWORK, 2, 100);
	assert_string_equal(pick(o, t0), "a");
	assert_string_equal(pick(o, t0), "");
	assert_true(om_job_order_waiting(o, OM_LEVEL_NETWORK, text, sizeof(text)));
	assert_non_null(strstr(text, "wants 2 cores, 1 of 4 are free"));
	assert_false(om_job_order_waiting(o, OM_LEVEL_OWNER, text, sizeof(text)));
	end(o, "a", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, t0), "b");
	add(o, "c", OM_LEVEL_NETWORK, 1, 950);
	assert_string_equal(pick(o, t0), "");
	assert_true(om_job_order_waiting(o, OM_LEVEL_NETWORK, text, sizeof(text)));
	assert_non_null(strstr(text, "wants 950 MiB, 900 of 1000 are free"));
	assert_int_equal(stats(o).cores_used, 2);
	assert_int_equal(stats(o).mem_mib_used, 100);
	om_job_order_free(o);
}

static void
never_fits_is_refused(void **state)
{
	struct om_job_order *o = order_new(10, 4, 1000);
	struct om_order_job job = { .id = OM_STR("x"), .cores = 5, .mem_mib = 1 };
	struct om_why why;
	uint64_t ahead;

	(void)state;
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, &why), OM_ERR_LIMIT);
	assert_non_null(strstr(why.text, "5 cores"));
	job.cores = 4;
	job.mem_mib = 1001;
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, &why), OM_ERR_LIMIT);
	assert_non_null(strstr(why.text, "1001 MiB"));
	job.mem_mib = 1000;
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, &why), OM_OK);
	assert_string_equal(pick(o, t0), "x");
	om_job_order_free(o);
}

static void
passing_is_bounded(void **state)
{
	struct om_job_order *o = order_new(100, 4, 0);
	char id[16];
	int passed = 0;

	(void)state;
	add(o, "first", OM_LEVEL_NETWORK, 2, 1);
	assert_string_equal(pick(o, t0), "first");
	add(o, "big", OM_LEVEL_NETWORK, 4, 1);
	for (int i = 0; i < 30; i++) {
		(void)snprintf(id, sizeof(id), "s%02d", i);
		add(o, id, OM_LEVEL_EXTERNAL, 1, 1);
	}
	/* Small ones use the room that is free, one after the other, and end at once. */
	for (;;) {
		(void)snprintf(id, sizeof(id), "%s", pick(o, t0));
		if (id[0] == '\0') {
			break;
		}
		passed++;
		end(o, id, OM_ORDER_COMPLETED);
	}
	assert_int_equal(passed, OM_ORDER_PASS_MAX);
	/* A higher level is no passing: it goes first anyway. */
	add(o, "owner", OM_LEVEL_OWNER, 1, 1);
	assert_string_equal(pick(o, t0), "owner");
	end(o, "owner", OM_ORDER_COMPLETED);
	end(o, "first", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, t0), "big");
	end(o, "big", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, t0), "s08");
	om_job_order_free(o);
}

static void
scan_is_bounded(void **state)
{
	struct om_job_order *o = order_new(100, 4, 0);
	char id[16];

	(void)state;
	add(o, "first", OM_LEVEL_NETWORK, 3, 1);
	assert_string_equal(pick(o, t0), "first");
	for (int i = 0; i < OM_ORDER_SCAN_MAX; i++) {
		(void)snprintf(id, sizeof(id), "b%02d", i);
		add(o, id, OM_LEVEL_NETWORK, 2, 1);
	}
	add(o, "small", OM_LEVEL_NETWORK, 1, 1);
	assert_string_equal(pick(o, t0), "");
	assert_int_equal(om_job_order_drop(o, OM_STR("b00")), OM_OK);
	assert_string_equal(pick(o, t0), "small");
	om_job_order_free(o);
}

/* --- A.12 ------------------------------------------------------------------------------------- */

static void
bug_07_cancel_of_running_is_no_lie(void **state)
{
	struct om_job_order *o = order_new(1, 0, 0);
	bool running = false;

	(void)state;
	start(o, "a");
	assert_int_equal(om_job_order_cancel(o, OM_STR("a"), &running), OM_OK);
	assert_true(running); /* somebody has to be told */
	assert_int_equal(stats(o).total_cancelled, 0); /* and nothing is counted yet */
	end(o, "a", OM_ORDER_CANCELLED);
	assert_int_equal(stats(o).total_cancelled, 1);
	assert_int_equal(stats(o).total_completed, 0);
	om_job_order_free(o);
}

static void
bug_08_nothing_starts_after_pause(void **state)
{
	struct om_job_order *o = order_new(100, 0, 0);

	(void)state;
	add(o, "a", OM_LEVEL_NETWORK, 1, 1);
	add(o, "b", OM_LEVEL_NETWORK, 1, 1);
	assert_string_equal(pick(o, t0), "a");
	om_job_order_pause(o, OM_STR(""));
	assert_string_equal(pick(o, t0), ""); /* in the middle of the loop */
	om_job_order_free(o);
}

static void
bug_09_failure_counts_as_failed(void **state)
{
	struct om_job_order *o = order_new(2, 0, 0);

	(void)state;
	start(o, "a");
	start(o, "b");
	end(o, "a", OM_ORDER_FAILED);
	end(o, "b", OM_ORDER_COMPLETED);
	assert_int_equal(stats(o).total_failed, 1);
	assert_true(stats(o).success_rate == 0.5);
	om_job_order_free(o);
}

/* --- odds and ends ---------------------------------------------------------------------------- */

static void
bad_input(void **state)
{
	struct om_order_limits none = { .max_jobs = 0 };
	struct om_job_order *o = NULL;
	struct om_order_job job = { .id = OM_STR("a"), .level = OM_LEVELS };
	char longest[OM_JOB_ID_MAX + 2];
	uint64_t ahead;

	(void)state;
	assert_int_equal(om_job_order_new(&none, &o), OM_ERR_INVALID);
	o = order_new(1, 0, 0);
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_ERR_INVALID);
	job.level = OM_LEVEL_OWNER;
	job.id.len = 0;
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_ERR_INVALID);
	memset(longest, 'x', sizeof(longest));
	job.id = (struct om_str){ longest, OM_JOB_ID_MAX + 1 };
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_ERR_INVALID);
	job.id.len = OM_JOB_ID_MAX;
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_OK);
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_ERR_EXISTS);
	assert_int_equal(om_job_order_end(o, job.id, OM_ORDER_COMPLETED), OM_ERR_NOT_FOUND);
	assert_int_equal(om_job_order_set_max_jobs(o, 0), OM_ERR_INVALID);
	assert_int_equal(stats(o).total_completed, 0);
	om_job_order_free(o);
	om_job_order_free(NULL);
}

static void
lowering_the_limit_stops_nothing(void **state)
{
	struct om_job_order *o = order_new(2, 0, 0);

	(void)state;
	add(o, "a", OM_LEVEL_NETWORK, 1, 1);
	add(o, "b", OM_LEVEL_NETWORK, 1, 1);
	add(o, "c", OM_LEVEL_NETWORK, 1, 1);
	assert_string_equal(pick(o, t0), "a");
	assert_string_equal(pick(o, t0), "b");
	assert_int_equal(om_job_order_set_max_jobs(o, 1), OM_OK);
	assert_int_equal(stats(o).running, 2);
	end(o, "a", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, t0), "");
	end(o, "b", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, t0), "c");
	om_job_order_free(o);
}

static void
running_jobs_can_be_walked(void **state)
{
	struct om_job_order *o = order_new(2, 0, 0);
	struct om_order_walk walk = { 0 };

	(void)state;
	start(o, "a");
	start(o, "b");
	assert_true(om_str_is(om_job_order_running(o, &walk), "a"));
	assert_true(om_str_is(om_job_order_running(o, &walk), "b"));
	assert_null(om_job_order_running(o, &walk).ptr);
	om_job_order_free(o);
}

#define MODEL_JOBS  40
#define MODEL_STEPS 200000

/*
 * Random operations beside a model that keeps every job in one array: sums and counts agree after
 * each step, a picked job fits and is the oldest of the best level unless room decides otherwise.
 */
struct model {
	int place; /* 0 absent, 1 waiting, 2 running, 3 held */
	uint32_t cores, mem;
};

static void
model_check(const struct om_job_order *o, const struct model *m)
{
	uint64_t waiting = 0, running = 0, held = 0, cores = 0, mem = 0;
	struct om_order_stats s = stats(o);

	for (int i = 0; i < MODEL_JOBS; i++) {
		waiting += m[i].place == 1 || m[i].place == 3;
		held += m[i].place == 3;
		running += m[i].place == 2;
		cores += m[i].place == 2 ? m[i].cores : 0;
		mem += m[i].place == 2 ? m[i].mem : 0;
	}
	assert_int_equal(s.queued, waiting);
	assert_int_equal(s.held, held);
	assert_int_equal(s.running, running);
	assert_int_equal(s.cores_used, cores);
	assert_int_equal(s.mem_mib_used, mem);
	assert_true(running <= 5 && cores <= 8 && mem <= 800);
}

static void
model_step(struct om_job_order *o, struct model *m, uint32_t rnd)
{
	uint32_t i = rnd / 8 % MODEL_JOBS;
	char id[16];
	bool running;
	struct om_order_job job;
	uint64_t ahead;

	(void)snprintf(id, sizeof(id), "%u", i);
	switch (rnd % 8) {
	case 0:
	case 1:
		job = (struct om_order_job){ .id = om_str_of(id),
					     .level = (enum om_job_level)(rnd / 512 % 3),
					     .cores = rnd / 2048 % 5 + 1,
					     .mem_mib = rnd / 16384 % 500 + 1 };
		if (om_job_order_add(o, &job, t0, &ahead, NULL) == OM_OK) {
			assert_int_equal(m[i].place, 0);
			m[i] = (struct model){ 1, job.cores, job.mem_mib };
		} else {
			assert_int_not_equal(m[i].place, 0);
		}
		break;
	case 2:
	case 3:
		if (om_job_order_pick(o, t0, &job)) {
			uint64_t picked;

			assert_int_equal(om_parse_u64(job.id, 0, MODEL_JOBS - 1, &picked), OM_OK);
			i = (uint32_t)picked;
			assert_int_equal(m[i].place, 1);
			m[i].place = 2;
		}
		break;
	case 4:
		assert_int_equal(om_job_order_end(o, om_str_of(id), OM_ORDER_COMPLETED),
				 m[i].place == 2 ? OM_OK : OM_ERR_NOT_FOUND);
		m[i].place = m[i].place == 2 ? 0 : m[i].place;
		break;
	case 5:
		if (m[i].place != 2 && om_job_order_cancel(o, om_str_of(id), &running) == OM_OK) {
			assert_int_not_equal(m[i].place, 0);
			m[i].place = 0;
		}
		break;
	case 6:
		if (om_job_order_hold(o, om_str_of(id)) == OM_OK) {
			assert_true(m[i].place == 1 || m[i].place == 3);
			m[i].place = 3;
		}
		break;
	case 7:
		if (om_job_order_release(o, om_str_of(id), t0) == OM_OK) {
			assert_true(m[i].place == 1 || m[i].place == 3);
			m[i].place = 1;
		}
		break;
	}
}

static void
agrees_with_a_model(void **state)
{
	struct om_job_order *o = order_new(5, 8, 800);
	struct model m[MODEL_JOBS] = { 0 };
	uint32_t rnd = 12345;

	(void)state;
	for (int step = 0; step < MODEL_STEPS; step++) {
		rnd = rnd * 1664525u + 1013904223u;
		model_step(o, m, rnd >> 4);
		model_check(o, m);
	}
	om_job_order_free(o);
}

#define REFERENCE(test, fn)                                  \
	{                                                    \
		"JobQueueTests." #test, fn, NULL, NULL, NULL \
	}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		REFERENCE(testEnqueueAndDequeue, enqueue_and_dequeue),
		REFERENCE(testPriorityOrdering, priority_ordering),
		REFERENCE(testConcurrentJobLimit, concurrent_job_limit),
		REFERENCE(testJobCancellation, job_cancellation),
		REFERENCE(testPauseAndResume, pause_and_resume),
		REFERENCE(testQueueStatistics, queue_statistics),
		cmocka_unit_test(fifo_inside_a_level),
		cmocka_unit_test(waits_for_room),
		cmocka_unit_test(never_fits_is_refused),
		cmocka_unit_test(passing_is_bounded),
		cmocka_unit_test(scan_is_bounded),
		cmocka_unit_test(bug_07_cancel_of_running_is_no_lie),
		cmocka_unit_test(bug_08_nothing_starts_after_pause),
		cmocka_unit_test(bug_09_failure_counts_as_failed),
		cmocka_unit_test(bad_input),
		cmocka_unit_test(lowering_the_limit_stops_nothing),
		cmocka_unit_test(running_jobs_can_be_walked),
		cmocka_unit_test(agrees_with_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
