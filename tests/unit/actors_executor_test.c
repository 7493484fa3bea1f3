/* SPDX-License-Identifier: ISC */
/*
 * The executor and its job_runs on a real runtime and bus, with a driver without VMs and a guest
 * that this test plays at the other end of the agent's socket.  The ledger and the queue are fakes
 * that keep what they are told.  What stops a job, or holds it up: actors_executor_cancel_test.c.
 */
#include "tests/unit/actors_exec_stage.h"

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

/* Others have all the disk now: the job waits for them, it does not fail. */
static void
test_no_room_for_its_disk_means_wait(void **state)
{
	(void)state;
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_CREATE, OM_ERR_DISK, 0, 1);
	play(PLAY_EXIT_0, "provisioning running completed ", "ok");
}

/* exec.start of a job that has ended meanwhile. */
static void
test_an_ended_job_is_not_run_again(void **state)
{
	(void)state;
	W->recorded = "completed";
	tell(CMD_START);
	expect_end("");
	assert_string_equal(W->done_state, "completed");
	assert_int_equal(om_vm_mem_calls(W->driver.state, OM_VM_MEM_CREATE), 0);
}

static void
test_body_that_cannot_be_read(void **state)
{
	(void)state;
	W->spec_err = OM_ERR_INTERNAL;
	tell(CMD_START);
	expect_end("failed ");
	assert_string_equal(W->reason, "internal");
}

static void
test_time_limit_kills_what_does_not_obey_and_keeps_its_output(void **state)
{
	(void)state;
	W->runtime_s = 1;
	play(PLAY_DEAF, "provisioning running timed_out ", "runtime_limit");
	assert_int_equal(W->output_bytes, 8);
	assert_true(om_vm_mem_calls(W->driver.state, OM_VM_MEM_DESTROY) > 0);
}

static void
test_rogue_is_killed_and_keeps_its_output(void **state)
{
	(void)state;
	run(PLAY_RUN_UNTIL_STOPPED);
	tell(CMD_ROGUE);
	expect_end("provisioning running rogue_killed ");
	assert_string_equal(W->reason, "rogue_packet");
}

static void
test_broken_protocol(void **state)
{
	(void)state;
	play(PLAY_GARBAGE, "provisioning running failed ", "guest_protocol");
}

/* What a guest has for its boot, its start and its files, where it is to be too little. */
static void
impatient(void)
{
	W->conf.boot_timeout_ms = 300;
}

static void
test_silent_guest(void **state)
{
	(void)state;
	impatient();
	play(PLAY_SILENT, "provisioning failed ", "boot_timeout");
}

/* Nobody counted the time between the guest's hello and its job's start: a slot was lost for ever. */
static void
test_guest_that_never_starts_its_job(void **state)
{
	(void)state;
	impatient();
	play(PLAY_NEVER_STARTS, "provisioning failed ", "boot_timeout");
}

/* It has time for what it is given to read: 300 ms as always, and a second for a megabyte. */
static void
test_a_large_input_has_time(void **state)
{
	(void)state;
	impatient();
	W->script_len = 1 << 20;
	play(PLAY_NEVER_STARTS, "provisioning failed ", "boot_timeout");
	assert_non_null(strstr(W->text, " 1324 ms "));
}

/* The end of the time for files out was an assertion: the guest could end the daemon. */
static void
test_guest_that_is_never_done_with_its_files(void **state)
{
	(void)state;
	impatient();
	play(PLAY_ENDLESS_FILES, "provisioning running failed ", "files_timeout");
	assert_int_equal(W->exit_code, 0);
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
	run(PLAY_RUN_UNTIL_STOPPED);
	tell(CMD_DRAIN);
	tell(CMD_CANCEL);
	wait_for(is_drained);
	assert_int_equal(W->dones, 1);
}

/* Its actor has the job's name as long as it lives: an operator traces it by that. */
static void
test_a_running_job_is_found_by_its_name(void **state)
{
	struct om_actor_id id;

	(void)state;
	run(PLAY_RUN_UNTIL_STOPPED);
	id = om_whereis(W->sys, OM_JOB_RUN_NAME JOB);
	assert_false(om_actor_id_eq(id, OM_NOBODY));
	cancel("provisioning running cancelled ");
	assert_int_equal(om_system_wait(W->sys, id, WAIT_S * 1000), OM_OK);
	assert_true(om_actor_id_eq(om_whereis(W->sys, OM_JOB_RUN_NAME JOB), OM_NOBODY));
}

