/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_ID_FILTER_H
#define OM_STORE_ID_FILTER_H

/*
 * "Certainly not there, or perhaps": a Bloom filter of ids (Bloom, Space/time trade-offs in hash coding,
 * 1970), with all bits of an id in one cache line (Putze, Sanders and Singler, Cache-, hash- and
 * space-efficient Bloom filters, 2007).  2 MiB: with 1,000,000 ids it is wrong once in 400 times, with
 * 4,000,000 once in 7; with many more it says perhaps.  Owner thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct om_id_filter;

struct om_id_filter *om_id_filter_new(void); /* NULL: no memory */
void om_id_filter_free(struct om_id_filter *filter); /* NULL is fine */
/* What stands for an id below.  Called early, the line is in the cache when it is needed. */
uint64_t om_id_filter_hash(const struct om_id_filter *filter, const char *id);
void om_id_filter_add(struct om_id_filter *filter, uint64_t hash);
/* false: it was never added. */
bool om_id_filter_may_have(const struct om_id_filter *filter, uint64_t hash);
/* From now on it says perhaps to every id. */
void om_id_filter_add_all(struct om_id_filter *filter);
void om_id_filter_clear(struct om_id_filter *filter);

#endif /* OM_STORE_ID_FILTER_H */
