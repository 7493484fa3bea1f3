/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_FILTER_MANAGER_IMPL_H
#define OM_ACTORS_FILTER_MANAGER_IMPL_H

/*
 * Shared by filter_manager.c (decides, tells), filter_change.c (the operator's changes), filter_base.c
 * (what the files give, and what was changed on top of it) and filter_quiet.c.
 */
#include <sys/queue.h>

#include "actors/filter_manager.h"
#include "actors/filter_rules.h"
#include "base/assert.h"

#define FILTER_MAGIC       0x666c7472u
#define LEDGER_TIMEOUT_MS  30000
#define KIND_REMOVED       "removed"
#define LIST_TRUSTED       "trusted"
#define LIST_TRUSTED_PEERS "trusted_peers"
#define LIST_BLOCKED       "blocked"
#define LIST_RULES         "rules"

enum { FILTER_TIMER_LOAD, FILTER_TIMER_QUIET };

enum filter_list { FILTER_TRUSTED, FILTER_TRUSTED_PEERS, FILTER_BLOCKED, FILTER_LISTS };

/* The lists first, in their order. */
enum load_step { LOAD_RULES = FILTER_LISTS, LOADED };

/* What was changed live in a list; no name is in both. */
struct filter_live_list {
	struct om_name_set added, removed;
};

/* A rule as it was put live. */
struct filter_live_rule {
	LIST_ENTRY(filter_live_rule) link;
	struct om_arena arena; /* holds the strings of rule */
	struct om_rule rule; /* kind KIND_REMOVED: the files' rule is taken away */
};

/* A change on its way to the ledger. */
struct change {
	LIST_ENTRY(change) link;
	struct om_bus_request rq;
	enum om_msg_type what;
	bool as_base; /* no difference is stored any more */
	struct filter_live_rule *rule; /* for lists: the name alone */
};

struct filter_base; /* what the files give */

struct filter_manager {
	uint32_t magic;
	const struct om_filter_manager_conf *conf;
	struct om_wall (*wall)(void);
	struct om_filter *filter;
	struct om_arena arena; /* of many decisions */
	int load; /* enum load_step */
	struct filter_base *base;
	struct filter_live_list live[FILTER_LISTS];
	LIST_HEAD(, filter_live_rule) live_rules;
	LIST_HEAD(, change) changes;
	struct om_bus_request ping, quiet_asker; /* answered when loaded */
	struct om_filter_quiet quiet; /* as the queue knows it */
	uint64_t quiet_timer;
};

static inline struct filter_manager *
fm_of(void *state)
{
	struct filter_manager *fm = state;

	OM_ASSERT(fm->magic == FILTER_MAGIC);
	return fm;
}

enum om_err filter_not_loaded(struct om_service *sv, const struct om_in *in);
/* trust and untrust, of a network or a peer; block and unblock */
enum om_err filter_on_trust_peer(struct om_service *sv, void *state, const struct om_in *in);
enum om_err filter_on_trust(struct om_service *sv, void *state, const struct om_in *in);
enum om_err filter_on_block(struct om_service *sv, void *state, const struct om_in *in);
/* add and change; remove, enable and disable */
enum om_err filter_on_rule(struct om_service *sv, void *state, const struct om_in *in);
enum om_err filter_on_rule_ref(struct om_service *sv, void *state, const struct om_in *in);

/* --- filter_base.c ---------------------------------------------------------------------------- */

/* conf's strings and rules are borrowed; an encoded filter.base is copied.  NOMEM; INVALID with why. */
enum om_err filter_base_of_conf(const struct om_filter_manager_conf *conf,
				struct filter_base **out) OM_MUST_CHECK;
enum om_err filter_base_of_message(struct om_bin encoded, struct filter_base **out,
				   struct om_why *why) OM_MUST_CHECK;
void filter_base_free(struct filter_base *base);
bool filter_base_has(const struct filter_base *base, enum filter_list which, struct om_str name);
/* NULL: the files have no such rule. */
const struct om_rule *filter_base_rule(const struct filter_base *base, struct om_str name);

/* Puts a live change over the base, or takes it away, and in force. */
enum filter_lay { FILTER_AS_BASE, FILTER_ADDED, FILTER_REMOVED };
void filter_lay_name(struct filter_manager *fm, enum filter_list which, struct om_str name,
		     enum filter_lay how);
/* The same of a rule: takes *livep; NULL: it is as the base has it.  FULL, INVALID, NOMEM: nothing has
 * changed, the caller keeps it. */
enum om_err filter_lay_rule(struct filter_manager *fm, struct om_str name,
			    struct filter_live_rule **livep, struct om_why *why) OM_MUST_CHECK;
enum om_err filter_live_rule_new(const struct om_rule *from,
				 struct filter_live_rule **out) OM_MUST_CHECK;
void filter_live_rule_free(struct filter_live_rule *live);
/* NULL: the rule was not changed live. */
struct filter_live_rule *filter_live_rule_find(const struct filter_manager *fm, struct om_str name);
void filter_live_fini(struct filter_manager *fm);

/* Fills an empty filter with base and what is laid over it.  FULL, INVALID, NOMEM: throw it away. */
enum om_err filter_build(const struct filter_manager *fm, const struct filter_base *base,
			 struct om_filter *into, struct om_why *why) OM_MUST_CHECK;
bool filter_rule_equal(const struct om_rule *a, const struct om_rule *b);
enum om_err filter_on_base(struct om_service *sv, void *state, const struct om_in *in);

/* filter_quiet.c: looks at the clock and tells the queue what has changed; after every change of rules. */
void filter_quiet_look(struct om_service *sv, struct filter_manager *fm);
enum om_err filter_on_quiet(struct om_service *sv, void *state, const struct om_in *in);
void filter_quiet_loaded(struct om_service *sv,
			 struct filter_manager *fm); /* answers who asked before */
/* filter_tell.c */
enum om_err filter_on_list(struct om_service *sv, void *state, const struct om_in *in);
enum om_err filter_on_rules(struct om_service *sv, void *state, const struct om_in *in);
/* The service stops. */
void filter_changes_fini(struct om_service *sv, struct filter_manager *fm);

#endif /* OM_ACTORS_FILTER_MANAGER_IMPL_H */
