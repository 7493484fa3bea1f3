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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/names.h"
#include "actors/provider_submit_impl.h"
#include "base/log.h"
#include "base/secret.h"

#define SUBMITS_SPARE 1024
#define ID_TRIES      3 /* a generated id that is taken: 48 random bits, so once is rare */

static struct submit *
submit_of(const struct om_bus_answer *answer)
{
	return (struct submit *)(uintptr_t)answer->cookie;
}

/* From here on it counts as a live job, or not at all. */
static void
submit_uncount(struct provider *p, struct submit *s)
{
	p->submitting -= s->counted;
	s->counted = 0;
	for (; s->opened > 0; s->opened--) { /* each opening gave the same account */
		om_books_close(&p->books, s->account, s->runtime_s, 0, (struct om_wall){ 0 });
	}
	s->account = NULL;
}

/* Used again, cleared: there are as many as requests on their way, and each is larger than what malloc
 * keeps at hand. */
struct submit *
provider_submit_new(struct provider *p)
{
	struct submit *s = LIST_FIRST(&p->spare_submits);

	if (s == NULL) {
		s = malloc(sizeof(*s));
	} else {
		LIST_REMOVE(s, link);
		p->spare_count--;
	}
	if (s != NULL) {
		memset(s, 0, offsetof(struct submit, reason));
		s->reason[0] = s->rule[0] = s->text[0] = '\0';
		LIST_INSERT_HEAD(&p->submits, s, link);
		p->submitting++;
		s->counted = 1;
	}
	return s;
}

void
provider_submit_free(struct provider *p, struct submit *s)
{
	LIST_REMOVE(s, link);
	submit_uncount(p, s);
	if (s->batch == NULL) { /* else they are the batch's, which may be gone */
		om_secret_wipe(s->raw, s->raw_len);
		free(s->raw);
		om_secret_wipe(s->spec, s->spec_len);
		free(s->spec);
	}
	free(s->array);
	om_arena_fini(&s->arena);
	if (p->spare_count < SUBMITS_SPARE) {
		LIST_INSERT_HEAD(&p->spare_submits, s, link);
		p->spare_count++;
	} else {
		free(s);
	}
}

void
provider_submit_fail(struct om_service *sv, struct provider *p, struct submit *s, enum om_err err,
		     const char *text)
{
	if (s->batch != NULL) {
		const struct om_error error = provider_submit_error(err, text);

		provider_batch_failed(sv, p, s->batch, s->place, &error);
	} else {
		om_service_reply_err_to(sv, &s->rq, err, text);
	}
	provider_submit_free(p, s);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void
reply_rejected(struct om_service *sv, struct provider *p, struct submit *s, struct om_str job,
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
	if (s->batch != NULL) {
		provider_batch_failed(sv, p, s->batch, s->place, &error);
	} else {
		om_service_reply_to(sv, &s->rq, OM_MSG_ERROR, &error);
	}
}

static void
reply_accepted(struct om_service *sv, struct provider *p, struct submit *s,
	       const struct om_job_accepted *m)
{
	if (s->batch != NULL) {
		provider_batch_accepted(sv, p, s->batch, s->place, m);
	} else {
		om_service_reply_to(sv, &s->rq, OM_MSG_JOB_ACCEPTED, m);
	}
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
	if (s->array != NULL) {
		OM_SET(&m, job_accepted, array, s->array->count);
	}
	reply_accepted(sv, p, s, &m);
	provider_submit_free(p, s);
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
		provider_submit_fail(sv, p, s, OM_ERR_EXISTS, "the id is taken by another job");
		return;
	}
	(void)provider_adopt(sv, p, info, s);
	if (om_str_is(info->state, om_job_state_text(OM_JOB_REJECTED))) {
		reply_rejected(sv, p, s, info->job, info->reason, info->text,
			       (struct om_str){ NULL, 0 });
	} else {
		struct om_job_accepted m = { .job = info->job, .state = info->state };

		if (s->array != NULL) { /* it was asked for by its first job */
			m.job = om_str_of(s->id.text);
			OM_SET(&m, job_accepted, array, s->array->count);
		}

		OM_SET(&m, job_accepted, level, info->level);
		OM_SET(&m, job_accepted, reason, info->reason);
		OM_SET(&m, job_accepted, text, info->text);
		OM_SET(&m, job_accepted, duplicate, true);
		reply_accepted(sv, p, s, &m);
	}
	provider_submit_free(p, s);
}

