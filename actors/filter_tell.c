/* SPDX-License-Identifier: ISC */
/* What is in force, told: the lists, and the rules with where each comes from. */
#include <stdlib.h>
#include <string.h>

#include "actors/filter_manager_impl.h"

#define CHANGED_MAX 4 /* kind, priority, enabled, settings */

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

enum om_err
filter_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	switch ((int)in->type) {
	case OM_MSG_CONFIG_TRUSTED:
		return reply_set(sv, in, om_filter_trusted(fm->filter));
	case OM_MSG_CONFIG_TRUSTED_PEERS:
		return reply_set(sv, in, om_filter_trusted_peers(fm->filter));
	default:
		return reply_set(sv, in, om_filter_blocked(fm->filter));
	}
}

/* --- rules ------------------------------------------------------------------------------------ */

static bool
settings_equal(const struct om_pairs *a, const struct om_pairs *b)
{
	bool equal = a->n == b->n;

	for (size_t i = 0; equal && i < a->n; i++) {
		equal =
		    om_str_eq(a->v[i].key, b->v[i].key) && om_str_eq(a->v[i].value, b->v[i].value);
	}
	return equal;
}

/* What of a rule is not as the files have it; gives how many words were put into out. */
static size_t
rule_changes(const struct om_rule *base, const struct om_rule *now, struct om_str *out)
{
	struct om_filter *scratch = NULL;
	struct om_why why;
	struct om_rule was;
	size_t n = 0;

	/* In a filter of its own: what the file leaves out is then what its kind has. */
	if (om_filter_new((struct om_str){ NULL, 0 }, OM_FILTER_HOLD_ALL, &scratch) != OM_OK ||
	    om_filter_rule_put(scratch, base, false, &why) != OM_OK) {
		goto out;
	}
	om_filter_rule_at(scratch, 0, &was);
	if (!om_str_eq(was.kind, now->kind)) {
		out[n++] = OM_STR("kind");
	}
	if (was.priority != now->priority) {
		out[n++] = OM_STR("priority");
	}
	if (was.enabled != now->enabled) {
		out[n++] = OM_STR("enabled");
	}
	if (!settings_equal(&was.settings, &now->settings)) {
		out[n++] = OM_STR("settings");
	}
out:
	om_filter_free(scratch);
	return n;
}

static enum om_err
rule_tell_origin(const struct filter_manager *fm, struct om_arena *arena, struct om_rule *rule)
{
	const struct om_rule *base = filter_base_rule(fm->base, rule->name);
	struct om_str *changed;
	size_t n;

	OM_SET(rule, rule, origin, base != NULL ? OM_STR("file") : OM_STR("live"));
	if (base == NULL || filter_live_rule_find(fm, rule->name) == NULL) {
		return OM_OK;
	}
	changed = om_arena_alloc(arena, CHANGED_MAX * sizeof(*changed));
	if (changed == NULL) {
		return OM_ERR_NOMEM;
	}
	n = rule_changes(base, rule, changed);
	OM_SET(rule, rule, changed, ((struct om_strs){ changed, n }));
	return OM_OK;
}

static enum om_err
tell_removed(const struct filter_manager *fm, struct om_arena *arena, struct om_rule_table *table)
{
	const struct filter_live_rule *live;
	struct om_str *names;
	size_t n = 0;

	LIST_FOREACH(live, &fm->live_rules, link)
	{
		n++;
	}
	names = om_arena_alloc(arena, (n + 1) * sizeof(*names));
	if (names == NULL) {
		return OM_ERR_NOMEM;
	}
	n = 0;
	LIST_FOREACH(live, &fm->live_rules, link)
	{
		if (om_str_is(live->rule.kind, KIND_REMOVED) &&
		    filter_base_rule(fm->base, live->rule.name) != NULL) {
			names[n++] = live->rule.name;
		}
	}
	if (n > 0) {
		OM_SET(table, rule_table, removed, ((struct om_strs){ names, n }));
	}
	return OM_OK;
}

enum om_err
filter_on_rules(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct om_rule_table table = { 0 };
	struct om_arena arena = { 0 };
	size_t n = om_filter_rule_count(fm->filter);
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	table.rules.v = om_arena_alloc(&arena, (n + 1) * sizeof(*table.rules.v));
	err = table.rules.v != NULL ? tell_removed(fm, &arena, &table) : OM_ERR_NOMEM;
	for (; err == OM_OK && table.rules.n < n; table.rules.n++) {
		struct om_rule *rule = &table.rules.v[table.rules.n];

		om_filter_rule_at(fm->filter, table.rules.n, rule);
		err = rule_tell_origin(fm, &arena, rule);
	}
	if (err == OM_OK) {
		err = om_service_reply(sv, in, OM_MSG_RULE_TABLE, &table);
	}
	om_arena_fini(&arena);
	return err;
}
