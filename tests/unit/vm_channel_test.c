/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mp.h"
#include "vm/guest_channel.h"

/* --- the other end, by hand --------------------------------------------------------------------- */

static void
frame_begin(struct om_buf *b, size_t *at, unsigned type, size_t elements)
{
	*at = b->len;
	om_buf_add(b, "\0\0\0\0", 4);
	om_mp_put_array(b, elements);
	om_mp_put_u64(b, type);
}

static void
frame_end(struct om_buf *b, size_t at)
{
	size_t len = b->len - at - 4;

	b->data[at] = (uint8_t)(len >> 24);
	b->data[at + 1] = (uint8_t)(len >> 16);
	b->data[at + 2] = (uint8_t)(len >> 8);
	b->data[at + 3] = (uint8_t)len;
}

static void
put_plain(struct om_buf *b, unsigned type)
{
	size_t at;

	frame_begin(b, &at, type, 1);
	frame_end(b, at);
}

static void
put_hello(struct om_buf *b)
{
	size_t at;

	frame_begin(b, &at, OM_GUEST_HELLO, 6);
	om_mp_put_u64(b, OM_GUEST_VERSION);
	om_mp_put_u64(b, 1234);
	om_mp_put_u64(b, 250000);
	om_mp_put_cstr(b, "6.1.0-test");
	om_mp_put_array(b, 2);
	om_mp_put_cstr(b, "python");
	om_mp_put_cstr(b, "sh");
	frame_end(b, at);
}

static void
put_output(struct om_buf *b, unsigned stream, const void *data, size_t len)
{
	size_t at;

	frame_begin(b, &at, OM_GUEST_OUTPUT, 3);
	om_mp_put_u64(b, stream);
	om_mp_put_bin(b, (struct om_bin){ data, len });
	frame_end(b, at);
}

static void
put_exit(struct om_buf *b, int64_t code, uint64_t sig, uint64_t dropped)
{
	size_t at;

	frame_begin(b, &at, OM_GUEST_EXIT, 11);
	om_mp_put_i64(b, code);
	om_mp_put_u64(b, sig);
	om_mp_put_u64(b, 5000);
	om_mp_put_u64(b, 9000);
	om_mp_put_u64(b, 12000);
	om_mp_put_u64(b, dropped);
	om_mp_put_u64(b, 0);
	om_mp_put_u64(b, 0);
	om_mp_put_u64(b, 0);
	om_mp_put_bool(b, false);
	frame_end(b, at);
}

static void
put_file(struct om_buf *b, uint64_t index, uint64_t size, const char *error)
{
	size_t at;

	frame_begin(b, &at, OM_GUEST_FILE, 5);
	om_mp_put_u64(b, index);
	om_mp_put_u64(b, 0644);
	om_mp_put_u64(b, size);
	om_mp_put_cstr(b, error);
	frame_end(b, at);
}

static void
put_file_data(struct om_buf *b, const void *data, size_t len)
{
	size_t at;

	frame_begin(b, &at, OM_GUEST_FILE_DATA, 2);
	om_mp_put_bin(b, (struct om_bin){ data, len });
	frame_end(b, at);
}

static void
put_credit(struct om_buf *b, uint64_t n)
{
	size_t at;

	frame_begin(b, &at, OM_GUEST_CREDIT, 2);
	om_mp_put_u64(b, n);
	frame_end(b, at);
}

static void
feed(struct om_guest_channel *ch, struct om_buf *b)
{
	assert_false(b->failed);
	assert_int_equal(om_guest_channel_feed(ch, b->data, b->len), OM_OK);
	om_buf_reset(b);
}

static struct om_guest_event
expect(struct om_guest_channel *ch, enum om_guest_event_kind kind)
{
	struct om_guest_event ev;

	assert_true(om_guest_channel_next(ch, &ev));
	assert_int_equal(ev.kind, kind);
	return ev;
}

static void
expect_none(struct om_guest_channel *ch)
{
	struct om_guest_event ev;

	assert_false(om_guest_channel_next(ch, &ev));
}

/* Takes all that the channel wants to write, `step` bytes at a time. */
static void
drain(struct om_guest_channel *ch, struct om_buf *to, size_t step)
{
	struct om_bin out;

	while (om_guest_channel_output(ch, &out)) {
		size_t n = step != 0 && step < out.len ? step : out.len;

		om_buf_add(to, out.ptr, n);
		om_guest_channel_sent(ch, n);
	}
}

