/* SPDX-License-Identifier: ISC */
/*
 * Groups that a thread of the pool makes durable (ledger_group.c), in simulation: that thread's work is a
 * step among the others, so each seed has it at another moment.
 */
#include "actors_ledger_rig.h"

#define SEEDS 16
#define LARGE 24 /* writes that are sent, and no fewer */

/* om_offload_to and om_service_later of the ledger are ours (Makefile). */
static struct {
	int sent, pending; /* groups; of those, not written yet */
	int between; /* what waits for an answer since one is pending */
	size_t answered; /* by then, when the last one was written */
	om_work_fn fn;
} S;

enum om_err __wrap_om_offload_to(struct om_ctx *cx, unsigned pool, om_work_fn fn, void *arg,
				 om_work_done_fn done, om_free_fn drop);
enum om_err __real_om_offload_to(struct om_ctx *cx, unsigned pool, om_work_fn fn, void *arg,
				 om_work_done_fn done, om_free_fn drop);
struct om_bus_request __wrap_om_service_later(struct om_service *sv, const struct om_in *in);
struct om_bus_request __real_om_service_later(struct om_service *sv, const struct om_in *in);

static enum om_err
write_now(void *arg)
{
	S.pending = 0;
	S.answered = W.answer_count;
	return S.fn(arg);
}

enum om_err
__wrap_om_offload_to(struct om_ctx *cx, unsigned pool, om_work_fn fn, void *arg,
		     om_work_done_fn done, om_free_fn drop)
{
	if (pool != OM_POOL_LEDGER) {
		return __real_om_offload_to(cx, pool, fn, arg, done, drop);
	}
	S.sent++;
	S.pending = 1;
	S.fn = fn;
	return __real_om_offload_to(cx, pool, write_now, arg, done, drop);
}

struct om_bus_request
__wrap_om_service_later(struct om_service *sv, const struct om_in *in)
{
	S.between += S.pending;
	return __real_om_service_later(sv, in);
}

static void
begin(uint64_t seed)
{
	void *state = NULL;

	world_seed = seed;
	assert_int_equal(setup(&state), 0);
	warm_up();
	memset(&S, 0, sizeof(S));
}

static void
end(void)
{
	void *state = NULL;

	assert_int_equal(teardown(&state), 0);
}

static void
ask_jobs(int from, int to)
{
	char id[16];

	for (int i = from; i <= to; i++) {
		(void)snprintf(id, sizeof(id), "j%d", i);
		ask_plain(id);
	}
}

static void
ask_get(const char *id)
{
	ask_job("", OM_ROLE_OPERATOR, id);
}

/* Answers 0 to n - 1 came, in this order. */
static void
in_order(int n)
{
	char want[4096] = "", got[4096];

	for (int i = 0; i < n; i++) {
		note(want, "a%d ", i);
	}
	order_of('a', got);
	assert_string_equal(got, want);
}

static void
events_in_order(int n)
{
	char want[4096] = "", got[4096];

	for (int i = 0; i < n; i++) {
		note(want, "j%d:received>queued ", i);
	}
	order_of('j', got);
	assert_string_equal(got, want);
}

/* So many jobs are in the file, its audit is whole, and nothing is left of what was refused. */
static void
file_has(int jobs)
{
	uint64_t counts[OM_JOB_STATES];

	world_stop();
	fx_open(&W.fx);
	OK(om_store_counts(W.fx.st, counts));
	assert_int_equal(counts[OM_JOB_QUEUED], jobs);
	assert_false(fx_verify(&W.fx, NULL).broken);
	OK(om_store_check(W.fx.st));
	fx_close(&W.fx);
	world_start();
}

/* --- what is sent ------------------------------------------------------------------------------- */

static void
test_large_groups_alone_are_sent(void **state)
{
	(void)state;
	ask_jobs(0, LARGE - 2);
	go();
	assert_int_equal(S.sent, 0);
	in_order(LARGE - 1);
	ask_jobs(100, 100 + LARGE - 1);
	assert_int_equal(go_and_count_commits(), 1);
	assert_int_equal(S.sent, 1);
	assert_int_equal(S.answered, 0); /* nobody before it is on the disk */
	in_order(LARGE);
	file_has(1 + LARGE - 1 + LARGE);
}

