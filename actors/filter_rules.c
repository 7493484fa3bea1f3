/* SPDX-License-Identifier: ISC */
/*
 * The order of a decision.  Rules are kept in an array in the order of evaluation, so a decision
 * walks it once; the lists are hash tables, so their length costs nothing.
 */
#include "actors/filter_rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/filter_kinds.h"
#include "actors/filter_text.h"
#include "base/assert.h"

#define ACTIVITY_MAX 1024 /* bytes of a description; the message has the same limit */

struct om_filter {
	char owner[OM_FILTER_NAME_MAX + 1];
	size_t owner_len;
	enum om_filter_action action;
	struct om_name_set trusted, trusted_peers, blocked;
	struct om_filter_rule **rules; /* in order of evaluation */
	size_t rule_count, rule_cap;
	uint64_t evaluated, accepted, rejected, held;
};

/* One decision on its way. */
struct deciding {
	struct om_filter *f;
	const struct om_filter_request *rq;
	struct om_rule_input in;
	om_filter_step_fn step; /* NULL: a real decision */
	void *step_arg;
	struct om_filter_result *out;
	bool decided;
	bool low; /* a rule said low_priority */
	char folded[OM_TEXT_FOLDED_MAX(ACTIVITY_MAX)];
};

enum om_err
om_filter_new(struct om_str owner_peer, enum om_filter_action action, struct om_filter **out)
{
	struct om_filter *f;

	if (owner_peer.len > OM_FILTER_NAME_MAX) {
		return OM_ERR_TOO_BIG;
	}
	f = calloc(1, sizeof(*f));
	if (f == NULL) {
		return OM_ERR_NOMEM;
	}
	f->action = action;
	f->owner_len = owner_peer.len;
	if (owner_peer.len > 0) {
		memcpy(f->owner, owner_peer.ptr, owner_peer.len);
	}
	om_name_set_init(&f->trusted);
	om_name_set_init(&f->trusted_peers);
	om_name_set_init(&f->blocked);
	*out = f;
	return OM_OK;
}

void
om_filter_free(struct om_filter *f)
{
	if (f == NULL) {
		return;
	}
	for (size_t i = 0; i < f->rule_count; i++) {
		om_rule_free(f->rules[i]);
	}
	free(f->rules);
	om_name_set_fini(&f->trusted);
	om_name_set_fini(&f->trusted_peers);
	om_name_set_fini(&f->blocked);
	free(f);
}

void
om_filter_set_action(struct om_filter *f, enum om_filter_action action)
{
	f->action = action;
}

struct om_name_set *
om_filter_trusted(struct om_filter *f)
{
	return &f->trusted;
}

struct om_name_set *
om_filter_trusted_peers(struct om_filter *f)
{
	return &f->trusted_peers;
}

struct om_name_set *
om_filter_blocked(struct om_filter *f)
{
	return &f->blocked;
}

/* --- deciding --------------------------------------------------------------------------------- */

static void
tell(const struct deciding *d, const char *name, const char *outcome, const char *text)
{
	if (d->step != NULL) {
		d->step(d->step_arg,
			&(struct om_filter_step){ .name = name, .outcome = outcome, .text = text });
	}
}

static void
settle(struct deciding *d, enum om_filter_verdict verdict, enum om_job_level level,
       const char *reason)
{
	d->decided = true;
	d->out->verdict = verdict;
	d->out->level = level;
	d->out->reason = reason;
}

static bool
peer_is_trusted(const struct deciding *d)
{
	return om_name_set_has_hashed(&d->f->trusted_peers, d->rq->peer, d->in.peer_hash);
}

static bool
network_is_trusted(const struct deciding *d)
{
	return d->rq->network_id.len > 0 &&
	       om_name_set_has_hashed(&d->f->trusted, d->rq->network_id, d->in.network_hash);
}

/* The level that a requester who is let in gets. */
static enum om_job_level
level_of(const struct deciding *d)
{
	return (peer_is_trusted(d) || network_is_trusted(d)) && !d->low ? OM_LEVEL_NETWORK
									: OM_LEVEL_EXTERNAL;
}

static void
step_owner(struct deciding *d)
{
	const struct om_filter *f = d->f;
	struct om_str owner = { f->owner, f->owner_len };

	if (!d->rq->operator&&(owner.len == 0 || !om_str_eq(owner, d->rq->peer))) {
		tell(d, "owner", "no",
		     owner.len == 0 ? "no owner peer is set" : "the requester is not the owner");
		return;
	}
	settle(d, OM_FILTER_ACCEPT, OM_LEVEL_OWNER, "owner");
	(void)snprintf(d->out->text, sizeof(d->out->text), "it is the owner's job");
	tell(d, "owner", "hit", d->out->text);
}

