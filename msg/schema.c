/* SPDX-License-Identifier: ISC */
/*
 * The tables that msg/schema.tbl makes, and the look-up of wire names.
 *
 * Names hash into an open table that is at most a quarter full, built once; a look-up compares one
 * or two names however many messages there are.
 */
#include "msg/schema.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "base/assert.h"
#include "base/short.h"

#define NEED_REQ true
#define NEED_OPT false

/* Only OBJ and OBJS have a sub; for the others the argument is empty. */
#define SUB_U64(sub)  OM_BODY_empty
#define SUB_I64(sub)  OM_BODY_empty
#define SUB_F64(sub)  OM_BODY_empty
#define SUB_BOOL(sub) OM_BODY_empty
#define SUB_STR(sub)  OM_BODY_empty
#define SUB_BIN(sub)  OM_BODY_empty
#define SUB_RAW(sub)  OM_BODY_empty
#define SUB_STRS(sub) OM_BODY_empty
#define SUB_MAP(sub)  OM_BODY_empty
#define SUB_OBJ(sub)  OM_BODY_##sub
#define SUB_OBJS(sub) OM_BODY_##sub

/* Each ends with an empty row, so that a body without fields is a valid array. */
#define OM_BODY(body) static const struct om_field_info fields_##body[] = {
#define OM_F(body, kind_, field, sub_, need, limit_, doc_) \
	{ .name = #field,                                  \
	  .name_len = sizeof(#field) - 1,                  \
	  .kind = OM_KIND_##kind_,                         \
	  .offset = offsetof(struct om_##body, field),     \
	  .limit = limit_,                                 \
	  .required = NEED_##need,                         \
	  .sub = SUB_##kind_(sub_),                        \
	  .doc = doc_ },
#define OM_BODY_END(body)  \
	{                  \
		.name = "" \
	}                  \
	}                  \
	;                  \
	_Static_assert(OM_FIELD_##body##_COUNT <= 64, "`has` has 64 bits");
#include "msg/schema.tbl"

/* Its zeros too. */
#define OM_F(body, kind, field, sub, need, limit, doc) \
	_Static_assert(sizeof(#field) <= OM_FIELD_NAME_MAX, "a field's name is too long");
#include "msg/schema.tbl"

static const struct om_body_info bodies[OM_BODY_COUNT] = {
#define OM_BODY(body)                                                \
	[OM_BODY_##body] = { .name = #body,                          \
			     .size = sizeof(struct om_##body),       \
			     .fields = fields_##body,                \
			     .field_count = OM_FIELD_##body##_COUNT, \
			     .required = 0
#define OM_F(body, kind, field, sub, need, limit, doc) \
	| (uint64_t)NEED_##need << OM_FIELD_##body##_##field
#define OM_BODY_END(body) \
	}                 \
	,
#include "msg/schema.tbl"
};

/* Services are named in lower case; the table writes them as the rest of its columns. */
#define ROUTE_NONE            ""
#define ROUTE_CONTROL         "control"
#define ROUTE_PROVIDER        "provider"
#define ROUTE_LEDGER          "ledger"
#define ROUTE_JOB_QUEUE       "job_queue"
#define ROUTE_FILTER_MANAGER  "filter_manager"
#define ROUTE_ACTIVITY_LOGGER "activity_logger"

static const struct om_msg_info messages[OM_MSG_COUNT] = {
#define OM_MSG(wire, NAME, body_, who_, route_, answer_, doc_) \
	[OM_MSG_##NAME] = { .name = wire,                      \
			    .name_len = sizeof(wire) - 1,      \
			    .body = OM_BODY_##body_,           \
			    .who = OM_WHO_##who_,              \
			    .route = ROUTE_##route_,           \
			    .answer = OM_MSG_##answer_,        \
			    .doc = doc_ },
#include "msg/schema.tbl"
};

const struct om_msg_info *
om_msg_info(enum om_msg_type type)
{
	OM_ASSERT(type > OM_MSG_NONE && type < OM_MSG_COUNT);
	return &messages[type];
}

const struct om_body_info *
om_body_info(enum om_body_type body)
{
	OM_ASSERT(body < OM_BODY_COUNT);
	return &bodies[body];
}

/* --- wire names ------------------------------------------------------------------------------- */

#define NAME_SLOTS 1024u
_Static_assert(OM_MSG_COUNT * 4 <= NAME_SLOTS, "the table of names must stay sparse");

struct name_slot {
	const char *name;
	size_t len;
	enum om_msg_type type;
};

static struct name_slot names[NAME_SLOTS];
static pthread_once_t names_once = PTHREAD_ONCE_INIT;

/*
 * Length, first and last eight bytes: enough to tell our names apart, and two loads whatever the
 * length.  An attacker gains nothing from a collision: the table does not grow with input.
 */
static uint32_t
name_hash(const char *name, size_t len)
{
	uint64_t first, last;

	if (len < 8) {
		first = last = om_short_tail((const uint8_t *)name, len);
	} else {
		first = om_short_8(name);
		last = om_short_8(name + len - 8);
	}
	first = (first ^ len) * UINT64_C(0x9e3779b97f4a7c15);
	last = (last ^ first >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	return (uint32_t)(last >> 40);
}

/* The slot that holds the name, or the free one where it belongs. */
static struct name_slot *
name_slot(const char *name, size_t len)
{
	uint32_t i = name_hash(name, len) % NAME_SLOTS;

	while (names[i].name != NULL &&
	       (names[i].len != len || memcmp(names[i].name, name, len) != 0)) {
		i = (i + 1) % NAME_SLOTS;
	}
	return &names[i];
}

static void
names_build(void)
{
	for (int type = OM_MSG_NONE + 1; type < OM_MSG_COUNT; type++) {
		const char *name = messages[type].name;
		size_t len = messages[type].name_len;
		struct name_slot *slot = name_slot(name, len);

		OM_ASSERT(slot->name == NULL); /* two messages of one name */
		*slot = (struct name_slot){ name, len, (enum om_msg_type)type };
	}
}

enum om_msg_type
om_msg_type_find(struct om_str wire_name)
{
	(void)pthread_once(&names_once, names_build);
	if (wire_name.len == 0) {
		return OM_MSG_NONE;
	}
	return name_slot(wire_name.ptr, wire_name.len)->type;
}
