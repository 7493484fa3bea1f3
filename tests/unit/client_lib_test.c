/* SPDX-License-Identifier: ISC */
/* The client library against a ROUTER that behaves, or does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/mp.h"
#include "tests/unit/client_fake.h"

#define SOON_MS 5000 /* far below any time-out that could be mistaken for it */
#define LONG_MS 20000

/* --- a well-behaved daemon ------------------------------------------------------------------------ */

static void
accept_job(struct fake *f, struct fake_request *r)
{
	struct om_job_submit m = { 0 };
	struct om_job_accepted answer = { 0 };

	(void)f;
	fake_body(r, &m);
	/* What the test set must have come through. */
	OM_ASSERT(om_str_is(m.lang, "python"));
	OM_ASSERT(m.script.len == 11 && memcmp(m.script.ptr, "print('hi')", 11) == 0);
	OM_ASSERT(m.args.n == 3 && om_str_is(m.args.v[2], "c"));
	OM_ASSERT(m.env.n == 2 && om_str_is(m.env.v[0].value, "new") &&
		  om_str_is(m.env.v[1].key, "B"));
	OM_ASSERT(m.files.n == 3 && om_str_is(m.files.v[0].name, "f0") &&
		  om_str_is(m.files.v[2].name, "f2") && m.files.v[2].data.len == 3);
	OM_ASSERT(m.cores == 2 && OM_HAS(&m, job_submit, cores) &&
		  !OM_HAS(&m, job_submit, mem_mib) && OM_HAS(&m, job_submit, hold));
	OM_ASSERT(m.vpn != NULL && om_str_is(m.vpn->endpoint, "127.0.0.1:51820"));
	answer.job = OM_STR("7f3a1c00d00d");
	answer.state = OM_STR("queued");
	OM_SET(&answer, job_accepted, ahead, 3);
	fake_answer(r, OM_MSG_JOB_ACCEPTED, &answer);
}

static struct omerta_body *
sample_job(void)
{
	struct omerta_body *job = omerta_body_new("job.submit"), *vpn;

	omerta_set_str(job, "lang", "python");
	omerta_set_str(job, "script", "print('hi')");
	for (const char *a = "a"; a[0] != 'd'; a = a[0] == 'a' ? "b" : a[0] == 'b' ? "c" : "d") {
		omerta_add_str(job, "args", a);
	}
	omerta_add_pair(job, "env", "A", "old");
	omerta_add_pair(job, "env", "B", "2");
	omerta_add_pair(job, "env", "A", "new");
	for (int i = 0; i < 3; i++) {
		struct omerta_body *file = omerta_add_body(job, "files");
		char name[8];

		(void)snprintf(name, sizeof(name), "f%d", i);
		omerta_set_str(file, "name", name);
		omerta_set_bin(file, "data", "\0\1\2", 3);
	}
	omerta_set_u64(job, "cores", 2);
	omerta_set_bool(job, "hold", false);
	vpn = omerta_add_body(job, "vpn");
	omerta_set_str(vpn, "private_key", "k");
	omerta_add_str(vpn, "addresses", "10.0.0.2/32");
	omerta_set_str(vpn, "peer_public_key", "p");
	omerta_set_str(vpn, "endpoint", "127.0.0.1:51820");
	omerta_add_str(vpn, "allowed_ips", "10.0.0.0/24");
	assert_null(omerta_body_error(job));
	return job;
}

static void
test_submit_carries_every_kind_of_field(void **state)
{
	struct fake f;
	struct omerta *o;
	struct omerta_body *job = sample_job(), *accepted = NULL;
	char id[OMERTA_ID_SIZE];

	(void)state;
	fake_new(&f, accept_job, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_submit(o, job, id), 0);
	assert_string_equal(id, "7f3a1c00d00d");
	assert_string_equal(omerta_error_code(o), "");
	assert_int_equal(omerta_submit_body(o, job, &accepted), 0);
	assert_string_equal(omerta_get_str(accepted, "state"), "queued");
	assert_int_equal(omerta_get_u64(accepted, "ahead"), 3);
	assert_int_equal(omerta_get_i64(accepted, "ahead"), 3);
	/* Absent, of another kind, unknown: the nothing value. */
	assert_null(omerta_get_str(accepted, "text"));
	assert_null(omerta_get_str(accepted, "ahead"));
	assert_null(omerta_get_str(accepted, "nonsense"));
	assert_false(omerta_has(accepted, "text"));
	assert_true(omerta_has(accepted, "ahead"));
	assert_int_equal(omerta_count(accepted, "nonsense"), 0);
	omerta_body_free(accepted);
	omerta_body_free(job);
	omerta_free(o);
	fake_free(&f);
}

