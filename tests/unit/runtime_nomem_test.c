/* SPDX-License-Identifier: ISC */
/*
 * No memory for the runtime (tests/unit/nomem.h).  Whatever fails: the call says so, what was
 * promised is kept (each ask, monitor, timer and work that was accepted ends once), nothing hangs and
 * nothing is leaked.  Under AddressSanitizer each message is an allocation of its own.
 */
#include <semaphore.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/unit/nomem.h"
#include "tests/unit/runtime_help.h"

/* Stops while allocations still fail; then what sys_end checks.  The first stop must be enough. */
static void
story_end(struct om_system *sys)
{
	struct om_system_stats st;

	assert_int_equal(om_system_stop(sys, 10000, NULL, 0), 0);
	om_system_stats(sys, &st);
	assert_int_equal(st.actors_live, 0);
	sys_end(sys);
}

static struct om_system *
story_sim(void)
{
	struct om_system_conf conf = { .sim = true, .seed = 7, .actor_max = 16384 };
	struct om_system *sys = NULL;

	(void)went_well(om_system_new(&conf, &sys));
	return sys;
}

/* --- a system ------------------------------------------------------------------------------------------- */

static void
story_threads(void)
{
	struct om_system_conf conf = { .workers = 2, .actor_max = 16384 };
	struct om_actor_def def = { PROBE_DEF("detached"), .detached = true };
	struct om_system *sys = NULL;
	struct om_actor_id id;
	struct om_msg *msg, *reply = NULL;
	enum om_err err;

	if (!went_well(om_system_new(&conf, &sys))) {
		assert_null(sys);
		return;
	}
	if (went_well(om_system_spawn(sys, &def, NULL, &id))) {
		msg = om_system_msg_new(sys, T_DATA, 8);
		if (msg != NULL) {
			*(uint64_t *)(void *)msg->payload = 1;
			err = om_system_ask(sys, id, &msg, 10000, &reply);
			/* Its state may be what could not be had: then it has ended already. */
			assert_true(err == OM_OK ||
				    (mem.hit && (err == OM_ERR_STALE || err == OM_ERR_GONE)));
			om_msg_free(NULL, msg);
			om_msg_free(NULL, reply);
		}
	}
	story_end(sys);
}

static void
test_system_with_threads(void **state)
{
	(void)state;
	each_failure(story_threads, 15);
}

/* --- what one actor can ask for -------------------------------------------------------------------------- */

static struct {
	struct om_actor_id target;
	unsigned asks, answers, monitors, timers, works, works_ended, objects, objects_freed;
	struct probe_log log;
	struct probe_log target_log;
} life;

static void
on_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	(void)cx;
	(void)state;
	(void)answer;
	life.answers++;
}

static enum om_err
work_run(void *arg)
{
	(void)arg;
	return OM_OK;
}

static void
work_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)cx;
	(void)state;
	(void)arg;
	(void)result;
	life.works_ended++;
}

static void
work_drop(void *arg)
{
	(void)arg;
	life.works_ended++;
}

static void
object_free(void *obj)
{
	(void)obj;
	life.objects_freed++;
}

static void
life_messages(struct om_ctx *cx)
{
	struct om_msg *msg = om_msg_new_owner(cx, T_DATA, &life, object_free);

	if (msg != NULL) {
		life.objects++;
		(void)went_well(om_send(cx, life.target, &msg));
		om_msg_free(cx, msg);
	}
	for (unsigned i = 0; i < 6; i++) { /* more than a table's first size */
		msg = om_msg_new(cx, T_DATA, i * 100);
		if (msg == NULL) {
			continue;
		}
		if (went_well(om_ask(cx, life.target, &msg, 1000, on_answer, i))) {
			life.asks++;
		}
		om_msg_free(cx, msg);
	}
}

