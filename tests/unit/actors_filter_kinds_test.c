/* SPDX-License-Identifier: ISC */
/* Each kind of rule: what it looks at, and the settings that it takes. */
#include "actors_filter_rig.h"

static void
resources(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_filter_request rq = request("bob", "");

	(void)state;
	RULE(f, "limits", "resources", -1, "max_mem_mib", "1024", "max_disk_mib", "2048",
	     "max_runtime_s", "3600");
	rq.cores = 1024; /* no limit was given */
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	rq.mem_mib = 1025;
	assert_non_null(
	    strstr(decide(f, rq).text, "memory 1025 MiB is over the limit of 1024 MiB"));
	rq.mem_mib = 1024;
	rq.disk_mib = 2049;
	assert_non_null(strstr(decide(f, rq).text, "disk 2049 MiB"));
	rq.disk_mib = 2048;
	rq.runtime_s = 3601;
	assert_non_null(strstr(decide(f, rq).text, "runtime 3601 s"));
	rq.runtime_s = 3600;
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	rq.gpu = true;
	assert_string_equal(decide(f, rq).reason, "gpu_not_offered");
	RULE(f, "gpu", "resources", 10, "gpu", "yes");
	assert_true(om_filter_rule_remove(f, OM_STR("limits")));
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	om_filter_free(f);
}

static void
activity_edges(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_filter_request rq = request("bob", "");

	(void)state;
	RULE(f, "a", "activity", -1, "require", "ML", "forbid", "crypto");
	rq.activity = (struct om_str){ NULL, 0 };
	assert_string_equal(decide(f, rq).reason, "activity_missing");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_HOLD);
	rq.activity = OM_STR(""); /* an empty description is a description without the keyword */
	assert_string_equal(decide(f, rq).reason, "activity_unmatched");
	rq.activity = OM_STR("writing html"); /* whole words by default */
	assert_string_equal(decide(f, rq).reason, "activity_unmatched");
	rq.activity = OM_STR("ml: cryptography course");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	assert_true(om_filter_rule_remove(f, OM_STR("a")));
	RULE(f, "b", "activity", -1, "forbid", "crypto", "match", "substring");
	assert_string_equal(decide(f, rq).reason, "activity_forbidden");
	rq.activity =
	    (struct om_str){ NULL, 0 }; /* only forbidden words: nothing said, nothing wrong */
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	assert_true(om_filter_rule_remove(f, OM_STR("b")));
	/* An action of its own is for both halves of the rule. */
	RULE(f, "c", "activity", -1, "require", "ML", "forbid", "x", "action", "reject");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_REJECT);
	om_filter_free(f);
}

/* What they ask for the jobs that are here: the most of all that are enabled and inside. */
static void
quiet_hours_for_jobs(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	const struct om_wall day = { INT64_C(1700000000) * OM_NS_PER_S }; /* 22:13:20 UTC */
	const struct om_wall later = { day.ns + INT64_C(3600) * OM_NS_PER_S };
	struct om_filter_quiet q;

	(void)state;
	om_filter_quiet(f, day, &q);
	assert_false(q.timed || q.hold_starts || q.pause);
	RULE(f, "a", "quiet_hours", -1, "start", "22", "end", "8", "zone", "utc");
	om_filter_quiet(f, day, &q);
	assert_false(q.timed || q.hold_starts); /* it is about new jobs alone */
	RULE(f, "b", "quiet_hours", -1, "start", "22", "end", "8", "zone", "utc", "jobs",
	     "no_starts");
	om_filter_quiet(f, day, &q);
	assert_true(q.timed && q.hold_starts && !q.pause);
	assert_string_equal(q.text, "quiet hours (22:00-08:00)");
	RULE(f, "c", "quiet_hours", 10, "start", "23", "end", "2", "zone", "utc", "jobs", "pause");
	om_filter_quiet(f, day, &q);
	assert_true(q.hold_starts && !q.pause);
	om_filter_quiet(f, later, &q);
	assert_true(q.hold_starts && q.pause);
	assert_string_equal(q.text, "quiet hours (22:00-08:00)");
	assert_true(om_filter_rule_enable(f, OM_STR("b"), false));
	om_filter_quiet(f, day, &q);
	assert_true(q.timed && !q.hold_starts);
	om_filter_quiet(f, later, &q);
	assert_true(q.pause);
	assert_string_equal(q.text, "quiet hours (23:00-02:00)");
	om_filter_free(f);
}

static void
peers_and_networks(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);

	(void)state;
	RULE(f, "p", "peers", -1, "block", "eve, mallory");
	RULE(f, "n", "networks", -1, "allow", "home,lab", "block", "lab");
	assert_string_equal(decide(f, request("eve", "home")).reason, "peer_blocked");
	assert_int_equal(decide(f, request("bob", "home")).verdict, OM_FILTER_ACCEPT);
	assert_string_equal(decide(f, request("bob", "lab")).reason, "network_blocked");
	assert_string_equal(decide(f, request("bob", "cafe")).reason, "network_not_allowed");
	assert_string_equal(decide(f, request("bob", "")).reason, "network_not_allowed");
	om_filter_free(f);
}

