/* SPDX-License-Identifier: ISC */
/* filter_manager, job_queue and activity_logger on the real bus in sim mode. */
#include "actors_fake.h"

#define OPERATOR fake_caller(OM_ROLE_OPERATOR, "root", "")
#define ACTOR    fake_caller(OM_ROLE_ACTOR, "", "")
#define BOB      fake_caller(OM_ROLE_REQUESTER, "bob", "home")

static struct fake_answer *
operator_asks(const char *to, enum om_msg_type type, const void *body)
{
	struct om_caller operator= OPERATOR;

	return fake_ask(&operator, to, type, body);
}

static void
ok(const struct fake_answer *a)
{
	assert_true(a->done);
	if (a->err != OM_OK) {
		fail_msg("%s: %s", om_err_code(a->err), a->text);
	}
}

static void
refused(const struct fake_answer *a, enum om_err err)
{
	assert_true(a->done);
	assert_string_equal(om_err_code(a->err), om_err_code(err));
}

static struct fake_answer *
change_list(enum om_msg_type type, const char *name)
{
	struct om_list_change m = { .value = om_str_of(name) };

	return operator_asks(OM_FILTER_MANAGER, type, &m);
}

static void
verdict(const char *peer, const char *network, const char *want, const char *reason)
{
	struct om_filter_request rq = { .peer = om_str_of(peer) };
	struct om_filter_decision got = { 0 };
	struct om_caller actor = ACTOR;
	struct om_arena arena = { 0 };

	OM_SET(&rq, filter_request, network_id, om_str_of(network));
	OM_SET(&rq, filter_request, cores, 2);
	fake_body(fake_ask(&actor, OM_FILTER_MANAGER, OM_MSG_FILTER_DECIDE, &rq),
		  OM_MSG_FILTER_DECISION, &got, &arena);
	assert_true(om_str_is(got.verdict, want));
	if (!om_str_is(got.reason, reason)) {
		fail_msg("%.*s", OM_STR_ARG(got.reason));
	}
	om_arena_fini(&arena);
}

/* resources with max_cores. */
static struct om_rule
cores_rule(struct om_pair *pair, const char *name, const char *max)
{
	struct om_rule rule = { .name = om_str_of(name), .kind = OM_STR("resources") };

	*pair = (struct om_pair){ OM_STR("max_cores"), om_str_of(max) };
	OM_SET(&rule, rule, settings, ((struct om_pairs){ pair, 1 }));
	return rule;
}

static void
restart(void **state)
{
	fake_down();
	(void)fake_setup(state);
}

/* --- filter_manager --------------------------------------------------------------------------- */

static void
live_changes_survive_a_restart(void **state)
{
	static const char *const blocked[] = { "mallory" };

	fake.filter.blocked = blocked;
	fake.filter.blocked_count = 1;
	fake_up();
	verdict("bob", "home", "accepted", "network_trusted");
	verdict("bob", "lab", "pending_approval", "network_not_trusted");
	verdict("mallory", "home", "rejected", "peer_blocked");
	ok(change_list(OM_MSG_CONFIG_TRUST, "lab"));
	ok(change_list(OM_MSG_CONFIG_UNTRUST, "home")); /* the configuration's own */
	ok(change_list(OM_MSG_CONFIG_BLOCK, "eve"));
	ok(change_list(OM_MSG_CONFIG_UNBLOCK, "mallory"));
	for (int life = 0; life < 2; life++) {
		verdict("bob", "home", "pending_approval", "network_not_trusted");
		verdict("bob", "lab", "accepted", "network_trusted");
		verdict("eve", "lab", "rejected", "peer_blocked");
		verdict("mallory", "lab", "accepted", "network_trusted");
		if (life == 0) {
			restart(state);
			fake.filter.blocked = blocked;
			fake.filter.blocked_count = 1;
			fake_up();
		}
	}
	/* Back to what the configuration says: no difference is stored any more. */
	ok(change_list(OM_MSG_CONFIG_UNTRUST, "lab"));
	ok(change_list(OM_MSG_CONFIG_TRUST, "home"));
	ok(change_list(OM_MSG_CONFIG_UNBLOCK, "eve"));
	ok(change_list(OM_MSG_CONFIG_BLOCK, "mallory"));
	assert_int_equal(disk.item_count, 0);
}

