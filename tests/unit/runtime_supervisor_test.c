/* SPDX-License-Identifier: ISC */
/* Promise 5: supervision as in OTP; handle and mailbox survive, the bad message does not. */
#include "runtime_help.h"

#define T_POISON 50

static enum om_err
on_poison(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct probe *p = state;

	(void)msg;
	p->log->type[LOG_MAX - 1]++; /* times that the poison was delivered */
	om_fail(cx, OM_ERR_INTERNAL);
	return OM_OK;
}

static void
do_exit(struct om_ctx *cx, void *arg)
{
	(void)arg;
	om_exit(cx);
}

static void
do_kill(struct om_ctx *cx, void *arg)
{
	om_kill(cx, *(struct om_actor_id *)arg);
}

static uint32_t rung_total;

static enum om_err
on_bell(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	rung_total += om_bell_rung_of(msg)->count;
	return probe_on_any(cx, state, msg);
}

static const struct om_handler kid_handlers[] = {
	{ T_CALL, probe_on_call },
	{ T_POISON, on_poison },
	{ OM_SYS_BELL, on_bell },
};

/* Order of starts and stops over all children. */
static char events[256];
static size_t event_count;

static enum om_err
kid_start(struct om_ctx *cx, void *state, const void *arg)
{
	const struct probe_log *log = arg;

	if (event_count < sizeof(events) - 1) {
		events[event_count++] = (char)('A' + log->value[LOG_MAX - 1]);
	}
	return probe_start(cx, state, arg);
}

static void
kid_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	struct probe *p = state;

	if (event_count < sizeof(events) - 1) {
		events[event_count++] = (char)('a' + p->log->value[LOG_MAX - 1]);
	}
	probe_stop(cx, state, why);
}

static const struct om_actor_def kid_def = { .name = "kid",
					     .state_size = sizeof(struct probe),
					     .start = kid_start,
					     .stop = kid_stop,
					     .handlers = kid_handlers,
					     .handler_count = OM_COUNT(kid_handlers),
					     .otherwise = probe_on_any };

struct family {
	struct om_system *sys;
	struct probe_log log[3];
	struct om_child_spec kids[3];
	struct om_supervisor_spec spec;
	struct om_actor_id sup;
};

static void
family_init(struct family *f, uint64_t seed, enum om_strategy strategy, enum om_restart restart)
{
	static const char *const names[] = { "kid.a", "kid.b", "kid.c" };

	memset(f, 0, sizeof(*f));
	memset(events, 0, sizeof(events));
	event_count = 0;
	f->sys = sim_new(seed);
	for (unsigned i = 0; i < 3; i++) {
		f->log[i].value[LOG_MAX - 1] = i;
		f->kids[i] = (struct om_child_spec){
			.def = &kid_def, .arg = &f->log[i], .name = names[i], .restart = restart
		};
	}
	f->spec = (struct om_supervisor_spec){ .name = "family",
					       .strategy = strategy,
					       .max_restarts = 3,
					       .window_ms = 1000,
					       .backoff_min_ms = 100,
					       .backoff_max_ms = 400,
					       .children = f->kids,
					       .child_count = 3 };
}

static void
family_up(struct family *f)
{
	assert_int_equal(om_supervisor_start(f->sys, &f->spec, &f->sup), OM_OK);
	(void)om_sim_run(f->sys);
}

static struct om_actor_id
kid(struct family *f, unsigned i)
{
	return om_whereis(f->sys, f->kids[i].name);
}

static void
poison(struct family *f, unsigned i)
{
	assert_int_equal(post_u64(f->sys, kid(f, i), T_POISON, 0), OM_OK);
}

static void
test_children_start_in_order_and_stop_in_reverse(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct family f;

		family_init(&f, seed, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
		family_up(&f);
		assert_string_equal(events, "ABC");
		sys_end(f.sys);
		assert_string_equal(events, "ABCcba");
	}
}

