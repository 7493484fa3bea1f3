/* SPDX-License-Identifier: ISC */
#include <sys/stat.h>
#include <xxhash.h>
#include "base/log.h"
#include "tests/unit/store_groups.h"

/* The two files of the commit log as a crash leaves them, and records that are many (sqlite_apply.c). */

#define HEAD     40 /* of a group: store/commit_log.h */
#define BODY_LEN 9000
#define FIRST    2 /* of image_ends */
#define SECOND   3

static struct om_buf *
log_of(struct image *image, int which)
{
	return &image->file[which];
}

static size_t
len_of(struct image *image, int which, size_t at)
{
	uint32_t len;

	memcpy(&len, log_of(image, which)->data + at + 8, sizeof(len));
	return len;
}

/* Where group n starts. */
static size_t
group_at(struct image *image, int which, int n)
{
	size_t at = 0;

	while (n-- > 0) {
		at += HEAD + len_of(image, which, at);
	}
	return at;
}

/* The first group of the second log, with another byte in its head, has the right hash again. */
static void
first_group_says(struct image *image, size_t in_head, uint8_t byte)
{
	uint8_t *head = log_of(image, SECOND)->data;
	uint64_t hash;

	head[in_head] = byte;
	hash = XXH3_64bits_withSeed(head + HEAD, len_of(image, SECOND, 0), XXH3_64bits(head, 32));
	memcpy(head + 32, &hash, sizeof(hash));
}

/* Groups 1 to 3 in the one, 4 and 5 in the other: a fold had begun.  The store is closed. */
static struct fx *
two_logs(struct fx *fx, struct image *image)
{
	struct fx *copy;

	groups_put(fx, 1, 3);
	hold_set("-wal", FAULT_WRITE, 1);
	OK(om_store_fold(fx->st, false));
	hold_reached();
	groups_put(fx, 4, 5);
	copy = image_of_running(fx);
	hold_done();
	copy->conf.skip_check = true;
	image_take(copy, image);
	return copy;
}

static void
done(struct fx *copy, struct image *image)
{
	void *one = copy;

	image_fini(image);
	assert_int_equal(fx_teardown(&one), 0);
}

static void
opens_with(struct fx *copy, const struct image *image, int n)
{
	image_put(copy, image);
	fx_open(copy);
	groups_there(copy, n);
	fx_close(copy);
}

/* It says that group `index` is gone, and touches nothing. */
static void
is_corrupt(struct fx *copy, const struct image *image, const char *what)
{
	struct image after = { 0 };
	struct om_why why = { "" };

	image_put(copy, image);
	ERR(OM_ERR_CORRUPT, om_sqlite_open(&copy->conf, &copy->st, &why));
	assert_non_null(strstr(why.text, what));
	image_take(copy, &after);
	for (int which = FIRST; which <= SECOND; which++) {
		assert_int_equal(after.file[which].len, image->file[which].len);
		assert_memory_equal(after.file[which].data, image->file[which].data,
				    image->file[which].len);
	}
	image_fini(&after);
}

/* --- crashes ------------------------------------------------------------------------------------ */

static void
test_torn_tail_of_the_second(void **state)
{
	struct image image = { 0 };
	struct fx *copy = two_logs(*state, &image);
	struct om_buf *log = log_of(&image, SECOND);
	const size_t len = log->len, last = group_at(&image, SECOND, 1),
		     to = group_at(&image, SECOND, 2);

	opens_with(copy, &image, 5);
	for (size_t at = last; at < to; at += at < last + HEAD ? 1 : 97) {
		log->data[at] ^= 0x10;
		opens_with(copy, &image, 4);
		log->data[at] ^= 0x10;
		log->len = at;
		opens_with(copy, &image, 4);
		log->len = len;
	}
	log->data[HEAD] ^= 1; /* nothing behind a gap counts */
	opens_with(copy, &image, 3);
	log->len = 0;
	opens_with(copy, &image, 3);
	done(copy, &image);
}

