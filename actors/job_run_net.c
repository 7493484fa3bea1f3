/* SPDX-License-Identifier: ISC */
/* A job_run and its network: vpn_manager makes it and takes it away, the detector's watch ends last. */
#include "actors/job_run_impl.h"
#include "actors/names.h"
#include "base/log.h"
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
	if (err != OM_OK) {
		run_entered(cx, run, err, NULL);
	}
}

/*
 * The detector has read all that the walls refused, and has told of it before this answer.  An end
 * that it could not tell (its packet nobody saw, and the job was over) is in the answer.
 */
static void
on_unwatched(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct om_arena arena = { 0 };
	struct om_rogue_counted m = { 0 };
	struct om_why why;

	if (a->err == OM_OK &&
	    om_body_decode(OM_BODY_rogue_counted, (struct om_bin){ a->body.data, a->body.len }, &m,
			   &arena, &why) == OM_OK) {
		if (m.unseen > 0) {
			run_unseen(run, m.seen, m.unseen);
		}
	} else if (run->vm.pid > 0) {
		om_warn("job.unwatched", "%s: %s", run->job.text, a->why.text);
	}
	om_arena_fini(&arena);
	run_undone(cx, run);
}

static void
on_network_down(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct om_arena arena = { 0 };
	struct om_vpn_stats stats = { 0 };
	struct om_rogue_unwatch m = { 0 };
	struct om_why why;

	OM_SET(&m, rogue_unwatch, job, om_str_of(run->job.text));
	if (a->err == OM_OK &&
	    om_body_decode(OM_BODY_vpn_stats, (struct om_bin){ a->body.data, a->body.len }, &stats,
			   &arena, &why) == OM_OK) {
		run->rx_bytes = stats.rx_bytes;
		run->tx_bytes = stats.tx_bytes;
		run->has_traffic = true;
		OM_SET(&m, rogue_unwatch, refused, stats.refused);
	} else {
		om_warn("job.network_left", "%s: %s", run->job.text, a->why.text);
	}
	om_arena_fini(&arena);
	if (run_relay(cx, run, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &m,
		      RUN_NETWORK_MS, on_unwatched) != OM_OK) {
		run_undone(cx, run);
	}
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
		run_undone(cx, run);
	}
}
