/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_LIBVIRTD_H
#define OM_DAEMON_LIBVIRTD_H

/*
 * A libvirtd of our own, where the system has none: runs the program private-libvirtd, which keeps
 * it in directories and a mount namespace of its own and ends it when we end, however that happens.
 */
#include <sys/types.h>
#include "base/err.h"

#define OM_LIBVIRTD_URI_MAX  192
#define OM_LIBVIRTD_START_MS 35000
#define OM_LIBVIRTD_STOP_MS  15000
#define OM_LIBVIRTD_PROGRAM  "private-libvirtd"

struct om_libvirtd {
	pid_t pid; /* 0: not running */
	int pidfd;
	char uri[OM_LIBVIRTD_URI_MAX];
};

/* Any thread.  Finds the program: beside our own, then where `make install` puts it. */
enum om_err om_libvirtd_find(char *path, size_t size) OM_MUST_CHECK;

/*
 * The main thread (the helper notices when that one ends); blocks until the libvirtd answers.
 * dir: absolute, at most 79 bytes.
 */
enum om_err om_libvirtd_start(const char *dir, struct om_libvirtd *out,
			      struct om_why *why) OM_MUST_CHECK;
/* Blocks.  Ends it with all its domains.  One that does not run is fine. */
void om_libvirtd_stop(struct om_libvirtd *lv);

#endif /* OM_DAEMON_LIBVIRTD_H */
