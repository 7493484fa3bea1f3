/* SPDX-License-Identifier: ISC */
#include <string.h>
#include "base/parse.h"
#include "store/audit_pack.h"
#include "store/sqlite_param.h"

/*
 * The audit rows.  The end of the chain is kept in memory and logged once a group, with the rows
 * (sqlite_tx.c).  It is never taken from the last row: rows that somebody
 * removed from the end are missed for ever.
 */

/* A view that is never absent, cut at a character's start. */
static struct om_str
audit_text(struct om_str text, size_t max)
{
	if (text.ptr == NULL) {
		return OM_STR("");
	}
	if (text.len > max) {
		text.len = max;
		while (text.len > 0 && ((uint8_t)text.ptr[text.len] & 0xc0) == 0x80) {
			text.len--;
		}
	}
	return text;
}

/* Room for the texts of a row that are not UTF-8 as they came. */
struct audit_room {
	size_t used;
	char
	    text[OM_PEER_ID_MAX * 3 + OM_AUDIT_EVENT_MAX + OM_JOB_ACTIVITY_MAX + OM_AUDIT_TEXT_MAX];
};

/* JSON has no other bytes: one would make the whole pack unreadable. */
static void
audit_clean(struct om_str *text, struct audit_room *room)
{
	char *to = room->text + room->used;

	if (om_utf8_valid(*text)) {
		return;
	}
	OM_ASSERT(text->len <= sizeof(room->text) - room->used);
	memcpy(to, text->ptr, text->len);
	om_utf8_clean(to, text->len);
	text->ptr = to;
	room->used += text->len;
}

/*
 * A row that waits for its pack, as JSON.  Packs are for the tables' sake: a row alone costs as much as
 * one of sixty-four.
 */
int
sq_audit_add(struct om_sqlite *sq, uint64_t seq, struct om_str row)
{
	int rc = SQLITE_OK;

	if (sq->pack_rows == OM_AUDIT_PACK_ROWS || seq != sq->pack_first + sq->pack_rows) {
		rc = sq_audit_flush(sq);
		sq->pack_first = seq;
	}
	if (rc != SQLITE_OK) {
		return rc;
	}
	om_buf_add(&sq->pack, sq->pack_rows == 0 ? "[" : ",", 1);
	om_buf_add(&sq->pack, row.ptr, row.len);
	sq->pack_rows++;
	return sq->pack.failed ? SQLITE_NOMEM : SQLITE_OK;
}

void
sq_audit_forget(struct om_sqlite *sq)
{
	om_buf_reset(&sq->pack);
	sq->pack_rows = 0;
}

int
sq_audit_flush(struct om_sqlite *sq)
{
	sqlite3_stmt *s = NULL;
	int rc;

	if (sq->pack_rows == 0) {
		return SQLITE_OK;
	}
	om_buf_add(&sq->pack, "]", 1);
	rc = sq->pack.failed ? SQLITE_NOMEM : sq_stmt_raw(sq, SQ_AUDIT_PACK, &s);
	if (rc != SQLITE_OK) {
		return rc;
	}
	sq_bind_u64(s, 1, sq->pack_first);
	sq_bind_u64(s, 2, sq->pack_first + sq->pack_rows - 1);
	sq_bind_str(s, 3, (struct om_str){ (const char *)sq->pack.data, sq->pack.len });
	rc = sq_run_raw(s);
	sq_audit_forget(sq);
	return rc;
}

static enum om_err
audit_log(struct om_sqlite *sq, const struct om_audit_row *row)
{
	om_buf_reset(&sq->json);
	om_buf_add(&sq->json, "[", 1);
	om_audit_pack_put(&sq->json, row);
	om_buf_add(&sq->json, "]", 1);
	sq->json_seq = row->seq;
	if (sq->json.failed) {
		return sq_why(sq, OM_ERR_NOMEM, "no memory for the audit");
	}
	sq_log_stmt(sq, SQ_AUDIT_ADD);
	sq_log_u64(sq, row->seq);
	sq_log_str(sq, (struct om_str){ (const char *)sq->json.data + 1, sq->json.len - 2 });
	return sq_log_later(sq);
}

