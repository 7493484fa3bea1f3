/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "actors/job_array.h"
#include "actors/ledger_impl.h"
#include "base/log.h"
#include "msg/codec.h"

/*
 * Requests that change something.  Each handler does its work in the group's transaction and asks
 * for its answer after the commit.  A request that the store refuses is answered at once: it has
 * changed nothing, and the group goes on.
 */

#define TEXT_MAX    2048
#define DETAILS_MAX (OM_JOB_TEXT_MAX + 64) /* of an accepted job */

const struct om_job_submit *
ledger_spec_decode(struct ledger *l, struct om_bin spec)
{
	struct om_job_submit *submit = om_arena_alloc(&l->arena, sizeof(*submit));
	struct om_why why;

	if (submit == NULL ||
	    om_body_decode(OM_BODY_job_submit, spec, submit, &l->arena, &why) != OM_OK) {
		return NULL;
	}
	return submit;
}

/* The provider has to hear of the end of an attempt, and of what comes back from one. */
static bool
event_is_needed(const struct om_job_row *row, enum om_job_state from)
{
	return om_job_is_final(row->state) || (from < OM_JOB_STATES && om_job_is_final(from));
}

static bool
event_add(struct ledger *l, const struct om_job_row *row, enum om_job_state from, struct om_wall at,
	  bool retry)
{
	struct ledger_event *e;

	l->group_moves[row->state]++;
	if (l->unheard && !event_is_needed(row, from)) {
		return true;
	}
	e = om_arena_alloc(&l->arena, sizeof(*e));
	if (e == NULL || !ledger_event_fill(l, row, from, at, retry, &e->body)) {
		om_error("ledger.event", "job %s: its %s is not told: out of memory", row->id.text,
			 om_job_state_text(row->state));
		return false;
	}
	STAILQ_INSERT_TAIL(&l->events, e, link);
	return true;
}

/* --- a new job ---------------------------------------------------------------------------------- */

static enum om_err
submit_after(const struct om_ledger_submit *m, const struct om_job_submit *submit,
	     struct om_job_after after[OM_JOB_AFTER_MAX])
{
	enum om_err err = OM_OK;
	size_t i;

	if (m->after.n > OM_JOB_AFTER_MAX) {
		return OM_ERR_LIMIT;
	}
	for (i = 0; err == OM_OK && i < m->after.n; i++) {
		err = om_job_id_parse(m->after.v[i].ptr, m->after.v[i].len, &after[i].id);
		after[i].when = submit->after_any ? OM_AFTER_END : OM_AFTER_SUCCESS;
	}
	return err;
}

/* A requester's job waits for its own jobs alone: another's does not exist for it. */
static enum om_err
submit_after_own(struct ledger *l, const struct om_ledger_submit *m, const struct om_job_new *job)
{
	struct om_job_row row;
	enum om_err err = OM_OK;

	if (om_str_is(m->info->level, om_job_level_text(OM_LEVEL_OWNER))) {
		return OM_OK;
	}
	for (size_t i = 0; err == OM_OK && i < job->after_count; i++) {
		err = om_store_job_get(l->store, &job->after[i].id, &row);
		if (err == OM_OK && !om_str_is(job->requester, row.requester.text)) {
			err = om_why_set(&l->store->why, OM_ERR_NOT_FOUND, "there is no job %s",
					 row.id.text);
		}
	}
	return err;
}

/* What the message says as the store's new job.  INVALID: its id, state or level is none. */
static enum om_err
submit_job(const struct ledger *l, const struct om_ledger_submit *m,
	   const struct om_job_submit *submit, struct om_job_new *job)
{
	const struct om_job_info *info = m->info;
	enum om_job_level level = OM_LEVEL_EXTERNAL;
	enum om_err err;

	err = om_job_id_parse(info->job.ptr, info->job.len, &job->id);
	if (err == OM_OK) {
		err = om_job_state_parse(info->state.ptr, info->state.len, &job->state);
	}
	if (err == OM_OK && info->level.len > 0) {
		err = om_job_level_parse(info->level, &level);
	}
	if (err != OM_OK || !om_job_may_become(OM_JOB_RECEIVED, job->state)) {
		return OM_ERR_INVALID;
	}
	job->requester = info->peer;
	job->network = info->network_id;
	job->lang = info->lang;
	job->activity = info->activity;
	job->level = (int32_t)om_job_level_priority(level);
	job->reason = info->reason;
	job->text = info->text;
	job->needs = (struct om_job_needs){ .cores = (uint32_t)info->cores,
					    .mem_mib = info->mem_mib,
					    .disk_mib = info->disk_mib,
					    .runtime_s = info->runtime_s };
	job->submitted = info->submitted_ms != 0 ? ledger_wall(info->submitted_ms) : ledger_now(l);
	job->expires = ledger_wall(info->expires_ms);
	job->not_before =
	    ledger_wall(m->not_before > UINT64_MAX / 1000 ? UINT64_MAX : m->not_before * 1000);
	job->attempts_max = (uint32_t)submit->retries + 1;
	job->held = submit->hold;
	job->requeue = m->requeue;
	job->spec = m->spec;
	return OM_OK;
}

