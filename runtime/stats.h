/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_STATS_H
#define OM_RUNTIME_STATS_H

/*
 * What can be seen of single actors from outside, without stopping them.  Any thread.  A picture
 * of a running system is not one moment; numbers of a quiet system are exact.
 *
 * Example:
 *	#include <stdio.h>
 *
 *	static void
 *	show(const struct om_actor_stats *stats, void *arg)
 *	{
 *		FILE *out = arg;
 *
 *		fprintf(out, "%s: %u of %u waiting, %lu handled, p99 %lu ns\n", stats->name,
 *			stats->depth, stats->limit, (unsigned long)stats->handled,
 *			(unsigned long)om_hist_quantile(&stats->hist, 0.99));
 *	}
 *
 *	static void
 *	show_all(struct om_system *sys)
 *	{
 *		om_system_actors(sys, show, stdout);
 *	}
 */
#include "runtime/actor.h"

enum om_drop {
	OM_DROP_FULL, /* overload policy */
	OM_DROP_STALE, /* the receiver had ended */
	OM_DROP_STOP, /* in the mailbox of an actor that was killed or stopped */
	OM_DROP_UNKNOWN, /* no handler; a reply that nobody waits for */
	OM_DROP_COUNT
};

#define OM_HIST_BUCKETS 32
/* Handler times, sampled: bucket i counts messages of [2^i, 2^(i+1)) ns. */
struct om_hist {
	uint64_t count[OM_HIST_BUCKETS];
};

#define OM_STATS_NAME 48
struct om_actor_stats {
	struct om_actor_id id;
	char name[OM_STATS_NAME]; /* registered name, else the definition's */
	uint32_t depth; /* user lane */
	uint32_t sys_depth;
	uint32_t high_water; /* of the user lane, as the actor saw it */
	uint32_t limit;
	uint64_t handled;
	uint64_t dropped;
	uint64_t restarts;
	struct om_hist hist; /* zero for an actor that has handled little */
};

typedef void (*om_actor_visit_fn)(const struct om_actor_stats *stats, void *arg);
/* Calls visit for each live actor. */
void om_system_actors(struct om_system *sys, om_actor_visit_fn visit, void *arg);
/* OM_ERR_STALE */
enum om_err om_actor_stats(struct om_system *sys, struct om_actor_id who,
			   struct om_actor_stats *out) OM_MUST_CHECK;
/* The upper edge in ns of the bucket in which quantile q (0..1) lies; 0: no samples. */
uint64_t om_hist_quantile(const struct om_hist *hist, double q);

/* --- dead letters: members of this group get one OM_SYS_DEAD_LETTER for each dropped message ------ */

#define OM_GROUP_DEAD_LETTERS "om.dead_letters"
struct om_dead_letter {
	struct om_actor_id to;
	struct om_actor_id from;
	uint32_t type;
	uint32_t size;
	enum om_drop why;
};

/* --- slow handlers ------------------------------------------------------------------------------- */

/* Members of this group get one OM_SYS_SLOW for each report. */
#define OM_GROUP_SLOW "om.slow"
struct om_slow_report {
	struct om_actor_id who;
	uint64_t us; /* at least */
};

/* --- tracing --------------------------------------------------------------------------------------- */

/*
 * Traces one actor (all that it handles, sends and spawns), and what follows from its messages: their
 * way goes on past answers, time-outs, timers and works.  From the actor's next turn on.  When it is
 * turned off or the actor ends, all ways that have begun are over.  STALE, NOMEM.
 */
enum om_err om_trace_actor(struct om_system *sys, struct om_actor_id who, bool on) OM_MUST_CHECK;
/* Marks a message before it is sent: its way, and that of all messages sent while handling it. */
void om_trace_message(struct om_system *sys, struct om_msg *msg);
/*
 * Writes the ring, oldest first, as text lines; an actor is `slot.generation`, the slot being the low
 * OM_TRACE_SLOT_BITS of its handle.  Async-signal-safe: usable from a crash hook.
 */
#define OM_TRACE_SLOT_BITS 24
void om_trace_dump(struct om_system *sys, int fd);

#endif /* OM_RUNTIME_STATS_H */
