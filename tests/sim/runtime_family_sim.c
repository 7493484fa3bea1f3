/* SPDX-License-Identifier: ISC */
/*
 * A supervisor below a supervisor against an oracle.  Random children fail, end in order, are killed
 * or stopped; after each the world settles, and the starts and stops that were seen must be those
 * that OTP's rules give, in their order: strategy, restart kind, intensity, reverse stops, and the
 * elder supervisor that starts the younger one anew when it has given up.
 *
 *	SEEDS=100000 runtime_family_sim		many seeds
 *	SEED=123 runtime_family_sim		one
 */
#include <string.h>
#include "runtime/supervisor.h"
#include "runtime/system.h"
#include "tests/sim/seeds.h"

#define KIDS       3 /* of each supervisor; the elder one's middle child is the younger one */
#define ACTIONS    20
#define WINDOW_MS  5000
#define SETTLE_MS  100 /* more than the back-off */
#define EVENTS_MAX 256

static uint64_t rng;

/* splitmix64, Steele, Lea and Flood (2014) */
static uint64_t
roll(uint64_t below)
{
	uint64_t z = rng += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % below;
}

/* --- what happens, and what should ------------------------------------------------------------------- */

struct events {
	unsigned count;
	char text[EVENTS_MAX][4]; /* "+a" has started, "-a" has stopped */
};
static struct events seen, due;
static uint64_t events_all;

static void
event(struct events *e, char what, char who)
{
	CHECK(e->count < EVENTS_MAX);
	e->text[e->count][0] = what;
	e->text[e->count][1] = who;
	e->text[e->count++][2] = '\0';
}

static void
events_print(const char *title, const struct events *e)
{
	fprintf(stderr, "%s:", title);
	for (unsigned i = 0; i < e->count; i++) {
		fprintf(stderr, " %s", e->text[i]);
	}
	fprintf(stderr, "\n");
}

static void
check_events(const char *after)
{
	bool same = seen.count == due.count;

	for (unsigned i = 0; same && i < seen.count; i++) {
		same = strcmp(seen.text[i], due.text[i]) == 0;
	}
	if (!same) {
		events_print("seen", &seen);
		events_print("due ", &due);
		fail_at(after, __LINE__);
	}
	events_all += seen.count;
	seen.count = due.count = 0;
}

/* --- the oracle ---------------------------------------------------------------------------------------- */

struct model {
	struct om_supervisor_spec spec;
	struct om_child_spec kids[KIDS];
	char who[KIDS]; /* '\0': the younger supervisor */
	struct model *below, *above;
	bool up[KIDS];
	int64_t restarts[64]; /* when */
	unsigned restart_count;
};
static int64_t now_ms;

static void model_fails(struct model *m, unsigned i);

static void
model_start(struct model *m, unsigned i)
{
	m->up[i] = true;
	if (m->who[i] != '\0') {
		event(&due, '+', m->who[i]);
		return;
	}
	m->below->restart_count = 0;
	for (unsigned k = 0; k < KIDS; k++) {
		model_start(m->below, k);
	}
}

static void
model_stop(struct model *m, unsigned i)
{
	if (!m->up[i]) {
		return;
	}
	m->up[i] = false;
	if (m->who[i] != '\0') {
		event(&due, '-', m->who[i]);
		return;
	}
	for (unsigned k = KIDS; k-- > 0;) {
		model_stop(m->below, k);
	}
}

static bool
model_may_restart(struct model *m)
{
	unsigned recent = 0;

	for (unsigned i = 0; i < m->restart_count; i++) {
		recent += now_ms - m->restarts[i] <= m->spec.window_ms;
	}
	if (recent >= m->spec.max_restarts) {
		return false;
	}
	CHECK(m->restart_count < 64);
	m->restarts[m->restart_count++] = now_ms;
	return true;
}

/* Child i has ended and is to come back. */
static void
model_restart(struct model *m, unsigned i)
{
	unsigned low = m->spec.strategy == OM_ONE_FOR_ALL ? 0 : i;

	if (!model_may_restart(m)) {
		for (unsigned k = KIDS; k-- > 0;) {
			model_stop(m, k);
		}
		if (m->above != NULL) {
			model_fails(m->above, 1);
		}
		return;
	}
	if (m->spec.strategy == OM_ONE_FOR_ONE) {
		model_start(m, i);
		return;
	}
	for (unsigned k = KIDS; k-- > low;) {
		model_stop(m, k);
	}
	for (unsigned k = low; k < KIDS; k++) {
		if (m->kids[k].restart != OM_RESTART_NEVER) {
			model_start(m, k);
		}
	}
}

static void
model_fails(struct model *m, unsigned i)
{
	m->up[i] = false;
	if (m->kids[i].restart != OM_RESTART_NEVER) {
		model_restart(m, i);
	}
}

static void
model_ends(struct model *m, unsigned i)
{
	m->up[i] = false;
	if (m->kids[i].restart == OM_RESTART_ALWAYS) {
		model_restart(m, i);
	}
}

/* --- the world ----------------------------------------------------------------------------------------- */

enum { T_FAIL = 1, T_EXIT };

struct kid {
	char who;
};

static enum om_err
kid_on_fail(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	om_fail(cx, OM_ERR_IO);
	return OM_OK;
}

static enum om_err
kid_on_exit(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	(void)state;
	(void)msg;
	om_exit(cx);
	return OM_OK;
}

