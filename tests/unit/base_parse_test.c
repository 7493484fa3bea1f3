/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"

static void
test_u64(void **state)
{
	static const char *const bad[] = { "",
					   " 1",
					   "1 ",
					   "+1",
					   "-1",
					   "0x1",
					   "1.0",
					   "a",
					   "18446744073709551616",
					   "99999999999999999999999" };
	uint64_t v = 7;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		assert_int_equal(om_parse_u64(om_str_of(bad[i]), 0, UINT64_MAX, &v),
				 OM_ERR_INVALID);
		assert_int_equal(v, 7);
	}
	assert_int_equal(om_parse_u64(OM_STR("18446744073709551615"), 0, UINT64_MAX, &v), OM_OK);
	assert_true(v == UINT64_MAX);
	assert_int_equal(om_parse_u64(OM_STR("0010"), 10, 10, &v), OM_OK);
	assert_int_equal(om_parse_u64(OM_STR("9"), 10, 20, &v), OM_ERR_INVALID);
	assert_int_equal(om_parse_u64(OM_STR("21"), 10, 20, &v), OM_ERR_INVALID);
	assert_int_equal(v, 10);
	/* Not NUL-terminated: only the view's bytes count. */
	assert_int_equal(om_parse_u64((struct om_str){ "1234", 2 }, 0, 100, &v), OM_OK);
	assert_int_equal(v, 12);
}

static void
test_bool(void **state)
{
	bool v = false;

	(void)state;
	assert_int_equal(om_parse_bool(OM_STR("yes"), &v), OM_OK);
	assert_true(v);
	assert_int_equal(om_parse_bool(OM_STR("off"), &v), OM_OK);
	assert_false(v);
	assert_int_equal(om_parse_bool(OM_STR("Yes"), &v), OM_ERR_INVALID);
	assert_int_equal(om_parse_bool(OM_STR(""), &v), OM_ERR_INVALID);
	assert_int_equal(om_parse_bool(OM_STR("yess"), &v), OM_ERR_INVALID);
}

static void
test_sizes_and_durations(void **state)
{
	static const struct {
		const char *text;
		enum om_err err;
		uint64_t value;
	} mib[] = {
		{ "512", OM_OK, 512 },	     { "512M", OM_OK, 512 },	{ "16G", OM_OK, 16384 },
		{ "1048576K", OM_OK, 1024 }, { "2T", OM_OK, 2097152 },	{ "1g", OM_OK, 1024 },
		{ "1500K", OM_ERR_INVALID, 0 }, { "1.5G", OM_ERR_INVALID, 0 },
		{ "G", OM_ERR_INVALID, 0 },  { "1 G", OM_ERR_INVALID, 0 }, { "", OM_ERR_INVALID, 0 },
		{ "1GB", OM_ERR_INVALID, 0 }, { "-1G", OM_ERR_INVALID, 0 },
		{ "18446744073709551615T", OM_ERR_INVALID, 0 },
	}, ms[] = {
		{ "90", OM_OK, 90000 },	   { "90s", OM_OK, 90000 },   { "500ms", OM_OK, 500 },
		{ "10m", OM_OK, 600000 },  { "2h", OM_OK, 7200000 },  { "1d", OM_OK, 86400000 },
		{ "1D", OM_ERR_INVALID, 0 }, { "1w", OM_ERR_INVALID, 0 }, { "ms", OM_ERR_INVALID, 0 },
		{ "1m30s", OM_ERR_INVALID, 0 }, { "18446744073709552s", OM_ERR_INVALID, 0 },
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(mib); i++) {
		uint64_t v = 0;

		assert_int_equal(om_parse_mib(om_str_of(mib[i].text), &v), mib[i].err);
		assert_true(v == mib[i].value);
	}
	for (size_t i = 0; i < OM_COUNT(ms); i++) {
		uint64_t v = 0;

		assert_int_equal(om_parse_ms(om_str_of(ms[i].text), &v), ms[i].err);
		assert_true(v == ms[i].value);
	}
}

static void
base64_encode(const uint8_t *in, size_t len, char *out)
{
	static const char abc[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		unsigned v = (unsigned)in[i] << 16 | (i + 1 < len ? (unsigned)in[i + 1] << 8 : 0) |
			     (i + 2 < len ? in[i + 2] : 0);

		*out++ = abc[v >> 18];
		*out++ = abc[v >> 12 & 63];
		*out++ = i + 1 < len ? abc[v >> 6 & 63] : '=';
		*out++ = i + 2 < len ? abc[v & 63] : '=';
	}
	*out = '\0';
}

