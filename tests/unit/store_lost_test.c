/* SPDX-License-Identifier: ISC */
#include <sys/mount.h>
#include "base/log.h"
#include "tests/unit/store_fault_vfs.h"
#include "tests/unit/store_image.h"

/*
 * SQLite's transaction over the groups since the last fold is lost: it rolls back by itself when the
 * disk fails.  Whatever was acknowledged is seen all the same, at once.
 */

#define OLD_JOBS 40
#define BODY_LEN 9000 /* several pages */

static void
put(struct fx *fx, const char *name, enum om_err *err)
{
	static char body[BODY_LEN];
	struct om_job_new job;
	struct om_job_row row;
	bool existed;

	memset(body, 'b', sizeof(body) - 1);
	job = fx_job(name, body);
	*err = om_store_job_put(fx->st, &job, &existed, &row);
}

static int
lost_setup(void **state)
{
	struct fx *fx = fx_new();
	enum om_err err;
	char name[16];

	*state = fx;
	if (fx == NULL) {
		return -1;
	}
	fault_clear();
	fx->conf.vfs = "fault";
	fx->conf.wal_bytes = 128 << 10;
	fx->conf.log_bytes = 1 << 20;
	fx_open(fx);
	OK(om_store_begin(fx->st));
	for (int i = 0; i < OLD_JOBS; i++) {
		(void)snprintf(name, sizeof(name), "old%d", i);
		put(fx, name, &err);
		OK(err);
	}
	OK(om_store_commit(fx->st));
	fx_close(fx);
	fx->conf.skip_check = true;
	fx->conf.cache_kib = 40; /* nearly nothing stays in memory: what is looked at is read */
	fx_open(fx);
	return 0;
}

static int
lost_teardown(void **state)
{
	fault_clear();
	return fx_teardown(state);
}

static void
entry_set(struct fx *fx, const char *value)
{
	OK(om_store_entry_put(fx->st, OM_STR("list"), OM_STR("key"),
			      (struct om_bin){ (const uint8_t *)value, strlen(value) }));
}

/* What is acknowledged and not folded: of every kind that waits somewhere. */
static void
acknowledge(struct fx *fx)
{
	const struct om_job_change to = fx_change(OM_JOB_PROVISIONING, 5);
	const struct om_job_id old = fx_id("old7");
	const struct om_job_new job = fx_job("new", "the new one's body");
	struct om_job_row row;
	bool existed;

	OK(om_store_begin(fx->st));
	OK(om_store_job_move(fx->st, &old, &to, NULL));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	entry_set(fx, "one");
	OK(om_store_commit(fx->st));
	OK(fx_try_move(fx, "old7", OM_JOB_RUNNING, 6));
	OK(om_store_begin(fx->st));
	entry_set(fx, "two");
	OK(om_store_commit(fx->st));
}

/* What is told is never what was before; `or` an error. */
static void
tells_the_truth(struct fx *fx, enum om_err or)
{
	const struct om_job_id old = fx_id("old7"), new = fx_id("new");
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_RUNNING) };
	struct om_job_row row, rows[2];
	struct om_buf got = { 0 };
	enum om_err err;
	size_t count;

	err = om_store_job_get(fx->st, &old, &row);
	assert_true(err == OM_OK ? row.state == OM_JOB_RUNNING : or != OM_OK && err == or);
	err = om_store_job_list(fx->st, &filter, rows, 2, &count);
	assert_true(err == OM_OK ? count == 1 : or != OM_OK && err == or);
	err = om_store_job_spec(fx->st, &new, &got);
	assert_true(err == OM_OK ? got.len == 18 : or != OM_OK && err == or);
	om_buf_reset(&got);
	err = om_store_entry_get(fx->st, OM_STR("list"), OM_STR("key"), &got);
	assert_true(err == OM_OK ? got.len == 3 && memcmp(got.data, "two", 3) == 0
				 : or != OM_OK && err == or);
	om_buf_fini(&got);
}

static void
all_is_there(struct fx *fx)
{
	uint64_t counts[OM_JOB_STATES];
	struct om_audit_mark head;

	tells_the_truth(fx, OM_OK);
	OK(om_store_counts_since(fx->st, fx_at(0), counts));
	assert_int_equal(counts[OM_JOB_RUNNING], 1);
	assert_int_equal(counts[OM_JOB_QUEUED], OLD_JOBS + 1);
	OK(om_store_audit_head(fx->st, &head));
	assert_int_equal(head.seq, OLD_JOBS + 3);
	assert_false(fx_verify(fx, NULL).broken);
}

