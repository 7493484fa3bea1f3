/* SPDX-License-Identifier: ISC */
/* Refused packets: from netlink bytes to an event, from an event to a verdict; and the rules' text. */
#include <arpa/inet.h>
#include <linux/if_arp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/id.h"
#include "net/flow_policy.h"
#include "net/netlink.h"
#include "net/nftables.h"

#define MACS "\x52\x54\x00\x00\x00\x01\x52\x54\x00\x00\x00\x02"

/* An IPv4 UDP packet 10.99.0.2:68 -> 255.255.255.255:67 with 2 bytes. */
static const uint8_t udp4[] = { 0x45, 0,   0,   30,  0,   0, 0,  0, 64, 17, 0,  0, 10, 99,  0,
				2,    255, 255, 255, 255, 0, 68, 0, 67, 0,  10, 0, 0,  'h', 'i' };
/* IPv6, hop-by-hop with router alert, MLD version 2 report to ff02::16. */
static const uint8_t mld6[] = {
	0x60, 0,    0,   0, 0, 28, 0, 1, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0,    0,  0, 0, 0, 0, 0x12,
	0x34, 0xff, 2,   0, 0, 0,  0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0x16, 58, 0, 5, 2, 0, 0,
	1,    0,    143, 0, 0, 0,  0, 0, 0,    1,    4, 0, 0, 0, 0, 0, 0,    0,  0, 0, 0, 0,
};

static struct om_flow_event
dissect(uint16_t ethertype, const void *payload, size_t len, const char *rule)
{
	struct om_flow_event ev = { .packet_len = (uint16_t)(14 + len) };

	assert_true(14 + len <= OM_FLOW_PACKET_MAX);
	memcpy(ev.packet, MACS, 12);
	ev.packet[12] = (uint8_t)(ethertype >> 8);
	ev.packet[13] = (uint8_t)ethertype;
	memcpy(ev.packet + 14, payload, len);
	ev.wire_len = ev.packet_len;
	(void)snprintf(ev.rule, sizeof(ev.rule), "%s", rule);
	om_flow_dissect(&ev, true);
	return ev;
}

