/* SPDX-License-Identifier: ISC */
#ifndef OM_MSG_BUS_H
#define OM_MSG_BUS_H

/*
 * Services: actors that talk to each other over ZeroMQ inproc with msgpack payloads.
 *
 * A service owns a PUSH socket per peer it has written to, connected to a PULL of that peer,
 * inproc://omerta/<peer>/<service>.  ZeroMQ carries, the mailbox rings: after a send the bus rings
 * the counting doorbell of that link (runtime/mailbox.h), and the receiver takes exactly that many
 * frames from that socket, so it never probes an empty one.  A frame holds a bus header (what an
 * envelope says, as numbers; request or answer, for whom) and the body, as it is in msg/envelope.h.
 *
 * Messages from one service to another arrive in order, across a restart of the receiver too.  A
 * restarted service finds the frames that waited; requests it had put off with om_service_later are
 * answered OM_ERR_GONE.  An asker whose peer has ended for good gets OM_ERR_GONE (the peer may or
 * may not have acted); what a new actor of that name finds in its sockets it handles.
 *
 * Thread contract: every function with a `struct om_service *` is called from a handler,
 * continuation, start or stop of that service.
 */
#include "msg/envelope.h"
#include "runtime/system.h"

#define OM_PEER_MAX     64 /* bytes of a peer's id */
#define OM_NETWORK_MAX  64 /* bytes of a network's id */
#define OM_SERVICE_MAX  32 /* services on one bus, and bytes of a service's name */
#define OM_BUS_BACKLOG  16384 /* frames from one service that wait for another, default */
#define OM_BUS_ASKS_MAX (1u << 20) /* asks of one service without an answer yet; as many put off */

struct om_bus;
struct om_service;

/* Who asks: set by the control endpoint from the authenticated connection, never from a body. */
enum om_role {
	OM_ROLE_ACTOR, /* a service of this daemon on its own account */
	OM_ROLE_REQUESTER,
	OM_ROLE_OPERATOR,
};
struct om_caller {
	enum om_role role;
	char peer[OM_PEER_MAX + 1]; /* "" for an actor */
	char network[OM_NETWORK_MAX + 1]; /* the network it belongs to; "" if none */
};

/* A message as a handler sees it.  All of it is borrowed until the handler returns. */
struct om_in {
	enum om_msg_type type;
	uint64_t deadline_ms; /* what the asker waits; 0 for a plain send */
	const struct om_caller *caller;
	const char *from; /* name of the sending service */
	const void *body; /* struct om_<body> of the type; NULL in on_raw */
	struct om_bin raw; /* the encoded body */
	bool wants_answer;
	void *priv; /* bus */
};

/*
 * OM_OK: answered, or om_service_later was called, or no answer is due.  Else: the error reply.  A
 * request that is neither answered nor put off when its handler returns OM_OK is answered
 * OM_ERR_INTERNAL and logged.
 */
typedef enum om_err (*om_service_fn)(struct om_service *sv, void *state, const struct om_in *in);
struct om_service_handler {
	enum om_msg_type type;
	om_service_fn fn;
};

struct om_service_def {
	const char *name;
	size_t state_size;
	enum om_err (*start)(struct om_service *sv, void *state, const void *arg);
	void (*stop)(struct om_service *sv, void *state, enum om_err why);
	const struct om_service_handler *on; /* messages from the bus */
	size_t on_count;
	/* Those that decode the body themselves: what they keep of it is not decoded twice. */
	const struct om_service_handler *on_raw;
	size_t on_raw_count;
	/* Mailbox messages (timers, fds, downs, children): called for any type but the bus's own. */
	enum om_err (*on_msg)(struct om_service *sv, void *state, const struct om_msg *msg);
	/*
	 * After all frames that were waiting, of all peers, were handled, and after asks that ended
	 * without an answer: group commit and the like.
	 */
	void (*on_batch_end)(struct om_service *sv, void *state);
	uint32_t backlog; /* frames from each peer, then OM_ERR_FULL; 0: OM_BUS_BACKLOG */
	bool detached; /* owns a thread */
	enum om_restart restart;
};

/* Any thread.  The permission of the schema: may this caller send this type? */
bool om_caller_may(const struct om_caller *caller, enum om_msg_type type);

/* --- the bus --------------------------------------------------------------------------------- */

enum om_err om_bus_new(struct om_system *sys, struct om_bus **out,
		       struct om_why *why) OM_MUST_CHECK;
/* After om_system_stop, before om_system_free, own sockets closed.  NULL is fine. */
void om_bus_free(struct om_bus *bus);
/* Any thread.  The ZeroMQ context (a void *), for the control endpoint's own sockets. */
void *om_bus_zmq(struct om_bus *bus);

/*
 * What a supervisor's child spec needs: a service is started with om_service_actor(&def) as its
 * actor definition and a struct om_service_arg as its arg, both for the life of the system.
 */
struct om_service_arg {
	struct om_bus *bus;
	const struct om_service_def *def;
	const void *arg; /* for def->start */
};
/* Any thread; the result lives as long as the bus.  NULL: no memory. */
const struct om_actor_def *om_service_actor(struct om_bus *bus, const struct om_service_def *def);
/*
 * Any thread.  Starts one without a supervisor (tests).  A peer can be written to from the moment
 * its start function runs; before that it is OM_ERR_NOT_FOUND or OM_ERR_GONE.
 */
