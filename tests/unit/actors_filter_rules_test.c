/* SPDX-License-Identifier: ISC */
/*
 * How the filter decides: owner, blocks, rules in their order, trust, the default; and rules as data.
 * What each kind of rule looks at: actors_filter_kinds_test.c.
 */
#include "actors_filter_rig.h"

/* --- the reference's ten ---------------------------------------------------------------------- */

static void
owner_peer_gets_priority(void **state)
{
	struct om_filter *f = filter_new("alice", OM_FILTER_REJECT_ALL);
	struct om_filter_result r = decide(f, request("alice", ""));

	(void)state;
	assert_int_equal(r.verdict, OM_FILTER_ACCEPT);
	assert_int_equal(r.level, OM_LEVEL_OWNER);
	assert_string_equal(r.reason, "owner");
	om_filter_free(f);
}

static void
blocked_peer_is_rejected(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_filter_result r;

	(void)state;
	block(f, "mallory");
	r = decide(f, request("mallory", ""));
	assert_int_equal(r.verdict, OM_FILTER_REJECT);
	assert_non_null(strstr(r.text, "blocked"));
	assert_string_equal(r.reason, "peer_blocked");
	om_filter_free(f);
}

static void
trusted_network_accepted(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_TRUSTED_REJECT);
	struct om_filter_result r;

	(void)state;
	trust(f, "home");
	r = decide(f, request("bob", "home"));
	assert_int_equal(r.verdict, OM_FILTER_ACCEPT);
	assert_int_equal(r.level, OM_LEVEL_NETWORK);
	om_filter_free(f);
}

static void
untrusted_network_rejected(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_TRUSTED_REJECT);
	struct om_filter_result r;

	(void)state;
	trust(f, "home");
	r = decide(f, request("bob", "cafe"));
	assert_int_equal(r.verdict, OM_FILTER_REJECT);
	assert_string_equal(r.reason, "network_not_trusted");
	om_filter_free(f);
}

static void
resource_limit_rule(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_filter_request rq = request("bob", "");
	struct om_filter_result r;

	(void)state;
	RULE(f, "limits", "resources", -1, "max_cores", "4");
	rq.cores = 8;
	r = decide(f, rq);
	assert_int_equal(r.verdict, OM_FILTER_REJECT);
	assert_non_null(strstr(r.text, "CPU cores"));
	assert_non_null(strstr(r.text, "8"));
	assert_non_null(strstr(r.text, "4"));
	assert_string_equal(r.rule, "limits");
	rq.cores = 2;
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	rq.cores = 4; /* equal to the limit passes */
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	om_filter_free(f);
}

static void
activity_description_rule(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_filter_request rq = request("bob", "");
	struct om_filter_result r;

	(void)state;
	RULE(f, "activity", "activity", -1, "require", "ML, training", "forbid", "crypto, mining");
	rq.activity = OM_STR("Cryptocurrency mining job");
	r = decide(f, rq);
	assert_int_equal(r.verdict, OM_FILTER_REJECT);
	assert_string_equal(r.reason, "activity_forbidden");
	rq.activity = OM_STR("ML model training");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	om_filter_free(f);
}

static void
quiet_hours_rule(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	char start[8], end[8];
	struct om_filter_result r;

	(void)state;
	/* start = this hour, end = the next, for each hour of the day */
	for (int64_t hour = 0; hour < 24; hour++) {
		(void)snprintf(start, sizeof(start), "%d", (int)hour);
		(void)snprintf(end, sizeof(end), "%d", (int)(hour + 1) % 24);
		RULE(f, "quiet", "quiet_hours", -1, "start", start, "end", end, "zone", "utc",
		     "action", "reject");
		r = decide_at(f, request("bob", ""), NOON + (hour - 12) * 3600 + 1800);
		assert_int_equal(r.verdict, OM_FILTER_REJECT);
		assert_string_equal(r.reason, "quiet_hours");
		r = decide_at(f, request("bob", ""), NOON + (hour - 11) * 3600);
		assert_int_equal(r.verdict, OM_FILTER_ACCEPT);
		assert_true(om_filter_rule_remove(f, OM_STR("quiet")));
	}
	om_filter_free(f);
}

