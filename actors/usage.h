/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_USAGE_H
#define OM_ACTORS_USAGE_H

/*
 * How jobs ended, how long they waited and ran: per level and per requester, since the start.
 * Plain logic.  Times are kept in buckets, four for each doubling, so that a percentile is at most
 * a fifth too high and never too low.
 *
 * All functions: owner thread.
 */
#include "actors/job_level.h"
#include "actors/name_table.h"
#include "msg/schema.h"
#include "store/job_state.h"

#define OM_USAGE_PEERS_MAX 1000 /* requesters with counts of their own; the rest is "(others)" */
#define OM_USAGE_BUCKETS   144 /* up to 2^36 ms, two years */

struct om_spread {
	uint32_t count[OM_USAGE_BUCKETS];
	uint64_t total;
};

/* Any thread. */
void om_spread_add(struct om_spread *spread, uint64_t ms);
/* The upper edge of the bucket that holds the q-th part (0 to 1); 0: nothing was added. */
uint64_t om_spread_at(const struct om_spread *spread, double q);

struct om_usage_of {
	uint64_t completed, failed, cancelled, other, run_ms;
	struct om_spread wait, run;
};

struct om_usage {
	struct om_usage_of levels[OM_LEVELS];
	struct om_name_table peers;
	struct om_usage_of others;
};

void om_usage_init(struct om_usage *usage);
void om_usage_fini(struct om_usage *usage);
/* A job that has ended; no memory: it counts with the others. */
void om_usage_add(struct om_usage *usage, const struct om_job_info *info);
/* Fills the answer; views are borrowed until the next add.  NOMEM. */
enum om_err om_usage_tell(const struct om_usage *usage, struct om_arena *arena,
			  struct om_usage_table *out) OM_MUST_CHECK;

#endif /* OM_ACTORS_USAGE_H */
