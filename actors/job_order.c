/* SPDX-License-Identifier: ISC */
/*
 * Where a job is, and the list or heap that holds it:
 *
 *   READY    in its level's line          DELAYED  in the heap, until not_before
 *   HELD     in no list                   RUNNING  in the list of running jobs
 *   PARKED   in its group's line: as many of the group as may be are READY or RUNNING
 *
 * 1. A job is in exactly the place that its `where` names; job_order_leave and job_order_enter are the only
 *    functions that change it.  If broken: a job starts twice or never.
 * 2. cores_used and mem_used are the sums over RUNNING.  If broken: the machine is over-committed
 *    or a job waits for room that is there.
 * 3. `passed` counts the jobs that started while this one was the first that did not fit; it is in
 *    the job, so the next first job starts at zero and the wait of each is bounded.
 * 4. A group's `active` counts its READY and RUNNING jobs; it is never over the limit, and at it
 *    while one is PARKED.  If broken: the group stands still, or more of it run than may.
 * 5. A line is in the order of ready_ns, but for a clock that was set.  If broken: a parked job comes
 *    in at the wrong turn.
 */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "actors/job_order_impl.h"
#include "base/assert.h"
#include "base/id.h"

#define CACHE_LINE 64

static struct job *
job_find(const struct om_job_order *o, struct om_str id)
{
	return (struct job *)om_name_table_find(&o->by_id, id);
}

static struct job *
job_of_due(struct om_time_node *node)
{
	return (struct job *)((char *)node - offsetof(struct job, due));
}

enum om_err
om_job_order_new(const struct om_order_limits *limits, struct om_job_order **out)
{
	struct om_job_order *o;

	if (limits->max_jobs == 0) {
		return OM_ERR_INVALID;
	}
	o = calloc(1, sizeof(*o));
	if (o == NULL) {
		return OM_ERR_NOMEM;
	}
	o->limits = *limits;
	om_name_table_init(&o->by_id, job_order_id);
	om_name_table_init(&o->groups, job_order_group);
	for (unsigned i = 0; i < OM_LEVELS; i++) {
		TAILQ_INIT(&o->ready[i]);
	}
	TAILQ_INIT(&o->running);
	*out = o;
	return OM_OK;
}

void
om_job_order_free(struct om_job_order *o)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	if (o == NULL) {
		return;
	}
	while ((node = om_name_table_next(&o->by_id, &walk)) != NULL) {
		free(node);
	}
	om_name_table_fini(&o->by_id);
	walk = (struct om_name_walk){ 0 };
	while ((node = om_name_table_next(&o->groups, &walk)) != NULL) {
		free(node);
	}
	om_name_table_fini(&o->groups);
	om_time_heap_fini(&o->delayed);
	free(o);
}

/* --- adding ----------------------------------------------------------------------------------- */

static void
job_forget(struct om_job_order *o, struct job *job)
{
	struct group *group = job->group;

	job_order_leave(o, job);
	om_name_table_remove(&o->by_id, &job->by_id);
	free(job);
	job_order_unpark(o, group);
	job_order_group_leave(o, group);
}

static enum om_err
fits_ever(const struct om_job_order *o, const struct om_order_job *job, struct om_why *why)
{
	const struct om_order_limits *l = &o->limits;

	if (l->cores_total != 0 && job->cores > l->cores_total) {
		return om_why_set(why, OM_ERR_LIMIT, "it wants %u cores and %llu are lent in all",
				  job->cores, (unsigned long long)l->cores_total);
	}
	if (l->mem_mib_total != 0 && job->mem_mib > l->mem_mib_total) {
		return om_why_set(why, OM_ERR_LIMIT, "it wants %u MiB and %llu MiB are lent in all",
				  job->mem_mib, (unsigned long long)l->mem_mib_total);
	}
	return OM_OK;
}

