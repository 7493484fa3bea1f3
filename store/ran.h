/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_RAN_H
#define OM_STORE_RAN_H

/* What the store knows of run times by requester: it outlives the rows of the jobs. */
#include "store/store.h"

struct om_store_ran {
	char requester[OM_PEER_ID_MAX + 1];
	uint64_t ms;
};

/*
 * How long the jobs of each requester ran, all attempts that ended since then (to the quarter of an hour) and
 * were measured.  In order of the requester, those behind `after` (absent: all); *count < cap: the last.
 */
static inline OM_MUST_CHECK enum om_err
om_store_ran_since(struct om_store *st, struct om_wall since, struct om_str after,
		   struct om_store_ran *out, size_t cap, size_t *count)
{
	return st->ops->ran_since(st, since, after, out, cap, count);
}

#endif /* OM_STORE_RAN_H */
