/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_CLIENTS_H
#define OM_DAEMON_CLIENTS_H

/*
 * What each client of the control endpoint has outstanding, and its limits.  Plain logic.
 *
 * A client is a connection (endpoint and ZeroMQ routing id); a peer is who stands behind one or
 * many of them.  A client is known as long as it has a request in flight or was cut off; a peer as
 * long as it has a client or answers that its connections have not taken yet.  So memory follows
 * what is outstanding, never the number of connections that ever came.
 *
 * Owner thread, except om_unread_sub, which ZeroMQ's I/O threads call.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

#define OM_ROUTE_MAX 255 /* bytes of a ZeroMQ routing id */

struct om_clients;
struct om_client;
struct om_unread; /* bytes of answers that wait in ZeroMQ for a peer's connections */

struct om_clients_conf {
	size_t max_clients; /* with something in flight */
	size_t max_pending; /* bytes of requests in flight, of all */
	size_t max_in_flight; /* of one client */
	size_t max_unread; /* bytes, of one peer */
};

struct om_clients *om_clients_new(const struct om_clients_conf *conf); /* NULL: no memory */
/* Answers that ZeroMQ still holds keep their counters until they are gone. */
void om_clients_free(struct om_clients *clients);
void om_clients_limit(struct om_clients *clients, const struct om_clients_conf *conf);

struct om_visit {
	unsigned endpoint;
	const void *route;
	size_t route_len;
	const char *peer;
	size_t bytes; /* of the request */
	bool is_operator;
};

/*
 * Of what all share, an operator may have all that is free, a requester as much as it leaves free: the
 * greediest one gets half, the next half of the rest, and there is always room for one more and for
 * the operator (dynamic thresholds, Choudhury and Hahne, IEEE/ACM ToN 6(2), 1998).
 */
bool om_clients_has_room(size_t max, size_t used, size_t of_peer, size_t more, bool is_operator);

/*
 * A request came.  Gives the client, with one more in flight.  LIMIT (max_clients, max_in_flight or
 * max_pending; why says which), NOMEM.
 */
enum om_err om_clients_enter(struct om_clients *clients, const struct om_visit *visit,
			     struct om_client **out, struct om_why *why) OM_MUST_CHECK;
/* A request of so many bytes has ended.  The client is gone when it was the last, unless cut off. */
void om_clients_leave(struct om_clients *clients, struct om_client *client, size_t bytes);

unsigned om_client_endpoint(const struct om_client *client);
const void *om_client_route(const struct om_client *client, size_t *len);
/* The caller's own, of a client: its list of answers that wait to be sent.  0 in a new one. */
struct om_client_waiting {
	uint32_t first, last;
};
struct om_client_waiting *om_client_waiting(struct om_client *client);

/* Its pipe is full: it does not read.  Nothing is done for it until it does. */
void om_clients_cut(struct om_clients *clients, struct om_client *client);
bool om_clients_is_cut(struct om_clients *clients, unsigned endpoint, const void *route,
		       size_t route_len);
/* It reads again. */
void om_clients_mend(struct om_clients *clients, unsigned endpoint, const void *route,
		     size_t route_len);

/* What may be charged now; never less until the next charge. */
size_t om_clients_room(const struct om_clients *clients, const struct om_client *client);
/*
 * Answers of so many bytes go to ZeroMQ.  Gives the counter to be given back with
 * om_unread_sub when ZeroMQ has let go of the bytes; NULL: the peer has too much unread.
 */
struct om_unread *om_clients_charge(struct om_clients *clients, struct om_client *client,
				    size_t bytes);
/* Any thread. */
void om_unread_sub(struct om_unread *unread, size_t bytes);

struct om_clients_stats {
	size_t clients; /* with something in flight, or cut */
	size_t in_flight; /* requests */
	size_t cut;
	size_t pending; /* bytes of those requests */
};
void om_clients_stats(const struct om_clients *clients, struct om_clients_stats *out);

#endif /* OM_DAEMON_CLIENTS_H */
