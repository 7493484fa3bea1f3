/* SPDX-License-Identifier: ISC */
/*
 * The VPN manager on the real bus.  The networks are fakes that count (this file defines
 * net/jobnet.h's functions); wireguard-go is a descriptor that becomes readable when it "dies".
 */
#include <sys/eventfd.h>
#include "actors_net_stage.h"

#define KEY_A "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
#define KEY_B "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
#define NETS  16

struct om_jobnet {
	struct om_jobnet_info info;
	int died; /* -1: the kernel's WireGuard */
	bool up, attached;
};

/* What the fake kernel was asked, under S->lock; the next call of a kind may be made to fail. */
static struct {
	unsigned reserved, ups, attached, downs, open;
	const char *fail; /* "reserve", "up", "attach", "stats", "link" */
	struct om_jobnet *nets[NETS];
	uint64_t refused, sent;
	struct om_wall handshake_at;
	struct om_endpoint endpoint;
	bool keys_seen;
	uint64_t rate_kbit; /* of the last network */
	bool hold_up; /* om_jobnet_up waits until this is false */
} kernel;

static enum om_err
kernel_fails(const char *what, struct om_why *why)
{
	return kernel.fail != NULL && strcmp(kernel.fail, what) == 0
		   ? om_why_set(why, OM_ERR_NET, "%s fails", what)
		   : OM_OK;
}

enum om_err
om_jobnet_endpoint_check(struct om_jobnet_env *env, const struct om_endpoint *ep,
			 struct om_why *why)
{
	return om_endpoint_check(&env->policy, ep, why);
}

enum om_err
om_jobnet_reserve(const struct om_jobnet_env *env, struct om_jobnet **out, struct om_why *why)
{
	struct om_jobnet *net = NULL;
	enum om_err err;

	(void)env;
	stage_lock();
	err = kernel_fails("reserve", why);
	if (err == OM_OK) {
		net = calloc(1, sizeof(*net));
		OM_ASSERT(net != NULL && kernel.reserved < NETS);
		net->died = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		(void)snprintf(net->info.tap, sizeof(net->info.tap), "omt%u", kernel.reserved);
		(void)snprintf(net->info.netns, sizeof(net->info.netns), "net:[1]");
		kernel.nets[kernel.reserved++] = net;
		kernel.open++;
	}
	*out = net;
	stage_unlock();
	return err;
}

void
om_jobnet_down(struct om_jobnet **netp)
{
	if (*netp != NULL) {
		stage_lock();
		kernel.downs++;
		kernel.open--;
		for (size_t i = 0; i < NETS; i++) {
			kernel.nets[i] = kernel.nets[i] == *netp ? NULL : kernel.nets[i];
		}
		(void)close((*netp)->died);
		free(*netp);
		*netp = NULL;
		stage_unlock();
	}
}

enum om_err
om_jobnet_up(struct om_jobnet_env *env, const struct om_jobnet_spec *spec, struct om_jobnet **out,
	     struct om_why *why)
{
	struct om_jobnet *net = spec->reserved;
	enum om_err err;

	(void)env;
	stage_lock();
	while (kernel.hold_up) {
		(void)pthread_cond_wait(&S->changed, &S->lock);
	}
	err = kernel_fails("up", why);
	kernel.keys_seen = spec->wg->private_key[0] != 0;
	kernel.rate_kbit = spec->rate_kbit;
	kernel.ups += err == OM_OK;
	net->up = err == OM_OK;
	stage_unlock();
	if (err != OM_OK) {
		om_jobnet_down(&net);
	}
	*out = net;
	return err;
}

enum om_err
om_jobnet_attach_tap(struct om_jobnet *net, struct om_why *why)
{
	enum om_err err;

	stage_lock();
	err = kernel_fails("attach", why);
	kernel.attached += err == OM_OK;
	net->attached = err == OM_OK;
	stage_unlock();
	return err;
}

