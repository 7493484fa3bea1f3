/* SPDX-License-Identifier: ISC */
/*
 * Draining by the operator's word: no new job is taken, what is queued and running goes on.  It is an entry
 * of the ledger's list "queue", where the queue keeps its pause, and queue.resume ends both.
 *
 * 1. It is in force at once, and answered when a restart would not undo it.
 * 2. Recovery asks for it first, and until recovery is over nothing is taken.  If broken: a restart
 *    takes jobs in between.
 */
#include <stdlib.h>

#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"

#define DRAIN_LIST     "queue"
#define DRAIN_KEY      "draining"
#define DRAIN_RETRY_MS 1000

/* A request that waits for the ledger. */
struct drain_ask {
	LIST_ENTRY(drain_ask) link;
	struct om_bus_request rq;
};

static void
drain_set(struct om_service *sv, struct provider *p, bool on, struct om_str reason)
{
	struct om_drain m = { .on = on };

	p->drains = on;
	if (om_str_copy(reason, p->drain_reason, sizeof(p->drain_reason)) != OM_OK) {
		p->drain_reason[0] = '\0';
	}
	om_info("queue.draining", "%s%s%s", on ? "no new jobs are taken" : "jobs are taken again",
		p->drain_reason[0] != '\0' ? ": " : "", p->drain_reason);
	OM_SET(&m, drain, reason, om_str_of(p->drain_reason));
	/* For its counters alone; with a queue that is not there we restart. */
	if (om_service_send(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_DRAINING, &m) != OM_OK) {
		om_debug("queue.draining", "the queue is not told");
	}
}

enum om_err
provider_drain_check(const struct provider *p, struct om_why *why)
{
	if (!p->drains) {
		return OM_OK;
	}
	return om_why_set(why, OM_ERR_DRAINING, "no new jobs are taken%s%s",
			  p->drain_reason[0] != '\0' ? ": " : "", p->drain_reason);
}

/* --- the verbs -------------------------------------------------------------------------------- */

static struct drain_ask *
ask_of(const struct om_bus_answer *answer)
{
	return (struct drain_ask *)(uintptr_t)answer->cookie;
}

static void
ask_end(struct om_service *sv, struct drain_ask *ask, enum om_err err, const char *text)
{
	if (err == OM_OK) {
		om_service_reply_to(sv, &ask->rq, OM_MSG_OK, &(struct om_empty){ 0 });
	} else {
		om_service_reply_err_to(sv, &ask->rq, err, text);
	}
	LIST_REMOVE(ask, link);
	free(ask);
}

static struct drain_ask *
ask_new(struct om_service *sv, struct provider *p, const struct om_in *in)
{
	struct drain_ask *ask = calloc(1, sizeof(*ask));

	if (ask != NULL) {
		ask->rq = om_service_later(sv, in);
		LIST_INSERT_HEAD(&p->drain_asks, ask, link);
	}
	return ask;
}

static void
on_kept(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct om_why why = { "" };

	(void)state;
	if (answer->err != OM_OK) {
		(void)om_why_set(&why, answer->err, "in force, but a restart will undo it: %s",
				 answer->text);
	}
	ask_end(sv, ask_of(answer), answer->err, why.text);
}

/* reason NULL: it is over. */
static void
keep(struct om_service *sv, struct drain_ask *ask, const struct om_str *reason, struct om_str by)
{
	struct om_ledger_set set = { .list = OM_STR(DRAIN_LIST), .key = OM_STR(DRAIN_KEY) };
	enum om_err err;

	if (reason == NULL) {
		OM_SET(&set, ledger_set, remove, true);
	} else {
		OM_SET(&set, ledger_set, value,
		       ((struct om_bin){ (const uint8_t *)reason->ptr, reason->len }));
	}
	if (by.len > 0) {
		OM_SET(&set, ledger_set, by, by);
	}
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_SET, &set, NULL, PROVIDER_LEDGER_MS,
			     on_kept, (uintptr_t)ask);
	if (err != OM_OK) {
		ask_end(sv, ask, err, om_err_text(err));
	}
}

enum om_err
provider_on_drain(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_reason *m = in->body;
	struct drain_ask *ask;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (!p->drain_known) { /* what the ledger has would undo it */
		return om_service_reply_err(sv, in, OM_ERR_STATE,
					    "starting: the ledger is being read, try again");
	}
	ask = ask_new(sv, p, in);
	if (ask == NULL) {
		return OM_ERR_NOMEM;
	}
	drain_set(sv, p, true, m->reason);
	keep(sv, ask, &m->reason, om_str_of(in->caller->peer));
	return OM_OK;
}

static void
resume_on_queue(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);

	if (answer->err != OM_OK || !p->drains) {
		ask_end(sv, ask_of(answer), answer->err, answer->text);
		return;
	}
	drain_set(sv, p, false, (struct om_str){ NULL, 0 });
	keep(sv, ask_of(answer), NULL, (struct om_str){ NULL, 0 });
}

/* The queue first: its pause, and the audit's line with who asked, are its own. */
enum om_err
provider_on_resume(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_empty nothing = { 0 };
	struct drain_ask *ask;
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	ask = ask_new(sv, p, in);
	if (ask == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_RESUME, &nothing, in->caller,
			     PROVIDER_QUEUE_MS, resume_on_queue, (uintptr_t)ask);
	if (err != OM_OK) {
		ask_end(sv, ask, err, om_err_text(err));
	}
	return OM_OK;
}

void
provider_drain_fini(struct om_service *sv, struct provider *p)
{
	while (!LIST_EMPTY(&p->drain_asks)) {
		ask_end(sv, LIST_FIRST(&p->drain_asks), OM_ERR_SHUTDOWN, "the daemon is stopping");
	}
}

/* --- at the start ----------------------------------------------------------------------------- */

static void
known_later(struct om_service *sv)
{
	uint64_t timer;

	if (om_timer_start(om_service_cx(sv), DRAIN_RETRY_MS, 0, PROVIDER_TIMER_RECOVER, &timer) !=
	    OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM);
	}
}

static void
known_on_items(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	const struct om_ledger_items *m = answer->body;

	p->recovering = 0;
	if (answer->err != OM_OK) {
		om_warn("provider.recover", "whether we drain is not known yet: %s", answer->text);
		known_later(sv);
		return;
	}
	for (size_t i = 0; i < m->items.n; i++) {
		const struct om_ledger_item *item = &m->items.v[i];

		if (om_str_is(item->key, DRAIN_KEY)) {
			drain_set(
			    sv, p, true,
			    (struct om_str){ (const char *)item->value.ptr, item->value.len });
		}
	}
	p->drain_known = true;
	provider_recover(sv, p);
}

void
provider_drain_look(struct om_service *sv, struct provider *p)
{
	struct om_ledger_list list = { .list = OM_STR(DRAIN_LIST) };
	enum om_err err;

	p->recovering = 1;
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_LIST, &list, NULL, PROVIDER_LEDGER_MS,
			     known_on_items, 0);
	if (err != OM_OK) {
		p->recovering = 0;
		om_warn("provider.recover", "the ledger cannot be asked yet: %s", om_err_text(err));
		known_later(sv);
	}
}
