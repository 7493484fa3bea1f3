/* SPDX-License-Identifier: ISC */
#include <jansson.h>
#include <string.h>
#include "base/parse.h"
#include "base/short.h"
#include "store/audit_pack.h"

enum { PACK_SEQ, PACK_AT, PACK_TEXTS, PACK_HASH = 9, PACK_FIELDS };

/* --- writing ------------------------------------------------------------------------------------ */

/* Bytes that a text needs at most, with its comma and quotes; null needs fewer. */
#define TEXT_BYTES(len) (6 * (len) + 3)
#define INT_BYTES       21

static char *
put_int(char *at, int64_t v)
{
	static const char pairs[] = "0001020304050607080910111213141516171819"
				    "2021222324252627282930313233343536373839"
				    "4041424344454647484950515253545556575859"
				    "6061626364656667686970717273747576777879"
				    "8081828384858687888990919293949596979899";
	char digits[INT_BYTES + 1];
	uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
	size_t from = sizeof(digits);

	do {
		from -= 2;
		memcpy(digits + from, pairs + 2 * (rest % 100), 2);
		rest /= 100;
	} while (rest > 0);
	from += digits[from] == '0' && from < sizeof(digits) - 1;
	if (v < 0) {
		*at++ = '-';
	}
	om_short_copy(at, digits + from, sizeof(digits) - from);
	return at + sizeof(digits) - from;
}

static char *
put_escaped(char *at, uint8_t c)
{
	static const char hex[] = "0123456789abcdef";

	*at++ = '\\';
	if (c >= 0x20) {
		*at++ = (char)c;
		return at;
	}
	memcpy(at, "u00", 3);
	at[3] = hex[c >> 4];
	at[4] = hex[c & 15];
	return at + 5;
}

/* Is one of these eight to be escaped?  A byte under 1 has its high bit set when 1 is taken away. */
static bool
eight_escapes(uint64_t v)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), quote = v ^ ones * '"',
		       slash = v ^ ones * '\\';

	return (((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)) &
	       ones * 0x80;
}

/* The bytes in front that need no escape. */
static size_t
plain_len(const char *s, size_t len)
{
	size_t i = 0;

	while (len - i >= 8 && !eight_escapes(om_short_8(s + i))) {
		i += 8;
	}
	while (i < len && (uint8_t)s[i] >= 0x20 && s[i] != '"' && s[i] != '\\') {
		i++;
	}
	return i;
}

static char *
put_text(char *at, struct om_str s)
{
	if (s.ptr == NULL) {
		memcpy(at, ",null", 5);
		return at + 5;
	}
	*at++ = ',';
	*at++ = '"';
	while (s.len > 0) {
		const size_t n = plain_len(s.ptr, s.len);

		om_short_copy_any(at, s.ptr, n);
		at += n;
		s.ptr += n;
		s.len -= n;
		if (s.len > 0) {
			at = put_escaped(at, (uint8_t)*s.ptr++);
			s.len--;
		}
	}
	*at++ = '"';
	return at;
}

void
om_audit_pack_put(struct om_buf *buf, const struct om_audit_row *row)
{
	const struct om_str texts[] = { row->event,   row->actor,    row->job,    row->requester,
					row->network, row->activity, row->details };
	size_t most = 2 * INT_BYTES + 2 * OM_HASH_LEN + 8, i;
	char *at;

	for (i = 0; i < OM_COUNT(texts); i++) {
		most += TEXT_BYTES(texts[i].ptr == NULL ? 1 : texts[i].len);
	}
	if (om_buf_reserve(buf, most) != OM_OK) {
		return;
	}
	at = (char *)buf->data + buf->len;
	*at++ = '[';
	at = put_int(at, (int64_t)row->seq);
	*at++ = ',';
	at = put_int(at, row->at.ns);
	for (i = 0; i < OM_COUNT(texts); i++) {
		at = put_text(at, texts[i]);
	}
	memcpy(at, ",\"", 2);
	om_hex(row->hash, OM_HASH_LEN, at + 2);
	at += 2 + 2 * OM_HASH_LEN;
	memcpy(at, "\"]", 2);
	buf->len = (size_t)(at + 2 - (char *)buf->data);
}

/* --- reading ------------------------------------------------------------------------------------ */

bool
om_audit_pack_open(struct om_audit_pack *pack, struct om_str text)
{
	json_t *rows = text.ptr == NULL ? NULL
					: json_loadb(text.ptr, text.len,
						     JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);

	*pack = (struct om_audit_pack){ 0 };
	if (!json_is_array(rows)) {
		json_decref(rows);
		return false;
	}
	pack->rows = rows;
	pack->count = json_array_size(rows);
	return true;
}

void
om_audit_pack_fini(struct om_audit_pack *pack)
{
	json_decref(pack->rows);
	*pack = (struct om_audit_pack){ 0 };
}

static struct om_str
get_text(const json_t *fields, size_t i)
{
	const json_t *v = json_array_get(fields, i);

	return json_is_string(v) ? (struct om_str){ json_string_value(v), json_string_length(v) }
				 : (struct om_str){ NULL, 0 };
}

void
om_audit_pack_row(const struct om_audit_pack *pack, size_t i, struct om_audit_row *row)
{
	const json_t *fields = json_array_get(pack->rows, i);
	struct om_str hash;

	*row = (struct om_audit_row){ 0 };
	if (json_array_size(fields) != PACK_FIELDS) {
		return;
	}
	row->seq = (uint64_t)json_integer_value(json_array_get(fields, PACK_SEQ));
	row->at.ns = json_integer_value(json_array_get(fields, PACK_AT));
	row->event = get_text(fields, PACK_TEXTS);
	row->actor = get_text(fields, PACK_TEXTS + 1);
	row->job = get_text(fields, PACK_TEXTS + 2);
	row->requester = get_text(fields, PACK_TEXTS + 3);
	row->network = get_text(fields, PACK_TEXTS + 4);
	row->activity = get_text(fields, PACK_TEXTS + 5);
	row->details = get_text(fields, PACK_TEXTS + 6);
	hash = get_text(fields, PACK_HASH);
	if (hash.len != 2 * OM_HASH_LEN || om_parse_hex(hash, row->hash, OM_HASH_LEN) != OM_OK) {
		memset(row->hash, 0, OM_HASH_LEN);
	}
}
