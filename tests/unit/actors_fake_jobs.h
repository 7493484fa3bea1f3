/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_FAKE_JOBS_H
#define OM_TESTS_ACTORS_FAKE_JOBS_H

/* Submitting to the provider, its verbs, and what must come of it. */
#include "actors_fake.h"

#define OPERATOR fake_caller(OM_ROLE_OPERATOR, "root", "")
#define BOB      fake_caller(OM_ROLE_REQUESTER, "bob", "home")
#define EVE      fake_caller(OM_ROLE_REQUESTER, "eve", "cafe")

static inline struct om_job_submit
job(const char *id)
{
	struct om_job_submit m = { .lang = OM_STR("sh") };

	OM_SET(&m, job_submit, script, ((struct om_bin){ (const uint8_t *)"true", 4 }));
	OM_SET(&m, job_submit, network, OM_STR("none"));
	if (id != NULL) {
		OM_SET(&m, job_submit, job, om_str_of(id));
	}
	return m;
}

static inline struct fake_answer *
submit(struct om_caller as, const struct om_job_submit *m)
{
	return fake_ask(&as, OM_PROVIDER, OM_MSG_JOB_SUBMIT, m);
}

static inline struct fake_answer *
submit_id(struct om_caller as, const char *id)
{
	struct om_job_submit m = job(id);

	return submit(as, &m);
}

static inline void
accepted(const struct fake_answer *a, const char *state, const char *level)
{
	struct om_job_accepted m = { 0 };
	struct om_arena arena = { 0 };

	fake_body(a, OM_MSG_JOB_ACCEPTED, &m, &arena);
	assert_true(om_str_is(m.state, state));
	assert_true(om_str_is(m.level, level));
	om_arena_fini(&arena);
}

static inline void
refused(const struct fake_answer *a, enum om_err err, const char *word)
{
	assert_true(a->done);
	if (a->err != err || strstr(a->text, word) == NULL) {
		fail_msg("%s: %s", om_err_code(a->err), a->text);
	}
}

static inline void
counted(const struct fake_answer *a, uint64_t want)
{
	struct om_count m = { 0 };
	struct om_arena arena = { 0 };

	fake_body(a, OM_MSG_COUNTED, &m, &arena);
	assert_int_equal(m.count, want);
	om_arena_fini(&arena);
}

static inline struct fake_answer *
cancel(struct om_caller as, const char *id)
{
	struct om_job_cancel m = { 0 };

	OM_SET(&m, job_cancel, job, om_str_of(id));
	return fake_ask(&as, OM_PROVIDER, OM_MSG_JOB_CANCEL, &m);
}

static inline struct fake_answer *
refs(struct om_caller as, enum om_msg_type type, const char *id, bool always)
{
	struct om_str one = om_str_of(id);
	struct om_job_refs m = { .jobs = { &one, 1 } };

	if (always) {
		OM_SET(&m, job_refs, always, true);
	}
	return fake_ask(&as, OM_PROVIDER, type, &m);
}

static inline struct fake_answer *
approve_always(const char *id, const char *trust)
{
	struct om_caller operator= OPERATOR;
	struct om_str one = om_str_of(id);
	struct om_job_refs m = { .jobs = { &one, 1 } };

	OM_SET(&m, job_refs, trust, om_str_of(trust));
	return fake_ask(&operator, OM_PROVIDER, OM_MSG_JOB_APPROVE, &m);
}

static inline struct fake_answer *
wait_for(struct om_caller as, const char *id)
{
	struct om_job_wait m = { .job = om_str_of(id) };

	return fake_ask(&as, OM_PROVIDER, OM_MSG_JOB_WAIT, &m);
}

static inline struct fake_answer *
wait_from(struct om_caller as, const char *id, const char *from)
{
	struct om_job_wait m = { .job = om_str_of(id) };

	OM_SET(&m, job_wait, from, om_str_of(from));
	return fake_ask(&as, OM_PROVIDER, OM_MSG_JOB_WAIT, &m);
}

static inline void
state_is(const char *id, enum om_job_state state)
{
	const struct fake_row *row = fake_row(id);

	assert_non_null(row);
	assert_string_equal(om_job_state_text(row->state), om_job_state_text(state));
}

/* The filter's only rule, until the next one. */
static inline void
one_rule(const char *kind, const char *key, const char *value)
{
	static struct om_pair pair;
	static struct om_rule rule;

	pair = (struct om_pair){ om_str_of(key), om_str_of(value) };
	rule = (struct om_rule){ .name = OM_STR("r"), .kind = om_str_of(kind) };
	OM_SET(&rule, rule, settings, ((struct om_pairs){ &pair, 1 }));
	fake.filter.rules = &rule;
	fake.filter.rule_count = 1;
}

#endif /* OM_TESTS_ACTORS_FAKE_JOBS_H */
