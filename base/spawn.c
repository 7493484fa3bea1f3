/* SPDX-License-Identifier: ISC */
/*
 * Children by vfork and execve.
 *
 * vfork, not fork: the daemon may hold a gigabyte of actors, and copying its page tables for every
 * helper costs milliseconds.  The child shares our memory until execve, so child_exec
 *
 * 1. runs with all signals blocked: no handler of ours runs in the shared memory;
 * 2. writes nothing but its own frame, and reports a failure through a pipe;
 * 3. calls async-signal-safe functions only and leaves by _exit.
 */
#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define PIPE_FULL 65536

static const char *const spawn_env[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"LANG=C",
	NULL,
};

static void
fd_close(int *fd)
{
	if (*fd >= 0) {
		(void)close(*fd);
		*fd = -1;
	}
}

/* --- in the child ----------------------------------------------------------------------------- */

/* Puts the three fds at 0, 1, 2.  First out of the way, so that no dup2 overwrites a later one. */
static int
child_fds(const int want[3])
{
	int high[3];

	for (int i = 0; i < 3; i++) {
		high[i] = fcntl(want[i], F_DUPFD_CLOEXEC, 3);
		if (high[i] < 0) {
			return -1;
		}
	}
	for (int i = 0; i < 3; i++) {
		if (dup2(high[i], i) < 0) {
			return -1;
		}
	}
	/* Marks instead of closing: the error pipe must live until execve. */
	return close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
}

