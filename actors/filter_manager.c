/* SPDX-License-Identifier: ISC */
/*
 * The actor around filter_rules: decisions out, the operator's lists and rules kept durably.
 *
 * What is stored.  A live change is laid over what the configuration gave, so each list in the
 * ledger holds differences:  trusted, trusted_peers, blocked: name -> "+" (added) or "-" (the configuration's was
 * removed); rules: name -> the encoded rule, where the kind "removed" takes the configuration's
 * rule away.
 *
 * 1. Nothing is decided before the ledger's lists were read.  If broken: a blocked peer gets in.
 * 2. A change is checked, then durable, then in force, then answered.  If broken: an operator is
 *    told of a change that a crash undoes.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/filter_manager_impl.h"
#include "actors/names.h"
#include "base/log.h"
#include "msg/codec.h"

#define LOAD_RETRY_MS 1000

/* --- loading ---------------------------------------------------------------------------------- */

static const char *const load_lists[] = { LIST_TRUSTED, LIST_TRUSTED_PEERS, LIST_BLOCKED,
					  LIST_RULES };

static void
load_name(struct filter_manager *fm, const struct om_ledger_item *item)
{
	bool removed = item->value.len == 1 && item->value.ptr[0] == '-';

	filter_lay_name(fm, (enum filter_list)fm->load, item->key,
			removed ? FILTER_REMOVED : FILTER_ADDED);
}

/* One that would not be in force hides no rule of the files. */
static void
load_rule(struct filter_manager *fm, const struct om_ledger_item *item)
{
	struct om_arena arena = { 0 };
	struct om_rule rule = { 0 };
	struct filter_live_rule *live = NULL;
	struct om_why why = { "" };
	enum om_err err;

	err = om_body_decode(OM_BODY_rule, item->value, &rule, &arena, &why);
	if (err == OM_OK && !om_str_is(rule.kind, KIND_REMOVED)) {
		err = om_filter_rule_check(&rule, &why);
	}
	if (err == OM_OK) {
		err = filter_live_rule_new(&rule, &live);
	}
	if (err == OM_OK) {
		err = filter_lay_rule(fm, rule.name, &live, &why);
	}
	if (err != OM_OK) {
		om_error("filter.load", "stored rule \"%.*s\" is not in force: %s",
			 OM_STR_ARG(item->key), why.text);
	}
	filter_live_rule_free(live);
	om_arena_fini(&arena);
}

static void fm_load(struct om_service *sv, struct filter_manager *fm);

static void
fm_load_later(struct om_service *sv)
{
	uint64_t timer;

	if (om_timer_start(om_service_cx(sv), LOAD_RETRY_MS, 0, FILTER_TIMER_LOAD, &timer) !=
	    OM_OK) {
		om_fail(om_service_cx(sv), OM_ERR_NOMEM);
	}
}

static void
fm_on_items(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct filter_manager *fm = fm_of(state);
	const struct om_ledger_items *m = answer->body;

	if (answer->err != OM_OK) {
		om_warn("filter.load", "the list \"%s\" cannot be read yet: %s",
			load_lists[fm->load], answer->text);
		fm_load_later(sv);
		return;
	}
	for (size_t i = 0; i < m->items.n; i++) {
		if (fm->load < LOAD_RULES) {
			load_name(fm, &m->items.v[i]);
		} else {
			load_rule(fm, &m->items.v[i]);
		}
	}
	fm->load++;
	fm_load(sv, fm);
}

/* The next list; the filter decides when all are there. */
static void
fm_load(struct om_service *sv, struct filter_manager *fm)
{
	const struct om_empty ok = { 0 };
	struct om_ledger_list list;
	enum om_err err;

	if (fm->load == LOADED) {
		om_info("filter.ready",
			"%zu rules, %zu trusted networks, %zu trusted and %zu blocked peers",
			om_filter_rule_count(fm->filter),
			om_filter_trusted(fm->filter)->table.count,
			om_filter_trusted_peers(fm->filter)->table.count,
			om_filter_blocked(fm->filter)->table.count);
		om_service_reply_to(sv, &fm->ping, OM_MSG_OK, &ok);
		filter_quiet_loaded(sv, fm);
		return;
	}
	list = (struct om_ledger_list){ .list = om_str_of(load_lists[fm->load]) };
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_LIST, &list, NULL, LEDGER_TIMEOUT_MS,
			     fm_on_items, 0);
	if (err != OM_OK) {
		fm_load_later(sv);
	}
}

