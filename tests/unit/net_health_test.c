/* SPDX-License-Identifier: ISC */
/* VPNHealthMonitorTests, with a fake clock: a reading every 10 s. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "net/health.h"

static struct om_health health;
static struct om_health_sample now_is;
static int64_t clock_s;

static int
setup(void **state)
{
	(void)state;
	om_health_init(&health, NULL);
	memset(&now_is, 0, sizeof(now_is));
	now_is.handshake_age_ms = -1;
	clock_s = 1000;
	return 0;
}

/* 10 seconds later: so many packets more of the job, so many bytes more of the other end. */
static enum om_health_verdict
step(uint64_t sent, uint64_t rx)
{
	clock_s += 10;
	now_is.sent_packets += sent;
	now_is.rx_bytes += rx;
	now_is.handshake_age_ms += now_is.handshake_age_ms >= 0 ? 10000 : 0;
	return om_health_feed(&health, (struct om_mono){ clock_s * OM_NS_PER_S }, &now_is);
}

static void
test_default_configuration(void **state)
{
	(void)state;
	assert_int_equal(health.limits.no_reply_ms, 90000);
	assert_int_equal(health.limits.handshake_max_ms, 180000);
	assert_int_equal(health.limits.handshake_retry_ms, 30000);
	assert_string_equal(om_health_name(OM_HEALTH_OK), "ok");
	assert_string_equal(om_health_name(OM_HEALTH_NO_REPLY), "no_reply");
	assert_string_equal(om_health_name(OM_HEALTH_NO_HANDSHAKE), "no_handshake");
}

static void
test_custom_configuration(void **state)
{
	const struct om_health_limits limits = { .no_reply_ms = 20000,
						 .handshake_max_ms = 180000,
						 .handshake_retry_ms = 30000 };

	(void)state;
	om_health_init(&health, &limits);
	assert_int_equal(step(0, 0), OM_HEALTH_OK);
	assert_int_equal(step(1000, 0), OM_HEALTH_OK);
	assert_int_equal(step(1000, 0), OM_HEALTH_OK);
	assert_int_equal(step(1000, 0), OM_HEALTH_NO_REPLY);
}

/* The reference kills after 30 s without a handshake; WireGuard makes one in 120 s, or never. */
static void
test_healthy_tunnel_lives(void **state)
{
	(void)state;
	now_is.handshake_age_ms = 0;
	for (int i = 0; i < 360; i++) {
		if (now_is.handshake_age_ms >= 120000) {
			now_is.handshake_age_ms = 0;
		}
		assert_int_equal(step(5000, 5000), OM_HEALTH_OK);
	}
}

static void
test_silence_is_health(void **state)
{
	(void)state;
	assert_int_equal(step(0, 0), OM_HEALTH_OK);
	now_is.handshake_age_ms = 0;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(step(0, 0), OM_HEALTH_OK);
	}
	/* Then it speaks: the session is old, a handshake follows, all is well. */
	assert_int_equal(step(296, 0), OM_HEALTH_OK);
	now_is.handshake_age_ms = 0;
	assert_int_equal(step(5000, 5000), OM_HEALTH_OK);
	assert_int_equal(step(5000, 5000), OM_HEALTH_OK);
}

/* One packet after a long silence, to a requester that is away: dead 90 s after it, not before. */
static void
test_silence_counts_from_the_first_packet(void **state)
{
	(void)state;
	now_is.handshake_age_ms = 0;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(step(0, 0), OM_HEALTH_OK);
	}
	now_is.handshake_age_ms = 0; /* else no_handshake decides, after 30 s */
	assert_int_equal(step(1, 0), OM_HEALTH_OK);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(step(0, 0), OM_HEALTH_OK);
	}
	assert_int_equal(step(0, 0), OM_HEALTH_NO_REPLY);
}

/* testGracePeriodForNewVMs: a requester that never was there, found after 90 s of trying. */
static void
test_grace_period_for_new_vms(void **state)
{
	(void)state;
	assert_int_equal(step(0, 0), OM_HEALTH_OK);
	for (int i = 0; i < 9; i++) {
		assert_int_equal(step(296, 0), OM_HEALTH_OK);
	}
	assert_int_equal(step(296, 0), OM_HEALTH_NO_REPLY);
}

static void
test_requester_vanishes(void **state)
{
	(void)state;
	now_is.handshake_age_ms = 0;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(step(5000, 5000), OM_HEALTH_OK);
	}
	for (int i = 0; i < 9; i++) {
		assert_int_equal(step(300, 0), OM_HEALTH_OK);
	}
	assert_int_equal(step(300, 0), OM_HEALTH_NO_REPLY);
	/* The verdict stays. */
	assert_int_equal(step(300, 9000), OM_HEALTH_NO_REPLY);
}

static void
test_short_outage_is_survived(void **state)
{
	(void)state;
	now_is.handshake_age_ms = 0;
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 8; i++) {
			assert_int_equal(step(300, 0), OM_HEALTH_OK);
		}
		now_is.handshake_age_ms = 0;
		assert_int_equal(step(300, 100), OM_HEALTH_OK);
	}
}

/* testTimeoutCalculation: bytes come in (late duplicates, say) but no new session. */
static void
test_timeout_calculation(void **state)
{
	(void)state;
	now_is.handshake_age_ms = 0;
	for (int i = 0; i < 18; i++) {
		assert_int_equal(step(5000, 5000), OM_HEALTH_OK); /* age 180 s at the end */
	}
	assert_int_equal(step(5000, 1), OM_HEALTH_OK); /* 190: stale from here */
	assert_int_equal(step(5000, 1), OM_HEALTH_OK);
	assert_int_equal(step(5000, 1), OM_HEALTH_OK);
	assert_int_equal(step(5000, 1), OM_HEALTH_NO_HANDSHAKE);
}

/* A link that was made anew counts from zero. */
static void
test_counters_that_go_back(void **state)
{
	(void)state;
	now_is.handshake_age_ms = 0;
	assert_int_equal(step(1 << 20, 1 << 20), OM_HEALTH_OK);
	now_is.sent_packets = now_is.rx_bytes = 0;
	assert_int_equal(step(0, 0), OM_HEALTH_OK);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(step(0, 0), OM_HEALTH_OK);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_default_configuration, setup),
		cmocka_unit_test_setup(test_custom_configuration, setup),
		cmocka_unit_test_setup(test_healthy_tunnel_lives, setup),
		cmocka_unit_test_setup(test_silence_is_health, setup),
		cmocka_unit_test_setup(test_silence_counts_from_the_first_packet, setup),
		cmocka_unit_test_setup(test_grace_period_for_new_vms, setup),
		cmocka_unit_test_setup(test_requester_vanishes, setup),
		cmocka_unit_test_setup(test_short_outage_is_survived, setup),
		cmocka_unit_test_setup(test_timeout_calculation, setup),
		cmocka_unit_test_setup(test_counters_that_go_back, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
