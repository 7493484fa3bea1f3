/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_SLOTMAP_H
#define OM_RUNTIME_SLOTMAP_H

/*
 * A table of pointers with checked handles: the key of a deleted entry is never that of another.
 * Zeroed memory is an empty table.  One thread at a time.
 */
#include <stdint.h>

struct om_slotmap_entry {
	void *ptr;
	uint32_t gen;
	uint32_t next_free;
};
struct om_slotmap {
	struct om_slotmap_entry *v;
	uint32_t cap, used, free_head; /* free_head: index + 1 */
};
uint64_t om_slotmap_add(struct om_slotmap *map, void *ptr); /* 0: no memory */
void *om_slotmap_get(const struct om_slotmap *map, uint64_t key);
void *om_slotmap_del(struct om_slotmap *map, uint64_t key);
/* Index walk: entries with ptr != NULL. */
uint64_t om_slotmap_key(const struct om_slotmap *map, uint32_t i);
void om_slotmap_fini(struct om_slotmap *map);

#endif /* OM_RUNTIME_SLOTMAP_H */