static void
test_mistakes_in_a_body_are_named(void **state)
{
	struct omerta *o = omerta_new();
	struct omerta_body *job = omerta_body_new("job.submit"), *file;
	char id[OMERTA_ID_SIZE];

	(void)state;
	assert_null(omerta_body_new("job.sumbit"));
	omerta_set_str(job, "lnag", "python");
	assert_non_null(strstr(omerta_body_error(job), "did you mean \"lang\""));
	assert_int_equal(omerta_submit(o, job, id), -1);
	assert_true(omerta_error_is(o, "usage"));
	omerta_body_free(job);

	job = omerta_body_new("job.submit");
	omerta_set_str(job, "cores", "two");
	assert_int_equal(omerta_submit(o, job, id), -1);
	assert_non_null(strstr(omerta_error_text(o), "cores"));
	omerta_body_free(job);

	job = omerta_body_new("job.submit");
	omerta_set_str(job, "lang", "sh");
	assert_int_equal(omerta_submit(o, job, id), -1);
	assert_non_null(strstr(omerta_error_text(o), "\"script\""));
	omerta_set_str(job, "script", "true");
	file = omerta_add_body(job, "files");
	omerta_set_str(file, "name", "x");
	assert_int_equal(omerta_submit(o, job, id), -1);
	assert_non_null(strstr(omerta_error_text(o), "\"files.data\""));
	omerta_body_free(job);

	job = omerta_body_new("job.list");
	assert_int_equal(omerta_submit(o, job, id), -1);
	assert_true(omerta_error_is(o, "usage"));
	assert_int_equal(omerta_call(o, "job.get", NULL, NULL), -1);
	assert_true(omerta_error_is(o, "usage"));
	assert_int_equal(omerta_call(o, "job.info", NULL, NULL), -1); /* no request */
	assert_true(omerta_error_is(o, "usage"));
	omerta_body_free(job);
	omerta_free(o);
}

/* --- errors and several at a time ------------------------------------------------------------------ */

static void
refuse_with_details(struct fake *f, struct fake_request *r)
{
	struct om_pair pair = { OM_STR("candidates"), OM_STR("7f3a, 7f3b") };
	struct om_error m = { .code = OM_STR("not_found") };

	(void)f;
	OM_SET(&m, error, text, OM_STR("no job 7f"));
	OM_SET(&m, error, details, ((struct om_pairs){ &pair, 1 }));
	fake_answer(r, OM_MSG_ERROR, &m);
}

static void
test_an_error_has_code_text_and_details(void **state)
{
	struct fake f;
	struct omerta *o;
	struct omerta_body *info = NULL;
	const char *name, *value;

	(void)state;
	fake_new(&f, refuse_with_details, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_get(o, "7f", &info), -1);
	assert_null(info);
	assert_string_equal(omerta_error_code(o), "not_found");
	assert_string_equal(omerta_error_text(o), "no job 7f");
	assert_string_equal(omerta_error_detail(o, "candidates"), "7f3a, 7f3b");
	assert_null(omerta_error_detail(o, "other"));
	assert_true(omerta_error_detail_at(o, 0, &name, &value));
	assert_false(omerta_error_detail_at(o, 1, &name, &value));
	omerta_free(o);
	fake_free(&f);
}

#define BATCH 8

/* Answers the requests in reverse, when BATCH are there. */
static void
answer_in_reverse(struct fake *f, struct fake_request *r)
{
	static struct fake_request kept[BATCH];
	static char ids[BATCH][16];
	unsigned n = (atomic_load(&f->seen) - 1) % BATCH;
	struct om_job_ref m = { 0 };

	fake_body(r, &m);
	(void)snprintf(ids[n], sizeof(ids[n]), "%.*s", OM_STR_ARG(m.job));
	kept[n] = (struct fake_request){ .fake = f, .envelope = r->envelope };
	(void)zmq_msg_init(&kept[n].from);
	(void)zmq_msg_copy(&kept[n].from, &r->from);
	for (unsigned i = BATCH; n == BATCH - 1 && i-- > 0;) {
		struct om_job_info info = { .job = om_str_of(ids[i]), .state = OM_STR("running") };

		fake_answer(&kept[i], OM_MSG_JOB_INFO, &info);
		(void)zmq_msg_close(&kept[i].from);
	}
}

static void
start_batch(struct omerta *o, uint64_t ticket[BATCH])
{
	for (int i = 0; i < BATCH; i++) {
		struct omerta_body *ref = omerta_body_new("job.get");
		char id[16];

		(void)snprintf(id, sizeof(id), "job%d", i);
		omerta_set_str(ref, "job", id);
		assert_int_equal(omerta_start(o, "job.get", ref, 0, &ticket[i]), 0);
		omerta_body_free(ref);
	}
}

