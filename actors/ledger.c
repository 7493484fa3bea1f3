/* SPDX-License-Identifier: ISC */
/*
 * The ledger's life, and its long work.
 *
 * An event is never dropped while the provider lives: what it has no room for is kept (`unsent`)
 * and made anew from the row.  If broken: a job that ended stays in its books for ever.
 */
#include "actors/ledger.h"
#include <stdlib.h>
#include <string.h>
#include "actors/ledger_impl.h"
#include "base/log.h"

#define LEDGER_FOLD_WAIT 64 /* commits whose fold takes less than others notice */
#define LEDGER_PURGE_MS  UINT64_C(60000) /* from a write to the look at the limits of retention */
#define LEDGER_IDLE_MS   UINT64_C(3600000) /* when nothing is written: jobs grow old all the same */
#define LEDGER_STEP_MS   1 /* between two pieces of a long work */
#define LEDGER_ARENA_MAX (UINT64_C(512) << 20)

/* --- retention ---------------------------------------------------------------------------------- */

static bool
ledger_has_retention(const struct om_ledger_conf *conf)
{
	return conf->keep_ms != 0 || conf->keep_bytes != 0 || conf->audit_keep_ms != 0;
}

/* When the limits are looked at next: soon after a write, seldom in a daemon that is idle. */
static void
purge_arm(struct om_service *sv, struct ledger *l, bool soon)
{
	const uint64_t audit_ms = l->conf->audit_keep_ms;
	uint64_t keep_ms = l->conf->keep_ms, wait_ms = LEDGER_PURGE_MS;

	keep_ms = audit_ms != 0 && (keep_ms == 0 || audit_ms < keep_ms) ? audit_ms : keep_ms;
	om_timer_cancel(om_service_cx(sv), l->purge_timer);
	l->purge_timer = 0;
	l->purge_soon = soon;
	if (!soon && keep_ms == 0) {
		return; /* only the size counts, and nothing is added */
	}
	if (!soon && keep_ms / 24 > wait_ms) {
		wait_ms = keep_ms / 24 < LEDGER_IDLE_MS ? keep_ms / 24 : LEDGER_IDLE_MS;
	}
	if (om_timer_start(om_service_cx(sv), wait_ms, 0, 0, &l->purge_timer) != OM_OK) {
		l->purge_timer = 0;
		l->purge_soon = false; /* the next write tries */
	}
}

void
ledger_purge_soon(struct om_service *sv, struct ledger *l)
{
	if (!l->purge_soon && ledger_has_retention(l->conf)) {
		purge_arm(sv, l, true);
	}
}

/* --- long work in pieces ------------------------------------------------------------------------ */

void
ledger_step_soon(struct om_service *sv, struct ledger *l)
{
	if (l->step_timer == 0 &&
	    om_timer_start(om_service_cx(sv), LEDGER_STEP_MS, 0, 0, &l->step_timer) != OM_OK) {
		l->step_timer = 0; /* the tick comes round */
	}
}

static struct om_wall
ledger_before(const struct ledger *l, uint64_t keep_ms)
{
	const struct om_wall now = ledger_now(l);

	if (keep_ms == 0 || ledger_ms(now) <= keep_ms) {
		return (struct om_wall){ 0 };
	}
	return ledger_wall(ledger_ms(now) - keep_ms);
}

static void
purge_step(struct om_service *sv, struct ledger *l)
{
	struct om_purge purge = {
		.finished_before = ledger_before(l, l->conf->keep_ms),
		.audit_before = ledger_before(l, l->conf->audit_keep_ms),
		.bytes_max = l->conf->keep_bytes,
	};

	bool others = l->in_tx;

	l->purging = false;
	purge_arm(sv, l, true);
	if (ledger_begin(l) != OM_OK) {
		return; /* the disk refuses; the next turn comes */
	}
	l->group = 1;
	if (om_store_purge(l->store, &purge) == OM_OK && purge.jobs + purge.audit_rows > 0) {
		om_info("ledger.purged", "%llu jobs and %llu audit entries removed by retention",
			(unsigned long long)purge.jobs, (unsigned long long)purge.audit_rows);
	}
	ledger_finish(sv, l);
	if (purge.more) {
		l->purging = true;
		ledger_step_soon(sv, l);
	} else if (!others && !l->degraded) {
		purge_arm(sv, l, false);
	}
}

/* Between groups. */
static void
ledger_wipe(struct ledger *l)
{
	if (!l->keys_left) {
		return;
	}
	if (om_store_wipe(l->store) == OM_OK) {
		l->keys_left = false;
	} else {
		om_debug("ledger.wipe", "%s", om_store_why(l->store)); /* the timer comes round */
	}
}

/* Between groups: whoever reads the file sees what was committed.  Much of it goes on beside us. */
static void
ledger_fold(struct ledger *l)
{
	const bool wait = l->commits - l->commits_folded <= LEDGER_FOLD_WAIT;
	const enum om_err err = om_store_fold(l->store, wait);

	l->commits_folded = l->commits;

	if (err != OM_OK && !l->fold_failed) {
		om_warn("ledger.fold", "%s", om_store_why(l->store));
	}
	l->fold_failed = err != OM_OK; /* then the timer comes round */
}

