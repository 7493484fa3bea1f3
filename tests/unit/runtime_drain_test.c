/* SPDX-License-Identifier: ISC */
/*
 * A supervisor that was told to stop waits for its children.  It once spun while it waited, on the
 * worker whose queue held the very child: with one worker the child never ran, and every stop took
 * until the deadline.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "runtime/supervisor.h"
#include "runtime/system.h"

static unsigned stopped;

static void
child_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	(void)cx;
	(void)state;
	(void)why;
	stopped++;
}

static const struct om_actor_def child_def = { .name = "child", .stop = child_stop };

static void
test_supervisor_rests_while_its_children_stop(void **state)
{
	const struct om_child_spec children[] = {
		{ .def = &child_def, .name = "a" },
		{ .def = &child_def, .name = "b" },
		{ .def = &child_def, .name = "c" },
	};
	const struct om_supervisor_spec spec = { .name = "top",
						 .children = children,
						 .child_count = OM_COUNT(children),
						 .max_restarts = 1,
						 .window_ms = 1000 };
	const struct om_system_conf conf = { .workers = 1 };
	struct om_system *sys = NULL;
	struct om_actor_id top;
	char left[128] = "";

	(void)state;
	stopped = 0;
	assert_int_equal(om_system_new(&conf, &sys), OM_OK);
	assert_int_equal(om_supervisor_start(sys, &spec, &top), OM_OK);
	assert_int_equal(om_system_stop(sys, 2000, left, sizeof(left)), 0);
	assert_string_equal(left, "");
	assert_int_equal(stopped, 3);
	om_system_free(sys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_supervisor_rests_while_its_children_stop),
	};

	return cmocka_run_group_tests_name("drain", tests, NULL, NULL);
}
