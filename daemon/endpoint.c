/* SPDX-License-Identifier: ISC */
#include "daemon/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/intake.h"

#define PROPERTY_MAX 63 /* characters; a public key has 40, pid:gid:uid at most 32 */

struct option {
	int name;
	int value;
};

static enum om_err
endpoint_options(void *sock, const struct option *options, size_t count, struct om_why *why)
{
	for (size_t i = 0; i < count; i++) {
		if (zmq_setsockopt(sock, options[i].name, &options[i].value,
				   sizeof(options[i].value)) != 0) {
			return om_why_set(why, OM_ERR_INTERNAL, "ZeroMQ option %d: %s",
					  options[i].name, zmq_strerror(zmq_errno()));
		}
	}
	return OM_OK;
}

static enum om_err
endpoint_fd(struct om_endpoint *ep, struct om_why *why)
{
	size_t size = sizeof(ep->fd);

	if (zmq_getsockopt(ep->sock, ZMQ_FD, &ep->fd, &size) != 0) {
		return om_why_set(why, OM_ERR_INTERNAL, "ZMQ_FD: %s", zmq_strerror(zmq_errno()));
	}
	return OM_OK;
}

static enum om_err
endpoint_router(void *zmq, const struct om_endpoint_limits *limits, struct om_endpoint *out,
		struct om_why *why)
{
	const int64_t frame_max = (int64_t)limits->frame_max;
	const struct option options[] = {
		{ ZMQ_RCVHWM, OM_ENDPOINT_RECV_HWM },
		{ ZMQ_SNDHWM, (int)limits->answers_max },
		{ ZMQ_ROUTER_MANDATORY, 1 }, /* an answer that goes nowhere is an error to count */
		{ ZMQ_ROUTER_HANDOVER, 0 }, /* nobody takes a connection over by its id */
		{ ZMQ_HANDSHAKE_IVL, OM_ENDPOINT_HANDSHAKE_MS },
		{ ZMQ_BACKLOG, OM_ENDPOINT_BACKLOG },
		{ ZMQ_LINGER, OM_ENDPOINT_LINGER_MS },
		{ ZMQ_IPV6, 1 },
	};
	enum om_err err;

	memset(out, 0, sizeof(*out));
	out->sock = zmq_socket(zmq, ZMQ_ROUTER);
	if (out->sock == NULL) {
		return om_why_set(why, OM_ERR_LIMIT, "socket: %s", zmq_strerror(zmq_errno()));
	}
	err = endpoint_options(out->sock, options, OM_COUNT(options), why);
	/* The default is no limit at all. */
	if (err == OM_OK &&
	    zmq_setsockopt(out->sock, ZMQ_MAXMSGSIZE, &frame_max, sizeof(frame_max)) != 0) {
		err = om_why_set(why, OM_ERR_INTERNAL, "ZMQ_MAXMSGSIZE");
	}
	if (err == OM_OK) {
		err = endpoint_fd(out, why);
	}
	return err;
}

static enum om_err
endpoint_bind(struct om_endpoint *ep, struct om_why *why)
{
	if (zmq_bind(ep->sock, ep->url) != 0) {
		return om_why_set(why, OM_ERR_IO, "bind %s: %s", ep->url,
				  zmq_strerror(zmq_errno()));
	}
	return OM_OK;
}

/*
 * ZeroMQ makes the socket by the umask, which takes the group's right to write, and so to connect,
 * away: it is opened to the group afterwards, and there is no moment when it is too open.
 */
static enum om_err
endpoint_mode(const char *path, const gid_t *group, struct om_why *why)
{
	const bool shared = group != NULL && chown(path, (uid_t)-1, *group) == 0;

	return chmod(path, shared ? 0660 : 0600) == 0
		   ? OM_OK
		   : om_why_errno(why, OM_ERR_IO, "chmod %s", path);
}

enum om_err
om_endpoint_open_ipc(void *zmq, const char *path, const gid_t *group,
		     const struct om_endpoint_limits *limits, struct om_endpoint *out,
		     struct om_why *why)
{
	enum om_err err = endpoint_router(zmq, limits, out, why);

