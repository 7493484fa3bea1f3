/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_MSG_WORLD_H
#define OM_TESTS_MSG_WORLD_H

/* A client and a server on a bus in simulation, for the tests of the bus. */
#include "msg/bus.h"

#define SEEDS 20

/*
 * Two services.  "server" answers by what the question says; "client" is driven by a script: a
 * function that the test sets and that runs inside the client at its next kick.
 */
struct world {
	struct om_system *sys;
	struct om_bus *bus;
	struct om_actor_id client, server;
	struct om_service_arg client_arg, server_arg;

	void (*script)(struct om_service *sv, struct world *w);

	/* What the client saw. */
	unsigned answers;
	enum om_err last_err;
	enum om_msg_type last_type;
	uint64_t last_cookie, last_count;
	bool last_decoded; /* the answer had a body */
	char last_text[600];
	uint64_t timers;

	/* What the server did. */
	unsigned served, batches, starts, stops;
	uint64_t order[64];
	struct om_bus_request put_off[8];
	unsigned put_off_count;
	struct om_caller caller;
	char from[64];
	size_t raw_len; /* of the body that it did not want decoded */
	bool on_stop_reply;
	enum om_err second_reply;
};

enum { MSG_KICK = 1 };

/* --- the server ------------------------------------------------------------------------------- */

struct server {
	struct world *w;
};

static inline enum om_err
server_start(struct om_service *sv, void *state, const void *arg)
{
	struct server *s = state;

	(void)sv;
	s->w = *(struct world *const *)arg;
	s->w->starts++;
	return OM_OK;
}

static inline void
server_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct server *s = state;

	(void)why;
	s->w->stops++;
	for (unsigned i = 0; s->w->on_stop_reply && i < s->w->put_off_count; i++) {
		om_service_reply_err_to(sv, &s->w->put_off[i], OM_ERR_CANCELLED, "by stop");
	}
	s->w->put_off_count = 0;
}

static inline enum om_err
server_on_ping(struct om_service *sv, void *state, const struct om_in *in)
{
	struct world *w = ((struct server *)state)->w;
	enum om_err err;

	w->served++;
	w->caller = *in->caller;
	(void)snprintf(w->from, sizeof(w->from), "%s", in->from);
	err = om_service_reply_ok(sv, in);
	w->second_reply = om_service_reply_ok(sv, in);
	return err;
}

/* The limit says what to do. */
static inline enum om_err
server_on_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_queue_limits *m = in->body;
	struct world *w = ((struct server *)state)->w;
	const struct om_count wrong = { .count = 1 };

	if (w->served < OM_COUNT(w->order)) {
		w->order[w->served] = m->max_jobs;
	}
	w->served++;
	switch (m->max_jobs) {
	case 1001:
		return OM_ERR_STATE;
	case 1002:
		return om_service_reply_err(sv, in, OM_ERR_REJECTED, "because of %s", "tests");
	case 1003:
		return OM_OK; /* forgets to answer */
	case 1004:
		w->put_off[w->put_off_count++] = om_service_later(sv, in);
		return OM_OK;
	case 1005:
		om_service_fail(sv, OM_ERR_INTERNAL);
		return OM_ERR_INTERNAL;
	case 1006:
		return om_service_reply(sv, in, OM_MSG_COUNTED, &wrong);
	case 1007:
		om_service_exit(sv);
		return om_service_reply_ok(sv, in);
	default:
		return in->wants_answer ? om_service_reply_ok(sv, in) : OM_OK;
	}
}

static inline enum om_err
server_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	/* The answer carries what the caller may be told: here, who it is. */
	struct om_str peer = om_str_of(in->caller->peer);
	struct om_string_list list = { .values = { &peer, 1 } };

	((struct server *)state)->w->served++;
	return om_service_reply(sv, in, OM_MSG_STRING_LIST, &list);
}

static inline enum om_err
server_on_raw(struct om_service *sv, void *state, const struct om_in *in)
{
	struct world *w = ((struct server *)state)->w;

	assert_null(in->body);
	if (w->served < OM_COUNT(w->order)) {
		w->order[w->served] = in->raw.len;
	}
	w->served++;
	w->raw_len = in->raw.len;
	return om_service_reply_ok(sv, in);
}

static inline void
server_batch_end(struct om_service *sv, void *state)
{
	(void)sv;
	((struct server *)state)->w->batches++;
}

static const struct om_service_handler server_on[] = {
	{ OM_MSG_PING, server_on_ping },
	{ OM_MSG_QUEUE_LIMITS, server_on_limits },
	{ OM_MSG_CONFIG_TRUSTED, server_on_list },
	{ OM_MSG_EXEC_DRAIN, server_on_ping },
};

static const struct om_service_handler server_raw[] = {
	{ OM_MSG_QUEUE_PAUSE, server_on_raw },
};

