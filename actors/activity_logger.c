/* SPDX-License-Identifier: ISC */
/*
 * Who follows the trail has an audit.list that found nothing: the question is kept and asked again
 * when the ledger reports the next entry, so the ledger alone knows how to filter.  It is asked from
 * where the ledger has looked, not from the last entry that fitted: else each new entry would cost the
 * whole trail.  One that is asked again keeps its place; an entry that comes while it is asked makes it
 * ask once more (`again`).
 */
#include "actors/activity_logger.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "actors/names.h"
#include "base/assert.h"
#include "base/id.h"
#include "base/log.h"

#define LOGGER_MAGIC      0x61637467u
#define LEDGER_TIMEOUT_MS 30000
#define VERIFY_TIMEOUT_MS (UINT64_C(600) * 1000) /* a long chain is read to its end */
#define FOLLOW_MS         60000 /* then an empty answer, and the client asks again */
#define FOLLOWERS_MAX     1024
#define LINES_PAGE        1000

struct query {
	TAILQ_ENTRY(query) link;
	struct om_bus_request rq;
	uint64_t has;
	uint64_t after_seq, since_ms, limit;
	char job[OM_JOB_ID_MAX + 1];
	bool follow;
	bool asked; /* at the ledger now */
	bool again; /* an entry came meanwhile */
	bool verify;
	struct om_mono until;
};

TAILQ_HEAD(queries, query);

struct logger {
	uint32_t magic;
	const struct om_activity_logger_conf *conf;
	struct queries queries;
	size_t count;
	uint64_t timer; /* not 0: fires when the first follower's time is over */
	uint64_t logged; /* lines were written up to this entry; 0: none yet */
	uint64_t newest; /* that the ledger told of */
	bool reading; /* the entries between the two */
};

static struct logger *
logger_of(void *state)
{
	struct logger *l = state;

	OM_ASSERT(l->magic == LOGGER_MAGIC);
	return l;
}

static void
query_free(struct logger *l, struct query *q)
{
	TAILQ_REMOVE(&l->queries, q, link);
	l->count--;
	free(q);
}

static struct query *
query_new(struct logger *l)
{
	struct query *q;

	if (l->count >= FOLLOWERS_MAX) {
		return NULL;
	}
	q = calloc(1, sizeof(*q));
	if (q != NULL) {
		TAILQ_INSERT_TAIL(&l->queries, q, link);
		l->count++;
	}
	return q;
}

/* --- reading and following -------------------------------------------------------------------- */

static void logger_on_table(struct om_service *sv, void *state, const struct om_bus_answer *answer);

static enum om_err
query_ask(struct om_service *sv, struct query *q)
{
	struct om_audit_query m = { .has = q->has,
				    .after_seq = q->after_seq,
				    .since_ms = q->since_ms,
				    .job = om_str_of(q->job),
				    .limit = q->limit };
	enum om_err err;

	q->again = false;
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_AUDIT, &m, NULL, LEDGER_TIMEOUT_MS,
			     logger_on_table, (uintptr_t)q);
	q->asked = err == OM_OK;
	return err;
}

static void
arm_timer(struct om_service *sv, struct logger *l)
{
	if (l->timer == 0 &&
	    om_timer_start(om_service_cx(sv), FOLLOW_MS, 0, 0, &l->timer) != OM_OK) {
		l->timer = 0; /* the next follower tries */
	}
}

static void
logger_on_table(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct logger *l = logger_of(state);
	struct query *q = (struct query *)(uintptr_t)answer->cookie;
	const struct om_audit_table *table = answer->body;
	enum om_err err = answer->err;

	q->asked = false;
	if (err == OM_OK && OM_HAS(table, audit_table, scanned)) {
		q->after_seq = table->scanned;
		q->has |= UINT64_C(1) << OM_FIELD_audit_query_after_seq;
	}
	if (err == OM_OK && table->entries.n == 0 && q->follow &&
	    om_now(om_service_cx(sv)).ns < q->until.ns) {
		if (!q->again && !table->more) {
			arm_timer(sv, l);
			return;
		}
		err = query_ask(sv, q);
		if (err == OM_OK) {
			return;
		}
	}
	if (err == OM_OK) {
		om_service_reply_to(sv, &q->rq, OM_MSG_AUDIT_TABLE, table);
	} else {
		om_service_reply_err_to(sv, &q->rq, err, answer->err != OM_OK ? answer->text : "");
	}
	query_free(l, q);
}

