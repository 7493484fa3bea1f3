/* SPDX-License-Identifier: ISC */
/*
 * No memory for the bus (tests/unit/nomem.h): services, their sockets, watches, asks, stop, restart.
 * Whatever fails: the call says so, an ask that was accepted ends once, each frame that was sent is
 * taken, what a turn could not send at its end is counted, nothing hangs and nothing is leaked.
 *
 * What fails are the allocations of our own code and the calls of libzmq that may say that there is
 * no memory or no socket.  Inside libzmq a failed allocation ends the process: those do not fail here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "msg/bus.h"
#include "runtime/supervisor.h"
#include "tests/unit/nomem.h"

#define ASKS_MAX 256
#define MSG_KICK 1
#define WAIT_MS  1000 /* of an ask; some wait less */

/* --- libzmq's doors --------------------------------------------------------------------------------- */

void *__real_zmq_ctx_new(void);
int __real_zmq_ctx_term(void *zmq);
void *__real_zmq_socket(void *zmq, int type);
int __real_zmq_close(void *socket);
int __real_zmq_bind(void *socket, const char *endpoint);
int __real_zmq_connect(void *socket, const char *endpoint);
int __real_zmq_msg_init_size(zmq_msg_t *msg, size_t size);
int __real_zmq_msg_init_data(zmq_msg_t *msg, void *data, size_t size, zmq_free_fn *fn, void *hint);

void *__wrap_zmq_ctx_new(void);
int __wrap_zmq_ctx_term(void *zmq);
void *__wrap_zmq_socket(void *zmq, int type);
int __wrap_zmq_close(void *socket);
int __wrap_zmq_bind(void *socket, const char *endpoint);
int __wrap_zmq_connect(void *socket, const char *endpoint);
int __wrap_zmq_msg_init_size(zmq_msg_t *msg, size_t size);
int __wrap_zmq_msg_init_data(zmq_msg_t *msg, void *data, size_t size, zmq_free_fn *fn, void *hint);

static bool
zmq_fails(int why)
{
	if (mem_fails()) {
		errno = why;
		return true;
	}
	return false;
}

void *
__wrap_zmq_ctx_new(void)
{
	return zmq_fails(EMFILE) ? NULL : mem_given(__real_zmq_ctx_new());
}

int
__wrap_zmq_ctx_term(void *zmq)
{
	mem_taken();
	return __real_zmq_ctx_term(zmq);
}

void *
__wrap_zmq_socket(void *zmq, int type)
{
	return zmq_fails(EMFILE) ? NULL : mem_given(__real_zmq_socket(zmq, type));
}

int
__wrap_zmq_close(void *socket)
{
	mem_taken();
	return __real_zmq_close(socket);
}

int
__wrap_zmq_bind(void *socket, const char *endpoint)
{
	return zmq_fails(EMTHREAD) ? -1 : __real_zmq_bind(socket, endpoint);
}

int
__wrap_zmq_connect(void *socket, const char *endpoint)
{
	return zmq_fails(EMTHREAD) ? -1 : __real_zmq_connect(socket, endpoint);
}

int
__wrap_zmq_msg_init_size(zmq_msg_t *msg, size_t size)
{
	return zmq_fails(ENOMEM) ? -1 : __real_zmq_msg_init_size(msg, size);
}

int
__wrap_zmq_msg_init_data(zmq_msg_t *msg, void *data, size_t size, zmq_free_fn *fn, void *hint)
{
	return zmq_fails(ENOMEM) ? -1 : __real_zmq_msg_init_data(msg, data, size, fn, hint);
}

/* --- what is written down ---------------------------------------------------------------------------- */

static struct {
	struct om_system *sys;
	struct om_bus *bus;
	struct om_actor_id client, server;
	void (*script)(struct om_service *sv);
	unsigned asks, answers, sends, timers_started, timers, starts, stops;
	bool ended[ASKS_MAX]; /* by cookie */
} w;

static uint64_t frames_lost; /* in all stories */

/* --- a server that answers in each way ---------------------------------------------------------------- */

enum { ASK_OK, ASK_ERR, ASK_TEXT, ASK_FORGET, ASK_LATER, ASK_NEVER, ASK_KINDS, ASK_FAIL = 1000 };

struct server {
	struct om_bus_request later[ASKS_MAX];
	unsigned later_count;
};

static enum om_err
server_start(struct om_service *sv, void *state, const void *arg)
{
	(void)sv;
	(void)state;
	(void)arg;
	w.starts++;
	return OM_OK;
}

static void
server_stop(struct om_service *sv, void *state, enum om_err why)
{
	(void)sv;
	(void)state;
	(void)why;
	w.stops++;
}

