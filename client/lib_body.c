/* SPDX-License-Identifier: ISC */
/*
 * Bodies whose fields are named by strings, over the structs of the schema.  A C program that was
 * linked against an older library keeps working when a message gets a new field, because no struct of
 * the schema is part of the library's interface.
 *
 * 1. Every string that a reader can get is NUL-terminated.  If broken: omerta_get_str overruns.
 * 2. Lists grow by doubling in the arena when their count is a power of two, so a list of n elements
 *    has room for the next power of two.  If broken: an append writes past the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/mp.h"
#include "base/parse.h"
#include "base/secret.h"
#include "client/client_impl.h"
#include "msg/codec.h"

/* --- fields --------------------------------------------------------------------------------------- */

uint64_t *
om_client_body_has(const struct omerta_body *b)
{
	return (uint64_t *)b->m; /* `has` is the first member of every struct of the schema */
}

void *
om_client_body_at(const struct omerta_body *b, const struct om_field_info *f)
{
	return (char *)b->m + f->offset;
}

const struct om_field_info *
om_client_body_find(const struct omerta_body *b, const char *field, size_t *index)
{
	const struct om_body_info *info;

	if (b == NULL) {
		return NULL;
	}
	OM_ASSERT(b->magic == OMERTA_BODY_MAGIC);
	info = om_body_info(b->type);
	for (size_t i = 0; i < info->field_count; i++) {
		if (strcmp(info->fields[i].name, field) == 0) {
			*index = i;
			return &info->fields[i];
		}
	}
	return NULL;
}

static void body_fail(struct omerta_body *b, const char *fmt, ...) OM_PRINTF(2, 3);

static void
body_fail(struct omerta_body *b, const char *fmt, ...)
{
	va_list ap;

	if (b->root->error[0] != '\0') {
		return; /* the first one is the cause */
	}
	va_start(ap, fmt);
	(void)vsnprintf(b->root->error, sizeof(b->root->error), fmt, ap);
	va_end(ap);
}

static void
body_fail_unknown(struct omerta_body *b, const char *field)
{
	const struct om_body_info *info = om_body_info(b->type);
	const char *names[64];
	const char *near;

	for (size_t i = 0; i < info->field_count; i++) {
		names[i] = info->fields[i].name;
	}
	near = om_nearest(field, names, info->field_count);
	body_fail(b, "%s has no field \"%s\"%s%s%s", info->name, field,
		  near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
		  near != NULL ? "\"?" : "");
}

/* The field to write, with its bit set; NULL when there is none of that kind. */
static void *
body_write(struct omerta_body *b, const char *field, enum om_kind kind, enum om_kind other)
{
	const struct om_field_info *f;
	size_t i;

	if (b == NULL) {
		return NULL;
	}
	f = om_client_body_find(b, field, &i);
	if (f == NULL) {
		body_fail_unknown(b, field);
		return NULL;
	}
	if (f->kind != kind && f->kind != other) {
		body_fail(b, "the field \"%s\" of %s is of another kind", field,
			  om_body_info(b->type)->name);
		return NULL;
	}
	*om_client_body_has(b) |= UINT64_C(1) << i;
	return om_client_body_at(b, f);
}

/* --- life ----------------------------------------------------------------------------------------- */

static bool
body_init(struct omerta_body *b, enum om_body_type type, struct omerta_body_root *root, void *m)
{
	const struct om_body_info *info = om_body_info(type);

	b->magic = OMERTA_BODY_MAGIC;
	b->type = type;
	b->root = root;
	b->m = m != NULL ? m : om_arena_alloc(&root->arena, info->size);
	if (b->m == NULL) {
		return false;
	}
	for (size_t i = 0; i < info->field_count; i++) {
		if (info->fields[i].kind == OM_KIND_OBJ || info->fields[i].kind == OM_KIND_OBJS) {
			b->kids =
			    om_arena_alloc(&root->arena, info->field_count * sizeof(*b->kids));
			return b->kids != NULL;
		}
	}
	return true;
}

struct omerta_body *
om_client_body_new(enum om_body_type type)
{
	struct omerta_body_root *root = calloc(1, sizeof(*root));

	if (root == NULL) {
		return NULL;
	}
	if (!body_init(&root->body, type, root, NULL)) {
		omerta_body_free(&root->body);
		return NULL;
	}
	return &root->body;
}

