/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_NFTABLES_H
#define OM_NET_NFTABLES_H

/*
 * The second wall: nftables rules of one job's namespace (docs/network.md explains each).  Two
 * tables: `inet om` drops whatever is not tap <-> tunnel and is there from the start; `netdev om`
 * checks each frame of the guest at the tap and is there before the tap is set up.
 *
 * Everything refused is counted under the rule's name ("r_...") and logged with the same name as its
 * NFLOG prefix, so an event and a counter name each other.
 */
#include "base/buf.h"
#include "net/jobnet.h"
#include "net/netlink.h"

struct om_walls {
	const char *tap;
	const char *link; /* WireGuard's */
	struct om_mac guest_mac;
	struct om_mac gateway_mac; /* the tap's own */
	struct om_ip guest4; /* family 0: none */
	struct om_ip guest6;
	const struct om_cidr *allowed;
	size_t allowed_count;
	uint32_t noise; /* mask of enum om_noise */
	uint64_t rate_kbit; /* 0: no limit */
	uint16_t group; /* NFLOG */
};

/* Any thread.  The rules as text.  All values in it are typed: nothing of a stranger's is pasted. */
void om_nft_inet_text(const struct om_walls *walls, struct om_buf *out);
void om_nft_guest_text(const struct om_walls *walls, struct om_buf *out);

/* Blocking; any thread (one at a time inside).  Loads rules in the calling thread's namespace. */
enum om_err om_nft_load(const char *rules, struct om_why *why) OM_MUST_CHECK;

/* Reads all named counters of nl's namespace (NETLINK_NETFILTER); stops at max. */
enum om_err om_nft_counters(struct om_nl *nl, struct om_jobnet_counter *out, size_t max,
			    size_t *count, struct om_why *why) OM_MUST_CHECK;

/* Is this counter's name one of a refusing rule ("r_..."), that is of the guest's doing? */
bool om_nft_is_refusal(const char *name);

#endif /* OM_NET_NFTABLES_H */
