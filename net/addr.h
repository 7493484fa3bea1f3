/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_ADDR_H
#define OM_NET_ADDR_H

/*
 * Addresses as values: parse, format, compare.  Needs base/ alone, so the client links it too.
 * Any thread.  Parsers take the whole text and leave *out alone on OM_ERR_INVALID; names are never
 * looked up.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"

#define OM_IP_TEXT       46 /* the longest IPv6 text and the NUL */
#define OM_CIDR_TEXT     50 /* OM_IP_TEXT and "/128" */
#define OM_ENDPOINT_TEXT 54 /* "[" OM_IP_TEXT "]:65535" */
#define OM_MAC_TEXT      18 /* "52:54:00:00:00:00" and the NUL */

struct om_ip {
	uint8_t family; /* 4, 6, or 0: none */
	uint8_t bytes[16]; /* network order; an IPv4 address is the first 4, the rest is 0 */
};
struct om_cidr {
	struct om_ip ip; /* host bits are kept: "10.0.0.2/24" is an address in its network */
	uint8_t prefix;
};
struct om_endpoint {
	struct om_ip ip;
	uint16_t port; /* host order, never 0 */
};
struct om_mac {
	uint8_t bytes[6];
};

enum om_err om_ip_parse(struct om_str s, struct om_ip *out) OM_MUST_CHECK;
/* "10.0.0.2/24"; without a prefix length the whole address (/32, /128). */
enum om_err om_cidr_parse(struct om_str s, struct om_cidr *out) OM_MUST_CHECK;
/* "192.0.2.1:51820" or "[2001:db8::1]:51820" */
enum om_err om_endpoint_parse(struct om_str s, struct om_endpoint *out) OM_MUST_CHECK;
enum om_err om_mac_parse(struct om_str s, struct om_mac *out) OM_MUST_CHECK;

/* All give out, so that a call can stand in an argument list.  Family 0 gives "none". */
const char *om_ip_format(const struct om_ip *ip, char out[OM_IP_TEXT]);
const char *om_cidr_format(const struct om_cidr *cidr, char out[OM_CIDR_TEXT]);
const char *om_endpoint_format(const struct om_endpoint *ep, char out[OM_ENDPOINT_TEXT]);
const char *om_mac_format(const struct om_mac *mac, char out[OM_MAC_TEXT]);

bool om_ip_eq(const struct om_ip *a, const struct om_ip *b);
bool om_cidr_contains(const struct om_cidr *net, const struct om_ip *ip);
/* The network: host bits cleared. */
struct om_cidr om_cidr_network(const struct om_cidr *cidr);

/* A random unicast MAC in the range that hypervisors use (52:54:00). */
struct om_mac om_mac_random(void);

/* What an address is for. */
enum om_ip_kind {
	OM_IP_PUBLIC,
	OM_IP_PRIVATE, /* RFC 1918, RFC 6598 (carrier NAT), RFC 4193 */
	OM_IP_UNSPECIFIED, /* 0.0.0.0/8, :: */
	OM_IP_LOOPBACK,
	OM_IP_LINK_LOCAL, /* 169.254/16, fe80::/10: the cloud metadata address is in here */
	OM_IP_MULTICAST,
	OM_IP_RESERVED, /* 240/4 with broadcast; IPv6 forms that embed an IPv4 address */
};
enum om_ip_kind om_ip_kind(const struct om_ip *ip);
const char *om_ip_kind_name(enum om_ip_kind kind);

#define OM_ENDPOINT_RULES_MAX 64
#define OM_ENDPOINT_OWN_MAX   256 /* networks of the host; more is an error, never a gap */

/*
 * Where WireGuard's own UDP packets may be sent: the provider's machine sends them, so an endpoint
 * that a stranger chose must not reach into the provider's own networks.  Order: allow, deny, then
 * the kind of the address, then own[].  An address that nothing speaks against is allowed.
 */
struct om_endpoint_policy {
	struct om_cidr allow[OM_ENDPOINT_RULES_MAX]; /* the operator's exceptions: win over all */
	struct om_cidr deny[OM_ENDPOINT_RULES_MAX];
	struct om_cidr own[OM_ENDPOINT_OWN_MAX]; /* networks of the host's own interfaces */
	uint16_t allow_count;
	uint16_t deny_count;
	uint16_t own_count;
	bool allow_private; /* private addresses that are not in own[] */
	bool only_allowed; /* nothing but allow[] */
};

/* OM_ERR_DENIED with the rule in words, or OM_OK. */
enum om_err om_endpoint_check(const struct om_endpoint_policy *policy, const struct om_endpoint *ep,
			      struct om_why *why) OM_MUST_CHECK;
/* Appends to allow[] or deny[]; OM_ERR_FULL after OM_ENDPOINT_RULES_MAX. */
enum om_err om_endpoint_policy_add(struct om_cidr *list, uint16_t *count,
				   const struct om_cidr *cidr) OM_MUST_CHECK;

#endif /* OM_NET_ADDR_H */
