/* SPDX-License-Identifier: ISC */
/* The client library against hostile answers; output, files, events, and the helpers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/mp.h"
#include "tests/unit/client_fake.h"

#define SOON_MS 5000 /* far below any time-out that could be mistaken for it */
#define LONG_MS 20000

/* --- a hostile daemon ------------------------------------------------------------------------------ */

/* Sends an envelope around `body`, which is raw msgpack, then nothing more. */
static void
send_raw_answer(struct fake_request *r, const char *type, const void *body, size_t len)
{
	struct om_buf buf = { 0 };

	om_mp_put_array(&buf, 5);
	om_mp_put_u64(&buf, 1);
	om_mp_put_cstr(&buf, type);
	om_mp_put_u64(&buf, r->envelope.id);
	om_mp_put_u64(&buf, 0);
	om_buf_add(&buf, body, len);
	fake_send(r, buf.data, buf.len);
	om_buf_fini(&buf);
}

struct hostile {
	const char *name;
	const char *type; /* NULL: `body` is the whole frame */
	const char *body;
	size_t len;
	const char *code; /* what the caller gets */
};

#define RAW(bytes) bytes, sizeof(bytes) - 1

static const struct hostile hostiles[] = {
	{ "a frame that is no msgpack", NULL, RAW("\xc1\xc1\xc1"), "timeout" },
	{ "an empty frame", NULL, RAW(""), "timeout" },
	{ "an answer to nobody", NULL, RAW("\x95\x01\xa2ok\xcd\x12\x34\x00\x80"), "timeout" },
	{ "another message", "job.accepted", RAW("\x82\xa3job\xa1x\xa5state\xa1y"), "protocol" },
	{ "a message that does not exist", "job.surprise", RAW("\x80"), "protocol" },
	{ "no required field", "job.info", RAW("\x81\xa3job\xa1x"), "protocol" },
	{ "a field of another type", "job.info", RAW("\x82\xa3job\x07\xa5state\xa1y"), "protocol" },
	{ "a body that is no map", "job.info", RAW("\x07"), "timeout|protocol" },
	{ "a huge declared map", "job.info", RAW("\xdf\xff\xff\xff\xff"), "protocol" },
	{ "a huge declared string", "job.info", RAW("\x82\xa3job\xdb\xff\xff\xff\xff"),
	  "protocol" },
	{ "a string that is not UTF-8", "job.info", RAW("\x82\xa3job\xa2\xff\xfe\xa5state\xa1y"),
	  "protocol" },
	{ "an id over its limit", "job.info",
	  RAW("\x82\xa5state\xa1y\xa3job\xd9\x48"
	      "012345670123456701234567012345670123456701234567012345670123456701234567"),
	  "protocol" },
	{ "an unknown field that is nested too deeply", "job.info",
	  RAW("\x83\xa3job\xa1x\xa5state\xa1y\xa1z"
	      "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91"
	      "\xc0"),
	  "protocol" },
	{ "an unknown field that is cut off", "job.info",
	  RAW("\x83\xa3job\xa1x\xa5state\xa1y\xa1z\xc4\x09xx"), "protocol" },
	{ "bytes behind the body", "job.info", RAW("\x82\xa3job\xa1x\xa5state\xa1y\xc0"),
	  "protocol" },
	{ "an error without a code", "error", RAW("\x81\xa4text\xa1x"), "protocol" },
};

static void
be_hostile(struct fake *f, struct fake_request *r)
{
	const struct hostile *h = f->arg;

	if (r->envelope.type == OM_MSG_PING) {
		fake_ok(r);
	} else if (h->type == NULL) {
		fake_send(r, h->body, h->len);
	} else {
		send_raw_answer(r, h->type, h->body, h->len);
	}
}

static void
test_hostile_answers_are_refused_and_the_next_call_works(void **state)
{
	(void)state;
	for (size_t i = 0; i < OM_COUNT(hostiles); i++) {
		struct fake f;
		struct omerta *o;
		struct omerta_body *info = NULL;

		fake_new(&f, be_hostile, (void *)(uintptr_t)&hostiles[i]);
		o = fake_client(&f, 100);
		assert_int_equal(omerta_get(o, "x", &info), -1);
		assert_null(info);
		if (strstr(hostiles[i].code, omerta_error_code(o)) == NULL) {
			fail_msg("%s: %s: %s", hostiles[i].name, omerta_error_code(o),
				 omerta_error_text(o));
		}
		assert_int_equal(omerta_set_timeout(o, LONG_MS), 0);
		assert_int_equal(omerta_ping(o), 0);
		omerta_free(o);
		fake_free(&f);
	}
}

