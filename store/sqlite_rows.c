/* SPDX-License-Identifier: ISC */
#include <string.h>
#include <sys/mman.h>
#include "store/sqlite_impl.h"

/*
 * The rows of jobs that a group works on.
 *
 * A job that starts and ends between two folds changes three times; its row is read once and written
 * to the tables once.  Each group that changes it has it in the log.  A row has two places, by its id;
 * one that needs the place of another sends it away, written.  Rows are copied byte by byte, so
 * that two that are equal are equal to memcmp.
 *
 * 1. A row is new only inside the group that changed it: its commit logs all that are.  A dirty one is
 *    in the log and not in the tables: the fold writes all.  When the transaction is lost, all are
 *    forgotten, and the log has them.  If broken: a change is lost that was acknowledged, or one
 *    appears that was refused.
 * 2. It is used only while SQLite's transaction is open, and emptied when that begins and finds that
 *    somebody else (a person with the sqlite3 shell) has changed the file.  If broken: their change
 *    is overwritten.
 * 3. Whoever reads what may change of jobs by another statement writes the dirty rows first.
 */

/* A power of two; the jobs on their way, and those that ended since the fold, are far fewer. */
#define ROWS_SLOTS 16384

enum rows_state {
	ROW_NONE,
	ROW_CLEAN,
	ROW_DIRTY, /* not in the tables */
	ROW_NEW /* not in the log either */
};

/* Slots that have been dirty (new) since the list was emptied, each once. */
struct rows_list {
	size_t count;
	uint16_t slot[ROWS_SLOTS];
	bool has[ROWS_SLOTS];
};

struct sq_rows {
	struct rows_list dirty, changed;
	uint8_t state[ROWS_SLOTS];
	struct om_job_row row[ROWS_SLOTS];
};

struct sq_rows *
sq_rows_new(void)
{
	/* Mapped: pages that are not touched cost nothing.  calloc() clears them all from the second store on. */
	void *rows = mmap(NULL, sizeof(struct sq_rows), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return rows == MAP_FAILED ? NULL : rows;
}

void
sq_rows_free(struct sq_rows *rows)
{
	if (rows != NULL) {
		(void)munmap(rows, sizeof(*rows));
	}
}

/* The first of its two places.  FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
static size_t
rows_place(const struct om_job_id *id)
{
	const char *p = id->text;
	uint32_t h = UINT32_C(0x811c9dc5);

	while (*p != '\0') {
		h = (h ^ (uint8_t)*p++) * UINT32_C(0x01000193);
	}
	return (h ^ (h >> 16)) & (ROWS_SLOTS - 2);
}

/* Where the row is, or else the place that it may have: the one whose row is the least work. */
static size_t
rows_slot(const struct sq_rows *rows, const struct om_job_id *id)
{
	const size_t first = rows_place(id);

	for (size_t slot = first; slot <= first + 1; slot++) {
		if (rows->state[slot] != ROW_NONE &&
		    strcmp(rows->row[slot].id.text, id->text) == 0) {
			return slot;
		}
	}
	return rows->state[first + 1] < rows->state[first] ? first + 1 : first;
}

static bool
rows_usable(const struct om_sqlite *sq)
{
	return sq->rows != NULL && sq->in_fold && (!sq->in_tx || sq->doomed == OM_OK);
}

/* NULL: it is not here. */
static const struct om_job_row *
rows_peek(const struct om_sqlite *sq, const struct om_job_id *id)
{
	size_t slot;

	if (!rows_usable(sq)) {
		return NULL;
	}
	slot = rows_slot(sq->rows, id);
	if (sq->rows->state[slot] == ROW_NONE ||
	    strcmp(sq->rows->row[slot].id.text, id->text) != 0) {
		return NULL;
	}
	return &sq->rows->row[slot];
}

bool
sq_rows_find(struct om_sqlite *sq, const struct om_job_id *id, struct om_job_row *row)
{
	const struct om_job_row *here = rows_peek(sq, id);

	if (here != NULL) {
		memcpy(row, here, sizeof(*row));
	}
	return here != NULL;
}

bool
sq_rows_seq(const struct om_sqlite *sq, const struct om_job_id *id, int64_t *seq)
{
	const struct om_job_row *here = rows_peek(sq, id);

	if (here != NULL) {
		*seq = (int64_t)here->seq;
	}
	return here != NULL;
}

/* Into the log, when it is not there. */
static enum om_err
rows_log(struct om_sqlite *sq, size_t slot)
{
	if (sq->rows->state[slot] != ROW_NEW) {
		return OM_OK;
	}
	sq->rows->state[slot] = ROW_DIRTY;
	sq_job_update(sq, &sq->rows->row[slot]);
	return sq_log_only(sq);
}

/* Into the tables. */
static enum om_err
rows_write(struct om_sqlite *sq, size_t slot)
{
	enum om_err err = rows_log(sq, slot);

	if (err != OM_OK || sq->rows->state[slot] != ROW_DIRTY) {
		return err;
	}
	sq->rows->state[slot] = ROW_CLEAN;
	sq_job_update(sq, &sq->rows->row[slot]);
	err = sq_log_ahead(sq); /* nothing that waits is of the table of jobs */
	sq_log_drop(sq);
	return err;
}

static void
list_add(struct rows_list *list, size_t slot)
{
	if (!list->has[slot]) {
		list->has[slot] = true;
		list->slot[list->count++] = (uint16_t)slot;
	}
}

static void
list_clear(struct rows_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		list->has[list->slot[i]] = false;
	}
	list->count = 0;
}

