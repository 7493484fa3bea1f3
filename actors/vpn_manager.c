/* SPDX-License-Identifier: ISC */
/*
 * The networks of the running jobs: the service and its messages.  What is done with one tunnel, and
 * in which order, is vpn_tunnel.c's.
 */
#include <stdlib.h>
#include "actors/job_spec.h"
#include "actors/names.h"
#include "actors/vpn_impl.h"
#include "base/assert.h"
#include "base/log.h"

#define VPN_MAGIC 0x76706e6du

static struct om_vpn_tunnel *
tunnel_find(const struct om_vpn_manager *vm, struct om_str job)
{
	struct om_name_node *node = om_name_table_find(&vm->tunnels, job);

	return node != NULL ? om_vpn_tunnel_of(node) : NULL;
}

/* Without the readings nobody would notice a dead tunnel. */
static void
sample_later(struct om_service *sv, struct om_vpn_manager *vm)
{
	if (vm->stats_timer == 0 && om_timer_start(om_service_cx(sv), vm->conf->sample_ms, 0, 0,
						   &vm->stats_timer) != OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM);
	}
}

/* The operator's limit holds also for a job that asks for none. */
static uint64_t
rate_of(const struct om_vpn_manager_conf *conf, uint64_t asked)
{
	return conf->rate_max_kbit != 0 && (asked == 0 || asked > conf->rate_max_kbit)
		   ? conf->rate_max_kbit
		   : asked;
}

static enum om_err
vpn_on_up(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_vpn_manager *vm = state;
	const struct om_vpn_up *m = in->body;
	struct om_why why = { "" };
	struct om_vpn_tunnel *t;
	enum om_err err;

	if (vm->conf->env == NULL || vm->conf->env->backend == OM_WG_BACKEND_NONE) {
		return om_service_reply_err(
		    sv, in, OM_ERR_UNSUPPORTED,
		    "this provider has no WireGuard: only jobs with network \"none\" run here");
	}
	if (tunnel_find(vm, m->job) != NULL) {
		return OM_ERR_EXISTS;
	}
	if (vm->tunnels.count >= OM_VPN_JOBS_MAX) {
		return OM_ERR_LIMIT;
	}
	t = calloc(1, sizeof(*t));
	if (t == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_job_id_parse(m->job.ptr, m->job.len, &t->job);
	if (err == OM_OK) {
		err = om_job_tunnel_parse(m->vpn, &t->wg, &why);
	}
	if (err == OM_OK) {
		err = om_jobnet_endpoint_check(vm->conf->env, &t->wg.endpoint, &why);
	}
	if (err == OM_OK) {
		err = om_name_table_add(&vm->tunnels, &t->node);
	}
	if (err != OM_OK) {
		om_wg_config_wipe(&t->wg);
		free(t);
		return om_service_reply_err(sv, in, err, "%s",
					    why.text[0] != '\0' ? why.text : om_err_text(err));
	}
	t->rate_kbit = rate_of(vm->conf, m->bandwidth_kbit);
	t->up_rq = om_service_later(sv, in);
	om_vpn_tunnel_reserve(sv, vm, t);
	sample_later(sv, vm);
	return OM_OK;
}

static enum om_err
vpn_on_attach(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_vpn_manager *vm = state;
	const struct om_job_ref *m = in->body;
	struct om_vpn_tunnel *t = tunnel_find(vm, m->job);

	if (t == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (t->attach_rq.id != 0 || t->is_attached) {
		return OM_ERR_STATE;
	}
	t->attach_rq = om_service_later(sv, in);
	om_vpn_tunnel_next(sv, vm, t);
	return OM_OK;
}

/* An executor has begun its life: what the one before it had is nobody's. */
static enum om_err
vpn_sweep(struct om_service *sv, struct om_vpn_manager *vm, const struct om_in *in)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	om_service_reply_err_to(sv, &vm->sweep_rq, OM_ERR_CANCELLED, "another one took its place");
	vm->sweep_rq = om_service_later(sv, in);
	while ((node = om_name_table_next(&vm->tunnels, &walk)) != NULL) {
		struct om_vpn_tunnel *t = om_vpn_tunnel_of(node);

		t->is_orphan = true;
		if (!t->going_down) {
			t->going_down = true;
			om_vpn_tunnel_next(sv, vm, t);
		}
	}
	om_vpn_swept(sv, vm);
	return OM_OK;
}

/* Works from any state; one that is gone already has no counters. */
static enum om_err
vpn_on_down(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_vpn_manager *vm = state;
	const struct om_job_ref *m = in->body;
	struct om_vpn_tunnel *t = tunnel_find(vm, m->job);

	if (om_str_is(m->job, "*")) {
		return vpn_sweep(sv, vm, in);
	}
	if (t == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (t->going_down) {
		return OM_ERR_STATE;
	}
	t->going_down = true;
	t->down_rq = om_service_later(sv, in);
	om_vpn_tunnel_next(sv, vm, t);
	return OM_OK;
}

static void
sample_all(struct om_service *sv, struct om_vpn_manager *vm)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&vm->tunnels, &walk)) != NULL) {
		om_vpn_tunnel_sample(sv, vm, om_vpn_tunnel_of(node));
	}
	vm->stats_timer = 0; /* without tunnels nothing wakes us */
	if (vm->tunnels.count > 0) {
		sample_later(sv, vm);
	}
}

