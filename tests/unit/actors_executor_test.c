/* SPDX-License-Identifier: ISC */
/*
 * The executor and its job_runs on a real runtime and bus, with a driver without VMs and a guest
 * that this test plays at the other end of the agent's socket.  The ledger and the queue are fakes
 * that keep what they are told.
 */
#include "tests/unit/actors_exec_world.h"

/* --- the stage ---------------------------------------------------------------------------------- */

static struct om_service_arg ledger_arg, queue_arg, executor_arg, vpn_arg, rogue_arg;

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
	W->listen_fd = -1;
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
		.driver = &W->driver, .image = &W->image, .run_dir = W->dir, .boot_timeout_ms = 300
	};
	ledger_arg = (struct om_service_arg){ W->bus, &fake_ledger, NULL };
	queue_arg = (struct om_service_arg){ W->bus, &fake_queue, NULL };
	executor_arg = (struct om_service_arg){ W->bus, &om_executor_service, &W->conf };
	(void)spawn(&ledger_arg);
	W->queue_id = spawn(&queue_arg);
	vpn_arg = (struct om_service_arg){ W->bus, &fake_vpn, NULL };
	rogue_arg = (struct om_service_arg){ W->bus, &fake_rogue, NULL };
	(void)spawn(&vpn_arg);
	(void)spawn(&rogue_arg);
	W->executor_id = spawn(&executor_arg);
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

/* A pool has one thread: what is held on it holds up the rest. */
static int
setup_one_thread(void **state)
{
	(void)state;
	return setup_threads(1);
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
	if (W->guest_started) {
		/* Nobody may have called it: the job ended before. */
		(void)shutdown(W->listen_fd, SHUT_RDWR);
		pthread_join(W->guest, NULL);
	}
	if (W->listen_fd >= 0) {
		(void)close(W->listen_fd);
	}
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

/* Runs the job to its end and checks that nothing is left of it. */
static void
play(enum play what, const char *states, const char *reason)
{
	char dir[128];
	struct stat st;

	W->play = what;
	tell(CMD_START);
	wait_for(is_done);
	assert_string_equal(W->states, states);
	assert_string_equal(W->reason, reason);
	assert_int_equal(W->dones, 1);
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
	(void)snprintf(dir, sizeof(dir), "%s/" JOB, W->dir);
	assert_int_not_equal(stat(dir, &st), 0);
}

static void
test_completed(void **state)
{
	(void)state;
	play(PLAY_EXIT_0, "provisioning running completed ", "ok");
	assert_int_equal(W->exit_code, 0);
	assert_true(W->cpu_ms <= W->wall_ms); /* the guest said an hour */
	assert_int_equal(W->output_bytes, 3);
	assert_string_equal(W->done_state, "completed");
}

/* The reference counted a non-zero exit as completed. */
static void
test_exit_status_is_a_failure(void **state)
{
	(void)state;
	play(PLAY_EXIT_3, "provisioning running failed ", "exit_code");
	assert_int_equal(W->exit_code, 3);
}

static void
test_signal(void **state)
{
	(void)state;
	play(PLAY_SIGNAL, "provisioning running failed ", "signal");
	assert_int_equal(W->signal, 9);
	assert_non_null(strstr(W->text, "KILL"));
}

static void
test_out_of_memory(void **state)
{
	(void)state;
	play(PLAY_OOM, "provisioning running failed ", "out_of_memory");
}

static void
test_output_is_whole_and_before_the_end(void **state)
{
	(void)state;
	play(PLAY_MUCH_OUTPUT, "provisioning running completed ", "ok");
	assert_int_equal(W->output_bytes, OUT_BYTES);
	assert_int_equal(W->output_in_final_order, OUT_BYTES);
	assert_false(W->truncated);
}

/* A ledger that cannot write now loses nothing: each write is tried until it works. */
static void
test_full_disk_delays_and_loses_nothing(void **state)
{
	(void)state;
	W->disk_errors_left = 2;
	play(PLAY_MUCH_OUTPUT, "provisioning running completed ", "ok");
	assert_int_equal(W->output_bytes, OUT_BYTES);
}

/* Many clients fill the ledger's table of requests: a job's end was dropped, and its waiters hung. */
static void
test_busy_ledger_delays_and_loses_nothing(void **state)
{
	(void)state;
	W->disk_errors_left = 2;
	W->refuse_with = OM_ERR_LIMIT;
	play(PLAY_MUCH_OUTPUT, "provisioning running completed ", "ok");
	assert_int_equal(W->output_bytes, OUT_BYTES);
}

/* The reference's cancel of a running job returned true and did nothing. */
static void
test_cancel_ends_a_running_job(void **state)
{
	(void)state;
	W->play = PLAY_RUN_UNTIL_STOPPED;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
	assert_string_equal(W->text, "because");
	assert_int_equal(W->output_bytes, 8);
	assert_int_equal(W->cancels_answered, 1);
}

static bool
is_recorded_cancelled(void)
{
	return strstr(W->states, "cancelled ") != NULL;
}

static bool
is_recorded_timed_out(void)
{
	return strstr(W->states, "timed_out ") != NULL;
}

/* A libvirt that hangs: the job's end does not wait for it, but its slot does. */
static void
test_cancel_while_the_vm_is_created(void **state)
{
	sem_t hold, begun;

	(void)state;
	assert_int_equal(sem_init(&hold, 0, 0), 0);
	assert_int_equal(sem_init(&begun, 0, 0), 0);
	W->hold_create = &hold;
	W->create_begun = &begun;
	tell(CMD_START);
	assert_int_equal(sem_wait(&begun), 0);
	tell(CMD_CANCEL);
	wait_for(is_recorded_cancelled);
	assert_int_equal(W->dones, 0);
	assert_int_equal(sem_post(&hold), 0);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning cancelled ");
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
	assert_int_equal(sem_destroy(&begun), 0);
	assert_int_equal(sem_destroy(&hold), 0);
}

/* Others have all the disk now: the job waits for them, it does not fail. */
static void
test_no_room_for_its_disk_means_wait(void **state)
{
	(void)state;
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_CREATE, OM_ERR_DISK, 0, 1);
	play(PLAY_EXIT_0, "provisioning running completed ", "ok");
}

