/* SPDX-License-Identifier: ISC */
/*
 * PostgreSQL, synchronous_commit on: one INSERT for all that is in flight; one UPDATE with SKIP
 * LOCKED in the order of priority, one UPDATE with the results.
 */
#include <libpq-fe.h>
#include "peer.h"

struct conn {
	PGconn *pg;
	char ids[IN_FLIGHT_MAX * 24];
};

static PGresult *
must(struct conn *c, PGresult *result, const char *what)
{
	const ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
		fail(what, PQerrorMessage(c->pg));
	}
	return result;
}

static void
prepare(struct conn *c, const char *name, const char *sql)
{
	PQclear(must(c, PQprepare(c->pg, name, sql, 0, NULL), name));
}

static void *
peer_open(const char *endpoint)
{
	static bool made;
	struct conn *c = calloc(1, sizeof(*c));

	c->pg = PQconnectdb(endpoint);
	if (PQstatus(c->pg) != CONNECTION_OK) {
		fail("postgres", PQerrorMessage(c->pg));
	}
	if (!made) {
		PQclear(must(
		    c,
		    PQexec(c->pg, "DROP TABLE IF EXISTS job; CREATE TABLE job(id bigserial PRIMARY "
				  "KEY, priority int NOT "
				  "NULL, state text NOT NULL, body bytea NOT NULL, submitted "
				  "timestamptz NOT NULL DEFAULT now(), finished timestamptz, code "
				  "int) WITH (fillfactor = 70);"
				  "CREATE INDEX job_queue ON job(priority DESC, id) WHERE state = "
				  "'queued'"),
		    "create"));
		made = true;
	}
	prepare(c, "submit",
		"INSERT INTO job(priority, state, body) SELECT 10, 'queued', $1::bytea FROM "
		"generate_series(1, $2::int)");
	prepare(c, "take",
		"UPDATE job SET state = 'running' WHERE id IN (SELECT id FROM job WHERE state = "
		"'queued' ORDER BY priority DESC, id LIMIT $1::int FOR UPDATE SKIP LOCKED) "
		"RETURNING id");
	prepare(c, "done",
		"UPDATE job SET state = 'completed', code = 0, finished = now() WHERE id = "
		"ANY($1::bigint[])");
	return c;
}

static PGresult *
run(struct conn *c, const char *name, int n, const char *const *values, const int *lengths,
    const int *formats)
{
	return must(c, PQexecPrepared(c->pg, name, n, values, lengths, formats, 0), name);
}

static void
peer_submit(void *conn, size_t count)
{
	char number[24];
	const char *values[2] = { body, number };
	const int lengths[2] = { BODY_BYTES, 0 }, formats[2] = { 1, 0 };

	(void)snprintf(number, sizeof(number), "%zu", count);
	PQclear(run(conn, "submit", 2, values, lengths, formats));
}

static void
peer_work(void *conn, size_t count)
{
	struct conn *c = conn;
	size_t done = 0;

	while (done < count) {
		char number[24];
		const char *values[1] = { number };
		PGresult *taken;
		size_t len = 0;
		int i, n;

		(void)snprintf(number, sizeof(number), "%zu", count - done);
		taken = run(c, "take", 1, values, NULL, NULL);
		n = PQntuples(taken);
		for (i = 0; i < n; i++) {
			len += (size_t)sprintf(c->ids + len, "%c%s", i == 0 ? '{' : ',',
					       PQgetvalue(taken, i, 0));
		}
		PQclear(taken);
		if (n == 0) {
			continue; /* another client has locked what it is about to take */
		}
		(void)sprintf(c->ids + len, "}");
		values[0] = c->ids;
		PQclear(run(c, "done", 1, values, NULL, NULL));
		done += (size_t)n;
	}
}
