/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_BUF_H
#define OM_BASE_BUF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "base/err.h"

/* Borrowed views.  Not NUL-terminated.  {NULL, 0} is "absent". */
struct om_str {
	const char *ptr;
	size_t len;
};
struct om_bin {
	const uint8_t *ptr;
	size_t len;
};

#define OM_STR(literal) ((struct om_str){ (literal), sizeof(literal) - 1 })
#define OM_STR_ARG(s)   (int)(s).len, (s).ptr ? (s).ptr : "" /* for "%.*s" */

/* Any thread.  In place: of a literal the compiler knows the length. */
static inline struct om_str
om_str_of(const char *cstr) /* NULL gives the absent view */
{
	return (struct om_str){ cstr, cstr != NULL ? strlen(cstr) : 0 };
}
static inline bool
om_str_eq(struct om_str a, struct om_str b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool
om_str_is(struct om_str a, const char *cstr)
{
	return om_str_eq(a, om_str_of(cstr));
}
/* Copies into out and ends it with NUL; OM_ERR_TOO_BIG if it does not fit or holds a NUL. */
enum om_err om_str_copy(struct om_str s, char *out, size_t out_size) OM_MUST_CHECK;

/*
 * A byte buffer that grows.  Zero-initialised is valid and empty.  After a failed append the
 * buffer is unchanged and `failed` stays set, so a run of appends needs one check at its end.
 */
struct om_buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	size_t max; /* 0: no limit of its own */
	bool failed;
};

void om_buf_fini(struct om_buf *buf);
void om_buf_reset(struct om_buf *buf); /* empty, keeps the memory, clears failed */
enum om_err om_buf_reserve(struct om_buf *buf, size_t more) OM_MUST_CHECK;
void om_buf_add(struct om_buf *buf, const void *data, size_t len);
/* True: len bytes may be written at data + len, without a call.  False: ask om_buf_reserve. */
static inline bool
om_buf_fits(const struct om_buf *buf, size_t len)
{
	/* max 0 wraps around to "any"; exactly max is left to the slow path. */
	return len <= buf->cap - buf->len && buf->len + len <= buf->max - 1;
}
void om_buf_add_str(struct om_buf *buf, const char *cstr);
void om_buf_printf(struct om_buf *buf, const char *fmt, ...) OM_PRINTF(2, 3);
void om_buf_drop_front(struct om_buf *buf, size_t len);
/* NUL-terminates (not counted in len) and borrows until the next change; NULL on failure. */
const char *om_buf_cstr(struct om_buf *buf);

/*
 * An arena: many small allocations with one end.  Zero-initialised is valid.
 */
struct om_arena_chunk;
struct om_arena {
	struct om_arena_chunk *chunks;
	size_t used; /* bytes handed out, all chunks */
	size_t max; /* 0: no limit */
};

void *om_arena_alloc(struct om_arena *arena, size_t size); /* zeroed, aligned to 16; NULL: full */
char *om_arena_str(struct om_arena *arena, struct om_str s); /* NUL-terminated copy */
void om_arena_reset(struct om_arena *arena); /* keeps one chunk */
void om_arena_fini(struct om_arena *arena);

#endif /* OM_BASE_BUF_H */
