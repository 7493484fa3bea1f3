/* SPDX-License-Identifier: ISC */
/*
 * What a request goes through: admission, dispatch, answer.
 *
 * 1. A request has a slot from its admission until its answer is sent, and is answered once.  If
 *    broken: a client waits for ever, or gets an answer to something else.
 * 2. Who the client is comes from om_endpoint_who alone, and permission is checked before the body
 *    is looked at.  If broken: the message's author chooses who he is.
 * 3. The answers of one turn leave at its end, client by client, and small ones share a receipt: the
 *    I/O thread finds many for a connection and writes them at once, and it takes the lock of the
 *    unread bytes once for all.  The receipt goes with the last, which the connection takes last.
 *    If broken: bytes that still wait are given back.
 * 4. A request that has its answer is in no limit: where one is reached, the answers leave first.
 *    If broken: a client that pings faster than we turn is refused.
 */
#include "daemon/control_impl.h"

#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "msg/codec.h"
#include "msg/envelope.h"

#define ANSWER_COPIED 1024 /* bytes; a larger one is handed to ZeroMQ as it is */
#define ANSWERS_WAIT  (64 * 1024) /* bytes of them; more leave before the turn ends */
#define MP_EMPTY_MAP  0x80

/* --- requests -------------------------------------------------------------------------------- */

static uint64_t
request_cookie(const struct control *c, uint32_t slot)
{
	return (uint64_t)c->requests[slot].generation << 32 | slot;
}

static struct control_request *
request_find(struct control *c, uint64_t cookie)
{
	uint32_t slot = (uint32_t)cookie;

	if (slot >= c->request_count || c->requests[slot].client == NULL ||
	    c->requests[slot].answered ||
	    c->requests[slot].generation != (uint32_t)(cookie >> 32)) {
		return NULL;
	}
	return &c->requests[slot];
}

static enum om_err
requests_grow(struct control *c)
{
	uint32_t count = c->request_count == 0 ? 256 : c->request_count * 2;
	struct control_request *more = realloc(c->requests, count * sizeof(*more));

	if (more == NULL) {
		return OM_ERR_NOMEM;
	}
	memset(more + c->request_count, 0, (count - c->request_count) * sizeof(*more));
	for (uint32_t i = count; i > c->request_count; i--) {
		more[i - 1].generation = 1; /* a cookie is never 0 */
		more[i - 1].next = c->free_head;
		c->free_head = i;
	}
	c->requests = more;
	c->request_count = count;
	return OM_OK;
}

static enum om_err
request_add(struct control *c, struct om_client *client, const struct om_inbound *in, uint64_t id,
	    uint64_t *cookie)
{
	struct control_request *rq;
	uint32_t slot;

	if (c->free_head == 0 && requests_grow(c) != OM_OK) {
		return OM_ERR_NOMEM;
	}
	slot = c->free_head - 1;
	rq = &c->requests[slot];
	c->free_head = rq->next;
	rq->client = client;
	rq->id = id;
	rq->delimited = in->delimited;
	rq->bytes = in->frame.len;
	*cookie = request_cookie(c, slot);
	return OM_OK;
}

static void
request_end(struct control *c, struct control_request *rq)
{
	om_clients_leave(c->clients, rq->client, rq->bytes);
	rq->client = NULL;
	rq->answered = false;
	rq->generation = rq->generation == UINT32_MAX ? 1 : rq->generation + 1;
	rq->next = c->free_head;
	c->free_head = (uint32_t)(rq - c->requests) + 1;
}

/* --- sending --------------------------------------------------------------------------------- */

/* What ZeroMQ gives back when it has let go of the last answer of a run; on its I/O thread. */
struct receipt {
	struct om_unread *unread;
	size_t bytes; /* of the run */
	uint8_t *own;
	uint8_t copy[];
};

static void
run_release(void *data, void *hint)
{
	struct receipt *r = hint;

	(void)data;
	om_unread_sub(r->unread, r->bytes);
	free(r->own);
	free(r);
}

/* Answers to one client, sent one behind the other. */
struct run {
	uint32_t first, last; /* slot + 1 */
	size_t bytes;
};

/* As many as there is room for; one that is not copied is the last. */
static void
run_find(const struct control *c, const struct om_client *client, uint32_t first, struct run *out)
{
	const size_t room = om_clients_room(c->clients, client);
	const struct control_request *rq = &c->requests[first - 1];

	*out = (struct run){ first, first, rq->len };
	while (rq->own == NULL && rq->next != 0) {
		const uint32_t next = rq->next;

		rq = &c->requests[next - 1];
		if (out->bytes + rq->len > room) {
			return;
		}
		out->last = next;
		out->bytes += rq->len;
	}
}

