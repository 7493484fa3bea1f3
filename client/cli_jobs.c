/* SPDX-License-Identifier: ISC */
/* The verbs about jobs that are there: list, show, output, wait, cancel, hold, release. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "client/cli_impl.h"

#define LIST_DEFAULT 100
#define LIST_PAGE    1000
#define LIST_MAX     1000000

/* --- list ------------------------------------------------------------------------------------------ */

/* What is to be said of it in a line: why it waits, how it ended, or what it is for. */
static const char *
list_about(const struct omerta_body *job, uint64_t now, char text[OM_CLI_TEXT])
{
	const char *state = omerta_get_str(job, "state"), *why = omerta_get_str(job, "text");
	const char *reason = omerta_get_str(job, "reason");
	char at[OM_CLI_TEXT];

	if (omerta_state_is_final(state)) {
		return why != NULL ? why : omerta_get_str(job, "activity");
	}
	if (strcmp(state, "queued") == 0) {
		if (omerta_get_bool(job, "held")) {
			return "held: waits for a release";
		}
		if (reason != NULL && strcmp(reason, "dependency") == 0) {
			return why;
		}
		if (omerta_get_u64(job, "not_before_ms") > now) {
			(void)snprintf(text, OM_CLI_TEXT, "not before %s",
				       om_cli_when(omerta_get_u64(job, "not_before_ms"), at));
			return text;
		}
	}
	return omerta_get_str(job, "activity");
}

static void
list_row(struct om_cli *cli, struct om_cli_table *t, const struct omerta_body *job)
{
	char text[OM_CLI_TEXT], id[OMERTA_ID_SIZE];
	uint64_t running = omerta_get_u64(job, "running_ms"), wall = omerta_get_u64(job, "wall_ms");
	uint64_t now = (uint64_t)(om_wall_now().ns / OM_NS_PER_MS);
	bool final = omerta_state_is_final(omerta_get_str(job, "state"));

	om_cli_cell(t, om_cli_short_id(cli, omerta_get_str(job, "job"), id));
	om_cli_cell(t, omerta_get_str(job, "state"));
	om_cli_cell(t, omerta_get_str(job, "level"));
	om_cli_cell(t, omerta_get_str(job, "peer"));
	om_cli_cell(t, om_cli_when(omerta_get_u64(job, "submitted_ms"), text));
	if (!final && running != 0 && now > running) {
		wall = now - running;
	}
	om_cli_cell(t, wall != 0 ? om_cli_span((int64_t)wall, text) : NULL);
	(void)snprintf(text, sizeof(text), "%" PRId64, omerta_get_i64(job, "exit_code"));
	om_cli_cell(t, omerta_has(job, "exit_code") ? text : NULL);
	om_cli_cell(t, list_about(job, now, text));
}

/* An empty page is not the end: the daemon looks at so many jobs at a time. */
int
om_cli_list_pages(struct om_cli *cli, struct omerta_body *query, uint64_t limit,
		  struct om_cli_rows *rows)
{
	do {
		struct omerta_body *table = NULL;
		uint64_t page = limit - rows->count < LIST_PAGE ? limit - rows->count : LIST_PAGE;
		size_t n;

		omerta_set_u64(query, "limit", page);
		if (rows->next[0] != '\0') {
			omerta_set_str(query, "cursor", rows->next);
		}
		if (omerta_list(cli->o, query, &table) != 0) {
			return -1;
		}
		n = omerta_count(table, "jobs");
		for (size_t i = 0; i < n; i++) {
			const struct omerta_body *job = omerta_body_at(table, "jobs", i);

			if (rows->json != NULL) {
				(void)json_array_append_new(rows->json, om_cli_json(job));
			} else {
				rows->row(cli, rows->table, job);
			}
		}
		rows->count += n;
		(void)snprintf(rows->next, sizeof(rows->next), "%s",
			       omerta_has(table, "next") ? omerta_get_str(table, "next") : "");
		omerta_body_free(table);
	} while (rows->next[0] != '\0' && rows->count < limit);
	return 0;
}

