/* SPDX-License-Identifier: ISC */
/*
 * The control service: sockets, requests, answers.  Its own verbs are in control_verbs.c.
 *
 * 1. A socket's fd is edge-triggered.  After every read and every send that socket's events are
 *    looked at, and either its watch is armed, or a kick is on its way.  If broken: a request lies
 *    there until the next one comes.
 * 2. A request has a slot from its admission to its answer, and is answered once.  If broken: a
 *    client waits for ever, or gets an answer to something else.
 * 3. Who the client is comes from om_endpoint_who alone, and permission is checked before the body
 *    is looked at.  If broken: the message's author chooses who he is.
 */
#include "daemon/control_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "msg/codec.h"
#include "msg/envelope.h"

#define KICK_MSG         UINT32_C(0x0c010002)
#define READ_BATCH       256 /* requests in one turn, then the other actors */
#define RETRY_COOKIE     1
#define RETRY_MS         250
#define READY_TIMEOUT_MS (10 * 60 * 1000) /* recovery of a large ledger */

void
control_tell(struct control *c, enum om_control_event event, const char *text)
{
	if (c->conf->on_event != NULL) {
		c->conf->on_event(c->conf->arg, event, text);
	}
}

void
control_clients_conf(const struct om_settings *s, struct om_clients_conf *out)
{
	out->max_clients = s->control_max_clients;
	out->max_in_flight = s->control_max_in_flight;
	out->max_unread = s->control_max_unread * 1024 * 1024;
}

/* --- watching -------------------------------------------------------------------------------- */

static void
control_kick(struct om_service *sv, struct control *c, unsigned index)
{
	struct control_watch *w = &c->watches[index];
	struct om_ctx *cx = om_service_cx(sv);
	enum om_err err;

	if (w->kicked || w->ep.sock == NULL) {
		return;
	}
	err = om_send_u64(cx, om_self(cx), KICK_MSG, index);
	if (err != OM_OK) {
		om_fail(cx, err); /* without the kick the socket would fall asleep */
		return;
	}
	w->kicked = true;
}

/* Invariant 1. */
static void
control_settle(struct om_service *sv, struct control *c, unsigned index)
{
	struct control_watch *w = &c->watches[index];
	struct om_ctx *cx = om_service_cx(sv);
	enum om_err err;

	if (om_endpoint_has_input(&w->ep)) {
		control_kick(sv, c, index);
	} else if (!w->armed) {
		err = om_io_rearm(cx, w->watch, OM_IO_READ);
		if (err != OM_OK) {
			om_fail(cx, err);
			return;
		}
		w->armed = true;
	}
}

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
	*cookie = request_cookie(c, slot);
	return OM_OK;
}

