/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_STORE_GROUPS_H
#define OM_TESTS_STORE_GROUPS_H

/*
 * Groups 1, 2, 3 ... of a store, each with something of every kind, and what is there after n of them.
 * Group n puts job j<n> and moves the one before on: nothing that waits for the tables.
 */
#include "tests/unit/store_hold.h"
#include "tests/unit/store_image.h"

#define GROUPS_MAX 300

static inline int
groups_setup(void **state)
{
	struct fx *fx = fx_new();

	*state = fx;
	if (fx == NULL) {
		return -1;
	}
	fault_clear();
	hold_main = pthread_self();
	fx->conf.vfs = "fault";
	fx->conf.wal_bytes = 128 << 10;
	fx->conf.log_bytes = 64 << 10;
	fx->conf.skip_check = true;
	fx_open(fx);
	return 0;
}

static inline int
groups_teardown(void **state)
{
	fault_clear();
	(void)hold_let_go();
	return fx_teardown(state);
}

/* The process dies: what it does last does not reach the disk. */
static inline void
die(struct fx *fx)
{
	fault_set(FAULT_WRITE | FAULT_SYNC | FAULT_TRUNCATE, 1, SQLITE_IOERR_WRITE, 1);
	fx_close(fx);
	fault_clear();
}

static inline struct om_job_id
group_job(int n)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "j%d", n);
	return fx_id(name);
}

static inline enum om_err
entry_put(struct fx *fx, const char *key, const void *value, size_t len)
{
	return om_store_entry_put(fx->st, OM_STR("list"), om_str_of(key),
				  (struct om_bin){ value, len });
}

/* In a transaction.  The first error ends it. */
static inline enum om_err
group_write(struct fx *fx, int n)
{
	const struct om_job_change change = fx_change(OM_JOB_PROVISIONING, n);
	const struct om_job_id before = group_job(n - 1), id = group_job(n);
	struct om_job_new job = fx_job(id.text, "the body of a job");
	struct om_job_row row;
	enum om_err err;
	bool existed;

	err = om_store_job_put(fx->st, &job, &existed, &row);
	if (err == OM_OK && n > 1) {
		err = om_store_job_move(fx->st, &before, &change, NULL);
	}
	return err == OM_OK && n == 1 ? entry_put(fx, "first", "1", 1) : err;
}

static inline enum om_err
group_try(struct fx *fx, int n)
{
	enum om_err err = om_store_begin(fx->st);

	if (err == OM_OK) {
		err = group_write(fx, n);
		err = err == OM_OK ? om_store_commit(fx->st) : (om_store_rollback(fx->st), err);
	}
	return err;
}

static inline void
open_group(struct fx *fx, int n)
{
	OK(om_store_begin(fx->st));
	OK(group_write(fx, n));
}

static inline void *
writer_main(void *arg)
{
	om_store_commit_write(arg);
	return NULL;
}

/* A thread of our own writes the group in flight. */
static inline pthread_t
write_beside(struct fx *fx)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, writer_main, fx->st), 0);
	return thread;
}

static inline void
writer_join(pthread_t thread)
{
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Groups from..to, acknowledged. */
static inline void
groups_put(struct fx *fx, int from, int to)
{
	for (int n = from; n <= to; n++) {
		OK(group_try(fx, n));
	}
}

static inline size_t
entry_len(struct fx *fx, const char *key)
{
	struct om_buf got = { 0 };
	const enum om_err err = om_store_entry_get(fx->st, OM_STR("list"), om_str_of(key), &got);
	const size_t len = got.len;

	om_buf_fini(&got);
	if (err != OM_ERR_NOT_FOUND) {
		OK(err);
	}
	return len;
}

static inline void
groups_rows(struct fx *fx, int n)
{
	static struct om_job_row rows[GROUPS_MAX];
	struct om_job_filter filter = { 0 };
	size_t count;

	OK(om_store_job_list(fx->st, &filter, rows, GROUPS_MAX, &count));
	assert_int_equal(count, n);
	for (int i = 1; i <= n; i++) {
		const struct om_job_row *row = &rows[i - 1];
		struct om_buf spec = { 0 };
		struct om_job_row one;

		assert_string_equal(row->id.text, group_job(i).text);
		assert_int_equal(row->state, i == n ? OM_JOB_QUEUED : OM_JOB_PROVISIONING);
		OK(om_store_job_get(fx->st, &row->id, &one));
		assert_int_equal(one.seq, row->seq);
		assert_int_equal(one.state, row->state);
		assert_int_equal(one.attempts, row->attempts);
		OK(om_store_job_spec(fx->st, &row->id, &spec));
		assert_int_equal(spec.len, 17);
		om_buf_fini(&spec);
	}
}

/* All of the groups 1..n, and nothing else. */
static inline void
groups_there(struct fx *fx, int n)
{
	uint64_t counts[OM_JOB_STATES], since[OM_JOB_STATES];
	struct om_audit_check check;
	struct om_audit_mark head;

	groups_rows(fx, n);
	assert_int_equal(entry_len(fx, "first"), n > 0);
	OK(om_store_counts(fx->st, counts));
	OK(om_store_counts_since(fx->st, fx_at(0), since));
	assert_int_equal(counts[OM_JOB_QUEUED], n > 0);
	assert_int_equal(counts[OM_JOB_PROVISIONING], n > 0 ? n - 1 : 0);
	assert_int_equal(since[OM_JOB_QUEUED], n);
	assert_int_equal(since[OM_JOB_PROVISIONING], n > 0 ? n - 1 : 0);
	OK(om_store_audit_head(fx->st, &head));
	assert_int_equal(head.seq, n > 0 ? 2 * n - 1 : 0);
	check = fx_verify(fx, &head);
	assert_false(check.broken);
	assert_int_equal(check.rows, head.seq);
}

/* A crash now: what is in the files has them all. */
static inline void
crash_has(struct fx *fx, int n)
{
	struct fx *copy = image_of_running(fx);
	void *state = copy;

	copy->conf.skip_check = true;
	fx_open(copy);
	groups_there(copy, n);
	OK(om_store_check(copy->st));
	assert_int_equal(fx_teardown(&state), 0);
}

#endif /* OM_TESTS_STORE_GROUPS_H */