static void
a_trusted_peer_is_let_in(void **state)
{
	static const char *const peers[] = { "ann" };
	struct om_string_list got = { 0 };
	struct om_empty nothing = { 0 };
	struct om_arena arena = { 0 };

	for (int life = 0; life < 2; life++) {
		fake.filter.trusted_peers = peers;
		fake.filter.trusted_peer_count = 1;
		fake_up();
		if (life == 0) {
			verdict("ann", "lab", "accepted", "peer_trusted");
			verdict("eve", "", "pending_approval", "network_not_trusted");
			ok(change_list(OM_MSG_CONFIG_TRUST_PEER, "eve"));
			ok(change_list(OM_MSG_CONFIG_UNTRUST_PEER, "ann"));
		}
		verdict("eve", "", "accepted", "peer_trusted");
		verdict("ann", "lab", "pending_approval", "network_not_trusted");
		fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_CONFIG_TRUSTED_PEERS, &nothing),
			  OM_MSG_STRING_LIST, &got, &arena);
		assert_int_equal(got.values.n, 1);
		assert_true(om_str_is(got.values.v[0], "eve"));
		if (life == 0) {
			restart(state);
		}
	}
	ok(change_list(OM_MSG_CONFIG_UNTRUST_PEER, "eve"));
	verdict("eve", "", "pending_approval", "network_not_trusted");
	om_arena_fini(&arena);
}

static void
a_change_is_durable_before_it_is_in_force(void **state)
{
	(void)state;
	fake_up();
	disk.fail = OM_ERR_DISK;
	refused(change_list(OM_MSG_CONFIG_TRUST, "lab"), OM_ERR_DISK);
	verdict("bob", "lab", "pending_approval", "network_not_trusted");
	disk.fail = OM_OK;
	ok(change_list(OM_MSG_CONFIG_TRUST, "lab"));
	verdict("bob", "lab", "accepted", "network_trusted");
}

static void
rules_live(void **state)
{
	struct om_pair pair, base_pair;
	struct om_rule rule = cores_rule(&pair, "limits", "1");
	struct om_rule base = cores_rule(&base_pair, "base", "1");
	struct om_rule_ref ref = { .name = OM_STR("limits") };
	struct om_rule_ref base_ref = { .name = OM_STR("base") };
	const struct om_empty nothing = { 0 };
	struct om_rule_table table = { 0 };
	struct om_arena arena = { 0 };

	fake.filter.rules = &base;
	fake.filter.rule_count = 1;
	fake_up();
	refused(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &rule), OM_ERR_NOT_FOUND);
	verdict("bob", "home", "rejected", "resource_limit");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_REMOVE, &base_ref));
	verdict("bob", "home", "accepted", "network_trusted");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &rule));
	refused(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &rule), OM_ERR_EXISTS);
	verdict("bob", "home", "rejected", "resource_limit");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_DISABLE, &ref));
	verdict("bob", "home", "accepted", "network_trusted");
	restart(state); /* removed stays removed, disabled stays disabled */
	fake.filter.rules = &base;
	fake.filter.rule_count = 1;
	fake_up();
	verdict("bob", "home", "accepted", "network_trusted");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ENABLE, &ref));
	verdict("bob", "home", "rejected", "resource_limit");
	pair.value = OM_STR("two");
	refused(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &rule), OM_ERR_INVALID);
	pair.value = OM_STR("2");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &rule));
	verdict("bob", "home", "accepted", "network_trusted");
	/* A change is of what it says: neither in force by the way nor at another place. */
	OM_SET(&rule, rule, priority, 77);
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &rule));
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_DISABLE, &ref));
	pair.value = OM_STR("1");
	rule.has &= ~(UINT64_C(1) << OM_FIELD_rule_priority);
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &rule));
	verdict("bob", "home", "accepted", "network_trusted");
	fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_LIST, &nothing), OM_MSG_RULE_TABLE,
		  &table, &arena);
	assert_int_equal(table.rules.n, 1);
	assert_int_equal(table.rules.v[0].priority, 77);
	assert_false(table.rules.v[0].enabled);
	om_arena_fini(&arena);
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_REMOVE, &ref));
	refused(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_REMOVE, &ref), OM_ERR_NOT_FOUND);
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD,
			 &base)); /* a removed one comes back */
	verdict("bob", "home", "rejected", "resource_limit");
}