static void
be_newer(struct fake *f, struct fake_request *r)
{
	static const char row[] = "\x84\xa3job\xa1x\xa3new\x92\x01\x81\xa1q\xc0\xa5state\xa1y"
				  "\xa5"
				  "files\x91\xa2"
				  "f1";
	struct om_buf buf = { 0 };

	(void)f;
	om_mp_put_map(&buf, 2);
	om_mp_put_cstr(&buf, "later");
	om_mp_put_u64(&buf, 7);
	om_mp_put_cstr(&buf, "jobs");
	om_mp_put_array(&buf, 2);
	om_buf_add(&buf, row, sizeof(row) - 1);
	om_buf_add(&buf, row, sizeof(row) - 1);
	send_raw_answer(r, "job.table", buf.data, buf.len);
	om_buf_fini(&buf);
}

static void
test_fields_of_a_newer_daemon_are_left_out(void **state)
{
	struct fake f;
	struct omerta *o;
	struct omerta_body *table = NULL;

	(void)state;
	fake_new(&f, be_newer, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_list(o, NULL, &table), 0);
	assert_int_equal(omerta_count(table, "jobs"), 2);
	assert_string_equal(omerta_get_str(omerta_body_at(table, "jobs", 1), "state"), "y");
	assert_string_equal(omerta_str_at(omerta_body_at(table, "jobs", 1), "files", 0), "f1");
	assert_null(omerta_body_at(table, "jobs", 2));
	omerta_body_free(table);
	omerta_free(o);
	fake_free(&f);
}

/* --- output ---------------------------------------------------------------------------------------- */

static const char whole[] = "0123456789abcdefghijklmnopqrstuvwxyz";
#define WHOLE (sizeof(whole) - 1)

/* Seven bytes at a time; between two pieces nothing, as a job that thinks. */
static void
give_output(struct fake *f, struct fake_request *r)
{
	struct om_output_query m = { 0 };
	struct om_output_data answer = { 0 };
	bool wrong = f->arg != NULL;
	size_t n;

	fake_body(r, &m);
	if (atomic_load(&f->seen) % 3 == 2) {
		fake_error(r, OM_ERR_TIMEOUT, "nothing yet");
		return;
	}
	OM_ASSERT(m.offset <= WHOLE);
	n = WHOLE - m.offset < 7 ? (size_t)(WHOLE - m.offset) : 7;
	answer.data = (struct om_bin){ (const uint8_t *)whole + m.offset, n };
	answer.offset = m.offset + (wrong ? 1 : 0);
	answer.size = WHOLE;
	answer.end = m.offset + n == WHOLE;
	fake_answer(r, OM_MSG_OUTPUT_DATA, &answer);
}

struct sink {
	struct om_buf got;
	size_t stop_at;
};

static int
sink_take(void *arg, const void *data, size_t len)
{
	struct sink *s = arg;

	om_buf_add(&s->got, data, len);
	return s->stop_at != 0 && s->got.len >= s->stop_at ? 1 : 0;
}

static void
test_output_comes_in_pieces_and_resumes(void **state)
{
	struct fake f;
	struct omerta *o;
	struct sink sink = { .stop_at = 10 };
	uint64_t offset = 3;

	(void)state;
	fake_new(&f, give_output, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_output(o, "x", "stdout", true, &offset, sink_take, &sink), -1);
	assert_true(omerta_error_is(o, "cancelled"));
	assert_int_equal(sink.got.len, 14);
	assert_int_equal(offset, 10); /* the refused piece is asked for again */
	om_buf_reset(&sink.got);
	sink.stop_at = 0;
	assert_int_equal(omerta_output(o, "x", "stdout", true, &offset, sink_take, &sink), 0);
	assert_int_equal(offset, WHOLE);
	assert_int_equal(sink.got.len, WHOLE - 10);
	assert_memory_equal(sink.got.data, whole + 10, WHOLE - 10);
	om_buf_reset(&sink.got);
	assert_int_equal(omerta_file(o, "x", "f", NULL, sink_take, &sink), 0);
	assert_int_equal(sink.got.len, WHOLE);
	om_buf_fini(&sink.got);
	omerta_free(o);
	fake_free(&f);
}

