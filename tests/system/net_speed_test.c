/* SPDX-License-Identifier: ISC */
/* How fast: through the tunnel, with a limit, up and down.  Times are printed; the judges are far off. */
#include "tests/system/net_job.h"
#include "tests/system/net_witness.h"

#define BULK_BYTES (20u << 20)
#define TIMED_RUNS 50

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
		T(test_throughput),
		T(test_bandwidth_limit),
		T(test_up_and_down_many_times),
	};

	if (rig_enter() != 0) {
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