const struct om_jobnet_info *
om_jobnet_info(const struct om_jobnet *net)
{
	return &net->info;
}

int
om_jobnet_pidfd(const struct om_jobnet *net)
{
	return net->died;
}

struct om_nflog *
om_jobnet_take_nflog(struct om_jobnet *net)
{
	(void)net;
	return NULL;
}

enum om_err
om_jobnet_stats(struct om_jobnet *net, struct om_jobnet_stats *out, struct om_why *why)
{
	enum om_err err;

	(void)net;
	stage_lock();
	*out = (struct om_jobnet_stats){ 0 };
	err = kernel_fails("stats", why);
	if (err == OM_OK) {
		out->has_walls = true;
		out->refused = kernel.refused;
		out->sent = kernel.sent;
		err = kernel_fails("link", why);
	}
	if (err == OM_OK) {
		out->has_link = true;
		out->tx_bytes = 7;
		out->rx_bytes = 8;
		out->handshake_at = kernel.handshake_at;
		out->endpoint = kernel.endpoint;
	}
	stage_unlock();
	return err;
}

/* --- the fake detector: takes the sockets and the readings ---------------------------------------- */

static unsigned handed_over, readings, unwatched;

static enum om_err
fake_on_stats(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)sv;
	(void)state;
	(void)in;
	stage_lock();
	readings++;
	stage_unlock();
	return OM_OK;
}

static enum om_err
fake_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	(void)sv;
	(void)state;
	if (msg->type != OM_VPN_HANDOFF) {
		return OM_ERR_UNKNOWN_TYPE;
	}
	stage_lock();
	handed_over++;
	stage_unlock();
	return OM_OK;
}

static enum om_err
fake_on_unwatch(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)sv;
	(void)state;
	(void)in;
	stage_lock();
	unwatched++;
	stage_unlock();
	return OM_OK;
}

static const struct om_service_handler fake_handlers[] = {
	{ OM_MSG_VPN_STATS, fake_on_stats },
	{ OM_MSG_ROGUE_UNWATCH, fake_on_unwatch },
};
static const struct om_service_def fake_detector = {
	.name = OM_ROGUE_CONNECTION_DETECTOR,
	.on = fake_handlers,
	.on_count = OM_COUNT(fake_handlers),
	.on_msg = fake_on_msg,
};

/* --- asking ---------------------------------------------------------------------------------------- */

static struct om_jobnet_env env;
static struct om_vpn_manager_conf conf;
static struct om_str address, allowed;

/* A configuration that is right; tests change one thing. */
static struct om_vpn_config
config(void)
{
	struct om_vpn_config vpn = { .private_key = OM_STR(KEY_A),
				     .peer_public_key = OM_STR(KEY_B),
				     .endpoint = OM_STR("192.0.2.1:51820"),
				     .addresses = { &address, 1 },
				     .allowed_ips = { &allowed, 1 } };

	address = OM_STR("10.99.0.2/32");
	allowed = OM_STR("10.99.0.0/24");
	return vpn;
}

static enum om_err
up_with(const char *job, struct om_vpn_config *vpn)
{
	struct om_vpn_up m = { .job = om_str_of(job), .vpn = vpn };

	return stage_ask(OM_VPN_MANAGER, OM_MSG_VPN_UP, &m);
}

static enum om_err
up(const char *job)
{
	struct om_vpn_config vpn = config();

	return up_with(job, &vpn);
}

static enum om_err
attach(const char *job)
{
	return stage_ask_job(OM_VPN_MANAGER, OM_MSG_VPN_ATTACH, job);
}

static enum om_err
down(const char *job)
{
	return stage_ask_job(OM_VPN_MANAGER, OM_MSG_VPN_DOWN, job);
}

static void
kernel_set(const char *fail)
{
	stage_lock();
	kernel.fail = fail;
	stage_unlock();
}

static bool
was_unwatched(void)
{
	return unwatched == 2;
}

