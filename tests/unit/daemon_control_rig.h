/* SPDX-License-Identifier: ISC */
#ifndef DAEMON_CONTROL_RIG_H
#define DAEMON_CONTROL_RIG_H

/*
 * A control endpoint on a real unix socket, with services behind it that are made up here, and raw
 * ZeroMQ clients that may send anything.  Included by the daemon_control*_test.c files.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>
#include <cmocka.h>
#include "base/log.h"
#include "base/mp.h"
#include "base/spawn.h"
#include "daemon/control.h"
#include "msg/codec.h"
#include "msg/envelope.h"
#include "runtime/system.h"

#define RIG_WAIT_MS 20000
#define RIG_BLOB    200000 /* bytes that the fake ledger answers job.output with, without a limit */

struct rig {
	char dir[64], socket[160], file[160];
	struct om_config *config;
	struct om_conf_sources sources;
	struct om_conf_flag flags[16];
	size_t flag_count;
	struct om_system *sys;
	struct om_bus *bus;
	struct om_control_conf control;
	struct om_control_live live; /* as over a restart of the actor */
	struct om_service_arg args[5];
	void *zmq;
	unsigned workers; /* 0: 2 */
	size_t open; /* sockets of clients */
	/* what the actors told */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned events[8]; /* by enum om_control_event */
	uint64_t max_jobs;
	uint64_t stops, audits;
	uint64_t stops_wait; /* the provider answers a stop when the next one comes */
	struct om_bus_request stop_rq; /* the provider's */
	unsigned stops_kept;
	uint64_t policies, queue_max; /* config.policy: how many, the last one's */
	uint64_t bases; /* filter.base: how many */
	char base[128]; /* the last one's blocked peers and rules */
	char trail[512]; /* details of the last entry */
	_Atomic(enum om_err) base_err; /* what the filter says to the next */
};
static struct rig rig;

/* Waits until *counter (under the lock) is at least n. */
static inline void
rig_wait(const unsigned *counter, unsigned n)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += RIG_WAIT_MS / 1000;
	pthread_mutex_lock(&rig.lock);
	while (*counter < n) {
		if (pthread_cond_timedwait(&rig.changed, &rig.lock, &until) != 0) {
			pthread_mutex_unlock(&rig.lock);
			fail_msg("the daemon did not get there");
		}
	}
	pthread_mutex_unlock(&rig.lock);
}

static inline void
rig_note(void *counter_of_64, unsigned *counter, uint64_t value)
{
	pthread_mutex_lock(&rig.lock);
	if (counter_of_64 != NULL) {
		*(uint64_t *)counter_of_64 = value;
	}
	if (counter != NULL) {
		(*counter)++;
	}
	pthread_cond_broadcast(&rig.changed);
	pthread_mutex_unlock(&rig.lock);
}

static inline uint64_t
rig_read(const uint64_t *value)
{
	uint64_t v;

	pthread_mutex_lock(&rig.lock);
	v = *value;
	pthread_mutex_unlock(&rig.lock);
	return v;
}

/* Waits until *value is that much: what one actor tells another arrives when it does. */
static inline void
rig_wait_value(const uint64_t *value, uint64_t wanted)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += RIG_WAIT_MS / 1000;
	pthread_mutex_lock(&rig.lock);
	while (*value != wanted) {
		if (pthread_cond_timedwait(&rig.changed, &rig.lock, &until) != 0) {
			pthread_mutex_unlock(&rig.lock);
			fail_msg("the service was not told");
		}
	}
	pthread_mutex_unlock(&rig.lock);
}

static inline void
rig_on_event(void *arg, enum om_control_event event, const char *text)
{
	(void)arg;
	(void)text;
	rig_note(NULL, &rig.events[event], 0);
}

/* --- services that are made up ---------------------------------------------------------------- */

static inline enum om_err
fake_ok(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)state;
	return om_service_reply_ok(sv, in);
}