static enum om_err
fm_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	if (msg->type != OM_SYS_TIMER) {
		return OM_ERR_UNKNOWN_TYPE;
	}
	if (((const struct om_timer_fired *)(const void *)msg->payload)->cookie ==
	    FILTER_TIMER_QUIET) {
		fm_of(state)->quiet_timer = 0;
		filter_quiet_look(sv, fm_of(state));
	} else {
		fm_load(sv, fm_of(state));
	}
	return OM_OK;
}

/* --- deciding --------------------------------------------------------------------------------- */

static void
tell_result(const struct om_filter_result *r, struct om_filter_decision *out)
{
	*out =
	    (struct om_filter_decision){ .verdict = om_str_of(om_filter_verdict_text(r->verdict)) };
	OM_SET(out, filter_decision, reason, om_str_of(r->reason));
	OM_SET(out, filter_decision, text, om_str_of(r->text));
	if (r->verdict != OM_FILTER_REJECT) {
		OM_SET(out, filter_decision, level, om_str_of(om_job_level_text(r->level)));
	}
	if (r->rule[0] != '\0') {
		OM_SET(out, filter_decision, rule, om_str_of(r->rule));
	}
}

enum om_err
filter_not_loaded(struct om_service *sv, const struct om_in *in)
{
	return om_service_reply_err(sv, in, OM_ERR_STATE,
				    "the filter is reading its lists, try again");
}

/* Answered when it decides; one asker is enough, a later one takes its place. */
static enum om_err
fm_on_ping(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	if (fm->load == LOADED) {
		return om_service_reply_ok(sv, in);
	}
	om_service_reply_err_to(sv, &fm->ping, OM_ERR_STATE, "asked again");
	fm->ping = om_service_later(sv, in);
	return OM_OK;
}

static enum om_err
fm_on_decide(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct om_filter_decision out;
	struct om_filter_result result;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (fm->load != LOADED) {
		return filter_not_loaded(sv, in);
	}
	om_filter_decide(fm->filter, in->body, fm->wall(), &result);
	tell_result(&result, &out);
	return om_service_reply(sv, in, OM_MSG_FILTER_DECISION, &out);
}

/* Views of the result become views of the arena, which keeps many. */
static enum om_err
keep_result(struct om_arena *arena, struct om_filter_decision *out)
{
	const char *text = om_arena_str(arena, out->text), *rule = om_arena_str(arena, out->rule);

	if (text == NULL || rule == NULL) {
		return OM_ERR_NOMEM;
	}
	out->text.ptr = text;
	out->rule.ptr = rule;
	return OM_OK;
}