/* What all rows about a job have. */
static void
audit_of_job(struct om_audit_row *row, const struct om_job_row *job, struct audit_room *room)
{
	row->job = om_str_of(job->id.text); /* plain letters */
	row->requester = om_str_of(job->requester.text);
	row->network = om_str_of(job->network.text);
	row->activity = om_str_of(job->activity);
	audit_clean(&row->requester, room);
	audit_clean(&row->network, room);
	audit_clean(&row->activity, room);
}

/* The next row of the chain. */
static enum om_err
audit_next(struct om_sqlite *sq, struct om_audit_row *row)
{
	enum om_err err;

	row->seq = sq->now.head.seq + 1;
	if (!om_audit_hash(sq->hasher, sq->now.head.hash, row, row->hash)) {
		err = sq_why(sq, OM_ERR_NOMEM, "no memory for a hash");
	} else {
		err = audit_log(sq, row);
	}
	if (err != OM_OK) {
		sq->doomed =
		    err; /* the job's own row may be written already: the group cannot go on */
		return err;
	}
	sq->now.head.seq = row->seq;
	memcpy(sq->now.head.hash, row->hash, OM_HASH_LEN);
	return OM_OK;
}

enum om_err
sq_audit_notes(struct om_sqlite *sq, struct om_wall at, const struct om_audit_note *notes,
	       size_t count, const struct om_job_row *job)
{
	struct om_audit_row row = { .at = at };
	struct audit_room room;
	enum om_err err = OM_OK;
	size_t of_job;

	room.used = 0;
	if (job != NULL) {
		audit_of_job(&row, job, &room);
	}
	of_job = room.used;
	for (size_t i = 0; err == OM_OK && i < count; i++) {
		OM_ASSERT(notes[i].event.len > 0 && notes[i].event.len <= OM_AUDIT_EVENT_MAX);
		room.used = of_job;
		row.event = notes[i].event;
		row.actor = audit_text(notes[i].actor, OM_PEER_ID_MAX);
		row.details = audit_text(notes[i].details, OM_AUDIT_TEXT_MAX);
		audit_clean(&row.event, &room);
		audit_clean(&row.actor, &room);
		audit_clean(&row.details, &room);
		err = audit_next(sq, &row);
	}
	return err;
}

enum om_err
sq_audit_append(struct om_store *st, struct om_wall at, const struct om_audit_note *note)
{
	struct om_sqlite *sq = sq_of(st);
	enum om_err err = sq_writable(sq);

	return err != OM_OK ? err : sq_audit_notes(sq, at, note, 1, NULL);
}

/* The rows of the audit from one on, across packs. */
struct audit_cursor {
	struct om_sqlite *sq;
	sqlite3_stmt *s;
	struct om_audit_pack pack;
	uint64_t after; /* rows up to here are left out */
	struct om_str has; /* packs without this text are left out too; absent: none are */
	size_t next; /* in the pack */
	uint64_t first,
	    place; /* the number that the pack's first row, and the last one given, must have */
};

static enum om_err
cursor_open(struct om_sqlite *sq, uint64_t after, struct audit_cursor *c)
{
	enum om_err err = OM_OK;
	int rc;

	*c = (struct audit_cursor){ .sq = sq, .after = after };
	c->s = sq_stmt(sq, SQ_AUDIT_EACH, &err);
	if (c->s == NULL) {
		return err;
	}
	rc = sq_audit_flush(sq);
	if (rc != SQLITE_OK) {
		return sq_records_fail(sq, rc);
	}
	sq_bind_u64(c->s, 1, after);
	sq_bind_u64(c->s, 2, OM_AUDIT_PACK_ROWS);
	return OM_OK;
}

static void
cursor_close(struct audit_cursor *c)
{
	om_audit_pack_fini(&c->pack);
	if (c->s != NULL) {
		(void)sqlite3_reset(c->s);
	}
}

/* What a step of the cursor found. */
enum audit_found {
	AUDIT_END,
	AUDIT_ROW,
	AUDIT_BAD, /* a pack that is none of ours: row->seq is where it says it starts */
	AUDIT_LEFT_OUT /* a pack without `has` */
};

