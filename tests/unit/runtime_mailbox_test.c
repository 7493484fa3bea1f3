/* SPDX-License-Identifier: ISC */
/* Promises 1 (order), 2 (conservation), 3 (bounds and overload policies); bells. */
#include "runtime_help.h"
#include "runtime/mailbox_impl.h"

struct send_many {
	struct om_actor_id to;
	uint64_t from, to_excl;
	enum om_err last;
	uint64_t taken;
};

static void
do_send_many(struct om_ctx *cx, void *arg)
{
	struct send_many *s = arg;

	for (uint64_t i = s->from; i < s->to_excl; i++) {
		s->last = om_send_u64(cx, s->to, T_DATA, i);
		if (s->last != OM_OK) {
			return;
		}
		s->taken++;
	}
}

static void
test_messages_from_one_sender_arrive_in_order(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct om_system *sys = sim_new(seed);
		struct probe_log log = { 0 };
		struct om_actor_id to = spawn_probe(sys, &probe_def, &log);
		struct om_actor_id a = spawn_probe(sys, &probe_def, NULL);
		struct om_actor_id b = spawn_probe(sys, &probe_def, NULL);
		struct send_many from_a = { .to = to, .from = 0, .to_excl = 100 };
		struct send_many from_b = { .to = to, .from = 1000, .to_excl = 1100 };
		uint64_t next_a = 0, next_b = 1000;

		post_call(sys, a, do_send_many, &from_a);
		post_call(sys, b, do_send_many, &from_b);
		(void)om_sim_run(sys);
		assert_int_equal(log.count, 200);
		for (size_t i = 0; i < log.count; i++) {
			if (om_actor_id_eq(log.from[i], a)) {
				assert_int_equal(log.value[i], next_a++);
			} else {
				assert_int_equal(log.value[i], next_b++);
			}
		}
		sys_end(sys);
	}
}

/* A burst to an actor that is not running yet: refused exactly at the bound. */
static void
test_full_mailbox_refuses_and_sender_keeps_the_message(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("small"), .mailbox_slots = 10 };
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id to = spawn_probe(sys, &def, &log);
	struct om_msg *msg;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(post_u64(sys, to, T_DATA, i), OM_OK);
	}
	msg = om_system_msg_new(sys, T_DATA, 8);
	assert_int_equal(om_system_send(sys, to, &msg), OM_ERR_FULL);
	assert_non_null(msg);
	(void)om_sim_run(sys);
	assert_int_equal(om_system_send(sys, to, &msg), OM_OK); /* there is room again */
	assert_null(msg);
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 11);
	sys_end(sys);
}

static void
test_drop_new_frees_and_counts(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("dropper"), .mailbox_slots = 4,
						 .overload = OM_OVERLOAD_DROP_NEW };
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id to = spawn_probe(sys, &def, &log);
	struct om_system_stats st;
	struct om_actor_stats as;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(post_u64(sys, to, T_DATA, i), OM_OK);
	}
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_full, 6);
	assert_int_equal(st.queued, 4);
	assert_int_equal(om_actor_stats(sys, to, &as), OM_OK);
	assert_int_equal(as.dropped, 6);
	assert_int_equal(as.depth, 4);
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 4);
	assert_int_equal(log.value[3], 3);
	sys_end(sys);
}

static void
test_drop_oldest_keeps_the_newest(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("ring"), .mailbox_slots = 4,
						 .overload = OM_OVERLOAD_DROP_OLDEST };
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id to = spawn_probe(sys, &def, &log);
	struct om_system_stats st;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(post_u64(sys, to, T_DATA, i), OM_OK);
	}
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_full, 6);
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(log.value[i], 6 + i);
	}
	sys_end(sys);
}

