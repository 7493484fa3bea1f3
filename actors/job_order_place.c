/* SPDX-License-Identifier: ISC */
/* Where a job is: the lists, the heap, and the groups beside them.  Invariants: job_order.c. */
#include <stdlib.h>
#include <string.h>

#include "actors/job_order_impl.h"
#include "base/assert.h"

static bool
is_active(enum where where)
{
	return where == READY || where == RUNNING;
}

void
job_order_leave(struct om_job_order *o, struct job *job)
{
	if (job->group != NULL && is_active((enum where)job->where)) {
		job->group->active--;
	}
	switch ((enum where)job->where) {
	case READY:
		TAILQ_REMOVE(&o->ready[job->level], job, link);
		o->ready_count[job->level]--;
		break;
	case DELAYED:
		om_time_heap_remove(&o->delayed, &job->due);
		break;
	case RUNNING:
		TAILQ_REMOVE(&o->running, job, link);
		o->cores_used -= job->cores;
		o->mem_used -= job->mem_mib;
		break;
	case PARKED:
		TAILQ_REMOVE(&job->group->parked, job, link);
		break;
	case HELD:
	case PLACES:
		break;
	}
	o->in[job->where]--;
	job->where = PLACES;
}

/* Only DELAYED can fail (NOMEM); the job is then in no place. */
enum om_err
job_order_enter(struct om_job_order *o, struct job *job, enum where where, bool first)
{
	OM_ASSERT(job->where == PLACES);
	switch (where) {
	case READY:
		if (first) {
			TAILQ_INSERT_HEAD(&o->ready[job->level], job, link);
		} else {
			TAILQ_INSERT_TAIL(&o->ready[job->level], job, link);
		}
		o->ready_count[job->level]++;
		break;
	case DELAYED:
		if (om_time_heap_add(&o->delayed, &job->due, job->not_before_ns) != OM_OK) {
			return OM_ERR_NOMEM;
		}
		break;
	case RUNNING:
		TAILQ_INSERT_TAIL(&o->running, job, link);
		o->cores_used += job->cores;
		o->mem_used += job->mem_mib;
		break;
	case PARKED:
		if (first) {
			TAILQ_INSERT_HEAD(&job->group->parked, job, link);
		} else {
			TAILQ_INSERT_TAIL(&job->group->parked, job, link);
		}
		break;
	case HELD:
	case PLACES:
		break;
	}
	job->where = (uint8_t)where;
	o->in[where]++;
	if (job->group != NULL && is_active(where)) {
		job->group->active++;
	}
	return OM_OK;
}

/* In its level's line, or beside it when enough of its group are there. */
void
job_order_ready(struct om_job_order *o, struct job *job, bool first)
{
	const struct group *group = job->group;
	const bool park = group != NULL && group->active >= group->limit;

	(void)!job_order_enter(o, job, park ? PARKED : READY, first); /* only DELAYED can fail */
}

/*
 * One of the group has gone: the next comes in, behind all that were ready before it.  What is
 * running has left the head of the line, so those are few.
 */
void
job_order_unpark(struct om_job_order *o, struct group *group)
{
	struct job *job, *at;

	if (group == NULL || group->active >= group->limit || TAILQ_EMPTY(&group->parked)) {
		return;
	}
	job = TAILQ_FIRST(&group->parked);
	job_order_leave(o, job);
	TAILQ_FOREACH(at, &o->ready[job->level], link)
	{
		if (at->ready_ns > job->ready_ns) {
			break;
		}
	}
	(void)!job_order_enter(o, job, READY, false);
	if (at != NULL) {
		TAILQ_REMOVE(&o->ready[job->level], job, link);
		TAILQ_INSERT_BEFORE(at, job, link);
	}
}

/* To where a job that is not held belongs now. */
enum om_err
job_order_queue(struct om_job_order *o, struct job *job, struct om_wall now)
{
	if (job->not_before_ns > now.ns) {
		return job_order_enter(o, job, DELAYED, false);
	}
	job->ready_ns = now.ns;
	job_order_ready(o, job, false);
	return OM_OK;
}

/* One job less in it. */
void
job_order_group_leave(struct om_job_order *o, struct group *group)
{
	if (group != NULL && --group->jobs == 0) {
		om_name_table_remove(&o->groups, &group->by_name);
		free(group);
	}
}

/* Makes the group with its first job.  *out NULL: the job is in none. */
enum om_err
job_order_group_join(struct om_job_order *o, const struct om_order_job *from, struct group **out)
{
	struct group *group = NULL;

	if (from->group.len > 0 && from->group_limit > 0) {
		group = (struct group *)om_name_table_find(&o->groups, from->group);
		if (group == NULL) {
			group = calloc(1, sizeof(*group) + from->group.len);
			if (group == NULL) {
				return OM_ERR_NOMEM;
			}
			memcpy(group->name, from->group.ptr, from->group.len);
			group->name_len = (uint8_t)from->group.len;
			group->limit = from->group_limit;
			TAILQ_INIT(&group->parked);
			if (om_name_table_add(&o->groups, &group->by_name) != OM_OK) {
				free(group);
				return OM_ERR_NOMEM;
			}
		}
		group->jobs++;
	}
	*out = group;
	return OM_OK;
}
