/* SPDX-License-Identifier: ISC */
/*
 * The actor around filter_rules: decisions out, the operator's lists and rules kept durably.
 *
 * What is stored.  A live change is laid over what the configuration gave, so each list in the ledger
 * holds differences:  trusted, blocked: name -> "+" (added) or "-" (the configuration's was removed);
 * rules: name -> the encoded rule, where the kind "removed" takes the configuration's rule away.
 *
 * 1. Nothing is decided before the ledger's lists were read.  If broken: a blocked peer gets in.
 * 2. A change is checked, then durable, then in force, then answered.  If broken: an operator is told
 *    of a change that a crash undoes.
 */
#include "actors/filter_manager.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "actors/filter_rules.h"
#include "actors/names.h"
#include "base/assert.h"
#include "base/log.h"
#include "msg/codec.h"

#define FILTER_MAGIC      0x666c7472u
#define LEDGER_TIMEOUT_MS 30000
#define LOAD_RETRY_MS     1000
#define KIND_REMOVED      "removed"
#define LIST_TRUSTED      "trusted"
#define LIST_BLOCKED      "blocked"
#define LIST_RULES        "rules"

enum load_step { LOAD_TRUSTED, LOAD_BLOCKED, LOAD_RULES, LOADED };

/* A change on its way to the ledger. */
struct change {
	LIST_ENTRY(change) link;
	struct om_bus_request rq;
	enum om_msg_type what;
	struct om_arena arena; /* holds the strings of rule */
	struct om_rule rule; /* for lists: the name alone */
};

struct filter_manager {
	uint32_t magic;
	const struct om_filter_manager_conf *conf;
	struct om_wall (*wall)(void);
	struct om_filter *filter;
	enum load_step load;
	struct om_name_set base_trusted, base_blocked; /* the configuration's own */
	struct om_name_set base_rules;
	LIST_HEAD(, change) changes;
};

static struct filter_manager *
fm_of(void *state)
{
	struct filter_manager *fm = state;

	OM_ASSERT(fm->magic == FILTER_MAGIC);
	return fm;
}

/* --- loading ---------------------------------------------------------------------------------- */

static const char *const load_lists[] = { LIST_TRUSTED, LIST_BLOCKED, LIST_RULES };

static void
load_name(struct om_name_set *set, const struct om_ledger_item *item)
{
	if (item->value.len == 1 && item->value.ptr[0] == '-') {
		(void)om_name_set_remove(set, item->key);
	} else if (om_name_set_add(set, item->key) != OM_OK) {
		om_error("filter.load", "out of memory at \"%.*s\"", OM_STR_ARG(item->key));
	}
}

static void
load_rule(struct filter_manager *fm, const struct om_ledger_item *item)
{
	struct om_arena arena = { 0 };
	struct om_rule rule = { 0 };
	struct om_why why = { "" };
	enum om_err err;

	err = om_body_decode(OM_BODY_rule, item->value, &rule, &arena, &why);
	if (err == OM_OK && om_str_is(rule.kind, KIND_REMOVED)) {
		(void)om_filter_rule_remove(fm->filter, rule.name);
	} else if (err == OM_OK) {
		err = om_filter_rule_put(fm->filter, &rule,
					 om_filter_rule_has(fm->filter, rule.name), &why);
	}
	if (err != OM_OK) {
		om_error("filter.load", "stored rule \"%.*s\" is not in force: %s",
			 OM_STR_ARG(item->key), why.text);
	}
	om_arena_fini(&arena);
}

static void fm_load(struct om_service *sv, struct filter_manager *fm);

