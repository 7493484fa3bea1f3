/* SPDX-License-Identifier: ISC */
/* Promise 4: every ask ends exactly once - reply, error, time-out, or "actor gone". */
#include "runtime_help.h"

struct asker {
	struct om_actor_id to;
	uint64_t timeout_ms;
	unsigned answers; /* must end at 1 */
	enum om_err err;
	uint64_t value;
	enum om_err ask_err;
	uint64_t cookie;
	uint32_t type;
};

static struct asker *asker_of[16];

static void
on_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	struct asker *a = asker_of[answer->cookie];

	(void)cx;
	(void)state;
	a->answers++;
	a->err = answer->err;
	if (answer->err == OM_OK && answer->msg->size >= 8) {
		a->value = om_msg_u64(answer->msg);
	}
}

static void
do_ask(struct om_ctx *cx, void *arg)
{
	struct asker *a = arg;
	struct om_msg *msg = om_msg_new(cx, a->type != 0 ? a->type : T_DATA, 8);

	*(uint64_t *)(void *)msg->payload = 21;
	asker_of[a->cookie] = a;
	a->ask_err =
	    om_ask(cx, a->to, &msg, a->timeout_ms != 0 ? a->timeout_ms : 100, on_answer, a->cookie);
	assert_true((a->ask_err == OM_OK) == (msg == NULL));
	om_msg_free(cx, msg);
}

enum { T_DOUBLE = 10, T_ERROR, T_ACK, T_LATER, T_FORWARD, T_HAND_OVER, T_TAKE_AND_FREE, T_TWICE };

static struct om_request kept;
static struct om_actor_id helper;

static enum om_err
on_double(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_reply_u64(cx, msg, om_msg_u64(msg) * 2);
}

static enum om_err
on_error(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	return OM_ERR_DENIED;
}

static enum om_err
on_ack(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	return OM_OK; /* no reply: the dispatcher answers */
}

static enum om_err
on_later(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	kept = om_later(cx, msg);
	return OM_OK;
}

static enum om_err
on_forward(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_forward(cx, helper, msg);
}

static enum om_err
on_take_and_free(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	om_msg_free(cx, om_msg_take(cx, msg));
	return OM_OK;
}

static enum om_err
on_twice(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	assert_int_equal(om_reply_u64(cx, msg, 1), OM_OK);
	assert_int_equal(om_reply_u64(cx, msg, 2), OM_ERR_STATE);
	return OM_ERR_DENIED; /* too late: it is answered */
}

static const struct om_handler server_handlers[] = {
	{ T_CALL, probe_on_call },
	{ T_DOUBLE, on_double },
	{ T_ERROR, on_error },
	{ T_ACK, on_ack },
	{ T_LATER, on_later },
	{ T_FORWARD, on_forward },
	{ T_TAKE_AND_FREE, on_take_and_free },
	{ T_TWICE, on_twice },
};
static const struct om_actor_def server_def = { .name = "server",
						.handlers = server_handlers,
						.handler_count = OM_COUNT(server_handlers),
						.mailbox_slots = 8 };

static void
check(uint32_t type, enum om_err want, uint64_t value)
{
	struct om_system *sys = sim_new(type);
	struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
	struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);
	struct asker a = { .to = server, .type = type };

	run_in(sys, client, do_ask, &a);
	assert_int_equal(a.ask_err, OM_OK);
	om_sim_advance(sys, 1000);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.err, want);
	assert_int_equal(a.value, value);
	sys_end(sys);
}

static void
test_each_way_to_answer(void **state)
{
	(void)state;
	check(T_DOUBLE, OM_OK, 42);
	check(T_ERROR, OM_ERR_DENIED, 0);
	check(T_ACK, OM_OK, 0);
	check(999, OM_ERR_UNKNOWN_TYPE, 0);
	check(T_LATER, OM_ERR_TIMEOUT, 0); /* nobody discharges it in time */
	check(T_TAKE_AND_FREE, OM_ERR_CANCELLED, 0);
	check(T_TWICE, OM_OK, 1);
}

static void
do_reply_later(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg = om_msg_new(cx, T_DATA, 8);

	*(uint64_t *)(void *)msg->payload = *(uint64_t *)arg;
	if (om_reply_to(cx, &kept, &msg) != OM_OK) {
		om_msg_free(cx, msg);
	}
	assert_int_equal(om_reply_to(cx, &kept, &msg), OM_ERR_STATE); /* discharged once */
}

static void
test_later_reply_from_owner_and_from_another(void **state)
{
	(void)state;
	for (int other = 0; other < 2; other++) {
		struct om_system *sys = sim_new(7);
		struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
		struct om_actor_id deputy = spawn_probe(sys, &probe_def, NULL);
		struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);
		struct asker a = { .to = server, .type = T_LATER };
		uint64_t value = 7;

		run_in(sys, client, do_ask, &a);
		assert_int_equal(a.answers, 0);
		run_in(sys, other ? deputy : server, do_reply_later, &value);
		assert_int_equal(a.answers, 1);
		assert_int_equal(a.value, 7);
		/* The server's end must not answer a second time. */
		om_system_stop_actor(sys, server);
		om_sim_advance(sys, 1000);
		assert_int_equal(a.answers, 1);
		sys_end(sys);
	}
}

