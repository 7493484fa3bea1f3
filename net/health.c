/* SPDX-License-Identifier: ISC */
#include "net/health.h"

#include <string.h>

#define EMPTY_PACKET 32 /* bytes of a keepalive: header and tag */
#define EMPTY_SPARE  2 /* answers and a keepalive on the edge of the interval */

void
om_health_init(struct om_health *h, const struct om_health_limits *limits)
{
	static const struct om_health_limits defaults = OM_HEALTH_LIMITS_DEFAULT;

	memset(h, 0, sizeof(*h));
	h->limits = limits != NULL ? *limits : defaults;
}

/* Bytes that went out and were not answered: from when on? */
static void
feed_reply(struct om_health *h, struct om_mono now, bool sent, bool received)
{
	if (received) {
		h->waiting = false;
	} else if (sent && !h->waiting) {
		h->waiting = true;
		h->unanswered_from = now;
	}
}

/* Bytes that went out although the session is too old: from when on? */
static void
feed_handshake(struct om_health *h, struct om_mono now, bool sent, int64_t age_ms)
{
	if (age_ms < 0 || age_ms <= h->limits.handshake_max_ms) {
		h->stale = false; /* without any handshake, no_reply decides */
	} else if (sent && !h->stale) {
		h->stale = true;
		h->stale_from = now;
	}
}

/* As many bytes as empty packets may make since the last reading. */
static uint64_t
quiet_bytes(const struct om_health *h, struct om_mono now)
{
	uint64_t packets = EMPTY_SPARE;

	if (h->limits.keepalive_s > 0) {
		packets +=
		    (uint64_t)om_mono_ms_between(h->last_at, now) / 1000 / h->limits.keepalive_s;
	}
	return packets * EMPTY_PACKET;
}

enum om_health_verdict
om_health_feed(struct om_health *h, struct om_mono now, const struct om_health_sample *sample)
{
	/* The first reading is where counting begins. */
	bool sent = h->has_sample && sample->tx_bytes > h->last.tx_bytes &&
		    sample->tx_bytes - h->last.tx_bytes > quiet_bytes(h, now);
	bool received = h->has_sample && sample->rx_bytes > h->last.rx_bytes;

	feed_reply(h, now, sent, received);
	feed_handshake(h, now, sent, sample->handshake_age_ms);
	h->last = *sample;
	h->last_at = now;
	h->has_sample = true;
	if (h->verdict != OM_HEALTH_OK) {
		return h->verdict;
	}
	if (h->waiting && om_mono_ms_between(h->unanswered_from, now) >= h->limits.no_reply_ms) {
		h->verdict = OM_HEALTH_NO_REPLY;
	} else if (h->stale &&
		   om_mono_ms_between(h->stale_from, now) >= h->limits.handshake_retry_ms) {
		h->verdict = OM_HEALTH_NO_HANDSHAKE;
	}
	return h->verdict;
}

const char *
om_health_name(enum om_health_verdict verdict)
{
	switch (verdict) {
	case OM_HEALTH_OK:
		return "ok";
	case OM_HEALTH_NO_REPLY:
		return "no_reply";
	case OM_HEALTH_NO_HANDSHAKE:
		return "no_handshake";
	}
	return "unknown";
}
