/* SPDX-License-Identifier: ISC */
/* WireGuard in the kernel, by generic netlink (linux/wireguard.h has the tree of attributes). */
#include <linux/genetlink.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>
#include <netinet/in.h>
#include <string.h>

#include "net/wireguard_impl.h"

static enum om_err
family_on_answer(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attr;
	uint16_t *family = arg;

	OM_NL_EACH(attr, nlh, sizeof(struct genlmsghdr))
	{
		if (mnl_attr_get_type(attr) == CTRL_ATTR_FAMILY_ID &&
		    mnl_attr_validate(attr, MNL_TYPE_U16) >= 0) {
			*family = mnl_attr_get_u16(attr);
		}
	}
	return OM_OK;
}

static struct nlmsghdr *
genl_begin(struct om_nl *nl, uint16_t family, uint8_t cmd, uint8_t version)
{
	struct genlmsghdr *genl;
	struct nlmsghdr *nlh;
	void *body;

	nlh = om_nl_begin(nl, family, 0, sizeof(*genl), &body);
	genl = body;
	genl->cmd = cmd;
	genl->version = version;
	return nlh;
}

enum om_err
om_wg_genl_family(struct om_nl *nl, uint16_t *family, struct om_why *why)
{
	struct nlmsghdr *nlh = genl_begin(nl, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);
	enum om_err err;

	*family = 0;
	mnl_attr_put_strz(nlh, CTRL_ATTR_FAMILY_NAME, WG_GENL_NAME);
	err = om_nl_query(nl, nlh, family_on_answer, family, why, "look up the kernel's WireGuard");
	if (err == OM_OK && *family == 0) {
		err = om_why_set(why, OM_ERR_NET, "the kernel's WireGuard has no family number");
	}
	return err;
}

static void
put_endpoint(struct nlmsghdr *nlh, const struct om_endpoint *ep)
{
	if (ep->ip.family == 4) {
		struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(ep->port) };

		memcpy(&sin.sin_addr, ep->ip.bytes, 4);
		mnl_attr_put(nlh, WGPEER_A_ENDPOINT, sizeof(sin), &sin);
	} else {
		struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6,
					     .sin6_port = htons(ep->port) };

		memcpy(&sin6.sin6_addr, ep->ip.bytes, 16);
		mnl_attr_put(nlh, WGPEER_A_ENDPOINT, sizeof(sin6), &sin6);
	}
}

static void
put_allowed(struct nlmsghdr *nlh, const struct om_wg_config *cfg)
{
	struct nlattr *list = mnl_attr_nest_start(nlh, WGPEER_A_ALLOWEDIPS);

	for (size_t i = 0; i < cfg->allowed_count; i++) {
		const struct om_cidr *net = &cfg->allowed[i];
		bool is4 = net->ip.family == 4;
		struct nlattr *one = mnl_attr_nest_start(nlh, 0);

		mnl_attr_put_u16(nlh, WGALLOWEDIP_A_FAMILY, is4 ? AF_INET : AF_INET6);
		mnl_attr_put(nlh, WGALLOWEDIP_A_IPADDR, is4 ? 4 : 16, net->ip.bytes);
		mnl_attr_put_u8(nlh, WGALLOWEDIP_A_CIDR_MASK, net->prefix);
		mnl_attr_nest_end(nlh, one);
	}
	mnl_attr_nest_end(nlh, list);
}

struct nlmsghdr *
om_wg_genl_encode(struct om_nl *nl, uint16_t family, const char *name,
		  const struct om_wg_config *cfg)
{
	struct nlmsghdr *nlh = genl_begin(nl, family, WG_CMD_SET_DEVICE, WG_GENL_VERSION);
	struct nlattr *peers, *peer;

	mnl_attr_put_strz(nlh, WGDEVICE_A_IFNAME, name);
	mnl_attr_put_u32(nlh, WGDEVICE_A_FLAGS, WGDEVICE_F_REPLACE_PEERS);
	mnl_attr_put(nlh, WGDEVICE_A_PRIVATE_KEY, OM_WG_KEY_LEN, cfg->private_key);
	peers = mnl_attr_nest_start(nlh, WGDEVICE_A_PEERS);
	peer = mnl_attr_nest_start(nlh, 0);
	mnl_attr_put(nlh, WGPEER_A_PUBLIC_KEY, OM_WG_KEY_LEN, cfg->peer_public_key);
	mnl_attr_put_u32(nlh, WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS);
	if (cfg->has_preshared_key) {
		mnl_attr_put(nlh, WGPEER_A_PRESHARED_KEY, OM_WG_KEY_LEN, cfg->preshared_key);
	}
	put_endpoint(nlh, &cfg->endpoint);
	mnl_attr_put_u16(nlh, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, cfg->keepalive_s);
	put_allowed(nlh, cfg);
	mnl_attr_nest_end(nlh, peer);
	mnl_attr_nest_end(nlh, peers);
	return nlh;
}

