/* SPDX-License-Identifier: ISC */
#ifndef OM_BENCH_PEERS_QUEUES_PEER_H
#define OM_BENCH_PEERS_QUEUES_PEER_H

/*
 * What bench/pipeline/submit_bench.c does, on another queue:
 *
 *	PROGRAM ENDPOINT CLIENTS IN_FLIGHT JOBS [cycle]
 *
 * Each client is a thread with a connection.  It submits IN_FLIGHT jobs in the way that is best for
 * the peer (pipelined, or one statement with many rows), waits until all are acknowledged, and with
 * `cycle` takes as many from the queue, stores a result for each and removes them from the queue.
 * Prints one JSON object.  A peer's file defines the three functions below and includes this once.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY_BYTES    200
#define IN_FLIGHT_MAX 1000

static char body[BODY_BYTES + 1];

/* All end the program on an error: nothing is counted that is not acknowledged. */
static void *peer_open(const char *endpoint);
static void peer_submit(void *conn, size_t count);
static void peer_work(void *conn, size_t count);

static inline void
fail(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

struct client {
	pthread_t thread;
	void *conn;
	size_t jobs, in_flight;
	double *took_us; /* per job */
	bool cycle;
};

static double
now_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void *
client_run(void *arg)
{
	struct client *c = arg;
	size_t done = 0, i;

	while (done < c->jobs) {
		const size_t n = c->jobs - done < c->in_flight ? c->jobs - done : c->in_flight;
		const double start = now_us();
		double took;

		peer_submit(c->conn, n);
		took = now_us() - start;
		for (i = 0; i < n; i++) {
			c->took_us[done + i] = took;
		}
		if (c->cycle) {
			peer_work(c->conn, n);
		}
		done += n;
	}
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	const bool cycle = argc == 6 && strcmp(argv[5], "cycle") == 0;
	size_t clients, in_flight, jobs, i;
	struct client *c;
	double *took, start, us;

	if (argc < 5) {
		fail("usage", "PROGRAM ENDPOINT CLIENTS IN_FLIGHT JOBS [cycle]");
	}
	clients = strtoul(argv[2], NULL, 10);
	in_flight = strtoul(argv[3], NULL, 10);
	jobs = strtoul(argv[4], NULL, 10) / clients * clients;
	if (clients == 0 || jobs == 0 || in_flight == 0 || in_flight > IN_FLIGHT_MAX) {
		fail("usage", "numbers out of range");
	}
	memset(body, '#', BODY_BYTES);
	c = calloc(clients, sizeof(*c));
	took = calloc(jobs, sizeof(*took));
	for (i = 0; i < clients; i++) {
		c[i] = (struct client){ .conn = peer_open(argv[1]),
					.jobs = jobs / clients,
					.in_flight = in_flight,
					.took_us = took + i * (jobs / clients),
					.cycle = cycle };
	}
	start = now_us();
	for (i = 0; i < clients; i++) {
		if (pthread_create(&c[i].thread, NULL, client_run, &c[i]) != 0) {
			fail("thread", "cannot start");
		}
	}
	for (i = 0; i < clients; i++) {
		(void)pthread_join(c[i].thread, NULL);
	}
	us = now_us() - start;
	qsort(took, jobs, sizeof(*took), compare);
	printf("{\"name\":\"%s/%zux%zu\",\"value\":%.6g,\"unit\":\"jobs/s\",\"p50_us\":%.6g,"
	       "\"p99_us\":%.6g,\"jobs\":%zu}\n",
	       cycle ? "cycle" : "submit", clients, in_flight, (double)jobs / (us / 1e6),
	       took[jobs / 2], took[jobs * 99 / 100], jobs);
	return 0;
}

#endif /* OM_BENCH_PEERS_QUEUES_PEER_H */