static enum om_err
ledger_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct ledger *l = ledger_of(state);
	const struct om_timer_fired *fired = (const void *)msg->payload;

	if (msg->type != OM_SYS_TIMER) {
		return OM_ERR_UNKNOWN_TYPE;
	}
	if (fired->timer == l->step_timer) {
		l->step_timer = 0;
	} else if (fired->timer == l->tick_timer) {
		l->tick_timer = 0;
		ledger_finish(sv, l);
		ledger_followers_answer(sv, l, true);
		ledger_finish(sv, l);
	} else if (fired->timer == l->wipe_timer) {
		l->wipe_timer = 0;
		ledger_finish(sv, l);
		ledger_wipe(l);
		ledger_tick_when_needed(sv, l);
	} else if (fired->timer == l->fold_timer) {
		l->fold_timer = 0;
		ledger_finish(sv, l);
		ledger_fold(l);
		ledger_tick_when_needed(sv, l);
	} else {
		l->purging = true;
	}
	ledger_verify_step(sv, l);
	if (l->purging) {
		purge_step(sv, l);
	}
	return OM_OK;
}

static enum om_err
ledger_on_events_wanted(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_events_wanted *m = in->body;

	(void)sv;
	ledger_of(state)->unheard = !m->on;
	return OM_OK;
}

static void
ledger_on_batch_end(struct om_service *sv, void *state)
{
	ledger_flush(sv, ledger_of(state));
}

/* --- life --------------------------------------------------------------------------------------- */

static enum om_err
ledger_start(struct om_service *sv, void *state, const void *arg)
{
	const struct om_ledger_conf *conf = arg;
	struct om_sqlite_conf store_conf = { .path = conf->path,
					     .wal_bytes = conf->wal_bytes,
					     .log_bytes = conf->log_bytes,
					     .cache_kib = conf->cache_kib,
					     .vfs = conf->vfs };
	struct ledger *l = state;
	struct om_audit_mark head;
	struct om_why why;
	enum om_err err;

	l->magic = LEDGER_MAGIC;
	l->conf = conf;
	ledger_keys_init(l);
	STAILQ_INIT(&l->unsent);
	STAILQ_INIT(&l->verifying);
	TAILQ_INIT(&l->followers);
	ledger_live_init(l);
	ledger_group_init(l, LEDGER_ARENA_MAX);
	err = om_sqlite_open(&store_conf, &l->store, &why);
	if (err != OM_OK) {
		om_error("ledger.open", "%s", why.text);
		return err;
	}
	err = om_store_audit_head(l->store, &head);
	if (err == OM_OK) {
		l->audit_sent = head.seq; /* before this life: read, not told */
		err = ledger_recover_lost(l);
		ledger_wipe(l);
	}
	if (err == OM_OK && ledger_has_retention(conf)) {
		l->purging = true;
		ledger_step_soon(sv, l);
	}
	if (err != OM_OK) {
		om_error("ledger.open", "%s", om_store_why(l->store));
	}
	return err;
}

static void
ledger_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct ledger *l = ledger_of(state);
	struct ledger_unsent *u;
	struct ledger_verify *v;

	(void)why;
	if (l->store != NULL) {
		ledger_finish(sv, l);
		ledger_wipe(l);
	}
	ledger_followers_drop(sv, l);
	while ((v = STAILQ_FIRST(&l->verifying)) != NULL) {
		STAILQ_REMOVE_HEAD(&l->verifying, link);
		om_service_reply_err_to(sv, &v->rq, OM_ERR_SHUTDOWN, "the ledger is stopping");
		free(v);
	}
	while ((u = STAILQ_FIRST(&l->unsent)) != NULL) {
		STAILQ_REMOVE_HEAD(&l->unsent, link);
		free(u);
	}
	om_store_close(l->store);
	l->store = NULL;
	ledger_keys_fini(l);
	ledger_live_fini(l);
	ledger_group_fini(l);
}

static const struct om_service_handler ledger_handlers[] = {
	{ OM_MSG_LEDGER_SUBMIT, ledger_on_submit },
	{ OM_MSG_LEDGER_SUBMIT_MANY, ledger_on_submit_many },
	{ OM_MSG_LEDGER_MOVE, ledger_on_move },
	{ OM_MSG_LEDGER_OUTPUT, ledger_on_output },
	{ OM_MSG_LEDGER_PLACE, ledger_on_place },
	{ OM_MSG_LEDGER_AFTER, ledger_on_after },
	{ OM_MSG_JOB_PURGE, ledger_on_purge },
	{ OM_MSG_LEDGER_SET, ledger_on_set },
	{ OM_MSG_AUDIT_APPEND, ledger_on_append },
	{ OM_MSG_JOB_GET, ledger_on_get },
	{ OM_MSG_JOB_LIST, ledger_on_list },
	{ OM_MSG_LEDGER_RAN, ledger_on_ran },
	{ OM_MSG_JOB_OUTPUT, ledger_on_job_output },
	{ OM_MSG_LEDGER_SPEC_GET, ledger_on_spec_get },
	{ OM_MSG_LEDGER_RECOVER, ledger_on_recover },
	{ OM_MSG_LEDGER_LIST, ledger_on_entries },
	{ OM_MSG_LEDGER_COUNT, ledger_on_count },
	{ OM_MSG_LEDGER_STATS, ledger_on_stats },
	{ OM_MSG_LEDGER_AUDIT, ledger_on_audit },
	{ OM_MSG_LEDGER_AUDIT_VERIFY, ledger_on_audit_verify },
	{ OM_MSG_VPN_STATS, ledger_on_tunnel },
	{ OM_MSG_EVENTS_WANTED, ledger_on_events_wanted },
};

const struct om_service_def om_ledger_service = {
	.name = OM_LEDGER,
	.state_size = sizeof(struct ledger),
	.start = ledger_start,
	.stop = ledger_stop,
	.on = ledger_handlers,
	.on_count = OM_COUNT(ledger_handlers),
	.on_msg = ledger_on_msg,
	.on_batch_end = ledger_on_batch_end,
	.detached = true,
	.restart = OM_RESTART_ALWAYS,
};
