/* SPDX-License-Identifier: ISC */
#include "base/log.h"
#include "tests/unit/store_groups.h"

/* Group behind group with a writer of our own, folds and reads between them, and failures (sqlite_commit.c). */

#define SEEDS 4
#define STEPS 200

static uint64_t
next_rand(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *seed >> 33;
}

struct life {
	struct fx *fx;
	uint64_t seed;
	pthread_t writer;
	bool on; /* one is in flight */
	int last; /* that one, or the last one before it */
	int given_up, folds;
};

static void
life_land(struct life *l)
{
	if (l->on) {
		OK(om_store_commit_end(l->fx->st));
		writer_join(l->writer);
		l->on = false;
	}
}

static void
life_look(struct life *l, int n)
{
	struct om_job_filter filter = { .newest_first = true };
	const struct om_job_id id = group_job(n);
	uint64_t counts[OM_JOB_STATES];
	struct om_job_row rows[2];
	size_t count;

	OK(om_store_counts(l->fx->st, counts));
	assert_int_equal(counts[OM_JOB_QUEUED] + counts[OM_JOB_PROVISIONING], n);
	OK(om_store_job_list(l->fx->st, &filter, rows, 2, &count));
	assert_int_equal(count, n < 2 ? n : 2);
	assert_true(n == 0 || strcmp(rows[0].id.text, id.text) == 0);
}

static void
life_between(struct life *l)
{
	switch (next_rand(&l->seed) % 8) {
	case 0:
		life_look(l, l->last);
		break;
	case 1:
		OK(om_store_fold(l->fx->st, false));
		l->folds++;
		break;
	case 2:
		OK(om_store_fold(l->fx->st, true));
		l->folds++;
		break;
	case 3:
		life_land(l);
		break;
	case 4:
		if (l->last % 8 == 0) {
			life_land(l);
			crash_has(l->fx, l->last);
		}
		break;
	default:
		OK(om_store_maintain(l->fx->st));
	}
}

static void
life_step(struct life *l)
{
	open_group(l->fx, l->last + 1);
	if (next_rand(&l->seed) % 4 == 0) {
		life_look(l, l->last + 1);
	}
	if (next_rand(&l->seed) % 5 == 0) {
		om_store_rollback(l->fx->st);
		l->given_up++;
		return;
	}
	life_land(l);
	OK(om_store_commit_start(l->fx->st));
	l->writer = write_beside(l->fx);
	l->on = true;
	l->last++;
}

static void
test_many_with_a_writer(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct life l = { .seed = seed };
		void *one = NULL;

		assert_int_equal(groups_setup(&one), 0);
		l.fx = one;
		for (int i = 0; i < STEPS; i++) {
			life_step(&l);
			life_between(&l);
		}
		life_land(&l);
		assert_true(l.last > STEPS / 2 && l.given_up > 10 && l.folds > 10);
		groups_there(l.fx, l.last);
		crash_has(l.fx, l.last);
		image_same(l.fx);
		assert_int_equal(groups_teardown(&one), 0);
	}
}

/* --- any failure at any time -------------------------------------------------------------------- */

static void
fault_random(uint64_t *seed)
{
	static const char *const ends[] = { "-wal", "-log", "-log2", "ledger.db" };
	static const int rcs[] = { SQLITE_IOERR_WRITE, SQLITE_FULL, SQLITE_IOERR_FSYNC };

	if (next_rand(seed) % 3 == 0) {
		fault_set_on(ends[next_rand(seed) % 4], FAULT_WRITE | FAULT_SYNC,
			     1 + (int)(next_rand(seed) % 8), rcs[next_rand(seed) % 3],
			     next_rand(seed) % 4 == 0);
	}
}

/* false: it failed, and what is told is what was before it. */
static bool
life_lands(struct life *l, int *acked)
{
	enum om_err err;

	if (!l->on) {
		return true;
	}
	err = om_store_commit_end(l->fx->st);
	writer_join(l->writer);
	l->on = false;
	if (err == OM_OK) {
		*acked = l->last;
	}
	l->last = *acked;
	return err == OM_OK;
}

static void
failing_step(struct life *l, int *acked)
{
	enum om_err err = om_store_begin(l->fx->st);
	const bool begun = err == OM_OK;

	if (err == OM_OK) {
		err = group_write(l->fx, l->last + 1);
	}
	if (next_rand(&l->seed) % 4 == 0 && begun) {
		om_store_rollback(l->fx->st);
		err = OM_ERR_CANCELLED;
	}
	if (!life_lands(l, acked) || err != OM_OK) {
		om_store_rollback(l->fx->st);
		l->given_up++;
		return;
	}
	if (om_store_commit_start(l->fx->st) != OM_OK) {
		l->given_up++;
		return;
	}
	l->writer = write_beside(l->fx);
	l->on = true;
	l->last++;
}

static void
failing_life(struct life *l)
{
	int acked = 0;

	for (int i = 0; i < STEPS; i++) {
		const int before = acked;
		bool lands;

		fault_random(&l->seed);
		failing_step(l, &acked);
		switch (next_rand(&l->seed) % 4) {
		case 0:
			(void)!om_store_fold(l->fx->st, false);
			break;
		case 1:
			(void)!om_store_maintain(l->fx->st);
			break;
		case 2:
			lands = life_lands(l, &acked);
			fault_clear();
			life_look(l, acked);
			/* (What was refused may come to life in a crash before the next group.) */
			if (lands && acked > before && l->last % 8 == 0) {
				crash_has(l->fx, acked);
			}
			break;
		default:
			fault_clear();
		}
	}
	fault_clear();
	(void)life_lands(l, &acked);
	groups_there(l->fx, acked);
	(void)!om_store_maintain(l->fx->st); /* the applier's last checkpoint may have failed */
	image_same(l->fx);
	assert_true(acked > STEPS / 8 && l->given_up > 10);
}

static void
test_random_failures(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct life l = { .seed = seed };
		void *one = NULL;

		assert_int_equal(groups_setup(&one), 0);
		l.fx = one;
		failing_life(&l);
		assert_int_equal(groups_teardown(&one), 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_with_a_writer),
		cmocka_unit_test(test_random_failures),
	};

	om_log_init(OM_LOG_ERROR, 0);
	fault_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
