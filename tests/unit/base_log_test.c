/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static char got[1 << 20];

/* Runs fn with stderr in a file and gives what it wrote, NUL-terminated, in `got`. */
static void
capture(void (*fn)(void))
{
	char path[] = "/tmp/omerta-log-test-XXXXXX";
	int fd = mkstemp(path);
	int saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_true(fd >= 0 && saved >= 0);
	(void)unlink(path);
	(void)fcntl(fd, F_SETFL, O_APPEND);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	fn();
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	(void)close(saved);
	n = pread(fd, got, sizeof(got) - 1, 0);
	assert_true(n >= 0);
	got[n] = '\0';
	(void)close(fd);
}

/* The part behind the time stamp; checks that there is one line and one stamp. */
static const char *
one_line(void)
{
	assert_true(strlen(got) > 25);
	assert_int_equal(got[4], '-');
	assert_int_equal(got[23], 'Z');
	assert_ptr_equal(strchr(got, '\n'), got + strlen(got) - 1);
	return got + 25;
}

static void
log_plain(void)
{
	errno = 123;
	om_info("job.started", "job %s", "abc");
	assert_int_equal(errno, 123);
	om_debug("too.low", "not written");
}

static void
log_hostile(void)
{
	om_warn("x", "a\nb\r\x1b[31m\x7f\xff\xc2\x9b \xc3\xa4 \"q\" \\");
}

static void
test_text(void **state)
{
	(void)state;
	om_log_init(OM_LOG_INFO, 0);
	capture(log_plain);
	assert_string_equal(one_line(), "info job.started job abc\n");
	capture(log_hostile);
	assert_string_equal(one_line(),
			    "warn x a\\nb\\x0d\\x1b[31m\\x7f\\xff\\xc2\\x9b \xc3\xa4 \"q\" \\\n");
}

static void
test_json(void **state)
{
	(void)state;
	om_log_init(OM_LOG_INFO, 1);
	capture(log_hostile);
	assert_memory_equal(got, "{\"time\":\"20", 11);
	assert_string_equal(
	    strstr(got, "\"level\""),
	    "\"level\":\"warn\",\"event\":\"x\",\"text\":\"a\\nb\\u000d\\u001b[31m\\u007f\\u00ff"
	    "\\u00c2\\u009b \xc3\xa4 \\\"q\\\" \\\\\"}\n");
	om_log_init(OM_LOG_INFO, 0);
}

static void
test_journal_priority(void **state)
{
	(void)state;
	assert_int_equal(setenv("JOURNAL_STREAM", "8:1", 1), 0);
	om_log_init(OM_LOG_INFO, 0);
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
	capture(log_plain);
	assert_memory_equal(got, "<6>20", 5);
	om_log_init(OM_LOG_INFO, 0);
}

static char big[10000];
static void
log_big(void)
{
	om_info("big", "%s", big);
}

static void
test_long_text_is_cut_and_still_one_line(void **state)
{
	static const char fills[] = { 'x', '\x01', '"' };

	(void)state;
	for (int json = 0; json < 2; json++) {
		om_log_init(OM_LOG_INFO, json);
		for (size_t i = 0; i < sizeof(fills); i++) {
			memset(big, fills[i], sizeof(big) - 1);
			capture(log_big);
			assert_true(strlen(got) <= 4096);
			assert_ptr_equal(strchr(got, '\n'), got + strlen(got) - 1);
			assert_string_equal(got + strlen(got) - (json ? 6 : 4),
					    json ? "...\"}\n" : "...\n");
		}
	}
	/* A character of several bytes is not cut in half. */
	for (size_t i = 0; i + 3 < sizeof(big); i += 3) {
		memcpy(big + i, "\xe2\x82\xac", 3);
	}
	om_log_init(OM_LOG_INFO, 0);
	capture(log_big);
	assert_true(strlen(got) < 4096);
}

static void *
log_many(void *arg)
{
	for (int i = 0; i < 500; i++) {
		om_info("thread", "%s%s", (const char *)arg, big);
	}
	return NULL;
}

static void
log_from_threads(void)
{
	char name_a[] = "a", name_b[] = "b";
	pthread_t a, b;

	assert_int_equal(pthread_create(&a, NULL, log_many, name_a), 0);
	assert_int_equal(pthread_create(&b, NULL, log_many, name_b), 0);
	om_log_set_level(OM_LOG_DEBUG); /* while they run: a race only for a plain variable */
	(void)pthread_join(a, NULL);
	(void)pthread_join(b, NULL);
}

static void
test_lines_of_threads_do_not_mix(void **state)
{
	char *save = NULL;
	int lines = 0;

	(void)state;
	memset(big, 'm', 300);
	big[300] = '\0';
	capture(log_from_threads);
	for (char *l = strtok_r(got, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save)) {
		assert_int_equal(strlen(l), 25 + strlen("info thread a") + 300);
		lines++;
	}
	assert_int_equal(lines, 1000);
	om_log_set_level(OM_LOG_INFO);
}

static void
test_levels(void **state)
{
	enum om_log_level level = OM_LOG_INFO;

	(void)state;
	assert_int_equal(om_log_level_parse("error", &level), OM_OK);
	assert_int_equal(level, OM_LOG_ERROR);
	assert_int_equal(om_log_level_parse("loud", &level), OM_ERR_INVALID);
	assert_int_equal(level, OM_LOG_ERROR);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_journal_priority),
		cmocka_unit_test(test_long_text_is_cut_and_still_one_line),
		cmocka_unit_test(test_lines_of_threads_do_not_mix),
		cmocka_unit_test(test_levels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