static enum om_err
fm_on_decide_many(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	const struct om_filter_requests *m = in->body;
	const struct om_wall now = fm->wall();
	struct om_filter_decisions out = { 0 };
	enum om_err err = OM_OK;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (fm->load != LOADED) {
		return filter_not_loaded(sv, in);
	}
	om_arena_reset(&fm->arena);
	out.decisions.v = om_arena_alloc(&fm->arena, m->requests.n * sizeof(*out.decisions.v));
	if (out.decisions.v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (; err == OM_OK && out.decisions.n < m->requests.n; out.decisions.n++) {
		struct om_filter_decision *one = &out.decisions.v[out.decisions.n];
		struct om_filter_result result;

		om_filter_decide(fm->filter, &m->requests.v[out.decisions.n], now, &result);
		tell_result(&result, one);
		err = keep_result(&fm->arena, one);
	}
	return err == OM_OK ? om_service_reply(sv, in, OM_MSG_FILTER_DECISIONS, &out) : err;
}

/* The steps of a test; their texts are copied. */
struct trace {
	struct om_arena arena;
	struct om_trace_step steps[OM_FILTER_RULES_MAX + 3];
	size_t n;
};

static void
trace_step(void *arg, const struct om_filter_step *step)
{
	struct trace *trace = arg;
	struct om_trace_step *out;
	char *text = om_arena_str(&trace->arena, om_str_of(step->text));

	OM_ASSERT(trace->n < OM_COUNT(trace->steps));
	out = &trace->steps[trace->n++];
	*out = (struct om_trace_step){ .name = om_str_of(step->name),
				       .outcome = om_str_of(step->outcome) };
	if (step->is_rule) {
		OM_SET(out, trace_step, priority, step->priority);
	}
	if (text != NULL && text[0] != '\0') {
		OM_SET(out, trace_step, text, om_str_of(text));
	}
}

static enum om_err
fm_on_test(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct om_filter_decision out;
	struct om_filter_result result;
	struct trace *trace;
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (fm->load != LOADED) {
		return filter_not_loaded(sv, in);
	}
	trace = calloc(1, sizeof(*trace));
	if (trace == NULL) {
		return OM_ERR_NOMEM;
	}
	om_filter_test(fm->filter, in->body, fm->wall(), trace_step, trace, &result);
	tell_result(&result, &out);
	OM_SET(&out, filter_decision, trace,
	       ((struct om_trace_step_list){ trace->steps, trace->n }));
	err = om_service_reply(sv, in, OM_MSG_FILTER_DECISION, &out);
	om_arena_fini(&trace->arena);
	free(trace);
	return err;
}

/* --- counters ----------------------------------------------------------------------- */

static enum om_err
fm_on_stats(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct om_filter_counts c;
	struct om_filter_stats out = { 0 };

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	om_filter_counts(fm->filter, &c);
	out.evaluated = c.evaluated;
	out.accepted = c.accepted;
	out.rejected = c.rejected;
	out.pending_approval = c.held;
	out.active_rules = c.active_rules;
	out.total_rules = c.total_rules;
	out.acceptance_rate = c.acceptance_rate;
	out.rejection_rate = c.rejection_rate;
	return om_service_reply(sv, in, OM_MSG_FILTER_STATE, &out);
}

static enum om_err
fm_on_reset(struct om_service *sv, void *state, const struct om_in *in)
{
	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	om_filter_reset(fm_of(state)->filter);
	return om_service_reply_ok(sv, in);
}

static enum om_err
fm_on_policy(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	const struct om_policy *m = in->body;
	enum om_filter_action action;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (om_filter_action_parse(m->default_action, &action) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID,
					    "there is no default action \"%.*s\"",
					    OM_STR_ARG(m->default_action));
	}
	om_filter_set_action(fm->filter, action);
	if (fm->conf->live != NULL) {
		(void)snprintf(fm->conf->live->default_action,
			       sizeof(fm->conf->live->default_action), "%s",
			       om_filter_action_text(action));
	}
	return om_service_reply_ok(sv, in);
}

/* --- the actor -------------------------------------------------------------------------------- */

void
om_filter_live_fini(struct om_filter_live *live)
{
	om_buf_fini(&live->base);
}

/* The base: as the files were at the daemon's start, or at the last reload. */
static enum om_err
fm_take_base(struct filter_manager *fm, const struct om_filter_manager_conf *conf)
{
	const struct om_filter_live *live = conf->live;
	struct om_why why = { "" };
	enum om_err err;

	if (live != NULL && live->base.len > 0) {
		err = filter_base_of_message((struct om_bin){ live->base.data, live->base.len },
					     &fm->base, &why);
	} else {
		err = filter_base_of_conf(conf, &fm->base);
	}
	if (err == OM_OK) {
		err = filter_build(fm, fm->base, fm->filter, &why);
	}
	if (err != OM_OK && why.text[0] != '\0') {
		om_error("filter.config", "%s", why.text);
	}
	return err;
}

