/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_INTAKE_H
#define OM_DAEMON_INTAKE_H

/*
 * Limits on the control endpoints' connections and on what they have sent that is not a whole message
 * yet.  ZeroMQ has neither (intake.c says how it is done without): the process's own accept4, recv
 * and close stand before the C library's.  One for the process; any thread.
 *
 * A connection over a limit is closed: before a message is whole there is nobody to answer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

#define OM_INTAKE_SMALL     (16 * 1024) /* bytes: a message up to this always has room */
#define OM_INTAKE_PARTS_MAX 4 /* of one message; a request has one or two */

struct om_intake_conf {
	size_t max_connections; /* and at most half of the files that may be open */
	size_t max_bytes; /* of all messages over OM_INTAKE_SMALL that are not whole */
	size_t max_message; /* bytes, all its parts together */
	bool curve; /* tcp is encrypted: where a message ends is only known when it was read */
};

/* From now on every connection that is accepted counts.  Again: other limits. */
enum om_err om_intake_open(const struct om_intake_conf *conf) OM_MUST_CHECK;
/* A whole message that came by this file was read: all before it has left ZeroMQ. */
void om_intake_read(int fd);

struct om_intake_stats {
	size_t connections;
	size_t bytes; /* that count against max_bytes */
	uint64_t refused; /* connections, over max_connections */
	uint64_t cut; /* connections that were closed for what they sent */
};
void om_intake_stats(struct om_intake_stats *out);

#endif /* OM_DAEMON_INTAKE_H */
