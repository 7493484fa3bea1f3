/* SPDX-License-Identifier: ISC */
/* The command line against a ROUTER: arguments, text, JSON, exit codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include "client/cli_impl.h"
#include "tests/unit/client_fake.h"

/* --- running it ------------------------------------------------------------------------------------ */

struct ran {
	char *out, *err;
	size_t out_len, err_len;
	int status;
};

static void
ran_free(struct ran *r)
{
	free(r->out);
	free(r->err);
}

/* Runs "omerta" with the words of `line`; a word with blanks stands in single quotes. */
static struct ran
run_at(const char *endpoint, const char *line)
{
	struct ran r = { .status = -1 };
	FILE *out = open_memstream(&r.out, &r.out_len), *err = open_memstream(&r.err, &r.err_len);
	char *argv[64] = { (char *)(uintptr_t) "omerta" };
	char *copy = strdup(line), *c = copy;
	int argc = 1;

	if (endpoint != NULL) {
		argv[argc++] = (char *)(uintptr_t) "-e";
		argv[argc++] = (char *)(uintptr_t)endpoint;
	}
	while (*c != '\0') {
		char quote = *c == '\'' ? '\'' : ' ';

		c += quote == '\'' ? 1 : 0;
		argv[argc++] = c;
		while (*c != '\0' && *c != quote) {
			c++;
		}
		while (*c == quote || *c == ' ') {
			*c++ = '\0';
			if (quote == '\'') {
				quote = ' ';
			}
		}
	}
	r.status = om_cli_run("omerta", argc, argv, NULL, out, err);
	(void)fclose(out);
	(void)fclose(err);
	free(copy);
	return r;
}

static struct ran
run(struct fake *f, const char *line)
{
	return run_at(f->endpoint, line);
}

#define assert_has(text, part)                                           \
	do {                                                             \
		if (strstr(text, part) == NULL) {                        \
			fail_msg("\"%s\" is not in \"%s\"", part, text); \
		}                                                        \
	} while (0)

/* --- arguments ------------------------------------------------------------------------------------- */

static void
test_usage_errors_end_with_2_and_say_what(void **state)
{
	static const struct {
		const char *line, *says;
	} cases[] = {
		{ "", "what shall be done" },
		{ "sumbit x.py", "did you mean \"submit\"" },
		{ "rules ad x", "did you mean \"add\"" },
		{ "config", "config what?" },
		{ "show", "show needs more" },
		{ "show a b", "takes no \"b\"" },
		{ "list --stat queued", "did you mean --state" },
		{ "list -Z", "no option -Z" },
		{ "list --limit", "--limit needs N" },
		{ "list --limit x", "no whole number" },
		{ "list --json=1", "takes no value" },
		{ "list --since yesterday", "no time" },
		{ "show x --watch=10ms", "--watch: at least" },
		{ "cancel x --watch 1s", "cancel has no --watch" },
		{ "cancel", "which jobs?" },
		{ "cancel x --state queued", "not both" },
		{ "queue limit 0", "no number from 1" },
		{ "rules add r", "which --kind" },
		{ "rules add r --kind rate per_hour", "is not KEY=VALUE" },
		{ "rules test", "from whom?" },
		{ "submit /nonexistent.py", "No such file" },
		{ "list --endpoint http://x", "is no endpoint" },
		{ "list --key f", "go together" },
		{ "list --reply-timeout 0s", "a time-out is" },
		{ "call job.surprise", "no request" },
		{ "call job.get {", "JSON, line 1" },
		{ "call job.get {\"jobs\":1}", "did you mean \"job\"" },
		{ "call job.get {\"job\":1}", "another kind" },
		{ "call job.get {}", "job.get needs the field" },
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		struct ran r = run_at(NULL, cases[i].line);

		assert_has(r.status == OM_EXIT_USAGE && r.out_len > 0 ? r.out : r.err,
			   cases[i].says);
		assert_int_equal(r.status, OM_EXIT_USAGE);
		ran_free(&r);
	}
}

