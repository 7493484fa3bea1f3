/* SPDX-License-Identifier: ISC */
#include <xxhash.h>
#include "base/log.h"
#include "tests/unit/store_fault_vfs.h"
#include "tests/unit/store_image.h"

/* The commit log's file: what is read of it at the open, what is not, and what stays in it. */

#define HEAD 40 /* of a group: store/commit_log.h */

static int
file_setup(void **state)
{
	struct fx *fx = fx_new();

	*state = fx;
	if (fx == NULL) {
		return -1;
	}
	fault_clear();
	fx->conf.vfs = "fault";
	fx->conf.wal_bytes = 64 << 10;
	fx->conf.log_bytes = 64 << 10;
	fx_open(fx);
	return 0;
}

static int
file_teardown(void **state)
{
	fault_clear();
	return fx_teardown(state);
}

/* The process dies: what it does last does not reach the disk. */
static void
die(struct fx *fx)
{
	fault_set(FAULT_WRITE | FAULT_SYNC | FAULT_TRUNCATE, 1, SQLITE_IOERR_WRITE, 1);
	fx_close(fx);
	fault_clear();
}

static void
entry_add(struct fx *fx, const char *key, const void *value, size_t len)
{
	OK(om_store_begin(fx->st));
	OK(om_store_entry_put(fx->st, OM_STR("list"), om_str_of(key),
			      (struct om_bin){ value, len }));
	OK(om_store_commit(fx->st));
}

static bool
entry_there(struct fx *fx, const char *key)
{
	struct om_buf value = { 0 };
	const enum om_err err = om_store_entry_get(fx->st, OM_STR("list"), om_str_of(key), &value);

	om_buf_fini(&value);
	assert_true(err == OM_OK || err == OM_ERR_NOT_FOUND);
	return err == OM_OK;
}

#define LOG(image)                (&(image)->file[2])
#define FIELD(image, at, in_head) ((image)->file[2].data + (at) + (in_head))

static uint64_t
get_u64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

static size_t
len_of(const struct image *image, size_t at)
{
	return (uint32_t)get_u64(FIELD(image, at, 8));
}

/* Where group n starts in the log. */
static size_t
group_at(const struct image *image, int n)
{
	size_t at = 0;

	while (n-- > 0) {
		at += HEAD + len_of(image, at);
	}
	return at;
}

/* A group whose head was changed has the right hash again. */
static void
group_sign(struct image *image, size_t at)
{
	const uint64_t hash = XXH3_64bits_withSeed(FIELD(image, at, HEAD), len_of(image, at),
						   XXH3_64bits(FIELD(image, at, 0), 32));

	memcpy(FIELD(image, at, 32), &hash, sizeof(hash));
}

/* Two groups in the log, one behind the other, and the process is gone. */
static void
two_groups(struct fx *fx, struct image *image)
{
	entry_add(fx, "one", "1", 1);
	entry_add(fx, "two", "2", 1);
	die(fx);
	image_take(fx, image);
	assert_int_equal(get_u64(FIELD(image, group_at(image, 1), 24)), 1);
}

static void
test_torn_tail(void **state)
{
	struct fx *fx = *state;
	struct image image = { 0 };
	size_t from, to;

	two_groups(fx, &image);
	from = group_at(&image, 1);
	to = group_at(&image, 2);
	assert_int_equal(get_u64(FIELD(&image, to, 0)), 0); /* zeros follow */
	for (size_t at = from; at < to; at++) {
		const size_t len = LOG(&image)->len;

		for (int cut = 0; cut < 2; cut++) {
			LOG(&image)->data[at] ^= 0x10;
			LOG(&image)->len = cut ? at : len;
			image_put(fx, &image);
			LOG(&image)->data[at] ^= 0x10;
			LOG(&image)->len = len;
			fx_open(fx);
			assert_true(entry_there(fx, "one"));
			assert_false(entry_there(fx, "two"));
			fx_close(fx);
		}
	}
	image_put(fx, &image);
	fx_open(fx);
	assert_true(entry_there(fx, "two"));
	image_fini(&image);
}

