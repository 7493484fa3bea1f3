/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include "store/sqlite_impl.h"

/*
 * The schema, as steps.  Step n takes a file from version n to n + 1; a new file runs them all, so
 * an old file and a new one end up the same.  A step that was released is never edited.
 *
 * Times are nanoseconds since 1970 (NULL: has not happened); the views show them as text.  `seq`
 * grows with every submission, so the tables grow at their ends and a group of commits touches few
 * pages; only the index on `id` is entered at random places.
 */

#define SCHEMA_APP_ID 0x6f6d7274 /* "omrt", shown by file(1) */

/* clang-format off */
#define ISO(col) "strftime('%Y-%m-%dT%H:%M:%fZ', " col " / 1e9, 'unixepoch')"

static const char schema_v1[] =
    "CREATE TABLE job("
    " seq INTEGER PRIMARY KEY, rank INTEGER NOT NULL, id TEXT NOT NULL UNIQUE,"
    " requester TEXT NOT NULL, network TEXT NOT NULL, lang TEXT NOT NULL, activity TEXT NOT NULL,"
    " level INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL,"
    " cores INTEGER NOT NULL, mem_mib INTEGER NOT NULL, disk_mib INTEGER NOT NULL,"
    " runtime_s INTEGER NOT NULL, submitted INTEGER NOT NULL, picked INTEGER, started INTEGER,"
    " finished INTEGER, not_before INTEGER, expires INTEGER, attempts INTEGER NOT NULL,"
    " attempts_max INTEGER NOT NULL, held INTEGER NOT NULL, requeue INTEGER NOT NULL,"
    " exited INTEGER, exit_code INTEGER, signal INTEGER, cpu_ms INTEGER, wall_ms INTEGER,"
    " boot_ms INTEGER, mem_peak_kib INTEGER, rx_bytes INTEGER, tx_bytes INTEGER,"
    " dropped_bytes INTEGER, spec_hash BLOB NOT NULL);"
    "CREATE INDEX job_live ON job(seq) WHERE finished IS NULL;"
    "CREATE INDEX job_finished ON job(finished) WHERE finished IS NOT NULL;"
    "CREATE TABLE job_spec(job INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    "CREATE TABLE stream("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,"
    " UNIQUE(job, name));"
    "CREATE TABLE chunk(stream INTEGER NOT NULL, off INTEGER NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY(stream, off));"
    "CREATE TABLE entry(kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,"
    " PRIMARY KEY(kind, key)) WITHOUT ROWID;"
    "CREATE TABLE audit("
    " seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL, actor TEXT NOT NULL,"
    " job TEXT, requester TEXT, network TEXT, activity TEXT, details TEXT NOT NULL,"
    " hash BLOB NOT NULL);"
    "CREATE TABLE chain("
    " one INTEGER PRIMARY KEY CHECK(one = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL,"
    " base_seq INTEGER NOT NULL, base_hash BLOB NOT NULL);"
    "INSERT INTO chain VALUES(1, 0, zeroblob(32), 0, zeroblob(32));"
    "CREATE TABLE state_count(state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE VIEW jobs AS SELECT id, state, reason, text, requester, network, lang, activity,"
    " level, " ISO("submitted") " AS submitted, " ISO("picked") " AS picked,"
    " " ISO("started") " AS started, " ISO("finished") " AS finished,"
    " CASE WHEN exited THEN exit_code END AS exit_code, signal, cpu_ms, wall_ms, boot_ms,"
    " mem_peak_kib, rx_bytes, tx_bytes, dropped_bytes, attempts, cores, mem_mib, disk_mib,"
    " runtime_s FROM job;"
    "CREATE VIEW outputs AS SELECT j.id AS job, s.name, c.off, c.data FROM chunk c"
    " JOIN stream s ON s.id = c.stream JOIN job j ON j.seq = s.job;"
    "CREATE VIEW audit_log AS SELECT seq, " ISO("at") " AS time, event, actor, job, requester,"
    " network, activity, details, lower(hex(hash)) AS hash FROM audit;";
/* clang-format on */

/* Jobs that wait for others; how many came into each state, by the quarter of an hour. */
static const char schema_v2[] =
    "ALTER TABLE job ADD COLUMN after_count INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE job_after(job INTEGER NOT NULL, other INTEGER NOT NULL, condition TEXT NOT NULL,"
    " PRIMARY KEY(job, other)) WITHOUT ROWID;"
    "CREATE INDEX job_after_other ON job_after(other);"
    "CREATE TABLE tally(slot INTEGER NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL,"
    " PRIMARY KEY(slot, state)) WITHOUT ROWID;";

/* Jobs of an array have their id from it; NULL: in no array. */
static const char schema_v3[] = "ALTER TABLE job ADD COLUMN array_limit INTEGER;";

/* How long the jobs of each requester ran, by the quarter of an hour in which an attempt ended. */
static const char schema_v4[] =
    "CREATE TABLE ran(slot INTEGER NOT NULL, requester TEXT NOT NULL, ms INTEGER NOT NULL,"
    " PRIMARY KEY(slot, requester)) WITHOUT ROWID;"
    "INSERT INTO ran SELECT finished / 900000000000 * 900 AS slot, requester, sum(wall_ms) FROM job"
    " WHERE finished > (strftime('%s', 'now') - 172800) * 1000000000 AND wall_ms > 0"
    " GROUP BY slot, requester;";

/* The last handshake of a job's tunnel. */
static const char schema_v5[] = "ALTER TABLE job ADD COLUMN handshake INTEGER;";

/*
 * What a job does not have need not be looked for (of older ones it is not known).
 * The groups in the commit log that the tables have not taken in are of this generation.  The audit's
 * rows lie in packs (store/audit_pack.h), with the numbers of the first and the last in it.
 */
/* clang-format off */
static const char schema_v6[] =
    "ALTER TABLE job ADD COLUMN sealed INTEGER NOT NULL DEFAULT 1;"
    "ALTER TABLE job ADD COLUMN has_output INTEGER NOT NULL DEFAULT 1;"
    "CREATE TABLE commit_log("
    " one INTEGER PRIMARY KEY CHECK(one = 1), generation INTEGER NOT NULL);"
    "INSERT INTO commit_log VALUES(1, random());"
    "DROP VIEW audit_log;"
    "ALTER TABLE audit RENAME TO audit_row;"
    "CREATE TABLE audit("
    " first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows TEXT NOT NULL);"
    "INSERT INTO audit SELECT min(seq), max(seq), json_group_array(json_array(seq, at, event, actor, job,"
    " requester, network, activity, details, lower(hex(hash)))) FROM"
    " (SELECT * FROM audit_row ORDER BY seq) GROUP BY (seq - 1) / 64;"
    "DROP TABLE audit_row;"
    "CREATE VIEW audit_log AS SELECT r.value ->> 0 AS seq, " ISO("(r.value ->> 1)") " AS time,"
    " r.value ->> 2 AS event, r.value ->> 3 AS actor, r.value ->> 4 AS job,"
    " r.value ->> 5 AS requester, r.value ->> 6 AS network, r.value ->> 7 AS activity,"
    " r.value ->> 8 AS details, r.value ->> 9 AS hash FROM audit, json_each(audit.rows) r;";
/* The commit log is two files, one generation follows the other (commit_log.h). */
static const char schema_v7[] = "";
/* clang-format on */

static const char *const schema_steps[] = { schema_v1, schema_v2, schema_v3, schema_v4,
					    schema_v5, schema_v6, schema_v7 };
const uint32_t sq_schema_version = OM_COUNT(schema_steps);

static enum om_err
schema_migrate(struct om_sqlite *sq, uint32_t from)
{
	char sql[96];
	enum om_err err;
	uint32_t v;

	/* One transaction for all steps: a crash leaves the old version. */
	err = sq_exec(sq, "BEGIN IMMEDIATE");
	for (v = from; err == OM_OK && v < sq_schema_version; v++) {
		err = sq_exec(sq, schema_steps[v]);
	}
	if (err == OM_OK) {
		(void)snprintf(sql, sizeof(sql),
			       "PRAGMA user_version=%" PRIu32 "; PRAGMA application_id=%d; COMMIT",
			       sq_schema_version, SCHEMA_APP_ID);
		err = sq_exec(sq, sql);
	}
	if (err != OM_OK && sqlite3_get_autocommit(sq->db) == 0) {
		(void)sqlite3_exec(sq->db, "ROLLBACK", NULL, NULL, NULL);
	}
	return err;
}

enum om_err
sq_schema_open(struct om_sqlite *sq)
{
	int64_t version = 0, app_id = 0, tables = 0;
	enum om_err err;

	err = sq_pragma_i64(sq, "PRAGMA user_version", &version);
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "PRAGMA application_id", &app_id);
	}
	if (err == OM_OK) {
		err = sq_pragma_i64(sq, "SELECT count(*) FROM sqlite_schema", &tables);
	}
	if (err != OM_OK) {
		return err;
	}
	if (tables > 0 && app_id != SCHEMA_APP_ID) {
		return sq_why(sq, OM_ERR_CORRUPT, "%s is the database of another program",
			      sq->path);
	}
	if (version < 0 || version > (int64_t)sq_schema_version) {
		return sq_why(sq, OM_ERR_VERSION,
			      "%s has schema %" PRId64 ", this program knows up to %" PRIu32,
			      sq->path, version, sq_schema_version);
	}
	if (version == (int64_t)sq_schema_version) {
		return OM_OK;
	}
	if (sq->read_only) {
		return sq_why(sq, OM_ERR_VERSION,
			      "%s has the older schema %" PRId64
			      "; it is brought up to date when the daemon opens it",
			      sq->path, version);
	}
	err = sq_log_before_migration(sq);
	return err == OM_OK ? schema_migrate(sq, (uint32_t)version) : err;
}

