/* SPDX-License-Identifier: ISC */
/* From the command line to a verb and back to an exit code. */
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "client/cli_impl.h"

#define WATCH_DEFAULT_MS 2000
#define WATCH_LEAST_MS   100
#define CLEAR_SCREEN     "\033[H\033[2J"

/* --- answers --------------------------------------------------------------------------------------- */

int
om_cli_exit_of(const struct omerta *o)
{
	static const struct {
		const char *code;
		int status;
	} exits[] = {
		{ "unreachable", OM_EXIT_UNREACHABLE },
		{ "disconnected", OM_EXIT_UNREACHABLE },
		{ "denied", OM_EXIT_DENIED },
		{ "unauthorized", OM_EXIT_DENIED },
		{ "usage", OM_EXIT_USAGE },
		{ "timeout", OM_EXIT_AGAIN },
		{ "full", OM_EXIT_AGAIN },
		{ "limit", OM_EXIT_AGAIN },
		{ "rate_limited", OM_EXIT_AGAIN },
		{ "shutting_down", OM_EXIT_AGAIN },
		{ "draining", OM_EXIT_AGAIN },
		{ "gone", OM_EXIT_AGAIN },
		{ "disk", OM_EXIT_AGAIN },
	};

	for (size_t i = 0; i < OM_COUNT(exits); i++) {
		if (omerta_error_is(o, exits[i].code)) {
			return exits[i].status;
		}
	}
	return OM_EXIT_FAILURE;
}

int
om_cli_fail(struct om_cli *cli)
{
	const char *name, *value;

	if (cli->json) {
		json_t *details = json_object();

		for (size_t i = 0; omerta_error_detail_at(cli->o, i, &name, &value); i++) {
			(void)json_object_set_new(details, name, json_string(value));
		}
		om_cli_print_json(cli, "error",
				  json_pack("{s:s, s:s, s:o}", "code", omerta_error_code(cli->o),
					    "text", omerta_error_text(cli->o), "details", details));
		return om_cli_exit_of(cli->o);
	}
	(void)fprintf(cli->err, "%s: ", cli->program);
	om_cli_clean(cli->err, omerta_error_text(cli->o));
	(void)fprintf(cli->err, " (%s)\n", omerta_error_code(cli->o));
	for (size_t i = 0; omerta_error_detail_at(cli->o, i, &name, &value); i++) {
		(void)fputs("  ", cli->err);
		om_cli_clean(cli->err, strcmp(name, "candidates") == 0 ? "did you mean" : name);
		(void)fputs(": ", cli->err);
		om_cli_clean(cli->err, value);
		(void)fputc('\n', cli->err);
	}
	return om_cli_exit_of(cli->o);
}

int
om_cli_exit_of_job(const struct omerta_body *info)
{
	const char *state = omerta_get_str(info, "state");
	int64_t code = omerta_get_i64(info, "exit_code");
	uint64_t sig = omerta_get_u64(info, "signal");
	/* dead: its last attempt failed like that */
	bool own = strcmp(state, "failed") == 0 || strcmp(state, "dead") == 0;

	if (strcmp(state, "completed") == 0) {
		return OM_EXIT_OK;
	}
	if (strcmp(state, "timed_out") == 0) {
		return OM_EXIT_JOB_TIMEOUT;
	}
	if (own && sig != 0) {
		return OM_EXIT_JOB_SIGNAL + (int)sig;
	}
	if (own && code != 0) {
		return code > 0 && code < 256 ? (int)code : 255;
	}
	return OM_EXIT_JOB_FAILED;
}

int
om_cli_answer(struct om_cli *cli, int rc, const char *type, struct omerta_body *body,
	      om_cli_print_fn *print)
{
	if (rc != 0) {
		return om_cli_fail(cli);
	}
	if (cli->json) {
		om_cli_print_body(cli, type, body);
	} else {
		print(cli, body);
	}
	omerta_body_free(body);
	return OM_EXIT_OK;
}

int
om_cli_done(struct om_cli *cli, int rc, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (rc != 0) {
		return om_cli_fail(cli);
	}
	if (cli->json) {
		om_cli_print_json(cli, "ok", json_object());
		return OM_EXIT_OK;
	}
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	om_cli_clean(cli->out, text);
	(void)fputc('\n', cli->out);
	return OM_EXIT_OK;
}

