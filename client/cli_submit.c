/* SPDX-License-Identifier: ISC */
/* `submit`: a job's body from the command line, the script, its files and the tunnel. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/parse.h"
#include "client/cli_impl.h"
#include "client/cli_wg.h"

#define SCRIPT_MAX (4 * 1024 * 1024)
#define STDIN_MAX  (16 * 1024 * 1024)
#define LANG_MAX   33

/* --- the language ---------------------------------------------------------------------------------- */

/* "python" of "/usr/bin/env python3 -u": a version is no part of the name. */
static const char *
lang_of_shebang(struct om_str script)
{
	static char lang[LANG_MAX];
	struct om_str line, word = { NULL, 0 }, base;

	if (script.len < 3 || memcmp(script.ptr, "#!", 2) != 0) {
		return NULL;
	}
	script.ptr += 2;
	script.len -= 2;
	(void)om_str_next(&script, '\n', &line);
	line = om_str_trim(line);
	do {
		struct om_str path;

		if (!om_str_next(&line, ' ', &path)) {
			return NULL;
		}
		while (om_str_next(&path, '/', &base)) {
			word = base;
		}
	} while (word.len == 0 || om_str_is(word, "env") || word.ptr[0] == '-');
	while (word.len > 0 && strchr("0123456789.", word.ptr[word.len - 1]) != NULL) {
		word.len--;
	}
	return word.len > 0 && om_str_copy(word, lang, sizeof(lang)) == OM_OK ? lang : NULL;
}

const char *
om_cli_guess_lang(const char *path, struct om_str script)
{
	static const char *const known[][2] = { { ".py", "python" }, { ".sh", "sh" },
						{ ".bash", "bash" }, { ".pl", "perl" },
						{ ".awk", "awk" },   { ".lua", "lua" },
						{ ".rb", "ruby" },   { ".js", "node" } };
	const char *slash = strrchr(path, '/');
	const char *dot = strrchr(slash != NULL ? slash : path, '.');

	for (size_t i = 0; dot != NULL && i < OM_COUNT(known); i++) {
		if (strcmp(dot, known[i][0]) == 0) {
			return known[i][1];
		}
	}
	return lang_of_shebang(script);
}

/* --- files ----------------------------------------------------------------------------------------- */

/* Reads a file, "-" is stdin.  Gives buf; false after a message. */
static bool
submit_read(struct om_cli *cli, const char *path, size_t max, struct om_buf *buf)
{
	bool is_stdin = strcmp(path, "-") == 0;
	FILE *in = is_stdin ? stdin : fopen(path, "rbe");
	char piece[65536];
	bool ok = true;
	size_t n;

	if (in == NULL) {
		(void)om_cli_usage(cli, "%s: %s", path, strerror(errno));
		return false;
	}
	buf->max = max;
	while (!buf->failed && (n = fread(piece, 1, sizeof(piece), in)) > 0) {
		om_buf_add(buf, piece, n);
	}
	if (ferror(in)) {
		(void)om_cli_usage(cli, "%s: %s", path, strerror(errno));
		ok = false;
	} else if (buf->failed) {
		(void)om_cli_usage(cli, "%s is over %zu MiB", path, max >> 20);
		ok = false;
	}
	if (!is_stdin) {
		(void)fclose(in);
	}
	return ok;
}

static const char *
submit_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* --file NAME=PATH; with the path alone the job sees its last part. */
static bool
submit_files(struct om_cli *cli, struct omerta_body *job)
{
	const char *given;

	for (size_t i = 0; (given = om_cli_opt_at(cli, "file", i)) != NULL; i++) {
		const char *equals = strchr(given, '=');
		const char *path = equals != NULL ? equals + 1 : given;
		char name[256];

		(void)snprintf(name, sizeof(name), "%.*s",
			       equals != NULL ? (int)(equals - given) : 255,
			       equals != NULL ? given : submit_base(given));
		if (omerta_job_add_file(cli->o, job, name, path) != 0) {
			(void)om_cli_fail(cli);
			return false;
		}
	}
	return true;
}

