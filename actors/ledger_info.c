/* SPDX-License-Identifier: ISC */
#include <string.h>
#include "actors/job_array.h"
#include "actors/ledger_impl.h"
#include "base/parse.h"

/* Rows of the store as messages.  A message outlives the row that it was made from (it waits for the
 * commit), so its strings are copies in the group's arena. */

#define EVIDENCE_LINES 16

struct om_str
ledger_keep(struct ledger *l, const char *text)
{
	const struct om_str s = om_str_of(text);
	char *copy = om_arena_str(&l->arena, s);

	return copy == NULL ? (struct om_str){ 0 } : (struct om_str){ copy, s.len };
}

static struct om_str
info_level(int32_t level)
{
	unsigned i;

	for (i = 0; i < OM_LEVELS; i++) {
		if ((unsigned)level >= om_job_level_priority(i)) {
			return om_str_of(om_job_level_text(i));
		}
	}
	return om_str_of(om_job_level_text(OM_LEVEL_EXTERNAL));
}

#define KEEP(field, member)                                                    \
	do {                                                                   \
		if ((member)[0] != '\0') {                                     \
			OM_SET(info, job_info, field, ledger_keep(l, member)); \
		}                                                              \
	} while (0)
#define TIME(field, member)                                               \
	do {                                                              \
		if ((member).ns != 0) {                                   \
			OM_SET(info, job_info, field, ledger_ms(member)); \
		}                                                         \
	} while (0)

static void
info_result(struct om_job_info *info, const struct om_job_row *row)
{
	const struct om_job_result *r = &row->result;

	if (row->started.ns == 0) {
		return; /* the script did not run: nothing was measured */
	}
	if (r->exited) {
		OM_SET(info, job_info, exit_code, r->exit_code);
	}
	if (r->signal > 0) {
		OM_SET(info, job_info, signal, (uint64_t)r->signal);
	}
	OM_SET(info, job_info, wall_ms, r->wall_ms);
	OM_SET(info, job_info, cpu_ms, r->cpu_ms);
	OM_SET(info, job_info, boot_ms, r->boot_ms);
	OM_SET(info, job_info, mem_peak_kib, r->mem_peak_kib);
	OM_SET(info, job_info, output_dropped, r->dropped_bytes);
	OM_SET(info, job_info, rx_bytes, r->rx_bytes);
	OM_SET(info, job_info, tx_bytes, r->tx_bytes);
	TIME(handshake_ms, r->handshake);
}

/* Where it stands in the queue, and what keeps it. */
static void
info_place(struct om_job_info *info, const struct om_job_row *row)
{
	TIME(not_before_ms, row->not_before);
	if (row->held) {
		OM_SET(info, job_info, held, true);
	}
	if (row->rank != (int64_t)(row->seq << OM_JOB_RANK_SHIFT)) {
		OM_SET(info, job_info, rank, row->rank);
	}
}

static void
info_array(struct om_job_info *info, const struct om_job_row *row)
{
	struct om_str array;
	uint32_t index;

	if (om_job_array_split(info->job, &array, &index)) {
		OM_SET(info, job_info, array, array); /* a view of the copy of its id */
		OM_SET(info, job_info, array_index, index);
	}
	if (row->array_limit > 0) {
		OM_SET(info, job_info, array_limit, row->array_limit);
	}
}

struct om_job_info *
ledger_info(struct ledger *l, const struct om_job_row *row)
{
	struct om_job_info *info = om_arena_alloc(&l->arena, sizeof(*info));

	if (info == NULL) {
		return NULL;
	}
	OM_SET(info, job_info, job, ledger_keep(l, row->id.text));
	OM_SET(info, job_info, state, om_str_of(om_job_state_text(row->state)));
	KEEP(reason, row->reason);
	KEEP(text, row->text);
	KEEP(peer, row->requester.text);
	KEEP(network_id, row->network.text);
	OM_SET(info, job_info, level, info_level(row->level));
	KEEP(lang, row->lang);
	KEEP(activity, row->activity);
	OM_SET(info, job_info, cores, row->needs.cores);
	OM_SET(info, job_info, mem_mib, row->needs.mem_mib);
	OM_SET(info, job_info, disk_mib, row->needs.disk_mib);
	OM_SET(info, job_info, runtime_s, row->needs.runtime_s);
	if (row->attempts > 0) {
		OM_SET(info, job_info, attempt, row->attempts);
	}
	TIME(submitted_ms, row->submitted);
	TIME(started_ms, row->picked);
	TIME(running_ms, row->started);
	TIME(finished_ms, row->finished);
	TIME(expires_ms, row->expires);
	if (row->attempts_max > 1) {
		OM_SET(info, job_info, attempts_max, row->attempts_max);
	}
	if (row->after_count > 0) {
		OM_SET(info, job_info, after_count, row->after_count);
	}
	if (row->in_array) {
		info_array(info, row);
	}
	if (om_job_is_final(row->state)) {
		info_result(info, row);
	} else {
		info_place(info, row);
		ledger_live_show(l, om_mono_now(), info);
	}
	/* One check for all copies: the arena stays full once it is. */
	return om_arena_alloc(&l->arena, 1) == NULL ? NULL : info;
}