static void
test_cancel_while_it_waits_for_disk(void **state)
{
	sem_t hold, begun;

	(void)state;
	assert_int_equal(sem_init(&hold, 0, 1), 0);
	assert_int_equal(sem_init(&begun, 0, 0), 0);
	W->hold_create = &hold;
	W->create_begun = &begun;
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_CREATE, OM_ERR_DISK, 0, 1000);
	tell(CMD_START);
	assert_int_equal(sem_wait(&begun), 0);
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning cancelled ");
	assert_int_equal(sem_destroy(&begun), 0);
	assert_int_equal(sem_destroy(&hold), 0);
}

/* exec.start of a job that has ended meanwhile. */
static void
test_an_ended_job_is_not_run_again(void **state)
{
	(void)state;
	W->recorded = "completed";
	tell(CMD_START);
	wait_for(is_done);
	assert_string_equal(W->states, "");
	assert_string_equal(W->done_state, "completed");
	assert_int_equal(om_vm_mem_calls(W->driver.state, OM_VM_MEM_CREATE), 0);
}

/* It was never recorded: the job stayed queued, and ran after the next restart. */
static void
test_cancel_before_its_body_is_read(void **state)
{
	(void)state;
	W->spec_err = OM_ERR_DISK; /* asked again and again */
	tell(CMD_START);
	wait_for(is_spec_refused);
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "cancelled ");
	assert_string_equal(W->text, "because");
	assert_string_equal(W->done_state, "cancelled");
}

static void
test_body_that_cannot_be_read(void **state)
{
	(void)state;
	W->spec_err = OM_ERR_INTERNAL;
	tell(CMD_START);
	wait_for(is_done);
	assert_string_equal(W->states, "failed ");
	assert_string_equal(W->reason, "internal");
}

static void
test_time_limit_kills_what_does_not_obey_and_keeps_its_output(void **state)
{
	(void)state;
	play(PLAY_DEAF, "provisioning running timed_out ", "runtime_limit");
	assert_int_equal(W->output_bytes, 8);
	assert_true(om_vm_mem_calls(W->driver.state, OM_VM_MEM_DESTROY) > 0);
}

static void
test_rogue_is_killed_and_keeps_its_output(void **state)
{
	(void)state;
	W->play = PLAY_RUN_UNTIL_STOPPED;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_ROGUE);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running rogue_killed ");
	assert_string_equal(W->reason, "rogue_packet");
}

