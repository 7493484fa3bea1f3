/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_EXECUTOR_H
#define OM_ACTORS_EXECUTOR_H

/*
 * The executor runs jobs, each in its own VM: one child actor (actors/job_run.h) per running job.
 *
 *	job_queue --exec.start--> executor --> job_run --ledger.move, ledger.output--> ledger
 *	job_queue <--exec.done--- executor <-- job_run (recorded, VM gone, nothing left behind)
 *
 * exec.cancel ends a job ("*": all, and none is started any more), exec.drain is answered when none
 * runs, rogue.caught comes from the detector.  A job that job_queue started is ended by exactly one
 * exec.done.
 */
#include "msg/bus.h"
#include "vm/driver.h"
#include "vm/image.h"

#define OM_EXEC_BOOT_TIMEOUT_MS 60000
#define OM_EXEC_STOP_GRACE_MS   2000 /* a timed-out job gets SIGTERM and this long */
#define OM_EXEC_CANCEL_GRACE_MS 5000 /* so does one whose cancel does not say how long */
#define OM_EXEC_STOP_SLACK_MS   3000 /* after the grace: for the agent to say how it ended */
#define OM_EXEC_END_MS          20000 /* at a stop, for all jobs to be ended, undone and recorded */
#define OM_EXEC_STOP_MORE_MS    (OM_EXEC_END_MS + 10000) /* than its time: until it is answered */
#define OM_EXEC_JOBS_MAX        4096 /* running at one time */

/* Borrowed for the executor's life. */
struct om_executor_conf {
	const struct om_vm_driver
	    *driver; /* NULL: the null executor of the benches, runs nothing */
	const struct om_vm_image *image;
	const char *run_dir; /* sockets and scratch disks, a directory a job; mode 0711 */
	bool use_kvm;
	uint64_t boot_timeout_ms; /* 0: OM_EXEC_BOOT_TIMEOUT_MS */
	uint32_t stop_grace_ms; /* 0: OM_EXEC_STOP_GRACE_MS */
	uint32_t stop_slack_ms; /* 0: OM_EXEC_STOP_SLACK_MS */
};

/* The start arg is a struct om_executor_conf. */
extern const struct om_service_def om_executor_service;

/*
 * Driver's event thread.  Give this as om_vm_config.on_event with the struct om_system * as arg: it
 * posts the event to the executor.
 */
void om_executor_vm_event(void *system, const struct om_vm_event *event);

#endif /* OM_ACTORS_EXECUTOR_H */