/* Its id, or that of the first job of the array. */
static struct om_job_id
first_id(const struct submit *s)
{
	struct om_job_id id = s->id;

	if (s->array != NULL) {
		/* Checked: it fits. */
		(void)!om_job_array_member(om_str_of(s->id.text), s->array->index[0], &id);
	}
	return id;
}

static void
submit_ask_known(struct om_service *sv, struct provider *p, struct submit *s, om_bus_answer_fn fn)
{
	struct om_job_id id = first_id(s);
	struct om_job_ref ref = { .job = om_str_of(id.text) };
	enum om_err err;

	err = om_service_ask(sv, OM_LEDGER, OM_MSG_JOB_GET, &ref, &s->caller, PROVIDER_LEDGER_MS,
			     fn, (uintptr_t)s);
	if (err != OM_OK) {
		provider_submit_fail(sv, p, s, err, om_err_text(err));
	}
}

/* --- the queue -------------------------------------------------------------------------------- */

void
provider_submit_added(struct om_service *sv, struct provider *p, struct submit *s, enum om_err err,
		      const char *text, uint64_t ahead)
{
	switch ((int)err) {
	case OM_OK:
		submit_accepted(sv, p, s, &ahead);
		return;
	case OM_ERR_GONE:
	case OM_ERR_TIMEOUT:
		/* It is durable; with the queue the provider restarts too and recovers it. */
		submit_accepted(sv, p, s, NULL);
		return;
	default:
		provider_move(sv, om_str_of(s->id.text), OM_JOB_REJECTED, om_err_code(err), text);
		provider_submit_fail(sv, p, s, err, text);
	}
}

void
provider_submit_plan(const struct submit *s, struct schedule *out)
{
	*out = (struct schedule){ .id = s->id,
				  .level = s->level,
				  .cores = s->cores,
				  .mem_mib = s->mem_mib,
				  .not_before_s = s->body.not_before,
				  .held = s->body.hold,
				  .waits = s->body.after.n > 0,
				  .array_limit = s->array != NULL ? s->array->limit : 0 };
}

static void
submit_queue(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct schedule plan;

	if (s->body.after.n > 0) { /* it is durable, and its turn comes after those */
		provider_submit_plan(s, &plan);
		provider_schedule(sv, p, &plan);
		submit_accepted(sv, p, s, NULL);
		return;
	}
	provider_many_add(sv, p, SUBMIT_AT_QUEUE, s);
}

/* --- the ledger ------------------------------------------------------------------------------- */

/* What was opened for it before is its own now: it counts all the time, and once. */
static struct live *
submit_live(struct provider *p, struct submit *s, const struct om_job_id *id, uint32_t hash)
{
	struct live *live;

	OM_ASSERT(s->opened > 0);
	live = provider_live_put(p, om_str_of(id->text), hash, s->account, s->runtime_s);
	if (live != NULL) {
		s->opened--;
	} else {
		om_error("provider.live", "job %s: out of memory, its end will not be noticed",
			 id->text);
	}
	return live;
}

static void
submit_expires(struct om_service *sv, struct provider *p, const struct submit *s, struct live *live)
{
	if (live != NULL && provider_live_expires(sv, p, live, s->expires_ns) != OM_OK) {
		om_error("provider.live", "job %s: out of memory, it will not expire", live->id);
	}
}

/* The array is durable: its jobs go their ways one by one, and a refusal of the queue is theirs. */
static void
array_stored(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct schedule plan;

	provider_submit_plan(s, &plan);
	for (uint32_t i = 0; i < s->array->count; i++) {
		struct live *live;

		/* Checked: it fits. */
		(void)!om_job_array_member(om_str_of(s->id.text), s->array->index[i], &plan.id);
		live = submit_live(p, s, &plan.id, om_name_hash(om_str_of(plan.id.text)));
		if (s->state == OM_JOB_QUEUED) {
			provider_schedule(sv, p, &plan);
		} else {
			submit_expires(sv, p, s, live);
		}
	}
	submit_uncount(p, s);
	submit_accepted(sv, p, s, NULL);
}

