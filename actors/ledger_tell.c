/* SPDX-License-Identifier: ISC */
/* What the ledger tells after a commit: the provider of the jobs' new states, the activity_logger of the
 * audit's end. */
#include <stdlib.h>
#include <string.h>
#include "actors/ledger_impl.h"
#include "base/log.h"

/* Keeps an event for later; the row knows the rest. */
static void
event_keep(struct ledger *l, const struct om_job_event *event)
{
	struct ledger_unsent *u = calloc(1, sizeof(*u));

	if (u == NULL || om_job_id_parse(event->job.ptr, event->job.len, &u->id) != OM_OK ||
	    om_job_state_parse(event->state.ptr, event->state.len, &u->to) != OM_OK) {
		om_error("ledger.event", "job %.*s: its %.*s is not told: out of memory",
			 OM_STR_ARG(event->job), OM_STR_ARG(event->state));
		free(u);
		return;
	}
	u->from = OM_JOB_STATES;
	if (event->from.len > 0) {
		(void)!om_job_state_parse(event->from.ptr, event->from.len, &u->from);
	}
	u->at = ledger_wall(event->at_ms);
	STAILQ_INSERT_TAIL(&l->unsent, u, link);
}

void
ledger_tell_group(struct om_service *sv, struct ledger *l, const struct ledger_events *events)
{
	struct ledger_event *e;
	enum om_err err;

	STAILQ_FOREACH(e, events, link)
	{
		/* Behind one that waits they all wait: order. */
		err = STAILQ_EMPTY(&l->unsent)
			  ? om_service_send(sv, OM_PROVIDER, OM_MSG_JOB_EVENT, &e->body)
			  : OM_ERR_FULL;
		if (err == OM_ERR_FULL || err == OM_ERR_NOMEM) {
			event_keep(l, &e->body);
		}
		/* NOT_FOUND, GONE: a provider that starts reads everything from us. */
	}
}

/* Gives false when the provider has no room. */
static bool
unsent_try(struct om_service *sv, struct ledger *l, const struct ledger_unsent *u)
{
	struct om_job_event event;
	struct om_job_row row;
	enum om_err err;
	bool again;

	err = om_store_job_get(l->store, &u->id, &row);
	if (err == OM_ERR_NOT_FOUND) {
		return true;
	}
	if (err != OM_OK) {
		return false;
	}
	/* What is told is what was, also when it has moved on since: then its end was not the last. */
	again = om_job_is_final(u->to) && row.state != u->to;
	row.state = u->to;
	if (!ledger_event_fill(l, &row, u->from, u->at, again, &event)) {
		return false;
	}
	err = om_service_send(sv, OM_PROVIDER, OM_MSG_JOB_EVENT, &event);
	return err != OM_ERR_FULL && err != OM_ERR_NOMEM;
}

/* Only between groups: it uses the arena. */
void
ledger_tell_unsent(struct om_service *sv, struct ledger *l)
{
	struct ledger_unsent *u;

	while ((u = STAILQ_FIRST(&l->unsent)) != NULL && unsent_try(sv, l, u)) {
		STAILQ_REMOVE_HEAD(&l->unsent, link);
		free(u);
		om_arena_reset(&l->arena);
	}
}

struct audit_tell {
	struct om_service *sv;
	struct ledger *l;
};

static bool
audit_tell_row(void *arg, const struct om_audit_row *row)
{
	struct audit_tell *t = arg;
	struct om_audit_entry entry;
	char hex[2 * OM_HASH_LEN + 1];
	enum om_err err;

	ledger_audit_entry(row, hex, &entry);
	err = om_service_send(t->sv, OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_APPENDED, &entry);
	if (err == OM_ERR_FULL || err == OM_ERR_NOMEM) {
		return false; /* next time, or the group after it */
	}
	t->l->audit_sent = row->seq;
	return true;
}

/*
 * One message a group, however many entries it wrote: its last, as it is stored.  Who wants the
 * others reads them (ledger.audit).
 */
void
ledger_tell_audit(struct om_service *sv, struct ledger *l)
{
	struct audit_tell t = { sv, l };
	struct om_audit_filter filter = { 0 };
	struct om_audit_mark head;
	bool more = false;

	l->audit_behind = false;
	if (om_store_audit_head(l->store, &head) != OM_OK || head.seq <= l->audit_sent) {
		return;
	}
	filter.after_seq = head.seq - 1;
	if (om_store_audit_each(l->store, &filter, 1, audit_tell_row, &t, &more) != OM_OK) {
		om_warn("ledger.audit", "entries cannot be told: %s", om_store_why(l->store));
	}
	l->audit_behind = l->audit_sent < head.seq;
}
