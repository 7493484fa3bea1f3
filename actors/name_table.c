/* SPDX-License-Identifier: ISC */
/*
 * A name belongs to the line that its hash names, and lies there or, where that is full, in one of the
 * next.  A line counts who has passed it, so a look-up knows where to stop, nothing is left behind by a
 * removal, and a node stays where it is until the table grows.  F14 of Folly counts the same way
 * (Bronson and Shi, "Open-sourcing F14 for faster, more memory-efficient hash tables", 2019).
 *
 * 1. A node is in `now` or in `old`, never in both, and each line from its own to the one before it
 *    has counted it.  If broken: a look-up misses a name.
 * 2. Lines of `old` below `moved` hold no node.  If broken: nodes are lost with the array.
 * 3. While `old` exists an insertion moves a line, so `old` is empty before `now` has to grow again:
 *    L lines are moved while L * LINE_FULL things come.
 * 4. There are fewer things than places in `now`.  If broken: a new one looks for a place for ever.
 *
 * Big arrays of lines are mapped with huge pages: otherwise every look-up among a million things pays
 * for a walk of the page tables on top of its cache miss.
 */
#include "actors/name_table.h"

#include <pthread.h>
#include <sodium/crypto_shorthash.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/huge.h"
#include "base/id.h"

#define LINES_FIRST 2
#define LINE_FULL   4 /* things a line when it grows to twice as many lines */
#define HUGE_PAGE   (2u << 20)

_Static_assert(OM_NAME_LINE == 5, "the functions of a line name its places");
_Static_assert(LINE_FULL < OM_NAME_LINE, "some lines have to have a place left");

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

/* --- arrays of lines -------------------------------------------------------------------------- */

static struct om_name_line *
lines_new(size_t count)
{
	size_t bytes = count * sizeof(struct om_name_line);
	void *v;

	if (bytes < HUGE_PAGE) {
		v = aligned_alloc(_Alignof(struct om_name_line), bytes);
		return v != NULL ? memset(v, 0, bytes) : NULL;
	}
	return om_huge_new(bytes);
}

static void
lines_free(struct om_name_lines *b)
{
	size_t bytes = b->count * sizeof(struct om_name_line);

	if (bytes < HUGE_PAGE) {
		free(b->v);
	} else {
		om_huge_free(b->v, bytes);
	}
	*b = (struct om_name_lines){ NULL, 0 };
}

static size_t
line_of(const struct om_name_lines *b, uint32_t hash)
{
	return hash & (b->count - 1);
}

static size_t
line_next(const struct om_name_lines *b, size_t at)
{
	return (at + 1) & (b->count - 1);
}

/* Bits of the places with this hash (some may be free), and of the free ones: without a branch, as nobody
 * foresees which it is. */
static inline unsigned
line_match(const struct om_name_line *line, uint32_t hash)
{
	const uint32_t *h = line->hash;

	return (unsigned)(h[0] == hash) | (unsigned)(h[1] == hash) << 1 |
	       (unsigned)(h[2] == hash) << 2 | (unsigned)(h[3] == hash) << 3 |
	       (unsigned)(h[4] == hash) << 4;
}

static inline unsigned
line_free(const struct om_name_line *line)
{
	struct om_name_node *const *n = line->node;

	return (unsigned)(n[0] == NULL) | (unsigned)(n[1] == NULL) << 1 |
	       (unsigned)(n[2] == NULL) << 2 | (unsigned)(n[3] == NULL) << 3 |
	       (unsigned)(n[4] == NULL) << 4;
}

/* There is a place (invariant 4). */
static void
lines_put(struct om_name_lines *b, struct om_name_node *node, uint32_t hash)
{
	for (size_t at = line_of(b, hash);; at = line_next(b, at)) {
		struct om_name_line *line = &b->v[at];
		const unsigned places = line_free(line);

		if (places != 0) {
			line->node[__builtin_ctz(places)] = node;
			line->hash[__builtin_ctz(places)] = hash;
			return;
		}
		line->passed++;
	}
}

/* Takes what lies at this place out. */
static void
lines_take(struct om_name_lines *b, size_t at, unsigned i)
{
	const uint32_t hash = b->v[at].hash[i];

	b->v[at].node[i] = NULL;
	for (size_t home = line_of(b, hash); home != at; home = line_next(b, home)) {
		b->v[home].passed--;
	}
}

