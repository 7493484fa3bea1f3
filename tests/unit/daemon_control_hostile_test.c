/* SPDX-License-Identifier: ISC */
/* The control endpoint and clients that mean no good, or cannot do better. */
#include "daemon_control_rig.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "daemon/endpoint.h"

/*
 * One bad frame, exactly one error, and a request beside it that is served.  (What another service
 * refuses may come after the ping, which control answers itself.)
 */
static void
bad_frame(void *sock, const void *data, size_t len, const char *want)
{
	const struct om_empty body = { 0 };
	unsigned errors = 0, oks = 0;
	struct reply r;

	assert_int_equal(zmq_send(sock, data, len, 0), (int)len);
	client_send(sock, OM_MSG_PING, 77, 0, &body);
	for (int i = 0; i < 2; i++) {
		assert_true(reply_recv(sock, &r));
		if (r.type == OM_MSG_ERROR) {
			errors++;
			if (strstr(r.text, want) == NULL) {
				fail_msg("wanted '%s', got '%s'", want, r.text);
			}
		} else {
			oks += r.type == OM_MSG_OK && r.id == 77;
		}
		reply_fini(&r);
	}
	if (errors != 1 || oks != 1) {
		fail_msg("%u errors, %u answers to %zu bytes, wanted '%s'", errors, oks, len, want);
	}
}

/* [version, type, id, deadline, body] with each part as it likes. */
static struct om_buf
envelope(uint64_t version, const char *type, uint64_t id, bool with_body)
{
	struct om_buf buf = { 0 };

	om_mp_put_array(&buf, with_body ? 5 : 4);
	om_mp_put_u64(&buf, version);
	om_mp_put_cstr(&buf, type);
	om_mp_put_u64(&buf, id);
	om_mp_put_u64(&buf, 0);
	if (with_body) {
		om_mp_put_map(&buf, 0);
	}
	return buf;
}

static void
test_bad_frames(void **state)
{
	static const uint8_t huge_array[] = { 0xdd, 0xff, 0xff, 0xff, 0xff };
	static const uint8_t nested[64] = { 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91,
					    0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91,
					    0x91, 0x91, 0x91, 0x91, 0x91, 0x91 };
	struct om_buf buf;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	bad_frame(sock, "x", 1, "invalid");
	bad_frame(sock, "GET / HTTP/1.1\r\n\r\n", 18, "invalid");
	bad_frame(sock, "", 0, "invalid: the request is empty");
	bad_frame(sock, huge_array, sizeof(huge_array), "invalid");
	bad_frame(sock, nested, sizeof(nested), "invalid");
	buf = envelope(9, "ping", 1, true);
	bad_frame(sock, buf.data, buf.len, "version");
	om_buf_fini(&buf);
	buf = envelope(1, "job.explode", 1, true);
	bad_frame(sock, buf.data, buf.len, "unknown_type");
	om_buf_fini(&buf);
	buf = envelope(1, "ping", 1, false);
	bad_frame(sock, buf.data, buf.len, "invalid");
	om_buf_fini(&buf);
	buf = envelope(1, "job.info", 1, true);
	bad_frame(sock, buf.data, buf.len, "job.info is an answer");
	om_buf_fini(&buf);
	buf = envelope(1, "ledger.move", 1, true);
	bad_frame(sock, buf.data, buf.len, "denied: ledger.move is not for uid:");
	om_buf_fini(&buf);
	buf = envelope(1, "job.submit", 1, true); /* required fields are missing */
	bad_frame(sock, buf.data, buf.len, "invalid");
	om_buf_fini(&buf);
	buf = envelope(1, "ping", 1, true);
	bad_frame(sock, buf.data, buf.len - 1, "invalid"); /* truncated */
	om_buf_add(&buf, "x", 1);
	bad_frame(sock, buf.data, buf.len, "invalid"); /* bytes behind it */
	om_buf_fini(&buf);
	buf = envelope(1, "ping", 1, true);
	buf.data[buf.len - 1] = 0x81; /* a map of one */
	om_mp_put_cstr(&buf, "colour");
	om_mp_put_u64(&buf, 1);
	bad_frame(sock, buf.data, buf.len, "unknown_field: ");
	om_buf_fini(&buf);
	client_close(sock);
	still_serves();
}

