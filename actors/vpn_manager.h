/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_VPN_MANAGER_H
#define OM_ACTORS_VPN_MANAGER_H

/*
 * The VPN manager makes and removes the network of each job (net/jobnet.h).
 *
 *	executor --vpn.up-->     answered when the tap is there; the tunnel comes up meanwhile
 *	executor --vpn.attach--> answered when the tap is behind its walls; the packets that they
 *				 refuse go to the detector from here on
 *	executor --vpn.down-->   answered with the last counters, when all is gone; job "*": those
 *				 of an executor that has failed, and their watches
 *	         --vpn.stats-->  rogue_connection_detector, and the ledger for who asks, for each
 *				 tunnel, every few seconds
 *
 * A tunnel whose other end has moved to where the operator's policy lets none be ends its job
 * (rogue.caught with reason endpoint_denied).  So does a WireGuard process that dies (tunnel_lost) and
 * the manager's own end, by failure or by a stop: every network goes with it.
 */
#include "msg/bus.h"
#include "net/health.h"
#include "net/jobnet.h"

#define OM_VPN_SAMPLE_MS 5000 /* between two readings of a tunnel's counters, default */
#define OM_VPN_JOBS_MAX  4096

/* Borrowed for the manager's life.  env NULL: no tunnels here, every vpn.up is refused. */
struct om_vpn_manager_conf {
	struct om_jobnet_env *env;
	struct om_health_limits health;
	uint64_t sample_ms; /* at least 1 */
	uint64_t rate_max_kbit; /* of each tunnel, in each direction; 0: no limit */
};

extern const struct om_service_def om_vpn_manager_service;

/*
 * To the detector's mailbox, on its system lane, before vpn.attach is answered: the socket of the
 * refused packets.  An object of the heap, freed by om_vpn_handoff_free.
 */
#define OM_VPN_HANDOFF 0x76706e01u
struct om_vpn_handoff {
	struct om_job_id job;
	struct om_nflog *log;
	uint32_t noise; /* mask of enum om_noise */
	struct om_health_limits health;
};
void om_vpn_handoff_free(void *handoff);

#endif /* OM_ACTORS_VPN_MANAGER_H */
