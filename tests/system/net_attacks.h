/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_SYSTEM_NET_ATTACKS_H
#define OM_TESTS_SYSTEM_NET_ATTACKS_H

/*
 * Frames of a hostile guest, and for each the wall that must refuse it and the word for it.
 * guest_mac and gateway_mac are set before the first is built.
 */
#include "tests/system/net_rig.h"

#define FRAME_MAX 9216

struct frame {
	uint8_t b[FRAME_MAX];
	size_t len;
};

static struct om_mac guest_mac, gateway_mac;
static const struct om_mac other_mac = { { 0x52, 0x54, 0, 0xba, 0xdb, 0xad } };
static const struct om_mac everyone = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };

/* --- building frames ---------------------------------------------------------------------------------- */

static void
add(struct frame *f, const void *data, size_t len)
{
	assert_true(f->len + len <= sizeof(f->b));
	memcpy(f->b + f->len, data, len);
	f->len += len;
}

static void
add16(struct frame *f, unsigned v)
{
	add(f, (uint8_t[]){ (uint8_t)(v >> 8), (uint8_t)v }, 2);
}

static void
eth(struct frame *f, struct om_mac src, struct om_mac dst, unsigned type)
{
	f->len = 0;
	add(f, dst.bytes, 6);
	add(f, src.bytes, 6);
	add16(f, type);
}

static unsigned
checksum(const uint8_t *p, size_t len)
{
	unsigned sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2) {
		sum += (unsigned)(p[i] << 8 | p[i + 1]);
	}
	while (sum >> 16) {
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return ~sum & 0xffff;
}

/* An IPv4 header (with `options` words of padding) and len bytes of payload. */
static void
ip4(struct frame *f, const char *src, const char *dst, uint8_t proto, unsigned frag,
    const uint8_t *payload, size_t len, size_t options)
{
	struct om_ip s = rig_ip(src), d = rig_ip(dst);
	size_t at = f->len, header = 20 + 4 * options;
	unsigned sum;

	add(f, (uint8_t[]){ (uint8_t)(0x40 | (header / 4)), 0 }, 2);
	add16(f, (unsigned)(header + len));
	add16(f, 0x1234);
	add16(f, frag);
	add(f, (uint8_t[]){ 64, proto, 0, 0 }, 4);
	add(f, s.bytes, 4);
	add(f, d.bytes, 4);
	for (size_t i = 0; i < options; i++) {
		add(f, (uint8_t[]){ 1, 1, 1, 0 }, 4);
	}
	sum = checksum(f->b + at, header);
	f->b[at + 10] = (uint8_t)(sum >> 8);
	f->b[at + 11] = (uint8_t)sum;
	add(f, payload, len);
}

static void
ip6(struct frame *f, const char *src, const char *dst, uint8_t next, const uint8_t *payload,
    size_t len)
{
	struct om_ip s = rig_ip(src), d = rig_ip(dst);

	add(f, (uint8_t[]){ 0x60, 0, 0, 0 }, 4);
	add16(f, (unsigned)len);
	add(f, (uint8_t[]){ next, 255 }, 2);
	add(f, s.bytes, 16);
	add(f, d.bytes, 16);
	add(f, payload, len);
}

static void
arp(struct frame *f, unsigned op, struct om_mac sender, const char *sender_ip, const char *target)
{
	struct om_ip s = rig_ip(sender_ip), t = rig_ip(target);

	eth(f, guest_mac, everyone, 0x0806);
	add16(f, 1);
	add16(f, 0x0800);
	add(f, (uint8_t[]){ 6, 4 }, 2);
	add16(f, op);
	add(f, sender.bytes, 6);
	add(f, s.bytes, 4);
	add(f, (uint8_t[6]){ 0 }, 6);
	add(f, t.bytes, 4);
}

