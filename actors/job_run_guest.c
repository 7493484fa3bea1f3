/* SPDX-License-Identifier: ISC */
/*
 * A job_run and its guest: the channel's socket, the events from it, the output on its way to the
 * ledger.  Back-pressure goes all the way: when the ledger is behind, the socket is not read, the
 * agent's port fills, and the job's write blocks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "actors/job_run_impl.h"
#include "base/assert.h"
#include "base/log.h"

#define READ_CHUNK  65536
#define READS_A_RUN 16 /* then other actors have their turn */

static void channel_write(struct om_ctx *cx, struct run *run);

static void
timer_restart(struct om_ctx *cx, uint64_t *timer, uint64_t ms, enum run_timer which)
{
	om_timer_cancel(cx, *timer);
	*timer = 0;
	if (om_timer_start(cx, ms, 0, which, timer) != OM_OK) {
		om_fail(cx, OM_ERR_NOMEM); /* a job without its limits must not go on */
	}
}

static void
timer_off(struct om_ctx *cx, uint64_t *timer)
{
	om_timer_cancel(cx, *timer);
	*timer = 0;
}

/* --- boot ------------------------------------------------------------------------------------ */

static enum om_err
channel_connect(struct run *run, struct om_why *why)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/agent.sock", run->dir) >=
	    sizeof(addr.sun_path)) {
		return om_why_set(why, OM_ERR_TOO_BIG, "%s: path too long for a socket", run->dir);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_IO, "socket");
	}
	/* The hypervisor listens before create() returns: this never waits. */
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
		enum om_err err = om_why_errno(why, OM_ERR_GUEST, "connect %s", addr.sun_path);

		(void)close(fd);
		return err;
	}
	run->channel_fd = fd;
	return OM_OK;
}

void
enter_boot(struct om_ctx *cx, struct run *run)
{
	struct om_why why = { "" };
	enum om_err err;

	run->channel = om_guest_channel_new();
	if (run->channel == NULL) {
		run_entered(cx, run, OM_ERR_NOMEM, NULL);
		return;
	}
	err = channel_connect(run, &why);
	if (err == OM_OK) {
		err = om_io_watch(cx, run->channel_fd, OM_IO_READ, WATCH_CHANNEL,
				  &run->channel_watch);
	}
	if (err != OM_OK) {
		if (run->channel_fd >= 0) {
			(void)close(run->channel_fd);
			run->channel_fd = -1;
		}
		run_entered(cx, run, err, &why);
		return;
	}
	timer_restart(cx, &run->boot_timer, run_boot_timeout_ms(run), TIMER_BOOT);
	channel_write(cx, run); /* SETUP waits in the channel from its birth */
}

static void
boot_close(struct om_ctx *cx, struct run *run)
{
	timer_off(cx, &run->boot_timer);
	timer_off(cx, &run->runtime_timer);
	timer_off(cx, &run->stop_timer);
	if (run->channel_watch != 0) {
		om_io_unwatch(cx, run->channel_watch);
		run->channel_watch = 0;
	}
	if (run->channel_fd >= 0) {
		(void)close(run->channel_fd);
		run->channel_fd = -1;
	}
}

void
undo_boot(struct om_ctx *cx, struct run *run)
{
	boot_close(cx, run);
	run_undone(cx, run);
}

/* The boot step waits for a hello that nobody wants any more. */
void
run_abort_boot(struct om_ctx *cx, struct run *run)
{
	run_kill_vm(run);
	boot_close(cx, run);
	run_entered(cx, run, OM_ERR_CANCELLED, NULL);
}

uint64_t
run_boot_timeout_ms(const struct run *run)
{
	return run->conf->boot_timeout_ms != 0 ? run->conf->boot_timeout_ms
					       : OM_EXEC_BOOT_TIMEOUT_MS;
}

