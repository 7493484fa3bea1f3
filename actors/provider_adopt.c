/* SPDX-License-Identifier: ISC */
/*
 * Rows that nobody has.  A question to the ledger is given up after a while; what it asked for may be
 * written all the same.  The asker was told that the time is over, and the job waits in the ledger with
 * nobody to bring it into the queue.
 *
 * Whoever gives up looks once more: the ledger answers in the order of the requests, so this answer tells
 * the row as that write has left it.  Every row that a verb or a repeated submit comes across is looked at
 * in the same way.
 *
 * 1. What is on its way into `live` is not adopted (`submits`), and what is there is only when it waits for
 *    an approval that the row says it has.  If broken: a job is added twice.
 */
#include <stdlib.h>

#include "actors/names.h"
#include "actors/provider_submit_impl.h"
#include "base/log.h"

#define LOOK_MS 600000 /* then it asks again: it is the ledger that is slow */

struct look {
	LIST_ENTRY(look) link;
	struct om_job_id id;
	bool out; /* it was taken out of the queue */
};

static void look_ask(struct om_service *sv, struct look *look);

static bool
is_on_its_way(const struct provider *p, struct om_str id, const struct submit *but)
{
	const struct submit *s;
	struct om_str array;
	uint32_t index;
	bool member = om_job_array_split(id, &array, &index);

	LIST_FOREACH(s, &p->submits, link)
	{
		if (s != but && (om_str_is(id, s->id.text) ||
				 (member && s->array != NULL && om_str_is(array, s->id.text)))) {
			return true;
		}
	}
	return false;
}

static void
adopt_queued(struct om_service *sv, struct provider *p, const struct om_job_info *info)
{
	struct schedule plan;

	om_warn("provider.adopt", "job %.*s was written after its time was over: queued now",
		OM_STR_ARG(info->job));
	provider_schedule_of(info, &plan);
	provider_schedule(sv, p, &plan);
}

bool
provider_adopt(struct om_service *sv, struct provider *p, const struct om_job_info *info,
	       const struct submit *but)
{
	struct live *live = provider_live_find(p, info->job);
	enum om_job_state state;
	bool known = live != NULL;

	if (!p->ready || om_job_state_parse(info->state.ptr, info->state.len, &state) != OM_OK ||
	    (state != OM_JOB_QUEUED && state != OM_JOB_PENDING) ||
	    is_on_its_way(p, info->job, but)) {
		return false;
	}
	if (known && (state == OM_JOB_PENDING || !provider_live_held(live))) {
		return false;
	}
	if (!known) {
		live = provider_live_add(p, info->job, info->peer, info->runtime_s);
	}
	if (live == NULL) {
		om_error("provider.adopt", "job %.*s: out of memory", OM_STR_ARG(info->job));
		return false;
	}
	if (state == OM_JOB_PENDING) {
		return provider_live_expires(sv, p, live,
					     (int64_t)info->expires_ms * OM_NS_PER_MS) == OM_OK;
	}
	provider_live_decided(sv, p, info->job);
	adopt_queued(sv, p, info);
	return true;
}

/* --- looking ---------------------------------------------------------------------------------- */

static void
look_free(struct look *look)
{
	LIST_REMOVE(look, link);
	free(look);
}

static void
look_on_got(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct look *look = (struct look *)(uintptr_t)answer->cookie;
	const struct om_job_info *info = answer->body;

	if (answer->err == OM_ERR_TIMEOUT) {
		look_ask(sv, look);
		return;
	}
	/* An id that is not there may be the beginning of another. */
	if (answer->err == OM_OK && om_str_is(info->job, look->id.text)) {
		if (!look->out) {
			(void)provider_adopt(sv, p, info, NULL);
		} else if (om_str_is(info->state, om_job_state_text(OM_JOB_QUEUED)) &&
			   provider_live_find(p, info->job) != NULL) {
			adopt_queued(sv, p, info);
		}
	}
	look_free(look);
}

static void
look_ask(struct om_service *sv, struct look *look)
{
	struct om_job_ref ref = { .job = om_str_of(look->id.text) };
	enum om_err err = om_service_ask(sv, OM_LEDGER, OM_MSG_JOB_GET, &ref, NULL, LOOK_MS,
					 look_on_got, (uintptr_t)look);

	if (err != OM_OK) { /* a ledger that has ended takes us with it */
		om_warn("provider.adopt", "job %s: %s", look->id.text, om_err_text(err));
		look_free(look);
	}
}

void
provider_look(struct om_service *sv, struct provider *p, struct om_str id, bool out)
{
	struct look *look = calloc(1, sizeof(*look));

	if (look == NULL || om_str_copy(id, look->id.text, sizeof(look->id.text)) != OM_OK) {
		om_error("provider.adopt", "job %.*s: out of memory", OM_STR_ARG(id));
		free(look);
		return;
	}
	look->out = out;
	LIST_INSERT_HEAD(&p->looks, look, link);
	look_ask(sv, look);
}

void
provider_adopt_fini(struct provider *p)
{
	while (!LIST_EMPTY(&p->looks)) {
		look_free(LIST_FIRST(&p->looks));
	}
}
