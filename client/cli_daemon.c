/* SPDX-License-Identifier: ISC */
/* The verbs about the daemon: status, queue, approval, top, events, stop. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "client/cli_impl.h"

#define TOP_JOBS 20

static uint64_t
daemon_now_ms(void)
{
	return (uint64_t)(om_wall_now().ns / OM_NS_PER_MS);
}

/* --- status ---------------------------------------------------------------------------------------- */

static void
status_today(struct om_cli *cli, const struct omerta_body *status)
{
	const char *state, *count;
	bool any = false;

	for (size_t i = 0; omerta_pair_at(status, "today", i, &state, &count); i++) {
		(void)fprintf(cli->out, "%s", any ? ", " : "   today: ");
		om_cli_clean(cli->out, count);
		(void)fputc(' ', cli->out);
		om_cli_clean(cli->out, state);
		any = true;
	}
}

static void
status_line(struct om_cli *cli, const struct omerta_body *status)
{
	const struct omerta_body *queue = omerta_body_at(status, "queue", 0);
	char text[OM_CLI_TEXT];

	om_cli_clean(cli->out, strcmp(omerta_get_str(status, "state"), "ready") == 0
				   ? "running"
				   : omerta_get_str(status, "state"));
	(void)fprintf(cli->out, " %s",
		      om_cli_span((int64_t)omerta_get_u64(status, "uptime_ms"), text));
	if (queue != NULL) {
		(void)fprintf(cli->out, "   queue: %" PRIu64 " running, %" PRIu64 " queued",
			      omerta_get_u64(queue, "running"), omerta_get_u64(queue, "queued"));
	}
	if (omerta_get_u64(status, "pending") > 0) {
		(void)fprintf(cli->out, ", %" PRIu64 " waiting for approval",
			      omerta_get_u64(status, "pending"));
	}
	if (queue != NULL && omerta_get_bool(queue, "paused")) {
		(void)fprintf(cli->out, ", %spaused%s",
			      om_cli_paint(cli, cli->out_tty, OM_CLI_YELLOW),
			      om_cli_paint(cli, cli->out_tty, OM_CLI_PLAIN));
	}
	if (queue != NULL && omerta_get_bool(queue, "draining")) {
		(void)fprintf(cli->out, ", %sdraining%s",
			      om_cli_paint(cli, cli->out_tty, OM_CLI_YELLOW),
			      om_cli_paint(cli, cli->out_tty, OM_CLI_PLAIN));
	}
	status_today(cli, status);
	(void)fputc('\n', cli->out);
}

static void
queue_stands(struct om_cli *cli, const struct omerta_body *q, const char *flag, const char *head,
	     const char *field)
{
	const char *reason = omerta_get_str(q, field);

	if (omerta_get_bool(q, flag)) {
		(void)fputs(head, cli->out);
		om_cli_clean(cli->out,
			     reason != NULL && *reason != '\0' ? reason : "no reason given");
		(void)fputc('\n', cli->out);
	}
}

static void
queue_print(struct om_cli *cli, const struct omerta_body *q)
{
	(void)fprintf(cli->out,
		      "queue     %" PRIu64 " queued, %" PRIu64 " held, %" PRIu64
		      " running of %" PRIu64 "\n",
		      omerta_get_u64(q, "queued"), omerta_get_u64(q, "held"),
		      omerta_get_u64(q, "running"), omerta_get_u64(q, "max_jobs"));
	queue_stands(cli, q, "paused", "paused    ", "pause_reason");
	queue_stands(cli, q, "draining", "draining  ", "drain_reason");
	(void)fprintf(cli->out,
		      "total     %" PRIu64 " queued, %" PRIu64 " completed, %" PRIu64
		      " failed, %" PRIu64 " cancelled, %.1f %% success\n",
		      omerta_get_u64(q, "total_queued"), omerta_get_u64(q, "total_completed"),
		      omerta_get_u64(q, "total_failed"), omerta_get_u64(q, "total_cancelled"),
		      omerta_get_f64(q, "success_rate") * 100);
	if (omerta_has(q, "cores_total")) {
		(void)fprintf(
		    cli->out,
		    "in use    %" PRIu64 " of %" PRIu64 " cores, %" PRIu64 " of %" PRIu64 " MiB\n",
		    omerta_get_u64(q, "cores_used"), omerta_get_u64(q, "cores_total"),
		    omerta_get_u64(q, "mem_mib_used"), omerta_get_u64(q, "mem_mib_total"));
	}
	for (size_t i = 0; i < omerta_count(q, "waiting_reasons"); i++) {
		(void)fprintf(cli->out, "%s", i == 0 ? "waiting   " : "          ");
		om_cli_clean(cli->out, omerta_str_at(q, "waiting_reasons", i));
		(void)fputc('\n', cli->out);
	}
}

