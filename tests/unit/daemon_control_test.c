/* SPDX-License-Identifier: ISC */
/* The control endpoint as clients of good will see it.  Who may come: daemon_control_access_test.c. */
#include "daemon_control_rig.h"

static void
test_ping(void **state)
{
	(void)state;
	rig_up();
	still_serves();
}

static void
test_req_socket(void **state)
{
	const struct om_empty body = { 0 };
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_REQ, rig.socket);
	for (int i = 0; i < 3; i++) {
		call_ok(sock, OM_MSG_PING, &body);
	}
	client_close(sock);
}

/* Many at once: each is answered once, by its id. */
static void
test_pipelined(void **state)
{
	const struct om_empty body = { 0 };
	bool seen[500] = { false };
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	for (uint64_t i = 0; i < OM_COUNT(seen); i++) {
		client_send(sock, i % 2 == 0 ? OM_MSG_PING : OM_MSG_QUEUE_STATS, i, 0, &body);
	}
	for (size_t i = 0; i < OM_COUNT(seen); i++) {
		assert_true(reply_recv(sock, &r));
		assert_true(r.id < OM_COUNT(seen) && !seen[r.id]);
		assert_int_equal(r.type, r.id % 2 == 0 ? OM_MSG_OK : OM_MSG_QUEUE_STATE);
		seen[r.id] = true;
		reply_fini(&r);
	}
	client_close(sock);
}

static void
test_status(void **state)
{
	const struct om_empty body = { 0 };
	const struct om_daemon_status *m;
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	call(sock, OM_MSG_DAEMON_STATUS, &body, &r);
	m = reply_body(&r, OM_BODY_daemon_status);
	assert_true(om_str_is(m->state, "ready"));
	assert_int_equal(m->pid, getpid());
	assert_int_equal(m->queue->queued, 4);
	if (geteuid() == 0) {
		assert_int_equal(m->filter->evaluated, 9);
		assert_int_equal(m->pending, 2);
		assert_int_equal(m->endpoints.n, 1);
		assert_true(om_str_is(m->endpoints.v[0], rig.socket));
		assert_true(om_str_is(m->accelerator, "tcg"));
	}
	reply_fini(&r);
	call(sock, OM_MSG_DAEMON_ACTORS, &body, &r);
	assert_true(
	    ((const struct om_actor_table *)reply_body(&r, OM_BODY_actor_table))->actors.n >= 5);
	reply_fini(&r);
	client_close(sock);
}

static void
test_trace_of_an_actor(void **state)
{
	struct om_daemon_trace trace = { 0 };
	const struct om_empty empty = { 0 };
	struct reply r;
	struct om_str text;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	call(sock, OM_MSG_DAEMON_TRACE, &trace, &r);
	text = ((const struct om_trace_lines *)reply_body(&r, OM_BODY_trace_lines))->text;
	assert_non_null(memmem(text.ptr, text.len, " name=job_queue\n", 16));
	assert_null(
	    memmem(text.ptr, text.len, "trace us=", 9)); /* nothing is traced unless asked for */
	reply_fini(&r);
	OM_SET(&trace, daemon_trace, actor, OM_STR("job_queue"));
	call(sock, OM_MSG_DAEMON_TRACE, &trace, &r);
	assert_int_equal(r.type, OM_MSG_TRACE_TEXT);
	reply_fini(&r);
	call(sock, OM_MSG_QUEUE_STATS, &empty, &r);
	reply_fini(&r);
	OM_SET(&trace, daemon_trace, off, true);
	call(sock, OM_MSG_DAEMON_TRACE, &trace, &r);
	text = ((const struct om_trace_lines *)reply_body(&r, OM_BODY_trace_lines))->text;
	assert_non_null(memmem(text.ptr, text.len, " handle actor=", 14));
	reply_fini(&r);
	OM_SET(&trace, daemon_trace, actor, OM_STR("nobody"));
	client_send(sock, OM_MSG_DAEMON_TRACE, 5, 0, &trace);
	assert_true(reply_recv(sock, &r));
	assert_memory_equal(r.text, "not_found: ", 11);
	reply_fini(&r);
	client_close(sock);
}

static enum om_err
named_start(struct om_ctx *cx, void *state, const void *arg)
{
	(void)state;
	return om_register(cx, arg);
}

