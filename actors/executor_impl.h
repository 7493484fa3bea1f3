/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_EXECUTOR_IMPL_H
#define OM_ACTORS_EXECUTOR_IMPL_H

#include "actors/job_run.h"

/* Executor's thread.  Asks a service for a job_run (OM_JR_RELAY) and passes the answer on. */
enum om_err om_exec_relay(struct om_service *sv, const struct om_msg *msg) OM_MUST_CHECK;

#endif /* OM_ACTORS_EXECUTOR_IMPL_H */
