/* SPDX-License-Identifier: ISC */
/*
 * The provider, the filter and the queue on the real bus in sim mode, with a played ledger and
 * executor.  Stops and what comes after them: actors_provider_stop_test.c.
 */
#include "actors_fake_jobs.h"

/* --- one job's way ---------------------------------------------------------------------------- */

static void
a_job_from_submit_to_its_end(void **state)
{
	struct fake_answer *w;
	struct om_job_info info = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	state_is("j1", OM_JOB_RUNNING);
	w = wait_for(BOB, "j");
	assert_false(w->done);
	fake_finish("j1", OM_JOB_COMPLETED);
	fake_body(w, OM_MSG_JOB_INFO, &info, &arena);
	assert_true(om_str_is(info.state, "completed"));
	w = wait_for(BOB, "j1"); /* it has ended: answered at once */
	assert_true(w->done && w->err == OM_OK);
	assert_string_equal(fake.events[fake.event_count - 1], "j1 completed");
	om_arena_fini(&arena);
}

static void
ids_are_made_when_none_is_chosen(void **state)
{
	struct om_job_submit m = job(NULL);

	(void)state;
	fake_up();
	accepted(submit(BOB, &m), "queued", "network");
	assert_int_equal(strlen(disk.rows[0].id), OM_JOB_ID_LEN);
	m = job("../etc");
	refused(submit(BOB, &m), OM_ERR_INVALID, "job:");
	m = job(NULL);
	m.has &= ~(UINT64_C(1) << OM_FIELD_job_submit_network);
	refused(submit(BOB, &m), OM_ERR_INVALID, "vpn");
}

static struct om_job_submit
job_with_tunnel(struct om_vpn_config *vpn)
{
	struct om_job_submit m = job(NULL);

	OM_SET(&m, job_submit, network, OM_STR("tunnel"));
	OM_SET(&m, job_submit, vpn, vpn);
	return m;
}

/* Each was acknowledged and queued, and failed when its VM was due. */
static void
a_tunnel_is_checked_before_it_is_acknowledged(void **state)
{
	static const char key[] = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
	static struct om_jobnet_env env;
	struct om_str address = OM_STR("10.99.0.2/32"), allowed = OM_STR("10.99.0.0/24");
	struct om_vpn_config good = { .private_key = OM_STR(key),
				      .peer_public_key = OM_STR(key),
				      .endpoint = OM_STR("203.0.113.1:51820"),
				      .addresses = { &address, 1 },
				      .allowed_ips = { &allowed, 1 } };
	struct om_vpn_config vpn = good;
	struct om_job_submit m;

	(void)state;
	fake.provider.net = &env;
	fake_up();
	vpn.private_key = OM_STR("no key");
	m = job_with_tunnel(&vpn);
	refused(submit(BOB, &m), OM_ERR_INVALID, "private_key");
	vpn = good;
	vpn.endpoint = OM_STR("127.0.0.1:51820");
	refused(submit(BOB, &m), OM_ERR_DENIED, "127.0.0.1");
	vpn = good;
	allowed = OM_STR("10.99.0.0/64");
	refused(submit(BOB, &m), OM_ERR_INVALID, "allowed_ips");
	allowed = OM_STR("10.99.0.0/24");
	address = OM_STR("fd99::2/128");
	refused(submit(BOB, &m), OM_ERR_UNSUPPORTED, "IPv6");
	address = OM_STR("10.99.0.2/32");
	accepted(submit(BOB, &m), "queued", "network");
}

static void
what_is_not_offered_is_refused(void **state)
{
	struct om_job_submit m = job(NULL);

	(void)state;
	fake_up();
	OM_SET(&m, job_submit, gpu, true);
	refused(submit(BOB, &m), OM_ERR_UNSUPPORTED, "GPU");
	assert_int_equal(disk.row_count, 0);
}

/* bug: one requester's running jobs could fill the disk, 1 GiB of output each. */
static void
bug_output_has_the_operators_limit(void **state)
{
	struct om_job_submit m = job("j1");

	(void)state;
	fake.provider.output_max = 1000000;
	fake_up();
	OM_SET(&m, job_submit, output_max, 1000001);
	refused(submit(BOB, &m), OM_ERR_LIMIT, "output_max: 1000001 bytes, at most 1000000");
	refused(submit(OPERATOR, &m), OM_ERR_LIMIT, "output_max");
	assert_int_equal(disk.row_count, 0);
	OM_SET(&m, job_submit, output_max, 1000000);
	accepted(submit(BOB, &m), "queued", "network");
}

