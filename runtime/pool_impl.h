/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_POOL_IMPL_H
#define OM_RUNTIME_POOL_IMPL_H

/* Memory of messages, states and slots.  Inline: a message is made and freed in a few instructions. */
#include "runtime/types_impl.h"

#define OM_MAGAZINE 64
/*
 * A chain of free blocks is one word, the address of the first << 16 | its length, and each block
 * holds the word of those below it: so to take one is one store, to put one is two.  What a locked
 * instruction waits for are the stores before it.
 */
struct om_free_block {
	uint64_t below;
	struct om_free_block *next_batch; /* first of a full magazine in the depot */
};

static inline struct om_free_block *
om_chain_first(uint64_t chain)
{
	return (struct om_free_block *)(uintptr_t)(chain >> 16);
}

static inline uint32_t
om_chain_len(uint64_t chain)
{
	return (uint32_t)chain & 0xffff;
}

static inline uint64_t
om_chain_pack(const struct om_free_block *first, uint32_t len)
{
	return (uint64_t)(uintptr_t)first << 16 | len;
}

void *om_pool_refill(struct om_ctx *cx, uint8_t cls); /* the magazine is empty; NULL: no memory */
void om_pool_spill(struct om_ctx *cx, uint8_t cls); /* the magazine is full */
void *om_pool_heap(size_t size);
void om_pool_heap_free(void *block);

static inline uint8_t
om_pool_class(size_t size)
{
#ifdef OM_ASAN
	(void)size;
	return OM_CLS_HEAP; /* so that a use after free is found */
#else
	if (om_likely(size <= 64)) {
		return size <= 32 ? OM_CLS_32 : OM_CLS_64;
	}
	if (size <= 256) {
		return size <= 128 ? OM_CLS_128 : OM_CLS_256;
	}
	return OM_CLS_HEAP;
#endif
}

/* From the magazine alone; NULL: it is empty. */
static inline void *
om_pool_take(struct om_ctx *cx, uint8_t cls)
{
	struct om_magazine *mag = &cx->mag[cls];
	struct om_free_block *block;

	if (om_unlikely(mag->cur == 0)) {
		return NULL;
	}
	block = om_chain_first(mag->cur);
	mag->cur = block->below;
	return block;
}

/* Uninitialised; NULL: no memory. */
static inline void *
om_pool_alloc(struct om_ctx *cx, size_t size, uint8_t *cls)
{
	void *block;

	*cls = om_pool_class(size);
	if (om_unlikely(*cls == OM_CLS_HEAP)) {
		return om_pool_heap(size);
	}
	block = om_pool_take(cx, *cls);
	if (om_unlikely(block == NULL)) {
		return om_pool_refill(cx, *cls);
	}
	return block;
}

static inline void
om_pool_free(struct om_ctx *cx, void *mem, uint8_t cls)
{
	struct om_magazine *mag;
	struct om_free_block *block = mem;
	uint32_t len;

	if (om_unlikely(cls == OM_CLS_HEAP)) {
		om_pool_heap_free(mem);
		return;
	}
	mag = &cx->mag[cls];
	len = om_chain_len(mag->cur) + 1;
	block->below = mag->cur;
	mag->cur = om_chain_pack(block, len);
	if (om_unlikely(len == OM_MAGAZINE)) {
		om_pool_spill(cx, cls);
	}
}

static inline struct om_msg *
om_pool_msg_init(struct om_ctx *cx, struct om_msg_hdr *hdr, uint8_t cls, uint32_t type, size_t size)
{
	struct om_msg *msg = (struct om_msg *)(hdr + 1);

	/* Each field by itself: `to` is the sender's to write. */
	hdr->trace = cx->trace;
	hdr->cls = cls;
	hdr->kind = OM_KIND_USER;
	hdr->flags = 0;
	hdr->err = 0;
	msg->type = type;
	msg->size = (uint32_t)size;
	msg->from = OM_NOBODY;
	msg->tag = 0;
	return msg;
}

static inline struct om_msg *
om_pool_msg(struct om_ctx *cx, uint32_t type, size_t size)
{
	uint8_t cls;
	struct om_msg_hdr *hdr;

	if (om_unlikely(size > UINT32_MAX - 4096)) {
		return NULL;
	}
	hdr = om_pool_alloc(cx, sizeof(*hdr) + sizeof(struct om_msg) + size, &cls);
	if (om_unlikely(hdr == NULL)) {
		return NULL;
	}
	return om_pool_msg_init(cx, hdr, cls, type, size);
}

/* As om_pool_msg for a small message, without a call.  NULL: the magazine is empty. */
static inline struct om_msg *
om_pool_msg_at_once(struct om_ctx *cx, uint32_t type, size_t size)
{
	uint8_t cls = om_pool_class(sizeof(struct om_msg_hdr) + sizeof(struct om_msg) + size);
	struct om_msg_hdr *hdr = cls < OM_CLS_COUNT ? om_pool_take(cx, cls) : NULL;

	return om_likely(hdr != NULL) ? om_pool_msg_init(cx, hdr, cls, type, size) : NULL;
}

/* The block only. */
static inline void
om_pool_msg_free(struct om_ctx *cx, struct om_msg *msg)
{
	struct om_msg_hdr *hdr = om_hdr(msg);

	if (om_likely(hdr->cls != OM_CLS_EMBEDDED)) {
		om_pool_free(cx, hdr, hdr->cls);
	}
}

struct om_actor *om_pool_actor_refill(struct om_ctx *cx);

/* A free slot; NULL: there are no more. */
static inline struct om_actor *
om_pool_actor(struct om_ctx *cx)
{
	struct om_actor *a = cx->actors.cur;

	if (om_unlikely(a == NULL)) {
		return om_pool_actor_refill(cx);
	}
	cx->actors.cur = a->run_next;
	cx->actors.cur_n--;
	return a;
}

void om_pool_actor_free(struct om_ctx *cx, struct om_actor *a);
void om_pool_sys_fini(struct om_system *sys);
struct om_system *om_pool_sys_of(const struct om_msg *msg);

#endif /* OM_RUNTIME_POOL_IMPL_H */
