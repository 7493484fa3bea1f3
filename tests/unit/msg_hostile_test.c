/* SPDX-License-Identifier: ISC */
/*
 * Hostile input for every body of the table, made from good input: cut off, bits turned, fields
 * doubled, unknown, missing, of a wrong kind, over their limit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msg/codec.h"
#include "tests/unit/msg_fix.h"

static void
test_cut_off_at_every_byte(void **state)
{
	struct fix *fx = fix_new(3);

	(void)state;
	for (int body = 0; body < OM_BODY_COUNT; body++) {
		encode_random(fx, (enum om_body_type)body, true);
		for (size_t len = 0; len < fx->buf.len; len++) {
			assert_int_equal(decode(fx, (enum om_body_type)body, fx->buf.data, len),
					 OM_ERR_INVALID);
		}
		/* And one byte too many. */
		om_mp_put_nil(&fx->buf);
		assert_int_equal(decode(fx, (enum om_body_type)body, fx->buf.data, fx->buf.len),
				 OM_ERR_INVALID);
	}
	fix_free(fx);
}

static void
test_every_bit_turned(void **state)
{
	struct fix *fx = fix_new(4);
	struct om_buf first = { .max = 0 };
	size_t refused = 0;

	(void)state;
	for (int b = 0; b < OM_BODY_COUNT; b++) {
		enum om_body_type body = (enum om_body_type)b;

		encode_random(fx, body, false);
		for (size_t bit = 0; bit < fx->buf.len * 8; bit++) {
			fx->buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
			if (decode(fx, body, fx->buf.data, fx->buf.len) == OM_OK) {
				/* Accepted: then what it encodes to means the same again. */
				om_buf_reset(&first);
				om_buf_add(&first, fx->again.data, fx->again.len);
				assert_int_equal(decode(fx, body, first.data, first.len), OM_OK);
				assert_int_equal(fx->again.len, first.len);
				assert_memory_equal(fx->again.data, first.data, first.len);
			} else {
				refused++;
			}
			fx->buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	assert_true(refused > 1000);
	om_buf_fini(&first);
	fix_free(fx);
}

/* --- one field changed ------------------------------------------------------------------------ */

typedef void (*each_fn)(struct fix *fx, enum om_body_type body, const struct entry *entries,
			size_t n, struct om_buf *changed);

static void
each_body(each_fn fn)
{
	struct fix *fx = fix_new(5);
	struct om_buf changed = { .max = 0 };
	struct entry entries[64];

	for (int body = 0; body < OM_BODY_COUNT; body++) {
		size_t n;

		encode_random(fx, (enum om_body_type)body, true);
		n = split(&fx->buf, entries);
		assert_int_equal(n, om_body_info((enum om_body_type)body)->field_count);
		fn(fx, (enum om_body_type)body, entries, n, &changed);
	}
	om_buf_fini(&changed);
	fix_free(fx);
}

static void
without_each(struct fix *fx, enum om_body_type body, const struct entry *entries, size_t n,
	     struct om_buf *changed)
{
	const struct om_body_info *info = om_body_info(body);

	for (size_t i = 0; i < n; i++) {
		enum om_err err;

		join(changed, entries, n, i, NULL);
		err = decode(fx, body, changed->data, changed->len);
		if (info->fields[i].required) {
			assert_int_equal(err, OM_ERR_INVALID);
			assert_names(fx, info->fields[i].name);
			assert_names(fx, "missing");
		} else {
			assert_int_equal(err, OM_OK);
		}
	}
}

static void
doubled_each(struct fix *fx, enum om_body_type body, const struct entry *entries, size_t n,
	     struct om_buf *changed)
{
	for (size_t i = 0; i < n; i++) {
		join(changed, entries, n, n, &entries[i]);
		assert_int_equal(decode(fx, body, changed->data, changed->len), OM_ERR_INVALID);
		assert_names(fx, om_body_info(body)->fields[i].name);
		assert_names(fx, "twice");
	}
}

static void
unknown_added(struct fix *fx, enum om_body_type body, const struct entry *entries, size_t n,
	      struct om_buf *changed)
{
	const struct om_bin one = { (const uint8_t *)"\x01", 1 };
	const struct entry extra[] = { { OM_STR("nonsense"), one },
				       { OM_STR(""), one },
				       { OM_STR("has"), one },
				       { OM_STR("job\0"), one } };

	for (size_t i = 0; i < OM_COUNT(extra); i++) {
		join(changed, entries, n, n, &extra[i]);
		assert_int_equal(decode(fx, body, changed->data, changed->len),
				 OM_ERR_UNKNOWN_FIELD);
		assert_names(fx, i == 0 ? "nonsense" : "unknown field");
	}
}

static void
test_one_field_missing(void **state)
{
	(void)state;
	each_body(without_each);
}

static void
test_one_field_twice(void **state)
{
	(void)state;
	each_body(doubled_each);
}

static void
test_one_field_unknown(void **state)
{
	(void)state;
	each_body(unknown_added);
}

/* Which wire kinds each kind of field takes. */
static bool
takes(enum om_kind kind, enum om_mp_kind wire)
{
	switch (kind) {
	case OM_KIND_U64:
		return wire == OM_MP_UINT;
	case OM_KIND_I64:
		return wire == OM_MP_UINT || wire == OM_MP_INT;
	case OM_KIND_F64:
		return wire == OM_MP_UINT || wire == OM_MP_INT || wire == OM_MP_FLOAT;
	case OM_KIND_BOOL:
		return wire == OM_MP_BOOL;
	case OM_KIND_STR:
		return wire == OM_MP_STR;
	case OM_KIND_BIN:
		return wire == OM_MP_STR || wire == OM_MP_BIN;
	case OM_KIND_RAW:
		return true;
	case OM_KIND_STRS:
	case OM_KIND_OBJS:
		return wire == OM_MP_ARRAY;
	case OM_KIND_MAP:
	case OM_KIND_OBJ:
		return wire == OM_MP_MAP;
	}
	return false;
}

static void
of_each_kind(struct fix *fx, enum om_body_type body, const struct entry *entries, size_t n,
	     struct om_buf *changed)
{
	/* The smallest value of each kind; an empty map is no OBJ with required fields. */
	static const struct {
		enum om_mp_kind kind;
		const char *bytes;
		size_t len;
	} values[] = {
		{ OM_MP_NIL, "\xc0", 1 },
		{ OM_MP_BOOL, "\xc3", 1 },
		{ OM_MP_UINT, "\x00", 1 },
		{ OM_MP_INT, "\xff", 1 },
		{ OM_MP_FLOAT, "\xca\x3f\x80\x00\x00", 5 },
		{ OM_MP_STR, "\xa1x", 2 },
		{ OM_MP_BIN, "\xc4\x01x", 3 },
		{ OM_MP_ARRAY, "\x90", 1 },
		{ OM_MP_MAP, "\x80", 1 },
		{ OM_MP_EXT, "\xd4\x01x", 3 },
		{ OM_MP_BAD, "\xc1", 1 },
	};

	for (size_t i = 0; i < n; i++) {
		const struct om_field_info *f = &om_body_info(body)->fields[i];

		for (size_t k = 0; k < OM_COUNT(values); k++) {
			struct entry other = {
				entries[i].key, { (const uint8_t *)values[k].bytes, values[k].len }
			};
			enum om_err err;

			join(changed, entries, n, i, &other);
			err = decode(fx, body, changed->data, changed->len);
			if (values[k].kind == OM_MP_BAD || !takes(f->kind, values[k].kind)) {
				assert_int_equal(err, OM_ERR_INVALID);
				assert_names(fx, f->name);
			} else if (f->kind != OM_KIND_OBJ) {
				assert_int_equal(err, OM_OK);
			}
		}
	}
}

static void
test_one_field_of_each_kind(void **state)
{
	(void)state;
	each_body(of_each_kind);
}

/* `count` over the limit by one, as the field's kind counts. */
static enum om_err
put_over_limit(const struct om_field_info *f, struct om_buf *out)
{
	size_t over = (size_t)f->limit + 1;

	switch (f->kind) {
	case OM_KIND_U64:
		if (f->limit == UINT64_MAX) {
			return OM_OK;
		}
		om_mp_put_u64(out, f->limit + 1);
		return OM_ERR_INVALID;
	case OM_KIND_STR:
	case OM_KIND_BIN:
	case OM_KIND_RAW: {
		char *text = malloc(over);

		assert_non_null(text);
		memset(text, 'x', over);
		om_mp_put_str(out, (struct om_str){ text, over });
		free(text);
		return OM_ERR_TOO_BIG;
	}
	case OM_KIND_STRS:
		om_mp_put_array(out, over);
		for (size_t i = 0; i < over; i++) {
			om_mp_put_cstr(out, "");
		}
		return OM_ERR_TOO_BIG;
	case OM_KIND_MAP:
		om_mp_put_map(out, over);
		for (size_t i = 0; i < over; i++) {
			char key[24];

			(void)snprintf(key, sizeof(key), "%zu", i);
			om_mp_put_cstr(out, key);
			om_mp_put_cstr(out, "");
		}
		return OM_ERR_TOO_BIG;
	case OM_KIND_OBJS:
		om_mp_put_array(out, over);
		for (size_t i = 0; i < over; i++) {
			om_mp_put_map(out, 0);
		}
		return OM_ERR_TOO_BIG;
	default:
		return OM_OK;
	}
}

static void
over_limit_each(struct fix *fx, enum om_body_type body, const struct entry *entries, size_t n,
		struct om_buf *changed)
{
	for (size_t i = 0; i < n; i++) {
		const struct om_field_info *f = &om_body_info(body)->fields[i];
		struct om_buf value = { .max = 0 };
		enum om_err wanted = put_over_limit(f, &value);

		if (wanted != OM_OK) {
			struct entry over = { entries[i].key, { value.data, value.len } };

			join(changed, entries, n, i, &over);
			assert_int_equal(decode(fx, body, changed->data, changed->len), wanted);
			assert_names(fx, f->name);
		}
		om_buf_fini(&value);
	}
}

static void
test_one_field_over_its_limit(void **state)
{
	(void)state;
	each_body(over_limit_each);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_off_at_every_byte),
		cmocka_unit_test(test_every_bit_turned),
		cmocka_unit_test(test_one_field_missing),
		cmocka_unit_test(test_one_field_twice),
		cmocka_unit_test(test_one_field_unknown),
		cmocka_unit_test(test_one_field_of_each_kind),
		cmocka_unit_test(test_one_field_over_its_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
