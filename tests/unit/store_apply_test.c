/* SPDX-License-Identifier: ISC */
#include "base/log.h"
#include "store/ran.h"
#include "tests/unit/store_groups.h"

/*
 * The tables are written and folded beside the store's thread (sqlite_apply.c).  What a fold does on the
 * disk, it does on "-wal"; groups go to "-log" and "-log2".
 */

#define FOLD_OPS (FAULT_WRITE | FAULT_SYNC)

/* A store with some groups, whose fold is held at an operation. */
static struct fx *
held_fold(int at)
{
	void *one = NULL;
	struct fx *fx;

	assert_int_equal(groups_setup(&one), 0);
	fx = one;
	groups_put(fx, 1, 3);
	hold_set("-wal", FOLD_OPS, at);
	OK(om_store_fold(fx->st, false));
	hold_reached();
	assert_true(fx->st->unfolded);
	return fx;
}

static void
end(struct fx *fx)
{
	void *one = fx;

	assert_int_equal(groups_teardown(&one), 0);
}

/* So many operations has the fold of held_fold. */
static int
fold_ops(void)
{
	void *one = NULL;
	int ops;

	assert_int_equal(groups_setup(&one), 0);
	groups_put(one, 1, 3);
	hold_set("-wal", FOLD_OPS, 0);
	fx_fold(one);
	ops = hold_let_go();
	assert_int_equal(groups_teardown(&one), 0);
	assert_true(ops > 4);
	return ops;
}

/* --- crashes ------------------------------------------------------------------------------------ */

static void
test_a_crash_at_each_operation_of_a_fold(void **state)
{
	const int ops = fold_ops();

	(void)state;
	for (int at = 1; at <= ops; at++) {
		struct fx *fx = held_fold(at);

		crash_has(fx, 3);
		groups_put(fx, 4, 5);
		crash_has(fx, 5);
		hold_done(); /* the tables have it, and the store has not heard of it */
		crash_has(fx, 5);
		groups_put(fx, 6, 6);
		crash_has(fx, 6);
		groups_there(fx, 6);
		crash_has(fx, 6);
		fx_fold(fx);
		crash_has(fx, 6);
		end(fx);
	}
}

static const int fold_errors[] = { SQLITE_IOERR_WRITE, SQLITE_FULL, SQLITE_IOERR_FSYNC };

/* Each operation of it fails, once. */
static void
test_each_operation_of_a_fold_fails(void **state)
{
	const int ops = fold_ops();

	(void)state;
	for (int at = 1; at <= ops; at++) {
		struct fx *fx = held_fold(1);
		struct om_store_stat info;

		groups_put(fx, 4, 4);
		fault_set_on("-wal", FOLD_OPS, at, fold_errors[at % 3], 0);
		hold_done();
		assert_int_equal(fault_failed(), 1);
		crash_has(fx, 4);
		groups_put(fx, 5, 5); /* it was made while the fold went on, for all we know */
		crash_has(fx, 5);
		groups_there(fx, 5);
		crash_has(fx, 5);
		groups_put(fx, 6, 6);
		OK(om_store_stat(fx->st, &info));
		assert_int_equal(info.recoveries, 1);
		crash_has(fx, 6);
		groups_there(fx, 6);
		die(fx);
		fx_open(fx);
		groups_there(fx, 6);
		groups_put(fx, 7, 7);
		image_same(fx);
		end(fx);
	}
}

/* The disk stays as it is: nothing more is taken, everything is read, and it goes on when it works. */
static void
test_a_fold_fails_until_the_disk_works(void **state)
{
	struct fx *fx = held_fold(1);

	(void)state;
	groups_put(fx, 4, 4);
	fault_set_on("-wal", FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 1);
	hold_done();
	groups_there(fx, 4);
	for (int i = 0; i < 3; i++) {
		ERR(OM_ERR_DISK, om_store_fold(fx->st, false));
		assert_true(fx->st->unfolded);
		ERR(OM_ERR_DISK, group_try(fx, 5));
		groups_there(fx, 4);
		crash_has(fx, 4);
	}
	fault_clear();
	groups_put(fx, 5, 5);
	groups_there(fx, 5);
	image_same(fx);
	end(fx);
}

static int
keep_some(void *arg)
{
	uint64_t *seed = arg;

	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *seed >> 63 != 0;
}

/* Of what was not synced some is on the disk, in any order; what was acknowledged is. */
static void
test_the_power_fails_at_each_operation_of_a_fold(void **state)
{
	const int ops = fold_ops();
	uint64_t seed = 1;

	(void)state;
	for (int at = 1; at <= ops; at++) {
		struct fx *fx;

		fault_track = 1;
		fx = held_fold(at);
		groups_put(fx, 4, 5);
		fault_power_cut(keep_some, &seed);
		fault_track = 0;
		crash_has(fx, 5);
		hold_done();
		die(fx); /* the rest of its life does not count */
		end(fx);
	}
}

