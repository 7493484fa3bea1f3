/* SPDX-License-Identifier: ISC */
/* A job's network with the real parts: up, traffic through the tunnel, down, nothing left. */
#include "tests/system/net_job.h"
#include "tests/system/net_witness.h"

#include <sys/resource.h>
#include <sys/syscall.h>

#define SMALL_REPLY "HTTP/1.0 200 OK\r\n\r\nhello from the requester\n"

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
	assert_true(st.handshake_at.ns > 0);
	assert_true(st.sent > 2);
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

/* A job with an IPv6 address alone: not even ARP is answered. */
static void
test_ipv6_only(void **state)
{
	struct om_jobnet_spec spec = { .job = &rig.job };
	struct om_jobnet_stats st;
	struct job j;
	int tap, listener, client;

	(void)state;
	rig_config(&j.cfg, "fd99::/64", true);
	j.cfg.addresses[0] = j.cfg.addresses[1];
	j.cfg.address_count = 1;
	spec.wg = &j.cfg;
	rig_ok(om_jobnet_up(&rig.env, &spec, &j.net, &rig_why));
	tap = rig_open_tap(om_jobnet_info(j.net)->tap);
	rig_ok(om_jobnet_attach_tap(j.net, &rig_why));
	assert_int_equal(om_jobnet_info(j.net)->guest4.ip.family, 0);
	j.log = om_jobnet_take_nflog(j.net);
	rig_guest_start(&j.guest, om_jobnet_info(j.net), tap);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL6, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL6, 80);
	close(listener);
	assert_no_event(j.log);
	assert_int_equal(rig_connect(j.guest.ns, RIG_REQ_TUNNEL, 80, 100, &client), ENETUNREACH);
	rig_ok(om_jobnet_stats(j.net, &st, &rig_why));
	assert_int_equal(st.refused, 0);
	job_down(&j);
}

/* The network goes while the hypervisor still has the tap open, as when undo steps run out of order. */
static void
test_down_before_the_vm(void **state)
{
	unsigned ids = rig_count_left().ids;
	struct om_jobnet_spec spec = { .job = &rig.job };
	struct om_wg_config cfg;
	struct om_jobnet *net;
	int tap;

	(void)state;
	rig_config(&cfg, "10.99.0.0/24", false);
	spec.wg = &cfg;
	rig_ok(om_jobnet_up(&rig.env, &spec, &net, &rig_why));
	tap = rig_open_tap(om_jobnet_info(net)->tap);
	om_jobnet_down(&net); /* not attached: the tap is still in the host's namespace */
	rig_wait_nothing_left(ids);
	close(tap);
	rig_ok(om_jobnet_up(&rig.env, &spec, &net, &rig_why));
	tap = rig_open_tap(om_jobnet_info(net)->tap);
	rig_ok(om_jobnet_attach_tap(net, &rig_why));
	om_jobnet_down(&net);
	rig_wait_nothing_left(ids);
	/* The kernel takes the namespace's links away in the background. */
	for (int i = 0; write(tap, (char[64]){ 0 }, 64) >= 0; i++) {
		assert_true(i < 500);
		(void)poll(NULL, 0, 10);
	}
	close(tap);
}

/* libnftables waits with select(2): a daemon with more than 1024 descriptors died of it. */
static void
test_more_than_1024_descriptors(void **state)
{
	static int fds[1100];
	struct rlimit lim;
	struct job j;
	int listener;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
	lim.rlim_cur = lim.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &lim), 0);
	for (size_t i = 0; i < OM_COUNT(fds); i++) {
		fds[i] = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
		assert_true(fds[i] >= 0);
	}
	job_up(&j, "10.99.0.0/24", false, 0);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	close(listener);
	job_down(&j);
	for (size_t i = 0; i < OM_COUNT(fds); i++) {
		close(fds[i]);
	}
}

