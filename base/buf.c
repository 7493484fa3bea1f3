/* SPDX-License-Identifier: ISC */
/*
 * Views, growing buffers, arenas.
 *
 * 1. A buffer never changes on a failed append: length and bytes stay, `failed` is set.
 * 2. len <= max when max is set; the NUL of om_buf_cstr may lie one byte behind it.
 * 3. Arena memory never moves: pointers live until om_arena_reset or om_arena_fini.
 */
#include "base/buf.h"

#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_CAP_MIN     64
#define ARENA_CHUNK_MIN 1024
#define ARENA_CHUNK_MAX (64 * 1024)
#define ARENA_ALIGN     16

/* --- views ------------------------------------------------------------------------------------ */

enum om_err
om_str_copy(struct om_str s, char *out, size_t out_size)
{
	if (s.len >= out_size || (s.len > 0 && memchr(s.ptr, '\0', s.len) != NULL)) {
		return OM_ERR_TOO_BIG;
	}
	if (s.len > 0) {
		memcpy(out, s.ptr, s.len);
	}
	out[s.len] = '\0';
	return OM_OK;
}

/* --- buffers ---------------------------------------------------------------------------------- */

void
om_buf_fini(struct om_buf *buf)
{
	free(buf->data);
	buf->data = NULL;
	buf->len = 0;
	buf->cap = 0;
	buf->failed = false;
}

void
om_buf_reset(struct om_buf *buf)
{
	buf->len = 0;
	buf->failed = false;
}

/* Makes cap >= need.  Grows by half, so that a run of appends is linear. */
static enum om_err
buf_grow(struct om_buf *buf, size_t need)
{
	size_t cap = buf->cap + buf->cap / 2;
	uint8_t *data;

	if (cap < need) {
		cap = need;
	}
	if (cap < BUF_CAP_MIN) {
		cap = BUF_CAP_MIN;
	}
	data = realloc(buf->data, cap);
	if (data == NULL) {
		buf->failed = true;
		return OM_ERR_NOMEM;
	}
	buf->data = data;
	buf->cap = cap;
	return OM_OK;
}

enum om_err
om_buf_reserve(struct om_buf *buf, size_t more)
{
	if (more > SIZE_MAX / 4 - buf->len || (buf->max != 0 && more > buf->max - buf->len)) {
		buf->failed = true;
		return OM_ERR_TOO_BIG;
	}
	if (more <= buf->cap - buf->len) {
		return OM_OK;
	}
	return buf_grow(buf, buf->len + more);
}

void
om_buf_add(struct om_buf *buf, const void *data, size_t len)
{
	if (len == 0 || om_buf_reserve(buf, len) != OM_OK) {
		return;
	}
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
}

void
om_buf_add_str(struct om_buf *buf, const char *cstr)
{
	om_buf_add(buf, cstr, strlen(cstr));
}

void
om_buf_printf(struct om_buf *buf, const char *fmt, ...)
{
	char small[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(small, sizeof(small), fmt, ap);
	va_end(ap);
	if (n < 0) {
		buf->failed = true;
		return;
	}
	if ((size_t)n < sizeof(small)) {
		om_buf_add(buf, small, (size_t)n);
		return;
	}
	/* vsnprintf writes a NUL behind the text: room for it, outside of max. */
	if (om_buf_reserve(buf, (size_t)n) != OM_OK) {
		return;
	}
	if (buf->cap - buf->len == (size_t)n && buf_grow(buf, buf->cap + 1) != OM_OK) {
		return;
	}
	va_start(ap, fmt);
	(void)vsnprintf((char *)buf->data + buf->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	buf->len += (size_t)n;
}

void
om_buf_drop_front(struct om_buf *buf, size_t len)
{
	if (len >= buf->len) {
		buf->len = 0;
		return;
	}
	if (len > 0) {
		memmove(buf->data, buf->data + len, buf->len - len);
		buf->len -= len;
	}
}

const char *
om_buf_cstr(struct om_buf *buf)
{
	if (buf->failed || (buf->len == buf->cap && buf_grow(buf, buf->len + 1) != OM_OK)) {
		return NULL;
	}
	buf->data[buf->len] = '\0';
	return (const char *)buf->data;
}

/* --- arenas ----------------------------------------------------------------------------------- */

struct om_arena_chunk {
	struct om_arena_chunk *next; /* older */
	size_t cap;
	size_t used;
	alignas(ARENA_ALIGN) unsigned char mem[];
};

static struct om_arena_chunk *
arena_chunk_new(const struct om_arena *arena, size_t need)
{
	size_t cap = ARENA_CHUNK_MIN;
	struct om_arena_chunk *chunk;

	if (arena->chunks != NULL) {
		cap = arena->chunks->cap * 2;
		cap = cap > ARENA_CHUNK_MAX ? ARENA_CHUNK_MAX : cap;
	}
	cap = cap < need ? need : cap;
	chunk = malloc(sizeof(*chunk) + cap);
	if (chunk != NULL) {
		chunk->cap = cap;
		chunk->used = 0;
	}
	return chunk;
}

void *
om_arena_alloc(struct om_arena *arena, size_t size)
{
	struct om_arena_chunk *chunk = arena->chunks;
	size_t need;
	void *mem;

	if (size > SIZE_MAX / 4) {
		return NULL;
	}
	need = size == 0 ? ARENA_ALIGN : (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
	if (arena->max != 0 && need > arena->max - arena->used) {
		return NULL;
	}
	if (chunk == NULL || need > chunk->cap - chunk->used) {
		chunk = arena_chunk_new(arena, need);
		if (chunk == NULL) {
			return NULL;
		}
		chunk->next = arena->chunks;
		arena->chunks = chunk;
	}
	mem = chunk->mem + chunk->used;
	chunk->used += need;
	arena->used += need;
	memset(mem, 0, need);
	return mem;
}

char *
om_arena_str(struct om_arena *arena, struct om_str s)
{
	char *copy = s.len < SIZE_MAX ? om_arena_alloc(arena, s.len + 1) : NULL;

	if (copy != NULL && s.len > 0) {
		memcpy(copy, s.ptr, s.len);
	}
	return copy;
}

static void
arena_free_chunks(struct om_arena_chunk *chunk)
{
	while (chunk != NULL) {
		struct om_arena_chunk *next = chunk->next;

		free(chunk);
		chunk = next;
	}
}

void
om_arena_reset(struct om_arena *arena)
{
	struct om_arena_chunk *keep = arena->chunks;

	arena->used = 0;
	if (keep == NULL) {
		return;
	}
	arena_free_chunks(keep->next);
	keep->next = NULL;
	keep->used = 0;
	/* One huge message must not pin its memory for the life of the arena. */
	if (keep->cap > ARENA_CHUNK_MAX) {
		free(keep);
		arena->chunks = NULL;
	}
}

void
om_arena_fini(struct om_arena *arena)
{
	arena_free_chunks(arena->chunks);
	arena->chunks = NULL;
	arena->used = 0;
}
