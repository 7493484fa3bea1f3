/* SPDX-License-Identifier: ISC */
/*
 * Names and groups: hash tables under one lock.  Both are for finding actors, not for the hot path:
 * look a name up once and keep the id; a stale id says so.  Names are found by their actor too (for
 * statistics); a group is a list in the order of joining, which an actor leaves without a search.
 */
#include <stdlib.h>
#include <string.h>
#include "runtime/runtime_impl.h"

#define REG_BUCKETS 256 /* at first; of groups always */

struct om_reg_entry {
	struct om_reg_entry *next; /* in its bucket of names */
	struct om_reg_entry *next_id; /* in its bucket of ids */
	struct om_reg_entry *other; /* of the same actor */
	uint64_t id;
	bool shown; /* the first of its actor: statistics show it */
	char name[OM_NAME_MAX];
};

struct group {
	struct group *next;
	struct om_group_entry *first, *last; /* in the order of joining, which publishing keeps */
	size_t count;
	char name[OM_NAME_MAX];
};

struct om_group_entry { /* one membership, in the actor's ext */
	struct om_group_entry *next; /* of the same actor */
	struct om_group_entry *older, *newer; /* of the group; under the lock */
	struct group *group; /* groups live as long as the system */
	uint64_t id;
};

struct om_registry {
	pthread_mutex_t lock;
	struct om_reg_entry **names, **ids; /* `buckets` each, a power of two */
	size_t buckets, count;
	struct group *groups[REG_BUCKETS];
};

static uint64_t
reg_hash(const char *name)
{
	uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

	while (*name != '\0') {
		h = (h ^ (unsigned char)*name++) * UINT64_C(1099511628211);
	}
	return h ^ h >> 32;
}

static struct om_reg_entry **
reg_by_name(struct om_registry *reg, const char *name)
{
	return &reg->names[reg_hash(name) & (reg->buckets - 1)];
}

static struct om_reg_entry **
reg_by_id(struct om_registry *reg, uint64_t id)
{
	return &reg->ids[(id ^ id >> OM_SLOT_BITS) & (reg->buckets - 1)];
}

static struct group **
reg_group(struct om_registry *reg, const char *name)
{
	return &reg->groups[reg_hash(name) % REG_BUCKETS];
}

enum om_err
om_reg_init(struct om_system *sys)
{
	struct om_registry *reg = calloc(1, sizeof(*reg));

	if (reg == NULL) {
		return OM_ERR_NOMEM;
	}
	sys->registry = reg;
	(void)pthread_mutex_init(&reg->lock, NULL);
	reg->buckets = REG_BUCKETS;
	reg->names = calloc(reg->buckets, sizeof(struct om_reg_entry *));
	reg->ids = calloc(reg->buckets, sizeof(struct om_reg_entry *));
	return reg->names == NULL || reg->ids == NULL ? OM_ERR_NOMEM : OM_OK;
}

void
om_reg_fini(struct om_system *sys)
{
	struct om_registry *reg = sys->registry;

	if (reg == NULL) {
		return;
	}
	for (size_t i = 0; reg->names != NULL && i < reg->buckets; i++) {
		while (reg->names[i] != NULL) { /* of actors that were stuck at the end */
			struct om_reg_entry *entry = reg->names[i];

			reg->names[i] = entry->next;
			free(entry);
		}
	}
	for (size_t i = 0; i < REG_BUCKETS; i++) {
		while (reg->groups[i] != NULL) {
			struct group *group = reg->groups[i];

			reg->groups[i] = group->next;
			free(group);
		}
	}
	free(reg->names);
	free(reg->ids);
	(void)pthread_mutex_destroy(&reg->lock);
	free(reg);
}

/* --- names --------------------------------------------------------------------------------------- */

static struct om_reg_entry *
reg_find(struct om_registry *reg, const char *name)
{
	struct om_reg_entry *entry = *reg_by_name(reg, name);

	while (entry != NULL && strcmp(entry->name, name) != 0) {
		entry = entry->next;
	}
	return entry;
}

/* The lock is held. */
static void
reg_link(struct om_registry *reg, struct om_reg_entry *entry)
{
	struct om_reg_entry **names = reg_by_name(reg, entry->name);
	struct om_reg_entry **ids = reg_by_id(reg, entry->id);

	entry->next = *names;
	*names = entry;
	entry->next_id = *ids;
	*ids = entry;
}

