/* SPDX-License-Identifier: ISC */
/*
 * The ledger on its own thread, asked by several services on worker threads at once: every request
 * is answered once, and what was answered is in the store.
 */
#include <errno.h>
#include <pthread.h>
#include <time.h>
#include "tests/unit/store_fixture.h"
#include "actors/ledger.h"
#include "actors/names.h"
#include "base/log.h"
#include "msg/codec.h"

#define CLIENTS   4
#define JOBS      500 /* of each */
#define IN_FLIGHT 50
#define WAIT_S    60 /* a test that waits longer has failed */
#define MSG_KICK  1

struct client {
	unsigned number, asked, answered;
};

static struct world {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned answered, failed, finished, events, audits;
} W = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void
count(unsigned *what)
{
	pthread_mutex_lock(&W.lock);
	(*what)++;
	pthread_cond_broadcast(&W.changed);
	pthread_mutex_unlock(&W.lock);
}

static bool
wait_until(const unsigned *what, unsigned want)
{
	struct timespec until;
	int rc = 0;
	bool ok;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&W.lock);
	while (*what < want && rc != ETIMEDOUT) {
		rc = pthread_cond_timedwait(&W.changed, &W.lock, &until);
	}
	ok = *what == want;
	pthread_mutex_unlock(&W.lock);
	return ok;
}

/* --- services ----------------------------------------------------------------------------------- */

static enum om_err
on_event(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)sv;
	(void)state;
	(void)in;
	count(&W.events);
	return OM_OK;
}

/* The last entry of a group. */
static enum om_err
on_audit(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_audit_entry *m = in->body;

	(void)sv;
	(void)state;
	pthread_mutex_lock(&W.lock);
	W.audits = (unsigned)m->seq;
	pthread_cond_broadcast(&W.changed);
	pthread_mutex_unlock(&W.lock);
	return OM_OK;
}

static const struct om_service_handler told_on[] = { { OM_MSG_JOB_EVENT, on_event },
						     { OM_MSG_AUDIT_APPENDED, on_audit } };
static const struct om_service_def provider_def = { .name = OM_PROVIDER,
						    .on = told_on,
						    .on_count = 2 };
static const struct om_service_def logger_def = { .name = OM_ACTIVITY_LOGGER,
						  .on = told_on,
						  .on_count = 2 };

static void client_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *a);

static bool
client_ask(struct om_service *sv, struct client *c)
{
	struct om_job_submit spec = { 0 };
	struct om_job_info info = { 0 };
	struct om_ledger_submit m = { 0 };
	struct om_buf body = { 0 };
	enum om_err err;
	char id[32];

	(void)snprintf(id, sizeof(id), "c%u.%u", c->number, c->asked++);
	OM_SET(&spec, job_submit, lang, OM_STR("sh"));
	OM_SET(&spec, job_submit, script, ((struct om_bin){ (const uint8_t *)"true", 4 }));
	OM_SET(&info, job_info, job, om_str_of(id));
	OM_SET(&info, job_info, state, OM_STR("queued"));
	OM_SET(&info, job_info, peer, OM_STR("alice"));
	OM_SET(&m, ledger_submit, info, &info);
	if (om_body_encode(OM_BODY_job_submit, &spec, &body) != OM_OK) {
		count(&W.failed);
	}
	OM_SET(&m, ledger_submit, spec, ((struct om_bin){ body.data, body.len }));
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_SUBMIT, &m, NULL, WAIT_S * 1000,
			     client_on_answer, 0);
	om_buf_fini(&body);
	if (err == OM_ERR_NOT_FOUND || err == OM_ERR_GONE) {
		c->asked--; /* the ledger is still opening its file */
		return false;
	}
	if (err != OM_OK) {
		count(&W.failed);
	}
	return true;
}

static void
client_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *a)
{
	struct client *c = state;

	c->answered++;
	count(a->err == OM_OK && a->type == OM_MSG_LEDGER_STORED ? &W.answered : &W.failed);
	if (c->asked < JOBS) {
		(void)client_ask(sv, c);
	} else if (c->answered == JOBS) {
		count(&W.finished);
	}
}

static enum om_err
client_start(struct om_service *sv, void *state, const void *arg)
{
	(void)sv;
	((struct client *)state)->number = *(const unsigned *)arg;
	return OM_OK;
}

static enum om_err
client_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct client *c = state;
	uint64_t timer;

	(void)msg;
	while (c->asked < IN_FLIGHT) {
		if (!client_ask(sv, c)) {
			return om_timer_start(om_service_cx(sv), 1, 0, 0, &timer);
		}
	}
	return OM_OK;
}

static const char *const client_names[CLIENTS] = { "client0", "client1", "client2", "client3" };

static void
test_clients_on_threads(void **state)
{
	static struct om_service_def defs[CLIENTS];
	static unsigned numbers[CLIENTS];
	const struct om_system_conf conf = { .workers = 2 };
	struct om_ledger_conf ledger_conf = { .wal_bytes = FX_WAL_BYTES };
	struct om_service_arg args[CLIENTS + 3];
	struct om_actor_id ids[CLIENTS], id;
	uint64_t counts[OM_JOB_STATES];
	struct om_system *sys;
	struct fx *fx = *state;
	struct om_bus *bus;
	unsigned i;

	fx_close(fx);
	ledger_conf.path = fx->path;
	OK(om_system_new(&conf, &sys));
	OK(om_bus_new(sys, &bus, NULL));
	args[CLIENTS] = (struct om_service_arg){ bus, &om_ledger_service, &ledger_conf };
	args[CLIENTS + 1] = (struct om_service_arg){ bus, &provider_def, NULL };
	args[CLIENTS + 2] = (struct om_service_arg){ bus, &logger_def, NULL };
	for (i = CLIENTS; i < CLIENTS + 3; i++) {
		OK(om_service_spawn(bus, &args[i], &id));
	}
	for (i = 0; i < CLIENTS; i++) {
		numbers[i] = i;
		defs[i] = (struct om_service_def){ .name = client_names[i],
						   .state_size = sizeof(struct client),
						   .start = client_start,
						   .on_msg = client_on_msg };
		args[i] = (struct om_service_arg){ bus, &defs[i], &numbers[i] };
		OK(om_service_spawn(bus, &args[i], &ids[i]));
	}
	for (i = 0; i < CLIENTS; i++) {
		struct om_msg *msg = om_system_msg_new(sys, MSG_KICK, 0);

		OK(om_system_send(sys, ids[i], &msg));
	}
	assert_true(wait_until(&W.finished, CLIENTS));
	assert_true(wait_until(&W.events, CLIENTS * JOBS));
	assert_true(wait_until(&W.audits, 2 * CLIENTS * JOBS));
	assert_int_equal(W.failed, 0);
	assert_int_equal(W.answered, CLIENTS * JOBS);
	assert_int_equal(om_system_stop(sys, 10000, NULL, 0), 0);
	om_bus_free(bus);
	om_system_free(sys);
	fx_open(fx);
	OK(om_store_counts(fx->st, counts));
	assert_int_equal(counts[OM_JOB_QUEUED], CLIENTS * JOBS);
	assert_false(fx_verify(fx, NULL).broken);
	OK(om_store_check(fx->st));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_clients_on_threads, fx_setup, fx_teardown),
	};

	om_log_init(OM_LOG_ERROR, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
