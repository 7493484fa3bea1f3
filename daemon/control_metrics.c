/* SPDX-License-Identifier: ISC */
/*
 * daemon.metrics: what the services count, as Prometheus text (exposition format 0.0.4).
 *
 * Base units, `_total` on what only grows, no label with a job, a requester or anything else that
 * grows without end.  A service that does not answer in time is left out: its series have a gap.
 */
#include "daemon/control_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/parse.h"
#include "msg/codec.h"
#include "runtime/stats.h"

#define SCRAPE_ASK_MS     3000
#define SCRAPE_MEMORY_MAX (4u * 1024 * 1024)
#define TEXT_MAX          (1024 * 1024) /* the schema's limit */
#define NAMES_MAX         64 /* of actors; those of one name are added up */

enum part { PART_QUEUE, PART_FILTER, PART_LEDGER, PART_USAGE, PARTS };

struct control_scrape {
	struct control_scrape *next;
	uint64_t cookie;
	unsigned waiting;
	struct om_buf parts[PARTS]; /* encoded bodies; empty: it did not answer */
};

static const struct {
	const char *service;
	enum om_msg_type ask;
	enum om_body_type body;
} part_info[PARTS] = {
	[PART_QUEUE] = { "job_queue", OM_MSG_QUEUE_STATS, OM_BODY_queue_stats },
	[PART_FILTER] = { "filter_manager", OM_MSG_FILTER_STATS, OM_BODY_filter_stats },
	[PART_LEDGER] = { "ledger", OM_MSG_LEDGER_STATS, OM_BODY_ledger_stats },
	[PART_USAGE] = { "provider", OM_MSG_QUEUE_USAGE, OM_BODY_usage_table },
};

/* --- text ------------------------------------------------------------------------------------- */

static void
head(struct om_buf *out, const char *name, const char *type, const char *help)
{
	om_buf_printf(out, "# HELP omertad_%s %s\n# TYPE omertad_%s %s\n", name, help, name, type);
}

static void
one(struct om_buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
	head(out, name, type, help);
	om_buf_printf(out, "omertad_%s %" PRIu64 "\n", name, value);
}

static void
labelled(struct om_buf *out, const char *name, const char *label, struct om_str value, uint64_t n)
{
	om_buf_printf(out, "omertad_%s{%s=\"%.*s\"} %" PRIu64 "\n", name, label, OM_STR_ARG(value),
		      n);
}

/* A map of numbers as series of one name. */
static void
map(struct om_buf *out, const char *name, const char *label, const struct om_pairs *pairs)
{
	for (size_t i = 0; i < pairs->n; i++) {
		om_buf_printf(out, "omertad_%s{%s=\"%.*s\"} %.*s\n", name, label,
			      OM_STR_ARG(pairs->v[i].key), OM_STR_ARG(pairs->v[i].value));
	}
}

#define MIB UINT64_C(1048576)

static void
put_queue(struct om_buf *out, const struct om_queue_stats *q)
{
	head(out, "queue_ready_jobs", "gauge", "Jobs that start as soon as there is room.");
	map(out, "queue_ready_jobs", "level", &q->levels);
	one(out, "queue_jobs", "gauge", "Jobs that wait to start, for whatever reason.", q->queued);
	one(out, "queue_held_jobs", "gauge", "Of them: held by hand.", q->held);
	one(out, "queue_delayed_jobs", "gauge", "Of them: until a time.", q->delayed);
	one(out, "queue_parked_jobs", "gauge", "Of them: their array's limit is reached.",
	    q->parked);
	one(out, "running_jobs", "gauge", "Jobs on the machine.", q->running);
	one(out, "max_jobs", "gauge", "Jobs that may run at one time.", q->max_jobs);
	one(out, "queue_paused", "gauge", "1: no job starts.", q->paused);
	one(out, "queue_draining", "gauge", "1: no new job is taken.", q->draining);
	one(out, "lent_cores", "gauge", "Cores to lend.", q->cores_total);
	one(out, "reserved_cores", "gauge", "Cores of running jobs.", q->cores_used);
	one(out, "lent_memory_bytes", "gauge", "Memory to lend.", q->mem_mib_total * MIB);
	one(out, "reserved_memory_bytes", "gauge", "Memory of running jobs.",
	    q->mem_mib_used * MIB);
}

