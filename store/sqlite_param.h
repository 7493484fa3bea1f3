/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_SQLITE_PARAM_H
#define OM_STORE_SQLITE_PARAM_H

/*
 * The parameters of a record, written to the group; in place, for a new job has 34 of them.  A byte says what
 * follows it; integers as this machine has them.
 */
#include "base/short.h"
#include "store/sqlite_impl.h"

enum { SQ_PARAM_NULL, SQ_PARAM_I8, SQ_PARAM_I64, SQ_PARAM_TEXT, SQ_PARAM_BLOB };

static inline uint8_t *
sq_log_room(struct om_sqlite *sq, size_t len)
{
	uint8_t *at;

	if (!om_buf_fits(&sq->group, len) && om_buf_reserve(&sq->group, len) != OM_OK) {
		return NULL;
	}
	at = sq->group.data + sq->group.len;
	sq->group.len += len;
	return at;
}

static inline void
sq_log_i64(struct om_sqlite *sq, int64_t v)
{
	const bool is_small = v >= INT8_MIN && v <= INT8_MAX;
	uint8_t *at = sq_log_room(sq, is_small ? 2 : 1 + sizeof(v));

	if (at == NULL) {
		return;
	}
	if (is_small) {
		at[0] = SQ_PARAM_I8;
		at[1] = (uint8_t)(int8_t)v;
	} else {
		at[0] = SQ_PARAM_I64;
		memcpy(at + 1, &v, sizeof(v));
	}
}

static inline void
sq_log_u64(struct om_sqlite *sq, uint64_t v)
{
	sq_log_i64(sq, v > INT64_MAX ? INT64_MAX : (int64_t)v);
}

static inline void
sq_log_null(struct om_sqlite *sq)
{
	uint8_t *at = sq_log_room(sq, 1);

	if (at != NULL) {
		at[0] = SQ_PARAM_NULL;
	}
}

static inline void
sq_log_wall(struct om_sqlite *sq, struct om_wall at)
{
	if (at.ns == 0) {
		sq_log_null(sq);
	} else {
		sq_log_i64(sq, at.ns);
	}
}

static inline void
sq_log_bytes(struct om_sqlite *sq, uint8_t kind, const void *data, size_t len)
{
	const uint32_t n = (uint32_t)len;
	uint8_t *at;

	OM_ASSERT(len <= INT32_MAX);
	at = sq_log_room(sq, 1 + sizeof(n) + len);
	if (at == NULL) {
		return;
	}
	at[0] = kind;
	memcpy(at + 1, &n, sizeof(n));
	om_short_copy_any(at + 1 + sizeof(n), data, len);
}

static inline void
sq_log_str(struct om_sqlite *sq, struct om_str v)
{
	if (v.ptr == NULL) {
		sq_log_null(sq);
	} else {
		sq_log_bytes(sq, SQ_PARAM_TEXT, v.ptr, v.len);
	}
}

static inline void
sq_log_text(struct om_sqlite *sq, const char *v)
{
	sq_log_bytes(sq, SQ_PARAM_TEXT, v, strlen(v));
}

static inline void
sq_log_bin(struct om_sqlite *sq, struct om_bin v)
{
	sq_log_bytes(sq, SQ_PARAM_BLOB, v.ptr, v.len);
}

#endif /* OM_STORE_SQLITE_PARAM_H */
