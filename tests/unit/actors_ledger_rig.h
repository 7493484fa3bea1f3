/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_LEDGER_RIG_H
#define OM_TESTS_ACTORS_LEDGER_RIG_H

/*
 * The ledger on a real bus and a real store, in simulation.  "control" asks, "provider" and
 * "activity_logger" are fakes that keep what they are told.  What control asks in one go arrives as
 * one group.
 */
#include "tests/unit/store_fault_vfs.h"
#include "tests/unit/store_fixture.h"
#include "actors/ledger.h"
#include "actors/names.h"
#include "base/log.h"
#include "base/parse.h"
#include "msg/codec.h"

#define ANSWERS_MAX 64
#define EVENTS_MAX  256
#define TURNS_MAX   8
#define MSG_KICK    1

struct ask {
	enum om_msg_type type;
	struct om_buf body;
	struct om_caller caller;
};

struct answer {
	enum om_err err;
	enum om_msg_type type;
	char text[OM_WHY_MAX];
	struct om_buf raw;
};

static struct world {
	struct fx fx; /* the folder and the store's path */
	struct om_system *sys;
	struct om_bus *bus;
	struct om_ledger_conf conf;
	struct om_service_arg ledger, provider, logger, control;
	struct om_actor_id ledger_id, control_id;
	struct ask asks[ANSWERS_MAX];
	size_t ask_count, first_cookie;
	size_t asked, turn_end[TURNS_MAX], turns, turn; /* turns: before the last one */
	struct answer answers[ANSWERS_MAX];
	size_t answer_count;
	char order[4096]; /* what came, in order: answers "a0", events "job:from>to" */
	char audit[4096]; /* events of audit.appended: the last of each group */
	uint64_t audit_seq;
	struct om_arena arena;
	struct om_wall now;
} W;

static inline struct om_wall
test_wall(void)
{
	return W.now;
}

static inline void OM_PRINTF(2, 3) note(char out[4096], const char *fmt, ...)
{
	va_list va;
	size_t len = strlen(out);

	va_start(va, fmt);
	(void)vsnprintf(out + len, 4096 - len, fmt, va);
	va_end(va);
}

/* --- the fakes ---------------------------------------------------------------------------------- */

static inline enum om_err
fake_on_event(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_job_event *m = in->body;

	(void)sv;
	(void)state;
	note(W.order, "%.*s:%.*s>%.*s%s ", OM_STR_ARG(m->job), OM_STR_ARG(m->from),
	     OM_STR_ARG(m->state),
	     m->final   ? "!"
	     : m->retry ? "~"
			: "");
	assert_true(!m->final || m->info != NULL);
	return OM_OK;
}

static inline enum om_err
fake_on_appended(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_audit_entry *m = in->body;

	(void)sv;
	(void)state;
	assert_true(m->seq > W.audit_seq); /* none twice */
	W.audit_seq = m->seq;
	note(W.audit, "%.*s ", OM_STR_ARG(m->event));
	return OM_OK;
}

static const struct om_service_handler provider_on[] = { { OM_MSG_JOB_EVENT, fake_on_event } };
static const struct om_service_handler logger_on[] = { { OM_MSG_AUDIT_APPENDED,
							 fake_on_appended } };
static struct om_service_def provider_def = {
	.name = OM_PROVIDER,
	.on = provider_on,
	.on_count = 1,
};
static const struct om_service_def logger_def = {
	.name = OM_ACTIVITY_LOGGER,
	.on = logger_on,
	.on_count = 1,
};

static inline void
control_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *a)
{
	struct answer *out = &W.answers[a->cookie];

	(void)sv;
	(void)state;
	out->err = a->err;
	out->type = a->type;
	(void)snprintf(out->text, sizeof(out->text), "%s", a->text);
	om_buf_reset(&out->raw);
	om_buf_add(&out->raw, a->raw.ptr, a->raw.len);
	W.answer_count++;
	note(W.order, "a%d ", (int)a->cookie);
}

