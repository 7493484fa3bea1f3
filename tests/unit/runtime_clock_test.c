/* SPDX-License-Identifier: ISC */
/*
 * Deadlines do not depend on what the system's clock is set to.  This program's clock_gettime says
 * that it was set back by an hour; the C library's own waits do not know.
 */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "runtime_help.h"
#include "runtime/runtime_impl.h"

#define HOUR_S 3600

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	long rc = syscall(SYS_clock_gettime, clock, now);

	if (rc == 0 && clock == CLOCK_REALTIME) {
		now->tv_sec -= HOUR_S;
	}
	return (int)rc;
}

#define SYSTEM_STOPPED 2

/* Comes back when the system has given up on the actors, and has begun to wait for the threads. */
static void
linger(struct om_system *sys)
{
	struct om_mono start;

	while (om_shared_load(&sys->stopping) != SYSTEM_STOPPED) {
		(void)usleep(1000);
	}
	start = om_mono_now();
	while (om_mono_now().ns - start.ns < 30 * OM_NS_PER_MS) {
		(void)usleep(1000);
	}
}

static enum om_err
on_linger(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	linger(om_ctx_system(cx));
	return OM_OK;
}

static enum om_err
work(void *arg)
{
	linger(arg);
	return OM_OK;
}

static void
done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)cx;
	(void)state;
	(void)arg;
	(void)result;
}

static enum om_err
on_offload(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	return om_offload(cx, work, om_ctx_system(cx), done, NULL);
}

static void
run(om_handler_fn fn, bool detached)
{
	const struct om_handler handlers[] = { { T_DATA, fn } };
	const struct om_actor_def def = {
		.name = "lingers", .handlers = handlers, .handler_count = 1, .detached = detached
	};
	struct om_system_conf conf = { .workers = 1, .actor_max = 16384 };
	struct om_system *sys;
	struct om_actor_id id;
	struct om_actor_stats as;

	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	id = spawn_probe(sys, &def, NULL);
	assert_int_equal(post_u64(sys, id, T_DATA, 0), OM_OK);
	(void)om_system_stop(sys, 1, NULL, 0);
	assert_false(sys->stuck);
	assert_int_equal(om_actor_stats(sys, id, &as), OM_ERR_STALE);
	om_system_free(sys);
}

static void
test_a_stop_waits_for_a_worker(void **state)
{
	(void)state;
	run(on_linger, false);
}

static void
test_a_stop_waits_for_a_detached_actor(void **state)
{
	(void)state;
	run(on_linger, true);
}

static void
test_a_stop_waits_for_a_work(void **state)
{
	(void)state;
	run(on_offload, false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stop_waits_for_a_worker),
		cmocka_unit_test(test_a_stop_waits_for_a_detached_actor),
		cmocka_unit_test(test_a_stop_waits_for_a_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