static void
fm_load_later(struct om_service *sv)
{
	uint64_t timer;

	if (om_timer_start(om_service_cx(sv), LOAD_RETRY_MS, 0, 0, &timer) != OM_OK) {
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
		if (fm->load == LOAD_TRUSTED) {
			load_name(om_filter_trusted(fm->filter), &m->items.v[i]);
		} else if (fm->load == LOAD_BLOCKED) {
			load_name(om_filter_blocked(fm->filter), &m->items.v[i]);
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
	struct om_ledger_list list;
	enum om_err err;

	if (fm->load == LOADED) {
		om_info("filter.ready", "%zu rules, %zu trusted networks, %zu blocked peers",
			om_filter_rule_count(fm->filter),
			om_filter_trusted(fm->filter)->table.count,
			om_filter_blocked(fm->filter)->table.count);
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
	fm_load(sv, fm_of(state));
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

static enum om_err
not_loaded(struct om_service *sv, const struct om_in *in)
{
	return om_service_reply_err(sv, in, OM_ERR_STATE,
				    "the filter is reading its lists, try again");
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
		return not_loaded(sv, in);
	}
	om_filter_decide(fm->filter, in->body, fm->wall(), &result);
	tell_result(&result, &out);
	return om_service_reply(sv, in, OM_MSG_FILTER_DECISION, &out);
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
		return not_loaded(sv, in);
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

/* --- changes ---------------------------------------------------------------------------------- */

static void
change_free(struct change *c)
{
	LIST_REMOVE(c, link);
	om_arena_fini(&c->arena);
	free(c);
}

static enum om_err
change_copy(struct change *c, const struct om_rule *from)
{
	struct om_buf buf = { 0 };
	struct om_why why;
	enum om_err err;
	char *bytes;

	err = om_body_encode(OM_BODY_rule, from, &buf);
	if (err != OM_OK) {
		goto out;
	}
	bytes = om_arena_str(&c->arena, (struct om_str){ (const char *)buf.data, buf.len });
	if (bytes == NULL) {
		err = OM_ERR_NOMEM;
		goto out;
	}
	err = om_body_decode(OM_BODY_rule, (struct om_bin){ (const uint8_t *)bytes, buf.len },
			     &c->rule, &c->arena, &why);
out:
	om_buf_fini(&buf);
	return err;
}

static void
apply_name(struct om_name_set *set, struct om_str name, bool add)
{
	if (!add) {
		(void)om_name_set_remove(set, name);
	} else if (om_name_set_add(set, name) != OM_OK) {
		om_error("filter.change", "out of memory: \"%.*s\" is in force from the next start",
			 OM_STR_ARG(name));
	}
}

static enum om_err
apply(struct filter_manager *fm, const struct change *c, struct om_why *why)
{
	struct om_filter *f = fm->filter;

	switch ((int)c->what) {
	case OM_MSG_CONFIG_TRUST:
	case OM_MSG_CONFIG_UNTRUST:
		apply_name(om_filter_trusted(f), c->rule.name, c->what == OM_MSG_CONFIG_TRUST);
		return OM_OK;
	case OM_MSG_CONFIG_BLOCK:
	case OM_MSG_CONFIG_UNBLOCK:
		apply_name(om_filter_blocked(f), c->rule.name, c->what == OM_MSG_CONFIG_BLOCK);
		return OM_OK;
	case OM_MSG_RULES_REMOVE:
		(void)om_filter_rule_remove(f, c->rule.name);
		return OM_OK;
	default:
		return om_filter_rule_put(f, &c->rule, om_filter_rule_has(f, c->rule.name), why);
	}
}

static void
fm_on_set(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct filter_manager *fm = fm_of(state);
	struct change *c = (struct change *)(uintptr_t)answer->cookie;
	struct om_why why = { "" };
	struct om_empty ok = { 0 };
	enum om_err err = answer->err;

	if (err != OM_OK) {
		om_service_reply_err_to(sv, &c->rq, err, answer->text);
	} else {
		err = apply(fm, c, &why);
		if (err == OM_OK) {
			om_service_reply_to(sv, &c->rq, OM_MSG_OK, &ok);
		} else {
			om_service_reply_err_to(sv, &c->rq, err, why.text);
		}
	}
	change_free(c);
}

/* Writes the change; it is applied and answered when it is durable. */
static enum om_err
change_send(struct om_service *sv, struct filter_manager *fm, const struct om_in *in,
	    const struct om_rule *rule, struct om_ledger_set *set)
{
	struct change *c;
	enum om_err err;

	if (fm->load != LOADED) {
		return not_loaded(sv, in);
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		return OM_ERR_NOMEM;
	}
	LIST_INSERT_HEAD(&fm->changes, c, link);
	c->what = in->type;
	err = change_copy(c, rule);
	if (err == OM_OK) {
		set->key = rule->name;
		OM_SET(set, ledger_set, by, om_str_of(in->caller->peer));
		err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_SET, set, NULL, LEDGER_TIMEOUT_MS,
				     fm_on_set, (uintptr_t)c);
	}
	if (err != OM_OK) {
		change_free(c);
		return err;
	}
	c->rq = om_service_later(sv, in);
	return OM_OK;
}

/* trust, untrust, block, unblock. */
static enum om_err
change_name(struct om_service *sv, struct filter_manager *fm, const struct om_in *in,
	    const char *list, const struct om_name_set *base, bool add)
{
	const struct om_list_change *m = in->body;
	const struct om_rule as_rule = { .name = m->value };
	struct om_ledger_set set = { .list = om_str_of(list) };
	bool in_base = om_name_set_has(base, m->value);

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (m->value.len == 0) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "the name is empty");
	}
	if (add == in_base) { /* as the configuration has it: no difference to store */
		OM_SET(&set, ledger_set, remove, true);
	} else {
		OM_SET(&set, ledger_set, value,
		       ((struct om_bin){ (const uint8_t *)(add ? "+" : "-"), 1 }));
	}
	return change_send(sv, fm, in, &as_rule, &set);
}

static enum om_err
fm_on_trust(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_TRUSTED, &fm->base_trusted,
			   in->type == OM_MSG_CONFIG_TRUST);
}