static inline enum om_err
control_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	const size_t to = W.turn < W.turns ? W.turn_end[W.turn++] : W.ask_count;

	(void)state;
	(void)msg;
	for (size_t i = W.asked; i < to; i++) {
		const struct ask *ask = &W.asks[i];

		if (om_msg_info(ask->type)->answer == OM_MSG_NONE) {
			const enum om_body_type type = om_msg_info(ask->type)->body;
			void *body = om_arena_alloc(&W.arena, om_body_info(type)->size);

			OK(om_body_decode(type, (struct om_bin){ ask->body.data, ask->body.len },
					  body, &W.arena, NULL));
			OK(om_service_send(sv, OM_LEDGER, ask->type, body));
			continue;
		}
		OK(om_service_ask_raw(sv, OM_LEDGER, ask->type,
				      (struct om_bin){ ask->body.data, ask->body.len },
				      &ask->caller, 30000, control_on_answer, W.first_cookie + i));
	}
	W.asked = to;
	return OM_OK;
}

static const struct om_service_def control_def = {
	.name = OM_CONTROL,
	.on_msg = control_on_msg,
};

/* --- the world ---------------------------------------------------------------------------------- */

/* As the file in the daemon's run directory: it is there after a restart of the daemon. */
static uint8_t test_seal_key[OM_LEDGER_SEAL_LEN] = { 1, 2, 3 };

static uint64_t world_seed = 7;

static inline void
world_start(void)
{
	const struct om_system_conf conf = { .sim = true, .seed = world_seed };
	struct om_actor_id id;

	OK(om_system_new(&conf, &W.sys));
	OK(om_bus_new(W.sys, &W.bus, NULL));
	W.conf.path = W.fx.path;
	W.conf.wal_bytes = FX_WAL_BYTES;
	W.conf.log_bytes = FX_LOG_BYTES;
	W.conf.vfs = "fault";
	W.conf.wall = test_wall;
	W.conf.seal_key = test_seal_key;
	W.ledger = (struct om_service_arg){ W.bus, &om_ledger_service, &W.conf };
	W.provider = (struct om_service_arg){ W.bus, &provider_def, NULL };
	W.logger = (struct om_service_arg){ W.bus, &logger_def, NULL };
	W.control = (struct om_service_arg){ W.bus, &control_def, NULL };
	OK(om_service_spawn(W.bus, &W.ledger, &W.ledger_id));
	OK(om_service_spawn(W.bus, &W.provider, &id));
	OK(om_service_spawn(W.bus, &W.logger, &id));
	OK(om_service_spawn(W.bus, &W.control, &W.control_id));
	(void)om_sim_run(W.sys);
}

static inline void
world_stop(void)
{
	assert_int_equal(om_system_stop(W.sys, 1000, NULL, 0), 0);
	om_bus_free(W.bus);
	om_system_free(W.sys);
	W.sys = NULL;
}

static inline int
setup(void **state)
{
	void *fx = NULL;

	fault_clear();
	memset(&W, 0, sizeof(W));
	W.now = fx_at(0);
	provider_def.backlog = 0;
	if (fx_setup(&fx) != 0) {
		return -1;
	}
	W.fx = *(struct fx *)fx;
	free(fx);
	fx_close(&W.fx);
	W.fx.conf.path = W.fx.path;
	world_start();
	*state = NULL;
	return 0;
}

static inline int
teardown(void **state)
{
	void *fx = calloc(1, sizeof(W.fx));
	size_t i;

	fault_clear();
	world_stop();
	for (i = 0; i < ANSWERS_MAX; i++) {
		om_buf_fini(&W.asks[i].body);
		om_buf_fini(&W.answers[i].raw);
	}
	om_arena_fini(&W.arena);
	memcpy(fx, &W.fx, sizeof(W.fx));
	*state = fx;
	return fx_teardown(state);
}

