/* SPDX-License-Identifier: ISC */
#include <sys/stat.h>
#include "store/ran.h"
#include "tests/unit/store_fixture.h"

static void
test_put_and_get(void **state)
{
	struct fx *fx = *state;
	struct om_job_new job = fx_job("a1", "print(1)");
	struct om_job_id id = fx_id("a1");
	struct om_buf spec = { 0 };
	struct om_job_row row, again;
	bool existed = true;

	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	assert_false(existed);
	fx_close(fx);
	fx_open(fx);
	OK(om_store_job_get(fx->st, &id, &again));
	fx_same_row(&again, &row);
	assert_string_equal(again.requester.text, "alice");
	assert_string_equal(again.text, "network home is trusted");
	assert_int_equal(again.needs.mem_mib, 512);
	assert_int_equal(again.attempts_max, 1);
	OK(om_store_job_spec(fx->st, &id, &spec));
	assert_int_equal(spec.len, 8);
	assert_memory_equal(spec.data, "print(1)", 8);
	OK(om_store_begin(fx->st));
	OK(om_store_job_spec_set(fx->st, &id, (struct om_bin){ (const uint8_t *)"x", 1 }));
	OK(om_store_commit(fx->st));
	om_buf_reset(&spec);
	OK(om_store_job_spec(fx->st, &id, &spec));
	assert_int_equal(spec.len, 1);
	om_buf_fini(&spec);
}

static void
test_unknown_job(void **state)
{
	struct fx *fx = *state;
	struct om_job_id id = fx_id("nobody");
	struct om_buf buf = { 0 };
	struct om_job_row row;

	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &id, &row));
	assert_string_equal(om_store_why(fx->st), "there is no job nobody");
	ERR(OM_ERR_NOT_FOUND, om_store_job_spec(fx->st, &id, &buf));
	ERR(OM_ERR_NOT_FOUND, fx_try_move(fx, "nobody", OM_JOB_CANCELLED, 1));
}

static void
test_second_submit_is_the_same_job(void **state)
{
	struct fx *fx = *state;
	struct om_job_new job = fx_job("a1", "print(1)");
	struct om_audit_mark before, after;
	struct om_job_row row;
	bool existed = false;

	fx_put(fx, "a1");
	OK(fx_try_move(fx, "a1", OM_JOB_CANCELLED, 1));
	OK(om_store_audit_head(fx->st, &before));
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	assert_true(existed);
	assert_int_equal(row.state, OM_JOB_CANCELLED); /* as it is now, not as it was */
	/* The same id with another body, or from somebody else, is another job. */
	job.spec.len--;
	ERR(OM_ERR_EXISTS, om_store_job_put(fx->st, &job, &existed, &row));
	job = fx_job("a1", "print(1)");
	job.requester = OM_STR("mallory");
	ERR(OM_ERR_EXISTS, om_store_job_put(fx->st, &job, &existed, &row));
	assert_false(existed);
	/* The group goes on after a refusal. */
	job = fx_job("a2", "print(2)");
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	OK(om_store_audit_head(fx->st, &after));
	assert_int_equal(after.seq, before.seq + 1);
	assert_int_equal(row.seq, 2); /* a refused submit uses up no number */
}

