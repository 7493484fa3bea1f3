/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_IMPL_H
#define OM_RUNTIME_IMPL_H

/*
 * What the files of runtime/ offer each other.  No other folder includes this.
 */
#include <time.h>
#include "runtime/pool_impl.h"
#include "runtime/types_impl.h"

/* --- mailbox.c ----------------------------------------------------------------------------------- */

struct om_actor *om_actor_at(struct om_system *sys, uint64_t id); /* NULL: no such slot */
bool om_actor_is(struct om_system *sys, uint64_t id); /* alive */
enum om_err om_mbox_push(struct om_ctx *cx, uint64_t to, struct om_msg *msg);
enum om_err om_mbox_push_sys(struct om_ctx *cx, uint64_t to, struct om_msg *msg);
enum om_err om_mbox_push_node(struct om_ctx *cx, uint64_t to, struct om_node *node);
/* Any thread: as the calling thread's own context, or the system's foreign one under its lock. */
enum om_err om_mbox_post_sys(struct om_system *sys, uint64_t to, struct om_msg *msg);
/* Any thread: sets STOP or KILL. */
void om_mbox_control(struct om_ctx *cx, uint64_t to, uint64_t bit);
/* Owner: life of a new tenant; end of the tenancy (all messages are gone after it). */
uint64_t om_mbox_open(struct om_system *sys, struct om_actor *a);
uint64_t om_mbox_next_id(struct om_system *sys, const struct om_actor *a);
void om_mbox_close(struct om_ctx *cx, struct om_actor *a);
void om_mbox_drop_all(struct om_ctx *cx, struct om_actor *a, enum om_drop why);
uint64_t om_mbox_life(const struct om_actor *a);
bool om_mbox_is_ending(struct om_system *sys, uint64_t id); /* or has ended */
uint32_t om_mbox_depth(const struct om_actor *a, uint32_t *sys_depth);
void om_mbox_node_init(struct om_node *node, enum om_kind kind, uint32_t type, uint32_t size);
bool om_mbox_take_sys(struct om_actor *a);
/* Owner: a message of the system lane waits for the next incarnation; they are back at its head. */
void om_mbox_defer(struct om_actor *a, struct om_msg *msg);
void om_mbox_undefer(struct om_actor *a);
/* lane.c: the user lane of an actor with drop-oldest or a byte limit. */
enum om_err om_lane_push(struct om_ctx *cx, struct om_actor *a, uint64_t to, struct om_msg *msg);
struct om_msg *om_lane_pull(struct om_system *sys, struct om_actor *a);
uint64_t om_mbox_order(const struct om_actor *a, uint64_t life);
uint32_t om_mbox_sys_len(struct om_system *sys, uint64_t to);
uint32_t om_mbox_limit(struct om_system *sys, uint64_t to);

/* --- bell.c --------------------------------------------------------------------------------------- */

bool om_bell_take(struct om_ctx *cx, struct om_node *node, struct om_bell_rung *rung);
bool om_bell_is_ours(const struct om_ctx *cx, const struct om_node *node);
void om_bell_discard(struct om_node *node);

/* --- scheduler.c ---------------------------------------------------------------------------------- */

/* As om_sched_ready, for a thread without a run queue or an actor with a thread of its own. */
void om_sched_ready_elsewhere(struct om_ctx *cx, struct om_actor *a);

/*
 * The end of the run queue of one thread: no atomics.  run_count says where the list ends: the last
 * one's run_next is not written, and run_tail counts only if there is a run_head.
 */
static inline void
runq_push(struct om_ctx *cx, struct om_actor *a)
{
	if (cx->run_head != NULL) {
		cx->run_tail->run_next = a;
	} else {
		cx->run_head = a;
	}
	cx->run_tail = a;
	cx->run_count++;
}