static size_t
text_add(char text[DETAILS_MAX], size_t len, struct om_str more)
{
	const size_t n = more.len < DETAILS_MAX - len ? more.len : DETAILS_MAX - len;

	if (n > 0) {
		memcpy(text + len, more.ptr, n);
	}
	return len + n;
}

/* What the audit says of an accepted job. */
static struct om_str
submit_details(struct om_str level, struct om_str more, char text[DETAILS_MAX])
{
	size_t len = text_add(text, 0, OM_STR("priority: "));

	len = text_add(text, len, level);
	if (more.len > 0) {
		len = text_add(text, len, OM_STR("; "));
		len = text_add(text, len, more);
	}
	return (struct om_str){ text, len };
}

static enum om_err
submit_put(struct ledger *l, const struct om_job_new *given, const struct om_ledger_submit *m,
	   bool *existed, struct om_job_row *row)
{
	struct om_job_new job = *given;
	char text[DETAILS_MAX];
	struct om_audit_note notes[2] = {
		{ .event = OM_STR("received"), .actor = job.requester },
		{ .event = ledger_event_name(OM_JOB_RECEIVED, job.state),
		  .actor = OM_STR("filter") },
	};
	enum om_err err;

	notes[1].details =
	    job.state == OM_JOB_QUEUED ? submit_details(m->info->level, job.text, text) : job.text;
	job.notes = notes;
	job.note_count = OM_COUNT(notes);
	err = om_store_job_put(l->store, &job, existed, row);
	if (err == OM_OK && *existed && !m->chosen) {
		/* Two jobs drew the same number: the provider draws again. */
		return om_why_set(&l->store->why, OM_ERR_EXISTS, "the id %s is taken",
				  row->id.text);
	}
	return err;
}

/*
 * Rejected: it is over.  Its hash stays, its body does not: there are keys in it, and whoever is
 * refused must not fill the disk by asking.
 */
static void
submit_forget_body(struct ledger *l, const struct om_job_row *row)
{
	static const uint8_t no_body[] = { 0x80 }; /* an empty map */

	if (om_job_is_final(row->state) &&
	    om_store_job_spec_set(l->store, &row->id,
				  (struct om_bin){ no_body, sizeof(no_body) }) != OM_OK) {
		om_warn("ledger.keys", "job %s keeps its body: %s", row->id.text,
			om_store_why(l->store));
	}
}

enum om_err
ledger_submit_put(struct ledger *l, const struct om_ledger_submit *m,
		  const struct om_job_submit *submit, const struct om_job_array *array,
		  bool *existed, struct om_job_row *row)
{
	struct om_job_after after[OM_JOB_AFTER_MAX];
	struct om_job_new job = { .after = after, .after_count = m->after.n };
	struct om_buf sealed = { 0 };
	enum om_err err = OM_OK;

	if (submit_after(m, submit, after) != OM_OK || submit_job(l, m, submit, &job) != OM_OK) {
		return om_why_set(&l->store->why, OM_ERR_INVALID, "the job's row is not valid");
	}
	job.in_array = array != NULL;
	job.array_limit = array != NULL ? array->limit : 0;
	if (job.after_count > 0 && om_store_job_get(l->store, &job.id, row) == OM_ERR_NOT_FOUND) {
		err = submit_after_own(l, m, &job);
	}
	if (err == OM_OK && submit->vpn != NULL) {
		err = ledger_keys_seal(l, m->spec, &sealed);
		job.stored = (struct om_bin){ sealed.data, sealed.len };
	}
	if (err == OM_OK) {
		err = submit_put(l, &job, m, existed, row);
	}
	om_buf_fini(&sealed);
	if (err == OM_OK && !*existed) {
		submit_forget_body(l, row);
		(void)event_add(l, row, OM_JOB_RECEIVED, row->submitted, false);
	}
	return err;
}

