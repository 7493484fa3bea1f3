/* SPDX-License-Identifier: ISC */
/* Limits on connections and on messages that are not whole: by hand, and through ZeroMQ. */
#undef _FORTIFY_SOURCE /* recv is to be recv, as for ZeroMQ, not __recv_chk */
#include "daemon_control_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "daemon/intake.h"

#define KIB  ((size_t)1024)
#define MORE 1
#define LONG 2
#define CMND 4

static const struct om_intake_conf wide = { .max_connections = 100,
					    .max_bytes = 1024 * KIB,
					    .max_message = 512 * KIB };

/* --- by hand ---------------------------------------------------------------------------------- */

static int listener = -1;
static struct sockaddr_in listens;

static int
hand_setup(void **state)
{
	socklen_t len = sizeof(listens);

	(void)state;
	listens = (struct sockaddr_in){ .sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	listener = socket(AF_INET, SOCK_STREAM, 0);
	return bind(listener, (struct sockaddr *)&listens, len) != 0 || listen(listener, 64) != 0 ||
	       getsockname(listener, (struct sockaddr *)&listens, &len) != 0;
}

static int
hand_teardown(void **state)
{
	(void)state;
	close(listener);
	return 0;
}

struct pair {
	int client, server; /* server -1: not accepted */
};

/* From 127.0.0.HOST. */
static struct pair
pair_new(unsigned host)
{
	struct sockaddr_in from = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(0x7f000000u + host) };
	struct pair p;

	p.client = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(p.client >= 0);
	assert_int_equal(bind(p.client, (struct sockaddr *)&from, sizeof(from)), 0);
	assert_int_equal(connect(p.client, (struct sockaddr *)&listens, sizeof(listens)), 0);
	p.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return p;
}

static void
pair_close(struct pair *p)
{
	if (p->server >= 0) {
		close(p->server);
	}
	close(p->client);
}

/* false: the connection was ended. */
static bool
pass(const struct pair *p, const void *data, size_t len)
{
	static char scrap[64 * 1024];
	const char *at = data;

	while (len > 0) {
		size_t some = len < sizeof(scrap) ? len : sizeof(scrap);

		assert_int_equal(send(p->client, at, some, MSG_NOSIGNAL), (ssize_t)some);
		at += some;
		len -= some;
		while (some > 0) {
			ssize_t got = recv(p->server, scrap, some, 0);

			if (got < 0) {
				assert_int_equal(errno, ECONNRESET);
				return false;
			}
			some -= (size_t)got;
		}
	}
	return true;
}

static bool
greet(const struct pair *p)
{
	char greeting[64] = { '\xff', 0, 0, 0, 0, 0, 0, 0, 0, '\x7f', 3 };

	return pass(p, greeting, sizeof(greeting));
}

/* The head of a frame and some of its bytes. */
static bool
frame(const struct pair *p, unsigned flags, size_t size, size_t sent)
{
	static const char zeros[512 * KIB];
	unsigned char head[9] = { (unsigned char)(flags | LONG) };

	for (unsigned i = 0; i < 8; i++) {
		head[8 - i] = (unsigned char)(size >> 8 * i);
	}
	return pass(p, head, sizeof(head)) && pass(p, zeros, sent);
}

static struct pair
plain_new(unsigned host)
{
	struct pair p = pair_new(host);

	assert_true(p.server >= 0);
	assert_true(greet(&p) && frame(&p, CMND, 30, 30));
	return p;
}

static size_t
bytes_now(void)
{
	struct om_intake_stats stats;

	om_intake_stats(&stats);
	return stats.bytes;
}

static void
test_a_message_has_few_parts(void **state)
{
	struct pair p;

	(void)state;
	assert_int_equal(om_intake_open(&wide), OM_OK);
	p = plain_new(1);
	for (int i = 0; i < 1000; i++) { /* whole messages, as many as they like */
		assert_true(frame(&p, MORE, 0, 0) && frame(&p, 0, 10, 10));
	}
	for (int i = 0; i < OM_INTAKE_PARTS_MAX; i++) {
		assert_true(frame(&p, MORE, 1, 1));
	}
	assert_false(frame(&p, MORE, 1, 1));
	pair_close(&p);
	/* A command between does not begin a message, and none goes on. */
	p = plain_new(1);
	for (int i = 0; i < OM_INTAKE_PARTS_MAX; i++) {
		assert_true(frame(&p, MORE, 1, 1) && frame(&p, CMND, 5, 5));
	}
	assert_false(frame(&p, MORE, 1, 1));
	pair_close(&p);
	p = plain_new(1);
	assert_false(frame(&p, CMND | MORE, 5, 5));
	pair_close(&p);
	/* All parts together are one message. */
	p = plain_new(1);
	assert_true(frame(&p, MORE, 500 * KIB, 500 * KIB));
	assert_false(frame(&p, 0, 20 * KIB, 0));
	pair_close(&p);
	assert_int_equal(bytes_now(), 0);
}

