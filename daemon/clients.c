/* SPDX-License-Identifier: ISC */
/*
 * Two chained hash tables, clients and peers, that grow and are swept as they fill.
 *
 * 1. A client is in the table exactly while in_flight > 0 or cut.  If broken: memory grows with
 *    every connection, or an answer has nowhere to go.
 * 2. A peer's om_unread is freed with its last reference: one of the peer's entry, one of each
 *    charge for answers that ZeroMQ holds.  If broken: the I/O thread writes to freed memory.
 */
#include "daemon/clients.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"

#define BUCKETS_MIN 64
#define PEER_LEN    65 /* OM_PEER_MAX and the NUL */

struct om_unread {
	pthread_mutex_t lock; /* the two below */
	size_t bytes;
	size_t refs;
};

struct peer {
	struct peer *next;
	struct om_unread *unread;
	size_t clients;
	size_t bytes; /* of its requests in flight */
	char name[PEER_LEN];
};

struct om_client {
	struct om_client *next;
	struct peer *peer;
	uint64_t hash;
	size_t in_flight;
	struct om_client_waiting waiting;
	bool cut;
	uint8_t endpoint;
	uint8_t route_len;
	unsigned char route[];
};

struct om_clients {
	struct om_clients_conf conf;
	struct om_client **buckets;
	size_t bucket_count; /* a power of two */
	size_t client_count, in_flight, cut_count;
	size_t bytes; /* of all requests in flight */
	struct peer *peers; /* few: a list; one entry for each uid or key that is active */
	size_t peer_count, peer_sweep_at;
};

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/; routing ids are ZeroMQ's, not the peer's. */
static uint64_t
route_hash(unsigned endpoint, const void *route, size_t len)
{
	const unsigned char *p = route;
	uint64_t h = UINT64_C(0xcbf29ce484222325) ^ endpoint;

	for (size_t i = 0; i < len; i++) {
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	}
	return h ^ (h >> 32);
}

struct om_clients *
om_clients_new(const struct om_clients_conf *conf)
{
	struct om_clients *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		return NULL;
	}
	c->conf = *conf;
	c->bucket_count = BUCKETS_MIN;
	c->peer_sweep_at = BUCKETS_MIN;
	c->buckets = calloc(c->bucket_count, sizeof(struct om_client *));
	if (c->buckets == NULL) {
		free(c);
		return NULL;
	}
	return c;
}

void
om_clients_limit(struct om_clients *clients, const struct om_clients_conf *conf)
{
	clients->conf = *conf;
}

/* --- unread bytes ---------------------------------------------------------------------------- */

static void
unread_lock(struct om_unread *u)
{
	int failed = pthread_mutex_lock(&u->lock);

	OM_ASSERT(failed == 0);
}

/* Gives the lock back; frees with the last reference. */
static void
unread_unlock(struct om_unread *u)
{
	bool last = u->refs == 0;

	pthread_mutex_unlock(&u->lock);
	if (last) {
		pthread_mutex_destroy(&u->lock);
		free(u);
	}
}

static void
unread_unref(struct om_unread *u)
{
	unread_lock(u);
	OM_ASSERT(u->refs > 0);
	u->refs--;
	unread_unlock(u);
}

void
om_unread_sub(struct om_unread *unread, size_t bytes)
{
	unread_lock(unread);
	OM_ASSERT(unread->bytes >= bytes && unread->refs > 0);
	unread->bytes -= bytes;
	unread->refs--;
	unread_unlock(unread);
}

size_t
om_clients_room(const struct om_clients *clients, const struct om_client *client)
{
	struct om_unread *u = client->peer->unread;
	size_t bytes;

	unread_lock(u);
	bytes = u->bytes;
	unread_unlock(u);
	return bytes < clients->conf.max_unread ? clients->conf.max_unread - bytes : 0;
}

struct om_unread *
om_clients_charge(struct om_clients *clients, struct om_client *client, size_t bytes)
{
	struct om_unread *u = client->peer->unread;
	bool fits;

	unread_lock(u);
	fits = bytes <= clients->conf.max_unread && u->bytes <= clients->conf.max_unread - bytes;
	if (fits) {
		u->bytes += bytes;
		u->refs++;
	}
	unread_unlock(u);
	return fits ? u : NULL;
}

/* --- peers ----------------------------------------------------------------------------------- */

static void
peer_free(struct peer *peer)
{
	unread_unref(peer->unread);
	free(peer);
}

