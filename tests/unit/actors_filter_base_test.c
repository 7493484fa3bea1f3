/* SPDX-License-Identifier: ISC */
/* filter.base: a reload hands the files' rules and lists to filter_manager. */
#include "actors_manager_rig.h"

#define RULES_MAX 1000 /* what filter.base can carry, and the filter keep */
#define NAMES(...)                                                                   \
	(struct om_strs)                                                             \
	{                                                                            \
		(struct om_str[]){ __VA_ARGS__ },                                    \
		    sizeof((struct om_str[]){ __VA_ARGS__ }) / sizeof(struct om_str) \
	}

static struct fake_answer *
reload(const struct om_filter_base *base)
{
	struct om_caller actor = ACTOR;

	return fake_ask(&actor, OM_FILTER_MANAGER, OM_MSG_FILTER_BASE, base);
}

static void
told(const struct fake_answer *a, size_t n, const char *const *want)
{
	struct om_config_changes got = { 0 };
	struct om_arena arena = { 0 };

	fake_body(a, OM_MSG_CONFIG_CHANGES, &got, &arena);
	for (size_t i = 0; i < got.changes.n && i < n; i++) {
		if (!om_str_is(got.changes.v[i], want[i])) {
			fail_msg("%.*s", OM_STR_ARG(got.changes.v[i]));
		}
	}
	assert_int_equal(got.changes.n, n);
	om_arena_fini(&arena);
}

static void
a_reload_exchanges_what_the_files_give(void **state)
{
	static const char *const want[] = {
		"blocked peer \"mallory\": added", "rule \"base\": removed",
		"rule \"fresh\": added",           "trusted network \"home\": removed",
		"trusted network \"lab\": added",  "trusted peer \"ann\": added",
	};
	struct om_pair base_pair, pair;
	struct om_rule base = cores_rule(&base_pair, "base", "1");
	struct om_rule rules[] = { cores_rule(&pair, "fresh", "1") };
	struct om_filter_base next = { .trusted = NAMES(OM_STR("lab")),
				       .trusted_peers = NAMES(OM_STR("ann")),
				       .blocked = NAMES(OM_STR("mallory")),
				       .rules = { rules, 1 } };
	struct om_filter_live live = { 0 };

	for (int life = 0; life < 2; life++) {
		fake.filter.rules = &base;
		fake.filter.rule_count = 1;
		fake.filter.live = &live;
		fake_up();
		if (life == 0) {
			verdict("bob", "home", "rejected", "resource_limit");
			told(reload(&next), OM_COUNT(want), want);
			told(reload(&next), 0, NULL);
			verdict("bob", "lab", "rejected", "resource_limit");
			pair.value = OM_STR("8");
			told(reload(&next), 1, (const char *[]){ "rule \"fresh\": changed" });
		}
		/* Also after a restart of the actor, which is started as the daemon was. */
		verdict("bob", "lab", "accepted", "network_trusted");
		verdict("bob", "home", "pending_approval", "network_not_trusted");
		verdict("ann", "", "accepted", "peer_trusted");
		verdict("mallory", "lab", "rejected", "peer_blocked");
		assert_int_equal(disk.item_count, 0);
		if (life == 0) {
			restart(state);
		}
	}
	om_filter_live_fini(&live);
}

/* What was changed by commands stays on top, and is what a restart with the new files would give. */
static void
a_reload_keeps_what_was_changed_live(void **state)
{
	static const char *const want[] = {
		"blocked peer \"ann\": added, not in force: it was removed live",
		"blocked peer \"eve\": added",
		"blocked peer \"zoe\": removed, still in force: it was added live",
		"rule \"changed\": changed, not in force: it was changed live",
		"rule \"gone\": changed, not in force: it was removed live",
		"rule \"off\": removed, still in force: it was changed live",
		"trusted network \"home\": removed",
		"trusted network \"lab\": added",
	};
	static const char *const blocked[] = { "ann", "zoe" };
	struct om_pair pairs[8];
	struct om_rule old[] = { cores_rule(&pairs[0], "changed", "8"),
				 cores_rule(&pairs[1], "gone", "1"),
				 cores_rule(&pairs[2], "off", "1") };
	struct om_rule new[] = { cores_rule(&pairs[3], "changed", "9"),
				 cores_rule(&pairs[4], "gone", "2") };
	struct om_rule mine = cores_rule(&pairs[5], "mine", "8");
	struct om_rule change = cores_rule(&pairs[6], "changed", "2");
	struct om_rule_ref off = { .name = OM_STR("off") }, gone = { .name = OM_STR("gone") };
	struct om_filter_base cleared = { .blocked = NAMES(OM_STR("zoe")), .rules = { old, 3 } };
	struct om_filter_base next = { .trusted = NAMES(OM_STR("lab")),
				       .blocked = NAMES(OM_STR("eve"), OM_STR("ann")),
				       .rules = { new, 2 } };
	static const char *const next_trusted[] = { "lab" }, *const next_blocked[] = { "eve",
										       "ann" };

	fake.filter.blocked = blocked;
	fake.filter.blocked_count = 2;
	fake.filter.rules = old;
	fake.filter.rule_count = 3;
	fake_up();
	ok(change_list(OM_MSG_CONFIG_TRUST, "cafe"));
	ok(change_list(OM_MSG_CONFIG_UNBLOCK, "ann"));
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &mine));
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &change));
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_DISABLE, &off));
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_REMOVE, &gone));
	/* Out of the files, back by hand, and once more into the files: then it is both. */
	cleared.blocked = NAMES(OM_STR("bea"));
	cleared.trusted = NAMES(OM_STR("home"));
	ok(reload(&cleared));
	ok(change_list(OM_MSG_CONFIG_BLOCK, "zoe"));
	cleared.blocked = NAMES(OM_STR("zoe"));
	ok(reload(&cleared));
	told(reload(&next), OM_COUNT(want), want);
	for (int life = 0; life < 2; life++) {
		verdict("bob", "home", "pending_approval", "network_not_trusted");
		verdict("bob", "lab", "accepted", "network_trusted");
		verdict("bob", "cafe", "accepted", "network_trusted");
		verdict("ann", "lab", "accepted", "network_trusted");
		verdict("eve", "lab", "rejected", "peer_blocked");
		verdict("zoe", "lab", "rejected", "peer_blocked");
		verdict("bea", "lab", "accepted", "network_trusted");
		if (life == 0) {
			restart(state);
			fake.filter.trusted = next_trusted;
			fake.filter.blocked = next_blocked;
			fake.filter.blocked_count = 2;
			fake.filter.rules = new;
			fake.filter.rule_count = 2;
			fake_up();
		}
	}
}