static void
put_filter(struct om_buf *out, const struct om_filter_stats *f)
{
	head(out, "filter_decisions_total", "counter", "Decisions since start or reset.");
	labelled(out, "filter_decisions_total", "verdict", OM_STR("accepted"), f->accepted);
	labelled(out, "filter_decisions_total", "verdict", OM_STR("rejected"), f->rejected);
	labelled(out, "filter_decisions_total", "verdict", OM_STR("pending_approval"),
		 f->pending_approval);
	one(out, "filter_active_rules", "gauge", "Rules that are enabled.", f->active_rules);
}

static void
put_commits(struct om_buf *out, const struct om_ledger_stats *l)
{
	head(out, "store_commit_seconds", "histogram",
	     "Time of a commit, until it is on the disk.");
	for (size_t i = 0; i < l->commit_le.n; i++) {
		uint64_t us = 0;

		if (om_parse_u64(l->commit_le.v[i].key, 0, UINT64_MAX, &us) == OM_OK) {
			om_buf_printf(out, "omertad_store_commit_seconds_bucket{le=\"%g\"} %.*s\n",
				      (double)us / 1e6, OM_STR_ARG(l->commit_le.v[i].value));
		}
	}
	om_buf_printf(out,
		      "omertad_store_commit_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n"
		      "omertad_store_commit_seconds_sum %g\n"
		      "omertad_store_commit_seconds_count %" PRIu64 "\n",
		      l->commits, (double)l->commit_us / 1e6, l->commits);
}

static uint64_t
moves_to(const struct om_ledger_stats *l, const char *state)
{
	uint64_t n = 0;

	for (size_t i = 0; i < l->moves.n; i++) {
		if (om_str_is(l->moves.v[i].key, state) &&
		    om_parse_u64(l->moves.v[i].value, 0, UINT64_MAX, &n) != OM_OK) {
			n = 0;
		}
	}
	return n;
}

static void
put_ledger(struct om_buf *out, const struct om_ledger_stats *l)
{
	head(out, "jobs_total", "counter", "Jobs that came into a state, since the start.");
	map(out, "jobs_total", "state", &l->moves);
	one(out, "job_starts_total", "counter",
	    "Attempts for which a VM was asked, since the start.", moves_to(l, "provisioning"));
	one(out, "rogue_kills_total", "counter", "Jobs killed for a packet outside their tunnel.",
	    moves_to(l, "rogue_killed"));
	one(out, "store_used_bytes", "gauge", "The ledger's file, in use.", l->used_bytes);
	one(out, "store_free_bytes", "gauge", "The ledger's file, used first.", l->free_bytes);
	one(out, "store_wal_bytes", "gauge", "Log not yet folded into the file.", l->wal_bytes);
	one(out, "store_jobs", "gauge", "Rows of jobs.", l->jobs);
	one(out, "store_audit_entries", "gauge", "Entries of the audit trail.", l->audit_rows);
	one(out, "store_commit_failures_total", "counter", "Commits that the disk refused.",
	    l->refused);
	put_commits(out, l);
}

static void
quantile(struct om_buf *out, const char *name, const struct om_usage_entry *e, const char *q,
	 uint64_t ms)
{
	om_buf_printf(out, "omertad_%s{level=\"%.*s\",quantile=\"%s\"} %g\n", name,
		      OM_STR_ARG(e->name), q, (double)ms / 1000);
}

