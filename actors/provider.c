/* SPDX-License-Identifier: ISC */
/* The provider as an actor: its start, its end, its table of messages. */
#include "actors/provider_submit_impl.h"

#include "actors/names.h"

#define ARENA_MAX        (8u * 1024 * 1024)
#define PROVIDER_BACKLOG (1u << 18) /* events of the ledger must not be refused */

/* With the defaults filled in. */
static void
limits_take(struct provider *p, const struct om_provider_limits *from)
{
	p->limits = *from;
	if (p->limits.hold_expiry_ms == 0) {
		p->limits.hold_expiry_ms = OM_PROVIDER_HOLD_EXPIRY_MS;
	}
	if (p->limits.jobs_max == 0) {
		p->limits.jobs_max = OM_PROVIDER_JOBS_MAX;
	}
}

static enum om_err
provider_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct provider *p = provider_of(state);
	const struct om_timer_fired *fired = (const void *)msg->payload;

	if (msg->type != OM_SYS_TIMER) {
		return OM_ERR_UNKNOWN_TYPE;
	}
	switch (fired->cookie) {
	case PROVIDER_TIMER_EXPIRY:
		provider_on_expiry_timer(sv, p);
		break;
	case PROVIDER_TIMER_WATCH:
		provider_on_watch_timer(sv, p);
		break;
	case PROVIDER_TIMER_QUEUE:
		provider_on_queue_timer(sv, p);
		break;
	default:
		provider_recover(sv, p);
	}
	return OM_OK;
}

static enum om_err
provider_on_usage(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	struct om_usage_table table = { .since_ms = (uint64_t)(p->started.ns / OM_NS_PER_MS) };

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	om_arena_reset(&p->arena);
	if (om_usage_tell(&p->usage, &p->arena, &table) != OM_OK) {
		return OM_ERR_NOMEM;
	}
	return om_service_reply(sv, in, OM_MSG_USAGE_TABLE, &table);
}

static enum om_err
provider_on_events_wanted(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_events_wanted *m = in->body;

	(void)sv;
	provider_of(state)->unheard = !m->on;
	return OM_OK;
}

static enum om_err
provider_on_policy(struct om_service *sv, void *state, const struct om_in *in)
{
	struct provider *p = provider_of(state);
	const struct om_policy *m = in->body;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	limits_take(p, &(struct om_provider_limits){ .hold_expiry_ms = m->approval_expiry_ms,
						     .jobs_max = m->queue_max,
						     .peer_jobs_max = m->peer_max });
	if (p->conf->live != NULL) {
		*p->conf->live = (struct om_provider_live){ .changed = true, .limits = p->limits };
	}
	return om_service_reply_ok(sv, in);
}

static void
provider_on_turn_end(struct om_service *sv, void *state)
{
	provider_many_ask(sv, provider_of(state));
}

static enum om_err
provider_start(struct om_service *sv, void *state, const void *arg)
{
	struct provider *p = state;

	p->magic = PROVIDER_MAGIC;
	p->conf = arg;
	p->wall = p->conf->wall != NULL ? p->conf->wall : om_wall_now;
	limits_take(p,
		    p->conf->live != NULL && p->conf->live->changed
			? &p->conf->live->limits
			: &(struct om_provider_limits){ .hold_expiry_ms = p->conf->hold_expiry_ms,
							.jobs_max = p->conf->jobs_max,
							.peer_jobs_max = p->conf->peer_jobs_max });
	p->started = p->wall();
	p->arena.max = ARENA_MAX;
	LIST_INIT(&p->submits);
	LIST_INIT(&p->spare_submits);
	LIST_INIT(&p->questions);
	LIST_INIT(&p->comebacks);
	LIST_INIT(&p->looks);
	LIST_INIT(&p->drain_asks);
	LIST_INIT(&p->tests);
	LIST_INIT(&p->gets);
	TAILQ_INIT(&p->verbs);
	TAILQ_INIT(&p->tasks);
	provider_live_init(p);
	provider_recover(sv, p);
	return OM_OK;
}

static void
provider_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct provider *p = state;

	(void)why;
	provider_submits_fini(sv, p);
	provider_recover_fini(p);
	provider_adopt_fini(p);
	provider_drain_fini(sv, p);
	provider_tests_fini(sv, p);
	provider_gets_fini(sv, p);
	provider_verbs_fini(sv, p);
	provider_live_fini(p);
	om_arena_fini(&p->arena);
}

static const struct om_service_handler provider_handlers[] = {
	{ OM_MSG_JOB_EVENT, provider_on_event },
	{ OM_MSG_JOB_WAIT, provider_on_wait },
	{ OM_MSG_JOB_GET, provider_on_get },
	{ OM_MSG_JOB_CANCEL, provider_on_cancel },
	{ OM_MSG_JOB_APPROVE, provider_on_refs },
	{ OM_MSG_JOB_DENY, provider_on_refs },
	{ OM_MSG_JOB_HOLD, provider_on_refs },
	{ OM_MSG_JOB_RELEASE, provider_on_refs },
	{ OM_MSG_QUEUE_USAGE, provider_on_usage },
	{ OM_MSG_JOB_MOVE, provider_on_move },
	{ OM_MSG_QUEUE_DRAIN, provider_on_drain },
	{ OM_MSG_RULES_TEST, provider_on_test },
	{ OM_MSG_QUEUE_RESUME, provider_on_resume },
	{ OM_MSG_JOB_RETRY, provider_on_refs },
	{ OM_MSG_EVENTS_WANTED, provider_on_events_wanted },
	{ OM_MSG_CONFIG_POLICY, provider_on_policy },
	{ OM_MSG_PING, provider_on_ping },
	{ OM_MSG_DAEMON_STOP, provider_on_stop },
};

static const struct om_service_handler provider_raw_handlers[] = {
	{ OM_MSG_JOB_SUBMIT, provider_on_submit },
	{ OM_MSG_JOB_SUBMIT_BATCH, provider_on_batch },
};

const struct om_service_def om_provider_service = {
	.name = OM_PROVIDER,
	.state_size = sizeof(struct provider),
	.start = provider_start,
	.stop = provider_stop,
	.on = provider_handlers,
	.on_count = OM_COUNT(provider_handlers),
	.on_raw = provider_raw_handlers,
	.on_raw_count = OM_COUNT(provider_raw_handlers),
	.on_msg = provider_on_msg,
	.on_batch_end = provider_on_turn_end,
	.backlog = PROVIDER_BACKLOG,
	.restart = OM_RESTART_ON_FAILURE,
};