uint64_t
run_start_timeout_ms(const struct run *run)
{
	const struct om_guest_job *job = &run->spec.guest;
	uint64_t bytes = job->script.len;

	for (size_t i = 0; i < job->file_in_count; i++) {
		bytes += job->files_in[i].data.len;
	}
	return run_boot_timeout_ms(run) + bytes / RUN_BYTES_PER_MS;
}

uint64_t
run_files_timeout_ms(const struct run *run)
{
	const struct om_guest_job *job = &run->spec.guest;

	return run_boot_timeout_ms(run) +
	       (job->file_out_count > 0 ? job->files_out_max / RUN_BYTES_PER_MS : 0);
}

static void
guest_start(struct om_ctx *cx, struct run *run)
{
	struct om_why why = { "" };
	enum om_err err = om_guest_channel_start(run->channel, &run->spec.guest, &why);

	if (err != OM_OK) {
		run_end(cx, run, OM_JOB_FAILED, om_err_code(err), 0, "start: %s", why.text);
	}
}

static void
guest_net(struct om_ctx *cx, struct run *run)
{
	char address[64], gateway[64], dns[OM_GUEST_DNS_MAX][64];
	struct om_guest_net net = { .address = address, .gateway = gateway };
	struct om_why why = { "" };
	enum om_err err = OM_OK;
	size_t i;

	if (run->net->guest_addresses.n == 0 ||
	    om_str_copy(run->net->guest_addresses.v[0], address, sizeof(address)) != OM_OK ||
	    om_str_copy(run->net->gateway, gateway, sizeof(gateway)) != OM_OK) {
		err = OM_ERR_INTERNAL;
	}
	for (i = 0; i < run->net->dns.n && i < OM_GUEST_DNS_MAX && err == OM_OK; i++) {
		err = om_str_copy(run->net->dns.v[i], dns[i], sizeof(dns[i]));
		net.dns[i] = dns[i];
	}
	net.mtu = (unsigned)run->net->mtu;
	if (err == OM_OK) {
		err = om_guest_channel_net(run->channel, &net, &why);
	}
	if (err != OM_OK) {
		run_end(cx, run, OM_JOB_FAILED, "network", 0, "guest network: %s", why.text);
	}
}

/* The guest has said hello: tell it what to do. */
void
enter_run(struct om_ctx *cx, struct run *run)
{
	if (run->net != NULL) {
		guest_net(cx, run);
	} else {
		guest_start(cx, run);
	}
	channel_write(cx, run);
}

void
run_clock(struct om_ctx *cx, struct run *run, uint64_t ms)
{
	run->runtime_until.ns = om_now(cx).ns + (int64_t)ms * OM_NS_PER_MS;
	timer_restart(cx, &run->runtime_timer, ms, TIMER_RUNTIME);
}

/* --- the end --------------------------------------------------------------------------------- */

static uint64_t
stop_limit_ms(const struct run *run, uint32_t grace_ms)
{
	return (uint64_t)grace_ms +
	       (run->conf->stop_slack_ms != 0 ? run->conf->stop_slack_ms : OM_EXEC_STOP_SLACK_MS);
}

static void
stop_within(struct om_ctx *cx, struct run *run, uint64_t ms)
{
	run->stop_until.ns = om_now(cx).ns + (int64_t)ms * OM_NS_PER_MS;
	timer_restart(cx, &run->stop_timer, ms, TIMER_STOP);
}

void
run_stop_guest(struct om_ctx *cx, struct run *run, uint32_t grace_ms)
{
	const bool may_obey = grace_ms > 0 && run->started && !run->exited;
	const uint64_t limit_ms = stop_limit_ms(run, grace_ms);

	timer_off(cx, &run->runtime_timer);
	if (may_obey && run_pause_defers_stop(cx, run, grace_ms)) {
		/* A hypervisor that hangs gets no more time than the guest would. */
		stop_within(cx, run, limit_ms);
		return;
	}
	if (!may_obey || om_guest_channel_stop(run->channel, grace_ms) != OM_OK) {
		run_kill_vm(run);
		run_over(cx, run);
		return;
	}
	stop_within(cx, run, limit_ms);
	channel_write(cx, run);
}

