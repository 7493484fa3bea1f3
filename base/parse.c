/* SPDX-License-Identifier: ISC */
/*
 * Text to values, strictly: the whole text or nothing.
 *
 * Base64 and hex are read without branches or table look-ups on the data: private keys pass
 * through here, and neither time nor cache lines may depend on them.
 */
#include "base/parse.h"

#include <endian.h>
#include <limits.h>
#include <string.h>
#include "base/short.h"

#define EDIT_MAX       64 /* bytes of a word that om_edit_distance looks at */
#define NEAREST_WITHIN 3

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

enum om_err
om_parse_u64(struct om_str s, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (s.len == 0) {
		return OM_ERR_INVALID;
	}
	for (size_t i = 0; i < s.len; i++) {
		uint64_t digit = (uint64_t)(s.ptr[i] - '0');

		if (!is_digit(s.ptr[i]) || n > (UINT64_MAX - digit) / 10) {
			return OM_ERR_INVALID;
		}
		n = n * 10 + digit;
	}
	if (n < min || n > max) {
		return OM_ERR_INVALID;
	}
	*out = n;
	return OM_OK;
}

enum om_err
om_parse_bool(struct om_str s, bool *out)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {
		{ "yes", true }, { "no", false },  { "true", true }, { "false", false },
		{ "on", true },  { "off", false }, { "1", true },    { "0", false },
	};

	for (size_t i = 0; i < OM_COUNT(words); i++) {
		if (om_str_is(s, words[i].word)) {
			*out = words[i].value;
			return OM_OK;
		}
	}
	return OM_ERR_INVALID;
}

/* --- numbers with a unit ---------------------------------------------------------------------- */

struct unit {
	const char *suffix;
	uint64_t scale;
};

/* "<digits><suffix>": the number times the suffix's scale. */
static enum om_err
parse_scaled(struct om_str s, const struct unit *units, size_t count, uint64_t *out)
{
	struct om_str suffix;
	size_t digits = 0;
	uint64_t n;

	while (digits < s.len && is_digit(s.ptr[digits])) {
		digits++;
	}
	if (om_parse_u64((struct om_str){ s.ptr, digits }, 0, UINT64_MAX, &n) != OM_OK) {
		return OM_ERR_INVALID;
	}
	suffix = (struct om_str){ s.ptr + digits, s.len - digits };
	for (size_t i = 0; i < count; i++) {
		if (om_str_is(suffix, units[i].suffix)) {
			if (n > UINT64_MAX / units[i].scale) {
				return OM_ERR_INVALID;
			}
			*out = n * units[i].scale;
			return OM_OK;
		}
	}
	return OM_ERR_INVALID;
}

enum om_err
om_parse_mib(struct om_str s, uint64_t *out)
{
	static const struct unit units[] = {
		{ "", 1024 },
		{ "K", 1 },
		{ "M", 1024 },
		{ "G", 1024 * 1024 },
		{ "T", 1024 * 1024 * 1024 },
		{ "k", 1 },
		{ "m", 1024 },
		{ "g", 1024 * 1024 },
		{ "t", 1024 * 1024 * 1024 },
	};
	uint64_t kib;

	/* A size that is no whole number of MiB is refused: rounding would surprise somebody. */
	if (parse_scaled(s, units, OM_COUNT(units), &kib) != OM_OK || kib % 1024 != 0) {
		return OM_ERR_INVALID;
	}
	*out = kib / 1024;
	return OM_OK;
}

enum om_err
om_parse_ms(struct om_str s, uint64_t *out)
{
	static const struct unit units[] = {
		{ "", 1000 },       { "ms", 1 },          { "s", 1000 },
		{ "m", 60 * 1000 }, { "h", 3600 * 1000 }, { "d", 24 * 3600 * 1000 },
	};

	return parse_scaled(s, units, OM_COUNT(units), out);
}

/* --- keys ------------------------------------------------------------------------------------- */

/* All ones when lo <= c <= hi, else 0; no branch. */
static int
in_range(int c, int lo, int hi)
{
	return ((lo - 1 - c) & (c - hi - 1)) >> 31;
}