/* Around what is put into the store behind the ledger's back. */
static inline void
store_begin(void)
{
	world_stop();
	fx_open(&W.fx);
	OK(om_store_begin(W.fx.st));
}

static inline void
store_commit(void)
{
	OK(om_store_commit(W.fx.st));
	fx_close(&W.fx);
	world_start();
}

/* The next question of the group. */
static inline void
ask_as(const char *peer, enum om_role role, enum om_msg_type type, const void *body)
{
	struct ask *ask = &W.asks[W.ask_count++];

	ask->type = type;
	ask->caller = (struct om_caller){ .role = role };
	(void)snprintf(ask->caller.peer, sizeof(ask->caller.peer), "%s", peer);
	om_buf_reset(&ask->body);
	OK(om_body_encode(om_msg_info(type)->body, body, &ask->body));
}

static inline void
ask(enum om_msg_type type, const void *body)
{
	ask_as("", OM_ROLE_ACTOR, type, body);
}

/* What is asked from here on comes in another turn. */
static inline void
turn(void)
{
	assert_true(W.turns < TURNS_MAX);
	W.turn_end[W.turns++] = W.ask_count;
}

/* Sends the group, or each turn's, and lets everything happen. */
static inline void
go(void)
{
	for (size_t i = 0; i < ANSWERS_MAX; i++) {
		W.answers[i].err = OM_ERR_INTERNAL;
	}
	W.answer_count = 0;
	W.order[0] = '\0';
	W.asked = 0;
	W.turn = 0;
	for (size_t i = 0; i <= W.turns; i++) {
		struct om_msg *msg = om_system_msg_new(W.sys, MSG_KICK, 0);

		OK(om_system_send(W.sys, W.control_id, &msg));
	}
	(void)om_sim_run(W.sys);
	W.ask_count = 0;
	W.turns = 0;
}

/* The file as somebody else reads it: the ledger folds a moment after a commit. */
static inline void
let_fold(void)
{
	if (W.sys != NULL) {
		om_sim_advance(W.sys, 250);
	}
}

#define FILE_IS(sql, want)                       \
	do {                                     \
		let_fold();                      \
		FX_ASK_IS(&W.fx, (sql), (want)); \
	} while (0)

/* The body of answer i, which must be of this type. */
static inline const void *
body_of(size_t i, enum om_msg_type type)
{
	const struct answer *a = &W.answers[i];
	const struct om_body_info *info = om_body_info(om_msg_info(type)->body);
	void *out = om_arena_alloc(&W.arena, info->size);

	if (a->err != OM_OK) {
		fail_msg("answer %d: %s: %s", (int)i, om_err_code(a->err), a->text);
	}
	assert_int_equal(a->type, type);
	OK(om_body_decode(om_msg_info(type)->body, (struct om_bin){ a->raw.data, a->raw.len }, out,
			  &W.arena, NULL));
	return out;
}

#define STR_IS(str, want)                                                    \
	do {                                                                 \
		char got_[600];                                              \
		(void)snprintf(got_, sizeof(got_), "%.*s", OM_STR_ARG(str)); \
		assert_string_equal(got_, want);                             \
	} while (0)

static inline void
ask_submit_as(const char *state, const char *id, const struct om_job_submit *spec, bool chosen)
{
	struct om_job_info info = { 0 };
	struct om_ledger_submit m = { 0 };
	struct om_buf body = { 0 };

	OK(om_body_encode(OM_BODY_job_submit, spec, &body));
	OM_SET(&info, job_info, job, om_str_of(id));
	OM_SET(&info, job_info, state, om_str_of(state));
	OM_SET(&info, job_info, peer, OM_STR("alice"));
	OM_SET(&info, job_info, level, OM_STR("network"));
	OM_SET(&info, job_info, text, OM_STR("network home is trusted"));
	OM_SET(&info, job_info, cores, 2);
	OM_SET(&m, ledger_submit, info, &info);
	OM_SET(&m, ledger_submit, spec, ((struct om_bin){ body.data, body.len }));
	OM_SET(&m, ledger_submit, chosen, chosen);
	OM_SET(&m, ledger_submit, requeue, spec->requeue);
	OM_SET(&m, ledger_submit, after, spec->after);
	ask(OM_MSG_LEDGER_SUBMIT, &m);
	om_buf_fini(&body);
}

