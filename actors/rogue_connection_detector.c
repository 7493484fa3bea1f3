/* SPDX-License-Identifier: ISC */
/*
 * Refused packets, in, and dead VMs, out.
 *
 *	vpn_manager --handoff (NFLOG socket)--> | before vpn.attach is answered
 *	job_run --guard (qemu's pidfd)-->       | before its rogue.watch
 *	executor --rogue.watch-->               | before the guest runs
 *	kernel --packet--> judge --SIGKILL--> qemu, then rogue.caught --> executor
 *
 * 1. A watch that is armed has a socket that is watched and a pidfd.  If broken: a guest that nobody
 *    hears, so arming fails the job instead.
 * 2. The kill comes before anything is sent, encoded or logged.
 * 3. A watch tells the executor once; what comes after that is counted, not told.
 * 4. The walls count what they refuse, and each of those packets is an event that is in the socket
 *    before anyone can read the counter.  So a counter that is ahead of the events means that we
 *    are deaf: the job ends.  If broken: a guest that sends what it likes behind our back.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include "actors/name_table.h"
#include "actors/names.h"
#include "actors/rogue_connection_detector.h"
#include "actors/vpn_manager.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/parse.h"
#include "net/flow_policy.h"
#include "net/health.h"

#define ROGUE_MAGIC      0x726f6775u
#define ROGUE_BATCH      16 /* events read at one time */
#define ROGUE_HANDED_MAX 4096 /* sockets that wait for their rogue.watch */
#define ROGUE_DRAIN_MAX  256 /* batches read before a comparison: more than the socket holds */

struct watch {
	struct om_name_node node;
	struct om_job_id job;
	struct om_nflog *log;
	uint32_t noise;
	uint64_t io; /* om_io_watch of the socket */
	int pidfd; /* qemu */
	bool is_armed;
	bool told;
	uint64_t noise_count, inbound_count, rogue_count;
	bool is_deaf; /* the socket has failed: events are missing, and that is told already */
	struct om_health health;
};

struct detector {
	uint32_t magic;
	struct om_name_table watches;
};

static struct watch *
watch_of(const struct om_name_node *node)
{
	return (struct watch *)(uintptr_t)((const char *)node - offsetof(struct watch, node));
}

static struct om_str
watch_name(const struct om_name_node *node)
{
	return om_str_of(watch_of(node)->job.text);
}

static struct watch *
watch_find(const struct detector *d, struct om_str job)
{
	struct om_name_node *node = om_name_table_find(&d->watches, job);

	return node != NULL ? watch_of(node) : NULL;
}

static void
watch_free(struct om_service *sv, struct detector *d, struct watch *w)
{
	if (w->io != 0) {
		om_io_unwatch(om_service_cx(sv), w->io);
	}
	om_nflog_close(w->log);
	if (w->pidfd >= 0) {
		(void)close(w->pidfd);
	}
	om_name_table_remove(&d->watches, &w->node);
	free(w);
}

/*
 * The signal is sent, not yet obeyed: a guest that runs on another core leaves it with the next
 * interrupt, which the kernel sends there at once (docs/network.md, events).
 */
static void
watch_kill(const struct watch *w)
{
	if (w->pidfd >= 0) {
		(void)pidfd_send_signal(w->pidfd, SIGKILL, NULL, 0);
	}
}

static void
watch_tell(struct om_service *sv, struct watch *w, const char *state, const char *reason,
	   const char *text, struct om_pairs evidence)
{
	struct om_rogue_caught m = { 0 };

	if (w->told) {
		return;
	}
	w->told = true;
	om_warn("rogue.caught", "%s: %s: %s", w->job.text, reason, text);
	OM_SET(&m, rogue_caught, job, om_str_of(w->job.text));
	OM_SET(&m, rogue_caught, state, om_str_of(state));
	OM_SET(&m, rogue_caught, reason, om_str_of(reason));
	OM_SET(&m, rogue_caught, text, om_str_of(text));
	if (evidence.n > 0) {
		OM_SET(&m, rogue_caught, evidence, evidence);
	}
	if (om_service_send(sv, OM_EXECUTOR, OM_MSG_ROGUE_CAUGHT, &m) != OM_OK) {
		/* The VM is dead: the executor hears of that by itself. */
		om_error("rogue.unheard", "%s: the executor does not listen", w->job.text);
	}
}

/* The detector cannot see this guest any more: the job ends. */
static void
watch_failed(struct om_service *sv, struct watch *w, const char *text)
{
	watch_kill(w);
	w->is_deaf = true;
	watch_tell(sv, w, "failed", "detector_failed", text, (struct om_pairs){ NULL, 0 });
}