static void
test_broken_protocol(void **state)
{
	(void)state;
	play(PLAY_GARBAGE, "provisioning running failed ", "guest_protocol");
}

static void
test_silent_guest(void **state)
{
	(void)state;
	play(PLAY_SILENT, "provisioning failed ", "boot_timeout");
}

/* Nobody counted the time between the guest's hello and its job's start: a slot was lost for ever. */
static void
test_guest_that_never_starts_its_job(void **state)
{
	(void)state;
	play(PLAY_NEVER_STARTS, "provisioning failed ", "boot_timeout");
}

/* It has time for what it is given to read: 300 ms as always, and a second for a megabyte. */
static void
test_a_large_input_has_time(void **state)
{
	(void)state;
	W->script_len = 1 << 20;
	play(PLAY_NEVER_STARTS, "provisioning failed ", "boot_timeout");
	assert_non_null(strstr(W->text, " 1324 ms "));
}

/* The end of the time for files out was an assertion: the guest could end the daemon. */
static void
test_guest_that_is_never_done_with_its_files(void **state)
{
	(void)state;
	play(PLAY_ENDLESS_FILES, "provisioning running failed ", "files_timeout");
	assert_int_equal(W->exit_code, 0);
}

static bool
is_full(void)
{
	return W->output_bytes == 10000;
}

/* What the agent had dropped was not told with a kill: the output looked whole. */
static void
test_full_output_of_a_job_that_is_killed(void **state)
{
	(void)state;
	W->play = PLAY_FULL;
	tell(CMD_START);
	wait_for(is_full);
	tell(CMD_CANCEL_NOW);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
	assert_true(W->truncated);
}

/* Only the daemon's log had it: to its requester the job was a success with all its files. */
static void
test_file_that_is_not_there_is_told(void **state)
{
	(void)state;
	play(PLAY_NO_FILE, "provisioning running completed ", "ok");
	assert_string_equal(W->missing, "model.bin: No such file");
}

static void
test_vm_that_dies_keeps_its_last_words(void **state)
{
	(void)state;
	play(PLAY_HANG_UP, "provisioning running failed ", "vm_ended");
	assert_int_equal(W->output_bytes, 11);
}

static void
test_create_fails(void **state)
{
	(void)state;
	om_vm_mem_on_call(W->driver.state, NULL, NULL);
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_CREATE, OM_ERR_VM, 0, 1);
	play(PLAY_EXIT_0, "provisioning failed ", "vm");
}

static void
test_drain_waits_for_the_last_job(void **state)
{
	(void)state;
	W->play = PLAY_RUN_UNTIL_STOPPED;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_DRAIN);
	tell(CMD_CANCEL);
	wait_for(is_drained);
	assert_int_equal(W->dones, 1);
}

/* Its job_runs die with an executor: a VM's disk stayed until the next start of the daemon. */
static void
test_what_a_failed_executor_left_is_removed(void **state)
{
	char dir[128];
	struct stat st;

	(void)state;
	W->play = PLAY_RUN_UNTIL_STOPPED;
	tell(CMD_START);
	wait_for(is_running);
	(void)snprintf(dir, sizeof(dir), "%s/" JOB, W->dir);
	assert_int_equal(stat(dir, &st), 0);
	tell(CMD_KILL_EXECUTOR);
	wait_for(is_killed);
	(void)spawn(&executor_arg);
	tell(CMD_DRAIN);
	wait_for(is_drained);
	assert_int_not_equal(stat(dir, &st), 0);
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
}

static void
test_second_witness_agrees(void **state)
{
	(void)state;
	W->tunnel = true;
	play(PLAY_EXIT_0, "provisioning running completed ", "ok");
}

/* The walls refused a packet that the detector did not see: the job is no success. */
static void
test_second_witness_contradicts(void **state)
{
	(void)state;
	W->tunnel = true;
	W->refused = W->unseen = 2;
	play(PLAY_EXIT_0, "provisioning running failed ", "detector_failed");
	assert_non_null(strstr(W->text, "2 refused packets"));
}

/* A job that had failed anyway keeps its reason, and the other is said beside it. */
static void
test_second_witness_beside_a_failure(void **state)
{
	(void)state;
	W->tunnel = true;
	W->refused = W->unseen = 2;
	play(PLAY_EXIT_3, "provisioning running failed ", "exit_code");
	assert_non_null(strstr(W->text, "2 refused packets"));
}

