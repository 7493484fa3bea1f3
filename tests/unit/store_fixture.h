/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_STORE_FIXTURE_H
#define OM_TESTS_STORE_FIXTURE_H

/* A store in a folder of its own, and short ways to fill it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "store/sqlite.h"

#define FX_WAL_BYTES (UINT64_C(1) << 20)
#define FX_LOG_BYTES (UINT64_C(32) << 10)
#define FX_T0        (INT64_C(1700000000) * OM_NS_PER_S)

struct fx {
	char dir[64];
	char path[96];
	struct om_store *st;
	struct om_sqlite_conf conf;
};

#define OK(call)       assert_string_equal(om_err_code(call), "ok")
#define ERR(err, call) assert_string_equal(om_err_code(call), om_err_code(err))

static inline struct om_wall
fx_at(int64_t s)
{
	return (struct om_wall){ FX_T0 + s * OM_NS_PER_S };
}

static inline struct om_job_id
fx_id(const char *text)
{
	struct om_job_id id;

	OK(om_job_id_parse(text, strlen(text), &id));
	return id;
}

static inline void
fx_clear_behind(char *text, size_t size)
{
	memset(text + strlen(text), 0, size - strlen(text));
}

/* The row without what is behind its texts, which nobody looks at, and behind its last one. */
static inline void
fx_row(const struct om_job_row *from, struct om_job_row *row)
{
	const size_t end = offsetof(struct om_job_row, activity) + sizeof(row->activity);

	memcpy(row, from, end); /* the holes between its fields too */
	memset((char *)row + end, 0, sizeof(*row) - end);
	fx_clear_behind(row->id.text, sizeof(row->id.text));
	fx_clear_behind(row->requester.text, sizeof(row->requester.text));
	fx_clear_behind(row->network.text, sizeof(row->network.text));
	fx_clear_behind(row->lang, sizeof(row->lang));
	fx_clear_behind(row->reason, sizeof(row->reason));
	fx_clear_behind(row->text, sizeof(row->text));
	fx_clear_behind(row->activity, sizeof(row->activity));
}

static inline void
fx_same_row(const struct om_job_row *a, const struct om_job_row *b)
{
	struct om_job_row x, y;

	fx_row(a, &x);
	fx_row(b, &y);
	assert_memory_equal(&x, &y, sizeof(x));
}

static inline void
fx_open(struct fx *fx)
{
	struct om_why why = { "" };
	enum om_err err = om_sqlite_open(&fx->conf, &fx->st, &why);

	if (err != OM_OK) {
		fail_msg("open: %s: %s", om_err_code(err), why.text);
	}
}

static inline void
fx_close(struct fx *fx)
{
	om_store_close(fx->st);
	fx->st = NULL;
}

