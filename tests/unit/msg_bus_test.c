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

#include "tests/unit/msg_world.h"

/* --- asks and answers ------------------------------------------------------------------------- */

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

static void
script_raw_refused(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_QUEUE_LIMITS, "\x81\xa8max_jobs\xcd\x03\xea", 13, OM_ROLE_OPERATOR);
}

/* What goes on as it is: bytes in, bytes out; but an error is always one that can be read. */
static void
test_an_answer_to_raw_bytes_is_raw(void **state)
{
	struct world *w = world_new(1, true);

	(void)state;
	play(w, script_ping);
	assert_true(w->last_decoded);
	play(w, script_raw);
	assert_int_equal(w->last_err, OM_OK);
	assert_int_equal(w->last_type, OM_MSG_OK);
	assert_false(w->last_decoded);
	play(w, script_raw_refused);
	assert_int_equal(w->last_err, OM_ERR_REJECTED);
	assert_string_equal(w->last_text, "because of tests");
	assert_true(w->last_decoded);
	assert_int_equal(w->answers, 3);
	world_free(w);
}

static void
script_raw_handler(struct om_service *sv, struct world *w)
{
	(void)w;
	ask_raw(sv, OM_MSG_QUEUE_PAUSE, "\x81\xa1x\x01", 4, OM_ROLE_OPERATOR);
	ask_raw(sv, OM_MSG_QUEUE_PAUSE, "\x80", 1, OM_ROLE_REQUESTER);
}

/* Whether there are such fields is the handler's business; the permission is not. */
static void
test_a_handler_of_raw_bytes_gets_them(void **state)
{
	struct world *w = world_new(1, true);

	(void)state;
	play(w, script_raw_handler);
	assert_int_equal(w->answers, 2);
	assert_int_equal(w->served, 1);
	assert_int_equal(w->raw_len, 4);
	assert_int_equal(w->last_err, OM_ERR_DENIED);
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

/* --- frames that leave together ---------------------------------------------------------------- */

static void
send_limits(struct om_service *sv, const char *to, uint64_t what)
{
	const struct om_queue_limits body = { .max_jobs = what };

	assert_int_equal(om_service_send(sv, to, OM_MSG_QUEUE_LIMITS, &body), OM_OK);
}

static enum om_err
relay_on_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)state;
	send_limits(sv, "server", ((const struct om_queue_limits *)in->body)->max_jobs);
	return OM_OK;
}

static const struct om_service_handler relay_on[] = {
	{ OM_MSG_QUEUE_LIMITS, relay_on_limits },
};
static const struct om_service_def relay_def = {
	.name = "relay",
	.on = relay_on,
	.on_count = OM_COUNT(relay_on),
};

static void
script_around(struct om_service *sv, struct world *w)
{
	send_limits(sv, "server", 1);
	send_limits(sv, "server", 2);
	assert_int_equal(stats_of(w, "client").sent, 0); /* the turn is not over */
	assert_int_equal(stats_of(w, "server").waiting, 2);
	send_limits(sv, "relay", 3);
	assert_int_equal(stats_of(w, "client").sent, 2);
	send_limits(sv, "server", 4);
	assert_int_equal(stats_of(w, "client").sent, 3);
}

/* What the relay passes on was sent after 1 and 2. */
static void
test_nothing_is_overtaken_by_what_followed_it(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_new(seed, true);
		const struct om_service_arg arg = { w->bus, &relay_def, NULL };
		struct om_actor_id id;

		assert_int_equal(om_service_spawn(w->bus, &arg, &id), OM_OK);
		(void)om_sim_run(w->sys);
		play(w, script_around);
		assert_int_equal(w->served, 4);
		assert_int_equal(w->order[0], 1);
		assert_int_equal(w->order[1], 2);
		assert_int_equal(w->order[2] + w->order[3], 3 + 4);
		assert_int_equal(stats_of(w, "client").sent, 4);
		world_free(w);
	}
}

