/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static void
test_views(void **state)
{
	char out[4];

	(void)state;
	assert_true(om_str_eq(om_str_of(NULL), OM_STR("")));
	assert_true(om_str_is(OM_STR("abc"), "abc"));
	assert_false(om_str_is(OM_STR("abc"), "abcd"));
	assert_int_equal(om_str_copy(OM_STR("abc"), out, sizeof(out)), OM_OK);
	assert_string_equal(out, "abc");
	assert_int_equal(om_str_copy(OM_STR("abcd"), out, sizeof(out)), OM_ERR_TOO_BIG);
	assert_int_equal(om_str_copy(OM_STR("a\0b"), out, sizeof(out)), OM_ERR_TOO_BIG);
	assert_int_equal(om_str_copy(om_str_of(NULL), out, sizeof(out)), OM_OK);
	assert_string_equal(out, "");
	assert_int_equal(om_str_copy(OM_STR(""), out, 0), OM_ERR_TOO_BIG);
}

static void
test_buffer_grows_and_keeps_order(void **state)
{
	struct om_buf buf = { .max = 0 };

	(void)state;
	for (int i = 0; i < 10000; i++) {
		om_buf_printf(&buf, "%d,", i);
	}
	assert_false(buf.failed);
	assert_memory_equal(buf.data, "0,1,2,3,4,", 10);
	assert_int_equal(buf.len, 10 * 2 + 90 * 3 + 900 * 4 + 9000 * 5);
	om_buf_drop_front(&buf, 4);
	assert_memory_equal(buf.data, "2,3,", 4);
	assert_int_equal(strlen(om_buf_cstr(&buf)), buf.len);
	om_buf_drop_front(&buf, SIZE_MAX);
	assert_int_equal(buf.len, 0);
	assert_string_equal(om_buf_cstr(&buf), "");
	om_buf_fini(&buf);
	om_buf_fini(&buf);
}

static void
test_printf_of_every_length_around_the_borders(void **state)
{
	char text[600];

	(void)state;
	memset(text, 'y', sizeof(text));
	for (int len = 0; len < (int)sizeof(text); len++) {
		struct om_buf exact = { .max = (size_t)len };
		struct om_buf less = { .max = len > 1 ? (size_t)len - 1 : 1 };

		om_buf_printf(&exact, "%.*s", len, text);
		assert_false(exact.failed);
		assert_int_equal(exact.len, len);
		assert_memory_equal(exact.data != NULL ? (char *)exact.data : "", text, exact.len);
		if (len > 1) {
			om_buf_printf(&less, "%.*s", len, text);
			assert_true(less.failed);
			assert_int_equal(less.len, 0);
		}
		om_buf_fini(&exact);
		om_buf_fini(&less);
	}
}

static void
test_failed_append_changes_nothing(void **state)
{
	struct om_buf buf = { .max = 4 };

	(void)state;
	om_buf_add_str(&buf, "abc");
	om_buf_add_str(&buf, "de");
	assert_true(buf.failed);
	assert_int_equal(buf.len, 3);
	assert_null(om_buf_cstr(&buf));
	assert_int_equal(om_buf_reserve(&buf, SIZE_MAX), OM_ERR_TOO_BIG);
	om_buf_reset(&buf);
	assert_false(buf.failed);
	om_buf_add_str(&buf, "wxyz"); /* exactly max; the NUL lies behind it */
	assert_string_equal(om_buf_cstr(&buf), "wxyz");
	om_buf_fini(&buf);
}

static void
test_arena(void **state)
{
	struct om_arena arena = { .max = 0 };
	unsigned char *got[300];

	(void)state;
	for (size_t i = 0; i < OM_COUNT(got); i++) {
		got[i] = om_arena_alloc(&arena, i);
		assert_non_null(got[i]);
		assert_int_equal((uintptr_t)got[i] % 16, 0);
		for (size_t j = 0; j < i; j++) {
			assert_int_equal(got[i][j], 0);
		}
		memset(got[i], (int)i, i);
	}
	for (size_t i = 0; i < OM_COUNT(got); i++) { /* nobody wrote into another's bytes */
		for (size_t j = 0; j < i; j++) {
			assert_int_equal(got[i][j], i & 0xff);
		}
	}
	assert_string_equal(om_arena_str(&arena, OM_STR("text")), "text");
	assert_string_equal(om_arena_str(&arena, om_str_of(NULL)), "");
	om_arena_reset(&arena);
	assert_int_equal(arena.used, 0);
	got[0] = om_arena_alloc(&arena, 64);
	for (size_t j = 0; j < 64; j++) {
		assert_int_equal(got[0][j], 0); /* zeroed again after a reset */
	}
	om_arena_fini(&arena);
}

static void
test_arena_limit(void **state)
{
	struct om_arena arena = { .max = 1024 };

	(void)state;
	assert_null(om_arena_alloc(&arena, 1025));
	assert_null(om_arena_alloc(&arena, SIZE_MAX));
	assert_null(om_arena_alloc(&arena, SIZE_MAX - 8));
	for (int i = 0; i < 64; i++) {
		assert_non_null(om_arena_alloc(&arena, 16));
	}
	assert_null(om_arena_alloc(&arena, 1));
	om_arena_reset(&arena);
	assert_non_null(om_arena_alloc(&arena, 1024));
	om_arena_fini(&arena);
	om_arena_reset(&arena);
	om_arena_fini(&arena);
}

static void
test_arena_reset_gives_a_huge_chunk_back(void **state)
{
	struct om_arena arena = { .max = 0 };

	(void)state;
	assert_non_null(om_arena_alloc(&arena, 10 * 1024 * 1024));
	om_arena_reset(&arena);
	assert_null(arena.chunks);
	assert_non_null(om_arena_alloc(&arena, 10));
	om_arena_reset(&arena);
	assert_non_null(arena.chunks);
	om_arena_fini(&arena);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_views),
		cmocka_unit_test(test_buffer_grows_and_keeps_order),
		cmocka_unit_test(test_printf_of_every_length_around_the_borders),
		cmocka_unit_test(test_failed_append_changes_nothing),
		cmocka_unit_test(test_arena),
		cmocka_unit_test(test_arena_limit),
		cmocka_unit_test(test_arena_reset_gives_a_huge_chunk_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
