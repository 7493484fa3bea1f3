/* SPDX-License-Identifier: ISC */
/*
 * A kind of rule is the keys of its settings, a check of their combinations, and the question
 * itself; nothing else has to know it.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/filter_impl.h"
#include "actors/filter_text.h"
#include "base/assert.h"
#include "base/parse.h"

#define NO_LIMIT        UINT64_MAX
#define RATE_PER_MS     (UINT64_C(3600) * 1000)
#define RATE_PER_MAX_MS (UINT64_C(7) * 24 * 3600 * 1000)

/* --- resources -------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct om_rule_settings, field)

static const struct om_rule_key resources_keys[] = {
	{ "max_cores", OM_KEY_NUMBER, AT(max_cores), 0, 1024, false, NO_LIMIT },
	{ "max_mem_mib", OM_KEY_NUMBER, AT(max_mem_mib), 0, 16777216, false, NO_LIMIT },
	{ "max_disk_mib", OM_KEY_NUMBER, AT(max_disk_mib), 0, 16777216, false, NO_LIMIT },
	{ "max_runtime_s", OM_KEY_NUMBER, AT(max_runtime_s), 0, 31536000, false, NO_LIMIT },
	{ "gpu", OM_KEY_YES_NO, AT(gpu), 0, 0, false, 0 },
};

static bool
over(struct om_rule_hit *hit, const char *what, const char *unit, uint64_t asked, uint64_t limit)
{
	if (asked <= limit) {
		return false;
	}
	hit->reason = "resource_limit";
	(void)snprintf(hit->text, sizeof(hit->text), "%s %llu%s is over the limit of %llu%s", what,
		       (unsigned long long)asked, unit, (unsigned long long)limit, unit);
	return true;
}

static bool
resources_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	const struct om_filter_request *rq = in->rq;
	const struct om_rule_settings *s = &rule->s;

	if (rq->gpu && !s->gpu) {
		hit->reason = "gpu_not_offered";
		(void)snprintf(hit->text, sizeof(hit->text), "no GPU is offered");
		return true;
	}
	return over(hit, "CPU cores:", "", rq->cores, s->max_cores) ||
	       over(hit, "memory", " MiB", rq->mem_mib, s->max_mem_mib) ||
	       over(hit, "disk", " MiB", rq->disk_mib, s->max_disk_mib) ||
	       over(hit, "runtime", " s", rq->runtime_s, s->max_runtime_s);
}

/* --- activity --------------------------------------------------------------------------------- */

static const struct om_rule_key activity_keys[] = {
	{ "require", OM_KEY_WORDS, AT(require), 0, 0, false, 0 },
	{ "forbid", OM_KEY_WORDS, AT(forbid), 0, 0, false, 0 },
	{ "match", OM_KEY_TEXT, AT(match), 0, 0, false, 0 },
};

static enum om_err
activity_check(struct om_rule_settings *s, struct om_why *why)
{
	s->substring = om_str_is(s->match, "substring");
	if (s->match.ptr != NULL && !s->substring && !om_str_is(s->match, "word")) {
		return om_why_set(why, OM_ERR_INVALID, "match is word or substring");
	}
	if (s->require.n == 0 && s->forbid.n == 0) {
		return om_why_set(why, OM_ERR_INVALID, "an activity rule needs require or forbid");
	}
	return OM_OK;
}

static int
words_find(const struct om_rule_words *words, const struct om_rule_input *in, bool as_word)
{
	for (size_t i = 0; i < words->n; i++) {
		if (om_text_maybe(&in->pairs, words->folded[i]) &&
		    om_text_contains(in->activity, words->folded[i], as_word)) {
			return (int)i;
		}
	}
	return -1;
}

