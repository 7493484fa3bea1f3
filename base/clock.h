/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_CLOCK_H
#define OM_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Two clocks in two types, so that the compiler finds mix-ups. */
struct om_mono {
	int64_t ns; /* CLOCK_MONOTONIC: for durations and deadlines */
};
struct om_wall {
	int64_t ns; /* CLOCK_REALTIME since 1970: for people and for the ledger */
};

#define OM_NS_PER_MS INT64_C(1000000)
#define OM_NS_PER_S  INT64_C(1000000000)

/* Any thread. */
struct om_mono om_mono_now(void);
struct om_wall om_wall_now(void);

static inline int64_t
om_mono_ms_between(struct om_mono from, struct om_mono to)
{
	return (to.ns - from.ns) / OM_NS_PER_MS;
}

#define OM_WALL_TEXT 32 /* "2026-11-23T15:04:05.123Z" and the NUL */

/* Any thread.  UTC, ISO 8601, milliseconds.  out has OM_WALL_TEXT bytes. */
void om_wall_format(struct om_wall at, char out[OM_WALL_TEXT]);

#endif /* OM_BASE_CLOCK_H */
