/* SPDX-License-Identifier: ISC */
/*
 * What happens at a limit: a full mailbox that blocks its sender, the stream of letters about what was
 * dropped, the queue of blocking work, the ports of foreign askers, a timer that is faster than its
 * actor.  Nothing is lost without being told.
 */
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>
#include "runtime/types_impl.h"
#include "tests/unit/runtime_help.h"

static struct om_system *
threads_new(unsigned workers)
{
	struct om_system_conf conf = { .workers = workers, .offload_threads = 1 };
	struct om_system *sys;

	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	return sys;
}

static void
wait_for(sem_t *sem)
{
	while (sem_wait(sem) != 0) {
	}
}

static void
post(sem_t *sem)
{
	assert_int_equal(sem_post(sem), 0);
}

static int
value_of(sem_t *sem)
{
	int value;

	assert_int_equal(sem_getvalue(sem, &value), 0);
	return value;
}

static void
do_kill(struct om_ctx *cx, void *arg)
{
	om_kill(cx, *(const struct om_actor_id *)arg);
}

/* --- a full mailbox blocks a detached sender ------------------------------------------------------- */

#define SLOTS 4
#define SENDS 12

static struct {
	sem_t entered, gate, sent;
	struct om_actor_id to;
	uint64_t got[SENDS];
	unsigned got_count, sent_count;
	enum om_err err;
} block;

static enum om_err
on_block(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	post(&block.entered);
	wait_for(&block.gate);
	block.got[block.got_count++] = om_msg_u64(msg);
	return OM_OK;
}

static const struct om_handler block_handlers[] = { { T_DATA, on_block } };
static const struct om_actor_def block_def = { .name = "block",
					       .handlers = block_handlers,
					       .handler_count = OM_COUNT(block_handlers),
					       .mailbox_slots = SLOTS,
					       .overload = OM_OVERLOAD_BLOCK,
					       .detached = true };
static const struct om_actor_def sender_def = { PROBE_DEF("sender"), .detached = true };

static void
do_send_all(struct om_ctx *cx, void *arg)
{
	(void)arg;
	do {
		block.err = om_send_u64(cx, block.to, T_DATA, block.sent_count);
		block.sent_count += block.err == OM_OK;
		post(&block.sent);
	} while (block.err == OM_OK && block.sent_count < SENDS);
}

static void
do_send_one(struct om_ctx *cx, void *arg)
{
	*(enum om_err *)arg = om_send_u64(cx, block.to, T_DATA, 99);
	post(&block.sent);
}

static void
do_kill_and_say(struct om_ctx *cx, void *arg)
{
	do_kill(cx, arg);
	post(&block.sent);
}

/* The receiver is in its handler (the message still counts), its mailbox is full, the sender waits. */
static struct om_system *
block_begin(struct om_actor_id *sender)
{
	struct om_system *sys = threads_new(1);

	memset(&block, 0, sizeof(block));
	assert_int_equal(sem_init(&block.entered, 0, 0), 0);
	assert_int_equal(sem_init(&block.gate, 0, 0), 0);
	assert_int_equal(sem_init(&block.sent, 0, 0), 0);
	block.to = spawn_probe(sys, &block_def, NULL);
	*sender = spawn_probe(sys, &sender_def, NULL);
	post_call(sys, *sender, do_send_all, NULL);
	wait_for(&block.entered);
	for (unsigned i = 0; i < SLOTS; i++) {
		wait_for(&block.sent);
	}
	return sys;
}

static void
block_end(struct om_system *sys)
{
	sys_end(sys);
	assert_int_equal(sem_destroy(&block.entered), 0);
	assert_int_equal(sem_destroy(&block.gate), 0);
	assert_int_equal(sem_destroy(&block.sent), 0);
}