static enum om_err
kid_start(struct om_ctx *cx, void *state, const void *arg)
{
	struct kid *k = state;

	(void)cx;
	k->who = *(const char *)arg;
	event(&seen, '+', k->who);
	return OM_OK;
}

static void
kid_stop(struct om_ctx *cx, void *state, enum om_err why)
{
	const struct kid *k = state;

	(void)cx;
	(void)why;
	event(&seen, '-', k->who);
}

static const struct om_handler kid_handlers[] = { { T_FAIL, kid_on_fail },
						  { T_EXIT, kid_on_exit } };
static const struct om_actor_def kid_def = { .name = "kid",
					     .state_size = sizeof(struct kid),
					     .start = kid_start,
					     .stop = kid_stop,
					     .handlers = kid_handlers,
					     .handler_count = OM_COUNT(kid_handlers) };

static const char names[][2] = { "a", "b", "c", "d", "e" };

static void
model_init(struct model *m, const char *name, unsigned first, struct model *below)
{
	static const enum om_strategy strategies[] = { OM_ONE_FOR_ONE, OM_ONE_FOR_ALL,
						       OM_REST_FOR_ONE };

	memset(m, 0, sizeof(*m));
	m->below = below;
	for (unsigned i = 0; i < KIDS; i++) {
		bool sub = below != NULL && i == 1;
		const char *who = sub ? "younger" : names[first++];

		m->kids[i] = (struct om_child_spec){
			.def = sub ? &om_supervisor_def : &kid_def,
			.arg = sub ? (const void *)&below->spec : who,
			.name = sub ? NULL : who,
			.restart = sub ? OM_RESTART_ALWAYS : (enum om_restart)roll(3),
		};
		m->who[i] = sub ? '\0' : who[0];
	}
	m->spec = (struct om_supervisor_spec){ .name = name,
					       .strategy = strategies[roll(3)],
					       .max_restarts = 1 + (uint32_t)roll(4),
					       .window_ms = WINDOW_MS,
					       .backoff_min_ms = (uint32_t)roll(2) * 5,
					       .backoff_max_ms = 20,
					       .children = m->kids,
					       .child_count = KIDS };
}

static void
tell(struct om_system *sys, struct om_actor_id who, uint32_t type)
{
	struct om_msg *msg = om_system_msg_new(sys, type, 0);

	CHECK(msg != NULL && om_system_send(sys, who, &msg) == OM_OK);
}

/* One of the kids that are up meets its fate. */
static void
action(struct om_system *sys, struct model *m)
{
	unsigned i = (unsigned)roll(KIDS);
	char name[2] = { m->who[i], '\0' };
	struct om_actor_id who = m->who[i] != '\0' ? om_whereis(sys, name) : OM_NOBODY;

	if (m->who[i] == '\0') {
		if (m->up[i]) {
			action(sys, m->below);
		}
		return;
	}
	CHECK((who.v != 0) == m->up[i]);
	if (!m->up[i]) {
		return;
	}
	event(&due, '-', m->who[i]);
	switch (roll(3)) {
	case 0:
		tell(sys, who, T_FAIL);
		model_fails(m, i);
		break;
	case 1:
		tell(sys, who, T_EXIT);
		model_ends(m, i);
		break;
	default:
		om_system_stop_actor(sys, who);
		model_ends(m, i);
		break;
	}
}

static void
advance(struct om_system *sys, uint64_t ms)
{
	om_sim_advance(sys, ms);
	now_ms += (int64_t)ms;
}

static void
play(uint64_t seed, bool alone)
{
	struct om_system_conf conf = { .sim = true, .seed = seed, .actor_max = 1024 };
	struct model elder, younger;
	struct om_system_stats st;
	struct om_system *sys;
	struct om_actor_id top;

	(void)alone;
	rng = seed;
	now_ms = 0;
	seen.count = due.count = 0;
	model_init(&younger, "younger", 1, NULL);
	model_init(&elder, "elder", 0, &younger);
	elder.who[2] = 'e';
	elder.kids[2].name = elder.kids[2].arg = names[4];
	younger.above = &elder;
	CHECK(om_system_new(&conf, &sys) == OM_OK);
	CHECK(om_supervisor_start(sys, &elder.spec, &top) == OM_OK);
	advance(sys, 1);
	for (unsigned i = 0; i < KIDS; i++) {
		model_start(&elder, i);
	}
	check_events("start in order");
	for (unsigned n = 0; n < ACTIONS; n++) {
		action(sys, &elder);
		advance(sys, SETTLE_MS);
		check_events("after an end");
		advance(sys, roll(2) * roll(2 * WINDOW_MS));
		check_events("nothing happens by itself");
	}
	for (unsigned k = KIDS; k-- > 0;) {
		model_stop(&elder, k);
	}
	CHECK(om_system_stop(sys, 10000, NULL, 0) == 0);
	check_events("stop in reverse");
	om_system_stats(sys, &st);
	CHECK(st.actors_live == 0 && st.queued == 0);
	om_system_free(sys);
}

int
main(int argc, char **argv)
{
	uint64_t count = each_seed(argv[0], play);

	(void)argc;
	if (count > 0) {
		printf("%" PRIu64 " seeds, %" PRIu64 " starts and stops\n", count, events_all);
	}
	return 0;
}
