/* SPDX-License-Identifier: ISC */
/*
 * Real threads: promises 1, 2, 7 (shutdown), 8 (watchdog); parking, detached actors, foreign
 * threads.  Nothing here sleeps to wait for an event; what must take time spins on the clock.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "runtime_help.h"

static struct om_system *
threads_new(unsigned workers)
{
	struct om_system_conf conf = { .workers = workers, .actor_max = 65536 };
	struct om_system *sys;

	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	return sys;
}

/* --- a chain of many actors over several workers: nothing lost, one thread at a time ------------------- */

#define SWARM        64
#define SWARM_TOKENS 200
#define SWARM_HOPS   500

static struct om_actor_id swarm[SWARM];
static sem_t swarm_done;

struct swarm_state {
	uint64_t inside; /* torn or above 1: two threads were in one actor */
	uint64_t handled;
};

static enum om_err
on_swarm(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct swarm_state *s = state;
	uint64_t left = om_msg_u64(msg);

	assert_int_equal(s->inside++, 0);
	s->handled++;
	if (left == 0) {
		assert_int_equal(sem_post(&swarm_done), 0);
	} else {
		assert_int_equal(om_send_u64(cx, swarm[om_rand(cx) % SWARM], T_DATA, left - 1),
				 OM_OK);
	}
	assert_int_equal(s->inside--, 1);
	return OM_OK;
}

static void
test_swarm_loses_nothing(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_swarm } };
	static const struct om_actor_def def = { .name = "swarm",
						 .state_size = sizeof(struct swarm_state),
						 .handlers = handlers,
						 .handler_count = 1 };

	(void)state;
	for (unsigned workers = 1; workers <= 4; workers++) {
		struct om_system *sys = threads_new(workers);
		struct om_system_stats st;

		assert_int_equal(sem_init(&swarm_done, 0, 0), 0);
		for (unsigned i = 0; i < SWARM; i++) {
			assert_int_equal(om_system_spawn(sys, &def, NULL, &swarm[i]), OM_OK);
		}
		for (unsigned i = 0; i < SWARM_TOKENS; i++) {
			assert_int_equal(post_u64(sys, swarm[i % SWARM], T_DATA, SWARM_HOPS),
					 OM_OK);
		}
		for (unsigned i = 0; i < SWARM_TOKENS; i++) {
			assert_int_equal(sem_wait(&swarm_done), 0);
		}
		assert_int_equal(om_system_stop(sys, 10000, NULL, 0), 0);
		om_system_stats(sys, &st);
		assert_int_equal(st.handled, SWARM_TOKENS * (SWARM_HOPS + 1));
		assert_int_equal(st.sent, st.handled);
		om_system_free(sys);
		assert_int_equal(sem_destroy(&swarm_done), 0);
	}
}

/* --- foreign threads ------------------------------------------------------------------------------------ */

static enum om_err
on_double(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_reply_u64(cx, msg, 2 * om_msg_u64(msg));
}

static const struct om_handler echo_handlers[] = { { T_DATA, on_double } };
static const struct om_actor_def echo_def = { .name = "echo",
					      .handlers = echo_handlers,
					      .handler_count = 1 };

struct asking {
	struct om_system *sys;
	struct om_actor_id to;
	unsigned good;
};

static void *
ask_many(void *arg)
{
	struct asking *a = arg;

	for (uint64_t i = 0; i < 500; i++) {
		struct om_msg *msg = om_system_msg_new(a->sys, T_DATA, 8), *reply = NULL;

		*(uint64_t *)(void *)msg->payload = i;
		if (om_system_ask(a->sys, a->to, &msg, 10000, &reply) == OM_OK &&
		    om_msg_u64(reply) == 2 * i) {
			a->good++;
		}
		om_msg_free(NULL, reply);
	}
	return NULL;
}

