/* SPDX-License-Identifier: ISC */
/*
 * A sender finds that the slot was closed while it pushed, and a new tenant comes at the worst
 * moment.  mailbox.c is compiled into this test with a hook before its exchanges of a lane, so the
 * interleaving is exact.
 */
#include "runtime_help.h"
#include "runtime/mailbox_impl.h"

static void (*before_push)(void), (*before_take)(void);

static void
hook(void (**fn)(void))
{
	void (*now)(void) = *fn;

	*fn = NULL;
	if (now != NULL) {
		now();
	}
}

static inline bool
hooked_cas_64_value(uint64_t *word, uint64_t old, uint64_t new, uint64_t *seen)
{
	hook(&before_push);
	return ck_pr_cas_64_value(word, old, new, seen);
}

static inline bool
hooked_cas_64(uint64_t *word, uint64_t old, uint64_t new)
{
	hook(&before_take);
	return ck_pr_cas_64(word, old, new);
}

static inline uint64_t
hooked_fas_64(uint64_t *word, uint64_t new)
{
	hook(&before_take);
	return ck_pr_fas_64(word, new);
}

#define ck_pr_cas_64_value hooked_cas_64_value
#define ck_pr_cas_64       hooked_cas_64
#define ck_pr_fas_64       hooked_fas_64
#include "runtime/mailbox.c"

static struct {
	struct om_system *sys;
	struct om_actor_id old, maker, new;
	struct probe_log log; /* of the new tenant */
	bool moves_in, done;
} w;

static void
do_move_in(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_spawn(cx, &probe_def, &w.log, &w.new), OM_OK);
	assert_int_equal(w.new.v &OM_SLOT_MASK, w.old.v & OM_SLOT_MASK);
	for (uint64_t i = 1; i <= 3; i++) {
		struct om_msg *msg = om_msg_new(cx, T_DATA, sizeof(i));

		assert_non_null(msg);
		*(uint64_t *)(void *)msg->payload = i;
		assert_int_equal(om_send_urgent(cx, w.new, &msg), OM_OK);
	}
	w.done = true;
}

static void
new_tenant_comes(void)
{
	post_call(w.sys, w.maker, do_move_in, NULL);
	while (!w.done) {
		assert_true(om_sim_step(w.sys));
	}
}

static void
old_tenant_ends(void)
{
	om_system_stop_actor(w.sys, w.old);
	(void)om_sim_run(w.sys);
	assert_int_equal(om_system_wait(w.sys, w.old, 0), OM_OK);
	before_take = w.moves_in ? new_tenant_comes : NULL;
}

static void
test_a_late_sender_leaves_a_new_tenants_lane_alone(void **state)
{
	struct om_system_stats st;
	struct om_msg *msg;

	(void)state;
	memset(&w, 0, sizeof(w));
	w.sys = sim_new(1);
	w.maker = spawn_probe(w.sys, &probe_def, NULL);
	w.old = spawn_probe(w.sys, &probe_def, NULL);
	(void)om_sim_run(w.sys);
	msg = om_system_msg_new(w.sys, T_DATA, 8);
	assert_non_null(msg);
	w.moves_in = true;
	before_push = old_tenant_ends;
	assert_int_equal(om_mbox_post_sys(w.sys, w.old.v, msg), OM_OK);
	assert_true(w.done);
	(void)om_sim_run(w.sys);
	assert_int_equal(w.log.count, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(w.log.value[i], i + 1);
	}
	om_system_stats(w.sys, &st);
	assert_int_equal(st.dropped_stale, 1);
	sys_end(w.sys);
}

/* Without a new tenant the late message is dropped by its sender. */
static void
test_a_late_message_is_dropped(void **state)
{
	struct om_system_stats st;
	struct om_msg *msg;

	(void)state;
	memset(&w, 0, sizeof(w));
	w.sys = sim_new(1);
	w.old = spawn_probe(w.sys, &probe_def, NULL);
	(void)om_sim_run(w.sys);
	msg = om_system_msg_new(w.sys, T_DATA, 8);
	assert_non_null(msg);
	before_push = old_tenant_ends;
	assert_int_equal(om_mbox_post_sys(w.sys, w.old.v, msg), OM_OK);
	om_system_stats(w.sys, &st);
	assert_int_equal(st.dropped_stale, 1);
	assert_int_equal(st.queued, 0);
	sys_end(w.sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_late_sender_leaves_a_new_tenants_lane_alone),
		cmocka_unit_test(test_a_late_message_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