static bool
was_handed_over(void)
{
	return handed_over == 1;
}

static int
setup(void **state)
{
	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	handed_over = readings = unwatched = 0;
	env = (struct om_jobnet_env){ .backend = OM_WG_BACKEND_USERSPACE };
	conf = (struct om_vpn_manager_conf){ .env = &env,
					     .health = OM_HEALTH_LIMITS_DEFAULT,
					     .sample_ms = 3600000 };
	return stage_up(&om_vpn_manager_service, &conf, &fake_detector);
}

static int
teardown(void **state)
{
	(void)state;
	stage_down();
	return kernel.open == 0 ? 0 : -1; /* a network was left standing */
}

/* --- tests ----------------------------------------------------------------------------------------- */

/* What the operator allows is what a job gets, when it asks for more or for no limit. */
static void
test_the_operators_bandwidth(void **state)
{
	static const struct {
		uint64_t max, asked, want;
	} cases[] = { { 0, 0, 0 },        { 0, 5000, 5000 },    { 1000, 0, 1000 },
		      { 1000, 500, 500 }, { 1000, 1000, 1000 }, { 1000, 5000, 1000 } };
	struct om_vpn_config vpn = config();

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		struct om_vpn_up m = { .job = OM_STR("job1"), .vpn = &vpn };

		conf.rate_max_kbit = cases[i].max;
		OM_SET(&m, vpn_up, bandwidth_kbit, cases[i].asked);
		assert_int_equal(stage_ask(OM_VPN_MANAGER, OM_MSG_VPN_UP, &m), OM_OK);
		assert_int_equal(attach("job1"), OM_OK);
		stage_lock();
		assert_int_equal(kernel.rate_kbit, cases[i].want);
		stage_unlock();
		assert_int_equal(down("job1"), OM_OK);
	}
}

static void
test_validate_configuration(void **state)
{
	struct om_vpn_ready ready = { 0 };
	struct om_arena arena = { 0 };
	struct om_why why;

	(void)state;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(om_body_decode(OM_BODY_vpn_ready,
					(struct om_bin){ S->raw.data, S->raw.len }, &ready, &arena,
					&why),
			 OM_OK);
	assert_true(om_str_is(ready.tap, "omt0"));
	assert_int_equal(ready.guest_addresses.n, 1);
	assert_true(om_str_is(ready.guest_addresses.v[0], "10.99.0.2/32"));
	om_arena_fini(&arena);
	assert_int_equal(attach("job1"), OM_OK);
	assert_true(kernel.keys_seen);
	stage_wait(was_handed_over);
	assert_int_equal(down("job1"), OM_OK);
	assert_int_equal(kernel.open, 0);
	assert_int_equal(S->told_count, 0);
}

static void
test_invalid_configuration_empty_wireguard_config(void **state)
{
	struct om_vpn_config vpn = { 0 };

	(void)state;
	assert_int_not_equal(up_with("job1", &vpn), OM_OK);
	assert_int_equal(kernel.reserved, 0);
	assert_int_equal(down("job1"), OM_ERR_NOT_FOUND);
}

static void
test_invalid_configuration_empty_endpoint(void **state)
{
	struct om_vpn_config vpn = config();

	(void)state;
	vpn.endpoint = OM_STR("");
	assert_int_not_equal(up_with("job1", &vpn), OM_OK);
	assert_non_null(strstr(S->text, "endpoint"));
	assert_int_equal(kernel.reserved, 0);
}

static void
test_invalid_configuration_bad_endpoint_format(void **state)
{
	static const char *const bad[] = {
		"192.0.2.1",          "192.0.2.1:0", "192.0.2.1:65536",
		"host.example:51820", "[::1:51820",  "192.0.2.1:51820 "
	};
	struct om_vpn_config vpn = config();

	(void)state;
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		vpn.endpoint = om_str_of(bad[i]);
		assert_int_not_equal(up_with("job1", &vpn), OM_OK);
	}
	assert_int_equal(kernel.reserved, 0);
}