/* The error carries the request's id as soon as that can be read. */
static void
test_errors_carry_the_id(void **state)
{
	struct om_buf buf = envelope(1, "job.explode", 4711, true);
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	assert_int_equal(zmq_send(sock, buf.data, buf.len, 0), (int)buf.len);
	assert_true(reply_recv(sock, &r));
	assert_int_equal(r.id, 4711);
	reply_fini(&r);
	om_buf_fini(&buf);
	client_close(sock);
}

static void
test_too_many_parts(void **state)
{
	struct reply r;
	void *sock;

	(void)state;
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	zmq_send(sock, "a", 1, ZMQ_SNDMORE);
	zmq_send(sock, "b", 1, ZMQ_SNDMORE);
	zmq_send(sock, "c", 1, 0);
	assert_true(reply_recv(sock, &r));
	assert_non_null(strstr(r.text, "a request is one frame"));
	reply_fini(&r);
	client_close(sock);
	still_serves();
}

/* An id that can be chosen could be another's. */
static void
test_chosen_routing_id(void **state)
{
	const struct om_empty body = { 0 };
	struct reply r;
	void *sock = zmq_socket(rig.zmq, ZMQ_DEALER);
	int timeout = RIG_WAIT_MS, linger = 0;

	(void)state;
	rig.open++;
	rig_up();
	zmq_setsockopt(sock, ZMQ_ROUTING_ID, "me", 2);
	zmq_setsockopt(sock, ZMQ_RCVTIMEO, &timeout, sizeof(timeout));
	zmq_setsockopt(sock, ZMQ_LINGER, &linger, sizeof(linger));
	assert_int_equal(zmq_connect(sock, rig.socket), 0);
	client_send(sock, OM_MSG_PING, 1, 0, &body);
	assert_true(reply_recv(sock, &r));
	assert_non_null(strstr(r.text, "ZMQ_ROUTING_ID"));
	reply_fini(&r);
	client_close(sock);
}

/* Over the limit the connection is closed before the frame is read; others do not notice. */
static void
test_oversized_frame(void **state)
{
	const struct om_empty body = { 0 };
	size_t len = 2 * 1024 * 1024;
	int soon = 300;
	char *big = calloc(1, len);
	struct reply r;
	void *sock;

	(void)state;
	rig_flag("control.max_frame", "1M");
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	zmq_setsockopt(sock, ZMQ_RCVTIMEO, &soon, sizeof(soon));
	assert_non_null(big);
	assert_int_equal(zmq_send(sock, big, len, 0), (int)len);
	assert_false(reply_recv(sock, &r));
	/* The client's socket connects again by itself, and is served. */
	soon = RIG_WAIT_MS;
	zmq_setsockopt(sock, ZMQ_RCVTIMEO, &soon, sizeof(soon));
	client_send(sock, OM_MSG_PING, 2, 0, &body);
	assert_true(reply_recv(sock, &r));
	assert_int_equal(r.id, 2);
	reply_fini(&r);
	client_close(sock);
	free(big);
	still_serves();
}

/* Bytes that are not even ZMTP, and connections that say nothing at all. */
static void
test_no_zmtp(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fds[200];

	(void)state;
	rig_up();
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", om_config_control_socket(rig.config));
	for (size_t i = 0; i < OM_COUNT(fds); i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_true(fds[i] >= 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&addr, (socklen_t)sizeof(addr)),
				 0);
		if (i % 2 == 0) {
			assert_int_equal(send(fds[i], "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL),
					 18);
		}
	}
	still_serves();
	for (size_t i = 0; i < OM_COUNT(fds); i++) {
		close(fds[i]);
	}
	still_serves();
}

