/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_WG_CONFIG_H
#define OM_NET_WG_CONFIG_H

/*
 * A job's WireGuard settings as typed fields.  The requester's text ends here: nothing after this
 * module sees a string that a stranger wrote.  Needs base/ and net/addr alone.  Any thread.
 */
#include "net/addr.h"

#define OM_WG_KEY_LEN       32
#define OM_WG_KEY_TEXT      45 /* base64 and the NUL */
#define OM_WG_ADDRESSES_MAX 2 /* one IPv4, one IPv6: a guest is pinned to them */
#define OM_WG_ALLOWED_MAX   64
#define OM_WG_DNS_MAX       4
#define OM_WG_MTU_DEFAULT   1420
#define OM_WG_MTU_MIN       576 /* with an IPv6 address 1280, as RFC 8200 asks */
#define OM_WG_MTU_MAX       9000

struct om_wg_config {
	uint8_t private_key[OM_WG_KEY_LEN];
	uint8_t peer_public_key[OM_WG_KEY_LEN];
	uint8_t preshared_key[OM_WG_KEY_LEN]; /* all zero: none */
	bool has_preshared_key;
	struct om_cidr addresses[OM_WG_ADDRESSES_MAX]; /* as written, host bits kept */
	size_t address_count; /* 1 or 2, no two of one family */
	struct om_endpoint endpoint;
	struct om_cidr allowed[OM_WG_ALLOWED_MAX]; /* networks, host bits cleared */
	size_t allowed_count; /* at least 1 */
	struct om_ip dns[OM_WG_DNS_MAX]; /* each inside allowed[] */
	size_t dns_count;
	uint16_t keepalive_s; /* 0: off */
	uint16_t mtu;
};

/* The same as it travels.  Borrows until om_wg_config_parse returns. */
struct om_wg_config_text {
	struct om_str private_key;
	struct om_str peer_public_key;
	struct om_str preshared_key; /* absent: none */
	struct om_str endpoint;
	const struct om_str *addresses;
	size_t address_count;
	const struct om_str *allowed_ips;
	size_t allowed_count;
	const struct om_str *dns;
	size_t dns_count;
	uint64_t keepalive_s; /* 0: off */
	uint64_t mtu; /* 0: OM_WG_MTU_DEFAULT */
};

/*
 * Checks every field and fills *out; OM_ERR_INVALID with a reason that starts with the field's
 * name ("allowed_ips: ...").  On failure *out is wiped.  A reason never holds a key.
 * The endpoint is checked as an address only: policy is om_endpoint_check's.
 */
enum om_err om_wg_config_parse(const struct om_wg_config_text *text, struct om_wg_config *out,
			       struct om_why *why) OM_MUST_CHECK;

/* The rules that hold between fields; om_wg_config_parse has called it. */
enum om_err om_wg_config_check(const struct om_wg_config *cfg, struct om_why *why) OM_MUST_CHECK;

/* True when the job may send to ip: inside allowed[] and not an address that never may. */
bool om_wg_config_allows(const struct om_wg_config *cfg, const struct om_ip *ip);

/* The guest's address of this family (4 or 6), or NULL. */
const struct om_ip *om_wg_config_address(const struct om_wg_config *cfg, uint8_t family);

/* Base64 of a key. */
void om_wg_key_format(const uint8_t key[OM_WG_KEY_LEN], char out[OM_WG_KEY_TEXT]);
enum om_err om_wg_key_parse(struct om_str s, uint8_t out[OM_WG_KEY_LEN]) OM_MUST_CHECK;

/* Wipes everything.  NULL is accepted. */
void om_wg_config_wipe(struct om_wg_config *cfg);

#endif /* OM_NET_WG_CONFIG_H */
