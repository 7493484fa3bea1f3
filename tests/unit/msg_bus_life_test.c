/* SPDX-License-Identifier: ISC */
/* The bus in simulation: time-outs, the end of a service, the next life of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/supervisor.h"
#include "tests/unit/msg_world.h"

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

/* --- restart ---------------------------------------------------------------------------------- */

/* A world whose server is restarted. */
static struct world *
world_supervised(uint64_t seed)
{
	/* Borrowed by the supervisor until it ends: one world at a time. */
	static struct om_child_spec child;
	static const struct om_supervisor_spec spec = {
		.name = "supervisor",
		.strategy = OM_ONE_FOR_ONE,
		.max_restarts = 3,
		.window_ms = 60000,
		.backoff_min_ms = 10,
		.backoff_max_ms = 100,
		.children = &child,
		.child_count = 1,
	};
	struct world *w = world_new(seed, false);
	struct om_actor_id supervisor;

	child = (struct om_child_spec){
		.def = om_service_actor(w->bus, &server_def),
		.arg = &w->server_arg,
		.restart = OM_RESTART_ALWAYS,
	};
	assert_int_equal(om_system_spawn(w->sys, &om_supervisor_def, &spec, &supervisor), OM_OK);
	(void)om_sim_run(w->sys);
	return w;
}

static void
script_fail_in_the_middle(struct om_service *sv, struct world *w)
{
	(void)w;
	assert_int_equal(ask_limits(sv, 1004, 1), OM_OK); /* put off by the first life */
	assert_int_equal(ask_limits(sv, 1005, 2), OM_OK); /* brings it down */
	for (uint64_t i = 0; i < 5; i++) {
		assert_int_equal(ask_limits(sv, i, 10 + i), OM_OK); /* taken by the second */
	}
}

static void
test_restart_keeps_what_waits(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_supervised(seed);

		play(w, script_fail_in_the_middle);
		om_sim_advance(w->sys, 500); /* less than the asks' time-out */
		assert_int_equal(w->starts, 2);
		assert_int_equal(w->stops, 1);
		/* Each ended once: gone, internal, and five answers of the second life in order. */
		assert_int_equal(w->answers, 7);
		assert_int_equal(w->served, 7);
		assert_int_equal(w->order[0], 1004);
		assert_int_equal(w->order[1], 1005); /* and not delivered again */
		for (uint64_t i = 0; i < 5; i++) {
			assert_int_equal(w->order[2 + i], i);
		}
		assert_int_equal(stats_of(w, "client").asks_failed, 0);
		assert_int_equal(stats_of(w, "server").waiting, 0);
		play(w, script_ping);
		assert_int_equal(w->answers, 8);
		assert_int_equal(w->last_err, OM_OK);
		world_free(w);
	}
}

static void
script_fail(struct om_service *sv, struct world *w)
{
	(void)w;
	assert_int_equal(ask_limits(sv, 1005, 1), OM_OK);
}

static void
script_three(struct om_service *sv, struct world *w)
{
	(void)w;
	for (uint64_t i = 0; i < 3; i++) {
		assert_int_equal(ask_limits(sv, i, 10 + i), OM_OK);
	}
}

/* The bell rings while the server waits for its restart: each frame is still counted. */
static void
test_what_comes_before_a_restart_is_taken_after_it(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_supervised(seed);

		play(w, script_fail);
		om_sim_advance(w->sys, 1);
		play(w, script_fail);
		assert_int_equal(w->stops, 2);
		assert_int_equal(w->starts, 2);
		play(w, script_three);
		play(w, script_three);
		assert_int_equal(w->served, 2);
		om_sim_advance(w->sys, 20);
		assert_int_equal(w->starts, 3);
		assert_int_equal(w->served, 8);
		assert_int_equal(w->answers, 8);
		for (uint64_t i = 0; i < 6; i++) {
			assert_int_equal(w->order[2 + i], i % 3);
		}
		play(w, script_ping); /* and none lies behind */
		assert_int_equal(w->answers, 9);
		assert_int_equal(w->last_err, OM_OK);
		world_free(w);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timeout_then_late_answer),
		cmocka_unit_test(test_a_services_own_timers_are_its_own),
		cmocka_unit_test(test_stop_answers_what_was_put_off),
		cmocka_unit_test(test_end_of_a_peer_ends_its_asks),
		cmocka_unit_test(test_before_the_peer_has_started),
		cmocka_unit_test(test_restart_keeps_what_waits),
		cmocka_unit_test(test_what_comes_before_a_restart_is_taken_after_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