/* --- a refused packet ---------------------------------------------------------------------------- */

static void
caught(struct om_service *sv, struct watch *w, const struct om_flow_event *ev, const char *label)
{
	char line[OM_FLOW_TEXT], at[OM_WALL_TEXT], us[24], proto[8], src[OM_IP_TEXT],
	    dst[OM_IP_TEXT], sport[8], dport[8], mac[OM_MAC_TEXT], text[OM_WHY_MAX];
	char packet[2 * OM_FLOW_PACKET_MAX + 1], ethertype[8];
	int64_t took_us = (om_wall_now().ns - ev->at.ns) / 1000;
	struct om_pair pairs[] = {
		{ OM_STR("time"), { NULL, 0 } },
		{ OM_STR("kind"), om_str_of(label) },
		{ OM_STR("rule"), om_str_of(ev->rule) },
		{ OM_STR("ethertype"), { NULL, 0 } },
		{ OM_STR("protocol"), { NULL, 0 } },
		{ OM_STR("source"), { NULL, 0 } },
		{ OM_STR("source_port"), { NULL, 0 } },
		{ OM_STR("destination"), { NULL, 0 } },
		{ OM_STR("destination_port"), { NULL, 0 } },
		{ OM_STR("source_mac"), { NULL, 0 } },
		{ OM_STR("killed_after_us"), { NULL, 0 } },
		{ OM_STR("packet"), { NULL, 0 } },
	};

	om_wall_format(ev->at, at);
	(void)snprintf(us, sizeof(us), "%lld", (long long)took_us);
	(void)snprintf(ethertype, sizeof(ethertype), "0x%04x", ev->ethertype);
	(void)snprintf(proto, sizeof(proto), "%u", ev->proto);
	(void)snprintf(sport, sizeof(sport), "%u", ev->sport);
	(void)snprintf(dport, sizeof(dport), "%u", ev->dport);
	om_hex(ev->packet, ev->packet_len, packet);
	pairs[0].value = om_str_of(at);
	pairs[3].value = om_str_of(ethertype);
	pairs[4].value = om_str_of(proto);
	pairs[5].value = om_str_of(ev->src.family != 0 ? om_ip_format(&ev->src, src) : "");
	pairs[6].value = om_str_of(sport);
	pairs[7].value = om_str_of(ev->dst.family != 0 ? om_ip_format(&ev->dst, dst) : "");
	pairs[8].value = om_str_of(dport);
	pairs[9].value = om_str_of(om_mac_format(&ev->mac_src, mac));
	pairs[10].value = om_str_of(us);
	pairs[11].value = om_str_of(packet);
	(void)snprintf(text, sizeof(text), "%s refused and VM killed after %lld.%03lld ms",
		       om_flow_format(ev, line), (long long)(took_us / 1000),
		       (long long)(took_us % 1000));
	watch_tell(sv, w, "rogue_killed", "rogue_packet", text,
		   (struct om_pairs){ pairs, OM_COUNT(pairs) });
}

static void
judge(struct om_service *sv, struct watch *w, const struct om_flow_event *ev)
{
	const char *label = "";

	switch (om_flow_judge(ev, w->noise, &label)) {
	case OM_FLOW_NOISE:
		w->noise_count++;
		break;
	case OM_FLOW_INBOUND:
		w->inbound_count++;
		break;
	case OM_FLOW_ROGUE:
		w->rogue_count++;
		if (!w->told) { /* of a burst the first: other guests' packets wait behind it */
			watch_kill(w);
			caught(sv, w, ev, label);
		}
		break;
	}
}

/* Judges at most a batch; gives how many there were. */
static size_t
watch_batch(struct om_service *sv, struct watch *w)
{
	struct om_flow_event events[ROGUE_BATCH];
	struct om_why why = { "" };
	size_t count = 0, i;
	enum om_err err;

	err = om_nflog_read(w->log, events, ROGUE_BATCH, &count, &why);
	for (i = 0; i < count; i++) {
		judge(sv, w, &events[i]);
	}
	if (err != OM_OK) {
		watch_failed(sv, w, why.text[0] != '\0' ? why.text : om_err_text(err));
	}
	return count;
}

static void
watch_read(struct om_service *sv, struct watch *w)
{
	(void)watch_batch(sv, w);
	if (om_io_rearm(om_service_cx(sv), w->io, OM_IO_READ) != OM_OK) {
		watch_failed(sv, w, "cannot wait for refused packets any more");
	}
}

static uint64_t
watch_seen(const struct watch *w)
{
	return w->rogue_count + w->noise_count;
}