static void
filter_statistics(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_TRUSTED_REJECT);
	struct om_filter_counts c;

	(void)state;
	om_filter_counts(f, &c);
	assert_true(c.acceptance_rate == 0.0 && c.rejection_rate == 0.0);
	trust(f, "home");
	(void)decide(f, request("a", "home"));
	(void)decide(f, request("b", "home"));
	(void)decide(f, request("c", "cafe"));
	om_filter_counts(f, &c);
	assert_int_equal(c.evaluated, 3);
	assert_int_equal(c.accepted, 2);
	assert_int_equal(c.rejected, 1);
	assert_true(c.acceptance_rate > 0.666 && c.acceptance_rate < 0.667);
	RULE(f, "limits", "resources", -1, "max_cores", "0");
	(void)decide(f, request("a", "home"));
	om_filter_counts(f, &c);
	assert_int_equal(c.active_rules, 1);
	assert_int_equal(c.total_rules, 1);
	assert_true(om_filter_rule_enable(f, OM_STR("limits"), false));
	om_filter_reset(f);
	om_filter_counts(f, &c);
	assert_int_equal(c.evaluated, 0);
	assert_int_equal(c.active_rules, 0);
	assert_int_equal(c.total_rules, 1);
	om_filter_free(f);
}

static void
add_and_remove_trusted_network(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_TRUSTED_REJECT);

	(void)state;
	trust(f, "home");
	trust(f, "home");
	assert_int_equal(decide(f, request("bob", "home")).verdict, OM_FILTER_ACCEPT);
	assert_true(om_name_set_remove(om_filter_trusted(f), OM_STR("home")));
	assert_false(om_name_set_remove(om_filter_trusted(f), OM_STR("home")));
	assert_int_equal(decide(f, request("bob", "home")).verdict, OM_FILTER_REJECT);
	om_filter_free(f);
}

static void
block_and_unblock_peer(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);

	(void)state;
	block(f, "bob");
	assert_int_equal(decide(f, request("bob", "")).verdict, OM_FILTER_REJECT);
	assert_int_equal(decide(f, request("bobby", "")).verdict, OM_FILTER_ACCEPT);
	assert_true(om_name_set_remove(om_filter_blocked(f), OM_STR("bob")));
	assert_int_equal(decide(f, request("bob", "")).verdict, OM_FILTER_ACCEPT);
	om_filter_free(f);
}

/* --- default actions -------------------------------------------------------------------------- */

static void
default_actions(void **state)
{
	static const struct {
		const char *name, *alias;
		enum om_filter_verdict trusted, others;
	} want[] = {
		{ "accept_trusted_hold_others", "acceptAll", OM_FILTER_ACCEPT, OM_FILTER_HOLD },
		{ "accept_trusted_reject_others", "acceptTrustedOnly", OM_FILTER_ACCEPT,
		  OM_FILTER_REJECT },
		{ "hold_all", "requireApproval", OM_FILTER_HOLD, OM_FILTER_HOLD },
		{ "reject_all", "rejectAll", OM_FILTER_REJECT, OM_FILTER_REJECT },
		{ "accept_everyone", "accept_everyone", OM_FILTER_ACCEPT, OM_FILTER_ACCEPT },
	};
	enum om_filter_action action;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(want); i++) {
		enum om_filter_action alias;
		struct om_filter *f;
		struct om_filter_result r;

		assert_int_equal(om_filter_action_parse(om_str_of(want[i].name), &action), OM_OK);
		assert_int_equal(om_filter_action_parse(om_str_of(want[i].alias), &alias), OM_OK);
		assert_int_equal(action, alias);
		assert_string_equal(om_filter_action_text(action), want[i].name);
		f = filter_new("", action);
		trust(f, "home");
		r = decide(f, request("bob", "home"));
		assert_int_equal(r.verdict, want[i].trusted);
		if (r.verdict != OM_FILTER_REJECT) {
			assert_int_equal(r.level, OM_LEVEL_NETWORK);
		}
		r = decide(f, request("bob", "cafe"));
		assert_int_equal(r.verdict, want[i].others);
		if (r.verdict != OM_FILTER_REJECT) {
			assert_int_equal(r.level, OM_LEVEL_EXTERNAL);
		}
		assert_int_equal(decide(f, request("bob", "")).verdict, want[i].others);
		om_filter_free(f);
	}
	assert_int_equal(om_filter_action_parse(OM_STR("accept_all"), &action), OM_ERR_INVALID);
}

