/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_HEALTH_H
#define OM_NET_HEALTH_H

/*
 * Is a tunnel dead?  Plain logic: the caller reads the counters and the clock.
 *
 * WireGuard is silent when nothing is sent, and makes a new handshake only when a session is 120 s
 * old *and* there is something to send; a session ends after 180 s; who gets data and has nothing to
 * say answers with an empty packet after 10 s; who hears nothing for 15 s after sending repeats the
 * handshake for 90 s (whitepaper, section 6).  So silence is health, and only these two are death:
 *
 *   no_reply      the job sent something and for no_reply_ms nothing came back.  Default 90 s:
 *                 WireGuard itself has given up by then.
 *   no_handshake  the job sent something on a session older than handshake_max_ms (180 s), and for
 *                 handshake_retry_ms there was no new one.  Default 30 s: six attempts.
 *
 * What the job sends is what the walls let into the tunnel.  What WireGuard sends is no measure of
 * it: keepalives are never answered, and with a persistent keepalive a handshake is tried every 5 s
 * for as long as the other end is away, whether the job has anything to say or not.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/clock.h"

struct om_health_limits {
	int64_t no_reply_ms;
	int64_t handshake_max_ms;
	int64_t handshake_retry_ms;
};
#define OM_HEALTH_LIMITS_DEFAULT                                                              \
	{                                                                                     \
		.no_reply_ms = 90000, .handshake_max_ms = 180000, .handshake_retry_ms = 30000 \
	}

/* One reading of a tunnel's counters. */
struct om_health_sample {
	uint64_t sent_packets; /* of the job, into the tunnel */
	uint64_t rx_bytes; /* WireGuard's: whatever comes, the other end is there */
	int64_t handshake_age_ms; /* -1: there was none yet */
};

enum om_health_verdict {
	OM_HEALTH_OK,
	OM_HEALTH_NO_REPLY,
	OM_HEALTH_NO_HANDSHAKE,
};

struct om_health {
	struct om_health_limits limits;
	struct om_health_sample last;
	bool has_sample;
	bool waiting; /* something went out and nothing came back since unanswered_from */
	bool stale; /* something went out on a session that is too old since stale_from */
	struct om_mono unanswered_from;
	struct om_mono stale_from;
	enum om_health_verdict verdict; /* the first death is kept */
};

/* Owner thread.  limits NULL: the defaults. */
void om_health_init(struct om_health *h, const struct om_health_limits *limits);

/* Owner thread.  Takes one reading; the verdict never goes back to OK. */
enum om_health_verdict om_health_feed(struct om_health *h, struct om_mono now,
				      const struct om_health_sample *sample);

/* Any thread.  "ok", "no_reply", "no_handshake". */
const char *om_health_name(enum om_health_verdict verdict);

#endif /* OM_NET_HEALTH_H */
