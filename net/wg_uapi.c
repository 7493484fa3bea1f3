/* SPDX-License-Identifier: ISC */
/*
 * The text protocol of userspace WireGuard (wireguard.com/xplatform): "key=value" lines, keys in hex,
 * an empty line at the end.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/parse.h"
#include "base/secret.h"
#include "net/wireguard.h"

#define KEY_HEX (2 * OM_WG_KEY_LEN + 1)

struct text {
	char *at;
	size_t left;
	bool cut;
};

static void OM_PRINTF(2, 3) text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->at, t->left, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->left) {
		t->cut = true;
		return;
	}
	t->at += n;
	t->left -= (size_t)n;
}

static void
text_add_key(struct text *t, const char *name, const uint8_t key[OM_WG_KEY_LEN])
{
	char hex[KEY_HEX];

	om_hex(key, OM_WG_KEY_LEN, hex);
	text_add(t, "%s=%s\n", name, hex);
	om_secret_wipe(hex, sizeof(hex));
}

enum om_err
om_wg_uapi_encode(const struct om_wg_config *cfg, char *out, size_t size, size_t *len)
{
	struct text t = { .at = out, .left = size };
	char ep[OM_ENDPOINT_TEXT], net[OM_CIDR_TEXT];

	text_add(&t, "set=1\n");
	text_add_key(&t, "private_key", cfg->private_key);
	text_add(&t, "replace_peers=true\n");
	text_add_key(&t, "public_key", cfg->peer_public_key);
	if (cfg->has_preshared_key) {
		text_add_key(&t, "preshared_key", cfg->preshared_key);
	}
	text_add(&t, "endpoint=%s\n", om_endpoint_format(&cfg->endpoint, ep));
	text_add(&t, "persistent_keepalive_interval=%u\n", cfg->keepalive_s);
	text_add(&t, "replace_allowed_ips=true\n");
	for (size_t i = 0; i < cfg->allowed_count; i++) {
		text_add(&t, "allowed_ip=%s\n", om_cidr_format(&cfg->allowed[i], net));
	}
	text_add(&t, "\n");
	*len = size - t.left;
	return t.cut ? OM_ERR_TOO_BIG : OM_OK;
}

/* Splits "key=value". */
static bool
line_split(struct om_str line, struct om_str *key, struct om_str *value)
{
	*value = line;
	return om_str_next(value, '=', key) && value->ptr != NULL;
}

int
om_wg_uapi_errno(struct om_str text)
{
	struct om_str line, key, value;
	uint64_t n;

	while (om_str_next(&text, '\n', &line)) {
		if (!line_split(line, &key, &value) || !om_str_is(key, "errno")) {
			continue;
		}
		if (value.len > 0 && value.ptr[0] == '-') {
			value.ptr++; /* wireguard-go answers with negative numbers too */
			value.len--;
		}
		return om_parse_u64(value, 0, 4096, &n) == OM_OK ? (int)n : -1;
	}
	return -1;
}

/* The zone of a link-local address ("[fe80::1%eth0]:1") is left out: no policy allows one. */
static enum om_err
parse_endpoint(struct om_str value, struct om_endpoint *out)
{
	char text[OM_ENDPOINT_TEXT];
	size_t n = 0;
	bool in_zone = false;

	for (size_t i = 0; i < value.len; i++) {
		in_zone = (in_zone || value.ptr[i] == '%') && value.ptr[i] != ']';
		if (in_zone) {
			continue;
		}
		if (n == sizeof(text)) {
			return OM_ERR_CORRUPT;
		}
		text[n++] = value.ptr[i];
	}
	return om_endpoint_parse((struct om_str){ text, n }, out);
}

enum om_err
om_wg_uapi_stats(struct om_str text, struct om_wg_stats *out)
{
	struct om_str rest = text, line, key, value;
	uint64_t rx = 0, tx = 0, sec = 0, nsec = 0;
	struct om_endpoint endpoint = { .port = 0 };
	enum om_err err = OM_OK;
	int errnum = om_wg_uapi_errno(text);

	if (errnum != 0) {
		return errnum < 0 ? OM_ERR_CORRUPT : OM_ERR_NET;
	}
	while (err == OM_OK && om_str_next(&rest, '\n', &line)) {
		if (!line_split(line, &key, &value)) {
			continue;
		}
		if (om_str_is(key, "rx_bytes")) {
			err = om_parse_u64(value, 0, UINT64_MAX, &rx);
		} else if (om_str_is(key, "tx_bytes")) {
			err = om_parse_u64(value, 0, UINT64_MAX, &tx);
		} else if (om_str_is(key, "last_handshake_time_sec")) {
			err = om_parse_u64(value, 0, INT64_MAX / OM_NS_PER_S - 1, &sec);
		} else if (om_str_is(key, "last_handshake_time_nsec")) {
			err = om_parse_u64(value, 0, OM_NS_PER_S - 1, &nsec);
		} else if (om_str_is(key, "endpoint")) {
			err = parse_endpoint(value, &endpoint);
		}
	}
	if (err != OM_OK) {
		return OM_ERR_CORRUPT;
	}
	out->endpoint = endpoint;
	out->rx_bytes = rx;
	out->tx_bytes = tx;
	out->handshake_at.ns = (int64_t)sec * OM_NS_PER_S + (int64_t)nsec;
	return OM_OK;
}