/* What the trace of this actor is answered with; the caller frees it. */
static void
trace_of(void *sock, const char *actor, bool off, struct reply *r)
{
	struct om_daemon_trace trace = { 0 };

	OM_SET(&trace, daemon_trace, actor, om_str_of(actor));
	OM_SET(&trace, daemon_trace, off, off);
	client_send(sock, OM_MSG_DAEMON_TRACE, 5, 0, &trace);
	assert_true(reply_recv(sock, r));
}

static unsigned
lines_with(struct reply *r, const char *what)
{
	struct om_str text =
	    ((const struct om_trace_lines *)reply_body(r, OM_BODY_trace_lines))->text;
	const char *end = text.ptr + text.len, *at = text.ptr;
	unsigned n = 0;

	while ((at = memmem(at, (size_t)(end - at), what, strlen(what))) != NULL) {
		at++;
		n++;
	}
	return n;
}

/* Its actor is found by the id of its job; "job_run" is all of them; a metric has no job's id. */
static void
test_trace_of_a_job(void **state)
{
	static const struct om_actor_def def = { .name = "job_run", .start = named_start };
	static const char *const jobs[] = { "job_run/7f3a", "job_run/8000" };
	static const char *const traced[] = { "7f3a", "job_run/7f3a", "job_run" };
	const struct om_empty empty = { 0 };
	struct om_actor_id id[OM_COUNT(jobs)];
	const struct om_metrics *m;
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	for (size_t i = 0; i < OM_COUNT(jobs); i++) {
		assert_int_equal(om_system_spawn(rig.sys, &def, jobs[i], &id[i]), OM_OK);
		while (om_whereis(rig.sys, jobs[i]).v == 0) {
		}
	}
	for (size_t i = 0; i < OM_COUNT(traced); i++) {
		trace_of(sock, traced[i], false, &r);
		assert_int_equal(r.type, OM_MSG_TRACE_TEXT);
		assert_int_equal(lines_with(&r, " name=job_run/7f3a\n"), 1);
		reply_fini(&r);
	}
	trace_of(sock, "8000", true, &r);
	assert_int_equal(r.type, OM_MSG_TRACE_TEXT);
	reply_fini(&r);
	call(sock, OM_MSG_DAEMON_METRICS, &empty, &r);
	m = reply_body(&r, OM_BODY_metrics);
	assert_non_null(memmem(m->text.ptr, m->text.len, "actor=\"job_run\"", 15));
	assert_null(memmem(m->text.ptr, m->text.len, "job_run/", 8));
	reply_fini(&r);
	/* Only the first is traced still: its end is told, that of the other is not. */
	for (size_t i = 0; i < OM_COUNT(jobs); i++) {
		om_system_stop_actor(rig.sys, id[i]);
		assert_int_equal(om_system_wait(rig.sys, id[i], 10000), OM_OK);
	}
	trace_of(sock, "7f3a", false, &r);
	assert_memory_equal(r.text, "not_found: ", 11);
	reply_fini(&r);
	trace_of(sock, "job_queue", true, &r);
	assert_int_equal(lines_with(&r, " end actor="), 1);
	reply_fini(&r);
	client_close(sock);
}

static void
test_deadline_of_the_request(void **state)
{
	struct om_job_ref ref = { .job = OM_STR("x") };
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	client_send(sock, OM_MSG_JOB_WAIT, 5, 30, &ref);
	assert_true(reply_recv(sock, &r));
	assert_int_equal(r.id, 5);
	assert_memory_equal(r.text, "timeout: ", 9);
	reply_fini(&r);
	client_close(sock);
}

static void
test_events(void **state)
{
	struct om_job_cancel cancel = { 0 };
	struct om_envelope env;
	struct reply r;
	char topic[32] = "", url[200], frame[512];
	void *sub, *sock;
	int n, soon = 50;
	const char *one = "7f3a";

	(void)state;
	rig_up();
	snprintf(url, sizeof(url), "ipc://%s", om_config_events_socket(rig.config));
	sub = client_new(ZMQ_SUB, url);
	zmq_setsockopt(sub, ZMQ_SUBSCRIBE, one, 4);
	zmq_setsockopt(sub, ZMQ_RCVTIMEO, &soon, sizeof(soon));
	sock = client_new(ZMQ_DEALER, rig.socket);
	/* A subscription takes its time: until it is there, events go by. */
	for (int turn = 0; turn < RIG_WAIT_MS / soon; turn++) {
		call(sock, OM_MSG_JOB_CANCEL, &cancel, &r);
		reply_fini(&r);
		if (zmq_recv(sub, topic, sizeof(topic) - 1, 0) >= 0) {
			break;
		}
	}
	assert_string_equal(topic, "7f3a1c000000");
	n = zmq_recv(sub, frame, sizeof(frame), 0);
	assert_true(n > 0);
	assert_int_equal(
	    om_envelope_decode((struct om_bin){ (uint8_t *)frame, (size_t)n }, &env, NULL), OM_OK);
	assert_int_equal(env.type, OM_MSG_JOB_EVENT);
	client_close(sub);
	client_close(sock);
}

