/* SPDX-License-Identifier: ISC */
/* The order of jobs: groups, quiet hours, ageing, hold, not_before, and a job that is put back. */
#include "actors_job_order_rig.h"

static void
add_at(struct om_job_order *o, const char *id, int64_t at_ms)
{
	struct om_order_job job = { .id = om_str_of(id), .level = OM_LEVEL_NETWORK, .cores = 1 };
	uint64_t ahead;

	assert_int_equal(om_job_order_add(o, &job, after_ms(at_ms), &ahead, NULL), OM_OK);
}

/* --- groups ----------------------------------------------------------------------------------- */

static void
add_grouped(struct om_job_order *o, const char *id, int64_t at_ms, bool held)
{
	struct om_order_job job = { .id = om_str_of(id),
				    .level = OM_LEVEL_NETWORK,
				    .cores = 1,
				    .held = held,
				    .group = OM_STR("array"),
				    .group_limit = 2 };
	uint64_t ahead;

	assert_int_equal(om_job_order_add(o, &job, after_ms(at_ms), &ahead, NULL), OM_OK);
}

/* At most two of it run, in order, and nobody behind it has to wait for that. */
static void
group_runs_so_many_at_a_time(void **state)
{
	struct om_job_order *o = order_new(10, 0, 0);
	char id[8];

	(void)state;
	add_at(o, "before", 0);
	for (int i = 0; i < 200; i++) { /* more than are looked at */
		(void)snprintf(id, sizeof(id), "g%d", i);
		add_grouped(o, id, 1, false);
	}
	add_at(o, "behind", 2);
	assert_int_equal(stats(o).queued, 202);
	assert_int_equal(stats(o).parked, 198);
	assert_string_equal(pick(o, after_ms(3)), "before");
	assert_string_equal(pick(o, after_ms(3)), "g0");
	assert_string_equal(pick(o, after_ms(3)), "g1");
	assert_string_equal(pick(o, after_ms(3)), "behind");
	assert_string_equal(pick(o, after_ms(3)), "");
	end(o, "g1", OM_ORDER_FAILED);
	assert_string_equal(pick(o, after_ms(4)), "g2");
	assert_string_equal(pick(o, after_ms(4)), "");
	assert_int_equal(om_job_order_put_back(o, OM_STR("g2")), OM_OK);
	assert_string_equal(pick(o, after_ms(4)), "g2");
	assert_string_equal(pick(o, after_ms(4)), "");
	om_job_order_free(o);
}

/* Its turn is that of its submission: before who came later, behind who came earlier. */
static void
group_keeps_its_turn(void **state)
{
	struct om_job_order *o = order_new(3, 0, 0);

	(void)state;
	add_grouped(o, "g0", 1, false);
	add_grouped(o, "g1", 1, false);
	add_grouped(o, "g2", 1, false);
	add_at(o, "later1", 2);
	add_at(o, "later2", 3);
	assert_string_equal(pick(o, after_ms(5)), "g0");
	assert_string_equal(pick(o, after_ms(5)), "g1");
	assert_string_equal(pick(o, after_ms(5)), "later1");
	end(o, "g0", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, after_ms(6)), "g2");
	/* An operator's "to the front" is the front. */
	add_grouped(o, "g3", 7, false);
	add_at(o, "last", 8);
	assert_int_equal(om_job_order_move(o, OM_STR("last"), OM_LEVEL_NETWORK, true), OM_OK);
	end(o, "g1", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, after_ms(9)), "last");
	end(o, "last", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, after_ms(9)), "later2");
	end(o, "later2", OM_ORDER_COMPLETED);
	assert_string_equal(pick(o, after_ms(9)), "g3");
	om_job_order_free(o);
}

