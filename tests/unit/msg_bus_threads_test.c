/* SPDX-License-Identifier: ISC */
/*
 * The bus under real threads: four clients, a service on the workers, a detached one, and one that
 * is stopped in the middle.  Every ask ends exactly once, whoever ends first.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/counter.h"
#include "msg/bus.h"

#define CLIENTS    4
#define ASKS       4000
#define UNDER_WAY  64
#define TIMEOUT_MS 60000
#define TICK_MSG   1

/* --- services: answer at once, later, or with an error ------------------------------------------ */

struct server {
	struct om_bus_request later[256];
	size_t later_count;
};

static void
answer_later(struct om_service *sv, struct server *s)
{
	const struct om_empty empty = { 0 };

	for (size_t i = 0; i < s->later_count; i++) {
		om_service_reply_to(sv, &s->later[i], OM_MSG_OK, &empty);
	}
	s->later_count = 0;
}

static enum om_err
server_on_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_queue_limits *m = in->body;
	struct server *s = state;

	switch (m->max_jobs % 3) {
	case 0:
		return om_service_reply_ok(sv, in);
	case 1:
		return OM_ERR_STATE;
	default:
		if (s->later_count == OM_COUNT(s->later)) {
			answer_later(sv, s);
		}
		s->later[s->later_count++] = om_service_later(sv, in);
		return OM_OK;
	}
}

static void
server_batch_end(struct om_service *sv, void *state)
{
	answer_later(sv, state);
}

static const struct om_service_handler server_on[] = {
	{ OM_MSG_QUEUE_LIMITS, server_on_limits },
};

static const struct om_service_def servers[] = {
	{ .name = "shared",
	  .state_size = sizeof(struct server),
	  .on = server_on,
	  .on_count = OM_COUNT(server_on),
	  .on_batch_end = server_batch_end,
	  .backlog = 32 },
	{ .name = "detached",
	  .state_size = sizeof(struct server),
	  .on = server_on,
	  .on_count = OM_COUNT(server_on),
	  .on_batch_end = server_batch_end,
	  .detached = true },
	{ .name = "ends",
	  .state_size = sizeof(struct server),
	  .on = server_on,
	  .on_count = OM_COUNT(server_on),
	  .on_batch_end = server_batch_end },
};

/* --- clients ---------------------------------------------------------------------------------- */

/* Written by its client, read by the test after the client has ended. */
struct tally {
	uint8_t ended[ASKS];
	uint32_t ok, state, gone, other;
	uint32_t full; /* refused sends, tried again */
	struct om_counter done;
};

struct client {
	struct tally *tally;
	uint32_t asked, ended;
	bool tick_sent;
};

static void go_on(struct om_service *sv, struct client *c);

static void
end_one(struct om_service *sv, struct client *c, uint64_t n, enum om_err err)
{
	OM_ASSERT(c->tally->ended[n] == 0); /* twice */
	c->tally->ended[n] = 1;
	c->ended++;
	if (err == OM_OK) {
		c->tally->ok++;
	} else if (err == OM_ERR_STATE) {
		c->tally->state++;
	} else if (err == OM_ERR_GONE || err == OM_ERR_SHUTDOWN) {
		c->tally->gone++;
	} else {
		c->tally->other++;
	}
	om_counter_add(&c->tally->done, 1);
	if (c->ended == ASKS) {
		om_service_exit(sv);
	}
}

static void
on_answer(struct om_service *sv, void *state, const struct om_bus_answer *a)
{
	struct client *c = state;

	OM_ASSERT(a->err != OM_OK || a->type == OM_MSG_OK);
	end_one(sv, c, a->cookie, a->err);
	go_on(sv, c);
}

static void
tick(struct om_service *sv, struct client *c)
{
	struct om_msg *msg;

	if (!c->tick_sent) {
		msg = om_msg_new(om_service_cx(sv), TICK_MSG, 0);
		OM_ASSERT(om_send(om_service_cx(sv), om_self(om_service_cx(sv)), &msg) == OM_OK);
		c->tick_sent = true;
	}
}

