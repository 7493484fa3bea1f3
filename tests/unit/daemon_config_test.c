/* SPDX-License-Identifier: ISC */
/* The settings: table, syntax, precedence, rules, errors. */
#include "daemon_config_rig.h"

/* A value of the item's kind that is not its default. */
static const char *
other_value(const struct om_conf_info *info, char *out, size_t size)
{
	const char *bar;

	switch (info->kind) {
	case OM_CONF_BOOL:
		return strcmp(info->def, "yes") == 0 ? "no" : "yes";
	case OM_CONF_CHOICE:
		bar = strrchr(info->choices, '|');
		assert_non_null(bar);
		return bar + 1;
	case OM_CONF_PATH:
		return "/somewhere/else";
	case OM_CONF_TEXT:
		return "other";
	case OM_CONF_LIST:
		return "one, two";
	case OM_CONF_MIB:
		snprintf(out, size, "%lluM", (unsigned long long)info->most);
		if (strcmp(out, info->def) == 0) {
			snprintf(out, size, "%lluM", (unsigned long long)info->least);
		}
		return out;
	case OM_CONF_MS:
		snprintf(out, size, "%llums", (unsigned long long)info->most);
		return out;
	case OM_CONF_U64:
		break;
	}
	snprintf(out, size, "%llu", (unsigned long long)info->most);
	return out;
}

/* testAllPropertiesHaveParserCases: every row of the table is read, kept and printed. */
static void
test_all_properties_have_parser_cases(void **state)
{
	char text[256], value[64];

	(void)state;
	for (int i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);
		const char *want = other_value(info, value, sizeof(value));
		struct om_config *defaults = load_good("");
		struct om_config *config;
		const char *a, *b;
		size_t size;

		snprintf(text, sizeof(text), "[%s]\n%s = %s\n", info->section, info->name, want);
		config = load_good(text);
		assert_string_equal(om_config_text(config, (enum om_conf_item)i), want);
		assert_false(om_config_is_default(config, (enum om_conf_item)i));
		assert_true(om_config_is_default(defaults, (enum om_conf_item)i));
		a = (const char *)om_config_settings(config) + info->offset;
		b = (const char *)om_config_settings(defaults) + info->offset;
		size = info->kind == OM_CONF_BOOL     ? sizeof(bool)
		       : info->kind == OM_CONF_CHOICE ? sizeof(unsigned)
		       : info->kind == OM_CONF_LIST   ? sizeof(struct om_strs)
						      : sizeof(uint64_t);
		assert_memory_not_equal(a, b, size);
		om_config_free(config);
		om_config_free(defaults);
	}
}

/* The table itself: a default that is in its range, a help text, a name that is found. */
static void
test_table_is_sound(void **state)
{
	enum om_conf_item found;

	(void)state;
	for (int i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);
		struct om_why why = { "" };

		if (om_conf_check((enum om_conf_item)i, om_str_of(info->def), &why) != OM_OK) {
			fail_msg("default of %s: %s", info->key, why.text);
		}
		assert_true(strlen(info->help) > 10);
		assert_true(om_conf_find(om_str_of(info->key), &found));
		assert_int_equal(found, i);
		assert_int_equal(info->kind == OM_CONF_CHOICE, info->choices[0] != '\0');
	}
}

static void
test_parse_empty_config(void **state)
{
	struct om_config *config = load_good("");
	const struct om_settings *s = om_config_settings(config);

	(void)state;
	assert_int_equal(s->jobs_max_jobs, 1);
	assert_int_equal(s->control_port, 50051);
	assert_string_equal(s->jobs_owner_peer, "");
	assert_int_equal(s->jobs_trusted_networks.n, 0);
	assert_string_equal(om_config_control_socket(config), "/run/omerta/control.sock");
	assert_string_equal(om_config_server_key(config), "/var/lib/omertad/curve.key");
	assert_string_equal(om_config_image_dir(config), "/var/cache/omertad/images");
	assert_string_equal(om_config_origin(config, OM_CONF_jobs_max_jobs), "default");
	om_config_free(config);
}

static void
test_parse_key_variants(void **state)
{
	static const char *const variants[] = {
		"[jobs]\nmax_jobs=7\n",    "[jobs]\nmax-jobs=7\n", "[jobs]\nmaxjobs=7\n",
		"[Jobs]\nMaxJobs : 7\n",   "max-jobs=7\n",         "max_jobs=7\n",
		"max-concurrent-jobs=7\n", "maxConcurrentJobs=7\n"
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(variants); i++) {
		struct om_config *config = load_good(variants[i]);

		assert_int_equal(om_config_settings(config)->jobs_max_jobs, 7);
		om_config_free(config);
	}
}