static void
the_same_submit_twice_is_one_job(void **state)
{
	struct om_job_submit m = job("j1");
	struct om_job_accepted got = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	fake_up();
	accepted(submit(BOB, &m), "queued", "network");
	fake_body(submit(BOB, &m), OM_MSG_JOB_ACCEPTED, &got, &arena);
	assert_true(got.duplicate);
	assert_true(om_str_is(got.state, "running"));
	assert_int_equal(fake.started, 1);
	refused(submit(EVE, &m), OM_ERR_EXISTS, ""); /* somebody else's id */
	OM_SET(&m, job_submit, cores, 1);
	refused(submit(BOB, &m), OM_ERR_EXISTS, ""); /* another body */
	assert_int_equal(disk.row_count, 1);
	om_arena_fini(&arena);
}

static void
a_rejected_job_is_recorded_and_told_why(void **state)
{
	struct fake_answer *a;
	struct om_error error = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	fake.filter.default_action = "reject_all";
	fake_up();
	a = submit_id(BOB, "j1");
	refused(a, OM_ERR_REJECTED, "reject_all");
	state_is("j1", OM_JOB_REJECTED);
	fake_body(a, OM_MSG_ERROR, &error, &arena);
	assert_int_equal(error.details.n, 2);
	assert_true(om_str_is(error.details.v[0].value, "j1"));
	assert_true(om_str_is(error.details.v[1].value, "default_reject"));
	refused(submit_id(BOB, "j1"), OM_ERR_REJECTED, "reject_all"); /* and again the same */
	om_arena_fini(&arena);
}

static void
a_job_that_never_fits_is_rejected(void **state)
{
	struct om_job_submit m = job("big");

	(void)state;
	fake.provider.cores_total = 4;
	fake.queue.cores_total = 4;
	fake_up();
	OM_SET(&m, job_submit, cores, 5);
	refused(submit(OPERATOR, &m), OM_ERR_REJECTED, "5 cores");
	state_is("big", OM_JOB_REJECTED);
}

static void
nothing_is_acknowledged_that_is_not_durable(void **state)
{
	(void)state;
	fake_up();
	disk.fail = OM_ERR_DISK;
	refused(submit_id(BOB, "j1"), OM_ERR_DISK, "");
	assert_int_equal(fake.started, 0);
	disk.fail = OM_OK;
	accepted(submit_id(BOB, "j1"), "queued", "network");
}

/* --- A.12 ------------------------------------------------------------------------------------- */

static void
bug_01_identity_is_not_in_the_body(void **state)
{
	struct om_job_submit m = job("j1");

	(void)state;
	fake_up();
	OM_SET(&m, job_submit, on_behalf, OM_STR("alice")); /* the owner's name */
	refused(submit(EVE, &m), OM_ERR_DENIED, "operator");
	m = job("j1");
	OM_SET(&m, job_submit, network_id, OM_STR("home"));
	refused(submit(EVE, &m), OM_ERR_DENIED, "operator");
	accepted(submit(OPERATOR, &m), "queued", "owner"); /* his own */
	m = job("j2");
	OM_SET(&m, job_submit, on_behalf, OM_STR("carol"));
	OM_SET(&m, job_submit, network_id, OM_STR("home"));
	accepted(submit(OPERATOR, &m), "queued", "network");
	assert_string_equal(fake_row("j2")->peer, "carol");
	accepted(submit_id(EVE, "j3"), "pending_approval", "external");
}

static void
bug_02_only_the_owner_of_a_job_may_touch_it(void **state)
{
	(void)state;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	refused(cancel(EVE, "j1"), OM_ERR_NOT_FOUND, "");
	refused(wait_for(EVE, "j1"), OM_ERR_NOT_FOUND, "");
	refused(refs(EVE, OM_MSG_JOB_HOLD, "j1", false), OM_ERR_NOT_FOUND, "");
	refused(refs(BOB, OM_MSG_JOB_APPROVE, "j1", false), OM_ERR_DENIED, "");
	state_is("j1", OM_JOB_RUNNING);
	counted(cancel(OPERATOR, "j1"), 1);
	state_is("j1", OM_JOB_CANCELLED);
}

static void
state_told(struct fake_answer *a, const char *state)
{
	struct om_job_info info = { 0 };
	struct om_arena arena = { 0 };

	fake_body(a, OM_MSG_JOB_INFO, &info, &arena);
	assert_true(om_str_is(info.state, state));
	om_arena_fini(&arena);
}

