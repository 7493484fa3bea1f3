/* SPDX-License-Identifier: ISC */
/*
 * msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md): a bounded reader, and writers
 * on top of msgpack-c's packer.
 *
 * 1. Every read goes through mp_head, which looks at no byte behind `end` and accepts a length or
 *    a count only when the bytes for it are there.  If broken: reads beyond the input.
 * 2. A failed read leaves the cursor where it was.
 * 3. A value is at least one byte, so a loop over a checked count is bounded by the input's size.
 */
#include "base/mp.h"

#include <endian.h>
#include <msgpack/pack.h>
#include <string.h>

#include "base/parse.h"

/* A value's first bytes, taken apart. */
struct mp_head {
	enum om_mp_kind kind;
	uint64_t n; /* UINT, BOOL: value.  INT: two's complement.  Others: length or count */
	const uint8_t *body; /* the byte behind the head */
	double f;
};

/* --- reading ---------------------------------------------------------------------------------- */

void
om_mp_init(struct om_mp *mp, const void *data, size_t len)
{
	mp->at = data;
	mp->end = len > 0 ? mp->at + len : mp->at;
}

bool
om_mp_done(const struct om_mp *mp)
{
	return mp->at == mp->end;
}

/* 0, 1, 2, 4 or 8 bytes. */
static uint64_t
mp_be(const uint8_t *at, size_t bytes)
{
	uint64_t n = 0;

	switch (bytes) {
	case 8:
		return be64toh(om_short_8(at));
	case 4:
		return be32toh(om_short_4(at));
	default:
		for (size_t i = 0; i < bytes; i++) {
			n = n << 8 | at[i];
		}
		return n;
	}
}

static enum om_mp_kind
mp_signed(struct mp_head *h, size_t bytes)
{
	unsigned shift = 64 - 8 * (unsigned)bytes;
	int64_t v = (int64_t)(h->n << shift) >> shift;

	h->n = (uint64_t)v;
	return v < 0 ? OM_MP_INT : OM_MP_UINT;
}

static enum om_mp_kind
mp_float(struct mp_head *h, size_t bytes)
{
	if (bytes == 4) {
		uint32_t bits = (uint32_t)h->n;
		float f;

		memcpy(&f, &bits, sizeof(f));
		h->f = (double)f;
	} else {
		memcpy(&h->f, &h->n, sizeof(h->f));
	}
	return OM_MP_FLOAT;
}

/* Heads of 0xc0 to 0xdf: how many bytes follow the first, and what they are. */
static const struct {
	uint8_t kind;
	uint8_t bytes;
} mp_formats[32] = {
	[0x00] = { OM_MP_NIL, 0 },  [0x01] = { OM_MP_BAD, 0 },   [0x02] = { OM_MP_BOOL, 0 },
	[0x03] = { OM_MP_BOOL, 0 }, [0x04] = { OM_MP_BIN, 1 },   [0x05] = { OM_MP_BIN, 2 },
	[0x06] = { OM_MP_BIN, 4 },  [0x07] = { OM_MP_EXT, 1 },   [0x08] = { OM_MP_EXT, 2 },
	[0x09] = { OM_MP_EXT, 4 },  [0x0a] = { OM_MP_FLOAT, 4 }, [0x0b] = { OM_MP_FLOAT, 8 },
	[0x0c] = { OM_MP_UINT, 1 }, [0x0d] = { OM_MP_UINT, 2 },  [0x0e] = { OM_MP_UINT, 4 },
	[0x0f] = { OM_MP_UINT, 8 }, [0x10] = { OM_MP_INT, 1 },   [0x11] = { OM_MP_INT, 2 },
	[0x12] = { OM_MP_INT, 4 },  [0x13] = { OM_MP_INT, 8 },   [0x14] = { OM_MP_EXT, 0 },
	[0x15] = { OM_MP_EXT, 0 },  [0x16] = { OM_MP_EXT, 0 },   [0x17] = { OM_MP_EXT, 0 },
	[0x18] = { OM_MP_EXT, 0 },  [0x19] = { OM_MP_STR, 1 },   [0x1a] = { OM_MP_STR, 2 },
	[0x1b] = { OM_MP_STR, 4 },  [0x1c] = { OM_MP_ARRAY, 2 }, [0x1d] = { OM_MP_ARRAY, 4 },
	[0x1e] = { OM_MP_MAP, 2 },  [0x1f] = { OM_MP_MAP, 4 },
};