enum om_err
om_wg_genl_set(struct om_nl *nl, uint16_t family, const char *name, const struct om_wg_config *cfg,
	       struct om_why *why)
{
	return om_nl_ack(nl, om_wg_genl_encode(nl, family, name, cfg), why, "configure WireGuard");
}

static void
get_endpoint(const struct nlattr *attr, struct om_endpoint *ep)
{
	size_t len = mnl_attr_get_payload_len(attr);
	struct sockaddr_in6 sin6;
	struct sockaddr_in sin;
	sa_family_t family;

	if (len < sizeof(family)) {
		return;
	}
	memcpy(&family, mnl_attr_get_payload(attr), sizeof(family));
	if (family == AF_INET && len >= sizeof(sin)) {
		memcpy(&sin, mnl_attr_get_payload(attr), sizeof(sin));
		*ep = (struct om_endpoint){ .ip.family = 4, .port = ntohs(sin.sin_port) };
		memcpy(ep->ip.bytes, &sin.sin_addr, 4);
	} else if (family == AF_INET6 && len >= sizeof(sin6)) {
		memcpy(&sin6, mnl_attr_get_payload(attr), sizeof(sin6));
		*ep = (struct om_endpoint){ .ip.family = 6, .port = ntohs(sin6.sin6_port) };
		memcpy(ep->ip.bytes, &sin6.sin6_addr, 16);
	}
}

static void
stats_add_peer(const struct nlattr *peer, struct om_wg_stats *out)
{
	const struct nlattr *attr;

	OM_NL_EACH_NESTED(attr, peer)
	{
		size_t len = mnl_attr_get_payload_len(attr);
		struct __kernel_timespec at;

		switch (mnl_attr_get_type(attr)) {
		case WGPEER_A_RX_BYTES:
			out->rx_bytes += len == 8 ? mnl_attr_get_u64(attr) : 0;
			break;
		case WGPEER_A_TX_BYTES:
			out->tx_bytes += len == 8 ? mnl_attr_get_u64(attr) : 0;
			break;
		case WGPEER_A_LAST_HANDSHAKE_TIME:
			if (len == sizeof(at)) {
				memcpy(&at, mnl_attr_get_payload(attr), sizeof(at));
				out->handshake_at.ns = at.tv_sec * OM_NS_PER_S + at.tv_nsec;
			}
			break;
		case WGPEER_A_ENDPOINT:
			get_endpoint(attr, &out->endpoint);
			break;
		default:
			break;
		}
	}
}

enum om_err
om_wg_genl_on_device(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attr, *peer;

	OM_NL_EACH(attr, nlh, sizeof(struct genlmsghdr))
	{
		if (mnl_attr_get_type(attr) == WGDEVICE_A_PEERS) {
			OM_NL_EACH_NESTED(peer, attr)
			{
				stats_add_peer(peer, arg);
			}
		}
	}
	return OM_OK;
}

enum om_err
om_wg_genl_stats(struct om_nl *nl, uint16_t family, const char *name, struct om_wg_stats *out,
		 struct om_why *why)
{
	struct nlmsghdr *nlh = genl_begin(nl, family, WG_CMD_GET_DEVICE, WG_GENL_VERSION);

	memset(out, 0, sizeof(*out));
	mnl_attr_put_strz(nlh, WGDEVICE_A_IFNAME, name);
	return om_nl_dump(nl, nlh, om_wg_genl_on_device, out, why, "read WireGuard's counters");
}
