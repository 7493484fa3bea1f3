/* SPDX-License-Identifier: ISC */
/*
 * New jobs that come together.  Each is stored or refused as if it had come alone, and the one answer has a
 * result for each; it goes out after the commit that holds them all.
 */
#include "actors/ledger_impl.h"

static const struct om_job_submit *
many_body(struct ledger *l, const struct om_ledger_submit *m)
{
	static const struct om_job_submit nothing = { 0 };

	return m->plain ? &nothing : ledger_spec_decode(l, m->spec);
}

/* The answer outlives the store's text. */
static void
many_refused(struct ledger *l, enum om_err why, struct om_error *error,
	     struct om_ledger_result *out)
{
	*error = (struct om_error){ .code = om_str_of(om_err_code(why)) };
	OM_SET(error, error, text, ledger_keep(l, om_store_why(l->store)));
	OM_SET(out, ledger_result, error, error);
}

static enum om_err
many_put(struct ledger *l, const struct om_ledger_submit *m, bool *existed)
{
	const struct om_job_submit *submit = many_body(l, m);
	struct om_job_row row;

	if (m->array) {
		return om_why_set(&l->store->why, OM_ERR_INVALID, "an array comes alone");
	}
	if (submit == NULL) {
		return om_why_set(&l->store->why, OM_ERR_INVALID, "the job's body is not valid");
	}
	return ledger_submit_put(l, m, submit, NULL, existed, &row);
}

enum om_err
ledger_on_submit_many(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_ledger_submits *m = in->body;
	struct om_ledger_results *out = om_arena_alloc(&l->arena, sizeof(*out)); /* zeroed */
	struct om_error *errors = om_arena_alloc(&l->arena, m->jobs.n * sizeof(*errors));
	size_t stored = 0;
	enum om_err err = ledger_begin(l);

	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	if (out != NULL) {
		out->results.v = om_arena_alloc(&l->arena, m->jobs.n * sizeof(*out->results.v));
	}
	if (out == NULL || errors == NULL || out->results.v == NULL) {
		return OM_ERR_NOMEM; /* now, as it is not known later what was stored */
	}
	for (size_t i = 0; i < m->jobs.n; i++) {
		struct om_ledger_result *result = &out->results.v[out->results.n++];
		bool existed = false;

		err = many_put(l, &m->jobs.v[i], &existed);
		stored += err == OM_OK;
		if (err == OM_OK && existed) {
			OM_SET(result, ledger_result, duplicate, true);
		} else if (err != OM_OK) {
			many_refused(l, err, &errors[i], result);
		}
	}
	if (stored > 0) {
		l->group += stored - 1; /* the answer counts for one */
		return ledger_answer_later(sv, l, in, OM_MSG_LEDGER_STORED_MANY, out);
	}
	err = ledger_answer_read(sv, l, in, OM_MSG_LEDGER_STORED_MANY, out);
	if (err == OM_OK && l->degraded) {
		ledger_finish(sv, l);
	}
	return err;
}