static void
test_forwarded_request_is_answered_by_the_last(void **state)
{
	static const struct om_handler to_double[] = { { T_FORWARD, on_double } };
	static const struct om_actor_def def = { .name = "helper",
						 .handlers = to_double,
						 .handler_count = 1 };
	struct om_system *sys = sim_new(7);
	struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
	struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);
	struct asker a = { .to = server, .type = T_FORWARD };

	(void)state;
	helper = spawn_probe(sys, &def, NULL);
	run_in(sys, client, do_ask, &a);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.value, 42);
	/* To one that is gone: the handler's error is the answer. */
	om_system_stop_actor(sys, helper);
	(void)om_sim_run(sys);
	a.answers = 0;
	run_in(sys, client, do_ask, &a);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.err, OM_ERR_STALE);
	sys_end(sys);
}

static void
do_kill(struct om_ctx *cx, void *arg)
{
	om_kill(cx, *(struct om_actor_id *)arg);
}

/* The server ends with the request in its mailbox, or owing a later answer: GONE, at once. */
static void
test_gone_is_told_at_once(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct om_system *sys = sim_new(seed);
		struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
		struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);
		struct om_actor_id killer = spawn_probe(sys, &probe_def, NULL);
		struct asker a = { .to = server, .type = T_LATER, .timeout_ms = 1000000 };

		post_call(sys, client, do_ask, &a);
		post_call(sys, killer, do_kill, &server);
		(void)om_sim_run(sys); /* no time passes */
		if (a.ask_err == OM_OK) {
			assert_int_equal(a.answers, 1);
			assert_int_equal(a.err, OM_ERR_GONE);
		} else {
			assert_int_equal(a.ask_err, OM_ERR_STALE);
			assert_int_equal(a.answers, 0);
		}
		sys_end(sys);
	}
}

/* A reply that comes with the time-out: one of them counts, the other finds nothing. */
static void
test_reply_and_timeout_race(void **state)
{
	unsigned timeouts = 0, replies = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct om_system *sys = sim_new(seed);
		struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
		struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);
		struct asker a = { .to = server, .type = T_LATER, .timeout_ms = 10 };
		uint64_t value = 5;

		run_in(sys, client, do_ask, &a);
		om_sim_advance(sys, 9);
		assert_int_equal(a.answers, 0);
		post_call(sys, server, do_reply_later, &value);
		if (seed % 2 == 0) {
			(void)om_sim_step(sys);
		} else {
			om_sim_advance(sys, 1);
		}
		om_sim_advance(sys, 100);
		assert_int_equal(a.answers, 1);
		timeouts += a.err == OM_ERR_TIMEOUT;
		replies += a.err == OM_OK;
		sys_end(sys);
	}
	assert_int_equal(timeouts + replies, 200);
}

static void
test_asks_time_out_in_order(void **state)
{
	struct om_system *sys = sim_new(9);
	struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
	struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);
	static const uint64_t timeouts[] = { 50, 10, 30, 20, 40 };
	struct asker a[5];

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		a[i] = (struct asker){
			.to = server, .type = T_LATER, .cookie = i, .timeout_ms = timeouts[i]
		};
		run_in(sys, client, do_ask, &a[i]);
	}
	for (uint64_t t = 0; t < 50; t += 5) {
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(a[i].answers, timeouts[i] <= t ? 1 : 0);
		}
		om_sim_advance(sys, 5);
	}
	sys_end(sys);
}

/* --- many questions with many time-outs --------------------------------------------------------------- */

enum { MANY = 600 };

static struct {
	uint64_t timeout[MANY];
	unsigned ends[MANY];
	int64_t ended_ms[MANY];
	struct om_request owed[MANY];
	size_t owed_count;
	int64_t began_ms;
	struct om_actor_id server;
} many;

static enum om_err
many_on_question(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	many.owed[many.owed_count++] = om_later(cx, msg);
	return OM_OK;
}

static void
many_on_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	(void)state;
	many.ends[answer->cookie]++;
	many.ended_ms[answer->cookie] =
	    answer->err == OM_OK ? -1 : om_now(cx).ns / OM_NS_PER_MS - many.began_ms;
}

static void
many_do_ask(struct om_ctx *cx, void *arg)
{
	(void)arg;
	many.began_ms = om_now(cx).ns / OM_NS_PER_MS;
	for (uint64_t i = 0; i < MANY; i++) {
		struct om_msg *msg = om_msg_new(cx, T_DATA, 8);

		assert_non_null(msg);
		assert_int_equal(om_ask(cx, many.server, &msg, many.timeout[i], many_on_answer, i),
				 OM_OK);
	}
}

static void
many_do_answer(struct om_ctx *cx, void *arg)
{
	(void)arg;
	for (size_t i = 0; i < many.owed_count; i += 3) {
		struct om_msg *msg = om_msg_new(cx, T_DATA, 8);

		assert_non_null(msg);
		assert_int_equal(om_reply_to(cx, &many.owed[i], &msg), OM_OK);
	}
}

