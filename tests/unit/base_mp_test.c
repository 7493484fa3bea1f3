/* SPDX-License-Identifier: ISC */
/*
 * The bounded reader against hostile bytes, and against msgpack-c: what its packer writes must read
 * back the same, and what our writers write its unpacker must understand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "base/mp.h"
#include "tests/unit/base_mp_readers.h"

/* A copy that ends where the allocation ends: one byte too many is an ASan report. */
static uint8_t *
exact_copy(const void *data, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);

	assert_non_null(copy);
	if (len > 0) {
		memcpy(copy, data, len);
	}
	return copy;
}

/* Every reader on the same bytes, the skip too: it must fail without moving, or move within the input. */
static void
read_every_way(const uint8_t *data, size_t len)
{
	struct om_mp mp, at;

	om_mp_init(&at, data, len);
	mp_read_every_way(at);
	mp = at;
	if (om_mp_skip(&mp) != OM_OK) {
		assert_ptr_equal(mp.at, at.at);
	} else {
		assert_true(mp.at > at.at && mp.at <= mp.end);
	}
	(void)om_mp_peek(&at);
}

static void
test_every_first_byte_and_length(void **state)
{
	uint8_t bytes[12];

	(void)state;
	for (unsigned first = 0; first < 256; first++) {
		for (unsigned fill = 0; fill < 256; fill += 51) {
			memset(bytes, (int)fill, sizeof(bytes));
			bytes[0] = (uint8_t)first;
			for (size_t len = 0; len <= sizeof(bytes); len++) {
				uint8_t *copy = exact_copy(bytes, len);

				read_every_way(copy, len);
				free(copy);
			}
		}
	}
}

static void
test_declared_length_beyond_input(void **state)
{
	/* The five bytes that make msgpack-c ask for 96 GiB, and their relatives. */
	static const uint8_t cases[][5] = {
		{ 0xdd, 0xff, 0xff, 0xff, 0xff }, { 0xdf, 0xff, 0xff, 0xff, 0xff },
		{ 0xdb, 0xff, 0xff, 0xff, 0xff }, { 0xc6, 0xff, 0xff, 0xff, 0xff },
		{ 0xc9, 0xff, 0xff, 0xff, 0xff }, { 0xdc, 0xff, 0xff, 0x01, 0x02 },
		{ 0xdf, 0x80, 0x00, 0x00, 0x00 }, { 0x92, 0xdc, 0xff, 0xff, 0x01 },
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		uint8_t *copy = exact_copy(cases[i], sizeof(cases[i]));
		struct om_mp mp;

		om_mp_init(&mp, copy, sizeof(cases[i]));
		assert_int_equal(om_mp_skip(&mp), OM_ERR_INVALID);
		assert_ptr_equal(mp.at, copy);
		free(copy);
	}
}

static void
test_depth_is_bounded(void **state)
{
	uint8_t nested[100000];
	struct om_mp mp;

	(void)state;
	memset(nested, 0x91, sizeof(nested));
	om_mp_init(&mp, nested, sizeof(nested));
	assert_int_equal(om_mp_skip(&mp), OM_ERR_TOO_BIG);

	nested[OM_MP_DEPTH_MAX] = 0xc0;
	assert_int_equal(om_mp_check(nested, OM_MP_DEPTH_MAX + 1), OM_OK);
	nested[OM_MP_DEPTH_MAX] = 0x91;
	nested[OM_MP_DEPTH_MAX + 1] = 0xc0;
	assert_int_equal(om_mp_check(nested, OM_MP_DEPTH_MAX + 2), OM_ERR_TOO_BIG);
	/* An empty container at the deepest level counts as a level, too. */
	nested[OM_MP_DEPTH_MAX] = 0x90;
	assert_int_equal(om_mp_check(nested, OM_MP_DEPTH_MAX + 1), OM_ERR_TOO_BIG);
}

