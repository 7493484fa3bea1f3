/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "msg/codec.h"
#include "msg/envelope.h"
#include "tests/unit/msg_gen.h"

static enum om_err
decode(const void *data, size_t len, struct om_envelope *out, struct om_why *why)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	enum om_err err;

	assert_non_null(copy);
	memcpy(copy, data, len);
	err = om_envelope_decode((struct om_bin){ copy, len }, out, why);
	free(copy);
	return err;
}

static void
test_every_message_there_and_back(void **state)
{
	struct om_arena arena = { .max = 0 };
	struct gen gen = { .seed = 11, .arena = &arena };
	struct om_buf buf = { .max = 0 };
	struct om_buf raw = { .max = 0 };

	(void)state;
	for (int t = OM_MSG_NONE + 1; t < OM_MSG_COUNT; t++) {
		const struct om_body_info *info =
		    om_body_info(om_msg_info((enum om_msg_type)t)->body);
		uint64_t id = gen_next(&gen), deadline = gen_next(&gen);
		struct om_envelope env;
		struct om_envelope cut;
		void *body;

		om_arena_reset(&arena);
		om_buf_reset(&buf);
		om_buf_reset(&raw);
		body = gen_alloc(&gen, info->size);
		gen_body(&gen, om_msg_info((enum om_msg_type)t)->body, body);
		om_buf_add_str(&buf, "before");
		assert_int_equal(om_envelope_encode((enum om_msg_type)t, id, deadline, body, &buf),
				 OM_OK);
		om_buf_drop_front(&buf, 6);
		assert_int_equal(
		    om_envelope_decode((struct om_bin){ buf.data, buf.len }, &env, NULL), OM_OK);
		assert_int_equal(env.type, t);
		assert_true(env.id == id && env.deadline_ms == deadline);
		assert_int_equal(
		    om_envelope_encode_raw((enum om_msg_type)t, id, deadline, env.body, &raw),
		    OM_OK);
		assert_int_equal(raw.len, buf.len);
		assert_memory_equal(raw.data, buf.data, buf.len);
		/* Cut inside the head, it is refused; cut later, the body's decoder refuses it. */
		for (size_t len = 0; len <= buf.len - env.body.len; len++) {
			assert_int_equal(decode(buf.data, len, &cut, NULL), OM_ERR_INVALID);
		}
		/* A head with any bit turned reads no byte that is not there. */
		for (size_t bit = 0; bit < (buf.len - env.body.len + 1) * 8; bit++) {
			buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
			(void)decode(buf.data, buf.len, &cut, NULL);
			buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	om_buf_fini(&buf);
	om_buf_fini(&raw);
	om_arena_fini(&arena);
}

static void
test_errors_keep_the_id(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum om_err err;
		uint64_t id;
	} cases[] = {
#define CASE(text, err, id) { text, sizeof(text) - 1, err, id }
		CASE("\x95\x01\xa4ping\x07\x00\x80", OM_OK, 7),
		CASE("\x95\x01\xa4pong\x07\x00\x80", OM_ERR_UNKNOWN_TYPE, 7),
		CASE("\x95\x02\xa4ping\x07\x00\x80", OM_ERR_VERSION, 7),
		CASE("\x93\x02\xa4ping\x07", OM_ERR_VERSION, 7), /* another shape one day */
		CASE("\x93\x02\xa4ping\xa1x", OM_ERR_VERSION, 0),
		CASE("\x91\x02", OM_ERR_VERSION, 0),
		CASE("\x94\x01\xa4ping\x07\x00", OM_ERR_INVALID, 0),
		CASE("\x96\x01\xa4ping\x07\x00\x80\x80", OM_ERR_INVALID, 0),
		CASE("\x95\x01\xa4ping\x07\x00\x90", OM_ERR_INVALID, 7),
		CASE("\x95\x01\xa4ping\x07\xff\x80", OM_ERR_INVALID, 7),
		CASE("\x95\x01\xa4ping\xff\x00\x80", OM_ERR_INVALID, 0),
		CASE("\x95\x01\x01\x07\x00\x80", OM_ERR_INVALID, 0),
		CASE("\x95\x01\xa0\x07\x00\x80", OM_ERR_UNKNOWN_TYPE, 7),
		CASE("\x90", OM_ERR_INVALID, 0),
		CASE("\x80", OM_ERR_INVALID, 0),
		CASE("", OM_ERR_INVALID, 0),
		CASE("\xdd\xff\xff\xff\xff", OM_ERR_INVALID, 0),
#undef CASE
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		struct om_envelope env;
		struct om_why why = { "" };

		assert_int_equal(decode(cases[i].bytes, cases[i].len, &env, &why), cases[i].err);
		assert_true(env.id == cases[i].id);
		assert_true(cases[i].err == OM_OK || strlen(why.text) > 0);
	}
}

static void
test_too_big(void **state)
{
	static const uint8_t byte = 0x95;
	struct om_envelope env;
	struct om_why why;

	(void)state;
	/* Refused by its length alone: no byte of it is read. */
	assert_int_equal(om_envelope_decode((struct om_bin){ &byte, OM_FRAME_MAX + 1 }, &env, &why),
			 OM_ERR_TOO_BIG);
}

static void
check_error(enum om_err err, const char *text, const char *wanted)
{
	struct om_buf buf = { .max = 0 };
	struct om_arena arena = { .max = 0 };
	struct om_error body = { .has = 0 };
	struct om_envelope env;

	assert_int_equal(om_envelope_encode_error(99, err, text, &buf), OM_OK);
	assert_int_equal(om_envelope_decode((struct om_bin){ buf.data, buf.len }, &env, NULL),
			 OM_OK);
	assert_int_equal(env.type, OM_MSG_ERROR);
	assert_int_equal(env.id, 99);
	assert_int_equal(om_body_decode(OM_BODY_error, env.body, &body, &arena, NULL), OM_OK);
	assert_int_equal(om_err_from_code(body.code.ptr, body.code.len), err);
	if (wanted != NULL) {
		assert_true(om_str_is(body.text, wanted));
	}
	om_buf_fini(&buf);
	om_arena_fini(&arena);
}

static void
test_error_replies_are_always_readable(void **state)
{
	char big[2000];

	(void)state;
	check_error(OM_ERR_VM, "start domain: no", "start domain: no");
	check_error(OM_ERR_VM, NULL, om_err_text(OM_ERR_VM));
	check_error(OM_ERR_VM, "", om_err_text(OM_ERR_VM));
	check_error(OM_ERR_VM, "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xa9",
		    "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xa9");
	check_error(OM_ERR_VM, "a\xff\xc3-\xe2\x82", "a\?\?-\?\?");
	for (size_t cut = 500; cut < 520; cut++) { /* the limit cuts through a character */
		memset(big, 'x', sizeof(big));
		memcpy(big + cut, "\xf0\x9f\x92\xa9", 4);
		big[sizeof(big) - 1] = '\0';
		check_error(OM_ERR_VM, big, NULL);
	}
	for (int e = 1; e < OM_ERR_COUNT; e++) {
		check_error((enum om_err)e, "x", "x");
	}
}

static void
test_failed_encode_takes_its_bytes_back(void **state)
{
	struct om_job_ref ref = { .job = OM_STR("0123456789012345678901234567890123456789") };
	struct om_vpn_up bad = { .job = OM_STR("j") };
	struct om_buf buf = { .max = 48 };

	(void)state;
	om_buf_add_str(&buf, "keep");
	assert_int_equal(om_envelope_encode(OM_MSG_JOB_GET, 1, 0, &ref, &buf), OM_ERR_NOMEM);
	assert_int_equal(buf.len, 4);
	buf.failed = false;
	assert_int_equal(om_envelope_encode(OM_MSG_VPN_UP, 1, 0, &bad, &buf), OM_ERR_INVALID);
	assert_int_equal(buf.len, 4);
	om_buf_fini(&buf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_message_there_and_back),
		cmocka_unit_test(test_errors_keep_the_id),
		cmocka_unit_test(test_too_big),
		cmocka_unit_test(test_error_replies_are_always_readable),
		cmocka_unit_test(test_failed_encode_takes_its_bytes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
