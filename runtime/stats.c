/* SPDX-License-Identifier: ISC */
/*
 * What can be seen from outside.  Counters have one writer each (the context that owns them); they
 * are read here with atomic loads and summed.  A sum over a running system is not one moment.
 */
#include "runtime/mailbox_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

#define SAMPLE_EVERY 256 /* one handler call in so many is timed */
#define HIST_AFTER   64 /* an actor that has handled less has no histogram */

/* NULL: it has handled little, or there is no memory. */
static struct om_hist *
stats_hist(struct om_actor *a)
{
	struct om_actor_ext *ext = a->handled >= HIST_AFTER ? om_actor_ext(a) : NULL;

	if (ext != NULL && ext->hist == NULL) {
		struct om_hist *hist = calloc(1, sizeof(*hist));

		/* Order: zeroes before the pointer; pairs with the loads in actor_stats. */
		ck_pr_fence_store();
		ck_pr_store_ptr(&ext->hist, hist);
	}
	return ext != NULL ? ext->hist : NULL;
}

static void
hist_add(struct om_hist *hist, uint64_t ns)
{
	unsigned bucket = ns == 0 ? 0 : 63 - (unsigned)__builtin_clzll(ns);

	bucket = bucket < OM_HIST_BUCKETS ? bucket : OM_HIST_BUCKETS - 1;
	ck_pr_store_64(&hist->count[bucket], hist->count[bucket] + 1);
}

/*
 * A handler call whose time goes into the actor's histogram; if it has a budget of its own, the time
 * is compared with that.  In sim mode the fake clock is looked at, so a handler takes no time.
 */
enum om_err
om_stats_timed(struct om_ctx *cx, struct om_actor *a, om_handler_fn fn, const struct om_msg *msg)
{
	struct om_hist *hist = stats_hist(a);
	uint32_t budget_us = a->def->budget_us;
	enum om_err err;
	uint64_t ns;
	int64_t start;

	if (budget_us == 0) {
		cx->sample = SAMPLE_EVERY;
		if (hist == NULL) {
			return fn(cx, a->state, msg);
		}
	}
	start = om_system_now(cx->sys).ns;
	err = fn(cx, a->state, msg);
	ns = (uint64_t)(om_system_now(cx->sys).ns - start);
	if (hist != NULL) {
		hist_add(hist, ns);
	}
	if (budget_us != 0 && ns / 1000 > budget_us && om_sched_tell(cx, om_sched_call(cx))) {
		om_stats_slow(cx, a, ns / 1000);
	}
	return err;
}

uint64_t
om_hist_quantile(const struct om_hist *hist, double q)
{
	uint64_t total = 0, seen = 0;

	for (unsigned i = 0; i < OM_HIST_BUCKETS; i++) {
		total += hist->count[i];
	}
	for (unsigned i = 0; i < OM_HIST_BUCKETS; i++) {
		seen += hist->count[i];
		if (total > 0 && (double)seen >= q * (double)total) {
			return UINT64_C(2) << i;
		}
	}
	return 0;
}

/* --- events that members of a group want to see ------------------------------------------------------ */

static void
stats_publish(struct om_ctx *cx, const char *group, uint32_t type, const void *body, size_t size)
{
	uint64_t *members = NULL;
	size_t n = om_reg_members(cx->sys, group, &members);

	for (size_t i = 0; i < n; i++) {
		struct om_msg *msg = om_pool_msg(cx, type, size);
		enum om_err err;

		if (msg == NULL) {
			break;
		}
		memcpy(msg->payload, body, size);
		err = om_mbox_push(cx, members[i], msg);
		cx->n.sent++;
		if (err != OM_OK) { /* counted, but there is no letter about a letter */
			om_actor_discard(cx, msg,
					 err == OM_ERR_STALE ? OM_DROP_STALE : OM_DROP_FULL);
		}
	}
	free(members);
}