/* The type of the next frame of `bytes`, cursor behind it in *mp; 0 at the end. */
static unsigned
next_frame(struct om_buf *bytes, size_t *at, struct om_mp *mp)
{
	size_t len, elements;
	uint64_t type;

	if (*at == bytes->len) {
		return 0;
	}
	assert_true(bytes->len - *at > 4);
	len = (size_t)bytes->data[*at + 1] << 16 | (size_t)bytes->data[*at + 2] << 8 |
	      bytes->data[*at + 3];
	assert_true(len <= OM_GUEST_FRAME_MAX && bytes->len - *at - 4 >= len);
	om_mp_init(mp, bytes->data + *at + 4, len);
	*at += 4 + len;
	assert_int_equal(om_mp_array(mp, &elements), OM_OK);
	assert_int_equal(om_mp_u64(mp, &type), OM_OK);
	return (unsigned)type;
}

static const struct om_guest_job plain_job = { .interpreter = { "sh", 2 },
					       .script = { (const uint8_t *)"echo", 4 } };

/* A channel whose job has been started and is told as running. */
static struct om_guest_channel *
running(const struct om_guest_job *job)
{
	struct om_guest_channel *ch = om_guest_channel_new();
	struct om_buf b = { 0 }, sent = { 0 };

	put_hello(&b);
	feed(ch, &b);
	expect(ch, OM_GUEST_EV_HELLO);
	assert_int_equal(om_guest_channel_start(ch, job, NULL), OM_OK);
	drain(ch, &sent, 0);
	put_plain(&b, OM_GUEST_STARTED);
	feed(ch, &b);
	expect(ch, OM_GUEST_EV_STARTED);
	om_buf_fini(&b);
	om_buf_fini(&sent);
	return ch;
}

/* --- tests ---------------------------------------------------------------------------------------- */

static void
test_whole_job_byte_by_byte(void **state)
{
	struct om_guest_channel *ch = om_guest_channel_new();
	const struct om_str out_names[] = { OM_STR("a"), OM_STR("b") };
	struct om_guest_job job = plain_job;
	struct om_guest_event ev;
	struct om_buf b = { 0 };
	unsigned seen = 0;

	(void)state;
	job.files_out = out_names;
	job.file_out_count = 2;
	put_hello(&b);
	feed(ch, &b);
	ev = expect(ch, OM_GUEST_EV_HELLO);
	assert_int_equal(ev.hello.boot_ms, 1234);
	assert_int_equal(ev.hello.lang_count, 2);
	assert_true(om_str_is(ev.hello.langs[1], "sh"));
	assert_int_equal(om_guest_channel_start(ch, &job, NULL), OM_OK);
	drain(ch, &b, 7);
	om_buf_reset(&b);

	put_plain(&b, OM_GUEST_STARTED);
	put_output(&b, 1, "out", 3);
	put_output(&b, 2, "error", 5);
	put_exit(&b, 3, 0, 17);
	put_file(&b, 0, 4, "");
	put_file_data(&b, "da", 2);
	put_file_data(&b, "ta", 2);
	put_file(&b, 1, 0, "no such file");
	put_plain(&b, OM_GUEST_DONE);
	for (size_t i = 0; i < b.len; i++) {
		assert_int_equal(om_guest_channel_feed(ch, b.data + i, 1), OM_OK);
		while (om_guest_channel_next(ch, &ev)) {
			seen++;
			switch (seen) {
			case 1:
				assert_int_equal(ev.kind, OM_GUEST_EV_STARTED);
				break;
			case 2:
				assert_int_equal(ev.output.stream, 1);
				assert_memory_equal(ev.output.data.ptr, "out", 3);
				break;
			case 3:
				assert_int_equal(ev.output.stream, 2);
				assert_int_equal(ev.output.data.len, 5);
				break;
			case 4:
				assert_int_equal(ev.exit.exit_code, 3);
				assert_int_equal(ev.exit.dropped_out, 17);
				assert_int_equal(ev.exit.peak_kib, 9000);
				break;
			case 5:
				assert_int_equal(ev.file.index, 0);
				assert_int_equal(ev.file.data.len, 4);
				assert_memory_equal(ev.file.data.ptr, "data", 4);
				break;
			case 6:
				assert_int_equal(ev.file.index, 1);
				assert_true(om_str_is(ev.file.error, "no such file"));
				break;
			default:
				assert_int_equal(ev.kind, OM_GUEST_EV_DONE);
			}
		}
	}
	assert_int_equal(seen, 7);
	om_buf_fini(&b);
	om_guest_channel_free(ch);
}