static void
test_output_from_another_place_is_refused(void **state)
{
	struct fake f;
	struct omerta *o;
	struct sink sink = { .stop_at = 0 };

	(void)state;
	fake_new(&f, give_output, &f);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_output(o, "x", "stderr", false, NULL, sink_take, &sink), -1);
	assert_true(omerta_error_is(o, "protocol"));
	om_buf_fini(&sink.got);
	omerta_free(o);
	fake_free(&f);
}

/* --- the rest -------------------------------------------------------------------------------------- */

static void
test_files_are_read_into_a_job(void **state)
{
	struct omerta *o = omerta_new();
	struct omerta_body *job = omerta_body_new("job.submit");
	char path[] = "/tmp/omerta-test-file.XXXXXX";
	int fd = mkstemp(path);
	size_t len;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "a\0b", 3), 3);
	(void)close(fd);
	assert_int_equal(omerta_job_add_file(o, job, "data", path), 0);
	assert_string_equal(omerta_get_str(omerta_body_at(job, "files", 0), "name"), "data");
	assert_memory_equal(omerta_get_bin(omerta_body_at(job, "files", 0), "data", &len), "a\0b",
			    3);
	assert_int_equal(len, 3);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(omerta_job_add_file(o, job, "data", path), -1);
	assert_true(omerta_error_is(o, "not_found"));
	omerta_body_free(job);
	omerta_free(o);
}

static void
test_key_files(void **state)
{
	char path[64];
	struct om_client_keys made = { .set = false }, read = { .set = false };
	struct om_why why = { "" };

	(void)state;
	(void)snprintf(path, sizeof(path), "/tmp/omerta-test-key.%d", (int)getpid());
	(void)unlink(path);
	assert_int_equal(om_client_keys_make(path, &made, &why), OM_OK);
	assert_int_equal(om_client_keys_make(path, &made, &why), OM_ERR_EXISTS);
	assert_int_equal(om_client_keys_read(path, &read, &why), OM_OK);
	assert_int_equal(strlen(read.own_secret), 40);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(om_client_keys_read(path, &read, &why), OM_ERR_DENIED);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(om_client_keys_read(path, &read, &why), OM_ERR_NOT_FOUND);
}

static void
publish(void *pub, enum om_msg_type type, const void *body, bool topic)
{
	struct om_buf buf = { 0 };

	assert_int_equal(om_envelope_encode(type, 0, 0, body, &buf), OM_OK);
	if (topic) {
		assert_true(zmq_send(pub, "job", 3, ZMQ_SNDMORE) >= 0);
	}
	assert_true(zmq_send(pub, buf.data, buf.len, 0) >= 0);
	om_buf_fini(&buf);
}

static void
test_events_arrive_with_and_without_a_topic(void **state)
{
	void *zmq = zmq_ctx_new(), *pub = zmq_socket(zmq, ZMQ_XPUB);
	struct om_job_event m = { .job = OM_STR("7f"), .state = OM_STR("running"), .at_ms = 5 };
	struct om_empty empty = { 0 };
	char dir[] = "/tmp/omerta-test.XXXXXX", endpoint[64], subscription[4];
	struct omerta *o = omerta_new();
	struct omerta_events *events;
	struct omerta_body *event = NULL;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/e", dir);
	assert_null(omerta_events_new(o, endpoint));
	assert_true(omerta_error_is(o, "unreachable"));
	assert_int_equal(zmq_bind(pub, endpoint), 0);
	events = omerta_events_new(o, endpoint);
	assert_non_null(events);
	assert_true(zmq_recv(pub, subscription, sizeof(subscription), 0) >= 1); /* it is there */
	publish(pub, OM_MSG_OK, &empty, false); /* of no interest */
	publish(pub, OM_MSG_JOB_EVENT, &m, true);
	publish(pub, OM_MSG_JOB_EVENT, &m, false);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(omerta_events_next(events, SOON_MS, &event), 0);
		assert_string_equal(omerta_get_str(event, "state"), "running");
		omerta_body_free(event);
	}
	assert_int_equal(omerta_events_next(events, 0, &event), 1);
	assert_true(zmq_send(pub, "\xc1", 1, 0) >= 0);
	assert_int_equal(omerta_events_next(events, SOON_MS, &event), -1);
	assert_true(omerta_error_is(o, "protocol"));
	omerta_events_free(events);
	omerta_free(o);
	(void)zmq_close(pub);
	(void)zmq_ctx_term(zmq);
	(void)unlink(endpoint + 6);
	(void)rmdir(dir);
}

