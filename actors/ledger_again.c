/* SPDX-License-Identifier: ISC */
/*
 * What follows the end of an attempt, in the same transaction: another attempt, or the job is given
 * up.
 *
 *   failed, timed_out, lost   attempts left:  queued, not before a back-off that doubles
 *                             none left:      dead (only where attempts were asked for)
 *   lost, with requeue        queued at once; dead after OM_LEDGER_REQUEUE_MAX crashes
 *
 * 1. The end of an attempt and what follows are one commit.  If broken: after a crash between them
 *    a job that has attempts left is over.
 * 2. Only an attempt that had begun counts: a job that fails in the queue (what it waited for
 *    failed) is not tried again.
 * 3. A body keeps its private keys for as long as an attempt may follow, and no longer.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "actors/ledger_impl.h"
#include "base/log.h"
#include "base/secret.h"
#include "msg/codec.h"

#define BACKOFF_DEFAULT_S 10
#define BACKOFF_MAX_S     (UINT64_C(24) * 3600)
#define BACKOFF_DOUBLES   17 /* 1 s doubled so often is above BACKOFF_MAX_S */

void
ledger_body_fini(struct om_buf *body)
{
	if (body->data != NULL) {
		om_secret_wipe(body->data, body->cap);
	}
	om_buf_fini(body);
}

/* The job.submit of a stored job, without keys; its views are in `spec`.  NULL: it cannot be read. */
static const struct om_job_submit *
again_body(struct ledger *l, const struct om_job_id *id, struct om_buf *spec)
{
	if (om_store_job_spec(l->store, id, spec) != OM_OK) {
		return NULL;
	}
	return ledger_spec_decode(l, ledger_keys_body(spec));
}

static uint64_t
again_backoff_s(struct ledger *l, const struct om_job_row *row)
{
	struct om_buf spec = { 0 };
	const struct om_job_submit *submit = again_body(l, &row->id, &spec);
	uint64_t wait_s = BACKOFF_DEFAULT_S;
	uint32_t doubles = row->attempts > 0 ? row->attempts - 1 : 0;

	if (submit != NULL && OM_HAS(submit, job_submit, backoff_s)) {
		wait_s = submit->backoff_s;
	}
	ledger_body_fini(&spec);
	wait_s <<= doubles < BACKOFF_DOUBLES ? doubles : BACKOFF_DOUBLES;
	return wait_s < BACKOFF_MAX_S ? wait_s : BACKOFF_MAX_S;
}

enum om_job_state
ledger_again_plan(const struct om_job_row *row, enum om_job_state from)
{
	const bool begun = from == OM_JOB_PROVISIONING || from == OM_JOB_RUNNING;
	const bool failed = row->state == OM_JOB_FAILED || row->state == OM_JOB_TIMED_OUT ||
			    row->state == OM_JOB_LOST;

	if (!begun || !failed) {
		return row->state;
	}
	if (row->attempts < row->attempts_max) {
		return OM_JOB_QUEUED;
	}
	if (row->state == OM_JOB_LOST && row->requeue) {
		return row->attempts < OM_LEDGER_REQUEUE_MAX ? OM_JOB_QUEUED : OM_JOB_DEAD;
	}
	return row->attempts_max > 1 ? OM_JOB_DEAD : row->state;
}

