/* SPDX-License-Identifier: ISC */
/* A job_run and its network: vpn_manager makes it and takes it away, the detector's watch ends last. */
#include <stdio.h>
#include "actors/job_run_impl.h"
#include "actors/names.h"
#include "base/log.h"
#include "base/secret.h"
#include "msg/codec.h"

static void
on_forgotten(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	(void)cx;
	(void)run;
	(void)a;
}

/* A network that came too late or half-way: what the manager may still hold is let go there. */
static void
forget_network(struct om_ctx *cx, struct run *run)
{
	struct om_job_ref ref = { 0 };

	OM_SET(&ref, job_ref, job, om_str_of(run->job.text));
	if (run_relay(cx, run, OM_VPN_MANAGER, OM_MSG_VPN_DOWN, &ref, RUN_NETWORK_MS,
		      on_forgotten) != OM_OK) {
		om_warn("job.network_left", "%s: the manager was not told", run->job.text);
	}
}

static void
on_network_up(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct om_why why = a->why;
	enum om_err err = a->err;

	if (err == OM_OK) {
		run->net = om_arena_alloc(&run->arena, sizeof(*run->net));
		om_buf_add(&run->net_raw, a->body.data, a->body.len);
		if (run->net == NULL || run->net_raw.failed) {
			err = OM_ERR_NOMEM;
		} else {
			err = om_body_decode(OM_BODY_vpn_ready,
					     (struct om_bin){ run->net_raw.data, run->net_raw.len },
					     run->net, &run->arena, &why);
		}
	}
	if (err != OM_OK && err != OM_ERR_NOT_FOUND) {
		forget_network(cx, run);
	}
	run_entered(cx, run, err, &why);
}

static void
key_wipe(struct om_str *key)
{
	if (key->len > 0) {
		om_secret_wipe((char *)(uintptr_t)key->ptr, key->len);
	}
	*key = (struct om_str){ 0 };
}

void
enter_network(struct om_ctx *cx, struct run *run)
{
	struct om_vpn_up up = { 0 };
	enum om_err err;

	if (!run->spec.tunnel) {
		run_entered(cx, run, OM_OK, NULL);
		return;
	}
	OM_SET(&up, vpn_up, job, om_str_of(run->job.text));
	OM_SET(&up, vpn_up, vpn, run->submit->vpn);
	OM_SET(&up, vpn_up, bandwidth_kbit, run->submit->bandwidth_kbit);
	err = run_relay(cx, run, OM_VPN_MANAGER, OM_MSG_VPN_UP, &up, RUN_NETWORK_MS, on_network_up);
	/* They are in that message, and nobody needs them here: views into spec_raw. */
	key_wipe(&run->submit->vpn->private_key);
	key_wipe(&run->submit->vpn->preshared_key);
	if (err != OM_OK) {
		run_entered(cx, run, err, NULL);
	}
}

/*
 * The detector has read all that the walls refused, and has told of it before this answer.  An end
 * that it could not tell (its packet nobody saw, and the job was over) is in the answer.  No answer,
 * or one of a detector that does not know the job, is not "nothing was refused".
 */
static void
on_unwatched(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct om_arena arena = { 0 };
	struct om_rogue_counted m = { 0 };
	struct om_why why = a->why;
	char text[OM_WHY_MAX];
	enum om_err err = a->err;

	if (err == OM_OK) {
		err =
		    om_body_decode(OM_BODY_rogue_counted,
				   (struct om_bin){ a->body.data, a->body.len }, &m, &arena, &why);
	}
	if (err == OM_OK && m.unseen > 0) {
		run_unseen(run, m.seen, m.unseen);
	} else if (err != OM_OK && run->guest_ran) {
		(void)snprintf(text, sizeof(text), "its watch ended without an answer: %.100s",
			       why.text);
		run_unwitnessed(run, text);
	}
	om_arena_fini(&arena);
	run_undone(cx, run);
}

/* stats NULL, or without `refused`: the walls' counters were not read. */
static void
end_watch(struct om_ctx *cx, struct run *run, const struct om_vpn_stats *stats)
{
	struct om_rogue_unwatch m = { 0 };

	OM_SET(&m, rogue_unwatch, job, om_str_of(run->job.text));
	if (stats != NULL && OM_HAS(stats, vpn_stats, refused)) {
		OM_SET(&m, rogue_unwatch, refused, stats->refused);
	} else if (run->guest_ran) {
		run_unwitnessed(run, "the walls' counters were not read at the end");
	}
	if (run_relay(cx, run, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &m,
		      RUN_NETWORK_MS, on_unwatched) != OM_OK) {
		if (run->guest_ran) {
			run_unwitnessed(run, "its watch was not ended");
		}
		run_undone(cx, run);
	}
}

static void
on_network_down(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct om_arena arena = { 0 };
	struct om_vpn_stats stats = { 0 };
	struct om_why why;

	if (a->err == OM_OK &&
	    om_body_decode(OM_BODY_vpn_stats, (struct om_bin){ a->body.data, a->body.len }, &stats,
			   &arena, &why) == OM_OK) {
		run->rx_bytes = stats.rx_bytes;
		run->tx_bytes = stats.tx_bytes;
		run->handshake_ms = stats.handshake_ms;
		run->has_traffic = true;
		end_watch(cx, run, &stats);
	} else {
		om_warn("job.network_left", "%s: %s", run->job.text, a->why.text);
		end_watch(cx, run, NULL);
	}
	om_arena_fini(&arena);
}

void
undo_network(struct om_ctx *cx, struct run *run)
{
	struct om_job_ref ref = { 0 };

	if (!run->spec.tunnel) {
		run_undone(cx, run);
		return;
	}
	OM_SET(&ref, job_ref, job, om_str_of(run->job.text));
	if (run_relay(cx, run, OM_VPN_MANAGER, OM_MSG_VPN_DOWN, &ref, RUN_NETWORK_MS,
		      on_network_down) != OM_OK) {
		om_warn("job.network_left", "%s: no answer", run->job.text);
		end_watch(cx, run, NULL);
	}
}
