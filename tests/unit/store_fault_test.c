/* SPDX-License-Identifier: ISC */
#include <sys/mount.h>
#include <sys/stat.h>
#include "base/log.h"
#include "tests/unit/store_fault_vfs.h"
#include "tests/unit/store_fixture.h"

#define GROUPS    6 /* commits of one script */
#define GROUP_MAX 4 /* jobs in each */
#define BODY_LEN  9000 /* several pages */

/* A store without a job, as its file was left: making its tables took most of this test's time. */
static struct {
	char bytes[4 << 20];
	size_t len, used; /* used: what follows is zeros, taken beforehand */
} empty;

static void
empty_make(void)
{
	void *one = NULL;
	struct fx *fx;
	FILE *f;

	assert_int_equal(fx_setup(&one), 0);
	fx = one;
	fx_close(fx);
	f = fopen(fx->path, "re");
	assert_non_null(f);
	empty.len = fread(empty.bytes, 1, sizeof(empty.bytes), f);
	assert_in_range(empty.len, 1, sizeof(empty.bytes) - 1);
	for (empty.used = empty.len; empty.bytes[empty.used - 1] == 0; empty.used--) {
	}
	assert_int_equal(fclose(f), 0);
	assert_int_equal(fx_teardown(&one), 0);
}

static void
empty_write(const char *path)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(empty.bytes, 1, empty.used, f), empty.used);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(truncate(path, (off_t)empty.len), 0);
}

static int
fault_setup(void **state)
{
	struct fx *fx;

	fault_clear();
	if (empty.len == 0) {
		empty_make();
	}
	*state = fx = fx_new();
	if (fx == NULL) {
		return -1;
	}
	empty_write(fx->path);
	fx->conf.vfs = "fault";
	fx->conf.wal_bytes = 128 << 10; /* small: checkpoints happen */
	fx_open(fx);
	return 0;
}

static int
fault_teardown(void **state)
{
	fault_clear();
	return fx_teardown(state);
}

static enum om_err
try_put(struct fx *fx, const char *id)
{
	static char body[BODY_LEN];
	struct om_job_new job;
	struct om_job_row row;
	bool existed;

	memset(body, 'b', sizeof(body) - 1);
	job = fx_job(id, body);
	return om_store_job_put(fx->st, &job, &existed, &row);
}

/* What was acknowledged, by group. */
struct acked {
	bool group[GROUPS];
	enum om_err last;
};

/*
 * Groups of jobs; each is acknowledged when its commit says so, as the ledger does.  Between them
 * maintain, which may fail as it likes.
 */
static void
script_run(struct fx *fx, struct acked *acked)
{
	char id[32];
	enum om_err err;
	int g, i;

	memset(acked, 0, sizeof(*acked));
	for (g = 0; g < GROUPS; g++) {
		err = om_store_begin(fx->st);
		if (err != OM_OK) {
			acked->last = err;
			continue;
		}
		for (i = 0; i < GROUP_MAX; i++) {
			(void)snprintf(id, sizeof(id), "g%d.%d", g, i);
			err = try_put(fx, id);
			if (err != OM_OK) {
				/* One job's failure of this kind is the group's. */
				assert_int_not_equal(om_store_commit(fx->st), OM_OK);
				break;
			}
		}
		if (err == OM_OK) {
			err = om_store_commit(fx->st);
		}
		acked->group[g] = err == OM_OK;
		if (err != OM_OK) {
			assert_true(strlen(om_store_why(fx->st)) > 0);
			acked->last = err;
		}
		(void)!om_store_maintain(fx->st);
	}
}

