/* SPDX-License-Identifier: ISC */
#include <xxhash.h>
#include "store/id_filter.h"
#include "tests/unit/store_image.h"

/* The rows that a group works on in memory: nobody can tell that they are there. */

#define MANY   6000 /* hundreds of them have no place of their own, and send each other away */
#define RIVALS 5 /* jobs with the same two places */

static void
must_move(struct fx *fx, const char *name, enum om_job_state to, int64_t at_s)
{
	const struct om_job_change change = fx_change(to, at_s);
	const struct om_job_id id = fx_id(name);

	OK(om_store_job_move(fx->st, &id, &change, NULL));
}

/* A list inside the group sees what the group has changed, and so does the file after it. */
static void
test_seen_inside_and_after(void **state)
{
	struct fx *fx = *state;
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_RUNNING) };
	struct om_job_row rows[4], row;
	struct om_job_id id = fx_id("a1");
	size_t count;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_PROVISIONING, 5);
	must_move(fx, "a1", OM_JOB_RUNNING, 6);
	OK(om_store_job_list(fx->st, &filter, rows, 4, &count));
	assert_int_equal(count, 1);
	assert_int_equal(rows[0].started.ns, fx_at(6).ns);
	must_move(fx, "a1", OM_JOB_CANCELLED, 7);
	OK(om_store_job_get(fx->st, &id, &row));
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT state || ' ' || finished FROM jobs",
		  "cancelled 2023-11-14T22:13:27.000Z");
	OK(om_store_job_get(fx->st, &id, &rows[0]));
	fx_same_row(&rows[0], &row);
	OK(om_store_check(fx->st));
}

static void
test_rollback_forgets(void **state)
{
	struct fx *fx = *state;
	struct om_job_id id = fx_id("a1");
	struct om_job_row row;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_PROVISIONING, 5);
	om_store_rollback(fx->st);
	OK(om_store_begin(fx->st));
	OK(om_store_job_get(fx->st, &id, &row));
	assert_int_equal(row.state, OM_JOB_QUEUED);
	must_move(fx, "a1", OM_JOB_CANCELLED, 6);
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT state FROM job", "cancelled");
}

/* A person with the sqlite3 shell between two groups. */
static void
test_others_are_seen(void **state)
{
	struct fx *fx = *state;

	fx_put(fx, "a1");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_PROVISIONING, 5);
	OK(om_store_commit(fx->st));
	fx_sql(fx, "UPDATE job SET mem_mib = 77, level = 3");
	OK(om_store_begin(fx->st));
	must_move(fx, "a1", OM_JOB_RUNNING, 6);
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT mem_mib || ' ' || level || ' ' || state FROM job", "77 3 running");
}

static void
test_more_than_fit(void **state)
{
	struct fx *fx = *state;
	char name[16];
	int i;

	OK(om_store_begin(fx->st));
	for (i = 0; i < MANY; i++) {
		struct om_job_new job;
		struct om_job_row row;
		bool existed;

		(void)snprintf(name, sizeof(name), "j%d", i);
		job = fx_job(name, "x");
		OK(om_store_job_put(fx->st, &job, &existed, &row));
		must_move(fx, name, OM_JOB_PROVISIONING, 5);
	}
	for (i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "j%d", i);
		must_move(fx, name, OM_JOB_RUNNING, 6);
	}
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx,
		  "SELECT count(*) || ' ' || sum(state = 'running') || ' ' || count(started) FROM "
		  "job",
		  "6000 6000 6000");
	OK(om_store_check(fx->st));
}

/* As store/sqlite_rows.c places them. */
static uint32_t
place_of(const char *name)
{
	return (uint32_t)XXH3_64bits(name, strlen(name)) & 16382;
}

static void
rivals_make(struct fx *fx, char names[RIVALS][16])
{
	int found = 1;

	(void)snprintf(names[0], 16, "r0");
	for (int i = 1; found < RIVALS; i++) {
		(void)snprintf(names[found], 16, "r%d", i);
		found += place_of(names[found]) == place_of(names[0]);
	}
	for (int i = 0; i < RIVALS; i++) {
		fx_put(fx, names[i]);
	}
}

/* A group moves the rivals on in turn; given up, it has moved none. */
static void
rivals_move(struct fx *fx, char names[RIVALS][16], enum om_job_state to, int64_t at_s, bool keep)
{
	OK(om_store_begin(fx->st));
	for (int i = 0; i < RIVALS; i++) {
		must_move(fx, names[i], to, at_s);
	}
	if (keep) {
		OK(om_store_commit(fx->st));
	} else {
		om_store_rollback(fx->st);
	}
}