	out->kind = OM_ENDPOINT_IPC;
	snprintf(out->url, sizeof(out->url), "ipc://%s", path);
	if (err == OM_OK) {
		err = endpoint_bind(out, why);
	}
	if (err == OM_OK) {
		err = endpoint_mode(path, group, why);
	}
	if (err != OM_OK) {
		om_endpoint_close(out);
	}
	return err;
}

/* 1: IPv4, 2: IPv6, 0: neither. */
static int
address_family(const char *address, bool *loopback)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, address, &four) == 1) {
		*loopback = ntohl(four.s_addr) >> 24 == 127;
		return 1;
	}
	if (inet_pton(AF_INET6, address, &six) == 1) {
		*loopback = IN6_IS_ADDR_LOOPBACK(&six);
		return 2;
	}
	return 0;
}

static enum om_err
endpoint_tcp_options(void *sock, const char *secret_key, struct om_why *why)
{
	const struct option options[] = {
		{ ZMQ_TCP_KEEPALIVE, 1 },
		{ ZMQ_HEARTBEAT_IVL, OM_ENDPOINT_HEARTBEAT_MS },
		{ ZMQ_HEARTBEAT_TIMEOUT, OM_ENDPOINT_HEARTBEAT_TO_MS },
	};
	const struct option curve[] = { { ZMQ_CURVE_SERVER, 1 } };
	enum om_err err = endpoint_options(sock, options, OM_COUNT(options), why);

	if (err != OM_OK || secret_key == NULL) {
		return err;
	}
	/* Without a domain ZeroMQ would let every key in. */
	if (zmq_setsockopt(sock, ZMQ_ZAP_DOMAIN, OM_ENDPOINT_ZAP_DOMAIN,
			   sizeof(OM_ENDPOINT_ZAP_DOMAIN) - 1) != 0 ||
	    zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, secret_key, OM_AUTH_KEY_LEN + 1) != 0) {
		return om_why_set(why, OM_ERR_UNSUPPORTED, "CURVE: %s", zmq_strerror(zmq_errno()));
	}
	return endpoint_options(sock, curve, OM_COUNT(curve), why);
}

enum om_err
om_endpoint_open_tcp(void *zmq, const char *address, unsigned port, const char *secret_key,
		     const struct om_endpoint_limits *limits, struct om_endpoint *out,
		     struct om_why *why)
{
	bool loopback = false;
	int family = address_family(address, &loopback);
	enum om_err err;

	memset(out, 0, sizeof(*out));
	if (family == 0) {
		return om_why_set(why, OM_ERR_INVALID, "control.address: %s is no address",
				  address);
	}
	if (secret_key == NULL && !loopback) {
		return om_why_set(why, OM_ERR_DENIED,
				  "control.address: %s without CURVE would let everyone in",
				  address);
	}
	err = endpoint_router(zmq, limits, out, why);
	out->kind = secret_key != NULL ? OM_ENDPOINT_CURVE : OM_ENDPOINT_OPEN;
	snprintf(out->url, sizeof(out->url), family == 2 ? "tcp://[%s]:%u" : "tcp://%s:%u", address,
		 port);
	if (err == OM_OK) {
		err = endpoint_tcp_options(out->sock, secret_key, why);
	}
	if (err == OM_OK) {
		err = endpoint_bind(out, why);
	}
	if (err != OM_OK) {
		om_endpoint_close(out);
	}
	return err;
}

enum om_err
om_endpoint_share(const char *path, const gid_t *group, struct om_why *why)
{
	return endpoint_mode(path, group, why);
}

enum om_err
om_endpoint_open_events(void *zmq, const char *path, const gid_t *group, struct om_endpoint *out,
			struct om_why *why)
{
	const struct option options[] = {
		{ ZMQ_SNDHWM, OM_ENDPOINT_EVENTS_HWM },
		{ ZMQ_LINGER, OM_ENDPOINT_LINGER_MS },
	};
	enum om_err err;

