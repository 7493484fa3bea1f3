/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/books.h"
#include "actors/name_table.h"
#include "actors/time_heap.h"

#define MANY 20000

static void
names_come_and_go(void **state)
{
	struct om_name_set set;
	char name[16];

	(void)state;
	om_name_set_init(&set);
	assert_false(om_name_set_has(&set, OM_STR("x")));
	assert_false(om_name_set_remove(&set, OM_STR("x")));
	for (int i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(om_name_set_add(&set, om_str_of(name)), OM_OK);
		assert_int_equal(om_name_set_add(&set, om_str_of(name)), OM_OK);
		/* While the table grows each old name is still found. */
		(void)snprintf(name, sizeof(name), "n%d", i / 2);
		assert_true(om_name_set_has(&set, om_str_of(name)));
	}
	assert_int_equal(set.table.count, MANY);
	for (int i = 0; i < MANY; i += 2) {
		(void)snprintf(name, sizeof(name), "n%d", i);
		assert_true(om_name_set_remove(&set, om_str_of(name)));
	}
	for (int i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(om_name_set_has(&set, om_str_of(name)), i % 2);
	}
	assert_int_equal(om_name_set_add(&set, OM_STR("")), OM_OK);
	assert_true(om_name_set_has(&set, OM_STR("")));
	om_name_set_fini(&set);
}

/* At every size, in the middle of growing too, a walk gives each name once. */
static void
a_walk_sees_each_once(void **state)
{
	struct om_name_set set;
	char name[16];

	(void)state;
	om_name_set_init(&set);
	for (unsigned n = 1; n <= 300; n++) {
		struct om_name_walk walk = { 0 };
		bool seen[301] = { false };
		unsigned count = 0;

		(void)snprintf(name, sizeof(name), "%u", n);
		assert_int_equal(om_name_set_add(&set, om_str_of(name)), OM_OK);
		for (;;) {
			struct om_str s = om_name_set_next(&set, &walk);
			int i;

			if (s.ptr == NULL) {
				break;
			}
			assert_int_equal(om_str_copy(s, name, sizeof(name)), OM_OK);
			i = atoi(name);
			assert_false(seen[i]);
			seen[i] = true;
			count++;
		}
		assert_int_equal(count, n);
	}
	om_name_set_fini(&set);
}

#define NAMES 4000

static unsigned
next_random(unsigned *rnd)
{
	*rnd = *rnd * 1664525u + 1013904223u;
	return *rnd >> 8;
}

/* A walk gives each that is there once, also when it takes away some of what it was given. */
static void
walk_and_thin(struct om_name_set *set, bool there[NAMES], size_t count, unsigned *rnd)
{
	static bool seen[NAMES];
	struct om_name_walk walk = { 0 };
	char name[16];
	size_t walked = 0;

	memset(seen, 0, sizeof(seen));
	for (;; walked++) {
		const struct om_str s = om_name_set_next(set, &walk);
		int i;

		if (s.ptr == NULL) {
			break;
		}
		assert_int_equal(om_str_copy(s, name, sizeof(name)), OM_OK);
		i = atoi(name);
		assert_true(there[i]);
		assert_false(seen[i]);
		seen[i] = true;
		if (next_random(rnd) % 4 == 0) {
			assert_true(om_name_set_remove(set, om_str_of(name)));
			there[i] = false;
		}
	}
	assert_int_equal(walked, count);
}

/* Against a plain array, at all sizes: mostly added, then mostly removed, and again. */
static void
names_are_as_in_a_list(void **state)
{
	static bool there[NAMES];
	struct om_name_set set;
	unsigned rnd = 11;
	char name[16];

	(void)state;
	om_name_set_init(&set);
	for (unsigned step = 0; step < 200000; step++) {
		const unsigned i = next_random(&rnd) % NAMES;
		const bool grows = step / 20000 % 2 == 0;

		(void)snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(om_name_set_has(&set, om_str_of(name)), there[i]);
		if (next_random(&rnd) % 4 == 0 ? !grows : grows) {
			assert_int_equal(om_name_set_add(&set, om_str_of(name)), OM_OK);
			there[i] = true;
		} else {
			assert_int_equal(om_name_set_remove(&set, om_str_of(name)), there[i]);
			there[i] = false;
		}
		if (step % 500 == 0) {
			size_t count = 0;

			for (size_t k = 0; k < NAMES; k++) {
				count += there[k];
			}
			assert_int_equal(set.table.count, count);
			walk_and_thin(&set, there, count, &rnd);
		}
	}
	om_name_set_fini(&set);
}