static void
filter_print(struct om_cli *cli, const struct omerta_body *f)
{
	(void)fprintf(cli->out,
		      "filter    %" PRIu64 " evaluated: %" PRIu64 " accepted, %" PRIu64
		      " rejected, %" PRIu64 " held; %" PRIu64 " of %" PRIu64 " rules in force\n",
		      omerta_get_u64(f, "evaluated"), omerta_get_u64(f, "accepted"),
		      omerta_get_u64(f, "rejected"), omerta_get_u64(f, "pending_approval"),
		      omerta_get_u64(f, "active_rules"), omerta_get_u64(f, "total_rules"));
}

static void
status_print(struct om_cli *cli, const struct omerta_body *status)
{
	const char *accelerator = omerta_get_str(status, "accelerator");
	const char *wireguard = omerta_get_str(status, "wireguard");

	status_line(cli, status);
	if (om_cli_opt(cli, "detailed") == NULL) {
		return;
	}
	(void)fputs("version   ", cli->out);
	om_cli_clean(cli->out, omerta_get_str(status, "version"));
	(void)fprintf(cli->out, ", pid %" PRIu64 ", %s, WireGuard %s\n",
		      omerta_get_u64(status, "pid"),
		      accelerator != NULL ? accelerator : "no accelerator told",
		      wireguard != NULL ? wireguard : "not told");
	for (size_t i = 0; i < omerta_count(status, "endpoints"); i++) {
		(void)fputs("listens   ", cli->out);
		om_cli_clean(cli->out, omerta_str_at(status, "endpoints", i));
		(void)fputc('\n', cli->out);
	}
	if (omerta_has(status, "queue")) {
		queue_print(cli, omerta_body_at(status, "queue", 0));
	}
	if (omerta_has(status, "filter")) {
		filter_print(cli, omerta_body_at(status, "filter", 0));
	}
}

int
om_cli_status(struct om_cli *cli)
{
	struct omerta_body *status = NULL;
	int rc = omerta_status(cli->o, &status);

	return om_cli_answer(cli, rc, "daemon.state", status, status_print);
}

int
om_cli_ping(struct om_cli *cli)
{
	int64_t start = om_client_now_ms();
	int rc = omerta_ping(cli->o);

	return om_cli_done(cli, rc, "%s answers, %lld ms", cli->o->endpoint,
			   (long long)(om_client_now_ms() - start));
}

int
om_cli_stop(struct om_cli *cli)
{
	int64_t timeout_ms = 0;
	int rc;

	if (!om_cli_take_ms(cli, "timeout", &timeout_ms)) {
		return OM_EXIT_USAGE;
	}
	rc = omerta_stop(cli->o, om_cli_opt(cli, "now") != NULL, timeout_ms,
			 om_cli_opt(cli, "reason"));
	return om_cli_done(cli, rc, "the daemon drains and ends");
}

/* --- the queue ------------------------------------------------------------------------------------- */

int
om_cli_queue(struct om_cli *cli)
{
	struct omerta_body *stats = NULL;
	int rc = omerta_queue_stats(cli->o, &stats);

	return om_cli_answer(cli, rc, "queue.state", stats, queue_print);
}

int
om_cli_pause(struct om_cli *cli)
{
	int rc = omerta_queue_pause(cli->o, cli->operand_count > 0 ? cli->operands[0] : NULL);

	return om_cli_done(cli, rc, "paused: no more jobs start");
}

int
om_cli_drain(struct om_cli *cli)
{
	const char *reason = om_cli_opt(cli, "reason");

	if (reason == NULL && cli->operand_count > 0) {
		reason = cli->operands[0];
	}
	return om_cli_done(cli, omerta_queue_drain(cli->o, reason),
			   "draining: no new jobs are taken");
}

int
om_cli_resume(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_queue_resume(cli->o), "resumed");
}

int
om_cli_limit(struct om_cli *cli)
{
	char *end;
	unsigned long long n = strtoull(cli->operands[0], &end, 10);

	if (cli->operands[0][0] < '0' || cli->operands[0][0] > '9' || *end != '\0' || n < 1 ||
	    n > 10000) {
		return om_cli_usage(cli, "\"%s\" is no number from 1 to 10000", cli->operands[0]);
	}
	return om_cli_done(cli, omerta_queue_limit(cli->o, n), "at most %llu jobs at a time", n);
}