/* What follows says how many there were. */
static void
test_torn_tail_of_the_first(void **state)
{
	struct image image = { 0 };
	struct fx *copy = two_logs(*state, &image);
	struct om_buf *log = log_of(&image, FIRST), *other = log_of(&image, SECOND);
	const size_t last = group_at(&image, FIRST, 2);

	for (size_t at = last; at < last + HEAD + 200; at += 13) {
		log->data[at] ^= 0x10;
		is_corrupt(copy, &image, "group 2 is gone");
		log->data[at] ^= 0x10;
	}
	log->data[HEAD] ^= 1; /* the first: what follows it follows nothing */
	opens_with(copy, &image, 0);
	log->data[HEAD] ^= 1;
	log->data[last] ^= 1;
	other->len = 0; /* nothing followed yet */
	opens_with(copy, &image, 2);
	done(copy, &image);
}

static void
test_a_follower_of_something_else(void **state)
{
	struct image image = { 0 };
	struct fx *copy = two_logs(*state, &image);
	const uint8_t index = log_of(&image, SECOND)->data[24];

	assert_int_equal(index, 3);
	first_group_says(&image, 24, 4);
	is_corrupt(copy, &image, "group 3 is gone");
	first_group_says(&image, 24, 2);
	is_corrupt(copy, &image, "group 3 is gone");
	first_group_says(&image, 24, index);
	opens_with(copy, &image, 5);
	first_group_says(&image, 12, log_of(&image, SECOND)->data[12] ^ 1);
	opens_with(copy, &image, 3); /* of an older life */
	done(copy, &image);
}

/* Groups of older generations lie behind the new ones, in both: at the very places of the next. */
static void
test_old_groups_behind_new_ones(void **state)
{
	struct fx *fx = *state;
	int n = 0;

	for (int round = 6; round > 0; round--) {
		groups_put(fx, n + 1, n + round);
		n += round;
		crash_has(fx, n);
		hold_set("-wal", FAULT_SYNC, 1);
		OK(om_store_fold(fx->st, false));
		hold_reached();
		crash_has(fx, n);
		hold_done();
		crash_has(fx, n);
		groups_put(fx, n + 1, n + 1);
		crash_has(fx, ++n);
		if (round % 3 == 0) {
			die(fx);
			fx_open(fx);
		}
	}
	groups_there(fx, n);
}

static void
test_schema_6_without_groups(void **state)
{
	struct fx *fx = *state;
	char path[128];

	groups_put(fx, 1, 3);
	fx_close(fx);
	fx_sql(fx, "PRAGMA user_version = 6");
	(void)snprintf(path, sizeof(path), "%s-log2", fx->path);
	assert_int_equal(unlink(path), 0);
	fx_open(fx);
	groups_there(fx, 3);
	FX_ASK_IS(fx, "PRAGMA user_version", "7");
	assert_int_equal(access(path, F_OK), 0);
	groups_put(fx, 4, 4);
	crash_has(fx, 4);
}

/* The bodies of jobs are in both. */
static void
test_both_are_private_and_stay(void **state)
{
	struct fx *fx = *state;
	const mode_t mask = umask(0);
	struct stat info;
	char path[128];

	fx_close(fx);
	for (int life = 0; life < 3; life++) {
		for (int which = FIRST; which <= SECOND; which++) {
			(void)snprintf(path, sizeof(path), "%s%s", fx->path, image_ends[which]);
			if (life == 0) {
				assert_int_equal(unlink(path), 0);
				continue;
			}
			assert_int_equal(stat(path, &info), 0);
			assert_int_equal(info.st_mode & 0777, 0600);
			assert_int_equal(info.st_size, fx->conf.log_bytes);
		}
		fx_open(fx);
		groups_put(fx, 2 * life + 1, 2 * life + 1);
		OK(om_store_fold(fx->st, false));
		groups_put(fx, 2 * life + 2, 2 * life + 2);
		fx_close(fx);
	}
	(void)umask(mask);
}

/* --- secrets ------------------------------------------------------------------------------------ */