static void
test_a_detached_sender_waits_for_room(void **state)
{
	enum om_err refused = OM_OK;
	struct om_actor_id sender;
	struct om_system *sys = block_begin(&sender);

	(void)state;
	/* A worker must not wait: an actor on it is refused.  And the detached one waits still. */
	post_call(sys, spawn_probe(sys, &probe_def, NULL), do_send_one, &refused);
	wait_for(&block.sent);
	assert_int_equal(refused, OM_ERR_FULL);
	assert_int_equal(value_of(&block.sent), 0);
	for (unsigned i = SLOTS; i < SENDS; i++) { /* one out, one in */
		post(&block.gate);
		wait_for(&block.entered);
		wait_for(&block.sent);
	}
	assert_int_equal(value_of(&block.sent), 0);
	for (unsigned i = 0; i < SLOTS; i++) {
		post(&block.gate);
	}
	om_system_stop_actor(sys, block.to);
	assert_int_equal(om_system_wait(sys, block.to, 10000), OM_OK);
	assert_int_equal(block.err, OM_OK);
	assert_int_equal(block.got_count, SENDS);
	for (unsigned i = 0; i < SENDS; i++) {
		assert_int_equal(block.got[i], i);
	}
	block_end(sys);
}

static void
test_a_waiting_sender_hears_of_the_end(void **state)
{
	struct om_actor_id sender;
	struct om_system *sys = block_begin(&sender);

	(void)state;
	om_system_stop_actor(sys, sender); /* it ends when its send has returned */
	post_call(sys, spawn_probe(sys, &probe_def, NULL), do_kill_and_say, &block.to);
	wait_for(&block.sent);
	post(&block.gate);
	assert_int_equal(om_system_wait(sys, sender, 10000), OM_OK);
	assert_int_equal(block.err, OM_ERR_STALE);
	/* The handled message's room may have been free for a moment before the end. */
	assert_in_range(block.sent_count, SLOTS, SLOTS + 1);
	block_end(sys);
}

/* --- letters about what was dropped ----------------------------------------------------------------- */

#define LETTERS_MAX 64

static struct om_dead_letter letters[LETTERS_MAX];
static size_t letter_count;

static enum om_err
on_letter(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	assert_true(letter_count < LETTERS_MAX);
	letters[letter_count++] = *(const struct om_dead_letter *)(const void *)msg->payload;
	return OM_OK;
}

static void
do_join_letters(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_join(cx, OM_GROUP_DEAD_LETTERS), OM_OK);
}

static struct om_system *
letters_begin(void)
{
	static const struct om_handler handlers[] = { { T_CALL, probe_on_call },
						      { OM_SYS_DEAD_LETTER, on_letter } };
	static const struct om_actor_def def = { .name = "letters",
						 .handlers = handlers,
						 .handler_count = OM_COUNT(handlers) };
	struct om_system *sys = sim_new(3);

	letter_count = 0;
	run_in(sys, spawn_probe(sys, &def, NULL), do_join_letters, NULL);
	return sys;
}

static void
assert_letter(size_t i, struct om_actor_id to, uint32_t type, enum om_drop why)
{
	assert_true(i < letter_count);
	assert_int_equal(letters[i].to.v, to.v);
	assert_int_equal(letters[i].type, type);
	assert_int_equal(letters[i].size, 8);
	assert_int_equal(letters[i].why, why);
}

/* Who drops the new and who drops the oldest: a letter for each, about the one that went. */
static void
test_letters_about_a_full_mailbox(void **state)
{
	static const enum om_overload overload[] = { OM_OVERLOAD_DROP_NEW,
						     OM_OVERLOAD_DROP_OLDEST };

	(void)state;
	for (size_t k = 0; k < OM_COUNT(overload); k++) {
		const struct om_actor_def def = { PROBE_DEF("narrow"), .mailbox_slots = 2,
						  .overload = overload[k] };
		struct om_system *sys = letters_begin();
		struct probe_log log = { 0 };
		struct om_actor_id to = spawn_probe(sys, &def, &log);
		struct om_system_stats st;

		(void)om_sim_run(sys);
		for (uint32_t i = 0; i < 5; i++) { /* types 10, 11, ... tell them apart */
			assert_int_equal(post_u64(sys, to, 10 + i, i), OM_OK);
		}
		(void)om_sim_run(sys);
		assert_int_equal(letter_count, 3);
		for (uint32_t i = 0; i < 3; i++) {
			assert_letter(i, to, overload[k] == OM_OVERLOAD_DROP_NEW ? 12 + i : 10 + i,
				      OM_DROP_FULL);
		}
		assert_int_equal(log.count, 2);
		om_system_stats(sys, &st);
		assert_int_equal(st.dropped_full, 3);
		sys_end(sys);
	}
}

