/* SPDX-License-Identifier: ISC */
#include "net/wg_quick.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/parse.h"

#define WORD_MAX 24 /* bytes of a name that is shown in an error */

enum section { SECTION_NONE, SECTION_INTERFACE, SECTION_PEER, SECTION_COUNT };

static const char *const section_names[SECTION_COUNT] = { "", "Interface", "Peer" };

/* The file so far.  The strings point into the caller's text. */
struct quick {
	struct om_wg_config_text text;
	struct om_str addresses[OM_WG_ADDRESSES_MAX];
	struct om_str allowed[OM_WG_ALLOWED_MAX];
	struct om_str dns[OM_WG_DNS_MAX];
	bool has_section[SECTION_COUNT];
	enum section section;
	unsigned line;
	struct om_why *why;
};

typedef enum om_err (*quick_fn)(struct quick *q, struct om_str value);

static enum om_err
quick_text(struct quick *q, struct om_str *field, struct om_str value, const char *name)
{
	if (field->ptr != NULL) {
		return om_why_set(q->why, OM_ERR_INVALID, "line %u: %s is there twice", q->line,
				  name);
	}
	*field = value;
	return OM_OK;
}

/* A list with commas; a key that comes again adds to it, as in wg-quick. */
static enum om_err
quick_list(struct quick *q, struct om_str *list, size_t max, size_t *count, struct om_str value,
	   const char *name)
{
	struct om_str piece;

	while (om_str_next(&value, ',', &piece)) {
		if (*count == max) {
			return om_why_set(q->why, OM_ERR_TOO_BIG, "line %u: %s has more than %zu",
					  q->line, name, max);
		}
		list[(*count)++] = om_str_trim(piece);
	}
	return OM_OK;
}

static enum om_err
quick_number(struct quick *q, uint64_t *field, uint64_t min, uint64_t max, struct om_str value,
	     const char *name)
{
	if (om_parse_u64(value, min, max, field) != OM_OK) {
		return om_why_set(q->why, OM_ERR_INVALID, "line %u: %s is not in %ju to %ju",
				  q->line, name, (uintmax_t)min, (uintmax_t)max);
	}
	return OM_OK;
}

static enum om_err
on_private_key(struct quick *q, struct om_str v)
{
	return quick_text(q, &q->text.private_key, v, "PrivateKey");
}

static enum om_err
on_address(struct quick *q, struct om_str v)
{
	return quick_list(q, q->addresses, OM_WG_ADDRESSES_MAX, &q->text.address_count, v,
			  "Address");
}

static enum om_err
on_dns(struct quick *q, struct om_str v)
{
	return quick_list(q, q->dns, OM_WG_DNS_MAX, &q->text.dns_count, v, "DNS");
}

static enum om_err
on_mtu(struct quick *q, struct om_str v)
{
	return quick_number(q, &q->text.mtu, OM_WG_MTU_MIN, OM_WG_MTU_MAX, v, "MTU");
}

static enum om_err
on_public_key(struct quick *q, struct om_str v)
{
	return quick_text(q, &q->text.peer_public_key, v, "PublicKey");
}

static enum om_err
on_preshared_key(struct quick *q, struct om_str v)
{
	return quick_text(q, &q->text.preshared_key, v, "PresharedKey");
}

static enum om_err
on_endpoint(struct quick *q, struct om_str v)
{
	struct om_endpoint ep;
	size_t colon = v.len;

	if (om_endpoint_parse(v, &ep) != OM_OK) {
		while (colon > 0 && v.ptr[colon - 1] != ':') {
			colon--;
		}
		for (size_t i = 0; i + 1 < colon; i++) {
			/* A letter that is no hex digit: a name, not a mistyped address. */
			if ((v.ptr[i] | 0x20) > 'f' && (v.ptr[i] | 0x20) <= 'z') {
				return om_why_set(q->why, OM_ERR_UNSUPPORTED,
						  "line %u: Endpoint has a name; write its address",
						  q->line);
			}
		}
	}
	return quick_text(q, &q->text.endpoint, v, "Endpoint");
}

static enum om_err
on_allowed_ips(struct quick *q, struct om_str v)
{
	return quick_list(q, q->allowed, OM_WG_ALLOWED_MAX, &q->text.allowed_count, v,
			  "AllowedIPs");
}

static enum om_err
on_keepalive(struct quick *q, struct om_str v)
{
	if (om_str_is(v, "off")) {
		q->text.keepalive_s = 0;
		return OM_OK;
	}
	return quick_number(q, &q->text.keepalive_s, 0, UINT16_MAX, v, "PersistentKeepalive");
}

struct quick_key {
	enum section section;
	const char *name;
	quick_fn fn; /* NULL: refused, for this reason: */
	const char *reason;
};

#define HOOK "commands are not run on the provider"

static const struct quick_key quick_keys[] = {
	{ SECTION_INTERFACE, "PrivateKey", on_private_key, NULL },
	{ SECTION_INTERFACE, "Address", on_address, NULL },
	{ SECTION_INTERFACE, "DNS", on_dns, NULL },
	{ SECTION_INTERFACE, "MTU", on_mtu, NULL },
	{ SECTION_INTERFACE, "PreUp", NULL, HOOK },
	{ SECTION_INTERFACE, "PostUp", NULL, HOOK },
	{ SECTION_INTERFACE, "PreDown", NULL, HOOK },
	{ SECTION_INTERFACE, "PostDown", NULL, HOOK },
	{ SECTION_INTERFACE, "Table", NULL, "routes are made from AllowedIPs alone" },
	{ SECTION_INTERFACE, "SaveConfig", NULL, "nothing is saved on the provider" },
	{ SECTION_INTERFACE, "ListenPort", NULL, "the provider chooses its port" },
	{ SECTION_INTERFACE, "FwMark", NULL, "the provider sets no marks" },
	{ SECTION_PEER, "PublicKey", on_public_key, NULL },
	{ SECTION_PEER, "PresharedKey", on_preshared_key, NULL },
	{ SECTION_PEER, "Endpoint", on_endpoint, NULL },
	{ SECTION_PEER, "AllowedIPs", on_allowed_ips, NULL },
	{ SECTION_PEER, "PersistentKeepalive", on_keepalive, NULL },
};

