/* SPDX-License-Identifier: ISC */
/* The control endpoint as clients of good will see it. */
#include "daemon_control_rig.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/wait.h>

static void
test_ping(void **state)
{
	(void)state;
	rig_up();
	still_serves();
}

/* A body that names somebody else does not change who asks. */
static void
test_identity_is_the_connections(void **state)
{
	struct om_job_submit job = { 0 };
	const struct om_job_accepted *m;
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	job.lang = OM_STR("sh");
	job.script = (struct om_bin){ (const uint8_t *)"true", 4 };
	OM_SET(&job, job_submit, on_behalf, OM_STR("alice"));
	call(sock, OM_MSG_JOB_SUBMIT, &job, &r);
	m = reply_body(&r, OM_BODY_job_accepted);
	if (geteuid() == 0) {
		assert_true(om_str_is(m->text, "uid:0/local/operator"));
	}
	assert_int_equal(m->text.len > 4 && memcmp(m->text.ptr, "uid:", 4) == 0, 1);
	reply_fini(&r);
	client_close(sock);
}

/* In a child of another uid: gives 0 when it was served as a requester and refused as an operator. */
static int
child_asks(const char *socket)
{
	const struct om_empty empty = { 0 };
	struct om_job_submit job = { 0 };
	struct reply r;
	void *sock;
	int bad = 0;

	rig.zmq = zmq_ctx_new();
	sock = client_new(ZMQ_DEALER, socket);
	job.lang = OM_STR("sh");
	job.script = (struct om_bin){ (const uint8_t *)"true", 4 };
	client_send(sock, OM_MSG_DAEMON_STOP, 1, 0, &empty);
	client_send(sock, OM_MSG_CONFIG_SHOW, 2, 0, &empty);
	client_send(sock, OM_MSG_LEDGER_COUNT, 3, 0, &empty);
	for (int i = 1; i <= 3; i++) {
		bad |= !reply_recv(sock, &r) || r.id != (uint64_t)i ||
		       strncmp(r.text, "denied: ", 8) != 0;
		reply_fini(&r);
	}
	client_send(sock, OM_MSG_JOB_SUBMIT, 4, 0, &job);
	bad |= !reply_recv(sock, &r) || r.type != OM_MSG_JOB_ACCEPTED ||
	       memmem(r.body.ptr, r.body.len, "uid:65534/local/requester", 25) == NULL;
	reply_fini(&r);
	client_close(sock);
	return bad;
}

static void
test_another_uid_is_a_requester(void **state)
{
	int status, self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char name[] = "child", *argv[] = { name, rig.socket, NULL };
	pid_t pid;

	(void)state;
	assert_true(self >= 0);
	if (geteuid() != 0) {
		skip(); /* needs root to become someone else */
	}
	rig_flag("control.socket_group", "nogroup");
	rig_up();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setgid(65534) != 0 || setuid(65534) != 0) {
			_exit(9);
		}
		/* A new image: threads of a forked one would upset ThreadSanitizer. */
		(void)fexecve(self, argv, environ);
		_exit(10);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(self);
	assert_int_equal(rig_read(&rig.stops), 0);
	assert_int_equal(counter("denied"), 3);
}

