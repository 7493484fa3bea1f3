/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "actors/job_array.h"

static void
test_what_is_read(void **state)
{
	static const struct {
		const char *text;
		uint32_t count, limit, first, last;
	} good[] = {
		{ "0", 1, 0, 0, 0 },
		{ "0-9", 10, 0, 0, 9 },
		{ "7-7", 1, 0, 7, 7 },
		{ "1,3,5-7", 5, 0, 1, 7 },
		{ " 0-15:4 ", 4, 0, 0, 12 },
		{ "5,1", 2, 0, 5, 1 },
		{ "0-999%4", 1000, 4, 0, 999 },
		{ "999999%1", 1, 1, 999999, 999999 },
		{ "0-999998:999998", 2, 0, 0, 999998 },
		{ "1, 2", 2, 0, 1, 2 },
	};
	struct om_job_array a;
	struct om_why why;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(om_job_array_parse(om_str_of(good[i].text), &a, &why), OM_OK);
		assert_int_equal(a.count, good[i].count);
		assert_int_equal(a.limit, good[i].limit);
		assert_int_equal(a.index[0], good[i].first);
		assert_int_equal(a.index[a.count - 1], good[i].last);
	}
}

static void
test_what_is_refused(void **state)
{
	static const char *const bad[] = {
		"",        "%",
		"%4",      "0-9%",
		"0-9%0",   "0-9%1001",
		"0-9%1%2", "9-0",
		"a",       "-1",
		"1-",      "0-9:0",
		"5:2",     "0-9:1:1",
		"1000000", "0-1000",
		"1,1",     "0-5,3",
		"1,,2",    "1,",
		"0-9-10",  "0x1",
		"1.5",     "0-2000:1",
		"0-9:-1",  "18446744073709551616",
	};
	struct om_job_array a;
	struct om_why why;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		why.text[0] = '\0';
		assert_int_equal(om_job_array_parse(om_str_of(bad[i]), &a, &why), OM_ERR_INVALID);
		assert_non_null(strstr(why.text, "array"));
	}
	assert_int_equal(om_job_array_parse((struct om_str){ NULL, 0 }, &a, &why), OM_ERR_INVALID);
}

static void
test_ids_of_members(void **state)
{
	char longest[OM_JOB_ID_MAX + 1];
	struct om_job_id id;
	struct om_str array;
	uint32_t index;

	(void)state;
	assert_int_equal(om_job_array_member(OM_STR("ab_1"), 12, &id), OM_OK);
	assert_string_equal(id.text, "ab_1_12");
	assert_true(om_job_array_split(om_str_of(id.text), &array, &index));
	assert_true(om_str_is(array, "ab_1"));
	assert_int_equal(index, 12);
	assert_false(om_job_array_split(OM_STR("ab"), &array, &index));
	assert_false(om_job_array_split(OM_STR("_1"), &array, &index));
	assert_false(om_job_array_split(OM_STR("a_"), &array, &index));
	assert_false(om_job_array_split(OM_STR("a_01"), &array, &index));
	assert_false(om_job_array_split(OM_STR("a_1000000"), &array, &index));
	assert_false(om_job_array_split((struct om_str){ NULL, 0 }, &array, &index));

	memset(longest, 'x', sizeof(longest));
	assert_int_equal(om_job_array_member((struct om_str){ longest, OM_ARRAY_ID_MAX },
					     OM_ARRAY_INDEX_MAX, &id),
			 OM_OK);
	assert_int_equal(strlen(id.text), OM_JOB_ID_MAX);
	assert_int_equal(
	    om_job_array_member((struct om_str){ longest, OM_ARRAY_ID_MAX + 1 }, 0, &id),
	    OM_ERR_INVALID);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_read),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_ids_of_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
