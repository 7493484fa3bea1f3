/* SPDX-License-Identifier: ISC */
/*
 * What a request goes through: admission, dispatch, answer.
 *
 * 1. A request has a slot from its admission to its answer, and is answered once.  If broken: a
 *    client waits for ever, or gets an answer to something else.
 * 2. Who the client is comes from om_endpoint_who alone, and permission is checked before the body
 *    is looked at.  If broken: the message's author chooses who he is.
 */
#include "daemon/control_impl.h"

#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "msg/codec.h"
#include "msg/envelope.h"

/* --- requests and answers -------------------------------------------------------------------- */

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
		more[i - 1].next_free = c->free_head;
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
	c->free_head = rq->next_free;
	rq->client = client;
	rq->id = id;
	rq->delimited = in->delimited;
	rq->bytes = zmq_msg_size(&in->body);
	*cookie = request_cookie(c, slot);
	return OM_OK;
}

static void
request_end(struct control *c, struct control_request *rq)
{
	om_clients_leave(c->clients, rq->client, rq->bytes);
	rq->client = NULL;
	rq->generation = rq->generation == UINT32_MAX ? 1 : rq->generation + 1;
	rq->next_free = c->free_head;
	c->free_head = (uint32_t)(rq - c->requests) + 1;
}

/* What ZeroMQ gives back when it has let go of an answer; on its I/O thread. */
struct receipt {
	struct om_unread *unread;
	size_t len;
};

static void
answer_release(void *data, void *hint)
{
	struct receipt *r = hint;

	free(data);
	if (r != NULL) {
		om_unread_sub(r->unread, r->len);
		free(r);
	}
}

/* Takes buf's bytes. */
static void
answer_send(struct om_service *sv, struct control *c, struct control_request *rq,
	    struct om_buf *buf)
{
	unsigned index = om_client_endpoint(rq->client);
	struct receipt *r = malloc(sizeof(*r));
	size_t route_len;
	const void *route = om_client_route(rq->client, &route_len);
	enum om_err err = OM_ERR_NOMEM;

	if (r != NULL) {
		r->len = buf->len;
		r->unread = om_clients_charge(c->clients, rq->client, buf->len);
		err = r->unread != NULL ? OM_OK : OM_ERR_LIMIT;
	}
	if (err == OM_OK) {
		err = om_endpoint_send(&c->watches[index].ep, route, route_len, rq->delimited,
				       buf->data, buf->len, answer_release, r);
		*buf = (struct om_buf){ 0 };
	} else {
		free(r);
	}
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
	control_touched(sv, c, index);
}

static void
answer_finish(struct om_service *sv, struct control *c, struct control_request *rq,
	      struct om_buf *buf, enum om_err encoded)
{
	if (encoded == OM_OK && !buf->failed) {
		answer_send(sv, c, rq, buf);
	} else {
		om_error("control.no_memory", "an answer could not be made");
		om_clients_cut(c->clients, rq->client);
	}
	request_end(c, rq);
	om_buf_fini(buf);
}

void
control_answer(struct om_service *sv, struct control *c, uint64_t cookie, enum om_msg_type type,
	       const void *body)
{
	struct control_request *rq = request_find(c, cookie);
	struct om_buf buf = { 0 };

	if (rq != NULL) {
		answer_finish(sv, c, rq, &buf, om_envelope_encode(type, rq->id, 0, body, &buf));
	}
}

void
control_fail(struct om_service *sv, struct control *c, uint64_t cookie, enum om_err err,
	     const char *text)
{
	struct control_request *rq = request_find(c, cookie);
	struct om_buf buf = { 0 };

	if (rq != NULL) {
		c->counters.errors++;
		answer_finish(sv, c, rq, &buf, om_envelope_encode_error(rq->id, err, text, &buf));
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
	struct om_buf buf = { 0 };

	OM_ASSERT(c->magic == CONTROL_MAGIC);
	if (answer->err != OM_OK && (answer->type != OM_MSG_ERROR || answer->raw.len == 0)) {
		control_fail(sv, c, answer->cookie, answer->err, answer->text); /* timeout, gone */
	} else if (rq != NULL) { /* an error too goes on as it is, with its details */
		c->counters.errors += answer->err != OM_OK;
		answer_finish(sv, c, rq, &buf,
			      om_envelope_encode_raw(answer->type, rq->id, 0, answer->raw, &buf));
	}
}

/* --- a request ------------------------------------------------------------------------------- */

static void
plain_release(void *data, void *hint)
{
	(void)hint;
	free(data);
}

/* An error before there is a slot for the request. */
static enum om_err
control_refuse(struct control *c, unsigned index, const struct om_inbound *in, uint64_t id,
	       enum om_err code, const char *text)
{
	struct om_buf buf = { 0 };
	enum om_err err;

	c->counters.errors++;
	err = om_envelope_encode_error(id, code, text, &buf);
	if (err != OM_OK || buf.failed) {
		om_buf_fini(&buf);
		return OM_ERR_NOMEM;
	}
	return om_endpoint_send(&c->watches[index].ep, in->route, in->route_len, in->delimited,
				buf.data, buf.len, plain_release, NULL);
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
	enum om_err err = om_body_decode(OM_BODY_empty, body, &empty, &arena, why);

	om_arena_fini(&arena);
	return err;
}

/* To the service that the schema names; control's own verbs are answered here. */
static void
control_dispatch(struct om_service *sv, struct control *c, const struct om_envelope *env,
		 const struct om_caller *caller, uint64_t cookie)
{
	const struct om_msg_info *info = om_msg_info(env->type);
	uint64_t deadline = env->deadline_ms;
	control_verb_fn verb = control_verb_find(env->type);
	struct om_why why = { "" };
	enum om_err err;

	if (deadline == 0) {
		deadline = om_config_settings(c->config)->control_answer_timeout;
	} else if (deadline > OM_CONTROL_DEADLINE_MAX) {
		deadline = OM_CONTROL_DEADLINE_MAX;
	}
	if (verb != NULL) {
		const struct control_call call = { cookie, caller, env->body, deadline };

		err = info->body == OM_BODY_empty ? body_is_empty(env->body, &why) : OM_OK;
		if (err == OM_OK) {
			err = verb(sv, c, &call, &why);
		}
	} else {
		err = om_service_ask_raw(sv, info->route, env->type, env->body, caller, deadline,
					 control_on_answer, cookie);
	}
	if (err != OM_OK) {
		control_fail(sv, c, cookie, err, why.text[0] != '\0' ? why.text : om_err_text(err));
	}
}

/* Decides whether the request is one and may be: OM_OK and the client, or the refusal. */
static enum om_err
control_admit(struct control *c, unsigned index, struct om_inbound *in, struct om_envelope *env,
	      struct om_caller *caller, struct om_client **client, struct om_why *why)
{
	const struct om_bin frame = { zmq_msg_data(&in->body), zmq_msg_size(&in->body) };
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
	err = om_envelope_decode(frame, env, why);
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
				   .bytes = frame.len,
				   .is_operator = caller->role == OM_ROLE_OPERATOR };
	err = om_clients_enter(c->clients, &visit, client, why);
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
		const struct om_bin frame = { zmq_msg_data(&in->body), zmq_msg_size(&in->body) };

		if (om_envelope_decode(frame, &env, &why) != OM_OK) {
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
			om_clients_leave(c->clients, client, zmq_msg_size(&in->body));
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
	control_dispatch(sv, c, &env, &caller, cookie);
}
