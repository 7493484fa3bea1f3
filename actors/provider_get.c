/* SPDX-License-Identifier: ISC */
/*
 * job.get for those outside: the ledger's row, and for a queued job what keeps it now.  The row alone says why
 * it was let in.
 *
 * The ledger decides who may see it.  The queue is asked after that, so a row may be older than the
 * queue's word: what runs by then has no reason to wait.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"
#include "msg/codec.h"

#define GET_QUEUE_MS 5000 /* without its word the row is the answer */

struct get {
	LIST_ENTRY(get) link;
	struct om_bus_request rq;
	uint8_t *raw; /* the row, while the queue is asked */
	size_t raw_len;
};

static struct get *
get_of(const struct om_bus_answer *answer)
{
	return (struct get *)(uintptr_t)answer->cookie;
}

static void
get_free(struct get *get)
{
	LIST_REMOVE(get, link);
	free(get->raw);
	free(get);
}

static void
get_on_waits(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct get *get = get_of(answer);
	const struct om_queue_waits *m = answer->body;
	struct om_job_info info;
	struct om_why why = { "" };
	enum om_err err;

	om_arena_reset(&p->arena);
	err = om_body_decode(OM_BODY_job_info, (struct om_bin){ get->raw, get->raw_len }, &info,
			     &p->arena, &why);
	if (err != OM_OK) {
		om_service_reply_err_to(sv, &get->rq, err, why.text);
		get_free(get);
		return;
	}
	if (answer->err == OM_OK && OM_HAS(m, queue_waits, waits)) {
		OM_SET(&info, job_info, waits, m->waits);
		OM_SET(&info, job_info, waits_text, m->text);
		if (OM_HAS(m, queue_waits, ahead)) {
			OM_SET(&info, job_info, ahead, m->ahead);
		}
	}
	om_service_reply_to(sv, &get->rq, OM_MSG_JOB_INFO, &info);
	get_free(get);
}

/* It waits for others, so the queue does not have it. */
static void
get_dependent(struct om_service *sv, struct get *get, const struct om_job_info *row, size_t others)
{
	struct om_job_info info = *row;
	char text[96];

	(void)snprintf(text, sizeof(text), "it waits for %zu other job%s to end%s", others,
		       others == 1 ? "" : "s", info.held ? ", and is held" : "");
	OM_SET(&info, job_info, waits, OM_STR("dependency"));
	OM_SET(&info, job_info, waits_text, om_str_of(text));
	om_service_reply_to(sv, &get->rq, OM_MSG_JOB_INFO, &info);
	get_free(get);
}

/* true: the answer comes later. */
static bool
get_ask_queue(struct om_service *sv, struct get *get, const struct om_bus_answer *row)
{
	const struct om_job_info *info = row->body;
	struct om_job_ref ref = { .job = info->job };

	get->raw = malloc(row->raw.len);
	if (get->raw == NULL) {
		return false;
	}
	memcpy(get->raw, row->raw.ptr, row->raw.len);
	get->raw_len = row->raw.len;
	return om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_WHY, &ref, NULL, GET_QUEUE_MS,
			      get_on_waits, (uintptr_t)get) == OM_OK;
}

static void
get_on_row(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct get *get = get_of(answer);
	const struct om_job_info *info = answer->body;
	const struct live *live;
	size_t others;

	if (answer->err != OM_OK) {
		if (answer->body != NULL) { /* an error with its details */
			om_service_reply_to(sv, &get->rq, OM_MSG_ERROR, answer->body);
		} else {
			om_service_reply_err_to(sv, &get->rq, answer->err, answer->text);
		}
		get_free(get);
		return;
	}
	(void)provider_adopt(sv, p, info, NULL);
	live = provider_live_find(p, info->job);
	if (om_str_is(info->state, om_job_state_text(OM_JOB_QUEUED)) && live != NULL) {
		others = provider_waits_for(live);
		if (others > 0) {
			get_dependent(sv, get, info, others);
			return;
		}
		if (get_ask_queue(sv, get, answer)) {
			return;
		}
	}
	om_service_reply_to(sv, &get->rq, OM_MSG_JOB_INFO, info);
	get_free(get);
}

enum om_err
provider_on_get(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	struct get *get = calloc(1, sizeof(*get));
	enum om_err err;

	if (get == NULL) {
		return OM_ERR_NOMEM;
	}
	LIST_INSERT_HEAD(&p->gets, get, link);
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_JOB_GET, in->body, in->caller,
			     PROVIDER_LEDGER_MS, get_on_row, (uintptr_t)get);
	if (err != OM_OK) {
		get_free(get);
		return err;
	}
	get->rq = om_service_later(sv, in);
	return OM_OK;
}

void
provider_gets_fini(struct om_service *sv, struct provider *p)
{
	while (!LIST_EMPTY(&p->gets)) {
		struct get *get = LIST_FIRST(&p->gets);

		om_service_reply_err_to(sv, &get->rq, OM_ERR_SHUTDOWN, "the daemon is stopping");
		get_free(get);
	}
}
