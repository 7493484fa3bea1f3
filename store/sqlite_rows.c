/* SPDX-License-Identifier: ISC */
#include <string.h>
#include <xxhash.h>
#include "base/huge.h"
#include "store/sqlite_impl.h"

/*
 * The rows of jobs that a group works on.
 *
 * A job that starts and ends between two folds changes three times; its row is read once and written
 * to the tables once or twice.  Each group that changes it has it in the log.  A new job's row waits here
 * too, so that nothing is written to the tables before its answer is out.  A row has four places, by its
 * id; one that needs the place of another sends it away, written: of an ended job before a live one.
 *
 * 1. A row is new only inside the group that changed it: its commit logs all that are.  A dirty one is
 *    in the log and not in the tables: the fold writes all.  When the transaction is lost, all are
 *    forgotten, and the log has them.  If broken: a change is lost that was acknowledged, or one
 *    appears that was refused.
 * 2. It is used only while SQLite's transaction is open.  When that begins and finds that somebody else
 *    (a person with the sqlite3 shell) has changed the file, clean rows are forgotten.  If broken: their
 *    change is overwritten.  That of a row which a group has changed during a fold is: the log has it.
 * 3. Whoever reads jobs by another statement writes the dirty rows first; one row by its id is here or,
 *    as it is, in the tables or among what waits for them, which goes before any read.
 * 4. The ids of all jobs are in the filter (id_filter.h).  If broken: two jobs have one id, and no fold
 *    can write them.
 */

/* A power of two.  A row has two KiB: of many more than a core's cache holds each is fetched anew. */
#define ROWS_SLOTS  4096
#define ROWS_PLACES 4 /* that a row may have; a power of two */
/* Dirty rows that wait from one group to the next; of those over it the oldest are written after it. */
#define ROWS_WAIT  128
#define ROWS_TRIM  1024
#define ROWS_AHEAD 2 /* written before one that is fetched meanwhile */

enum rows_state {
	ROW_NONE,
	ROW_CLEAN,
	ROW_DIRTY, /* not in the tables */
	ROW_NEW /* not in the log either */
};

/* What the tables have of it. */
enum rows_born {
	ROW_THERE,
	ROW_LIVE, /* it, and it has not ended there */
	ROW_BORN, /* nothing, and it is as it was put */
	ROW_GROWN /* nothing, and it has changed since */
};

/* Slots that have been dirty (new), each once, the first first; a ring. */
struct rows_list {
	size_t head, count;
	uint16_t slot[ROWS_SLOTS];
	bool has[ROWS_SLOTS];
};

struct sq_rows {
	struct rows_list dirty, changed;
	uint8_t state[ROWS_SLOTS];
	uint8_t born[ROWS_SLOTS];
	bool ended[ROWS_SLOTS]; /* the row's job */
	uint32_t hash[ROWS_SLOTS]; /* of the id: rows are far apart in memory */
	struct om_job_row row[ROWS_SLOTS];
};

struct sq_rows *
sq_rows_new(void)
{
	return om_huge_new(sizeof(struct sq_rows));
}

void
sq_rows_free(struct sq_rows *rows)
{
	om_huge_free(rows, sizeof(*rows));
}

static uint32_t
rows_hash(const struct om_job_id *id)
{
	return (uint32_t)XXH3_64bits(id->text, strlen(id->text));
}

static bool
rows_is(const struct sq_rows *rows, size_t slot, uint32_t hash, const struct om_job_id *id)
{
	return rows->state[slot] != ROW_NONE && rows->hash[slot] == hash &&
	       strcmp(rows->row[slot].id.text, id->text) == 0;
}

/* What it costs to send the row away: it is written, or read again when its job goes on. */
static unsigned
rows_worth(const struct sq_rows *rows, size_t slot)
{
	static const unsigned worth[2][ROW_NEW + 1] = {
		[false] = { [ROW_NONE] = 0, [ROW_CLEAN] = 3, [ROW_DIRTY] = 4, [ROW_NEW] = 5 },
		[true] = { [ROW_NONE] = 0, [ROW_CLEAN] = 1, [ROW_DIRTY] = 2, [ROW_NEW] = 5 },
	};

	return worth[rows->ended[slot]][rows->state[slot]];
}