/*
 * The receipt of the run's last answer, for all of them: the connection takes them in their order.  If it
 * takes the first and then no more, up to ANSWERS_WAIT are not counted, once: it is cut off.
 */
static enum om_err
run_charge(struct control *c, const struct run *run, struct receipt **out)
{
	const struct control_request *rq = &c->requests[run->last - 1];
	const size_t copied = rq->own == NULL ? rq->len : 0;
	struct receipt *r = malloc(sizeof(*r) + copied);

	if (r == NULL) {
		return OM_ERR_NOMEM;
	}
	r->unread = om_clients_charge(c->clients, rq->client, run->bytes);
	if (r->unread == NULL) {
		free(r);
		return OM_ERR_LIMIT;
	}
	r->bytes = run->bytes;
	r->own = rq->own;
	if (copied > 0) { /* else there may be no copies at all */
		memcpy(r->copy, c->answers.data + rq->at, copied);
	}
	*out = r;
	return OM_OK;
}

static void
answer_count(struct control *c, struct control_request *rq, enum om_err err)
{
	if (err == OM_OK) {
		c->counters.answers++;
	} else if (err == OM_ERR_GONE) {
		c->counters.client_gone++;
	} else {
		c->counters.limit_unread += err == OM_ERR_LIMIT;
		c->counters.cut_off++;
		om_warn("control.cut_off", "a client does not read its answers");
		om_clients_cut(c->clients, rq->client);
	}
}

/* Ends the requests.  Gives what is behind the run; 0: nothing. */
static uint32_t
run_send(struct control *c, const struct run *run)
{
	const struct om_client *client = c->requests[run->first - 1].client;
	const struct om_endpoint *ep = &c->watches[om_client_endpoint(client)].ep;
	struct receipt *r = NULL;
	const enum om_err charged = run_charge(c, run, &r);
	uint32_t at, next = run->first;
	struct om_outbound out;

	out.route = om_client_route(client, &out.route_len);
	do {
		struct control_request *rq = &c->requests[next - 1];
		enum om_err err = charged;

		at = next;
		next = rq->next;
		out.delimited = rq->delimited;
		out.len = rq->len;
		if (err != OM_OK) {
			free(rq->own);
		} else if (at != run->last) {
			out.data = c->answers.data + rq->at;
			err = om_endpoint_send_copy(ep, &out);
		} else {
			out.data = r->own != NULL ? r->own : r->copy;
			err = om_endpoint_send(ep, &out, run_release, r);
		}
		answer_count(c, rq, err);
		request_end(c, rq); /* with the last one the client may go */
	} while (at != run->last);
	return next;
}

void
control_flush(struct control *c)
{
	uint32_t at = c->waiting_first;

	while (at != 0) {
		const struct control_request *rq = &c->requests[at - 1];
		const uint32_t next_client = rq->next_client;
		struct om_client *client = rq->client;
		struct run run;

		*om_client_waiting(client) = (struct om_client_waiting){ 0 };
		while (at != 0) {
			run_find(c, client, at, &run);
			at = run_send(c, &run);
		}
		at = next_client;
	}
	c->waiting_first = c->waiting_last = 0;
	om_buf_reset(&c->answers);
}

/* --- answers --------------------------------------------------------------------------------- */

static struct om_buf *
answer_buf(struct control *c)
{
	om_buf_reset(&c->encoded);
	return &c->encoded;
}

/* What was encoded becomes the request's answer.  false: there is no memory. */
static bool
answer_keep(struct control *c, struct control_request *rq)
{
	rq->own = NULL;
	rq->at = c->answers.len;
	rq->len = c->encoded.len;
	if (rq->len > ANSWER_COPIED) {
		rq->own = c->encoded.data;
		c->encoded = (struct om_buf){ 0 };
		return true;
	}
	om_buf_add(&c->answers, c->encoded.data, rq->len);
	return !c->answers.failed;
}

/* Behind the answers that wait for the same client; his first puts him behind the other clients. */
static void
answer_queue(struct control *c, struct control_request *rq)
{
	const uint32_t at = (uint32_t)(rq - c->requests) + 1;
	struct om_client_waiting *w = om_client_waiting(rq->client);

	rq->answered = true;
	rq->next = rq->next_client = 0;
	if (w->first != 0) {
		c->requests[w->last - 1].next = at;
	} else {
		w->first = at;
		if (c->waiting_first == 0) {
			c->waiting_first = at;
		} else {
			c->requests[c->waiting_last - 1].next_client = at;
		}
		c->waiting_last = at;
	}
	w->last = at;
}