static bool
file_has(struct fx *fx, const char *end)
{
	struct om_buf bytes = { 0 };
	char path[128];
	bool has;

	(void)snprintf(path, sizeof(path), "%s%s", fx->path, end);
	image_read(path, &bytes);
	has = bytes.len > 0 && memmem(bytes.data, bytes.len, "SECRETab", 8) != NULL;
	om_buf_fini(&bytes);
	return has;
}

static void
secret_put(struct fx *fx, const char *name)
{
	const struct om_job_new job = fx_job(name, "a body with a SECRETab in it");
	struct om_job_row row;
	bool existed;

	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
}

static void
secret_take(struct fx *fx, const char *name)
{
	const struct om_job_id id = fx_id(name);

	OK(om_store_begin(fx->st));
	OK(om_store_job_spec_set(fx->st, &id, (struct om_bin){ (const uint8_t *)"-", 1 }));
	OK(om_store_commit(fx->st));
}

static void
test_wipe_reaches_both(void **state)
{
	struct fx *fx = *state;

	groups_put(fx, 1, 1);
	secret_put(fx, "s1");
	hold_set("-wal", FAULT_WRITE, 1);
	OK(om_store_fold(fx->st, false));
	hold_reached();
	secret_put(fx, "s2");
	assert_true(file_has(fx, "-log") && file_has(fx, "-log2"));
	secret_take(fx, "s1");
	secret_take(fx, "s2");
	OK(om_store_wipe(fx->st));
	assert_false(file_has(fx, "-log") || file_has(fx, "-log2") || file_has(fx, "-wal"));
	fx_close(fx); /* of this file a descriptor that we close would drop SQLite's locks */
	assert_false(file_has(fx, ""));
}

/* --- many records ------------------------------------------------------------------------------- */

/* Nearly nothing stays in memory: whoever writes to the tables writes to the disk. */
static void
small_cache(struct fx *fx)
{
	fx_close(fx);
	fx->conf.cache_kib = 40;
	fx->conf.log_bytes = 16 << 20;
	fx_open(fx);
}

/* A group of so many jobs with large bodies, b<from> and on, and the look at the tables behind it. */
static enum om_err
bodies_try(struct fx *fx, int from, int count)
{
	static char body[BODY_LEN + 1];
	struct om_job_row row;
	char name[16];
	bool existed;

	memset(body, 'b', BODY_LEN);
	OK(om_store_begin(fx->st));
	for (int i = from; i < from + count; i++) {
		struct om_job_new job;

		(void)snprintf(name, sizeof(name), "b%d", i);
		job = fx_job(name, body);
		OK(om_store_job_put(fx->st, &job, &existed, &row));
	}
	OK(om_store_commit(fx->st));
	return om_store_maintain(fx->st);
}

static void
bodies_put(struct fx *fx, int from, int count)
{
	OK(bodies_try(fx, from, count));
}

static void
bodies_there(struct fx *fx, int count)
{
	uint64_t counts[OM_JOB_STATES];

	OK(om_store_counts(fx->st, counts));
	assert_int_equal(counts[OM_JOB_QUEUED], count);
	OK(om_store_check(fx->st));
	image_same(fx);
}

/* A crash now: so many jobs are there. */
static void
crash_has_count(struct fx *fx, uint64_t jobs)
{
	struct fx *copy = image_of_running(fx);
	uint64_t counts[OM_JOB_STATES];
	void *one = copy;

	fx_open(copy);
	OK(om_store_counts(copy->st, counts));
	assert_int_equal(counts[OM_JOB_QUEUED], jobs);
	assert_int_equal(fx_teardown(&one), 0);
}

static void
test_small_groups_are_written_in_place(void **state)
{
	struct fx *fx = *state;

	small_cache(fx);
	hold_set("-wal", FAULT_WRITE, 0);
	for (int i = 0; i < 20; i++) {
		bodies_put(fx, i, 1);
	}
	assert_int_equal(hold.others, 0);
	assert_true(hold_let_go() > 10);
	bodies_there(fx, 20);
}