/* Where the row is, or else the place that it may have: the one whose row is the least loss. */
static size_t
rows_slot(const struct sq_rows *rows, uint32_t hash, const struct om_job_id *id)
{
	const size_t first = hash & (ROWS_SLOTS - ROWS_PLACES);
	size_t best = first;

	for (size_t slot = first; slot < first + ROWS_PLACES; slot++) {
		if (rows_is(rows, slot, hash, id)) {
			return slot;
		}
		if (rows_worth(rows, slot) < rows_worth(rows, best)) {
			best = slot;
		}
	}
	return best;
}

/* The row comes to the cache meanwhile. */
static void
rows_fetch(const struct sq_rows *rows, size_t slot)
{
	const struct om_job_row *row = &rows->row[slot];

	for (size_t at = 0; at < SQ_ROW_HEAD; at += 64) {
		__builtin_prefetch((const char *)row + at, 1);
	}
	__builtin_prefetch(row->text, 1);
	__builtin_prefetch(row->activity, 1);
}

void
sq_rows_expect(const struct om_sqlite *sq, const struct om_job_id *id)
{
	rows_fetch(sq->rows, rows_slot(sq->rows, rows_hash(id), id));
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
	const uint32_t hash = rows_hash(id);
	size_t slot;

	if (!rows_usable(sq)) {
		return NULL;
	}
	slot = rows_slot(sq->rows, hash, id);
	return rows_is(sq->rows, slot, hash, id) ? &sq->rows->row[slot] : NULL;
}