/* With what is in c->encoded. */
static void
answer_finish(struct om_service *sv, struct control *c, struct control_request *rq,
	      enum om_err encoded)
{
	if (encoded != OM_OK || !answer_keep(c, rq)) {
		om_error("control.no_memory", "an answer could not be made");
		om_clients_cut(c->clients, rq->client);
		request_end(c, rq);
		om_buf_fini(&c->encoded);
		return;
	}
	answer_queue(c, rq);
	control_touched(sv, c, om_client_endpoint(rq->client));
	if (rq->own != NULL || c->answers.len > ANSWERS_WAIT) {
		control_flush(c); /* what waits is in no limit yet but the requests' */
	}
}

void
control_answer(struct om_service *sv, struct control *c, uint64_t cookie, enum om_msg_type type,
	       const void *body)
{
	struct control_request *rq = request_find(c, cookie);

	if (rq != NULL) {
		answer_finish(sv, c, rq, om_envelope_encode(type, rq->id, 0, body, answer_buf(c)));
	}
}

void
control_fail(struct om_service *sv, struct control *c, uint64_t cookie, enum om_err err,
	     const char *text)
{
	struct control_request *rq = request_find(c, cookie);

	if (rq != NULL) {
		c->counters.errors++;
		answer_finish(sv, c, rq,
			      om_envelope_encode_error(rq->id, err, text, answer_buf(c)));
	}
}

void
control_fail_all(struct om_service *sv, struct control *c, enum om_err err)
{
	for (uint32_t i = 0; i < c->request_count; i++) {
		if (c->requests[i].client != NULL) {
			control_fail(sv, c, request_cookie(c, i), err, om_err_text(err));
		}
	}
}

/* The answer of the service that the request went to. */
static void
control_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct control *c = state;
	struct control_request *rq = request_find(c, answer->cookie);

	OM_ASSERT(c->magic == CONTROL_MAGIC);
	if (answer->err != OM_OK && (answer->type != OM_MSG_ERROR || answer->raw.len == 0)) {
		control_fail(sv, c, answer->cookie, answer->err, answer->text); /* timeout, gone */
	} else if (rq != NULL) { /* an error too goes on as it is, with its details */
		c->counters.errors += answer->err != OM_OK;
		answer_finish(
		    sv, c, rq,
		    om_envelope_encode_raw(answer->type, rq->id, 0, answer->raw, answer_buf(c)));
	}
}

/* --- a request ------------------------------------------------------------------------------- */

/* An error before there is a slot for the request. */
static enum om_err
control_refuse(struct control *c, unsigned index, const struct om_inbound *in, uint64_t id,
	       enum om_err code, const char *text)
{
	struct om_buf *buf = answer_buf(c);
	enum om_err err;

	c->counters.errors++;
	control_flush(c); /* or this would be in front of answers to earlier requests */
	err = om_envelope_encode_error(id, code, text, buf);
	if (err == OM_OK) {
		const struct om_outbound out = { in->route, in->route_len, in->delimited, buf->data,
						 buf->len };

		err = om_endpoint_send_copy(&c->watches[index].ep, &out);
	}
	return err;
}

static bool
is_allowed(const struct om_msg_info *info, const struct om_caller *caller)
{
	switch (info->who) {
	case OM_WHO_PEER:
		return true;
	case OM_WHO_OPERATOR:
		return caller->role == OM_ROLE_OPERATOR;
	case OM_WHO_ACTOR:
		break;
	}
	return false;
}

/* A body without fields is checked like any other: for what should not be there. */
static enum om_err
body_is_empty(struct om_bin body, struct om_why *why)
{
	struct om_arena arena = { .max = 1 };
	struct om_empty empty = { 0 };
	enum om_err err;

	if (body.len == 1 && body.ptr[0] == MP_EMPTY_MAP) {
		return OM_OK;
	}
	err = om_body_decode(OM_BODY_empty, body, &empty, &arena, why);
	om_arena_fini(&arena);
	return err;
}

