/* SPDX-License-Identifier: ISC */
#include <string.h>
#include <sys/mman.h>
#include "store/sqlite_impl.h"

/*
 * The rows of jobs that a group works on.
 *
 * A job that starts and ends within one group changes three times; its row is read once and written
 * once.  The table is direct-mapped by the id: a row that needs the place of another sends it away,
 * written.  Rows are copied byte by byte, so that two that are equal are equal to memcmp.
 *
 * 1. A row is dirty only inside the transaction that changed it: commit writes all, a rollback
 *    forgets all.  If broken: a change is lost that was acknowledged, or one appears that was refused.
 * 2. It is used only inside a transaction, and emptied when begin finds that somebody else (a person
 *    with the sqlite3 shell) has changed the file.  If broken: their change is overwritten.
 * 3. Whoever reads what may change of jobs by another statement writes the dirty rows first.
 */

#define ROWS_SLOTS 4096 /* a power of two; the jobs on their way are fewer */

enum rows_state { ROW_NONE, ROW_CLEAN, ROW_DIRTY };

struct sq_rows {
	size_t dirty_count;
	uint16_t dirty[ROWS_SLOTS]; /* slots, each once */
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

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
static size_t
rows_slot(const struct om_job_id *id)
{
	const char *p = id->text;
	uint32_t h = UINT32_C(0x811c9dc5);

	while (*p != '\0') {
		h = (h ^ (uint8_t)*p++) * UINT32_C(0x01000193);
	}
	return (h ^ (h >> 16)) & (ROWS_SLOTS - 1);
}

static bool
rows_usable(const struct om_sqlite *sq)
{
	return sq->rows != NULL && sq->in_tx && sq->doomed == OM_OK;
}

/* NULL: it is not here. */
static const struct om_job_row *
rows_peek(const struct om_sqlite *sq, const struct om_job_id *id)
{
	const size_t slot = rows_slot(id);

	if (!rows_usable(sq) || sq->rows->state[slot] == ROW_NONE ||
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

enum om_err
sq_rows_changed(struct om_sqlite *sq, const struct om_job_row *row)
{
	const size_t slot = rows_slot(&row->id);
	struct sq_rows *rows = sq->rows;
	enum om_err err = OM_OK;

	if (rows->state[slot] != ROW_DIRTY) {
		rows->state[slot] = ROW_DIRTY;
		rows->dirty[rows->dirty_count++] = (uint16_t)slot;
	} else if (rows->row[slot].seq != row->seq) {
		err = sq_job_update(sq, &rows->row[slot]); /* its place in the list stays */
	}
	memcpy(&rows->row[slot], row, sizeof(*row));
	return err;
}

void
sq_rows_keep(struct om_sqlite *sq, const struct om_job_row *row)
{
	const size_t slot = rows_slot(&row->id);

	if (rows_usable(sq) && sq->rows->state[slot] != ROW_DIRTY) {
		sq->rows->state[slot] = ROW_CLEAN;
		memcpy(&sq->rows->row[slot], row, sizeof(*row));
	}
}

enum om_err
sq_rows_flush(struct om_sqlite *sq)
{
	struct sq_rows *rows = sq->rows;
	enum om_err err = OM_OK;
	size_t i;

	if (!sq->in_tx || sq->doomed != OM_OK) {
		return sq->in_tx ? sq->doomed : OM_OK;
	}
	for (i = 0; err == OM_OK && i < rows->dirty_count; i++) {
		rows->state[rows->dirty[i]] = ROW_CLEAN;
		err = sq_job_update(sq, &rows->row[rows->dirty[i]]);
	}
	rows->dirty_count = 0; /* also after a failure: the transaction is doomed */
	return err;
}

void
sq_rows_clear(struct om_sqlite *sq)
{
	if (sq->rows != NULL) {
		sq->rows->dirty_count = 0;
		memset(sq->rows->state, ROW_NONE, sizeof(sq->rows->state));
	}
}
