/* SPDX-License-Identifier: ISC */
#ifndef DAEMON_CONFIG_RIG_H
#define DAEMON_CONFIG_RIG_H

/* A directory for one test's files, and configurations from them.  Of daemon_config*_test.c. */
#include "daemon/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/spawn.h"

static char dir[64];

static inline const char *
path_of(const char *name)
{
	static char path[4][256];
	static unsigned turn;
	char *out = path[turn++ % 4];

	snprintf(out, sizeof(path[0]), "%s/%s", dir, name);
	return out;
}

static inline void
put_file(const char *name, const char *text)
{
	FILE *f = fopen(path_of(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
}

static inline int
make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/omerta-config-XXXXXX");
	return mkdtemp(dir) == NULL ? -1 : 0;
}

static inline int
drop_dir(void **state)
{
	const char *argv[] = { "/bin/rm", "-rf", dir, NULL };
	const struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };

	(void)state;
	return om_spawn_run(&how, 10000, NULL, NULL, NULL) == OM_OK ? 0 : -1;
}

static inline enum om_err
load_with(const char *text, const struct om_conf_sources *more, struct om_config **out,
	  struct om_buf *problems)
{
	struct om_conf_sources sources = { .file_must_exist = true };

	if (more != NULL) {
		sources = *more;
	}
	if (text != NULL) {
		put_file("omertad.conf", text);
		sources.file = path_of("omertad.conf");
	}
	return om_config_load(&sources, out, problems);
}

static inline struct om_config *
load_good(const char *text)
{
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };
	enum om_err err = load_with(text, NULL, &config, &problems);

	if (err != OM_OK) {
		fail_msg("%s", om_buf_cstr(&problems));
	}
	om_buf_fini(&problems);
	return config;
}

/* The text is refused and one of the problems holds `want`. */
static inline void
refused(const char *text, const char *want)
{
	struct om_config *config = NULL;
	struct om_buf problems = { 0 };

	assert_int_equal(load_with(text, NULL, &config, &problems), OM_ERR_INVALID);
	assert_null(config);
	if (strstr(om_buf_cstr(&problems), want) == NULL) {
		fail_msg("no '%s' in: %s", want, om_buf_cstr(&problems));
	}
	om_buf_fini(&problems);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_dir, drop_dir)

#endif /* DAEMON_CONFIG_RIG_H */
