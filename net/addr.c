/* SPDX-License-Identifier: ISC */
#include "net/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/id.h"
#include "base/parse.h"

#define V4(a, b, c, d, len)                          \
	{                                            \
		{ 4, { (a), (b), (c), (d) } }, (len) \
	}
#define V6(b0, b1, len)                      \
	{                                    \
		{ 6, { (b0), (b1) } }, (len) \
	}

struct kind_rule {
	struct om_cidr net;
	enum om_ip_kind kind;
};

/* IANA's special-purpose registries; the first match counts, what is not listed is public. */
static const struct kind_rule kind_rules[] = {
	{ V4(0, 0, 0, 0, 8), OM_IP_UNSPECIFIED },
	{ V4(127, 0, 0, 0, 8), OM_IP_LOOPBACK },
	{ V4(169, 254, 0, 0, 16), OM_IP_LINK_LOCAL },
	{ V4(224, 0, 0, 0, 4), OM_IP_MULTICAST },
	{ V4(240, 0, 0, 0, 4), OM_IP_RESERVED },
	{ V4(10, 0, 0, 0, 8), OM_IP_PRIVATE },
	{ V4(172, 16, 0, 0, 12), OM_IP_PRIVATE },
	{ V4(192, 168, 0, 0, 16), OM_IP_PRIVATE },
	{ V4(100, 64, 0, 0, 10), OM_IP_PRIVATE },
	{ { { 6, { 0 } }, 128 }, OM_IP_UNSPECIFIED },
	{ { { 6, { [15] = 1 } }, 128 }, OM_IP_LOOPBACK },
	/* Forms that carry an IPv4 address: mapped and compatible, NAT64, Teredo, 6to4. */
	{ V6(0, 0, 8), OM_IP_RESERVED },
	{ { { 6, { 0, 0x64, 0xff, 0x9b } }, 32 }, OM_IP_RESERVED },
	{ { { 6, { 0x20, 0x01, 0, 0 } }, 32 }, OM_IP_RESERVED },
	{ V6(0x20, 0x02, 16), OM_IP_RESERVED },
	{ V6(0xfe, 0x80, 10), OM_IP_LINK_LOCAL },
	{ V6(0xfe, 0xc0, 10), OM_IP_PRIVATE }, /* site-local, deprecated */
	{ V6(0xfc, 0, 7), OM_IP_PRIVATE },
	{ V6(0xff, 0, 8), OM_IP_MULTICAST },
};

static const char *const kind_names[] = {
	[OM_IP_PUBLIC] = "public",           [OM_IP_PRIVATE] = "private",
	[OM_IP_UNSPECIFIED] = "unspecified", [OM_IP_LOOPBACK] = "loopback",
	[OM_IP_LINK_LOCAL] = "link-local",   [OM_IP_MULTICAST] = "multicast",
	[OM_IP_RESERVED] = "reserved",
};

static int
ip_af(const struct om_ip *ip)
{
	return ip->family == 4 ? AF_INET : AF_INET6;
}

static uint8_t
ip_bits(const struct om_ip *ip)
{
	return ip->family == 4 ? 32 : 128;
}

/* --- parse ---------------------------------------------------------------------------------------- */

enum om_err
om_ip_parse(struct om_str s, struct om_ip *out)
{
	char text[OM_IP_TEXT];
	struct om_ip ip = { 0 };

	if (om_str_copy(s, text, sizeof(text)) != OM_OK) {
		return OM_ERR_INVALID;
	}
	ip.family = strchr(text, ':') != NULL ? 6 : 4;
	/* inet_pton takes neither octal numbers nor zones nor short forms. */
	if (inet_pton(ip_af(&ip), text, ip.bytes) != 1) {
		return OM_ERR_INVALID;
	}
	*out = ip;
	return OM_OK;
}

enum om_err
om_cidr_parse(struct om_str s, struct om_cidr *out)
{
	struct om_str rest = s, addr;
	struct om_cidr cidr;
	uint64_t prefix;

	if (!om_str_next(&rest, '/', &addr) || om_ip_parse(addr, &cidr.ip) != OM_OK) {
		return OM_ERR_INVALID;
	}
	prefix = ip_bits(&cidr.ip);
	if (rest.ptr != NULL && om_parse_u64(rest, 0, prefix, &prefix) != OM_OK) {
		return OM_ERR_INVALID;
	}
	cidr.prefix = (uint8_t)prefix;
	*out = cidr;
	return OM_OK;
}

enum om_err
om_endpoint_parse(struct om_str s, struct om_endpoint *out)
{
	struct om_str host, port;
	struct om_endpoint ep;
	size_t colon = s.len;
	bool brackets;
	uint64_t n;

	while (colon > 0 && s.ptr[colon - 1] != ':') {
		colon--;
	}
	if (colon == 0) {
		return OM_ERR_INVALID;
	}
	host = (struct om_str){ s.ptr, colon - 1 };
	port = (struct om_str){ s.ptr + colon, s.len - colon };
	brackets = host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
	if (brackets) {
		host.ptr++;
		host.len -= 2;
	}
	if (om_ip_parse(host, &ep.ip) != OM_OK || brackets != (ep.ip.family == 6) ||
	    om_parse_u64(port, 1, UINT16_MAX, &n) != OM_OK) {
		return OM_ERR_INVALID;
	}
	ep.port = (uint16_t)n;
	*out = ep;
	return OM_OK;
}

