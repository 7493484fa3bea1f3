/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_FAKE_H
#define OM_TESTS_ACTORS_FAKE_H

/*
 * The services around provider, filter_manager, job_queue and activity_logger, played by small ones
 * in sim mode: a ledger that keeps rows in an array (which outlives a "crash" of the system), an
 * executor that does what the test says, and a driver (named control) through which a test asks.
 */
#include "actors_fake_ledger.h"

struct fake_answer {
	bool done;
	enum om_err err;
	char text[512];
	enum om_msg_type type;
	struct om_buf raw;
	/* the question */
	const char *to;
	enum om_msg_type asked;
	const void *body;
	struct om_bin raw_body; /* instead of body, when there is one */
	struct om_caller as;
};

struct fake {
	struct om_system *sys;
	struct om_bus *bus;
	struct om_actor_id driver, executor;
	struct om_filter_manager_conf filter;
	struct om_job_queue_conf queue;
	struct om_provider_conf provider;
	struct om_activity_logger_conf logger;
	struct om_service_arg args[8];
	size_t arg_count;
	/* the driver */
	struct fake_answer answers[FAKE_ANSWERS];
	size_t answer_count;
	char events[FAKE_EVENTS][96]; /* "job state", as published */
	size_t event_count;
	/* the executor */
	enum om_err exec_start_err;
	char running[FAKE_JOBS][65];
	size_t running_count, running_peak, started;
	const char *end_job;
	enum om_job_state end_state;
	struct om_bus_request drain;
	bool no_executor;
	bool together; /* the queue starts while the filter still reads its lists */
};

static struct fake fake;
#define FAKE_SEEDS 10

static uint64_t fake_seed = 1; /* of the interleaving: each test runs under several */

/* --- executor --------------------------------------------------------------------------------- */

static void
fake_on_moved(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	assert_int_equal(answer->err, OM_OK);
}

static void
fake_move(struct om_service *sv, const char *id, enum om_job_state to, om_bus_answer_fn fn)
{
	struct om_ledger_move move = { .job = om_str_of(id),
				       .state = om_str_of(om_job_state_text(to)) };
	struct om_job_info result = { .job = move.job, .state = move.state };

	OM_SET(&result, job_info, wall_ms, 2000);
	if (om_job_is_final(to)) {
		OM_SET(&move, ledger_move, result, &result);
	}
	assert_int_equal(
	    om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_MOVE, &move, NULL, 1000, fn, 0), OM_OK);
}

static enum om_err
fake_on_start(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_exec_start *m = in->body;
	char *id = fake.running[fake.running_count];
	enum om_err err;

	(void)state;
	if (fake.exec_start_err != OM_OK) {
		return fake.exec_start_err;
	}
	fake_copy(m->job, id, sizeof(fake.running[0]));
	fake.running_count++;
	fake.started++;
	fake.running_peak =
	    fake.running_count > fake.running_peak ? fake.running_count : fake.running_peak;
	err = om_service_reply_ok(sv, in);
	fake_move(sv, id, OM_JOB_PROVISIONING, fake_on_moved);
	fake_move(sv, id, OM_JOB_RUNNING, fake_on_moved);
	return err;
}

static void
fake_on_ended(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	const struct om_job_info *info = answer->body;
	struct om_exec_done done;

	(void)state;
	assert_int_equal(answer->err, OM_OK);
	done = (struct om_exec_done){ .job = info->job, .state = info->state };
	assert_int_equal(om_service_send(sv, OM_JOB_QUEUE, OM_MSG_EXEC_DONE, &done), OM_OK);
	if (fake.running_count == 0 && fake.drain.id != 0) {
		om_service_reply_to(sv, &fake.drain, OM_MSG_OK, &(struct om_empty){ 0 });
	}
}

static bool
fake_end(struct om_service *sv, const char *id, enum om_job_state to)
{
	for (size_t i = 0; i < fake.running_count; i++) {
		if (strcmp(fake.running[i], id) == 0) {
			char gone[65];

			memcpy(gone, id, strlen(id) + 1);
			fake.running_count--;
			memmove(fake.running[i], fake.running[i + 1],
				(fake.running_count - i) * sizeof(fake.running[0]));
			fake_move(sv, gone, to, fake_on_ended);
			return true;
		}
	}
	return false;
}

static enum om_err
fake_on_exec_cancel(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_queue_cancel *m = in->body;
	char id[65];

	(void)state;
	if (om_str_is(m->job, "*")) {
		while (fake.running_count > 0) {
			(void)fake_end(sv, fake.running[0], OM_JOB_CANCELLED);
		}
		return om_service_reply_ok(sv, in);
	}
	fake_copy(m->job, id, sizeof(id));
	return fake_end(sv, id, fake.end_state != 0 ? fake.end_state : OM_JOB_CANCELLED)
		   ? om_service_reply_ok(sv, in)
		   : OM_ERR_NOT_FOUND;
}

