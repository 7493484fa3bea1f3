/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <string.h>
#include "store/sqlite_param.h"

/*
 * Writing jobs.  Everything that can refuse a request is looked at before the first write, so a
 * refused request has changed nothing; after the first write only the disk can fail, and that
 * dooms the whole group.
 */

/* The text, cut at a character's start so that it stays UTF-8. */
static void
job_text(struct om_str from, char *out, size_t size)
{
	size_t len = from.len < size ? from.len : size - 1;

	while (len < from.len && len > 0 && ((uint8_t)from.ptr[len] & 0xc0) == 0x80) {
		len--;
	}
	if (len > 0) {
		memcpy(out, from.ptr, len);
	}
	out[len] = '\0';
}

static enum om_err
put_check(struct om_sqlite *sq, const struct om_job_new *job)
{
	OM_ASSERT(job->note_count >= 1 && job->note_count <= OM_JOB_NOTES_MAX);
	OM_ASSERT(job->state == OM_JOB_RECEIVED || om_job_may_become(OM_JOB_RECEIVED, job->state));
	if (job->requester.len == 0 || job->requester.len > OM_PEER_ID_MAX ||
	    job->network.len > OM_PEER_ID_MAX) {
		return sq_why(sq, OM_ERR_INVALID, "a requester or network has 1 to %d bytes",
			      OM_PEER_ID_MAX);
	}
	if (job->spec.len > OM_JOB_SPEC_MAX) {
		return sq_why(sq, OM_ERR_TOO_BIG, "a job's body has at most %u bytes",
			      OM_JOB_SPEC_MAX);
	}
	if (job->after_count > OM_JOB_AFTER_MAX) {
		return sq_why(sq, OM_ERR_LIMIT, "a job waits for at most %d others",
			      OM_JOB_AFTER_MAX);
	}
	return OM_OK;
}

/* The row that the job will be. */
static enum om_err
put_row(struct om_sqlite *sq, const struct om_job_new *job, struct om_job_row *row)
{
	memset(row, 0, SQ_ROW_HEAD);
	row->seq = sq->now.next_seq;
	row->rank = (int64_t)(row->seq << OM_JOB_RANK_SHIFT);
	row->id = job->id;
	job_text(job->requester, row->requester.text, sizeof(row->requester.text));
	job_text(job->network, row->network.text, sizeof(row->network.text));
	job_text(job->lang, row->lang, sizeof(row->lang));
	job_text(job->activity, row->activity, sizeof(row->activity));
	row->level = job->level;
	row->state = job->state;
	job_text(job->reason, row->reason, sizeof(row->reason));
	job_text(job->text, row->text, sizeof(row->text));
	row->needs.cores = job->needs.cores;
	row->needs.mem_mib = job->needs.mem_mib;
	row->needs.disk_mib = job->needs.disk_mib;
	row->needs.runtime_s = job->needs.runtime_s;
	row->submitted = job->submitted;
	row->finished = om_job_is_final(job->state) ? job->submitted : (struct om_wall){ 0 };
	row->not_before = job->not_before;
	row->expires = job->expires;
	row->attempts_max = job->attempts_max == 0 ? 1 : job->attempts_max;
	row->after_count = (uint32_t)job->after_count;
	row->held = job->held;
	row->requeue = job->requeue;
	row->in_array = job->in_array;
	row->array_limit = job->array_limit;
	row->sealed = job->stored.len > 0;
	if (!om_hash(sq->hasher, job->spec, row->spec_hash)) {
		return sq_why(sq, OM_ERR_NOMEM, "no memory for a hash");
	}
	return OM_OK;
}

/* The id exists: is it the same job once more? */
static enum om_err
put_again(struct om_sqlite *sq, const struct om_job_row *want, bool *existed,
	  struct om_job_row *row)
{
	struct om_job_row there;
	enum om_err err;

	err = sq_job_get(&sq->st, &want->id, &there);
	if (err != OM_OK) {
		return err;
	}
	if (strcmp(there.requester.text, want->requester.text) != 0 ||
	    memcmp(there.spec_hash, want->spec_hash, OM_HASH_LEN) != 0) {
		return sq_why(sq, OM_ERR_EXISTS, "there is another job with the id %s",
			      want->id.text);
	}
	*existed = true;
	*row = there;
	return OM_OK;
}

