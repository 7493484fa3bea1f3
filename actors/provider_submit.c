/* SPDX-License-Identifier: ISC */
/*
 * Submitting a job:  check -> filter -> ledger (durable) -> queue -> answer.
 *
 * 1. The requester is who the connection says, never what the body says.  Only the operator may
 *    name another peer.
 * 2. Nothing is acknowledged before it is durable, and what is acknowledged as queued is in the
 *    queue.  A rejected job is recorded too, then answered with the reason.
 * 3. The row is written before the queue hears of the job, so the trail says accepted before
 *    started.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/job_spec.h"
#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"
#include "base/secret.h"
#include "msg/codec.h"

#define ID_TRIES 3 /* a generated id that is taken: 48 random bits, so once is rare */

struct submit {
	LIST_ENTRY(submit) link;
	struct om_bus_request rq;
	struct om_caller caller;
	struct om_job_id id;
	bool chosen; /* the id, by the client */
	bool over_limit; /* only a repeated submit may pass */
	unsigned tries;
	uint8_t *spec; /* the body as it came; may hold secrets: wiped */
	size_t spec_len;
	struct om_job_submit body; /* views into spec and arena */
	struct om_arena arena;
	char peer[OM_PEER_MAX + 1], network[OM_NETWORK_MAX + 1];
	bool operator_own;
	bool counted; /* in provider.submitting */
	struct om_account *account; /* counts this job until it is live, so that many at once do not
				       slip past a limit */
	uint64_t cores, mem_mib, disk_mib, runtime_s;
	/* the decision */
	enum om_job_state state;
	enum om_job_level level;
	char reason[33], text[513], rule[65];
	int64_t expires_ns;
	enum om_err limit_err; /* over_limit */
};

static struct submit *
submit_of(const struct om_bus_answer *answer)
{
	return (struct submit *)(uintptr_t)answer->cookie;
}

/* From here on it counts as a live job, or not at all. */
static void
submit_uncount(struct provider *p, struct submit *s)
{
	if (s->counted) {
		s->counted = false;
		p->submitting--;
	}
	if (s->account != NULL) {
		om_books_close(&p->books, s->account, 0, p->wall());
		s->account = NULL;
	}
}

static void
submit_free(struct provider *p, struct submit *s)
{
	LIST_REMOVE(s, link);
	submit_uncount(p, s);
	if (s->spec != NULL) {
		om_secret_wipe(s->spec, s->spec_len);
	}
	free(s->spec);
	om_arena_fini(&s->arena);
	free(s);
}