struct due {
	struct om_time_node node;
};

static void
heap_gives_the_earliest(void **state)
{
	struct om_time_heap heap = { 0 };
	struct due *due = calloc(MANY, sizeof(*due));
	uint32_t rnd = 7;
	int64_t last = INT64_MIN;
	size_t left = MANY;

	(void)state;
	assert_non_null(due);
	for (size_t i = 0; i < MANY; i++) {
		rnd = rnd * 1664525u + 1013904223u;
		assert_int_equal(om_time_heap_add(&heap, &due[i].node, (int64_t)(rnd >> 8) % 1000),
				 OM_OK);
	}
	for (size_t i = 0; i < MANY; i += 3) { /* out of the middle */
		om_time_heap_remove(&heap, &due[i].node);
		om_time_heap_remove(&heap, &due[i].node); /* in no heap: fine */
		left--;
	}
	while (heap.count > 0) {
		struct om_time_node *first = om_time_heap_first(&heap);

		assert_true(first->at >= last);
		last = first->at;
		om_time_heap_remove(&heap, first);
		left--;
	}
	assert_int_equal(left, 0);
	assert_null(om_time_heap_first(&heap));
	om_time_heap_fini(&heap);
	free(due);
}

#define DAY_NS (INT64_C(86400) * OM_NS_PER_S)

static void
books_of_a_requester(void **state)
{
	struct om_wall noon = { INT64_C(1700049600) * OM_NS_PER_S };
	struct om_wall tomorrow = { noon.ns + DAY_NS };
	struct om_account *a, *b;
	struct om_books books;

	(void)state;
	assert_int_equal(setenv("TZ", "UTC0", 1), 0);
	om_books_init(&books);
	a = om_books_open(&books, OM_STR("bob"), 60);
	b = om_books_open(&books, OM_STR("bob"), 60);
	assert_ptr_equal(a, b);
	assert_int_equal(om_books_page(&books, OM_STR("bob"), noon).asked_s, 120);
	assert_int_equal(om_books_jobs(&books, OM_STR("bob")), 2);
	assert_int_equal(om_books_jobs(&books, OM_STR("carol")), 0);
	om_books_close(&books, a, 60, 1500, noon);
	assert_int_equal(om_books_page(&books, OM_STR("bob"), noon).ran_ms, 1500);
	assert_int_equal(om_books_add_ran(&books, OM_STR("bob"), 500, noon), OM_OK);
	assert_int_equal(om_books_page(&books, OM_STR("bob"), noon).asked_s, 60);
	om_books_close(&books, b, 60, 0, noon);
	assert_int_equal(om_books_page(&books, OM_STR("bob"), noon).asked_s, 0);
	assert_int_equal(om_books_jobs(&books, OM_STR("bob")), 0);
	assert_int_equal(om_books_page(&books, OM_STR("bob"), noon).ran_ms, 2000);
	/* A new day, a clean page, and nothing is kept of who has nothing. */
	assert_int_equal(om_books_page(&books, OM_STR("bob"), tomorrow).ran_ms, 0);
	assert_int_equal(books.peers.count, 0);
	a = om_books_open(&books, OM_STR("dave"), 60);
	om_books_close(&books, a, 60, 0, tomorrow);
	assert_int_equal(books.peers.count, 0);
	om_books_fini(&books);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_come_and_go),      cmocka_unit_test(a_walk_sees_each_once),
		cmocka_unit_test(names_are_as_in_a_list), cmocka_unit_test(heap_gives_the_earliest),
		cmocka_unit_test(books_of_a_requester),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
