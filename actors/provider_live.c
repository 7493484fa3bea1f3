/* SPDX-License-Identifier: ISC */
/*
 * Jobs that have not ended.
 *
 * 1. A job is in `live` from the moment it is durable until the ledger reports its end.  If broken:
 *    its requester's account is never closed, or who waits for it waits for ever.
 * 2. Only job.event from the ledger ends a job here: nobody is told of an end that is not durable.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "actors/names.h"
#include "actors/provider_impl.h"
#include "base/log.h"

#define EXPIRY_RETRY_NS (INT64_C(60) * OM_NS_PER_S)
#define EXPIRY_LOOK_MS  (UINT64_C(3600) * 1000) /* wall clocks are set: look again */

static struct om_str
live_name(const struct om_name_node *node)
{
	return live_id((const struct live *)node);
}

static struct live *
live_of_expiry(struct om_time_node *node)
{
	return (struct live *)((char *)node - offsetof(struct live, expiry));
}

static struct provider_task *
task_of_until(struct om_time_node *node)
{
	return (struct provider_task *)((char *)node - offsetof(struct provider_task, until));
}

void
provider_live_init(struct provider *p)
{
	om_name_table_init(&p->live, live_name);
	om_books_init(&p->books);
	om_usage_init(&p->usage);
	LIST_INIT(&p->orphans);
}

struct live_more *
provider_live_more(struct live *live)
{
	if (live->more == NULL) {
		live->more = calloc(1, sizeof(*live->more));
		if (live->more != NULL) {
			TAILQ_INIT(&live->more->watchers);
			LIST_INIT(&live->more->dependents);
		}
	}
	return live->more;
}

void
provider_live_fini(struct provider *p)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&p->live, &walk)) != NULL) {
		provider_after_forget(p, (struct live *)node);
	}
	walk = (struct om_name_walk){ 0 };
	while ((node = om_name_table_next(&p->live, &walk)) != NULL) {
		free(((struct live *)node)->more);
		free(node);
	}
	provider_after_fini(p);
	om_name_table_fini(&p->live);
	om_books_fini(&p->books);
	om_usage_fini(&p->usage);
	om_time_heap_fini(&p->expiries);
	om_time_heap_fini(&p->watches);
}

struct live *
provider_live_find(const struct provider *p, struct om_str id)
{
	return (struct live *)om_name_table_find(&p->live, id);
}

struct live *
provider_live_put(struct provider *p, struct om_str id, uint32_t hash, struct om_account *account,
		  uint64_t runtime_s)
{
	struct live *live;

	if (id.len > OM_JOB_ID_MAX || runtime_s > UINT32_MAX) {
		return NULL;
	}
	om_name_table_expect(&p->live, hash);
	live = calloc(1, offsetof(struct live, id) + id.len);
	if (live == NULL) {
		return NULL;
	}
	memcpy(live->id, id.ptr, id.len);
	live->len = (uint8_t)id.len;
	live->runtime_s = (uint32_t)runtime_s;
	live->node.hash = hash;
	live->account = account;
	if (om_name_table_add_hashed(&p->live, &live->node) != OM_OK) {
		free(live);
		return NULL;
	}
	return live;
}

struct live *
provider_live_add(struct provider *p, struct om_str id, struct om_str peer, uint64_t runtime_s)
{
	struct om_account *account;
	struct live *live;

	if (peer.len > OM_PEER_MAX) {
		return NULL;
	}
	account = om_books_open(&p->books, peer, runtime_s);
	if (account == NULL) {
		return NULL;
	}
	live = provider_live_put(p, id, om_name_hash(id), account, runtime_s);
	if (live == NULL) {
		om_books_close(&p->books, account, runtime_s, 0, (struct om_wall){ 0 });
	}
	return live;
}

/* --- expiry ----------------------------------------------------------------------------------- */

static void
arm_expiry(struct om_service *sv, struct provider *p)
{
	const struct om_time_node *first = om_time_heap_first(&p->expiries);
	int64_t at = first == NULL ? 0 : first->at;
	int64_t wait_ms;

	if (at == p->expiry_at) {
		return;
	}
	om_timer_cancel(om_service_cx(sv), p->expiry_timer);
	p->expiry_timer = 0;
	p->expiry_at = at;
	if (at == 0) {
		return;
	}
	wait_ms = (at - p->wall().ns) / OM_NS_PER_MS + 1;
	if (wait_ms < 1) {
		wait_ms = 1;
	} else if ((uint64_t)wait_ms > EXPIRY_LOOK_MS) {
		wait_ms = (int64_t)EXPIRY_LOOK_MS;
	}
	if (om_timer_start(om_service_cx(sv), (uint64_t)wait_ms, 0, PROVIDER_TIMER_EXPIRY,
			   &p->expiry_timer) != OM_OK) {
		p->expiry_at = 0; /* the next held job arms it */
	}
}

