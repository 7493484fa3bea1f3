/* SPDX-License-Identifier: ISC */
/*
 * 1. A node is in the bucket of `now` or of `old` that its hash names, never in both.
 * 2. Buckets of `old` below `moved` are empty.  If broken: a look-up misses a name.
 * 3. While `old` exists an insertion moves MOVE_STEP buckets, so `old` is empty before `now` has to
 *    grow again: B buckets are moved while B / SPREAD things come.
 *
 * Big arrays of buckets are mapped with huge pages: otherwise every look-up among a million things
 * pays for a walk of the page tables on top of its cache miss.
 */
#include "actors/name_table.h"

#include <pthread.h>
#include <sodium/crypto_shorthash.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/id.h"

#define BUCKETS_FIRST 16
#define SPREAD        2 /* buckets per thing when it grows to twice as many */
#define MOVE_STEP     (2 * SPREAD) /* buckets per insertion; SPREAD would just do */
#define HUGE_PAGE     (2u << 20)

static unsigned char hash_key[crypto_shorthash_KEYBYTES];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void
hash_key_make(void)
{
	om_random(hash_key, sizeof(hash_key));
}

uint32_t
om_name_hash(struct om_str name)
{
	unsigned char out[crypto_shorthash_BYTES];
	uint32_t hash;

	(void)pthread_once(&hash_once, hash_key_make);
	(void)crypto_shorthash(out, (const unsigned char *)name.ptr, name.len, hash_key);
	memcpy(&hash, out, sizeof(hash));
	return hash;
}

/* --- arrays of buckets ------------------------------------------------------------------------ */

static struct om_name_node **
buckets_new(size_t count)
{
	size_t bytes = count * sizeof(struct om_name_node *);
	void *v;

	if (bytes < HUGE_PAGE) {
		return calloc(count, sizeof(struct om_name_node *));
	}
	v = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (v == MAP_FAILED) {
		return NULL;
	}
	(void)madvise(v, bytes, MADV_HUGEPAGE); /* advice: without it, it is only slower */
	return v;
}

static void
buckets_free(struct om_name_buckets *b)
{
	size_t bytes = b->count * sizeof(struct om_name_node *);

	if (bytes < HUGE_PAGE) {
		free(b->v);
	} else {
		(void)munmap(b->v, bytes);
	}
	*b = (struct om_name_buckets){ NULL, 0 };
}

/* --- the table -------------------------------------------------------------------------------- */

void
om_name_table_init(struct om_name_table *t, om_name_of_fn name_of)
{
	memset(t, 0, sizeof(*t));
	t->name_of = name_of;
}

void
om_name_table_fini(struct om_name_table *t)
{
	buckets_free(&t->now);
	buckets_free(&t->old);
	t->count = 0;
}

static struct om_name_node **
bucket_of(const struct om_name_buckets *b, uint32_t hash)
{
	return &b->v[hash & (b->count - 1)];
}

/* The link that points at the node with this name, or at the NULL that ends its chain. */
static struct om_name_node **
link_in(const struct om_name_table *t, const struct om_name_buckets *b, uint32_t hash,
	struct om_str name)
{
	struct om_name_node **link = bucket_of(b, hash);

	while (*link != NULL && ((*link)->hash != hash || !om_str_eq(t->name_of(*link), name))) {
		link = &(*link)->next;
	}
	return link;
}

struct om_name_node *
om_name_table_find_hashed(const struct om_name_table *t, struct om_str name, uint32_t hash)
{
	struct om_name_node *node = NULL;

	if (t->now.count > 0) {
		node = *link_in(t, &t->now, hash, name);
	}
	if (node == NULL && t->old.count > 0) {
		node = *link_in(t, &t->old, hash, name);
	}
	return node;
}

struct om_name_node *
om_name_table_find(const struct om_name_table *t, struct om_str name)
{
	return t->count == 0 ? NULL : om_name_table_find_hashed(t, name, om_name_hash(name));
}

void
om_name_table_expect(const struct om_name_table *t, uint32_t hash)
{
	if (t->now.count > 0) {
		__builtin_prefetch(bucket_of(&t->now, hash), 1);
	}
}

static void
push(struct om_name_buckets *b, struct om_name_node *node)
{
	struct om_name_node **bucket = bucket_of(b, node->hash);

	node->next = *bucket;
	*bucket = node;
}

static void
move_some(struct om_name_table *t)
{
	for (int step = 0; step < MOVE_STEP && t->moved < t->old.count; step++) {
		struct om_name_node *node = t->old.v[t->moved];

		t->old.v[t->moved++] = NULL;
		while (node != NULL) {
			struct om_name_node *next = node->next;

			push(&t->now, node);
			node = next;
		}
	}
	if (t->old.v != NULL && t->moved == t->old.count) {
		buckets_free(&t->old);
	}
}

