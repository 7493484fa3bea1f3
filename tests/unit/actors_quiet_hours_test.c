/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/quiet_hours.h"
#include "actors/zone.h"

#define MIDNIGHT INT64_C(1700006400) /* 2023-11-15 00:00 UTC, a Wednesday */
#define H        3600
#define DAY      (24 * H)

static struct om_quiet_hours
quiet(const char *start, const char *end, const char *days, const char *zone)
{
	struct om_quiet_text text = { om_str_of(start), om_str_of(end), om_str_of(days),
				      om_str_of(zone) };
	struct om_quiet_hours q;
	struct om_why why = { "" };

	if (om_quiet_hours_parse(&text, &q, &why) != OM_OK) {
		fail_msg("%s", why.text);
	}
	return q;
}

static bool
inside(struct om_quiet_hours q, int64_t unix_s)
{
	return om_quiet_hours_inside(&q, (struct om_wall){ unix_s * OM_NS_PER_S });
}

static void
within_a_day(void **state)
{
	struct om_quiet_hours q = quiet("9:30", "17", NULL, "utc");

	(void)state;
	assert_false(inside(q, MIDNIGHT + 9 * H + 29 * 60 + 59));
	assert_true(inside(q, MIDNIGHT + 9 * H + 30 * 60));
	assert_true(inside(q, MIDNIGHT + 17 * H - 1));
	assert_false(inside(q, MIDNIGHT + 17 * H));
	assert_string_equal(q.start_text, "09:30");
	assert_string_equal(q.end_text, "17:00");
}

static void
over_midnight(void **state)
{
	struct om_quiet_hours q = quiet("22", "8", NULL, "utc");

	(void)state;
	assert_true(inside(q, MIDNIGHT - 2 * H));
	assert_false(inside(q, MIDNIGHT - 2 * H - 1));
	assert_true(inside(q, MIDNIGHT));
	assert_true(inside(q, MIDNIGHT + 8 * H - 1));
	assert_false(inside(q, MIDNIGHT + 8 * H));
	assert_false(inside(q, MIDNIGHT + 12 * H));
}

static void
equal_ends_are_never(void **state) /* the reference: always */
{
	struct om_quiet_hours q = quiet("22:00", "22", NULL, "utc");

	(void)state;
	for (int64_t h = 0; h < 24; h++) {
		assert_false(inside(q, MIDNIGHT + h * H));
	}
}

static void
days_are_those_of_the_start(void **state)
{
	struct om_quiet_hours q = quiet("22", "8", "wed", "utc");

	(void)state;
	assert_false(inside(q, MIDNIGHT + 1 * H)); /* began on Tuesday */
	assert_true(inside(q, MIDNIGHT + 23 * H));
	assert_true(inside(q, MIDNIGHT + DAY + 7 * H)); /* Thursday morning */
	assert_false(inside(q, MIDNIGHT + DAY + 23 * H));
	q = quiet("0", "12", "fri-mon", "utc");
	for (int64_t day = 0; day < 7; day++) { /* from Wednesday on */
		assert_int_equal(inside(q, MIDNIGHT + day * DAY + H), day >= 2 && day <= 5);
	}
	q = quiet("0", "12", " Sat , SUN ", "utc");
	assert_true(inside(q, MIDNIGHT + 3 * DAY));
	assert_false(inside(q, MIDNIGHT + 2 * DAY));
}

static void
fixed_zones(void **state)
{
	struct om_quiet_hours q = quiet("22", "23", NULL, "+05:30");

	(void)state;
	assert_true(inside(q, MIDNIGHT + 16 * H + 30 * 60));
	assert_false(inside(q, MIDNIGHT + 17 * H + 30 * 60));
	q = quiet("22", "23", "tue", "-3");
	assert_true(inside(q, MIDNIGHT + 1 * H)); /* 22:00 of the day before */
}

/* Central Europe by rule, so that the test needs no zone files. */
static void
with_zone(const char *tz)
{
	assert_int_equal(setenv("TZ", tz, 1), 0);
	tzset();
}

