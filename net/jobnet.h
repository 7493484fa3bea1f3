/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_JOBNET_H
#define OM_NET_JOBNET_H

/*
 * One job's network: a network namespace that holds the guest's tap and the WireGuard link, and
 * nothing else.  There is no route to the host because there is no interface to it; the nftables
 * rules are the second wall (docs/network.md).
 *
 *	om_jobnet_reserve	what needs no job: namespace, WireGuard without keys, tap (for a VM that
 *				boots ahead; om_jobnet_up does it by itself otherwise)
 *	  info->tap		given to the hypervisor, which opens it; it is down and in the host's ns
 *	om_jobnet_attach_tap	when the hypervisor has opened it
 *	om_jobnet_up		the job is known: walls, routes, keys.  Before or after the attaching
 *	  the guest may run when both are done
 *	om_jobnet_down		always, whatever happened before
 *
 * The namespace has no name in the file system: it lives as long as this object's descriptor, so
 * kill -9 of the daemon takes the namespace, its links, rules and sockets with it (fail closed).
 * What can be left is swept by name: links "om?<instance>...", wireguard-go and its socket.
 */
#include "base/id.h"
#include "net/flow_policy.h"
#include "net/nflog.h"
#include "net/wg_config.h"

#define OM_IFNAME_MAX      16 /* IFNAMSIZ: 15 bytes and the NUL */
#define OM_INSTANCE_LEN    4 /* hex digits */
#define OM_JOBNET_NS_TEXT  32 /* "net:[4026532281]" */
#define OM_JOBNET_GATEWAY4 "169.254.1.1" /* the guest's next hop, on the link alone */
#define OM_JOBNET_GATEWAY6 "fe80::1"

enum om_wg_backend {
	OM_WG_BACKEND_NONE,
	OM_WG_BACKEND_KERNEL,
	OM_WG_BACKEND_USERSPACE,
};

/*
 * What all jobs of one daemon share.  Filled once by om_jobnet_env_init, then read only but for
 * policy.own, which only the functions below look at.
 */
struct om_jobnet_env {
	char instance[OM_INSTANCE_LEN + 1]; /* tells this daemon's links from another's */
	enum om_wg_backend backend;
	char wireguard_go[128]; /* path of the program; used with OM_WG_BACKEND_USERSPACE */
	uint32_t tap_uid; /* who may open the tap: the hypervisor's user */
	uint32_t tap_gid;
	uint32_t noise; /* mask of enum om_noise */
	struct om_endpoint_policy policy; /* own[] is filled from the host's interfaces */
	struct om_mono own_at; /* when it was */
};

/*
 * One thread at start, blocks: sets the defaults, derives the instance tag from state_dir (stable over
 * restarts), probes the back end (want: om_wg_probe's) and reads the host's own networks.  The caller may then change
 * tap_uid, tap_gid, noise and policy.  With wireguard-go fs.inotify.max_user_instances is raised to
 * 8192 (docs/network.md, limits).  OM_ERR_MISSING names what is not there.
 */
enum om_err om_jobnet_env_init(struct om_jobnet_env *env, const char *state_dir,
			       enum om_wg_backend want, struct om_why *why) OM_MUST_CHECK;
/* Any thread.  Reads the host's own networks again (50 us): interfaces come and go. */
enum om_err om_jobnet_env_refresh(struct om_jobnet_env *env, struct om_why *why) OM_MUST_CHECK;
/*
 * Any thread.  May WireGuard's packets go there?  The host's own networks are read again when that
 * was more than a second ago.  OM_ERR_DENIED with the rule in words; OM_ERR_NET: they cannot be read.
 */
enum om_err om_jobnet_endpoint_check(struct om_jobnet_env *env, const struct om_endpoint *ep,
				     struct om_why *why) OM_MUST_CHECK;
const char *om_wg_backend_name(enum om_wg_backend backend); /* "none" "kernel" "userspace" */

struct om_jobnet; /* opaque; one thread at a time */

struct om_jobnet_spec {
	const struct om_job_id *job; /* for the log */
	const struct om_wg_config *wg; /* borrowed during the call */
	struct om_jobnet *reserved; /* taken, also on failure; NULL: om_jobnet_up reserves */
	uint64_t rate_kbit; /* per direction; 0: no limit */
};

