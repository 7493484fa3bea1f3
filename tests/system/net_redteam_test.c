/* SPDX-License-Identifier: ISC */
/*
 * A hostile guest: raw frames written to the tap as the guest's kernel would, each a way around the
 * tunnel.  For each: the NFLOG event says which wall refused it and what it was, the evidence holds
 * its bytes, and no capture (the host's links, the requester's end of the tunnel) sees a packet.
 */
#include "tests/system/net_attacks.h"
#include "tests/system/net_witness.h"

#include <net/if.h>

#define BURST 20000

static struct om_jobnet *net;
static struct om_nflog *nflog;
static int tap = -1;
static int host_capture = -1;
static int req_capture = -1;

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

	while (recv(req_capture, data, sizeof(data), 0) >= 0) {
		n++;
	}
	assert_int_equal(errno, EAGAIN);
	rig_capture_is_whole(req_capture);
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
range_setup_family(void **state, bool with_ip6)
{
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };
	struct sockaddr_ll ll = { .sll_family = AF_PACKET };
	struct om_netns_scope scope = { .home = -1 };

	(void)rig_setup(state);
	rig_config(&cfg,
		   with_ip6 ? RIG_REQ_TUNNEL "/32," RIG_REQ_TUNNEL6 "/128" : RIG_REQ_TUNNEL "/32",
		   with_ip6);
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
range_setup(void **state)
{
	return range_setup_family(state, false);
}

static int
range_setup6(void **state)
{
	return range_setup_family(state, true);
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
run_attacks(const struct attack *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t before = counter(list[i].rule), all = refused();
		struct frame f;

		list[i].build(&f);
		inject(&f);
		expect_event(&list[i], &f);
		assert_int_equal(counter(list[i].rule), before + 1);
		assert_int_equal(refused(), all + 1);
	}
	assert_int_equal(requester_saw(), 0);
	assert_int_equal(rig_capture_foreign(host_capture), 0);
}

static void
test_suspicious_connection_detection(void **state)
{
	(void)state;
	run_attacks(attacks, OM_COUNT(attacks));
}

static void
test_suspicious_ipv6_connections(void **state)
{
	(void)state;
	run_attacks(attacks6, OM_COUNT(attacks6));
}

/* A packet over the tunnel's MTU that must not be cut: the guest is told the MTU, and only the guest. */
static void
test_path_mtu(void **state)
{
	static const uint8_t big[1452];
	uint8_t data[2048];
	struct frame f;
	ssize_t n;

	(void)state;
	eth(&f, guest_mac, gateway_mac, 0x0800);
	ip4(&f, RIG_GUEST, RIG_REQ_TUNNEL, UDP, 0x4000, big, sizeof(big), 0);
	inject(&f);
	assert_true(rig_wait_readable(tap, RIG_WAIT_MS));
	n = read(tap, data, sizeof(data));
	assert_true(n > RIG_VNET_HDR + 14 + 28);
	assert_int_equal(data[RIG_VNET_HDR + 14 + 9], 1); /* ICMP */
	assert_int_equal(data[RIG_VNET_HDR + 14 + 20], 3); /* unreachable */
	assert_int_equal(data[RIG_VNET_HDR + 14 + 21], 4); /* fragmentation needed */
	assert_int_equal(data[RIG_VNET_HDR + 14 + 26] << 8 | data[RIG_VNET_HDR + 14 + 27], 1420);
	assert_int_equal(refused(), 0);
	assert_int_equal(requester_saw(), 0);
}

/* FilteredNAT: testStatisticsTracking.  What is allowed arrives: the captures above are not blind. */
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

/* The capture knows each of them: sent on the carrier itself they are seen. */
static void
captured(const struct attack *list, size_t count)
{
	int fd = rig_socket(-1, AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll ll = { .sll_family = AF_PACKET,
				  .sll_halen = 6,
				  .sll_ifindex = (int)if_nametoindex("rq0") };

	for (size_t i = 0; i < count; i++) {
		struct frame f;

		list[i].build(&f);
		f.len = f.len < 1400 ? f.len : 1400;
		assert_int_equal(rig_capture_foreign(host_capture), 0);
		assert_int_equal(sendto(fd, f.b, f.len, 0, (struct sockaddr *)&ll, sizeof(ll)),
				 (ssize_t)f.len);
		if (rig_capture_foreign(host_capture) == 0) {
			fail_msg("%s: not seen", list[i].name);
		}
	}
	close(fd);
}

/* Looks like the tunnel's own in all but the sender's MAC. */
static void
like_wireguard(struct frame *f)
{
	uint8_t udp[40] = { 0xca, 0x6c, 0xca, 0x6c, 0, sizeof(udp), 0, 0, 4 };

	eth(f, guest_mac, rig.carrier_mac[1], 0x0800);
	ip4(f, "10.250.0.1", "10.250.0.2", UDP, 0, udp, sizeof(udp), 0);
}

static void
test_captures_see_each_kind(void **state)
{
	static const struct attack disguised = { "like_wireguard", like_wireguard, "", "" };
	struct frame f;

	(void)state;
	captured(attacks, OM_COUNT(attacks));
	captured(attacks6, OM_COUNT(attacks6));
	captured(&disguised, 1);
	like_wireguard(&f);
	memcpy(f.b + 6, rig.carrier_mac[0].bytes, 6);
	assert_true(rig_is_wireguard(f.b, (ssize_t)f.len));
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

/* FilteringStrategy: testFullFilterChecksEveryPacket, testSampledEventuallyDetectsAbuse.
 * At full speed: each packet is refused and counted, the first is told, and a lost event is an error. */
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

/* For redteam_test.py, which sends them as a VM's: name, rule, label and bytes of each frame. */
static void
print_frames(const struct attack *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct frame f;

		list[i].build(&f);
		printf("%s %s %s ", list[i].name, list[i].rule, list[i].label);
		for (size_t k = 0; k < f.len; k++) {
			printf("%02x", f.b[k]);
		}
		printf("\n");
	}
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "frames") == 0) {
		assert_int_equal(om_mac_parse(om_str_of(argv[2]), &guest_mac), OM_OK);
		assert_int_equal(om_mac_parse(om_str_of(argv[3]), &gateway_mac), OM_OK);
		print_frames(attacks, OM_COUNT(attacks));
		print_frames(attacks6, OM_COUNT(attacks6));
		return 0;
	}
#define T(f) cmocka_unit_test_setup_teardown(f, range_setup, range_teardown)
	const struct CMUnitTest tests[] = {
		T(test_suspicious_connection_detection),
		cmocka_unit_test_setup_teardown(test_suspicious_ipv6_connections, range_setup6,
						range_teardown),
		T(test_path_mtu),
		T(test_allowed_packet_arrives),
		T(test_captures_see_each_kind),
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