/* A witness that says nothing is no witness for the guest: each of these had let the job complete. */
static void
test_second_witness_was_not_read(void **state)
{
	(void)state;
	W->tunnel = true;
	W->walls_unread = true;
	play(PLAY_EXIT_0, "provisioning running failed ", "detector_failed");
	assert_non_null(strstr(W->text, "were not read"));
}

static void
test_second_witness_when_the_network_does_not_go(void **state)
{
	(void)state;
	W->tunnel = true;
	W->down_err = OM_ERR_TIMEOUT;
	play(PLAY_EXIT_0, "provisioning running failed ", "detector_failed");
}

static void
test_second_witness_when_the_manager_was_restarted(void **state)
{
	(void)state;
	W->tunnel = true;
	W->down_err = OM_ERR_NOT_FOUND;
	play(PLAY_EXIT_0, "provisioning running failed ", "detector_failed");
}

static void
test_second_witness_when_the_detector_was_restarted(void **state)
{
	(void)state;
	W->tunnel = true;
	W->unwatch_err = OM_ERR_NOT_FOUND;
	play(PLAY_EXIT_0, "provisioning running failed ", "detector_failed");
	assert_non_null(strstr(W->text, "watch"));
}

static void
test_second_witness_when_the_detector_fails(void **state)
{
	(void)state;
	W->tunnel = true;
	W->unwatch_err = OM_ERR_TIMEOUT;
	play(PLAY_EXIT_0, "provisioning running failed ", "detector_failed");
}

/* No guest ever ran: there is nothing that they could have seen. */
static void
test_no_witness_is_needed_without_a_guest(void **state)
{
	(void)state;
	W->tunnel = true;
	W->down_err = W->unwatch_err = OM_ERR_NOT_FOUND;
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_CREATE, OM_ERR_VM, 0, 1);
	play(PLAY_EXIT_0, "provisioning failed ", om_err_code(OM_ERR_VM));
	assert_null(strstr(W->text, "were not read"));
}

/* It sent its packet and exited at once: what the detector finds last is how it ends. */
static void
test_refused_packet_in_the_moment_of_the_exit(void **state)
{
	(void)state;
	W->tunnel = true;
	W->refused = 1;
	W->late_rogue = true;
	play(PLAY_EXIT_0, "provisioning running rogue_killed ", "rogue_packet");
}

/* The ledger refused the whole end for half a character, and the job "ran" for ever. */
static void
test_reason_is_cut_inside_a_character(void **state)
{
	char reason[OM_WHY_MAX + 1] = "aa";

	(void)state;
	while (strlen(reason) < OM_WHY_MAX) {
		(void)strcat(reason, "\xc3\xa9");
	}
	W->play = PLAY_RUN_UNTIL_STOPPED;
	W->cancel_reason = reason;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
	assert_int_equal(strlen(W->text), OM_WHY_MAX - 1);
	assert_string_equal(W->text + OM_WHY_MAX - 4, "\xc3\xa9?");
}

/* Five minutes of grace were five minutes for everyone, an operator's kill included. */
static void
test_cancel_without_grace_ends_the_grace(void **state)
{
	(void)state;
	W->play = PLAY_DEAF;
	W->grace_ms = 300000;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_CANCEL);
	tell(CMD_CANCEL_NOW);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
}

/* The manual promises 5 s; the VM was killed at once. */
static void
test_cancel_that_says_no_grace_gives_five_seconds(void **state)
{
	(void)state;
	W->play = PLAY_RUN_UNTIL_STOPPED;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_CANCEL_PLAIN);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
	assert_int_equal(W->signal, 15); /* SIGTERM reached it */
	assert_int_equal(W->stop_grace_ms, 5000);
}

/* libvirt tells the end of an attempt's VM when the next attempt has begun, under the same name. */
static void
test_end_of_an_earlier_vm_is_not_ours(void **state)
{
	(void)state;
	W->earlier_vm = true;
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_CREATE, OM_ERR_DISK, 0, 1); /* time to hear it */
	play(PLAY_EXIT_0, "provisioning running completed ", "ok");
}

static void
wait_sem(sem_t *sem)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	assert_int_equal(sem_timedwait(sem, &until), 0);
}