struct omerta_body *
omerta_body_new(const char *type)
{
	enum om_msg_type msg = om_msg_type_find(om_str_of(type));

	return msg != OM_MSG_NONE ? om_client_body_new(om_msg_info(msg)->body) : NULL;
}

/* Keys are the only secrets that a body can hold by name. */
static void
body_wipe(struct omerta_body *b)
{
	const struct om_body_info *info = om_body_info(b->type);

	if (b->type == OM_BODY_vpn_config) {
		struct om_vpn_config *vpn = b->m;
		struct om_str secrets[] = { vpn->private_key, vpn->preshared_key };

		for (size_t i = 0; i < OM_COUNT(secrets); i++) {
			if (secrets[i].ptr != NULL) {
				om_secret_wipe((char *)(uintptr_t)secrets[i].ptr, secrets[i].len);
			}
		}
	}
	for (size_t i = 0; b->kids != NULL && i < info->field_count; i++) {
		for (size_t k = 0; k < b->kids[i].n; k++) {
			body_wipe(b->kids[i].v[k]);
		}
	}
}

void
omerta_body_free(struct omerta_body *body)
{
	struct omerta_body_root *root;

	if (body == NULL) {
		return;
	}
	OM_ASSERT(body->magic == OMERTA_BODY_MAGIC);
	root = body->root;
	if (&root->body != body) {
		return; /* ends with its parent */
	}
	if (body->m != NULL) {
		body_wipe(body);
	}
	body->magic = 0;
	om_arena_fini(&root->arena);
	om_buf_fini(&root->stripped);
	free(root->frame);
	free(root);
}

const char *
omerta_body_error(const struct omerta_body *body)
{
	return body != NULL && body->root->error[0] != '\0' ? body->root->error : NULL;
}

/* --- writing -------------------------------------------------------------------------------------- */

static struct om_str
body_copy(struct omerta_body *b, const char *data, size_t len)
{
	char *copy = om_arena_str(&b->root->arena, (struct om_str){ data, len });

	if (copy == NULL) {
		body_fail(b, "out of memory");
		return (struct om_str){ "", 0 };
	}
	return (struct om_str){ copy, len };
}

void
omerta_set_str(struct omerta_body *body, const char *field, const char *value)
{
	void *at = body_write(body, field, OM_KIND_STR, OM_KIND_BIN);

	/* A BIN field takes text too: a script is usually a string in the program. */
	if (at != NULL) {
		struct om_str s = body_copy(body, value, strlen(value));

		memcpy(at, &s, sizeof(s));
	}
}

void
omerta_set_bin(struct omerta_body *body, const char *field, const void *data, size_t len)
{
	void *at = body_write(body, field, OM_KIND_BIN, OM_KIND_BIN);

	if (at != NULL) {
		struct om_str s = body_copy(body, data, len);

		memcpy(at, &s, sizeof(s));
	}
}

void
omerta_set_u64(struct omerta_body *body, const char *field, uint64_t value)
{
	uint64_t *at = body_write(body, field, OM_KIND_U64, OM_KIND_U64);

	if (at != NULL) {
		*at = value;
	}
}

void
omerta_set_bool(struct omerta_body *body, const char *field, bool value)
{
	bool *at = body_write(body, field, OM_KIND_BOOL, OM_KIND_BOOL);

	if (at != NULL) {
		*at = value;
	}
}

/* Room for one more element of a list; the old array stays in the arena until the end. */
static void *
body_grow(struct omerta_body *b, const void *v, size_t n, size_t size)
{
	void *grown;

	if (n != 0 && (n & (n - 1)) != 0) {
		return (void *)(uintptr_t)v;
	}
	grown = om_arena_alloc(&b->root->arena, (n == 0 ? 1 : 2 * n) * size);
	if (grown == NULL) {
		body_fail(b, "out of memory");
		return NULL;
	}
	if (n != 0) {
		memcpy(grown, v, n * size);
	}
	return grown;
}

