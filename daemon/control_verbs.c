/* SPDX-License-Identifier: ISC */
/* The verbs that control answers itself: ping, daemon.*, config.show. */
#include "daemon/control_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "actors/executor.h"
#include "base/assert.h"
#include "base/log.h"
#include "daemon/control_config.h"
#include "daemon/intake.h"
#include "msg/codec.h"
#include "runtime/stats.h"

#define STATUS_ASK_MS     3000
#define STATUS_PARTS      3
#define STATUS_MEMORY_MAX (1024 * 1024)
#define ACTORS_MAX        1000 /* the schema's limit */
#define DRAIN_SLACK_MS    5000 /* for the provider to answer after its own time-out */

/* Reads a body of control's own verbs; the arena is the caller's. */
static enum om_err
verb_body(const struct control_call *call, enum om_body_type type, void *out,
	  struct om_arena *arena, struct om_why *why)
{
	return om_body_decode(type, call->body, out, arena, why);
}

static enum om_err
verb_ping(struct om_service *sv, struct control *c, const struct control_call *call,
	  struct om_why *why)
{
	const struct om_empty body = { 0 };

	(void)why;
	control_answer(sv, c, call->cookie, OM_MSG_OK, &body);
	return OM_OK;
}

/* --- daemon.status --------------------------------------------------------------------------- */

/* The parts come from other services; one that does not answer is left out. */
struct control_status {
	struct control_status *next; /* all that wait: freed when control stops */
	uint64_t cookie;
	unsigned waiting;
	bool operator_asks;
	struct om_buf parts[STATUS_PARTS]; /* encoded bodies */
	bool has[STATUS_PARTS];
};

static const struct {
	const char *service;
	enum om_msg_type ask;
	enum om_body_type body;
	bool for_peers;
} status_parts[STATUS_PARTS] = {
	{ "job_queue", OM_MSG_QUEUE_STATS, OM_BODY_queue_stats, true },
	{ "filter_manager", OM_MSG_FILTER_STATS, OM_BODY_filter_stats, false },
	{ "ledger", OM_MSG_LEDGER_COUNT, OM_BODY_ledger_counts, false },
};

static const char *
phase_text(enum control_phase phase)
{
	static const char *const texts[] = { "starting", "ready", "draining", "ended" };

	return texts[phase];
}

static const char *const counter_names[] = {
#define COUNTER_NAME(name) #name,
	CONTROL_COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
	    "clients",
	"in_flight",
	"cut",
	"pending_bytes",
	"connections",
	"connects",
	"disconnects",
	"handshakes_failed",
	"accepts_failed",
	"receiving_bytes",
	"limit_connections",
	"limit_receiving",
};

size_t
control_counter_count(void)
{
	return OM_COUNT(counter_names);
}

const char *
control_counter_name(size_t i)
{
	return counter_names[i];
}

bool
control_counter_grows(size_t i)
{
	static const char *const now[] = { "clients",       "in_flight",   "cut",
					   "pending_bytes", "connections", "receiving_bytes" };

	for (size_t k = 0; k < OM_COUNT(now); k++) {
		if (strcmp(counter_names[i], now[k]) == 0) {
			return false;
		}
	}
	return true;
}

void
control_counter_values(const struct control *c, uint64_t *values)
{
	uint64_t *v = values + sizeof(c->counters) / sizeof(uint64_t);
	struct om_clients_stats now;
	struct om_intake_stats intake;

	om_clients_stats(c->clients, &now);
	om_intake_stats(&intake);
	memcpy(values, &c->counters, sizeof(c->counters));
	*v++ = now.clients;
	*v++ = now.in_flight;
	*v++ = now.cut;
	*v++ = now.pending;
	*v++ = c->news.connects - c->news.disconnects;
	*v++ = c->news.connects;
	*v++ = c->news.disconnects;
	*v++ = c->news.handshakes_failed;
	*v++ = c->news.accepts_failed;
	*v++ = intake.bytes;
	*v++ = intake.refused;
	*v++ = intake.cut;
	OM_ASSERT(v == values + OM_COUNT(counter_names));
}

