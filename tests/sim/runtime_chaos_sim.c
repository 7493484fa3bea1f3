/* SPDX-License-Identifier: ISC */
/*
 * Random life of a small world of actors: sends on both lanes, asks with time-outs, later and
 * forwarded answers, monitors, links, timers, works, groups, tables that change, overload (refuse,
 * drop, block, bytes), stops, kills, failures, restarts.
 *
 * After every step the conservation law is checked, and that the mailbox of the actor that was sent
 * to holds no more than its limit; in each handler that no timer fires early, twice or after its
 * cancel, and no monitor tells twice, after its end or of another; when all rests that no timer is
 * overdue and no monitor waits for an actor that has ended; at the end that every ask, work and
 * object ended exactly once.  Same seed, same run: each hundredth seed runs twice.
 * runtime_family_sim.c has supervisors.
 *
 *	SEEDS=100000 runtime_chaos_sim		many seeds
 *	SEED=123 runtime_chaos_sim		one
 */
#include <string.h>
#include "runtime/actor.h"
#include "runtime/mailbox.h"
#include "runtime/stats.h"
#include "runtime/supervisor.h"
#include "runtime/system.h"
#include "tests/sim/seeds.h"

#define PEERS      12
#define KIDS       3
#define STEPS      400
#define SENDERS    4096 /* incarnations of senders that are told apart */
#define REST_STEPS 40 /* between two looks at a world that rests */
#define LIVE_MAX   64

#define SLOTS 4
#define BYTES (4 * sizeof(struct num))

enum { T_ACT = 1, T_NUM, T_OBJ, T_ASK, T_PUB };

static uint64_t all_downs, all_timers;

static struct world {
	struct om_system *sys;
	struct om_actor_id peer[PEERS];
	uint64_t hash;
	uint64_t asks_made, asks_ended, asks_of_ended_askers, works_made, works_ended, objects;
	uint64_t monitors_made, downs, timers_fired;
	struct peer *live[LIVE_MAX]; /* by place */
	int64_t now_ns; /* the latest that an actor has seen */
	uint32_t next_sender;
	uint64_t sent_by[SENDERS]; /* numbers given by a sender to its only receiver */
	uint64_t seen_of[SENDERS];
	struct om_bell *bell;
	uint64_t rung, heard;
} w;

#define TIMERS 2
struct timer {
	uint64_t id; /* 0: none */
	int64_t due_ns, period_ns;
};

struct peer {
	uint32_t sender; /* number of this incarnation */
	struct om_actor_id favourite; /* the one that gets its numbered messages */
	struct om_request owed;
	uint64_t monitor; /* 0: none */
	struct om_actor_id watched;
	struct timer timers[TIMERS];
	uint64_t open_asks;
	unsigned place; /* in w.live */
	bool became;
};

struct num {
	uint64_t to, sender, n;
};

static void
mix(uint64_t v)
{
	w.hash = (w.hash ^ v) * UINT64_C(1099511628211);
}

static struct om_actor_id
any_peer(struct om_ctx *cx)
{
	return w.peer[om_rand(cx) % PEERS];
}

static void
object_free(void *obj)
{
	free(obj);
	w.objects--;
}

static void
on_answer(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	struct peer *p = state;

	(void)cx;
	CHECK(p->open_asks-- > 0);
	mix((uint64_t)answer->err);
	CHECK(answer->cookie <= w.asks_made);
	w.asks_ended++;
}

static enum om_err
work_fn(void *arg)
{
	(void)arg;
	return OM_OK;
}

static void
work_done(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	(void)cx;
	(void)state;
	(void)result;
	free(arg);
	w.works_ended++;
}

static void
work_drop(void *arg)
{
	free(arg);
	w.works_ended++;
}

static void
act_send(struct om_ctx *cx, struct peer *p)
{
	struct om_msg *msg = om_msg_new(cx, T_NUM, sizeof(struct num));

	if (p->sender >= SENDERS) {
		om_msg_free(cx, msg);
		return;
	}
	*(struct num *)(void *)msg->payload = (struct num){ .to = p->favourite.v,
							    .sender = p->sender,
							    .n = w.sent_by[p->sender] + 1 };
	if (om_send(cx, p->favourite, &msg) == OM_OK) {
		w.sent_by[p->sender]++;
	}
	om_msg_free(cx, msg);
}