static enum om_err
vpn_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct om_vpn_manager *vm = state;

	OM_ASSERT(vm->magic == VPN_MAGIC);
	if (msg->type == OM_SYS_TIMER) {
		sample_all(sv, vm);
		return OM_OK;
	}
	if (msg->type == OM_SYS_IO) {
		const struct om_io_ready *io = (const void *)msg->payload;
		struct om_vpn_tunnel *t = (struct om_vpn_tunnel *)(uintptr_t)io->cookie;

		om_io_unwatch(om_service_cx(sv), t->died_watch);
		t->died_watch = 0;
		om_vpn_tunnel_lost(sv, t, "the tunnel's WireGuard process died");
		return OM_OK;
	}
	return OM_ERR_UNKNOWN_TYPE;
}

void
om_vpn_handoff_free(void *handoff)
{
	struct om_vpn_handoff *h = handoff;

	if (h != NULL) {
		om_nflog_close(h->log);
		free(h);
	}
}

static enum om_err
vpn_start(struct om_service *sv, void *state, const void *arg)
{
	struct om_vpn_manager *vm = state;

	(void)sv;
	vm->magic = VPN_MAGIC;
	vm->conf = arg;
	om_name_table_init(&vm->tunnels, om_vpn_tunnel_name);
	return OM_OK;
}

/* No job goes on with a network that nobody looks after. */
static void
vpn_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct om_vpn_manager *vm = state;
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	(void)why;
	while ((node = om_name_table_next(&vm->tunnels, &walk)) != NULL) {
		struct om_vpn_tunnel *t = om_vpn_tunnel_of(node);

		if (!t->going_down) {
			om_vpn_tunnel_lost(sv, t, "the manager of the tunnels ended");
		}
		om_vpn_tunnel_drop(sv, vm, t);
	}
	om_name_table_fini(&vm->tunnels);
}

static const struct om_service_handler vpn_handlers[] = {
	{ OM_MSG_VPN_UP, vpn_on_up },
	{ OM_MSG_VPN_ATTACH, vpn_on_attach },
	{ OM_MSG_VPN_DOWN, vpn_on_down },
};

const struct om_service_def om_vpn_manager_service = {
	.name = OM_VPN_MANAGER,
	.state_size = sizeof(struct om_vpn_manager),
	.start = vpn_start,
	.stop = vpn_stop,
	.on = vpn_handlers,
	.on_count = OM_COUNT(vpn_handlers),
	.on_msg = vpn_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
