/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_ORDER_H
#define OM_ACTORS_JOB_ORDER_H

/*
 * Which job starts next.  Plain logic: no actors, no clock of its own, no I/O.
 *
 * Order.  Levels strictly by priority (owner, network, external); inside a level in the order in
 * which jobs became ready: when they were added, or released, or their not_before passed.  With
 * age_ms set, a level's first job competes one level higher for each age_ms that it has waited, so
 * a lower level cannot starve for ever.
 *
 * Room.  A job starts when fewer than max_jobs run and its cores and memory are free.  A first job
 * that does not fit waits; others may pass it, but at most OM_ORDER_PASS_MAX of its own or a lower
 * level, then nothing of those levels starts before it.  As every job has a runtime limit, it
 * starts in bounded time.  At most OM_ORDER_SCAN_MAX jobs are looked at.  A job that is bigger than
 * the whole is refused.
 *
 * Groups.  Jobs of one group run at most group_limit at a time.  The others of it are parked beside
 * the lines, and come in at their turn, so that nobody has to look past them.
 *
 * Bound.  None of its own: every job here is durable, and whoever lets new ones in (the provider) has the
 * limit.  A second one here would end jobs that were acknowledged.
 *
 * Cost.  Add, pick, end, cancel, hold: O(1); with a not_before O(log n) of those that have one.
 * About 130 bytes a job.  A parked job's turn is found among those at the head of its line.
 *
 * All functions: owner thread.
 */
#include "actors/job_level.h"
#include "base/clock.h"

#define OM_ORDER_PASS_MAX 8
#define OM_ORDER_SCAN_MAX 64
#define OM_ORDER_TEXT_MAX 256

struct om_job_order; /* opaque */

struct om_order_limits {
	uint64_t max_jobs; /* running at one time, at least 1 */
	uint64_t cores_total; /* 0: not reserved */
	uint64_t mem_mib_total; /* 0: not reserved */
	uint64_t age_ms; /* 0: no ageing */
};

struct om_order_job {
	struct om_str id; /* at most OM_JOB_ID_MAX bytes */
	uint32_t hash; /* what om_job_order_expect gave; 0: it was not asked */
	enum om_job_level level;
	uint32_t cores;
	uint32_t mem_mib;
	struct om_wall not_before; /* 0: at once */
	bool held;
	struct om_str group; /* at most OM_JOB_ID_MAX bytes; absent, or group_limit 0: none */
	uint32_t group_limit; /* of the group's first job here */
};

struct om_order_stats {
	uint64_t queued; /* all that wait, held ones included */
	uint64_t held, delayed;
	uint64_t parked; /* their group is at its limit */
	uint64_t ready[OM_LEVELS]; /* in the lines */
	uint64_t running;
	uint64_t cores_used, mem_mib_used;
	uint64_t total_queued, total_completed, total_failed, total_cancelled;
	double success_rate; /* completed / (completed + failed), 0 if none */
};

enum om_order_end {
	OM_ORDER_COMPLETED,
	OM_ORDER_FAILED, /* a non-zero exit status is a failure */
	OM_ORDER_CANCELLED,
};

enum om_err om_job_order_new(const struct om_order_limits *limits,
			     struct om_job_order **out) OM_MUST_CHECK;
void om_job_order_free(struct om_job_order *o);

/* This id will be added soon: what that needs of the memory is fetched meanwhile. */
uint32_t om_job_order_expect(const struct om_job_order *o, struct om_str id);

/*
 * Adds a job; *ahead is how many start before it as things are.  EXISTS: known already; LIMIT: it
 * never fits (why says what); NOMEM; INVALID: the id is empty or too long.
 */
enum om_err om_job_order_add(struct om_job_order *o, const struct om_order_job *job,
			     struct om_wall now, uint64_t *ahead, struct om_why *why) OM_MUST_CHECK;

/*
 * The next job that may start, which now counts as running; false: none.  out->id is borrowed until
 * the job is ended or put back.
 */
bool om_job_order_pick(struct om_job_order *o, struct om_wall now, struct om_order_job *out);

