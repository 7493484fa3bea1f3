/* SPDX-License-Identifier: ISC */
/* What the ledger leaves in its files, and what it tells when nobody listens. */
#include "actors_ledger_rig.h"

#define KEY "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

/* Both files as they lie on the disk. */
static bool
files_hold(const char *text)
{
	static const char *const ends[] = { "", "-wal" };
	bool found = false;

	for (size_t i = 0; i < OM_COUNT(ends); i++) {
		char path[128], *all;
		size_t len;
		FILE *f;

		(void)snprintf(path, sizeof(path), "%s%s", W.fx.path, ends[i]);
		f = fopen(path, "rb");
		assert_non_null(f);
		all = malloc(FX_WAL_BYTES * 4);
		assert_non_null(all);
		len = fread(all, 1, FX_WAL_BYTES * 4, f);
		assert_true(feof(f));
		found = found || memmem(all, len, text, strlen(text)) != NULL;
		free(all);
		(void)fclose(f);
	}
	return found;
}

static void
ask_keyed(const char *id)
{
	const struct om_str address = OM_STR("10.9.0.2/32");
	struct om_job_submit spec = plain_spec();
	struct om_vpn_config vpn = { 0 };

	OM_SET(&vpn, vpn_config, private_key, OM_STR(KEY));
	OM_SET(&vpn, vpn_config, addresses, ((struct om_strs){ &address, 1 }));
	OM_SET(&vpn, vpn_config, peer_public_key, OM_STR("public"));
	OM_SET(&vpn, vpn_config, endpoint, OM_STR("192.0.2.1:51820"));
	OM_SET(&vpn, vpn_config, allowed_ips, ((struct om_strs){ &address, 1 }));
	OM_SET(&spec, job_submit, vpn, &vpn);
	ask_submit(id, &spec, true);
	go();
}

static void
test_a_key_leaves_the_files_after_the_end(void **state)
{
	(void)state;
	warm_up();
	ask_keyed("keyed");
	assert_true(files_hold(KEY)); /* a queued job survives a crash */
	ask_move("keyed", "cancelled", NULL);
	go();
	om_sim_advance(W.sys, 1500);
	assert_false(files_hold(KEY));
	/* The log is in order: what is written next is there after a crash. */
	ask_plain("next");
	go();
	world_stop();
	world_start();
	FX_ASK_IS(&W.fx, "SELECT count(*) FROM job", "3");
	FX_ASK_IS(&W.fx, "PRAGMA integrity_check", "ok");
}

static void
test_a_key_leaves_the_files_at_a_stop(void **state)
{
	(void)state;
	warm_up();
	ask_keyed("keyed");
	ask_move("keyed", "cancelled", NULL);
	go();
	assert_true(files_hold(KEY)); /* else this tests nothing */
	world_stop();
	assert_false(files_hold(KEY));
	world_start();
}

/* Somebody reads the file for long: the key goes when they are gone. */
static void
test_a_reader_delays_the_wipe(void **state)
{
	sqlite3 *db = NULL;

	(void)state;
	warm_up();
	ask_keyed("keyed");
	assert_int_equal(sqlite3_open(W.fx.path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT * FROM job", NULL, NULL, NULL), SQLITE_OK);
	ask_move("keyed", "cancelled", NULL);
	go();
	om_sim_advance(W.sys, 1500);
	assert_true(files_hold(KEY));
	assert_int_equal(
	    sqlite3_exec(db, "SELECT count(*) FROM job_spec; COMMIT", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	om_sim_advance(W.sys, 1500);
	assert_false(files_hold(KEY));
}

static void
ask_output_at(const char *data, uint64_t offset)
{
	struct om_ledger_output m = { 0 };

	OM_SET(&m, ledger_output, job, OM_STR("a1"));
	OM_SET(&m, ledger_output, data, ((struct om_bin){ (const uint8_t *)data, strlen(data) }));
	OM_SET(&m, ledger_output, offset, offset);
	ask(OM_MSG_LEDGER_OUTPUT, &m);
}

/* An append that was done although its answer did not come in time was done twice. */
static void
test_output_sent_again_is_stored_once(void **state)
{
	(void)state;
	ask_plain("a1");
	ask_move("a1", "provisioning", NULL);
	ask_move("a1", "running", NULL);
	ask_output_at("Hello ", 0);
	ask_output_at("Hello ", 0); /* in the same group */
	go();
	ERR(OM_OK, W.answers[4].err);
	ask_output_at("Hello ", 0); /* in another */
	ask_output_at("lo from VM", 3); /* one part is there */
	ask_output_at("?", 99); /* a gap */
	go();
	ERR(OM_OK, W.answers[0].err);
	ERR(OM_OK, W.answers[1].err);
	ERR(OM_ERR_STATE, W.answers[2].err);
	FX_ASK_IS(&W.fx, "SELECT group_concat(data, '') FROM outputs", "Hello from VM");
}

static void
test_only_needed_events_when_nobody_listens(void **state)
{
	const struct om_events_wanted no = { .on = false }, yes = { .on = true };
	const struct om_job_info result = exit_0();

	(void)state;
	ask(OM_MSG_EVENTS_WANTED, &no);
	ask_plain("j1");
	ask_move("j1", "provisioning", NULL);
	ask_move("j1", "running", NULL);
	go();
	assert_null(strchr(W.order, '>'));
	ask_move("j1", "completed", &result);
	go();
	assert_non_null(strstr(W.order, "j1:running>completed!"));
	ask(OM_MSG_EVENTS_WANTED, &yes);
	ask_plain("j2");
	go();
	assert_non_null(strstr(W.order, "j2:received>queued"));
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_key_leaves_the_files_after_the_end),
		T(test_a_key_leaves_the_files_at_a_stop),
		T(test_a_reader_delays_the_wipe),
		T(test_output_sent_again_is_stored_once),
		T(test_only_needed_events_when_nobody_listens),
	};

	om_log_init(OM_LOG_ERROR + 1, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
