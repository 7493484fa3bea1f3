/* SPDX-License-Identifier: ISC */
#include "net/wg_config.h"

#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "base/secret.h"

#define IPV6_MTU_MIN 1280 /* RFC 8200, section 5 */

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum om_err
om_wg_key_parse(struct om_str s, uint8_t out[OM_WG_KEY_LEN])
{
	return s.len == OM_WG_KEY_TEXT - 1 ? om_parse_base64(s, out, OM_WG_KEY_LEN)
					   : OM_ERR_INVALID;
}

void
om_wg_key_format(const uint8_t key[OM_WG_KEY_LEN], char out[OM_WG_KEY_TEXT])
{
	size_t at = 0;

	for (size_t i = 0; i < OM_WG_KEY_LEN; i += 3) {
		uint32_t v = (uint32_t)key[i] << 16;

		v |= i + 1 < OM_WG_KEY_LEN ? (uint32_t)key[i + 1] << 8 : 0;
		v |= i + 2 < OM_WG_KEY_LEN ? (uint32_t)key[i + 2] : 0;
		out[at++] = base64_digits[v >> 18];
		out[at++] = base64_digits[v >> 12 & 63];
		out[at++] = i + 1 < OM_WG_KEY_LEN ? base64_digits[v >> 6 & 63] : '=';
		out[at++] = i + 2 < OM_WG_KEY_LEN ? base64_digits[v & 63] : '=';
	}
	out[at] = '\0';
}

void
om_wg_config_wipe(struct om_wg_config *cfg)
{
	if (cfg != NULL) {
		om_secret_wipe(cfg, sizeof(*cfg));
	}
}

static bool
key_is_zero(const uint8_t key[OM_WG_KEY_LEN])
{
	static const uint8_t zero[OM_WG_KEY_LEN];

	return om_secret_eq(key, zero, OM_WG_KEY_LEN);
}

/* --- fields ----------------------------------------------------------------------------------------- */

static enum om_err
parse_key(struct om_str s, const char *field, uint8_t out[OM_WG_KEY_LEN], struct om_why *why)
{
	if (s.len == 0) {
		return om_why_set(why, OM_ERR_INVALID, "%s: is missing", field);
	}
	/* The text is never shown: it may be a key with one wrong byte. */
	if (om_wg_key_parse(s, out) != OM_OK) {
		return om_why_set(why, OM_ERR_INVALID, "%s: is not a key (32 bytes in base64)",
				  field);
	}
	if (key_is_zero(out)) {
		return om_why_set(why, OM_ERR_INVALID, "%s: is all zero", field);
	}
	return OM_OK;
}

static enum om_err
parse_keys(const struct om_wg_config_text *text, struct om_wg_config *out, struct om_why *why)
{
	enum om_err err;

	err = parse_key(text->private_key, "private_key", out->private_key, why);
	if (err == OM_OK) {
		err =
		    parse_key(text->peer_public_key, "peer_public_key", out->peer_public_key, why);
	}
	if (err == OM_OK && text->preshared_key.len > 0) {
		err = parse_key(text->preshared_key, "preshared_key", out->preshared_key, why);
		out->has_preshared_key = true;
	}
	return err;
}

static enum om_err
parse_addresses(const struct om_wg_config_text *text, struct om_wg_config *out, struct om_why *why)
{
	if (text->address_count > OM_WG_ADDRESSES_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "addresses: more than %d",
				  OM_WG_ADDRESSES_MAX);
	}
	for (size_t i = 0; i < text->address_count; i++) {
		struct om_str s = text->addresses[i];

		if (om_cidr_parse(s, &out->addresses[i]) != OM_OK) {
			return om_why_set(why, OM_ERR_INVALID, "addresses: \"%.*s\" is no address",
					  OM_STR_ARG(s));
		}
		out->address_count++;
	}
	return OM_OK;
}

static enum om_err
parse_allowed(const struct om_wg_config_text *text, struct om_wg_config *out, struct om_why *why)
{
	if (text->allowed_count > OM_WG_ALLOWED_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "allowed_ips: more than %d",
				  OM_WG_ALLOWED_MAX);
	}
	for (size_t i = 0; i < text->allowed_count; i++) {
		struct om_str s = text->allowed_ips[i];
		struct om_cidr cidr;

		if (om_cidr_parse(s, &cidr) != OM_OK) {
			return om_why_set(why, OM_ERR_INVALID,
					  "allowed_ips: \"%.*s\" is no network", OM_STR_ARG(s));
		}
		out->allowed[out->allowed_count++] = om_cidr_network(&cidr);
	}
	return OM_OK;
}

static enum om_err
parse_dns(const struct om_wg_config_text *text, struct om_wg_config *out, struct om_why *why)
{
	if (text->dns_count > OM_WG_DNS_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "dns: more than %d", OM_WG_DNS_MAX);
	}
	for (size_t i = 0; i < text->dns_count; i++) {
		struct om_str s = text->dns[i];

		if (om_ip_parse(s, &out->dns[i]) != OM_OK) {
			return om_why_set(why, OM_ERR_INVALID, "dns: \"%.*s\" is no address",
					  OM_STR_ARG(s));
		}
		out->dns_count++;
	}
	return OM_OK;
}

