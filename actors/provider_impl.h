/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_PROVIDER_IMPL_H
#define OM_ACTORS_PROVIDER_IMPL_H

/*
 * The provider's state, shared by its files:
 *   provider.c          the actor
 *   provider_submit.c   submitting; provider_check.c what a submit must be; provider_decide.c the filter;
 *                       provider_batch.c many; provider_many.c one question for many
 *   provider_live.c     jobs that have not ended, their watchers and expiry; job.event
 *   provider_refs.c     requests that name many jobs, and for which of them it was not done
 *   provider_verbs.c    wait, cancel, deny; provider_place.c approve, hold, release, move, retry
 *   provider_cancel.c   cancelling one job; provider_bulk.c many
 *   provider_after.c    jobs on their way into the queue, and what they wait for first
 *   provider_adopt.c    rows that were written after we had given up on them
 *   provider_drain.c    taking no new jobs
 *   provider_books.c    what a requester has: run times, rules.test
 *   provider_get.c      one job, and what keeps it
 *   provider_recover.c  at the start: what the ledger has; draining at the end
 */
#include <sys/queue.h>

#include "actors/books.h"
#include "actors/job_level.h"
#include "actors/provider.h"
#include "actors/time_heap.h"
#include "actors/usage.h"
#include "base/assert.h"
#include "base/id.h"
#include "store/job_state.h"

#define PROVIDER_MAGIC       0x70726f76u
#define PROVIDER_FILTER_MS   10000
#define PROVIDER_LEDGER_MS   30000
#define PROVIDER_QUEUE_MS    30000 /* a cancel waits for the executor's answer */
#define PROVIDER_STOP_ASK_MS 5000 /* queue and executor are told of a stop */
#define PROVIDER_TASKS_MAX   100000 /* questions that wait for a job's end */
#define PROVIDER_PAGE        1000 /* rows of one page */
#define PROVIDER_FAILED_MAX  1024 /* jobs that an answer names as failed */
#define PROVIDER_MANY_MAX    256 /* submits in one question, as in the schema */
#define PROVIDER_MANY_BYTES  (UINT64_C(1) << 20) /* and of their bodies, unless one is larger */

#define PROVIDER_PINGS_MAX 16

enum {
	PROVIDER_TIMER_EXPIRY = 1,
	PROVIDER_TIMER_WATCH,
	PROVIDER_TIMER_RECOVER,
	PROVIDER_TIMER_QUEUE
};

struct provider_task;
TAILQ_HEAD(provider_tasks, provider_task);
struct waiting; /* provider_after.c */
LIST_HEAD(waitings, waiting);
struct edge;
LIST_HEAD(edges, edge);
struct get; /* provider_get.c */
LIST_HEAD(gets, get);
struct test; /* provider_books.c */
LIST_HEAD(tests, test);
struct drain_ask; /* provider_drain.c */
LIST_HEAD(drain_asks, drain_ask);
struct look; /* provider_adopt.c */
LIST_HEAD(looks, look);
struct submit;
struct many; /* provider_many.c */
LIST_HEAD(manys, many);

/* Where a submit waits for an answer. */
enum submit_step { SUBMIT_AT_FILTER, SUBMIT_AT_LEDGER, SUBMIT_AT_QUEUE, SUBMIT_STEPS };

/* What few jobs have. */
struct live_more {
	struct provider_tasks watchers;
	struct waiting *waiting; /* it waits for others; NULL: it does not */
	struct edges dependents; /* who waits for it */
};

/* A job that has not ended.  One for each, so it is small. */
struct live {
	struct om_name_node node; /* first */
	uint32_t runtime_s; /* as the account has it */
	struct om_account *account;
	struct om_time_node expiry; /* held for approval; or its failure is to be written again */
	struct live_more *more; /* NULL: none of it */
	uint8_t len;
	char id[];
};

/* What the queue has to know of a job. */
struct schedule {
	struct om_job_id id;
	enum om_job_level level;
	uint64_t cores, mem_mib;
	uint64_t not_before_s;
	bool held;
	bool again; /* an attempt has ended: its end may not have reached the queue */
	bool first; /* to the front of its level */
	bool waits; /* for other jobs: they are looked at first */
	uint32_t array_limit; /* so many of its array run at one time; 0: no limit */
	int64_t rank; /* recovery: moved by hand */
};

