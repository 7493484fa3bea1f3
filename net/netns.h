/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_NETNS_H
#define OM_NET_NETNS_H

/*
 * Network namespaces without a name: a descriptor keeps one alive, and nothing else does.  When the
 * process that holds it dies, by kill -9 too, the kernel takes the namespace apart with all that is
 * in it.  So there are no orphans to find, and a job whose daemon died is cut off.
 */
#include <stddef.h>
#include "base/err.h"

/* Any thread.  Gives a descriptor (close-on-exec) of a fresh namespace; its lo is down. */
enum om_err om_netns_new(int *fd, struct om_why *why) OM_MUST_CHECK;

/* Any thread.  "net:[4026532281]"; out is cut at size. */
void om_netns_text(int fd, char *out, size_t size);

/*
 * The calling thread enters a namespace and comes back.  In between it must open sockets and files
 * of /proc/sys/net only, and return nowhere.  Coming back cannot fail: a thread left in a job's
 * namespace would give its next task's sockets to that job, so om_netns_leave asserts.
 */
struct om_netns_scope {
	int home; /* the namespace to return to; -1: not entered */
};
enum om_err om_netns_enter(struct om_netns_scope *scope, int fd, struct om_why *why) OM_MUST_CHECK;
void om_netns_leave(struct om_netns_scope *scope); /* also of a scope that was not entered */

#endif /* OM_NET_NETNS_H */
