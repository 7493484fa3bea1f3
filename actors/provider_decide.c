/* SPDX-License-Identifier: ISC */
/* A submit and the filter: what it is asked, and what its decision makes of the job. */
#include <stdio.h>

#include "actors/provider_submit_impl.h"

static void
keep(struct om_str s, char *out, size_t size)
{
	if (om_str_copy(s, out, size) != OM_OK) {
		out[0] = '\0';
	}
}

void
provider_submit_decided(struct om_service *sv, struct provider *p, struct submit *s,
			const struct om_filter_decision *m)
{
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
provider_submit_ask_filter(const struct submit *s, struct om_filter_request *out)
{
	*out = (struct om_filter_request){ .peer = om_str_of(s->peer) };
	OM_SET(out, filter_request, network_id, om_str_of(s->network));
	OM_SET(out, filter_request, cores, s->cores);
	OM_SET(out, filter_request, mem_mib, s->mem_mib);
	OM_SET(out, filter_request, disk_mib, s->disk_mib);
	OM_SET(out, filter_request, runtime_s, s->runtime_s);
	OM_SET(out, filter_request, gpu, s->body.gpu);
	if (OM_HAS(&s->body, job_submit, activity)) {
		OM_SET(out, filter_request, activity, s->body.activity);
	}
	OM_SET(out, filter_request, operator, s->operator_own);
	if (s->array != NULL) {
		OM_SET(out, filter_request, jobs, s->array->count);
	}
	OM_SET(out, filter_request, peer_jobs, s->peer_jobs);
	OM_SET(out, filter_request, peer_runtime_s, s->peer_runtime_s);
}

/* What the requester has is told as it is now: those that come behind it do not count. */
void
provider_submit_filter(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct om_filter_request has = { 0 };

	provider_books_tell(om_books_page_of(&p->books, s->account, p->wall()), s->opened,
			    s->runtime_s, &has); /* but these */
	s->peer_jobs = has.peer_jobs;
	s->peer_runtime_s = has.peer_runtime_s;
	provider_many_add(sv, p, SUBMIT_AT_FILTER, s);
}