static void
test_one_for_one_keeps_handle_and_mailbox(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct family f;
		struct om_actor_id before;
		struct om_system_stats st;

		family_init(&f, seed, OM_ONE_FOR_ONE, OM_RESTART_ON_FAILURE);
		family_up(&f);
		before = kid(&f, 1);
		assert_int_equal(post_u64(f.sys, before, T_DATA, 1), OM_OK);
		poison(&f, 1);
		assert_int_equal(post_u64(f.sys, before, T_DATA, 2), OM_OK);
		assert_int_equal(post_u64(f.sys, before, T_DATA, 3), OM_OK);
		(void)om_sim_run(f.sys);
		om_sim_advance(f.sys, 1);
		assert_int_equal(kid(&f, 1).v, before.v);
		assert_int_equal(f.log[1].starts, 2);
		assert_int_equal(f.log[1].stops, 1);
		assert_int_equal(f.log[1].stop_why, OM_ERR_INTERNAL);
		assert_int_equal(f.log[1].count, 3); /* nothing of the mailbox was lost */
		assert_int_equal(f.log[1].type[LOG_MAX - 1], 1); /* poison once only */
		assert_int_equal(f.log[0].starts, 1);
		om_system_stats(f.sys, &st);
		assert_int_equal(st.actors_restarted, 1);
		sys_end(f.sys);
	}
}

static void
test_one_for_all_and_rest_for_one(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct family f;

		family_init(&f, seed, OM_ONE_FOR_ALL, OM_RESTART_ALWAYS);
		family_up(&f);
		poison(&f, 1);
		om_sim_advance(f.sys, 1);
		assert_string_equal(events, "ABCbcaABC");
		assert_int_equal(post_u64(f.sys, kid(&f, 2), T_DATA, 1), OM_OK);
		sys_end(f.sys);

		family_init(&f, seed, OM_REST_FOR_ONE, OM_RESTART_ALWAYS);
		family_up(&f);
		poison(&f, 1);
		om_sim_advance(f.sys, 1);
		assert_string_equal(events, "ABCbcBC");
		sys_end(f.sys);
	}
}

