/* SPDX-License-Identifier: ISC */
/*
 * The text of the rules.  What leaves the guest meets `netdev om` first:
 *
 *   MAC is the guest's -> ARP: only "who has the gateway"  -> the kernel
 *                         IPv4, IPv6: noise list -> dropped
 *                                     own source, plain header, allowed destination -> forwarded
 *   anything else      -> counted, logged, dropped
 *
 * Then `inet om`, which knows no addresses of the guest but its own: tap <-> tunnel passes, the
 * namespace itself answers nothing.  A packet that got past the first by a mistake of ours meets
 * the second.
 */
#include "net/nftables.h"

#define REFUSE      "counter name %s log prefix \"%s\" group %u drop\n"
#define ARP_PER_S   50 /* a kernel asks for its gateway some times a minute */
#define IN_PER_S    10 /* logged packets of the requester: one tells the story */
#define BURST_MIN   262144 /* bytes; a segment of 64 KiB must fit several times */
#define KBIT_BYTES  125 /* bytes of a kilobit */
#define BURST_PARTS 10 /* burst: a tenth of a second */

/* Destinations that no tunnel may carry, whatever allowed_ips says: they mean "this link". */
#define SPECIAL4 "{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4 }"
#define SPECIAL6 "{ ::/8, fe80::/10, fec0::/10, ff00::/8 }"
/* Hop-by-hop, routing, destination options, mobility, HIP, Shim6: nothing a job needs. */
#define OPTIONS6 "{ 0, 43, 60, 135, 139, 140 }"
#define NODE6    "ff02::1:ff00:0/104" /* solicited-node multicast */

static void
refuse(const struct om_walls *w, struct om_buf *out, const char *name)
{
	om_buf_printf(out, REFUSE, name, name, (unsigned)w->group);
}

static void
counters(struct om_buf *out, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		om_buf_printf(out, "counter %s { }\n", names[i]);
	}
}

/* Two CIDR networks are disjoint or one holds the other: skipping the inner ones leaves no overlap. */
static bool
is_inside_another(const struct om_walls *w, size_t at)
{
	const struct om_cidr *a = &w->allowed[at];

	for (size_t i = 0; i < w->allowed_count; i++) {
		const struct om_cidr *b = &w->allowed[i];

		if (i != at && om_cidr_contains(b, &a->ip) &&
		    (b->prefix < a->prefix || (b->prefix == a->prefix && i < at))) {
			return true;
		}
	}
	return false;
}

/* The allowed networks of one family as a set's elements; *all when one is the whole space. */
static size_t
allowed_set(const struct om_walls *w, uint8_t family, bool *all, struct om_buf *out)
{
	char text[OM_CIDR_TEXT];
	size_t n = 0;

	*all = false;
	for (size_t i = 0; i < w->allowed_count; i++) {
		if (w->allowed[i].ip.family != family || is_inside_another(w, i)) {
			continue;
		}
		*all = *all || w->allowed[i].prefix == 0;
		if (out != NULL) {
			om_buf_printf(out, "%s%s", n > 0 ? ", " : "",
				      om_cidr_format(&w->allowed[i], text));
		}
		n++;
	}
	return n;
}

/* --- the guest's frames ------------------------------------------------------------------------------ */

static void
noise4(const struct om_walls *w, struct om_buf *out)
{
	static const struct {
		uint32_t bit;
		const char *match;
	} rules[] = {
		{ OM_NOISE_IGMP, "ip daddr 224.0.0.0/24 ip protocol igmp" },
		{ OM_NOISE_MDNS, "ip daddr 224.0.0.251 udp dport 5353" },
		{ OM_NOISE_LLMNR, "ip daddr 224.0.0.252 udp dport 5355" },
		{ OM_NOISE_DHCP4,
		  "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67" },
	};

	for (size_t i = 0; i < OM_COUNT(rules); i++) {
		if (w->noise & rules[i].bit) {
			om_buf_printf(out, "%s counter name noise drop\n", rules[i].match);
		}
	}
}