/* Peers without a client and without unread answers have nothing to remember. */
static void
peers_sweep(struct om_clients *c)
{
	struct peer **at = &c->peers, *peer;
	bool idle;

	while ((peer = *at) != NULL) {
		unread_lock(peer->unread);
		idle = peer->clients == 0 && peer->unread->bytes == 0;
		unread_unlock(peer->unread);
		if (idle) {
			*at = peer->next;
			peer_free(peer);
			c->peer_count--;
		} else {
			at = &peer->next;
		}
	}
	c->peer_sweep_at = c->peer_count * 2 + BUCKETS_MIN;
}

static struct peer *
peer_get(struct om_clients *c, const char *name)
{
	struct peer *peer, **at;

	for (at = &c->peers; (peer = *at) != NULL; at = &peer->next) {
		if (strcmp(peer->name, name) == 0) {
			*at = peer->next; /* to the front: the next request is likely its */
			peer->next = c->peers;
			c->peers = peer;
			return peer;
		}
	}
	if (c->peer_count >= c->peer_sweep_at) {
		peers_sweep(c);
	}
	peer = calloc(1, sizeof(*peer));
	if (peer == NULL) {
		return NULL;
	}
	peer->unread = calloc(1, sizeof(*peer->unread));
	if (peer->unread == NULL || pthread_mutex_init(&peer->unread->lock, NULL) != 0) {
		free(peer->unread);
		free(peer);
		return NULL;
	}
	peer->unread->refs = 1;
	snprintf(peer->name, sizeof(peer->name), "%s", name);
	peer->next = c->peers;
	c->peers = peer;
	c->peer_count++;
	return peer;
}

/* --- clients --------------------------------------------------------------------------------- */

static struct om_client **
client_find(struct om_clients *c, unsigned endpoint, const void *route, size_t len)
{
	uint64_t hash = route_hash(endpoint, route, len);
	struct om_client **at = &c->buckets[hash & (c->bucket_count - 1)];

	while (*at != NULL && !((*at)->hash == hash && (*at)->endpoint == endpoint &&
				(*at)->route_len == len && memcmp((*at)->route, route, len) == 0)) {
		at = &(*at)->next;
	}
	return at;
}

static void
client_remove(struct om_clients *c, struct om_client *client)
{
	struct om_client **at = client_find(c, client->endpoint, client->route, client->route_len);

	OM_ASSERT(*at == client);
	*at = client->next;
	c->client_count--;
	c->cut_count -= client->cut;
	client->peer->clients--;
	free(client);
}

static void
clients_grow(struct om_clients *c)
{
	size_t count = c->bucket_count * 2;
	struct om_client **buckets = calloc(count, sizeof(struct om_client *));

	if (buckets == NULL) {
		return; /* longer chains will do */
	}
	for (size_t i = 0; i < c->bucket_count; i++) {
		struct om_client *client = c->buckets[i];

		while (client != NULL) {
			struct om_client *next = client->next;
			struct om_client **to = &buckets[client->hash & (count - 1)];

			client->next = *to;
			*to = client;
			client = next;
		}
	}
	free(c->buckets);
	c->buckets = buckets;
	c->bucket_count = count;
}

static struct om_client *
client_add(struct om_clients *c, unsigned endpoint, const void *route, size_t len,
	   struct peer *peer)
{
	struct om_client *client, **at;

	client = calloc(1, sizeof(*client) + len);
	if (client == NULL) {
		return NULL;
	}
	if (c->client_count >= c->bucket_count) {
		clients_grow(c);
	}
	client->peer = peer;
	client->hash = route_hash(endpoint, route, len);
	client->endpoint = (uint8_t)endpoint;
	client->route_len = (uint8_t)len;
	memcpy(client->route, route, len);
	at = &c->buckets[client->hash & (c->bucket_count - 1)];
	client->next = *at;
	*at = client;
	peer->clients++;
	c->client_count++;
	return client;
}

/* Clients that were cut off and have nothing in flight make room for others. */
static void
clients_forget_cut(struct om_clients *c)
{
	for (size_t i = 0; i < c->bucket_count && c->cut_count > 0; i++) {
		struct om_client *client = c->buckets[i];

		while (client != NULL) {
			struct om_client *next = client->next;

			if (client->cut && client->in_flight == 0) {
				client_remove(c, client);
			}
			client = next;
		}
	}
}

bool
om_clients_has_room(size_t max, size_t used, size_t of_peer, size_t more, bool is_operator)
{
	if (used >= max || more > max - used) {
		return false;
	}
	/* The first is never too much, or a limit below two largest requests would refuse those. */
	return is_operator || of_peer == 0 || of_peer + more <= max - used - more;
}

