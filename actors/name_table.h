/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_NAME_TABLE_H
#define OM_ACTORS_NAME_TABLE_H

/*
 * A hash table of things with a name (job ids, peers, networks).  Intrusive and chained, with two
 * to four buckets a thing: a look-up touches its bucket and the thing itself, hardly ever another.
 * Removal leaves nothing behind.  It grows a few buckets with each insertion, so no single
 * operation pays for all.  Names come from clients: the hash is SipHash (libsodium) with a random
 * key of the process, nobody can choose names that collide.
 *
 * Looked at first: uthash (56 bytes a thing), ck_hs (leaves tombstones, and a queue removes as
 * often as it inserts), glib (allocates beside the thing, aborts without memory).
 *
 * All functions: owner thread.
 */
#include <stdint.h>
#include "base/buf.h"

/* Embedded in the thing. */
struct om_name_node {
	struct om_name_node *next;
	uint32_t hash;
};

typedef struct om_str (*om_name_of_fn)(const struct om_name_node *node);

struct om_name_buckets {
	struct om_name_node **v;
	size_t count; /* a power of two, or 0 */
};

/* Read `count` freely, leave the rest alone. */
struct om_name_table {
	om_name_of_fn name_of;
	struct om_name_buckets now, old; /* old: being emptied into now */
	size_t moved; /* buckets of old that are empty already */
	size_t count;
};

/* Any thread.  The same for all tables, so one look-up in many of them hashes once. */
uint32_t om_name_hash(struct om_str name);

void om_name_table_init(struct om_name_table *t, om_name_of_fn name_of);
/* Frees the buckets, not the things. */
void om_name_table_fini(struct om_name_table *t);

/* NULL: there is none. */
struct om_name_node *om_name_table_find(const struct om_name_table *t, struct om_str name);
struct om_name_node *om_name_table_find_hashed(const struct om_name_table *t, struct om_str name,
					       uint32_t hash);
/* The look-up of a name with this hash is near: fetch its bucket meanwhile. */
void om_name_table_expect(const struct om_name_table *t, uint32_t hash);
/* Keeps node until it is removed.  EXISTS, NOMEM: nothing has changed. */
enum om_err om_name_table_add(struct om_name_table *t, struct om_name_node *node) OM_MUST_CHECK;
/* The same, with node->hash set by the caller. */
enum om_err om_name_table_add_hashed(struct om_name_table *t,
				     struct om_name_node *node) OM_MUST_CHECK;
/* The node must be in the table. */
void om_name_table_remove(struct om_name_table *t, struct om_name_node *node);

/*
 * All things in no order: start with a zeroed walk.  The one last given may be removed, none added.
 */
struct om_name_walk {
	struct om_name_node *next;
	size_t bucket;
	bool in_old;
};
struct om_name_node *om_name_table_next(const struct om_name_table *t, struct om_name_walk *walk);

/* --- sets of names that own their memory ------------------------------------------------------ */

struct om_name_set {
	struct om_name_table table;
};

void om_name_set_init(struct om_name_set *set);
void om_name_set_fini(struct om_name_set *set);
bool om_name_set_has(const struct om_name_set *set, struct om_str name);
bool om_name_set_has_hashed(const struct om_name_set *set, struct om_str name, uint32_t hash);
/* Copies the name.  OM_OK also when it was there; NOMEM. */
enum om_err om_name_set_add(struct om_name_set *set, struct om_str name) OM_MUST_CHECK;
/* false: it was not there. */
bool om_name_set_remove(struct om_name_set *set, struct om_str name);
/* The next name, borrowed; the absent view at the end. */
struct om_str om_name_set_next(const struct om_name_set *set, struct om_name_walk *walk);

#endif /* OM_ACTORS_NAME_TABLE_H */