/* The change of a name and the reload that gives it: whichever comes first, a restart finds the same. */
static void
a_change_on_its_way_meets_a_reload(void **state)
{
	struct om_filter_base next = { .trusted = NAMES(OM_STR("lab")) };
	struct om_list_change home = { .value = OM_STR("home") };
	struct om_caller operator= OPERATOR, actor = ACTOR;
	struct fake_answer *first, *second;

	(void)state;
	fake_up();
	ok(change_list(OM_MSG_CONFIG_UNTRUST, "home"));
	/* Trusted again, as the files have it: nothing is stored.  Then the files have it no more. */
	first = fake_post(&operator, OM_FILTER_MANAGER, OM_MSG_CONFIG_TRUST, &home);
	second = fake_post(&actor, OM_FILTER_MANAGER, OM_MSG_FILTER_BASE, &next);
	(void)om_sim_run(fake.sys);
	ok(first);
	ok(second);
	assert_int_equal(disk.item_count, 0);
	verdict("bob", "home", "pending_approval", "network_not_trusted");
	verdict("bob", "lab", "accepted", "network_trusted");
}

static void
a_reload_is_taken_whole_or_not_at_all(void **state)
{
	struct om_pair pairs[2], many_pair;
	struct om_rule rules[] = { cores_rule(&pairs[0], "a", "1"),
				   cores_rule(&pairs[1], "b", "two") };
	struct om_filter_base next = { .trusted = NAMES(OM_STR("lab")), .rules = { rules, 2 } };
	struct om_rule mine = cores_rule(&many_pair, "mine", "8");
	struct om_rule *many = calloc(RULES_MAX, sizeof(*many));
	char(*names)[8] = calloc(RULES_MAX, sizeof(*names));
	struct om_caller bob = BOB;

	assert_non_null(many);
	assert_non_null(names);
	(void)state;
	fake_up();
	refused(fake_ask(&bob, OM_FILTER_MANAGER, OM_MSG_FILTER_BASE, &next), OM_ERR_DENIED);
	refused(reload(&next), OM_ERR_INVALID);
	assert_string_equal(reload(&next)->text,
			    "rule \"b\": max_cores must be a number from 0 to 1024");
	verdict("bob", "home", "accepted", "network_trusted");
	verdict("bob", "lab", "pending_approval", "network_not_trusted");
	/* As many as there may be, and one that was added live. */
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &mine));
	for (size_t i = 0; i < RULES_MAX; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "r%zu", i);
		many[i] = cores_rule(&many_pair, names[i], "8");
	}
	next.rules = (struct om_rule_list){ many, RULES_MAX };
	refused(reload(&next), OM_ERR_FULL);
	verdict("bob", "lab", "pending_approval", "network_not_trusted");
	next.rules.n--;
	ok(reload(&next));
	verdict("bob", "lab", "accepted", "network_trusted");
	free(many);
	free(names);
}

/* A rate rule that the reload leaves as it is has counted who came. */
static void
a_reload_does_not_forget_who_came(void **state)
{
	struct om_pair pairs[2][2] = {
		{ { OM_STR("max"), OM_STR("1") }, { OM_STR("per"), OM_STR("1h") } },
		{ { OM_STR("max"), OM_STR("1") }, { OM_STR("per"), OM_STR("2h") } }
	};
	struct om_rule rate = { .name = OM_STR("rate"), .kind = OM_STR("rate") };
	struct om_filter_base next = { .trusted = NAMES(OM_STR("home")), .rules = { &rate, 1 } };

	(void)state;
	OM_SET(&rate, rule, settings, ((struct om_pairs){ pairs[0], 2 }));
	fake.filter.rules = &rate;
	fake.filter.rule_count = 1;
	fake_up();
	verdict("bob", "home", "accepted", "network_trusted");
	ok(reload(&next));
	verdict("bob", "home", "rejected", "rate");
	OM_SET(&rate, rule, settings, ((struct om_pairs){ pairs[1], 2 }));
	ok(reload(&next)); /* another question: counted anew */
	verdict("bob", "home", "accepted", "network_trusted");
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(a_reload_exchanges_what_the_files_give), T(a_reload_keeps_what_was_changed_live),
		T(a_change_on_its_way_meets_a_reload),     T(a_reload_is_taken_whole_or_not_at_all),
		T(a_reload_does_not_forget_who_came),
	};

	return FAKE_RUN(tests);
}
