/* SPDX-License-Identifier: ISC */
#include "daemon/signals.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/log.h"
#include "daemon/control.h"

struct signals {
	const struct om_signals_conf *conf;
	uint64_t watch;
	unsigned stops; /* TERM and INT so far */
};

int
om_signals_block(void)
{
	sigset_t mask;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &mask, NULL) != 0) {
		return -1;
	}
	return signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
}

static enum om_err
signals_start(struct om_ctx *cx, void *state, const void *arg)
{
	struct signals *s = state;
	uint64_t ref;
	enum om_err err;

	s->conf = arg;
	err = om_monitor(cx, s->conf->supervisor, &ref);
	if (err == OM_OK) {
		err = om_io_watch(cx, s->conf->fd, OM_IO_READ, 0, &s->watch);
	}
	return err;
}

static void
signals_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	struct signals *s = state;

	(void)why;
	if (s->watch != 0) {
		om_io_unwatch(cx, s->watch);
	}
}

/* To control; false when nobody is there to take it. */
static bool
signals_tell(struct om_ctx *cx, uint64_t what)
{
	struct om_msg *msg = om_msg_new(cx, OM_CONTROL_SIGNAL, sizeof(what));
	size_t took = 0;

	if (msg != NULL) {
		*(uint64_t *)(void *)msg->payload = what;
		took = om_publish(cx, OM_CONTROL_GROUP, msg);
		om_msg_free(cx, msg);
	}
	return took > 0;
}

static void
signals_one(struct om_ctx *cx, struct signals *s, uint32_t signo)
{
	if (signo == SIGHUP) {
		om_info("daemon.signal", "HUP: reload");
		if (!signals_tell(cx, OM_CONTROL_RELOAD)) {
			om_error("daemon.signal", "nobody can reload now");
		}
		return;
	}
	s->stops++;
	om_info("daemon.signal", "%s: %s", signo == SIGINT ? "INT" : "TERM",
		s->stops == 1   ? "stop when running jobs have ended"
		: s->stops == 2 ? "running jobs are ended now"
				: "stop at once");
	if (s->stops > 2 ||
	    !signals_tell(cx, s->stops == 1 ? OM_CONTROL_DRAIN : OM_CONTROL_DRAIN_NOW)) {
		s->conf->on_event(s->conf->arg, OM_SIGNALS_STOP_NOW);
	}
}

static enum om_err
signals_on_io(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct signals *s = state;
	struct signalfd_siginfo info;

	(void)msg;
	while (read(s->conf->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		signals_one(cx, s, info.ssi_signo);
	}
	return om_io_rearm(cx, s->watch, OM_IO_READ);
}

static enum om_err
signals_on_down(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct signals *s = state;

	(void)cx;
	(void)msg;
	s->conf->on_event(s->conf->arg, OM_SIGNALS_SUPERVISOR_DOWN);
	return OM_OK;
}

static enum om_err
signals_on_pulse(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	return om_reply_u64(cx, msg, 1);
}

static const struct om_handler signals_handlers[] = {
	{ OM_SYS_IO, signals_on_io },
	{ OM_SYS_DOWN, signals_on_down },
	{ OM_SIGNALS_PULSE, signals_on_pulse },
};

const struct om_actor_def om_signals_def = {
	.name = "signals",
	.state_size = sizeof(struct signals),
	.start = signals_start,
	.stop = signals_stop,
	.handlers = signals_handlers,
	.handler_count = OM_COUNT(signals_handlers),
	.restart = OM_RESTART_ALWAYS,
};
