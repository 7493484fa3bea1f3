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

/* Executor's thread.  Asks a service for a job_run (OM_JR_RELAY) and passes the answer on. */
enum om_err om_exec_relay(struct om_service *sv, const struct om_msg *msg) OM_MUST_CHECK;

#endif /* OM_ACTORS_EXECUTOR_IMPL_H */
