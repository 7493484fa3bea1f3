/* SPDX-License-Identifier: ISC */
/*
 * The detector on the real bus.  The socket of refused packets is a fake with a script (this file
 * defines net/nflog.h's functions); qemu is a child process that waits to be killed.
 */
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "actors_net_stage.h"

#define SCRIPT_MAX 64

/* What the walls say: events, then perhaps an error.  Its descriptor is readable as a socket's is. */
struct om_nflog {
	int fd;
	pthread_mutex_t lock;
	struct om_flow_event events[SCRIPT_MAX];
	size_t count, read;
	enum om_err err; /* told after the events, once */
};

static unsigned open_logs;

static struct om_nflog *
log_new(void)
{
	struct om_nflog *log = calloc(1, sizeof(*log));

	assert_non_null(log);
	log->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(log->fd >= 0);
	pthread_mutex_init(&log->lock, NULL);
	__atomic_add_fetch(&open_logs, 1, __ATOMIC_SEQ_CST);
	return log;
}

static void
log_ring(struct om_nflog *log)
{
	uint64_t one = 1;

	OM_ASSERT(write(log->fd, &one, sizeof(one)) == sizeof(one));
}

/* A refused packet to this address; with `silent` nobody is woken. */
static void
log_packet(struct om_nflog *log, const char *rule, const char *to, bool silent)
{
	struct om_flow_event ev = { .at = om_wall_now(), .ethertype = 0x0800, .proto = 6 };

	(void)snprintf(ev.rule, sizeof(ev.rule), "%s", rule);
	assert_int_equal(om_ip_parse(om_str_of("10.99.0.2"), &ev.src), OM_OK);
	assert_int_equal(om_ip_parse(om_str_of(to), &ev.dst), OM_OK);
	ev.dport = 443;
	pthread_mutex_lock(&log->lock);
	assert_true(log->count < SCRIPT_MAX);
	log->events[log->count++] = ev;
	pthread_mutex_unlock(&log->lock);
	if (!silent) {
		log_ring(log);
	}
}

static void
log_fail(struct om_nflog *log, enum om_err err)
{
	pthread_mutex_lock(&log->lock);
	log->err = err;
	pthread_mutex_unlock(&log->lock);
	log_ring(log);
}

int
om_nflog_fd(const struct om_nflog *log)
{
	return log->fd;
}

enum om_err
om_nflog_read(struct om_nflog *log, struct om_flow_event *events, size_t max, size_t *count,
	      struct om_why *why)
{
	enum om_err err = OM_OK;
	uint64_t n;

	(void)!read(log->fd, &n, sizeof(n));
	pthread_mutex_lock(&log->lock);
	for (*count = 0; *count < max && log->read < log->count; (*count)++) {
		events[*count] = log->events[log->read++];
	}
	if (log->read < log->count) {
		log_ring(log);
	} else {
		err = log->err;
		log->err = OM_OK;
	}
	pthread_mutex_unlock(&log->lock);
	return err == OM_OK ? OM_OK : om_why_set(why, err, "the socket: %s", om_err_text(err));
}

void
om_nflog_close(struct om_nflog *log)
{
	if (log != NULL) {
		(void)close(log->fd);
		pthread_mutex_destroy(&log->lock);
		free(log);
		__atomic_sub_fetch(&open_logs, 1, __ATOMIC_SEQ_CST);
	}
}

/* Here so that net/nflog.c is not linked; nobody calls it. */
enum om_err
om_nflog_open(uint16_t group, struct om_nflog **out, struct om_why *why)
{
	(void)group;
	*out = NULL;
	return om_why_set(why, OM_ERR_UNSUPPORTED, "not in this test");
}

/* --- a job: its socket is handed over, its qemu watched ------------------------------------------ */

static pid_t qemus[4];
static size_t qemu_count;

static pid_t
qemu_start(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		for (;;) {
			(void)pause();
		}
	}
	qemus[qemu_count++] = pid;
	return pid;
}

/* It was killed by the detector: waits until it is dead. */
static void
assert_killed(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (size_t i = 0; i < qemu_count; i++) {
		qemus[i] = qemus[i] == pid ? 0 : qemus[i];
	}
}

static void
assert_alive(pid_t pid)
{
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
}

static void
hand_over(const char *job, struct om_nflog *log)
{
	struct om_vpn_handoff *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	assert_int_equal(om_job_id_parse(job, strlen(job), &h->job), OM_OK);
	h->log = log;
	h->noise = OM_NOISE_ND_RS;
	h->health = (struct om_health_limits)OM_HEALTH_LIMITS_DEFAULT;
	h->health.no_reply_ms = 1;
	h->health.handshake_retry_ms = 1;
	stage_command(STAGE_HAND_OVER, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_OK, h);
	stage_wait(stage_is_done);
}

