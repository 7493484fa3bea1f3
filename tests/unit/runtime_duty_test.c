/* SPDX-License-Identifier: ISC */
/*
 * Requests that are kept, handed on, delegated or used for something else, and answers to askers
 * that have ended.  Promises 2 and 4.
 */
#include "runtime_help.h"
#include "runtime/runtime_impl.h"

#define T_ASK  60
#define T_KEEP 61
#define T_DUTY 62 /* a struct om_request */

/* --- actors ---------------------------------------------------------------------------------------- */

static struct { /* of the test; one thread */
	struct om_msg *kept[4];
	size_t kept_count;
	struct om_actor_id to;
	enum om_err err;
	unsigned answers;
	struct om_answer answer;
	uint64_t value;
} w;

static enum om_err
hub_on_keep(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	assert_true(w.kept_count < OM_COUNT(w.kept));
	w.kept[w.kept_count] = om_msg_take(cx, msg);
	assert_non_null(w.kept[w.kept_count++]);
	return OM_OK;
}

/* The duty goes to another actor, in a message. */
static enum om_err
hub_on_ask(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_msg *duty = om_msg_new(cx, T_DUTY, sizeof(struct om_request));

	(void)state;
	assert_non_null(duty);
	*(struct om_request *)(void *)duty->payload = om_later(cx, msg);
	return om_send(cx, w.to, &duty);
}

static enum om_err
debtor_on_duty(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_request rq = *(const struct om_request *)(const void *)msg->payload;
	struct om_msg *reply = om_msg_new(cx, T_DATA, 8);

	(void)state;
	assert_non_null(reply);
	*(uint64_t *)(void *)reply->payload = 42;
	return om_reply_to(cx, &rq, &reply);
}

static const struct om_handler hub_handlers[] = {
	{ T_CALL, probe_on_call },
	{ T_KEEP, hub_on_keep },
	{ T_ASK, hub_on_ask },
	{ T_DUTY, debtor_on_duty },
};
static const struct om_actor_def hub_def = { .name = "hub",
					     .state_size = sizeof(struct probe),
					     .start = probe_start,
					     .stop = probe_stop,
					     .handlers = hub_handlers,
					     .handler_count = OM_COUNT(hub_handlers),
					     .otherwise = probe_on_any };

static void
on_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	(void)cx;
	(void)state;
	w.answers++;
	w.answer = *answer;
	w.value = answer->msg != NULL && answer->msg->size >= 8 ? om_msg_u64(answer->msg) : 0;
}

struct ask {
	struct om_actor_id to;
	uint32_t type;
};

static void
do_ask(struct om_ctx *cx, void *arg)
{
	const struct ask *ask = arg;
	struct om_msg *msg = om_msg_new(cx, ask->type, 8);

	assert_non_null(msg);
	assert_int_equal(om_ask(cx, ask->to, &msg, 100, on_answer, 0), OM_OK);
}

static struct om_system *
world_new(uint64_t seed)
{
	memset(&w, 0, sizeof(w));
	return sim_new(seed);
}

static uint32_t
duties_of(struct om_system *sys, struct om_actor_id who)
{
	const struct om_actor *a = om_actor_at(sys, who.v);

	return a->ext != NULL ? a->ext->later_used : 0;
}

/* A kept message is still the test's: nothing else gets its memory. */
static void
do_check_kept(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg[16];

	(void)arg;
	for (unsigned i = 0; i < OM_COUNT(msg); i++) {
		msg[i] = om_msg_new(cx, T_DATA, 8);
		assert_non_null(msg[i]);
		for (size_t k = 0; k < w.kept_count; k++) {
			assert_ptr_not_equal(msg[i], w.kept[k]);
		}
	}
	for (unsigned i = 0; i < OM_COUNT(msg); i++) {
		om_msg_free(cx, msg[i]);
	}
}

static void
do_free_kept(struct om_ctx *cx, void *arg)
{
	(void)arg;
	while (w.kept_count > 0) {
		om_msg_free(cx, w.kept[--w.kept_count]);
	}
}

/* --- kept and forwarded ------------------------------------------------------------------------------ */

/* Keeps this one and forwards the one kept before. */
static enum om_err
relay_on_any(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	w.kept[w.kept_count++] = om_msg_take(cx, msg);
	if (w.kept_count == 2) {
		struct om_msg *older = w.kept[0];

		w.kept[0] = w.kept[1];
		w.kept_count = 1;
		return om_forward(cx, w.to, older);
	}
	return OM_OK;
}

