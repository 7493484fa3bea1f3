/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_TYPES_IMPL_H
#define OM_RUNTIME_TYPES_IMPL_H

/*
 * The structs, words and limits that the files of runtime/ share; runtime_impl.h has the functions.
 *
 * Words that several threads touch (head, sys, life, taken of an actor; inject of a context; the
 * words of struct om_system marked "shared") are read and written only in mailbox.c, in the files
 * that include scheduler_impl.h, in bell.c and in stats.c.  Everything else of an actor belongs to
 * the thread that runs it.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/assert.h"
#include "runtime/actor.h"
#include "runtime/mailbox.h"
#include "runtime/slotmap.h"
#include "runtime/stats.h"
#include "runtime/supervisor.h"
#include "runtime/system.h"

#define OM_CACHE_LINE  64
#define om_likely(x)   __builtin_expect(!!(x), 1)
#define om_unlikely(x) __builtin_expect(!!(x), 0)
#define OM_HOT         inline __attribute__((always_inline)) /* a call would cost more than it does */
#define om_container_of(ptr, type, member) \
	((type *)(void *)((char *)(uintptr_t)(ptr)-offsetof(type, member)))

#if defined(__SANITIZE_THREAD__)
#define OM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define OM_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define OM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OM_ASAN 1
#endif
#endif

/*
 * ThreadSanitizer cannot see ck's inline assembly.  These tell it what the fences order; a race on
 * anything that they do not order is still found.
 */
#ifdef OM_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define om_tsan_acquire(addr) __tsan_acquire((void *)(uintptr_t)(addr))
#define om_tsan_release(addr) __tsan_release((void *)(uintptr_t)(addr))
#else
#define om_tsan_acquire(addr) ((void)0)
#define om_tsan_release(addr) ((void)0)
#endif

/* --- limits ---------------------------------------------------------------------------------- */

#define OM_SLOT_BITS         24
#define OM_SLOT_MASK         ((UINT64_C(1) << OM_SLOT_BITS) - 1)
#define OM_GEN_MAX           ((UINT64_C(1) << 39) - 1) /* bit 63 of an id marks a port */
#define OM_PORT_BIT          (UINT64_C(1) << 63)
#define OM_PORT_MAX          256 /* foreign threads that ask at the same moment */
#define OM_MBOX_SLOTS_MAX    524288 /* half of what the count in a mailbox head can tell apart */
#define OM_WORKER_MAX        64
#define OM_RUN_BUDGET        256 /* messages an actor may handle before the next one's turn */
#define OM_OVERLOAD_DEPTH    1024 /* a sender whose receiver is this far behind yields */
#define OM_NOWHERE           UINT8_MAX
#define OM_WORK_QUEUE_MAX    65536 /* blocking works that wait for a thread */
#define OM_LANE_LOCKS        64
#define OM_WATCHDOG_TICK_MS  5
#define OM_NAME_MAX          128
#define OM_SUP_STATUS        UINT32_C(0xfffffff0) /* om_supervisor_start to the supervisor */
#define OM_BUDGET_US_DEFAULT 10000
#define OM_BUDGET_US(def)    ((def)->budget_us != 0 ? (def)->budget_us : OM_BUDGET_US_DEFAULT)

/* --- messages -------------------------------------------------------------------------------- */

enum om_kind {
	OM_KIND_USER, /* plain messages and requests, on either lane */
	OM_KIND_REPLY, /* hdr.err and maybe a payload */
	OM_KIND_MONITOR, /* lies in the target's ext until it ends, then comes back as OM_KIND_DOWN */
	OM_KIND_DEMONITOR,
	OM_KIND_DOWN,
	OM_KIND_LINK,
	OM_KIND_UNLINK,
	OM_KIND_EXIT,
	OM_KIND_LATER_DONE, /* somebody else discharged a duty of ours */
	OM_KIND_TIMER,
	OM_KIND_IO,
	OM_KIND_WORK,
	OM_KIND_BELL,
	OM_KIND_CHILD, /* child to supervisor: started, ended */
	OM_KIND_RESTART, /* supervisor to child */
	OM_KIND_SUSPEND, /* supervisor to child: stop, keep the mailbox, wait for a verdict */
	OM_KIND_RELEASE, /* supervisor to child: end for good */
	OM_KIND_TRACE, /* om_trace_actor: on or off */
};

