/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_JOBNET_IMPL_H
#define OM_NET_JOBNET_IMPL_H

#include "net/jobnet.h"
#include "net/netlink.h"
#include "net/nftables.h"
#include "net/wireguard.h"

struct om_jobnet {
	uint32_t magic;
	struct om_jobnet_info info;
	struct om_mac gateway_mac; /* the tap's own */
	struct om_cidr allowed[OM_WG_ALLOWED_MAX];
	size_t allowed_count;
	uint32_t noise;
	uint64_t rate_kbit;
	int ns;
	bool has_tap; /* the tap exists and is ours to remove */
	bool is_attached; /* the tap is in the namespace */
	bool is_up; /* the job's walls, routes and keys are in place */
	struct om_wg *wg;
	struct om_nflog *log;
	struct om_nl walls; /* NETLINK_NETFILTER in the namespace, for the counters */
	size_t done; /* steps */
};

/* "om", kind ('t': tap, 'w': WireGuard), instance, tag (8 bytes): 15 bytes. */
void om_jobnet_name(char kind, const char *instance, const char *tag, char out[OM_IFNAME_MAX]);
/* A name of this kind that nobody has: 32 random bits. */
void om_jobnet_fresh_name(char kind, const char *instance, char out[OM_IFNAME_MAX]);
#define OM_JOBNET_NAME_TRIES 8 /* a second try is rare */

/* Loads rules of this job in the calling thread's namespace. */
enum om_err om_jobnet_load_walls(const struct om_jobnet *net,
				 void (*text)(const struct om_walls *, struct om_buf *),
				 struct om_why *why) OM_MUST_CHECK;

/* The tap, in net/jobnet_tap.c. */
enum om_err om_jobnet_tap_make(struct om_jobnet *net, const struct om_jobnet_env *env,
			       struct om_why *why) OM_MUST_CHECK;
void om_jobnet_tap_remove(struct om_jobnet *net);
/* In the namespace, when is_attached and is_up: shape, guest's wall, addresses, up. */
enum om_err om_jobnet_tap_settle(struct om_jobnet *net, struct om_why *why) OM_MUST_CHECK;

#endif /* OM_NET_JOBNET_IMPL_H */
