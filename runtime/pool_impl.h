/* SPDX-License-Identifier: ISC */
#ifndef OM_RUNTIME_POOL_IMPL_H
#define OM_RUNTIME_POOL_IMPL_H

/* Memory of messages, states and slots.  Inline: a message is made and freed in a few instructions. */
#include "runtime/types_impl.h"

#define OM_MAGAZINE 64
struct om_free_block {
	struct om_free_block *next;
	struct om_free_block *next_batch; /* first of a full magazine in the depot */
};

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

/* Uninitialised; NULL: no memory. */
static inline void *
om_pool_alloc(struct om_ctx *cx, size_t size, uint8_t *cls)
{
	struct om_magazine *mag;
	struct om_free_block *block;

	*cls = om_pool_class(size);
	if (om_unlikely(*cls == OM_CLS_HEAP)) {
		return om_pool_heap(size);
	}
	mag = &cx->mag[*cls];
	block = mag->cur;
	if (om_unlikely(block == NULL)) {
		return om_pool_refill(cx, *cls);
	}
	mag->cur = block->next;
	mag->cur_n--;
	return block;
}

static inline void
om_pool_free(struct om_ctx *cx, void *mem, uint8_t cls)
{
	struct om_magazine *mag;
	struct om_free_block *block = mem;

	if (om_unlikely(cls == OM_CLS_HEAP)) {
		om_pool_heap_free(mem);
		return;
	}
	mag = &cx->mag[cls];
	block->next = mag->cur;
	mag->cur = block;
	if (om_unlikely(++mag->cur_n == OM_MAGAZINE)) {
		om_pool_spill(cx, cls);
	}
}

static inline struct om_msg *
om_pool_msg(struct om_ctx *cx, uint32_t type, size_t size)
{
	uint8_t cls;
	struct om_msg_hdr *hdr;
	struct om_msg *msg;

	if (om_unlikely(size > UINT32_MAX - 4096)) {
		return NULL;
	}
	hdr = om_pool_alloc(cx, sizeof(*hdr) + sizeof(*msg) + size, &cls);
	if (om_unlikely(hdr == NULL)) {
		return NULL;
	}
	*hdr = (struct om_msg_hdr){ .cls = cls, .kind = OM_KIND_USER, .trace = cx->trace };
	msg = (struct om_msg *)(hdr + 1);
	msg->type = type;
	msg->size = (uint32_t)size;
	msg->from = OM_NOBODY;
	msg->tag = 0;
	return msg;
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

struct om_actor *om_pool_actor(struct om_ctx *cx);
void om_pool_actor_free(struct om_ctx *cx, struct om_actor *a);
void om_pool_sys_fini(struct om_system *sys);
struct om_system *om_pool_sys_of(const struct om_msg *msg);

#endif /* OM_RUNTIME_POOL_IMPL_H */
