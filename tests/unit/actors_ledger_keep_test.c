/* SPDX-License-Identifier: ISC */
/*
 * The ledger on a real bus and a real store, in simulation: its lists, its audit trail, and what it
 * keeps for how long.
 */
#include "actors_ledger_rig.h"

static void
ask_set(const char *key, bool remove)
{
	struct om_ledger_set m = { 0 };

	OM_SET(&m, ledger_set, list, OM_STR("trusted"));
	OM_SET(&m, ledger_set, key, om_str_of(key));
	OM_SET(&m, ledger_set, by, OM_STR("uid:0"));
	if (remove) {
		OM_SET(&m, ledger_set, remove, true);
	}
	ask(OM_MSG_LEDGER_SET, &m);
}

static void
test_lists(void **state)
{
	struct om_ledger_list list = { .list = OM_STR("trusted") };
	const struct om_ledger_items *items;

	(void)state;
	ask_set("lab", false);
	ask_set("home", false);
	ask_set("lab", true);
	ask_set("never", true);
	ask(OM_MSG_LEDGER_LIST, &list);
	go();
	OK(W.answers[3].err);
	items = body_of(4, OM_MSG_LEDGER_ITEMS);
	assert_int_equal(items->items.n, 1);
	STR_IS(items->items.v[0].key, "home");
	assert_string_equal(W.audit, "config_changed ");
	assert_int_equal(W.audit_seq, 3);
	FILE_IS("SELECT actor || ' ' || details FROM audit_log WHERE seq = 3",
		"uid:0 trusted: removed lab");
}

/* What was taken out of a list by a group that is not on the disk yet is not gone. */
static void
test_what_is_gone_already_waits_for_the_disk_too(void **state)
{
	(void)state;
	ask_set("lab", false);
	go();
	fault_set(FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 1);
	ask_set("lab", true);
	ask_set("lab", true);
	go();
	ERR(OM_ERR_DISK, W.answers[0].err);
	ERR(OM_ERR_DISK, W.answers[1].err);
	fault_clear();
	ask_set("lab", true);
	ask_set("lab", true);
	ask_set("never", true);
	go();
	for (size_t i = 0; i < 3; i++) {
		OK(W.answers[i].err);
	}
	assert_true(strstr(W.order, "a0 a1 a2 ") != NULL);
}

/* Entries about no job. */
static void
put_entries(size_t n)
{
	const struct om_audit_note row = { .event = OM_STR("reloaded") };

	store_begin();
	for (size_t i = 0; i < n; i++) {
		OK(om_store_audit_append(W.fx.st, fx_at(0), &row));
	}
	store_commit();
}

/* However long the trail, one question holds up nobody: it says how far it has looked. */
static void
test_audit_is_looked_through_in_steps(void **state)
{
	struct om_audit_query query = { 0 };
	const struct om_audit_table *table;
	size_t steps = 0, found = 0;

	(void)state;
	put_entries(9000);
	ask_plain("a1");
	go();
	OM_SET(&query, audit_query, job, OM_STR("a1"));
	do {
		ask(OM_MSG_LEDGER_AUDIT, &query);
		go();
		table = body_of(0, OM_MSG_AUDIT_TABLE);
		found += table->entries.n;
		assert_true(table->scanned > query.after_seq);
		assert_true(table->scanned - query.after_seq <= 4000);
		OM_SET(&query, audit_query, after_seq, table->scanned);
		steps++;
	} while (table->more);
	assert_int_equal(found, 2); /* received, accepted */
	assert_int_equal(steps, 3);
	assert_int_equal(query.after_seq, 9002);
}

static void
test_audit_is_read_and_verified(void **state)
{
	struct om_audit_query query = { 0 };
	struct om_audit_entry entry = { 0 };
	const struct om_audit_table *table;
	const struct om_audit_report *report;

	(void)state;
	OM_SET(&entry, audit_entry, event, OM_STR("daemon_started"));
	OM_SET(&entry, audit_entry, details, OM_STR("0.1.0"));
	ask(OM_MSG_AUDIT_APPEND, &entry);
	ask_plain("a1");
	OM_SET(&query, audit_query, after_seq, 1);
	ask(OM_MSG_LEDGER_AUDIT, &query);
	ask(OM_MSG_LEDGER_AUDIT_VERIFY, &(struct om_empty){ 0 });
	go();
	om_sim_advance(W.sys, 100);
	table = body_of(2, OM_MSG_AUDIT_TABLE);
	assert_int_equal(table->entries.n, 2);
	STR_IS(table->entries.v[0].event, "received");
	STR_IS(table->entries.v[0].peer, "alice");
	assert_int_equal(table->entries.v[1].hash.len, 64);
	report = body_of(3, OM_MSG_AUDIT_REPORT);
	assert_true(report->intact);
	assert_int_equal(report->entries, 3);
	let_fold();
	fx_tamper(&W.fx, "UPDATE trail SET actor = 'nobody' WHERE seq = 2");
	ask(OM_MSG_LEDGER_AUDIT_VERIFY, &(struct om_empty){ 0 });
	go();
	om_sim_advance(W.sys, 100);
	report = body_of(0, OM_MSG_AUDIT_REPORT);
	assert_false(report->intact);
	assert_int_equal(report->bad_seq, 2);
}