static void
submit_fail(struct om_service *sv, struct provider *p, struct submit *s, enum om_err err,
	    const char *text)
{
	om_service_reply_err_to(sv, &s->rq, err, text);
	submit_free(p, s);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void
reply_rejected(struct om_service *sv, struct om_bus_request *rq, struct om_str job,
	       struct om_str reason, struct om_str text, struct om_str rule)
{
	struct om_pair details[3] = {
		{ OM_STR("job"), job },
		{ OM_STR("reason"), reason },
		{ OM_STR("rule"), rule },
	};
	struct om_error error = { .code = om_str_of(om_err_code(OM_ERR_REJECTED)) };

	OM_SET(&error, error, text, text);
	OM_SET(&error, error, details, ((struct om_pairs){ details, rule.len > 0 ? 3 : 2 }));
	om_service_reply_to(sv, rq, OM_MSG_ERROR, &error);
}

static void
submit_accepted(struct om_service *sv, struct provider *p, struct submit *s, const uint64_t *ahead)
{
	struct om_job_accepted m = { .job = om_str_of(s->id.text),
				     .state = om_str_of(om_job_state_text(s->state)) };

	OM_SET(&m, job_accepted, level, om_str_of(om_job_level_text(s->level)));
	OM_SET(&m, job_accepted, reason, om_str_of(s->reason));
	OM_SET(&m, job_accepted, text, om_str_of(s->text));
	if (ahead != NULL) {
		OM_SET(&m, job_accepted, ahead, *ahead);
	}
	om_service_reply_to(sv, &s->rq, OM_MSG_JOB_ACCEPTED, &m);
	submit_free(p, s);
}

/* The same id, body and requester as before: the same answer. */
static void
submit_on_known(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct submit *s = submit_of(answer);
	const struct om_job_info *info = answer->body;

	if (answer->err != OM_OK) {
		/* Somebody else's job has this id: to this caller it is simply taken. */
		submit_fail(sv, p, s, OM_ERR_EXISTS, "the id is taken by another job");
		return;
	}
	if (om_str_is(info->state, om_job_state_text(OM_JOB_REJECTED))) {
		reply_rejected(sv, &s->rq, info->job, info->reason, info->text,
			       (struct om_str){ NULL, 0 });
	} else {
		struct om_job_accepted m = { .job = info->job, .state = info->state };

		OM_SET(&m, job_accepted, level, info->level);
		OM_SET(&m, job_accepted, reason, info->reason);
		OM_SET(&m, job_accepted, text, info->text);
		OM_SET(&m, job_accepted, duplicate, true);
		om_service_reply_to(sv, &s->rq, OM_MSG_JOB_ACCEPTED, &m);
	}
	submit_free(p, s);
}

static void
submit_ask_known(struct om_service *sv, struct provider *p, struct submit *s, om_bus_answer_fn fn)
{
	struct om_job_ref ref = { .job = om_str_of(s->id.text) };
	enum om_err err;

	err = om_service_ask(sv, OM_LEDGER, OM_MSG_JOB_GET, &ref, &s->caller, PROVIDER_LEDGER_MS,
			     fn, (uintptr_t)s);
	if (err != OM_OK) {
		submit_fail(sv, p, s, err, om_err_text(err));
	}
}

/* --- the queue -------------------------------------------------------------------------------- */

static void
submit_on_added(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct submit *s = submit_of(answer);
	const struct om_queue_added *m = answer->body;

	switch ((int)answer->err) {
	case OM_OK:
		submit_accepted(sv, p, s, &m->ahead);
		return;
	case OM_ERR_GONE:
	case OM_ERR_TIMEOUT:
		/* It is durable; with the queue the provider restarts too and recovers it. */
		submit_accepted(sv, p, s, NULL);
		return;
	default:
		provider_move(sv, om_str_of(s->id.text), OM_JOB_REJECTED, om_err_code(answer->err),
			      answer->text);
		submit_fail(sv, p, s, answer->err, answer->text);
	}
}

static void
submit_queue(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct schedule plan = { .id = s->id,
				 .level = s->level,
				 .cores = s->cores,
				 .mem_mib = s->mem_mib,
				 .not_before_s = s->body.not_before,
				 .held = s->body.hold };
	struct om_queue_add add;
	enum om_err err;

	if (s->body.after.n > 0) { /* it is durable, and its turn comes after those */
		plan.waits = true;
		provider_schedule(sv, p, &plan);
		submit_accepted(sv, p, s, NULL);
		return;
	}
	provider_schedule_add(&plan, om_str_of(s->peer), &add);
	err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_ADD, &add, NULL, PROVIDER_QUEUE_MS,
			     submit_on_added, (uintptr_t)s);
	if (err != OM_OK) {
		provider_move(sv, om_str_of(s->id.text), OM_JOB_REJECTED, om_err_code(err),
			      om_err_text(err));
		submit_fail(sv, p, s, err, om_err_text(err));
	}
}

/* --- the ledger ------------------------------------------------------------------------------- */

static void submit_store(struct om_service *sv, struct provider *p, struct submit *s);

/* The job is durable. */
static void
submit_stored(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct live *live;

	if (s->state == OM_JOB_REJECTED) {
		reply_rejected(sv, &s->rq, om_str_of(s->id.text), om_str_of(s->reason),
			       om_str_of(s->text), om_str_of(s->rule));
		submit_free(p, s);
		return;
	}
	live = provider_live_add(p, om_str_of(s->id.text), om_str_of(s->peer));
	if (live == NULL) {
		om_error("provider.live", "job %s: out of memory, its end will not be noticed",
			 s->id.text);
	}
	submit_uncount(p, s);
	if (s->state == OM_JOB_QUEUED) {
		submit_queue(sv, p, s);
		return;
	}
	if (live != NULL && provider_live_expires(sv, p, live, s->expires_ns) != OM_OK) {
		om_error("provider.live", "job %s: out of memory, it will not expire", s->id.text);
	}
	submit_accepted(sv, p, s, NULL);
}

