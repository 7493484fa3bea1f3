/* SPDX-License-Identifier: ISC */
#include "net/link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"

#define TUN_DEVICE  "/dev/net/tun"
#define WHAT_MAX    64
#define SYSCTL_PATH 128

static int
af_of(const struct om_ip *ip)
{
	return ip->family == 4 ? AF_INET : AF_INET6;
}

static size_t
ip_len(const struct om_ip *ip)
{
	return ip->family == 4 ? 4 : 16;
}

static void
put_ip(struct nlmsghdr *nlh, uint16_t attr, const struct om_ip *ip)
{
	mnl_attr_put(nlh, attr, ip_len(ip), ip->bytes);
}

/* --- tun and tap -------------------------------------------------------------------------------- */

enum om_err
om_tun_open(enum om_tun_kind kind, const char *name, int *fd, struct om_why *why)
{
	struct ifreq ifr;

	OM_ASSERT(strlen(name) < IFNAMSIZ);
	memset(&ifr, 0, sizeof(ifr));
	memcpy(ifr.ifr_name, name, strlen(name));
	ifr.ifr_flags = kind == OM_TUN_TAP ? IFF_TAP | IFF_NO_PI | IFF_VNET_HDR : IFF_TUN;
	*fd = open(TUN_DEVICE, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "open " TUN_DEVICE);
	}
	if (ioctl(*fd, TUNSETIFF, &ifr) != 0) {
		enum om_err err = om_why_errno(why, om_err_from_errno(errno), "make %s", name);

		(void)close(*fd);
		*fd = -1;
		return err;
	}
	return OM_OK;
}

enum om_err
om_tun_persist(int fd, struct om_why *why)
{
	return ioctl(fd, TUNSETPERSIST, 1UL) == 0
		   ? OM_OK
		   : om_why_errno(why, om_err_from_errno(errno), "keep a tun device");
}

enum om_err
om_tap_new(const char *name, uint32_t uid, uint32_t gid, struct om_why *why)
{
	enum om_err err;
	int fd;

	err = om_tun_open(OM_TUN_TAP, name, &fd, why);
	if (err != OM_OK) {
		return err;
	}
	if (ioctl(fd, TUNSETOWNER, (unsigned long)uid) != 0 ||
	    ioctl(fd, TUNSETGROUP, (unsigned long)gid) != 0) {
		err = om_why_errno(why, om_err_from_errno(errno), "set owner of %s", name);
	}
	/* Last: before that, closing the descriptor removes the device. */
	if (err == OM_OK) {
		err = om_tun_persist(fd, why);
	}
	(void)close(fd);
	return err;
}

/* --- links -------------------------------------------------------------------------------------- */

static void
link_parse_info(const struct nlattr *info, struct om_link *out)
{
	const struct nlattr *attr;

	OM_NL_EACH_NESTED(attr, info)
	{
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND) {
			(void)snprintf(out->kind, sizeof(out->kind), "%s", mnl_attr_get_str(attr));
		}
	}
}

static void
link_parse(const struct nlmsghdr *nlh, struct om_link *out)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;

	memset(out, 0, sizeof(*out));
	out->index = ifi->ifi_index;
	out->is_up = (ifi->ifi_flags & IFF_UP) != 0;
	OM_NL_EACH(attr, nlh, sizeof(*ifi))
	{
		switch (mnl_attr_get_type(attr)) {
		case IFLA_IFNAME:
			(void)snprintf(out->name, sizeof(out->name), "%s", mnl_attr_get_str(attr));
			break;
		case IFLA_ADDRESS:
			if (mnl_attr_get_payload_len(attr) == sizeof(out->mac.bytes)) {
				memcpy(out->mac.bytes, mnl_attr_get_payload(attr),
				       sizeof(out->mac.bytes));
			}
			break;
		case IFLA_LINKINFO:
			link_parse_info(attr, out);
			break;
		default:
			break;
		}
	}
}

struct link_walk {
	om_link_fn fn;
	void *arg;
};

