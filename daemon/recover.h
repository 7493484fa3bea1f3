/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_RECOVER_H
#define OM_DAEMON_RECOVER_H

/*
 * What an earlier life of this daemon may have left behind, removed before anything is accepted:
 * VMs, files of jobs, links, processes and sockets of tunnels.  Only what is surely ours: a VM
 * whose job has a directory in our directory of jobs (daemon/lock.h), a qemu with a file there, a link
 * with our instance's tag.  Several daemons on one machine leave each other alone.
 */
#include "net/jobnet.h"
#include "vm/driver.h"

struct om_recovered {
	unsigned vms;
	unsigned directories;
	struct om_jobnet_sweep net;
};

/*
 * Main thread, before the system starts; blocks.  driver or net NULL: not in use.  jobs_dir is
 * where the executor keeps a directory a job, and locked.  An error: something is left; why names it.
 */
enum om_err om_recover(const struct om_vm_driver *driver, const struct om_jobnet_env *net,
		       const char *jobs_dir, struct om_recovered *out,
		       struct om_why *why) OM_MUST_CHECK;

#endif /* OM_DAEMON_RECOVER_H */
