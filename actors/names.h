/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_NAMES_H
#define OM_ACTORS_NAMES_H

/*
 * Names of the services on the bus.  Start order (and supervision rest_for_one in this order):
 * ledger, filter_manager, activity_logger, executor, job_queue, provider, control.  The queue and
 * the provider keep in memory what they can read again from the ledger, so when one of them
 * restarts, those after it restart too and the provider recovers.
 */
#define OM_LEDGER                    "ledger"
#define OM_FILTER_MANAGER            "filter_manager"
#define OM_ACTIVITY_LOGGER           "activity_logger"
#define OM_EXECUTOR                  "executor"
#define OM_VPN_MANAGER               "vpn_manager"
#define OM_ROGUE_CONNECTION_DETECTOR "rogue_connection_detector"
#define OM_JOB_QUEUE                 "job_queue"
#define OM_PROVIDER                  "provider"
#define OM_CONTROL                   "control"

/* Before a job's id: what its job_run is registered as, so that it is found while it lives. */
#define OM_JOB_RUN_NAME "job_run/"

/*
 * Pools of blocking work (om_offload_to).  A libvirtd that hangs holds up neither the tunnels nor the
 * end of a job, which needs its files removed.
 */
#define OM_POOL_FILES   0
#define OM_POOL_VM      1
#define OM_POOL_NETWORK 2
#define OM_POOL_LEDGER  3 /* nothing waits behind a file's copy: every answer waits for it */

#endif /* OM_ACTORS_NAMES_H */
