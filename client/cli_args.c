/* SPDX-License-Identifier: ISC */
/*
 * The command line as values.  Own parser rather than getopt: the option tables also make the help,
 * and the tests check the completion and the manual against them.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/parse.h"
#include "client/cli_impl.h"

#define NAMES_MAX 128

int
om_cli_usage(struct om_cli *cli, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)fprintf(cli->err, "%s: ", cli->program);
	om_cli_clean(cli->err, text);
	if (cli->verb != NULL) {
		(void)fprintf(cli->err, "\nusage: %s %s%s %s\n", cli->program, cli->verb->name,
			      cli->verb->opt_count > 0 ? " [options]" : "", cli->verb->args);
	} else {
		(void)fprintf(cli->err, "\n`%s help` lists the verbs\n", cli->program);
	}
	return OM_EXIT_USAGE;
}

/* --- options --------------------------------------------------------------------------------------- */

/* An option by name, or by letter when name is NULL: the verb's own, then the common ones. */
static const struct om_verb_opt *
args_find(const struct om_cli *cli, const char *name, size_t len, char letter)
{
	const struct om_verb_opt *tables[2] = { om_common_opts, NULL };
	size_t counts[2] = { om_common_opt_count, 0 };

	if (cli->verb != NULL) {
		tables[1] = cli->verb->opts;
		counts[1] = cli->verb->opt_count;
	}
	for (int t = 2; t-- > 0;) {
		for (size_t i = 0; i < counts[t]; i++) {
			const struct om_verb_opt *opt = &tables[t][i];

			if (name != NULL
				? strlen(opt->name) == len && memcmp(opt->name, name, len) == 0
				: opt->letter == letter) {
				return opt;
			}
		}
	}
	return NULL;
}

static int
args_unknown(struct om_cli *cli, const char *arg, size_t len)
{
	const char *names[NAMES_MAX];
	const char *near;
	char word[65];
	size_t n = 0;

	for (size_t i = 0; i < om_common_opt_count; i++) {
		names[n++] = om_common_opts[i].name;
	}
	for (size_t i = 0; cli->verb != NULL && i < cli->verb->opt_count; i++) {
		names[n++] = cli->verb->opts[i].name;
	}
	(void)snprintf(word, sizeof(word), "%.*s", (int)(len < 64 ? len : 64), arg);
	near = om_nearest(word, names, n);
	if (near != NULL) {
		return om_cli_usage(cli, "no option --%s; did you mean --%s?", word, near);
	}
	return om_cli_usage(cli, "no option --%s", word);
}

static int
args_keep(struct om_cli *cli, const struct om_verb_opt *opt, const char *value)
{
	if (cli->given_count == OM_CLI_OPTS_MAX) {
		return om_cli_usage(cli, "more than %d options", OM_CLI_OPTS_MAX);
	}
	if (strcmp(opt->name, "watch") == 0 && cli->verb != NULL && !cli->verb->watch) {
		return om_cli_usage(cli, "%s has no --watch", cli->verb->name);
	}
	cli->given[cli->given_count++] = (struct om_cli_given){ opt, value };
	return 0;
}

/* "--name", "--name=value", "--name value".  *i moves over a value. */
static int
args_long(struct om_cli *cli, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2;
	const char *value = strchr(name, '=');
	size_t len = value != NULL ? (size_t)(value - name) : strlen(name);
	const struct om_verb_opt *opt = args_find(cli, name, len, 0);

	if (opt == NULL) {
		return args_unknown(cli, name, len);
	}
	if (opt->arg == NULL) {
		return value == NULL ? args_keep(cli, opt, NULL)
				     : om_cli_usage(cli, "--%s takes no value", opt->name);
	}
	if (value != NULL) {
		return args_keep(cli, opt, value + 1);
	}
	if (*i + 1 >= argc) {
		return om_cli_usage(cli, "--%s needs %s", opt->name, opt->arg);
	}
	return args_keep(cli, opt, argv[++*i]);
}

/* "-f", "-fVALUE", "-f VALUE", "-jf". */
static int
args_short(struct om_cli *cli, int argc, char **argv, int *i)
{
	int rc = 0;

	for (const char *c = argv[*i] + 1; rc == 0 && *c != '\0'; c++) {
		const struct om_verb_opt *opt = args_find(cli, NULL, 0, *c);

		if (opt == NULL) {
			return om_cli_usage(cli, "no option -%c", *c);
		}
		if (opt->arg == NULL) {
			rc = args_keep(cli, opt, NULL);
			continue;
		}
		if (c[1] != '\0') {
			return args_keep(cli, opt, c + 1);
		}
		if (*i + 1 >= argc) {
			return om_cli_usage(cli, "-%c needs %s", *c, opt->arg);
		}
		return args_keep(cli, opt, argv[++*i]);
	}
	return rc;
}

/* --- the verb -------------------------------------------------------------------------------------- */