/* It has had its SIGTERM; what is left of its grace becomes less. */
void
run_stop_sooner(struct om_ctx *cx, struct run *run, uint32_t grace_ms)
{
	const uint64_t limit_ms = stop_limit_ms(run, grace_ms);

	if (grace_ms == 0) {
		run_stop_guest(cx, run, 0);
	} else if (om_mono_ms_between(om_now(cx), run->stop_until) > (int64_t)limit_ms) {
		stop_within(cx, run, limit_ms);
	}
}

/* The grace of a stop is over, or the time for the files of a job that has exited. */
void
run_on_stop_timer(struct om_ctx *cx, struct run *run)
{
	run->stop_timer = 0;
	if (!run->ended && run->reading_stopped) {
		/* We do not read, so it cannot tell: the ledger is behind. */
		timer_restart(cx, &run->stop_timer, run_files_timeout_ms(run), TIMER_STOP);
		return;
	}
	run_kill_vm(run);
	run_end(cx, run, OM_JOB_FAILED, "files_timeout", 0,
		"it exited, and its files did not come within %llu ms",
		(unsigned long long)run_files_timeout_ms(run));
	run_over(cx, run);
}

/* --- output ---------------------------------------------------------------------------------- */

static void
flush_stream(struct om_ctx *cx, struct run *run, int stream)
{
	struct om_buf *buf = &run->output[stream - 1];
	struct om_ledger_output m = { 0 };

	OM_SET(&m, ledger_output, job, om_str_of(run->job.text));
	OM_SET(&m, ledger_output, stream, om_str_of(stream == 1 ? "stdout" : "stderr"));
	OM_SET(&m, ledger_output, data, ((struct om_bin){ buf->data, buf->len }));
	OM_SET(&m, ledger_output, offset, run->output_at[stream - 1]);
	run->output_at[stream - 1] += buf->len;
	run_write(cx, run, OM_MSG_LEDGER_OUTPUT, &m, false);
	om_buf_reset(buf);
}

/* Small pieces wait while a write is under way, and go together when it is done. */
void
run_flush_output(struct om_ctx *cx, struct run *run)
{
	int stream;

	for (stream = 1; stream <= 2; stream++) {
		size_t waiting = run->output[stream - 1].len;

		if (waiting >= RUN_OUTPUT_CHUNK || (waiting > 0 && run->writes == NULL)) {
			flush_stream(cx, run, stream);
		}
	}
}

void
run_flush_rest(struct om_ctx *cx, struct run *run)
{
	int stream;

	for (stream = 1; stream <= 2; stream++) {
		if (run->output[stream - 1].len > 0) {
			flush_stream(cx, run, stream);
		}
	}
}

static void
on_output(struct om_ctx *cx, struct run *run, const struct om_guest_event *ev)
{
	struct om_buf *buf = &run->output[ev->output.stream == 1 ? 0 : 1];

	om_buf_add(buf, ev->output.data.ptr, ev->output.data.len);
	if (buf->failed) {
		run_end(cx, run, OM_JOB_FAILED, "no_memory", 0, "out of memory for its output");
		return;
	}
	if (buf->len >= RUN_OUTPUT_CHUNK) {
		run_flush_output(cx, run);
	}
}

/* Its requester is told with the result. */
static void
file_missing(struct om_ctx *cx, struct run *run, const struct om_guest_event *ev)
{
	const struct om_strs *names = &run->submit->outputs;
	char *text = om_arena_str(&run->arena, ev->file.error);

	if (run->missing == NULL) {
		run->missing = om_arena_alloc(&run->arena, names->n * sizeof(*run->missing));
	}
	if (text == NULL || run->missing == NULL) {
		run_end(cx, run, OM_JOB_FAILED, "no_memory", 0, "out of memory for its files");
		return;
	}
	/* The channel gives each index once. */
	OM_ASSERT(run->missing_count < names->n);
	run->missing[run->missing_count++] =
	    (struct om_pair){ names->v[ev->file.index], run_clean_text(text) };
}

