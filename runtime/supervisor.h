/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_SUPERVISOR_H
#define OM_RUNTIME_SUPERVISOR_H

/*
 * Supervision as in OTP (https://www.erlang.org/doc/design_principles/sup_princ).  A supervisor is
 * an actor.  Children start in order and stop in reverse.  A restarted child keeps its handle and
 * its mailbox, with what was rung and sent urgently meanwhile; the message that failed is not
 * delivered again.  A child that somebody else kills has failed (a new actor takes its place); one
 * that somebody else stops has ended in order.
 *
 * Example:
 *	extern const struct om_actor_def store_def, cache_def;
 *
 *	static const struct om_child_spec children[] = {
 *		{ .def = &store_def, .name = "store", .restart = OM_RESTART_ALWAYS },
 *		{ .def = &cache_def, .name = "cache", .restart = OM_RESTART_ON_FAILURE },
 *	};
 *	static const struct om_supervisor_spec spec = {
 *		.name = "top",
 *		.strategy = OM_REST_FOR_ONE, // a new store needs a new cache
 *		.max_restarts = 5,
 *		.window_ms = 60000,
 *		.backoff_min_ms = 10,
 *		.backoff_max_ms = 5000,
 *		.children = children,
 *		.child_count = OM_COUNT(children),
 *	};
 *
 *	static enum om_err
 *	start_all(struct om_system *sys, struct om_actor_id *top)
 *	{
 *		return om_supervisor_start(sys, &spec, top);
 *	}
 */
#include "runtime/actor.h"

enum om_strategy {
	OM_ONE_FOR_ONE,
	OM_ONE_FOR_ALL,
	OM_REST_FOR_ONE,
};

struct om_child_spec {
	const struct om_actor_def *def;
	const void *arg; /* borrowed for the supervisor's life */
	const char *name; /* registered under this name; NULL: none */
	enum om_restart restart;
	uint32_t stop_timeout_ms; /* then it is killed; 0: 5,000, for a supervisor no limit */
};

struct om_supervisor_spec {
	const char *name;
	enum om_strategy strategy;
	uint32_t max_restarts; /* more than this in window_ms: the supervisor itself fails */
	uint32_t window_ms;
	uint32_t backoff_min_ms; /* first restart waits 0, then doubles from here with jitter */
	uint32_t backoff_max_ms;
	const struct om_child_spec *children; /* borrowed for the supervisor's life */
	size_t child_count;
};

/*
 * Starts the supervisor and, in order, its children; blocks (see om_system_ask).  An error: none of
 * them is left running.
 */
enum om_err om_supervisor_start(struct om_system *sys, const struct om_supervisor_spec *spec,
				struct om_actor_id *out) OM_MUST_CHECK;
/* The same below an actor (a supervisor of supervisors passes om_supervisor_def as a child def,
 * with the spec as its arg). */
extern const struct om_actor_def om_supervisor_def;

#endif /* OM_RUNTIME_SUPERVISOR_H */
