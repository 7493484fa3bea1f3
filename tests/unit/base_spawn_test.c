/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/spawn.h"

#define LONG_MS 20000

static struct om_spawn
sh(const char *const argv[4])
{
	return (struct om_spawn){ .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
}
#define SH(script) sh((const char *const[4]){ "/bin/sh", "-c", script, NULL })

static size_t
open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL) {
		n++;
	}
	(void)closedir(dir);
	return n;
}

static void
test_output_and_status(void **state)
{
	struct om_buf out = { .max = 0 };
	struct om_spawn how = SH("echo one; echo two >&2; read x || echo eof; exit 3");
	size_t fds = open_fds();
	int status = 0;

	(void)state;
	assert_int_equal(om_spawn_run(&how, LONG_MS, &out, &status, NULL), OM_OK);
	assert_string_equal(om_buf_cstr(&out), "one\ntwo\neof\n");
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
	assert_int_equal(open_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing left to reap */
	assert_int_equal(errno, ECHILD);
	om_buf_fini(&out);
}

static void
test_missing_program(void **state)
{
	const char *const argv[] = { "/no/such/program", NULL };
	struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
	size_t fds = open_fds();
	struct om_why why;
	pid_t pid;
	int pidfd;

	(void)state;
	assert_int_equal(om_spawn_start(&how, &pid, &pidfd, &why), OM_ERR_NOT_FOUND);
	assert_string_equal(why.text, "start /no/such/program: No such file or directory");
	how = SH("true");
	how.cwd = "/no/such/folder";
	assert_int_equal(om_spawn_run(&how, LONG_MS, NULL, NULL, &why), OM_ERR_NOT_FOUND);
	assert_int_equal(open_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void
test_timeout_kills_the_whole_group(void **state)
{
	/* Both keep fd 0, the writing end of a pipe, open: it ends when the last of them has. */
	struct om_spawn how = SH("sleep 1000 <&0 & exec sleep 1000");
	struct om_why why;
	int status = 0;
	int alive[2];
	char byte;

	(void)state;
	assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
	how.in_fd = alive[1];
	assert_int_equal(om_spawn_run(&how, 300, NULL, &status, &why), OM_ERR_TIMEOUT);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_non_null(strstr(why.text, "/bin/sh"));
	(void)close(alive[1]);
	assert_int_equal(poll(&(struct pollfd){ .fd = alive[0], .events = POLLIN }, 1, LONG_MS), 1);
	assert_int_equal(read(alive[0], &byte, 1), 0);
	(void)close(alive[0]);
}

static void
test_grandchild_that_holds_the_pipe_is_not_waited_for(void **state)
{
	struct om_spawn how = SH("sleep 30 & echo $!");
	struct om_mono start = om_mono_now();
	struct om_buf out = { .max = 0 };

	(void)state;
	assert_int_equal(om_spawn_run(&how, LONG_MS, &out, NULL, NULL), OM_OK);
	assert_true(om_mono_ms_between(start, om_mono_now()) < 10000);
	(void)kill((pid_t)atoi(om_buf_cstr(&out)), SIGKILL);
	om_buf_fini(&out);
}

static void
test_output_is_cut_and_an_endless_writer_meets_the_deadline(void **state)
{
	struct om_spawn how = SH("head -c 3000000 /dev/zero; exit 0");
	struct om_buf out = { .max = 1000 };
	int status = -1;

	(void)state;
	assert_int_equal(om_spawn_run(&how, LONG_MS, &out, &status, NULL), OM_OK);
	assert_int_equal(out.len, 1000);
	assert_int_equal(status, 0);
	om_buf_reset(&out);
	how = SH("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyy; done");
	assert_int_equal(om_spawn_run(&how, 200, &out, NULL, NULL), OM_ERR_TIMEOUT);
	assert_int_equal(out.len, 1000);
	out.max = 0;
	om_buf_reset(&out);
	how = SH("head -c 3000000 /dev/zero");
	assert_int_equal(om_spawn_run(&how, LONG_MS, &out, NULL, NULL), OM_OK);
	assert_int_equal(out.len, OM_SPAWN_OUTPUT_MAX);
	om_buf_fini(&out);
}

static void
test_child_inherits_nothing(void **state)
{
	/* An fd without close-on-exec, a blocked and an ignored signal: none may arrive. */
	struct om_spawn how = SH("ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; env; "
				 "cat /proc/$$/stat | cut -d' ' -f1,5");
	struct om_buf out = { .max = 0 };
	int leak = dup(0);
	int pid = 0, pgrp = 0;
	const char *text;
	sigset_t block, old;

	(void)state;
	assert_true(leak >= 0);
	assert_int_equal(setenv("SECRET_OF_THE_PARENT", "1", 1), 0);
	(void)sigemptyset(&block);
	(void)sigaddset(&block, SIGTERM);
	(void)pthread_sigmask(SIG_BLOCK, &block, &old);
	(void)signal(SIGPIPE, SIG_IGN);
	assert_int_equal(om_spawn_run(&how, LONG_MS, &out, NULL, NULL), OM_OK);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	text = om_buf_cstr(&out);
	/* 3 is ls's own directory. */
	assert_memory_equal(text, "0\n1\n2\n3\nSigBlk:\t0000000000000000\nSigIgn:\t", 8 + 33);
	/* 32 and 33 are libc's own: nobody can reset them, and nobody uses them. */
	assert_true((strtoull(text + 41, NULL, 16) & ~(UINT64_C(3) << 31)) == 0);
	assert_null(strstr(text, "SECRET"));
	assert_non_null(strstr(text, "LANG=C\n"));
	text = strrchr(text, ' ');
	assert_non_null(text);
	pgrp = atoi(text + 1);
	while (text > om_buf_cstr(&out) && text[-1] != '\n') {
		text--;
	}
	pid = atoi(text);
	assert_true(pid > 1);
	assert_int_equal(pid, pgrp); /* leads its own group */
	(void)close(leak);
	om_buf_fini(&out);
}

static void
test_given_fds_in_any_order(void **state)
{
	struct om_spawn how = SH("read x; echo out $x; echo err >&2");
	char text[64] = "";
	int in[2], out[2];
	int pidfd = -1;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(write(in[1], "hello\n", 6), 6);
	how.in_fd = in[0];
	how.out_fd = out[1];
	how.err_fd = out[1];
	assert_int_equal(om_spawn_start(&how, &pid, &pidfd, NULL), OM_OK);
	assert_int_equal(poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1, LONG_MS), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(out[0], text, sizeof(text) - 1), 14);
	assert_string_equal(text, "out hello\nerr\n");
	(void)close(pidfd);
	for (int i = 0; i < 2; i++) {
		(void)close(in[i]);
		(void)close(out[i]);
	}
}

static void
dies_with_its_parent(bool confined)
{
	int fds[2];
	pid_t parent;
	pid_t child = 0;
	int status = -1;
	char byte;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	parent = fork();
	if (parent == 0) {
		struct om_spawn how = SH("exec sleep 1000");

		how.out_fd = fds[1];
		how.confined = confined;
		if (om_spawn_start(&how, &child, NULL, NULL) != OM_OK) {
			_exit(1);
		}
		_exit(0); /* the child keeps the pipe open as long as it lives */
	}
	(void)close(fds[1]);
	assert_int_equal(poll(&(struct pollfd){ .fd = fds[0], .events = POLLIN }, 1, LONG_MS), 1);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	(void)close(fds[0]);
	assert_int_equal(waitpid(parent, &status, 0), parent);
	assert_int_equal(status, 0); /* there was a child */
}

static void
test_child_dies_with_its_parent(void **state)
{
	(void)state;
	dies_with_its_parent(false);
	if (geteuid() == 0) {
		dies_with_its_parent(
		    true); /* the kernel forgets the signal with some credentials */
	}
}

/* Of a root's capabilities one is left, and a program with more of them gives none. */
static void
test_confined_child(void **state)
{
	struct om_buf out = { .max = 0 };
	struct om_spawn how = SH("grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs)' /proc/self/status");
	struct om_why why = { "" };

	(void)state;
	how.confined = true;
	how.keep_caps = 1 << 12; /* CAP_NET_ADMIN */
	if (geteuid() != 0) {
		assert_int_equal(om_spawn_run(&how, LONG_MS, &out, NULL, &why), OM_ERR_DENIED);
		return;
	}
	assert_int_equal(om_spawn_run(&how, LONG_MS, &out, NULL, &why), OM_OK);
	assert_string_equal(om_buf_cstr(&out), "CapPrm:\t0000000000001000\n"
					       "CapEff:\t0000000000001000\n"
					       "CapBnd:\t0000000000001000\n"
					       "NoNewPrivs:\t1\n");
	om_buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_and_status),
		cmocka_unit_test(test_missing_program),
		cmocka_unit_test(test_timeout_kills_the_whole_group),
		cmocka_unit_test(test_grandchild_that_holds_the_pipe_is_not_waited_for),
		cmocka_unit_test(test_output_is_cut_and_an_endless_writer_meets_the_deadline),
		cmocka_unit_test(test_child_inherits_nothing),
		cmocka_unit_test(test_given_fds_in_any_order),
		cmocka_unit_test(test_child_dies_with_its_parent),
		cmocka_unit_test(test_confined_child),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
