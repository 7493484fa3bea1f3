/* SPDX-License-Identifier: ISC */
/* Timers on the fake clock; fds and offloaded work. */
#include <semaphore.h>
#include <time.h>
#include <unistd.h>
#include "runtime_help.h"

struct timing {
	uint64_t delay, period, cookie, timer;
	enum om_err err;
};

static int64_t fired_at[4096];
static uint64_t fired_cookie[4096];
static size_t fired;

static enum om_err
on_timer(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	const struct om_timer_fired *t = (const struct om_timer_fired *)(const void *)msg->payload;

	(void)state;
	fired_at[fired] = om_now(cx).ns / OM_NS_PER_MS;
	fired_cookie[fired++] = t->cookie;
	return OM_OK;
}

static struct om_io_ready io_ready;
static unsigned io_count;

static enum om_err
on_io(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	io_ready = *(const struct om_io_ready *)(const void *)msg->payload;
	io_count++;
	return OM_OK;
}

static const struct om_handler handlers[] = {
	{ T_CALL, probe_on_call },
	{ OM_SYS_TIMER, on_timer },
	{ OM_SYS_IO, on_io },
};
static const struct om_actor_def def = { .name = "timed",
					 .state_size = sizeof(struct probe),
					 .start = probe_start,
					 .handlers = handlers,
					 .handler_count = OM_COUNT(handlers) };

static void
do_start(struct om_ctx *cx, void *arg)
{
	struct timing *t = arg;

	t->err = om_timer_start(cx, t->delay, t->period, t->cookie, &t->timer);
}

static void
do_cancel(struct om_ctx *cx, void *arg)
{
	om_timer_cancel(cx, ((struct timing *)arg)->timer);
}

/* Each delay fires at its tick, also across the levels of the wheel (256, 65,536 ...). */
static void
test_delays_are_exact(void **state)
{
	static const uint64_t delays[] = { 0,     1,     2,      255,      256,
					   257,   511,   512,    1000,     65535,
					   65536, 65537, 100000, 16777216, 16777300 };
	struct om_system *sys = sim_new(1);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	int64_t origin = 1000; /* the fake clock starts at one second */

	(void)state;
	fired = 0;
	for (size_t i = 0; i < OM_COUNT(delays); i++) {
		struct timing t = { .delay = delays[i], .cookie = i };

		run_in(sys, a, do_start, &t);
		assert_int_equal(t.err, OM_OK);
	}
	om_sim_advance(sys, 20000000);
	assert_int_equal(fired, OM_COUNT(delays));
	for (size_t i = 0; i < fired; i++) {
		int64_t want = origin + (int64_t)delays[fired_cookie[i]];

		assert_true(i == 0 || fired_at[i - 1] <= fired_at[i]);
		/* Delay 0 is the next tick. */
		assert_int_equal(fired_at[i], want > origin ? want : origin + 1);
	}
	sys_end(sys);
}

static void
test_many_random_timers_fire_in_order_of_time(void **state)
{
	struct om_system *sys = sim_new(2);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	struct timing t[1000];
	size_t cancelled = 0;

	(void)state;
	fired = 0;
	for (size_t i = 0; i < 1000; i++) {
		t[i] = (struct timing){ .delay = (i * 7919) % 70000 + 1, .cookie = i };
		run_in(sys, a, do_start, &t[i]);
	}
	for (size_t i = 0; i < 1000; i += 3) {
		run_in(sys, a, do_cancel, &t[i]);
		cancelled++;
	}
	om_sim_advance(sys, 80000);
	assert_int_equal(fired, 1000 - cancelled);
	for (size_t i = 0; i < fired; i++) {
		assert_int_not_equal(fired_cookie[i] % 3, 0);
		assert_int_equal(fired_at[i], 1000 + (int64_t)t[fired_cookie[i]].delay);
		assert_true(i == 0 || fired_at[i - 1] <= fired_at[i]);
	}
	sys_end(sys);
}

