/* SPDX-License-Identifier: ISC */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "actors/ledger_impl.h"
#include "base/log.h"

/* The audit as messages, its verification in pieces between other requests, and the counts. */

#define VERIFY_ROWS 4000 /* a few milliseconds */
#define AUDIT_LOOKS 4000 /* rows that one audit.list looks at: everybody's commits wait for it */

/* --- counts ------------------------------------------------------------------------------------- */

static struct om_wall
count_midnight(struct om_wall now)
{
	time_t t = (time_t)(now.ns / OM_NS_PER_S);
	struct tm day;

	if (localtime_r(&t, &day) == NULL) {
		return now;
	}
	day.tm_hour = day.tm_min = day.tm_sec = 0;
	day.tm_isdst = -1;
	t = mktime(&day);
	return t == (time_t)-1 ? now : (struct om_wall){ (int64_t)t * OM_NS_PER_S };
}

enum om_err
ledger_on_count(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	struct om_ledger_counts *counts = om_arena_alloc(&l->arena, sizeof(*counts));
	struct om_pair *pairs = om_arena_alloc(&l->arena, OM_JOB_STATES * sizeof(*pairs));
	uint64_t now[OM_JOB_STATES], today[OM_JOB_STATES];
	enum om_err err;
	char text[24];
	unsigned i, n = 0;

	if (counts == NULL || pairs == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_store_counts(l->store, now);
	if (err == OM_OK) {
		err = om_store_counts_since(l->store, count_midnight(ledger_now(l)), today);
	}
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	for (i = 0; i < OM_JOB_STATES; i++) {
		if (om_job_is_final(i) && today[i] > 0) {
			(void)snprintf(text, sizeof(text), "%" PRIu64, today[i]);
			pairs[n++] = (struct om_pair){ om_str_of(om_job_state_text(i)),
						       ledger_keep(l, text) };
		}
	}
	OM_SET(counts, ledger_counts, pending, now[OM_JOB_PENDING]);
	OM_SET(counts, ledger_counts, today, ((struct om_pairs){ pairs, n }));
	return ledger_answer_read(sv, l, in, OM_MSG_LEDGER_COUNTS, counts);
}

/* --- the audit ---------------------------------------------------------------------------------- */

struct audit_page {
	struct ledger *l;
	struct om_audit_table *out;
	bool failed;
};

static bool
audit_add(void *arg, const struct om_audit_row *row)
{
	struct audit_page *p = arg;
	struct om_arena *arena = &p->l->arena;
	struct om_audit_entry *e = &p->out->entries.v[p->out->entries.n];
	char *hex = om_arena_alloc(arena, 2 * OM_HASH_LEN + 1);
	struct om_str *fields[] = { &e->event,      &e->job,      &e->peer,
				    &e->network_id, &e->activity, &e->details };
	size_t i;

	if (hex == NULL) {
		p->failed = true;
		return false;
	}
	ledger_audit_entry(row, hex, e);
	for (i = 0; i < OM_COUNT(fields); i++) {
		if (fields[i]->ptr != NULL) {
			fields[i]->ptr = om_arena_str(arena, *fields[i]);
			p->failed = p->failed || fields[i]->ptr == NULL;
		}
	}
	p->out->entries.n += !p->failed;
	return !p->failed;
}

enum om_err
ledger_on_audit(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_audit_query *m = in->body;
	const size_t limit = ledger_limit(m->limit);
	struct om_audit_filter filter = { .after_seq = m->after_seq,
					  .since = ledger_wall(m->since_ms),
					  .job = m->job.len > 0 ? m->job : (struct om_str){ 0 },
					  .looks = AUDIT_LOOKS };
	struct audit_page p = { .l = l, .out = om_arena_alloc(&l->arena, sizeof(*p.out)) };
	bool more = false;
	enum om_err err;

	if (p.out == NULL) {
		return OM_ERR_NOMEM;
	}
	p.out->entries.v = om_arena_alloc(&l->arena, limit * sizeof(*p.out->entries.v));
	if (p.out->entries.v == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_store_audit_each(l->store, &filter, limit, audit_add, &p, &more);
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	OM_SET(p.out, audit_table, scanned, filter.after_seq);
	OM_SET(p.out, audit_table, more, more);
	return p.failed ? OM_ERR_NOMEM : ledger_answer_read(sv, l, in, OM_MSG_AUDIT_TABLE, p.out);
}

enum om_err
ledger_on_audit_verify(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	struct ledger_verify *v = calloc(1, sizeof(*v));

	if (v == NULL) {
		return OM_ERR_NOMEM;
	}
	if (STAILQ_EMPTY(&l->verifying)) {
		memset(&l->check, 0, sizeof(l->check));
	}
	v->rq = om_service_later(sv, in);
	STAILQ_INSERT_TAIL(&l->verifying, v, link);
	ledger_step_soon(sv, l);
	return OM_OK;
}

/* Those who asked while it ran get the same report: the chain is read from its start to its end. */
static void
verify_report(struct om_service *sv, struct ledger *l, enum om_err err)
{
	const struct om_audit_check *c = &l->check;
	struct om_audit_report report = { 0 };
	struct ledger_verify *v;

	OM_SET(&report, audit_report, intact, !c->broken);
	OM_SET(&report, audit_report, entries, c->rows);
	if (c->rows > 0) {
		OM_SET(&report, audit_report, first_ms, ledger_ms(c->first));
		OM_SET(&report, audit_report, last_ms, ledger_ms(c->last));
	}
	if (c->broken) {
		OM_SET(&report, audit_report, bad_seq, c->bad_seq);
		OM_SET(&report, audit_report, text, om_str_of(c->text));
		om_error("ledger.audit_broken", "%s", c->text);
	}
	while ((v = STAILQ_FIRST(&l->verifying)) != NULL) {
		STAILQ_REMOVE_HEAD(&l->verifying, link);
		if (err == OM_OK) {
			om_service_reply_to(sv, &v->rq, OM_MSG_AUDIT_REPORT, &report);
		} else {
			om_service_reply_err_to(sv, &v->rq, err, om_store_why(l->store));
		}
		free(v);
	}
}

void
ledger_verify_step(struct om_service *sv, struct ledger *l)
{
	enum om_err err;

	if (STAILQ_EMPTY(&l->verifying)) {
		return;
	}
	ledger_finish(sv, l); /* rows of a group that fails are other rows afterwards */
	err = om_store_audit_verify(l->store, &l->check, VERIFY_ROWS);
	if (err != OM_OK || l->check.done) {
		verify_report(sv, l, err);
		return;
	}
	ledger_step_soon(sv, l);
}