/* --- approval -------------------------------------------------------------------------------------- */

static void
pending_row(struct om_cli *cli, struct om_cli_table *t, const struct omerta_body *job)
{
	char id[OMERTA_ID_SIZE], text[OM_CLI_TEXT], wants[2 * OM_CLI_TEXT];
	uint64_t now = daemon_now_ms(), expires = omerta_get_u64(job, "expires_ms");

	om_cli_cell(t, om_cli_short_id(cli, omerta_get_str(job, "job"), id));
	om_cli_cell(t, omerta_get_str(job, "peer"));
	om_cli_cell(t, omerta_get_str(job, "network_id"));
	(void)snprintf(wants, sizeof(wants), "%" PRIu64 " core%s %" PRIu64 " MiB %s",
		       omerta_get_u64(job, "cores"), omerta_get_u64(job, "cores") == 1 ? "" : "s",
		       omerta_get_u64(job, "mem_mib"),
		       om_cli_span((int64_t)omerta_get_u64(job, "runtime_s") * 1000, text));
	om_cli_cell(t, wants);
	om_cli_cell(t, omerta_get_str(job, "text"));
	om_cli_cell(t, omerta_get_str(job, "activity"));
	if (expires > now) {
		(void)snprintf(wants, sizeof(wants), "in %s",
			       om_cli_span((int64_t)(expires - now), text));
	}
	om_cli_cell(t, expires > now ? wants : NULL);
}

static int
daemon_list(struct om_cli *cli, const char *const *states, size_t count, uint64_t limit,
	    struct om_cli_rows *rows)
{
	struct omerta_body *query = omerta_body_new("job.list");
	int rc;

	for (size_t i = 0; i < count; i++) {
		omerta_add_str(query, "states", states[i]);
	}
	rc = om_cli_list_pages(cli, query, limit, rows);
	omerta_body_free(query);
	return rc;
}

int
om_cli_pending(struct om_cli *cli)
{
	static const char *const states[] = { "pending_approval" };
	struct om_cli_table t = { .headers = { "JOB", "FROM", "NETWORK", "WANTS", "WHY HELD",
					       "ABOUT", "EXPIRES" },
				  .columns = 7,
				  .state = SIZE_MAX };
	struct om_cli_rows rows = { .table = &t,
				    .row = pending_row,
				    .json = cli->json ? json_array() : NULL };
	int rc = daemon_list(cli, states, 1, UINT64_MAX, &rows);

	return om_cli_list_answer(cli, rc, &rows, "no jobs wait for approval");
}

static void
approve_fill(struct om_cli *cli, struct omerta_body *query)
{
	om_cli_take_str(cli, "always", query, "trust");
}

int
om_cli_approve(struct om_cli *cli)
{
	const char *trust = om_cli_opt(cli, "always");

	if (trust != NULL && strcmp(trust, "peer") != 0 && strcmp(trust, "network") != 0) {
		return om_cli_usage(cli, "--always=peer or --always=network, not \"%s\"", trust);
	}
	return om_cli_refs(cli,
			   &(struct om_cli_refs){ "job.approve", "approved", approve_fill, true });
}

static void
deny_fill(struct om_cli *cli, struct omerta_body *query)
{
	om_cli_take_str(cli, "reason", query, "reason");
}

int
om_cli_deny(struct om_cli *cli)
{
	return om_cli_refs(cli, &(struct om_cli_refs){ "job.deny", "denied", deny_fill, true });
}

/* --- top ------------------------------------------------------------------------------------------- */

static void
actors_print(struct om_cli *cli, const struct omerta_body *table)
{
	static const char *const fields[] = { "depth", "high_water", "handled", "dropped" };
	struct om_cli_table t = { .headers = { "ACTOR", "DEPTH", "HIGHEST", "HANDLED", "DROPPED",
					       "BUSY" },
				  .columns = 6,
				  .right = 0x3e,
				  .state = SIZE_MAX };
	char text[OM_CLI_TEXT];

	for (size_t i = 0; i < omerta_count(table, "actors"); i++) {
		const struct omerta_body *actor = omerta_body_at(table, "actors", i);

		om_cli_cell(&t, omerta_get_str(actor, "name"));
		for (size_t f = 0; f < OM_COUNT(fields); f++) {
			(void)snprintf(text, sizeof(text), "%" PRIu64,
				       omerta_get_u64(actor, fields[f]));
			om_cli_cell(&t, text);
		}
		om_cli_cell(&t,
			    om_cli_span((int64_t)(omerta_get_u64(actor, "busy_us") / 1000), text));
	}
	if (t.count > 0) {
		om_cli_table_print(cli, &t);
	}
}