static void
test_periodic_until_cancelled(void **state)
{
	struct om_system *sys = sim_new(3);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	struct timing t = { .delay = 10, .period = 100 };

	(void)state;
	fired = 0;
	run_in(sys, a, do_start, &t);
	om_sim_advance(sys, 1009);
	assert_int_equal(fired, 10);
	run_in(sys, a, do_cancel, &t);
	run_in(sys, a, do_cancel, &t); /* unknown now: fine */
	om_sim_advance(sys, 1000);
	assert_int_equal(fired, 10);
	sys_end(sys);
}

/* No timer message after cancel returned, also when it lay in the mailbox already. */
struct race {
	struct timing a, b;
};

static void
do_start_both(struct om_ctx *cx, void *arg)
{
	struct race *r = arg;

	do_start(cx, &r->a);
	do_start(cx, &r->b);
}

static struct race *race_now;

static enum om_err
on_timer_cancels_other(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	const struct om_timer_fired *t = (const struct om_timer_fired *)(const void *)msg->payload;

	(void)state;
	fired++;
	om_timer_cancel(cx, t->cookie == 1 ? race_now->b.timer : race_now->a.timer);
	return OM_OK;
}

static void
test_cancel_of_a_timer_in_the_mailbox(void **state)
{
	static const struct om_handler race_handlers[] = {
		{ T_CALL, probe_on_call },
		{ OM_SYS_TIMER, on_timer_cancels_other },
	};
	static const struct om_actor_def race_def = { .name = "race",
						      .handlers = race_handlers,
						      .handler_count = OM_COUNT(race_handlers) };
	struct race r = { .a = { .delay = 5, .cookie = 1 }, .b = { .delay = 5, .cookie = 2 } };
	struct om_system *sys = sim_new(4);
	struct om_actor_id a = spawn_probe(sys, &race_def, NULL);

	(void)state;
	race_now = &r;
	fired = 0;
	run_in(sys, a, do_start_both, &r);
	om_sim_advance(sys, 10);
	assert_int_equal(fired, 1);
	sys_end(sys);
}

static void
test_timers_end_with_their_actor(void **state)
{
	struct om_system *sys = sim_new(5);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	struct timing t = { .delay = 10, .period = 1 };

	(void)state;
	fired = 0;
	run_in(sys, a, do_start, &t);
	om_system_stop_actor(sys, a);
	(void)om_sim_run(sys);
	om_sim_advance(sys, 100);
	assert_int_equal(fired, 0);
	sys_end(sys);
}

/* --- fds ------------------------------------------------------------------------------------------ */

struct watching {
	int fd;
	uint64_t watch;
	enum om_err err;
};

static void
do_watch(struct om_ctx *cx, void *arg)
{
	struct watching *w = arg;

	w->err = om_io_watch(cx, w->fd, OM_IO_READ, 42, &w->watch);
}

static void
do_rearm(struct om_ctx *cx, void *arg)
{
	struct watching *w = arg;

	w->err = om_io_rearm(cx, w->watch, OM_IO_READ);
}

static void
do_unwatch(struct om_ctx *cx, void *arg)
{
	om_io_unwatch(cx, ((struct watching *)arg)->watch);
}

