/* SPDX-License-Identifier: ISC */
/* Attempts, places, what jobs wait for, and purging, as the ledger keeps them. */
#include "actors_ledger_rig.h"

static const struct om_job_info *
job_now(const char *id)
{
	ask_job("", OM_ROLE_OPERATOR, id);
	go();
	return body_of(0, OM_MSG_JOB_INFO);
}

/* One attempt that ends so. */
static void
attempt(const char *id, const char *end)
{
	const struct om_job_info result = exit_0();

	ask_move(id, "provisioning", NULL);
	ask_move(id, "running", NULL);
	ask_move(id, end, &result);
	go();
}

static void
test_attempts_follow_each_other(void **state)
{
	struct om_job_submit spec = plain_spec();
	const struct om_job_info *info;

	(void)state;
	OM_SET(&spec, job_submit, retries, 2);
	OM_SET(&spec, job_submit, backoff_s, 7);
	ask_submit("j", &spec, true);
	go();
	attempt("j", "failed");
	assert_non_null(strstr(W.order, "j:running>failed~ j:failed>queued "));
	info = job_now("j");
	STR_IS(info->state, "queued");
	STR_IS(info->reason, "retry");
	assert_int_equal(info->attempt, 1);
	assert_int_equal(info->attempts_max, 3);
	assert_int_equal(info->not_before_ms, W.now.ns / OM_NS_PER_MS + 7000);
	ask_output("j", "stdout", NULL, "first");
	go();
	attempt("j", "timed_out");
	info = job_now("j");
	assert_int_equal(info->not_before_ms, W.now.ns / OM_NS_PER_MS + 14000);
	assert_int_equal(info->stdout_bytes, 0); /* of the attempt before */
	attempt("j", "failed");
	assert_non_null(strstr(W.order, "j:running>failed~ j:failed>dead! "));
	info = job_now("j");
	STR_IS(info->state, "dead");
	STR_IS(info->reason, "attempts_used");
	FILE_IS("SELECT group_concat(event, ' ') FROM (SELECT event FROM audit_log ORDER BY seq)",
		"received accepted provisioning started failed requeued provisioning started "
		"timed_out requeued provisioning started failed dead");
	/* One more by hand, and then it is dead again. */
	ask_move("j", "queued", NULL);
	go();
	assert_non_null(strstr(W.order, "j:dead>queued "));
	attempt("j", "failed");
	STR_IS(job_now("j")->state, "dead");
}

/* Each attempt that was measured, and who asked for it; also when its row is gone. */
static void
test_run_times_are_kept_by_requester(void **state)
{
	struct om_job_submit spec = plain_spec();
	const struct om_ledger_ran_table *table;
	struct om_ledger_ran_query query = { .since_ms = (uint64_t)(W.now.ns / OM_NS_PER_MS) };

	(void)state;
	OM_SET(&spec, job_submit, retries, 1);
	ask_submit("j", &spec, true);
	go();
	attempt("j", "failed");
	attempt("j", "failed");
	STR_IS(job_now("j")->state, "dead");
	for (int life = 0; life < 2; life++) {
		ask(OM_MSG_LEDGER_RAN, &query);
		go();
		table = body_of(0, OM_MSG_LEDGER_RAN_TABLE);
		assert_int_equal(table->peers.n, 1);
		STR_IS(table->peers.v[0].peer, "alice");
		assert_int_equal(table->peers.v[0].ms, 2 * 1234);
		assert_int_equal(table->at_ms, W.now.ns / OM_NS_PER_MS);
		world_stop();
		world_start();
	}
	OM_SET(&query, ledger_ran_query, after, OM_STR("alice"));
	ask(OM_MSG_LEDGER_RAN, &query);
	go();
	table = body_of(0, OM_MSG_LEDGER_RAN_TABLE);
	assert_int_equal(table->peers.n, 0);
}

