/* SPDX-License-Identifier: ISC */
/*
 * The executor's jobs that are cancelled, paused or both, at each moment of their life, and with a
 * hypervisor that hangs meanwhile.
 */
#include "tests/unit/actors_exec_stage.h"

static bool
is_recorded_cancelled(void)
{
	return strstr(W->states, "cancelled ") != NULL;
}

/* The reference's cancel of a running job returned true and did nothing. */
static void
test_cancel_ends_a_running_job(void **state)
{
	(void)state;
	run(PLAY_RUN_UNTIL_STOPPED);
	cancel("provisioning running cancelled ");
	assert_string_equal(W->text, "because");
	assert_int_equal(W->output_bytes, 8);
	assert_int_equal(W->cancels_answered, 1);
}

/* A libvirt that hangs: the job's end does not wait for it, but its slot does. */
static void
test_cancel_while_the_vm_is_created(void **state)
{
	(void)state;
	W->no_guest = true;
	tell_held(CMD_START, OM_VM_MEM_CREATE);
	tell(CMD_CANCEL);
	wait_for(is_recorded_cancelled);
	assert_int_equal(W->dones, 0);
	let_go();
	expect_end("provisioning cancelled ");
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
}

/* It was never recorded: the job stayed queued, and ran after the next restart. */
static void
test_cancel_before_its_body_is_read(void **state)
{
	(void)state;
	W->spec_err = OM_ERR_DISK; /* asked again and again */
	tell(CMD_START);
	wait_for(is_spec_refused);
	cancel("cancelled ");
	assert_string_equal(W->text, "because");
	assert_string_equal(W->done_state, "cancelled");
}

static void
test_cancel_while_it_waits_for_disk(void **state)
{
	(void)state;
	W->no_guest = true;
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_CREATE, OM_ERR_DISK, 0, 1000);
	tell_held(CMD_START, OM_VM_MEM_CREATE);
	let_go();
	cancel("provisioning cancelled ");
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
	W->cancel_reason = reason;
	run(PLAY_RUN_UNTIL_STOPPED);
	cancel("provisioning running cancelled ");
	assert_int_equal(strlen(W->text), OM_WHY_MAX - 1);
	assert_string_equal(W->text + OM_WHY_MAX - 4, "\xc3\xa9?");
}

/* Five minutes of grace were five minutes for everyone, an operator's kill included. */
static void
test_cancel_without_grace_ends_the_grace(void **state)
{
	(void)state;
	W->grace_ms = 300000;
	run(PLAY_DEAF);
	tell(CMD_CANCEL);
	tell(CMD_CANCEL_NOW);
	expect_end("provisioning running cancelled ");
}

/* The manual promises 5 s; the VM was killed at once. */
static void
test_cancel_that_says_no_grace_gives_five_seconds(void **state)
{
	(void)state;
	run(PLAY_RUN_UNTIL_STOPPED);
	tell(CMD_CANCEL_PLAIN);
	expect_end("provisioning running cancelled ");
	assert_int_equal(W->signal, 15); /* SIGTERM reached it */
	assert_int_equal(W->guest.stop_grace_ms, 5000);
}

/* Its walls stand and libvirt does not come back from the resume: no guest may begin to run. */
static void
test_cancel_while_its_vm_is_released(void **state)
{
	(void)state;
	W->guest.tunnel = true;
	tell_held(CMD_START, OM_VM_MEM_RESUME);
	tell(CMD_CANCEL);
	wait_sem(&W->killed_vm);
	let_go();
	expect_end("provisioning cancelled ");
}

static void
test_cancel_of_all_at_the_daemons_end(void **state)
{
	(void)state;
	W->cancel_all = true;
	run(PLAY_RUN_UNTIL_STOPPED);
	cancel("provisioning running cancelled ");
	assert_string_equal(W->reason, "daemon_stopping");
	tell(CMD_DRAIN);
	wait_for(is_drained);
}

/* It had five minutes, and the daemon ends. */
static void
test_less_grace_takes_the_place_of_more(void **state)
{
	(void)state;
	W->grace_ms = 300000;
	run(PLAY_DEAF);
	tell(CMD_CANCEL);
	wait_for(is_cancel_answered);
	W->grace_ms = 1;
	cancel("provisioning running cancelled ");
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
	W->guest.play = PLAY_FULL;
	tell(CMD_START);
	wait_for(is_full);
	tell(CMD_CANCEL_NOW);
	expect_end("provisioning running cancelled ");
	assert_true(W->truncated);
}

/* --- pause -------------------------------------------------------------------------------------- */

static bool
is_recorded_timed_out(void)
{
	return strstr(W->states, "timed_out ") != NULL;
}