/* --- order ------------------------------------------------------------------------------------ */

static void
owner_goes_before_blocks_and_rules(void **state)
{
	struct om_filter *f = filter_new("alice", OM_FILTER_REJECT_ALL);
	struct om_filter_request rq = request("alice", "");

	(void)state;
	block(f, "alice");
	RULE(f, "nothing", "resources", -1, "max_cores", "0");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	rq.peer = OM_STR("Alice"); /* ids are bytes */
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_REJECT);
	rq.operator= true;
	assert_int_equal(decide(f, rq).level, OM_LEVEL_OWNER);
	om_filter_free(f);
}

static void
no_owner_is_nobody(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_REJECT_ALL);

	(void)state;
	assert_int_equal(decide(f, request("", "")).verdict, OM_FILTER_REJECT);
	om_filter_free(f);
}

static void
equal_priority_goes_by_name(void **state) /* A.12 (3) */
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_rule rule;

	(void)state;
	RULE(f, "b", "resources", 50, "max_cores", "0");
	RULE(f, "c", "resources", 50, "max_cores", "0");
	RULE(f, "a", "resources", 50, "max_cores", "0");
	assert_string_equal(decide(f, request("bob", "")).rule, "a");
	RULE(f, "z", "resources", 51, "max_cores", "0");
	assert_string_equal(decide(f, request("bob", "")).rule, "z");
	om_filter_rule_at(f, 0, &rule);
	assert_true(om_str_is(rule.name, "z"));
	assert_int_equal(rule.hits, 1);
	om_filter_rule_at(f, 1, &rule);
	assert_true(om_str_is(rule.name, "a"));
	om_filter_free(f);
}

static void
disabling_a_rule_works(void **state) /* A.12 (3): setRuleEnabled did nothing */
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);

	(void)state;
	RULE(f, "no", "resources", -1, "max_cores", "0");
	assert_int_equal(decide(f, request("bob", "")).verdict, OM_FILTER_REJECT);
	assert_true(om_filter_rule_enable(f, OM_STR("no"), false));
	assert_int_equal(decide(f, request("bob", "")).verdict, OM_FILTER_ACCEPT);
	assert_true(om_filter_rule_enable(f, OM_STR("no"), true));
	assert_int_equal(decide(f, request("bob", "")).verdict, OM_FILTER_REJECT);
	assert_false(om_filter_rule_enable(f, OM_STR("nix"), true));
	om_filter_free(f);
}

static void
low_priority_goes_on(void **state) /* A.12 (3): it was a stub, and external never happened */
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_TRUSTED_REJECT);
	struct om_filter_request rq = request("bob", "home");

	(void)state;
	trust(f, "home");
	RULE(f, "night", "quiet_hours", 60, "start", "0", "end", "23:59", "zone", "utc", "action",
	     "low_priority");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_ACCEPT);
	assert_int_equal(decide(f, rq).level, OM_LEVEL_EXTERNAL);
	/* It does not open the door that a later rule or the default keeps shut. */
	rq.network_id = OM_STR("cafe");
	assert_int_equal(decide(f, rq).verdict, OM_FILTER_REJECT);
	rq.network_id = OM_STR("home");
	RULE(f, "limits", "resources", 50, "max_cores", "0");
	assert_string_equal(decide(f, rq).rule, "limits");
	om_filter_free(f);
}

static void
default_rules_of_the_reference(void **state) /* A.12 (4): by night everything was lost */
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_TRUSTED_HOLD);
	struct om_filter_result r;

	(void)state;
	RULE(f, "limits", "resources", -1, "max_cores", "8", "max_mem_mib", "16384",
	     "max_runtime_s", "3600");
	RULE(f, "quiet", "quiet_hours", -1, "start", "22", "end", "8", "zone", "utc");
	trust(f, "home");
	r = decide_at(f, request("bob", "home"), NOON + 11 * 3600);
	assert_int_equal(r.verdict, OM_FILTER_HOLD); /* held, not dropped */
	assert_int_equal(r.level, OM_LEVEL_NETWORK);
	assert_non_null(strstr(r.text, "22:00-08:00"));
	assert_int_equal(decide(f, request("bob", "home")).verdict, OM_FILTER_ACCEPT);
	om_filter_free(f);
}