static void
test_submit_over_limits(void **state)
{
	struct fx *fx = *state;
	char longer[OM_PEER_ID_MAX + 2], text[OM_JOB_ACTIVITY_MAX + 8];
	struct om_job_new job = fx_job("a1", "print(1)");
	struct om_job_row row;
	bool existed;

	memset(longer, 'x', sizeof(longer));
	OK(om_store_begin(fx->st));
	job.requester = (struct om_str){ longer, OM_PEER_ID_MAX + 1 };
	ERR(OM_ERR_INVALID, om_store_job_put(fx->st, &job, &existed, &row));
	job.requester = (struct om_str){ longer, 0 };
	ERR(OM_ERR_INVALID, om_store_job_put(fx->st, &job, &existed, &row));
	job.requester = (struct om_str){ longer, OM_PEER_ID_MAX };
	job.spec.len = OM_JOB_SPEC_MAX + 1;
	ERR(OM_ERR_TOO_BIG, om_store_job_put(fx->st, &job, &existed, &row));
	job.spec.len = 8;
	job.after_count = OM_JOB_AFTER_MAX + 1;
	ERR(OM_ERR_LIMIT, om_store_job_put(fx->st, &job, &existed, &row));
	job.after_count = 0;
	/* A long description is cut at a character, not inside one. */
	memset(text, 'x', sizeof(text));
	memcpy(text + OM_JOB_ACTIVITY_MAX - 1, "\xc3\xa4", 2);
	job.activity = (struct om_str){ text, sizeof(text) };
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	assert_int_equal(strlen(row.activity), OM_JOB_ACTIVITY_MAX - 1);
	OK(om_store_commit(fx->st));
}

static void
test_way_of_a_job(void **state)
{
	struct fx *fx = *state;
	struct om_job_id id = fx_id("a1");
	struct om_job_result result = { .exit_code = 3,
					.exited = true,
					.cpu_ms = 39000,
					.wall_ms = 41200,
					.boot_ms = 1900,
					.mem_peak_kib = 217088,
					.rx_bytes = 18,
					.tx_bytes = 1,
					.handshake = { 77 * OM_NS_PER_S },
					.dropped_bytes = 7 };
	struct om_job_change change = fx_change(OM_JOB_FAILED, 50);
	struct om_job_row row, got;

	fx_put(fx, "a1");
	OK(fx_try_move(fx, "a1", OM_JOB_PROVISIONING, 5));
	OK(fx_try_move(fx, "a1", OM_JOB_RUNNING, 7));
	OK(om_store_begin(fx->st));
	ERR(OM_ERR_INVALID, om_store_job_finish(fx->st, &id, &change, &row));
	change.result = &result;
	change.reason = OM_STR("exit_code");
	OK(om_store_job_finish(fx->st, &id, &change, &row));
	/* Its end is its end: a late cancel changes nothing. */
	change.to = OM_JOB_CANCELLED;
	ERR(OM_ERR_STATE, om_store_job_move(fx->st, &id, &change, &got));
	fx_same_row(&got, &row);
	OK(om_store_commit(fx->st));
	OK(om_store_job_get(fx->st, &id, &got));
	fx_same_row(&got, &row);
	assert_int_equal(got.picked.ns, fx_at(5).ns);
	assert_int_equal(got.started.ns, fx_at(7).ns);
	assert_int_equal(got.finished.ns, fx_at(50).ns);
	assert_int_equal(got.attempts, 1);
	assert_memory_equal(&got.result, &result, sizeof(result));
	FX_ASK_IS(fx,
		  "SELECT state || ' ' || reason || ' ' || exit_code || ' ' || finished FROM jobs",
		  "failed exit_code 3 2023-11-14T22:14:10.000Z");
}

static void
test_second_attempt(void **state)
{
	struct fx *fx = *state;
	const struct om_out_ref out = { .kind = OM_OUT_STDOUT };
	struct om_job_id id = fx_id("a1");
	struct om_job_change change = fx_change(OM_JOB_QUEUED, 30);
	struct om_out_info info;
	struct om_job_row row;
	uint64_t size;
	size_t count;

	fx_put(fx, "a1");
	OK(fx_try_move(fx, "a1", OM_JOB_PROVISIONING, 5));
	OK(om_store_begin(fx->st));
	OK(om_store_output_append(fx->st, &id, out, 0, (struct om_bin){ (const uint8_t *)"x", 1 },
				  &size));
	OK(om_store_commit(fx->st));
	OK(fx_try_move(fx, "a1", OM_JOB_LOST, 20));
	OK(om_store_begin(fx->st));
	change.not_before = fx_at(90);
	OK(om_store_job_move(fx->st, &id, &change, &row));
	assert_int_equal(row.finished.ns, 0);
	assert_int_equal(row.picked.ns, 0);
	assert_int_equal(row.not_before.ns, fx_at(90).ns);
	change.to = OM_JOB_PROVISIONING;
	change.attempt = 2; /* the fence of an attempt that has not begun */
	ERR(OM_ERR_STATE, om_store_job_move(fx->st, &id, &change, &row));
	change.attempt = 1;
	OK(om_store_job_move(fx->st, &id, &change, &row));
	assert_int_equal(row.attempts, 2);
	/* A late message of the first attempt does not end the second. */
	change.to = OM_JOB_FAILED;
	ERR(OM_ERR_STATE, om_store_job_move(fx->st, &id, &change, &row));
	OK(om_store_commit(fx->st));
	OK(om_store_output_list(fx->st, &id, &info, 1, &count));
	assert_int_equal(count, 0); /* the first attempt's output went with it */
}

