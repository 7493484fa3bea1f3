/* SPDX-License-Identifier: ISC */
/*
 * A system of actors: its parts, and the door for threads that the runtime did not make.
 *
 * Such a thread borrows the foreign context under a lock.  A thread of ours uses its own context,
 * so the functions here may be called from anywhere.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/log.h"
#include "runtime/runtime_impl.h"

#define SYSTEM_ACTORS_DEFAULT  (UINT32_C(1) << OM_SLOT_BITS)
#define SYSTEM_OFFLOAD_DEFAULT 4
#define SYSTEM_SPIN_DEFAULT    50
#define SYSTEM_SLOT_STEP       16384
#define SYSTEM_KILL_GRACE_MS   500
#define SYSTEM_LIVE_FEW        64

enum { SYSTEM_RUNNING, SYSTEM_STOPPING, SYSTEM_STOPPED };

struct om_mono
om_system_now(const struct om_system *sys)
{
	return sys->sim ? (struct om_mono){ sys->sim_now_ns } : om_mono_now();
}

struct om_ctx *
om_system_enter(struct om_system *sys, bool *locked)
{
	struct om_ctx *cx = om_tls_ctx;

	*locked = cx == NULL || cx->sys != sys;
	if (*locked) {
		(void)pthread_mutex_lock(&sys->foreign_lock);
		cx = sys->foreign;
	}
	return cx;
}

void
om_system_leave(struct om_system *sys, bool locked)
{
	if (locked) {
		(void)pthread_mutex_unlock(&sys->foreign_lock);
	}
}

/* --- start ------------------------------------------------------------------------------------------- */

static unsigned
system_cores(void)
{
	cpu_set_t set;
	int n = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0) {
		n = CPU_COUNT(&set);
	}
	return n < 1 ? 1 : n > OM_WORKER_MAX ? OM_WORKER_MAX : (unsigned)n;
}