static void
noise6(const struct om_walls *w, struct om_buf *out)
{
	static const struct {
		uint32_t bit;
		const char *match;
	} rules[] = {
		{ OM_NOISE_ND_RS, "ip6 daddr ff02::2 icmpv6 type nd-router-solicit" },
		{ OM_NOISE_ND_DAD,
		  "ip6 saddr :: ip6 daddr " NODE6 " icmpv6 type nd-neighbor-solicit" },
		{ OM_NOISE_MLD, "ip6 daddr { ff02::2, ff02::16, " NODE6 " } "
				"icmpv6 type { 131, 132, 143 }" },
		{ OM_NOISE_MDNS, "ip6 daddr ff02::fb udp dport 5353" },
		{ OM_NOISE_LLMNR, "ip6 daddr ff02::1:3 udp dport 5355" },
		{ OM_NOISE_DHCP6, "ip6 daddr ff02::1:2 udp sport 546 udp dport 547" },
	};

	for (size_t i = 0; i < OM_COUNT(rules); i++) {
		if (w->noise & rules[i].bit) {
			om_buf_printf(out, "%s counter name noise drop\n", rules[i].match);
		}
	}
}

static void
chain_arp(const struct om_walls *w, struct om_buf *out)
{
	char mac[OM_MAC_TEXT], ip[OM_IP_TEXT];

	om_buf_add_str(out, "chain arp_from_guest {\n");
	if (w->guest4.family == 4) {
		om_buf_printf(
		    out,
		    "arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation request "
		    "arp saddr ether %s arp saddr ip %s "
		    "arp daddr ip " OM_JOBNET_GATEWAY4 " jump arp_ok\n",
		    om_mac_format(&w->guest_mac, mac), om_ip_format(&w->guest4, ip));
	}
	refuse(w, out, "r_arp");
	om_buf_add_str(out, "}\n");
}

/* The destination is right: accepted when it is allowed and meant for the gateway. */
static void
accept_allowed(const struct om_walls *w, uint8_t family, struct om_buf *out)
{
	const char *word = family == 4 ? "ip" : "ip6";
	char mac[OM_MAC_TEXT];
	bool all;

	if (allowed_set(w, family, &all, NULL) == 0) {
		return;
	}
	om_buf_printf(out, "ether daddr %s ", om_mac_format(&w->gateway_mac, mac));
	if (!all) {
		om_buf_printf(out, "%s daddr { ", word);
		(void)allowed_set(w, family, &all, out);
		om_buf_add_str(out, " } ");
	}
	om_buf_add_str(out, "counter name from_guest accept\n");
}

static void
chain_ip4(const struct om_walls *w, struct om_buf *out)
{
	char ip[OM_IP_TEXT];

	om_buf_add_str(out, "chain ip4_from_guest {\n");
	noise4(w, out);
	if (w->guest4.family == 4) {
		om_buf_printf(out, "ip saddr != %s ", om_ip_format(&w->guest4, ip));
	}
	refuse(w, out, "r_source");
	if (w->guest4.family == 4) {
		om_buf_add_str(out, "ip version != 4 ");
		refuse(w, out, "r_options");
		om_buf_add_str(out, "ip hdrlength != 5 ");
		refuse(w, out, "r_options");
		om_buf_add_str(out, "ip daddr " SPECIAL4 " ");
		refuse(w, out, "r_special");
		accept_allowed(w, 4, out);
		refuse(w, out, "r_outside");
	}
	om_buf_add_str(out, "}\n");
}

