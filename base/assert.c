/* SPDX-License-Identifier: ISC */
/*
 * The crash report.  It may run in a signal handler on a broken heap: write(2) only, no stdio, no
 * allocation, no lock.  The hook table is append-only; a slot is written before the count that
 * publishes it, so a crash in the middle of a registration sees the old count.
 */
#include "base/assert.h"

#include <execinfo.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CRASH_HOOKS_MAX  8
#define CRASH_FRAMES_MAX 64

static pthread_mutex_t hook_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*hooks[CRASH_HOOKS_MAX])(int fd);
static atomic_int hook_count;
static atomic_flag reported = ATOMIC_FLAG_INIT;

int
om_crash_hook(void (*hook)(int fd))
{
	int rc = -1;
	int n;

	(void)pthread_mutex_lock(&hook_lock);
	n = atomic_load(&hook_count);
	if (n < CRASH_HOOKS_MAX) {
		hooks[n] = hook;
		atomic_store(&hook_count, n + 1);
		rc = 0;
	}
	(void)pthread_mutex_unlock(&hook_lock);
	return rc;
}

static void
put(const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		ssize_t n = write(STDERR_FILENO, text, len);

		if (n <= 0) {
			return;
		}
		text += n;
		len -= (size_t)n;
	}
}

static void
put_int(int n)
{
	char text[12];
	char *p = text + sizeof(text) - 1;
	unsigned u = n < 0 ? 0 : (unsigned)n;

	*p = '\0';
	do {
		*--p = (char)('0' + u % 10);
		u /= 10;
	} while (u > 0);
	put(p);
}

void
om_crash_report(const char *what)
{
	void *frames[CRASH_FRAMES_MAX];
	int n;

	/* The first crash is the cause; a second one (in a hook, in another thread) only noise. */
	if (atomic_flag_test_and_set(&reported)) {
		return;
	}
	put("omerta crashed: ");
	put(what);
	put("\n");
	n = backtrace(frames, CRASH_FRAMES_MAX);
	backtrace_symbols_fd(frames, n, STDERR_FILENO);
	for (int i = 0; i < atomic_load(&hook_count); i++) {
		hooks[i](STDERR_FILENO);
	}
}

void
om_assert_fail(const char *what, const char *file, int line)
{
	put(file);
	put(":");
	put_int(line);
	put(": ");
	om_crash_report(what);
	abort();
}