static void
test_help_knows_every_verb_and_option(void **state)
{
	struct ran all = run_at(NULL, "help");
	char line[64];

	(void)state;
	assert_int_equal(all.status, 0);
	for (size_t v = 0; v < om_verb_count; v++) {
		struct ran one;

		assert_has(all.out, om_verbs[v].name);
		(void)snprintf(line, sizeof(line), "%s --help", om_verbs[v].name);
		one = run_at(NULL, line);
		assert_int_equal(one.status, 0);
		for (size_t i = 0; i < om_verbs[v].opt_count; i++) {
			assert_has(one.out, om_verbs[v].opts[i].name);
		}
		ran_free(&one);
	}
	ran_free(&all);
}

/* A letter or a name must not mean two things at once. */
static void
test_options_are_unambiguous(void **state)
{
	(void)state;
	for (size_t v = 0; v < om_verb_count; v++) {
		for (size_t a = 0; a < om_verbs[v].opt_count; a++) {
			const struct om_verb_opt *one = &om_verbs[v].opts[a];

			for (size_t b = 0; b < a; b++) {
				const struct om_verb_opt *other = &om_verbs[v].opts[b];

				assert_string_not_equal(one->name, other->name);
				assert_true(one->letter == 0 || one->letter != other->letter);
			}
			for (size_t b = 0; b < om_common_opt_count; b++) {
				const struct om_verb_opt *other = &om_common_opts[b];

				assert_string_not_equal(one->name, other->name);
				assert_true(one->letter == 0 || one->letter != other->letter);
			}
		}
	}
}

static char *
slurp(const char *path)
{
	FILE *in = fopen(path, "re");
	char *text = calloc(1, 1 << 20);

	assert_non_null(text);
	if (in == NULL) {
		fail_msg("%s is missing (tests run from the root of the tree)", path);
	}
	(void)!fread(text, 1, (1 << 20) - 1, in);
	(void)fclose(in);
	return text;
}

static void
test_manual_and_completion_know_every_verb_and_option(void **state)
{
	char *man = slurp("docs/man/omerta.1"), *bash = slurp("client/completion/omerta.bash");
	char text[64], *blank;

	(void)state;
	for (size_t v = 0; v < om_verb_count; v++) {
		(void)snprintf(text, sizeof(text), ".It Cm %s", om_verbs[v].name);
		assert_has(man, text);
		for (size_t i = 0; i < om_verbs[v].opt_count; i++) {
			(void)snprintf(text, sizeof(text), "Fl Fl %s", om_verbs[v].opts[i].name);
			assert_has(man, text);
			(void)snprintf(text, sizeof(text), "--%s", om_verbs[v].opts[i].name);
			assert_has(bash, text);
		}
		(void)snprintf(text, sizeof(text), "%s", om_verbs[v].name);
		while ((blank = strchr(text, ' ')) != NULL) {
			*blank = '_'; /* "rules_add)" */
		}
		assert_has(bash, text);
	}
	for (size_t i = 0; i < om_common_opt_count; i++) {
		(void)snprintf(text, sizeof(text), "Fl Fl %s", om_common_opts[i].name);
		assert_has(man, text);
		(void)snprintf(text, sizeof(text), "--%s", om_common_opts[i].name);
		assert_has(bash, text);
	}
	free(man);
	free(bash);
}

static void
test_language_is_guessed(void **state)
{
	static const struct {
		const char *path, *script, *lang;
	} cases[] = {
		{ "a/train.py", "", "python" },
		{ "x.sh", "", "sh" },
		{ "x.py", "#!/bin/sh\n", "python" }, /* the name first */
		{ "x", "#!/usr/bin/python3\n", "python" },
		{ "x", "#!/usr/bin/env python3.11\nx", "python" },
		{ "x", "#! /usr/bin/env -S perl -w\n", "perl" },
		{ "x", "#!/bin/bash", "bash" },
		{ "x.d/y", "#!/bin/bash", "bash" }, /* the dot is of a directory */
		{ "x", "echo", NULL },
		{ "x", "#!", NULL },
		{ "x", "#!\n", NULL },
		{ "x", "#!/usr/bin/env\n", NULL },
		{ "x.unknown", "", NULL },
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		const char *lang = om_cli_guess_lang(cases[i].path, om_str_of(cases[i].script));

		if (cases[i].lang == NULL) {
			assert_null(lang);
		} else {
			assert_non_null(lang);
			assert_string_equal(lang, cases[i].lang);
		}
	}
}

/* --- errors ---------------------------------------------------------------------------------------- */

