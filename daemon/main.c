/* SPDX-License-Identifier: ISC */
/*
 * omertad's command line.  The verbs that need no running daemon are here; all others are messages
 * of the control protocol and belong to the client (client/verbs.h), which `omerta` shares.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "actors/filter_rules.h"
#include "base/log.h"
#include "base/parse.h"
#include "client/verbs.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/json.h"

#define FLAGS_MAX 64
#define ARGS_MAX  64

static const char help_text[] =
    "The daemon itself:\n"
    "  start                             run in the foreground; `omertad start --help`\n"
    "  doctor [--json]                   is everything there that a provider needs?\n"
    "  config show [--origin] [--json]   settings, of the daemon or as start would read them\n"
    "  config check FILE                 is it a configuration?\n"
    "  config generate                   a sample with every setting\n"
    "  pause [REASON], drain, resume     queue pause, queue drain, queue resume\n";

static const char start_help[] =
    "Usage: omertad start [OPTION...]\n"
    "\n"
    "Runs the provider in the foreground; logs go to stderr.  Omertad does not start when a check\n"
    "of `omertad doctor` fails.  TERM or INT: stop when the running jobs have ended; twice: at\n"
    "once.  HUP: read the configuration again.\n"
    "\n"
    "  --config FILE            instead of " OM_CONFIG_FILE "\n"
    "  --port N                 listen on tcp too (control.port)\n"
    "  --max-jobs N             jobs at one time (jobs.max_jobs)\n"
    "  --owner-peer ID          the peer whose jobs go first (jobs.owner_peer)\n"
    "  --trusted-networks A,B   networks whose jobs are accepted (jobs.trusted_networks)\n"
    "  --state-dir DIR, --run-dir DIR, --cache-dir DIR\n"
    "  --log-level LEVEL        debug, info, warn or error\n"
    "  --set SECTION.KEY=VALUE  any setting; see omertad.conf(5)\n"
    "  --check                  only check, as `omertad doctor` does\n"
    "  --help\n";

struct cli {
	struct om_conf_flag flags[FLAGS_MAX];
	size_t flag_count;
	struct om_conf_sources sources;
	const char *file; /* NULL: not given */
	bool check, json, origin, man, help;
};

enum opt_code { OPT_CONFIG = 256, OPT_SET, OPT_CHECK, OPT_JSON, OPT_ORIGIN, OPT_MAN, OPT_FLAG };

/* A flag with a setting's name of its own. */
static const struct {
	const char *name; /* with its -- */
	const char *key;
} named_flags[] = {
	{ "--port", "control.port" },          { "--max-jobs", "jobs.max_jobs" },
	{ "--owner-peer", "jobs.owner_peer" }, { "--trusted-networks", "jobs.trusted_networks" },
	{ "--state-dir", "daemon.state_dir" }, { "--run-dir", "daemon.run_dir" },
	{ "--cache-dir", "daemon.cache_dir" }, { "--log-level", "daemon.log_level" },
};

static bool
cli_add_flag(struct cli *cli, const char *key, const char *value, const char *origin)
{
	if (cli->flag_count == FLAGS_MAX) {
		fprintf(stderr, "omertad: more than %d settings on the command line\n", FLAGS_MAX);
		return false;
	}
	cli->flags[cli->flag_count++] = (struct om_conf_flag){ key, value, origin };
	return true;
}

/* --set a.b=c: cuts the argument in place. */
static bool
cli_add_set(struct cli *cli, char *text)
{
	char *eq = strchr(text, '=');

	if (eq == NULL) {
		fprintf(stderr, "omertad: --set takes SECTION.KEY=VALUE, not %s\n", text);
		return false;
	}
	*eq = '\0';
	return cli_add_flag(cli, text, eq + 1, "--set");
}

static bool
cli_take(struct cli *cli, int code, char *arg)
{
	switch (code) {
	case OPT_CONFIG:
		cli->file = arg;
		return true;
	case OPT_SET:
		return cli_add_set(cli, arg);
	case OPT_CHECK:
		cli->check = true;
		return true;
	case OPT_JSON:
		cli->json = true;
		return true;
	case OPT_ORIGIN:
		cli->origin = true;
		return true;
	case OPT_MAN:
		cli->man = true;
		return true;
	case 'h':
		cli->help = true;
		return true;
	default:
		break;
	}
	if (code >= OPT_FLAG) {
		return cli_add_flag(cli, named_flags[code - OPT_FLAG].key, arg,
				    named_flags[code - OPT_FLAG].name);
	}
	return false; /* getopt has told */
}

/* argv[0] is the verb.  Gives the index of the first operand, -1 after a message. */
static int
cli_parse(struct cli *cli, int argc, char **argv)
{
	struct option options[OM_COUNT(named_flags) + 8] = {
		{ "config", required_argument, NULL, OPT_CONFIG },
		{ "set", required_argument, NULL, OPT_SET },
		{ "check", no_argument, NULL, OPT_CHECK },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "origin", no_argument, NULL, OPT_ORIGIN },
		{ "man", no_argument, NULL, OPT_MAN },
		{ "help", no_argument, NULL, 'h' },
	};
	int code;

	for (size_t i = 0; i < OM_COUNT(named_flags); i++) {
		options[7 + i] = (struct option){ named_flags[i].name + 2, required_argument, NULL,
						  OPT_FLAG + (int)i };
	}
	optind = 0; /* start anew, with GNU's permutation */
	while ((code = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (!cli_take(cli, code, optarg)) {
			return -1;
		}
	}
	return optind;
}