static void
rivals_are(struct fx *fx, char names[RIVALS][16], enum om_job_state state)
{
	struct om_job_row row;

	for (int i = RIVALS - 1; i >= 0; i--) {
		const struct om_job_id id = fx_id(names[i]);

		OK(om_store_job_get(fx->st, &id, &row));
		assert_int_equal(row.state, state);
		assert_int_equal(row.seq, i + 1);
	}
}

/* Rows that take each other's place: within a group, from one group to the next, and in one given up. */
static void
test_rivals(void **state)
{
	static const enum om_job_state path[] = { OM_JOB_PROVISIONING, OM_JOB_QUEUED,
						  OM_JOB_PROVISIONING, OM_JOB_RUNNING,
						  OM_JOB_FAILED,       OM_JOB_QUEUED };
	struct fx *fx = *state;
	char names[RIVALS][16];

	fx->conf.log_bytes = 1 << 20;
	fx_close(fx);
	fx_open(fx);
	rivals_make(fx, names);
	for (size_t i = 0; i < OM_COUNT(path); i++) {
		const int64_t at_s = 10 * (int64_t)i;

		rivals_move(fx, names, path[i], at_s, false);
		rivals_are(fx, names, i == 0 ? OM_JOB_QUEUED : path[i - 1]);
		rivals_move(fx, names, path[i], at_s + 1, true);
		rivals_are(fx, names, path[i]);
		if (i == 3) {
			image_same(fx);
		}
	}
	/* One group, all the way. */
	OK(om_store_begin(fx->st));
	for (size_t i = 0; i < 3; i++) {
		for (int k = 0; k < RIVALS; k++) {
			must_move(fx, names[k],
				  i == 0   ? OM_JOB_PROVISIONING
				  : i == 1 ? OM_JOB_RUNNING
					   : OM_JOB_CANCELLED,
				  100);
		}
	}
	rivals_are(fx, names, OM_JOB_CANCELLED);
	OK(om_store_commit(fx->st));
	rivals_are(fx, names, OM_JOB_CANCELLED);
	image_same(fx);
	rivals_are(fx, names, OM_JOB_CANCELLED);
}

static bool
put_again(struct fx *fx, const char *name, const char *body, enum om_err want)
{
	const struct om_job_new job = fx_job(name, body);
	struct om_job_row row;
	bool existed = false;

	ERR(want, om_store_job_put(fx->st, &job, &existed, &row));
	return existed;
}

/* A job that is in the log alone has its id for itself, is found, listed, waited for and removed. */
static void
test_a_job_that_the_tables_do_not_have(void **state)
{
	struct om_job_after after = { .id = fx_id("born1"), .when = OM_AFTER_END };
	struct om_job_new waits = fx_job("waits", "x");
	struct om_job_filter filter = { 0 };
	struct om_job_row rows[4];
	struct om_job_id ids[2], id = fx_id("born1");
	struct fx *fx = *state;
	size_t count;
	bool existed;

	OK(om_store_begin(fx->st));
	assert_false(put_again(fx, "born1", "print(1)", OM_OK));
	assert_true(put_again(fx, "born1", "print(1)", OM_OK)); /* in the same group */
	(void)put_again(fx, "born1", "print(2)", OM_ERR_EXISTS);
	OK(om_store_job_find(fx->st, OM_STR("bo"), OM_STR("alice"), ids, 2, &count));
	assert_string_equal(ids[0].text, "born1");
	OK(om_store_commit(fx->st));
	OK(om_store_begin(fx->st)); /* in another, before a fold */
	assert_true(put_again(fx, "born1", "print(1)", OM_OK));
	(void)put_again(fx, "born1", "print(2)", OM_ERR_EXISTS);
	assert_false(put_again(fx, "born2", "print(1)", OM_OK));
	waits.after = &after;
	waits.after_count = 1;
	OK(om_store_job_put(fx->st, &waits, &existed, &rows[0]));
	OK(om_store_job_list(fx->st, &filter, rows, 4, &count));
	assert_int_equal(count, 3);
	must_move(fx, "born1", OM_JOB_CANCELLED, 5);
	must_move(fx, "waits", OM_JOB_CANCELLED, 5);
	OK(om_store_job_remove(fx->st, &id));
	assert_false(put_again(fx, "born1", "print(2)", OM_OK)); /* it is free again */
	OK(om_store_commit(fx->st));
	fx_close(fx);
	fx_open(fx);
	OK(om_store_begin(fx->st)); /* and after a restart */
	assert_true(put_again(fx, "born1", "print(2)", OM_OK));
	(void)put_again(fx, "born2", "print(2)", OM_ERR_EXISTS);
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT group_concat(id, ' ') FROM (SELECT id FROM job ORDER BY seq)",
		  "born2 waits born1");
	OK(om_store_check(fx->st));
}