static const struct om_actor_def relay_def = {
	.name = "relay", .handlers = hub_handlers, .handler_count = 1, .otherwise = relay_on_any
};

static void
test_forwarding_an_older_message_keeps_this_one(void **state)
{
	struct om_system *sys = world_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id relay = spawn_probe(sys, &relay_def, NULL);

	(void)state;
	w.to = spawn_probe(sys, &probe_def, &log);
	for (uint64_t i = 1; i <= 3; i++) {
		assert_int_equal(post_u64(sys, relay, T_DATA, i), OM_OK);
		(void)om_sim_run(sys);
	}
	assert_int_equal(log.count, 2);
	assert_int_equal(log.value[1], 2);
	run_in(sys, relay, do_check_kept, NULL);
	assert_int_equal(om_msg_u64(w.kept[0]), 3);
	run_in(sys, relay, do_free_kept, NULL);
	sys_end(sys);
}

static enum om_err
vain_on_any(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	w.kept[w.kept_count++] = om_msg_take(cx, msg);
	w.err = om_forward(cx, w.to, msg);
	return OM_OK;
}

static const struct om_actor_def vain_def = {
	.name = "vain", .handlers = hub_handlers, .handler_count = 1, .otherwise = vain_on_any
};

static void
test_a_forward_that_fails_leaves_a_kept_message_kept(void **state)
{
	struct om_system *sys = world_new(1);
	struct om_actor_id vain = spawn_probe(sys, &vain_def, NULL);

	(void)state;
	w.to = spawn_probe(sys, &probe_def, NULL);
	om_system_stop_actor(sys, w.to);
	(void)om_sim_run(sys);
	assert_int_equal(post_u64(sys, vain, T_DATA, 7), OM_OK);
	(void)om_sim_run(sys);
	assert_int_equal(w.err, OM_ERR_STALE);
	run_in(sys, vain, do_check_kept, NULL);
	assert_int_equal(om_msg_u64(w.kept[0]), 7);
	run_in(sys, vain, do_free_kept, NULL);
	sys_end(sys);
}

static void
do_forward_kept(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_forward(cx, w.to, w.kept[--w.kept_count]), OM_OK);
}

static void
test_a_forwarded_duty_is_no_longer_ours(void **state)
{
	struct om_system *sys = world_new(1);
	struct om_actor_id hub = spawn_probe(sys, &hub_def, NULL);
	struct om_actor_id asker = spawn_probe(sys, &probe_def, NULL);
	struct ask ask = { .to = hub, .type = T_KEEP };
	struct om_system_stats st;

	(void)state;
	w.to = spawn_probe(sys, &probe_def, NULL);
	run_in(sys, asker, do_ask, &ask);
	assert_int_equal(duties_of(sys, hub), 1);
	run_in(sys, hub, do_forward_kept, NULL);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.answer.err, OM_OK);
	assert_int_equal(duties_of(sys, hub), 0);
	om_system_stop_actor(sys, hub);
	(void)om_sim_run(sys);
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_unknown, 0); /* no second answer */
	sys_end(sys);
}

/* --- a kept request that goes on as another message ---------------------------------------------------- */

static void
do_ask_and_send_kept(struct om_ctx *cx, void *arg)
{
	struct om_actor_id *ids = arg; /* silent server, stale, receiver */
	struct om_msg *msg = om_msg_new(cx, T_KEEP, 8), *kept = w.kept[0];

	assert_non_null(msg);
	assert_int_equal(om_ask(cx, ids[0], &msg, 100, on_answer, 9), OM_OK);
	assert_int_equal(om_send(cx, ids[1], &kept), OM_ERR_STALE);
	assert_ptr_equal(kept, w.kept[0]);
	assert_int_equal(duties_of(om_ctx_system(cx), om_self(cx)), 1); /* still owed */
	assert_int_equal(om_send(cx, ids[2], &kept), OM_OK);
}

static void
do_urgent_kept(struct om_ctx *cx, void *arg)
{
	assert_int_equal(om_send_urgent(cx, *(struct om_actor_id *)arg, &w.kept[0]), OM_OK);
}

static void
do_reply_with_kept(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_reply(cx, w.kept[1], &w.kept[0]), OM_OK);
	om_msg_free(cx, w.kept[1]);
}

