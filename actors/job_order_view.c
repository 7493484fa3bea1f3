/* SPDX-License-Identifier: ISC */
#include <stdio.h>

#include "actors/job_order_impl.h"

void
om_job_order_stats(const struct om_job_order *o, struct om_order_stats *out)
{
	uint64_t ended = o->total_completed + o->total_failed;

	*out = (struct om_order_stats){
		.queued = o->in[READY] + o->in[DELAYED] + o->in[HELD] + o->in[PARKED],
		.held = o->in[HELD],
		.delayed = o->in[DELAYED],
		.parked = o->in[PARKED],
		.running = o->in[RUNNING],
		.cores_used = o->cores_used,
		.mem_mib_used = o->mem_used,
		.total_queued = o->total_queued,
		.total_completed = o->total_completed,
		.total_failed = o->total_failed,
		.total_cancelled = o->total_cancelled,
		.success_rate = ended == 0 ? 0.0 : (double)o->total_completed / (double)ended,
	};
	for (unsigned level = 0; level < OM_LEVELS; level++) {
		out->ready[level] = o->ready_count[level];
	}
}

const struct om_order_limits *
om_job_order_limits(const struct om_job_order *o)
{
	return &o->limits;
}

bool
om_job_order_waiting(const struct om_job_order *o, enum om_job_level level, char *text,
		     size_t text_size)
{
	const struct om_order_limits *l = &o->limits;
	const struct job *job = TAILQ_FIRST(&o->ready[level]);
	int len;

	if (job == NULL) {
		return false;
	}
	len = snprintf(text, text_size, "%s: job %.*s waits: ", om_job_level_text(level),
		       OM_STR_ARG(job_order_id(&job->by_id)));
	if (len < 0 || (size_t)len >= text_size) {
		return true;
	}
	text += len;
	text_size -= (size_t)len;
	if (o->paused) {
		(void)snprintf(text, text_size, "the queue is paused%s%s",
			       o->pause_reason[0] != '\0' ? ": " : "", o->pause_reason);
	} else if (o->quiet && level != OM_LEVEL_OWNER) {
		(void)snprintf(text, text_size, "%s", o->quiet_text);
	} else if (o->in[RUNNING] >= l->max_jobs) {
		(void)snprintf(text, text_size, "%llu of %llu jobs are running",
			       (unsigned long long)o->in[RUNNING], (unsigned long long)l->max_jobs);
	} else if (l->cores_total != 0 && o->cores_used + job->cores > l->cores_total) {
		(void)snprintf(text, text_size, "it wants %u cores, %llu of %llu are free",
			       job->cores, (unsigned long long)(l->cores_total - o->cores_used),
			       (unsigned long long)l->cores_total);
	} else if (!job_order_fits(o, job)) {
		(void)snprintf(text, text_size, "it wants %u MiB, %llu of %llu are free",
			       job->mem_mib, (unsigned long long)(l->mem_mib_total - o->mem_used),
			       (unsigned long long)l->mem_mib_total);
	} else {
		(void)snprintf(text, text_size, "jobs before it have reserved the room");
	}
	return true;
}

struct om_wall
om_job_order_due(const struct om_job_order *o)
{
	const struct om_time_node *due = om_time_heap_first(&o->delayed);

	return (struct om_wall){ due == NULL ? 0 : due->at };
}

struct om_str
om_job_order_running(const struct om_job_order *o, struct om_order_walk *walk)
{
	const struct job *job = walk->begun ? walk->next : TAILQ_FIRST(&o->running);

	if (job == NULL) {
		return (struct om_str){ NULL, 0 };
	}
	walk->begun = true;
	walk->next = TAILQ_NEXT(job, link);
	return job_order_id(&job->by_id);
}
