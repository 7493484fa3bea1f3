/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_JOB_STATE_H
#define OM_STORE_JOB_STATE_H

/*
 * The states of a job and the moves between them.  Plain: no store behind it, everyone may use it.
 *
 *   received -> rejected | pending_approval | queued
 *   pending_approval -> queued | denied | expired | cancelled
 *   queued -> provisioning | cancelled | failed | rejected
 *   provisioning -> running | failed | cancelled | timed_out | rogue_killed | lost | queued
 *   running -> completed | failed | timed_out | cancelled | rogue_killed | lost
 *   failed | timed_out | lost -> queued (another attempt) | dead (no attempt left)
 *   dead -> queued (retried by hand)
 *
 * Beyond the basic picture: a queued job fails when a job that it waits for failed, and is rejected
 * when a reload leaves it too big for this provider; a guest that sends before the script runs is
 * killed like any other; a provider without room puts a job back.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

/*      NAME                 text in the ledger and on the wire; never reused */
#define OM_JOB_STATE_TABLE(X)                  \
	X(OM_JOB_RECEIVED, "received")         \
	X(OM_JOB_REJECTED, "rejected")         \
	X(OM_JOB_PENDING, "pending_approval")  \
	X(OM_JOB_QUEUED, "queued")             \
	X(OM_JOB_PROVISIONING, "provisioning") \
	X(OM_JOB_RUNNING, "running")           \
	X(OM_JOB_COMPLETED, "completed")       \
	X(OM_JOB_FAILED, "failed")             \
	X(OM_JOB_TIMED_OUT, "timed_out")       \
	X(OM_JOB_CANCELLED, "cancelled")       \
	X(OM_JOB_ROGUE_KILLED, "rogue_killed") \
	X(OM_JOB_DENIED, "denied")             \
	X(OM_JOB_EXPIRED, "expired")           \
	X(OM_JOB_LOST, "lost")                 \
	X(OM_JOB_DEAD, "dead")

enum om_job_state {
#define OM_JOB_STATE_ENUM(name, text) name,
	OM_JOB_STATE_TABLE(OM_JOB_STATE_ENUM)
#undef OM_JOB_STATE_ENUM
	    OM_JOB_STATES
};

/* A set of states. */
#define OM_JOB_BIT(state) (UINT32_C(1) << (state))
/* Still to be decided, waiting or on the way: these are what a restart has to pick up. */
#define OM_JOB_LIVE                                                                             \
	(OM_JOB_BIT(OM_JOB_RECEIVED) | OM_JOB_BIT(OM_JOB_PENDING) | OM_JOB_BIT(OM_JOB_QUEUED) | \
	 OM_JOB_BIT(OM_JOB_PROVISIONING) | OM_JOB_BIT(OM_JOB_RUNNING))
#define OM_JOB_ALL ((UINT32_C(1) << OM_JOB_STATES) - 1)

/* All: any thread. */

/* "queued"; "?" when out of range. */
const char *om_job_state_text(enum om_job_state state);
enum om_err om_job_state_parse(const char *text, size_t len, enum om_job_state *out) OM_MUST_CHECK;
/* The table above.  Staying in a state is no move. */
bool om_job_may_become(enum om_job_state from, enum om_job_state to);
/* Over, unless someone asks for another attempt. */
bool om_job_is_final(enum om_job_state state);
/* Counts as a success (completed), as a failure (failed, timed_out, rogue_killed, lost, dead). */
bool om_job_is_success(enum om_job_state state);
bool om_job_is_failure(enum om_job_state state);

#endif /* OM_STORE_JOB_STATE_H */
