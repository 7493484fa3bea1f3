/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_IMPL_H
#define OM_RUNTIME_IMPL_H

/*
 * What the files of runtime/ share.  No other folder includes this.
 *
 * Words that several threads touch (head, sys, life, taken of an actor; inject of a context; the
 * words of struct om_system marked "shared") are read and written only in mailbox.c, scheduler.c
 * and stats.c.  Everything else of an actor belongs to the thread that runs it.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/assert.h"
#include "runtime/actor.h"
#include "runtime/mailbox.h"
#include "runtime/stats.h"
#include "runtime/supervisor.h"
#include "runtime/system.h"

#define OM_CACHE_LINE  64
#define om_likely(x)   __builtin_expect(!!(x), 1)
#define om_unlikely(x) __builtin_expect(!!(x), 0)
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
};

enum om_hdr_flag {
	OM_HDR_OWNER = 1, /* the payload is struct om_owned */
	OM_HDR_ANSWERED = 4, /* request: the duty is discharged or has moved (om_later) */
	OM_HDR_URGENT = 8,
	OM_HDR_DELEGATED = 16, /* reply from one that the duty was handed to */
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

/* --- small utility: a table of pointers with checked handles ----------------------------------- */

struct om_slotmap_entry {
	void *ptr;
	uint32_t gen;
	uint32_t next_free;
};
struct om_slotmap {
	struct om_slotmap_entry *v;
	uint32_t cap, used, free_head; /* free_head: index + 1 */
};
uint64_t om_slotmap_add(struct om_slotmap *map, void *ptr); /* 0: no memory */
void *om_slotmap_get(const struct om_slotmap *map, uint64_t key);
void *om_slotmap_del(struct om_slotmap *map, uint64_t key);
/* Index walk: entries with ptr != NULL. */
uint64_t om_slotmap_key(const struct om_slotmap *map, uint32_t i);
void om_slotmap_fini(struct om_slotmap *map);

/* --- actors ---------------------------------------------------------------------------------- */

enum om_phase { OM_PHASE_FREE, OM_PHASE_NEW, OM_PHASE_RUN, OM_PHASE_SUSPENDED, OM_PHASE_ENDED };

enum om_actor_flag {
	OM_ACTOR_TRAP = 1,
	OM_ACTOR_SUPERVISED = 2,
	OM_ACTOR_TRACED = 4,
	OM_ACTOR_STATE_INLINE = 8,
	OM_ACTOR_TIMED = 16, /* own budget: every handler is timed */
	OM_ACTOR_SYSTEM = 32, /* spawned by om_system_spawn */
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
	uint8_t worker; /* that ran it last */
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
	const void *start_arg; /* supervised: for restarts */
	struct om_detached *detached;
	const struct om_handler *handlers; /* om_become */
	size_t handler_count;
	struct om_hist *hist;
	uint64_t restarts;
	bool draining;
	enum om_err why; /* of the end that the supervisor is judging */
};

/* --- contexts: what a thread needs to send and run ---------------------------------------------- */

struct om_magazine {
	void *cur, *prev; /* chains of free blocks; prev is empty or full */
	uint32_t cur_n, prev_n;
	char *bump, *bump_end; /* fresh memory */
};

struct om_counts { /* one writer each; read from outside by stats.c */
	uint64_t sent, handled, spawned, ended, failed, restarted;
	uint64_t dropped[OM_DROP_COUNT];
	uint64_t asks, asks_timed_out, asks_gone;
	uint64_t parks, wakes, handovers, slow, errors;
};

enum om_ctx_kind { OM_CTX_WORKER, OM_CTX_DETACHED, OM_CTX_FOREIGN, OM_CTX_IO };