/* What the hypervisor and the guest need.  Valid until om_jobnet_down. */
struct om_jobnet_info {
	char tap[OM_IFNAME_MAX];
	char link[OM_IFNAME_MAX]; /* the WireGuard link, in the namespace */
	char netns[OM_JOBNET_NS_TEXT]; /* as in lsns(8); enter it by /proc/PID/fd of the daemon */
	struct om_mac guest_mac;
	struct om_cidr
	    guest4; /* /32, family 0: none.  The gateway is on the link, not in a subnet: */
	struct om_cidr guest6; /* /128: a host route to the gateway, then the default route by it */
	struct om_ip gateway4;
	struct om_ip gateway6;
	struct om_ip dns[OM_WG_DNS_MAX];
	size_t dns_count;
	uint16_t mtu;
};

/* One named counter of the walls. */
#define OM_JOBNET_COUNTERS_MAX 24
struct om_jobnet_counter {
	char name[OM_FLOW_RULE_MAX];
	uint64_t packets;
	uint64_t bytes;
};

struct om_jobnet_stats {
	bool has_walls; /* the walls' counters were read */
	bool has_link; /* and WireGuard's: bytes, handshake */
	uint64_t tx_bytes; /* WireGuard's own, its headers included: from the job */
	uint64_t rx_bytes;
	/* 0: none.  By a clock that may be set: no age can be computed from it. */
	struct om_wall handshake_at;
	struct om_endpoint endpoint; /* where WireGuard's packets go now; family 0: nowhere yet */
	uint64_t sent; /* packets of the guest that went into the tunnel */
	uint64_t
	    refused; /* packets of the guest that the walls refused: each must have been an event */
	uint64_t noise; /* dropped without an event, by the noise list */
	uint64_t inbound; /* refused packets from the requester's end */
	struct om_jobnet_counter counters[OM_JOBNET_COUNTERS_MAX];
	size_t counter_count;
};

/*
 * Blocking (about 10 ms).  Gives *out: a network without a job.  A wireguard-go child dies with the
 * *thread* that called, so that must be a thread that lasts as long as the daemon (offload pool).
 */
enum om_err om_jobnet_reserve(const struct om_jobnet_env *env, struct om_jobnet **out,
			      struct om_why *why) OM_MUST_CHECK;

/*
 * Blocking (about 5 ms, and what om_jobnet_reserve needs).  Gives *out.  On failure everything is
 * undone, the reserved network too, and *out is NULL.  OM_ERR_DENIED: the endpoint is against policy.
 */
enum om_err om_jobnet_up(struct om_jobnet_env *env, const struct om_jobnet_spec *spec,
			 struct om_jobnet **out, struct om_why *why) OM_MUST_CHECK;

/*
 * Blocking (20 to 30 ms, the kernel's time to move a link).  The hypervisor has opened info->tap: moves
 * it into the namespace.  It is set up when its walls stand, here or in om_jobnet_up, whichever comes
 * second.  OM_ERR_STATE when it is attached already.
 */
enum om_err om_jobnet_attach_tap(struct om_jobnet *net, struct om_why *why) OM_MUST_CHECK;

/* Borrowed until om_jobnet_down.  Before om_jobnet_up only tap, link, netns and guest_mac are set. */
const struct om_jobnet_info *om_jobnet_info(const struct om_jobnet *net);

/*
 * The namespace's refused packets.  Gives the socket to the caller (who closes it) once; NULL after
 * that.  A socket nobody took is closed by om_jobnet_down.
 */
struct om_nflog *om_jobnet_take_nflog(struct om_jobnet *net);

/* wireguard-go's pidfd: readable when it died, which ends the tunnel.  -1 with the kernel's. */
int om_jobnet_pidfd(const struct om_jobnet *net);

/*
 * Blocking (about 1 ms).  Also works before the tap is attached.  On failure *out holds what could
 * be read: the walls are read first, and are a witness without WireGuard.
 */
enum om_err om_jobnet_stats(struct om_jobnet *net, struct om_jobnet_stats *out,
			    struct om_why *why) OM_MUST_CHECK;

/*
 * Blocking (about 30 ms).  Takes *netp and sets it to NULL; NULL is accepted, so a second call does
 * nothing.  Never fails: what cannot be removed is logged and left to the sweep.
 */
void om_jobnet_down(struct om_jobnet **netp);

struct om_jobnet_sweep {
	unsigned links; /* removed from the host's namespace */
	unsigned processes; /* wireguard-go killed */
	unsigned sockets; /* files removed */
};

/*
 * Blocking; at start, before the first om_jobnet_up.  Removes what an earlier run of the same
 * instance left behind, and nothing else: names must carry the instance's tag, links must be of
 * the kind we make, a process must be wireguard-go.
 */
enum om_err om_jobnet_sweep(const struct om_jobnet_env *env, struct om_jobnet_sweep *out,
			    struct om_why *why) OM_MUST_CHECK;

#endif /* OM_NET_JOBNET_H */
