/* SPDX-License-Identifier: ISC */
#ifndef OM_CLIENT_VERBS_H
#define OM_CLIENT_VERBS_H

/*
 * The command line that `omerta` and `omertad` share: one table of verbs, each of them a message or
 * two of the control protocol.  A front end handles the verbs that are its own (start, doctor ...)
 * and hands everything else to om_cli_main.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Exit codes, documented in omerta(1).  `submit --wait` and `wait` give the job's own. */
enum om_exit {
	OM_EXIT_OK = 0,
	OM_EXIT_FAILURE = 1,
	OM_EXIT_USAGE = 2,
	OM_EXIT_UNREACHABLE = 69, /* no daemon answers there */
	OM_EXIT_AGAIN = 75, /* busy, full, rate limited, time-out: try again */
	OM_EXIT_DENIED = 77, /* no permission */
	OM_EXIT_JOB_TIMEOUT = 124, /* the job ran into its limit */
	OM_EXIT_JOB_FAILED = 125, /* omerta could not run the job, or it was refused or cancelled */
	OM_EXIT_JOB_SIGNAL = 128, /* plus the signal that ended the job */
};

enum om_verb_group {
	OM_VERB_JOBS, /* requester and operator */
	OM_VERB_OPERATOR,
	OM_VERB_OTHER,
};

struct om_verb_opt {
	const char *name; /* "memory" for --memory */
	char letter; /* 'f' for -f, 0: none */
	const char *arg; /* NULL: takes none; else its name in the help */
	const char *help;
};

struct om_cli;
typedef int om_verb_fn(struct om_cli *cli); /* returns the exit code */

struct om_verb {
	const char *name; /* "submit", "rules add" */
	enum om_verb_group group;
	const char *args; /* operands, for the usage line */
	const char *help; /* one line */
	om_verb_fn *run;
	size_t min, max; /* operands */
	const struct om_verb_opt *opts;
	size_t opt_count;
	bool rest; /* options end at the first operand: what follows is the script's */
	bool watch; /* has --watch */
};

extern const struct om_verb om_verbs[];
extern const size_t om_verb_count;
extern const struct om_verb_opt om_common_opts[];
extern const size_t om_common_opt_count;

/* Any thread.  The verb that `name` ("submit") or `name sub` ("rules", "add") means, or NULL. */
const struct om_verb *om_verb_find(const char *name, const char *sub);

/*
 * Main thread.  argv[0] is the program; options and the verb follow.  Reads the environment, writes
 * stdout and stderr, returns the exit code.  `extra` (may be NULL) is appended to the help: the verbs
 * that the front end handles itself.
 */
int om_cli_main(const char *program, int argc, char **argv, const char *extra);
/* The same with streams of the caller. */
int om_cli_run(const char *program, int argc, char **argv, const char *extra, FILE *out, FILE *err);

#endif /* OM_CLIENT_VERBS_H */