static enum om_err
server_on_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_queue_limits *m = in->body;
	struct server *s = state;

	switch (m->max_jobs) {
	case ASK_ERR:
		return OM_ERR_STATE;
	case ASK_TEXT:
		return om_service_reply_err(sv, in, OM_ERR_REJECTED, "because of tests");
	case ASK_FORGET:
		return OM_OK;
	case ASK_LATER:
		s->later[s->later_count++] = om_service_later(sv, in);
		return OM_OK;
	case ASK_NEVER:
		(void)om_service_later(sv, in);
		return OM_OK;
	case ASK_FAIL:
		om_service_fail(sv, OM_ERR_INTERNAL);
		return OM_ERR_INTERNAL;
	default:
		return in->wants_answer ? om_service_reply_ok(sv, in) : OM_OK;
	}
}

/* An answer that gives its buffer away. */
static enum om_err
server_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	static char text[1000];
	struct om_str many[100];

	(void)state;
	memset(text, 'x', sizeof(text));
	for (size_t i = 0; i < OM_COUNT(many); i++) {
		many[i] = (struct om_str){ text, sizeof(text) };
	}
	return om_service_reply(sv, in, OM_MSG_STRING_LIST,
				&(struct om_string_list){ .values = { many, OM_COUNT(many) } });
}

static void
server_batch_end(struct om_service *sv, void *state)
{
	const struct om_empty empty = { 0 };
	struct server *s = state;

	while (s->later_count > 0) {
		om_service_reply_to(sv, &s->later[--s->later_count], OM_MSG_OK, &empty);
	}
}

static const struct om_service_handler server_on[] = {
	{ OM_MSG_QUEUE_LIMITS, server_on_limits },
	{ OM_MSG_CONFIG_TRUSTED, server_on_list },
};

#define SERVER_DEF                                                                    \
	.name = "server", .state_size = sizeof(struct server), .start = server_start, \
	.stop = server_stop, .on = server_on, .on_count = OM_COUNT(server_on),        \
	.on_batch_end = server_batch_end

static const struct om_service_def server_def = { SERVER_DEF };
static const struct om_service_def server_detached_def = { SERVER_DEF, .detached = true };

/* --- a client that runs scripts ----------------------------------------------------------------------- */

static enum om_err
client_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	(void)state;
	if (msg->type == OM_SYS_TIMER) {
		w.timers++;
	} else {
		w.script(sv);
	}
	return OM_OK;
}

static const struct om_service_def client_def = { .name = "client", .on_msg = client_on_msg };

/* GONE, NOT_FOUND: the server has ended, or was never there, for want of memory. */
static bool
call_went_well(enum om_err err)
{
	if (mem.hit && (err == OM_ERR_GONE || err == OM_ERR_NOT_FOUND)) {
		return false;
	}
	return went_well(err);
}

static void
on_answer(struct om_service *sv, void *state, const struct om_bus_answer *a)
{
	(void)sv;
	(void)state;
	assert_true(a->cookie < ASKS_MAX);
	assert_false(w.ended[a->cookie]);
	w.ended[a->cookie] = true;
	w.answers++;
	if (!mem.hit && a->type == OM_MSG_STRING_LIST && a->body == NULL) { /* asked for raw */
		assert_true(a->raw.len > 100);
	} else if (!mem.hit && a->type == OM_MSG_STRING_LIST) {
		assert_int_equal(((const struct om_string_list *)a->body)->values.n, 100);
	}
}

static void
ask(struct om_service *sv, uint64_t what, uint64_t timeout_ms)
{
	const struct om_queue_limits body = { .max_jobs = what };

	w.asks += call_went_well(om_service_ask(sv, "server", OM_MSG_QUEUE_LIMITS, &body, NULL,
						timeout_ms, on_answer, w.asks));
}

/* More asks than a table's first size, each with an earlier end than the one before. */
static void
script_all(struct om_service *sv)
{
	const struct om_caller as = { OM_ROLE_OPERATOR, "alice", "home" };
	const struct om_empty empty = { 0 };
	const uint8_t raw[] = { 0x80 };
	const struct om_queue_limits limits = { .max_jobs = ASK_OK };

	w.asks += call_went_well(om_service_ask(sv, "server", OM_MSG_CONFIG_TRUSTED, &empty, &as,
						WAIT_MS, on_answer, w.asks));
	w.asks += call_went_well(om_service_ask_raw(sv, "server", OM_MSG_CONFIG_TRUSTED,
						    (struct om_bin){ raw, sizeof(raw) }, &as,
						    WAIT_MS, on_answer, w.asks));
	w.sends += call_went_well(om_service_send(sv, "server", OM_MSG_QUEUE_LIMITS, &limits));
	w.timers_started += went_well(om_timer_start(om_service_cx(sv), 10, 0, 1, NULL));
	for (unsigned i = 0; i < 4 * ASK_KINDS; i++) {
		ask(sv, i % ASK_KINDS, WAIT_MS - 10 * i);
	}
}

