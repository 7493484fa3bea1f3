/* SPDX-License-Identifier: ISC */
#ifndef OM_MSG_ENVELOPE_H
#define OM_MSG_ENVELOPE_H

/*
 * [version, "type.name", id, deadline_ms, {body}], on the control endpoint and in what is published.
 * The requester chooses id and the answer carries it.  deadline_ms: how long the requester will
 * wait, 0: the receiver's default.  On the bus the body is the same, and a header is around it.
 */
#include "msg/schema.h"

#define OM_PROTOCOL_VERSION 1
#define OM_FRAME_MAX        (72u * 1024 * 1024) /* bytes of one envelope */

struct om_envelope {
	enum om_msg_type type;
	uint64_t id;
	uint64_t deadline_ms;
	struct om_bin body; /* encoded map, borrowed from the frame */
};

/*
 * Any thread.  Reads the envelope, not the body.  On an error, out->id holds the request's id when
 * that much could be read (so that the error reply can carry it), else 0.
 * Errors: INVALID, VERSION, UNKNOWN_TYPE, TOO_BIG.
 */
enum om_err om_envelope_decode(struct om_bin frame, struct om_envelope *out,
			       struct om_why *why) OM_MUST_CHECK;

/* Any thread.  Appends an envelope with the body struct that belongs to type. */
enum om_err om_envelope_encode(enum om_msg_type type, uint64_t id, uint64_t deadline_ms,
			       const void *body, struct om_buf *out) OM_MUST_CHECK;
/* The same with a body that is encoded already. */
enum om_err om_envelope_encode_raw(enum om_msg_type type, uint64_t id, uint64_t deadline_ms,
				   struct om_bin body, struct om_buf *out) OM_MUST_CHECK;
/* An "error" envelope; its body alone. */
enum om_err om_envelope_encode_error(uint64_t id, enum om_err err, const char *text,
				     struct om_buf *out) OM_MUST_CHECK;
enum om_err om_envelope_encode_error_body(enum om_err err, const char *text,
					  struct om_buf *out) OM_MUST_CHECK;

#endif /* OM_MSG_ENVELOPE_H */