static void
life_all(struct om_ctx *cx, void *arg)
{
	uint64_t ref, timer;
	struct om_actor_id child;

	(void)arg;
	life_messages(cx);
	for (unsigned i = 0; i < 6; i++) {
		life.monitors += went_well(om_monitor(cx, life.target, &ref));
		life.timers += went_well(om_timer_start(cx, 10, 0, i, &timer));
	}
	if (went_well(om_monitor(cx, life.target, &ref))) {
		om_demonitor(cx, ref);
	}
	if (went_well(om_spawn(cx, &probe_def, NULL, &child))) {
		(void)went_well(om_link(cx, child));
		om_unlink(cx, child);
	}
	(void)went_well(om_register(cx, "one"));
	(void)went_well(om_join(cx, "all"));
	life.works += went_well(om_offload(cx, work_run, &life, work_done, work_drop));
}

/* Sends fn to an actor; false: there was no memory for it. */
static bool
life_call(struct om_system *sys, struct om_actor_id to, call_fn fn)
{
	struct om_msg *msg = om_system_msg_new(sys, T_CALL, sizeof(struct call));
	enum om_err err;

	if (msg == NULL) {
		return false;
	}
	*(struct call *)(void *)msg->payload = (struct call){ .fn = fn };
	err = om_system_send(sys, to, &msg);
	om_msg_free(NULL, msg);
	(void)om_sim_run(sys);
	return err == OM_OK;
}

static unsigned
log_count(uint32_t type)
{
	unsigned n = 0;

	for (size_t i = 0; i < life.log.count; i++) {
		n += life.log.type[i] == type;
	}
	return n;
}

static void
story_life(void)
{
	struct om_system *sys = story_sim();
	struct om_actor_id one;

	memset(&life, 0, sizeof(life));
	if (sys == NULL) {
		return;
	}
	if (went_well(om_system_spawn(sys, &probe_def, &life.target_log, &life.target)) &&
	    went_well(om_system_spawn(sys, &probe_def, &life.log, &one))) {
		(void)om_sim_run(sys);
		/* An actor without memory for its state has ended: then it is the only failure. */
		if (life.log.starts == 1 && life.target_log.starts == 1) {
			(void)life_call(sys, one, life_all);
			om_sim_advance(sys, 2000);
			assert_int_equal(life.answers, life.asks);
			assert_int_equal(log_count(OM_SYS_TIMER), life.timers);
			om_system_stop_actor(sys, life.target);
			assert_int_equal(om_system_wait(sys, life.target, 1000), OM_OK);
			(void)om_sim_run(sys);
			assert_int_equal(log_count(OM_SYS_DOWN), life.monitors);
		}
	}
	story_end(sys);
	assert_int_equal(life.works_ended, life.works);
	assert_int_equal(life.objects_freed, life.objects);
	assert_int_equal(life.log.starts, life.log.stops);
	assert_int_equal(life.target_log.starts, life.target_log.stops);
	if (!mem.hit) { /* the round without a failure tells a whole story */
		assert_int_equal(life.asks, 6);
		assert_int_equal(life.monitors, 6);
		assert_int_equal(life.timers, 6);
		assert_int_equal(life.works, 1);
	}
}

static void
test_all_that_an_actor_asks_for(void **state)
{
	(void)state;
	each_failure(story_life, 20);
}

/* --- duties, groups, tables, fds, bells -------------------------------------------------------------------- */

enum { T_U64 = 20, T_LATER, T_FORWARD, T_KEEP, T_PUB };

static struct {
	struct om_actor_id server, other;
	struct om_bell *bell;
	unsigned asks, answers, urgent, published, heard_pub, watched, io, rung, heard, became;
	int fd[2];
} duty;

static void
duty_on_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	(void)cx;
	(void)state;
	duty.answers++;
	assert_true(answer->err == OM_OK || mem.hit);
}

static enum om_err
duty_on_u64(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_reply_u64(cx, msg, 7);
}