enum om_err
sq_rows_changed(struct om_sqlite *sq, const struct om_job_row *row)
{
	struct sq_rows *rows = sq->rows;
	const size_t slot = rows_slot(rows, &row->id);
	enum om_err err = OM_OK;

	OM_ASSERT(sq->in_tx);
	if (rows->state[slot] >= ROW_DIRTY && rows->row[slot].seq != row->seq) {
		err = rows_write(sq, slot);
	}
	list_add(&rows->dirty, slot);
	list_add(&rows->changed, slot);
	rows->state[slot] = ROW_NEW;
	memcpy(&rows->row[slot], row, sizeof(*row));
	return err;
}

void
sq_rows_keep(struct om_sqlite *sq, const struct om_job_row *row)
{
	size_t slot;

	if (!rows_usable(sq)) {
		return;
	}
	slot = rows_slot(sq->rows, &row->id);
	if (sq->rows->state[slot] < ROW_DIRTY) {
		sq->rows->state[slot] = ROW_CLEAN;
		memcpy(&sq->rows->row[slot], row, sizeof(*row));
	}
}

bool
sq_rows_are_new(const struct om_sqlite *sq)
{
	return sq->rows->changed.count > 0;
}

enum om_err
sq_rows_log(struct om_sqlite *sq)
{
	struct rows_list *list = &sq->rows->changed;
	enum om_err err = OM_OK;

	for (size_t i = 0; err == OM_OK && i < list->count; i++) {
		err = rows_log(sq, list->slot[i]);
	}
	list_clear(list); /* also after a failure: the group is doomed */
	return err;
}

enum om_err
sq_rows_flush(struct om_sqlite *sq)
{
	enum om_err err = sq->in_tx ? sq->doomed : OM_OK;
	struct rows_list *list;

	if (err != OM_OK || !sq->in_fold) {
		return err;
	}
	list = &sq->rows->dirty;
	for (size_t i = 0; err == OM_OK && i < list->count; i++) {
		err = rows_write(sq, list->slot[i]);
	}
	list_clear(list); /* also after a failure: the transaction is given up */
	return err == OM_OK ? OM_OK : sq_tables_fail(sq, err);
}

void
sq_rows_clear(struct om_sqlite *sq)
{
	if (sq->rows != NULL) {
		list_clear(&sq->rows->dirty);
		list_clear(&sq->rows->changed);
		memset(sq->rows->state, ROW_NONE, sizeof(sq->rows->state));
	}
}