static enum om_err
fake_on_drain(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)state;
	if (fake.running_count == 0) {
		return om_service_reply_ok(sv, in);
	}
	fake.drain = om_service_later(sv, in);
	return OM_OK;
}

static enum om_err
fake_exec_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	assert_true(fake_end(sv, fake.end_job, fake.end_state));
	fake.end_state = 0;
	return OM_OK;
}

static const struct om_service_handler fake_executor_handlers[] = {
	{ OM_MSG_EXEC_START, fake_on_start },
	{ OM_MSG_EXEC_CANCEL, fake_on_exec_cancel },
	{ OM_MSG_EXEC_DRAIN, fake_on_drain },
};

static const struct om_service_def fake_executor = {
	.name = OM_EXECUTOR,
	.state_size = 8,
	.start = fake_start_nothing,
	.on = fake_executor_handlers,
	.on_count = OM_COUNT(fake_executor_handlers),
	.on_msg = fake_exec_on_msg,
};

/* --- driver ----------------------------------------------------------------------------------- */

static void
fake_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct fake_answer *a = &fake.answers[answer->cookie];

	(void)sv;
	(void)state;
	assert_false(a->done); /* exactly once */
	a->done = true;
	a->err = answer->err;
	a->type = answer->type;
	(void)snprintf(a->text, sizeof(a->text), "%s", answer->text);
	om_buf_reset(&a->raw);
	om_buf_add(&a->raw, answer->raw.ptr, answer->raw.len);
}

static enum om_err
fake_driver_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct fake_answer *a = &fake.answers[om_msg_u64(msg)];
	enum om_err err;

	(void)state;
	if (a->raw_body.ptr != NULL) {
		err = om_service_ask_raw(sv, a->to, a->asked, a->raw_body, &a->as, 1000 * 1000,
					 fake_on_answer, om_msg_u64(msg));
	} else {
		err = om_service_ask(sv, a->to, a->asked, a->body, &a->as, 1000 * 1000,
				     fake_on_answer, om_msg_u64(msg));
	}
	if (err != OM_OK) {
		a->done = true;
		a->err = err;
	}
	return OM_OK;
}

static enum om_err
fake_on_event(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_job_event *m = in->body;

	(void)sv;
	(void)state;
	assert_true(fake.event_count < FAKE_EVENTS);
	(void)snprintf(fake.events[fake.event_count++], sizeof(fake.events[0]), "%.*s %.*s",
		       OM_STR_ARG(m->job), OM_STR_ARG(m->state));
	return OM_OK;
}

static const struct om_service_handler fake_driver_handlers[] = {
	{ OM_MSG_JOB_EVENT, fake_on_event },
};

static const struct om_service_def fake_driver = {
	.name = OM_CONTROL,
	.state_size = 8,
	.start = fake_start_nothing,
	.on = fake_driver_handlers,
	.on_count = OM_COUNT(fake_driver_handlers),
	.on_msg = fake_driver_on_msg,
};

/* --- a system --------------------------------------------------------------------------------- */

static struct om_actor_id
fake_spawn(const struct om_service_def *def, const void *arg)
{
	struct om_service_arg *a = &fake.args[fake.arg_count++];
	struct om_actor_id id;

	*a = (struct om_service_arg){ .bus = fake.bus, .def = def, .arg = arg };
	assert_int_equal(om_service_spawn(fake.bus, a, &id), OM_OK);
	if (!fake.together || def == &fake_ledger || fake.executor.v != 0) {
		(void)om_sim_run(fake.sys);
	} else {
		(void)om_sim_step(fake.sys);
	}
	return id;
}

/* After the confs were set. */
static void
fake_up(void)
{
	struct om_system_conf conf = { .sim = true, .seed = fake_seed };
	struct om_why why;

	om_log_set_level(OM_LOG_ERROR);
	fake.filter.wall = fake.queue.wall = fake.provider.wall = fake_wall;
	assert_int_equal(om_system_new(&conf, &fake.sys), OM_OK);
	assert_int_equal(om_bus_new(fake.sys, &fake.bus, &why), OM_OK);
	(void)fake_spawn(&fake_ledger, NULL);
	(void)fake_spawn(&om_filter_manager_service, &fake.filter);
	(void)fake_spawn(&om_activity_logger_service, &fake.logger);
	if (!fake.no_executor) {
		fake.executor = fake_spawn(&fake_executor, NULL);
	}
	(void)fake_spawn(&om_job_queue_service, &fake.queue);
	fake.driver = fake_spawn(&fake_driver, NULL);
	(void)fake_spawn(&om_provider_service, &fake.provider);
}

