/* SPDX-License-Identifier: ISC */
/* Jobs in real VMs: what an honest one gets, and what a hostile one does not. */
#include "tests/system/vm_fixture.h"

#include "base/buf.h"

static struct om_guest_job
job_of(const char *lang, const char *script)
{
	return (struct om_guest_job){ .interpreter = om_str_of(lang),
				      .script = { (const uint8_t *)script, strlen(script) } };
}

static void
assert_text(const struct om_buf *buf, const char *want)
{
	if (buf->len != strlen(want) || memcmp(buf->data, want, buf->len) != 0) {
		fail_msg("got \"%.*s\", want \"%s\"", (int)buf->len, (const char *)buf->data, want);
	}
}

static void
run(void **state, const struct plan *plan, const struct om_guest_job *job, struct outcome *o)
{
	fixture_run(*state, plan, job, o);
}

/* Streams apart, stdin, arguments, environment, files in and out, figures. */
static void
test_everything_a_job_gets(void **state)
{
	static const char script[] =
	    "import sys, os, resource\n"
	    "data = sys.stdin.read()\n"
	    "print(len(data), sys.argv[1:], os.environ['GREETING'], os.getcwd(), os.getuid())\n"
	    "print('to stderr', file=sys.stderr)\n"
	    "import helper\n"
	    "print(helper.word, open('data/in.txt').read())\n"
	    "open('out.bin', 'wb').write(bytes(range(256)) * 1000)\n"
	    "os.symlink('/etc/passwd', 'link')\n"
	    "big = bytearray(40 << 20)\n"
	    "sys.exit(7)\n";
	static uint8_t stdin_data[200000];
	const struct om_str args[] = { OM_STR("one"), OM_STR("two words") };
	const struct om_guest_env env[] = { { OM_STR("GREETING"), OM_STR("grüß dich") } };
	const struct om_guest_file_in in[] = {
		{ OM_STR("helper.py"), 0644, { (const uint8_t *)"word = 'helped'", 15 } },
		{ OM_STR("data/in.txt"), 0600, { (const uint8_t *)"content", 7 } },
	};
	const struct om_str out[] = { OM_STR("out.bin"), OM_STR("missing"), OM_STR("link") };
	struct om_guest_job job = job_of("python", script);
	struct plan plan = { 0 };
	struct outcome o;

	memset(stdin_data, 'x', sizeof(stdin_data));
	job.args = args;
	job.arg_count = 2;
	job.env = env;
	job.env_count = 1;
	job.files_in = in;
	job.file_in_count = 2;
	job.files_out = out;
	job.file_out_count = 3;
	job.stdin_data = (struct om_bin){ stdin_data, sizeof(stdin_data) };
	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_text(&o.err, "to stderr\n");
	assert_text(&o.out, "200000 ['one', 'two words'] grüß dich /job 1000\nhelped content\n");
	assert_int_equal(o.exit.exit_code, 7);
	assert_int_equal(o.exit.signal, 0);
	assert_true(o.exit.cpu_us > 10000);
	assert_true(o.exit.peak_kib > 40 << 10 && o.exit.peak_kib < 200 << 10);
	assert_int_equal(o.files[0].data.len, 256000);
	assert_int_equal(o.files[0].data.data[255999], 255);
	assert_true(o.files[1].error[0] != '\0' && o.files[1].data.len == 0);
	assert_true(o.files[2].error[0] != '\0' && o.files[2].data.len == 0);
	fixture_fini(&o);
}

