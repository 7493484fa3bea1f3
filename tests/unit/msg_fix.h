/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_MSG_FIX_H
#define OM_TESTS_MSG_FIX_H

/* What the tests of the codec share: random encoded bodies, and a decoder that checks what it can. */
#include "tests/unit/msg_gen.h"

struct fix {
	struct om_arena gen_arena;
	struct om_arena arena; /* the decoder's */
	struct om_buf buf;
	struct om_buf again;
	struct om_why why;
	struct gen gen;
	uint64_t storage[256];
};

static inline struct fix *
fix_new(uint64_t seed)
{
	struct fix *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->gen = (struct gen){ .seed = seed, .arena = &fx->gen_arena };
	return fx;
}

static inline void
fix_free(struct fix *fx)
{
	om_arena_fini(&fx->gen_arena);
	om_arena_fini(&fx->arena);
	om_buf_fini(&fx->buf);
	om_buf_fini(&fx->again);
	free(fx);
}

/* Decodes from an allocation that ends where the input ends (an ASan red zone lies behind). */
static inline enum om_err
decode(struct fix *fx, enum om_body_type body, const void *data, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	struct om_bin in = { copy, len };
	enum om_err err;

	assert_non_null(copy);
	memcpy(copy, data, len);
	om_arena_reset(&fx->arena);
	assert_true(om_body_info(body)->size <= sizeof(fx->storage));
	memset(fx->storage, 0, sizeof(fx->storage));
	fx->why.text[0] = '\0';
	err = om_body_decode(body, in, fx->storage, &fx->arena, &fx->why);
	if (err == OM_OK) {
		/* What was decoded encodes again, while the input is there. */
		om_buf_reset(&fx->again);
		assert_int_equal(om_body_encode(body, fx->storage, &fx->again), OM_OK);
	} else {
		assert_true(strlen(fx->why.text) > 0);
	}
	free(copy);
	return err;
}

/* A random body of the type, encoded in fx->buf. */
static inline void
encode_random(struct fix *fx, enum om_body_type body, bool full)
{
	void *in;

	om_arena_reset(&fx->gen_arena);
	fx->gen.full = full;
	in = gen_alloc(&fx->gen, om_body_info(body)->size);
	gen_body(&fx->gen, body, in);
	om_buf_reset(&fx->buf);
	assert_int_equal(om_body_encode(body, in, &fx->buf), OM_OK);
}

struct entry {
	struct om_str key;
	struct om_bin value; /* encoded */
};

static inline size_t
split(const struct om_buf *buf, struct entry entries[64])
{
	struct om_mp mp;
	size_t n;

	om_mp_init(&mp, buf->data, buf->len);
	assert_int_equal(om_mp_map(&mp, &n), OM_OK);
	for (size_t i = 0; i < n; i++) {
		const uint8_t *from;

		assert_int_equal(om_mp_str(&mp, &entries[i].key), OM_OK);
		from = mp.at;
		assert_int_equal(om_mp_skip(&mp), OM_OK);
		entries[i].value = (struct om_bin){ from, (size_t)(mp.at - from) };
	}
	return n;
}

/* The entries without number `skip`, then optionally one more. */
static inline void
join(struct om_buf *out, const struct entry *entries, size_t n, size_t skip,
     const struct entry *more)
{
	om_buf_reset(out);
	om_mp_put_map(out, n - (skip < n) + (more != NULL));
	for (size_t i = 0; i < n; i++) {
		if (i != skip) {
			om_mp_put_str(out, entries[i].key);
			om_buf_add(out, entries[i].value.ptr, entries[i].value.len);
		}
	}
	if (more != NULL) {
		om_mp_put_str(out, more->key);
		om_buf_add(out, more->value.ptr, more->value.len);
	}
	assert_false(out->failed);
}

static inline void
assert_names(const struct fix *fx, const char *field)
{
	assert_non_null(strstr(fx->why.text, field));
}

#endif /* OM_TESTS_MSG_FIX_H */