static void
test_foreign_threads_ask(void **state)
{
	struct om_system *sys = threads_new(2);
	struct om_actor_id echo = spawn_probe(sys, &echo_def, NULL);
	struct asking a[4];
	pthread_t t[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		a[i] = (struct asking){ .sys = sys, .to = echo };
		assert_int_equal(pthread_create(&t[i], NULL, ask_many, &a[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(t[i], NULL), 0);
		assert_int_equal(a[i].good, 500);
	}
	sys_end(sys);
}

/* --- detached actors, blocking senders ------------------------------------------------------------------ */

static sem_t gate;

static enum om_err
on_block(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	while (sem_wait(&gate) != 0) {
	}
	return OM_OK;
}

static const struct om_handler block_handlers[] = { { T_DATA, on_block } };
static const struct om_actor_def detached_def = { .name = "detached",
						  .handlers = block_handlers,
						  .handler_count = 1,
						  .mailbox_slots = 4,
						  .overload = OM_OVERLOAD_BLOCK,
						  .detached = true };

struct pushing {
	struct om_system *sys;
	struct om_actor_id to;
	sem_t sent;
	enum om_err last;
};

static void *
push_ten(void *arg)
{
	struct pushing *p = arg;

	for (unsigned i = 0; i < 10; i++) {
		p->last = post_u64(p->sys, p->to, T_DATA, i);
		assert_int_equal(sem_post(&p->sent), 0);
	}
	return NULL;
}

static void
test_detached_blocks_alone_and_full_mailbox_blocks_the_sender(void **state)
{
	struct om_system *sys = threads_new(1);
	struct om_actor_id d = spawn_probe(sys, &detached_def, NULL);
	struct om_actor_id echo = spawn_probe(sys, &echo_def, NULL);
	struct om_msg *msg, *reply = NULL;
	struct pushing p = { .sys = sys, .to = d };
	pthread_t t;
	int sent;

	(void)state;
	assert_int_equal(sem_init(&gate, 0, 0), 0);
	assert_int_equal(sem_init(&p.sent, 0, 0), 0);
	assert_int_equal(pthread_create(&t, NULL, push_ten, &p), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(sem_wait(&p.sent), 0);
	}
	/* The only worker is free although the detached actor sits in a system call. */
	msg = om_system_msg_new(sys, T_DATA, 8);
	*(uint64_t *)(void *)msg->payload = 3;
	assert_int_equal(om_system_ask(sys, echo, &msg, 10000, &reply), OM_OK);
	om_msg_free(NULL, reply);
	assert_int_equal(sem_getvalue(&p.sent, &sent), 0);
	assert_true(sent <= 1); /* 4 in the mailbox, one in the handler: the sender waits */
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(sem_post(&gate), 0);
	}
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(p.last, OM_OK);
	sys_end(sys);
	assert_int_equal(sem_destroy(&gate), 0);
	assert_int_equal(sem_destroy(&p.sent), 0);
}

/* --- offload ---------------------------------------------------------------------------------------------- */

static sem_t offload_done;

static enum om_err
work_fn(void *arg)
{
	*(unsigned *)arg += 1;
	return OM_OK;
}

static void
work_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)cx;
	(void)state;
	assert_int_equal(result, OM_OK);
	assert_int_equal(*(unsigned *)arg, 1);
	assert_int_equal(sem_post(&offload_done), 0);
}

static unsigned works[100];

static void
do_offload_all(struct om_ctx *cx, void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(om_offload(cx, work_fn, &works[i], work_done, NULL), OM_OK);
	}
}

static void
test_offload_runs_beside_the_workers(void **state)
{
	struct om_system *sys = threads_new(2);
	struct om_actor_id a = spawn_probe(sys, &probe_def, NULL);

	(void)state;
	memset(works, 0, sizeof(works));
	assert_int_equal(sem_init(&offload_done, 0, 0), 0);
	post_call(sys, a, do_offload_all, NULL);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(sem_wait(&offload_done), 0);
	}
	sys_end(sys);
	assert_int_equal(sem_destroy(&offload_done), 0);
}