static void
test_limit_of_requests_in_flight(void **state)
{
	struct om_job_wait ref = { .job = OM_STR("x") };
	struct reply r;
	void *sock;

	(void)state;
	rig_flag("control.max_in_flight", "4");
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	for (uint64_t i = 1; i <= 6; i++) {
		client_send(sock, OM_MSG_JOB_WAIT, i, i <= 4 ? 600 : 0, &ref);
	}
	for (uint64_t i = 5; i <= 6; i++) {
		assert_true(reply_recv(sock, &r));
		assert_int_equal(r.id, i);
		assert_memory_equal(r.text, "limit: 4 requests", 17);
		reply_fini(&r);
	}
	still_serves(); /* others have limits of their own */
	for (int i = 0; i < 4; i++) {
		assert_true(reply_recv(sock, &r));
		assert_memory_equal(r.text, "timeout: ", 9);
		reply_fini(&r);
	}
	client_close(sock);
	assert_int_equal(counter("limit_clients"), 2);
}

static void
test_limit_of_clients(void **state)
{
	struct om_job_ref ref = { .job = OM_STR("x") };
	const struct om_empty body = { 0 };
	void *waiting[3], *sock;
	struct reply r;

	(void)state;
	rig_flag("control.max_clients", "4");
	rig_up();
	for (size_t i = 0; i < 3; i++) {
		waiting[i] = client_new(ZMQ_DEALER, rig.socket);
		client_send(waiting[i], OM_MSG_JOB_WAIT, 1, 60000, &ref);
	}
	while (counter("clients") < 4) {
	}
	sock = client_new(ZMQ_DEALER, rig.socket);
	client_send(sock, OM_MSG_JOB_WAIT, 1, 400, &ref);
	while (true) {
		void *extra = client_new(ZMQ_DEALER, rig.socket);

		client_send(extra, OM_MSG_PING, 9, 0, &body);
		assert_true(reply_recv(extra, &r));
		client_close(extra);
		if (r.type == OM_MSG_ERROR) {
			break; /* the fourth has arrived */
		}
		reply_fini(&r);
	}
	assert_memory_equal(r.text, "limit: 4 clients", 16);
	reply_fini(&r);
	assert_true(reply_recv(sock, &r)); /* timeout: there is room again */
	reply_fini(&r);
	still_serves();
	for (size_t i = 0; i < 3; i++) {
		client_close(waiting[i]);
	}
	client_close(sock);
}

/*
 * Asks and never reads: its answers are dropped by the limit, memory stays where it is, the others
 * are served all the while.  When it reads again it is told what happened, and served.
 */
static void
test_client_that_never_reads(void **state)
{
	struct om_output_query query = { .job = OM_STR("x") };
	const struct om_empty body = { 0 };
	int one = 1;
	uint64_t answers = 0, limits = 0;
	bool served = false;
	struct reply r;
	void *sock;

	(void)state;
	rig_flag("control.max_unread", "8M");
	rig_flag("control.max_in_flight", "10000");
	rig_up();
	sock = zmq_socket(rig.zmq, ZMQ_DEALER);
	rig.open++;
	zmq_setsockopt(sock, ZMQ_RCVHWM, &one, sizeof(one));
	zmq_setsockopt(sock, ZMQ_LINGER, &(int){ 0 }, sizeof(int));
	zmq_setsockopt(sock, ZMQ_RCVTIMEO, &(int){ RIG_WAIT_MS }, sizeof(int));
	assert_int_equal(zmq_connect(sock, rig.socket), 0);
	/* 300 answers of 200 kB: 60 MB, of which 8 may wait. */
	for (uint64_t i = 0; i < 300; i++) {
		client_send(sock, OM_MSG_JOB_OUTPUT, i, 0, &query);
	}
	while (counter("cut_off") == 0) {
	}
	still_serves();
	assert_true(counter("limit_unread") > 0);
	/* Now it reads. */
	client_send(sock, OM_MSG_PING, 1000000, 0, &body);
	client_send(sock, OM_MSG_PING, 1000001, 0, &body);
	while (!served) {
		assert_true(reply_recv(sock, &r));
		answers += r.type == OM_MSG_OUTPUT_DATA;
		limits += r.type == OM_MSG_ERROR;
		if (r.type == OM_MSG_OUTPUT_DATA && answers % 8 == 0) {
			client_send(sock, OM_MSG_PING, 1000002, 0, &body);
		}
		served = r.type == OM_MSG_OK;
		reply_fini(&r);
	}
	assert_true(answers < 300);
	assert_true(limits > 0);
	client_close(sock);
	still_serves();
}

