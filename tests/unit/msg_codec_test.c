/* SPDX-License-Identifier: ISC */
/*
 * The codec, over every message of the table: random values there and back, and hostile input made
 * from good input (cut off, bits turned, fields doubled, unknown, missing, of a wrong kind, over
 * their limit).
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
#include "tests/unit/msg_gen.h"

#define ROUNDS 20

struct fix {
	struct om_arena gen_arena;
	struct om_arena arena; /* the decoder's */
	struct om_buf buf;
	struct om_buf again;
	struct om_why why;
	struct gen gen;
	uint64_t storage[256];
};

static struct fix *
fix_new(uint64_t seed)
{
	struct fix *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->gen = (struct gen){ .seed = seed, .arena = &fx->gen_arena };
	return fx;
}

static void
fix_free(struct fix *fx)
{
	om_arena_fini(&fx->gen_arena);
	om_arena_fini(&fx->arena);
	om_buf_fini(&fx->buf);
	om_buf_fini(&fx->again);
	free(fx);
}

/* Decodes from an allocation that ends where the input ends (an ASan red zone lies behind). */
static enum om_err
decode(struct fix *fx, enum om_body_type body, const void *data, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	struct om_bin in = { copy, len };
	enum om_err err;

	assert_non_null(copy);
	memcpy(copy, data, len);
	om_arena_reset(&fx->arena);
	assert_true(om_body_info(body)->size <= sizeof(fx->storage));
	memset(fx->storage, 0, sizeof(fx->storage));
	fx->why.text[0] = '\0';
	err = om_body_decode(body, in, fx->storage, &fx->arena, &fx->why);
	if (err == OM_OK) {
		/* What was decoded encodes again, while the input is there. */
		om_buf_reset(&fx->again);
		assert_int_equal(om_body_encode(body, fx->storage, &fx->again), OM_OK);
	} else {
		assert_true(strlen(fx->why.text) > 0);
	}
	free(copy);
	return err;
}

/* A random body of the type, encoded in fx->buf. */
static void
encode_random(struct fix *fx, enum om_body_type body, bool full)
{
	void *in;

	om_arena_reset(&fx->gen_arena);
	fx->gen.full = full;
	in = gen_alloc(&fx->gen, om_body_info(body)->size);
	gen_body(&fx->gen, body, in);
	om_buf_reset(&fx->buf);
	assert_int_equal(om_body_encode(body, in, &fx->buf), OM_OK);
}

static void
test_round_trip(void **state)
{
	struct fix *fx = fix_new(1);

	(void)state;
	for (int body = 0; body < OM_BODY_COUNT; body++) {
		for (int round = 0; round < ROUNDS; round++) {
			encode_random(fx, (enum om_body_type)body, round % 2);
			assert_int_equal(
			    decode(fx, (enum om_body_type)body, fx->buf.data, fx->buf.len), OM_OK);
			assert_int_equal(fx->again.len, fx->buf.len);
			assert_memory_equal(fx->again.data, fx->buf.data, fx->buf.len);
		}
	}
	fix_free(fx);
}

/* The generic comparison above trusts the encoder; here each kind is looked at by hand. */
static void
test_values_arrive(void **state)
{
	struct om_file files[2] = {
		{ .name = OM_STR("a.txt"), .data = { (const uint8_t *)"x", 1 } },
		{ .name = OM_STR("b/c"), .data = { (const uint8_t *)"", 0 }, .mode = 0755 }
	};
	const struct om_str args[] = { OM_STR("one"), OM_STR("") };
	const struct om_pair env[] = { { OM_STR("K"), OM_STR("V") } };
	struct om_vpn_config vpn = { .private_key = OM_STR("k") };
	struct om_job_submit in = { .lang = OM_STR("sh") };
	const struct om_job_submit *out;
	struct om_job_info info = { .job = OM_STR("j"), .state = OM_STR("failed") };
	struct fix *fx = fix_new(2);

	(void)state;
	files[1].has = UINT64_C(1) << OM_FIELD_file_mode;
	OM_SET(&in, job_submit, script, ((struct om_bin){ (const uint8_t *)"\0\xff", 2 }));
	OM_SET(&in, job_submit, args, ((struct om_strs){ args, 2 }));
	OM_SET(&in, job_submit, env, ((struct om_pairs){ env, 1 }));
	OM_SET(&in, job_submit, files, ((struct om_file_list){ files, 2 }));
	OM_SET(&in, job_submit, cores, 2);
	OM_SET(&in, job_submit, gpu, true);
	OM_SET(&in, job_submit, vpn, &vpn);
	OM_SET(&in, job_submit, activity, OM_STR(""));
	assert_int_equal(om_body_encode(OM_BODY_job_submit, &in, &fx->buf), OM_OK);
	assert_int_equal(om_body_decode(OM_BODY_job_submit,
					(struct om_bin){ fx->buf.data, fx->buf.len }, fx->storage,
					&fx->arena, &fx->why),
			 OM_OK);
	out = (const struct om_job_submit *)(const void *)fx->storage;
	assert_true(om_str_is(out->lang, "sh"));
	assert_true(out->script.len == 2 && memcmp(out->script.ptr, "\0\xff", 2) == 0);
	assert_true(out->args.n == 2 && om_str_is(out->args.v[0], "one") &&
		    out->args.v[1].len == 0);
	assert_true(out->env.n == 1 && om_str_is(out->env.v[0].value, "V"));
	assert_true(out->files.n == 2 && om_str_is(out->files.v[1].name, "b/c"));
	assert_true(OM_HAS(&out->files.v[1], file, mode) && out->files.v[1].mode == 0755);
	assert_false(OM_HAS(&out->files.v[0], file, mode));
	assert_true(OM_HAS(out, job_submit, cores) && out->cores == 2 && out->gpu);
	assert_true(om_str_is(out->vpn->private_key, "k"));
	assert_true(OM_HAS(out, job_submit, activity) && out->activity.len == 0);
	assert_false(OM_HAS(out, job_submit, job));
	assert_int_equal(out->mem_mib, 0);

	OM_SET(&info, job_info, exit_code, -9);
	om_buf_reset(&fx->buf);
	assert_int_equal(om_body_encode(OM_BODY_job_info, &info, &fx->buf), OM_OK);
	assert_int_equal(decode(fx, OM_BODY_job_info, fx->buf.data, fx->buf.len), OM_OK);
	assert_int_equal(((const struct om_job_info *)(const void *)fx->storage)->exit_code, -9);
	fix_free(fx);
}

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

