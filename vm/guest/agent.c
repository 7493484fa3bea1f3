/* SPDX-License-Identifier: ISC */
/*
 * The agent's loop and what the host may ask for.  The host is trusted, so a frame that makes no
 * sense is a bug of ours: the VM ends, and the host sees it end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vm/guest/agent.h"

#define AGENT_HOST_WAIT_NS 2000000 /* 2 ms: the port tells nobody when the host connects */

int64_t
agent_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void
agent_send_failed(struct agent *a, const char *code, const char *text)
{
	wire_begin(&a->wire, OM_GUEST_FAILED, 3);
	om_mp_put_cstr(&a->wire.out, code);
	om_mp_put_cstr(&a->wire.out, text);
	wire_end(&a->wire);
	a->job.state = JOB_DONE;
}

static void
agent_send_hello(struct agent *a)
{
	const char *langs[OM_GUEST_LANGS_MAX];
	size_t count = guest_languages(langs, OM_COUNT(langs));
	struct utsname uts;
	uint64_t mem_kib =
	    (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 10;

	uname(&uts);
	wire_begin(&a->wire, OM_GUEST_HELLO, 6);
	om_mp_put_u64(&a->wire.out, OM_GUEST_VERSION);
	om_mp_put_u64(&a->wire.out, (uint64_t)agent_now_ms());
	om_mp_put_u64(&a->wire.out, mem_kib);
	om_mp_put_cstr(&a->wire.out, uts.release);
	om_mp_put_array(&a->wire.out, count);
	for (size_t i = 0; i < count; i++) {
		om_mp_put_cstr(&a->wire.out, langs[i]);
	}
	wire_end(&a->wire);
}

/* --- commands ----------------------------------------------------------------------------------- */

/* Clock and entropy: the host's are the only ones to be had. */
static bool
agent_on_setup(struct agent *a, struct om_mp *frame)
{
	/* struct rand_pool_info ends in a flexible array: header and bytes in one buffer. */
	int pool[2 + OM_GUEST_SEED_LEN / sizeof(int)] = { OM_GUEST_SEED_LEN * 8,
							  OM_GUEST_SEED_LEN };
	struct om_bin seed;
	struct timespec now;
	uint64_t version, wall_ns;
	int fd;

	if (a->was_setup || om_mp_u64(frame, &version) != OM_OK || version != OM_GUEST_VERSION ||
	    om_mp_u64(frame, &wall_ns) != OM_OK || om_mp_bin(frame, &seed) != OM_OK ||
	    seed.len != OM_GUEST_SEED_LEN) {
		return false;
	}
	a->was_setup = true;
	now.tv_sec = (time_t)(wall_ns / 1000000000);
	now.tv_nsec = (long)(wall_ns % 1000000000);
	(void)clock_settime(CLOCK_REALTIME, &now);
	memcpy(&pool[2], seed.ptr, seed.len);
	fd = open("/dev/random", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)ioctl(fd, RNDADDENTROPY, pool);
		close(fd);
	}
	return true;
}

/*
 * Runs each interpreter once: the page cache has its files, and on an emulated CPU the hypervisor
 * has its code translated.  Without it the first python of a VM takes 0.4 s, with it 0.1 s.
 */
static bool
agent_on_prime(struct agent *a)
{
	static char *const argv[] = { (char *)"/usr/bin/sh", (char *)"-c",
				      (char *)"exec python3 -c 'import os, json'", NULL };
	static char *const envp[] = { (char *)"PATH=/usr/bin", NULL };
	struct guest_spawn how = {
		.argv = argv, .envp = envp, .cgroup = GUEST_PRIME_CGROUP, .nofile_max = 64
	};
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	int error = 0;

	how.fds[0] = how.fds[1] = how.fds[2] = null_fd;
	a->prime_pid = guest_spawn(&how, &error);
	close(null_fd);
	if (a->prime_pid < 0) {
		a->prime_pid = 0;
		agent_send_failed(a, "guest", strerror(error));
	}
	return true;
}

static bool
agent_on_net(struct agent *a, struct om_mp *frame)
{
	const char *error = net_configure(frame);

	if (error != NULL) {
		agent_send_failed(a, "net", error);
		return true;
	}
	wire_begin(&a->wire, OM_GUEST_NET_UP, 1);
	wire_end(&a->wire);
	return true;
}

static bool
agent_dispatch(struct agent *a, struct om_mp *frame)
{
	size_t elements;
	uint64_t type;

	if (om_mp_array(frame, &elements) != OM_OK || om_mp_u64(frame, &type) != OM_OK) {
		return false;
	}
	if (a->job.state == JOB_DONE) {
		return true; /* failed or over: the rest of what the host had queued */
	}
	switch (type) {
	case OM_GUEST_SETUP:
		return agent_on_setup(a, frame);
	case OM_GUEST_PRIME:
		return agent_on_prime(a);
	case OM_GUEST_NET:
		return agent_on_net(a, frame);
	case OM_GUEST_PUT:
		return files_on_put(a, frame);
	case OM_GUEST_DATA:
		return files_on_data(a, frame);
	case OM_GUEST_START:
		job_on_start(a, frame);
		return true;
	case OM_GUEST_STDIN:
		return job_on_stdin(a, frame);
	case OM_GUEST_STOP:
		return job_on_stop(a, frame);
	default:
		return false;
	}
}

