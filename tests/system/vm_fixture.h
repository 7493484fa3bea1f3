/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_SYSTEM_VM_FIXTURE_H
#define OM_TESTS_SYSTEM_VM_FIXTURE_H

/*
 * A private libvirtd, the real driver, the real image, and a job run to its end by the plainest
 * means (blocking poll).  If the test is killed, private-libvirtd sees its parent end, kills every
 * VM and removes the directory.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/id.h"
#include "vm/driver.h"
#include "vm/guest_channel.h"
#include "vm/image.h"

#define FIXTURE_DEADLINE_MS 60000
#define FIXTURE_FILES_MAX   4

struct fixture {
	char dir[64];
	char uri[160];
	pid_t libvirtd;
	struct om_vm_driver driver;
	struct om_vm_image image;
	pthread_mutex_t lock;
	pthread_cond_t told; /* of an event */
	char ended[OM_VM_NAME_MAX + 1]; /* the last VM that an event told of */
	char reason[OM_VM_REASON_MAX];
	enum om_vm_event_kind kind;
	unsigned downs, ups;
};

/* What is done beside the job itself. */
struct plan {
	unsigned cores;
	uint64_t mem_mib, scratch_mib;
	bool prime;
	enum om_vm_machine machine;
	size_t stop_at; /* bytes of stdout that are waited for; 0: the first */
	int64_t stop_after_ms; /* after those; 0: never */
	uint32_t grace_ms;
	int64_t kill_after_ms; /* the same, with SIGKILL to qemu */
};

struct outcome {
	bool is_up, is_primed, has_exit, is_done, has_failed, is_broken, is_gone;
	struct om_guest_exit exit;
	struct om_buf out, err;
	struct {
		uint32_t mode;
		char error[OM_GUEST_TEXT_MAX + 1];
		struct om_buf data;
	} files[FIXTURE_FILES_MAX];
	enum om_err failed;
	char text[OM_GUEST_TEXT_MAX + 1];
	int64_t create_ms, hello_ms, primed_ms, started_ms, output_ms, done_ms, destroy_ms;
	uint64_t boot_ms;
};

static inline void
fixture_on_event(void *arg, const struct om_vm_event *ev)
{
	struct fixture *f = arg;

	pthread_mutex_lock(&f->lock);
	f->downs += ev->kind == OM_VM_EVENT_DRIVER_DOWN;
	f->ups += ev->kind == OM_VM_EVENT_DRIVER_UP;
	if (ev->name[0] != '\0') {
		snprintf(f->ended, sizeof(f->ended), "%s", ev->name);
		snprintf(f->reason, sizeof(f->reason), "%s", ev->reason);
		f->kind = ev->kind;
	}
	pthread_cond_broadcast(&f->told);
	pthread_mutex_unlock(&f->lock);
}

/* libvirt tells the end of a VM when it has seen it; a destroy before that is what it tells instead. */
static inline void
fixture_wait_ended(struct fixture *f, const char *name)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += FIXTURE_DEADLINE_MS / 1000;
	pthread_mutex_lock(&f->lock);
	while (rc == 0 && strcmp(f->ended, name) != 0) {
		rc = pthread_cond_timedwait(&f->told, &f->lock, &until);
	}
	pthread_mutex_unlock(&f->lock);
	assert_int_equal(rc, 0);
}

static inline const char *
fixture_env(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : otherwise;
}

