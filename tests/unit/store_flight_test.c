/* SPDX-License-Identifier: ISC */
#include "base/log.h"
#include "tests/unit/store_groups.h"

/* A commit in three steps, and what is done between them (sqlite_commit.c). */

/* Group n is in flight; nobody writes it yet. */
static void
start(struct fx *fx, int n)
{
	open_group(fx, n);
	OK(om_store_commit_start(fx->st));
}

/* --- seen --------------------------------------------------------------------------------------- */

static void
test_the_next_group_and_reads_see_it(void **state)
{
	struct fx *fx = *state;
	struct om_job_row row;
	const struct om_job_id id = group_job(3);

	groups_put(fx, 1, 2);
	start(fx, 3);
	groups_there(fx, 3);
	OK(om_store_begin(fx->st));
	OK(om_store_job_get(fx->st, &id, &row));
	OK(group_write(fx, 4));
	groups_rows(fx, 4);
	om_store_commit_write(fx->st);
	OK(om_store_commit_end(fx->st));
	groups_rows(fx, 4);
	OK(om_store_commit(fx->st));
	groups_there(fx, 4);
	crash_has(fx, 4);
	image_same(fx);
}

/* What it changed nothing with costs nothing. */
static void
test_an_empty_one(void **state)
{
	struct fx *fx = *state;

	groups_put(fx, 1, 2);
	hold_set("-log", FAULT_WRITE | FAULT_SYNC, 0);
	OK(om_store_begin(fx->st));
	OK(om_store_commit_start(fx->st));
	open_group(fx, 3);
	om_store_commit_write(fx->st);
	assert_int_equal(hold_let_go(), 0);
	OK(om_store_commit_end(fx->st));
	OK(om_store_commit(fx->st));
	groups_there(fx, 3);
	crash_has(fx, 3);
}

/* The next is given up: this one is acknowledged all the same. */
static void
test_the_next_group_is_rolled_back(void **state)
{
	struct fx *fx = *state;

	for (int early = 0, n = 3; early < 2; early++, n++) {
		if (n == 3) {
			groups_put(fx, 1, 2);
		}
		start(fx, n);
		open_group(fx, n + 1);
		om_store_commit_write(fx->st);
		if (early) {
			om_store_rollback(fx->st);
			groups_there(fx, n);
		}
		OK(om_store_commit_end(fx->st));
		if (!early) {
			om_store_rollback(fx->st);
		}
		groups_there(fx, n);
		crash_has(fx, n);
	}
	image_same(fx);
}

/* --- it fails ----------------------------------------------------------------------------------- */

enum { NEXT_NONE, NEXT_COMMIT, NEXT_ROLLBACK, NEXT_EMPTY, NEXT_LOOKS, NEXT_LATE, NEXTS };

/* What is done with the group behind it, which was begun before the end. */
static void
next_fails(struct fx *fx, int next)
{
	struct om_job_filter filter = { 0 };
	struct om_job_row rows[2];
	size_t count;

	switch (next) {
	case NEXT_ROLLBACK:
		om_store_rollback(fx->st);
		break;
	case NEXT_LOOKS:
		ERR(OM_ERR_DISK, om_store_job_list(fx->st, &filter, rows, 2, &count));
		ERR(OM_ERR_DISK, group_write(fx, 5));
		ERR(OM_ERR_DISK, om_store_commit_start(fx->st));
		break;
	case NEXT_COMMIT:
	case NEXT_EMPTY:
		ERR(OM_ERR_DISK, om_store_commit(fx->st));
		break;
	default:
		return;
	}
	assert_non_null(strstr(om_store_why(fx->st), "append a group"));
}