enum om_err
ledger_again(struct ledger *l, struct om_job_row *row, enum om_job_state to, struct om_wall at)
{
	const enum om_job_state from = row->state;
	const bool requeued = from == OM_JOB_LOST && row->requeue;
	const uint64_t wait_s = to == OM_JOB_QUEUED && !requeued ? again_backoff_s(l, row) : 0;
	const struct om_job_id id = row->id;
	char text[OM_JOB_TEXT_MAX + 1];
	struct om_job_change change = { .to = to, .at = at };

	if (to == OM_JOB_DEAD) {
		change.reason = OM_STR("attempts_used");
		(void)snprintf(text, sizeof(text),
			       "given up after %" PRIu32 " attempts; the last: %s%s%.380s",
			       row->attempts, om_job_state_text(from),
			       row->text[0] != '\0' ? ", " : "", row->text);
	} else if (requeued) {
		change.reason = OM_STR("requeued");
		(void)snprintf(text, sizeof(text), "queued again after it was lost in a crash");
	} else {
		change.reason = OM_STR("retry");
		change.not_before.ns = at.ns + (int64_t)wait_s * OM_NS_PER_S;
		(void)snprintf(text, sizeof(text),
			       "attempt %" PRIu32 " of %" PRIu32 " %s%s%.300s; the next in %" PRIu64
			       " s",
			       row->attempts, row->attempts_max, om_job_state_text(from),
			       row->text[0] != '\0' ? ": " : "", row->text, wait_s);
	}
	change.text = om_str_of(text);
	change.note = (struct om_audit_note){ .event = ledger_event_name(from, to),
					      .actor = OM_STR(OM_LEDGER),
					      .details = change.text };
	return om_store_job_move(l->store, &id, &change, row);
}

/* --- private keys ----------------------------------------------------------------------------- */

enum om_err
ledger_scrub(struct ledger *l, const struct om_job_id *id)
{
	struct om_buf spec = { 0 };
	enum om_err err = om_store_job_spec(l->store, id, &spec);

	if (err == OM_OK && ledger_keys_are_sealed(&spec)) {
		err = om_store_job_spec_set(l->store, id, ledger_keys_body(&spec));
		l->keys_left = true; /* in older pages of the log */
	}
	ledger_body_fini(&spec);
	return err;
}

bool
ledger_may_run_again(struct ledger *l, const struct om_job_id *id)
{
	struct om_buf spec = { 0 };
	const struct om_job_submit *submit = again_body(l, id, &spec);
	const bool may = submit != NULL && (submit->vpn == NULL || ledger_keys_are_sealed(&spec));

	ledger_body_fini(&spec);
	return may;
}

/* --- after a crash ---------------------------------------------------------------------------- */

static enum om_err
lost_job(struct ledger *l, struct om_job_row *row)
{
	static const char text[] = "the provider ended while the job was on its way";
	const struct om_job_change change = {
		.to = OM_JOB_LOST,
		.at = ledger_now(l),
		.reason = OM_STR("provider_crash"),
		.text = OM_STR(text),
		.note = { .event = ledger_event_name(row->state, OM_JOB_LOST),
			  .actor = OM_STR(OM_LEDGER),
			  .details = OM_STR(text) },
	};
	const struct om_job_id id = row->id;

	return ledger_move_apply(l, &id, &change, NULL, row);
}

enum om_err
ledger_recover_lost(struct ledger *l)
{
	struct om_job_filter filter = { .states = OM_JOB_BIT(OM_JOB_PROVISIONING) |
						  OM_JOB_BIT(OM_JOB_RUNNING) };
	struct om_job_row rows[16];
	enum om_err err;
	size_t count, i, lost = 0;

	err = ledger_begin(l);
	if (err != OM_OK) {
		return err;
	}
	do {
		err = om_store_job_list(l->store, &filter, rows, OM_COUNT(rows), &count);
		for (i = 0; err == OM_OK && i < count; i++) {
			err = lost_job(l, &rows[i]);
			lost++;
		}
	} while (err == OM_OK && filter.cursor != 0);
	/* Nobody is there to be told: whoever starts after us reads it. */
	STAILQ_INIT(&l->events);
	om_arena_reset(&l->arena);
	l->in_tx = false;
	if (err != OM_OK || lost == 0) {
		om_store_rollback(l->store);
		return err;
	}
	om_warn("ledger.lost", "%zu jobs were on their way when the provider ended", lost);
	return om_store_commit(l->store);
}