/* What a job has when it is put. */
static void
job_fields(struct om_sqlite *sq, const struct om_job_row *row)
{
	sq_log_u64(sq, row->seq);
	sq_log_i64(sq, row->rank);
	sq_log_text(sq, row->id.text);
	sq_log_text(sq, row->requester.text);
	sq_log_text(sq, row->network.text);
	sq_log_text(sq, row->lang);
	sq_log_text(sq, row->activity);
	sq_log_i64(sq, row->level);
	sq_log_text(sq, om_job_state_text(row->state));
	sq_log_text(sq, row->reason);
	sq_log_text(sq, row->text);
	sq_log_i64(sq, row->needs.cores);
	sq_log_u64(sq, row->needs.mem_mib);
	sq_log_u64(sq, row->needs.disk_mib);
	sq_log_u64(sq, row->needs.runtime_s);
	sq_log_i64(sq, row->submitted.ns);
	sq_log_wall(sq, row->finished);
	sq_log_wall(sq, row->not_before);
	sq_log_wall(sq, row->expires);
	sq_log_i64(sq, row->attempts_max);
	sq_log_i64(sq, row->after_count);
	sq_log_i64(sq, row->held);
	sq_log_i64(sq, row->requeue);
	sq_log_bin(sq, (struct om_bin){ row->spec_hash, OM_HASH_LEN });
	if (row->in_array) {
		sq_log_i64(sq, row->array_limit);
	} else {
		sq_log_str(sq, (struct om_str){ NULL, 0 });
	}
	sq_log_i64(sq, row->sealed);
}

/* What it has when it ended, besides. */
static void
job_result_fields(struct om_sqlite *sq, const struct om_job_row *row)
{
	sq_log_i64(sq, row->result.exited);
	sq_log_i64(sq, row->result.exit_code);
	sq_log_i64(sq, row->result.signal);
	sq_log_u64(sq, row->result.cpu_ms);
	sq_log_u64(sq, row->result.wall_ms);
	sq_log_u64(sq, row->result.mem_peak_kib);
	sq_log_u64(sq, row->result.rx_bytes);
	sq_log_u64(sq, row->result.tx_bytes);
	sq_log_u64(sq, row->result.dropped_bytes);
	sq_log_u64(sq, row->result.boot_ms);
	sq_log_wall(sq, row->result.handshake);
	sq_log_i64(sq, row->has_output);
}

void
sq_job_insert(struct om_sqlite *sq, const struct om_job_row *row, bool grown)
{
	sq_log_stmt(sq, grown ? SQ_JOB_INSERT_GROWN : SQ_JOB_INSERT);
	job_fields(sq, row);
	if (grown) {
		sq_log_wall(sq, row->picked);
		sq_log_wall(sq, row->started);
		sq_log_i64(sq, row->attempts);
		job_result_fields(sq, row);
	}
}

/* Into the log; the tables get it as it is when they are written. */
static enum om_err
put_job(struct om_sqlite *sq, const struct om_job_row *row, uint64_t id_hash, bool *inserted)
{
	int64_t there = 0;
	enum om_err err = OM_ERR_NOT_FOUND;

	if (om_id_filter_may_have(sq->ids, id_hash)) {
		err = sq_job_seq(sq, &row->id, &there);
	}
	*inserted = err == OM_ERR_NOT_FOUND;
	if (!*inserted) {
		return err;
	}
	om_id_filter_add(sq->ids, id_hash);
	sq_job_insert(sq, row, false);
	err = sq_log_only(sq);
	return err == OM_OK ? sq_rows_born(sq, row) : err;
}

static enum om_err
put_spec(struct om_sqlite *sq, uint64_t seq, struct om_bin spec)
{
	sq_log_stmt(sq, SQ_SPEC_INSERT);
	sq_log_u64(sq, seq);
	sq_log_bin(sq, spec);
	return sq_log_later(sq);
}

