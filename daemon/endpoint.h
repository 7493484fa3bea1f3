/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_ENDPOINT_H
#define OM_DAEMON_ENDPOINT_H

/*
 * The ZeroMQ sockets that face the outside, with every limit set.  No actor here: the caller waits
 * for `fd` and reads until there is nothing.  The fd is edge-triggered: after a read or a write the
 * caller looks at om_endpoint_has_input before it waits again (zmq_getsockopt(3), ZMQ_FD).
 *
 * Owner thread (or moved between threads with a full fence).
 */
#include <zmq.h>
#include "daemon/auth.h"
#include "daemon/clients.h"

#define OM_ENDPOINT_URL_MAX         160
#define OM_ENDPOINT_RECV_HWM        64 /* requests of one connection that wait to be read */
#define OM_ENDPOINT_REFUSALS_MAX    1024 /* that wait for a client who sends before it reads */
#define OM_ENDPOINT_BACKLOG         1024 /* connections that wait to be accepted */
#define OM_ENDPOINT_HANDSHAKE_MS    5000
#define OM_ENDPOINT_HEARTBEAT_MS    15000 /* tcp: a silent peer is asked */
#define OM_ENDPOINT_HEARTBEAT_TO_MS 45000 /* and gone when it stays silent */
#define OM_ENDPOINT_LINGER_MS       500 /* answers under way at the end */
#define OM_ENDPOINT_EVENTS_HWM      10000 /* events that one slow subscriber may be behind */
#define OM_ENDPOINT_ZAP_DOMAIN      "omerta"

enum om_endpoint_kind {
	OM_ENDPOINT_IPC, /* the kernel says who it is */
	OM_ENDPOINT_CURVE, /* its key says */
	OM_ENDPOINT_OPEN, /* tcp on loopback without CURVE: nobody knows */
};

struct om_endpoint {
	void *sock; /* NULL: closed */
	int fd;
	enum om_endpoint_kind kind;
	char url[OM_ENDPOINT_URL_MAX];
};

struct om_endpoint_limits {
	size_t frame_max; /* bytes */
	size_t answers_max; /* answers that one connection has not taken */
};

/* ROUTER on a unix socket: 0660 and the group; NULL: 0600. */
enum om_err om_endpoint_open_ipc(void *zmq, const char *path, const gid_t *group,
				 const struct om_endpoint_limits *limits, struct om_endpoint *out,
				 struct om_why *why) OM_MUST_CHECK;
/* ROUTER on tcp.  secret_key NULL: no CURVE, and the address must be a loopback one. */
enum om_err om_endpoint_open_tcp(void *zmq, const char *address, unsigned port,
				 const char *secret_key, const struct om_endpoint_limits *limits,
				 struct om_endpoint *out, struct om_why *why) OM_MUST_CHECK;
/* XPUB on a unix socket: all jobs of everybody, so for the operators' group alone; modes as above. */
enum om_err om_endpoint_open_events(void *zmq, const char *path, const gid_t *group,
				    struct om_endpoint *out, struct om_why *why) OM_MUST_CHECK;
/* The socket at path is the group's from now on; without such a group the daemon's user's alone. */
enum om_err om_endpoint_share(const char *path, const gid_t *group,
			      struct om_why *why) OM_MUST_CHECK;
/* The ZAP handler (https://rfc.zeromq.org/spec/27): before the first CURVE endpoint. */
enum om_err om_endpoint_open_zap(void *zmq, struct om_endpoint *out,
				 struct om_why *why) OM_MUST_CHECK;
void om_endpoint_close(struct om_endpoint *ep);

bool om_endpoint_has_input(const struct om_endpoint *ep);

/* One request.  The caller ends it with om_inbound_fini. */
struct om_inbound {
	unsigned char route[OM_ROUTE_MAX];
	size_t route_len;
	bool delimited; /* from a REQ socket: an empty frame before the body */
	const char *bad; /* not NULL: it is no request, and why */
	struct om_bin frame; /* the request, in body */
	zmq_msg_t body;
};
/* false: nothing there; with zmq_errno EAGAIN that is also what om_endpoint_has_input would say. */
bool om_endpoint_recv(const struct om_endpoint *ep, struct om_inbound *in);
void om_inbound_fini(struct om_inbound *in);

/* Who sent it.  DENIED: the connection does not say, or the key is authorized no more. */
enum om_err om_endpoint_who(const struct om_endpoint *ep, struct om_inbound *in,
			    const struct om_auth *auth, struct om_caller *out) OM_MUST_CHECK;

/* An answer and whose it is. */
struct om_outbound {
	const void *route;
	size_t route_len;
	bool delimited;
	void *data;
	size_t len;
};
/*
 * Sends an answer.  FULL: the connection does not take its answers.  GONE: it has ended.
 * send: ZeroMQ calls release(data, hint) when it has let go of the bytes, also after an error.
 */
enum om_err om_endpoint_send(const struct om_endpoint *ep, const struct om_outbound *out,
			     zmq_free_fn *release, void *hint) OM_MUST_CHECK;
enum om_err om_endpoint_send_copy(const struct om_endpoint *ep,
				  const struct om_outbound *out) OM_MUST_CHECK;

/* Publishes.  Never blocks; a slow subscriber loses events. */
void om_endpoint_publish(const struct om_endpoint *ep, struct om_str topic, struct om_bin body);
/* Counts one change of what is subscribed to in *topics.  false: nothing there. */
bool om_endpoint_listeners_step(const struct om_endpoint *ep, uint64_t *topics);

struct om_endpoint_news {
	uint64_t connects, disconnects;
	/* Connections that spoke no ZMTP, were refused, or said nothing in OM_ENDPOINT_HANDSHAKE_MS. */
	uint64_t handshakes_failed;
	uint64_t accepts_failed; /* no file descriptors left */
};
/*
 * What becomes of an endpoint's connections, told by ZeroMQ's I/O thread.  To be closed after the
 * endpoint's own om_endpoint_unwatch: the I/O thread would wait for ever for a reader that is gone.
 */
enum om_err om_endpoint_open_news(void *zmq, const struct om_endpoint *of, struct om_endpoint *out,
				  struct om_why *why) OM_MUST_CHECK;
void om_endpoint_unwatch(const struct om_endpoint *of);
/* Counts one piece of news.  false: nothing there. */
bool om_endpoint_news_step(const struct om_endpoint *ep, struct om_endpoint_news *news);

/* Answers one question of ZeroMQ about a key.  false: nothing there. */
bool om_endpoint_zap_step(const struct om_endpoint *ep, const struct om_auth *auth,
			  uint64_t *refused);

#endif /* OM_DAEMON_ENDPOINT_H */