static void
test_letters_about_what_an_ended_actor_had_left(void **state)
{
	struct om_system *sys = letters_begin();
	struct probe_log log = { 0 };
	struct om_actor_id to = spawn_probe(sys, &probe_def, &log);
	struct om_actor_id killer = spawn_probe(sys, &probe_def, NULL);
	struct om_system_stats st;

	(void)state;
	(void)om_sim_run(sys);
	post_call(sys, killer, do_kill, &to);
	(void)om_sim_step(sys); /* the order is there, the actor has not run */
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(post_u64(sys, to, 10 + i, i), OM_OK);
	}
	(void)om_sim_run(sys);
	assert_int_equal(log.count, 0);
	assert_int_equal(letter_count, 4);
	for (uint32_t i = 0; i < 4; i++) {
		assert_letter(i, to, 10 + i, OM_DROP_STOP);
	}
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_stop, 4);
	sys_end(sys);
}

#define T_PUT_OFF 20

static struct om_request put_off;

static enum om_err
on_put_off(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	put_off = om_later(cx, msg);
	return OM_OK;
}

static const struct om_handler later_handlers[] = { { T_CALL, probe_on_call },
						    { T_PUT_OFF, on_put_off } };
static const struct om_actor_def later_def = { .name = "later",
					       .handlers = later_handlers,
					       .handler_count = OM_COUNT(later_handlers) };

static void
never_answered(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	(void)cx;
	(void)state;
	(void)answer;
	fail();
}

static void
do_ask_later(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg = om_msg_new(cx, T_PUT_OFF, 0);

	assert_int_equal(
	    om_ask(cx, *(const struct om_actor_id *)arg, &msg, 1000, never_answered, 0), OM_OK);
}

static void
do_answer(struct om_ctx *cx, void *arg)
{
	struct om_msg *reply = om_msg_new(cx, OM_SYS_REPLY, 8);

	(void)arg;
	*(uint64_t *)(void *)reply->payload = 7;
	assert_int_equal(om_reply_to(cx, &put_off, &reply), OM_OK);
}

/* The asker has ended: its answer is nobody's. */
static void
test_letters_about_what_comes_too_late(void **state)
{
	struct om_system *sys = letters_begin();
	struct om_actor_id server = spawn_probe(sys, &later_def, NULL);
	struct om_system_stats st;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct om_actor_id asker = spawn_probe(sys, &probe_def, NULL);

		run_in(sys, asker, do_ask_later, &server);
		om_system_stop_actor(sys, asker);
		(void)om_sim_run(sys);
		run_in(sys, server, do_answer, NULL);
		assert_int_equal(letter_count, i + 1);
		assert_letter(i, asker, OM_SYS_REPLY, OM_DROP_STALE);
		assert_int_equal(letters[i].from.v, server.v);
	}
	om_system_stats(sys, &st);
	assert_int_equal(st.dropped_stale, 3);
	sys_end(sys);
}

/* --- the queue of blocking work ----------------------------------------------------------------------- */

static struct {
	sem_t running, gate, told;
	unsigned run, done, dropped, accepted;
	unsigned run_elsewhere;
	enum om_err at_limit[2], elsewhere;
} work;

static enum om_err
work_gate(void *arg)
{
	(void)arg;
	post(&work.running);
	wait_for(&work.gate);
	return OM_OK;
}

static enum om_err
work_run(void *arg)
{
	++*(unsigned *)arg; /* one thread */
	return OM_OK;
}

/* Whoever ends the last that was accepted tells. */
static void
work_ended(unsigned *count)
{
	(void)__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
	post(&work.told);
}

static void
work_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)cx;
	(void)state;
	(void)arg;
	assert_int_equal(result, OM_OK);
	work_ended(&work.done);
}

static void
work_drop(void *arg)
{
	(void)arg;
	work_ended(&work.dropped);
}

static void
do_offload_gate(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_offload(cx, work_gate, NULL, work_done, work_drop), OM_OK);
	work.accepted++;
}