/* Finds the verb in argv[*i] (and the word after it, for "rules add"). */
static int
args_verb(struct om_cli *cli, int argc, char **argv, int *i)
{
	const char *word = argv[*i], *near;
	const char *names[NAMES_MAX];
	size_t n = 0, len = strlen(word);
	bool family = false;

	if (*i + 1 < argc && (cli->verb = om_verb_find(word, argv[*i + 1])) != NULL) {
		(*i)++;
		return 0;
	}
	for (size_t v = 0; v < om_verb_count && n < NAMES_MAX; v++) {
		if (strncmp(om_verbs[v].name, word, len) == 0 && om_verbs[v].name[len] == ' ') {
			family = true;
			names[n++] = om_verbs[v].name + len + 1;
		}
	}
	cli->verb = om_verb_find(word, NULL);
	if (family && *i + 1 < argc && argv[*i + 1][0] != '-') {
		near = om_nearest(argv[*i + 1], names, n);
		cli->verb = NULL;
		return om_cli_usage(cli, "no verb \"%s %s\"%s%s%s", word, argv[*i + 1],
				    near != NULL ? "; did you mean \"" : "",
				    near != NULL ? near : "", near != NULL ? "\"?" : "");
	}
	if (cli->verb != NULL) {
		return 0;
	}
	if (family) {
		return om_cli_usage(cli, "%s what?", word);
	}
	n = 0;
	for (size_t v = 0; v < om_verb_count && n < NAMES_MAX; v++) {
		names[n++] = om_verbs[v].name;
	}
	near = om_nearest(word, names, n);
	return om_cli_usage(cli, "no verb \"%s\"%s%s%s", word,
			    near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
			    near != NULL ? "\"?" : "");
}

static int
args_check_operands(struct om_cli *cli)
{
	if (cli->verb == NULL) {
		return om_cli_usage(cli, "what shall be done?");
	}
	if (cli->operand_count < cli->verb->min) {
		return om_cli_usage(cli, "%s needs more", cli->verb->name);
	}
	if (cli->operand_count > cli->verb->max) {
		return om_cli_usage(cli, "%s takes no \"%s\"", cli->verb->name,
				    cli->operands[cli->verb->max]);
	}
	return 0;
}

int
om_cli_parse(struct om_cli *cli, int argc, char **argv, bool *help)
{
	bool options = true;
	int rc = 0;

	*help = false;
	cli->operands = argv; /* operands move to the front; argv[0] has served */
	for (int i = 1; rc == 0 && i < argc; i++) {
		char *arg = argv[i];

		if (options && strcmp(arg, "--") == 0) {
			options = false;
		} else if (options && cli->verb == NULL && strcmp(arg, "--version") == 0) {
			cli->verb = om_verb_find("version", NULL);
		} else if (options && strncmp(arg, "--", 2) == 0) {
			rc = args_long(cli, argc, argv, &i);
		} else if (options && arg[0] == '-' && arg[1] != '\0') {
			rc = args_short(cli, argc, argv, &i);
		} else if (cli->verb == NULL && strcmp(arg, "help") == 0) {
			*help = true;
		} else if (cli->verb == NULL) {
			rc = args_verb(cli, argc, argv, &i);
		} else {
			options = options && !cli->verb->rest;
			cli->operands[cli->operand_count++] = arg;
		}
	}
	*help = *help || om_cli_opt(cli, "help") != NULL;
	return rc != 0 || *help ? rc : args_check_operands(cli);
}

const char *
om_cli_opt_at(const struct om_cli *cli, const char *name, size_t i)
{
	for (size_t g = 0; g < cli->given_count; g++) {
		if (strcmp(cli->given[g].opt->name, name) == 0 && i-- == 0) {
			return cli->given[g].value != NULL ? cli->given[g].value : "";
		}
	}
	return NULL;
}

const char *
om_cli_opt(const struct om_cli *cli, const char *name)
{
	const char *last = NULL, *value;

	for (size_t i = 0; (value = om_cli_opt_at(cli, name, i)) != NULL; i++) {
		last = value;
	}
	return last;
}

/* --- help ------------------------------------------------------------------------------------------ */

static void
help_opts(struct om_cli *cli, const struct om_verb_opt *opts, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char left[64], letter[8] = "   ";

		if (strcmp(opts[i].name, "watch") == 0 &&
		    (cli->verb == NULL || !cli->verb->watch)) {
			continue;
		}
		if (opts[i].letter != 0) {
			(void)snprintf(letter, sizeof(letter), "-%c,", opts[i].letter);
		}
		(void)snprintf(left, sizeof(left), "%s --%s%s%s", letter, opts[i].name,
			       opts[i].arg != NULL ? " " : "",
			       opts[i].arg != NULL ? opts[i].arg : "");
		(void)fprintf(cli->out, "  %-28s %s\n", left, opts[i].help);
	}
}