/* BUG: a page of 1,000 was an own walk through the day: with 104,000 requesters a start took seconds. */
static void
test_run_times_of_many_requesters_come_at_once(void **state)
{
	const struct om_ledger_ran_table *table;
	struct om_ledger_ran_query query = { .since_ms = 900000 };

	(void)state;
	world_stop();
	fx_sql(&W.fx,
	       "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20001)"
	       " INSERT INTO ran SELECT slot, printf('peer%05d', n), n + slot FROM c,"
	       " (SELECT 0 AS slot UNION SELECT 900 UNION SELECT 1800)");
	world_start();
	ask(OM_MSG_LEDGER_RAN, &query);
	OM_SET(&query, ledger_ran_query, after, OM_STR("peer20000"));
	ask(OM_MSG_LEDGER_RAN, &query);
	go();
	table = body_of(0, OM_MSG_LEDGER_RAN_TABLE);
	assert_int_equal(table->peers.n, 20000);
	for (size_t i = 0; i < table->peers.n; i++) {
		char peer[32];

		(void)snprintf(peer, sizeof(peer), "peer%05zu", i + 1);
		STR_IS(table->peers.v[i].peer, peer);
		assert_int_equal(table->peers.v[i].ms, 2 * (i + 1) + 2700);
	}
	table = body_of(1, OM_MSG_LEDGER_RAN_TABLE);
	assert_int_equal(table->peers.n, 1);
	STR_IS(table->peers.v[0].peer, "peer20001");
	assert_int_equal(table->peers.v[0].ms, 2 * 20001 + 2700);
}

static void
test_the_end_and_what_follows_are_one_commit(void **state)
{
	struct om_job_submit spec = plain_spec();

	(void)state;
	warm_up();
	OM_SET(&spec, job_submit, retries, 1);
	ask_submit("j", &spec, true);
	ask_move("j", "provisioning", NULL);
	ask_move("j", "failed", NULL);
	assert_int_equal(go_and_count_commits(), 1);
	FILE_IS("SELECT state FROM job WHERE id='j'", "queued");
}

static void
test_what_never_began_is_not_tried_again(void **state)
{
	struct om_job_submit spec = plain_spec();

	(void)state;
	OM_SET(&spec, job_submit, retries, 5);
	ask_submit("j", &spec, true);
	ask_move("j", "failed", NULL); /* what it waited for failed */
	ask_submit("r", &spec, true);
	ask_move("r", "provisioning", NULL);
	ask_move("r", "rogue_killed", NULL); /* never */
	go();
	STR_IS(job_now("j")->state, "failed");
	STR_IS(job_now("r")->state, "rogue_killed");
}

static void
test_a_crash_is_a_failed_attempt(void **state)
{
	struct om_job_submit spec = plain_spec();

	(void)state;
	OM_SET(&spec, job_submit, retries, 1);
	ask_submit("j", &spec, true);
	ask_move("j", "provisioning", NULL);
	go();
	world_stop();
	world_start();
	STR_IS(job_now("j")->state, "queued");
	ask_move("j", "provisioning", NULL);
	go();
	world_stop();
	world_start();
	STR_IS(job_now("j")->state, "dead");
}

static void
test_keys_live_as_long_as_attempts(void **state)
{
	struct om_str address = OM_STR("10.9.0.2/32");
	struct om_vpn_config vpn = { 0 };
	struct om_job_submit spec = plain_spec();

	(void)state;
	OM_SET(&vpn, vpn_config, private_key,
	       OM_STR("cHJpdmF0ZSBrZXkgb2YgdGhlIGpvYiEhISEhISEhISE="));
	OM_SET(&vpn, vpn_config, addresses, ((struct om_strs){ &address, 1 }));
	OM_SET(&vpn, vpn_config, peer_public_key, OM_STR("public"));
	OM_SET(&vpn, vpn_config, endpoint, OM_STR("192.0.2.1:51820"));
	OM_SET(&vpn, vpn_config, allowed_ips, ((struct om_strs){ &address, 1 }));
	OM_SET(&spec, job_submit, vpn, &vpn);
	OM_SET(&spec, job_submit, retries, 1);
	ask_submit("j", &spec, true);
	go();
	attempt("j", "failed");
	FILE_IS("SELECT hex(substr(body, 1, 1)) FROM job_spec", "C1"); /* sealed */
	attempt("j", "failed");
	FILE_IS("SELECT hex(substr(body, 1, 1)) = 'C1' FROM job_spec", "0");
	ask_move("j", "queued", NULL); /* it could not reach its tunnel */
	go();
	assert_int_equal(W.answers[0].err, OM_ERR_STATE);
	assert_non_null(strstr(W.answers[0].text, "keys"));
}