static void
do_offload_all(struct om_ctx *cx, void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < OM_WORK_QUEUE_MAX; i++) {
		assert_int_equal(om_offload(cx, work_run, &work.run, work_done, work_drop), OM_OK);
		work.accepted++;
	}
	for (unsigned i = 0; i < 2; i++) { /* a refusal makes no room */
		work.at_limit[i] = om_offload(cx, work_run, &work.run, work_done, work_drop);
	}
	/* Another pool has a queue of its own. */
	work.elsewhere = om_offload_to(cx, 1, work_run, &work.run_elsewhere, work_done, work_drop);
	work.accepted += work.elsewhere == OM_OK;
	post(&work.told);
}

static void
test_offload_is_refused_at_its_limit(void **state)
{
	(void)state;
	for (unsigned stopped = 0; stopped < 2; stopped++) {
		struct om_system *sys = threads_new(1);
		struct om_actor_id a = spawn_probe(sys, &probe_def, NULL);

		memset(&work, 0, sizeof(work));
		assert_int_equal(sem_init(&work.running, 0, 0), 0);
		assert_int_equal(sem_init(&work.gate, 0, 0), 0);
		assert_int_equal(sem_init(&work.told, 0, 0), 0);
		post_call(sys, a, do_offload_gate, NULL);
		wait_for(&work.running);
		post_call(sys, a, do_offload_all, NULL);
		wait_for(&work.told);
		assert_int_equal(work.at_limit[0], OM_ERR_FULL);
		assert_int_equal(work.at_limit[1], OM_ERR_FULL);
		assert_int_equal(work.elsewhere, OM_OK);
		assert_int_equal(work.accepted, OM_WORK_QUEUE_MAX + 2);
		wait_for(&work.told); /* the one of the other pool */
		if (stopped) {
			om_system_stop_actor(sys, a);
			assert_int_equal(om_system_wait(sys, a, 10000), OM_OK);
		}
		post(&work.gate);
		for (unsigned i = 0; i < OM_WORK_QUEUE_MAX + 1; i++) {
			wait_for(&work.told);
		}
		sys_end(sys);
		assert_int_equal(value_of(&work.told), 0); /* and none twice */
		assert_int_equal(work.done + work.dropped, work.accepted);
		assert_int_equal(work.run, stopped ? 0 : OM_WORK_QUEUE_MAX);
		assert_int_equal(work.done, stopped ? 1 : work.accepted);
		assert_int_equal(sem_destroy(&work.running), 0);
		assert_int_equal(sem_destroy(&work.gate), 0);
		assert_int_equal(sem_destroy(&work.told), 0);
	}
}

/* --- foreign threads that ask at the same moment ------------------------------------------------------- */

static struct {
	struct om_system *sys;
	struct om_actor_id to;
	struct om_request rq[OM_PORT_MAX];
	unsigned count;
	sem_t all;
} asking;

static enum om_err
on_question(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	asking.rq[asking.count++] = om_later(cx, msg);
	if (asking.count == OM_PORT_MAX) {
		post(&asking.all);
	}
	return OM_OK;
}

static void
do_answer_all(struct om_ctx *cx, void *arg)
{
	(void)arg;
	while (asking.count > 0) {
		om_reply_err_to(cx, &asking.rq[--asking.count], OM_ERR_DENIED);
	}
}

static void *
ask_once(void *arg)
{
	struct om_msg *msg = om_system_msg_new(asking.sys, T_DATA, 0), *reply = NULL;

	*(enum om_err *)arg = om_system_ask(asking.sys, asking.to, &msg, 60000, &reply);
	om_msg_free(NULL, msg);
	return NULL;
}

static void
test_a_foreign_ask_is_refused_at_its_limit(void **state)
{
	static const struct om_handler handlers[] = { { T_CALL, probe_on_call },
						      { T_DATA, on_question } };
	static const struct om_actor_def def = { .name = "patient",
						 .handlers = handlers,
						 .handler_count = OM_COUNT(handlers) };
	enum om_err err[OM_PORT_MAX], again = OM_OK;
	pthread_t thread[OM_PORT_MAX];
	struct om_msg *msg, *reply = NULL;

	(void)state;
	memset(&asking, 0, sizeof(asking));
	assert_int_equal(sem_init(&asking.all, 0, 0), 0);
	asking.sys = threads_new(1);
	asking.to = spawn_probe(asking.sys, &def, NULL);
	for (unsigned i = 0; i < OM_PORT_MAX; i++) {
		assert_int_equal(pthread_create(&thread[i], NULL, ask_once, &err[i]), 0);
	}
	wait_for(&asking.all);
	msg = om_system_msg_new(asking.sys, T_DATA, 0);
	assert_int_equal(om_system_ask(asking.sys, asking.to, &msg, 1000, &reply), OM_ERR_LIMIT);
	assert_non_null(msg); /* still the caller's */
	om_msg_free(NULL, msg);
	post_call(asking.sys, asking.to, do_answer_all, NULL);
	for (unsigned i = 0; i < OM_PORT_MAX; i++) {
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		assert_int_equal(err[i], OM_ERR_DENIED);
	}
	om_system_stop_actor(asking.sys, asking.to);
	assert_int_equal(om_system_wait(asking.sys, asking.to, 10000), OM_OK);
	(void)ask_once(&again); /* a port is free again */
	assert_int_equal(again, OM_ERR_STALE);
	sys_end(asking.sys);
	assert_int_equal(sem_destroy(&asking.all), 0);
}

