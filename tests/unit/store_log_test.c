/* SPDX-License-Identifier: ISC */
#include "base/log.h"
#include "store/ran.h"
#include "tests/unit/store_image.h"

/* The commit log: whatever was acknowledged comes back from it, whole groups and nothing else. */

#define QUARTER 900

static uint64_t
next_rand(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *seed >> 33;
}

static int
log_setup(void **state)
{
	struct fx *fx = fx_new();

	*state = fx;
	if (fx == NULL) {
		return -1;
	}
	fx->conf.wal_bytes = 256 << 10;
	fx->conf.log_bytes = 1 << 20; /* nothing is folded that a test does not fold */
	fx_open(fx);
	return 0;
}

static void
begin(struct fx *fx)
{
	OK(om_store_begin(fx->st));
}

static void
commit(struct fx *fx)
{
	OK(om_store_commit(fx->st));
}

static void
put(struct fx *fx, struct om_job_new job)
{
	struct om_job_row row;
	bool existed;

	OK(om_store_job_put(fx->st, &job, &existed, &row));
	assert_false(existed);
}

static void
move(struct fx *fx, const char *name, enum om_job_state to, int64_t at_s)
{
	const struct om_job_result result = {
		.exited = true, .exit_code = -3, .cpu_ms = 5, .wall_ms = 9, .handshake = fx_at(3)
	};
	struct om_job_change change = fx_change(to, at_s);
	const struct om_job_id id = fx_id(name);

	change.result = om_job_is_final(to) ? &result : NULL;
	OK(om_store_job_move(fx->st, &id, &change, NULL));
}

static void
out(struct fx *fx, const char *name, enum om_out_kind kind, struct om_str file, const char *text)
{
	const struct om_job_id id = fx_id(name);
	uint64_t size;

	OK(om_store_output_append(fx->st, &id, (struct om_out_ref){ kind, file }, OM_OUT_AT_END,
				  (struct om_bin){ (const uint8_t *)text, strlen(text) }, &size));
}

static void
entry(struct fx *fx, const char *key, const char *value)
{
	OK(om_store_entry_put(fx->st, OM_STR("trust"), om_str_of(key),
			      (struct om_bin){ (const uint8_t *)value, strlen(value) }));
}

static void
note(struct fx *fx, const char *text, int64_t at_s)
{
	const struct om_audit_note n = { OM_STR("config"), OM_STR("uid:0"), om_str_of(text) };

	OK(om_store_audit_append(fx->st, fx_at(at_s), &n));
}

/* --- every kind of write ------------------------------------------------------------------------ */

static void
write_jobs(struct fx *fx)
{
	const struct om_job_after after[] = { { .id = fx_id("a1"), .when = OM_AFTER_END },
					      { .id = fx_id("a2"), .when = OM_AFTER_SUCCESS } };
	struct om_job_new job = fx_job("a1", "import os\0with a NUL");

	begin(fx);
	put(fx, job);
	job = fx_job("a2", "print(2)");
	job.stored = (struct om_bin){ (const uint8_t *)"sealed", 6 };
	job.not_before = fx_at(50);
	job.held = job.requeue = true;
	put(fx, job);
	job = fx_job("a3", "print(3)");
	job.after = after;
	job.after_count = 2;
	put(fx, job);
	job = fx_job("arr_1", "x");
	job.in_array = true;
	job.array_limit = 3;
	put(fx, job);
	job = fx_job("rej", "x");
	job.state = OM_JOB_REJECTED;
	put(fx, job);
	commit(fx);
}

static void
write_moves(struct fx *fx)
{
	const struct om_job_id a2 = fx_id("a2"), a1 = fx_id("a1");
	const struct om_job_place place = { .set_level = true,
					    .level = 100,
					    .set_rank = true,
					    .rank = -5,
					    .set_held = true,
					    .set_text = true,
					    .reason = OM_STR("waits"),
					    .text = OM_STR("for \xe2\x82\xac"),
					    .at = fx_at(4),
					    .note = { OM_STR("moved"), OM_STR("uid:0"), { 0 } } };

	begin(fx);
	move(fx, "a1", OM_JOB_PROVISIONING, 1);
	move(fx, "a1", OM_JOB_RUNNING, 2);
	OK(om_store_job_place(fx->st, &a2, &place, NULL));
	commit(fx);
	begin(fx);
	out(fx, "a1", OM_OUT_STDOUT, (struct om_str){ 0 }, "line 1\n");
	out(fx, "a1", OM_OUT_FILE, OM_STR("empty"), "");
	commit(fx);
	begin(fx);
	out(fx, "a1", OM_OUT_STDOUT, (struct om_str){ 0 }, "line 2\n");
	out(fx, "a1", OM_OUT_FILE, OM_STR("r.bin"), "data");
	/* Two quarters of an hour in one group. */
	move(fx, "a1", OM_JOB_FAILED, QUARTER - 1);
	move(fx, "a2", OM_JOB_PROVISIONING, QUARTER + 1);
	commit(fx);
	begin(fx);
	move(fx, "a1", OM_JOB_QUEUED, QUARTER + 2);
	move(fx, "a1", OM_JOB_PROVISIONING, 2 * QUARTER); /* the first attempt's output goes */
	out(fx, "a1", OM_OUT_STDERR, (struct om_str){ 0 }, "again");
	OK(om_store_job_spec_set(fx->st, &a1, (struct om_bin){ (const uint8_t *)"", 0 }));
	commit(fx);
}