/* Its walls stand and libvirt does not come back from the resume: no guest may begin to run. */
static void
test_cancel_while_its_vm_is_released(void **state)
{
	(void)state;
	W->tunnel = true;
	hold(OM_VM_MEM_RESUME);
	tell(CMD_START);
	wait_sem(&W->held.begun);
	tell(CMD_CANCEL);
	wait_sem(&W->killed_vm);
	assert_int_equal(sem_post(&W->held.go), 0);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning cancelled ");
}

static void *
stop_system(void *arg)
{
	char left[256] = "";

	(void)arg;
	OM_ASSERT(om_system_stop(W->sys, 10000, left, sizeof(left)) == 0);
	W->stopped = true;
	return NULL;
}

/* Its cleanup waited for a thread when the executor ended, and was freed: the disk stayed. */
static void
test_cleanup_that_waits_when_the_executor_ends(void **state)
{
	pthread_t stop;

	(void)state;
	W->play = PLAY_DEAF;
	tell(CMD_START);
	wait_for(is_running);
	hold(OM_VM_MEM_SUSPEND); /* of the hypervisor's only thread */
	tell(CMD_PAUSE);
	wait_sem(&W->held.begun);
	assert_int_equal(pthread_create(&stop, NULL, stop_system, NULL), 0);
	assert_int_equal(om_system_wait(W->sys, W->executor_id, WAIT_S * 1000), OM_OK);
	assert_int_equal(sem_post(&W->held.go), 0);
	assert_int_equal(pthread_join(stop, NULL), 0);
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
	assert_int_equal(rmdir(W->dir), 0); /* it is empty */
}

static void
test_cancel_of_all_at_the_daemons_end(void **state)
{
	(void)state;
	W->play = PLAY_RUN_UNTIL_STOPPED;
	W->cancel_all = true;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
	assert_string_equal(W->reason, "daemon_stopping");
	tell(CMD_DRAIN);
	wait_for(is_drained);
}

/* It had five minutes, and the daemon ends. */
static void
test_less_grace_takes_the_place_of_more(void **state)
{
	(void)state;
	W->play = PLAY_DEAF;
	W->grace_ms = 300000;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_CANCEL);
	wait_for(is_cancel_answered);
	W->grace_ms = 1;
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
}

/* --- pause -------------------------------------------------------------------------------------- */

static void
start_and_pause(void)
{
	W->play = PLAY_RUN_UNTIL_STOPPED;
	tell(CMD_START);
	wait_for(is_running);
	tell(CMD_PAUSE);
	wait_for(is_paused);
	assert_false(om_vm_mem_is_running(W->driver.state, OM_VM_PREFIX JOB));
}

static void
test_paused_job_goes_on(void **state)
{
	(void)state;
	start_and_pause();
	tell(CMD_GO_ON);
	wait_for(is_not_paused);
	assert_true(om_vm_mem_is_running(W->driver.state, OM_VM_PREFIX JOB));
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
}

/* It is resumed, obeys, and says its last words. */
static void
test_cancel_of_a_paused_job(void **state)
{
	(void)state;
	start_and_pause();
	tell(CMD_CANCEL);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
	assert_int_equal(W->output_bytes, 8);
	assert_int_equal(om_vm_mem_calls(W->driver.state, OM_VM_MEM_RESUME), 1);
}

static void
test_cancel_while_it_is_suspended(void **state)
{
	(void)state;
	W->play = PLAY_RUN_UNTIL_STOPPED;
	tell(CMD_START);
	wait_for(is_running);
	hold(OM_VM_MEM_SUSPEND);
	tell(CMD_PAUSE);
	wait_sem(&W->held.begun);
	tell(CMD_CANCEL);
	wait_for(is_cancel_answered);
	assert_int_equal(sem_post(&W->held.go), 0);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
	assert_string_equal(W->text, "because");
	assert_int_equal(om_vm_mem_calls(W->driver.state, OM_VM_MEM_RESUME), 1);
}

static void
test_resume_that_fails(void **state)
{
	(void)state;
	start_and_pause();
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_RESUME, OM_ERR_VM, 0, 1);
	tell(CMD_GO_ON);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running failed ");
	assert_string_equal(W->reason, "vm_resume");
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
}

static void
test_suspend_that_fails_changes_nothing(void **state)
{
	(void)state;
	W->play = PLAY_DEAF;
	tell(CMD_START);
	wait_for(is_running);
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_SUSPEND, OM_ERR_VM, 0, 1);
	tell(CMD_PAUSE);
	wait_for(is_done); /* by its time limit */
	assert_string_equal(W->states, "provisioning running timed_out ");
	assert_false(W->paused);
}

