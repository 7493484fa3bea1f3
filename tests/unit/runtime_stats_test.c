/* SPDX-License-Identifier: ISC */
/* Promise 10 (introspection), dead letters, tracing; promise 9 (same seed, same run). */
#include <stdio.h>
#include <unistd.h>
#include "runtime_help.h"

struct seen_actor {
	struct om_actor_id want;
	struct om_actor_stats stats;
	unsigned count;
};

static void
visit(const struct om_actor_stats *stats, void *arg)
{
	struct seen_actor *s = arg;

	s->count++;
	if (om_actor_id_eq(stats->id, s->want)) {
		s->stats = *stats;
	}
}

static void
do_register(struct om_ctx *cx, void *arg)
{
	assert_int_equal(om_register(cx, arg), OM_OK);
}

static void
do_join(struct om_ctx *cx, void *arg)
{
	assert_int_equal(om_join(cx, arg), OM_OK);
}

static void
test_actor_stats_from_outside(void **state)
{
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id id = spawn_probe(sys, &probe_def, &log);
	struct seen_actor s = { .want = id };
	struct om_actor_stats st;

	(void)state;
	run_in(sys, id, do_register, (void *)(uintptr_t) "named");
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 20; i++) {
			assert_int_equal(post_u64(sys, id, T_DATA, i), OM_OK);
		}
		if (round == 0) {
			assert_int_equal(om_actor_stats(sys, id, &st), OM_OK);
			assert_int_equal(st.depth, 20);
		}
		(void)om_sim_run(sys);
	}
	om_system_actors(sys, visit, &s);
	assert_int_equal(s.count, 1);
	assert_string_equal(s.stats.name, "named");
	assert_int_equal(s.stats.handled, 2001);
	assert_int_equal(s.stats.depth, 0);
	assert_int_equal(s.stats.high_water, 20);
	assert_int_equal(s.stats.limit, OM_MAILBOX_SLOTS_DEFAULT);
	assert_true(om_hist_quantile(&s.stats.hist, 0.5) > 0); /* some handler calls were timed */
	om_system_stop_actor(sys, id);
	(void)om_sim_run(sys);
	assert_int_equal(om_actor_stats(sys, id, &st), OM_ERR_STALE);
	sys_end(sys);
}

static struct om_dead_letter letters[64];
static size_t letter_count;

static enum om_err
on_letter(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	letters[letter_count++] = *(const struct om_dead_letter *)(const void *)msg->payload;
	return OM_OK;
}

static void
test_dead_letters_can_be_watched(void **state)
{
	static const struct om_handler handlers[] = {
		{ T_CALL, probe_on_call },
		{ OM_SYS_DEAD_LETTER, on_letter },
	};
	static const struct om_actor_def def = { .name = "mortician",
						 .handlers = handlers,
						 .handler_count = OM_COUNT(handlers) };
	static const struct om_actor_def deaf = { .name = "deaf" };
	struct om_system *sys = sim_new(2);
	struct om_actor_id mortician = spawn_probe(sys, &def, NULL), id;
	struct om_system_stats st;

	(void)state;
	letter_count = 0;
	run_in(sys, mortician, do_join, (void *)(uintptr_t)OM_GROUP_DEAD_LETTERS);
	assert_int_equal(om_system_spawn(sys, &deaf, NULL, &id), OM_OK);
	assert_int_equal(post_u64(sys, id, 77, 1), OM_OK);
	(void)om_sim_run(sys);
	assert_int_equal(letter_count, 1);
	assert_int_equal(letters[0].type, 77);
	assert_int_equal(letters[0].size, 8);
	assert_int_equal(letters[0].to.v, id.v);
	assert_int_equal(letters[0].why, OM_DROP_UNKNOWN);
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_unknown, 1);
	sys_end(sys);
}

struct chain {
	struct om_actor_id to;
};

static void
do_send_on(struct om_ctx *cx, void *arg)
{
	struct chain *c = arg;

	assert_int_equal(om_send_u64(cx, c->to, T_DATA, 1), OM_OK);
}