static void
set(void *sock, const char *key, const char *value, struct reply *r)
{
	struct om_config_entry entry = { .key = om_str_of(key), .value = om_str_of(value) };

	call(sock, OM_MSG_CONFIG_SET, &entry, r);
}

static void
shows(void *sock, const char *key, const char *value, const char *origin)
{
	const struct om_empty body = { 0 };
	const struct om_config_table *m;
	bool found = false;
	struct reply r;

	call(sock, OM_MSG_CONFIG_SHOW, &body, &r);
	m = reply_body(&r, OM_BODY_config_table);
	for (size_t i = 0; i < m->entries.n; i++) {
		const struct om_config_entry *e = &m->entries.v[i];

		if (om_str_is(e->key, key)) {
			assert_true(om_str_is(e->value, value));
			assert_non_null(
			    memmem(e->origin.ptr, e->origin.len, origin, strlen(origin)));
			found = true;
		}
	}
	assert_true(found);
	reply_fini(&r);
}

static void
test_config_set(void **state)
{
	struct reply r;
	void *sock;

	(void)state;
	rig_flag("control.answer_timeout", "5s");
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	shows(sock, "jobs.max_jobs", "1", "default");
	set(sock, "max-jobs", "7", &r);
	assert_int_equal(r.type, OM_MSG_OK);
	reply_fini(&r);
	shows(sock, "jobs.max_jobs", "7", "live.conf");
	assert_int_equal(access(rig_path("live.conf"), R_OK), 0);
	set(sock, "jobs.max_jobs", "0", &r);
	assert_memory_equal(r.text, "invalid: ", 9);
	reply_fini(&r);
	set(sock, "jobs.max_job", "1", &r);
	assert_non_null(strstr(r.text, "did you mean jobs.max_jobs"));
	reply_fini(&r);
	set(sock, "control.port", "1", &r);
	assert_non_null(strstr(r.text, "wrong_state: control.port needs a restart"));
	reply_fini(&r);
	set(sock, "control.answer_timeout", "9s", &r);
	assert_non_null(strstr(r.text, "is fixed by flag test"));
	reply_fini(&r);
	shows(sock, "jobs.max_jobs", "7", "live.conf");
	/* The queue was told, and the audit trail has one line. */
	rig_wait_value(&rig.max_jobs, 7);
	rig_wait_value(&rig.audits, 1);
	assert_int_equal(rig_read(&rig.policies), 0);
	/* Filter, queue and provider are told of what is theirs. */
	set(sock, "jobs.queue_max", "77", &r);
	assert_int_equal(r.type, OM_MSG_OK);
	reply_fini(&r);
	rig_wait_value(&rig.policies, 3);
	assert_int_equal(rig_read(&rig.queue_max), 77);
	rig_wait_value(&rig.audits, 2);
	client_close(sock);
	/* It is durable. */
	rig_down();
	rig.events[OM_CONTROL_READY] = 0;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	shows(sock, "jobs.max_jobs", "7", "live.conf");
	client_close(sock);
}

/* It compared texts: `queue limit` had changed what the file does not tell. */
static void
test_set_is_meant_also_when_the_text_is_the_same(void **state)
{
	struct om_config_key key = { .key = OM_STR("jobs.max_jobs") };
	struct reply r;
	void *sock;

	(void)state;
	rig_put("omertad.conf", "[jobs]\nmax_jobs = 2\n", 0600);
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	set(sock, "jobs.max_jobs", "2", &r);
	assert_int_equal(r.type, OM_MSG_OK);
	reply_fini(&r);
	rig_wait_value(&rig.max_jobs, 2);
	set(sock, "jobs.max_jobs", "7", &r);
	reply_fini(&r);
	rig_wait_value(&rig.max_jobs, 7);
	/* And it can be undone. */
	call(sock, OM_MSG_CONFIG_UNSET, &key, &r);
	assert_int_equal(r.type, OM_MSG_OK);
	reply_fini(&r);
	rig_wait_value(&rig.max_jobs, 2);
	shows(sock, "jobs.max_jobs", "2", "omertad.conf:2");
	key.key = OM_STR("control.port");
	call(sock, OM_MSG_CONFIG_UNSET, &key, &r);
	assert_non_null(strstr(r.text, "wrong_state: control.port needs a restart"));
	reply_fini(&r);
	client_close(sock);
}

