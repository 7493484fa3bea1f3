/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_QUEUE_H
#define OM_ACTORS_JOB_QUEUE_H

/*
 * The job queue: the order in which durable jobs are handed to the executor.  The policy is in
 * job_order.h.  For the executor:
 *   - exec.start is answered at once: ok (or `exists`: it has the job already) means that it will
 *     record the final state and send exec.done; `full`, `gone`, `timeout` and `shutting_down` mean
 *     that the job goes back to its place and is tried again; any other error ends the job as
 *     failed.
 *   - exec.cancel for a job that it does not have is `not_found`.
 * A job is ended in the ledger by the executor; only one that it refused is ended by the queue.
 */
#include "base/clock.h"
#include "msg/bus.h"

/* What outlives a restart of the actor, which alone uses it.  Zeroed: nothing was changed. */
struct om_job_queue_live {
	uint64_t max_jobs; /* from queue.limits */
	bool has_age; /* from config.policy */
	uint64_t age_ms;
};

/* Start arg; borrowed for the life of the system. */
struct om_job_queue_conf {
	uint64_t max_jobs; /* running at one time; 0: 1 */
	uint64_t cores_total; /* to lend; 0: cores are not reserved */
	uint64_t mem_mib_total; /* to lend; 0: memory is not reserved */
	uint64_t age_ms; /* a level's first job rises one level after waiting this long; 0: never */
	bool wait_for_recovery; /* nothing starts before queue.open */
	struct om_job_queue_live *live; /* NULL: a restart of the actor undoes what was changed */
	struct om_wall (*wall)(void); /* NULL: om_wall_now; tests inject theirs */
};

extern const struct om_service_def om_job_queue_service;

#endif /* OM_ACTORS_JOB_QUEUE_H */
