/* SPDX-License-Identifier: ISC */
/*
 * The control service: its sockets, its life.  What a request goes through is in control_request.c.
 *
 * 1. A socket's fd is edge-triggered.  After every read and every send that socket's events are
 *    looked at (a read that finds nothing does so too), and either its watch is armed, or a kick is on
 *    its way.  If broken: a request lies there until the next one comes.
 * 2. The ZAP handler is there before the first CURVE endpoint and goes after the last.  If broken:
 *    handshakes hang.
 */
#include "daemon/control_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "daemon/control_apply.h"
#include "daemon/intake.h"
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
	out->max_pending = s->control_max_pending * 1024 * 1024;
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

/* Invariant 1.  dry: its events were looked at already, and there is no input. */
static void
control_settle(struct om_service *sv, struct control *c, unsigned index, bool dry)
{
	struct control_watch *w = &c->watches[index];
	struct om_ctx *cx = om_service_cx(sv);
	enum om_err err;

	if (!dry && om_endpoint_has_input(&w->ep)) {
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

/*
 * An answer waits to be sent, and the send may take the notice of a request with it.  Looking at the
 * events costs a system call, so all answers of one turn share a kick.
 */
void
control_touched(struct om_service *sv, struct control *c, unsigned index)
{
	if (!c->reading && c->phase != CONTROL_ENDED) {
		control_kick(sv, c, index);
	}
}

/* --- reading -------------------------------------------------------------------------------- */

/* Who makes the events is told whether anybody listens; until then it makes them. */
static void
control_tell_listeners(struct om_service *sv, const struct control *c)
{
	static const char *const makers[] = { "ledger", "provider" };
	const struct om_events_wanted m = { .on = c->topics > 0 };

	for (size_t i = 0; i < OM_COUNT(makers); i++) {
		if (om_service_send(sv, makers[i], OM_MSG_EVENTS_WANTED, &m) != OM_OK) {
			om_debug("control.events", "the %s is not told who listens", makers[i]);
		}
	}
}

/*
 * One request, or what else the socket brings; false: nothing came.  *dry: a read has found the socket
 * empty, which is a look at its events.
 */
static bool
control_step(struct om_service *sv, struct control *c, unsigned index, bool *dry)
{
	const struct om_endpoint *ep = &c->watches[index].ep;
	struct om_inbound in;

	if (index == CONTROL_ZAP) {
		return om_endpoint_zap_step(ep, c->auth, &c->counters.keys_refused);
	}
	if (index == CONTROL_EVENTS) {
		return om_endpoint_listeners_step(ep, &c->topics);
	}
	if (index >= CONTROL_NEWS) {
		return om_endpoint_news_step(ep, &c->news);
	}
	if (!om_endpoint_recv(ep, &in)) {
		*dry = zmq_errno() == EAGAIN;
		return false;
	}
	control_on_request(sv, c, index, &in);
	om_inbound_fini(&in);
	return true;
}

static void
control_read(struct om_service *sv, struct control *c, unsigned index)
{
	const uint64_t topics = c->topics;
	bool dry = false;

	if (c->watches[index].ep.sock == NULL) {
		return;
	}
	c->reading = true;
	control_flush(c);
	for (int n = 0; n < READ_BATCH && control_step(sv, c, index, &dry); n++) {
	}
	dry = dry && c->waiting_first == 0; /* else we send once more */
	control_flush(c);
	c->reading = false;
	if ((c->topics > 0) != (topics > 0)) {
		control_tell_listeners(sv, c);
	}
	control_settle(sv, c, index, dry);
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
	control_settle(sv, c, index, false);
	return OM_OK;
}

/* An endpoint of clients: its requests, and what becomes of its connections. */
static enum om_err
control_watch_clients(struct om_service *sv, struct control *c, unsigned index, struct om_why *why)
{
	enum om_err err =
	    om_endpoint_open_news(om_bus_zmq(om_service_bus(sv)), &c->watches[index].ep,
				  &c->watches[CONTROL_NEWS + index].ep, why);

	if (err == OM_OK) {
		err = control_watch_add(sv, c, CONTROL_NEWS + index, why);
	}
	return err == OM_OK ? control_watch_add(sv, c, index, why) : err;
}

bool
om_control_wants_tcp(const struct om_config *config, size_t peers)
{
	const struct om_settings *s = om_config_settings(config);

	return s->control_tcp == OM_CONF_YES ||
	       (s->control_tcp == OM_CONF_AUTO &&
		(peers > 0 || s->control_tcp_insecure_loopback ||
		 !om_config_is_default(config, OM_CONF_control_port)));
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
		err = control_watch_clients(sv, c, CONTROL_TCP, why);
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
		.answers_max = s->control_max_in_flight + OM_ENDPOINT_REFUSALS_MAX,
	};
	const struct om_intake_conf intake = {
		.max_connections = s->control_max_connections,
		.max_bytes = s->control_max_receiving * 1024 * 1024,
		.max_message = limits.frame_max,
		.curve = !s->control_tcp_insecure_loopback,
	};
	enum om_err err = om_intake_open(&intake);

	if (err != OM_OK) {
		return om_why_set(why, err, "no memory for the table of connections");
	}
	if (s->control_events) {
		err = om_endpoint_open_events(zmq, om_config_events_socket(c->config),
					      om_auth_operator_gid(c->auth),
					      &c->watches[CONTROL_EVENTS].ep, why);
		if (err == OM_OK) {
			err = control_watch_add(sv, c, CONTROL_EVENTS, why);
		}
		if (err != OM_OK) {
			return err;
		}
	}
	control_tell_listeners(sv, c);
	if (om_control_wants_tcp(c->config, om_auth_peer_count(c->auth))) {
		err = control_open_tcp(sv, c, &limits, why);
		if (err != OM_OK) {
			return err;
		}
	}
	err = om_endpoint_open_ipc(zmq, om_config_control_socket(c->config),
				   om_auth_socket_gid(c->auth), &limits,
				   &c->watches[CONTROL_IPC].ep, why);
	return err == OM_OK ? control_watch_clients(sv, c, CONTROL_IPC, why) : err;
}

static void
control_retry(struct om_service *sv, struct control *c)
{
	if (om_timer_start(om_service_cx(sv), RETRY_MS, 0, RETRY_COOKIE, &c->retry_timer) !=
	    OM_OK) {
		om_fail(om_service_cx(sv), OM_ERR_NOMEM);
	}
}

static const char *const must_be_ready[] = { "provider", "filter_manager" };

static void control_ask_ready(struct om_service *sv, struct control *c);

static void
control_on_ready(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct control *c = state;
	struct om_why why = { "" };
	enum om_err err;

	OM_ASSERT(c->magic == CONTROL_MAGIC);
	if (answer->err != OM_OK) {
		om_warn("control.waiting", "the %s is not ready: %s", must_be_ready[c->ready_count],
			answer->text);
		control_retry(sv, c);
		return;
	}
	if (++c->ready_count < OM_COUNT(must_be_ready)) {
		control_ask_ready(sv, c);
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

/* Each again and again, until it has answered once: no client shall be told to come later. */
static void
control_ask_ready(struct om_service *sv, struct control *c)
{
	const struct om_empty body = { 0 };

	if (om_service_ask(sv, must_be_ready[c->ready_count], OM_MSG_PING, &body, NULL,
			   READY_TIMEOUT_MS, control_on_ready, 0) != OM_OK) {
		control_retry(sv, c); /* it is not there yet, or just restarts */
	}
}

/* --- who may come: files and the user data base, which may be on the network ------------------ */

struct who {
	const struct om_config *config; /* held: a change may come meanwhile */
	struct om_auth *auth;
	struct om_buf problems;
};

static void
who_free(void *arg)
{
	struct who *w = arg;

	om_config_free(w->config);
	om_auth_free(w->auth);
	om_buf_fini(&w->problems);
	free(w);
}

static enum om_err
who_load(void *arg)
{
	struct who *w = arg;

	return om_auth_load(om_config_settings(w->config), &w->auth, &w->problems);
}

static void
who_done(struct om_ctx *cx, void *actor_state, void *arg, enum om_err result)
{
	struct om_service *sv = om_service_of_actor(cx, actor_state);
	struct control *c = om_service_state(sv);
	struct who *w = arg;

	OM_ASSERT(c->magic == CONTROL_MAGIC);
	if (result != OM_OK) {
		om_error("control.failed", "%s", om_buf_cstr(&w->problems));
		control_tell(c, OM_CONTROL_FAILED, om_buf_cstr(&w->problems));
	} else {
		if (c->auth == NULL) { /* else a reload was quicker */
			c->auth = w->auth;
			w->auth = NULL;
		}
		control_ask_ready(sv, c);
	}
	who_free(w);
}

static enum om_err
control_start(struct om_service *sv, void *state, const void *arg)
{
	struct control *c = state;
	struct om_clients_conf limits;
	struct who *w;
	enum om_err err;

	c->magic = CONTROL_MAGIC;
	c->conf = arg;
	c->config = om_config_ref(c->conf->live != NULL && c->conf->live->config != NULL
				      ? c->conf->live->config
				      : c->conf->config);
	control_clients_conf(om_config_settings(c->config), &limits);
	c->clients = om_clients_new(&limits);
	w = calloc(1, sizeof(*w));
	if (c->clients == NULL || w == NULL) {
		free(w);
		return OM_ERR_NOMEM;
	}
	w->config = om_config_ref(c->config);
	err = om_join(om_service_cx(sv), OM_CONTROL_GROUP);
	if (err == OM_OK) {
		err = om_offload(om_service_cx(sv), who_load, w, who_done, who_free);
	}
	if (err != OM_OK) {
		who_free(w);
	}
	return err;
}

/* Also after a failed start. */
static void
control_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct control *c = state;

	(void)why;
	c->phase = CONTROL_ENDED;
	control_fail_all(sv, c, OM_ERR_SHUTDOWN);
	control_flush(c);
	for (unsigned i = 0; i < CONTROL_WATCHES; i++) {
		if (c->watches[i].ep.sock != NULL) {
			if (i < CONTROL_ZAP) {
				om_endpoint_unwatch(&c->watches[i].ep);
			}
			om_io_unwatch(om_service_cx(sv), c->watches[i].watch);
			om_endpoint_close(&c->watches[i].ep);
		}
	}
	control_verbs_stop(c);
	control_change_free(c->config_asked);
	om_clients_free(c->clients);
	om_auth_free(c->auth);
	om_config_free(c->config);
	om_buf_fini(&c->answers);
	om_buf_fini(&c->encoded);
	free(c->requests);
}

/* --- messages -------------------------------------------------------------------------------- */

static void
control_on_signal(struct om_service *sv, struct control *c, uint64_t what)
{
	struct om_daemon_stop stop = { 0 };
	struct om_why why = { "" };

	switch (what) {
	case OM_CONTROL_DRAIN:
	case OM_CONTROL_DRAIN_NOW:
		OM_SET(&stop, daemon_stop, now, what == OM_CONTROL_DRAIN_NOW);
		OM_SET(&stop, daemon_stop, timeout_ms,
		       om_config_settings(c->config)->daemon_drain_timeout);
		control_drain(sv, c, &stop);
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
		control_ask_ready(sv, c);
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

	if (c->topics == 0) {
		return OM_OK;
	}
	err = om_envelope_encode_raw(OM_MSG_JOB_EVENT, 0, 0, in->raw, &buf);
	if (err == OM_OK) {
		om_endpoint_publish(&c->watches[CONTROL_EVENTS].ep, event->job,
				    (struct om_bin){ buf.data, buf.len });
		c->counters.events++;
		control_touched(sv, c, CONTROL_EVENTS);
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
