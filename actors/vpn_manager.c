/* SPDX-License-Identifier: ISC */
/*
 * The networks of the running jobs.  All that touches the kernel blocks for milliseconds and goes to
 * the offload pool, one call at a time for one network:
 *
 *	reserve -> (vpn.ready) -> up -> attach -> [stats ...] -> stats, down
 *
 * 1. `busy` is set while a call is under way, and only then is tunnel->net another thread's.  If
 *    broken: two threads in one network.
 * 2. What is asked meanwhile (attach, down) is remembered and done next; down comes last and always.
 * 3. A failed call is kept in `err` and answered to whoever asks for the next step; vpn.down works
 *    whatever happened before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "actors/name_table.h"
#include "actors/names.h"
#include "actors/vpn_manager.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/secret.h"

#define VPN_MAGIC 0x76706e6du
enum vpn_cookie { COOKIE_STATS = 1 }; /* timers; a watch's cookie is its tunnel */

enum vpn_call { CALL_RESERVE, CALL_UP, CALL_ATTACH, CALL_STATS, CALL_DOWN };

struct tunnel {
	struct om_name_node node;
	struct om_job_id job;
	struct om_wg_config wg;
	uint64_t rate_kbit;
	struct om_jobnet *net;
	enum om_err err; /* of the first call that failed */
	struct om_why why;
	bool busy;
	bool is_up, is_attached, going_down;
	struct om_bus_request up_rq, attach_rq, down_rq;
	uint64_t died_watch; /* wireguard-go's pidfd */
	struct om_jobnet_stats stats;
};

/* One call on the offload pool.  The tunnel cannot go while `busy`. */
struct vpn_work {
	enum vpn_call call;
	struct om_jobnet_env *env;
	struct tunnel *t;
	struct om_job_id job;
	struct om_wg_config wg;
	uint64_t rate_kbit;
	struct om_jobnet *net;
	struct om_jobnet_stats stats;
	struct om_why why;
};

struct vpn_manager {
	uint32_t magic;
	const struct om_vpn_manager_conf *conf;
	struct om_name_table tunnels;
	uint64_t stats_timer;
};

static void tunnel_next(struct om_service *sv, struct vpn_manager *vm, struct tunnel *t);

static struct tunnel *
tunnel_of(const struct om_name_node *node)
{
	return (struct tunnel *)(uintptr_t)((const char *)node - offsetof(struct tunnel, node));
}

static struct om_str
tunnel_name(const struct om_name_node *node)
{
	return om_str_of(tunnel_of(node)->job.text);
}

static struct tunnel *
tunnel_find(const struct vpn_manager *vm, struct om_str job)
{
	struct om_name_node *node = om_name_table_find(&vm->tunnels, job);

	return node != NULL ? tunnel_of(node) : NULL;
}

static void
tunnel_forget(struct om_service *sv, struct vpn_manager *vm, struct tunnel *t)
{
	OM_ASSERT(!t->busy && t->net == NULL);
	if (t->died_watch != 0) {
		om_io_unwatch(om_service_cx(sv), t->died_watch);
	}
	om_name_table_remove(&vm->tunnels, &t->node);
	om_wg_config_wipe(&t->wg);
	free(t);
}

/* --- calls on the offload pool ------------------------------------------------------------------- */

static enum om_err
work_run(void *arg)
{
	struct vpn_work *w = arg;
	struct om_jobnet_spec spec = {
		.job = &w->job, .wg = &w->wg, .reserved = w->net, .rate_kbit = w->rate_kbit
	};

	switch (w->call) {
	case CALL_RESERVE:
		return om_jobnet_reserve(w->env, &w->net, &w->why);
	case CALL_UP:
		w->net = NULL; /* taken, also on failure */
		return om_jobnet_up(w->env, &spec, &w->net, &w->why);
	case CALL_ATTACH:
		return om_jobnet_attach_tap(w->net, &w->why);
	case CALL_STATS:
		return om_jobnet_stats(w->net, &w->stats, &w->why);
	case CALL_DOWN: {
		enum om_err err = om_jobnet_stats(w->net, &w->stats, &w->why);

		om_jobnet_down(&w->net);
		return err;
	}
	}
	return OM_ERR_INTERNAL;
}

