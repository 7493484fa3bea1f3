/* SPDX-License-Identifier: ISC */
/*
 * A service: an actor whose frames are taken from the bus, decoded, and handed to its table.
 *
 * 1. A request is answered exactly once: by its handler, by the dispatcher when the handler forgot
 *    or failed, or, when it was put off, by om_service_reply_to or by the end of this life.
 * 2. One run takes at most BUS_BATCH frames, then the tail bell brings the rest behind what others
 *    have sent meanwhile.  A detached service takes all: it owns its thread.
 *    So does a message of several frames: what a run leaves of it waits for the next, or the next life.
 * 3. The tail bell rings behind every bell that has rung already, so on_batch_end comes after all
 *    frames that were waiting, of all peers: one commit for all of them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "msg/bus_impl.h"
#include "msg/codec.h"

#define BUS_BATCH     128 /* frames in one run of a service that shares its worker */
#define BUS_ARENA_MAX (128u * 1024 * 1024) /* decoded form of one message, without its strings */
#define TAIL_COOKIE   OM_SERVICE_MAX

static const struct om_caller caller_actor = { .role = OM_ROLE_ACTOR };

static struct om_service *
svc_enter(struct om_ctx *cx, void *actor_state)
{
	struct om_service *sv = actor_state;

	OM_ASSERT(sv->magic == SERVICE_MAGIC);
	sv->cx = cx;
	return sv;
}

/* A service with a thread of its own may be long in one turn: what it puts leaves at once. */
static void
svc_turn_begin(struct om_service *sv)
{
	sv->packing = !sv->slot->def->detached;
}

/* What this turn has put leaves. */
static void
svc_turn_end(struct om_service *sv)
{
	bus_flush(sv);
	sv->packing = false;
}

/* --- a frame ---------------------------------------------------------------------------------- */

/* A text of the frame that must end with NUL.  Never NULL. */
static const char *
svc_text(struct om_service *sv, struct om_str s, const char *otherwise)
{
	const char *text = s.len > 0 ? om_arena_str(&sv->arena, s) : NULL;

	return text != NULL ? text : otherwise;
}

/* Decodes the body into the arena. */
static enum om_err
svc_body(struct om_service *sv, const struct bus_frame *frame, const void **out, struct om_why *why)
{
	enum om_body_type type = om_msg_info(frame->head.type)->body;
	void *body = om_arena_alloc(&sv->arena, om_body_info(type)->size);

	if (body == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "no memory for the message");
	}
	*out = body;
	return om_body_decode(type, frame->body, body, &sv->arena, why);
}

static void
svc_on_answer(struct om_service *sv, uint32_t from, const struct bus_frame *frame)
{
	struct om_bus_answer answer = { .text = "",
					.type = (enum om_msg_type)frame->head.type,
					.raw = frame->body };
	struct bus_asked *ask = bus_table_find(&sv->asks, frame->head.id);
	struct om_why why;

	if (ask == NULL || ask->to != from) {
		bus_count(sv->slot, BUS_LATE);
		return;
	}
	if (!ask->raw || answer.type == OM_MSG_ERROR) {
		answer.err = svc_body(sv, frame, &answer.body, &why);
	}
	if (answer.err != OM_OK) {
		bus_count(sv->slot, BUS_BAD);
		om_error("bus.answer", "%s: from %s: %s", sv->slot->def->name,
			 bus_peer(sv, from)->def->name, why.text);
		answer = (struct om_bus_answer){ .err = OM_ERR_INTERNAL, .text = why.text };
		bus_complete(sv, ask, &answer);
		return;
	}
	if (answer.type == OM_MSG_ERROR) {
		const struct om_error *e = answer.body;

		answer.err = om_err_from_code(e->code.ptr, e->code.len);
		answer.err = answer.err == OM_OK ? OM_ERR_INTERNAL : answer.err;
		answer.text = svc_text(sv, e->text, om_err_text(answer.err));
	}
	bus_complete(sv, ask, &answer);
}