static enum om_err
cursor_pack(struct audit_cursor *c, enum audit_found *found, struct om_audit_row *row)
{
	struct om_str text;
	enum om_err err;
	bool more;

	om_audit_pack_fini(&c->pack);
	c->next = 0;
	*found = AUDIT_END;
	err = sq_step(c->sq, c->s, &more, "read the audit");
	if (err != OM_OK || !more) {
		return err;
	}
	c->first = sq_col_u64(c->s, 0);
	c->place = c->first;
	text = sq_col_str(c->s, 2);
	if (c->has.len > 0 && memmem(text.ptr, text.len, c->has.ptr, c->has.len) == NULL) {
		*found = AUDIT_LEFT_OUT;
		c->place = sq_col_u64(c->s, 1);
	} else if (!om_audit_pack_open(&c->pack, text)) {
		*found = AUDIT_BAD;
		row->seq = c->first;
		c->place = sq_col_u64(c->s, 1);
	} else {
		*found = AUDIT_ROW;
		/* By its place: what a row says of itself is not known to be true. */
		c->next = c->first > c->after ? 0 : (size_t)(c->after + 1 - c->first);
	}
	return OM_OK;
}

/* The next row, whose texts are valid until the one after it.  What is no row has no right hash. */
static enum om_err
cursor_next(struct audit_cursor *c, enum audit_found *found, struct om_audit_row *row)
{
	enum om_err err = OM_OK;

	*row = (struct om_audit_row){ 0 };
	*found = AUDIT_ROW;
	while (err == OM_OK && *found == AUDIT_ROW && c->next >= c->pack.count) {
		err = cursor_pack(c, found, row);
	}
	if (err == OM_OK && *found == AUDIT_ROW) {
		c->place = c->first + c->next;
		om_audit_pack_row(&c->pack, c->next++, row);
	}
	return err;
}

static bool
audit_wants(const struct om_audit_filter *filter, const struct om_audit_row *row)
{
	return row->at.ns >= filter->since.ns &&
	       (filter->job.ptr == NULL || om_str_eq(row->job, filter->job));
}

/* Who tells of a group tells of its last row: it is here, and its pack stays open.  false: read it. */
static bool
audit_last(struct om_sqlite *sq, struct om_audit_filter *filter, size_t limit, om_audit_fn fn,
	   void *arg)
{
	struct om_audit_pack pack;
	struct om_audit_row row;

	if (sq->in_tx || sq->json_seq != sq->now.head.seq || limit == 0 ||
	    !om_audit_pack_open(&pack,
				(struct om_str){ (const char *)sq->json.data, sq->json.len })) {
		return false;
	}
	om_audit_pack_row(&pack, 0, &row);
	if (audit_wants(filter, &row)) {
		(void)fn(arg, &row);
	}
	filter->after_seq = row.seq;
	om_audit_pack_fini(&pack);
	return true;
}

enum om_err
sq_audit_each(struct om_store *st, struct om_audit_filter *filter, size_t limit, om_audit_fn fn,
	      void *arg, bool *more)
{
	struct om_sqlite *sq = sq_of(st);
	struct audit_cursor c;
	struct om_audit_row row;
	size_t given = 0;
	bool go_on = true;
	enum audit_found found = AUDIT_END;
	uint32_t looks = filter->looks == 0 ? OM_STORE_SCAN_MAX : filter->looks;
	enum om_err err;

	*more = false;
	if (filter->after_seq + 1 == sq->now.head.seq && audit_last(sq, filter, limit, fn, arg)) {
		return OM_OK;
	}
	err = cursor_open(sq, filter->after_seq, &c);
	c.has =
	    filter->job; /* as it is in the JSON: there is nothing to escape in the name of a job */
	for (; err == OM_OK && go_on && given < limit && looks > 0; looks--) {
		err = cursor_next(&c, &found, &row);
		if (err != OM_OK || found == AUDIT_END) {
			break;
		}
		/* By its place, and always on: what the file says was perhaps tampered with. */
		filter->after_seq = c.place > filter->after_seq ? c.place : filter->after_seq + 1;
		if (found == AUDIT_ROW && audit_wants(filter, &row)) {
			given++;
			go_on = fn(arg, &row);
		}
	}
	cursor_close(&c);
	*more = err == OM_OK && found != AUDIT_END;
	return err;
}