#define SPRING INT64_C(1711846800) /* 2024-03-31 01:00 UTC: 02:00 becomes 03:00 */
#define AUTUMN INT64_C(1729990800) /* 2024-10-27 01:00 UTC: 03:00 becomes 02:00 */

static void
clocks_change(void **state)
{
	struct om_quiet_hours q;

	(void)state;
	with_zone("CET-1CEST,M3.5.0,M10.5.0/3");
	q = quiet("2:30", "3:30", NULL, NULL);
	assert_false(inside(q, SPRING - 1)); /* 01:59:59 */
	assert_true(inside(q, SPRING)); /* 03:00, there is no 02:30 */
	assert_false(inside(q, SPRING + 30 * 60)); /* 03:30 */
	assert_false(inside(q, AUTUMN - 31 * 60)); /* 02:29 for the first time */
	assert_true(inside(q, AUTUMN - 30 * 60)); /* 02:30 */
	assert_false(inside(q, AUTUMN)); /* 02:00 for the second time */
	assert_true(inside(q, AUTUMN + 30 * 60)); /* 02:30 again */
	assert_false(inside(q, AUTUMN + 90 * 60)); /* 03:30 */
	q = quiet("22", "8", NULL, "local");
	assert_true(inside(q, SPRING + 5 * H - 1)); /* until 08:00 summer time */
	assert_false(inside(q, SPRING + 5 * H));
}

/* The same changes of the clock, in a zone that is not the process's own. */
static void
clocks_change_in_a_named_zone(void **state)
{
	/* 2024: America/St_Johns is 3:30 behind, from March 10 at 2:00 to November 3 at 2:00 an hour less. */
	const int64_t st_johns_spring = 1710048600, st_johns_autumn = 1730608200;
	struct om_quiet_hours q;

	(void)state;
	with_zone("UTC");
	q = quiet("2:30", "3:30", NULL, "Europe/Berlin");
	assert_false(inside(q, SPRING - 1)); /* 01:59:59 */
	assert_true(inside(q, SPRING)); /* 03:00, there is no 02:30 */
	assert_false(inside(q, SPRING + 30 * 60)); /* 03:30 */
	assert_false(inside(q, AUTUMN - 31 * 60)); /* 02:29 for the first time */
	assert_true(inside(q, AUTUMN - 30 * 60)); /* 02:30 */
	assert_false(inside(q, AUTUMN)); /* 02:00 for the second time */
	assert_true(inside(q, AUTUMN + 30 * 60)); /* 02:30 again */
	assert_false(inside(q, AUTUMN + 90 * 60)); /* 03:30 */
	om_quiet_hours_fini(&q);
	q = quiet("1:30", "3:30", NULL, "America/St_Johns");
	assert_true(inside(q, st_johns_spring - 1)); /* 01:59:59 */
	assert_true(inside(q, st_johns_spring)); /* 03:00 */
	assert_false(inside(q, st_johns_spring + 30 * 60)); /* 03:30 */
	assert_false(inside(q, st_johns_autumn - 31 * 60)); /* 01:29 for the first time */
	assert_true(inside(q, st_johns_autumn - 30 * 60)); /* 01:30 */
	assert_false(inside(q, st_johns_autumn)); /* 01:00 for the second time */
	assert_true(inside(q, st_johns_autumn + 30 * 60)); /* 01:30 again */
	om_quiet_hours_fini(&q);
}

/* Whatever the C library says of a zone, from its beginnings to a time that only its rule reaches. */
static void
zones_are_as_the_c_library_has_them(void **state)
{
	static const char *const names[] = {
		"Europe/Berlin",     "America/St_Johns", "Europe/Dublin",      "Pacific/Auckland",
		"Africa/Casablanca", "Asia/Kolkata",     "America/Sao_Paulo",  "Asia/Tehran",
		"Etc/GMT+5",         "Antarctica/Troll", "Australia/Lord_Howe"
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(names); i++) {
		struct om_zone *zone = NULL;

		assert_int_equal(om_zone_open(om_str_of(names[i]), &zone), OM_OK);
		with_zone(names[i]);
		for (time_t t = -2 * (time_t)1000000000; t < 4 * (time_t)1000000000;
		     t += 17 * H + 1740) {
			struct tm tm;

			assert_non_null(localtime_r(&t, &tm));
			if (om_zone_offset(zone, t) != tm.tm_gmtoff) {
				fail_msg("%s at %lld: %d, not %ld", names[i], (long long)t,
					 om_zone_offset(zone, t), tm.tm_gmtoff);
			}
		}
		om_zone_free(zone);
	}
	with_zone("UTC");
}