static enum om_err
duty_on_later(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_request rq = om_later(cx, msg);
	struct om_msg *reply = om_msg_new(cx, OM_SYS_REPLY, 8);

	(void)state;
	if (reply == NULL) {
		om_reply_err_to(cx, &rq, OM_ERR_NOMEM);
		return OM_OK;
	}
	*(uint64_t *)(void *)reply->payload = 7;
	return om_reply_to(cx, &rq, &reply);
}

static enum om_err
duty_on_forward(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_actor_id_eq(om_self(cx), duty.other) ? om_reply_u64(cx, msg, 7)
						       : om_forward(cx, duty.other, msg);
}

/* Kept, answered, and freed. */
static enum om_err
duty_on_keep(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct om_msg *kept = om_msg_take(cx, msg);
	enum om_err err;

	(void)state;
	if (kept == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_reply_u64(cx, kept, 7);
	om_msg_free(cx, kept);
	return err;
}

static enum om_err
duty_on_pub(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	duty.heard_pub++;
	return OM_OK;
}

static const struct om_handler duty_server_handlers[] = {
	{ T_U64, duty_on_u64 },   { T_LATER, duty_on_later }, { T_FORWARD, duty_on_forward },
	{ T_KEEP, duty_on_keep }, { T_PUB, duty_on_pub },     { T_CALL, probe_on_call },
};
static const struct om_actor_def duty_server_def = {
	.name = "server",
	.handlers = duty_server_handlers,
	.handler_count = OM_COUNT(duty_server_handlers),
};

static enum om_err
duty_on_urgent(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	(void)msg;
	duty.urgent--;
	return OM_OK;
}

static enum om_err
duty_on_io(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	om_io_unwatch(cx, ((const struct om_io_ready *)(const void *)msg->payload)->watch);
	duty.io++;
	return OM_OK;
}

static enum om_err
duty_on_bell(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	duty.heard += om_bell_rung_of(msg)->count;
	return OM_OK;
}

static enum om_err
duty_on_changed(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	duty.became++;
	return probe_on_call(cx, state, msg);
}

#define DUTY_OTHERS                                            \
	{ T_DATA, duty_on_urgent }, { OM_SYS_IO, duty_on_io }, \
	{                                                      \
		OM_SYS_BELL, duty_on_bell                      \
	}
static const struct om_handler duty_handlers[] = { { T_CALL, probe_on_call }, DUTY_OTHERS };
static const struct om_handler duty_changed[] = { { T_CALL, duty_on_changed }, DUTY_OTHERS };
static const struct om_actor_def duty_def = { .name = "client",
					      .handlers = duty_handlers,
					      .handler_count = OM_COUNT(duty_handlers) };

static void
duty_join(struct om_ctx *cx, void *arg)
{
	(void)arg;
	(void)went_well(om_join(cx, "all"));
}

static void
duty_all(struct om_ctx *cx, void *arg)
{
	static const uint32_t types[] = { T_U64, T_LATER, T_FORWARD, T_KEEP };
	struct om_msg *msg;
	uint64_t watch;

	(void)arg;
	for (size_t i = 0; i < OM_COUNT(types); i++) {
		msg = om_msg_new(cx, types[i], 8);
		if (msg != NULL &&
		    went_well(om_ask(cx, duty.server, &msg, 1000, duty_on_answer, i))) {
			duty.asks++;
		}
		om_msg_free(cx, msg);
	}
	msg = om_msg_new(cx, T_DATA, 8);
	if (msg != NULL && went_well(om_send_urgent(cx, om_self(cx), &msg))) {
		duty.urgent++;
	}
	om_msg_free(cx, msg);
	msg = om_msg_new(cx, T_PUB, 8);
	if (msg != NULL) {
		duty.published += (unsigned)om_publish(cx, "all", msg);
	}
	om_msg_free(cx, msg);
	duty.watched += went_well(om_io_watch(cx, duty.fd[0], OM_IO_READ, 0, &watch));
	if (duty.bell != NULL) {
		om_bell_own(cx, duty.bell, 1);
		if (om_bell_reserve(duty.bell) == OM_OK) {
			duty.rung++;
			om_bell_ring(duty.bell);
		}
	}
}

static void
duty_become(struct om_ctx *cx, void *arg)
{
	(void)arg;
	om_become(cx, duty_changed, OM_COUNT(duty_changed));
}

static void
duty_nothing(struct om_ctx *cx, void *arg)
{
	(void)cx;
	(void)arg;
}

static void
story_duties(void)
{
	struct om_system *sys = story_sim();
	struct om_actor_id client;

	if (sys == NULL) {
		return;
	}
	memset(&duty, 0, sizeof(duty));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, duty.fd), 0);
	assert_int_equal(write(duty.fd[1], "x", 1), 1);
	(void)went_well(om_bell_new(sys, 8, &duty.bell));
	if (went_well(om_system_spawn(sys, &duty_server_def, NULL, &duty.server)) &&
	    went_well(om_system_spawn(sys, &duty_server_def, NULL, &duty.other)) &&
	    went_well(om_system_spawn(sys, &duty_def, NULL, &client))) {
		duty.became = 0;
		(void)life_call(sys, duty.server, duty_join);
		(void)life_call(sys, duty.other, duty_join);
		(void)life_call(sys, client, duty_all);
		om_sim_advance(sys, 2000);
		assert_int_equal(duty.answers, duty.asks);
		assert_int_equal(duty.urgent, 0);
		assert_int_equal(duty.heard_pub, duty.published);
		assert_int_equal(duty.io, duty.watched);
		assert_int_equal(duty.heard, duty.rung);
		if (life_call(sys, client, duty_become) && life_call(sys, client, duty_nothing)) {
			assert_true(duty.became == 1 || mem.hit); /* or it has failed */
		}
	}
	om_bell_unref(duty.bell);
	story_end(sys);
	(void)close(duty.fd[0]);
	(void)close(duty.fd[1]);
	if (!mem.hit) {
		assert_int_equal(duty.asks, 4);
		assert_int_equal(duty.published, 2);
		assert_int_equal(duty.watched, 1);
		assert_int_equal(duty.rung, 1);
	}
}

