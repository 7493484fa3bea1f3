/* SPDX-License-Identifier: ISC */
/* Arrays of jobs at the command line: waiting for all of them, and what they came to. */
#include <inttypes.h>
#include <string.h>
#include "client/cli_impl.h"

#define PROGRESS_MS 1000
#define STATES_MAX  16

struct tally {
	const char *states[STATES_MAX]; /* views of the table */
	uint64_t counts[STATES_MAX];
	size_t n;
};

static void
tally_add(struct tally *t, const char *state)
{
	size_t i = 0;

	while (i < t->n && strcmp(t->states[i], state) != 0) {
		i++;
	}
	if (i == t->n && t->n < STATES_MAX) {
		t->states[t->n++] = state;
	}
	if (i < t->n) {
		t->counts[i]++;
	}
}

/* "10 jobs: 8 completed, 2 failed" */
static void
array_print(FILE *out, const char *id, const struct omerta_body *table)
{
	const size_t n = omerta_count(table, "jobs");
	struct tally t = { .n = 0 };

	for (size_t i = 0; i < n; i++) {
		tally_add(&t, omerta_get_str(omerta_body_at(table, "jobs", i), "state"));
	}
	(void)fputs("array ", out);
	om_cli_clean(out, id);
	(void)fprintf(out, "  %zu jobs", n);
	for (size_t i = 0; i < t.n; i++) {
		(void)fprintf(out, "%s %" PRIu64 " ", i == 0 ? ":" : ",", t.counts[i]);
		om_cli_clean(out, t.states[i]);
	}
}

static int
array_list(struct om_cli *cli, const char *id, struct omerta_body **table)
{
	struct omerta_body *query = omerta_body_new("job.list");
	int rc;

	omerta_set_str(query, "array", id);
	omerta_set_u64(query, "limit", OMERTA_ARRAY_MAX);
	rc = omerta_list(cli->o, query, table);
	omerta_body_free(query);
	return rc;
}

/* What they all came to: the first that is not 0, as with `wait` of several jobs. */
static int
array_exit(const struct omerta_body *table)
{
	int status = OM_EXIT_OK;

	for (size_t i = 0; status == OM_EXIT_OK && i < omerta_count(table, "jobs"); i++) {
		status = om_cli_exit_of_job(omerta_body_at(table, "jobs", i));
	}
	return status;
}

/* Until all have ended or the time is over; on a terminal with a line that is kept up to date. */
static int
array_wait(struct om_cli *cli, const char *id, bool progress, int64_t timeout_ms,
	   struct omerta_body **table)
{
	const bool line = progress && cli->err_tty;
	int64_t until = timeout_ms < 0 ? INT64_MAX : om_client_now_ms() + timeout_ms;
	int rc;

	for (;;) {
		int64_t left = until - om_client_now_ms();
		int64_t slice = timeout_ms < 0 && !line ? OMERTA_FOREVER : left;

		if (line && left > PROGRESS_MS) {
			slice = PROGRESS_MS;
		}
		rc = omerta_wait_array(cli->o, id, slice, table);
		if (rc == 0 || slice == left || slice == OMERTA_FOREVER ||
		    !omerta_error_is(cli->o, "timeout") || array_list(cli, id, table) != 0) {
			break;
		}
		(void)fputs("\r\033[K", cli->err);
		array_print(cli->err, id, *table);
		(void)fflush(cli->err);
		omerta_body_free(*table);
		*table = NULL;
	}
	if (line) {
		(void)fputs("\r\033[K", cli->err);
	}
	return rc;
}

int
om_cli_array_wait(struct om_cli *cli, const char *id, bool quiet, int64_t timeout_ms)
{
	struct omerta_body *table = NULL;
	int status;

	if (array_wait(cli, id, !quiet, timeout_ms, &table) != 0) {
		return om_cli_fail(cli);
	}
	if (cli->json) {
		om_cli_print_body(cli, "job.table", table);
	} else if (!quiet) {
		array_print(cli->err, id, table);
		(void)fputc('\n', cli->err);
	}
	status = array_exit(table);
	omerta_body_free(table);
	return status;
}

const char *
om_cli_array_named(const struct om_cli *cli, char id[OMERTA_ID_SIZE])
{
	const char *array = omerta_error_detail(cli->o, "array");

	if (array == NULL) {
		return NULL;
	}
	(void)snprintf(id, OMERTA_ID_SIZE, "%s", array);
	return id;
}

int
om_cli_array_show(struct om_cli *cli, const char *id)
{
	struct omerta_body *table = NULL;

	if (array_list(cli, id, &table) != 0) {
		return om_cli_fail(cli);
	}
	if (cli->json) {
		om_cli_print_body(cli, "job.table", table);
	} else {
		array_print(cli->out, id, table);
		(void)fputc('\n', cli->out);
	}
	omerta_body_free(table);
	return OM_EXIT_OK;
}
