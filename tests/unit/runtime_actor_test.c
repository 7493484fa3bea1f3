/* SPDX-License-Identifier: ISC */
/* An actor's life: start, stop, kill, failure, stale handles (promise 6), become, OM_AGAIN. */
#include "runtime_help.h"

static void
do_exit(struct om_ctx *cx, void *arg)
{
	(void)arg;
	om_exit(cx);
}

static void
do_fail(struct om_ctx *cx, void *arg)
{
	om_fail(cx, *(enum om_err *)arg);
}

static void
test_start_and_stop_run_once_each(void **state)
{
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id id = spawn_probe(sys, &probe_def, &log);

	(void)state;
	assert_int_equal(post_u64(sys, id, T_DATA, 1), OM_OK);
	om_system_stop_actor(sys, id);
	om_system_stop_actor(sys, id); /* again: nothing */
	(void)om_sim_run(sys);
	assert_int_equal(log.starts, 1);
	assert_int_equal(log.stops, 1);
	assert_int_equal(log.stop_why, OM_OK);
	assert_int_equal(log.count, 1); /* what was there before the stop was handled */
	assert_int_equal(om_system_wait(sys, id, 0), OM_OK);
	sys_end(sys);
}

static void
test_failed_start_ends_the_actor(void **state)
{
	struct om_system *sys = sim_new(1);
	struct probe_log log = { .start_err = OM_ERR_IO };
	struct om_actor_id id = spawn_probe(sys, &probe_def, &log);

	(void)state;
	(void)om_sim_run(sys);
	assert_int_equal(log.stops, 1); /* releases what start had taken */
	assert_int_equal(log.stop_why, OM_ERR_IO);
	assert_int_equal(post_u64(sys, id, T_DATA, 1), OM_ERR_STALE);
	sys_end(sys);
}

static void
test_exit_and_fail_end_after_the_handler(void **state)
{
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 }, log2 = { 0 };
	struct om_actor_id a = spawn_probe(sys, &probe_def, &log);
	struct om_actor_id b = spawn_probe(sys, &probe_def, &log2);
	enum om_err why = OM_ERR_DISK;
	struct om_system_stats st;

	(void)state;
	run_in(sys, a, do_exit, NULL);
	assert_int_equal(log.stop_why, OM_OK);
	run_in(sys, b, do_fail, &why);
	assert_int_equal(log2.stop_why, OM_ERR_DISK);
	om_system_stats(sys, &st);
	assert_int_equal(st.actors_live, 0);
	assert_int_equal(st.actors_failed, 1);
	sys_end(sys);
}

static void
do_stop(struct om_ctx *cx, void *arg)
{
	om_stop(cx, *(struct om_actor_id *)arg);
}

static void
do_kill(struct om_ctx *cx, void *arg)
{
	om_kill(cx, *(struct om_actor_id *)arg);
}

/* stop: what is in the mailbox now is handled.  kill: it is dropped and counted. */
static void
test_stop_drains_and_kill_drops(void **state)
{
	(void)state;
	for (int kill = 0; kill < 2; kill++) {
		struct om_system *sys = sim_new(2);
		struct probe_log log = { 0 };
		struct om_actor_id id = spawn_probe(sys, &probe_def, &log);
		struct om_actor_id boss = spawn_probe(sys, &probe_def, NULL);
		struct om_system_stats st;

		run_in(sys, boss, do_stop, &(struct om_actor_id){ 0 }); /* nobody: fine */
		(void)om_sim_run(sys);
		for (unsigned i = 0; i < 50; i++) {
			assert_int_equal(post_u64(sys, id, T_DATA, i), OM_OK);
		}
		run_in(sys, boss, kill ? do_kill : do_stop, &id);
		om_system_stats(sys, &st);
		assert_int_equal(log.stops, 1);
		assert_int_equal(log.count + st.dropped_stop, 50);
		if (kill) {
			assert_true(st.dropped_stop > 0);
			assert_int_equal(log.stop_why, OM_ERR_CANCELLED);
		} else {
			assert_int_equal(log.count, 50);
		}
		sys_end(sys);
	}
}

/* The slot of an ended actor is used again; the old handle never reaches the new tenant. */
static void
test_stale_handle_is_an_error_never_another_actor(void **state)
{
	struct om_system *sys = sim_new(3);
	struct probe_log old_log = { 0 }, new_log = { 0 };
	struct om_actor_id old = spawn_probe(sys, &probe_def, &old_log);
	struct om_actor_id boss = spawn_probe(sys, &probe_def, NULL);
	struct om_actor_id now = { 0 };
	unsigned reused = 0;

	(void)state;
	(void)om_sim_run(sys);
	om_system_stop_actor(sys, old);
	(void)om_sim_run(sys);
	for (unsigned i = 0; i < 500; i++) {
		now = spawn_probe(sys, &probe_def, &new_log);
		(void)om_sim_run(sys);
		assert_int_not_equal(now.v, old.v);
		reused += (now.v & 0xffffff) == (old.v & 0xffffff);
		assert_int_equal(post_u64(sys, old, T_DATA, 1), OM_ERR_STALE);
		run_in(sys, boss, do_kill, &old); /* must not hit the tenant */
		run_in(sys, boss, do_stop, &old);
		assert_int_equal(post_u64(sys, now, T_DATA, 1), OM_OK);
		om_system_stop_actor(sys, now);
		(void)om_sim_run(sys);
	}
	assert_true(reused > 0);
	assert_int_equal(new_log.count, 500);
	assert_int_equal(old_log.count, 0);
	assert_int_equal(post_u64(sys, (struct om_actor_id){ UINT64_MAX }, T_DATA, 1),
			 OM_ERR_STALE);
	assert_int_equal(post_u64(sys, (struct om_actor_id){ 5 }, T_DATA, 1), OM_ERR_STALE);
	sys_end(sys);
}