static void
test_sh_signal(void **state)
{
	struct om_guest_job job = job_of("sh", "echo before; kill -SEGV $$; echo after");
	struct plan plan = { 0 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_text(&o.out, "before\n");
	assert_int_equal(o.exit.exit_code, -1);
	assert_int_equal(o.exit.signal, SIGSEGV);
	fixture_fini(&o);
}

static void
test_unknown_interpreter(void **state)
{
	struct om_guest_job job = job_of("cobol", "DISPLAY 'HELLO'.");
	struct plan plan = { 0 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.has_failed);
	assert_int_equal(o.failed, OM_ERR_UNSUPPORTED);
	assert_non_null(strstr(o.text, "cobol"));
	assert_non_null(strstr(o.text, "python"));
	fixture_fini(&o);
}

/* What is over the limit is counted, the exit status comes all the same. */
static void
test_output_limit(void **state)
{
	struct om_guest_job job =
	    job_of("python", "import sys, os\n"
			     "for i in range(1000): os.write(1, b'x' * 1000)\n"
			     "os.write(2, b'y' * 1000)\n");
	struct plan plan = { 0 };
	struct outcome o;

	job.output_max = 300000;
	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_int_equal(o.exit.exit_code, 0);
	assert_int_equal(o.out.len + o.err.len, 300000);
	assert_int_equal(o.exit.dropped_out + o.exit.dropped_err, 701000);
	fixture_fini(&o);
}

/* Prints for ever: stopped at its limit, with a grace that it ignores; keeps what it printed. */
static void
test_endless_output_is_stopped(void **state)
{
	struct om_guest_job job = job_of("sh", "trap '' TERM; while :; do echo yes; done");
	struct plan plan = { .stop_at = 4096, .stop_after_ms = 500, .grace_ms = 300 };
	struct outcome o;

	job.output_max = 4096;
	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_true(o.exit.stopped);
	assert_int_equal(o.exit.signal, SIGKILL);
	assert_int_equal(o.out.len, 4096);
	assert_memory_equal(o.out.data, "yes\nyes\n", 8);
	assert_true(o.exit.dropped_out > 0);
	fixture_fini(&o);
}

/* A grace that is used: the job tidies up and says so. */
static void
test_stop_with_grace(void **state)
{
	struct om_guest_job job = job_of(
	    "sh", "trap 'echo tidied; exit 5' TERM; echo ready; while :; do sleep 0.1; done");
	struct plan plan = { .stop_after_ms = 100, .grace_ms = 20000 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_true(o.exit.stopped);
	assert_int_equal(o.exit.exit_code, 5);
	assert_text(&o.out, "ready\ntidied\n");
	fixture_fini(&o);
}

/* Stopped when the limit has been reached, seen by what the refused ones print. */
static void
test_fork_bomb(void **state)
{
	struct om_guest_job job = job_of("python", "import os\n"
						   "while True:\n"
						   "    try: os.fork()\n"
						   "    except OSError: os.write(1, b'full\\n')\n");
	struct plan plan = { .stop_after_ms = 200 };
	struct outcome o;

	job.procs_max = 64;
	job.output_max = 5;
	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_true(o.exit.stopped);
	assert_text(&o.out, "full\n");
	assert_true(o.exit.refused_forks > 0);
	fixture_fini(&o);
}

static void
test_memory_hog(void **state)
{
	struct om_guest_job job = job_of("python", "print('eating')\n"
						   "b = []\n"
						   "while True: b.append(bytearray(4 << 20))\n");
	struct plan plan = { 0 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_text(&o.out, "eating\n");
	/* MemoryError or the OOM killer: either way the agent lives and tells. */
	assert_true(o.exit.signal == SIGKILL ? o.exit.oom_kills > 0 : o.exit.exit_code == 1);
	fixture_fini(&o);
}

static void
test_disk_full(void **state)
{
	static const char script[] = "import errno\n"
				     "try:\n"
				     "    with open('fill', 'wb') as f:\n"
				     "        while True: f.write(b'z' * (1 << 20))\n"
				     "except OSError as e:\n"
				     "    print('stopped by', errno.errorcode[e.errno])\n";
	struct om_guest_job job = job_of("python", script);
	struct plan plan = { .scratch_mib = 32 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_int_equal(o.exit.exit_code, 0);
	assert_text(&o.out, "stopped by ENOSPC\n");
	fixture_fini(&o);
}

/* Neither the agent nor its port nor the disks can be reached; no way to more rights. */
static void
test_attack_on_the_agent(void **state)
{
	static const char script[] =
	    "import os, glob, subprocess\n"
	    "def t(name, f):\n"
	    "    try: f(); print(name, 'POSSIBLE')\n"
	    "    except OSError as e: print(name, 'no')\n"
	    "t('kill', lambda: os.kill(1, 9))\n"
	    "t('proc', lambda: os.listdir('/proc/1'))\n"
	    "t('setuid', lambda: os.setuid(0))\n"
	    "t('chroot', lambda: os.chroot('/tmp'))\n"
	    "t('port', lambda: open('/dev/vport0p1', 'wb'))\n"
	    "t('disk', lambda: open('/dev/vdb', 'rb'))\n"
	    "t('mknod', lambda: os.mknod('/tmp/vdb', 0o60600, os.makedev(254, 16)))\n"
	    "t('sysrq', lambda: open('/proc/sysrq-trigger', 'w').write('c'))\n"
	    "t('etc', lambda: open('/etc/passwd', 'a'))\n"
	    "t('reboot', lambda: open('/proc/sys/kernel/panic', 'w'))\n"
	    "print(sorted(os.path.basename(p) for p in glob.glob('/dev/v*')))\n";
	struct om_guest_job job = job_of("python", script);
	struct plan plan = { 0 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_int_equal(o.exit.exit_code, 0);
	assert_text(&o.out, "kill no\nproc no\nsetuid no\nchroot no\nport no\ndisk no\nmknod no\n"
			    "sysrq no\netc no\nreboot no\n[]\n");
	fixture_fini(&o);
}

/* A background process keeps the pipes open: the end of the first process ends the job. */
static void
test_background_process_does_not_hold(void **state)
{
	struct om_guest_job job =
	    job_of("sh", "(trap '' TERM HUP; sleep 1000) & echo done; exit 3");
	struct plan plan = { 0 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_text(&o.out, "done\n");
	assert_int_equal(o.exit.exit_code, 3);
	assert_true(o.done_ms < 10000);
	fixture_fini(&o);
}

/* kill(): the guest runs no more, the event says so, what came before is kept. */
static void
test_kill_keeps_partial_output(void **state)
{
	struct fixture *f = *state;
	struct om_guest_job job = job_of("sh", "echo partial; sleep 1000");
	struct plan plan = { .kill_after_ms = 100 };
	char reason[OM_VM_REASON_MAX];
	enum om_vm_event_kind kind;
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_gone);
	assert_false(o.has_exit);
	assert_text(&o.out, "partial\n");
	pthread_mutex_lock(&f->lock);
	kind = f->kind;
	snprintf(reason, sizeof(reason), "%s", f->reason);
	pthread_mutex_unlock(&f->lock);
	assert_int_equal(kind, OM_VM_EVENT_CRASHED);
	assert_string_equal(reason, "killed or crashed");
	fixture_fini(&o);
}

/* The smallest memory and disk, more than one core; a script that is a program itself. */
static void
test_small_and_wide(void **state)
{
	struct om_guest_job job =
	    job_of("exec", "#!/usr/bin/env python3\n"
			   "import os, json, ssl, sqlite3, urllib.request\n"
			   "ssl.create_default_context()\n"
			   "print(os.cpu_count(), len(os.sched_getaffinity(0)))\n"
			   "print(os.popen('bash -c \"echo $((6*7))\"; perl -e "
			   "\"print 1+1\"; echo | awk \"{print 3}\"').read())\n");
	struct plan plan = { .cores = 2,
			     .mem_mib = OM_VM_MEM_MIN_MIB,
			     .scratch_mib = OM_VM_DISK_MIN_MIB };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_text(&o.err, "");
	assert_text(&o.out, "2 2\n42\n23\n\n");
	assert_int_equal(o.exit.exit_code, 0);
	fixture_fini(&o);
}

/* Megabytes of output arrive whole and in order, at the pace of the reader. */
static void
test_much_output_is_whole(void **state)
{
	struct om_guest_job job =
	    job_of("python", "import os, sys\n"
			     "for i in range(64):\n"
			     "    sys.stdout.buffer.write(bytes([i]) * 65536)\n");
	struct plan plan = { 0 };
	struct outcome o;

	run(state, &plan, &job, &o);
	assert_true(o.is_done);
	assert_int_equal(o.out.len, 64 * 65536);
	for (size_t i = 0; i < 64; i++) {
		assert_int_equal(o.out.data[i * 65536], i);
		assert_int_equal(o.out.data[i * 65536 + 65535], i);
	}
	fixture_fini(&o);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything_a_job_gets),
		cmocka_unit_test(test_sh_signal),
		cmocka_unit_test(test_unknown_interpreter),
		cmocka_unit_test(test_output_limit),
		cmocka_unit_test(test_endless_output_is_stopped),
		cmocka_unit_test(test_stop_with_grace),
		cmocka_unit_test(test_fork_bomb),
		cmocka_unit_test(test_memory_hog),
		cmocka_unit_test(test_disk_full),
		cmocka_unit_test(test_attack_on_the_agent),
		cmocka_unit_test(test_background_process_does_not_hold),
		cmocka_unit_test(test_kill_keeps_partial_output),
		cmocka_unit_test(test_small_and_wide),
		cmocka_unit_test(test_much_output_is_whole),
	};

	cmocka_set_test_filter(getenv("VM_TEST"));
	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
