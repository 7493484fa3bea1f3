/* SPDX-License-Identifier: ISC */
/*
 * Bodies to structs (codec_encode.c: and back).  One function per kind of field, found through a table.
 *
 * 1. Every count and length was checked by base/mp.c against the bytes that are there, and is
 *    checked here against the field's limit, before anything is allocated for it.
 * 2. Recursion follows OBJ and OBJS, so its depth is the schema's, not the input's.
 * 3. A decoded struct is complete: each required field was there, none twice, none unknown.
 */
#include "msg/codec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mp.h"
#include "base/parse.h"
#include "msg/codec_impl.h"

#define KEY_SHOWN_MAX 48 /* bytes of an unknown key that an error repeats */
#define NO_INDEX      SIZE_MAX

/* Where the decoder is, for the words of an error: a chain up to the outermost body. */
struct place {
	const struct place *up;
	const char *field;
	size_t index; /* in an array, or NO_INDEX */
};

struct dec {
	struct om_mp mp;
	struct om_arena *arena;
	struct om_why *why;
};

typedef enum om_err (*dec_fn)(struct dec *d, const struct om_field_info *f, void *slot,
			      const struct place *at);

static enum om_err dec_body(struct dec *d, enum om_body_type body, void *out,
			    const struct place *at);

/* --- errors that name the field --------------------------------------------------------------- */

/* "files[2].name"; depth is that of the schema. */
static size_t
path_format(const struct place *at, char *out, size_t size)
{
	size_t len = 0;
	int n;

	if (at == NULL) {
		out[0] = '\0';
		return 0;
	}
	len = path_format(at->up, out, size);
	n = snprintf(out + len, size - len, "%s%s", len > 0 ? "." : "", at->field);
	len = n > 0 && (size_t)n < size - len ? len + (size_t)n : size - 1;
	if (at->index != NO_INDEX) {
		n = snprintf(out + len, size - len, "[%zu]", at->index);
		len = n > 0 && (size_t)n < size - len ? len + (size_t)n : size - 1;
	}
	return len;
}

static enum om_err dec_fail(struct dec *d, const struct place *at, enum om_err err, const char *fmt,
			    ...) OM_PRINTF(4, 5);

static enum om_err
dec_fail(struct dec *d, const struct place *at, enum om_err err, const char *fmt, ...)
{
	char path[OM_WHY_MAX / 2];
	char text[OM_WHY_MAX / 2];
	va_list ap;

	if (d->why == NULL) {
		return err;
	}
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)path_format(at, path, sizeof(path));
	return om_why_set(d->why, err, "%s%s%s", path, path[0] != '\0' ? ": " : "", text);
}

static enum om_err
dec_bad_kind(struct dec *d, const struct place *at, const char *wanted)
{
	if (om_mp_peek(&d->mp) == OM_MP_BAD) {
		return dec_fail(d, at, OM_ERR_INVALID, "damaged or cut off");
	}
	return dec_fail(d, at, OM_ERR_INVALID, "wants %s", wanted);
}

static enum om_err
dec_over(struct dec *d, const struct place *at, size_t n, const char *unit, uint64_t limit)
{
	return dec_fail(d, at, OM_ERR_TOO_BIG, "%zu %s, at most %llu", n, unit,
			(unsigned long long)limit);
}

static enum om_err
dec_no_memory(struct dec *d, const struct place *at)
{
	return dec_fail(d, at, OM_ERR_NOMEM, "no memory for the decoded message");
}