/* 0 to 63, or -1. */
static int
base64_digit(int c)
{
	return -1 + (in_range(c, 'A', 'Z') & (c - 'A' + 1)) +
	       (in_range(c, 'a', 'z') & (c - 'a' + 27)) + (in_range(c, '0', '9') & (c - '0' + 53)) +
	       (in_range(c, '+', '+') & 63) + (in_range(c, '/', '/') & 64);
}

/* Four characters to 24 bits; `pad` of them (0 to 2) are '='.  Negative when not valid. */
static int
base64_quad(const char *in, size_t pad)
{
	int bits = 0;
	int bad = 0;

	for (size_t i = 0; i < 4; i++) {
		int c = (unsigned char)in[i];
		int digit = base64_digit(c);

		if (i >= 4 - pad) {
			bad |= c ^ '=';
			digit = 0;
		}
		bad |= digit >> 31;
		bits = (int)((unsigned)bits << 6) | (digit & 63);
	}
	/* The bits that padding leaves over must be zero: one value has one spelling. */
	bad |= bits & ((1 << (8 * pad)) - 1);
	return bad != 0 ? -1 : bits;
}

enum om_err
om_parse_base64(struct om_str s, uint8_t *out, size_t out_len)
{
	size_t quads = s.len / 4;
	size_t pad = (3 - out_len % 3) % 3;
	int bad = 0;

	if (s.len % 4 != 0 || out_len > SIZE_MAX / 2 || quads != (out_len + 2) / 3) {
		return OM_ERR_INVALID;
	}
	for (size_t i = 0; i < quads; i++) {
		bad |= base64_quad(s.ptr + 4 * i, i + 1 == quads ? pad : 0) >> 31;
	}
	if (bad != 0) {
		return OM_ERR_INVALID;
	}
	for (size_t i = 0; i < out_len; i++) {
		size_t quad = i / 3;
		int bits = base64_quad(s.ptr + 4 * quad, quad + 1 == quads ? pad : 0);

		out[i] = (uint8_t)(bits >> (16 - 8 * (i % 3)));
	}
	return OM_OK;
}

/* 0 to 15, or -1. */
static int
hex_digit(int c)
{
	return -1 + (in_range(c, '0', '9') & (c - '0' + 1)) +
	       (in_range(c, 'a', 'f') & (c - 'a' + 11)) + (in_range(c, 'A', 'F') & (c - 'A' + 11));
}

enum om_err
om_parse_hex(struct om_str s, uint8_t *out, size_t out_len)
{
	int bad = 0;

	if (s.len % 2 != 0 || s.len / 2 != out_len) {
		return OM_ERR_INVALID;
	}
	for (size_t i = 0; i < s.len; i++) {
		bad |= hex_digit((unsigned char)s.ptr[i]) >> 31;
	}
	if (bad != 0) {
		return OM_ERR_INVALID;
	}
	for (size_t i = 0; i < out_len; i++) {
		out[i] = (uint8_t)(hex_digit((unsigned char)s.ptr[2 * i]) << 4 |
				   hex_digit((unsigned char)s.ptr[2 * i + 1]));
	}
	return OM_OK;
}

/* The digits of four bytes, the first one lowest. */
static uint64_t
hex_digits(const uint8_t *in)
{
	uint32_t four;
	uint64_t v, letters;

	memcpy(&four, in, sizeof(four));
	v = le32toh(four);
	v = (v | v << 16) & UINT64_C(0x0000ffff0000ffff);
	v = (v | v << 8) & UINT64_C(0x00ff00ff00ff00ff);
	v = (v >> 4 | v << 8) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	letters = (v + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101);
	return v + UINT64_C(0x3030303030303030) + letters * ('a' - '0' - 10);
}

void
om_hex(const void *data, size_t len, char *out)
{
	const uint8_t *in = data;

	for (; len >= 4; len -= 4) {
		const uint64_t digits = htole64(hex_digits(in));

		memcpy(out, &digits, sizeof(digits));
		in += 4;
		out += sizeof(digits);
	}
	if (len > 0) {
		uint8_t last[4] = { 0 };
		uint64_t digits;

		memcpy(last, in, len);
		digits = htole64(hex_digits(last));
		memcpy(out, &digits, 2 * len);
		out += 2 * len;
	}
	*out = '\0';
}

/* --- UTF-8 ------------------------------------------------------------------------------------ */

