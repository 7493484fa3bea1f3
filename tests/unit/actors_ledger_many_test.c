/* SPDX-License-Identifier: ISC */
/* ledger.submit_many on a real bus and a real store, in simulation. */
#include "actors_ledger_rig.h"

#define MANY 8

/* The next job of the question that is being made. */
static struct om_ledger_submit jobs[MANY];
static struct om_job_info rows[MANY];
static struct om_buf bodies[MANY];
static size_t count;

static struct om_ledger_submit *
add(const char *state, const char *id, const struct om_job_submit *spec)
{
	struct om_ledger_submit *m = &jobs[count];
	struct om_job_info *row = &rows[count];
	struct om_buf *body = &bodies[count++];

	om_buf_reset(body);
	OK(om_body_encode(OM_BODY_job_submit, spec, body));
	*row = (struct om_job_info){ .job = om_str_of(id), .state = om_str_of(state) };
	OM_SET(row, job_info, peer, OM_STR("alice"));
	OM_SET(row, job_info, level, OM_STR("network"));
	*m = (struct om_ledger_submit){ .info = row, .spec = { body->data, body->len } };
	OM_SET(m, ledger_submit, chosen, true);
	return m;
}

static void
add_plain(const char *id)
{
	const struct om_job_submit spec = plain_spec();
	struct om_ledger_submit *m = add("queued", id, &spec);

	OM_SET(m, ledger_submit, plain, true);
}

static void
ask_many(void)
{
	struct om_ledger_submits m = { .jobs = { jobs, count } };

	ask(OM_MSG_LEDGER_SUBMIT_MANY, &m);
	for (size_t i = 0; i < count; i++) {
		om_buf_fini(&bodies[i]);
	}
	count = 0;
}

static const struct om_ledger_results *
results(size_t answer, size_t want)
{
	const struct om_ledger_results *m = body_of(answer, OM_MSG_LEDGER_STORED_MANY);

	assert_int_equal(m->results.n, want);
	return m;
}

static void
stored(const struct om_ledger_result *r, bool duplicate)
{
	assert_null(r->error);
	assert_int_equal(r->duplicate, duplicate);
}

static void
refused(const struct om_ledger_result *r, enum om_err err, const char *text)
{
	assert_non_null(r->error);
	STR_IS(r->error->code, om_err_code(err));
	STR_IS(r->error->text, text);
}

static void
test_each_has_its_own_result_and_all_one_commit(void **state)
{
	struct om_job_submit other = plain_spec();
	const struct om_ledger_results *m;
	struct om_ledger_submit *array;
	char got[4096];

	(void)state;
	warm_up();
	OM_SET(&other, job_submit, cores, 4);
	add_plain("a");
	add_plain("a"); /* the same again */
	add("queued", "a", &other);
	add_plain("no/id");
	array = add("queued", "r", &other);
	OM_SET(array, ledger_submit, array, true);
	add("rejected", "b", &other);
	add_plain("c");
	add("queued", "d", &other)->spec = (struct om_bin){ (const uint8_t *)"\x81\xa1x\x01", 4 };
	ask_many();
	ask_plain("e"); /* one that comes alone shares the commit */
	assert_int_equal(go_and_count_commits(), 1);
	m = results(0, 8);
	stored(&m->results.v[0], false);
	stored(&m->results.v[1], true);
	refused(&m->results.v[2], OM_ERR_EXISTS, "there is another job with the id a");
	refused(&m->results.v[3], OM_ERR_INVALID, "the job's row is not valid");
	refused(&m->results.v[4], OM_ERR_INVALID, "an array comes alone");
	stored(&m->results.v[5], false);
	stored(&m->results.v[6], false);
	refused(&m->results.v[7], OM_ERR_INVALID, "the job's body is not valid");
	(void)body_of(1, OM_MSG_LEDGER_STORED);
	order_of('a', got);
	assert_non_null(strstr(got, "a0 a1 "));
	assert_non_null(strstr(W.order, "a:received>queued b:received>rejected! c:received>queued "
					"e:received>queued "));
	FILE_IS("SELECT group_concat(id, ' ') FROM job WHERE id IN ('a','b','c','d','e','r')",
		"a b c e");
}

