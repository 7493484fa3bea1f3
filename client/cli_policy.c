/* SPDX-License-Identifier: ISC */
/* The verbs about policy: rules, filter, audit. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "base/parse.h"
#include "client/cli_impl.h"

#define JOB_FILE_MAX  65536
#define AUDIT_PAGE    1000
#define AUDIT_STEP_MS 500

/* --- rules ----------------------------------------------------------------------------------------- */

/* "file", "live", or "file (enabled, settings changed)". */
static void
rule_origin(const struct omerta_body *rule, struct om_buf *out)
{
	size_t n = omerta_count(rule, "changed");

	if (omerta_has(rule, "origin")) {
		om_buf_add_str(out, omerta_get_str(rule, "origin"));
	}
	for (size_t i = 0; i < n; i++) {
		om_buf_printf(out, "%s%s%s", i == 0 ? " (" : ", ",
			      omerta_str_at(rule, "changed", i), i + 1 == n ? " changed)" : "");
	}
}

static void
rules_print(struct om_cli *cli, const struct omerta_body *table)
{
	struct om_cli_table t = { .headers = { "RULE", "KIND", "PRIORITY", "ENABLED", "HITS",
					       "ORIGIN", "SETTINGS" },
				  .columns = 7,
				  .right = 1u << 2 | 1u << 4,
				  .state = SIZE_MAX };
	char text[OM_CLI_TEXT];

	for (size_t i = 0; i < omerta_count(table, "rules"); i++) {
		const struct omerta_body *rule = omerta_body_at(table, "rules", i);
		struct om_buf settings = { 0 }, origin = { 0 };
		const char *key, *value;

		om_cli_cell(&t, omerta_get_str(rule, "name"));
		om_cli_cell(&t, omerta_get_str(rule, "kind"));
		(void)snprintf(text, sizeof(text), "%" PRIu64, omerta_get_u64(rule, "priority"));
		om_cli_cell(&t, text);
		om_cli_cell(&t, !omerta_has(rule, "enabled") || omerta_get_bool(rule, "enabled")
				    ? "yes"
				    : "no");
		(void)snprintf(text, sizeof(text), "%" PRIu64, omerta_get_u64(rule, "hits"));
		om_cli_cell(&t, text);
		rule_origin(rule, &origin);
		om_cli_cell(&t, om_buf_cstr(&origin));
		om_buf_fini(&origin);
		for (size_t k = 0; omerta_pair_at(rule, "settings", k, &key, &value); k++) {
			om_buf_printf(&settings, "%s%s=%s", k == 0 ? "" : " ", key, value);
		}
		om_cli_cell(&t, om_buf_cstr(&settings));
		om_buf_fini(&settings);
	}
	if (t.count > 0) {
		om_cli_table_print(cli, &t);
	} else if (cli->out_tty) {
		(void)fputs("no rules\n", cli->out);
	}
	for (size_t i = 0; i < omerta_count(table, "removed"); i++) {
		(void)fputs("removed live, in the files: ", cli->out);
		om_cli_clean(cli->out, omerta_str_at(table, "removed", i));
		(void)fputc('\n', cli->out);
	}
}

int
om_cli_rules(struct om_cli *cli)
{
	struct omerta_body *table = NULL;
	int rc = omerta_rules(cli->o, &table);

	return om_cli_answer(cli, rc, "rule.table", table, rules_print);
}

static bool
rule_settings(struct om_cli *cli, struct omerta_body *rule)
{
	for (size_t i = 1; i < cli->operand_count; i++) {
		char *equals = strchr(cli->operands[i], '=');

		if (equals == NULL || equals == cli->operands[i]) {
			(void)om_cli_usage(cli, "\"%s\" is not KEY=VALUE", cli->operands[i]);
			return false;
		}
		*equals = '\0';
		omerta_add_pair(rule, "settings", cli->operands[i], equals + 1);
		*equals = '=';
	}
	return true;
}

static int
rule_send(struct om_cli *cli, int (*send)(struct omerta *, const struct omerta_body *),
	  const char *what)
{
	struct omerta_body *rule = omerta_body_new("rules.add");
	int status = OM_EXIT_USAGE;

	omerta_set_str(rule, "name", cli->operands[0]);
	om_cli_take_str(cli, "kind", rule, "kind");
	if (om_cli_opt(cli, "kind") == NULL) {
		(void)om_cli_usage(cli, "which --kind of rule?");
	} else if (om_cli_take_u64(cli, "priority", rule, "priority", 1000) &&
		   rule_settings(cli, rule)) {
		omerta_set_bool(rule, "enabled", om_cli_opt(cli, "disabled") == NULL);
		status = om_cli_done(cli, send(cli->o, rule), "rule %s %s", cli->operands[0], what);
	}
	omerta_body_free(rule);
	return status;
}

