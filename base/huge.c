/* SPDX-License-Identifier: ISC */
#include "base/huge.h"

#include <stdint.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* Whole pages, or the kernel does not place it at the start of one.  Too much stays too much. */
static size_t
huge_round(size_t bytes)
{
	return bytes > SIZE_MAX - HUGE_PAGE ? bytes : (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

void *
om_huge_new(size_t bytes)
{
	const size_t len = huge_round(bytes);
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED) {
		return NULL;
	}
	(void)madvise(mem, len, MADV_HUGEPAGE); /* advice: without it, it is only slower */
	return mem;
}

void
om_huge_free(void *mem, size_t bytes)
{
	if (mem != NULL) {
		(void)munmap(mem, huge_round(bytes));
	}
}