/* Reads what waits in the socket until so many refused packets were seen, or it is empty. */
static void
watch_drain(struct om_service *sv, struct watch *w, uint64_t enough)
{
	unsigned i;

	for (i = 0;
	     i < ROGUE_DRAIN_MAX && !w->is_deaf && watch_seen(w) < enough && watch_batch(sv, w) > 0;
	     i++) {
	}
}

/* The second witness: how many refused packets did we not see? */
static uint64_t
watch_compare(struct om_service *sv, struct watch *w, uint64_t refused)
{
	uint64_t seen = watch_seen(w);
	char text[OM_WHY_MAX];

	if (refused <= seen) {
		return 0;
	}
	if (!w->told) {
		(void)snprintf(text, sizeof(text),
			       "the walls refused %llu packets, and %llu of them were seen",
			       (unsigned long long)refused, (unsigned long long)seen);
		watch_failed(sv, w, text);
	}
	return refused - seen;
}

/* --- messages ------------------------------------------------------------------------------------ */

static enum om_err
on_handoff(struct om_service *sv, struct detector *d, const struct om_msg *msg)
{
	struct om_vpn_handoff *h = om_msg_obj(msg);
	struct watch *w;

	w = watch_find(d, om_str_of(h->job.text));
	if (w != NULL) { /* of an earlier run, whose network is gone */
		watch_kill(w);
		watch_free(sv, d, w);
	}
	if (h->log == NULL || d->watches.count >= ROGUE_HANDED_MAX) {
		return OM_OK; /* rogue.watch finds nothing and fails the job */
	}
	w = calloc(1, sizeof(*w));
	if (w == NULL) {
		return OM_OK;
	}
	w->job = h->job;
	w->noise = h->noise;
	w->pidfd = -1;
	om_health_init(&w->health, &h->health);
	if (om_name_table_add(&d->watches, &w->node) != OM_OK) {
		free(w);
		return OM_OK;
	}
	w->log = h->log;
	h->log = NULL;
	return OM_OK;
}

void
om_rogue_guard_free(void *guard)
{
	struct om_rogue_guard *g = guard;

	if (g != NULL) {
		if (g->pidfd >= 0) {
			(void)close(g->pidfd);
		}
		free(g);
	}
}

static enum om_err
on_guard(const struct detector *d, const struct om_msg *msg)
{
	struct om_rogue_guard *g = om_msg_obj(msg);
	struct watch *w = watch_find(d, om_str_of(g->job.text));

	if (w != NULL && w->pidfd < 0) {
		w->pidfd = g->pidfd;
		g->pidfd = -1;
	}
	return OM_OK; /* without one rogue.watch fails the job */
}

static enum om_err
rogue_on_watch(struct om_service *sv, void *state, const struct om_in *in)
{
	struct detector *d = state;
	const struct om_rogue_watch *m = in->body;
	struct watch *w = watch_find(d, m->job);
	enum om_err err;

	if (w == NULL) {
		return om_service_reply_err(sv, in, OM_ERR_STATE,
					    "no socket for this job's refused packets");
	}
	if (w->is_armed) {
		return OM_ERR_EXISTS;
	}
	err = w->pidfd < 0 ? OM_ERR_STATE
			   : om_io_watch(om_service_cx(sv), om_nflog_fd(w->log), OM_IO_READ,
					 (uint64_t)(uintptr_t)w, &w->io);
	if (err != OM_OK) {
		watch_free(sv, d, w);
		return om_service_reply_err(sv, in, err, "cannot watch this job");
	}
	om_debug("rogue.watch", "%s: qemu is %llu", w->job.text, (unsigned long long)m->qemu_pid);
	w->is_armed = true;
	return om_service_reply_ok(sv, in);
}

/* Whoever is watched dies with its watch. */
static void
watch_none(struct om_service *sv, struct detector *d)
{
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	while ((node = om_name_table_next(&d->watches, &walk)) != NULL) {
		watch_kill(watch_of(node));
		watch_free(sv, d, watch_of(node));
	}
}

/*
 * The job's VM is dead and its network gone.  What the socket still holds is read before the answer,
 * so the executor hears of a last refused packet (or of one that nobody saw) before it.  "*": those
 * of an executor that has ended.
 */
