/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_CLIENT_FAKE_H
#define OM_TESTS_CLIENT_FAKE_H

/*
 * A ROUTER in a thread that stands for the daemon.  The test gives the function that answers; it runs
 * in that thread.  `fake_stop` closes every connection, `fake_start` on the same fake binds again.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>
#include "base/assert.h"
#include "base/buf.h"
#include "client/client_impl.h"
#include "msg/codec.h"
#include "msg/envelope.h"

struct fake;

struct fake_request {
	struct fake *fake;
	zmq_msg_t from; /* whom to answer */
	struct om_envelope envelope;
	struct om_arena arena;
};

typedef void fake_fn(struct fake *f, struct fake_request *r);

struct fake {
	char dir[64];
	char endpoint[128];
	fake_fn *fn;
	_Atomic(void *) arg; /* a test may change it between two requests */
	const char *curve_secret; /* with a tcp endpoint */
	atomic_uint seen;

	void *zmq, *router, *stop_in, *stop_out;
	pthread_t thread;
};

static inline void
fake_send(struct fake_request *r, const void *data, size_t len)
{
	zmq_msg_t to;

	(void)zmq_msg_init(&to);
	(void)zmq_msg_copy(&to, &r->from);
	if (zmq_msg_send(&to, r->fake->router, ZMQ_SNDMORE) >= 0) {
		(void)zmq_send(r->fake->router, data, len, 0);
	}
	(void)zmq_msg_close(&to);
}

static inline void
fake_answer(struct fake_request *r, enum om_msg_type type, const void *body)
{
	struct om_buf buf = { 0 };
	enum om_err err = om_envelope_encode(type, r->envelope.id, 0, body, &buf);

	OM_ASSERT(err == OM_OK);
	fake_send(r, buf.data, buf.len);
	om_buf_fini(&buf);
}

static inline void
fake_ok(struct fake_request *r)
{
	struct om_empty empty = { 0 };

	fake_answer(r, OM_MSG_OK, &empty);
}

static inline void
fake_error(struct fake_request *r, enum om_err code, const char *text)
{
	struct om_buf buf = { 0 };
	enum om_err err = om_envelope_encode_error(r->envelope.id, code, text, &buf);

	OM_ASSERT(err == OM_OK);
	fake_send(r, buf.data, buf.len);
	om_buf_fini(&buf);
}

/* The request's body; what is not decodable is a bug of the client. */
static inline void
fake_body(struct fake_request *r, void *out)
{
	struct om_why why = { "" };
	enum om_err err = om_body_decode(om_msg_info(r->envelope.type)->body, r->envelope.body, out,
					 &r->arena, &why);

	if (err != OM_OK) {
		(void)fprintf(stderr, "fake: %s: %s\n", om_err_code(err), why.text);
	}
	OM_ASSERT(err == OM_OK);
}

static inline void
fake_serve(struct fake *f)
{
	struct fake_request r = { .fake = f };
	zmq_msg_t frame;

	(void)zmq_msg_init(&r.from);
	(void)zmq_msg_init(&frame);
	if (zmq_msg_recv(&r.from, f->router, 0) >= 0 && zmq_msg_recv(&frame, f->router, 0) >= 0) {
		struct om_bin data = { zmq_msg_data(&frame), zmq_msg_size(&frame) };

		OM_ASSERT(om_envelope_decode(data, &r.envelope, NULL) == OM_OK);
		(void)atomic_fetch_add(&f->seen, 1);
		f->fn(f, &r);
	}
	om_arena_fini(&r.arena);
	(void)zmq_msg_close(&frame);
	(void)zmq_msg_close(&r.from);
}

static inline void *
fake_main(void *arg)
{
	struct fake *f = arg;

	for (;;) {
		zmq_pollitem_t items[2] = { { f->router, 0, ZMQ_POLLIN, 0 },
					    { f->stop_out, 0, ZMQ_POLLIN, 0 } };

		if (zmq_poll(items, 2, -1) < 0) {
			continue;
		}
		if (items[1].revents != 0) {
			return NULL;
		}
		fake_serve(f);
	}
}

static inline void
fake_start(struct fake *f)
{
	int zero = 0, one = 1;
	size_t size = sizeof(f->endpoint);

	f->zmq = zmq_ctx_new();
	f->router = zmq_socket(f->zmq, ZMQ_ROUTER);
	f->stop_in = zmq_socket(f->zmq, ZMQ_PAIR);
	f->stop_out = zmq_socket(f->zmq, ZMQ_PAIR);
	OM_ASSERT(zmq_setsockopt(f->router, ZMQ_LINGER, &zero, sizeof(zero)) == 0);
	OM_ASSERT(zmq_setsockopt(f->router, ZMQ_SNDHWM, &zero, sizeof(zero)) == 0);
	OM_ASSERT(zmq_setsockopt(f->router, ZMQ_RCVHWM, &zero, sizeof(zero)) == 0);
	if (f->curve_secret != NULL) {
		OM_ASSERT(zmq_setsockopt(f->router, ZMQ_CURVE_SERVER, &one, sizeof(one)) == 0);
		OM_ASSERT(zmq_setsockopt(f->router, ZMQ_CURVE_SECRETKEY, f->curve_secret, 40) == 0);
	}
	OM_ASSERT(zmq_bind(f->router, f->endpoint) == 0);
	OM_ASSERT(zmq_getsockopt(f->router, ZMQ_LAST_ENDPOINT, f->endpoint, &size) == 0);
	OM_ASSERT(zmq_bind(f->stop_out, "inproc://stop") == 0);
	OM_ASSERT(zmq_connect(f->stop_in, "inproc://stop") == 0);
	OM_ASSERT(pthread_create(&f->thread, NULL, fake_main, f) == 0);
}

static inline void
fake_stop(struct fake *f)
{
	(void)zmq_send(f->stop_in, "", 0, 0);
	(void)pthread_join(f->thread, NULL);
	(void)zmq_close(f->router);
	(void)zmq_close(f->stop_in);
	(void)zmq_close(f->stop_out);
	(void)zmq_ctx_term(f->zmq);
}

/* A fake on a socket of its own in a fresh directory. */
static inline void
fake_new(struct fake *f, fake_fn *fn, void *arg)
{
	memset(f, 0, sizeof(*f));
	f->fn = fn;
	f->arg = arg;
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/omerta-test.XXXXXX");
	OM_ASSERT(mkdtemp(f->dir) != NULL);
	(void)snprintf(f->endpoint, sizeof(f->endpoint), "ipc://%s/s", f->dir);
	fake_start(f);
}

static inline void
fake_free(struct fake *f)
{
	char path[128];

	fake_stop(f);
	(void)snprintf(path, sizeof(path), "%s/s", f->dir);
	(void)unlink(path);
	(void)rmdir(f->dir);
}

/*
 * A thread: when the first request has come the daemon ends, and the next one starts; its functions
 * know it by `arg`, which is not NULL then.
 */
static inline void *
fake_restart(void *arg)
{
	struct fake *f = arg;

	while (atomic_load(&f->seen) == 0) {
		(void)sched_yield();
	}
	fake_stop(f);
	f->arg = f;
	fake_start(f);
	return NULL;
}

/* A client of the fake with a short time-out. */
static inline struct omerta *
fake_client(struct fake *f, int64_t timeout_ms)
{
	struct omerta *o = omerta_new();

	OM_ASSERT(o != NULL && omerta_set_endpoint(o, f->endpoint) == 0);
	OM_ASSERT(omerta_set_timeout(o, timeout_ms) == 0);
	return o;
}

#endif /* OM_TESTS_CLIENT_FAKE_H */
