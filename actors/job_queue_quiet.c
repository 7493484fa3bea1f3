/* SPDX-License-Identifier: ISC */
/*
 * Quiet hours: the filter says when, we say for whom.  What is the owner's starts and runs on; of the
 * rest nothing starts, and with `pause` what runs stands still.
 *
 * Until the filter has been asked nothing starts.  If broken: after a restart in the middle of the
 * quiet hours everything starts.
 */
#include "actors/job_queue_impl.h"
#include "actors/names.h"
#include "base/log.h"

#define QUIET_ASK_MS   10000
#define QUIET_RETRY_MS 1000
#define PAUSE_ASK_MS   10000

static void
pause_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	/* NOT_FOUND: it has just ended, or it has not begun. */
	if (answer->err != OM_OK && answer->err != OM_ERR_NOT_FOUND) {
		om_warn("queue.quiet", "a job is not paused or resumed: %s", answer->text);
	}
}

static void
pause_running(struct om_service *sv, struct job_queue *q, bool on, struct om_str text)
{
	struct om_order_walk walk = { 0 };
	struct om_exec_pause m = { .on = on };
	enum om_job_level level;
	enum om_err err;

	OM_SET(&m, exec_pause, text, text);
	for (;;) {
		m.job = om_job_order_running(q->order, &walk);
		if (m.job.ptr == NULL) {
			return;
		}
		if (om_job_order_level(q->order, m.job, &level) != OM_OK ||
		    level == OM_LEVEL_OWNER) {
			continue;
		}
		err = om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_PAUSE, &m, NULL, PAUSE_ASK_MS,
				     pause_on_answer, 0);
		if (err != OM_OK) {
			om_warn("queue.quiet", "job %.*s: %s", OM_STR_ARG(m.job), om_err_text(err));
		}
	}
}

static void
quiet_take(struct om_service *sv, struct job_queue *q, const struct om_quiet *m)
{
	om_job_order_quiet(q->order, m->hold_starts, m->text);
	if (q->pausing != m->pause) {
		q->pausing = m->pause;
		pause_running(sv, q, m->pause, m->text);
	}
	q->quiet_unknown = false;
	jobq_run(sv, q);
}

enum om_err
jobq_on_quiet(struct om_service *sv, void *state, const struct om_in *in)
{
	if (in->caller->role != OM_ROLE_ACTOR) {
		return OM_ERR_DENIED;
	}
	quiet_take(sv, jobq_of(state), in->body);
	return OM_OK;
}

static void
quiet_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct job_queue *q = jobq_of(state);
	uint64_t timer;

	if (answer->err == OM_OK) {
		quiet_take(sv, q, answer->body);
		return;
	}
	if (om_timer_start(om_service_cx(sv), QUIET_RETRY_MS, 0, TIMER_QUIET, &timer) != OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM);
	}
}

void
jobq_quiet_ask(struct om_service *sv, struct job_queue *q)
{
	const struct om_empty nothing = { 0 };
	uint64_t timer;
	enum om_err err;

	err = om_service_ask(sv, OM_FILTER_MANAGER, OM_MSG_FILTER_QUIET, &nothing, NULL,
			     QUIET_ASK_MS, quiet_on_answer, 0);
	q->quiet_unknown =
	    err != OM_ERR_NOT_FOUND; /* a queue without a filter has no quiet hours */
	if (err != OM_OK && q->quiet_unknown &&
	    om_timer_start(om_service_cx(sv), QUIET_RETRY_MS, 0, TIMER_QUIET, &timer) != OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM);
	}
}