enum om_err
sq_chain_load(struct om_sqlite *sq, struct om_audit_mark *head, struct om_audit_mark *base)
{
	enum om_err err = OM_OK;
	sqlite3_stmt *s;
	bool found;

	s = sq_stmt(sq, SQ_CHAIN_GET, &err);
	if (s == NULL) {
		return err;
	}
	err = sq_step(sq, s, &found, "read the end of the audit chain");
	if (err == OM_OK &&
	    (!found || !sq_col_hash(s, 1, head->hash) || !sq_col_hash(s, 3, base->hash))) {
		err = sq_why(sq, OM_ERR_CORRUPT, "%.100s: the end of the audit chain is not there",
			     sq->path);
	}
	if (err == OM_OK) {
		head->seq = sq_col_u64(s, 0);
		base->seq = sq_col_u64(s, 2);
	}
	(void)sqlite3_reset(s);
	return err;
}

enum om_err
sq_audit_head(struct om_store *st, struct om_audit_mark *out)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_audit_mark base;

	if (sq->read_only) {
		return sq_chain_load(sq, out, &base);
	}
	*out = sq->now.head;
	return OM_OK;
}

/* The rows from check->at on, at most limit; *end: no row is left. */
static enum om_err
verify_rows(struct om_sqlite *sq, struct om_audit_check *check, size_t limit, bool *end)
{
	struct audit_cursor c;
	struct om_audit_row row;
	enum audit_found found = AUDIT_ROW;
	enum om_err err;

	err = cursor_open(sq, check->at.seq, &c);
	for (size_t i = 0; err == OM_OK && i < limit && !check->done; i++) {
		err = cursor_next(&c, &found, &row);
		if (err != OM_OK || found == AUDIT_END) {
			break;
		}
		(void)om_audit_check_row(sq->hasher, check, &row);
	}
	cursor_close(&c);
	*end = found == AUDIT_END;
	return err;
}

enum om_err
sq_audit_verify(struct om_store *st, struct om_audit_check *check, size_t limit)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_audit_mark head = sq->now.head, base = sq->now.base;
	enum om_err err;
	bool end = false;

	/* One snapshot for the rows and the end, when another process writes. */
	if (sq->read_only) {
		err = sq_exec(sq, "BEGIN");
		if (err == OM_OK) {
			err = sq_chain_load(sq, &head, &base);
		}
		if (err != OM_OK) {
			goto out;
		}
	}
	if (!check->started || check->at.seq < base.seq) {
		/* The first step; or the rows ahead were purged since the last one. */
		check->started = true;
		check->at = base;
	}
	err = verify_rows(sq, check, limit, &end);
	if (err == OM_OK && end && !check->done) {
		om_audit_check_end(check, &head);
	}
out:
	if (sq->read_only && sqlite3_get_autocommit(sq->db) == 0) {
		(void)sqlite3_exec(sq->db, "COMMIT", NULL, NULL, NULL);
	}
	return err;
}

/* The last row that goes: the front as far as it is older than `before`. */
static enum om_err
cut_find(struct om_sqlite *sq, struct om_wall before, size_t limit, struct om_audit_mark *last)
{
	struct audit_cursor c;
	struct om_audit_row row;
	enum audit_found found;
	enum om_err err;

	err = cursor_open(sq, sq->now.base.seq, &c);
	for (size_t i = 0; err == OM_OK && i < limit; i++) {
		err = cursor_next(&c, &found, &row);
		/* A front with a gap stays: what is wrong with it must remain to be seen. */
		if (err != OM_OK || found != AUDIT_ROW || row.at.ns >= before.ns ||
		    row.seq != last->seq + 1) {
			break;
		}
		last->seq = row.seq;
		memcpy(last->hash, row.hash, OM_HASH_LEN);
	}
	cursor_close(&c);
	return err;
}

enum om_err
sq_audit_cut(struct om_sqlite *sq, struct om_wall before, size_t limit, uint64_t *removed)
{
	static const enum sq_stmt parts[] = { SQ_AUDIT_CUT, SQ_AUDIT_TRIM };
	struct om_audit_mark last = sq->now.base;
	enum om_err err;

	*removed = 0;
	err = cut_find(sq, before, limit, &last);
	if (err != OM_OK || last.seq == sq->now.base.seq) {
		return err;
	}
	for (size_t i = 0; err == OM_OK && i < OM_COUNT(parts); i++) {
		sq_log_stmt(sq, parts[i]);
		sq_log_u64(sq, last.seq);
		err = sq_log_run(sq);
	}
	if (err == OM_OK) {
		*removed = last.seq - sq->now.base.seq;
		sq->now.base = last;
	}
	return err;
}