static struct om_name_node *
lines_find(const struct om_name_table *t, const struct om_name_lines *b, uint32_t hash,
	   struct om_str name)
{
	size_t at = line_of(b, hash);

	for (size_t n = 0; n < b->count; n++) {
		const struct om_name_line *line = &b->v[at];
		unsigned places = line_match(line, hash);

		for (; places != 0; places &= places - 1) {
			struct om_name_node *node = line->node[__builtin_ctz(places)];

			if (node != NULL && om_str_eq(t->name_of(node), name)) {
				return node;
			}
		}
		if (line->passed == 0) {
			break;
		}
		at = line_next(b, at);
	}
	return NULL;
}

static bool
lines_remove(struct om_name_lines *b, const struct om_name_node *node)
{
	size_t at = line_of(b, node->hash);

	for (size_t n = 0; n < b->count; n++) {
		unsigned places = line_match(&b->v[at], node->hash);

		for (; places != 0; places &= places - 1) {
			if (b->v[at].node[__builtin_ctz(places)] == node) {
				lines_take(b, at, (unsigned)__builtin_ctz(places));
				return true;
			}
		}
		if (b->v[at].passed == 0) {
			break;
		}
		at = line_next(b, at);
	}
	return false;
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
	lines_free(&t->now);
	lines_free(&t->old);
	t->count = 0;
}

/* Nothing of this hash is left in `old`: its line was moved, and nothing from there lies behind. */
static bool
old_is_behind(const struct om_name_table *t, uint32_t hash)
{
	return t->old.count == 0 ||
	       (line_of(&t->old, hash) < t->moved && t->old.v[t->moved - 1].passed == 0);
}

struct om_name_node *
om_name_table_find_hashed(const struct om_name_table *t, struct om_str name, uint32_t hash)
{
	struct om_name_node *node = lines_find(t, &t->now, hash, name);

	if (node == NULL && !old_is_behind(t, hash)) {
		node = lines_find(t, &t->old, hash, name);
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
		__builtin_prefetch(&t->now.v[line_of(&t->now, hash)], 1);
	}
	if (!old_is_behind(t, hash)) {
		__builtin_prefetch(&t->old.v[line_of(&t->old, hash)]);
	}
}

static void
move_line(struct om_name_table *t)
{
	struct om_name_line *line = &t->old.v[t->moved];

	for (unsigned i = 0; i < OM_NAME_LINE; i++) {
		struct om_name_node *node = line->node[i];

		if (node != NULL) {
			lines_take(&t->old, t->moved, i);
			lines_put(&t->now, node, line->hash[i]);
		}
	}
	if (++t->moved == t->old.count) {
		lines_free(&t->old);
	}
}

static enum om_err
make_room(struct om_name_table *t)
{
	size_t count = t->now.count == 0 ? LINES_FIRST : t->now.count * 2;
	struct om_name_line *v;

	if (t->count < t->now.count * LINE_FULL) {
		return OM_OK;
	}
	v = t->old.v == NULL ? lines_new(count) : NULL;
	if (v == NULL) {
		/* Fuller lines are better than no service. */
		return t->count < t->now.count * OM_NAME_LINE ? OM_OK : OM_ERR_NOMEM;
	}
	t->old = t->now;
	t->moved = 0;
	t->now = (struct om_name_lines){ v, count };
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
	lines_put(&t->now, node, node->hash);
	t->count++;
	if (t->old.v != NULL) {
		move_line(t);
	}
	return OM_OK;
}

void
om_name_table_remove(struct om_name_table *t, struct om_name_node *node)
{
	bool found = lines_remove(&t->now, node) || lines_remove(&t->old, node);

	OM_ASSERT(found);
	t->count--;
}

struct om_name_node *
om_name_table_next(const struct om_name_table *t, struct om_name_walk *walk)
{
	for (;;) {
		const struct om_name_lines *b = walk->in_old ? &t->old : &t->now;

		for (; walk->place < b->count * OM_NAME_LINE; walk->place++) {
			struct om_name_node *node =
			    b->v[walk->place / OM_NAME_LINE].node[walk->place % OM_NAME_LINE];

			if (node != NULL) {
				walk->place++;
				return node;
			}
		}
		if (walk->in_old) {
			return NULL;
		}
		walk->in_old = true;
		walk->place = 0;
	}
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