static void
start_and_pause(void)
{
	run(PLAY_RUN_UNTIL_STOPPED);
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
	cancel("provisioning running cancelled ");
}

/* It is resumed, obeys, and says its last words. */
static void
test_cancel_of_a_paused_job(void **state)
{
	(void)state;
	start_and_pause();
	cancel("provisioning running cancelled ");
	assert_int_equal(W->output_bytes, 8);
	assert_int_equal(om_vm_mem_calls(W->driver.state, OM_VM_MEM_RESUME), 1);
}

static void
test_cancel_while_it_is_suspended(void **state)
{
	(void)state;
	run(PLAY_RUN_UNTIL_STOPPED);
	tell_held(CMD_PAUSE, OM_VM_MEM_SUSPEND);
	tell(CMD_CANCEL);
	wait_for(is_cancel_answered);
	let_go();
	expect_end("provisioning running cancelled ");
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
	expect_end("provisioning running failed ");
	assert_string_equal(W->reason, "vm_resume");
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
}

static void
test_suspend_that_fails_changes_nothing(void **state)
{
	(void)state;
	W->runtime_s = 1;
	run(PLAY_DEAF);
	om_vm_mem_fail(W->driver.state, OM_VM_MEM_SUSPEND, OM_ERR_VM, 0, 1);
	tell(CMD_PAUSE);
	expect_end("provisioning running timed_out "); /* by its time limit */
	assert_false(W->paused);
}

/* A cancel waited for the resume, and the resume for a libvirt that hung: for ever. */
static void
test_cancel_while_the_resume_hangs(void **state)
{
	(void)state;
	start_and_pause();
	W->grace_ms = 1;
	tell_held(CMD_CANCEL, OM_VM_MEM_RESUME);
	wait_for(is_recorded_cancelled);
	let_go();
	expect_end("provisioning running cancelled ");
}

/* The clock stood still although the guest ran: a libvirt that hung gave it time without end. */
static void
test_time_limit_holds_while_the_suspend_hangs(void **state)
{
	(void)state;
	W->runtime_s = 1;
	run(PLAY_DEAF);
	tell_held(CMD_PAUSE, OM_VM_MEM_SUSPEND);
	wait_for(is_recorded_timed_out);
	let_go();
	expect_end("provisioning running timed_out ");
}

static void
test_rogue_kill_of_a_paused_job(void **state)
{
	(void)state;
	start_and_pause();
	tell(CMD_ROGUE);
	expect_end("provisioning running rogue_killed ");
	assert_string_equal(W->reason, "rogue_packet");
	assert_int_equal(om_vm_mem_calls(W->driver.state, OM_VM_MEM_RESUME), 0);
}

/* --- the executor's end ---------------------------------------------------------------------------- */

/* A pool has one thread: what is held on it holds up the rest. */
static int
setup_one_thread(void **state)
{
	(void)state;
	return setup_threads(1);
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
	run(PLAY_DEAF);
	tell_held(CMD_PAUSE, OM_VM_MEM_SUSPEND); /* of the hypervisor's only thread */
	assert_int_equal(pthread_create(&stop, NULL, stop_system, NULL), 0);
	assert_int_equal(om_system_wait(W->sys, W->executor_id, WAIT_S * 1000), OM_OK);
	let_go();
	assert_int_equal(pthread_join(stop, NULL), 0);
	assert_int_equal(om_vm_mem_count(W->driver.state), 0);
	assert_int_equal(rmdir(W->dir), 0); /* it is empty */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_cancel_ends_a_running_job),
		T(test_cancel_while_the_vm_is_created),
		T(test_cancel_before_its_body_is_read),
		T(test_cancel_while_it_waits_for_disk),
		T(test_reason_is_cut_inside_a_character),
		T(test_cancel_without_grace_ends_the_grace),
		T(test_cancel_that_says_no_grace_gives_five_seconds),
		T(test_cancel_while_its_vm_is_released),
		T(test_cancel_of_all_at_the_daemons_end),
		T(test_less_grace_takes_the_place_of_more),
		T(test_full_output_of_a_job_that_is_killed),
		T(test_paused_job_goes_on),
		T(test_cancel_of_a_paused_job),
		T(test_cancel_while_it_is_suspended),
		T(test_resume_that_fails),
		T(test_suspend_that_fails_changes_nothing),
		T(test_cancel_while_the_resume_hangs),
		T(test_time_limit_holds_while_the_suspend_hangs),
		T(test_rogue_kill_of_a_paused_job),
		cmocka_unit_test_setup_teardown(test_cleanup_that_waits_when_the_executor_ends,
						setup_one_thread, teardown),
	};

	return cmocka_run_group_tests_name("executor_cancel", tests, NULL, NULL);
}