static void
submit_on_stored(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct submit *s = submit_of(answer);
	const struct om_ledger_stored *m = answer->body;

	if (answer->err == OM_ERR_EXISTS && !s->chosen && ++s->tries < ID_TRIES) {
		s->id = om_job_id_new();
		submit_store(sv, p, s);
	} else if (answer->err != OM_OK) {
		submit_fail(sv, p, s, answer->err, answer->text);
	} else if (m->duplicate) {
		submit_ask_known(sv, p, s, submit_on_known);
	} else {
		submit_stored(sv, p, s);
	}
}

static void
submit_row(const struct submit *s, struct om_wall now, struct om_job_info *info)
{
	const struct om_job_submit *m = &s->body;

	*info = (struct om_job_info){ .job = om_str_of(s->id.text),
				      .state = om_str_of(om_job_state_text(s->state)) };
	OM_SET(info, job_info, reason, om_str_of(s->reason));
	OM_SET(info, job_info, text, om_str_of(s->text));
	OM_SET(info, job_info, peer, om_str_of(s->peer));
	OM_SET(info, job_info, network_id, om_str_of(s->network));
	OM_SET(info, job_info, level, om_str_of(om_job_level_text(s->level)));
	OM_SET(info, job_info, lang, m->lang);
	if (OM_HAS(m, job_submit, activity)) {
		OM_SET(info, job_info, activity, m->activity);
	}
	OM_SET(info, job_info, cores, s->cores);
	OM_SET(info, job_info, mem_mib, s->mem_mib);
	OM_SET(info, job_info, disk_mib, s->disk_mib);
	OM_SET(info, job_info, runtime_s, s->runtime_s);
	OM_SET(info, job_info, submitted_ms, (uint64_t)(now.ns / OM_NS_PER_MS));
	if (s->state == OM_JOB_PENDING) {
		OM_SET(info, job_info, expires_ms, (uint64_t)(s->expires_ns / OM_NS_PER_MS));
	}
}

static void
submit_store(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct om_wall now = p->wall();
	struct om_job_info info;
	struct om_ledger_submit m = { .info = &info, .spec = { s->spec, s->spec_len } };
	uint64_t expiry_ms =
	    p->conf->hold_expiry_ms != 0 ? p->conf->hold_expiry_ms : OM_PROVIDER_HOLD_EXPIRY_MS;
	enum om_err err;

	s->expires_ns = now.ns + (int64_t)expiry_ms * OM_NS_PER_MS;
	submit_row(s, now, &info);
	OM_SET(&m, ledger_submit, chosen, s->chosen);
	OM_SET(&m, ledger_submit, requeue, s->body.requeue);
	if (s->body.after.n > 0 && s->state != OM_JOB_REJECTED) {
		OM_SET(&m, ledger_submit, after, s->body.after);
	}
	if (OM_HAS(&s->body, job_submit, not_before)) {
		OM_SET(&m, ledger_submit, not_before, s->body.not_before);
	}
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_SUBMIT, &m, NULL, PROVIDER_LEDGER_MS,
			     submit_on_stored, (uintptr_t)s);
	if (err != OM_OK) {
		submit_fail(sv, p, s, err, om_err_text(err));
	}
}

/* --- the filter ------------------------------------------------------------------------------- */

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
		submit_fail(sv, p, s, answer->err, answer->text);
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
	submit_store(sv, p, s);
}

static void
submit_filter(struct om_service *sv, struct provider *p, struct submit *s)
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
	OM_SET(&m, filter_request, peer_jobs,
	       om_books_jobs(&p->books, m.peer) - 1); /* but this one */
	OM_SET(&m, filter_request, peer_runtime_s,
	       om_books_ran_ms(&p->books, m.peer, p->wall()) / 1000);
	err = om_service_ask(sv, OM_FILTER_MANAGER, OM_MSG_FILTER_DECIDE, &m, NULL,
			     PROVIDER_FILTER_MS, submit_on_decision, (uintptr_t)s);
	if (err != OM_OK) {
		submit_fail(sv, p, s, err, om_err_text(err));
	}
}