enum om_hdr_flag {
	OM_HDR_OWNER = 1, /* the payload is struct om_owned */
	OM_HDR_ANSWERED = 4, /* request: the duty is discharged or has moved (om_later) */
};

enum om_msg_cls {
	OM_CLS_32,
	OM_CLS_64,
	OM_CLS_128,
	OM_CLS_256,
	OM_CLS_COUNT,
	OM_CLS_HEAP,
	OM_CLS_EMBEDDED
};

/* Lies before every struct om_msg. */
struct om_msg_hdr {
	uint64_t to; /* checked on delivery: a message never reaches the slot's next tenant */
	uint32_t trace;
	uint8_t cls;
	uint8_t kind;
	uint8_t flags;
	uint8_t err;
};

struct om_owned {
	void *obj;
	om_free_fn free_fn;
};

#define OM_NODE_WORDS 5
#ifdef __clang__
#pragma clang diagnostic ignored "-Wgnu-variable-sized-type-not-at-end" /* words is the payload */
#endif
/* A message inside another object (timer, watch, work, bell): sending it needs no memory. */
struct om_node {
	struct om_msg_hdr hdr;
	struct om_msg msg;
	uint64_t words[OM_NODE_WORDS]; /* msg.payload */
} __attribute__((aligned(16)));

static inline struct om_msg_hdr *
om_hdr(const struct om_msg *msg)
{
	return (struct om_msg_hdr *)(uintptr_t)msg - 1;
}

/* Payloads of the runtime's own kinds. */
struct om_pay_monitor {
	struct om_msg *prev, *next; /* in the target's list of watchers */
	uint64_t watcher;
	uint64_t target;
	uint64_t ref; /* 0: a link */
	enum om_err why;
	bool linked;
	bool queued; /* in ext->watchers */
};
struct om_pay_child {
	uint64_t child;
	enum om_err why;
	uint8_t what; /* enum om_child_event */
};
enum om_child_event { OM_CHILD_STARTED, OM_CHILD_SUSPENDED, OM_CHILD_ENDED };

/* --- actors ---------------------------------------------------------------------------------- */

enum om_phase { OM_PHASE_FREE, OM_PHASE_NEW, OM_PHASE_RUN, OM_PHASE_SUSPENDED, OM_PHASE_ENDED };

enum om_actor_flag {
	OM_ACTOR_TRAP = 1,
	OM_ACTOR_SUPERVISED = 2,
	OM_ACTOR_TRACED = 4,
	OM_ACTOR_STATE_INLINE = 8,
	OM_ACTOR_TIMED = 16, /* own budget: every handler is timed */
	OM_ACTOR_DOZES = 32, /* in the run queue although its mailbox was empty: run_dozes */
	OM_ACTOR_DETACHED = 64,
	OM_ACTOR_BECAME = 128,
};

/* life: generation << 24 | stop_at << 4 | flags */
#define OM_LIFE_STOP       UINT64_C(1) /* end when `taken` has come to stop_at */
#define OM_LIFE_KILL       UINT64_C(2)
#define OM_LIFE_DEAD       UINT64_C(8)
#define OM_LIFE_CTL        (OM_LIFE_STOP | OM_LIFE_KILL)
#define OM_LIFE_STOP_SHIFT 4

/* limit: slots and these */
#define OM_LIMIT_MASK     UINT32_C(0x000fffff)
#define OM_LIMIT_DETACHED UINT32_C(0x80000000)
#define OM_LIMIT_LOCKED   UINT32_C(0x40000000) /* user lane under a lock: drop oldest, byte limit */
#define OM_LIMIT_BLOCK    UINT32_C(0x20000000)
#define OM_LIMIT_DROP_NEW UINT32_C(0x10000000)
#define OM_LIMIT_NAMED    UINT32_C(0x08000000) /* in the registry */