static void
test_check_wants_exactly_one_value(void **state)
{
	(void)state;
	assert_int_equal(om_mp_check("", 0), OM_ERR_INVALID);
	assert_int_equal(om_mp_check("\xc0", 1), OM_OK);
	assert_int_equal(om_mp_check("\xc0\xc0", 2), OM_ERR_INVALID);
	assert_int_equal(om_mp_check("\x82\xa1"
				     "a\x01\xa1"
				     "b\x91\x90",
				     8),
			 OM_OK);
	assert_int_equal(om_mp_check("\xc1", 1), OM_ERR_INVALID);
}

static void
test_numbers_do_not_wrap(void **state)
{
	struct om_buf buf = { .max = 0 };
	struct om_mp mp;
	uint64_t u = 7;
	int64_t i = 7;
	double f = 7;

	(void)state;
	om_mp_put_u64(&buf, UINT64_MAX);
	om_mp_put_i64(&buf, INT64_MIN);
	assert_false(buf.failed);
	om_mp_init(&mp, buf.data, buf.len);
	assert_int_equal(om_mp_i64(&mp, &i), OM_ERR_INVALID); /* 2^64 - 1 is no int64 */
	assert_int_equal(i, 7);
	assert_int_equal(om_mp_u64(&mp, &u), OM_OK);
	assert_true(u == UINT64_MAX);
	assert_int_equal(om_mp_u64(&mp, &u), OM_ERR_INVALID); /* negative */
	assert_int_equal(om_mp_i64(&mp, &i), OM_OK);
	assert_true(i == INT64_MIN);
	/* A signed format with a non-negative value is a non-negative integer. */
	om_mp_init(&mp, "\xd0\x05\xd3\x00\x00\x00\x00\x00\x00\x01\x00\xd0\xff", 13);
	assert_int_equal(om_mp_peek(&mp), OM_MP_UINT);
	assert_int_equal(om_mp_u64(&mp, &u), OM_OK);
	assert_int_equal(u, 5);
	assert_int_equal(om_mp_f64(&mp, &f), OM_OK);
	assert_true(f == 256.0);
	assert_int_equal(om_mp_peek(&mp), OM_MP_INT);
	assert_int_equal(om_mp_u64(&mp, &u), OM_ERR_INVALID);
	assert_int_equal(om_mp_f64(&mp, &f), OM_OK);
	assert_true(f == -1.0);
	assert_true(om_mp_done(&mp));
	om_buf_fini(&buf);
}

static void
test_strings_are_utf8_and_binaries_are_not(void **state)
{
	struct om_mp mp;
	struct om_str s;
	struct om_bin b;

	(void)state;
	om_mp_init(&mp, "\xa2\xc0\x80", 3); /* an overlong NUL */
	assert_int_equal(om_mp_peek(&mp), OM_MP_STR);
	assert_int_equal(om_mp_str(&mp, &s), OM_ERR_INVALID);
	assert_int_equal(om_mp_bin(&mp, &b), OM_OK);
	assert_int_equal(b.len, 2);
	om_mp_init(&mp, "\xc4\x02zz", 4);
	assert_int_equal(om_mp_str(&mp, &s), OM_ERR_INVALID); /* a bin is no str */
	assert_int_equal(om_mp_bin(&mp, &b), OM_OK);
	assert_true(om_mp_done(&mp));
}

static void
test_key_is_compared_in_place(void **state)
{
	static const char input[] = "\xa3"
				    "abc"
				    "\xd9\x03"
				    "abc";
	static const char abc[8] = "abc", abd[8] = "abd", ab[8] = "ab", abcd[8] = "abcd";
	struct om_mp mp;

	(void)state;
	om_mp_init(&mp, input, sizeof(input) - 1);
	assert_false(om_mp_key(&mp, abd, 3));
	assert_false(om_mp_key(&mp, ab, 2));
	assert_false(om_mp_key(&mp, abcd, 4));
	assert_ptr_equal(mp.at, input);
	assert_true(om_mp_key(&mp, abc, 3));
	/* A longer form than needed is valid, but left to om_mp_str. */
	assert_false(om_mp_key(&mp, abc, 3));
	for (size_t len = 0; len < 4; len++) { /* cut off */
		uint8_t *copy = exact_copy(input, len);

		om_mp_init(&mp, copy, len);
		assert_false(om_mp_key(&mp, abc, 3));
		free(copy);
	}
}