/* --- rules as data ---------------------------------------------------------------------------- */

static void
rules_are_replaced_and_bounded(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	static const char *const none[] = { NULL };
	struct om_why why;
	char name[16];

	(void)state;
	assert_int_equal(put_rule(f, "x", "resources", 1, true, &why, none), OM_ERR_NOT_FOUND);
	assert_int_equal(put_rule(f, "x", "resources", 1, false, &why, none), OM_OK);
	assert_int_equal(put_rule(f, "x", "resources", 1, false, &why, none), OM_ERR_EXISTS);
	assert_int_equal(put_rule(f, "x", "resources", 9, true, &why, none), OM_OK);
	assert_int_equal(put_rule(f, "", "resources", 9, false, &why, none), OM_ERR_INVALID);
	assert_int_equal(put_rule(f, "a\nb", "resources", 9, false, &why, none), OM_ERR_INVALID);
	assert_int_equal(put_rule(f, "y", "resources", 1001, false, &why, none), OM_ERR_INVALID);
	for (int i = 1; i < OM_FILTER_RULES_MAX; i++) {
		(void)snprintf(name, sizeof(name), "r%d", i);
		assert_int_equal(put_rule(f, name, "resources", 1, false, &why, none), OM_OK);
	}
	assert_int_equal(put_rule(f, "y", "resources", 1, false, &why, none), OM_ERR_FULL);
	assert_int_equal(put_rule(f, "x", "resources", 3, true, &why, none), OM_OK);
	om_filter_free(f);
}

static void
a_rule_tells_its_settings(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_EVERYONE);
	struct om_rule rule;

	(void)state;
	RULE(f, "q", "quiet_hours", -1, "start", "22", "end", "8", "zone", "utc");
	om_filter_rule_at(f, 0, &rule);
	assert_true(om_str_is(rule.kind, "quiet_hours"));
	assert_int_equal(rule.priority, 60);
	assert_true(rule.enabled);
	assert_int_equal(rule.settings.n, 3);
	assert_true(om_str_is(rule.settings.v[1].key, "end"));
	assert_true(om_str_is(rule.settings.v[1].value, "8"));
	om_filter_free(f);
}

/* --- the trace -------------------------------------------------------------------------------- */

struct steps {
	char text[1024];
};

static void
take_step(void *arg, const struct om_filter_step *step)
{
	struct steps *s = arg;
	size_t len = strlen(s->text);

	(void)snprintf(s->text + len, sizeof(s->text) - len, "%s=%s ", step->name, step->outcome);
}

static void
test_tells_and_counts_nothing(void **state)
{
	struct om_filter *f = filter_new("alice", OM_FILTER_ACCEPT_TRUSTED_HOLD);
	struct om_filter_request rq = request("bob", "cafe");
	struct om_filter_result r;
	struct om_filter_counts c;
	struct steps s = { "" };
	struct om_rule rule;

	(void)state;
	RULE(f, "rate", "rate", 70, "max", "1");
	RULE(f, "night", "quiet_hours", 60, "start", "11", "end", "13", "zone", "utc", "action",
	     "low_priority");
	RULE(f, "limits", "resources", 50, "max_mem_mib", "100");
	RULE(f, "never", "resources", 10, "max_cores", "0");
	assert_true(om_filter_rule_enable(f, OM_STR("never"), false));
	for (int i = 0; i < 3; i++) { /* the rate is not used up by tests */
		s.text[0] = '\0';
		om_filter_test(f, &rq, at(NOON), take_step, &s, &r);
		assert_string_equal(s.text, "owner=no blocked=no rate=pass night=low limits=hit ");
		assert_int_equal(r.verdict, OM_FILTER_REJECT);
		assert_string_equal(r.rule, "limits");
	}
	rq.mem_mib = 100;
	s.text[0] = '\0';
	om_filter_test(f, &rq, at(NOON), take_step, &s, &r);
	assert_string_equal(s.text, "owner=no blocked=no rate=pass night=low limits=pass never=off "
				    "default=hit ");
	assert_int_equal(r.verdict, OM_FILTER_HOLD);
	om_filter_counts(f, &c);
	assert_int_equal(c.evaluated, 0);
	om_filter_rule_at(f, 2, &rule);
	assert_int_equal(rule.hits, 0);
	om_filter_free(f);
}

