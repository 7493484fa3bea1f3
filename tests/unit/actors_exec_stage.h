/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_EXEC_STAGE_H
#define OM_TESTS_ACTORS_EXEC_STAGE_H

/*
 * The stage of the executor's tests: it and its job_runs on a real runtime and bus, in the world of
 * actors_exec_world.h; and what its tests do to a job again and again.
 */
#include "tests/unit/actors_exec_world.h"

/* Spawns one and waits until its start has run: what it does not know it answers after that. */
static struct om_actor_id
spawn(const struct om_service_arg *arg)
{
	struct om_actor_id id;
	struct om_msg *msg = om_system_msg_new(W->sys, 999, 0), *reply = NULL;

	assert_non_null(msg);
	assert_int_equal(om_service_spawn(W->bus, arg, &id), OM_OK);
	assert_int_equal(om_system_ask(W->sys, id, &msg, 5000, &reply), OM_ERR_UNKNOWN_TYPE);
	om_msg_free(NULL, msg);
	return id;
}

static int
setup_threads(unsigned offload_threads)
{
	struct om_system_conf sys = { .workers = 2, .offload_threads = offload_threads };
	struct om_vm_config vm = { .on_event = om_executor_vm_event };
	struct om_why why;

	W = calloc(1, sizeof(*W));
	W->refuse_with = OM_ERR_DISK;
	(void)sem_init(&W->held.begun, 0, 0);
	(void)sem_init(&W->held.go, 0, 0);
	(void)sem_init(&W->killed_vm, 0, 0);
	pthread_mutex_init(&W->lock, NULL);
	pthread_cond_init(&W->changed, NULL);
	(void)snprintf(W->dir, sizeof(W->dir), "/tmp/omerta-exec.XXXXXX");
	assert_non_null(mkdtemp(W->dir));
	assert_int_equal(om_system_new(&sys, &W->sys), OM_OK);
	assert_int_equal(om_bus_new(W->sys, &W->bus, &why), OM_OK);
	vm.arg = W->sys;
	W->driver.ops = &om_vm_mem_ops;
	assert_int_equal(W->driver.ops->open(&vm, &W->driver.state, &why), OM_OK);
	om_vm_mem_on_call(W->driver.state, on_driver_call, NULL);
	(void)snprintf(W->image.kernel, sizeof(W->image.kernel), "/k");
	(void)snprintf(W->image.initrd, sizeof(W->image.initrd), "/i");
	(void)snprintf(W->image.root, sizeof(W->image.root), "/r");
	W->conf = (struct om_executor_conf){
		.driver = &W->driver,
		.image = &W->image,
		.run_dir = W->dir,
		.boot_timeout_ms = WAIT_S * 1000, /* enough on any machine */
		.stop_grace_ms = 100,
		.stop_slack_ms = 200,
	};
	W->ledger = (struct om_service_arg){ W->bus, &fake_ledger, NULL };
	W->queue = (struct om_service_arg){ W->bus, &fake_queue, NULL };
	W->executor = (struct om_service_arg){ W->bus, &om_executor_service, &W->conf };
	W->vpn = (struct om_service_arg){ W->bus, &fake_vpn, NULL };
	W->rogue = (struct om_service_arg){ W->bus, &fake_rogue, NULL };
	(void)spawn(&W->ledger);
	W->queue_id = spawn(&W->queue);
	(void)spawn(&W->vpn);
	(void)spawn(&W->rogue);
	W->executor_id = spawn(&W->executor);
	tell(CMD_DRAIN); /* nothing starts before it has looked after what an earlier one left */
	wait_for(is_drained);
	W->drained = 0;
	assert_int_equal(W->all_unwatched, 1);
	return 0;
}

static int
setup(void **state)
{
	(void)state;
	return setup_threads(0);
}

static int
teardown(void **state)
{
	char left[256] = "";
	struct stat st;

	(void)state;
	if (W->sys != NULL) {
		if (!W->stopped) {
			assert_int_equal(om_system_stop(W->sys, 5000, left, sizeof(left)), 0);
		}
		om_bus_free(W->bus);
		om_system_free(W->sys);
		W->driver.ops->close(W->driver.state);
	}
	guest_join(&W->guest);
	(void)rmdir(W->dir);
	assert_int_not_equal(stat(W->dir, &st), 0);
	assert_int_equal(W->output_misplaced, 0);
	(void)sem_destroy(&W->killed_vm);
	(void)sem_destroy(&W->held.go);
	(void)sem_destroy(&W->held.begun);
	pthread_cond_destroy(&W->changed);
	pthread_mutex_destroy(&W->lock);
	free(W);
	W = NULL;
	return 0;
}

/* --- a job --------------------------------------------------------------------------------------- */

static inline bool
job_dir_exists(void)
{
	char dir[128];
	struct stat st;

	(void)snprintf(dir, sizeof(dir), "%s/" JOB, W->dir);
	return stat(dir, &st) == 0;
}

static void
expect_end(const char *states)
{
	wait_for(is_done);
	assert_string_equal(W->states, states);
}

/* Runs the job to its end and checks that nothing is left of it. */
static inline void
play(enum play what, const char *states, const char *reason)
{
	W->guest.play = what;
	tell(CMD_START);
	expect_end(states);
	assert_string_equal(W->reason, reason);
	assert_int_equal(W->dones, 1);
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
	assert_false(job_dir_exists());
}

static void
run(enum play what)
{
	W->guest.play = what;
	tell(CMD_START);
	wait_for(is_running);
}

static inline void
cancel(const char *states)
{
	tell(CMD_CANCEL);
	expect_end(states);
}

/* --- a driver that does not come back -------------------------------------------------------------- */

static void
wait_sem(sem_t *sem)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	assert_int_equal(sem_timedwait(sem, &until), 0);
}

/* The command makes the executor call the driver, which does not come back before let_go(). */
static inline void
tell_held(enum cmd cmd, enum om_vm_mem_op op)
{
	hold(op);
	tell(cmd);
	wait_sem(&W->held.begun);
}

static inline void
let_go(void)
{
	assert_int_equal(sem_post(&W->held.go), 0);
}

#endif /* OM_TESTS_ACTORS_EXEC_STAGE_H */