/* FilteredNAT: testInboundBeforeOutbound, testInboundFromUnknownSourceBlocked.
 * The requester reaches its job; the job's namespace itself answers nothing and logs the attempt. */
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
	assert_int_equal(rig_connect(j.guest.ns, RIG_REQ_TUNNEL, 9, RIG_WAIT_MS, &client),
			 ECONNREFUSED);
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
	assert_int_equal(st.handshake_at.ns, 0);
	assert_int_equal(st.rx_bytes, 0);
	assert_true(st.tx_bytes > 0);
	assert_no_event(j.log);
	job_down(&j);
}

/* A requester that comes back from another address: WireGuard follows it, and we see where to. */
static void
test_requester_moves(void **state)
{
	struct om_jobnet_stats st;
	struct job j;
	int listener;

	(void)state;
	job_up(&j, "10.99.0.0/24", false, 0);
	listener = rig_listen(rig.req_ns, RIG_REQ_TUNNEL, 80);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	rig_ok(om_jobnet_stats(j.net, &st, &rig_why));
	assert_int_equal(st.endpoint.port, RIG_REQ_UDP);
	assert_int_equal(st.endpoint.ip.family, 4);
	rig_run((const char *const[]){ "/usr/bin/wg", "set", "rqwg", "listen-port", "51999", NULL },
		NULL, 0);
	/* The first packet from the new place tells the job's end. */
	int client, other = rig_listen(j.guest.ns, RIG_GUEST, 7);

	assert_int_equal(rig_connect(rig.req_ns, RIG_GUEST, 7, RIG_WAIT_MS, &client), 0);
	close(client);
	close(other);
	fetch(&j, listener, RIG_REQ_TUNNEL, 80);
	rig_ok(om_jobnet_stats(j.net, &st, &rig_why));
	assert_int_equal(st.endpoint.port, 51999);
	close(listener);
	job_down(&j);
}

/* NetworkIsolation: testVPNInterfaceVerification */
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
		assert_true(st.has_walls); /* they say what was refused without it */
		assert_false(st.has_link);
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
	assert_int_equal(om_jobnet_up(&env, &spec, &net, &why), OM_ERR_DENIED);
	assert_null(net);
	assert_non_null(strstr(why.text, "own network"));
	assert_int_equal(rig_count_left().links, 0);
}

/* They were read once, at the daemon's start; and of a point-to-point link the peer's end alone. */
static void
test_own_networks_of_later(void **state)
{
	static const char *const own[] = { "10.250.77.1:9", "10.250.88.1:9", "10.250.99.7:9" };
	struct om_jobnet_env env = rig.env;
	struct om_why why = { "" };
	struct om_jobnet *net;
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };

	(void)state;
	rig_config(&cfg, "10.99.0.0/24", false);
	env.policy.allow_count = 0;
	env.policy.allow_private = true;
	rig_run((const char *const[]){ "/usr/sbin/ip", "addr", "add", "10.250.77.1", "peer",
				       "10.250.88.1/32", "dev", "rq0", NULL },
		NULL, 0);
	rig_run((const char *const[]){ "/usr/sbin/ip", "addr", "add", "10.250.99.1/24", "dev",
				       "rq0", NULL },
		NULL, 0);
	for (size_t i = 0; i < OM_COUNT(own); i++) {
		rig_ok(om_endpoint_parse(om_str_of(own[i]), &cfg.endpoint));
		assert_int_equal(om_jobnet_up(&env, &spec, &net, &why), OM_ERR_DENIED);
		assert_non_null(strstr(why.text, "own network"));
	}
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

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(test_vpn_connectivity_check),
		T(test_ipv6_in_the_tunnel),
		T(test_ipv6_only),
		T(test_down_before_the_vm),
		T(test_more_than_1024_descriptors),
		T(test_inbound),
		T(test_wrong_key_carries_nothing),
		T(test_requester_moves),
		T(test_wireguard_go_dies),
		T(test_own_network_is_refused),
		T(test_own_networks_of_later),
		T(test_failed_vpn_setup_detection),
		T(test_reserved),
		T(test_events_of_the_placeholder),
	};

	if (rig_enter() != 0) {
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