/* What a requester has in place of the operator's events: each change of its own job. */
static void
test_a_requester_hears_of_approval_and_denial(void **state)
{
	struct fake_answer *a, *b;

	(void)state;
	fake.queue.max_jobs = 1;
	fake_up();
	accepted(submit_id(EVE, "j1"), "pending_approval", "external");
	accepted(submit_id(EVE, "j2"), "pending_approval", "external");
	a = wait_from(EVE, "j1", "pending_approval");
	b = wait_from(EVE, "j2", "pending_approval");
	refused(wait_from(BOB, "j1", "pending_approval"), OM_ERR_NOT_FOUND, "");
	refused(wait_from(EVE, "j1", "asleep"), OM_ERR_INVALID, "no such state");
	assert_false(a->done);
	counted(refs(OPERATOR, OM_MSG_JOB_APPROVE, "j1", false), 1);
	assert_true(a->done);
	assert_false(b->done);
	counted(refs(OPERATOR, OM_MSG_JOB_DENY, "j2", false), 1);
	state_told(b, "denied");
	/* It runs by now, whatever the answer said: another wait tells the next change. */
	state_is("j1", OM_JOB_RUNNING);
	state_told(wait_from(EVE, "j1", "queued"), "running"); /* left already: at once */
	a = wait_from(EVE, "j1", "running");
	assert_false(a->done);
	fake_finish("j1", OM_JOB_COMPLETED);
	state_told(a, "completed");
}

static void
bug_03_a_held_job_waits_for_approval(void **state)
{
	(void)state;
	fake_up();
	accepted(submit_id(EVE, "j1"), "pending_approval", "external");
	accepted(submit_id(EVE, "j2"), "pending_approval", "external");
	accepted(submit_id(EVE, "j3"), "pending_approval", "external");
	counted(refs(OPERATOR, OM_MSG_JOB_APPROVE, "j1", true), 1);
	state_is("j1", OM_JOB_RUNNING);
	refused(refs(OPERATOR, OM_MSG_JOB_APPROVE, "j1", false), OM_ERR_STATE, "running");
	counted(refs(OPERATOR, OM_MSG_JOB_DENY, "j2", false), 1);
	state_is("j2", OM_JOB_DENIED);
	/* always: the network is trusted from now on */
	accepted(submit_id(EVE, "j4"), "queued", "network");
	/* who waits hears of the outcome, also of an expiry */
	fake_advance(OM_PROVIDER_HOLD_EXPIRY_MS - 1000);
	state_is("j3", OM_JOB_PENDING);
	fake_advance(2000);
	state_is("j3", OM_JOB_EXPIRED);
	state_is("j4", OM_JOB_QUEUED);
}

/* It trusted the network alone, and said `done` where there was none or the disk was full. */
static void
approve_always_trusts_a_peer(void **state)
{
	const struct om_caller zoe = fake_caller(OM_ROLE_REQUESTER, "zoe", "");

	(void)state;
	fake.queue.max_jobs = 4;
	fake_up();
	accepted(submit_id(zoe, "z1"), "pending_approval", "external");
	accepted(submit_id(EVE, "e1"), "pending_approval", "external");
	refused(approve_always("z1", "network"), OM_ERR_INVALID, "no network");
	refused(refs(OPERATOR, OM_MSG_JOB_APPROVE, "z1", true), OM_ERR_INVALID, "no network");
	refused(approve_always("z1", "world"), OM_ERR_INVALID, "peer or network");
	disk.fail = OM_ERR_DISK;
	refused(approve_always("z1", "peer"), OM_ERR_DISK, "z1 is not approved");
	disk.fail = OM_OK;
	state_is("z1", OM_JOB_PENDING);
	accepted(submit_id(zoe, "z2"), "pending_approval", "external");
	counted(approve_always("z1", "peer"), 1);
	state_is("z1", OM_JOB_RUNNING);
	accepted(submit_id(zoe, "z3"), "queued", "network");
	counted(approve_always("e1", "network"), 1);
	accepted(submit_id(fake_caller(OM_ROLE_REQUESTER, "max", "cafe"), "m1"), "queued",
		 "network");
}