bool
sq_rows_find(struct om_sqlite *sq, const struct om_job_id *id, struct om_job_row *row)
{
	const struct om_job_row *here = rows_peek(sq, id);

	if (here != NULL) {
		sq_row_copy(row, here);
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
	sq_job_update(sq, &sq->rows->row[slot], false);
	return sq_log_only(sq);
}

/* Into the tables. */
static enum om_err
rows_write(struct om_sqlite *sq, size_t slot)
{
	struct sq_rows *rows = sq->rows;
	const bool live = rows->row[slot].finished.ns == 0;
	enum om_err err = rows_log(sq, slot);

	if (err != OM_OK || rows->state[slot] != ROW_DIRTY) {
		return err;
	}
	if (rows->born[slot] == ROW_THERE || rows->born[slot] == ROW_LIVE) {
		sq_job_update(sq, &rows->row[slot], live && rows->born[slot] == ROW_LIVE);
	} else {
		sq_job_insert(sq, &rows->row[slot], rows->born[slot] == ROW_GROWN);
	}
	rows->state[slot] = ROW_CLEAN;
	rows->born[slot] = live ? ROW_LIVE : ROW_THERE;
	err = sq_log_ahead(sq); /* nothing that waits is of the table of jobs */
	sq_log_drop(sq);
	return err;
}

static void
list_add(struct rows_list *list, size_t slot)
{
	if (!list->has[slot]) {
		list->has[slot] = true;
		list->slot[(list->head + list->count++) % ROWS_SLOTS] = (uint16_t)slot;
	}
}

/* The one that is taken after so many, if there is one; else some slot. */
static size_t
list_ahead(const struct rows_list *list, size_t n)
{
	return list->slot[(list->head + n) % ROWS_SLOTS];
}

/* The first of it, which must be. */
static size_t
list_take(struct rows_list *list)
{
	const size_t slot = list->slot[list->head];

	list->has[slot] = false;
	list->head = (list->head + 1) % ROWS_SLOTS;
	list->count--;
	return slot;
}

static void
list_clear(struct rows_list *list)
{
	while (list->count > 0) {
		(void)list_take(list);
	}
}

/* A place for a changed or born row; the row that had it is written. */
static enum om_err
rows_take(struct om_sqlite *sq, const struct om_job_row *row, size_t *slot)
{
	const uint32_t hash = rows_hash(&row->id);
	struct sq_rows *rows = sq->rows;
	enum om_err err = OM_OK;

	*slot = rows_slot(rows, hash, &row->id);
	if (rows_is(rows, *slot, hash, &row->id)) {
		return OM_OK;
	}
	err = rows_write(sq, *slot);
	rows->hash[*slot] = hash;
	rows->born[*slot] = ROW_THERE;
	return err;
}

enum om_err
sq_rows_changed(struct om_sqlite *sq, const struct om_job_row *row)
{
	struct sq_rows *rows = sq->rows;
	enum om_err err;
	size_t slot;

	OM_ASSERT(sq->in_tx);
	err = rows_take(sq, row, &slot);
	if (rows->born[slot] == ROW_BORN) {
		rows->born[slot] = ROW_GROWN;
	}
	list_add(&rows->dirty, slot);
	list_add(&rows->changed, slot);
	rows->state[slot] = ROW_NEW;
	rows->ended[slot] = om_job_is_final(row->state);
	sq_row_copy(&rows->row[slot], row);
	return err;
}

enum om_err
sq_rows_born(struct om_sqlite *sq, const struct om_job_row *row)
{
	struct sq_rows *rows = sq->rows;
	enum om_err err;
	size_t slot;

	OM_ASSERT(sq->in_tx);
	err = rows_take(sq, row, &slot);
	list_add(&rows->dirty, slot);
	rows->state[slot] = ROW_DIRTY;
	rows->born[slot] = ROW_BORN;
	rows->ended[slot] = om_job_is_final(row->state);
	sq_row_copy(&rows->row[slot], row);
	return err;
}

void
sq_rows_keep(struct om_sqlite *sq, const struct om_job_row *row)
{
	const uint32_t hash = rows_hash(&row->id);
	size_t slot;

	if (!rows_usable(sq)) {
		return;
	}
	slot = rows_slot(sq->rows, hash, &row->id);
	if (sq->rows->state[slot] < ROW_DIRTY) {
		sq->rows->state[slot] = ROW_CLEAN;
		sq->rows->born[slot] = row->finished.ns == 0 ? ROW_LIVE : ROW_THERE;
		sq->rows->hash[slot] = hash;
		sq->rows->ended[slot] = om_job_is_final(row->state);
		sq_row_copy(&sq->rows->row[slot], row);
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

	while (err == OM_OK && list->count > 0) {
		err = rows_log(sq, list_take(list));
	}
	list_clear(list); /* also after a failure: the group is doomed */
	return err;
}

/* Writes the oldest dirty ones until `leave` are left. */
static enum om_err
rows_write_out(struct om_sqlite *sq, size_t leave)
{
	struct rows_list *list = &sq->rows->dirty;
	enum om_err err = OM_OK;

	while (err == OM_OK && list->count > leave) {
		rows_fetch(sq->rows, list_ahead(list, ROWS_AHEAD));
		err = rows_write(sq, list_take(list));
	}
	return err == OM_OK ? OM_OK : sq_tables_fail(sq, err);
}

enum om_err
sq_rows_trim(struct om_sqlite *sq)
{
	const size_t count = sq->rows->dirty.count,
		     most = count > ROWS_TRIM ? count - ROWS_TRIM : 0;

	if (!sq->in_fold || count <= ROWS_WAIT) {
		return OM_OK;
	}
	return rows_write_out(sq, most > ROWS_WAIT ? most : ROWS_WAIT);
}

enum om_err
sq_rows_flush(struct om_sqlite *sq)
{
	enum om_err err = sq->in_tx ? sq->doomed : OM_OK;

	if (err == OM_OK && sq->in_fold) {
		err = rows_write_out(sq, 0);
	}
	return err;
}

void
sq_rows_doubt(struct om_sqlite *sq)
{
	for (size_t slot = 0; slot < ROWS_SLOTS; slot++) {
		if (sq->rows->state[slot] == ROW_CLEAN) {
			sq->rows->state[slot] = ROW_NONE;
		}
		if (sq->rows->born[slot] == ROW_LIVE) {
			sq->rows->born[slot] = ROW_THERE;
		}
	}
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