/* A job on its way into the queue; nobody waits for an answer. */
struct comeback {
	LIST_ENTRY(comeback) link;
	struct schedule plan;
	bool counted; /* in provider.recovering */
	bool refused; /* the queue could not take it now: once more when queue_timer fires */
};

/* What is trusted from now on when a job is approved. */
enum provider_trust { TRUST_NOTHING, TRUST_PEER, TRUST_NETWORK };

/* One request of a verb, over one job or many. */
struct provider_verb {
	TAILQ_ENTRY(provider_verb) link;
	struct om_bus_request rq;
	enum om_msg_type type;
	struct om_caller caller;
	char reason[257];
	uint64_t grace_ms;
	bool has_grace;
	enum provider_trust trust; /* approve */
	char to[9], to_level[17]; /* move */
	struct om_mono until; /* its asker waits so long */
	size_t pending; /* tasks not finished, and 1 while tasks are being made */
	uint64_t done;
	enum om_err err; /* of the last task that failed */
	char err_text[OM_WHY_MAX];
	STAILQ_HEAD(, provider_failure) failed; /* of tasks that failed, the first of them */
	size_t failed_count;
	/* in bulk */
	bool bulk, any_level;
	char candidates[4 * (OM_JOB_ID_MAX + 1)]; /* ids that an ambiguous one may mean */
	char array[OM_JOB_ID_MAX + 1]; /* the array that was named where one job is meant */
	enum om_job_level level;
	char state[25] /* job.wait: the state to leave */, peer[OM_PEER_MAX + 1], cursor[65];
};
TAILQ_HEAD(provider_verbs, provider_verb);

/* What a verb does to one job. */
struct provider_task {
	TAILQ_ENTRY(provider_task) link; /* in provider.tasks or in live.watchers */
	struct provider_tasks *list;
	struct provider_verb *verb;
	struct om_job_id id;
	char asked[OM_JOB_ID_MAX + 1]; /* as the caller named it; "": it did not */
	struct om_time_node until; /* while it watches */
	bool
	    asking; /* while it watches: the queue's answer is on its way, so it may not be freed */
	bool moved; /* job.wait: the state that it was asked to leave was left */
	bool came_back; /* cancel: for another attempt, while asking */
	bool over; /* the job ended (or the time did) meanwhile, and so */
	enum om_err over_err;
	struct om_why over_text;
	bool was_held; /* hold: as its row has it */
	bool adopted; /* approve: it was approved before, the answer came too late */
	uint64_t runtime_s; /* as the account has it */
	struct om_account *account; /* a retry counts for its requester until it is live again */
};

LIST_HEAD(submits, submit);
LIST_HEAD(comebacks, comeback);

struct provider {
	uint32_t magic;
	const struct om_provider_conf *conf;
	struct om_provider_limits limits; /* in force; none that has a default is 0 */
	struct om_wall (*wall)(void);
	struct om_arena arena; /* of the message being handled */
	struct om_books books;
	struct om_usage usage;
	struct om_name_table live;
	struct om_time_heap expiries; /* wall, ns */
	struct om_time_heap watches; /* mono, ns */
	uint64_t expiry_timer, watch_timer;
	int64_t expiry_at, watch_at; /* what the timers wait for; 0: nothing */
	struct submits submits, spare_submits;
	size_t spare_count;
	uint64_t submitting; /* jobs on their way to the ledger */
	struct many *waiting_at[SUBMIT_STEPS]; /* to be asked at the end of the turn; NULL: none */
	struct manys questions; /* that were asked */
	struct provider_verbs verbs;
	struct provider_tasks tasks;
	size_t task_count;
	/* the start and the end */
	bool ready, draining;
	char stop_reason[257];
	bool drains,
	    drain_known; /* by the operator's word: no new jobs; drain_known: it was read */
	char drain_reason[257];
	struct drain_asks drain_asks;
	struct tests tests;
	struct gets gets;
	bool unheard; /* nobody listens to events */
	struct comebacks comebacks;
	uint64_t queue_timer; /* some of them are brought again; 0: none */
	struct looks looks;
	struct waitings orphans; /* a question about them is on its way, the job is over */
	struct schedule *moved; /* recovery: jobs that were moved by hand */
	size_t moved_count, moved_cap, moved_next;
	uint64_t recovering; /* questions of the recovery on their way */
	bool last_page;
	bool ran_known; /* today's run times were read ... */
	uint64_t ran_at_ms; /* ... and tell what ended before */
	char cursor[65];
	uint64_t recovered, lost;
	struct om_wall started;
	struct om_bus_request pings[PROVIDER_PINGS_MAX];
	size_t ping_count;
	struct om_bus_request stop_rq;
	uint64_t stop_number; /* of the last one */
	uint64_t drain_ms;
	bool stop_now; /* what runs is being ended */
};

