/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_ORDER_IMPL_H
#define OM_ACTORS_JOB_ORDER_IMPL_H

/* Shared by job_order.c (what happens), job_order_place.c (where a job is) and job_order_view.c (what
 * can be seen). */
#include <sys/queue.h>

#include "actors/job_order.h"
#include "actors/name_table.h"
#include "actors/time_heap.h"

enum where { READY, DELAYED, HELD, RUNNING, PARKED, PLACES };

struct job;
TAILQ_HEAD(line, job);

/* Jobs of which so many may be READY or RUNNING; gone with its last job. */
struct group {
	struct om_name_node by_name; /* first */
	struct line parked;
	uint64_t jobs; /* all of it that are here */
	uint32_t limit, active; /* active: READY or RUNNING */
	uint8_t name_len;
	char name[];
};

struct job {
	struct om_name_node by_id; /* first */
	uint32_t passed; /* jobs that started while this one was the first that did not fit */
	TAILQ_ENTRY(job) link; /* READY, RUNNING, PARKED */
	struct group *group; /* NULL: none */
	struct om_time_node due; /* DELAYED */
	int64_t not_before_ns;
	int64_t ready_ns; /* when it came into its line, for ageing */
	uint32_t cores, mem_mib;
	uint8_t level, where;
	bool cancelled; /* RUNNING: a put-back is its end */
	uint8_t id_len;
	char id[];
};

struct om_job_order {
	struct om_order_limits limits;
	struct om_name_table by_id;
	struct om_name_table groups;
	struct line ready[OM_LEVELS];
	uint64_t ready_count[OM_LEVELS];
	struct line running;
	struct om_time_heap delayed;
	uint64_t in[PLACES];
	uint64_t cores_used, mem_used;
	uint64_t total_queued, total_completed, total_failed, total_cancelled;
	bool paused, quiet;
	char quiet_text[OM_ORDER_TEXT_MAX + 1];
	char pause_reason[OM_ORDER_TEXT_MAX + 1];
};

static inline struct om_str
job_order_id(const struct om_name_node *node)
{
	const struct job *job = (const struct job *)node;

	return (struct om_str){ job->id, job->id_len };
}

static inline struct om_str
job_order_group(const struct om_name_node *node)
{
	const struct group *group = (const struct group *)node;

	return (struct om_str){ group->name, group->name_len };
}

/* There is room for it now. */
static inline bool
job_order_fits(const struct om_job_order *o, const struct job *job)
{
	const struct om_order_limits *l = &o->limits;

	return (l->cores_total == 0 || o->cores_used + job->cores <= l->cores_total) &&
	       (l->mem_mib_total == 0 || o->mem_used + job->mem_mib <= l->mem_mib_total);
}

/* --- job_order_place.c ------------------------------------------------------------------------ */

void job_order_leave(struct om_job_order *o, struct job *job);
/* Only DELAYED can fail (NOMEM); the job is then in no place. */
enum om_err job_order_enter(struct om_job_order *o, struct job *job, enum where where, bool first);
/* In its level's line, or beside it when enough of its group are there. */
void job_order_ready(struct om_job_order *o, struct job *job, bool first);
/* To where a job that is not held belongs now; fails as DELAYED does. */
enum om_err job_order_queue(struct om_job_order *o, struct job *job, struct om_wall now);
/* A job of the group (NULL: none) has left: the next comes in. */
void job_order_unpark(struct om_job_order *o, struct group *group);
/* One job less in it. */
void job_order_group_leave(struct om_job_order *o, struct group *group);
/* The group of a new job, made with its first.  *out NULL: the job is in none.  NOMEM. */
enum om_err job_order_group_join(struct om_job_order *o, const struct om_order_job *from,
				 struct group **out);

#endif /* OM_ACTORS_JOB_ORDER_IMPL_H */