static void
work_free(struct vpn_work *w)
{
	om_wg_config_wipe(&w->wg);
	free(w);
}

/* The manager ended while this was under way: nobody else will take the network down. */
static void
work_drop(void *arg)
{
	struct vpn_work *w = arg;

	om_jobnet_down(&w->net);
	work_free(w);
}

static void
tunnel_failed(struct tunnel *t, enum om_err err, const struct om_why *why)
{
	if (t->err == OM_OK) {
		t->err = err;
		t->why = *why;
	}
}

/* Tells the executor that the job must end; it comes back with vpn.down. */
static void
tunnel_lost(struct om_service *sv, const struct tunnel *t, const char *text)
{
	struct om_rogue_caught m = { 0 };

	OM_SET(&m, rogue_caught, job, om_str_of(t->job.text));
	OM_SET(&m, rogue_caught, state, OM_STR("failed"));
	OM_SET(&m, rogue_caught, reason, OM_STR("tunnel_lost"));
	OM_SET(&m, rogue_caught, text, om_str_of(text));
	if (om_service_send(sv, OM_EXECUTOR, OM_MSG_ROGUE_CAUGHT, &m) != OM_OK) {
		om_error("vpn.unheard", "%s: %s, and the executor does not listen", t->job.text,
			 text);
	}
}

static size_t
format_addresses(const struct om_jobnet_info *info, char text[2][OM_CIDR_TEXT],
		 struct om_str out[2])
{
	size_t n = 0;

	if (info->guest4.ip.family != 0) {
		out[n] = om_str_of(om_cidr_format(&info->guest4, text[n]));
		n++;
	}
	if (info->guest6.ip.family != 0) {
		out[n] = om_str_of(om_cidr_format(&info->guest6, text[n]));
		n++;
	}
	return n;
}

/* The addresses are the configuration's: known before the tunnel is up. */
static void
answer_up(struct om_service *sv, struct tunnel *t)
{
	const struct om_jobnet_info *info = om_jobnet_info(t->net);
	struct om_jobnet_info guest = *info;
	struct om_vpn_ready m = { 0 };
	char addresses[2][OM_CIDR_TEXT], dns[OM_WG_DNS_MAX][OM_IP_TEXT], mac[OM_MAC_TEXT];
	struct om_str address_v[2], dns_v[OM_WG_DNS_MAX];
	size_t i;

	guest.guest4 = (struct om_cidr){ 0 };
	guest.guest6 = (struct om_cidr){ 0 };
	if (om_wg_config_address(&t->wg, 4) != NULL) {
		guest.guest4 = (struct om_cidr){ *om_wg_config_address(&t->wg, 4), 32 };
	}
	for (i = 0; i < t->wg.dns_count; i++) {
		dns_v[i] = om_str_of(om_ip_format(&t->wg.dns[i], dns[i]));
	}
	OM_SET(&m, vpn_ready, job, om_str_of(t->job.text));
	OM_SET(&m, vpn_ready, tap, om_str_of(info->tap));
	OM_SET(&m, vpn_ready, mac, om_str_of(om_mac_format(&info->guest_mac, mac)));
	OM_SET(&m, vpn_ready, netns, om_str_of(info->netns));
	m.guest_addresses.n = format_addresses(&guest, addresses, address_v);
	m.guest_addresses.v = address_v;
	OM_SET(&m, vpn_ready, gateway, OM_STR(OM_JOBNET_GATEWAY4));
	OM_SET(&m, vpn_ready, dns, ((struct om_strs){ dns_v, t->wg.dns_count }));
	OM_SET(&m, vpn_ready, mtu, t->wg.mtu);
	om_service_reply_to(sv, &t->up_rq, OM_MSG_VPN_READY, &m);
}

