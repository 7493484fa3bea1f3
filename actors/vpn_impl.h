/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_VPN_IMPL_H
#define OM_ACTORS_VPN_IMPL_H

/* Shared by vpn_manager.c (the service) and vpn_tunnel.c (one tunnel's steps). */
#include "actors/name_table.h"
#include "actors/vpn_manager.h"

struct om_vpn_tunnel {
	struct om_name_node node;
	struct om_job_id job;
	struct om_wg_config wg;
	uint64_t rate_kbit;
	struct om_jobnet *net;
	enum om_err err; /* of the first call that failed */
	struct om_why why;
	bool busy;
	bool is_up, is_attached, going_down;
	bool told; /* the executor has heard that the job must end */
	bool is_orphan; /* its executor has ended: nobody else ends its watch */
	struct om_bus_request up_rq, attach_rq, down_rq;
	uint64_t died_watch; /* wireguard-go's pidfd; the cookie is the tunnel */
	struct om_jobnet_stats stats;
	struct om_mono handshake_since; /* stats.handshake_at was first seen then */
};

struct om_vpn_manager {
	uint32_t magic;
	const struct om_vpn_manager_conf *conf;
	struct om_name_table tunnels;
	uint64_t stats_timer; /* runs while there are tunnels */
	struct om_bus_request sweep_rq; /* answered when there is no tunnel any more */
};

/* All: the manager's thread. */
struct om_vpn_tunnel *om_vpn_tunnel_of(const struct om_name_node *node);
struct om_str om_vpn_tunnel_name(const struct om_name_node *node);

/* The first step; the answer to up_rq comes from here, also when it fails. */
void om_vpn_tunnel_reserve(struct om_service *sv, struct om_vpn_manager *vm,
			   struct om_vpn_tunnel *t);
/* Does what was asked and is not done yet, unless a call is under way; may free the tunnel. */
void om_vpn_tunnel_next(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t);
/* Reads the counters and sends them to the detector, when there is a moment for it. */
void om_vpn_tunnel_sample(struct om_service *sv, struct om_vpn_manager *vm,
			  struct om_vpn_tunnel *t);
/* Tells the executor that the job must end; it comes back with vpn.down. */
void om_vpn_tunnel_lost(struct om_service *sv, struct om_vpn_tunnel *t, const char *text);
/* Answers sweep_rq when the last tunnel has gone. */
void om_vpn_swept(struct om_service *sv, struct om_vpn_manager *vm);
/* Its network is taken down at once, here or by the call under way; then it is freed. */
void om_vpn_tunnel_drop(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t);

#endif /* OM_ACTORS_VPN_IMPL_H */