static enum om_err
link_on_dump(const struct nlmsghdr *nlh, void *arg)
{
	const struct link_walk *walk = arg;
	struct om_link link;

	if (nlh->nlmsg_type == RTM_NEWLINK) {
		link_parse(nlh, &link);
		walk->fn(&link, walk->arg);
	}
	return OM_OK;
}

enum om_err
om_link_each(struct om_nl *nl, om_link_fn fn, void *arg, struct om_why *why)
{
	struct link_walk walk = { fn, arg };
	struct ifinfomsg *ifi;
	struct nlmsghdr *nlh;
	void *body;

	nlh = om_nl_begin(nl, RTM_GETLINK, 0, sizeof(*ifi), &body);
	return om_nl_dump(nl, nlh, link_on_dump, &walk, why, "list links");
}

static enum om_err
link_on_get(const struct nlmsghdr *nlh, void *arg)
{
	if (nlh->nlmsg_type != RTM_NEWLINK) {
		return OM_ERR_NET;
	}
	link_parse(nlh, arg);
	return OM_OK;
}

enum om_err
om_link_get(struct om_nl *nl, const char *name, struct om_link *out, struct om_why *why)
{
	char what[WHAT_MAX];
	struct nlmsghdr *nlh;
	void *body;

	(void)snprintf(what, sizeof(what), "look up link %s", name);
	nlh = om_nl_begin(nl, RTM_GETLINK, 0, sizeof(struct ifinfomsg), &body);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	return om_nl_query(nl, nlh, link_on_get, out, why, what);
}

/* A change of one link that exists. */
static struct nlmsghdr *
link_change(struct om_nl *nl, int index, unsigned flags, unsigned change)
{
	struct nlmsghdr *nlh;
	struct ifinfomsg *ifi;
	void *body;

	nlh = om_nl_begin(nl, RTM_NEWLINK, 0, sizeof(*ifi), &body);
	ifi = body;
	ifi->ifi_index = index;
	ifi->ifi_flags = flags;
	ifi->ifi_change = change;
	return nlh;
}

enum om_err
om_link_up(struct om_nl *nl, int index, struct om_why *why)
{
	return om_nl_ack(nl, link_change(nl, index, IFF_UP, IFF_UP), why, "set link up");
}

enum om_err
om_link_shape(struct om_nl *nl, int index, const struct om_mac *mac, uint16_t mtu,
	      struct om_why *why)
{
	struct nlmsghdr *nlh = link_change(nl, index, 0, 0);

	if (mac != NULL) {
		mnl_attr_put(nlh, IFLA_ADDRESS, sizeof(mac->bytes), mac->bytes);
	}
	if (mtu != 0) {
		mnl_attr_put_u32(nlh, IFLA_MTU, mtu);
	}
	return om_nl_ack(nl, nlh, why, "set link's MAC and MTU");
}

enum om_err
om_link_move(struct om_nl *nl, int index, int netns_fd, struct om_why *why)
{
	struct nlmsghdr *nlh = link_change(nl, index, 0, 0);

	mnl_attr_put_u32(nlh, IFLA_NET_NS_FD, (uint32_t)netns_fd);
	return om_nl_ack(nl, nlh, why, "move link to the job's namespace");
}

enum om_err
om_link_delete(struct om_nl *nl, const char *name, struct om_why *why)
{
	char what[WHAT_MAX];
	struct nlmsghdr *nlh;
	enum om_err err;
	void *body;

	(void)snprintf(what, sizeof(what), "delete link %s", name);
	nlh = om_nl_begin(nl, RTM_DELLINK, 0, sizeof(struct ifinfomsg), &body);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	err = om_nl_ack(nl, nlh, why, what);
	return err == OM_ERR_NOT_FOUND ? OM_OK : err;
}

static struct nlmsghdr *
link_create(struct om_nl *nl, const char *name)
{
	struct nlmsghdr *nlh;
	void *body;

	nlh = om_nl_begin(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg),
			  &body);
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	return nlh;
}

