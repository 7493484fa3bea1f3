/* SPDX-License-Identifier: ISC */
/*
 * A hostile guest: raw frames written to the tap as the guest's kernel would, each a way around the
 * tunnel.  For each: the NFLOG event says which wall refused it and what it was, the evidence holds
 * its bytes, and no capture (the host's links, the requester's end of the tunnel) sees a packet.
 */
#include "tests/system/net_rig.h"

#include <net/if.h>

#define FRAME_MAX 9216
#define BURST     20000

struct frame {
	uint8_t b[FRAME_MAX];
	size_t len;
};

static struct om_jobnet *net;
static struct om_nflog *nflog;
static int tap = -1;
static int host_capture = -1;
static int req_capture = -1;
static struct om_mac guest_mac, gateway_mac, other_mac = { { 0x52, 0x54, 0, 0xba, 0xdb, 0xad } };
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

/* --- the range ---------------------------------------------------------------------------------------- */

static void
inject(const struct frame *f)
{
	uint8_t data[RIG_VNET_HDR + FRAME_MAX] = { 0 };

	memcpy(data + RIG_VNET_HDR, f->b, f->len);
	assert_int_equal(write(tap, data, RIG_VNET_HDR + f->len), (ssize_t)(RIG_VNET_HDR + f->len));
}

/* Frames that came out of the requester's end of the tunnel. */
static unsigned
requester_saw(void)
{
	uint8_t data[2048];
	unsigned n = 0;

	while (recv(req_capture, data, sizeof(data), 0) > 0) {
		n++;
	}
	return n;
}

/* The gateway's MAC, as a guest learns it: it asks. */
static struct om_mac
ask_gateway_mac(void)
{
	uint8_t data[2048];
	struct om_mac mac;
	struct frame f;

	arp(&f, 1, guest_mac, RIG_GUEST, OM_JOBNET_GATEWAY4);
	inject(&f);
	assert_true(rig_wait_readable(tap, RIG_WAIT_MS));
	assert_in_range(read(tap, data, sizeof(data)), RIG_VNET_HDR + 42, sizeof(data));
	assert_memory_equal(data + RIG_VNET_HDR + 12, "\x08\x06", 2);
	memcpy(mac.bytes, data + RIG_VNET_HDR + 6, 6);
	return mac;
}

static int
range_setup(void **state)
{
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };
	struct sockaddr_ll ll = { .sll_family = AF_PACKET };
	struct om_netns_scope scope = { .home = -1 };

	(void)rig_setup(state);
	rig_config(&cfg, RIG_REQ_TUNNEL "/32", false);
	rig_ok(om_jobnet_up(&rig.env, &spec, &net, &rig_why));
	tap = rig_open_tap(om_jobnet_info(net)->tap);
	rig_ok(om_jobnet_attach_tap(net, &rig_why));
	nflog = om_jobnet_take_nflog(net);
	guest_mac = om_jobnet_info(net)->guest_mac;
	gateway_mac = ask_gateway_mac();
	host_capture = rig_capture_open();
	req_capture = rig_socket(rig.req_ns, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
	rig_ok(om_netns_enter(&scope, rig.req_ns, &rig_why));
	ll.sll_protocol = htons(ETH_P_ALL);
	ll.sll_ifindex = (int)if_nametoindex("rqwg");
	om_netns_leave(&scope);
	assert_int_equal(bind(req_capture, (struct sockaddr *)&ll, sizeof(ll)), 0);
	(void)requester_saw();
	return 0;
}

static int
range_teardown(void **state)
{
	om_nflog_close(nflog);
	close(tap);
	close(host_capture);
	close(req_capture);
	om_jobnet_down(&net);
	return rig_teardown(state);
}

static uint64_t
counter(const char *name)
{
	struct om_jobnet_stats st;

	rig_ok(om_jobnet_stats(net, &st, &rig_why));
	for (size_t i = 0; i < st.counter_count; i++) {
		if (strcmp(st.counters[i].name, name) == 0) {
			return st.counters[i].packets;
		}
	}
	fail_msg("no counter %s", name);
	return 0;
}

