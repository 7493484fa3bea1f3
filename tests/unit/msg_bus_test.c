/* SPDX-License-Identifier: ISC */
/*
 * The bus, in simulation: one thread and a fake clock, so that time-outs, restarts and every order
 * of events can be played.  The same promises under real threads: msg_bus_threads_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mp.h"
#include "msg/bus.h"

#define SEEDS 20

/*
 * Two services.  "server" answers by what the question says; "client" is driven by a script: a
 * function that the test sets and that runs inside the client at its next kick.
 */
struct world {
	struct om_system *sys;
	struct om_bus *bus;
	struct om_actor_id client, server;
	struct om_service_arg client_arg, server_arg;

	void (*script)(struct om_service *sv, struct world *w);

	/* What the client saw. */
	unsigned answers;
	enum om_err last_err;
	enum om_msg_type last_type;
	uint64_t last_cookie, last_count;
	char last_text[600];
	uint64_t timers;

	/* What the server did. */
	unsigned served, batches, starts, stops;
	uint64_t order[64];
	struct om_bus_request put_off[8];
	unsigned put_off_count;
	struct om_caller caller;
	char from[64];
	bool on_stop_reply;
	enum om_err second_reply;
};

enum { MSG_KICK = 1 };

/* --- the server ------------------------------------------------------------------------------- */

struct server {
	struct world *w;
};

static enum om_err
server_start(struct om_service *sv, void *state, const void *arg)
{
	struct server *s = state;

	(void)sv;
	s->w = *(struct world *const *)arg;
	s->w->starts++;
	return OM_OK;
}

static void
server_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct server *s = state;

	(void)why;
	s->w->stops++;
	for (unsigned i = 0; s->w->on_stop_reply && i < s->w->put_off_count; i++) {
		om_service_reply_err_to(sv, &s->w->put_off[i], OM_ERR_CANCELLED, "by stop");
	}
	s->w->put_off_count = 0;
}

static enum om_err
server_on_ping(struct om_service *sv, void *state, const struct om_in *in)
{
	struct world *w = ((struct server *)state)->w;
	enum om_err err;

	w->served++;
	w->caller = *in->caller;
	(void)snprintf(w->from, sizeof(w->from), "%s", in->from);
	err = om_service_reply_ok(sv, in);
	w->second_reply = om_service_reply_ok(sv, in);
	return err;
}

/* The limit says what to do. */
static enum om_err
server_on_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_queue_limits *m = in->body;
	struct world *w = ((struct server *)state)->w;
	const struct om_count wrong = { .count = 1 };

	if (w->served < OM_COUNT(w->order)) {
		w->order[w->served] = m->max_jobs;
	}
	w->served++;
	switch (m->max_jobs) {
	case 1001:
		return OM_ERR_STATE;
	case 1002:
		return om_service_reply_err(sv, in, OM_ERR_REJECTED, "because of %s", "tests");
	case 1003:
		return OM_OK; /* forgets to answer */
	case 1004:
		w->put_off[w->put_off_count++] = om_service_later(sv, in);
		return OM_OK;
	case 1005:
		om_service_fail(sv, OM_ERR_INTERNAL);
		return OM_ERR_INTERNAL;
	case 1006:
		return om_service_reply(sv, in, OM_MSG_COUNTED, &wrong);
	case 1007:
		om_service_exit(sv);
		return om_service_reply_ok(sv, in);
	default:
		return in->wants_answer ? om_service_reply_ok(sv, in) : OM_OK;
	}
}

static enum om_err
server_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	/* The answer carries what the caller may be told: here, who it is. */
	struct om_str peer = om_str_of(in->caller->peer);
	struct om_string_list list = { .values = { &peer, 1 } };

	((struct server *)state)->w->served++;
	return om_service_reply(sv, in, OM_MSG_STRING_LIST, &list);
}

static void
server_batch_end(struct om_service *sv, void *state)
{
	(void)sv;
	((struct server *)state)->w->batches++;
}

static const struct om_service_handler server_on[] = {
	{ OM_MSG_PING, server_on_ping },
	{ OM_MSG_QUEUE_LIMITS, server_on_limits },
	{ OM_MSG_CONFIG_TRUSTED, server_on_list },
	{ OM_MSG_EXEC_DRAIN, server_on_ping },
};

static const struct om_service_def server_def = {
	.name = "server",
	.state_size = sizeof(struct server),
	.start = server_start,
	.stop = server_stop,
	.on = server_on,
	.on_count = OM_COUNT(server_on),
	.on_batch_end = server_batch_end,
	.backlog = 8,
};