	memset(out, 0, sizeof(*out));
	out->kind = OM_ENDPOINT_IPC;
	out->sock = zmq_socket(zmq, ZMQ_XPUB); /* a PUB that says who listens */
	if (out->sock == NULL) {
		return om_why_set(why, OM_ERR_LIMIT, "socket: %s", zmq_strerror(zmq_errno()));
	}
	snprintf(out->url, sizeof(out->url), "ipc://%s", path);
	err = endpoint_options(out->sock, options, OM_COUNT(options), why);
	if (err == OM_OK) {
		err = endpoint_bind(out, why);
	}
	if (err == OM_OK) {
		err = endpoint_mode(path, group, why);
	}
	if (err == OM_OK) {
		err = endpoint_fd(out, why);
	}
	if (err != OM_OK) {
		om_endpoint_close(out);
	}
	return err;
}

enum om_err
om_endpoint_open_zap(void *zmq, struct om_endpoint *out, struct om_why *why)
{
	const struct option options[] = { { ZMQ_LINGER, 0 } };
	enum om_err err;

	memset(out, 0, sizeof(*out));
	out->sock = zmq_socket(zmq, ZMQ_REP);
	if (out->sock == NULL) {
		return om_why_set(why, OM_ERR_LIMIT, "socket: %s", zmq_strerror(zmq_errno()));
	}
	snprintf(out->url, sizeof(out->url), "inproc://zeromq.zap.01");
	err = endpoint_options(out->sock, options, OM_COUNT(options), why);
	if (err == OM_OK) {
		err = endpoint_bind(out, why);
	}
	if (err == OM_OK) {
		err = endpoint_fd(out, why);
	}
	if (err != OM_OK) {
		om_endpoint_close(out);
	}
	return err;
}

void
om_endpoint_close(struct om_endpoint *ep)
{
	if (ep->sock != NULL) {
		zmq_close(ep->sock);
		ep->sock = NULL;
		/* ZeroMQ leaves the file: a client would connect to nobody instead of being told. */
		if (strncmp(ep->url, "ipc://", 6) == 0) {
			unlink(ep->url + 6);
		}
	}
}

bool
om_endpoint_has_input(const struct om_endpoint *ep)
{
	int events = 0;
	size_t size = sizeof(events);

	return zmq_getsockopt(ep->sock, ZMQ_EVENTS, &events, &size) == 0 &&
	       (events & ZMQ_POLLIN) != 0;
}

/* --- requests -------------------------------------------------------------------------------- */

/* Parts behind the body: read to their end, so that the next message begins at its beginning. */
static void
inbound_skip(const struct om_endpoint *ep, struct om_inbound *in)
{
	zmq_msg_t part;
	bool more = true;

	in->bad = "a request is one frame, or an empty one and one";
	zmq_msg_init(&part);
	while (more && zmq_msg_recv(&part, ep->sock, ZMQ_DONTWAIT) >= 0) {
		more = zmq_msg_more(&part) != 0;
		if (!more && ep->kind == OM_ENDPOINT_CURVE) {
			om_intake_read(zmq_msg_get(&part, ZMQ_SRCFD));
		}
	}
	zmq_msg_close(&part);
}

/* [body], or [][body] from a REQ.  ZeroMQ hands a message over whole: behind the route all is there. */
static void
inbound_body(const struct om_endpoint *ep, struct om_inbound *in)
{
	int size = zmq_msg_recv(&in->body, ep->sock, ZMQ_DONTWAIT);
	bool more = zmq_msg_more(&in->body) != 0;

	if (size == 0 && more) {
		in->delimited = true;
		size = zmq_msg_recv(&in->body, ep->sock, ZMQ_DONTWAIT);
		more = zmq_msg_more(&in->body) != 0;
	}
	if (size > 0) {
		in->frame = (struct om_bin){ zmq_msg_data(&in->body), (size_t)size };
	}
	if (more) {
		inbound_skip(ep, in);
	} else if (ep->kind == OM_ENDPOINT_CURVE) {
		om_intake_read(zmq_msg_get(&in->body, ZMQ_SRCFD));
	}
}

