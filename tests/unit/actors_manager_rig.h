/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_MANAGER_RIG_H
#define OM_TESTS_ACTORS_MANAGER_RIG_H

/* What the tests of filter_manager, job_queue and activity_logger ask and expect. */
#include "actors_fake.h"

#define OPERATOR fake_caller(OM_ROLE_OPERATOR, "root", "")
#define ACTOR    fake_caller(OM_ROLE_ACTOR, "", "")
#define BOB      fake_caller(OM_ROLE_REQUESTER, "bob", "home")

static inline struct fake_answer *
operator_asks(const char *to, enum om_msg_type type, const void *body)
{
	struct om_caller operator= OPERATOR;

	return fake_ask(&operator, to, type, body);
}

static inline void
ok(const struct fake_answer *a)
{
	assert_true(a->done);
	if (a->err != OM_OK) {
		fail_msg("%s: %s", om_err_code(a->err), a->text);
	}
}

static inline void
refused(const struct fake_answer *a, enum om_err err)
{
	assert_true(a->done);
	assert_string_equal(om_err_code(a->err), om_err_code(err));
}

static inline struct fake_answer *
change_list(enum om_msg_type type, const char *name)
{
	struct om_list_change m = { .value = om_str_of(name) };

	return operator_asks(OM_FILTER_MANAGER, type, &m);
}

static inline void
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
static inline struct om_rule
cores_rule(struct om_pair *pair, const char *name, const char *max)
{
	struct om_rule rule = { .name = om_str_of(name), .kind = OM_STR("resources") };

	*pair = (struct om_pair){ OM_STR("max_cores"), om_str_of(max) };
	OM_SET(&rule, rule, settings, ((struct om_pairs){ pair, 1 }));
	return rule;
}

static inline void
restart(void **state)
{
	fake_down();
	(void)fake_setup(state);
}

#endif /* OM_TESTS_ACTORS_MANAGER_RIG_H */