/* --- the client ------------------------------------------------------------------------------- */

struct client {
	struct world *w;
};

static enum om_err
client_start(struct om_service *sv, void *state, const void *arg)
{
	(void)sv;
	((struct client *)state)->w = *(struct world *const *)arg;
	return OM_OK;
}

static enum om_err
client_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct client *c = state;

	if (msg->type == OM_SYS_TIMER) {
		c->w->timers++;
		return OM_OK;
	}
	assert_int_equal(msg->type, MSG_KICK);
	c->w->script(sv, c->w);
	return OM_OK;
}

static void
client_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *a)
{
	struct world *w = ((struct client *)state)->w;

	(void)sv;
	w->answers++;
	w->last_err = a->err;
	w->last_type = a->type;
	w->last_cookie = a->cookie;
	(void)snprintf(w->last_text, sizeof(w->last_text), "%s", a->text);
	if (a->err == OM_OK && a->type == OM_MSG_STRING_LIST) {
		const struct om_string_list *list = a->body;

		w->last_count = list->values.n;
		(void)snprintf(w->last_text, sizeof(w->last_text), "%.*s",
			       OM_STR_ARG(list->values.v[0]));
	}
}

static const struct om_service_def client_def = {
	.name = "client",
	.state_size = sizeof(struct client),
	.start = client_start,
	.on_msg = client_on_msg,
};

/* --- the world -------------------------------------------------------------------------------- */

static struct world *
world_new(uint64_t seed, bool with_server)
{
	const struct om_system_conf conf = { .sim = true, .seed = seed };
	struct world *w = calloc(1, sizeof(*w));
	static struct world *self;

	assert_non_null(w);
	self = w;
	assert_int_equal(om_system_new(&conf, &w->sys), OM_OK);
	assert_int_equal(om_bus_new(w->sys, &w->bus, NULL), OM_OK);
	w->server_arg = (struct om_service_arg){ w->bus, &server_def, &self };
	w->client_arg = (struct om_service_arg){ w->bus, &client_def, &self };
	if (with_server) {
		assert_int_equal(om_service_spawn(w->bus, &w->server_arg, &w->server), OM_OK);
	}
	assert_int_equal(om_service_spawn(w->bus, &w->client_arg, &w->client), OM_OK);
	(void)om_sim_run(w->sys);
	return w;
}

static void
world_free(struct world *w)
{
	assert_int_equal(om_system_stop(w->sys, 1000, NULL, 0), 0);
	om_bus_free(w->bus);
	om_system_free(w->sys);
	free(w);
}

/* Runs the script inside the client; does not wait for what follows. */
static void
kick(struct world *w, void (*script)(struct om_service *, struct world *))
{
	struct om_msg *msg = om_system_msg_new(w->sys, MSG_KICK, 0);

	w->script = script;
	assert_int_equal(om_system_send(w->sys, w->client, &msg), OM_OK);
}

static void
play(struct world *w, void (*script)(struct om_service *, struct world *))
{
	kick(w, script);
	(void)om_sim_run(w->sys);
}

static enum om_err
ask_limits(struct om_service *sv, uint64_t what, uint64_t cookie)
{
	const struct om_queue_limits body = { .max_jobs = what };

	return om_service_ask(sv, "server", OM_MSG_QUEUE_LIMITS, &body, NULL, 1000,
			      client_on_answer, cookie);
}

static struct om_bus_stats
stats_of(struct world *w, const char *name)
{
	struct om_bus_stats all[OM_SERVICE_MAX];
	size_t n = om_bus_stats(w->bus, all, OM_COUNT(all));

	for (size_t i = 0; i < n; i++) {
		if (strcmp(all[i].name, name) == 0) {
			return all[i];
		}
	}
	fail();
	return all[0];
}

/* --- asks and answers ------------------------------------------------------------------------- */

static void
script_ping(struct om_service *sv, struct world *w)
{
	const struct om_empty empty = { 0 };

	(void)w;
	assert_int_equal(
	    om_service_ask(sv, "server", OM_MSG_PING, &empty, NULL, 1000, client_on_answer, 77),
	    OM_OK);
}

