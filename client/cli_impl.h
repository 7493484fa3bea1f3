/* SPDX-License-Identifier: ISC */
#ifndef OM_CLIENT_CLI_IMPL_H
#define OM_CLIENT_CLI_IMPL_H

/* Shared by the files of the command line. */
#include <jansson.h>
#include "client/client_impl.h"
#include "client/verbs.h"

#define OM_CLI_SCHEMA_VERSION 1 /* the "version" of every JSON object that is printed */
#define OM_CLI_OPTS_MAX       512 /* options on one command line */
#define OM_CLI_COLUMNS_MAX    12
#define OM_CLI_CELL_MAX       48 /* characters of a cell on a terminal */

struct om_cli_given {
	const struct om_verb_opt *opt;
	const char *value; /* NULL for an option without an argument */
};

struct om_cli {
	const char *program;
	const struct om_verb *verb;
	struct om_cli_given given[OM_CLI_OPTS_MAX];
	size_t given_count;
	char **operands;
	size_t operand_count;

	struct omerta *o;
	FILE *out, *err;
	bool json, out_tty, err_tty, colour, headers;
};

/* --- cli_args.c: the command line as values -------------------------------------------------------- */

/* Fills verb, given, operands.  0, or an exit code after a message; *help: the user asked for it. */
int om_cli_parse(struct om_cli *cli, int argc, char **argv, bool *help);
/* The last value of an option, "" for a flag; NULL: not given. */
const char *om_cli_opt(const struct om_cli *cli, const char *name);
/* The i-th value of an option that may be repeated; NULL: no more. */
const char *om_cli_opt_at(const struct om_cli *cli, const char *name, size_t i);
/* Says what is wrong on stderr; OM_EXIT_USAGE. */
int om_cli_usage(struct om_cli *cli, const char *fmt, ...) OM_PRINTF(2, 3);
void om_cli_help(struct om_cli *cli, const char *extra);
/*
 * Parsed options into a field: false after a message.  Absent: true, and nothing is set.
 * om_cli_take_time: "2h" (ago, or from now with `ahead`), seconds since 1970, or
 * "2026-11-23T08:00:00Z" and its beginnings.
 */
bool om_cli_take_u64(struct om_cli *cli, const char *option, struct omerta_body *body,
		     const char *field, uint64_t max);
bool om_cli_take_mib(struct om_cli *cli, const char *option, struct omerta_body *body,
		     const char *field);
bool om_cli_take_ms(struct om_cli *cli, const char *option, int64_t *out_ms);
bool om_cli_take_time(struct om_cli *cli, const char *option, bool ahead, int64_t *out_ms);
void om_cli_take_str(struct om_cli *cli, const char *option, struct omerta_body *body,
		     const char *field);

/* --- cli_json.c ------------------------------------------------------------------------------------ */

/* Gives a body as an object, fields in the schema's order; NULL: out of memory. */
json_t *om_cli_json(const struct omerta_body *body);
/* Prints {"version": 1, "type": type, ...body}, one line.  Takes the object. */
void om_cli_print_json(struct om_cli *cli, const char *type, json_t *object);
void om_cli_print_body(struct om_cli *cli, const char *type, const struct omerta_body *body);
/* Fills a body from an object; false after a message. */
bool om_cli_body_from_json(struct om_cli *cli, struct omerta_body *body, json_t *object);

/* --- cli_text.c ------------------------------------------------------------------------------------ */

enum om_cli_colour {
	OM_CLI_PLAIN,
	OM_CLI_BOLD,
	OM_CLI_RED,
	OM_CLI_GREEN,
	OM_CLI_YELLOW,
	OM_CLI_CYAN
};

/*
 * A table for people: aligned columns with a header on a terminal; tabs and no header in a pipe.
 * Cells are copied, and cleaned of control bytes: they come from strangers.
 */
struct om_cli_table {
	const char *headers[OM_CLI_COLUMNS_MAX];
	size_t columns;
	size_t right; /* bit i: column i is aligned to the right */
	size_t state; /* column with a job's state, which gets its colour; SIZE_MAX: none */
	struct om_arena arena;
	char **cells;
	size_t count, cap;
};

void om_cli_cell(struct om_cli_table *t, const char *text); /* NULL: "-" */
void om_cli_table_print(struct om_cli *cli, struct om_cli_table *t); /* and frees it */

/* Prints with control bytes replaced. */
void om_cli_clean(FILE *out, const char *text);
enum om_cli_colour om_cli_state_colour(const char *state);
const char *om_cli_paint(const struct om_cli *cli, bool tty, enum om_cli_colour colour);

#define OM_CLI_TEXT 48
/* All give out. */
const char *om_cli_bytes(uint64_t n, char out[OM_CLI_TEXT]); /* "18.4 MB" */
const char *om_cli_span(int64_t ms, char out[OM_CLI_TEXT]); /* "41.2 s", "3 h 12 min" */
const char *om_cli_clock(int64_t ms, char out[OM_CLI_TEXT]); /* "0:04", "1:02:03" */
const char *om_cli_when(uint64_t at_ms, char out[OM_CLI_TEXT]); /* local time */
const char *om_cli_short_id(const struct om_cli *cli, const char *id, char out[OMERTA_ID_SIZE]);

