/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_FILTER_MANAGER_IMPL_H
#define OM_ACTORS_FILTER_MANAGER_IMPL_H

/* Shared by filter_manager.c (decides, tells) and filter_change.c (the operator's changes). */
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

enum load_step { LOAD_TRUSTED, LOAD_TRUSTED_PEERS, LOAD_BLOCKED, LOAD_RULES, LOADED };

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
	struct om_name_set base_trusted, base_trusted_peers,
	    base_blocked; /* the configuration's own */
	struct om_name_set base_rules;
	LIST_HEAD(, change) changes;
	struct om_bus_request ping, quiet_asker; /* answered when loaded */
	struct om_filter_quiet quiet; /* as the queue was told */
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
/* filter_quiet.c: looks at the clock and tells the queue what has changed; after every change of rules. */
void filter_quiet_look(struct om_service *sv, struct filter_manager *fm);
enum om_err filter_on_quiet(struct om_service *sv, void *state, const struct om_in *in);
void filter_quiet_loaded(struct om_service *sv,
			 struct filter_manager *fm); /* answers who asked before */
/* The service stops. */
void filter_changes_fini(struct om_service *sv, struct filter_manager *fm);

#endif /* OM_ACTORS_FILTER_MANAGER_IMPL_H */
