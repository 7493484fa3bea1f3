/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_EXECUTOR_IMPL_H
#define OM_ACTORS_EXECUTOR_IMPL_H

#include <stddef.h>
#include "actors/job_run.h"
#include "actors/name_table.h"

#define EXEC_MAGIC     0x65786563u
#define EXEC_LEDGER_MS 30000

/*
 * Executor's thread, in its start.  Sees to what an executor before this one left: its job_runs were
 * killed, so their VMs, directories and networks are nobody's.  Gives how many times om_exec_swept
 * will be called; until then no job may start (a job that is queued again has the same names).
 */
unsigned om_exec_sweep(struct om_service *sv, const struct om_executor_conf *conf);
void om_exec_swept(struct om_service *sv); /* executor.c */

/* Relayed questions without an answer yet.  Zeroed is empty. */
struct om_exec_relays {
	struct om_exec_relay *first;
};

/* Executor's thread.  Asks a service for a job_run (OM_JR_RELAY) and passes the answer on. */
enum om_err om_exec_relay(struct om_service *sv, struct om_exec_relays *relays,
			  const struct om_msg *msg) OM_MUST_CHECK;
/* Executor's thread, in its stop: no answer comes any more, the job_runs are told by our end. */
void om_exec_relays_fini(struct om_exec_relays *relays);

struct exec_job {
	struct om_name_node node;
	struct om_job_id id;
	struct om_actor_id actor;
	uint64_t monitor;
	enum om_job_state state; /* the final one, once known */
	struct om_exec_cleanup *cleanup; /* for when it fails; NULL: it is at work */
};

struct exec_drain {
	struct exec_drain *next;
	struct om_bus_request rq;
};

struct executor {
	uint32_t magic;
	const struct om_executor_conf *conf;
	struct om_name_table jobs;
	struct exec_drain *drains;
	struct om_exec_relays relays;
	unsigned sweeping; /* of what an executor before this one left; nothing starts until 0 */
	bool ending; /* all jobs were ended: nothing starts any more */
};

static inline struct exec_job *
om_exec_job_of(struct om_name_node *node)
{
	return (struct exec_job *)(void *)((char *)node - offsetof(struct exec_job, node));
}

/* Executor's thread (all).  Frees the slot in the queue and forgets the job. */
void om_exec_job_done(struct om_service *sv, struct executor *ex, struct exec_job *job);
/* executor_failed.c: its job_run has failed; ends in om_exec_job_done, now or later. */
void om_exec_job_failed(struct om_service *sv, struct executor *ex, struct exec_job *job,
			enum om_err why);
enum om_err om_exec_cleanup_new(const struct om_executor_conf *conf, const struct om_job_id *id,
				struct om_exec_cleanup **out) OM_MUST_CHECK;

#endif /* OM_ACTORS_EXECUTOR_IMPL_H */