/* A service that hangs: every work of its pool waits for it, and so does every drop. */
static sem_t hung_service;

static enum om_err
hang_work(void *arg)
{
	(void)arg;
	while (sem_wait(&hung_service) != 0) {
	}
	return OM_OK;
}

static void
hang_drop(void *arg)
{
	(void)hang_work(NULL);
	assert_int_equal(sem_post(arg), 0);
}

#define HUNG_WORKS 20 /* more than the threads of a pool */

static void
do_offload_hanging(struct om_ctx *cx, void *arg)
{
	for (unsigned i = 0; i < HUNG_WORKS; i++) {
		assert_int_equal(om_offload_to(cx, 1, hang_work, arg, work_done, hang_drop), OM_OK);
	}
	assert_int_equal(om_offload_to(cx, 2, work_fn, &works[0], work_done, NULL), OM_OK);
}

/* One pool's works do not wait for another's, and no actor's thread waits for a drop. */
static void
test_a_pool_that_hangs_holds_up_nobody(void **state)
{
	struct om_system *sys = threads_new(1);
	struct om_actor_id a = spawn_probe(sys, &probe_def, NULL);
	sem_t dropped;

	(void)state;
	memset(works, 0, sizeof(works));
	assert_int_equal(sem_init(&offload_done, 0, 0), 0);
	assert_int_equal(sem_init(&hung_service, 0, 0), 0);
	assert_int_equal(sem_init(&dropped, 0, 0), 0);
	post_call(sys, a, do_offload_hanging, &dropped);
	assert_int_equal(sem_wait(&offload_done), 0); /* pool 2 */
	om_system_stop_actor(sys, a);
	assert_int_equal(om_system_wait(sys, a, 30000), OM_OK);
	a = spawn_probe(sys, &probe_def, NULL); /* the one worker still works */
	om_system_stop_actor(sys, a);
	assert_int_equal(om_system_wait(sys, a, 30000), OM_OK);
	assert_int_not_equal(sem_trywait(&dropped), 0);
	for (unsigned i = 0; i < 2 * HUNG_WORKS; i++) {
		assert_int_equal(sem_post(&hung_service), 0);
	}
	for (unsigned i = 0; i < HUNG_WORKS; i++) {
		assert_int_equal(sem_wait(&dropped), 0);
	}
	sys_end(sys);
	assert_int_equal(sem_destroy(&dropped), 0);
	assert_int_equal(sem_destroy(&hung_service), 0);
	assert_int_equal(sem_destroy(&offload_done), 0);
}

/* --- turns ------------------------------------------------------------------------------------------------ */

static struct om_actor_id patient;
static unsigned tries;

/* Urgent: again and again, until the other actor's turn has come. */
static enum om_err
on_patient(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	tries++;
	return om_msg_u64(msg) == 0 ? OM_AGAIN : OM_OK;
}

static void
do_send_patient(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg = om_msg_new(cx, T_DATA, sizeof(uint64_t));

	assert_non_null(msg);
	*(uint64_t *)(void *)msg->payload = 0;
	assert_int_equal(om_send_urgent(cx, patient, &msg), OM_OK);
	assert_int_equal(sem_post(arg), 0);
}

static void
do_kill_patient(struct om_ctx *cx, void *arg)
{
	(void)arg;
	om_kill(cx, patient);
}

