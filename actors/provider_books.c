/* SPDX-License-Identifier: ISC */
/*
 * What a requester has, for the filter: its unfinished jobs, and the time that they have run today and may
 * still run.  And rules.test, which asks the filter with the same books as a submit does.
 *
 * Run times are the ledger's: each attempt that was measured counts on the day on which it ended, whatever
 * became of the job.  One that was lost with the daemon was not measured and counts nothing.
 *
 * 1. An attempt counts once: what ended before the ledger told the times is in them, what ended later comes as
 *    an event.
 * 2. What may still run counts as if it had.  If broken: a quota of an hour lets in a hundred jobs of an
 *    hour each.
 */
#include <stdlib.h>

#include "actors/job_spec.h"
#include "actors/ledger.h"
#include "actors/names.h"
#include "actors/provider_impl.h"
#include "actors/quiet_hours.h"
#include "base/log.h"

#define RAN_RETRY_MS 1000

void
provider_books_tell(struct om_page page, uint64_t jobs, uint64_t runtime_s,
		    struct om_filter_request *out)
{
	OM_SET(out, filter_request, peer_jobs, page.jobs - jobs);
	OM_SET(out, filter_request, peer_runtime_s,
	       page.ran_ms / 1000 + page.asked_s - jobs * runtime_s);
}

uint64_t
provider_ran_ms(const struct provider *p, const struct om_job_event *event)
{
	enum om_job_state from, to;

	/* The row keeps what its last attempt took: a job that is given up later did not run again. */
	if (!p->ran_known || event->at_ms < p->ran_at_ms || event->info == NULL ||
	    om_job_state_parse(event->from.ptr, event->from.len, &from) != OM_OK ||
	    om_job_state_parse(event->state.ptr, event->state.len, &to) != OM_OK ||
	    (from != OM_JOB_PROVISIONING && from != OM_JOB_RUNNING)) {
		return 0;
	}
	return to == OM_JOB_LOST ? 0 : event->info->wall_ms;
}

/* --- at the start ----------------------------------------------------------------------------- */

static void ran_ask(struct om_service *sv, struct provider *p, struct om_str after);

static void
ran_later(struct om_service *sv, struct provider *p, const char *text)
{
	uint64_t timer;

	om_warn("provider.quota", "today's run times are not known yet: %s", text);
	p->recovering = 0;
	if (om_timer_start(om_service_cx(sv), RAN_RETRY_MS, 0, PROVIDER_TIMER_RECOVER, &timer) !=
	    OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM);
	}
}

static void
ran_on_page(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct provider *p = provider_of(state);
	const struct om_ledger_ran_table *m = answer->body;

	if (answer->err != OM_OK) {
		ran_later(sv, p, answer->text);
		return;
	}
	for (size_t i = 0; i < m->peers.n; i++) {
		const struct om_ran *ran = &m->peers.v[i];

		if (om_books_add_ran(&p->books, ran->peer, ran->ms, p->wall()) != OM_OK) {
			om_service_fail(sv, OM_ERR_NOMEM);
			return;
		}
	}
	if (m->peers.n == OM_LEDGER_RAN_PAGE) {
		ran_ask(sv, p, m->peers.v[m->peers.n - 1].peer);
		return;
	}
	p->ran_known = true;
	p->ran_at_ms = m->at_ms;
	p->recovering = 0;
	provider_recover(sv, p);
}

static void
ran_ask(struct om_service *sv, struct provider *p, struct om_str after)
{
	const int64_t since_s = om_local_midnight(p->wall());
	struct om_ledger_ran_query query = { .since_ms =
						 since_s > 0 ? (uint64_t)since_s * 1000 : 0 };
	enum om_err err;

	if (after.len > 0) {
		OM_SET(&query, ledger_ran_query, after, after);
	}
	p->recovering = 1;
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_RAN, &query, NULL, PROVIDER_LEDGER_MS,
			     ran_on_page, 0);
	if (err != OM_OK) {
		ran_later(sv, p, om_err_text(err));
	}
}

