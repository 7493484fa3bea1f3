/* SPDX-License-Identifier: ISC */
#include "msg/envelope.h"

#include <string.h>

#include "base/mp.h"
#include "base/parse.h"
#include "msg/codec.h"

#define ENVELOPE_ITEMS 5
#define ERROR_TEXT_MAX 512 /* the schema's limit of error.text */
#define TYPE_SHOWN_MAX 64

/* --- decoding --------------------------------------------------------------------------------- */

/* [version, type, id, ...] of a version we do not speak: the id may be where it always was. */
static uint64_t
id_of_other_version(struct om_mp *mp)
{
	uint64_t id = 0;

	if (om_mp_skip(mp) != OM_OK || om_mp_u64(mp, &id) != OM_OK) {
		return 0;
	}
	return id;
}

static enum om_err
bad(struct om_why *why, const char *what)
{
	return om_why_set(why, OM_ERR_INVALID, "envelope: %s", what);
}

enum om_err
om_envelope_decode(struct om_bin frame, struct om_envelope *out, struct om_why *why)
{
	struct om_str type;
	struct om_mp mp;
	uint64_t version;
	size_t items;

	*out = (struct om_envelope){ .type = OM_MSG_NONE };
	if (frame.len > OM_FRAME_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "%zu bytes, at most %u", frame.len,
				  OM_FRAME_MAX);
	}
	om_mp_init(&mp, frame.ptr, frame.len);
	if (om_mp_array(&mp, &items) != OM_OK || items == 0 || om_mp_u64(&mp, &version) != OM_OK) {
		return bad(why, "not an array that begins with the version");
	}
	if (version != OM_PROTOCOL_VERSION) {
		out->id = id_of_other_version(&mp);
		return om_why_set(why, OM_ERR_VERSION, "version %llu; this is %d",
				  (unsigned long long)version, OM_PROTOCOL_VERSION);
	}
	if (items != ENVELOPE_ITEMS) {
		return bad(why, "not [version, type, id, deadline_ms, body]");
	}
	if (om_mp_str(&mp, &type) != OM_OK) {
		return bad(why, "the type is not a string");
	}
	if (om_mp_u64(&mp, &out->id) != OM_OK) {
		return bad(why, "the id is not a whole number");
	}
	if (om_mp_u64(&mp, &out->deadline_ms) != OM_OK) {
		return bad(why, "deadline_ms is not a whole number");
	}
	if (om_mp_peek(&mp) != OM_MP_MAP) {
		return bad(why, "the body is not a map");
	}
	out->body = (struct om_bin){ mp.at, (size_t)(mp.end - mp.at) };
	out->type = om_msg_type_find(type);
	if (out->type == OM_MSG_NONE) {
		return om_why_set(why, OM_ERR_UNKNOWN_TYPE, "unknown message type \"%.*s\"",
				  type.len < TYPE_SHOWN_MAX ? (int)type.len : TYPE_SHOWN_MAX,
				  type.ptr);
	}
	return OM_OK;
}

/* --- encoding --------------------------------------------------------------------------------- */

static void
put_head(enum om_msg_type type, uint64_t id, uint64_t deadline_ms, struct om_buf *out)
{
	const struct om_msg_info *info = om_msg_info(type);

	om_mp_put_array(out, ENVELOPE_ITEMS);
	om_mp_put_u64(out, OM_PROTOCOL_VERSION);
	om_mp_put_str(out, (struct om_str){ info->name, info->name_len });
	om_mp_put_u64(out, id);
	om_mp_put_u64(out, deadline_ms);
}

/* A failed encode takes its bytes back: what the buffer held before stays usable. */
static enum om_err
finish(struct om_buf *out, size_t from, enum om_err err)
{
	if (err == OM_OK && out->failed) {
		err = OM_ERR_NOMEM;
	}
	if (err == OM_OK && out->len - from > OM_FRAME_MAX) {
		err = OM_ERR_TOO_BIG;
	}
	if (err != OM_OK) {
		out->len = from;
	}
	return err;
}

enum om_err
om_envelope_encode(enum om_msg_type type, uint64_t id, uint64_t deadline_ms, const void *body,
		   struct om_buf *out)
{
	size_t from = out->len;

	put_head(type, id, deadline_ms, out);
	return finish(out, from, om_body_encode(om_msg_info(type)->body, body, out));
}

enum om_err
om_envelope_encode_raw(enum om_msg_type type, uint64_t id, uint64_t deadline_ms, struct om_bin body,
		       struct om_buf *out)
{
	size_t from = out->len;

	put_head(type, id, deadline_ms, out);
	om_buf_add(out, body.ptr, body.len);
	return finish(out, from, OM_OK);
}

/*
 * The reason may come from a library or be cut in the middle of a character: what is not UTF-8
 * becomes '?', or the requester could not read why it was refused.
 */
static struct om_str
clean_text(const char *text, char out[ERROR_TEXT_MAX])
{
	const size_t len = strnlen(text, ERROR_TEXT_MAX);

	memcpy(out, text, len);
	om_utf8_clean(out, len);
	return (struct om_str){ out, len };
}

enum om_err
om_envelope_encode_error_body(enum om_err err, const char *text, struct om_buf *out)
{
	char clean[ERROR_TEXT_MAX];
	struct om_error body = { .has = 0 };

	body.code = om_str_of(om_err_code(err));
	if (text == NULL || text[0] == '\0') {
		text = om_err_text(err);
	}
	OM_SET(&body, error, text, clean_text(text, clean));
	return om_body_encode(OM_BODY_error, &body, out);
}

enum om_err
om_envelope_encode_error(uint64_t id, enum om_err err, const char *text, struct om_buf *out)
{
	size_t from = out->len;

	put_head(OM_MSG_ERROR, id, 0, out);
	return finish(out, from, om_envelope_encode_error_body(err, text, out));
}
