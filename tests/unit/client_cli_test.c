/* SPDX-License-Identifier: ISC */
/* The command line: arguments, errors, what is shown, and the JSON schema. */
#include "tests/unit/client_cli_rig.h"

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

/* `omertad VERB` is the same; its page names them, by their first word. */
static void
test_manual_of_the_daemon_names_every_verb(void **state)
{
	char *man = slurp("docs/man/omertad.8");
	char text[64];

	(void)state;
	for (char *c = man; *c != '\0'; c++) {
		*c = *c == '\n' ? ' ' : *c;
	}
	for (size_t v = 0; v < om_verb_count; v++) {
		(void)snprintf(text, sizeof(text), " %.*s ", (int)strcspn(om_verbs[v].name, " "),
			       om_verbs[v].name);
		assert_has(man, text);
	}
	free(man);
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
	} cases[] = { { "denied", 77 },       { "full", 75 },     { "limit", 75 },
		      { "rate_limited", 75 }, { "timeout", 75 },  { "shutting_down", 75 },
		      { "draining", 75 },     { "not_found", 1 }, { "rejected", 1 },
		      { "wrong_state", 1 },   { "internal", 1 },  { "a_new_one", 1 } };
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

/* 2,500 entries in pages. */
static void
give_trail(struct fake *f, struct fake_request *r)
{
	static struct om_audit_entry entries[1000];
	struct om_audit_query q = { 0 };
	struct om_audit_table table = { .entries = { entries, 0 } };

	(void)f;
	fake_body(r, &q);
	while (table.entries.n < q.limit && q.after_seq + table.entries.n < 2500) {
		struct om_audit_entry *e = &entries[table.entries.n++];

		*e = (struct om_audit_entry){ .seq = q.after_seq + table.entries.n,
					      .at_ms = 1,
					      .event = OM_STR("received") };
	}
	fake_answer(r, OM_MSG_AUDIT_TABLE, &table);
}

static void
test_audit_goes_over_pages(void **state)
{
	struct fake f;
	struct ran r;
	size_t lines = 0;

	(void)state;
	fake_new(&f, give_trail, NULL);
	r = run(&f, "audit --json");
	for (const char *c = r.out; (c = strchr(c, '\n')) != NULL; c++) {
		lines++;
	}
	assert_int_equal(lines, 2500);
	assert_has(r.out, "{\"version\":1,\"type\":\"audit.entry\",\"seq\":2500,");
	ran_free(&r);
	r = run(&f, "audit -n 1001 --json");
	assert_has(r.out, "\"seq\":1001,");
	assert_null(strstr(r.out, "\"seq\":1002,"));
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
	struct om_job_info queued = { .job = OM_STR("7f3a"), .state = OM_STR("queued") };

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
	case OM_MSG_JOB_GET:
		OM_SET(&queued, job_info, level, OM_STR("external"));
		fake_answer(r, OM_MSG_JOB_INFO, &queued);
		break;
	case OM_MSG_JOB_APPROVE:
		fake_body(r, &refs);
		OM_ASSERT(refs.jobs.n == 1 && om_str_is(refs.trust, "peer"));
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
	r = run(&f, "approve a b --always=peer");
	assert_string_equal(r.out, "approved 7f3a: queued at level external\n"
				   "approved 7f3a: queued at level external\n");
	ran_free(&r);
	r = run(&f, "approve a b --always peer -j");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"count\",\"count\":2}\n");
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
	OM_SET(&queue, queue_stats, draining, true);
	OM_SET(&queue, queue_stats, drain_reason, OM_STR("new disk"));
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
				   "approval, paused, draining   today: 37 completed, 2 failed\n");
	ran_free(&r);
	r = run(&f, "status -d");
	assert_has(r.out, "paused    no reason given\ndraining  new disk\n");
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
		cmocka_unit_test(test_manual_of_the_daemon_names_every_verb),
		cmocka_unit_test(test_language_is_guessed),
		cmocka_unit_test(test_exit_codes_of_errors),
		cmocka_unit_test(test_list_goes_over_pages_and_cleans_text),
		cmocka_unit_test(test_audit_goes_over_pages),
		cmocka_unit_test(test_policy_verbs),
		cmocka_unit_test(test_status_is_one_line),
		cmocka_unit_test(test_json_schema_only_grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