static void
request_end(struct control *c, struct control_request *rq)
{
	om_clients_leave(c->clients, rq->client);
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
	control_settle(sv, c, index);
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

/* The answer of the service that the request went to. */
static void
control_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct control *c = state;
	struct control_request *rq = request_find(c, answer->cookie);
	struct om_buf buf = { 0 };

	OM_ASSERT(c->magic == CONTROL_MAGIC);
	if (answer->err != OM_OK) {
		control_fail(sv, c, answer->cookie, answer->err, answer->text);
	} else if (rq != NULL) {
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

		err = verb(sv, c, &call, &why);
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
	err = om_clients_enter(c->clients, index, in->route, in->route_len, caller->peer, client,
			       why);
	c->counters.limit_clients += err == OM_ERR_LIMIT;
	return err;
}

static void
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
		err = control_refuse(c, index, in, 0, OM_ERR_LIMIT,
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
			om_clients_leave(c->clients, client);
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

static void
control_read(struct om_service *sv, struct control *c, unsigned index)
{
	struct control_watch *w = &c->watches[index];
	struct om_inbound in;

	if (w->ep.sock == NULL) {
		return;
	}
	for (int n = 0; n < READ_BATCH; n++) {
		if (index == CONTROL_ZAP) {
			if (!om_endpoint_zap_step(&w->ep, c->auth, &c->counters.keys_refused)) {
				break;
			}
			continue;
		}
		if (!om_endpoint_recv(&w->ep, &in)) {
			break;
		}
		control_on_request(sv, c, index, &in);
		om_inbound_fini(&in);
	}
	control_settle(sv, c, index);
}

/* --- start and stop -------------------------------------------------------------------------- */

static enum om_err
control_watch_add(struct om_service *sv, struct control *c, unsigned index, struct om_why *why)
{
	struct control_watch *w = &c->watches[index];
	enum om_err err = om_io_watch(om_service_cx(sv), w->ep.fd, OM_IO_READ, index, &w->watch);

	if (err != OM_OK) {
		return om_why_set(why, err, "watch %s: %s", w->ep.url, om_err_text(err));
	}
	w->armed = true;
	control_settle(sv, c, index);
	return OM_OK;
}

static bool
control_wants_tcp(const struct control *c)
{
	const struct om_settings *s = om_config_settings(c->config);

	return s->control_tcp == OM_CONF_YES ||
	       (s->control_tcp == OM_CONF_AUTO &&
		(om_auth_peer_count(c->auth) > 0 || s->control_tcp_insecure_loopback ||
		 !om_config_is_default(c->config, OM_CONF_control_port)));
}

static enum om_err
control_open_tcp(struct om_service *sv, struct control *c, const struct om_endpoint_limits *limits,
		 struct om_why *why)
{
	const struct om_settings *s = om_config_settings(c->config);
	char public_key[OM_AUTH_KEY_LEN + 1], secret_key[OM_AUTH_KEY_LEN + 1];
	bool curve = !s->control_tcp_insecure_loopback;
	void *zmq = om_bus_zmq(om_service_bus(sv));
	enum om_err err = OM_OK;

	if (curve) {
		err = om_auth_server_key(om_config_server_key(c->config), public_key, secret_key,
					 why);
	}
	if (err == OM_OK && curve) {
		err = om_endpoint_open_zap(zmq, &c->watches[CONTROL_ZAP].ep, why);
	}
	if (err == OM_OK && curve) {
		err = control_watch_add(sv, c, CONTROL_ZAP, why);
	}
	if (err == OM_OK) {
		err = om_endpoint_open_tcp(zmq, s->control_address, (unsigned)s->control_port,
					   curve ? secret_key : NULL, limits,
					   &c->watches[CONTROL_TCP].ep, why);
	}
	if (err == OM_OK) {
		err = control_watch_add(sv, c, CONTROL_TCP, why);
	}
	if (err == OM_OK && curve) {
		om_info("control.curve", "public key %s, %zu authorized peers", public_key,
			om_auth_peer_count(c->auth));
	}
	explicit_bzero(secret_key, sizeof(secret_key));
	return err;
}

static enum om_err
control_open(struct om_service *sv, struct control *c, struct om_why *why)
{
	const struct om_settings *s = om_config_settings(c->config);
	void *zmq = om_bus_zmq(om_service_bus(sv));
	const struct om_endpoint_limits limits = {
		.frame_max = s->control_max_frame * 1024 * 1024,
		.answers_max = s->control_max_in_flight + 16,
	};
	enum om_err err;

	if (s->control_events) {
		err = om_endpoint_open_events(zmq, om_config_events_socket(c->config), &c->events,
					      why);
		if (err != OM_OK) {
			return err;
		}
	}
	if (control_wants_tcp(c)) {
		err = control_open_tcp(sv, c, &limits, why);
		if (err != OM_OK) {
			return err;
		}
	}
	err =
	    om_endpoint_open_ipc(zmq, om_config_control_socket(c->config), s->control_socket_group,
				 &limits, &c->watches[CONTROL_IPC].ep, why);
	return err == OM_OK ? control_watch_add(sv, c, CONTROL_IPC, why) : err;
}

static void
control_on_provider_ready(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct control *c = state;
	struct om_why why = { "" };
	enum om_err err;

	OM_ASSERT(c->magic == CONTROL_MAGIC);
	if (answer->err != OM_OK) {
		om_warn("control.waiting", "the provider is not ready: %s", answer->text);
		if (om_timer_start(om_service_cx(sv), RETRY_MS, 0, RETRY_COOKIE, &c->retry_timer) !=
		    OM_OK) {
			om_fail(om_service_cx(sv), OM_ERR_NOMEM);
		}
		return;
	}
	err = control_open(sv, c, &why);
	if (err != OM_OK) {
		om_error("control.failed", "%s", why.text);
		control_tell(c, OM_CONTROL_FAILED, why.text);
		return;
	}
	c->phase = CONTROL_SERVING;
	c->ready_at = om_now(om_service_cx(sv));
	control_tell(c, OM_CONTROL_READY, c->watches[CONTROL_TCP].ep.url);
}

static enum om_err
control_ask_provider(struct om_service *sv)
{
	const struct om_empty body = { 0 };

	return om_service_ask(sv, "provider", OM_MSG_PING, &body, NULL, READY_TIMEOUT_MS,
			      control_on_provider_ready, 0);
}

static enum om_err
control_start(struct om_service *sv, void *state, const void *arg)
{
	struct control *c = state;
	struct om_clients_conf limits;
	struct om_buf problems = { 0 };
	enum om_err err;

	c->magic = CONTROL_MAGIC;
	c->conf = arg;
	c->config = c->conf->config;
	err = om_auth_load(om_config_settings(c->config), &c->auth, &problems);
	if (err != OM_OK) {
		om_error("control.failed", "%s", om_buf_cstr(&problems));
		control_tell(c, OM_CONTROL_FAILED, om_buf_cstr(&problems));
		goto out;
	}
	control_clients_conf(om_config_settings(c->config), &limits);
	c->clients = om_clients_new(&limits);
	if (c->clients == NULL) {
		err = OM_ERR_NOMEM;
		goto out;
	}
	err = om_join(om_service_cx(sv), OM_CONTROL_GROUP);
	if (err == OM_OK) {
		err = control_ask_provider(sv);
	}
out:
	om_buf_fini(&problems);
	return err;
}

/* Also after a failed start. */
static void
control_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct control *c = state;

	(void)why;
	for (uint32_t i = 0; i < c->request_count; i++) {
		if (c->requests[i].client != NULL) {
			control_fail(sv, c, request_cookie(c, i), OM_ERR_SHUTDOWN,
				     om_err_text(OM_ERR_SHUTDOWN));
		}
	}
	/* The endpoints before the ZAP handler: a handshake without one hangs. */
	for (unsigned i = 0; i < CONTROL_WATCHES; i++) {
		if (c->watches[i].ep.sock != NULL) {
			om_io_unwatch(om_service_cx(sv), c->watches[i].watch);
			om_endpoint_close(&c->watches[i].ep);
		}
	}
	om_endpoint_close(&c->events);
	control_verbs_stop(c);
	om_clients_free(c->clients);
	om_auth_free(c->auth);
	om_config_free(c->own_config);
	free(c->requests);
}

/* --- messages -------------------------------------------------------------------------------- */

static void
control_on_signal(struct om_service *sv, struct control *c, uint64_t what)
{
	struct om_why why = { "" };

	switch (what) {
	case OM_CONTROL_DRAIN:
	case OM_CONTROL_DRAIN_NOW:
		control_drain(sv, c, what == OM_CONTROL_DRAIN_NOW,
			      om_config_settings(c->config)->daemon_drain_timeout);
		break;
	case OM_CONTROL_RELOAD:
		if (control_reload(sv, c, 0, "signal", &why) != OM_OK) {
			om_error("config.reload_failed", "%s", why.text);
		}
		break;
	}
}

static enum om_err
control_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct control *c = state;

	OM_ASSERT(c->magic == CONTROL_MAGIC);
	if (msg->type == OM_SYS_IO) {
		const struct om_io_ready *io = (const void *)msg->payload;

		OM_ASSERT(io->cookie < CONTROL_WATCHES);
		c->watches[io->cookie].armed = false;
		control_read(sv, c, (unsigned)io->cookie);
	} else if (msg->type == KICK_MSG) {
		uint64_t index = om_msg_u64(msg);

		OM_ASSERT(index < CONTROL_WATCHES);
		c->watches[index].kicked = false;
		control_read(sv, c, (unsigned)index);
	} else if (msg->type == OM_CONTROL_SIGNAL) {
		control_on_signal(sv, c, om_msg_u64(msg));
	} else if (msg->type == OM_SYS_TIMER) {
		return control_ask_provider(sv);
	} else {
		return OM_ERR_UNKNOWN_TYPE;
	}
	return OM_OK;
}

/* The provider's news, to every operator who listens. */
static enum om_err
control_on_event(struct om_service *sv, void *state, const struct om_in *in)
{
	struct control *c = state;
	const struct om_job_event *event = in->body;
	struct om_buf buf = { 0 };
	enum om_err err;

	(void)sv;
	if (c->events.sock == NULL) {
		return OM_OK;
	}
	err = om_envelope_encode_raw(OM_MSG_JOB_EVENT, 0, 0, in->raw, &buf);
	if (err == OM_OK) {
		om_endpoint_publish(&c->events, event->job, (struct om_bin){ buf.data, buf.len });
		c->counters.events++;
	}
	om_buf_fini(&buf);
	return err;
}

static const struct om_service_handler control_handlers[] = {
	{ OM_MSG_JOB_EVENT, control_on_event },
};

const struct om_service_def om_control_service = {
	.name = "control",
	.state_size = sizeof(struct control),
	.start = control_start,
	.stop = control_stop,
	.on = control_handlers,
	.on_count = OM_COUNT(control_handlers),
	.on_msg = control_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