/* An urgent message that is to come again leaves the worker to others, and a kill ends its actor. */
static void
test_urgent_again_lets_others_run_and_can_be_killed(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_patient } };
	static const struct om_actor_def def = { .name = "patient",
						 .handlers = handlers,
						 .handler_count = 1 };
	struct om_system *sys = threads_new(1);
	struct om_actor_id other = spawn_probe(sys, &probe_def, NULL);
	struct om_msg *msg, *reply = NULL;
	struct om_actor_id echo = spawn_probe(sys, &echo_def, NULL);
	sem_t sent;

	(void)state;
	tries = 0;
	assert_int_equal(sem_init(&sent, 0, 0), 0);
	patient = spawn_probe(sys, &def, NULL);
	post_call(sys, other, do_send_patient, &sent);
	assert_int_equal(sem_wait(&sent), 0);
	for (unsigned i = 0; i < 100; i++) {
		msg = om_system_msg_new(sys, T_DATA, sizeof(uint64_t));
		*(uint64_t *)(void *)msg->payload = i;
		assert_int_equal(om_system_ask(sys, echo, &msg, 10000, &reply), OM_OK);
		om_msg_free(NULL, reply);
	}
	post_call(sys, other, do_kill_patient, NULL);
	assert_int_equal(om_system_wait(sys, patient, 10000), OM_OK);
	sys_end(sys);
	assert_true(tries > 0);
	assert_int_equal(sem_destroy(&sent), 0);
}

enum { URGENT_MANY = 1000 }; /* several turns */

static void
do_send_urgent_and_stop(struct om_ctx *cx, void *arg)
{
	const struct om_actor_id *to = arg;

	for (uint64_t i = 0; i < URGENT_MANY; i++) {
		struct om_msg *msg = om_msg_new(cx, T_DATA, sizeof(uint64_t));

		assert_non_null(msg);
		*(uint64_t *)(void *)msg->payload = i;
		assert_int_equal(om_send_urgent(cx, *to, &msg), OM_OK);
	}
	om_stop(cx, *to);
}

/* The daemon's last entry was lost: its bell lay in the lane behind a timer when the stop came. */
static void
test_a_stop_comes_after_the_system_lane(void **state)
{
	struct om_system *systems[] = { threads_new(1), sim_new(1) };
	struct probe_log *log = calloc(1, sizeof(*log));

	(void)state;
	for (size_t i = 0; i < OM_COUNT(systems); i++) {
		struct om_actor_id other, to;

		memset(log, 0, sizeof(*log));
		other = spawn_probe(systems[i], &probe_def, NULL);
		to = spawn_probe(systems[i], &probe_def, log);
		post_call(systems[i], other, do_send_urgent_and_stop, &to);
		if (i == 0) {
			assert_int_equal(om_system_wait(systems[i], to, 10000), OM_OK);
		} else {
			(void)om_sim_run(systems[i]);
		}
		assert_int_equal(log->stops, 1);
		assert_int_equal(log->count, URGENT_MANY);
		sys_end(systems[i]);
	}
	free(log);
}

/* --- promise 7 -------------------------------------------------------------------------------------------- */

static sem_t in_handler, leave_handler;

static enum om_err
on_hang(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	assert_int_equal(sem_post(&in_handler), 0);
	while (sem_wait(&leave_handler) != 0) {
	}
	return OM_OK;
}

static void *
let_go(void *arg)
{
	struct om_system_stats st;

	/* The system has given up on the actor and killed it: now it may come back. */
	do {
		om_system_stats(arg, &st);
	} while (st.dropped_full == 0 && sem_trywait(&in_handler) != 0);
	assert_int_equal(sem_post(&leave_handler), 0);
	return NULL;
}