static void
send_stats(struct om_service *sv, const struct tunnel *t, struct om_bus_request *rq)
{
	struct om_vpn_stats m = { 0 };

	OM_SET(&m, vpn_stats, job, om_str_of(t->job.text));
	OM_SET(&m, vpn_stats, rx_bytes, t->stats.rx_bytes);
	OM_SET(&m, vpn_stats, tx_bytes, t->stats.tx_bytes);
	OM_SET(&m, vpn_stats, refused, t->stats.refused);
	if (t->stats.handshake_at.ns > 0) {
		OM_SET(&m, vpn_stats, handshake_ms,
		       (uint64_t)(t->stats.handshake_at.ns / OM_NS_PER_MS));
	}
	if (rq != NULL) {
		om_service_reply_to(sv, rq, OM_MSG_VPN_STATS, &m);
	} else if (om_service_send(sv, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_VPN_STATS, &m) !=
		   OM_OK) {
		tunnel_lost(sv, t, "the detector does not listen");
	}
}

/* The refused packets go to the detector: its mailbox, because a socket is no message of bytes. */
static enum om_err
hand_off(struct om_service *sv, struct vpn_manager *vm, struct tunnel *t)
{
	struct om_ctx *cx = om_service_cx(sv);
	struct om_vpn_handoff *h = calloc(1, sizeof(*h));
	struct om_msg *msg = NULL;
	enum om_err err = OM_ERR_NOMEM;

	if (h == NULL) {
		return err;
	}
	h->job = t->job;
	h->log = om_jobnet_take_nflog(t->net);
	h->noise = vm->conf->env->noise;
	h->keepalive_s = t->wg.keepalive_s;
	msg = om_msg_new_owner(cx, OM_VPN_HANDOFF, h, om_vpn_handoff_free);
	if (msg == NULL) {
		om_vpn_handoff_free(h);
		return err;
	}
	err = om_send_urgent(cx, om_whereis(om_ctx_system(cx), OM_ROGUE_CONNECTION_DETECTOR), &msg);
	om_msg_free(cx, msg);
	return err;
}

static void
on_up_done(struct om_service *sv, struct tunnel *t)
{
	int pidfd = om_jobnet_pidfd(t->net);

	t->is_up = true;
	/* The keys are the kernel's or wireguard-go's now. */
	om_secret_wipe(t->wg.private_key, sizeof(t->wg.private_key));
	om_secret_wipe(t->wg.preshared_key, sizeof(t->wg.preshared_key));
	if (pidfd >= 0 && om_io_watch(om_service_cx(sv), pidfd, OM_IO_READ, (uint64_t)(uintptr_t)t,
				      &t->died_watch) != OM_OK) {
		struct om_why why = { "cannot watch wireguard-go" };

		tunnel_failed(t, OM_ERR_NOMEM, &why);
	}
}

static void
on_call_done(struct om_service *sv, struct vpn_manager *vm, struct tunnel *t, struct vpn_work *w,
	     enum om_err result)
{
	t->busy = false;
	t->net = w->net;
	if (result != OM_OK && w->call != CALL_DOWN) {
		tunnel_failed(t, result, &w->why);
	}
	switch (w->call) {
	case CALL_RESERVE:
		if (result == OM_OK) {
			answer_up(sv, t);
		} else {
			om_service_reply_err_to(sv, &t->up_rq, result, w->why.text);
		}
		break;
	case CALL_UP:
		if (result == OM_OK) {
			on_up_done(sv, t);
		}
		break;
	case CALL_ATTACH:
		if (result == OM_OK) {
			t->is_attached = true;
		}
		break;
	case CALL_STATS:
	case CALL_DOWN:
		if (result == OM_OK) {
			t->stats = w->stats;
		}
		if (w->call == CALL_STATS && result == OM_OK) {
			send_stats(sv, t, NULL);
		} else if (w->call == CALL_STATS) {
			tunnel_lost(sv, t, w->why.text);
		}
		break;
	}
	tunnel_next(sv, vm, t);
}

