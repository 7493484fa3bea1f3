/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_ACTOR_H
#define OM_RUNTIME_ACTOR_H

/*
 * Actors: definitions, messages, sending, asking, life cycle, timers, fds, offloaded work.
 * With runtime/system.h and runtime/supervisor.h this is the whole public API.
 *
 * Thread contract.  A function with a `struct om_ctx *cx` is called from a handler (or start, stop,
 * a continuation) of the actor that owns cx, on that thread, before it returns.  Functions with a
 * `struct om_system *` may be called from any thread, also from threads the runtime did not make.
 *
 * Ownership.  A send takes the message: it takes the address of the caller's pointer and sets it
 * to NULL on OM_OK.  On any error the caller still owns the message.  A handler borrows the message
 * it is given; om_msg_take keeps it.
 *
 * Example:
 *	enum { WORD = 1, HOW_MANY };
 *	struct words {
 *		uint64_t seen;
 *	};
 *
 *	static enum om_err
 *	on_word(struct om_ctx *cx, void *state, const struct om_msg *msg)
 *	{
 *		struct words *w = state;
 *
 *		w->seen++;
 *		return om_msg_u64(msg) != 0 ? om_send_u64(cx, msg->from, WORD, 0) : OM_OK;
 *	}
 *
 *	static enum om_err
 *	on_how_many(struct om_ctx *cx, void *state, const struct om_msg *msg)
 *	{
 *		return om_reply_u64(cx, msg, ((struct words *)state)->seen);
 *	}
 *
 *	static const struct om_handler on[] = { { WORD, on_word }, { HOW_MANY, on_how_many } };
 *	static const struct om_actor_def words_def = {
 *		.name = "words",
 *		.state_size = sizeof(struct words),
 *		.handlers = on,
 *		.handler_count = OM_COUNT(on),
 *	};
 *
 *	static void
 *	on_count(struct om_ctx *cx, void *state, const struct om_answer *answer)
 *	{
 *		if (answer->err != OM_OK) {
 *			om_fail(cx, answer->err);
 *		}
 *	}
 *
 *	static enum om_err
 *	ask_words(struct om_ctx *cx, struct om_actor_id words)
 *	{
 *		struct om_msg *msg = om_msg_new(cx, HOW_MANY, 0);
 *		enum om_err err;
 *
 *		if (msg == NULL) {
 *			return OM_ERR_NOMEM;
 *		}
 *		err = om_ask(cx, words, &msg, 1000, on_count, 0);
 *		om_msg_free(cx, msg); // NULL if it was sent
 *		return err;
 *	}
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/clock.h"
#include "base/err.h"

struct om_ctx; /* the running actor, as seen by its own code */
struct om_system; /* runtime/system.h */

/* Slot and generation: a handle to an ended actor is OM_ERR_STALE, never another actor. */
struct om_actor_id {
	uint64_t v;
};
#define OM_NOBODY ((struct om_actor_id){ 0 })

static inline bool
om_actor_id_eq(struct om_actor_id a, struct om_actor_id b)
{
	return a.v == b.v;
}

/* --- messages ------------------------------------------------------------------------------ */

/*
 * Types below OM_MSG_USER_MAX are the program's.  Those above come from the runtime and arrive on
 * the system lane, which is never full and goes before the user lane.
 */
#define OM_MSG_USER_MAX UINT32_C(0xfffffeff)
enum om_sys_msg {
	OM_SYS_DOWN = 0xffffff00, /* struct om_down: a monitored or linked actor has ended */
	OM_SYS_TIMER, /* struct om_timer_fired */
	OM_SYS_IO, /* struct om_io_ready */
	OM_SYS_BELL, /* struct om_bell_rung (runtime/mailbox.h, used by the bus) */
	OM_SYS_REPLY, /* a reply of one u64 (om_reply_u64) or of nothing */
	OM_SYS_DEAD_LETTER, /* struct om_dead_letter (runtime/stats.h) */
	OM_SYS_SLOW, /* struct om_slow_report (runtime/stats.h) */
};

/* Read freely; only the runtime writes. 32 bytes and the payload, which is aligned to 8. */
struct om_msg {
	struct om_msg *next; /* runtime */
	uint32_t type;
	uint32_t size; /* payload bytes */
	struct om_actor_id from; /* OM_NOBODY: a foreign thread */
	uint64_t tag; /* runtime: request number and flags; 0: no answer is expected */
	unsigned char payload[] __attribute__((aligned(8)));
};