/* A TCP or UDP header with ports is all that a wall looks at. */
static const uint8_t *
ports(unsigned from, unsigned to)
{
	static uint8_t p[20];

	memset(p, 0, sizeof(p));
	p[0] = (uint8_t)(from >> 8);
	p[1] = (uint8_t)from;
	p[2] = (uint8_t)(to >> 8);
	p[3] = (uint8_t)to;
	p[5] = 20; /* UDP: length */
	p[12] = 0x50; /* TCP: header length */
	p[13] = 2; /* TCP: SYN */
	return p;
}

/* From the right guest to the gateway's MAC. */
static void
to4(struct frame *f, const char *dst, uint8_t proto, unsigned sport, unsigned dport)
{
	eth(f, guest_mac, gateway_mac, 0x0800);
	ip4(f, RIG_GUEST, dst, proto, 0, ports(sport, dport), 20, 0);
}

/* --- the attacks -------------------------------------------------------------------------------------- */

#define TCP 6
#define UDP 17

static void
tcp_to_host(struct frame *f)
{
	to4(f, "10.250.0.1", TCP, 4000, 22);
}
static void
tcp_to_requesters_outer_address(struct frame *f)
{
	to4(f, "10.250.0.2", TCP, 4000, 80);
}
static void
tcp_to_internet(struct frame *f)
{
	to4(f, "192.0.2.2", TCP, 4000, 443);
}
static void
dns_to_anywhere(struct frame *f)
{
	to4(f, "8.8.8.8", UDP, 4000, 53);
}
static void
another_jobs_guest(struct frame *f)
{
	to4(f, "10.99.0.66", TCP, 4000, 22);
}
static void
metadata_service(struct frame *f)
{
	to4(f, "169.254.169.254", TCP, 4000, 80);
}
static void
the_gateway_itself(struct frame *f)
{
	to4(f, OM_JOBNET_GATEWAY4, TCP, 4000, 22);
}
static void
loopback(struct frame *f)
{
	to4(f, "127.0.0.1", TCP, 4000, 631);
}
static void
broadcast(struct frame *f)
{
	to4(f, "255.255.255.255", UDP, 4000, 9);
}
static void
mdns(struct frame *f)
{
	to4(f, "224.0.0.251", UDP, 5353, 5353);
}
static void
gre(struct frame *f)
{
	to4(f, "192.0.2.2", 47, 0, 0);
}
static void
own_address(struct frame *f)
{
	to4(f, RIG_GUEST, TCP, 4000, 22);
}

static void
icmp_echo(struct frame *f)
{
	eth(f, guest_mac, gateway_mac, 0x0800);
	ip4(f, RIG_GUEST, "192.0.2.2", 1, 0, (uint8_t[8]){ 8, 0, 0xf7, 0xff }, 8, 0);
}

static void
first_fragment(struct frame *f)
{
	eth(f, guest_mac, gateway_mac, 0x0800);
	ip4(f, RIG_GUEST, "192.0.2.2", UDP, 0x2000, ports(1, 53), 16, 0);
}

static void
later_fragment(struct frame *f)
{
	eth(f, guest_mac, gateway_mac, 0x0800);
	ip4(f, RIG_GUEST, "192.0.2.2", UDP, 2, ports(1, 53), 16, 0);
}

static void
igmp_join(struct frame *f)
{
	eth(f, guest_mac, everyone, 0x0800);
	ip4(f, RIG_GUEST, "224.0.0.22", 2, 0, (uint8_t[16]){ 0x22 }, 16, 0);
}

static void
dhcp_discover(struct frame *f)
{
	eth(f, guest_mac, everyone, 0x0800);
	ip4(f, "0.0.0.0", "255.255.255.255", UDP, 0, ports(68, 67), 20, 0);
}

static void
spoofed_source_ip(struct frame *f)
{
	eth(f, guest_mac, gateway_mac, 0x0800);
	ip4(f, "10.99.0.77", RIG_REQ_TUNNEL, UDP, 0, ports(1, 53), 20, 0);
}