int
om_cli_actors(struct om_cli *cli)
{
	struct omerta_body *table = NULL;
	int rc = omerta_actors(cli->o, &table);

	return om_cli_answer(cli, rc, "actor.table", table, actors_print);
}

static void
trace_print(struct om_cli *cli, const struct omerta_body *lines)
{
	if (cli->operand_count == 0 || om_cli_opt(cli, "dump") != NULL) {
		(void)fputs(omerta_get_str(lines, "text"), cli->out);
	}
}

int
om_cli_trace(struct om_cli *cli)
{
	const char *actor = cli->operand_count > 0 ? cli->operands[0] : NULL;
	bool off = om_cli_opt(cli, "off") != NULL;
	struct omerta_body *lines = NULL;
	int rc;

	if (off && actor == NULL) {
		return om_cli_usage(cli, "--off needs the name of an actor or the id of a job");
	}
	rc = omerta_trace(cli->o, actor, off, &lines);
	return om_cli_answer(cli, rc, "trace.text", lines, trace_print);
}

static void
metrics_print(struct om_cli *cli, const struct omerta_body *metrics)
{
	(void)fputs(omerta_get_str(metrics, "text"), cli->out);
}

int
om_cli_metrics(struct om_cli *cli)
{
	struct omerta_body *metrics = NULL;
	int rc = omerta_metrics(cli->o, &metrics);

	return om_cli_answer(cli, rc, "metrics.text", metrics, metrics_print);
}

static void
top_tunnel(struct om_cli_table *t, const struct omerta_body *job)
{
	char in[OM_CLI_TEXT], out[OM_CLI_TEXT], age[OM_CLI_TEXT], all[3 * OM_CLI_TEXT + 16];
	int n;

	n = snprintf(all, sizeof(all), "%s / %s", om_cli_bytes(omerta_get_u64(job, "rx_bytes"), in),
		     om_cli_bytes(omerta_get_u64(job, "tx_bytes"), out));
	if (omerta_has(job, "handshake_age_ms")) {
		(void)snprintf(all + n, sizeof(all) - (size_t)n, " (%s)",
			       om_cli_span((int64_t)omerta_get_u64(job, "handshake_age_ms"), age));
	}
	om_cli_cell(
	    t, omerta_get_u64(job, "rx_bytes") + omerta_get_u64(job, "tx_bytes") > 0 ? all : NULL);
}

static void
top_row(struct om_cli *cli, struct om_cli_table *t, const struct omerta_body *job)
{
	uint64_t now = daemon_now_ms(), since = omerta_get_u64(job, "running_ms");
	char text[OM_CLI_TEXT], id[OMERTA_ID_SIZE];

	om_cli_cell(t, om_cli_short_id(cli, omerta_get_str(job, "job"), id));
	om_cli_cell(t, omerta_get_str(job, "state"));
	om_cli_cell(t, omerta_get_str(job, "level"));
	om_cli_cell(t, omerta_get_str(job, "peer"));
	(void)snprintf(text, sizeof(text), "%" PRIu64, omerta_get_u64(job, "cores"));
	om_cli_cell(t, text);
	(void)snprintf(text, sizeof(text), "%" PRIu64, omerta_get_u64(job, "mem_mib"));
	om_cli_cell(t, text);
	since = since != 0 ? since : omerta_get_u64(job, "started_ms");
	since = since != 0 ? since : omerta_get_u64(job, "submitted_ms");
	om_cli_cell(t, om_cli_clock(now > since ? (int64_t)(now - since) : 0, text));
	top_tunnel(t, job);
	om_cli_cell(t, omerta_get_str(job, "activity"));
}

/* Those that run first: however many wait, they are what the machine does. */
static int
top_jobs(struct om_cli *cli, struct om_cli_rows *rows)
{
	static const char *const running[] = { "running", "provisioning" };
	static const char *const waiting[] = { "queued" };

	if (daemon_list(cli, running, OM_COUNT(running), TOP_JOBS, rows) != 0) {
		return -1;
	}
	rows->next[0] = '\0';
	return rows->count == TOP_JOBS ? 0 : daemon_list(cli, waiting, 1, TOP_JOBS, rows);
}

