/* SPDX-License-Identifier: ISC */
/*
 * What a service sends: plain messages, asks, answers.
 *
 * 1. An ask ends exactly once: its record is removed before its continuation runs, and whatever
 *    comes for that number later finds nothing.
 * 2. An answer is never refused; when it cannot be encoded, an error answer goes in its place.
 * 3. One timer a service watches all its asks, for the first of them that may end.  It is left alone
 *    when that one is answered: at its time it finds the next.  So an ask costs no timer.  There is
 *    one as long as there are asks: it goes when the next has started, and until then it comes again
 *    by itself.  If broken: with no memory for the next, asks never end.
 * 4. The duty to answer is in one place at a time: bus_in.due, a record of sv->later, or nowhere.
 */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "msg/bus_impl.h"
#include "msg/codec.h"

#define ASK_TIMER_AGAIN_MS 1000 /* when there was no memory for the next */

/* --- sending ---------------------------------------------------------------------------------- */

struct parcel {
	enum bus_kind kind;
	enum om_msg_type type;
	const void *body; /* NULL: raw is the body */
	struct om_bin raw; /* encoded */
	const struct om_caller *as;
	uint64_t deadline_ms;
};

/* A whole frame, behind those that wait. */
static enum om_err
parcel_put(struct om_service *sv, struct bus_slot *to, const struct parcel *p, uint64_t id)
{
	const struct bus_head head = { .id = id,
				       .deadline_ms = p->deadline_ms,
				       .type = (uint16_t)p->type,
				       .kind = (uint8_t)p->kind };
	const size_t from = bus_frame_begin(sv, to, &head, p->as);
	enum om_err err = OM_OK;

	if (p->body != NULL) {
		err = om_body_encode(om_msg_info(p->type)->body, p->body, &sv->out);
	} else {
		om_buf_add(&sv->out, p->raw.ptr, p->raw.len);
	}
	return bus_frame_end(sv, from, err);
}

/*
 * The right to put one frame.  The bell counts frames that were not announced yet; those that were
 * and wait for the receiver's next turn are counted here, or they would be without a bound.
 */
static enum om_err
svc_reserve(struct om_service *sv, struct bus_slot *to)
{
	uint32_t me = sv->slot->index;
	enum om_err err = om_bell_reserve(to->bell[me]);

	if (err == OM_OK &&
	    om_bell_depth(to->bell[me]) + om_counter_get(&to->ready[me]) > to->backlog) {
		om_bell_cancel(to->bell[me]);
		err = OM_ERR_FULL;
	}
	if (err == OM_ERR_FULL) {
		bus_count(sv->slot, BUS_REFUSED);
	}
	return err;
}

/* A request or a plain message over an existing link. */
static enum om_err
svc_put(struct om_service *sv, struct bus_slot *to, const struct parcel *p, uint64_t id)
{
	enum om_err err = svc_reserve(sv, to);

	return err == OM_OK ? parcel_put(sv, to, p, id) : err;
}

