/* SPDX-License-Identifier: ISC */
/*
 * Does the cost of the queue's data grow with its length?  Out of the caches it does; schedule_bench says
 * what that is of a whole operation, which has the target.
 *
 *	queue_bench		prints JSON objects, one a line
 *
 * A queue of 1,000 and one of 1,000,000 jobs, in turn, ROUNDS times; the figure is the median.
 *	turn	one job added, one picked, one ended
 *	cancel	a job anywhere in the queue cancelled and one added
 *	memory	resident bytes per queued job, indexes included (ids as long as the daemon makes them):
 *		what the queue has of it and what the provider has
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actors/job_order.h"
#include "actors/provider_impl.h"
#include "base/assert.h"
#include "base/clock.h"

#define SMALL  1000u
#define LARGE  1000000u
#define OPS    200000u
#define ROUNDS 7

/* The thread's own time: a busy machine makes the figures no worse than its caches do. */
static struct om_mono
cpu_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (struct om_mono){ ts.tv_sec * OM_NS_PER_S + ts.tv_nsec };
}

static const struct om_wall now = { INT64_C(1700000000) * OM_NS_PER_S };

struct queue {
	struct om_job_order *order;
	uint32_t size;
	uint32_t first, next; /* numbers of the jobs in it, when nothing was cancelled */
	uint64_t rnd;
	double turn_ns[ROUNDS], cancel_ns[ROUNDS];
};

static struct om_str
name_of(uint32_t number, char text[16])
{
	int len = snprintf(text, 16, "%08x%04x", number * 2654435761u, number & 0xffffu);

	return (struct om_str){ text, (size_t)len };
}

static void
add(struct queue *q)
{
	char text[16];
	struct om_order_job job = { .id = name_of(q->next, text),
				    .level = (enum om_job_level)(q->next % OM_LEVELS),
				    .cores = 1,
				    .mem_mib = 512 };
	uint64_t ahead;
	enum om_err err = om_job_order_add(q->order, &job, now, &ahead, NULL);

	OM_ASSERT(err == OM_OK);
	q->next++;
}

static double
elapsed_ns(struct om_mono since, unsigned ops)
{
	return (double)(cpu_now().ns - since.ns) / ops;
}

static double
resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long all = 0, resident = 0;

	OM_ASSERT(f != NULL && fscanf(f, "%lu %lu", &all, &resident) == 2);
	(void)fclose(f);
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

/* A queue that was full is one that has grown: what is measured is the state of use. */
static void
fill(struct queue *q, uint32_t size)
{
	struct om_order_limits limits = { .max_jobs = 1, .cores_total = 4, .mem_mib_total = 4096 };
	enum om_err err = om_job_order_new(&limits, &q->order);

	OM_ASSERT(err == OM_OK);
	q->size = size;
	q->rnd = 88172645463325252u;
	while (q->next < size) {
		add(q);
	}
}

/* Nothing was freed yet: what is resident is in use. */
static double
bytes_per_job(struct queue *q)
{
	static struct provider provider;
	double before = resident_bytes();
	char text[16], peer[16];

	fill(q, LARGE);
	provider_live_init(&provider);
	for (uint32_t i = 0; i < LARGE; i++) {
		struct live *live;

		(void)snprintf(peer, sizeof(peer), "uid:%u", i % 100);
		live = provider_live_add(&provider, name_of(i, text), om_str_of(peer), 3600);
		OM_ASSERT(live != NULL);
	}
	before = (resident_bytes() - before) / LARGE;
	provider_live_fini(&provider);
	return before;
}

static void
turns(struct queue *q, int round)
{
	struct om_mono start = cpu_now();

	for (unsigned i = 0; i < OPS; i++) {
		struct om_order_job job;
		char id[16];
		bool picked;

		add(q);
		picked = om_job_order_pick(q->order, now, &job);
		OM_ASSERT(picked && job.id.len < sizeof(id));
		memcpy(id, job.id.ptr, job.id.len);
		(void)om_job_order_end(q->order, (struct om_str){ id, job.id.len },
				       OM_ORDER_COMPLETED);
	}
	q->turn_ns[round] = elapsed_ns(start, OPS);
}

static void
cancels(struct queue *q, int round)
{
	struct om_mono start = cpu_now();
	unsigned done = 0;

	for (unsigned i = 0; done < OPS / 4; i++) {
		char text[16];
		bool running;
		uint32_t number;

		q->rnd ^= q->rnd << 13;
		q->rnd ^= q->rnd >> 7;
		q->rnd ^= q->rnd << 17;
		number = q->next - 1 - (uint32_t)(q->rnd % q->size);
		if (om_job_order_cancel(q->order, name_of(number, text), &running) == OM_OK) {
			add(q);
			done++;
		}
		OM_ASSERT(i < 100 * OPS);
	}
	q->cancel_ns[round] = elapsed_ns(start, OPS / 4);
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
median(double v[ROUNDS])
{
	qsort(v, ROUNDS, sizeof(v[0]), by_value);
	return v[ROUNDS / 2];
}

static void
tell(const char *what, double small, double large)
{
	printf("{\"name\":\"queue/%s\",\"value\":%.4g,\"unit\":\"ratio\",\"small_ns\":%.4g,"
	       "\"large_ns\":%.4g}\n",
	       what, large / small, small, large);
}

int
main(void)
{
	static struct queue small, large;
	double bytes = bytes_per_job(&large);

	fill(&small, SMALL);
	for (int round = 0; round < ROUNDS; round++) {
		turns(&small, round);
		turns(&large, round);
		cancels(&small, round);
		cancels(&large, round);
	}
	tell("turn", median(small.turn_ns), median(large.turn_ns));
	tell("cancel", median(small.cancel_ns), median(large.cancel_ns));
	printf("{\"name\":\"queue/memory\",\"value\":%.4g,\"unit\":\"B/job\",\"target\":256}\n",
	       bytes);
	om_job_order_free(small.order);
	om_job_order_free(large.order);
	return 0;
}
