/* SPDX-License-Identifier: ISC */
/*
 * The time of one decision of the filter, with 20 rules of all kinds and 100,000 blocked peers.
 *
 *	filter_bench		prints JSON objects, one a line
 *
 *	pass	the requester is not blocked and every rule passes: all are evaluated
 *	few	the same with 1,000 blocked peers: the length of the list costs nothing
 *	long	as pass, with a description of 1,000 bytes, the longest
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/filter_rules.h"
#include "base/assert.h"

#define DECISIONS 200000u
#define ROUNDS    5
#define REQUESTER 5000 /* different ones, so that nothing stays in the caches by chance */

/* The thread's own time: a busy machine makes the figures no worse than its caches do. */
static struct om_mono
cpu_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (struct om_mono){ ts.tv_sec * OM_NS_PER_S + ts.tv_nsec };
}

static const char *const rules[][8] = {
	{ "peers", "block", "eve,mallory,trudy", NULL },
	{ "peers", "block", "oscar,peggy", NULL },
	{ "networks", "block", "cafe,airport", NULL },
	{ "networks", "allow", "home,lab,office", NULL },
	{ "rate", "max", "1000000", "per", "1h", NULL },
	{ "rate", "max", "1000000", "per", "1d", NULL },
	{ "quiet_hours", "start", "22:00", "end", "8:00", "zone", "utc", NULL },
	{ "quiet_hours", "start", "0:00", "end", "6:00", "days", "sat,sun", NULL },
	{ "quiet_hours", "start", "23:00", "end", "23:30", NULL },
	{ "resources", "max_cores", "8", "max_mem_mib", "16384", NULL },
	{ "resources", "max_runtime_s", "86400", NULL },
	{ "resources", "max_disk_mib", "65536", NULL },
	{ "activity", "forbid", "crypto,mining,miner", "match", "substring", NULL },
	{ "activity", "require", "training,rendering,analysis", NULL },
	{ "activity", "forbid", "spam,scan,flood", NULL },
	{ "activity", "forbid", "torrent,seedbox", NULL },
	{ "concurrency", "max", "50", NULL },
	{ "concurrency", "max", "100", NULL },
	{ "quota", "runtime", "1d", NULL },
	{ "quota", "runtime", "2d", NULL },
};

static struct om_filter *
make(unsigned blocked)
{
	struct om_filter *f = NULL;
	enum om_err err = om_filter_new(OM_STR("alice"), OM_FILTER_ACCEPT_TRUSTED_HOLD, &f);
	char name[32];

	OM_ASSERT(err == OM_OK);
	for (unsigned i = 0; i < blocked; i++) {
		(void)snprintf(name, sizeof(name), "blocked-peer-%u", i);
		err = om_name_set_add(om_filter_blocked(f), om_str_of(name));
		OM_ASSERT(err == OM_OK);
	}
	err = om_name_set_add(om_filter_trusted(f), OM_STR("home"));
	OM_ASSERT(err == OM_OK);
	for (size_t i = 0; i < OM_COUNT(rules); i++) {
		struct om_pair pairs[4];
		struct om_rule rule = { .kind = om_str_of(rules[i][0]) };
		struct om_why why = { "" };
		size_t n = 0;

		(void)snprintf(name, sizeof(name), "rule-%02zu", i);
		rule.name = om_str_of(name);
		for (; rules[i][1 + 2 * n] != NULL; n++) {
			pairs[n].key = om_str_of(rules[i][1 + 2 * n]);
			pairs[n].value = om_str_of(rules[i][2 + 2 * n]);
		}
		OM_SET(&rule, rule, settings, ((struct om_pairs){ pairs, n }));
		err = om_filter_rule_put(f, &rule, false, &why);
		OM_ASSERT(err == OM_OK);
	}
	return f;
}

static double
measure(struct om_filter *f, const char *activity)
{
	/*
	 * Noon of a Wednesday: no quiet hours in any zone of the table, or the next rule would not
	 * run.
	 */
	struct om_wall now = { INT64_C(1700049600) * OM_NS_PER_S };
	static char peers[REQUESTER][24];
	struct om_mono start;

	for (unsigned i = 0; i < REQUESTER; i++) {
		(void)snprintf(peers[i], sizeof(peers[i]), "requester-%u", i);
	}
	start = cpu_now();
	for (unsigned i = 0; i < DECISIONS; i++) {
		struct om_filter_request rq = { .peer =
						    om_str_of(peers[i * 2654435761u % REQUESTER]),
						.network_id = OM_STR("home"),
						.activity = om_str_of(activity) };
		struct om_filter_result result;

		rq.cores = 2;
		rq.mem_mib = 1024;
		rq.disk_mib = 1024;
		rq.runtime_s = 600;
		now.ns += OM_NS_PER_MS;
		om_filter_decide(f, &rq, now, &result);
		OM_ASSERT(result.verdict == OM_FILTER_ACCEPT);
	}
	return (double)(cpu_now().ns - start.ns) / DECISIONS / 1000;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void
tell(const char *what, double v[ROUNDS], const char *target)
{
	qsort(v, ROUNDS, sizeof(v[0]), by_value);
	printf("{\"name\":\"filter/%s\",\"value\":%.4g,\"unit\":\"us\",\"least\":%.4g,\"most\":%.4g"
	       "%s}\n",
	       what, v[ROUNDS / 2], v[0], v[ROUNDS - 1], target);
}

int
main(void)
{
	static const char text[] = "Training of a small language model, nightly data analysis";
	double pass[ROUNDS], few[ROUNDS], longest[ROUNDS];
	struct om_filter *many = make(100000), *some = make(1000);
	char wordy[1001];

	for (size_t i = 0; i + 1 < sizeof(wordy); i++) {
		wordy[i] = text[i % (sizeof(text) - 1)];
	}
	wordy[sizeof(wordy) - 1] = '\0';
	for (int round = 0; round < ROUNDS; round++) {
		pass[round] = measure(many, text);
		few[round] = measure(some, text);
		longest[round] = measure(many, wordy);
	}
	tell("pass", pass, ",\"target\":2");
	tell("few", few, "");
	tell("long", longest, "");
	om_filter_free(many);
	om_filter_free(some);
	return 0;
}
