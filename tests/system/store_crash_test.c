/* SPDX-License-Identifier: ISC */
/*
 * kill -9 at any instruction.  A child loads the store and reports what was acknowledged through a
 * pipe; the parent kills it at a random moment, opens the store and looks: nothing that was
 * acknowledged is missing, every group is there as a whole or not at all, the audit chain is intact.
 * The same file goes through all cycles.  STORE_CRASH_CYCLES and STORE_CRASH_SEED change the run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"
#include "store/sqlite.h"

#define CYCLES    100
#define GROUP_MAX 24
#define WAL_BYTES (UINT64_C(512) << 10) /* small: a checkpoint every few groups */
#define LOG_BYTES (UINT64_C(64) << 10) /* the same, of folds */
#define KILL_US   120000
#define JOBS_MAX  200000 /* of one cycle */
#define PIECE     "0123456789abcdef"
#define PIECE_LEN 16

#define MUST(call) assert_string_equal(om_err_code(call), "ok")

/* How far a job has come; each step is one write. */
enum { NONE, STORED, PROVISIONING, RUNNING, OUTPUT, COMPLETED, STEPS };

/* What the child reports after a commit: these jobs are now at these steps. */
struct ack {
	uint32_t job;
	uint32_t step;
};

static char dir[64], path[96];
static const char *ends[] = { "", "-wal", "-shm", "-log", "-log2", ".lock" };

static uint32_t
draw(uint64_t *seed, uint32_t below)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*seed >> 33) % below;
}

static struct om_job_id
job_id(int cycle, uint32_t job)
{
	struct om_job_id id;

	/* Scattered, so that pages all over the index are written. */
	(void)snprintf(id.text, sizeof(id.text), "%08" PRIx32 ".c%d.%" PRIu32, job * 2654435761u,
		       cycle, job);
	return id;
}

/* --- the child ---------------------------------------------------------------------------------- */

static enum om_err
child_put(struct om_store *st, int cycle, uint32_t job, const char *group)
{
	const struct om_audit_note note = { .event = OM_STR("accepted"), .actor = OM_STR("test") };
	const struct om_job_new new_job = {
		.id = job_id(cycle, job),
		.requester = OM_STR("alice"),
		.network = OM_STR("home"),
		.activity = om_str_of(group),
		.state = OM_JOB_QUEUED,
		.submitted = om_wall_now(),
		.spec = { (const uint8_t *)PIECE, PIECE_LEN },
		.notes = &note,
		.note_count = 1,
	};
	struct om_job_row row;
	bool existed;

	return om_store_job_put(st, &new_job, &existed, &row);
}

static enum om_err
child_step(struct om_store *st, int cycle, uint32_t job, uint32_t step)
{
	static const enum om_job_state states[STEPS] = { [PROVISIONING] = OM_JOB_PROVISIONING,
							 [RUNNING] = OM_JOB_RUNNING,
							 [COMPLETED] = OM_JOB_COMPLETED };
	const struct om_job_id id = job_id(cycle, job);
	const struct om_out_ref out = { .kind = OM_OUT_STDOUT };
	const struct om_job_change change = {
		.to = states[step],
		.at = om_wall_now(),
		.note = { .event = OM_STR("moved"), .actor = OM_STR("test") },
	};
	uint64_t size;

	if (step == OUTPUT) {
		return om_store_output_append(
		    st, &id, out, 0, (struct om_bin){ (const uint8_t *)PIECE, PIECE_LEN }, &size);
	}
	return om_store_job_move(st, &id, &change, NULL);
}

static void
child_must(enum om_err err, struct om_store *st)
{
	if (err != OM_OK) {
		(void)fprintf(stderr, "child: %s: %s\n", om_err_code(err), om_store_why(st));
		_exit(3);
	}
}