/* One member of an object that is then dropped. */
static json_t *
top_take(json_t *object, const char *key)
{
	json_t *value = json_incref(json_object_get(object, key));

	json_decref(object);
	return value;
}

static void
top_print(struct om_cli *cli, const struct omerta_body *status, struct om_cli_table *jobs,
	  const struct omerta_body *actors)
{
	status_line(cli, status);
	(void)fputc('\n', cli->out);
	if (jobs->count > 0) {
		om_cli_table_print(cli, jobs);
	} else {
		(void)fputs("no jobs run or wait\n", cli->out);
	}
	(void)fputc('\n', cli->out);
	actors_print(cli, actors);
}

/* One picture: status, jobs that run or wait, actors. */
int
om_cli_top(struct om_cli *cli)
{
	struct om_cli_table t = { .headers = { "JOB", "STATE", "LEVEL", "FROM", "CORES", "MIB",
					       "TIME", "TUNNEL IN/OUT (HANDSHAKE)", "ABOUT" },
				  .columns = 9,
				  .right = 0x70,
				  .state = 1 };
	struct om_cli_rows rows = { .table = &t,
				    .row = top_row,
				    .json = cli->json ? json_array() : NULL };
	struct omerta_body *status = NULL, *actors = NULL;
	int result = OM_EXIT_OK;

	if (omerta_status(cli->o, &status) != 0 || top_jobs(cli, &rows) != 0 ||
	    omerta_actors(cli->o, &actors) != 0) {
		result = om_cli_fail(cli);
	} else if (cli->json) {
		om_cli_print_json(cli, "top",
				  json_pack("{s:o, s:O, s:o}", "status", om_cli_json(status),
					    "jobs", rows.json, "actors",
					    top_take(om_cli_json(actors), "actors")));
	} else {
		top_print(cli, status, &t, actors);
	}
	json_decref(rows.json);
	om_arena_fini(&t.arena);
	free(t.cells);
	omerta_body_free(status);
	omerta_body_free(actors);
	return result;
}

/* --- events ---------------------------------------------------------------------------------------- */

static void
events_print(struct om_cli *cli, const struct omerta_body *event)
{
	const char *state = omerta_get_str(event, "state"), *text = omerta_get_str(event, "text");
	char when[OM_CLI_TEXT], id[OMERTA_ID_SIZE];

	(void)fprintf(cli->out, "%s  ", om_cli_when(omerta_get_u64(event, "at_ms"), when));
	om_cli_clean(cli->out, om_cli_short_id(cli, omerta_get_str(event, "job"), id));
	(void)fprintf(cli->out, "  %s",
		      om_cli_paint(cli, cli->out_tty, om_cli_state_colour(state)));
	om_cli_clean(cli->out, state);
	(void)fputs(om_cli_paint(cli, cli->out_tty, OM_CLI_PLAIN), cli->out);
	if (text != NULL && text[0] != '\0') {
		(void)fputs("  ", cli->out);
		om_cli_clean(cli->out, text);
	}
	(void)fputc('\n', cli->out);
	(void)fflush(cli->out);
}

int
om_cli_events(struct om_cli *cli)
{
	struct omerta_body *args = omerta_body_new("audit.list"); /* a place for --count */
	const char *job = om_cli_opt(cli, "job");
	struct omerta_events *events = NULL;
	uint64_t left = UINT64_MAX;
	int rc = 0, status = OM_EXIT_USAGE;

	if (!om_cli_take_u64(cli, "count", args, "limit", INT64_MAX)) {
		goto out;
	}
	left = omerta_has(args, "limit") ? omerta_get_u64(args, "limit") : UINT64_MAX;
	events = omerta_events_new(cli->o, om_cli_opt(cli, "events-endpoint"));
	if (events == NULL) {
		status = om_cli_fail(cli);
		goto out;
	}
	while (rc >= 0 && left > 0) {
		struct omerta_body *event = NULL;

		rc = omerta_events_next(events, OMERTA_FOREVER, &event);
		if (rc == 0 &&
		    (job == NULL || strncmp(omerta_get_str(event, "job"), job, strlen(job)) == 0)) {
			left--;
			if (cli->json) {
				om_cli_print_body(cli, "job.event", event);
			} else {
				events_print(cli, event);
			}
		}
		omerta_body_free(event);
	}
	status = rc < 0 ? om_cli_fail(cli) : OM_EXIT_OK;
out:
	omerta_events_free(events);
	omerta_body_free(args);
	return status;
}