/* The frames of a job: order, chunking, stdin held to its window. */
static void
test_what_is_written(void **state)
{
	static uint8_t big[3 * OM_GUEST_CHUNK_MAX / 2];
	static uint8_t input[OM_GUEST_STDIN_WINDOW + 1000];
	const struct om_guest_file_in in[] = { { OM_STR("f"), 0640, { big, sizeof(big) } } };
	const unsigned want[] = { OM_GUEST_SETUP, OM_GUEST_PUT,  OM_GUEST_DATA,  OM_GUEST_PUT,
				  OM_GUEST_DATA,  OM_GUEST_DATA, OM_GUEST_START, OM_GUEST_STDIN };
	struct om_guest_channel *ch = om_guest_channel_new();
	struct om_guest_job job = plain_job;
	struct om_buf b = { 0 }, sent = { 0 };
	struct om_bin data;
	struct om_mp mp;
	size_t at = 0;

	(void)state;
	job.files_in = in;
	job.file_in_count = 1;
	job.stdin_data = (struct om_bin){ input, sizeof(input) };
	assert_int_equal(om_guest_channel_start(ch, &job, NULL), OM_ERR_STATE);
	put_hello(&b);
	feed(ch, &b);
	expect(ch, OM_GUEST_EV_HELLO);
	assert_int_equal(om_guest_channel_start(ch, &job, NULL), OM_OK);
	drain(ch, &sent, 1000);
	for (size_t i = 0; i < OM_COUNT(want); i++) {
		assert_int_equal(next_frame(&sent, &at, &mp), want[i]);
	}
	assert_int_equal(om_mp_bin(&mp, &data), OM_OK);
	assert_int_equal(data.len, OM_GUEST_STDIN_WINDOW);
	assert_int_equal(next_frame(&sent, &at, &mp), 0);

	/* No credit, no stdin; then the rest and the end of file. */
	put_plain(&b, OM_GUEST_STARTED);
	put_credit(&b, 4000);
	feed(ch, &b);
	expect(ch, OM_GUEST_EV_STARTED);
	expect_none(ch);
	om_buf_reset(&sent);
	at = 0;
	drain(ch, &sent, 0);
	assert_int_equal(next_frame(&sent, &at, &mp), OM_GUEST_STDIN);
	assert_int_equal(om_mp_bin(&mp, &data), OM_OK);
	assert_int_equal(data.len, 1000);
	assert_int_equal(next_frame(&sent, &at, &mp), OM_GUEST_STDIN);
	assert_int_equal(om_mp_bin(&mp, &data), OM_OK);
	assert_int_equal(data.len, 0);
	assert_int_equal(next_frame(&sent, &at, &mp), 0);
	om_buf_fini(&b);
	om_buf_fini(&sent);
	om_guest_channel_free(ch);
}

static void
test_output_limit_is_the_hosts(void **state)
{
	struct om_guest_job job = plain_job;
	struct om_guest_channel *ch;
	struct om_guest_event ev;
	struct om_buf b = { 0 };

	(void)state;
	job.output_max = 10;
	ch = running(&job);
	put_output(&b, 1, "12345678", 8);
	put_output(&b, 2, "12345678", 8);
	put_output(&b, 1, "1", 1);
	put_exit(&b, 0, 0, 100);
	feed(ch, &b);
	ev = expect(ch, OM_GUEST_EV_OUTPUT);
	assert_int_equal(ev.output.data.len, 8);
	ev = expect(ch, OM_GUEST_EV_OUTPUT);
	assert_int_equal(ev.output.data.len, 2);
	ev = expect(ch, OM_GUEST_EV_EXITED);
	assert_int_equal(ev.exit.dropped_out, 101);
	assert_int_equal(ev.exit.dropped_err, 6);
	assert_int_equal(om_guest_channel_output_bytes(ch), 10);
	assert_int_equal(om_guest_channel_dropped_bytes(ch), 7);
	om_buf_fini(&b);
	om_guest_channel_free(ch);
}

/* Each of these ends in BROKEN, and nothing comes after it. */
static void
expect_broken(struct om_guest_channel *ch, struct om_buf *b)
{
	struct om_guest_event ev;

	feed(ch, b);
	ev = expect(ch, OM_GUEST_EV_BROKEN);
	assert_int_equal(ev.failed.err, OM_ERR_GUEST);
	put_plain(b, OM_GUEST_DONE);
	feed(ch, b);
	expect_none(ch);
	om_buf_fini(b);
	om_guest_channel_free(ch);
}