/* A first group that is torn hides the second: nothing behind a gap counts. */
static void
test_torn_head(void **state)
{
	struct fx *fx = *state;
	struct image image = { 0 };

	two_groups(fx, &image);
	LOG(&image)->data[HEAD] ^= 1;
	image_put(fx, &image);
	fx_open(fx);
	assert_false(entry_there(fx, "one"));
	assert_false(entry_there(fx, "two"));
	image_fini(&image);
}

/* Groups of before the fold lie behind the new ones, at the very places where the next would be. */
static void
test_old_groups_behind_new_ones(void **state)
{
	struct fx *fx = *state;

	entry_add(fx, "k1", "old", 3);
	entry_add(fx, "k2", "old", 3);
	entry_add(fx, "k3", "old", 3);
	fx_fold(fx);
	OK(om_store_begin(fx->st));
	OK(om_store_entry_del(fx->st, OM_STR("list"), OM_STR("k2")));
	OK(om_store_entry_del(fx->st, OM_STR("list"), OM_STR("k3")));
	OK(om_store_commit(fx->st));
	fx_fold(fx);
	entry_add(fx, "k4", "new", 3);
	die(fx);
	fx_open(fx);
	assert_true(entry_there(fx, "k1") && entry_there(fx, "k4"));
	assert_false(entry_there(fx, "k2") || entry_there(fx, "k3"));
}

static void
test_another_format(void **state)
{
	struct fx *fx = *state;
	struct image image = { 0 }, after = { 0 };
	struct om_why why = { "" };

	two_groups(fx, &image);
	for (int n = 0; n < 2; n++) {
		FIELD(&image, group_at(&image, n), 4)[0]++;
		group_sign(&image, group_at(&image, n));
	}
	image_put(fx, &image);
	ERR(OM_ERR_VERSION, om_sqlite_open(&fx->conf, &fx->st, &why));
	assert_non_null(strstr(why.text, "ledger.db-log is of another version"));
	image_take(fx, &after);
	assert_int_equal(LOG(&after)->len, LOG(&image)->len);
	assert_memory_equal(LOG(&after)->data, LOG(&image)->data, LOG(&image)->len);
	/* The version that wrote it takes it in. */
	for (int n = 0; n < 2; n++) {
		FIELD(&after, group_at(&after, n), 4)[0]--;
		group_sign(&after, group_at(&after, n));
	}
	image_put(fx, &after);
	fx_open(fx);
	assert_true(entry_there(fx, "one") && entry_there(fx, "two"));
	image_fini(&image);
	image_fini(&after);
}

/* The next version finds this one's log, and must not bring the tables up to date in front of it. */
static void
test_an_older_schema_with_its_log(void **state)
{
	struct fx *fx = *state;
	struct image image = { 0 }, after = { 0 };
	struct om_why why = { "" };

	two_groups(fx, &image);
	for (int n = 0; n < 2; n++) {
		FIELD(&image, group_at(&image, n), 4)[0]--;
		group_sign(&image, group_at(&image, n));
	}
	image_put(fx, &image);
	fx_sql(fx, "PRAGMA user_version = 6");
	ERR(OM_ERR_VERSION, om_sqlite_open(&fx->conf, &fx->st, &why));
	assert_non_null(strstr(why.text, "ledger.db-log is of another version"));
	image_take(fx, &after);
	assert_memory_equal(LOG(&after)->data, LOG(&image)->data, LOG(&image)->len);
	FX_ASK_IS(fx, "PRAGMA user_version", "6"); /* who wrote it opens it */
	image_fini(&image);
	image_fini(&after);
}

/* The log of one database beside the file of another, or of an older copy. */
static void
test_another_generation(void **state)
{
	struct fx *fx = *state;
	struct image image = { 0 };

	two_groups(fx, &image);
	FIELD(&image, 0, 16)[0] ^= 1;
	group_sign(&image, 0);
	image_put(fx, &image);
	fx_open(fx);
	assert_false(entry_there(fx, "one"));
	assert_false(entry_there(fx, "two"));
	entry_add(fx, "three", "3", 1);
	die(fx);
	fx_open(fx);
	assert_true(entry_there(fx, "three"));
	image_fini(&image);
}

