/* SPDX-License-Identifier: ISC */
#include "daemon/libvirtd.h"

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
#include "base/log.h"
#include "base/spawn.h"

enum om_err
om_libvirtd_find(char *path, size_t size)
{
	static const char *const dirs[] = { "/usr/local/libexec/omerta", "/usr/libexec/omerta",
					    "/usr/local/lib/omerta",     "/usr/lib/omerta",
					    "/usr/local/sbin",           "/usr/sbin" };
	char self[512];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash != NULL) {
			*slash = '\0';
			snprintf(path, size, "%s/" OM_LIBVIRTD_PROGRAM, self);
			if (access(path, X_OK) == 0) {
				return OM_OK;
			}
		}
	}
	for (size_t i = 0; i < OM_COUNT(dirs); i++) {
		snprintf(path, size, "%s/" OM_LIBVIRTD_PROGRAM, dirs[i]);
		if (access(path, X_OK) == 0) {
			return OM_OK;
		}
	}
	return OM_ERR_NOT_FOUND;
}

/* Waits for the line "ready URI". */
static enum om_err
libvirtd_wait_ready(int fd, char *uri, size_t size, struct om_why *why)
{
	struct om_mono until = { om_mono_now().ns + OM_LIBVIRTD_START_MS * OM_NS_PER_MS };
	char line[OM_LIBVIRTD_URI_MAX];
	size_t len = 0;
	char *end;

	for (;;) {
		struct pollfd p = { fd, POLLIN, 0 };
		int64_t left = om_mono_ms_between(om_mono_now(), until);
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) == 0) {
			return om_why_set(why, OM_ERR_TIMEOUT, "the private libvirtd is not ready");
		}
		n = read(fd, line + len, sizeof(line) - 1 - len);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return om_why_set(why, OM_ERR_MISSING, "the private libvirtd ended");
		}
		len += (size_t)n;
		line[len] = '\0';
		end = strchr(line, '\n');
		if (end != NULL) {
			*end = '\0';
			break;
		}
		if (len == sizeof(line) - 1) {
			return om_why_set(why, OM_ERR_INTERNAL,
					  "the private libvirtd talks too much");
		}
	}
	if (strncmp(line, "ready ", 6) != 0) {
		return om_why_set(why, OM_ERR_INTERNAL, "the private libvirtd said '%s'", line);
	}
	snprintf(uri, size, "%s", line + 6);
	return OM_OK;
}

enum om_err
om_libvirtd_start(const char *dir, struct om_libvirtd *out, struct om_why *why)
{
	char program[512];
	const char *argv[] = { program, dir, NULL };
	struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = 2 };
	int pipe_fds[2] = { -1, -1 };
	enum om_err err;

	memset(out, 0, sizeof(*out));
	out->pidfd = -1;
	if (om_libvirtd_find(program, sizeof(program)) != OM_OK) {
		return om_why_set(why, OM_ERR_MISSING, "the program %s is not installed",
				  OM_LIBVIRTD_PROGRAM);
	}
	if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
		return om_why_errno(why, OM_ERR_LIMIT, "pipe");
	}
	how.out_fd = pipe_fds[1];
	err = om_spawn_start(&how, &out->pid, &out->pidfd, why);
	close(pipe_fds[1]);
	if (err == OM_OK) {
		err = libvirtd_wait_ready(pipe_fds[0], out->uri, sizeof(out->uri), why);
	} else {
		out->pid = 0;
	}
	close(pipe_fds[0]);
	if (err != OM_OK) {
		om_libvirtd_stop(out);
	}
	return err;
}

void
om_libvirtd_stop(struct om_libvirtd *lv)
{
	struct pollfd p = { lv->pidfd, POLLIN, 0 };

	if (lv->pid <= 0) {
		return;
	}
	kill(lv->pid, SIGTERM);
	if (poll(&p, 1, OM_LIBVIRTD_STOP_MS) <= 0) {
		om_warn("libvirtd.stop", "the private libvirtd does not end; killing it");
		kill(lv->pid, SIGKILL);
	}
	while (waitpid(lv->pid, NULL, 0) < 0 && errno == EINTR) {
	}
	close(lv->pidfd);
	lv->pid = 0;
	lv->pidfd = -1;
}
