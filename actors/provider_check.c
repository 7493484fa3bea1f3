/* SPDX-License-Identifier: ISC */
/* What a submit must be before the filter is asked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/job_spec.h"
#include "actors/provider_submit_impl.h"
#include "msg/codec.h"

static enum om_err
check_who(const struct provider *p, const struct om_caller *caller, struct submit *s,
	  struct om_why *why)
{
	const struct om_job_submit *m = &s->body;
	bool on_behalf = OM_HAS(m, job_submit, on_behalf) || OM_HAS(m, job_submit, network_id);

	s->caller = *caller;
	if (caller->role == OM_ROLE_REQUESTER) {
		if (on_behalf) {
			return om_why_set(why, OM_ERR_DENIED,
					  "only the operator submits on behalf of another");
		}
		memcpy(s->peer, caller->peer, sizeof(s->peer));
		memcpy(s->network, caller->network, sizeof(s->network));
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
	memcpy(s->peer, caller->peer, sizeof(s->peer));
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
	if (spec.tunnel && p->conf->net != NULL) {
		err = om_jobnet_endpoint_check(p->conf->net, &spec.endpoint, why);
		if (err != OM_OK) {
			return err;
		}
	}
	if (m->gpu && !p->conf->gpu_offered) {
		return om_why_set(why, OM_ERR_UNSUPPORTED, "no GPU is offered here");
	}
	if (p->conf->output_max != 0 && spec.guest.output_max > p->conf->output_max) {
		return om_why_set(why, OM_ERR_LIMIT,
				  "output_max: %" PRIu64 " bytes, at most %" PRIu64
				  " are kept of one job here",
				  spec.guest.output_max, p->conf->output_max);
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
	if (s->array != NULL && m->job.len > OM_ARRAY_ID_MAX) {
		return om_why_set(why, OM_ERR_INVALID,
				  "job: the id of an array has at most %d bytes",
				  (int)OM_ARRAY_ID_MAX);
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
check_array(struct provider *p, struct submit *s, struct om_why *why)
{
	enum om_err err;

	if (!OM_HAS(&s->body, job_submit, array)) {
		return OM_OK;
	}
	s->array = calloc(1, sizeof(*s->array));
	if (s->array == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	err = om_job_array_parse(s->body.array, s->array, why);
	if (err == OM_OK && s->spec_len * s->array->count > OM_ARRAY_BYTES_MAX) {
		err = om_why_set(why, OM_ERR_TOO_BIG,
				 "array: %" PRIu32 " bodies of %zu bytes are over %" PRIu64 " MiB",
				 s->array->count, s->spec_len, OM_ARRAY_BYTES_MAX >> 20);
	}
	if (err == OM_OK) { /* one was counted before it was known to be an array */
		p->submitting += s->array->count - 1;
		s->counted += s->array->count - 1;
	}
	return err;
}

static enum om_err
open_account(struct provider *p, struct submit *s, struct om_why *why)
{
	while (s->opened < submit_jobs(s)) {
		s->account = om_books_open(&p->books, om_str_of(s->peer), s->runtime_s);
		if (s->account == NULL) {
			return om_why_set(why, OM_ERR_NOMEM, "out of memory");
		}
		s->opened++;
	}
	return OM_OK;
}

enum om_err
provider_room(const struct provider *p, struct om_str peer, uint64_t jobs, bool operator_own,
	      struct om_why *why)
{
	const struct om_provider_limits *max = &p->limits;
	enum om_err err = provider_drain_check(p, why);

	if (err != OM_OK) {
		return err;
	}
	if (p->live.count + p->submitting + jobs > max->jobs_max) {
		return om_why_set(why, OM_ERR_FULL, "%" PRIu64 " jobs have not ended yet",
				  max->jobs_max);
	}
	if (max->peer_jobs_max != 0 && !operator_own &&
	    om_books_jobs(&p->books, peer) + jobs > max->peer_jobs_max) {
		return om_why_set(why, OM_ERR_LIMIT,
				  "%" PRIu64
				  " of your jobs have not ended yet, the limit is %" PRIu64,
				  om_books_jobs(&p->books, peer), max->peer_jobs_max);
	}
	return OM_OK;
}