static uint64_t
refused(void)
{
	struct om_jobnet_stats st;

	rig_ok(om_jobnet_stats(net, &st, &rig_why));
	return st.refused;
}

static void
expect_event(const struct attack *a, const struct frame *f)
{
	struct om_flow_event ev[2];
	const char *label = "";
	size_t n = 0, evidence;
	char text[OM_FLOW_TEXT];
	bool tagged;

	if (!rig_wait_readable(om_nflog_fd(nflog), RIG_WAIT_MS)) {
		fail_msg("%s: no event", a->name);
	}
	rig_ok(om_nflog_read(nflog, ev, 2, &n, &rig_why));
	assert_int_equal(n, 1);
	(void)om_flow_format(&ev[0], text);
	if (om_flow_judge(&ev[0], rig.env.noise, &label) != OM_FLOW_ROGUE ||
	    strcmp(ev[0].rule, a->rule) != 0 || strcmp(label, a->label) != 0) {
		fail_msg("%s: %s: label %s", a->name, text, label);
	}
	printf("%-32s %-16s %s\n", a->name, label, text);
	assert_memory_equal(&ev[0].mac_src, f->b + 6, 6);
	/* The kernel takes a tag off; all other bytes are the guest's own. */
	tagged = a->build == vlan_tag || a->build == service_tag;
	evidence = f->len - (tagged ? 4 : 0);
	evidence = evidence < OM_FLOW_PACKET_MAX ? evidence : OM_FLOW_PACKET_MAX;
	assert_int_equal(ev[0].packet_len, evidence);
	if (!tagged) {
		assert_memory_equal(ev[0].packet, f->b, evidence);
	}
}

/* RogueConnectionDetector: testSuspiciousConnectionDetection, testRogueConnectionEvent;
 * FilteredNAT: testBlockedIPDropped, testBlockedPortDropped, testMalformedFrameHandled,
 * testNonIPv4FrameDropped */
static void
test_suspicious_connection_detection(void **state)
{
	(void)state;
	for (size_t i = 0; i < OM_COUNT(attacks); i++) {
		uint64_t before = counter(attacks[i].rule), all = refused();
		struct frame f;

		attacks[i].build(&f);
		inject(&f);
		expect_event(&attacks[i], &f);
		assert_int_equal(counter(attacks[i].rule), before + 1);
		assert_int_equal(refused(), all + 1);
	}
	assert_int_equal(requester_saw(), 0);
	assert_int_equal(rig_capture_foreign(host_capture), 0);
}

/* What is allowed arrives: the captures above are not blind. */
static void
test_allowed_packet_arrives(void **state)
{
	struct frame f;

	(void)state;
	to4(&f, RIG_REQ_TUNNEL, UDP, 4000, 7);
	inject(&f);
	assert_true(rig_wait_readable(req_capture, RIG_WAIT_MS));
	assert_true(requester_saw() > 0);
	assert_int_equal(rig_capture_foreign(host_capture), 0);
	assert_int_equal(refused(), 0);
	assert_false(rig_wait_readable(om_nflog_fd(nflog), RIG_QUIET_MS));
}