/* Connects, asks, and is gone before the answer. */
static void
test_clients_that_vanish(void **state)
{
	struct om_job_ref ref = { .job = OM_STR("x") };

	(void)state;
	rig_up();
	for (int i = 0; i < 50; i++) {
		void *sock = client_new(ZMQ_DEALER, rig.socket);

		zmq_setsockopt(sock, ZMQ_LINGER, &(int){ 1000 }, sizeof(int));
		client_send(sock, OM_MSG_JOB_WAIT, 1, 20, &ref);
		client_close(sock);
	}
	while (counter("client_gone") == 0) {
	}
	while (counter("in_flight") > 1) {
	}
	still_serves();
}

static void
test_many_clients(void **state)
{
	const struct om_empty body = { 0 };
	static void *socks[1000];
	struct reply r;

	(void)state;
	rig_up();
	for (size_t i = 0; i < OM_COUNT(socks); i++) {
		socks[i] = client_new(ZMQ_DEALER, rig.socket);
		client_send(socks[i], OM_MSG_PING, i, 0, &body);
	}
	for (size_t i = 0; i < OM_COUNT(socks); i++) {
		assert_true(reply_recv(socks[i], &r));
		assert_int_equal(r.id, i);
		assert_int_equal(r.type, OM_MSG_OK);
		reply_fini(&r);
		client_close(socks[i]);
	}
}

/* --- tcp -------------------------------------------------------------------------------------- */

static unsigned
free_port(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	unsigned port;

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	port = ntohs(addr.sin_port);
	close(fd);
	return port;
}

/* server NULL: no CURVE. */
static void *
curve_client(const char *url, const char *server, const char *pub, const char *secret)
{
	void *sock = zmq_socket(rig.zmq, ZMQ_DEALER);
	int timeout = 700, linger = 0;

	rig.open++;
	zmq_setsockopt(sock, ZMQ_LINGER, &linger, sizeof(linger));
	zmq_setsockopt(sock, ZMQ_RCVTIMEO, &timeout, sizeof(timeout));
	if (server != NULL) {
		zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, server, 41);
		zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, pub, 41);
		zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, secret, 41);
	}
	assert_int_equal(zmq_connect(sock, url), 0);
	return sock;
}