/* Without it groups would be taken in twice: it is no number that stays. */
static void
test_no_generation(void **state)
{
	struct fx *fx = *state;
	struct om_why why = { "" };

	fx_sql(fx, "DELETE FROM commit_log");
	fx_close(fx);
	ERR(OM_ERR_CORRUPT, om_sqlite_open(&fx->conf, &fx->st, &why));
	assert_non_null(strstr(why.text, "generation"));
}

/* Every read that the open makes fails in turn. */
static void
test_unreadable_at_the_open(void **state)
{
	struct fx *fx = *state;
	struct image image = { 0 };
	int failed = 0, hit = 1;

	two_groups(fx, &image);
	fx->conf.skip_check = true;
	for (int at = 1; hit; at++) {
		image_put(fx, &image);
		fault_set(FAULT_READ, at, SQLITE_IOERR_READ, 0);
		if (om_sqlite_open(&fx->conf, &fx->st, NULL) == OM_OK) {
			assert_true(entry_there(fx, "one") && entry_there(fx, "two"));
			fx_close(fx);
		} else {
			failed++;
		}
		hit = fault_failed();
		fault_clear();
		fx_open(fx);
		assert_true(entry_there(fx, "one") && entry_there(fx, "two"));
		OK(om_store_check(fx->st));
		fx_close(fx);
	}
	assert_true(failed >= 5); /* both heads and bodies among them */
	image_fini(&image);
}

/* An open that fails writes nothing: the log waits for a file that is whole. */
static void
test_a_damaged_file_does_not_take_it_in(void **state)
{
	struct fx *fx = *state;
	struct image image = { 0 }, broken = { 0 }, after = { 0 };
	struct om_buf *file = &broken.file[0];
	char *page;

	fx_put(fx, "a1");
	page = fx_ask(fx, "SELECT rootpage FROM sqlite_schema WHERE name = 'job_finished'");
	two_groups(fx, &image);
	fx_open(fx); /* the file has all of SQLite's own log */
	die(fx);
	image_put(fx, &image);
	image_take(fx, &broken);
	memset(file->data + (atoi(page) - 1) * 4096, 0x55, 64);
	free(page);
	broken.file[1].len = 0;
	image_put(fx, &broken);
	ERR(OM_ERR_CORRUPT, om_sqlite_open(&fx->conf, &fx->st, NULL));
	image_take(fx, &after);
	assert_memory_equal(LOG(&after)->data, LOG(&image)->data, LOG(&image)->len);
	assert_int_equal(after.file[0].len, file->len);
	assert_memory_equal(after.file[0].data, file->data, file->len);
	image_fini(&image);
	image_fini(&broken);
	image_fini(&after);
}

static void
test_large_groups(void **state)
{
	static const size_t sizes[] = { 64 << 10, 128 << 10, (128 << 10) - HEAD, 1 << 20 };
	struct fx *fx = *state;
	char *value = malloc(1 << 20), key[16];
	struct om_buf got = { 0 };

	assert_non_null(value);
	for (size_t i = 0; i < 1 << 20; i++) {
		value[i] = (char)(i * 7 + i / 251);
	}
	for (size_t i = 0; i < OM_COUNT(sizes); i++) {
		(void)snprintf(key, sizeof(key), "big%zu", i);
		entry_add(fx, key, value, sizes[i]);
	}
	entry_add(fx, "small", "s", 1);
	die(fx);
	fx_open(fx);
	for (size_t i = 0; i < OM_COUNT(sizes); i++) {
		(void)snprintf(key, sizeof(key), "big%zu", i);
		om_buf_reset(&got);
		OK(om_store_entry_get(fx->st, OM_STR("list"), om_str_of(key), &got));
		assert_int_equal(got.len, sizes[i]);
		assert_memory_equal(got.data, value, sizes[i]);
	}
	assert_true(entry_there(fx, "small"));
	om_buf_fini(&got);
	free(value);
}

/* --- what stays --------------------------------------------------------------------------------- */