/* Messages of one short frame have no account of their own: the count of the others is the same. */
static void
test_short_frames_cut_anywhere(void **state)
{
	static const unsigned char some[] = { 0,   3,    'a', 'b',  'c', 0,    0,   MORE, 0,
					      0,   1,    'd', CMND, 2,   0,    0,   MORE, 1,
					      'e', 0,    1,   'f',  0,   2,    'g', 'h',  MORE,
					      0,   MORE, 0,   MORE, 0,   MORE, 0 };
	struct om_intake_conf narrow = wide;
	unsigned char most[103] = { 0, 100 };
	struct pair p;

	(void)state;
	assert_int_equal(om_intake_open(&wide), OM_OK);
	for (size_t cut = 0; cut <= sizeof(some); cut++) {
		p = plain_new(1);
		assert_true(pass(&p, some, cut));
		assert_true(pass(&p, some + cut, sizeof(some) - cut));
		assert_false(frame(&p, 0, 1, 1)); /* the fifth part of a message */
		pair_close(&p);
	}
	narrow.max_message = 100;
	assert_int_equal(om_intake_open(&narrow), OM_OK);
	p = plain_new(1);
	assert_true(pass(&p, most, 102));
	most[1] = 101;
	assert_false(pass(&p, most, 103));
	pair_close(&p);
	assert_int_equal(bytes_now(), 0);
}

static void
test_what_is_not_zmtp_3(void **state)
{
	static const struct {
		size_t len;
		unsigned char data[12];
	} none[] = {
		{ 3, "GET" },
		{ 2, { 1, 0 } }, /* ZMTP 1.0: a frame at once */
		{ 11, { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7e } },
		{ 11, { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1 } }, /* 2.0 */
	};
	struct pair p;

	(void)state;
	assert_int_equal(om_intake_open(&wide), OM_OK);
	for (size_t i = 0; i < OM_COUNT(none); i++) {
		p = pair_new(1);
		assert_false(pass(&p, none[i].data, none[i].len));
		pair_close(&p);
	}
	p = pair_new(1);
	assert_true(greet(&p));
	assert_false(frame(&p, CMND, OM_INTAKE_SMALL + 1, 0)); /* READY is small */
	pair_close(&p);
}

/* The greediest address gets half, whatever it sends; small messages always have room. */
static void
test_room_for_what_is_not_whole(void **state)
{
	struct pair a[3], b, c;

	(void)state;
	assert_int_equal(om_intake_open(&wide), OM_OK);
	for (int i = 0; i < 3; i++) {
		a[i] = plain_new(1);
	}
	b = plain_new(2);
	assert_true(frame(&a[0], 0, 300 * KIB, 100));
	assert_int_equal(bytes_now(), 300 * KIB);
	assert_true(frame(&a[1], 0, 200 * KIB, 0));
	assert_true(frame(&b, 0, 200 * KIB, 200 * KIB - 1));
	assert_int_equal(bytes_now(), 700 * KIB);
	assert_true(frame(&a[2], 0, OM_INTAKE_SMALL, 0));
	assert_int_equal(bytes_now(), 700 * KIB);
	c = plain_new(1);
	assert_false(frame(&c, 0, OM_INTAKE_SMALL + 1, 0));
	pair_close(&c);
	assert_true(pass(&b, "", 1)); /* the last byte */
	assert_int_equal(bytes_now(), 500 * KIB);
	assert_true(frame(&b, 0, 200 * KIB, 200 * KIB));
	pair_close(&a[0]); /* in the middle of it */
	assert_int_equal(bytes_now(), 200 * KIB);
	pair_close(&a[1]);
	pair_close(&a[2]);
	pair_close(&b);
	assert_int_equal(bytes_now(), 0);
}