static unsigned became;

static enum om_err
on_became(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	became++;
	return OM_OK;
}

static const struct om_handler became_handlers[] = { { T_DATA, on_became } };

static void
do_become(struct om_ctx *cx, void *arg)
{
	(void)arg;
	om_become(cx, became_handlers, 1);
}

static void
test_become_swaps_the_table(void **state)
{
	struct om_system *sys = sim_new(4);
	struct probe_log log = { 0 };
	struct om_actor_id id = spawn_probe(sys, &probe_def, &log);

	(void)state;
	became = 0;
	run_in(sys, id, do_become, NULL);
	assert_int_equal(post_u64(sys, id, T_DATA, 1), OM_OK);
	(void)om_sim_run(sys);
	assert_int_equal(became, 1);
	assert_int_equal(log.count, 0);
	sys_end(sys);
}

struct again {
	unsigned calls;
	bool own_sender_seen;
};

static enum om_err
on_again(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct again *a = *(struct again **)state;

	(void)cx;
	if (msg->type == T_DATA) {
		return ++a->calls < 5 ? OM_AGAIN : OM_OK;
	}
	return OM_OK;
}

static enum om_err
again_start(struct om_ctx *cx, void *state, const void *arg)
{
	(void)cx;
	memcpy(state, &arg, sizeof(arg));
	return OM_OK;
}

/* A message that wants another turn stays first in line: order is kept. */
static void
test_again_runs_the_same_message_later(void **state)
{
	static const struct om_actor_def def = { .name = "again",
						 .state_size = sizeof(void *),
						 .start = again_start,
						 .otherwise = on_again };
	struct om_system *sys = sim_new(5);
	struct again a = { 0 };
	struct om_actor_id id;
	struct om_system_stats st;

	(void)state;
	assert_int_equal(om_system_spawn(sys, &def, &a, &id), OM_OK);
	assert_int_equal(post_u64(sys, id, T_DATA, 1), OM_OK);
	assert_int_equal(post_u64(sys, id, T_DATA + 1, 2), OM_OK);
	(void)om_sim_run(sys);
	assert_int_equal(a.calls, 5);
	om_system_stats(sys, &st);
	assert_int_equal(st.handled, 2); /* counted once each */
	sys_end(sys);
}

struct forward {
	struct om_actor_id to;
	struct om_msg *kept;
	enum om_err err;
};
static struct forward *forward_now;

static enum om_err
on_forward(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	if (msg->type == T_DATA) {
		forward_now->err = om_forward(cx, forward_now->to, msg);
	} else if (msg->type == T_DATA + 1) {
		forward_now->kept = om_msg_take(cx, msg);
	} else {
		om_msg_free(cx, forward_now->kept);
		forward_now->kept = NULL;
	}
	return OM_OK;
}

static void
test_forward_keeps_the_sender_and_take_keeps_the_message(void **state)
{
	static const struct om_actor_def def = { .name = "forward", .otherwise = on_forward };
	struct om_system *sys = sim_new(6);
	struct probe_log log = { 0 };
	struct forward f = { .to = spawn_probe(sys, &probe_def, &log) };
	struct om_actor_id via;

	(void)state;
	forward_now = &f;
	assert_int_equal(om_system_spawn(sys, &def, NULL, &via), OM_OK);
	assert_int_equal(post_u64(sys, via, T_DATA, 9), OM_OK);
	assert_int_equal(post_u64(sys, via, T_DATA + 1, 10), OM_OK);
	(void)om_sim_run(sys);
	assert_int_equal(f.err, OM_OK);
	assert_int_equal(log.count, 1);
	assert_int_equal(log.value[0], 9);
	assert_int_equal(log.from[0].v, 0);
	assert_non_null(f.kept);
	assert_int_equal(om_msg_u64(f.kept), 10);
	assert_int_equal(post_u64(sys, via, T_DATA + 2, 0), OM_OK);
	(void)om_sim_run(sys);
	assert_null(f.kept);
	sys_end(sys);
}

struct spawner {
	unsigned children;
	enum om_err last;
	struct probe_log *log;
};