enum om_err
provider_live_expires(struct om_service *sv, struct provider *p, struct live *live, int64_t at_ns)
{
	enum om_err err;

	om_time_heap_remove(&p->expiries, &live->expiry);
	err = om_time_heap_add(&p->expiries, &live->expiry, at_ns);
	arm_expiry(sv, p);
	return err;
}

/* It is held no longer. */
void
provider_live_decided(struct om_service *sv, struct provider *p, struct om_str id)
{
	struct live *live = provider_live_find(p, id);

	if (live != NULL) {
		om_time_heap_remove(&p->expiries, &live->expiry);
		arm_expiry(sv, p);
	}
}

bool
provider_live_held(struct live *live)
{
	return live->expiry.place != 0 && !provider_waits(live);
}

static void
on_moved(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	/* STATE: the job has moved on by itself. */
	if (answer->err != OM_OK && answer->err != OM_ERR_STATE) {
		om_warn("provider.ledger", "a job's state could not be recorded: %s", answer->text);
	}
}

void
provider_move(struct om_service *sv, struct om_str id, enum om_job_state to, const char *reason,
	      const char *text)
{
	struct om_ledger_move move = { .job = id, .state = om_str_of(om_job_state_text(to)) };
	enum om_err err;

	OM_SET(&move, ledger_move, reason, om_str_of(reason));
	OM_SET(&move, ledger_move, text, om_str_of(text));
	err = om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_MOVE, &move, NULL, PROVIDER_LEDGER_MS,
			     on_moved, 0);
	if (err != OM_OK) {
		om_warn("provider.ledger", "job %.*s could not become %s: %s", OM_STR_ARG(id),
			om_job_state_text(to), om_err_text(err));
	}
}

/* Held jobs whose time is over.  Each stays in the heap, later, in case the ledger cannot write. */
void
provider_on_expiry_timer(struct om_service *sv, struct provider *p)
{
	int64_t now_ns = p->wall().ns;
	struct om_time_node *first;

	p->expiry_timer = 0;
	p->expiry_at = 0;
	while ((first = om_time_heap_first(&p->expiries)) != NULL && first->at <= now_ns) {
		struct live *live = live_of_expiry(first);

		om_time_heap_remove(&p->expiries, first);
		if (!provider_waits_again(sv, live)) {
			provider_move(sv, live_id(live), OM_JOB_EXPIRED, "expired",
				      "nobody approved it in time");
		}
		if (om_time_heap_add(&p->expiries, first, now_ns + EXPIRY_RETRY_NS) != OM_OK) {
			om_warn("provider.expiry", "out of memory");
		}
	}
	arm_expiry(sv, p);
}

/* --- watchers --------------------------------------------------------------------------------- */

static void
arm_watch(struct om_service *sv, struct provider *p)
{
	const struct om_time_node *first = om_time_heap_first(&p->watches);
	int64_t at = first == NULL ? 0 : first->at;
	int64_t wait_ns;

	if (at == p->watch_at) {
		return;
	}
	om_timer_cancel(om_service_cx(sv), p->watch_timer);
	p->watch_timer = 0;
	p->watch_at = at;
	if (at == 0) {
		return;
	}
	wait_ns = at - om_now(om_service_cx(sv)).ns;
	if (om_timer_start(om_service_cx(sv),
			   wait_ns < 0 ? 1 : (uint64_t)(wait_ns / OM_NS_PER_MS) + 1, 0,
			   PROVIDER_TIMER_WATCH, &p->watch_timer) != OM_OK) {
		p->watch_at = 0; /* the next watcher arms it */
	}
}

enum om_err
provider_live_watch(struct om_service *sv, struct provider *p, struct live *live,
		    struct provider_task *task)
{
	struct live_more *more = provider_live_more(live);

	if (more == NULL) {
		return OM_ERR_NOMEM;
	}
	if (om_time_heap_add(&p->watches, &task->until, task->verb->until.ns) != OM_OK) {
		return OM_ERR_NOMEM;
	}
	TAILQ_REMOVE(task->list, task, link);
	TAILQ_INSERT_TAIL(&more->watchers, task, link);
	task->list = &more->watchers;
	arm_watch(sv, p);
	return OM_OK;
}

void
provider_live_unwatch(struct om_service *sv, struct provider *p, struct provider_task *task)
{
	om_time_heap_remove(&p->watches, &task->until);
	TAILQ_REMOVE(task->list, task, link);
	TAILQ_INSERT_TAIL(&p->tasks, task, link);
	task->list = &p->tasks;
	arm_watch(sv, p);
}

