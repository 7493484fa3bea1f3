/* SPDX-License-Identifier: ISC */
#include "actors/usage.h"

#include <stdlib.h>
#include <string.h>

#include "msg/bus.h"

#define QUARTERS 4 /* buckets of one doubling */

struct peer_usage {
	struct om_name_node node; /* first */
	struct om_usage_of of;
	uint8_t len;
	char name[];
};

/* --- spread ----------------------------------------------------------------------------------- */

/* 0 to 3 exactly, then four buckets from each power of two to the next. */
static size_t
bucket_of(uint64_t ms)
{
	unsigned top;
	size_t i;

	if (ms < QUARTERS) {
		return (size_t)ms;
	}
	top = 63 - (unsigned)__builtin_clzll(ms);
	i = (top - 1) * QUARTERS + ((ms >> (top - 2)) & (QUARTERS - 1));
	return i < OM_USAGE_BUCKETS ? i : OM_USAGE_BUCKETS - 1;
}

static uint64_t
bucket_end(size_t i)
{
	unsigned top;

	if (i < QUARTERS) {
		return i;
	}
	top = (unsigned)(i / QUARTERS) + 1;
	return ((QUARTERS + i % QUARTERS + 1) << (top - 2)) - 1;
}

void
om_spread_add(struct om_spread *spread, uint64_t ms)
{
	spread->count[bucket_of(ms)]++;
	spread->total++;
}

uint64_t
om_spread_at(const struct om_spread *spread, double q)
{
	uint64_t want = (uint64_t)(q * (double)spread->total), seen = 0;

	if (spread->total == 0) {
		return 0;
	}
	if (want >= spread->total) {
		want = spread->total - 1;
	}
	for (size_t i = 0; i < OM_USAGE_BUCKETS; i++) {
		seen += spread->count[i];
		if (seen > want) {
			return bucket_end(i);
		}
	}
	return bucket_end(OM_USAGE_BUCKETS - 1);
}

/* --- usage ------------------------------------------------------------------------------------ */

static struct om_str
peer_name(const struct om_name_node *node)
{
	const struct peer_usage *peer = (const struct peer_usage *)node;

	return (struct om_str){ peer->name, peer->len };
}

void
om_usage_init(struct om_usage *usage)
{
	memset(usage, 0, sizeof(*usage));
	om_name_table_init(&usage->peers, peer_name);
}

void
om_usage_fini(struct om_usage *usage)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&usage->peers, &walk)) != NULL) {
		free(node);
	}
	om_name_table_fini(&usage->peers);
}

static struct om_usage_of *
usage_of_peer(struct om_usage *usage, struct om_str name)
{
	struct peer_usage *peer = (struct peer_usage *)om_name_table_find(&usage->peers, name);

	if (peer != NULL) {
		return &peer->of;
	}
	if (usage->peers.count >= OM_USAGE_PEERS_MAX || name.len > OM_PEER_MAX) {
		return &usage->others;
	}
	peer = calloc(1, sizeof(*peer) + name.len);
	if (peer == NULL) {
		return &usage->others;
	}
	memcpy(peer->name, name.ptr, name.len);
	peer->len = (uint8_t)name.len;
	if (om_name_table_add(&usage->peers, &peer->node) != OM_OK) {
		free(peer);
		return &usage->others;
	}
	return &peer->of;
}

static void
usage_count(struct om_usage_of *of, const struct om_job_info *info, enum om_job_state state)
{
	if (om_job_is_success(state)) {
		of->completed++;
	} else if (om_job_is_failure(state)) {
		of->failed++;
	} else if (state == OM_JOB_CANCELLED) {
		of->cancelled++;
	} else { /* denied, expired, rejected */
		of->other++;
	}
	if (info->started_ms == 0) {
		return;
	}
	if (info->attempt <= 1 && info->started_ms >= info->submitted_ms) {
		om_spread_add(&of->wait, info->started_ms - info->submitted_ms);
	}
	if (info->finished_ms >= info->started_ms) {
		om_spread_add(&of->run, info->finished_ms - info->started_ms);
		of->run_ms += info->finished_ms - info->started_ms;
	}
}

