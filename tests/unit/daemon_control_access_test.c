/* SPDX-License-Identifier: ISC */
/* The control endpoint: who asks, who may connect, and who may listen. */
#include "daemon_control_rig.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/wait.h>

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

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_identity_is_the_connections),
		TEST(test_another_uid_is_a_requester),
		TEST(test_socket_modes),
		TEST(test_events_are_for_the_operators_of_now),
		TEST(test_bug_a_slow_user_data_base),
	};

	if (argc == 2 && strcmp(argv[0], "child") == 0) {
		return child_asks(argv[1]);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
