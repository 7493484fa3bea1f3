/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_BOOKS_H
#define OM_ACTORS_BOOKS_H

/*
 * What each requester has: unfinished jobs, how long they may run, and seconds run today.  Plain logic, for the filter's
 * concurrency and quota rules and for the limit per requester.  A requester with nothing is
 * forgotten.
 *
 * All functions: owner thread.
 */
#include "actors/name_table.h"
#include "base/clock.h"

struct om_books {
	struct om_name_table peers;
	int64_t day_s; /* the local midnight that `ran` counts from */
	int64_t next_day_s; /* look at the calendar again from here */
};

struct om_account; /* opaque */

void om_books_init(struct om_books *books);
void om_books_fini(struct om_books *books);

/*
 * One job more, which may run so long.  Gives the account, which lives until its last job is closed.
 * NULL: no memory.
 */
struct om_account *om_books_open(struct om_books *books, struct om_str peer, uint64_t asked_s);
/* One job less, opened with that, after it ran for ran_ms (0: it did not, and now does not matter). */
void om_books_close(struct om_books *books, struct om_account *account, uint64_t asked_s,
		    uint64_t ran_ms, struct om_wall now);
/* Time that an earlier process of ours measured today.  NOMEM. */
enum om_err om_books_add_ran(struct om_books *books, struct om_str peer, uint64_t ran_ms,
			     struct om_wall now) OM_MUST_CHECK;

/* As if nothing had run. */
void om_books_forget_ran(struct om_books *books);

/* Unfinished jobs; 0 for an unknown requester. */
uint64_t om_books_jobs(const struct om_books *books, struct om_str peer);

/* All zero for an unknown requester. */
struct om_page {
	uint64_t jobs; /* unfinished */
	uint64_t asked_s; /* seconds that these may run, all together */
	uint64_t ran_ms; /* milliseconds run since the last local midnight */
};
struct om_page om_books_page(struct om_books *books, struct om_str peer, struct om_wall now);
/* The same of an account that is open. */
struct om_page om_books_page_of(struct om_books *books, const struct om_account *account,
				struct om_wall now);

#endif /* OM_ACTORS_BOOKS_H */
