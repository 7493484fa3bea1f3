/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/short.h"

/* Of exactly n bytes on the heap: a sanitizer sees a look behind them. */
static uint8_t *
bytes_new(size_t n)
{
	uint8_t *v = malloc(n > 0 ? n : 1);

	assert_non_null(v);
	for (size_t i = 0; i < n; i++) {
		v[i] = (uint8_t)(i * 3 + 1);
	}
	return v;
}

static void
one_byte_makes_a_difference(void **state)
{
	(void)state;
	for (size_t n = 0; n <= OM_SHORT_MAX; n++) {
		uint8_t *a = bytes_new(n), *b = bytes_new(n);

		assert_true(om_short_eq(a, b, n));
		for (size_t i = 0; i < n; i++) {
			b[i] ^= 0x10;
			assert_false(om_short_eq(a, b, n));
			b[i] ^= 0x10;
		}
		free(a);
		free(b);
	}
}

/* What is behind the n bytes makes none. */
static void
up_to_eight_bytes_are_compared(void **state)
{
	(void)state;
	for (size_t n = 1; n <= 8; n++) {
		uint8_t *a = bytes_new(8), *b = bytes_new(8);

		for (size_t i = 0; i < 8; i++) {
			b[i] ^= 0x10;
			assert_true(om_short_eq_8(a, b, n) == (i >= n));
			b[i] ^= 0x10;
		}
		free(a);
		free(b);
	}
}

static void
one_byte_is_not_ascii(void **state)
{
	(void)state;
	for (size_t n = 0; n <= OM_SHORT_MAX; n++) {
		uint8_t *a = bytes_new(n);

		assert_true(om_short_is_ascii(a, n));
		for (size_t i = 0; i < n; i++) {
			a[i] |= 0x80;
			assert_false(om_short_is_ascii(a, n));
			a[i] &= 0x7f;
		}
		free(a);
	}
}

static void
a_copy_is_all_and_no_more(void **state)
{
	(void)state;
	for (size_t n = 0; n <= 2 * OM_SHORT_MAX; n++) {
		uint8_t *from = bytes_new(n), to[2 * OM_SHORT_MAX + 2] = { 0 };

		om_short_copy_any(to + 1, from, n);
		assert_int_equal(to[0], 0);
		assert_memory_equal(to + 1, from, n);
		assert_int_equal(to[n + 1], 0);
		free(from);
	}
}

/* The order of the bytes, their number and each of them count. */
static void
tails_differ(void **state)
{
	const uint8_t a[] = { 1, 2, 3, 4, 5, 6, 7 };

	(void)state;
	for (size_t n = 1; n < 8; n++) {
		uint8_t b[7];

		for (size_t i = 0; i < n; i++) {
			memcpy(b, a, sizeof(b));
			b[i] ^= 0x40;
			assert_true(om_short_tail(a, n) != om_short_tail(b, n));
		}
	}
	assert_int_equal(om_short_tail(a, 0), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_byte_makes_a_difference),
		cmocka_unit_test(up_to_eight_bytes_are_compared),
		cmocka_unit_test(one_byte_is_not_ascii),
		cmocka_unit_test(a_copy_is_all_and_no_more),
		cmocka_unit_test(tails_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