void
om_usage_add(struct om_usage *usage, const struct om_job_info *info)
{
	enum om_job_level level = OM_LEVEL_EXTERNAL;
	enum om_job_state state;

	if (om_job_state_parse(info->state.ptr, info->state.len, &state) != OM_OK) {
		return;
	}
	if (om_job_level_parse(info->level, &level) == OM_OK) {
		usage_count(&usage->levels[level], info, state);
	}
	if (info->peer.len > 0) {
		usage_count(usage_of_peer(usage, info->peer), info, state);
	}
}

static void
tell_one(const struct om_usage_of *of, struct om_str name, struct om_usage_entry *out)
{
	*out = (struct om_usage_entry){ 0 };
	OM_SET(out, usage_entry, name, name);
	OM_SET(out, usage_entry, completed, of->completed);
	OM_SET(out, usage_entry, failed, of->failed);
	OM_SET(out, usage_entry, cancelled, of->cancelled);
	OM_SET(out, usage_entry, other, of->other);
	OM_SET(out, usage_entry, run_ms, of->run_ms);
	if (of->wait.total > 0) {
		OM_SET(out, usage_entry, wait_p50_ms, om_spread_at(&of->wait, 0.5));
		OM_SET(out, usage_entry, wait_p90_ms, om_spread_at(&of->wait, 0.9));
		OM_SET(out, usage_entry, wait_p99_ms, om_spread_at(&of->wait, 0.99));
	}
	if (of->run.total > 0) {
		OM_SET(out, usage_entry, run_p50_ms, om_spread_at(&of->run, 0.5));
		OM_SET(out, usage_entry, run_p90_ms, om_spread_at(&of->run, 0.9));
		OM_SET(out, usage_entry, run_p99_ms, om_spread_at(&of->run, 0.99));
	}
}

static int
busiest_first(const void *a, const void *b)
{
	const struct om_usage_entry *x = a, *y = b;
	size_t len = x->name.len < y->name.len ? x->name.len : y->name.len;
	int by_name = memcmp(x->name.ptr, y->name.ptr, len);

	if (x->run_ms != y->run_ms) {
		return x->run_ms < y->run_ms ? 1 : -1;
	}
	return by_name != 0 ? by_name : (x->name.len > y->name.len) - (x->name.len < y->name.len);
}

enum om_err
om_usage_tell(const struct om_usage *usage, struct om_arena *arena, struct om_usage_table *out)
{
	const struct om_usage_of *others = &usage->others;
	struct om_usage_entry *levels = om_arena_alloc(arena, OM_LEVELS * sizeof(*levels));
	struct om_usage_entry *peers =
	    om_arena_alloc(arena, (usage->peers.count + 1) * sizeof(*peers));
	struct om_name_walk walk = { 0 };
	const struct om_name_node *node;
	size_t n = 0;

	if (levels == NULL || peers == NULL) {
		return OM_ERR_NOMEM;
	}
	for (unsigned i = 0; i < OM_LEVELS; i++) {
		tell_one(&usage->levels[i], om_str_of(om_job_level_text(i)), &levels[i]);
	}
	while ((node = om_name_table_next(&usage->peers, &walk)) != NULL) {
		tell_one(&((const struct peer_usage *)node)->of, peer_name(node), &peers[n++]);
	}
	qsort(peers, n, sizeof(*peers), busiest_first);
	if (others->completed + others->failed + others->cancelled + others->other > 0) {
		tell_one(others, OM_STR("(others)"), &peers[n++]);
	}
	out->levels.v = levels;
	out->levels.n = OM_LEVELS;
	out->peers.v = peers;
	out->peers.n = n;
	return OM_OK;
}