/* Lengths and counts against the bytes that are there; an ext carries one more byte, its type. */
static bool
mp_fits(struct mp_head *h, const uint8_t *end)
{
	uint64_t left = (uint64_t)(end - h->body);

	switch (h->kind) {
	case OM_MP_STR:
	case OM_MP_BIN:
	case OM_MP_ARRAY:
		return h->n <= left;
	case OM_MP_MAP:
		return h->n <= left / 2;
	case OM_MP_EXT:
		h->n += 1;
		return h->n <= left;
	default:
		return true;
	}
}

static void
mp_head_long(const struct om_mp *mp, struct mp_head *h, uint8_t first)
{
	size_t bytes = mp_formats[first & 0x1f].bytes;

	h->kind = (enum om_mp_kind)mp_formats[first & 0x1f].kind;
	if ((size_t)(mp->end - h->body) < bytes) {
		h->kind = OM_MP_BAD;
		return;
	}
	h->n = mp_be(h->body, bytes);
	h->body += bytes;
	if (h->kind == OM_MP_INT) {
		h->kind = mp_signed(h, bytes);
	} else if (h->kind == OM_MP_FLOAT) {
		h->kind = mp_float(h, bytes);
	} else if (h->kind == OM_MP_BOOL) {
		h->n = first & 1;
	} else if (first >= 0xd4 && first <= 0xd8) {
		h->n = UINT64_C(1) << (first - 0xd4);
	}
}

static void
mp_head(const struct om_mp *mp, struct mp_head *h)
{
	uint8_t first;

	h->kind = OM_MP_BAD;
	h->n = 0;
	if (mp->at == mp->end) {
		return;
	}
	first = *mp->at;
	h->body = mp->at + 1;
	if (first <= 0x7f) {
		h->kind = OM_MP_UINT;
		h->n = first;
	} else if (first >= 0xe0) {
		h->kind = OM_MP_INT;
		h->n = (uint64_t)(int64_t)(int8_t)first;
	} else if (first <= 0x8f) {
		h->kind = OM_MP_MAP;
		h->n = first & 0x0f;
	} else if (first <= 0x9f) {
		h->kind = OM_MP_ARRAY;
		h->n = first & 0x0f;
	} else if (first <= 0xbf) {
		h->kind = OM_MP_STR;
		h->n = first & 0x1f;
	} else {
		mp_head_long(mp, h, first);
	}
	if (!mp_fits(h, mp->end)) {
		h->kind = OM_MP_BAD;
	}
}

enum om_mp_kind
om_mp_peek(const struct om_mp *mp)
{
	struct mp_head h;

	mp_head(mp, &h);
	return h.kind;
}

enum om_err
om_mp_u64_any(struct om_mp *mp, uint64_t *out)
{
	struct mp_head h;

	mp_head(mp, &h);
	if (h.kind != OM_MP_UINT) {
		return OM_ERR_INVALID;
	}
	*out = h.n;
	mp->at = h.body;
	return OM_OK;
}

enum om_err
om_mp_i64(struct om_mp *mp, int64_t *out)
{
	struct mp_head h;

	mp_head(mp, &h);
	if (h.kind != OM_MP_INT && (h.kind != OM_MP_UINT || h.n > INT64_MAX)) {
		return OM_ERR_INVALID;
	}
	*out = (int64_t)h.n;
	mp->at = h.body;
	return OM_OK;
}