static void
refuse(struct fake *f, struct fake_request *r)
{
	static const struct om_pair pairs[] = { { OM_STR("candidates"), OM_STR("7f3a, 7f3b") },
						{ OM_STR("evil\033[2J"), OM_STR("a\nb") } };
	struct om_error m = { .code = om_str_of(f->arg) };

	OM_SET(&m, error, text, OM_STR("no, \033[31mreally"));
	OM_SET(&m, error, details, ((struct om_pairs){ pairs, 2 }));
	fake_answer(r, OM_MSG_ERROR, &m);
}

static void
test_exit_codes_of_errors(void **state)
{
	static const struct {
		const char *code;
		int status;
	} cases[] = { { "denied", 77 },       { "full", 75 },    { "limit", 75 },
		      { "rate_limited", 75 }, { "timeout", 75 }, { "shutting_down", 75 },
		      { "not_found", 1 },     { "rejected", 1 }, { "wrong_state", 1 },
		      { "internal", 1 },      { "a_new_one", 1 } };
	struct fake f;
	struct ran r;

	(void)state;
	fake_new(&f, refuse, NULL);
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		f.arg = (void *)(uintptr_t)cases[i].code;
		r = run(&f, "show 7f");
		assert_int_equal(r.status, cases[i].status);
		assert_string_equal(r.out, "");
		assert_has(r.err, "omerta: no, ?[31mreally");
		assert_has(r.err, cases[i].code);
		assert_has(r.err, "did you mean: 7f3a, 7f3b");
		assert_has(r.err, "evil?[2J: a?b");
		assert_null(strchr(r.err, '\033'));
		ran_free(&r);
	}
	f.arg = (void *)(uintptr_t) "not_found";
	r = run(&f, "show 7f --json");
	assert_string_equal(r.out,
			    "{\"version\":1,\"type\":\"error\",\"code\":\"not_found\",\"text\":"
			    "\"no, \\u001B[31mreally\",\"details\":{\"candidates\":\"7f3a, 7f3b\","
			    "\"evil\\u001B[2J\":\"a\\nb\"}}\n");
	assert_int_equal(r.status, 1);
	ran_free(&r);
	fake_free(&f);
	r = run_at("/nonexistent/sock", "list");
	assert_int_equal(r.status, 69);
	ran_free(&r);
}

/* --- submit ---------------------------------------------------------------------------------------- */

/* A directory of our own with a script, as the current one. */
struct place {
	char dir[32], home[256];
};

