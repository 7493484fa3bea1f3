/* SPDX-License-Identifier: ISC */
/* The libvirt driver against a real libvirtd: life of a VM, network card, crashes of either side. */
#include <fcntl.h>

#include "tests/system/vm_fixture.h"
#include "vm/kvm_probe.h"

#define WAIT_STEPS   2000
#define WAIT_STEP_US 10000

static void
must(const char *command)
{
	if (system(command) != 0) {
		fail_msg("%s", command);
	}
}

/* Waits for something that another process does; there is nothing to be told by. */
static bool
wait_until(bool (*done)(struct fixture *f, const char *arg), struct fixture *f, const char *arg)
{
	for (int i = 0; i < WAIT_STEPS; i++) {
		if (done(f, arg)) {
			return true;
		}
		usleep(WAIT_STEP_US);
	}
	return false;
}

static bool
is_listed(struct fixture *f, const char *name)
{
	char **names = NULL;
	size_t count = 0;
	bool found = false;

	assert_int_equal(f->driver.ops->list(f->driver.state, &names, &count, NULL), OM_OK);
	for (size_t i = 0; i < count; i++) {
		found = found || strcmp(names[i], name) == 0;
	}
	om_vm_names_free(names, count);
	return found;
}

static bool
is_not_listed(struct fixture *f, const char *name)
{
	return !is_listed(f, name);
}

static bool
has_ended(struct fixture *f, const char *name)
{
	bool ended;

	pthread_mutex_lock(&f->lock);
	ended = strcmp(f->ended, name) == 0;
	pthread_mutex_unlock(&f->lock);
	return ended;
}

static bool
is_up_again(struct fixture *f, const char *arg)
{
	bool up;

	(void)arg;
	pthread_mutex_lock(&f->lock);
	up = f->downs == 1 && f->ups == 1;
	pthread_mutex_unlock(&f->lock);
	return up;
}

static void
test_life(void **state)
{
	struct fixture *f = *state;
	const struct om_vm_driver_ops *ops = f->driver.ops;
	void *s = f->driver.state;
	struct plan plan = { 0 };
	struct spec_text text;
	struct om_vm_spec spec = fixture_spec(f, &text, &plan);
	struct om_vm_handle vm, twin;
	struct om_vm_stats stats;
	char log[OM_VM_PATH_MAX];
	struct stat st;

	assert_int_equal(ops->create(s, &spec, &vm, NULL), OM_OK);
	assert_true(vm.pid > 1 && vm.pidfd >= 0);
	assert_true(is_listed(f, text.name));
	/* The quota is the size, and it is there for this VM alone. */
	assert_int_equal(stat(text.scratch, &st), 0);
	assert_int_equal(st.st_size, 64 << 20);
	assert_true(st.st_blocks * 512 >= 64 << 20);
	(void)snprintf(log, sizeof(log), "%s/log/qemu/%s.log", f->dir, text.name);
	assert_int_equal(access(log, F_OK), 0);
	assert_int_equal(ops->create(s, &spec, &twin, NULL), OM_ERR_EXISTS);
	spec.scratch_path = "/tmp/omerta-twin.img";
	assert_int_equal(ops->create(s, &spec, &twin, NULL), OM_ERR_EXISTS);
	assert_int_equal(access("/tmp/omerta-twin.img", F_OK), -1);
	assert_int_equal(ops->stats(s, text.name, &stats, NULL), OM_OK);
	assert_true(stats.cpu_ns > 0 && stats.rss_kib > 10000);
	assert_int_equal(ops->suspend(s, text.name, NULL), OM_OK);
	assert_int_equal(ops->resume(s, text.name, NULL), OM_OK);
	assert_int_equal(ops->destroy(s, text.name, NULL), OM_OK);
	assert_true(wait_until(has_ended, f, text.name));
	assert_int_equal(ops->destroy(s, text.name, NULL), OM_OK);
	assert_false(is_listed(f, text.name));
	assert_int_equal(access(log, F_OK), -1); /* libvirt keeps one of every name for ever */
	assert_int_equal(ops->kill(s, &vm), OM_ERR_NOT_FOUND);
	assert_int_equal(ops->stats(s, text.name, &stats, NULL), OM_ERR_NOT_FOUND);
	assert_int_equal(ops->resume(s, text.name, NULL), OM_ERR_NOT_FOUND);
	om_vm_handle_fini(&vm);
	(void)unlink(text.scratch);
}

/* An image that is not there is libvirt's text, and nothing is left. */
static void
test_failed_create_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct plan plan = { 0 };
	struct spec_text text;
	struct om_vm_spec spec = fixture_spec(f, &text, &plan);
	struct om_vm_handle vm;
	struct om_why why = { "" };

	spec.kernel = "/nonexistent/vmlinux";
	assert_int_equal(f->driver.ops->create(f->driver.state, &spec, &vm, &why), OM_ERR_VM);
	assert_true(strlen(why.text) > 10);
	assert_int_equal(access(text.scratch, F_OK), -1);
	assert_false(is_listed(f, text.name));
}