/* The caller has cleared the idle bit, or made the actor: it must run. */
static inline void
om_sched_ready(struct om_ctx *cx, struct om_actor *a)
{
	if (om_likely(cx->kind == OM_CTX_WORKER && (a->limit & OM_LIMIT_DETACHED) == 0)) {
		runq_push(cx, a);
		return;
	}
	om_sched_ready_elsewhere(cx, a);
}

/* The caller has just made the actor. */
static inline void
om_sched_spawned(struct om_ctx *cx, struct om_actor *a)
{
	if (om_unlikely(cx->kind != OM_CTX_WORKER || cx->sys->sim ||
			(a->limit & OM_LIMIT_DETACHED) != 0)) {
		om_sched_ready(cx, a);
		return;
	}
	if (cx->fresh == NULL) {
		cx->fresh_last = a;
	}
	a->run_next = cx->fresh;
	cx->fresh = a;
	cx->fresh_count++;
}

bool om_sched_take_inject(struct om_ctx *cx);
void om_sched_requeue(struct om_ctx *cx, struct om_actor *a);
/* Runs an actor until its budget is used up, it is idle, or it ended. */
void om_sched_run(struct om_ctx *cx, struct om_actor *a, uint32_t budget);

/* --- threads.c, detached.c, watchdog.c ------------------------------------------------------------ */

void om_cond_init(pthread_cond_t *cond); /* for waits until om_cond_deadline */
struct timespec om_cond_deadline(uint64_t ms);
enum om_err om_sched_init(struct om_system *sys);
enum om_err om_sched_start(struct om_system *sys);
bool om_sched_stop(struct om_system *sys, uint64_t grace_ms); /* false: a thread is stuck */
void om_sched_fini(struct om_system *sys);
struct om_ctx *om_ctx_new(struct om_system *sys, enum om_ctx_kind kind, unsigned index);
void om_ctx_free(struct om_ctx *cx);
struct om_ctx *om_ctx_first(struct om_system *sys);
enum om_err om_detached_start(struct om_ctx *cx, struct om_actor *a);
void om_detached_reap(struct om_system *sys);
void om_sched_busy(struct om_system *sys);
bool om_sched_watchdog(struct om_ctx *io); /* io thread: false when all workers sleep */
/* The call of a handler that runs on cx now, and: it is not yet reported and the caller does. */
uint64_t om_sched_call(const struct om_ctx *cx);
bool om_sched_tell(struct om_ctx *cx, uint64_t call);

/* --- wait.c: for the end of an actor, for room in a mailbox; shared words ------------------------- */

void om_sched_ended(struct om_system *sys);
bool om_sched_wait_ended(struct om_system *sys, uint64_t id, int64_t deadline_ns);
uint32_t om_sched_room_mark(struct om_system *sys);
void om_sched_room_wait(struct om_system *sys, uint32_t mark, bool wait);
void om_sched_room_made(struct om_system *sys);
uint32_t om_shared_load(const uint32_t *word);
void om_shared_store(uint32_t *word, uint32_t v);
uint32_t om_shared_add(uint32_t *word, int32_t v); /* gives the new value */

/* --- port.c: where foreign threads wait for answers ----------------------------------------------- */

enum om_err om_port_init(struct om_system *sys);
struct om_port *om_port_get(struct om_system *sys, uint64_t *id); /* NULL: too many at once */
bool om_port_wait(struct om_system *sys, struct om_port *port, int64_t deadline_ns);
bool om_port_ready(const struct om_port *port);
struct om_msg *om_port_put(struct om_system *sys, struct om_port *port); /* the answer or NULL */
enum om_err om_port_answer(struct om_system *sys, uint64_t id, struct om_msg *msg);

/* --- actor.c, dispatch.c -------------------------------------------------------------------------- */

