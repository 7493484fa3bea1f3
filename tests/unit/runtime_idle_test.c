/* SPDX-License-Identifier: ISC */
/*
 * A system that has nothing to do makes no wake-ups: no thread of it is given a core, although
 * actors are there, a timer is armed and a socket is watched.
 */
#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "runtime_help.h"

#define ACTORS      100
#define THREADS_MAX 64
#define QUIET_MS    100 /* parked, and the watchdog asleep: until one such window has no switch */
#define IDLE_MS     1000

struct threads {
	long tid[THREADS_MAX];
	size_t count;
};

static struct threads
threads_now(void)
{
	struct threads all = { .count = 0 };
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *e;

	assert_non_null(dir);
	while ((e = readdir(dir)) != NULL) {
		if (e->d_name[0] != '.') {
			assert_true(all.count < THREADS_MAX);
			all.tid[all.count++] = strtol(e->d_name, NULL, 10);
		}
	}
	(void)closedir(dir);
	return all;
}

static bool
has(const struct threads *all, long tid)
{
	for (size_t i = 0; i < all->count; i++) {
		if (all->tid[i] == tid) {
			return true;
		}
	}
	return false;
}

/* How often the threads have gone to sleep. */
static uint64_t
switches(const struct threads *of)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < of->count; i++) {
		char path[64], line[256];
		uint64_t own = 0;
		FILE *f;

		(void)snprintf(path, sizeof(path), "/proc/self/task/%ld/status", of->tid[i]);
		f = fopen(path, "re");
		assert_non_null(f);
		while (fgets(line, sizeof(line), f) != NULL) {
			/* A thread that wakes goes to sleep again: that is voluntary. */
			(void)sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &own);
		}
		(void)fclose(f);
		sum += own;
	}
	return sum;
}

static uint64_t
switches_in(const struct threads *of, long ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	uint64_t before = switches(of);

	assert_int_equal(nanosleep(&t, NULL), 0);
	return switches(of) - before;
}

static void *
nothing(void *arg)
{
	return arg;
}

/* A sanitizer makes its own threads with the first one of the program. */
static struct threads
threads_before(void)
{
	pthread_t first;

	assert_int_equal(pthread_create(&first, NULL, nothing, NULL), 0);
	assert_int_equal(pthread_join(first, NULL), 0);
	return threads_now();
}

static void
do_arm_and_watch(struct om_ctx *cx, void *arg)
{
	uint64_t id;

	assert_int_equal(om_timer_start(cx, 3600000, 0, 0, &id), OM_OK);
	assert_int_equal(om_io_watch(cx, *(int *)arg, OM_IO_READ, 0, &id), OM_OK);
}

static void
test_an_idle_system_makes_no_wake_ups(void **state)
{
	struct om_system_conf conf = { .workers = 2 };
	struct threads before = threads_before(), all, ours = { .count = 0 };
	struct om_actor_id last = OM_NOBODY;
	struct om_system *sys;
	unsigned windows = 0;
	uint64_t parked;
	int fd[2];

	(void)state;
	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	for (unsigned i = 0; i < ACTORS; i++) {
		last = spawn_probe(sys, &probe_def, NULL);
		assert_int_equal(post_u64(sys, last, T_DATA, i), OM_OK);
	}
	post_call(sys, last, do_arm_and_watch, &fd[0]);
	all = threads_now();
	for (size_t i = 0; i < all.count; i++) {
		if (!has(&before, all.tid[i])) {
			ours.tid[ours.count++] = all.tid[i];
		}
	}
	assert_true(ours.count >= 3); /* workers and the I/O thread */
	while (switches_in(&ours, QUIET_MS) != 0) {
		assert_in_range(++windows, 0, 100);
	}
	assert_int_equal(switches_in(&ours, IDLE_MS), 0);
	parked = switches(&ours);
	assert_int_equal(post_u64(sys, last, T_DATA, 0), OM_OK); /* a message does wake one */
	om_system_stop_actor(sys, last);
	assert_int_equal(om_system_wait(sys, last, 10000), OM_OK);
	/* The count sees a thread that woke, when it goes to sleep again. */
	for (windows = 0; switches(&ours) == parked; (void)switches_in(&ours, QUIET_MS)) {
		assert_in_range(++windows, 0, 100);
	}
	sys_end(sys);
	(void)close(fd[0]);
	(void)close(fd[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_idle_system_makes_no_wake_ups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