static void
put_usage(struct om_buf *out, const struct om_usage_table *u)
{
	head(out, "job_wait_seconds", "gauge", "From submission to the start, since the start.");
	for (size_t i = 0; i < u->levels.n; i++) {
		const struct om_usage_entry *e = &u->levels.v[i];

		quantile(out, "job_wait_seconds", e, "0.5", e->wait_p50_ms);
		quantile(out, "job_wait_seconds", e, "0.9", e->wait_p90_ms);
		quantile(out, "job_wait_seconds", e, "0.99", e->wait_p99_ms);
	}
	head(out, "job_run_seconds", "gauge", "From the start to the end, since the start.");
	for (size_t i = 0; i < u->levels.n; i++) {
		const struct om_usage_entry *e = &u->levels.v[i];

		quantile(out, "job_run_seconds", e, "0.5", e->run_p50_ms);
		quantile(out, "job_run_seconds", e, "0.9", e->run_p90_ms);
		quantile(out, "job_run_seconds", e, "0.99", e->run_p99_ms);
	}
}

/* --- actors and control ----------------------------------------------------------------------- */

struct actor_sums {
	struct om_actor_stats v[NAMES_MAX];
	size_t n;
};

static void
actor_visit(const struct om_actor_stats *stats, void *arg)
{
	struct actor_sums *sums = arg;
	size_t i = 0;

	const size_t len = control_actor_kind(stats->name);

	while (i < sums->n &&
	       (strncmp(sums->v[i].name, stats->name, len) != 0 || sums->v[i].name[len] != '\0')) {
		i++;
	}
	if (i == NAMES_MAX) {
		return;
	}
	if (i == sums->n) {
		sums->v[i] = *stats;
		sums->v[i].name[len] = '\0';
		sums->n++;
		return;
	}
	sums->v[i].depth += stats->depth;
	sums->v[i].handled += stats->handled;
	sums->v[i].dropped += stats->dropped;
	sums->v[i].restarts += stats->restarts;
}

static void
put_actors(struct om_buf *out, struct om_system *sys)
{
	struct actor_sums *sums = calloc(1, sizeof(*sums));

	if (sums == NULL) {
		return;
	}
	om_system_actors(sys, actor_visit, sums);
	head(out, "actor_mailbox_depth", "gauge", "Messages that wait.");
	for (size_t i = 0; i < sums->n; i++) {
		labelled(out, "actor_mailbox_depth", "actor", om_str_of(sums->v[i].name),
			 sums->v[i].depth);
	}
	head(out, "actor_messages_total", "counter", "Messages handled by actors that live.");
	for (size_t i = 0; i < sums->n; i++) {
		labelled(out, "actor_messages_total", "actor", om_str_of(sums->v[i].name),
			 sums->v[i].handled);
	}
	head(out, "actor_dropped_total", "counter", "Messages that were not delivered.");
	for (size_t i = 0; i < sums->n; i++) {
		labelled(out, "actor_dropped_total", "actor", om_str_of(sums->v[i].name),
			 sums->v[i].dropped);
	}
	free(sums);
}

static void
put_control(struct om_buf *out, const struct control *c, struct om_ctx *cx)
{
	const size_t n = control_counter_count();
	uint64_t *values = calloc(n, sizeof(*values));
	char name[64];

	head(out, "build_info", "gauge", "The version that runs.");
	labelled(out, "build_info", "version", OM_STR(OM_VERSION), 1);
	one(out, "ready", "gauge", "1: jobs are taken.", c->phase == CONTROL_SERVING);
	one(out, "uptime_seconds", "gauge", "Since it was ready.",
	    (uint64_t)om_mono_ms_between(c->ready_at, om_now(cx)) / 1000);
	if (values == NULL) {
		return;
	}
	control_counter_values(c, values);
	for (size_t i = 0; i < n; i++) {
		const bool grows = control_counter_grows(i);

		(void)snprintf(name, sizeof(name), "control_%s%s", control_counter_name(i),
			       grows ? "_total" : "");
		one(out, name, grows ? "counter" : "gauge", "Of the control endpoint.", values[i]);
	}
	free(values);
}

