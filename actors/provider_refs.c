/* SPDX-License-Identifier: ISC */
/*
 * Verbs that name many jobs: one task each, and an answer that says for which of them it was not done.
 */
#include <stdlib.h>

#include "actors/provider_impl.h"

/* --- those that failed ------------------------------------------------------------------------ */

struct provider_failure {
	STAILQ_ENTRY(provider_failure) link;
	char job[OM_JOB_ID_MAX + 1];
	enum om_err err;
	struct om_why why;
};

void
provider_failures_add(struct provider_verb *verb, struct om_str job, enum om_err err,
		      const char *text)
{
	struct provider_failure *failure;

	failure = verb->failed_count < PROVIDER_FAILED_MAX ? calloc(1, sizeof(*failure)) : NULL;
	if (failure == NULL) {
		return; /* the count is right all the same */
	}
	job.len = job.len < OM_JOB_ID_MAX ? job.len : OM_JOB_ID_MAX;
	(void)!om_str_copy(job, failure->job, sizeof(failure->job));
	failure->err = err;
	(void)om_why_set(&failure->why, err, "%s", text);
	STAILQ_INSERT_TAIL(&verb->failed, failure, link);
	verb->failed_count++;
}

void
provider_failures_free(struct provider_verb *verb)
{
	struct provider_failure *failure;

	while ((failure = STAILQ_FIRST(&verb->failed)) != NULL) {
		STAILQ_REMOVE_HEAD(&verb->failed, link);
		free(failure);
	}
}

void
provider_verb_counted(struct om_service *sv, struct provider_verb *verb)
{
	struct om_count count = { .count = verb->done };
	struct om_ref_failed *rows = NULL;
	struct provider_failure *failure;
	size_t n = 0;

	if (verb->failed_count > 0) {
		rows = calloc(verb->failed_count, sizeof(*rows));
	}
	if (rows != NULL) {
		STAILQ_FOREACH(failure, &verb->failed, link)
		{
			rows[n].job = om_str_of(failure->job);
			rows[n].code = om_str_of(om_err_code(failure->err));
			OM_SET(&rows[n], ref_failed, text, om_str_of(failure->why.text));
			n++;
		}
		OM_SET(&count, count, failed, ((struct om_ref_failed_list){ rows, n }));
	}
	om_service_reply_to(sv, &verb->rq, OM_MSG_COUNTED, &count);
	free(rows);
}

/* --- requests --------------------------------------------------------------------------------- */

static enum om_err
refs_begin(struct om_service *sv, struct provider *p, const struct om_in *in,
	   const struct om_strs *jobs, struct om_str reason, struct provider_verb **out,
	   struct om_why *why)
{
	struct provider_verb *verb;
	enum om_err err = provider_is_ready(p, why);

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (err != OM_OK) {
		return err;
	}
	if (jobs->n == 0) {
		return om_why_set(why, OM_ERR_INVALID, "no job is named");
	}
	verb = provider_verb_new(sv, p, in);
	if (verb == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_str_copy(reason, verb->reason, sizeof(verb->reason));
	if (err != OM_OK) {
		provider_verb_free(p, verb);
		return err;
	}
	*out = verb;
	return OM_OK;
}

static enum om_err
refs_refused(struct om_service *sv, const struct om_in *in, enum om_err err,
	     const struct om_why *why)
{
	return om_service_reply_err(sv, in, err, "%s",
				    why->text[0] != '\0' ? why->text : om_err_text(err));
}

static void
refs_run(struct om_service *sv, struct provider *p, const struct om_in *in,
	 const struct om_strs *jobs, struct provider_verb *verb)
{
	verb->rq = om_service_later(sv, in);
	for (size_t i = 0; i < jobs->n; i++) {
		provider_task_begin(sv, p, verb, jobs->v[i]);
	}
	provider_verb_unpend(sv, p, verb);
}

enum om_err
provider_on_refs(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_job_refs *m = in->body;
	enum provider_trust trust = m->always ? TRUST_NETWORK : TRUST_NOTHING;
	struct provider_verb *verb = NULL;
	struct om_why why = { "" };
	enum om_err err;

	if (OM_HAS(m, job_refs, trust)) {
		if (!om_str_is(m->trust, "peer") && !om_str_is(m->trust, "network")) {
			return om_service_reply_err(sv, in, OM_ERR_INVALID,
						    "trust: peer or network");
		}
		trust = om_str_is(m->trust, "peer") ? TRUST_PEER : TRUST_NETWORK;
	}
	err = refs_begin(sv, p, in, &m->jobs, m->reason, &verb, &why);
	if (err != OM_OK) {
		return refs_refused(sv, in, err, &why);
	}
	verb->trust = trust;
	refs_run(sv, p, in, &m->jobs, verb);
	return OM_OK;
}

enum om_err
provider_on_move(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_job_move *m = in->body;
	struct om_str to = OM_HAS(m, job_move, to) ? m->to : OM_STR("back");
	struct provider_verb *verb = NULL;
	struct om_why why = { "" };
	enum om_job_level level;
	enum om_err err;

	if (!om_str_is(to, "front") && !om_str_is(to, "back")) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID, "to: front or back");
	}
	if (OM_HAS(m, job_move, level) && om_job_level_parse(m->level, &level) != OM_OK) {
		return om_service_reply_err(sv, in, OM_ERR_INVALID,
					    "level: owner, network or external");
	}
	err = refs_begin(sv, p, in, &m->jobs, m->reason, &verb, &why);
	if (err != OM_OK) {
		return refs_refused(sv, in, err, &why);
	}
	(void)!om_str_copy(to, verb->to, sizeof(verb->to)); /* both were parsed: they fit */
	(void)!om_str_copy(m->level, verb->to_level, sizeof(verb->to_level));
	refs_run(sv, p, in, &m->jobs, verb);
	return OM_OK;
}