/* Whatever takes a job of it away lets the next one in; the group goes with its last job. */
static void
group_goes_on_after_cancel_and_hold(void **state)
{
	struct om_job_order *o = order_new(10, 0, 0);
	bool running;

	(void)state;
	for (int round = 0; round < 2; round++) {
		add_grouped(o, "g0", 1, true);
		add_grouped(o, "g1", 1, false);
		add_grouped(o, "g2", 1, false);
		add_grouped(o, "g3", 1, false);
		add_grouped(o, "g4", 1, false);
		assert_int_equal(stats(o).parked, 2);
		assert_int_equal(om_job_order_hold(o, OM_STR("g3")), OM_OK); /* a parked one */
		assert_int_equal(stats(o).parked, 1);
		assert_int_equal(om_job_order_hold(o, OM_STR("g1")), OM_OK);
		assert_int_equal(stats(o).parked, 0);
		assert_int_equal(om_job_order_release(o, OM_STR("g0"), after_ms(2)), OM_OK);
		assert_int_equal(stats(o).parked, 1);
		assert_int_equal(om_job_order_cancel(o, OM_STR("g2"), &running), OM_OK);
		assert_int_equal(stats(o).parked, 0);
		assert_string_equal(pick(o, after_ms(3)), "g4");
		assert_string_equal(pick(o, after_ms(3)), "g0");
		assert_int_equal(om_job_order_release(o, OM_STR("g1"), after_ms(4)), OM_OK);
		assert_int_equal(om_job_order_release(o, OM_STR("g3"), after_ms(4)), OM_OK);
		assert_int_equal(om_job_order_move(o, OM_STR("g3"), OM_LEVEL_OWNER, true), OM_OK);
		assert_int_equal(om_job_order_drop(o, OM_STR("g1")), OM_OK);
		assert_string_equal(pick(o, after_ms(5)), "");
		end(o, "g4", OM_ORDER_CANCELLED);
		assert_string_equal(pick(o, after_ms(5)), "g3");
		end(o, "g0", OM_ORDER_COMPLETED);
		end(o, "g3", OM_ORDER_COMPLETED);
		assert_int_equal(stats(o).queued + stats(o).running, 0);
	}
	om_job_order_free(o);
}

/* --- time ------------------------------------------------------------------------------------- */

static void
quiet_hours_are_for_all_but_the_owner(void **state)
{
	struct om_job_order *o = order_new(10, 0, 0);
	char text[OM_ORDER_TEXT_MAX];

	(void)state;
	add(o, "external", OM_LEVEL_EXTERNAL, 1, 1);
	add(o, "network", OM_LEVEL_NETWORK, 1, 1);
	add(o, "owner", OM_LEVEL_OWNER, 1, 1);
	om_job_order_quiet(o, true, OM_STR("quiet hours (22:00-08:00)"));
	assert_string_equal(pick(o, t0), "owner");
	assert_string_equal(pick(o, t0), "");
	assert_true(om_job_order_waiting(o, OM_LEVEL_NETWORK, text, sizeof(text)));
	assert_non_null(strstr(text, "quiet hours (22:00-08:00)"));
	om_job_order_quiet(o, false, OM_STR(""));
	assert_string_equal(pick(o, t0), "network");
	assert_string_equal(pick(o, t0), "external");
	om_job_order_free(o);
}

static void
ageing_lifts_the_first(void **state)
{
	struct om_order_limits limits = { .max_jobs = 1, .age_ms = 1000 };
	struct om_job_order *o = NULL;

	(void)state;
	assert_int_equal(om_job_order_new(&limits, &o), OM_OK);
	add(o, "ext", OM_LEVEL_EXTERNAL, 1, 1); /* at t0 */
	add_at(o, "n0", 900);
	add_at(o, "n1", 900);
	assert_string_equal(pick(o, after_ms(999)), "n0");
	end(o, "n0", OM_ORDER_COMPLETED);
	/* One step up: equal with network, and the higher level of two equal ones goes first. */
	assert_string_equal(pick(o, after_ms(1000)), "n1");
	end(o, "n1", OM_ORDER_COMPLETED);
	add_at(o, "n2", 2000);
	assert_string_equal(pick(o, after_ms(2000)), "ext");
	om_job_order_free(o);
}

/* Switched on for a job that waits already. */
static void
ageing_changes_while_jobs_wait(void **state)
{
	struct om_job_order *o = order_new(1, 0, 0);

	(void)state;
	add(o, "ext", OM_LEVEL_EXTERNAL, 1, 1); /* at t0 */
	om_job_order_set_age(o, 1000);
	add_at(o, "n0", 2000);
	assert_string_equal(pick(o, after_ms(2000)), "ext");
	om_job_order_free(o);
}

/* --- hold, not_before, putting back ----------------------------------------------------------- */