static void
test_byte_limit_counts_payload(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("bytes"), .mailbox_bytes = 1000 };
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id to = spawn_probe(sys, &def, &log);
	struct om_msg *msg;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		msg = om_system_msg_new(sys, T_DATA, 300);
		memset(msg->payload, 0, 300);
		assert_int_equal(om_system_send(sys, to, &msg), OM_OK);
	}
	msg = om_system_msg_new(sys, T_DATA, 101);
	memset(msg->payload, 0, 101);
	assert_int_equal(om_system_send(sys, to, &msg), OM_ERR_FULL);
	om_msg_free(NULL, msg);
	msg = om_system_msg_new(sys, T_DATA, 100);
	memset(msg->payload, 0, 100);
	assert_int_equal(om_system_send(sys, to, &msg), OM_OK);
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 4);
	sys_end(sys);
}

static struct om_msg *
zeroes(struct om_system *sys, size_t size)
{
	struct om_msg *msg = om_system_msg_new(sys, T_DATA, size);

	assert_non_null(msg);
	memset(msg->payload, 0, size);
	return msg;
}

/* Drop-oldest drops as many as it takes; nothing ever makes room for what is over the limit. */
static void
test_byte_limit_is_kept_by_every_policy(void **state)
{
	static const struct om_actor_def oldest = { PROBE_DEF("oldest"), .mailbox_bytes = 1000,
						    .overload = OM_OVERLOAD_DROP_OLDEST };
	static const enum om_overload all[] = { OM_OVERLOAD_REFUSE, OM_OVERLOAD_DROP_NEW,
						OM_OVERLOAD_DROP_OLDEST, OM_OVERLOAD_BLOCK };
	struct om_system *sys = sim_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id to = spawn_probe(sys, &oldest, &log);
	struct om_system_stats st;
	struct om_msg *msg;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		msg = zeroes(sys, 100);
		assert_int_equal(om_system_send(sys, to, &msg), OM_OK);
	}
	msg = zeroes(sys, 850);
	assert_int_equal(om_system_send(sys, to, &msg), OM_OK);
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_full, 9);
	assert_int_equal(st.queued, 2);
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 2);
	assert_int_equal(post_u64(sys, to, T_DATA, 7), OM_OK); /* the count in head is right */
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 3);
	for (unsigned i = 0; i < OM_COUNT(all); i++) {
		const struct om_actor_def def = { PROBE_DEF("any"), .mailbox_bytes = 1000,
						  .overload = all[i] };

		to = spawn_probe(sys, &def, NULL);
		msg = zeroes(sys, 1001);
		assert_int_equal(om_system_send(sys, to, &msg), OM_ERR_TOO_BIG);
		assert_non_null(msg);
		om_msg_free(NULL, msg);
		om_system_stop_actor(sys, to);
		(void)om_sim_run(sys);
	}
	sys_end(sys);
}

static void
do_send_urgent(struct om_ctx *cx, void *arg)
{
	struct send_many *s = arg;

	for (uint64_t i = s->from; i < s->to_excl; i++) {
		struct om_msg *msg = om_msg_new(cx, T_DATA, 8);

		*(uint64_t *)(void *)msg->payload = i;
		s->last = om_send_urgent(cx, s->to, &msg);
		om_msg_free(cx, msg);
		s->taken += s->last == OM_OK;
	}
}

struct order {
	struct send_many normal, urgent;
};

static void
do_normal_then_urgent(struct om_ctx *cx, void *arg)
{
	struct order *o = arg;

	do_send_many(cx, &o->normal);
	do_send_urgent(cx, &o->urgent);
}

static void
test_urgent_goes_first_and_is_bounded(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("lanes"), .mailbox_slots = 8 };

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct om_system *sys = sim_new(seed);
		struct probe_log log = { 0 };
		struct om_actor_id to = spawn_probe(sys, &def, &log);
		struct om_actor_id from = spawn_probe(sys, &probe_def, NULL);
		struct order o = { .normal = { .to = to, .from = 0, .to_excl = 8 },
				   .urgent = { .to = to, .from = 100, .to_excl = 140 } };
		size_t urgent = 0;

		post_call(sys, from, do_normal_then_urgent, &o);
		/* One step of `from` does it all; `to` may have run its start before. */
		(void)om_sim_run(sys);
		assert_int_equal(o.normal.taken, 8);
		assert_true(o.urgent.taken >= 16 && o.urgent.taken <= 17); /* 2 x 8 */
		assert_int_equal(o.urgent.last, OM_ERR_FULL);
		while (urgent < log.count && log.value[urgent] >= 100) {
			urgent++;
		}
		assert_int_equal(urgent, o.urgent.taken); /* all urgent ones came first */
		assert_int_equal(log.count, 8 + o.urgent.taken);
		sys_end(sys);
	}
}