/* Few records wait, also of a group that is not small, until somebody reads. */
static void
test_few_records_wait(void **state)
{
	struct fx *fx = *state;

	small_cache(fx);
	hold_set("-wal", FAULT_WRITE, 0);
	bodies_put(fx, 0, 4);
	assert_int_equal(hold_let_go(), 0);
	crash_has_count(fx, 4);
	bodies_there(fx, 4);
}

/* A job of the records that were lent is changed, listed, and removed. */
static void
test_large_groups_are_lent(void **state)
{
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_CANCELLED) };
	const struct om_job_id gone = fx_id("b4"), kept = fx_id("b7");
	const struct om_job_change cancel = fx_change(OM_JOB_CANCELLED, 5);
	struct fx *fx = *state;
	struct om_job_row rows[4];
	struct om_buf spec = { 0 };
	size_t count;

	small_cache(fx);
	hold_set("-wal", FAULT_WRITE, 1);
	bodies_put(fx, 0, 10);
	hold_reached();
	assert_int_equal(hold.others, 1);
	hold_waits = 0;
	crash_has_count(fx, 10);
	OK(om_store_begin(fx->st));
	OK(om_store_job_move(fx->st, &gone, &cancel, NULL));
	OK(om_store_job_move(fx->st, &kept, &cancel, NULL));
	OK(om_store_commit(fx->st));
	bodies_put(fx, 10, 10);
	assert_int_equal(hold_waits, 0);
	OK(om_store_job_list(fx->st, &filter, rows, 4, &count));
	assert_int_equal(hold_waits, 1);
	assert_int_equal(count, 2);
	OK(om_store_begin(fx->st));
	OK(om_store_job_remove(fx->st, &gone));
	OK(om_store_commit(fx->st));
	ERR(OM_ERR_NOT_FOUND, om_store_job_get(fx->st, &gone, &rows[0]));
	OK(om_store_job_spec(fx->st, &kept, &spec));
	assert_int_equal(spec.len, BODY_LEN);
	om_buf_fini(&spec);
	bodies_there(fx, 18);
}

/* What was lent fails: it is made anew from the log for who asks next. */
static void
test_what_is_lent_fails(void **state)
{
	int jobs = 0;

	for (int at = 1; at < 8; at += 3) {
		struct fx *fx = *state;

		small_cache(fx);
		fault_set_on("-wal", FAULT_WRITE, at, SQLITE_FULL, 0);
		(void)!bodies_try(fx, jobs, 20); /* it may hear of it: that costs nothing */
		(void)!bodies_try(fx, jobs + 20, 20);
		jobs += 40;
		bodies_there(fx, jobs);
		assert_int_equal(fault_failed(), 1);
		fault_clear();
	}
}

/* More than so much makes the store's thread wait. */
static void
test_what_waits_does_not_grow(void **state)
{
	struct fx *fx = *state;
	int groups = 0;

	small_cache(fx);
	hold_set("-wal", FAULT_WRITE, 1);
	bodies_put(fx, 0, 10);
	hold_reached();
	for (hold_waits = 0; hold_waits == 0 && groups < 8; groups++) {
		bodies_put(fx, 10 + 100 * groups, 100); /* nearly a MiB */
	}
	assert_int_equal(hold_waits, 1);
	assert_int_equal(groups, 5); /* WAIT_MAX is 4 MiB */
	bodies_there(fx, 510);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, groups_setup, groups_teardown)
	const struct CMUnitTest tests[] = {
		T(test_torn_tail_of_the_second),
		T(test_torn_tail_of_the_first),
		T(test_a_follower_of_something_else),
		T(test_old_groups_behind_new_ones),
		T(test_schema_6_without_groups),
		T(test_both_are_private_and_stay),
		T(test_wipe_reaches_both),
		T(test_small_groups_are_written_in_place),
		T(test_few_records_wait),
		T(test_large_groups_are_lent),
		T(test_what_is_lent_fails),
		T(test_what_waits_does_not_grow),
	};

	om_log_init(OM_LOG_ERROR, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
