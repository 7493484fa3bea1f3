/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_RUNTIME_HELP_H
#define OM_TESTS_RUNTIME_HELP_H

/*
 * Helpers for tests of the runtime.  A probe is an actor that writes down what it gets and runs
 * functions of the test in its own context.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "runtime/actor.h"
#include "runtime/mailbox.h"
#include "runtime/stats.h"
#include "runtime/supervisor.h"
#include "runtime/system.h"

#define T_CALL 1000 /* struct call: run it */
#define T_DATA 1 /* a u64 */

#define LOG_MAX 4096
struct probe_log { /* of the test; one writer: the probe */
	size_t count;
	uint32_t type[LOG_MAX];
	uint64_t value[LOG_MAX];
	struct om_actor_id from[LOG_MAX];
	unsigned starts, stops;
	enum om_err stop_why;
	enum om_err start_err; /* what start returns */
};

typedef void (*call_fn)(struct om_ctx *cx, void *arg);
struct call {
	call_fn fn;
	void *arg;
};

struct probe {
	struct probe_log *log;
};

static inline enum om_err
probe_start(struct om_ctx *cx, void *state, const void *arg)
{
	struct probe *p = state;

	(void)cx;
	p->log = (struct probe_log *)(uintptr_t)arg;
	if (p->log != NULL) {
		p->log->starts++;
		return p->log->start_err;
	}
	return OM_OK;
}

static inline void
probe_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	struct probe *p = state;

	(void)cx;
	if (p->log != NULL) {
		p->log->stops++;
		p->log->stop_why = why;
	}
}

static inline enum om_err
probe_on_any(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct probe *p = state;

	(void)cx;
	if (p->log != NULL && p->log->count < LOG_MAX) {
		size_t i = p->log->count++;

		p->log->type[i] = msg->type;
		p->log->value[i] = msg->size >= 8 ? om_msg_u64(msg) : 0;
		p->log->from[i] = msg->from;
	}
	return OM_OK;
}

static inline enum om_err
probe_on_call(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct call call = *(const struct call *)(const void *)msg->payload;

	(void)state;
	call.fn(cx, call.arg);
	return OM_OK;
}

static const struct om_handler probe_handlers[] = { { T_CALL, probe_on_call } };

#define PROBE_DEF(def_name)                                                           \
	.name = (def_name), .state_size = sizeof(struct probe), .start = probe_start, \
	.stop = probe_stop, .handlers = probe_handlers, .handler_count = 1,           \
	.otherwise = probe_on_any

static const struct om_actor_def probe_def __attribute__((unused)) = { PROBE_DEF("probe") };

static inline struct om_system *
sim_new(uint64_t seed)
{
	struct om_system_conf conf = { .sim = true, .seed = seed, .actor_max = 16384 };
	struct om_system *sys;

	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	return sys;
}

/* Ends the system and checks conservation: each message was handled or dropped for a reason. */
static inline void
sys_end(struct om_system *sys)
{
	struct om_system_stats st;

	(void)om_system_stop(sys, 10000, NULL, 0);
	om_system_stats(sys, &st);
	assert_int_equal(st.actors_live, 0);
	assert_int_equal(st.queued, 0);
	assert_int_equal(st.sent, st.handled + st.dropped_full + st.dropped_stale +
				      st.dropped_stop + st.dropped_unknown);
	om_system_free(sys);
}

static inline struct om_actor_id
spawn_probe(struct om_system *sys, const struct om_actor_def *def, struct probe_log *log)
{
	struct om_actor_id id;

	assert_int_equal(om_system_spawn(sys, def, log, &id), OM_OK);
	return id;
}

static inline void
post_call(struct om_system *sys, struct om_actor_id to, call_fn fn, void *arg)
{
	struct om_msg *msg = om_system_msg_new(sys, T_CALL, sizeof(struct call));

	assert_non_null(msg);
	*(struct call *)(void *)msg->payload = (struct call){ .fn = fn, .arg = arg };
	assert_int_equal(om_system_send(sys, to, &msg), OM_OK);
	assert_null(msg);
}

/* Sim: runs fn in the actor and everything that follows. */
static inline void
run_in(struct om_system *sys, struct om_actor_id who, call_fn fn, void *arg)
{
	post_call(sys, who, fn, arg);
	(void)om_sim_run(sys);
}

static inline enum om_err
post_u64(struct om_system *sys, struct om_actor_id to, uint32_t type, uint64_t value)
{
	struct om_msg *msg = om_system_msg_new(sys, type, sizeof(value));
	enum om_err err;

	assert_non_null(msg);
	*(uint64_t *)(void *)msg->payload = value;
	err = om_system_send(sys, to, &msg);
	om_msg_free(NULL, msg);
	return err;
}

#endif /* OM_TESTS_RUNTIME_HELP_H */