/* A page that fails is read again with those before it: nothing of them may be left. */
void
provider_ran_look(struct om_service *sv, struct provider *p)
{
	om_books_forget_ran(&p->books);
	ran_ask(sv, p, (struct om_str){ NULL, 0 });
}

/* --- rules.test ------------------------------------------------------------------------------- */

struct test {
	LIST_ENTRY(test) link;
	struct om_bus_request rq;
};

static void
test_on_decision(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct test *test = (struct test *)(uintptr_t)answer->cookie;

	(void)state;
	if (answer->err == OM_OK) {
		om_service_reply_to(sv, &test->rq, OM_MSG_FILTER_DECISION, answer->body);
	} else {
		om_service_reply_err_to(sv, &test->rq, answer->err, answer->text);
	}
	LIST_REMOVE(test, link);
	free(test);
}

/* It would not come as far as the filter. */
static enum om_err
test_refused(struct om_service *sv, const struct om_in *in, const char *step, const char *reason,
	     const struct om_why *why)
{
	struct om_filter_decision out = { .verdict = OM_STR("rejected") };
	struct om_trace_step trace = { .name = om_str_of(step), .outcome = OM_STR("hit") };

	OM_SET(&trace, trace_step, text, om_str_of(why->text));
	OM_SET(&out, filter_decision, reason, om_str_of(reason));
	OM_SET(&out, filter_decision, text, om_str_of(why->text));
	OM_SET(&out, filter_decision, trace, ((struct om_trace_step_list){ &trace, 1 }));
	return om_service_reply(sv, in, OM_MSG_FILTER_DECISION, &out);
}

/* What a job gets that does not say. */
static void
test_defaults(struct om_filter_request *m)
{
	if (!OM_HAS(m, filter_request, cores)) {
		OM_SET(m, filter_request, cores, OM_JOB_CORES_DEFAULT);
	}
	if (!OM_HAS(m, filter_request, mem_mib)) {
		OM_SET(m, filter_request, mem_mib, OM_JOB_MEM_MIB_DEFAULT);
	}
	if (!OM_HAS(m, filter_request, disk_mib)) {
		OM_SET(m, filter_request, disk_mib, OM_JOB_DISK_MIB_DEFAULT);
	}
	if (!OM_HAS(m, filter_request, runtime_s)) {
		OM_SET(m, filter_request, runtime_s, OM_JOB_RUNTIME_S_DEFAULT);
	}
}

enum om_err
provider_on_test(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	struct om_filter_request m = *(const struct om_filter_request *)in->body;
	const uint64_t jobs = m.jobs > 1 ? m.jobs : 1;
	struct om_why why = { "" };
	struct test *test;
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	test_defaults(&m);
	err = provider_room(p, m.peer, jobs, m.operator, & why);
	if (err != OM_OK) {
		return test_refused(sv, in, "limits", om_err_code(err), &why);
	}
	if (provider_too_big(p, m.cores, m.mem_mib, &why)) {
		return test_refused(sv, in, "fits", "never_fits", &why);
	}
	provider_books_tell(om_books_page(&p->books, m.peer, p->wall()), 0, 0, &m);
	test = calloc(1, sizeof(*test));
	if (test == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_service_ask(sv, OM_FILTER_MANAGER, OM_MSG_RULES_TEST, &m, in->caller,
			     PROVIDER_LEDGER_MS, test_on_decision, (uintptr_t)test);
	if (err != OM_OK) {
		free(test);
		return err;
	}
	test->rq = om_service_later(sv, in);
	LIST_INSERT_HEAD(&p->tests, test, link);
	return OM_OK;
}

void
provider_tests_fini(struct om_service *sv, struct provider *p)
{
	while (!LIST_EMPTY(&p->tests)) {
		struct test *test = LIST_FIRST(&p->tests);

		om_service_reply_err_to(sv, &test->rq, OM_ERR_SHUTDOWN, "the daemon is stopping");
		LIST_REMOVE(test, link);
		free(test);
	}
}
