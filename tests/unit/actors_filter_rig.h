/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_FILTER_RIG_H
#define OM_TESTS_ACTORS_FILTER_RIG_H

/* A filter and requests to it, at noon of a Wednesday or when the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "actors/filter_rules.h"

#define NOON 1700049600 /* 2023-11-15 12:00:00 UTC, a Wednesday */

static inline struct om_wall
at(int64_t unix_s)
{
	return (struct om_wall){ unix_s * OM_NS_PER_S };
}

static inline struct om_filter *
filter_new(const char *owner, enum om_filter_action action)
{
	struct om_filter *f = NULL;

	assert_int_equal(om_filter_new(om_str_of(owner), action, &f), OM_OK);
	return f;
}

static inline struct om_filter_request
request(const char *peer, const char *network)
{
	struct om_filter_request rq = { .peer = om_str_of(peer), .network_id = om_str_of(network) };

	rq.cores = 1;
	rq.mem_mib = 512;
	rq.disk_mib = 256;
	rq.runtime_s = 600;
	return rq;
}

static inline struct om_filter_result
decide(struct om_filter *f, struct om_filter_request rq)
{
	struct om_filter_result r;

	om_filter_decide(f, &rq, at(NOON), &r);
	return r;
}

static inline struct om_filter_result
decide_at(struct om_filter *f, struct om_filter_request rq, int64_t unix_s)
{
	struct om_filter_result r;

	om_filter_decide(f, &rq, at(unix_s), &r);
	return r;
}

#define PAIRS_MAX 8

/* Settings as key, value, ..., NULL. */
static inline enum om_err
put_rule(struct om_filter *f, const char *name, const char *kind, int priority, bool replace,
	 struct om_why *why, const char *const *settings)
{
	struct om_pair pairs[PAIRS_MAX];
	struct om_rule rule = { .name = om_str_of(name), .kind = om_str_of(kind) };
	size_t n = 0;

	for (; settings[2 * n] != NULL; n++) {
		assert_true(n < PAIRS_MAX);
		pairs[n].key = om_str_of(settings[2 * n]);
		pairs[n].value = om_str_of(settings[2 * n + 1]);
	}
	OM_SET(&rule, rule, settings, ((struct om_pairs){ pairs, n }));
	if (priority >= 0) {
		OM_SET(&rule, rule, priority, (uint64_t)priority);
	}
	return om_filter_rule_put(f, &rule, replace, why);
}

#define RULE(f, name, kind, prio, ...)                                                 \
	do {                                                                           \
		struct om_why why_ = { "" };                                           \
		const char *const settings_[] = { __VA_ARGS__, NULL };                 \
		if (put_rule(f, name, kind, prio, false, &why_, settings_) != OM_OK) { \
			fail_msg("%s", why_.text);                                     \
		}                                                                      \
	} while (0)

#define BAD_RULE(f, kind, word, ...)                                                    \
	do {                                                                            \
		struct om_why why_ = { "" };                                            \
		const char *const settings_[] = { __VA_ARGS__, NULL };                  \
		assert_int_equal(put_rule(f, "bad", kind, -1, false, &why_, settings_), \
				 OM_ERR_INVALID);                                       \
		if (strstr(why_.text, word) == NULL) {                                  \
			fail_msg("\"%s\" is not in \"%s\"", word, why_.text);           \
		}                                                                       \
	} while (0)

static inline void
trust(struct om_filter *f, const char *network)
{
	assert_int_equal(om_name_set_add(om_filter_trusted(f), om_str_of(network)), OM_OK);
}

static inline void
block(struct om_filter *f, const char *peer)
{
	assert_int_equal(om_name_set_add(om_filter_blocked(f), om_str_of(peer)), OM_OK);
}

#endif /* OM_TESTS_ACTORS_FILTER_RIG_H */