/* The counters against the rows that they count. */
static const char schema_check_counts[] =
    "SELECT count(*) FROM (SELECT state, n FROM state_count WHERE n <> 0 EXCEPT"
    " SELECT state, count(*) FROM job GROUP BY state) UNION ALL SELECT count(*) FROM ("
    " SELECT state, count(*) FROM job GROUP BY state EXCEPT SELECT state, n FROM state_count)"
    " ORDER BY 1 DESC LIMIT 1";
static const char schema_check_sizes[] =
    "SELECT count(*) FROM stream s WHERE s.size <> coalesce((SELECT sum(length(data)) FROM chunk c"
    " WHERE c.stream = s.id), 0)";
static const char schema_check_owners[] =
    "SELECT (SELECT count(*) FROM stream WHERE job NOT IN (SELECT seq FROM job)) +"
    " (SELECT count(*) FROM chunk WHERE stream NOT IN (SELECT id FROM stream)) +"
    " (SELECT count(*) FROM job_spec WHERE job NOT IN (SELECT seq FROM job)) +"
    " (SELECT count(*) FROM job WHERE seq NOT IN (SELECT job FROM job_spec))";

enum om_err
sq_schema_check(struct om_sqlite *sq)
{
	static const struct {
		const char *sql, *text;
	} checks[] = {
		{ schema_check_counts, "the counts by state do not match the jobs" },
		{ schema_check_sizes, "an output's size does not match its chunks" },
		{ schema_check_owners,
		  "rows are left of a job that is gone, or a job lacks its own" },
	};
	enum om_err err;
	int64_t n = 0;
	size_t i;

	for (i = 0; i < OM_COUNT(checks); i++) {
		err = sq_pragma_i64(sq, checks[i].sql, &n);
		if (err != OM_OK) {
			return err;
		}
		if (n != 0) {
			return sq_why(sq, OM_ERR_CORRUPT, "%s: %s", sq->path, checks[i].text);
		}
	}
	return OM_OK;
}