#define OM_INLINE_STATE 16

struct om_actor {
	/* Senders write; shared. */
	uint64_t head; /* user lane: newest message, count of pushes, idle bit (mailbox.c) */
	uint64_t sys; /* system lane: newest message, length */
	uint64_t life;
	/* The running thread writes; senders read taken and limit. */
	uint32_t taken; /* messages gone from the user lane, compared with the count in head */
	uint32_t limit;
	struct om_msg *first; /* pulled from head, in order */
	struct om_actor *run_next;
	const struct om_actor_def *def;
	void *state; /* OM_PHASE_NEW: the argument for start */

	struct om_actor_ext *ext;
	uint64_t handled;
	uint64_t birth; /* orders starts: top-level number << 32 | local number */
	struct om_msg *sys_first;
	uint32_t sys_left; /* length of sys_first */
	uint32_t dropped;
	uint32_t high_water;
	uint8_t worker; /* that ran it last; overloaded senders read it */
	uint8_t phase;
	uint8_t flags;
	uint8_t state_cls;
	unsigned char inline_state[OM_INLINE_STATE];
} __attribute__((aligned(OM_CACHE_LINE)));

_Static_assert(sizeof(struct om_actor) == 128, "two cache lines");

struct om_lane { /* OM_LIMIT_LOCKED; under sys->lane_lock[slot % OM_LANE_LOCKS] */
	struct om_msg *first, *last;
	uint32_t count;
	size_t bytes;
};

struct om_later_entry {
	uint64_t from, tag; /* from 0: a hole */
};

/* What few actors need; made on first use.  Running thread only, but for `lane`. */
struct om_actor_ext {
	struct om_lane lane;
	struct om_slotmap asks;
	struct om_ask *ask_first, *ask_last; /* by deadline */
	struct om_timer *ask_timer;
	struct om_later_entry *laters;
	uint32_t later_cap, later_used;
	struct om_slotmap monitors; /* ours on others: ref -> the record in flight */
	struct om_msg *watchers; /* others on us, and links */
	struct om_slotmap timers;
	struct om_slotmap watches;
	struct om_work *works;
	struct om_reg_entry *names;
	struct om_group_entry *groups;
	uint64_t supervisor;
	struct om_msg *spare; /* so that a report to the supervisor does not need memory */
	struct om_msg *deferred, *deferred_last; /* suspended: for the next incarnation */
	const void *start_arg; /* supervised: for restarts */
	struct om_detached *detached;
	const struct om_handler *handlers; /* om_become */
	size_t handler_count;
	struct om_hist *hist;
	uint64_t restarts;
	bool draining; /* told to stop, goes on for a while */
	bool suspending; /* told to suspend, goes on for a while */
	enum om_err why; /* of the end that the supervisor is judging */
};

/* --- contexts: what a thread needs to send and run ---------------------------------------------- */

struct om_magazine {
	uint64_t cur, prev; /* chains of free blocks (pool_impl.h); prev is empty or full */
	char *bump, *bump_end; /* fresh memory */
};

struct om_slot_magazine {
	struct om_actor *cur, *prev; /* linked by run_next; prev is empty or full */
	uint32_t cur_n, prev_n;
	char *bump, *bump_end;
};

struct om_counts { /* one writer each; read from outside by stats.c */
	uint64_t sent, handled, spawned, ended, failed, restarted;
	uint64_t dropped[OM_DROP_COUNT];
	uint64_t asks, asks_timed_out, asks_gone;
	uint64_t parks, wakes, handovers, slow, errors, again;
};

enum om_ctx_kind { OM_CTX_WORKER, OM_CTX_DETACHED, OM_CTX_FOREIGN, OM_CTX_IO };