enum om_err
om_service_send(struct om_service *sv, const char *to_name, enum om_msg_type type, const void *body)
{
	const struct parcel p = { .kind = BUS_SEND, .type = type, .body = body };
	struct bus_slot *to = bus_peer_find(sv->slot, to_name);
	enum om_err err;

	if (to == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	err = bus_link(sv->slot, to);
	return err == OM_OK ? svc_put(sv, to, &p, 0) : err;
}

/* --- answering -------------------------------------------------------------------------------- */

/* A whole frame, behind those that wait; when the answer cannot be encoded, an error is in its place. */
static enum om_err
answer_put(struct om_service *sv, struct bus_slot *to, uint64_t ask, enum om_msg_type type,
	   const void *body, enum om_err err, const char *text)
{
	struct bus_head head = { .id = ask,
				 .type = (uint16_t)(err == OM_OK ? type : OM_MSG_ERROR),
				 .kind = BUS_ANSWER };
	size_t from = bus_frame_begin(sv, to, &head, NULL);

	if (err == OM_OK) {
		err = om_body_encode(om_msg_info(type)->body, body, &sv->out);
		if (err == OM_OK && sv->out.len - sv->body_at > OM_FRAME_MAX) {
			err = OM_ERR_TOO_BIG;
		}
		if (err == OM_OK) {
			return bus_frame_end(sv, from, OM_OK);
		}
		om_error("bus.answer", "%s: %s: %s", sv->slot->def->name, om_msg_info(type)->name,
			 om_err_text(err));
		err = OM_ERR_INTERNAL;
		text = "the answer could not be encoded";
		/* From the beginning: it may be the frame's head that there was no memory for. */
		sv->out.len = from;
		sv->out.failed = false;
		head.type = OM_MSG_ERROR;
		from = bus_frame_begin(sv, to, &head, NULL);
	}
	return bus_frame_end(sv, from, om_envelope_encode_error_body(err, text, &sv->out));
}

/*
 * Answers are never refused: the bell takes them over its limit.  When the asker has ended there is
 * nobody to tell.  err != OM_OK: an error answer.
 */
void
bus_answer(struct om_service *sv, uint32_t from, uint64_t ask, enum om_msg_type type,
	   const void *body, enum om_err err, const char *text)
{
	struct bus_slot *to = bus_peer(sv, from);
	enum om_err sent;

	sent = bus_link(sv->slot, to);
	if (sent == OM_OK) {
		sent = om_bell_reserve_force(to->bell[sv->slot->index]);
	}
	if (sent == OM_ERR_GONE) {
		return;
	}
	if (sent == OM_OK) {
		sent = answer_put(sv, to, ask, type, body, err, text);
	}
	if (sent != OM_OK) {
		/* No memory even for an error: the asker's time-out ends the ask. */
		om_error("bus.answer", "%s to %s: %s", sv->slot->def->name, to->def->name,
			 om_err_text(sent));
	}
}

/* What the schema does not allow as an answer is our bug; the asker still hears something. */
static void
svc_answer_body(struct om_service *sv, uint32_t from, uint64_t ask, enum om_msg_type request,
		enum om_msg_type type, const void *body)
{
	/* An error with details comes as a body, one with a text alone through the _err functions. */
	if (om_msg_info(request)->answer == type || type == OM_MSG_ERROR) {
		bus_answer(sv, from, ask, type, body, OM_OK, NULL);
		return;
	}
	om_error("bus.answer", "%s answers %s with %s", sv->slot->def->name,
		 om_msg_info(request)->name, om_msg_info(type)->name);
	bus_answer(sv, from, ask, OM_MSG_ERROR, NULL, OM_ERR_INTERNAL, "an answer of a wrong type");
}

static struct bus_in *
in_priv(const struct om_in *in)
{
	struct bus_in *b = in->priv;

	OM_ASSERT(b->magic == IN_MAGIC);
	return b;
}

enum om_err
om_service_reply(struct om_service *sv, const struct om_in *in, enum om_msg_type type,
		 const void *body)
{
	struct bus_in *b = in_priv(in);

	if (!b->due) {
		return OM_ERR_STATE;
	}
	b->due = false;
	svc_answer_body(sv, b->from, b->ask, b->type, type, body);
	return OM_OK;
}

enum om_err
om_service_reply_ok(struct om_service *sv, const struct om_in *in)
{
	const struct om_empty empty = { 0 };

	return om_service_reply(sv, in, OM_MSG_OK, &empty);
}

enum om_err
om_service_reply_err(struct om_service *sv, const struct om_in *in, enum om_err err,
		     const char *fmt, ...)
{
	struct bus_in *b = in_priv(in);
	struct om_why why;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why.text, sizeof(why.text), fmt, ap);
	va_end(ap);
	if (b->due) {
		b->due = false;
		bus_answer(sv, b->from, b->ask, OM_MSG_ERROR, NULL, err, why.text);
	}
	return OM_OK;
}

struct om_bus_request
om_service_later(struct om_service *sv, const struct om_in *in)
{
	struct bus_in *b = in_priv(in);
	struct bus_put_off *row;

	if (!b->due) {
		return (struct om_bus_request){ 0, 0 };
	}
	b->due = false;
	row = bus_table_add(&sv->later, sv->slot->next_seq);
	if (row == NULL) {
		/* The duty cannot be kept, so it is discharged now. */
		bus_answer(sv, b->from, b->ask, OM_MSG_ERROR, NULL, OM_ERR_LIMIT,
			   "too many requests wait for an answer");
		return (struct om_bus_request){ 0, 0 };
	}
	sv->slot->next_seq++;
	row->ask = b->ask;
	row->from = b->from;
	row->type = b->type;
	return (struct om_bus_request){ b->from, row->row.id };
}

