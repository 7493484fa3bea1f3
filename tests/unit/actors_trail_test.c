/* SPDX-License-Identifier: ISC */
/* activity_logger on the real bus in sim mode. */
#include "actors_manager_rig.h"

static void
the_trail_is_read_followed_and_verified(void **state)
{
	struct om_audit_query query = { 0 };
	struct om_audit_table table = { 0 };
	struct om_audit_report report = { 0 };
	struct om_audit_entry entry = { .event = OM_STR("config_changed") };
	struct om_empty nothing = { 0 };
	struct om_arena arena = { 0 };
	struct fake_answer *a;
	struct om_caller actor = ACTOR;

	(void)state;
	fake_up();
	assert_int_equal(fake_trail("daemon_started"), 0);
	fake_body(operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query), OM_MSG_AUDIT_TABLE,
		  &table, &arena);
	assert_int_equal(table.entries.n, 1);
	OM_SET(&query, audit_query, after_seq, 1);
	OM_SET(&query, audit_query, follow, true);
	a = operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query);
	assert_false(a->done);
	ok(fake_ask(&actor, OM_LEDGER, OM_MSG_AUDIT_APPEND, &entry));
	fake_body(a, OM_MSG_AUDIT_TABLE, &table, &arena);
	assert_int_equal(table.entries.n, 1);
	assert_true(om_str_is(table.entries.v[0].event, "config_changed"));
	/* Nothing happens: an empty answer in the end, so that nobody waits in vain. */
	OM_SET(&query, audit_query, after_seq, 2);
	a = operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query);
	fake_advance(59000);
	assert_false(a->done);
	fake_advance(2000);
	fake_body(a, OM_MSG_AUDIT_TABLE, &table, &arena);
	assert_int_equal(table.entries.n, 0);
	fake_body(operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_VERIFY, &nothing),
		  OM_MSG_AUDIT_REPORT, &report, &arena);
	assert_true(report.intact);
	om_arena_fini(&arena);
}

/* With nothing that fits, each new entry costs itself, not the whole trail again. */
static void
test_a_follower_goes_on_where_it_has_looked(void **state)
{
	struct om_audit_query query = { 0 };
	struct om_audit_table table = { 0 };
	struct om_audit_entry entry = { .event = OM_STR("config_changed") };
	struct om_arena arena = { 0 };
	struct fake_answer *a;
	struct om_caller actor = ACTOR;

	(void)state;
	fake_up();
	OM_SET(&query, audit_query, job, OM_STR("j"));
	OM_SET(&query, audit_query, follow, true);
	a = operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query);
	for (int i = 0; i < 5; i++) {
		ok(fake_ask(&actor, OM_LEDGER, OM_MSG_AUDIT_APPEND, &entry));
	}
	assert_false(a->done);
	assert_true(disk.trail_count >= 5);
	assert_int_equal(disk.trail_after, disk.trail_count - 1);
	fake_advance(61000);
	fake_body(a, OM_MSG_AUDIT_TABLE, &table, &arena);
	assert_int_equal(table.entries.n, 0);
	assert_int_equal(table.scanned, disk.trail_count); /* and so does its next question */
	om_arena_fini(&arena);
}

static void
a_stop_is_in_the_trail(void **state)
{
	(void)state;
	fake_up();
	fake_down();
	assert_true(fake_trail("daemon_stopped") > 0);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(the_trail_is_read_followed_and_verified),
		T(test_a_follower_goes_on_where_it_has_looked),
		T(a_stop_is_in_the_trail),
	};

	return FAKE_RUN(tests);
}
