/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_MP_H
#define OM_BASE_MP_H

/*
 * msgpack, bounded.  Writing goes through msgpack-c's packer into an om_buf.  Reading is a cursor
 * over bytes that are there: msgpack-c's unpacker allocates by *declared* length (5 bytes make it
 * ask for 96 GiB), so input from outside never reaches it.  The cursor allocates nothing, strings
 * and binaries are views into the input, and a container's count is checked against the bytes that
 * remain before anyone loops over it.
 */
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/short.h"

#define OM_MP_DEPTH_MAX 16 /* nesting that om_mp_skip and om_mp_check accept */

enum om_mp_kind {
	OM_MP_NIL,
	OM_MP_BOOL,
	OM_MP_UINT, /* any non-negative integer */
	OM_MP_INT, /* a negative integer */
	OM_MP_FLOAT,
	OM_MP_STR,
	OM_MP_BIN,
	OM_MP_ARRAY,
	OM_MP_MAP,
	OM_MP_EXT,
	OM_MP_BAD, /* truncated or reserved byte */
};

struct om_mp {
	const uint8_t *at;
	const uint8_t *end;
};

/* All: owner thread.  On error the cursor has not moved. */
void om_mp_init(struct om_mp *mp, const void *data, size_t len);
bool om_mp_done(const struct om_mp *mp);
enum om_mp_kind om_mp_peek(const struct om_mp *mp);
static inline enum om_err om_mp_u64(struct om_mp *mp, uint64_t *out) OM_MUST_CHECK;
enum om_err om_mp_i64(struct om_mp *mp, int64_t *out) OM_MUST_CHECK;
enum om_err om_mp_f64(struct om_mp *mp, double *out) OM_MUST_CHECK; /* accepts integers too */
enum om_err om_mp_bool(struct om_mp *mp, bool *out) OM_MUST_CHECK;
enum om_err om_mp_nil(struct om_mp *mp) OM_MUST_CHECK;
/* UTF-8 is checked. */
static inline enum om_err om_mp_str(struct om_mp *mp, struct om_str *out) OM_MUST_CHECK;
enum om_err om_mp_bin(struct om_mp *mp, struct om_bin *out) OM_MUST_CHECK; /* str accepted too */
enum om_err om_mp_array(struct om_mp *mp, size_t *count) OM_MUST_CHECK;
enum om_err om_mp_map(struct om_mp *mp, size_t *count) OM_MUST_CHECK;
/*
 * True: the next value was this string of 1 to 31 bytes, in its shortest form; steps over it.  Eight
 * bytes of the key may be read.
 */
static inline bool om_mp_key(struct om_mp *mp, const char *key, size_t len) OM_MUST_CHECK;
/* Steps over one value of any kind; iterative, bounded by OM_MP_DEPTH_MAX. */
enum om_err om_mp_skip(struct om_mp *mp) OM_MUST_CHECK;
/* Exactly one well-formed value and nothing behind it.  TOO_BIG: nested too deeply. */
enum om_err om_mp_check(const void *data, size_t len) OM_MUST_CHECK;

/* Owner thread.  Writers append; a failure shows in buf->failed. */
void om_mp_put_nil(struct om_buf *buf);
void om_mp_put_bool(struct om_buf *buf, bool v);
static inline void om_mp_put_u64(struct om_buf *buf, uint64_t v);
void om_mp_put_i64(struct om_buf *buf, int64_t v);
void om_mp_put_f64(struct om_buf *buf, double v);
static inline void om_mp_put_str(struct om_buf *buf, struct om_str s);
void om_mp_put_cstr(struct om_buf *buf, const char *s);
void om_mp_put_bin(struct om_buf *buf, struct om_bin b);
static inline void om_mp_put_array(struct om_buf *buf, size_t count);
static inline void om_mp_put_map(struct om_buf *buf, size_t count);

/*
 * Nearly all values of a message are strings below 32 bytes, numbers, and containers of up to 15: those
 * are read and written in place, the others by the functions of the same name with _any.  A reader
 * _short gives false for the others; it makes no call, so the cursor may be in registers.
 */
static inline bool om_mp_short_u64(struct om_mp *mp, uint64_t *out) OM_MUST_CHECK;
static inline bool om_mp_short_str(struct om_mp *mp, struct om_str *out) OM_MUST_CHECK;
enum om_err om_mp_u64_any(struct om_mp *mp, uint64_t *out) OM_MUST_CHECK;
enum om_err om_mp_str_any(struct om_mp *mp, struct om_str *out) OM_MUST_CHECK;
void om_mp_put_u64_any(struct om_buf *buf, uint64_t v);
void om_mp_put_str_any(struct om_buf *buf, struct om_str s);
void om_mp_put_array_any(struct om_buf *buf, size_t count);
void om_mp_put_map_any(struct om_buf *buf, size_t count);

