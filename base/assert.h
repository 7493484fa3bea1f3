/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_ASSERT_H
#define OM_BASE_ASSERT_H

/*
 * OM_ASSERT finds our own bugs and is always on.  It never looks at input or at the world.
 * A failure prints the place and a backtrace, runs the crash hooks, and aborts.
 */
#define OM_ASSERT(cond) \
	((__builtin_expect(!!(cond), 1)) ? (void)0 : om_assert_fail(#cond, __FILE__, __LINE__))

void om_assert_fail(const char *what, const char *file, int line) __attribute__((noreturn));

/*
 * Any thread.  Adds a function that the crash report calls (at most 8; async-signal-safe code
 * only: it may run in a signal handler).  Returns 0, or -1 when the table is full.
 */
int om_crash_hook(void (*hook)(int fd));

/*
 * Any thread, also from a signal handler (SIGSEGV and the like).  Prints `what` and a backtrace on
 * stderr and runs the hooks, once per process: later calls do nothing.
 */
void om_crash_report(const char *what);

#endif /* OM_BASE_ASSERT_H */