/* A copy of the file's own rule was kept for ever, and a change of the file never came through. */
static void
a_rule_as_the_file_has_it_is_not_stored(void **state)
{
	struct om_pair base_pair, pair;
	struct om_rule base = cores_rule(&base_pair, "base", "1");
	struct om_rule rule = cores_rule(&pair, "base", "8");
	struct om_rule_ref ref = { .name = OM_STR("base") };

	(void)state;
	fake.filter.rules = &base;
	fake.filter.rule_count = 1;
	fake_up();
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_DISABLE, &ref));
	assert_int_equal(disk.item_count, 1);
	verdict("bob", "home", "accepted", "network_trusted");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ENABLE, &ref));
	assert_int_equal(disk.item_count, 0);
	verdict("bob", "home", "rejected", "resource_limit");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &rule));
	assert_int_equal(disk.item_count, 1);
	verdict("bob", "home", "accepted", "network_trusted");
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_REMOVE, &ref));
	assert_int_equal(disk.item_count, 1); /* that it is removed */
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &base));
	assert_int_equal(disk.item_count, 0);
	verdict("bob", "home", "rejected", "resource_limit");
}

/* Which rules are the files', which were made or changed live, and how. */
static void
the_list_of_rules_says_where_each_comes_from(void **state)
{
	static const char *const want[] = { "live", "file", "file settings",
					    "file priority enabled" };
	struct om_pair pairs[6];
	struct om_rule base[] = { cores_rule(&pairs[0], "b", "1"), cores_rule(&pairs[1], "c", "1"),
				  cores_rule(&pairs[2], "d", "1"),
				  cores_rule(&pairs[3], "gone", "1") };
	struct om_rule mine = cores_rule(&pairs[4], "a", "1"),
		       more = cores_rule(&pairs[5], "c", "2");
	struct om_rule_ref gone = { .name = OM_STR("gone") };
	const struct om_empty nothing = { 0 };
	struct om_rule_table table = { 0 };
	struct om_arena arena = { 0 };

	OM_SET(&mine, rule, origin, OM_STR("file")); /* not for whoever adds it to say */
	fake.filter.rules = base;
	fake.filter.rule_count = 4;
	fake_up();
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &mine));
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &more));
	more = base[2];
	OM_SET(&more, rule, priority, 3);
	OM_SET(&more, rule, enabled, false);
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_CHANGE, &more));
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_REMOVE, &gone));
	for (int life = 0; life < 2; life++) {
		fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_LIST, &nothing),
			  OM_MSG_RULE_TABLE, &table, &arena);
		assert_int_equal(table.rules.n, 4);
		for (size_t i = 0; i < 4; i++) {
			char text[64];

			(void)snprintf(text, sizeof(text), "%.*s",
				       OM_STR_ARG(table.rules.v[i].origin));
			for (size_t k = 0; k < table.rules.v[i].changed.n; k++) {
				(void)snprintf(text + strlen(text), sizeof(text) - strlen(text),
					       " %.*s", OM_STR_ARG(table.rules.v[i].changed.v[k]));
			}
			assert_string_equal(text, want[i]);
		}
		assert_int_equal(table.removed.n, 1);
		assert_true(om_str_is(table.removed.v[0], "gone"));
		if (life == 0) {
			restart(state);
			fake.filter.rules = base;
			fake.filter.rule_count = 4;
			fake_up();
		}
	}
	om_arena_fini(&arena);
}

/* --- quiet hours ------------------------------------------------------------------------------ */

static enum om_err quiet_err; /* what a send of queue.quiet comes to */
static struct {
	size_t sent;
	bool hold_starts;
} quiet_told;

enum om_err __real_om_service_send(struct om_service *sv, const char *to, enum om_msg_type type,
				   const void *body);
enum om_err __wrap_om_service_send(struct om_service *sv, const char *to, enum om_msg_type type,
				   const void *body);

enum om_err
__wrap_om_service_send(struct om_service *sv, const char *to, enum om_msg_type type,
		       const void *body)
{
	if (type == OM_MSG_QUEUE_QUIET) {
		if (quiet_err != OM_OK) {
			return quiet_err;
		}
		quiet_told.sent++;
		quiet_told.hold_starts = ((const struct om_quiet *)body)->hold_starts;
	}
	return __real_om_service_send(sv, to, type, body);
}