static void
test_duties_groups_fds_and_bells(void **state)
{
	(void)state;
	each_failure(story_duties, 20);
}

/* --- works on threads, questions of foreign threads, histograms --------------------------------------------- */

static struct {
	unsigned works, ended;
	sem_t over;
} pool;

static void
pool_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)cx;
	(void)state;
	(void)arg;
	(void)result;
	__atomic_add_fetch(&pool.ended, 1, __ATOMIC_RELAXED);
}

static void
pool_drop(void *arg)
{
	(void)arg;
	__atomic_add_fetch(&pool.ended, 1, __ATOMIC_RELAXED);
}

static void
pool_offload(struct om_ctx *cx, void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 3; i++) {
		enum om_err err = om_offload(cx, work_run, &pool, pool_done, pool_drop);

		/* AGAIN: no thread could be made. */
		assert_true(err == OM_OK || mem.hit);
		pool.works += err == OM_OK;
	}
	assert_int_equal(sem_post(&pool.over), 0);
}

static void
story_pool(void)
{
	struct om_system_conf conf = { .workers = 1, .actor_max = 16384 };
	struct om_system *sys = NULL;
	struct om_actor_id server, client;

	if (!went_well(om_system_new(&conf, &sys))) {
		return;
	}
	memset(&pool, 0, sizeof(pool));
	assert_int_equal(sem_init(&pool.over, 0, 0), 0);
	if (went_well(om_system_spawn(sys, &duty_server_def, NULL, &server)) &&
	    went_well(om_system_spawn(sys, &duty_server_def, NULL, &client))) {
		struct om_msg *msg = om_system_msg_new(sys, T_CALL, sizeof(struct call));

		if (msg != NULL) {
			*(struct call *)(void *)msg->payload = (struct call){ .fn = pool_offload };
			assert_int_equal(om_system_send(sys, client, &msg), OM_OK);
			while (sem_wait(&pool.over) != 0) {
			}
		}
		for (unsigned i = 0; i < 200; i++) { /* enough for a histogram */
			struct om_msg *reply = NULL;
			enum om_err err;

			msg = om_system_msg_new(sys, T_U64, 8);
			if (msg == NULL) {
				continue;
			}
			err = om_system_ask(sys, server, &msg, 10000, &reply);
			(void)went_well(err);
			assert_true(err != OM_OK || om_msg_u64(reply) == 7);
			om_msg_free(NULL, msg);
			om_msg_free(NULL, reply);
		}
	}
	story_end(sys);
	assert_int_equal(pool.ended, pool.works);
	assert_int_equal(sem_destroy(&pool.over), 0);
	if (!mem.hit) {
		assert_int_equal(pool.works, 3);
	}
}

