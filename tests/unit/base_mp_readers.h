/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_BASE_MP_READERS_H
#define OM_TESTS_BASE_MP_READERS_H

/* For the unit test of base/mp and its fuzzer. */
#include "base/assert.h"
#include "base/mp.h"

/* Every reader at this place: it fails and stays, or moves forward and stays inside. */
static inline void
mp_read_every_way(struct om_mp at)
{
	struct om_mp mp;
	struct om_str s;
	struct om_bin b;
	uint64_t u;
	int64_t i;
	double f;
	bool t;
	size_t n;

#define TRY(call)                                                    \
	do {                                                         \
		mp = at;                                             \
		if ((call) == OM_OK) {                               \
			OM_ASSERT(mp.at > at.at && mp.at <= mp.end); \
		} else {                                             \
			OM_ASSERT(mp.at == at.at);                   \
		}                                                    \
	} while (0)
	TRY(om_mp_u64(&mp, &u));
	TRY(om_mp_i64(&mp, &i));
	TRY(om_mp_f64(&mp, &f));
	TRY(om_mp_bool(&mp, &t));
	TRY(om_mp_nil(&mp));
	TRY(om_mp_str(&mp, &s));
	TRY(om_mp_bin(&mp, &b));
	TRY(om_mp_array(&mp, &n));
	TRY(om_mp_map(&mp, &n));
#undef TRY
}

#endif /* OM_TESTS_BASE_MP_READERS_H */