/* BUG: they were marked as told before they were: the queue held its jobs after the last rule had gone. */
static void
quiet_hours_that_could_not_be_told_are_told_later(void **state)
{
	struct om_pair pairs[] = { { OM_STR("start"), OM_STR("0:00") },
				   { OM_STR("end"), OM_STR("23:59") },
				   { OM_STR("zone"), OM_STR("utc") },
				   { OM_STR("jobs"), OM_STR("no_starts") } };
	struct om_rule night = { .name = OM_STR("night"), .kind = OM_STR("quiet_hours") };
	struct om_rule_ref ref = { .name = OM_STR("night") };

	(void)state;
	OM_SET(&night, rule, settings, ((struct om_pairs){ pairs, 4 }));
	quiet_told.sent = 0;
	fake_up();
	quiet_err = OM_ERR_FULL;
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &night));
	assert_int_equal(quiet_told.sent, 0);
	quiet_err = OM_OK;
	fake_advance(61000);
	assert_int_equal(quiet_told.sent, 1);
	assert_true(quiet_told.hold_starts);
	/* Their end too, when no rule asks for a clock any more; and then there is none. */
	quiet_err = OM_ERR_FULL;
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_REMOVE, &ref));
	quiet_err = OM_OK;
	fake_advance(61000);
	assert_int_equal(quiet_told.sent, 2);
	assert_false(quiet_told.hold_starts);
	fake_advance(600000);
	assert_int_equal(quiet_told.sent, 2);
}

/* --- filter.base: a reload ---------------------------------------------------------------------- */

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

static void
rules_test_tells_and_decides_nothing(void **state)
{
	struct om_pair pair;
	struct om_rule rule = cores_rule(&pair, "limits", "1");
	struct om_filter_request rq = { .peer = OM_STR("bob") };
	struct om_filter_decision got = { 0 };
	struct om_filter_stats stats = { 0 };
	struct om_empty nothing = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	fake_up();
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_ADD, &rule));
	OM_SET(&rq, filter_request, cores, 2);
	fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_RULES_TEST, &rq), OM_MSG_FILTER_DECISION,
		  &got, &arena);
	assert_true(om_str_is(got.verdict, "rejected"));
	assert_true(om_str_is(got.rule, "limits"));
	assert_int_equal(got.trace.n, 3);
	assert_true(om_str_is(got.trace.v[0].name, "owner"));
	assert_true(om_str_is(got.trace.v[2].outcome, "hit"));
	assert_int_equal(got.trace.v[2].priority, 50);
	fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_FILTER_STATS, &nothing),
		  OM_MSG_FILTER_STATE, &stats, &arena);
	assert_int_equal(stats.evaluated, 0);
	assert_int_equal(stats.active_rules, 1);
	verdict("bob", "home", "rejected", "resource_limit");
	fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_FILTER_STATS, &nothing),
		  OM_MSG_FILTER_STATE, &stats, &arena);
	assert_int_equal(stats.rejected, 1);
	ok(operator_asks(OM_FILTER_MANAGER, OM_MSG_FILTER_RESET, &nothing));
	fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_FILTER_STATS, &nothing),
		  OM_MSG_FILTER_STATE, &stats, &arena);
	assert_int_equal(stats.evaluated, 0);
	om_arena_fini(&arena);
}

static void
only_the_operator_changes_the_policy(void **state)
{
	static const enum om_msg_type types[] = { OM_MSG_CONFIG_TRUST, OM_MSG_CONFIG_BLOCK,
						  OM_MSG_CONFIG_TRUST_PEER, OM_MSG_CONFIG_UNBLOCK };
	struct om_list_change m = { .value = OM_STR("cafe") };
	struct om_empty nothing = { 0 };
	struct om_caller bob = BOB;

	(void)state;
	fake_up();
	for (size_t i = 0; i < OM_COUNT(types); i++) {
		refused(fake_ask(&bob, OM_FILTER_MANAGER, types[i], &m), OM_ERR_DENIED);
	}
	refused(fake_ask(&bob, OM_FILTER_MANAGER, OM_MSG_FILTER_RESET, &nothing), OM_ERR_DENIED);
	refused(fake_ask(&bob, OM_FILTER_MANAGER, OM_MSG_RULES_LIST, &nothing), OM_ERR_DENIED);
	refused(fake_ask(&bob, OM_JOB_QUEUE, OM_MSG_QUEUE_RESUME, &nothing), OM_ERR_DENIED);
	refused(fake_ask(&bob, OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_VERIFY, &nothing), OM_ERR_DENIED);
}