static void
test_restart_policies(void **state)
{
	struct family f;

	(void)state;
	family_init(&f, 1, OM_ONE_FOR_ONE, OM_RESTART_ON_FAILURE);
	family_up(&f);
	run_in(f.sys, kid(&f, 0), do_exit, NULL); /* transient: a normal end is the end */
	om_sim_advance(f.sys, 1000);
	assert_int_equal(f.log[0].starts, 1);
	assert_int_equal(kid(&f, 0).v, 0);
	sys_end(f.sys);

	family_init(&f, 1, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
	family_up(&f);
	run_in(f.sys, kid(&f, 0), do_exit, NULL);
	om_sim_advance(f.sys, 1000);
	assert_int_equal(f.log[0].starts, 2);
	/* Also after somebody killed it: a new actor, under the old name. */
	{
		struct om_actor_id id = kid(&f, 0);

		run_in(f.sys, kid(&f, 1), do_kill, &id);
		om_sim_advance(f.sys, 1000);
		assert_int_equal(f.log[0].starts, 3);
		assert_int_not_equal(kid(&f, 0).v, 0);
	}
	sys_end(f.sys);

	family_init(&f, 1, OM_ONE_FOR_ONE, OM_RESTART_NEVER);
	family_up(&f);
	poison(&f, 0);
	om_sim_advance(f.sys, 1000);
	assert_int_equal(f.log[0].starts, 1);
	assert_int_equal(kid(&f, 0).v, 0);
	sys_end(f.sys);
}

static void
test_too_many_restarts_end_the_supervisor(void **state)
{
	struct family f;

	(void)state;
	family_init(&f, 1, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
	f.spec.backoff_min_ms = 0;
	family_up(&f);
	for (unsigned i = 0; i < 3; i++) {
		poison(&f, 1);
		om_sim_advance(f.sys, 10);
		assert_int_equal(f.log[1].starts, i + 2);
	}
	poison(&f, 1);
	om_sim_advance(f.sys, 10);
	assert_int_equal(f.log[1].starts, 4);
	assert_int_equal(om_whereis(f.sys, "family").v, 0); /* gave up: all children are down */
	assert_int_equal(kid(&f, 0).v, 0);
	assert_int_equal(f.log[0].stops, 1);
	sys_end(f.sys);

	/* The same number, but spread over time: it goes on. */
	family_init(&f, 1, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
	family_up(&f);
	for (unsigned i = 0; i < 20; i++) {
		poison(&f, 1);
		om_sim_advance(f.sys, 1500);
	}
	assert_int_equal(f.log[1].starts, 21);
	sys_end(f.sys);
}

/* Child 1 fails; gives the ms until it has started again. */
static unsigned
restart_ms(struct family *f)
{
	unsigned starts = f->log[1].starts, ms = 0;

	poison(f, 1);
	for (; f->log[1].starts == starts; ms++) {
		assert_in_range(ms, 0, 1000);
		om_sim_advance(f->sys, 1);
	}
	return ms;
}

static void
test_backoff_doubles_with_jitter(void **state)
{
	static const unsigned longest[] = { 100, 200, 400, 400, 400 }; /* capped */
	unsigned least[OM_COUNT(longest)], most[OM_COUNT(longest)] = { 0 };

	(void)state;
	memset(least, 0xff, sizeof(least));
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct family f;

		family_init(&f, seed, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
		f.spec.max_restarts = 100;
		f.spec.window_ms = 100000;
		family_up(&f);
		assert_in_range(restart_ms(&f), 0, 1); /* the first restart does not wait */
		for (size_t i = 0; i < OM_COUNT(longest); i++) {
			unsigned ms = restart_ms(&f);

			assert_in_range(ms, longest[i] / 2, longest[i] + 1);
			least[i] = ms < least[i] ? ms : least[i];
			most[i] = ms > most[i] ? ms : most[i];
		}
		sys_end(f.sys);
	}
	/* 20 draws: they spread over most of the half that the jitter may take. */
	for (size_t i = 0; i < OM_COUNT(longest); i++) {
		assert_true(most[i] - least[i] > longest[i] / 4);
		assert_true(most[i] > longest[i] * 3 / 4);
	}
}

static void
test_failed_first_start_leaves_nothing(void **state)
{
	struct family f;
	struct om_system_stats st;

	(void)state;
	family_init(&f, 1, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
	f.log[2].start_err = OM_ERR_MISSING;
	assert_int_equal(om_supervisor_start(f.sys, &f.spec, &f.sup), OM_ERR_MISSING);
	om_system_stats(f.sys, &st);
	assert_int_equal(st.actors_live, 0);
	assert_string_equal(events, "ABCcba");
	sys_end(f.sys);
}

/* --- what comes while a child waits for its restart ------------------------------------------------ */

struct urgent {
	struct om_actor_id to;
	uint64_t value;
};

static void
do_send_urgent(struct om_ctx *cx, void *arg)
{
	struct urgent *u = arg;
	struct om_msg *msg = om_msg_new(cx, T_DATA, sizeof(uint64_t));

	assert_non_null(msg);
	*(uint64_t *)(void *)msg->payload = u->value;
	assert_int_equal(om_send_urgent(cx, u->to, &msg), OM_OK);
}

/* The second restart waits for 50 to 100 ms. */
static void
family_with_a_suspended_child(struct family *f, uint64_t seed)
{
	family_init(f, seed, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
	family_up(f);
	poison(f, 1);
	om_sim_advance(f->sys, 1);
	poison(f, 1);
	(void)om_sim_run(f->sys);
	assert_int_equal(f->log[1].stops, 2);
	assert_int_equal(f->log[1].starts, 2);
}

static void
test_urgent_message_waits_for_the_restart(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct family f;
		struct urgent u = { .value = 1 };
		struct om_system_stats st;

		family_with_a_suspended_child(&f, seed);
		u.to = kid(&f, 1);
		run_in(f.sys, kid(&f, 0), do_send_urgent, &u);
		u.value = 2;
		run_in(f.sys, kid(&f, 0), do_send_urgent, &u);
		assert_int_equal(post_u64(f.sys, u.to, T_DATA, 3), OM_OK);
		om_system_stats(f.sys, &st);
		assert_int_equal(st.queued, 3);
		om_sim_advance(f.sys, 100);
		assert_int_equal(f.log[1].starts, 3);
		assert_int_equal(f.log[1].count, 3);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(f.log[1].value[i], i + 1);
		}
		sys_end(f.sys);

		family_with_a_suspended_child(&f,
					      seed); /* and is dropped with an actor that ends */
		u.to = kid(&f, 1);
		run_in(f.sys, kid(&f, 0), do_send_urgent, &u);
		run_in(f.sys, kid(&f, 0), do_kill, &u.to);
		om_system_stats(f.sys, &st);
		assert_int_equal(st.dropped_stop, 1);
		sys_end(f.sys);
	}
}

static void
do_own(struct om_ctx *cx, void *arg)
{
	om_bell_own(cx, arg, 7);
}

static void
ring(struct om_bell *bell)
{
	assert_int_equal(om_bell_reserve(bell), OM_OK);
	om_bell_ring(bell);
}

static void
test_rings_while_suspended_come_after_the_restart(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct family f;
		struct om_bell *bell;
		struct probe_log *log = &f.log[1];

		family_init(&f, seed, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
		family_up(&f);
		assert_int_equal(om_bell_new(f.sys, 10, &bell), OM_OK);
		run_in(f.sys, kid(&f, 1), do_own, bell);
		poison(&f, 1);
		(void)om_sim_run(f.sys);
		assert_int_equal(log->stops, 1);
		for (unsigned i = 0; i < 3; i++) {
			ring(bell);
			(void)om_sim_run(f.sys);
		}
		assert_int_equal(om_bell_depth(bell), 3);
		om_sim_advance(f.sys, 1);
		assert_int_equal(log->starts, 2);
		ring(bell);
		(void)om_sim_run(f.sys);
		assert_int_equal(om_bell_depth(bell), 0);
		assert_int_equal(log->count, 2);
		assert_int_equal(log->type[0], OM_SYS_BELL);
		assert_int_equal(rung_total, 4);
		rung_total = 0;
		sys_end(f.sys);
		om_bell_unref(bell);
	}
}

/* --- trouble while the supervisor is busy with other trouble --------------------------------------- */

static void
family_is_well(struct family *f)
{
	for (unsigned i = 0; i < 3; i++) {
		size_t before = f->log[i].count;

		assert_int_not_equal(kid(f, i).v, 0);
		assert_int_equal(post_u64(f->sys, kid(f, i), T_DATA, 1), OM_OK);
		(void)om_sim_run(f->sys);
		assert_int_equal(f->log[i].count, before + 1);
		assert_int_equal(f->log[i].starts, f->log[i].stops + 1);
	}
}

/* The second failure of B waits; meanwhile A, which rest_for_one had left alone, fails or is killed. */
static void
test_an_elder_child_ends_during_the_back_off(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct family f;
		struct om_actor_id a, killer;

		family_init(&f, seed, OM_REST_FOR_ONE, OM_RESTART_ALWAYS);
		family_up(&f);
		killer = spawn_probe(f.sys, &probe_def, NULL);
		poison(&f, 1);
		om_sim_advance(f.sys, 1);
		poison(&f, 1);
		om_sim_advance(f.sys, 1);
		assert_string_equal(events, "ABCbcBCbc");
		a = kid(&f, 0);
		if (seed % 2 == 0) {
			poison(&f, 0);
		} else {
			run_in(f.sys, killer, do_kill, &a);
		}
		om_sim_advance(f.sys, 900);
		assert_string_equal(events, "ABCbcBCbcaABC");
		family_is_well(&f);
		poison(&f, 1); /* the elder one's end has counted: this is one too many */
		om_sim_advance(f.sys, 10);
		assert_int_equal(om_whereis(f.sys, "family").v, 0);
		sys_end(f.sys);
	}
}

/* One child fails, and at any moment after it another is killed. */
static void
test_a_child_killed_at_any_moment_comes_back(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 400; seed++) {
		struct family f;
		struct om_actor_id id, killer;

		family_init(&f, seed, seed % 2 == 0 ? OM_ONE_FOR_ALL : OM_REST_FOR_ONE,
			    OM_RESTART_ALWAYS);
		family_up(&f);
		killer = spawn_probe(f.sys, &probe_def, NULL);
		poison(&f, 1);
		for (uint64_t steps = seed / 2 % 40; steps > 0; steps--) {
			(void)om_sim_step(f.sys);
		}
		id = kid(&f, (unsigned)(seed % 3));
		post_call(f.sys, killer, do_kill, &id);
		om_sim_advance(f.sys, 900);
		family_is_well(&f);
		sys_end(f.sys);
	}
}

/* A temporary child that fails while a group goes down is not started with the others. */
static void
test_a_temporary_child_stays_away(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct family f;

		family_init(&f, seed, OM_ONE_FOR_ALL, OM_RESTART_ALWAYS);
		f.kids[0].restart = OM_RESTART_NEVER;
		family_up(&f);
		poison(&f, 1);
		for (uint64_t steps = seed % 20; steps > 0; steps--) {
			(void)om_sim_step(f.sys);
		}
		if (kid(&f, 0).v != 0) {
			(void)post_u64(f.sys, kid(&f, 0), T_POISON, 0);
		}
		om_sim_advance(f.sys, 900);
		assert_int_equal(kid(&f, 0).v, 0);
		assert_int_equal(f.log[0].starts, 1);
		assert_int_not_equal(kid(&f, 2).v, 0);
		sys_end(f.sys);
	}
}