static uint64_t
count_ahead(const struct om_job_order *o, const struct job *job)
{
	uint64_t ahead = 0;

	for (unsigned level = 0; level <= job->level; level++) {
		ahead += o->ready_count[level];
	}
	return ahead;
}

static struct job *
job_make(struct om_job_order *o, const struct om_order_job *from)
{
	struct job *job = calloc(1, offsetof(struct job, id) + from->id.len);

	if (job != NULL && job_order_group_join(o, from, &job->group) != OM_OK) {
		free(job);
		job = NULL;
	}
	if (job != NULL) {
		memcpy(job->id, from->id.ptr, from->id.len);
		job->id_len = (uint8_t)from->id.len;
		job->level = (uint8_t)from->level;
		job->cores = from->cores;
		job->mem_mib = from->mem_mib;
		job->not_before_ns = from->not_before.ns;
		job->where = PLACES;
	}
	return job;
}

uint32_t
om_job_order_expect(const struct om_job_order *o, struct om_str id)
{
	const uint32_t hash = om_name_hash(id);

	om_name_table_expect(&o->by_id, hash);
	return hash;
}

enum om_err
om_job_order_add(struct om_job_order *o, const struct om_order_job *add, struct om_wall now,
		 uint64_t *ahead, struct om_why *why)
{
	struct job *job;
	uint32_t hash;
	enum om_err err;

	if (add->id.len == 0 || add->id.len > OM_JOB_ID_MAX || add->group.len > OM_JOB_ID_MAX ||
	    (unsigned)add->level >= OM_LEVELS) {
		return om_why_set(why, OM_ERR_INVALID, "the job's id, group or level is not valid");
	}
	err = fits_ever(o, add, why);
	if (err != OM_OK) {
		return err;
	}
	hash = add->hash != 0 ? add->hash : om_job_order_expect(o, add->id);
	job = job_make(o, add);
	if (job == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	job->by_id.hash = hash;
	err = om_name_table_add_hashed(&o->by_id, &job->by_id);
	if (err != OM_OK) {
		job_order_group_leave(o, job->group);
		free(job);
		return om_why_set(why, err, "job %.*s is in the queue already",
				  OM_STR_ARG(add->id));
	}
	*ahead = count_ahead(o, job);
	err = add->held ? job_order_enter(o, job, HELD, false) : job_order_queue(o, job, now);
	if (err != OM_OK) {
		om_name_table_remove(&o->by_id, &job->by_id);
		job_order_group_leave(o, job->group);
		free(job);
		return om_why_set(why, err, "out of memory");
	}
	o->total_queued++;
	return OM_OK;
}

/* --- picking ---------------------------------------------------------------------------------- */

static void
wake_delayed(struct om_job_order *o, struct om_wall now)
{
	struct om_time_node *due;

	while ((due = om_time_heap_first(&o->delayed)) != NULL && due->at <= now.ns) {
		struct job *job = job_of_due(due);

		job_order_leave(o, job);
		job->ready_ns = now.ns;
		job_order_ready(o, job, false);
	}
}

/* The level at which a line's first job competes now: its own, or higher by ageing. */
static int64_t
competes_at(const struct om_job_order *o, unsigned level, struct om_wall now)
{
	const struct job *job = TAILQ_FIRST(&o->ready[level]);
	int64_t age_ns = (int64_t)o->limits.age_ms * OM_NS_PER_MS;

	if (job == NULL || age_ns == 0 || now.ns <= job->ready_ns) {
		return level;
	}
	return (int64_t)level - (now.ns - job->ready_ns) / age_ns;
}

/* Levels in the order in which their lines are looked at; equal: the higher level. */
static void
order_levels(const struct om_job_order *o, struct om_wall now, unsigned order[OM_LEVELS])
{
	for (unsigned level = 0; level < OM_LEVELS; level++) {
		int64_t at = competes_at(o, level, now);
		unsigned i = level;

		while (i > 0 && competes_at(o, order[i - 1], now) > at) {
			order[i] = order[i - 1];
			i--;
		}
		order[i] = level;
	}
}

static struct job *
find_startable(struct om_job_order *o, struct om_wall now)
{
	unsigned order[OM_LEVELS];
	struct job *blocked = NULL; /* the first that does not fit */
	struct job *job;
	unsigned looked = 0;

	order_levels(o, now, order);
	for (unsigned i = 0; i < OM_LEVELS; i++) {
		if (o->quiet && order[i] != OM_LEVEL_OWNER) {
			continue;
		}
		TAILQ_FOREACH(job, &o->ready[order[i]], link)
		{
			if (job_order_fits(o, job)) {
				if (blocked != NULL) {
					blocked->passed++;
				}
				return job;
			}
			if (blocked == NULL) {
				blocked = job;
			}
			if (blocked->passed >= OM_ORDER_PASS_MAX || ++looked == OM_ORDER_SCAN_MAX) {
				return NULL;
			}
		}
	}
	return NULL;
}

static void
job_tell(const struct job *job, struct om_order_job *out)
{
	*out = (struct om_order_job){
		.id = job_order_id(&job->by_id),
		.level = (enum om_job_level)job->level,
		.cores = job->cores,
		.mem_mib = job->mem_mib,
		.not_before = { job->not_before_ns },
	};
}

/*
 * The jobs behind this one will be picked and ended soon.  In a long queue neither they nor their
 * lines of the table are in any cache; fetched one pick ahead they cost no waiting.
 */
static void
look_ahead(const struct om_job_order *o, const struct job *job)
{
	const struct job *next = TAILQ_NEXT(job, link);
	const struct job *after = next != NULL ? TAILQ_NEXT(next, link) : NULL;

	if (next != NULL) {
		om_name_table_expect(&o->by_id, next->by_id.hash);
	}
	if (after != NULL) {
		__builtin_prefetch(after, 1);
		__builtin_prefetch((const char *)after + CACHE_LINE, 1);
	}
}

bool
om_job_order_pick(struct om_job_order *o, struct om_wall now, struct om_order_job *out)
{
	struct job *job;

	wake_delayed(o, now);
	if (o->paused || o->in[RUNNING] >= o->limits.max_jobs) {
		return false;
	}
	job = find_startable(o, now);
	if (job == NULL) {
		return false;
	}
	look_ahead(o, job);
	job_order_leave(o, job);
	job->passed = 0;
	(void)job_order_enter(o, job, RUNNING, false); /* only DELAYED can fail */
	job_tell(job, out);
	return true;
}

/* --- the ends of a job ------------------------------------------------------------------------ */

static struct job *
find_running(const struct om_job_order *o, struct om_str id)
{
	struct job *job = job_find(o, id);

	return job != NULL && job->where == RUNNING ? job : NULL;
}

enum om_err
om_job_order_put_back(struct om_job_order *o, struct om_str id)
{
	struct job *job = find_running(o, id);

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (job->cancelled) {
		o->total_cancelled++;
		job_forget(o, job);
		return OM_ERR_CANCELLED;
	}
	job_order_leave(o, job);
	return job_order_enter(o, job, READY, true);
}

enum om_err
om_job_order_end(struct om_job_order *o, struct om_str id, enum om_order_end how)
{
	struct job *job = find_running(o, id);

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	switch (how) {
	case OM_ORDER_COMPLETED:
		o->total_completed++;
		break;
	case OM_ORDER_FAILED:
		o->total_failed++;
		break;
	case OM_ORDER_CANCELLED:
		o->total_cancelled++;
		break;
	}
	job_forget(o, job);
	return OM_OK;
}

enum om_err
om_job_order_cancel(struct om_job_order *o, struct om_str id, bool *running)
{
	struct job *job = job_find(o, id);

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	*running = job->where == RUNNING;
	if (*running) {
		job->cancelled = true;
		return OM_OK;
	}
	o->total_cancelled++;
	job_forget(o, job);
	return OM_OK;
}

enum om_err
om_job_order_drop(struct om_job_order *o, struct om_str id)
{
	struct job *job = job_find(o, id);

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (job->where == RUNNING) {
		return OM_ERR_STATE;
	}
	job_forget(o, job);
	return OM_OK;
}

/* --- hold, pause, limits ---------------------------------------------------------------------- */

enum om_err
om_job_order_hold(struct om_job_order *o, struct om_str id)
{
	struct job *job = job_find(o, id);

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (job->where == RUNNING) {
		return OM_ERR_STATE;
	}
	job_order_leave(o, job);
	job_order_unpark(o, job->group);
	return job_order_enter(o, job, HELD, false);
}

enum om_err
om_job_order_release(struct om_job_order *o, struct om_str id, struct om_wall now)
{
	struct job *job = job_find(o, id);
	enum om_err err;

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (job->where == RUNNING) {
		return OM_ERR_STATE;
	}
	if (job->where != HELD) {
		return OM_OK;
	}
	job_order_leave(o, job);
	err = job_order_queue(o, job, now);
	if (err != OM_OK) {
		(void)job_order_enter(o, job, HELD, false); /* only DELAYED can fail */
	}
	return err;
}

/* Invariant 5, for a job that goes to the head or the end of the line. */
static void
move_turn(const struct line *line, struct job *job, bool first)
{
	const struct job *end = first ? TAILQ_FIRST(line) : TAILQ_LAST(line, line);

	if (end != NULL &&
	    (first ? end->ready_ns < job->ready_ns : end->ready_ns > job->ready_ns)) {
		job->ready_ns = end->ready_ns;
	}
}

enum om_err
om_job_order_move(struct om_job_order *o, struct om_str id, enum om_job_level level, bool first)
{
	struct job *job = job_find(o, id);
	enum where where;
	enum om_err err;

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (job->where == RUNNING) {
		return OM_ERR_STATE;
	}
	where = (enum where)job->where;
	job_order_leave(o, job);
	job->level = (uint8_t)level;
	job->passed = 0;
	move_turn(&o->ready[level], job, first);
	err = job_order_enter(o, job, where, first);
	OM_ASSERT(err == OM_OK); /* a heap that it has just left has room for it */
	return err;
}

enum om_err
om_job_order_level(const struct om_job_order *o, struct om_str id, enum om_job_level *level)
{
	const struct job *job = job_find(o, id);

	if (job == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	*level = (enum om_job_level)job->level;
	return OM_OK;
}

void
om_job_order_pause(struct om_job_order *o, struct om_str reason)
{
	size_t len = reason.len < OM_ORDER_TEXT_MAX ? reason.len : OM_ORDER_TEXT_MAX;

	o->paused = true;
	if (len > 0) {
		memcpy(o->pause_reason, reason.ptr, len);
	}
	o->pause_reason[len] = '\0';
}

void
om_job_order_resume(struct om_job_order *o)
{
	o->paused = false;
	o->pause_reason[0] = '\0';
}

void
om_job_order_quiet(struct om_job_order *o, bool on, struct om_str text)
{
	size_t len = text.len < OM_ORDER_TEXT_MAX ? text.len : OM_ORDER_TEXT_MAX;

	o->quiet = on;
	if (len > 0) {
		memcpy(o->quiet_text, text.ptr, len);
	}
	o->quiet_text[len] = '\0';
}

bool
om_job_order_paused(const struct om_job_order *o)
{
	return o->paused;
}

const char *
om_job_order_pause_reason(const struct om_job_order *o)
{
	return o->pause_reason;
}

enum om_err
om_job_order_set_max_jobs(struct om_job_order *o, uint64_t max_jobs)
{
	if (max_jobs == 0) {
		return OM_ERR_INVALID;
	}
	o->limits.max_jobs = max_jobs;
	return OM_OK;
}

void
om_job_order_set_age(struct om_job_order *o, uint64_t age_ms)
{
	o->limits.age_ms = age_ms;
}