static bool
activity_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	const struct om_rule_settings *s = &rule->s;
	bool given = in->activity.ptr != NULL;
	int found = given ? words_find(&s->forbid, in, !s->substring) : -1;

	if (found >= 0) {
		hit->reason = "activity_forbidden";
		(void)snprintf(hit->text, sizeof(hit->text),
			       "the description contains the forbidden keyword \"%.*s\"",
			       OM_STR_ARG(s->forbid.v[found]));
		return true;
	}
	if (s->require.n == 0 || (given && words_find(&s->require, in, !s->substring) >= 0)) {
		return false;
	}
	hit->reason = given ? "activity_unmatched" : "activity_missing";
	/* A missing keyword is a question for the operator, a forbidden one is an answer. */
	if (rule->action == OM_RULE_DEFAULT) {
		hit->action = OM_RULE_HOLD;
	}
	(void)snprintf(hit->text, sizeof(hit->text), "%s",
		       given ? "the description has none of the required keywords"
			     : "there is no description of the activity");
	return true;
}

/* --- quiet hours ------------------------------------------------------------------------------ */

static const struct om_rule_key quiet_keys[] = {
	{ "start", OM_KEY_TEXT, AT(quiet_text.start), 0, 0, true, 0 },
	{ "end", OM_KEY_TEXT, AT(quiet_text.end), 0, 0, true, 0 },
	{ "days", OM_KEY_TEXT, AT(quiet_text.days), 0, 0, false, 0 },
	{ "zone", OM_KEY_TEXT, AT(quiet_text.zone), 0, 0, false, 0 },
	{ "jobs", OM_KEY_TEXT, AT(jobs_text), 0, 0, false, 0 },
};

static enum om_err
quiet_check(struct om_rule_settings *s, struct om_why *why)
{
	static const char *const jobs[] = { [OM_QUIET_RUN] = "run",
					    [OM_QUIET_NO_STARTS] = "no_starts",
					    [OM_QUIET_PAUSE] = "pause" };
	unsigned i = 0;

	while (s->jobs_text.ptr != NULL && i < OM_COUNT(jobs) &&
	       !om_str_is(s->jobs_text, jobs[i])) {
		i++;
	}
	if (i == OM_COUNT(jobs)) {
		return om_why_set(why, OM_ERR_INVALID, "jobs is run, no_starts or pause");
	}
	s->jobs = (enum om_quiet_jobs)i;
	return om_quiet_hours_parse(&s->quiet_text, &s->quiet, why);
}

static bool
quiet_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	struct om_quiet_hours *quiet = &rule->s.quiet;

	if (!om_quiet_hours_inside(quiet, in->now)) {
		return false;
	}
	hit->reason = "quiet_hours";
	(void)snprintf(hit->text, sizeof(hit->text), "quiet hours (%s-%s)", quiet->start_text,
		       quiet->end_text);
	return true;
}

void
om_rule_quiet(struct om_filter_rule *rule, struct om_wall now, struct om_filter_quiet *out)
{
	struct om_rule_settings *s = &rule->s;

	if (rule->kind->check != quiet_check || s->jobs == OM_QUIET_RUN) {
		return;
	}
	out->timed = true;
	if (!om_quiet_hours_inside(&s->quiet, now)) {
		return;
	}
	out->pause = out->pause || s->jobs == OM_QUIET_PAUSE;
	if (!out->hold_starts) { /* the first, by priority, is named */
		out->hold_starts = true;
		(void)snprintf(out->text, sizeof(out->text), "quiet hours (%s-%s)",
			       s->quiet.start_text, s->quiet.end_text);
	}
}

/* --- peers and networks ----------------------------------------------------------------------- */

static const struct om_rule_key names_keys[] = {
	{ "allow", OM_KEY_NAMES, AT(allow), 0, 0, false, 0 },
	{ "block", OM_KEY_NAMES, AT(block), 0, 0, false, 0 },
};

static enum om_err
names_check(struct om_rule_settings *s, struct om_why *why)
{
	s->has_allow = s->allow.table.count > 0;
	if (!s->has_allow && s->block.table.count == 0) {
		return om_why_set(why, OM_ERR_INVALID, "the rule needs allow or block");
	}
	return OM_OK;
}