static void
test_curve(void **state)
{
	char pub[41], secret[41], other_pub[41], other_secret[41], server[41], server_secret[41];
	char port[8], url[64], line[128], peers[160];
	struct om_job_submit job = { 0 };
	const struct om_empty empty = { 0 };
	struct om_why why = { "" };
	struct reply r;
	void *sock;

	(void)state;
	assert_int_equal(zmq_curve_keypair(pub, secret), 0);
	assert_int_equal(zmq_curve_keypair(other_pub, other_secret), 0);
	snprintf(line, sizeof(line), "%s alice network=home\n", pub);
	rig_put("peers", line, 0600);
	snprintf(port, sizeof(port), "%u", free_port());
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%s", port);
	rig.flags[2].value = "auto"; /* control.tcp: the file of peers turns it on */
	rig_flag("control.port", port);
	snprintf(peers, sizeof(peers), "%s", rig_path("peers"));
	rig_flag("control.authorized_peers", peers);
	rig_up();
	assert_int_equal(
	    om_auth_server_key(om_config_server_key(rig.config), server, server_secret, &why),
	    OM_OK);

	job.lang = OM_STR("sh");
	job.script = (struct om_bin){ (const uint8_t *)"true", 4 };
	OM_SET(&job, job_submit, on_behalf, OM_STR("bob"));
	sock = curve_client(url, server, pub, secret);
	client_send(sock, OM_MSG_JOB_SUBMIT, 1, 0, &job);
	assert_true(reply_recv(sock, &r));
	assert_non_null(memmem(r.body.ptr, r.body.len, "alice/home/requester", 20));
	reply_fini(&r);
	client_send(sock, OM_MSG_DAEMON_STOP, 2, 0, &empty);
	assert_true(reply_recv(sock, &r));
	assert_memory_equal(r.text, "denied: ", 8);
	reply_fini(&r);

	/* A key that nobody authorized, no key at all, the wrong server key: no answer, ever. */
	void *strangers[] = { curve_client(url, server, other_pub, other_secret),
			      curve_client(url, NULL, NULL, NULL),
			      curve_client(url, other_pub, pub, secret) };
	for (size_t i = 0; i < OM_COUNT(strangers); i++) {
		client_send(strangers[i], OM_MSG_PING, 1, 0, &empty);
	}
	for (size_t i = 0; i < OM_COUNT(strangers); i++) {
		assert_false(reply_recv(strangers[i], &r));
		client_close(strangers[i]);
	}
	assert_true(counter("keys_refused") > 0);

	/* Taken from the file, the key is worth nothing, also on the connection that is open. */
	rig_put("peers", "# nobody\n", 0600);
	{
		void *op = client_new(ZMQ_DEALER, rig.socket);

		call(op, OM_MSG_CONFIG_RELOAD, &empty, &r);
		assert_int_equal(r.type, OM_MSG_CONFIG_CHANGES);
		reply_fini(&r);
		client_close(op);
	}
	client_send(sock, OM_MSG_PING, 3, 0, &empty);
	assert_true(reply_recv(sock, &r));
	assert_memory_equal(r.text, "denied: ", 8);
	reply_fini(&r);
	client_close(sock);
	still_serves();
}

static void
test_insecure_tcp_is_nobody_special(void **state)
{
	struct om_job_submit job = { 0 };
	const struct om_empty empty = { 0 };
	char port[8], url[64];
	struct reply r;
	void *sock;

	(void)state;
	snprintf(port, sizeof(port), "%u", free_port());
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%s", port);
	rig.flags[2].value = "yes";
	rig_flag("control.port", port);
	rig_flag("control.tcp_insecure_loopback", "yes");
	rig_up();
	sock = client_new(ZMQ_DEALER, url);
	job.lang = OM_STR("sh");
	job.script = (struct om_bin){ (const uint8_t *)"true", 4 };
	call(sock, OM_MSG_JOB_SUBMIT, &job, &r);
	assert_non_null(memmem(r.body.ptr, r.body.len, "tcp//requester", 14));
	reply_fini(&r);
	call(sock, OM_MSG_CONFIG_SHOW, &empty, &r);
	assert_memory_equal(r.text, "denied: ", 8);
	reply_fini(&r);
	client_close(sock);
}

/* Without CURVE only on loopback; and never on an address that is none. */
static void
test_insecure_tcp_elsewhere_is_refused(void **state)
{
	const struct {
		const char *address;
		enum om_err want;
	} cases[] = { { "0.0.0.0", OM_ERR_DENIED },
		      { "192.0.2.1", OM_ERR_DENIED },
		      { "::", OM_ERR_DENIED },
		      { "localhost", OM_ERR_INVALID },
		      { "", OM_ERR_INVALID } };
	const struct om_endpoint_limits limits = { 1024, 16 };
	struct om_endpoint ep;
	struct om_why why;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		assert_int_equal(
		    om_endpoint_open_tcp(rig.zmq, cases[i].address, 5, NULL, &limits, &ep, &why),
		    cases[i].want);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bad_frames),
		TEST(test_errors_carry_the_id),
		TEST(test_too_many_parts),
		TEST(test_chosen_routing_id),
		TEST(test_oversized_frame),
		TEST(test_no_zmtp),
		TEST(test_limit_of_requests_in_flight),
		TEST(test_limit_of_clients),
		TEST(test_client_that_never_reads),
		TEST(test_clients_that_vanish),
		TEST(test_many_clients),
		TEST(test_curve),
		TEST(test_insecure_tcp_is_nobody_special),
		TEST(test_insecure_tcp_elsewhere_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
