/* SPDX-License-Identifier: ISC */
/* What the ledger leaves in its files and beside a job, and what it tells when nobody listens. */
#include "actors_ledger_rig.h"

#define KEY "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

/* Both files as they lie on the disk. */
static bool
files_hold(const void *bytes, size_t bytes_len)
{
	static const char *const ends[] = { "", "-wal", "-log", "-log2" };
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
		found = found || memmem(all, len, bytes, bytes_len) != NULL;
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

/* The sealed box of the job's keys. */
static uint8_t box[64];

static void
take_box(void)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;

	assert_int_equal(sqlite3_open(W.fx.path, &db), SQLITE_OK);
	assert_int_equal(
	    sqlite3_prepare_v2(db,
			       "SELECT body FROM job_spec s JOIN job j ON j.seq = s.job"
			       " WHERE j.id = 'keyed'",
			       -1, &s, NULL),
	    SQLITE_OK);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	assert_true(sqlite3_column_bytes(s, 0) > (int)sizeof(box));
	memcpy(box, sqlite3_column_blob(s, 0), sizeof(box));
	assert_int_equal(box[0], 0xc1);
	assert_int_equal(sqlite3_finalize(s), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static bool
files_hold_box(void)
{
	return files_hold(box, sizeof(box));
}

static bool
files_hold_key(void)
{
	uint8_t raw[32];

	assert_int_equal(om_parse_base64(OM_STR(KEY), raw, sizeof(raw)), OM_OK);
	return files_hold(KEY, sizeof(KEY) - 1) || files_hold(raw, sizeof(raw));
}

/* What job_run would get. */
static enum om_err
key_given(struct om_str *key)
{
	struct om_job_ref ref = { .job = OM_STR("keyed") };
	static struct om_job_submit submit;
	const struct om_ledger_spec *spec;
	struct om_why why;

	ask(OM_MSG_LEDGER_SPEC_GET, &ref);
	go();
	if (W.answers[0].err != OM_OK) {
		return W.answers[0].err;
	}
	spec = body_of(0, OM_MSG_LEDGER_SPEC);
	OK(om_body_decode(OM_BODY_job_submit, spec->spec, &submit, &W.arena, &why));
	*key = submit.vpn->private_key;
	return OM_OK;
}

/* The promise: no key on a disk.  The daemon's own restarts do not lose it, the machine's does. */
static void
test_a_key_is_never_in_the_files(void **state)
{
	struct om_str key = OM_STR("");

	(void)state;
	warm_up();
	ask_keyed("keyed");
	let_fold();
	take_box();
	assert_true(files_hold_box()); /* the job is durable */
	assert_false(files_hold_key());
	OK(key_given(&key));
	assert_true(om_str_is(key, KEY));
	assert_false(files_hold_key());
	world_stop();
	world_start();
	OK(key_given(&key));
	assert_true(om_str_is(key, KEY));
	world_stop();
	test_seal_key[0] ^= 1; /* the run directory was emptied */
	world_start();
	ERR(OM_ERR_KEYS_LOST, key_given(&key));
	test_seal_key[0] ^= 1;
}

static void
test_a_key_leaves_the_files_after_the_end(void **state)
{
	(void)state;
	warm_up();
	ask_keyed("keyed");
	let_fold();
	take_box();
	assert_true(files_hold_box()); /* a queued job survives a crash */
	ask_move("keyed", "cancelled", NULL);
	go();
	om_sim_advance(W.sys, 1500);
	assert_false(files_hold_box());
	/* The log is in order: what is written next is there after a crash. */
	ask_plain("next");
	go();
	world_stop();
	world_start();
	FILE_IS("SELECT count(*) FROM job", "3");
	FILE_IS("PRAGMA integrity_check", "ok");
}

static void
test_a_key_leaves_the_files_at_a_stop(void **state)
{
	(void)state;
	warm_up();
	ask_keyed("keyed");
	let_fold();
	take_box();
	ask_move("keyed", "cancelled", NULL);
	go();
	assert_true(files_hold_box()); /* else this tests nothing */
	world_stop();
	assert_false(files_hold_box());
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
	let_fold();
	take_box();
	assert_int_equal(sqlite3_open(W.fx.path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT * FROM job", NULL, NULL, NULL), SQLITE_OK);
	ask_move("keyed", "cancelled", NULL);
	go();
	om_sim_advance(W.sys, 1500);
	assert_true(files_hold_box());
	assert_int_equal(
	    sqlite3_exec(db, "SELECT count(*) FROM job_spec; COMMIT", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	om_sim_advance(W.sys, 1500);
	assert_false(files_hold_box());
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
	ask_running("a1");
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
	FILE_IS("SELECT group_concat(data, '') FROM outputs", "Hello from VM");
}

static void
test_only_needed_events_when_nobody_listens(void **state)
{
	const struct om_events_wanted no = { .on = false }, yes = { .on = true };
	const struct om_job_info result = exit_0();

	(void)state;
	ask(OM_MSG_EVENTS_WANTED, &no);
	ask_running("j1");
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

/* --- beside a job that ended ------------------------------------------------------------------ */

static struct om_vpn_config
vpn_with_key(const struct om_str *address)
{
	struct om_vpn_config vpn = { 0 };

	OM_SET(&vpn, vpn_config, private_key,
	       OM_STR("cHJpdmF0ZSBrZXkgb2YgdGhlIGpvYiEhISEhISEhISE="));
	OM_SET(&vpn, vpn_config, addresses, ((struct om_strs){ address, 1 }));
	OM_SET(&vpn, vpn_config, peer_public_key, OM_STR("public"));
	OM_SET(&vpn, vpn_config, endpoint, OM_STR("192.0.2.1:51820"));
	OM_SET(&vpn, vpn_config, allowed_ips, ((struct om_strs){ address, 1 }));
	return vpn;
}

/* A job that is rejected never moves, so its keys stayed in the ledger for ever. */
static void
test_a_rejected_job_leaves_no_private_key(void **state)
{
	struct om_str address = OM_STR("10.9.0.2/32");
	struct om_vpn_config vpn = vpn_with_key(&address);
	struct om_job_submit spec = plain_spec();

	(void)state;
	OM_SET(&spec, job_submit, vpn, &vpn);
	ask_submit_as("rejected", "a1", &spec, true);
	ask_submit_as("rejected", "a1", &spec, true); /* still the same job */
	go();
	FILE_IS("SELECT instr(body, 'cHJpdmF0ZSBr') > 0 FROM job_spec", "0");
	FILE_IS("SELECT length(body) FROM job_spec", "1");
	assert_true(((const struct om_ledger_stored *)body_of(1, OM_MSG_LEDGER_STORED))->duplicate);
}

static void
test_private_keys_are_taken_out_at_the_end(void **state)
{
	struct om_str address = OM_STR("10.9.0.2/32");
	struct om_vpn_config vpn = vpn_with_key(&address);
	struct om_job_submit spec = plain_spec();
	struct om_job_ref ref = { .job = OM_STR("a1") };
	const struct om_job_info result = exit_0();

	(void)state;
	OM_SET(&spec, job_submit, vpn, &vpn);
	ask_submit("a1", &spec, true);
	ask(OM_MSG_LEDGER_SPEC_GET, &ref);
	go();
	FILE_IS("SELECT hex(substr(body, 1, 1)) FROM job_spec", "C1"); /* sealed */
	ask_run("a1");
	ask_move("a1", "completed", &result);
	ask_submit("a1", &spec, true); /* still the same job */
	ask(OM_MSG_LEDGER_SPEC_GET, &ref);
	go();
	FILE_IS("SELECT hex(substr(body, 1, 1)) = 'C1' FROM job_spec", "0");
	assert_true(((const struct om_ledger_stored *)body_of(3, OM_MSG_LEDGER_STORED))->duplicate);
	(void)body_of(4, OM_MSG_LEDGER_SPEC);
}

static void
test_evidence_of_a_rogue_job(void **state)
{
	const struct om_pair pairs[] = { { OM_STR("protocol"), OM_STR("tcp") },
					 { OM_STR("to"), OM_STR("192.168.1.1:22") } };
	struct om_job_info result = exit_0();
	const struct om_job_info *info;

	(void)state;
	OM_SET(&result, job_info, evidence, ((struct om_pairs){ pairs, 2 }));
	ask_running("a1");
	ask_move("a1", "rogue_killed", &result);
	ask_job("alice", OM_ROLE_REQUESTER, "a1");
	go();
	info = body_of(4, OM_MSG_JOB_INFO);
	assert_int_equal(info->evidence.n, 2);
	STR_IS(info->evidence.v[1].key, "to");
	STR_IS(info->evidence.v[1].value, "192.168.1.1:22");
	FILE_IS("SELECT data FROM outputs WHERE name='evidence'",
		"protocol: tcp\nto: 192.168.1.1:22\n");
}

/* They were in the daemon's log alone, and the job was a success. */
static void
test_files_that_were_not_taken(void **state)
{
	const struct om_pair pairs[] = { { OM_STR("a: b"), OM_STR("No such file or directory") },
					 { OM_STR("big"), OM_STR("over the limit") } };
	struct om_job_info result = exit_0();
	const struct om_job_info *info;

	(void)state;
	OM_SET(&result, job_info, files_missing, ((struct om_pairs){ pairs, 2 }));
	OM_SET(&result, job_info, output_truncated, true);
	ask_running("a1");
	ask_move("a1", "completed", &result);
	ask_job("alice", OM_ROLE_REQUESTER, "a1");
	go();
	info = body_of(4, OM_MSG_JOB_INFO);
	assert_int_equal(info->files.n, 0);
	assert_int_equal(info->files_missing.n, 2);
	assert_true(info->output_truncated);
	STR_IS(info->files_missing.v[0].key, "a: b");
	STR_IS(info->files_missing.v[0].value, "No such file or directory");
	STR_IS(info->files_missing.v[1].key, "big");
	STR_IS(info->files_missing.v[1].value, "over the limit");
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_key_is_never_in_the_files),
		T(test_a_key_leaves_the_files_after_the_end),
		T(test_a_key_leaves_the_files_at_a_stop),
		T(test_a_reader_delays_the_wipe),
		T(test_output_sent_again_is_stored_once),
		T(test_only_needed_events_when_nobody_listens),
		T(test_a_rejected_job_leaves_no_private_key),
		T(test_private_keys_are_taken_out_at_the_end),
		T(test_evidence_of_a_rogue_job),
		T(test_files_that_were_not_taken),
	};

	om_log_init(OM_LOG_ERROR + 1, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
