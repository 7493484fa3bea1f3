/* SPDX-License-Identifier: ISC */
#include "net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"

/* The calling *thread*'s namespace; /proc/self would be the main thread's. */
#define NETNS_OWN "/proc/thread-self/ns/net"

static enum om_err
netns_open_own(int *fd, struct om_why *why)
{
	*fd = open(NETNS_OWN, O_RDONLY | O_CLOEXEC);
	if (*fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "open " NETNS_OWN);
	}
	return OM_OK;
}

enum om_err
om_netns_new(int *fd, struct om_why *why)
{
	struct om_netns_scope scope = { .home = -1 };
	enum om_err err;

	*fd = -1;
	err = netns_open_own(&scope.home, why);
	if (err != OM_OK) {
		return err;
	}
	if (unshare(CLONE_NEWNET) != 0) {
		err = om_why_errno(why, om_err_from_errno(errno), "new network namespace");
		(void)close(scope.home);
		return err;
	}
	err = netns_open_own(fd, why);
	om_netns_leave(&scope);
	return err;
}

void
om_netns_text(int fd, char *out, size_t size)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0) {
		(void)snprintf(out, size, "net:[?]");
		return;
	}
	(void)snprintf(out, size, "net:[%ju]", (uintmax_t)st.st_ino);
}

enum om_err
om_netns_enter(struct om_netns_scope *scope, int fd, struct om_why *why)
{
	enum om_err err;

	err = netns_open_own(&scope->home, why);
	if (err != OM_OK) {
		return err;
	}
	if (setns(fd, CLONE_NEWNET) != 0) {
		err = om_why_errno(why, om_err_from_errno(errno), "enter the network namespace");
		(void)close(scope->home);
		scope->home = -1;
	}
	return err;
}

void
om_netns_leave(struct om_netns_scope *scope)
{
	if (scope->home < 0) {
		return;
	}
	OM_ASSERT(setns(scope->home, CLONE_NEWNET) == 0);
	(void)close(scope->home);
	scope->home = -1;
}