/* Says back who it was that asked. */
static inline enum om_err
fake_submit(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_job_accepted body = { 0 };
	char text[200];

	(void)state;
	snprintf(text, sizeof(text), "%s/%s/%s", in->caller->peer, in->caller->network,
		 in->caller->role == OM_ROLE_OPERATOR ? "operator" : "requester");
	body.job = OM_STR("7f3a1c000000");
	body.state = OM_STR("queued");
	OM_SET(&body, job_accepted, text, om_str_of(text));
	return om_service_reply(sv, in, OM_MSG_JOB_ACCEPTED, &body);
}

/* Never answers: the bus does, at the deadline. */
static inline enum om_err
fake_wait(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)state;
	(void)om_service_later(sv, in);
	return OM_OK;
}

static inline enum om_err
fake_cancel(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_job_event event = { 0 };
	struct om_count count = { .count = 1 };

	(void)state;
	event.job = OM_STR("7f3a1c000000");
	event.state = OM_STR("cancelled");
	event.at_ms = 1;
	if (om_service_send(sv, "control", OM_MSG_JOB_EVENT, &event) != OM_OK) {
		return OM_ERR_INTERNAL;
	}
	return om_service_reply(sv, in, OM_MSG_COUNTED, &count);
}

static inline enum om_err
fake_stop(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)state;
	if (rig_read(&rig.stops_wait) != 0) {
		om_service_reply_err_to(sv, &rig.stop_rq, OM_ERR_CANCELLED,
					"another stop took its place");
		rig.stop_rq = om_service_later(sv, in);
		rig_note(NULL, &rig.stops_kept, 0);
		return OM_OK;
	}
	rig_note(&rig.stops, NULL, rig_read(&rig.stops) + 1);
	return om_service_reply_ok(sv, in);
}

static inline enum om_err
fake_queue_stats(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_queue_stats body = { .queued = 4, .running = 1, .max_jobs = 2 };

	(void)state;
	return om_service_reply(sv, in, OM_MSG_QUEUE_STATE, &body);
}

static inline enum om_err
fake_queue_limits(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_queue_limits *m = in->body;

	(void)state;
	rig_note(&rig.max_jobs, NULL, m->max_jobs);
	return om_service_reply_ok(sv, in);
}

static inline enum om_err
fake_policy(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_policy *m = in->body;

	(void)state;
	rig_note(&rig.queue_max, NULL, m->queue_max);
	pthread_mutex_lock(&rig.lock);
	rig.policies++;
	pthread_cond_broadcast(&rig.changed);
	pthread_mutex_unlock(&rig.lock);
	return om_service_reply_ok(sv, in);
}

static inline enum om_err
fake_base(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_filter_base *m = in->body;
	struct om_str told = OM_STR("rule \"a\": added");
	struct om_config_changes out = { .changes = { &told, 1 } };

	(void)state;
	pthread_mutex_lock(&rig.lock);
	rig.bases++;
	rig.base[0] = '\0';
	for (size_t i = 0; i < m->blocked.n; i++) {
		snprintf(rig.base + strlen(rig.base), sizeof(rig.base) - strlen(rig.base), "%.*s ",
			 OM_STR_ARG(m->blocked.v[i]));
	}
	for (size_t i = 0; i < m->rules.n; i++) {
		snprintf(rig.base + strlen(rig.base), sizeof(rig.base) - strlen(rig.base), "[%.*s]",
			 OM_STR_ARG(m->rules.v[i].name));
	}
	pthread_mutex_unlock(&rig.lock);
	if (rig.base_err != OM_OK) {
		return om_service_reply_err(sv, in, rig.base_err, "too many rules");
	}
	return om_service_reply(sv, in, OM_MSG_CONFIG_CHANGES, &out);
}

static inline enum om_err
fake_filter_stats(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_filter_stats body = { .evaluated = 9 };

	(void)state;
	return om_service_reply(sv, in, OM_MSG_FILTER_STATE, &body);
}

static inline enum om_err
fake_counts(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_ledger_counts body = { .pending = 2 };

	(void)state;
	return om_service_reply(sv, in, OM_MSG_LEDGER_COUNTS, &body);
}