static void
query_fill(struct query *q, const struct om_audit_query *m)
{
	q->has = m->has & ~(UINT64_C(1) << OM_FIELD_audit_query_follow);
	q->after_seq = m->after_seq;
	q->since_ms = m->since_ms;
	q->limit = m->limit;
	q->follow = m->follow;
}

static enum om_err
logger_on_list(struct om_service *sv, void *state, const struct om_in *in)
{
	struct logger *l = logger_of(state);
	const struct om_audit_query *m = in->body;
	struct query *q;
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	q = query_new(l);
	if (q == NULL) {
		return om_service_reply_err(sv, in, OM_ERR_FULL, "%d questions wait already",
					    FOLLOWERS_MAX);
	}
	query_fill(q, m);
	q->until.ns = om_now(om_service_cx(sv)).ns + FOLLOW_MS * OM_NS_PER_MS;
	err = om_str_copy(m->job, q->job, sizeof(q->job));
	if (err == OM_OK) {
		err = query_ask(sv, q);
	}
	if (err != OM_OK) {
		query_free(l, q);
		return err;
	}
	q->rq = om_service_later(sv, in);
	return OM_OK;
}

/* --- log lines ---------------------------------------------------------------------------------- */

static void lines_on_table(struct om_service *sv, void *state, const struct om_bus_answer *answer);

static void
line(struct logger *l, const struct om_audit_entry *m)
{
	om_info("audit", "%" PRIu64 " %.*s job=%.*s peer=%.*s %.*s", m->seq, OM_STR_ARG(m->event),
		OM_STR_ARG(m->job), OM_STR_ARG(m->peer), OM_STR_ARG(m->details));
	l->logged = m->seq;
}

/* Reads what was not logged yet, a page at a time. */
static void
lines_read(struct om_service *sv, struct logger *l)
{
	struct om_audit_query m = { 0 };

	if (l->reading || l->logged >= l->newest) {
		return;
	}
	OM_SET(&m, audit_query, after_seq, l->logged);
	OM_SET(&m, audit_query, limit, LINES_PAGE);
	l->reading = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_AUDIT, &m, NULL, LEDGER_TIMEOUT_MS,
				    lines_on_table, 0) == OM_OK;
}

static void
lines_on_table(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct logger *l = logger_of(state);
	const struct om_audit_table *table = answer->body;
	size_t i;

	l->reading = false;
	if (answer->err != OM_OK) {
		om_warn("audit.lines", "entries are not logged yet: %s", answer->text);
		return; /* the next entry tries again */
	}
	for (i = 0; i < table->entries.n; i++) {
		line(l, &table->entries.v[i]);
	}
	if (table->entries.n == 0) {
		l->logged = l->newest; /* they were purged meanwhile */
	}
	lines_read(sv, l);
}

/* The trail has grown to this entry.  What was there before this life is not logged again. */
static void
lines_grown(struct om_service *sv, struct logger *l, const struct om_audit_entry *m)
{
	l->newest = m->seq;
	if (!l->conf->log_lines || !om_log_is_on(OM_LOG_INFO)) {
		l->logged = m->seq;
	} else if (!l->reading && (l->logged == 0 || l->logged + 1 == m->seq)) {
		line(l, m);
	} else {
		lines_read(sv, l);
	}
}

/* --- following ---------------------------------------------------------------------------------- */

static enum om_err
logger_on_appended(struct om_service *sv, void *state, const struct om_in *in)
{
	struct logger *l = logger_of(state);
	const struct om_audit_entry *m = in->body;
	struct query *q, *next;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	lines_grown(sv, l, m);
	for (q = TAILQ_FIRST(&l->queries); q != NULL; q = next) {
		next = TAILQ_NEXT(q, link);
		if (!q->follow || q->verify) {
			continue;
		}
		if (q->asked) {
			q->again = true;
		} else if (query_ask(sv, q) != OM_OK) {
			om_service_reply_err_to(sv, &q->rq, OM_ERR_FULL, "the ledger is busy");
			query_free(l, q);
		}
	}
	return OM_OK;
}

