/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_LEDGER_H
#define OM_ACTORS_LEDGER_H

/*
 * The ledger: a detached service that owns the store.  All requests that wait are applied in one
 * transaction, committed, and then answered: an answer means durable.
 *
 *   - After a commit it sends job.event to the provider for each job that was added or moved, in
 *     order, and audit.appended to the activity_logger with the last audit entry of the group.
 *   - When the disk refuses, every write of the group is answered OM_ERR_DISK with the reason; the
 *     ledger stays up, goes on answering questions, and serves again when there is room.
 *   - At start, jobs that a crash left provisioning or running become lost, and are queued again
 *     where the job asks for it.
 *   - A job's private keys are in the store in a sealed box alone, and leave it when the job will not
 *     run again (ledger_keys.c).
 *   - job.get, job.list and job.output come from peers: a requester sees its own jobs alone.
 */
#include "msg/bus.h"
#include "store/store.h"

#define OM_LEDGER_SEAL_LEN    32
#define OM_LEDGER_RAN_PAGE    20000 /* requesters in one ledger.ran_table: the schema's limit */
#define OM_LEDGER_REQUEUE_MAX 3 /* crashes that one job is queued again after; then it is dead */

/* Start arg; borrowed for the life of the system. */
struct om_ledger_conf {
	const char *path; /* of the database; its folder must exist */
	uint64_t wal_bytes, log_bytes; /* 0: default (store/sqlite.h) */
	uint32_t cache_kib; /* 0: default */
	uint64_t keep_ms; /* finished jobs older than this are removed; 0: kept */
	uint64_t keep_bytes; /* the oldest finished jobs are removed above this; 0: no limit */
	uint64_t audit_keep_ms; /* audit entries older than this are removed; 0: kept */
	const uint8_t
	    *seal_key; /* OM_LEDGER_SEAL_LEN bytes; NULL: one for this life of the ledger */
	const char *vfs; /* NULL; tests pass a disk that fails */
	struct om_wall (*wall)(void); /* NULL: om_wall_now */
};

extern const struct om_service_def om_ledger_service;

#endif /* OM_ACTORS_LEDGER_H */