/* All of a group or nothing of it, and everything that was acknowledged. */
static void
script_verify(struct fx *fx, const struct acked *acked, bool exact)
{
	struct om_job_row row;
	char text[32];
	int g, i, n;

	for (g = 0; g < GROUPS; g++) {
		for (i = 0, n = 0; i < GROUP_MAX; i++) {
			struct om_job_id id;

			(void)snprintf(text, sizeof(text), "g%d.%d", g, i);
			id = fx_id(text);
			n += om_store_job_get(fx->st, &id, &row) == OM_OK;
		}
		assert_true(n == 0 || n == GROUP_MAX);
		if (acked->group[g]) {
			assert_int_equal(n, GROUP_MAX);
		} else if (exact) {
			assert_int_equal(n, 0);
		}
	}
	assert_false(fx_verify(fx, NULL).broken);
	OK(om_store_check(fx->st));
}

static const struct {
	const char *name;
	int ops, rc, stays;
} faults[] = {
	{ "one write fails", FAULT_WRITE, SQLITE_IOERR_WRITE, 0 },
	{ "one write finds the disk full", FAULT_WRITE, SQLITE_FULL, 0 },
	{ "one fsync fails", FAULT_SYNC, SQLITE_IOERR_FSYNC, 0 },
	{ "one truncate fails", FAULT_TRUNCATE, SQLITE_IOERR_TRUNCATE, 0 },
	{ "the disk stays full", FAULT_WRITE, SQLITE_FULL, 1 },
	{ "the disk dies", FAULT_WRITE | FAULT_SYNC | FAULT_TRUNCATE, SQLITE_IOERR_WRITE, 1 },
	{ "fsync fails for good", FAULT_SYNC, SQLITE_IOERR_FSYNC, 1 },
	{ "one read fails", FAULT_READ, SQLITE_IOERR_READ, 0 },
};

/*
 * Every single operation on the disk fails once, in turn.  Whatever was acknowledged is there, the
 * chain is intact, and the store serves again when the fault is over - at once, and after a restart.
 */
static void
test_every_operation_fails_once(void **state)
{
	struct acked acked;
	size_t f;
	int at, hit = 1;

	(void)state;
	for (f = 0; f < OM_COUNT(faults); f++) {
		for (at = 1, hit = 1; hit; at += FAULT_STEP) {
			void *one = NULL;
			struct fx *fx;

			assert_int_equal(fault_setup(&one), 0);
			fx = one;
			fault_set(faults[f].ops, at, faults[f].rc, faults[f].stays);
			script_run(fx, &acked);
			hit = fault_failed();
			fault_clear();
			if (faults[f].stays && acked.last != OM_OK) {
				assert_int_equal(acked.last, OM_ERR_DISK);
			}
			OK(om_store_begin(fx->st));
			OK(try_put(fx, "after"));
			OK(om_store_commit(fx->st));
			script_verify(fx, &acked, true);
			fx_close(fx);
			fx_open(fx);
			script_verify(fx, &acked, true);
			assert_int_equal(fault_teardown(&one), 0);
		}
		assert_true(at > 2 || faults[f].ops == FAULT_TRUNCATE); /* it was tested */
	}
}

/* As above, but the process dies without another word after the fault. */
static void
test_restart_after_a_fault(void **state)
{
	struct acked acked;
	size_t f;
	int at, hit;

	(void)state;
	for (f = 0; f < OM_COUNT(faults); f++) {
		for (at = 1, hit = 1; hit; at += 3) {
			void *one = NULL;
			struct fx *fx;

			assert_int_equal(fault_setup(&one), 0);
			fx = one;
			fault_set(faults[f].ops, at, faults[f].rc, faults[f].stays);
			script_run(fx, &acked);
			hit = fault_failed();
			fault_set(FAULT_WRITE | FAULT_SYNC | FAULT_TRUNCATE, 1, SQLITE_IOERR_WRITE,
				  1);
			fx_close(fx); /* its last words do not reach the disk */
			fault_clear();
			fx_open(fx);
			/* Not exact: a group whose fsync failed may have reached the disk. */
			script_verify(fx, &acked, false);
			assert_int_equal(fault_teardown(&one), 0);
		}
	}
}