static void
act_object(struct om_ctx *cx)
{
	struct om_msg *msg = om_msg_new_owner(cx, T_OBJ, malloc(8), object_free);
	struct om_actor_id to = any_peer(cx);
	enum om_err err;

	w.objects++;
	err = om_rand(cx) % 2 == 0 ? om_send(cx, to, &msg) : om_send_urgent(cx, to, &msg);
	mix((uint64_t)err);
	om_msg_free(cx, msg);
}

static void
act_ask(struct om_ctx *cx, struct peer *p)
{
	struct om_msg *msg = om_msg_new(cx, T_ASK, 8);

	if (om_ask(cx, any_peer(cx), &msg, 1 + om_rand(cx) % 20, on_answer, w.asks_made) == OM_OK) {
		w.asks_made++;
		p->open_asks++;
	}
	om_msg_free(cx, msg);
}

static void
act_work(struct om_ctx *cx)
{
	void *arg = malloc(8);

	if (om_offload(cx, work_fn, arg, work_done, work_drop) == OM_OK) {
		w.works_made++;
	} else {
		free(arg);
	}
}

static void
act_settle(struct om_ctx *cx, struct peer *p)
{
	struct om_msg *msg;

	if (p->owed.tag == 0) {
		return;
	}
	if (om_rand(cx) % 2 == 0) {
		om_reply_err_to(cx, &p->owed, OM_ERR_DENIED);
		return;
	}
	msg = om_msg_new(cx, T_NUM, 8);
	CHECK(om_reply_to(cx, &p->owed, &msg) == OM_OK);
}

/* An old monitor ends, a new one begins. */
static void
act_monitor(struct om_ctx *cx, struct peer *p)
{
	om_demonitor(cx, p->monitor);
	w.monitors_made++;
	p->watched = any_peer(cx);
	CHECK(om_monitor(cx, p->watched, &p->monitor) == OM_OK);
}

/* An old timer ends, a new one begins. */
static void
act_timer(struct om_ctx *cx, struct peer *p)
{
	struct timer *t = &p->timers[om_rand(cx) % TIMERS];
	uint64_t delay = om_rand(cx) % 4, period = om_rand(cx) % 2 * 5;

	om_timer_cancel(cx, t->id);
	t->due_ns = om_now(cx).ns + (int64_t)delay * OM_NS_PER_MS;
	t->period_ns = (int64_t)period * OM_NS_PER_MS;
	CHECK(om_timer_start(cx, delay, period, 0, &t->id) == OM_OK);
}

static void
act_crowd(struct om_ctx *cx)
{
	struct om_msg *msg;

	switch (om_rand(cx) % 4) {
	case 0:
		CHECK(om_join(cx, "crowd") == OM_OK);
		break;
	case 1:
		om_leave(cx, "crowd");
		break;
	default:
		msg = om_msg_new(cx, T_PUB, 8);
		*(uint64_t *)(void *)msg->payload = om_self(cx).v;
		mix(om_publish(cx, "crowd", msg));
		om_msg_free(cx, msg);
		break;
	}
}

static void act_become(struct om_ctx *cx, struct peer *p);

/* Goes before what the other has in its mailbox, between what lies in its system lane. */
static void
act_urgent(struct om_ctx *cx)
{
	struct om_msg *msg = om_msg_new(cx, T_ACT, 0);

	mix((uint64_t)om_send_urgent(cx, any_peer(cx), &msg));
	om_msg_free(cx, msg);
}

static void
act_rare(struct om_ctx *cx, struct peer *p)
{
	switch (om_rand(cx) % 6) {
	case 0:
		act_become(cx, p);
		break;
	case 1:
	case 2:
		act_urgent(cx);
		break;
	default:
		act_crowd(cx);
		break;
	}
}

