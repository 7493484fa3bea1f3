/* SPDX-License-Identifier: ISC */
/*
 * The main thread: brings everything up, waits, takes everything down in reverse.
 *
 * 1. Signals are blocked before the first thread starts.  If broken: one of them kills the daemon.
 * 2. What was opened is closed in reverse, on every way out.  If broken: a domain or a libvirtd
 *    outlives us.
 * 3. The main thread sleeps until an actor tells it something: an idle daemon makes no wake-ups,
 *    unless systemd asks for a pulse.
 */
#include "daemon/daemon_impl.h"

#include <errno.h>
#include <poll.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/assert.h"
#include "base/log.h"
#include "daemon/notify.h"
#include "runtime/stats.h"

/*
 * A job's way leads through threads that are no workers (the ledger's, ZeroMQ's, the I/O thread) and
 * then through the disk: a worker that spins takes the core from the very thread it waits for.
 */
#define SPIN_US 1

/*
 * For the actors.  Jobs have ended by now (actors/provider.h, daemon.stop) unless we stop at once: those
 * are only killed, and the next start calls them lost and removes what they left.
 */
#define STOP_MS      30000
#define STOP_NOW_MS  10000
#define LEFT_TEXT    512
#define CRASH_STACK  65536
#define FILES_WANTED 65536
#define LARGE_BYTES  (128 * 1024) /* an allocation from here on is a mapping of its own */
#define KEEP_BYTES   (4 * 1024 * 1024) /* free heap kept for the next */

/* --- what actors tell ------------------------------------------------------------------------- */

static void
mail_post(struct daemon *d, unsigned bits, const char *text)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&d->mail.lock);
	d->mail.bits |= bits;
	if (text != NULL && text[0] != '\0') {
		snprintf(d->mail.text, sizeof(d->mail.text), "%s", text);
	}
	pthread_mutex_unlock(&d->mail.lock);
	(void)!write(d->mail.fd, &one, sizeof(one));
}

static unsigned
mail_take(struct daemon *d, char text[OM_WHY_MAX])
{
	uint64_t count;
	unsigned bits;

	(void)!read(d->mail.fd, &count, sizeof(count));
	pthread_mutex_lock(&d->mail.lock);
	bits = d->mail.bits;
	d->mail.bits = 0;
	memcpy(text, d->mail.text, OM_WHY_MAX);
	pthread_mutex_unlock(&d->mail.lock);
	return bits;
}

static void
on_control(void *arg, enum om_control_event event, const char *text)
{
	static const unsigned bits[] = {
		[OM_CONTROL_READY] = DAEMON_READY,
		[OM_CONTROL_DRAINING] = DAEMON_DRAINING,
		[OM_CONTROL_DRAINED] = DAEMON_DRAINED,
		[OM_CONTROL_FAILED] = DAEMON_FAILED,
	};

	mail_post(arg, bits[event], text);
}

static void
on_signals(void *arg, enum om_signals_event event)
{
	if (event == OM_SIGNALS_STOP_NOW) {
		mail_post(arg, DAEMON_STOP_NOW, NULL);
	} else {
		mail_post(arg, DAEMON_FAILED, "a service failed too often");
	}
}

/* --- crashes ---------------------------------------------------------------------------------- */

/* A crash report cannot be given an argument. */
static struct om_system *crash_system;

static void
crash_dump(int fd)
{
	if (crash_system != NULL) {
		om_trace_dump(crash_system, fd);
	}
}

static void
crash_signal(int signo)
{
	om_crash_report(signo == SIGSEGV ? "SIGSEGV" : signo == SIGBUS ? "SIGBUS" : "a signal");
	raise(signo); /* SA_RESETHAND: this time it ends the process */
}

static void
crash_arm(struct om_system *sys)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	static char stack[CRASH_STACK]; /* of the main thread; others report on their own */
	const stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction sa = { .sa_handler = crash_signal,
				.sa_flags = (int)(SA_RESETHAND | SA_NODEFER | SA_ONSTACK) };

	crash_system = sys;
	(void)om_crash_hook(crash_dump);
	(void)sigaltstack(&ss, NULL);
	for (size_t i = 0; i < OM_COUNT(signals); i++) {
		(void)sigaction(signals[i], &sa, NULL);
	}
}