static inline struct provider *
provider_of(void *state)
{
	struct provider *p = state;

	OM_ASSERT(p->magic == PROVIDER_MAGIC);
	return p;
}

static inline struct om_str
live_id(const struct live *live)
{
	return (struct om_str){ live->id, live->len };
}

/* --- provider_live.c -------------------------------------------------------------------------- */

void provider_live_init(struct provider *p);
void provider_live_fini(struct provider *p);
struct live *provider_live_find(const struct provider *p, struct om_str id);
/* Opens the requester's account too.  NULL: no memory, or it is there (recovery). */
struct live *provider_live_add(struct provider *p, struct om_str id, struct om_str peer,
			       uint64_t runtime_s);
/* The same with the id's hash, and with an account that was opened for it: it is the job's now. */
struct live *provider_live_put(struct provider *p, struct om_str id, uint32_t hash,
			       struct om_account *account, uint64_t runtime_s);
/* It expires at that time (ns since 1970). */
enum om_err provider_live_expires(struct om_service *sv, struct provider *p, struct live *live,
				  int64_t at_ns);
/* What few have, made when it is not there.  NULL: no memory. */
struct live_more *provider_live_more(struct live *live);
void provider_live_decided(struct om_service *sv, struct provider *p, struct om_str id);
/* It is held for approval, as far as we know. */
bool provider_live_held(struct live *live);
/* The task waits for the end of the job. */
enum om_err provider_live_watch(struct om_service *sv, struct provider *p, struct live *live,
				struct provider_task *task);
void provider_live_unwatch(struct om_service *sv, struct provider *p, struct provider_task *task);
enum om_err provider_on_event(struct om_service *sv, void *state, const struct om_in *in);
void provider_on_expiry_timer(struct om_service *sv, struct provider *p);
void provider_on_watch_timer(struct om_service *sv, struct provider *p);
/* Records a move that nobody waits for; a failure is logged. */
void provider_move(struct om_service *sv, struct om_str id, enum om_job_state to,
		   const char *reason, const char *text);

/* --- provider_verbs.c ------------------------------------------------------------------------- */

/* The job of a watching task has ended. */
/* The job that it watches is in another state, and has not ended. */
void provider_task_moved(struct om_service *sv, struct provider *p, struct provider_task *task);
void provider_task_ended(struct om_service *sv, struct provider *p, struct provider_task *task,
			 const struct om_job_event *event);
/* Its asker waits no longer. */
void provider_task_timeout(struct om_service *sv, struct provider *p, struct provider_task *task);
void provider_verbs_fini(struct om_service *sv, struct provider *p);
enum om_err provider_on_wait(struct om_service *sv, void *state, const struct om_in *in);
enum om_err provider_on_cancel(struct om_service *sv, void *state, const struct om_in *in);
/* approve, deny, hold, release, retry */

/* --- provider_after.c ------------------------------------------------------------------------- */

/* What a row says. */
void provider_schedule_of(const struct om_job_info *info, struct schedule *out);
/* The queue.add of it; views into it. */
void provider_schedule_add(const struct schedule *s, struct om_str peer, struct om_queue_add *add);
/*
 * Into the queue, or after what it waits for: nobody is told.  A queue that refuses it ends it as
 * rejected.
 */
void provider_schedule(struct om_service *sv, struct provider *p, const struct schedule *s);
/* The same of a job that is already counted in provider.recovering (takes it), if not NULL. */
void provider_schedule_comeback(struct om_service *sv, struct provider *p, struct comeback *job);
/* It is stored, and waits for others.  NOMEM: it would wait for ever. */
enum om_err provider_wait_for_others(struct om_service *sv, struct provider *p,
				     const struct schedule *s);
