/* SPDX-License-Identifier: ISC */
/*
 * Verbs over an array: whoever names it means all of its jobs that the verb fits.  An array has at most
 * as many jobs as one page of the ledger's list, so one question lists them.
 */
#include "actors/job_array.h"
#include "actors/names.h"
#include "actors/provider_impl.h"

_Static_assert(OM_ARRAY_JOBS_MAX <= PROVIDER_PAGE, "an array's jobs are listed in one page");

/* The jobs of the array become tasks of the verb; the task that asked is done with. */
static void
array_on_page(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	struct provider_task *asked = provider_task_of(answer);
	struct provider_verb *verb = asked->verb;
	const struct om_job_table *m = answer->body;

	if (answer->err != OM_OK) {
		provider_task_finish(sv, p, asked, answer->err, answer->text);
		return;
	}
	for (size_t i = 0; i < m->jobs.n; i++) {
		struct provider_task *task = provider_task_new(p, verb);

		if (task == NULL) {
			provider_verb_failed(verb, OM_ERR_FULL, "too many questions wait already");
			break;
		}
		provider_task_got(sv, p, task, &m->jobs.v[i]);
	}
	provider_task_drop(sv, p, asked);
}

static void
array_list(struct om_service *sv, struct provider *p, struct provider_task *task,
	   struct om_str array)
{
	struct om_job_query query = { 0 };
	enum om_err err;

	OM_SET(&query, job_query, array, array);
	OM_SET(&query, job_query, limit, OM_ARRAY_JOBS_MAX);
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_JOB_LIST, &query, &task->verb->caller,
			     PROVIDER_LEDGER_MS, array_on_page, (uintptr_t)task);
	if (err != OM_OK) {
		provider_task_finish(sv, p, task, err, om_err_text(err));
	}
}

void
provider_array_got(struct om_service *sv, struct provider *p, struct provider_task *task,
		   const struct om_bus_answer *answer)
{
	const struct om_error *error = answer->body;
	struct om_str candidates = { NULL, 0 }, array = { NULL, 0 };
	struct provider_verb *verb = task->verb;

	for (size_t i = 0; error != NULL && i < error->details.n; i++) {
		const struct om_pair *pair = &error->details.v[i];

		if (om_str_is(pair->key, "candidates")) {
			candidates = pair->value;
		} else if (om_str_is(pair->key, "array")) {
			array = pair->value;
		}
	}
	if (array.len > 0 && verb->type != OM_MSG_JOB_WAIT) {
		array_list(sv, p, task, array);
		return;
	}
	/* Views of the message; a detail that does not fit is left out. */
	if (om_str_copy(candidates, verb->candidates, sizeof(verb->candidates)) != OM_OK) {
		verb->candidates[0] = '\0';
	}
	if (om_str_copy(array, verb->array, sizeof(verb->array)) != OM_OK) {
		verb->array[0] = '\0';
	}
	provider_task_finish(sv, p, task, answer->err, answer->text);
}
