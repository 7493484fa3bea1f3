/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_AUDIT_H
#define OM_STORE_AUDIT_H

/* The audit's rows, and what is asked of them.  store/store.h reads and writes them. */
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "store/limits.h"

/* What happened, by whom, in words.  The event is a stable name ("accepted"). */
struct om_audit_note {
	struct om_str event;
	struct om_str actor; /* peer, "uid:0" or the part of the daemon that decided */
	struct om_str details;
};

/* One stored row.  hash = SHA-256 over the previous row's hash and this row (audit_chain.h). */
struct om_audit_row {
	uint64_t seq; /* from 1, no gaps */
	struct om_wall at;
	struct om_str event, actor;
	struct om_str job, requester, network, activity; /* absent when it is not about a job */
	struct om_str details;
	uint8_t hash[OM_HASH_LEN];
};

/* A place in the chain.  Kept elsewhere (paper, another machine) it proves that nothing up to here
 * was changed since, not even by someone who can rewrite the whole file. */
struct om_audit_mark {
	uint64_t seq; /* 0: before the first row */
	uint8_t hash[OM_HASH_LEN];
};

struct om_audit_filter {
	uint64_t after_seq; /* rows after this one; the cursor */
	struct om_wall since; /* 0: all */
	struct om_str job; /* absent: all */
	uint32_t looks; /* rows that one call looks at; 0: OM_STORE_SCAN_MAX */
};

/* Views are valid during the call.  false: enough. */
typedef bool (*om_audit_fn)(void *arg, const struct om_audit_row *row);

/* Verification in steps, so that a long chain does not hold up the owner.  Start from zero. */
struct om_audit_check {
	struct om_audit_mark known; /* in: a mark kept elsewhere; seq 0: none */
	struct om_audit_mark at; /* verified up to here */
	uint64_t rows; /* rows looked at */
	struct om_wall first, last; /* times of the first and last row */
	bool started, done;
	bool broken;
	uint64_t bad_seq; /* broken: the first row that is wrong */
	char text[OM_WHY_MAX]; /* broken: changed, removed, reordered, cut off at the end */
};

#endif /* OM_STORE_AUDIT_H */