static enum om_err
fm_on_block(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_BLOCKED, &fm->base_blocked,
			   in->type == OM_MSG_CONFIG_BLOCK);
}

static enum om_err
store_rule(struct om_service *sv, struct filter_manager *fm, const struct om_in *in,
	   const struct om_rule *rule)
{
	struct om_ledger_set set = { .list = OM_STR(LIST_RULES) };
	struct om_buf buf = { 0 };
	enum om_err err;

	err = om_body_encode(OM_BODY_rule, rule, &buf);
	if (err == OM_OK) {
		OM_SET(&set, ledger_set, value, ((struct om_bin){ buf.data, buf.len }));
		err = change_send(sv, fm, in, rule, &set);
	}
	om_buf_fini(&buf);
	return err;
}

static enum om_err
fm_on_rule(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct om_rule rule = *(const struct om_rule *)in->body;
	bool known = om_filter_rule_has(fm->filter, rule.name);
	struct om_why why = { "" };
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (known != (in->type == OM_MSG_RULES_CHANGE)) {
		return om_service_reply_err(sv, in, known ? OM_ERR_EXISTS : OM_ERR_NOT_FOUND,
					    "there is %s rule \"%.*s\"", known ? "already a" : "no",
					    OM_STR_ARG(rule.name));
	}
	if (!known && om_filter_rule_count(fm->filter) >= OM_FILTER_RULES_MAX) {
		return om_service_reply_err(sv, in, OM_ERR_FULL, "there are %d rules already",
					    OM_FILTER_RULES_MAX);
	}
	rule.has &= ~(UINT64_C(1) << OM_FIELD_rule_hits);
	err = om_filter_rule_check(&rule, &why);
	if (err != OM_OK) {
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	return store_rule(sv, fm, in, &rule);
}

/* The rule with this name; false: there is none. */
static bool
rule_find(const struct filter_manager *fm, struct om_str name, struct om_rule *out)
{
	for (size_t i = 0; i < om_filter_rule_count(fm->filter); i++) {
		om_filter_rule_at(fm->filter, i, out);
		if (om_str_eq(out->name, name)) {
			return true;
		}
	}
	return false;
}

static enum om_err
fm_on_rule_ref(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	const struct om_rule_ref *m = in->body;
	struct om_ledger_set set = { .list = OM_STR(LIST_RULES) };
	struct om_rule rule;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (!rule_find(fm, m->name, &rule)) {
		return om_service_reply_err(sv, in, OM_ERR_NOT_FOUND, "there is no rule \"%.*s\"",
					    OM_STR_ARG(m->name));
	}
	rule.has &= ~(UINT64_C(1) << OM_FIELD_rule_hits);
	if (in->type != OM_MSG_RULES_REMOVE) {
		OM_SET(&rule, rule, enabled, in->type == OM_MSG_RULES_ENABLE);
		return store_rule(sv, fm, in, &rule);
	}
	if (om_name_set_has(&fm->base_rules, m->name)) {
		struct om_rule gone = { .name = m->name, .kind = OM_STR(KIND_REMOVED) };

		return store_rule(sv, fm, in, &gone);
	}
	OM_SET(&set, ledger_set, remove, true);
	return change_send(sv, fm, in, &rule, &set);
}

/* --- lists and counters ------------------------------------------------------------------------- */

static enum om_err
reply_set(struct om_service *sv, const struct om_in *in, const struct om_name_set *set)
{
	struct om_name_walk walk = { 0 };
	struct om_string_list list = { 0 };
	struct om_str *v = calloc(set->table.count + 1, sizeof(*v));
	enum om_err err;

	if (v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (;;) {
		v[list.values.n] = om_name_set_next(set, &walk);
		if (v[list.values.n].ptr == NULL) {
			break;
		}
		list.values.n++;
	}
	list.values.v = v;
	err = om_service_reply(sv, in, OM_MSG_STRING_LIST, &list);
	free(v);
	return err;
}

static enum om_err
fm_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	return reply_set(sv, in,
			 in->type == OM_MSG_CONFIG_TRUSTED ? om_filter_trusted(fm->filter)
							   : om_filter_blocked(fm->filter));
}

static enum om_err
fm_on_rules(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct om_rule_table table = { 0 };
	size_t n = om_filter_rule_count(fm->filter);
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	table.rules.v = calloc(n + 1, sizeof(*table.rules.v));
	if (table.rules.v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (; table.rules.n < n; table.rules.n++) {
		om_filter_rule_at(fm->filter, table.rules.n, &table.rules.v[table.rules.n]);
	}
	err = om_service_reply(sv, in, OM_MSG_RULE_TABLE, &table);
	free(table.rules.v);
	return err;
}

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

/* --- the actor -------------------------------------------------------------------------------- */

static enum om_err
fm_take_names(const char *const *names, size_t count, struct om_name_set *base,
	      struct om_name_set *set)
{
	for (size_t i = 0; i < count; i++) {
		if (om_name_set_add(base, om_str_of(names[i])) != OM_OK ||
		    om_name_set_add(set, om_str_of(names[i])) != OM_OK) {
			return OM_ERR_NOMEM;
		}
	}
	return OM_OK;
}

static enum om_err
fm_take_conf(struct filter_manager *fm, const struct om_filter_manager_conf *conf)
{
	struct om_why why = { "" };
	enum om_err err;

	err = fm_take_names(conf->trusted, conf->trusted_count, &fm->base_trusted,
			    om_filter_trusted(fm->filter));
	if (err == OM_OK) {
		err = fm_take_names(conf->blocked, conf->blocked_count, &fm->base_blocked,
				    om_filter_blocked(fm->filter));
	}
	for (size_t i = 0; err == OM_OK && i < conf->rule_count; i++) {
		err = om_filter_rule_put(fm->filter, &conf->rules[i], false, &why);
		if (err != OM_OK) {
			om_error("filter.config", "%s", why.text);
		} else {
			err = om_name_set_add(&fm->base_rules, conf->rules[i].name);
		}
	}
	return err;
}

static enum om_err
fm_start(struct om_service *sv, void *state, const void *arg)
{
	struct filter_manager *fm = state;
	const struct om_filter_manager_conf *conf = arg;
	enum om_filter_action action = OM_FILTER_ACCEPT_TRUSTED_HOLD;
	enum om_err err;

	fm->magic = FILTER_MAGIC;
	fm->conf = conf;
	fm->wall = conf->wall != NULL ? conf->wall : om_wall_now;
	LIST_INIT(&fm->changes);
	om_name_set_init(&fm->base_trusted);
	om_name_set_init(&fm->base_blocked);
	om_name_set_init(&fm->base_rules);
	if (conf->default_action != NULL &&
	    om_filter_action_parse(om_str_of(conf->default_action), &action) != OM_OK) {
		om_error("filter.config", "there is no default action \"%s\"",
			 conf->default_action);
		return OM_ERR_INVALID;
	}
	err = om_filter_new(om_str_of(conf->owner_peer), action, &fm->filter);
	if (err == OM_OK) {
		err = fm_take_conf(fm, conf);
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
	while (!LIST_EMPTY(&fm->changes)) {
		struct change *c = LIST_FIRST(&fm->changes);

		om_service_reply_err_to(sv, &c->rq, OM_ERR_SHUTDOWN, "the filter has stopped");
		change_free(c);
	}
	om_name_set_fini(&fm->base_trusted);
	om_name_set_fini(&fm->base_blocked);
	om_name_set_fini(&fm->base_rules);
	om_filter_free(fm->filter);
}

static const struct om_service_handler fm_handlers[] = {
	{ OM_MSG_FILTER_DECIDE, fm_on_decide },  { OM_MSG_RULES_TEST, fm_on_test },
	{ OM_MSG_RULES_LIST, fm_on_rules },      { OM_MSG_RULES_ADD, fm_on_rule },
	{ OM_MSG_RULES_CHANGE, fm_on_rule },     { OM_MSG_RULES_REMOVE, fm_on_rule_ref },
	{ OM_MSG_RULES_ENABLE, fm_on_rule_ref }, { OM_MSG_RULES_DISABLE, fm_on_rule_ref },
	{ OM_MSG_CONFIG_TRUST, fm_on_trust },    { OM_MSG_CONFIG_UNTRUST, fm_on_trust },
	{ OM_MSG_CONFIG_TRUSTED, fm_on_list },   { OM_MSG_CONFIG_BLOCK, fm_on_block },
	{ OM_MSG_CONFIG_UNBLOCK, fm_on_block },  { OM_MSG_CONFIG_BLOCKED, fm_on_list },
	{ OM_MSG_FILTER_STATS, fm_on_stats },    { OM_MSG_FILTER_RESET, fm_on_reset },
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