static inline void
ask_submit(const char *id, const struct om_job_submit *spec, bool chosen)
{
	ask_submit_as("queued", id, spec, chosen);
}

static inline struct om_job_submit
plain_spec(void)
{
	struct om_job_submit spec = { 0 };

	OM_SET(&spec, job_submit, lang, OM_STR("python"));
	OM_SET(&spec, job_submit, script, ((struct om_bin){ (const uint8_t *)"print(1)", 8 }));
	return spec;
}

static inline void
ask_plain(const char *id)
{
	const struct om_job_submit spec = plain_spec();

	ask_submit(id, &spec, true);
}

static inline void
ask_move(const char *id, const char *to, const struct om_job_info *result)
{
	struct om_ledger_move m = { 0 };

	OM_SET(&m, ledger_move, job, om_str_of(id));
	OM_SET(&m, ledger_move, state, om_str_of(to));
	OM_SET(&m, ledger_move, text, OM_STR("because"));
	if (result != NULL) {
		OM_SET(&m, ledger_move, result, (struct om_job_info *)(uintptr_t)result);
	}
	ask(OM_MSG_LEDGER_MOVE, &m);
}

static inline void
ask_run(const char *id)
{
	ask_move(id, "provisioning", NULL);
	ask_move(id, "running", NULL);
}

static inline void
ask_running(const char *id)
{
	ask_plain(id);
	ask_run(id);
}

static inline void
ask_output(const char *id, const char *stream, const char *file, const char *data)
{
	struct om_ledger_output m = { 0 };

	OM_SET(&m, ledger_output, job, om_str_of(id));
	if (stream != NULL) {
		OM_SET(&m, ledger_output, stream, om_str_of(stream));
	}
	if (file != NULL) {
		OM_SET(&m, ledger_output, file, om_str_of(file));
	}
	OM_SET(&m, ledger_output, data, ((struct om_bin){ (const uint8_t *)data, strlen(data) }));
	ask(OM_MSG_LEDGER_OUTPUT, &m);
}

static inline void
ask_job(const char *peer, enum om_role role, const char *id)
{
	struct om_job_ref m = { 0 };

	OM_SET(&m, job_ref, job, om_str_of(id));
	ask_as(peer, role, OM_MSG_JOB_GET, &m);
}

static inline struct om_job_info
exit_0(void)
{
	struct om_job_info r = { 0 };

	OM_SET(&r, job_info, job, OM_STR("x"));
	OM_SET(&r, job_info, state, OM_STR("x"));
	OM_SET(&r, job_info, exit_code, 0);
	OM_SET(&r, job_info, wall_ms, 1234);
	OM_SET(&r, job_info, cpu_ms, 1000);
	return r;
}

/* The first commit after a start also writes the head of the log. */
static inline void
warm_up(void)
{
	ask_plain("warm");
	go();
	W.audit[0] = '\0';
}

/* The number of fsyncs of the disk while the group is worked on: one a commit. */
static inline int
go_and_count_commits(void)
{
	fault_set(FAULT_SYNC, 0, 0, 0);
	go();
	return fault_count(&fault.seen);
}

/* What came that begins with this letter, in order. */
static inline void
order_of(char first, char out[4096])
{
	struct om_str rest = om_str_of(W.order), word;

	out[0] = '\0';
	while (om_str_next(&rest, ' ', &word)) {
		if (word.len > 0 && word.ptr[0] == first) {
			note(out, "%.*s ", OM_STR_ARG(word));
		}
	}
}

#endif /* OM_TESTS_ACTORS_LEDGER_RIG_H */
