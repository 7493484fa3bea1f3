/* SPDX-License-Identifier: ISC */
/*
 * One tunnel's way.  All that touches the kernel blocks for milliseconds and goes to the offload
 * pool, one call at a time for one network:
 *
 *	reserve -> (vpn.ready) -> up -> attach -> [stats ...] -> stats, down
 *
 * 1. `busy` is set while a call is under way, and only then is tunnel->net another thread's.  If
 *    broken: two threads in one network.
 * 2. What is asked meanwhile (attach, down) is remembered and done next; down comes last and always.
 * 3. What the walls have refused is told at the end only if it was read at the end.  If broken: the
 *    second witness says 0, and a packet that nobody saw is no failure.
 * 4. A failed call is kept in `err` and answered to whoever asks for the next step; vpn.down works
 *    whatever happened before.
 */
#include <stdlib.h>
#include "actors/names.h"
#include "actors/vpn_impl.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/secret.h"

enum vpn_call { CALL_RESERVE, CALL_UP, CALL_ATTACH, CALL_STATS, CALL_DOWN };
static const char *const call_names[] = { "reserve", "up", "attach", "stats", "down" };

/* One call on the offload pool.  The tunnel cannot go while `busy`. */
struct vpn_work {
	enum vpn_call call;
	struct om_jobnet_env *env;
	struct om_vpn_tunnel *t;
	struct om_job_id job;
	struct om_wg_config wg;
	uint64_t rate_kbit;
	struct om_jobnet *net;
	struct om_jobnet_stats stats;
	enum om_err endpoint_err; /* CALL_STATS: may WireGuard's packets go where they go now? */
	int64_t took_ns;
	struct om_why why;
};

struct om_vpn_tunnel *
om_vpn_tunnel_of(const struct om_name_node *node)
{
	return (struct om_vpn_tunnel *)(uintptr_t)((const char *)node -
						   offsetof(struct om_vpn_tunnel, node));
}

struct om_str
om_vpn_tunnel_name(const struct om_name_node *node)
{
	return om_str_of(om_vpn_tunnel_of(node)->job.text);
}

static void
tunnel_unwatch(struct om_service *sv, struct om_vpn_tunnel *t)
{
	if (t->died_watch != 0) {
		om_io_unwatch(om_service_cx(sv), t->died_watch);
		t->died_watch = 0;
	}
}

static void
tunnel_forget(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t)
{
	tunnel_unwatch(sv, t);
	om_name_table_remove(&vm->tunnels, &t->node);
	om_wg_config_wipe(&t->wg);
	free(t);
}

/* --- calls on the offload pool ------------------------------------------------------------------- */

/*
 * WireGuard follows a peer that moves, so who has the peer's key chooses where our packets go: what
 * the policy forbids at the start it forbids on the way.
 */
static enum om_err
work_stats(struct vpn_work *w)
{
	enum om_err err = om_jobnet_stats(w->net, &w->stats, &w->why);

	if (err == OM_OK && w->stats.endpoint.ip.family != 0) {
		w->endpoint_err = om_jobnet_endpoint_check(w->env, &w->stats.endpoint, &w->why);
	}
	return err;
}

static enum om_err
work_do(struct vpn_work *w)
{
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
		return work_stats(w);
	case CALL_DOWN: {
		enum om_err err = om_jobnet_stats(w->net, &w->stats, &w->why);

		om_jobnet_down(&w->net);
		return err;
	}
	}
	return OM_ERR_INTERNAL;
}