static void
step_blocked(struct deciding *d)
{
	if (om_name_set_has_hashed(&d->f->blocked, d->rq->peer, d->in.peer_hash)) {
		settle(d, OM_FILTER_REJECT, OM_LEVEL_EXTERNAL, "peer_blocked");
		(void)snprintf(d->out->text, sizeof(d->out->text), "peer %.*s is blocked",
			       OM_STR_ARG(d->rq->peer));
		tell(d, "blocked", "hit", d->out->text);
	} else {
		tell(d, "blocked", "no", "");
	}
}

static void
tell_rule(const struct deciding *d, const struct om_rule_head *head, const char *outcome,
	  const char *text)
{
	if (d->step != NULL) {
		d->step(d->step_arg, &(struct om_filter_step){ .name = head->name,
							       .is_rule = true,
							       .priority = head->priority,
							       .outcome = outcome,
							       .text = text });
	}
}

static void
step_hit(struct deciding *d, struct om_rule_head *head, const struct om_rule_hit *hit)
{
	if (!d->in.dry) {
		head->hits++;
	}
	if (hit->action == OM_RULE_LOW_PRIORITY) {
		d->low = true;
		tell_rule(d, head, "low", hit->text);
		return;
	}
	settle(d, hit->action == OM_RULE_HOLD ? OM_FILTER_HOLD : OM_FILTER_REJECT, level_of(d),
	       hit->reason);
	memcpy(d->out->rule, head->name, sizeof(d->out->rule));
	(void)snprintf(d->out->text, sizeof(d->out->text), "rule \"%s\": %s", head->name,
		       hit->text);
	tell_rule(d, head, "hit", hit->text);
}

static void
step_rule(struct deciding *d, struct om_filter_rule *rule)
{
	struct om_rule_head *head = om_rule_head(rule);
	struct om_rule_hit hit;

	if (!head->enabled) {
		tell_rule(d, head, "off", "disabled");
	} else if (om_rule_hits(rule, &d->in, &hit)) {
		step_hit(d, head, &hit);
	} else {
		tell_rule(d, head, "pass", "");
	}
}

static void
default_text(struct deciding *d)
{
	static const char *const why[] = { "accepted", "held for the operator", "rejected" };
	struct om_filter_result *out = d->out;

	if (d->f->action == OM_FILTER_HOLD_ALL || d->f->action == OM_FILTER_REJECT_ALL) {
		(void)snprintf(out->text, sizeof(out->text), "default action %s: %s",
			       om_filter_action_text(d->f->action), why[out->verdict]);
	} else if (peer_is_trusted(d)) {
		(void)snprintf(out->text, sizeof(out->text), "peer %.*s is trusted: %s",
			       OM_STR_ARG(d->rq->peer), why[out->verdict]);
	} else if (d->rq->network_id.len == 0) {
		(void)snprintf(out->text, sizeof(out->text), "the requester is in no network: %s",
			       why[out->verdict]);
	} else {
		(void)snprintf(out->text, sizeof(out->text), "network %.*s is %s: %s",
			       OM_STR_ARG(d->rq->network_id),
			       network_is_trusted(d) ? "trusted" : "not trusted",
			       why[out->verdict]);
	}
}

static void
step_default(struct deciding *d)
{
	const bool peer = peer_is_trusted(d), trusted = peer || network_is_trusted(d);
	enum om_filter_verdict verdict = OM_FILTER_ACCEPT;
	const char *reason = peer      ? "peer_trusted"
			     : trusted ? "network_trusted"
				       : "network_not_trusted";

	switch (d->f->action) {
	case OM_FILTER_ACCEPT_TRUSTED_HOLD:
		verdict = trusted ? OM_FILTER_ACCEPT : OM_FILTER_HOLD;
		break;
	case OM_FILTER_ACCEPT_TRUSTED_REJECT:
		verdict = trusted ? OM_FILTER_ACCEPT : OM_FILTER_REJECT;
		break;
	case OM_FILTER_HOLD_ALL:
		verdict = OM_FILTER_HOLD;
		reason = "default_hold";
		break;
	case OM_FILTER_REJECT_ALL:
		verdict = OM_FILTER_REJECT;
		reason = "default_reject";
		break;
	case OM_FILTER_ACCEPT_EVERYONE:
	case OM_FILTER_ACTIONS:
		break;
	}
	settle(d, verdict, level_of(d), reason);
	default_text(d);
	tell(d, "default", "hit", d->out->text);
}

