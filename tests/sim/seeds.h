/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_SIM_SEEDS_H
#define OM_TESTS_SIM_SEEDS_H

/*
 * What a simulation is run with: SEED=n plays one, SEEDS=n those from 1 on.  A check that fails says
 * the seed to replay.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/log.h"

#define SEEDS_DEFAULT 10000

static const char *program;
static uint64_t seed_now;

static void
fail_at(const char *what, int line)
{
	fprintf(stderr, "FAIL %s (line %d)\nreplay: SEED=%" PRIu64 " %s\n", what, line, seed_now,
		program);
	exit(1);
}
#define CHECK(cond)                               \
	do {                                      \
		if (!(cond)) {                    \
			fail_at(#cond, __LINE__); \
		}                                 \
	} while (0)

/* How many were played, or 0: only the one that was asked for. */
static uint64_t
each_seed(const char *name, void (*play)(uint64_t seed, bool alone))
{
	const char *one = getenv("SEED"), *many = getenv("SEEDS");
	uint64_t count = many != NULL ? strtoull(many, NULL, 10) : SEEDS_DEFAULT;

	program = name;
	om_log_set_level(OM_LOG_ERROR); /* supervisors give up here all the time */
	if (one != NULL) {
		seed_now = strtoull(one, NULL, 10);
		play(seed_now, true);
		return 0;
	}
	for (seed_now = 1; seed_now <= count; seed_now++) {
		play(seed_now, false);
	}
	return count;
}

#endif /* OM_TESTS_SIM_SEEDS_H */