static unsigned freed;

static void
count_free(void *obj)
{
	(void)obj;
	freed++;
}

static void
test_dropped_owner_message_is_freed_exactly_once(void **state)
{
	static const struct om_actor_def def = { PROBE_DEF("small"), .mailbox_slots = 3 };
	struct om_system *sys = sim_new(3);
	struct om_actor_id to = spawn_probe(sys, &def, NULL);
	struct om_actor_id killer = spawn_probe(sys, &probe_def, NULL);
	int obj;

	(void)state;
	(void)killer;
	freed = 0;
	for (unsigned i = 0; i < 3; i++) {
		struct om_msg *msg = om_system_msg_new_owner(sys, T_DATA, &obj, count_free);

		assert_ptr_equal(om_msg_obj(msg), &obj);
		assert_int_equal(om_system_send(sys, to, &msg), OM_OK);
	}
	{
		struct om_msg *msg = om_system_msg_new_owner(sys, T_DATA, &obj, count_free);

		assert_int_equal(om_system_send(sys, to, &msg), OM_ERR_FULL);
		assert_ptr_equal(om_msg_take_obj(msg), &obj); /* taken out: not freed */
		om_msg_free(NULL, msg);
	}
	assert_int_equal(freed, 0);
	sys_end(sys); /* handled by `otherwise`, which ignores the object: freed with the message */
	assert_int_equal(freed, 3);
}

/*
 * om_mbox_control reads the count of pushes before its exchange of life; what is handled between the
 * two takes the actor past its mark.
 */
static void
test_a_stop_is_due_when_its_mark_is_passed(void **state)
{
	const uint64_t at = OM_LIFE_STOP | UINT64_C(100) << OM_LIFE_STOP_SHIFT;
	struct om_actor a = { .phase = OM_PHASE_RUN,
			      .head = UINT64_C(110) << 1,
			      .def = &probe_def };

	(void)state;
	a.taken = 99;
	assert_int_equal(om_mbox_order(&a, at), 0);
	a.taken = 100;
	assert_int_equal(om_mbox_order(&a, at), OM_LIFE_STOP);
	a.taken = 101;
	assert_int_equal(om_mbox_order(&a, at), OM_LIFE_STOP);
	/* A full mailbox of the largest size lies before the mark: not due, also across the wrap. */
	a.taken = (uint32_t)100 - OM_MBOX_SLOTS_MAX;
	assert_int_equal(om_mbox_order(&a, at), 0);
	/* Slept through half of all counts: the mark seems to lie ahead, but nothing is there. */
	a.taken = 110;
	assert_int_equal(om_mbox_order(&a, OM_LIFE_STOP | UINT64_C(200) << OM_LIFE_STOP_SHIFT),
			 OM_LIFE_STOP);
}

/* --- bells ------------------------------------------------------------------------------------ */

struct bell_test {
	struct om_bell *bell;
	uint64_t cookie;
	uint64_t rung;
	unsigned deliveries;
	uint64_t last_cookie;
};

static void
do_own(struct om_ctx *cx, void *arg)
{
	struct bell_test *t = arg;

	om_bell_own(cx, t->bell, t->cookie);
}

static struct bell_test *bell_now;

static enum om_err
on_bell(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	bell_now->rung += om_bell_rung_of(msg)->count;
	bell_now->last_cookie = om_bell_rung_of(msg)->cookie;
	bell_now->deliveries++;
	return OM_OK;
}