enum om_err
ledger_submit_one(struct om_service *sv, struct ledger *l, const struct om_in *in)
{
	const struct om_ledger_submit *m = in->body;
	const struct om_job_submit *submit = ledger_spec_decode(l, m->spec);
	struct om_ledger_stored *stored;
	struct om_job_row row;
	bool existed = false;
	enum om_err err;

	if (submit == NULL) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "the job's body is not valid");
	}
	err = ledger_begin(l);
	if (err == OM_OK) {
		err = ledger_submit_put(l, m, submit, NULL, &existed, &row);
	}
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	stored = om_arena_alloc(&l->arena, sizeof(*stored));
	if (stored != NULL) {
		OM_SET(stored, ledger_stored, job, ledger_keep(l, row.id.text));
		OM_SET(stored, ledger_stored, state, om_str_of(om_job_state_text(row.state)));
		OM_SET(stored, ledger_stored, duplicate, existed);
	}
	return ledger_answer_later(sv, l, in, OM_MSG_LEDGER_STORED, stored);
}

enum om_err
ledger_on_submit(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_submit *m = in->body;

	return m->array ? ledger_submit_array(sv, ledger_of(state), in)
			: ledger_submit_one(sv, ledger_of(state), in);
}

/* --- a move ------------------------------------------------------------------------------------- */

static void
move_result(const struct om_job_info *info, struct om_job_result *out)
{
	out->exited = OM_HAS(info, job_info, exit_code);
	out->exit_code = (int32_t)info->exit_code;
	out->signal = (int32_t)info->signal;
	out->cpu_ms = info->cpu_ms;
	out->wall_ms = info->wall_ms;
	out->boot_ms = info->boot_ms;
	out->mem_peak_kib = info->mem_peak_kib;
	out->rx_bytes = info->rx_bytes;
	out->tx_bytes = info->tx_bytes;
	out->handshake = ledger_wall(info->handshake_ms);
	out->dropped_bytes = info->output_dropped;
}

/* What the audit says of a move, in words. */
static struct om_str
move_details(const struct om_ledger_move *m, enum om_job_state to, char out[TEXT_MAX])
{
	const struct om_job_info *r = m->result;
	struct om_buf buf = { .max = TEXT_MAX - 1 };
	size_t i, len;

	if (r != NULL && OM_HAS(r, job_info, exit_code)) {
		om_buf_printf(&buf, "exit_code: %" PRId64 ", time: %" PRIu64 "ms", r->exit_code,
			      r->wall_ms);
	}
	if (m->text.len > 0) {
		om_buf_printf(&buf, "%s%.*s", buf.len > 0 ? "; " : "", OM_STR_ARG(m->text));
	}
	if (to == OM_JOB_ROGUE_KILLED && r != NULL) {
		for (i = 0; i < r->evidence.n; i++) {
			om_buf_printf(&buf, "; %.*s: %.*s", OM_STR_ARG(r->evidence.v[i].key),
				      OM_STR_ARG(r->evidence.v[i].value));
		}
	}
	if (m->by.len > 0) {
		om_buf_printf(&buf, "%sby %.*s", buf.len > 0 ? "; " : "", OM_STR_ARG(m->by));
	}
	len = buf.len;
	if (len > 0) {
		memcpy(out, buf.data, len);
	}
	om_buf_fini(&buf);
	return (struct om_str){ out, len };
}

/* The evidence as lines of text, beside the job's output. */
static enum om_err
move_evidence(struct ledger *l, struct om_job_row *row, const struct om_ledger_move *m)
{
	const struct om_out_ref ref = { .kind = OM_OUT_EVIDENCE };
	struct om_buf buf = { .max = LEDGER_EVIDENCE_MAX };
	enum om_err err;
	uint64_t size;
	size_t i;

	if (m->result == NULL || m->result->evidence.n == 0) {
		return OM_OK;
	}
	for (i = 0; i < m->result->evidence.n; i++) {
		om_buf_printf(&buf, "%.*s: %.*s\n", OM_STR_ARG(m->result->evidence.v[i].key),
			      OM_STR_ARG(m->result->evidence.v[i].value));
	}
	/* Lines over the limit are left out; a packet's bytes in hex are far below it. */
	row->has_output = true;
	err = om_store_output_append(l->store, &row->id, ref, OM_OUT_AT_END,
				     (struct om_bin){ buf.data, buf.len }, &size);
	om_buf_fini(&buf);
	return err;
}