static void
ask_place(const char *id, const char *to, const char *level, int held)
{
	struct om_ledger_place m = { .job = om_str_of(id) };

	if (to != NULL) {
		OM_SET(&m, ledger_place, to, om_str_of(to));
	}
	if (level != NULL) {
		OM_SET(&m, ledger_place, level, om_str_of(level));
	}
	if (held >= 0) {
		OM_SET(&m, ledger_place, held, held != 0);
	}
	OM_SET(&m, ledger_place, by, OM_STR("root"));
	ask(OM_MSG_LEDGER_PLACE, &m);
}

static void
test_places_are_durable(void **state)
{
	const struct om_job_info *info;

	(void)state;
	ask_plain("a");
	ask_plain("b");
	ask_place("a", NULL, NULL, 1);
	ask_place("b", "front", "owner", -1);
	go();
	FILE_IS("SELECT group_concat(event, ' ') FROM (SELECT event FROM audit_log ORDER BY seq)",
		"received accepted received accepted held moved");
	world_stop();
	world_start();
	assert_true(job_now("a")->held);
	info = job_now("b");
	assert_true(info->rank < 0);
	STR_IS(info->level, "owner");
	ask_place("a", NULL, NULL, 0);
	ask_place("b", "sideways", NULL, -1);
	go();
	assert_int_equal(W.answers[1].err, OM_ERR_INVALID);
	assert_false(job_now("a")->held);
	ask_move("a", "cancelled", NULL);
	ask_place("a", "front", NULL, -1);
	go();
	assert_int_equal(W.answers[1].err, OM_ERR_STATE);
}

static void
test_what_a_job_waits_for(void **state)
{
	struct om_str ids[] = { OM_STR("a"), OM_STR("b") };
	struct om_job_submit spec = plain_spec();
	struct om_job_ref ref = { .job = OM_STR("c") };
	const struct om_ledger_deps *deps;

	(void)state;
	ask_plain("a");
	ask_plain("b");
	OM_SET(&spec, job_submit, after, ((struct om_strs){ ids, 2 }));
	ask_submit("c", &spec, true);
	ask_move("a", "cancelled", NULL);
	ask(OM_MSG_LEDGER_AFTER, &ref);
	go();
	deps = body_of(4, OM_MSG_LEDGER_DEPS);
	assert_int_equal(deps->deps.n, 2);
	STR_IS(deps->deps.v[0].job, "a");
	STR_IS(deps->deps.v[0].state, "cancelled");
	STR_IS(deps->deps.v[1].state, "queued");
	/* An unknown one, or its own id. */
	ids[0] = OM_STR("nothing");
	ask_submit("d", &spec, true);
	ids[0] = OM_STR("e");
	ask_submit("e", &spec, true);
	go();
	assert_int_equal(W.answers[0].err, OM_ERR_NOT_FOUND);
	assert_int_equal(W.answers[1].err, OM_ERR_NOT_FOUND);
	/* Another's is as good as unknown. */
	FILE_IS("SELECT count(*) FROM job_after", "2");
}

static void
ask_purge(const char *peer, enum om_role role, const char *id, const char *job_state)
{
	struct om_str one = om_str_of(id != NULL ? id : "");
	struct om_str st = om_str_of(job_state != NULL ? job_state : "");
	struct om_job_purge m = { 0 };

	if (id != NULL) {
		OM_SET(&m, job_purge, jobs, ((struct om_strs){ &one, 1 }));
	}
	if (job_state != NULL) {
		OM_SET(&m, job_purge, states, ((struct om_strs){ &st, 1 }));
	}
	ask_as(peer, role, OM_MSG_JOB_PURGE, &m);
}