static void
before_its_lists_are_read_it_fails_closed(void **state)
{
	struct om_filter_request rq = { .peer = OM_STR("bob") };
	struct om_caller actor = ACTOR;

	(void)state;
	disk.fail = OM_ERR_DISK;
	fake_up();
	refused(fake_ask(&actor, OM_FILTER_MANAGER, OM_MSG_FILTER_DECIDE, &rq), OM_ERR_STATE);
	refused(change_list(OM_MSG_CONFIG_TRUST, "lab"), OM_ERR_STATE);
	disk.fail = OM_OK;
	fake_advance(1100);
	verdict("bob", "home", "accepted", "network_trusted");
}

static void
lists_are_told(void **state)
{
	struct om_string_list got = { 0 };
	struct om_empty nothing = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	fake_up();
	fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_CONFIG_TRUSTED, &nothing),
		  OM_MSG_STRING_LIST, &got, &arena);
	assert_int_equal(got.values.n, 1);
	assert_true(om_str_is(got.values.v[0], "home"));
	fake_body(operator_asks(OM_FILTER_MANAGER, OM_MSG_CONFIG_BLOCKED, &nothing),
		  OM_MSG_STRING_LIST, &got, &arena);
	assert_int_equal(got.values.n, 0);
	om_arena_fini(&arena);
}

/* --- job_queue -------------------------------------------------------------------------------- */

static void
submit(const char *id, uint64_t not_before, bool hold)
{
	struct om_job_submit m = { .lang = OM_STR("sh") };
	struct om_caller bob = BOB;

	OM_SET(&m, job_submit, script, ((struct om_bin){ (const uint8_t *)"true", 4 }));
	OM_SET(&m, job_submit, network, OM_STR("none"));
	OM_SET(&m, job_submit, job, om_str_of(id));
	if (not_before != 0) {
		OM_SET(&m, job_submit, not_before, not_before);
	}
	if (hold) {
		OM_SET(&m, job_submit, hold, true);
	}
	ok(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m));
}

static void
state_is(const char *id, enum om_job_state state)
{
	assert_non_null(fake_row(id));
	assert_string_equal(om_job_state_text(fake_row(id)->state), om_job_state_text(state));
}

static void
queue_stats(struct om_queue_stats *out, struct om_arena *arena)
{
	struct om_empty nothing = { 0 };

	*out = (struct om_queue_stats){ 0 };
	fake_body(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_STATS, &nothing), OM_MSG_QUEUE_STATE,
		  out, arena);
}

static void
at_most_so_many_at_a_time(void **state)
{
	struct om_queue_limits limits = { .max_jobs = 3 };
	struct om_queue_stats s;
	struct om_arena arena = { 0 };
	char id[16];

	(void)state;
	fake.queue.max_jobs = 2;
	fake_up();
	for (int i = 0; i < 6; i++) {
		(void)snprintf(id, sizeof(id), "j%d", i);
		submit(id, 0, false);
	}
	assert_int_equal(fake.running_count, 2);
	fake_finish("j0", OM_JOB_COMPLETED);
	fake_finish("j1", OM_JOB_FAILED);
	assert_int_equal(fake.running_peak, 2);
	ok(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_LIMITS, &limits)); /* acts at once */
	assert_int_equal(fake.running_count, 3);
	limits.max_jobs = 0;
	refused(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_LIMITS, &limits), OM_ERR_INVALID);
	queue_stats(&s, &arena);
	assert_int_equal(s.queued, 1);
	assert_int_equal(s.running, 3);
	assert_int_equal(s.total_queued, 6);
	assert_int_equal(s.total_completed, 1);
	assert_int_equal(s.total_failed, 1); /* a non-zero exit is no success */
	assert_true(s.success_rate == 0.5);
	assert_int_equal(s.waiting_reasons.n, 1);
	om_arena_fini(&arena);
}