/* --- configuration ---------------------------------------------------------------------------- */

static void
cli_sources(struct cli *cli)
{
	const char *env_file = getenv(OM_CONFIG_ENV "CONFIG");

	cli->sources = (struct om_conf_sources){
		.file = cli->file != NULL               ? cli->file
			: env_file != NULL && *env_file ? env_file
							: OM_CONFIG_FILE,
		.file_must_exist = cli->file != NULL || (env_file != NULL && *env_file),
		.with_live = true,
		.env = environ,
		.flags = cli->flags,
		.flag_count = cli->flag_count,
		.check_rule = om_filter_rule_check,
	};
}

/* NULL after the problems on stderr. */
static struct om_config *
cli_config(struct cli *cli)
{
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };

	cli_sources(cli);
	if (om_config_load(&cli->sources, &config, &problems) != OM_OK) {
		fwrite(problems.data, 1, problems.len, stderr);
		config = NULL;
	}
	om_buf_fini(&problems);
	return config;
}

static int
print_buf(struct om_buf *out)
{
	int ok = !out->failed && fwrite(out->data, 1, out->len, stdout) == out->len &&
		 fflush(stdout) == 0;

	om_buf_fini(out);
	return ok ? OM_EXIT_OK : OM_EXIT_FAILURE;
}

static int
verb_config_show(struct cli *cli)
{
	struct om_config *config = cli_config(cli);
	struct om_buf out = { 0 };

	if (config == NULL) {
		return OM_EXIT_FAILURE;
	}
	if (cli->json) {
		om_config_print_json(config, &out);
	} else {
		om_config_print(config, cli->origin, &out);
	}
	om_config_free(config);
	return print_buf(&out);
}

/* One object, as the verbs that ask a daemon print; a problem is a line of the text. */
static void
check_print_json(const char *file, bool ok, size_t rules, const struct om_buf *problems)
{
	struct om_str rest = { (const char *)problems->data, problems->len }, line;
	struct om_buf out = { 0 };
	bool first = true;

	om_buf_add_str(&out, "{\"version\":1,\"type\":\"config.check\"");
	om_json_member(&out, "file", file, false);
	om_buf_printf(&out, ",\"ok\":%s,\"rules\":%zu,\"problems\":[", ok ? "true" : "false",
		      rules);
	while (om_str_next(&rest, '\n', &line)) {
		if (line.len > 0) {
			om_buf_add_str(&out, first ? "" : ",");
			om_json_str(&out, line);
			first = false;
		}
	}
	om_buf_add_str(&out, "]}\n");
	(void)print_buf(&out);
}

static int
verb_config_check(const struct cli *cli, const char *file)
{
	const struct om_conf_sources sources = { .file = file,
						 .file_must_exist = true,
						 .check_rule = om_filter_rule_check };
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };
	enum om_err err;
	size_t rules = 0;

	err = om_config_load(&sources, &config, &problems);
	if (err == OM_OK) {
		om_config_rules(config, &rules);
	}
	if (cli->json) {
		check_print_json(file, err == OM_OK, rules, &problems);
	} else if (err == OM_OK) {
		printf("%s: ok, %zu rules\n", file, rules);
	} else {
		fwrite(problems.data, 1, problems.len, stderr);
	}
	om_config_free(config);
	om_buf_fini(&problems);
	return err == OM_OK ? OM_EXIT_OK : OM_EXIT_FAILURE;
}

static int
verb_config_generate(const struct cli *cli)
{
	const struct om_conf_sources none = { .file = NULL };
	struct om_config *config = NULL;
	struct om_buf out = { 0 };

	if (cli->man) {
		om_config_generate_man(&out);
	} else if (cli->json) { /* as `config show --json`, of a machine without a file */
		if (om_config_load(&none, &config, NULL) != OM_OK) {
			return OM_EXIT_FAILURE;
		}
		om_config_print_json(config, &out);
		om_config_free(config);
	} else {
		om_config_generate(&out);
	}
	return print_buf(&out);
}

/* --- verbs ------------------------------------------------------------------------------------ */

static int
verb_doctor(struct cli *cli)
{
	struct om_config *config = cli_config(cli);
	int code;

	if (config == NULL) {
		return OM_EXIT_FAILURE;
	}
	om_log_init(OM_LOG_ERROR, 0);
	code = om_daemon_check(config, cli->json);
	om_config_free(config);
	return code;
}

/* Other people's keys are in this memory and in wireguard-go's, which inherits the limit. */
static void
no_core_dumps(void)
{
	const struct rlimit none = { 0, 0 };

	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_DUMPABLE, 0); /* for a core_pattern that is a pipe */
}

