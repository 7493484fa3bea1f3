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

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	return fd;
}

/* Frames that are not WireGuard's UDP between the two ends, nor ARP or ND between them. */
static inline unsigned
rig_capture_foreign(int fd)
{
	unsigned foreign = 0;
	uint8_t f[2048];
	ssize_t n;

	while ((n = recv(fd, f, sizeof(f), 0)) > 0) {
		bool arp = n >= 14 && f[12] == 0x08 && f[13] == 0x06;
		bool nd = n >= 55 && f[12] == 0x86 && f[13] == 0xdd && f[14 + 8] == 0xfe;
		bool unspec6 = n >= 54 && f[12] == 0x86 && f[13] == 0xdd && f[14 + 8] == 0;
		bool wg =
		    n >= 42 && f[12] == 0x08 && f[13] == 0 && f[23] == IPPROTO_UDP && f[26] == 10 &&
		    f[27] == 250 && f[30] == 10 && f[31] == 250 &&
		    ((f[34] << 8 | f[35]) == RIG_REQ_UDP || (f[36] << 8 | f[37]) == RIG_REQ_UDP);

		if (!arp && !nd && !unspec6 && !wg) {
			foreign++;
		}
	}
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