/* --- cli_run.c ------------------------------------------------------------------------------------- */

/* Reports the handle's error and gives the exit code that goes with it. */
int om_cli_fail(struct om_cli *cli);
int om_cli_exit_of(const struct omerta *o);
/* What a job's end means for the exit code. */
int om_cli_exit_of_job(const struct omerta_body *info);
/* For the verbs: prints the body as JSON or calls the printer; frees the body. */
typedef void om_cli_print_fn(struct om_cli *cli, const struct omerta_body *body);
int om_cli_answer(struct om_cli *cli, int rc, const char *type, struct omerta_body *body,
		  om_cli_print_fn *print);
/* "done" in JSON, and the sentence for a person. */
int om_cli_done(struct om_cli *cli, int rc, const char *fmt, ...) OM_PRINTF(3, 4);
int om_cli_counted(struct om_cli *cli, int rc, uint64_t count, const char *what);

/* --- cli_jobs.c ------------------------------------------------------------------------------------ */

/* Jobs that were listed: into the array when it is there, else into the table by `row`. */
struct om_cli_rows {
	struct om_cli_table *table;
	void (*row)(struct om_cli *cli, struct om_cli_table *t, const struct omerta_body *job);
	json_t *json;
	uint64_t count;
	char next[OMERTA_ID_SIZE]; /* the cursor that is left; "": that was all */
};
/* All pages of job.list until there are `limit` rows.  0 or -1. */
int om_cli_list_pages(struct om_cli *cli, struct omerta_body *query, uint64_t limit,
		      struct om_cli_rows *rows);
/* Prints them, or the error, and frees what is in rows; gives the exit code.  none: in place of no rows. */
int om_cli_list_answer(struct om_cli *cli, int rc, struct om_cli_rows *rows, const char *none);

/* --- cli_refs.c ------------------------------------------------------------------------------------ */

struct om_cli_refs {
	const char *type; /* the message: job.cancel, or one with `jobs` */
	const char *what; /* was done: "held" */
	void (*fill)(struct om_cli *cli, struct omerta_body *query); /* its other fields, or NULL */
	bool tell; /* say what became of each job */
};
/* Does it to the jobs that are named, or without any to those that `fill` says; gives the exit code. */
int om_cli_refs(struct om_cli *cli, const struct om_cli_refs *verb);

/* --- cli_follow.c ---------------------------------------------------------------------------------- */

struct om_cli_follow {
	const char *id;
	bool out, err; /* show these streams as they come */
	bool progress;
	const char *state; /* what the user was told last; NULL: nothing */
	int64_t timeout_ms; /* OMERTA_FOREVER */
};
/* Waits for a job's end, shows output and progress, gives its last job.info.  0 or -1. */
int om_cli_follow(struct om_cli *cli, const struct om_cli_follow *how, struct omerta_body **info);
/* "completed  exit 0  41.2 s wall ..." */
void om_cli_summary(struct om_cli *cli, FILE *out, bool tty, const struct omerta_body *info);

/* --- cli_array.c ----------------------------------------------------------------------------------- */

/* Waits for all jobs of an array, tells what they came to, gives the exit code. */
int om_cli_array_wait(struct om_cli *cli, const char *id, bool quiet, int64_t timeout_ms);
int om_cli_array_show(struct om_cli *cli, const char *id);
/* After an error: the array that was named where one job is meant; NULL: none was. */
const char *om_cli_array_named(const struct om_cli *cli, char id[OMERTA_ID_SIZE]);

/* --- cli_submit.c ---------------------------------------------------------------------------------- */

/* "python" of "train.py", or of a #! line; NULL: cannot tell. */
const char *om_cli_guess_lang(const char *path, struct om_str script);

/* --- the verbs -------------------------------------------------------------------------------------- */

om_verb_fn om_cli_submit, om_cli_list, om_cli_show, om_cli_output, om_cli_cancel, om_cli_wait,
    om_cli_hold, om_cli_release, om_cli_retry, om_cli_purge, om_cli_move, om_cli_usage_table,
    om_cli_status, om_cli_ping;
om_verb_fn om_cli_pending, om_cli_approve, om_cli_deny, om_cli_queue, om_cli_pause, om_cli_drain,
    om_cli_resume, om_cli_limit, om_cli_rules, om_cli_rule_add, om_cli_rule_change,
    om_cli_rule_remove, om_cli_rule_enable, om_cli_rule_disable, om_cli_rules_test, om_cli_filter,
    om_cli_filter_reset, om_cli_audit, om_cli_audit_verify, om_cli_config, om_cli_config_set,
    om_cli_config_unset, om_cli_config_reload, om_cli_trust, om_cli_untrust, om_cli_trusted,
    om_cli_trust_peer, om_cli_untrust_peer, om_cli_trusted_peers, om_cli_block, om_cli_unblock,
    om_cli_blocked, om_cli_events, om_cli_top, om_cli_actors, om_cli_trace, om_cli_metrics,
    om_cli_stop;
om_verb_fn om_cli_call, om_cli_keygen, om_cli_version;

#endif /* OM_CLIENT_CLI_IMPL_H */
