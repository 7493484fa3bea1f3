/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_COUNTER_H
#define OM_BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

/*
 * A number with one writer and any readers: a counter that costs no locked instruction.  Relaxed:
 * each value stands alone and orders nothing else.
 */
struct om_counter {
	_Atomic uint64_t n;
};

/* The writer. */
static inline void
om_counter_set(struct om_counter *c, uint64_t n)
{
	atomic_store_explicit(&c->n, n, memory_order_relaxed);
}

/* Any thread. */
static inline uint64_t
om_counter_get(struct om_counter *c)
{
	return atomic_load_explicit(&c->n, memory_order_relaxed);
}

/* The writer: with two writers counts get lost. */
static inline void
om_counter_add(struct om_counter *c, uint64_t n)
{
	om_counter_set(c, om_counter_get(c) + n);
}

#endif /* OM_BASE_COUNTER_H */
