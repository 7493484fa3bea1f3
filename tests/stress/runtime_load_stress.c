/* SPDX-License-Identifier: ISC */
/*
 * Real threads under load with loss accounting.  Foreign threads and actors send numbered messages
 * to consumers that are stopped, killed and replaced all the time; bells are rung beside.  Each
 * accepted message is handled at most once and in order; at the end
 *	sent = handled + dropped(reason)
 * and each object that was sent has been freed once.
 *
 *	STRESS_ROUNDS=n	(default 20)
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/assert.h"
#include "runtime/actor.h"
#include "runtime/mailbox.h"
#include "runtime/system.h"

#define CONSUMERS 8
#define SENDERS   4
#define MESSAGES  20000

enum { T_OBJECT = 1, T_GO };

static struct om_system *sys;
static _Atomic uint64_t consumer[CONSUMERS];
static atomic_long objects, handled;
static struct om_bell *bell;
static atomic_ulong rung, heard;

struct object {
	uint32_t sender, number;
	uint64_t to;
};

struct consumer_state {
	uint32_t last[SENDERS + 1];
};

static void
object_free(void *obj)
{
	free(obj);
	atomic_fetch_sub(&objects, 1);
}

static enum om_err
on_object(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct consumer_state *c = state;
	const struct object *o = om_msg_obj(msg);

	OM_ASSERT(o->to == om_self(cx).v); /* never another actor */
	OM_ASSERT(o->number > c->last[o->sender]); /* in order, not twice */
	c->last[o->sender] = o->number;
	atomic_fetch_add(&handled, 1);
	return OM_OK;
}

static enum om_err
on_bell(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	atomic_fetch_add(&heard, om_bell_rung_of(msg)->count);
	return OM_OK;
}

static enum om_err
consumer_start(struct om_ctx *cx, void *state, const void *arg)
{
	(void)state;
	if (arg != NULL) {
		om_bell_own(cx, bell, 0);
	}
	return OM_OK;
}

static const struct om_handler consumer_handlers[] = {
	{ T_OBJECT, on_object },
	{ OM_SYS_BELL, on_bell },
};
#define CONSUMER(n, slots, policy)                                                               \
	{                                                                                        \
		.name = n, .state_size = sizeof(struct consumer_state), .start = consumer_start, \
		.handlers = consumer_handlers, .handler_count = OM_COUNT(consumer_handlers),     \
		.mailbox_slots = slots, .overload = policy                                       \
	}
static const struct om_actor_def consumer_defs[] = {
	CONSUMER("refuses", 64, OM_OVERLOAD_REFUSE),
	CONSUMER("drops_new", 64, OM_OVERLOAD_DROP_NEW),
	CONSUMER("drops_oldest", 64, OM_OVERLOAD_DROP_OLDEST),
	CONSUMER("blocks", 64, OM_OVERLOAD_BLOCK),
};

static struct om_msg *
object_msg(struct om_ctx *cx, uint32_t sender, uint32_t number, uint64_t to)
{
	struct object *o = malloc(sizeof(*o));

	OM_ASSERT(o != NULL);
	*o = (struct object){ .sender = sender, .number = number, .to = to };
	atomic_fetch_add(&objects, 1);
	return cx != NULL ? om_msg_new_owner(cx, T_OBJECT, o, object_free)
			  : om_system_msg_new_owner(sys, T_OBJECT, o, object_free);
}

static void
ring(void)
{
	if (om_bell_reserve(bell) == OM_OK) {
		atomic_fetch_add(&rung, 1);
		om_bell_ring(bell);
	}
}