/* Followers whose time is over get an empty table; the timer waits for the next of them. */
static enum om_err
logger_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct logger *l = logger_of(state);
	struct om_audit_table nothing = { 0 };
	struct om_mono now = om_now(om_service_cx(sv));
	int64_t wait_ns = INT64_MAX;
	struct query *q, *next;

	if (msg->type != OM_SYS_TIMER) {
		return OM_ERR_UNKNOWN_TYPE;
	}
	l->timer = 0;
	for (q = TAILQ_FIRST(&l->queries); q != NULL; q = next) {
		next = TAILQ_NEXT(q, link);
		if (q->asked || !q->follow) {
			continue;
		}
		if (q->until.ns <= now.ns) {
			OM_SET(&nothing, audit_table, scanned, q->after_seq);
			om_service_reply_to(sv, &q->rq, OM_MSG_AUDIT_TABLE, &nothing);
			query_free(l, q);
		} else if (q->until.ns - now.ns < wait_ns) {
			wait_ns = q->until.ns - now.ns;
		}
	}
	if (wait_ns != INT64_MAX) {
		return om_timer_start(om_service_cx(sv), (uint64_t)(wait_ns / OM_NS_PER_MS) + 1, 0,
				      0, &l->timer);
	}
	return OM_OK;
}

/* --- verifying -------------------------------------------------------------------------------- */

static void
logger_on_report(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct logger *l = logger_of(state);
	struct query *q = (struct query *)(uintptr_t)answer->cookie;

	if (answer->err == OM_OK) {
		const struct om_audit_report *report = answer->body;

		if (!report->intact) {
			om_error("audit.broken", "entry %" PRIu64 ": %.*s", report->bad_seq,
				 OM_STR_ARG(report->text));
		}
		om_service_reply_to(sv, &q->rq, OM_MSG_AUDIT_REPORT, report);
	} else {
		om_service_reply_err_to(sv, &q->rq, answer->err, answer->text);
	}
	query_free(l, q);
}

static enum om_err
logger_on_verify(struct om_service *sv, void *state, const struct om_in *in)
{
	struct logger *l = logger_of(state);
	struct om_empty nothing = { 0 };
	struct query *q;
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	q = query_new(l);
	if (q == NULL) {
		return OM_ERR_FULL;
	}
	q->verify = true;
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_AUDIT_VERIFY, &nothing, NULL,
			     VERIFY_TIMEOUT_MS, logger_on_report, (uintptr_t)q);
	if (err != OM_OK) {
		query_free(l, q);
		return err;
	}
	q->rq = om_service_later(sv, in);
	return OM_OK;
}

/* --- the actor -------------------------------------------------------------------------------- */

static void
logger_on_added(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	if (answer->err != OM_OK) {
		om_warn("audit.append", "an entry about the daemon was not stored: %s",
			answer->text);
	}
}

static enum om_err
append(struct om_service *sv, const char *event, const char *details)
{
	struct om_audit_entry entry = { .event = om_str_of(event) };

	OM_SET(&entry, audit_entry, details, om_str_of(details != NULL ? details : ""));
	return om_service_ask(sv, OM_LEDGER, OM_MSG_AUDIT_APPEND, &entry, NULL, LEDGER_TIMEOUT_MS,
			      logger_on_added, 0);
}

static enum om_err
logger_start(struct om_service *sv, void *state, const void *arg)
{
	struct logger *l = state;

	l->magic = LOGGER_MAGIC;
	l->conf = arg;
	TAILQ_INIT(&l->queries);
	return append(sv, "daemon_started", l->conf->details);
}

static void
logger_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct logger *l = state;

	while (!TAILQ_EMPTY(&l->queries)) {
		struct query *q = TAILQ_FIRST(&l->queries);

		om_service_reply_err_to(sv, &q->rq, OM_ERR_SHUTDOWN, "the daemon is stopping");
		query_free(l, q);
	}
	/* The ledger stops after us and still takes it; there is nobody to hear its answer. */
	if (append(sv, "daemon_stopped", why == OM_OK ? "in order" : om_err_text(why)) != OM_OK) {
		om_warn("audit.append", "the stop was not recorded");
	}
}

static const struct om_service_handler logger_handlers[] = {
	{ OM_MSG_AUDIT_LIST, logger_on_list },
	{ OM_MSG_AUDIT_VERIFY, logger_on_verify },
	{ OM_MSG_AUDIT_APPENDED, logger_on_appended },
};

const struct om_service_def om_activity_logger_service = {
	.name = OM_ACTIVITY_LOGGER,
	.state_size = sizeof(struct logger),
	.start = logger_start,
	.stop = logger_stop,
	.on = logger_handlers,
	.on_count = OM_COUNT(logger_handlers),
	.on_msg = logger_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
