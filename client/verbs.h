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
	OM_VERB_JOB, /* requester and operator */
	OM_VERB_ADMIN, /* operator */
	OM_VERB_MISC,
};

/* Main thread.  Takes the verb and its arguments, returns the exit code. */
struct om_cli;
typedef int om_verb_fn(struct om_cli *cli, int argc, char **argv);

struct om_verb {
	const char *name; /* "submit", "rules" */
	enum om_verb_group group;
	const char *args; /* usage line after the name */
	const char *help; /* one line */
	om_verb_fn *run;
};

extern const struct om_verb om_verbs[];
extern const size_t om_verb_count;

/* Any thread.  NULL: no such verb. */
const struct om_verb *om_verb_find(const char *name);

/*
 * Main thread.  argv[0] is the program, then global options, the verb, its options.  Reads the
 * environment, writes stdout and stderr, returns the exit code.  `extra` (may be NULL) is appended to
 * the help: the verbs that the front end handles itself.
 */
int om_cli_main(const char *program, int argc, char **argv, const char *extra);

#endif /* OM_CLIENT_VERBS_H */