/* What is behind the failure is for the next life. */
static void
script_fail(struct om_service *sv)
{
	ask(sv, ASK_NEVER, WAIT_MS);
	ask(sv, ASK_FAIL, WAIT_MS);
	ask(sv, ASK_OK, WAIT_MS);
	ask(sv, ASK_LATER, WAIT_MS);
}

/* Sends the script to the client; false: there was no memory for it, or the client has ended. */
static bool
kick(void (*script)(struct om_service *sv))
{
	struct om_msg *msg = om_system_msg_new(w.sys, MSG_KICK, 0);
	enum om_err err;

	w.script = script;
	if (msg == NULL) {
		assert_true(mem.hit);
		return false;
	}
	err = om_system_send(w.sys, w.client, &msg);
	assert_true(err == OM_OK || mem.hit);
	om_msg_free(NULL, msg);
	return err == OM_OK;
}

/* --- the frame of the stories -------------------------------------------------------------------------- */

static struct om_bus_stats
stats_of(const char *name)
{
	struct om_bus_stats all[OM_SERVICE_MAX];
	size_t n = om_bus_stats(w.bus, all, OM_COUNT(all));

	for (size_t i = 0; i < n; i++) {
		if (strcmp(all[i].name, name) == 0) {
			return all[i];
		}
	}
	return (struct om_bus_stats){ .name = name };
}

/* Each frame was taken, or lies in the socket of a service that has ended. */
static void
check_frames(void)
{
	struct om_bus_stats client = stats_of("client"), server = stats_of("server");

	assert_int_equal(w.answers, w.asks);
	assert_int_equal(client.asks, w.asks);
	assert_int_equal(client.sent + client.lost, w.asks + w.sends);
	assert_int_equal(client.sent, server.handled + server.bad + server.waiting);
	assert_int_equal(server.sent,
			 w.answers - client.asks_failed + client.late + client.waiting);
	frames_lost += client.lost + server.lost;
	if (w.starts > w.stops) {
		assert_int_equal(server.waiting, 0);
	}
}

/* The system itself is runtime_nomem_test's: its allocations do not fail. */
static bool
world_begin(const struct om_system_conf *conf)
{
	unsigned left = mem.left;
	enum om_err err;

	mem.left = 0;
	memset(&w, 0, sizeof(w));
	assert_int_equal(om_system_new(conf, &w.sys), OM_OK);
	mem.left = left;
	err = om_bus_new(w.sys, &w.bus, NULL);
	if (!went_well(err)) {
		assert_null(w.bus);
		assert_int_equal(om_system_stop(w.sys, 1000, NULL, 0), 0);
		om_system_free(w.sys);
	}
	return err == OM_OK;
}

static void
world_end(void)
{
	struct om_system_stats st;

	assert_int_equal(om_system_stop(w.sys, 10000, NULL, 0), 0);
	om_system_stats(w.sys, &st);
	assert_int_equal(st.actors_live, 0);
	assert_int_equal(st.sent, st.handled + st.dropped_full + st.dropped_stale +
				      st.dropped_stop + st.dropped_unknown);
	assert_int_equal(w.starts, w.stops);
	om_bus_free(w.bus);
	om_system_free(w.sys);
}

/* --- stories ------------------------------------------------------------------------------------------- */

static const struct om_system_conf conf_sim = { .sim = true, .seed = 7, .actor_max = 1024 };

static void
story_asks(void)
{
	struct om_service_arg client_arg, server_arg;

	if (!world_begin(&conf_sim)) {
		return;
	}
	client_arg = (struct om_service_arg){ w.bus, &client_def, NULL };
	server_arg = (struct om_service_arg){ w.bus, &server_def, NULL };
	if (went_well(om_service_spawn(w.bus, &server_arg, &w.server)) &&
	    went_well(om_service_spawn(w.bus, &client_arg, &w.client))) {
		(void)om_sim_run(w.sys);
		for (unsigned i = 0; i < 2; i++) {
			(void)kick(script_all);
			(void)om_sim_run(w.sys);
			om_sim_advance(w.sys, 3 * WAIT_MS);
			check_frames();
			assert_int_equal(w.timers, w.timers_started);
		}
		/* The answers of its stop, and the asks that they end. */
		(void)kick(script_all);
		(void)om_sim_run(w.sys);
		om_system_stop_actor(w.sys, w.server);
		om_sim_advance(w.sys, 3 * WAIT_MS);
		check_frames();
	}
	world_end();
	if (!mem.hit) {
		assert_int_equal(w.asks, 3 * (4 * ASK_KINDS + 2));
		assert_int_equal(w.sends, 3);
	}
}