/* The reference's flat file. */
static void
test_old_names_of_the_reference(void **state)
{
	struct om_config *config = load_good("port = 50052\nowner-peer = alice\n"
					     "trusted-networks = home, lab\n"
					     "default-action = acceptTrustedOnly\n");
	const struct om_settings *s = om_config_settings(config);
	char word[64];

	(void)state;
	assert_int_equal(s->control_port, 50052);
	assert_string_equal(s->jobs_owner_peer, "alice");
	assert_int_equal(s->jobs_trusted_networks.n, 2);
	assert_true(om_str_is(s->jobs_trusted_networks.v[1], "lab"));
	assert_string_equal(
	    om_config_choice(config, OM_CONF_jobs_default_action, word, sizeof(word)),
	    "accept_trusted_reject_others");
	om_config_free(config);
}

static void
test_parse_boolean_values(void **state)
{
	static const struct {
		const char *text;
		bool value;
	} cases[] = { { "yes", true },    { "true", true }, { "TRUE", true },
		      { "1", true },      { "on", true },   { "no", false },
		      { "False", false }, { "0", false },   { "off", false } };
	char text[64];

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		struct om_config *config;

		snprintf(text, sizeof(text), "[control]\nevents = %s\n", cases[i].text);
		config = load_good(text);
		assert_int_equal(om_config_settings(config)->control_events, cases[i].value);
		om_config_free(config);
	}
	refused("[control]\nevents = maybe\n", ":2: control.events: 'maybe' is neither");
	refused("[control]\nevents =\n", "neither yes nor no");
}

static void
test_parse_quoted_values(void **state)
{
	struct om_config *config = load_good("[jobs]\nowner_peer = \"  a # b ; c \" # comment\n"
					     "[libvirt]\nuri = \"\"\n");

	(void)state;
	assert_string_equal(om_config_settings(config)->jobs_owner_peer, "  a # b ; c ");
	assert_string_equal(om_config_settings(config)->libvirt_uri, "");
	om_config_free(config);
	refused("[jobs]\nowner_peer = \"open\n", ":2: a quote is not closed");
}

static void
test_parse_ignores_comments(void **state)
{
	struct om_config *config = load_good("# one\n; two\n\n  # three\n[jobs] # four\n"
					     "max_jobs = 3 ; five\nowner_peer = a#b # six\n");

	(void)state;
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 3);
	assert_string_equal(om_config_settings(config)->jobs_owner_peer, "a#b");
	om_config_free(config);
}

static void
test_parse_handles_whitespace(void **state)
{
	struct om_config *config =
	    load_good("\xef\xbb\xbf  [ jobs ]\t\r\n\t max_jobs \t=\t 4 \t\r\nowner_peer=x");

	(void)state;
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 4);
	assert_string_equal(om_config_settings(config)->jobs_owner_peer, "x");
	om_config_free(config);
}

/* The reference ignores unknown keys and bad integers without a word. */
static void
test_problems_have_file_line_and_a_suggestion(void **state)
{
	(void)state;
	refused("[jobs]\nmax_job = 2\n", "omertad.conf:2: unknown setting jobs.max_job; did you "
					 "mean jobs.max_jobs?");
	refused("max_obs = 2\n", "did you mean jobs.max_jobs?");
	refused("[contrl]\n", ":1: unknown section [contrl]; did you mean [control]?");
	refused("[control]\nmax_jobs = 2\n", "did you mean jobs.max_jobs?");
	refused("[jobs]\nmax_jobs = 0\n", ":2: jobs.max_jobs: 0 is not between 1 and 10000");
	refused("[jobs]\nmax_jobs = 2x\n", "'2x' is no whole number");
	refused("[jobs]\nmax_jobs = -1\n", "'-1' is no whole number");
	refused("[jobs]\nmax_jobs = 99999999999999999999999\n", "is no whole number");
	refused("[control]\nport = 65536\n", "not between 1 and 65535");
	refused("[jobs]\nmax_jobs = 1\nmax-jobs = 2\n", ":3: jobs.max_jobs is set twice, first at");
	refused("[daemon]\nstate_dir = relative\n", "must begin with /");
	refused("[daemon]\ndrain_timeout = soon\n", "is no time such as");
	refused("[jobs]\nlend_memory = 4Q\n", "is no size such as");
	refused("[daemon]\nlog_level = loud\n", "'loud' is none of debug|info|warn|error");
	refused("[jobs]\njust words\n", ":2: expected `key = value`");
	refused("[jobs\n", "a section is written");
	refused("[]\n", "a section needs a name");
	refused("= 3\n", "no key before the sign");
	refused("[jobs x]\n", "only a rule has a name");
	refused("[jobs]\nowner_peer = a\001b\n", "control byte");
	refused("[jobs]\nowner_peer = \xff\n", "not UTF-8");
}