/* The system ends; what is on the disk stays.  A crash and an orderly end look the same to it. */
static void
fake_down(void)
{
	(void)om_system_stop(fake.sys, 1000, NULL, 0);
	om_bus_free(fake.bus);
	om_system_free(fake.sys);
	for (size_t i = 0; i < FAKE_ANSWERS; i++) {
		om_buf_fini(&fake.answers[i].raw);
	}
	fake = (struct fake){ 0 };
}

static int
fake_setup(void **state)
{
	(void)state;
	fake = (struct fake){ 0 };
	fake_now.ns = FAKE_NOW * OM_NS_PER_S;
	fake.filter.default_action = "accept_trusted_hold_others";
	static const char *const trusted[] = { "home" };
	fake.filter.trusted = trusted;
	fake.filter.trusted_count = 1;
	fake.filter.owner_peer = fake.provider.owner_peer = "alice";
	fake.provider.tunnel_offered = true;
	fake.queue.max_jobs = 1;
	return 0;
}

static int
fake_teardown(void **state)
{
	(void)state;
	if (fake.sys != NULL) {
		fake_down();
	}
	for (size_t i = 0; i < disk.row_count; i++) {
		om_buf_fini(&disk.rows[i].spec);
	}
	for (size_t i = 0; i < disk.item_count; i++) {
		om_buf_fini(&disk.items[i].value);
	}
	disk = (struct fake_disk){ 0 };
	return 0;
}

static struct om_caller
fake_caller(enum om_role role, const char *peer, const char *network)
{
	struct om_caller caller = { .role = role };

	(void)snprintf(caller.peer, sizeof(caller.peer), "%s", peer);
	(void)snprintf(caller.network, sizeof(caller.network), "%s", network);
	return caller;
}

/* Asks as somebody; gives where the answer will be.  body lives until then. */
static struct fake_answer *
fake_post(const struct om_caller *as, const char *to, enum om_msg_type type, const void *body)
{
	struct fake_answer *a = &fake.answers[fake.answer_count];
	struct om_msg *msg;

	assert_true(fake.answer_count < FAKE_ANSWERS);
	a->to = to;
	a->asked = type;
	a->body = body;
	a->as = *as;
	msg = om_system_msg_new(fake.sys, 1, sizeof(uint64_t));
	assert_non_null(msg);
	*(uint64_t *)(void *)msg->payload = fake.answer_count++;
	assert_int_equal(om_system_send(fake.sys, fake.driver, &msg), OM_OK);
	return a;
}

/* The same, and runs until nothing moves. */
static struct fake_answer *
fake_ask(const struct om_caller *as, const char *to, enum om_msg_type type, const void *body)
{
	struct fake_answer *a = fake_post(as, to, type, body);

	(void)om_sim_run(fake.sys);
	return a;
}

/* The executor's job ends so. */
static inline void
fake_finish(const char *id, enum om_job_state to)
{
	struct om_msg *msg = om_system_msg_new(fake.sys, 1, sizeof(uint64_t));

	assert_non_null(msg);
	fake.end_job = id;
	fake.end_state = to;
	assert_int_equal(om_system_send(fake.sys, fake.executor, &msg), OM_OK);
	(void)om_sim_run(fake.sys);
}

/* Both clocks move. */
static inline void
fake_advance(uint64_t ms)
{
	fake_now.ns += (int64_t)ms * OM_NS_PER_MS;
	om_sim_advance(fake.sys, ms);
	(void)om_sim_run(fake.sys);
}

/* The answer's body, decoded; views live as long as the answer. */
static void
fake_body(const struct fake_answer *a, enum om_msg_type type, void *out, struct om_arena *arena)
{
	struct om_why why = { "" };

	assert_true(a->done);
	if (a->type != type) {
		fail_msg("the answer is %s: %s", om_err_code(a->err), a->text);
	}
	assert_int_equal(om_body_decode(om_msg_info(type)->body,
					(struct om_bin){ a->raw.data, a->raw.len }, out, arena,
					&why),
			 OM_OK);
}

/* Where "job from->to" is in the trail; -1: nowhere. */
static inline int
fake_trail(const char *what)
{
	for (size_t i = 0; i < disk.trail_count; i++) {
		if (strcmp(disk.trail[i], what) == 0) {
			return (int)i;
		}
	}
	return -1;
}

/* Runs the tests under each seed. */
#define FAKE_RUN(tests)                                                       \
	({                                                                    \
		int failed_ = 0;                                              \
		for (fake_seed = 1; fake_seed <= FAKE_SEEDS; fake_seed++) {   \
			failed_ += cmocka_run_group_tests(tests, NULL, NULL); \
		}                                                             \
		failed_;                                                      \
	})

#endif /* OM_TESTS_ACTORS_FAKE_H */