/* --- checks ----------------------------------------------------------------------------------- */

static enum om_err
check_who(const struct provider *p, const struct om_in *in, struct submit *s, struct om_why *why)
{
	const struct om_job_submit *m = in->body;
	bool on_behalf = OM_HAS(m, job_submit, on_behalf) || OM_HAS(m, job_submit, network_id);

	s->caller = *in->caller;
	if (in->caller->role == OM_ROLE_REQUESTER) {
		if (on_behalf) {
			return om_why_set(why, OM_ERR_DENIED,
					  "only the operator submits on behalf of another");
		}
		memcpy(s->peer, in->caller->peer, sizeof(s->peer));
		memcpy(s->network, in->caller->network, sizeof(s->network));
		return OM_OK;
	}
	if (om_str_copy(m->network_id, s->network, sizeof(s->network)) != OM_OK) {
		return om_why_set(why, OM_ERR_INVALID, "network_id is not valid");
	}
	if (m->on_behalf.len > 0) {
		return om_str_copy(m->on_behalf, s->peer, sizeof(s->peer));
	}
	s->operator_own = true;
	if (p->conf->owner_peer != NULL && p->conf->owner_peer[0] != '\0') {
		return om_str_copy(om_str_of(p->conf->owner_peer), s->peer, sizeof(s->peer));
	}
	memcpy(s->peer, in->caller->peer, sizeof(s->peer));
	return OM_OK;
}

static enum om_err
check_spec(struct provider *p, struct submit *s, struct om_why *why)
{
	const struct om_job_submit *m = &s->body;
	struct om_job_spec spec = { 0 };
	enum om_err err;

	om_arena_reset(&p->arena);
	err = om_job_spec_from(m, &p->arena, &spec, why);
	if (err != OM_OK) {
		return err;
	}
	if (spec.tunnel && !p->conf->tunnel_offered) {
		return om_why_set(why, OM_ERR_UNSUPPORTED,
				  "no tunnels are offered here: say network = none");
	}
	if (m->gpu && !p->conf->gpu_offered) {
		return om_why_set(why, OM_ERR_UNSUPPORTED, "no GPU is offered here");
	}
	s->cores = spec.cores;
	s->mem_mib = spec.mem_mib;
	s->disk_mib = spec.disk_mib;
	s->runtime_s = spec.runtime_s;
	s->chosen = OM_HAS(m, job_submit, job);
	if (!s->chosen) {
		s->id = om_job_id_new();
		return OM_OK;
	}
	if (om_job_id_parse(m->job.ptr, m->job.len, &s->id) != OM_OK) {
		return om_why_set(
		    why, OM_ERR_INVALID,
		    "job: an id has letters, digits, '.', '_' and '-' and begins with "
		    "a letter or digit");
	}
	for (size_t i = 0; i < m->after.n; i++) {
		if (om_str_eq(m->after.v[i], m->job)) {
			return om_why_set(why, OM_ERR_INVALID,
					  "after: a job cannot wait for itself");
		}
	}
	return OM_OK;
}

static enum om_err
check_limits(const struct provider *p, const struct submit *s, struct om_why *why)
{
	const struct om_provider_conf *conf = p->conf;
	uint64_t max = conf->jobs_max != 0 ? conf->jobs_max : OM_PROVIDER_JOBS_MAX;

	if (p->live.count + p->submitting > max) { /* this one is counted in submitting */
		return om_why_set(why, OM_ERR_FULL, "%" PRIu64 " jobs have not ended yet", max);
	}
	if (conf->peer_jobs_max != 0 && !s->operator_own &&
	    om_books_jobs(&p->books, om_str_of(s->peer)) >= conf->peer_jobs_max) {
		return om_why_set(why, OM_ERR_LIMIT,
				  "%" PRIu64 " of your jobs have not ended yet, that is the limit",
				  conf->peer_jobs_max);
	}
	return OM_OK;
}