/* --- up --------------------------------------------------------------------------------------- */

/* A connection is a file: the default of 1024 is soon reached. */
static void
raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FILES_WANTED) {
		limit.rlim_cur = limit.rlim_max < FILES_WANTED ? limit.rlim_max : FILES_WANTED;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/*
 * Bodies and output of jobs are large and live for milliseconds.  By default glibc raises its threshold
 * up to 32 MiB with the first of them, and what a burst took then stays in the heap for good.  (jemalloc,
 * where it is linked, gives pages back by itself.)
 */
static void
return_large_memory(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
	(void)mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
}

static void
print_banner(const struct daemon *d)
{
	struct om_buf out = { 0 };

	om_buf_printf(&out, "omertad %s  control ipc://%s", OM_VERSION,
		      om_config_control_socket(d->config));
	if (d->wants_tcp) {
		om_buf_printf(&out, ", tcp://%s:%llu (%s)", d->s->control_address,
			      (unsigned long long)d->s->control_port,
			      d->s->control_tcp_insecure_loopback ? "no CURVE" : "CURVE");
	}
	om_buf_add_str(&out, "\n");
	om_doctor_print(d->checks, d->check_count, false, &out);
	fwrite(out.data, 1, out.len, stdout);
	fflush(stdout);
	om_buf_fini(&out);
}

static enum om_err
start_actors(struct daemon *d, struct om_why *why)
{
	struct om_services_in in = {
		.config = d->config,
		.driver = d->driver.state != NULL ? &d->driver : NULL,
		.image = &d->image,
		.use_kvm = d->kvm.works,
		.net = d->has_net ? &d->net : NULL,
		.jobs_dir = d->jobs_dir,
		.seal_key = d->seal_key,
		.control = &d->control,
	};
	enum om_err err = om_bus_new(d->sys, &d->bus, why);

	if (err != OM_OK) {
		return err;
	}
	d->control.config = d->config;
	d->control.live = &d->control_live;
	d->control.sources = d->sources;
	d->control.on_event = on_control;
	d->control.arg = d;
	d->control.accelerator = d->driver.state == NULL ? "none" : d->kvm.works ? "kvm" : "tcg";
	d->control.wireguard = d->has_net ? om_wg_backend_name(d->net.backend) : "none";
	in.bus = d->bus;
	err = om_services_new(&in, &d->services);
	if (err == OM_OK) {
		err = om_supervisor_start(d->sys, om_services_spec(d->services), &d->supervisor);
	}
	if (err != OM_OK) {
		return om_why_set(why, err, "the services did not start: %s", om_err_text(err));
	}
	d->signals.supervisor = d->supervisor;
	d->signals.on_event = on_signals;
	d->signals.arg = d;
	err = om_system_spawn(d->sys, &om_signals_def, &d->signals, &d->watch);
	return err == OM_OK ? OM_OK : om_why_set(why, err, "signals: %s", om_err_text(err));
}

static enum om_err
bring_up(struct daemon *d, struct om_why *why)
{
	const struct om_system_conf conf = {
		.workers = (unsigned)d->s->daemon_workers,
		.offload_threads = (unsigned)d->s->daemon_offload_threads,
		.spin_us = SPIN_US,
	};
	enum om_err err = daemon_doctor(d, why);

	if (err == OM_OK) {
		err = daemon_lock(d, why);
	}
	if (err != OM_OK) {
		print_banner(d);
		return err;
	}
	raise_files();
	return_large_memory();
	d->mail.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->signals.fd = om_signals_block();
	if (d->mail.fd < 0 || d->signals.fd < 0) {
		return om_why_errno(why, OM_ERR_LIMIT, "eventfd, signalfd");
	}
	err = om_system_new(&conf, &d->sys);
	if (err != OM_OK) {
		return om_why_set(why, err, "%s", om_err_text(err));
	}
	crash_arm(d->sys);
	err = daemon_open_machine(d, why);
	print_banner(d);
	return err == OM_OK ? start_actors(d, why) : err;
}

/* --- running ---------------------------------------------------------------------------------- */

/* systemd kills us when the scheduler does not answer, not when the main thread does not. */
static void
pulse(struct daemon *d, uint64_t timeout_ms)
{
	struct om_msg *msg = om_system_msg_new(d->sys, OM_SIGNALS_PULSE, 0), *reply = NULL;

	if (msg != NULL && om_system_ask(d->sys, d->watch, &msg, timeout_ms, &reply) == OM_OK) {
		om_notify("WATCHDOG=1");
	} else {
		om_error("daemon.pulse", "the actors do not answer");
	}
	om_msg_free(NULL, msg);
	om_msg_free(NULL, reply);
}

static void
on_ready(const struct daemon *d)
{
	printf("ready: %llu job%s at a time, %llu core%s and %llu GiB to lend\n",
	       (unsigned long long)d->s->jobs_max_jobs, d->s->jobs_max_jobs == 1 ? "" : "s",
	       (unsigned long long)om_services_cores(d->services),
	       om_services_cores(d->services) == 1 ? "" : "s",
	       (unsigned long long)om_services_mem_mib(d->services) / 1024);
	fflush(stdout);
	om_info("daemon.ready", "omertad %s, pid %ld", OM_VERSION, (long)getpid());
	om_notify("READY=1\nSTATUS=ready\nMAINPID=%ld", (long)getpid());
}

/* Until the end.  Gives whether it is an orderly one, and how long the actors may take. */
static bool
run(struct daemon *d, uint64_t *stop_ms)
{
	uint64_t watchdog_ms = om_notify_watchdog_ms();
	char text[OM_WHY_MAX];

	*stop_ms = STOP_MS;
	for (;;) {
		struct pollfd p = { d->mail.fd, POLLIN, 0 };
		int n = poll(&p, 1, watchdog_ms > 0 ? (int)(watchdog_ms / 2) : -1);
		unsigned bits;

		if (n == 0) {
			pulse(d, watchdog_ms / 2);
			continue;
		}
		bits = n > 0 ? mail_take(d, text) : 0;
		if ((bits & DAEMON_READY) != 0) {
			on_ready(d);
		}
		if ((bits & DAEMON_DRAINING) != 0) {
			om_notify("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=%llu",
				  (strtoull(text, NULL, 10) + STOP_MS) * 1000);
		}
		if ((bits & DAEMON_FAILED) != 0) {
			fprintf(stderr, "omertad: %s\n", text);
			return false;
		}
		if ((bits & DAEMON_STOP_NOW) != 0) {
			*stop_ms = STOP_NOW_MS;
			return true;
		}
		if ((bits & DAEMON_DRAINED) != 0) {
			return true;
		}
	}
}

static void
take_down(struct daemon *d, uint64_t stop_ms)
{
	char left[LEFT_TEXT] = "";
	size_t n;

	om_notify("STOPPING=1");
	if (d->sys != NULL) {
		n = om_system_stop(d->sys, stop_ms, left, sizeof(left));
		if (n > 0) {
			om_error("daemon.left", "%zu actors did not end in time: %s", n, left);
		}
	}
	om_bus_free(d->bus);
	om_services_free(d->services);
	om_config_free(d->control_live.config);
	daemon_close_machine(d);
	crash_system = NULL;
	om_system_free(d->sys);
	if (d->mail.fd >= 0) {
		close(d->mail.fd);
	}
	if (d->signals.fd >= 0) {
		close(d->signals.fd);
	}
	daemon_unlock(d);
}

int
om_daemon_run(const struct om_config *config, const struct om_conf_sources *sources)
{
	struct daemon *d = calloc(1, sizeof(*d));
	uint64_t stop_ms = STOP_NOW_MS;
	struct om_why why = { "" };
	bool ok = false;

	if (d == NULL) {
		fprintf(stderr, "omertad: out of memory\n");
		return 1;
	}
	d->config = config;
	d->sources = sources;
	d->s = om_config_settings(config);
	d->state_lock = d->run_lock = d->jobs_lock = d->mail.fd = d->signals.fd =
	    d->libvirtd.pidfd = -1;
	pthread_mutex_init(&d->mail.lock, NULL);
	if (bring_up(d, &why) == OM_OK) {
		ok = run(d, &stop_ms);
	} else {
		fprintf(stderr, "omertad: %s\n", why.text);
	}
	take_down(d, stop_ms);
	if (ok) {
		om_info("daemon.stopped", "in order");
	}
	pthread_mutex_destroy(&d->mail.lock);
	free(d);
	return ok ? 0 : 1;
}