/* Counters of the endpoint as a map; numbers as text in the arena. */
static void
status_counters(const struct control *c, struct om_daemon_status *m, struct om_arena *arena)
{
	struct om_pair *pairs = om_arena_alloc(arena, OM_COUNT(counter_names) * sizeof(*pairs));
	uint64_t values[OM_COUNT(counter_names)];
	char text[24];

	if (pairs == NULL) {
		return;
	}
	control_counter_values(c, values);
	for (size_t i = 0; i < OM_COUNT(counter_names); i++) {
		snprintf(text, sizeof(text), "%llu", (unsigned long long)values[i]);
		pairs[i].key = om_str_of(counter_names[i]);
		pairs[i].value = om_str_of(om_arena_str(arena, om_str_of(text)));
	}
	OM_SET(m, daemon_status, counters, ((struct om_pairs){ pairs, OM_COUNT(counter_names) }));
}

static void
status_endpoints(const struct control *c, struct om_daemon_status *m, struct om_arena *arena)
{
	struct om_str *urls = om_arena_alloc(arena, CONTROL_WATCHES * sizeof(*urls));
	size_t n = 0;

	for (unsigned i = 0; urls != NULL && i < CONTROL_ZAP; i++) {
		if (c->watches[i].ep.sock != NULL) {
			urls[n++] = om_str_of(c->watches[i].ep.url);
		}
	}
	if (n > 0) {
		OM_SET(m, daemon_status, endpoints, ((struct om_strs){ urls, n }));
	}
}

static void
status_fill(struct control *c, struct control_status *st, struct om_ctx *cx,
	    struct om_daemon_status *m, struct om_arena *arena)
{
	void *parts[STATUS_PARTS] = { NULL };
	struct om_ledger_counts *counts;

	m->version = om_str_of(OM_VERSION);
	m->pid = (uint64_t)getpid();
	m->uptime_ms = (uint64_t)om_mono_ms_between(c->ready_at, om_now(cx));
	m->state = om_str_of(phase_text(c->phase));
	for (unsigned i = 0; i < STATUS_PARTS; i++) {
		const struct om_bin raw = { st->parts[i].data, st->parts[i].len };

		parts[i] = om_arena_alloc(arena, om_body_info(status_parts[i].body)->size);
		if (!st->has[i] || parts[i] == NULL ||
		    om_body_decode(status_parts[i].body, raw, parts[i], arena, NULL) != OM_OK) {
			parts[i] = NULL;
		}
	}
	if (parts[0] != NULL) {
		OM_SET(m, daemon_status, queue, parts[0]);
	}
	if (!st->operator_asks) {
		return;
	}
	status_endpoints(c, m, arena);
	status_counters(c, m, arena);
	OM_SET(m, daemon_status, accelerator, om_str_of(c->conf->accelerator));
	OM_SET(m, daemon_status, wireguard, om_str_of(c->conf->wireguard));
	if (parts[1] != NULL) {
		OM_SET(m, daemon_status, filter, parts[1]);
	}
	counts = parts[2];
	if (counts != NULL) {
		OM_SET(m, daemon_status, pending, counts->pending);
		OM_SET(m, daemon_status, today, counts->today);
	}
}

static void
status_free(struct control *c, struct control_status *st)
{
	struct control_status **at = &c->statuses;

	while (*at != st) {
		at = &(*at)->next;
	}
	*at = st->next;
	for (unsigned i = 0; i < STATUS_PARTS; i++) {
		om_buf_fini(&st->parts[i]);
	}
	free(st);
}

void
control_verbs_stop(struct control *c)
{
	control_metrics_stop(c);
	while (c->statuses != NULL) {
		status_free(c, c->statuses);
	}
}

static void
status_finish(struct om_service *sv, struct control *c, struct control_status *st)
{
	struct om_arena arena = { .max = STATUS_MEMORY_MAX };
	struct om_daemon_status body = { 0 };

	status_fill(c, st, om_service_cx(sv), &body, &arena);
	control_answer(sv, c, st->cookie, OM_MSG_DAEMON_STATE, &body);
	om_arena_fini(&arena);
	status_free(c, st);
}