static inline enum om_err
fake_audit(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_audit_entry *m = in->body;

	pthread_mutex_lock(&rig.lock);
	snprintf(rig.trail, sizeof(rig.trail), "%.*s", OM_STR_ARG(m->details));
	pthread_mutex_unlock(&rig.lock);
	(void)state;
	rig_note(&rig.audits, NULL, rig_read(&rig.audits) + 1);
	return om_service_reply_ok(sv, in);
}

static inline enum om_err
fake_output(struct om_service *sv, void *state, const struct om_in *in)
{
	static uint8_t blob[1024 * 1024];
	const struct om_output_query *query = in->body;
	struct om_output_data body = { .data = { blob, RIG_BLOB } };

	(void)state;
	if (OM_HAS(query, output_query, limit)) {
		body.data.len = (size_t)query->limit; /* by the schema not more than there is */
	}
	return om_service_reply(sv, in, OM_MSG_OUTPUT_DATA, &body);
}

static const struct om_service_handler fake_provider_on[] = {
	{ OM_MSG_PING, fake_ok },          { OM_MSG_JOB_SUBMIT, fake_submit },
	{ OM_MSG_JOB_WAIT, fake_wait },    { OM_MSG_JOB_CANCEL, fake_cancel },
	{ OM_MSG_DAEMON_STOP, fake_stop }, { OM_MSG_CONFIG_POLICY, fake_policy },
};
static const struct om_service_handler fake_queue_on[] = {
	{ OM_MSG_QUEUE_STATS, fake_queue_stats },
	{ OM_MSG_QUEUE_LIMITS, fake_queue_limits },
	{ OM_MSG_CONFIG_POLICY, fake_policy },
};
static const struct om_service_handler fake_filter_on[] = {
	{ OM_MSG_PING, fake_ok },
	{ OM_MSG_FILTER_STATS, fake_filter_stats },
	{ OM_MSG_FILTER_BASE, fake_base },
	{ OM_MSG_CONFIG_POLICY, fake_policy },
};
static const struct om_service_handler fake_ledger_on[] = {
	{ OM_MSG_LEDGER_COUNT, fake_counts },
	{ OM_MSG_AUDIT_APPEND, fake_audit },
	{ OM_MSG_JOB_OUTPUT, fake_output },
};
static const struct om_service_def fake_provider = { .name = "provider",
						     .state_size = 8,
						     .on = fake_provider_on,
						     .on_count = OM_COUNT(fake_provider_on) };
static const struct om_service_def fake_queue = { .name = "job_queue",
						  .state_size = 8,
						  .on = fake_queue_on,
						  .on_count = OM_COUNT(fake_queue_on) };
static const struct om_service_def fake_filter = { .name = "filter_manager",
						   .state_size = 8,
						   .on = fake_filter_on,
						   .on_count = OM_COUNT(fake_filter_on) };
static const struct om_service_def fake_ledger = { .name = "ledger",
						   .state_size = 8,
						   .on = fake_ledger_on,
						   .on_count = OM_COUNT(fake_ledger_on) };

/* --- up and down ------------------------------------------------------------------------------ */

static inline void
rig_flag(const char *key, const char *value)
{
	assert_true(rig.flag_count < OM_COUNT(rig.flags));
	rig.flags[rig.flag_count++] = (struct om_conf_flag){ key, value, "test" };
}

static inline const char *
rig_path(const char *name)
{
	static char path[4][160];
	static unsigned turn;
	char *out = path[turn++ % 4];

	snprintf(out, sizeof(path[0]), "%s/%s", rig.dir, name);
	return out;
}