static void
spoofed_source_mac(struct frame *f)
{
	eth(f, other_mac, gateway_mac, 0x0800);
	ip4(f, RIG_GUEST, RIG_REQ_TUNNEL, UDP, 0, ports(1, 53), 20, 0);
}

static void
gateways_own_mac(struct frame *f)
{
	eth(f, gateway_mac, guest_mac, 0x0800);
	ip4(f, RIG_GUEST, RIG_REQ_TUNNEL, UDP, 0, ports(1, 53), 20, 0);
}

static void
right_address_to_everyone(struct frame *f)
{
	eth(f, guest_mac, everyone, 0x0800);
	ip4(f, RIG_GUEST, RIG_REQ_TUNNEL, UDP, 0, ports(1, 53), 20, 0);
}

static void
source_route(struct frame *f)
{
	eth(f, guest_mac, gateway_mac, 0x0800);
	ip4(f, RIG_GUEST, RIG_REQ_TUNNEL, UDP, 0, ports(1, 53), 20, 2);
}

static void
wrong_ip_version(struct frame *f)
{
	to4(f, RIG_REQ_TUNNEL, UDP, 1, 53);
	f->b[14] = 0x55;
}

static void
cut_ip_header(struct frame *f)
{
	to4(f, RIG_REQ_TUNNEL, UDP, 1, 53);
	f->len = 24;
}

static void
no_ip_at_all(struct frame *f)
{
	eth(f, guest_mac, gateway_mac, 0x0800);
}

static void
jumbo(struct frame *f)
{
	static const uint8_t zero[8000];

	eth(f, guest_mac, gateway_mac, 0x0800);
	ip4(f, RIG_GUEST, "192.0.2.2", UDP, 0, zero, sizeof(zero), 0);
}

static void
ipv6_tcp(struct frame *f)
{
	eth(f, guest_mac, gateway_mac, 0x86dd);
	ip6(f, "fd99::2", "2001:db8::1", TCP, ports(4000, 443), 20);
}

static void
ipv6_router_advert(struct frame *f)
{
	eth(f, guest_mac, (struct om_mac){ { 0x33, 0x33, 0, 0, 0, 1 } }, 0x86dd);
	ip6(f, "fe80::5054:ff:fe00:1", "ff02::1", 58, (uint8_t[16]){ 134 }, 16);
}

static void
ipv6_neighbor_advert(struct frame *f)
{
	eth(f, guest_mac, (struct om_mac){ { 0x33, 0x33, 0, 0, 0, 1 } }, 0x86dd);
	ip6(f, "fe80::5054:ff:fe00:1", "ff02::1", 58, (uint8_t[24]){ 136 }, 24);
}

static void
arp_spoof_gateway(struct frame *f)
{
	arp(f, 2, guest_mac, OM_JOBNET_GATEWAY4, RIG_GUEST);
}
static void
arp_other_sender(struct frame *f)
{
	arp(f, 1, guest_mac, "10.99.0.77", OM_JOBNET_GATEWAY4);
}
static void
arp_other_sender_mac(struct frame *f)
{
	arp(f, 1, other_mac, RIG_GUEST, OM_JOBNET_GATEWAY4);
}
static void
arp_scan(struct frame *f)
{
	arp(f, 1, guest_mac, RIG_GUEST, "10.250.0.1");
}
static void
gratuitous_arp(struct frame *f)
{
	arp(f, 1, guest_mac, RIG_GUEST, RIG_GUEST);
}

static void
raw(struct frame *f, unsigned type)
{
	eth(f, guest_mac, gateway_mac, type);
	add(f, (uint8_t[46]){ 0 }, 46);
}

static void
raw_experimental(struct frame *f)
{
	raw(f, 0x88b5);
}
static void
raw_lldp(struct frame *f)
{
	raw(f, 0x88cc);
}
static void
raw_llc(struct frame *f)
{
	raw(f, 0x0026);
}
static void
raw_pppoe(struct frame *f)
{
	raw(f, 0x8863);
}
static void
raw_mpls(struct frame *f)
{
	raw(f, 0x8847);
}

