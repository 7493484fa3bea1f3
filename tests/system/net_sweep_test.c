/* SPDX-License-Identifier: ISC */
/*
 * Death at any moment.  A child process makes networks and is killed with -9 at a random time; what it
 * left is swept; afterwards there is no link, namespace, process or socket of ours, and what is not
 * ours is untouched.
 */
#include "tests/system/net_witness.h"

#include <dirent.h>

#define KILLS       100
#define KILL_MAX_MS 60 /* up, attach and down take about this long together */
#define WORKERS     6
#define WORKER_RUNS 5
#define MANY        40 /* networks at once: each is a wireguard-go; the machine may be small */

static unsigned
count_dir(const char *path, const char *prefix)
{
	DIR *dir = opendir(path);
	const struct dirent *e;
	unsigned n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir)) != NULL) {
		n += strncmp(e->d_name, prefix, strlen(prefix)) == 0 ? 1 : 0;
	}
	closedir(dir);
	return n;
}

/* wireguard-go processes of this test's instance; others on the machine are not our business. */
static unsigned
count_wireguard_go(void)
{
	char prefix[OM_IFNAME_MAX];
	DIR *dir = opendir("/proc");
	const struct dirent *e;
	unsigned n = 0;

	assert_non_null(dir);
	(void)snprintf(prefix, sizeof(prefix), "omw%s", rig.env.instance);
	while ((e = readdir(dir)) != NULL) {
		char path[300], text[256] = "";
		int fd;

		(void)snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			continue;
		}
		ssize_t len = read(fd, text, sizeof(text) - 1);
		const char *name = text + sizeof("/usr/bin/wireguard-go") + sizeof("-f");

		n += len > 30 && strcmp(text, "/usr/bin/wireguard-go") == 0 &&
			     strncmp(name, prefix, strlen(prefix)) == 0
			 ? 1
			 : 0;
		close(fd);
	}
	closedir(dir);
	return n;
}

/* Makes and takes down networks until it is killed. */
_Noreturn static void
child_main(void)
{
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };

	rig_config(&cfg, "10.99.0.0/24", false);
	for (;;) {
		struct om_jobnet *net;
		struct om_why why;

		if (om_jobnet_up(&rig.env, &spec, &net, &why) != OM_OK) {
			fprintf(stderr, "child: %s\n", why.text);
			_exit(1);
		}
		if (om_jobnet_attach_tap(net, &why) != OM_OK) {
			fprintf(stderr, "child: %s\n", why.text);
			_exit(1);
		}
		om_jobnet_down(&net);
	}
}

static void
test_killed_at_any_moment(void **state)
{
	unsigned ids = rig_count_left().ids, swept[3] = { 0 };

	(void)state;
	for (int i = 0; i < KILLS; i++) {
		struct om_jobnet_sweep sweep;
		uint8_t random;
		int status = 0;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			child_main();
		}
		om_random(&random, 1);
		/* The time of death is what the test is about. */
		(void)poll(NULL, 0, random % KILL_MAX_MS);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		rig_ok(om_jobnet_sweep(&rig.env, &sweep, &rig_why));
		swept[0] += sweep.links;
		swept[1] += sweep.processes;
		swept[2] += sweep.sockets;
	}
	printf("%d kills; swept: %u links, %u processes, %u sockets\n", KILLS, swept[0], swept[1],
	       swept[2]);
	assert_true(swept[0] + swept[1] + swept[2] >
		    0); /* else the kills came too late or too early */
	rig_wait_nothing_left(ids);
	assert_int_equal(count_dir(OM_WG_SOCKET_DIR, "om"), 0);
	assert_int_equal(count_wireguard_go(), 0);
}

static void
test_sweep_leaves_others_alone(void **state)
{
	struct om_jobnet_env other = rig.env;
	struct om_jobnet_sweep sweep;
	struct om_jobnet *net;
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };
	struct om_jobnet_stats st;
	struct om_link link;
	struct om_nl nl;
	int near_miss, veth_ns;

	(void)state;
	/* A network of another daemon on the same machine, and links that nearly look like ours. */
	rig_ok(om_jobnet_env_init(&other, "/var/lib/another", OM_WG_BACKEND_NONE, &rig_why));
	other.policy = rig.env.policy;
	assert_string_not_equal(other.instance, rig.env.instance);
	rig_config(&cfg, "10.99.0.0/24", false);
	rig_ok(om_jobnet_up(&other, &spec, &net, &rig_why));
	rig_ok(om_tun_open(OM_TUN_TAP, "omtxyz", &near_miss, &rig_why));
	rig_ok(om_netns_new(&veth_ns, &rig_why));
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	char ours[OM_IFNAME_MAX];
	(void)snprintf(ours, sizeof(ours), "omt%s00112233", rig.env.instance);
	rig_ok(om_link_new_veth(&nl, ours, "peer", veth_ns, &rig_why)); /* our name, not our kind */

	rig_ok(om_jobnet_sweep(&rig.env, &sweep, &rig_why));
	assert_int_equal(sweep.links + sweep.processes + sweep.sockets, 0);
	rig_ok(om_link_get(&nl, "omtxyz", &link, &rig_why));
	rig_ok(om_link_get(&nl, ours, &link, &rig_why));
	rig_ok(om_link_get(&nl, "rq0", &link, &rig_why));
	rig_ok(om_jobnet_stats(net, &st, &rig_why)); /* its wireguard-go answers */

	rig_ok(om_link_delete(&nl, ours, &rig_why));
	om_nl_close(&nl);
	close(near_miss);
	close(veth_ns);
	om_jobnet_down(&net);
}