int
om_cli_list_answer(struct om_cli *cli, int rc, struct om_cli_rows *rows, const char *none)
{
	struct om_cli_table *t = rows->table;

	if (rc != 0) {
		rc = om_cli_fail(cli);
	} else if (rows->json != NULL) {
		json_t *object = json_pack("{s:O}", "jobs", rows->json);

		if (rows->next[0] != '\0') {
			(void)json_object_set_new(object, "next", json_string(rows->next));
		}
		om_cli_print_json(cli, "job.table", object);
	} else if (t->count > 0) {
		om_cli_table_print(cli, t);
		if (rows->next[0] != '\0' && cli->out_tty) {
			(void)fprintf(cli->out, "there are more; --limit shows them\n");
		}
	} else if (cli->out_tty) {
		(void)fprintf(cli->out, "%s\n", none);
	}
	json_decref(rows->json);
	om_arena_fini(&t->arena);
	free(t->cells);
	return rc;
}

static int
list_print(struct om_cli *cli, struct omerta_body *query, uint64_t limit)
{
	struct om_cli_table t = { .headers = { "JOB", "STATE", "LEVEL", "FROM", "SUBMITTED", "TIME",
					       "EXIT", "ABOUT" },
				  .columns = 8,
				  .right = 1u << 5 | 1u << 6,
				  .state = 1 };
	struct om_cli_rows rows = { .table = &t,
				    .row = list_row,
				    .json = cli->json ? json_array() : NULL };

	return om_cli_list_answer(cli, om_cli_list_pages(cli, query, limit, &rows), &rows,
				  "no jobs");
}

int
om_cli_list(struct om_cli *cli)
{
	struct omerta_body *query = omerta_body_new("job.list");
	int64_t since_ms = -1;
	uint64_t limit = LIST_DEFAULT;
	const char *state;
	int status = OM_EXIT_USAGE;

	for (size_t i = 0; (state = om_cli_opt_at(cli, "state", i)) != NULL; i++) {
		omerta_add_str(query, "states", state);
	}
	om_cli_take_str(cli, "peer", query, "peer");
	om_cli_take_str(cli, "array", query, "array");
	if (om_cli_take_time(cli, "since", false, &since_ms) &&
	    om_cli_take_u64(cli, "limit", query, "limit", LIST_MAX)) {
		if (since_ms >= 0) {
			omerta_set_u64(query, "since_ms", (uint64_t)since_ms);
		}
		if (omerta_has(query, "limit")) {
			limit = omerta_get_u64(query, "limit");
		}
		status = limit == 0 ? OM_EXIT_OK : list_print(cli, query, limit);
	}
	omerta_body_free(query);
	return status;
}

/* --- show ------------------------------------------------------------------------------------------ */

static void
show_line(struct om_cli *cli, const char *name, const char *value)
{
	if (value != NULL) {
		(void)fprintf(cli->out, "%-14s ", name);
		om_cli_clean(cli->out, value);
		(void)fputc('\n', cli->out);
	}
}

static void
show_u64(struct om_cli *cli, const struct omerta_body *job, const char *field, const char *unit)
{
	char text[OM_CLI_TEXT];

	if (omerta_has(job, field)) {
		(void)snprintf(text, sizeof(text), "%" PRIu64 "%s", omerta_get_u64(job, field),
			       unit);
		show_line(cli, field, text);
	}
}

static void
show_when(struct om_cli *cli, const struct omerta_body *job, const char *field, const char *name)
{
	char text[OM_CLI_TEXT];

	if (omerta_has(job, field)) {
		show_line(cli, name, om_cli_when(omerta_get_u64(job, field), text));
	}
}

static void
show_pairs(struct om_cli *cli, const struct omerta_body *job, const char *field, const char *name,
	   const char *between)
{
	const char *key, *value;

	for (size_t i = 0; omerta_pair_at(job, field, i, &key, &value); i++) {
		(void)fprintf(cli->out, "%-14s ", i == 0 ? name : "");
		om_cli_clean(cli->out, key);
		(void)fputs(between, cli->out);
		om_cli_clean(cli->out, value);
		(void)fputc('\n', cli->out);
	}
}