enum om_err
om_link_new(struct om_nl *nl, const char *kind, const char *name, int netns_fd, struct om_why *why)
{
	char what[WHAT_MAX];
	struct nlmsghdr *nlh = link_create(nl, name);
	struct nlattr *info;

	(void)snprintf(what, sizeof(what), "make %s link %s", kind, name);
	if (netns_fd >= 0) {
		mnl_attr_put_u32(nlh, IFLA_NET_NS_FD, (uint32_t)netns_fd);
	}
	info = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, kind);
	mnl_attr_nest_end(nlh, info);
	return om_nl_ack(nl, nlh, why, what);
}

enum om_err
om_link_new_veth(struct om_nl *nl, const char *name, const char *peer, int peer_netns_fd,
		 struct om_why *why)
{
	char what[WHAT_MAX];
	struct nlmsghdr *nlh = link_create(nl, name);
	struct nlattr *info, *data, *other;

	(void)snprintf(what, sizeof(what), "make veth %s", name);
	info = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(nlh, IFLA_INFO_DATA);
	other = mnl_attr_nest_start(nlh, VETH_INFO_PEER);
	(void)mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(nlh, IFLA_IFNAME, peer);
	if (peer_netns_fd >= 0) {
		mnl_attr_put_u32(nlh, IFLA_NET_NS_FD, (uint32_t)peer_netns_fd);
	}
	mnl_attr_nest_end(nlh, other);
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, info);
	return om_nl_ack(nl, nlh, why, what);
}

/* --- addresses, routes, neighbours ---------------------------------------------------------------- */

enum om_err
om_addr_add(struct om_nl *nl, int index, const struct om_cidr *addr, struct om_why *why)
{
	char what[WHAT_MAX], text[OM_CIDR_TEXT];
	struct nlmsghdr *nlh;
	struct ifaddrmsg *ifa;
	void *body;

	(void)snprintf(what, sizeof(what), "add address %s", om_cidr_format(addr, text));
	nlh = om_nl_begin(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*ifa), &body);
	ifa = body;
	ifa->ifa_family = (uint8_t)af_of(&addr->ip);
	ifa->ifa_prefixlen = addr->prefix;
	/* Without the check for duplicates an IPv6 address works at once. */
	ifa->ifa_flags = IFA_F_PERMANENT | (addr->ip.family == 6 ? IFA_F_NODAD : 0);
	ifa->ifa_scope =
	    om_ip_kind(&addr->ip) == OM_IP_LINK_LOCAL ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	ifa->ifa_index = (uint32_t)index;
	put_ip(nlh, IFA_LOCAL, &addr->ip);
	put_ip(nlh, IFA_ADDRESS, &addr->ip);
	return om_nl_ack(nl, nlh, why, what);
}

enum om_err
om_route_add(struct om_nl *nl, int index, const struct om_cidr *to, const struct om_ip *via,
	     struct om_why *why)
{
	char what[WHAT_MAX], text[OM_CIDR_TEXT];
	struct om_cidr net = om_cidr_network(to);
	bool has_via = via != NULL && via->family != 0;
	struct nlmsghdr *nlh;
	struct rtmsg *rtm;
	void *body;

	(void)snprintf(what, sizeof(what), "add route %s", om_cidr_format(&net, text));
	nlh = om_nl_begin(nl, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof(*rtm), &body);
	rtm = body;
	rtm->rtm_family = (uint8_t)af_of(&net.ip);
	rtm->rtm_dst_len = net.prefix;
	rtm->rtm_table = RT_TABLE_MAIN;
	rtm->rtm_protocol = RTPROT_STATIC;
	rtm->rtm_scope = has_via || net.ip.family == 6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	rtm->rtm_type = RTN_UNICAST;
	if (net.prefix > 0) {
		put_ip(nlh, RTA_DST, &net.ip);
	}
	if (has_via) {
		put_ip(nlh, RTA_GATEWAY, via);
	}
	mnl_attr_put_u32(nlh, RTA_OIF, (uint32_t)index);
	return om_nl_ack(nl, nlh, why, what);
}

