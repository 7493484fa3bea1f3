/* SPDX-License-Identifier: ISC */
/* What clients have outstanding, and the limits on it. */
#include "daemon/clients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const struct om_clients_conf small = {
	.max_clients = 3, .max_pending = 100, .max_in_flight = 2, .max_unread = 100
};

/* One byte from an operator: the shares of requesters have a test of their own. */
static enum om_err
visit(struct om_clients *c, unsigned endpoint, const char *route, const char *peer, size_t bytes,
      bool is_operator, struct om_client **out)
{
	const struct om_visit v = { .endpoint = endpoint,
				    .route = route,
				    .route_len = strlen(route),
				    .peer = peer,
				    .bytes = bytes,
				    .is_operator = is_operator };
	struct om_why why = { "" };

	return om_clients_enter(c, &v, out, &why);
}

static struct om_client *
enter(struct om_clients *c, const char *route, const char *peer)
{
	struct om_client *client = NULL;

	assert_int_equal(visit(c, 0, route, peer, 1, true, &client), OM_OK);
	return client;
}

static enum om_err
try_enter(struct om_clients *c, unsigned endpoint, const char *route)
{
	struct om_client *client = NULL;

	return visit(c, endpoint, route, "p", 1, true, &client);
}

static void
expect(struct om_clients *c, size_t clients, size_t in_flight, size_t cut)
{
	struct om_clients_stats s;

	om_clients_stats(c, &s);
	assert_int_equal(s.clients, clients);
	assert_int_equal(s.in_flight, in_flight);
	assert_int_equal(s.cut, cut);
}

static void
test_limits(void **state)
{
	struct om_clients *c = om_clients_new(&small);
	struct om_client *a, *b;

	(void)state;
	a = enter(c, "a", "p");
	assert_ptr_equal(enter(c, "a", "p"), a);
	assert_int_equal(try_enter(c, 0, "a"), OM_ERR_LIMIT);
	b = enter(c, "b", "p");
	/* The same routing id at another endpoint is another client. */
	assert_int_equal(try_enter(c, 1, "a"), OM_OK);
	expect(c, 3, 4, 0);
	assert_int_equal(try_enter(c, 0, "d"), OM_ERR_LIMIT);
	om_clients_leave(c, b, 1);
	expect(c, 2, 3, 0);
	assert_int_equal(try_enter(c, 0, "d"), OM_OK);
	om_clients_leave(c, a, 1);
	om_clients_leave(c, a, 1);
	expect(c, 2, 2, 0);
	om_clients_free(c);
}

static void
test_cut_and_mend(void **state)
{
	struct om_clients *c = om_clients_new(&small);
	struct om_client *a = enter(c, "a", "p");

	(void)state;
	assert_false(om_clients_is_cut(c, 0, "a", 1));
	om_clients_cut(c, a);
	om_clients_cut(c, a);
	om_clients_leave(c, a, 1);
	expect(c, 1, 0, 1); /* it is remembered */
	assert_true(om_clients_is_cut(c, 0, "a", 1));
	assert_false(om_clients_is_cut(c, 1, "a", 1));
	assert_false(om_clients_is_cut(c, 0, "b", 1));
	om_clients_mend(c, 0, "a", 1);
	om_clients_mend(c, 0, "a", 1);
	om_clients_mend(c, 0, "x", 1);
	expect(c, 0, 0, 0);
	om_clients_free(c);
}

/* Cut clients that are gone do not keep others out. */
static void
test_cut_clients_make_room(void **state)
{
	struct om_clients *c = om_clients_new(&small);
	const char *const routes[] = { "a", "b", "c" };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct om_client *client = enter(c, routes[i], "p");

		om_clients_cut(c, client);
		om_clients_leave(c, client, 1);
	}
	expect(c, 3, 0, 3);
	(void)enter(c, "d", "p");
	expect(c, 1, 1, 0);
	om_clients_free(c);
}

static void
test_unread_bytes_belong_to_the_peer(void **state)
{
	struct om_clients *c = om_clients_new(&small);
	struct om_client *a = enter(c, "a", "alice"), *b = enter(c, "b", "alice"),
			 *x = enter(c, "x", "bob");
	struct om_unread *one, *two;

	(void)state;
	one = om_clients_charge(c, a, 60);
	assert_non_null(one);
	assert_int_equal(om_clients_room(c, b), 40);
	assert_int_equal(om_clients_room(c, x), 100);
	assert_null(om_clients_charge(c, b, 41));
	two = om_clients_charge(c, b, 40);
	assert_non_null(two);
	assert_int_equal(om_clients_room(c, a), 0);
	assert_null(om_clients_charge(c, a, 1));
	assert_null(om_clients_charge(c, x, 101));
	om_unread_sub(om_clients_charge(c, x, 100), 100);
	om_unread_sub(one, 60);
	assert_non_null(one = om_clients_charge(c, a, 60));
	/* ZeroMQ may hold answers longer than the endpoint lives. */
	om_clients_free(c);
	om_unread_sub(one, 60);
	om_unread_sub(two, 40);
}