static void
test_endpoint_against_policy(void **state)
{
	struct om_vpn_config vpn = config();

	(void)state;
	vpn.endpoint = OM_STR("127.0.0.1:51820");
	assert_int_equal(up_with("job1", &vpn), OM_ERR_DENIED);
	assert_int_equal(kernel.reserved, 0);
}

static void
test_active_tunnels_tracking(void **state)
{
	(void)state;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(up("job1"), OM_ERR_EXISTS);
	assert_int_equal(up("job2"), OM_OK);
	assert_int_equal(kernel.open, 2);
	assert_int_equal(down("job1"), OM_OK);
	assert_int_equal(kernel.open, 1);
	assert_int_equal(down("job1"), OM_ERR_NOT_FOUND);
	assert_int_equal(attach("job1"), OM_ERR_NOT_FOUND);
	assert_int_equal(attach("job2"), OM_OK);
	assert_int_equal(attach("job2"), OM_ERR_STATE);
	assert_int_equal(down("job2"), OM_OK);
	assert_int_equal(kernel.open, 0);
}

static void
test_no_wireguard_here(void **state)
{
	(void)state;
	env.backend = OM_WG_BACKEND_NONE;
	assert_int_equal(up("job1"), OM_ERR_UNSUPPORTED);
}

/* Each step fails in turn: the next one is answered with the reason, and down works all the same. */
static void
test_every_step_may_fail(void **state)
{
	(void)state;
	kernel_set("reserve");
	assert_int_equal(up("job1"), OM_ERR_NET);
	assert_string_equal(S->text, "reserve fails");
	assert_int_equal(down("job1"), OM_OK);
	kernel_set("up");
	assert_int_equal(up("job2"), OM_OK); /* it comes up while the VM boots */
	assert_int_equal(attach("job2"), OM_ERR_NET);
	assert_string_equal(S->text, "up fails");
	assert_int_equal(down("job2"), OM_OK);
	kernel_set("attach");
	assert_int_equal(up("job3"), OM_OK);
	assert_int_equal(attach("job3"), OM_ERR_NET);
	assert_string_equal(S->text, "attach fails");
	assert_int_equal(down("job3"), OM_OK);
	kernel_set("stats");
	assert_int_equal(up("job4"), OM_OK);
	assert_int_equal(attach("job4"), OM_OK);
	assert_int_equal(down("job4"), OM_OK);
	assert_int_equal(kernel.open, 0);
	stage_wait(was_handed_over);
}

/* Down while a call is under way: done next, and the one that waits for an attach is told. */
static void
test_down_in_the_middle(void **state)
{
	(void)state;
	stage_lock();
	kernel.hold_up = true;
	stage_unlock();
	assert_int_equal(up("job1"), OM_OK);
	stage_command(STAGE_ASK, OM_VPN_MANAGER, OM_MSG_VPN_DOWN,
		      &(struct om_job_ref){ .job = OM_STR("job1") });
	assert_int_equal(kernel.downs, 0);
	stage_lock();
	kernel.hold_up = false;
	stage_unlock();
	stage_wait(stage_is_done);
	assert_int_equal(S->err, OM_OK);
	assert_int_equal(kernel.open, 0);
}

/* The whole way of a job, whose last reading may fail. */
static struct om_vpn_stats
last_counters(const char *fail)
{
	struct om_vpn_stats stats = { 0 };
	struct om_arena arena = { 0 };
	struct om_why why;

	kernel.refused = 3;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	kernel_set(fail);
	assert_int_equal(down("job1"), OM_OK);
	assert_int_equal(om_body_decode(OM_BODY_vpn_stats,
					(struct om_bin){ S->raw.data, S->raw.len }, &stats, &arena,
					&why),
			 OM_OK);
	stats.job = (struct om_str){ 0 };
	om_arena_fini(&arena);
	return stats;
}