/*
 * It could not start: first of its level again.  NOT_FOUND; CANCELLED: it was cancelled meanwhile
 * and is gone.
 */
enum om_err om_job_order_put_back(struct om_job_order *o, struct om_str id) OM_MUST_CHECK;

/* A running job ended.  NOT_FOUND: unknown or not running, nothing is counted (idempotent). */
enum om_err om_job_order_end(struct om_job_order *o, struct om_str id, enum om_order_end how);

/* A waiting job is gone (*running false); a running one is marked (*running true).  NOT_FOUND. */
enum om_err om_job_order_cancel(struct om_job_order *o, struct om_str id,
				bool *running) OM_MUST_CHECK;
/* Takes a waiting job out uncounted: it was refused.  NOT_FOUND, STATE: it runs. */
enum om_err om_job_order_drop(struct om_job_order *o, struct om_str id) OM_MUST_CHECK;

/* NOT_FOUND, STATE: it runs already.  Twice is fine. */
enum om_err om_job_order_hold(struct om_job_order *o, struct om_str id) OM_MUST_CHECK;
enum om_err om_job_order_release(struct om_job_order *o, struct om_str id,
				 struct om_wall now) OM_MUST_CHECK;

/*
 * Puts a waiting job first or last in a level's line; one that is held or delayed takes the level
 * alone.  NOT_FOUND, STATE: it runs.
 */
enum om_err om_job_order_move(struct om_job_order *o, struct om_str id, enum om_job_level level,
			      bool first) OM_MUST_CHECK;
/* The level of a job that is here.  NOT_FOUND. */
enum om_err om_job_order_level(const struct om_job_order *o, struct om_str id,
			       enum om_job_level *level) OM_MUST_CHECK;

/* Pause gates starts only.  reason is copied, cut at OM_ORDER_TEXT_MAX. */
void om_job_order_pause(struct om_job_order *o, struct om_str reason);
void om_job_order_resume(struct om_job_order *o);
bool om_job_order_paused(const struct om_job_order *o);
const char *om_job_order_pause_reason(const struct om_job_order *o); /* "" when not paused */

/* Quiet hours: only the owner's jobs start.  text (copied, cut) says why the others wait. */
void om_job_order_quiet(struct om_job_order *o, bool on, struct om_str text);

/* Lowering stops nothing that runs.  OM_ERR_INVALID: 0. */
enum om_err om_job_order_set_max_jobs(struct om_job_order *o, uint64_t max_jobs) OM_MUST_CHECK;

/* From now on, also for jobs that are here. */
void om_job_order_set_age(struct om_job_order *o, uint64_t age_ms);

void om_job_order_stats(const struct om_job_order *o, struct om_order_stats *out);
const struct om_order_limits *om_job_order_limits(const struct om_job_order *o);

/* Why the first job of a level waits, for a person.  false: none waits there. */
bool om_job_order_waiting(const struct om_job_order *o, enum om_job_level level, char *text,
			  size_t text_size);

#define OM_ORDER_AHEAD_MAX 1000 /* jobs of its own level that are counted before one */

/* Why a job waits. */
struct om_order_why {
	const char *code; /* static; NULL: it runs */
	char text[OM_ORDER_TEXT_MAX + 64];
	bool may_start; /* it is in its line: ahead is set */
	uint64_t ahead; /* jobs before it; of its own level at most OM_ORDER_AHEAD_MAX */
};
/* NOT_FOUND. */
enum om_err om_job_order_why(const struct om_job_order *o, struct om_str id,
			     struct om_order_why *out) OM_MUST_CHECK;

/* When the next delayed job is due; 0: none is delayed. */
struct om_wall om_job_order_due(const struct om_job_order *o);

/* The running jobs: start with a zeroed walk.  The absent view at the end. */
struct om_order_walk {
	const void *next;
	bool begun;
};
struct om_str om_job_order_running(const struct om_job_order *o, struct om_order_walk *walk);

#endif /* OM_ACTORS_JOB_ORDER_H */
