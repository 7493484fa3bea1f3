/* SPDX-License-Identifier: ISC */
/*
 * What scheduling a job costs in the daemon, with 1,000 and with 1,000,000 jobs queued: the
 * job_queue service on the real bus, one worker.  A turn is queue.add with its answer, exec.start
 * with its answer, and exec.done: five messages, encoded, sent, and decoded.
 *
 *	schedule_bench		prints one JSON object; the figure is the ratio of the medians
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/job_queue.h"
#include "actors/names.h"
#include "base/assert.h"
#include "base/id.h"
#include "base/log.h"

#define SMALL  1000u
#define LARGE  1000000u
#define TURNS  50000u
#define ROUNDS 5
#define AHEAD  64u /* adds on their way */
#define GO     1u

struct feeder {
	uint32_t next, under_way;
};

static struct {
	struct om_system *sys;
	struct om_bus *bus;
	struct om_actor_id feeder;
	bool run; /* with each job that is added the running one ends */
	char current[OM_JOB_ID_MAX + 1]; /* with the executor */
	uint32_t target; /* jobs to add in all */
	uint32_t started; /* by the executor */
} bench;

/* --- the executor ----------------------------------------------------------------------------- */

static enum om_err
exec_on_start(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_exec_start *m = in->body;
	enum om_err err;

	(void)state;
	bench.started++;
	err = om_str_copy(m->job, bench.current, sizeof(bench.current));
	OM_ASSERT(err == OM_OK);
	err = om_service_reply_ok(sv, in);
	if (err == OM_OK && bench.run) { /* the next turn */
		err = om_send_u64(om_service_cx(sv), bench.feeder, GO, 0);
	}
	return err;
}

static enum om_err
start_nothing(struct om_service *sv, void *state, const void *arg)
{
	(void)sv;
	(void)state;
	(void)arg;
	return OM_OK;
}

static const struct om_service_handler exec_handlers[] = {
	{ OM_MSG_EXEC_START, exec_on_start },
};

static const struct om_service_def executor = {
	.name = OM_EXECUTOR,
	.state_size = 8,
	.start = start_nothing,
	.on = exec_handlers,
	.on_count = OM_COUNT(exec_handlers),
};

/* --- the feeder, in the provider's place ------------------------------------------------------ */

static void feed(struct om_service *sv, struct feeder *f);

static void
feeder_on_added(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct feeder *f = state;

	OM_ASSERT(answer->err == OM_OK);
	f->under_way--;
	if (bench.run) {
		struct om_exec_done done = { .job = om_str_of(bench.current),
					     .state = OM_STR("completed") };
		enum om_err err = om_service_send(sv, OM_JOB_QUEUE, OM_MSG_EXEC_DONE, &done);

		OM_ASSERT(err == OM_OK);
		return;
	}
	feed(sv, f);
}

static void
feed(struct om_service *sv, struct feeder *f)
{
	while (f->under_way < (bench.run ? 1 : AHEAD) && f->next < bench.target) {
		char id[16];
		int len =
		    snprintf(id, sizeof(id), "%08x%04x", f->next * 2654435761u, f->next & 0xffffu);
		struct om_queue_add add = { .job = { id, (size_t)len },
					    .level = OM_STR("network"),
					    .cores = 1,
					    .mem_mib = 512 };
		enum om_err err;

		err = om_service_ask(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_ADD, &add, NULL, 60000,
				     feeder_on_added, 0);
		OM_ASSERT(err == OM_OK);
		f->next++;
		f->under_way++;
	}
}

static enum om_err
feeder_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	(void)msg;
	feed(sv, state);
	return OM_OK;
}

static const struct om_service_def feeder = {
	.name = OM_PROVIDER,
	.state_size = sizeof(struct feeder),
	.start = start_nothing,
	.on_msg = feeder_on_msg,
};

/* --- the bench: sim mode, so that all runs on this thread and nothing waits ------------------- */

static void
add_until(uint32_t target)
{
	struct om_msg *msg = om_system_msg_new(bench.sys, GO, sizeof(uint64_t));
	enum om_err err;

	bench.target = target;
	err = msg == NULL ? OM_ERR_NOMEM : om_system_send(bench.sys, bench.feeder, &msg);
	OM_ASSERT(err == OM_OK);
	(void)om_sim_run(bench.sys);
}

static double
cpu_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1000;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
measure(uint32_t queued)
{
	struct om_system_conf conf = { .sim = true, .seed = 1 };
	struct om_job_queue_conf queue = { .max_jobs = 1 };
	struct om_service_arg args[3];
	struct om_actor_id ids[3];
	const struct om_service_def *defs[3] = { &executor, &om_job_queue_service, &feeder };
	double us[ROUNDS];
	struct om_why why;
	enum om_err err;

	memset(&bench, 0, sizeof(bench));
	err = om_system_new(&conf, &bench.sys);
	OM_ASSERT(err == OM_OK);
	err = om_bus_new(bench.sys, &bench.bus, &why);
	OM_ASSERT(err == OM_OK);
	for (size_t i = 0; i < OM_COUNT(defs); i++) {
		args[i] = (struct om_service_arg){ bench.bus, defs[i], &queue };
		err = om_service_spawn(bench.bus, &args[i], &ids[i]);
		OM_ASSERT(err == OM_OK);
		(void)om_sim_run(bench.sys);
	}
	bench.feeder = ids[2];
	add_until(queued + 1);
	OM_ASSERT(bench.started == 1);
	bench.run = true;
	for (int round = 0; round < ROUNDS; round++) {
		double begin = cpu_us();

		add_until(bench.target + TURNS);
		us[round] = (cpu_us() - begin) / TURNS;
		OM_ASSERT(bench.started == 1 + (uint32_t)(round + 1) * TURNS);
	}
	(void)om_system_stop(bench.sys, 1000, NULL, 0);
	om_bus_free(bench.bus);
	om_system_free(bench.sys);
	qsort(us, ROUNDS, sizeof(us[0]), by_value);
	return us[ROUNDS / 2];
}

int
main(void)
{
	double small, large;

	om_log_set_level(OM_LOG_ERROR);
	small = measure(SMALL);
	large = measure(LARGE);
	printf("{\"name\":\"schedule/turn\",\"value\":%.4g,\"unit\":\"ratio\",\"small_us\":%.4g,"
	       "\"large_us\":%.4g,\"target\":1.5}\n",
	       large / small, small, large);
	return 0;
}
