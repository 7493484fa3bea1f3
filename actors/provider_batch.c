/* SPDX-License-Identifier: ISC */
/*
 * Many jobs in one request.  Each is decided, stored and queued like one that comes alone; all of
 * them reach the ledger in one go, so they share its commits.  The answer comes when the last is
 * answered, with a result for each in the order of the request: some may be refused.
 */
#include <stdlib.h>

#include "actors/provider_submit_impl.h"
#include "base/secret.h"
#include "msg/codec.h"

struct batch {
	struct om_bus_request rq;
	struct om_arena arena; /* of the results */
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
batch_unpend(struct om_service *sv, struct batch *batch)
{
	struct om_batch_results out = { .results = { batch->results, batch->count },
					.accepted = batch->accepted };

	if (--batch->left > 0) {
		return;
	}
	om_service_reply_to(sv, &batch->rq, OM_MSG_JOB_BATCH, &out);
	om_arena_fini(&batch->arena);
	free(batch);
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
		      enum om_err err, struct om_str job, struct om_str text)
{
	struct om_error *copy = om_arena_alloc(&batch->arena, sizeof(*copy));
	struct om_pair *detail = om_arena_alloc(&batch->arena, sizeof(*detail));

	(void)p;
	if (copy != NULL && detail != NULL) {
		*copy = (struct om_error){ .code = om_str_of(om_err_code(err)) };
		OM_SET(copy, error, text, keep(batch, text));
		if (job.len > 0) {
			*detail = (struct om_pair){ OM_STR("job"), keep(batch, job) };
			OM_SET(copy, error, details, ((struct om_pairs){ detail, 1 }));
		}
		OM_SET(&batch->results[place], batch_result, error, copy);
	}
	batch_unpend(sv, batch);
}

static void
batch_submit(struct om_service *sv, struct provider *p, const struct om_in *in, struct batch *batch,
	     size_t place)
{
	const struct om_job_batch *m = in->body;
	const struct om_bus_request none = { 0 };
	struct om_buf raw = { 0 };
	struct om_why why = { "" };
	enum om_err err;

	batch->left++;
	err = om_body_encode(OM_BODY_job_submit, &m->jobs.v[place], &raw);
	if (err == OM_OK) {
		err = provider_submit_begin(sv, p, (struct om_bin){ raw.data, raw.len }, in->caller,
					    batch, place, none, &why);
	}
	if (err != OM_OK) {
		provider_batch_failed(sv, p, batch, place, err, (struct om_str){ NULL, 0 },
				      om_str_of(why.text[0] != '\0' ? why.text : om_err_text(err)));
	}
	if (raw.len > 0) { /* there may be a private key in it */
		om_secret_wipe(raw.data, raw.len);
	}
	om_buf_fini(&raw);
}

enum om_err
provider_on_batch(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_job_batch *m = in->body;
	struct om_why why = { "" };
	enum om_err err = provider_submit_open(p, &why);
	struct batch *batch;

	if (err == OM_OK && m->jobs.n == 0) {
		err = om_why_set(&why, OM_ERR_INVALID, "no job is in it");
	}
	if (err != OM_OK) {
		return om_service_reply_err(sv, in, err, "%s", why.text);
	}
	batch = calloc(1, sizeof(*batch));
	if (batch == NULL) {
		return OM_ERR_NOMEM;
	}
	batch->count = m->jobs.n;
	batch->results = om_arena_alloc(&batch->arena, batch->count * sizeof(*batch->results));
	if (batch->results == NULL) {
		om_arena_fini(&batch->arena);
		free(batch);
		return OM_ERR_NOMEM;
	}
	for (size_t i = 0; i < batch->count; i++) {
		batch->results[i] = (struct om_batch_result){ 0 };
	}
	batch->rq = om_service_later(sv, in);
	batch->left = 1;
	for (size_t i = 0; i < batch->count; i++) {
		batch_submit(sv, p, in, batch, i);
	}
	batch_unpend(sv, batch);
	return OM_OK;
}