/* A group that was answered with an error does not come to life later. */
static void
test_failed_fsync_leaves_nothing_behind(void **state)
{
	struct fx *fx = *state;
	struct om_store_stat info;
	struct om_job_row row;
	struct om_job_id lost = fx_id("lost"), kept = fx_id("kept");

	fx_put(fx, "kept");
	fault_set(FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 0);
	OK(om_store_begin(fx->st));
	OK(try_put(fx, "lost"));
	ERR(OM_ERR_DISK, om_store_commit(fx->st));
	fault_clear();
	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &lost, &row));
	/* The next group is written only when everything committed is safe once more. */
	OK(om_store_begin(fx->st));
	OK(try_put(fx, "next"));
	OK(om_store_commit(fx->st));
	OK(om_store_stat(fx->st, &info));
	assert_int_equal(info.recoveries, 1);
	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &lost, &row));
	OK(om_store_job_get(fx->st, &kept, &row));
	fx_close(fx);
	fx_open(fx);
	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &lost, &row));
	assert_false(fx_verify(fx, NULL).broken);
}

static void
test_nothing_is_written_while_fsync_fails(void **state)
{
	struct fx *fx = *state;
	struct om_job_row row;
	struct om_job_id kept = fx_id("kept");
	int i;

	fx_put(fx, "kept");
	fault_set(FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 1);
	OK(om_store_begin(fx->st));
	OK(try_put(fx, "lost"));
	ERR(OM_ERR_DISK, om_store_commit(fx->st));
	for (i = 0; i < 5; i++) {
		ERR(OM_ERR_DISK, om_store_begin(fx->st));
		OK(om_store_job_get(fx->st, &kept, &row)); /* reading goes on */
	}
	fault_clear();
	OK(om_store_begin(fx->st));
	OK(try_put(fx, "next"));
	OK(om_store_commit(fx->st));
}

/* After a failure in the middle of a job nothing of the group can be kept, also not by mistake. */
static void
test_a_doomed_group_stays_doomed(void **state)
{
	struct fx *fx = *state;
	struct om_job_row row;
	char text[32];
	struct om_job_id id;
	enum om_err err = OM_ERR_DISK;
	int at, i, doomed = 0;

	for (i = 0; i < 60; i++) {
		(void)snprintf(text, sizeof(text), "old%d", i);
		fx_put(fx, text);
	}
	fx->conf.skip_check = true;
	fx->conf.cache_kib = 40;
	for (at = 1; err != OM_OK; at++) {
		fx_close(fx);
		fx_open(fx); /* nothing is cached: writing has to read */
		OK(om_store_begin(fx->st));
		fault_set(FAULT_READ, at, SQLITE_IOERR_READ, 0);
		err = try_put(fx, "half");
		if (err ==
		    OM_OK) { /* it waits for its answer; this does not, and what waits goes first */
			err = om_store_entry_put(fx->st, OM_STR("list"), OM_STR("half"),
						 (struct om_bin){ (const uint8_t *)"1", 1 });
		}
		fault_clear();
		if (err == OM_OK) {
			om_store_rollback(fx->st);
			break;
		}
		doomed++;
		ERR(err, try_put(fx, "later"));
		ERR(err, om_store_commit(fx->st));
		id = fx_id("half");
		ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &id, &row));
		OK(om_store_check(fx->st));
	}
	assert_true(doomed > 0);
}

static int
keep_some(void *arg)
{
	uint64_t *seed = arg;

	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (int)(*seed >> 63);
}

/*
 * The power fails at every operation on the disk, and of what was not synced any part is gone.
 * Everything acknowledged is there.  (This is what synchronous=FULL is for.)
 */