/* --- a scrape --------------------------------------------------------------------------------- */

static void
put_part(struct om_buf *out, enum part part, const void *body)
{
	switch (part) {
	case PART_QUEUE:
		put_queue(out, body);
		break;
	case PART_FILTER:
		put_filter(out, body);
		break;
	case PART_LEDGER:
		put_ledger(out, body);
		break;
	case PART_USAGE:
		put_usage(out, body);
		break;
	case PARTS:
		break;
	}
}

static void
scrape_free(struct control *c, struct control_scrape *s)
{
	struct control_scrape **at = &c->scrapes;

	while (*at != s) {
		at = &(*at)->next;
	}
	*at = s->next;
	for (unsigned i = 0; i < PARTS; i++) {
		om_buf_fini(&s->parts[i]);
	}
	free(s);
}

static void
scrape_finish(struct om_service *sv, struct control *c, struct control_scrape *s)
{
	struct om_arena arena = { .max = SCRAPE_MEMORY_MAX };
	struct om_buf out = { .max = TEXT_MAX };
	struct om_metrics m = { 0 };

	put_control(&out, c, om_service_cx(sv));
	for (unsigned i = 0; i < PARTS; i++) {
		const struct om_bin raw = { s->parts[i].data, s->parts[i].len };
		void *body = om_arena_alloc(&arena, om_body_info(part_info[i].body)->size);

		if (raw.len > 0 && body != NULL &&
		    om_body_decode(part_info[i].body, raw, body, &arena, NULL) == OM_OK) {
			put_part(&out, (enum part)i, body);
		}
	}
	put_actors(&out, om_ctx_system(om_service_cx(sv)));
	if (out.failed) {
		control_fail(sv, c, s->cookie, OM_ERR_NOMEM, "out of memory");
	} else {
		OM_SET(&m, metrics, text, ((struct om_str){ (const char *)out.data, out.len }));
		control_answer(sv, c, s->cookie, OM_MSG_METRICS_TEXT, &m);
	}
	om_buf_fini(&out);
	om_arena_fini(&arena);
	scrape_free(c, s);
}

/* Which part it is, the type of the answer says. */
static void
scrape_on_part(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct control_scrape *s = (struct control_scrape *)(uintptr_t)answer->cookie;

	for (unsigned i = 0; answer->err == OM_OK && i < PARTS; i++) {
		if (om_msg_info(part_info[i].ask)->answer == answer->type) {
			om_buf_add(&s->parts[i], answer->raw.ptr, answer->raw.len);
		}
	}
	if (--s->waiting == 0) {
		scrape_finish(sv, state, s);
	}
}

enum om_err
control_verb_metrics(struct om_service *sv, struct control *c, const struct control_call *call,
		     struct om_why *why)
{
	const struct om_empty body = { 0 };
	struct control_scrape *s = calloc(1, sizeof(*s));

	(void)why;
	if (s == NULL) {
		return OM_ERR_NOMEM;
	}
	s->next = c->scrapes;
	c->scrapes = s;
	s->cookie = call->cookie;
	s->waiting = 1; /* us, while we ask */
	for (unsigned i = 0; i < PARTS; i++) {
		if (om_service_ask(sv, part_info[i].service, part_info[i].ask, &body, NULL,
				   SCRAPE_ASK_MS, scrape_on_part,
				   (uint64_t)(uintptr_t)s) == OM_OK) {
			s->waiting++;
		}
	}
	if (--s->waiting == 0) {
		scrape_finish(sv, c, s);
	}
	return OM_OK;
}

void
control_metrics_stop(struct control *c)
{
	while (c->scrapes != NULL) {
		scrape_free(c, c->scrapes);
	}
}