static void
an_expiry_that_cannot_be_written_is_tried_again(void **state)
{
	(void)state;
	fake.provider.hold_expiry_ms = 1000;
	fake_up();
	accepted(submit_id(EVE, "j1"), "pending_approval", "external");
	disk.fail = OM_ERR_DISK;
	fake_advance(2000);
	state_is("j1", OM_JOB_PENDING);
	disk.fail = OM_OK;
	fake_advance(61000);
	state_is("j1", OM_JOB_EXPIRED);
}

static void
bug_07_a_cancel_is_true(void **state)
{
	struct fake_answer *a;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "run"), "queued", "network");
	accepted(submit_id(BOB, "queue"), "queued", "network");
	accepted(submit_id(EVE, "held"), "pending_approval", "external");
	counted(cancel(BOB, "queue"), 1);
	state_is("queue", OM_JOB_CANCELLED);
	counted(cancel(EVE, "held"), 1);
	state_is("held", OM_JOB_CANCELLED);
	counted(cancel(BOB, "run"), 1);
	state_is("run", OM_JOB_CANCELLED);
	refused(cancel(BOB, "run"), OM_ERR_STATE, "cancelled");
	refused(cancel(BOB, "?"), OM_ERR_NOT_FOUND, "");
	/* It ended in another way before the cancel reached it. */
	accepted(submit_id(BOB, "fast"), "queued", "network");
	fake.end_state = OM_JOB_COMPLETED;
	a = cancel(BOB, "fast");
	refused(a, OM_ERR_STATE, "completed");
	state_is("fast", OM_JOB_COMPLETED);
}

static void
cancel_in_bulk(void **state)
{
	struct om_job_cancel m = { 0 };
	struct om_caller bob = BOB, operator= OPERATOR;

	(void)state;
	fake_up();
	for (int i = 0; i < 5; i++) {
		char id[16];

		(void)snprintf(id, sizeof(id), "b%d", i);
		accepted(submit_id(BOB, id), "queued", "network");
		(void)snprintf(id, sizeof(id), "e%d", i);
		accepted(submit_id(EVE, id), "pending_approval", "external");
	}
	refused(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_CANCEL, &m), OM_ERR_INVALID, "say which");
	OM_SET(&m, job_cancel, state, OM_STR("queued"));
	counted(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_CANCEL, &m), 4);
	state_is("b0", OM_JOB_RUNNING);
	m = (struct om_job_cancel){ 0 };
	OM_SET(&m, job_cancel, level, OM_STR("external"));
	counted(fake_ask(&bob, OM_PROVIDER, OM_MSG_JOB_CANCEL, &m), 0); /* none of his own */
	counted(fake_ask(&operator, OM_PROVIDER, OM_MSG_JOB_CANCEL, &m), 5);
	OM_SET(&m, job_cancel, level, OM_STR("upper"));
	refused(fake_ask(&operator, OM_PROVIDER, OM_MSG_JOB_CANCEL, &m), OM_ERR_INVALID, "level");
}

static void
bug_12_accepted_comes_before_started(void **state)
{
	int accepted_at, started_at;

	(void)state;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	accepted_at = fake_trail("j1 received->queued");
	started_at = fake_trail("j1 queued->provisioning");
	assert_true(accepted_at >= 0 && started_at > accepted_at);
}

static void
bug_13_one_id_everywhere(void **state)
{
	struct om_job_submit m = job(NULL);
	struct om_job_accepted got = { 0 };
	struct om_arena arena = { 0 };
	char id[65];

	(void)state;
	fake_up();
	fake_body(submit(BOB, &m), OM_MSG_JOB_ACCEPTED, &got, &arena);
	fake_copy(got.job, id, sizeof(id));
	assert_string_equal(disk.rows[0].id, id);
	assert_string_equal(fake.running[0], id);
	fake_finish(disk.rows[0].id, OM_JOB_FAILED);
	assert_true(wait_for(BOB, id)->done);
	om_arena_fini(&arena);
}

