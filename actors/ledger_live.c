/* SPDX-License-Identifier: ISC */
/*
 * What the tunnels of running jobs carry, as vpn_manager read it last.  It is shown in their rows and
 * stored nowhere: the end of a job brings the last reading.  A tunnel's readings begin and end while
 * its job is provisioning or running, so the job's next state takes its entry away.
 */
#include <stdlib.h>
#include "actors/ledger_impl.h"
#include "actors/vpn_manager.h"

struct live {
	struct om_name_node node;
	struct om_job_id job;
	uint64_t rx_bytes, tx_bytes, handshake_ms;
	uint64_t handshake_age_ms; /* at read_at */
	struct om_mono read_at;
	bool has_handshake;
};

static struct live *
live_of(const struct om_name_node *node)
{
	return (struct live *)(uintptr_t)((const char *)node - offsetof(struct live, node));
}

static struct om_str
live_name(const struct om_name_node *node)
{
	return om_str_of(live_of(node)->job.text);
}

static struct live *
live_find(const struct ledger *l, struct om_str job)
{
	struct om_name_node *node = om_name_table_find(&l->live, job);

	return node != NULL ? live_of(node) : NULL;
}

static struct live *
live_new(struct ledger *l, struct om_str job)
{
	struct live *live;

	if (l->live.count >= OM_VPN_JOBS_MAX) {
		return NULL;
	}
	live = calloc(1, sizeof(*live));
	if (live != NULL && (om_job_id_parse(job.ptr, job.len, &live->job) != OM_OK ||
			     om_name_table_add(&l->live, &live->node) != OM_OK)) {
		free(live);
		live = NULL;
	}
	return live;
}

void
ledger_live_init(struct ledger *l)
{
	om_name_table_init(&l->live, live_name);
}

void
ledger_live_fini(struct ledger *l)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&l->live, &walk)) != NULL) {
		om_name_table_remove(&l->live, node);
		free(live_of(node));
	}
	om_name_table_fini(&l->live);
}

void
ledger_live_drop(struct ledger *l, const struct om_job_id *job)
{
	struct live *live = live_find(l, om_str_of(job->text));

	if (live != NULL) {
		om_name_table_remove(&l->live, &live->node);
		free(live);
	}
}

void
ledger_live_show(const struct ledger *l, struct om_mono now, struct om_job_info *info)
{
	const struct live *live = live_find(l, info->job);

	if (live == NULL) {
		return;
	}
	OM_SET(info, job_info, rx_bytes, live->rx_bytes);
	OM_SET(info, job_info, tx_bytes, live->tx_bytes);
	if (live->has_handshake) {
		OM_SET(info, job_info, handshake_ms, live->handshake_ms);
		OM_SET(info, job_info, handshake_age_ms,
		       live->handshake_age_ms + (uint64_t)om_mono_ms_between(live->read_at, now));
	}
}

/* Without memory a reading is not shown; the next one may be. */
enum om_err
ledger_on_tunnel(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_vpn_stats *m = in->body;
	struct live *live = live_find(l, m->job);

	(void)sv;
	if (live == NULL) {
		live = live_new(l, m->job);
	}
	if (live != NULL) {
		live->rx_bytes = m->rx_bytes;
		live->tx_bytes = m->tx_bytes;
		live->has_handshake = OM_HAS(m, vpn_stats, handshake_ms);
		live->handshake_ms = m->handshake_ms;
		live->handshake_age_ms = m->handshake_age_ms;
		live->read_at = om_mono_now();
	}
	return OM_OK;
}