/* What was before it is in the tables' transaction again at once. */
static void
nobody_comes_between(struct fx *fx)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(fx->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_BUSY);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void
write_fails(struct fx *fx, int op, int next)
{
	struct om_store_stat before, after;

	groups_put(fx, 1, 2);
	OK(om_store_stat(fx->st, &before));
	start(fx, 3);
	if (next == NEXT_EMPTY) {
		OK(om_store_begin(fx->st));
	} else if (next != NEXT_NONE && next != NEXT_LATE) {
		open_group(fx, 4);
		groups_rows(fx, 4);
	}
	fault_set_on("-log", op, 1, op == FAULT_SYNC ? SQLITE_IOERR_FSYNC : SQLITE_FULL, 0);
	om_store_commit_write(fx->st);
	assert_int_equal(fault_failed(), 1);
	if (next == NEXT_LATE) { /* begun when it is known already, which a fold has found out */
		OK(om_store_fold(fx->st, true));
		open_group(fx, 3);
	}
	ERR(OM_ERR_DISK, om_store_commit_end(fx->st));
	assert_non_null(strstr(om_store_why(fx->st), "append a group"));
	next_fails(fx, next);
	if (next == NEXT_LATE) {
		om_store_rollback(fx->st);
	}
	if (next != NEXT_LATE) {
		nobody_comes_between(fx);
	}
	groups_there(fx, 2);
	OK(om_store_check(fx->st));
	OK(om_store_stat(fx->st, &after));
	assert_int_equal(after.commits, before.commits);
	groups_put(fx, 3, 4);
	groups_there(fx, 4);
	crash_has(fx, 4);
	image_same(fx);
}

static void
test_its_write_fails(void **state)
{
	(void)state;
	for (int next = 0; next < NEXTS; next++) {
		for (int sync = 0; sync < 2; sync++) {
			void *one = NULL;

			assert_int_equal(groups_setup(&one), 0);
			write_fails(one, sync ? FAULT_SYNC : FAULT_WRITE, next);
			assert_int_equal(groups_teardown(&one), 0);
		}
	}
}

/* While the applier folds what was before it. */
static void
test_its_write_fails_beside_a_fold(void **state)
{
	struct fx *fx = *state;

	groups_put(fx, 1, 3);
	hold_set("-wal", FAULT_SYNC, 1);
	OK(om_store_fold(fx->st, false));
	hold_reached();
	groups_put(fx, 4, 4);
	start(fx, 5);
	open_group(fx, 6);
	fault_set_on("-log2", FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 0);
	om_store_commit_write(fx->st);
	hold_waits = 0;
	ERR(OM_ERR_DISK, om_store_commit_end(fx->st));
	assert_int_equal(hold_waits, 1);
	ERR(OM_ERR_DISK, om_store_commit(fx->st));
	groups_there(fx, 4);
	OK(om_store_check(fx->st));
	groups_put(fx, 5, 6);
	groups_there(fx, 6);
	crash_has(fx, 6);
	image_same(fx);
}

/* A group that is not in the log may be in the tables' transaction, and in no fold. */
static void
test_no_fold_has_it(void **state)
{
	struct fx *fx = *state;

	groups_put(fx, 1, 2);
	start(fx, 3);
	hold_set("-wal", FAULT_SYNC, 0);
	OK(om_store_fold(fx->st, false));
	groups_there(fx, 3); /* a fold would be done */
	assert_int_equal(hold_let_go(), 0);
	assert_true(fx->st->unfolded);
	crash_has(fx, 2);
	fault_set_on("-log", FAULT_WRITE, 1, SQLITE_FULL, 0);
	om_store_commit_write(fx->st);
	ERR(OM_ERR_DISK, om_store_commit_end(fx->st));
	groups_there(fx, 2);
	crash_has(fx, 2);
}