/* A folder without a store. */
static inline struct fx *
fx_new(void)
{
	struct fx *fx = calloc(1, sizeof(*fx));

	if (fx == NULL) {
		return NULL;
	}
	/* In memory where there is such a place: these tests open and sync thousands of files, and
	 * a disk that loses what it has not synced is played by store_fault_vfs.h. */
	(void)snprintf(fx->dir, sizeof(fx->dir), "%s/om_store_test.XXXXXX",
		       access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (mkdtemp(fx->dir) == NULL) {
		free(fx);
		return NULL;
	}
	(void)snprintf(fx->path, sizeof(fx->path), "%s/ledger.db", fx->dir);
	fx->conf = (struct om_sqlite_conf){ .path = fx->path,
					    .wal_bytes = FX_WAL_BYTES,
					    .log_bytes = FX_LOG_BYTES };
	return fx;
}

static inline int
fx_setup(void **state)
{
	struct fx *fx = fx_new();

	*state = fx;
	if (fx == NULL) {
		return -1;
	}
	fx_open(fx);
	return 0;
}

static inline int
fx_teardown(void **state)
{
	static const char *const ends[] = { "", "-wal", "-shm", "-log", "-log2", ".lock" };
	struct fx *fx = *state;
	char path[128];
	size_t i;

	om_store_close(fx->st);
	for (i = 0; i < OM_COUNT(ends); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", fx->path, ends[i]);
		(void)unlink(path);
	}
	(void)rmdir(fx->dir);
	free(fx);
	return 0;
}

/* The file has all that was committed. */
static inline void
fx_fold(struct fx *fx)
{
	if (fx->st != NULL) {
		OK(om_store_fold(fx->st, true));
	}
}

/* Somebody else, who does not wait for the lock; SQLite's code. */
static inline int
other_write(struct fx *fx, const char *sql)
{
	sqlite3 *db = NULL;
	int rc;

	assert_int_equal(sqlite3_open(fx->path, &db), SQLITE_OK);
	rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return rc;
}

/* A person with the sqlite3 shell. */
static inline void
fx_sql(struct fx *fx, const char *sql)
{
	sqlite3 *db = NULL;
	char *text = NULL;

	fx_fold(fx);
	assert_int_equal(sqlite3_open(fx->path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK) {
		fail_msg("%s: %s", sql, text);
	}
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* The same, on the audit, which lies there as `trail`: seq, at, event, ..., details, hash (hex). */
static inline void
fx_tamper(struct fx *fx, const char *sql)
{
	char all[2048];

	(void)snprintf(
	    all, sizeof(all),
	    "CREATE TABLE trail AS SELECT r.value ->> 0 AS seq, r.value ->> 1 AS at,"
	    " r.value ->> 2 AS event, r.value ->> 3 AS actor, r.value ->> 4 AS job,"
	    " r.value ->> 5 AS requester, r.value ->> 6 AS network, r.value ->> 7 AS activity,"
	    " r.value ->> 8 AS details, r.value ->> 9 AS hash FROM audit, json_each(audit.rows) r;"
	    "%s; DELETE FROM audit; INSERT INTO audit SELECT min(seq), max(seq), "
	    "json_group_array(json_array("
	    "seq, at, event, actor, job, requester, network, activity, details, hash))"
	    " FROM (SELECT * FROM trail ORDER BY seq) HAVING count(*) > 0; DROP TABLE trail",
	    sql);
	fx_sql(fx, all);
}

/* The first column of the first row as text; freed by the caller. */
static inline char *
fx_ask(struct fx *fx, const char *sql)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;
	char *text = NULL;

	fx_fold(fx);
	assert_int_equal(sqlite3_open(fx->path, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK) {
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	}
	if (sqlite3_step(s) == SQLITE_ROW && sqlite3_column_text(s, 0) != NULL) {
		text = strdup((const char *)sqlite3_column_text(s, 0));
	}
	(void)sqlite3_finalize(s);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return text;
}

#define FX_ASK_IS(fx, sql, want)                   \
	do {                                       \
		char *got_ = fx_ask((fx), (sql));  \
		assert_non_null(got_);             \
		assert_string_equal(got_, (want)); \
		free(got_);                        \
	} while (0)

static const struct om_audit_note fx_note_received = {
	.event = { "received", 8 },
	.actor = { "alice", 5 },
};

static inline struct om_job_new
fx_job(const char *id, const char *spec)
{
	return (struct om_job_new){
		.id = fx_id(id),
		.requester = OM_STR("alice"),
		.network = OM_STR("home"),
		.lang = OM_STR("python"),
		.activity = OM_STR("training"),
		.level = 50,
		.state = OM_JOB_QUEUED,
		.reason = OM_STR("accepted"),
		.text = OM_STR("network home is trusted"),
		.needs = { .cores = 2, .mem_mib = 512, .disk_mib = 256, .runtime_s = 60 },
		.submitted = fx_at(0),
		.spec = { (const uint8_t *)spec, strlen(spec) },
		.notes = &fx_note_received,
		.note_count = 1,
	};
}

/* One job in a transaction of its own. */
static inline void
fx_put(struct fx *fx, const char *id)
{
	const struct om_job_new job = fx_job(id, "print(1)");
	struct om_job_row row;
	bool existed;

	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	assert_false(existed);
	OK(om_store_commit(fx->st));
}

static inline struct om_job_change
fx_change(enum om_job_state to, int64_t at_s)
{
	return (struct om_job_change){
		.to = to,
		.at = fx_at(at_s),
		.reason = OM_STR("test"),
		.text = OM_STR("because"),
		.note = { .event = OM_STR("moved"), .actor = OM_STR("test") },
	};
}

static inline enum om_err
fx_try_move(struct fx *fx, const char *id, enum om_job_state to, int64_t at_s)
{
	const struct om_job_id job = fx_id(id);
	const struct om_job_change change = fx_change(to, at_s);
	enum om_err err;

	OK(om_store_begin(fx->st));
	err = om_store_job_move(fx->st, &job, &change, NULL);
	OK(om_store_commit(fx->st));
	return err;
}

/* queued -> completed */
static inline void
fx_run(struct fx *fx, const char *id, int64_t at_s)
{
	const struct om_job_id job = fx_id(id);
	const struct om_job_result result = { .exited = true, .cpu_ms = 5, .wall_ms = 9 };
	struct om_job_change change = fx_change(OM_JOB_COMPLETED, at_s);

	change.result = &result;
	OK(fx_try_move(fx, id, OM_JOB_PROVISIONING, at_s));
	OK(fx_try_move(fx, id, OM_JOB_RUNNING, at_s));
	OK(om_store_begin(fx->st));
	OK(om_store_job_finish(fx->st, &job, &change, NULL));
	OK(om_store_commit(fx->st));
}

/* The whole chain, in steps of a few rows. */
static inline struct om_audit_check
fx_verify(struct fx *fx, const struct om_audit_mark *known)
{
	struct om_audit_check check = { 0 };

	if (known != NULL) {
		check.known = *known;
	}
	while (!check.done) {
		OK(om_store_audit_verify(fx->st, &check, 7));
	}
	return check;
}

#endif /* OM_TESTS_STORE_FIXTURE_H */
