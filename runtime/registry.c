/* SPDX-License-Identifier: ISC */
/*
 * Names and groups: two hash tables under one lock.  Both are for finding actors, not for the hot
 * path: look a name up once and keep the id; a stale id says so.
 */
#include <stdlib.h>
#include <string.h>
#include "runtime/runtime_impl.h"

#define REG_BUCKETS 256

struct om_reg_entry {
	struct om_reg_entry *next; /* bucket */
	struct om_reg_entry *other; /* of the same actor */
	uint64_t id;
	char name[OM_NAME_MAX];
};

struct group {
	struct group *next;
	uint64_t *members;
	size_t count, cap;
	char name[OM_NAME_MAX];
};

struct om_group_entry { /* one membership, in the actor's ext */
	struct om_group_entry *next;
	struct group *group; /* groups live as long as the system */
};

struct om_registry {
	pthread_mutex_t lock;
	struct om_reg_entry *names[REG_BUCKETS];
	struct group *groups[REG_BUCKETS];
};

static unsigned
reg_hash(const char *name)
{
	uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

	while (*name != '\0') {
		h = (h ^ (unsigned char)*name++) * UINT64_C(1099511628211);
	}
	return (unsigned)(h ^ h >> 32) % REG_BUCKETS;
}

enum om_err
om_reg_init(struct om_system *sys)
{
	sys->registry = calloc(1, sizeof(*sys->registry));
	if (sys->registry == NULL) {
		return OM_ERR_NOMEM;
	}
	(void)pthread_mutex_init(&sys->registry->lock, NULL);
	return OM_OK;
}

void
om_reg_fini(struct om_system *sys)
{
	struct om_registry *reg = sys->registry;

	if (reg == NULL) {
		return;
	}
	for (unsigned i = 0; i < REG_BUCKETS; i++) {
		while (reg->names[i] != NULL) { /* of actors that were stuck at the end */
			struct om_reg_entry *entry = reg->names[i];

			reg->names[i] = entry->next;
			free(entry);
		}
		while (reg->groups[i] != NULL) {
			struct group *group = reg->groups[i];

			reg->groups[i] = group->next;
			free(group->members);
			free(group);
		}
	}
	(void)pthread_mutex_destroy(&reg->lock);
	free(reg);
}

/* --- names --------------------------------------------------------------------------------------- */

static struct om_reg_entry *
reg_find(struct om_registry *reg, const char *name)
{
	struct om_reg_entry *entry = reg->names[reg_hash(name)];

	while (entry != NULL && strcmp(entry->name, name) != 0) {
		entry = entry->next;
	}
	return entry;
}

