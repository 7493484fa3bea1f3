/* SPDX-License-Identifier: ISC */
/*
 * No memory: a story is played again and again, and the Nth allocation in it fails, for N = 1, 2, ...
 * until it has fewer than N.  Whatever fails: the call says so, what was promised is kept (each ask,
 * monitor, timer and work that was accepted ends once), nothing hangs and nothing is leaked.
 *
 * runtime/actor.mk links this test with --wrap for all functions below, so that the calls of the
 * static libraries come here.  Under AddressSanitizer each message is an allocation of its own.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include "runtime_help.h"

#define ROUNDS_MAX 2000 /* a story with more allocations than this does not end */

static struct {
	unsigned left; /* allocations until the one that fails; 0: none will */
	bool hit;
	long blocks; /* that are not freed */
	long mapped; /* bytes */
} mem;

/* --- the allocator's doors --------------------------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void __real_free(void *block);
void *__real_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t len);
int __real_mprotect(void *at, size_t len, int prot);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __wrap_free(void *block);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t len);
int __wrap_mprotect(void *at, size_t len, int prot);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

static bool
mem_fails(void)
{
	unsigned left = __atomic_load_n(&mem.left, __ATOMIC_RELAXED);

	while (left != 0 && !__atomic_compare_exchange_n(&mem.left, &left, left - 1, false,
							 __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
	}
	if (left == 1) {
		__atomic_store_n(&mem.hit, true, __ATOMIC_RELAXED);
	}
	return left == 1;
}

static void *
mem_given(void *block)
{
	if (block != NULL) {
		(void)__atomic_add_fetch(&mem.blocks, 1, __ATOMIC_RELAXED);
	}
	return block;
}

void *
__wrap_malloc(size_t size)
{
	return mem_fails() ? NULL : mem_given(__real_malloc(size));
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return mem_fails() ? NULL : mem_given(__real_calloc(n, size));
}

void *
__wrap_aligned_alloc(size_t align, size_t size)
{
	return mem_fails() ? NULL : mem_given(__real_aligned_alloc(align, size));
}

void *
__wrap_realloc(void *old, size_t size)
{
	if (mem_fails()) {
		return NULL;
	}
	return old == NULL ? mem_given(__real_realloc(old, size)) : __real_realloc(old, size);
}

void
__wrap_free(void *block)
{
	if (block != NULL) {
		(void)__atomic_sub_fetch(&mem.blocks, 1, __ATOMIC_RELAXED);
	}
	__real_free(block);
}

void *
__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *mapped = mem_fails() ? MAP_FAILED : __real_mmap(at, len, prot, flags, fd, offset);

	if (mapped != MAP_FAILED) {
		(void)__atomic_add_fetch(&mem.mapped, (long)len, __ATOMIC_RELAXED);
	}
	return mapped;
}

int
__wrap_munmap(void *at, size_t len)
{
	(void)__atomic_sub_fetch(&mem.mapped, (long)len, __ATOMIC_RELAXED);
	return __real_munmap(at, len);
}

int
__wrap_mprotect(void *at, size_t len, int prot)
{
	return mem_fails() ? -1 : __real_mprotect(at, len, prot);
}

int
__wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return mem_fails() ? 11 /* EAGAIN */ : __real_pthread_create(thread, attr, fn, arg);
}

/* --- the frame of all stories ------------------------------------------------------------------------- */

/* Plays the story with the Nth allocation failing, for each N; at last with none. */
static void
each_failure(void (*story)(void), unsigned at_least)
{
	unsigned n = 0;

	do {
		long blocks = mem.blocks, mapped = mem.mapped;

		assert_in_range(++n, 1, ROUNDS_MAX);
		mem.hit = false;
		__atomic_store_n(&mem.left, n, __ATOMIC_RELAXED);
		story();
		__atomic_store_n(&mem.left, 0, __ATOMIC_RELAXED);
		if (mem.blocks != blocks || mem.mapped != mapped) {
			fail_msg("allocation %u failed: %ld blocks, %ld mapped bytes leaked", n,
				 mem.blocks - blocks, mem.mapped - mapped);
		}
	} while (mem.hit);
	assert_true(n > at_least);
}

/* An error is one of want of memory; true: there was none.  Without a failure none is allowed. */
static bool
went_well(enum om_err err)
{
	if (err != OM_OK && (!mem.hit || (err != OM_ERR_NOMEM && err != OM_ERR_LIMIT))) {
		fail_msg("unexpected error %d", (int)err);
	}
	return err == OM_OK;
}

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
		cmocka_unit_test(test_supervisor_one_for_one),
		cmocka_unit_test(test_supervisor_one_for_all),
		cmocka_unit_test(test_stop_of_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