static const struct om_handler bell_handlers[] = {
	{ T_CALL, probe_on_call },
	{ OM_SYS_BELL, on_bell },
};

static const struct om_actor_def bell_def = { .name = "bell",
					      .state_size = sizeof(struct probe),
					      .start = probe_start,
					      .stop = probe_stop,
					      .handlers = bell_handlers,
					      .handler_count = OM_COUNT(bell_handlers) };

static void
test_bell_counts_and_is_bounded(void **state)
{
	struct om_system *sys = sim_new(5);
	struct om_actor_id owner = spawn_probe(sys, &bell_def, NULL);
	struct bell_test t = { .cookie = 77 };

	(void)state;
	bell_now = &t;
	assert_int_equal(om_bell_new(sys, 4, &t.bell), OM_OK);
	assert_int_equal(om_bell_reserve(t.bell), OM_ERR_GONE); /* nobody owns it */
	run_in(sys, owner, do_own, &t);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(om_bell_reserve(t.bell), OM_OK);
	}
	assert_int_equal(om_bell_reserve(t.bell), OM_ERR_FULL);
	assert_int_equal(om_bell_reserve_force(t.bell), OM_OK);
	om_bell_cancel(t.bell);
	om_bell_ring(t.bell);
	om_bell_ring_many(t.bell, 2);
	(void)om_sim_run(sys);
	assert_int_equal(t.rung, 3);
	assert_int_equal(t.deliveries, 1); /* three items, one message */
	assert_int_equal(t.last_cookie, 77);
	assert_int_equal(om_bell_depth(t.bell), 1);
	om_bell_ring(t.bell);
	om_bell_poke(t.bell);
	(void)om_sim_run(sys);
	assert_int_equal(t.rung, 5);
	assert_int_equal(om_bell_depth(t.bell), 0);
	om_system_stop_actor(sys, owner);
	(void)om_sim_run(sys);
	assert_int_equal(om_bell_reserve(t.bell), OM_ERR_GONE);
	om_bell_unref(t.bell);
	sys_end(sys);
}

/* What was rung when the owner ended comes to the next owner; nothing is lost. */
static void
test_bell_changes_its_owner(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct om_system *sys = sim_new(seed);
		struct om_actor_id first = spawn_probe(sys, &bell_def, NULL);
		struct om_actor_id second = spawn_probe(sys, &bell_def, NULL);
		struct bell_test t = { .cookie = 1 };
		struct bell_test t2;

		bell_now = &t;
		assert_int_equal(om_bell_new(sys, 0, &t.bell), OM_OK);
		run_in(sys, first, do_own, &t);
		assert_int_equal(om_bell_reserve(t.bell), OM_OK);
		assert_int_equal(om_bell_reserve(t.bell), OM_OK);
		om_system_stop_actor(sys, first);
		om_bell_ring(t.bell); /* may come before or after the end */
		if (seed % 2 == 0) {
			(void)om_sim_run(sys);
		}
		om_bell_ring(t.bell);
		t2 = t;
		t2.cookie = 2;
		run_in(sys, second, do_own, &t2);
		assert_int_equal(t.rung, 2);
		assert_int_equal(om_bell_depth(t.bell), 0);
		om_bell_unref(t.bell);
		sys_end(sys);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages_from_one_sender_arrive_in_order),
		cmocka_unit_test(test_full_mailbox_refuses_and_sender_keeps_the_message),
		cmocka_unit_test(test_drop_new_frees_and_counts),
		cmocka_unit_test(test_drop_oldest_keeps_the_newest),
		cmocka_unit_test(test_byte_limit_counts_payload),
		cmocka_unit_test(test_byte_limit_is_kept_by_every_policy),
		cmocka_unit_test(test_urgent_goes_first_and_is_bounded),
		cmocka_unit_test(test_dropped_owner_message_is_freed_exactly_once),
		cmocka_unit_test(test_a_stop_is_due_when_its_mark_is_passed),
		cmocka_unit_test(test_bell_counts_and_is_bounded),
		cmocka_unit_test(test_bell_changes_its_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