static enum om_err
move_truncated(struct ledger *l, struct om_job_row *row, const struct om_ledger_move *m)
{
	const struct om_out_ref ref = { .kind = OM_OUT_TRUNCATED };
	uint64_t size;

	if (m->result == NULL || !m->result->output_truncated) {
		return OM_OK;
	}
	row->has_output = true;
	return om_store_output_append(l->store, &row->id, ref, OM_OUT_AT_END,
				      (struct om_bin){ (const uint8_t *)"1", 1 }, &size);
}

/* Files that the job left where they could not be taken, beside those that were. */
static enum om_err
move_missing(struct ledger *l, struct om_job_row *row, const struct om_ledger_move *m)
{
	const struct om_out_ref ref = { .kind = OM_OUT_MISSING };
	struct om_buf buf = { .max = OM_OUT_CHUNK_MAX };
	enum om_err err = OM_ERR_NOMEM;
	uint64_t size;

	if (m->result == NULL || m->result->files_missing.n == 0) {
		return OM_OK;
	}
	for (size_t i = 0; i < m->result->files_missing.n; i++) {
		const struct om_pair *pair = &m->result->files_missing.v[i];

		om_buf_add(&buf, pair->key.ptr, pair->key.len);
		om_buf_add(&buf, "", 1);
		om_buf_add(&buf, pair->value.ptr, pair->value.len);
		om_buf_add(&buf, "", 1);
	}
	if (!buf.failed) {
		row->has_output = true;
		err = om_store_output_append(l->store, &row->id, ref, OM_OUT_AT_END,
					     (struct om_bin){ buf.data, buf.len }, &size);
	}
	om_buf_fini(&buf);
	return err;
}

enum om_err
ledger_move_apply(struct ledger *l, const struct om_job_id *id, const struct om_job_change *change,
		  const struct om_ledger_move *m, struct om_job_row *row)
{
	enum om_job_state from = row->state, next = change->to;
	enum om_err err;

	err = om_store_job_move(l->store, id, change, row);
	if (err == OM_OK && row->state != OM_JOB_PROVISIONING && row->state != OM_JOB_RUNNING) {
		ledger_live_drop(l, id);
	}
	if (err == OM_OK && m != NULL) {
		err = move_evidence(l, row, m);
	}
	if (err == OM_OK && m != NULL) {
		err = move_missing(l, row, m);
	}
	if (err == OM_OK && m != NULL) {
		err = move_truncated(l, row, m);
	}
	if (err == OM_OK) {
		next = ledger_again_plan(row, from);
		(void)event_add(l, row, from, change->at, next != row->state);
	}
	if (err == OM_OK && next != row->state) {
		from = row->state;
		err = ledger_again(l, row, next, change->at);
		if (err == OM_OK) {
			(void)event_add(l, row, from, change->at, false);
		}
	}
	/* A disk that fails here fails the group as a whole; nothing else refuses a job's end. */
	if (err == OM_OK && om_job_is_final(row->state) && row->sealed &&
	    ledger_scrub(l, id) != OM_OK) {
		om_warn("ledger.keys", "job %s keeps its keys: %s", id->text,
			om_store_why(l->store));
	}
	return err;
}

enum om_err
ledger_on_move(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_ledger_move *m = in->body;
	struct om_job_change change = { .at = ledger_now(l), .reason = m->reason, .text = m->text };
	struct om_job_result result = { 0 };
	char details[TEXT_MAX];
	struct om_job_row row;
	struct om_job_id id;
	enum om_err err;

	if (om_job_id_parse(m->job.ptr, m->job.len, &id) != OM_OK ||
	    om_job_state_parse(m->state.ptr, m->state.len, &change.to) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "no such job or state");
	}
	if (m->result != NULL) {
		move_result(m->result, &result);
		change.result = &result;
	}
	err = ledger_begin(l);
	if (err == OM_OK) {
		err = om_store_job_get(l->store, &id, &row);
	}
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	if (change.to == OM_JOB_QUEUED && om_job_is_final(row.state) &&
	    !ledger_may_run_again(l, &id)) {
		return om_service_reply_err(sv, in, OM_ERR_STATE,
					    "the keys of job %s were erased when it ended: submit "
					    "it again",
					    id.text);
	}
	change.note = (struct om_audit_note){
		.event = ledger_event_name(row.state, change.to),
		.actor = m->by.len > 0 ? m->by : om_str_of(in->from),
		.details = move_details(m, change.to, details),
	};
	err = ledger_move_apply(l, &id, &change, m, &row);
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	if (om_job_is_final(row.state)) {
		ledger_followers_due(l, &id);
	}
	if (!in->wants_answer) {
		return ledger_ok_later(sv, l, in); /* nobody reads the row */
	}
	return ledger_answer_later(sv, l, in, OM_MSG_JOB_INFO, ledger_info(l, &row));
}

