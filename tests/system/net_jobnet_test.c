/* SPDX-License-Identifier: ISC */
/* A job's network with the real parts: up, traffic through the tunnel, down, nothing left. */
#include "tests/system/net_witness.h"

#include <sys/syscall.h>

#define SMALL_REPLY "HTTP/1.0 200 OK\r\n\r\nhello from the requester\n"
#define BULK_BYTES  (20u << 20)
#define TIMED_RUNS  50

/* One network with a guest behind it. */
struct job {
	struct om_wg_config cfg;
	struct om_jobnet *net;
	struct om_nflog *log;
	struct rig_guest guest;
};

static void
job_up(struct job *j, const char *allowed, bool with_ip6, uint64_t rate_kbit)
{
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &j->cfg, .rate_kbit = rate_kbit };
	int tap;

	rig_config(&j->cfg, allowed, with_ip6);
	rig_ok(om_jobnet_up(&rig.env, &spec, &j->net, &rig_why));
	tap = rig_open_tap(om_jobnet_info(j->net)->tap);
	rig_ok(om_jobnet_attach_tap(j->net, &rig_why));
	j->log = om_jobnet_take_nflog(j->net);
	assert_non_null(j->log);
	assert_null(om_jobnet_take_nflog(j->net));
	rig_guest_start(&j->guest, om_jobnet_info(j->net), tap);
}

static void
job_down(struct job *j)
{
	rig_guest_stop(&j->guest);
	om_nflog_close(j->log);
	om_jobnet_down(&j->net);
	assert_null(j->net);
	om_jobnet_down(&j->net); /* a second time does nothing */
}

static void
assert_no_event(struct om_nflog *log)
{
	struct om_flow_event ev;
	char text[OM_FLOW_TEXT];
	size_t n = 0;

	if (rig_wait_readable(om_nflog_fd(log), RIG_QUIET_MS)) {
		rig_ok(om_nflog_read(log, &ev, 1, &n, &rig_why));
		fail_msg("event: %s", om_flow_format(&ev, text));
	}
}