enum om_err
om_mp_f64(struct om_mp *mp, double *out)
{
	struct mp_head h;

	mp_head(mp, &h);
	if (h.kind == OM_MP_FLOAT) {
		*out = h.f;
	} else if (h.kind == OM_MP_UINT) {
		*out = (double)h.n;
	} else if (h.kind == OM_MP_INT) {
		*out = (double)(int64_t)h.n;
	} else {
		return OM_ERR_INVALID;
	}
	mp->at = h.body;
	return OM_OK;
}

enum om_err
om_mp_bool(struct om_mp *mp, bool *out)
{
	const uint8_t first = om_mp_first(mp);

	if (first != 0xc2 && first != 0xc3) {
		return OM_ERR_INVALID;
	}
	*out = first == 0xc3;
	mp->at++;
	return OM_OK;
}

enum om_err
om_mp_nil(struct om_mp *mp)
{
	struct mp_head h;

	mp_head(mp, &h);
	if (h.kind != OM_MP_NIL) {
		return OM_ERR_INVALID;
	}
	mp->at = h.body;
	return OM_OK;
}

enum om_err
om_mp_str_any(struct om_mp *mp, struct om_str *out)
{
	struct om_str s;
	struct mp_head h;

	mp_head(mp, &h);
	if (h.kind != OM_MP_STR) {
		return OM_ERR_INVALID;
	}
	s = (struct om_str){ (const char *)h.body, (size_t)h.n };
	if (!om_utf8_valid(s)) {
		return OM_ERR_INVALID;
	}
	*out = s;
	mp->at = (const uint8_t *)s.ptr + s.len;
	return OM_OK;
}

enum om_err
om_mp_bin(struct om_mp *mp, struct om_bin *out)
{
	struct mp_head h;

	mp_head(mp, &h);
	if (h.kind != OM_MP_BIN && h.kind != OM_MP_STR) {
		return OM_ERR_INVALID;
	}
	*out = (struct om_bin){ h.body, (size_t)h.n };
	mp->at = h.body + h.n;
	return OM_OK;
}

static enum om_err
mp_container(struct om_mp *mp, enum om_mp_kind kind, size_t *count)
{
	const uint8_t first = om_mp_first(mp);
	const size_t values = (size_t)(first & 0x0f) << (kind == OM_MP_MAP);
	struct mp_head h;

	if ((first & 0xf0) == (kind == OM_MP_MAP ? 0x80 : 0x90) &&
	    values < (size_t)(mp->end - mp->at)) {
		*count = first & 0x0f;
		mp->at++;
		return OM_OK;
	}
	mp_head(mp, &h);
	if (h.kind != kind) {
		return OM_ERR_INVALID;
	}
	*count = (size_t)h.n;
	mp->at = h.body;
	return OM_OK;
}

enum om_err
om_mp_array(struct om_mp *mp, size_t *count)
{
	return mp_container(mp, OM_MP_ARRAY, count);
}

enum om_err
om_mp_map(struct om_mp *mp, size_t *count)
{
	return mp_container(mp, OM_MP_MAP, count);
}

enum om_err
om_mp_skip(struct om_mp *mp)
{
	uint64_t open[OM_MP_DEPTH_MAX]; /* values still missing in each open container */
	struct om_mp at = *mp;
	struct mp_head h;
	size_t depth = 0;

	do {
		mp_head(&at, &h);
		if (h.kind == OM_MP_BAD) {
			return OM_ERR_INVALID;
		}
		at.at = h.body;
		if (h.kind == OM_MP_STR || h.kind == OM_MP_BIN || h.kind == OM_MP_EXT) {
			at.at += h.n;
		}
		if (depth > 0) {
			open[depth - 1]--;
		}
		if (h.kind == OM_MP_ARRAY || h.kind == OM_MP_MAP) {
			if (depth == OM_MP_DEPTH_MAX) {
				return OM_ERR_TOO_BIG;
			}
			open[depth++] = h.kind == OM_MP_MAP ? 2 * h.n : h.n;
		}
		while (depth > 0 && open[depth - 1] == 0) {
			depth--;
		}
	} while (depth > 0);
	*mp = at;
	return OM_OK;
}

