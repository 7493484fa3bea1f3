/* SPDX-License-Identifier: ISC */
/*
 * Memory of messages, small actor states and actors.
 *
 * Each context has two magazines per size class, so that a free or an allocation touches no shared
 * word; full magazines go to and come from the system's depot under a lock, once in OM_MAGAZINE
 * operations (Bonwick and Adams, "Magazines and Vmem", USENIX 2001).  A block is freed into the
 * magazine of whoever frees it: a stream from one thread to another costs one depot visit per
 * magazine.
 *
 * 1. Blocks lie in slabs of OM_SLAB bytes, aligned to their size, whose header names the system.
 *    If broken: om_msg_free(NULL, msg) finds no system.
 * 2. Actor slots are never given back or used for anything else (type-stable), and a slot's life
 *    word never returns to an old generation.  If broken: a stale handle reaches foreign memory.
 *
 * Under AddressSanitizer every block comes from malloc, so that a use after free is found.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "runtime/runtime_impl.h"

#define OM_SLAB        (UINT64_C(2) << 20)
#define OM_SLAB_CHUNK  16384 /* what a context takes from a slab at a time */
#define OM_ACTOR_CARVE 64
#define OM_SLOT_STEP   16384 /* slots made readable at a time: 2 MiB */
#define OM_HUGE_AFTER  (UINT64_C(16) << 20)

struct om_slab {
	struct om_system *sys;
	struct om_slab *next;
	char *bump;
	uint64_t number;
} __attribute__((aligned(OM_CACHE_LINE)));

#ifndef OM_ASAN
static const uint16_t class_size[OM_CLS_COUNT] = { 32, 64, 128, 256 };