static void
test_place(void **state)
{
	struct fx *fx = *state;
	struct om_job_id id = fx_id("a1");
	struct om_job_place place = { .set_held = true,
				      .held = true,
				      .set_rank = true,
				      .rank = 7,
				      .set_level = true,
				      .level = 10,
				      .at = fx_at(1),
				      .note = { .event = OM_STR("held"),
						.actor = OM_STR("uid:0") } };
	struct om_job_row row, got;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	OK(om_store_job_place(fx->st, &id, &place, &row));
	OK(om_store_commit(fx->st));
	OK(om_store_job_get(fx->st, &id, &got));
	fx_same_row(&got, &row);
	assert_true(got.held);
	assert_int_equal(got.rank, 7);
	assert_int_equal(got.level, 10);
	assert_string_equal(got.text, "network home is trusted"); /* not set: not changed */
	OK(fx_try_move(fx, "a1", OM_JOB_CANCELLED, 2));
	OK(om_store_begin(fx->st));
	ERR(OM_ERR_STATE, om_store_job_place(fx->st, &id, &place, &row));
	om_store_rollback(fx->st);
}

static void
test_rollback_takes_all_back(void **state)
{
	struct fx *fx = *state;
	struct om_job_new job = fx_job("b1", "x");
	uint64_t before[OM_JOB_STATES], after[OM_JOB_STATES];
	struct om_audit_mark mark, again;
	struct om_job_row row;
	bool existed;

	fx_put(fx, "a1");
	OK(om_store_counts(fx->st, before));
	OK(om_store_audit_head(fx->st, &mark));
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	om_store_rollback(fx->st);
	om_store_rollback(fx->st); /* without a transaction: nothing */
	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &job.id, &row));
	OK(om_store_counts(fx->st, after));
	assert_memory_equal(before, after, sizeof(before));
	OK(om_store_audit_head(fx->st, &again));
	assert_memory_equal(&mark, &again, sizeof(mark));
	fx_put(fx, "b2");
	assert_false(fx_verify(fx, NULL).broken);
	OK(om_store_check(fx->st));
}