static void
bug_14_one_peer_cannot_fill_the_queue(void **state)
{
	struct om_job_submit m = job("j2");
	struct om_job_accepted got = { 0 };
	struct om_arena arena = { 0 };

	(void)state;
	fake.provider.peer_jobs_max = 2;
	fake.provider.jobs_max = 4;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	accepted(submit_id(BOB, "j2"), "queued", "network");
	refused(submit_id(BOB, "j3"), OM_ERR_LIMIT, "2 of your jobs");
	/* An id that only begins like theirs is no repeated submit, and no row of the ledger. */
	refused(submit_id(BOB, "j"), OM_ERR_LIMIT, "2 of your jobs");
	assert_int_equal(disk.row_count, 2);
	/* A repeated submit is still the same job, not one too many. */
	fake_body(submit(BOB, &m), OM_MSG_JOB_ACCEPTED, &got, &arena);
	assert_true(got.duplicate);
	accepted(submit_id(EVE, "e1"), "pending_approval", "external");
	accepted(submit_id(OPERATOR, "o1"), "queued", "owner");
	refused(submit_id(OPERATOR, "o2"), OM_ERR_FULL, "4 jobs");
	fake_finish("j1", OM_JOB_COMPLETED); /* an end makes room */
	accepted(submit_id(BOB, "j3"), "queued", "network");
	om_arena_fini(&arena);
}

static void
bug_14_not_by_submitting_many_at_once_either(void **state)
{
	struct om_job_submit m = job(NULL);
	struct om_caller bob = BOB;
	struct fake_answer *a[6];
	int let_in = 0;

	(void)state;
	fake.provider.peer_jobs_max = 2;
	fake_up();
	for (size_t i = 0; i < OM_COUNT(a); i++) {
		a[i] = fake_post(&bob, OM_PROVIDER, OM_MSG_JOB_SUBMIT, &m);
		for (size_t step = 0; step < 7 * i; step++) { /* at any moment of the one before */
			(void)om_sim_step(fake.sys);
		}
	}
	(void)om_sim_run(fake.sys);
	for (size_t i = 0; i < OM_COUNT(a); i++) {
		assert_true(a[i]->done);
		let_in += a[i]->err == OM_OK;
	}
	assert_int_equal(let_in, 2);
	assert_int_equal(disk.row_count, 2);
}

/* It went past the filter and the limits: who is blocked kept his old jobs running. */
static void
a_retry_is_decided_like_a_submit(void **state)
{
	struct om_list_change bob_out = { .value = OM_STR("bob") };
	struct om_caller operator= OPERATOR;

	(void)state;
	fake.provider.peer_jobs_max = 1;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	fake_finish("j1", OM_JOB_FAILED);
	accepted(submit_id(BOB, "j2"), "queued", "network");
	refused(refs(BOB, OM_MSG_JOB_RETRY, "j1", false), OM_ERR_LIMIT, "1 of your jobs");
	fake_finish("j2", OM_JOB_FAILED);
	counted(refs(BOB, OM_MSG_JOB_RETRY, "j1", false), 1);
	state_is("j1", OM_JOB_RUNNING);
	fake_finish("j1", OM_JOB_FAILED);
	assert_int_equal(fake_ask(&operator, OM_FILTER_MANAGER, OM_MSG_CONFIG_BLOCK, &bob_out)->err,
			 OM_OK);
	refused(refs(BOB, OM_MSG_JOB_RETRY, "j1", false), OM_ERR_REJECTED, "");
	state_is("j1", OM_JOB_FAILED);
	counted(refs(OPERATOR, OM_MSG_JOB_RETRY, "j1", false), 1); /* his own word */
	state_is("j1", OM_JOB_RUNNING);
}

static void
bug_15_no_room_now_means_wait(void **state)
{
	struct om_job_submit m = job("j1");

	(void)state;
	fake.queue.max_jobs = 10;
	fake.queue.cores_total = fake.provider.cores_total = 2;
	fake_up();
	OM_SET(&m, job_submit, cores, 2);
	accepted(submit(BOB, &m), "queued", "network");
	accepted(submit_id(BOB, "j2"), "queued", "network");
	state_is("j2", OM_JOB_QUEUED);
	fake_finish("j1", OM_JOB_FAILED);
	state_is("j2", OM_JOB_RUNNING);
}

/* --- settings that change in a running daemon --------------------------------------------------- */

static struct fake_answer *
policy_is(struct om_caller as, const char *to, const char *action, uint64_t queue_max,
	  uint64_t peer_max)
{
	struct om_policy m = { .default_action = om_str_of(action),
			       .approval_expiry_ms = 5000,
			       .queue_max = queue_max,
			       .peer_max = peer_max };

	return fake_ask(&as, to, OM_MSG_CONFIG_POLICY, &m);
}

static void
policy_to_all(const char *action, uint64_t queue_max, uint64_t peer_max)
{
	static const char *const takers[] = { OM_FILTER_MANAGER, OM_JOB_QUEUE, OM_PROVIDER };
	const struct om_caller actor = fake_caller(OM_ROLE_ACTOR, "", "");

	for (size_t i = 0; i < OM_COUNT(takers); i++) {
		const struct fake_answer *a =
		    policy_is(actor, takers[i], action, queue_max, peer_max);

		assert_true(a->done);
		assert_int_equal(a->err, OM_OK);
	}
}