struct om_ctx {
	struct om_system *sys;
	struct om_actor *self;
	uint64_t self_id;
	const struct om_msg *current;
	struct om_actor *run_head, *run_tail;
	struct om_actor *fresh, *fresh_last; /* spawned and not yet run: newest first (scheduler.c) */
	uint32_t run_count, fresh_count;
	uint8_t kind;
	uint8_t index;
	uint8_t tracing;
	bool
	    current_moved; /* om_msg_take or om_forward: the message is not the dispatcher's any more */
	bool yield; /* the running actor should let others go first */
	bool quit; /* detached: its actor has ended */
	bool leaving; /* om_exit or om_fail was called */
	bool leave_ordered; /* no supervisor is asked */
	enum om_err leave_why;
	uint32_t trace; /* of the message being handled */
	uint32_t births;
	uint64_t rng;
	struct om_counts n;
	struct om_magazine mag[OM_CLS_COUNT];
	struct om_magazine actors;
	/* worker's own measurements */
	bool paid; /* the last window said that handing over pays */
	uint64_t tsc, window_ops, mixed;
	uint32_t window, window_left;
	uint32_t sample;
	struct om_ctx *next_ctx;
	struct om_wake *wake; /* where others leave actors for us; scheduler.c */
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
	struct om_sched *sched; /* scheduler.c */
	struct om_ctx *contexts; /* shared: all, newest first, linked by next_ctx */
	bool stuck; /* a thread did not end: the memory must stay */
	bool sim;
	uint32_t spin_us;
	uint32_t offload_max;
	uint32_t stopping; /* shared */
	uint32_t epoch; /* shared: om_system_spawn calls so far */
	uint64_t ns_per_tsc_q32;

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

/* --- pool.c ------------------------------------------------------------------------------------ */

#define OM_MAGAZINE 64
struct om_free_block {
	struct om_free_block *next;
	struct om_free_block *next_batch; /* first of a full magazine in the depot */
};

void *om_pool_refill(struct om_ctx *cx, uint8_t cls); /* the magazine is empty; NULL: no memory */
void om_pool_spill(struct om_ctx *cx, uint8_t cls);   /* the magazine is full */
void *om_pool_heap(size_t size);
void om_pool_heap_free(void *block);

static inline uint8_t
om_pool_class(size_t size)
{
#ifdef OM_ASAN
	(void)size;
	return OM_CLS_HEAP; /* so that a use after free is found */
#else
	if (om_likely(size <= 64)) {
		return size <= 32 ? OM_CLS_32 : OM_CLS_64;
	}
	if (size <= 256) {
		return size <= 128 ? OM_CLS_128 : OM_CLS_256;
	}
	return OM_CLS_HEAP;
#endif
}

/* Uninitialised; NULL: no memory. */
static inline void *
om_pool_alloc(struct om_ctx *cx, size_t size, uint8_t *cls)
{
	struct om_magazine *mag;
	struct om_free_block *block;

	*cls = om_pool_class(size);
	if (om_unlikely(*cls == OM_CLS_HEAP)) {
		return om_pool_heap(size);
	}
	mag = &cx->mag[*cls];
	block = mag->cur;
	if (om_unlikely(block == NULL)) {
		return om_pool_refill(cx, *cls);
	}
	mag->cur = block->next;
	mag->cur_n--;
	return block;
}

static inline void
om_pool_free(struct om_ctx *cx, void *mem, uint8_t cls)
{
	struct om_magazine *mag;
	struct om_free_block *block = mem;

	if (om_unlikely(cls == OM_CLS_HEAP)) {
		om_pool_heap_free(mem);
		return;
	}
	mag = &cx->mag[cls];
	block->next = mag->cur;
	mag->cur = block;
	if (om_unlikely(++mag->cur_n == OM_MAGAZINE)) {
		om_pool_spill(cx, cls);
	}
}

static inline struct om_msg *
om_pool_msg(struct om_ctx *cx, uint32_t type, size_t size)
{
	uint8_t cls;
	struct om_msg_hdr *hdr;
	struct om_msg *msg;

	if (om_unlikely(size > UINT32_MAX - 4096)) {
		return NULL;
	}
	hdr = om_pool_alloc(cx, sizeof(*hdr) + sizeof(*msg) + size, &cls);
	if (om_unlikely(hdr == NULL)) {
		return NULL;
	}
	*hdr = (struct om_msg_hdr){ .cls = cls, .kind = OM_KIND_USER, .trace = cx->trace };
	msg = (struct om_msg *)(hdr + 1);
	msg->type = type;
	msg->size = (uint32_t)size;
	msg->from = OM_NOBODY;
	msg->tag = 0;
	return msg;
}

/* The block only. */
static inline void
om_pool_msg_free(struct om_ctx *cx, struct om_msg *msg)
{
	struct om_msg_hdr *hdr = om_hdr(msg);

	if (om_likely(hdr->cls != OM_CLS_EMBEDDED)) {
		om_pool_free(cx, hdr, hdr->cls);
	}
}

struct om_actor *om_pool_actor(struct om_ctx *cx);
void om_pool_actor_free(struct om_ctx *cx, struct om_actor *a);
void om_pool_ctx_fini(struct om_ctx *cx);
void om_pool_sys_fini(struct om_system *sys);
struct om_system *om_pool_sys_of(const struct om_msg *msg);

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
uint32_t om_mbox_depth(const struct om_actor *a, uint32_t *sys_depth);
bool om_mbox_bell_take(struct om_ctx *cx, struct om_node *node, struct om_bell_rung *rung);
void om_mbox_bell_discard(struct om_node *node);
void om_mbox_node_init(struct om_node *node, enum om_kind kind, uint32_t type, uint32_t size);
bool om_mbox_take_sys(struct om_actor *a);
bool om_mbox_pull_locked(struct om_system *sys, struct om_actor *a);
bool om_mbox_rest(struct om_actor *a, bool even_if_full);
uint64_t om_mbox_order(const struct om_actor *a, uint64_t life);
uint32_t om_mbox_sys_len(struct om_system *sys, uint64_t to);
uint32_t om_mbox_limit(struct om_system *sys, uint64_t to);

/* --- scheduler.c --------------------------------------------------------------------------------- */

enum om_err om_sched_init(struct om_system *sys);
enum om_err om_sched_start(struct om_system *sys);
bool om_sched_stop(struct om_system *sys, uint64_t grace_ms); /* false: a thread is stuck */
void om_sched_fini(struct om_system *sys);
void om_sched_spawned(struct om_ctx *cx, struct om_actor *a);
void om_sched_ready(struct om_ctx *cx, struct om_actor *a); /* the caller took the idle bit */
bool om_sched_take_inject(struct om_ctx *cx);
void om_sched_requeue(struct om_ctx *cx, struct om_actor *a);
/* Runs an actor until its budget is used up, it is idle, or it ended. */
void om_sched_run(struct om_ctx *cx, struct om_actor *a, uint32_t budget);
struct om_ctx *om_ctx_new(struct om_system *sys, enum om_ctx_kind kind, unsigned index);
void om_ctx_free(struct om_ctx *cx);
struct om_ctx *om_ctx_first(struct om_system *sys);
enum om_err om_detached_start(struct om_ctx *cx, struct om_actor *a);
void om_detached_reap(struct om_system *sys);
/* Waiting for ends of actors; for room in a mailbox. */
void om_sched_ended(struct om_system *sys);
bool om_sched_wait_ended(struct om_system *sys, uint64_t id, int64_t deadline_ns);
uint32_t om_sched_room_mark(struct om_system *sys);
void om_sched_room_wait(struct om_system *sys, uint32_t mark, bool wait);
void om_sched_room_made(struct om_system *sys);
void om_sched_busy(struct om_system *sys);
bool om_sched_watchdog(struct om_ctx *io); /* io thread: false when all workers sleep */
/* Ports: where foreign threads wait for answers. */
enum om_err om_port_init(struct om_system *sys);
struct om_port *om_port_get(struct om_system *sys, uint64_t *id); /* NULL: too many at once */
bool om_port_wait(struct om_system *sys, struct om_port *port, int64_t deadline_ns);
bool om_port_ready(const struct om_port *port);
struct om_msg *om_port_put(struct om_system *sys, struct om_port *port); /* the answer or NULL */
enum om_err om_port_answer(struct om_system *sys, uint64_t id, struct om_msg *msg);
uint32_t om_shared_load(const uint32_t *word);
void om_shared_store(uint32_t *word, uint32_t v);
uint32_t om_shared_add(uint32_t *word, int32_t v); /* gives the new value */

/* --- actor.c --------------------------------------------------------------------------------------- */

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
bool om_actor_start(struct om_ctx *cx, struct om_actor *a); /* false: it ended */
/* The running actor leaves: ends, or is suspended until its supervisor has judged. */
bool om_actor_leave(struct om_ctx *cx, struct om_actor *a, enum om_err why, bool ordered);
/* Handles one message of either lane.  false: run it again later. */
bool om_actor_dispatch(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
void om_actor_dispatch_sys(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
/* A message that nobody will handle: answers a request, frees, counts. */
void om_actor_discard(struct om_ctx *cx, struct om_msg *msg, enum om_drop why);
void om_actor_deliver(struct om_ctx *cx, struct om_actor *a, uint32_t type, const void *payload,
		      uint32_t size);
struct om_hist *om_actor_hist(struct om_actor *a);

/* --- context.c, ask.c, link.c, registry.c, timer.c, io.c, offload.c, trace.c --------------------- */

void om_ask_answer(struct om_ctx *cx, uint64_t to, uint64_t tag, struct om_msg *msg,
		   enum om_err err, uint8_t flags);
void om_ask_turn_round(struct om_ctx *cx, struct om_msg *req, enum om_err err); /* takes req */
void om_ask_on_reply(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
void om_ask_on_timer(struct om_ctx *cx, struct om_actor *a);
void om_ask_on_later_done(struct om_actor *a, const struct om_msg *msg);
enum om_err om_ask_note_later(struct om_ctx *cx, const struct om_msg *req);
void om_ask_end(struct om_ctx *cx, struct om_actor *a);

void om_link_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg);
void om_link_discard(struct om_ctx *cx, struct om_msg *msg);
/* What a restart ends too: our monitors on others, and links. */
void om_link_end_own(struct om_ctx *cx, struct om_actor *a, enum om_err why);
void om_link_end(struct om_ctx *cx, struct om_actor *a, enum om_err why);

enum om_err om_reg_init(struct om_system *sys);
void om_reg_fini(struct om_system *sys);
enum om_err om_reg_name(struct om_system *sys, struct om_actor *a, uint64_t id, const char *name);
void om_reg_end(struct om_system *sys, struct om_actor *a, uint64_t id);
bool om_reg_name_of(struct om_system *sys, uint64_t id, char *out, size_t size);
size_t om_reg_members(struct om_system *sys, const char *group, uint64_t **out);

struct om_timer;
enum om_err om_timer_init(struct om_system *sys);
void om_timer_fini(struct om_system *sys);
struct om_timer *om_timer_new_internal(struct om_ctx *cx);
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

enum om_trace_event { OM_TRACE_SEND, OM_TRACE_HANDLE, OM_TRACE_DROP, OM_TRACE_SPAWN, OM_TRACE_END };
enum om_err om_trace_init(struct om_system *sys);
void om_trace_fini(struct om_system *sys);
void om_trace_put(struct om_system *sys, enum om_trace_event event, uint64_t who,
		  const struct om_msg *msg, uint64_t arg);

/* --- system.c, stats.c, sim.c ---------------------------------------------------------------------- */

struct om_mono om_system_now(const struct om_system *sys);
struct om_ctx *om_system_enter(struct om_system *sys, bool *locked); /* any thread */
void om_system_leave(struct om_system *sys, bool locked);
void om_stats_drop(struct om_ctx *cx, const struct om_msg *msg, enum om_drop why);
enum om_err om_stats_sampled(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn,
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