static void
count_three(struct fake *f, struct fake_request *r)
{
	struct om_count three = { .count = 3 };

	(void)f;
	if (om_msg_info(r->envelope.type)->answer == OM_MSG_COUNTED) {
		fake_answer(r, OM_MSG_COUNTED, &three);
	} else if (om_msg_info(r->envelope.type)->answer == OM_MSG_OK) {
		fake_ok(r);
	} else {
		fake_error(r, OM_ERR_DENIED, om_msg_info(r->envelope.type)->name);
	}
}

/* Each helper sends the message that its name says, with the fields in place. */
static void
test_helpers_send_their_message(void **state)
{
	const char *ids[] = { "a", "b" };
	struct omerta_body *answer = NULL;
	struct fake f;
	struct omerta *o;
	uint64_t n = 0;

	(void)state;
	fake_new(&f, count_three, NULL);
	o = fake_client(&f, LONG_MS);
	assert_int_equal(omerta_hold(o, ids, 2, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(omerta_release(o, ids, 2, NULL), 0);
	assert_int_equal(omerta_approve(o, ids, 2, "peer", &n), 0);
	assert_int_equal(omerta_deny(o, ids, 1, "no", &n), 0);
	assert_int_equal(omerta_cancel(o, "a", "why"), 0);
	assert_int_equal(omerta_queue_pause(o, NULL), 0);
	assert_int_equal(omerta_queue_drain(o, "why"), 0);
	assert_int_equal(omerta_queue_resume(o), 0);
	assert_int_equal(omerta_queue_limit(o, 4), 0);
	assert_int_equal(omerta_stop(o, true, 1000, "why"), 0);
	assert_int_equal(omerta_config_set(o, "queue.max_jobs", "2"), 0);
	assert_int_equal(omerta_config_unset(o, "queue.max_jobs"), 0);
	assert_int_equal(omerta_trust(o, "home"), 0);
	assert_int_equal(omerta_untrust(o, "home"), 0);
	assert_int_equal(omerta_trust_peer(o, "bob"), 0);
	assert_int_equal(omerta_untrust_peer(o, "bob"), 0);
	assert_int_equal(omerta_block(o, "bob"), 0);
	assert_int_equal(omerta_unblock(o, "bob"), 0);
	assert_int_equal(omerta_rule_remove(o, "r"), 0);
	assert_int_equal(omerta_rule_enable(o, "r", true), 0);
	assert_int_equal(omerta_rule_enable(o, "r", false), 0);
	assert_int_equal(omerta_filter_reset(o), 0);
	assert_int_equal(omerta_rules(o, &answer), -1);
	assert_string_equal(omerta_error_text(o), "rules.list");
	assert_int_equal(omerta_config_reload(o, &answer), -1);
	assert_string_equal(omerta_error_text(o), "config.reload");
	assert_int_equal(omerta_audit_verify(o, &answer), -1);
	assert_string_equal(omerta_error_text(o), "audit.verify");
	assert_int_equal(omerta_actors(o, &answer), -1);
	assert_string_equal(omerta_error_text(o), "daemon.actors");
	assert_int_equal(omerta_trace(o, "job_queue", true, &answer), -1);
	assert_string_equal(omerta_error_text(o), "daemon.trace");
	assert_int_equal(omerta_trusted(o, &answer), -1);
	assert_string_equal(omerta_error_text(o), "config.trusted");
	assert_int_equal(omerta_trusted_peers(o, &answer), -1);
	assert_string_equal(omerta_error_text(o), "config.trusted_peers");
	omerta_free(o);
	fake_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostile_answers_are_refused_and_the_next_call_works),
		cmocka_unit_test(test_fields_of_a_newer_daemon_are_left_out),
		cmocka_unit_test(test_output_comes_in_pieces_and_resumes),
		cmocka_unit_test(test_output_from_another_place_is_refused),
		cmocka_unit_test(test_files_are_read_into_a_job),
		cmocka_unit_test(test_key_files),
		cmocka_unit_test(test_events_arrive_with_and_without_a_topic),
		cmocka_unit_test(test_helpers_send_their_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
