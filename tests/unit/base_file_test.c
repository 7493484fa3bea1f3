/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

static char dir[] = "/tmp/omerta-file.XXXXXX";

static int
setup(void **state)
{
	(void)state;
	return mkdtemp(dir) == NULL;
}

static int
teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

static void
write_file(int dir_fd, const char *text)
{
	int fd = openat(dir_fd, "f", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(close(fd), 0);
}

static void
test_head(void **state)
{
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	char path[64], out[8];

	(void)state;
	assert_true(dir_fd >= 0);
	(void)snprintf(path, sizeof(path), "%s/f", dir);
	write_file(dir_fd, "short");
	assert_int_equal(om_file_head(AT_FDCWD, path, out, sizeof(out)), 5);
	assert_string_equal(out, "short");
	write_file(dir_fd, "longer than it");
	assert_int_equal(om_file_head(dir_fd, "f", out, sizeof(out)), 7);
	assert_string_equal(out, "longer ");
	write_file(dir_fd, "");
	assert_int_equal(om_file_head(dir_fd, "f", out, sizeof(out)), 0);
	assert_string_equal(out, "");
	assert_int_equal(unlinkat(dir_fd, "f", 0), 0);
	assert_int_equal(close(dir_fd), 0);
}

static void
test_what_cannot_be_read(void **state)
{
	char out[8] = "before";

	(void)state;
	errno = 0;
	assert_int_equal(om_file_head(AT_FDCWD, "/proc/self/none", out, sizeof(out)), -1);
	assert_int_equal(errno, ENOENT);
	assert_string_equal(out, "");
	(void)snprintf(out, sizeof(out), "before");
	assert_int_equal(om_file_head(AT_FDCWD, "/proc/self", out, sizeof(out)), -1);
	assert_int_equal(errno, EISDIR);
	assert_string_equal(out, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_what_cannot_be_read),
	};

	return cmocka_run_group_tests_name("base_file", tests, setup, teardown);
}