static void
test_power_cut_anywhere(void **state)
{
	struct acked acked;
	uint64_t seed = 1;
	int at, hit;

	(void)state;
	for (at = 1, hit = 1; hit; at += FAULT_STEP) {
		void *one = NULL;
		struct fx *fx;

		assert_int_equal(fault_setup(&one), 0);
		fx = one;
		fault_track = 1;
		/* From this operation on nothing reaches the disk any more. */
		fault_set(FAULT_WRITE | FAULT_SYNC | FAULT_TRUNCATE, at, SQLITE_IOERR, 1);
		script_run(fx, &acked);
		hit = fault_failed();
		fault_set(FAULT_WRITE | FAULT_SYNC | FAULT_TRUNCATE, 1, SQLITE_IOERR, 1);
		fault_track = 0;
		fault_power_cut(keep_some, &seed);
		fx_close(fx);
		fault_clear();
		fx_open(fx);
		script_verify(fx, &acked, false);
		fx_put(fx, "after");
		assert_false(fx_verify(fx, NULL).broken);
		assert_int_equal(fault_teardown(&one), 0);
	}
	assert_true(at > 50);
}

/* A real file system without room. */
static void
test_full_disk(void **state)
{
	struct fx fx = { .dir = "/tmp/om_store_full.XXXXXX" };
	struct om_job_row row;
	struct om_purge purge = { .finished_before = fx_at(1000) };
	struct om_job_id id;
	char text[32], why[OM_WHY_MAX];
	enum om_err err = OM_OK;
	int acked = 0, i;

	(void)state;
	assert_non_null(mkdtemp(fx.dir));
	if (mount("tmpfs", fx.dir, "tmpfs", 0, "size=2m") != 0) {
		(void)rmdir(fx.dir);
		print_message("needs root to mount a small tmpfs\n");
		skip();
	}
	(void)snprintf(fx.path, sizeof(fx.path), "%s/ledger.db", fx.dir);
	fx.conf = (struct om_sqlite_conf){ .path = fx.path, .wal_bytes = 256 << 10 };
	fx_open(&fx);
	while (err == OM_OK) {
		(void)snprintf(text, sizeof(text), "j%d", acked);
		OK(om_store_begin(fx.st));
		err = try_put(&fx, text);
		if (om_store_commit(fx.st) != OM_OK) {
			err = OM_ERR_DISK;
			(void)snprintf(why, sizeof(why), "%s", om_store_why(fx.st));
		}
		acked += err == OM_OK;
		(void)!om_store_maintain(fx.st);
	}
	assert_int_equal(err, OM_ERR_DISK);
	assert_non_null(strstr(why, "full"));
	assert_true(acked > 50);
	/* Every acknowledged job is there, and is found after a restart on the full disk. */
	fx_close(&fx);
	fx_open(&fx);
	for (i = 0; i < acked; i++) {
		(void)snprintf(text, sizeof(text), "j%d", i);
		id = fx_id(text);
		OK(om_store_job_get(fx.st, &id, &row));
	}
	assert_false(fx_verify(&fx, NULL).broken);
	/* Room again, and it serves again. */
	assert_int_equal(mount("tmpfs", fx.dir, "tmpfs", MS_REMOUNT, "size=8m"), 0);
	fx_run(&fx, "j0", 1);
	OK(om_store_begin(fx.st));
	OK(om_store_purge(fx.st, &purge));
	OK(try_put(&fx, "again"));
	OK(om_store_commit(fx.st));
	assert_int_equal(purge.jobs, 1);
	assert_int_equal(mount("tmpfs", fx.dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), -1);
	fx_close(&fx);
	/* A disk that is read-only is a reason, not a crash. */
	assert_int_equal(mount("tmpfs", fx.dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
	ERR(OM_ERR_DISK, om_sqlite_open(&fx.conf, &fx.st, NULL));
	assert_int_equal(umount(fx.dir), 0);
	(void)rmdir(fx.dir);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fault_setup, fault_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_operation_fails_once),
		cmocka_unit_test(test_restart_after_a_fault),
		T(test_failed_fsync_leaves_nothing_behind),
		T(test_nothing_is_written_while_fsync_fails),
		T(test_a_doomed_group_stays_doomed),
		cmocka_unit_test(test_power_cut_anywhere),
		cmocka_unit_test(test_full_disk),
	};

	om_log_init(OM_LOG_ERROR, 0);
	fault_alone();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