/* One request to the requester's server; the server's part is played here too. */
static void
fetch(const struct job *j, int listener, const char *ip, uint16_t port)
{
	char text[256] = "";
	int client, server;
	ssize_t n;

	assert_int_equal(rig_connect(j->guest.ns, ip, port, RIG_WAIT_MS, &client), 0);
	assert_true(rig_wait_readable(listener, RIG_WAIT_MS));
	server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(server >= 0);
	assert_int_equal(send(client, "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
	assert_true(rig_wait_readable(server, RIG_WAIT_MS));
	assert_int_equal(recv(server, text, 18, MSG_WAITALL), 18);
	assert_int_equal(send(server, SMALL_REPLY, sizeof(SMALL_REPLY) - 1, 0),
			 sizeof(SMALL_REPLY) - 1);
	close(server);
	assert_true(rig_wait_readable(client, RIG_WAIT_MS));
	n = recv(client, text, sizeof(text) - 1, MSG_WAITALL);
	assert_int_equal(n, sizeof(SMALL_REPLY) - 1);
	assert_memory_equal(text, SMALL_REPLY, sizeof(SMALL_REPLY) - 1);
	close(client);
}

/* NetworkIsolation: testVPNConnectivityCheck, testVPNRoutingVerification */
static void
test_vpn_connectivity_check(void **state)
{
	int capture = rig_capture_open();
	struct om_jobnet_stats st;
	struct job j;
	int listener;

	(void)state;
	job_up(&j, "10.99.0.0/24", false, 0);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	assert_no_event(j.log);
	rig_ok(om_jobnet_stats(j.net, &st, &rig_why));
	assert_true(st.tx_bytes > 200);
	assert_true(st.rx_bytes > 200);
	assert_in_range(st.handshake_age_ms, 0, 5000);
	assert_int_equal(st.refused, 0);
	assert_int_equal(rig_capture_foreign(capture), 0);
	close(listener);
	close(capture);
	job_down(&j);
}

static void
test_ipv6_in_the_tunnel(void **state)
{
	struct job j;
	int listener;

	(void)state;
	job_up(&j, "10.99.0.0/24,fd99::/64", true, 0);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL6, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL6, 80);
	close(listener);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	close(listener);
	assert_no_event(j.log);
	job_down(&j);
}

/* The requester reaches its job; the job's namespace itself answers nothing and logs the attempt. */
static void
test_inbound(void **state)
{
	struct om_flow_event ev;
	const char *label;
	struct job j;
	int listener, client, server;
	size_t n = 0;

	(void)state;
	job_up(&j, "10.99.0.0/24", false, 0);
	listener = rig_listen(j.guest.ns, RIG_GUEST, 8000);
	assert_int_equal(rig_connect(j.guest.ns, RIG_REQ_TUNNEL, 9, 200, &client), ECONNREFUSED);
	assert_int_equal(rig_connect(rig.req_ns, RIG_GUEST, 8000, RIG_WAIT_MS, &client), 0);
	server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(server >= 0);
	close(server);
	close(client);
	close(listener);
	assert_no_event(j.log);
	/* WireGuard would not carry it for a peer that is not allowed; this one is. */
	rig_wg_set(rig.job_public, rig.psk, RIG_GUEST "/32,10.99.0.77/32");
	assert_int_equal(rig_connect(rig.req_ns, "10.99.0.77", 22, 300, &client), ETIMEDOUT);
	assert_true(rig_wait_readable(om_nflog_fd(j.log), RIG_WAIT_MS));
	rig_ok(om_nflog_read(j.log, &ev, 1, &n, &rig_why));
	assert_int_equal(n, 1);
	assert_int_equal(om_flow_judge(&ev, rig.env.noise, &label), OM_FLOW_INBOUND);
	assert_int_equal(ev.dport, 22);
	rig_wg_set(rig.job_public, rig.psk, RIG_GUEST "/32," RIG_GUEST6 "/128");
	job_down(&j);
}

static double
ms_since(struct om_mono from)
{
	return (double)(om_mono_now().ns - from.ns) / 1e6;
}

struct sink {
	int listener;
	uint64_t got;
};

static void *
sink_main(void *arg)
{
	struct sink *s = arg;
	char buf[65536];
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	ssize_t n;

	while (fd >= 0 && (n = recv(fd, buf, sizeof(buf), 0)) > 0) {
		s->got += (uint64_t)n;
	}
	close(fd);
	return NULL;
}

/* Bytes from ns to a sink of the requester; MB/s. */
static double
stream(int from_ns, const char *ip, size_t bytes)
{
	struct sink s = { .listener = rig_listen(rig.req_ns, ip, 81) };
	static const char block[65536];
	struct om_mono start;
	pthread_t thread;
	double ms;
	int fd;

	assert_int_equal(pthread_create(&thread, NULL, sink_main, &s), 0);
	assert_int_equal(rig_connect(from_ns, ip, 81, RIG_WAIT_MS, &fd), 0);
	start = om_mono_now();
	for (size_t sent = 0; sent < bytes; sent += sizeof(block)) {
		assert_int_equal(send(fd, block, sizeof(block), 0), sizeof(block));
	}
	close(fd);
	assert_int_equal(pthread_join(thread, NULL), 0);
	ms = ms_since(start);
	close(s.listener);
	assert_int_equal(s.got, bytes);
	return (double)bytes / 1e3 / ms;
}

/* The same tunnel without a guest, a tap or rules: an address on the link, a socket in its namespace. */
static double
plain_stream(size_t bytes)
{
	const struct om_cidr self = rig_cidr(RIG_GUEST "/32"), net = rig_cidr("10.99.0.0/24");
	struct om_netns_scope scope = { .home = -1 };
	struct om_wg_config cfg;
	struct om_wg *wg;
	struct om_nl nl;
	double rate;
	int ns;

	rig_config(&cfg, "10.99.0.0/24", false);
	rig_ok(om_netns_new(&ns, &rig_why));
	rig_ok(om_wg_new(rig.env.backend, rig.env.wireguard_go, "plain0", ns, 1420, &wg, &rig_why));
	rig_ok(om_netns_enter(&scope, ns, &rig_why));
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_addr_add(&nl, om_wg_index(wg), &self, &rig_why));
	rig_ok(om_route_add(&nl, om_wg_index(wg), &net, NULL, &rig_why));
	om_nl_close(&nl);
	om_netns_leave(&scope);
	rig_ok(om_wg_configure(wg, &cfg, &rig_why));
	rate = stream(ns, RIG_REQ_TUNNEL, bytes);
	om_wg_free(&wg);
	close(ns);
	return rate;
}