/* BUG: asked for its quiet hours while it still read its lists the filter refused, and the queue held
 * all jobs until it asked again, a second later. */
static void
jobs_start_as_soon_as_all_is_up(void **state)
{
	(void)state;
	fake.together = true;
	fake_up();
	(void)om_sim_run(fake.sys);
	submit("j", 0, false);
	state_is("j", OM_JOB_RUNNING);
}

static void
pause_and_resume(void **state)
{
	struct om_reason reason = { 0 };
	struct om_empty nothing = { 0 };
	struct om_queue_stats s;
	struct om_arena arena = { 0 };

	(void)state;
	fake_up();
	OM_SET(&reason, reason, reason, OM_STR("new disk"));
	ok(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_PAUSE, &reason));
	submit("j1", 0, false);
	state_is("j1", OM_JOB_QUEUED);
	queue_stats(&s, &arena);
	assert_true(s.paused);
	assert_true(om_str_is(s.pause_reason, "new disk"));
	ok(operator_asks(OM_JOB_QUEUE, OM_MSG_QUEUE_RESUME, &nothing));
	state_is("j1", OM_JOB_RUNNING);
	om_arena_fini(&arena);
}

static void
hold_release_and_not_before(void **state)
{
	struct om_str held = OM_STR("held");
	struct om_job_refs refs = { .jobs = { &held, 1 } };
	struct om_caller bob = BOB;

	(void)state;
	fake.queue.max_jobs = 4;
	fake_up();
	submit("held", 0, true);
	submit("late", (uint64_t)FAKE_NOW + 7200, false);
	state_is("held", OM_JOB_QUEUED);
	ok(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_RELEASE, &refs));
	state_is("held", OM_JOB_RUNNING);
	refused(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_HOLD, &refs), OM_ERR_STATE);
	fake_advance(7199 * 1000);
	state_is("late", OM_JOB_QUEUED);
	fake_advance(2000);
	state_is("late", OM_JOB_RUNNING);
}

static void
hold_and_not_before_survive_a_restart(void **state)
{
	fake_up();
	submit("held", 0, true);
	submit("late", (uint64_t)FAKE_NOW + 7200, false);
	restart(state);
	fake_up();
	state_is("held", OM_JOB_QUEUED);
	state_is("late", OM_JOB_QUEUED);
	fake_advance(7201 * 1000);
	state_is("late", OM_JOB_RUNNING);
	state_is("held", OM_JOB_QUEUED);
}

static void
an_executor_without_room_gets_it_again(void **state)
{
	(void)state;
	fake.exec_start_err = OM_ERR_FULL;
	fake_up();
	submit("j1", 0, false);
	state_is("j1", OM_JOB_QUEUED);
	fake_advance(1100);
	state_is("j1", OM_JOB_QUEUED);
	fake.exec_start_err = OM_OK;
	fake_advance(1100);
	state_is("j1", OM_JOB_RUNNING);
	assert_int_equal(fake.started, 1);
}

static void
a_job_that_the_executor_refuses_has_failed(void **state)
{
	struct om_queue_stats s;
	struct om_arena arena = { 0 };

	(void)state;
	fake.exec_start_err = OM_ERR_UNSUPPORTED;
	fake_up();
	submit("j1", 0, false);
	state_is("j1", OM_JOB_FAILED);
	assert_string_equal(fake_row("j1")->reason, "unsupported");
	queue_stats(&s, &arena);
	assert_int_equal(s.total_failed, 1);
	assert_int_equal(s.running, 0);
	om_arena_fini(&arena);
}

static void
without_an_executor_jobs_wait(void **state)
{
	(void)state;
	fake.no_executor = true;
	fake_up();
	submit("j1", 0, false);
	state_is("j1", OM_JOB_QUEUED);
	fake.executor = fake_spawn(&fake_executor, NULL);
	fake_advance(1100);
	state_is("j1", OM_JOB_RUNNING);
}

/* --- activity_logger -------------------------------------------------------------------------- */