/* Bytes of the well-formed sequence at p (not ASCII; Unicode 15, table 3-7), 0 if there is none. */
static size_t
utf8_seq(const unsigned char *p, size_t left)
{
	unsigned char lo = 0x80, hi = 0xbf; /* what the second byte may be */
	size_t need;

	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		need = 2;
	} else if ((p[0] & 0xf0) == 0xe0) {
		need = 3;
		lo = p[0] == 0xe0 ? 0xa0 : lo; /* overlong */
		hi = p[0] == 0xed ? 0x9f : hi; /* surrogates */
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		need = 4;
		lo = p[0] == 0xf0 ? 0x90 : lo; /* overlong */
		hi = p[0] == 0xf4 ? 0x8f : hi; /* above U+10FFFF */
	} else {
		return 0;
	}
	if (left < need || p[1] < lo || p[1] > hi) {
		return 0;
	}
	for (size_t i = 2; i < need; i++) {
		if ((p[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	return need;
}

bool
om_utf8_valid(struct om_str s)
{
	const unsigned char *p = (const unsigned char *)s.ptr;
	size_t left = s.len;

	if (left <= OM_SHORT_MAX && om_short_is_ascii(p, left)) {
		return true;
	}
	while (left > 0) {
		uint64_t eight;
		size_t step;

		if (left >= sizeof(eight)) {
			memcpy(&eight, p, sizeof(eight));
			if ((eight & UINT64_C(0x8080808080808080)) == 0) {
				p += sizeof(eight);
				left -= sizeof(eight);
				continue;
			}
		}
		step = p[0] < 0x80 ? 1 : utf8_seq(p, left);
		if (step == 0) {
			return false;
		}
		p += step;
		left -= step;
	}
	return true;
}

void
om_utf8_clean(char *text, size_t len)
{
	for (size_t i = 0; i < len;) {
		const unsigned char *p = (const unsigned char *)text + i;
		const size_t step = p[0] < 0x80 ? 1 : utf8_seq(p, len - i);

		if (step == 0) {
			text[i] = '?';
		}
		i += step == 0 ? 1 : step;
	}
}

/* --- words ------------------------------------------------------------------------------------ */

static unsigned
min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* Wagner and Fischer, "The String-to-String Correction Problem" (1974), with one row. */
unsigned
om_edit_distance(const char *a, const char *b)
{
	size_t alen = strlen(a), blen = strlen(b);
	unsigned row[EDIT_MAX + 1];

	if (alen > EDIT_MAX || blen > EDIT_MAX) {
		return UINT_MAX;
	}
	for (size_t j = 0; j <= blen; j++) {
		row[j] = (unsigned)j;
	}
	for (size_t i = 1; i <= alen; i++) {
		unsigned corner = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= blen; j++) {
			unsigned above = row[j];

			row[j] = min3(above + 1, row[j - 1] + 1, corner + (a[i - 1] != b[j - 1]));
			corner = above;
		}
	}
	return row[blen];
}

const char *
om_nearest(const char *word, const char *const *names, size_t count)
{
	/* Changing more than half of a short word makes anything of it: that is no guess. */
	size_t most = strlen(word) / 2;
	unsigned best = most < NEAREST_WITHIN ? (unsigned)most + 1 : NEAREST_WITHIN + 1;
	const char *found = NULL;

	for (size_t i = 0; i < count; i++) {
		unsigned distance = om_edit_distance(word, names[i]);

		if (distance < best) {
			best = distance;
			found = names[i];
		}
	}
	return found;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f';
}

struct om_str
om_str_trim(struct om_str s)
{
	while (s.len > 0 && is_blank(s.ptr[0])) {
		s.ptr++;
		s.len--;
	}
	while (s.len > 0 && is_blank(s.ptr[s.len - 1])) {
		s.len--;
	}
	return s;
}

bool
om_str_next(struct om_str *rest, char sep, struct om_str *piece)
{
	const char *at;

	if (rest->ptr == NULL) {
		return false;
	}
	at = rest->len > 0 ? memchr(rest->ptr, sep, rest->len) : NULL;
	if (at == NULL) {
		*piece = *rest;
		*rest = (struct om_str){ NULL, 0 };
		return true;
	}
	*piece = (struct om_str){ rest->ptr, (size_t)(at - rest->ptr) };
	rest->len -= piece->len + 1;
	rest->ptr = at + 1;
	return true;
}