static enum om_err
put_after(struct om_sqlite *sq, const struct om_job_new *job, uint64_t seq,
	  const int64_t others[OM_JOB_AFTER_MAX])
{
	enum om_err err = OM_OK;

	for (size_t i = 0; err == OM_OK && i < job->after_count; i++) {
		sq_log_stmt(sq, SQ_AFTER_INSERT);
		sq_log_u64(sq, seq);
		sq_log_i64(sq, others[i]);
		sq_log_text(sq, job->after[i].when == OM_AFTER_END ? "end" : "success");
		err = sq_log_later(sq);
	}
	return err;
}

enum om_err
sq_job_put(struct om_store *st, const struct om_job_new *job, bool *existed, struct om_job_row *row)
{
	struct om_sqlite *sq = sq_of(st);
	int64_t others[OM_JOB_AFTER_MAX];
	uint64_t id_hash = 0;
	bool inserted = false;
	enum om_err err;
	size_t i;

	*existed = false;
	err = sq_writable(sq);
	if (err == OM_OK) {
		err = put_check(sq, job);
	}
	if (err == OM_OK) {
		/* put_row lasts as long as a fetch */
		id_hash = om_id_filter_hash(sq->ids, job->id.text);
		sq_rows_expect(sq, &job->id);
		err = put_row(sq, job, row);
	}
	/* A second submit may come when what it waited for is long gone: the id goes first. */
	if (err == OM_OK && job->after_count > 0 && sq_job_seq(sq, &job->id, &others[0]) == OM_OK) {
		return put_again(sq, row, existed, row);
	}
	for (i = 0; err == OM_OK && i < job->after_count; i++) {
		err = sq_job_seq(sq, &job->after[i].id, &others[i]);
	}
	if (err == OM_OK) {
		err = put_job(sq, row, id_hash, &inserted);
	}
	if (err != OM_OK) {
		return err;
	}
	if (!inserted) {
		return put_again(sq, row, existed, row);
	}
	sq->now.next_seq++;
	err = put_spec(sq, row->seq, job->stored.len > 0 ? job->stored : job->spec);
	if (err == OM_OK) {
		err = put_after(sq, job, row->seq, others);
	}
	if (err == OM_OK) {
		err = sq_audit_notes(sq, job->submitted, job->notes, job->note_count, row);
	}
	if (err == OM_OK) {
		err = sq_count_move(sq, OM_JOB_STATES, row->state, job->submitted);
	}
	return err;
}

void
sq_job_update(struct om_sqlite *sq, const struct om_job_row *row, bool live)
{
	sq_log_stmt(sq, live ? SQ_JOB_UPDATE_LIVE : SQ_JOB_UPDATE);
	sq_log_u64(sq, row->seq);
	sq_log_i64(sq, row->rank);
	sq_log_i64(sq, row->level);
	sq_log_text(sq, om_job_state_text(row->state));
	sq_log_text(sq, row->reason);
	sq_log_text(sq, row->text);
	sq_log_wall(sq, row->picked);
	sq_log_wall(sq, row->started);
	sq_log_wall(sq, row->finished);
	sq_log_wall(sq, row->not_before);
	sq_log_wall(sq, row->expires);
	sq_log_i64(sq, row->attempts);
	sq_log_i64(sq, row->held);
	job_result_fields(sq, row);
}

enum om_err
sq_job_spec_set(struct om_store *st, const struct om_job_id *id, struct om_bin spec)
{
	struct om_sqlite *sq = sq_of(st);
	int64_t seq = 0;
	enum om_err err;

	err = sq_writable(sq);
	if (err == OM_OK) {
		err = sq_job_seq(sq, id, &seq);
	}
	if (err != OM_OK) {
		return err;
	}
	sq_log_stmt(sq, SQ_SPEC_SET);
	sq_log_i64(sq, seq);
	sq_log_bin(sq, spec);
	return sq_log_run(sq);
}

/* May this change be?  The row tells the caller what the job is instead. */
static enum om_err
move_check(struct om_sqlite *sq, const struct om_job_row *row, const struct om_job_change *change)
{
	if (change->attempt != 0 && change->attempt != row->attempts) {
		return sq_why(sq, OM_ERR_STATE, "job %s is in attempt %" PRIu32 ", not %" PRIu32,
			      row->id.text, row->attempts, change->attempt);
	}
	if (!om_job_may_become(row->state, change->to)) {
		return sq_why(sq, OM_ERR_STATE, "job %s is %s and cannot become %s", row->id.text,
			      om_job_state_text(row->state), om_job_state_text(change->to));
	}
	return OM_OK;
}

