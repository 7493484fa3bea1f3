/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_SPAWN_H
#define OM_BASE_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/buf.h"

/*
 * Child processes without a shell: argv goes to execve as it is.  The child gets /dev/null or the
 * given fds as 0, 1, 2, every other fd is closed, signals are reset, it leads its own process group,
 * and it dies with its parent (PR_SET_PDEATHSIG: with the *thread* that started it, so a child that
 * shall live on is started from a thread that does).  No child is left unreaped.
 */
#define OM_SPAWN_OUTPUT_MAX (1024 * 1024) /* what om_spawn_run keeps when out->max is 0 */

struct om_spawn {
	const char *const *argv; /* argv[0] is an absolute path, NULL-terminated */
	const char *const *envp; /* NULL: PATH and LANG=C only */
	const char *cwd; /* NULL: as the parent */
	int in_fd, out_fd, err_fd; /* -1: /dev/null */
	/*
	 * Confined: of root's capabilities the child and what it starts have these alone
	 * (1 << CAP_...), and no program gives them more (no_new_privs).  DENIED: we may not.
	 */
	bool confined;
	uint64_t keep_caps;
};

/*
 * Any thread.  Gives a pid, which the caller reaps, and (when pidfd is not NULL) a pidfd that the
 * caller closes.  NOT_FOUND, DENIED, ...: the program could not be executed.
 */
enum om_err om_spawn_start(const struct om_spawn *how, pid_t *pid, int *pidfd,
			   struct om_why *why) OM_MUST_CHECK;

/*
 * Any thread; blocks.  Runs to the end with a deadline: collects stdout and stderr together (cut at
 * out->max; out may be NULL), kills the process group at the timeout.  status is waitpid's and may
 * be NULL.  OM_ERR_TIMEOUT when it was killed.  Output of a grandchild that outlives the child is not
 * waited for.
 */
enum om_err om_spawn_run(const struct om_spawn *how, int64_t timeout_ms, struct om_buf *out,
			 int *status, struct om_why *why) OM_MUST_CHECK;

#endif /* OM_BASE_SPAWN_H */