static void
test_last_counters(void **state)
{
	struct om_vpn_stats stats = last_counters(NULL);

	(void)state;
	assert_int_equal(stats.tx_bytes, 7);
	assert_int_equal(stats.rx_bytes, 8);
	assert_true(OM_HAS(&stats, vpn_stats, refused));
	assert_int_equal(stats.refused, 3);
}

/* The machine's clock was set an hour forward, or back, since WireGuard stamped its handshake. */
static void
test_age_of_a_handshake_when_the_clock_was_set(void **state)
{
	static const int64_t step_s[] = { 3600, -3600 };
	struct om_vpn_stats stats;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(step_s); i++) {
		kernel.handshake_at.ns = om_wall_now().ns - step_s[i] * OM_NS_PER_S;
		kernel.sent = 5;
		stats = last_counters(NULL);
		assert_int_equal(stats.handshake_ms, kernel.handshake_at.ns / OM_NS_PER_MS);
		assert_true(stats.handshake_age_ms < 60000);
		assert_int_equal(stats.sent_packets, 5);
	}
}

/* It was sent as 0: a second witness that had seen nothing. */
static void
test_walls_that_were_not_read_at_the_end(void **state)
{
	struct om_vpn_stats stats = last_counters("stats");

	(void)state;
	assert_false(OM_HAS(&stats, vpn_stats, refused));
}

/* The same: what the walls had said was thrown away because WireGuard did not answer. */
static void
test_wireguard_that_is_silent_at_the_end(void **state)
{
	struct om_vpn_stats stats = last_counters("link");

	(void)state;
	assert_true(OM_HAS(&stats, vpn_stats, refused));
	assert_int_equal(stats.refused, 3);
}

static void
test_wireguard_that_dies_ends_its_job(void **state)
{
	uint64_t one = 1;

	(void)state;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	assert_int_equal(up("job2"), OM_OK);
	assert_int_equal(attach("job2"), OM_OK);
	assert_int_equal(write(kernel.nets[1]->died, &one, sizeof(one)), sizeof(one));
	assert_told(0, "failed", "tunnel_lost");
	assert_string_equal(S->told[0].job, "job2");
	assert_int_equal(down("job2"), OM_OK);
	assert_int_equal(down("job1"), OM_OK);
	assert_int_equal(S->told_count, 1);
}

/* Its jobs never say vpn.down: their networks stood until the daemon ended, in the way of the ids. */
static void
test_an_executor_that_failed_leaves_no_network(void **state)
{
	struct om_vpn_config vpn = config();
	struct om_vpn_up held = { .job = OM_STR("job2"), .vpn = &vpn };

	(void)state;
	assert_int_equal(down("*"), OM_OK);
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	stage_send(OM_VPN_MANAGER, OM_MSG_VPN_UP, &held); /* and one in the middle of a step */
	assert_int_equal(down("*"), OM_OK);
	assert_int_equal(kernel.open, 0);
	stage_wait(was_unwatched);
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(down("job1"), OM_OK);
}

static bool
has_readings(void)
{
	return readings >= 3;
}

static int
setup_sampling(void **state)
{
	int rc = setup(state);

	conf.sample_ms = 1; /* read when the first tunnel comes */
	return rc;
}

static void
test_readings_go_to_the_detector(void **state)
{
	(void)state;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	stage_wait(has_readings);
	assert_int_equal(down("job1"), OM_OK);
}

/* A reading of the middle is no last one: packets that came after it would go unseen. */
static void
test_earlier_reading_is_not_the_last_one(void **state)
{
	struct om_vpn_stats stats = { 0 };
	struct om_arena arena = { 0 };
	struct om_why why;

	(void)state;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	stage_wait(has_readings);
	kernel_set("stats");
	assert_int_equal(down("job1"), OM_OK);
	assert_int_equal(om_body_decode(OM_BODY_vpn_stats,
					(struct om_bin){ S->raw.data, S->raw.len }, &stats, &arena,
					&why),
			 OM_OK);
	assert_false(OM_HAS(&stats, vpn_stats, refused));
	assert_int_equal(stats.rx_bytes, 8); /* the best that is known */
	om_arena_fini(&arena);
}