static enum om_err
parse_numbers(const struct om_wg_config_text *text, struct om_wg_config *out, struct om_why *why)
{
	uint64_t mtu = text->mtu != 0 ? text->mtu : OM_WG_MTU_DEFAULT;

	if (text->keepalive_s > UINT16_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "keepalive: not in 0 to %d", UINT16_MAX);
	}
	if (mtu > OM_WG_MTU_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "mtu: not in %d to %d", OM_WG_MTU_MIN,
				  OM_WG_MTU_MAX);
	}
	out->keepalive_s = (uint16_t)text->keepalive_s;
	out->mtu = (uint16_t)mtu;
	return OM_OK;
}

enum om_err
om_wg_config_parse(const struct om_wg_config_text *text, struct om_wg_config *out,
		   struct om_why *why)
{
	enum om_err err;

	memset(out, 0, sizeof(*out));
	err = parse_keys(text, out, why);
	if (err == OM_OK) {
		err = parse_addresses(text, out, why);
	}
	if (err == OM_OK && om_endpoint_parse(text->endpoint, &out->endpoint) != OM_OK) {
		err = om_why_set(why, OM_ERR_INVALID,
				 "endpoint: \"%.*s\" is not ADDRESS:PORT or [ADDRESS]:PORT",
				 OM_STR_ARG(text->endpoint));
	}
	if (err == OM_OK) {
		err = parse_allowed(text, out, why);
	}
	if (err == OM_OK) {
		err = parse_dns(text, out, why);
	}
	if (err == OM_OK) {
		err = parse_numbers(text, out, why);
	}
	if (err == OM_OK) {
		err = om_wg_config_check(out, why);
	}
	if (err != OM_OK) {
		om_wg_config_wipe(out);
	}
	return err;
}

/* --- between fields --------------------------------------------------------------------------------- */

/* An address that a guest may have, or a resolver may have. */
static bool
is_host_address(const struct om_ip *ip)
{
	enum om_ip_kind kind = om_ip_kind(ip);

	return kind == OM_IP_PUBLIC || kind == OM_IP_PRIVATE;
}

static enum om_err
check_addresses(const struct om_wg_config *cfg, struct om_why *why)
{
	char text[OM_IP_TEXT];

	if (cfg->address_count == 0) {
		return om_why_set(why, OM_ERR_INVALID, "addresses: is empty");
	}
	for (size_t i = 0; i < cfg->address_count; i++) {
		const struct om_ip *ip = &cfg->addresses[i].ip;

		if (!is_host_address(ip)) {
			return om_why_set(why, OM_ERR_INVALID, "addresses: %s is a %s address",
					  om_ip_format(ip, text), om_ip_kind_name(om_ip_kind(ip)));
		}
		if (om_wg_config_address(cfg, ip->family) != ip) {
			return om_why_set(why, OM_ERR_INVALID, "addresses: two of IPv%u",
					  (unsigned)ip->family);
		}
	}
	return OM_OK;
}

enum om_err
om_wg_config_check(const struct om_wg_config *cfg, struct om_why *why)
{
	uint16_t mtu_min = om_wg_config_address(cfg, 6) != NULL ? IPV6_MTU_MIN : OM_WG_MTU_MIN;
	char text[OM_IP_TEXT];
	enum om_err err;

	err = check_addresses(cfg, why);
	if (err != OM_OK) {
		return err;
	}
	if (cfg->allowed_count == 0) {
		return om_why_set(why, OM_ERR_INVALID, "allowed_ips: is empty");
	}
	if (cfg->mtu < mtu_min || cfg->mtu > OM_WG_MTU_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "mtu: not in %u to %d", (unsigned)mtu_min,
				  OM_WG_MTU_MAX);
	}
	for (size_t i = 0; i < cfg->dns_count; i++) {
		/* Anywhere else the guest's first look-up would be refused, and end the job. */
		if (!om_wg_config_allows(cfg, &cfg->dns[i])) {
			return om_why_set(why, OM_ERR_INVALID, "dns: %s is not inside allowed_ips",
					  om_ip_format(&cfg->dns[i], text));
		}
	}
	return OM_OK;
}

bool
om_wg_config_allows(const struct om_wg_config *cfg, const struct om_ip *ip)
{
	if (!is_host_address(ip)) {
		return false;
	}
	for (size_t i = 0; i < cfg->allowed_count; i++) {
		if (om_cidr_contains(&cfg->allowed[i], ip)) {
			return true;
		}
	}
	return false;
}

const struct om_ip *
om_wg_config_address(const struct om_wg_config *cfg, uint8_t family)
{
	for (size_t i = 0; i < cfg->address_count; i++) {
		if (cfg->addresses[i].ip.family == family) {
			return &cfg->addresses[i].ip;
		}
	}
	return NULL;
}