/* Takes the record of a request that was put off.  false: there is none (any more). */
static bool
later_take(struct om_service *sv, struct om_bus_request *rq, struct bus_put_off *out)
{
	struct bus_put_off *row = bus_table_find(&sv->later, rq->id);

	rq->id = 0;
	if (row == NULL) {
		return false;
	}
	*out = *row;
	bus_table_remove(&sv->later, row);
	return true;
}

void
om_service_reply_to(struct om_service *sv, struct om_bus_request *rq, enum om_msg_type type,
		    const void *body)
{
	struct bus_put_off req;

	if (later_take(sv, rq, &req)) {
		svc_answer_body(sv, req.from, req.ask, req.type, type, body);
	}
}

void
om_service_reply_err_to(struct om_service *sv, struct om_bus_request *rq, enum om_err err,
			const char *text)
{
	struct bus_put_off req;

	if (later_take(sv, rq, &req)) {
		bus_answer(sv, req.from, req.ask, OM_MSG_ERROR, NULL, err, text);
	}
}

/* --- asking ----------------------------------------------------------------------------------- */

/* Watches the present life of a peer, so that its end ends what it was asked. */
static enum om_err
svc_watch(struct om_service *sv, struct bus_slot *to)
{
	struct om_actor_id now = { om_counter_get(&to->actor) };
	struct om_actor_id *was = &sv->peer[to->index].actor;
	enum om_err err;

	if (now.v == 0) {
		return OM_ERR_GONE;
	}
	if (om_actor_id_eq(now, *was)) {
		return OM_OK;
	}
	if (was->v != 0) {
		/* Another life has followed before we heard of the end: tail ends its asks. */
		om_demonitor(sv->cx, sv->peer[to->index].ref);
		was->v = 0;
		sv->stale_asks = true;
		bus_ring_tail(sv);
	}
	err = om_monitor(sv->cx, now, &sv->peer[to->index].ref);
	if (err == OM_OK) {
		*was = now;
	}
	return err;
}

static int64_t
asks_until(const struct om_service *sv, uint64_t deadline_ms)
{
	const int64_t now_ns = om_now(sv->cx).ns;

	return deadline_ms > (uint64_t)((INT64_MAX - now_ns) / OM_NS_PER_MS)
		   ? INT64_MAX
		   : now_ns + (int64_t)deadline_ms * OM_NS_PER_MS;
}

/* Invariant 3: the timer fires at this time or before. */
static enum om_err
asks_watch(struct om_service *sv, int64_t until_ns)
{
	enum om_err err;
	uint64_t timer;
	int64_t wait_ns;

	if (sv->ask_timer != 0 && sv->ask_timer_at_ns <= until_ns) {
		return OM_OK;
	}
	wait_ns = until_ns - om_now(sv->cx).ns;
	err =
	    om_timer_start(sv->cx, wait_ns <= 0 ? 0 : (uint64_t)((wait_ns - 1) / OM_NS_PER_MS) + 1,
			   ASK_TIMER_AGAIN_MS, 0, &timer);
	if (err == OM_OK) {
		om_timer_cancel(sv->cx, sv->ask_timer);
		sv->ask_timer = timer;
		sv->ask_timer_at_ns = until_ns;
	}
	return err;
}

void
bus_asks_expire(struct om_service *sv)
{
	const int64_t now_ns = om_now(sv->cx).ns;
	int64_t first_ns = INT64_MAX;

	for (uint32_t i = 0; i < sv->asks.cap; i++) {
		const struct bus_asked *ask = bus_table_at(&sv->asks, i);

		if (ask != NULL && ask->until_ns > now_ns && ask->until_ns < first_ns) {
			first_ns = ask->until_ns;
		}
	}
	/* First, as the continuations below may ask and need it. */
	sv->ask_timer_at_ns = INT64_MAX; /* it has fired: the next takes its place */
	if (first_ns == INT64_MAX) {
		om_timer_cancel(sv->cx, sv->ask_timer);
		sv->ask_timer = 0;
	} else if (asks_watch(sv, first_ns) != OM_OK) {
		sv->ask_timer_at_ns = now_ns + ASK_TIMER_AGAIN_MS * OM_NS_PER_MS;
		om_warn("bus.timer", "%s: out of memory, asks may time out late",
			sv->slot->def->name);
	}
	for (uint32_t i = 0; i < sv->asks.cap; i++) {
		struct bus_asked *ask = bus_table_at(&sv->asks, i);

		if (ask != NULL && ask->until_ns <= now_ns) {
			bus_complete_err(sv, ask, OM_ERR_TIMEOUT);
		}
	}
}

