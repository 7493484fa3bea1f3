/* SPDX-License-Identifier: ISC */
/* What clients have outstanding, and the limits on it. */
#include "daemon/clients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const struct om_clients_conf small = { .max_clients = 3,
					      .max_in_flight = 2,
					      .max_unread = 100 };

static struct om_client *
enter(struct om_clients *c, const char *route, const char *peer)
{
	struct om_client *client = NULL;
	struct om_why why = { "" };

	assert_int_equal(om_clients_enter(c, 0, route, strlen(route), peer, &client, &why), OM_OK);
	return client;
}

static enum om_err
try_enter(struct om_clients *c, unsigned endpoint, const char *route)
{
	struct om_client *client = NULL;
	struct om_why why = { "" };

	return om_clients_enter(c, endpoint, route, strlen(route), "p", &client, &why);
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
	om_clients_leave(c, b);
	expect(c, 2, 3, 0);
	assert_int_equal(try_enter(c, 0, "d"), OM_OK);
	om_clients_leave(c, a);
	om_clients_leave(c, a);
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
	om_clients_leave(c, a);
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
		om_clients_leave(c, client);
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
	assert_null(om_clients_charge(c, b, 41));
	two = om_clients_charge(c, b, 40);
	assert_non_null(two);
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

/* Memory follows what is outstanding: a million short visits leave nothing. */
static void
test_many_visitors(void **state)
{
	const struct om_clients_conf conf = { .max_clients = 5000,
					      .max_in_flight = 2,
					      .max_unread = 100 };
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
			om_clients_leave(c, open[(i * 7) % 4000]);
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
		cmocka_unit_test(test_many_visitors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