/* To the service that the schema names; control's own verbs are answered here. */
static void
control_dispatch(struct om_service *sv, struct control *c, const struct om_envelope *env,
		 const struct om_caller *caller, uint64_t cookie, struct om_why *why)
{
	const struct om_msg_info *info = om_msg_info(env->type);
	uint64_t deadline = env->deadline_ms;
	control_verb_fn verb = control_verb_find(env->type);
	enum om_err err;

	if (deadline == 0) {
		deadline = om_config_settings(c->config)->control_answer_timeout;
	} else if (deadline > OM_CONTROL_DEADLINE_MAX) {
		deadline = OM_CONTROL_DEADLINE_MAX;
	}
	if (verb != NULL) {
		const struct control_call call = { cookie, caller, env->body, deadline };

		err = info->body == OM_BODY_empty ? body_is_empty(env->body, why) : OM_OK;
		if (err == OM_OK) {
			err = verb(sv, c, &call, why);
		}
	} else {
		err = om_service_ask_raw(sv, info->route, env->type, env->body, caller, deadline,
					 control_on_answer, cookie);
	}
	if (err != OM_OK) {
		control_fail(sv, c, cookie, err,
			     why->text[0] != '\0' ? why->text : om_err_text(err));
	}
}

/* Decides whether the request is one and may be: OM_OK and the client, or the refusal. */
static enum om_err
control_admit(struct control *c, unsigned index, struct om_inbound *in, struct om_envelope *env,
	      struct om_caller *caller, struct om_client **client, struct om_why *why)
{
	struct om_visit visit;
	enum om_err err;

	if (in->bad != NULL) {
		c->counters.malformed++;
		return om_why_set(why, OM_ERR_INVALID, "%s", in->bad);
	}
	err = om_endpoint_who(&c->watches[index].ep, in, c->auth, caller);
	if (err != OM_OK) {
		c->counters.unauthenticated++;
		return om_why_set(why, err, "it is not known who you are");
	}
	err = om_envelope_decode(in->frame, env, why);
	if (err != OM_OK) {
		c->counters.malformed++;
		return err;
	}
	if (!is_allowed(om_msg_info(env->type), caller)) {
		c->counters.denied++;
		return om_why_set(why, OM_ERR_DENIED, "%s is not for %s",
				  om_msg_info(env->type)->name, caller->peer);
	}
	if (om_msg_info(env->type)->route[0] == '\0') {
		c->counters.malformed++;
		return om_why_set(why, OM_ERR_INVALID, "%s is an answer, not a request",
				  om_msg_info(env->type)->name);
	}
	visit = (struct om_visit){ .endpoint = index,
				   .route = in->route,
				   .route_len = in->route_len,
				   .peer = caller->peer,
				   .bytes = in->frame.len,
				   .is_operator = caller->role == OM_ROLE_OPERATOR };
	err = om_clients_enter(c->clients, &visit, client, why);
	if (err == OM_ERR_LIMIT && c->waiting_first != 0) {
		control_flush(c); /* what has its answer is in flight no more */
		err = om_clients_enter(c->clients, &visit, client, why);
	}
	c->counters.limit_clients += err == OM_ERR_LIMIT;
	return err;
}

void
control_on_request(struct om_service *sv, struct control *c, unsigned index, struct om_inbound *in)
{
	struct om_envelope env = { 0 };
	struct om_client *client = NULL;
	struct om_caller caller;
	struct om_why why = { "" };
	uint64_t cookie;
	enum om_err err;

	c->counters.requests++;
	if (om_clients_is_cut(c->clients, index, in->route, in->route_len)) {
		if (om_envelope_decode(in->frame, &env, &why) != OM_OK) {
			c->counters
			    .malformed++; /* all the same: it is told that answers were lost */
		}
		err = control_refuse(c, index, in, env.id, OM_ERR_LIMIT,
				     "answers were lost because this client did not read them");
		if (err == OM_OK) {
			om_clients_mend(c->clients, index, in->route, in->route_len);
		} else {
			c->counters.ignored_while_cut++;
		}
		return;
	}
	err = control_admit(c, index, in, &env, &caller, &client, &why);
	if (err == OM_OK) {
		err = request_add(c, client, in, env.id, &cookie);
		if (err != OM_OK) {
			om_clients_leave(c->clients, client, in->frame.len);
		}
	}
	if (err != OM_OK) {
		/* A refusal that does not get through is lost: this client reads nothing. */
		if (control_refuse(c, index, in, env.id, err,
				   why.text[0] != '\0' ? why.text : om_err_text(err)) != OM_OK) {
			c->counters.cut_off++;
		}
		return;
	}
	control_dispatch(sv, c, &env, &caller, cookie, &why);
}