/* Looks at much; the first error ends it. */
static enum om_err
look_around(struct fx *fx)
{
	struct om_job_filter filter = { 0 };
	struct om_audit_check check = { 0 };
	struct om_job_row rows[8];
	uint64_t counts[OM_JOB_STATES];
	struct om_buf got = { 0 };
	enum om_err err;
	size_t count;
	struct om_job_id id;

	do {
		err = om_store_job_list(fx->st, &filter, rows, 8, &count);
		id = rows[0].id;
		if (err == OM_OK && count > 0) {
			err = om_store_job_spec(fx->st, &id, &got);
		}
	} while (err == OM_OK && filter.cursor != 0);
	if (err == OM_OK) {
		err = om_store_counts_since(fx->st, fx_at(0), counts);
	}
	while (err == OM_OK && !check.done) {
		err = om_store_audit_verify(fx->st, &check, 16);
	}
	om_buf_fini(&got);
	return err;
}

/* Every read fails in turn while nobody writes. */
static void
test_outside_a_group(void **state)
{
	int lost = 0, hit = 1;

	(void)state;
	for (int at = 1; hit; at += FAULT_STEP) {
		void *one = NULL;
		struct fx *fx;

		assert_int_equal(lost_setup(&one), 0);
		fx = one;
		acknowledge(fx);
		fault_set(FAULT_READ, at, SQLITE_IOERR_READ, 0);
		lost += look_around(fx) != OM_OK;
		hit = fault_failed();
		fault_clear();
		all_is_there(fx);
		image_same(fx);
		all_is_there(fx);
		assert_int_equal(lost_teardown(&one), 0);
	}
	assert_true(lost > 20 / FAULT_STEP);
}

/* A list writes the rows that wait, and one cannot be written; SQLite does not roll back by itself. */
static void
test_a_row_that_could_not_be_written(void **state)
{
	struct fx *fx = *state;
	struct om_job_filter filter = { 0 };
	struct om_job_row rows[8];
	size_t count;

	acknowledge(fx);
	fault_set(FAULT_READ, 1, SQLITE_CORRUPT, 1);
	ERR(OM_ERR_CORRUPT, om_store_job_list(fx->st, &filter, rows, 8, &count));
	fault_clear();
	all_is_there(fx);
	image_same(fx);
	all_is_there(fx);
}

/* What waited failed, not the list: all is made anew for it. */
static void
test_a_list_behind_a_row_that_could_not_be_written(void **state)
{
	struct fx *fx = *state;
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_RUNNING) };
	struct om_job_row rows[8];
	size_t count;

	acknowledge(fx);
	fault_set(FAULT_READ, 1, SQLITE_CORRUPT, 0);
	OK(om_store_job_list(fx->st, &filter, rows, 8, &count));
	assert_int_equal(fault_failed(), 1);
	assert_int_equal(count, 1);
	all_is_there(fx);
}

static const struct {
	int op, rc;
} faults[] = { { FAULT_READ, SQLITE_IOERR_READ },
	       { FAULT_WRITE, SQLITE_IOERR_WRITE },
	       { FAULT_WRITE, SQLITE_FULL },
	       { FAULT_SYNC, SQLITE_IOERR_FSYNC },
	       { FAULT_READ, SQLITE_CORRUPT } }; /* after which SQLite does not roll back */

/* Every operation fails in turn while a group is made; what is asked in the middle of it is true too. */
static void
test_inside_a_group(void **state)
{
	int lost = 0;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(faults); i++) {
		for (int at = 1, hit = 1; hit; at += FAULT_STEP) {
			enum om_err err;
			void *one = NULL;
			struct fx *fx;

			assert_int_equal(lost_setup(&one), 0);
			fx = one;
			acknowledge(fx);
			OK(om_store_begin(fx->st));
			fault_set(faults[i].op, at, faults[i].rc, 0);
			put(fx, "half", &err);
			for (int n = 0; err == OM_OK && n < 3; n++) {
				put(fx, n == 0 ? "h0" : n == 1 ? "h1" : "h2", &err);
			}
			if (err == OM_OK) {
				err = look_around(fx);
			}
			hit = fault_failed();
			fault_clear();
			tells_the_truth(fx, err);
			if (err != OM_OK) {
				lost++;
				ERR(err, om_store_commit(fx->st));
			} else {
				om_store_rollback(fx->st);
			}
			all_is_there(fx);
			image_same(fx);
			all_is_there(fx);
			assert_int_equal(lost_teardown(&one), 0);
		}
	}
	assert_true(lost > 20 / FAULT_STEP);
}

