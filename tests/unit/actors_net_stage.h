/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_NET_STAGE_H
#define OM_TESTS_ACTORS_NET_STAGE_H

/*
 * The stage of the tests of vpn_manager and rogue_connection_detector: the real runtime, bus and
 * supervisor, threads included; the executor is a fake that keeps what it is told and asks what the
 * test wants asked.  The kernel's side (net/nflog.h, net/jobnet.h) is played by the test itself: it
 * defines those functions, so net/'s are not linked.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "actors/names.h"
#include "actors/rogue_connection_detector.h"
#include "actors/vpn_manager.h"
#include "base/assert.h"
#include "msg/codec.h"
#include "runtime/supervisor.h"

#define STAGE_WAIT_S 20 /* a test that waits longer has failed */
#define STAGE_TOLD   16

enum stage_cmd { STAGE_ASK = 100, STAGE_SEND, STAGE_KILL, STAGE_HAND_OVER, STAGE_GUARD };

struct stage_told {
	char job[65], state[25], reason[33], text[513], destination[64];
};

struct stage {
	struct om_system *sys;
	struct om_bus *bus;
	struct om_service_arg args[3];
	struct om_child_spec children[3];
	struct om_supervisor_spec spec;
	struct om_actor_id supervisor;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	struct stage_told told[STAGE_TOLD]; /* rogue.caught */
	size_t told_count;
	/* the question under way, and its answer */
	const char *to;
	enum om_msg_type type;
	const void *body;
	bool done;
	enum om_err err;
	char text[513];
	struct om_buf raw;
};

static struct stage *S; /* cmocka runs one test at a time */

static void
stage_lock(void)
{
	pthread_mutex_lock(&S->lock);
}

static void
stage_unlock(void)
{
	pthread_cond_broadcast(&S->changed);
	pthread_mutex_unlock(&S->lock);
}

static void
stage_wait(bool (*is_so)(void))
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STAGE_WAIT_S;
	stage_lock();
	while (!is_so()) {
		if (pthread_cond_timedwait(&S->changed, &S->lock, &until) == ETIMEDOUT) {
			stage_unlock();
			fail_msg("waited too long");
		}
	}
	stage_unlock();
}

/* --- the fake executor -------------------------------------------------------------------------- */

static void
stage_copy(struct om_str s, char *out, size_t size)
{
	OM_ASSERT(om_str_copy(s, out, size) == OM_OK);
}

static enum om_err
stage_on_caught(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_rogue_caught *m = in->body;
	struct stage_told *t;
	size_t i;

	(void)sv;
	(void)state;
	stage_lock();
	OM_ASSERT(S->told_count < STAGE_TOLD);
	t = &S->told[S->told_count++];
	stage_copy(m->job, t->job, sizeof(t->job));
	stage_copy(m->state, t->state, sizeof(t->state));
	stage_copy(m->reason, t->reason, sizeof(t->reason));
	stage_copy(m->text, t->text, sizeof(t->text));
	for (i = 0; OM_HAS(m, rogue_caught, evidence) && i < m->evidence.n; i++) {
		if (om_str_is(m->evidence.v[i].key, "destination")) {
			stage_copy(m->evidence.v[i].value, t->destination, sizeof(t->destination));
		}
	}
	stage_unlock();
	return OM_OK;
}

static void
stage_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	stage_lock();
	S->err = answer->err;
	(void)snprintf(S->text, sizeof(S->text), "%s", answer->text);
	om_buf_fini(&S->raw);
	S->raw = (struct om_buf){ 0 };
	om_buf_add(&S->raw, answer->raw.ptr, answer->raw.len);
	S->done = true;
	stage_unlock();
}

static enum om_err
stage_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	(void)state;
	if (msg->type == STAGE_ASK) {
		enum om_err err =
		    om_service_ask(sv, S->to, S->type, S->body, NULL, 5000, stage_on_answer, 0);

		if (err != OM_OK) {
			stage_lock();
			S->err = err; /* the peer is between two lives */
			S->done = true;
			stage_unlock();
		}
		return OM_OK;
	}
	if (msg->type == STAGE_SEND) {
		OM_ASSERT(om_service_send(sv, S->to, S->type, S->body) == OM_OK);
		stage_lock();
		S->done = true;
		stage_unlock();
		return OM_OK;
	}
	if (msg->type == STAGE_KILL) {
		om_kill(om_service_cx(sv), om_whereis(S->sys, S->to));
		stage_lock();
		S->done = true;
		stage_unlock();
		return OM_OK;
	}
	if (msg->type == STAGE_HAND_OVER || msg->type == STAGE_GUARD) {
		bool is_guard = msg->type == STAGE_GUARD;
		struct om_ctx *cx = om_service_cx(sv);
		struct om_msg *m = om_msg_new_owner(
		    cx, is_guard ? OM_ROGUE_GUARD : OM_VPN_HANDOFF, (void *)(uintptr_t)S->body,
		    is_guard ? om_rogue_guard_free : om_vpn_handoff_free);

		OM_ASSERT(m != NULL && om_send_urgent(cx, om_whereis(S->sys, S->to), &m) == OM_OK);
		stage_lock();
		S->done = true;
		stage_unlock();
		return OM_OK;
	}
	return OM_ERR_UNKNOWN_TYPE;
}