/* A tag around a packet that would be allowed. */
static void
vlan(struct frame *f, unsigned type)
{
	eth(f, guest_mac, gateway_mac, type);
	add16(f, 5);
	add16(f, 0x0800);
	ip4(f, RIG_GUEST, RIG_REQ_TUNNEL, UDP, 0, ports(1, 53), 20, 0);
}

static void
vlan_tag(struct frame *f)
{
	vlan(f, 0x8100);
}
static void
service_tag(struct frame *f)
{
	vlan(f, 0x88a8);
}

struct attack {
	const char *name;
	void (*build)(struct frame *f);
	const char *rule;
	const char *label;
};
#define A(f, rule, label)          \
	{                          \
#f, f, rule, label \
	}

static const struct attack attacks[] = {
	A(tcp_to_host, "r_outside", "outside_tunnel"),
	A(tcp_to_requesters_outer_address, "r_outside", "outside_tunnel"),
	A(tcp_to_internet, "r_outside", "outside_tunnel"),
	A(dns_to_anywhere, "r_outside", "outside_tunnel"),
	A(another_jobs_guest, "r_outside", "outside_tunnel"),
	A(own_address, "r_outside", "outside_tunnel"),
	A(gre, "r_outside", "outside_tunnel"),
	A(icmp_echo, "r_outside", "outside_tunnel"),
	A(first_fragment, "r_outside", "outside_tunnel"),
	A(later_fragment, "r_outside", "outside_tunnel"),
	A(jumbo, "r_outside", "outside_tunnel"),
	A(right_address_to_everyone, "r_outside", "outside_tunnel"),
	A(cut_ip_header, "r_outside", "outside_tunnel"),
	A(no_ip_at_all, "r_outside", "outside_tunnel"),
	A(metadata_service, "r_special", "metadata"),
	A(the_gateway_itself, "r_special", "link_local"),
	A(loopback, "r_special", "loopback"),
	A(broadcast, "r_special", "broadcast"),
	A(mdns, "r_special", "multicast"),
	A(igmp_join, "r_special", "multicast"),
	A(dhcp_discover, "r_source", "dhcp"),
	A(spoofed_source_ip, "r_source", "ip_spoof"),
	A(spoofed_source_mac, "r_mac", "mac_spoof"),
	A(gateways_own_mac, "r_mac", "mac_spoof"),
	A(source_route, "r_options", "ip_options"),
	A(wrong_ip_version, "r_options", "ip_options"),
	A(ipv6_tcp, "r_ip6", "ipv6"),
	A(ipv6_router_advert, "r_ip6", "router_advert"),
	A(ipv6_neighbor_advert, "r_ip6", "ipv6"),
	A(arp_spoof_gateway, "r_arp", "arp"),
	A(arp_other_sender, "r_arp", "arp"),
	A(arp_other_sender_mac, "r_arp", "arp"),
	A(arp_scan, "r_arp", "arp"),
	A(gratuitous_arp, "r_arp", "arp"),
	A(raw_experimental, "r_type", "raw_ethertype"),
	A(raw_lldp, "r_type", "raw_ethertype"),
	A(raw_llc, "r_type", "raw_ethertype"),
	A(raw_pppoe, "r_type", "raw_ethertype"),
	A(raw_mpls, "r_type", "raw_ethertype"),
	A(vlan_tag, "r_type", "raw_ethertype"),
	A(service_tag, "r_type", "raw_ethertype"),
};

/* --- against a job that has an IPv6 address ------------------------------------------------------------- */

static void
to6(struct frame *f, const char *src, const char *dst, uint8_t next, const uint8_t *payload,
    size_t len)
{
	eth(f, guest_mac, gateway_mac, 0x86dd);
	ip6(f, src, dst, next, payload, len);
}

