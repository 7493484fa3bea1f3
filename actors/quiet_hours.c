/* SPDX-License-Identifier: ISC */
#include "actors/quiet_hours.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "actors/zone.h"
#include "base/parse.h"

#define DAY_MIN    (24 * 60)
#define WEEK       7
#define ALL_DAYS   0x7f
#define ZONE_MAX_H 14 /* the largest offset in use: UTC+14 */

static const char *const day_names[WEEK] = { "mon", "tue", "wed", "thu", "fri", "sat", "sun" };

/* "H", "HH" or "HH:MM" to minutes. */
static enum om_err
parse_clock(struct om_str s, uint64_t max_h, uint64_t *out)
{
	struct om_str rest = om_str_trim(s), piece;
	uint64_t h = 0, m = 0;

	if (!om_str_next(&rest, ':', &piece) || om_parse_u64(piece, 0, max_h, &h) != OM_OK) {
		return OM_ERR_INVALID;
	}
	if (om_str_next(&rest, ':', &piece)) {
		if (piece.len != 2 || om_parse_u64(piece, 0, 59, &m) != OM_OK ||
		    om_str_next(&rest, ':', &piece)) {
			return OM_ERR_INVALID;
		}
	}
	*out = h * 60 + m;
	return OM_OK;
}

static enum om_err
parse_time(struct om_str s, const char *what, uint16_t *out, char text[6], struct om_why *why)
{
	uint64_t min;

	if (parse_clock(s, 23, &min) != OM_OK) {
		return om_why_set(why, OM_ERR_INVALID,
				  "%s is a time from 00:00 to 23:59, not \"%.*s\"", what,
				  OM_STR_ARG(s));
	}
	*out = (uint16_t)min;
	(void)snprintf(text, 6, "%02u:%02u", (unsigned)(min / 60) % 24, (unsigned)min % 60);
	return OM_OK;
}

static int
parse_day(struct om_str s)
{
	for (int i = 0; i < WEEK; i++) {
		if (s.len == 3 && strncasecmp(s.ptr, day_names[i], 3) == 0) {
			return i;
		}
	}
	return -1;
}

/* "mon" or "fri-mon", which goes over the end of the week. */
static enum om_err
parse_day_range(struct om_str s, uint8_t *days)
{
	struct om_str rest = s, piece;
	int first, last;

	(void)om_str_next(&rest, '-', &piece);
	first = last = parse_day(om_str_trim(piece));
	if (om_str_next(&rest, '-', &piece)) {
		last = parse_day(om_str_trim(piece));
	}
	if (first < 0 || last < 0 || om_str_next(&rest, '-', &piece)) {
		return OM_ERR_INVALID;
	}
	for (int day = first;; day = (day + 1) % WEEK) {
		*days = (uint8_t)(*days | 1u << day);
		if (day == last) {
			return OM_OK;
		}
	}
}

static enum om_err
parse_days(struct om_str s, uint8_t *out, struct om_why *why)
{
	struct om_str rest = s, piece;

	*out = 0;
	if (s.ptr == NULL || om_str_is(om_str_trim(s), "all")) {
		*out = ALL_DAYS;
		return OM_OK;
	}
	while (om_str_next(&rest, ',', &piece)) {
		if (parse_day_range(om_str_trim(piece), out) != OM_OK) {
			return om_why_set(why, OM_ERR_INVALID,
					  "days are mon, tue ... sun, ranges, or all, not \"%.*s\"",
					  OM_STR_ARG(s));
		}
	}
	return OM_OK;
}

static enum om_err
parse_zone_why(struct om_str s, struct om_why *why)
{
	return om_why_set(why, OM_ERR_INVALID,
			  "zone is local, utc, an offset such as +02:00 or a name such as "
			  "Europe/Berlin, not \"%.*s\"",
			  OM_STR_ARG(s));
}

static enum om_err
parse_zone(struct om_str s, struct om_quiet_hours *out, struct om_why *why)
{
	uint64_t min;

	s = om_str_trim(s);
	out->local = s.len == 0 || om_str_is(s, "local");
	if (out->local || om_str_is(s, "utc") || om_str_is(s, "UTC")) {
		return OM_OK;
	}
	if (s.ptr[0] != '+' && s.ptr[0] != '-') {
		return om_zone_open(s, &out->zone) == OM_OK ? OM_OK : parse_zone_why(s, why);
	}
	if (parse_clock((struct om_str){ s.ptr + 1, s.len - 1 }, ZONE_MAX_H, &min) != OM_OK) {
		return parse_zone_why(s, why);
	}
	out->offset_s = (int32_t)min * (s.ptr[0] == '-' ? -60 : 60);
	return OM_OK;
}

enum om_err
om_quiet_hours_parse(const struct om_quiet_text *text, struct om_quiet_hours *out,
		     struct om_why *why)
{
	enum om_err err;

	*out = (struct om_quiet_hours){ .at_min = INT64_MIN };
	err = parse_time(text->start, "start", &out->start_min, out->start_text, why);
	if (err == OM_OK) {
		err = parse_time(text->end, "end", &out->end_min, out->end_text, why);
	}
	if (err == OM_OK) {
		err = parse_days(text->days, &out->days, why);
	}
	if (err == OM_OK) {
		err = parse_zone(text->zone, out, why);
	}
	return err;
}

void
om_quiet_hours_fini(struct om_quiet_hours *quiet)
{
	om_zone_free(quiet->zone);
	quiet->zone = NULL;
}

/* Minute of the day and day of the week (0: Monday) on the wall. */
static void
wall_clock(const struct om_quiet_hours *quiet, int64_t unix_s, int *minute, int *day)
{
	int64_t offset_s =
	    quiet->zone != NULL ? om_zone_offset(quiet->zone, unix_s) : quiet->offset_s;
	time_t t = (time_t)(quiet->local ? unix_s : unix_s + offset_s);
	struct tm tm;

	if (quiet->local) {
		(void)localtime_r(&t, &tm);
	} else {
		(void)gmtime_r(&t, &tm);
	}
	*minute = tm.tm_hour * 60 + tm.tm_min;
	*day = (tm.tm_wday + WEEK - 1) % WEEK;
}

static bool
inside(const struct om_quiet_hours *quiet, int64_t unix_s)
{
	int minute, day;

	wall_clock(quiet, unix_s, &minute, &day);
	if (quiet->start_min == quiet->end_min) {
		return false;
	}
	if (quiet->start_min < quiet->end_min) {
		return minute >= quiet->start_min && minute < quiet->end_min &&
		       (quiet->days >> day & 1) != 0;
	}
	if (minute >= quiet->start_min) {
		return (quiet->days >> day & 1) != 0;
	}
	return minute < quiet->end_min && (quiet->days >> (day + WEEK - 1) % WEEK & 1) != 0;
}

bool
om_quiet_hours_inside(struct om_quiet_hours *quiet, struct om_wall now)
{
	int64_t unix_s = now.ns / OM_NS_PER_S;

	/* Windows begin and end on whole minutes, and so do changes of the clocks. */
	if (quiet->at_min != unix_s / 60) {
		quiet->at_min = unix_s / 60;
		quiet->inside = inside(quiet, unix_s);
	}
	return quiet->inside;
}

int64_t
om_local_midnight(struct om_wall now)
{
	time_t t = (time_t)(now.ns / OM_NS_PER_S);
	struct tm tm;

	(void)localtime_r(&t, &tm);
	tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
	tm.tm_isdst = -1;
	return (int64_t)mktime(&tm);
}