/*
 * One value at `at`, where the caller has made room for OM_MP_PLACE_MAX bytes; the bytes behind it may
 * change as well.  Give the end of the value.
 */
#define OM_MP_PLACE_MAX     (1 + OM_MP_PLACE_STR_MAX)
#define OM_MP_PLACE_STR_MAX 31
static inline uint8_t *om_mp_place_u64(uint8_t *at, uint64_t v);
static inline uint8_t *om_mp_place_str(uint8_t *at, struct om_str s); /* up to PLACE_STR_MAX */

/* The first byte, or 0xc1 (a byte that msgpack never uses) at the end. */
static inline uint8_t
om_mp_first(const struct om_mp *mp)
{
	return mp->at != mp->end ? *mp->at : 0xc1;
}

static inline bool
om_mp_short_u64(struct om_mp *mp, uint64_t *out)
{
	const uint8_t first = om_mp_first(mp);

	if (first <= 0x7f) {
		*out = first;
		mp->at++;
		return true;
	}
	if (first >= 0xcc && first <= 0xcf && mp->end - mp->at > 8) { /* of 1, 2, 4 or 8 bytes */
		const unsigned bytes = 1u << (first & 3);

		*out = be64toh(om_short_8(mp->at + 1)) >> (64 - 8 * bytes);
		mp->at += 1 + bytes;
		return true;
	}
	return false;
}

static inline bool
om_mp_short_str(struct om_mp *mp, struct om_str *out)
{
	const uint8_t first = om_mp_first(mp);
	const size_t len = first & 0x1f;

	if ((first & 0xe0) != 0xa0 || len >= (size_t)(mp->end - mp->at) ||
	    !om_short_is_ascii(mp->at + 1, len)) {
		return false;
	}
	*out = (struct om_str){ (const char *)mp->at + 1, len };
	mp->at += 1 + len;
	return true;
}

static inline bool
om_mp_key(struct om_mp *mp, const char *key, size_t len)
{
	const size_t left = (size_t)(mp->end - mp->at);

	if (om_mp_first(mp) != (0xa0 | len) || len >= left ||
	    !(len <= 8 && left > 8 ? om_short_eq_8(mp->at + 1, key, len)
				   : om_short_eq(mp->at + 1, key, len))) {
		return false;
	}
	mp->at += 1 + len;
	return true;
}

static inline enum om_err
om_mp_u64(struct om_mp *mp, uint64_t *out)
{
	return om_mp_short_u64(mp, out) ? OM_OK : om_mp_u64_any(mp, out);
}

static inline enum om_err
om_mp_str(struct om_mp *mp, struct om_str *out)
{
	return om_mp_short_str(mp, out) ? OM_OK : om_mp_str_any(mp, out);
}

static inline uint8_t *
om_mp_place_u64(uint8_t *at, uint64_t v)
{
	unsigned size; /* 1, 2, 4 or 8 bytes, as its logarithm */

	if (v < 128) {
		*at = (uint8_t)v;
		return at + 1;
	}
	size = v <= UINT8_MAX ? 0 : v <= UINT16_MAX ? 1 : v <= UINT32_MAX ? 2 : 3;
	*at = (uint8_t)(0xcc | size);
	v = htobe64(v << (64 - (8u << size)));
	memcpy(at + 1, &v, sizeof(v));
	return at + 1 + (1u << size);
}

static inline uint8_t *
om_mp_place_str(uint8_t *at, struct om_str s)
{
	*at = (uint8_t)(0xa0 | s.len);
	om_short_copy(at + 1, s.ptr, s.len);
	return at + 1 + s.len;
}

static inline void
om_mp_put_u64(struct om_buf *buf, uint64_t v)
{
	if (om_buf_fits(buf, OM_MP_PLACE_MAX)) {
		buf->len = (size_t)(om_mp_place_u64(buf->data + buf->len, v) - buf->data);
	} else {
		om_mp_put_u64_any(buf, v);
	}
}

static inline void
om_mp_put_str(struct om_buf *buf, struct om_str s)
{
	if (s.len <= OM_MP_PLACE_STR_MAX && om_buf_fits(buf, 1 + s.len)) {
		buf->len = (size_t)(om_mp_place_str(buf->data + buf->len, s) - buf->data);
	} else {
		om_mp_put_str_any(buf, s);
	}
}

static inline void
om_mp_put_array(struct om_buf *buf, size_t count)
{
	if (count < 16 && om_buf_fits(buf, 1)) {
		buf->data[buf->len++] = (uint8_t)(0x90 | count);
	} else {
		om_mp_put_array_any(buf, count);
	}
}

static inline void
om_mp_put_map(struct om_buf *buf, size_t count)
{
	if (count < 16 && om_buf_fits(buf, 1)) {
		buf->data[buf->len++] = (uint8_t)(0x80 | count);
	} else {
		om_mp_put_map_any(buf, count);
	}
}

#endif /* OM_BASE_MP_H */
