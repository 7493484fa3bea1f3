/* SPDX-License-Identifier: ISC */
/* Rules as data: from a name, a kind and a map of texts to typed settings, and back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/filter_impl.h"
#include "actors/filter_text.h"
#include "base/assert.h"
#include "base/parse.h"

#define PRIORITY_MAX 1000
#define SETTINGS_MAX 64
#define KEYS_MAX     16 /* of one kind, with those that all kinds have */

/* --- one value -------------------------------------------------------------------------------- */

static enum om_err
read_words(struct om_filter_rule *rule, struct om_str text, struct om_rule_words *out,
	   struct om_why *why)
{
	struct om_str piece;

	while (om_str_next(&text, ',', &piece)) {
		char *folded;

		piece = om_str_trim(piece);
		if (piece.len == 0 || piece.len > OM_RULE_WORD_MAX || out->n == OM_RULE_WORDS_MAX) {
			return om_why_set(why, OM_ERR_INVALID,
					  "needs 1 to %d keywords of 1 to %d bytes",
					  OM_RULE_WORDS_MAX, OM_RULE_WORD_MAX);
		}
		folded = om_arena_alloc(&rule->arena, OM_TEXT_FOLDED_MAX(piece.len));
		if (folded == NULL) {
			return om_why_set(why, OM_ERR_NOMEM, "out of memory");
		}
		out->v[out->n] = piece;
		out->folded[out->n].ptr = folded;
		out->folded[out->n].len = om_text_fold(piece, folded);
		out->n++;
	}
	return OM_OK;
}

static enum om_err
read_names(struct om_str text, struct om_name_set *out, struct om_why *why)
{
	struct om_str piece;

	while (om_str_next(&text, ',', &piece)) {
		enum om_err err;

		piece = om_str_trim(piece);
		if (piece.len == 0 || piece.len > OM_FILTER_NAME_MAX ||
		    out->table.count == OM_FILTER_LIST_MAX) {
			return om_why_set(why, OM_ERR_INVALID,
					  "needs 1 to %d names of 1 to %d bytes",
					  OM_FILTER_LIST_MAX, OM_FILTER_NAME_MAX);
		}
		err = om_name_set_add(out, piece);
		if (err != OM_OK) {
			return om_why_set(why, err, "out of memory");
		}
	}
	return OM_OK;
}

static enum om_err
read_value(struct om_filter_rule *rule, const struct om_rule_key *key, struct om_str text,
	   struct om_why *why)
{
	void *at = (char *)&rule->s + key->offset;
	uint64_t *number = at;

	switch (key->type) {
	case OM_KEY_NUMBER:
		if (om_parse_u64(text, key->min, key->max, number) != OM_OK) {
			return om_why_set(why, OM_ERR_INVALID, "must be a number from %llu to %llu",
					  (unsigned long long)key->min,
					  (unsigned long long)key->max);
		}
		return OM_OK;
	case OM_KEY_DURATION:
		if (om_parse_ms(text, number) != OM_OK || *number < key->min ||
		    *number > key->max) {
			return om_why_set(why, OM_ERR_INVALID,
					  "must be a time such as 90s, 10m, 2h or 1d, from %llus to"
					  " %llus",
					  (unsigned long long)key->min / 1000,
					  (unsigned long long)key->max / 1000);
		}
		return OM_OK;
	case OM_KEY_YES_NO:
		if (om_parse_bool(text, at) != OM_OK) {
			return om_why_set(why, OM_ERR_INVALID, "must be yes or no");
		}
		return OM_OK;
	case OM_KEY_TEXT:
		*(struct om_str *)at = text;
		return OM_OK;
	case OM_KEY_WORDS:
		return read_words(rule, text, at, why);
	case OM_KEY_NAMES:
		return read_names(text, at, why);
	}
	return OM_ERR_INTERNAL;
}

/* --- all settings ----------------------------------------------------------------------------- */

static const struct om_rule_key action_key = {
	.name = "action",
	.type = OM_KEY_TEXT,
	.offset = offsetof(struct om_rule_settings, action_text),
};

static const struct om_rule_key *
key_find(const struct om_rule_kind *kind, struct om_str name)
{
	for (size_t i = 0; i < kind->key_count; i++) {
		if (om_str_is(name, kind->keys[i].name)) {
			return &kind->keys[i];
		}
	}
	return om_str_is(name, action_key.name) ? &action_key : NULL;
}