/* The lock is held.  Before one more; without memory the chains get longer. */
static void
reg_grow(struct om_registry *reg)
{
	size_t old_buckets = reg->buckets;
	struct om_reg_entry **old = reg->names, *entry, *next;
	struct om_reg_entry **names, **ids;

	if (++reg->count <= reg->buckets) {
		return;
	}
	names = calloc(2 * old_buckets, sizeof(struct om_reg_entry *));
	ids = calloc(2 * old_buckets, sizeof(struct om_reg_entry *));
	if (names == NULL || ids == NULL) {
		free(names);
		free(ids);
		return;
	}
	free(reg->ids);
	reg->names = names;
	reg->ids = ids;
	reg->buckets = 2 * old_buckets;
	for (size_t i = 0; i < old_buckets; i++) {
		for (entry = old[i]; entry != NULL; entry = next) {
			next = entry->next;
			reg_link(reg, entry);
		}
	}
	free(old);
}

/* The running thread of `a`, or before it runs.  The same name again (a restart) is fine. */
enum om_err
om_reg_name(struct om_system *sys, struct om_actor *a, uint64_t id, const char *name)
{
	struct om_registry *reg = sys->registry;
	struct om_actor_ext *ext = om_actor_ext(a);
	struct om_reg_entry *entry, *old;
	size_t len = strlen(name);

	if (len == 0 || len >= OM_NAME_MAX) {
		return OM_ERR_INVALID;
	}
	entry = calloc(1, sizeof(*entry));
	if (entry == NULL || ext == NULL) {
		free(entry);
		return OM_ERR_NOMEM;
	}
	entry->id = id;
	memcpy(entry->name, name, len + 1);
	(void)pthread_mutex_lock(&reg->lock);
	old = reg_find(reg, name);
	if (old == NULL) {
		reg_grow(reg);
		reg_link(reg, entry);
		entry->other = ext->names;
		entry->shown = ext->names == NULL;
		ext->names = entry;
		om_shared_store(&a->limit, a->limit | OM_LIMIT_NAMED);
	}
	(void)pthread_mutex_unlock(&reg->lock);
	if (old != NULL) {
		free(entry);
		return old->id == id ? OM_OK : OM_ERR_EXISTS;
	}
	return OM_OK;
}

enum om_err
om_register(struct om_ctx *cx, const char *name)
{
	return om_reg_name(cx->sys, cx->self, cx->self_id, name);
}

struct om_actor_id
om_whereis(struct om_system *sys, const char *name)
{
	struct om_registry *reg = sys->registry;
	struct om_actor_id id = OM_NOBODY;
	struct om_reg_entry *entry;

	(void)pthread_mutex_lock(&reg->lock);
	entry = reg_find(reg, name);
	if (entry != NULL) {
		id.v = entry->id;
	}
	(void)pthread_mutex_unlock(&reg->lock);
	return id;
}

/* Any thread.  Copies the first name of an actor; false: it has none. */
bool
om_reg_name_of(struct om_system *sys, uint64_t id, char *out, size_t size)
{
	struct om_registry *reg = sys->registry;
	const struct om_reg_entry *entry;

	(void)pthread_mutex_lock(&reg->lock);
	entry = *reg_by_id(reg, id);
	while (entry != NULL && (entry->id != id || !entry->shown)) {
		entry = entry->next_id;
	}
	if (entry != NULL) {
		size_t len = strnlen(entry->name, size - 1);

		memcpy(out, entry->name, len);
		out[len] = '\0';
	}
	(void)pthread_mutex_unlock(&reg->lock);
	return entry != NULL;
}

/* --- groups -------------------------------------------------------------------------------------- */

/* The lock is held. */
static struct group *
group_find(struct om_registry *reg, const char *name)
{
	struct group *group = *reg_group(reg, name);

	while (group != NULL && strcmp(group->name, name) != 0) {
		group = group->next;
	}
	return group;
}

/* The lock is held.  NULL: no memory. */
static struct group *
group_make(struct om_registry *reg, const char *name)
{
	struct group **bucket = reg_group(reg, name);
	struct group *group = group_find(reg, name);

	if (group != NULL) {
		return group;
	}
	group = calloc(1, sizeof(*group));
	if (group != NULL) {
		memcpy(group->name, name, strlen(name) + 1);
		group->next = *bucket;
		*bucket = group;
	}
	return group;
}

