/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_LOCK_H
#define OM_DAEMON_LOCK_H

/*
 * Directories that two daemons never share.  A lock is a locked file in the directory, with our pid in
 * it; it goes with the process, however that ends.
 */
#include "base/err.h"

/* Its name is no job's: no id starts with a dot. */
#define OM_LOCK_JOBS_MARKER ".omertad-jobs"

/*
 * Main thread (both).  Gives the descriptor, closed to unlock.  OM_ERR_EXISTS: another process has it;
 * why names it.
 */
enum om_err om_lock_file(const char *dir, const char *name, int *out,
			 struct om_why *why) OM_MUST_CHECK;

/*
 * The same for the directory of jobs, in which a start removes what an earlier life left: so it must
 * carry our marker, or be empty and get it now.  OM_ERR_INVALID: it holds something else.
 */
enum om_err om_lock_jobs_dir(const char *dir, int *out, struct om_why *why) OM_MUST_CHECK;

#endif /* OM_DAEMON_LOCK_H */