bool
om_endpoint_recv(const struct om_endpoint *ep, struct om_inbound *in)
{
	int size;

	/* Member by member: to clear the room for a route costs as much as all the rest. */
	in->delimited = false;
	in->bad = NULL;
	in->frame = (struct om_bin){ NULL, 0 };
	zmq_msg_init(&in->body);
	size = zmq_msg_recv(&in->body, ep->sock, ZMQ_DONTWAIT);
	if (size < 0) {
		zmq_msg_close(&in->body);
		return false;
	}
	in->route_len = size < OM_ROUTE_MAX ? (size_t)size : OM_ROUTE_MAX;
	memcpy(in->route, zmq_msg_data(&in->body), in->route_len);
	if (zmq_msg_more(&in->body)) {
		inbound_body(ep, in);
	}
	if (in->bad == NULL && in->frame.len == 0) {
		in->bad = "the request is empty";
	}
	/*
	 * ZeroMQ's own ids begin with a zero byte.  One that the client chose may be chosen by another
	 * after it, who would then get the answers that were still under way.
	 */
	if (in->route_len != 5 || in->route[0] != 0) {
		in->bad = "the socket has a routing id of its own; leave ZMQ_ROUTING_ID alone";
	}
	return true;
}

void
om_inbound_fini(struct om_inbound *in)
{
	zmq_msg_close(&in->body);
}

/*
 * What ZeroMQ knows of the connection that a message came by, copied: the text is its I/O thread's.
 * False if it knows nothing of that name, or more than a name or an address can be.
 */
static bool
connection_property(struct om_inbound *in, const char *name, char out[PROPERTY_MAX + 1])
{
	const char *text = zmq_msg_gets(&in->body, name);
	size_t len = text != NULL ? strnlen(text, PROPERTY_MAX + 1) : PROPERTY_MAX + 1;

	if (len > PROPERTY_MAX) {
		return false;
	}
	memcpy(out, text, len);
	out[len] = '\0';
	return true;
}

enum om_err
om_endpoint_who(const struct om_endpoint *ep, struct om_inbound *in, const struct om_auth *auth,
		struct om_caller *out)
{
	static const struct om_caller anybody = { .role = OM_ROLE_REQUESTER,
						  .peer = OM_AUTH_OPEN_PEER };
	char text[PROPERTY_MAX + 1];

	switch (ep->kind) {
	case OM_ENDPOINT_IPC:
		return connection_property(in, "Peer-Address", text)
			   ? om_auth_local(auth, text, out)
			   : OM_ERR_DENIED;
	case OM_ENDPOINT_CURVE:
		return connection_property(in, "User-Id", text) ? om_auth_key(auth, text, out)
								: OM_ERR_DENIED;
	case OM_ENDPOINT_OPEN:
		break;
	}
	*out = anybody;
	return OM_OK;
}

/* --- answers --------------------------------------------------------------------------------- */