static void
test_all_problems_at_once(void **state)
{
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };

	(void)state;
	assert_int_equal(load_with("[jobs]\nmax_jobs = x\nnope = 1\n[daemon]\nworkers = -\n", NULL,
				   &config, &problems),
			 OM_ERR_INVALID);
	assert_non_null(strstr(om_buf_cstr(&problems), ":2: "));
	assert_non_null(strstr(om_buf_cstr(&problems), ":3: "));
	assert_non_null(strstr(om_buf_cstr(&problems), ":5: "));
	om_buf_fini(&problems);
}

static void
test_missing_file(void **state)
{
	struct om_conf_sources sources = { .file = "/nonexistent/omertad.conf" };
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };

	(void)state;
	assert_int_equal(om_config_load(&sources, &config, &problems), OM_OK);
	om_config_free(config);
	config = NULL;
	sources.file_must_exist = true;
	assert_int_equal(om_config_load(&sources, &config, &problems), OM_ERR_INVALID);
	assert_non_null(strstr(om_buf_cstr(&problems), "No such file"));
	om_buf_fini(&problems);
}

static void
test_precedence_and_origin(void **state)
{
	char env_name[] = "OMERTAD_JOBS_MAX_JOBS=5", other[] = "PATH=/bin",
	     conf[] = "OMERTAD_CONFIG=/x", old[] = "OMERTAD_OWNER_PEER=env";
	char *env[] = { other, env_name, conf, old, NULL };
	const struct om_conf_flag flag = { "max-jobs", "6", "--max-jobs" };
	struct om_conf_sources sources = { .file_must_exist = true };
	struct om_config *config = NULL;
	char text[256];

	(void)state;
	assert_int_equal(mkdir(path_of("omertad.conf.d"), 0700), 0);
	assert_int_equal(mkdir(path_of("state"), 0700), 0);
	snprintf(text, sizeof(text), "[jobs]\nmax_jobs = 2\n[daemon]\nstate_dir = %s/state\n", dir);

	assert_int_equal(load_with(text, &sources, &config, NULL), OM_OK);
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 2);
	assert_non_null(strstr(om_config_origin(config, OM_CONF_jobs_max_jobs), "omertad.conf:2"));
	om_config_free(config);

	put_file("omertad.conf.d/20-b.conf", "[jobs]\nmax_jobs = 4\n");
	put_file("omertad.conf.d/10-a.conf", "[jobs]\nmax_jobs = 3\n");
	put_file("omertad.conf.d/ignored.txt", "[jobs]\nnonsense\n");
	assert_int_equal(load_with(text, &sources, &config, NULL), OM_OK);
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 4);
	om_config_free(config);

	put_file("state/live.conf", "[jobs]\nmax_jobs = 9\n");
	sources.with_live = true;
	assert_int_equal(load_with(text, &sources, &config, NULL), OM_OK);
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 9);
	assert_false(om_config_is_pinned(config, OM_CONF_jobs_max_jobs));
	om_config_free(config);

	sources.env = env;
	assert_int_equal(load_with(text, &sources, &config, NULL), OM_OK);
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 5);
	assert_string_equal(om_config_settings(config)->jobs_owner_peer, "env");
	assert_string_equal(om_config_origin(config, OM_CONF_jobs_max_jobs),
			    "environment OMERTAD_JOBS_MAX_JOBS");
	assert_true(om_config_is_pinned(config, OM_CONF_jobs_max_jobs));
	om_config_free(config);

	sources.flags = &flag;
	sources.flag_count = 1;
	assert_int_equal(load_with(text, &sources, &config, NULL), OM_OK);
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 6);
	assert_string_equal(om_config_origin(config, OM_CONF_jobs_max_jobs), "flag --max-jobs");
	om_config_free(config);
}

static void
test_unknown_environment_is_an_error(void **state)
{
	char bad[] = "OMERTAD_MAX_JBS=1";
	char *env[] = { bad, NULL };
	struct om_conf_sources sources = { .env = env };
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };

	(void)state;
	assert_int_equal(om_config_load(&sources, &config, &problems), OM_ERR_INVALID);
	assert_non_null(strstr(om_buf_cstr(&problems), "OMERTAD_MAX_JBS: no such setting"));
	om_buf_fini(&problems);
}

