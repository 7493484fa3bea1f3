/* SPDX-License-Identifier: ISC */
/*
 * The guest's one network card: address, route, MTU and name servers as the host says.  ioctl is
 * enough for one interface; the card keeps the MAC that the hypervisor gave it.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/parse.h"
#include "vm/guest/agent.h"

static bool
net_is_card(const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "/sys/class/net/%s/device", name);
	return access(path, F_OK) == 0;
}

static bool
net_find_card(char name[IFNAMSIZ])
{
	DIR *dir = opendir("/sys/class/net");
	struct dirent *e;
	bool found = false;

	while (dir != NULL && !found && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] != '.' && strlen(e->d_name) < IFNAMSIZ && net_is_card(e->d_name)) {
			memcpy(name, e->d_name, strlen(e->d_name) + 1);
			found = true;
		}
	}
	if (dir != NULL) {
		closedir(dir);
	}
	return found;
}

/* "10.200.1.2/30" */
static bool
net_split(struct om_str text, struct in_addr *addr, struct in_addr *mask)
{
	struct om_str host;
	char copy[INET_ADDRSTRLEN];
	uint64_t bits;

	if (!om_str_next(&text, '/', &host) || om_str_copy(host, copy, sizeof(copy)) != OM_OK ||
	    inet_pton(AF_INET, copy, addr) != 1 || om_parse_u64(text, 1, 32, &bits) != OM_OK) {
		return false;
	}
	mask->s_addr = htonl((uint32_t)(UINT64_C(0xffffffff) << (32 - bits)));
	return true;
}

static void
net_put_addr(struct sockaddr *sa, struct in_addr addr)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = addr };

	memcpy(sa, &in, sizeof(in));
}

static int
net_up(int fd, struct ifreq *req)
{
	if (ioctl(fd, SIOCGIFFLAGS, req) < 0) {
		return -1;
	}
	req->ifr_flags = (short)(req->ifr_flags | IFF_UP);
	return ioctl(fd, SIOCSIFFLAGS, req);
}

static const char *
net_apply(int fd, struct in_addr addr, struct in_addr mask, struct in_addr gateway, uint64_t mtu)
{
	struct ifreq card = { 0 }, lo = { .ifr_name = "lo" };
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	struct rtentry hop = { .rt_flags = RTF_UP | RTF_HOST, .rt_dev = card.ifr_name };

	if (!net_find_card(card.ifr_name)) {
		return "the VM has no network card";
	}
	net_put_addr(&card.ifr_addr, addr);
	if (ioctl(fd, SIOCSIFADDR, &card) < 0) {
		return "cannot set the address";
	}
	net_put_addr(&card.ifr_netmask, mask);
	if (ioctl(fd, SIOCSIFNETMASK, &card) < 0) {
		return "cannot set the netmask";
	}
	card.ifr_mtu = (int)mtu;
	if (mtu > 0 && ioctl(fd, SIOCSIFMTU, &card) < 0) {
		return "cannot set the MTU";
	}
	if (net_up(fd, &card) < 0 || net_up(fd, &lo) < 0) {
		return "cannot bring the card up";
	}
	/* The gateway is on the link, in no subnet of the address (a /32). */
	net_put_addr(&hop.rt_dst, gateway);
	net_put_addr(&hop.rt_genmask, (struct in_addr){ UINT32_MAX });
	if (ioctl(fd, SIOCADDRT, &hop) < 0) {
		return "cannot set the route to the gateway";
	}
	net_put_addr(&route.rt_gateway, gateway);
	net_put_addr(&route.rt_dst, (struct in_addr){ 0 });
	net_put_addr(&route.rt_genmask, (struct in_addr){ 0 });
	return ioctl(fd, SIOCADDRT, &route) < 0 ? "cannot set the default route" : NULL;
}

static bool
net_write_dns(struct om_mp *frame)
{
	char text[OM_GUEST_DNS_MAX * 64] = "";
	size_t count, len = 0;

	if (om_mp_array(frame, &count) != OM_OK || count > OM_GUEST_DNS_MAX) {
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		struct om_str server;

		if (om_mp_str(frame, &server) != OM_OK || server.len > 45) {
			return false;
		}
		len += (size_t)snprintf(text + len, sizeof(text) - len, "nameserver %.*s\n",
					OM_STR_ARG(server));
	}
	return boot_write_file(GUEST_ROOT "/etc/resolv.conf", text);
}

const char *
net_configure(struct om_mp *frame)
{
	struct om_str address, gateway;
	struct in_addr addr, mask, gw;
	char gw_text[INET_ADDRSTRLEN];
	const char *error;
	uint64_t mtu;
	int fd;

	if (om_mp_str(frame, &address) != OM_OK || om_mp_str(frame, &gateway) != OM_OK ||
	    om_mp_u64(frame, &mtu) != OM_OK || mtu > 65535 || !net_split(address, &addr, &mask) ||
	    om_str_copy(gateway, gw_text, sizeof(gw_text)) != OM_OK ||
	    inet_pton(AF_INET, gw_text, &gw) != 1) {
		return "the network settings make no sense";
	}
	if (!net_write_dns(frame)) {
		return "cannot set the name servers";
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return "no socket";
	}
	error = net_apply(fd, addr, mask, gw, mtu);
	close(fd);
	return error;
}
