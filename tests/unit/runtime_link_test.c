/* SPDX-License-Identifier: ISC */
/* Promise 6: monitors and links; names and groups. */
#include <stdio.h>
#include "runtime_help.h"
#include "runtime/runtime_impl.h"

struct mon {
	struct om_actor_id who;
	uint64_t ref;
	enum om_err err;
	size_t downs_then; /* when the monitor was taken off */
};

static struct om_down downs[64];
static size_t down_count;

static enum om_err
on_down(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	downs[down_count++] = *(const struct om_down *)(const void *)msg->payload;
	return OM_OK;
}

static const struct om_handler watcher_handlers[] = {
	{ T_CALL, probe_on_call },
	{ OM_SYS_DOWN, on_down },
};
static const struct om_actor_def watcher_def = { .name = "watcher",
						 .state_size = sizeof(struct probe),
						 .start = probe_start,
						 .stop = probe_stop,
						 .handlers = watcher_handlers,
						 .handler_count = OM_COUNT(watcher_handlers),
						 .otherwise = probe_on_any };

static void
do_monitor(struct om_ctx *cx, void *arg)
{
	struct mon *m = arg;

	m->err = om_monitor(cx, m->who, &m->ref);
}

static void
do_demonitor(struct om_ctx *cx, void *arg)
{
	struct mon *m = arg;

	om_demonitor(cx, m->ref);
	m->downs_then = down_count;
}

static void
do_link(struct om_ctx *cx, void *arg)
{
	struct mon *m = arg;

	m->err = om_link(cx, m->who);
}

static void
do_unlink(struct om_ctx *cx, void *arg)
{
	om_unlink(cx, ((struct mon *)arg)->who);
}

static void
do_trap(struct om_ctx *cx, void *arg)
{
	om_trap_exits(cx, arg != NULL);
}

static void
do_fail(struct om_ctx *cx, void *arg)
{
	om_fail(cx, *(enum om_err *)arg);
}

static void
test_down_comes_once_with_the_reason(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct om_system *sys = sim_new(seed);
		struct om_actor_id watcher = spawn_probe(sys, &watcher_def, NULL);
		struct om_actor_id target = spawn_probe(sys, &probe_def, NULL);
		struct mon m = { .who = target };
		enum om_err why = OM_ERR_VM;

		down_count = 0;
		post_call(sys, watcher, do_monitor, &m); /* races with the failure */
		post_call(sys, target, do_fail, &why);
		(void)om_sim_run(sys);
		assert_int_equal(m.err, OM_OK);
		assert_int_equal(down_count, 1);
		assert_int_equal(downs[0].who.v, target.v);
		assert_int_equal(downs[0].ref, m.ref);
		assert_true(downs[0].why == OM_ERR_VM || downs[0].why == OM_ERR_GONE);
		run_in(sys, watcher, do_monitor, &m); /* gone already: at once */
		assert_int_equal(down_count, 2);
		assert_int_equal(downs[1].why, OM_ERR_GONE);
		sys_end(sys);
	}
}

static void
test_no_down_after_demonitor(void **state)
{
	unsigned before = 0, never = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct om_system *sys = sim_new(seed);
		struct om_actor_id watcher = spawn_probe(sys, &watcher_def, NULL);
		struct om_actor_id target = spawn_probe(sys, &probe_def, NULL);
		struct mon m = { .who = target };
		enum om_err why = OM_ERR_VM;

		down_count = 0;
		run_in(sys, watcher, do_monitor, &m);
		post_call(sys, target, do_fail, &why);
		for (uint64_t i = 0; i < seed % 7; i++) {
			(void)om_sim_step(sys);
		}
		post_call(sys, watcher, do_demonitor, &m);
		(void)om_sim_run(sys);
		assert_int_equal(down_count, m.downs_then);
		before += down_count == 1;
		never += down_count == 0;
		sys_end(sys);
	}
	assert_true(before > 0 && never > 0); /* both orders were seen, and nothing else */
	assert_int_equal(before + never, 100);
}

static void
test_many_monitors_of_one_target(void **state)
{
	struct om_system *sys = sim_new(2);
	struct om_actor_id watcher = spawn_probe(sys, &watcher_def, NULL);
	struct om_actor_id target = spawn_probe(sys, &probe_def, NULL);
	struct mon m[20];

	(void)state;
	down_count = 0;
	for (unsigned i = 0; i < 20; i++) {
		m[i] = (struct mon){ .who = target };
		run_in(sys, watcher, do_monitor, &m[i]);
	}
	for (unsigned i = 0; i < 20; i += 2) {
		run_in(sys, watcher, do_demonitor, &m[i]);
	}
	om_system_stop_actor(sys, target);
	(void)om_sim_run(sys);
	assert_int_equal(down_count, 10);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(downs[i].why, OM_OK);
	}
	sys_end(sys);
}