static bool
submit_has_file(const struct omerta_body *job, const char *name)
{
	for (size_t i = 0; i < omerta_count(job, "files"); i++) {
		const char *known = omerta_get_str(omerta_body_at(job, "files", i), "name");

		if (known != NULL && strcmp(known, name) == 0) {
			return true;
		}
	}
	return false;
}

/*
 * `submit train.py data.csv` works as `python train.py data.csv` does: an argument that is the name of
 * a file below this directory is sent along under that name.  Never a path that leads elsewhere.
 */
static bool
submit_argument_file(struct om_cli *cli, struct omerta_body *job, const char *arg)
{
	char size[OM_CLI_TEXT];
	struct stat st;

	if (om_cli_opt(cli, "no-files") != NULL || arg[0] == '/' || strstr(arg, "..") != NULL ||
	    lstat(arg, &st) != 0 || !S_ISREG(st.st_mode) || submit_has_file(job, arg)) {
		return true;
	}
	if (omerta_job_add_file(cli->o, job, arg, arg) != 0) {
		(void)om_cli_fail(cli);
		return false;
	}
	if (om_cli_opt(cli, "quiet") == NULL) {
		(void)fprintf(cli->err, "sending ");
		om_cli_clean(cli->err, arg);
		(void)fprintf(cli->err, " (%s)\n", om_cli_bytes((uint64_t)st.st_size, size));
	}
	return true;
}

static bool
submit_script(struct om_cli *cli, struct omerta_body *job)
{
	const char *path = cli->operands[0], *lang = om_cli_opt(cli, "lang");
	struct om_buf script = { 0 };
	bool ok = submit_read(cli, path, SCRIPT_MAX, &script);

	if (ok && lang == NULL) {
		lang = om_cli_guess_lang(path,
					 (struct om_str){ (const char *)script.data, script.len });
	}
	if (ok && lang == NULL) {
		(void)om_cli_usage(cli, "%s: which language? say --lang", path);
		ok = false;
	}
	if (ok) {
		omerta_set_str(job, "lang", lang);
		omerta_set_bin(job, "script", script.data, script.len);
	}
	om_buf_fini(&script);
	for (size_t i = 1; ok && i < cli->operand_count; i++) {
		omerta_add_str(job, "args", cli->operands[i]);
		ok = submit_argument_file(cli, job, cli->operands[i]);
	}
	return ok;
}

static bool
submit_stdin(struct om_cli *cli, struct omerta_body *job)
{
	const char *path = om_cli_opt(cli, "stdin");
	struct om_buf data = { 0 };
	bool ok = true;

	if (path != NULL && strcmp(path, "-") == 0 && strcmp(cli->operands[0], "-") == 0) {
		(void)om_cli_usage(cli, "the script comes from stdin already");
		return false;
	}
	if (path != NULL) {
		ok = submit_read(cli, path, STDIN_MAX, &data);
		if (ok) {
			omerta_set_bin(job, "stdin", data.data, data.len);
		}
		om_buf_fini(&data);
	}
	return ok;
}

/* --- the rest of the body -------------------------------------------------------------------------- */

static bool
submit_env(struct om_cli *cli, struct omerta_body *job)
{
	const char *given;

	for (size_t i = 0; (given = om_cli_opt_at(cli, "env", i)) != NULL; i++) {
		const char *equals = strchr(given, '=');
		const char *value = equals != NULL ? equals + 1 : getenv(given);
		char key[256];

		if (value == NULL || equals == given) {
			(void)om_cli_usage(cli, "--env: \"%s\" is not K=V, nor a variable of ours",
					   given);
			return false;
		}
		(void)snprintf(key, sizeof(key), "%.*s",
			       equals != NULL ? (int)(equals - given) : 255, given);
		omerta_add_pair(job, "env", key, value);
	}
	return true;
}