static void
test_stop_has_a_deadline_and_names_what_is_left(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_hang } };
	static const struct om_actor_def def = {
		.name = "hangs", .handlers = handlers, .handler_count = 1, .detached = true
	};
	struct om_system *sys = threads_new(2);
	struct om_actor_id hangs = spawn_probe(sys, &def, NULL);
	struct om_actor_id fine = spawn_probe(sys, &echo_def, NULL);
	struct om_mono start;
	char left[64];
	pthread_t t;

	(void)state;
	(void)fine;
	assert_int_equal(sem_init(&in_handler, 0, 0), 0);
	assert_int_equal(sem_init(&leave_handler, 0, 0), 0);
	assert_int_equal(post_u64(sys, hangs, T_DATA, 1), OM_OK);
	assert_int_equal(sem_wait(&in_handler), 0);
	start = om_mono_now();
	assert_int_equal(om_system_stop(sys, 50, left, sizeof(left)), 1);
	assert_true(om_mono_ms_between(start, om_mono_now()) < 5000);
	assert_string_equal(left, "hangs");
	/* It still sits in its handler, so the memory must stay; let it go for the sanitizers. */
	assert_int_equal(sem_post(&in_handler), 0);
	assert_int_equal(pthread_create(&t, NULL, let_go, sys), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(om_system_wait(sys, hangs, 10000), OM_OK);
	om_system_free(sys);
}

/* --- promise 8 -------------------------------------------------------------------------------------------- */

static struct om_slow_report slow_seen;
static sem_t slow_sem;

static enum om_err
on_slow_report(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	slow_seen = *(const struct om_slow_report *)(const void *)msg->payload;
	assert_int_equal(sem_post(&slow_sem), 0);
	return OM_OK;
}

static void
do_join_slow(struct om_ctx *cx, void *arg)
{
	(void)arg;
	assert_int_equal(om_join(cx, OM_GROUP_SLOW), OM_OK);
	assert_int_equal(sem_post(&slow_sem), 0);
}

/* Stays in the handler until the watchdog has spoken: reported while it runs, not afterwards. */
static enum om_err
on_spin(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_system_stats st;

	(void)state;
	(void)msg;
	do {
		om_system_stats(om_ctx_system(cx), &st);
	} while (st.slow_handlers == 0);
	return OM_OK;
}

static void
test_watchdog_reports_a_slow_handler_while_it_runs(void **state)
{
	static const struct om_handler handlers[] = {
		{ T_CALL, probe_on_call },
		{ OM_SYS_SLOW, on_slow_report },
	};
	static const struct om_actor_def listener = { .name = "listener",
						      .handlers = handlers,
						      .handler_count = OM_COUNT(handlers),
						      .detached = true };
	static const struct om_handler spin_handlers[] = { { T_DATA, on_spin } };
	static const struct om_actor_def spinner = { .name = "spinner",
						     .handlers = spin_handlers,
						     .handler_count = 1 };
	struct om_system *sys = threads_new(2);
	struct om_actor_id l = spawn_probe(sys, &listener, NULL);
	struct om_actor_id s = spawn_probe(sys, &spinner, NULL);

	(void)state;
	assert_int_equal(sem_init(&slow_sem, 0, 0), 0);
	post_call(sys, l, do_join_slow, NULL);
	assert_int_equal(sem_wait(&slow_sem), 0);
	assert_int_equal(post_u64(sys, s, T_DATA, 1), OM_OK);
	assert_int_equal(sem_wait(&slow_sem), 0);
	assert_int_equal(slow_seen.who.v, s.v);
	assert_true(slow_seen.us >= 10000);
	sys_end(sys);
	assert_int_equal(sem_destroy(&slow_sem), 0);
}

/* How many are counted when an actor has had one message. */
static uint64_t
slow_handlers(const struct om_actor_def *def)
{
	struct om_system *sys = threads_new(1);
	struct om_actor_id id = spawn_probe(sys, def, NULL);
	struct om_system_stats st;

	assert_int_equal(post_u64(sys, id, T_DATA, 1), OM_OK);
	om_system_stop_actor(sys, id);
	assert_int_equal(om_system_wait(sys, id, 10000), OM_OK);
	om_system_stats(sys, &st);
	sys_end(sys);
	return st.slow_handlers;
}

static enum om_err
on_over_budget(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_mono start = om_mono_now();

	(void)cx;
	(void)state;
	(void)msg;
	while (om_mono_now().ns - start.ns < 300000) {
	}
	return OM_OK;
}

