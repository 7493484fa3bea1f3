/* SPDX-License-Identifier: ISC */
#include "actors/time_heap.h"

#include <stdlib.h>

#include "base/assert.h"

#define CAP_FIRST 16

void
om_time_heap_fini(struct om_time_heap *heap)
{
	free(heap->v);
	*heap = (struct om_time_heap){ 0 };
}

static void
put_at(struct om_time_heap *heap, size_t i, struct om_time_node *node)
{
	heap->v[i] = node;
	node->place = i + 1;
}

static void
sift_up(struct om_time_heap *heap, size_t i, struct om_time_node *node)
{
	while (i > 0 && heap->v[(i - 1) / 2]->at > node->at) {
		put_at(heap, i, heap->v[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	put_at(heap, i, node);
}

static void
sift_down(struct om_time_heap *heap, size_t i, struct om_time_node *node)
{
	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < heap->count && heap->v[child + 1]->at < heap->v[child]->at) {
			child++;
		}
		if (child >= heap->count || heap->v[child]->at >= node->at) {
			break;
		}
		put_at(heap, i, heap->v[child]);
		i = child;
	}
	put_at(heap, i, node);
}

enum om_err
om_time_heap_add(struct om_time_heap *heap, struct om_time_node *node, int64_t at)
{
	OM_ASSERT(node->place == 0);
	if (heap->count == heap->cap) {
		size_t cap = heap->cap == 0 ? CAP_FIRST : heap->cap * 2;
		struct om_time_node **v = reallocarray(heap->v, cap, sizeof(struct om_time_node *));

		if (v == NULL) {
			return OM_ERR_NOMEM;
		}
		heap->v = v;
		heap->cap = cap;
	}
	node->at = at;
	sift_up(heap, heap->count++, node);
	return OM_OK;
}

void
om_time_heap_remove(struct om_time_heap *heap, struct om_time_node *node)
{
	struct om_time_node *last;
	size_t i;

	if (node->place == 0) {
		return;
	}
	i = node->place - 1;
	OM_ASSERT(i < heap->count && heap->v[i] == node);
	node->place = 0;
	last = heap->v[--heap->count];
	if (last == node) {
		return;
	}
	if (i > 0 && heap->v[(i - 1) / 2]->at > last->at) {
		sift_up(heap, i, last);
	} else {
		sift_down(heap, i, last);
	}
}

struct om_time_node *
om_time_heap_first(const struct om_time_heap *heap)
{
	return heap->count == 0 ? NULL : heap->v[0];
}