/* What the ledger needs of a body that is not plain is read. */
static void
test_a_body_that_is_not_plain_is_read(void **state)
{
	struct om_job_submit spec = plain_spec();

	(void)state;
	OM_SET(&spec, job_submit, retries, 2);
	OM_SET(&spec, job_submit, hold, true);
	add("queued", "a", &spec);
	ask_many();
	go();
	stored(&results(0, 1)->results.v[0], false);
	ask_job("", OM_ROLE_OPERATOR, "a");
	go();
	assert_int_equal(((const struct om_job_info *)body_of(0, OM_MSG_JOB_INFO))->attempts_max,
			 3);
	assert_true(((const struct om_job_info *)body_of(0, OM_MSG_JOB_INFO))->held);
}

static void
test_when_none_is_stored_it_is_answered(void **state)
{
	(void)state;
	warm_up();
	add_plain("no/id");
	add_plain("no id");
	ask_many();
	assert_int_equal(go_and_count_commits(), 0);
	refused(&results(0, 2)->results.v[0], OM_ERR_INVALID, "the job's row is not valid");
	refused(&results(0, 2)->results.v[1], OM_ERR_INVALID, "the job's row is not valid");
	ask_many();
	go();
	(void)results(0, 0);
	ask_plain("a");
	go();
	(void)body_of(0, OM_MSG_LEDGER_STORED);
}

static void
test_a_commit_that_fails_is_told_to_all(void **state)
{
	(void)state;
	warm_up();
	fault_set(FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 0);
	add_plain("a");
	add_plain("b");
	ask_many();
	go();
	ERR(OM_ERR_DISK, W.answers[0].err);
	assert_null(strchr(W.order, '>'));
	/* In a ledger that cannot write, those that are refused do not hold up the rest. */
	add_plain("no/id");
	ask_many();
	ask_job("", OM_ROLE_OPERATOR, "a");
	go();
	refused(&results(0, 1)->results.v[0], OM_ERR_INVALID, "the job's row is not valid");
	ERR(OM_ERR_NOT_FOUND, W.answers[1].err);
	fault_clear();
	add_plain("a");
	add_plain("b");
	ask_many();
	go();
	stored(&results(0, 2)->results.v[0], false);
	stored(&results(0, 2)->results.v[1], false);
}

/* Jobs enough for a thread of the pool, which comes when it comes. */
static size_t
kick_large(void)
{
	const size_t jobs_asked = 40;
	struct om_msg *msg = om_system_msg_new(W.sys, MSG_KICK, 0);
	char id[16];

	for (size_t i = 0; i < jobs_asked; i++) {
		(void)snprintf(id, sizeof(id), "j%d", (int)i);
		ask_plain(id);
		W.answers[i].err = OM_ERR_INTERNAL;
	}
	OK(om_system_send(W.sys, W.control_id, &msg));
	return jobs_asked;
}

/* Where the ledger ends, nobody writes what it has sent but itself. */
static void
test_the_end_comes_at_any_moment(void **state)
{
	bool ended = false;

	(void)state;
	for (int steps = 0; !ended; steps++) {
		size_t asked = kick_large(), answered = 0, i;
		void *fx = NULL;

		for (int step = 0; step < steps && !ended; step++) {
			ended = !om_sim_step(W.sys);
		}
		world_stop();
		W.ask_count = 0;
		for (i = 0; i < asked; i++) {
			answered += W.answers[i].err == OM_OK;
		}
		assert_true(!ended || answered == asked);
		world_start();
		for (i = 0; i < answered; i++) {
			char id[16];

			(void)snprintf(id, sizeof(id), "j%d", (int)i);
			ask_job("", OM_ROLE_OPERATOR, id);
		}
		go();
		for (i = 0; i < answered; i++) {
			(void)body_of(i, OM_MSG_JOB_INFO);
		}
		if (!ended) {
			assert_int_equal(teardown(&fx), 0);
			assert_int_equal(setup(&fx), 0);
		}
	}
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_each_has_its_own_result_and_all_one_commit),
		T(test_a_body_that_is_not_plain_is_read),
		T(test_when_none_is_stored_it_is_answered),
		T(test_a_commit_that_fails_is_told_to_all),
		T(test_the_end_comes_at_any_moment),
	};

	om_log_init(OM_LOG_ERROR + 1, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
