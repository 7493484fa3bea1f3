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
#include "msg/bus.h"

/* No start arg: all it needs comes with the jobs. */
extern const struct om_service_def om_rogue_connection_detector_service;

#endif /* OM_ACTORS_ROGUE_CONNECTION_DETECTOR_H */