/* More than is lent in all: rejected and recorded, whatever the rules say. */
static bool
never_fits(const struct provider *p, struct submit *s)
{
	const struct om_provider_conf *conf = p->conf;
	uint64_t asked = s->cores, total = conf->cores_total;
	const char *unit = "cores";

	if (total == 0 || asked <= total) {
		asked = s->mem_mib;
		total = conf->mem_mib_total;
		unit = "MiB of memory";
	}
	if (total == 0 || asked <= total) {
		return false;
	}
	s->state = OM_JOB_REJECTED;
	s->level = OM_LEVEL_EXTERNAL;
	(void)snprintf(s->reason, sizeof(s->reason), "never_fits");
	(void)snprintf(s->text, sizeof(s->text),
		       "it wants %" PRIu64 " %s, %" PRIu64 " are lent in all", asked, unit, total);
	return true;
}

/* Over a limit, but the id may be that of a job that is here already. */
static void
submit_on_maybe_known(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct submit *s = submit_of(answer);
	const struct om_job_info *info = answer->body;

	if (answer->err != OM_OK || !om_str_is(info->job, s->id.text)) { /* or its beginning */
		submit_fail(sv, p, s, s->limit_err, s->text);
		return;
	}
	s->state = OM_JOB_REJECTED; /* never stored: the id is taken, so the ledger compares */
	submit_store(sv, p, s);
}

/* --- job.submit ------------------------------------------------------------------------------- */

/* Takes over the body: decoded once more, into memory that lives as long as the submit. */
static enum om_err
submit_copy(struct submit *s, const struct om_in *in, struct om_why *why)
{
	s->spec = malloc(in->raw.len > 0 ? in->raw.len : 1);
	if (s->spec == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	memcpy(s->spec, in->raw.ptr, in->raw.len);
	s->spec_len = in->raw.len;
	return om_body_decode(OM_BODY_job_submit, (struct om_bin){ s->spec, s->spec_len }, &s->body,
			      &s->arena, why);
}

static enum om_err
submit_check(struct provider *p, struct submit *s, const struct om_in *in, struct om_why *why)
{
	enum om_err err = check_who(p, in, s, why);

	if (err == OM_OK) {
		err = submit_copy(s, in, why);
	}
	if (err == OM_OK) {
		err = check_spec(p, s, why);
	}
	if (err == OM_OK) {
		err = check_limits(p, s, why);
		if (err != OM_OK && s->chosen) {
			s->over_limit = true;
			s->limit_err = err;
			(void)snprintf(s->text, sizeof(s->text), "%s", why->text);
			err = OM_OK;
		}
	}
	if (err == OM_OK) {
		s->account = om_books_open(&p->books, om_str_of(s->peer));
		err = s->account != NULL ? OM_OK : om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	return err;
}

enum om_err
provider_on_submit(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	struct om_why why = { "" };
	struct submit *s;
	enum om_err err;

	if (p->draining) {
		return om_service_reply_err(sv, in, OM_ERR_SHUTDOWN, "the daemon is stopping");
	}
	if (!p->ready) {
		return om_service_reply_err(sv, in, OM_ERR_STATE,
					    "starting: the ledger is being read, try again");
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL) {
		return OM_ERR_NOMEM;
	}
	LIST_INSERT_HEAD(&p->submits, s, link);
	p->submitting++;
	s->counted = true;
	err = submit_check(p, s, in, &why);
	if (err != OM_OK) {
		submit_free(p, s);
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	s->rq = om_service_later(sv, in);
	if (s->over_limit) {
		submit_ask_known(sv, p, s, submit_on_maybe_known);
	} else if (never_fits(p, s)) {
		submit_store(sv, p, s);
	} else {
		submit_filter(sv, p, s);
	}
	return OM_OK;
}

/* The service stops. */
void
provider_submits_fini(struct om_service *sv, struct provider *p)
{
	while (!LIST_EMPTY(&p->submits)) {
		submit_fail(sv, p, LIST_FIRST(&p->submits), OM_ERR_SHUTDOWN,
			    "the daemon is stopping");
	}
}
