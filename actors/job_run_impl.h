/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_RUN_IMPL_H
#define OM_ACTORS_JOB_RUN_IMPL_H

/*
 * Shared by the files of job_run: job_run.c (steps, ends), job_run_vm.c (files, VM, watch),
 * job_run_net.c (network), job_run_guest.c (channel, output), job_run_pause.c (standing still),
 * job_run_ledger.c (ordered writes, relay).
 */
#include "actors/job_run.h"
#include "actors/job_spec.h"

#define RUN_MAGIC        0x6a6f6272u
#define RUN_WRITES_MAX   (UINT64_C(1) << 20) /* bytes waiting for the ledger before we stop reading */
#define RUN_OUTPUT_CHUNK 65536 /* bytes of output in one ledger.output */
#define RUN_FILE_CHUNK   524288 /* bytes of a file in one ledger.output */
#define RUN_BYTES_PER_MS 1024 /* through the guest's port, at the least; 20 times that is usual */
#define RUN_RETRY_MS     1000 /* the ledger's disk is full: ask again */
#define RUN_DISK_WAIT_MS 600000 /* no room for its disk: it waits so long for others to end */
#define RUN_LEDGER_MS    30000
#define RUN_NETWORK_MS   30000
#define RUN_PATH_MAX     OM_VM_PATH_MAX

enum run_timer { TIMER_BOOT = 1, TIMER_RUNTIME, TIMER_STOP, TIMER_RETRY, TIMER_DISK };
enum run_watch { WATCH_CHANNEL = 1, WATCH_PIDFD };

/* One message to the ledger; they are sent one after the other, in order. */
struct run_write {
	struct run_write *next;
	enum om_msg_type type;
	struct om_buf body;
	bool is_final; /* the record of the end: undo_record waits for it */
};

struct run {
	uint32_t magic;
	const struct om_executor_conf *conf;
	struct om_actor_id executor;
	struct om_job_id job;

	/* Where it is on its list of steps.  0..done-1 are done and have their undo ahead. */
	size_t done;
	bool busy; /* a step or an undo waits for an answer */
	bool unwinding; /* on the way back */
	bool walking; /* run_go is on the stack */

	/* How it ends; the first reason wins. */
	bool ended;
	bool vm_died; /* ended because the VM did, and the detector may know why */
	bool recorded; /* the end is on its way to the ledger and does not change any more */
	enum om_job_state state;
	char reason[32];
	char text[OM_WHY_MAX];
	char by[OM_PEER_MAX + 1];
	struct om_buf evidence;

	/* The job. */
	struct om_buf spec_raw;
	struct om_arena arena;
	struct om_job_submit *submit;
	struct om_job_spec spec;

	/* The machine. */
	char dir[RUN_PATH_MAX];
	char vm_name[OM_VM_NAME_MAX + 1];
	struct om_vm_handle vm;
	bool destroying; /* create of a job that has ended, or destroy, is under way on its pool */
	bool teardown_waits; /* undo_teardown waits for it */
	uint64_t disk_timer; /* there is no room for its disk: create is tried again */
	struct om_mono disk_since; /* 0: there was room */
	struct om_buf net_raw; /* the vpn.ready body; net points into it and the arena */
	struct om_vpn_ready *net;
	uint64_t rx_bytes, tx_bytes, handshake_ms;
	bool has_traffic;
	bool guest_ran; /* with a network: its watch must end with a word of both witnesses */

	/* The guest. */
	int channel_fd;
	struct om_guest_channel *channel;
	uint64_t channel_watch, pidfd_watch;
	bool reading_stopped; /* the ledger is behind */
	bool started, exited, guest_done;
	struct om_guest_exit exit;
	struct om_pair *missing; /* files that did not come: name and why */
	size_t missing_count;
	struct om_buf output[2]; /* not yet handed to the ledger: stdout, stderr */
	uint64_t output_at[2]; /* bytes of each that were handed to it */
	uint64_t boot_timer, runtime_timer, stop_timer, retry_timer;
	struct om_mono runtime_until, stop_until; /* what those timers wait for */

	/* Standing still (job_run_pause.c). */
	bool pause_wanted, pause_busy, suspended;
	bool stop_waits; /* a stop with a grace waits for the resume */
	uint32_t stop_grace_ms;
	char pause_text[OM_WHY_MAX];
	struct om_mono paused_at;
	int64_t paused_ns; /* all pauses that are over */
	uint64_t runtime_left_ms;
	struct om_mono provisioning_at, started_at, exited_at;

	/* What waits for the ledger. */
	struct run_write *writes, **writes_tail;
	uint64_t write_bytes;
	bool write_in_flight;
};