/* Near the input's end and far from it. */
static void
test_keys_of_every_length(void **state)
{
	static const char key[] = "abcdefghijklmnopqrstuvwxyz12345";

	(void)state;
	for (size_t len = 1; len < sizeof(key); len++) {
		for (size_t behind = 0; behind < 10; behind++) {
			char other[sizeof(key)];
			uint8_t bytes[64] = { (uint8_t)(0xa0 | len) };
			uint8_t *copy;
			struct om_mp mp;

			memcpy(bytes + 1, key, len);
			copy = exact_copy(bytes, 1 + len + behind);
			om_mp_init(&mp, copy, 1 + len + behind);
			for (size_t i = 0; i < len; i++) {
				memcpy(other, key, sizeof(key));
				other[i] ^= 1;
				assert_false(om_mp_key(&mp, other, len));
			}
			assert_ptr_equal(mp.at, copy);
			assert_true(om_mp_key(&mp, key, len));
			assert_ptr_equal(mp.at, copy + 1 + len);
			free(copy);
		}
	}
}

/* --- against msgpack-c ------------------------------------------------------------------------ */

static uint64_t
rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Values around every border between two formats. */
static uint64_t
rnd_u64(uint64_t *s)
{
	unsigned bits = (unsigned)(rnd(s) % 65);
	uint64_t v = bits == 0 ? 0 : rnd(s) >> (64 - bits);

	return rnd(s) % 4 == 0 ? (bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - rnd(s) % 2) : v;
}

/* Writes one random value with msgpack-c and reads it with ours at once, level by level. */
static void
pack_random(msgpack_packer *pk, uint64_t *s, unsigned depth)
{
	static const char text[70000] = { 'x' };
	static const size_t sizes[] = { 0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536 };
	size_t size = sizes[rnd(s) % OM_COUNT(sizes)];
	size_t count = rnd(s) % 20;

	switch (rnd(s) % (depth < 4 ? 10 : 8)) {
	case 0:
		msgpack_pack_nil(pk);
		break;
	case 1:
		rnd(s) & 1 ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
		break;
	case 2:
		msgpack_pack_uint64(pk, rnd_u64(s));
		break;
	case 3:
		msgpack_pack_int64(pk, (int64_t)rnd_u64(s));
		break;
	case 4:
		msgpack_pack_double(pk, (double)rnd(s) / 3);
		break;
	case 5:
		msgpack_pack_str(pk, size);
		msgpack_pack_str_body(pk, text, size);
		break;
	case 6:
		msgpack_pack_bin(pk, size);
		msgpack_pack_bin_body(pk, text, size);
		break;
	case 7:
		msgpack_pack_ext(pk, size, 1);
		msgpack_pack_ext_body(pk, text, size);
		break;
	case 8:
		msgpack_pack_array(pk, count);
		for (size_t i = 0; i < count; i++) {
			pack_random(pk, s, depth + 1);
		}
		break;
	default:
		msgpack_pack_map(pk, count);
		for (size_t i = 0; i < 2 * count; i++) {
			pack_random(pk, s, depth + 1);
		}
	}
}

static void compare(struct om_mp *mp, const msgpack_object *o);

static void
compare_container(struct om_mp *mp, const msgpack_object *o)
{
	size_t n;

	if (o->type == MSGPACK_OBJECT_ARRAY) {
		assert_int_equal(om_mp_array(mp, &n), OM_OK);
		assert_int_equal(n, o->via.array.size);
		for (size_t i = 0; i < n; i++) {
			compare(mp, &o->via.array.ptr[i]);
		}
		return;
	}
	assert_int_equal(o->type, MSGPACK_OBJECT_MAP);
	assert_int_equal(om_mp_map(mp, &n), OM_OK);
	assert_int_equal(n, o->via.map.size);
	for (size_t i = 0; i < n; i++) {
		compare(mp, &o->via.map.ptr[i].key);
		compare(mp, &o->via.map.ptr[i].val);
	}
}