static bool
file_has(struct fx *fx, const char *end, const char *what)
{
	struct om_buf bytes = { 0 };
	char path[128];
	bool has;

	(void)snprintf(path, sizeof(path), "%s%s", fx->path, end);
	image_read(path, &bytes);
	has = bytes.len > 0 && memmem(bytes.data, bytes.len, what, strlen(what)) != NULL;
	om_buf_fini(&bytes);
	return has;
}

/* A value that is longer than the log and ends with a secret. */
static void
secret_add(struct fx *fx, const char *key)
{
	char value[200 << 10];

	memset(value, 'v', sizeof(value));
	memcpy(value + sizeof(value) - 8, "SECRETab", 8);
	entry_add(fx, key, value, sizeof(value));
}

static void
secret_gone(struct fx *fx)
{
	OK(om_store_wipe(fx->st));
	assert_false(file_has(fx, "-log", "SECRETab"));
	assert_false(file_has(fx, "-wal", "SECRETab"));
	fx_close(fx); /* of this file a descriptor that we close would drop SQLite's locks */
	assert_false(file_has(fx, "", "SECRETab"));
}

static void
test_wipe(void **state)
{
	struct fx *fx = *state;

	secret_add(fx, "s");
	assert_true(file_has(fx, "-log", "SECRETab"));
	entry_add(fx, "s", "x", 1);
	secret_gone(fx);
}

/* The last process has folded it, and left it behind what this one preallocates. */
static void
test_wipe_of_an_earlier_life(void **state)
{
	struct fx *fx = *state;

	secret_add(fx, "s");
	entry_add(fx, "s", "x", 1);
	fx_fold(fx);
	die(fx);
	assert_true(file_has(fx, "-log", "SECRETab"));
	fx_open(fx);
	secret_gone(fx);
}

/* Pages of a group that was given up were in SQLite's log already: there was no room in memory. */
static void
test_wipe_of_a_group_that_was_given_up(void **state)
{
	struct fx *fx = *state;
	char value[200 << 10];

	fx_close(fx);
	fx->conf.cache_kib = 40;
	fx_open(fx);
	memset(value, 'v', sizeof(value));
	for (size_t at = 0; at + 8 < sizeof(value); at += 512) {
		memcpy(value + at, "SECRETab", 8);
	}
	OK(om_store_begin(fx->st));
	OK(om_store_entry_put(fx->st, OM_STR("list"), OM_STR("s"),
			      (struct om_bin){ (const uint8_t *)value, sizeof(value) }));
	OK(om_store_entry_put(fx->st, OM_STR("list"), OM_STR("t"),
			      (struct om_bin){ (const uint8_t *)value, sizeof(value) }));
	om_store_rollback(fx->st);
	assert_true(file_has(fx, "-wal", "SECRETab"));
	entry_add(fx, "k", "x", 1);
	secret_gone(fx);
}

/* --- others ------------------------------------------------------------------------------------- */

/* A person with the sqlite3 shell waits for the next fold, and for nothing else. */
static void
test_another_writer(void **state)
{
	static const char sql[] = "INSERT INTO entry VALUES('list', 'theirs', x'00')";
	static const char undo[] = "DELETE FROM entry WHERE key = 'theirs'";
	struct fx *fx = *state;

	assert_int_equal(other_write(fx, sql), SQLITE_OK);
	assert_true(entry_there(fx, "theirs"));
	assert_int_equal(other_write(fx, undo), SQLITE_OK);
	OK(om_store_begin(fx->st));
	assert_int_equal(other_write(fx, sql), SQLITE_BUSY);
	OK(om_store_commit(fx->st)); /* of nothing: the lock is free */
	assert_int_equal(other_write(fx, sql), SQLITE_OK);
	OK(om_store_begin(fx->st));
	ERR(OM_ERR_NOT_FOUND, om_store_entry_del(fx->st, OM_STR("list"), OM_STR("none")));
	om_store_rollback(fx->st);
	assert_int_equal(other_write(fx, undo), SQLITE_OK);
	OK(om_store_begin(fx->st));
	OK(om_store_entry_put(fx->st, OM_STR("list"), OM_STR("ours"), (struct om_bin){ 0 }));
	om_store_rollback(fx->st);
	assert_int_equal(other_write(fx, sql), SQLITE_OK);
	entry_add(fx, "ours", "o", 1);
	assert_int_equal(other_write(fx, undo), SQLITE_BUSY);
	fx_fold(fx);
	assert_int_equal(other_write(fx, undo), SQLITE_OK);
	assert_true(entry_there(fx, "ours"));
	assert_false(entry_there(fx, "theirs"));
}

