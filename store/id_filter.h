/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_ID_FILTER_H
#define OM_STORE_ID_FILTER_H

/*
 * "Certainly not there, or perhaps": a Bloom filter of ids (Bloom, Space/time trade-offs in hash coding,
 * 1970; two hashes for all its bits: Kirsch and Mitzenmacher, Less hashing, same performance, 2006).
 * 2 MiB: with 1,000,000 ids it is wrong once in 400 times, with 4,000,000 once in 7; with many more it
 * says perhaps.  Owner thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct om_id_filter;

struct om_id_filter *om_id_filter_new(void); /* NULL: no memory */
void om_id_filter_free(struct om_id_filter *filter); /* NULL is fine */
void om_id_filter_add(struct om_id_filter *filter, const char *id);
/* false: it was never added. */
bool om_id_filter_may_have(const struct om_id_filter *filter, const char *id);
/* From now on it says perhaps to every id. */
void om_id_filter_add_all(struct om_id_filter *filter);
void om_id_filter_clear(struct om_id_filter *filter);

#endif /* OM_STORE_ID_FILTER_H */
