/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include "store/job_state.h"

/* The table once more, as the design page has it: one line a state. */
static const struct {
	const char *from, *to;
} allowed[] = {
	{ "received", "rejected pending_approval queued" },
	{ "rejected", "" },
	{ "pending_approval", "queued denied expired cancelled" },
	{ "queued", "provisioning cancelled failed rejected" },
	{ "provisioning", "running failed cancelled timed_out rogue_killed lost queued" },
	{ "running", "completed failed timed_out cancelled rogue_killed lost" },
	{ "completed", "" },
	{ "failed", "queued dead" },
	{ "timed_out", "queued dead" },
	{ "cancelled", "" },
	{ "rogue_killed", "" },
	{ "denied", "" },
	{ "expired", "" },
	{ "lost", "queued dead" },
	{ "dead", "queued" },
};

static bool
listed(const char *list, const char *word)
{
	char spaced[256], want[64];

	(void)snprintf(spaced, sizeof(spaced), " %s ", list);
	(void)snprintf(want, sizeof(want), " %s ", word);
	return strstr(spaced, want) != NULL;
}

static void
test_moves_are_those_of_the_design(void **state)
{
	unsigned from, to;

	(void)state;
	assert_int_equal(OM_COUNT(allowed), OM_JOB_STATES);
	for (from = 0; from < OM_JOB_STATES; from++) {
		assert_string_equal(om_job_state_text(from), allowed[from].from);
		for (to = 0; to < OM_JOB_STATES; to++) {
			assert_int_equal(om_job_may_become(from, to),
					 listed(allowed[from].to, om_job_state_text(to)));
		}
	}
}

static void
test_text_and_back(void **state)
{
	enum om_job_state got;
	unsigned i;

	(void)state;
	for (i = 0; i < OM_JOB_STATES; i++) {
		const char *text = om_job_state_text(i);

		assert_int_equal(om_job_state_parse(text, strlen(text), &got), OM_OK);
		assert_int_equal(got, i);
		assert_int_equal(om_job_state_parse(text, strlen(text) - 1, &got), OM_ERR_INVALID);
	}
	assert_int_equal(om_job_state_parse("", 0, &got), OM_ERR_INVALID);
	assert_string_equal(om_job_state_text(OM_JOB_STATES), "?");
	assert_string_equal(om_job_state_text((enum om_job_state) - 1), "?");
	assert_false(om_job_may_become(OM_JOB_STATES, OM_JOB_QUEUED));
	assert_false(om_job_may_become(OM_JOB_RECEIVED, OM_JOB_STATES));
}

static void
test_ends(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < OM_JOB_STATES; i++) {
		/* An end is neither good nor bad twice, and a live job is neither. */
		assert_false(om_job_is_success(i) && om_job_is_failure(i));
		if (!om_job_is_final(i)) {
			assert_false(om_job_is_success(i) || om_job_is_failure(i));
		}
	}
	assert_true(om_job_is_success(OM_JOB_COMPLETED));
	assert_true(om_job_is_failure(OM_JOB_FAILED));
	assert_false(om_job_is_failure(OM_JOB_CANCELLED));
	assert_true(om_job_is_final(OM_JOB_REJECTED));
	assert_false(om_job_is_final(OM_JOB_PENDING));
	assert_false(om_job_is_final(OM_JOB_STATES));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves_are_those_of_the_design),
		cmocka_unit_test(test_text_and_back),
		cmocka_unit_test(test_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