static void
status_on_part(struct om_service *sv, struct control *c, const struct om_bus_answer *answer,
	       unsigned part)
{
	struct control_status *st = (struct control_status *)(uintptr_t)answer->cookie;

	if (answer->err == OM_OK) {
		om_buf_add(&st->parts[part], answer->raw.ptr, answer->raw.len);
		st->has[part] = !st->parts[part].failed;
	}
	if (--st->waiting == 0) {
		status_finish(sv, c, st);
	}
}

static void
status_on_queue(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	status_on_part(sv, state, answer, 0);
}

static void
status_on_filter(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	status_on_part(sv, state, answer, 1);
}

static void
status_on_ledger(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	status_on_part(sv, state, answer, 2);
}

static enum om_err
verb_status(struct om_service *sv, struct control *c, const struct control_call *call,
	    struct om_why *why)
{
	static const om_bus_answer_fn on_part[STATUS_PARTS] = { status_on_queue, status_on_filter,
								status_on_ledger };
	const struct om_empty body = { 0 };
	struct control_status *st = calloc(1, sizeof(*st));

	(void)why;
	if (st == NULL) {
		return OM_ERR_NOMEM;
	}
	st->next = c->statuses;
	c->statuses = st;
	st->cookie = call->cookie;
	st->operator_asks = call->caller->role == OM_ROLE_OPERATOR;
	for (unsigned i = 0; i < STATUS_PARTS; i++) {
		if ((st->operator_asks || status_parts[i].for_peers) &&
		    om_service_ask(sv, status_parts[i].service, status_parts[i].ask, &body, NULL,
				   STATUS_ASK_MS, on_part[i], (uint64_t)(uintptr_t)st) == OM_OK) {
			st->waiting++;
		}
	}
	if (st->waiting == 0) {
		status_finish(sv, c, st);
	}
	return OM_OK;
}

/* --- daemon.stop ----------------------------------------------------------------------------- */

static void
drain_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct control *c = state;

	(void)sv;
	if (answer->cookie != c->drain_number) {
		return; /* another one took its place */
	}
	if (answer->err == OM_ERR_TIMEOUT) {
		om_warn("daemon.drain", "jobs that were ended still run");
	} else if (answer->err != OM_OK) {
		om_warn("daemon.drain", "%s", answer->text);
	}
	control_tell(c, OM_CONTROL_DRAINED, "");
}

/* The provider refuses submissions from now on and answers when no job runs any more. */
void
control_drain(struct om_service *sv, struct control *c, const struct om_daemon_stop *how)
{
	char text[24];
	enum om_err err;

	om_info("daemon.draining", "%s, at most %llu ms",
		how->now ? "ending running jobs" : "waiting for running jobs",
		(unsigned long long)(how->now ? OM_EXEC_END_MS : how->timeout_ms));
	c->phase = CONTROL_DRAINING;
	c->drain_number++;
	snprintf(text, sizeof(text), "%llu",
		 (unsigned long long)(how->timeout_ms + OM_EXEC_STOP_MORE_MS));
	control_tell(c, OM_CONTROL_DRAINING, text);
	err = om_service_ask(sv, "provider", OM_MSG_DAEMON_STOP, how, NULL,
			     how->timeout_ms + OM_EXEC_STOP_MORE_MS + DRAIN_SLACK_MS,
			     drain_on_answer, c->drain_number);
	if (err != OM_OK) {
		om_warn("daemon.drain", "the provider cannot be asked: %s", om_err_text(err));
		control_tell(c, OM_CONTROL_DRAINED, "");
	}
}

static enum om_err
verb_stop(struct om_service *sv, struct control *c, const struct control_call *call,
	  struct om_why *why)
{
	const struct om_empty ok = { 0 };
	struct om_arena arena = { .max = STATUS_MEMORY_MAX };
	struct om_daemon_stop body = { 0 };
	uint64_t timeout = om_config_settings(c->config)->daemon_drain_timeout;
	enum om_err err = verb_body(call, OM_BODY_daemon_stop, &body, &arena, why);

