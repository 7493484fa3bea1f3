/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_FILTER_KINDS_H
#define OM_ACTORS_FILTER_KINDS_H

/*
 * One rule: its settings as data (kind and a map of texts, the same from the configuration file and
 * from live messages), and the question whether a request hits it.  Used by filter_rules.c only.
 *
 *   kind         settings (with their defaults)                                  default action
 *   resources    max_cores max_mem_mib max_disk_mib max_runtime_s, gpu = no      reject
 *   activity     require, forbid (lists), match = word | substring               forbid: reject,
 *                                                                                 require: hold
 *   quiet_hours  start end days = all zone = local jobs = run                    hold
 *   peers        allow, block (lists)                                            reject
 *   networks     allow, block (lists)                                            reject
 *   rate         max, per = 1h                                                   reject
 *   concurrency  max                                                             reject
 *   quota        runtime                                                         reject
 *
 * Every kind also takes action = reject | hold | low_priority.
 */
#include "actors/filter_rules.h"
#include "actors/filter_text.h"
#include "actors/quiet_hours.h"

#define OM_RULE_TEXT_MAX 256 /* names and keywords in it are at most 64 bytes */

struct om_filter_rule; /* opaque */

enum om_rule_action { OM_RULE_DEFAULT, OM_RULE_REJECT, OM_RULE_HOLD, OM_RULE_LOW_PRIORITY };

/* What a rule may look at. */
struct om_rule_input {
	const struct om_filter_request *rq;
	struct om_wall now;
	struct om_str activity; /* folded; absent when none was given */
	struct om_text_pairs pairs; /* of activity */
	uint32_t peer_hash, network_hash;
	bool dry; /* a test: count nothing */
};

struct om_rule_hit {
	enum om_rule_action action; /* never OM_RULE_DEFAULT */
	const char *reason; /* code, static */
	char text[OM_RULE_TEXT_MAX];
};

/* Gives an owned rule.  INVALID with why, NOMEM. */
enum om_err om_rule_new(const struct om_rule *from, struct om_filter_rule **out,
			struct om_why *why) OM_MUST_CHECK;
void om_rule_free(struct om_filter_rule *rule);

/* On a hit fills *hit. */
bool om_rule_hits(struct om_filter_rule *rule, const struct om_rule_input *in,
		  struct om_rule_hit *hit);

/* Adds what an enabled rule asks for now to *out; rules that are no quiet hours ask for nothing. */
void om_rule_quiet(struct om_filter_rule *rule, struct om_wall now, struct om_filter_quiet *out);

/* What all rules have; name is NUL-terminated. */
struct om_rule_head {
	char name[OM_FILTER_NAME_MAX + 1];
	uint64_t priority;
	bool enabled;
	uint64_t hits;
};
struct om_rule_head *om_rule_head(struct om_filter_rule *rule);
/* Takes over the hits of the rule that it replaces, and its counters when they ask the same. */
void om_rule_inherit(struct om_filter_rule *rule, struct om_filter_rule *from);
/* As the schema's struct, views into the rule. */
void om_rule_tell(const struct om_filter_rule *rule, struct om_rule *out);

#endif /* OM_ACTORS_FILTER_KINDS_H */
