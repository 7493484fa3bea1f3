/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_PROVIDER_H
#define OM_ACTORS_PROVIDER_H

/*
 * The provider coordinates: one job id everywhere, a decision from the filter, a durable row before
 * anything is acknowledged, then the queue.  It answers job.submit, wait, cancel, approve, deny,
 * hold and release; it lets held jobs expire; at start it recovers what the ledger has.
 *
 * For the control service:
 *   - `ping` is answered when recovery has finished: ask it before the daemon says that it is
 *     ready.
 *   - `daemon.stop` starts the drain: submissions are refused with shutting_down, no job is
 *     started, and the answer comes when none runs any more.  With `now`, or after timeout_ms,
 *     running jobs are cancelled; the answer is `timeout` when that takes more than OM_EXEC_END_MS
 *     (all in all at most timeout_ms + OM_EXEC_STOP_MORE_MS).  Queued and held jobs stay in the
 *     ledger.  A second stop takes the place of the first, which is answered `cancelled`.
 *   - every job.event is passed on to `control`, which publishes it.
 */
#include "base/clock.h"
#include "msg/bus.h"
#include "net/jobnet.h"

#define OM_PROVIDER_HOLD_EXPIRY_MS (UINT64_C(24) * 3600 * 1000)
#define OM_PROVIDER_JOBS_MAX       UINT64_C(1000000)

/* What a running daemon may change; as in the conf. */
struct om_provider_limits {
	uint64_t hold_expiry_ms, jobs_max, peer_jobs_max;
};

/* What outlives a restart of the actor, which alone uses it.  Zeroed: nothing was changed. */
struct om_provider_live {
	bool changed; /* by config.policy */
	struct om_provider_limits limits;
};

/* Start arg; borrowed for the life of the system. */
struct om_provider_conf {
	const char *owner_peer; /* peer id for the operator's own jobs; NULL or "": the caller's */
	bool tunnel_offered; /* else a job that asks for a tunnel is refused */
	struct om_jobnet_env *net; /* whose policy an endpoint must pass; NULL: none is asked */
	bool gpu_offered; /* else a job that needs one is refused */
	uint64_t hold_expiry_ms; /* a held job expires after this; 0: OM_PROVIDER_HOLD_EXPIRY_MS */
	uint64_t jobs_max; /* unfinished jobs in all; 0: OM_PROVIDER_JOBS_MAX */
	uint64_t peer_jobs_max; /* unfinished jobs of one requester (not the owner); 0: no limit */
	uint64_t output_max; /* bytes of output that a job may ask for; 0: no limit */
	uint64_t cores_total; /* what the queue lends: a larger job is refused; 0: no limit */
	uint64_t mem_mib_total; /* the same for memory */
	struct om_provider_live *live; /* NULL: a restart of the actor undoes config.policy */
	struct om_wall (*wall)(void); /* NULL: om_wall_now; tests inject theirs */
};

extern const struct om_service_def om_provider_service;

#endif /* OM_ACTORS_PROVIDER_H */