static void
test_answers_find_their_request(void **state)
{
	struct fake f;
	struct omerta *o;
	struct omerta_body *info = NULL;
	uint64_t ticket[BATCH], got;
	char id[16];

	(void)state;
	fake_new(&f, answer_in_reverse, NULL);
	o = fake_client(&f, LONG_MS);
	start_batch(o, ticket);
	assert_int_equal(omerta_in_flight(o), BATCH);
	for (int i = 0; i < BATCH; i++) { /* they came in the other order */
		assert_int_equal(omerta_finish(o, ticket[i], &info), 0);
		(void)snprintf(id, sizeof(id), "job%d", i);
		assert_string_equal(omerta_get_str(info, "job"), id);
		omerta_body_free(info);
	}
	assert_int_equal(omerta_in_flight(o), 0);
	assert_int_equal(omerta_finish(o, ticket[0], &info), -1); /* ended once */
	assert_true(omerta_error_is(o, "usage"));

	start_batch(o, ticket);
	omerta_forget(o, ticket[5]);
	for (int i = BATCH; i-- > 0;) {
		if (i == 5) {
			continue;
		}
		assert_int_equal(omerta_next(o, SOON_MS, &got, &info), 0);
		assert_int_equal(got, ticket[i]);
		omerta_body_free(info);
	}
	assert_int_equal(omerta_next(o, SOON_MS, &got, &info), -1);
	assert_int_equal(got, 0);
	assert_true(omerta_error_is(o, "idle"));
	omerta_free(o);
	fake_free(&f);
}

static void
say_nothing(struct fake *f, struct fake_request *r)
{
	(void)f;
	(void)r;
}

static void
test_silence_ends_with_timeout(void **state)
{
	struct fake f;
	struct omerta *o;
	int64_t start;
	uint64_t ticket, got;

	(void)state;
	fake_new(&f, say_nothing, NULL);
	o = fake_client(&f, 50);
	start = om_client_now_ms();
	assert_int_equal(omerta_ping(o), -1);
	assert_true(omerta_error_is(o, "timeout"));
	assert_true(om_client_now_ms() - start >= 50);
	assert_true(om_client_now_ms() - start < SOON_MS);
	assert_int_equal(omerta_start(o, "ping", NULL, 20, &ticket), 0);
	assert_int_equal(omerta_next(o, 0, &got, NULL), -1); /* not yet: the ticket lives */
	assert_int_equal(got, 0);
	assert_int_equal(omerta_next(o, SOON_MS, &got, NULL), -1);
	assert_int_equal(got, ticket);
	assert_true(omerta_error_is(o, "timeout"));
	assert_int_equal(omerta_in_flight(o), 0);
	omerta_free(o);
	fake_free(&f);
}

static void
test_requests_in_flight_are_limited(void **state)
{
	struct fake f;
	struct omerta *o;
	uint64_t ticket;

	(void)state;
	fake_new(&f, say_nothing, NULL);
	o = fake_client(&f, LONG_MS);
	for (int i = 0; i < OMERTA_IN_FLIGHT_MAX; i++) {
		assert_int_equal(omerta_start(o, "ping", NULL, 0, &ticket), 0);
	}
	assert_int_equal(omerta_start(o, "ping", NULL, 0, &ticket), -1);
	assert_true(omerta_error_is(o, "limit"));
	assert_int_equal(omerta_in_flight(o), OMERTA_IN_FLIGHT_MAX);
	omerta_free(o);
	fake_free(&f);
}

/* --- connections ----------------------------------------------------------------------------------- */

static void
test_no_daemon_is_said_at_once(void **state)
{
	struct omerta *o = omerta_new();
	int64_t start = om_client_now_ms();

	(void)state;
	assert_int_equal(omerta_set_endpoint(o, "/nonexistent/omerta.sock"), 0);
	assert_int_equal(omerta_set_timeout(o, LONG_MS), 0);
	assert_int_equal(omerta_ping(o), -1);
	assert_true(omerta_error_is(o, "unreachable"));
	assert_non_null(strstr(omerta_error_text(o), "/nonexistent/omerta.sock"));
	assert_true(om_client_now_ms() - start < SOON_MS);
	assert_int_equal(omerta_set_endpoint(o, "http://x"), -1);
	assert_true(omerta_error_is(o, "usage"));
	omerta_free(o);
	omerta_free(NULL);
}

static void
answer_ping(struct fake *f, struct fake_request *r)
{
	(void)f;
	fake_ok(r);
}