static void
test_works_on_threads_and_foreign_questions(void **state)
{
	(void)state;
	each_failure(story_pool, 15);
}

/* --- supervision ------------------------------------------------------------------------------------------- */

static struct probe_log child_log[3];
static enum om_strategy strategy;

static void
fail_now(struct om_ctx *cx, void *arg)
{
	(void)arg;
	om_fail(cx, OM_ERR_IO);
}

static void
kill_self(struct om_ctx *cx, void *arg)
{
	(void)arg;
	om_kill(cx, om_self(cx));
}

/* All three children are there, or none and no supervisor; nothing in between. */
static bool
family_is_up(struct om_system *sys)
{
	bool up = om_whereis(sys, "sup").v != 0;

	for (unsigned i = 0; i < 3; i++) {
		static const char *const names[] = { "c0", "c1", "c2" };

		assert_int_equal(om_whereis(sys, names[i]).v != 0, up);
		assert_int_equal(child_log[i].starts, child_log[i].stops + (up ? 1 : 0));
	}
	return up;
}

static void
story_family(void)
{
	static const struct om_child_spec children[] = {
		{ &probe_def, &child_log[0], "c0", OM_RESTART_ALWAYS, 1000 },
		{ &probe_def, &child_log[1], "c1", OM_RESTART_ALWAYS, 1000 },
		{ &probe_def, &child_log[2], "c2", OM_RESTART_ALWAYS, 1000 },
	};
	const struct om_supervisor_spec spec = { .name = "sup",
						 .strategy = strategy,
						 .max_restarts = 5,
						 .window_ms = 60000,
						 .backoff_min_ms = 10,
						 .backoff_max_ms = 100,
						 .children = children,
						 .child_count = 3 };
	static const call_fn blows[] = { fail_now, kill_self, fail_now };
	struct om_system *sys = story_sim();
	struct om_actor_id id;
	enum om_err err;

	memset(child_log, 0, sizeof(child_log));
	if (sys == NULL) {
		return;
	}
	err = om_supervisor_start(sys, &spec, &id);
	/* GONE: the supervisor could not even start; TIMEOUT: its answer needed the memory. */
	assert_true(err == OM_OK || mem.hit);
	assert_int_equal(family_is_up(sys), err == OM_OK);
	for (unsigned i = 0; i < 3 && family_is_up(sys); i++) {
		(void)life_call(sys, om_whereis(sys, "c1"), blows[i]);
		om_sim_advance(sys, 5000);
		assert_true(family_is_up(sys) || mem.hit);
	}
	story_end(sys);
	assert_false(mem.hit && child_log[0].starts != child_log[0].stops);
	if (!mem.hit) {
		assert_int_equal(child_log[1].starts, 4);
	}
}