/* As a job_run does it: its own descriptor of the process, before rogue.watch. */
static void
guard(const char *job, pid_t pid)
{
	struct om_rogue_guard *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	assert_int_equal(om_job_id_parse(job, strlen(job), &g->job), OM_OK);
	g->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(g->pidfd >= 0);
	stage_command(STAGE_GUARD, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_OK, g);
	stage_wait(stage_is_done);
}

/* The number of another process: it is not looked at. */
static enum om_err
watch_asked(const char *job)
{
	struct om_rogue_watch m = { .job = om_str_of(job), .netns = OM_STR("net:[1]") };

	OM_SET(&m, rogue_watch, qemu_pid, 1);
	return stage_ask(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_WATCH, &m);
}

static enum om_err
watch(const char *job, pid_t pid)
{
	guard(job, pid);
	return watch_asked(job);
}

struct job {
	struct om_nflog *log;
	pid_t pid;
};

static struct job
watched(const char *job)
{
	struct job j = { log_new(), qemu_start() };

	hand_over(job, j.log);
	assert_int_equal(watch(job, j.pid), OM_OK);
	return j;
}

static struct om_rogue_counted
unwatch(const char *job, uint64_t refused)
{
	struct om_rogue_unwatch m = { .job = om_str_of(job) };
	struct om_rogue_counted got = { 0 };
	struct om_arena arena = { 0 };
	struct om_why why;

	OM_SET(&m, rogue_unwatch, refused, refused);
	assert_int_equal(stage_ask(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &m), OM_OK);
	assert_int_equal(om_body_decode(OM_BODY_rogue_counted,
					(struct om_bin){ S->raw.data, S->raw.len }, &got, &arena,
					&why),
			 OM_OK);
	got.job = (struct om_str){ 0 };
	om_arena_fini(&arena);
	return got;
}

/* A reading: so many packets of the job have gone into the tunnel, so many bytes have come out. */
static void
stats(const char *job, uint64_t sent, uint64_t rx, uint64_t refused)
{
	struct om_vpn_stats m = { .job = om_str_of(job), .tx_bytes = sent * 100, .rx_bytes = rx };

	OM_SET(&m, vpn_stats, sent_packets, sent);
	OM_SET(&m, vpn_stats, refused, refused);
	stage_send(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_VPN_STATS, &m);
}

/* The detector has handled what it was sent. */
static void
stats_seen(void)
{
	struct om_rogue_watch sync = { .job = OM_STR("none"), .netns = OM_STR("x") };

	assert_int_equal(stage_ask(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_WATCH, &sync),
			 OM_ERR_STATE);
}

static int
setup(void **state)
{
	(void)state;
	qemu_count = 0;
	return stage_up(&om_rogue_connection_detector_service, NULL, NULL);
}

static int
teardown(void **state)
{
	(void)state;
	stage_down();
	for (size_t i = 0; i < qemu_count; i++) {
		if (qemus[i] != 0) {
			(void)kill(qemus[i], SIGKILL);
			(void)waitpid(qemus[i], NULL, 0);
		}
	}
	return open_logs == 0 ? 0 : -1; /* a socket was left open */
}

/* --- tests --------------------------------------------------------------------------------------- */

static void
test_monitoring_initialization(void **state)
{
	struct job j;

	(void)state;
	assert_int_equal(watch("job1", getpid()), OM_ERR_STATE); /* no socket: no watch */
	j = watched("job1");
	assert_int_equal(watch("job1", j.pid), OM_ERR_EXISTS);
	assert_int_equal(unwatch("job1", 0).unseen, 0);
	assert_alive(j.pid);
	assert_int_equal(S->told_count, 0);
}

static void
test_suspicious_connection_detection(void **state)
{
	struct job j = watched("job1");

	(void)state;
	log_packet(j.log, "r_outside", "192.0.2.7", false);
	assert_killed(j.pid);
	assert_told(0, "rogue_killed", "rogue_packet");
	assert_string_equal(S->told[0].destination, "192.0.2.7");
	assert_non_null(strstr(S->told[0].text, "192.0.2.7:443"));
}

static void
test_rogue_connection_event_is_told_once(void **state)
{
	struct job j = watched("job1");
	struct om_rogue_counted c;
	int i;

	(void)state;
	for (i = 0; i < 40; i++) { /* more than one batch */
		log_packet(j.log, "r_outside", "192.0.2.7", i < 39);
	}
	assert_killed(j.pid);
	c = unwatch("job1", 40);
	assert_int_equal(c.seen, 40);
	assert_int_equal(c.unseen, 0);
	assert_int_equal(S->told_count, 1);
}