/* However many connections one requester makes, others and the operator find a place. */
static void
test_a_requester_leaves_as_much_as_it_takes(void **state)
{
	const struct om_clients_conf conf = {
		.max_clients = 100, .max_pending = 1000, .max_in_flight = 10, .max_unread = 100
	};
	struct om_clients *c = om_clients_new(&conf);
	struct om_client *client, *first = NULL;
	size_t greedy = 0, second = 0, root = 0;
	char route[32];

	(void)state;
	for (int i = 0; i < 200; i++) {
		snprintf(route, sizeof(route), "g%d", i);
		greedy += visit(c, 0, route, "greedy", 1, false, &client) == OM_OK;
		first = first == NULL ? client : first;
	}
	assert_int_equal(greedy, 50);
	for (int i = 0; i < 200; i++) {
		snprintf(route, sizeof(route), "s%d", i);
		second += visit(c, 0, route, "second", 1, false, &client) == OM_OK;
	}
	assert_int_equal(second, 25);
	assert_int_equal(visit(c, 0, "t", "third", 1, false, &client), OM_OK);
	for (int i = 0; i < 200; i++) {
		snprintf(route, sizeof(route), "o%d", i);
		root += visit(c, 0, route, "root", 1, true, &client) == OM_OK;
	}
	assert_int_equal(root, 24);
	om_clients_leave(c, first, 1); /* there is a place, but not for him */
	assert_int_equal(visit(c, 0, "g999", "greedy", 1, false, &client), OM_ERR_LIMIT);
	assert_int_equal(visit(c, 0, "u", "other", 1, false, &client), OM_OK);
	om_clients_free(c);
}

static void
test_bytes_in_flight(void **state)
{
	struct om_clients *c = om_clients_new(&small);
	struct om_client *a, *b;
	struct om_clients_stats s;

	(void)state;
	assert_int_equal(visit(c, 0, "a", "p", 101, false, &a), OM_ERR_LIMIT);
	expect(c, 0, 0, 0);
	assert_int_equal(visit(c, 0, "a", "p", 60, false, &a), OM_OK); /* its only one */
	assert_int_equal(visit(c, 0, "a", "p", 1, false, &a), OM_ERR_LIMIT);
	assert_int_equal(visit(c, 0, "b", "q", 41, false, &b), OM_ERR_LIMIT);
	assert_int_equal(visit(c, 0, "b", "q", 40, false, &b), OM_OK);
	om_clients_stats(c, &s);
	assert_int_equal(s.pending, 100);
	assert_int_equal(visit(c, 0, "o", "root", 0, true, &b), OM_ERR_LIMIT);
	om_clients_leave(c, a, 60);
	assert_int_equal(visit(c, 0, "a", "p", 25, false, &a), OM_OK);
	assert_int_equal(visit(c, 0, "a", "p", 6, false, &a), OM_ERR_LIMIT);
	assert_int_equal(visit(c, 0, "a", "p", 5, false, &a), OM_OK);
	assert_int_equal(visit(c, 0, "o", "root", 30, true, &b), OM_OK);
	om_clients_free(c);
}

/* Memory follows what is outstanding: a million short visits leave nothing. */
static void
test_many_visitors(void **state)
{
	const struct om_clients_conf conf = {
		.max_clients = 5000, .max_pending = 5000, .max_in_flight = 2, .max_unread = 100
	};
	struct om_clients *c = om_clients_new(&conf);
	static struct om_client *open[4000];
	char route[32], peer[32];

	(void)state;
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 4000; i++) {
			snprintf(route, sizeof(route), "%d-%d", round, i);
			snprintf(peer, sizeof(peer), "uid:%d", (round * 4000 + i) % 300);
			open[i] = enter(c, route, peer);
		}
		expect(c, 4000, 4000, 0);
		for (int i = 0; i < 4000; i++) {
			om_clients_leave(c, open[(i * 7) % 4000], 1);
		}
		expect(c, 0, 0, 0);
	}
	om_clients_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_cut_and_mend),
		cmocka_unit_test(test_cut_clients_make_room),
		cmocka_unit_test(test_unread_bytes_belong_to_the_peer),
		cmocka_unit_test(test_a_requester_leaves_as_much_as_it_takes),
		cmocka_unit_test(test_bytes_in_flight),
		cmocka_unit_test(test_many_visitors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
