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

/* The ring as text; "": nothing was traced. */
static void
dump(struct om_system *sys, char *text, size_t size)
{
	FILE *f = tmpfile();

	assert_non_null(f);
	om_trace_dump(sys, fileno(f));
	rewind(f);
	text[fread(text, 1, size - 1, f)] = '\0';
	assert_int_equal(fclose(f), 0);
}

static unsigned
count_of(const char *text, const char *word)
{
	unsigned n = 0;

	while ((text = strstr(text, word)) != NULL) {
		text++;
		n++;
	}
	return n;
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

	(void)state;
	*(struct call *)(void *)msg->payload = (struct call){ .fn = do_send_on, .arg = &c };
	om_trace_message(sys, msg);
	assert_int_equal(om_system_send(sys, a, &msg), OM_OK);
	assert_int_equal(post_u64(sys, a, T_DATA, 9), OM_OK); /* not traced */
	(void)om_sim_run(sys);
	dump(sys, text, sizeof(text));
	assert_int_equal(count_of(text, "way=1"), 4); /* send, handle; its child: send, handle */
	assert_null(strstr(text, "way=2"));
	sys_end(sys);
}

/* --- one actor's doings, and a way that goes on past questions, timers and works ------------------ */

enum { T_QUESTION = 70, T_LATER };

static struct {
	struct om_actor_id server, sink;
	struct om_request owed;
	unsigned ended;
} t;

static enum om_err
server_on_question(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_reply_u64(cx, msg, 5);
}

static enum om_err
server_on_later(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	t.owed = om_later(cx, msg);
	return OM_OK;
}

static void
do_answer_later(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg = om_msg_new(cx, T_DATA, 8);

	(void)arg;
	assert_non_null(msg);
	assert_int_equal(om_reply_to(cx, &t.owed, &msg), OM_OK);
}

static void
on_traced_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	(void)state;
	(void)answer;
	t.ended++;
	assert_int_equal(om_send_u64(cx, t.sink, T_DATA, 1), OM_OK);
}

static void
on_traced_work(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)state;
	(void)arg;
	(void)result;
	assert_int_equal(om_send_u64(cx, t.sink, T_DATA, 1), OM_OK);
}

static enum om_err
no_work(void *arg)
{
	(void)arg;
	return OM_OK;
}

static enum om_err
on_traced_timer(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	return om_send_u64(cx, t.sink, T_DATA, 1);
}

static void
do_question(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg = om_msg_new(cx, *(uint32_t *)arg, 8);

	assert_non_null(msg);
	assert_int_equal(om_ask(cx, t.server, &msg, 10, on_traced_answer, 0), OM_OK);
}

static void
do_timer(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_timer_start(cx, 5, 0, 0, NULL), OM_OK);
}

static void
do_work(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_offload(cx, no_work, NULL, on_traced_work, NULL), OM_OK);
}

static void
do_make_child(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_spawn(cx, &probe_def, NULL, NULL), OM_OK);
}

static const struct om_handler traced_handlers[] = {
	{ T_CALL, probe_on_call },
	{ T_QUESTION, server_on_question },
	{ T_LATER, server_on_later },
	{ OM_SYS_TIMER, on_traced_timer },
};
static const struct om_actor_def traced_def = { .name = "traced",
						.handlers = traced_handlers,
						.handler_count = OM_COUNT(traced_handlers) };

static void
call_traced(struct om_system *sys, struct om_actor_id to, call_fn fn, void *arg)
{
	struct om_msg *msg = om_system_msg_new(sys, T_CALL, sizeof(struct call));

	assert_non_null(msg);
	*(struct call *)(void *)msg->payload = (struct call){ .fn = fn, .arg = arg };
	om_trace_message(sys, msg);
	assert_int_equal(om_system_send(sys, to, &msg), OM_OK);
	(void)om_sim_run(sys);
}

static void
test_a_way_goes_on_past_what_was_asked_for(void **state)
{
	uint32_t question = T_QUESTION, later = T_LATER;
	struct om_system *sys = sim_new(5);
	struct om_actor_id a = spawn_probe(sys, &traced_def, NULL);
	char text[16384];

	(void)state;
	memset(&t, 0, sizeof(t));
	t.server = spawn_probe(sys, &traced_def, NULL);
	t.sink = spawn_probe(sys, &probe_def, NULL);
	call_traced(sys, a, do_question, &question); /* 1: answered at once */
	call_traced(sys, a, do_question, &later); /* 2: answered later */
	run_in(sys, t.server, do_answer_later, NULL);
	call_traced(sys, a, do_question, &later); /* 3: not answered */
	om_sim_advance(sys, 20);
	call_traced(sys, a, do_timer, NULL); /* 4 */
	om_sim_advance(sys, 20);
	call_traced(sys, a, do_work, NULL); /* 5 */
	run_in(sys, a, do_question, &question); /* of no way */
	assert_int_equal(t.ended, 4);
	dump(sys, text, sizeof(text));
	/* call, question, answer, and what the continuation sends: each sent and handled */
	assert_int_equal(count_of(text, "way=1 "), 8);
	assert_int_equal(count_of(text, "way=2 "), 8);
	assert_int_equal(count_of(text, "timeout"), 1);
	assert_int_equal(count_of(text, "way=3"), 7); /* the time-out instead of an answer */
	assert_int_equal(count_of(text, "way=4 "), 5);
	assert_int_equal(count_of(text, "way=5"), 5);
	assert_null(strstr(text, "way=6"));
	assert_null(strstr(text, "way=0"));
	sys_end(sys);
}

