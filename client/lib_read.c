/* SPDX-License-Identifier: ISC */
/* Reading the fields of a body by name. */
#include "client/client_impl.h"

static const void *
body_read(const struct omerta_body *b, const char *field, enum om_kind kind)
{
	size_t i;
	const struct om_field_info *f = om_client_body_find(b, field, &i);

	if (f == NULL || f->kind != kind || (((*om_client_body_has(b)) >> i) & 1u) == 0) {
		return NULL;
	}
	return om_client_body_at(b, f);
}

bool
omerta_has(const struct omerta_body *body, const char *field)
{
	size_t i;

	return om_client_body_find(body, field, &i) != NULL &&
	       (((*om_client_body_has(body)) >> i) & 1u) != 0;
}

const char *
omerta_get_str(const struct omerta_body *body, const char *field)
{
	const struct om_str *s = body_read(body, field, OM_KIND_STR);

	return s != NULL ? s->ptr : NULL;
}

const void *
omerta_get_bin(const struct omerta_body *body, const char *field, size_t *len)
{
	const struct om_bin *b = body_read(body, field, OM_KIND_BIN);

	*len = b != NULL ? b->len : 0;
	return b != NULL ? b->ptr : NULL;
}

uint64_t
omerta_get_u64(const struct omerta_body *body, const char *field)
{
	const uint64_t *v = body_read(body, field, OM_KIND_U64);

	return v != NULL ? *v : 0;
}

int64_t
omerta_get_i64(const struct omerta_body *body, const char *field)
{
	const int64_t *v = body_read(body, field, OM_KIND_I64);
	uint64_t u = v == NULL ? omerta_get_u64(body, field) : 0;

	return v != NULL ? *v : (u > INT64_MAX ? INT64_MAX : (int64_t)u);
}

double
omerta_get_f64(const struct omerta_body *body, const char *field)
{
	const double *v = body_read(body, field, OM_KIND_F64);

	return v != NULL ? *v : 0.0;
}

bool
omerta_get_bool(const struct omerta_body *body, const char *field)
{
	const bool *v = body_read(body, field, OM_KIND_BOOL);

	return v != NULL && *v;
}

static const struct om_client_kids *
body_kids(const struct omerta_body *body, const char *field)
{
	size_t i = 0;

	if (om_client_body_find(body, field, &i) == NULL || body->kids == NULL) {
		return NULL;
	}
	return &body->kids[i];
}

size_t
omerta_count(const struct omerta_body *body, const char *field)
{
	const struct om_strs *strs = body_read(body, field, OM_KIND_STRS);
	const struct om_pairs *map = body_read(body, field, OM_KIND_MAP);
	const struct om_client_kids *kids = body_kids(body, field);

	if (strs != NULL || map != NULL) {
		return strs != NULL ? strs->n : map->n;
	}
	return kids != NULL ? kids->n : 0;
}

const char *
omerta_str_at(const struct omerta_body *body, const char *field, size_t i)
{
	const struct om_strs *list = body_read(body, field, OM_KIND_STRS);

	return list != NULL && i < list->n ? list->v[i].ptr : NULL;
}

bool
omerta_pair_at(const struct omerta_body *body, const char *field, size_t i, const char **key,
	       const char **value)
{
	const struct om_pairs *map = body_read(body, field, OM_KIND_MAP);

	if (map == NULL || i >= map->n) {
		return false;
	}
	*key = map->v[i].key.ptr;
	*value = map->v[i].value.ptr;
	return true;
}

const struct omerta_body *
omerta_body_at(const struct omerta_body *body, const char *field, size_t i)
{
	const struct om_client_kids *kids = body_kids(body, field);

	return kids != NULL && i < kids->n ? kids->v[i] : NULL;
}
