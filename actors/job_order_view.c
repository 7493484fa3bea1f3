/* SPDX-License-Identifier: ISC */
#include <stdio.h>
#include <time.h>

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

/* Why a job that is in its line does not start now; ahead: so many are before it. */
static const char *
ready_why(const struct om_job_order *o, const struct job *job, uint64_t ahead, char *text,
	  size_t text_size)
{
	const struct om_order_limits *l = &o->limits;

	if (o->paused) {
		(void)snprintf(text, text_size, "the queue is paused%s%s",
			       o->pause_reason[0] != '\0' ? ": " : "", o->pause_reason);
		return "paused";
	}
	if (o->quiet && job->level != OM_LEVEL_OWNER) {
		(void)snprintf(text, text_size, "%s", o->quiet_text);
		return "quiet_hours";
	}
	if (o->in[RUNNING] >= l->max_jobs) {
		(void)snprintf(text, text_size, "%llu of %llu jobs are running",
			       (unsigned long long)o->in[RUNNING], (unsigned long long)l->max_jobs);
		return "slots";
	}
	if (l->cores_total != 0 && o->cores_used + job->cores > l->cores_total) {
		(void)snprintf(text, text_size, "it wants %u cores, %llu of %llu are free",
			       job->cores, (unsigned long long)(l->cores_total - o->cores_used),
			       (unsigned long long)l->cores_total);
		return "resources";
	}
	if (!job_order_fits(o, job)) {
		(void)snprintf(text, text_size, "it wants %u MiB, %llu of %llu are free",
			       job->mem_mib, (unsigned long long)(l->mem_mib_total - o->mem_used),
			       (unsigned long long)l->mem_mib_total);
		return "resources";
	}
	(void)snprintf(text, text_size, "jobs before it have reserved the room");
	return ahead > 0 ? "turn" : "resources";
}

bool
om_job_order_waiting(const struct om_job_order *o, enum om_job_level level, char *text,
		     size_t text_size)
{
	const struct job *job = TAILQ_FIRST(&o->ready[level]);
	int len;

	if (job == NULL) {
		return false;
	}
	len = snprintf(text, text_size, "%s: job %.*s waits: ", om_job_level_text(level),
		       OM_STR_ARG(job_order_id(&job->by_id)));
	if (len >= 0 && (size_t)len < text_size) {
		(void)ready_why(o, job, 0, text + len, text_size - (size_t)len);
	}
	return true;
}

/* A long line is not walked to its end. */
static uint64_t
ahead_of(const struct om_job_order *o, const struct job *job)
{
	const struct job *at;
	uint64_t ahead = 0, mine = 0;

	for (unsigned level = 0; level < job->level; level++) {
		ahead += o->ready_count[level];
	}
	TAILQ_FOREACH(at, &o->ready[job->level], link)
	{
		if (at == job || mine == OM_ORDER_AHEAD_MAX) {
			break;
		}
		mine++;
	}
	return ahead + mine;
}

static const char *
when(int64_t ns, char *out, size_t size)
{
	const time_t seconds = (time_t)(ns / OM_NS_PER_S);
	struct tm tm;

	if (gmtime_r(&seconds, &tm) == NULL ||
	    strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
		(void)snprintf(out, size, "its time");
	}
	return out;
}

enum om_err
om_job_order_why(const struct om_job_order *o, struct om_str id, struct om_order_why *out)
{
	const struct job *job = (const struct job *)om_name_table_find(&o->by_id, id);
	char time_text[32];

	*out = (struct om_order_why){ .code = NULL };
	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	switch ((enum where)job->where) {
	case HELD:
		out->code = "held";
		(void)snprintf(out->text, sizeof(out->text), "it is held and waits for a release");
		break;
	case DELAYED:
		out->code = "not_before";
		(void)snprintf(out->text, sizeof(out->text), "it starts no earlier than %s",
			       when(job->not_before_ns, time_text, sizeof(time_text)));
		break;
	case PARKED:
		out->code = "array_limit";
		(void)snprintf(out->text, sizeof(out->text),
			       "%u of its array run or are before it, that is the array's limit",
			       job->group->limit);
		break;
	case READY:
		out->may_start = true;
		out->ahead = ahead_of(o, job);
		out->code = ready_why(o, job, out->ahead, out->text, sizeof(out->text));
		break;
	case RUNNING:
	case PLACES:
		break;
	}
	return OM_OK;
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