static void
test_a_lost_connection_ends_requests_and_the_next_call_dials(void **state)
{
	struct fake f;
	struct omerta *o;
	uint64_t ticket;
	int64_t start;

	(void)state;
	fake_new(&f, say_nothing, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_start(o, "ping", NULL, 0, &ticket), 0);
	start = om_client_now_ms();
	fake_stop(&f);
	assert_int_equal(omerta_finish(o, ticket, NULL), -1);
	assert_true(omerta_error_is(o, "disconnected"));
	assert_true(om_client_now_ms() - start < SOON_MS);
	assert_int_equal(omerta_ping(o), -1);
	assert_true(omerta_error_is(o, "unreachable"));
	f.fn = answer_ping;
	fake_start(&f);
	assert_int_equal(omerta_ping(o), 0);
	omerta_free(o);
	fake_free(&f);
}

/* The daemon dies with the first wait; the second, asked of the next one, is answered. */
static void
answer_second_wait(struct fake *f, struct fake_request *r)
{
	struct om_job_info info = { .job = OM_STR("7f3a"), .state = OM_STR("completed") };

	if (f->arg != NULL) {
		OM_SET(&info, job_info, exit_code, -3);
		fake_answer(r, OM_MSG_JOB_INFO, &info);
	} else {
		fake_error(r, OM_ERR_TIMEOUT, "not yet");
	}
}

static void
test_wait_goes_on_over_timeouts_and_a_restart(void **state)
{
	struct fake f;
	struct omerta *o;
	struct omerta_body *info = NULL;
	pthread_t restarter;

	(void)state;
	fake_new(&f, answer_second_wait, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(pthread_create(&restarter, NULL, fake_restart, &f), 0);
	assert_int_equal(omerta_wait(o, "7f", OMERTA_FOREVER, &info), 0);
	(void)pthread_join(restarter, NULL);
	assert_string_equal(omerta_get_str(info, "state"), "completed");
	assert_int_equal(omerta_get_i64(info, "exit_code"), -3);
	omerta_body_free(info);
	f.arg = NULL;
	assert_int_equal(omerta_wait(o, "7f", 1, &info), -1);
	assert_true(omerta_error_is(o, "timeout"));
	omerta_free(o);
	fake_free(&f);
}

static void
test_a_handle_is_refused_in_a_child(void **state)
{
	struct fake f;
	struct omerta *o;
	int status = 0;
	pid_t pid;

	(void)state;
	fake_new(&f, answer_ping, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_ping(o), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		bool refused = omerta_ping(o) == -1 && omerta_error_is(o, "usage");

		omerta_free(o);
		_exit(refused ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(omerta_ping(o), 0);
	omerta_free(o);
	fake_free(&f);
}

static void
test_curve_needs_the_right_server_key(void **state)
{
	char server_public[41], server_secret[41], own_public[41], own_secret[41];
	struct fake f = { .fn = answer_ping,
			  .curve_secret = server_secret,
			  .endpoint = "tcp://127.0.0.1:*" };
	struct omerta *o;
	int64_t start;

	(void)state;
	assert_int_equal(zmq_curve_keypair(server_public, server_secret), 0);
	assert_int_equal(zmq_curve_keypair(own_public, own_secret), 0);
	fake_start(&f);

	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_set_keys(o, server_public, own_public, "short"), -1);
	assert_int_equal(omerta_set_keys(o, server_public, own_public, own_secret), 0);
	assert_int_equal(omerta_ping(o), 0);
	omerta_free(o);

	start = om_client_now_ms();
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_set_keys(o, own_public, own_public, own_secret), 0);
	assert_int_equal(omerta_ping(o), -1); /* the daemon is not who we think */
	assert_true(omerta_error_is(o, "unauthorized") || omerta_error_is(o, "unreachable"));
	omerta_free(o);

	o = fake_client(&f, LONG_MS); /* no keys at all */
	assert_int_equal(omerta_ping(o), -1);
	assert_true(omerta_error_is(o, "unauthorized") || omerta_error_is(o, "unreachable"));
	assert_true(om_client_now_ms() - start < SOON_MS);
	omerta_free(o);
	fake_stop(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_submit_carries_every_kind_of_field),
		cmocka_unit_test(test_mistakes_in_a_body_are_named),
		cmocka_unit_test(test_an_error_has_code_text_and_details),
		cmocka_unit_test(test_answers_find_their_request),
		cmocka_unit_test(test_silence_ends_with_timeout),
		cmocka_unit_test(test_requests_in_flight_are_limited),
		cmocka_unit_test(test_no_daemon_is_said_at_once),
		cmocka_unit_test(test_a_lost_connection_ends_requests_and_the_next_call_dials),
		cmocka_unit_test(test_wait_goes_on_over_timeouts_and_a_restart),
		cmocka_unit_test(test_a_handle_is_refused_in_a_child),
		cmocka_unit_test(test_curve_needs_the_right_server_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