static void
test_connections_have_a_limit(void **state)
{
	const struct om_intake_conf few = { .max_connections = 8,
					    .max_bytes = KIB,
					    .max_message = KIB };
	struct om_intake_stats before, after;
	struct pair p[10], other;

	(void)state;
	assert_int_equal(om_intake_open(&few), OM_OK);
	om_intake_stats(&before);
	for (int i = 0; i < 10; i++) {
		p[i] = pair_new(1);
		assert_true(i < 4 ? p[i].server >= 0 : p[i].server < 0 && errno == ECONNABORTED);
	}
	other = pair_new(2);
	assert_true(other.server >= 0);
	om_intake_stats(&after);
	assert_int_equal(after.refused - before.refused, 6);
	assert_int_equal(after.connections - before.connections, 5);
	for (int i = 0; i < 10; i++) {
		pair_close(&p[i]);
	}
	pair_close(&other);
	om_intake_stats(&after);
	assert_int_equal(after.connections, before.connections);
	p[0] = pair_new(1);
	assert_true(p[0].server >= 0);
	pair_close(&p[0]);
}

/* Inside CURVE nobody sees where a message ends, until it was read. */
static void
test_curve_counts_until_it_is_read(void **state)
{
	struct om_intake_conf curve = wide;
	struct pair p;
	size_t n;

	(void)state;
	curve.curve = true;
	assert_int_equal(om_intake_open(&curve), OM_OK);
	p = pair_new(1);
	assert_true(greet(&p) && frame(&p, CMND, 200, 200) && frame(&p, CMND, 300, 300));
	for (n = 0; n < 50; n++) { /* 10 MB in requests that are read */
		assert_true(frame(&p, 0, 200 * KIB, 200 * KIB));
		assert_true(bytes_now() >= 200 * KIB);
		om_intake_read(p.server);
		assert_int_equal(bytes_now(), 0);
	}
	for (n = 0; frame(&p, 0, 33, 33); n++) { /* parts without an end */
	}
	assert_in_range(n, 4000, 512 * KIB / 90);
	pair_close(&p);
	assert_int_equal(bytes_now(), 0);
	p = pair_new(1);
	assert_true(greet(&p) && frame(&p, CMND, 200, 200) && frame(&p, CMND, 300, 300));
	for (n = 0; n < 100000 && pass(&p, "\0\1x", 3); n++) { /* whole short ones */
	}
	assert_in_range(n, 4000, 1040 * KIB / 65);
	pair_close(&p);
	/* What is read does not make room for the frame that is under way. */
	p = pair_new(1);
	assert_true(greet(&p) && frame(&p, CMND, 200, 200) && frame(&p, CMND, 300, 300));
	assert_true(frame(&p, 0, 100, 100) && frame(&p, 0, 400 * KIB, 300 * KIB));
	om_intake_read(p.server);
	assert_int_equal(bytes_now(), 400 * KIB);
	pair_close(&p);
	p = pair_new(1);
	assert_true(greet(&p));
	assert_false(frame(&p, CMND, OM_INTAKE_SMALL + 1, 0)); /* before it is known who it is */
	pair_close(&p);
}

/* --- through ZeroMQ --------------------------------------------------------------------------- */

static int
wire_new(void)
{
	static const char hello[] = "\xff\0\0\0\0\0\0\0\0\x7f\3\0NULL";
	static const char ready[] = "\4\x1c\5READY\x0bSocket-Type\0\0\0\6DEALER";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char greeting[64] = "";
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", om_config_control_socket(rig.config));
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	memcpy(greeting, hello, sizeof(hello));
	assert_int_equal(send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL), 64);
	assert_int_equal(send(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL), sizeof(ready) - 1);
	return fd;
}

/* bug: a message whose last part never came grew without a limit in ZeroMQ's hands. */
static void
test_bug_endless_message(void **state)
{
	char parts[2 * 4096];
	size_t sent = 0;
	uint64_t cut;
	ssize_t n;
	int fd;

	(void)state;
	rig_up();
	cut = counter("limit_receiving"); /* of the whole process */
	for (size_t i = 0; i < sizeof(parts); i += 2) { /* empty, more */
		parts[i] = MORE;
		parts[i + 1] = 0;
	}
	fd = wire_new();
	do {
		n = send(fd, parts, sizeof(parts), MSG_NOSIGNAL);
		sent += n > 0 ? (size_t)n : 0;
	} while (n > 0 && sent < 64 * 1024 * KIB);
	assert_true(n < 0 && (errno == EPIPE || errno == ECONNRESET));
	close(fd);
	assert_int_equal(counter("limit_receiving"), cut + 1);
	still_serves();
}