static void
test_multiple_job_monitoring(void **state)
{
	struct job a = watched("job1"), b = watched("job2");

	(void)state;
	log_packet(b.log, "r_special", "169.254.169.254", false);
	assert_killed(b.pid);
	assert_told(0, "rogue_killed", "rogue_packet");
	assert_string_equal(S->told[0].job, "job2");
	assert_alive(a.pid);
	assert_int_equal(unwatch("job1", 0).seen, 0);
}

/* The requester's packets are not the guest's doing. */
static void
test_inbound_does_not_kill(void **state)
{
	struct job j = watched("job1");
	struct om_rogue_counted c;

	(void)state;
	log_packet(j.log, "inbound", "10.99.0.77", false);
	c = unwatch("job1", 0);
	assert_int_equal(c.inbound, 1);
	assert_int_equal(c.seen, 0);
	assert_alive(j.pid);
	assert_int_equal(S->told_count, 0);
}

static void
test_socket_error_ends_the_job(void **state)
{
	struct job j = watched("job1");

	(void)state;
	log_fail(j.log, OM_ERR_NET);
	assert_killed(j.pid);
	assert_told(0, "failed", "detector_failed");
}

/* ENOBUFS: the kernel had more to say than the socket holds. */
static void
test_lost_events_end_the_job(void **state)
{
	struct job j = watched("job1");

	(void)state;
	log_fail(j.log, OM_ERR_FULL);
	assert_killed(j.pid);
	assert_told(0, "failed", "detector_failed");
	assert_int_equal(unwatch("job1", 9).unseen, 9);
	assert_int_equal(S->told_count, 1);
}

/* In a burst the packets that did arrive are the evidence. */
static void
test_lost_events_after_a_packet(void **state)
{
	struct job j = watched("job1");

	(void)state;
	log_packet(j.log, "r_outside", "192.0.2.7", true);
	log_fail(j.log, OM_ERR_FULL);
	assert_killed(j.pid);
	assert_told(0, "rogue_killed", "rogue_packet");
}

static void
test_vpn_tunnel_health_check(void **state)
{
	struct job j = watched("job1");

	(void)state;
	stats("job1", 100, 100, 0);
	stats("job1", 5000, 200, 0); /* answered */
	stats("job1", 9000, 200, 0); /* not answered from here on */
	stats_seen();
	assert_int_equal(S->told_count, 0);
	while (S->told_count == 0) { /* the limit is 1 ms */
		stats("job1", 9000, 200, 0);
		stats_seen();
	}
	assert_killed(j.pid);
	assert_told(0, "failed", "tunnel_lost");
}

/* Readings for longer than no_reply (1 ms) of a job that says nothing, while WireGuard does. */
static void
read_for_a_while(struct om_vpn_stats *m, uint64_t tx_step)
{
	struct om_mono from = om_mono_now();

	do {
		m->tx_bytes += tx_step;
		stage_send(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_VPN_STATS, m);
		stats_seen();
	} while (om_mono_ms_between(from, om_mono_now()) < 10);
}

/*
 * With a keepalive WireGuard tries a handshake every 5 s (148 bytes) when the requester is away.  A
 * job that computes and sends nothing was called dead for it.
 */
static void
test_handshake_attempts_are_no_traffic(void **state)
{
	struct om_vpn_stats m = { .job = OM_STR("job1"), .rx_bytes = 100, .tx_bytes = 100 };
	struct job j = watched("job1");

	(void)state;
	OM_SET(&m, vpn_stats, sent_packets, 3);
	read_for_a_while(&m, 2 * 148);
	assert_int_equal(S->told_count, 0);
	assert_alive(j.pid);
}

/* The machine's clock is set while the job runs, an hour forward or back: no handshake grows older. */
static void
test_wall_clock_step_is_no_age(void **state)
{
	struct om_vpn_stats m = { .job = OM_STR("job1"), .rx_bytes = 100 };
	struct job j = watched("job1");

	(void)state;
	OM_SET(&m, vpn_stats, sent_packets, 0);
	OM_SET(&m, vpn_stats, handshake_ms,
	       (uint64_t)(om_wall_now().ns / OM_NS_PER_MS) - 3600 * 1000);
	OM_SET(&m, vpn_stats, handshake_age_ms, 20);
	for (int i = 0; i < 3; i++) {
		m.sent_packets++;
		m.rx_bytes++; /* it answers: only the age could speak against it */
		read_for_a_while(&m, 100);
	}
	assert_int_equal(S->told_count, 0);
	assert_alive(j.pid);
}