static void
on_file(struct om_ctx *cx, struct run *run, const struct om_guest_event *ev)
{
	struct om_ledger_output m = { 0 };
	size_t at = 0;

	OM_ASSERT(ev->file.index < run->submit->outputs.n);
	if (ev->file.error.len > 0) {
		file_missing(cx, run, ev);
		return;
	}
	OM_SET(&m, ledger_output, job, om_str_of(run->job.text));
	OM_SET(&m, ledger_output, file, run->submit->outputs.v[ev->file.index]);
	do {
		size_t len = ev->file.data.len - at;

		if (len > RUN_FILE_CHUNK) {
			len = RUN_FILE_CHUNK;
		}
		OM_SET(&m, ledger_output, data, ((struct om_bin){ ev->file.data.ptr + at, len }));
		OM_SET(&m, ledger_output, offset, at);
		run_write(cx, run, OM_MSG_LEDGER_OUTPUT, &m, false);
		at += len;
	} while (at < ev->file.data.len);
}

/* --- events from the guest ------------------------------------------------------------------- */

static void
on_exited(struct om_ctx *cx, struct run *run, const struct om_guest_exit *exit)
{
	run->exited = true;
	run->exited_at = om_now(cx);
	run->exit = *exit;
	timer_off(cx, &run->runtime_timer);
	/* Files are still to come, bounded in time like a stop. */
	timer_restart(cx, &run->stop_timer, run_files_timeout_ms(run), TIMER_STOP);
}

static void
on_done(struct om_ctx *cx, struct run *run)
{
	const struct om_guest_exit *e = &run->exit;

	run->guest_done = true;
	if (e->oom_kills > 0 && (e->signal != 0 || e->exit_code != 0)) {
		run_end(cx, run, OM_JOB_FAILED, "out_of_memory", 0, "over its memory of %llu MiB",
			(unsigned long long)run->spec.mem_mib);
	} else if (e->signal != 0) {
		run_end(cx, run, OM_JOB_FAILED, "signal", 0, "ended by signal %d (%s)", e->signal,
			sigabbrev_np(e->signal) != NULL ? sigabbrev_np(e->signal) : "?");
	} else if (e->exit_code != 0) {
		run_end(cx, run, OM_JOB_FAILED, "exit_code", 0, "exit status %d", e->exit_code);
	} else {
		run_end(cx, run, OM_JOB_COMPLETED, "ok", 0, "exit status 0");
	}
	run_over(cx, run);
}

static void
on_guest_event(struct om_ctx *cx, struct run *run, const struct om_guest_event *ev)
{
	switch (ev->kind) {
	case OM_GUEST_EV_HELLO:
		/* Until its job starts: a guest that stops here must not keep its slot. */
		timer_restart(cx, &run->boot_timer, run_start_timeout_ms(run), TIMER_BOOT);
		run_entered(cx, run, OM_OK, NULL); /* the boot step is done */
		break;
	case OM_GUEST_EV_PRIMED:
		break;
	case OM_GUEST_EV_NET_UP:
		guest_start(cx, run);
		break;
	case OM_GUEST_EV_STARTED:
		timer_off(cx, &run->boot_timer);
		run->started = true;
		run->started_at = om_now(cx);
		run_write_state(cx, run, OM_JOB_RUNNING);
		run_clock(cx, run, run->spec.runtime_s * 1000);
		run_pause_started(cx, run);
		break;
	case OM_GUEST_EV_OUTPUT:
		on_output(cx, run, ev);
		break;
	case OM_GUEST_EV_EXITED:
		on_exited(cx, run, &ev->exit);
		break;
	case OM_GUEST_EV_FILE:
		on_file(cx, run, ev);
		break;
	case OM_GUEST_EV_DONE:
		on_done(cx, run);
		break;
	case OM_GUEST_EV_FAILED:
		run_end(cx, run, OM_JOB_FAILED, om_err_code(ev->failed.err), 0, "%.*s",
			OM_STR_ARG(ev->failed.text));
		run_over(cx, run);
		break;
	case OM_GUEST_EV_BROKEN:
		run_kill_vm(run);
		run_end(cx, run, OM_JOB_FAILED, "guest_protocol", 0,
			"the guest broke its protocol: %.*s", OM_STR_ARG(ev->failed.text));
		run_over(cx, run);
		break;
	}
}