void
omerta_add_str(struct omerta_body *body, const char *field, const char *value)
{
	struct om_strs *list = body_write(body, field, OM_KIND_STRS, OM_KIND_STRS);
	struct om_str *grown;

	if (list == NULL) {
		return;
	}
	grown = body_grow(body, list->v, list->n, sizeof(*grown));
	if (grown != NULL) {
		grown[list->n] = body_copy(body, value, strlen(value));
		list->v = grown;
		list->n++;
	}
}

void
omerta_add_pair(struct omerta_body *body, const char *field, const char *key, const char *value)
{
	struct om_pairs *map = body_write(body, field, OM_KIND_MAP, OM_KIND_MAP);
	struct om_pair *grown;

	if (map == NULL) {
		return;
	}
	grown = (struct om_pair *)(uintptr_t)map->v;
	for (size_t i = 0; i < map->n; i++) {
		if (om_str_is(grown[i].key, key)) {
			grown[i].value = body_copy(body, value, strlen(value));
			return;
		}
	}
	grown = body_grow(body, map->v, map->n, sizeof(*grown));
	if (grown != NULL) {
		grown[map->n].key = body_copy(body, key, strlen(key));
		grown[map->n].value = body_copy(body, value, strlen(value));
		map->v = grown;
		map->n++;
	}
}

/* One more wrapper under field i. */
struct omerta_body *
om_client_body_add_kid(struct omerta_body *b, size_t i, enum om_body_type type, void *m)
{
	struct om_client_kids *kids = &b->kids[i];
	struct omerta_body *kid = om_arena_alloc(&b->root->arena, sizeof(*kid));
	struct omerta_body **v = body_grow(b, kids->v, kids->n, sizeof(struct omerta_body *));

	if (kid == NULL || v == NULL || !body_init(kid, type, b->root, m)) {
		body_fail(b, "out of memory");
		return NULL;
	}
	v[kids->n] = kid;
	kids->v = v;
	kids->n++;
	return kid;
}

static struct omerta_body *
body_add_element(struct omerta_body *b, size_t i, const struct om_field_info *f)
{
	struct om_client_kids *kids = &b->kids[i];
	size_t size = om_body_info(f->sub)->size;
	struct om_error_list *list = om_client_body_at(b, f); /* all lists have the same members */
	char *v = body_grow(b, list->v, list->n, size);
	struct omerta_body *kid;

	if (v == NULL) {
		return NULL;
	}
	for (size_t k = 0; k < kids->n; k++) {
		kids->v[k]->m = v + k * size; /* the array may have moved */
	}
	memset(v + list->n * size, 0, size);
	list->v = (void *)v;
	kid = om_client_body_add_kid(b, i, f->sub, v + list->n * size);
	if (kid != NULL) {
		list->n++;
	}
	return kid;
}

struct omerta_body *
omerta_add_body(struct omerta_body *body, const char *field)
{
	const struct om_field_info *f;
	struct omerta_body *kid;
	size_t i;
	void *at = body_write(body, field, OM_KIND_OBJ, OM_KIND_OBJS);

	if (at == NULL) {
		return NULL;
	}
	f = om_client_body_find(body, field, &i);
	if (f->kind == OM_KIND_OBJS) {
		return body_add_element(body, i, f);
	}
	if (body->kids[i].n != 0) {
		return body->kids[i].v[0];
	}
	kid = om_client_body_add_kid(body, i, f->sub, NULL);
	if (kid != NULL) {
		memcpy(at, &kid->m, sizeof(kid->m));
	}
	return kid;
}

const char *
om_client_body_missing(const struct omerta_body *body, char *out, size_t out_size)
{
	const struct om_body_info *info = om_body_info(body->type);
	char inner[OM_WHY_MAX];

	for (size_t i = 0; i < info->field_count; i++) {
		if (info->fields[i].required && (((*om_client_body_has(body)) >> i) & 1u) == 0) {
			(void)snprintf(out, out_size, "%s", info->fields[i].name);
			return out;
		}
		for (size_t k = 0; body->kids != NULL && k < body->kids[i].n; k++) {
			if (om_client_body_missing(body->kids[i].v[k], inner, sizeof(inner)) !=
			    NULL) {
				(void)snprintf(out, out_size, "%s.%s", info->fields[i].name, inner);
				return out;
			}
		}
	}
	return NULL;
}