struct om_down {
	struct om_actor_id who;
	uint64_t ref; /* what om_monitor gave; 0 for a link */
	enum om_err why; /* OM_OK: ended by itself or stopped in order */
};
struct om_timer_fired {
	uint64_t timer;
	uint64_t cookie;
};
struct om_io_ready {
	uint64_t watch;
	uint64_t cookie;
	int fd;
	uint32_t events; /* OM_IO_* */
};

typedef void (*om_free_fn)(void *obj);

/* Gives a message with an uninitialised payload.  NULL: no memory. */
struct om_msg *om_msg_new(struct om_ctx *cx, uint32_t type, size_t size);
/* The same from any thread. */
struct om_msg *om_system_msg_new(struct om_system *sys, uint32_t type, size_t size);
/*
 * A message that owns an object: whoever frees the message (a receiver that ignores it, a drop, a
 * shutdown) calls free_fn(obj), exactly once.  NULL: no memory, the caller still owns obj.
 */
struct om_msg *om_msg_new_owner(struct om_ctx *cx, uint32_t type, void *obj, om_free_fn free_fn);
struct om_msg *om_system_msg_new_owner(struct om_system *sys, uint32_t type, void *obj,
				       om_free_fn free_fn);
/* The object of an owner message; NULL if it was taken. */
void *om_msg_obj(const struct om_msg *msg);
/* Takes the object out: the message no longer frees it. */
void *om_msg_take_obj(const struct om_msg *msg);
/*
 * Keeps the message that is being handled; om_msg_free it later.  A kept request can still be
 * answered or forwarded; when it is freed, or sent on as a plain message or a question of one's own,
 * its asker hears OM_ERR_CANCELLED.
 */
struct om_msg *om_msg_take(struct om_ctx *cx, const struct om_msg *msg);
/* Any thread; cx may be NULL.  NULL message is fine. */
void om_msg_free(struct om_ctx *cx, struct om_msg *msg);

static inline uint64_t
om_msg_u64(const struct om_msg *msg)
{
	return *(const uint64_t *)(const void *)msg->payload;
}

/* --- definition of an actor ---------------------------------------------------------------- */

/*
 * Returns OM_OK, an error (a request gets it as its answer; for a plain message it is counted), or
 * OM_AGAIN: "run me again with this message after the others had their turn" (not for the runtime's
 * own messages, OM_SYS_*, which are made for one call: there it is an error).  To end the actor as
 * failed call om_fail; a handler's error is the message's fate, not the actor's.
 */
#define OM_AGAIN ((enum om_err) - 1)
typedef enum om_err (*om_handler_fn)(struct om_ctx *cx, void *state, const struct om_msg *msg);

struct om_handler {
	uint32_t type;
	om_handler_fn fn;
};

enum om_overload {
	OM_OVERLOAD_REFUSE, /* the sender gets OM_ERR_FULL and keeps the message */
	OM_OVERLOAD_DROP_NEW, /* the new message is freed and counted */
	OM_OVERLOAD_DROP_OLDEST, /* the oldest of the user lane are freed and counted */
	/*
	 * A detached actor (not for itself) or a foreign thread waits; others: refuse.  An actor that
	 * is killed while it waits gets OM_ERR_CANCELLED.
	 */
	OM_OVERLOAD_BLOCK,
};

enum om_restart {
	OM_RESTART_NEVER, /* temporary: its end is its end */
	OM_RESTART_ON_FAILURE, /* transient */
	OM_RESTART_ALWAYS, /* permanent */
};

#define OM_MAILBOX_SLOTS_DEFAULT 65536

struct om_actor_def {
	const char *name;
	size_t state_size; /* zeroed memory from the runtime; 0: state is NULL */

	/* First thing in the actor's own context.  An error ends it (why = that error). */
	enum om_err (*start)(struct om_ctx *cx, void *state, const void *arg);
	/*
	 * An om_stop is due: OM_OK ends the actor now; OM_AGAIN: it goes on and ends itself later
	 * with om_exit, for which no supervisor restarts it.  NULL: OM_OK.
	 */
	enum om_err (*drain)(struct om_ctx *cx, void *state);
	/* Last thing, also after a failed start: release what state holds. */
	void (*stop)(struct om_ctx *cx, void *state, enum om_err why);

	const struct om_handler *handlers;
	size_t handler_count;
	om_handler_fn otherwise; /* NULL: unknown types are answered OM_ERR_UNKNOWN_TYPE, counted */