static bool
names_hit(const struct om_rule_settings *s, const char *what, struct om_str name, uint32_t hash,
	  const char *blocked, const char *not_allowed, struct om_rule_hit *hit)
{
	if (om_name_set_has_hashed(&s->block, name, hash)) {
		hit->reason = blocked;
		(void)snprintf(hit->text, sizeof(hit->text), "%s %.*s is blocked", what,
			       OM_STR_ARG(name));
		return true;
	}
	if (s->has_allow && !om_name_set_has_hashed(&s->allow, name, hash)) {
		hit->reason = not_allowed;
		(void)snprintf(hit->text, sizeof(hit->text), "%s %.*s is not among the allowed",
			       what, OM_STR_ARG(name));
		return true;
	}
	return false;
}

static bool
peers_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	return names_hit(&rule->s, "peer", in->rq->peer, in->peer_hash, "peer_blocked",
			 "peer_not_allowed", hit);
}

static bool
networks_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	return names_hit(&rule->s, "network", in->rq->network_id, in->network_hash,
			 "network_blocked", "network_not_allowed", hit);
}

/* An array asks for all of its jobs at once. */
static uint64_t
jobs_of(const struct om_filter_request *rq)
{
	return rq->jobs > 0 ? rq->jobs : 1;
}

/* --- rate: so many requests of one requester in a window that begins with its first ----------- */

struct counter {
	struct om_name_node node; /* first */
	int64_t since_ns;
	uint64_t count;
	uint8_t len;
	char peer[];
};

static struct om_str
counter_name(const struct om_name_node *node)
{
	const struct counter *c = (const struct counter *)node;

	return (struct om_str){ c->peer, c->len };
}

static void
counters_sweep(struct om_name_table *t, int64_t before_ns)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(t, &walk)) != NULL) {
		struct counter *c = (struct counter *)node;

		if (c->since_ns < before_ns) {
			om_name_table_remove(t, node);
			free(c);
		}
	}
}

static struct counter *
counter_make(struct om_name_table *t, struct om_str peer)
{
	struct counter *c;

	OM_ASSERT(peer.len <= UINT8_MAX);
	if (t->count >= OM_FILTER_RATE_PEERS) {
		return NULL;
	}
	c = calloc(1, sizeof(*c) + peer.len);
	if (c == NULL) {
		return NULL;
	}
	c->len = (uint8_t)peer.len;
	if (peer.len > 0) {
		memcpy(c->peer, peer.ptr, peer.len);
	}
	if (om_name_table_add(t, &c->node) != OM_OK) {
		free(c);
		return NULL;
	}
	return c;
}

static const struct om_rule_key rate_keys[] = {
	{ "max", OM_KEY_NUMBER, AT(max), 1, 1000000, true, 0 },
	{ "per", OM_KEY_DURATION, AT(per_ms), 1000, RATE_PER_MAX_MS, false, RATE_PER_MS },
};

static bool
rate_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	struct om_rule_settings *s = &rule->s;
	int64_t begin = in->now.ns - (int64_t)s->per_ms * OM_NS_PER_MS;
	struct counter *c =
	    (struct counter *)om_name_table_find_hashed(&s->counters, in->rq->peer, in->peer_hash);
	bool fresh = c == NULL || c->since_ns <= begin || c->since_ns > in->now.ns;
	const uint64_t asked = jobs_of(in->rq), here = fresh ? 0 : c->count;

	hit->reason = "rate";
	if (asked > s->max || here > s->max - asked) {
		(void)snprintf(hit->text, sizeof(hit->text), "%llu jobs in %llu s are the limit",
			       (unsigned long long)s->max, (unsigned long long)s->per_ms / 1000);
		return true;
	}
	if (in->dry) {
		return false;
	}
	if (c == NULL) {
		if (s->counters.count >= OM_FILTER_RATE_PEERS) {
			counters_sweep(&s->counters, begin);
		}
		c = counter_make(&s->counters, in->rq->peer);
		if (c == NULL) { /* who cannot be counted is not let through uncounted */
			(void)snprintf(hit->text, sizeof(hit->text),
				       "too many requesters to keep count of");
			return true;
		}
	}
	if (fresh) {
		c->since_ns = in->now.ns;
		c->count = 0;
	}
	c->count += asked;
	return false;
}