static enum om_err
rogue_on_unwatch(struct om_service *sv, void *state, const struct om_in *in)
{
	struct detector *d = state;
	const struct om_rogue_unwatch *m = in->body;
	struct watch *w = watch_find(d, m->job);
	struct om_rogue_counted answer = { 0 };

	OM_SET(&answer, rogue_counted, job, m->job);
	if (om_str_is(m->job, "*")) {
		watch_none(sv, d);
		return in->wants_answer ? om_service_reply(sv, in, OM_MSG_ROGUE_COUNTED, &answer)
					: OM_OK;
	}
	if (w == NULL) {
		return in->wants_answer ? OM_ERR_NOT_FOUND : OM_OK;
	}
	/* Without the counters too what waits in the socket is read: it may be a rogue packet. */
	watch_drain(sv, w, UINT64_MAX);
	OM_SET(&answer, rogue_counted, unseen,
	       watch_compare(sv, w, OM_HAS(m, rogue_unwatch, refused) ? m->refused : 0));
	OM_SET(&answer, rogue_counted, seen, watch_seen(w));
	OM_SET(&answer, rogue_counted, inbound, w->inbound_count);
	watch_free(sv, d, w);
	return in->wants_answer ? om_service_reply(sv, in, OM_MSG_ROGUE_COUNTED, &answer) : OM_OK;
}

/* A reading of the tunnel's counters: its health, and the second witness while the job runs. */
static enum om_err
rogue_on_stats(struct om_service *sv, void *state, const struct om_in *in)
{
	struct detector *d = state;
	const struct om_vpn_stats *m = in->body;
	struct watch *w = watch_find(d, m->job);
	struct om_health_sample sample = { .sent_packets = m->sent_packets,
					   .rx_bytes = m->rx_bytes,
					   .handshake_age_ms = -1 };
	enum om_health_verdict verdict;
	char text[OM_WHY_MAX];
	int64_t limit_ms;

	if (w == NULL || !w->is_armed) {
		return OM_OK;
	}
	if (w->told) {
		return OM_OK; /* its VM is dead; what is left is counted at the end */
	}
	if (OM_HAS(m, vpn_stats, refused)) {
		watch_drain(sv, w, m->refused);
		(void)watch_compare(sv, w, m->refused);
	}
	if (OM_HAS(m, vpn_stats, handshake_age_ms)) {
		sample.handshake_age_ms = (int64_t)m->handshake_age_ms;
	}
	verdict = om_health_feed(&w->health, om_now(om_service_cx(sv)), &sample);
	limit_ms = verdict == OM_HEALTH_NO_REPLY ? w->health.limits.no_reply_ms
						 : w->health.limits.handshake_retry_ms;
	if (verdict != OM_HEALTH_OK) {
		watch_kill(w);
		(void)snprintf(text, sizeof(text), "%s for %lld s (%s)",
			       verdict == OM_HEALTH_NO_REPLY
				   ? "nothing came back through the tunnel"
				   : "the tunnel's session is too old, and there was no new one",
			       (long long)(limit_ms / 1000), om_health_name(verdict));
		watch_tell(sv, w, "failed", "tunnel_lost", text, (struct om_pairs){ NULL, 0 });
	}
	return OM_OK;
}

static enum om_err
rogue_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct detector *d = state;

	OM_ASSERT(d->magic == ROGUE_MAGIC);
	if (msg->type == OM_VPN_HANDOFF) {
		return on_handoff(sv, d, msg);
	}
	if (msg->type == OM_ROGUE_GUARD) {
		return on_guard(d, msg);
	}
	if (msg->type == OM_SYS_IO) {
		const struct om_io_ready *io = (const void *)msg->payload;

		watch_read(sv, (struct watch *)(uintptr_t)io->cookie);
		return OM_OK;
	}
	return OM_ERR_UNKNOWN_TYPE;
}

static enum om_err
rogue_start(struct om_service *sv, void *state, const void *arg)
{
	struct detector *d = state;

	(void)sv;
	(void)arg;
	d->magic = ROGUE_MAGIC;
	om_name_table_init(&d->watches, watch_name);
	return OM_OK;
}

static void
rogue_stop(struct om_service *sv, void *state, enum om_err why)
{
	struct detector *d = state;

	(void)why;
	watch_none(sv, d);
	om_name_table_fini(&d->watches);
}

static const struct om_service_handler rogue_handlers[] = {
	{ OM_MSG_ROGUE_WATCH, rogue_on_watch },
	{ OM_MSG_ROGUE_UNWATCH, rogue_on_unwatch },
	{ OM_MSG_VPN_STATS, rogue_on_stats },
};

const struct om_service_def om_rogue_connection_detector_service = {
	.name = OM_ROGUE_CONNECTION_DETECTOR,
	.state_size = sizeof(struct detector),
	.start = rogue_start,
	.stop = rogue_stop,
	.on = rogue_handlers,
	.on_count = OM_COUNT(rogue_handlers),
	.on_msg = rogue_on_msg,
	.restart = OM_RESTART_ON_FAILURE,
};
