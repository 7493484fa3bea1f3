/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_QUIET_HOURS_H
#define OM_ACTORS_QUIET_HOURS_H

/*
 * A daily window of time.  Owner thread (it remembers the last minute it looked at).
 *
 * From start (included) to end (not included), by the clock on the wall.  end before start: over
 * midnight; the part after midnight belongs to the day on which the window began.  start equal to
 * end: never.  When the clocks go forward, minutes that do not exist are not waited for
 * (02:30-03:30 is then 03:00-03:30); when they go back, both passes of an hour count.
 */
#include "base/buf.h"
#include "base/clock.h"

struct om_zone;

struct om_quiet_hours {
	uint16_t start_min, end_min; /* since midnight */
	uint8_t days; /* bit 0: Monday; days on which the window begins */
	bool local; /* the system's time zone (TZ, /etc/localtime) with its DST rules */
	struct om_zone *zone; /* or that of a name; owned, see om_quiet_hours_fini */
	int32_t offset_s; /* neither: east of UTC */
	char start_text[6], end_text[6]; /* "22:00" */
	/* remembered */
	int64_t at_min; /* minutes since 1970 */
	bool inside;
};

struct om_quiet_text {
	struct om_str start, end; /* "22:00" or "22" */
	struct om_str days; /* "mon-fri", "sat,sun"; absent: all */
	struct om_str zone; /* "local", "utc", "+02:00" or "Europe/Berlin"; absent: local */
};

/* OM_ERR_INVALID, why says what.  A zone's name is looked up in a small file. */
enum om_err om_quiet_hours_parse(const struct om_quiet_text *text, struct om_quiet_hours *out,
				 struct om_why *why) OM_MUST_CHECK;

void om_quiet_hours_fini(struct om_quiet_hours *quiet);

bool om_quiet_hours_inside(struct om_quiet_hours *quiet, struct om_wall now);

/* Any thread.  Seconds since 1970 of the last local midnight. */
int64_t om_local_midnight(struct om_wall now);

#endif /* OM_ACTORS_QUIET_HOURS_H */