static void
test_trace_shows_a_messages_way(void **state)
{
	struct om_system *sys = sim_new(3);
	struct om_actor_id a = spawn_probe(sys, &probe_def, NULL);
	struct om_actor_id b = spawn_probe(sys, &probe_def, NULL);
	struct chain c = { .to = b };
	struct om_msg *msg = om_system_msg_new(sys, T_CALL, sizeof(struct call));
	char text[4096];
	int fds[2];
	ssize_t n;
	unsigned lines = 0;

	(void)state;
	*(struct call *)(void *)msg->payload = (struct call){ .fn = do_send_on, .arg = &c };
	om_trace_message(sys, msg);
	assert_int_equal(om_system_send(sys, a, &msg), OM_OK);
	assert_int_equal(post_u64(sys, a, T_DATA, 9), OM_OK); /* not traced */
	(void)om_sim_run(sys);
	assert_int_equal(pipe(fds), 0);
	om_trace_dump(sys, fds[1]);
	assert_int_equal(close(fds[1]), 0);
	n = read(fds[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_int_equal(close(fds[0]), 0);
	for (const char *at = text; (at = strstr(at, "way=1")) != NULL; at++) {
		lines++;
	}
	assert_int_equal(lines, 4); /* send, handle; its child: send, handle */
	assert_null(strstr(text, "way=2"));
	sys_end(sys);
}

/* --- promise 9 ------------------------------------------------------------------------------------ */

struct runner {
	struct om_actor_id peer[4];
	uint64_t hash;
};
static struct runner *runner_now;

static enum om_err
on_token(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	uint64_t v = om_msg_u64(msg);

	(void)state;
	runner_now->hash = (runner_now->hash ^ (om_self(cx).v + v)) * 1099511628211u;
	runner_now->hash ^= (uint64_t)om_now(cx).ns;
	if (v == 0) {
		return OM_OK;
	}
	return om_send_u64(cx, runner_now->peer[om_rand(cx) % 4], T_DATA, v - 1);
}

static enum om_err
on_tick(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	return om_send_u64(cx, runner_now->peer[om_rand(cx) % 4], T_DATA, 3);
}

static void
do_ticker(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_timer_start(cx, 1, 7, 0, NULL), OM_OK);
}

static uint64_t
run_seed(uint64_t seed)
{
	static const struct om_handler handlers[] = {
		{ T_CALL, probe_on_call },
		{ T_DATA, on_token },
		{ OM_SYS_TIMER, on_tick },
	};
	static const struct om_actor_def def = { .name = "runner",
						 .handlers = handlers,
						 .handler_count = OM_COUNT(handlers) };
	struct om_system *sys = sim_new(seed);
	struct runner r = { .hash = 1 };

	runner_now = &r;
	for (unsigned i = 0; i < 4; i++) {
		r.peer[i] = spawn_probe(sys, &def, NULL);
		post_call(sys, r.peer[i], do_ticker, NULL);
		assert_int_equal(post_u64(sys, r.peer[i], T_DATA, 20), OM_OK);
	}
	om_sim_advance(sys, 100);
	sys_end(sys);
	return r.hash;
}

static void
test_same_seed_same_run(void **state)
{
	unsigned different = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		uint64_t first = run_seed(seed);

		assert_int_equal(run_seed(seed), first);
		different += run_seed(seed + 1000) != first;
	}
	assert_true(different >= 19); /* and another seed is another run */
}

/* In simulation a handler takes no time, whatever the machine does; a budget does not hide the times. */
static enum om_err
on_dawdle(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_mono start = om_mono_now();

	(void)cx;
	(void)state;
	(void)msg;
	while (om_mono_now().ns - start.ns < 20000) {
	}
	return OM_OK;
}

static void
test_an_own_budget_in_simulation(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_dawdle } };
	static const struct om_actor_def def = {
		.name = "dawdler", .handlers = handlers, .handler_count = 1, .budget_us = 1
	};
	struct om_system *sys = sim_new(1);
	struct om_actor_id id = spawn_probe(sys, &def, NULL);
	struct om_actor_stats as;
	struct om_system_stats st;
	uint64_t calls = 0;

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(post_u64(sys, id, T_DATA, i), OM_OK);
	}
	(void)om_sim_run(sys);
	om_system_stats(sys, &st);
	assert_int_equal(st.slow_handlers, 0);
	assert_int_equal(om_actor_stats(sys, id, &as), OM_OK);
	for (unsigned i = 0; i < OM_HIST_BUCKETS; i++) {
		calls += as.hist.count[i];
	}
	assert_int_equal(calls, as.hist.count[0]);
	assert_true(calls >= 30); /* all but the first 64 */
	sys_end(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_actor_stats_from_outside),
		cmocka_unit_test(test_dead_letters_can_be_watched),
		cmocka_unit_test(test_trace_shows_a_messages_way),
		cmocka_unit_test(test_same_seed_same_run),
		cmocka_unit_test(test_an_own_budget_in_simulation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