static void
test_lists_add_in_one_file_and_replace_across(void **state)
{
	struct om_conf_sources sources = { .file_must_exist = true };
	struct om_config *config = load_good("[jobs]\ntrusted_networks = a, b\n"
					     "trusted_networks = c,,d\n");
	const struct om_strs *list = &om_config_settings(config)->jobs_trusted_networks;

	(void)state;
	assert_int_equal(list->n, 4);
	assert_true(om_str_is(list->v[0], "a"));
	assert_true(om_str_is(list->v[3], "d"));
	om_config_free(config);

	assert_int_equal(mkdir(path_of("omertad.conf.d"), 0700), 0);
	put_file("omertad.conf.d/x.conf", "[jobs]\ntrusted_networks = z\n");
	assert_int_equal(load_with("[jobs]\ntrusted_networks = a\n", &sources, &config, NULL),
			 OM_OK);
	list = &om_config_settings(config)->jobs_trusted_networks;
	assert_int_equal(list->n, 1);
	assert_true(om_str_is(list->v[0], "z"));
	om_config_free(config);
}

static void
test_rules(void **state)
{
	struct om_config *config = load_good("[rule night]\nkind = quiet_hours\npriority = 60\n"
					     "start = 22:00\nend = 8:00\n"
					     "[rule words]\nkind = activity\nforbid = crypto\n"
					     "forbid = mining\nenabled = no\n"
					     "[jobs]\nmax_jobs = 2\n");
	const struct om_rule *rules;
	size_t count;

	(void)state;
	rules = om_config_rules(config, &count);
	assert_int_equal(count, 2);
	assert_true(om_str_is(rules[0].name, "night"));
	assert_true(om_str_is(rules[0].kind, "quiet_hours"));
	assert_int_equal(rules[0].priority, 60);
	assert_true(rules[0].enabled);
	assert_int_equal(rules[0].settings.n, 2);
	assert_true(om_str_is(rules[0].settings.v[1].key, "end"));
	assert_true(om_str_is(rules[0].settings.v[1].value, "8:00"));
	assert_false(rules[1].enabled);
	assert_false(OM_HAS(&rules[1], rule, priority));
	assert_int_equal(rules[1].settings.n, 1);
	assert_true(om_str_is(rules[1].settings.v[0].value, "crypto,mining"));
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 2);
	om_config_free(config);
	refused("[rule]\nkind = activity\n", "a rule is written [rule NAME]");
	refused("[rule a]\nkind = activity\n[rule a]\n", ":3: the rule a is there twice");
	refused("[rule a]\npriority = 3\n", "the rule a has no kind");
	refused("[rule a]\nkind = x\npriority = 1001\n", "not between 0 and 1000");
}

static enum om_err
only_activity(const struct om_rule *rule, struct om_why *why)
{
	if (!om_str_is(rule->kind, "activity")) {
		return om_why_set(why, OM_ERR_INVALID, "no such kind");
	}
	return OM_OK;
}

static void
test_rules_are_checked_by_the_filter(void **state)
{
	struct om_conf_sources sources = { .file_must_exist = true, .check_rule = only_activity };
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };

	(void)state;
	assert_int_equal(load_with("\n[rule a]\nkind = activty\n", &sources, &config, &problems),
			 OM_ERR_INVALID);
	assert_non_null(strstr(om_buf_cstr(&problems), "omertad.conf:2: the rule a: no such kind"));
	om_buf_fini(&problems);
}

/* Bytes of every kind end as an error or a configuration, never worse. */
static void
test_garbage(void **state)
{
	unsigned seed = 1;
	struct om_config *config;
	static const char pieces[][12] = { "[",  "]",        "=",    "\"",       "#",
					   "\n", "[rule x]", "jobs", "max_jobs", "1",
					   " ",  "kind",     "\xff", "," };

	(void)state;
	for (int turn = 0; turn < 400; turn++) {
		char text[512];
		size_t len = 0;

		for (int i = 0; i < 40; i++) {
			const char *piece;

			seed = seed * 1103515245u + 12345u;
			piece = pieces[(seed >> 16) % OM_COUNT(pieces)];
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s", piece);
		}
		config = NULL;
		if (load_with(text, NULL, &config, NULL) == OM_OK) {
			assert_non_null(config);
			om_config_free(config);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_all_properties_have_parser_cases),
		TEST(test_table_is_sound),
		TEST(test_parse_empty_config),
		TEST(test_parse_key_variants),
		TEST(test_old_names_of_the_reference),
		TEST(test_parse_boolean_values),
		TEST(test_parse_quoted_values),
		TEST(test_parse_ignores_comments),
		TEST(test_parse_handles_whitespace),
		TEST(test_problems_have_file_line_and_a_suggestion),
		TEST(test_all_problems_at_once),
		TEST(test_missing_file),
		TEST(test_precedence_and_origin),
		TEST(test_unknown_environment_is_an_error),
		TEST(test_lists_add_in_one_file_and_replace_across),
		TEST(test_rules),
		TEST(test_rules_are_checked_by_the_filter),
		TEST(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