static void
test_own_budget_is_exact(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_over_budget } };
	static const struct om_actor_def def = {
		.name = "tight", .handlers = handlers, .handler_count = 1, .budget_us = 100
	};

	(void)state;
	assert_int_equal(slow_handlers(&def), 1);
}

/* Waits for the watchdog, which speaks while the handler runs; at its end it is over its budget too. */
static void
test_a_long_handler_is_reported_once(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_spin } };
	static const struct om_actor_def def = {
		.name = "long", .handlers = handlers, .handler_count = 1, .budget_us = 1000
	};

	(void)state;
	assert_int_equal(slow_handlers(&def), 1);
}

/* 100 slices of half a millisecond of work each: none is over the budget of 10 ms. */
static enum om_err
on_slices(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	unsigned *slices = state;
	struct timespec start, now;

	(void)cx;
	(void)msg;
	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start), 0);
	do {
		assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
	} while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < 500000);
	return ++*slices < 100 ? OM_AGAIN : OM_OK;
}

static void
test_work_in_slices_is_not_reported(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_slices } };
	static const struct om_actor_def def = { .name = "slices",
						 .state_size = sizeof(unsigned),
						 .handlers = handlers,
						 .handler_count = 1 };

	(void)state;
	assert_int_equal(slow_handlers(&def), 0);
}

/* A real timer and a real fd, through the I/O thread. */
static sem_t io_sem;

static enum om_err
on_any_sys(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	assert_int_equal(sem_post(&io_sem), 0);
	return OM_OK;
}

static int io_fd;

static void
do_arm(struct om_ctx *cx, void *arg)
{
	uint64_t watch;

	(void)arg;
	assert_int_equal(om_timer_start(cx, 1, 0, 0, NULL), OM_OK);
	assert_int_equal(om_io_watch(cx, io_fd, OM_IO_READ, 0, &watch), OM_OK);
}