static bool
has_place(const struct om_clients *c, const struct peer *peer, bool is_operator)
{
	return om_clients_has_room(c->conf.max_clients, c->client_count, peer->clients, 1,
				   is_operator);
}

/* The client of a visit, made if there is a place for it. */
static enum om_err
client_get(struct om_clients *c, const struct om_visit *v, struct peer *peer,
	   struct om_client **out, struct om_why *why)
{
	*out = *client_find(c, v->endpoint, v->route, v->route_len);
	if (*out != NULL) {
		return OM_OK;
	}
	if (!has_place(c, peer, v->is_operator)) {
		clients_forget_cut(c);
	}
	if (!has_place(c, peer, v->is_operator)) {
		return om_why_set(why, OM_ERR_LIMIT,
				  "%zu clients have requests in flight, %zu of them yours",
				  c->client_count, peer->clients);
	}
	*out = client_add(c, v->endpoint, v->route, v->route_len, peer);
	return *out != NULL ? OM_OK : OM_ERR_NOMEM;
}

enum om_err
om_clients_enter(struct om_clients *clients, const struct om_visit *visit, struct om_client **out,
		 struct om_why *why)
{
	struct peer *peer = peer_get(clients, visit->peer);
	struct om_client *client;
	enum om_err err;

	OM_ASSERT(visit->route_len <= OM_ROUTE_MAX);
	if (peer == NULL) {
		return OM_ERR_NOMEM;
	}
	if (!om_clients_has_room(clients->conf.max_pending, clients->bytes, peer->bytes,
				 visit->bytes, visit->is_operator)) {
		return om_why_set(why, OM_ERR_LIMIT,
				  "%zu bytes of requests are in flight, %zu of them yours",
				  clients->bytes, peer->bytes);
	}
	err = client_get(clients, visit, peer, &client, why);
	if (err != OM_OK) {
		return err;
	}
	if (client->in_flight >= clients->conf.max_in_flight) {
		return om_why_set(why, OM_ERR_LIMIT, "%zu requests of this client are in flight",
				  client->in_flight);
	}
	client->in_flight++;
	clients->in_flight++;
	peer->bytes += visit->bytes;
	clients->bytes += visit->bytes;
	*out = client;
	return OM_OK;
}

void
om_clients_leave(struct om_clients *clients, struct om_client *client, size_t bytes)
{
	OM_ASSERT(client->in_flight > 0 && client->peer->bytes >= bytes);
	client->in_flight--;
	clients->in_flight--;
	client->peer->bytes -= bytes;
	clients->bytes -= bytes;
	if (client->in_flight == 0 && !client->cut) {
		client_remove(clients, client);
	}
}

unsigned
om_client_endpoint(const struct om_client *client)
{
	return client->endpoint;
}

const void *
om_client_route(const struct om_client *client, size_t *len)
{
	*len = client->route_len;
	return client->route;
}

struct om_client_waiting *
om_client_waiting(struct om_client *client)
{
	return &client->waiting;
}

void
om_clients_cut(struct om_clients *clients, struct om_client *client)
{
	clients->cut_count += !client->cut;
	client->cut = true;
}

bool
om_clients_is_cut(struct om_clients *clients, unsigned endpoint, const void *route,
		  size_t route_len)
{
	struct om_client *client;

	if (clients->cut_count == 0) {
		return false;
	}
	client = *client_find(clients, endpoint, route, route_len);
	return client != NULL && client->cut;
}

void
om_clients_mend(struct om_clients *clients, unsigned endpoint, const void *route, size_t route_len)
{
	struct om_client *client = *client_find(clients, endpoint, route, route_len);

	if (client == NULL || !client->cut) {
		return;
	}
	client->cut = false;
	clients->cut_count--;
	if (client->in_flight == 0) {
		client_remove(clients, client);
	}
}

void
om_clients_stats(const struct om_clients *clients, struct om_clients_stats *out)
{
	out->clients = clients->client_count;
	out->in_flight = clients->in_flight;
	out->cut = clients->cut_count;
	out->pending = clients->bytes;
}

void
om_clients_free(struct om_clients *clients)
{
	if (clients == NULL) {
		return;
	}
	for (size_t i = 0; i < clients->bucket_count; i++) {
		struct om_client *client = clients->buckets[i];

		while (client != NULL) {
			struct om_client *next = client->next;

			free(client);
			client = next;
		}
	}
	while (clients->peers != NULL) {
		struct peer *peer = clients->peers;

		clients->peers = peer->next;
		peer_free(peer);
	}
	free(clients->buckets);
	free(clients);
}