static void
test_ask_and_answer(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_new(seed, true);

		play(w, script_ping);
		assert_int_equal(w->answers, 1);
		assert_int_equal(w->last_err, OM_OK);
		assert_int_equal(w->last_type, OM_MSG_OK);
		assert_int_equal(w->last_cookie, 77);
		assert_int_equal(w->served, 1);
		assert_int_equal(w->second_reply, OM_ERR_STATE);
		assert_int_equal(w->caller.role, OM_ROLE_ACTOR);
		assert_string_equal(w->caller.peer, "");
		assert_string_equal(w->from, "client");
		om_sim_advance(w->sys, 5000); /* the time-out was cancelled */
		assert_int_equal(w->answers, 1);
		assert_int_equal(stats_of(w, "client").waiting, 0);
		world_free(w);
	}
}

static void
script_as_peer(struct om_service *sv, struct world *w)
{
	const struct om_caller as = { OM_ROLE_REQUESTER, "alice", "home" };
	const struct om_empty empty = { 0 };

	(void)w;
	assert_int_equal(om_service_ask(sv, "server", OM_MSG_CONFIG_TRUSTED, &empty, &as, 1000,
					client_on_answer, 0),
			 OM_OK);
	assert_int_equal(
	    om_service_ask(sv, "server", OM_MSG_PING, &empty, &as, 1000, client_on_answer, 0),
	    OM_OK);
}

static void
test_the_caller_travels(void **state)
{
	struct world *w = world_new(1, true);

	(void)state;
	play(w, script_as_peer);
	assert_int_equal(w->answers, 2);
	assert_int_equal(w->caller.role, OM_ROLE_REQUESTER);
	assert_string_equal(w->caller.peer, "alice");
	assert_string_equal(w->caller.network, "home");
	world_free(w);
}

static void
script_each_error(struct om_service *sv, struct world *w)
{
	assert_int_equal(ask_limits(sv, w->last_count, w->last_count), OM_OK);
}

static void
test_every_request_has_one_answer(void **state)
{
	static const struct {
		uint64_t what;
		enum om_err err;
		const char *text;
	} cases[] = {
		{ 5, OM_OK, "" },
		{ 1001, OM_ERR_STATE, "not possible in the present state" },
		{ 1002, OM_ERR_REJECTED, "because of tests" },
		{ 1003, OM_ERR_INTERNAL, "an internal error; the log has more" },
		{ 1006, OM_ERR_INTERNAL, "an answer of a wrong type" },
		/* Over the schema's limit: the receiver's decoder refuses it, by name. */
		{ 10001, OM_ERR_INVALID, "max_jobs: 10001 is over 10000" },
	};
	struct world *w = world_new(1, true);

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		w->answers = 0;
		w->last_count = cases[i].what;
		play(w, script_each_error);
		assert_int_equal(w->answers, 1);
		assert_int_equal(w->last_err, cases[i].err);
		assert_string_equal(w->last_text, cases[i].text);
		assert_int_equal(w->last_cookie, cases[i].what);
	}
	assert_int_equal(stats_of(w, "server").unanswered, 1);
	assert_int_equal(stats_of(w, "server").bad, 1);
	world_free(w);
}

static void
script_refused_at_once(struct om_service *sv, struct world *w)
{
	const struct om_exec_done done = { .job = OM_STR("j"), .state = OM_STR("s") };
	const struct om_empty empty = { 0 };

	(void)w;
	assert_int_equal(
	    om_service_ask(sv, "nobody", OM_MSG_PING, &empty, NULL, 1000, client_on_answer, 0),
	    OM_ERR_NOT_FOUND);
	assert_int_equal(om_service_send(sv, "nobody", OM_MSG_PING, &empty), OM_ERR_NOT_FOUND);
	/* The schema says that nobody answers it; and an ask without an end is none. */
	assert_int_equal(
	    om_service_ask(sv, "server", OM_MSG_EXEC_DONE, &done, NULL, 1000, client_on_answer, 0),
	    OM_ERR_INVALID);
	assert_int_equal(
	    om_service_ask(sv, "server", OM_MSG_PING, &empty, NULL, 0, client_on_answer, 0),
	    OM_ERR_INVALID);
	/* Known to the schema, not to this service. */
	assert_int_equal(om_service_ask(sv, "server", OM_MSG_QUEUE_RESUME, &empty, NULL, 1000,
					client_on_answer, 0),
			 OM_OK);
}

static void
test_wrong_questions(void **state)
{
	struct world *w = world_new(1, true);

	(void)state;
	play(w, script_refused_at_once);
	assert_int_equal(w->answers, 1);
	assert_int_equal(w->last_err, OM_ERR_UNKNOWN_TYPE);
	assert_string_equal(w->last_text, "server does not take queue.resume");
	world_free(w);
}

/* --- from outside ----------------------------------------------------------------------------- */