static void
test_link_fails_the_other_and_normal_end_does_not(void **state)
{
	(void)state;
	for (int from = 0; from < 2; from++) {
		for (int failing = 0; failing < 2; failing++) {
			struct om_system *sys = sim_new((uint64_t)(2 * from + failing));
			struct probe_log log[2] = { { 0 }, { 0 } };
			struct om_actor_id a[2] = { spawn_probe(sys, &probe_def, &log[0]),
						    spawn_probe(sys, &probe_def, &log[1]) };
			struct mon m = { .who = a[1] };
			enum om_err why = failing ? OM_ERR_NET : OM_OK;

			run_in(sys, a[0], do_link, &m);
			run_in(sys, a[from], do_fail, &why);
			assert_int_equal(log[from].stops, 1);
			assert_int_equal(log[1 - from].stops, failing);
			if (failing) {
				assert_int_equal(log[1 - from].stop_why, OM_ERR_NET);
			}
			sys_end(sys);
		}
	}
}

static void
test_trapping_actor_gets_a_message(void **state)
{
	struct om_system *sys = sim_new(3);
	struct probe_log log = { 0 };
	struct om_actor_id a = spawn_probe(sys, &watcher_def, &log);
	struct om_actor_id b = spawn_probe(sys, &probe_def, NULL);
	struct mon m = { .who = b };
	enum om_err why = OM_ERR_NET;

	(void)state;
	down_count = 0;
	run_in(sys, a, do_trap, &log);
	run_in(sys, a, do_link, &m);
	run_in(sys, b, do_fail, &why);
	assert_int_equal(log.stops, 0);
	assert_int_equal(down_count, 1);
	assert_int_equal(downs[0].ref, 0);
	assert_int_equal(downs[0].why, OM_ERR_NET);
	run_in(sys, a, do_link, &m); /* to one that is gone */
	assert_int_equal(down_count, 2);
	assert_int_equal(downs[1].why, OM_ERR_GONE);
	sys_end(sys);
}

static void
test_unlink_from_either_side(void **state)
{
	(void)state;
	for (int side = 0; side < 2; side++) {
		struct om_system *sys = sim_new(4);
		struct probe_log log[2] = { { 0 }, { 0 } };
		struct om_actor_id a[2] = { spawn_probe(sys, &probe_def, &log[0]),
					    spawn_probe(sys, &probe_def, &log[1]) };
		struct mon m = { .who = a[1] }, u = { .who = a[1 - side] };
		enum om_err why = OM_ERR_NET;

		run_in(sys, a[0], do_link, &m);
		run_in(sys, a[side], do_unlink, &u);
		run_in(sys, a[0], do_fail, &why);
		assert_int_equal(log[1].stops, 0);
		sys_end(sys);
	}
}

/* --- names and groups ------------------------------------------------------------------------- */

struct naming {
	const char *name;
	enum om_err err;
	size_t took;
};

static void
do_register(struct om_ctx *cx, void *arg)
{
	struct naming *n = arg;

	n->err = om_register(cx, n->name);
}

static void
do_join(struct om_ctx *cx, void *arg)
{
	struct naming *n = arg;

	n->err = om_join(cx, n->name);
}

static void
do_leave(struct om_ctx *cx, void *arg)
{
	om_leave(cx, ((struct naming *)arg)->name);
}

static void
do_publish(struct om_ctx *cx, void *arg)
{
	struct naming *n = arg;
	struct om_msg *msg = om_msg_new(cx, T_DATA, 8);

	*(uint64_t *)(void *)msg->payload = 5;
	n->took = om_publish(cx, n->name, msg);
	om_msg_free(cx, msg);
}

static void
test_names(void **state)
{
	struct om_system *sys = sim_new(5);
	struct om_actor_id a = spawn_probe(sys, &probe_def, NULL);
	struct om_actor_id b = spawn_probe(sys, &probe_def, NULL);
	struct naming n = { .name = "ledger" };

	(void)state;
	assert_int_equal(om_whereis(sys, "ledger").v, 0);
	run_in(sys, a, do_register, &n);
	assert_int_equal(n.err, OM_OK);
	run_in(sys, a, do_register, &n); /* its own name again: fine */
	assert_int_equal(n.err, OM_OK);
	run_in(sys, b, do_register, &n);
	assert_int_equal(n.err, OM_ERR_EXISTS);
	assert_int_equal(om_whereis(sys, "ledger").v, a.v);
	om_system_stop_actor(sys, a);
	(void)om_sim_run(sys);
	assert_int_equal(om_whereis(sys, "ledger").v, 0); /* free again */
	run_in(sys, b, do_register, &n);
	assert_int_equal(n.err, OM_OK);
	n.name = "";
	run_in(sys, b, do_register, &n);
	assert_int_equal(n.err, OM_ERR_INVALID);
	sys_end(sys);
}