static enum om_err
on_act(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct peer *p = state;

	w.now_ns = om_now(cx).ns;
	(void)msg;
	switch (om_rand(cx) % 20) {
	case 0:
	case 1:
	case 2:
	case 3:
		act_send(cx, p);
		act_send(cx, p);
		break;
	case 4:
		act_object(cx);
		break;
	case 5:
	case 6:
		act_ask(cx, p);
		break;
	case 7:
		act_work(cx);
		break;
	case 8:
		act_settle(cx, p);
		break;
	case 9:
		act_monitor(cx, p);
		break;
	case 10:
		CHECK(om_link(cx, any_peer(cx)) == OM_OK);
		om_trap_exits(cx, om_rand(cx) % 2 == 0);
		break;
	case 11:
		om_unlink(cx, any_peer(cx));
		break;
	case 12:
		act_timer(cx, p);
		break;
	case 13:
		om_stop(cx, any_peer(cx));
		break;
	case 14:
		om_kill(cx, any_peer(cx));
		break;
	case 15:
		om_fail(cx, OM_ERR_IO);
		break;
	case 16:
		om_bell_own(cx, w.bell, 1);
		break;
	case 17:
	case 18:
		act_rare(cx, p);
		break;
	default:
		if (om_bell_reserve(w.bell) == OM_OK) {
			w.rung++;
			om_bell_ring(w.bell);
		}
		break;
	}
	return OM_OK;
}

static enum om_err
on_num(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	const struct num *n = (const struct num *)(const void *)msg->payload;

	(void)state;
	CHECK(n->to == om_self(cx).v); /* never another actor */
	CHECK(n->n > w.seen_of[n->sender]); /* in order */
	CHECK(n->n <= w.sent_by[n->sender] + 1); /* no invention */
	mix(n->n ^ n->to);
	if (om_rand(cx) % 16 == 0) {
		return OM_AGAIN; /* the same message, first in line, later */
	}
	w.seen_of[n->sender] = n->n;
	return OM_OK;
}

static enum om_err
on_obj(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	void *obj = om_rand(cx) % 2 == 0 ? om_msg_take_obj(msg) : NULL;

	(void)state;
	if (obj != NULL) {
		object_free(obj);
	} else if (om_rand(cx) % 3 == 0) {
		return om_forward(cx, any_peer(cx), msg);
	}
	return OM_OK;
}

static enum om_err
on_ask(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	struct peer *p = state;

	switch (om_rand(cx) % 6) {
	case 0:
		return om_reply_u64(cx, msg, 1);
	case 1:
		return OM_ERR_REJECTED;
	case 2:
		return OM_OK;
	case 3:
		return om_forward(cx, any_peer(cx), msg);
	case 4:
		om_msg_free(cx, om_msg_take(cx, msg));
		return OM_OK;
	default:
		if (p->owed.tag == 0) {
			p->owed = om_later(cx, msg);
		}
		return OM_OK;
	}
}

static enum om_err
on_down(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	const struct om_down *down = (const struct om_down *)(const void *)msg->payload;
	struct peer *p = state;

	(void)cx;
	mix(down->who.v ^ down->ref);
	if (down->ref != 0) {
		CHECK(down->ref == p->monitor && down->who.v == p->watched.v);
		p->monitor = 0; /* once */
		w.downs++;
	}
	return OM_OK;
}

static enum om_err
on_timer(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	const struct om_timer_fired *fired =
	    (const struct om_timer_fired *)(const void *)msg->payload;
	struct peer *p = state;

	struct timer *t = p->timers;

	w.now_ns = om_now(cx).ns;
	mix(fired->timer);
	while (t < p->timers + TIMERS && t->id != fired->timer) {
		t++;
	}
	CHECK(t < p->timers + TIMERS); /* neither cancelled nor fired before */
	CHECK(w.now_ns >= t->due_ns);
	w.timers_fired++;
	if (t->period_ns == 0) {
		t->id = 0;
	} else {
		t->due_ns += t->period_ns * ((w.now_ns - t->due_ns) / t->period_ns + 1);
	}
	if (om_rand(cx) % 4 == 0) {
		act_timer(cx, p); /* the other may have fired too, and lie behind this one */
	}
	return OM_OK;
}

static enum om_err
on_bell(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)cx;
	(void)state;
	CHECK(om_bell_rung_of(msg)->count > 0);
	w.heard += om_bell_rung_of(msg)->count;
	mix(w.heard);
	return OM_OK;
}

static enum om_err
on_pub(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	mix(om_msg_u64(msg) ^ om_self(cx).v);
	return OM_OK;
}