static void
ask_raw(struct om_service *sv, enum om_msg_type type, const char *body, size_t len,
	enum om_role role)
{
	const struct om_caller as = { .role = role, .peer = "eve" };

	assert_int_equal(om_service_ask_raw(sv, "server", type,
					    (struct om_bin){ (const uint8_t *)body, len }, &as,
					    1000, client_on_answer, type),
			 OM_OK);
}

static void
script_raw(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_PING, "\x80", 1, OM_ROLE_REQUESTER);
}

static void
script_raw_operator_only(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_QUEUE_LIMITS, "\x81\xa8max_jobs\x05", 11, OM_ROLE_REQUESTER);
}

static void
script_raw_operator(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_QUEUE_LIMITS, "\x81\xa8max_jobs\x05", 11, OM_ROLE_OPERATOR);
}

static void
script_raw_inner(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_EXEC_DRAIN, "\x80", 1, OM_ROLE_OPERATOR);
}

static void
script_raw_damaged(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_PING, "\x81\xa1", 2, OM_ROLE_REQUESTER);
}

static void
script_raw_trailing(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_PING, "\x80\x80", 2, OM_ROLE_REQUESTER);
}

static void
test_permission_comes_first(void **state)
{
	static const struct {
		void (*script)(struct om_service *, struct world *);
		enum om_err err;
		unsigned served;
	} cases[] = {
		{ script_raw, OM_OK, 1 },
		{ script_raw_operator_only, OM_ERR_DENIED, 0 },
		{ script_raw_operator, OM_OK, 1 },
		{ script_raw_inner, OM_ERR_DENIED, 0 }, /* not even the operator */
		{ script_raw_damaged, OM_ERR_INVALID, 0 },
		{ script_raw_trailing, OM_ERR_INVALID, 0 },
	};
	struct world *w = world_new(1, true);

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		w->answers = 0;
		w->served = 0;
		play(w, cases[i].script);
		assert_int_equal(w->answers, 1);
		assert_int_equal(w->last_err, cases[i].err);
		assert_int_equal(w->served, cases[i].served);
	}
	world_free(w);
}

/* --- plain sends ------------------------------------------------------------------------------ */

static void
script_sends(struct om_service *sv, struct world *w)
{
	(void)w;
	for (uint64_t i = 0; i < 8; i++) {
		const struct om_queue_limits body = { .max_jobs = i };

		assert_int_equal(om_service_send(sv, "server", OM_MSG_QUEUE_LIMITS, &body), OM_OK);
	}
}

static void
test_sends_arrive_in_order_and_once(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_new(seed, true);

		play(w, script_sends);
		assert_int_equal(w->served, 8);
		for (uint64_t i = 0; i < 8; i++) {
			assert_int_equal(w->order[i], i);
		}
		assert_true(w->batches >= 1 && w->batches <= 8);
		assert_int_equal(w->answers, 0);
		world_free(w);
	}
}

static void
script_too_many(struct om_service *sv, struct world *w)
{
	const struct om_queue_limits body = { .max_jobs = 1 };

	script_sends(sv, w);
	assert_int_equal(om_service_send(sv, "server", OM_MSG_QUEUE_LIMITS, &body), OM_ERR_FULL);
	assert_int_equal(ask_limits(sv, 1, 0), OM_ERR_FULL);
}

static void
test_backlog_is_bounded_and_recovers(void **state)
{
	struct world *w = world_new(1, true);

	(void)state;
	play(w, script_too_many);
	assert_int_equal(w->served, 8);
	assert_int_equal(stats_of(w, "client").refused, 2);
	assert_int_equal(w->answers, 0);
	w->served = 0;
	play(w, script_sends);
	assert_int_equal(w->served, 8);
	om_sim_advance(w->sys, 5000); /* the refused ask left no timer */
	assert_int_equal(w->answers, 0);
	world_free(w);
}

/* --- time ------------------------------------------------------------------------------------- */

static void
script_put_off(struct om_service *sv, struct world *w)
{
	(void)w;
	assert_int_equal(ask_limits(sv, 1004, 9), OM_OK);
}

static void
test_timeout_then_late_answer(void **state)
{
	struct world *w = world_new(1, true);

	(void)state;
	play(w, script_put_off);
	assert_int_equal(w->answers, 0);
	om_sim_advance(w->sys, 999);
	assert_int_equal(w->answers, 0);
	om_sim_advance(w->sys, 2);
	assert_int_equal(w->answers, 1);
	assert_int_equal(w->last_err, OM_ERR_TIMEOUT);
	assert_int_equal(w->last_cookie, 9);
	/* The server's stop answers what it put off: too late, and not a second end of the ask. */
	om_system_stop_actor(w->sys, w->server);
	(void)om_sim_run(w->sys);
	assert_int_equal(w->answers, 1);
	assert_int_equal(stats_of(w, "client").late, 1);
	assert_int_equal(stats_of(w, "client").asks_failed, 1);
	world_free(w);
}