static void
agent_on_port(struct agent *a)
{
	struct om_mp frame;
	int more;

	if (!wire_fill(&a->wire)) {
		boot_die("the host has gone");
	}
	while ((more = wire_next(&a->wire, &frame)) > 0) {
		if (!agent_dispatch(a, &frame)) {
			boot_die("a frame that makes no sense");
		}
	}
	if (more < 0) {
		boot_die("a frame over its limit");
	}
}

/* --- children ----------------------------------------------------------------------------------- */

static void
agent_reap(struct agent *a)
{
	struct signalfd_siginfo info;
	struct rusage usage;
	int status;
	pid_t pid;

	while (read(a->signal_fd, &info, sizeof(info)) > 0) {
	}
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		if (pid != a->prime_pid) {
			job_on_child(a, pid, status, (uint64_t)usage.ru_maxrss);
			continue;
		}
		a->prime_pid = 0;
		if (a->job.state == JOB_NONE) {
			wire_begin(&a->wire, OM_GUEST_PRIMED, 1);
			wire_end(&a->wire);
		}
	}
}

/* --- loop --------------------------------------------------------------------------------------- */

enum { WATCH_PORT, WATCH_SIGNAL, WATCH_OUT, WATCH_ERR, WATCH_IN, WATCH_COUNT };

static int
agent_poll(struct agent *a, struct pollfd p[WATCH_COUNT])
{
	const struct job *j = &a->job;
	bool room = wire_has_room(&a->wire);
	int timeout_ms = -1;

	p[WATCH_PORT] = (struct pollfd){ .fd = a->wire.fd, .events = POLLIN };
	if (wire_pending(&a->wire)) {
		p[WATCH_PORT].events |= POLLOUT;
	}
	p[WATCH_SIGNAL] = (struct pollfd){ .fd = a->signal_fd, .events = POLLIN };
	/* A negative fd is skipped: no room, no reading, and the job's write blocks. */
	p[WATCH_OUT] = (struct pollfd){ .fd = room ? j->out_fd[0] : -1, .events = POLLIN };
	p[WATCH_ERR] = (struct pollfd){ .fd = room ? j->out_fd[1] : -1, .events = POLLIN };
	p[WATCH_IN] =
	    (struct pollfd){ .fd = j->stdin_buf.len > 0 ? j->in_fd : -1, .events = POLLOUT };
	if (j->kill_at_ms > 0) {
		int64_t left = j->kill_at_ms - agent_now_ms();

		timeout_ms = left > 0 ? (int)left : 0;
	}
	return poll(p, WATCH_COUNT, timeout_ms);
}

static void
agent_turn(struct agent *a)
{
	const struct timespec wait = { 0, AGENT_HOST_WAIT_NS };
	struct pollfd p[WATCH_COUNT];

	if (agent_poll(a, p) < 0 && errno != EINTR) {
		boot_die("poll");
	}
	if (p[WATCH_PORT].revents & POLLHUP) {
		if (a->wire.connected) {
			boot_die("the host has gone");
		}
		nanosleep(&wait, NULL);
	}
	if (p[WATCH_PORT].revents & POLLIN) {
		agent_on_port(a);
	}
	if (p[WATCH_OUT].revents != 0) {
		job_on_readable(a, 0);
	}
	if (p[WATCH_ERR].revents != 0) {
		job_on_readable(a, 1);
	}
	if (p[WATCH_IN].revents != 0) {
		job_on_writable(a);
	}
	if (p[WATCH_SIGNAL].revents != 0) {
		agent_reap(a);
	}
	if (a->job.kill_at_ms > 0 && agent_now_ms() >= a->job.kill_at_ms) {
		job_on_timer(a);
	}
	files_pump(a);
	if (!wire_flush(&a->wire)) {
		boot_die("the host has gone");
	}
}

int
main(void)
{
	static struct agent agent;
	sigset_t children;

	if (getpid() != 1) {
		fprintf(stderr, "omerta-agent is the init of a guest; it does nothing here\n");
		return 2;
	}
	wire_init(&agent.wire, boot_system());
	job_init(&agent.job);
	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &children, NULL);
	agent.signal_fd = signalfd(-1, &children, SFD_NONBLOCK | SFD_CLOEXEC);
	if (agent.signal_fd < 0) {
		boot_die("signalfd");
	}
	agent_send_hello(&agent);
	for (;;) {
		agent_turn(&agent);
	}
}
