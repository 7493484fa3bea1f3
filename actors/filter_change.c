/* SPDX-License-Identifier: ISC */
/*
 * The operator's changes: checked, written to the ledger, then in force, then answered.  A change
 * on its way holds a copy of what it changes, for the answer comes later than the message goes.
 */
#include <stdlib.h>
#include <string.h>

#include "actors/filter_manager_impl.h"
#include "actors/names.h"
#include "base/log.h"
#include "msg/codec.h"

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
	case OM_MSG_CONFIG_TRUST_PEER:
	case OM_MSG_CONFIG_UNTRUST_PEER:
		apply_name(om_filter_trusted_peers(f), c->rule.name,
			   c->what == OM_MSG_CONFIG_TRUST_PEER);
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

enum om_err
filter_on_trust(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_TRUSTED, &fm->base_trusted,
			   in->type == OM_MSG_CONFIG_TRUST);
}

enum om_err
filter_on_trust_peer(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_TRUSTED_PEERS, &fm->base_trusted_peers,
			   in->type == OM_MSG_CONFIG_TRUST_PEER);
}

enum om_err
filter_on_block(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	return change_name(sv, fm, in, LIST_BLOCKED, &fm->base_blocked,
			   in->type == OM_MSG_CONFIG_BLOCK);
}

/* As the rule would be told, encoded: what is left out and what is said as the default are the same. */
static enum om_err
rule_canon(struct om_filter *scratch, const struct om_rule *from, struct om_buf *out)
{
	struct om_rule told;
	struct om_why why;
	enum om_err err =
	    om_filter_rule_put(scratch, from, om_filter_rule_has(scratch, from->name), &why);

	if (err == OM_OK) {
		om_filter_rule_at(scratch, 0, &told);
		err = om_body_encode(OM_BODY_rule, &told, out);
	}
	return err;
}

/* Is it what the configuration has?  Then there is no difference to store, which would hide the file. */
static bool
rule_is_configured(const struct filter_manager *fm, const struct om_rule *rule)
{
	const struct om_filter_manager_conf *conf = fm->conf;
	struct om_buf base = { 0 }, now = { 0 };
	struct om_filter *scratch = NULL;
	bool equal = false;
	size_t i = 0;

	while (i < conf->rule_count && !om_str_eq(conf->rules[i].name, rule->name)) {
		i++;
	}
	if (i < conf->rule_count &&
	    om_filter_new((struct om_str){ NULL, 0 }, OM_FILTER_HOLD_ALL, &scratch) == OM_OK &&
	    rule_canon(scratch, &conf->rules[i], &base) == OM_OK &&
	    rule_canon(scratch, rule, &now) == OM_OK) {
		equal = base.len == now.len && memcmp(base.data, now.data, now.len) == 0;
	}
	om_filter_free(scratch);
	om_buf_fini(&base);
	om_buf_fini(&now);
	return equal;
}

static enum om_err
store_rule(struct om_service *sv, struct filter_manager *fm, const struct om_in *in,
	   const struct om_rule *rule)
{
	struct om_ledger_set set = { .list = OM_STR(LIST_RULES) };
	struct om_buf buf = { 0 };
	enum om_err err;

	if (rule_is_configured(fm, rule)) {
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
	rule.has &= ~(UINT64_C(1) << OM_FIELD_rule_hits);
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

void
filter_changes_fini(struct om_service *sv, struct filter_manager *fm)
{
	while (!LIST_EMPTY(&fm->changes)) {
		struct change *c = LIST_FIRST(&fm->changes);

		om_service_reply_err_to(sv, &c->rq, OM_ERR_SHUTDOWN, "the filter has stopped");
		change_free(c);
	}
}