/* The key is the peer's text: cut at a character's end, and shown as far as it is printable. */
static enum om_err
dec_unknown(struct dec *d, const struct om_body_info *info, struct om_str key,
	    const struct place *at)
{
	const char *names[64] = { NULL };
	const char *near;
	char shown[KEY_SHOWN_MAX + 1];
	size_t len = key.len < KEY_SHOWN_MAX ? key.len : KEY_SHOWN_MAX;

	while (len > 0 && !om_utf8_valid((struct om_str){ key.ptr, len })) {
		len--;
	}
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)key.ptr[i];

		shown[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	shown[len] = '\0';
	for (size_t i = 0; i < info->field_count; i++) {
		names[i] = info->fields[i].name;
	}
	near = key.len <= KEY_SHOWN_MAX ? om_nearest(shown, names, info->field_count) : NULL;
	if (near != NULL) {
		return dec_fail(d, at, OM_ERR_UNKNOWN_FIELD,
				"unknown field \"%s\"; did you mean \"%s\"?", shown, near);
	}
	return dec_fail(d, at, OM_ERR_UNKNOWN_FIELD, "unknown field \"%s\"%s", shown,
			len < key.len ? " (cut)" : "");
}

/* --- decoding, one kind each ------------------------------------------------------------------ */

static enum om_err
dec_u64(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	uint64_t *v = slot;

	if (om_mp_u64(&d->mp, v) != OM_OK) {
		return dec_bad_kind(d, at, "a whole number, not negative");
	}
	if (*v > f->limit) {
		return dec_fail(d, at, OM_ERR_INVALID, "%llu is over %llu", (unsigned long long)*v,
				(unsigned long long)f->limit);
	}
	return OM_OK;
}

static enum om_err
dec_i64(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	(void)f;
	if (om_mp_i64(&d->mp, slot) != OM_OK) {
		return dec_bad_kind(d, at, "a whole number");
	}
	return OM_OK;
}

static enum om_err
dec_f64(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	double *v = slot;

	(void)f;
	if (om_mp_f64(&d->mp, v) != OM_OK) {
		return dec_bad_kind(d, at, "a number");
	}
	/* Not a number and infinity have no form in JSON and no meaning in any field. */
	if (!isfinite(*v)) {
		return dec_fail(d, at, OM_ERR_INVALID, "not a finite number");
	}
	return OM_OK;
}

static enum om_err
dec_bool(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	(void)f;
	if (om_mp_bool(&d->mp, slot) != OM_OK) {
		return dec_bad_kind(d, at, "true or false");
	}
	return OM_OK;
}

/* Also for the items of STRS and MAP. */
static enum om_err
dec_text(struct dec *d, uint64_t limit, struct om_str *out, const struct place *at)
{
	if (om_mp_str(&d->mp, out) != OM_OK) {
		if (om_mp_peek(&d->mp) == OM_MP_STR) {
			return dec_fail(d, at, OM_ERR_INVALID, "not valid UTF-8");
		}
		return dec_bad_kind(d, at, "a string");
	}
	return out->len > limit ? dec_over(d, at, out->len, "bytes", limit) : OM_OK;
}

static enum om_err
dec_str(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	return dec_text(d, f->limit, slot, at);
}

static enum om_err
dec_bin(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	struct om_bin *v = slot;

	if (om_mp_bin(&d->mp, v) != OM_OK) {
		return dec_bad_kind(d, at, "bytes");
	}
	return v->len > f->limit ? dec_over(d, at, v->len, "bytes", f->limit) : OM_OK;
}

static enum om_err
dec_raw(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	const uint8_t *from = d->mp.at;
	struct om_bin *v = slot;
	enum om_err err = om_mp_skip(&d->mp);

	if (err != OM_OK) {
		return dec_fail(d, at, err,
				err == OM_ERR_TOO_BIG ? "nested too deeply" : "damaged or cut off");
	}
	*v = (struct om_bin){ from, (size_t)(d->mp.at - from) };
	return v->len > f->limit ? dec_over(d, at, v->len, "bytes", f->limit) : OM_OK;
}