int
om_cli_counted(struct om_cli *cli, int rc, uint64_t count, const char *what)
{
	if (rc == 0 && cli->json) {
		om_cli_print_json(cli, "count", json_pack("{s:I}", "count", (json_int_t)count));
		return OM_EXIT_OK;
	}
	return om_cli_done(cli, rc, "%s: %llu", what, (unsigned long long)count);
}

/* --- the run --------------------------------------------------------------------------------------- */

/* The options that every verb has.  0 or an exit code after a message. */
static int
run_setup(struct om_cli *cli)
{
	const char *endpoint = om_cli_opt(cli, "endpoint");
	const char *key = om_cli_opt(cli, "key"), *server = om_cli_opt(cli, "server-key");
	int64_t timeout_ms = 0;

	cli->o = omerta_new();
	if (cli->o == NULL) {
		(void)fprintf(cli->err, "%s: out of memory\n", cli->program);
		return OM_EXIT_FAILURE;
	}
	if (endpoint != NULL && omerta_set_endpoint(cli->o, endpoint) != 0) {
		return om_cli_usage(cli, "--endpoint: %s", omerta_error_text(cli->o));
	}
	if ((key == NULL) != (server == NULL)) {
		return om_cli_usage(cli, "--key and --server-key go together");
	}
	if (key != NULL && omerta_set_key_file(cli->o, key, server) != 0) {
		return om_cli_usage(cli, "--key: %s", omerta_error_text(cli->o));
	}
	if (!om_cli_take_ms(cli, "reply-timeout", &timeout_ms)) {
		return OM_EXIT_USAGE;
	}
	if (om_cli_opt(cli, "reply-timeout") != NULL &&
	    omerta_set_timeout(cli->o, timeout_ms) != 0) {
		return om_cli_usage(cli, "--reply-timeout: %s", omerta_error_text(cli->o));
	}
	return 0;
}

/* How often the verb is run again; 0: once. */
static int
run_watch_ms(struct om_cli *cli, int64_t *watch_ms)
{
	const char *given = om_cli_opt(cli, "watch");

	*watch_ms = 0;
	if (given == NULL && strcmp(cli->verb->name, "top") == 0 && cli->out_tty && !cli->json) {
		*watch_ms = WATCH_DEFAULT_MS;
	}
	if (!om_cli_take_ms(cli, "watch", watch_ms)) {
		return OM_EXIT_USAGE;
	}
	if (given != NULL && *watch_ms < WATCH_LEAST_MS) {
		return om_cli_usage(cli, "--watch: at least %d ms", WATCH_LEAST_MS);
	}
	return 0;
}

static int
run_verb(struct om_cli *cli)
{
	int64_t watch_ms;
	int status = run_watch_ms(cli, &watch_ms);

	while (status == 0) {
		if (watch_ms > 0 && cli->out_tty && !cli->json) {
			(void)fputs(CLEAR_SCREEN, cli->out);
		}
		status = cli->verb->run(cli);
		(void)fflush(cli->out);
		if (watch_ms == 0) {
			break;
		}
		(void)poll(NULL, 0, (int)watch_ms);
	}
	return status;
}

int
om_cli_run(const char *program, int argc, char **argv, const char *extra, FILE *out, FILE *err)
{
	const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
	struct om_cli cli = { .program = program, .out = out, .err = err };
	bool help = false;
	int status;

	cli.out_tty = fileno(out) >= 0 && isatty(fileno(out)) == 1;
	cli.err_tty = fileno(err) >= 0 && isatty(fileno(err)) == 1;
	cli.colour = (no_colour == NULL || no_colour[0] == '\0') && term != NULL &&
		     strcmp(term, "dumb") != 0;
	status = om_cli_parse(&cli, argc, argv, &help);
	cli.json = om_cli_opt(&cli, "json") != NULL;
	cli.headers = om_cli_opt(&cli, "no-headers") == NULL;
	if (status == 0 && help) {
		om_cli_help(&cli, extra);
	} else if (status == 0) {
		status = run_setup(&cli);
		if (status == 0) {
			status = run_verb(&cli);
		}
	}
	if ((fflush(out) != 0 || ferror(out)) && status == 0) {
		(void)fprintf(err, "%s: the output could not be written\n", program);
		status = OM_EXIT_FAILURE;
	}
	omerta_free(cli.o);
	return status;
}

int
om_cli_main(const char *program, int argc, char **argv, const char *extra)
{
	return om_cli_run(program, argc, argv, extra, stdout, stderr);
}