bool provider_waits(const struct live *live);
/* So many others; 0: none, or it is not known yet. */
size_t provider_waits_for(const struct live *live);
/* false: it does not wait for others, so the queue has it. */
bool provider_waits_hold(struct live *live, bool held);
/* Where it goes when it is released.  false: the queue has it. */
bool provider_waits_move(struct live *live, bool first, const enum om_job_level *level);
/* It is being cancelled: it is not released meanwhile.  false: it does not wait for others. */
bool provider_waits_stop(struct live *live);
/* The cancel could not be written: as before. */
void provider_waits_resume(struct om_service *sv, struct provider *p, struct live *live);
/* Those that the queue could not take. */
void provider_on_queue_timer(struct om_service *sv, struct provider *p);
/* What the ledger could not write or say of a waiting job: once more.  false: it does not wait. */
bool provider_waits_again(struct om_service *sv, struct live *live);
/* It has ended so: who waits for it is released or fails. */
void provider_after_ended(struct om_service *sv, struct provider *p, struct live *live,
			  struct om_str state);
/* The job is gone. */
void provider_after_forget(struct provider *p, struct live *live);
void provider_after_fini(struct provider *p);

/* --- provider_adopt.c ------------------------------------------------------------------------- */

/*
 * The row of a job that is queued or held, and that we do not have as such: now we do.  `but`: the submit
 * that asks.  false: nothing was to be done.
 */
bool provider_adopt(struct om_service *sv, struct provider *p, const struct om_job_info *info,
		    const struct submit *but);
/* A write for this job may come late: reads the row and adopts it.  out: the queue does not have it. */
void provider_look(struct om_service *sv, struct provider *p, struct om_str id, bool out);
void provider_adopt_fini(struct provider *p);

/* --- provider_drain.c ------------------------------------------------------------------------- */

/* DRAINING, with the operator's reason. */
enum om_err provider_drain_check(const struct provider *p, struct om_why *why);
/* Asks the ledger whether we drain, then recovers. */
void provider_drain_look(struct om_service *sv, struct provider *p);
void provider_drain_fini(struct om_service *sv, struct provider *p);
enum om_err provider_on_drain(struct om_service *sv, void *state, const struct om_in *in);
enum om_err provider_on_resume(struct om_service *sv, void *state, const struct om_in *in);

/* --- provider_submit.c ------------------------------------------------------------------------ */

enum om_err provider_on_submit(struct om_service *sv, void *state, const struct om_in *in);
enum om_err provider_on_batch(struct om_service *sv, void *state, const struct om_in *in);
void provider_submits_fini(struct om_service *sv, struct provider *p);

/* --- provider_array.c ------------------------------------------------------------------------- */

/*
 * The task's job could not be read: the answer may say that an array was named, whose jobs the verb
 * is then for.  The task is finished either way.
 */
void provider_array_got(struct om_service *sv, struct provider *p, struct provider_task *task,
			const struct om_bus_answer *answer);

/* --- provider_refs.c -------------------------------------------------------------------------- */

enum om_err provider_on_refs(struct om_service *sv, void *state, const struct om_in *in);
enum om_err provider_on_move(struct om_service *sv, void *state, const struct om_in *in);
/* The verb was not done for this job. */
void provider_failures_add(struct provider_verb *verb, struct om_str job, enum om_err err,
			   const char *text);
void provider_failures_free(struct provider_verb *verb);
/* Answers with how many, and with those that failed. */
void provider_verb_counted(struct om_service *sv, struct provider_verb *verb);

/* --- provider_verbs.c for provider_place.c, and back ------------------------------------------- */

static inline struct provider_task *
provider_task_of(const struct om_bus_answer *answer)
{
	return (struct provider_task *)(uintptr_t)answer->cookie;
}

/* Asks and, when that is not possible, finishes the task. */
void provider_task_ask(struct om_service *sv, struct provider *p, struct provider_task *task,
		       const char *to, enum om_msg_type type, const void *body,
		       om_bus_answer_fn fn);
void provider_task_finish(struct om_service *sv, struct provider *p, struct provider_task *task,
			  enum om_err err, const char *text);
/* It was not about a job: counts neither as done nor as failed. */
void provider_task_drop(struct om_service *sv, struct provider *p, struct provider_task *task);
void provider_task_move(struct om_service *sv, struct provider *p, struct provider_task *task,
			enum om_job_state to, const char *reason, const char *text,
			om_bus_answer_fn fn);
/* The answer of the last step. */
void provider_task_on_last(struct om_service *sv, void *state, const struct om_bus_answer *answer);
void provider_task_wrong_state(struct om_service *sv, struct provider *p,
			       struct provider_task *task, struct om_str state);