/* The running thread of `a`, or before it runs.  The same name again (a restart) is fine. */
enum om_err
om_reg_name(struct om_system *sys, struct om_actor *a, uint64_t id, const char *name)
{
	struct om_registry *reg = sys->registry;
	struct om_actor_ext *ext = om_actor_ext(a);
	struct om_reg_entry *entry, *old;
	size_t len = strlen(name);
	unsigned bucket;

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
	bucket = reg_hash(name);
	(void)pthread_mutex_lock(&reg->lock);
	old = reg_find(reg, name);
	if (old == NULL) {
		entry->next = reg->names[bucket];
		reg->names[bucket] = entry;
		entry->other = ext->names;
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
	bool found = false;

	(void)pthread_mutex_lock(&reg->lock);
	for (unsigned i = 0; i < REG_BUCKETS && !found; i++) {
		for (struct om_reg_entry *e = reg->names[i]; e != NULL && !found; e = e->next) {
			if (e->id == id) {
				size_t len = strnlen(e->name, size - 1);

				memcpy(out, e->name, len);
				out[len] = '\0';
				found = true;
			}
		}
	}
	(void)pthread_mutex_unlock(&reg->lock);
	return found;
}

/* --- groups -------------------------------------------------------------------------------------- */

/* The lock is held. */
static struct group *
group_find(struct om_registry *reg, const char *name)
{
	struct group *group = reg->groups[reg_hash(name)];

	while (group != NULL && strcmp(group->name, name) != 0) {
		group = group->next;
	}
	return group;
}

/* The lock is held.  NULL: no memory. */
static struct group *
group_make(struct om_registry *reg, const char *name)
{
	unsigned bucket = reg_hash(name);
	struct group *group = group_find(reg, name);

	if (group != NULL) {
		return group;
	}
	group = calloc(1, sizeof(*group));
	if (group != NULL) {
		memcpy(group->name, name, strlen(name) + 1);
		group->next = reg->groups[bucket];
		reg->groups[bucket] = group;
	}
	return group;
}

/* The lock is held. */
static bool
group_add(struct group *group, uint64_t id)
{
	if (group->count == group->cap) {
		size_t cap = group->cap != 0 ? group->cap * 2 : 4;
		uint64_t *members = realloc(group->members, cap * sizeof(*members));

		if (members == NULL) {
			return false;
		}
		group->members = members;
		group->cap = cap;
	}
	group->members[group->count++] = id;
	return true;
}

static void
group_remove(struct om_system *sys, struct group *group, uint64_t id)
{
	for (size_t i = 0; i < group->count; i++) {
		if (group->members[i] == id) {
			/* Keeps the order: publishing goes to members in the order of joining. */
			memmove(&group->members[i], &group->members[i + 1],
				(group->count - i - 1) * sizeof(group->members[0]));
			group->count--;
			break;
		}
	}
	if (strcmp(group->name, OM_GROUP_DEAD_LETTERS) == 0) {
		(void)om_shared_add(&sys->dead_letter_watchers, -1);
	}
}

enum om_err
om_join(struct om_ctx *cx, const char *name)
{
	struct om_registry *reg = cx->sys->registry;
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct om_group_entry *entry = malloc(sizeof(*entry)), *at;
	struct group *group = NULL;
	bool ok = false;
	size_t len = strlen(name);

	if (len == 0 || len >= OM_NAME_MAX) {
		free(entry);
		return OM_ERR_INVALID;
	}
	if (entry != NULL && ext != NULL) {
		(void)pthread_mutex_lock(&reg->lock);
		group = group_make(reg, name);
		for (at = ext->groups; at != NULL && at->group != group; at = at->next) {
		}
		if (group != NULL && at != NULL) { /* a member already */
			(void)pthread_mutex_unlock(&reg->lock);
			free(entry);
			return OM_OK;
		}
		ok = group != NULL && group_add(group, cx->self_id);
		(void)pthread_mutex_unlock(&reg->lock);
	}
	if (!ok) {
		free(entry);
		return OM_ERR_NOMEM;
	}
	*entry = (struct om_group_entry){ .next = ext->groups, .group = group };
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
			group_remove(cx->sys, entry->group, cx->self_id);
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
	struct group *group;
	size_t n = 0;

	(void)pthread_mutex_lock(&reg->lock);
	group = group_find(reg, name);
	if (group != NULL && group->count > 0) {
		*out = malloc(group->count * sizeof(uint64_t));
		if (*out != NULL) {
			n = group->count;
			memcpy(*out, group->members, n * sizeof(uint64_t));
		}
	}
	(void)pthread_mutex_unlock(&reg->lock);
	return n;
}

/* The end of an actor: its names are free, it is in no group. */
void
om_reg_end(struct om_system *sys, struct om_actor *a, uint64_t id)
{
	struct om_registry *reg = sys->registry;
	struct om_actor_ext *ext = a->ext;

	if (ext->names == NULL && ext->groups == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&reg->lock);
	while (ext->names != NULL) {
		struct om_reg_entry *entry = ext->names;
		struct om_reg_entry **at = &reg->names[reg_hash(entry->name)];

		while (*at != entry) {
			at = &(*at)->next;
		}
		*at = entry->next;
		ext->names = entry->other;
		free(entry);
	}
	while (ext->groups != NULL) {
		struct om_group_entry *entry = ext->groups;

		group_remove(sys, entry->group, id);
		ext->groups = entry->next;
		free(entry);
	}
	(void)pthread_mutex_unlock(&reg->lock);
}