enum om_err om_service_spawn(struct om_bus *bus, const struct om_service_arg *arg,
			     struct om_actor_id *out) OM_MUST_CHECK;

/* --- from inside a service ------------------------------------------------------------------- */

struct om_ctx *om_service_cx(struct om_service *sv);
struct om_bus *om_service_bus(struct om_service *sv);
/*
 * Continuations of the runtime (om_offload's done, om_ask's answer) get the actor's state, and the
 * actor's state of a service is its struct om_service: convert it with om_service_of_actor, first
 * thing, which also makes cx the one that om_service_cx gives.
 */
struct om_service *om_service_of_actor(struct om_ctx *cx, void *actor_state);
void *om_service_state(struct om_service *sv); /* what the service's own functions get */
/* om_exit and om_fail for services: frames that wait are not handled any more by this life. */
void om_service_exit(struct om_service *sv);
void om_service_fail(struct om_service *sv, enum om_err why);

/*
 * Sends without an answer.  body is the struct of the type.
 * FULL, NOT_FOUND (no such service), GONE (not started, or ended), TOO_BIG, NOMEM.
 */
enum om_err om_service_send(struct om_service *sv, const char *to, enum om_msg_type type,
			    const void *body) OM_MUST_CHECK;

/* An answer: err OM_OK, type and body; or an error with its text (borrowed until fn returns). */
struct om_bus_answer {
	enum om_err err; /* TIMEOUT, GONE, or what the service answered */
	const char *text; /* never NULL */
	enum om_msg_type type;
	const void *body; /* NULL: none came, or it was asked for raw */
	struct om_bin raw;
	uint64_t cookie;
};
typedef void (*om_bus_answer_fn)(struct om_service *sv, void *state,
				 const struct om_bus_answer *answer);

/*
 * Asks.  fn runs exactly once: answer, error, timeout or OM_ERR_GONE (the service ended).  When the
 * call itself fails, fn is not called.  `as` (may be NULL: the service itself) is the caller on
 * whose behalf the question is asked.  timeout_ms > 0.  INVALID: the type has no answer in the schema.
 */
enum om_err om_service_ask(struct om_service *sv, const char *to, enum om_msg_type type,
			   const void *body, const struct om_caller *as, uint64_t timeout_ms,
			   om_bus_answer_fn fn, uint64_t cookie) OM_MUST_CHECK;
/*
 * The same with an encoded body, for the control endpoint.  The receiver checks once more that the
 * caller may send this type (om_caller_may), and decodes the body as it does all others.  The answer
 * is not decoded, as it goes on as it is: its body is NULL.
 */
enum om_err om_service_ask_raw(struct om_service *sv, const char *to, enum om_msg_type type,
			       struct om_bin body, const struct om_caller *as, uint64_t timeout_ms,
			       om_bus_answer_fn fn, uint64_t cookie) OM_MUST_CHECK;

/*
 * Answers the message being handled with the type that the schema gives for it.  Never refused.
 * OM_ERR_STATE: no answer is due any more.
 */
enum om_err om_service_reply(struct om_service *sv, const struct om_in *in, enum om_msg_type type,
			     const void *body) OM_MUST_CHECK;
enum om_err om_service_reply_ok(struct om_service *sv, const struct om_in *in) OM_MUST_CHECK;
/* Answers with an error and its text; gives OM_OK so that a handler can return it. */
enum om_err om_service_reply_err(struct om_service *sv, const struct om_in *in, enum om_err err,
				 const char *fmt, ...) OM_PRINTF(4, 5);

/* "I will answer later": to be discharged exactly once, also when the service stops. */
struct om_bus_request {
	uint32_t from; /* service */
	uint64_t id; /* 0: discharged, or no answer was due */
};
struct om_bus_request om_service_later(struct om_service *sv, const struct om_in *in);
/* Both clear *rq.  A cleared request is fine: nothing happens. */
void om_service_reply_to(struct om_service *sv, struct om_bus_request *rq, enum om_msg_type type,
			 const void *body);
void om_service_reply_err_to(struct om_service *sv, struct om_bus_request *rq, enum om_err err,
			     const char *text);

/* --- what can be seen from outside ------------------------------------------------------------ */

struct om_bus_stats {
	const char *name; /* of the service */
	uint64_t handled; /* requests and plain messages */
	uint64_t sent; /* frames, answers included */
	uint64_t lost; /* frames that were put, and then there was no memory to send them */
	uint64_t asks; /* of this service */
	uint64_t asks_failed; /* timed out, or the peer ended */
	uint64_t late; /* answers that came after the ask had ended */
	uint64_t refused; /* sends to a peer whose backlog was full */
	uint64_t bad; /* frames that could not be decoded, of unknown type, or not permitted */
	uint64_t unanswered; /* requests whose handler forgot them */
	uint64_t waiting; /* frames, now */
};
/* Any thread.  Fills at most `max` and gives how many services there are. */
size_t om_bus_stats(struct om_bus *bus, struct om_bus_stats *out, size_t max);

#endif /* OM_MSG_BUS_H */
