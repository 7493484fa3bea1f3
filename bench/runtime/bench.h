/* SPDX-License-Identifier: ISC */
#ifndef OM_BENCH_RUNTIME_BENCH_H
#define OM_BENCH_RUNTIME_BENCH_H

/* What the workload files share: clock, memory, reporting. */
#include <stdbool.h>
#include <stdint.h>
#include "runtime/actor.h"
#include "runtime/system.h"

#define BENCH_RUNS_MAX  101
#define BENCH_NO_TARGET (-1.0)

struct bench_result {
	double value; /* in the workload's unit */
	double extra; /* second figure (p99, peak RSS), 0: none */
};

struct bench_workload {
	const char *name; /* "w1" */
	const char *what; /* "ping-pong" */
	const char *unit; /* "M msg/s" */
	bool higher; /* is better */
	double target; /* 0, lower is better: none wanted; BENCH_NO_TARGET: none set */
	const char *extra_unit; /* NULL: none */
	struct bench_result (*run)(unsigned workers);
};

double bench_now(void); /* seconds */
double bench_rss_mib(void);
double bench_peak_rss_mib(void);
void bench_peak_reset(void);
struct om_system *bench_system(unsigned workers);
/* Stops and frees, and asserts that nothing was lost. */
void bench_system_end(struct om_system *sys);
struct om_actor_id bench_spawn(struct om_system *sys, const struct om_actor_def *def,
			       const void *arg);
void bench_post(struct om_system *sys, struct om_actor_id to, uint32_t type, uint64_t value);
/* A workload ends by bench_done from one of its actors. */
void bench_wait(void);
void bench_done(void);

/* lives.c, for the table in workloads.c */
struct bench_result bench_w4_run(unsigned workers);
struct bench_result bench_w4c_run(unsigned workers);
struct bench_result bench_w6_run(unsigned workers);
struct bench_result bench_w7_run(unsigned workers);

/* costs.c */
struct bench_result bench_c1k_run(unsigned workers);
struct bench_result bench_c100k_run(unsigned workers);
struct bench_result bench_c1m_run(unsigned workers);
struct bench_result bench_c1ms_run(unsigned workers);
struct bench_result bench_d64_run(unsigned workers);
struct bench_result bench_d4k_run(unsigned workers);
struct bench_result bench_d256k_run(unsigned workers);
struct bench_result bench_t1k_run(unsigned workers);
struct bench_result bench_t1m_run(unsigned workers);
struct bench_result bench_idle_run(unsigned workers);

extern const struct bench_workload bench_workloads[];
extern const unsigned bench_workload_count;

#endif /* OM_BENCH_RUNTIME_BENCH_H */