/* Counts a dropped message and tells who wants to know.  Does not take it. */
void
om_stats_drop(struct om_ctx *cx, const struct om_msg *msg, enum om_drop why)
{
	const struct om_msg_hdr *hdr = om_hdr(msg);
	struct om_actor *a = om_actor_at(cx->sys, hdr->to);

	cx->n.dropped[why]++;
	if (a != NULL && life_is(ck_pr_load_64(&a->life), hdr->to)) {
		ck_pr_inc_32(&a->dropped);
	}
	if (om_unlikely(hdr->trace != 0)) {
		om_trace_put(cx->sys, OM_TRACE_DROP, hdr->to, msg, (uint64_t)why);
	}
	if (om_unlikely(ck_pr_load_32(&cx->sys->dead_letter_watchers) != 0) &&
	    msg->type != OM_SYS_DEAD_LETTER) {
		struct om_dead_letter letter = { .to = om_id_of(hdr->to),
						 .from = msg->from,
						 .type = msg->type,
						 .size = msg->size,
						 .why = why };

		stats_publish(cx, OM_GROUP_DEAD_LETTERS, OM_SYS_DEAD_LETTER, &letter,
			      sizeof(letter));
	}
}

/* Any of our threads: a handler is over its budget. */
void
om_stats_slow(struct om_ctx *cx, const struct om_actor *a, uint64_t us)
{
	const struct om_actor_def *def = ck_pr_load_ptr(&a->def);
	uint64_t id =
	    ck_pr_load_64(&a->life) >> OM_SLOT_BITS << OM_SLOT_BITS | om_actor_slot(cx->sys, a);
	struct om_slow_report report = { .who = om_id_of(id), .us = us };
	char name[OM_STATS_NAME];

	cx->n.slow++;
	if ((ck_pr_load_32(&a->limit) & OM_LIMIT_NAMED) == 0 ||
	    !om_reg_name_of(cx->sys, id, name, sizeof(name))) {
		(void)snprintf(name, sizeof(name), "%s", def->name != NULL ? def->name : "?");
	}
	om_warn("actor.slow", "%s: a handler has run for %llu us, its budget is %u us", name,
		(unsigned long long)us, OM_BUDGET_US(def));
	stats_publish(cx, OM_GROUP_SLOW, OM_SYS_SLOW, &report, sizeof(report));
}

/* --- pictures ------------------------------------------------------------------------------------------- */

/* false: the slot is free. */
static bool
actor_stats(struct om_system *sys, struct om_actor *a, struct om_actor_stats *out)
{
	uint64_t life = ck_pr_load_64(&a->life);
	const struct om_actor_def *def = ck_pr_load_ptr(&a->def);
	pthread_mutex_t *lock = &sys->lane_lock[om_actor_slot(sys, a) % OM_LANE_LOCKS];
	const struct om_actor_ext *ext;
	uint32_t limit;

	if ((life & OM_LIFE_DEAD) != 0 || def == NULL) {
		return false;
	}
	memset(out, 0, sizeof(*out));
	out->id.v = (life >> OM_SLOT_BITS) << OM_SLOT_BITS | om_actor_slot(sys, a);
	limit = ck_pr_load_32(&a->limit);
	out->limit = limit & OM_LIMIT_MASK;
	out->depth = om_mbox_depth(a, &out->sys_depth);
	out->high_water = ck_pr_load_32(&a->high_water);
	out->handled = ck_pr_load_64(&a->handled);
	out->dropped = ck_pr_load_32(&a->dropped);
	if ((limit & OM_LIMIT_NAMED) == 0 ||
	    !om_reg_name_of(sys, out->id.v, out->name, sizeof(out->name))) {
		(void)snprintf(out->name, sizeof(out->name), "%s",
			       def->name != NULL ? def->name : "?");
	}
	/* The end of an actor takes this lock before it frees ext. */
	(void)pthread_mutex_lock(lock);
	ext = life_is(ck_pr_load_64(&a->life), out->id.v) ? ck_pr_load_ptr(&a->ext) : NULL;
	if (ext != NULL) {
		const struct om_hist *hist = ck_pr_load_ptr(&ext->hist);

		out->restarts = ck_pr_load_64(&ext->restarts);
		for (unsigned i = 0; hist != NULL && i < OM_HIST_BUCKETS; i++) {
			out->hist.count[i] = ck_pr_load_64(&hist->count[i]);
		}
	}
	(void)pthread_mutex_unlock(lock);
	/* Still the same tenant?  Otherwise the numbers are of two. */
	return (ck_pr_load_64(&a->life) ^ life) >> OM_SLOT_BITS == 0;
}