static enum om_err
endpoint_send_route(const struct om_endpoint *ep, const struct om_outbound *out)
{
	for (int attempt = 0; attempt < 2; attempt++) {
		if (zmq_send(ep->sock, out->route, out->route_len, ZMQ_DONTWAIT | ZMQ_SNDMORE) >=
		    0) {
			/* After the route ZeroMQ takes the rest, and drops it if the connection ends. */
			return !out->delimited ||
				       zmq_send(ep->sock, "", 0, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0
				   ? OM_OK
				   : OM_ERR_GONE;
		}
		if (zmq_errno() == EHOSTUNREACH) {
			return OM_ERR_GONE;
		}
		if (zmq_errno() != EAGAIN) {
			return OM_ERR_IO;
		}
		/* Room that the connection has made is seen only when commands are processed. */
		(void)om_endpoint_has_input(ep);
	}
	return OM_ERR_FULL;
}

enum om_err
om_endpoint_send_copy(const struct om_endpoint *ep, const struct om_outbound *out)
{
	enum om_err err = endpoint_send_route(ep, out);

	if (err == OM_OK && zmq_send(ep->sock, out->data, out->len, ZMQ_DONTWAIT) < 0) {
		err = OM_ERR_GONE;
	}
	return err;
}

enum om_err
om_endpoint_send(const struct om_endpoint *ep, const struct om_outbound *out, zmq_free_fn *release,
		 void *hint)
{
	enum om_err err;
	zmq_msg_t body;

	if (zmq_msg_init_data(&body, out->data, out->len, release, hint) != 0) {
		release(out->data, hint);
		return OM_ERR_NOMEM;
	}
	err = endpoint_send_route(ep, out);
	if (err == OM_OK && zmq_msg_send(&body, ep->sock, ZMQ_DONTWAIT) < 0) {
		err = OM_ERR_GONE;
	}
	if (err != OM_OK) {
		zmq_msg_close(&body);
	}
	return err;
}

void
om_endpoint_publish(const struct om_endpoint *ep, struct om_str topic, struct om_bin body)
{
	if (zmq_send(ep->sock, topic.ptr, topic.len, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0) {
		(void)zmq_send(ep->sock, body.ptr, body.len, ZMQ_DONTWAIT);
	}
}

/* ZeroMQ tells the first subscription of a topic and the end of its last; a connection's end ends its. */
bool
om_endpoint_listeners_step(const struct om_endpoint *ep, uint64_t *topics)
{
	unsigned char on;

	if (zmq_recv(ep->sock, &on, sizeof(on), ZMQ_DONTWAIT) < (int)sizeof(on)) {
		return false;
	}
	if (on == 1) {
		++*topics;
	} else if (on == 0 && *topics > 0) {
		--*topics;
	}
	return true;
}

/* --- connections ----------------------------------------------------------------------------- */

enum om_err
om_endpoint_open_news(void *zmq, const struct om_endpoint *of, struct om_endpoint *out,
		      struct om_why *why)
{
	/* Without a limit: at one the I/O thread would wait for us, with every connection behind it. */
	const struct option options[] = { { ZMQ_RCVHWM, 0 }, { ZMQ_LINGER, 0 } };
	const int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_ACCEPT_FAILED | ZMQ_EVENT_DISCONNECTED |
			   ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
			   ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
	enum om_err err = OM_OK;

	memset(out, 0, sizeof(*out));
	snprintf(out->url, sizeof(out->url), "inproc://omerta/news/%d", of->fd);
	out->sock = zmq_socket(zmq, ZMQ_PAIR);
	if (out->sock == NULL) {
		return om_why_set(why, OM_ERR_LIMIT, "socket: %s", zmq_strerror(zmq_errno()));
	}
	err = endpoint_options(out->sock, options, OM_COUNT(options), why);
	if (err == OM_OK && (zmq_socket_monitor(of->sock, out->url, events) != 0 ||
			     zmq_connect(out->sock, out->url) != 0)) {
		err =
		    om_why_set(why, OM_ERR_INTERNAL, "%s: %s", out->url, zmq_strerror(zmq_errno()));
	}
	if (err == OM_OK) {
		err = endpoint_fd(out, why);
	}
	if (err != OM_OK) {
		om_endpoint_unwatch(of);
		om_endpoint_close(out);
	}
	return err;
}

void
om_endpoint_unwatch(const struct om_endpoint *of)
{
	(void)zmq_socket_monitor(of->sock, NULL, 0);
}

/* Two frames: the event's number and value, and the address. */
bool
om_endpoint_news_step(const struct om_endpoint *ep, struct om_endpoint_news *news)
{
	unsigned char frame[6] = { 0 };
	uint16_t event;
	uint32_t value;

	if (zmq_recv(ep->sock, frame, sizeof(frame), ZMQ_DONTWAIT) < (int)sizeof(event)) {
		return false;
	}
	(void)zmq_recv(ep->sock, NULL, 0, ZMQ_DONTWAIT);
	memcpy(&event, frame, sizeof(event));
	memcpy(&value, frame + sizeof(event), sizeof(value));
	switch (event) {
	case ZMQ_EVENT_ACCEPTED:
		news->connects++;
		break;
	case ZMQ_EVENT_DISCONNECTED:
		news->disconnects++;
		break;
	case ZMQ_EVENT_ACCEPT_FAILED:
		news->accepts_failed += value != ECONNABORTED; /* the peer, or daemon/intake.c */
		break;
	default:
		news->handshakes_failed++;
	}
	return true;
}
