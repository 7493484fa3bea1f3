/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_FILTER_RULES_H
#define OM_ACTORS_FILTER_RULES_H

/*
 * Is a job accepted, rejected or held for the operator?  Plain logic: no actors, no clock of its
 * own, no I/O.  The same request, rules and time give the same decision.  docs/filter.md is the
 * manual.
 *
 *   1. the operator's own job, or requester = owner peer  -> accepted at level owner
 *   2. requester in the blocked peers                     -> rejected
 *   3. enabled rules, higher priority first, equal ones by name: the first hit decides
 *   4. the default action, for which a requester is trusted when it, or its network, is in a list
 *
 * A rule whose action is low_priority does not decide: the job goes on to the next rule and is
 * accepted at level external at best.
 *
 * All functions: owner thread.
 */
#include "actors/job_level.h"
#include "actors/name_table.h"
#include "base/clock.h"
#include "msg/schema.h"

#define OM_FILTER_RULES_MAX  1000 /* what rule.table can carry */
#define OM_FILTER_NAME_MAX   64 /* bytes of a rule's name */
#define OM_FILTER_TEXT_MAX   512
#define OM_FILTER_LIST_MAX   100000 /* entries of a rule's own list of peers or networks */
#define OM_FILTER_RATE_PEERS 100000 /* requesters that one rate rule keeps count of */

/*
 *                               trusted network     otherwise          the reference's name
 * accept_trusted_hold_others    accept (network)    hold               acceptAll
 * accept_trusted_reject_others  accept (network)    reject             acceptTrustedOnly
 * hold_all                      hold                hold               requireApproval
 * reject_all                    reject              reject             rejectAll
 * accept_everyone               accept (network)    accept (external)  -
 */
enum om_filter_action {
	OM_FILTER_ACCEPT_TRUSTED_HOLD,
	OM_FILTER_ACCEPT_TRUSTED_REJECT,
	OM_FILTER_HOLD_ALL,
	OM_FILTER_REJECT_ALL,
	OM_FILTER_ACCEPT_EVERYONE,
	OM_FILTER_ACTIONS,
};

enum om_filter_verdict { OM_FILTER_ACCEPT, OM_FILTER_HOLD, OM_FILTER_REJECT };

struct om_filter_result {
	enum om_filter_verdict verdict;
	enum om_job_level level; /* accepted: its level; held: the level it would get */
	const char *reason; /* code, static */
	char rule[OM_FILTER_NAME_MAX + 1]; /* "" when no rule decided */
	char text[OM_FILTER_TEXT_MAX];
};

struct om_filter_counts {
	uint64_t evaluated, accepted, rejected, held;
	uint64_t active_rules, total_rules;
	double acceptance_rate, rejection_rate; /* 0 when nothing was evaluated */
};

struct om_filter; /* opaque */

/* "accept_trusted_hold_others" and so on, or the reference's name.  OM_ERR_INVALID. */
enum om_err om_filter_action_parse(struct om_str text, enum om_filter_action *out) OM_MUST_CHECK;
const char *om_filter_action_text(enum om_filter_action action);
/* "accepted", "pending_approval", "rejected". */
const char *om_filter_verdict_text(enum om_filter_verdict verdict);

/* owner_peer is copied; the absent or empty view: there is none.  NOMEM, TOO_BIG. */
enum om_err om_filter_new(struct om_str owner_peer, enum om_filter_action action,
			  struct om_filter **out) OM_MUST_CHECK;
void om_filter_free(struct om_filter *f);
void om_filter_set_action(struct om_filter *f, enum om_filter_action action);

/* Decides and counts. */
void om_filter_decide(struct om_filter *f, const struct om_filter_request *rq, struct om_wall now,
		      struct om_filter_result *out);

/* One step of a decision.  outcome: no, pass, hit, low (priority), off (disabled). */
struct om_filter_step {
	const char *name;
	bool is_rule;
	uint64_t priority; /* of a rule */
	const char *outcome;
	const char *text; /* borrowed for the call; "" if there is nothing to say */
};
typedef void (*om_filter_step_fn)(void *arg, const struct om_filter_step *step);
/* Tells each step up to the one that decides; the same decision; counts nothing. */
void om_filter_test(struct om_filter *f, const struct om_filter_request *rq, struct om_wall now,
		    om_filter_step_fn fn, void *arg, struct om_filter_result *out);

/*
 * Adds a rule, or with `replace` puts it in the place of the one with its name (its hits go on,
 * and what it has counted, when kind and settings are the same).
 * EXISTS, NOT_FOUND (replace), FULL, INVALID (why names the setting), NOMEM: nothing has changed.
 */
enum om_err om_filter_rule_put(struct om_filter *f, const struct om_rule *rule, bool replace,
			       struct om_why *why) OM_MUST_CHECK;
/* Checks a rule without keeping it. */
enum om_err om_filter_rule_check(const struct om_rule *rule, struct om_why *why) OM_MUST_CHECK;
/* false: there is none. */
bool om_filter_rule_remove(struct om_filter *f, struct om_str name);
bool om_filter_rule_enable(struct om_filter *f, struct om_str name, bool on);
bool om_filter_rule_has(const struct om_filter *f, struct om_str name);
size_t om_filter_rule_count(const struct om_filter *f);
/* In order of evaluation; views are borrowed until the rules change.  i < count. */
void om_filter_rule_at(const struct om_filter *f, size_t i, struct om_rule *out);

/*
 * Puts the lists and rules of next in the place of f's and frees next.  Counters stay; a rule that
 * keeps its name keeps its hits, and one that keeps its kind and settings what it has counted.
 */
void om_filter_take(struct om_filter *f, struct om_filter *next);

/* The lists.  Adding what is there and removing what is not are fine. */
struct om_name_set *om_filter_trusted(struct om_filter *f); /* networks */
struct om_name_set *om_filter_trusted_peers(struct om_filter *f);
struct om_name_set *om_filter_blocked(struct om_filter *f);

/* What quiet hours with `jobs = no_starts` or `pause` ask for now. */
struct om_filter_quiet {
	bool hold_starts; /* nothing starts but the owner's */
	bool pause; /* and what runs stands still */
	bool timed; /* there are such rules: look again every minute */
	char text[64]; /* hold_starts: "quiet hours (22:00-08:00)" */
};
void om_filter_quiet(struct om_filter *f, struct om_wall now, struct om_filter_quiet *out);

void om_filter_counts(const struct om_filter *f, struct om_filter_counts *out);
void om_filter_reset(struct om_filter *f); /* counters and hits */

#endif /* OM_ACTORS_FILTER_RULES_H */