/* approve: of a held job, or of one that was adopted as approved */
void provider_approve_got(struct om_service *sv, struct provider *p, struct provider_task *task,
			  const struct om_job_info *info);
/* hold, release, move: of a queued job */
void provider_place_got(struct om_service *sv, struct provider *p, struct provider_task *task);
void provider_retry_got(struct om_service *sv, struct provider *p, struct provider_task *task,
			const struct om_job_info *info, enum om_job_state now);

/* --- provider_verbs.c for provider_cancel.c, and back ------------------------------------------ */

/* From now on the task hears of the job's end.  false: it could not, and is finished. */
bool provider_task_watch(struct om_service *sv, struct provider *p, struct provider_task *task);
void provider_cancel_got(struct om_service *sv, struct provider *p, struct provider_task *task,
			 enum om_job_state now);
/* It comes back for another attempt, and queue.add is on its way. */
void provider_cancel_came_back(struct om_service *sv, struct provider *p, struct live *live);

/* --- provider_verbs.c for provider_bulk.c, and back ------------------------------------------- */

/* One task more of the verb; NULL: too many, or no memory. */
/* STATE until the recovery is over: of a job that is not read yet we would say that it is not there. */
enum om_err provider_is_ready(const struct provider *p, struct om_why *why) OM_MUST_CHECK;
struct provider_verb *provider_verb_new(struct om_service *sv, struct provider *p,
					const struct om_in *in);
void provider_verb_free(struct provider *p, struct provider_verb *verb);
struct provider_task *provider_task_new(struct provider *p, struct provider_verb *verb);
/* A task for the job that ref names or begins. */
void provider_task_begin(struct om_service *sv, struct provider *p, struct provider_verb *verb,
			 struct om_str ref);
/* Does what the verb does, to a row that the caller may touch. */
void provider_task_got(struct om_service *sv, struct provider *p, struct provider_task *task,
		       const struct om_job_info *info);
void provider_verb_failed(struct provider_verb *verb, enum om_err err, const char *text);
/* One task less, or the making of tasks is over; answers and frees the verb after the last. */
void provider_verb_unpend(struct om_service *sv, struct provider *p, struct provider_verb *verb);
/* INVALID: the verb is as it was.  Else it answers by itself. */
enum om_err provider_bulk_begin(struct om_service *sv, struct provider *p,
				struct provider_verb *verb, const struct om_job_cancel *m);
void provider_bulk_page(struct om_service *sv, struct provider *p, struct provider_verb *verb);

/* --- provider_check.c ------------------------------------------------------------------------- */

/* So many new jobs of the requester are taken now: DRAINING, FULL, LIMIT. */
enum om_err provider_room(const struct provider *p, struct om_str peer, uint64_t jobs,
			  bool operator_own, struct om_why *why);
/* More than is lent in all. */
bool provider_too_big(const struct provider *p, uint64_t cores, uint64_t mem_mib,
		      struct om_why *why);

/* --- provider_books.c ------------------------------------------------------------------------- */

/* What the requester has by his page, but for these jobs, which are in the books and ask for it. */
void provider_books_tell(struct om_page page, uint64_t jobs, uint64_t runtime_s,
			 struct om_filter_request *out);
/* The time that the attempt took which the event ends; 0: none, or it is known from the ledger. */
uint64_t provider_ran_ms(const struct provider *p, const struct om_job_event *event);
/* Reads today's run times, then recovers. */
void provider_ran_look(struct om_service *sv, struct provider *p);
enum om_err provider_on_test(struct om_service *sv, void *state, const struct om_in *in);
void provider_tests_fini(struct om_service *sv, struct provider *p);

/* --- provider_get.c --------------------------------------------------------------------------- */

enum om_err provider_on_get(struct om_service *sv, void *state, const struct om_in *in);
void provider_gets_fini(struct om_service *sv, struct provider *p);

/* --- provider_recover.c ----------------------------------------------------------------------- */

void provider_recover(struct om_service *sv, struct provider *p);
/* One question of the recovery is answered. */
void provider_recover_step(struct om_service *sv, struct provider *p);
void provider_recover_fini(struct provider *p);
enum om_err provider_on_ping(struct om_service *sv, void *state, const struct om_in *in);
enum om_err provider_on_stop(struct om_service *sv, void *state, const struct om_in *in);

#endif /* OM_ACTORS_PROVIDER_IMPL_H */