/* Without the group nobody but the daemon's own user may connect. */
static void
test_socket_modes(void **state)
{
	struct stat st;

	(void)state;
	rig_flag("control.operator_group", "no-such-group-here");
	rig_flag("control.socket_group", "no-such-group-here");
	rig_up();
	assert_int_equal(stat(rig_path("control.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(rig_path("events.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	rig_down();
	/* They are gone afterwards, and may be bound again. */
	assert_int_equal(access(rig_path("control.sock"), F_OK), -1);
	rig.events[OM_CONTROL_READY] = 0;
	rig.flags[rig.flag_count - 1].value = geteuid() == 0 ? "nogroup" : "";
	rig.flags[rig.flag_count - 2].value = geteuid() == 0 ? "daemon" : "";
	rig_up();
	assert_int_equal(stat(rig_path("control.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, geteuid() == 0 ? 0660 : 0600);
	/* All jobs of everybody: for the operators' group, not for all who may connect. */
	assert_int_equal(stat(rig_path("events.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, geteuid() == 0 ? 0660 : 0600);
	if (geteuid() == 0) {
		assert_int_equal(st.st_gid, getgrnam("daemon")->gr_gid);
	}
}

/* Another group of operators: it listens from now on. */
static void
test_events_are_for_the_operators_of_now(void **state)
{
	const struct om_empty body = { 0 };
	struct reply r;
	struct stat st;
	void *sock;

	(void)state;
	rig_put("omertad.conf", "[control]\noperator_group = no-such-group-here\n", 0600);
	rig_up();
	assert_int_equal(stat(rig_path("events.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	rig_put("omertad.conf", "[control]\noperator_group = daemon\n", 0600);
	sock = client_new(ZMQ_DEALER, rig.socket);
	call(sock, OM_MSG_CONFIG_RELOAD, &body, &r);
	reply_fini(&r);
	client_close(sock);
	assert_int_equal(stat(rig_path("events.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, geteuid() == 0 ? 0660 : 0600);
}

/* --- a user data base that is slow ------------------------------------------------------------ */

/* While `wait` is set the first look-up of a group waits until another actor has started. */
static struct {
	bool wait, asked, witness, passed;
} nss;

int
getgrnam_r(const char *name, struct group *gr, char *buf, size_t len, struct group **out)
{
	int (*real)(const char *, struct group *, char *, size_t, struct group **);
	struct timespec until;
	void *next = dlsym(RTLD_NEXT, "getgrnam_r");

	memcpy(&real, &next, sizeof(real));
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	pthread_mutex_lock(&rig.lock);
	if (nss.wait) {
		nss.asked = true;
		pthread_cond_broadcast(&rig.changed);
		while (!nss.witness &&
		       pthread_cond_timedwait(&rig.changed, &rig.lock, &until) == 0) {
		}
		nss.passed = nss.witness;
		nss.wait = false;
	}
	pthread_mutex_unlock(&rig.lock);
	return real(name, gr, buf, len, out);
}

static enum om_err
witness_start(struct om_service *sv, void *state, const void *arg)
{
	(void)sv;
	(void)state;
	(void)arg;
	pthread_mutex_lock(&rig.lock);
	nss.witness = true;
	pthread_cond_broadcast(&rig.changed);
	pthread_mutex_unlock(&rig.lock);
	return OM_OK;
}

static void *
witness_run(void *arg)
{
	static const struct om_service_def def = { .name = "ledger_witness",
						   .start = witness_start };
	static struct om_service_arg service;
	struct om_actor_id id;

	(void)arg;
	pthread_mutex_lock(&rig.lock);
	while (!nss.asked) {
		pthread_cond_wait(&rig.changed, &rig.lock);
	}
	pthread_mutex_unlock(&rig.lock);
	service = (struct om_service_arg){ .bus = rig.bus, .def = &def };
	return om_service_spawn(rig.bus, &service, &id) == OM_OK ? &nss : NULL;
}

/* bug: control asked the user data base on a worker: one that is far away held up every actor. */
static void
test_bug_a_slow_user_data_base(void **state)
{
	pthread_t witness;
	void *spawned;

	(void)state;
	memset(&nss, 0, sizeof(nss));
	nss.wait = true;
	rig.workers = 1;
	assert_int_equal(pthread_create(&witness, NULL, witness_run, NULL), 0);
	rig_up();
	assert_int_equal(pthread_join(witness, &spawned), 0);
	assert_non_null(spawned);
	assert_true(nss.passed);
	still_serves();
}

static void
test_req_socket(void **state)
{
	const struct om_empty body = { 0 };
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_REQ, rig.socket);
	for (int i = 0; i < 3; i++) {
		call(sock, OM_MSG_PING, &body, &r);
		assert_int_equal(r.type, OM_MSG_OK);
		reply_fini(&r);
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
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	call(sock, OM_MSG_DAEMON_STOP, &body, &r);
	assert_int_equal(r.type, OM_MSG_OK);
	reply_fini(&r);
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
		call(sock, OM_MSG_DAEMON_STOP, &body, &r);
		assert_int_equal(r.type, OM_MSG_OK);
		reply_fini(&r);
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
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ping),
		TEST(test_identity_is_the_connections),
		TEST(test_another_uid_is_a_requester),
		TEST(test_socket_modes),
		TEST(test_events_are_for_the_operators_of_now),
		TEST(test_bug_a_slow_user_data_base),
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

	if (argc == 2 && strcmp(argv[0], "child") == 0) {
		return child_asks(argv[1]);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