static void
test_watch_is_one_shot(void **state)
{
	struct om_system *sys = sim_new(6);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	int fds[2];
	struct watching w;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	w = (struct watching){ .fd = fds[0] };
	io_count = 0;
	run_in(sys, a, do_watch, &w);
	assert_int_equal(w.err, OM_OK);
	assert_int_equal(io_count, 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	(void)om_sim_run(sys);
	assert_int_equal(io_count, 1);
	assert_int_equal(io_ready.cookie, 42);
	assert_int_equal(io_ready.fd, fds[0]);
	assert_int_equal(io_ready.watch, w.watch);
	assert_true((io_ready.events & OM_IO_READ) != 0);
	(void)om_sim_run(sys);
	assert_int_equal(io_count, 1); /* still readable: no storm */
	run_in(sys, a, do_rearm, &w);
	assert_int_equal(io_count, 2);
	assert_int_equal(close(fds[1]), 0);
	run_in(sys, a, do_rearm, &w);
	assert_int_equal(io_count, 3);
	assert_true((io_ready.events & OM_IO_ERROR) != 0); /* the other end is gone */
	run_in(sys, a, do_unwatch, &w);
	run_in(sys, a, do_rearm, &w);
	assert_int_equal(w.err, OM_ERR_NOT_FOUND);
	assert_int_equal(close(fds[0]), 0);
	w.fd = -1;
	run_in(sys, a, do_watch, &w);
	assert_int_not_equal(w.err, OM_OK);
	sys_end(sys);
}

/*
 * What an actor's end closes may be another actor's the next moment: the number is reused before `stop`
 * has returned, and the end must not take the new owner's watch for its own.
 */
static struct {
	int fd, from[2];
	struct om_actor_id first;
	sem_t closed, watched, told;
} reused;

static void
stop_closes(struct om_ctx *cx, void *state, enum om_err why)
{
	(void)cx;
	(void)state;
	(void)why;
	assert_int_equal(close(reused.fd), 0);
	assert_int_equal(sem_post(&reused.closed), 0);
	assert_int_equal(sem_wait(&reused.watched), 0);
}

static void
do_reuse(struct om_ctx *cx, void *arg)
{
	struct watching *w = arg;
	uint64_t ref;

	assert_int_equal(om_monitor(cx, reused.first, &ref), OM_OK);
	om_stop(cx, reused.first);
	assert_int_equal(sem_wait(&reused.closed), 0);
	assert_int_equal(dup2(reused.from[0], reused.fd), reused.fd);
	do_watch(cx, w);
	assert_int_equal(sem_post(&reused.watched), 0);
}

static enum om_err
on_first_ended(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	return write(reused.from[1], "x", 1) == 1 ? OM_OK : OM_ERR_IO;
}

static enum om_err
on_reused_ready(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	return sem_post(&reused.told) == 0 ? OM_OK : OM_ERR_IO;
}

static void
test_an_end_leaves_the_next_watch_of_its_fd(void **state)
{
	static const struct om_handler on[] = { { T_CALL, probe_on_call },
						{ OM_SYS_DOWN, on_first_ended },
						{ OM_SYS_IO, on_reused_ready } };
	static const struct om_actor_def second = { .name = "second",
						    .state_size = sizeof(struct probe),
						    .start = probe_start,
						    .handlers = on,
						    .handler_count = OM_COUNT(on),
						    .detached = true };
	static const struct om_actor_def first = { .name = "first",
						   .state_size = sizeof(struct probe),
						   .start = probe_start,
						   .stop = stop_closes,
						   .handlers = handlers,
						   .handler_count = OM_COUNT(handlers) };
	struct om_system_conf conf = { .workers = 1 };
	struct watching mine = { 0 }, next = { 0 };
	struct timespec until;
	struct om_system *sys;
	int fds[2];

	(void)state;
	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pipe(reused.from), 0);
	assert_int_equal(sem_init(&reused.closed, 0, 0), 0);
	assert_int_equal(sem_init(&reused.watched, 0, 0), 0);
	assert_int_equal(sem_init(&reused.told, 0, 0), 0);
	reused.fd = mine.fd = next.fd = fds[0];
	reused.first = spawn_probe(sys, &first, NULL);
	post_call(sys, reused.first, do_watch, &mine);
	post_call(sys, spawn_probe(sys, &second, NULL), do_reuse, &next);
	assert_int_equal(clock_gettime(CLOCK_REALTIME, &until), 0);
	until.tv_sec += 10;
	assert_int_equal(sem_timedwait(&reused.told, &until), 0);
	sys_end(sys);
	assert_int_equal(mine.err, OM_OK);
	assert_int_equal(next.err, OM_OK);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(close(fds[i]), 0);
		assert_int_equal(close(reused.from[i]), 0);
	}
}

