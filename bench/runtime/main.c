/* SPDX-License-Identifier: ISC */
/*
 * Runs the workloads: runtime_bench [-w workers] [-n runs] [-j] [workload...]
 *                     runtime_bench WORKLOAD WORKERS	(one run, one JSON object; also "probe")
 *
 * Prints a header about the machine, and for each workload the median of n runs (5) with the lowest
 * and the highest.  Beside each workload stands the cost of moving a cache line to another core and
 * back at that moment (it changes by itself on a virtual machine).  -j: one JSON object a line.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "base/assert.h"
#include "bench/runtime/bench.h"

#define PROBE_ROUNDS  20000
#define PROBE_WARM_UP 1000 /* until both threads are where they belong */

static sem_t done;

double
bench_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double
status_mib(const char *key)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	double kib = 0;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, key, strlen(key)) == 0) {
			kib = strtod(line + strlen(key), NULL);
		}
	}
	if (f != NULL) {
		(void)fclose(f);
	}
	return kib / 1024;
}

double
bench_rss_mib(void)
{
	return status_mib("VmRSS:");
}

double
bench_peak_rss_mib(void)
{
	return status_mib("VmHWM:");
}

void
bench_peak_reset(void)
{
	FILE *f = fopen("/proc/self/clear_refs", "we");

	if (f != NULL) {
		(void)fputs("5", f);
		(void)fclose(f);
	}
}

struct om_system *
bench_system(unsigned workers)
{
	struct om_system_conf conf = { .workers = workers };
	struct om_system *sys;

	OM_ASSERT(om_system_new(&conf, &sys) == OM_OK);
	return sys;
}

void
bench_system_end(struct om_system *sys)
{
	struct om_system_stats st;

	OM_ASSERT(om_system_stop(sys, 60000, NULL, 0) == 0);
	om_system_stats(sys, &st);
	if (getenv("BENCH_STATS") != NULL) {
		fprintf(stderr, "# handovers %llu, parks %llu, wakes %llu\n",
			(unsigned long long)st.handovers, (unsigned long long)st.parks,
			(unsigned long long)st.wakes);
	}
	OM_ASSERT(st.sent == st.handled && st.queued == 0 && st.actors_live == 0);
	om_system_free(sys);
}

struct om_actor_id
bench_spawn(struct om_system *sys, const struct om_actor_def *def, const void *arg)
{
	struct om_actor_id id;

	OM_ASSERT(om_system_spawn(sys, def, arg, &id) == OM_OK);
	return id;
}

void
bench_post(struct om_system *sys, struct om_actor_id to, uint32_t type, uint64_t value)
{
	struct om_msg *msg = om_system_msg_new(sys, type, sizeof(value));

	OM_ASSERT(msg != NULL);
	*(uint64_t *)(void *)msg->payload = value;
	OM_ASSERT(om_system_send(sys, to, &msg) == OM_OK);
}

void
bench_wait(void)
{
	while (sem_wait(&done) != 0) {
		OM_ASSERT(errno == EINTR);
	}
}

void
bench_done(void)
{
	OM_ASSERT(sem_post(&done) == 0);
}

/* --- the cross-core probe ---------------------------------------------------------------------------- */

static volatile uint32_t probe_word __attribute__((aligned(64)));

