/* SPDX-License-Identifier: ISC */
#include <fcntl.h>
#include "tests/unit/store_fixture.h"

/* What the first version wrote: without after_count, job_after, tally, ran, commit_log, arrays, handshakes. */
static void
make_version_1(struct fx *fx)
{
	char *hashes;

	fx_close(fx);
	hashes =
	    fx_ask(fx, "SELECT group_concat('UPDATE audit SET hash=x''' || hash || ''' WHERE seq='"
		       " || seq, ';') FROM audit_log");
	fx_sql(fx, "DROP TABLE job_after; DROP TABLE tally; DROP TABLE ran;"
		   "DROP TABLE commit_log; DROP VIEW audit_log;"
		   "ALTER TABLE audit RENAME TO pack; CREATE TABLE audit("
		   " seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL,"
		   " actor TEXT NOT NULL, job TEXT, requester TEXT, network TEXT, activity TEXT,"
		   " details TEXT NOT NULL, hash BLOB NOT NULL);"
		   "INSERT INTO audit SELECT v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4, v ->> 5,"
		   " v ->> 6, v ->> 7, v ->> 8, zeroblob(32) FROM (SELECT r.value AS v FROM pack,"
		   " json_each(pack.rows) r);"
		   "DROP TABLE pack; CREATE VIEW audit_log AS SELECT seq FROM audit;"
		   "ALTER TABLE job DROP COLUMN sealed; ALTER TABLE job DROP COLUMN has_output;"
		   "ALTER TABLE job DROP COLUMN after_count;"
		   "ALTER TABLE job DROP COLUMN handshake;"
		   "ALTER TABLE job DROP COLUMN array_limit; PRAGMA user_version=1;");
	fx_sql(fx, hashes != NULL ? hashes : "");
	free(hashes);
}

static void
test_older_file_is_brought_up_to_date(void **state)
{
	struct fx *fx = *state;
	struct om_job_after after = { .id = fx_id("a1"), .when = OM_AFTER_END };
	struct om_job_new job = fx_job("w1", "x");
	struct om_job_id id = fx_id("a1");
	struct om_job_row before, row;
	struct om_audit_mark mark;
	struct om_store_stat info;
	bool existed;

	fx_put(fx, "a1");
	fx_run(fx, "a1", 5);
	OK(om_store_job_get(fx->st, &id, &before));
	OK(om_store_audit_head(fx->st, &mark));
	make_version_1(fx);
	FX_ASK_IS(fx, "PRAGMA user_version", "1");
	fx_open(fx);
	FX_ASK_IS(fx, "PRAGMA user_version", "7");
	OK(om_store_stat(fx->st, &info));
	assert_int_equal(info.schema, 7);
	/* Nothing is lost, and what the new version added works. */
	OK(om_store_job_get(fx->st, &id, &row));
	before.sealed = true; /* not known of a job that old */
	before.has_output = true;
	fx_same_row(&row, &before);
	assert_false(fx_verify(fx, &mark).broken);
	job.after = &after;
	job.after_count = 1;
	OK(om_store_begin(fx->st));
	OK(om_store_job_put(fx->st, &job, &existed, &row));
	OK(om_store_commit(fx->st));
	OK(om_store_check(fx->st));
}

/* A migrated file and a new one have the same schema. */
static void
test_old_and_new_end_up_the_same(void **state)
{
	struct fx *fx = *state;
	const char *sql = "SELECT group_concat(line, char(10)) FROM (SELECT m.name || '.' ||"
			  " coalesce(c.name, '') || ' ' || coalesce(c.type, '') AS line"
			  " FROM sqlite_schema m LEFT JOIN pragma_table_info(m.name) c"
			  " ORDER BY m.name, c.name)";
	char *fresh, *migrated;

	fresh = fx_ask(fx, sql);
	make_version_1(fx);
	fx_open(fx);
	migrated = fx_ask(fx, sql);
	assert_string_equal(fresh, migrated);
	free(fresh);
	free(migrated);
}

static void
test_older_file_read_only(void **state)
{
	struct fx *fx = *state;

	make_version_1(fx);
	fx->conf.read_only = true;
	ERR(OM_ERR_VERSION, om_sqlite_open(&fx->conf, &fx->st, NULL));
	FX_ASK_IS(fx, "PRAGMA user_version", "1");
}

static void
test_newer_file_is_left_alone(void **state)
{
	struct fx *fx = *state;
	struct om_why why;

	fx_close(fx);
	fx_sql(fx, "PRAGMA user_version=8");
	ERR(OM_ERR_VERSION, om_sqlite_open(&fx->conf, &fx->st, &why));
	assert_non_null(strstr(why.text, "knows up to 7"));
	FX_ASK_IS(fx, "PRAGMA user_version", "8");
}

static void
test_another_programs_database(void **state)
{
	struct fx *fx = *state;

	fx_close(fx);
	assert_int_equal(unlink(fx->path), 0);
	fx_sql(fx, "CREATE TABLE bookmarks(url TEXT)");
	ERR(OM_ERR_CORRUPT, om_sqlite_open(&fx->conf, &fx->st, NULL));
	FX_ASK_IS(fx, "SELECT count(*) FROM sqlite_schema", "1");
}

static void
scribble(struct fx *fx, off_t at, const char *text)
{
	int fd = open(fx->path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, strlen(text), at), (ssize_t)strlen(text));
	assert_int_equal(close(fd), 0);
}

static void
test_damaged_file(void **state)
{
	struct fx *fx = *state;
	struct om_why why;
	char id[16];
	int i;

	for (i = 0; i < 50; i++) {
		(void)snprintf(id, sizeof(id), "j%d", i);
		fx_put(fx, id);
	}
	fx_close(fx);
	for (i = 4096; i < 20 * 4096; i += 4096) {
		scribble(fx, i, "this is no page of a database");
	}
	ERR(OM_ERR_CORRUPT, om_sqlite_open(&fx->conf, &fx->st, &why));
	scribble(fx, 0, "this is no database at all");
	ERR(OM_ERR_CORRUPT, om_sqlite_open(&fx->conf, &fx->st, &why));
	assert_true(strlen(why.text) > 0);
}

static void
test_missing_folder(void **state)
{
	struct fx *fx = *state;
	struct om_sqlite_conf conf = { .path = "/nonexistent/folder/ledger.db" };
	struct om_store *st;
	struct om_why why;

	(void)fx;
	ERR(OM_ERR_DISK, om_sqlite_open(&conf, &st, &why));
	assert_non_null(strstr(why.text, "No such file"));
	conf.read_only = true;
	ERR(OM_ERR_DISK, om_sqlite_open(&conf, &st, &why));
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_older_file_is_brought_up_to_date),
		T(test_old_and_new_end_up_the_same),
		T(test_older_file_read_only),
		T(test_newer_file_is_left_alone),
		T(test_another_programs_database),
		T(test_damaged_file),
		T(test_missing_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