struct entry {
	struct om_str key;
	struct om_bin value; /* encoded */
};

static size_t
split(const struct om_buf *buf, struct entry entries[64])
{
	struct om_mp mp;
	size_t n;

	om_mp_init(&mp, buf->data, buf->len);
	assert_int_equal(om_mp_map(&mp, &n), OM_OK);
	for (size_t i = 0; i < n; i++) {
		const uint8_t *from;

		assert_int_equal(om_mp_str(&mp, &entries[i].key), OM_OK);
		from = mp.at;
		assert_int_equal(om_mp_skip(&mp), OM_OK);
		entries[i].value = (struct om_bin){ from, (size_t)(mp.at - from) };
	}
	return n;
}

/* The entries without number `skip`, then optionally one more. */
static void
join(struct om_buf *out, const struct entry *entries, size_t n, size_t skip,
     const struct entry *more)
{
	om_buf_reset(out);
	om_mp_put_map(out, n - (skip < n) + (more != NULL));
	for (size_t i = 0; i < n; i++) {
		if (i != skip) {
			om_mp_put_str(out, entries[i].key);
			om_buf_add(out, entries[i].value.ptr, entries[i].value.len);
		}
	}
	if (more != NULL) {
		om_mp_put_str(out, more->key);
		om_buf_add(out, more->value.ptr, more->value.len);
	}
	assert_false(out->failed);
}

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
assert_names(const struct fix *fx, const char *field)
{
	assert_non_null(strstr(fx->why.text, field));
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

/* --- single cases ----------------------------------------------------------------------------- */

static enum om_err
decode_text(struct fix *fx, enum om_body_type body, const char *bytes, size_t len)
{
	return decode(fx, body, bytes, len);
}
#define DECODE(body, literal) decode_text(fx, OM_BODY_##body, literal, sizeof(literal) - 1)

static void
test_words_of_errors(void **state)
{
	struct fix *fx = fix_new(6);

	(void)state;
	assert_int_equal(DECODE(queue_limits, "\x81\xa8max_jobz\x01"), OM_ERR_UNKNOWN_FIELD);
	assert_string_equal(fx->why.text, "unknown field \"max_jobz\"; did you mean \"max_jobs\"?");
	assert_int_equal(DECODE(queue_limits, "\x81\xa8max_jobs\xcd\xff\xff"), OM_ERR_INVALID);
	assert_string_equal(fx->why.text, "max_jobs: 65535 is over 10000");
	assert_int_equal(DECODE(queue_limits, "\x81\xa8max_jobs\xff"), OM_ERR_INVALID);
	assert_string_equal(fx->why.text, "max_jobs: wants a whole number, not negative");
	assert_int_equal(DECODE(queue_limits, "\x80"), OM_ERR_INVALID);
	assert_string_equal(fx->why.text, "\"max_jobs\" is missing");
	assert_int_equal(DECODE(job_table, "\x81\xa4jobs\x91\x81\xa4nope\x01"),
			 OM_ERR_UNKNOWN_FIELD);
	assert_string_equal(fx->why.text, "jobs[0]: unknown field \"nope\"");
	assert_int_equal(DECODE(daemon_status, "\x81\xa5queue\x81\xa6queued\xc0"), OM_ERR_INVALID);
	assert_string_equal(fx->why.text, "queue.queued: wants a whole number, not negative");
	assert_int_equal(DECODE(job_query, "\x81\xa6states\x92\xa1"
					   "a\xc0"),
			 OM_ERR_INVALID);
	assert_string_equal(fx->why.text, "states[1]: wants a string");
	assert_int_equal(DECODE(job_ref, "\x81\xa3job\xa2\xc3("), OM_ERR_INVALID);
	assert_string_equal(fx->why.text, "job: not valid UTF-8");
	/* Control bytes of a peer's key do not come back; a long key is cut at a character's end. */
	assert_int_equal(DECODE(empty, "\x81\xa3\x1b[m\x01"), OM_ERR_UNKNOWN_FIELD);
	assert_string_equal(fx->why.text, "unknown field \"?[m\"");
	assert_int_equal(DECODE(empty, "\x81\xd9\x32"
				       "1234567890123456789012345678901234567890123456\xe2\x82\xac"
				       "x\x01"),
			 OM_ERR_UNKNOWN_FIELD);
	assert_string_equal(
	    fx->why.text, "unknown field \"1234567890123456789012345678901234567890123456\" (cut)");
	fix_free(fx);
}

static void
test_maps_and_numbers(void **state)
{
	struct fix *fx = fix_new(7);

	(void)state;
	assert_int_equal(DECODE(error, "\x82\xa4"
				       "code\xa1x\xa7"
				       "details\x82\xa1k\xa1v\xa1k\xa1w"),
			 OM_ERR_INVALID);
	assert_names(fx, "a key appears twice");
	/* No body has a float that may be infinite or not a number. */
	for (int b = 0; b < OM_BODY_COUNT; b++) {
		const struct om_body_info *info = om_body_info((enum om_body_type)b);
		struct entry entries[64];

		encode_random(fx, (enum om_body_type)b, true);
		(void)split(&fx->buf, entries);
		for (size_t i = 0; i < info->field_count; i++) {
			struct entry odd = { entries[i].key,
					     { (const uint8_t *)"\xca\x7f\xc0\0\0", 5 } };
			struct om_buf changed = { .max = 0 };

			if (info->fields[i].kind == OM_KIND_F64) {
				join(&changed, entries, info->field_count, i, &odd);
				assert_int_equal(
				    decode(fx, (enum om_body_type)b, changed.data, changed.len),
				    OM_ERR_INVALID);
				assert_names(fx, "finite");
			}
			om_buf_fini(&changed);
		}
	}
	fix_free(fx);
}

static void
test_the_arena_bounds_memory(void **state)
{
	struct fix *fx = fix_new(8);

	(void)state;
	/* A thousand rows of one byte each would be 400 KiB of structs. */
	om_mp_put_map(&fx->buf, 1);
	om_mp_put_cstr(&fx->buf, "jobs");
	om_mp_put_array(&fx->buf, 1000);
	for (int i = 0; i < 1000; i++) {
		om_mp_put_map(&fx->buf, 0);
	}
	fx->arena.max = 100000;
	assert_int_equal(decode(fx, OM_BODY_job_table, fx->buf.data, fx->buf.len), OM_ERR_NOMEM);
	assert_names(fx, "jobs");
	fx->arena.max = 1000000;
	assert_int_equal(decode(fx, OM_BODY_job_table, fx->buf.data, fx->buf.len), OM_ERR_INVALID);
	assert_names(fx, "jobs[0]: \"job\" is missing");
	fix_free(fx);
}

static void
test_encoding_what_cannot_be_encoded(void **state)
{
	struct om_vpn_up no_obj = { .job = OM_STR("j") };
	struct om_ledger_spec no_raw = { .job = OM_STR("j") };
	struct om_job_ref ref = { .job = OM_STR("0123456789") };
	struct om_buf buf = { .max = 8 };

	(void)state;
	assert_int_equal(om_body_encode(OM_BODY_vpn_up, &no_obj, &buf), OM_ERR_INVALID);
	assert_int_equal(om_body_encode(OM_BODY_ledger_spec, &no_raw, &buf), OM_ERR_INVALID);
	om_buf_reset(&buf);
	assert_int_equal(om_body_encode(OM_BODY_job_ref, &ref, &buf), OM_ERR_NOMEM);
	om_buf_fini(&buf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_values_arrive),
		cmocka_unit_test(test_cut_off_at_every_byte),
		cmocka_unit_test(test_every_bit_turned),
		cmocka_unit_test(test_one_field_missing),
		cmocka_unit_test(test_one_field_twice),
		cmocka_unit_test(test_one_field_unknown),
		cmocka_unit_test(test_one_field_of_each_kind),
		cmocka_unit_test(test_one_field_over_its_limit),
		cmocka_unit_test(test_words_of_errors),
		cmocka_unit_test(test_maps_and_numbers),
		cmocka_unit_test(test_the_arena_bounds_memory),
		cmocka_unit_test(test_encoding_what_cannot_be_encoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