static void
test_asks_of_each_kind(void **state)
{
	(void)state;
	each_failure(story_asks, 40);
	assert_true(frames_lost > 0);
}

static void
story_restart(void)
{
	struct om_service_arg client_arg, server_arg;
	struct om_child_spec child = { .restart = OM_RESTART_ALWAYS };
	const struct om_supervisor_spec spec = {
		.name = "supervisor",
		.strategy = OM_ONE_FOR_ONE,
		.max_restarts = 5,
		.window_ms = 60000,
		.backoff_min_ms = 10,
		.backoff_max_ms = 100,
		.children = &child,
		.child_count = 1,
	};
	struct om_actor_id supervisor;
	enum om_err err = OM_ERR_NOMEM;

	if (!world_begin(&conf_sim)) {
		return;
	}
	client_arg = (struct om_service_arg){ w.bus, &client_def, NULL };
	server_arg = (struct om_service_arg){ w.bus, &server_def, NULL };
	child.arg = &server_arg;
	child.def = om_service_actor(w.bus, &server_def);
	if (child.def != NULL) {
		err = om_supervisor_start(w.sys, &spec, &supervisor);
	}
	assert_true(err == OM_OK || mem.hit);
	if (err == OM_OK && went_well(om_service_spawn(w.bus, &client_arg, &w.client))) {
		for (unsigned i = 0; i < 2; i++) {
			(void)kick(script_fail);
			om_sim_advance(w.sys, 500); /* it starts again before the asks end */
			assert_true(w.starts == w.stops + 1 || mem.hit);
			(void)kick(script_all);
			om_sim_advance(w.sys, 3 * WAIT_MS);
			check_frames();
		}
	}
	world_end();
	if (!mem.hit) {
		assert_int_equal(w.starts, 3);
		assert_int_equal(w.asks, 2 * (4 + 4 * ASK_KINDS + 2));
	}
}

static void
test_restart(void **state)
{
	(void)state;
	each_failure(story_restart, 40);
}

/* On threads, and the server has its own. */
static void
on_last_answer(struct om_service *sv, void *state, const struct om_bus_answer *a)
{
	on_answer(sv, state, a);
	om_service_exit(sv);
}

static void
script_once(struct om_service *sv)
{
	const struct om_queue_limits body = { .max_jobs = ASK_OK };

	if (call_went_well(om_service_ask(sv, "server", OM_MSG_QUEUE_LIMITS, &body, NULL, WAIT_MS,
					  on_last_answer, 0))) {
		w.asks++;
	} else {
		om_service_exit(sv);
	}
}

/* Before that it cannot be asked: a message that it does not know is answered after its start. */
static bool
server_is_through_start(void)
{
	struct om_msg *msg = om_system_msg_new(w.sys, MSG_KICK, 0), *reply = NULL;
	enum om_err err;

	if (msg == NULL) {
		assert_true(mem.hit);
		return false;
	}
	err = om_system_ask(w.sys, w.server, &msg, 10000, &reply);
	assert_true(err == OM_ERR_UNKNOWN_TYPE || mem.hit);
	om_msg_free(NULL, msg);
	return err == OM_ERR_UNKNOWN_TYPE;
}

static void
story_detached(void)
{
	const struct om_system_conf conf = { .workers = 1, .actor_max = 1024 };
	struct om_service_arg client_arg, server_arg;

	if (!world_begin(&conf)) {
		return;
	}
	client_arg = (struct om_service_arg){ w.bus, &client_def, NULL };
	server_arg = (struct om_service_arg){ w.bus, &server_detached_def, NULL };
	if (went_well(om_service_spawn(w.bus, &server_arg, &w.server)) &&
	    went_well(om_service_spawn(w.bus, &client_arg, &w.client)) &&
	    server_is_through_start() && kick(script_once)) {
		assert_int_equal(om_system_wait(w.sys, w.client, 10000), OM_OK);
		assert_int_equal(w.answers, w.asks);
	}
	world_end();
	if (!mem.hit) {
		assert_int_equal(w.asks, 1);
	}
}

static void
test_a_detached_service(void **state)
{
	(void)state;
	each_failure(story_detached, 40);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asks_of_each_kind),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_a_detached_service),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