enum om_err
om_mac_parse(struct om_str s, struct om_mac *out)
{
	struct om_mac mac;
	struct om_str byte;

	for (size_t i = 0; i < sizeof(mac.bytes); i++) {
		if (!om_str_next(&s, ':', &byte) || byte.len != 2 ||
		    om_parse_hex(byte, &mac.bytes[i], 1) != OM_OK) {
			return OM_ERR_INVALID;
		}
	}
	if (s.ptr != NULL) {
		return OM_ERR_INVALID;
	}
	*out = mac;
	return OM_OK;
}

/* --- format --------------------------------------------------------------------------------------- */

const char *
om_ip_format(const struct om_ip *ip, char out[OM_IP_TEXT])
{
	if (ip->family == 0 || inet_ntop(ip_af(ip), ip->bytes, out, OM_IP_TEXT) == NULL) {
		(void)snprintf(out, OM_IP_TEXT, "none");
	}
	return out;
}

const char *
om_cidr_format(const struct om_cidr *cidr, char out[OM_CIDR_TEXT])
{
	char ip[OM_IP_TEXT];

	(void)snprintf(out, OM_CIDR_TEXT, "%s/%u", om_ip_format(&cidr->ip, ip),
		       (unsigned)cidr->prefix);
	return out;
}

const char *
om_endpoint_format(const struct om_endpoint *ep, char out[OM_ENDPOINT_TEXT])
{
	char ip[OM_IP_TEXT];

	(void)snprintf(out, OM_ENDPOINT_TEXT, ep->ip.family == 6 ? "[%s]:%u" : "%s:%u",
		       om_ip_format(&ep->ip, ip), (unsigned)ep->port);
	return out;
}

const char *
om_mac_format(const struct om_mac *mac, char out[OM_MAC_TEXT])
{
	const uint8_t *b = mac->bytes;

	(void)snprintf(out, OM_MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3],
		       b[4], b[5]);
	return out;
}

/* --- compare -------------------------------------------------------------------------------------- */

bool
om_ip_eq(const struct om_ip *a, const struct om_ip *b)
{
	return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

struct om_cidr
om_cidr_network(const struct om_cidr *cidr)
{
	struct om_cidr net = *cidr;

	for (unsigned bit = net.prefix; bit < 8 * sizeof(net.ip.bytes); bit++) {
		net.ip.bytes[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
	}
	return net;
}

bool
om_cidr_contains(const struct om_cidr *net, const struct om_ip *ip)
{
	struct om_cidr a = om_cidr_network(net);
	struct om_cidr b = om_cidr_network(&(struct om_cidr){ *ip, net->prefix });

	return a.ip.family != 0 && om_ip_eq(&a.ip, &b.ip);
}

struct om_mac
om_mac_random(void)
{
	struct om_mac mac = { { 0x52, 0x54, 0x00 } };

	om_random(mac.bytes + 3, 3);
	return mac;
}

enum om_ip_kind
om_ip_kind(const struct om_ip *ip)
{
	for (size_t i = 0; i < OM_COUNT(kind_rules); i++) {
		if (om_cidr_contains(&kind_rules[i].net, ip)) {
			return kind_rules[i].kind;
		}
	}
	return OM_IP_PUBLIC;
}

const char *
om_ip_kind_name(enum om_ip_kind kind)
{
	return (size_t)kind < OM_COUNT(kind_names) ? kind_names[kind] : "unknown";
}

/* --- policy --------------------------------------------------------------------------------------- */

static bool
list_contains(const struct om_cidr *list, uint16_t count, const struct om_ip *ip)
{
	for (uint16_t i = 0; i < count; i++) {
		if (om_cidr_contains(&list[i], ip)) {
			return true;
		}
	}
	return false;
}

enum om_err
om_endpoint_check(const struct om_endpoint_policy *policy, const struct om_endpoint *ep,
		  struct om_why *why)
{
	enum om_ip_kind kind = om_ip_kind(&ep->ip);
	char ip[OM_IP_TEXT];

	if (list_contains(policy->allow, policy->allow_count, &ep->ip)) {
		return OM_OK;
	}
	(void)om_ip_format(&ep->ip, ip);
	if (policy->only_allowed) {
		return om_why_set(why, OM_ERR_DENIED, "endpoint: %s is not on the provider's list",
				  ip);
	}
	if (list_contains(policy->deny, policy->deny_count, &ep->ip)) {
		return om_why_set(why, OM_ERR_DENIED, "endpoint: the provider refuses %s", ip);
	}
	if (kind != OM_IP_PUBLIC && (kind != OM_IP_PRIVATE || !policy->allow_private)) {
		return om_why_set(why, OM_ERR_DENIED, "endpoint: %s is a %s address", ip,
				  om_ip_kind_name(kind));
	}
	if (list_contains(policy->own, policy->own_count, &ep->ip)) {
		return om_why_set(why, OM_ERR_DENIED,
				  "endpoint: %s is in the provider's own network", ip);
	}
	return OM_OK;
}

enum om_err
om_endpoint_policy_add(struct om_cidr *list, uint16_t *count, const struct om_cidr *cidr)
{
	if (*count == OM_ENDPOINT_RULES_MAX) {
		return OM_ERR_FULL;
	}
	list[(*count)++] = om_cidr_network(cidr);
	return OM_OK;
}