/* "name NUL error NUL" back into pairs. */
static bool
info_missing(struct ledger *l, const struct om_job_row *row, uint64_t bytes,
	     struct om_job_info *info)
{
	const struct om_out_ref ref = { .kind = OM_OUT_MISSING };
	struct om_pair *pairs = om_arena_alloc(&l->arena, LEDGER_FILES_MAX * sizeof(*pairs));
	char *text = om_arena_alloc(&l->arena, bytes);
	struct om_str rest = { text, 0 };
	uint64_t size;
	size_t n = 0;

	if (pairs == NULL || text == NULL ||
	    om_store_output_read(l->store, &row->id, ref, 0, text, bytes, &rest.len, &size) !=
		OM_OK) {
		return false;
	}
	while (n < LEDGER_FILES_MAX && om_str_next(&rest, '\0', &pairs[n].key) &&
	       om_str_next(&rest, '\0', &pairs[n].value)) {
		n++;
	}
	if (n > 0) {
		OM_SET(info, job_info, files_missing, ((struct om_pairs){ pairs, n }));
	}
	return true;
}

static bool
info_output(struct ledger *l, const struct om_job_row *row, struct om_job_info *info)
{
	struct om_out_info *outs = l->outs;
	struct om_str *files = NULL;
	size_t count = 0, n = 0, i;

	if (!row->has_output) {
		return true;
	}
	if (om_store_output_list(l->store, &row->id, outs, OM_COUNT(l->outs), &count) != OM_OK) {
		return false;
	}
	if (count > 0) {
		files = om_arena_alloc(&l->arena, LEDGER_FILES_MAX * sizeof(*files));
		if (files == NULL) {
			return false;
		}
	}
	for (i = 0; i < count && i < OM_COUNT(l->outs); i++) {
		if (outs[i].kind == OM_OUT_STDOUT) {
			OM_SET(info, job_info, stdout_bytes, outs[i].size);
		} else if (outs[i].kind == OM_OUT_STDERR) {
			OM_SET(info, job_info, stderr_bytes, outs[i].size);
		} else if (outs[i].kind == OM_OUT_TRUNCATED) {
			OM_SET(info, job_info, output_truncated, true);
		} else if (outs[i].kind == OM_OUT_MISSING) {
			if (!info_missing(l, row, outs[i].size, info)) {
				return false;
			}
		} else if (outs[i].kind == OM_OUT_FILE && n < LEDGER_FILES_MAX) {
			files[n++] = ledger_keep(l, outs[i].name);
		}
	}
	if (n > 0) {
		OM_SET(info, job_info, files, ((struct om_strs){ files, n }));
	}
	return true;
}

/* "key: value" lines back into pairs. */
static bool
info_evidence(struct ledger *l, const struct om_job_row *row, struct om_job_info *info)
{
	const struct om_out_ref ref = { .kind = OM_OUT_EVIDENCE };
	struct om_pair *pairs = om_arena_alloc(&l->arena, EVIDENCE_LINES * sizeof(*pairs));
	char *text = om_arena_alloc(&l->arena, LEDGER_EVIDENCE_MAX);
	struct om_str rest, line, key;
	uint64_t size;
	size_t n = 0;

	if (pairs == NULL || text == NULL) {
		return false;
	}
	rest.ptr = text;
	if (om_store_output_read(l->store, &row->id, ref, 0, text, LEDGER_EVIDENCE_MAX, &rest.len,
				 &size) != OM_OK) {
		return false;
	}
	while (n < EVIDENCE_LINES && om_str_next(&rest, '\n', &line)) {
		struct om_str value = line;

		if (line.len > 0 && om_str_next(&value, ':', &key)) {
			pairs[n++] = (struct om_pair){ om_str_trim(key), om_str_trim(value) };
		}
	}
	if (n > 0) {
		OM_SET(info, job_info, evidence, ((struct om_pairs){ pairs, n }));
	}
	return true;
}