/* --- a timer that is faster than its actor ---------------------------------------------------------------- */

#define TICKS 20 /* that pass while the slow one is in its handler */

static struct {
	sem_t started, passed;
	unsigned slow, other;
} tick;

static void
do_every_ms(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_timer_start(cx, 1, 1, 0, NULL), OM_OK);
}

/*
 * Behind the long first tick: one more was waiting, however many have passed.  The mark is in the same
 * lane behind all that came before it.
 */
static enum om_err
on_slow_tick(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_msg *mark;

	(void)state;
	(void)msg;
	if (tick.slow++ > 0) {
		return OM_OK;
	}
	post(&tick.started);
	wait_for(&tick.passed);
	mark = om_msg_new(cx, T_DATA, 8);
	assert_int_equal(om_send_urgent(cx, om_self(cx), &mark), OM_OK);
	return OM_OK;
}

static enum om_err
on_mark(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	om_exit(cx);
	return OM_OK;
}

static enum om_err
on_other_tick(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	if (++tick.other == TICKS) {
		post(&tick.passed);
		om_exit(cx);
	}
	return OM_OK;
}

static void
test_ticks_of_a_slow_actor_are_not_piled_up(void **state)
{
	static const struct om_handler slow_handlers[] = { { T_CALL, probe_on_call },
							   { OM_SYS_TIMER, on_slow_tick },
							   { T_DATA, on_mark } };
	static const struct om_actor_def slow_def = { .name = "slow",
						      .handlers = slow_handlers,
						      .handler_count = OM_COUNT(slow_handlers),
						      .detached = true };
	static const struct om_handler other_handlers[] = { { T_CALL, probe_on_call },
							    { OM_SYS_TIMER, on_other_tick } };
	static const struct om_actor_def other_def = { .name = "other",
						       .handlers = other_handlers,
						       .handler_count = OM_COUNT(other_handlers) };
	struct om_system *sys = threads_new(1);
	struct om_actor_id slow = spawn_probe(sys, &slow_def, NULL);

	(void)state;
	memset(&tick, 0, sizeof(tick));
	assert_int_equal(sem_init(&tick.started, 0, 0), 0);
	assert_int_equal(sem_init(&tick.passed, 0, 0), 0);
	post_call(sys, slow, do_every_ms, NULL);
	wait_for(&tick.started);
	post_call(sys, spawn_probe(sys, &other_def, NULL), do_every_ms, NULL);
	assert_int_equal(om_system_wait(sys, slow, 10000), OM_OK);
	assert_int_equal(tick.other, TICKS);
	assert_int_equal(tick.slow, 2);
	sys_end(sys);
	assert_int_equal(sem_destroy(&tick.started), 0);
	assert_int_equal(sem_destroy(&tick.passed), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_detached_sender_waits_for_room),
		cmocka_unit_test(test_a_waiting_sender_hears_of_the_end),
		cmocka_unit_test(test_letters_about_a_full_mailbox),
		cmocka_unit_test(test_letters_about_what_an_ended_actor_had_left),
		cmocka_unit_test(test_letters_about_what_comes_too_late),
		cmocka_unit_test(test_offload_is_refused_at_its_limit),
		cmocka_unit_test(test_a_foreign_ask_is_refused_at_its_limit),
		cmocka_unit_test(test_ticks_of_a_slow_actor_are_not_piled_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