static const struct om_service_handler stage_handlers[] = {
	{ OM_MSG_ROGUE_CAUGHT, stage_on_caught },
};
static const struct om_service_def stage_executor = {
	.name = OM_EXECUTOR,
	.on = stage_handlers,
	.on_count = OM_COUNT(stage_handlers),
	.on_msg = stage_on_msg,
};

static bool
stage_is_done(void)
{
	return S->done;
}

static void
stage_command(enum stage_cmd cmd, const char *to, enum om_msg_type type, const void *body)
{
	struct om_msg *msg = om_system_msg_new(S->sys, (uint32_t)cmd, 0);

	assert_non_null(msg);
	S->to = to;
	S->type = type;
	S->body = body;
	S->done = false;
	assert_int_equal(om_system_send(S->sys, om_whereis(S->sys, OM_EXECUTOR), &msg), OM_OK);
}

/* Asks as the executor and waits for the answer, whose body is in S->raw. */
static enum om_err
stage_ask(const char *to, enum om_msg_type type, const void *body)
{
	stage_command(STAGE_ASK, to, type, body);
	stage_wait(stage_is_done);
	return S->err;
}

static inline enum om_err
stage_ask_job(const char *to, enum om_msg_type type, const char *job)
{
	struct om_job_ref ref = { .job = om_str_of(job) };

	return stage_ask(to, type, &ref);
}

static inline void
stage_send(const char *to, enum om_msg_type type, const void *body)
{
	stage_command(STAGE_SEND, to, type, body);
	stage_wait(stage_is_done);
}

/* The service ends in the middle of its life; its end is seen by what its stop does. */
static inline void
stage_kill(const char *name)
{
	stage_command(STAGE_KILL, name, OM_MSG_OK, NULL);
	stage_wait(stage_is_done);
}

/* After that: comes back when the next life answers; the question's own error is not one of these. */
static inline void
stage_next_life(const char *name, enum om_msg_type type, const void *question)
{
	enum om_err err;

	do {
		err = stage_ask(name, type, question);
	} while (err == OM_ERR_GONE || err == OM_ERR_NOT_FOUND);
}

static bool
stage_was_told(void)
{
	return S->told_count > 0;
}

static inline void
assert_told(size_t which, const char *state, const char *reason)
{
	stage_wait(stage_was_told);
	assert_true(S->told_count > which);
	assert_string_equal(S->told[which].state, state);
	assert_string_equal(S->told[which].reason, reason);
}

/* --- up and down -------------------------------------------------------------------------------- */

/* The executor, what is tested, and perhaps another fake, under a supervisor as in the daemon. */
static int
stage_up(const struct om_service_def *tested, const void *arg, const struct om_service_def *fake)
{
	size_t count = fake != NULL ? 3 : 2;
	struct om_system_conf sys = { .workers = 2 };
	struct om_why why;
	size_t i;

	S = calloc(1, sizeof(*S));
	pthread_mutex_init(&S->lock, NULL);
	pthread_cond_init(&S->changed, NULL);
	assert_int_equal(om_system_new(&sys, &S->sys), OM_OK);
	assert_int_equal(om_bus_new(S->sys, &S->bus, &why), OM_OK);
	S->args[0] = (struct om_service_arg){ S->bus, &stage_executor, NULL };
	S->args[1] = (struct om_service_arg){ S->bus, tested, arg };
	S->args[2] = (struct om_service_arg){ S->bus, fake, NULL };
	for (i = 0; i < count; i++) {
		S->children[i] = (struct om_child_spec){
			.def = om_service_actor(S->bus, S->args[i].def),
			.arg = &S->args[i],
			.name = S->args[i].def->name,
			.restart = OM_RESTART_ALWAYS,
			.stop_timeout_ms = 5000,
		};
	}
	S->spec = (struct om_supervisor_spec){ .name = "stage",
					       .strategy = OM_ONE_FOR_ONE,
					       .max_restarts = 5,
					       .window_ms = 60000,
					       .backoff_min_ms = 1,
					       .backoff_max_ms = 10,
					       .children = S->children,
					       .child_count = count };
	assert_int_equal(om_supervisor_start(S->sys, &S->spec, &S->supervisor), OM_OK);
	return 0;
}

static void
stage_down(void)
{
	char left[256] = "";

	assert_int_equal(om_system_stop(S->sys, 5000, left, sizeof(left)), 0);
	om_bus_free(S->bus);
	om_system_free(S->sys);
	om_buf_fini(&S->raw);
	pthread_cond_destroy(&S->changed);
	pthread_mutex_destroy(&S->lock);
	free(S);
	S = NULL;
}

#endif /* OM_TESTS_ACTORS_NET_STAGE_H */