static void
midnights(void **state)
{
	(void)state;
	with_zone("CET-1CEST,M3.5.0,M10.5.0/3");
	assert_int_equal(om_local_midnight((struct om_wall){ SPRING * OM_NS_PER_S }),
			 SPRING - 2 * H);
	assert_int_equal(om_local_midnight((struct om_wall){ (SPRING + 20 * H) * OM_NS_PER_S }),
			 SPRING - 2 * H);
	assert_int_equal(om_local_midnight((struct om_wall){ (SPRING + 21 * H) * OM_NS_PER_S }),
			 SPRING + 21 * H);
	with_zone("UTC0");
	assert_int_equal(om_local_midnight((struct om_wall){ (MIDNIGHT + 1) * OM_NS_PER_S }),
			 MIDNIGHT);
}

static void
the_remembered_minute_is_the_right_one(void **state)
{
	struct om_quiet_hours q = quiet("12", "13", NULL, "utc");

	(void)state;
	assert_false(
	    om_quiet_hours_inside(&q, (struct om_wall){ (MIDNIGHT + 12 * H - 1) * OM_NS_PER_S }));
	assert_true(
	    om_quiet_hours_inside(&q, (struct om_wall){ (MIDNIGHT + 12 * H) * OM_NS_PER_S }));
	assert_true(
	    om_quiet_hours_inside(&q, (struct om_wall){ (MIDNIGHT + 12 * H + 59) * OM_NS_PER_S }));
	assert_false(
	    om_quiet_hours_inside(&q, (struct om_wall){ (MIDNIGHT + 12 * H - 1) * OM_NS_PER_S }));
}

static void
bad_input(void **state)
{
	static const char *const bad[][4] = {
		{ "", "8", NULL, NULL },
		{ "22", "25", NULL, NULL },
		{ "22:60", "8", NULL, NULL },
		{ "22:0", "8", NULL, NULL },
		{ "22:00:00", "8", NULL, NULL },
		{ "ten", "8", NULL, NULL },
		{ "22", "8", "", NULL },
		{ "22", "8", "mon,", NULL },
		{ "22", "8", "mon-", NULL },
		{ "22", "8", "mon-tue-wed", NULL },
		{ "22", "8", "monday", NULL },
		{ "22", "8", NULL, "+15" },
		{ "22", "8", NULL, "Europe" },
		{ "22", "8", NULL, "+" },
		{ "22", "8", NULL, "Mars" },
		{ "22", "8", NULL, "../../../etc/passwd" },
		{ "22", "8", NULL, "/etc/localtime" },
	};
	struct om_quiet_hours q;
	struct om_why why;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		struct om_quiet_text text = { om_str_of(bad[i][0]), om_str_of(bad[i][1]),
					      om_str_of(bad[i][2]), om_str_of(bad[i][3]) };

		assert_int_equal(om_quiet_hours_parse(&text, &q, &why), OM_ERR_INVALID);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(within_a_day),
		cmocka_unit_test(over_midnight),
		cmocka_unit_test(equal_ends_are_never),
		cmocka_unit_test(days_are_those_of_the_start),
		cmocka_unit_test(fixed_zones),
		cmocka_unit_test(clocks_change),
		cmocka_unit_test(clocks_change_in_a_named_zone),
		cmocka_unit_test(zones_are_as_the_c_library_has_them),
		cmocka_unit_test(midnights),
		cmocka_unit_test(the_remembered_minute_is_the_right_one),
		cmocka_unit_test(bad_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