	if (err == OM_OK) {
		if (!OM_HAS(&body, daemon_stop, timeout_ms)) {
			OM_SET(&body, daemon_stop, timeout_ms, timeout);
		}
		om_info("daemon.stop", "asked for by %s", call->caller->peer);
		control_answer(sv, c, call->cookie, OM_MSG_OK, &ok);
		control_drain(sv, c, &body);
	}
	om_arena_fini(&arena);
	return err;
}

/* --- daemon.actors --------------------------------------------------------------------------- */

struct actor_list {
	struct om_arena *arena;
	struct om_actor_info *v;
	size_t n, max;
};

/* The time in handlers from a sampled histogram: mean of the samples times the messages. */
static uint64_t
busy_us(const struct om_actor_stats *stats)
{
	double samples = 0, ns = 0;

	for (unsigned i = 0; i < OM_HIST_BUCKETS; i++) {
		samples += (double)stats->hist.count[i];
		ns += (double)stats->hist.count[i] * 1.5 * (double)(UINT64_C(1) << i);
	}
	return samples > 0 ? (uint64_t)(ns / samples * (double)stats->handled / 1000) : 0;
}

static void
actor_visit(const struct om_actor_stats *stats, void *arg)
{
	struct actor_list *list = arg;
	struct om_actor_info *info;
	char *name;

	name = om_arena_str(list->arena, om_str_of(stats->name));
	if (list->n == list->max || name == NULL) {
		return;
	}
	info = &list->v[list->n++];
	info->name = om_str_of(name);
	info->depth = stats->depth;
	info->high_water = stats->high_water;
	info->handled = stats->handled;
	info->dropped = stats->dropped;
	info->busy_us = busy_us(stats);
}

static int
by_busy(const void *a, const void *b)
{
	const struct om_actor_info *x = a, *y = b;

	return x->busy_us < y->busy_us ? 1 : x->busy_us > y->busy_us ? -1 : 0;
}

static enum om_err
verb_actors(struct om_service *sv, struct control *c, const struct control_call *call,
	    struct om_why *why)
{
	struct om_arena arena = { .max = STATUS_MEMORY_MAX };
	struct actor_list list = { .arena = &arena, .max = ACTORS_MAX };
	struct om_actor_table body = { 0 };

	(void)why;
	list.v = om_arena_alloc(&arena, ACTORS_MAX * sizeof(*list.v));
	if (list.v == NULL) {
		return OM_ERR_NOMEM;
	}
	om_system_actors(om_ctx_system(om_service_cx(sv)), actor_visit, &list);
	qsort(list.v, list.n, sizeof(*list.v), by_busy);
	OM_SET(&body, actor_table, actors,
	       ((struct om_actor_info_list){ .v = list.v, .n = list.n }));
	control_answer(sv, c, call->cookie, OM_MSG_ACTOR_TABLE, &body);
	om_arena_fini(&arena);
	return OM_OK;
}

static const struct {
	enum om_msg_type type;
	control_verb_fn fn;
} verbs[] = {
	{ OM_MSG_PING, verb_ping },
	{ OM_MSG_DAEMON_STATUS, verb_status },
	{ OM_MSG_DAEMON_STOP, verb_stop },
	{ OM_MSG_DAEMON_ACTORS, verb_actors },
	{ OM_MSG_DAEMON_METRICS, control_verb_metrics },
	{ OM_MSG_DAEMON_TRACE, control_verb_trace },
	{ OM_MSG_CONFIG_SHOW, control_verb_config_show },
	{ OM_MSG_CONFIG_SET, control_verb_config_set },
	{ OM_MSG_CONFIG_UNSET, control_verb_config_unset },
	{ OM_MSG_CONFIG_RELOAD, control_verb_config_reload },
};

control_verb_fn
control_verb_find(enum om_msg_type type)
{
	for (size_t i = 0; i < OM_COUNT(verbs); i++) {
		if (verbs[i].type == type) {
			return verbs[i].fn;
		}
	}
	return NULL;
}