static void
test_violations(void **state)
{
	const struct om_str out_names[] = { OM_STR("a") };
	struct om_guest_job job = plain_job;
	struct om_buf b = { 0 };

	(void)state;
	om_buf_add(&b, "\0\0\0\0", 4); /* an empty frame */
	expect_broken(om_guest_channel_new(), &b);
	om_buf_add(&b, "\0\x10\0\0", 4); /* a frame over its limit */
	expect_broken(om_guest_channel_new(), &b);
	om_buf_add(&b, "\0\0\0\x05\xdd\xff\xff\xff\xff", 9); /* a count that is not there */
	expect_broken(om_guest_channel_new(), &b);
	put_plain(&b, OM_GUEST_STARTED); /* before hello */
	expect_broken(om_guest_channel_new(), &b);
	put_plain(&b, OM_GUEST_PUT); /* a command of the host */
	expect_broken(om_guest_channel_new(), &b);
	put_output(&b, 3, "x", 1); /* no such stream */
	expect_broken(running(&plain_job), &b);
	put_output(&b, 1, "", 0);
	expect_broken(running(&plain_job), &b);
	put_exit(&b, 256, 0, 0);
	expect_broken(running(&plain_job), &b);
	put_exit(&b, 0, 9, 0); /* a status and a signal */
	expect_broken(running(&plain_job), &b);
	put_exit(&b, 0, 0, UINT64_MAX);
	expect_broken(running(&plain_job), &b);
	put_exit(&b, 0, 0, 0); /* done without the file that was asked for */
	put_plain(&b, OM_GUEST_DONE);
	job.files_out = out_names;
	job.file_out_count = 1;
	{
		struct om_guest_channel *ch = running(&job);

		feed(ch, &b);
		expect(ch, OM_GUEST_EV_EXITED);
		expect_broken(ch, &b);
	}
}

static void
test_file_violations(void **state)
{
	const struct om_str out_names[] = { OM_STR("a"), OM_STR("b") };
	struct om_guest_job job = plain_job;

	(void)state;
	job.files_out = out_names;
	job.file_out_count = 2;
	job.files_out_max = 100;
	for (int i = 0; i < 5; i++) {
		struct om_guest_channel *ch = running(&job);
		struct om_buf b = { 0 };

		put_exit(&b, 0, 0, 0);
		feed(ch, &b);
		expect(ch, OM_GUEST_EV_EXITED);
		switch (i) {
		case 0:
			put_file(&b, 1, 0, ""); /* out of order */
			break;
		case 1:
			put_file(&b, 0, 101, ""); /* over the limit */
			break;
		case 2:
			put_file(&b, 0, 2, "");
			put_file_data(&b, "xyz", 3); /* more than announced */
			break;
		case 3:
			put_file(&b, 0, 2, "");
			put_file(&b, 1, 2, ""); /* the first is not complete */
			break;
		default:
			put_file_data(&b, "x", 1); /* of no file */
		}
		expect_broken(ch, &b);
	}
}

static void
test_stdin_credit_cannot_be_invented(void **state)
{
	struct om_buf b = { 0 };

	(void)state;
	put_credit(&b, 1); /* nothing is under way */
	expect_broken(running(&plain_job), &b);
}

static void
test_agent_failure_is_told(void **state)
{
	struct om_guest_channel *ch = om_guest_channel_new();
	struct om_guest_event ev;
	struct om_buf b = { 0 };
	size_t at;

	(void)state;
	put_hello(&b);
	feed(ch, &b);
	expect(ch, OM_GUEST_EV_HELLO);
	assert_int_equal(om_guest_channel_start(ch, &plain_job, NULL), OM_OK);
	frame_begin(&b, &at, OM_GUEST_FAILED, 3);
	om_mp_put_cstr(&b, "unsupported");
	om_mp_put_cstr(&b, "no interpreter");
	frame_end(&b, at);
	feed(ch, &b);
	ev = expect(ch, OM_GUEST_EV_FAILED);
	assert_int_equal(ev.failed.err, OM_ERR_UNSUPPORTED);
	assert_true(om_str_is(ev.failed.text, "no interpreter"));
	om_buf_fini(&b);
	om_guest_channel_free(ch);
}