static enum om_err
make_room(struct om_name_table *t)
{
	size_t count = t->now.count == 0 ? BUCKETS_FIRST : t->now.count * 2;
	struct om_name_node **v;

	if (t->count * SPREAD < t->now.count || t->old.v != NULL) {
		return OM_OK;
	}
	v = buckets_new(count);
	if (v == NULL) {
		/* Longer chains are better than no service. */
		return t->now.count > 0 ? OM_OK : OM_ERR_NOMEM;
	}
	t->old = t->now;
	t->moved = 0;
	t->now = (struct om_name_buckets){ v, count };
	return OM_OK;
}

enum om_err
om_name_table_add(struct om_name_table *t, struct om_name_node *node)
{
	node->hash = om_name_hash(t->name_of(node));
	return om_name_table_add_hashed(t, node);
}

enum om_err
om_name_table_add_hashed(struct om_name_table *t, struct om_name_node *node)
{
	enum om_err err;

	if (om_name_table_find_hashed(t, t->name_of(node), node->hash) != NULL) {
		return OM_ERR_EXISTS;
	}
	err = make_room(t);
	if (err != OM_OK) {
		return err;
	}
	push(&t->now, node);
	t->count++;
	move_some(t);
	return OM_OK;
}

static bool
unlink_from(struct om_name_buckets *b, struct om_name_node *node)
{
	struct om_name_node **link;

	if (b->count == 0) {
		return false;
	}
	link = bucket_of(b, node->hash);
	while (*link != NULL && *link != node) {
		link = &(*link)->next;
	}
	if (*link == NULL) {
		return false;
	}
	*link = node->next;
	node->next = NULL;
	return true;
}

void
om_name_table_remove(struct om_name_table *t, struct om_name_node *node)
{
	bool found = unlink_from(&t->now, node) || unlink_from(&t->old, node);

	OM_ASSERT(found);
	t->count--;
}

struct om_name_node *
om_name_table_next(const struct om_name_table *t, struct om_name_walk *walk)
{
	struct om_name_node *node = walk->next;

	while (node == NULL) {
		const struct om_name_buckets *b = walk->in_old ? &t->old : &t->now;

		if (walk->bucket < b->count) {
			node = b->v[walk->bucket++];
		} else if (!walk->in_old) {
			walk->in_old = true;
			walk->bucket = 0;
		} else {
			return NULL;
		}
	}
	walk->next = node->next;
	return node;
}

/* --- sets ------------------------------------------------------------------------------------- */

struct set_name {
	struct om_name_node node; /* first */
	uint32_t len;
	char text[];
};

static struct om_str
set_name_of(const struct om_name_node *node)
{
	const struct set_name *name = (const struct set_name *)node;

	return (struct om_str){ name->text, name->len };
}

void
om_name_set_init(struct om_name_set *set)
{
	om_name_table_init(&set->table, set_name_of);
}

void
om_name_set_fini(struct om_name_set *set)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&set->table, &walk)) != NULL) {
		free(node);
	}
	om_name_table_fini(&set->table);
}

bool
om_name_set_has(const struct om_name_set *set, struct om_str name)
{
	return om_name_table_find(&set->table, name) != NULL;
}

bool
om_name_set_has_hashed(const struct om_name_set *set, struct om_str name, uint32_t hash)
{
	return set->table.count > 0 && om_name_table_find_hashed(&set->table, name, hash) != NULL;
}

enum om_err
om_name_set_add(struct om_name_set *set, struct om_str name)
{
	struct set_name *entry;
	enum om_err err;

	if (om_name_set_has(set, name)) {
		return OM_OK;
	}
	entry = calloc(1, sizeof(*entry) + name.len);
	if (entry == NULL) {
		return OM_ERR_NOMEM;
	}
	entry->len = (uint32_t)name.len;
	if (name.len > 0) {
		memcpy(entry->text, name.ptr, name.len);
	}
	err = om_name_table_add(&set->table, &entry->node);
	if (err != OM_OK) {
		free(entry);
	}
	return err;
}

bool
om_name_set_remove(struct om_name_set *set, struct om_str name)
{
	struct om_name_node *node = om_name_table_find(&set->table, name);

	if (node == NULL) {
		return false;
	}
	om_name_table_remove(&set->table, node);
	free(node);
	return true;
}

struct om_str
om_name_set_next(const struct om_name_set *set, struct om_name_walk *walk)
{
	const struct om_name_node *node = om_name_table_next(&set->table, walk);

	return node == NULL ? (struct om_str){ NULL, 0 } : set_name_of(node);
}