static int
verb_start(struct cli *cli)
{
	struct om_config *config;
	const struct om_settings *s;
	int code;

	if (cli->check) {
		return verb_doctor(cli);
	}
	config = cli_config(cli);
	if (config == NULL) {
		return OM_EXIT_FAILURE;
	}
	s = om_config_settings(config);
	om_log_init((enum om_log_level)s->daemon_log_level,
		    s->daemon_log_format == OM_CONF_LOG_JSON);
	no_core_dumps();
	code = om_daemon_run(config, &cli->sources);
	om_config_free(config);
	return code;
}

/* The client asks the daemon that the configuration describes, unless it is told otherwise. */
static void
set_endpoints(void)
{
	struct cli cli = { .file = NULL };
	struct om_config *config = NULL;
	char url[256];

	cli_sources(&cli);
	if (om_config_load(&cli.sources, &config, NULL) != OM_OK) {
		return; /* the default socket is the best guess */
	}
	snprintf(url, sizeof(url), "ipc://%s", om_config_control_socket(config));
	(void)setenv("OMERTA_ENDPOINT", url, 0);
	snprintf(url, sizeof(url), "ipc://%s", om_config_events_socket(config));
	(void)setenv("OMERTA_EVENTS", url, 0);
	om_config_free(config);
}

static bool
is_verb(int argc, char **argv, const char *verb, const char *sub)
{
	return argc > 1 && strcmp(argv[1], verb) == 0 &&
	       (sub == NULL || (argc > 2 && strcmp(argv[2], sub) == 0));
}

/* Short forms: `pause`, `drain` and `resume` for `queue pause`, `rules list` for `rules`. */
static int
client_verb(int argc, char **argv)
{
	char queue[] = "queue", *longer[ARGS_MAX];
	int n = 0;

	set_endpoints();
	if (is_verb(argc, argv, "rules", "list")) {
		for (int i = 3; i <= argc; i++) {
			argv[i - 1] = argv[i]; /* the NULL at the end too */
		}
		argc--;
	}
	if (argc < ARGS_MAX - 2 &&
	    (is_verb(argc, argv, "pause", NULL) || is_verb(argc, argv, "drain", NULL) ||
	     is_verb(argc, argv, "resume", NULL))) {
		longer[n++] = argv[0];
		longer[n++] = queue;
		for (int i = 1; i <= argc; i++) {
			longer[n++] = argv[i];
		}
		return om_cli_main("omertad", n - 1, longer, help_text);
	}
	return om_cli_main("omertad", argc, argv, help_text);
}

/*
 * A daemon that runs shows its own settings; otherwise those that it would start with.  The socket's file
 * says nothing: one that was killed leaves it.
 */
static bool
daemon_answers(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	const char *endpoint;
	bool answers = false;
	int fd;

	set_endpoints();
	endpoint = getenv("OMERTA_ENDPOINT");
	if (endpoint == NULL || strncmp(endpoint, "ipc://", 6) != 0 ||
	    strlen(endpoint + 6) >= sizeof(at.sun_path)) {
		return false;
	}
	(void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", endpoint + 6);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		answers = connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 || errno == EAGAIN;
		(void)close(fd);
	}
	return answers;
}

static int
own_config_verb(struct cli *cli, int argc, char **argv)
{
	int first = cli_parse(cli, argc - 2, argv + 2);

	if (first < 0) {
		return OM_EXIT_USAGE;
	}
	if (is_verb(argc, argv, "config", "check")) {
		if (first != argc - 3) {
			fprintf(stderr, "usage: omertad config check FILE\n");
			return OM_EXIT_USAGE;
		}
		return verb_config_check(cli, argv[2 + first]);
	}
	if (first != argc - 2) {
		fprintf(stderr, "omertad: unexpected argument %s\n", argv[2 + first]);
		return OM_EXIT_USAGE;
	}
	return is_verb(argc, argv, "config", "generate") ? verb_config_generate(cli)
							 : verb_config_show(cli);
}

int
main(int argc, char **argv)
{
	struct cli cli = { .file = NULL };
	bool start = is_verb(argc, argv, "start", NULL);
	int first;

	if (is_verb(argc, argv, "config", "check") || is_verb(argc, argv, "config", "generate") ||
	    (is_verb(argc, argv, "config", "show") && !daemon_answers())) {
		return own_config_verb(&cli, argc, argv);
	}
	if (!start && !is_verb(argc, argv, "doctor", NULL)) {
		return client_verb(argc, argv);
	}
	first = cli_parse(&cli, argc - 1, argv + 1);
	if (first < 0) {
		return OM_EXIT_USAGE;
	}
	if (cli.help) {
		fputs(start_help, stdout);
		return OM_EXIT_OK;
	}
	if (first != argc - 1) {
		fprintf(stderr, "omertad: unexpected argument %s\n", argv[1 + first]);
		return OM_EXIT_USAGE;
	}
	return start ? verb_start(&cli) : verb_doctor(&cli);
}
