/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_SPAWN_H
#define OM_BASE_SPAWN_H

#include <stdint.h>
#include <sys/types.h>
#include "base/buf.h"

/*
 * Child processes without a shell: argv goes to execve as it is.  The child gets /dev/null or the
 * given fds as 0, 1, 2, every other fd is closed, signals are reset, and it dies with its parent
 * (PR_SET_PDEATHSIG).  No child is left unreaped.
 */
struct om_spawn {
	const char *const *argv; /* argv[0] is an absolute path, NULL-terminated */
	const char *const *envp; /* NULL: PATH and LANG=C only */
	const char *cwd;	 /* NULL: as the parent */
	int in_fd, out_fd, err_fd; /* -1: /dev/null */
};

/* Any thread.  Gives a pid and (when pidfd is not NULL) a pidfd that the caller closes. */
enum om_err om_spawn_start(const struct om_spawn *how, pid_t *pid, int *pidfd, struct om_why *why)
    OM_MUST_CHECK;

/*
 * Any thread; blocks.  Runs to the end with a deadline: collects stdout and stderr together (cut at
 * out->max), kills at timeout.  status is waitpid's.  OM_ERR_TIMEOUT when it was killed.
 */
enum om_err om_spawn_run(const struct om_spawn *how, int64_t timeout_ms, struct om_buf *out,
    int *status, struct om_why *why) OM_MUST_CHECK;

#endif /* OM_BASE_SPAWN_H */
