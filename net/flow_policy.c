/* SPDX-License-Identifier: ISC */
#include "net/flow_policy.h"

#include <netinet/in.h>
#include <string.h>

#include "base/parse.h"

#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IP6 0x86dd

#define ND_ROUTER_SOLICIT   133
#define ND_NEIGHBOR_SOLICIT 135

struct noise_word {
	uint32_t bit;
	const char *name;
	const char *text;
};

static const struct noise_word noise_words[] = {
#define OM_NOISE_WORD(id, bit, word, what) { id, word, what },
	OM_NOISE_TABLE(OM_NOISE_WORD)
#undef OM_NOISE_WORD
};
_Static_assert(OM_COUNT(noise_words) == OM_NOISE_COUNT, "OM_NOISE_COUNT counts the table");

/* --- the list ------------------------------------------------------------------------------------------ */

const char *
om_noise_name(uint32_t bit)
{
	for (size_t i = 0; i < OM_COUNT(noise_words); i++) {
		if (noise_words[i].bit == bit) {
			return noise_words[i].name;
		}
	}
	return NULL;
}

const char *
om_noise_text(uint32_t bit)
{
	for (size_t i = 0; i < OM_COUNT(noise_words); i++) {
		if (noise_words[i].bit == bit) {
			return noise_words[i].text;
		}
	}
	return NULL;
}

static bool
is_separator(char c)
{
	return c == ' ' || c == '\t' || c == ',';
}

static uint32_t
noise_bit(struct om_str word)
{
	for (size_t i = 0; i < OM_COUNT(noise_words); i++) {
		if (om_str_is(word, noise_words[i].name)) {
			return noise_words[i].bit;
		}
	}
	return 0;
}

enum om_err
om_noise_parse(struct om_str text, uint32_t *mask, struct om_why *why)
{
	uint32_t bits = 0;
	size_t at = 0;

	while (at < text.len) {
		struct om_str word = { text.ptr + at, 0 };

		while (at + word.len < text.len && !is_separator(word.ptr[word.len])) {
			word.len++;
		}
		at += word.len + 1;
		if (word.len == 0 || om_str_is(word, "none")) {
			continue;
		}
		if (noise_bit(word) == 0) {
			return om_why_set(why, OM_ERR_INVALID, "\"%.*s\" is no kind of noise",
					  OM_STR_ARG(word));
		}
		bits |= noise_bit(word);
	}
	*mask = bits;
	return OM_OK;
}

/* --- one packet ---------------------------------------------------------------------------------------- */

static bool
is_in(const struct om_ip *ip, const char *net)
{
	struct om_cidr cidr;

	return om_cidr_parse(om_str_of(net), &cidr) == OM_OK && om_cidr_contains(&cidr, ip);
}

static uint32_t
noise_of_udp(const struct om_flow_event *ev)
{
	if (ev->dport == 5353 && (is_in(&ev->dst, "224.0.0.251") || is_in(&ev->dst, "ff02::fb"))) {
		return OM_NOISE_MDNS;
	}
	if (ev->dport == 5355 && (is_in(&ev->dst, "224.0.0.252") || is_in(&ev->dst, "ff02::1:3"))) {
		return OM_NOISE_LLMNR;
	}
	if (ev->sport == 68 && ev->dport == 67 && is_in(&ev->src, "0.0.0.0") &&
	    is_in(&ev->dst, "255.255.255.255")) {
		return OM_NOISE_DHCP4;
	}
	if (ev->sport == 546 && ev->dport == 547 && is_in(&ev->dst, "ff02::1:2")) {
		return OM_NOISE_DHCP6;
	}
	return 0;
}

static uint32_t
noise_of_icmp6(const struct om_flow_event *ev)
{
	bool to_node = is_in(&ev->dst, "ff02::1:ff00:0/104");

	switch (ev->icmp_type) {
	case ND_ROUTER_SOLICIT:
		return is_in(&ev->dst, "ff02::2") ? OM_NOISE_ND_RS : 0;
	case ND_NEIGHBOR_SOLICIT:
		return to_node && is_in(&ev->src, "::") ? OM_NOISE_ND_DAD : 0;
	case 131: /* listener report, version 1 */
	case 132: /* done */
	case 143: /* report, version 2 */
		return to_node || is_in(&ev->dst, "ff02::2") || is_in(&ev->dst, "ff02::16")
			   ? OM_NOISE_MLD
			   : 0;
	default:
		return 0;
	}
}

uint32_t
om_flow_noise(const struct om_flow_event *ev)
{
	if (ev->fragment || ev->dst.family == 0) {
		return 0;
	}
	if (ev->ethertype == ETHERTYPE_IP4 && ev->proto == IPPROTO_IGMP) {
		return is_in(&ev->dst, "224.0.0.0/24") ? OM_NOISE_IGMP : 0;
	}
	if (ev->ethertype == ETHERTYPE_IP6 && ev->proto == IPPROTO_ICMPV6) {
		return noise_of_icmp6(ev);
	}
	if (ev->ethertype == ETHERTYPE_ARP || ev->proto != IPPROTO_UDP) {
		return 0;
	}
	return noise_of_udp(ev);
}

static const char *
label_special(const struct om_flow_event *ev)
{
	switch (om_ip_kind(&ev->dst)) {
	case OM_IP_LINK_LOCAL:
		return is_in(&ev->dst, "169.254.169.254") ? "metadata" : "link_local";
	case OM_IP_MULTICAST:
		return "multicast";
	case OM_IP_LOOPBACK:
		return "loopback";
	default:
		return is_in(&ev->dst, "255.255.255.255") ? "broadcast" : "special_address";
	}
}

/* The rule says what was wrong first; within it the packet says more. */
static const char *
label_of(const struct om_flow_event *ev)
{
	static const struct {
		const char *rule;
		const char *label;
	} rules[] = {
		{ "r_mac", "mac_spoof" },          { "r_arp", "arp" },
		{ "r_options", "ip_options" },     { "r_type", "raw_ethertype" },
		{ "r_outside", "outside_tunnel" }, { "r_forward", "forward" },
		{ "r_input", "to_host" },
	};

	if (strcmp(ev->rule, "r_special") == 0) {
		return label_special(ev);
	}
	if (strcmp(ev->rule, "r_ip6") == 0) {
		return ev->proto == IPPROTO_ICMPV6 && ev->icmp_type == 134 ? "router_advert"
									   : "ipv6";
	}
	if (strcmp(ev->rule, "r_source") == 0) {
		return om_flow_noise(ev) == OM_NOISE_DHCP4 ? "dhcp" : "ip_spoof";
	}
	for (size_t i = 0; i < OM_COUNT(rules); i++) {
		if (strcmp(ev->rule, rules[i].rule) == 0) {
			return rules[i].label;
		}
	}
	return "unknown";
}

enum om_flow_verdict
om_flow_judge(const struct om_flow_event *ev, uint32_t noise_mask, const char **label)
{
	uint32_t noise = om_flow_noise(ev);
	const char *ignored;

	label = label != NULL ? label : &ignored;
	if (strcmp(ev->rule, "inbound") == 0) {
		*label = "inbound";
		return OM_FLOW_INBOUND;
	}
	/* A forged sender is an attempt, whatever the packet says. */
	if ((noise & noise_mask) != 0 && strcmp(ev->rule, "r_mac") != 0) {
		*label = om_noise_name(noise);
		return OM_FLOW_NOISE;
	}
	*label = label_of(ev);
	return OM_FLOW_ROGUE;
}