static inline void
rig_put(const char *name, const char *text, mode_t mode)
{
	FILE *f = fopen(rig_path(name), "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(rig_path(name), mode), 0);
}

/* cmocka setup: directories and configuration; the test calls rig_up. */
static inline int
rig_setup(void **state)
{
	(void)state;
	memset(&rig, 0, sizeof(rig));
	pthread_mutex_init(&rig.lock, NULL);
	pthread_cond_init(&rig.changed, NULL);
	snprintf(rig.dir, sizeof(rig.dir), "/tmp/omerta-control-XXXXXX");
	if (mkdtemp(rig.dir) == NULL || chmod(rig.dir, 0755) != 0) {
		return -1;
	}
	rig_flag("daemon.state_dir", rig.dir);
	rig_flag("daemon.run_dir", rig.dir);
	rig_flag("control.tcp", "no");
	rig.zmq = zmq_ctx_new();
	zmq_ctx_set(rig.zmq, ZMQ_MAX_SOCKETS, 4096);
	om_log_init(OM_LOG_ERROR + 1, 0);
	return 0;
}

static inline void
rig_up(void)
{
	static const struct om_service_def *const defs[] = { &fake_ledger, &fake_filter,
							     &fake_queue, &fake_provider,
							     &om_control_service };
	const struct om_system_conf conf = { .workers = rig.workers > 0 ? rig.workers : 2 };
	struct om_actor_id id;
	struct om_buf problems = { 0 };
	struct om_why why = { "" };

	snprintf(rig.file, sizeof(rig.file), "%s", rig_path("omertad.conf"));
	rig.sources.file = rig.file;
	rig.sources.with_live = true;
	rig.sources.flags = rig.flags;
	rig.sources.flag_count = rig.flag_count;
	if (om_config_load(&rig.sources, &rig.config, &problems) != OM_OK) {
		fail_msg("%s", om_buf_cstr(&problems));
	}
	om_buf_fini(&problems);
	rig.control = (struct om_control_conf){ .config = rig.config,
						.live = &rig.live,
						.sources = &rig.sources,
						.on_event = rig_on_event,
						.accelerator = "tcg",
						.wireguard = "none" };
	assert_int_equal(om_system_new(&conf, &rig.sys), OM_OK);
	assert_int_equal(om_bus_new(rig.sys, &rig.bus, &why), OM_OK);
	for (size_t i = 0; i < 5; i++) {
		rig.args[i] = (struct om_service_arg){ .bus = rig.bus,
						       .def = defs[i],
						       .arg = i == 4 ? &rig.control : NULL };
		assert_int_equal(om_service_spawn(rig.bus, &rig.args[i], &id), OM_OK);
	}
	rig_wait(&rig.events[OM_CONTROL_READY], 1);
	snprintf(rig.socket, sizeof(rig.socket), "ipc://%s", om_config_control_socket(rig.config));
}

static inline void
rig_down(void)
{
	char left[256] = "";

	if (rig.sys != NULL) {
		assert_int_equal(om_system_stop(rig.sys, 10000, left, sizeof(left)), 0);
		om_bus_free(rig.bus);
		om_system_free(rig.sys);
		rig.sys = NULL;
	}
	om_config_free(rig.config);
	rig.config = NULL;
}

static inline int
rig_teardown(void **state)
{
	const char *argv[] = { "/bin/rm", "-rf", rig.dir, NULL };
	const struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };

	(void)state;
	rig_down();
	om_config_free(rig.live.config);
	rig.live.config = NULL;
	/* A test that failed leaves sockets open, and then this would wait for ever. */
	if (rig.open == 0) {
		zmq_ctx_term(rig.zmq);
	}
	pthread_mutex_destroy(&rig.lock);
	pthread_cond_destroy(&rig.changed);
	return om_spawn_run(&how, 10000, NULL, NULL, NULL) == OM_OK ? 0 : -1;
}

/* --- clients ---------------------------------------------------------------------------------- */

static inline void
client_close(void *sock)
{
	rig.open--;
	zmq_close(sock);
}

static inline void *
client_new(int type, const char *url)
{
	void *sock = zmq_socket(rig.zmq, type);
	int timeout = RIG_WAIT_MS, linger = 0;

	rig.open++;
	assert_non_null(sock);
	zmq_setsockopt(sock, ZMQ_RCVTIMEO, &timeout, sizeof(timeout));
	zmq_setsockopt(sock, ZMQ_SNDTIMEO, &timeout, sizeof(timeout));
	zmq_setsockopt(sock, ZMQ_LINGER, &linger, sizeof(linger));
	assert_int_equal(zmq_connect(sock, url), 0);
	return sock;
}

