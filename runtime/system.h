/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_SYSTEM_H
#define OM_RUNTIME_SYSTEM_H

/*
 * A system of actors: workers, timers, fds, names.  Several may live in one process.
 *
 * Example:
 *	static enum om_err
 *	run_until_it_ends(const struct om_actor_def *def)
 *	{
 *		struct om_system_conf conf = { .workers = 2 };
 *		struct om_system *sys;
 *		struct om_actor_id id;
 *		char left[256] = "";
 *		enum om_err err = om_system_new(&conf, &sys);
 *
 *		if (err != OM_OK) {
 *			return err;
 *		}
 *		err = om_system_spawn(sys, def, NULL, &id);
 *		if (err == OM_OK) {
 *			err = om_system_wait(sys, id, 60000);
 *		}
 *		if (om_system_stop(sys, 5000, left, sizeof(left)) != 0 && err == OM_OK) {
 *			err = OM_ERR_TIMEOUT; // `left` names the actors that had to be killed
 *		}
 *		om_system_free(sys);
 *		return err;
 *	}
 */
#include "runtime/actor.h"

struct om_system_conf {
	unsigned workers; /* 0: one per core of the affinity mask */
	unsigned offload_threads; /* at most this many blocking works at once in each pool; 0: 4 */
	uint32_t actor_max; /* live actors; 0: 16,777,216 */
	uint32_t spin_us; /* idle worker spins this long before it parks; 0: 50; */
	bool sim; /* one thread, a PRNG and a fake clock decide everything */
	uint64_t seed; /* sim mode */
};

enum om_err om_system_new(const struct om_system_conf *conf, struct om_system **out) OM_MUST_CHECK;

/*
 * Any foreign thread, once.  Stops every actor in reverse order of start (supervisors see to
 * their children), within deadline_ms, then kills what is left.  Gives the number that had to be
 * killed and their names, comma-separated, in `left` (may be NULL).
 */
size_t om_system_stop(struct om_system *sys, uint64_t deadline_ms, char *left, size_t left_size);
/* After om_system_stop.  NULL is fine. */
void om_system_free(struct om_system *sys);

enum om_err om_system_spawn(struct om_system *sys, const struct om_actor_def *def, const void *arg,
			    struct om_actor_id *out) OM_MUST_CHECK;
/* Takes *msgp.  From a thread that the runtime did not make. */
enum om_err om_system_send(struct om_system *sys, struct om_actor_id to,
			   struct om_msg **msgp) OM_MUST_CHECK;
/*
 * Takes *msgp; blocks the calling thread, which is a foreign one or that of a detached actor.  On
 * OM_OK gives *reply, to be om_msg_free'd.  OM_ERR_LIMIT: 256 threads wait for an answer already.
 */
enum om_err om_system_ask(struct om_system *sys, struct om_actor_id to, struct om_msg **msgp,
			  uint64_t timeout_ms, struct om_msg **reply) OM_MUST_CHECK;
void om_system_stop_actor(struct om_system *sys, struct om_actor_id who);
/* Blocks (see om_system_ask) until the actor has ended: OM_OK, or OM_ERR_TIMEOUT. */
enum om_err om_system_wait(struct om_system *sys, struct om_actor_id who,
			   uint64_t timeout_ms) OM_MUST_CHECK;

/* --- sim mode: the test drives ---------------------------------------------------------------- */

/* Runs one step (one message, timer or completion, picked by the seed).  false: nothing to do. */
bool om_sim_step(struct om_system *sys);
/* Steps until nothing is runnable; does not move the clock.  Gives the steps taken. */
size_t om_sim_run(struct om_system *sys);
/* Moves the fake clock, firing timers on the way, and runs what they wake. */
void om_sim_advance(struct om_system *sys, uint64_t ms);

/* --- what can be seen from outside (runtime/stats.h has the per-actor part) -------------------- */

struct om_system_stats {
	uint64_t actors_live, actors_spawned, actors_failed, actors_restarted;
	uint64_t sent, handled, queued;
	uint64_t dropped_full, dropped_stale, dropped_stop, dropped_unknown;
	uint64_t asks, asks_timed_out, asks_gone;
	uint64_t parks, wakes, handovers;
	uint64_t slow_handlers;
	uint64_t errors; /* that handlers returned */
};
void om_system_stats(struct om_system *sys, struct om_system_stats *out);

#endif /* OM_RUNTIME_SYSTEM_H */