static void
test_supervisor_one_for_one(void **state)
{
	(void)state;
	strategy = OM_ONE_FOR_ONE;
	each_failure(story_family, 20);
}

static void
test_supervisor_one_for_all(void **state)
{
	(void)state;
	strategy = OM_ONE_FOR_ALL;
	each_failure(story_family, 20);
}

static void
test_supervisor_rest_for_one(void **state)
{
	(void)state;
	strategy = OM_REST_FOR_ONE;
	each_failure(story_family, 20);
}

/* A supervisor below a supervisor: all five are there, or nobody is. */
static void
story_nested(void)
{
	static const struct om_child_spec young[] = {
		{ &probe_def, &child_log[1], "c1", OM_RESTART_ALWAYS, 1000 },
		{ &probe_def, &child_log[2], "c2", OM_RESTART_ALWAYS, 1000 },
	};
	static const struct om_supervisor_spec below = { .name = "below",
							 .strategy = OM_ONE_FOR_ALL,
							 .max_restarts = 1,
							 .window_ms = 60000,
							 .children = young,
							 .child_count = 2 };
	static const struct om_child_spec old[] = {
		{ &probe_def, &child_log[0], "c0", OM_RESTART_ALWAYS, 1000 },
		{ &om_supervisor_def, &below, NULL, OM_RESTART_ALWAYS, 1000 },
	};
	static const struct om_supervisor_spec spec = { .name = "sup",
							.strategy = OM_ONE_FOR_ONE,
							.max_restarts = 5,
							.window_ms = 60000,
							.children = old,
							.child_count = 2 };
	struct om_system *sys = story_sim();
	struct om_actor_id id;

	memset(child_log, 0, sizeof(child_log));
	if (sys == NULL) {
		return;
	}
	assert_true(om_supervisor_start(sys, &spec, &id) == OM_OK || mem.hit);
	om_sim_advance(sys, 1000);
	for (unsigned i = 0; i < 3 && family_is_up(sys); i++) { /* the second is one too many */
		(void)life_call(sys, om_whereis(sys, "c1"), fail_now);
		om_sim_advance(sys, 5000);
		assert_int_equal(om_whereis(sys, "below").v != 0, family_is_up(sys));
	}
	assert_true(family_is_up(sys) || mem.hit);
	story_end(sys);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(child_log[i].starts, child_log[i].stops);
	}
	if (!mem.hit) {
		assert_int_equal(child_log[0].starts, 1);
		assert_int_equal(child_log[1].starts, 4);
	}
}

static void
test_supervisor_below_a_supervisor(void **state)
{
	(void)state;
	each_failure(story_nested, 20);
}

/* --- stop --------------------------------------------------------------------------------------------------- */

static void
story_stop(void)
{
	struct om_system_conf conf = { .sim = true, .seed = 7, .actor_max = 16384 };
	static struct probe_log log;
	unsigned left = mem.left;
	struct om_system *sys;

	memset(&log, 0, sizeof(log));
	mem.left = 0; /* only the stop itself */
	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(om_system_spawn(sys, &probe_def, &log, NULL), OM_OK);
	}
	(void)om_sim_run(sys);
	mem.left = left;
	story_end(sys);
	assert_int_equal(log.stops, 300);
}

static void
test_stop_of_many(void **state)
{
	(void)state;
	each_failure(story_stop, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_system_with_threads),
		cmocka_unit_test(test_all_that_an_actor_asks_for),
		cmocka_unit_test(test_duties_groups_fds_and_bells),
		cmocka_unit_test(test_works_on_threads_and_foreign_questions),
		cmocka_unit_test(test_supervisor_one_for_one),
		cmocka_unit_test(test_supervisor_one_for_all),
		cmocka_unit_test(test_supervisor_rest_for_one),
		cmocka_unit_test(test_supervisor_below_a_supervisor),
		cmocka_unit_test(test_stop_of_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