static void
ask_large(struct om_service *sv, size_t size)
{
	uint8_t *raw = calloc(1, size);

	assert_non_null(raw);
	raw[0] = 0x80;
	assert_int_equal(om_service_ask_raw(sv, "server", OM_MSG_QUEUE_PAUSE,
					    (struct om_bin){ raw, size }, NULL, 1000,
					    client_on_answer, size),
			 OM_OK);
	free(raw);
}

static void
script_sizes(struct om_service *sv, struct world *w)
{
	(void)w;
	send_limits(sv, "server", 1);
	ask_large(sv, 20000); /* more than waits for the end of the turn */
	send_limits(sv, "server", 2);
	send_limits(sv, "server", 3);
	ask_large(sv, 200000); /* gives the buffer away, with the two before it */
	send_limits(sv, "server", 4);
}

static void
test_small_and_large_frames_stay_in_order(void **state)
{
	static const uint64_t order[] = { 1, 20000, 2, 3, 200000, 4 };

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_new(seed, true);

		for (int round = 0; round < 2; round++) {
			w->served = w->answers = 0;
			play(w, script_sizes);
			assert_int_equal(w->served, OM_COUNT(order));
			for (size_t i = 0; i < OM_COUNT(order); i++) {
				assert_int_equal(w->order[i], order[i]);
			}
			assert_int_equal(w->answers, 2);
			assert_int_equal(w->last_cookie, 200000);
		}
		world_free(w);
	}
}

/* --- a flood ---------------------------------------------------------------------------------- */

#define FLOOD_BACKLOG 1000u

struct flooded {
	uint64_t next;
};

static enum om_err
flooded_on_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_queue_limits *m = in->body;
	struct flooded *f = state;

	(void)sv;
	assert_int_equal(m->max_jobs, f->next % 10000); /* in order, none lost, none twice */
	f->next++;
	return OM_OK;
}

static const struct om_service_handler flooded_on[] = {
	{ OM_MSG_QUEUE_LIMITS, flooded_on_limits },
};
static const struct om_service_def flooded_def = {
	.name = "flooded",
	.state_size = sizeof(struct flooded),
	.on = flooded_on,
	.on_count = OM_COUNT(flooded_on),
	.backlog = FLOOD_BACKLOG,
};

static uint64_t flood_sent;

static void
script_flood(struct om_service *sv, struct world *w)
{
	for (;;) {
		const struct om_queue_limits body = { .max_jobs = flood_sent % 10000 };
		enum om_err err = om_service_send(sv, "flooded", OM_MSG_QUEUE_LIMITS, &body);

		assert_true(stats_of(w, "flooded").waiting <= 2 * FLOOD_BACKLOG);
		if (err != OM_OK) {
			assert_int_equal(err, OM_ERR_FULL);
			return;
		}
		flood_sent++;
	}
}

static void
test_a_flood_is_bounded_and_loses_nothing(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_new(seed, false);
		const struct om_service_arg arg = { w->bus, &flooded_def, NULL };
		struct om_actor_id id;

		flood_sent = 0;
		assert_int_equal(om_service_spawn(w->bus, &arg, &id), OM_OK);
		(void)om_sim_run(w->sys);
		for (int i = 0; i < 30; i++) {
			/* The flood goes on while the receiver is in the middle of its frames. */
			kick(w, script_flood);
			for (int step = 0; step < 5; step++) {
				(void)om_sim_step(w->sys);
			}
		}
		(void)om_sim_run(w->sys);
		assert_true(flood_sent > FLOOD_BACKLOG);
		assert_int_equal(stats_of(w, "flooded").handled, flood_sent);
		assert_int_equal(stats_of(w, "flooded").waiting, 0);
		world_free(w);
	}
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
		cmocka_unit_test(test_an_answer_to_raw_bytes_is_raw),
		cmocka_unit_test(test_a_handler_of_raw_bytes_gets_them),
		cmocka_unit_test(test_sends_arrive_in_order_and_once),
		cmocka_unit_test(test_backlog_is_bounded_and_recovers),
		cmocka_unit_test(test_nothing_is_overtaken_by_what_followed_it),
		cmocka_unit_test(test_small_and_large_frames_stay_in_order),
		cmocka_unit_test(test_a_flood_is_bounded_and_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