static void
settings_change_at_once(void **state)
{
	const struct om_caller actor = fake_caller(OM_ROLE_ACTOR, "", "");

	(void)state;
	fake.provider.peer_jobs_max = 1;
	fake_up();
	accepted(submit_id(BOB, "j1"), "queued", "network");
	refused(submit_id(BOB, "j2"), OM_ERR_LIMIT, "1 of your jobs");
	/* Nobody from outside, and nothing that makes no sense. */
	refused(policy_is(OPERATOR, OM_PROVIDER, "hold_all", 9, 9), OM_ERR_DENIED, "");
	refused(policy_is(OPERATOR, OM_JOB_QUEUE, "hold_all", 9, 9), OM_ERR_DENIED, "");
	refused(policy_is(OPERATOR, OM_FILTER_MANAGER, "hold_all", 9, 9), OM_ERR_DENIED, "");
	refused(policy_is(actor, OM_FILTER_MANAGER, "accept_some", 9, 9), OM_ERR_INVALID,
		"accept_some");
	refused(submit_id(BOB, "j2"), OM_ERR_LIMIT, "1 of your jobs");

	policy_to_all("accept_trusted_hold_others", 3, 0);
	accepted(submit_id(BOB, "j2"), "queued", "network");
	accepted(submit_id(EVE, "e1"), "pending_approval", "external");
	refused(submit_id(BOB, "j3"), OM_ERR_FULL, "3 jobs");
	fake_advance(6000); /* the approval_expiry of then, not of the start */
	state_is("e1", OM_JOB_EXPIRED);
	policy_to_all("reject_all", 100, 0);
	refused(submit_id(BOB, "j3"), OM_ERR_REJECTED, "reject_all");
	policy_to_all("accept_everyone", 100, 0);
	accepted(submit_id(EVE, "e2"), "queued", "external");
}

/* An actor that is restarted has them too: what changed is not in its start argument. */
static void
settings_outlive_a_restart_of_the_actor(void **state)
{
	struct om_filter_live filter = { 0 };
	struct om_job_queue_live queue = { 0 };
	struct om_provider_live provider = { 0 };

	for (int life = 0; life < 2; life++) {
		fake.provider.peer_jobs_max = 1;
		fake.filter.live = &filter;
		fake.queue.live = &queue;
		fake.provider.live = &provider;
		fake_up();
		if (life == 0) {
			policy_to_all("accept_everyone", 7, 2);
			fake_down();
			(void)fake_setup(state);
		}
	}
	accepted(submit_id(EVE, "e1"), "queued", "external");
	accepted(submit_id(EVE, "e2"), "queued", "external");
	refused(submit_id(EVE, "e3"), OM_ERR_LIMIT, "2 of your jobs");
	assert_true(queue.has_age);
}

int
main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_requester_hears_of_approval_and_denial),
		T(a_job_from_submit_to_its_end),
		T(ids_are_made_when_none_is_chosen),
		T(a_tunnel_is_checked_before_it_is_acknowledged),
		T(what_is_not_offered_is_refused),
		T(bug_output_has_the_operators_limit),
		T(the_same_submit_twice_is_one_job),
		T(a_rejected_job_is_recorded_and_told_why),
		T(a_job_that_never_fits_is_rejected),
		T(nothing_is_acknowledged_that_is_not_durable),
		T(bug_01_identity_is_not_in_the_body),
		T(bug_02_only_the_owner_of_a_job_may_touch_it),
		T(bug_03_a_held_job_waits_for_approval),
		T(approve_always_trusts_a_peer),
		T(an_expiry_that_cannot_be_written_is_tried_again),
		T(bug_07_a_cancel_is_true),
		T(cancel_in_bulk),
		T(bug_12_accepted_comes_before_started),
		T(bug_13_one_id_everywhere),
		T(bug_14_one_peer_cannot_fill_the_queue),
		T(bug_14_not_by_submitting_many_at_once_either),
		T(settings_change_at_once),
		T(settings_outlive_a_restart_of_the_actor),
		T(a_retry_is_decided_like_a_submit),
		T(bug_15_no_room_now_means_wait),
	};

	return FAKE_RUN(tests);
}