static inline void
client_send(void *sock, enum om_msg_type type, uint64_t id, uint64_t deadline, const void *body)
{
	struct om_buf buf = { 0 };

	assert_int_equal(om_envelope_encode(type, id, deadline, body, &buf), OM_OK);
	assert_int_equal(zmq_send(sock, buf.data, buf.len, 0), (int)buf.len);
	om_buf_fini(&buf);
}

/* One answer.  text holds an error's "code: text", or "" for another answer. */
struct reply {
	enum om_msg_type type;
	uint64_t id;
	char text[400];
	zmq_msg_t frame;
	struct om_bin body;
	struct om_arena arena;
};

static inline bool
reply_recv(void *sock, struct reply *r)
{
	struct om_envelope env;
	struct om_error *error;
	struct om_bin frame;

	memset(r, 0, sizeof(*r));
	zmq_msg_init(&r->frame);
	if (zmq_msg_recv(&r->frame, sock, 0) < 0) {
		zmq_msg_close(&r->frame);
		return false;
	}
	frame = (struct om_bin){ zmq_msg_data(&r->frame), zmq_msg_size(&r->frame) };
	assert_int_equal(om_envelope_decode(frame, &env, NULL), OM_OK);
	r->type = env.type;
	r->id = env.id;
	r->body = env.body;
	if (r->type == OM_MSG_ERROR) {
		error = om_arena_alloc(&r->arena, sizeof(*error));
		assert_int_equal(om_body_decode(OM_BODY_error, r->body, error, &r->arena, NULL),
				 OM_OK);
		snprintf(r->text, sizeof(r->text), "%.*s: %.*s", OM_STR_ARG(error->code),
			 OM_STR_ARG(error->text));
	}
	return true;
}

static inline void
reply_fini(struct reply *r)
{
	zmq_msg_close(&r->frame);
	om_arena_fini(&r->arena);
}

static inline void *
reply_body(struct reply *r, enum om_body_type body)
{
	void *out = om_arena_alloc(&r->arena, om_body_info(body)->size);
	struct om_why why = { "" };

	if (r->type == OM_MSG_ERROR) {
		fail_msg("%s", r->text);
	}
	if (om_body_decode(body, r->body, out, &r->arena, &why) != OM_OK) {
		fail_msg("%s", why.text);
	}
	return out;
}

static inline void
call(void *sock, enum om_msg_type type, const void *body, struct reply *r)
{
	static uint64_t id = 100;

	client_send(sock, type, ++id, 0, body);
	assert_true(reply_recv(sock, r));
	assert_int_equal(r->id, id);
}

static inline void
call_ok(void *sock, enum om_msg_type type, const void *body)
{
	struct reply r;

	call(sock, type, body, &r);
	assert_int_equal(r.type, OM_MSG_OK);
	reply_fini(&r);
}

/* The daemon serves: a new client gets its ping answered. */
static inline void
still_serves(void)
{
	const struct om_empty body = { 0 };
	void *sock = client_new(ZMQ_DEALER, rig.socket);

	call_ok(sock, OM_MSG_PING, &body);
	client_close(sock);
}

/* A counter of daemon.status. */
static inline uint64_t
counter(const char *name)
{
	const struct om_empty body = { 0 };
	void *sock = client_new(ZMQ_DEALER, rig.socket);
	const struct om_daemon_status *m;
	char text[32] = "";
	struct reply r;

	call(sock, OM_MSG_DAEMON_STATUS, &body, &r);
	m = reply_body(&r, OM_BODY_daemon_status);
	for (size_t i = 0; i < m->counters.n; i++) {
		if (om_str_is(m->counters.v[i].key, name)) {
			assert_int_equal(om_str_copy(m->counters.v[i].value, text, sizeof(text)),
					 OM_OK);
		}
	}
	assert_true(text[0] != '\0');
	reply_fini(&r);
	client_close(sock);
	return strtoull(text, NULL, 10);
}

#endif /* DAEMON_CONTROL_RIG_H */