uint64_t
om_actor_birth(const struct om_actor *a)
{
	return ck_pr_load_64(&a->birth);
}

bool
om_actor_is_supervised(const struct om_actor *a)
{
	return (ck_pr_load_8(&a->flags) & OM_ACTOR_SUPERVISED) != 0;
}

void
om_system_actors(struct om_system *sys, om_actor_visit_fn visit, void *arg)
{
	uint32_t mark = om_shared_load(&sys->slot_mark);
	struct om_actor_stats stats;

	for (uint32_t i = 0; i < mark; i++) {
		if (actor_stats(sys, &sys->slots[i], &stats)) {
			visit(&stats, arg);
		}
	}
}

enum om_err
om_actor_stats(struct om_system *sys, struct om_actor_id who, struct om_actor_stats *out)
{
	struct om_actor *a = om_actor_at(sys, who.v);

	if (a == NULL || !actor_stats(sys, a, out) || !om_actor_id_eq(out->id, who)) {
		return OM_ERR_STALE;
	}
	return OM_OK;
}

static void
counts_add(struct om_system_stats *out, const struct om_ctx *cx)
{
	const struct om_counts *n = &cx->n;

	out->actors_spawned += ck_pr_load_64(&n->spawned);
	out->actors_live += ck_pr_load_64(&n->spawned) - ck_pr_load_64(&n->ended);
	out->actors_failed += ck_pr_load_64(&n->failed);
	out->actors_restarted += ck_pr_load_64(&n->restarted);
	out->sent += ck_pr_load_64(&n->sent);
	out->handled += ck_pr_load_64(&n->handled);
	out->dropped_full += ck_pr_load_64(&n->dropped[OM_DROP_FULL]);
	out->dropped_stale += ck_pr_load_64(&n->dropped[OM_DROP_STALE]);
	out->dropped_stop += ck_pr_load_64(&n->dropped[OM_DROP_STOP]);
	out->dropped_unknown += ck_pr_load_64(&n->dropped[OM_DROP_UNKNOWN]);
	out->asks += ck_pr_load_64(&n->asks);
	out->asks_timed_out += ck_pr_load_64(&n->asks_timed_out);
	out->asks_gone += ck_pr_load_64(&n->asks_gone);
	out->parks += ck_pr_load_64(&n->parks);
	out->wakes += ck_pr_load_64(&n->wakes);
	out->handovers += ck_pr_load_64(&n->handovers);
	out->slow_handlers += ck_pr_load_64(&n->slow);
	out->errors += ck_pr_load_64(&n->errors);
}

void
om_system_stats(struct om_system *sys, struct om_system_stats *out)
{
	uint32_t mark = om_shared_load(&sys->slot_mark);
	uint32_t sys_depth;

	memset(out, 0, sizeof(*out));
	for (struct om_ctx *cx = om_ctx_first(sys); cx != NULL; cx = cx->next_ctx) {
		counts_add(out, cx);
	}
	for (uint32_t i = 0; i < mark; i++) {
		if ((ck_pr_load_64(&sys->slots[i].life) & OM_LIFE_DEAD) == 0) {
			out->queued += om_mbox_depth(&sys->slots[i], &sys_depth);
			out->queued += sys_depth;
		}
	}
}
