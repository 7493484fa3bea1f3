/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_EXECUTOR_IMPL_H
#define OM_ACTORS_EXECUTOR_IMPL_H

#include "actors/job_run.h"

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

#endif /* OM_ACTORS_EXECUTOR_IMPL_H */