void
provider_on_watch_timer(struct om_service *sv, struct provider *p)
{
	int64_t now_ns = om_now(om_service_cx(sv)).ns;
	struct om_time_node *first;

	p->watch_timer = 0;
	p->watch_at = 0;
	while ((first = om_time_heap_first(&p->watches)) != NULL && first->at <= now_ns) {
		om_time_heap_remove(&p->watches, first);
		provider_task_timeout(sv, p, task_of_until(first));
	}
	arm_watch(sv, p);
}

/* --- what the ledger reports ------------------------------------------------------------------ */

static void
live_end(struct om_service *sv, struct provider *p, struct live *live,
	 const struct om_job_event *event)
{
	om_time_heap_remove(&p->expiries, &live->expiry);
	arm_expiry(sv, p);
	om_name_table_remove(&p->live, &live->node);
	om_books_close(&p->books, live->account, live->runtime_s, provider_ran_ms(p, event),
		       p->wall());
	if (event->info != NULL) {
		om_usage_add(&p->usage, event->info);
	}
	if (live->more != NULL) {
		struct provider_task *task;

		while ((task = TAILQ_FIRST(&live->more->watchers)) != NULL) {
			provider_live_unwatch(sv, p, task);
			provider_task_ended(sv, p, task, event);
		}
		provider_after_forget(p, live);
		provider_after_ended(sv, p, live, event->state);
	}
	free(live->more);
	free(live);
}

/* Who waits for it to leave a state hears that it has. */
static void
tell_moved(struct om_service *sv, struct provider *p, struct live *live)
{
	struct provider_task *task, *next;

	if (live == NULL || live->more == NULL) {
		return;
	}
	for (task = TAILQ_FIRST(&live->more->watchers); task != NULL; task = next) {
		next = TAILQ_NEXT(task, link);
		if (task->verb->type == OM_MSG_JOB_WAIT && task->verb->state[0] != '\0') {
			provider_live_unwatch(sv, p, task);
			provider_task_moved(sv, p, task);
		}
	}
}

/* An attempt has ended, another follows at once: only its time counts. */
static void
count_attempt(struct provider *p, const struct om_job_event *event)
{
	if (om_books_add_ran(&p->books, event->peer, provider_ran_ms(p, event), p->wall()) !=
	    OM_OK) {
		om_warn("provider.quota", "out of memory");
	}
}

/* From an end back into the queue: another attempt, by itself or by hand. */
static void
comes_back(struct om_service *sv, struct provider *p, struct live *live,
	   const struct om_job_event *event)
{
	struct schedule plan;

	if (live == NULL &&
	    provider_live_add(p, event->job, event->peer,
			      event->info != NULL ? event->info->runtime_s : 0) == NULL) {
		om_error("provider.live", "job %.*s: out of memory, its end will not be noticed",
			 OM_STR_ARG(event->job));
	}
	if (event->info == NULL) {
		om_error("provider.live", "job %.*s: came back without its row",
			 OM_STR_ARG(event->job));
		return;
	}
	provider_schedule_of(event->info, &plan);
	plan.again = true; /* one that has never run waits for the others as before */
	provider_schedule(sv, p, &plan);
	if (live != NULL) {
		provider_cancel_came_back(sv, p, live);
	}
}

static bool
came_back(const struct om_job_event *event)
{
	enum om_job_state from;

	return !event->final && om_str_is(event->state, om_job_state_text(OM_JOB_QUEUED)) &&
	       om_job_state_parse(event->from.ptr, event->from.len, &from) == OM_OK &&
	       om_job_is_final(from);
}

enum om_err
provider_on_event(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_job_event *event = in->body;
	struct live *live;
	enum om_err err;

	if (in->caller->role != OM_ROLE_ACTOR) {
		return OM_ERR_DENIED;
	}
	live = provider_live_find(p, event->job);
	if (event->final && live != NULL) {
		live_end(sv, p, live, event);
	} else if (event->retry) {
		count_attempt(p, event);
	} else {
		if (came_back(event)) {
			comes_back(sv, p, live, event);
		}
		tell_moved(sv, p, live);
	}
	if (p->unheard) {
		return OM_OK;
	}
	err = om_service_send(sv, OM_CONTROL, OM_MSG_JOB_EVENT, event);
	if (err != OM_OK && err != OM_ERR_NOT_FOUND && err != OM_ERR_GONE) {
		om_debug("provider.event", "job %.*s: not published: %s", OM_STR_ARG(event->job),
			 om_err_text(err));
	}
	return OM_OK;
}