static enum om_err
dec_strs(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	struct om_strs *v = slot;
	struct place item = *at;
	struct om_str *items;
	enum om_err err = OM_OK;
	size_t n;

	if (om_mp_array(&d->mp, &n) != OM_OK) {
		return dec_bad_kind(d, at, "an array of strings");
	}
	if (n > f->limit) {
		return dec_over(d, at, n, "entries", f->limit);
	}
	items = om_arena_alloc(d->arena, n * sizeof(*items));
	if (items == NULL) {
		return dec_no_memory(d, at);
	}
	for (size_t i = 0; i < n && err == OM_OK; i++) {
		item.index = i;
		err = dec_text(d, OM_STRS_ITEM_MAX, &items[i], &item);
	}
	*v = (struct om_strs){ items, n };
	return err;
}

/* Quadratic, which the limits of MAP fields (a few hundred at most) allow. */
static bool
pair_repeats(const struct om_pair *pairs, size_t i)
{
	for (size_t j = 0; j < i; j++) {
		if (om_str_eq(pairs[j].key, pairs[i].key)) {
			return true;
		}
	}
	return false;
}

static enum om_err
dec_map(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	struct om_pairs *v = slot;
	struct place item = *at;
	struct om_pair *pairs;
	enum om_err err = OM_OK;
	size_t n;

	if (om_mp_map(&d->mp, &n) != OM_OK) {
		return dec_bad_kind(d, at, "a map of strings");
	}
	if (n > f->limit) {
		return dec_over(d, at, n, "entries", f->limit);
	}
	pairs = om_arena_alloc(d->arena, n * sizeof(*pairs));
	if (pairs == NULL) {
		return dec_no_memory(d, at);
	}
	for (size_t i = 0; i < n && err == OM_OK; i++) {
		item.index = i;
		err = dec_text(d, OM_STRS_ITEM_MAX, &pairs[i].key, &item);
		if (err == OM_OK) {
			err = dec_text(d, OM_STRS_ITEM_MAX, &pairs[i].value, &item);
		}
		if (err == OM_OK && pair_repeats(pairs, i)) {
			err = dec_fail(d, &item, OM_ERR_INVALID, "a key appears twice");
		}
	}
	*v = (struct om_pairs){ pairs, n };
	return err;
}

static enum om_err
dec_obj(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	void *obj = om_arena_alloc(d->arena, om_body_info(f->sub)->size);

	if (obj == NULL) {
		return dec_no_memory(d, at);
	}
	memcpy(slot, &obj, sizeof(obj));
	return dec_body(d, f->sub, obj, at);
}

static enum om_err
dec_objs(struct dec *d, const struct om_field_info *f, void *slot, const struct place *at)
{
	size_t size = om_body_info(f->sub)->size;
	struct place item = *at;
	struct any_list list;
	enum om_err err = OM_OK;

	if (om_mp_array(&d->mp, &list.n) != OM_OK) {
		return dec_bad_kind(d, at, "an array of maps");
	}
	if (list.n > f->limit) {
		return dec_over(d, at, list.n, "entries", f->limit);
	}
	list.v = om_arena_alloc(d->arena, list.n * size);
	if (list.v == NULL) {
		return dec_no_memory(d, at);
	}
	for (size_t i = 0; i < list.n && err == OM_OK; i++) {
		item.index = i;
		err = dec_body(d, f->sub, (char *)list.v + i * size, &item);
	}
	memcpy(slot, &list, sizeof(list));
	return err;
}

static const dec_fn decoders[] = {
	[OM_KIND_U64] = dec_u64,   [OM_KIND_I64] = dec_i64,   [OM_KIND_F64] = dec_f64,
	[OM_KIND_BOOL] = dec_bool, [OM_KIND_STR] = dec_str,   [OM_KIND_BIN] = dec_bin,
	[OM_KIND_RAW] = dec_raw,   [OM_KIND_STRS] = dec_strs, [OM_KIND_MAP] = dec_map,
	[OM_KIND_OBJ] = dec_obj,   [OM_KIND_OBJS] = dec_objs,
};

/*
 * A name that none of the fields in their order has: of one before them, in a longer form, or unknown.
 * Out of line: what an error needs of the stack would be cleared and guarded in each body.
 */