/* Paused, its tap moved into a namespace, resumed: what a job with a tunnel does. */
static void
test_card_in_a_namespace(void **state)
{
	static const char script[] = "import socket, fcntl, struct\n"
				     "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
				     "q = struct.pack('16s16x', b'eth0')\n"
				     "print(socket.inet_ntoa(fcntl.ioctl(s, 0x8915, q)[20:24]),\n"
				     "    open('/sys/class/net/eth0/mtu').read().strip(),\n"
				     "    open('/sys/class/net/eth0/address').read().strip(),\n"
				     "    open('/etc/resolv.conf').read().strip())\n"
				     "s.settimeout(20)\n"
				     "s.sendto(b'ping', ('10.200.1.1', 7777))\n"
				     "print(s.recv(100).decode())\n";
	const struct om_guest_net net = { "10.200.1.2/30", "10.200.1.1", 1420, { "10.99.0.1" } };
	const struct om_guest_job job = { .interpreter = OM_STR("python"),
					  .script = { (const uint8_t *)script,
						      sizeof(script) - 1 } };
	const struct om_vm_nic nic = { "omvmtest0", "52:54:00:0a:0b:0c", 1420 };
	struct fixture *f = *state;
	const struct om_vm_driver_ops *ops = f->driver.ops;
	struct om_guest_channel *ch = om_guest_channel_new();
	struct plan plan = { 0 };
	struct spec_text text;
	struct om_vm_spec spec = fixture_spec(f, &text, &plan);
	struct om_mono started = { 0 }, start = om_mono_now();
	struct outcome o = { 0 };
	struct om_vm_handle vm;
	struct om_why why = { "" };
	int fd;

	spec.nic = &nic;
	spec.start_paused = true;
	(void)!system("ip netns del omvmtest 2>/dev/null; ip link del omvmtest0 2>/dev/null");
	must("ip netns add omvmtest");
	must("ip tuntap add dev omvmtest0 mode tap user libvirt-qemu vnet_hdr");
	if (ops->create(f->driver.state, &spec, &vm, &why) != OM_OK) {
		fail_msg("%s", why.text);
	}
	must("ip link set omvmtest0 netns omvmtest");
	must("ip -n omvmtest addr add 10.200.1.1/30 dev omvmtest0");
	must("ip -n omvmtest link set omvmtest0 up");
	must("ip netns exec omvmtest /usr/bin/python3 -c \"import socket\n"
	     "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
	     "s.bind(('10.200.1.1', 7777)); s.settimeout(60)\n"
	     "d, a = s.recvfrom(100); s.sendto(b'pong to ' + a[0].encode(), a)\" &");
	assert_int_equal(ops->resume(f->driver.state, text.name, NULL), OM_OK);
	fd = fixture_connect(text.channel);
	while (!o.is_up && since(start) < FIXTURE_DEADLINE_MS) {
		fixture_turn(ch, fd, 1000, &o, &started);
	}
	assert_true(o.is_up);
	assert_int_equal(om_guest_channel_net(ch, &net, NULL), OM_OK);
	assert_int_equal(om_guest_channel_start(ch, &job, NULL), OM_OK);
	while (!fixture_over(&o) && since(start) < FIXTURE_DEADLINE_MS) {
		fixture_turn(ch, fd, 1000, &o, &started);
	}
	assert_true(o.is_done);
	printf("%.*s", (int)o.out.len, (const char *)o.out.data);
	om_buf_add(&o.out, "", 1);
	assert_string_equal(
	    (const char *)o.out.data,
	    "10.200.1.2 1420 52:54:00:0a:0b:0c nameserver 10.99.0.1\npong to 10.200.1.2\n");
	close(fd);
	assert_int_equal(ops->destroy(f->driver.state, text.name, NULL), OM_OK);
	must("ip netns del omvmtest");
	om_vm_handle_fini(&vm);
	om_guest_channel_free(ch);
	fixture_fini(&o);
	(void)unlink(text.scratch);
}

/* kill -9 of the process that made the VM: libvirtd destroys it. */
static void
test_autodestroy(void **state)
{
	struct fixture *f = *state;
	struct plan plan = { 0 };
	struct spec_text text;
	struct om_vm_spec spec = fixture_spec(f, &text, &plan);
	char ready;
	int fds[2], status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		/* Only exec'ed libvirt state would be clean; a fresh program of our own is. */
		char fd_text[16];

		snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
		setenv("VM_DRIVER_TEST_CHILD", f->uri, 1);
		setenv("VM_DRIVER_TEST_NAME", text.name, 1);
		setenv("VM_DRIVER_TEST_DIR", f->dir, 1);
		execl("/proc/self/exe", "vm_driver_test", fd_text, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &ready, 1), 1);
	close(fds[0]);
	assert_true(is_listed(f, text.name));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_true(wait_until(is_not_listed, f, text.name));
	(void)unlink(spec.scratch_path);
}

