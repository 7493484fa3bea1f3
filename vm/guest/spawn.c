/* SPDX-License-Identifier: ISC */
/*
 * A process of the job: in the job's cgroup, in the job's root, as the job's user, with no way to
 * more rights (no_new_privs; nosuid mounts besides).
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vm/guest/agent.h"

#define SPAWN_ERROR_FD 3 /* close-on-exec; carries errno when something fails */
#define SPAWN_FD_BASE  64 /* out of the way of 0 to 3 while they are put in place */

/* Names that are not the program's own, and programs that need an option before the script. */
static const struct {
	const char *name;
	const char *program;
	const char *option;
} spawn_langs[] = {
	{ "python", "python3", NULL },
	{ "awk", "awk", "-f" },
	{ "sed", "sed", "-f" },
};

static const char *const spawn_dirs[] = { "/usr/bin", "/bin", "/usr/sbin", "/sbin" };

/* What HELLO offers, where the image has it. */
static const char *const spawn_offer[] = { "python", "sh", "bash", "perl", "awk", "exec" };

const char *
guest_interpreter(struct om_str name, const char **option, char *path, size_t size)
{
	struct om_str program = name;

	*option = NULL;
	if (name.len == 0 || name.len > OM_GUEST_NAME_MAX || memchr(name.ptr, '/', name.len) ||
	    memchr(name.ptr, 0, name.len) || name.ptr[0] == '.') {
		return NULL;
	}
	if (om_str_is(name, "exec")) { /* the script is a program itself */
		snprintf(path, size, GUEST_JOB "/" GUEST_SCRIPT);
		return path;
	}
	for (size_t i = 0; i < OM_COUNT(spawn_langs); i++) {
		if (om_str_is(name, spawn_langs[i].name)) {
			program = om_str_of(spawn_langs[i].program);
			*option = spawn_langs[i].option;
		}
	}
	for (size_t i = 0; i < OM_COUNT(spawn_dirs); i++) {
		char host[256];
		struct stat st;

		snprintf(path, size, "%s/%.*s", spawn_dirs[i], OM_STR_ARG(program));
		snprintf(host, sizeof(host), GUEST_ROOT "%s", path);
		/* lstat: a link of the image (busybox) is absolute in the job's root, not in ours. */
		if (lstat(host, &st) == 0 && !S_ISDIR(st.st_mode)) {
			return path;
		}
	}
	return NULL;
}

size_t
guest_languages(const char **names, size_t max)
{
	size_t count = 0;

	for (size_t i = 0; i < OM_COUNT(spawn_offer) && count < max; i++) {
		const char *option;
		char path[256];

		if (guest_interpreter(om_str_of(spawn_offer[i]), &option, path, sizeof(path))) {
			names[count++] = spawn_offer[i];
		}
	}
	return count;
}

static int
spawn_limits(uint64_t nofile_max)
{
	const struct rlimit nofile = { nofile_max, nofile_max };
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_NOFILE, &nofile) < 0 || setrlimit(RLIMIT_CORE, &none) < 0 ||
	    setpriority(PRIO_PROCESS, 0, 0) < 0) {
		return -1;
	}
	return boot_write_file("/proc/self/oom_score_adj", "0") ? 0 : -1;
}

static int
spawn_become_job(void)
{
	if (chroot(GUEST_ROOT) < 0 || chdir(GUEST_JOB) < 0 || setgroups(0, NULL) < 0 ||
	    setresgid(GUEST_GID, GUEST_GID, GUEST_GID) < 0 ||
	    setresuid(GUEST_UID, GUEST_UID, GUEST_UID) < 0) {
		return -1;
	}
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int
spawn_place_fds(const int from[3], int error_fd)
{
	int high[4];

	for (int i = 0; i < 4; i++) {
		high[i] = fcntl(i < 3 ? from[i] : error_fd, F_DUPFD, SPAWN_FD_BASE);
		if (high[i] < 0) {
			return -1;
		}
	}
	for (int i = 0; i < 4; i++) {
		if (dup3(high[i], i, i == SPAWN_ERROR_FD ? O_CLOEXEC : 0) < 0) {
			return -1;
		}
	}
	return 0;
}

static bool
spawn_enter_cgroup(const char *dir)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	return boot_write_file(path, "0");
}

/* In the child. */
static _Noreturn void
spawn_child(const struct guest_spawn *how, int error_fd)
{
	sigset_t none;
	int error;

	/* The cgroup first: not one instruction of the job runs outside of it. */
	if (spawn_place_fds(how->fds, error_fd) < 0 || !spawn_enter_cgroup(how->cgroup) ||
	    setsid() < 0 || syscall(SYS_close_range, SPAWN_ERROR_FD + 1, ~0U, 0) < 0 ||
	    spawn_limits(how->nofile_max) < 0 || spawn_become_job() < 0) {
		goto fail;
	}
	umask(022);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	execve(how->argv[0], how->argv, how->envp);
fail:
	error = errno;
	(void)!write(SPAWN_ERROR_FD, &error, sizeof(error));
	_exit(127);
}

pid_t
guest_spawn(const struct guest_spawn *how, int *error)
{
	int fds[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		*error = errno;
		return -1;
	}
	pid = fork();
	if (pid == 0) {
		spawn_child(how, fds[1]);
	}
	*error = errno;
	close(fds[1]);
	if (pid > 0) {
		do {
			n = read(fds[0], error, sizeof(*error));
		} while (n < 0 && errno == EINTR);
		if (n > 0) {
			(void)waitpid(pid, NULL, 0);
			pid = -1;
		}
	}
	close(fds[0]);
	return pid;
}
