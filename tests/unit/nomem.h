/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_NOMEM_H
#define OM_TESTS_NOMEM_H

/*
 * No memory: a story is played again and again, and the Nth allocation in it fails, for N = 1, 2, ...
 * until it has fewer than N.  The Makefile links such a test with --wrap for all functions below, so
 * that the calls of our static libraries come here, and those of shared libraries do not.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <cmocka.h>
#include "base/err.h"

#define ROUNDS_MAX 2000 /* a story with more allocations than this does not end */

static struct {
	unsigned left; /* allocations until the one that fails; 0: none will */
	_Atomic bool hit; /* threads look at it beside the one that fails */
	long blocks; /* that are not freed */
	long mapped; /* bytes */
} mem;

/* --- the allocator's doors --------------------------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void __real_free(void *block);
void *__real_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t len);
int __real_mprotect(void *at, size_t len, int prot);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __wrap_free(void *block);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t len);
int __wrap_mprotect(void *at, size_t len, int prot);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

static inline bool
mem_fails(void)
{
	unsigned left = __atomic_load_n(&mem.left, __ATOMIC_RELAXED);

	while (left != 0 && !__atomic_compare_exchange_n(&mem.left, &left, left - 1, false,
							 __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
	}
	if (left == 1) {
		mem.hit = true;
	}
	return left == 1;
}

static inline void *
mem_given(void *block)
{
	if (block != NULL) {
		(void)__atomic_add_fetch(&mem.blocks, 1, __ATOMIC_RELAXED);
	}
	return block;
}

void *
__wrap_malloc(size_t size)
{
	return mem_fails() ? NULL : mem_given(__real_malloc(size));
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return mem_fails() ? NULL : mem_given(__real_calloc(n, size));
}

void *
__wrap_aligned_alloc(size_t align, size_t size)
{
	return mem_fails() ? NULL : mem_given(__real_aligned_alloc(align, size));
}

void *
__wrap_realloc(void *old, size_t size)
{
	if (mem_fails()) {
		return NULL;
	}
	return old == NULL ? mem_given(__real_realloc(old, size)) : __real_realloc(old, size);
}

static inline void
mem_taken(void)
{
	(void)__atomic_sub_fetch(&mem.blocks, 1, __ATOMIC_RELAXED);
}

void
__wrap_free(void *block)
{
	if (block != NULL) {
		mem_taken();
	}
	__real_free(block);
}

void *
__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *mapped = mem_fails() ? MAP_FAILED : __real_mmap(at, len, prot, flags, fd, offset);

	if (mapped != MAP_FAILED) {
		(void)__atomic_add_fetch(&mem.mapped, (long)len, __ATOMIC_RELAXED);
	}
	return mapped;
}

int
__wrap_munmap(void *at, size_t len)
{
	(void)__atomic_sub_fetch(&mem.mapped, (long)len, __ATOMIC_RELAXED);
	return __real_munmap(at, len);
}

int
__wrap_mprotect(void *at, size_t len, int prot)
{
	return mem_fails() ? -1 : __real_mprotect(at, len, prot);
}

int
__wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return mem_fails() ? 11 /* EAGAIN */ : __real_pthread_create(thread, attr, fn, arg);
}

/* --- the frame of all stories ------------------------------------------------------------------------- */

/* Plays the story with the Nth allocation failing, for each N; at last with none. */
static inline void
each_failure(void (*story)(void), unsigned at_least)
{
	unsigned n = 0;

	do {
		long blocks = mem.blocks, mapped = mem.mapped;

		assert_in_range(++n, 1, ROUNDS_MAX);
		mem.hit = false;
		__atomic_store_n(&mem.left, n, __ATOMIC_RELAXED);
		story();
		__atomic_store_n(&mem.left, 0, __ATOMIC_RELAXED);
		if (mem.blocks != blocks || mem.mapped != mapped) {
			fail_msg("allocation %u failed: %ld blocks, %ld mapped bytes leaked", n,
				 mem.blocks - blocks, mem.mapped - mapped);
		}
	} while (mem.hit);
	assert_true(n > at_least);
}

/* An error is one of want of memory; true: there was none.  Without a failure none is allowed. */
static inline bool
went_well(enum om_err err)
{
	if (err != OM_OK && (!mem.hit || (err != OM_ERR_NOMEM && err != OM_ERR_LIMIT))) {
		fail_msg("unexpected error %d", (int)err);
	}
	return err == OM_OK;
}

#endif /* OM_TESTS_NOMEM_H */
