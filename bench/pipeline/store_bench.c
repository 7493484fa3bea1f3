/* SPDX-License-Identifier: ISC */
/*
 * The store alone: jobs with a 200-byte body, two audit rows each, in groups of 1, 10, 100 and 1000;
 * then the whole way of a job (four writes); then each as the store has grown.
 *
 *	store_bench FOLDER [SECONDS_PER_CASE] [random|near] [JOBS_BEFORE]
 *
 * One JSON object a line: case, rows, seconds, jobs/s, p50/p99/max of a commit in microseconds.
 * Beside it, fsync_us: an fdatasync of 4 KiB in a preallocated file, on the same disk, right before.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "store/sqlite.h"

#define BODY_BYTES  200
#define SAMPLES_MAX 1000000
#define FSYNCS      200
#define NEAR_RUN    256 /* ids of one run share their beginning */

static char body[BODY_BYTES];
static int64_t *samples;
static size_t sample_count;
static bool near_ids;
static uint64_t serial;

static void
must(enum om_err err, struct om_store *st)
{
	if (err != OM_OK) {
		(void)fprintf(stderr, "store_bench: %s: %s\n", om_err_code(err),
			      st == NULL ? "" : om_store_why(st));
		exit(1);
	}
}

/* near: as om_job_id_new draws them, in runs of neighbours; random: as a client might. */
static struct om_job_id
bench_id(uint64_t n)
{
	struct om_job_id id;

	if (near_ids) {
		(void)snprintf(id.text, sizeof(id.text), "%02x%02x%08x",
			       (unsigned)(n / NEAR_RUN * 167u) & 0xff, (unsigned)(n % NEAR_RUN),
			       (unsigned)(n * 2654435761u));
	} else {
		(void)snprintf(id.text, sizeof(id.text), "%012" PRIx64,
			       (n * UINT64_C(0x9e3779b97f4a7c15)) >> 16);
	}
	return id;
}

static void
put(struct om_store *st, uint64_t n)
{
	static const struct om_audit_note notes[2] = {
		{ { "received", 8 }, { "alice", 5 }, { NULL, 0 } },
		{ { "accepted", 8 }, { "filter", 6 }, { "priority: network", 17 } },
	};
	struct om_job_new job = { .id = bench_id(n),
				  .requester = OM_STR("alice"),
				  .network = OM_STR("home"),
				  .lang = OM_STR("python"),
				  .level = 50,
				  .state = OM_JOB_QUEUED,
				  .submitted = om_wall_now(),
				  .spec = { (const uint8_t *)body, sizeof(body) },
				  .notes = notes,
				  .note_count = 2 };
	struct om_job_row row;
	bool existed;

	memcpy(body, &n, sizeof(n));
	must(om_store_job_put(st, &job, &existed, &row), st);
}

static void
step(struct om_store *st, uint64_t n, enum om_job_state to)
{
	const struct om_job_id id = bench_id(n);
	const struct om_job_result result = { .exited = true };
	const struct om_job_change change = {
		.to = to,
		.at = om_wall_now(),
		.result = to == OM_JOB_COMPLETED ? &result : NULL,
		.note = { OM_STR("moved"), OM_STR("executor"), OM_STR("") },
	};
	struct om_job_row row;

	must(om_store_job_move(st, &id, &change, &row), st);
}

static int
by_value(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static double
quantile_us(double q)
{
	return (double)samples[(size_t)(q * (double)(sample_count - 1))] / 1000.0;
}

/* What the disk itself needs, now: other work on the machine changes it. */
static double
fsync_us(const char *folder)
{
	static char block[4096];
	char path[4096];
	int fd, i;

	(void)snprintf(path, sizeof(path), "%s/fsync", folder);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (i = 0; i < FSYNCS; i++) {
		if (pwrite(fd, block, sizeof(block), i * (off_t)sizeof(block)) < 0) {
			exit(1);
		}
	}
	(void)fsync(fd);
	for (i = 0; i < FSYNCS; i++) {
		const struct om_mono t0 = om_mono_now();

		if (pwrite(fd, block, sizeof(block), i * (off_t)sizeof(block)) < 0 ||
		    fdatasync(fd) != 0) {
			exit(1);
		}
		samples[i] = om_mono_now().ns - t0.ns;
	}
	(void)close(fd);
	(void)unlink(path);
	qsort(samples, FSYNCS, sizeof(*samples), by_value);
	return (double)samples[FSYNCS / 2] / 1000.0;
}

/* Processor time of this thread: the part that other work on the machine does not change. */
static int64_t
cpu_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * OM_NS_PER_S + t.tv_nsec;
}

