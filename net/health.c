/* SPDX-License-Identifier: ISC */
#include "net/health.h"

#include <string.h>

void
om_health_init(struct om_health *h, const struct om_health_limits *limits)
{
	static const struct om_health_limits defaults = OM_HEALTH_LIMITS_DEFAULT;

	memset(h, 0, sizeof(*h));
	h->limits = limits != NULL ? *limits : defaults;
}

/* Something went out and was not answered: from when on? */
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

/* Something went out although the session is too old: from when on? */
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

enum om_health_verdict
om_health_feed(struct om_health *h, struct om_mono now, const struct om_health_sample *sample)
{
	/* The first reading is where counting begins. */
	bool sent = h->has_sample && sample->sent_packets > h->last.sent_packets;
	bool received = h->has_sample && sample->rx_bytes > h->last.rx_bytes;

	feed_reply(h, now, sent, received);
	feed_handshake(h, now, sent, sample->handshake_age_ms);
	h->last = *sample;
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
