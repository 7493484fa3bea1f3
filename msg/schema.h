/* SPDX-License-Identifier: ISC */
#ifndef OM_MSG_SCHEMA_H
#define OM_MSG_SCHEMA_H

/*
 * What msg/schema.tbl makes: the enum of messages, one struct a body, one enum of fields a body.
 *
 *	struct om_job_submit { uint64_t has; struct om_str job; ... uint64_t cores; ... };
 *	if (OM_HAS(m, job_submit, cores)) ...
 *	OM_SET(&m, job_submit, cores, 2);		// value and bit
 *
 * A decoded struct is a view: strings point into the frame, arrays into the arena of the decoder.
 * When a struct is encoded, a field goes on the wire when its bit in `has` is set; required fields
 * always go.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"

#define OM_STRS_ITEM_MAX 65536 /* bytes of one string in STRS or MAP */

struct om_strs {
	const struct om_str *v;
	size_t n;
};
struct om_pair {
	struct om_str key;
	struct om_str value;
};
struct om_pairs {
	const struct om_pair *v;
	size_t n;
};

/* Structs, and a list of each. */
#define OM_BODY(body)                \
	struct om_##body;            \
	struct om_##body##_list {    \
		struct om_##body *v; \
		size_t n;            \
	};
#include "msg/schema.tbl"

#define OM_C_U64(field, sub)  uint64_t field
#define OM_C_I64(field, sub)  int64_t field
#define OM_C_F64(field, sub)  double field
#define OM_C_BOOL(field, sub) bool field
#define OM_C_STR(field, sub)  struct om_str field
#define OM_C_BIN(field, sub)  struct om_bin field
#define OM_C_RAW(field, sub)  struct om_bin field
#define OM_C_STRS(field, sub) struct om_strs field
#define OM_C_MAP(field, sub)  struct om_pairs field
#define OM_C_OBJ(field, sub)  struct om_##sub *field
#define OM_C_OBJS(field, sub) struct om_##sub##_list field

#define OM_BODY(body)      \
	struct om_##body { \
		uint64_t has; /* bit OM_FIELD_<body>_<field>: the field is there */
#define OM_F(body, kind, field, sub, need, limit, doc) OM_C_##kind(field, sub);
#define OM_BODY_END(body) \
	}                 \
	;
#include "msg/schema.tbl"

#define OM_BODY(body)        \
	enum om_field_##body \
	{
#define OM_F(body, kind, field, sub, need, limit, doc) OM_FIELD_##body##_##field,
#define OM_BODY_END(body)       \
	OM_FIELD_##body##_COUNT \
	}                       \
	;
#include "msg/schema.tbl"

#define OM_HAS(m, body, field) (((m)->has >> OM_FIELD_##body##_##field) & 1u)
#define OM_SET(m, body, field, value) \
	((m)->field = (value), (void)((m)->has |= UINT64_C(1) << OM_FIELD_##body##_##field))

enum om_body_type {
#define OM_BODY(body) OM_BODY_##body,
#include "msg/schema.tbl"
	OM_BODY_COUNT
};

enum om_msg_type {
	OM_MSG_NONE = 0,
#define OM_MSG(wire, NAME, body, who, route, answer, doc) OM_MSG_##NAME,
#include "msg/schema.tbl"
	OM_MSG_COUNT
};

enum om_kind {
	OM_KIND_U64,
	OM_KIND_I64,
	OM_KIND_F64,
	OM_KIND_BOOL,
	OM_KIND_STR,
	OM_KIND_BIN,
	OM_KIND_RAW,
	OM_KIND_STRS,
	OM_KIND_MAP,
	OM_KIND_OBJ,
	OM_KIND_OBJS,
};

enum om_who {
	OM_WHO_ACTOR, /* the daemon's own services only */
	OM_WHO_OPERATOR, /* and the operator */
	OM_WHO_PEER, /* and every authenticated requester */
};

#define OM_FIELD_NAME_MAX 24

struct om_field_info {
	char name[OM_FIELD_NAME_MAX]; /* zeros behind it: may be copied and compared with them */
	uint8_t name_len;
	bool required;
	enum om_kind kind;
	uint32_t offset;
	enum om_body_type sub; /* OBJ, OBJS */
	uint64_t limit;
	const char *doc;
};

struct om_body_info {
	const char *name;
	size_t size; /* of the struct */
	const struct om_field_info *fields;
	size_t field_count; /* at most 64 */
	uint64_t required; /* bits of the required fields */
};

struct om_msg_info {
	const char *name; /* on the wire */
	size_t name_len;
	enum om_body_type body;
	enum om_who who;
	const char *route; /* service, "" for none */
	enum om_msg_type answer; /* OM_MSG_NONE: none */
	const char *doc;
};

/* Any thread.  type < OM_MSG_COUNT and not NONE; body < OM_BODY_COUNT (OM_ASSERT). */
const struct om_msg_info *om_msg_info(enum om_msg_type type);
const struct om_body_info *om_body_info(enum om_body_type body);

/* Any thread.  O(1).  OM_MSG_NONE when there is no such message. */
enum om_msg_type om_msg_type_find(struct om_str wire_name);

#endif /* OM_MSG_SCHEMA_H */
