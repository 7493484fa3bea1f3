/* SPDX-License-Identifier: ISC */
/* Bodies from the wire. */
#include <stdlib.h>
#include <string.h>
#include "base/mp.h"
#include "client/client_impl.h"
#include "msg/codec.h"

static bool
body_terminate(struct omerta_body *b, struct om_str *s)
{
	char *copy = om_arena_str(&b->root->arena, *s);

	if (copy == NULL) {
		return false;
	}
	s->ptr = copy;
	return true;
}

static bool body_adopt(struct omerta_body *b);

static bool
body_adopt_field(struct omerta_body *b, size_t i, const struct om_field_info *f)
{
	void *at = om_client_body_at(b, f);
	struct om_strs *strs = at;
	struct om_pairs *map = at;
	struct om_error_list *list = at;
	struct omerta_body *kid;
	void *m;

	switch (f->kind) {
	case OM_KIND_STR:
		return body_terminate(b, at);
	case OM_KIND_STRS:
		for (size_t k = 0; k < strs->n; k++) {
			if (!body_terminate(b, (struct om_str *)(uintptr_t)&strs->v[k])) {
				return false;
			}
		}
		return true;
	case OM_KIND_MAP:
		for (size_t k = 0; k < map->n; k++) {
			struct om_pair *pair = (struct om_pair *)(uintptr_t)&map->v[k];

			if (!body_terminate(b, &pair->key) || !body_terminate(b, &pair->value)) {
				return false;
			}
		}
		return true;
	case OM_KIND_OBJ:
		memcpy(&m, at, sizeof(m));
		kid = om_client_body_add_kid(b, i, f->sub, m);
		return kid != NULL && body_adopt(kid);
	case OM_KIND_OBJS:
		for (size_t k = 0; k < list->n; k++) {
			m = (char *)list->v + k * om_body_info(f->sub)->size;
			kid = om_client_body_add_kid(b, i, f->sub, m);
			if (kid == NULL || !body_adopt(kid)) {
				return false;
			}
		}
		return true;
	default:
		return true;
	}
}

/* Gives a decoded struct its wrappers and terminated strings.  Depth: that of the schema. */
static bool
body_adopt(struct omerta_body *b)
{
	const struct om_body_info *info = om_body_info(b->type);

	for (size_t i = 0; i < info->field_count; i++) {
		if ((((*om_client_body_has(b)) >> i) & 1u) != 0 &&
		    !body_adopt_field(b, i, &info->fields[i])) {
			return false;
		}
	}
	return true;
}

/* Copies a map without the fields that this version does not know. */
static enum om_err
body_strip(enum om_body_type type, struct om_mp *in, struct om_buf *out)
{
	const struct omerta_body probe = { .magic = OMERTA_BODY_MAGIC, .type = type };
	struct om_buf kept = { 0 };
	enum om_err err;
	size_t count, known = 0;

	err = om_mp_map(in, &count);
	for (size_t n = 0; err == OM_OK && n < count; n++) {
		const struct om_field_info *f;
		char name[64];
		struct om_str key;
		struct om_mp value;
		size_t i, elements = 1;

		if ((err = om_mp_str(in, &key)) != OM_OK) {
			break;
		}
		f = om_str_copy(key, name, sizeof(name)) == OM_OK
			? om_client_body_find(&probe, name, &i)
			: NULL;
		value = *in;
		if (f == NULL) {
			err = om_mp_skip(in);
			continue;
		}
		known++;
		om_mp_put_str(&kept, key);
		if (f->kind == OM_KIND_OBJS) {
			err = om_mp_array(in, &elements);
			om_mp_put_array(&kept, elements);
		}
		if (f->kind == OM_KIND_OBJS || f->kind == OM_KIND_OBJ) {
			for (size_t k = 0; err == OM_OK && k < elements; k++) {
				err = body_strip(f->sub, in, &kept);
			}
		} else if ((err = om_mp_skip(in)) == OM_OK) {
			om_buf_add(&kept, value.at, (size_t)(in->at - value.at));
		}
	}
	om_mp_put_map(out, known);
	om_buf_add(out, kept.data, kept.len);
	if (err == OM_OK && (out->failed || kept.failed)) {
		err = OM_ERR_NOMEM;
	}
	om_buf_fini(&kept);
	return err;
}

enum om_err
om_client_body_decode(enum om_body_type type, struct om_bin data, struct omerta_body **out,
		      struct om_why *why)
{
	struct omerta_body *body = om_client_body_new(type);
	struct omerta_body_root *root;
	enum om_err err;

	if (body == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	root = body->root;
	root->frame = malloc(data.len + 1);
	if (root->frame == NULL) {
		err = om_why_set(why, OM_ERR_NOMEM, "out of memory");
		goto out;
	}
	memcpy(root->frame, data.ptr, data.len);
	data.ptr = root->frame;
	err = om_body_decode(type, data, body->m, &root->arena, why);
	if (err == OM_ERR_UNKNOWN_FIELD) {
		/* A newer daemon: fields are only ever added, and what we know keeps its meaning. */
		struct om_mp in;

		om_mp_init(&in, data.ptr, data.len);
		err = body_strip(type, &in, &root->stripped);
		if (err == OM_OK) {
			memset(body->m, 0, om_body_info(type)->size);
			err = om_body_decode(
			    type, (struct om_bin){ root->stripped.data, root->stripped.len },
			    body->m, &root->arena, why);
		}
	}
	if (err == OM_OK && !body_adopt(body)) {
		err = om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
out:
	if (err != OM_OK) {
		omerta_body_free(body);
		return err;
	}
	*out = body;
	return OM_OK;
}