struct om_actor_ext *om_actor_ext(struct om_actor *a); /* NULL: no memory */
/* Any thread; of a live actor. */
uint64_t om_actor_birth(const struct om_actor *a);
bool om_actor_is_supervised(const struct om_actor *a);
struct om_spawn_how {
	uint64_t supervisor; /* 0: none */
	const char *name; /* NULL: none */
	uint64_t birth; /* 0: the next number of the spawning context */
};
enum om_err om_actor_spawn(struct om_ctx *cx, const struct om_actor_def *def, const void *arg,
			   const struct om_spawn_how *how, uint64_t *out);
/* A stop is due; true: the actor goes on and ends itself later (def->drain). */
bool om_actor_drains(struct om_ctx *cx, struct om_actor *a);
/* Its supervisor wants it suspended; false: it goes on and leaves by itself later (def->drain). */
bool om_actor_suspends(struct om_ctx *cx, struct om_actor *a);
bool om_actor_start(struct om_ctx *cx, struct om_actor *a); /* false: it ended */
/* The running actor tells its supervisor, if it has one, that the next child may start. */
void om_actor_started(struct om_ctx *cx, struct om_actor *a);
/* The running actor leaves: ends, or is suspended until its supervisor has judged. */
bool om_actor_leave(struct om_ctx *cx, struct om_actor *a, enum om_err why, bool ordered);
/* Handles one message of the system lane; dispatch_impl.h has the user lane's. */
void om_actor_dispatch_sys(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
/* A message that nobody will handle: answers a request, frees, counts. */
void om_actor_discard(struct om_ctx *cx, struct om_msg *msg, enum om_drop why);
void om_actor_deliver(struct om_ctx *cx, struct om_actor *a, uint32_t type, const void *payload,
		      uint32_t size);
struct om_hist *om_actor_hist(struct om_actor *a);

/* --- context.c, ask.c, link.c, registry.c, timer.c, io.c, offload.c, trace.c --------------------- */

void om_ask_turn_round(struct om_ctx *cx, struct om_msg *req, enum om_err err); /* takes req */
void om_ask_on_reply(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
/* own: the ask whose own timer it is; 0: the shared one. */
void om_ask_on_timer(struct om_ctx *cx, struct om_actor *a, uint64_t own);
void om_ask_on_later_done(struct om_actor *a, const struct om_msg *msg);
enum om_err om_ask_note_later(struct om_ctx *cx, const struct om_msg *req);
void om_ask_forget_later(struct om_actor *a, const struct om_request *duty);
/* A message that its actor kept is used for something else; if it is a request: its duty. */
struct om_request om_ask_lift_duty(struct om_ctx *cx, struct om_msg *msg);
void om_ask_owe_again(struct om_msg *msg, const struct om_request *duty); /* it was not used */
void om_ask_end(struct om_ctx *cx, struct om_actor *a);

void om_link_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
void om_link_discard(struct om_ctx *cx, struct om_msg *msg);
/* What a restart ends too: our monitors on others, and links. */
void om_link_end_own(struct om_ctx *cx, struct om_actor *a, enum om_err why);
void om_link_end(struct om_ctx *cx, struct om_actor *a, enum om_err why);

enum om_err om_reg_init(struct om_system *sys);
void om_reg_fini(struct om_system *sys);
enum om_err om_reg_name(struct om_system *sys, struct om_actor *a, uint64_t id, const char *name);
void om_reg_end(struct om_system *sys, struct om_actor *a);
bool om_reg_name_of(struct om_system *sys, uint64_t id, char *out, size_t size);
size_t om_reg_members(struct om_system *sys, const char *group, uint64_t **out);

struct om_timer;
enum om_err om_timer_init(struct om_system *sys);
void om_timer_fini(struct om_system *sys);
struct om_timer *om_timer_new_internal(struct om_ctx *cx, uint64_t cookie);
void om_timer_drop_internal(struct om_system *sys, struct om_timer *t);
void om_timer_arm_internal(struct om_ctx *cx, struct om_timer *t, int64_t at_ns);
void om_timer_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
void om_timer_discard(struct om_msg *msg);
void om_timer_end(struct om_ctx *cx, struct om_actor *a);
/* Fires what is due; gives the ns until the next one, -1: none. */
int64_t om_timer_fire(struct om_ctx *cx, int64_t now_ns);
int64_t om_timer_next(struct om_system *sys);

enum om_err om_io_init(struct om_system *sys);
enum om_err om_io_start(struct om_system *sys);
void om_io_stop(struct om_system *sys);
void om_io_fini(struct om_system *sys);
void om_io_poke(struct om_system *sys); /* any thread: look at the timers again */
bool om_io_poll(struct om_ctx *cx, int timeout_ms);
void om_io_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
void om_io_discard(struct om_ctx *cx, struct om_msg *msg);
void om_io_end(struct om_ctx *cx, struct om_actor *a);

enum om_err om_offload_init(struct om_system *sys);
bool om_offload_stop(struct om_system *sys, uint64_t grace_ms); /* false: a work is stuck */
void om_offload_fini(struct om_system *sys);
void om_offload_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
void om_offload_discard(struct om_ctx *cx, struct om_msg *msg);
void om_offload_end(struct om_ctx *cx, struct om_actor *a);
size_t om_offload_waiting(struct om_system *sys); /* sim */
void om_offload_run_nth(struct om_system *sys, size_t n); /* sim */

enum om_trace_event {
	OM_TRACE_SEND,
	OM_TRACE_HANDLE,
	OM_TRACE_DROP,
	OM_TRACE_SPAWN, /* arg: the parent */
	OM_TRACE_END, /* arg: why */
	OM_TRACE_TIMEOUT, /* of an ask; arg: number of the way */
	OM_TRACE_DONE, /* an offloaded work; arg: number of the way */
};
enum om_err om_trace_init(struct om_system *sys);
void om_trace_fini(struct om_system *sys);
void om_trace_put(struct om_system *sys, enum om_trace_event event, uint64_t who,
		  const struct om_msg *msg, uint64_t arg);
void om_trace_stop_ways(struct om_system *sys); /* all that have begun */
/* Before a message goes out: one that a traced actor sends begins a way. */
void om_trace_sent(struct om_ctx *cx, uint64_t to, struct om_msg *msg);
/* Around a function that goes on with way `trace`; 0: no way, but the actor is traced. */
static inline bool
om_trace_wants(const struct om_actor *a, uint32_t trace)
{
	return trace != 0 || (a->flags & OM_ACTOR_TRACED) != 0;
}
void om_trace_begin(struct om_ctx *cx, uint32_t trace, enum om_trace_event event,
		    const struct om_msg *msg);
static inline void
om_trace_end(struct om_ctx *cx)
{
	cx->trace = 0;
	cx->tracing = 0;
}

/* --- system.c, stats.c, sim.c ---------------------------------------------------------------------- */

struct om_mono om_system_now(const struct om_system *sys);
struct om_ctx *om_system_enter(struct om_system *sys, bool *locked); /* any thread */
void om_system_leave(struct om_system *sys, bool locked);
void om_stats_drop(struct om_ctx *cx, const struct om_msg *msg, enum om_drop why);
enum om_err om_stats_timed(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn,
			   const struct om_msg *msg);
void om_stats_slow(struct om_ctx *cx, const struct om_actor *a, uint64_t us);
uint64_t om_sim_rand(struct om_system *sys);
bool om_sim_wait(struct om_system *sys, bool (*done)(struct om_system *sys, void *arg), void *arg,
		 uint64_t timeout_ms);
void om_supervisor_on_child(struct om_ctx *cx, struct om_actor *a, const struct om_msg *msg);
enum om_err om_send_as_is(struct om_ctx *cx, uint64_t to, struct om_msg **msgp);

static inline uint64_t
om_rng_next(uint64_t *s)
{
	uint64_t z = (*s += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64, Vigna */

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

#endif /* OM_RUNTIME_IMPL_H */
