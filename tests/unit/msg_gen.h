/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_MSG_GEN_H
#define OM_TESTS_MSG_GEN_H

/*
 * Random bodies made from the schema's own table, for tests and fuzz seeds: a new message is
 * covered on the day its line is written.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mp.h"
#include "msg/schema.h"

struct gen {
	uint64_t seed;
	struct om_arena *arena;
	bool full; /* every optional field; else about half of them */
};

static inline uint64_t
gen_next(struct gen *g)
{
	/* splitmix64, https://prng.di.unimi.it/splitmix64.c */
	uint64_t z = (g->seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static inline void *
gen_alloc(struct gen *g, size_t size)
{
	void *mem = om_arena_alloc(g->arena, size);

	OM_ASSERT(mem != NULL);
	return mem;
}

/* Mostly short, now and then exactly the limit. */
static inline size_t
gen_len(struct gen *g, uint64_t limit)
{
	uint64_t most = limit < 40 ? limit : 40;

	if (limit <= 512 && gen_next(g) % 8 == 0) {
		return (size_t)limit;
	}
	return (size_t)(gen_next(g) % (most + 1));
}

/* Valid UTF-8 of exactly len bytes, with characters of one to four bytes. */
static inline struct om_str
gen_text(struct gen *g, size_t len)
{
	static const char *const wide[] = { "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x92\xa9" };
	char *text = gen_alloc(g, len + 1);

	for (size_t i = 0; i < len;) {
		const char *w = wide[gen_next(g) % 3];

		if (gen_next(g) % 6 == 0 && strlen(w) <= len - i) {
			memcpy(text + i, w, strlen(w));
			i += strlen(w);
		} else {
			text[i++] = (char)(' ' + gen_next(g) % 95);
		}
	}
	return (struct om_str){ text, len };
}

static inline struct om_bin
gen_bytes(struct gen *g, size_t len)
{
	uint8_t *data = gen_alloc(g, len + 1);

	for (size_t i = 0; i < len; i++) {
		data[i] = (uint8_t)gen_next(g);
	}
	return (struct om_bin){ data, len };
}

static inline struct om_bin
gen_raw(struct gen *g)
{
	struct om_buf buf = { .max = 0 };
	struct om_bin raw;
	uint8_t *copy;

	om_mp_put_map(&buf, 2);
	om_mp_put_cstr(&buf, "any");
	om_mp_put_u64(&buf, gen_next(g));
	om_mp_put_cstr(&buf, "list");
	om_mp_put_array(&buf, 1);
	om_mp_put_nil(&buf);
	copy = gen_alloc(g, buf.len);
	memcpy(copy, buf.data, buf.len);
	raw = (struct om_bin){ copy, buf.len };
	om_buf_fini(&buf);
	return raw;
}

static inline uint64_t
gen_u64(struct gen *g, uint64_t limit)
{
	uint64_t v = gen_next(g) >> gen_next(g) % 64;

	switch (gen_next(g) % 8) {
	case 0:
		return 0;
	case 1:
		return limit;
	default:
		return limit == UINT64_MAX ? v : v % (limit + 1);
	}
}

static inline void gen_body(struct gen *g, enum om_body_type body, void *out);

static inline void
gen_field(struct gen *g, const struct om_field_info *f, void *slot)
{
	size_t n = (size_t)(gen_next(g) % ((f->limit < 4 ? f->limit : 4) + 1));
	union {
		uint64_t u64;
		int64_t i64;
		double f64;
		bool t;
		struct om_str str;
		struct om_bin bin;
		struct om_strs strs;
		struct om_pairs pairs;
		void *obj;
		struct {
			void *v;
			size_t n;
		} list;
	} v;
	size_t size = sizeof(v);
	struct om_str *items;
	struct om_pair *pairs;

	switch (f->kind) {
	case OM_KIND_U64:
		v.u64 = gen_u64(g, f->limit);
		size = sizeof(v.u64);
		break;
	case OM_KIND_I64:
		v.i64 = (int64_t)gen_u64(g, UINT64_MAX);
		size = sizeof(v.i64);
		break;
	case OM_KIND_F64:
		v.f64 = (double)(int64_t)gen_next(g) / 1024;
		size = sizeof(v.f64);
		break;
	case OM_KIND_BOOL:
		v.t = gen_next(g) & 1;
		size = sizeof(v.t);
		break;
	case OM_KIND_STR:
		v.str = gen_text(g, gen_len(g, f->limit));
		size = sizeof(v.str);
		break;
	case OM_KIND_BIN:
		v.bin = gen_bytes(g, gen_len(g, f->limit));
		size = sizeof(v.bin);
		break;
	case OM_KIND_RAW:
		v.bin = gen_raw(g);
		size = sizeof(v.bin);
		break;
	case OM_KIND_STRS:
		items = gen_alloc(g, n * sizeof(*items));
		for (size_t i = 0; i < n; i++) {
			items[i] = gen_text(g, gen_len(g, 100));
		}
		v.strs = (struct om_strs){ items, n };
		size = sizeof(v.strs);
		break;
	case OM_KIND_MAP:
		pairs = gen_alloc(g, n * sizeof(*pairs));
		for (size_t i = 0; i < n; i++) {
			pairs[i].key = gen_text(g, 10 + i); /* lengths differ, so keys do */
			pairs[i].value = gen_text(g, gen_len(g, 100));
		}
		v.pairs = (struct om_pairs){ pairs, n };
		size = sizeof(v.pairs);
		break;
	case OM_KIND_OBJ:
		v.obj = gen_alloc(g, om_body_info(f->sub)->size);
		gen_body(g, f->sub, v.obj);
		size = sizeof(v.obj);
		break;
	case OM_KIND_OBJS:
		v.list.n = n;
		v.list.v = gen_alloc(g, n * om_body_info(f->sub)->size);
		for (size_t i = 0; i < n; i++) {
			gen_body(g, f->sub, (char *)v.list.v + i * om_body_info(f->sub)->size);
		}
		size = sizeof(v.list);
		break;
	}
	memcpy(slot, &v, size);
}

/* Fills a zeroed struct of the body's type. */
static inline void
gen_body(struct gen *g, enum om_body_type body, void *out)
{
	const struct om_body_info *info = om_body_info(body);
	uint64_t has = 0;

	for (size_t i = 0; i < info->field_count; i++) {
		const struct om_field_info *f = &info->fields[i];

		if (f->required || g->full || gen_next(g) & 1) {
			gen_field(g, f, (char *)out + f->offset);
			has |= UINT64_C(1) << i;
		}
	}
	memcpy(out, &has, sizeof(has));
}

#endif /* OM_TESTS_MSG_GEN_H */