/* rx, tx and the age are in the summary once it has ended; while it runs they are news. */
static void
show_tunnel(struct om_cli *cli, const struct omerta_body *job)
{
	char in[OM_CLI_TEXT], out[OM_CLI_TEXT], age[OM_CLI_TEXT], line[4 * OM_CLI_TEXT];

	if (omerta_has(job, "handshake_age_ms")) {
		(void)snprintf(line, sizeof(line), "%s in, %s out, handshake %s ago",
			       om_cli_bytes(omerta_get_u64(job, "rx_bytes"), in),
			       om_cli_bytes(omerta_get_u64(job, "tx_bytes"), out),
			       om_cli_span((int64_t)omerta_get_u64(job, "handshake_age_ms"), age));
		show_line(cli, "tunnel", line);
	} else {
		show_when(cli, job, "handshake_ms", "last handshake");
	}
}

static void
show_lists(struct om_cli *cli, const struct omerta_body *job)
{
	for (size_t i = 0; i < omerta_count(job, "files"); i++) {
		show_line(cli, i == 0 ? "files" : "", omerta_str_at(job, "files", i));
	}
	show_pairs(cli, job, "files_missing", "missing", ": ");
	show_pairs(cli, job, "evidence", "evidence", " = ");
}

static void
show_print(struct om_cli *cli, const struct omerta_body *job)
{
	om_cli_summary(cli, cli->out, cli->out_tty, job);
	show_line(cli, "id", omerta_get_str(job, "job"));
	show_line(cli, "reason", omerta_get_str(job, "reason"));
	show_line(cli, "text", omerta_get_str(job, "text"));
	show_line(cli, "waits", omerta_get_str(job, "waits_text"));
	show_u64(cli, job, "ahead", "");
	if (omerta_get_bool(job, "held")) {
		show_line(cli, "held", "yes: waits for a release");
	}
	show_line(cli, "activity", omerta_get_str(job, "activity"));
	show_line(cli, "from", omerta_get_str(job, "peer"));
	show_line(cli, "network", omerta_get_str(job, "network_id"));
	show_line(cli, "level", omerta_get_str(job, "level"));
	show_line(cli, "lang", omerta_get_str(job, "lang"));
	show_u64(cli, job, "cores", "");
	show_u64(cli, job, "mem_mib", " MiB");
	show_u64(cli, job, "disk_mib", " MiB");
	show_u64(cli, job, "runtime_s", " s at most");
	show_u64(cli, job, "attempt", "");
	show_u64(cli, job, "attempts_max", "");
	if (omerta_get_u64(job, "after_count") > 0) {
		show_u64(cli, job, "after_count", " others");
	}
	show_line(cli, "array", omerta_get_str(job, "array"));
	if (omerta_get_u64(job, "array_limit") > 0) {
		show_u64(cli, job, "array_limit", " at a time");
	}
	show_when(cli, job, "submitted_ms", "submitted");
	if (omerta_get_u64(job, "not_before_ms") > 0) {
		show_when(cli, job, "not_before_ms", "not before");
	}
	show_when(cli, job, "started_ms", "started");
	show_when(cli, job, "running_ms", "running since");
	show_when(cli, job, "finished_ms", "finished");
	show_when(cli, job, "expires_ms", "expires");
	show_u64(cli, job, "boot_ms", " ms");
	show_tunnel(cli, job);
	show_u64(cli, job, "stdout_bytes", "");
	show_u64(cli, job, "stderr_bytes", "");
	show_lists(cli, job);
}

int
om_cli_show(struct om_cli *cli)
{
	struct omerta_body *job = NULL;
	int rc = omerta_get(cli->o, cli->operands[0], &job);
	char array[OMERTA_ID_SIZE];

	if (rc != 0 && om_cli_array_named(cli, array) != NULL) {
		return om_cli_array_show(cli, array);
	}
	return om_cli_answer(cli, rc, "job.info", job, show_print);
}

/* --- output ---------------------------------------------------------------------------------------- */

struct output {
	struct om_cli *cli;
	const char *id, *stream, *file;
	uint64_t at;
	FILE *to;
	uint64_t check; /* so many bytes are in the file already, and must be the same */
	bool other; /* they were not: the file is of another attempt, or of another job */
};

#define OUTPUT_OVERLAP 65536 /* bytes that a transfer which goes on compares */

/* A person is told; a file holds the output of one attempt. */
static int
output_restart(struct output *out, const char *why)
{
	out->at = 0;
	out->check = 0;
	(void)fprintf(out->cli->err, "%s: job %s: %s\n", out->cli->program, out->id, why);
	return out->to == out->cli->out || ftruncate(fileno(out->to), 0) == 0 ? 0 : -1;
}