static bool
name_is(struct om_str s, const char *name)
{
	return s.len == strlen(name) && strncasecmp(s.ptr, name, s.len) == 0;
}

/* Not shown when it is no word: a key whose name was lost ends in "=" too. */
static bool
is_word(struct om_str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if ((s.ptr[i] | 0x20) < 'a' || (s.ptr[i] | 0x20) > 'z') {
			return false;
		}
	}
	return s.len > 0 && s.len <= WORD_MAX;
}

static enum om_err
quick_unknown(const struct quick *q, struct om_str key)
{
	const char *names[OM_COUNT(quick_keys)];
	const char *section = section_names[q->section];
	char word[WORD_MAX + 1];
	const char *near;

	if (!is_word(key) || om_str_copy(key, word, sizeof(word)) != OM_OK) {
		return om_why_set(q->why, OM_ERR_UNKNOWN_FIELD,
				  "line %u: the name is not known in [%s]", q->line, section);
	}
	for (size_t i = 0; i < OM_COUNT(quick_keys); i++) {
		names[i] = quick_keys[i].name;
	}
	near = om_nearest(word, names, OM_COUNT(names));
	return om_why_set(q->why, OM_ERR_UNKNOWN_FIELD,
			  "line %u: \"%s\" is not known in [%s]%s%s%s", q->line, word, section,
			  near != NULL ? "; is it " : "", near != NULL ? near : "",
			  near != NULL ? "?" : "");
}

static enum om_err
quick_key(struct quick *q, struct om_str key, struct om_str value)
{
	if (q->section == SECTION_NONE) {
		return om_why_set(q->why, OM_ERR_INVALID, "line %u: before the first section",
				  q->line);
	}
	for (size_t i = 0; i < OM_COUNT(quick_keys); i++) {
		const struct quick_key *k = &quick_keys[i];

		if (k->section != q->section || !name_is(key, k->name)) {
			continue;
		}
		if (k->fn == NULL) {
			return om_why_set(q->why, OM_ERR_DENIED, "line %u: %s is refused: %s",
					  q->line, k->name, k->reason);
		}
		if (value.len == 0) {
			return om_why_set(q->why, OM_ERR_INVALID, "line %u: %s is empty", q->line,
					  k->name);
		}
		return k->fn(q, value);
	}
	return quick_unknown(q, key);
}

static enum om_err
quick_section(struct quick *q, struct om_str name)
{
	for (int s = SECTION_INTERFACE; s < SECTION_COUNT; s++) {
		if (!name_is(name, section_names[s])) {
			continue;
		}
		if (q->has_section[s]) {
			return om_why_set(q->why, OM_ERR_INVALID,
					  "line %u: a second [%s]; a job has one tunnel", q->line,
					  section_names[s]);
		}
		q->has_section[s] = true;
		q->section = (enum section)s;
		return OM_OK;
	}
	return om_why_set(q->why, OM_ERR_UNKNOWN_FIELD, "line %u: the section is not known",
			  q->line);
}

static enum om_err
quick_line(struct quick *q, struct om_str line)
{
	struct om_str rest, key;
	const char *hash = line.len > 0 ? memchr(line.ptr, '#', line.len) : NULL;

	if (hash != NULL) {
		line.len = (size_t)(hash - line.ptr);
	}
	line = om_str_trim(line);
	if (line.len == 0) {
		return OM_OK;
	}
	if (line.ptr[0] == '[' && line.ptr[line.len - 1] == ']') {
		return quick_section(q, (struct om_str){ line.ptr + 1, line.len - 2 });
	}
	rest = line;
	(void)om_str_next(&rest, '=', &key);
	if (rest.ptr == NULL) {
		/* Not shown: it may be a key whose name was lost. */
		return om_why_set(q->why, OM_ERR_INVALID, "line %u: no \"name = value\"", q->line);
	}
	return quick_key(q, om_str_trim(key), om_str_trim(rest));
}

enum om_err
om_wg_quick_parse(struct om_str text, struct om_wg_config *out, struct om_why *why)
{
	struct quick q = { .why = why };
	struct om_why inner = { "" };
	struct om_str rest = text, line;
	enum om_err err = OM_OK;

	om_wg_config_wipe(out);
	if (text.len > OM_WG_QUICK_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "the file has more than %d bytes",
				  OM_WG_QUICK_MAX);
	}
	while (err == OM_OK && om_str_next(&rest, '\n', &line)) {
		q.line++;
		err = quick_line(&q, line);
	}
	if (err != OM_OK) {
		return err;
	}
	q.text.addresses = q.addresses;
	q.text.allowed_ips = q.allowed;
	q.text.dns = q.dns;
	err = om_wg_config_parse(&q.text, out, &inner);
	if (err != OM_OK) {
		return om_why_set(why, err, "line %u (end): %s", q.line, inner.text);
	}
	return OM_OK;
}