static void
test_groups(void **state)
{
	struct om_system *sys = sim_new(6);
	struct probe_log log[3] = { { 0 }, { 0 }, { 0 } };
	struct om_actor_id a[3];
	struct naming n = { .name = "events" };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		a[i] = spawn_probe(sys, &probe_def, &log[i]);
		run_in(sys, a[i], do_join, &n);
		run_in(sys, a[i], do_join, &n); /* twice is once */
	}
	run_in(sys, a[0], do_publish, &n);
	assert_int_equal(n.took, 3);
	run_in(sys, a[1], do_leave, &n);
	om_system_stop_actor(sys, a[2]);
	(void)om_sim_run(sys);
	run_in(sys, a[0], do_publish, &n);
	assert_int_equal(n.took, 1);
	assert_int_equal(log[0].count, 2);
	assert_int_equal(log[1].count, 1);
	assert_int_equal(log[2].count, 1);
	sys_end(sys);
}

enum { MANY_NAMES = 1500 }; /* the tables grow some times */

static void
many_names(struct om_system *sys, const struct om_actor_id *ids, unsigned step)
{
	struct om_actor_stats stats;
	char name[32];

	for (unsigned i = 0; i < MANY_NAMES; i++) {
		bool there = i % step == 0;

		(void)snprintf(name, sizeof(name), "actor.%u", i);
		assert_int_equal(om_whereis(sys, name).v, there ? ids[i].v : 0);
		if (there) {
			assert_int_equal(om_actor_stats(sys, ids[i], &stats), OM_OK);
			assert_string_equal(stats.name, name);
		}
	}
}

static void
test_many_names(void **state)
{
	struct om_system *sys = sim_new(7);
	struct om_actor_id *ids = calloc(MANY_NAMES, sizeof(*ids));
	char name[32];

	(void)state;
	assert_non_null(ids);
	for (unsigned i = 0; i < MANY_NAMES; i++) {
		struct naming n = { .name = name };

		(void)snprintf(name, sizeof(name), "actor.%u", i);
		ids[i] = spawn_probe(sys, &probe_def, NULL);
		run_in(sys, ids[i], do_register, &n);
		n.name = "of.no.interest"; /* the first name is the one that is shown */
		run_in(sys, ids[i], do_register, &n);
	}
	many_names(sys, ids, 1);
	for (unsigned i = 0; i < MANY_NAMES; i++) {
		if (i % 3 != 0) {
			om_system_stop_actor(sys, ids[i]);
		}
	}
	(void)om_sim_run(sys);
	many_names(sys, ids, 3);
	sys_end(sys);
	free(ids);
}

/* Members hear in the order in which they joined, whoever has left in between. */
static void
test_a_group_keeps_its_order(void **state)
{
	struct om_system *sys = sim_new(8);
	struct naming n = { .name = "line" };
	struct om_actor_id ids[7];
	uint64_t *members = NULL;

	(void)state;
	for (unsigned i = 0; i < 7; i++) {
		ids[i] = spawn_probe(sys, &probe_def, NULL);
		run_in(sys, ids[i], do_join, &n);
	}
	run_in(sys, ids[0], do_leave, &n);
	run_in(sys, ids[3], do_leave, &n);
	run_in(sys, ids[6], do_leave, &n);
	run_in(sys, ids[3], do_join, &n);
	assert_int_equal(om_reg_members(sys, "line", &members), 5);
	assert_int_equal(members[0], ids[1].v);
	assert_int_equal(members[1], ids[2].v);
	assert_int_equal(members[2], ids[4].v);
	assert_int_equal(members[3], ids[5].v);
	assert_int_equal(members[4], ids[3].v);
	free(members);
	sys_end(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_down_comes_once_with_the_reason),
		cmocka_unit_test(test_no_down_after_demonitor),
		cmocka_unit_test(test_many_monitors_of_one_target),
		cmocka_unit_test(test_link_fails_the_other_and_normal_end_does_not),
		cmocka_unit_test(test_trapping_actor_gets_a_message),
		cmocka_unit_test(test_unlink_from_either_side),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_a_group_keeps_its_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
