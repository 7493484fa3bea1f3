/* SPDX-License-Identifier: ISC */
/* The daemon's events: a SUB socket, which ZeroMQ reconnects; what was missed is not repeated. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>
#include "client/client_impl.h"

#define EVENTS_DEFAULT_ENDPOINT "ipc:///run/omerta/events.sock"
#define EVENTS_HWM              10000 /* events a slow reader may be behind; more are dropped */

struct omerta_events {
	struct omerta *o; /* borrowed: errors, and the ZeroMQ context */
	void *socket;
};

static int
events_open(struct omerta_events *events, const char *endpoint)
{
	struct omerta *o = events->o;
	int hwm = EVENTS_HWM, linger = 0, ipv6 = 1;
	int64_t max = OM_FRAME_MAX;

	if (o->zmq == NULL) {
		o->zmq = zmq_ctx_new();
	}
	if (o->zmq == NULL || (events->socket = zmq_socket(o->zmq, ZMQ_SUB)) == NULL) {
		return om_client_fail(o, "no_memory", "ZeroMQ: %s", zmq_strerror(errno));
	}
	if (zmq_setsockopt(events->socket, ZMQ_RCVHWM, &hwm, sizeof(hwm)) != 0 ||
	    zmq_setsockopt(events->socket, ZMQ_LINGER, &linger, sizeof(linger)) != 0 ||
	    zmq_setsockopt(events->socket, ZMQ_IPV6, &ipv6, sizeof(ipv6)) != 0 ||
	    zmq_setsockopt(events->socket, ZMQ_MAXMSGSIZE, &max, sizeof(max)) != 0 ||
	    zmq_setsockopt(events->socket, ZMQ_SUBSCRIBE, "", 0) != 0 ||
	    (o->keys.set && om_client_keys_apply(&o->keys, events->socket) != 0)) {
		return om_client_fail(o, "internal", "ZeroMQ: %s", zmq_strerror(errno));
	}
	if (zmq_connect(events->socket, endpoint) != 0) {
		return om_client_fail(o, errno == EINVAL ? "usage" : "unreachable", "%s: %s",
				      endpoint, zmq_strerror(errno));
	}
	return 0;
}

struct omerta_events *
omerta_events_new(struct omerta *o, const char *endpoint)
{
	struct omerta_events *events;
	const char *path;

	om_client_clear(o);
	if (endpoint == NULL) {
		endpoint = getenv("OMERTA_EVENTS");
	}
	if (endpoint == NULL || endpoint[0] == '\0') {
		endpoint = EVENTS_DEFAULT_ENDPOINT;
	}
	path = strncmp(endpoint, "ipc://", 6) == 0 ? endpoint + 6 : NULL;
	if (path != NULL && access(path, R_OK | W_OK) != 0) {
		(void)om_client_fail(o, errno == EACCES ? "denied" : "unreachable", "%s: %s", path,
				     strerror(errno));
		return NULL;
	}
	events = calloc(1, sizeof(*events));
	if (events == NULL) {
		(void)om_client_fail(o, "no_memory", "out of memory");
		return NULL;
	}
	events->o = o;
	if (events_open(events, endpoint) != 0) {
		omerta_events_free(events);
		return NULL;
	}
	return events;
}

void
omerta_events_free(struct omerta_events *events)
{
	if (events == NULL) {
		return;
	}
	if (events->socket != NULL) {
		(void)zmq_close(events->socket);
	}
	free(events);
}

/* The last frame of one message is an envelope; what stands before it is for subscriptions. */
static int
events_take(struct omerta_events *events, struct omerta_body **event)
{
	struct om_envelope envelope;
	struct om_why why;
	zmq_msg_t msg;
	int more = 1, rc = 1;

	while (more != 0) {
		(void)zmq_msg_init(&msg);
		if (zmq_msg_recv(&msg, events->socket, ZMQ_DONTWAIT) < 0) {
			(void)zmq_msg_close(&msg);
			return 1;
		}
		more = zmq_msg_more(&msg);
		if (more == 0) {
			struct om_bin frame = { zmq_msg_data(&msg), zmq_msg_size(&msg) };
			enum om_err err = om_envelope_decode(frame, &envelope, &why);

			if (err == OM_OK && envelope.type == OM_MSG_JOB_EVENT) {
				err = om_client_body_decode(OM_BODY_job_event, envelope.body, event,
							    &why);
				rc = err == OM_OK ? 0 : rc;
			}
			if (err != OM_OK && err != OM_ERR_UNKNOWN_TYPE) {
				rc =
				    om_client_fail(events->o, "protocol", "an event: %s", why.text);
			}
		}
		(void)zmq_msg_close(&msg);
	}
	return rc;
}

int
omerta_events_next(struct omerta_events *events, int64_t wait_ms, struct omerta_body **event)
{
	int64_t now = om_client_now_ms();
	int64_t until = wait_ms < 0 ? INT64_MAX : now + wait_ms;
	int rc = 1;

	om_client_clear(events->o);
	for (;; now = om_client_now_ms()) {
		zmq_pollitem_t item = { events->socket, 0, ZMQ_POLLIN, 0 };

		if (zmq_poll(&item, 1, until > now ? (long)(until - now) : 0) > 0) {
			rc = events_take(events, event);
		}
		if (rc != 1 || om_client_now_ms() >= until) {
			return rc;
		}
	}
}