/* The store is closed while it is held: it waits, and folds what came meanwhile. */
static void
test_closed_while_it_folds(void **state)
{
	struct fx *fx = held_fold(2);

	(void)state;
	groups_put(fx, 4, 5);
	hold_waits = 0;
	fx_close(fx);
	assert_int_equal(hold_waits, 1);
	FX_ASK_IS(fx, "SELECT count(*) FROM job", "5");
	fx_open(fx);
	groups_there(fx, 5);
	end(fx);
}

/* A group that is given up while it folds: those before it are there, and it is not. */
static void
test_a_rollback_while_it_folds(void **state)
{
	const int ops = fold_ops();

	(void)state;
	for (int at = 1; at <= ops; at++) {
		struct fx *fx = held_fold(at);

		groups_put(fx, 4, 4);
		OK(om_store_begin(fx->st));
		OK(group_write(fx, 5));
		hold_waits = 0;
		om_store_rollback(fx->st);
		assert_int_equal(hold_waits, 1);
		groups_there(fx, 4);
		groups_put(fx, 5, 5);
		groups_there(fx, 5);
		crash_has(fx, 5);
		end(fx);
	}
}

/* --- reads -------------------------------------------------------------------------------------- */

static bool
count_entry(void *arg, struct om_str key, struct om_bin value)
{
	(void)key;
	(void)value;
	++*(int *)arg;
	return true;
}

static bool
count_audit(void *arg, const struct om_audit_row *row)
{
	(void)row;
	++*(int *)arg;
	return true;
}

static void
read_lists(struct fx *fx, int which)
{
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_PROVISIONING) };
	struct om_audit_filter audit = { 0 };
	struct om_job_row rows[8];
	struct om_job_id ids[2];
	size_t count;
	bool more;
	int n = 0;

	switch (which) {
	case 0:
		OK(om_store_job_list(fx->st, &filter, rows, 8, &count));
		assert_int_equal(count, 4);
		break;
	case 1:
		OK(om_store_job_find(fx->st, OM_STR("j5"), OM_STR("alice"), ids, 2, &count));
		assert_string_equal(ids[0].text, "j5");
		break;
	case 2:
		OK(om_store_entry_each(fx->st, OM_STR("list"), (struct om_str){ 0 }, count_entry,
				       &n));
		assert_int_equal(n, 1);
		break;
	default:
		OK(om_store_audit_each(fx->st, &audit, 100, count_audit, &n, &more));
		assert_int_equal(n, 9);
	}
}

static void
read_one(struct fx *fx, int which)
{
	const struct om_job_id last = group_job(5);
	uint64_t counts[OM_JOB_STATES];
	struct om_job_after after;
	struct om_store_stat stat;
	struct om_store_ran ran;
	struct om_buf spec = { 0 };
	size_t count;

	switch (which) {
	case 0:
		assert_int_equal(entry_len(fx, "first"), 1);
		break;
	case 1:
		OK(om_store_job_spec(fx->st, &last, &spec));
		om_buf_fini(&spec);
		break;
	case 2:
		OK(om_store_counts_since(fx->st, fx_at(0), counts));
		assert_int_equal(counts[OM_JOB_QUEUED], 5);
		break;
	case 3:
		OK(om_store_ran_since(fx->st, fx_at(0), (struct om_str){ 0 }, &ran, 1, &count));
		assert_int_equal(count, 0);
		break;
	case 4:
		OK(om_store_job_after(fx->st, &last, &after, 1, &count));
		assert_int_equal(count, 0);
		break;
	case 5:
		OK(om_store_stat(fx->st, &stat));
		assert_int_equal(stat.audit_rows, 9);
		break;
	case 6:
		assert_int_equal(fx_verify(fx, NULL).rows, 9);
		break;
	default:
		read_lists(fx, which - 7);
	}
}

/* Whoever reads the tables waits for the fold, and sees what was acknowledged meanwhile. */
static void
test_reads_wait(void **state)
{
	const struct om_job_id last = group_job(5);
	uint64_t counts[OM_JOB_STATES];
	struct om_job_row row;

	(void)state;
	for (int which = 0; which < 11; which++) {
		struct fx *fx = held_fold(2);

		groups_put(fx, 4, 5);
		hold_waits = 0;
		OK(om_store_job_get(fx->st, &last, &row)); /* what is in memory need not wait */
		OK(om_store_counts(fx->st, counts));
		assert_int_equal(hold_waits, 0);
		read_one(fx, which);
		assert_int_equal(hold_waits, 1);
		read_one(fx, which);
		assert_int_equal(hold_waits, 1);
		groups_there(fx, 5);
		end(fx);
	}
}