static void
test_base64_round_trip(void **state)
{
	uint8_t in[40], out[40];
	char text[64];

	(void)state;
	for (size_t len = 0; len <= sizeof(in); len++) {
		for (unsigned k = 0; k < 256; k++) {
			for (size_t i = 0; i < len; i++) {
				in[i] = (uint8_t)(k * 167 + i * 59);
			}
			base64_encode(in, len, text);
			memset(out, 0, sizeof(out));
			assert_int_equal(om_parse_base64(om_str_of(text), out, len), OM_OK);
			assert_memory_equal(in, out, len);
		}
	}
	assert_int_equal(om_parse_base64(OM_STR("Zm9vYmE="), out, 5), OM_OK); /* RFC 4648 */
	assert_memory_equal(out, "fooba", 5);
}

static void
test_base64_refuses(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} bad[] = {
		{ "Zm9vYmE", 5 },  { "Zm9vYmE=", 4 },
		{ "Zm9vYmE=", 6 }, { "Zm9vYmF=", 5 },
		{ "Zm9vYh==", 4 }, { "Zm9v Yg=", 5 },
		{ "Zm9=YmE=", 5 }, { "====", 1 },
		{ "Zg===", 1 },    { "Z===", 1 },
		{ "Zm-_", 3 },     { "", 1 },
		{ "Zm9v\n", 3 },   { "\xff\xff\xff\xff", 3 },
		{ "Zm9v", 0 },
	};
	uint8_t out[8];

	(void)state;
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		memset(out, 0x5a, sizeof(out));
		assert_int_equal(om_parse_base64(om_str_of(bad[i].text), out, bad[i].len),
				 OM_ERR_INVALID);
		for (size_t j = 0; j < sizeof(out); j++) {
			assert_int_equal(out[j], 0x5a); /* untouched */
		}
	}
	/* Each byte that is no digit of the alphabet, at each place. */
	for (unsigned c = 0; c < 256; c++) {
		for (size_t at = 0; at < 4; at++) {
			char text[4] = { 'A', 'A', 'A', 'A' };
			bool good = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
				    (c >= 'a' && c <= 'z') || c == '+' || c == '/';

			text[at] = (char)c;
			assert_int_equal(om_parse_base64((struct om_str){ text, 4 }, out, 3),
					 good ? OM_OK : OM_ERR_INVALID);
		}
	}
}

static void
test_hex(void **state)
{
	uint8_t all[256], back[256];
	char text[513];

	(void)state;
	for (unsigned i = 0; i < 256; i++) {
		all[i] = (uint8_t)i;
	}
	om_hex(all, sizeof(all), text);
	assert_int_equal(strlen(text), 512);
	assert_int_equal(om_parse_hex(om_str_of(text), back, sizeof(back)), OM_OK);
	assert_memory_equal(all, back, sizeof(all));
	for (size_t len = 0; len < 10; len++) {
		memset(text, 'x', sizeof(text));
		om_hex(all + 0x98, len, text);
		assert_memory_equal(text, "98999a9b9c9d9e9fa0a1", 2 * len);
		assert_int_equal(text[2 * len], '\0');
		assert_int_equal(text[2 * len + 1], 'x');
	}
	assert_int_equal(om_parse_hex(OM_STR("AbCd"), back, 2), OM_OK);
	assert_memory_equal(back, "\xab\xcd", 2);
	assert_int_equal(om_parse_hex(OM_STR("abc"), back, 1), OM_ERR_INVALID);
	assert_int_equal(om_parse_hex(OM_STR("abcd"), back, 1), OM_ERR_INVALID);
	assert_int_equal(om_parse_hex(OM_STR("0g"), back, 1), OM_ERR_INVALID);
	assert_int_equal(om_parse_hex(OM_STR("0x"), back, 1), OM_ERR_INVALID);
	assert_int_equal(back[0], 0xab);
}

/* Independent of the validator: encode each code point by the definition. */
static size_t
utf8_encode(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 63));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 63));
		out[2] = (char)(0x80 | (c & 63));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 63));
	out[2] = (char)(0x80 | (c >> 6 & 63));
	out[3] = (char)(0x80 | (c & 63));
	return 4;
}

static void
test_utf8_every_code_point(void **state)
{
	(void)state;
	for (uint32_t c = 0; c < 0x112000; c++) {
		bool valid = c < 0xd800 || (c > 0xdfff && c <= 0x10ffff);
		char text[16] = "0123456";
		size_t len = utf8_encode(c, text + 7);

		assert_int_equal(om_utf8_valid((struct om_str){ text, 7 + len }), valid);
		if (len > 1) {
			assert_false(om_utf8_valid((struct om_str){ text, 7 + len - 1 }));
		}
	}
}