/* Anywhere in the chain of headers: behind a fragment's or an AH they are as unwanted as in front. */
static void
refuse_options6(const struct om_walls *w, struct om_buf *out)
{
	static const char *const matches[] = { "ip6 nexthdr " OPTIONS6, "frag nexthdr " OPTIONS6,
					       "exthdr hbh exists",     "exthdr rt exists",
					       "exthdr dst exists",     "exthdr mh exists" };

	for (size_t i = 0; i < OM_COUNT(matches); i++) {
		om_buf_printf(out, "%s ", matches[i]);
		refuse(w, out, "r_options");
	}
}

/* What the guest's kernel gives itself: the prefix, and its MAC with ff:fe in the middle (RFC 4291). */
static struct om_ip
link_local_of(const struct om_mac *mac)
{
	const uint8_t *b = mac->bytes;

	return (struct om_ip){ .family = 6,
			       .bytes = { 0xfe, 0x80, 0, 0, 0, 0, 0, 0, b[0] ^ 2, b[1], b[2], 0xff,
					  0xfe, b[3], b[4], b[5] } };
}

static void
chain_ip6(const struct om_walls *w, struct om_buf *out)
{
	struct om_ip local = link_local_of(&w->guest_mac);
	char ip[OM_IP_TEXT], ll[OM_IP_TEXT];

	om_buf_add_str(out, "chain ip6_from_guest {\n");
	noise6(w, out);
	if (w->guest6.family != 6) {
		refuse(w, out, "r_ip6");
		om_buf_add_str(out, "}\n");
		return;
	}
	/* Who has fe80::1?  The target is 8 bytes into the message. */
	om_buf_printf(out,
		      "ip6 hoplimit 255 ip6 saddr { %s, %s } ip6 daddr { fe80::1, "
		      "ff02::1:ff00:1 } icmpv6 type nd-neighbor-solicit "
		      "@th,64,128 0xfe800000000000000000000000000001 jump nd_ok\n",
		      om_ip_format(&w->guest6, ip), om_ip_format(&local, ll));
	om_buf_printf(out, "ip6 saddr != %s ", ip);
	refuse(w, out, "r_source");
	om_buf_add_str(out, "ip6 version != 6 ");
	refuse(w, out, "r_options");
	refuse_options6(w, out);
	om_buf_add_str(out, "ip6 daddr " SPECIAL6 " ");
	refuse(w, out, "r_special");
	accept_allowed(w, 6, out);
	refuse(w, out, "r_outside");
	om_buf_add_str(out, "}\n");
}

void
om_nft_guest_text(const struct om_walls *w, struct om_buf *out)
{
	static const char *const names[] = { "from_guest", "noise",     "arp_ask",   "nd_ask",
					     "flood",      "r_mac",     "r_type",    "r_arp",
					     "r_source",   "r_options", "r_special", "r_outside",
					     "r_ip6" };
	char mac[OM_MAC_TEXT];

	om_buf_add_str(out, "table netdev om {\n");
	counters(out, names, OM_COUNT(names));
	/* Too many right questions are dropped; they are no attempt to get out. */
	om_buf_printf(out,
		      "chain arp_ok {\nlimit rate over %d/second counter name flood drop\n"
		      "counter name arp_ask accept\n}\n",
		      ARP_PER_S);
	om_buf_printf(out,
		      "chain nd_ok {\nlimit rate over %d/second counter name flood drop\n"
		      "counter name nd_ask accept\n}\n",
		      ARP_PER_S);
	chain_arp(w, out);
	chain_ip4(w, out);
	chain_ip6(w, out);
	om_buf_printf(out,
		      "chain from_guest {\n"
		      "type filter hook ingress device \"%s\" priority -500; policy drop;\n"
		      "ether saddr != %s ",
		      w->tap, om_mac_format(&w->guest_mac, mac));
	refuse(w, out, "r_mac");
	/* The tag is taken off the frame before this hook: `ether type` would see what is inside. */
	om_buf_add_str(out, "@ll,96,16 0x0806 goto arp_from_guest\n"
			    "@ll,96,16 0x0800 goto ip4_from_guest\n"
			    "@ll,96,16 0x86dd goto ip6_from_guest\n");
	refuse(w, out, "r_type");
	om_buf_add_str(out, "}\n}\n");
}