/* depot.lock is held. */
static struct om_slab *
slab_new(struct om_system *sys)
{
	char *mem = mmap(NULL, 2 * OM_SLAB, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *base;
	struct om_slab *slab;

	if (mem == MAP_FAILED) {
		return NULL;
	}
	base = (char *)(((uintptr_t)mem + OM_SLAB - 1) & ~(uintptr_t)(OM_SLAB - 1));
	if (base > mem) {
		(void)munmap(mem, (size_t)(base - mem));
	}
	(void)munmap(base + OM_SLAB, (size_t)(mem + OM_SLAB - base));
	slab = (struct om_slab *)(void *)base;
	slab->number = sys->slabs != NULL ? sys->slabs->number + 1 : 0;
	if (slab->number * OM_SLAB >= OM_HUGE_AFTER) {
		(void)madvise(base, OM_SLAB, MADV_HUGEPAGE); /* advice: a failure costs time only */
	}
	slab->sys = sys;
	slab->bump = base + sizeof(*slab);
	slab->next = sys->slabs;
	sys->slabs = slab;
	return slab;
}

/* Fresh memory for a class. */
static bool
pool_carve(struct om_ctx *cx, uint8_t cls)
{
	struct om_magazine *mag = &cx->mag[cls];
	struct om_slab *slab;
	bool ok = false;

	(void)pthread_mutex_lock(&cx->sys->depot.lock);
	slab = cx->sys->slabs;
	if (slab == NULL || slab->bump + OM_SLAB_CHUNK > (char *)slab + OM_SLAB) {
		slab = slab_new(cx->sys);
	}
	if (slab != NULL) {
		char *from = (char *)(((uintptr_t)slab->bump + 255) & ~(uintptr_t)255);

		mag->bump = from;
		mag->bump_end = slab->bump + OM_SLAB_CHUNK;
		slab->bump = mag->bump_end;
		ok = true;
	}
	(void)pthread_mutex_unlock(&cx->sys->depot.lock);
	return ok;
}

/* The magazine is empty: the other one, a full one from the depot, or fresh memory. */
void *
om_pool_refill(struct om_ctx *cx, uint8_t cls)
{
	struct om_magazine *mag = &cx->mag[cls];
	struct om_free_block *block;

	if (mag->prev != 0) {
		mag->cur = mag->prev;
		mag->prev = 0;
	} else if (mag->bump + class_size[cls] <= mag->bump_end) {
		block = (struct om_free_block *)(void *)mag->bump;
		mag->bump += class_size[cls];
		return block;
	} else {
		(void)pthread_mutex_lock(&cx->sys->depot.lock);
		block = cx->sys->depot.batch[cls];
		if (block != NULL) {
			cx->sys->depot.batch[cls] = block->next_batch;
			mag->cur = om_chain_pack(block, OM_MAGAZINE);
		}
		(void)pthread_mutex_unlock(&cx->sys->depot.lock);
		if (block == NULL) {
			return pool_carve(cx, cls) ? om_pool_refill(cx, cls) : NULL;
		}
	}
	return om_pool_take(cx, cls);
}

void
om_pool_spill(struct om_ctx *cx, uint8_t cls)
{
	struct om_magazine *mag = &cx->mag[cls];

	if (mag->prev != 0) {
		struct om_free_block *batch = om_chain_first(mag->prev);

		(void)pthread_mutex_lock(&cx->sys->depot.lock);
		batch->next_batch = cx->sys->depot.batch[cls];
		cx->sys->depot.batch[cls] = batch;
		(void)pthread_mutex_unlock(&cx->sys->depot.lock);
	}
	mag->prev = mag->cur;
	mag->cur = 0;
}
#else
void *
om_pool_refill(struct om_ctx *cx, uint8_t cls)
{
	(void)cx;
	(void)cls;
	return NULL;
}

void
om_pool_spill(struct om_ctx *cx, uint8_t cls)
{
	(void)cx;
	(void)cls;
}
#endif /* OM_ASAN */

void *
om_pool_heap(size_t size)
{
	return aligned_alloc(OM_CACHE_LINE,
			     (size + OM_CACHE_LINE - 1) & ~(size_t)(OM_CACHE_LINE - 1));
}

void
om_pool_heap_free(void *block)
{
	free(block);
}

struct om_system *
om_pool_sys_of(const struct om_msg *msg)
{
	const struct om_msg_hdr *hdr = om_hdr(msg);
	const struct om_slab *slab;

	if (hdr->cls >= OM_CLS_COUNT) {
		return NULL;
	}
	slab = (const struct om_slab *)((uintptr_t)hdr & ~(uintptr_t)(OM_SLAB - 1));
	return slab->sys;
}

/* --- actor slots --------------------------------------------------------------------------------- */

/* depot.lock is held.  Makes slots [mark, mark + OM_ACTOR_CARVE) usable. */
static bool
slots_grow(struct om_system *sys)
{
	uint32_t mark = sys->slot_mark;

	if (mark + OM_ACTOR_CARVE > sys->slot_cap) {
		return false;
	}
	if (mark + OM_ACTOR_CARVE > sys->slot_ready) {
		char *at = (char *)&sys->slots[sys->slot_ready];
		size_t len = OM_SLOT_STEP * sizeof(struct om_actor);

		if (mprotect(at, len, PROT_READ | PROT_WRITE) != 0) {
			return false;
		}
		if (sys->slot_ready > 0) {
			(void)madvise(at, len, MADV_HUGEPAGE);
		}
		sys->slot_ready += OM_SLOT_STEP;
	}
	for (uint32_t i = mark; i < mark + OM_ACTOR_CARVE; i++) {
		sys->slots[i].life = UINT64_C(1) << OM_SLOT_BITS | OM_LIFE_DEAD;
	}
	om_shared_store(&sys->slot_mark, mark + OM_ACTOR_CARVE);
	return true;
}

/* Fresh slots, or a full magazine.  NULL: there are no more. */
struct om_actor *
om_pool_actor_refill(struct om_ctx *cx)
{
	struct om_slot_magazine *mag = &cx->actors;
	struct om_system *sys = cx->sys;
	struct om_actor *a;

	if (mag->prev_n > 0) {
		a = mag->prev;
		mag->cur_n = mag->prev_n;
		mag->prev = NULL;
		mag->prev_n = 0;
	} else if (mag->bump < mag->bump_end) {
		a = (struct om_actor *)(void *)mag->bump;
		mag->bump += sizeof(*a);
		return a;
	} else {
		(void)pthread_mutex_lock(&sys->depot.lock);
		a = sys->depot.actors;
		if (a != NULL) {
			sys->depot.actors = a->state;
			mag->cur_n = OM_MAGAZINE;
		} else if (slots_grow(sys)) {
			mag->bump_end = (char *)&sys->slots[sys->slot_mark];
			mag->bump = mag->bump_end - OM_ACTOR_CARVE * sizeof(*a);
		}
		(void)pthread_mutex_unlock(&sys->depot.lock);
		if (a == NULL) {
			return mag->bump < mag->bump_end ? om_pool_actor_refill(cx) : NULL;
		}
	}
	mag->cur = a->run_next;
	mag->cur_n--;
	return a;
}

void
om_pool_actor_free(struct om_ctx *cx, struct om_actor *a)
{
	struct om_slot_magazine *mag = &cx->actors;

	if (om_unlikely(om_mbox_life(a) >> OM_SLOT_BITS >= OM_GEN_MAX)) {
		return; /* out of generations: retired for good */
	}
	a->run_next = mag->cur;
	mag->cur = a;
	if (om_likely(++mag->cur_n < OM_MAGAZINE)) {
		return;
	}
	if (mag->prev_n > 0) {
		struct om_actor *batch = mag->prev;

		(void)pthread_mutex_lock(&cx->sys->depot.lock);
		batch->state = cx->sys->depot.actors;
		cx->sys->depot.actors = batch;
		(void)pthread_mutex_unlock(&cx->sys->depot.lock);
	}
	mag->prev = mag->cur;
	mag->prev_n = mag->cur_n;
	mag->cur = NULL;
	mag->cur_n = 0;
}

void
om_pool_sys_fini(struct om_system *sys)
{
	struct om_slab *slab = sys->slabs;

	while (slab != NULL) {
		struct om_slab *next = slab->next;

		(void)munmap(slab, OM_SLAB);
		slab = next;
	}
	sys->slabs = NULL;
}
