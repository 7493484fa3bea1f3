/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_LINK_H
#define OM_NET_LINK_H

/*
 * Links, addresses, routes and neighbours, by rtnetlink and /dev/net/tun.  A `struct om_nl` of
 * NETLINK_ROUTE says by its own namespace where a call acts.  Blocking, one thread at a time.
 */
#include <stdbool.h>
#include <stdint.h>
#include "net/addr.h"
#include "net/netlink.h"

#define OM_IFNAME_LEN 16 /* IFNAMSIZ */

enum om_tun_kind {
	OM_TUN_TAP, /* Ethernet, virtio-net header */
	OM_TUN_TUN, /* IP, with the 4 bytes of packet information that wireguard-go wants */
};

/*
 * Opens (and makes, if it is not there) a device in the calling thread's namespace; one that was made
 * lives as long as *fd (or its dup).  Blocking reads: wireguard-go, which gets it as stdin, wants to
 * make it nonblocking itself.
 */
enum om_err om_tun_open(enum om_tun_kind kind, const char *name, int *fd,
			struct om_why *why) OM_MUST_CHECK;
/* The device outlives its descriptors: it goes with its namespace, or by om_link_delete. */
enum om_err om_tun_persist(int fd, struct om_why *why) OM_MUST_CHECK;
/* Makes a tap that outlives its descriptor and that uid (and gid) may open.  Left down. */
enum om_err om_tap_new(const char *name, uint32_t uid, uint32_t gid,
		       struct om_why *why) OM_MUST_CHECK;

struct om_link {
	int index;
	bool is_up;
	struct om_mac mac;
	char name[OM_IFNAME_LEN];
	char kind[16]; /* "tun", "wireguard", "veth", "" */
};
/* OM_ERR_NOT_FOUND when there is none of this name. */
enum om_err om_link_get(struct om_nl *nl, const char *name, struct om_link *out,
			struct om_why *why) OM_MUST_CHECK;
typedef void (*om_link_fn)(const struct om_link *link, void *arg);
enum om_err om_link_each(struct om_nl *nl, om_link_fn fn, void *arg,
			 struct om_why *why) OM_MUST_CHECK;

enum om_err om_link_up(struct om_nl *nl, int index, struct om_why *why) OM_MUST_CHECK;
/* MAC, MTU (0: as it is) in one request; the link is down. */
enum om_err om_link_shape(struct om_nl *nl, int index, const struct om_mac *mac, uint16_t mtu,
			  struct om_why *why) OM_MUST_CHECK;
/* To the namespace of fd; addresses and "up" do not move with it.  The index may change. */
enum om_err om_link_move(struct om_nl *nl, int index, int netns_fd,
			 struct om_why *why) OM_MUST_CHECK;
/* A link that is not there is fine. */
enum om_err om_link_delete(struct om_nl *nl, const char *name, struct om_why *why) OM_MUST_CHECK;
/* A link of a kind that needs no settings ("wireguard"), in the namespace of netns_fd (-1: nl's). */
enum om_err om_link_new(struct om_nl *nl, const char *kind, const char *name, int netns_fd,
			struct om_why *why) OM_MUST_CHECK;
/* Two ends of a cable; the peer's end in peer_netns_fd (-1: nl's).  For tests and demos. */
enum om_err om_link_new_veth(struct om_nl *nl, const char *name, const char *peer,
			     int peer_netns_fd, struct om_why *why) OM_MUST_CHECK;

enum om_err om_addr_add(struct om_nl *nl, int index, const struct om_cidr *addr,
			struct om_why *why) OM_MUST_CHECK;
/* via family 0: on the link itself. */
enum om_err om_route_add(struct om_nl *nl, int index, const struct om_cidr *to,
			 const struct om_ip *via, struct om_why *why) OM_MUST_CHECK;
/* A permanent entry: what the other side says by ARP or ND cannot change it. */
enum om_err om_neigh_add(struct om_nl *nl, int index, const struct om_ip *ip,
			 const struct om_mac *mac, struct om_why *why) OM_MUST_CHECK;

/*
 * Networks of all addresses in nl's namespace, each once, without link-local ones.  OM_ERR_FULL when
 * there are more than max.
 */
enum om_err om_addr_networks(struct om_nl *nl, struct om_cidr *out, uint16_t max, uint16_t *count,
			     struct om_why *why) OM_MUST_CHECK;

/* Writes /proc/sys/net/<path> of the calling thread's namespace.  A missing file is OM_ERR_NOT_FOUND. */
enum om_err om_sysctl_set(const char *path, const char *value, struct om_why *why) OM_MUST_CHECK;

#endif /* OM_NET_LINK_H */
