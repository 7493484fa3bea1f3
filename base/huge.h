/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_HUGE_H
#define OM_BASE_HUGE_H

#include <stddef.h>

/*
 * Any thread.  Zeros, in huge pages where the kernel has them: for tables that are read at random
 * places, where each page of 4 KiB would be looked up anew.  Costs memory from the first byte that is
 * written, 2 MiB at a time.  NULL: no memory.
 */
void *om_huge_new(size_t bytes);

/* Any thread.  bytes as they were asked for; NULL is fine. */
void om_huge_free(void *mem, size_t bytes);

#endif /* OM_BASE_HUGE_H */
