/* SPDX-License-Identifier: ISC */
/* A handle: its settings, its errors, its life. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/assert.h"
#include "base/secret.h"
#include "client/client_impl.h"

#define OMERTA_MAGIC 0x6f6d6361u

/* --- errors -------------------------------------------------------------------------------------- */

void
om_client_clear(struct omerta *o)
{
	o->answered = false;
	o->code[0] = '\0';
	o->text[0] = '\0';
	omerta_body_free(o->error);
	o->error = NULL;
}

static int
handle_vfail(struct omerta *o, const char *code, const char *fmt, va_list ap)
{
	om_client_clear(o);
	(void)snprintf(o->code, sizeof(o->code), "%s", code);
	(void)vsnprintf(o->text, sizeof(o->text), fmt, ap);
	return -1;
}

int
om_client_fail(struct omerta *o, const char *code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)handle_vfail(o, code, fmt, ap);
	va_end(ap);
	return -1;
}

int
om_client_fail_err(struct omerta *o, enum om_err err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)handle_vfail(o, om_err_code(err), fmt, ap);
	va_end(ap);
	return -1;
}

const char *
omerta_error_code(const struct omerta *o)
{
	return o->code;
}

const char *
omerta_error_text(const struct omerta *o)
{
	return o->text;
}

bool
omerta_error_is(const struct omerta *o, const char *code)
{
	return strcmp(o->code, code) == 0;
}

bool
omerta_error_detail_at(const struct omerta *o, size_t i, const char **name, const char **value)
{
	return omerta_pair_at(o->error, "details", i, name, value);
}

const char *
omerta_error_detail(const struct omerta *o, const char *name)
{
	const char *key, *value;

	for (size_t i = 0; omerta_error_detail_at(o, i, &key, &value); i++) {
		if (strcmp(key, name) == 0) {
			return value;
		}
	}
	return NULL;
}

/* --- settings ------------------------------------------------------------------------------------ */

unsigned
omerta_version(void)
{
	return OMERTA_VERSION;
}

int
omerta_set_endpoint(struct omerta *o, const char *endpoint)
{
	const char *scheme = endpoint[0] == '/' ? "ipc://" : "";
	int n;

	om_client_clear(o);
	if (o->socket != NULL) {
		return om_client_fail(o, "usage", "the endpoint is set before the first call");
	}
	if (scheme[0] == '\0' && strncmp(endpoint, "ipc://", 6) != 0 &&
	    strncmp(endpoint, "tcp://", 6) != 0) {
		return om_client_fail(
		    o, "usage", "\"%s\" is no endpoint: ipc://PATH, tcp://HOST:PORT or a path is",
		    endpoint);
	}
	n = snprintf(o->endpoint, sizeof(o->endpoint), "%s%s", scheme, endpoint);
	if (n < 0 || (size_t)n >= sizeof(o->endpoint)) {
		return om_client_fail(o, "too_big", "the endpoint is over %d bytes",
				      OM_CLIENT_ENDPOINT_MAX - 1);
	}
	return 0;
}

/* A Z85 text of a key: the library's decoder must take it. */
static bool
handle_key_ok(const char *key)
{
	uint8_t raw[32];
	bool ok = strlen(key) == OM_CLIENT_KEY_LEN && zmq_z85_decode(raw, key) != NULL;

	om_secret_wipe(raw, sizeof(raw));
	return ok;
}

int
omerta_set_keys(struct omerta *o, const char *server_public, const char *own_public,
		const char *own_secret)
{
	om_client_clear(o);
	if (o->socket != NULL) {
		return om_client_fail(o, "usage", "keys are set before the first call");
	}
	if (!handle_key_ok(server_public) || !handle_key_ok(own_public) ||
	    !handle_key_ok(own_secret)) {
		return om_client_fail(o, "usage", "a key is 40 characters of Z85");
	}
	memcpy(o->keys.server, server_public, OM_CLIENT_KEY_LEN);
	memcpy(o->keys.own_public, own_public, OM_CLIENT_KEY_LEN);
	memcpy(o->keys.own_secret, own_secret, OM_CLIENT_KEY_LEN);
	o->keys.set = true;
	return 0;
}

int
omerta_set_key_file(struct omerta *o, const char *path, const char *server_public)
{
	struct om_client_keys keys = { .set = false };
	struct om_why why = { "" };
	enum om_err err = om_client_keys_read(path, &keys, &why);
	int rc;

	if (err != OM_OK) {
		rc = om_client_fail_err(o, err, "%s", why.text);
	} else {
		rc = omerta_set_keys(o, server_public, keys.own_public, keys.own_secret);
	}
	om_secret_wipe(&keys, sizeof(keys));
	return rc;
}

int
omerta_set_timeout(struct omerta *o, int64_t timeout_ms)
{
	om_client_clear(o);
	if (timeout_ms < 1 || timeout_ms > OM_CLIENT_TIMEOUT_MAX) {
		return om_client_fail(o, "usage", "a time-out is 1 ms to 1 h");
	}
	o->timeout_ms = timeout_ms;
	return 0;
}

/* --- life ---------------------------------------------------------------------------------------- */

static void
handle_from_environment(struct omerta *o)
{
	const char *endpoint = getenv("OMERTA_ENDPOINT");
	const char *key_file = getenv("OMERTA_KEY_FILE");
	const char *server = getenv("OMERTA_SERVER_KEY");

	if (endpoint != NULL && endpoint[0] != '\0' && omerta_set_endpoint(o, endpoint) != 0) {
		(void)om_why_set(&o->bad_setup, OM_ERR_INVALID, "OMERTA_ENDPOINT: %s", o->text);
	}
	if (key_file != NULL && key_file[0] != '\0' && server != NULL && server[0] != '\0' &&
	    omerta_set_key_file(o, key_file, server) != 0) {
		(void)om_why_set(&o->bad_setup, OM_ERR_INVALID, "OMERTA_KEY_FILE: %s", o->text);
	}
	om_client_clear(o);
}

struct omerta *
omerta_new(void)
{
	struct omerta *o = calloc(1, sizeof(*o));

	if (o == NULL) {
		return NULL;
	}
	o->magic = OMERTA_MAGIC;
	o->pid = getpid();
	o->timeout_ms = OM_CLIENT_TIMEOUT_MS;
	o->done_first = o->done_last = OM_CLIENT_NO_SLOT;
	for (size_t i = 0; i < OMERTA_IN_FLIGHT_MAX; i++) {
		o->free_slots[i] = (uint16_t)(OMERTA_IN_FLIGHT_MAX - 1 - i);
	}
	o->free_count = OMERTA_IN_FLIGHT_MAX;
	(void)omerta_set_endpoint(o, OMERTA_DEFAULT_ENDPOINT);
	handle_from_environment(o);
	return o;
}

void
omerta_free(struct omerta *o)
{
	if (o == NULL) {
		return;
	}
	OM_ASSERT(o->magic == OMERTA_MAGIC);
	if (o->pid == getpid()) { /* a child after fork has no right to the parent's sockets */
		om_client_close(o);
		while (o->done_first != OM_CLIENT_NO_SLOT) {
			om_client_slot_release(o, &o->slots[o->done_first]);
		}
		if (o->zmq != NULL) {
			while (zmq_ctx_term(o->zmq) != 0 && errno == EINTR) {
			}
		}
	}
	om_client_clear(o);
	om_secret_wipe(&o->keys, sizeof(o->keys));
	o->magic = 0;
	free(o);
}