static void
do_spawn(struct om_ctx *cx, void *arg)
{
	struct spawner *s = arg;

	for (unsigned i = 0; i < s->children; i++) {
		struct om_actor_id id;

		s->last = om_spawn(cx, &probe_def, s->log, &id);
		if (s->last != OM_OK) {
			return;
		}
		assert_int_equal(om_send_u64(cx, id, T_DATA, i), OM_OK);
	}
}

static void
test_many_children_and_the_limit(void **state)
{
	struct om_system *sys = sim_new(7);
	struct om_actor_id boss = spawn_probe(sys, &probe_def, NULL);
	struct probe_log log = { 0 };
	struct spawner s = { .children = 3000, .log = &log };
	struct om_system_stats st;

	(void)state;
	run_in(sys, boss, do_spawn, &s);
	assert_int_equal(s.last, OM_OK);
	assert_int_equal(log.starts, 3000);
	assert_int_equal(log.count, 3000);
	s.children = 20000; /* actor_max is 16,384 */
	run_in(sys, boss, do_spawn, &s);
	assert_int_equal(s.last, OM_ERR_LIMIT);
	om_system_stats(sys, &st);
	assert_true(st.actors_live <= 16384 && st.actors_live > 16000);
	sys_end(sys);
}

static enum om_err
big_start(struct om_ctx *cx, void *state, const void *arg)
{
	const unsigned char *bytes = state;

	(void)cx;
	for (size_t i = 0; i < 5000; i++) {
		assert_int_equal(bytes[i], 0); /* state is zeroed, also when it is used again */
	}
	memset(state, 0xff, 5000);
	*(bool *)(uintptr_t)arg = true;
	return OM_OK;
}

static void
test_state_is_zeroed(void **state)
{
	static const struct om_actor_def def = { .name = "big",
						 .state_size = 5000,
						 .start = big_start };
	struct om_system *sys = sim_new(8);

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct om_actor_id id;
		bool started = false;

		assert_int_equal(om_system_spawn(sys, &def, &started, &id), OM_OK);
		(void)om_sim_run(sys);
		assert_true(started);
		om_system_stop_actor(sys, id);
		(void)om_sim_run(sys);
	}
	sys_end(sys);
}

static enum om_err
drain_later(struct om_ctx *cx, void *state)
{
	struct probe *p = state;

	(void)cx;
	p->log->type[LOG_MAX - 1]++;
	return OM_AGAIN;
}

static void
test_drain_lets_an_actor_end_itself(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("drainer"), .drain = drain_later };
	struct om_system *sys = sim_new(9);
	struct probe_log log = { 0 };
	struct om_actor_id id = spawn_probe(sys, &def, &log);

	(void)state;
	(void)om_sim_run(sys);
	om_system_stop_actor(sys, id);
	(void)om_sim_run(sys);
	assert_int_equal(log.type[LOG_MAX - 1], 1);
	assert_int_equal(log.stops, 0); /* still there, still working */
	assert_int_equal(post_u64(sys, id, T_DATA, 1), OM_OK);
	run_in(sys, id, do_exit, NULL);
	assert_int_equal(log.count, 1);
	assert_int_equal(log.stops, 1);
	assert_int_equal(log.type[LOG_MAX - 1], 1);
	sys_end(sys);
}

/* Ten messages wait; a stop skips what is left of them, also that of the whole system. */
static void
test_drop_on_stop_drops_what_waits(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("hasty"), .drop_on_stop = true };

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct om_system *sys = sim_new(seed);
		struct probe_log log = { 0 };
		struct om_actor_id a = spawn_probe(sys, &def, &log);
		struct om_system_stats st;

		(void)om_sim_run(sys);
		for (uint64_t i = 0; i < 10; i++) {
			assert_int_equal(post_u64(sys, a, T_DATA, i), OM_OK);
		}
		(void)om_sim_step(sys); /* one is handled */
		if (seed % 2 == 0) {
			om_system_stop_actor(sys, a);
			(void)om_sim_run(sys);
		} else {
			assert_int_equal(om_system_stop(sys, 10000, NULL, 0), 0);
		}
		om_system_stats(sys, &st);
		assert_int_equal(log.count, 1);
		assert_int_equal(log.stops, 1);
		assert_int_equal(st.dropped_stop, 9);
		if (seed % 2 == 0) {
			sys_end(sys);
		} else {
			om_system_free(sys);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_and_stop_run_once_each),
		cmocka_unit_test(test_failed_start_ends_the_actor),
		cmocka_unit_test(test_exit_and_fail_end_after_the_handler),
		cmocka_unit_test(test_stop_drains_and_kill_drops),
		cmocka_unit_test(test_stale_handle_is_an_error_never_another_actor),
		cmocka_unit_test(test_become_swaps_the_table),
		cmocka_unit_test(test_again_runs_the_same_message_later),
		cmocka_unit_test(test_forward_keeps_the_sender_and_take_keeps_the_message),
		cmocka_unit_test(test_many_children_and_the_limit),
		cmocka_unit_test(test_state_is_zeroed),
		cmocka_unit_test(test_drain_lets_an_actor_end_itself),
		cmocka_unit_test(test_drop_on_stop_drops_what_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