static void
do_ask_with_kept(struct om_ctx *cx, void *arg)
{
	assert_int_equal(om_ask(cx, *(struct om_actor_id *)arg, &w.kept[0], 100, on_answer, 9),
			 OM_OK);
}

static void
test_a_kept_request_sent_on_is_plain(void **state)
{
	struct om_system *sys = world_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id hub = spawn_probe(sys, &hub_def, NULL);
	struct om_actor_id asker = spawn_probe(sys, &probe_def, NULL);
	struct om_actor_id silent = spawn_probe(sys, &hub_def, NULL);
	struct om_actor_id ids[3] = { silent, spawn_probe(sys, &probe_def, NULL),
				      spawn_probe(sys, &probe_def, &log) };
	struct ask ask = { .to = hub, .type = T_KEEP };

	(void)state;
	om_system_stop_actor(sys, ids[1]);
	(void)om_sim_run(sys);
	run_in(sys, asker, do_ask, &ask);
	/* Our own question has the number that theirs had: it must not be answered by the receiver. */
	run_in(sys, hub, do_ask_and_send_kept, ids);
	assert_int_equal(log.count, 1);
	assert_true(om_actor_id_eq(log.from[0], hub));
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.answer.cookie, 0);
	assert_int_equal(w.answer.err, OM_ERR_CANCELLED);
	assert_int_equal(duties_of(sys, hub), 0);
	w.kept[0] = w.kept[1];
	w.kept_count = 1;
	run_in(sys, silent, do_free_kept, NULL);
	assert_int_equal(w.answers, 2);
	assert_int_equal(w.answer.cookie, 9);
	sys_end(sys);
}

static void
test_a_kept_request_used_otherwise_is_answered(void **state)
{
	const call_fn ways[] = { do_urgent_kept, do_ask_with_kept, do_reply_with_kept };

	(void)state;
	for (unsigned i = 0; i < OM_COUNT(ways); i++) {
		struct om_system *sys = world_new(i);
		struct om_actor_id hub = spawn_probe(sys, &hub_def, NULL);
		struct om_actor_id first = spawn_probe(sys, &probe_def, NULL);
		struct om_actor_id second = spawn_probe(sys, &probe_def, NULL);
		struct om_actor_id to = spawn_probe(sys, &probe_def, NULL);
		struct ask ask = { .to = hub, .type = T_KEEP };
		bool both = ways[i] == do_reply_with_kept;

		run_in(sys, first, do_ask, &ask);
		if (both) {
			run_in(sys, second, do_ask, &ask);
		}
		run_in(sys, hub, ways[i], &to);
		assert_int_equal(duties_of(sys, hub), 0);
		assert_int_equal(w.answers, ways[i] == do_urgent_kept ? 1 : 2);
		om_sim_advance(sys, 200); /* nobody is left to time out */
		assert_int_equal(w.answers, ways[i] == do_urgent_kept ? 1 : 2);
		sys_end(sys);
	}
}

/* --- delegated ---------------------------------------------------------------------------------------- */

static void
do_forward_to_hub(struct om_ctx *cx, void *arg)
{
	assert_int_equal(om_forward(cx, *(struct om_actor_id *)arg, w.kept[--w.kept_count]), OM_OK);
}

static void
test_a_delegated_duty_is_forgotten_by_its_owner(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct om_system *sys = world_new(seed);
		struct om_actor_id hub = spawn_probe(sys, &hub_def, NULL);
		struct om_actor_id door = spawn_probe(sys, &hub_def, NULL);
		struct om_actor_id asker = spawn_probe(sys, &probe_def, NULL);
		struct om_msg *msg = om_system_msg_new(sys, T_ASK, 8), *reply = NULL;
		struct ask ask = { .to = hub, .type = T_ASK };

		w.to = spawn_probe(sys, &hub_def, NULL);
		/* A foreign asker. */
		assert_int_equal(om_system_ask(sys, hub, &msg, 100, &reply), OM_OK);
		assert_int_equal(om_msg_u64(reply), 42);
		om_msg_free(NULL, reply);
		(void)om_sim_run(sys);
		assert_int_equal(duties_of(sys, hub), 0);
		/* An actor. */
		run_in(sys, asker, do_ask, &ask);
		assert_int_equal(w.value, 42);
		assert_int_equal(duties_of(sys, hub), 0);
		/* One that forwards it first: its debtor is not the one that was asked. */
		ask = (struct ask){ .to = door, .type = T_KEEP };
		run_in(sys, asker, do_ask, &ask);
		w.kept[0]->type = T_ASK;
		run_in(sys, door, do_forward_to_hub, &hub);
		assert_int_equal(w.answers, 2);
		assert_int_equal(duties_of(sys, hub), 0);
		assert_int_equal(duties_of(sys, door), 0);
		/* One that does not wait any more. */
		ask = (struct ask){ .to = hub, .type = T_ASK };
		post_call(sys, asker, do_ask, &ask);
		om_system_stop_actor(sys, asker);
		(void)om_sim_run(sys);
		assert_int_equal(duties_of(sys, hub), 0);
		sys_end(sys);
	}
}