static void
go_on(struct om_service *sv, struct client *c)
{
	while (c->asked < ASKS && c->asked - c->ended < UNDER_WAY) {
		const char *to = servers[c->asked / 3 % OM_COUNT(servers)].name;
		const struct om_queue_limits body = { .max_jobs = c->asked };
		enum om_err err = om_service_ask(sv, to, OM_MSG_QUEUE_LIMITS, &body, NULL,
						 TIMEOUT_MS, on_answer, c->asked);

		if (err == OM_ERR_FULL ||
		    (err == OM_ERR_GONE && strcmp(to, "ends") != 0)) { /* not started yet */
			c->tally->full++;
			tick(sv, c); /* when the others have had their turn */
			return;
		}
		c->asked++;
		if (err != OM_OK) {
			end_one(sv, c, c->asked - 1, err);
		}
	}
}

static enum om_err
client_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct client *c = state;

	(void)msg;
	c->tick_sent = false;
	go_on(sv, c);
	return OM_OK;
}

static enum om_err
client_start(struct om_service *sv, void *state, const void *arg)
{
	struct client *c = state;

	c->tally = *(struct tally *const *)arg;
	tick(sv, c);
	return OM_OK;
}

static struct om_service_def clients[CLIENTS];
static char names[CLIENTS][16];

/* --- the test --------------------------------------------------------------------------------- */

static void
play(unsigned workers)
{
	const struct om_system_conf conf = { .workers = workers };
	static struct tally tallies[CLIENTS];
	struct tally *tally_ptr[CLIENTS];
	struct om_service_arg server_args[OM_COUNT(servers)], client_args[CLIENTS];
	struct om_actor_id server_ids[OM_COUNT(servers)], client_ids[CLIENTS];
	struct om_bus_stats stats[OM_SERVICE_MAX];
	struct om_system_stats sys_stats;
	struct om_system *sys;
	struct om_bus *bus;
	size_t n;

	memset(tallies, 0, sizeof(tallies));
	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	assert_int_equal(om_bus_new(sys, &bus, NULL), OM_OK);
	for (size_t i = 0; i < OM_COUNT(servers); i++) {
		server_args[i] = (struct om_service_arg){ bus, &servers[i], NULL };
		assert_int_equal(om_service_spawn(bus, &server_args[i], &server_ids[i]), OM_OK);
	}
	for (size_t i = 0; i < CLIENTS; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "client%zu", i);
		clients[i] = (struct om_service_def){
			.name = names[i],
			.state_size = sizeof(struct client),
			.start = client_start,
			.on_msg = client_on_msg,
		};
		tally_ptr[i] = &tallies[i];
		client_args[i] = (struct om_service_arg){ bus, &clients[i], &tally_ptr[i] };
		assert_int_equal(om_service_spawn(bus, &client_args[i], &client_ids[i]), OM_OK);
	}
	/* In the middle of it one service ends. */
	while (om_counter_get(&tallies[0].done) < ASKS / 4) {
	}
	om_system_stop_actor(sys, server_ids[2]);
	for (size_t i = 0; i < CLIENTS; i++) {
		assert_int_equal(om_system_wait(sys, client_ids[i], TIMEOUT_MS), OM_OK);
	}
	assert_int_equal(om_system_stop(sys, 5000, NULL, 0), 0);
	for (size_t i = 0; i < CLIENTS; i++) {
		const struct tally *t = &tallies[i];

		assert_int_equal(t->ok + t->state + t->gone + t->other, ASKS);
		assert_int_equal(t->other, 0);
		for (size_t k = 0; k < ASKS; k++) {
			assert_int_equal(t->ended[k], 1);
		}
		/* Two of the three services answered all they were asked: a third with an error. */
		assert_true(t->state >= ASKS / 3 * 2 / 3 - 2);
		assert_true(t->ok >= ASKS / 3 * 4 / 3 - 4);
	}
	n = om_bus_stats(bus, stats, OM_COUNT(stats));
	assert_int_equal(n, OM_COUNT(servers) + CLIENTS);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(stats[i].bad, 0);
		assert_int_equal(stats[i].unanswered, 0);
		assert_int_equal(stats[i].late, 0);
	}
	om_system_stats(sys, &sys_stats);
	assert_int_equal(sys_stats.actors_live, 0);
	om_bus_free(bus);
	om_system_free(sys);
}

static void
test_one_worker(void **state)
{
	(void)state;
	play(1);
}

static void
test_two_workers(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++) {
		play(2);
	}
}

static void
test_four_workers(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		play(4);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_worker),
		cmocka_unit_test(test_two_workers),
		cmocka_unit_test(test_four_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