static const struct om_service_def server_def = {
	.name = "server",
	.state_size = sizeof(struct server),
	.start = server_start,
	.stop = server_stop,
	.on = server_on,
	.on_count = OM_COUNT(server_on),
	.on_raw = server_raw,
	.on_raw_count = OM_COUNT(server_raw),
	.on_batch_end = server_batch_end,
	.backlog = 8,
};

/* --- the client ------------------------------------------------------------------------------- */

struct client {
	struct world *w;
};

static inline enum om_err
client_start(struct om_service *sv, void *state, const void *arg)
{
	(void)sv;
	((struct client *)state)->w = *(struct world *const *)arg;
	return OM_OK;
}

static inline enum om_err
client_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct client *c = state;

	if (msg->type == OM_SYS_TIMER) {
		c->w->timers++;
		return OM_OK;
	}
	assert_int_equal(msg->type, MSG_KICK);
	c->w->script(sv, c->w);
	return OM_OK;
}

static inline void
client_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *a)
{
	struct world *w = ((struct client *)state)->w;

	(void)sv;
	w->answers++;
	w->last_err = a->err;
	w->last_type = a->type;
	w->last_cookie = a->cookie;
	w->last_decoded = a->body != NULL;
	assert_true(a->raw.len > 0 || a->err == OM_ERR_TIMEOUT || a->err == OM_ERR_GONE);
	(void)snprintf(w->last_text, sizeof(w->last_text), "%s", a->text);
	if (a->err == OM_OK && a->type == OM_MSG_STRING_LIST) {
		const struct om_string_list *list = a->body;

		w->last_count = list->values.n;
		(void)snprintf(w->last_text, sizeof(w->last_text), "%.*s",
			       OM_STR_ARG(list->values.v[0]));
	}
}

static const struct om_service_def client_def = {
	.name = "client",
	.state_size = sizeof(struct client),
	.start = client_start,
	.on_msg = client_on_msg,
};

/* --- the world -------------------------------------------------------------------------------- */

static inline struct world *
world_new(uint64_t seed, bool with_server)
{
	const struct om_system_conf conf = { .sim = true, .seed = seed };
	struct world *w = calloc(1, sizeof(*w));
	static struct world *self;

	assert_non_null(w);
	self = w;
	assert_int_equal(om_system_new(&conf, &w->sys), OM_OK);
	assert_int_equal(om_bus_new(w->sys, &w->bus, NULL), OM_OK);
	w->server_arg = (struct om_service_arg){ w->bus, &server_def, &self };
	w->client_arg = (struct om_service_arg){ w->bus, &client_def, &self };
	if (with_server) {
		assert_int_equal(om_service_spawn(w->bus, &w->server_arg, &w->server), OM_OK);
	}
	assert_int_equal(om_service_spawn(w->bus, &w->client_arg, &w->client), OM_OK);
	(void)om_sim_run(w->sys);
	return w;
}

static inline void
world_free(struct world *w)
{
	assert_int_equal(om_system_stop(w->sys, 1000, NULL, 0), 0);
	om_bus_free(w->bus);
	om_system_free(w->sys);
	free(w);
}

/* Runs the script inside the client; does not wait for what follows. */
static inline void
kick(struct world *w, void (*script)(struct om_service *, struct world *))
{
	struct om_msg *msg = om_system_msg_new(w->sys, MSG_KICK, 0);

	w->script = script;
	assert_int_equal(om_system_send(w->sys, w->client, &msg), OM_OK);
}

static inline void
play(struct world *w, void (*script)(struct om_service *, struct world *))
{
	kick(w, script);
	(void)om_sim_run(w->sys);
}

static inline enum om_err
ask_limits(struct om_service *sv, uint64_t what, uint64_t cookie)
{
	const struct om_queue_limits body = { .max_jobs = what };

	return om_service_ask(sv, "server", OM_MSG_QUEUE_LIMITS, &body, NULL, 1000,
			      client_on_answer, cookie);
}

static inline struct om_bus_stats
stats_of(struct world *w, const char *name)
{
	struct om_bus_stats all[OM_SERVICE_MAX];
	size_t n = om_bus_stats(w->bus, all, OM_COUNT(all));

	for (size_t i = 0; i < n; i++) {
		if (strcmp(all[i].name, name) == 0) {
			return all[i];
		}
	}
	fail();
	return all[0];
}

static inline void
script_ping(struct om_service *sv, struct world *w)
{
	const struct om_empty empty = { 0 };

	(void)w;
	assert_int_equal(
	    om_service_ask(sv, "server", OM_MSG_PING, &empty, NULL, 1000, client_on_answer, 77),
	    OM_OK);
}

#endif /* OM_TESTS_MSG_WORLD_H */