/* Reads between two large groups are answered after the first. */
static void
test_order_of_answers_and_events(void **state)
{
	int between = 0, twice = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		begin(seed);
		ask_jobs(0, 29);
		turn();
		ask_get("j0");
		ask_get("j29");
		turn();
		ask_jobs(30, 59);
		turn();
		ask_get("j59");
		go();
		in_order(63);
		events_in_order(60);
		STR_IS(((const struct om_job_info *)body_of(31, OM_MSG_JOB_INFO))->job, "j29");
		(void)body_of(62, OM_MSG_JOB_INFO);
		assert_true(S.sent == 1 || S.sent == 2); /* the ledger comes late: one group */
		twice += S.sent == 2;
		between += S.between;
		file_has(61);
		end();
	}
	assert_true(twice > 2);
	assert_true(between > SEEDS);
}

/* While somebody waits for output, or the provider is behind, each group is looked at when it is whole. */
static void
test_groups_stay_whole(void **state)
{
	struct om_output_query follow = { 0 };

	(void)state;
	OM_SET(&follow, output_query, job, OM_STR("warm"));
	OM_SET(&follow, output_query, follow, true);
	ask_run("warm");
	go();
	ask_as("alice", OM_ROLE_REQUESTER, OM_MSG_JOB_OUTPUT, &follow);
	go();
	assert_int_equal(W.answer_count, 0);
	W.first_cookie = 1; /* answer 0 is the follower's */
	ask_jobs(0, 29);
	ask_output("warm", "stdout", NULL, "abc");
	go();
	assert_int_equal(S.sent, 0);
	assert_int_equal(W.answer_count, 32);
	assert_int_equal(((const struct om_output_data *)body_of(0, OM_MSG_OUTPUT_DATA))->data.len,
			 3);
	W.first_cookie = 0;
	ask_jobs(30, 59);
	go();
	assert_int_equal(S.sent, 1);
	in_order(30);
}

static void
test_groups_stay_whole_while_the_provider_is_behind(void **state)
{
	int sent;

	(void)state;
	world_stop();
	provider_def.backlog = 4;
	world_start();
	ask_jobs(0, 29);
	go();
	sent = S.sent;
	assert_int_equal(sent, 1);
	om_sim_advance(W.sys, 1000); /* not all are told */
	ask_jobs(30, 59);
	go();
	assert_int_equal(S.sent, sent);
	in_order(30);
	for (int i = 0; i < 60; i++) {
		om_sim_advance(W.sys, 1000);
	}
	ask_jobs(60, 89);
	go();
	assert_int_equal(S.sent, sent + 1);
	file_has(91);
}

/* --- it fails ----------------------------------------------------------------------------------- */

static void
refused(size_t from, size_t to)
{
	for (size_t i = from; i <= to; i++) {
		ERR(OM_ERR_DISK, W.answers[i].err);
		assert_non_null(strstr(W.answers[i].text, "append a group"));
	}
}

/* All that waits gets the reason: its writes, who read them, and the writes behind it. */
static void
test_its_write_fails(void **state)
{
	int reads[2] = { 0 }, writes = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 2 * SEEDS; seed++) {
		const size_t behind = seed % 2 ? 2 : 0; /* or there is nothing but the question */
		int stored = 0;

		begin(seed);
		ask_jobs(0, 29);
		turn();
		ask_get("j0");
		turn();
		ask_jobs(30, 29 + (int)behind);
		fault_set_on("-log", FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 0);
		go();
		assert_int_equal(fault_failed(), 1);
		assert_int_equal(S.sent, 1);
		in_order(31 + (int)behind);
		refused(0, 29);
		if (W.answers[30].err != OM_ERR_NOT_FOUND) { /* else it was asked afterwards */
			refused(30, 30);
			reads[seed % 2]++;
		}
		for (size_t i = 31; i < 31 + behind; i++) {
			stored += W.answers[i].err == OM_OK;
			if (W.answers[i].err != OM_OK) {
				refused(i, i);
				writes++;
			}
		}
		file_has(1 + stored);
		ask_jobs(0, 29);
		go();
		(void)body_of(29, OM_MSG_LEDGER_STORED);
		file_has(1 + stored + 30);
		end();
	}
	assert_true(reads[0] > 2 && reads[1] > 2 && reads[0] + reads[1] < 2 * SEEDS);
	assert_true(writes > 2 && writes < 2 * SEEDS);
}

/* The same job again, while nobody knows yet whether it is stored: it is when that is told. */
static void
test_the_same_job_again(void **state)
{
	int twice = 0, lost = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 2 * SEEDS; seed++) {
		const bool fails = seed % 2 == 0;
		const struct answer *a = &W.answers[30];

		begin(seed);
		ask_jobs(0, 29);
		turn();
		ask_jobs(5, 5);
		if (fails) {
			fault_set_on("-log", FAULT_WRITE, 1, SQLITE_FULL, 0);
		}
		go();
		in_order(31);
		if (!fails) {
			const struct om_ledger_stored *m = body_of(30, OM_MSG_LEDGER_STORED);

			assert_true(m->duplicate);
			twice++;
			file_has(31);
		} else if (a->err == OM_OK) { /* it came afterwards */
			assert_false(
			    ((const struct om_ledger_stored *)body_of(30, OM_MSG_LEDGER_STORED))
				->duplicate);
			file_has(2);
		} else {
			refused(0, 30);
			lost++;
			file_has(1);
		}
		end();
	}
	assert_int_equal(twice, SEEDS);
	assert_true(lost > 2);
}