static enum om_err
unknown_key(const struct om_rule_kind *kind, struct om_str name, struct om_why *why)
{
	const char *names[KEYS_MAX];
	char text[OM_FILTER_NAME_MAX + 1];
	const char *near = NULL;
	size_t n = 0;

	while (n < kind->key_count && n < KEYS_MAX - 1) {
		names[n] = kind->keys[n].name;
		n++;
	}
	names[n++] = action_key.name;
	if (om_str_copy(name, text, sizeof(text)) == OM_OK) {
		near = om_nearest(text, names, n);
	}
	return om_why_set(why, OM_ERR_INVALID, "%s has no setting \"%.*s\"%s%s%s", kind->name,
			  OM_STR_ARG(name), near != NULL ? ", did you mean \"" : "",
			  near != NULL ? near : "", near != NULL ? "\"?" : "");
}

static const struct om_pair *
pair_find(const struct om_pairs *pairs, const char *name)
{
	for (size_t i = 0; i < pairs->n; i++) {
		if (om_str_is(pairs->v[i].key, name)) {
			return &pairs->v[i];
		}
	}
	return NULL;
}

static enum om_err
read_absent(struct om_filter_rule *rule, struct om_why *why)
{
	const struct om_rule_kind *kind = rule->kind;

	for (size_t i = 0; i < kind->key_count; i++) {
		const struct om_rule_key *key = &kind->keys[i];

		if (pair_find(&rule->pairs, key->name) != NULL) {
			continue;
		}
		if (key->required) {
			return om_why_set(why, OM_ERR_INVALID, "%s needs the setting \"%s\"",
					  kind->name, key->name);
		}
		if (key->type == OM_KEY_NUMBER || key->type == OM_KEY_DURATION) {
			uint64_t *at = (void *)((char *)&rule->s + key->offset);

			*at = key->absent;
		}
	}
	return OM_OK;
}

static enum om_err
read_action(struct om_filter_rule *rule, struct om_why *why)
{
	static const struct {
		const char *text;
		enum om_rule_action action;
	} actions[] = {
		{ "reject", OM_RULE_REJECT },
		{ "hold", OM_RULE_HOLD },
		{ "low_priority", OM_RULE_LOW_PRIORITY },
	};

	if (rule->s.action_text.ptr == NULL) {
		return OM_OK;
	}
	for (size_t i = 0; i < OM_COUNT(actions); i++) {
		if (om_str_is(rule->s.action_text, actions[i].text)) {
			rule->action = actions[i].action;
			return OM_OK;
		}
	}
	return om_why_set(why, OM_ERR_INVALID, "action is reject, hold or low_priority");
}

static enum om_err
read_settings(struct om_filter_rule *rule, struct om_why *why)
{
	const struct om_pairs *pairs = &rule->pairs;
	enum om_err err;

	for (size_t i = 0; i < pairs->n; i++) {
		const struct om_rule_key *key = key_find(rule->kind, pairs->v[i].key);
		struct om_why inner = { "" };

		if (key == NULL) {
			return unknown_key(rule->kind, pairs->v[i].key, why);
		}
		if (pair_find(pairs, key->name) != &pairs->v[i]) {
			return om_why_set(why, OM_ERR_INVALID, "%s is given twice", key->name);
		}
		err = read_value(rule, key, om_str_trim(pairs->v[i].value), &inner);
		if (err != OM_OK) {
			return om_why_set(why, err, "%s %s", key->name, inner.text);
		}
	}
	err = read_absent(rule, why);
	if (err == OM_OK) {
		err = read_action(rule, why);
	}
	if (err == OM_OK && rule->kind->check != NULL) {
		err = rule->kind->check(&rule->s, why);
	}
	return err;
}

/* --- a rule ----------------------------------------------------------------------------------- */

static enum om_err
check_head(const struct om_rule *from, struct om_why *why)
{
	if (from->name.len == 0 || from->name.len > OM_FILTER_NAME_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "a rule's name has 1 to %d bytes",
				  OM_FILTER_NAME_MAX);
	}
	for (size_t i = 0; i < from->name.len; i++) {
		if ((unsigned char)from->name.ptr[i] < ' ' || from->name.ptr[i] == 0x7f) {
			return om_why_set(why, OM_ERR_INVALID,
					  "a rule's name has no control characters");
		}
	}
	if (from->priority > PRIORITY_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "priority goes from 0 to %d", PRIORITY_MAX);
	}
	if (from->settings.n > SETTINGS_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "a rule has at most %d settings",
				  SETTINGS_MAX);
	}
	return OM_OK;
}