/* The walls have counted a packet, and no event came: the detector is deaf. */
static void
test_second_witness_while_it_runs(void **state)
{
	struct job j = watched("job1");

	(void)state;
	stats("job1", 0, 0, 1);
	assert_killed(j.pid);
	assert_told(0, "failed", "detector_failed");
	assert_non_null(strstr(S->told[0].text, "refused 1 packets"));
}

static void
test_second_witness_at_the_end(void **state)
{
	struct job j = watched("job1");
	struct om_rogue_counted c = unwatch("job1", 2);

	(void)state;
	assert_int_equal(c.unseen, 2);
	assert_told(0, "failed", "detector_failed");
	assert_killed(j.pid);
}

/* An event that waits in the socket is no missing one: it is read before the counters are compared. */
static void
test_second_witness_reads_first(void **state)
{
	struct job j = watched("job1");

	(void)state;
	log_packet(j.log, "r_arp", "192.0.2.7", true);
	assert_int_equal(unwatch("job1", 1).unseen, 0);
	assert_told(0, "rogue_killed", "rogue_packet");
	assert_killed(j.pid);
}

/* The walls could not be read, but the socket can. */
static void
test_last_events_without_the_second_witness(void **state)
{
	struct om_rogue_unwatch m = { .job = OM_STR("job1") };
	struct job j = watched("job1");

	(void)state;
	log_packet(j.log, "r_outside", "192.0.2.7", true);
	assert_int_equal(stage_ask(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &m), OM_OK);
	assert_told(0, "rogue_killed", "rogue_packet");
	assert_killed(j.pid);
}

/* The executor died before it could end the watch; its next life has nobody watched. */
static void
test_all_watches_end_with_their_executor(void **state)
{
	struct job a = watched("job1"), b = watched("job2");
	struct om_rogue_unwatch all = { .job = OM_STR("*") };
	struct job c;

	(void)state;
	hand_over("job3", log_new());
	assert_int_equal(stage_ask(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &all),
			 OM_OK);
	assert_int_equal(__atomic_load_n(&open_logs, __ATOMIC_SEQ_CST), 0);
	assert_killed(a.pid);
	assert_killed(b.pid);
	assert_int_equal(S->told_count, 0);
	c = watched("job1");
	assert_int_equal(unwatch("job1", 0).seen, 0);
	assert_alive(c.pid);
}

/* A job that runs again under its id: the socket of its last run stood in the way. */
static void
test_handoff_takes_the_place_of_an_old_one(void **state)
{
	struct job old = watched("job1"), new;

	(void)state;
	new = watched("job1");
	assert_killed(old.pid);
	log_packet(new.log, "r_outside", "192.0.2.7", false);
	assert_killed(new.pid);
	assert_told(0, "rogue_killed", "rogue_packet");
}

/* Nobody could kill it: it is not watched, and so does not run. */
static void
test_no_watch_without_a_process(void **state)
{
	(void)state;
	hand_over("job1", log_new());
	assert_int_equal(watch_asked("job1"), OM_ERR_STATE);
}

/* Restarted by the supervisor: what it watched dies with it, and what it had is closed. */
static void
test_restart_ends_what_was_watched(void **state)
{
	struct job a = watched("job1"), b = watched("job2");
	struct om_rogue_watch sync = { .job = OM_STR("none"), .netns = OM_STR("x") };
	struct om_nflog *waiting = log_new();
	struct job c;

	(void)state;
	hand_over("job3", waiting); /* handed over, not yet watched */
	stage_kill(OM_ROGUE_CONNECTION_DETECTOR);
	assert_killed(a.pid);
	assert_killed(b.pid);
	stage_next_life(OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_WATCH, &sync);
	c = watched("job4"); /* the next life serves */
	assert_int_equal(watch("job3", getpid()), OM_ERR_STATE); /* and knows nothing of the last */
	log_packet(c.log, "r_outside", "192.0.2.7", false);
	assert_killed(c.pid);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_monitoring_initialization),
		T(test_suspicious_connection_detection),
		T(test_rogue_connection_event_is_told_once),
		T(test_multiple_job_monitoring),
		T(test_inbound_does_not_kill),
		T(test_socket_error_ends_the_job),
		T(test_lost_events_end_the_job),
		T(test_lost_events_after_a_packet),
		T(test_vpn_tunnel_health_check),
		T(test_handshake_attempts_are_no_traffic),
		T(test_wall_clock_step_is_no_age),
		T(test_second_witness_while_it_runs),
		T(test_second_witness_at_the_end),
		T(test_second_witness_reads_first),
		T(test_last_events_without_the_second_witness),
		T(test_all_watches_end_with_their_executor),
		T(test_handoff_takes_the_place_of_an_old_one),
		T(test_no_watch_without_a_process),
		T(test_restart_ends_what_was_watched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