/* --- concurrency and quota: the provider keeps the books -------------------------------------- */

static const struct om_rule_key concurrency_keys[] = {
	{ "max", OM_KEY_NUMBER, AT(max), 1, 1000000, true, 0 },
};

static bool
concurrency_hits(struct om_filter_rule *rule, const struct om_rule_input *in,
		 struct om_rule_hit *hit)
{
	if (in->rq->peer_jobs < rule->s.max && jobs_of(in->rq) <= rule->s.max - in->rq->peer_jobs) {
		return false;
	}
	hit->reason = "concurrency";
	(void)snprintf(hit->text, sizeof(hit->text),
		       "the requester has %llu unfinished jobs, the limit is %llu",
		       (unsigned long long)in->rq->peer_jobs, (unsigned long long)rule->s.max);
	return true;
}

static const struct om_rule_key quota_keys[] = {
	{ "runtime", OM_KEY_DURATION, AT(runtime_ms), 1000, UINT64_C(86400000) * 1000, true, 0 },
};

static bool
quota_hits(struct om_filter_rule *rule, const struct om_rule_input *in, struct om_rule_hit *hit)
{
	uint64_t used = in->rq->peer_runtime_s, asked = in->rq->runtime_s * jobs_of(in->rq);
	uint64_t limit = rule->s.runtime_ms / 1000;

	if (used <= limit && asked <= limit - used) {
		return false;
	}
	hit->reason = "quota";
	(void)snprintf(
	    hit->text, sizeof(hit->text), "%llu s asked for, %llu s of the day's %llu s are used",
	    (unsigned long long)asked, (unsigned long long)used, (unsigned long long)limit);
	return true;
}

/* --- the kinds -------------------------------------------------------------------------------- */

#define KEYS(k) (k), OM_COUNT(k)

static const struct om_rule_kind kinds[] = {
	{ "peers", 90, OM_RULE_REJECT, KEYS(names_keys), names_check, peers_hits },
	{ "networks", 80, OM_RULE_REJECT, KEYS(names_keys), names_check, networks_hits },
	{ "rate", 70, OM_RULE_REJECT, KEYS(rate_keys), NULL, rate_hits },
	{ "quiet_hours", 60, OM_RULE_HOLD, KEYS(quiet_keys), quiet_check, quiet_hits },
	{ "resources", 50, OM_RULE_REJECT, KEYS(resources_keys), NULL, resources_hits },
	{ "activity", 40, OM_RULE_REJECT, KEYS(activity_keys), activity_check, activity_hits },
	{ "concurrency", 30, OM_RULE_REJECT, KEYS(concurrency_keys), NULL, concurrency_hits },
	{ "quota", 20, OM_RULE_REJECT, KEYS(quota_keys), NULL, quota_hits },
};

const struct om_rule_kind *
om_rule_kind_find(struct om_str name, struct om_why *why)
{
	const char *names[OM_COUNT(kinds)];
	char text[OM_FILTER_NAME_MAX + 1];
	const char *near = NULL;

	for (size_t i = 0; i < OM_COUNT(kinds); i++) {
		names[i] = kinds[i].name;
		if (om_str_is(name, kinds[i].name)) {
			return &kinds[i];
		}
	}
	if (om_str_copy(name, text, sizeof(text)) == OM_OK) {
		near = om_nearest(text, names, OM_COUNT(names));
	}
	(void)om_why_set(why, OM_ERR_INVALID, "there is no kind of rule \"%.*s\"%s%s%s",
			 OM_STR_ARG(name), near != NULL ? ", did you mean \"" : "",
			 near != NULL ? near : "", near != NULL ? "\"?" : "");
	return NULL;
}

void
om_rule_counters_init(struct om_name_table *counters)
{
	om_name_table_init(counters, counter_name);
}

void
om_rule_counters_free(struct om_name_table *counters)
{
	counters_sweep(counters, INT64_MAX);
	om_name_table_fini(counters);
}