/* The dispatcher's part of "exactly one answer". */
static void
svc_settle(struct om_service *sv, struct bus_in *b, enum om_err err, const struct om_why *why)
{
	const char *name = om_msg_info(b->type)->name;

	if (b->due && err == OM_OK) {
		bus_count(sv->slot, BUS_UNANSWERED);
		om_error("bus.no_answer", "%s: %s of %s was not answered", sv->slot->def->name,
			 name, b->in.from);
		err = OM_ERR_INTERNAL;
	}
	if (err == OM_OK) {
		return;
	}
	if (b->due) {
		b->due = false;
		bus_answer(sv, b->from, b->ask, OM_MSG_ERROR, NULL, err,
			   why->text[0] != '\0' ? why->text : om_err_text(err));
	} else {
		/* Nobody waits for an answer (any more): the log is the only place. */
		om_warn("bus.handler", "%s: %s of %s: %s%s%s", sv->slot->def->name, name,
			b->in.from, om_err_text(err), why->text[0] != '\0' ? ": " : "", why->text);
	}
}

/* Everything that is checked before a handler may see the message. */
static enum om_err
svc_admit(struct om_service *sv, const struct bus_frame *frame, struct bus_in *b, om_service_fn *fn,
	  struct om_why *why)
{
	const unsigned n = sv->slot->handler[b->type];

	if (frame->head.kind == BUS_ASK_OUTSIDE && !om_caller_may(b->in.caller, b->type)) {
		return om_why_set(why, OM_ERR_DENIED, "%s is not permitted",
				  om_msg_info(b->type)->name);
	}
	if (n == 0) {
		return om_why_set(why, OM_ERR_UNKNOWN_TYPE, "%s does not take %s",
				  sv->slot->def->name, om_msg_info(b->type)->name);
	}
	*fn = bus_handler(sv->slot->def, n - 1)->fn;
	if (n > sv->slot->def->on_count) {
		return OM_OK; /* it decodes the body itself */
	}
	return svc_body(sv, frame, &b->in.body, why);
}

static void
svc_on_request(struct om_service *sv, uint32_t from, const struct bus_frame *frame)
{
	struct bus_in b = {
		.magic = IN_MAGIC,
		.from = from,
		.ask = frame->head.id,
		.type = (enum om_msg_type)frame->head.type,
		.due = frame->head.kind != BUS_SEND,
		.in = {
			.type = (enum om_msg_type)frame->head.type,
			.deadline_ms = frame->head.deadline_ms,
			.raw = frame->body,
			.caller = frame->caller.role == OM_ROLE_ACTOR ? &caller_actor : &frame->caller,
			.from = bus_peer(sv, from)->def->name,
			.wants_answer = frame->head.kind != BUS_SEND,
		},
	};
	struct om_why why = { "" };
	om_service_fn fn = NULL;
	enum om_err err;

	b.in.priv = &b;
	err = svc_admit(sv, frame, &b, &fn, &why);
	if (err == OM_OK) {
		err = fn(sv, sv->state, &b.in);
		bus_count(sv->slot, BUS_HANDLED);
		OM_ASSERT(err != OM_AGAIN); /* a service does not know it */
	} else {
		bus_count(sv->slot, BUS_BAD);
	}
	svc_settle(sv, &b, err, &why);
	b.magic = 0;
}

/* The next frame of the peer.  The inbox keeps its bytes until the message is taken to its end. */
static bool
svc_next(struct om_service *sv, uint32_t from, struct bus_frame *out)
{
	struct bus_inbox *in = &sv->slot->inbox[from];
	const char *error = "not a frame";

	if (!in->open) {
		(void)zmq_msg_init(&in->msg);
		if (zmq_msg_recv(&in->msg, sv->slot->pull[from], ZMQ_DONTWAIT) < 0) {
			error = zmq_strerror(zmq_errno());
		}
		in->open = true;
		in->bytes = (struct om_bin){ zmq_msg_data(&in->msg), zmq_msg_size(&in->msg) };
	}
	if (bus_frame_parse(in->bytes, out)) {
		in->bytes.ptr += out->size;
		in->bytes.len -= out->size;
		return true;
	}
	/* The bell announced it: this is a bug of ours or of a library. */
	bus_count(sv->slot, BUS_BAD);
	om_error("bus.receive", "%s: from %s: %s", sv->slot->def->name,
		 bus_peer(sv, from)->def->name, error);
	in->bytes.len = 0;
	return false;
}

static void
svc_take(struct om_service *sv, uint32_t from)
{
	struct bus_inbox *in = &sv->slot->inbox[from];
	struct bus_frame frame;

	if (svc_next(sv, from, &frame)) {
		om_arena_reset(&sv->arena);
		if (frame.head.kind == BUS_ANSWER) {
			svc_on_answer(sv, from, &frame);
		} else {
			svc_on_request(sv, from, &frame);
		}
		sv->batch = true;
	}
	if (in->bytes.len == 0) {
		(void)zmq_msg_close(&in->msg);
		in->open = false;
	}
}

