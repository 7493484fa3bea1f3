/* SPDX-License-Identifier: ISC */
/*
 * The codec, over every message of the table: random values there and back, the words of errors,
 * limits.  Hostile input: msg_hostile_test.c.
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

#define ROUNDS 20

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
		cmocka_unit_test(test_words_of_errors),
		cmocka_unit_test(test_maps_and_numbers),
		cmocka_unit_test(test_the_arena_bounds_memory),
		cmocka_unit_test(test_encoding_what_cannot_be_encoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