static enum om_err
svc_ask(struct om_service *sv, const char *to_name, const struct parcel *p, om_bus_answer_fn fn,
	uint64_t cookie)
{
	struct bus_slot *to = bus_peer_find(sv->slot, to_name);
	struct bus_asked *ask;
	enum om_err err;
	uint64_t id;

	if (to == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (p->deadline_ms == 0 || om_msg_info(p->type)->answer == OM_MSG_NONE) {
		return OM_ERR_INVALID;
	}
	err = bus_link(sv->slot, to);
	if (err == OM_OK) {
		err = svc_watch(sv, to);
	}
	if (err != OM_OK) {
		return err;
	}
	ask = bus_table_add(&sv->asks, sv->slot->next_seq);
	if (ask == NULL) {
		return OM_ERR_LIMIT;
	}
	sv->slot->next_seq++;
	id = ask->row.id;
	ask->actor = sv->peer[to->index].actor.v;
	ask->cookie = cookie;
	ask->fn = fn;
	ask->to = to->index;
	ask->raw = p->body == NULL;
	ask->until_ns = asks_until(sv, p->deadline_ms);
	err = asks_watch(sv, ask->until_ns);
	if (err == OM_OK) {
		err = svc_put(sv, to, p, id);
	}
	if (err != OM_OK) {
		bus_table_remove(&sv->asks, ask);
		return err;
	}
	bus_count(sv->slot, BUS_ASKS);
	return OM_OK;
}

enum om_err
om_service_ask(struct om_service *sv, const char *to, enum om_msg_type type, const void *body,
	       const struct om_caller *as, uint64_t timeout_ms, om_bus_answer_fn fn,
	       uint64_t cookie)
{
	const struct parcel p = {
		.kind = BUS_ASK, .type = type, .body = body, .as = as, .deadline_ms = timeout_ms
	};

	OM_ASSERT(body != NULL);
	return svc_ask(sv, to, &p, fn, cookie);
}

enum om_err
om_service_ask_raw(struct om_service *sv, const char *to, enum om_msg_type type, struct om_bin body,
		   const struct om_caller *as, uint64_t timeout_ms, om_bus_answer_fn fn,
		   uint64_t cookie)
{
	const struct parcel p = { .kind = BUS_ASK_OUTSIDE,
				  .type = type,
				  .raw = body,
				  .as = as,
				  .deadline_ms = timeout_ms };

	return svc_ask(sv, to, &p, fn, cookie);
}

void
bus_complete(struct om_service *sv, struct bus_asked *ask, struct om_bus_answer *answer)
{
	const struct bus_asked done = *ask;

	bus_table_remove(&sv->asks, ask);
	answer->cookie = done.cookie;
	done.fn(sv, sv->state, answer);
}

void
bus_complete_err(struct om_service *sv, struct bus_asked *ask, enum om_err err)
{
	struct om_bus_answer answer = { .err = err,
					.text = om_err_text(err),
					.type = OM_MSG_ERROR };

	bus_count(sv->slot, BUS_ASKS_FAILED);
	bus_complete(sv, ask, &answer);
	/* No frame has come, but the continuation is as good as one. */
	sv->batch = true;
	if (sv->slot->def->on_batch_end != NULL && !sv->leaving) {
		bus_ring_tail(sv);
	}
}

/*
 * Ends the asks of a life that is over.  Continuations may ask anew: what they add has another life
 * or, refused by the bell, no record.
 */
void
bus_asks_gone(struct om_service *sv, uint32_t to, uint64_t actor)
{
	for (uint32_t i = 0; i < sv->asks.cap; i++) {
		struct bus_asked *ask = bus_table_at(&sv->asks, i);

		if (ask != NULL && ask->to == to && ask->actor == actor) {
			bus_complete_err(sv, ask, OM_ERR_GONE);
		}
	}
}

void
bus_stale_asks_gone(struct om_service *sv)
{
	for (uint32_t i = 0; i < sv->asks.cap; i++) {
		struct bus_asked *ask = bus_table_at(&sv->asks, i);

		if (ask != NULL && ask->actor != sv->peer[ask->to].actor.v) {
			bus_complete_err(sv, ask, OM_ERR_GONE);
		}
	}
}
