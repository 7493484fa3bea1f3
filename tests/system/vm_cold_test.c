/* SPDX-License-Identifier: ISC */
/* How long a cold VM takes, and a primed one.  Prints figures; fails only on gross slowness. */
#include "tests/system/vm_fixture.h"

#define COLD_RUNS     3
#define COLD_LIMIT_MS 20000 /* not a target: something is broken */

static void
cold(struct fixture *f, const char *what, enum om_vm_machine machine, bool prime)
{
	struct om_guest_job job = { .interpreter = OM_STR("python"),
				    .script = { (const uint8_t *)"print('hello')", 14 } };
	struct plan plan = { .machine = machine, .prime = prime };

	for (int i = 0; i < COLD_RUNS; i++) {
		struct outcome o;

		fixture_run(f, &plan, &job, &o);
		printf("%s: create %lld hello %lld (guest clock %llu) primed %lld python %lld "
		       "destroy %lld ms\n",
		       what, (long long)o.create_ms, (long long)o.hello_ms,
		       (unsigned long long)o.boot_ms, (long long)o.primed_ms,
		       (long long)o.output_ms, (long long)o.destroy_ms);
		assert_true(o.is_done);
		assert_int_equal(o.exit.exit_code, 0);
		assert_memory_equal(o.out.data, "hello\n", 6);
		assert_true(o.hello_ms + o.output_ms + o.destroy_ms < COLD_LIMIT_MS);
		fixture_fini(&o);
	}
}

static void
test_cold(void **state)
{
	cold(*state, "cold", OM_VM_MACHINE_AUTO, false);
}

static void
test_warm(void **state)
{
	cold(*state, "primed", OM_VM_MACHINE_AUTO, true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cold),
		cmocka_unit_test(test_warm),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