static void
on_work_done(struct om_ctx *cx, void *actor_state, void *arg, enum om_err result)
{
	struct om_service *sv = om_service_of_actor(cx, actor_state);
	struct vpn_work *w = arg;

	on_call_done(sv, om_service_state(sv), w->t, w, result);
	work_free(w);
}

static void
tunnel_call(struct om_service *sv, struct vpn_manager *vm, struct tunnel *t, enum vpn_call call)
{
	struct vpn_work *w = calloc(1, sizeof(*w));

	OM_ASSERT(!t->busy);
	if (w != NULL) {
		*w = (struct vpn_work){ .call = call,
					.env = vm->conf->env,
					.t = t,
					.job = t->job,
					.wg = t->wg,
					.rate_kbit = t->rate_kbit,
					.net = t->net };
		t->busy = true;
		if (om_offload(om_service_cx(sv), work_run, w, on_work_done, work_drop) == OM_OK) {
			return;
		}
		t->busy = false;
		work_free(w);
	}
	om_error("vpn.no_memory", "%s: a step was not taken", t->job.text);
	if (call == CALL_DOWN) {
		/* Better to block for a moment than to leave it standing. */
		om_jobnet_down(&t->net);
	} else {
		struct om_why why = { "out of memory" };

		tunnel_failed(t, OM_ERR_NOMEM, &why);
	}
}

/* What is to be done next, in this order; called when nothing is under way. */
static void
tunnel_next(struct om_service *sv, struct vpn_manager *vm, struct tunnel *t)
{
	if (t->busy) {
		return;
	}
	if (t->going_down) {
		if (t->attach_rq.id != 0) {
			om_service_reply_err_to(sv, &t->attach_rq, OM_ERR_CANCELLED, "going down");
		}
		if (t->net != NULL) {
			if (t->died_watch != 0) {
				om_io_unwatch(om_service_cx(sv), t->died_watch);
				t->died_watch = 0;
			}
			tunnel_call(sv, vm, t, CALL_DOWN);
		}
		if (!t->busy && t->net == NULL) {
			send_stats(sv, t, &t->down_rq);
			tunnel_forget(sv, vm, t);
		}
		return;
	}
	if (t->net != NULL && !t->is_up && t->err == OM_OK) {
		tunnel_call(sv, vm, t, CALL_UP);
		return;
	}
	if (t->attach_rq.id == 0) {
		return;
	}
	if (t->err != OM_OK) {
		om_service_reply_err_to(sv, &t->attach_rq, t->err, t->why.text);
	} else if (!t->is_attached) {
		tunnel_call(sv, vm, t, CALL_ATTACH);
	} else {
		struct om_empty ok = { 0 };
		enum om_err err = hand_off(sv, vm, t);

		if (err == OM_OK) {
			om_service_reply_to(sv, &t->attach_rq, OM_MSG_OK, &ok);
		} else {
			om_service_reply_err_to(sv, &t->attach_rq, err,
						"the detector does not listen");
		}
	}
}

/* --- messages ------------------------------------------------------------------------------------ */

static enum om_err
config_of(const struct om_vpn_config *m, struct om_wg_config *out, struct om_why *why)
{
	struct om_wg_config_text text = {
		.private_key = m->private_key,
		.peer_public_key = m->peer_public_key,
		.preshared_key = m->preshared_key,
		.endpoint = m->endpoint,
		.addresses = m->addresses.v,
		.address_count = m->addresses.n,
		.allowed_ips = m->allowed_ips.v,
		.allowed_count = m->allowed_ips.n,
		.dns = m->dns.v,
		.dns_count = m->dns.n,
		.keepalive_s = m->keepalive,
		.mtu = m->mtu,
	};
	enum om_err err = om_wg_config_parse(&text, out, why);

	if (err == OM_OK && om_wg_config_address(out, 4) == NULL) {
		om_wg_config_wipe(out);
		err = om_why_set(
		    why, OM_ERR_UNSUPPORTED,
		    "addresses: one of them must be IPv4, the guest speaks nothing else");
	}
	return err;
}