static void
run(struct om_store *st, const char *folder, const char *name, uint64_t group, bool cycle,
    double seconds)
{
	static const enum om_job_state way[] = { OM_JOB_PROVISIONING, OM_JOB_RUNNING,
						 OM_JOB_COMPLETED };
	const double disk = fsync_us(folder);
	const struct om_mono start = om_mono_now();
	const uint64_t first = serial;
	const int64_t cpu = cpu_ns();
	double took = 0;
	uint64_t i;
	size_t w;

	sample_count = 0;
	do {
		const struct om_mono t0 = om_mono_now();

		for (w = 0; w <= (cycle ? OM_COUNT(way) : 0); w++) {
			must(om_store_begin(st), st);
			for (i = 0; i < group; i++) {
				if (w == 0) {
					put(st, serial + i);
				} else {
					step(st, serial + i, way[w - 1]);
				}
			}
			must(om_store_commit(st), st);
		}
		serial += group;
		if (sample_count < SAMPLES_MAX) {
			samples[sample_count++] = om_mono_now().ns - t0.ns;
		}
		must(om_store_maintain(st), st);
		took = (double)(om_mono_now().ns - start.ns) / 1e9;
	} while (took < seconds);
	qsort(samples, sample_count, sizeof(*samples), by_value);
	(void)printf(
	    "{\"case\":\"%s\",\"ids\":\"%s\",\"group\":%" PRIu64 ",\"jobs\":%" PRIu64
	    ",\"seconds\":%.2f,\"jobs_per_s\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,"
	    "\"max_us\":%.0f,\"cpu_us_per_job\":%.2f,\"fsync_us\":%.0f,\"jobs_before\":%" PRIu64
	    "}\n",
	    name, near_ids ? "near" : "random", group, serial - first, took,
	    (double)(serial - first) / took, quantile_us(0.5), quantile_us(0.99), quantile_us(1),
	    (double)(cpu_ns() - cpu) / 1000.0 / (double)(serial - first), disk, first);
	(void)fflush(stdout);
}

int
main(int argc, char **argv)
{
	static const uint64_t groups[] = { 1, 10, 100, 1000 };
	const double seconds = argc > 2 ? strtod(argv[2], NULL) : 1;
	const uint64_t before = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
	struct om_sqlite_conf conf = { .skip_check = true };
	struct om_store *st = NULL;
	struct om_why why = { "" };
	char path[4096];
	size_t g;

	if (argc < 2) {
		(void)fprintf(stderr, "usage: store_bench FOLDER [SECONDS] [random|near] [JOBS]\n");
		return 2;
	}
	om_log_init(OM_LOG_WARN, 0);
	near_ids = argc > 3 && strcmp(argv[3], "near") == 0;
	samples = malloc(SAMPLES_MAX * sizeof(*samples));
	(void)snprintf(path, sizeof(path), "%s/store_bench.db", argv[1]);
	conf.path = path;
	if (samples == NULL || om_sqlite_open(&conf, &st, &why) != OM_OK) {
		(void)fprintf(stderr, "store_bench: %s\n", why.text);
		return 1;
	}
	while (serial < before) {
		must(om_store_begin(st), st);
		for (g = 0; g < 1000; g++) {
			put(st, serial++);
		}
		must(om_store_commit(st), st);
		must(om_store_maintain(st), st);
	}
	for (g = 0; g < OM_COUNT(groups); g++) {
		run(st, argv[1], "submit", groups[g], false, seconds);
	}
	for (g = 0; g < OM_COUNT(groups); g++) {
		run(st, argv[1], "cycle", groups[g], true, seconds);
	}
	om_store_close(st);
	for (g = 0; g < 5; g++) {
		static const char *const ends[] = { "", "-wal", "-shm", "-log", "-log2", ".lock" };

		(void)snprintf(path, sizeof(path), "%s/store_bench.db%s", argv[1], ends[g]);
		(void)unlink(path);
	}
	free(samples);
	return 0;
}