/* --- offloaded work ------------------------------------------------------------------------------- */

struct work {
	unsigned ran, done, dropped;
	enum om_err result, seen, err;
};

static enum om_err
work_fn(void *arg)
{
	struct work *w = arg;

	w->ran++;
	return w->result;
}

static void
work_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct work *w = arg;

	(void)cx;
	(void)state;
	w->done++;
	w->seen = result;
}

static void
work_drop(void *arg)
{
	((struct work *)arg)->dropped++;
}

static void
do_offload(struct om_ctx *cx, void *arg)
{
	struct work *w = arg;

	w->err = om_offload(cx, work_fn, w, work_done, work_drop);
}

static void
test_work_ends_exactly_once(void **state)
{
	unsigned done = 0, dropped = 0, not_run = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct om_system *sys = sim_new(seed);
		struct om_actor_id a = spawn_probe(sys, &def, NULL);
		struct work w[4];

		for (unsigned i = 0; i < 4; i++) {
			w[i] = (struct work){ .result = OM_ERR_VM };
			post_call(sys, a, do_offload, &w[i]);
		}
		for (uint64_t i = 0; i < seed % 15; i++) {
			(void)om_sim_step(sys);
		}
		om_system_stop_actor(sys, a); /* at a random moment */
		(void)om_sim_run(sys);
		for (unsigned i = 0; i < 4; i++) {
			assert_int_equal(w[i].err, OM_OK);
			assert_int_equal(w[i].done + w[i].dropped, 1);
			assert_true(w[i].ran == 1 || w[i].dropped == 1);
			assert_true(w[i].done == 0 || w[i].seen == OM_ERR_VM);
			done += w[i].done;
			dropped += w[i].dropped;
			not_run += w[i].ran == 0;
		}
		sys_end(sys);
	}
	assert_true(done > 0 && dropped > 0 && not_run > 0);
}

/*
 * A work may use what its actor's `stop` takes away: from then on none begins.  The only thread of the
 * pool is held until `stop` runs, which waits for what becomes of the work behind.
 */
static struct {
	sem_t held, let_go, over;
	bool began, dropped;
} late;

static enum om_err
late_hold(void *arg)
{
	(void)arg;
	assert_int_equal(sem_post(&late.held), 0);
	return sem_wait(&late.let_go) == 0 ? OM_OK : OM_ERR_IO;
}

static enum om_err
late_work(void *arg)
{
	(void)arg;
	late.began = true;
	assert_int_equal(sem_post(&late.over), 0);
	return OM_OK;
}

static void
late_drop(void *arg)
{
	(void)arg;
	late.dropped = true;
	assert_int_equal(sem_post(&late.over), 0);
}

static void
late_never_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)cx;
	(void)state;
	(void)arg;
	(void)result;
	fail();
}

static void
do_offload_late(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_offload(cx, late_hold, NULL, late_never_done, NULL), OM_OK);
	assert_int_equal(om_offload(cx, late_work, NULL, late_never_done, late_drop), OM_OK);
	assert_int_equal(sem_wait(&late.held), 0);
	om_exit(cx);
}

static void
stop_takes_away(struct om_ctx *cx, void *state, enum om_err why)
{
	(void)cx;
	(void)state;
	(void)why;
	assert_int_equal(sem_post(&late.let_go), 0);
	assert_int_equal(sem_wait(&late.over), 0);
}

static void
test_no_work_begins_while_its_actor_stops(void **state)
{
	static const struct om_handler on[] = { { T_CALL, probe_on_call } };
	static const struct om_actor_def stopped = { .name = "stopped",
						     .stop = stop_takes_away,
						     .handlers = on,
						     .handler_count = OM_COUNT(on),
						     .detached = true };
	struct om_system_conf conf = { .workers = 1, .offload_threads = 1 };
	struct om_system *sys;

	(void)state;
	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	assert_int_equal(sem_init(&late.held, 0, 0), 0);
	assert_int_equal(sem_init(&late.let_go, 0, 0), 0);
	assert_int_equal(sem_init(&late.over, 0, 0), 0);
	post_call(sys, spawn_probe(sys, &stopped, NULL), do_offload_late, NULL);
	sys_end(sys);
	assert_true(late.dropped);
	assert_false(late.began);
}