static void
the_trail_is_read_followed_and_verified(void **state)
{
	struct om_audit_query query = { 0 };
	struct om_audit_table table = { 0 };
	struct om_audit_report report = { 0 };
	struct om_audit_entry entry = { .event = OM_STR("config_changed") };
	struct om_empty nothing = { 0 };
	struct om_arena arena = { 0 };
	struct fake_answer *a;
	struct om_caller actor = ACTOR;

	(void)state;
	fake_up();
	assert_int_equal(fake_trail("daemon_started"), 0);
	fake_body(operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query), OM_MSG_AUDIT_TABLE,
		  &table, &arena);
	assert_int_equal(table.entries.n, 1);
	OM_SET(&query, audit_query, after_seq, 1);
	OM_SET(&query, audit_query, follow, true);
	a = operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query);
	assert_false(a->done);
	ok(fake_ask(&actor, OM_LEDGER, OM_MSG_AUDIT_APPEND, &entry));
	fake_body(a, OM_MSG_AUDIT_TABLE, &table, &arena);
	assert_int_equal(table.entries.n, 1);
	assert_true(om_str_is(table.entries.v[0].event, "config_changed"));
	/* Nothing happens: an empty answer in the end, so that nobody waits in vain. */
	OM_SET(&query, audit_query, after_seq, 2);
	a = operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query);
	fake_advance(59000);
	assert_false(a->done);
	fake_advance(2000);
	fake_body(a, OM_MSG_AUDIT_TABLE, &table, &arena);
	assert_int_equal(table.entries.n, 0);
	fake_body(operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_VERIFY, &nothing),
		  OM_MSG_AUDIT_REPORT, &report, &arena);
	assert_true(report.intact);
	om_arena_fini(&arena);
}

/* With nothing that fits, each new entry costs itself, not the whole trail again. */
static void
test_a_follower_goes_on_where_it_has_looked(void **state)
{
	struct om_audit_query query = { 0 };
	struct om_audit_table table = { 0 };
	struct om_audit_entry entry = { .event = OM_STR("config_changed") };
	struct om_arena arena = { 0 };
	struct fake_answer *a;
	struct om_caller actor = ACTOR;

	(void)state;
	fake_up();
	OM_SET(&query, audit_query, job, OM_STR("j"));
	OM_SET(&query, audit_query, follow, true);
	a = operator_asks(OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_LIST, &query);
	for (int i = 0; i < 5; i++) {
		ok(fake_ask(&actor, OM_LEDGER, OM_MSG_AUDIT_APPEND, &entry));
	}
	assert_false(a->done);
	assert_true(disk.trail_count >= 5);
	assert_int_equal(disk.trail_after, disk.trail_count - 1);
	fake_advance(61000);
	fake_body(a, OM_MSG_AUDIT_TABLE, &table, &arena);
	assert_int_equal(table.entries.n, 0);
	assert_int_equal(table.scanned, disk.trail_count); /* and so does its next question */
	om_arena_fini(&arena);
}

static void
a_stop_is_in_the_trail(void **state)
{
	(void)state;
	fake_up();
	fake_down();
	assert_true(fake_trail("daemon_stopped") > 0);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(live_changes_survive_a_restart),
		T(a_trusted_peer_is_let_in),
		T(a_change_is_durable_before_it_is_in_force),
		T(rules_live),
		T(a_rule_as_the_file_has_it_is_not_stored),
		T(the_list_of_rules_says_where_each_comes_from),
		T(quiet_hours_that_could_not_be_told_are_told_later),
		T(a_reload_exchanges_what_the_files_give),
		T(a_reload_keeps_what_was_changed_live),
		T(a_change_on_its_way_meets_a_reload),
		T(a_reload_is_taken_whole_or_not_at_all),
		T(a_reload_does_not_forget_who_came),
		T(rules_test_tells_and_decides_nothing),
		T(only_the_operator_changes_the_policy),
		T(before_its_lists_are_read_it_fails_closed),
		T(lists_are_told),
		T(at_most_so_many_at_a_time),
		T(jobs_start_as_soon_as_all_is_up),
		T(pause_and_resume),
		T(hold_release_and_not_before),
		T(hold_and_not_before_survive_a_restart),
		T(an_executor_without_room_gets_it_again),
		T(a_job_that_the_executor_refuses_has_failed),
		T(without_an_executor_jobs_wait),
		T(the_trail_is_read_followed_and_verified),
		T(test_a_follower_goes_on_where_it_has_looked),
		T(a_stop_is_in_the_trail),
	};

	return FAKE_RUN(tests);
}