static void
rate(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_filter_request bob = request("bob", "");

	(void)state;
	RULE(f, "r", "rate", -1, "max", "2", "per", "10m");
	assert_int_equal(decide_at(f, bob, NOON).verdict, OM_FILTER_ACCEPT);
	assert_int_equal(decide_at(f, bob, NOON + 1).verdict, OM_FILTER_ACCEPT);
	assert_string_equal(decide_at(f, bob, NOON + 599).reason, "rate");
	assert_int_equal(decide_at(f, request("carol", ""), NOON + 599).verdict, OM_FILTER_ACCEPT);
	assert_int_equal(decide_at(f, bob, NOON + 600).verdict, OM_FILTER_ACCEPT);
	assert_int_equal(decide_at(f, bob, NOON + 601).verdict, OM_FILTER_ACCEPT);
	assert_string_equal(decide_at(f, bob, NOON + 602).reason, "rate");
	/* The clock was set back: a new window, nobody is locked out. */
	assert_int_equal(decide_at(f, bob, NOON - 100000).verdict, OM_FILTER_ACCEPT);
	om_filter_free(f);
}

static void
rate_counts_a_bounded_number_of_peers(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	char peer[16];

	(void)state;
	RULE(f, "r", "rate", -1, "max", "1", "per", "10s");
	for (int i = 0; i < OM_FILTER_RATE_PEERS; i++) {
		(void)snprintf(peer, sizeof(peer), "p%d", i);
		assert_int_equal(decide_at(f, request(peer, ""), NOON).verdict, OM_FILTER_ACCEPT);
	}
	assert_int_equal(decide_at(f, request("q", ""), NOON).verdict, OM_FILTER_REJECT);
	assert_int_equal(decide_at(f, request("q", ""), NOON + 11).verdict, OM_FILTER_ACCEPT);
	om_filter_free(f);
}

static void
concurrency_and_quota(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_filter_request rq = request("bob", "");

	(void)state;
	RULE(f, "c", "concurrency", -1, "max", "3");
	RULE(f, "q", "quota", -1, "runtime", "1h", "action", "hold");
	rq.peer_jobs = 2;
	rq.peer_runtime_s = 3000;
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT); /* 3000 + 600: just fits */
	rq.peer_runtime_s = 3001;
	assert_string_equal(decide(f, rq).reason, "quota");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_HOLD);
	rq.peer_runtime_s = UINT64_MAX;
	assert_string_equal(decide(f, rq).reason, "quota");
	rq.peer_jobs = 3;
	assert_string_equal(decide(f, rq).reason, "concurrency");
	om_filter_free(f);
}

static void
bad_settings_are_named(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);

	(void)state;
	BAD_RULE(f, "resorces", "did you mean \"resources\"", "max_cores", "1");
	BAD_RULE(f, "resources", "did you mean \"max_cores\"", "max_core", "1");
	BAD_RULE(f, "resources", "max_cores must be a number", "max_cores", "-1");
	BAD_RULE(f, "resources", "max_cores must be a number", "max_cores", "1025");
	BAD_RULE(f, "resources", "max_cores is given twice", "max_cores", "1", "max_cores", "1");
	BAD_RULE(f, "resources", "gpu must be yes or no", "gpu", "perhaps");
	BAD_RULE(f, "resources", "action is", "action", "accept");
	BAD_RULE(f, "activity", "needs require or forbid", "match", "word");
	BAD_RULE(f, "activity", "require needs", "require", ""); /* could never be satisfied */
	BAD_RULE(f, "activity", "forbid needs", "forbid", "a,,b");
	BAD_RULE(f, "activity", "match is", "forbid", "x", "match", "regex");
	BAD_RULE(f, "quiet_hours", "needs the setting \"end\"", "start", "22");
	BAD_RULE(f, "quiet_hours", "start is a time", "start", "24:00", "end", "8");
	BAD_RULE(f, "quiet_hours", "jobs is run", "start", "22", "end", "8", "jobs", "sleep");
	BAD_RULE(f, "quiet_hours", "end is a time", "start", "22", "end", "8:5");
	BAD_RULE(f, "quiet_hours", "days are", "start", "22", "end", "8", "days", "mon-fryday");
	BAD_RULE(f, "quiet_hours", "zone is", "start", "22", "end", "8", "zone", "Mars");
	BAD_RULE(f, "rate", "needs the setting \"max\"", "per", "1h");
	BAD_RULE(f, "rate", "max must be", "max", "0");
	BAD_RULE(f, "rate", "per must be a time", "max", "1", "per", "8d");
	BAD_RULE(f, "quota", "runtime must be a time", "runtime", "x");
	BAD_RULE(f, "peers", "allow or block", "action", "hold");
	assert_int_equal(om_filter_rule_count(f), 0);
	om_filter_free(f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resources),
		cmocka_unit_test(activity_edges),
		cmocka_unit_test(quiet_hours_for_jobs),
		cmocka_unit_test(peers_and_networks),
		cmocka_unit_test(rate),
		cmocka_unit_test(rate_counts_a_bounded_number_of_peers),
		cmocka_unit_test(concurrency_and_quota),
		cmocka_unit_test(bad_settings_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