enum om_err
om_neigh_add(struct om_nl *nl, int index, const struct om_ip *ip, const struct om_mac *mac,
	     struct om_why *why)
{
	struct nlmsghdr *nlh;
	struct ndmsg *ndm;
	void *body;

	nlh = om_nl_begin(nl, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*ndm), &body);
	ndm = body;
	ndm->ndm_family = (uint8_t)af_of(ip);
	ndm->ndm_ifindex = index;
	ndm->ndm_state = NUD_PERMANENT;
	put_ip(nlh, NDA_DST, ip);
	mnl_attr_put(nlh, NDA_LLADDR, sizeof(mac->bytes), mac->bytes);
	return om_nl_ack(nl, nlh, why, "pin the guest's address to its MAC");
}

struct addr_list {
	struct om_cidr *out;
	uint16_t max;
	uint16_t count;
};

static enum om_err
addr_list_add(struct addr_list *list, const struct om_cidr *addr)
{
	struct om_cidr net = om_cidr_network(addr);

	if (om_ip_kind(&net.ip) == OM_IP_LINK_LOCAL) {
		return OM_OK; /* a host with many bridges has one of each */
	}
	for (uint16_t i = 0; i < list->count; i++) {
		if (list->out[i].prefix == net.prefix && om_ip_eq(&list->out[i].ip, &net.ip)) {
			return OM_OK;
		}
	}
	if (list->count == list->max) {
		return OM_ERR_FULL;
	}
	list->out[list->count++] = net;
	return OM_OK;
}

/*
 * IFA_ADDRESS with the prefix is the network of a broadcast link and the peer's of a point-to-point
 * one; there the host's own address is IFA_LOCAL alone.
 */
static enum om_err
addr_on_dump(const struct nlmsghdr *nlh, void *arg)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	struct om_cidr address = { .prefix = ifa->ifa_prefixlen }, local = { .prefix = 0 };
	const struct nlattr *attr;
	enum om_err err = OM_OK;

	if (nlh->nlmsg_type != RTM_NEWADDR) {
		return OM_OK;
	}
	OM_NL_EACH(attr, nlh, sizeof(*ifa))
	{
		size_t len = mnl_attr_get_payload_len(attr);
		uint16_t type = mnl_attr_get_type(attr);

		if ((type == IFA_ADDRESS || type == IFA_LOCAL) && (len == 4 || len == 16)) {
			struct om_cidr *to = type == IFA_LOCAL ? &local : &address;

			to->ip.family = len == 4 ? 4 : 6;
			memcpy(to->ip.bytes, mnl_attr_get_payload(attr), len);
		}
	}
	if (address.ip.family != 0) {
		err = addr_list_add(arg, &address);
	}
	if (err == OM_OK && local.ip.family != 0 && !om_ip_eq(&local.ip, &address.ip)) {
		local.prefix = local.ip.family == 4 ? 32 : 128;
		err = addr_list_add(arg, &local);
	}
	return err;
}

enum om_err
om_addr_networks(struct om_nl *nl, struct om_cidr *out, uint16_t max, uint16_t *count,
		 struct om_why *why)
{
	struct addr_list list = { .out = out, .max = max };
	struct nlmsghdr *nlh;
	enum om_err err;
	void *body;

	nlh = om_nl_begin(nl, RTM_GETADDR, 0, sizeof(struct ifaddrmsg), &body);
	err = om_nl_dump(nl, nlh, addr_on_dump, &list, why, "list addresses");
	*count = list.count;
	return err;
}

enum om_err
om_sysctl_set(const char *path, const char *value, struct om_why *why)
{
	char name[SYSCTL_PATH];
	size_t len = strlen(value);
	enum om_err err = OM_OK;
	int fd;

	(void)snprintf(name, sizeof(name), "/proc/sys/net/%s", path);
	fd = open(name, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "open %s", name);
	}
	if (write(fd, value, len) != (ssize_t)len) {
		err = om_why_errno(why, om_err_from_errno(errno), "write %s", name);
	}
	(void)close(fd);
	return err;
}
