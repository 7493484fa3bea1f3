/* SPDX-License-Identifier: ISC */
/* The README's first program; between the marks it is the README's text, to the letter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* README begin */
#include "runtime/system.h"

enum { TICK = 1 };

struct counter {
	uint64_t seen;
};

static enum om_err
counter_on_tick(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct counter *c = state;

	c->seen++;
	return om_reply_u64(cx, msg, c->seen);
}

static const struct om_handler counter_handlers[] = {
	{ TICK, counter_on_tick },
};

static const struct om_actor_def counter_def = {
	.name = "counter",
	.state_size = sizeof(struct counter),
	.handlers = counter_handlers,
	.handler_count = OM_COUNT(counter_handlers),
	.mailbox_slots = 1024, /* then a sender is told OM_ERR_FULL */
};

static uint64_t
count_to(unsigned ticks)
{
	struct om_system_conf conf = { .workers = 2 };
	struct om_system *sys = NULL;
	struct om_actor_id counter;
	uint64_t seen = 0;

	if (om_system_new(&conf, &sys) != OM_OK) {
		return 0;
	}
	if (om_system_spawn(sys, &counter_def, NULL, &counter) == OM_OK) {
		for (unsigned i = 0; i < ticks; i++) {
			struct om_msg *tick = om_system_msg_new(sys, TICK, 0), *reply = NULL;

			if (tick != NULL &&
			    om_system_ask(sys, counter, &tick, 1000, &reply) == OM_OK) {
				seen = om_msg_u64(reply);
			}
			om_msg_free(NULL, tick);
			om_msg_free(NULL, reply);
		}
	}
	(void)om_system_stop(sys, 1000, NULL, 0);
	om_system_free(sys);
	return seen;
}
/* README end */

static void
test_the_readmes_program_counts(void **state)
{
	(void)state;
	assert_int_equal(count_to(10), 10);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_readmes_program_counts),
	};

	return cmocka_run_group_tests_name("readme", tests, NULL, NULL);
}