/* Turns of both, interleaved; the best of each, for other work on the machine only ever slows. */
static void
test_throughput(void **state)
{
	double plain = 0, guest = 0;
	struct job j;

	(void)state;
	for (int turn = 0; turn < 3; turn++) {
		double rate = plain_stream(BULK_BYTES);

		plain = rate > plain ? rate : plain;
		job_up(&j, "10.99.0.0/24", false, 0);
		rate = stream(j.guest.ns, RIG_REQ_TUNNEL, BULK_BYTES);
		guest = rate > guest ? rate : guest;
		assert_no_event(j.log);
		job_down(&j);
	}
	printf("guest -> tunnel -> requester: %.0f MB/s; the tunnel alone %.0f MB/s (%.0f %%)\n",
	       guest, plain, 100 * guest / plain);
	assert_true(guest > 0.2 * plain);
}

/*
 * nftables' bucket holds one second's worth and the burst, so after the first second the rate is kept.
 */
static void
test_bandwidth_limit(void **state)
{
	const double rate = 2e6, bytes = 6.0 * (1 << 20), bucket = rate + 262144;
	struct om_jobnet_stats st;
	uint64_t limited = 0;
	struct job j;
	double mb_s, seconds;

	(void)state;
	job_up(&j, "10.99.0.0/24", false, 16000);
	mb_s = stream(j.guest.ns, RIG_REQ_TUNNEL, (size_t)bytes);
	seconds = bytes / 1e6 / mb_s;
	rig_ok(om_jobnet_stats(j.net, &st, &rig_why));
	for (size_t i = 0; i < st.counter_count; i++) {
		limited += strcmp(st.counters[i].name, "limited") == 0 ? st.counters[i].packets : 0;
	}
	printf("with a limit of 2 MB/s: 6 MiB in %.2f s, %ju packets dropped\n", seconds,
	       (uintmax_t)limited);
	assert_true(seconds > 0.9 * (bytes - bucket) / rate);
	assert_true(limited > 0);
	assert_int_equal(st.refused, 0);
	assert_no_event(j.log); /* too fast is no attempt to get out */
	job_down(&j);
}

static void
test_wrong_key_carries_nothing(void **state)
{
	char other_private[OM_WG_KEY_TEXT], other_public[OM_WG_KEY_TEXT];
	struct om_jobnet_stats st;
	struct job j;
	int client;

	(void)state;
	rig_keys(other_private, other_public);
	rig_wg_set(other_public, rig.psk, "10.99.0.9/32");
	memcpy(rig.psk, other_private, sizeof(rig.psk)); /* any 32 bytes: not the same */
	job_up(&j, "10.99.0.0/24", false, 0);
	assert_int_equal(rig_connect(j.guest.ns, RIG_REQ_TUNNEL, 80, 500, &client), ETIMEDOUT);
	rig_ok(om_jobnet_stats(j.net, &st, &rig_why));
	assert_int_equal(st.handshake_age_ms, -1);
	assert_int_equal(st.rx_bytes, 0);
	assert_true(st.tx_bytes > 0);
	assert_no_event(j.log);
	job_down(&j);
}