static void
test_purge(void **state)
{
	struct om_str a = OM_STR("a");
	struct om_job_submit spec = plain_spec();

	(void)state;
	ask_plain("a");
	ask_plain("b");
	ask_plain("live");
	OM_SET(&spec, job_submit, after, ((struct om_strs){ &a, 1 }));
	ask_submit("waits", &spec, true);
	go();
	attempt("a", "completed");
	attempt("b", "failed");
	ask_purge("bob", OM_ROLE_REQUESTER, "b", NULL); /* alice's */
	ask_purge("bob", OM_ROLE_REQUESTER, NULL, "failed");
	ask_purge("alice", OM_ROLE_REQUESTER, "live", NULL);
	ask_purge("alice", OM_ROLE_REQUESTER, "a", NULL); /* one waits for it */
	ask_purge("root", OM_ROLE_OPERATOR, NULL, "queued");
	ask_purge("root", OM_ROLE_OPERATOR, NULL, "failed");
	go();
	assert_int_equal(W.answers[0].err, OM_ERR_NOT_FOUND);
	assert_int_equal(W.answers[1].err, OM_ERR_DENIED);
	assert_int_equal(W.answers[2].err, OM_ERR_STATE);
	assert_int_equal(W.answers[3].err, OM_ERR_STATE);
	assert_int_equal(W.answers[4].err, OM_ERR_INVALID);
	assert_int_equal(((const struct om_count *)body_of(5, OM_MSG_COUNTED))->count, 1);
	FILE_IS("SELECT group_concat(id, ' ') FROM (SELECT id FROM job ORDER BY seq)",
		"a live waits");
	ask_move("waits", "cancelled", NULL);
	ask_purge("alice", OM_ROLE_REQUESTER, "a", NULL);
	ask_purge("root", OM_ROLE_OPERATOR, NULL, NULL);
	go();
	assert_int_equal(((const struct om_count *)body_of(1, OM_MSG_COUNTED))->count, 1);
	assert_int_equal(((const struct om_count *)body_of(2, OM_MSG_COUNTED))->count, 1);
	FILE_IS("SELECT group_concat(id, ' ') FROM job", "live");
	FILE_IS("SELECT count(*) FROM job_spec", "1");
	FILE_IS("SELECT count(*) FROM audit_log WHERE event='purged'", "3");
}

/* One that may not go does not keep the rest, and is named. */
static void
test_purge_names_those_that_stay(void **state)
{
	const struct om_str names[] = { OM_STR("live"), OM_STR("a"), OM_STR("nobody") };
	struct om_job_purge m = { 0 };
	const struct om_count *count;

	(void)state;
	ask_plain("a");
	ask_plain("live");
	go();
	attempt("a", "completed");
	OM_SET(&m, job_purge, jobs, ((struct om_strs){ names, OM_COUNT(names) }));
	ask_as("alice", OM_ROLE_REQUESTER, OM_MSG_JOB_PURGE, &m);
	go();
	count = body_of(0, OM_MSG_COUNTED);
	assert_int_equal(count->count, 1);
	assert_int_equal(count->failed.n, 2);
	assert_true(om_str_is(count->failed.v[0].job, "live"));
	assert_true(om_str_is(count->failed.v[0].code, "wrong_state"));
	assert_true(om_str_is(count->failed.v[1].job, "nobody"));
	assert_true(om_str_is(count->failed.v[1].code, "not_found"));
	FILE_IS("SELECT group_concat(id, ' ') FROM job", "live");
}

static void
test_an_ambiguous_id_names_its_candidates(void **state)
{
	const struct om_error *error;

	(void)state;
	ask_plain("abc1");
	ask_plain("abc2");
	go();
	ask_job("", OM_ROLE_OPERATOR, "abc");
	go();
	assert_int_equal(W.answers[0].err, OM_ERR_INVALID);
	W.answers[0].err = OM_OK;
	error = body_of(0, OM_MSG_ERROR);
	assert_int_equal(error->details.n, 1);
	STR_IS(error->details.v[0].key, "candidates");
	STR_IS(error->details.v[0].value, "abc1 abc2");
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_attempts_follow_each_other),
		T(test_run_times_are_kept_by_requester),
		T(test_run_times_of_many_requesters_come_at_once),
		T(test_the_end_and_what_follows_are_one_commit),
		T(test_what_never_began_is_not_tried_again),
		T(test_a_crash_is_a_failed_attempt),
		T(test_keys_live_as_long_as_attempts),
		T(test_places_are_durable),
		T(test_what_a_job_waits_for),
		T(test_purge),
		T(test_purge_names_those_that_stay),
		T(test_an_ambiguous_id_names_its_candidates),
	};

	om_log_init(OM_LOG_ERROR + 1, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
