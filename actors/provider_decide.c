/* SPDX-License-Identifier: ISC */
/* A submit and the filter: what it is asked, and what its decision makes of the job. */
#include <stdio.h>

#include "actors/names.h"
#include "actors/provider_submit_impl.h"

static struct submit *
submit_of(const struct om_bus_answer *answer)
{
	return (struct submit *)(uintptr_t)answer->cookie;
}

static void
keep(struct om_str s, char *out, size_t size)
{
	if (om_str_copy(s, out, size) != OM_OK) {
		out[0] = '\0';
	}
}

static void
submit_on_decision(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct submit *s = submit_of(answer);
	const struct om_filter_decision *m = answer->body;

	if (answer->err != OM_OK) {
		provider_submit_fail(sv, p, s, answer->err, answer->text);
		return;
	}
	s->state = om_str_is(m->verdict, "accepted")           ? OM_JOB_QUEUED
		   : om_str_is(m->verdict, "pending_approval") ? OM_JOB_PENDING
							       : OM_JOB_REJECTED;
	if (om_job_level_parse(m->level, &s->level) != OM_OK) {
		s->level = OM_LEVEL_EXTERNAL;
	}
	keep(m->reason, s->reason, sizeof(s->reason));
	keep(m->text, s->text, sizeof(s->text));
	if (s->state == OM_JOB_QUEUED && s->body.after.n > 0) {
		(void)snprintf(s->reason, sizeof(s->reason), "dependency");
		(void)snprintf(s->text, sizeof(s->text), "waits for %zu other jobs",
			       s->body.after.n);
	}
	keep(m->rule, s->rule, sizeof(s->rule));
	provider_submit_store(sv, p, s);
}

void
provider_submit_filter(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct om_filter_request m = { .peer = om_str_of(s->peer) };
	enum om_err err;

	OM_SET(&m, filter_request, network_id, om_str_of(s->network));
	OM_SET(&m, filter_request, cores, s->cores);
	OM_SET(&m, filter_request, mem_mib, s->mem_mib);
	OM_SET(&m, filter_request, disk_mib, s->disk_mib);
	OM_SET(&m, filter_request, runtime_s, s->runtime_s);
	OM_SET(&m, filter_request, gpu, s->body.gpu);
	if (OM_HAS(&s->body, job_submit, activity)) {
		OM_SET(&m, filter_request, activity, s->body.activity);
	}
	OM_SET(&m, filter_request, operator, s->operator_own);
	if (s->array != NULL) {
		OM_SET(&m, filter_request, jobs, s->array->count);
	}
	provider_books_tell(p, m.peer, s->opened, s->runtime_s, &m); /* but these */
	err = om_service_ask(sv, OM_FILTER_MANAGER, OM_MSG_FILTER_DECIDE, &m, NULL,
			     PROVIDER_FILTER_MS, submit_on_decision, (uintptr_t)s);
	if (err != OM_OK) {
		provider_submit_fail(sv, p, s, err, om_err_text(err));
	}
}
