/* SPDX-License-Identifier: ISC */
/* The directory of jobs: whose it is, and what a start removes in it. */
#include "daemon/recover.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/lock.h"
#include "vm/driver_mem.h"

static char dir[64];

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static int
setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/omerta-recover-XXXXXX");
	return mkdtemp(dir) != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *
in_dir(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void
make_file(const char *name)
{
	FILE *f = fopen(in_dir(name), "w");

	assert_non_null(f);
	fclose(f);
}

static void
make_job(const char *name)
{
	char file[64];

	assert_int_equal(mkdir(in_dir(name), 0711), 0);
	snprintf(file, sizeof(file), "%s/scratch.img", name);
	make_file(file);
}

static bool
is_there(const char *name)
{
	return access(in_dir(name), F_OK) == 0;
}

/* `jobs_dir = /srv` must not empty /srv. */
static void
a_directory_of_others_is_refused(void **state)
{
	struct om_why why = { "" };
	int fd = -1;

	(void)state;
	make_job("www");
	assert_int_equal(om_lock_jobs_dir(dir, &fd, &why), OM_ERR_INVALID);
	assert_int_equal(fd, -1);
	assert_non_null(strstr(why.text, dir));
	assert_non_null(strstr(why.text, "www"));
	assert_non_null(strstr(why.text, "vm.jobs_dir"));
	assert_false(is_there(OM_LOCK_JOBS_MARKER));
	assert_true(is_there("www/scratch.img"));
}

static void
an_empty_one_becomes_ours_and_stays_it(void **state)
{
	struct om_why why = { "" };
	int fd = -1;

	(void)state;
	assert_int_equal(mkdir(in_dir("lost+found"), 0700), 0); /* a file system of its own */
	assert_int_equal(om_lock_jobs_dir(dir, &fd, &why), OM_OK);
	close(fd);
	make_job("0123456789ab"); /* left by a crash */
	assert_int_equal(om_lock_jobs_dir(dir, &fd, &why), OM_OK);
	close(fd);
}

static void
a_marker_that_is_a_link_is_none(void **state)
{
	struct om_why why = { "" };
	int fd = -1;

	(void)state;
	make_file("file");
	assert_int_equal(symlink("file", in_dir(OM_LOCK_JOBS_MARKER)), 0);
	assert_int_equal(om_lock_jobs_dir(dir, &fd, &why), OM_ERR_INVALID);
}

static void
two_daemons_do_not_share_one(void **state)
{
	struct om_why why = { "" };
	char self[32];
	int fd = -1, second = -1;

	(void)state;
	assert_int_equal(om_lock_jobs_dir(dir, &fd, &why), OM_OK);
	assert_int_equal(om_lock_jobs_dir(dir, &second, &why), OM_ERR_EXISTS);
	snprintf(self, sizeof(self), "pid %ld", (long)getpid());
	assert_non_null(strstr(why.text, self));
	close(fd);
	assert_int_equal(om_lock_jobs_dir(dir, &second, &why), OM_OK);
	close(second);
}

static void
only_what_carries_a_jobs_id_is_removed(void **state)
{
	struct om_vm_driver driver = { &om_vm_mem_ops, NULL };
	const struct om_vm_config config = { NULL };
	struct om_recovered found;
	struct om_why why = { "" };
	int fd = -1;

	(void)state;
	assert_int_equal(om_lock_jobs_dir(dir, &fd, &why), OM_OK);
	assert_int_equal(driver.ops->open(&config, &driver.state, &why), OM_OK);
	assert_int_equal(om_vm_mem_add_orphan(driver.state, "omerta-left"), OM_OK);
	assert_int_equal(om_vm_mem_add_orphan(driver.state, "omerta-foreign"), OM_OK);
	make_job("left");
	make_job(".backup");
	make_job("no id");
	make_file("note");
	assert_int_equal(mkdir(in_dir("lost+found"), 0700), 0);
	assert_int_equal(symlink("/", in_dir("link")), 0);
	assert_int_equal(om_recover(&driver, NULL, dir, &found, &why), OM_OK);
	assert_int_equal(found.vms, 1);
	assert_int_equal(found.directories, 1);
	assert_false(is_there("left"));
	assert_true(is_there(".backup/scratch.img"));
	assert_true(is_there("no id/scratch.img"));
	assert_true(is_there("note"));
	assert_true(is_there("link"));
	assert_true(is_there("lost+found"));
	assert_true(is_there(OM_LOCK_JOBS_MARKER));
	driver.ops->close(driver.state);
	close(fd);
}

/* A process with qemu's arguments, which runs and ends when its input does. */
static pid_t
start_qemu(const char *guest, const char *file, int input)
{
	const char *const argv[] = { "sh",  "-c",        "echo; read x", "-name",
				     guest, "-blockdev", file,           NULL };
	posix_spawn_file_actions_t actions;
	int output[2];
	pid_t pid = -1;
	char c;

	assert_int_equal(pipe2(output, O_CLOEXEC), 0);
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(posix_spawn_file_actions_adddup2(&actions, input, 0), 0);
	assert_int_equal(posix_spawn_file_actions_adddup2(&actions, output[1], 1), 0);
	assert_int_equal(
	    posix_spawn(&pid, "/bin/sh", &actions, NULL, (char *const *)(uintptr_t)argv, environ),
	    0);
	assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
	assert_int_equal(read(output[0], &c, 1), 1); /* its arguments are in /proc now */
	close(output[0]);
	close(output[1]);
	return pid;
}

/* libvirt is asked for its VMs; one that it has lost went on with a disk that was gone. */
static void
a_qemu_that_libvirt_does_not_know_is_killed(void **state)
{
	struct om_vm_driver driver = { &om_vm_mem_ops, NULL };
	const struct om_vm_config config = { NULL };
	struct om_recovered found;
	struct om_why why = { "" };
	char file[256];
	int input[2], status = 0;
	pid_t ours, others;

	(void)state;
	assert_int_equal(driver.ops->open(&config, &driver.state, &why), OM_OK);
	assert_int_equal(pipe2(input, O_CLOEXEC), 0);
	make_job("left");
	snprintf(file, sizeof(file), "{\"filename\":\"%s/left/scratch.img\"}", dir);
	ours = start_qemu("guest=omerta-left,debug-threads=on", file, input[0]);
	others = start_qemu("guest=omerta-left,debug-threads=on",
			    "{\"filename\":\"/srv/jobs/left/scratch.img\"}", input[0]);
	assert_int_equal(om_recover(&driver, NULL, dir, &found, &why), OM_OK);
	assert_int_equal(found.vms, 1);
	assert_int_equal(waitpid(ours, &status, 0), ours);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(waitpid(others, &status, WNOHANG), 0);
	close(input[0]);
	close(input[1]); /* `read` ends */
	assert_int_equal(waitpid(others, &status, 0), others);
	assert_true(WIFEXITED(status));
	driver.ops->close(driver.state);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_directory_of_others_is_refused),
		T(an_empty_one_becomes_ours_and_stays_it),
		T(a_marker_that_is_a_link_is_none),
		T(two_daemons_do_not_share_one),
		T(only_what_carries_a_jobs_id_is_removed),
		T(a_qemu_that_libvirt_does_not_know_is_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
