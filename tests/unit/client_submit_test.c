/* SPDX-License-Identifier: ISC */
/* The command line: submit, wait, output, and the exit codes of jobs. */
#include "tests/unit/client_cli_rig.h"

#include <sched.h>

/* --- submit ---------------------------------------------------------------------------------------- */

static void
take_full_job(struct fake *f, struct fake_request *r)
{
	struct om_job_submit m = { 0 };
	struct om_job_accepted answer = { .job = OM_STR("7f3a1c00d00d"),
					  .state = OM_STR("queued") };

	(void)f;
	fake_body(r, &m);
	OM_ASSERT(om_str_is(m.lang, "python") && m.script.len == 9);
	OM_ASSERT(m.args.n == 3 && om_str_is(m.args.v[0], "data.csv") &&
		  om_str_is(m.args.v[1], "--json") && om_str_is(m.args.v[2], "../up"));
	OM_ASSERT(m.cores == 2 && m.mem_mib == 2048 && m.disk_mib == 300 && m.runtime_s == 600);
	OM_ASSERT(m.env.n == 2 && om_str_is(m.env.v[0].key, "A") &&
		  om_str_is(m.env.v[0].value, "b=c") && om_str_is(m.env.v[1].key, "OMERTA_TEST") &&
		  om_str_is(m.env.v[1].value, "ours"));
	OM_ASSERT(m.files.n == 3 && om_str_is(m.files.v[0].name, "x/y") &&
		  om_str_is(m.files.v[1].name, "in.txt") &&
		  om_str_is(m.files.v[2].name, "data.csv"));
	OM_ASSERT(m.outputs.n == 2 && om_str_is(m.outputs.v[1], "b.bin"));
	OM_ASSERT(m.stdin.len == 5 && m.output_max == 1 << 20);
	OM_ASSERT(om_str_is(m.network, "none") && m.vpn == NULL);
	OM_ASSERT(om_str_is(m.job, "mine") && om_str_is(m.activity, "a b"));
	OM_ASSERT(m.hold && m.requeue && m.gpu && m.retries == 3 && m.backoff_s == 2);
	OM_ASSERT(m.after.n == 1 && m.after_any && m.not_before == 1795420800);
	OM_ASSERT(om_str_is(m.on_behalf, "bob") && om_str_is(m.network_id, "cafe"));
	OM_SET(&answer, job_accepted, ahead, 1);
	fake_answer(r, OM_MSG_JOB_ACCEPTED, &answer);
}

