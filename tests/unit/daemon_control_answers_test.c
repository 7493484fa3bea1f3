/* SPDX-License-Identifier: ISC */
/* Answers that leave together: their order, what is in flight meanwhile, and what counts as unread. */
#include "daemon_control_rig.h"

#define WINDOW 200u
#define SMALL  900u /* bytes of output: such an answer is copied */

static void
ask_output(void *sock, uint64_t id, uint64_t bytes)
{
	struct om_output_query query = { .job = OM_STR("x") };

	OM_SET(&query, output_query, limit, bytes);
	client_send(sock, OM_MSG_JOB_OUTPUT, id, 0, &query);
}

/*
 * A request that has its answer is in flight no more, although the answer leaves with those of the
 * requests behind it; and a refusal does not come before the answers to earlier requests.
 */
static void
test_a_window_of_pings(void **state)
{
	const struct om_empty body = { 0 };
	struct om_job_accepted none = { .job = OM_STR("x"), .state = OM_STR("x") };
	struct reply r;
	void *sock;

	(void)state;
	rig_flag("control.max_in_flight", "4");
	rig_up();
	for (int round = 0; round < 5; round++) {
		/* A new connection has them all to send when it is there: they come at once. */
		sock = client_new(ZMQ_DEALER, rig.socket);
		for (uint64_t id = 1; id <= WINDOW; id++) {
			if (id % 20 == 0) {
				client_send(sock, OM_MSG_JOB_ACCEPTED, id, 0, &none);
			} else {
				client_send(sock, OM_MSG_PING, id, 0, &body);
			}
		}
		for (uint64_t id = 1; id <= WINDOW; id++) {
			assert_true(reply_recv(sock, &r));
			assert_int_equal(r.id, id);
			assert_int_equal(r.type, id % 20 == 0 ? OM_MSG_ERROR : OM_MSG_OK);
			assert_null(strstr(r.text, "limit"));
			reply_fini(&r);
		}
		client_close(sock);
	}
	assert_int_equal(counter("limit_clients"), 0);
	assert_int_equal(counter("in_flight"), 1);
}

/* REQ and DEALER, small answers and large ones, of one service and of control, all at once. */
static void
test_answers_of_all_kinds(void **state)
{
	const struct om_empty body = { 0 };
	static const uint64_t bytes[] = { 0, 10, SMALL, 1024, 1025, 5000, RIG_BLOB };
	bool seen[WINDOW + 1] = { false };
	void *dealer[3], *req;
	struct reply r;

	(void)state;
	rig_up();
	for (size_t i = 0; i < OM_COUNT(dealer); i++) {
		dealer[i] = client_new(ZMQ_DEALER, rig.socket);
		for (uint64_t id = 1; id <= WINDOW; id++) {
			if (id % 3 == i) {
				client_send(dealer[i], OM_MSG_PING, id, 0, &body);
			} else {
				ask_output(dealer[i], id, bytes[id % OM_COUNT(bytes)]);
			}
		}
	}
	req = client_new(ZMQ_REQ, rig.socket);
	call(req, OM_MSG_PING, &body, &r);
	reply_fini(&r);
	ask_output(req, 1, SMALL);
	assert_true(reply_recv(req, &r));
	assert_int_equal(r.type, OM_MSG_OUTPUT_DATA);
	reply_fini(&r);
	client_close(req);
	for (size_t i = 0; i < OM_COUNT(dealer); i++) {
		memset(seen, 0, sizeof(seen));
		for (unsigned n = 0; n < WINDOW; n++) {
			assert_true(reply_recv(dealer[i], &r));
			assert_true(r.id >= 1 && r.id <= WINDOW && !seen[r.id]);
			seen[r.id] = true;
			if (r.id % 3 == i) {
				assert_int_equal(r.type, OM_MSG_OK);
			} else {
				const struct om_output_data *m =
				    reply_body(&r, OM_BODY_output_data);

				assert_int_equal(m->data.len, bytes[r.id % OM_COUNT(bytes)]);
			}
			reply_fini(&r);
		}
		client_close(dealer[i]);
	}
	assert_int_equal(counter("cut_off"), 0);
}

/* Many times the limit, but never so much at a time: all of it is given back. */
static void
test_small_answers_are_given_back(void **state)
{
	const uint64_t all = 6000;
	uint64_t sent = 0;
	struct reply r;
	void *sock;

	(void)state;
	rig_flag("control.max_unread", "1M");
	rig_up();
	sock = client_new(ZMQ_DEALER, rig.socket);
	for (uint64_t n = 0; n < all; n++) {
		while (sent < all && sent < n + WINDOW) {
			ask_output(sock, sent++, SMALL);
		}
		assert_true(reply_recv(sock, &r));
		assert_int_equal(r.type, OM_MSG_OUTPUT_DATA);
		reply_fini(&r);
	}
	client_close(sock);
	assert_int_equal(counter("cut_off"), 0);
	assert_int_equal(counter("limit_unread"), 0);
}

/* Each byte counts, not only those of the answer that carries the receipt. */
static void
test_small_answers_are_charged(void **state)
{
	const uint64_t all = 1100; /* with what is around their data just less than the limit */
	void *idle, *other;

	(void)state;
	rig_flag("control.max_unread", "1M");
	rig_flag("control.max_in_flight", "10000");
	rig_up();
	idle = zmq_socket(rig.zmq, ZMQ_DEALER);
	rig.open++;
	zmq_setsockopt(idle, ZMQ_RCVHWM, &(int){ 1 }, sizeof(int));
	zmq_setsockopt(idle, ZMQ_LINGER, &(int){ 0 }, sizeof(int));
	assert_int_equal(zmq_connect(idle, rig.socket), 0);
	for (uint64_t i = 0; i < all; i++) {
		ask_output(idle, i, SMALL);
	}
	while (counter("answers") < all) {
	}
	assert_int_equal(counter("limit_unread"), 0);
	/* The kernel holds at most a quarter of them, so half the limit is too much now. */
	other = client_new(ZMQ_DEALER, rig.socket);
	ask_output(other, 1, 512 * 1024);
	while (counter("limit_unread") == 0) {
		assert_int_equal(zmq_recv(other, NULL, 0, ZMQ_DONTWAIT), -1);
	}
	client_close(idle);
	client_close(other);
	still_serves();
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_window_of_pings),
		TEST(test_answers_of_all_kinds),
		TEST(test_small_answers_are_given_back),
		TEST(test_small_answers_are_charged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