/* --- bells ------------------------------------------------------------------------------------ */

/* Gives what is left of the budget. */
static uint32_t
svc_drain(struct om_service *sv, uint32_t from, uint32_t budget)
{
	struct om_counter *ready = &sv->slot->ready[from];

	while (budget > 0 && !sv->leaving && om_counter_get(ready) > 0) {
		/* First: a frame that brings this life down is not handled again. */
		om_counter_set(ready, om_counter_get(ready) - 1);
		budget--;
		svc_take(sv, from);
	}
	return budget;
}

static uint32_t
svc_budget(const struct om_service *sv)
{
	return sv->slot->def->detached ? UINT32_MAX : BUS_BATCH;
}

static bool
svc_has_ready(const struct om_service *sv)
{
	for (size_t i = 0; i < OM_SERVICE_MAX; i++) {
		if (om_counter_get(&sv->slot->ready[i]) > 0) {
			return true;
		}
	}
	return false;
}

static void
svc_on_tail(struct om_service *sv)
{
	uint32_t budget = svc_budget(sv);

	sv->tail_rung = false;
	if (sv->stale_asks) {
		sv->stale_asks = false;
		bus_stale_asks_gone(sv);
	}
	for (uint32_t i = 0; i < OM_SERVICE_MAX; i++) {
		budget = svc_drain(sv, (sv->turn + i) % OM_SERVICE_MAX, budget);
	}
	sv->turn = (sv->turn + 1) % OM_SERVICE_MAX;
	if (sv->batch && !sv->leaving) {
		sv->batch = false;
		if (sv->slot->def->on_batch_end != NULL) {
			sv->slot->def->on_batch_end(sv, sv->state);
		}
	}
	if (svc_has_ready(sv) && !sv->leaving) {
		bus_ring_tail(sv);
	}
}

static void
svc_on_rung(struct om_service *sv, const struct om_bell_rung *rung)
{
	struct om_counter *ready;

	if (rung->cookie == TAIL_COOKIE) {
		svc_on_tail(sv);
		return;
	}
	OM_ASSERT(rung->cookie < OM_SERVICE_MAX);
	ready = &sv->slot->ready[rung->cookie];
	om_counter_add(ready, rung->count);
	(void)svc_drain(sv, (uint32_t)rung->cookie, svc_budget(sv));
	if (!sv->leaving &&
	    (om_counter_get(ready) > 0 || (sv->batch && sv->slot->def->on_batch_end != NULL))) {
		bus_ring_tail(sv);
	}
}

static enum om_err
svc_on_bell(struct om_ctx *cx, void *actor_state, const struct om_msg *msg)
{
	struct om_service *sv = svc_enter(cx, actor_state);

	svc_turn_begin(sv);
	svc_on_rung(sv, om_bell_rung_of(msg));
	svc_turn_end(sv);
	return OM_OK;
}

/* --- mailbox messages ------------------------------------------------------------------------- */

static enum om_err
svc_on_other(struct om_ctx *cx, void *actor_state, const struct om_msg *msg)
{
	struct om_service *sv = svc_enter(cx, actor_state);
	enum om_err err;

	if (sv->slot->def->on_msg == NULL) {
		return OM_ERR_UNKNOWN_TYPE;
	}
	svc_turn_begin(sv);
	err = sv->slot->def->on_msg(sv, sv->state, msg);
	svc_turn_end(sv);
	return err;
}

static enum om_err
svc_on_timer(struct om_ctx *cx, void *actor_state, const struct om_msg *msg)
{
	struct om_service *sv = svc_enter(cx, actor_state);
	const struct om_timer_fired *fired = (const void *)msg->payload;

	/* A service's own timer may have any cookie: the timer's number decides. */
	if (sv->ask_timer == 0 || sv->ask_timer != fired->timer) {
		return svc_on_other(cx, actor_state, msg);
	}
	bus_asks_expire(sv);
	return OM_OK;
}