/* Reads with ours what msgpack-c's unpacker made of the same bytes. */
static void
compare(struct om_mp *mp, const msgpack_object *o)
{
	struct om_str s;
	struct om_bin b;
	uint64_t u;
	int64_t i;
	double f;
	bool t;

	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		assert_int_equal(om_mp_nil(mp), OM_OK);
		break;
	case MSGPACK_OBJECT_BOOLEAN:
		assert_int_equal(om_mp_bool(mp, &t), OM_OK);
		assert_int_equal(t, o->via.boolean);
		break;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		assert_int_equal(om_mp_u64(mp, &u), OM_OK);
		assert_true(u == o->via.u64);
		break;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		assert_int_equal(om_mp_i64(mp, &i), OM_OK);
		assert_true(i == o->via.i64);
		break;
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		assert_int_equal(om_mp_peek(mp), OM_MP_FLOAT);
		assert_int_equal(om_mp_f64(mp, &f), OM_OK);
		assert_true(f == o->via.f64 || (isnan(f) && isnan(o->via.f64)));
		break;
	case MSGPACK_OBJECT_STR:
		assert_int_equal(om_mp_str(mp, &s), OM_OK);
		assert_int_equal(s.len, o->via.str.size);
		assert_memory_equal(s.ptr, o->via.str.ptr, s.len);
		break;
	case MSGPACK_OBJECT_BIN:
		assert_int_equal(om_mp_peek(mp), OM_MP_BIN);
		assert_int_equal(om_mp_bin(mp, &b), OM_OK);
		assert_int_equal(b.len, o->via.bin.size);
		break;
	case MSGPACK_OBJECT_EXT:
		assert_int_equal(om_mp_peek(mp), OM_MP_EXT);
		assert_int_equal(om_mp_skip(mp), OM_OK);
		break;
	default:
		compare_container(mp, o);
	}
}

static void
test_same_as_msgpack_c(void **state)
{
	uint64_t seed = 0x9e3779b97f4a7c15;

	(void)state;
	for (int round = 0; round < 300; round++) {
		msgpack_sbuffer sbuf;
		msgpack_packer pk;
		msgpack_unpacked un;
		struct om_mp mp;
		uint8_t *copy;
		size_t off = 0;

		msgpack_sbuffer_init(&sbuf);
		msgpack_packer_init(&pk, &sbuf, msgpack_sbuffer_write);
		pack_random(&pk, &seed, 0);
		copy = exact_copy(sbuf.data, sbuf.size);
		msgpack_unpacked_init(&un);
		assert_int_equal(msgpack_unpack_next(&un, (char *)copy, sbuf.size, &off),
				 MSGPACK_UNPACK_SUCCESS);
		om_mp_init(&mp, copy, sbuf.size);
		compare(&mp, &un.data);
		assert_true(om_mp_done(&mp));
		assert_int_equal(om_mp_check(copy, sbuf.size), OM_OK);
		/* Cut off anywhere, it is refused (sampled: the value may be megabytes). */
		for (size_t len = 0; len < sbuf.size; len += 1 + sbuf.size / 50) {
			assert_int_equal(om_mp_check(copy, len), OM_ERR_INVALID);
		}
		msgpack_unpacked_destroy(&un);
		msgpack_sbuffer_destroy(&sbuf);
		free(copy);
	}
}

