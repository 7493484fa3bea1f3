/* SPDX-License-Identifier: ISC */
#include "actors/books.h"

#include <stdlib.h>
#include <string.h>

#include "actors/quiet_hours.h"
#include "base/assert.h"

#define QUARTER_S 900

struct om_account {
	struct om_name_node node; /* first */
	uint64_t jobs;
	uint64_t asked_s;
	uint64_t ran_ms;
	int64_t ran_day_s; /* the day of ran_ms */
	uint8_t len;
	char peer[];
};

static struct om_str
account_name(const struct om_name_node *node)
{
	const struct om_account *a = (const struct om_account *)node;

	return (struct om_str){ a->peer, a->len };
}

void
om_books_init(struct om_books *books)
{
	*books = (struct om_books){ 0 };
	om_name_table_init(&books->peers, account_name);
}

void
om_books_fini(struct om_books *books)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&books->peers, &walk)) != NULL) {
		free(node);
	}
	om_name_table_fini(&books->peers);
}

static struct om_account *
account_get(struct om_books *books, struct om_str peer)
{
	struct om_account *a = (struct om_account *)om_name_table_find(&books->peers, peer);

	OM_ASSERT(peer.len <= UINT8_MAX);
	if (a != NULL) {
		return a;
	}
	a = calloc(1, sizeof(*a) + peer.len);
	if (a == NULL) {
		return NULL;
	}
	a->len = (uint8_t)peer.len;
	if (peer.len > 0) {
		memcpy(a->peer, peer.ptr, peer.len);
	}
	if (om_name_table_add(&books->peers, &a->node) != OM_OK) {
		free(a);
		return NULL;
	}
	return a;
}

static void
account_drop(struct om_books *books, struct om_account *a)
{
	if (a->jobs == 0 && (a->ran_ms == 0 || a->ran_day_s != books->day_s)) {
		om_name_table_remove(&books->peers, &a->node);
		free(a);
	}
}

/* A new day: whoever has no job has nothing left in the books. */
static void
turn_page(struct om_books *books, struct om_wall now)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;
	int64_t now_s = now.ns / OM_NS_PER_S;
	int64_t day_s;

	if (now_s >= books->day_s && now_s < books->next_day_s) {
		return;
	}
	day_s = om_local_midnight(now);
	/* Midnight falls on a quarter of an hour in every zone, also when the clocks change. */
	books->next_day_s = now_s - now_s % (QUARTER_S) + QUARTER_S;
	if (day_s == books->day_s) {
		return;
	}
	books->day_s = day_s;
	while ((node = om_name_table_next(&books->peers, &walk)) != NULL) {
		account_drop(books, (struct om_account *)node);
	}
}

static void
account_ran(struct om_books *books, struct om_account *a, uint64_t ran_ms, struct om_wall now)
{
	turn_page(books, now);
	if (a->ran_day_s != books->day_s) {
		a->ran_day_s = books->day_s;
		a->ran_ms = 0;
	}
	a->ran_ms += ran_ms;
}

struct om_account *
om_books_open(struct om_books *books, struct om_str peer, uint64_t asked_s)
{
	struct om_account *a = account_get(books, peer);

	if (a != NULL) {
		a->jobs++;
		a->asked_s += asked_s;
	}
	return a;
}

void
om_books_close(struct om_books *books, struct om_account *a, uint64_t asked_s, uint64_t ran_ms,
	       struct om_wall now)
{
	OM_ASSERT(a->jobs > 0 && a->asked_s >= asked_s);
	if (ran_ms > 0) {
		account_ran(books, a, ran_ms, now);
	}
	a->jobs--;
	a->asked_s -= asked_s;
	account_drop(books, a);
}

enum om_err
om_books_add_ran(struct om_books *books, struct om_str peer, uint64_t ran_ms, struct om_wall now)
{
	struct om_account *a;

	if (ran_ms == 0) {
		return OM_OK;
	}
	turn_page(books, now);
	a = account_get(books, peer);
	if (a == NULL) {
		return OM_ERR_NOMEM;
	}
	account_ran(books, a, ran_ms, now);
	return OM_OK;
}

void
om_books_forget_ran(struct om_books *books)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&books->peers, &walk)) != NULL) {
		((struct om_account *)node)->ran_ms = 0;
		account_drop(books, (struct om_account *)node);
	}
}

uint64_t
om_books_jobs(const struct om_books *books, struct om_str peer)
{
	const struct om_account *a =
	    (const struct om_account *)om_name_table_find(&books->peers, peer);

	return a == NULL ? 0 : a->jobs;
}

struct om_page
om_books_page_of(struct om_books *books, const struct om_account *a, struct om_wall now)
{
	turn_page(books, now);
	return (struct om_page){ .jobs = a->jobs,
				 .asked_s = a->asked_s,
				 .ran_ms = a->ran_day_s == books->day_s ? a->ran_ms : 0 };
}

struct om_page
om_books_page(struct om_books *books, struct om_str peer, struct om_wall now)
{
	const struct om_account *a;

	turn_page(books, now);
	a = (const struct om_account *)om_name_table_find(&books->peers, peer);
	return a == NULL ? (struct om_page){ 0 } : om_books_page_of(books, a, now);
}
