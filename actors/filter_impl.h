/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_FILTER_IMPL_H
#define OM_ACTORS_FILTER_IMPL_H

/* Shared by filter_rule.c (reads settings) and filter_kinds.c (asks the question of each kind). */
#include "actors/filter_kinds.h"

enum om_quiet_jobs { OM_QUIET_RUN, OM_QUIET_NO_STARTS, OM_QUIET_PAUSE };

#define OM_RULE_WORDS_MAX 64 /* keywords of one list */
#define OM_RULE_WORD_MAX  64 /* bytes of a keyword */

struct om_rule_words {
	size_t n;
	struct om_str v[OM_RULE_WORDS_MAX]; /* as written */
	struct om_str folded[OM_RULE_WORDS_MAX];
};

/* The settings of all kinds; zero, or for a number the key's `absent`, when not given. */
struct om_rule_settings {
	uint64_t max_cores, max_mem_mib, max_disk_mib, max_runtime_s; /* resources */
	bool gpu;
	struct om_rule_words require, forbid; /* activity */
	struct om_str match;
	bool substring;
	struct om_quiet_text quiet_text; /* quiet_hours */
	struct om_quiet_hours quiet;
	struct om_str jobs_text;
	enum om_quiet_jobs jobs;
	struct om_name_set allow, block; /* peers, networks */
	bool has_allow;
	uint64_t max, per_ms; /* rate, concurrency */
	struct om_name_table counters; /* rate */
	uint64_t runtime_ms; /* quota */
	struct om_str action_text; /* every kind */
};

enum om_rule_key_type {
	OM_KEY_NUMBER,
	OM_KEY_YES_NO,
	OM_KEY_DURATION, /* milliseconds */
	OM_KEY_TEXT,
	OM_KEY_WORDS,
	OM_KEY_NAMES,
};

struct om_rule_key {
	const char *name;
	enum om_rule_key_type type;
	size_t offset; /* in struct om_rule_settings */
	uint64_t min, max;
	bool required;
	uint64_t absent; /* value of a number or duration that is not given */
};

struct om_rule_kind {
	const char *name;
	uint64_t priority;
	enum om_rule_action action;
	const struct om_rule_key *keys;
	size_t key_count;
	/* Combinations of settings, and what is made of them; NULL: nothing to check. */
	enum om_err (*check)(struct om_rule_settings *s, struct om_why *why);
	bool (*hits)(struct om_filter_rule *rule, const struct om_rule_input *in,
		     struct om_rule_hit *hit);
};

struct om_filter_rule {
	struct om_rule_head head;
	const struct om_rule_kind *kind;
	enum om_rule_action action; /* OM_RULE_DEFAULT: the kind's */
	struct om_rule_settings s;
	struct om_arena arena; /* texts of the settings */
	struct om_pairs pairs; /* the settings as they came */
};

/* NULL: there is no such kind; why then names the nearest. */
const struct om_rule_kind *om_rule_kind_find(struct om_str name, struct om_why *why);
/* What the counting kinds gather. */
void om_rule_counters_init(struct om_name_table *counters);
void om_rule_counters_free(struct om_name_table *counters);

#endif /* OM_ACTORS_FILTER_IMPL_H */