/* A requester that comes back from another address: WireGuard follows it. */
static void
test_requester_moves(void **state)
{
	struct job j;
	int listener;

	(void)state;
	job_up(&j, "10.99.0.0/24", false, 0);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	rig_run((const char *const[]){ "/usr/bin/wg", "set", "rqwg", "listen-port", "51999", NULL },
		NULL, 0);
	/* The first packet from the new place tells the job's end. */
	int client, other = rig_listen(j.guest.ns, RIG_GUEST, 7);

	assert_int_equal(rig_connect(rig.req_ns, RIG_GUEST, 7, RIG_WAIT_MS, &client), 0);
	close(client);
	close(other);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	close(listener);
	job_down(&j);
}

static void
test_wireguard_go_dies(void **state)
{
	struct om_jobnet_stats st;
	struct job j;

	(void)state;
	job_up(&j, "10.99.0.0/24", false, 0);
	if (om_jobnet_pidfd(j.net) >= 0) {
		struct om_why why = { "" };

		assert_false(rig_wait_readable(om_jobnet_pidfd(j.net), 0));
		assert_int_equal(
		    syscall(SYS_pidfd_send_signal, om_jobnet_pidfd(j.net), SIGKILL, NULL, 0), 0);
		assert_true(rig_wait_readable(om_jobnet_pidfd(j.net), RIG_WAIT_MS));
		assert_int_equal(om_jobnet_stats(j.net, &st, &why), OM_ERR_NET);
	}
	job_down(&j);
}

/* EndpointAllowlist: testEmptyAllowlistBlocksAll */
static void
test_own_network_is_refused(void **state)
{
	struct om_jobnet_env env = rig.env;
	struct om_why why = { "" };
	struct om_jobnet *net;
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };

	(void)state;
	rig_config(&cfg, "10.99.0.0/24", false);
	env.policy.allow_count = 0;
	env.policy.allow_private = true;
	rig_ok(om_jobnet_env_refresh(&env, &why));
	assert_int_equal(om_jobnet_up(&env, &spec, &net, &why), OM_ERR_DENIED);
	assert_null(net);
	assert_non_null(strstr(why.text, "own network"));
	assert_int_equal(rig_count_left().links, 0);
}

/* A step in the middle fails: the steps before it are undone. */
static void
test_failed_vpn_setup_detection(void **state)
{
	struct om_jobnet_env env = rig.env;
	unsigned ids = rig_count_left().ids;
	struct om_why why = { "" };
	struct om_jobnet *net;
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };

	(void)state;
	rig_config(&cfg, "10.99.0.0/24", false);
	if (env.backend == OM_WG_BACKEND_USERSPACE) {
		(void)snprintf(env.wireguard_go, sizeof(env.wireguard_go), "/bin/false");
		assert_int_equal(om_jobnet_up(&env, &spec, &net, &why), OM_ERR_NET);
		assert_null(net);
		rig_wait_nothing_left(ids);
	}
	rig_ok(om_jobnet_up(&rig.env, &spec, &net, &why));
	rig_delete_link(om_jobnet_info(net)->tap);
	assert_int_equal(om_jobnet_attach_tap(net, &why), OM_ERR_NOT_FOUND);
	om_jobnet_down(&net);
	rig_wait_nothing_left(ids);
}

