/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_FILTER_MANAGER_H
#define OM_ACTORS_FILTER_MANAGER_H

/*
 * The filter manager: decides what happens to a job, and keeps the operator's lists and rules.  The
 * policy is in filter_rules.h, for people in docs/filter.md.
 *
 * What the configuration gives is the base, and a reload exchanges it (filter.base); live changes
 * (config.trust, rules.add, ...) are written to the ledger first, take effect when durable, and are
 * laid over the base, then and at the next start.
 * Until the ledger's lists have been read, decisions are refused (wrong_state): it fails closed.
 */
#include "base/clock.h"
#include "msg/bus.h"

/* What outlives a restart of the actor, which alone uses it.  Zeroed: nothing was changed. */
struct om_filter_live {
	char default_action[65]; /* from config.policy */
	struct om_buf base; /* the last filter.base, encoded; empty: the base is conf's */
};

void om_filter_live_fini(struct om_filter_live *live);

/* Start arg; borrowed for the life of the system. */
struct om_filter_manager_conf {
	const char *owner_peer; /* NULL or "": none */
	const char
	    *default_action; /* see om_filter_action_parse; NULL: accept_trusted_hold_others */
	const char *const *trusted; /* networks */
	size_t trusted_count;
	const char *const *trusted_peers;
	size_t trusted_peer_count;
	const char *const *blocked; /* peers */
	size_t blocked_count;
	const struct om_rule *rules; /* a rule that does not parse ends the start with a log line */
	size_t rule_count;
	struct om_filter_live *live; /* NULL: a restart of the actor undoes what control told */
	struct om_wall (*wall)(void); /* NULL: om_wall_now; tests inject theirs */
};

extern const struct om_service_def om_filter_manager_service;

#endif /* OM_ACTORS_FILTER_MANAGER_H */