static inline void
fixture_start_libvirtd(struct fixture *f)
{
	char program[256], line[200] = "";
	FILE *from;
	int fds[2];

	snprintf(program, sizeof(program), "%s/private-libvirtd",
		 fixture_env("BUILD", "build/gcc"));
	assert_int_equal(pipe(fds), 0);
	f->libvirtd = fork();
	if (f->libvirtd == 0) {
		dup2(fds[1], 1);
		close(fds[0]);
		close(fds[1]);
		execl(program, program, f->dir, "--remove", (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	from = fdopen(fds[0], "r");
	assert_non_null(fgets(line, sizeof(line), from));
	fclose(from);
	assert_int_equal(strncmp(line, "ready ", 6), 0);
	line[strcspn(line, "\n")] = '\0';
	snprintf(f->uri, sizeof(f->uri), "%.150s", line + 6);
}

static inline void
fixture_stop_libvirtd(struct fixture *f)
{
	if (f->libvirtd > 0) {
		kill(f->libvirtd, SIGTERM);
		waitpid(f->libvirtd, NULL, 0);
	}
	f->libvirtd = 0;
}

static inline int
fixture_setup(void **state)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;
	struct om_vm_config config = { .uri = f->uri, .on_event = fixture_on_event, .arg = f };
	struct om_why why = { "" };

	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->told, NULL);
	snprintf(f->dir, sizeof(f->dir), "/tmp/omerta-vm-test.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(chmod(f->dir, 0711), 0);
	fixture_start_libvirtd(f);
	if (om_vm_image_find(fixture_env("OMERTA_IMAGES", OM_VM_IMAGE_DIR), &f->image, &why) !=
		OM_OK ||
	    om_vm_libvirt_ops.open(&config, &f->driver.state, &why) != OM_OK) {
		fixture_stop_libvirtd(f);
		fail_msg("%s", why.text);
	}
	f->driver.ops = &om_vm_libvirt_ops;
	*state = f;
	return 0;
}

static inline int
fixture_teardown(void **state)
{
	struct fixture *f = *state;

	f->driver.ops->close(f->driver.state);
	fixture_stop_libvirtd(f);
	assert_int_equal(access(f->dir, F_OK), -1);
	return 0;
}

struct spec_text {
	char name[OM_VM_NAME_MAX + 1], channel[OM_VM_PATH_MAX], scratch[OM_VM_PATH_MAX];
};

static inline struct om_vm_spec
fixture_spec(struct fixture *f, struct spec_text *t, const struct plan *plan)
{
	snprintf(t->name, sizeof(t->name), OM_VM_PREFIX "%s", om_job_id_new().text);
	snprintf(t->channel, sizeof(t->channel), "%s/%s.sock", f->dir, t->name);
	snprintf(t->scratch, sizeof(t->scratch), "%s/%s.img", f->dir, t->name);
	return (struct om_vm_spec){
		.name = t->name,
		.cores = plan->cores != 0 ? plan->cores : 1,
		.mem_mib = plan->mem_mib != 0 ? plan->mem_mib : 256,
		.kernel = f->image.kernel,
		.initrd = f->image.initrd,
		.root = f->image.root,
		.scratch_path = t->scratch,
		.scratch_mib = plan->scratch_mib != 0 ? plan->scratch_mib : 64,
		.channel_path = t->channel,
		.machine = plan->machine,
	};
}

static inline int
fixture_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.107s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static inline int64_t
since(struct om_mono start)
{
	return om_mono_ms_between(start, om_mono_now());
}

static inline void
fixture_take(struct om_guest_channel *ch, const struct om_guest_event *ev, struct outcome *o,
	     struct om_mono *started)
{
	switch (ev->kind) {
	case OM_GUEST_EV_HELLO:
		o->is_up = true;
		o->boot_ms = ev->hello.boot_ms;
		break;
	case OM_GUEST_EV_PRIMED:
		o->is_primed = true;
		break;
	case OM_GUEST_EV_STARTED:
		*started = om_mono_now();
		break;
	case OM_GUEST_EV_OUTPUT:
		om_buf_add(ev->output.stream == 1 ? &o->out : &o->err, ev->output.data.ptr,
			   ev->output.data.len);
		break;
	case OM_GUEST_EV_EXITED:
		o->has_exit = true;
		o->exit = ev->exit;
		break;
	case OM_GUEST_EV_FILE:
		assert_true(ev->file.index < FIXTURE_FILES_MAX);
		o->files[ev->file.index].mode = ev->file.mode;
		snprintf(o->files[ev->file.index].error, OM_GUEST_TEXT_MAX, "%.*s",
			 OM_STR_ARG(ev->file.error));
		om_buf_add(&o->files[ev->file.index].data, ev->file.data.ptr, ev->file.data.len);
		break;
	case OM_GUEST_EV_DONE:
		o->is_done = true;
		break;
	case OM_GUEST_EV_FAILED:
	case OM_GUEST_EV_BROKEN:
		o->has_failed = ev->kind == OM_GUEST_EV_FAILED;
		o->is_broken = ev->kind == OM_GUEST_EV_BROKEN;
		o->failed = ev->failed.err;
		snprintf(o->text, sizeof(o->text), "%.*s", OM_STR_ARG(ev->failed.text));
		break;
	case OM_GUEST_EV_NET_UP:
		break;
	}
	(void)ch;
}

static inline bool
fixture_over(const struct outcome *o)
{
	return o->is_done || o->has_failed || o->is_broken || o->is_gone;
}

static inline void
fixture_write(struct om_guest_channel *ch, int fd)
{
	struct om_bin out;

	while (om_guest_channel_output(ch, &out)) {
		ssize_t n = write(fd, out.ptr, out.len);

		if (n <= 0) {
			break;
		}
		om_guest_channel_sent(ch, (size_t)n);
	}
}

/* One turn: waits for the guest at most ms, takes what it says. */
static inline void
fixture_turn(struct om_guest_channel *ch, int fd, int ms, struct outcome *o,
	     struct om_mono *started)
{
	static uint8_t bytes[65536];
	struct om_guest_event ev;
	struct om_bin out;
	struct pollfd p = { fd, POLLIN, 0 };
	ssize_t n;

	fixture_write(ch, fd);
	if (om_guest_channel_output(ch, &out)) {
		p.events |= POLLOUT;
	}
	if (poll(&p, 1, ms) <= 0 || (p.revents & (POLLIN | POLLHUP)) == 0) {
		return;
	}
	n = read(fd, bytes, sizeof(bytes));
	if (n == 0 || (n < 0 && errno != EAGAIN)) {
		o->is_gone = true;
		return;
	}
	if (n > 0) {
		assert_int_equal(om_guest_channel_feed(ch, bytes, (size_t)n), OM_OK);
	}
	while (om_guest_channel_next(ch, &ev)) {
		fixture_take(ch, &ev, o, started);
	}
}

static inline void
fixture_fini(struct outcome *o)
{
	om_buf_fini(&o->out);
	om_buf_fini(&o->err);
	for (size_t i = 0; i < FIXTURE_FILES_MAX; i++) {
		om_buf_fini(&o->files[i].data);
	}
}

/* Boots, runs the job, destroys, and checks that nothing is left. */
static inline void
fixture_run(struct fixture *f, const struct plan *plan, const struct om_guest_job *job,
	    struct outcome *o)
{
	struct om_guest_channel *ch = om_guest_channel_new();
	struct om_mono start = om_mono_now(), ready, started = { 0 }, printed = { 0 }, end;
	struct om_vm_handle vm;
	struct spec_text text;
	struct om_vm_spec spec = fixture_spec(f, &text, plan);
	struct om_why why = { "" };
	bool has_stopped = false;
	int fd;

	memset(o, 0, sizeof(*o));
	if (f->driver.ops->create(f->driver.state, &spec, &vm, &why) != OM_OK) {
		fail_msg("%s", why.text);
	}
	o->create_ms = since(start);
	fd = fixture_connect(text.channel);
	while (!o->is_up && !fixture_over(o) && since(start) < FIXTURE_DEADLINE_MS) {
		fixture_turn(ch, fd, 1000, o, &started);
	}
	assert_true(o->is_up);
	o->hello_ms = since(start);
	if (plan->prime) {
		assert_int_equal(om_guest_channel_prime(ch), OM_OK);
		while (!o->is_primed && !fixture_over(o)) {
			fixture_turn(ch, fd, 1000, o, &started);
		}
		o->primed_ms = since(start);
	}
	ready = om_mono_now();
	assert_int_equal(om_guest_channel_start(ch, job, &why), OM_OK);
	while (!fixture_over(o) && since(ready) < FIXTURE_DEADLINE_MS) {
		fixture_turn(ch, fd, 20, o, &started);
		if (started.ns != 0 && o->started_ms == 0) {
			o->started_ms = since(ready);
		}
		if (o->out.len > 0 && o->output_ms == 0) {
			o->output_ms = since(ready);
		}
		if (o->out.len > 0 && o->out.len >= plan->stop_at && printed.ns == 0) {
			printed = om_mono_now();
		}
		if (printed.ns != 0 && plan->stop_after_ms > 0 && !has_stopped &&
		    since(printed) >= plan->stop_after_ms) {
			has_stopped = true;
			assert_int_equal(om_guest_channel_stop(ch, plan->grace_ms), OM_OK);
		}
		if (printed.ns != 0 && plan->kill_after_ms > 0 && !has_stopped &&
		    since(printed) >= plan->kill_after_ms) {
			has_stopped = true;
			assert_int_equal(f->driver.ops->kill(f->driver.state, &vm), OM_OK);
		}
	}
	o->done_ms = since(ready);
	close(fd);
	if (plan->kill_after_ms > 0) {
		fixture_wait_ended(f, text.name);
	}
	end = om_mono_now();
	assert_int_equal(f->driver.ops->destroy(f->driver.state, text.name, &why), OM_OK);
	o->destroy_ms = since(end);
	om_vm_handle_fini(&vm);
	(void)unlink(text.channel);
	assert_int_equal(unlink(text.scratch), 0);
	om_guest_channel_free(ch);
}

#endif /* OM_TESTS_SYSTEM_VM_FIXTURE_H */