/* --- the namespace ------------------------------------------------------------------------------------ */

static void
limit(const struct om_walls *w, struct om_buf *out, const char *from, const char *to)
{
	uint64_t bytes = w->rate_kbit * KBIT_BYTES;
	uint64_t burst = bytes / BURST_PARTS;

	if (w->rate_kbit == 0) {
		return;
	}
	om_buf_printf(out,
		      "iifname \"%s\" oifname \"%s\" limit rate over %ju bytes/second "
		      "burst %ju bytes counter name limited drop\n",
		      from, to, (uintmax_t)bytes,
		      (uintmax_t)(burst < BURST_MIN ? BURST_MIN : burst));
}

/* From the tunnel: only to the guest.  WireGuard has checked the source against allowed_ips. */
static void
accept_to_guest(const struct om_walls *w, struct om_buf *out)
{
	char ip[OM_IP_TEXT];

	if (w->guest4.family == 4) {
		om_buf_printf(out,
			      "iifname \"%s\" oifname \"%s\" ip daddr %s "
			      "counter name to_guest accept\n",
			      w->link, w->tap, om_ip_format(&w->guest4, ip));
	}
	if (w->guest6.family == 6) {
		om_buf_printf(out,
			      "iifname \"%s\" oifname \"%s\" ip6 daddr %s "
			      "counter name to_guest accept\n",
			      w->link, w->tap, om_ip_format(&w->guest6, ip));
	}
}

/* The end of a chain: the guest's fault, or the requester's. */
static void
refuse_rest(const struct om_walls *w, struct om_buf *out, const char *name)
{
	om_buf_printf(out, "iifname \"%s\" ", w->tap);
	refuse(w, out, name);
	/* A stranger at the other end must not fill the socket: logging is limited, dropping is not. */
	om_buf_printf(out,
		      "limit rate %d/second log prefix \"inbound\" group %u\n"
		      "counter name inbound drop\n}\n",
		      IN_PER_S, (unsigned)w->group);
}

void
om_nft_inet_text(const struct om_walls *w, struct om_buf *out)
{
	static const char *const names[] = { "to_tunnel", "to_guest",  "inbound", "own",
					     "limited",   "r_forward", "r_input" };

	om_buf_add_str(out, "table inet om {\n");
	counters(out, names, OM_COUNT(names));
	om_buf_add_str(out, "chain forward {\ntype filter hook forward priority 0; policy drop;\n");
	limit(w, out, w->tap, w->link);
	limit(w, out, w->link, w->tap);
	om_buf_add_str(out, "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n");
	om_buf_printf(out, "iifname \"%s\" oifname \"%s\" counter name to_tunnel accept\n", w->tap,
		      w->link);
	accept_to_guest(w, out);
	refuse_rest(w, out, "r_forward");
	om_buf_add_str(out, "chain input {\ntype filter hook input priority 0; policy drop;\n");
	om_buf_printf(out,
		      "iifname \"%s\" ip6 hoplimit 255 icmpv6 type nd-neighbor-solicit accept\n",
		      w->tap);
	refuse_rest(w, out, "r_input");
	/* Our kernel's own words: to the guest errors and answers for the gateway, else nothing. */
	om_buf_printf(out,
		      "chain output {\ntype filter hook output priority 0; policy drop;\n"
		      "oifname \"%s\" icmp type { destination-unreachable, time-exceeded, "
		      "parameter-problem } accept\n"
		      "oifname \"%s\" icmpv6 type { destination-unreachable, packet-too-big, "
		      "time-exceeded, parameter-problem, nd-neighbor-advert } accept\n"
		      "counter name own drop\n}\n}\n",
		      w->tap, w->tap);
}

bool
om_nft_is_refusal(const char *name)
{
	return name[0] == 'r' && name[1] == '_';
}
