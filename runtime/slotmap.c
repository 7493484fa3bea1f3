/* SPDX-License-Identifier: ISC */
/* Entries keep their place; a free one links to the next free one and has its generation raised. */
#include "runtime/slotmap.h"
#include <stdlib.h>

uint64_t
om_slotmap_add(struct om_slotmap *map, void *ptr)
{
	uint32_t i;

	if (map->free_head != 0) {
		i = map->free_head - 1;
		map->free_head = map->v[i].next_free;
	} else {
		if (map->used == map->cap) {
			uint32_t cap = map->cap != 0 ? map->cap * 2 : 4;
			struct om_slotmap_entry *v = realloc(map->v, cap * sizeof(*v));

			if (v == NULL) {
				return 0;
			}
			map->v = v;
			map->cap = cap;
		}
		i = map->used++;
		map->v[i] = (struct om_slotmap_entry){ .gen = 1 };
	}
	map->v[i].ptr = ptr;
	return (uint64_t)map->v[i].gen << 32 | (i + 1);
}

void *
om_slotmap_get(const struct om_slotmap *map, uint64_t key)
{
	uint32_t i = (uint32_t)key - 1;

	if (i >= map->used || map->v[i].gen != key >> 32) {
		return NULL;
	}
	return map->v[i].ptr;
}

void *
om_slotmap_del(struct om_slotmap *map, uint64_t key)
{
	uint32_t i = (uint32_t)key - 1;
	void *ptr = om_slotmap_get(map, key);

	if (ptr != NULL) {
		map->v[i].ptr = NULL;
		map->v[i].gen++;
		map->v[i].next_free = map->free_head;
		map->free_head = i + 1;
	}
	return ptr;
}

uint64_t
om_slotmap_key(const struct om_slotmap *map, uint32_t i)
{
	return map->v[i].ptr == NULL ? 0 : (uint64_t)map->v[i].gen << 32 | (i + 1);
}

void
om_slotmap_fini(struct om_slotmap *map)
{
	free(map->v);
	*map = (struct om_slotmap){ 0 };
}