/* Takes what is in the file already off the piece.  false: there is something else. */
static bool
output_same(struct output *out, const char **data, size_t *len)
{
	char have[4096];

	while (out->check > 0 && *len > 0) {
		size_t n = *len < out->check ? *len : (size_t)out->check;

		n = n < sizeof(have) ? n : sizeof(have);
		if (pread(fileno(out->to), have, n, (off_t)out->at) != (ssize_t)n ||
		    memcmp(have, *data, n) != 0) {
			return false;
		}
		out->at += n;
		out->check -= n;
		*data += n;
		*len -= n;
	}
	return true;
}

static int
output_take(void *arg, const void *piece_data, size_t len)
{
	struct output *out = arg;
	const char *data = piece_data;

	if (data == NULL) {
		return output_restart(out, "another attempt has begun: its output follows");
	}
	if (!output_same(out, &data, &len)) {
		out->other = true;
		return -1;
	}
	if (len == 0) {
		return 0;
	}
	if (out->cli->json) {
		struct omerta_body *piece = om_client_body_new(OM_BODY_output_data);
		json_t *object;

		omerta_set_bin(piece, "data", data, len);
		omerta_set_u64(piece, "offset", out->at);
		object = om_cli_json(piece);
		(void)json_object_set_new(object, "job", json_string(out->id));
		(void)json_object_set_new(object, out->file != NULL ? "file" : "stream",
					  json_string(out->file != NULL ? out->file : out->stream));
		om_cli_print_json(out->cli, "output.data", object);
		omerta_body_free(piece);
	} else if (fwrite(data, 1, len, out->to) != len || fflush(out->to) != 0) {
		return -1;
	}
	out->at += len;
	return 0;
}

/*
 * --to PATH: a file that is there is gone on with.  Nothing in it says whose output it is, and a job may
 * have begun another attempt since: its end is asked for again, and compared.
 */
static bool
output_open(struct om_cli *cli, struct output *out, uint64_t *offset)
{
	const char *path = om_cli_opt(cli, "to");
	struct stat st;

	out->to = cli->out;
	if (path == NULL) {
		return true;
	}
	out->to = fopen(path, "a+be");
	if (out->to == NULL || fstat(fileno(out->to), &st) != 0) {
		(void)om_cli_usage(cli, "--to %s: %s", path, strerror(errno));
		return false;
	}
	if (om_cli_opt(cli, "offset") == NULL) {
		out->check = st.st_size < OUTPUT_OVERLAP ? (uint64_t)st.st_size : OUTPUT_OVERLAP;
		*offset = (uint64_t)st.st_size - out->check;
	}
	return true;
}

static bool
output_offset(struct om_cli *cli, uint64_t *offset)
{
	struct omerta_body *query = omerta_body_new("job.output");
	bool ok = om_cli_take_u64(cli, "offset", query, "offset", INT64_MAX);

	*offset = omerta_get_u64(query, "offset");
	omerta_body_free(query);
	return ok;
}

static int
output_run(struct output *out, bool follow, uint64_t offset)
{
	struct omerta *o = out->cli->o;
	int rc;

	out->at = offset;
	rc = out->file != NULL
		 ? omerta_file(o, out->id, out->file, &offset, output_take, out)
		 : omerta_output(o, out->id, out->stream, follow, &offset, output_take, out);
	if (rc == 0 && out->check > 0) {
		out->other = true; /* the job has less than the file */
	}
	return rc;
}

int
om_cli_output(struct om_cli *cli)
{
	struct output out = { .cli = cli, .id = cli->operands[0], .file = om_cli_opt(cli, "file") };
	bool follow = om_cli_opt(cli, "follow") != NULL;
	uint64_t offset;
	int rc, status = OM_EXIT_OK;

	out.stream = om_cli_opt(cli, "stderr") != NULL ? "stderr" : "stdout";
	if (!output_offset(cli, &offset) || !output_open(cli, &out, &offset)) {
		return OM_EXIT_USAGE;
	}
	rc = output_run(&out, follow, offset);
	if (out.other) {
		rc = output_restart(&out, "the file holds something else: it is written anew");
		rc = rc == 0 ? output_run(&out, follow, 0) : -1;
	}
	if (rc != 0) {
		status = om_cli_fail(cli);
	}
	if (out.to != cli->out && fclose(out.to) != 0) {
		(void)fprintf(cli->err, "%s: %s\n", cli->program, strerror(errno));
		status = OM_EXIT_FAILURE;
	}
	return status;
}