/* It began again with what the daemon was started with. */
static void
test_a_restart_of_control_keeps_what_was_changed(void **state)
{
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	set(sock, "jobs.max_jobs", "7", &r);
	reply_fini(&r);
	client_close(sock);
	rig_down();
	assert_int_equal(unlink(rig_path("live.conf")),
			 0); /* the start's configuration has it not */
	rig.events[OM_CONTROL_READY] = 0;
	rig_up();
	assert_string_equal(om_config_text(rig.config, OM_CONF_jobs_max_jobs), "1");
	sock = client_new(ZMQ_DEALER, rig.socket);
	shows(sock, "jobs.max_jobs", "7", "live.conf");
	client_close(sock);
}

static void
test_reload_is_all_or_nothing(void **state)
{
	const struct om_empty body = { 0 };
	struct reply r;
	void *sock;

	(void)state;
	rig_put("omertad.conf", "[jobs]\nmax_jobs = 3\n", 0600);
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	shows(sock, "jobs.max_jobs", "3", "omertad.conf:2");

	rig_put("omertad.conf", "[jobs]\nmax_jobs = 4\nnonsense = 1\n", 0600);
	call(sock, OM_MSG_CONFIG_RELOAD, &body, &r);
	assert_non_null(strstr(r.text, "omertad.conf:3: unknown setting jobs.nonsense"));
	reply_fini(&r);
	shows(sock, "jobs.max_jobs", "3", "omertad.conf:2");

	rig_put("omertad.conf", "[jobs]\nmax_jobs = 4\n[daemon]\nworkers = 5\n", 0600);
	call(sock, OM_MSG_CONFIG_RELOAD, &body, &r);
	assert_non_null(strstr(r.text, "needs a restart, nothing was changed: daemon.workers"));
	reply_fini(&r);
	shows(sock, "jobs.max_jobs", "3", "omertad.conf:2");

	assert_int_equal(rig_read(&rig.bases), 0);

	rig_put("omertad.conf", "[jobs]\nmax_jobs = 4\n", 0600);
	call(sock, OM_MSG_CONFIG_RELOAD, &body, &r);
	assert_int_equal(r.type, OM_MSG_CONFIG_CHANGES);
	reply_fini(&r);
	shows(sock, "jobs.max_jobs", "4", "omertad.conf:2");
	client_close(sock);
}

/* The files' lists and rules are the filter's: it takes them, and with them all the rest, or nothing is. */
static void
test_reload_hands_rules_and_lists_to_the_filter(void **state)
{
	const struct om_config_changes *m;
	const struct om_empty body = { 0 };
	struct reply r;
	void *sock;

	(void)state;
	rig_put("omertad.conf", "[jobs]\nmax_jobs = 3\n", 0600);
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	rig_put("omertad.conf",
		"[jobs]\nmax_jobs = 4\nblocked_peers = eve, mallory\n[rule a]\nkind = activity\n",
		0600);

	/* What a reload takes does not come with the change of one setting. */
	set(sock, "jobs.peer_max", "7", &r);
	assert_non_null(strstr(r.text, "nothing was set (config reload takes it): "
				       "jobs.blocked_peers, [rule ...]"));
	reply_fini(&r);
	assert_int_equal(access(rig_path("live.conf"), F_OK), -1);
	set(sock, "jobs.blocked_peers", "eve", &r);
	assert_non_null(strstr(r.text, "jobs.blocked_peers is changed name by name"));
	reply_fini(&r);
	assert_int_equal(rig_read(&rig.bases), 0);

	rig.base_err = OM_ERR_FULL;
	call(sock, OM_MSG_CONFIG_RELOAD, &body, &r);
	assert_non_null(strstr(r.text, "nothing was changed: too many rules"));
	reply_fini(&r);
	assert_int_equal(rig_read(&rig.bases), 1);
	shows(sock, "jobs.max_jobs", "3", "omertad.conf:2");
	shows(sock, "jobs.blocked_peers", "", "default");
	assert_int_equal(rig_read(&rig.audits), 0);

	rig.base_err = OM_OK;
	call(sock, OM_MSG_CONFIG_RELOAD, &body, &r);
	m = reply_body(&r, OM_BODY_config_changes);
	assert_int_equal(m->changes.n, 2);
	assert_true(om_str_is(m->changes.v[0], "jobs.max_jobs: 3 -> 4"));
	assert_true(om_str_is(m->changes.v[1], "rule \"a\": added"));
	reply_fini(&r);
	assert_int_equal(rig_read(&rig.bases), 2);
	assert_string_equal(rig.base, "eve mallory [a]");
	shows(sock, "jobs.max_jobs", "4", "omertad.conf:2");
	shows(sock, "jobs.blocked_peers", "eve, mallory", "omertad.conf:3");
	rig_wait_value(&rig.audits, 1);
	assert_string_equal(rig.trail, "jobs.max_jobs: 3 -> 4, rule \"a\": added");
	client_close(sock);
}