static void
submit_flags(struct om_cli *cli, struct omerta_body *job)
{
	static const char *const flags[][2] = { { "gpu", "gpu" },
						{ "hold", "hold" },
						{ "requeue", "requeue" },
						{ "after-any", "after_any" } };
	const char *given;

	for (size_t i = 0; i < OM_COUNT(flags); i++) {
		if (om_cli_opt(cli, flags[i][0]) != NULL) {
			omerta_set_bool(job, flags[i][1], true);
		}
	}
	for (size_t i = 0; (given = om_cli_opt_at(cli, "output", i)) != NULL; i++) {
		omerta_add_str(job, "outputs", given);
	}
	for (size_t i = 0; (given = om_cli_opt_at(cli, "after", i)) != NULL; i++) {
		omerta_add_str(job, "after", given);
	}
	om_cli_take_str(cli, "job", job, "job");
	om_cli_take_str(cli, "array", job, "array");
	om_cli_take_str(cli, "activity", job, "activity");
	om_cli_take_str(cli, "on-behalf", job, "on_behalf");
	om_cli_take_str(cli, "network-id", job, "network_id");
}

static bool
submit_limits(struct om_cli *cli, struct omerta_body *job)
{
	int64_t timeout_ms = -1, backoff_ms = -1, not_before_ms = -1;
	uint64_t mib;

	if (!om_cli_take_u64(cli, "cores", job, "cores", 1024) ||
	    !om_cli_take_mib(cli, "memory", job, "mem_mib") ||
	    !om_cli_take_mib(cli, "disk", job, "disk_mib") ||
	    !om_cli_take_u64(cli, "retries", job, "retries", 100) ||
	    !om_cli_take_u64(cli, "bandwidth", job, "bandwidth_kbit", 100000000) ||
	    !om_cli_take_mib(cli, "output-max", job, "output_max") ||
	    !om_cli_take_ms(cli, "timeout", &timeout_ms) ||
	    !om_cli_take_ms(cli, "backoff", &backoff_ms) ||
	    !om_cli_take_time(cli, "not-before", true, &not_before_ms)) {
		return false;
	}
	if ((mib = omerta_get_u64(job, "output_max")) > 0) {
		omerta_set_u64(job, "output_max", mib << 20); /* bytes, unlike the others */
	}
	/* Whole seconds on the wire; a part of one counts as one. */
	if (timeout_ms >= 0) {
		omerta_set_u64(job, "runtime_s", (uint64_t)(timeout_ms + 999) / 1000);
	}
	if (backoff_ms >= 0) {
		omerta_set_u64(job, "backoff_s", (uint64_t)(backoff_ms + 999) / 1000);
	}
	if (not_before_ms >= 0) {
		omerta_set_u64(job, "not_before", (uint64_t)(not_before_ms + 999) / 1000);
	}
	return true;
}

/* No --network: a tunnel when there is a configuration for one, else none, and we say so. */
static bool
submit_network(struct om_cli *cli, struct omerta_body *job)
{
	const char *network = om_cli_opt(cli, "network"), *wg = om_cli_opt(cli, "wg");
	char usual[512];
	bool none = network != NULL && strcmp(network, "none") == 0;

	if (network != NULL && !none && strcmp(network, "tunnel") != 0) {
		(void)om_cli_usage(cli, "--network is tunnel or none, not \"%s\"", network);
		return false;
	}
	if (none && wg != NULL) {
		(void)om_cli_usage(cli, "--wg makes no sense with --network none");
		return false;
	}
	if (wg == NULL && !none) {
		wg = om_cli_wg_default(usual, sizeof(usual));
	}
	if (wg != NULL) {
		omerta_set_str(job, "network", "tunnel");
		return om_cli_wg_read(cli, wg, omerta_add_body(job, "vpn"));
	}
	if (network != NULL && !none) {
		(void)om_cli_usage(cli, "--network tunnel needs --wg FILE");
		return false;
	}
	if (!none && om_cli_opt(cli, "quiet") == NULL) {
		(void)fputs("no --wg: the job gets no network\n", cli->err);
	}
	omerta_set_str(job, "network", "none");
	return true;
}

/* --- the verb -------------------------------------------------------------------------------------- */