static enum om_err
peer_start(struct om_ctx *cx, void *state, const void *arg)
{
	struct peer *p = state;

	(void)arg;
	p->sender = w.next_sender++;
	p->favourite = any_peer(cx);
	while (p->place < LIVE_MAX && w.live[p->place] != NULL) {
		p->place++;
	}
	CHECK(p->place < LIVE_MAX);
	w.live[p->place] = p;
	return om_rand(cx) % 32 == 0 ? OM_ERR_MISSING : OM_OK;
}

static void
peer_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	struct peer *p = state;

	(void)cx;
	mix((uint64_t)why);
	w.asks_of_ended_askers += p->open_asks;
	w.live[p->place] = NULL;
}

/* An actor has one table or the other, and the first again after a restart. */
static enum om_err
on_act_plain(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	CHECK(!((struct peer *)state)->became);
	return on_act(cx, state, msg);
}

static enum om_err
on_act_changed(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	CHECK(((struct peer *)state)->became);
	return on_act(cx, state, msg);
}

#define THE_OTHERS                                                                  \
	{ T_NUM, on_num }, { T_OBJ, on_obj }, { T_ASK, on_ask }, { T_PUB, on_pub }, \
	    { OM_SYS_DOWN, on_down }, { OM_SYS_TIMER, on_timer },                   \
	{                                                                           \
		OM_SYS_BELL, on_bell                                                \
	}
static const struct om_handler handlers[] = { { T_ACT, on_act_plain }, THE_OTHERS };
static const struct om_handler changed[] = { { T_ACT, on_act_changed }, THE_OTHERS };

static void
act_become(struct om_ctx *cx, struct peer *p)
{
	p->became = !p->became;
	om_become(cx, p->became ? changed : handlers, OM_COUNT(handlers));
}

#define PEER_DEF(n, slots, bytes, policy)                                                     \
	{                                                                                     \
		.name = n, .state_size = sizeof(struct peer), .start = peer_start,            \
		.stop = peer_stop, .handlers = handlers, .handler_count = OM_COUNT(handlers), \
		.mailbox_slots = slots, .mailbox_bytes = bytes, .overload = policy            \
	}
static const struct om_actor_def defs[] = {
	PEER_DEF("refuses", SLOTS, 0, OM_OVERLOAD_REFUSE),
	PEER_DEF("drops_new", SLOTS, 0, OM_OVERLOAD_DROP_NEW),
	PEER_DEF("drops_oldest", SLOTS, 0, OM_OVERLOAD_DROP_OLDEST),
	PEER_DEF("blocks", SLOTS, 0, OM_OVERLOAD_BLOCK), /* no detached sender here: refuses */
	PEER_DEF("roomy", 0, 0, OM_OVERLOAD_REFUSE),
	PEER_DEF("few bytes", 0, BYTES, OM_OVERLOAD_REFUSE),
	PEER_DEF("newest bytes", 0, BYTES, OM_OVERLOAD_DROP_OLDEST),
};

static void
check_conservation(void)
{
	struct om_system_stats st;

	om_system_stats(w.sys, &st);
	CHECK(st.sent == st.handled + st.queued + st.dropped_full + st.dropped_stale +
			     st.dropped_stop + st.dropped_unknown);
	CHECK(w.asks_ended <= w.asks_made);
	CHECK(w.works_ended <= w.works_made);
	CHECK(w.heard <= w.rung);
}

static void
check_depth(struct om_actor_id who, const struct om_actor_def *def)
{
	/* A lane under a lock does not count the message that its actor has in hand. */
	unsigned in_hand = def->overload == OM_OVERLOAD_DROP_OLDEST || def->mailbox_bytes > 0;
	struct om_actor_stats st;

	if (om_actor_stats(w.sys, who, &st) == OM_OK) {
		CHECK(st.depth <= st.limit + in_hand && st.high_water <= st.limit);
	}
}

/* Nothing is to be done at this moment. */
static void
check_rest(void)
{
	struct om_actor_stats st;

	(void)om_sim_run(w.sys);
	for (unsigned i = 0; i < LIVE_MAX; i++) {
		const struct peer *p = w.live[i];

		if (p == NULL) {
			continue;
		}
		for (unsigned k = 0; k < TIMERS; k++) {
			const struct timer *t = &p->timers[k];

			CHECK(t->id == 0 || t->due_ns + OM_NS_PER_MS >= w.now_ns);
		}
		CHECK(p->monitor == 0 || om_actor_stats(w.sys, p->watched, &st) == OM_OK);
	}
}