static void
write_lists(struct fx *fx)
{
	begin(fx);
	entry(fx, "bob", "1");
	entry(fx, "eve", "");
	ERR(OM_ERR_NOT_FOUND, om_store_entry_del(fx->st, OM_STR("trust"), OM_STR("nobody")));
	commit(fx);
	begin(fx);
	entry(fx, "bob", "2");
	OK(om_store_entry_del(fx->st, OM_STR("trust"), OM_STR("eve")));
	note(fx, "a \"quoted\"\\ text", 5);
	commit(fx);
}

static void
write_removals(struct fx *fx)
{
	const struct om_job_id rej = fx_id("rej");
	struct om_purge purge = { .finished_before = fx_at(3 * QUARTER),
				  .states = OM_JOB_BIT(OM_JOB_LOST),
				  .audit_before = fx_at(2) };

	begin(fx);
	OK(om_store_job_remove(fx->st, &rej));
	move(fx, "a2", OM_JOB_LOST, QUARTER + 5);
	move(fx, "a3", OM_JOB_CANCELLED, QUARTER + 6);
	OK(om_store_purge(fx->st, &purge));
	assert_int_equal(purge.jobs, 1);
	assert_true(purge.audit_rows > 0);
	put(fx, fx_job("rej", "once more"));
	commit(fx);
	fx_put(fx, "last");
}

/* All of it in groups that no fold has seen, and then the process is gone. */
static void
test_everything_comes_back(void **state)
{
	struct fx *fx = *state;

	write_jobs(fx);
	image_same(fx);
	write_moves(fx);
	write_lists(fx);
	image_same(fx);
	write_removals(fx);
	image_same(fx);
}

static void
test_everything_comes_back_at_once(void **state)
{
	struct fx *fx = *state;

	write_jobs(fx);
	write_moves(fx);
	write_lists(fx);
	write_removals(fx);
	image_same(fx);
}

/* --- any order ---------------------------------------------------------------------------------- */

#define RANDOM_JOBS 24

static enum om_job_state
random_next(enum om_job_state from, uint64_t *seed)
{
	for (;;) {
		const enum om_job_state to = (enum om_job_state)(next_rand(seed) % OM_JOB_STATES);

		if (om_job_may_become(from, to)) {
			return to;
		}
	}
}

static void
random_job(struct fx *fx, uint64_t *seed, int64_t at_s)
{
	const struct om_job_result result = { .wall_ms = 1 + next_rand(seed) % 9 };
	struct om_job_change change;
	struct om_job_row row;
	struct om_job_id id;
	char name[16];

	(void)snprintf(name, sizeof(name), "r%u", (unsigned)(next_rand(seed) % RANDOM_JOBS));
	id = fx_id(name);
	if (om_store_job_get(fx->st, &id, &row) != OM_OK) {
		put(fx, fx_job(name, "body"));
		return;
	}
	if (next_rand(seed) % 4 == 0) {
		out(fx, name, (enum om_out_kind)(next_rand(seed) % 2), (struct om_str){ 0 }, "out");
	}
	if (om_store_job_remove(fx->st, &id) == OM_OK || row.state == OM_JOB_COMPLETED) {
		return;
	}
	change = fx_change(random_next(row.state, seed), at_s);
	change.result = om_job_is_final(change.to) ? &result : NULL;
	OK(om_store_job_move(fx->st, &id, &change, NULL));
}

static bool
count_row(void *arg, const struct om_audit_row *row)
{
	(void)row;
	++*(size_t *)arg;
	return true;
}

/* Reading in between writes what waits: also that must not be seen. */
static void
random_read(struct fx *fx, uint64_t *seed)
{
	struct om_job_filter filter = { 0 };
	struct om_audit_filter audit = { 0 };
	struct om_job_row rows[4];
	uint64_t counts[OM_JOB_STATES];
	size_t count = 0;
	bool more;

	switch (next_rand(seed) % 4) {
	case 0:
		OK(om_store_job_list(fx->st, &filter, rows, 4, &count));
		break;
	case 1:
		OK(om_store_counts_since(fx->st, fx_at(0), counts));
		break;
	case 2:
		OK(om_store_audit_each(fx->st, &audit, 5, count_row, &count, &more));
		break;
	default:
		break;
	}
}

static void
random_group(struct fx *fx, uint64_t *seed, int64_t at_s)
{
	struct om_purge purge = { .audit_before = fx_at(at_s - 20) };

	begin(fx);
	for (uint64_t n = next_rand(seed) % 6; n > 0; n--) {
		random_job(fx, seed, at_s + (int64_t)(next_rand(seed) % 3) * QUARTER);
		random_read(fx, seed);
	}
	if (next_rand(seed) % 12 == 0) {
		OK(om_store_purge(fx->st, &purge));
	}
	if (next_rand(seed) % 3 == 0) {
		om_store_rollback(fx->st);
	} else {
		commit(fx);
	}
}

/* Groups of anything, some refused, some folded; a crash at any time shows what the tables would have. */
static void
test_random(void **state)
{
	(void)state;
	for (uint64_t round = 1; round <= 25; round++) {
		uint64_t seed = round;
		void *one = NULL;

		assert_int_equal(log_setup(&one), 0);
		for (int64_t i = 0; i < 60; i++) {
			random_group(one, &seed, i);
			random_read(one, &seed);
			if (next_rand(&seed) % 20 == 0) {
				image_same(one);
			}
		}
		image_same(one);
		assert_int_equal(fx_teardown(&one), 0);
	}
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, log_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_everything_comes_back),
		T(test_everything_comes_back_at_once),
		cmocka_unit_test(test_random),
	};

	om_log_init(OM_LOG_ERROR, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