/* Every operation of a fold fails in turn. */
static void
test_in_a_fold(void **state)
{
	int lost = 0;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(faults); i++) {
		for (int at = 1, hit = 1; hit; at += FAULT_STEP) {
			void *one = NULL;
			struct fx *fx;

			assert_int_equal(lost_setup(&one), 0);
			fx = one;
			acknowledge(fx);
			fault_set(faults[i].op, at, faults[i].rc, 0);
			lost += om_store_fold(fx->st, true) != OM_OK;
			hit = fault_failed();
			fault_clear();
			all_is_there(fx);
			image_same(fx);
			all_is_there(fx);
			assert_int_equal(lost_teardown(&one), 0);
		}
	}
	assert_true(lost > 4 / FAULT_STEP);
}

/* No room for a fold: what is there is read, nothing is taken, and it goes on when there is room. */
static void
test_no_room_to_fold(void **state)
{
	struct fx *fx = *state;
	struct om_store_stat info;

	acknowledge(fx);
	fault_set(FAULT_SYNC, 1, SQLITE_FULL, 1);
	for (int i = 0; i < 3; i++) {
		ERR(OM_ERR_DISK, om_store_fold(fx->st, true));
		assert_true(fx->st->unfolded);
		all_is_there(fx);
		ERR(OM_ERR_DISK, om_store_begin(fx->st));
		all_is_there(fx);
	}
	fault_clear();
	OK(om_store_begin(fx->st));
	entry_set(fx, "two");
	OK(om_store_commit(fx->st));
	OK(om_store_stat(fx->st, &info));
	assert_int_equal(info.recoveries, 1);
	all_is_there(fx);
	image_same(fx);
	all_is_there(fx);
}

/* Who needs to know what became of a group does not wait for a thread that has not come yet. */
static void
test_a_group_that_nobody_has_begun_to_write(void **state)
{
	struct fx *fx = *state;

	acknowledge(fx);
	OK(om_store_begin(fx->st));
	entry_set(fx, "two");
	OK(om_store_commit_start(fx->st));
	OK(om_store_fold(fx->st, true));
	om_store_commit_write(fx->st); /* too late */
	OK(om_store_commit_end(fx->st));
	all_is_there(fx);
	image_same(fx);
	OK(om_store_begin(fx->st));
	entry_set(fx, "three");
	OK(om_store_commit_start(fx->st));
	fault_set(FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 0);
	ERR(OM_ERR_DISK, om_store_commit_end(fx->st));
	fault_clear();
	om_store_commit_write(fx->st);
	all_is_there(fx);
}

/* A fold beside the groups fails, those after it are in the other log: what is folded then is of neither. */
static void
test_nothing_is_left_of_two_logs(void **state)
{
	struct fx *fx = *state;
	struct om_store_stat info;

	acknowledge(fx);
	fault_set_on("-wal", FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 0);
	OK(om_store_fold(fx->st, false));
	OK(om_store_begin(fx->st));
	OK(om_store_audit_append(fx->st, fx_at(0), &fx_note_received));
	OK(om_store_commit(fx->st));
	OK(om_store_wipe(fx->st));
	fault_clear();
	OK(om_store_stat(fx->st, &info));
	assert_int_equal(info.recoveries, 1);
	assert_int_equal(info.wal_bytes, 0);
	assert_false(fx_verify(fx, NULL).broken);
	image_same(fx);
}

/* While somebody else holds the lock nothing can be made again: that is said, and nothing old is told. */
static void
test_somebody_else_came_between(void **state)
{
	struct fx *fx = *state;
	sqlite3 *db = NULL;

	fx_close(fx);
	fx->conf.busy_ms = 1;
	fx_open(fx);
	acknowledge(fx);
	OK(om_store_begin(fx->st));
	entry_set(fx, "three");
	om_store_rollback(fx->st);
	assert_int_equal(sqlite3_open(fx->path, &db), SQLITE_OK);
	/* A group that is given up leaves nobody a moment: those before it are not in the file. */
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_BUSY);
	OK(om_store_begin(fx->st));
	entry_set(fx, "three");
	fault_set(FAULT_READ, 1, SQLITE_IOERR_READ, 1);
	om_store_rollback(fx->st);
	fault_clear();
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	tells_the_truth(fx, OM_ERR_DISK);
	ERR(OM_ERR_DISK, om_store_begin(fx->st));
	ERR(OM_ERR_DISK, om_store_fold(fx->st, true));
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	all_is_there(fx);
	image_same(fx);
}

/* --- any failure at any time -------------------------------------------------------------------- */

