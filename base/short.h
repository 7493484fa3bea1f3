/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_SHORT_H
#define OM_BASE_SHORT_H

/*
 * Any thread.  At most OM_SHORT_MAX bytes at a time where nothing else is said, for where a call of the C library costs more than
 * they do: a few loads that may overlap, and no loop.
 */
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define OM_SHORT_MAX 32

static inline uint64_t
om_short_8(const void *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

static inline uint32_t
om_short_4(const void *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

/* All bytes, the last one up to seven times: for n < 8. */
static inline uint64_t
om_short_tail(const uint8_t *at, size_t n)
{
	if (n >= 4) {
		return (uint64_t)om_short_4(at) << 32 | om_short_4(at + n - 4);
	}
	return n == 0 ? 0 : (uint64_t)at[0] << 16 | (uint64_t)at[n / 2] << 8 | at[n - 1];
}

/* The first n bytes, 1 to 8, where eight may be read. */
static inline bool
om_short_eq_8(const void *a, const void *b, size_t n)
{
	return htole64(om_short_8(a) ^ om_short_8(b)) << (64 - 8 * n) == 0;
}

static inline bool
om_short_eq(const void *a_, const void *b_, size_t n)
{
	const uint8_t *a = a_, *b = b_;

	if (n < 8) {
		return om_short_tail(a, n) == om_short_tail(b, n);
	}
	if (n > 16 && ((om_short_8(a + 8) ^ om_short_8(b + 8)) |
		       (om_short_8(a + n - 16) ^ om_short_8(b + n - 16))) != 0) {
		return false;
	}
	return ((om_short_8(a) ^ om_short_8(b)) |
		(om_short_8(a + n - 8) ^ om_short_8(b + n - 8))) == 0;
}

static inline bool
om_short_is_ascii(const void *at_, size_t n)
{
	const uint8_t *at = at_;
	uint64_t bits;

	if (n < 8) {
		bits = om_short_tail(at, n);
	} else {
		bits = om_short_8(at) | om_short_8(at + n - 8);
		if (n > 16) {
			bits |= om_short_8(at + 8) | om_short_8(at + n - 16);
		}
	}
	return (bits & UINT64_C(0x8080808080808080)) == 0;
}

/* Not overlapping. */
static inline void
om_short_copy(void *to_, const void *from_, size_t n)
{
	const uint8_t *from = from_;
	uint8_t *to = to_;

	if (n >= 8) {
		if (n > 16) {
			memcpy(to + 8, from + 8, 8);
			memcpy(to + n - 16, from + n - 16, 8);
		}
		memcpy(to, from, 8);
		memcpy(to + n - 8, from + n - 8, 8);
	} else if (n >= 4) {
		memcpy(to, from, 4);
		memcpy(to + n - 4, from + n - 4, 4);
	} else if (n > 0) {
		to[0] = from[0];
		to[n / 2] = from[n / 2];
		to[n - 1] = from[n - 1];
	}
}

/* Of any length, when most are short. */
static inline void
om_short_copy_any(void *to, const void *from, size_t n)
{
	if (n <= OM_SHORT_MAX) {
		om_short_copy(to, from, n);
	} else {
		memcpy(to, from, n);
	}
}

#endif /* OM_BASE_SHORT_H */
