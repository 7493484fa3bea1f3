/* SPDX-License-Identifier: ISC */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t
clock_ns(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts); /* cannot fail for these two clocks */
	return (int64_t)ts.tv_sec * OM_NS_PER_S + ts.tv_nsec;
}

struct om_mono
om_mono_now(void)
{
	return (struct om_mono){ clock_ns(CLOCK_MONOTONIC) };
}

struct om_wall
om_wall_now(void)
{
	return (struct om_wall){ clock_ns(CLOCK_REALTIME) };
}

void
om_wall_format(struct om_wall at, char out[OM_WALL_TEXT])
{
	int64_t ms = at.ns / OM_NS_PER_MS;
	time_t sec;
	struct tm tm;
	size_t len;

	if (at.ns % OM_NS_PER_MS < 0) {
		ms--; /* round down, also before 1970 */
	}
	sec = (time_t)(ms / 1000);
	ms %= 1000;
	if (ms < 0) {
		ms += 1000;
		sec--;
	}
	/* int64_t nanoseconds end in the year 2262: four digits, and gmtime_r cannot fail. */
	(void)gmtime_r(&sec, &tm);
	len = strftime(out, OM_WALL_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(out + len, OM_WALL_TEXT - len, ".%03dZ", (int)ms);
}