/* The ledger stops at any moment, and the disk refuses what it has sent. */
static void
test_it_fails_where_the_ledger_stops(void **state)
{
	bool ended = false;
	int refused_jobs = 0;

	(void)state;
	for (int steps = 0; !ended; steps++) {
		struct om_msg *msg;

		begin(7);
		ask_jobs(0, 29);
		for (int i = 0; i < 30; i++) {
			W.answers[i].err = OM_ERR_INTERNAL;
		}
		W.asked = 0;
		msg = om_system_msg_new(W.sys, MSG_KICK, 0);
		OK(om_system_send(W.sys, W.control_id, &msg));
		fault_set_on("-log", FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, 0);
		for (int step = 0; step < steps && !ended; step++) {
			ended = !om_sim_step(W.sys);
		}
		world_stop();
		W.ask_count = 0;
		for (int i = 0; i < 30; i++) {
			assert_true(W.answers[i].err != OM_OK);
			refused_jobs += W.answers[i].err == OM_ERR_DISK;
		}
		world_start();
		file_has(1);
		end();
	}
	assert_true(refused_jobs >= 30);
}

/* --- anything at any time ----------------------------------------------------------------------- */

static uint64_t
next_rand(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *seed >> 33;
}

/* Some turns of submits; a question of another kind between them. */
static int
ask_random(uint64_t *seed, int next, bool is_job[ANSWERS_MAX])
{
	struct om_job_query list = { 0 };

	for (int t = 0; t < 4; t++) {
		const int jobs = next_rand(seed) % 2 ? 24 : (int)(next_rand(seed) % 6);

		if (t > 0) {
			turn();
		}
		for (int i = 0; i < jobs && W.ask_count < ANSWERS_MAX - 4; i++) {
			is_job[W.ask_count] = true;
			ask_jobs(next, next);
			next++;
		}
		is_job[W.ask_count] = false;
		switch (next_rand(seed) % 4) {
		case 0:
			ask(OM_MSG_LEDGER_COUNT, &(struct om_empty){ 0 });
			break;
		case 1:
			ask(OM_MSG_JOB_LIST, &list);
			break;
		case 2:
			ask(OM_MSG_LEDGER_AUDIT_VERIFY, &(struct om_empty){ 0 });
			break;
		default:
			ask_get("warm");
		}
	}
	return next;
}

static void
test_random_turns(void **state)
{
	int sent = 0, refused_jobs = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		bool is_job[ANSWERS_MAX] = { false };
		uint64_t rand = seed;
		int next = 0, stored = 1;

		begin(seed);
		for (int round = 0; round < 4; round++) {
			size_t asked;

			next = ask_random(&rand, next, is_job);
			asked = W.ask_count;
			if (next_rand(&rand) % 2) {
				fault_set(FAULT_WRITE | FAULT_SYNC, 1 + (int)(next_rand(&rand) % 6),
					  SQLITE_IOERR_WRITE, 0);
			}
			go();
			om_sim_advance(W.sys, 300);
			fault_clear();
			for (size_t i = 0; i < asked; i++) {
				assert_true(W.answers[i].err != OM_ERR_INTERNAL);
				stored += is_job[i] && W.answers[i].err == OM_OK;
				refused_jobs += is_job[i] && W.answers[i].err != OM_OK;
			}
		}
		sent += S.sent;
		file_has(stored);
		end();
	}
	assert_true(sent > SEEDS);
	assert_true(refused_jobs > SEEDS);
}

static int
setup_warm(void **state)
{
	(void)state;
	begin(7);
	return 0;
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup_warm, teardown)
	const struct CMUnitTest tests[] = {
		T(test_large_groups_alone_are_sent),
		T(test_groups_stay_whole),
		T(test_groups_stay_whole_while_the_provider_is_behind),
		cmocka_unit_test(test_order_of_answers_and_events),
		cmocka_unit_test(test_its_write_fails),
		cmocka_unit_test(test_the_same_job_again),
		cmocka_unit_test(test_it_fails_where_the_ledger_stops),
		cmocka_unit_test(test_random_turns),
	};

	om_log_init(OM_LOG_ERROR + 1, 0);
	fault_alone();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