/* bug: beginnings of large requests on many connections had no limit together. */
static void
test_bug_many_beginnings(void **state)
{
	static const unsigned char head[] = { LONG, 0, 0, 0, 0, 0, 0xf, 0, 0 }; /* 960 KiB */
	struct pollfd wires[8];
	unsigned ended = 0;
	char scrap[256];
	uint64_t cut;

	(void)state;
	rig_flag("control.max_frame", "1M");
	rig_flag("control.max_receiving", "4M");
	rig_up();
	cut = counter("limit_receiving");
	for (size_t i = 0; i < OM_COUNT(wires); i++) {
		wires[i] = (struct pollfd){ .fd = wire_new(), .events = POLLIN };
		assert_int_equal(send(wires[i].fd, head, sizeof(head), MSG_NOSIGNAL), sizeof(head));
	}
	while (counter("limit_receiving") < cut + 4) {
	}
	assert_int_equal(counter("receiving_bytes"), 4 * 960 * KIB);
	still_serves();
	while (ended < 4) {
		ended = 0;
		for (size_t i = 0; i < OM_COUNT(wires); i++) {
			while (recv(wires[i].fd, scrap, sizeof(scrap), MSG_DONTWAIT) > 0) {
			}
			ended += recv(wires[i].fd, scrap, 1, MSG_DONTWAIT) == 0 || errno != EAGAIN;
		}
	}
	for (size_t i = 0; i < OM_COUNT(wires); i++) {
		close(wires[i].fd);
	}
	while (counter("receiving_bytes") > 0) {
	}
	still_serves();
}

/* A client by CURVE may send as much as it likes in requests that are whole. */
static void
test_curve_requests_are_read(void **state)
{
	char pub[41], secret[41], server[41], server_secret[41], port[8], url[64], line[128];
	char *big = calloc(1, 600 * KIB);
	struct om_why why = { "" };
	struct reply r;
	uint64_t cut;
	void *sock;

	(void)state;
	assert_non_null(big);
	assert_int_equal(zmq_curve_keypair(pub, secret), 0);
	snprintf(line, sizeof(line), "%s alice\n", pub);
	rig_put("peers", line, 0600);
	hand_setup(NULL); /* a port that is free */
	snprintf(port, sizeof(port), "%u", ntohs(listens.sin_port));
	hand_teardown(NULL);
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%s", port);
	snprintf(line, sizeof(line), "%s", rig_path("peers"));
	rig.flags[2].value = "auto"; /* control.tcp */
	rig_flag("control.port", port);
	rig_flag("control.authorized_peers", line);
	rig_flag("control.max_frame", "1M");
	rig_flag("control.max_receiving", "1M");
	rig_up();
	assert_int_equal(
	    om_auth_server_key(om_config_server_key(rig.config), server, server_secret, &why),
	    OM_OK);
	cut = counter("limit_receiving");
	sock = zmq_socket(rig.zmq, ZMQ_DEALER);
	rig.open++;
	zmq_setsockopt(sock, ZMQ_LINGER, &(int){ 0 }, sizeof(int));
	zmq_setsockopt(sock, ZMQ_RCVTIMEO, &(int){ RIG_WAIT_MS }, sizeof(int));
	zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, server, 41);
	zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, pub, 41);
	zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, secret, 41);
	assert_int_equal(zmq_connect(sock, url), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(zmq_send(sock, big, 600 * KIB, 0), (int)(600 * KIB));
		assert_true(reply_recv(sock, &r));
		assert_memory_equal(r.text, "invalid: ", 9);
		reply_fini(&r);
	}
	assert_int_equal(counter("limit_receiving"), cut);
	assert_int_equal(counter("receiving_bytes"), 0);
	client_close(sock);
	free(big);
}

#define HAND(fn) cmocka_unit_test_setup_teardown(fn, hand_setup, hand_teardown)
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		HAND(test_a_message_has_few_parts),  HAND(test_short_frames_cut_anywhere),
		HAND(test_what_is_not_zmtp_3),       HAND(test_room_for_what_is_not_whole),
		HAND(test_connections_have_a_limit), HAND(test_curve_counts_until_it_is_read),
		TEST(test_bug_endless_message),      TEST(test_bug_many_beginnings),
		TEST(test_curve_requests_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