/* The child of test_autodestroy. */
static int
child_main(int ready_fd)
{
	struct om_vm_config config = { .uri = getenv("VM_DRIVER_TEST_CHILD") };
	const char *name = getenv("VM_DRIVER_TEST_NAME"), *dir = getenv("VM_DRIVER_TEST_DIR");
	char channel[OM_VM_PATH_MAX], scratch[OM_VM_PATH_MAX];
	struct om_vm_image image;
	struct om_vm_handle vm;
	struct om_vm_spec spec = { .name = name,
				   .cores = 1,
				   .mem_mib = 256,
				   .scratch_mib = 64,
				   .channel_path = channel,
				   .scratch_path = scratch };
	void *s = NULL;

	snprintf(channel, sizeof(channel), "%s/%s.sock", dir, name);
	snprintf(scratch, sizeof(scratch), "%s/%s.img", dir, name);
	if (om_vm_image_find(fixture_env("OMERTA_IMAGES", OM_VM_IMAGE_DIR), &image, NULL) !=
		OM_OK ||
	    om_vm_libvirt_ops.open(&config, &s, NULL) != OM_OK) {
		return 1;
	}
	spec.kernel = image.kernel;
	spec.initrd = image.initrd;
	spec.root = image.root;
	if (om_vm_libvirt_ops.create(s, &spec, &vm, NULL) != OM_OK ||
	    write(ready_fd, "r", 1) != 1) {
		return 1;
	}
	pause();
	return 1;
}

/* The answer may be yes or no; it comes in time, is remembered, and leaves nothing. */
static void
test_kvm_probe(void **state)
{
	struct fixture *f = *state;
	struct om_vm_kvm_answer first, second;
	struct om_mono start = om_mono_now();
	char cache[128], work[128];
	struct om_why why = { "" };

	snprintf(cache, sizeof(cache), "%s/kvm-answer", f->dir);
	snprintf(work, sizeof(work), "%s/probe", f->dir);
	assert_int_equal(om_vm_kvm_probe(&f->driver, &f->image, work, cache, &first, &why), OM_OK);
	printf("kvm %s: %s (%lld ms)\n", first.works ? "works" : "does not work", first.text,
	       (long long)since(start));
	assert_true(since(start) < 30000);
	assert_true(first.text[0] != '\0');
	assert_int_equal(om_vm_kvm_probe(&f->driver, &f->image, work, cache, &second, &why), OM_OK);
	assert_int_equal(second.works, first.works);
	assert_true(second.remembered || access(cache, F_OK) < 0);
	assert_true(access(work, F_OK) < 0 || rmdir(work) == 0); /* empty */
}

/* libvirtd dies with all of its VMs: told as lost, and the driver goes on with the new one. */
static void
test_libvirtd_restart(void **state)
{
	struct fixture *f = *state;
	struct plan plan = { 0 };
	struct spec_text text;
	struct om_vm_spec spec = fixture_spec(f, &text, &plan);
	struct om_vm_handle vm;

	assert_int_equal(f->driver.ops->create(f->driver.state, &spec, &vm, NULL), OM_OK);
	om_vm_handle_fini(&vm);
	fixture_stop_libvirtd(f);
	assert_int_equal(mkdir(f->dir, 0711), 0);
	fixture_start_libvirtd(f);
	assert_true(wait_until(is_up_again, f, NULL));
	assert_true(wait_until(has_ended, f, text.name));
	text.scratch[0] = '\0';
	spec = fixture_spec(f, &text, &plan);
	assert_int_equal(f->driver.ops->create(f->driver.state, &spec, &vm, NULL), OM_OK);
	assert_int_equal(f->driver.ops->destroy(f->driver.state, text.name, NULL), OM_OK);
	/* Events are registered again. */
	assert_true(wait_until(has_ended, f, text.name));
	om_vm_handle_fini(&vm);
	(void)unlink(text.scratch);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_failed_create_leaves_nothing),
		cmocka_unit_test(test_card_in_a_namespace),
		cmocka_unit_test(test_autodestroy),
		cmocka_unit_test(test_kvm_probe),
		cmocka_unit_test(test_libvirtd_restart),
	};

	if (argc == 2 && getenv("VM_DRIVER_TEST_CHILD") != NULL) {
		return child_main(atoi(argv[1]));
	}
	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