static void
test_io_thread_delivers_timers_and_fds(void **state)
{
	static const struct om_handler handlers[] = {
		{ T_CALL, probe_on_call },
		{ OM_SYS_TIMER, on_any_sys },
		{ OM_SYS_IO, on_any_sys },
	};
	static const struct om_actor_def def = { .name = "armed",
						 .handlers = handlers,
						 .handler_count = OM_COUNT(handlers) };
	struct om_system *sys = threads_new(1);
	struct om_actor_id id = spawn_probe(sys, &def, NULL);
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	io_fd = fds[0];
	assert_int_equal(sem_init(&io_sem, 0, 0), 0);
	post_call(sys, id, do_arm, NULL);
	assert_int_equal(sem_wait(&io_sem), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(sem_wait(&io_sem), 0);
	sys_end(sys);
	assert_int_equal(close(fds[0]) + close(fds[1]), 0);
	assert_int_equal(sem_destroy(&io_sem), 0);
}

/* --- senders that would wait for ever ---------------------------------------------------------------- */

struct flood {
	struct om_actor_id to;
	enum om_err err;
};

static void
do_flood(struct om_ctx *cx, void *arg)
{
	struct flood *flood = arg;

	do {
		flood->err = om_send_u64(cx, flood->to, T_DATA, 1);
	} while (flood->err == OM_OK);
}

static const struct om_actor_def narrow_def = { PROBE_DEF("narrow"), .mailbox_slots = 2,
						.overload = OM_OVERLOAD_BLOCK, .detached = true };

static void
test_a_full_sender_does_not_wait_for_itself(void **state)
{
	struct om_system *sys = threads_new(1);
	struct flood flood = { .to = spawn_probe(sys, &narrow_def, NULL) };

	(void)state;
	post_call(sys, flood.to, do_flood, &flood);
	om_system_stop_actor(sys, flood.to);
	assert_int_equal(om_system_wait(sys, flood.to, 10000), OM_OK);
	assert_int_equal(flood.err, OM_ERR_FULL);
	sys_end(sys);
}

static void
test_a_kill_ends_two_that_wait_for_each_other(void **state)
{
	struct om_system *sys = threads_new(1);
	struct om_actor_id a = spawn_probe(sys, &narrow_def, NULL);
	struct om_actor_id b = spawn_probe(sys, &narrow_def, NULL);
	struct flood to_a = { .to = a }, to_b = { .to = b };
	struct om_actor_stats as, bs;

	(void)state;
	post_call(sys, a, do_flood, &to_b);
	post_call(sys, b, do_flood, &to_a);
	do { /* each has all that fits into it, and waits for the other */
		assert_int_equal(om_actor_stats(sys, a, &as), OM_OK);
		assert_int_equal(om_actor_stats(sys, b, &bs), OM_OK);
	} while (as.depth < 2 || bs.depth < 2);
	assert_int_equal(om_system_stop(sys, 50, NULL, 0), 2);
	assert_int_equal(om_system_wait(sys, a, 10000), OM_OK);
	assert_int_equal(om_system_wait(sys, b, 10000), OM_OK);
	assert_true(to_a.err == OM_ERR_CANCELLED || to_a.err == OM_ERR_STALE);
	assert_true(to_b.err == OM_ERR_CANCELLED || to_b.err == OM_ERR_STALE);
	om_system_free(sys);
}

/* --- two systems in one process ---------------------------------------------------------------------- */

struct abroad {
	struct om_system *sys;
	struct om_actor_id to;
};

static void
do_send_abroad(struct om_ctx *cx, void *arg)
{
	struct abroad *abroad = arg;

	(void)cx;
	assert_int_equal(post_u64(abroad->sys, abroad->to, T_DATA, 1), OM_OK);
}

static void
test_a_sender_of_another_system_is_nobody(void **state)
{
	struct om_system *home = sim_new(1);
	struct om_system *sys = sim_new(2);
	struct probe_log log = { 0 };
	struct abroad abroad = { .sys = sys, .to = spawn_probe(sys, &probe_def, &log) };
	struct om_actor_id id = spawn_probe(home, &probe_def, NULL);
	struct om_actor_id same = spawn_probe(sys, &probe_def, NULL);

	(void)state;
	run_in(home, id, do_send_abroad, &abroad);
	run_in(sys, same, do_send_abroad, &abroad);
	assert_int_equal(log.count, 2);
	assert_int_equal(log.from[0].v, 0);
	assert_int_equal(log.from[1].v, same.v);
	sys_end(home);
	sys_end(sys);
}

/* --- what would hold up a worker ---------------------------------------------------------------------- */

static void
do_ask_and_wait(struct om_ctx *cx, void *arg)
{
	struct om_msg *msg = om_msg_new(cx, T_DATA, 8), *reply = NULL;

	(void)arg;
	assert_int_equal(om_system_ask(om_ctx_system(cx), om_self(cx), &msg, 10, &reply), OM_OK);
}

static void
test_a_blocking_call_on_a_worker_is_a_bug(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		struct om_system *sys = sim_new(1);

		(void)signal(SIGABRT, SIG_DFL); /* not the test's business */
		assert_non_null(freopen("/dev/null", "w", stderr));
		run_in(sys, spawn_probe(sys, &probe_def, NULL), do_ask_and_wait, NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* --- a supervisor that is killed while its child is in a handler ------------------------------------ */

static sem_t child_started;

static enum om_err
holder_start(struct om_ctx *cx, void *state, const void *arg)
{
	(void)cx;
	(void)state;
	(void)arg;
	assert_int_equal(sem_post(&child_started), 0);
	return OM_OK;
}

static void
do_kill_named(struct om_ctx *cx, void *arg)
{
	om_kill(cx, om_whereis(om_ctx_system(cx), arg));
}

static void
test_a_name_that_is_being_freed_is_waited_for(void **state)
{
	static const struct om_handler handlers[] = { { T_DATA, on_hang } };
	static const struct om_actor_def holder = { .name = "holder",
						    .start = holder_start,
						    .handlers = handlers,
						    .handler_count = 1,
						    .detached = true };
	static const struct om_child_spec child = { .def = &holder,
						    .name = "holder",
						    .restart = OM_RESTART_ALWAYS };
	static const struct om_supervisor_spec inner = { .name = "inner",
							 .children = &child,
							 .child_count = 1 };
	static const struct om_child_spec below = { .def = &om_supervisor_def,
						    .arg = &inner,
						    .restart = OM_RESTART_ALWAYS };
	static const struct om_supervisor_spec top = { .name = "top",
						       .max_restarts = 1,
						       .window_ms = 60000,
						       .children = &below,
						       .child_count = 1 };
	struct om_system *sys = threads_new(1);
	struct om_actor_id id, killer = spawn_probe(sys, &probe_def, NULL), old, now;
	struct om_msg *msg = om_system_msg_new(sys, T_DATA, 8), *reply = NULL;

	(void)state;
	assert_int_equal(sem_init(&child_started, 0, 0), 0);
	assert_int_equal(sem_init(&in_handler, 0, 0), 0);
	assert_int_equal(sem_init(&leave_handler, 0, 0), 0);
	assert_int_equal(om_supervisor_start(sys, &top, &id), OM_OK);
	assert_int_equal(sem_wait(&child_started), 0);
	assert_int_equal(post_u64(sys, om_whereis(sys, "holder"), T_DATA, 1), OM_OK);
	assert_int_equal(sem_wait(&in_handler), 0);
	old = om_whereis(sys, "inner");
	post_call(sys, killer, do_kill_named, (void *)(uintptr_t) "inner");
	do { /* the new one, when it has been through its start */
		assert_int_not_equal(om_whereis(sys, "top").v, 0); /* has not given up */
		now = om_whereis(sys, "inner");
	} while (now.v == 0 || om_actor_id_eq(now, old));
	assert_int_equal(om_system_ask(sys, now, &msg, 10000, &reply), OM_ERR_UNKNOWN_TYPE);
	assert_int_equal(sem_post(&leave_handler), 0);
	assert_int_equal(sem_wait(&child_started), 0);
	assert_true(om_actor_id_eq(om_whereis(sys, "inner"), now));
	assert_true(om_actor_id_eq(om_whereis(sys, "top"), id));
	sys_end(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_swarm_loses_nothing),
		cmocka_unit_test(test_foreign_threads_ask),
		cmocka_unit_test(test_detached_blocks_alone_and_full_mailbox_blocks_the_sender),
		cmocka_unit_test(test_offload_runs_beside_the_workers),
		cmocka_unit_test(test_a_pool_that_hangs_holds_up_nobody),
		cmocka_unit_test(test_urgent_again_lets_others_run_and_can_be_killed),
		cmocka_unit_test(test_a_stop_comes_after_the_system_lane),
		cmocka_unit_test(test_stop_has_a_deadline_and_names_what_is_left),
		cmocka_unit_test(test_watchdog_reports_a_slow_handler_while_it_runs),
		cmocka_unit_test(test_own_budget_is_exact),
		cmocka_unit_test(test_io_thread_delivers_timers_and_fds),
		cmocka_unit_test(test_a_sender_of_another_system_is_nobody),
		cmocka_unit_test(test_a_long_handler_is_reported_once),
		cmocka_unit_test(test_work_in_slices_is_not_reported),
		cmocka_unit_test(test_a_full_sender_does_not_wait_for_itself),
		cmocka_unit_test(test_a_kill_ends_two_that_wait_for_each_other),
		cmocka_unit_test(test_a_blocking_call_on_a_worker_is_a_bug),
		cmocka_unit_test(test_a_name_that_is_being_freed_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
