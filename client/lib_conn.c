/* SPDX-License-Identifier: ISC */
/*
 * The connection: a DEALER socket that never reconnects by itself.  ZeroMQ would do so silently, and
 * the requests that the daemon lost with the old connection would wait for their time-out.  A monitor
 * socket tells when the connection is made, refused or lost; on loss every request in flight ends
 * with "disconnected" and the next call dials again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>
#include "base/clock.h"
#include "client/client_impl.h"

#define HEARTBEAT_MS      5000
#define HEARTBEAT_DEAD_MS 15000

int64_t
om_client_now_ms(void)
{
	return om_mono_now().ns / OM_NS_PER_MS;
}

void
om_client_close(struct omerta *o)
{
	if (o->socket != NULL) {
		(void)zmq_socket_monitor(o->socket, NULL, 0);
		(void)zmq_close(o->socket);
	}
	if (o->monitor != NULL) {
		(void)zmq_close(o->monitor);
	}
	o->socket = NULL;
	o->monitor = NULL;
	o->connected = false;
	om_client_slots_lose(o);
}

static int
conn_set_int(void *socket, int option, int value)
{
	return zmq_setsockopt(socket, option, &value, sizeof(value));
}

static bool
conn_is_ipc(const struct omerta *o)
{
	return strncmp(o->endpoint, "ipc://", 6) == 0;
}

static int
conn_configure(struct omerta *o)
{
	int64_t max = OM_FRAME_MAX;
	int rc = 0;

	rc |= conn_set_int(o->socket, ZMQ_LINGER, 0);
	rc |= conn_set_int(o->socket, ZMQ_IMMEDIATE, 1);
	rc |= conn_set_int(o->socket, ZMQ_RECONNECT_IVL, -1);
	rc |= conn_set_int(o->socket, ZMQ_SNDHWM, OMERTA_IN_FLIGHT_MAX);
	rc |= conn_set_int(o->socket, ZMQ_RCVHWM, OMERTA_IN_FLIGHT_MAX);
	rc |= conn_set_int(o->socket, ZMQ_HANDSHAKE_IVL, (int)o->timeout_ms);
	rc |= zmq_setsockopt(o->socket, ZMQ_MAXMSGSIZE, &max, sizeof(max));
	if (!conn_is_ipc(o)) {
		rc |= conn_set_int(o->socket, ZMQ_CONNECT_TIMEOUT, (int)o->timeout_ms);
		rc |= conn_set_int(o->socket, ZMQ_IPV6, 1);
		/* A cable that is pulled is noticed; a local socket tells by itself. */
		rc |= conn_set_int(o->socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
		rc |= conn_set_int(o->socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_DEAD_MS);
	}
	if (o->keys.set) {
		rc |= om_client_keys_apply(&o->keys, o->socket);
	}
	return rc;
}

/* Why a connection to a local socket fails, from the kernel itself. */
static int
conn_explain_ipc(struct omerta *o)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = o->endpoint + 6;
	int fd, saved = 0;

	if (strlen(path) >= sizeof(address.sun_path)) {
		return om_client_fail(o, "usage", "the path of the socket is too long: %s", path);
	}
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
			saved = errno;
		}
		(void)close(fd);
	}
	switch (saved) {
	case EACCES:
	case EPERM:
		return om_client_fail(
		    o, "denied", "no permission for %s (its group may use it; see ls -l)", path);
	case ENOENT:
		return om_client_fail(o, "unreachable", "no daemon: %s does not exist", path);
	case ECONNREFUSED:
		return om_client_fail(o, "unreachable", "no daemon listens at %s", path);
	default:
		return om_client_fail(o, "unreachable", "no connection to %s", path);
	}
}

static int
conn_explain(struct omerta *o)
{
	return conn_is_ipc(o)
		   ? conn_explain_ipc(o)
		   : om_client_fail(o, "unreachable", "no daemon answers at %s", o->endpoint);
}

/*
 * One event of the monitor.  1: nothing to do, 0: connected, -1: the connection has failed or is lost
 * (the reason is set).
 */
