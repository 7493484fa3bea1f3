/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_TIME_HEAP_H
#define OM_ACTORS_TIME_HEAP_H

/*
 * What is due next: a binary heap of things with a time, intrusive, with removal from the middle.
 * All functions: owner thread.  O(log n).
 */
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

/* Embedded in the thing.  Zeroed: in no heap. */
struct om_time_node {
	int64_t at;
	size_t place; /* index + 1; 0: in no heap */
};

/* Zeroed: valid and empty. */
struct om_time_heap {
	struct om_time_node **v;
	size_t count, cap;
};

void om_time_heap_fini(struct om_time_heap *heap);
/* Keeps node until it is removed.  NOMEM. */
enum om_err om_time_heap_add(struct om_time_heap *heap, struct om_time_node *node,
			     int64_t at) OM_MUST_CHECK;
/* A node in no heap is fine. */
void om_time_heap_remove(struct om_time_heap *heap, struct om_time_node *node);
/* The earliest, which stays in; NULL: empty. */
struct om_time_node *om_time_heap_first(const struct om_time_heap *heap);

#endif /* OM_ACTORS_TIME_HEAP_H */