/* The job is durable. */
static void
submit_stored(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct live *live;

	if (s->state == OM_JOB_REJECTED) {
		reply_rejected(sv, p, s, om_str_of(s->id.text), om_str_of(s->reason),
			       om_str_of(s->text), om_str_of(s->rule));
		provider_submit_free(p, s);
		return;
	}
	if (s->array != NULL) {
		array_stored(sv, p, s);
		return;
	}
	live = submit_live(p, s, &s->id, s->hash);
	submit_uncount(p, s);
	if (s->state == OM_JOB_QUEUED) {
		submit_queue(sv, p, s);
		return;
	}
	submit_expires(sv, p, s, live);
	submit_accepted(sv, p, s, NULL);
}

/* It may be stored all the same. */
static void
submit_look(struct om_service *sv, struct provider *p, const struct submit *s)
{
	struct om_job_id id = s->id;

	for (uint32_t i = 0; i < submit_jobs(s); i++) {
		if (s->array != NULL) {
			/* Checked: it fits. */
			(void)!om_job_array_member(om_str_of(s->id.text), s->array->index[i], &id);
		}
		provider_look(sv, p, om_str_of(id.text), false);
	}
}

void
provider_submit_stored(struct om_service *sv, struct provider *p, struct submit *s, enum om_err err,
		       const char *text, bool duplicate)
{
	if (err == OM_ERR_EXISTS && !s->chosen && ++s->tries < ID_TRIES) {
		s->id = om_job_id_new();
		provider_submit_store(sv, p, s);
	} else if (err != OM_OK) {
		if (err == OM_ERR_TIMEOUT) {
			submit_look(sv, p, s);
		}
		provider_submit_fail(sv, p, s, err, text);
	} else if (duplicate) {
		submit_ask_known(sv, p, s, submit_on_known);
	} else {
		submit_stored(sv, p, s);
	}
}

static void
array_on_stored(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	const struct om_ledger_stored *m = answer->body;

	provider_submit_stored(sv, provider_of(state), submit_of(answer), answer->err, answer->text,
			       answer->err == OM_OK && m->duplicate);
}

/* Into a zeroed one: there is much of it. */
static void
submit_row(const struct submit *s, struct om_job_info *info)
{
	const struct om_job_submit *m = &s->body;

	info->job = om_str_of(s->id.text);
	info->state = om_str_of(om_job_state_text(s->state));
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
	OM_SET(info, job_info, submitted_ms, (uint64_t)(s->stored_ns / OM_NS_PER_MS));
	if (s->state == OM_JOB_PENDING) {
		OM_SET(info, job_info, expires_ms, (uint64_t)(s->expires_ns / OM_NS_PER_MS));
	}
}

/* The ledger need not read a body that has none of these. */
static bool
is_plain(const struct om_job_submit *m)
{
	return m->vpn == NULL && m->retries == 0 && !m->hold && !m->after_any;
}

void
provider_submit_ask_ledger(struct submit *s, struct om_job_info *info, struct om_ledger_submit *out)
{
	submit_row(s, info);
	*out = (struct om_ledger_submit){ .info = info, .spec = { s->spec, s->spec_len } };
	if (s->chosen) {
		OM_SET(out, ledger_submit, chosen, true);
	}
	if (s->body.requeue) {
		OM_SET(out, ledger_submit, requeue, true);
	}
	if (s->array != NULL) {
		OM_SET(out, ledger_submit, array, true);
	}
	if (is_plain(&s->body)) {
		OM_SET(out, ledger_submit, plain, true);
	}
	if (s->body.after.n > 0 && s->state != OM_JOB_REJECTED) {
		OM_SET(out, ledger_submit, after, s->body.after);
	}
	if (OM_HAS(&s->body, job_submit, not_before)) {
		OM_SET(out, ledger_submit, not_before, s->body.not_before);
	}
}

/* All of its jobs or none: an array is a question of its own, behind all that came before it. */
static void
array_store(struct om_service *sv, struct provider *p, struct submit *s)
{
	struct om_ledger_submit m;
	struct om_job_info info = { 0 };
	enum om_err err;

	provider_many_ask(sv, p);
	provider_submit_ask_ledger(s, &info, &m);
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_SUBMIT, &m, NULL, PROVIDER_LEDGER_MS,
			     array_on_stored, (uintptr_t)s);
	if (err != OM_OK) {
		provider_submit_fail(sv, p, s, err, om_err_text(err));
	}
}

