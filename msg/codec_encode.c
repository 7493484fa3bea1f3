/* SPDX-License-Identifier: ISC */
/* Structs to bodies.  One function per kind of field, found through a table. */
#include <string.h>

#include "base/mp.h"
#include "msg/codec.h"
#include "msg/codec_impl.h"

typedef enum om_err (*enc_fn)(struct om_buf *out, const struct om_field_info *f, const void *slot);

static enum om_err enc_body(struct om_buf *out, enum om_body_type body, const void *in);

static enum om_err
enc_u64(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	(void)f;
	om_mp_put_u64(out, *(const uint64_t *)slot);
	return OM_OK;
}

static enum om_err
enc_i64(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	(void)f;
	om_mp_put_i64(out, *(const int64_t *)slot);
	return OM_OK;
}

static enum om_err
enc_f64(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	(void)f;
	om_mp_put_f64(out, *(const double *)slot);
	return OM_OK;
}

static enum om_err
enc_bool(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	(void)f;
	om_mp_put_bool(out, *(const bool *)slot);
	return OM_OK;
}

static enum om_err
enc_str(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	(void)f;
	om_mp_put_str(out, *(const struct om_str *)slot);
	return OM_OK;
}

static enum om_err
enc_bin(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	(void)f;
	om_mp_put_bin(out, *(const struct om_bin *)slot);
	return OM_OK;
}

static enum om_err
enc_raw(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	const struct om_bin *v = slot;

	(void)f;
	if (om_mp_check(v->ptr, v->len) != OM_OK) {
		return OM_ERR_INVALID;
	}
	om_buf_add(out, v->ptr, v->len);
	return OM_OK;
}

static enum om_err
enc_strs(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	const struct om_strs *v = slot;

	(void)f;
	om_mp_put_array(out, v->n);
	for (size_t i = 0; i < v->n; i++) {
		om_mp_put_str(out, v->v[i]);
	}
	return OM_OK;
}

static enum om_err
enc_map(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	const struct om_pairs *v = slot;

	(void)f;
	om_mp_put_map(out, v->n);
	for (size_t i = 0; i < v->n; i++) {
		om_mp_put_str(out, v->v[i].key);
		om_mp_put_str(out, v->v[i].value);
	}
	return OM_OK;
}

static enum om_err
enc_obj(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	const void *obj;

	memcpy(&obj, slot, sizeof(obj));
	return obj != NULL ? enc_body(out, f->sub, obj) : OM_ERR_INVALID;
}

static enum om_err
enc_objs(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	size_t size = om_body_info(f->sub)->size;
	enum om_err err = OM_OK;
	struct any_list list;

	memcpy(&list, slot, sizeof(list));
	om_mp_put_array(out, list.n);
	for (size_t i = 0; i < list.n && err == OM_OK; i++) {
		err = enc_body(out, f->sub, (const char *)list.v + i * size);
	}
	return err;
}

static const enc_fn encoders[] = {
	[OM_KIND_U64] = enc_u64,   [OM_KIND_I64] = enc_i64,   [OM_KIND_F64] = enc_f64,
	[OM_KIND_BOOL] = enc_bool, [OM_KIND_STR] = enc_str,   [OM_KIND_BIN] = enc_bin,
	[OM_KIND_RAW] = enc_raw,   [OM_KIND_STRS] = enc_strs, [OM_KIND_MAP] = enc_map,
	[OM_KIND_OBJ] = enc_obj,   [OM_KIND_OBJS] = enc_objs,
};

/* Its name and value.  Those of nearly all are short: both in place then, with one look for the room. */
static inline enum om_err
enc_field(struct om_buf *out, const struct om_field_info *f, const void *slot)
{
	const struct om_str *s = slot;
	uint8_t *at;

	if (!om_buf_fits(out, 1 + sizeof(f->name) + OM_MP_PLACE_MAX)) {
		om_mp_put_str(out, (struct om_str){ f->name, f->name_len });
		return encoders[f->kind](out, f, slot);
	}
	at = out->data + out->len;
	*at = 0xa0 | f->name_len;
	memcpy(at + 1, f->name, sizeof(f->name)); /* a constant length: two moves */
	at += 1 + f->name_len;
	if (f->kind == OM_KIND_U64) {
		at = om_mp_place_u64(at, *(const uint64_t *)slot);
	} else if (f->kind == OM_KIND_STR && s->len <= OM_MP_PLACE_STR_MAX) {
		at = om_mp_place_str(at, *s);
	} else {
		out->len = (size_t)(at - out->data);
		return encoders[f->kind](out, f, slot);
	}
	out->len = (size_t)(at - out->data);
	return OM_OK;
}

static enum om_err
enc_body(struct om_buf *out, enum om_body_type body, const void *in)
{
	const struct om_body_info *info = om_body_info(body);
	enum om_err err = OM_OK;
	uint64_t goes;

	memcpy(&goes, in, sizeof(goes));
	goes &= info->field_count == 64 ? UINT64_MAX : (UINT64_C(1) << info->field_count) - 1;
	goes |= info->required;
	om_mp_put_map(out, (size_t)__builtin_popcountll(goes));
	for (; goes != 0 && err == OM_OK; goes &= goes - 1) {
		const struct om_field_info *f = &info->fields[__builtin_ctzll(goes)];

		err = enc_field(out, f, (const char *)in + f->offset);
	}
	return err;
}

enum om_err
om_body_encode(enum om_body_type body, const void *in, struct om_buf *out)
{
	enum om_err err = enc_body(out, body, in);

	return err == OM_OK && out->failed ? OM_ERR_NOMEM : err;
}