static void
hold_and_release(void **state)
{
	struct om_job_order *o = order_new(10, 0, 0);
	struct om_order_job held = { .id = OM_STR("h"), .level = OM_LEVEL_OWNER, .held = true };
	uint64_t ahead;

	(void)state;
	assert_int_equal(om_job_order_add(o, &held, t0, &ahead, NULL), OM_OK);
	add(o, "a", OM_LEVEL_NETWORK, 1, 1);
	add(o, "b", OM_LEVEL_NETWORK, 1, 1);
	assert_int_equal(om_job_order_hold(o, OM_STR("a")), OM_OK);
	assert_int_equal(om_job_order_hold(o, OM_STR("a")), OM_OK);
	assert_int_equal(stats(o).held, 2);
	assert_string_equal(pick(o, t0), "b");
	assert_string_equal(pick(o, t0), "");
	assert_int_equal(om_job_order_hold(o, OM_STR("b")), OM_ERR_STATE);
	assert_int_equal(om_job_order_release(o, OM_STR("b"), t0), OM_ERR_STATE);
	assert_int_equal(om_job_order_hold(o, OM_STR("?")), OM_ERR_NOT_FOUND);
	assert_int_equal(om_job_order_release(o, OM_STR("a"), t0), OM_OK);
	assert_int_equal(om_job_order_release(o, OM_STR("a"), t0), OM_OK);
	assert_int_equal(om_job_order_release(o, OM_STR("h"), t0), OM_OK);
	assert_string_equal(pick(o, t0), "h");
	assert_string_equal(pick(o, t0), "a");
	om_job_order_free(o);
}

static void
not_before_delays(void **state)
{
	struct om_job_order *o = order_new(10, 0, 0);
	struct om_order_job job = { .id = OM_STR("late"),
				    .level = OM_LEVEL_OWNER,
				    .not_before = after_ms(5000) };
	bool running;
	uint64_t ahead;

	(void)state;
	assert_int_equal(om_job_order_due(o).ns, 0);
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_OK);
	job.id = OM_STR("soon");
	job.not_before = after_ms(3000);
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_OK);
	job.id = OM_STR("past");
	job.not_before = after_ms(-1);
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_OK);
	job.id = OM_STR("gone");
	job.not_before = after_ms(1000);
	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_OK);
	assert_int_equal(om_job_order_due(o).ns, after_ms(1000).ns);
	assert_int_equal(om_job_order_cancel(o, OM_STR("gone"), &running), OM_OK);
	assert_int_equal(om_job_order_due(o).ns, after_ms(3000).ns);
	assert_string_equal(pick(o, t0), "past");
	assert_string_equal(pick(o, after_ms(2999)), "");
	assert_string_equal(pick(o, after_ms(3000)), "soon");
	/* Released before its time it still waits for it. */
	assert_int_equal(om_job_order_hold(o, OM_STR("late")), OM_OK);
	assert_int_equal(om_job_order_due(o).ns, 0);
	assert_int_equal(om_job_order_release(o, OM_STR("late"), after_ms(4000)), OM_OK);
	assert_string_equal(pick(o, after_ms(4000)), "");
	assert_string_equal(pick(o, after_ms(5000)), "late");
	om_job_order_free(o);
}

static void
put_back_is_first_again(void **state)
{
	struct om_job_order *o = order_new(10, 4, 0);
	bool running = false;

	(void)state;
	add(o, "a", OM_LEVEL_NETWORK, 2, 1);
	add(o, "b", OM_LEVEL_NETWORK, 2, 1);
	assert_string_equal(pick(o, t0), "a");
	assert_int_equal(om_job_order_put_back(o, OM_STR("a")), OM_OK);
	assert_int_equal(stats(o).cores_used, 0);
	assert_int_equal(stats(o).total_queued, 2);
	assert_string_equal(pick(o, t0), "a");
	/* Cancelled while the executor had it: a put-back is its end. */
	assert_int_equal(om_job_order_cancel(o, OM_STR("a"), &running), OM_OK);
	assert_true(running);
	assert_int_equal(stats(o).running, 1);
	assert_int_equal(om_job_order_put_back(o, OM_STR("a")), OM_ERR_CANCELLED);
	assert_int_equal(stats(o).total_cancelled, 1);
	assert_int_equal(om_job_order_put_back(o, OM_STR("a")), OM_ERR_NOT_FOUND);
	assert_int_equal(om_job_order_put_back(o, OM_STR("b")), OM_ERR_NOT_FOUND);
	assert_string_equal(pick(o, t0), "b");
	om_job_order_free(o);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(group_runs_so_many_at_a_time),
		cmocka_unit_test(group_keeps_its_turn),
		cmocka_unit_test(group_goes_on_after_cancel_and_hold),
		cmocka_unit_test(quiet_hours_are_for_all_but_the_owner),
		cmocka_unit_test(ageing_lifts_the_first),
		cmocka_unit_test(ageing_changes_while_jobs_wait),
		cmocka_unit_test(hold_and_release),
		cmocka_unit_test(not_before_delays),
		cmocka_unit_test(put_back_is_first_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
