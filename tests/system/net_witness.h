/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_SYSTEM_NET_WITNESS_H
#define OM_TESTS_SYSTEM_NET_WITNESS_H

/* Who sees what: a capture of the host's links, and a count of what is left of our links and namespaces. */
#include "tests/system/net_rig.h"

/* All frames of all links of the host's namespace. */
static inline int
rig_capture_open(void)
{
	int fd = rig_socket(-1, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
	int size = 16 << 20;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)), 0);
	return fd;
}

/* WireGuard's own UDP from one end of the carrier to the other, by its addresses, its port and the type
 * of its message. */
static inline bool
rig_is_wireguard(const uint8_t *f, ssize_t n)
{
	const uint8_t *a = rig.carrier_mac[0].bytes, *b = rig.carrier_mac[1].bytes;

	return n >= 46 &&
	       ((memcmp(f, a, 6) == 0 && memcmp(f + 6, b, 6) == 0) ||
		(memcmp(f, b, 6) == 0 && memcmp(f + 6, a, 6) == 0)) &&
	       memcmp(f + 12, "\x08\x00\x45", 3) == 0 && f[23] == IPPROTO_UDP &&
	       memcmp(f + 26, "\x0a\xfa\x00", 3) == 0 && memcmp(f + 30, "\x0a\xfa\x00", 3) == 0 &&
	       ((f[34] << 8 | f[35]) == RIG_REQ_UDP || (f[36] << 8 | f[37]) == RIG_REQ_UDP) &&
	       f[42] >= 1 && f[42] <= 4 && memcmp(f + 43, "\0\0", 3) == 0;
}

/* A capture that has lost a frame proves nothing. */
static inline void
rig_capture_is_whole(int fd)
{
	struct tpacket_stats st;
	socklen_t len = sizeof(st);

	assert_int_equal(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &st, &len), 0);
	assert_int_equal(st.tp_drops, 0);
}

/* All frames but WireGuard's.  The carrier is quiet (rig_setup): neighbours are told, and there is no
 * IPv6, so an ARP, ND or MLD packet is a guest's. */
static inline unsigned
rig_capture_foreign(int fd)
{
	unsigned foreign = 0;
	uint8_t f[2048];
	ssize_t n;

	while ((n = recv(fd, f, sizeof(f), 0)) >= 0) {
		foreign += rig_is_wireguard(f, n) ? 0 : 1;
	}
	assert_int_equal(errno, EAGAIN);
	rig_capture_is_whole(fd);
	return foreign;
}

struct rig_count {
	unsigned links;
	unsigned ids;
};

static inline void
rig_count_link(const struct om_link *link, void *arg)
{
	struct rig_count *c = arg;

	c->links += strncmp(link->name, "om", 2) == 0 ? 1 : 0;
}

static inline enum om_err
rig_count_id(const struct nlmsghdr *nlh, void *arg)
{
	struct rig_count *c = arg;

	c->ids += nlh->nlmsg_type == RTM_NEWNSID ? 1 : 0;
	return OM_OK;
}

/* Our links in the host's namespace, and the namespaces that it knows by number (each namespace to
 * which a link was moved has one until it is gone). */
static inline struct rig_count
rig_count_left(void)
{
	struct rig_count c = { 0, 0 };
	struct om_nl nl;
	struct nlmsghdr *nlh;
	void *body;

	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_each(&nl, rig_count_link, &c, &rig_why));
	nlh = om_nl_begin(&nl, RTM_GETNSID, 0, sizeof(struct rtgenmsg), &body);
	rig_ok(om_nl_dump(&nl, nlh, rig_count_id, &c, &rig_why, "list namespaces"));
	om_nl_close(&nl);
	return c;
}

/* Waits until no link and no namespace beyond the given number is left (the kernel takes them apart
 * in the background). */
static inline void
rig_wait_nothing_left(unsigned ids)
{
	for (int i = 0; i < 500; i++) {
		struct rig_count c = rig_count_left();

		if (c.links == 0 && c.ids <= ids) {
			return;
		}
		(void)poll(NULL, 0, 10);
	}
	fail_msg("left: %u links, %u namespaces of %u", rig_count_left().links,
		 rig_count_left().ids, ids);
}

#endif /* OM_TESTS_SYSTEM_NET_WITNESS_H */