/* Told to suspend, a supervisor first ends its children in order; what they have is handled. */
static void
test_a_supervisor_in_a_group_suspends_in_order(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct family f;
		struct om_supervisor_spec top;
		struct om_child_spec children[2];
		struct om_actor_id id;

		family_init(&f, seed, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
		f.spec.children = &f.kids[1];
		f.spec.child_count = 2;
		children[0] = f.kids[0];
		children[1] = (struct om_child_spec){ .def = &om_supervisor_def,
						      .arg = &f.spec,
						      .restart = OM_RESTART_ALWAYS };
		top = (struct om_supervisor_spec){ .name = "top",
						   .strategy = OM_ONE_FOR_ALL,
						   .max_restarts = 1,
						   .window_ms = 10000,
						   .children = children,
						   .child_count = 2 };
		assert_int_equal(om_supervisor_start(f.sys, &top, &id), OM_OK);
		(void)om_sim_run(f.sys);
		assert_string_equal(events, "ABC");
		poison(&f, 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(post_u64(f.sys, kid(&f, 1), T_DATA, 1), OM_OK);
			assert_int_equal(post_u64(f.sys, kid(&f, 2), T_DATA, 1), OM_OK);
		}
		om_sim_advance(f.sys, 10);
		assert_string_equal(events, "ABCacbABC");
		assert_int_equal(f.log[1].count, 3);
		assert_int_equal(f.log[2].count, 3);
		family_is_well(&f);
		assert_int_not_equal(om_whereis(f.sys, "top").v, 0);
		sys_end(f.sys);
		assert_string_equal(events, "ABCacbABCcba");
	}
}