/* VPNManager: testActiveTunnelsTracking; EphemeralVPN: testMultipleServerTracking, testPortAllocation.  Many at once, names unique, each with its own counters. */
static void
test_active_tunnels_tracking(void **state)
{
	static struct om_jobnet *nets[MANY];
	unsigned ids = rig_count_left().ids;
	struct om_wg_config cfg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &cfg };
	struct om_mono start = om_mono_now();
	double up_ms, down_ms;

	(void)state;
	rig_config(&cfg, "10.99.0.0/24", false);
	for (size_t i = 0; i < MANY; i++) {
		rig_ok(om_jobnet_up(&rig.env, &spec, &nets[i], &rig_why));
		assert_int_equal(strlen(om_jobnet_info(nets[i])->tap), 15);
		assert_int_equal(strlen(om_jobnet_info(nets[i])->link), 15);
		for (size_t k = 0; k < i; k++) {
			assert_string_not_equal(om_jobnet_info(nets[i])->tap,
						om_jobnet_info(nets[k])->tap);
			assert_string_not_equal(om_jobnet_info(nets[i])->netns,
						om_jobnet_info(nets[k])->netns);
		}
	}
	up_ms = (double)om_mono_ms_between(start, om_mono_now()) / MANY;
	assert_int_equal(count_wireguard_go(),
			 rig.env.backend == OM_WG_BACKEND_USERSPACE ? MANY : 0);
	start = om_mono_now();
	for (size_t i = 0; i < MANY; i++) {
		struct om_jobnet_stats st;

		rig_ok(om_jobnet_stats(nets[i], &st, &rig_why));
		assert_true(st.counter_count > 5);
		om_jobnet_down(&nets[i]);
	}
	down_ms = (double)om_mono_ms_between(start, om_mono_now()) / MANY;
	printf("%d at once: up %.1f ms, down %.1f ms each\n", MANY, up_ms, down_ms);
	rig_wait_nothing_left(ids);
	assert_int_equal(count_dir(OM_WG_SOCKET_DIR, "om"), 0);
	assert_int_equal(count_wireguard_go(), 0);
}

/* One of the threads that come and go through namespaces; as the offload pool's do. */
static void *
worker_main(void *arg)
{
	const struct om_wg_config *cfg = arg;
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = cfg };
	uintptr_t bad = 0;

	for (int i = 0; i < WORKER_RUNS; i++) {
		struct om_jobnet_stats st;
		struct om_jobnet *net;
		struct om_why why = { "" };

		if (om_jobnet_up(&rig.env, &spec, &net, &why) != OM_OK ||
		    om_jobnet_attach_tap(net, &why) != OM_OK ||
		    om_jobnet_stats(net, &st, &why) != OM_OK) {
			fprintf(stderr, "worker: %s\n", why.text);
			bad++;
		}
		om_jobnet_down(&net);
	}
	return (void *)bad;
}

static void
test_many_threads(void **state)
{
	unsigned ids = rig_count_left().ids;
	struct om_wg_config cfg;
	pthread_t threads[WORKERS];
	void *bad;

	(void)state;
	rig_config(&cfg, "10.99.0.0/24", false);
	for (size_t i = 0; i < WORKERS; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, worker_main, &cfg), 0);
	}
	for (size_t i = 0; i < WORKERS; i++) {
		assert_int_equal(pthread_join(threads[i], &bad), 0);
		assert_null(bad);
	}
	rig_wait_nothing_left(ids);
	assert_int_equal(count_dir(OM_WG_SOCKET_DIR, "om"), 0);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(test_killed_at_any_moment),
		T(test_sweep_leaves_others_alone),
		T(test_active_tunnels_tracking),
		T(test_many_threads),
	};

	if (rig_enter() != 0) {
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