	uint32_t mailbox_slots; /* user lane; 0: OM_MAILBOX_SLOTS_DEFAULT */
	size_t mailbox_bytes; /* payload bytes in the user lane; 0: no limit */
	enum om_overload overload;
	enum om_restart restart; /* when its supervisor's child spec does not say otherwise */
	uint32_t budget_us; /* watchdog: a handler over this is reported; 0: 10,000 */
	bool detached; /* owns a thread: may block */
	bool
	    drop_on_stop; /* om_stop ends it after this message; what waits is dropped and counted */
};

/* --- from inside an actor ------------------------------------------------------------------ */

struct om_actor_id om_self(const struct om_ctx *cx);
struct om_system *om_ctx_system(const struct om_ctx *cx);
struct om_mono om_now(const struct om_ctx *cx); /* the fake clock in sim mode; cheap */
uint64_t om_rand(struct om_ctx *cx); /* seeded in sim mode; not for secrets */

/*
 * Takes *msgp.  Errors: FULL, TOO_BIG (over mailbox_bytes: it will never fit), STALE, SHUTDOWN.
 * Messages from one sender arrive in order (within a lane).
 */
enum om_err om_send(struct om_ctx *cx, struct om_actor_id to, struct om_msg **msgp) OM_MUST_CHECK;
enum om_err om_send_u64(struct om_ctx *cx, struct om_actor_id to, uint32_t type,
			uint64_t value) OM_MUST_CHECK;
/* Sends on the priority (system) lane; bounded by twice the user lane's slots. */
enum om_err om_send_urgent(struct om_ctx *cx, struct om_actor_id to,
			   struct om_msg **msgp) OM_MUST_CHECK;
/* Hands the message being handled to another actor; a reply goes to the original sender. */
enum om_err om_forward(struct om_ctx *cx, struct om_actor_id to,
		       const struct om_msg *msg) OM_MUST_CHECK;

/* An answer: err != OM_OK and msg NULL, or OM_OK and msg borrowed until the continuation returns. */
struct om_answer {
	enum om_err err; /* TIMEOUT, GONE, or what the other side returned */
	const struct om_msg *msg;
	uint64_t cookie;
};
typedef void (*om_answer_fn)(struct om_ctx *cx, void *state, const struct om_answer *answer);

/*
 * Takes *msgp.  Sends a request; fn runs in this actor exactly once: reply, error, timeout or
 * OM_ERR_GONE.  When om_ask itself returns an error, fn is not called.  timeout_ms > 0.
 */
enum om_err om_ask(struct om_ctx *cx, struct om_actor_id to, struct om_msg **msgp,
		   uint64_t timeout_ms, om_answer_fn fn, uint64_t cookie) OM_MUST_CHECK;

/* Answers the request that is being handled.  OM_ERR_STATE: it is no request, or was answered. */
enum om_err om_reply(struct om_ctx *cx, const struct om_msg *req,
		     struct om_msg **msgp) OM_MUST_CHECK;
enum om_err om_reply_u64(struct om_ctx *cx, const struct om_msg *req, uint64_t value) OM_MUST_CHECK;

/* "I will answer later": the duty leaves the handler and must be discharged once. */
struct om_request {
	struct om_actor_id from;
	/* The runtime's: */
	uint64_t tag; /* 0: there is no duty */
	struct om_actor_id debtor; /* who said om_later, and is told when another answers */
	uint32_t trace; /* of the question, for the answer */
};
struct om_request om_later(struct om_ctx *cx, const struct om_msg *req);
enum om_err om_reply_to(struct om_ctx *cx, struct om_request *rq,
			struct om_msg **msgp) OM_MUST_CHECK;
void om_reply_err_to(struct om_ctx *cx, struct om_request *rq, enum om_err err);

/* Swaps the handler table; it must outlive the actor.  Lasts until a restart. */
void om_become(struct om_ctx *cx, const struct om_handler *handlers, size_t count);

/* --- life cycle ---------------------------------------------------------------------------- */

/* arg is borrowed until start has run when the parent's handler returns: pass small const data or
 * heap memory that start takes.  The child is not tied to its parent (see om_link, supervisor). */
enum om_err om_spawn(struct om_ctx *cx, const struct om_actor_def *def, const void *arg,
		     struct om_actor_id *out) OM_MUST_CHECK;
/* Asks an actor to end after what is in its mailbox now (drop_on_stop).  A stale id is fine. */
void om_stop(struct om_ctx *cx, struct om_actor_id who);
/* Ends it after its current handler; queued messages are dropped and counted, requests answered. */
void om_kill(struct om_ctx *cx, struct om_actor_id who);
/* Ends oneself after this handler: in order, or as failed (the supervisor decides what follows). */
void om_exit(struct om_ctx *cx);
void om_fail(struct om_ctx *cx, enum om_err why);