static enum om_err
copy_pairs(struct om_filter_rule *rule, const struct om_pairs *from)
{
	struct om_pair *v;

	if (from->n == 0) {
		return OM_OK;
	}
	v = om_arena_alloc(&rule->arena, from->n * sizeof(*v));
	if (v == NULL) {
		return OM_ERR_NOMEM;
	}
	for (size_t i = 0; i < from->n; i++) {
		v[i].key.ptr = om_arena_str(&rule->arena, from->v[i].key);
		v[i].key.len = from->v[i].key.len;
		v[i].value.ptr = om_arena_str(&rule->arena, from->v[i].value);
		v[i].value.len = from->v[i].value.len;
		if (v[i].key.ptr == NULL || v[i].value.ptr == NULL) {
			return OM_ERR_NOMEM;
		}
	}
	rule->pairs = (struct om_pairs){ v, from->n };
	return OM_OK;
}

static struct om_filter_rule *
rule_make(const struct om_rule *from, const struct om_rule_kind *kind)
{
	struct om_filter_rule *rule = calloc(1, sizeof(*rule));

	if (rule == NULL) {
		return NULL;
	}
	rule->kind = kind;
	memcpy(rule->head.name, from->name.ptr, from->name.len);
	rule->head.priority = OM_HAS(from, rule, priority) ? from->priority : kind->priority;
	rule->head.enabled = OM_HAS(from, rule, enabled) ? from->enabled : true;
	om_name_set_init(&rule->s.allow);
	om_name_set_init(&rule->s.block);
	om_rule_counters_init(&rule->s.counters);
	return rule;
}

enum om_err
om_rule_new(const struct om_rule *from, struct om_filter_rule **out, struct om_why *why)
{
	const struct om_rule_kind *kind;
	struct om_filter_rule *rule = NULL;
	struct om_why inner = { "" };
	enum om_err err;

	err = check_head(from, why);
	if (err != OM_OK) {
		return err;
	}
	kind = om_rule_kind_find(from->kind, &inner);
	if (kind == NULL) {
		err = OM_ERR_INVALID;
		goto out;
	}
	rule = rule_make(from, kind);
	if (rule == NULL || copy_pairs(rule, &from->settings) != OM_OK) {
		err = om_why_set(&inner, OM_ERR_NOMEM, "out of memory");
		goto out;
	}
	err = read_settings(rule, &inner);
	if (err == OM_OK) {
		*out = rule;
		rule = NULL;
	}
out:
	if (err != OM_OK) {
		(void)om_why_set(why, err, "rule \"%.*s\": %s", OM_STR_ARG(from->name), inner.text);
	}
	om_rule_free(rule);
	return err;
}

void
om_rule_free(struct om_filter_rule *rule)
{
	if (rule == NULL) {
		return;
	}
	om_name_set_fini(&rule->s.allow);
	om_name_set_fini(&rule->s.block);
	om_rule_counters_free(&rule->s.counters);
	om_quiet_hours_fini(&rule->s.quiet);
	om_arena_fini(&rule->arena);
	free(rule);
}

bool
om_rule_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	hit->action = rule->action != OM_RULE_DEFAULT ? rule->action : rule->kind->action;
	hit->reason = "";
	hit->text[0] = '\0';
	return rule->kind->hits(rule, in, hit);
}

struct om_rule_head *
om_rule_head(struct om_filter_rule *rule)
{
	return &rule->head;
}

void
om_rule_tell(const struct om_filter_rule *rule, struct om_rule *out)
{
	*out = (struct om_rule){ .name = om_str_of(rule->head.name),
				 .kind = om_str_of(rule->kind->name) };
	OM_SET(out, rule, priority, rule->head.priority);
	OM_SET(out, rule, enabled, rule->head.enabled);
	OM_SET(out, rule, settings, rule->pairs);
	OM_SET(out, rule, hits, rule->head.hits);
}

/* Settings in another order are taken for others: then it counts anew. */
static bool
pairs_equal(const struct om_pairs *a, const struct om_pairs *b)
{
	bool equal = a->n == b->n;

	for (size_t i = 0; equal && i < a->n; i++) {
		equal =
		    om_str_eq(a->v[i].key, b->v[i].key) && om_str_eq(a->v[i].value, b->v[i].value);
	}
	return equal;
}

void
om_rule_inherit(struct om_filter_rule *rule, struct om_filter_rule *from)
{
	rule->head.hits = from->head.hits;
	if (rule->kind == from->kind && pairs_equal(&rule->pairs, &from->pairs)) {
		struct om_name_table counters = rule->s.counters;

		rule->s.counters = from->s.counters;
		from->s.counters = counters;
	}
}
