/* SPDX-License-Identifier: ISC */
/* The table itself: what the compiler cannot check about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <string.h>

#include "base/mp.h"
#include "msg/schema.h"

static void
test_every_name_is_found(void **state)
{
	(void)state;
	for (int t = OM_MSG_NONE + 1; t < OM_MSG_COUNT; t++) {
		const char *name = om_msg_info((enum om_msg_type)t)->name;
		char longer[80];

		assert_int_equal(om_msg_type_find(om_str_of(name)), t);
		assert_true(strlen(name) < sizeof(longer) - 1);
		memset(longer, 0, sizeof(longer));
		memcpy(longer, name, strlen(name));
		assert_int_equal(om_msg_type_find((struct om_str){ longer, strlen(name) + 1 }),
				 OM_MSG_NONE);
		longer[0] = 'X';
		assert_int_equal(om_msg_type_find(om_str_of(longer)), OM_MSG_NONE);
	}
	assert_int_equal(om_msg_type_find(OM_STR("")), OM_MSG_NONE);
	assert_int_equal(om_msg_type_find(om_str_of(NULL)), OM_MSG_NONE);
	assert_int_equal(om_msg_type_find(OM_STR("JOB_SUBMIT")), OM_MSG_NONE);
}

static void
test_messages_make_sense(void **state)
{
	(void)state;
	for (int t = OM_MSG_NONE + 1; t < OM_MSG_COUNT; t++) {
		const struct om_msg_info *m = om_msg_info((enum om_msg_type)t);

		for (const char *c = m->name; *c != '\0'; c++) {
			assert_true(islower((unsigned char)*c) || *c == '.' || *c == '_');
		}
		assert_true(strlen(m->doc) > 0);
		if (m->answer != OM_MSG_NONE) {
			/* An answer is no request, and who may ask may read the answer. */
			assert_int_equal(om_msg_info(m->answer)->answer, OM_MSG_NONE);
			assert_true(om_msg_info(m->answer)->who >= m->who);
		}
		if (m->route[0] != '\0') {
			/* What comes from outside is answered, and somebody outside may send it. */
			assert_int_not_equal(m->answer, OM_MSG_NONE);
			assert_int_not_equal(m->who, OM_WHO_ACTOR);
		}
		/* What the daemon's own services send to each other is not routed from outside. */
		if (m->who == OM_WHO_ACTOR) {
			assert_string_equal(m->route, "");
		}
	}
}

/* Depth of nesting below a body; a schema that contains itself would recurse for ever. */
static unsigned
depth_of(enum om_body_type body, unsigned above)
{
	const struct om_body_info *info = om_body_info(body);
	unsigned deepest = 1;

	assert_true(above < 8);
	for (size_t i = 0; i < info->field_count; i++) {
		const struct om_field_info *f = &info->fields[i];

		if (f->kind == OM_KIND_OBJ || f->kind == OM_KIND_OBJS) {
			unsigned d = 1 + depth_of(f->sub, above + 1);

			deepest = d > deepest ? d : deepest;
		}
	}
	return deepest;
}

static void
test_bodies_make_sense(void **state)
{
	(void)state;
	for (int b = 0; b < OM_BODY_COUNT; b++) {
		const struct om_body_info *info = om_body_info((enum om_body_type)b);

		assert_true(info->field_count <= 64);
		/* An array and a map for each level, inside the envelope and perhaps a RAW. */
		assert_true(2 * depth_of((enum om_body_type)b, 0) + 2 < OM_MP_DEPTH_MAX);
		for (size_t i = 0; i < info->field_count; i++) {
			const struct om_field_info *f = &info->fields[i];

			assert_int_equal(strlen(f->name), f->name_len);
			assert_true(f->offset >= sizeof(uint64_t) && f->offset < info->size);
			assert_true(strlen(f->doc) > 0);
			if (f->kind == OM_KIND_STR || f->kind == OM_KIND_STRS ||
			    f->kind == OM_KIND_OBJS || f->kind == OM_KIND_U64) {
				assert_true(f->limit > 0);
			}
			if (f->kind == OM_KIND_MAP) {
				/* The check for doubled keys is quadratic. */
				assert_true(f->limit > 0 && f->limit <= 256);
			}
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_name_is_found),
		cmocka_unit_test(test_messages_make_sense),
		cmocka_unit_test(test_bodies_make_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