/* The noise list: silently dropped and counted; with a forged sender it is an attack. */
static void
test_noise_is_dropped_and_counted(void **state)
{
	const struct om_mac all_routers = { { 0x33, 0x33, 0, 0, 0, 2 } };
	static const struct attack forged = { "forged noise", NULL, "r_mac", "mac_spoof" };
	static const uint8_t mld[28] = { 58, 0, 5, 2, 0, 0, 1, 0, 143 };
	struct frame f;

	(void)state;
	eth(&f, guest_mac, all_routers, 0x86dd);
	ip6(&f, "fe80::1234", "ff02::2", 58, (uint8_t[16]){ 133 }, 16);
	inject(&f);
	eth(&f, guest_mac, all_routers, 0x86dd);
	ip6(&f, "::", "ff02::1:ff00:1234", 58, (uint8_t[24]){ 135 }, 24);
	inject(&f);
	eth(&f, guest_mac, all_routers, 0x86dd);
	ip6(&f, "fe80::1234", "ff02::16", 0, mld, sizeof(mld));
	inject(&f);
	assert_false(rig_wait_readable(om_nflog_fd(nflog), RIG_QUIET_MS));
	assert_int_equal(counter("noise"), 3);
	assert_int_equal(refused(), 0);
	eth(&f, other_mac, all_routers, 0x86dd);
	ip6(&f, "fe80::1234", "ff02::2", 58, (uint8_t[16]){ 133 }, 16);
	inject(&f);
	expect_event(&forged, &f);
	assert_int_equal(rig_capture_foreign(host_capture), 0);
}

/* At full speed: each packet is refused and counted, the first is told, and a lost event is an error. */
static void
test_burst_fails_closed(void **state)
{
	struct om_flow_event ev[64];
	struct om_why why = { "" };
	enum om_err err = OM_OK;
	size_t n = 1, events = 0;
	struct frame f;

	(void)state;
	tcp_to_internet(&f);
	for (int i = 0; i < BURST; i++) {
		inject(&f);
	}
	while (n > 0) {
		enum om_err e = om_nflog_read(nflog, ev, OM_COUNT(ev), &n, &why);

		err = e != OM_OK ? e : err;
		events += n;
	}
	printf("burst: %d packets, %zu events, then: %s\n", BURST, events, om_err_code(err));
	assert_true(events > 0);
	assert_true(events == BURST || err == OM_ERR_FULL);
	assert_int_equal(refused(), BURST);
	assert_int_equal(requester_saw(), 0);
	assert_int_equal(rig_capture_foreign(host_capture), 0);
}

static void
test_arp_flood_is_bounded(void **state)
{
	struct frame f;

	(void)state;
	arp(&f, 1, guest_mac, RIG_GUEST, OM_JOBNET_GATEWAY4);
	for (int i = 0; i < 2000; i++) {
		inject(&f);
	}
	assert_true(counter("flood") > 0);
	assert_int_equal(counter("flood") + counter("arp_ask"), 2001); /* one in the set-up */
	assert_int_equal(refused(), 0);
}

/* From packet to event. */
static void
test_detection_latency(void **state)
{
	double us[200];
	struct frame f;

	(void)state;
	tcp_to_internet(&f);
	for (size_t i = 0; i < OM_COUNT(us); i++) {
		struct om_mono t = om_mono_now();
		struct om_flow_event ev;
		size_t n = 0;

		inject(&f);
		assert_true(rig_wait_readable(om_nflog_fd(nflog), RIG_WAIT_MS));
		rig_ok(om_nflog_read(nflog, &ev, 1, &n, &rig_why));
		assert_int_equal(n, 1);
		us[i] = (double)(om_mono_now().ns - t.ns) / 1e3;
	}
	for (size_t i = 1; i < OM_COUNT(us); i++) {
		for (size_t k = i; k > 0 && us[k] < us[k - 1]; k--) {
			double x = us[k];

			us[k] = us[k - 1];
			us[k - 1] = x;
		}
	}
	printf("packet to event: p50 %.0f us, p99 %.0f us\n", us[100], us[198]);
	assert_true(us[100] < 10000);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, range_setup, range_teardown)
	const struct CMUnitTest tests[] = {
		T(test_suspicious_connection_detection),
		T(test_allowed_packet_arrives),
		T(test_noise_is_dropped_and_counted),
		T(test_burst_fails_closed),
		T(test_arp_flood_is_bounded),
		T(test_detection_latency),
	};

	if (rig_enter() != 0) {
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