static enum om_err
svc_on_down(struct om_ctx *cx, void *actor_state, const struct om_msg *msg)
{
	struct om_service *sv = svc_enter(cx, actor_state);
	const struct om_down *down = (const void *)msg->payload;

	for (uint32_t i = 0; i < OM_SERVICE_MAX; i++) {
		if (sv->peer[i].actor.v != 0 && sv->peer[i].ref == down->ref) {
			uint64_t actor = sv->peer[i].actor.v;

			sv->peer[i].actor = OM_NOBODY;
			bus_asks_gone(sv, i, actor);
			return OM_OK;
		}
	}
	return svc_on_other(cx, actor_state, msg);
}

/* --- life ------------------------------------------------------------------------------------- */

static enum om_err
svc_start(struct om_ctx *cx, void *actor_state, const void *arg_)
{
	const struct om_service_arg *arg = arg_;
	struct om_service *sv = actor_state;

	sv->magic = SERVICE_MAGIC;
	sv->cx = cx;
	sv->slot = bus_find(arg->bus, arg->def->name);
	OM_ASSERT(sv->slot != NULL && sv->slot->def == arg->def);
	sv->out.max =
	    BUS_PACK_MAX + OM_FRAME_MAX + sizeof(struct bus_head) + OM_PEER_MAX + OM_NETWORK_MAX;
	sv->arena.max = BUS_ARENA_MAX;
	sv->asks.row_size = sizeof(struct bus_asked);
	sv->later.row_size = sizeof(struct bus_put_off);
	om_counter_set(&sv->slot->actor, om_self(cx).v);
	for (uint32_t i = 0; i < OM_SERVICE_MAX; i++) {
		om_bell_own(cx, sv->slot->bell[i], i);
	}
	om_bell_own(cx, sv->slot->tail, TAIL_COOKIE);
	if (svc_has_ready(sv)) {
		bus_ring_tail(sv); /* what the life before left in the sockets */
	}
	if (arg->def->start == NULL) {
		return OM_OK;
	}
	return arg->def->start(sv, sv->state, arg->arg);
}

static void
svc_stop(struct om_ctx *cx, void *actor_state, enum om_err why)
{
	struct om_service *sv = svc_enter(cx, actor_state);

	sv->leaving = true;
	if (sv->slot->def->stop != NULL) {
		sv->slot->def->stop(sv, sv->state, why);
	}
	for (uint32_t i = 0; i < sv->later.cap; i++) {
		struct bus_put_off *req = bus_table_at(&sv->later, i);

		if (req != NULL) {
			bus_answer(sv, req->from, req->ask, OM_MSG_ERROR, NULL,
				   why == OM_OK ? OM_ERR_SHUTDOWN : OM_ERR_GONE, NULL);
		}
	}
	/* A restart keeps the handle: what belongs to this life must not reach the next. */
	om_timer_cancel(cx, sv->ask_timer);
	for (uint32_t i = 0; i < OM_SERVICE_MAX; i++) {
		if (sv->peer[i].actor.v != 0) {
			om_demonitor(cx, sv->peer[i].ref);
		}
	}
	bus_table_fini(&sv->asks);
	bus_table_fini(&sv->later);
	om_buf_fini(&sv->out);
	om_arena_fini(&sv->arena);
	sv->magic = 0;
}

static const struct om_handler svc_handlers[] = {
	{ OM_SYS_BELL, svc_on_bell },
	{ OM_SYS_TIMER, svc_on_timer },
	{ OM_SYS_DOWN, svc_on_down },
};

void
bus_service_actor_def(const struct om_service_def *def, struct om_actor_def *out)
{
	*out = (struct om_actor_def){
		.name = def->name,
		.state_size = sizeof(struct om_service) + def->state_size,
		.start = svc_start,
		.stop = svc_stop,
		.handlers = svc_handlers,
		.handler_count = OM_COUNT(svc_handlers),
		.otherwise = svc_on_other,
		.restart = def->restart,
		.detached = def->detached,
	};
}

struct om_ctx *
om_service_cx(struct om_service *sv)
{
	return sv->cx;
}

struct om_bus *
om_service_bus(struct om_service *sv)
{
	return sv->slot->bus;
}

struct om_service *
om_service_of_actor(struct om_ctx *cx, void *actor_state)
{
	return svc_enter(cx, actor_state);
}

void *
om_service_state(struct om_service *sv)
{
	return sv->state;
}

void
om_service_exit(struct om_service *sv)
{
	sv->leaving = true;
	om_exit(sv->cx);
}

void
om_service_fail(struct om_service *sv, enum om_err why)
{
	sv->leaving = true;
	om_fail(sv->cx, why);
}