/* --- output, lists, audit ----------------------------------------------------------------------- */

/*
 * An append that was not answered in time may have been stored all the same, and comes again: with an
 * offset, only what is missing is added.  A gap is refused (STATE).
 */
static enum om_err
output_append(struct ledger *l, const struct om_job_id *id, struct om_out_ref ref,
	      const struct om_ledger_output *m)
{
	const uint64_t offset = OM_HAS(m, ledger_output, offset) ? m->offset : OM_OUT_AT_END;
	uint64_t size, stored;
	enum om_err err;

	err = om_store_output_append(l->store, id, ref, offset, m->data, &size);
	if (err != OM_ERR_STATE || offset >= size) {
		return err;
	}
	stored = size - offset;
	if (stored >= m->data.len) {
		return OM_OK;
	}
	return om_store_output_append(
	    l->store, id, ref, size,
	    (struct om_bin){ m->data.ptr + stored, m->data.len - (size_t)stored }, &size);
}

enum om_err
ledger_on_output(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_ledger_output *m = in->body;
	struct om_out_ref ref = { .kind = OM_OUT_STDOUT };
	struct om_job_id id;
	enum om_err err;

	if (om_job_id_parse(m->job.ptr, m->job.len, &id) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "no such job");
	}
	if (m->file.len > 0) {
		ref = (struct om_out_ref){ .kind = OM_OUT_FILE, .name = m->file };
	} else if (om_str_is(m->stream, "stderr")) {
		ref.kind = OM_OUT_STDERR;
	} else if (m->stream.len > 0 && !om_str_is(m->stream, "stdout")) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "no such stream");
	}
	err = ledger_begin(l);
	if (err == OM_OK) {
		err = output_append(l, &id, ref, m);
	}
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	ledger_followers_due(l, &id);
	return ledger_ok_later(sv, l, in);
}

enum om_err
ledger_on_set(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_ledger_set *m = in->body;
	char text[256];
	struct om_audit_note note = {
		.event = OM_STR("config_changed"),
		.actor = m->by.len > 0 ? m->by : om_str_of(in->from),
	};
	enum om_err err;

	err = ledger_begin(l);
	if (err == OM_OK && m->remove) {
		err = om_store_entry_del(l->store, m->list, m->key);
		if (err == OM_ERR_NOT_FOUND) {
			return ledger_ok_read(sv, l, in); /* it is as it should be */
		}
	} else if (err == OM_OK) {
		err = om_store_entry_put(l->store, m->list, m->key, m->value);
	}
	(void)snprintf(text, sizeof(text), "%.*s: %s %.*s", OM_STR_ARG(m->list),
		       m->remove ? "removed" : "set", OM_STR_ARG(m->key));
	note.details = om_str_of(text);
	if (err == OM_OK) {
		err = om_store_audit_append(l->store, ledger_now(l), &note);
	}
	return err != OM_OK ? ledger_refuse(sv, l, in, err) : ledger_ok_later(sv, l, in);
}

enum om_err
ledger_on_append(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_audit_entry *m = in->body;
	const struct om_audit_note note = {
		.event = m->event,
		.actor = m->peer.len > 0 ? m->peer : om_str_of(in->from),
		.details = m->details,
	};
	enum om_err err;

	if (m->event.len == 0 || m->event.len > OM_AUDIT_EVENT_MAX) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "an event has 1 to %d bytes",
					    OM_AUDIT_EVENT_MAX);
	}
	err = ledger_begin(l);
	if (err == OM_OK) {
		err = om_store_audit_append(l->store, ledger_now(l), &note);
	}
	return err != OM_OK ? ledger_refuse(sv, l, in, err) : ledger_ok_later(sv, l, in);
}
