/* SPDX-License-Identifier: ISC */
#include "actors/filter_text.h"

#include <locale.h>
#include <pthread.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#define BLOCK 16 /* bytes */

static locale_t unicode;
static pthread_once_t unicode_once = PTHREAD_ONCE_INIT;

/* C.UTF-8 is part of libc-bin.  Should it be missing, only ASCII is folded. */
static void
unicode_open(void)
{
	unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

static bool
have_unicode(void)
{
	(void)pthread_once(&unicode_once, unicode_open);
	return unicode != (locale_t)0;
}

/* --- UTF-8: the input was checked when it was decoded; a stray byte stands for itself --------- */

static size_t
utf8_get(const unsigned char *p, size_t left, wint_t *out)
{
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	static const unsigned char mask[] = { 0, 0, 0x1f, 0x0f, 0x07 };

	for (size_t n = 4; n >= 2; n--) {
		if (p[0] >= lead[n] && n <= left) {
			wint_t c = p[0] & mask[n];

			for (size_t i = 1; i < n; i++) {
				c = c << 6 | (p[i] & 0x3f);
			}
			*out = c;
			return n;
		}
	}
	*out = p[0];
	return 1;
}

static size_t
utf8_put(wint_t c, char *out)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | (c >> 18 & 7));
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/*
 * Bytes at the front that were ASCII and are folded, in blocks that the compiler makes one step of.
 */
static size_t
fold_ascii(const unsigned char *p, size_t len, char *out)
{
	size_t at = 0;

	for (; len - at >= BLOCK; at += BLOCK) {
		uint64_t half[2];

		memcpy(half, p + at, sizeof(half));
		if (((half[0] | half[1]) & UINT64_C(0x8080808080808080)) != 0) {
			break;
		}
		for (size_t i = 0; i < BLOCK; i++) {
			unsigned char c = p[at + i];

			out[at + i] = (char)(c | ((unsigned char)(c - 'A') < 26 ? 0x20 : 0));
		}
	}
	return at;
}

size_t
om_text_fold(struct om_str s, char *out)
{
	const unsigned char *p = (const unsigned char *)s.ptr;
	size_t len = fold_ascii(p, s.len, out);

	for (size_t i = len; i < s.len;) {
		wint_t c = p[i];
		size_t n = 1;

		if (c < 0x80) {
			out[len++] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
			i++;
			continue;
		}
		if (!have_unicode()) {
			out[len++] = (char)c;
			i++;
			continue;
		}
		n = utf8_get(p + i, s.len - i, &c);
		if (n == 1) {
			out[len++] = (char)c;
		} else {
			len += utf8_put(towlower_l(towupper_l(c, unicode), unicode), out + len);
		}
		i += n;
	}
	return len;
}

static unsigned
pair_of(const unsigned char *p)
{
	return (p[0] * 61u ^ p[1] * 17u) % OM_TEXT_PAIRS;
}

void
om_text_pairs(struct om_str text, struct om_text_pairs *out)
{
	const unsigned char *p = (const unsigned char *)text.ptr;

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i + 1 < text.len; i++) {
		unsigned pair = pair_of(p + i);

		out->bits[pair / 64] |= UINT64_C(1) << pair % 64;
	}
}

bool
om_text_maybe(const struct om_text_pairs *pairs, struct om_str keyword)
{
	const unsigned char *p = (const unsigned char *)keyword.ptr;

	for (size_t i = 0; i + 1 < keyword.len; i++) {
		unsigned pair = pair_of(p + i);

		if ((pairs->bits[pair / 64] >> pair % 64 & 1) == 0) {
			return false;
		}
	}
	return true;
}

static bool
is_letter(wint_t c)
{
	if (c < 0x80) {
		return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
	}
	return !have_unicode() || iswalnum_l(c, unicode) != 0;
}

/* A letter or digit begins at `at`. */
static bool
letter_at(struct om_str text, size_t at)
{
	wint_t c;

	if (at >= text.len) {
		return false;
	}
	(void)utf8_get((const unsigned char *)text.ptr + at, text.len - at, &c);
	return is_letter(c);
}

/* A letter or digit ends just before `at`. */
static bool
letter_before(struct om_str text, size_t at)
{
	size_t from = at;

	if (at == 0) {
		return false;
	}
	do {
		from--;
	} while (from > 0 && at - from < 4 && ((unsigned char)text.ptr[from] & 0xc0) == 0x80);
	return letter_at(text, from);
}

bool
om_text_contains(struct om_str text, struct om_str keyword, bool as_word)
{
	/* An edge of the keyword that is no letter ("c++") needs no edge of a word beside it. */
	bool check_front = as_word && letter_at(keyword, 0);
	bool check_back = as_word && letter_before(keyword, keyword.len);
	size_t from = 0;

	if (keyword.len == 0) {
		return false;
	}
	while (text.len - from >= keyword.len) {
		const char *hit =
		    memmem(text.ptr + from, text.len - from, keyword.ptr, keyword.len);
		size_t at;

		if (hit == NULL) {
			return false;
		}
		at = (size_t)(hit - text.ptr);
		if (!(check_front && letter_before(text, at)) &&
		    !(check_back && letter_at(text, at + keyword.len))) {
			return true;
		}
		from = at + 1;
	}
	return false;
}