static void
pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	(void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *
probe_main(void *arg)
{
	(void)arg;
	pin(1);
	for (uint32_t i = 0; i < PROBE_ROUNDS; i++) {
		while (__atomic_load_n(&probe_word, __ATOMIC_ACQUIRE) != 2 * i + 1) {
		}
		__atomic_store_n(&probe_word, 2 * i + 2, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* ns for a line to go to the other core and come back; 0 with one core. */
static double
probe_ns(void)
{
	cpu_set_t old;
	pthread_t t;
	double start;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
		return 0;
	}
	(void)pthread_getaffinity_np(pthread_self(), sizeof(old), &old);
	pin(0);
	probe_word = 0;
	OM_ASSERT(pthread_create(&t, NULL, probe_main, NULL) == 0);
	start = bench_now();
	for (uint32_t i = 0; i < PROBE_ROUNDS; i++) {
		if (i == PROBE_WARM_UP) {
			start = bench_now();
		}
		__atomic_store_n(&probe_word, 2 * i + 1, __ATOMIC_RELEASE);
		while (__atomic_load_n(&probe_word, __ATOMIC_ACQUIRE) != 2 * i + 2) {
		}
	}
	start = bench_now() - start;
	(void)pthread_join(t, NULL);
	(void)pthread_setaffinity_np(pthread_self(), sizeof(old), &old);
	return start / (PROBE_ROUNDS - PROBE_WARM_UP) * 1e9;
}

/* --- reports ------------------------------------------------------------------------------------------- */

static void
print_header(unsigned workers, unsigned runs)
{
	struct utsname u;
	char line[256], model[128] = "?";
	FILE *f = fopen("/proc/cpuinfo", "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
			(void)snprintf(model, sizeof(model), "%.*s", (int)strcspn(colon + 2, "\n"),
				       colon + 2);
			break;
		}
	}
	if (f != NULL) {
		(void)fclose(f);
	}
	(void)uname(&u);
	printf("# %s, %ld cpus, %s %s, gcc %s; %u workers, median of %u runs\n", model,
	       sysconf(_SC_NPROCESSORS_ONLN), u.sysname, u.release, __VERSION__, workers, runs);
}

static int
value_cmp(const void *a, const void *b)
{
	double x = ((const struct bench_result *)a)->value;
	double y = ((const struct bench_result *)b)->value;

	return x < y ? -1 : x > y;
}

static void
report(const struct bench_workload *w, unsigned workers, struct bench_result *r, unsigned runs,
       double probe, bool json)
{
	struct bench_result mid;

	qsort(r, runs, sizeof(r[0]), value_cmp);
	mid = r[runs / 2];
	if (json) {
		printf(
		    "{\"name\":\"runtime.%s.%uw\",\"unit\":\"%s\",\"better\":\"%s\",\"ours\":%.4g,"
		    "\"target\":%.4g,\"low\":%.4g,\"high\":%.4g,\"extra\":%.4g,"
		    "\"probe_ns\":%.0f}\n",
		    w->name, workers, w->unit, w->higher ? "higher" : "lower", mid.value, w->target,
		    r[0].value, r[runs - 1].value, mid.extra, probe);
		return;
	}
	printf("%-5s %-28s %9.4g %-11s [%.4g .. %.4g]", w->name, w->what, mid.value, w->unit,
	       r[0].value, r[runs - 1].value);
	if (w->target != BENCH_NO_TARGET) {
		printf("  target %s %.4g %s", w->higher ? ">=" : "<=", w->target,
		       mid.value == w->target || (mid.value > w->target) == w->higher ? "ok"
										      : "MISS");
	}
	printf("  probe %.0f ns", probe);
	if (w->extra_unit != NULL) {
		printf("  %.4g %s", mid.extra, w->extra_unit);
	}
	printf("\n");
	(void)fflush(stdout);
}

static bool
wanted(const struct bench_workload *w, int argc, char **argv, int first)
{
	for (int i = first; i < argc; i++) {
		if (strcmp(argv[i], w->name) == 0) {
			return true;
		}
	}
	return first >= argc;
}

/* `runtime_bench W1 2`, as bench/run.py calls it: one run, one JSON object. */
static int
run_once(const char *name, unsigned workers)
{
	if (strcmp(name, "probe") == 0) {
		printf("{\"name\":\"probe\",\"value\":%.4g,\"unit\":\"ns\"}\n", probe_ns());
		return 0;
	}
	for (unsigned i = 0; i < bench_workload_count; i++) {
		const struct bench_workload *w = &bench_workloads[i];
		struct bench_result r;

		if (strcasecmp(w->name, name) != 0) {
			continue;
		}
		r = w->run(workers);
		printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"", name, r.value, w->unit);
		if (w->extra_unit != NULL) {
			printf(",\"%s\":%.6g", strstr(w->extra_unit, "p99") ? "p99" : "rss_mib",
			       r.extra);
		}
		printf("}\n");
		return 0;
	}
	fprintf(stderr, "no workload %s\n", name);
	return 2;
}

int
main(int argc, char **argv)
{
	static struct bench_result results[BENCH_RUNS_MAX];
	unsigned workers = 2, runs = 5;
	unsigned long workers_arg;
	char *end;
	bool json = false;
	int opt;

	while ((opt = getopt(argc, argv, "w:n:j")) != -1) {
		switch (opt) {
		case 'w':
			workers = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'n':
			runs = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'j':
			json = true;
			break;
		default:
			fprintf(stderr, "usage: %s [-w workers] [-n runs] [-j] [workload...]\n",
				argv[0]);
			return 2;
		}
	}
	if (argc - optind == 2 && (workers_arg = strtoul(argv[optind + 1], &end, 10)) > 0 &&
	    *end == '\0') {
		OM_ASSERT(sem_init(&done, 0, 0) == 0);
		return run_once(argv[optind], (unsigned)workers_arg);
	}
	runs = runs < 1 ? 1 : runs > BENCH_RUNS_MAX ? BENCH_RUNS_MAX : runs;
	OM_ASSERT(sem_init(&done, 0, 0) == 0);
	if (!json) {
		print_header(workers, runs);
	}
	for (unsigned i = 0; i < bench_workload_count; i++) {
		const struct bench_workload *w = &bench_workloads[i];
		double probe;

		if (!wanted(w, argc, argv, optind)) {
			continue;
		}
		probe = probe_ns();
		for (unsigned n = 0; n < runs; n++) {
			results[n] = w->run(workers);
		}
		report(w, workers, results, runs, probe, json);
	}
	return 0;
}