static void
test_utf8_refuses(void **state)
{
	static const char *const bad[] = { "\xc0\x80",
					   "\xc1\xbf",
					   "\xe0\x80\x80",
					   "\xe0\x9f\xbf",
					   "\xf0\x80\x80\x80",
					   "\xf0\x8f\xbf\xbf",
					   "\xf8\x88\x80\x80\x80",
					   "\xfe",
					   "\xff",
					   "\x80",
					   "\xbf",
					   "a\x80",
					   "\xc3(",
					   "\xe2\x82(",
					   "\xe2(\xa1",
					   "\xf0\x9f\x92(",
					   "\xed\xa0\x80",
					   "\xf4\x90\x80\x80",
					   "12345678\xff",
					   "1234567\xc3" };

	(void)state;
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		assert_false(om_utf8_valid(om_str_of(bad[i])));
	}
	assert_true(om_utf8_valid(om_str_of(NULL)));
	assert_true(om_utf8_valid((struct om_str){ "a\0b", 3 }));
}

static void
test_utf8_clean(void **state)
{
	static const struct {
		struct om_str in, out;
	} texts[] = {
		{ OM_STR(""), OM_STR("") },
		{ OM_STR("a\0b"), OM_STR("a\0b") },
		{ OM_STR("\xe2\x82\xac\xff\xf0\x9f\x98\x80"),
		  OM_STR("\xe2\x82\xac?\xf0\x9f\x98\x80") },
		{ OM_STR("cut \xe2\x82"), OM_STR("cut ??") },
		{ OM_STR("\xe2\x82z\x80"), OM_STR("??z?") },
		{ OM_STR("\xc0\xaf \xed\xa0\x80"), OM_STR("?? ???") },
	};
	char text[32];

	(void)state;
	for (size_t i = 0; i < OM_COUNT(texts); i++) {
		memcpy(text, texts[i].in.ptr, texts[i].in.len + 1);
		om_utf8_clean(text, texts[i].in.len);
		assert_memory_equal(text, texts[i].out.ptr, texts[i].out.len + 1);
	}
}

static void
test_nearest(void **state)
{
	static const char *const names[] = { "cores", "mem_mib", "disk_mib", "args" };
	char longword[100];

	(void)state;
	assert_int_equal(om_edit_distance("", ""), 0);
	assert_int_equal(om_edit_distance("kitten", "sitting"), 3);
	assert_int_equal(om_edit_distance("abc", ""), 3);
	memset(longword, 'x', sizeof(longword) - 1);
	longword[sizeof(longword) - 1] = '\0';
	assert_true(om_edit_distance(longword, longword) == UINT_MAX);
	assert_string_equal(om_nearest("core", names, 4), "cores");
	assert_string_equal(om_nearest("disc_mib", names, 4), "disk_mib");
	assert_null(om_nearest("zzzzzzzz", names, 4));
	assert_null(om_nearest("x", names, 4)); /* anything is one edit from one letter */
	assert_null(om_nearest("", names, 4));
	assert_null(om_nearest("core", names, 0));
}

static void
test_pieces(void **state)
{
	struct om_str rest = OM_STR("a,,b,");
	struct om_str piece;

	(void)state;
	assert_true(om_str_next(&rest, ',', &piece) && om_str_is(piece, "a"));
	assert_true(om_str_next(&rest, ',', &piece) && piece.len == 0);
	assert_true(om_str_next(&rest, ',', &piece) && om_str_is(piece, "b"));
	assert_true(om_str_next(&rest, ',', &piece) && piece.len == 0);
	assert_false(om_str_next(&rest, ',', &piece));
	rest = OM_STR("");
	assert_true(om_str_next(&rest, ',', &piece));
	assert_false(om_str_next(&rest, ',', &piece));
	rest = om_str_of(NULL);
	assert_false(om_str_next(&rest, ',', &piece));
	assert_true(om_str_is(om_str_trim(OM_STR(" \t a b\r\n")), "a b"));
	assert_int_equal(om_str_trim(OM_STR("  ")).len, 0);
	assert_int_equal(om_str_trim(om_str_of(NULL)).len, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_sizes_and_durations),
		cmocka_unit_test(test_base64_round_trip),
		cmocka_unit_test(test_base64_refuses),
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_utf8_every_code_point),
		cmocka_unit_test(test_utf8_refuses),
		cmocka_unit_test(test_utf8_clean),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
