/* SPDX-License-Identifier: ISC */
/*
 * Ports: where foreign threads wait for answers.  A request of a foreign thread carries the id of a
 * port instead of an actor's.
 *
 * A port goes FREE -> WAIT (om_port_get) -> CLAIM -> DONE (om_port_answer) -> FREE (om_port_put), or
 * WAIT -> FREE when the waiter gives up.  The word carries the number of the request too, so an
 * answer that comes too late never meets the port's next user.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/scheduler_impl.h"

enum { PORT_FREE, PORT_WAIT, PORT_CLAIM, PORT_DONE };
#define PORT_STATE_BITS 2
#define PORT_INDEX_BITS 16

struct om_port {
	uint64_t word; /* shared: number of the request << 2 | state */
	struct om_msg *answer; /* written between CLAIM and DONE */
	struct om_port *next; /* free list, under foreign_lock */
	struct ck_ec32 ec;
} __attribute__((aligned(OM_CACHE_LINE)));

enum om_err
om_port_init(struct om_system *sys)
{
	sys->ports = aligned_alloc(OM_CACHE_LINE, OM_PORT_MAX * sizeof(struct om_port));
	if (sys->ports == NULL) {
		return OM_ERR_NOMEM;
	}
	memset(sys->ports, 0, OM_PORT_MAX * sizeof(struct om_port));
	for (unsigned i = 0; i < OM_PORT_MAX; i++) {
		ck_ec32_init(&sys->ports[i].ec, 0);
		sys->ports[i].next = i + 1 < OM_PORT_MAX ? &sys->ports[i + 1] : NULL;
	}
	sys->port_free = sys->ports;
	return OM_OK;
}

/* The calling thread holds foreign_lock. */
struct om_port *
om_port_get(struct om_system *sys, uint64_t *id)
{
	struct om_port *port = sys->port_free;
	uint64_t number;

	if (port == NULL) {
		return NULL;
	}
	sys->port_free = port->next;
	number = (port->word >> PORT_STATE_BITS) + 1;
	port->answer = NULL;
	ck_pr_store_64(&port->word, number << PORT_STATE_BITS | PORT_WAIT);
	*id = OM_PORT_BIT | number << PORT_INDEX_BITS | (uint64_t)(port - sys->ports);
	return port;
}

/* Any thread.  Takes msg on OM_OK; STALE: nobody waits for it any more. */
enum om_err
om_port_answer(struct om_system *sys, uint64_t id, struct om_msg *msg)
{
	uint64_t index = id & ((UINT64_C(1) << PORT_INDEX_BITS) - 1);
	uint64_t number = (id & ~OM_PORT_BIT) >> PORT_INDEX_BITS;
	struct om_port *port = &sys->ports[index];

	if (index >= OM_PORT_MAX ||
	    !ck_pr_cas_64(&port->word, number << PORT_STATE_BITS | PORT_WAIT,
			  number << PORT_STATE_BITS | PORT_CLAIM)) {
		return OM_ERR_STALE;
	}
	port->answer = msg;
	/* Order: the answer before DONE.  Pairs with the acquire fence in om_port_put. */
	ck_pr_fence_release();
	om_tsan_release(port);
	ck_pr_store_64(&port->word, number << PORT_STATE_BITS | PORT_DONE);
	ck_ec32_inc(&port->ec, &ec_mode);
	return OM_OK;
}

bool
om_port_ready(const struct om_port *port)
{
	return (ck_pr_load_64(&port->word) & 3) == PORT_DONE;
}

/* The waiting thread.  false: the deadline has passed. */
bool
om_port_wait(struct om_system *sys, struct om_port *port, int64_t deadline_ns)
{
	struct timespec deadline = { .tv_sec = (time_t)(deadline_ns / OM_NS_PER_S),
				     .tv_nsec = (long)(deadline_ns % OM_NS_PER_S) };
	int64_t spin_until = om_mono_now().ns + (int64_t)sys->spin_us * 1000;
	uint32_t mark;

	while (!om_port_ready(port)) {
		for (int i = 0; i < SCHED_SPIN && !om_port_ready(port); i++) {
			ck_pr_stall();
		}
		if (om_mono_now().ns >= spin_until) {
			break;
		}
		(void)sched_yield(); /* the worker that answers may wait for this very core */
	}
	for (;;) {
		mark = ck_ec32_value(&port->ec);
		if (om_port_ready(port)) {
			return true;
		}
		if (ck_ec32_wait(&port->ec, &ec_mode, mark, &deadline) != 0) {
			return om_port_ready(port);
		}
	}
}

/* The waiting thread: gives the port back and the answer, if one came at the last moment too. */
struct om_msg *
om_port_put(struct om_system *sys, struct om_port *port)
{
	uint64_t word = ck_pr_load_64(&port->word);
	uint64_t number = word >> PORT_STATE_BITS << PORT_STATE_BITS;
	struct om_msg *answer = NULL;

	if (!ck_pr_cas_64(&port->word, number | PORT_WAIT, number | PORT_FREE)) {
		while (!om_port_ready(port)) {
			ck_pr_stall(); /* between CLAIM and DONE: a few instructions */
		}
		ck_pr_fence_acquire();
		om_tsan_acquire(port);
		answer = port->answer;
		ck_pr_store_64(&port->word, number | PORT_FREE);
	}
	(void)pthread_mutex_lock(&sys->foreign_lock);
	port->next = sys->port_free;
	sys->port_free = port;
	(void)pthread_mutex_unlock(&sys->foreign_lock);
	return answer;
}