/* A namespace that cannot be read any more is gone. */
static void
test_network_that_vanishes_ends_its_job(void **state)
{
	(void)state;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	kernel_set("stats");
	assert_told(0, "failed", "tunnel_lost");
	kernel_set(NULL);
	assert_int_equal(down("job1"), OM_OK);
}

/* Who has the peer's key sends one packet from the provider's own network, and WireGuard follows. */
static void
test_peer_that_moves_where_none_may_be_ends_its_job(void **state)
{
	struct om_str lan = OM_STR("192.168.1.7/24");
	struct om_cidr own;

	(void)state;
	assert_int_equal(om_cidr_parse(lan, &own), OM_OK);
	env.policy.allow_private = true;
	env.policy.own[0] = om_cidr_network(&own);
	env.policy.own_count = 1;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	stage_lock();
	assert_int_equal(om_endpoint_parse(OM_STR("10.1.1.1:9"), &kernel.endpoint), OM_OK);
	readings = 0;
	stage_unlock();
	stage_wait(has_readings); /* allowed: it goes on */
	assert_int_equal(S->told_count, 0);
	stage_lock();
	assert_int_equal(om_endpoint_parse(OM_STR("192.168.1.9:9"), &kernel.endpoint), OM_OK);
	stage_unlock();
	assert_told(0, "failed", "endpoint_denied");
	assert_non_null(strstr(S->told[0].text, "192.168.1.9"));
	assert_int_equal(down("job1"), OM_OK);
}

static bool
two_were_told(void)
{
	return S->told_count == 2;
}

/* Restarted by the supervisor: no network is left, and every job that had one is told. */
static void
test_restart_ends_the_jobs(void **state)
{
	struct om_vpn_config empty = { 0 };
	struct om_vpn_up wrong = { .job = OM_STR("none"), .vpn = &empty };

	(void)state;
	assert_int_equal(up("job1"), OM_OK);
	assert_int_equal(attach("job1"), OM_OK);
	assert_int_equal(up("job2"), OM_OK);
	stage_kill(OM_VPN_MANAGER);
	stage_wait(two_were_told);
	assert_told(0, "failed", "tunnel_lost");
	stage_next_life(OM_VPN_MANAGER, OM_MSG_VPN_UP, &wrong);
	assert_int_equal(down("job1"), OM_ERR_NOT_FOUND);
	assert_int_equal(up("job1"), OM_OK); /* the next life serves */
	assert_int_equal(attach("job1"), OM_OK);
	assert_int_equal(down("job1"), OM_OK);
}

#define T(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TS(name) cmocka_unit_test_setup_teardown(name, setup_sampling, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_validate_configuration),
		T(test_the_operators_bandwidth),
		T(test_invalid_configuration_empty_wireguard_config),
		T(test_invalid_configuration_empty_endpoint),
		T(test_invalid_configuration_bad_endpoint_format),
		T(test_endpoint_against_policy),
		T(test_active_tunnels_tracking),
		T(test_no_wireguard_here),
		T(test_every_step_may_fail),
		T(test_down_in_the_middle),
		T(test_last_counters),
		T(test_age_of_a_handshake_when_the_clock_was_set),
		T(test_walls_that_were_not_read_at_the_end),
		T(test_wireguard_that_is_silent_at_the_end),
		T(test_wireguard_that_dies_ends_its_job),
		T(test_an_executor_that_failed_leaves_no_network),
		TS(test_readings_go_to_the_detector),
		TS(test_earlier_reading_is_not_the_last_one),
		TS(test_peer_that_moves_where_none_may_be_ends_its_job),
		TS(test_network_that_vanishes_ends_its_job),
		T(test_restart_ends_the_jobs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