static enum om_err
vpn_on_up(struct om_service *sv, void *state, const struct om_in *in)
{
	struct vpn_manager *vm = state;
	const struct om_vpn_up *m = in->body;
	struct om_why why = { "" };
	struct tunnel *t;
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
		err = config_of(m->vpn, &t->wg, &why);
	}
	if (err == OM_OK) {
		err = om_endpoint_check(&vm->conf->env->policy, &t->wg.endpoint, &why);
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
	t->rate_kbit = m->bandwidth_kbit;
	t->up_rq = om_service_later(sv, in);
	tunnel_call(sv, vm, t, CALL_RESERVE);
	if (!t->busy) {
		om_service_reply_err_to(sv, &t->up_rq, t->err, t->why.text);
	}
	return OM_OK;
}

static enum om_err
vpn_on_attach(struct om_service *sv, void *state, const struct om_in *in)
{
	struct vpn_manager *vm = state;
	const struct om_job_ref *m = in->body;
	struct tunnel *t = tunnel_find(vm, m->job);

	if (t == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (t->attach_rq.id != 0 || t->is_attached) {
		return OM_ERR_STATE;
	}
	t->attach_rq = om_service_later(sv, in);
	tunnel_next(sv, vm, t);
	return OM_OK;
}

/* Works from any state; one that is gone already has no counters. */
static enum om_err
vpn_on_down(struct om_service *sv, void *state, const struct om_in *in)
{
	struct vpn_manager *vm = state;
	const struct om_job_ref *m = in->body;
	struct tunnel *t = tunnel_find(vm, m->job);

	if (t == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (t->going_down) {
		return OM_ERR_STATE;
	}
	t->going_down = true;
	t->down_rq = om_service_later(sv, in);
	tunnel_next(sv, vm, t);
	return OM_OK;
}

static void
sample_all(struct om_service *sv, struct vpn_manager *vm)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&vm->tunnels, &walk)) != NULL) {
		struct tunnel *t = tunnel_of(node);

		if (!t->busy && t->is_attached && t->attach_rq.id == 0 && !t->going_down) {
			tunnel_call(sv, vm, t, CALL_STATS);
		}
	}
}

static enum om_err
vpn_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct vpn_manager *vm = state;

	OM_ASSERT(vm->magic == VPN_MAGIC);
	if (msg->type == OM_SYS_TIMER) {
		sample_all(sv, vm);
		return OM_OK;
	}
	if (msg->type == OM_SYS_IO) {
		const struct om_io_ready *io = (const void *)msg->payload;
		struct tunnel *t = (struct tunnel *)(uintptr_t)io->cookie;

		om_io_unwatch(om_service_cx(sv), t->died_watch);
		t->died_watch = 0;
		tunnel_lost(sv, t, "the tunnel's WireGuard process died");
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
	struct vpn_manager *vm = state;

	vm->magic = VPN_MAGIC;
	vm->conf = arg;
	om_name_table_init(&vm->tunnels, tunnel_name);
	return om_timer_start(om_service_cx(sv), OM_VPN_STATS_MS, OM_VPN_STATS_MS, COOKIE_STATS,
			      &vm->stats_timer);
}

/* A network in another thread's hands goes down there (work_drop). */
static void
vpn_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct vpn_manager *vm = state;
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	(void)why;
	while ((node = om_name_table_next(&vm->tunnels, &walk)) != NULL) {
		struct tunnel *t = tunnel_of(node);

		if (t->died_watch != 0) {
			om_io_unwatch(om_service_cx(sv), t->died_watch);
			t->died_watch = 0;
		}
		if (!t->busy) {
			om_jobnet_down(&t->net);
		}
		om_name_table_remove(&vm->tunnels, node);
		om_wg_config_wipe(&t->wg);
		free(t);
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
	.state_size = sizeof(struct vpn_manager),
	.start = vpn_start,
	.stop = vpn_stop,
	.on = vpn_handlers,
	.on_count = OM_COUNT(vpn_handlers),
	.on_msg = vpn_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