/* A message as the kernel sends it, in nl->buf. */
static struct nlmsghdr *
message(struct om_nl *nl, const char *prefix, const void *link, size_t link_len,
	const void *payload, size_t len)
{
	struct nfulnl_msg_packet_hdr hdr = { .hw_protocol = htons(0x0800) };
	struct nlmsghdr *nlh;
	void *body;

	nlh = om_nl_begin(nl, (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_PACKET, 0,
			  sizeof(struct nfgenmsg), &body);
	mnl_attr_put(nlh, NFULA_PACKET_HDR, sizeof(hdr), &hdr);
	mnl_attr_put_strz(nlh, NFULA_PREFIX, prefix);
	if (link != NULL) {
		mnl_attr_put_u16(nlh, NFULA_HWTYPE, htons(ARPHRD_ETHER));
		mnl_attr_put(nlh, NFULA_HWHEADER, link_len, link);
	}
	mnl_attr_put(nlh, NFULA_PAYLOAD, len, payload);
	return nlh;
}

static void
test_event_of_a_message(void **state)
{
	static struct om_nl nl;
	struct om_flow_event ev[2];
	struct nlmsghdr *nlh = message(&nl, "r_source", MACS "\x08\x00", 14, udp4, sizeof(udp4));
	char text[OM_FLOW_TEXT];
	size_t n;

	(void)state;
	assert_int_equal(om_nflog_parse(nlh, nlh->nlmsg_len, ev, 2, &n), OM_OK);
	assert_int_equal(n, 1);
	assert_string_equal(om_flow_format(&ev[0], text),
			    "r_source udp 10.99.0.2:68 -> 255.255.255.255:67");
	assert_int_equal(ev[0].mac_src.bytes[5], 2);
	assert_int_equal(ev[0].mac_dst.bytes[5], 1);
	assert_int_equal(ev[0].packet_len, 14 + sizeof(udp4));
	assert_int_equal(ev[0].wire_len, 14 + sizeof(udp4));
	assert_true(ev[0].at.ns > 0);
	/* Without a link header, as a packet of a tun is. */
	nlh = message(&nl, "inbound", NULL, 0, udp4, sizeof(udp4));
	assert_int_equal(om_nflog_parse(nlh, nlh->nlmsg_len, ev, 2, &n), OM_OK);
	assert_int_equal(ev[0].packet_len, sizeof(udp4));
	assert_int_equal(ev[0].dport, 67);
}

static void
test_more_events_than_room(void **state)
{
	static struct om_nl nl;
	struct om_flow_event ev[1];
	struct nlmsghdr *nlh = message(&nl, "r_mac", NULL, 0, udp4, sizeof(udp4));
	static _Alignas(8) uint8_t two[2048];
	size_t n, len = NLMSG_ALIGN(nlh->nlmsg_len);

	(void)state;
	memcpy(two, nlh, len);
	memcpy(two + len, nlh, len);
	assert_int_equal(om_nflog_parse(two, 2 * len, ev, 1, &n), OM_ERR_FULL);
	assert_int_equal(n, 1);
}

/* Every cut and every flipped byte: an answer, no crash, nothing read outside (ASan looks on). */
static void
test_damaged_messages(void **state)
{
	static struct om_nl nl;
	struct nlmsghdr *nlh = message(&nl, "r_ip6", MACS "\x86\xdd", 14, mld6, sizeof(mld6));
	size_t len = nlh->nlmsg_len;
	struct om_flow_event ev[4];
	uint8_t *copy;
	size_t n;

	(void)state;
	for (size_t cut = 0; cut <= len; cut++) {
		copy = malloc(cut + 1);
		memcpy(copy, nlh, cut);
		(void)!om_nflog_parse(copy, cut, ev, OM_COUNT(ev), &n);
		assert_true(n <= 1);
		free(copy);
	}
	for (size_t at = 0; at < len; at++) {
		for (int bit = 0; bit < 8; bit++) {
			copy = malloc(len);
			memcpy(copy, nlh, len);
			copy[at] ^= (uint8_t)(1u << bit);
			(void)!om_nflog_parse(copy, len, ev, OM_COUNT(ev), &n);
			for (size_t i = 0; i < n; i++) {
				assert_true(ev[i].packet_len <= OM_FLOW_PACKET_MAX);
				assert_true(ev[i].wire_len >= ev[i].packet_len);
			}
			free(copy);
		}
	}
	assert_int_equal(om_nflog_parse(nlh, 40000, ev, 4, &n), OM_ERR_TOO_BIG);
}

/* Found by the fuzzer: libmnl takes a length over 2^31 for a negative, so for a small one. */
static void
test_message_length_over_2_31(void **state)
{
	static struct om_nl nl;
	struct nlmsghdr *nlh = message(&nl, "r_mac", NULL, 0, udp4, sizeof(udp4));
	uint32_t len = nlh->nlmsg_len;
	struct om_flow_event ev;
	size_t n;

	(void)state;
	nlh->nlmsg_len |= UINT32_C(1) << 31;
	assert_int_equal(om_nflog_parse(nlh, len, &ev, 1, &n), OM_ERR_CORRUPT);
	assert_int_equal(n, 0);
}

/* FilteredNAT: testMalformedFrameHandled.  Random bytes behind each ethertype. */
static void
test_malformed_frame_handled(void **state)
{
	static const uint16_t types[] = { 0x0800, 0x86dd, 0x0806, 0x8100, 0 };

	(void)state;
	for (int i = 0; i < 20000; i++) {
		uint8_t bytes[OM_FLOW_PACKET_MAX - 14], len;
		char text[OM_FLOW_TEXT];
		const char *label = NULL;
		struct om_flow_event ev;

		om_random(bytes, sizeof(bytes));
		om_random(&len, 1);
		len = (uint8_t)(len % sizeof(bytes));
		bytes[0] = i % 2 == 0 ? 0x45 : 0x60;
		bytes[6] = (uint8_t)(i % 3 == 0 ? 44 : i % 3 == 1 ? 0 : 43); /* extension headers */
		ev = dissect(types[i % 5], bytes, len, i % 7 == 0 ? "r_special" : "r_outside");
		(void)om_flow_judge(&ev, OM_NOISE_DEFAULT, &label);
		assert_non_null(label);
		assert_true(strlen(om_flow_format(&ev, text)) < OM_FLOW_TEXT);
	}
}

static void
test_fragments_have_no_ports(void **state)
{
	uint8_t p[sizeof(udp4)];
	struct om_flow_event ev;

	(void)state;
	memcpy(p, udp4, sizeof(p));
	p[7] = 1; /* offset 8 */
	ev = dissect(0x0800, p, sizeof(p), "r_outside");
	assert_true(ev.fragment);
	assert_int_equal(ev.dport, 0);
	p[7] = 0;
	p[0] = 0x4f; /* a header longer than the packet */
	ev = dissect(0x0800, p, sizeof(p), "r_outside");
	assert_int_equal(ev.dport, 0);
	assert_int_equal(ev.dst.family, 4);
}

/* --- verdicts -------------------------------------------------------------------------------------------- */

static const char *
verdict(const struct om_flow_event *ev, uint32_t mask, enum om_flow_verdict want)
{
	const char *label = NULL;

	assert_int_equal(om_flow_judge(ev, mask, &label), want);
	assert_int_equal(om_flow_judge(ev, mask, NULL), want);
	return label;
}

static void
test_verdicts(void **state)
{
	struct om_flow_event ev = dissect(0x86dd, mld6, sizeof(mld6), "r_ip6");

	(void)state;
	assert_int_equal(ev.icmp_type, 143); /* behind the hop-by-hop header */
	assert_int_equal(om_flow_noise(&ev), OM_NOISE_MLD);
	assert_string_equal(verdict(&ev, OM_NOISE_DEFAULT, OM_FLOW_NOISE), "mld");
	assert_string_equal(verdict(&ev, 0, OM_FLOW_ROGUE), "ipv6");
	(void)strcpy(ev.rule, "r_mac");
	assert_string_equal(verdict(&ev, OM_NOISE_DEFAULT, OM_FLOW_ROGUE), "mac_spoof");
	ev = dissect(0x0800, udp4, sizeof(udp4), "r_source");
	assert_string_equal(verdict(&ev, UINT32_MAX, OM_FLOW_ROGUE),
			    "ip_spoof"); /* not from 0.0.0.0 */
	ev.src = (struct om_ip){ .family = 4 };
	assert_string_equal(verdict(&ev, OM_NOISE_DEFAULT, OM_FLOW_ROGUE), "dhcp");
	assert_string_equal(verdict(&ev, OM_NOISE_DHCP4, OM_FLOW_NOISE), "dhcp4");
	(void)strcpy(ev.rule, "inbound");
	assert_string_equal(verdict(&ev, 0, OM_FLOW_INBOUND), "inbound");
	(void)strcpy(ev.rule, "r_new");
	ev.dport = 1;
	assert_string_equal(verdict(&ev, UINT32_MAX, OM_FLOW_ROGUE), "unknown"); /* fails closed */
}

/* The list is for link-local addresses alone: the same packets to anywhere else are rogue. */
static void
test_noise_is_link_local_only(void **state)
{
	static const uint8_t protos[] = { 2, 17, 58 };
	static const uint16_t ports[] = { 53, 67, 547, 5353, 5355 };
	struct om_flow_event ev = { .ethertype = 0x86dd };
	struct om_ip far6, far4;

	(void)state;
	assert_int_equal(om_ip_parse(OM_STR("2001:db8::1"), &far6), OM_OK);
	assert_int_equal(om_ip_parse(OM_STR("192.0.2.1"), &far4), OM_OK);
	for (size_t p = 0; p < OM_COUNT(protos); p++) {
		for (size_t d = 0; d < OM_COUNT(ports); d++) {
			for (int type = 0; type < 256; type++) {
				ev.proto = protos[p];
				ev.dport = ports[d];
				ev.sport = (uint16_t)(ports[d] + 1);
				ev.icmp_type = (uint8_t)type;
				ev.ethertype = 0x86dd;
				ev.dst = far6;
				assert_int_equal(om_flow_noise(&ev), 0);
				ev.ethertype = 0x0800;
				ev.dst = far4;
				assert_int_equal(om_flow_noise(&ev), 0);
			}
		}
	}
}

static void
test_noise_list(void **state)
{
	struct om_why why;
	uint32_t mask = 99;

	(void)state;
	assert_int_equal(om_noise_parse(OM_STR("nd_rs, mld\tdhcp4"), &mask, &why), OM_OK);
	assert_int_equal(mask, OM_NOISE_ND_RS | OM_NOISE_MLD | OM_NOISE_DHCP4);
	assert_int_equal(om_noise_parse(OM_STR("none"), &mask, &why), OM_OK);
	assert_int_equal(mask, 0);
	mask = 7;
	assert_int_equal(om_noise_parse(OM_STR("nd_rs dns"), &mask, &why), OM_ERR_INVALID);
	assert_non_null(strstr(why.text, "\"dns\""));
	assert_int_equal(mask, 7);
	for (uint32_t bit = 1; bit < 1u << OM_NOISE_COUNT; bit <<= 1) {
		assert_int_equal(om_noise_parse(om_str_of(om_noise_name(bit)), &mask, &why), OM_OK);
		assert_int_equal(mask, bit);
		assert_non_null(om_noise_text(bit));
	}
	assert_null(om_noise_name(1u << OM_NOISE_COUNT));
}

/* --- the rules' text (NetworkIsolation: testFirewallRulesInScript, testSecurityFirstApproach) ------------ */

static struct om_cidr nets[3];

static const char *
rules(struct om_walls *w, struct om_buf *buf)
{
	om_buf_reset(buf);
	om_nft_inet_text(w, buf);
	om_nft_guest_text(w, buf);
	assert_false(buf->failed);
	return om_buf_cstr(buf);
}

static void
test_firewall_rules(void **state)
{
	struct om_walls w = { .tap = "omt0",
			      .link = "omw0",
			      .allowed = nets,
			      .allowed_count = 3,
			      .group = 7,
			      .noise = OM_NOISE_ND_RS };
	struct om_buf buf = { .max = 65536 };
	const char *text;

	(void)state;
	assert_int_equal(om_mac_parse(OM_STR("52:54:00:00:00:01"), &w.guest_mac), OM_OK);
	assert_int_equal(om_mac_parse(OM_STR("52:54:00:00:00:02"), &w.gateway_mac), OM_OK);
	assert_int_equal(om_ip_parse(OM_STR("10.99.0.2"), &w.guest4), OM_OK);
	assert_int_equal(om_cidr_parse(OM_STR("10.99.0.0/24"), &nets[0]), OM_OK);
	assert_int_equal(om_cidr_parse(OM_STR("10.99.0.128/25"), &nets[1]), OM_OK);
	assert_int_equal(om_cidr_parse(OM_STR("10.99.0.0/24"), &nets[2]), OM_OK);
	text = rules(&w, &buf);
	/* Four chains on hooks, all drop by default. */
	assert_non_null(strstr(text, "hook ingress device \"omt0\" priority -500; policy drop;"));
	assert_non_null(strstr(text, "hook forward priority 0; policy drop;"));
	assert_non_null(strstr(text, "hook input priority 0; policy drop;"));
	assert_non_null(strstr(text, "hook output priority 0; policy drop;"));
	assert_null(strstr(text, "policy accept"));
	/* Networks that lie in another are not named twice: nft would refuse the set. */
	assert_non_null(strstr(text, "ip daddr { 10.99.0.0/24 } counter name from_guest accept"));
	assert_non_null(strstr(text, "ip6 daddr ff02::2 icmpv6 type nd-router-solicit"));
	assert_null(strstr(text, "5353")); /* not on the list */
	assert_null(strstr(text, "limited drop"));
	assert_null(strstr(text, "masquerade"));
	w.rate_kbit = 8000;
	w.noise = OM_NOISE_MDNS;
	text = rules(&w, &buf);
	assert_non_null(strstr(text, "limit rate over 1000000 bytes/second burst 262144 bytes"));
	assert_null(strstr(text, "nd-router-solicit"));
	assert_non_null(strstr(text, "udp dport 5353 counter name noise drop"));
	assert_int_equal(om_cidr_parse(OM_STR("0.0.0.0/0"), &nets[1]), OM_OK);
	text = rules(&w, &buf);
	assert_non_null(
	    strstr(text, "ether daddr 52:54:00:00:00:02 counter name from_guest accept"));
	om_buf_fini(&buf);
	assert_true(om_nft_is_refusal("r_mac"));
	assert_false(om_nft_is_refusal("noise"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_event_of_a_message),
		cmocka_unit_test(test_more_events_than_room),
		cmocka_unit_test(test_damaged_messages),
		cmocka_unit_test(test_message_length_over_2_31),
		cmocka_unit_test(test_malformed_frame_handled),
		cmocka_unit_test(test_fragments_have_no_ports),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_noise_is_link_local_only),
		cmocka_unit_test(test_noise_list),
		cmocka_unit_test(test_firewall_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