int
om_cli_rule_add(struct om_cli *cli)
{
	return rule_send(cli, omerta_rule_add, "added");
}

int
om_cli_rule_change(struct om_cli *cli)
{
	return rule_send(cli, omerta_rule_change, "changed");
}

int
om_cli_rule_remove(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_rule_remove(cli->o, cli->operands[0]), "rule %s removed",
			   cli->operands[0]);
}

int
om_cli_rule_enable(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_rule_enable(cli->o, cli->operands[0], true),
			   "rule %s is in force", cli->operands[0]);
}

int
om_cli_rule_disable(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_rule_enable(cli->o, cli->operands[0], false),
			   "rule %s is not in force", cli->operands[0]);
}

/* --- rules test ------------------------------------------------------------------------------------ */

/* One "key = value" of a job file, with the names of submit's options or of the protocol. */
static bool
test_setting(struct om_cli *cli, struct omerta_body *request, struct om_str key,
	     struct om_str value)
{
	static const char *const names[][2] = { { "memory", "mem_mib" },
						{ "disk", "disk_mib" },
						{ "timeout", "runtime_s" },
						{ "network", "network_id" },
						{ "from", "peer" } };
	char name[64], text[1025];
	uint64_t n;
	bool flag;

	if (om_str_copy(key, name, sizeof(name)) != OM_OK ||
	    om_str_copy(value, text, sizeof(text)) != OM_OK) {
		(void)om_cli_usage(cli, "a line of the job file is too long");
		return false;
	}
	for (size_t i = 0; i < OM_COUNT(names); i++) {
		if (strcmp(name, names[i][0]) == 0) {
			(void)snprintf(name, sizeof(name), "%s", names[i][1]);
		}
	}
	if (strcmp(name, "runtime_s") == 0 && om_parse_ms(value, &n) == OM_OK) {
		omerta_set_u64(request, name, (n + 999) / 1000);
	} else if ((strcmp(name, "mem_mib") == 0 || strcmp(name, "disk_mib") == 0) &&
		   om_parse_mib(value, &n) == OM_OK) {
		omerta_set_u64(request, name, n);
	} else if (strcmp(name, "cores") == 0 && om_parse_u64(value, 0, 1024, &n) == OM_OK) {
		omerta_set_u64(request, name, n);
	} else if (strcmp(name, "gpu") == 0 && om_parse_bool(value, &flag) == OM_OK) {
		omerta_set_bool(request, name, flag);
	} else if (strcmp(name, "peer") == 0 || strcmp(name, "network_id") == 0 ||
		   strcmp(name, "activity") == 0) {
		omerta_set_str(request, name, text);
	} else {
		(void)om_cli_usage(cli, "the job file: \"%s = %s\" makes no sense", name, text);
		return false;
	}
	return true;
}

static bool
test_file(struct om_cli *cli, struct omerta_body *request, const char *path)
{
	char text[JOB_FILE_MAX];
	struct om_str rest = { text, 0 }, line, key;
	FILE *in = fopen(path, "re");

	if (in == NULL) {
		(void)om_cli_usage(cli, "%s: %s", path, strerror(errno));
		return false;
	}
	rest.len = fread(text, 1, sizeof(text), in);
	(void)fclose(in);
	while (om_str_next(&rest, '\n', &line)) {
		line = om_str_trim(line);
		if (line.len == 0 || line.ptr[0] == '#' || line.ptr[0] == ';' ||
		    line.ptr[0] == '[') {
			continue;
		}
		(void)om_str_next(&line, '=', &key);
		if (!test_setting(cli, request, om_str_trim(key), om_str_trim(line))) {
			return false;
		}
	}
	return true;
}