static void
move_apply(struct om_job_row *row, const struct om_job_change *change)
{
	row->state = change->to;
	job_text(change->reason, row->reason, sizeof(row->reason));
	job_text(change->text, row->text, sizeof(row->text));
	row->finished = om_job_is_final(change->to) ? change->at : (struct om_wall){ 0 };
	switch (change->to) {
	case OM_JOB_QUEUED:
		row->picked = (struct om_wall){ 0 };
		row->started = (struct om_wall){ 0 };
		row->expires = (struct om_wall){ 0 };
		break;
	case OM_JOB_PROVISIONING:
		row->attempts++;
		row->picked = change->at;
		memset(&row->result, 0, sizeof(row->result));
		break;
	case OM_JOB_RUNNING:
		row->started = change->at;
		break;
	default:
		break;
	}
	if (change->set_level) {
		row->level = change->level;
	}
	if (change->not_before.ns != 0) {
		row->not_before = change->not_before;
	}
	if (change->expires.ns != 0) {
		row->expires = change->expires;
	}
	if (change->result != NULL) {
		row->result = *change->result;
	}
}

enum om_err
sq_job_move(struct om_store *st, const struct om_job_id *id, const struct om_job_change *change,
	    struct om_job_row *row)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_job_row own;
	enum om_job_state from;
	enum om_err err;

	OM_ASSERT(change->note.event.len > 0);
	if (row == NULL) {
		row = &own;
	}
	err = sq_writable(sq);
	if (err == OM_OK) {
		err = sq_job_get(st, id, row);
	}
	if (err == OM_OK) {
		err = move_check(sq, row, change);
	}
	if (err != OM_OK) {
		return err;
	}
	from = row->state;
	move_apply(row, change);
	if (change->to == OM_JOB_PROVISIONING && row->attempts > 1) {
		err = sq_output_drop(sq, (int64_t)row->seq);
	}
	if (err == OM_OK) {
		err = sq_rows_changed(sq, row);
	}
	if (err == OM_OK) {
		err = sq_audit_notes(sq, change->at, &change->note, 1, row);
	}
	if (err == OM_OK) {
		err = sq_count_move(sq, from, change->to, change->at);
	}
	if (err == OM_OK && change->result != NULL && change->result->wall_ms > 0) {
		err = sq_count_ran(sq, row->requester.text, change->result->wall_ms, change->at);
	}
	return err;
}

static void
place_apply(struct om_job_row *row, const struct om_job_place *place)
{
	if (place->set_level) {
		row->level = place->level;
	}
	if (place->set_rank) {
		row->rank = place->rank;
	}
	if (place->set_held) {
		row->held = place->held;
	}
	if (place->set_not_before) {
		row->not_before = place->not_before;
	}
	if (place->set_text) {
		job_text(place->reason, row->reason, sizeof(row->reason));
		job_text(place->text, row->text, sizeof(row->text));
	}
}

enum om_err
sq_job_place(struct om_store *st, const struct om_job_id *id, const struct om_job_place *place,
	     struct om_job_row *row)
{
	struct om_sqlite *sq = sq_of(st);
	struct om_job_row own;
	enum om_err err;

	if (row == NULL) {
		row = &own;
	}
	err = sq_writable(sq);
	if (err == OM_OK) {
		err = sq_job_get(st, id, row);
	}
	if (err == OM_OK && om_job_is_final(row->state)) {
		err = sq_why(sq, OM_ERR_STATE, "job %s is %s", id->text,
			     om_job_state_text(row->state));
	}
	if (err != OM_OK) {
		return err;
	}
	place_apply(row, place);
	err = sq_rows_changed(sq, row);
	if (err == OM_OK && place->note.event.len > 0) {
		err = sq_audit_notes(sq, place->at, &place->note, 1, row);
	}
	return err;
}