static void
decide(struct deciding *d, struct om_wall now)
{
	const struct om_filter_request *rq = d->rq;
	struct om_filter *f = d->f;

	d->out->rule[0] = '\0';
	d->in.rq = rq;
	d->in.now = now;
	d->in.dry = d->step != NULL;
	d->in.activity = (struct om_str){ NULL, 0 };
	d->in.peer_hash = om_name_hash(rq->peer);
	d->in.network_hash = om_name_hash(rq->network_id);
	/* Absent and empty differ; what is longer than the message allows is cut. */
	if (rq->activity.ptr != NULL) {
		struct om_str text = rq->activity;

		text.len = text.len < ACTIVITY_MAX ? text.len : ACTIVITY_MAX;
		d->in.activity.ptr = d->folded;
		d->in.activity.len = f->rule_count > 0 ? om_text_fold(text, d->folded) : 0;
		om_text_pairs(d->in.activity, &d->in.pairs);
	}
	step_owner(d);
	if (!d->decided) {
		step_blocked(d);
	}
	for (size_t i = 0; i < f->rule_count && !d->decided; i++) {
		step_rule(d, f->rules[i]);
	}
	if (!d->decided) {
		step_default(d);
	}
}

void
om_filter_decide(struct om_filter *f, const struct om_filter_request *rq, struct om_wall now,
		 struct om_filter_result *out)
{
	struct deciding d;

	/* Not an initialiser: that would clear `folded` for every decision. */
	d.f = f;
	d.rq = rq;
	d.step = NULL;
	d.step_arg = NULL;
	d.out = out;
	d.decided = false;
	d.low = false;
	decide(&d, now);
	f->evaluated++;
	switch (out->verdict) {
	case OM_FILTER_ACCEPT:
		f->accepted++;
		break;
	case OM_FILTER_HOLD:
		f->held++;
		break;
	case OM_FILTER_REJECT:
		f->rejected++;
		break;
	}
}

void
om_filter_test(struct om_filter *f, const struct om_filter_request *rq, struct om_wall now,
	       om_filter_step_fn fn, void *arg, struct om_filter_result *out)
{
	struct deciding d = { .f = f, .rq = rq, .step = fn, .step_arg = arg, .out = out };

	OM_ASSERT(fn != NULL);
	decide(&d, now);
}

void
om_filter_quiet(struct om_filter *f, struct om_wall now, struct om_filter_quiet *out)
{
	*out = (struct om_filter_quiet){ .timed = false };
	for (size_t i = 0; i < f->rule_count; i++) {
		if (om_rule_head(f->rules[i])->enabled) {
			om_rule_quiet(f->rules[i], now, out);
		}
	}
}

/* --- rules ------------------------------------------------------------------------------------ */

static bool
goes_before(const struct om_rule_head *a, const struct om_rule_head *b)
{
	return a->priority != b->priority ? a->priority > b->priority
					  : strcmp(a->name, b->name) < 0;
}

static size_t
rule_index(const struct om_filter *f, struct om_str name)
{
	size_t i = 0;

	while (i < f->rule_count && !om_str_is(name, om_rule_head(f->rules[i])->name)) {
		i++;
	}
	return i;
}

static void
rule_take_out(struct om_filter *f, size_t at)
{
	om_rule_free(f->rules[at]);
	f->rule_count--;
	memmove(&f->rules[at], &f->rules[at + 1], (f->rule_count - at) * sizeof(f->rules[0]));
}

/* There is room. */
static void
rule_put_in(struct om_filter *f, struct om_filter_rule *rule)
{
	size_t at = f->rule_count;

	while (at > 0 && goes_before(om_rule_head(rule), om_rule_head(f->rules[at - 1]))) {
		f->rules[at] = f->rules[at - 1];
		at--;
	}
	f->rules[at] = rule;
	f->rule_count++;
}