static __attribute__((noinline)) const struct om_field_info *
dec_field(struct dec *d, const struct om_body_info *info, const struct place *at, enum om_err *err)
{
	struct om_str key;

	if (om_mp_str(&d->mp, &key) != OM_OK) {
		*err = dec_bad_kind(d, at, "a field's name");
		return NULL;
	}
	for (size_t i = 0; i < info->field_count; i++) {
		const struct om_field_info *f = &info->fields[i];

		if (om_str_eq(key, (struct om_str){ f->name, f->name_len })) {
			return f;
		}
	}
	*err = dec_unknown(d, info, key, at);
	return NULL;
}

/* The kinds that most fields are of, when there is nothing to say about the value. */
static inline bool
dec_plain(struct om_mp *mp, const struct om_field_info *f, void *slot)
{
	const uint8_t *was = mp->at;
	bool good = false;

	if (f->kind == OM_KIND_STR) {
		good = om_mp_short_str(mp, slot) && ((const struct om_str *)slot)->len <= f->limit;
	} else if (f->kind == OM_KIND_U64) {
		good = om_mp_short_u64(mp, slot) && *(const uint64_t *)slot <= f->limit;
	}
	if (!good) {
		mp->at = was;
	}
	return good;
}

/* The fields of a map.  Senders write them in the table's order: each is looked for behind the last. */
static enum om_err
dec_fields(struct dec *d, const struct om_body_info *info, size_t count, char *out,
	   const struct place *at)
{
	const struct om_field_info *f = info->fields, *end = f + info->field_count;
	struct om_mp mp = d->mp; /* may be in registers; d->mp, where others read, may not */
	uint64_t has = 0, bit = 1;

	for (; count > 0; count--, f++, bit <<= 1) {
		enum om_err err;

		for (; f != end && !om_mp_key(&mp, f->name, f->name_len); f++) {
			bit <<= 1;
		}
		if (f == end) {
			d->mp.at = mp.at;
			f = dec_field(d, info, at, &err);
			if (f == NULL) {
				return err;
			}
			mp.at = d->mp.at;
			bit = UINT64_C(1) << (f - info->fields);
		}
		if ((has & bit) != 0) {
			return dec_fail(d, at, OM_ERR_INVALID, "\"%s\" appears twice", f->name);
		}
		has |= bit;
		if (!dec_plain(&mp, f, out + f->offset)) {
			d->mp.at = mp.at;
			err = decoders[f->kind](d, f, out + f->offset,
						&(struct place){ at, f->name, NO_INDEX });
			if (err != OM_OK) {
				return err;
			}
			mp.at = d->mp.at;
		}
	}
	d->mp.at = mp.at;
	memcpy(out, &has, sizeof(has)); /* `has` is the first member of every body */
	has = info->required & ~has;
	if (has != 0) {
		return dec_fail(d, at, OM_ERR_INVALID, "\"%s\" is missing",
				info->fields[__builtin_ctzll(has)].name);
	}
	return OM_OK;
}

static enum om_err
dec_body(struct dec *d, enum om_body_type body, void *out, const struct place *at)
{
	size_t count;

	if (om_mp_map(&d->mp, &count) != OM_OK) {
		return dec_bad_kind(d, at, "a map");
	}
	return dec_fields(d, om_body_info(body), count, out, at);
}

enum om_err
om_body_decode(enum om_body_type body, struct om_bin data, void *out, struct om_arena *arena,
	       struct om_why *why)
{
	struct dec d = { .arena = arena, .why = why };
	enum om_err err;

	om_mp_init(&d.mp, data.ptr, data.len);
	err = dec_body(&d, body, out, NULL);
	if (err == OM_OK && !om_mp_done(&d.mp)) {
		err = dec_fail(&d, NULL, OM_ERR_INVALID, "bytes behind the end of the body");
	}
	return err;
}
