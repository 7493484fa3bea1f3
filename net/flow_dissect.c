/* SPDX-License-Identifier: ISC */
/*
 * The headers of a packet that a hostile guest made.  `at` is a cursor that never goes past the end;
 * a header that is not all there ends the reading and leaves the fields behind it zero.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "net/nflog.h"

#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IP6 0x86dd
#define ETH_HEADER    14
#define IP4_MIN       20
#define IP6_HEADER    40
#define ARP_IP4       28 /* Ethernet and IPv4 */
#define EXT_MAX       8 /* IPv6 extension headers that are followed */

static uint16_t
be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void
take_ip(struct om_ip *ip, uint8_t family, const uint8_t *from)
{
	memset(ip, 0, sizeof(*ip));
	ip->family = family;
	memcpy(ip->bytes, from, family == 4 ? 4 : 16);
}

static void
wire_len_at_least(struct om_flow_event *ev, size_t len)
{
	if (len > ev->wire_len) {
		ev->wire_len = (uint32_t)len;
	}
}

static void
dissect_transport(struct om_flow_event *ev, size_t at)
{
	const uint8_t *p = ev->packet + at;
	size_t left = ev->packet_len - at;

	switch (ev->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_UDPLITE:
		if (left >= 4) {
			ev->sport = be16(p);
			ev->dport = be16(p + 2);
		}
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (left >= 2) {
			ev->icmp_type = p[0];
			ev->icmp_code = p[1];
		}
		break;
	default:
		break;
	}
}

static void
dissect_ip4(struct om_flow_event *ev, size_t at)
{
	const uint8_t *p = ev->packet + at;
	size_t left = ev->packet_len - at;
	size_t header;

	if (left < IP4_MIN || p[0] >> 4 != 4) {
		return;
	}
	header = (size_t)(p[0] & 15) * 4;
	ev->proto = p[9];
	take_ip(&ev->src, 4, p + 12);
	take_ip(&ev->dst, 4, p + 16);
	wire_len_at_least(ev, at + be16(p + 2));
	ev->fragment = (be16(p + 6) & 0x1fff) != 0;
	if (header >= IP4_MIN && header <= left && !ev->fragment) {
		dissect_transport(ev, at + header);
	}
}

/* Extension headers that have "next, length" (in 8 bytes, the first not counted). */
static bool
is_plain_extension(uint8_t next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS;
}

static void
dissect_ip6(struct om_flow_event *ev, size_t at)
{
	const uint8_t *p = ev->packet + at;
	size_t end = ev->packet_len;

	if (end - at < IP6_HEADER || p[0] >> 4 != 6) {
		return;
	}
	ev->proto = p[6];
	take_ip(&ev->src, 6, p + 8);
	take_ip(&ev->dst, 6, p + 24);
	wire_len_at_least(ev, at + IP6_HEADER + be16(p + 4));
	at += IP6_HEADER;
	for (int i = 0; i < EXT_MAX; i++) {
		p = ev->packet + at;
		if (ev->proto == IPPROTO_FRAGMENT && end - at >= 8) {
			ev->fragment = ev->fragment || (be16(p + 2) & 0xfff8) != 0;
			ev->proto = p[0];
			at += 8;
		} else if (is_plain_extension(ev->proto) && end - at >= 8) {
			size_t len = ((size_t)p[1] + 1) * 8;

			if (len > end - at) {
				return;
			}
			ev->proto = p[0];
			at += len;
		} else {
			break;
		}
	}
	if (!ev->fragment) {
		dissect_transport(ev, at);
	}
}

static void
dissect_arp(struct om_flow_event *ev, size_t at)
{
	const uint8_t *p = ev->packet + at;

	if (ev->packet_len - at >= ARP_IP4 && be16(p + 2) == ETHERTYPE_IP4 && p[4] == 6 &&
	    p[5] == 4) {
		take_ip(&ev->src, 4, p + 14);
		take_ip(&ev->dst, 4, p + 24);
	}
}

void
om_flow_dissect(struct om_flow_event *ev, bool ethernet)
{
	size_t at = 0;

	wire_len_at_least(ev, ev->packet_len);
	if (ethernet) {
		if (ev->packet_len < ETH_HEADER) {
			return;
		}
		memcpy(ev->mac_dst.bytes, ev->packet, 6);
		memcpy(ev->mac_src.bytes, ev->packet + 6, 6);
		ev->ethertype = be16(ev->packet + 12);
		at = ETH_HEADER;
	}
	switch (ev->ethertype) {
	case ETHERTYPE_IP4:
		dissect_ip4(ev, at);
		break;
	case ETHERTYPE_IP6:
		dissect_ip6(ev, at);
		break;
	case ETHERTYPE_ARP:
		dissect_arp(ev, at);
		break;
	default:
		break;
	}
}

static const char *
proto_name(const struct om_flow_event *ev, char out[16])
{
	switch (ev->ethertype) {
	case ETHERTYPE_ARP:
		return "arp";
	case ETHERTYPE_IP4:
	case ETHERTYPE_IP6:
		break;
	default:
		(void)snprintf(out, 16, "ether 0x%04x", (unsigned)ev->ethertype);
		return out;
	}
	switch (ev->proto) {
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMP:
		return "icmp";
	case IPPROTO_ICMPV6:
		return "icmp6";
	default:
		(void)snprintf(out, 16, "proto %u", (unsigned)ev->proto);
		return out;
	}
}

static void
format_side(const struct om_flow_event *ev, const struct om_ip *ip, uint16_t port,
	    const struct om_mac *mac, char out[OM_ENDPOINT_TEXT])
{
	struct om_endpoint ep = { *ip, port };

	if (ip->family == 0) {
		char text[OM_MAC_TEXT];

		(void)snprintf(out, OM_ENDPOINT_TEXT, "%s", om_mac_format(mac, text));
	} else if (ev->sport != 0 || ev->dport != 0) {
		(void)om_endpoint_format(&ep, out);
	} else {
		(void)om_ip_format(ip, out);
	}
}

const char *
om_flow_format(const struct om_flow_event *ev, char out[OM_FLOW_TEXT])
{
	char src[OM_ENDPOINT_TEXT], dst[OM_ENDPOINT_TEXT], proto[16];

	format_side(ev, &ev->src, ev->sport, &ev->mac_src, src);
	format_side(ev, &ev->dst, ev->dport, &ev->mac_dst, dst);
	(void)snprintf(out, OM_FLOW_TEXT, "%s %s %s -> %s%s", ev->rule[0] != '\0' ? ev->rule : "?",
		       proto_name(ev, proto), src, dst, ev->fragment ? " fragment" : "");
	return out;
}
