/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_RUN_H
#define OM_ACTORS_JOB_RUN_H

/*
 * One running job: an actor that the executor spawns.  It walks down a list of steps, each with its
 * undo; whatever ends the job (its own exit, a failure, a timeout, a cancel, the rogue detector, a
 * VM that dies) walks the undo list back.  It speaks to services only through the executor, with
 * OM_JR_RELAY requests.
 */
#include "actors/executor.h"
#include "base/id.h"
#include "store/job_state.h"

/* Heap memory; the actor takes it. */
struct om_job_run_arg {
	struct om_actor_id executor;
	const struct om_executor_conf *conf;
	struct om_job_id job;
};

extern const struct om_actor_def om_job_run_def;

/* Mailbox messages between executor and job_run; all but RELAYED own a heap object. */
enum om_job_run_msg {
	OM_JR_RELAY = 1, /* to executor, a request: struct om_jr_relay; answer OM_JR_RELAYED */
	OM_JR_RELAYED, /* struct om_jr_relayed */
	OM_JR_END, /* to job_run: struct om_jr_end */
	OM_JR_VM_EVENT, /* to executor, passed on to job_run: struct om_jr_vm_event */
	OM_JR_DONE, /* to executor: struct om_jr_done, the last word of a job_run */
	OM_JR_PAUSE, /* to job_run: struct om_jr_pause */
};

struct om_jr_relay {
	char to[OM_SERVICE_MAX];
	enum om_msg_type type;
	uint64_t timeout_ms;
	struct om_buf body;
};
struct om_jr_relayed {
	enum om_err err;
	struct om_why why;
	enum om_msg_type type;
	struct om_buf body;
};
/* Ends the job from outside: cancelled, rogue_killed, failed (tunnel lost). */
struct om_jr_end {
	enum om_job_state state;
	uint32_t grace_ms; /* SIGTERM and this long; 0: the VM is killed at once */
	char reason[32];
	char text[OM_WHY_MAX];
	char by[OM_PEER_MAX + 1];
	struct om_buf evidence; /* the encoded rogue.caught body; empty: none */
};
struct om_jr_vm_event {
	struct om_job_id job;
	enum om_vm_event_kind kind;
	char reason[OM_VM_REASON_MAX];
};
/* Stand still, or go on. */
struct om_jr_pause {
	bool on;
	char text[OM_WHY_MAX];
};
struct om_jr_done {
	struct om_job_id job;
	enum om_job_state state;
};

/*
 * Any thread; blocks.  Removes a job's directory below run_dir: flat, plain files, and no name in
 * it that a job controls.  One that is gone already is a success.
 */
enum om_err om_job_dir_remove(const char *path, struct om_why *why) OM_MUST_CHECK;

void om_jr_relay_free(void *relay);
void om_jr_relayed_free(void *relayed);
void om_jr_end_free(void *end);

#endif /* OM_ACTORS_JOB_RUN_H */