/* A set that could not be taken leaves nothing behind that a restart would pick up. */
static void
test_refused_set_writes_nothing(void **state)
{
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	rig_put("omertad.conf", "[jobs]\nnonsense = 1\n", 0600);
	set(sock, "jobs.max_jobs", "7", &r);
	assert_non_null(strstr(r.text, "nonsense"));
	reply_fini(&r);
	assert_int_equal(access(rig_path("live.conf"), F_OK), -1);
	client_close(sock);
}

static void
test_stop(void **state)
{
	const struct om_empty body = { 0 };
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	call_ok(sock, OM_MSG_DAEMON_STOP, &body);
	rig_wait(&rig.events[OM_CONTROL_DRAINED], 1);
	assert_int_equal(rig_read(&rig.stops), 1);
	assert_int_equal(rig.events[OM_CONTROL_DRAINING], 1);
	client_close(sock);
}

/* The answer to the first of two stops was taken for the end of the second: it killed what ran. */
static void
test_a_stop_that_was_replaced_does_not_end_the_drain(void **state)
{
	const struct om_empty body = { 0 };
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	rig_note(&rig.stops_wait, NULL, 1);
	sock = client_new(ZMQ_DEALER, rig.socket);
	for (unsigned i = 1; i <= 3; i++) {
		call_ok(sock, OM_MSG_DAEMON_STOP, &body);
		rig_wait(&rig.stops_kept, i);
	}
	/* Its answers are heard before what is asked after them. */
	call(sock, OM_MSG_DAEMON_STATUS, &body, &r);
	reply_fini(&r);
	assert_int_equal(rig.events[OM_CONTROL_DRAINED], 0);
	rig_note(&rig.stops_wait, NULL, 0);
	call(sock, OM_MSG_DAEMON_STOP, &body, &r);
	reply_fini(&r);
	rig_wait(&rig.events[OM_CONTROL_DRAINED], 1);
	client_close(sock);
}

/* Whoever waits when the daemon ends is told so. */
static void
test_waiting_requests_are_told_of_the_end(void **state)
{
	struct om_job_ref ref = { .job = OM_STR("x") };
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	client_send(sock, OM_MSG_JOB_WAIT, 5, 0, &ref);
	while (counter("in_flight") < 2) { /* the status request is one itself */
	}
	rig_down();
	assert_true(reply_recv(sock, &r));
	assert_int_equal(r.id, 5);
	assert_true(strncmp(r.text, "shutting_down: ", 15) == 0 ||
		    strncmp(r.text, "gone: ", 6) == 0);
	reply_fini(&r);
	client_close(sock);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ping),
		TEST(test_req_socket),
		TEST(test_pipelined),
		TEST(test_status),
		TEST(test_trace_of_an_actor),
		TEST(test_trace_of_a_job),
		TEST(test_deadline_of_the_request),
		TEST(test_events),
		TEST(test_config_set),
		TEST(test_set_is_meant_also_when_the_text_is_the_same),
		TEST(test_a_restart_of_control_keeps_what_was_changed),
		TEST(test_reload_is_all_or_nothing),
		TEST(test_reload_hands_rules_and_lists_to_the_filter),
		TEST(test_refused_set_writes_nothing),
		TEST(test_stop),
		TEST(test_a_stop_that_was_replaced_does_not_end_the_drain),
		TEST(test_waiting_requests_are_told_of_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