/* `.backup` of the sqlite3 shell beside a running daemon: the state of the last fold, and whole. */
static void
test_backup_while_it_runs(void **state)
{
	struct fx *fx = *state, *copy = fx_new();
	void *one = copy;
	sqlite3 *from = NULL, *to = NULL;
	sqlite3_backup *backup;

	assert_non_null(copy);
	fx_put(fx, "a1");
	entry_add(fx, "one", "1", 1);
	fx_fold(fx);
	OK(fx_try_move(fx, "a1", OM_JOB_CANCELLED, 1));
	entry_add(fx, "two", "2", 1);
	assert_int_equal(sqlite3_open(fx->path, &from), SQLITE_OK);
	assert_int_equal(sqlite3_open(copy->path, &to), SQLITE_OK);
	backup = sqlite3_backup_init(to, "main", from, "main");
	assert_non_null(backup);
	assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
	assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
	assert_int_equal(sqlite3_close(from), SQLITE_OK);
	assert_int_equal(sqlite3_close(to), SQLITE_OK);
	fx_open(copy);
	assert_true(entry_there(copy, "one"));
	assert_false(entry_there(copy, "two"));
	assert_false(fx_verify(copy, NULL).broken);
	OK(om_store_check(copy->st));
	assert_true(entry_there(fx, "two"));
	assert_int_equal(fx_teardown(&one), 0);
}

/* A change that found nothing to change is not logged, and what waited before it is. */
static void
test_what_changed_nothing_is_not_logged(void **state)
{
	struct fx *fx = *state;
	struct om_job_id id = fx_id("a1");
	struct om_job_new job = fx_job("a1", "body of a1");
	struct om_store_stat before, after;
	struct om_buf spec = { 0 };
	struct om_job_row row;
	bool existed;

	OK(om_store_stat(fx->st, &before));
	OK(om_store_begin(fx->st));
	ERR(OM_ERR_NOT_FOUND, om_store_entry_del(fx->st, OM_STR("list"), OM_STR("none")));
	OK(om_store_commit(fx->st));
	OK(om_store_stat(fx->st, &after));
	assert_int_equal(after.wal_bytes, before.wal_bytes);
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row)); /* its body and its audit wait */
	ERR(OM_ERR_NOT_FOUND, om_store_entry_del(fx->st, OM_STR("list"), OM_STR("none")));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	assert_true(existed);
	OK(om_store_commit(fx->st));
	for (int life = 0; life < 2; life++) {
		om_buf_reset(&spec);
		OK(om_store_job_spec(fx->st, &id, &spec));
		assert_int_equal(spec.len, 10);
		assert_int_equal(fx_verify(fx, NULL).rows, 1);
		if (life == 0) {
			image_same(fx);
			die(fx);
			fx_open(fx);
		}
	}
	om_buf_fini(&spec);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, file_setup, file_teardown)
	const struct CMUnitTest tests[] = {
		T(test_torn_tail),
		T(test_torn_head),
		T(test_old_groups_behind_new_ones),
		T(test_another_format),
		T(test_an_older_schema_with_its_log),
		T(test_another_generation),
		T(test_no_generation),
		T(test_unreadable_at_the_open),
		T(test_a_damaged_file_does_not_take_it_in),
		T(test_large_groups),
		T(test_wipe),
		T(test_wipe_of_an_earlier_life),
		T(test_wipe_of_a_group_that_was_given_up),
		T(test_another_writer),
		T(test_backup_while_it_runs),
		T(test_what_changed_nothing_is_not_logged),
	};

	om_log_init(OM_LOG_ERROR, 0);
	fault_alone();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