/* A VM that boots ahead: the network without a job, the tap attached, then the job. */
static void
test_reserved(void **state)
{
	struct om_jobnet_spec spec = { .job = &rig.job };
	unsigned ids = rig_count_left().ids;
	struct om_flow_event ev;
	struct om_why why = { "" };
	struct job j;
	size_t n = 1;
	int tap, listener;

	(void)state;
	rig_ok(om_jobnet_reserve(&rig.env, &j.net, &rig_why));
	tap = rig_open_tap(om_jobnet_info(j.net)->tap);
	rig_ok(om_jobnet_attach_tap(j.net, &rig_why));
	assert_int_equal(om_jobnet_attach_tap(j.net, &why), OM_ERR_STATE);
	/* The tap is down: nothing that the guest writes goes anywhere. */
	assert_int_equal(write(tap, (char[64]){ 0 }, 64), -1);
	assert_int_equal(errno, EIO);
	rig_config(&j.cfg, "10.99.0.0/24", false);
	j.cfg.mtu = 1300;
	spec.wg = &j.cfg;
	spec.reserved = j.net;
	rig_ok(om_jobnet_up(&rig.env, &spec, &j.net, &rig_why));
	assert_int_equal(om_jobnet_info(j.net)->mtu, 1300);
	j.log = om_jobnet_take_nflog(j.net);
	rig_guest_start(&j.guest, om_jobnet_info(j.net), tap);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	close(listener);
	rig_ok(om_nflog_read(j.log, &ev, 1, &n, &rig_why));
	assert_int_equal(n, 0);
	/* One network, one job. */
	spec.reserved = j.net;
	rig_guest_stop(&j.guest);
	om_nflog_close(j.log);
	assert_int_equal(om_jobnet_up(&rig.env, &spec, &j.net, &why), OM_ERR_STATE);
	assert_null(j.net);
	rig_wait_nothing_left(ids);
}

/* Events of the placeholder in the host's namespace (udev, an operator) do not stop the tunnel. */
static void
test_events_of_the_placeholder(void **state)
{
	struct om_link link;
	struct om_nl nl;
	struct job j;
	int listener;

	(void)state;
	job_up(&j, "10.99.0.0/24", false, 0);
	if (rig.env.backend == OM_WG_BACKEND_USERSPACE) {
		rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
		rig_ok(om_link_get(&nl, om_jobnet_info(j.net)->link, &link, &rig_why));
		assert_false(link.is_up);
		rig_ok(om_link_shape(&nl, link.index, NULL, 1400, &rig_why));
		rig_ok(om_link_up(&nl, link.index, &rig_why));
		rig_ok(om_link_shape(&nl, link.index, NULL, 1420, &rig_why));
		om_nl_close(&nl);
	}
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	close(listener);
	job_down(&j);
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void
print_times(const char *what, double *ms, size_t n)
{
	qsort(ms, n, sizeof(*ms), by_value);
	printf("%-8s p50 %5.1f  p90 %5.1f  max %5.1f ms (%zu runs)\n", what, ms[n / 2],
	       ms[n * 9 / 10], ms[n - 1], n);
}

/* Ephemeral: a tunnel per job, up and down many times; the times are printed, not judged here. */
static void
test_up_and_down_many_times(void **state)
{
	double up[TIMED_RUNS], attach[TIMED_RUNS], down[TIMED_RUNS];
	unsigned ids = rig_count_left().ids;
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };

	(void)state;
	rig_config(&cfg, "10.99.0.0/24", false);
	for (size_t i = 0; i < TIMED_RUNS; i++) {
		struct om_jobnet *net;
		struct om_mono t = om_mono_now();
		int tap;

		rig_ok(om_jobnet_up(&rig.env, &spec, &net, &rig_why));
		up[i] = ms_since(t);
		tap = rig_open_tap(om_jobnet_info(net)->tap);
		t = om_mono_now();
		rig_ok(om_jobnet_attach_tap(net, &rig_why));
		attach[i] = ms_since(t);
		close(tap);
		t = om_mono_now();
		om_jobnet_down(&net);
		down[i] = ms_since(t);
	}
	print_times("up", up, TIMED_RUNS);
	print_times("attach", attach, TIMED_RUNS);
	print_times("down", down, TIMED_RUNS);
	rig_wait_nothing_left(ids);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(test_vpn_connectivity_check),
		T(test_ipv6_in_the_tunnel),
		T(test_inbound),
		T(test_throughput),
		T(test_bandwidth_limit),
		T(test_wrong_key_carries_nothing),
		T(test_requester_moves),
		T(test_wireguard_go_dies),
		T(test_own_network_is_refused),
		T(test_failed_vpn_setup_detection),
		T(test_reserved),
		T(test_events_of_the_placeholder),
		T(test_up_and_down_many_times),
	};

	if (rig_enter() != 0) {
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
