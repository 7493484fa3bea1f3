/* SPDX-License-Identifier: ISC */
/* Who may come over CURVE: libzmq asks on a socket of its own, once a connection (ZAP, RFC 27). */
#include <stdint.h>
#include <string.h>
#include "base/log.h"
#include "daemon/endpoint.h"

static void
zap_reply(const struct om_endpoint *ep, const char *request, size_t request_len, const char *user)
{
	const char *status = user != NULL ? "200" : "400";
	const char *text = user != NULL ? "OK" : "the key is not authorized";

	zmq_send(ep->sock, "1.0", 3, ZMQ_SNDMORE);
	zmq_send(ep->sock, request, request_len, ZMQ_SNDMORE);
	zmq_send(ep->sock, status, 3, ZMQ_SNDMORE);
	zmq_send(ep->sock, text, strlen(text), ZMQ_SNDMORE);
	zmq_send(ep->sock, user != NULL ? user : "", user != NULL ? OM_AUTH_KEY_LEN : 0,
		 ZMQ_SNDMORE);
	zmq_send(ep->sock, "", 0, 0);
}

/* version, request, domain, address, identity, mechanism, key */
bool
om_endpoint_zap_step(const struct om_endpoint *ep, const struct om_auth *auth, uint64_t *refused)
{
	char frames[7][64], key[OM_AUTH_KEY_LEN + 1];
	size_t sizes[7] = { 0 };
	struct om_caller caller;
	bool ok = true, more = true;
	unsigned n = 0;

	while (more) {
		char scrap[64], *to = n < 7 ? frames[n] : scrap;
		int more_value = 0, got = zmq_recv(ep->sock, to, sizeof(scrap), ZMQ_DONTWAIT);
		size_t size = sizeof(more_value);

		if (got < 0) {
			return false;
		}
		if (n < 7) {
			/* zmq_recv tells the true length of what it cut. */
			sizes[n] = (size_t)got;
		}
		n++;
		more = zmq_getsockopt(ep->sock, ZMQ_RCVMORE, &more_value, &size) == 0 &&
		       more_value != 0;
	}
	ok = n == 7 && sizes[1] <= sizeof(frames[1]) &&
	     sizes[2] == sizeof(OM_ENDPOINT_ZAP_DOMAIN) - 1 &&
	     memcmp(frames[2], OM_ENDPOINT_ZAP_DOMAIN, sizes[2]) == 0 && sizes[5] == 5 &&
	     memcmp(frames[5], "CURVE", 5) == 0 && sizes[6] == 32 &&
	     zmq_z85_encode(key, (const uint8_t *)frames[6], 32) != NULL;
	if (ok && om_auth_key(auth, key, &caller) != OM_OK) {
		om_warn("control.refused", "key %s is not authorized", key);
		ok = false;
	}
	*refused += !ok;
	zap_reply(ep, frames[1], sizes[1] <= sizeof(frames[1]) ? sizes[1] : 0, ok ? key : NULL);
	return true;
}