static int
submit_wait(struct om_cli *cli, const char *id, const char *state)
{
	bool quiet = om_cli_opt(cli, "quiet") != NULL || cli->json;
	bool follow = om_cli_opt(cli, "follow") != NULL;
	struct om_cli_follow how = { .id = id,
				     .out = !cli->json || follow,
				     .err = !cli->json || follow,
				     .progress = !quiet,
				     .state = state,
				     .timeout_ms = OMERTA_FOREVER };
	struct omerta_body *info = NULL;
	int status;

	if (om_cli_follow(cli, &how, &info) != 0) {
		return om_cli_fail(cli);
	}
	if (cli->json) {
		om_cli_print_body(cli, "job.info", info);
	} else if (!quiet) {
		om_cli_summary(cli, cli->err, cli->err_tty, info);
	}
	status = om_cli_exit_of_job(info);
	omerta_body_free(info);
	return status;
}

/* The id alone goes to stdout; what a person wants to know beside it to stderr. */
static void
submit_tell(struct om_cli *cli, const struct omerta_body *accepted, bool wait)
{
	const char *id = omerta_get_str(accepted, "job"),
		   *state = omerta_get_str(accepted, "state");
	char text[OMERTA_ID_SIZE];

	if (!wait) {
		(void)fprintf(cli->out, "%s\n", id);
		(void)fflush(cli->out);
	}
	if (om_cli_opt(cli, "quiet") != NULL || (!wait && !cli->err_tty)) {
		return;
	}
	if (omerta_has(accepted, "array")) {
		(void)fprintf(cli->err, "array %s  %llu jobs ", id,
			      (unsigned long long)omerta_get_u64(accepted, "array"));
	} else {
		(void)fprintf(cli->err, "job %s  ", om_cli_short_id(cli, id, text));
	}
	om_cli_clean(cli->err, state);
	if (omerta_get_bool(accepted, "duplicate")) {
		(void)fputs(" (known already)", cli->err);
	} else if (strcmp(state, "queued") == 0 && omerta_has(accepted, "ahead")) {
		(void)fprintf(cli->err, " (%llu ahead)",
			      (unsigned long long)omerta_get_u64(accepted, "ahead"));
	}
	if (omerta_has(accepted, "text")) {
		(void)fputs("  ", cli->err);
		om_cli_clean(cli->err, omerta_get_str(accepted, "text"));
	}
	(void)fputc('\n', cli->err);
}

/* A submit with an id of ours may be sent again when the connection broke before the answer. */
static int
submit_send(struct om_cli *cli, const struct omerta_body *job, struct omerta_body **accepted)
{
	return omerta_has(job, "job")
		   ? om_client_ask_long(cli->o, "job.submit", job, cli->o->timeout_ms, accepted)
		   : omerta_submit_body(cli->o, job, accepted);
}

int
om_cli_submit(struct om_cli *cli)
{
	bool wait = om_cli_opt(cli, "wait") != NULL || om_cli_opt(cli, "follow") != NULL;
	struct omerta_body *job = omerta_body_new("job.submit"), *accepted = NULL;
	char id[OMERTA_ID_SIZE];
	int status = OM_EXIT_USAGE;

	submit_flags(cli, job);
	if (!submit_limits(cli, job) || !submit_env(cli, job) || !submit_files(cli, job) ||
	    !submit_script(cli, job) || !submit_stdin(cli, job) || !submit_network(cli, job)) {
		goto out;
	}
	if (submit_send(cli, job, &accepted) != 0) {
		status = om_cli_fail(cli);
		/* With --wait 1 would be the job's own. */
		status = wait && status == OM_EXIT_FAILURE ? OM_EXIT_JOB_FAILED : status;
		goto out;
	}
	(void)snprintf(id, sizeof(id), "%s", omerta_get_str(accepted, "job"));
	if (!cli->json) {
		submit_tell(cli, accepted, wait);
	} else if (!wait) {
		om_cli_print_body(cli, "job.accepted", accepted);
	}
	if (wait && omerta_has(accepted, "array")) {
		status =
		    om_cli_array_wait(cli, id, om_cli_opt(cli, "quiet") != NULL, OMERTA_FOREVER);
	} else {
		status =
		    wait ? submit_wait(cli, id, omerta_get_str(accepted, "state")) : OM_EXIT_OK;
	}
out:
	omerta_body_free(accepted);
	omerta_body_free(job);
	return status;
}
