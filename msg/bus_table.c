/* SPDX-License-Identifier: ISC */
/*
 * Records that are found by a number: asks without an answer, requests without a reply.
 *
 * An id is a sequence number and the record's index, so finding is one comparison, and an id that
 * has been used is never another record's: an answer that comes too late finds nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "msg/bus_impl.h"

#define TABLE_ROWS_FIRST 16

static struct bus_row *
row_at(const struct bus_table *t, uint32_t i)
{
	return (struct bus_row *)(void *)(t->rows + i * t->row_size);
}

static bool
table_grow(struct bus_table *t)
{
	uint32_t cap = t->cap == 0 ? TABLE_ROWS_FIRST : t->cap * 2;
	char *rows;

	if (cap > OM_BUS_ASKS_MAX) {
		return false;
	}
	rows = realloc(t->rows, cap * t->row_size);
	if (rows == NULL) {
		return false;
	}
	t->rows = rows;
	for (uint32_t i = cap; i > t->cap; i--) {
		struct bus_row *row = row_at(t, i - 1);

		row->id = 0;
		row->next_free = t->free;
		t->free = i;
	}
	t->cap = cap;
	return true;
}

void *
bus_table_add(struct bus_table *t, uint64_t seq)
{
	struct bus_row *row;
	uint32_t i;

	OM_ASSERT(seq > 0 && t->row_size >= sizeof(struct bus_row));
	if (t->free == 0 && !table_grow(t)) {
		return NULL;
	}
	i = t->free - 1;
	row = row_at(t, i);
	t->free = row->next_free;
	memset(row, 0, t->row_size);
	row->id = seq << BUS_ROW_BITS | i;
	t->count++;
	return row;
}

void *
bus_table_find(const struct bus_table *t, uint64_t id)
{
	uint32_t i = (uint32_t)(id & (OM_BUS_ASKS_MAX - 1));

	if (id == 0 || i >= t->cap || row_at(t, i)->id != id) {
		return NULL;
	}
	return row_at(t, i);
}

void *
bus_table_at(const struct bus_table *t, uint32_t i)
{
	return row_at(t, i)->id != 0 ? row_at(t, i) : NULL;
}

void
bus_table_remove(struct bus_table *t, void *row_)
{
	struct bus_row *row = row_;

	OM_ASSERT(row->id != 0);
	row->next_free = t->free;
	t->free = (uint32_t)(row->id & (OM_BUS_ASKS_MAX - 1)) + 1;
	row->id = 0;
	t->count--;
}

void
bus_table_fini(struct bus_table *t)
{
	free(t->rows);
	t->rows = NULL;
	t->cap = 0;
	t->count = 0;
	t->free = 0;
}
