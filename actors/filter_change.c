/* SPDX-License-Identifier: ISC */
/*
 * The operator's changes: checked, written to the ledger, then in force, then answered.  A change
 * on its way holds a copy of what it changes, for the answer comes later than the message goes.
 */
#include <stdlib.h>

#include "actors/filter_manager_impl.h"
#include "actors/names.h"
#include "base/log.h"
#include "msg/codec.h"

static void
change_free(struct change *c)
{
	LIST_REMOVE(c, link);
	filter_live_rule_free(c->rule);
	free(c);
}

static enum om_err
apply(struct filter_manager *fm, struct change *c, struct om_why *why)
{
	const struct om_str name = c->rule->rule.name;
	struct filter_live_rule *none = NULL;
	enum filter_lay how = c->as_base ? FILTER_AS_BASE : FILTER_ADDED;

	switch ((int)c->what) {
	case OM_MSG_CONFIG_UNTRUST:
	case OM_MSG_CONFIG_UNTRUST_PEER:
	case OM_MSG_CONFIG_UNBLOCK:
		how = c->as_base ? FILTER_AS_BASE : FILTER_REMOVED;
		break;
	default:
		break;
	}
	switch ((int)c->what) {
	case OM_MSG_CONFIG_TRUST:
	case OM_MSG_CONFIG_UNTRUST:
		filter_lay_name(fm, FILTER_TRUSTED, name, how);
		return OM_OK;
	case OM_MSG_CONFIG_TRUST_PEER:
	case OM_MSG_CONFIG_UNTRUST_PEER:
		filter_lay_name(fm, FILTER_TRUSTED_PEERS, name, how);
		return OM_OK;
	case OM_MSG_CONFIG_BLOCK:
	case OM_MSG_CONFIG_UNBLOCK:
		filter_lay_name(fm, FILTER_BLOCKED, name, how);
		return OM_OK;
	default:
		return filter_lay_rule(fm, name, c->as_base ? &none : &c->rule, why);
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
			filter_quiet_look(sv, fm);
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
		return filter_not_loaded(sv, in);
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		return OM_ERR_NOMEM;
	}
	LIST_INSERT_HEAD(&fm->changes, c, link);
	c->what = in->type;
	c->as_base = OM_HAS(set, ledger_set, remove) && set->remove;
	err = filter_live_rule_new(rule, &c->rule);
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
	    const char *list, enum filter_list which, bool add)
{
	const struct om_list_change *m = in->body;
	const struct om_rule as_rule = { .name = m->value };
	struct om_ledger_set set = { .list = om_str_of(list) };
	bool in_base = filter_base_has(fm->base, which, m->value);

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

enum om_err
filter_on_trust(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_TRUSTED, FILTER_TRUSTED,
			   in->type == OM_MSG_CONFIG_TRUST);
}

enum om_err
filter_on_trust_peer(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_TRUSTED_PEERS, FILTER_TRUSTED_PEERS,
			   in->type == OM_MSG_CONFIG_TRUST_PEER);
}

enum om_err
filter_on_block(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_BLOCKED, FILTER_BLOCKED,
			   in->type == OM_MSG_CONFIG_BLOCK);
}

static enum om_err
store_rule(struct om_service *sv, struct filter_manager *fm, const struct om_in *in,
	   const struct om_rule *rule)
{
	struct om_ledger_set set = { .list = OM_STR(LIST_RULES) };
	const struct om_rule *base = filter_base_rule(fm->base, rule->name);
	struct om_buf buf = { 0 };
	enum om_err err;

	/* As the files have it: a difference that says the same would hide the file for ever. */
	if (base != NULL && filter_rule_equal(base, rule)) {
		OM_SET(&set, ledger_set, remove, true);
		return change_send(sv, fm, in, rule, &set);
	}
	err = om_body_encode(OM_BODY_rule, rule, &buf);
	if (err == OM_OK) {
		OM_SET(&set, ledger_set, value, ((struct om_bin){ buf.data, buf.len }));
		err = change_send(sv, fm, in, rule, &set);
	}
	om_buf_fini(&buf);
	return err;
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

/* What is told of a rule and is not of its making. */
static void
rule_strip(struct om_rule *rule)
{
	rule->has &= ~(UINT64_C(1) << OM_FIELD_rule_hits | UINT64_C(1) << OM_FIELD_rule_origin |
		       UINT64_C(1) << OM_FIELD_rule_changed);
}

/* What a change does not say stays: a rule that is disabled is not put in force by the way. */
static void
rule_keep(const struct filter_manager *fm, struct om_rule *rule)
{
	struct om_rule old;

	if (!rule_find(fm, rule->name, &old)) {
		return;
	}
	if (!OM_HAS(rule, rule, priority)) {
		OM_SET(rule, rule, priority, old.priority);
	}
	if (!OM_HAS(rule, rule, enabled)) {
		OM_SET(rule, rule, enabled, old.enabled);
	}
}

enum om_err
filter_on_rule(struct om_service *sv, void *state, const struct om_in *in)
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
	rule_strip(&rule);
	if (known) {
		rule_keep(fm, &rule);
	}
	err = om_filter_rule_check(&rule, &why);
	if (err != OM_OK) {
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	return store_rule(sv, fm, in, &rule);
}

enum om_err
filter_on_rule_ref(struct om_service *sv, void *state, const struct om_in *in)
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
	rule_strip(&rule);
	if (in->type != OM_MSG_RULES_REMOVE) {
		OM_SET(&rule, rule, enabled, in->type == OM_MSG_RULES_ENABLE);
		return store_rule(sv, fm, in, &rule);
	}
	if (filter_base_rule(fm->base, m->name) != NULL) {
		struct om_rule gone = { .name = m->name, .kind = OM_STR(KIND_REMOVED) };

		return store_rule(sv, fm, in, &gone);
	}
	OM_SET(&set, ledger_set, remove, true);
	return change_send(sv, fm, in, &rule, &set);
}

void
filter_changes_fini(struct om_service *sv, struct filter_manager *fm)
{
	while (!LIST_EMPTY(&fm->changes)) {
		struct change *c = LIST_FIRST(&fm->changes);

		om_service_reply_err_to(sv, &c->rq, OM_ERR_SHUTDOWN, "the filter has stopped");
		change_free(c);
	}
}
