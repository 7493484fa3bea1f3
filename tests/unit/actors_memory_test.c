/* SPDX-License-Identifier: ISC */
/* A million jobs may be queued: each is to be small, in the queue and in the provider. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "actors/job_order.h"
#include "actors/provider_impl.h"

#define JOBS      200000u
#define BYTES_MAX 300 /* a job; 235 are in use, tables at their emptiest */

static size_t
resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long all = 0, pages = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &all, &pages), 2);
	(void)fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void
a_queued_job_is_small(void **state)
{
	const struct om_order_limits limits = { .max_jobs = 1 };
	struct provider provider = { .magic = PROVIDER_MAGIC };
	struct om_job_order *order;
	size_t before, after;

	(void)state;
	assert_int_equal(om_job_order_new(&limits, &order), OM_OK);
	provider_live_init(&provider);
	before = resident();
	for (uint32_t i = 0; i < JOBS; i++) {
		char id[OM_JOB_ID_MAX + 1], peer[16];
		struct om_order_job job = { .level = OM_LEVEL_NETWORK, .cores = 1, .mem_mib = 512 };
		uint64_t ahead;

		(void)snprintf(id, sizeof(id), "%0*x", (int)OM_JOB_ID_LEN, i);
		(void)snprintf(peer, sizeof(peer), "uid:%u", i % 100);
		job.id = om_str_of(id);
		assert_int_equal(om_job_order_add(order, &job, (struct om_wall){ 1 }, &ahead, NULL),
				 OM_OK);
		assert_non_null(provider_live_add(&provider, job.id, om_str_of(peer), 3600));
	}
	after = resident();
	provider_live_fini(&provider);
	om_job_order_free(order);
	print_message("%zu bytes a job\n", (after - before) / JOBS);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* a sanitizer's own memory beside it */
#endif
	assert_true(after - before <= (size_t)BYTES_MAX * JOBS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_queued_job_is_small) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