/* Address space for all actors there may be; pool.c makes it readable as it is needed. */
static enum om_err
system_reserve(struct om_system *sys, uint32_t actor_max)
{
	uint64_t cap = actor_max != 0 ? actor_max : SYSTEM_ACTORS_DEFAULT;
	void *mem;

	cap = (cap + SYSTEM_SLOT_STEP - 1) / SYSTEM_SLOT_STEP * SYSTEM_SLOT_STEP;
	if (cap > SYSTEM_ACTORS_DEFAULT) {
		return OM_ERR_LIMIT;
	}
	for (;;) {
		mem = mmap(NULL, cap * sizeof(struct om_actor), PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (mem != MAP_FAILED) {
			break;
		}
		/* A process with a limited address space gets fewer, unless it asked for a number. */
		if (actor_max != 0 || cap == SYSTEM_SLOT_STEP) {
			return OM_ERR_NOMEM;
		}
		cap = (cap / 2 + SYSTEM_SLOT_STEP - 1) / SYSTEM_SLOT_STEP * SYSTEM_SLOT_STEP;
	}
	sys->slots = mem;
	sys->slot_cap = (uint32_t)cap;
	return OM_OK;
}

static void
system_locks_init(struct om_system *sys)
{
	pthread_mutexattr_t attr;

	(void)pthread_mutexattr_init(&attr);
	/* A dropped message may run a free function that sends again. */
	(void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	(void)pthread_mutex_init(&sys->foreign_lock, &attr);
	(void)pthread_mutexattr_destroy(&attr);
	(void)pthread_mutex_init(&sys->depot.lock, NULL);
	for (unsigned i = 0; i < OM_LANE_LOCKS; i++) {
		(void)pthread_mutex_init(&sys->lane_lock[i], NULL);
	}
}

static enum om_err
system_parts(struct om_system *sys, const struct om_system_conf *conf)
{
	enum om_err err = system_reserve(sys, conf->actor_max);

	if (err != OM_OK || (err = om_sched_init(sys)) != OM_OK) {
		return err;
	}
	sys->foreign = om_ctx_new(sys, OM_CTX_FOREIGN, UINT8_MAX);
	if (sys->foreign == NULL) {
		return OM_ERR_NOMEM;
	}
	if ((err = om_port_init(sys)) != OM_OK || (err = om_reg_init(sys)) != OM_OK ||
	    (err = om_trace_init(sys)) != OM_OK || (err = om_timer_init(sys)) != OM_OK ||
	    (err = om_offload_init(sys)) != OM_OK || (err = om_io_init(sys)) != OM_OK) {
		return err;
	}
	if (!sys->sim &&
	    ((err = om_sched_start(sys)) != OM_OK || (err = om_io_start(sys)) != OM_OK)) {
		(void)om_sched_stop(sys, SYSTEM_KILL_GRACE_MS);
		return err;
	}
	return OM_OK;
}

enum om_err
om_system_new(const struct om_system_conf *conf, struct om_system **out)
{
	static const struct om_system_conf defaults;
	struct om_system *sys = calloc(1, sizeof(*sys));
	enum om_err err;

	if (sys == NULL) {
		return OM_ERR_NOMEM;
	}
	if (conf == NULL) {
		conf = &defaults;
	}
	sys->sim = conf->sim;
	sys->sim_rng = conf->seed;
	sys->sim_now_ns = OM_NS_PER_S;
	sys->workers = conf->sim ? 1 : conf->workers != 0 ? conf->workers : system_cores();
	sys->workers = sys->workers > OM_WORKER_MAX ? OM_WORKER_MAX : sys->workers;
	sys->offload_max =
	    conf->offload_threads != 0 ? conf->offload_threads : SYSTEM_OFFLOAD_DEFAULT;
	sys->spin_us = conf->spin_us != 0 ? conf->spin_us : SYSTEM_SPIN_DEFAULT;
	system_locks_init(sys);
	err = system_parts(sys, conf);
	if (err != OM_OK) {
		sys->stopping = SYSTEM_STOPPED;
		om_system_free(sys);
		return err;
	}
	*out = sys;
	return OM_OK;
}

void
om_system_free(struct om_system *sys)
{
	if (sys == NULL) {
		return;
	}
	OM_ASSERT(sys->stopping == SYSTEM_STOPPED);
	/* A handler that was stuck when the system stopped may have come back since. */
	if (sys->stuck && !(om_sched_stop(sys, SYSTEM_KILL_GRACE_MS) &&
			    om_offload_stop(sys, SYSTEM_KILL_GRACE_MS))) {
		om_warn("system.leaked", "a thread did not end; the system's memory is kept");
		return;
	}
	om_io_fini(sys);
	om_offload_fini(sys);
	om_timer_fini(sys);
	om_trace_fini(sys);
	om_reg_fini(sys);
	free(sys->ports);
	om_ctx_free(sys->foreign);
	om_sched_fini(sys);
	om_pool_sys_fini(sys);
	if (sys->slots != NULL) {
		(void)munmap(sys->slots, sys->slot_cap * sizeof(struct om_actor));
	}
	(void)pthread_mutex_destroy(&sys->foreign_lock);
	(void)pthread_mutex_destroy(&sys->depot.lock);
	for (unsigned i = 0; i < OM_LANE_LOCKS; i++) {
		(void)pthread_mutex_destroy(&sys->lane_lock[i]);
	}
	free(sys);
}

/* --- for foreign threads ------------------------------------------------------------------------------- */

enum om_err
om_system_spawn(struct om_system *sys, const struct om_actor_def *def, const void *arg,
		struct om_actor_id *out)
{
	struct om_spawn_how how = { .birth = (uint64_t)om_shared_add(&sys->epoch, 1) << 32 };
	bool locked;
	struct om_ctx *cx = om_system_enter(sys, &locked);
	uint64_t id;
	enum om_err err = om_actor_spawn(cx, def, arg, &how, &id);

	om_system_leave(sys, locked);
	if (err == OM_OK && out != NULL) {
		out->v = id;
	}
	return err;
}

enum om_err
om_system_send(struct om_system *sys, struct om_actor_id to, struct om_msg **msgp)
{
	struct om_ctx *own = om_tls_ctx != NULL && om_tls_ctx->sys == sys ? om_tls_ctx : NULL;
	bool locked;
	struct om_ctx *cx;
	enum om_err err;
	uint32_t mark = 0;
	bool blocks;

	if (om_shared_peek(&sys->stopping) == SYSTEM_STOPPED) {
		return OM_ERR_SHUTDOWN;
	}
	if (own != NULL) {
		return om_send(own, to, msgp);
	}
	(*msgp)->from =
	    OM_NOBODY; /* also for an actor of another system: its id means nothing here */
	(*msgp)->tag = 0;
	blocks = (om_tls_ctx == NULL || om_tls_ctx->kind == OM_CTX_DETACHED) && !sys->sim &&
		 (om_mbox_limit(sys, to.v) & OM_LIMIT_BLOCK) != 0;
	for (;;) {
		if (blocks) {
			mark = om_sched_room_mark(sys);
		}
		cx = om_system_enter(sys, &locked);
		err = om_send_as_is(cx, to.v, msgp);
		om_system_leave(sys, locked);
		if (!blocks) {
			return err;
		}
		om_sched_room_wait(sys, mark, err == OM_ERR_FULL);
		if (err != OM_ERR_FULL) {
			return err;
		}
	}
}

/* A call that waits: on a worker it would hold up all that the worker runs. */
static void
system_may_block(void)
{
	OM_ASSERT(om_tls_ctx == NULL || om_tls_ctx->kind == OM_CTX_DETACHED);
}

static bool
ask_done(struct om_system *sys, void *arg)
{
	(void)sys;
	return om_port_ready(arg);
}

enum om_err
om_system_ask(struct om_system *sys, struct om_actor_id to, struct om_msg **msgp,
	      uint64_t timeout_ms, struct om_msg **reply)
{
	struct om_msg *msg = *msgp, *answer;
	struct om_port *port;
	bool locked;
	struct om_ctx *cx;
	enum om_err err;
	uint64_t id;

	system_may_block();
	if (om_shared_peek(&sys->stopping) == SYSTEM_STOPPED) {
		return OM_ERR_SHUTDOWN;
	}
	(void)pthread_mutex_lock(&sys->foreign_lock);
	port = om_port_get(sys, &id);
	(void)pthread_mutex_unlock(&sys->foreign_lock);
	if (port == NULL) {
		return OM_ERR_LIMIT;
	}
	msg->from.v = id;
	msg->tag = 1;
	om_hdr(msg)->flags &= (uint8_t)~OM_HDR_ANSWERED;
	cx = om_system_enter(sys, &locked);
	err = om_send_as_is(cx, to.v, msgp);
	if (err == OM_OK) {
		cx->n.asks++;
	}
	om_system_leave(sys, locked);
	if (err != OM_OK) {
		msg->tag = 0;
		(void)om_port_put(sys, port);
		return err;
	}
	if (sys->sim) {
		(void)om_sim_wait(sys, ask_done, port, timeout_ms);
	} else {
		(void)om_port_wait(sys, port, om_ns_after(om_mono_now().ns, timeout_ms));
	}
	answer = om_port_put(sys, port);
	if (answer == NULL) {
		return OM_ERR_TIMEOUT;
	}
	err = (enum om_err)om_hdr(answer)->err;
	if (err != OM_OK) {
		om_msg_free(NULL, answer);
		return err;
	}
	om_hdr(answer)->kind = OM_KIND_USER;
	answer->tag = 0;
	*reply = answer;
	return OM_OK;
}

static void
system_control(struct om_system *sys, uint64_t id, uint64_t bit)
{
	bool locked;
	struct om_ctx *cx = om_system_enter(sys, &locked);

	om_mbox_control(cx, id, bit);
	om_system_leave(sys, locked);
}

void
om_system_stop_actor(struct om_system *sys, struct om_actor_id who)
{
	system_control(sys, who.v, OM_LIFE_STOP);
}

static bool
actor_ended(struct om_system *sys, void *arg)
{
	return !om_actor_is(sys, *(const uint64_t *)arg);
}

static bool
system_wait_until(struct om_system *sys, uint64_t id, int64_t deadline_ns)
{
	int64_t left;

	if (!sys->sim) {
		return om_sched_wait_ended(sys, id, deadline_ns);
	}
	left = (deadline_ns - sys->sim_now_ns) / OM_NS_PER_MS;
	return om_sim_wait(sys, actor_ended, &id, left > 0 ? (uint64_t)left : 0);
}

enum om_err
om_system_wait(struct om_system *sys, struct om_actor_id who, uint64_t timeout_ms)
{
	int64_t deadline = om_ns_after(om_system_now(sys).ns, timeout_ms);

	system_may_block();
	return system_wait_until(sys, who.v, deadline) ? OM_OK : OM_ERR_TIMEOUT;
}

/* --- stop ------------------------------------------------------------------------------------------------ */

struct live {
	uint64_t birth, id;
	bool supervised;
};

/* Without memory for more a round ends the SYSTEM_LIVE_FEW actors in the lowest slots. */
struct live_list {
	struct live *v; /* `few`, or memory of its own */
	size_t count, cap;
	struct live few[SYSTEM_LIVE_FEW];
};

static int
live_newest_first(const void *a, const void *b)
{
	const struct live *x = a, *y = b;

	return x->birth < y->birth ? 1 : x->birth > y->birth ? -1 : 0;
}

static void
live_collect(struct om_system *sys, struct live_list *list)
{
	uint32_t mark = om_shared_load(&sys->slot_mark);

	list->count = 0;
	for (uint32_t i = 0; i < mark; i++) {
		struct om_actor *a = &sys->slots[i];
		uint64_t life = om_mbox_life(a);

		if ((life & OM_LIFE_DEAD) != 0) {
			continue;
		}
		if (list->count == list->cap) {
			struct live *v = malloc(2 * list->cap * sizeof(*v));

			if (v == NULL) {
				break; /* the next round finds the rest */
			}
			memcpy(v, list->v, list->count * sizeof(*v));
			if (list->v != list->few) {
				free(list->v);
			}
			list->v = v;
			list->cap *= 2;
		}
		list->v[list->count++] =
		    (struct live){ .birth = om_actor_birth(a),
				   .id = life >> OM_SLOT_BITS << OM_SLOT_BITS | i,
				   .supervised = om_actor_is_supervised(a) };
	}
	if (list->count > 0) {
		qsort(list->v, list->count, sizeof(list->v[0]), live_newest_first);
	}
}

/*
 * Reverse order of start.  Actors from om_system_spawn (low half of birth is 0) one by one; all that
 * actors spawned between two of those, together.  false: the deadline passed.
 */
static bool
stop_in_order(struct om_system *sys, const struct live_list *list, int64_t deadline_ns)
{
	for (size_t i = 0; i < list->count;) {
		size_t end = i + 1;

		if ((uint32_t)list->v[i].birth != 0) {
			while (end < list->count && (uint32_t)list->v[end].birth != 0 &&
			       list->v[end].birth >> 32 == list->v[i].birth >> 32) {
				end++;
			}
		}
		for (size_t j = i; j < end; j++) {
			if (!list->v[j].supervised) {
				system_control(sys, list->v[j].id, OM_LIFE_STOP);
			}
		}
		for (; i < end; i++) {
			if (!list->v[i].supervised &&
			    !system_wait_until(sys, list->v[i].id, deadline_ns)) {
				return false;
			}
		}
	}
	return true;
}

static size_t
stop_by_force(struct om_system *sys, const struct live_list *list, char *left, size_t left_size)
{
	int64_t deadline = om_system_now(sys).ns + SYSTEM_KILL_GRACE_MS * OM_NS_PER_MS;
	struct om_actor_stats stats;
	size_t killed = 0, at = 0;

	for (size_t i = 0; i < list->count; i++) {
		if (om_actor_stats(sys, om_id_of(list->v[i].id), &stats) != OM_OK) {
			continue;
		}
		killed++;
		if (left != NULL && at < left_size) {
			int n = snprintf(left + at, left_size - at, "%s%s", at > 0 ? "," : "",
					 stats.name);

			at += n > 0 ? (size_t)n : 0;
		}
		om_warn("system.killed", "%s did not stop in time", stats.name);
		system_control(sys, list->v[i].id, OM_LIFE_KILL);
	}
	for (size_t i = 0; i < list->count; i++) {
		(void)system_wait_until(sys, list->v[i].id, deadline);
	}
	return killed;
}

size_t
om_system_stop(struct om_system *sys, uint64_t deadline_ms, char *left, size_t left_size)
{
	int64_t deadline = om_ns_after(om_system_now(sys).ns, deadline_ms);
	struct live_list list;
	size_t killed = 0;
	bool in_time = true;

	if (left != NULL && left_size > 0) {
		left[0] = '\0';
	}
	list.v = list.few;
	list.cap = SYSTEM_LIVE_FEW;
	om_shared_store(&sys->stopping, SYSTEM_STOPPING);
	/* A foreign thread that has not seen this is inside a spawn: its actor is found below. */
	(void)pthread_mutex_lock(&sys->foreign_lock);
	(void)pthread_mutex_unlock(&sys->foreign_lock);
	for (;;) {
		/* Again, for what was being spawned when `stopping` was set. */
		live_collect(sys, &list);
		if (list.count == 0) {
			break;
		}
		in_time = in_time && stop_in_order(sys, &list, deadline);
		if (!in_time || om_system_now(sys).ns >= deadline) {
			live_collect(sys, &list);
			killed = stop_by_force(sys, &list, left, left_size);
			break;
		}
	}
	if (list.v != list.few) {
		free(list.v);
	}
	om_shared_store(&sys->stopping, SYSTEM_STOPPED);
	sys->stuck = !om_sched_stop(sys, SYSTEM_KILL_GRACE_MS);
	om_io_stop(sys);
	sys->stuck = !om_offload_stop(sys, SYSTEM_KILL_GRACE_MS) || sys->stuck;
	return killed;
}
