/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_NAME_TABLE_H
#define OM_ACTORS_NAME_TABLE_H

/*
 * A hash table of things with a name (job ids, peers, networks).  It keeps five things and their hashes
 * in a cache line, 16 to 32 bytes a thing: a look-up touches a line and the thing itself, hardly ever
 * another, an insertion no other thing at all.  Removal leaves nothing behind.  It grows a line with
 * each insertion, so no single operation pays for all.  Names come from clients: the hash is SipHash
 * (libsodium) with a random key of the process, nobody can choose names that collide.
 *
 * Looked at first: uthash (56 bytes a thing), ck_hs (leaves tombstones, and a queue removes as
 * often as it inserts), glib (allocates beside the thing, aborts without memory).  Chains through the
 * things, with two to four buckets a thing, needed as much memory and three times the cache misses.
 *
 * All functions: owner thread.
 */
#include <stdint.h>
#include "base/buf.h"

/* Embedded in the thing. */
struct om_name_node {
	uint32_t hash;
};

typedef struct om_str (*om_name_of_fn)(const struct om_name_node *node);

#define OM_NAME_LINE 5

struct om_name_line {
	uint32_t hash[OM_NAME_LINE];
	uint32_t passed; /* things that found it full and lie behind */
	struct om_name_node *node[OM_NAME_LINE]; /* NULL: a free place */
} __attribute__((aligned(64)));

struct om_name_lines {
	struct om_name_line *v;
	size_t count; /* a power of two, or 0 */
};

/* Read `count` freely, leave the rest alone. */
struct om_name_table {
	om_name_of_fn name_of;
	struct om_name_lines now, old; /* old: being emptied into now */
	size_t moved; /* lines of old that are empty already */
	size_t count;
};

/* Any thread.  The same for all tables, so one look-up in many of them hashes once. */
uint32_t om_name_hash(struct om_str name);

void om_name_table_init(struct om_name_table *t, om_name_of_fn name_of);
/* Frees the lines, not the things. */
void om_name_table_fini(struct om_name_table *t);

/* NULL: there is none. */
struct om_name_node *om_name_table_find(const struct om_name_table *t, struct om_str name);
struct om_name_node *om_name_table_find_hashed(const struct om_name_table *t, struct om_str name,
					       uint32_t hash);
/* The look-up of a name with this hash is near: fetch its line meanwhile. */
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
	size_t place;
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