enum om_err
provider_submit_limits(struct provider *p, struct submit *s, struct om_why *why)
{
	enum om_err err;

	p->submitting -= s->counted; /* these are counted there */
	err = provider_room(p, om_str_of(s->peer), submit_jobs(s), s->operator_own, why);
	p->submitting += s->counted;
	return err == OM_OK ? open_account(p, s, why) : err;
}

bool
provider_too_big(const struct provider *p, uint64_t cores, uint64_t mem_mib, struct om_why *why)
{
	const struct om_provider_conf *conf = p->conf;
	uint64_t asked = cores, total = conf->cores_total;
	const char *unit = "cores";

	if (total == 0 || asked <= total) {
		asked = mem_mib;
		total = conf->mem_mib_total;
		unit = "MiB of memory";
	}
	if (total == 0 || asked <= total) {
		return false;
	}
	(void)om_why_set(why, OM_ERR_LIMIT, "it wants %" PRIu64 " %s, %" PRIu64 " are lent in all",
			 asked, unit, total);
	return true;
}

bool
provider_never_fits(const struct provider *p, struct submit *s)
{
	struct om_why why;

	if (!provider_too_big(p, s->cores, s->mem_mib, &why)) {
		return false;
	}
	s->state = OM_JOB_REJECTED;
	s->level = OM_LEVEL_EXTERNAL;
	(void)snprintf(s->reason, sizeof(s->reason), "never_fits");
	(void)snprintf(s->text, sizeof(s->text), "%s", why.text);
	return true;
}

static int
by_key(const void *a, const void *b)
{
	const struct om_str x = ((const struct om_pair *)a)->key,
			    y = ((const struct om_pair *)b)->key;
	const int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);

	return order != 0 ? order : (x.len > y.len) - (x.len < y.len);
}

/*
 * The same job in other bytes (the order of a map, a string for bytes, a longer number) is the same job:
 * what is stored and compared is what our codec makes of it, the environment sorted.
 */
enum om_err
provider_submit_spec(const struct om_job_submit *body, struct om_arena *arena, struct om_buf *out,
		     struct om_why *why)
{
	const struct om_pairs env = body->env;
	struct om_job_submit copy;
	enum om_err err;

	if (env.n > 1) {
		struct om_pair *sorted = om_arena_alloc(arena, env.n * sizeof(*sorted));

		if (sorted == NULL) {
			return om_why_set(why, OM_ERR_NOMEM, "out of memory");
		}
		memcpy(sorted, env.v, env.n * sizeof(*sorted));
		qsort(sorted, env.n, sizeof(*sorted), by_key);
		copy = *body;
		copy.env.v = sorted;
		body = &copy;
	}
	err = om_body_encode(OM_BODY_job_submit, body, out);
	return err == OM_OK
		   ? OM_OK
		   : om_why_set(why, err, "the job cannot be stored: %s", om_err_text(err));
}

/* Decoded into memory that lives as long as the submit. */
enum om_err
provider_submit_take(struct submit *s, struct om_bin raw, struct om_why *why)
{
	struct om_buf buf = { 0 };
	enum om_err err;

	s->raw = malloc(raw.len > 0 ? raw.len : 1);
	if (s->raw == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	memcpy(s->raw, raw.ptr, raw.len);
	s->raw_len = raw.len;
	err = om_body_decode(OM_BODY_job_submit, (struct om_bin){ s->raw, s->raw_len }, &s->body,
			     &s->arena, why);
	if (err == OM_OK) {
		(void)!om_buf_reserve(&buf, raw.len); /* it seldom grows */
		err = provider_submit_spec(&s->body, &s->arena, &buf, why);
		s->spec = buf.data; /* ours now */
		s->spec_len = buf.len;
	}
	return err;
}

enum om_err
provider_submit_check(struct provider *p, struct submit *s, const struct om_caller *caller,
		      struct om_why *why)
{
	enum om_err err = check_who(p, caller, s, why);

	if (err == OM_OK) {
		err = check_array(p, s, why);
	}
	if (err == OM_OK) {
		err = check_spec(p, s, why);
	}
	return err;
}