/* --- the socket ------------------------------------------------------------------------------ */

static void
channel_gone(struct om_ctx *cx, struct run *run)
{
	if (run->channel_watch != 0) {
		om_io_unwatch(cx, run->channel_watch);
		run->channel_watch = 0;
	}
	run_kill_vm(run);
	run->vm_died = run->vm_died || !run->ended;
	run_end(cx, run, OM_JOB_FAILED, "vm_ended", 0, "the guest's channel closed");
	if (run->busy && !run->unwinding) {
		run_over(cx, run);
	}
}

static void
channel_rearm(struct om_ctx *cx, struct run *run)
{
	struct om_bin out;
	uint32_t events = 0;

	if (run->channel_watch == 0) {
		return;
	}
	if (!run->reading_stopped) {
		events |= OM_IO_READ;
	}
	if (om_guest_channel_output(run->channel, &out)) {
		events |= OM_IO_WRITE;
	}
	if (events != 0 && om_io_rearm(cx, run->channel_watch, events) != OM_OK) {
		channel_gone(cx, run);
	}
}

static void
channel_write(struct om_ctx *cx, struct run *run)
{
	struct om_bin out;
	ssize_t n = 0;

	while (run->channel_fd >= 0 && om_guest_channel_output(run->channel, &out)) {
		n = send(run->channel_fd, out.ptr, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			break;
		}
		om_guest_channel_sent(run->channel, (size_t)n);
	}
	/* An error other than "full" shows up on the read side, after the guest's last words. */
	channel_rearm(cx, run);
}

/* false: nothing more to read now. */
static bool
channel_read(struct om_ctx *cx, struct run *run)
{
	uint8_t data[READ_CHUNK];
	struct om_guest_event ev;
	ssize_t n;

	n = recv(run->channel_fd, data, sizeof(data), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return false;
	}
	if (n <= 0) {
		channel_gone(cx, run);
		return false;
	}
	if (om_guest_channel_feed(run->channel, data, (size_t)n) != OM_OK) {
		run_end(cx, run, OM_JOB_FAILED, "no_memory", 0,
			"out of memory for the guest's words");
		channel_gone(cx, run);
		return false;
	}
	while (run->channel_fd >= 0 && om_guest_channel_next(run->channel, &ev)) {
		on_guest_event(cx, run, &ev);
	}
	if (run->write_bytes >= RUN_WRITES_MAX) {
		run->reading_stopped = true;
	}
	return run->channel_fd >= 0 && !run->reading_stopped && (size_t)n == sizeof(data);
}

void
run_on_channel(struct om_ctx *cx, struct run *run, uint32_t events)
{
	int reads;

	if (run->channel_fd < 0) {
		return;
	}
	if ((events & (OM_IO_READ | OM_IO_ERROR)) != 0 && !run->reading_stopped) {
		for (reads = 0; reads < READS_A_RUN && channel_read(cx, run); reads++) {
		}
		run_flush_output(cx, run);
	}
	if (run->channel_fd >= 0) {
		channel_write(cx, run);
	}
}

void
run_resume_reading(struct om_ctx *cx, struct run *run)
{
	run->reading_stopped = false;
	if (run->channel_fd >= 0) {
		channel_rearm(cx, run);
	}
}