/* Somebody else has added a job: its id is taken although we never put it. */
static void
test_a_job_of_somebody_else(void **state)
{
	struct fx *fx = *state;

	fx_put(fx, "a1");
	fx_sql(fx, "UPDATE job SET id = 'theirs'");
	OK(om_store_begin(fx->st));
	assert_true(put_again(fx, "theirs", "print(1)", OM_OK));
	(void)put_again(fx, "theirs", "print(2)", OM_ERR_EXISTS);
	assert_false(put_again(fx, "a1", "print(1)", OM_OK));
	OK(om_store_commit(fx->st));
	FX_ASK_IS(fx, "SELECT group_concat(id, ' ') FROM (SELECT id FROM job ORDER BY seq)",
		  "theirs a1");
}

/* Never "not there" of what is; of what is not, seldom "perhaps". */
/* Each step goes into the tables alone: with its end, and with the end of that. */
static void
test_ended_and_again(void **state)
{
	static const enum om_job_state way[] = { OM_JOB_PROVISIONING, OM_JOB_RUNNING,
						 OM_JOB_FAILED,       OM_JOB_QUEUED,
						 OM_JOB_PROVISIONING, OM_JOB_LOST,
						 OM_JOB_QUEUED,       OM_JOB_PROVISIONING };
	struct om_job_filter filter;
	struct om_job_row rows[4];
	struct fx *fx = *state;
	size_t count;

	fx_put(fx, "a1");
	for (size_t i = 0; i < OM_COUNT(way); i++) {
		OK(om_store_begin(fx->st));
		must_move(fx, "a1", way[i], 5 + (int64_t)i);
		OK(om_store_commit(fx->st));
		filter = (struct om_job_filter){ .states = OM_JOB_LIVE };
		OK(om_store_job_list(fx->st, &filter, rows, 4, &count));
		assert_int_equal(count, !om_job_is_final(way[i]));
		if (i % 3 == 0) { /* else the row is one that was written, not read */
			fx_close(fx);
			fx_open(fx);
		}
		image_same(fx);
	}
	FX_ASK_IS(fx, "SELECT state || ' ' || (finished IS NULL) FROM job", "provisioning 1");
	FX_ASK_IS(fx, "PRAGMA integrity_check", "ok");
}

static void
test_id_filter(void **state)
{
	struct om_id_filter *filter = om_id_filter_new();
	char id[32];
	int wrong = 0;

	(void)state;
	assert_non_null(filter);
	for (int i = 0; i < 1000000; i++) {
		(void)snprintf(id, sizeof(id), "%x", i);
		om_id_filter_add(filter, om_id_filter_hash(filter, id));
	}
	for (int i = 0; i < 1000000; i++) {
		(void)snprintf(id, sizeof(id), "%x", i);
		assert_true(om_id_filter_may_have(filter, om_id_filter_hash(filter, id)));
		(void)snprintf(id, sizeof(id), "%x.", i);
		wrong += om_id_filter_may_have(filter, om_id_filter_hash(filter, id));
	}
	assert_in_range(wrong, 1000, 4000); /* 0.24 % */
	om_id_filter_clear(filter);
	assert_false(om_id_filter_may_have(filter, om_id_filter_hash(filter, "1")));
	om_id_filter_add_all(filter);
	assert_true(om_id_filter_may_have(filter, om_id_filter_hash(filter, "1.")));
	om_id_filter_free(filter);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_seen_inside_and_after),
		T(test_rollback_forgets),
		T(test_others_are_seen),
		T(test_more_than_fit),
		T(test_rivals),
		T(test_a_job_that_the_tables_do_not_have),
		T(test_a_job_of_somebody_else),
		T(test_ended_and_again),
		cmocka_unit_test(test_id_filter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