static void
script_own_timer(struct om_service *sv, struct world *w)
{
	/* Cookies that look like the numbers of asks: the bus must not take the service's timers. */
	for (uint64_t i = 0; i < 4; i++) {
		uint64_t timer;

		assert_int_equal(ask_limits(sv, 1004, i), OM_OK);
		assert_int_equal(
		    om_timer_start(om_service_cx(sv), 10, 0, (i + 1) << 20 | i, &timer), OM_OK);
	}
	(void)w;
}

static void
test_a_services_own_timers_are_its_own(void **state)
{
	struct world *w = world_new(1, true);

	(void)state;
	play(w, script_own_timer);
	om_sim_advance(w->sys, 20);
	assert_int_equal(w->timers, 4);
	assert_int_equal(w->answers, 0);
	om_sim_advance(w->sys, 1000);
	assert_int_equal(w->answers, 4);
	assert_int_equal(w->timers, 4);
	world_free(w);
}

/* --- ends and restarts ------------------------------------------------------------------------ */

static void
test_stop_answers_what_was_put_off(void **state)
{
	(void)state;
	for (int by_stop = 0; by_stop < 2; by_stop++) {
		struct world *w = world_new(1, true);

		w->on_stop_reply = by_stop;
		play(w, script_put_off);
		assert_int_equal(w->put_off_count, 1);
		om_system_stop_actor(w->sys, w->server);
		(void)om_sim_run(w->sys);
		assert_int_equal(w->answers, 1);
		assert_int_equal(w->last_err, by_stop ? OM_ERR_CANCELLED : OM_ERR_SHUTDOWN);
		world_free(w);
	}
}

static void
script_kill_question(struct om_service *sv, struct world *w)
{
	script_put_off(sv, w);
	assert_int_equal(ask_limits(sv, 1007, 1), OM_OK); /* ends the server */
	assert_int_equal(ask_limits(sv, 5, 2), OM_OK); /* nobody takes this one */
}

static void
script_ask_gone(struct om_service *sv, struct world *w)
{
	(void)w;
	assert_int_equal(ask_limits(sv, 5, 3), OM_ERR_GONE);
}

static void
test_end_of_a_peer_ends_its_asks(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_new(seed, true);

		play(w, script_kill_question);
		assert_int_equal(w->served, 2);
		assert_int_equal(w->answers, 3);
		assert_int_equal(w->stops, 1);
		play(w, script_ask_gone);
		assert_int_equal(w->answers, 3);
		/* A new actor of the name takes over, and finds what lay in the socket. */
		assert_int_equal(om_service_spawn(w->bus, &w->server_arg, &w->server), OM_OK);
		(void)om_sim_run(w->sys);
		assert_int_equal(w->served, 3);
		assert_int_equal(w->answers, 3);
		play(w, script_ping);
		assert_int_equal(w->answers, 4);
		assert_int_equal(w->last_err, OM_OK);
		world_free(w);
	}
}

static void
test_before_the_peer_has_started(void **state)
{
	struct world *w = world_new(1, false);

	(void)state;
	assert_non_null(om_service_actor(w->bus, &server_def));
	play(w, script_ask_gone);
	assert_int_equal(om_service_spawn(w->bus, &w->server_arg, &w->server), OM_OK);
	play(w, script_ping);
	assert_int_equal(w->answers, 1);
	assert_int_equal(w->last_err, OM_OK);
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ask_and_answer),
		cmocka_unit_test(test_the_caller_travels),
		cmocka_unit_test(test_every_request_has_one_answer),
		cmocka_unit_test(test_wrong_questions),
		cmocka_unit_test(test_permission_comes_first),
		cmocka_unit_test(test_sends_arrive_in_order_and_once),
		cmocka_unit_test(test_backlog_is_bounded_and_recovers),
		cmocka_unit_test(test_timeout_then_late_answer),
		cmocka_unit_test(test_a_services_own_timers_are_its_own),
		cmocka_unit_test(test_stop_answers_what_was_put_off),
		cmocka_unit_test(test_end_of_a_peer_ends_its_asks),
		cmocka_unit_test(test_before_the_peer_has_started),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
