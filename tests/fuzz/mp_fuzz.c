/* SPDX-License-Identifier: ISC */
/*
 * The msgpack cursor on any bytes.  What it accepts, msgpack-c must accept too and read the same;
 * what it refuses never reaches msgpack-c, which allocates by declared length.
 */
#include <math.h>
#include <msgpack.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mp.h"
#include "base/parse.h"
#include "tests/unit/base_mp_readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(struct om_mp *mp, const msgpack_object *o);

static void
compare_bytes(struct om_mp *mp, const msgpack_object *o)
{
	struct om_bin b;

	if (o->type == MSGPACK_OBJECT_EXT) {
		OM_ASSERT(om_mp_peek(mp) == OM_MP_EXT && om_mp_skip(mp) == OM_OK);
		return;
	}
	if (o->type == MSGPACK_OBJECT_STR) {
		struct om_str s = { o->via.str.ptr, o->via.str.size };
		struct om_mp copy = *mp;

		OM_ASSERT((om_mp_str(&copy, &s) == OM_OK) == om_utf8_valid(s));
		OM_ASSERT(om_mp_bin(mp, &b) == OM_OK && b.len == o->via.str.size);
		OM_ASSERT(b.len == 0 || memcmp(b.ptr, o->via.str.ptr, b.len) == 0);
		return;
	}
	OM_ASSERT(o->type == MSGPACK_OBJECT_BIN && om_mp_peek(mp) == OM_MP_BIN);
	OM_ASSERT(om_mp_bin(mp, &b) == OM_OK && b.len == o->via.bin.size);
	OM_ASSERT(b.len == 0 || memcmp(b.ptr, o->via.bin.ptr, b.len) == 0);
}

static void
compare_container(struct om_mp *mp, const msgpack_object *o)
{
	size_t n;

	if (o->type == MSGPACK_OBJECT_ARRAY) {
		OM_ASSERT(om_mp_array(mp, &n) == OM_OK && n == o->via.array.size);
		for (size_t i = 0; i < n; i++) {
			compare(mp, &o->via.array.ptr[i]);
		}
		return;
	}
	OM_ASSERT(om_mp_map(mp, &n) == OM_OK && n == o->via.map.size);
	for (size_t i = 0; i < n; i++) {
		compare(mp, &o->via.map.ptr[i].key);
		compare(mp, &o->via.map.ptr[i].val);
	}
}

static void
compare(struct om_mp *mp, const msgpack_object *o)
{
	uint64_t u;
	int64_t i;
	double f;
	bool t;

	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		OM_ASSERT(om_mp_nil(mp) == OM_OK);
		break;
	case MSGPACK_OBJECT_BOOLEAN:
		OM_ASSERT(om_mp_bool(mp, &t) == OM_OK && t == o->via.boolean);
		break;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		OM_ASSERT(om_mp_u64(mp, &u) == OM_OK && u == o->via.u64);
		break;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		OM_ASSERT(om_mp_i64(mp, &i) == OM_OK && i == o->via.i64);
		break;
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		OM_ASSERT(om_mp_peek(mp) == OM_MP_FLOAT && om_mp_f64(mp, &f) == OM_OK);
		OM_ASSERT(f == o->via.f64 || (isnan(f) && isnan(o->via.f64)));
		break;
	case MSGPACK_OBJECT_ARRAY:
	case MSGPACK_OBJECT_MAP:
		compare_container(mp, o);
		break;
	default:
		compare_bytes(mp, o);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	msgpack_unpacked un;
	struct om_mp mp;
	size_t off = 0;

	om_mp_init(&mp, data, size);
	while (!om_mp_done(&mp)) {
		const uint8_t *from = mp.at;

		mp_read_every_way(mp);
		if (om_mp_skip(&mp) != OM_OK) {
			return 0;
		}
		OM_ASSERT(om_mp_check(from, (size_t)(mp.at - from)) == OM_OK);
	}
	om_mp_init(&mp, data, size);
	msgpack_unpacked_init(&un);
	while (off < size) {
		OM_ASSERT(msgpack_unpack_next(&un, (const char *)data, size, &off) ==
			  MSGPACK_UNPACK_SUCCESS);
		compare(&mp, &un.data);
		OM_ASSERT((size_t)(mp.at - data) == off);
	}
	msgpack_unpacked_destroy(&un);
	return 0;
}
