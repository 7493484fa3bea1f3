/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_PROVIDER_SUBMIT_IMPL_H
#define OM_ACTORS_PROVIDER_SUBMIT_IMPL_H

/*
 * A submit on its way: provider_submit.c, provider_check.c, provider_decide.c, provider_batch.c,
 * provider_many.c.
 */
#include "actors/job_array.h"
#include "actors/provider_impl.h"

struct batch;

/* What each step looks at comes first: with thousands on their way each line is a cache miss. */
struct submit {
	LIST_ENTRY(submit) link;
	struct om_bus_request rq;
	struct batch *batch; /* it is one of many; NULL: rq asks for it alone */
	size_t place; /* in the batch */
	struct om_job_array *array; /* NULL: one job; owned */
	struct om_account
	    *account; /* counts these jobs until they are live, so that many at once do
				       not slip past a limit */
	struct om_job_id id;
	bool chosen; /* the id, by the client */
	bool operator_own;
	uint32_t hash; /* of the id, when it is stored */
	unsigned tries;
	enum om_job_state state; /* decided, as is the level */
	enum om_job_level level;
	uint64_t counted; /* in provider.submitting: so many jobs */
	uint64_t opened; /* times that the account was opened */
	uint8_t
	    *raw; /* the body as it came; may hold secrets: wiped; of a batch: the batch has it */
	size_t raw_len;
	uint8_t *spec; /* the same in the one form that is stored and compared; wiped; as raw */
	size_t spec_len;
	struct om_arena arena;
	uint64_t cores, mem_mib, disk_mib, runtime_s;
	int64_t stored_ns; /* when it was decided, as the row has it */
	int64_t expires_ns;
	uint64_t peer_jobs, peer_runtime_s; /* what its requester had when it came */
	struct om_job_submit body; /* views into raw and arena, or the batch's */
	struct om_caller caller;
	char peer[OM_PEER_MAX + 1], network[OM_NETWORK_MAX + 1];
	char reason[33], rule[65], text[513]; /* last: only their first bytes are cleared */
};

/* --- provider_check.c ------------------------------------------------------------------------- */

/* Takes over the body, which is not of a batch. */
enum om_err provider_submit_take(struct submit *s, struct om_bin raw, struct om_why *why);
/* Appends the body in the one form that is stored and compared. */
enum om_err provider_submit_spec(const struct om_job_submit *body, struct om_arena *arena,
				 struct om_buf *out, struct om_why *why);
/* Checks who asks, and what for. */
enum om_err provider_submit_check(struct provider *p, struct submit *s,
				  const struct om_caller *caller, struct om_why *why);
/*
 * Is there room for it?  From here on it counts for its requester, before any that come later.
 */
enum om_err provider_submit_limits(struct provider *p, struct submit *s, struct om_why *why);
/* More than is lent in all: rejected and recorded, whatever the rules say. */
bool provider_never_fits(const struct provider *p, struct submit *s);

/* --- provider_submit.c ------------------------------------------------------------------------ */

/* Counts as a job from here on.  NULL: no memory. */
struct submit *provider_submit_new(struct provider *p);
/* Begins one; from here on it answers by itself.  An error: it was refused and is gone. */
enum om_err provider_submit_begin(struct om_service *sv, struct provider *p, struct submit *s,
				  const struct om_caller *caller, struct om_why *why);
void provider_submit_free(struct provider *p, struct submit *s);
/* OM_OK, or why no job is taken now. */
enum om_err provider_submit_open(const struct provider *p, struct om_why *why);

/* The decision is made: makes it durable, then queues it and answers. */
void provider_submit_store(struct om_service *sv, struct provider *p, struct submit *s);
/* The question that does so; its parts live as long as the submit and info, which is zeroed. */
void provider_submit_ask_ledger(struct submit *s, struct om_job_info *info,
				struct om_ledger_submit *out);
void provider_submit_stored(struct om_service *sv, struct provider *p, struct submit *s,
			    enum om_err err, const char *text, bool duplicate);
/* What the queue has to know of it. */
void provider_submit_plan(const struct submit *s, struct schedule *out);
void provider_submit_added(struct om_service *sv, struct provider *p, struct submit *s,
			   enum om_err err, const char *text, uint64_t ahead);
/* Answers, and it is gone. */
void provider_submit_fail(struct om_service *sv, struct provider *p, struct submit *s,
			  enum om_err err, const char *text);

/* --- provider_decide.c ------------------------------------------------------------------------ */

/* Asks the filter, then stores what it says. */
void provider_submit_filter(struct om_service *sv, struct provider *p, struct submit *s);
void provider_submit_ask_filter(const struct submit *s, struct om_filter_request *out);
void provider_submit_decided(struct om_service *sv, struct provider *p, struct submit *s,
			     const struct om_filter_decision *m);

/* --- provider_many.c -------------------------------------------------------------------------- */

/* It is asked for with all that come to this step in the same turn. */
void provider_many_add(struct om_service *sv, struct provider *p, enum submit_step step,
		       struct submit *s);
/* The turn ends. */
void provider_many_ask(struct om_service *sv, struct provider *p);
void provider_many_fini(struct provider *p);

/* --- provider_batch.c ------------------------------------------------------------------------- */

/* The answer of one of many. */
void provider_batch_accepted(struct om_service *sv, struct provider *p, struct batch *batch,
			     size_t place, const struct om_job_accepted *m);
void provider_batch_failed(struct om_service *sv, struct provider *p, struct batch *batch,
			   size_t place, const struct om_error *error);

/* Its text is a view. */
static inline struct om_error
provider_submit_error(enum om_err err, const char *text)
{
	struct om_error error = { .code = om_str_of(om_err_code(err)) };

	OM_SET(&error, error, text, om_str_of(text));
	return error;
}

static inline uint64_t
submit_jobs(const struct submit *s)
{
	return s->array != NULL ? s->array->count : 1;
}

#endif /* OM_ACTORS_PROVIDER_SUBMIT_IMPL_H */
