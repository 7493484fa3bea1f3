/* SPDX-License-Identifier: ISC */
/*
 * A stop while a foreign thread is inside a spawn.  This program's pthread_create holds up the
 * thread of a detached actor, so the spawn takes as long as it has to.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include "runtime_help.h"
#include "runtime/runtime_impl.h"

#define SYSTEM_RUNNING 0
#define SYSTEM_STOPPED 2
#define HOLD_NS        (100 * OM_NS_PER_MS) /* far longer than the stop of an empty system takes */

static struct om_system *held; /* NULL: nothing is held up */
static sem_t go, in_spawn;

#ifndef OM_TSAN /* whose own pthread_create it would replace */
int
pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	void *sym = dlsym(RTLD_NEXT, "pthread_create");
	struct om_system *sys = held;

	memcpy(&next, &sym, sizeof(next));
	if (sys != NULL) {
		struct om_mono start = om_mono_now();

		held = NULL;
		assert_int_equal(sem_post(&in_spawn), 0);
		while (om_shared_load(&sys->stopping) != SYSTEM_STOPPED &&
		       (om_shared_load(&sys->stopping) == SYSTEM_RUNNING ||
			om_mono_now().ns - start.ns < HOLD_NS)) {
		}
	}
	return next(thread, attr, fn, arg);
}
#endif

static void *
spawn_one(void *arg)
{
	static const struct om_actor_def def = { PROBE_DEF("late"), .detached = true };
	struct om_actor_id id;

	assert_int_equal(sem_wait(&go), 0);
	assert_int_equal(om_system_spawn(arg, &def, NULL, &id), OM_OK);
	return NULL;
}

static void
test_a_stop_finds_what_is_being_spawned(void **state)
{
	struct om_system_conf conf = { .workers = 1, .actor_max = 16384 };
	struct om_system_stats st;
	struct om_system *sys;
	pthread_t thread;

	(void)state;
#ifdef OM_TSAN
	skip();
#endif
	assert_int_equal(sem_init(&go, 0, 0), 0);
	assert_int_equal(sem_init(&in_spawn, 0, 0), 0);
	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	assert_int_equal(pthread_create(&thread, NULL, spawn_one, sys), 0);
	held = sys;
	assert_int_equal(sem_post(&go), 0);
	assert_int_equal(sem_wait(&in_spawn), 0);
	assert_int_equal(om_system_stop(sys, 10000, NULL, 0), 0);
	om_system_stats(sys, &st);
	assert_int_equal(st.actors_live, 0);
	assert_int_equal(st.actors_spawned, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	om_system_free(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stop_finds_what_is_being_spawned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
