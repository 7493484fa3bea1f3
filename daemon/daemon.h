/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_DAEMON_H
#define OM_DAEMON_DAEMON_H

/*
 * One life of omertad, from a checked configuration to an exit code.
 *
 *	lock, doctor, libvirtd, probe, recover -> supervisor: ledger ... control -> ready
 *	stop: drain by the provider -> actors in reverse order -> libvirtd -> unlock
 */
#include "daemon/config.h"

/*
 * Main thread, before any other thread; blocks until the daemon has ended.  Gives the exit code:
 * 0, or 1 after a line on stderr.  The configuration and its sources outlive the call.
 */
int om_daemon_run(const struct om_config *config, const struct om_conf_sources *sources);

/* Main thread; blocks.  Prints the checks; 0 when omertad would start. */
int om_daemon_check(const struct om_config *config, bool json);

#endif /* OM_DAEMON_DAEMON_H */
