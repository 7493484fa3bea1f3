/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_ROGUE_CONNECTION_DETECTOR_H
#define OM_ACTORS_ROGUE_CONNECTION_DETECTOR_H

/*
 * The detector hears of every packet that the walls of a job's network refuse, kills the VM with
 * SIGKILL at the first one that is not on the noise list, and then tells the executor what it saw.
 * It also judges the tunnels' health from vpn.stats.
 *
 * It fails closed: no socket, a socket error, lost events (ENOBUFS), a refused packet that the walls
 * have counted and it has not seen, and its own restart end the job.
 */
#include "base/id.h"
#include "msg/bus.h"

/* No start arg: all it needs comes with the jobs. */
extern const struct om_service_def om_rogue_connection_detector_service;

/*
 * To the detector's mailbox, on its system lane, before rogue.watch is sent: the process that it is
 * to kill.  A descriptor, because a number may be another process's by then.  An object of the heap
 * that owns the pidfd, freed by om_rogue_guard_free.
 */
#define OM_ROGUE_GUARD 0x726f6701u
struct om_rogue_guard {
	struct om_job_id job;
	int pidfd;
};
void om_rogue_guard_free(void *guard);

#endif /* OM_ACTORS_ROGUE_CONNECTION_DETECTOR_H */