static void
test_no_event_is_lost_when_the_provider_is_behind(void **state)
{
	char id[16], *at;
	int i, n = 0;

	(void)state;
	/* Room for four: the rest has to wait, and comes in order. */
	world_stop();
	provider_def.backlog = 4;
	world_start();
	for (i = 0; i < 40; i++) {
		(void)snprintf(id, sizeof(id), "j%d", i);
		ask_plain(id);
	}
	go();
	assert_int_equal(W.answer_count, 40);
	for (i = 0; i < 60; i++) {
		om_sim_advance(W.sys, 1000);
	}
	for (at = strchr(W.order, ':'); at != NULL; at = strchr(at + 1, ':')) {
		(void)snprintf(id, sizeof(id), " j%d:", n++);
		assert_memory_equal(at - strlen(id) + 1, id, strlen(id));
	}
	assert_int_equal(n, 40);
}

static void
test_retention(void **state)
{
	const struct om_job_info result = exit_0();

	(void)state;
	ask_running("old");
	ask_move("old", "completed", &result);
	go();
	world_stop();
	W.conf.keep_ms = 3600 * 1000;
	W.conf.audit_keep_ms = 7200 * 1000;
	world_start();
	ask_job("", OM_ROLE_OPERATOR, "old");
	go();
	OK(W.answers[0].err);
	W.now = fx_at(3700);
	om_sim_advance(W.sys, 151000); /* nothing is written: a look in each 24th of the time */
	ask_job("", OM_ROLE_OPERATOR, "old");
	go();
	ERR(OM_ERR_NOT_FOUND, W.answers[0].err);
	FILE_IS("SELECT count(*) FROM audit_log", "5");
	W.now = fx_at(7300);
	om_sim_advance(W.sys, 151000);
	FILE_IS("SELECT group_concat(event) FROM audit_log", "audit.cut");
}

static void
test_idle_means_idle(void **state)
{
	struct om_system_stats before, after;

	(void)state;
	ask_plain("a1");
	go();
	om_sim_advance(W.sys, 60 * 1000); /* the bus looks once after the time of the last ask */
	om_system_stats(W.sys, &before);
	om_sim_advance(W.sys, 10 * 60 * 1000);
	om_system_stats(W.sys, &after);
	assert_int_equal(after.handled, before.handled);
}

/* BUG: with limits of retention, which a daemon has by default, the ledger looked at them every minute
 * for ever. */
static void
test_idle_with_retention(void **state)
{
	struct om_system_stats before, after;

	(void)state;
	world_stop();
	W.conf.keep_ms = UINT64_C(90) * 24 * 3600 * 1000;
	W.conf.keep_bytes = UINT64_C(1) << 34;
	world_start();
	ask_plain("a1");
	go();
	om_sim_advance(W.sys, 121 * 1000); /* a minute after the write; and the bus, see above */
	om_system_stats(W.sys, &before);
	om_sim_advance(W.sys, 50 * 60 * 1000);
	om_system_stats(W.sys, &after);
	assert_int_equal(after.handled, before.handled);
	om_sim_advance(W.sys, 24 * 3600 * 1000);
	om_system_stats(W.sys, &after);
	assert_in_range(after.handled - before.handled, 24, 26);
}

/* A write has the limits looked at within a minute. */
static void
test_retention_after_a_write(void **state)
{
	const struct om_job_info result = exit_0();

	(void)state;
	world_stop();
	W.conf.keep_ms = UINT64_C(90) * 24 * 3600 * 1000;
	world_start();
	ask_running("old");
	ask_move("old", "completed", &result);
	go();
	om_sim_advance(W.sys, 120 * 1000);
	W.now = fx_at(91 * 24 * 3600);
	ask_plain("new");
	go();
	om_sim_advance(W.sys, 61 * 1000);
	ask_job("", OM_ROLE_OPERATOR, "old");
	go();
	ERR(OM_ERR_NOT_FOUND, W.answers[0].err);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_lists),
		T(test_what_is_gone_already_waits_for_the_disk_too),
		T(test_audit_is_looked_through_in_steps),
		T(test_audit_is_read_and_verified),
		T(test_no_event_is_lost_when_the_provider_is_behind),
		T(test_retention),
		T(test_idle_means_idle),
		T(test_idle_with_retention),
		T(test_retention_after_a_write),
	};

	om_log_init(OM_LOG_ERROR + 1, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