static void
test_jobs_that_wait_for_others(void **state)
{
	struct fx *fx = *state;
	struct om_job_after after[2] = { { .id = fx_id("a1"), .when = OM_AFTER_SUCCESS },
					 { .id = fx_id("a2"), .when = OM_AFTER_END } };
	struct om_job_new job = fx_job("w1", "x");
	struct om_purge purge = { .finished_before = fx_at(1000) };
	struct om_job_after got[4];
	struct om_job_row row;
	size_t count;
	bool existed;

	fx_put(fx, "a1");
	job.after = after;
	job.after_count = 2;
	OK(om_store_begin(fx->st));
	/* An unknown job, and so the job itself: there can be no cycle. */
	ERR(OM_ERR_NOT_FOUND, om_store_job_put(fx->st, &job, &existed, &row));
	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &job.id, &row));
	OK(om_store_commit(fx->st));
	fx_put(fx, "a2");
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	assert_int_equal(row.after_count, 2);
	fx_run(fx, "a1", 3);
	OK(om_store_job_after(fx->st, &job.id, got, 4, &count));
	assert_int_equal(count, 2);
	assert_string_equal(got[0].id.text, "a1");
	assert_int_equal(got[0].state, OM_JOB_COMPLETED);
	assert_int_equal(got[0].when, OM_AFTER_SUCCESS);
	assert_int_equal(got[1].state, OM_JOB_QUEUED);
	assert_int_equal(got[1].when, OM_AFTER_END);
	/* What a live job waits for is not purged; afterwards it is. */
	OK(om_store_begin(fx->st));
	OK(om_store_purge(fx->st, &purge));
	assert_int_equal(purge.jobs, 0);
	OK(om_store_commit(fx->st));
	OK(fx_try_move(fx, "w1", OM_JOB_CANCELLED, 4));
	OK(om_store_begin(fx->st));
	OK(om_store_purge(fx->st, &purge));
	assert_int_equal(purge.jobs, 2);
	/* The same submit again, though what it waited for is gone. */
	job.id = fx_id("w2");
	ERR(OM_ERR_NOT_FOUND, om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
}

static void
test_submit_again_when_its_after_is_gone(void **state)
{
	struct fx *fx = *state;
	struct om_job_after after = { .id = fx_id("a1"), .when = OM_AFTER_END };
	struct om_purge purge = { .finished_before = fx_at(1000) };
	struct om_job_new job = fx_job("w1", "x");
	struct om_job_row row;
	bool existed;

	fx_put(fx, "a1");
	job.after = &after;
	job.after_count = 1;
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	fx_run(fx, "a1", 1);
	OK(fx_try_move(fx, "w1", OM_JOB_PROVISIONING, 2));
	OK(fx_try_move(fx, "w1", OM_JOB_FAILED, 2000));
	OK(om_store_begin(fx->st));
	OK(om_store_purge(fx->st, &purge));
	assert_int_equal(purge.jobs, 1);
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	assert_true(existed);
	assert_int_equal(row.state, OM_JOB_FAILED);
	OK(om_store_commit(fx->st));
}

static void
test_run_times(void **state)
{
	struct fx *fx = *state;
	struct om_store_ran ran[4];
	size_t n;

	fx_put(fx, "a1");
	fx_put(fx, "a2");
	fx_put(fx, "a3");
	fx_run(fx, "a1", 10);
	fx_run(fx, "a2", 7200); /* 9 ms each */
	OK(fx_try_move(fx, "a3", OM_JOB_CANCELLED, 7200)); /* never ran */
	OK(om_store_ran_since(fx->st, fx_at(0), (struct om_str){ NULL, 0 }, ran, 4, &n));
	assert_int_equal(n, 1);
	assert_string_equal(ran[0].requester, "alice");
	assert_int_equal(ran[0].ms, 18);
	fx_close(fx);
	fx_open(fx);
	OK(om_store_ran_since(fx->st, fx_at(3600), (struct om_str){ NULL, 0 }, ran, 4, &n));
	assert_int_equal(n, 1);
	assert_int_equal(ran[0].ms, 9);
	OK(om_store_ran_since(fx->st, fx_at(0), OM_STR("alice"), ran, 4, &n));
	assert_int_equal(n, 0);
	OK(om_store_ran_since(fx->st, fx_at(36000), (struct om_str){ NULL, 0 }, ran, 4, &n));
	assert_int_equal(n, 0);
}