/* OM_SYS_DOWN comes once; at once when the actor is gone already. */
enum om_err om_monitor(struct om_ctx *cx, struct om_actor_id who, uint64_t *ref) OM_MUST_CHECK;
void om_demonitor(struct om_ctx *cx, uint64_t ref); /* no OM_SYS_DOWN after this returns */
/* Both ways: when one fails the other fails too, unless it traps. */
enum om_err om_link(struct om_ctx *cx, struct om_actor_id who) OM_MUST_CHECK;
void om_unlink(struct om_ctx *cx, struct om_actor_id who);
void om_trap_exits(struct om_ctx *cx, bool on); /* links then deliver OM_SYS_DOWN */

/* --- names and groups ---------------------------------------------------------------------- */

enum om_err om_register(struct om_ctx *cx, const char *name) OM_MUST_CHECK; /* EXISTS */
struct om_actor_id om_whereis(struct om_system *sys, const char *name); /* OM_NOBODY */
enum om_err om_join(struct om_ctx *cx, const char *group) OM_MUST_CHECK;
void om_leave(struct om_ctx *cx, const char *group);
/* Copies the payload (no owner messages) to every member; gives how many took it. */
size_t om_publish(struct om_ctx *cx, const char *group, const struct om_msg *msg);

/* --- timers -------------------------------------------------------------------------------- */

/*
 * OM_SYS_TIMER after delay_ms, then every period_ms (0: once).  O(1).  At most one of a timer waits in
 * the mailbox: periods that end meanwhile are not made up for.
 */
enum om_err om_timer_start(struct om_ctx *cx, uint64_t delay_ms, uint64_t period_ms,
			   uint64_t cookie, uint64_t *timer) OM_MUST_CHECK;
/* No OM_SYS_TIMER of this timer after it returns.  0 and unknown timers are fine. */
void om_timer_cancel(struct om_ctx *cx, uint64_t timer);

/* --- fd readiness -------------------------------------------------------------------------- */

#define OM_IO_READ  1u
#define OM_IO_WRITE 2u
#define OM_IO_ERROR 4u /* reported with the others, never asked for */

/* One OM_SYS_IO when ready, then silent until om_io_rearm (one-shot: no storm).  fd is borrowed. */
enum om_err om_io_watch(struct om_ctx *cx, int fd, uint32_t events, uint64_t cookie,
			uint64_t *watch) OM_MUST_CHECK;
enum om_err om_io_rearm(struct om_ctx *cx, uint64_t watch, uint32_t events) OM_MUST_CHECK;
/*
 * Before the fd is closed: its number may be another's at once, with a watch of its own.  No OM_SYS_IO
 * of this watch after it returns.  An actor's end does it for all that are left, before its `stop`.
 */
void om_io_unwatch(struct om_ctx *cx, uint64_t watch);

/* --- blocking work ------------------------------------------------------------------------- */

/*
 * fn(arg) runs on a thread of a bounded pool; then done(cx, state, ...) runs in this actor with
 * fn's result, exactly once, unless the actor ended: then drop(arg) runs instead, on a thread of
 * the pool too, so it may block.  A work that has not begun when its actor's `stop` is called is
 * dropped only; one that runs goes on beside `stop`: what it uses is its arg's.
 * The work owns arg from the call on when it returns OM_OK; `done` gets it back.  OM_ERR_FULL: 65,536
 * works wait for a thread of the pool.
 */
typedef enum om_err (*om_work_fn)(void *arg);
typedef void (*om_work_done_fn)(struct om_ctx *cx, void *state, void *arg, enum om_err result);
enum om_err om_offload(struct om_ctx *cx, om_work_fn fn, void *arg, om_work_done_fn done,
		       om_free_fn drop) OM_MUST_CHECK;

/*
 * The same on pool 0 (om_offload's) to OM_OFFLOAD_POOLS - 1.  Each pool has threads of its own: what
 * waits for one service that hangs does not keep another's work waiting.
 */
#define OM_OFFLOAD_POOLS 4
enum om_err om_offload_to(struct om_ctx *cx, unsigned pool, om_work_fn fn, void *arg,
			  om_work_done_fn done, om_free_fn drop) OM_MUST_CHECK;

#endif /* OM_RUNTIME_ACTOR_H */