enum om_err
om_mp_check(const void *data, size_t len)
{
	struct om_mp mp;
	enum om_err err;

	om_mp_init(&mp, data, len);
	err = om_mp_skip(&mp);
	if (err == OM_OK && !om_mp_done(&mp)) {
		err = OM_ERR_INVALID;
	}
	return err;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* msgpack-c's callback.  Inlined: with a constant length it becomes one or two stores. */
static inline int
mp_write(void *buf_, const char *data, size_t len)
{
	struct om_buf *buf = buf_;

	if (!om_buf_fits(buf, len)) {
		om_buf_add(buf, data, len);
		return buf->failed ? -1 : 0;
	}
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	return 0;
}

static inline msgpack_packer
mp_packer(struct om_buf *buf)
{
	return (msgpack_packer){ .data = buf, .callback = mp_write };
}

void
om_mp_put_nil(struct om_buf *buf)
{
	msgpack_packer pk = mp_packer(buf);

	(void)msgpack_pack_nil(&pk);
}

void
om_mp_put_bool(struct om_buf *buf, bool v)
{
	msgpack_packer pk = mp_packer(buf);

	(void)(v ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
}

void
om_mp_put_u64_any(struct om_buf *buf, uint64_t v)
{
	msgpack_packer pk = mp_packer(buf);

	(void)msgpack_pack_uint64(&pk, v);
}

void
om_mp_put_i64(struct om_buf *buf, int64_t v)
{
	msgpack_packer pk = mp_packer(buf);

	(void)msgpack_pack_int64(&pk, v);
}

void
om_mp_put_f64(struct om_buf *buf, double v)
{
	msgpack_packer pk = mp_packer(buf);

	(void)msgpack_pack_double(&pk, v);
}

/*
 * The body behind a head that was just written at `from`.  Without room for it the head goes too:
 * a failed append leaves the buffer as it was.
 */
static void
mp_put_body(struct om_buf *buf, size_t from, const void *body, size_t len)
{
	if (!buf->failed) {
		om_buf_add(buf, body, len);
	}
	if (buf->failed) {
		buf->len = from;
	}
}

void
om_mp_put_str_any(struct om_buf *buf, struct om_str s)
{
	msgpack_packer pk = mp_packer(buf);
	size_t from = buf->len;

	if (s.len > UINT32_MAX) {
		buf->failed = true;
		return;
	}
	(void)msgpack_pack_str(&pk, s.len);
	mp_put_body(buf, from, s.ptr, s.len);
}

void
om_mp_put_cstr(struct om_buf *buf, const char *s)
{
	om_mp_put_str(buf, om_str_of(s));
}

void
om_mp_put_bin(struct om_buf *buf, struct om_bin b)
{
	msgpack_packer pk = mp_packer(buf);
	size_t from = buf->len;

	if (b.len > UINT32_MAX) {
		buf->failed = true;
		return;
	}
	(void)msgpack_pack_bin(&pk, b.len);
	mp_put_body(buf, from, b.ptr, b.len);
}

void
om_mp_put_array_any(struct om_buf *buf, size_t count)
{
	msgpack_packer pk = mp_packer(buf);

	if (count > UINT32_MAX) {
		buf->failed = true;
		return;
	}
	(void)msgpack_pack_array(&pk, count);
}

void
om_mp_put_map_any(struct om_buf *buf, size_t count)
{
	msgpack_packer pk = mp_packer(buf);

	if (count > UINT32_MAX) {
		buf->failed = true;
		return;
	}
	(void)msgpack_pack_map(&pk, count);
}