static void
test_prime_net_and_order(void **state)
{
	const struct om_guest_net net = { "10.200.1.2/30", "10.200.1.1", 1420, { "10.99.0.1" } };
	struct om_guest_channel *ch = om_guest_channel_new();
	struct om_buf b = { 0 }, sent = { 0 };
	struct om_mp mp;
	size_t at = 0;

	(void)state;
	assert_int_equal(om_guest_channel_prime(ch), OM_ERR_STATE);
	assert_int_equal(om_guest_channel_net(ch, &net, NULL), OM_ERR_STATE);
	put_hello(&b);
	feed(ch, &b);
	expect(ch, OM_GUEST_EV_HELLO);
	assert_int_equal(om_guest_channel_prime(ch), OM_OK);
	assert_int_equal(om_guest_channel_net(ch, &net, NULL), OM_OK);
	drain(ch, &sent, 3);
	assert_int_equal(next_frame(&sent, &at, &mp), OM_GUEST_SETUP);
	assert_int_equal(next_frame(&sent, &at, &mp), OM_GUEST_PRIME);
	assert_int_equal(next_frame(&sent, &at, &mp), OM_GUEST_NET);
	put_plain(&b, OM_GUEST_NET_UP);
	put_plain(&b, OM_GUEST_PRIMED);
	feed(ch, &b);
	expect(ch, OM_GUEST_EV_NET_UP);
	expect(ch, OM_GUEST_EV_PRIMED);
	put_plain(&b, OM_GUEST_PRIMED); /* once more */
	om_buf_fini(&sent);
	expect_broken(ch, &b);
}

static void
test_job_check(void **state)
{
	static const struct {
		const char *path;
		bool ok;
	} paths[] = { { "a", true },     { "a/b.c", true },   { "..x", true }, { "/a", false },
		      { "", false },     { "a/../b", false }, { "..", false }, { "./a", false },
		      { "a//b", false }, { "a/", false } };
	struct om_guest_job job = plain_job;
	struct om_guest_env env = { OM_STR("A"), OM_STR("b") };
	static char long_text[OM_GUEST_ARGV_MAX];
	struct om_str arg = { long_text, sizeof(long_text) };
	struct om_str path;
	struct om_why why;

	(void)state;
	assert_int_equal(om_guest_job_check(&job, &why), OM_OK);
	job.files_out = &path;
	job.file_out_count = 1;
	for (size_t i = 0; i < OM_COUNT(paths); i++) {
		path = om_str_of(paths[i].path);
		assert_int_equal(om_guest_job_check(&job, &why) == OM_OK, paths[i].ok);
	}
	job = plain_job;
	job.env = &env;
	job.env_count = 1;
	assert_int_equal(om_guest_job_check(&job, &why), OM_OK);
	env.name = OM_STR("1A");
	assert_int_equal(om_guest_job_check(&job, &why), OM_ERR_INVALID);
	env.name = OM_STR("A=B");
	assert_int_equal(om_guest_job_check(&job, &why), OM_ERR_INVALID);
	memset(long_text, 'x', sizeof(long_text));
	job = plain_job;
	job.args = &arg;
	job.arg_count = 1;
	assert_int_equal(om_guest_job_check(&job, &why), OM_ERR_TOO_BIG);
	arg.len = 5;
	assert_int_equal(om_guest_job_check(&job, &why), OM_OK);
	long_text[3] = 0;
	assert_int_equal(om_guest_job_check(&job, &why), OM_ERR_INVALID);
	job = plain_job;
	job.interpreter = OM_STR("/bin/sh");
	assert_int_equal(om_guest_job_check(&job, &why), OM_ERR_INVALID);
}

/* The caller must take events between feeds: what it holds is bounded. */
static void
test_feed_is_bounded(void **state)
{
	static uint8_t bytes[OM_GUEST_FRAME_MAX];
	struct om_guest_channel *ch = om_guest_channel_new();
	enum om_err err = OM_OK;

	(void)state;
	for (int i = 0; i < 4 && err == OM_OK; i++) {
		err = om_guest_channel_feed(ch, bytes, sizeof(bytes));
	}
	assert_int_equal(err, OM_ERR_TOO_BIG);
	om_guest_channel_free(ch);
	om_guest_channel_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_job_byte_by_byte),
		cmocka_unit_test(test_what_is_written),
		cmocka_unit_test(test_output_limit_is_the_hosts),
		cmocka_unit_test(test_violations),
		cmocka_unit_test(test_file_violations),
		cmocka_unit_test(test_stdin_credit_cannot_be_invented),
		cmocka_unit_test(test_agent_failure_is_told),
		cmocka_unit_test(test_prime_net_and_order),
		cmocka_unit_test(test_job_check),
		cmocka_unit_test(test_feed_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
