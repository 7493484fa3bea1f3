/* SPDX-License-Identifier: ISC */
/*
 * The trace ring: what traced actors and messages did last.  Nothing is recorded, and nothing is
 * paid but one test of a word that is at hand, unless something is traced.
 *
 * A way is a number that a message carries.  It goes on to all that is sent while the message is
 * handled, and past answers, time-outs, timers and works that were asked for then.  Where actors
 * answer each other, or a timer its own beginning, it would go on for ever: when an actor is no longer
 * traced, or a traced one ends, all ways that have begun are over.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/runtime_impl.h"

#define TRACE_RING 4096
_Static_assert(OM_TRACE_SLOT_BITS == OM_SLOT_BITS, "as stats.h says");

struct trace_entry {
	int64_t at_ns;
	uint64_t who, from, to;
	uint64_t arg;
	uint32_t trace, type, size;
	uint8_t event;
};

struct om_trace {
	pthread_mutex_t lock;
	uint64_t next;
	uint32_t last_id;
	uint32_t over; /* shared: ways up to this one have ended */
	struct trace_entry ring[TRACE_RING];
};

static const char *const trace_names[] = { "send", "handle",  "drop", "spawn",
					   "end",  "timeout", "done" };

enum om_err
om_trace_init(struct om_system *sys)
{
	sys->trace = calloc(1, sizeof(*sys->trace));
	if (sys->trace == NULL) {
		return OM_ERR_NOMEM;
	}
	(void)pthread_mutex_init(&sys->trace->lock, NULL);
	return OM_OK;
}

void
om_trace_fini(struct om_system *sys)
{
	if (sys->trace != NULL) {
		(void)pthread_mutex_destroy(&sys->trace->lock);
		free(sys->trace);
	}
}

void
om_trace_put(struct om_system *sys, enum om_trace_event event, uint64_t who,
	     const struct om_msg *msg, uint64_t arg)
{
	struct om_trace *trace = sys->trace;
	struct trace_entry *e;

	(void)pthread_mutex_lock(&trace->lock);
	e = &trace->ring[trace->next % TRACE_RING];
	*e = (struct trace_entry){
		.at_ns = om_system_now(sys).ns, .who = who, .arg = arg, .event = (uint8_t)event
	};
	if (event == OM_TRACE_TIMEOUT || event == OM_TRACE_DONE) {
		e->trace = (uint32_t)arg;
	}
	if (msg != NULL) {
		e->trace = om_hdr(msg)->trace;
		e->from = msg->from.v;
		e->to = event == OM_TRACE_SEND ? arg : om_hdr(msg)->to;
		e->type = msg->type;
		e->size = msg->size;
	}
	trace->next++;
	(void)pthread_mutex_unlock(&trace->lock);
}

void
om_trace_message(struct om_system *sys, struct om_msg *msg)
{
	(void)pthread_mutex_lock(&sys->trace->lock);
	if (++sys->trace->last_id == 0) {
		sys->trace->last_id = 1;
	}
	om_hdr(msg)->trace = sys->trace->last_id;
	(void)pthread_mutex_unlock(&sys->trace->lock);
}

static bool
trace_is_over(const struct om_system *sys, uint32_t trace)
{
	return (int32_t)(om_shared_load(&sys->trace->over) - trace) >= 0;
}

void
om_trace_stop_ways(struct om_system *sys)
{
	(void)pthread_mutex_lock(&sys->trace->lock);
	om_shared_store(&sys->trace->over, sys->trace->last_id);
	(void)pthread_mutex_unlock(&sys->trace->lock);
}

void
om_trace_sent(struct om_ctx *cx, uint64_t to, struct om_msg *msg)
{
	if (trace_is_over(cx->sys, om_hdr(msg)->trace)) {
		om_hdr(msg)->trace = 0;
	}
	if (om_hdr(msg)->trace == 0 && cx->self != NULL &&
	    (cx->self->flags & OM_ACTOR_TRACED) != 0) {
		om_trace_message(cx->sys, msg);
	}
	if (om_hdr(msg)->trace != 0) {
		om_trace_put(cx->sys, OM_TRACE_SEND, cx->self_id, msg, to);
	}
}

void
om_trace_begin(struct om_ctx *cx, uint32_t trace, enum om_trace_event event,
	       const struct om_msg *msg)
{
	if (trace_is_over(cx->sys, trace)) {
		trace = 0;
		if ((cx->self->flags & OM_ACTOR_TRACED) == 0) {
			return;
		}
	}
	om_trace_put(cx->sys, event, cx->self_id, msg, trace);
	cx->trace = trace;
	cx->tracing = 1;
}

/* The actor's flags are its own thread's: it is asked to set this one. */
enum om_err
om_trace_actor(struct om_system *sys, struct om_actor_id who, bool on)
{
	bool locked;
	struct om_ctx *cx = om_system_enter(sys, &locked);
	struct om_msg *msg = om_pool_msg(cx, 0, sizeof(uint64_t));
	enum om_err err = OM_ERR_NOMEM;

	if (msg != NULL) {
		om_hdr(msg)->kind = OM_KIND_TRACE;
		*(uint64_t *)(void *)msg->payload = on;
		err = om_mbox_push_sys(cx, who.v, msg);
		if (err != OM_OK) {
			om_pool_msg_free(cx, msg);
		}
	}
	om_system_leave(sys, locked);
	return err;
}

/* --- dump: no locks, no stdio: it may run in a signal handler -------------------------------------- */

struct line {
	char text[256];
	size_t len;
};

static void
line_str(struct line *line, const char *s)
{
	while (*s != '\0' && line->len < sizeof(line->text) - 1) {
		line->text[line->len++] = *s++;
	}
}

static void
line_num(struct line *line, const char *label, uint64_t v)
{
	char digits[24];
	size_t n = sizeof(digits);

	digits[--n] = '\0';
	do {
		digits[--n] = (char)('0' + v % 10);
		v /= 10;
	} while (v != 0);
	line_str(line, label);
	line_str(line, &digits[n]);
}

static void
line_id(struct line *line, const char *label, uint64_t id)
{
	line_num(line, label, id & OM_SLOT_MASK);
	line_num(line, ".", id >> OM_SLOT_BITS);
}

void
om_trace_dump(struct om_system *sys, int fd)
{
	const struct om_trace *trace = sys->trace;
	uint64_t end = trace->next;
	uint64_t i = end > TRACE_RING ? end - TRACE_RING : 0;

	for (; i < end; i++) {
		const struct trace_entry *e = &trace->ring[i % TRACE_RING];
		struct line line = { .len = 0 };
		const char *at = line.text;

		line_num(&line, "trace us=", (uint64_t)e->at_ns / 1000);
		line_str(&line, " ");
		line_str(&line, trace_names[e->event % OM_COUNT(trace_names)]);
		line_id(&line, " actor=", e->who);
		if (e->event == OM_TRACE_END) {
			line_num(&line, " why=", e->arg);
		} else if (e->event == OM_TRACE_SPAWN) {
			line_id(&line, " parent=", e->arg);
		} else if (e->event == OM_TRACE_TIMEOUT || e->event == OM_TRACE_DONE) {
			line_num(&line, " way=", e->trace);
		} else {
			line_num(&line, " way=", e->trace);
			line_num(&line, " type=", e->type);
			line_num(&line, " size=", e->size);
			line_id(&line, " from=", e->from);
			line_id(&line, " to=", e->to);
		}
		line_str(&line, "\n");
		while (line.len > 0) {
			ssize_t n = write(fd, at, line.len);

			if (n <= 0) {
				return;
			}
			at += n;
			line.len -= (size_t)n;
		}
	}
}