static void
six_outside(struct frame *f)
{
	to6(f, RIG_GUEST6, "2001:db8::1", TCP, ports(4000, 443), 20);
}

static void
six_spoofed_source(struct frame *f)
{
	to6(f, "fd99::77", RIG_REQ_TUNNEL6, TCP, ports(4000, 443), 20);
}

static void
six_link_local_source(struct frame *f)
{
	to6(f, "fe80::5054:ff:fe00:1", RIG_REQ_TUNNEL6, TCP, ports(4000, 443), 20);
}

static void
six_to_gateway(struct frame *f)
{
	to6(f, RIG_GUEST6, OM_JOBNET_GATEWAY6, TCP, ports(4000, 22), 20);
}

static void
six_all_nodes(struct frame *f)
{
	to6(f, RIG_GUEST6, "ff02::1", 58, (uint8_t[8]){ 128 }, 8);
}

static void
six_mapped_ip4(struct frame *f)
{
	to6(f, RIG_GUEST6, "::ffff:10.250.0.1", TCP, ports(4000, 22), 20);
}

static void
six_hop_by_hop(struct frame *f)
{
	to6(f, RIG_GUEST6, RIG_REQ_TUNNEL6, 0, (uint8_t[16]){ 59 }, 16);
}

static void
six_routing_header(struct frame *f)
{
	to6(f, RIG_GUEST6, RIG_REQ_TUNNEL6, 43, (uint8_t[24]){ 59, 2, 0, 1 }, 24);
}

/* The first header is a fragment's (allowed), the next one is not. */
static void
six_routing_behind_fragment(struct frame *f)
{
	to6(f, RIG_GUEST6, RIG_REQ_TUNNEL6, 44,
	    (uint8_t[32]){ 43, 0, 0, 0, 0, 0, 0, 7, 59, 2, 0, 1 }, 32);
}

static void
six_router_advert(struct frame *f)
{
	to6(f, "fe80::5054:ff:fe00:1", "ff02::1", 58, (uint8_t[16]){ 134 }, 16);
}

static void
six_neighbor_advert(struct frame *f)
{
	to6(f, RIG_GUEST6, OM_JOBNET_GATEWAY6, 58, (uint8_t[24]){ 136 }, 24);
}

/* Who has an address that is not the gateway's? */
static void
six_neighbor_scan(struct frame *f)
{
	uint8_t ns[24] = { 135, [8] = 0xfd, 0x99, [23] = 1 };

	to6(f, RIG_GUEST6, "ff02::1:ff00:1", 58, ns, sizeof(ns));
}

/* "Who has fe80::1?", 50 times a second from as many addresses as it likes. */
static void
six_neighbor_ask_of_another(struct frame *f)
{
	uint8_t ns[24] = { 135, [8] = 0xfe, 0x80, [23] = 1 };

	to6(f, "fe80::dead:beef", "ff02::1:ff00:1", 58, ns, sizeof(ns));
}

static const struct attack attacks6[] = {
	A(six_outside, "r_outside", "outside_tunnel"),
	A(six_spoofed_source, "r_source", "ip_spoof"),
	A(six_link_local_source, "r_source", "ip_spoof"),
	A(six_to_gateway, "r_special", "link_local"),
	A(six_all_nodes, "r_special", "multicast"),
	A(six_mapped_ip4, "r_special", "special_address"),
	A(six_hop_by_hop, "r_options", "ip_options"),
	A(six_routing_header, "r_options", "ip_options"),
	A(six_routing_behind_fragment, "r_options", "ip_options"),
	A(six_neighbor_ask_of_another, "r_source", "ip_spoof"),
	A(six_router_advert, "r_source", "ip_spoof"),
	A(six_neighbor_advert, "r_special", "link_local"),
	A(six_neighbor_scan, "r_special", "multicast"),
};

#endif /* OM_TESTS_SYSTEM_NET_ATTACKS_H */