/* Groups of new jobs and of steps of old ones, until it is killed. */
static void
child_run(int cycle, uint64_t seed, int report)
{
	const struct om_sqlite_conf conf = {
		.path = path, .wal_bytes = WAL_BYTES, .log_bytes = LOG_BYTES, .skip_check = true
	};
	static uint8_t steps[JOBS_MAX];
	struct ack acks[GROUP_MAX];
	struct om_store *st = NULL;
	struct om_purge purge = { .bytes_max = 1000 << 10 };
	char group[32];
	uint32_t jobs = 0, first = 0, n, i;
	unsigned groups = 0;

	child_must(om_sqlite_open(&conf, &st, NULL), st);
	while (jobs + GROUP_MAX < JOBS_MAX) {
		n = 1 + draw(&seed, GROUP_MAX - 1);
		(void)snprintf(group, sizeof(group), "%u of %" PRIu32, groups++, n);
		child_must(om_store_begin(st), st);
		for (i = 0; i < n; i++) {
			uint32_t job = jobs;

			if (jobs > first && draw(&seed, 2) == 0) {
				job = first + draw(&seed, jobs - first);
			}
			if (job < jobs && steps[job] < COMPLETED) {
				child_must(child_step(st, cycle, job, steps[job] + 1u), st);
			} else if (job == jobs) {
				child_must(child_put(st, cycle, job, group), st);
				jobs++;
			}
			steps[job] = (uint8_t)(steps[job] < COMPLETED ? steps[job] + 1 : COMPLETED);
			acks[i] = (struct ack){ job, steps[job] };
		}
		if (groups % 64 == 0) {
			child_must(om_store_purge(st, &purge), st);
		}
		child_must(om_store_commit(st), st);
		if (write(report, acks, n * sizeof(acks[0])) != (ssize_t)(n * sizeof(acks[0]))) {
			_exit(4);
		}
		child_must(om_store_maintain(st), st);
	}
	_exit(0);
}

/* --- the parent --------------------------------------------------------------------------------- */

/* Kills the child some time after its first report and gives what it had acknowledged. */
static uint32_t
crash_once(int cycle, uint64_t *seed, uint8_t *acked)
{
	const uint32_t wait_us = draw(seed, KILL_US);
	const uint64_t child_seed = *seed;
	struct timespec pause_for = { 0, (long)wait_us * 1000 };
	struct ack ack;
	uint32_t top = 0;
	int fds[2], status;
	bool killed = false;
	FILE *in;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(fds[0]);
		child_run(cycle, child_seed, fds[1]);
	}
	(void)close(fds[1]);
	in = fdopen(fds[0], "r");
	assert_non_null(in);
	/* Every fourth is killed while it opens the store, which is a recovery and a checkpoint. */
	if (cycle % 4 == 3) {
		pause_for.tv_nsec /= 4;
		(void)nanosleep(&pause_for, NULL);
		killed = kill(pid, SIGKILL) == 0;
	}
	while (fread(&ack, sizeof(ack), 1, in) == 1) {
		if (!killed) {
			(void)nanosleep(&pause_for, NULL);
			killed = kill(pid, SIGKILL) == 0;
		}
		assert_true(ack.job < JOBS_MAX);
		acked[ack.job] = (uint8_t)ack.step;
		top = ack.job >= top ? ack.job + 1 : top;
	}
	(void)fclose(in);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status)) {
		fail_msg("cycle %d: the child ended by itself: %d", cycle, status);
	}
	return top;
}

static unsigned
step_of(struct om_store *st, const struct om_job_row *row)
{
	const struct om_out_ref out = { .kind = OM_OUT_STDOUT };
	char data[PIECE_LEN * 2];
	uint64_t size;
	size_t len;

	if (row->state == OM_JOB_COMPLETED) {
		return COMPLETED;
	}
	MUST(om_store_output_read(st, &row->id, out, 0, data, sizeof(data), &len, &size));
	if (len > 0) {
		assert_int_equal(len, PIECE_LEN);
		assert_memory_equal(data, PIECE, PIECE_LEN);
		return OUTPUT;
	}
	return row->state == OM_JOB_RUNNING        ? RUNNING
	       : row->state == OM_JOB_PROVISIONING ? PROVISIONING
						   : STORED;
}

static bool
count_move(void *arg, const struct om_audit_row *row)
{
	*(unsigned *)arg += om_str_is(row->event, "moved");
	return true;
}

/*
 * The audit says whether a job that is not there had ended.  Its last step may not have been
 * acknowledged: the group that ended it, and whose retention then removed it, was committed when the
 * kill came before the report.
 */