static void
test_questions_with_all_sorts_of_timeouts(void **state)
{
	static const struct om_handler handlers[] = { { T_CALL, probe_on_call },
						      { T_DATA, many_on_question } };
	static const struct om_actor_def def = { .name = "many",
						 .handlers = handlers,
						 .handler_count = OM_COUNT(handlers) };

	(void)state;
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct om_system *sys = sim_new(seed);
		struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);

		memset(&many, 0, sizeof(many));
		many.server = spawn_probe(sys, &def, NULL);
		for (uint64_t i = 0; i < MANY; i++) {
			/* Falling, rising, mixed. */
			many.timeout[i] = seed % 3 == 0   ? MANY + 10 - i
					  : seed % 3 == 1 ? i + 10
							  : (i * 7919 + seed) % 977 + 10;
		}
		run_in(sys, client, many_do_ask, NULL);
		assert_int_equal(many.owed_count, MANY);
		om_sim_advance(sys, 5);
		run_in(sys, many.server, many_do_answer, NULL);
		if (seed == 9) { /* the asker ends with all that is still open */
			om_system_stop_actor(sys, client);
			(void)om_sim_run(sys);
			sys_end(sys);
			continue;
		}
		om_sim_advance(sys, 2000);
		for (uint64_t i = 0; i < MANY; i++) {
			assert_int_equal(many.ends[i], 1);
			assert_int_equal(many.ended_ms[i],
					 i % 3 == 0 ? -1 : (int64_t)many.timeout[i]);
		}
		sys_end(sys);
	}
}

/* In one handler, so that the server cannot take any of them out. */
static void
do_fill_and_ask(struct om_ctx *cx, void *arg)
{
	const struct asker *a = arg;

	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(om_send_u64(cx, a->to, T_DOUBLE, 1), OM_OK);
	}
	do_ask(cx, arg);
}

static void
test_full_server_refuses_the_ask_itself(void **state)
{
	struct om_system *sys = sim_new(11);
	struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
	struct om_actor_id client = spawn_probe(sys, &probe_def, NULL);
	struct asker a = { .to = server, .type = T_DOUBLE };

	(void)state;
	(void)om_sim_run(sys);
	run_in(sys, client, do_fill_and_ask, &a);
	om_sim_advance(sys, 1000);
	assert_int_equal(a.ask_err, OM_ERR_FULL);
	assert_int_equal(a.answers, 0);
	run_in(sys, client, do_ask, &a); /* it is empty again */
	om_sim_advance(sys, 1000);
	assert_int_equal(a.ask_err, OM_OK);
	assert_int_equal(a.answers, 1);
	sys_end(sys);
}

static void
test_foreign_ask(void **state)
{
	struct om_system *sys = sim_new(13);
	struct om_actor_id server = spawn_probe(sys, &server_def, NULL);
	struct om_msg *msg = om_system_msg_new(sys, T_DOUBLE, 8), *reply = NULL;

	(void)state;
	*(uint64_t *)(void *)msg->payload = 4;
	assert_int_equal(om_system_ask(sys, server, &msg, 100, &reply), OM_OK);
	assert_int_equal(om_msg_u64(reply), 8);
	om_msg_free(NULL, reply);
	msg = om_system_msg_new(sys, T_ERROR, 0);
	assert_int_equal(om_system_ask(sys, server, &msg, 100, &reply), OM_ERR_DENIED);
	msg = om_system_msg_new(sys, T_LATER, 0);
	assert_int_equal(om_system_ask(sys, server, &msg, 100, &reply), OM_ERR_TIMEOUT);
	{
		uint64_t value =
		    1; /* the late answer finds nobody, also when the port is used again */

		run_in(sys, server, do_reply_later, &value);
	}
	msg = om_system_msg_new(sys, T_DOUBLE, 8);
	*(uint64_t *)(void *)msg->payload = 5;
	assert_int_equal(om_system_ask(sys, server, &msg, 100, &reply), OM_OK);
	assert_int_equal(om_msg_u64(reply), 10);
	om_msg_free(NULL, reply);
	om_system_stop_actor(sys, server);
	(void)om_sim_run(sys);
	msg = om_system_msg_new(sys, T_DOUBLE, 8);
	assert_int_equal(om_system_ask(sys, server, &msg, 100, &reply), OM_ERR_STALE);
	om_msg_free(NULL, msg);
	sys_end(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_way_to_answer),
		cmocka_unit_test(test_later_reply_from_owner_and_from_another),
		cmocka_unit_test(test_forwarded_request_is_answered_by_the_last),
		cmocka_unit_test(test_gone_is_told_at_once),
		cmocka_unit_test(test_reply_and_timeout_race),
		cmocka_unit_test(test_asks_time_out_in_order),
		cmocka_unit_test(test_full_server_refuses_the_ask_itself),
		cmocka_unit_test(test_foreign_ask),
		cmocka_unit_test(test_questions_with_all_sorts_of_timeouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
