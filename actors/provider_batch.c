/* SPDX-License-Identifier: ISC */
/*
 * Many jobs in one request.  Each is decided, stored and queued like one that comes alone; all of
 * them reach the ledger in one go, so they share its commits.  The answer comes when the last is
 * answered, with a result for each in the order of the request: some may be refused.
 *
 * The request is copied and decoded once, for all of its jobs, and lives until the last is answered: a
 * submit of a batch has views.
 */
#include <stdlib.h>
#include <string.h>

#include "actors/provider_submit_impl.h"
#include "base/secret.h"
#include "msg/codec.h"

#define BATCH_ARENA_MAX (128u * 1024 * 1024)

struct batch {
	struct om_bus_request rq;
	struct om_bin raw; /* the request; may hold secrets: wiped */
	struct om_job_batch body; /* views into raw and arena */
	struct om_buf specs; /* each job as it is stored, one behind the other; wiped */
	struct om_arena arena; /* of the request and of the results */
	struct om_batch_result *results;
	size_t count, left; /* left: answers, and 1 while submits are being made */
	uint64_t accepted;
};

static struct om_str
keep(struct batch *batch, struct om_str s)
{
	const char *copy = om_arena_str(&batch->arena, s);

	return copy == NULL ? (struct om_str){ NULL, 0 } : (struct om_str){ copy, s.len };
}

static void
batch_free(struct batch *batch)
{
	om_secret_wipe((uint8_t *)(uintptr_t)batch->raw.ptr, batch->raw.len);
	free((uint8_t *)(uintptr_t)batch->raw.ptr);
	om_secret_wipe(batch->specs.data, batch->specs.len);
	om_buf_fini(&batch->specs);
	om_arena_fini(&batch->arena);
	free(batch);
}

static void
batch_unpend(struct om_service *sv, struct batch *batch)
{
	struct om_batch_results out = { .results = { batch->results, batch->count },
					.accepted = batch->accepted };

	if (--batch->left > 0) {
		return;
	}
	om_service_reply_to(sv, &batch->rq, OM_MSG_JOB_BATCH, &out);
	batch_free(batch);
}

void
provider_batch_accepted(struct om_service *sv, struct provider *p, struct batch *batch,
			size_t place, const struct om_job_accepted *m)
{
	struct om_job_accepted *copy = om_arena_alloc(&batch->arena, sizeof(*copy));

	(void)p;
	if (copy != NULL) {
		*copy = *m;
		copy->job = keep(batch, m->job);
		copy->state = keep(batch, m->state);
		copy->level = keep(batch, m->level);
		copy->reason = keep(batch, m->reason);
		copy->text = keep(batch, m->text);
		OM_SET(&batch->results[place], batch_result, accepted, copy);
	}
	batch->accepted++;
	batch_unpend(sv, batch);
}

void
provider_batch_failed(struct om_service *sv, struct provider *p, struct batch *batch, size_t place,
		      const struct om_error *error)
{
	const struct om_pairs details = error->details;
	struct om_error *copy = om_arena_alloc(&batch->arena, sizeof(*copy));
	struct om_pair *pairs = om_arena_alloc(&batch->arena, details.n * sizeof(*pairs));

	(void)p;
	if (copy != NULL && pairs != NULL) {
		*copy = *error;
		copy->code = keep(batch, error->code);
		copy->text = keep(batch, error->text);
		for (size_t i = 0; i < details.n; i++) {
			pairs[i].key = keep(batch, details.v[i].key);
			pairs[i].value = keep(batch, details.v[i].value);
		}
		copy->details.v = pairs;
		OM_SET(&batch->results[place], batch_result, error, copy);
	}
	batch_unpend(sv, batch);
}

/* One job: its spec is that part of batch->specs. */
static void
batch_submit(struct om_service *sv, struct provider *p, const struct om_caller *caller,
	     struct batch *batch, size_t place, size_t begin, size_t end)
{
	struct submit *s = provider_submit_new(p);
	struct om_why why = { "out of memory" };
	enum om_err err = OM_ERR_NOMEM;

	batch->left++;
	if (s != NULL) {
		s->batch = batch;
		s->place = place;
		s->body = batch->body.jobs.v[place];
		s->spec = batch->specs.data + begin;
		s->spec_len = end - begin;
		err = provider_submit_begin(sv, p, s, caller, &why);
	}
	if (err != OM_OK) {
		const struct om_error error =
		    provider_submit_error(err, why.text[0] != '\0' ? why.text : om_err_text(err));

		provider_batch_failed(sv, p, batch, place, &error);
	}
}

/* Copies, decodes and encodes; ends: of each job in batch->specs, which does not move afterwards. */
static enum om_err
batch_take(struct batch *batch, struct om_bin raw, size_t **ends, struct om_why *why)
{
	uint8_t *copy = malloc(raw.len);
	enum om_err err;

	(void)om_why_set(why, OM_ERR_NOMEM, "out of memory");
	batch->arena.max = BATCH_ARENA_MAX;
	batch->raw = (struct om_bin){ copy, copy != NULL ? raw.len : 0 };
	if (copy == NULL || om_buf_reserve(&batch->specs, raw.len) != OM_OK) {
		return OM_ERR_NOMEM;
	}
	memcpy(copy, raw.ptr, raw.len);
	err = om_body_decode(OM_BODY_job_batch, batch->raw, &batch->body, &batch->arena, why);
	if (err == OM_OK && batch->body.jobs.n == 0) {
		return om_why_set(why, OM_ERR_INVALID, "no job is in it");
	}
	batch->count = batch->body.jobs.n;
	batch->results = om_arena_alloc(&batch->arena, batch->count * sizeof(*batch->results));
	*ends = om_arena_alloc(&batch->arena, batch->count * sizeof(**ends));
	if (err == OM_OK && (batch->results == NULL || *ends == NULL)) {
		return OM_ERR_NOMEM;
	}
	for (size_t i = 0; err == OM_OK && i < batch->count; i++) {
		err =
		    provider_submit_spec(&batch->body.jobs.v[i], &batch->arena, &batch->specs, why);
		(*ends)[i] = batch->specs.len;
	}
	return err;
}

enum om_err
provider_on_batch(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	struct om_why why = { "" };
	enum om_err err = provider_submit_open(p, &why);
	struct batch *batch;
	size_t *ends = NULL;

	if (err != OM_OK) {
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	batch = calloc(1, sizeof(*batch));
	if (batch == NULL) {
		return OM_ERR_NOMEM;
	}
	err = batch_take(batch, in->raw, &ends, &why);
	if (err != OM_OK) {
		batch_free(batch);
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	batch->rq = om_service_later(sv, in);
	batch->left = 1;
	for (size_t i = 0; i < batch->count; i++) {
		batch_submit(sv, p, in->caller, batch, i, i > 0 ? ends[i - 1] : 0, ends[i]);
	}
	batch_unpend(sv, batch);
	return OM_OK;
}