static void *
foreign_main(void *arg)
{
	uint32_t sender = (uint32_t)(uintptr_t)arg;

	for (uint32_t i = 1; i <= MESSAGES; i++) {
		struct om_actor_id to = { consumer[i % CONSUMERS] };
		struct om_msg *msg = object_msg(NULL, sender, i, to.v);

		if (om_system_send(sys, to, &msg) != OM_OK) {
			om_msg_free(NULL, msg);
		}
		ring();
		if (i % 64 == 0) { /* ends and replaces a consumer */
			unsigned n = (i / 64 + sender) % CONSUMERS;
			struct om_actor_id id;

			om_system_stop_actor(sys, (struct om_actor_id){ consumer[n] });
			OM_ASSERT(om_system_spawn(sys, &consumer_defs[n % 4], n == 0 ? sys : NULL,
						  &id) == OM_OK);
			consumer[n] = id.v;
		}
	}
	return NULL;
}

/* An actor that sends in batches and lets others have their turn. */
static enum om_err
on_go(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	uint32_t *next = state;

	(void)msg;
	for (unsigned k = 0; k < 50 && *next < MESSAGES; k++) {
		struct om_actor_id to = { consumer[*next % CONSUMERS] };
		struct om_msg *m = object_msg(cx, SENDERS, ++*next, to.v);

		if (om_send(cx, to, &m) != OM_OK) {
			om_msg_free(cx, m);
		}
		if (k % 16 == 0) {
			om_kill(cx, to);
		}
	}
	ring();
	if (*next == MESSAGES) {
		om_exit(cx);
		return OM_OK;
	}
	return OM_AGAIN;
}

static const struct om_handler go_handlers[] = { { T_GO, on_go } };
static const struct om_actor_def go_def = { .name = "sender",
					    .state_size = sizeof(uint32_t),
					    .handlers = go_handlers,
					    .handler_count = 1 };

static void
stress_round(unsigned workers)
{
	struct om_system_conf conf = { .workers = workers, .actor_max = 65536 };
	struct om_system_stats st;
	struct om_actor_id id;
	struct om_msg *go;
	pthread_t t[SENDERS];

	OM_ASSERT(om_system_new(&conf, &sys) == OM_OK);
	OM_ASSERT(om_bell_new(sys, 1000, &bell) == OM_OK);
	rung = heard = 0;
	handled = 0;
	for (unsigned i = 0; i < CONSUMERS; i++) {
		OM_ASSERT(om_system_spawn(sys, &consumer_defs[i % 4], i == 0 ? sys : NULL, &id) ==
			  OM_OK);
		consumer[i] = id.v;
	}
	OM_ASSERT(om_system_spawn(sys, &go_def, NULL, &id) == OM_OK);
	go = om_system_msg_new(sys, T_GO, 0);
	OM_ASSERT(om_system_send(sys, id, &go) == OM_OK);
	for (uintptr_t i = 0; i < SENDERS; i++) {
		OM_ASSERT(pthread_create(&t[i], NULL, foreign_main, (void *)i) == 0);
	}
	for (unsigned i = 0; i < SENDERS; i++) {
		OM_ASSERT(pthread_join(t[i], NULL) == 0);
	}
	OM_ASSERT(om_system_wait(sys, id, 60000) == OM_OK);
	OM_ASSERT(om_system_stop(sys, 60000, NULL, 0) == 0);
	om_system_stats(sys, &st);
	OM_ASSERT(st.actors_live == 0 && st.queued == 0);
	OM_ASSERT(st.sent == st.handled + st.dropped_full + st.dropped_stale + st.dropped_stop +
				 st.dropped_unknown);
	OM_ASSERT(objects == 0);
	OM_ASSERT(heard <= rung);
	om_bell_unref(bell);
	om_system_free(sys);
	printf("workers %u: sent %llu, handled %llu, dropped full %llu stale %llu stop %llu, bells "
	       "%lu of %lu\n",
	       workers, (unsigned long long)st.sent, (unsigned long long)st.handled,
	       (unsigned long long)st.dropped_full, (unsigned long long)st.dropped_stale,
	       (unsigned long long)st.dropped_stop, heard, rung);
}

int
main(void)
{
	const char *text = getenv("STRESS_ROUNDS");
	long rounds = text != NULL ? strtol(text, NULL, 10) : 20;

	for (long i = 0; i < rounds; i++) {
		stress_round(1 + (unsigned)i % 4);
	}
	return 0;
}