/* --- what is far away ------------------------------------------------------------------------------- */

static unsigned far_answers;

static void
on_far_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	(void)cx;
	(void)state;
	(void)answer;
	far_answers++;
}

static enum om_err
on_far_question(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_later(cx, msg).tag != 0 ? OM_OK : OM_ERR_STATE;
}

static void
do_far(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg = om_msg_new(cx, T_DATA, 8);

	assert_non_null(msg);
	assert_int_equal(om_ask(cx, *(struct om_actor_id *)arg, &msg, UINT64_MAX, on_far_answer, 0),
			 OM_OK);
	assert_int_equal(om_timer_start(cx, UINT64_MAX, 0, 0, NULL), OM_OK);
	assert_int_equal(om_timer_start(cx, INT64_MAX, UINT64_MAX, 0, NULL), OM_OK);
	assert_int_equal(om_timer_start(cx, 10, UINT64_MAX, 1, NULL), OM_OK);
}

static void
test_a_time_that_does_not_fit_is_far_away(void **state)
{
	static const struct om_handler on[] = { { T_DATA, on_far_question } };
	static const struct om_actor_def silent = { .name = "silent",
						    .handlers = on,
						    .handler_count = 1 };
	struct om_system *sys = sim_new(1);
	struct om_actor_id a = spawn_probe(sys, &def, NULL);
	struct om_actor_id to = spawn_probe(sys, &silent, NULL);

	(void)state;
	fired = 0;
	far_answers = 0;
	run_in(sys, a, do_far, &to);
	om_sim_advance(sys, UINT64_C(10) * 24 * 3600 * 1000);
	assert_int_equal(far_answers, 0);
	assert_int_equal(fired, 1); /* the one of 10 ms, once */
	assert_int_equal(fired_cookie[0], 1);
	sys_end(sys);
}

/* OM_AGAIN is for messages that can be kept. */
static enum om_err
on_timer_again(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	fired++;
	return OM_AGAIN;
}

static void
test_again_for_a_timer_is_an_error(void **state)
{
	static const struct om_handler on[] = { { T_CALL, probe_on_call },
						{ OM_SYS_TIMER, on_timer_again } };
	static const struct om_actor_def again = { .name = "again",
						   .handlers = on,
						   .handler_count = OM_COUNT(on) };
	struct om_system *sys = sim_new(1);
	struct om_actor_id a = spawn_probe(sys, &again, NULL);
	struct timing t = { .delay = 1 };
	struct om_system_stats st;

	(void)state;
	fired = 0;
	run_in(sys, a, do_start, &t);
	om_sim_advance(sys, 10);
	assert_int_equal(fired, 1);
	om_system_stats(sys, &st);
	assert_int_equal(st.errors, 1);
	sys_end(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delays_are_exact),
		cmocka_unit_test(test_many_random_timers_fire_in_order_of_time),
		cmocka_unit_test(test_periodic_until_cancelled),
		cmocka_unit_test(test_cancel_of_a_timer_in_the_mailbox),
		cmocka_unit_test(test_timers_end_with_their_actor),
		cmocka_unit_test(test_watch_is_one_shot),
		cmocka_unit_test(test_an_end_leaves_the_next_watch_of_its_fd),
		cmocka_unit_test(test_work_ends_exactly_once),
		cmocka_unit_test(test_no_work_begins_while_its_actor_stops),
		cmocka_unit_test(test_a_time_that_does_not_fit_is_far_away),
		cmocka_unit_test(test_again_for_a_timer_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