/* A supervisor below a supervisor: what it cannot mend goes one up. */
static void
test_escalation(void **state)
{
	struct family f;
	struct om_supervisor_spec top;
	struct om_child_spec inner;
	struct om_actor_id id;

	(void)state;
	family_init(&f, 1, OM_ONE_FOR_ONE, OM_RESTART_ALWAYS);
	f.spec.max_restarts = 1;
	f.spec.backoff_min_ms = 0;
	inner = (struct om_child_spec){ .def = &om_supervisor_def,
					.arg = &f.spec,
					.restart = OM_RESTART_ALWAYS };
	top = (struct om_supervisor_spec){ .name = "top",
					   .max_restarts = 5,
					   .window_ms = 10000,
					   .children = &inner,
					   .child_count = 1 };
	assert_int_equal(om_supervisor_start(f.sys, &top, &id), OM_OK);
	(void)om_sim_run(f.sys);
	assert_string_equal(events, "ABC");
	poison(&f, 1);
	om_sim_advance(f.sys, 5);
	assert_string_equal(events, "ABCbB");
	poison(&f, 1);
	om_sim_advance(f.sys, 5);
	assert_string_equal(events, "ABCbBbcaABC"); /* the inner one gave up and came again */
	assert_int_not_equal(om_whereis(f.sys, "family").v, 0);
	sys_end(f.sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_children_start_in_order_and_stop_in_reverse),
		cmocka_unit_test(test_one_for_one_keeps_handle_and_mailbox),
		cmocka_unit_test(test_one_for_all_and_rest_for_one),
		cmocka_unit_test(test_restart_policies),
		cmocka_unit_test(test_too_many_restarts_end_the_supervisor),
		cmocka_unit_test(test_backoff_doubles_with_jitter),
		cmocka_unit_test(test_failed_first_start_leaves_nothing),
		cmocka_unit_test(test_urgent_message_waits_for_the_restart),
		cmocka_unit_test(test_rings_while_suspended_come_after_the_restart),
		cmocka_unit_test(test_an_elder_child_ends_during_the_back_off),
		cmocka_unit_test(test_a_child_killed_at_any_moment_comes_back),
		cmocka_unit_test(test_a_temporary_child_stays_away),
		cmocka_unit_test(test_a_supervisor_in_a_group_suspends_in_order),
		cmocka_unit_test(test_escalation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