static enum om_err
rule_room(struct om_filter *f, struct om_why *why)
{
	size_t cap = f->rule_cap == 0 ? 16 : f->rule_cap * 2;
	struct om_filter_rule **v;

	if (f->rule_count == OM_FILTER_RULES_MAX) {
		return om_why_set(why, OM_ERR_FULL, "there are %d rules already",
				  OM_FILTER_RULES_MAX);
	}
	if (f->rule_count < f->rule_cap) {
		return OM_OK;
	}
	v = reallocarray(f->rules, cap, sizeof(struct om_filter_rule *));
	if (v == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	f->rules = v;
	f->rule_cap = cap;
	return OM_OK;
}

enum om_err
om_filter_rule_put(struct om_filter *f, const struct om_rule *from, bool replace,
		   struct om_why *why)
{
	struct om_filter_rule *rule = NULL;
	size_t at = rule_index(f, from->name);
	bool known = at < f->rule_count;
	enum om_err err;

	if (known != replace) {
		return om_why_set(why, known ? OM_ERR_EXISTS : OM_ERR_NOT_FOUND,
				  "there is %s rule \"%.*s\"", known ? "already a" : "no",
				  OM_STR_ARG(from->name));
	}
	err = known ? OM_OK : rule_room(f, why);
	if (err == OM_OK) {
		err = om_rule_new(from, &rule, why);
	}
	if (err != OM_OK) {
		return err;
	}
	if (known) {
		om_rule_inherit(rule, f->rules[at]);
		rule_take_out(f, at);
	}
	rule_put_in(f, rule);
	return OM_OK;
}

enum om_err
om_filter_rule_check(const struct om_rule *from, struct om_why *why)
{
	struct om_filter_rule *rule = NULL;
	enum om_err err = om_rule_new(from, &rule, why);

	if (err == OM_OK) {
		om_rule_free(rule);
	}
	return err;
}

bool
om_filter_rule_remove(struct om_filter *f, struct om_str name)
{
	size_t at = rule_index(f, name);

	if (at == f->rule_count) {
		return false;
	}
	rule_take_out(f, at);
	return true;
}

bool
om_filter_rule_enable(struct om_filter *f, struct om_str name, bool on)
{
	size_t at = rule_index(f, name);

	if (at == f->rule_count) {
		return false;
	}
	om_rule_head(f->rules[at])->enabled = on;
	return true;
}

bool
om_filter_rule_has(const struct om_filter *f, struct om_str name)
{
	return rule_index(f, name) < f->rule_count;
}

size_t
om_filter_rule_count(const struct om_filter *f)
{
	return f->rule_count;
}

void
om_filter_rule_at(const struct om_filter *f, size_t i, struct om_rule *out)
{
	OM_ASSERT(i < f->rule_count);
	om_rule_tell(f->rules[i], out);
}

static void
swap_sets(struct om_name_set *a, struct om_name_set *b)
{
	struct om_name_set kept = *a;

	*a = *b;
	*b = kept;
}

void
om_filter_take(struct om_filter *f, struct om_filter *next)
{
	struct om_filter_rule **rules = f->rules;
	size_t count = f->rule_count, cap = f->rule_cap;

	for (size_t i = 0; i < next->rule_count; i++) {
		size_t at = rule_index(f, om_str_of(om_rule_head(next->rules[i])->name));

		if (at < count) {
			om_rule_inherit(next->rules[i], rules[at]);
		}
	}
	f->rules = next->rules;
	f->rule_count = next->rule_count;
	f->rule_cap = next->rule_cap;
	next->rules = rules;
	next->rule_count = count;
	next->rule_cap = cap;
	swap_sets(&f->trusted, &next->trusted);
	swap_sets(&f->trusted_peers, &next->trusted_peers);
	swap_sets(&f->blocked, &next->blocked);
	om_filter_free(next);
}

/* --- counters --------------------------------------------------------------------------------- */

static double
share(uint64_t part, uint64_t whole)
{
	return whole == 0 ? 0.0 : (double)part / (double)whole;
}

void
om_filter_counts(const struct om_filter *f, struct om_filter_counts *out)
{
	*out = (struct om_filter_counts){
		.evaluated = f->evaluated,
		.accepted = f->accepted,
		.rejected = f->rejected,
		.held = f->held,
		.total_rules = f->rule_count,
		.acceptance_rate = share(f->accepted, f->evaluated),
		.rejection_rate = share(f->rejected, f->evaluated),
	};
	for (size_t i = 0; i < f->rule_count; i++) {
		out->active_rules += om_rule_head(f->rules[i])->enabled;
	}
}

void
om_filter_reset(struct om_filter *f)
{
	f->evaluated = f->accepted = f->rejected = f->held = 0;
	for (size_t i = 0; i < f->rule_count; i++) {
		om_rule_head(f->rules[i])->hits = 0;
	}
}
