/* SPDX-License-Identifier: ISC */
/* err, assert, clock, id, secret: small modules, small tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/secret.h"

static void
test_codes_are_unique_and_read_back(void **state)
{
	(void)state;
	for (int i = 0; i < OM_ERR_COUNT; i++) {
		const char *code = om_err_code((enum om_err)i);

		assert_true(strlen(code) > 0 && strlen(code) <= 32);
		assert_true(strlen(om_err_text((enum om_err)i)) > 0);
		assert_int_equal(om_err_from_code(code, strlen(code)), i);
	}
	assert_int_equal(om_err_from_code("nonsense", 8), OM_ERR_INTERNAL);
	assert_int_equal(om_err_from_code("full", 3), OM_ERR_INTERNAL);
	assert_string_equal(om_err_code((enum om_err)OM_ERR_COUNT), "internal");
	assert_string_equal(om_err_code((enum om_err) - 1), "internal");
}

static void
test_why(void **state)
{
	struct om_why why;
	char big[600];

	(void)state;
	assert_int_equal(om_why_set(&why, OM_ERR_VM, "a %d", 5), OM_ERR_VM);
	assert_string_equal(why.text, "a 5");
	/* A reason around a reason reads what it writes. */
	assert_int_equal(om_why_set(&why, OM_ERR_NET, "b: %s", why.text), OM_ERR_NET);
	assert_string_equal(why.text, "b: a 5");
	assert_int_equal(om_why_set(NULL, OM_ERR_NET, "dropped"), OM_ERR_NET);
	memset(big, 'z', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	(void)om_why_set(&why, OM_ERR_NET, "%s", big);
	assert_int_equal(strlen(why.text), OM_WHY_MAX - 1);
	errno = ENOENT;
	assert_int_equal(om_why_errno(&why, OM_ERR_IO, "open %s", "x"), OM_ERR_IO);
	assert_string_equal(why.text, "open x: No such file or directory");
	assert_int_equal(errno, ENOENT);
	(void)om_why_errno(&why, OM_ERR_IO, "%s", big);
	assert_int_equal(strlen(why.text), OM_WHY_MAX - 1);
	assert_int_equal(om_err_from_errno(ENOSPC), OM_ERR_DISK);
	assert_int_equal(om_err_from_errno(0), OM_OK);
	assert_int_equal(om_err_from_errno(99999), OM_ERR_IO);
}