/* Trust answers the default action alone. */
static void
trusted_peers_pass_no_block_and_no_rule(void **state)
{
	struct om_filter *f = filter_new("", OM_FILTER_ACCEPT_TRUSTED_HOLD);
	struct om_pair pair = { OM_STR("block"), OM_STR("lab") };
	struct om_rule rule = { .name = OM_STR("nets"), .kind = OM_STR("networks") };
	struct om_filter_result r;
	struct om_why why;

	(void)state;
	assert_int_equal(om_name_set_add(om_filter_trusted_peers(f), OM_STR("zoe")), OM_OK);
	r = decide(f, request("zoe", ""));
	assert_int_equal(r.verdict, OM_FILTER_ACCEPT);
	assert_int_equal(r.level, OM_LEVEL_NETWORK);
	assert_string_equal(r.reason, "peer_trusted");
	assert_string_equal(r.text, "peer zoe is trusted: accepted");
	assert_int_equal(decide(f, request("bob", "")).verdict, OM_FILTER_HOLD);
	OM_SET(&rule, rule, settings, ((struct om_pairs){ &pair, 1 }));
	assert_int_equal(om_filter_rule_put(f, &rule, false, &why), OM_OK);
	assert_string_equal(decide(f, request("zoe", "lab")).reason, "network_blocked");
	om_filter_set_action(f, OM_FILTER_HOLD_ALL);
	assert_int_equal(decide(f, request("zoe", "")).verdict, OM_FILTER_HOLD);
	om_filter_set_action(f, OM_FILTER_ACCEPT_EVERYONE);
	block(f, "zoe");
	assert_string_equal(decide(f, request("zoe", "")).reason, "peer_blocked");
	om_filter_free(f);
}

#define REFERENCE(test, fn)                                       \
	{                                                         \
		"FilterManagerTests." #test, fn, NULL, NULL, NULL \
	}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		REFERENCE(testOwnerPeerGetsPriority, owner_peer_gets_priority),
		REFERENCE(testBlockedPeerIsRejected, blocked_peer_is_rejected),
		REFERENCE(testTrustedNetworkAccepted, trusted_network_accepted),
		REFERENCE(testUntrustedNetworkRejected, untrusted_network_rejected),
		REFERENCE(testResourceLimitRule, resource_limit_rule),
		REFERENCE(testActivityDescriptionRule, activity_description_rule),
		REFERENCE(testQuietHoursRule, quiet_hours_rule),
		REFERENCE(testFilterStatistics, filter_statistics),
		REFERENCE(testAddAndRemoveTrustedNetwork, add_and_remove_trusted_network),
		REFERENCE(testBlockAndUnblockPeer, block_and_unblock_peer),
		cmocka_unit_test(trusted_peers_pass_no_block_and_no_rule),
		cmocka_unit_test(default_actions),
		cmocka_unit_test(owner_goes_before_blocks_and_rules),
		cmocka_unit_test(no_owner_is_nobody),
		{ "bug_03_equal_priority_goes_by_name", equal_priority_goes_by_name, NULL, NULL,
		  NULL },
		{ "bug_03_disabling_a_rule_works", disabling_a_rule_works, NULL, NULL, NULL },
		{ "bug_03_low_priority_goes_on", low_priority_goes_on, NULL, NULL, NULL },
		{ "bug_04_default_rules_lose_nothing", default_rules_of_the_reference, NULL, NULL,
		  NULL },
		cmocka_unit_test(rules_are_replaced_and_bounded),
		cmocka_unit_test(a_rule_tells_its_settings),
		cmocka_unit_test(test_tells_and_counts_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