/* Its job_runs die with an executor: a VM's disk stayed until the next start of the daemon. */
static void
test_what_a_failed_executor_left_is_removed(void **state)
{
	(void)state;
	run(PLAY_RUN_UNTIL_STOPPED);
	assert_true(job_dir_exists());
	tell(CMD_KILL_EXECUTOR);
	wait_for(is_killed);
	(void)spawn(&W->executor);
	tell(CMD_DRAIN);
	wait_for(is_drained);
	assert_false(job_dir_exists());
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
}

/* The walls and the detector of its network do not agree: it is no success, whatever it says. */
static void
play_unwitnessed(void)
{
	W->guest.tunnel = true;
	play(PLAY_EXIT_0, "provisioning running failed ", "detector_failed");
}

static void
test_second_witness_agrees(void **state)
{
	(void)state;
	W->guest.tunnel = true;
	play(PLAY_EXIT_0, "provisioning running completed ", "ok");
}

/* The walls refused a packet that the detector did not see: the job is no success. */
static void
test_second_witness_contradicts(void **state)
{
	(void)state;
	W->refused = W->unseen = 2;
	play_unwitnessed();
	assert_non_null(strstr(W->text, "2 refused packets"));
}

/* A job that had failed anyway keeps its reason, and the other is said beside it. */
static void
test_second_witness_beside_a_failure(void **state)
{
	(void)state;
	W->guest.tunnel = true;
	W->refused = W->unseen = 2;
	play(PLAY_EXIT_3, "provisioning running failed ", "exit_code");
	assert_non_null(strstr(W->text, "2 refused packets"));
}

/* A witness that says nothing is no witness for the guest: each of these had let the job complete. */
static void
test_second_witness_was_not_read(void **state)
{
	(void)state;
	W->walls_unread = true;
	play_unwitnessed();
	assert_non_null(strstr(W->text, "were not read"));
}

static void
test_second_witness_when_the_network_does_not_go(void **state)
{
	(void)state;
	W->down_err = OM_ERR_TIMEOUT;
	play_unwitnessed();
}

static void
test_second_witness_when_the_manager_was_restarted(void **state)
{
	(void)state;
	W->down_err = OM_ERR_NOT_FOUND;
	play_unwitnessed();
}

static void
test_second_witness_when_the_detector_was_restarted(void **state)
{
	(void)state;
	W->unwatch_err = OM_ERR_NOT_FOUND;
	play_unwitnessed();
	assert_non_null(strstr(W->text, "watch"));
}

static void
test_second_witness_when_the_detector_fails(void **state)
{
	(void)state;
	W->unwatch_err = OM_ERR_TIMEOUT;
	play_unwitnessed();
}

/* No guest ever ran: there is nothing that they could have seen. */
static void
test_no_witness_is_needed_without_a_guest(void **state)
{
	(void)state;
	W->guest.tunnel = true;
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
	W->guest.tunnel = true;
	W->refused = 1;
	W->late_rogue = true;
	play(PLAY_EXIT_0, "provisioning running rogue_killed ", "rogue_packet");
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
		T(test_no_room_for_its_disk_means_wait),
		T(test_an_ended_job_is_not_run_again),
		T(test_body_that_cannot_be_read),
		T(test_time_limit_kills_what_does_not_obey_and_keeps_its_output),
		T(test_rogue_is_killed_and_keeps_its_output),
		T(test_broken_protocol),
		T(test_silent_guest),
		T(test_guest_that_never_starts_its_job),
		T(test_a_large_input_has_time),
		T(test_guest_that_is_never_done_with_its_files),
		T(test_file_that_is_not_there_is_told),
		T(test_vm_that_dies_keeps_its_last_words),
		T(test_create_fails),
		T(test_drain_waits_for_the_last_job),
		T(test_a_running_job_is_found_by_its_name),
		T(test_what_a_failed_executor_left_is_removed),
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
		T(test_end_of_an_earlier_vm_is_not_ours),
	};

	return cmocka_run_group_tests_name("executor", tests, NULL, NULL);
}