/* In a group, too: it goes on, and its own writes are among what is seen. */
static void
test_a_group_reads_while_it_folds(void **state)
{
	struct fx *fx = held_fold(2);

	(void)state;
	groups_put(fx, 4, 4);
	OK(om_store_begin(fx->st));
	OK(group_write(fx, 5));
	hold_waits = 0;
	groups_rows(fx, 5);
	assert_int_equal(hold_waits, 1);
	OK(om_store_commit(fx->st));
	groups_there(fx, 5);
	image_same(fx);
	end(fx);
}

/* --- one behind the other ----------------------------------------------------------------------- */

static void
test_a_second_fold_right_behind(void **state)
{
	struct fx *fx = held_fold(1);

	(void)state;
	groups_put(fx, 4, 5);
	hold_waits = 0;
	OK(om_store_fold(fx->st, false)); /* one at a time */
	assert_int_equal(hold_waits, 0);
	for (int n = 6; n < 12; n += 2) {
		hold_done();
		hold_set("-wal", FOLD_OPS, 2);
		OK(om_store_fold(fx->st, false));
		hold_reached();
		crash_has(fx, n - 1);
		groups_put(fx, n, n + 1);
		crash_has(fx, n + 1);
	}
	assert_int_equal(hold_waits, 0);
	groups_there(fx, 11);
	image_same(fx);
	end(fx);
}

/* It is told by what comes later that all is in the tables. */
static void
test_unfolded_until_a_later_call(void **state)
{
	struct fx *fx = held_fold(1);

	(void)state;
	OK(om_store_fold(fx->st, false));
	assert_true(fx->st->unfolded);
	hold_done();
	assert_true(fx->st->unfolded);
	OK(om_store_fold(fx->st, false));
	assert_false(fx->st->unfolded);
	groups_put(fx, 4, 4);
	assert_true(fx->st->unfolded);
	hold_set("-wal", FOLD_OPS, 1);
	OK(om_store_fold(fx->st, false));
	hold_reached();
	groups_put(fx, 5, 5);
	hold_done();
	hold_set("-wal", FOLD_OPS, 1);
	OK(om_store_fold(fx->st, false)); /* of group 5 */
	hold_reached();
	assert_true(fx->st->unfolded);
	hold_done();
	OK(om_store_maintain(fx->st));
	assert_false(fx->st->unfolded);
	groups_there(fx, 5);
	end(fx);
}

/* --- beside it ---------------------------------------------------------------------------------- */

/* Between the fold's commit and our next begin; a row that we remember and have not changed is theirs. */
static void
test_another_writer_behind_the_fold(void **state)
{
	static const char sql[] = "INSERT INTO entry VALUES('list', 'theirs', x'00');"
				  "UPDATE job SET text = 'theirs' WHERE id = 'j1'";
	struct fx *fx = held_fold(2);
	const struct om_job_id id = group_job(1);
	struct om_job_row row;

	(void)state;
	assert_int_equal(other_write(fx, sql), SQLITE_BUSY);
	groups_put(fx, 4, 5);
	hold_done();
	assert_int_equal(other_write(fx, sql), SQLITE_OK);
	groups_put(fx, 6, 6);
	assert_int_equal(other_write(fx, sql), SQLITE_CONSTRAINT);
	groups_there(fx, 6);
	assert_int_equal(other_write(fx, sql), SQLITE_BUSY);
	assert_int_equal(entry_len(fx, "theirs"), 1);
	OK(om_store_job_get(fx->st, &id, &row));
	assert_string_equal(row.text, "theirs");
	image_same(fx);
	end(fx);
}

/* As of the last fold, whatever is going on. */
static void
test_a_reader_beside_it(void **state)
{
	struct fx *fx = held_fold(2), look;

	(void)state;
	look = *fx;
	look.conf.path = look.path;
	look.conf.vfs = NULL;
	look.conf.read_only = true;
	fx_open(&look);
	groups_there(&look, 0);
	groups_put(fx, 4, 4);
	groups_there(&look, 0);
	hold_done();
	groups_there(&look, 3);
	fx_fold(fx);
	groups_there(&look, 4);
	fx_close(&look);
	groups_there(fx, 4);
	end(fx);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_crash_at_each_operation_of_a_fold),
		cmocka_unit_test(test_the_power_fails_at_each_operation_of_a_fold),
		cmocka_unit_test(test_each_operation_of_a_fold_fails),
		cmocka_unit_test(test_a_fold_fails_until_the_disk_works),
		cmocka_unit_test(test_closed_while_it_folds),
		cmocka_unit_test(test_a_rollback_while_it_folds),
		cmocka_unit_test(test_reads_wait),
		cmocka_unit_test(test_a_group_reads_while_it_folds),
		cmocka_unit_test(test_a_second_fold_right_behind),
		cmocka_unit_test(test_unfolded_until_a_later_call),
		cmocka_unit_test(test_another_writer_behind_the_fold),
		cmocka_unit_test(test_a_reader_beside_it),
	};

	om_log_init(OM_LOG_ERROR, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