static uint64_t
next_rand(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *seed >> 33;
}

/* Jobs that move on, with output; the entry counts the groups.  The first error ends it. */
static enum om_err
random_group(struct fx *fx, uint64_t *seed, uint64_t number)
{
	enum om_err err = om_store_begin(fx->st);

	for (uint64_t n = next_rand(seed) % 5; err == OM_OK && n > 0; n--) {
		const struct om_job_change change =
		    fx_change(next_rand(seed) % 2 ? OM_JOB_PROVISIONING : OM_JOB_QUEUED,
			      (int64_t)number * 300);
		struct om_job_id id;
		char name[16];
		uint64_t size;

		(void)snprintf(name, sizeof(name), "old%u", (unsigned)(next_rand(seed) % OLD_JOBS));
		id = fx_id(name);
		err = om_store_job_move(fx->st, &id, &change, NULL);
		err = err == OM_ERR_STATE ? OM_OK : err;
		if (err == OM_OK && next_rand(seed) % 3 == 0) {
			err = om_store_output_append(
			    fx->st, &id, (struct om_out_ref){ 0 }, OM_OUT_AT_END,
			    (struct om_bin){ (const uint8_t *)"out", 3 }, &size);
		}
	}
	if (err == OM_OK) {
		err =
		    om_store_entry_put(fx->st, OM_STR("list"), OM_STR("number"),
				       (struct om_bin){ (const uint8_t *)&number, sizeof(number) });
	}
	if (err != OM_OK || next_rand(seed) % 6 == 0) {
		om_store_rollback(fx->st);
		return err == OM_OK ? OM_ERR_CANCELLED : err;
	}
	return om_store_commit(fx->st);
}

static uint64_t
number_told(struct fx *fx)
{
	struct om_buf got = { 0 };
	uint64_t number = 0;
	const enum om_err err = om_store_entry_get(fx->st, OM_STR("list"), OM_STR("number"), &got);

	if (err != OM_ERR_NOT_FOUND) {
		OK(err);
		assert_int_equal(got.len, sizeof(number));
		memcpy(&number, got.data, sizeof(number));
	}
	om_buf_fini(&got);
	return number;
}

static void
random_life(struct fx *fx, uint64_t *seed, int *refused)
{
	static const int stays[] = { 0, 0, 0, 1 };
	uint64_t acked = 0;

	for (uint64_t i = 1; i <= 80; i++) {
		const size_t f =
		    next_rand(seed) % (OM_COUNT(faults) - 1); /* (no real disk says CORRUPT) */
		enum om_err err;

		if (next_rand(seed) % 3 == 0) {
			fault_set(faults[f].op, 1 + (int)(next_rand(seed) % 12), faults[f].rc,
				  stays[next_rand(seed) % 4]);
		}
		err = random_group(fx, seed, i);
		if (err == OM_OK) {
			acked = i;
		} else {
			(*refused)++;
		}
		if (next_rand(seed) % 4 == 0) {
			(void)!look_around(fx);
		}
		if (next_rand(seed) % 6 == 0) {
			(void)!om_store_fold(fx->st, true);
		}
		fault_clear();
		assert_int_equal(number_told(fx), acked);
		/* (A group that was refused may come to life in a crash before the next one.) */
		if (acked == i && next_rand(seed) % 8 == 0) {
			image_same(fx);
		}
	}
	OK(om_store_fold(fx->st, true));
	image_same(fx);
	assert_int_equal(number_told(fx), acked);
}

static void
test_random_failures(void **state)
{
	int refused = 0;

	(void)state;
	for (uint64_t round = 1; round <= 12 / FAULT_STEP; round++) {
		uint64_t seed = round;
		void *one = NULL;

		assert_int_equal(lost_setup(&one), 0);
		random_life(one, &seed, &refused);
		assert_int_equal(lost_teardown(&one), 0);
	}
	assert_true(refused > 100 / FAULT_STEP);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, lost_setup, lost_teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_row_that_could_not_be_written),
		T(test_a_list_behind_a_row_that_could_not_be_written),
		cmocka_unit_test(test_outside_a_group),
		cmocka_unit_test(test_inside_a_group),
		cmocka_unit_test(test_in_a_fold),
		T(test_no_room_to_fold),
		T(test_nothing_is_left_of_two_logs),
		T(test_a_group_that_nobody_has_begun_to_write),
		T(test_somebody_else_came_between),
		cmocka_unit_test(test_random_failures),
	};

	om_log_init(OM_LOG_ERROR, 0);
	fault_alone();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