static void
test_our_writers_write_what_msgpack_c_writes(void **state)
{
	uint64_t seed = 42;
	struct om_buf buf = { .max = 0 };
	msgpack_sbuffer sbuf;
	msgpack_packer pk;

	(void)state;
	msgpack_sbuffer_init(&sbuf);
	msgpack_packer_init(&pk, &sbuf, msgpack_sbuffer_write);
	for (int i = 0; i < 2000; i++) {
		uint64_t v = rnd_u64(&seed);

		om_mp_put_u64(&buf, v);
		msgpack_pack_uint64(&pk, v);
		om_mp_put_i64(&buf, (int64_t)v);
		msgpack_pack_int64(&pk, (int64_t)v);
		om_mp_put_f64(&buf, (double)v);
		msgpack_pack_double(&pk, (double)v);
		om_mp_put_bool(&buf, v & 1);
		v & 1 ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk);
		om_mp_put_str(&buf, (struct om_str){ "abcdefgh", v % 9 });
		msgpack_pack_str(&pk, v % 9);
		msgpack_pack_str_body(&pk, "abcdefgh", v % 9);
		om_mp_put_bin(&buf, (struct om_bin){ (const uint8_t *)"abcdefgh", v % 9 });
		msgpack_pack_bin(&pk, v % 9);
		msgpack_pack_bin_body(&pk, "abcdefgh", v % 9);
		om_mp_put_array(&buf, v % 100000);
		msgpack_pack_array(&pk, v % 100000);
		om_mp_put_map(&buf, v % 100000);
		msgpack_pack_map(&pk, v % 100000);
		om_mp_put_array(&buf, v % 20);
		msgpack_pack_array(&pk, v % 20);
		om_mp_put_map(&buf, v % 20);
		msgpack_pack_map(&pk, v % 20);
		om_mp_put_nil(&buf);
		msgpack_pack_nil(&pk);
	}
	assert_false(buf.failed);
	assert_int_equal(buf.len, sbuf.size);
	assert_memory_equal(buf.data, sbuf.data, sbuf.size);
	msgpack_sbuffer_destroy(&sbuf);
	om_buf_fini(&buf);
}

static void
test_writers_respect_the_buffers_limit(void **state)
{
	struct om_buf buf = { .max = 8 };

	(void)state;
	om_mp_put_cstr(&buf, "12345");
	assert_false(buf.failed);
	om_mp_put_cstr(&buf, "6789");
	assert_true(buf.failed);
	assert_int_equal(buf.len, 6);
	om_buf_reset(&buf);
	om_mp_put_bin(&buf, (struct om_bin){ (const uint8_t *)"12345678", 8 });
	assert_true(buf.failed);
	assert_int_equal(buf.len, 0); /* no head without its body */
	om_buf_reset(&buf);
	om_mp_put_u64(&buf, 7);
	om_mp_put_u64(&buf, UINT32_MAX);
	om_mp_put_array(&buf, 3);
	om_mp_put_map(&buf, 3);
	assert_false(buf.failed);
	om_mp_put_map(&buf, 3);
	assert_true(buf.failed);
	assert_int_equal(buf.len, 8);
	om_buf_reset(&buf);
	om_mp_put_array(&buf, (size_t)UINT32_MAX + 1);
	assert_true(buf.failed);
	om_buf_reset(&buf);
	om_mp_put_map(&buf, (size_t)UINT32_MAX + 1);
	assert_true(buf.failed);
	om_buf_fini(&buf);
}

static void
test_random_bytes(void **state)
{
	uint64_t seed = 7;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t len = rnd(&seed) % 40;
		uint8_t bytes[40];
		uint8_t *copy;

		for (size_t i = 0; i < len; i++) {
			/* Mostly heads of containers and strings: the interesting ones. */
			bytes[i] =
			    (uint8_t)(rnd(&seed) % 3 ? 0x80 + rnd(&seed) % 0x80 : rnd(&seed));
		}
		copy = exact_copy(bytes, len);
		read_every_way(copy, len);
		free(copy);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_first_byte_and_length),
		cmocka_unit_test(test_declared_length_beyond_input),
		cmocka_unit_test(test_depth_is_bounded),
		cmocka_unit_test(test_check_wants_exactly_one_value),
		cmocka_unit_test(test_numbers_do_not_wrap),
		cmocka_unit_test(test_strings_are_utf8_and_binaries_are_not),
		cmocka_unit_test(test_key_is_compared_in_place),
		cmocka_unit_test(test_keys_of_every_length),
		cmocka_unit_test(test_same_as_msgpack_c),
		cmocka_unit_test(test_our_writers_write_what_msgpack_c_writes),
		cmocka_unit_test(test_writers_respect_the_buffers_limit),
		cmocka_unit_test(test_random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