struct om_job_info *
ledger_info_full(struct ledger *l, const struct om_job_row *row)
{
	struct om_job_info *info = ledger_info(l, row);

	if (info == NULL || row->attempts == 0) {
		return info; /* never ran: there is no output */
	}
	if (!info_output(l, row, info)) {
		return NULL;
	}
	if (row->state == OM_JOB_ROGUE_KILLED && !info_evidence(l, row, info)) {
		return NULL;
	}
	return info;
}

bool
ledger_event_fill(struct ledger *l, const struct om_job_row *row, enum om_job_state from,
		  struct om_wall at, bool retry, struct om_job_event *out)
{
	const bool final = om_job_is_final(row->state) && !retry;

	memset(out, 0, sizeof(*out));
	OM_SET(out, job_event, job, ledger_keep(l, row->id.text));
	OM_SET(out, job_event, state, om_str_of(om_job_state_text(row->state)));
	if (from < OM_JOB_STATES) {
		OM_SET(out, job_event, from, om_str_of(om_job_state_text(from)));
	}
	if (row->reason[0] != '\0') {
		OM_SET(out, job_event, reason, ledger_keep(l, row->reason));
	}
	if (row->text[0] != '\0') {
		OM_SET(out, job_event, text, ledger_keep(l, row->text));
	}
	OM_SET(out, job_event, peer, ledger_keep(l, row->requester.text));
	OM_SET(out, job_event, level, info_level(row->level));
	OM_SET(out, job_event, at_ms, ledger_ms(at));
	if (retry) {
		OM_SET(out, job_event, retry, true);
	}
	if (final) {
		OM_SET(out, job_event, final, true);
	}
	/* An attempt's end: what it used.  Queued again: what the queue needs to know. */
	if (final || retry ||
	    (row->state == OM_JOB_QUEUED && from < OM_JOB_STATES && om_job_is_final(from))) {
		OM_SET(out, job_event, info,
		       final ? ledger_info_full(l, row) : ledger_info(l, row));
		if (out->info == NULL) {
			return false;
		}
	}
	return om_arena_alloc(&l->arena, 1) != NULL;
}

void
ledger_audit_entry(const struct om_audit_row *row, char hex[2 * OM_HASH_LEN + 1],
		   struct om_audit_entry *out)
{
	memset(out, 0, sizeof(*out));
	OM_SET(out, audit_entry, seq, row->seq);
	OM_SET(out, audit_entry, at_ms, ledger_ms(row->at));
	OM_SET(out, audit_entry, event, row->event);
	if (row->job.ptr != NULL) {
		OM_SET(out, audit_entry, job, row->job);
	}
	/* The actor of a job's entry is named in its details. */
	OM_SET(out, audit_entry, peer, row->requester.ptr != NULL ? row->requester : row->actor);
	if (row->network.len > 0) {
		OM_SET(out, audit_entry, network_id, row->network);
	}
	if (row->activity.len > 0) {
		OM_SET(out, audit_entry, activity, row->activity);
	}
	if (row->details.len > 0) {
		OM_SET(out, audit_entry, details, row->details);
	}
	om_hex(row->hash, OM_HASH_LEN, hex);
	OM_SET(out, audit_entry, hash, ((struct om_str){ hex, 2 * OM_HASH_LEN }));
}

struct om_str
ledger_event_name(enum om_job_state from, enum om_job_state to)
{
	if (to == OM_JOB_RUNNING) {
		return OM_STR("started");
	}
	if (to == OM_JOB_QUEUED) {
		return from == OM_JOB_RECEIVED  ? OM_STR("accepted")
		       : from == OM_JOB_PENDING ? OM_STR("approved")
						: OM_STR("requeued");
	}
	return om_str_of(om_job_state_text(to));
}