/* A cancel waited for the resume, and the resume for a libvirt that hung: for ever. */
static void
test_cancel_while_the_resume_hangs(void **state)
{
	(void)state;
	start_and_pause();
	W->grace_ms = 1;
	hold(OM_VM_MEM_RESUME);
	tell(CMD_CANCEL);
	wait_sem(&W->held.begun);
	wait_for(is_recorded_cancelled);
	assert_int_equal(sem_post(&W->held.go), 0);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running cancelled ");
}

/* The clock stood still although the guest ran: a libvirt that hung gave it time without end. */
static void
test_time_limit_holds_while_the_suspend_hangs(void **state)
{
	(void)state;
	W->play = PLAY_DEAF;
	tell(CMD_START);
	wait_for(is_running);
	hold(OM_VM_MEM_SUSPEND);
	tell(CMD_PAUSE);
	wait_sem(&W->held.begun);
	wait_for(is_recorded_timed_out);
	assert_int_equal(sem_post(&W->held.go), 0);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running timed_out ");
}

static void
test_rogue_kill_of_a_paused_job(void **state)
{
	(void)state;
	start_and_pause();
	tell(CMD_ROGUE);
	wait_for(is_done);
	assert_string_equal(W->states, "provisioning running rogue_killed ");
	assert_string_equal(W->reason, "rogue_packet");
	assert_int_equal(om_vm_mem_calls(W->driver.state, OM_VM_MEM_RESUME), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_completed),
		T(test_exit_status_is_a_failure),
		T(test_signal),
		T(test_out_of_memory),
		T(test_output_is_whole_and_before_the_end),
		T(test_full_disk_delays_and_loses_nothing),
		T(test_busy_ledger_delays_and_loses_nothing),
		T(test_cancel_ends_a_running_job),
		T(test_cancel_while_the_vm_is_created),
		T(test_an_ended_job_is_not_run_again),
		T(test_cancel_before_its_body_is_read),
		T(test_body_that_cannot_be_read),
		T(test_no_room_for_its_disk_means_wait),
		T(test_cancel_while_it_waits_for_disk),
		T(test_a_large_input_has_time),
		T(test_time_limit_kills_what_does_not_obey_and_keeps_its_output),
		T(test_rogue_is_killed_and_keeps_its_output),
		T(test_broken_protocol),
		T(test_silent_guest),
		T(test_guest_that_never_starts_its_job),
		T(test_guest_that_is_never_done_with_its_files),
		T(test_full_output_of_a_job_that_is_killed),
		T(test_file_that_is_not_there_is_told),
		T(test_vm_that_dies_keeps_its_last_words),
		T(test_create_fails),
		T(test_drain_waits_for_the_last_job),
		T(test_second_witness_agrees),
		T(test_second_witness_contradicts),
		T(test_second_witness_beside_a_failure),
		T(test_second_witness_was_not_read),
		T(test_second_witness_when_the_network_does_not_go),
		T(test_second_witness_when_the_manager_was_restarted),
		T(test_second_witness_when_the_detector_was_restarted),
		T(test_second_witness_when_the_detector_fails),
		T(test_no_witness_is_needed_without_a_guest),
		T(test_refused_packet_in_the_moment_of_the_exit),
		T(test_what_a_failed_executor_left_is_removed),
		T(test_reason_is_cut_inside_a_character),
		T(test_cancel_without_grace_ends_the_grace),
		T(test_cancel_that_says_no_grace_gives_five_seconds),
		T(test_end_of_an_earlier_vm_is_not_ours),
		T(test_cancel_while_its_vm_is_released),
		cmocka_unit_test_setup_teardown(test_cleanup_that_waits_when_the_executor_ends,
						setup_one_thread, teardown),
		T(test_cancel_of_all_at_the_daemons_end),
		T(test_less_grace_takes_the_place_of_more),
		T(test_paused_job_goes_on),
		T(test_cancel_of_a_paused_job),
		T(test_cancel_while_it_is_suspended),
		T(test_resume_that_fails),
		T(test_suspend_that_fails_changes_nothing),
		T(test_cancel_while_the_resume_hangs),
		T(test_time_limit_holds_while_the_suspend_hangs),
		T(test_rogue_kill_of_a_paused_job),
	};

	return cmocka_run_group_tests_name("executor", tests, NULL, NULL);
}