/* job_run.c.  A step's enter ends in run_entered, an undo in run_undone, now or later. */
void run_entered(struct om_ctx *cx, struct run *run, enum om_err err, const struct om_why *why);
void run_undone(struct om_ctx *cx, struct run *run);
/* Sets how the job ends, if that is not decided yet, and sees to it. */
void run_end(struct om_ctx *cx, struct run *run, enum om_job_state state, const char *reason,
	     uint32_t grace_ms, const char *fmt, ...) OM_PRINTF(6, 7);
/* The run step is over: the guest has told everything, or there is no guest any more. */
void run_over(struct om_ctx *cx, struct run *run);

/* job_run_ledger.c */
typedef void (*run_relayed_fn)(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a);
enum om_err run_relay(struct om_ctx *cx, struct run *run, const char *to, enum om_msg_type type,
		      const void *body, uint64_t timeout_ms, run_relayed_fn fn) OM_MUST_CHECK;
void run_write(struct om_ctx *cx, struct run *run, enum om_msg_type type, const void *body,
	       bool is_final);
void run_write_state(struct om_ctx *cx, struct run *run, enum om_job_state state);
void run_write_final(struct om_ctx *cx, struct run *run);
/* The same bytes, with '?' for what is no UTF-8: the ledger refuses a whole message for it. */
struct om_str run_clean_text(char *text);
/* Packets that the walls refused and the detector did not see: the end is detector_failed. */
void run_unseen(struct run *run, uint64_t seen, uint64_t unseen); /* job_run.c */
/* Nobody can say whether there were any: the end is the same. */
void run_unwitnessed(struct run *run, const char *what); /* job_run.c */
void run_retry(struct om_ctx *cx, struct run *run);
void run_writes_fini(struct run *run);
void run_final_written(struct om_ctx *cx, struct run *run); /* job_run.c */

/* job_run_vm.c: the steps that touch files and hypervisor; job_run_net.c: enter_network, undo_network. */
void enter_files(struct om_ctx *cx, struct run *run);
void undo_files(struct om_ctx *cx, struct run *run);
void enter_network(struct om_ctx *cx, struct run *run);
void undo_network(struct om_ctx *cx, struct run *run);
void enter_vm(struct om_ctx *cx, struct run *run);
void undo_vm(struct om_ctx *cx, struct run *run);
void enter_watch(struct om_ctx *cx, struct run *run);
void undo_watch(struct om_ctx *cx, struct run *run);
void undo_teardown(struct om_ctx *cx, struct run *run);
void run_on_disk_timer(struct om_ctx *cx, struct run *run);
void run_abandon_vm(struct om_ctx *cx, struct run *run); /* the end came while it is created */
/* Kills qemu now; destroy follows in the undo list. */
void run_kill_vm(struct run *run);

/* job_run_pause.c */
void run_pause(struct om_ctx *cx, struct run *run, bool on, const char *text);
void run_pause_started(struct om_ctx *cx, struct run *run); /* the script has begun */
/* true: the guest is to be stopped, and will be when it runs again. */
bool run_pause_defers_stop(struct om_ctx *cx, struct run *run, uint32_t grace_ms);
/* Time that the script ran, pauses left out. */
uint64_t run_ran_ms(const struct run *run);

/* job_run_guest.c: the channel. */
void run_clock(struct om_ctx *cx, struct run *run, uint64_t ms); /* the time limit, from now on */
void enter_boot(struct om_ctx *cx, struct run *run);
void undo_boot(struct om_ctx *cx, struct run *run);
void enter_run(struct om_ctx *cx, struct run *run);
void run_stop_guest(struct om_ctx *cx, struct run *run, uint32_t grace_ms);
void run_stop_sooner(struct om_ctx *cx, struct run *run, uint32_t grace_ms);
void run_on_stop_timer(struct om_ctx *cx, struct run *run);
void run_on_channel(struct om_ctx *cx, struct run *run, uint32_t events);
void run_flush_output(struct om_ctx *cx, struct run *run);
void run_flush_rest(struct om_ctx *cx, struct run *run); /* before the end is recorded */
void run_abort_boot(struct om_ctx *cx, struct run *run);
uint64_t run_boot_timeout_ms(const struct run *run); /* until the guest's hello */
uint64_t run_start_timeout_ms(const struct run *run); /* from there until its job has started */
uint64_t run_files_timeout_ms(const struct run *run); /* from its exit until its files are here */
void run_resume_reading(struct om_ctx *cx, struct run *run);

#endif /* OM_ACTORS_JOB_RUN_IMPL_H */