/* --- wait ------------------------------------------------------------------------------------------ */

/* Until the job's state is another than `from`; a requester's way to hear of an approval. */
static int
wait_change(struct om_cli *cli, const char *id, const char *from, int64_t timeout_ms)
{
	struct omerta_body *info = NULL;
	int status = OM_EXIT_OK;

	if (omerta_wait_change(cli->o, id, from, timeout_ms, &info) != 0) {
		return om_cli_fail(cli);
	}
	if (omerta_state_is_final(omerta_get_str(info, "state"))) {
		status = om_cli_exit_of_job(info);
	}
	if (cli->json) {
		om_cli_print_body(cli, "job.info", info);
	} else if (om_cli_opt(cli, "quiet") == NULL) {
		om_cli_summary(cli, cli->out, cli->out_tty, info);
	}
	omerta_body_free(info);
	return status;
}

int
om_cli_wait(struct om_cli *cli)
{
	const char *from = om_cli_opt(cli, "from");
	bool follow = om_cli_opt(cli, "follow") != NULL;
	bool quiet = om_cli_opt(cli, "quiet") != NULL || cli->json;
	struct om_cli_follow how = {
		.out = follow, .err = follow, .progress = !quiet, .timeout_ms = OMERTA_FOREVER
	};
	char array[OMERTA_ID_SIZE];
	int status = OM_EXIT_OK, one;

	if (!om_cli_take_ms(cli, "timeout", &how.timeout_ms)) {
		return OM_EXIT_USAGE;
	}
	for (size_t i = 0; i < cli->operand_count; i++) {
		struct omerta_body *info = NULL;

		how.id = cli->operands[i];
		if (from != NULL) {
			one = wait_change(cli, how.id, from, how.timeout_ms);
		} else if (om_cli_follow(cli, &how, &info) == 0) {
			if (cli->json) {
				om_cli_print_body(cli, "job.info", info);
			} else if (!quiet) {
				om_cli_summary(cli, cli->err, cli->err_tty, info);
			}
			one = om_cli_exit_of_job(info);
		} else if (om_cli_array_named(cli, array) != NULL) {
			one = om_cli_array_wait(cli, array, quiet, how.timeout_ms);
		} else {
			one = om_cli_fail(cli); /* of this one; without an answer of all */
			i = cli->o->answered ? i : cli->operand_count;
		}
		status = status == OM_EXIT_OK ? one : status; /* the first that is not 0 */
		omerta_body_free(info);
	}
	return status;
}

/* --- cancel, hold, release -------------------------------------------------------------------------- */

static void
cancel_fill(struct om_cli *cli, struct omerta_body *query)
{
	static const char *const texts[] = { "reason", "state", "peer", "level" };
	int64_t grace_ms = -1;

	for (size_t i = 0; i < OM_COUNT(texts); i++) {
		om_cli_take_str(cli, texts[i], query, texts[i]);
	}
	if (om_cli_take_ms(cli, "grace", &grace_ms) && grace_ms >= 0) {
		omerta_set_u64(query, "grace_ms", (uint64_t)grace_ms);
	}
}

int
om_cli_cancel(struct om_cli *cli)
{
	bool bulk = om_cli_opt(cli, "state") != NULL || om_cli_opt(cli, "peer") != NULL ||
		    om_cli_opt(cli, "level") != NULL;
	int64_t grace_ms = -1;

	if (!om_cli_take_ms(cli, "grace", &grace_ms)) {
		return OM_EXIT_USAGE;
	}
	if (bulk == (cli->operand_count > 0)) {
		return om_cli_usage(cli, bulk ? "ids, or --state, --peer, --level; not both"
					      : "which jobs?");
	}
	return om_cli_refs(cli,
			   &(struct om_cli_refs){ "job.cancel", "cancelled", cancel_fill, false });
}