static void
test_counts(void **state)
{
	struct fx *fx = *state;
	uint64_t counts[OM_JOB_STATES];

	fx_put(fx, "a1");
	fx_put(fx, "a2");
	fx_put(fx, "a3");
	fx_run(fx, "a1", 10);
	fx_run(fx, "a2", 7200);
	OK(fx_try_move(fx, "a3", OM_JOB_CANCELLED, 7200));
	fx_close(fx);
	fx_open(fx);
	OK(om_store_counts(fx->st, counts));
	assert_int_equal(counts[OM_JOB_COMPLETED], 2);
	assert_int_equal(counts[OM_JOB_CANCELLED], 1);
	assert_int_equal(counts[OM_JOB_QUEUED], 0);
	OK(om_store_counts_since(fx->st, fx_at(3600), counts));
	assert_int_equal(counts[OM_JOB_COMPLETED], 1);
	assert_int_equal(counts[OM_JOB_CANCELLED], 1);
	assert_int_equal(counts[OM_JOB_QUEUED], 0);
	OK(om_store_counts_since(fx->st, fx_at(0), counts));
	assert_int_equal(counts[OM_JOB_COMPLETED], 2);
	assert_int_equal(counts[OM_JOB_QUEUED], 3);
	OK(om_store_check(fx->st));
	fx_close(fx);
	fx_sql(fx, "UPDATE state_count SET n = 9 WHERE state = 'completed'");
	fx_open(fx);
	ERR(OM_ERR_CORRUPT, om_store_check(fx->st));
}

static void
test_one_process_writes(void **state)
{
	struct fx *fx = *state;
	struct om_sqlite_conf conf = fx->conf;
	struct om_store *second = NULL;
	uint64_t counts[OM_JOB_STATES];
	struct om_why why;

	ERR(OM_ERR_STATE, om_sqlite_open(&conf, &second, &why));
	assert_non_null(strstr(why.text, "another process"));
	assert_null(second);
	/* Reading beside it is fine, and sees what was folded since. */
	conf.read_only = true;
	OK(om_sqlite_open(&conf, &second, &why));
	fx_put(fx, "a1");
	fx_fold(fx);
	OK(om_store_counts(second, counts));
	assert_int_equal(counts[OM_JOB_QUEUED], 1);
	om_store_close(second);
}

static void
test_file_is_private(void **state)
{
	struct fx *fx = *state;
	char path[128];
	struct stat info;

	fx_put(fx, "a1");
	assert_int_equal(stat(fx->path, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	(void)snprintf(path, sizeof(path), "%s-wal", fx->path);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	assert_int_equal(info.st_size, FX_WAL_BYTES); /* preallocated */
}

static void
test_log_is_used_again(void **state)
{
	struct fx *fx = *state;
	struct om_store_stat stat_now;
	struct stat info;
	char path[128], id[32];
	int i;

	(void)snprintf(path, sizeof(path), "%s-wal", fx->path);
	for (i = 0; i < 1000; i++) {
		(void)snprintf(id, sizeof(id), "job%d", i);
		fx_put(fx, id);
		OK(om_store_maintain(fx->st));
	}
	fx_fold(fx);
	OK(om_store_stat(fx->st, &stat_now));
	assert_true(stat_now.checkpoints > 1);
	assert_int_equal(stat_now.jobs, 1000);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_size, FX_WAL_BYTES); /* neither grown nor cut */
}

static void
test_large_body(void **state)
{
	struct fx *fx = *state;
	struct om_job_new job = fx_job("big", "x");
	struct om_buf body = { 0 }, got = { 0 };
	struct om_job_row row;
	bool existed;

	OK(om_buf_reserve(&body, 5u << 20));
	memset(body.data, 0xa5, 5u << 20);
	job.spec = (struct om_bin){ body.data, 5u << 20 };
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	OK(om_store_job_spec(fx->st, &job.id, &got));
	assert_int_equal(got.len, 5u << 20);
	assert_memory_equal(got.data, body.data, got.len);
	om_buf_fini(&body);
	om_buf_fini(&got);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_put_and_get),
		T(test_unknown_job),
		T(test_second_submit_is_the_same_job),
		T(test_submit_over_limits),
		T(test_way_of_a_job),
		T(test_second_attempt),
		T(test_place),
		T(test_rollback_takes_all_back),
		T(test_jobs_that_wait_for_others),
		T(test_submit_again_when_its_after_is_gone),
		T(test_run_times),
		T(test_counts),
		T(test_one_process_writes),
		T(test_file_is_private),
		T(test_log_is_used_again),
		T(test_large_body),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