static void
child_signals(void)
{
	struct sigaction sa;
	sigset_t none;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_DFL;
	for (int sig = 1; sig < NSIG; sig++) {
		(void)sigaction(sig, &sa, NULL); /* KILL, STOP and libc's own refuse: fine */
	}
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What is not in the bounding set root does not get by execve either. */
static int
child_confine(uint64_t keep)
{
	for (int cap = 0; cap < 64; cap++) {
		if ((keep >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap) != 0) {
			if (errno == EINVAL) {
				break; /* this kernel has no more of them */
			}
			return -1;
		}
	}
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

_Noreturn static void
child_exec(const struct om_spawn *how, const int fds[3], int err_fd, pid_t parent)
{
	const char *const *envp = how->envp != NULL ? how->envp : spawn_env;
	int errnum;

	if (setpgid(0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
		goto fail;
	}
	if (getppid() != parent) {
		_exit(127); /* the parent ended before the prctl */
	}
	if (how->confined && child_confine(how->keep_caps) != 0) {
		goto fail;
	}
	if (child_fds(fds) != 0 || (how->cwd != NULL && chdir(how->cwd) != 0)) {
		goto fail;
	}
	child_signals();
	/* execve's prototype predates const; it changes neither array. */
	(void)execve(how->argv[0], (char *const *)(uintptr_t)how->argv,
		     (char *const *)(uintptr_t)envp);
fail:
	errnum = errno;
	(void)!write(err_fd, &errnum, sizeof(errnum));
	_exit(127);
}

/* --- in the parent ---------------------------------------------------------------------------- */

static void
reap(pid_t pid, int *status)
{
	int ignored;

	while (waitpid(pid, status != NULL ? status : &ignored, 0) < 0 && errno == EINTR) {
	}
}

/* Its own function: nothing of the caller's frame can be clobbered by the child. */
__attribute__((noinline)) static pid_t
spawn_vfork(const struct om_spawn *how, const int fds[3], int err_fd)
{
	pid_t parent = getpid();
	pid_t pid = vfork();

	if (pid == 0) {
		child_exec(how, fds, err_fd, parent);
	}
	return pid;
}

/* 0: the program runs.  Else the errno of the child, or of vfork; no child is left then. */
static int
spawn_child(const struct om_spawn *how, const int fds[3], pid_t *pid)
{
	int err_pipe[2] = { -1, -1 };
	sigset_t all, old;
	int errnum = 0;
	ssize_t n;

	if (pipe2(err_pipe, O_CLOEXEC) != 0) {
		return errno;
	}
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	*pid = spawn_vfork(how, fds, err_pipe[1]);
	errnum = *pid < 0 ? errno : 0;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	fd_close(&err_pipe[1]);
	if (*pid > 0) {
		do {
			n = read(err_pipe[0], &errnum, sizeof(errnum));
		} while (n < 0 && errno == EINTR);
		if (n != 0) {
			errnum = n == sizeof(errnum) ? errnum : EIO;
			reap(*pid, NULL);
		}
	}
	fd_close(&err_pipe[0]);
	return errnum;
}

enum om_err
om_spawn_start(const struct om_spawn *how, pid_t *pid, int *pidfd, struct om_why *why)
{
	int fds[3] = { how->in_fd, how->out_fd, how->err_fd };
	enum om_err err = OM_OK;
	int errnum;
	int null_fd;

	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "open /dev/null");
	}
	for (int i = 0; i < 3; i++) {
		fds[i] = fds[i] < 0 ? null_fd : fds[i];
	}
	errnum = spawn_child(how, fds, pid);
	if (errnum != 0) {
		errno = errnum;
		err = om_why_errno(why, om_err_from_errno(errnum), "start %s", how->argv[0]);
		goto out;
	}
	if (pidfd != NULL) {
		*pidfd = pidfd_open(*pid, 0); /* close-on-exec by itself */
		if (*pidfd < 0) {
			err = om_why_errno(why, om_err_from_errno(errno), "pidfd of %s",
					   how->argv[0]);
			(void)kill(-*pid, SIGKILL);
			reap(*pid, NULL);
		}
	}
out:
	fd_close(&null_fd);
	return err;
}

/*
 * Reads what is there, at most one pipe full: an endless writer must not keep us from the deadline.
 * Bytes over the limit are read and dropped, so that the child does not block on us.  false: end of
 * file.
 */
static bool
drain(int fd, struct om_buf *out, size_t max)
{
	char chunk[4096];
	ssize_t n = 0;

	for (int i = 0; i < PIPE_FULL / (int)sizeof(chunk); i++) {
		n = read(fd, chunk, sizeof(chunk));
		if (n <= 0) {
			break;
		}
		if (out != NULL && out->len < max) {
			size_t room = max - out->len;

			om_buf_add(out, chunk, (size_t)n < room ? (size_t)n : room);
		}
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Collects until the child has ended.  OM_ERR_TIMEOUT: it still runs. */
static enum om_err
collect(int out_fd, int pidfd, struct om_mono deadline, struct om_buf *out)
{
	size_t max = out != NULL && out->max != 0 ? out->max : OM_SPAWN_OUTPUT_MAX;
	struct pollfd fds[2] = {
		{ .fd = pidfd, .events = POLLIN },
		{ .fd = out_fd, .events = POLLIN },
	};

	for (;;) {
		int64_t left = om_mono_ms_between(om_mono_now(), deadline);

		if (left <= 0) {
			return OM_ERR_TIMEOUT;
		}
		if (poll(fds, OM_COUNT(fds), left > 60000 ? 60000 : (int)left + 1) < 0) {
			if (errno != EINTR) {
				return OM_ERR_IO;
			}
			continue;
		}
		if (fds[1].revents != 0 && !drain(out_fd, out, max)) {
			fds[1].fd = -1; /* end of file: wait for the child alone */
		}
		if (fds[0].revents != 0) {
			if (fds[1].fd >= 0) {
				(void)drain(out_fd, out, max);
			}
			return OM_OK;
		}
	}
}

enum om_err
om_spawn_run(const struct om_spawn *how, int64_t timeout_ms, struct om_buf *out, int *status,
	     struct om_why *why)
{
	struct om_mono deadline = { om_mono_now().ns + timeout_ms * OM_NS_PER_MS };
	struct om_spawn with_pipe = *how;
	int pipe_fds[2] = { -1, -1 };
	int pidfd = -1;
	pid_t pid = -1;
	enum om_err err;

	if (pipe2(pipe_fds, O_CLOEXEC) != 0 || fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK) != 0) {
		err = om_why_errno(why, om_err_from_errno(errno), "pipe for %s", how->argv[0]);
		goto out;
	}
	with_pipe.out_fd = pipe_fds[1];
	with_pipe.err_fd = pipe_fds[1];
	err = om_spawn_start(&with_pipe, &pid, &pidfd, why);
	if (err != OM_OK) {
		goto out;
	}
	fd_close(&pipe_fds[1]);
	err = collect(pipe_fds[0], pidfd, deadline, out);
	if (err != OM_OK) {
		(void)kill(-pid, SIGKILL);
		(void)om_why_set(why, err, "%s: no end within %lld ms, killed", how->argv[0],
				 (long long)timeout_ms);
	}
	reap(pid, status);
	if (err == OM_OK && out != NULL && out->failed) {
		err = om_why_set(why, OM_ERR_NOMEM, "output of %s: out of memory", how->argv[0]);
	}
out:
	fd_close(&pipe_fds[0]);
	fd_close(&pipe_fds[1]);
	fd_close(&pidfd);
	return err;
}