void
provider_submit_store(struct om_service *sv, struct provider *p, struct submit *s)
{
	s->stored_ns = p->wall().ns;
	s->expires_ns = s->stored_ns + (int64_t)p->limits.hold_expiry_ms * OM_NS_PER_MS;
	if (s->array != NULL) {
		array_store(sv, p, s);
	} else {
		provider_many_add(sv, p, SUBMIT_AT_LEDGER, s);
	}
}

/* --- from the first look on -------------------------------------------------------------------- */

static enum om_err
submit_decide(struct om_service *sv, struct provider *p, struct submit *s, struct om_why *why)
{
	enum om_err err = provider_submit_limits(p, s, why);

	if (err != OM_OK) {
		return err;
	}
	if (provider_never_fits(p, s)) {
		provider_submit_store(sv, p, s);
	} else {
		provider_submit_filter(sv, p, s);
	}
	return OM_OK;
}

/*
 * The id may be that of a job that is here already: no new job, so no limit and no rule counts it.  If
 * broken: whoever asks again after a lost answer uses up his rate.
 */
static void
submit_on_maybe_known(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct submit *s = submit_of(answer);
	const struct om_job_info *info = answer->body;
	const struct om_job_id id = first_id(s);
	struct om_why why = { "" };
	enum om_err err;

	if (answer->err == OM_OK && om_str_is(info->job, id.text)) { /* not its beginning */
		s->state =
		    OM_JOB_REJECTED; /* never stored: the id is taken, so the ledger compares */
		provider_submit_store(sv, p, s);
	} else {
		err = submit_decide(sv, p, s, &why);
		if (err != OM_OK) {
			provider_submit_fail(sv, p, s, err, why.text);
		}
	}
}

enum om_err
provider_submit_open(const struct provider *p, struct om_why *why)
{
	if (p->draining) {
		return om_why_set(why, OM_ERR_SHUTDOWN, "the daemon is stopping%s%s",
				  p->stop_reason[0] != '\0' ? ": " : "", p->stop_reason);
	}
	return provider_is_ready(p, why);
}

enum om_err
provider_submit_begin(struct om_service *sv, struct provider *p, struct submit *s,
		      const struct om_caller *caller, struct om_why *why)
{
	enum om_err err = provider_submit_check(p, s, caller, why);

	if (err == OM_OK && s->chosen) {
		submit_ask_known(sv, p, s, submit_on_maybe_known);
	} else if (err == OM_OK) {
		err = submit_decide(sv, p, s, why);
	}
	if (err != OM_OK) {
		provider_submit_free(p, s);
	}
	return err;
}

static enum om_err
submit_alone(struct om_service *sv, struct provider *p, const struct om_in *in,
	     struct om_bus_request rq, struct om_why *why)
{
	struct submit *s = provider_submit_new(p);
	enum om_err err;

	if (s == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	err = provider_submit_take(s, in->raw, why);
	if (err != OM_OK) {
		provider_submit_free(p, s);
		return err;
	}
	s->rq = rq;
	return provider_submit_begin(sv, p, s, in->caller, why);
}

enum om_err
provider_on_submit(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	struct om_bus_request rq;
	struct om_why why = { "" };
	enum om_err err = provider_submit_open(p, &why);

	if (err != OM_OK) {
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	rq = om_service_later(sv, in);
	err = submit_alone(sv, p, in, rq, &why);
	if (err != OM_OK) {
		om_service_reply_err_to(sv, &rq, err, why.text);
	}
	return OM_OK;
}

/* The service stops. */
void
provider_submits_fini(struct om_service *sv, struct provider *p)
{
	provider_many_fini(p);
	while (!LIST_EMPTY(&p->submits)) {
		provider_submit_fail(sv, p, LIST_FIRST(&p->submits), OM_ERR_SHUTDOWN,
				     "the daemon is stopping");
	}
	while (!LIST_EMPTY(&p->spare_submits)) {
		struct submit *s = LIST_FIRST(&p->spare_submits);

		LIST_REMOVE(s, link);
		free(s);
	}
}