static uint64_t
run_seed(uint64_t seed)
{
	struct om_system_conf conf = { .sim = true, .seed = seed, .actor_max = 16384 };
	static const enum om_strategy strategies[] = { OM_ONE_FOR_ONE, OM_ONE_FOR_ALL,
						       OM_REST_FOR_ONE };
	struct om_child_spec kids[KIDS];
	struct om_supervisor_spec spec = { .name = "sup",
					   .strategy = strategies[seed % 3],
					   .max_restarts = 5,
					   .window_ms = 50,
					   .backoff_min_ms = 2,
					   .backoff_max_ms = 10,
					   .children = kids,
					   .child_count = KIDS };
	static const char *const names[KIDS] = { "kid0", "kid1", "kid2" };
	struct om_actor_id sup = OM_NOBODY;

	memset(&w, 0, sizeof(w));
	w.hash = seed;
	CHECK(om_system_new(&conf, &w.sys) == OM_OK);
	CHECK(om_bell_new(w.sys, 64, &w.bell) == OM_OK);
	for (unsigned i = 0; i < KIDS; i++) {
		kids[i] = (struct om_child_spec){ .def = &defs[(seed + i) % OM_COUNT(defs)],
						  .name = names[i],
						  .restart = (enum om_restart)((seed >> i) % 3) };
	}
	if (om_supervisor_start(w.sys, &spec, &sup) != OM_OK) {
		sup = OM_NOBODY; /* a kid's start fails now and then */
	}
	mix(sup.v);
	for (uint64_t step = 0; step < STEPS; step++) {
		unsigned i = (unsigned)(step % PEERS);
		struct om_msg *msg;

		if (i < KIDS) {
			w.peer[i] = om_whereis(w.sys, names[i]);
		} else if (om_system_wait(w.sys, w.peer[i], 0) == OM_OK) {
			CHECK(om_system_spawn(w.sys, &defs[i % OM_COUNT(defs)], NULL, &w.peer[i]) ==
			      OM_OK);
		}
		msg = om_system_msg_new(w.sys, T_ACT, 0);
		if (om_system_send(w.sys, w.peer[i], &msg) != OM_OK) {
			om_msg_free(NULL, msg);
		}
		for (unsigned n = 0; n < 3 && om_sim_step(w.sys); n++) {
		}
		if (step % 7 == 0) {
			om_sim_advance(w.sys, 1);
		}
		check_conservation();
		check_depth(w.peer[i], i < KIDS ? kids[i].def : &defs[i % OM_COUNT(defs)]);
		if (step % REST_STEPS == 0) {
			check_rest();
		}
	}
	om_sim_advance(w.sys, 100); /* all time-outs */
	CHECK(om_system_stop(w.sys, 10000, NULL, 0) == 0);
	check_conservation();
	{
		struct om_system_stats st;

		om_system_stats(w.sys, &st);
		CHECK(st.actors_live == 0);
		CHECK(st.queued == 0);
	}
	CHECK(w.asks_ended + w.asks_of_ended_askers == w.asks_made);
	CHECK(w.objects == 0);
	CHECK(w.works_ended == w.works_made);
	CHECK(w.downs <= w.monitors_made);
	all_downs += w.downs;
	all_timers += w.timers_fired;
	om_bell_unref(w.bell);
	om_system_free(w.sys);
	return w.hash;
}

static void
play(uint64_t seed, bool alone)
{
	uint64_t hash = run_seed(seed);

	if (alone) {
		printf("hash %016" PRIx64 "\n", hash);
	} else if (seed % 100 == 0) {
		CHECK(run_seed(seed) == hash);
	}
}

int
main(int argc, char **argv)
{
	uint64_t count = each_seed(argv[0], play);

	(void)argc;
	if (count > 0) {
		printf("%" PRIu64 " seeds, %" PRIu64 " monitors told, %" PRIu64 " timers fired\n",
		       count, all_downs, all_timers);
		CHECK(all_downs > count && all_timers > count);
	}
	return 0;
}