static void
test_submit_says_everything(void **state)
{
	static const char line[] =
	    "submit -c 2 --memory 2G --disk=300 -t 10m -E A=b=c --env OMERTA_TEST -f x/y=in.txt "
	    "--file in.txt -o a.bin -o b.bin --stdin in.txt --output-max 1M --network none "
	    "--job mine --activity 'a b' --hold --requeue --gpu --retries 3 --backoff 1500ms "
	    "--after other --after-any --not-before 2026-11-23T08:00:00Z --on-behalf bob "
	    "--network-id cafe train.py data.csv --json ../up";
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	assert_int_equal(setenv("OMERTA_TEST", "ours", 1), 0);
	fake_new(&f, take_full_job, NULL);
	r = run(&f, line);
	assert_string_equal(r.out, "7f3a1c00d00d\n"); /* ID=$(omerta submit ...) */
	assert_string_equal(r.err, "sending data.csv (4 B)\n");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

static void
take_network(struct fake *f, struct fake_request *r)
{
	struct om_job_submit m = { 0 };
	struct om_job_accepted answer = { .job = OM_STR("a"), .state = OM_STR("queued") };
	bool tunnel = f->arg != NULL;

	fake_body(r, &m);
	OM_ASSERT(m.files.n == 0);
	if (tunnel) {
		OM_ASSERT(om_str_is(m.network, "tunnel") && m.vpn != NULL);
		OM_ASSERT(om_str_is(m.vpn->endpoint, "192.0.2.1:51820"));
		OM_ASSERT(m.vpn->private_key.len == 44 && m.vpn->addresses.n == 1 &&
			  om_str_is(m.vpn->allowed_ips.v[0], "10.200.1.0/24"));
		OM_ASSERT(!OM_HAS(m.vpn, vpn_config, preshared_key));
	} else {
		OM_ASSERT(om_str_is(m.network, "none") && m.vpn == NULL);
	}
	fake_answer(r, OM_MSG_JOB_ACCEPTED, &answer);
}

static void
test_the_tunnel_comes_from_a_file_or_there_is_none(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	fake_new(&f, take_network, NULL);
	r = run(&f, "submit --no-files train.py data.csv");
	assert_int_equal(r.status, 0);
	assert_has(r.err, "the job gets no network");
	ran_free(&r);
	f.arg = &f;
	r = run(&f, "submit --wg wg.conf train.py");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	assert_int_equal(setenv("OMERTA_WG", "wg.conf", 1), 0);
	r = run(&f, "submit train.py");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	assert_int_equal(unsetenv("OMERTA_WG"), 0);
	r = run(&f, "submit --wg bad.conf train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	assert_has(r.err, "PostUp");
	ran_free(&r);
	r = run(&f, "submit --network none --wg wg.conf train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	ran_free(&r);
	r = run(&f, "submit --network tunnel train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	ran_free(&r);
	r = run(&f, "submit --network wifi train.py");
	assert_int_equal(r.status, OM_EXIT_USAGE);
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

/* --- submit --wait --------------------------------------------------------------------------------- */

struct ending {
	const char *state;
	int64_t exit_code;
	bool has_exit;
	uint64_t signal;
	int status;
};

static void
end_info(const struct ending *e, struct om_job_info *info)
{
	info->job = OM_STR("7f3a1c00d00d");
	info->state = om_str_of(e->state);
	if (e->has_exit) {
		OM_SET(info, job_info, exit_code, e->exit_code);
	}
	if (e->signal != 0) {
		OM_SET(info, job_info, signal, e->signal);
	}
	OM_SET(info, job_info, wall_ms, 41200);
	OM_SET(info, job_info, cpu_ms, 39000);
	OM_SET(info, job_info, mem_peak_kib, 212 * 1024);
	OM_SET(info, job_info, text, OM_STR("because"));
}

/* Output in two pieces on stdout, one on stderr; the first follow of each is kept waiting once. */
static void
run_job(struct fake *f, struct fake_request *r)
{
	const struct ending *e = f->arg;
	struct om_job_accepted accepted = { .job = OM_STR("7f3a1c00d00d"),
					    .state = OM_STR("queued") };
	struct om_job_info info = { 0 };
	struct om_output_query q = { 0 };
	struct om_output_data piece = { 0 };
	const char *text;
	size_t len;

	switch (r->envelope.type) {
	case OM_MSG_JOB_SUBMIT:
		fake_answer(r, OM_MSG_JOB_ACCEPTED, &accepted);
		break;
	case OM_MSG_JOB_GET:
		info.job = OM_STR("7f3a1c00d00d");
		info.state = OM_STR("running");
		fake_answer(r, OM_MSG_JOB_INFO, &info);
		break;
	case OM_MSG_JOB_WAIT:
		end_info(e, &info);
		fake_answer(r, OM_MSG_JOB_INFO, &info);
		break;
	case OM_MSG_JOB_OUTPUT:
		fake_body(r, &q);
		text = om_str_is(q.stream, "stderr") ? "warn\n" : "epoch 1\nepoch 2\n";
		len = strlen(text);
		OM_ASSERT(q.offset <= len);
		piece.data.len = len - q.offset < 8 ? len - q.offset : 8;
		piece.data.ptr = (const uint8_t *)text + q.offset;
		piece.offset = q.offset;
		piece.size = len;
		piece.end = q.offset + piece.data.len == len;
		fake_answer(r, OM_MSG_OUTPUT_DATA, &piece);
		break;
	default:
		fake_error(r, OM_ERR_UNKNOWN_TYPE, "");
	}
}

static const struct ending endings[] = {
	{ "completed", 0, true, 0, 0 },       { "failed", 3, true, 0, 3 },
	{ "failed", -1, true, 0, 255 },       { "failed", 0, false, 9, 128 + 9 },
	{ "failed", 0, false, 0, 125 }, /* the VM did not start */
	{ "timed_out", 0, false, 9, 124 },    { "cancelled", 0, false, 15, 125 },
	{ "rogue_killed", 0, false, 0, 125 }, { "lost", 0, false, 0, 125 },
	{ "denied", 0, false, 0, 125 },       { "dead", 7, true, 0, 7 },
};

static void
test_submit_wait_shows_output_and_exits_as_the_job(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	for (size_t i = 0; i < OM_COUNT(endings); i++) {
		fake_new(&f, run_job, (void *)(uintptr_t)&endings[i]);
		r = run(&f, "submit --network none --wait train.py");
		assert_string_equal(r.out, "epoch 1\nepoch 2\n");
		assert_has(r.err, "warn\n");
		assert_has(r.err, "41.2 s wall, 39.0 s CPU, 212 MiB peak");
		assert_has(r.err, endings[i].state);
		assert_int_equal(r.status, endings[i].status);
		ran_free(&r);
		r = run(&f, "wait -q 7f");
		assert_string_equal(r.out, "");
		assert_string_equal(r.err, "");
		assert_int_equal(r.status, endings[i].status);
		ran_free(&r);
		fake_free(&f);
	}
	place_leave(&p);
}

/* As run_job, but it is queued still when it is asked for. */
static void
run_queued_job(struct fake *f, struct fake_request *r)
{
	struct om_job_info info = { .job = OM_STR("7f3a1c00d00d"), .state = OM_STR("queued") };

	if (r->envelope.type == OM_MSG_JOB_GET) {
		fake_answer(r, OM_MSG_JOB_INFO, &info);
	} else {
		run_job(f, r);
	}
}

static void
test_submit_wait_tells_a_state_once(void **state)
{
	const char *first;
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	fake_new(&f, run_queued_job, (void *)(uintptr_t)&endings[0]);
	r = run(&f, "submit --network none --wait train.py");
	first = strstr(r.err, "  queued\n");
	assert_non_null(first);
	assert_null(strstr(first + 1, "  queued\n"));
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

static void
test_submit_wait_in_json(void **state)
{
	struct place p;
	struct fake f;
	struct ran r;

	(void)state;
	place_enter(&p);
	fake_new(&f, run_job, (void *)(uintptr_t)&endings[1]);
	r = run(&f, "submit --network none --wait --json train.py");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"job.info\",\"job\":\"7f3a1c00d00d\","
				   "\"state\":\"failed\",\"text\":\"because\",\"exit_code\":3,"
				   "\"wall_ms\":41200,\"cpu_ms\":39000,\"mem_peak_kib\":217088}\n");
	assert_string_equal(r.err, "");
	assert_int_equal(r.status, 3);
	ran_free(&r);
	r = run(&f, "submit --network none --follow --json train.py");
	assert_has(r.out,
		   "\"type\":\"output.data\",\"data\":\"epoch 2\\n\",\"offset\":8,\"size\":16,"
		   "\"end\":true,\"job\":\"7f3a1c00d00d\",\"stream\":\"stdout\"}\n");
	assert_has(r.out, "\"stream\":\"stderr\"}\n");
	ran_free(&r);
	r = run(&f, "submit --network none --json train.py");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"job.accepted\",\"job\":"
				   "\"7f3a1c00d00d\",\"state\":\"queued\"}\n");
	ran_free(&r);
	fake_free(&f);
	place_leave(&p);
}

/* The first daemon ends with the wait in its hands; the next one has the answer. */
static void
answer_after_restart(struct fake *f, struct fake_request *r)
{
	static const struct ending completed = { "completed", 0, true, 0, 0 };
	struct om_job_info info = { 0 };

	if (f->arg != NULL) {
		end_info(&completed, &info);
		fake_answer(r, OM_MSG_JOB_INFO, &info);
	}
}

static void
test_wait_goes_on_over_a_restart(void **state)
{
	pthread_t restarter;
	struct fake f;
	struct ran r;

	(void)state;
	fake_new(&f, answer_after_restart, NULL);
	assert_int_equal(pthread_create(&restarter, NULL, fake_restart, &f), 0);
	r = run(&f, "wait -q 7f"); /* quiet: the wait is the only request */
	(void)pthread_join(restarter, NULL);
	assert_string_equal(r.err, "");
	assert_int_equal(r.status, 0);
	ran_free(&r);
	fake_free(&f);
}

/* --- output ---------------------------------------------------------------------------------------- */

static void
give_binary(struct fake *f, struct fake_request *r)
{
	static const uint8_t data[] = { 0xff, 0x00, 'x' };
	struct om_output_query q = { 0 };
	struct om_output_data piece = { .size = 3, .end = true };

	(void)f;
	fake_body(r, &q);
	OM_ASSERT(om_str_is(q.file, "m.bin"));
	q.offset = q.offset < 3 ? q.offset : 3;
	piece.data = (struct om_bin){ data + q.offset, 3 - q.offset };
	piece.offset = q.offset;
	fake_answer(r, OM_MSG_OUTPUT_DATA, &piece);
}

static void
test_output_is_bytes_or_json_lines(void **state)
{
	static const char *const others[] = { "z", "zz", "zzzzzz" };
	struct place p;
	struct fake f;
	struct ran r;
	struct stat st;

	(void)state;
	place_enter(&p);
	fake_new(&f, give_binary, NULL);
	r = run(&f, "output 7f --file m.bin");
	assert_int_equal(r.out_len, 3);
	assert_memory_equal(r.out, "\xff\0x", 3);
	ran_free(&r);
	r = run(&f, "output 7f --file m.bin --json");
	assert_string_equal(r.out, "{\"version\":1,\"type\":\"output.data\",\"data\":{\"base64\":"
				   "\"/wB4\"},\"offset\":0,\"job\":\"7f\",\"file\":\"m.bin\"}\n");
	ran_free(&r);
	write_file("got", "\xff"); /* one byte is there already */
	r = run(&f, "output 7f --file m.bin --to got");
	assert_int_equal(r.status, 0);
	assert_int_equal(stat("got", &st), 0);
	assert_int_equal(st.st_size, 3);
	ran_free(&r);
	/* What another attempt left is no beginning of this one's, however long it is. */
	for (size_t i = 0; i < OM_COUNT(others); i++) {
		char got[8];
		FILE *in;

		write_file("got", others[i]);
		r = run(&f, "output 7f --file m.bin --to got");
		assert_int_equal(r.status, 0);
		assert_has(r.err, "it is written anew");
		ran_free(&r);
		in = fopen("got", "re");
		assert_non_null(in);
		assert_int_equal(fread(got, 1, sizeof(got), in), 3);
		assert_memory_equal(got, "\xff\0x", 3);
		(void)fclose(in);
	}
	fake_free(&f);
	place_leave(&p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_submit_says_everything),
		cmocka_unit_test(test_the_tunnel_comes_from_a_file_or_there_is_none),
		cmocka_unit_test(test_submit_wait_shows_output_and_exits_as_the_job),
		cmocka_unit_test(test_submit_wait_tells_a_state_once),
		cmocka_unit_test(test_submit_wait_in_json),
		cmocka_unit_test(test_wait_goes_on_over_a_restart),
		cmocka_unit_test(test_output_is_bytes_or_json_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
