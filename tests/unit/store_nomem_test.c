/* SPDX-License-Identifier: ISC */
/*
 * No memory for the store (tests/unit/nomem.h): groups, one in flight while the next one is made, folds
 * beside them.  Whatever fails: the call says so, what was acknowledged is there, what was refused is
 * not, and the store goes on.
 */
#include "tests/unit/nomem.h"
#include "base/log.h"
#include "tests/unit/store_fixture.h"

#define GROUPS 4
#define JOBS   40 /* of each: the applier is woken for them */

char *__wrap_strdup(const char *text);

char *
__wrap_strdup(const char *text)
{
	const size_t len = strlen(text) + 1;
	char *copy = __wrap_malloc(len);

	return copy == NULL ? NULL : memcpy(copy, text, len);
}

static struct fx *F;
static bool acknowledged[GROUPS];

static const char *
name_of(int group, int job)
{
	static char name[16];

	(void)snprintf(name, sizeof(name), "g%d.%d", group, job);
	return name;
}

/* Each in a quarter of an hour of its own. */
static enum om_err
group_make(int group)
{
	static char body[28000]; /* a buffer of a group is too large to be kept */
	enum om_err err = om_store_begin(F->st);
	struct om_job_row row;
	bool existed;

	if (err != OM_OK) {
		return err;
	}
	memset(body, 'b', sizeof(body) - 1);
	for (int i = 0; err == OM_OK && i < JOBS; i++) {
		struct om_job_new job = fx_job(name_of(group, i), body);

		job.submitted = fx_at(group * 1000);
		err = om_store_job_put(F->st, &job, &existed, &row);
	}
	if (err != OM_OK) {
		om_store_rollback(F->st);
	}
	return err;
}

/* The second one is made while the first one is in flight, and fails with it. */
static void
two_groups(int first)
{
	bool sent, made;

	sent = went_well(group_make(first)) && went_well(om_store_commit_start(F->st));
	made = went_well(group_make(first + 1));
	if (sent) {
		om_store_commit_write(F->st);
		acknowledged[first] = went_well(om_store_commit_end(F->st));
		if (!acknowledged[first] && made) {
			om_store_rollback(F->st);
			made = false;
		}
	}
	if (made) {
		const struct om_job_id id = fx_id(name_of(first + 1, 0));
		struct om_job_row row;

		(void)went_well(om_store_job_get(F->st, &id, &row));
		acknowledged[first + 1] = went_well(om_store_commit(F->st));
	}
}

/* Of the tables' counters it changes one alone, the end of the audit's chain. */
static bool
list_grows(void)
{
	static const struct om_audit_note note = { .event = OM_STR("config_changed") };
	static uint8_t value[50000];
	enum om_err err = om_store_begin(F->st);
	char key[16];

	for (int i = 0; err == OM_OK && i < 24; i++) {
		(void)snprintf(key, sizeof(key), "k%d", i);
		err = om_store_entry_put(F->st, OM_STR("list"), om_str_of(key),
					 (struct om_bin){ value, sizeof(value) });
	}
	if (err == OM_OK) {
		err = om_store_audit_append(F->st, fx_at(0), &note);
	}
	if (err == OM_OK) {
		err = om_store_commit(F->st);
	}
	om_store_rollback(F->st); /* nothing, after a commit */
	return went_well(err);
}

static void
all_is_as_told(void)
{
	uint64_t counts[OM_JOB_STATES], queued = 0;
	struct om_job_row row;

	for (int g = 0; g < GROUPS; g++) {
		const struct om_job_id id = fx_id(name_of(g, JOBS - 1));

		ERR(acknowledged[g] ? OM_OK : OM_ERR_NOT_FOUND, om_store_job_get(F->st, &id, &row));
		queued += acknowledged[g] ? JOBS : 0;
	}
	OK(om_store_counts(F->st, counts));
	assert_int_equal(counts[OM_JOB_QUEUED], queued);
	OK(om_store_counts_since(F->st, fx_at(-1000), counts));
	assert_int_equal(counts[OM_JOB_QUEUED], queued);
	OK(om_store_check(F->st));
	assert_false(fx_verify(F, NULL).broken);
}

static void
files_remove(void)
{
	static const char *const ends[] = { "", "-wal", "-shm", "-log", "-log2" };
	char path[128];

	for (size_t i = 0; i < OM_COUNT(ends); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", F->path, ends[i]);
		(void)unlink(path);
	}
}

static void
story(void)
{
	uint64_t counts[OM_JOB_STATES];
	struct om_why why;
	unsigned left;

	memset(acknowledged, 0, sizeof(acknowledged));
	files_remove();
	if (!went_well(om_sqlite_open(&F->conf, &F->st, &why))) {
		return;
	}
	for (int g = 0; g < GROUPS; g += 2) {
		two_groups(g);
		(void)went_well(om_store_maintain(F->st));
		if (g == 2) {
			(void)went_well(om_store_fold(F->st, false));
		}
	}
	(void)went_well(om_store_counts_since(F->st, fx_at(0), counts));
	(void)went_well(om_store_fold(F->st, true));
	(void)list_grows();
	(void)went_well(om_store_fold(F->st, false));
	left = __atomic_exchange_n(&mem.left, 0, __ATOMIC_RELAXED);
	all_is_as_told();
	fx_close(F);
	fx_open(F);
	all_is_as_told();
	fx_close(F);
	__atomic_store_n(&mem.left, left, __ATOMIC_RELAXED);
}

static void
test_groups_and_folds(void **state)
{
	(void)state;
	each_failure(story, 20);
}

static int
nomem_setup(void **state)
{
	*state = F = fx_new();
	if (F == NULL) {
		return -1;
	}
	F->conf.log_bytes = 8 << 20; /* nothing is folded but when we say so */
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_groups_and_folds, nomem_setup, fx_teardown),
	};

	om_log_init(OM_LOG_ERROR + 1, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