static void
test_wall_format(void **state)
{
	char text[OM_WALL_TEXT];

	(void)state;
	om_wall_format((struct om_wall){ 0 }, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
	om_wall_format((struct om_wall){ INT64_C(1795532645123456789) }, text);
	assert_string_equal(text, "2026-11-24T15:04:05.123Z");
	om_wall_format((struct om_wall){ -1 }, text);
	assert_string_equal(text, "1969-12-31T23:59:59.999Z");
	om_wall_format((struct om_wall){ -OM_NS_PER_S }, text);
	assert_string_equal(text, "1969-12-31T23:59:59.000Z");
	om_wall_format((struct om_wall){ INT64_MAX }, text);
	assert_string_equal(text, "2262-04-11T23:47:16.854Z");
	om_wall_format((struct om_wall){ INT64_MIN }, text);
	assert_string_equal(text, "1677-09-21T00:12:43.145Z");
	assert_true(om_mono_ms_between(om_mono_now(), om_mono_now()) >= 0);
	assert_true(om_wall_now().ns > INT64_C(1700000000) * OM_NS_PER_S);
}

static void
test_job_id(void **state)
{
	struct om_job_id a = om_job_id_new(), b = om_job_id_new(), c;
	char text[OM_JOB_ID_MAX + 2];

	(void)state;
	assert_int_equal(strlen(a.text), OM_JOB_ID_LEN);
	assert_string_not_equal(a.text, b.text);
	assert_int_equal(om_job_id_parse(a.text, strlen(a.text), &c), OM_OK);
	assert_string_equal(a.text, c.text);
	memset(text, 'a', sizeof(text));
	assert_int_equal(om_job_id_parse(text, OM_JOB_ID_MAX, &c), OM_OK);
	assert_int_equal(strlen(c.text), OM_JOB_ID_MAX);
	assert_int_equal(om_job_id_parse(text, OM_JOB_ID_MAX + 1, &c), OM_ERR_INVALID);
	assert_int_equal(om_job_id_parse("", 0, &c), OM_ERR_INVALID);
	/* An id is part of file names. */
	assert_int_equal(om_job_id_parse("..", 2, &c), OM_ERR_INVALID);
	assert_int_equal(om_job_id_parse("-rf", 3, &c), OM_ERR_INVALID);
	for (unsigned ch = 0; ch < 256; ch++) {
		char two[2] = { 'a', (char)ch }, first[2] = { (char)ch, 'a' };
		bool alnum = (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') ||
			     (ch >= 'a' && ch <= 'z');
		bool good = alnum || ch == '.' || ch == '_' || ch == '-';

		assert_int_equal(om_job_id_parse(two, 2, &c), good ? OM_OK : OM_ERR_INVALID);
		assert_int_equal(om_job_id_parse(first, 2, &c), alnum ? OM_OK : OM_ERR_INVALID);
	}
}

static void
test_secret(void **state)
{
	unsigned char a[16], b[16];

	(void)state;
	om_random(a, sizeof(a));
	memcpy(b, a, sizeof(b));
	assert_true(om_secret_eq(a, b, sizeof(a)));
	for (size_t i = 0; i < sizeof(a) * 8; i++) {
		b[i / 8] ^= (unsigned char)(1 << i % 8);
		assert_false(om_secret_eq(a, b, sizeof(a)));
		b[i / 8] ^= (unsigned char)(1 << i % 8);
	}
	assert_true(om_secret_eq(a, b, 0));
	om_secret_wipe(a, sizeof(a));
	memset(b, 0, sizeof(b));
	assert_memory_equal(a, b, sizeof(a));
}

static void
hook_marks(int fd)
{
	(void)!write(fd, "HOOK\n", 5);
}

static void
hook_crashes(int fd)
{
	(void)!write(fd, "SECOND\n", 7);
	om_crash_report("again"); /* must not report twice */
}

static void
test_assert_reports_and_aborts(void **state)
{
	char text[8192];
	size_t len = 0;
	ssize_t n;
	int fds[2];
	int status;
	pid_t pid;

	(void)state;
	OM_ASSERT(1 == 1);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		const struct rlimit no_core = { 0, 0 };

		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the tests */
		(void)dup2(fds[1], STDERR_FILENO);
		(void)close(fds[0]);
		for (int i = 0; i < 8; i++) {
			if (om_crash_hook(i == 7 ? hook_crashes : hook_marks) != 0) {
				_exit(1);
			}
		}
		if (om_crash_hook(hook_marks) != -1) {
			_exit(2);
		}
		OM_ASSERT(pid != 0);
		_exit(3);
	}
	(void)close(fds[1]);
	while (len < sizeof(text) - 1 &&
	       (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0) {
		len += (size_t)n;
	}
	text[len] = '\0';
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_non_null(strstr(text, "pid != 0"));
	assert_non_null(strstr(text, "base_err_test.c:"));
	assert_non_null(strstr(text, "HOOK\nHOOK\nHOOK\nHOOK\nHOOK\nHOOK\nHOOK\nSECOND\n"));
	assert_null(strstr(text, "again"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codes_are_unique_and_read_back),
		cmocka_unit_test(test_why),
		cmocka_unit_test(test_wall_format),
		cmocka_unit_test(test_job_id),
		cmocka_unit_test(test_secret),
		cmocka_unit_test(test_assert_reports_and_aborts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