static void
write_file(const char *name, const char *text)
{
	FILE *out = fopen(name, "we");

	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static void
place_enter(struct place *p)
{
	assert_non_null(getcwd(p->home, sizeof(p->home)));
	(void)strcpy(p->dir, "/tmp/omerta-cli.XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	assert_int_equal(chdir(p->dir), 0);
	assert_int_equal(setenv("XDG_CONFIG_HOME", p->dir, 1), 0);
	write_file("train.py", "print(1)\n");
	write_file("data.csv", "1,2\n");
	write_file("in.txt", "input");
	write_file("wg.conf", "[Interface]\n"
			      "PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
			      "Address = 10.200.1.2/32\n[Peer]\n"
			      "PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n"
			      "Endpoint = 192.0.2.1:51820\nAllowedIPs = 10.200.1.0/24\n");
	write_file("bad.conf", "[Interface]\nPostUp = rm -rf /\n");
}

static void
place_leave(struct place *p)
{
	static const char *const files[] = { "train.py", "data.csv", "in.txt",
					     "wg.conf",  "bad.conf", "got" };

	for (size_t i = 0; i < OM_COUNT(files); i++) {
		(void)unlink(files[i]);
	}
	assert_int_equal(chdir(p->home), 0);
	assert_int_equal(rmdir(p->dir), 0);
}

static void
take_full_job(struct fake *f, struct fake_request *r)
{
	struct om_job_submit m = { 0 };
	struct om_job_accepted answer = { .job = OM_STR("7f3a1c00d00d"),
					  .state = OM_STR("queued") };

	(void)f;
	fake_body(r, &m);
	OM_ASSERT(om_str_is(m.lang, "python") && m.script.len == 9);
	OM_ASSERT(m.args.n == 3 && om_str_is(m.args.v[0], "data.csv") &&
		  om_str_is(m.args.v[1], "--json") && om_str_is(m.args.v[2], "../up"));
	OM_ASSERT(m.cores == 2 && m.mem_mib == 2048 && m.disk_mib == 300 && m.runtime_s == 600);
	OM_ASSERT(m.env.n == 2 && om_str_is(m.env.v[0].key, "A") &&
		  om_str_is(m.env.v[0].value, "b=c") && om_str_is(m.env.v[1].key, "OMERTA_TEST") &&
		  om_str_is(m.env.v[1].value, "ours"));
	OM_ASSERT(m.files.n == 3 && om_str_is(m.files.v[0].name, "x/y") &&
		  om_str_is(m.files.v[1].name, "in.txt") &&
		  om_str_is(m.files.v[2].name, "data.csv"));
	OM_ASSERT(m.outputs.n == 2 && om_str_is(m.outputs.v[1], "b.bin"));
	OM_ASSERT(m.stdin.len == 5 && m.output_max == 1 << 20);
	OM_ASSERT(om_str_is(m.network, "none") && m.vpn == NULL);
	OM_ASSERT(om_str_is(m.job, "mine") && om_str_is(m.activity, "a b"));
	OM_ASSERT(m.hold && m.requeue && m.gpu && m.retries == 3 && m.backoff_s == 2);
	OM_ASSERT(m.after.n == 1 && m.after_any && m.not_before == 1795420800);
	OM_ASSERT(om_str_is(m.on_behalf, "bob") && om_str_is(m.network_id, "cafe"));
	OM_SET(&answer, job_accepted, ahead, 1);
	fake_answer(r, OM_MSG_JOB_ACCEPTED, &answer);
}

static void
test_submit_says_everything(void **state)
{
	static const char line[] =
	    "submit -c 2 --memory 2G --disk=300 -t 10m -E A=b=c --env OMERTA_TEST -f x/y=in.txt "
	    "--file in.txt -o a.bin -o b.bin --stdin in.txt --output-max 1M --network none "
	    "--job mine --activity 'a b' --hold --requeue --gpu --retries 3 --backoff 1500ms "
	    "--after other --after-any --not-before 2026-11-23T08:00:00Z --on-behalf bob "
	    "--network-id cafe train.py data.csv --json ../up";
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	assert_int_equal(setenv("OMERTA_TEST", "ours", 1), 0);
	fake_new(&f, take_full_job, NULL);
	r = run(&f, line);
	assert_string_equal(r.out, "7f3a1c00d00d\n"); /* ID=$(omerta submit ...) */
	assert_string_equal(r.err, "sending data.csv (4 B)\n");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

static void
take_network(struct fake *f, struct fake_request *r)
{
	struct om_job_submit m = { 0 };
	struct om_job_accepted answer = { .job = OM_STR("a"), .state = OM_STR("queued") };
	bool tunnel = f->arg != NULL;

	fake_body(r, &m);
	OM_ASSERT(m.files.n == 0);
	if (tunnel) {
		OM_ASSERT(om_str_is(m.network, "tunnel") && m.vpn != NULL);
		OM_ASSERT(om_str_is(m.vpn->endpoint, "192.0.2.1:51820"));
		OM_ASSERT(m.vpn->private_key.len == 44 && m.vpn->addresses.n == 1 &&
			  om_str_is(m.vpn->allowed_ips.v[0], "10.200.1.0/24"));
		OM_ASSERT(!OM_HAS(m.vpn, vpn_config, preshared_key));
	} else {
		OM_ASSERT(om_str_is(m.network, "none") && m.vpn == NULL);
	}
	fake_answer(r, OM_MSG_JOB_ACCEPTED, &answer);
}

static void
test_the_tunnel_comes_from_a_file_or_there_is_none(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	fake_new(&f, take_network, NULL);
	r = run(&f, "submit --no-files train.py data.csv");
	assert_int_equal(r.status, 0);
	assert_has(r.err, "the job gets no network");
	ran_free(&r);
	f.arg = &f;
	r = run(&f, "submit --wg wg.conf train.py");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	assert_int_equal(setenv("OMERTA_WG", "wg.conf", 1), 0);
	r = run(&f, "submit train.py");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	assert_int_equal(unsetenv("OMERTA_WG"), 0);
	r = run(&f, "submit --wg bad.conf train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	assert_has(r.err, "PostUp");
	ran_free(&r);
	r = run(&f, "submit --network none --wg wg.conf train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	ran_free(&r);
	r = run(&f, "submit --network tunnel train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	ran_free(&r);
	r = run(&f, "submit --network wifi train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

/* --- submit --wait --------------------------------------------------------------------------------- */

struct ending {
	const char *state;
	int64_t exit_code;
	bool has_exit;
	uint64_t signal;
	int status;
};

static void
end_info(const struct ending *e, struct om_job_info *info)
{
	info->job = OM_STR("7f3a1c00d00d");
	info->state = om_str_of(e->state);
	if (e->has_exit) {
		OM_SET(info, job_info, exit_code, e->exit_code);
	}
	if (e->signal != 0) {
		OM_SET(info, job_info, signal, e->signal);
	}
	OM_SET(info, job_info, wall_ms, 41200);
	OM_SET(info, job_info, cpu_ms, 39000);
	OM_SET(info, job_info, mem_peak_kib, 212 * 1024);
	OM_SET(info, job_info, text, OM_STR("because"));
}

/* Output in two pieces on stdout, one on stderr; the first follow of each is kept waiting once. */
static void
run_job(struct fake *f, struct fake_request *r)
{
	const struct ending *e = f->arg;
	struct om_job_accepted accepted = { .job = OM_STR("7f3a1c00d00d"),
					    .state = OM_STR("queued") };
	struct om_job_info info = { 0 };
	struct om_output_query q = { 0 };
	struct om_output_data piece = { 0 };
	const char *text;
	size_t len;

	switch (r->envelope.type) {
	case OM_MSG_JOB_SUBMIT:
		fake_answer(r, OM_MSG_JOB_ACCEPTED, &accepted);
		break;
	case OM_MSG_JOB_GET:
		info.job = OM_STR("7f3a1c00d00d");
		info.state = OM_STR("running");
		fake_answer(r, OM_MSG_JOB_INFO, &info);
		break;
	case OM_MSG_JOB_WAIT:
		end_info(e, &info);
		fake_answer(r, OM_MSG_JOB_INFO, &info);
		break;
	case OM_MSG_JOB_OUTPUT:
		fake_body(r, &q);
		text = om_str_is(q.stream, "stderr") ? "warn\n" : "epoch 1\nepoch 2\n";
		len = strlen(text);
		OM_ASSERT(q.offset <= len);
		piece.data.len = len - q.offset < 8 ? len - q.offset : 8;
		piece.data.ptr = (const uint8_t *)text + q.offset;
		piece.offset = q.offset;
		piece.size = len;
		piece.end = q.offset + piece.data.len == len;
		fake_answer(r, OM_MSG_OUTPUT_DATA, &piece);
		break;
	default:
		fake_error(r, OM_ERR_UNKNOWN_TYPE, "");
	}
}

static const struct ending endings[] = {
	{ "completed", 0, true, 0, 0 },       { "failed", 3, true, 0, 3 },
	{ "failed", -1, true, 0, 255 },       { "failed", 0, false, 9, 128 + 9 },
	{ "failed", 0, false, 0, 125 }, /* the VM did not start */
	{ "timed_out", 0, false, 9, 124 },    { "cancelled", 0, false, 15, 125 },
	{ "rogue_killed", 0, false, 0, 125 }, { "lost", 0, false, 0, 125 },
	{ "denied", 0, false, 0, 125 },       { "dead", 7, true, 0, 125 },
};

static void
test_submit_wait_shows_output_and_exits_as_the_job(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	for (size_t i = 0; i < OM_COUNT(endings); i++) {
		fake_new(&f, run_job, (void *)(uintptr_t)&endings[i]);
		r = run(&f, "submit --network none --wait train.py");
		assert_string_equal(r.out, "epoch 1\nepoch 2\n");
		assert_has(r.err, "warn\n");
		assert_has(r.err, "41.2 s wall, 39.0 s CPU, 212 MiB peak");
		assert_has(r.err, endings[i].state);
		assert_int_equal(r.status, endings[i].status);
		ran_free(&r);
		r = run(&f, "wait -q 7f");
		assert_string_equal(r.out, "");
		assert_string_equal(r.err, "");
		assert_int_equal(r.status, endings[i].status);
		ran_free(&r);
		fake_free(&f);
	}
	place_leave(&p);
}

static void
test_submit_wait_in_json(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	fake_new(&f, run_job, (void *)(uintptr_t)&endings[1]);
	r = run(&f, "submit --network none --wait --json train.py");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"job.info\",\"job\":\"7f3a1c00d00d\","
				   "\"state\":\"failed\",\"text\":\"because\",\"exit_code\":3,"
				   "\"wall_ms\":41200,\"cpu_ms\":39000,\"mem_peak_kib\":217088}\n");
	assert_string_equal(r.err, "");
	assert_int_equal(r.status, 3);
	ran_free(&r);
	r = run(&f, "submit --network none --follow --json train.py");
	assert_has(r.out,
		   "\"type\":\"output.data\",\"data\":\"epoch 2\\n\",\"offset\":8,\"size\":16,"
		   "\"end\":true,\"job\":\"7f3a1c00d00d\",\"stream\":\"stdout\"}\n");
	assert_has(r.out, "\"stream\":\"stderr\"}\n");
	ran_free(&r);
	r = run(&f, "submit --network none --json train.py");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"job.accepted\",\"job\":"
				   "\"7f3a1c00d00d\",\"state\":\"queued\"}\n");
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

/* --- output ---------------------------------------------------------------------------------------- */

static void
give_binary(struct fake *f, struct fake_request *r)
{
	static const uint8_t data[] = { 0xff, 0x00, 'x' };
	struct om_output_query q = { 0 };
	struct om_output_data piece = { .size = 3, .end = true };

	(void)f;
	fake_body(r, &q);
	OM_ASSERT(om_str_is(q.file, "m.bin") && q.offset <= 3);
	piece.data = (struct om_bin){ data + q.offset, 3 - q.offset };
	piece.offset = q.offset;
	fake_answer(r, OM_MSG_OUTPUT_DATA, &piece);
}

static void
test_output_is_bytes_or_json_lines(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;
	struct stat st;

	(void)state;
	place_enter(&p);
	fake_new(&f, give_binary, NULL);
	r = run(&f, "output 7f --file m.bin");
	assert_int_equal(r.out_len, 3);
	assert_memory_equal(r.out, "\xff\0x", 3);
	ran_free(&r);
	r = run(&f, "output 7f --file m.bin --json");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"output.data\",\"data\":{\"base64\":"
				   "\"/wB4\"},\"offset\":0,\"job\":\"7f\",\"file\":\"m.bin\"}\n");
	ran_free(&r);
	write_file("got", "\xff"); /* one byte is there already */
	r = run(&f, "output 7f --file m.bin --to got");
	assert_int_equal(r.status, 0);
	assert_int_equal(stat("got", &st), 0);
	assert_int_equal(st.st_size, 3);
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

/* --- what is shown --------------------------------------------------------------------------------- */

/* Two pages of one job each; the activity tries to play with the terminal. */
static void
give_pages(struct fake *f, struct fake_request *r)
{
	struct om_job_query q = { 0 };
	struct om_job_info info = { .state = OM_STR("queued") };
	struct om_job_table table = { .jobs = { &info, 1 } };

	(void)f;
	fake_body(r, &q);
	OM_ASSERT(q.states.n == 2 && om_str_is(q.peer, "bob"));
	OM_SET(&info, job_info, activity, OM_STR("a\tb\033]0;x\007\xc2\x9b\xc3\xa9"));
	OM_SET(&info, job_info, peer, OM_STR("bob"));
	if (q.cursor.len == 0) {
		info.job = OM_STR("one");
		OM_SET(&table, job_table, next, OM_STR("c1"));
	} else {
		OM_ASSERT(om_str_is(q.cursor, "c1"));
		info.job = OM_STR("two");
	}
	fake_answer(r, OM_MSG_JOB_TABLE, &table);
}

static void
test_list_goes_over_pages_and_cleans_text(void **state)
{
	struct fake f;
	struct ran r;

	(void)state;
	fake_new(&f, give_pages, NULL);
	r = run(&f, "list -s queued --state running --peer bob");
	assert_string_equal(r.out, "one\tqueued\t-\tbob\t-\t-\t-\ta?b?]0;x??\xc3\xa9\n"
				   "two\tqueued\t-\tbob\t-\t-\t-\ta?b?]0;x??\xc3\xa9\n");
	ran_free(&r);
	r = run(&f, "list -s queued --state running --peer bob --limit 1 --json");
	assert_string_equal(r.out,
			    "{\"version\":1,\"type\":\"job.table\",\"jobs\":[{\"job\":\"one\","
			    "\"state\":\"queued\",\"peer\":\"bob\",\"activity\":"
			    "\"a\\tb\\u001B]0;x\\u0007\xc2\x9b\xc3\xa9\"}],\"next\":\"c1\"}\n");
	ran_free(&r);
	fake_free(&f);
}

static void
give_policy(struct fake *f, struct fake_request *r)
{
	struct om_trace_step steps[2] = { { .name = OM_STR("owner"), .outcome = OM_STR("no") },
					  { .name = OM_STR("resources"),
					    .outcome = OM_STR("hit") } };
	struct om_filter_decision decision = { .verdict = OM_STR("rejected") };
	struct om_audit_report report = { .intact = f->arg == NULL, .entries = 4211 };
	struct om_filter_request q = { 0 };
	struct om_count one = { .count = 1 };
	struct om_job_refs refs = { 0 };

	switch (r->envelope.type) {
	case OM_MSG_RULES_TEST:
		fake_body(r, &q);
		OM_ASSERT(om_str_is(q.peer, "bob") && q.mem_mib == 32768 && q.trace &&
			  q.runtime_s == 600 && om_str_is(q.network_id, "cafe"));
		OM_SET(&steps[1], trace_step, priority, 50);
		OM_SET(&steps[1], trace_step, text, OM_STR("too much"));
		OM_SET(&decision, filter_decision, text, OM_STR("memory 32768 MiB is too much"));
		OM_SET(&decision, filter_decision, trace,
		       ((struct om_trace_step_list){ steps, 2 }));
		fake_answer(r, OM_MSG_FILTER_DECISION, &decision);
		break;
	case OM_MSG_AUDIT_VERIFY:
		OM_SET(&report, audit_report, bad_seq, 17);
		OM_SET(&report, audit_report, text, OM_STR("its hash differs"));
		fake_answer(r, OM_MSG_AUDIT_REPORT, &report);
		break;
	case OM_MSG_JOB_APPROVE:
		fake_body(r, &refs);
		OM_ASSERT(refs.jobs.n == 2 && refs.always);
		fake_answer(r, OM_MSG_COUNTED, &one);
		break;
	default:
		fake_error(r, OM_ERR_DENIED, "");
	}
}

static void
test_policy_verbs(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	write_file("got", "# a job\nfrom = bob\nmemory = 32G\n\n[x]\ntimeout = 10m\n");
	fake_new(&f, give_policy, NULL);
	r = run(&f, "rules test got --network cafe");
	assert_string_equal(r.out, "owner\t-\tno\t-\nresources\t50\thit\ttoo much\n"
				   "=> rejected: memory 32768 MiB is too much\n");
	ran_free(&r);
	r = run(&f, "approve a b --always");
	assert_string_equal(r.out, "approved: 1\n");
	ran_free(&r);
	r = run(&f, "approve a b --always -j");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"count\",\"count\":1}\n");
	ran_free(&r);
	r = run(&f, "audit verify");
	assert_string_equal(r.out, "4211 entries, chain intact\n");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	f.arg = &f;
	r = run(&f, "audit verify");
	assert_string_equal(r.out, "4211 entries, BROKEN at entry 17: its hash differs\n");
	assert_int_equal(r.status, 1);
	ran_free(&r);
	r = run(&f, "queue pause lunch");
	assert_int_equal(r.status, 77);
	ran_free(&r);
	write_file("got", "colour = red\n");
	r = run(&f, "rules test got --peer bob");
	assert_int_equal(r.status, 2);
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

static void
give_status(struct fake *f, struct fake_request *r)
{
	struct om_queue_stats queue = { .queued = 4, .running = 1, .max_jobs = 2, .paused = true };
	struct om_pair today[] = { { OM_STR("completed"), OM_STR("37") },
				   { OM_STR("failed"), OM_STR("2") } };
	struct om_daemon_status m = { .version = OM_STR("0.1.0"),
				      .pid = 7,
				      .uptime_ms = 11520000,
				      .state = OM_STR("ready") };

	(void)f;
	OM_SET(&m, daemon_status, queue, &queue);
	OM_SET(&m, daemon_status, pending, 2);
	OM_SET(&m, daemon_status, today, ((struct om_pairs){ today, 2 }));
	fake_answer(r, OM_MSG_DAEMON_STATE, &m);
}

static void
test_status_is_one_line(void **state)
{
	struct fake f;
	struct ran r;

	(void)state;
	fake_new(&f, give_status, NULL);
	r = run(&f, "status");
	assert_string_equal(r.out, "running 3 h 12 min   queue: 1 running, 4 queued, 2 waiting for "
				   "approval, paused   today: 37 completed, 2 failed\n");
	ran_free(&r);
	r = run(&f, "call daemon.status");
	assert_has(
	    r.out,
	    "{\"version\":1,\"type\":\"daemon.state\",\"daemon_version\":\"0.1.0\",\"pid\":7,");
	ran_free(&r);
	fake_free(&f);
}

/* --- the JSON schema ------------------------------------------------------------------------------- */

static const char *
json_kind(enum om_kind kind)
{
	static const char *const names[] = { "integer", "integer", "number", "boolean",
					     "string",  "binary",  "binary", "strings",
					     "map",     "object",  "objects" };

	return names[kind];
}

static void
mark_body(enum om_body_type body, bool seen[OM_BODY_COUNT])
{
	const struct om_body_info *info = om_body_info(body);

	if (seen[body]) {
		return;
	}
	seen[body] = true;
	for (size_t i = 0; i < info->field_count; i++) {
		if (info->fields[i].kind == OM_KIND_OBJ || info->fields[i].kind == OM_KIND_OBJS) {
			mark_body(info->fields[i].sub, seen);
		}
	}
}

/* What a script may rely on: no field of an answer goes away or changes its kind. */
static void
test_json_schema_only_grows(void **state)
{
	char *golden = slurp("tests/unit/client_json.golden");
	FILE *out = NULL;
	bool seen[OM_BODY_COUNT] = { false };
	struct om_buf now = { 0 };
	char *line, *save = NULL;

	(void)state;
	for (int m = OM_MSG_NONE + 1; m < OM_MSG_COUNT; m++) {
		if (om_msg_info((enum om_msg_type)m)->who != OM_WHO_ACTOR) {
			mark_body(om_msg_info((enum om_msg_type)m)->body, seen);
		}
	}
	for (int b = 0; b < OM_BODY_COUNT; b++) {
		const struct om_body_info *info = om_body_info((enum om_body_type)b);

		for (size_t i = 0; seen[b] && i < info->field_count; i++) {
			om_buf_printf(&now, "%s.%s %s\n", info->name, info->fields[i].name,
				      json_kind(info->fields[i].kind));
		}
	}
	/* OMERTA_WRITE_GOLDEN=1 adds what is new. */
	if (getenv("OMERTA_WRITE_GOLDEN") != NULL) {
		out = fopen("tests/unit/client_json.golden", "we");
		assert_non_null(out);
		assert_true(fputs(om_buf_cstr(&now), out) >= 0 && fclose(out) == 0);
	}
	for (line = strtok_r(golden, "\n", &save); line != NULL;
	     line = strtok_r(NULL, "\n", &save)) {
		char whole[128];

		(void)snprintf(whole, sizeof(whole), "%s\n", line);
		assert_has(om_buf_cstr(&now), whole);
	}
	om_buf_fini(&now);
	free(golden);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usage_errors_end_with_2_and_say_what),
		cmocka_unit_test(test_help_knows_every_verb_and_option),
		cmocka_unit_test(test_options_are_unambiguous),
		cmocka_unit_test(test_manual_and_completion_know_every_verb_and_option),
		cmocka_unit_test(test_language_is_guessed),
		cmocka_unit_test(test_exit_codes_of_errors),
		cmocka_unit_test(test_submit_says_everything),
		cmocka_unit_test(test_the_tunnel_comes_from_a_file_or_there_is_none),
		cmocka_unit_test(test_submit_wait_shows_output_and_exits_as_the_job),
		cmocka_unit_test(test_submit_wait_in_json),
		cmocka_unit_test(test_output_is_bytes_or_json_lines),
		cmocka_unit_test(test_list_goes_over_pages_and_cleans_text),
		cmocka_unit_test(test_policy_verbs),
		cmocka_unit_test(test_status_is_one_line),
		cmocka_unit_test(test_json_schema_only_grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