/* A timer that starts itself again would carry its way on for ever. */
static enum om_err
on_again_and_again(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	assert_int_equal(om_timer_start(cx, 5, 0, 0, NULL), OM_OK);
	return om_send_u64(cx, t.sink, T_DATA, 1);
}

static void
test_a_way_ends_when_its_actor_is_not_traced_any_more(void **state)
{
	static const struct om_handler handlers[] = { { T_CALL, probe_on_call },
						      { OM_SYS_TIMER, on_again_and_again } };
	static const struct om_actor_def def = { .name = "clockwork",
						 .handlers = handlers,
						 .handler_count = OM_COUNT(handlers) };
	struct om_system *sys = sim_new(6);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	static char before[65536], after[65536];

	(void)state;
	memset(&t, 0, sizeof(t));
	t.sink = spawn_probe(sys, &probe_def, NULL);
	call_traced(sys, a, do_timer, NULL);
	om_sim_advance(sys, 50);
	dump(sys, before, sizeof(before));
	assert_true(count_of(before, "way=1 ") >= 20);
	assert_int_equal(om_trace_actor(sys, t.sink, false), OM_OK);
	(void)om_sim_run(sys);
	om_sim_advance(sys, 50);
	dump(sys, after, sizeof(after));
	assert_string_equal(after, before);
	call_traced(sys, a, do_timer, NULL); /* a new way begins all the same */
	dump(sys, after, sizeof(after));
	assert_non_null(strstr(after, "way=2 "));
	sys_end(sys);
}

static void
do_start_clockwork(struct om_ctx *cx, void *arg)
{
	assert_int_equal(om_send_u64(cx, *(const struct om_actor_id *)arg, T_DATA, 1), OM_OK);
}

static enum om_err
on_start_clockwork(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	return om_timer_start(cx, 1, 1, 0, NULL);
}

static enum om_err
on_nothing(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	return OM_OK;
}

/* Another's clockwork goes on with its way, and there is no actor left to turn it off for. */
static void
test_a_way_ends_with_its_actor(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_start_clockwork } };
	static const struct om_actor_def def = { PROBE_DEF("clockwork") };
	static const struct om_actor_def other_def = { .name = "other",
						       .handlers = handlers,
						       .handler_count = OM_COUNT(handlers),
						       .otherwise = on_nothing };
	struct om_system *sys = sim_new(7);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	struct om_actor_id other = spawn_probe(sys, &other_def, NULL);
	static char before[65536], after[65536];

	(void)state;
	assert_int_equal(om_trace_actor(sys, a, true), OM_OK);
	run_in(sys, a, do_start_clockwork, &other);
	om_sim_advance(sys, 20);
	dump(sys, before, sizeof(before));
	assert_true(count_of(before, "way=1 ") >= 20);
	om_system_stop_actor(sys, a);
	(void)om_sim_run(sys);
	dump(sys, before, sizeof(before));
	assert_int_equal(count_of(before, " end "), 1);
	om_sim_advance(sys, 20);
	dump(sys, after, sizeof(after));
	assert_string_equal(after, before);
	sys_end(sys);
}

static void
test_one_actor_is_traced_until_it_is_not(void **state)
{
	uint32_t question = T_QUESTION;
	struct om_system *sys = sim_new(5);
	struct om_actor_id a = spawn_probe(sys, &traced_def, NULL);
	char text[16384];

	(void)state;
	memset(&t, 0, sizeof(t));
	t.server = spawn_probe(sys, &traced_def, NULL);
	t.sink = spawn_probe(sys, &probe_def, NULL);
	run_in(sys, a, do_question, &question);
	dump(sys, text, sizeof(text));
	assert_string_equal(text, "");
	assert_int_equal(om_trace_actor(sys, a, true), OM_OK);
	run_in(sys, a, do_question, &question);
	run_in(sys, a, do_make_child, NULL);
	dump(sys, text, sizeof(text));
	assert_int_equal(count_of(text, "way=1 "), 6); /* question, answer, what follows */
	assert_int_equal(count_of(text, " spawn "), 1);
	assert_int_equal(om_trace_actor(sys, a, false), OM_OK);
	run_in(sys, a, do_question, &question);
	dump(sys, text, sizeof(text));
	assert_null(strstr(text, "way=2"));
	assert_int_equal(om_trace_actor(sys, a, true), OM_OK);
	om_system_stop_actor(sys, a);
	(void)om_sim_run(sys);
	dump(sys, text, sizeof(text));
	assert_int_equal(count_of(text, " end "), 1);
	assert_int_equal(om_trace_actor(sys, a, true), OM_ERR_STALE);
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
		cmocka_unit_test(test_a_way_goes_on_past_what_was_asked_for),
		cmocka_unit_test(test_a_way_ends_with_its_actor),
		cmocka_unit_test(test_one_actor_is_traced_until_it_is_not),
		cmocka_unit_test(test_a_way_ends_when_its_actor_is_not_traced_any_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