static bool
has_ended(struct om_store *st, const struct om_job_id *id)
{
	struct om_audit_filter filter = { .job = om_str_of(id->text) };
	unsigned moves = 0;
	bool more = true;

	while (more) {
		MUST(om_store_audit_each(st, &filter, 1000, count_move, &moves, &more));
	}
	return moves == 3; /* provisioning, running, completed */
}

/* What was acknowledged is there; gives how many finished jobs retention had removed. */
static uint32_t
verify_acked(struct om_store *st, int cycle, const uint8_t *acked, uint32_t top)
{
	struct om_job_row row;
	uint32_t job, purged = 0;

	for (job = 0; job < top; job++) {
		const struct om_job_id id = job_id(cycle, job);

		if (acked[job] == NONE) {
			continue;
		}
		if (om_store_job_get(st, &id, &row) != OM_OK) {
			/* Retention takes finished jobs, the oldest first, and no others. */
			if (!has_ended(st, &id)) {
				fail_msg("cycle %d: job %" PRIu32 " is lost", cycle, job);
			}
			purged++;
			continue;
		}
		if (step_of(st, &row) < acked[job]) {
			fail_msg("cycle %d: job %" PRIu32
				 " was acknowledged at step %u and is at %u",
				 cycle, job, acked[job], step_of(st, &row));
		}
	}
	return purged;
}

static void
verify_store(int cycle, const uint8_t *acked, uint32_t top, uint32_t *purged)
{
	const struct om_sqlite_conf conf = { .path = path,
					     .wal_bytes = WAL_BYTES,
					     .log_bytes = LOG_BYTES };
	struct om_audit_check check = { 0 };
	struct om_store *st = NULL;
	struct om_why why = { "" };

	if (om_sqlite_open(&conf, &st, &why) != OM_OK) {
		fail_msg("cycle %d: %s", cycle, why.text);
	}
	*purged += verify_acked(st, cycle, acked, top);
	while (!check.done) {
		MUST(om_store_audit_verify(st, &check, 100000));
	}
	if (check.broken) {
		fail_msg("cycle %d: %s", cycle, check.text);
	}
	/* Structure, and the counters against the rows: a half group would show here. */
	if (om_store_check(st) != OM_OK) {
		fail_msg("cycle %d: %s", cycle, om_store_why(st));
	}
	om_store_close(st);
}

static long
setting(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text == NULL ? otherwise : strtol(text, NULL, 10);
}

static void
test_nothing_acknowledged_is_lost(void **state)
{
	const long cycles = setting("STORE_CRASH_CYCLES", CYCLES);
	const uint64_t first_seed = (uint64_t)setting("STORE_CRASH_SEED", 1);
	uint64_t seed = first_seed, jobs = 0;
	uint8_t *acked = malloc(JOBS_MAX);
	uint32_t purged = 0, top, i;
	int cycle;

	(void)state;
	assert_non_null(acked);
	for (cycle = 0; cycle < cycles; cycle++) {
		memset(acked, 0, JOBS_MAX);
		top = crash_once(cycle, &seed, acked);
		for (i = 0; i < top; i++) {
			jobs += acked[i] != NONE;
		}
		verify_store(cycle, acked, top, &purged);
	}
	free(acked);
	print_message("seed %" PRIu64 ": %ld cycles, %" PRIu64 " jobs acknowledged, %" PRIu32
		      " removed by retention, 0 lost\n",
		      first_seed, cycles, jobs, purged);
	assert_true(jobs > (uint64_t)cycles); /* it did something */
}

static int
setup(void **state)
{
	(void)state;
	om_log_init(OM_LOG_ERROR, 0);
	(void)snprintf(dir, sizeof(dir), "/tmp/om_store_crash.XXXXXX");
	if (mkdtemp(dir) == NULL) {
		return -1;
	}
	(void)snprintf(path, sizeof(path), "%s/ledger.db", dir);
	return 0;
}

static int
teardown(void **state)
{
	char name[128];
	size_t i;

	(void)state;
	for (i = 0; i < OM_COUNT(ends); i++) {
		(void)snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		(void)unlink(name);
	}
	return rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_acknowledged_is_lost),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