struct om_ctx {
	struct om_system *sys;
	struct om_actor *self;
	uint64_t self_id;
	const struct om_msg *current;
	struct om_actor *run_head, *run_tail;
	struct om_actor *fresh,
	    *fresh_last; /* spawned and not yet run: newest first (scheduler.c) */
	uint32_t run_count, fresh_count;
	uint8_t kind;
	uint8_t index;
	uint8_t tracing;
	bool
	    current_moved; /* om_msg_take or om_forward: the message is not the dispatcher's any more */
	bool yield; /* the running actor should let others go first */
	uint8_t follow; /* worker of the receiver that is behind, or OM_NOWHERE */
	uint8_t woke; /* the worker that this thread left an actor to last */
	uint8_t doze; /* run_dozes: successes left over from */
	uint8_t doze_skip; /* ... and how many times more not to try */
	bool quit; /* detached: its actor has ended */
	bool leaving; /* om_exit or om_fail was called */
	bool leave_ordered; /* no supervisor is asked */
	enum om_err leave_why;
	uint32_t trace; /* of the message being handled */
	uint32_t births;
	uint64_t rng;
	struct om_counts n;
	uint64_t told; /* shared: the call of a handler that was reported last (watchdog.c) */
	struct om_magazine mag[OM_CLS_COUNT];
	struct om_slot_magazine actors;
	/* worker's own measurements */
	bool paid; /* the last window said that handing over pays */
	uint64_t tsc, window_ops, mixed;
	uint32_t window, window_left;
	uint32_t sample;
	struct om_ctx *next_ctx;
	struct om_wake *wake; /* where others leave actors for us; scheduler_impl.h */
};

extern __thread struct om_ctx *om_tls_ctx __attribute__((tls_model("initial-exec")));

struct om_depot {
	pthread_mutex_t lock;
	void *batch[OM_CLS_COUNT]; /* full magazines */
	struct om_actor *actors;
};

struct om_system {
	struct om_actor *slots; /* reserved address space, made readable as it grows */
	uint32_t slot_cap;
	uint32_t slot_mark; /* shared: slots below it exist */
	uint32_t slot_ready; /* slots below it are readable; under depot.lock */
	unsigned workers;
	struct om_ctx **worker;
	struct om_sched *sched; /* scheduler_impl.h */
	struct om_ctx *contexts; /* shared: all, newest first, linked by next_ctx */
	bool stuck; /* a thread did not end: the memory must stay */
	bool sim;
	uint32_t spin_us;
	uint32_t offload_max;
	uint32_t stopping; /* shared */
	uint32_t epoch; /* shared: om_system_spawn calls so far */

	struct om_depot depot;
	struct om_slab *slabs; /* under depot.lock */

	pthread_mutex_t foreign_lock;
	struct om_ctx *foreign;
	pthread_mutex_t lane_lock[OM_LANE_LOCKS];
	struct om_registry *registry;
	struct om_wheel *wheel;
	struct om_io *io;
	struct om_offload *offload;
	struct om_trace *trace;
	struct om_port *ports, *port_free; /* port_free: under foreign_lock */
	uint32_t dead_letter_watchers; /* shared */
	uint32_t watch_lost; /* shared: a monitor's record could not be kept */
	/* sim */
	int64_t sim_now_ns;
	uint64_t sim_rng;
};

/* A look at a shared word that nothing depends on but the moment at which it is noticed. */
static inline uint32_t
om_shared_peek(const uint32_t *word)
{
	return *(const volatile uint32_t *)word;
}

/* A time in ms from now; what lies beyond some 73 years is that. */
static inline int64_t
om_ns_after(int64_t now_ns, uint64_t ms)
{
	const uint64_t most = INT64_MAX / 4 / OM_NS_PER_MS;

	return now_ns + (int64_t)(ms < most ? ms : most) * OM_NS_PER_MS;
}

static inline uint64_t
om_actor_slot(const struct om_system *sys, const struct om_actor *a)
{
	return (uint64_t)(a - sys->slots);
}

/* Everything that the owner knows about its own id; life's generation changes only at its end. */
static inline struct om_actor_id
om_id_of(uint64_t v)
{
	return (struct om_actor_id){ v };
}

#endif /* OM_RUNTIME_TYPES_IMPL_H */