/* A fold of all waits for it. */
static void
test_a_fold_waits_for_it(void **state)
{
	struct fx *fx = *state;
	pthread_t writer;

	groups_put(fx, 1, 2);
	start(fx, 3);
	hold_set("-log", FAULT_SYNC, 1);
	writer = write_beside(fx);
	hold_reached();
	hold_waits = 0;
	OK(om_store_fold(fx->st, true));
	assert_int_equal(hold_waits, 1);
	assert_false(fx->st->unfolded);
	OK(om_store_commit_end(fx->st));
	writer_join(writer);
	groups_there(fx, 3);
	FX_ASK_IS(fx, "SELECT count(*) FROM job", "3");
}

static void
test_the_end_waits_for_the_write(void **state)
{
	struct fx *fx = *state;
	pthread_t writer;

	groups_put(fx, 1, 2);
	start(fx, 3);
	hold_set("-log", FAULT_WRITE, 1);
	writer = write_beside(fx);
	hold_reached();
	open_group(fx, 4);
	groups_rows(fx, 4);
	hold_waits = 0;
	OK(om_store_commit_end(fx->st));
	assert_int_equal(hold_waits, 1);
	writer_join(writer);
	crash_has(fx, 3);
	OK(om_store_commit(fx->st));
	groups_there(fx, 4);
}

/* --- crashes ------------------------------------------------------------------------------------ */

static void
test_closed_before_the_end(void **state)
{
	struct fx *fx = *state;

	groups_put(fx, 1, 2);
	for (int n = 3; n < 5; n++) {
		start(fx, n);
		if (n == 4) {
			open_group(fx, 5);
		}
		om_store_commit_write(fx->st);
		fx_close(fx);
		fx_open(fx);
		groups_there(fx, n);
	}
	start(fx, 5);
	fault_set_on("-log", FAULT_WRITE, 1, SQLITE_FULL, 0);
	om_store_commit_write(fx->st);
	fx_close(fx);
	fx_open(fx);
	groups_there(fx, 4);
}

/* A large group goes to the disk in pieces: all of it is there after a crash, or nothing. */
static void
test_a_crash_while_it_is_written(void **state)
{
	static uint8_t big[200 << 10];
	int there = 0, gone = 0;

	(void)state;
	memset(big, 'b', sizeof(big));
	for (int at = 1; at <= 5; at++) {
		struct fx *fx, *copy;
		pthread_t writer;
		void *one = NULL, *other;
		bool has;

		assert_int_equal(groups_setup(&one), 0);
		fx = one;
		groups_put(fx, 1, 2);
		open_group(fx, 3);
		OK(entry_put(fx, "big", big, sizeof(big)));
		OK(om_store_commit_start(fx->st));
		hold_set("-log", FAULT_WRITE | FAULT_SYNC, at);
		writer = write_beside(fx);
		hold_reached();
		other = copy = image_of_running(fx);
		fx_open(copy);
		has = entry_len(copy, "big") > 0;
		groups_there(copy, has ? 3 : 2);
		assert_int_equal(fx_teardown(&other), 0);
		there += has;
		gone += !has;
		(void)hold_let_go();
		writer_join(writer);
		other = copy = image_of_running(fx);
		fx_open(copy);
		groups_there(copy, 3);
		assert_int_equal(entry_len(copy, "big"), sizeof(big));
		assert_int_equal(fx_teardown(&other), 0);
		OK(om_store_commit_end(fx->st));
		assert_int_equal(groups_teardown(&one), 0);
	}
	assert_int_equal(there, 1); /* the last: it was being synced */
	assert_int_equal(gone, 4);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, groups_setup, groups_teardown)
	const struct CMUnitTest tests[] = {
		T(test_the_next_group_and_reads_see_it),
		T(test_an_empty_one),
		T(test_the_next_group_is_rolled_back),
		cmocka_unit_test(test_its_write_fails),
		T(test_its_write_fails_beside_a_fold),
		T(test_no_fold_has_it),
		T(test_a_fold_waits_for_it),
		T(test_the_end_waits_for_the_write),
		T(test_closed_before_the_end),
		cmocka_unit_test(test_a_crash_while_it_is_written),
	};

	om_log_init(OM_LOG_ERROR, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