/* The lock is held. */
static void
group_add(struct group *group, struct om_group_entry *entry)
{
	entry->group = group;
	entry->older = group->last;
	entry->newer = NULL;
	if (group->last != NULL) {
		group->last->newer = entry;
	} else {
		group->first = entry;
	}
	group->last = entry;
	group->count++;
}

/* The lock is held. */
static void
group_remove(struct om_system *sys, struct om_group_entry *entry)
{
	struct group *group = entry->group;

	if (entry->older != NULL) {
		entry->older->newer = entry->newer;
	} else {
		group->first = entry->newer;
	}
	if (entry->newer != NULL) {
		entry->newer->older = entry->older;
	} else {
		group->last = entry->older;
	}
	group->count--;
	if (strcmp(group->name, OM_GROUP_DEAD_LETTERS) == 0) {
		(void)om_shared_add(&sys->dead_letter_watchers, -1);
	}
}

enum om_err
om_join(struct om_ctx *cx, const char *name)
{
	struct om_registry *reg = cx->sys->registry;
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_group_entry *entry, *at;
	struct group *group;
	size_t len = strlen(name);

	if (len == 0 || len >= OM_NAME_MAX) {
		return OM_ERR_INVALID;
	}
	entry = malloc(sizeof(*entry));
	if (entry == NULL || ext == NULL) {
		free(entry);
		return OM_ERR_NOMEM;
	}
	(void)pthread_mutex_lock(&reg->lock);
	group = group_make(reg, name);
	for (at = ext->groups; at != NULL && at->group != group; at = at->next) {
	}
	if (group != NULL && at == NULL) {
		entry->id = cx->self_id;
		group_add(group, entry);
	}
	(void)pthread_mutex_unlock(&reg->lock);
	if (group == NULL || at != NULL) { /* no memory, or a member already */
		free(entry);
		return group == NULL ? OM_ERR_NOMEM : OM_OK;
	}
	entry->next = ext->groups;
	ext->groups = entry;
	if (strcmp(name, OM_GROUP_DEAD_LETTERS) == 0) {
		(void)om_shared_add(&cx->sys->dead_letter_watchers, 1);
	}
	return OM_OK;
}

void
om_leave(struct om_ctx *cx, const char *name)
{
	struct om_group_entry **at = cx->self->ext != NULL ? &cx->self->ext->groups : NULL;

	while (at != NULL && *at != NULL) {
		struct om_group_entry *entry = *at;

		if (strcmp(entry->group->name, name) == 0) {
			(void)pthread_mutex_lock(&cx->sys->registry->lock);
			group_remove(cx->sys, entry);
			(void)pthread_mutex_unlock(&cx->sys->registry->lock);
			*at = entry->next;
			free(entry);
			return;
		}
		at = &entry->next;
	}
}

/* Any thread.  Gives a copy of the list of members, to be freed. */
size_t
om_reg_members(struct om_system *sys, const char *name, uint64_t **out)
{
	struct om_registry *reg = sys->registry;
	const struct om_group_entry *entry;
	struct group *group;
	size_t n = 0;

	(void)pthread_mutex_lock(&reg->lock);
	group = group_find(reg, name);
	if (group != NULL && group->count > 0) {
		*out = malloc(group->count * sizeof(uint64_t));
		for (entry = group->first; *out != NULL && entry != NULL; entry = entry->newer) {
			(*out)[n++] = entry->id;
		}
	}
	(void)pthread_mutex_unlock(&reg->lock);
	return n;
}

/* The end of an actor: its names are free, it is in no group. */
void
om_reg_end(struct om_system *sys, struct om_actor *a)
{
	struct om_registry *reg = sys->registry;
	struct om_actor_ext *ext = a->ext;

	if (ext->names == NULL && ext->groups == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&reg->lock);
	while (ext->names != NULL) {
		struct om_reg_entry *entry = ext->names;
		struct om_reg_entry **at = reg_by_name(reg, entry->name);

		while (*at != entry) {
			at = &(*at)->next;
		}
		*at = entry->next;
		for (at = reg_by_id(reg, entry->id); *at != entry; at = &(*at)->next_id) {
		}
		*at = entry->next_id;
		reg->count--;
		ext->names = entry->other;
		free(entry);
	}
	while (ext->groups != NULL) {
		struct om_group_entry *entry = ext->groups;

		group_remove(sys, entry);
		ext->groups = entry->next;
		free(entry);
	}
	(void)pthread_mutex_unlock(&reg->lock);
}
