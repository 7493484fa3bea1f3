/* SPDX-License-Identifier: ISC */
/* The verbs about a job's place and attempts: hold, release, move, retry, purge; usage. */
#include <inttypes.h>
#include "client/cli_impl.h"

int
om_cli_hold(struct om_cli *cli)
{
	return om_cli_refs(cli, &(struct om_cli_refs){ "job.hold", "held", NULL, false });
}

int
om_cli_release(struct om_cli *cli)
{
	return om_cli_refs(cli, &(struct om_cli_refs){ "job.release", "released", NULL, false });
}

int
om_cli_retry(struct om_cli *cli)
{
	return om_cli_refs(cli, &(struct om_cli_refs){ "job.retry", "queued again", NULL, false });
}

static void
move_fill(struct om_cli *cli, struct omerta_body *query)
{
	om_cli_take_str(cli, "to", query, "to");
	om_cli_take_str(cli, "level", query, "level");
	om_cli_take_str(cli, "reason", query, "reason");
}

int
om_cli_move(struct om_cli *cli)
{
	if (om_cli_opt(cli, "to") == NULL && om_cli_opt(cli, "level") == NULL) {
		return om_cli_usage(cli, "where? say --to front, --to back or --level LEVEL");
	}
	return om_cli_refs(cli, &(struct om_cli_refs){ "job.move", "moved", move_fill, false });
}

/* In bulk: the daemon removes so many a request and is asked until there are no more. */
static int
purge_bulk(struct om_cli *cli, const struct omerta_body *query)
{
	uint64_t total = 0, n = 0;
	int rc;

	do {
		rc = omerta_purge(cli->o, query, &n);
		total += rc == 0 ? n : 0;
	} while (rc == 0 && n > 0);
	return om_cli_counted(cli, rc, total, "removed");
}

int
om_cli_purge(struct om_cli *cli)
{
	const bool bulk = om_cli_opt(cli, "state") != NULL || om_cli_opt(cli, "before") != NULL ||
			  om_cli_opt(cli, "all") != NULL;
	struct omerta_body *query;
	int64_t before_ms = -1;
	const char *state;
	int status = OM_EXIT_USAGE;

	if (bulk == (cli->operand_count > 0)) {
		return om_cli_usage(cli, bulk ? "ids, or --state, --before, --all; not both"
					      : "which jobs?");
	}
	if (!bulk) {
		return om_cli_refs(cli,
				   &(struct om_cli_refs){ "job.purge", "removed", NULL, false });
	}
	query = omerta_body_new("job.purge");
	for (size_t i = 0; (state = om_cli_opt_at(cli, "state", i)) != NULL; i++) {
		omerta_add_str(query, "states", state);
	}
	if (om_cli_take_time(cli, "before", false, &before_ms)) {
		if (before_ms >= 0) {
			omerta_set_u64(query, "before_ms", (uint64_t)before_ms);
		}
		status = purge_bulk(cli, query);
	}
	omerta_body_free(query);
	return status;
}

/* --- usage ------------------------------------------------------------------------------------ */

static void
usage_span(struct om_cli_table *t, const struct omerta_body *entry, const char *field)
{
	char text[OM_CLI_TEXT];

	om_cli_cell(t, omerta_has(entry, field)
			   ? om_cli_span((int64_t)omerta_get_u64(entry, field), text)
			   : NULL);
}

static void
usage_rows(struct om_cli *cli, const struct omerta_body *table, const char *rows,
	   const char *heading)
{
	static const char *const counts[] = { "completed", "failed", "cancelled" };
	static const char *const spans[] = { "wait_p50_ms", "wait_p99_ms", "run_p50_ms",
					     "run_p99_ms", "run_ms" };
	struct om_cli_table t = { .headers = { heading, "COMPLETED", "FAILED", "CANCELLED",
					       "WAIT-P50", "WAIT-P99", "RUN-P50", "RUN-P99",
					       "RUN-ALL" },
				  .columns = 9,
				  .right = 0x1fe,
				  .state = SIZE_MAX };
	char text[OM_CLI_TEXT];

	for (size_t i = 0; i < omerta_count(table, rows); i++) {
		const struct omerta_body *entry = omerta_body_at(table, rows, i);

		om_cli_cell(&t, omerta_get_str(entry, "name"));
		for (size_t k = 0; k < OM_COUNT(counts); k++) {
			(void)snprintf(text, sizeof(text), "%" PRIu64,
				       omerta_get_u64(entry, counts[k]));
			om_cli_cell(&t, text);
		}
		for (size_t k = 0; k < OM_COUNT(spans); k++) {
			usage_span(&t, entry, spans[k]);
		}
	}
	if (t.count > 0) {
		om_cli_table_print(cli, &t);
	}
}

static void
usage_print(struct om_cli *cli, const struct omerta_body *table)
{
	usage_rows(cli, table, "levels", "LEVEL");
	if (cli->out_tty && omerta_count(table, "peers") > 0) {
		(void)fputc('\n', cli->out);
	}
	usage_rows(cli, table, "peers", "REQUESTER");
}

int
om_cli_usage_table(struct om_cli *cli)
{
	struct omerta_body *table = NULL;
	int rc = omerta_queue_usage(cli->o, &table);

	return om_cli_answer(cli, rc, "usage.table", table, usage_print);
}
