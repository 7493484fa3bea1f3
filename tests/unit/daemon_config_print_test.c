/* SPDX-License-Identifier: ISC */
/* The settings as text: sample, manual, show, JSON, live.conf. */
#include "daemon_config_rig.h"

/* testSampleConfigIsValid: as it is, and with every setting switched on. */
static void
test_sample_config_is_valid(void **state)
{
	struct om_buf sample = { 0 };
	struct om_config *config;
	size_t rules;
	char *at;

	(void)state;
	om_config_generate(&sample);
	config = load_good(om_buf_cstr(&sample));
	om_config_rules(config, &rules);
	assert_int_equal(rules, 2);
	om_config_free(config);

	at = (char *)sample.data;
	while ((at = strstr(at, "\n#")) != NULL) {
		if (at[2] != ' ') {
			at[1] = ' ';
		}
		at += 2;
	}
	config = load_good(om_buf_cstr(&sample));
	for (int i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);

		if ((info->flags & OM_CONF_HIDDEN) == 0) {
			assert_string_equal(om_config_text(config, (enum om_conf_item)i),
					    info->def);
			assert_false(om_config_is_default(config, (enum om_conf_item)i));
		}
	}
	om_config_free(config);
	om_buf_fini(&sample);
}

/* What `config show` prints is a configuration that says the same. */
static void
test_show_reads_back(void **state)
{
	static const char text[] =
	    "[jobs]\nmax_jobs = 3\ntrusted_networks = a, b\n"
	    "owner_peer = \" x;y \"\n[rule r]\nkind = activity\nforbid = z\n";
	struct om_config *first = load_good(text), *second;
	struct om_buf shown = { 0 };

	(void)state;
	om_config_print(first, true, &shown);
	second = load_good(om_buf_cstr(&shown));
	for (int i = 0; i < OM_CONF_COUNT; i++) {
		assert_string_equal(om_config_text(first, (enum om_conf_item)i),
				    om_config_text(second, (enum om_conf_item)i));
	}
	om_config_free(first);
	om_config_free(second);
	om_buf_fini(&shown);
}

static void
test_json_is_escaped(void **state)
{
	struct om_config *config = load_good("[jobs]\nowner_peer = a\"b\\c\n");
	struct om_buf out = { 0 };

	(void)state;
	om_config_print_json(config, &out);
	assert_non_null(strstr(om_buf_cstr(&out),
			       "\"key\":\"jobs.owner_peer\",\"value\":\"a\\\"b\\\\c\",\"origin\""));
	om_config_free(config);
	om_buf_fini(&out);
}

/* Whatever is set is what is read again, or is refused before anything is written. */
static void
test_live_values_read_back(void **state)
{
	static const char *const good[] = { "\"x",  "\"x\"", "x\"",   " x ", "a;b",
					    "a ;b", "#",     "a # b", "\"",  "" };
	static const char *const bad[] = { "a\nport = 1", "\" #" };
	struct om_conf_sources sources = { .file = path_of("live.conf"), .file_must_exist = true };
	struct om_why why = { "" };
	struct om_config *config = NULL;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(good); i++) {
		if (om_config_write_live(path_of("live.conf"), OM_CONF_control_operator_group,
					 om_str_of(good[i]), &why) != OM_OK) {
			fail_msg("%s: %s", good[i], why.text);
		}
		assert_int_equal(om_config_load(&sources, &config, NULL), OM_OK);
		assert_string_equal(om_config_settings(config)->control_operator_group, good[i]);
		om_config_free(config);
	}
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		assert_int_equal(om_config_write_live(path_of("live.conf"),
						      OM_CONF_control_operator_group,
						      om_str_of(bad[i]), &why),
				 OM_ERR_INVALID);
		assert_non_null(strstr(why.text, "control.operator_group"));
	}
	assert_int_equal(om_config_load(&sources, &config, NULL), OM_OK);
	om_config_free(config);
}

static void
test_live_file(void **state)
{
	struct om_why why = { "" };
	struct om_config *config = NULL;
	struct om_conf_sources sources = { .file_must_exist = true };

	(void)state;
	sources.file = path_of("live.conf");
	assert_int_equal(
	    om_config_write_live(path_of("live.conf"), OM_CONF_jobs_max_jobs, OM_STR("8"), &why),
	    OM_OK);
	assert_int_equal(om_config_write_live(path_of("live.conf"), OM_CONF_daemon_log_level,
					      OM_STR("debug"), &why),
			 OM_OK);
	assert_int_equal(
	    om_config_write_live(path_of("live.conf"), OM_CONF_jobs_max_jobs, OM_STR("9"), &why),
	    OM_OK);
	assert_int_equal(om_config_load(&sources, &config, NULL), OM_OK);
	assert_int_equal(om_config_settings(config)->jobs_max_jobs, 9);
	assert_int_equal(om_config_settings(config)->daemon_log_level, 0);
	om_config_free(config);
	/* Removing one keeps the other. */
	assert_int_equal(om_config_write_live(path_of("live.conf"), OM_CONF_jobs_max_jobs,
					      (struct om_str){ NULL, 0 }, &why),
			 OM_OK);
	assert_int_equal(om_config_load(&sources, &config, NULL), OM_OK);
	assert_true(om_config_is_default(config, OM_CONF_jobs_max_jobs));
	assert_int_equal(om_config_settings(config)->daemon_log_level, 0);
	om_config_free(config);
	/* A file that someone broke is not overwritten. */
	put_file("live.conf", "[jobs]\nnonsense = 1\n");
	assert_int_equal(
	    om_config_write_live(path_of("live.conf"), OM_CONF_jobs_max_jobs, OM_STR("9"), &why),
	    OM_ERR_INVALID);
	assert_non_null(strstr(why.text, "nonsense"));
	assert_int_equal(om_config_write_live("/nonexistent/live.conf", OM_CONF_jobs_max_jobs,
					      OM_STR("9"), &why),
			 OM_ERR_IO);
}

/* omertad.conf(5) holds the table that the code makes, word for word. */
static void
test_manual_has_the_table(void **state)
{
	FILE *f = fopen("docs/man/omertad.conf.5", "r");
	struct om_buf table = { 0 }, page = { 0 };
	char piece[4096];
	size_t n;

	(void)state;
	if (f == NULL) {
		fail_msg("run from the root of the tree: docs/man/omertad.conf.5 not found");
	}
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0) {
		om_buf_add(&page, piece, n);
	}
	fclose(f);
	om_config_generate_man(&table);
	if (strstr(om_buf_cstr(&page), om_buf_cstr(&table)) == NULL) {
		fail_msg(
		    "omertad.conf.5 is out of date: run tools/conf_manual.sh build/.../omertad");
	}
	om_buf_fini(&table);
	om_buf_fini(&page);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sample_config_is_valid), TEST(test_show_reads_back),
		TEST(test_json_is_escaped),        TEST(test_live_values_read_back),
		TEST(test_json_is_escaped),        TEST(test_live_file),
		TEST(test_manual_has_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