static enum om_err
work_run(void *arg)
{
	struct vpn_work *w = arg;
	struct om_mono from = om_mono_now();
	enum om_err err = work_do(w);

	w->took_ns = om_mono_now().ns - from.ns;
	return err;
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
tunnel_failed(struct om_vpn_tunnel *t, enum om_err err, const struct om_why *why)
{
	if (t->err == OM_OK) {
		t->err = err;
		t->why = *why;
	}
}

static void
tunnel_end(struct om_service *sv, struct om_vpn_tunnel *t, const char *reason, const char *text)
{
	struct om_rogue_caught m = { 0 };

	if (t->told) {
		return;
	}
	OM_SET(&m, rogue_caught, job, om_str_of(t->job.text));
	OM_SET(&m, rogue_caught, state, OM_STR("failed"));
	OM_SET(&m, rogue_caught, reason, om_str_of(reason));
	OM_SET(&m, rogue_caught, text, om_str_of(text));
	if (om_service_send(sv, OM_EXECUTOR, OM_MSG_ROGUE_CAUGHT, &m) == OM_OK) {
		t->told = true;
		return;
	}
	om_error("vpn.unheard", "%s: %s, and the executor does not listen", t->job.text, text);
}

void
om_vpn_tunnel_lost(struct om_service *sv, struct om_vpn_tunnel *t, const char *text)
{
	tunnel_end(sv, t, "tunnel_lost", text);
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
answer_up(struct om_service *sv, struct om_vpn_tunnel *t)
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
send_stats(struct om_service *sv, struct om_vpn_tunnel *t, struct om_bus_request *rq)
{
	struct om_vpn_stats m = { 0 };

	OM_SET(&m, vpn_stats, job, om_str_of(t->job.text));
	OM_SET(&m, vpn_stats, rx_bytes, t->stats.rx_bytes);
	OM_SET(&m, vpn_stats, tx_bytes, t->stats.tx_bytes);
	if (t->stats.has_walls) {
		OM_SET(&m, vpn_stats, refused, t->stats.refused);
		OM_SET(&m, vpn_stats, sent_packets, t->stats.sent);
	}
	if (t->stats.handshake_at.ns > 0) {
		OM_SET(&m, vpn_stats, handshake_ms,
		       (uint64_t)(t->stats.handshake_at.ns / OM_NS_PER_MS));
		OM_SET(&m, vpn_stats, handshake_age_ms,
		       (uint64_t)om_mono_ms_between(t->handshake_since, om_now(om_service_cx(sv))));
	}
	if (rq != NULL) {
		om_service_reply_to(sv, rq, OM_MSG_VPN_STATS, &m);
		return;
	}
	/* For those who ask how the job is doing; it does well without. */
	if (om_service_send(sv, OM_LEDGER, OM_MSG_VPN_STATS, &m) != OM_OK) {
		om_debug("vpn.unheard", "%s: the ledger does not listen", t->job.text);
	}
	if (om_service_send(sv, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_VPN_STATS, &m) != OM_OK) {
		om_vpn_tunnel_lost(sv, t, "the detector does not listen");
	}
}

/* In the place of an executor that has ended. */
static void
end_watch(struct om_service *sv, const struct om_vpn_tunnel *t)
{
	struct om_rogue_unwatch m = { 0 };

	OM_SET(&m, rogue_unwatch, job, om_str_of(t->job.text));
	if (om_service_send(sv, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &m) != OM_OK) {
		om_warn("vpn.watch_left", "%s: the detector does not listen", t->job.text);
	}
}

void
om_vpn_swept(struct om_service *sv, struct om_vpn_manager *vm)
{
	struct om_vpn_stats m = { 0 };

	if (vm->tunnels.count == 0) {
		OM_SET(&m, vpn_stats, job, OM_STR("*"));
		om_service_reply_to(sv, &vm->sweep_rq, OM_MSG_VPN_STATS, &m);
	}
}

/* The refused packets go to the detector: its mailbox, because a socket is no message of bytes. */
static enum om_err
hand_off(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t)
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
	h->health = vm->conf->health;
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
on_up_done(struct om_service *sv, struct om_vpn_tunnel *t)
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

/*
 * What was read, also by a reading that failed half-way.  What WireGuard said last stays.
 * WireGuard stamps a handshake with the wall clock, and a job must not die of someone setting that:
 * an age counts from the reading that first saw the stamp.
 */
static void
stats_keep(struct om_vpn_tunnel *t, const struct om_jobnet_stats *read, struct om_mono now)
{
	struct om_jobnet_stats last = t->stats;

	t->stats = *read;
	if (!read->has_link) {
		t->stats.rx_bytes = last.rx_bytes;
		t->stats.tx_bytes = last.tx_bytes;
		t->stats.handshake_at = last.handshake_at;
	}
	if (t->stats.handshake_at.ns != last.handshake_at.ns) {
		t->handshake_since = now;
	}
}

static void
on_call_done(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t,
	     struct vpn_work *w, enum om_err result)
{
	t->busy = false;
	t->net = w->net;
	om_debug("vpn.step", "%s: %s took %lld us", t->job.text, call_names[w->call],
		 (long long)(w->took_ns / 1000));
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
		stats_keep(t, &w->stats, om_now(om_service_cx(sv)));
		if (result != OM_OK) {
			om_warn("vpn.not_read", "%s: %s", t->job.text, w->why.text);
		}
		if (w->call == CALL_STATS && result == OM_OK) {
			send_stats(sv, t, NULL);
		} else if (w->call == CALL_STATS) {
			om_vpn_tunnel_lost(sv, t, w->why.text);
		}
		if (w->endpoint_err != OM_OK) {
			tunnel_end(sv, t, "endpoint_denied", w->why.text);
		}
		break;
	}
	om_vpn_tunnel_next(sv, vm, t);
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
tunnel_call(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t,
	    enum vpn_call call)
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
		if (om_offload_to(om_service_cx(sv), OM_POOL_NETWORK, work_run, w, on_work_done,
				  work_drop) == OM_OK) {
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

void
om_vpn_tunnel_reserve(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t)
{
	tunnel_call(sv, vm, t, CALL_RESERVE);
	if (!t->busy) {
		om_service_reply_err_to(sv, &t->up_rq, t->err, t->why.text);
	}
}

void
om_vpn_tunnel_sample(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t)
{
	if (!t->busy && t->is_attached && t->attach_rq.id == 0 && !t->going_down) {
		tunnel_call(sv, vm, t, CALL_STATS);
	}
}

/* A network in another thread's hands goes down there (work_drop). */
void
om_vpn_tunnel_drop(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t)
{
	if (!t->busy) {
		om_jobnet_down(&t->net);
	}
	tunnel_forget(sv, vm, t);
}

void
om_vpn_tunnel_next(struct om_service *sv, struct om_vpn_manager *vm, struct om_vpn_tunnel *t)
{
	if (t->busy) {
		return;
	}
	if (t->going_down) {
		if (t->attach_rq.id != 0) {
			om_service_reply_err_to(sv, &t->attach_rq, OM_ERR_CANCELLED, "going down");
		}
		if (t->net != NULL) {
			tunnel_unwatch(sv, t);
			t->stats.has_walls = false; /* only the last reading is a witness */
			tunnel_call(sv, vm, t, CALL_DOWN);
		}
		if (!t->busy && t->net == NULL) {
			send_stats(sv, t, &t->down_rq);
			if (t->is_orphan) {
				end_watch(sv, t);
			}
			tunnel_forget(sv, vm, t);
			om_vpn_swept(sv, vm);
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