void
om_cli_help(struct om_cli *cli, const char *extra)
{
	static const char *const groups[] = { "Jobs", "For the operator", "Other" };

	if (cli->verb != NULL) {
		(void)fprintf(cli->out, "usage: %s %s%s %s\n\n%s\n\n", cli->program,
			      cli->verb->name, " [options]", cli->verb->args, cli->verb->help);
		help_opts(cli, cli->verb->opts, cli->verb->opt_count);
		help_opts(cli, om_common_opts, om_common_opt_count);
		return;
	}
	(void)fprintf(cli->out, "usage: %s VERB [options] ...\n", cli->program);
	for (size_t g = 0; g < OM_COUNT(groups); g++) {
		(void)fprintf(cli->out, "\n%s:\n", groups[g]);
		for (size_t i = 0; i < om_verb_count; i++) {
			if (om_verbs[i].group == (enum om_verb_group)g) {
				char left[64];

				(void)snprintf(left, sizeof(left), "%s %s", om_verbs[i].name,
					       om_verbs[i].args);
				(void)fprintf(cli->out, "  %-34s %s\n", left, om_verbs[i].help);
			}
		}
	}
	if (extra != NULL) {
		(void)fprintf(cli->out, "\n%s", extra);
	}
	(void)fprintf(cli->out, "\nOptions of all verbs (`%s help VERB` shows the others):\n",
		      cli->program);
	help_opts(cli, om_common_opts, om_common_opt_count);
}

/* --- values ---------------------------------------------------------------------------------------- */

bool
om_cli_take_u64(struct om_cli *cli, const char *option, struct omerta_body *body, const char *field,
		uint64_t max)
{
	const char *text = om_cli_opt(cli, option);
	uint64_t value;

	if (text == NULL) {
		return true;
	}
	if (om_parse_u64(om_str_of(text), 0, max, &value) != OM_OK) {
		(void)om_cli_usage(cli, "--%s: \"%s\" is no whole number up to %llu", option, text,
				   (unsigned long long)max);
		return false;
	}
	omerta_set_u64(body, field, value);
	return true;
}

bool
om_cli_take_mib(struct om_cli *cli, const char *option, struct omerta_body *body, const char *field)
{
	const char *text = om_cli_opt(cli, option);
	uint64_t mib;

	if (text == NULL) {
		return true;
	}
	if (om_parse_mib(om_str_of(text), &mib) != OM_OK) {
		(void)om_cli_usage(cli, "--%s: \"%s\" is no size such as 512M or 2G", option, text);
		return false;
	}
	omerta_set_u64(body, field, mib);
	return true;
}

bool
om_cli_take_ms(struct om_cli *cli, const char *option, int64_t *out_ms)
{
	const char *text = om_cli_opt(cli, option);
	uint64_t ms;

	if (text == NULL) {
		return true;
	}
	if (om_parse_ms(om_str_of(text), &ms) != OM_OK || ms > INT64_MAX) {
		(void)om_cli_usage(cli, "--%s: \"%s\" is no time such as 90s, 10m or 2h", option,
				   text);
		return false;
	}
	*out_ms = (int64_t)ms;
	return true;
}

/* "2026-11-23T08:00:00Z", and shorter: to the minute, the day. */
static bool
args_iso(const char *text, int64_t *out_ms)
{
	static const char *const forms[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d" };

	for (size_t i = 0; i < OM_COUNT(forms); i++) {
		struct tm tm = { .tm_isdst = -1 };
		const char *end = strptime(text, forms[i], &tm);

		if (end != NULL && (end[0] == '\0' || strcmp(end, "Z") == 0)) {
			/* With Z it is UTC, else local time. */
			*out_ms = (int64_t)(end[0] == 'Z' ? timegm(&tm) : mktime(&tm)) * 1000;
			return true;
		}
	}
	return false;
}

bool
om_cli_take_time(struct om_cli *cli, const char *option, bool ahead, int64_t *out_ms)
{
	const char *text = om_cli_opt(cli, option);
	int64_t now_ms = om_wall_now().ns / OM_NS_PER_MS;
	uint64_t value;

	if (text == NULL || args_iso(text, out_ms)) {
		return true;
	}
	if (om_parse_u64(om_str_of(text), 1000000000, INT64_MAX / 1000, &value) == OM_OK) {
		*out_ms = (int64_t)value * 1000; /* seconds since 1970 */
		return true;
	}
	if (om_parse_ms(om_str_of(text), &value) != OM_OK || value > (uint64_t)now_ms) {
		(void)om_cli_usage(
		    cli, "--%s: \"%s\" is no time such as 2h, 2026-11-23 or 2026-11-23T08:00:00Z",
		    option, text);
		return false;
	}
	*out_ms = ahead ? now_ms + (int64_t)value : now_ms - (int64_t)value;
	return true;
}

void
om_cli_take_str(struct om_cli *cli, const char *option, struct omerta_body *body, const char *field)
{
	const char *text = om_cli_opt(cli, option);

	if (text != NULL) {
		omerta_set_str(body, field, text);
	}
}
