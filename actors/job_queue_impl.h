/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_QUEUE_IMPL_H
#define OM_ACTORS_JOB_QUEUE_IMPL_H

/* Shared by job_queue.c (jobs in and out) and job_queue_verbs.c (hold, move, pause, counters). */
#include <sys/queue.h>

#include "actors/job_order.h"
#include "actors/job_queue.h"
#include "base/assert.h"
#include "base/id.h"

#define JOB_QUEUE_MAGIC 0x6a6f6271u
#define JOBQ_LEDGER_MS  30000

enum { TIMER_DUE = 1, TIMER_RETRY, TIMER_GATE, TIMER_QUIET };

/* A question on its way, so that what it needs is freed also when the service stops first. */
struct jobq_ask {
	LIST_ENTRY(jobq_ask) link;
	struct om_job_id job;
	struct om_bus_request rq;
};

/* The next attempt of a job whose exec.done is still on its way. */
struct jobq_again {
	LIST_ENTRY(jobq_again) link;
	struct om_job_id id;
	struct om_order_job job; /* its id is a view of ours */
};

struct job_queue {
	uint32_t magic;
	struct om_wall (*wall)(void);
	struct om_job_order *order;
	struct om_arena arena; /* of many results */
	LIST_HEAD(, jobq_ask) asks;
	LIST_HEAD(, jobq_again) agains;
	uint64_t due_timer;
	int64_t due_ns; /* what due_timer waits for; 0: nothing */
	uint64_t retry_timer; /* not 0: the executor refused, no starts until it fires */
	bool
	    quiet_unknown; /* the filter has not said yet whether there are quiet hours: no starts */
	bool pausing; /* running jobs that are not the owner's stand still */
	bool closed; /* the provider still brings what the ledger has: no starts */
	struct om_job_queue_live *live; /* NULL: none */
	bool draining; /* the provider takes no new jobs */
	char drain_reason[OM_ORDER_TEXT_MAX + 1];
	bool gated; /* it is not known yet whether an operator has paused us: no starts */
};

static inline struct job_queue *
jobq_of(void *state)
{
	struct job_queue *q = state;

	OM_ASSERT(q->magic == JOB_QUEUE_MAGIC);
	return q;
}

static inline struct jobq_ask *
jobq_ask_of(uint64_t cookie)
{
	return (struct jobq_ask *)(uintptr_t)cookie;
}

/* --- job_queue.c ------------------------------------------------------------------------------ */

struct jobq_ask *jobq_ask_new(struct job_queue *q, struct om_str job); /* NULL: no memory */
void jobq_ask_free(struct jobq_ask *ask);
/* Starts what may start.  After every change. */
void jobq_run(struct om_service *sv, struct job_queue *q);

/* --- job_queue_verbs.c ------------------------------------------------------------------------ */

/* Asks the ledger whether the queue was paused; nothing starts before the answer. */
void jobq_gate(struct om_service *sv, struct job_queue *q);
enum om_err jobq_on_hold(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_release(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_move(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_pause(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_resume(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_limits(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_policy(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_why(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_draining(struct om_service *sv, void *state, const struct om_in *in);
enum om_err jobq_on_stats(struct om_service *sv, void *state, const struct om_in *in);

/* --- job_queue_quiet.c ------------------------------------------------------------------------ */

/* Asks the filter; nothing starts before the answer. */
void jobq_quiet_ask(struct om_service *sv, struct job_queue *q);
enum om_err jobq_on_quiet(struct om_service *sv, void *state, const struct om_in *in);

#endif /* OM_ACTORS_JOB_QUEUE_IMPL_H */