int
om_client_on_monitor(struct omerta *o)
{
	zmq_msg_t head, address;
	uint16_t event;
	int rc = 1;

	(void)zmq_msg_init(&head);
	(void)zmq_msg_init(&address);
	if (zmq_msg_recv(&head, o->monitor, ZMQ_DONTWAIT) != 6 ||
	    zmq_msg_recv(&address, o->monitor, ZMQ_DONTWAIT) < 0) {
		goto out;
	}
	memcpy(&event, zmq_msg_data(&head), sizeof(event));
	switch (event) {
	case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
		o->connected = true;
		rc = 0;
		break;
	case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
		rc = om_client_fail(o, "unauthorized", "the daemon at %s does not accept %s",
				    o->endpoint, o->keys.set ? "this key" : "this user");
		break;
	case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
		rc = om_client_fail(o, "unauthorized", "%s: the handshake failed (%s)", o->endpoint,
				    o->keys.set ? "is the server key right?"
						: "a tcp endpoint needs keys");
		break;
	case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
	case ZMQ_EVENT_DISCONNECTED:
		rc = o->connected
			 ? om_client_fail(o, "disconnected", "the daemon closed the connection")
			 : om_client_fail(o, "unreachable", "%s closed the connection at once%s",
					  o->endpoint,
					  conn_is_ipc(o) ? "" : " (are the keys right?)");
		break;
	case ZMQ_EVENT_CLOSED:
	case ZMQ_EVENT_CONNECT_RETRIED:
		rc = o->connected ? 1 : conn_explain(o);
		break;
	default:
		break;
	}
out:
	(void)zmq_msg_close(&head);
	(void)zmq_msg_close(&address);
	return rc;
}

static int
conn_open(struct omerta *o)
{
	char name[64];
	int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
		     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
		     ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED;

	if (o->zmq == NULL) {
		o->zmq = zmq_ctx_new();
	}
	if (o->zmq == NULL || (o->socket = zmq_socket(o->zmq, ZMQ_DEALER)) == NULL ||
	    (o->monitor = zmq_socket(o->zmq, ZMQ_PAIR)) == NULL) {
		return om_client_fail(o, "no_memory", "ZeroMQ: %s", zmq_strerror(errno));
	}
	(void)snprintf(name, sizeof(name), "inproc://monitor.%" PRIu64, ++o->sequence);
	if (conn_configure(o) != 0 || conn_set_int(o->monitor, ZMQ_LINGER, 0) != 0 ||
	    zmq_socket_monitor(o->socket, name, events) != 0 ||
	    zmq_connect(o->monitor, name) != 0) {
		return om_client_fail(o, "internal", "ZeroMQ: %s", zmq_strerror(errno));
	}
	if (zmq_connect(o->socket, o->endpoint) != 0) {
		return om_client_fail(o, errno == EINVAL ? "usage" : "unreachable", "%s: %s",
				      o->endpoint, zmq_strerror(errno));
	}
	return 0;
}

int
omerta_connect(struct omerta *o)
{
	int64_t until = om_client_now_ms() + o->timeout_ms;
	int rc = 1;

	om_client_clear(o);
	if (o->pid != getpid()) {
		return om_client_fail(o, "usage", "a handle made before fork is not for the child");
	}
	if (o->bad_setup.text[0] != '\0') {
		return om_client_fail(o, "usage", "%s", o->bad_setup.text);
	}
	if (o->connected) {
		return 0;
	}
	rc = conn_open(o) == 0 ? 1 : -1;
	while (rc > 0) {
		zmq_pollitem_t item = { o->monitor, 0, ZMQ_POLLIN, 0 };
		int64_t left = until - om_client_now_ms();

		if (left <= 0) {
			rc = om_client_fail(o, "unreachable", "no answer from %s in %" PRId64 " ms",
					    o->endpoint, o->timeout_ms);
		} else if (zmq_poll(&item, 1, (long)left) > 0) {
			rc = om_client_on_monitor(o);
		}
	}
	if (rc != 0) {
		om_client_close(o);
	}
	return rc;
}

int
omerta_fd(const struct omerta *o)
{
	int fd = -1;
	size_t size = sizeof(fd);

	if (o->socket == NULL || zmq_getsockopt(o->socket, ZMQ_FD, &fd, &size) != 0) {
		return -1;
	}
	return fd;
}