/* --- answers that nobody waits for ------------------------------------------------------------------- */

static void
do_watch_letters(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_join(cx, OM_GROUP_DEAD_LETTERS), OM_OK);
}

static void
do_reply_to_kept(struct om_ctx *cx, void *arg)
{
	struct om_msg *reply = om_msg_new(cx, T_DATA, 8);

	(void)arg;
	assert_non_null(reply);
	*(uint64_t *)(void *)reply->payload = 1;
	assert_int_equal(om_reply(cx, w.kept[0], &reply), OM_OK);
	om_msg_free(cx, w.kept[0]);
	w.kept_count = 0;
}

static void
test_an_answer_to_an_ended_asker_is_counted(void **state)
{
	struct om_system *sys = world_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id hub = spawn_probe(sys, &hub_def, NULL);
	struct om_actor_id asker = spawn_probe(sys, &probe_def, NULL);
	struct om_actor_id watcher = spawn_probe(sys, &probe_def, &log);
	struct ask ask = { .to = hub, .type = T_KEEP };
	struct om_msg *msg = om_system_msg_new(sys, T_KEEP, 8), *reply = NULL;
	struct om_system_stats st;

	(void)state;
	run_in(sys, watcher, do_watch_letters, NULL);
	run_in(sys, asker, do_ask, &ask);
	om_system_stop_actor(sys, asker);
	(void)om_sim_run(sys);
	run_in(sys, hub, do_reply_to_kept, NULL);
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_stale, 1);
	assert_int_equal(log.count, 1);
	assert_int_equal(log.type[0], OM_SYS_DEAD_LETTER);
	assert_int_equal(log.value[0], asker.v);
	/* The same with a foreign asker that has lost patience. */
	assert_int_equal(om_system_ask(sys, hub, &msg, 10, &reply), OM_ERR_TIMEOUT);
	run_in(sys, hub, do_reply_to_kept, NULL);
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_stale, 2);
	assert_int_equal(st.sent, st.handled + st.queued + 2);
	assert_int_equal(log.count, 2);
	sys_end(sys);
}

static void
test_letters_that_do_not_fit_are_counted(void **state)
{
	static const struct om_actor_def narrow = { PROBE_DEF("narrow"), .mailbox_slots = 2 };
	static const struct om_actor_def full = { PROBE_DEF("full"), .mailbox_slots = 1,
						  .overload = OM_OVERLOAD_DROP_NEW };
	struct om_system *sys = world_new(1);
	struct probe_log log = { 0 };
	struct om_actor_id watcher = spawn_probe(sys, &narrow, &log);
	struct om_actor_id to = spawn_probe(sys, &full, NULL);
	struct om_system_stats st;

	(void)state;
	run_in(sys, watcher, do_watch_letters, NULL);
	for (unsigned i = 0; i < 6; i++) { /* one fits, five are dropped; two letters fit */
		assert_int_equal(post_u64(sys, to, T_DATA, i), OM_OK);
	}
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_full, 5 + 3);
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 2);
	sys_end(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forwarding_an_older_message_keeps_this_one),
		cmocka_unit_test(test_a_forward_that_fails_leaves_a_kept_message_kept),
		cmocka_unit_test(test_a_forwarded_duty_is_no_longer_ours),
		cmocka_unit_test(test_a_kept_request_sent_on_is_plain),
		cmocka_unit_test(test_a_kept_request_used_otherwise_is_answered),
		cmocka_unit_test(test_a_delegated_duty_is_forgotten_by_its_owner),
		cmocka_unit_test(test_an_answer_to_an_ended_asker_is_counted),
		cmocka_unit_test(test_letters_that_do_not_fit_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
