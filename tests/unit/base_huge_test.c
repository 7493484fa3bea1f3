/* SPDX-License-Identifier: ISC */
#include "base/huge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static void
test_zeros(void **state)
{
	static const size_t sizes[] = { 1, (2u << 20) - 1, 2u << 20, (4u << 20) + 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *mem = om_huge_new(sizes[i]);

		assert_non_null(mem);
		for (size_t at = 0; at < sizes[i]; at++) {
			assert_int_equal(mem[at], 0);
		}
		memset(mem, 0xff, sizes[i]);
		om_huge_free(mem, sizes[i]);
	}
	om_huge_free(NULL, 1);
}

static void
test_too_much(void **state)
{
	(void)state;
	assert_null(om_huge_new(SIZE_MAX));
	assert_null(om_huge_new(SIZE_MAX / 2));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_too_much),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