static void
test_print(struct om_cli *cli, const struct omerta_body *decision)
{
	const char *text = omerta_get_str(decision, "text");
	const char *level = omerta_get_str(decision, "level");
	struct om_cli_table t = { .headers = { "STEP", "PRIORITY", "OUTCOME", "WHY" },
				  .columns = 4,
				  .right = 1u << 1,
				  .state = SIZE_MAX };
	char number[OM_CLI_TEXT];

	for (size_t i = 0; i < omerta_count(decision, "trace"); i++) {
		const struct omerta_body *step = omerta_body_at(decision, "trace", i);

		om_cli_cell(&t, omerta_get_str(step, "name"));
		(void)snprintf(number, sizeof(number), "%" PRIu64,
			       omerta_get_u64(step, "priority"));
		om_cli_cell(&t, omerta_has(step, "priority") ? number : NULL);
		om_cli_cell(&t, omerta_get_str(step, "outcome"));
		om_cli_cell(&t, omerta_get_str(step, "text"));
	}
	if (t.count > 0) {
		om_cli_table_print(cli, &t);
	}
	(void)fputs("=> ", cli->out);
	om_cli_clean(cli->out, omerta_get_str(decision, "verdict"));
	if (level != NULL) {
		(void)fputs(" at level ", cli->out);
		om_cli_clean(cli->out, level);
	}
	if (text != NULL) {
		(void)fputs(": ", cli->out);
		om_cli_clean(cli->out, text);
	}
	(void)fputc('\n', cli->out);
}

int
om_cli_rules_test(struct om_cli *cli)
{
	static const char *const options[] = { "peer", "network", "cores",   "memory",
					       "disk", "timeout", "activity" };
	struct omerta_body *request = omerta_body_new("rules.test"), *decision = NULL;
	int rc, status = OM_EXIT_USAGE;

	omerta_set_bool(request, "trace", true);
	if (cli->operand_count > 0 && !test_file(cli, request, cli->operands[0])) {
		goto out;
	}
	for (size_t i = 0; i < OM_COUNT(options); i++) {
		const char *value = om_cli_opt(cli, options[i]);

		if (value != NULL &&
		    !test_setting(cli, request, om_str_of(options[i]), om_str_of(value))) {
			goto out;
		}
	}
	if (om_cli_opt(cli, "gpu") != NULL) {
		omerta_set_bool(request, "gpu", true);
	}
	if (!omerta_has(request, "peer")) {
		(void)om_cli_usage(cli, "from whom? say --peer, or `peer = ...` in the file");
		goto out;
	}
	rc = omerta_rules_test(cli->o, request, &decision);
	status = om_cli_answer(cli, rc, "filter.decision", decision, test_print);
out:
	omerta_body_free(request);
	return status;
}

/* --- the filter's counters -------------------------------------------------------------------------- */

static void
filter_print(struct om_cli *cli, const struct omerta_body *f)
{
	(void)fprintf(
	    cli->out,
	    "evaluated  %" PRIu64 "\naccepted   %" PRIu64 " (%.1f %%)\nrejected   %" PRIu64
	    " (%.1f %%)\nheld       %" PRIu64 "\nrules      %" PRIu64 " in force of %" PRIu64 "\n",
	    omerta_get_u64(f, "evaluated"), omerta_get_u64(f, "accepted"),
	    omerta_get_f64(f, "acceptance_rate") * 100, omerta_get_u64(f, "rejected"),
	    omerta_get_f64(f, "rejection_rate") * 100, omerta_get_u64(f, "pending_approval"),
	    omerta_get_u64(f, "active_rules"), omerta_get_u64(f, "total_rules"));
}

int
om_cli_filter(struct om_cli *cli)
{
	struct omerta_body *stats = NULL;
	int rc = omerta_filter_stats(cli->o, &stats);

	return om_cli_answer(cli, rc, "filter.state", stats, filter_print);
}

int
om_cli_filter_reset(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_filter_reset(cli->o), "the filter's counters are 0");
}

/* --- audit ----------------------------------------------------------------------------------------- */

static void
audit_row(struct om_cli *cli, struct om_cli_table *t, const struct omerta_body *entry)
{
	char text[OM_CLI_TEXT], id[OMERTA_ID_SIZE];
	const char *job = omerta_get_str(entry, "job"), *details = omerta_get_str(entry, "details");

	(void)snprintf(text, sizeof(text), "%" PRIu64, omerta_get_u64(entry, "seq"));
	om_cli_cell(t, text);
	om_cli_cell(t, om_cli_when(omerta_get_u64(entry, "at_ms"), text));
	om_cli_cell(t, omerta_get_str(entry, "event"));
	om_cli_cell(t, job != NULL ? om_cli_short_id(cli, job, id) : NULL);
	om_cli_cell(t, omerta_get_str(entry, "peer"));
	om_cli_cell(t, details != NULL ? details : omerta_get_str(entry, "activity"));
}

