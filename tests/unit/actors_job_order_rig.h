/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_JOB_ORDER_RIG_H
#define OM_TESTS_ACTORS_JOB_ORDER_RIG_H

/* An order of jobs and what its tests do to it, at t0 or some time after it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "actors/job_order.h"
#include "base/id.h"

static const struct om_wall t0 = { INT64_C(1700000000) * OM_NS_PER_S };

static inline struct om_wall
after_ms(int64_t ms)
{
	return (struct om_wall){ t0.ns + ms * OM_NS_PER_MS };
}

static inline struct om_job_order *
order_new(uint64_t max_jobs, uint64_t cores, uint64_t mem_mib)
{
	struct om_order_limits limits = { .max_jobs = max_jobs,
					  .cores_total = cores,
					  .mem_mib_total = mem_mib };
	struct om_job_order *o = NULL;

	assert_int_equal(om_job_order_new(&limits, &o), OM_OK);
	return o;
}

static inline uint64_t
add(struct om_job_order *o, const char *id, enum om_job_level level, uint32_t cores, uint32_t mem)
{
	struct om_order_job job = {
		.id = om_str_of(id), .level = level, .cores = cores, .mem_mib = mem
	};
	uint64_t ahead = UINT64_MAX;

	assert_int_equal(om_job_order_add(o, &job, t0, &ahead, NULL), OM_OK);
	return ahead;
}

/* The next job's id, "" for none; static memory. */
static inline const char *
pick(struct om_job_order *o, struct om_wall now)
{
	static char text[OM_JOB_ID_MAX + 1];
	struct om_order_job job;

	text[0] = '\0';
	if (om_job_order_pick(o, now, &job)) {
		assert_int_equal(om_str_copy(job.id, text, sizeof(text)), OM_OK);
	}
	return text;
}

static inline void
end(struct om_job_order *o, const char *id, enum om_order_end how)
{
	assert_int_equal(om_job_order_end(o, om_str_of(id), how), OM_OK);
}

static inline struct om_order_stats
stats(const struct om_job_order *o)
{
	struct om_order_stats s;

	om_job_order_stats(o, &s);
	return s;
}

/* Added, and picked at once. */
static inline void
start(struct om_job_order *o, const char *id)
{
	add(o, id, OM_LEVEL_NETWORK, 1, 1);
	assert_string_equal(pick(o, t0), id);
}

#endif /* OM_TESTS_ACTORS_JOB_ORDER_RIG_H */
