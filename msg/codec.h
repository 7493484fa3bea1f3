/* SPDX-License-Identifier: ISC */
#ifndef OM_MSG_CODEC_H
#define OM_MSG_CODEC_H

/*
 * Structs to msgpack and back, driven by the field table.  A body is a map from field name to
 * value.  Decoding trusts nothing: every length is checked against the bytes that are there and
 * against the field's limit; an unknown, repeated or missing field is an error that names it.
 */
#include "msg/schema.h"

/*
 * Any thread.  Decodes one body into `out` (a zeroed struct om_<body>).  Strings point into data,
 * arrays and nested structs into the arena.  why gets the field's name.
 * Errors: INVALID, UNKNOWN_FIELD, TOO_BIG, NOMEM (the arena is full).
 */
enum om_err om_body_decode(enum om_body_type body, struct om_bin data, void *out,
			   struct om_arena *arena, struct om_why *why) OM_MUST_CHECK;

/* Any thread.  Appends the encoded body.  Limits are the decoder's business.
 * Errors: NOMEM; INVALID: a required OBJ is NULL, or a RAW field is not one msgpack value. */
enum om_err om_body_encode(enum om_body_type body, const void *in,
			   struct om_buf *out) OM_MUST_CHECK;

#endif /* OM_MSG_CODEC_H */