/* Prints the entries and moves the query behind what was looked at. */
static size_t
audit_print(struct om_cli *cli, const struct omerta_body *table, struct omerta_body *query)
{
	struct om_cli_table t = { .headers = { "SEQ", "TIME", "EVENT", "JOB", "BY", "DETAILS" },
				  .columns = 6,
				  .right = 1,
				  .state = SIZE_MAX };
	size_t n = omerta_count(table, "entries");

	for (size_t i = 0; i < n; i++) {
		const struct omerta_body *entry = omerta_body_at(table, "entries", i);

		omerta_set_u64(query, "after_seq", omerta_get_u64(entry, "seq"));
		if (cli->json) {
			om_cli_print_body(cli, "audit.entry", entry);
		} else {
			audit_row(cli, &t, entry);
		}
	}
	if (omerta_has(table, "scanned")) {
		omerta_set_u64(query, "after_seq", omerta_get_u64(table, "scanned"));
	}
	if (t.count > 0) {
		om_cli_table_print(cli, &t);
		(void)fflush(cli->out);
		cli->headers = false; /* once, when more follow */
	}
	return n;
}

/*
 * JSON Lines, one entry a line: the trail is a stream.  At most `left` entries; page after page until
 * there are no more, and with follow until then and beyond.  A page without an entry is not the end when
 * it says that there is more: the daemon looks at so many at a time.
 */
static int
audit_run(struct om_cli *cli, struct omerta_body *query, uint64_t left, bool follow)
{
	bool more = true;
	size_t n;
	int rc = 0;

	omerta_set_bool(query, "follow", follow);
	while (rc == 0 && left > 0 && (more || follow)) {
		struct omerta_body *table = NULL;

		omerta_set_u64(query, "limit", left < AUDIT_PAGE ? left : AUDIT_PAGE);
		rc = follow
			 ? om_client_ask_long(cli->o, "audit.list", query, OMERTA_FOREVER, &table)
			 : omerta_audit(cli->o, query, &table);
		if (rc == 0) {
			n = audit_print(cli, table, query);
			left -= n < left ? n : left;
			more = n > 0 || omerta_get_bool(table, "more");
			if (!more && follow) {
				(void)poll(NULL, 0, AUDIT_STEP_MS);
			}
		}
		omerta_body_free(table);
	}
	return rc == 0 ? OM_EXIT_OK : om_cli_fail(cli);
}

int
om_cli_audit(struct om_cli *cli)
{
	struct omerta_body *query = omerta_body_new("audit.list");
	int64_t since_ms = -1;
	int status = OM_EXIT_USAGE;

	om_cli_take_str(cli, "job", query, "job");
	if (om_cli_take_time(cli, "since", false, &since_ms) &&
	    om_cli_take_u64(cli, "limit", query, "limit", INT64_MAX)) {
		if (since_ms >= 0) {
			omerta_set_u64(query, "since_ms", (uint64_t)since_ms);
		}
		status = audit_run(cli, query,
				   omerta_has(query, "limit") ? omerta_get_u64(query, "limit")
							      : UINT64_MAX,
				   om_cli_opt(cli, "follow") != NULL);
	}
	omerta_body_free(query);
	return status;
}

static void
verify_print(struct om_cli *cli, const struct omerta_body *report)
{
	char first[OM_CLI_TEXT], last[OM_CLI_TEXT];
	const char *text = omerta_get_str(report, "text");

	(void)fprintf(cli->out, "%" PRIu64 " entries, ", omerta_get_u64(report, "entries"));
	if (omerta_get_bool(report, "intact")) {
		(void)fprintf(cli->out, "chain intact");
		if (omerta_has(report, "first_ms")) {
			(void)fprintf(cli->out, ", first %s, last %s",
				      om_cli_when(omerta_get_u64(report, "first_ms"), first),
				      om_cli_when(omerta_get_u64(report, "last_ms"), last));
		}
	} else {
		(void)fprintf(cli->out, "%sBROKEN%s at entry %" PRIu64 ": ",
			      om_cli_paint(cli, cli->out_tty, OM_CLI_RED),
			      om_cli_paint(cli, cli->out_tty, OM_CLI_PLAIN),
			      omerta_get_u64(report, "bad_seq"));
		om_cli_clean(cli->out, text != NULL ? text : "it was changed");
	}
	(void)fputc('\n', cli->out);
}

int
om_cli_audit_verify(struct om_cli *cli)
{
	struct omerta_body *report = NULL;
	int rc = omerta_audit_verify(cli->o, &report);
	bool intact = rc == 0 && omerta_get_bool(report, "intact");
	int status = om_cli_answer(cli, rc, "audit.report", report, verify_print);

	return status == OM_EXIT_OK && !intact ? OM_EXIT_FAILURE : status;
}
