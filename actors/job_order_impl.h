/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_ORDER_IMPL_H
#define OM_ACTORS_JOB_ORDER_IMPL_H

/* Shared by job_order.c (what happens) and job_order_view.c (what can be seen). */
#include <sys/queue.h>

#include "actors/job_order.h"
#include "actors/name_table.h"
#include "actors/time_heap.h"

enum where { READY, DELAYED, HELD, RUNNING, PLACES };

struct job {
	struct om_name_node by_id; /* first */
	TAILQ_ENTRY(job) link; /* READY, RUNNING */
	struct om_time_node due; /* DELAYED */
	int64_t not_before_ns;
	int64_t ready_ns; /* when it came into its line, for ageing */
	uint32_t cores, mem_mib;
	uint32_t passed; /* jobs that started while this one was the first that did not fit */
	uint8_t level, where;
	bool cancelled; /* RUNNING: a put-back is its end */
	uint8_t id_len;
	char id[];
};

TAILQ_HEAD(line, job);

struct om_job_order {
	struct om_order_limits limits;
	struct om_name_table by_id;
	struct line ready[OM_LEVELS];
	uint64_t ready_count[OM_LEVELS];
	struct line running;
	struct om_time_heap delayed;
	uint64_t in[PLACES];
	uint64_t cores_used, mem_used;
	uint64_t total_queued, total_completed, total_failed, total_cancelled;
	bool paused;
	char pause_reason[OM_ORDER_TEXT_MAX + 1];
};

static inline struct om_str
job_order_id(const struct om_name_node *node)
{
	const struct job *job = (const struct job *)node;

	return (struct om_str){ job->id, job->id_len };
}

/* There is room for it now. */
static inline bool
job_order_fits(const struct om_job_order *o, const struct job *job)
{
	const struct om_order_limits *l = &o->limits;

	return (l->cores_total == 0 || o->cores_used + job->cores <= l->cores_total) &&
	       (l->mem_mib_total == 0 || o->mem_used + job->mem_mib <= l->mem_mib_total);
}

#endif /* OM_ACTORS_JOB_ORDER_IMPL_H */