static enum om_err
fm_start(struct om_service *sv, void *state, const void *arg)
{
	struct filter_manager *fm = state;
	const struct om_filter_manager_conf *conf = arg;
	enum om_filter_action action = OM_FILTER_ACCEPT_TRUSTED_HOLD;
	const char *wanted = conf->default_action;
	enum om_err err;

	fm->magic = FILTER_MAGIC;
	fm->conf = conf;
	fm->wall = conf->wall != NULL ? conf->wall : om_wall_now;
	LIST_INIT(&fm->changes);
	LIST_INIT(&fm->live_rules);
	for (size_t i = 0; i < FILTER_LISTS; i++) {
		om_name_set_init(&fm->live[i].added);
		om_name_set_init(&fm->live[i].removed);
	}
	if (conf->live != NULL && conf->live->default_action[0] != '\0') {
		wanted = conf->live->default_action;
	}
	if (wanted != NULL && om_filter_action_parse(om_str_of(wanted), &action) != OM_OK) {
		om_error("filter.config", "there is no default action \"%s\"", wanted);
		return OM_ERR_INVALID;
	}
	err = om_filter_new(om_str_of(conf->owner_peer), action, &fm->filter);
	if (err == OM_OK) {
		err = fm_take_base(fm, conf);
	}
	if (err == OM_OK) {
		fm_load(sv, fm);
	}
	return err;
}

static void
fm_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct filter_manager *fm = state;

	(void)why;
	filter_changes_fini(sv, fm);
	filter_live_fini(fm);
	filter_base_free(fm->base);
	om_filter_free(fm->filter);
	om_arena_fini(&fm->arena);
}

static const struct om_service_handler fm_handlers[] = {
	{ OM_MSG_PING, fm_on_ping },
	{ OM_MSG_FILTER_DECIDE, fm_on_decide },
	{ OM_MSG_FILTER_DECIDE_MANY, fm_on_decide_many },
	{ OM_MSG_RULES_TEST, fm_on_test },
	{ OM_MSG_RULES_LIST, filter_on_rules },
	{ OM_MSG_RULES_ADD, filter_on_rule },
	{ OM_MSG_RULES_CHANGE, filter_on_rule },
	{ OM_MSG_RULES_REMOVE, filter_on_rule_ref },
	{ OM_MSG_RULES_ENABLE, filter_on_rule_ref },
	{ OM_MSG_RULES_DISABLE, filter_on_rule_ref },
	{ OM_MSG_CONFIG_TRUST, filter_on_trust },
	{ OM_MSG_CONFIG_UNTRUST, filter_on_trust },
	{ OM_MSG_CONFIG_TRUSTED, filter_on_list },
	{ OM_MSG_CONFIG_TRUST_PEER, filter_on_trust_peer },
	{ OM_MSG_CONFIG_UNTRUST_PEER, filter_on_trust_peer },
	{ OM_MSG_CONFIG_TRUSTED_PEERS, filter_on_list },
	{ OM_MSG_CONFIG_BLOCK, filter_on_block },
	{ OM_MSG_CONFIG_UNBLOCK, filter_on_block },
	{ OM_MSG_CONFIG_BLOCKED, filter_on_list },
	{ OM_MSG_FILTER_STATS, fm_on_stats },
	{ OM_MSG_FILTER_RESET, fm_on_reset },
	{ OM_MSG_FILTER_QUIET, filter_on_quiet },
	{ OM_MSG_CONFIG_POLICY, fm_on_policy },
	{ OM_MSG_FILTER_BASE, filter_on_base },
};

const struct om_service_def om_filter_manager_service = {
	.name = OM_FILTER_MANAGER,
	.state_size = sizeof(struct filter_manager),
	.start = fm_start,
	.stop = fm_stop,
	.on = fm_handlers,
	.on_count = OM_COUNT(fm_handlers),
	.on_msg = fm_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
