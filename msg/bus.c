/* SPDX-License-Identifier: ISC */
/*
 * The bus: its services, the sockets between them, and frames.
 *
 * Why a PULL per link and not one per service: ZeroMQ reads a PULL with several senders round
 * robin, and a turn that finds one pipe empty puts it to sleep; the next message on it then costs an
 * eventfd write and a poll (2 us instead of 0.07).  With a socket and a bell per link the reader
 * never looks at an empty pipe, however many senders there are.
 *
 * 1. A link is made by its sender, both ends, before the first ring; the ring carries the receiving
 *    socket over to the receiver's thread with the full fence that libzmq asks for.
 * 2. A frame is reserved on the bell, sent, then rung: the receiver takes as many as were rung and
 *    never sees EAGAIN.  If broken: frames stay in the socket, or the reader falls asleep.  Frames that a
 *    turn puts one behind the other for one peer leave as one message, at its end at the latest, and are
 *    rung together; a frame for another peer makes them leave first.  If broken: who hears of one
 *    frame and writes to the receiver of an earlier one overtakes it.
 * 3. High-water marks are off: the bound is the bell's limit, and the receiver's count of frames
 *    that were rung but wait for its next turn.  Answers pass it.
 */
#include "msg/bus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "msg/bus_impl.h"

#define BUS_SOCKETS_MAX (2 * OM_SERVICE_MAX * OM_SERVICE_MAX + 64)

/* --- life ------------------------------------------------------------------------------------- */

enum om_err
om_bus_new(struct om_system *sys, struct om_bus **out, struct om_why *why)
{
	struct om_bus *bus = calloc(1, sizeof(*bus));

	if (bus == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "bus: out of memory");
	}
	bus->sys = sys;
	bus->zmq = zmq_ctx_new();
	if (bus->zmq == NULL) {
		free(bus);
		return om_why_errno(why, OM_ERR_LIMIT, "bus: zmq_ctx_new");
	}
	(void)zmq_ctx_set(bus->zmq, ZMQ_MAX_SOCKETS, BUS_SOCKETS_MAX);
	(void)zmq_ctx_set(bus->zmq, ZMQ_BLOCKY, 0); /* no linger: nothing may hold up the end */
	(void)pthread_mutex_init(&bus->lock, NULL);
	*out = bus;
	return OM_OK;
}

static void
slot_free(struct bus_slot *slot)
{
	if (slot == NULL) {
		return;
	}
	for (size_t i = 0; i < OM_SERVICE_MAX; i++) {
		om_bell_unref(slot->bell[i]);
		if (slot->push[i] != NULL) {
			(void)zmq_close(slot->push[i]);
		}
		if (slot->inbox[i].open) {
			(void)zmq_msg_close(&slot->inbox[i].msg);
		}
		if (slot->pull[i] != NULL) {
			(void)zmq_close(slot->pull[i]);
		}
	}
	om_bell_unref(slot->tail);
	free(slot);
}

void
om_bus_free(struct om_bus *bus)
{
	if (bus == NULL) {
		return;
	}
	for (size_t i = 0; i < OM_SERVICE_MAX; i++) {
		slot_free(bus->slots[i]);
	}
	(void)zmq_ctx_term(bus->zmq);
	(void)pthread_mutex_destroy(&bus->lock);
	free(bus);
}

void *
om_bus_zmq(struct om_bus *bus)
{
	return bus->zmq;
}

/* --- services --------------------------------------------------------------------------------- */

static struct bus_slot *
find_in(struct bus_slot *const *slots, uint32_t n, const char *name)
{
	for (uint32_t i = 0; i < n; i++) {
		const char *known = slots[i]->def->name;

		if (known == name || strcmp(known, name) == 0) {
			return slots[i];
		}
	}
	return NULL;
}

struct bus_slot *
bus_find(struct om_bus *bus, const char *name)
{
	struct bus_slot *slot;

	(void)pthread_mutex_lock(&bus->lock);
	slot = find_in(bus->slots, bus->slot_count, name);
	(void)pthread_mutex_unlock(&bus->lock);
	return slot;
}

struct bus_slot *
bus_peer_find(struct bus_slot *from, const char *name)
{
	struct bus_slot *slot = find_in(from->known, from->known_count, name);

	if (slot == NULL) {
		slot = bus_find(from->bus, name);
		if (slot != NULL) {
			from->known[from->known_count++] = slot;
		}
	}
	return slot;
}

static struct bus_slot *
slot_new(struct om_bus *bus, const struct om_service_def *def, uint32_t index)
{
	uint32_t backlog = def->backlog != 0 ? def->backlog : OM_BUS_BACKLOG;
	struct bus_slot *slot = calloc(1, sizeof(*slot));
	enum om_err err = OM_OK;

	if (slot == NULL) {
		return NULL;
	}
	slot->bus = bus;
	slot->def = def;
	slot->index = index;
	slot->backlog = backlog;
	slot->next_seq = 1;
	bus_service_actor_def(def, &slot->actor_def);
	OM_ASSERT(def->on_count + def->on_raw_count < UINT8_MAX);
	for (size_t i = 0; i < def->on_count + def->on_raw_count; i++) {
		const enum om_msg_type type = bus_handler(def, i)->type;

		OM_ASSERT(slot->handler[type] == 0); /* two handlers of one type */
		slot->handler[type] = (uint8_t)(i + 1);
	}
	for (size_t i = 0; i < OM_SERVICE_MAX && err == OM_OK; i++) {
		err = om_bell_new(bus->sys, backlog, &slot->bell[i]);
	}
	if (err == OM_OK) {
		err = om_bell_new(bus->sys, 0, &slot->tail);
	}
	if (err != OM_OK) {
		slot_free(slot);
		return NULL;
	}
	return slot;
}

const struct om_actor_def *
om_service_actor(struct om_bus *bus, const struct om_service_def *def)
{
	struct bus_slot *slot;

	OM_ASSERT(def->name[0] != '\0' && strlen(def->name) <= OM_SERVICE_MAX);
	(void)pthread_mutex_lock(&bus->lock);
	slot = find_in(bus->slots, bus->slot_count, def->name);
	if (slot == NULL) {
		OM_ASSERT(bus->slot_count < OM_SERVICE_MAX);
		slot = slot_new(bus, def, bus->slot_count);
		if (slot != NULL) {
			bus->slots[bus->slot_count++] = slot;
		}
	}
	(void)pthread_mutex_unlock(&bus->lock);
	OM_ASSERT(slot == NULL || slot->def == def); /* two services of one name */
	return slot != NULL ? &slot->actor_def : NULL;
}

enum om_err
om_service_spawn(struct om_bus *bus, const struct om_service_arg *arg, struct om_actor_id *out)
{
	const struct om_actor_def *def = om_service_actor(bus, arg->def);

	return def != NULL ? om_system_spawn(bus->sys, def, arg, out) : OM_ERR_NOMEM;
}

bool
om_caller_may(const struct om_caller *caller, enum om_msg_type type)
{
	switch (caller->role) {
	case OM_ROLE_ACTOR:
		return true;
	case OM_ROLE_OPERATOR:
		return om_msg_info(type)->who != OM_WHO_ACTOR;
	case OM_ROLE_REQUESTER:
		return om_msg_info(type)->who == OM_WHO_PEER;
	}
	return false;
}

size_t
om_bus_stats(struct om_bus *bus, struct om_bus_stats *out, size_t max)
{
	uint32_t n;

	(void)pthread_mutex_lock(&bus->lock);
	n = bus->slot_count;
	for (uint32_t i = 0; i < n && i < max; i++) {
		struct bus_slot *slot = bus->slots[i];
		struct om_counter *c = slot->counts;

		out[i] = (struct om_bus_stats){
			.name = slot->def->name,
			.handled = om_counter_get(&c[BUS_HANDLED]),
			.sent = om_counter_get(&c[BUS_SENT]),
			.lost = om_counter_get(&c[BUS_LOST]),
			.asks = om_counter_get(&c[BUS_ASKS]),
			.asks_failed = om_counter_get(&c[BUS_ASKS_FAILED]),
			.late = om_counter_get(&c[BUS_LATE]),
			.refused = om_counter_get(&c[BUS_REFUSED]),
			.bad = om_counter_get(&c[BUS_BAD]),
			.unanswered = om_counter_get(&c[BUS_UNANSWERED]),
		};
		for (size_t k = 0; k < OM_SERVICE_MAX; k++) {
			out[i].waiting +=
			    om_bell_depth(slot->bell[k]) + om_counter_get(&slot->ready[k]);
		}
	}
	(void)pthread_mutex_unlock(&bus->lock);
	return n;
}

/* --- links ------------------------------------------------------------------------------------ */

static void *
socket_new(struct om_bus *bus, int type, int hwm_option)
{
	void *socket = zmq_socket(bus->zmq, type);
	int unlimited = 0;

	if (socket != NULL) {
		(void)zmq_setsockopt(socket, hwm_option, &unlimited, sizeof(unlimited));
	}
	return socket;
}

enum om_err
bus_link(struct bus_slot *from, struct bus_slot *to)
{
	char endpoint[64 + 2 * OM_SERVICE_MAX];
	struct om_bus *bus = from->bus;
	void *pull, *push;

	if (from->push[to->index] != NULL) {
		return OM_OK;
	}
	(void)snprintf(endpoint, sizeof(endpoint), "inproc://omerta/%s/%s", to->def->name,
		       from->def->name);
	pull = socket_new(bus, ZMQ_PULL, ZMQ_RCVHWM);
	push = pull != NULL ? socket_new(bus, ZMQ_PUSH, ZMQ_SNDHWM) : NULL;
	if (pull == NULL || push == NULL || zmq_bind(pull, endpoint) != 0 ||
	    zmq_connect(push, endpoint) != 0) {
		om_error("bus.link", "%s: %s", endpoint, zmq_strerror(zmq_errno()));
		if (pull != NULL) {
			(void)zmq_close(pull);
		}
		if (push != NULL) {
			(void)zmq_close(push);
		}
		return OM_ERR_LIMIT;
	}
	to->pull[from->index] = pull;
	from->push[to->index] = push;
	return OM_OK;
}

/* --- frames ----------------------------------------------------------------------------------- */

size_t
bus_frame_begin(struct om_service *sv, struct bus_slot *to, const struct bus_head *head_,
		const struct om_caller *as)
{
	struct bus_head head = *head_;
	struct om_buf *buf = &sv->out;
	size_t from;

	if (sv->pack_to != to) {
		bus_flush(sv);
		sv->pack_to = to;
	}
	from = buf->len;
	head.magic = BUS_MAGIC;
	if (as == NULL) {
		head.role = OM_ROLE_ACTOR;
		om_buf_add(buf, &head, sizeof(head));
	} else {
		head.role = (uint8_t)as->role;
		head.peer_len = (uint8_t)strnlen(as->peer, OM_PEER_MAX);
		head.network_len = (uint8_t)strnlen(as->network, OM_NETWORK_MAX);
		om_buf_add(buf, &head, sizeof(head));
		om_buf_add(buf, as->peer, head.peer_len);
		om_buf_add(buf, as->network, head.network_len);
	}
	sv->body_at = buf->len;
	return from;
}

static void
frame_release(void *data, void *hint)
{
	(void)hint;
	free(data);
}

/*
 * What is large gives its buffer away: the next is often as large.  What is small is copied, and the buffer
 * used again.
 */
static int
frame_msg(zmq_msg_t *msg, struct om_buf *buf)
{
	const size_t len = buf->len;

	if (len >= BUS_HANDOVER_MIN) {
		if (zmq_msg_init_data(msg, buf->data, len, frame_release, NULL) != 0) {
			return -1;
		}
		*buf = (struct om_buf){ .max = buf->max };
		if (len < BUS_KEEP_MAX && om_buf_reserve(buf, len) != OM_OK) {
			buf->failed = false; /* it grows when it has to */
		}
		return 0;
	}
	if (zmq_msg_init_size(msg, len) != 0) {
		return -1;
	}
	memcpy(zmq_msg_data(msg), buf->data, len);
	return 0;
}

/* Who put these frames was told that they leave: nobody will answer their asks. */
static void
pack_lost(struct om_service *sv, struct om_bin bytes)
{
	struct bus_frame frame;

	om_counter_add(&sv->slot->counts[BUS_LOST], sv->packed);
	while (bytes.len > 0 && bus_frame_parse(bytes, &frame)) {
		struct bus_asked *ask =
		    frame.head.kind != BUS_ANSWER ? bus_table_find(&sv->asks, frame.head.id) : NULL;

		if (ask != NULL) {
			ask->actor = BUS_NO_LIFE;
			sv->stale_asks = true;
			bus_ring_tail(sv);
		}
		bytes = (struct om_bin){ bytes.ptr + frame.size, bytes.len - frame.size };
	}
}

/* All that is in sv->out.  An error: nothing of it was sent. */
static enum om_err
pack_send(struct om_service *sv)
{
	struct bus_slot *from = sv->slot, *to = sv->pack_to;
	struct om_bell *bell = to->bell[from->index];
	struct om_bin bytes = { sv->out.data, sv->out.len };
	enum om_err err = OM_OK;
	zmq_msg_t msg;

	(void)zmq_msg_init(&msg);
	if (frame_msg(&msg, &sv->out) != 0) {
		err = OM_ERR_NOMEM;
	} else if (zmq_msg_send(&msg, from->push[to->index], ZMQ_DONTWAIT) < 0) {
		bytes = (struct om_bin){ zmq_msg_data(&msg), zmq_msg_size(&msg) };
		err = OM_ERR_IO;
	}
	if (err == OM_OK) {
		om_bell_ring_many(bell, sv->packed);
		om_counter_add(&from->counts[BUS_SENT], sv->packed);
	} else {
		om_error("bus.send", "%s to %s: %s", from->def->name, to->def->name,
			 zmq_strerror(zmq_errno()));
		if (sv->packing) {
			pack_lost(sv, bytes);
		}
		for (uint32_t i = 0; i < sv->packed; i++) {
			om_bell_cancel(bell);
		}
		(void)zmq_msg_close(&msg);
	}
	om_buf_reset(&sv->out);
	sv->packed = 0;
	return err;
}

void
bus_flush(struct om_service *sv)
{
	if (sv->packed > 0) {
		(void)!pack_send(sv); /* what is lost is counted, and its asks end */
	}
}

enum om_err
bus_frame_end(struct om_service *sv, size_t from, enum om_err err)
{
	struct om_buf *buf = &sv->out;
	uint32_t len;

	if (err == OM_OK && buf->failed) {
		err = OM_ERR_NOMEM;
	}
	if (err == OM_OK && buf->len - sv->body_at > OM_FRAME_MAX) {
		err = OM_ERR_TOO_BIG;
	}
	if (err != OM_OK) {
		om_bell_cancel(sv->pack_to->bell[sv->slot->index]);
		buf->len = from;
		buf->failed = false;
		return err;
	}
	len = (uint32_t)(buf->len - sv->body_at);
	memcpy(buf->data + from + offsetof(struct bus_head, len), &len, sizeof(len));
	sv->packed++;
	if (!sv->packing) {
		return pack_send(sv);
	}
	if (buf->len >= BUS_PACK_MAX) {
		bus_flush(sv);
	}
	return OM_OK;
}

bool
bus_frame_parse(struct om_bin bytes, struct bus_frame *out)
{
	const uint8_t *at = bytes.ptr + sizeof(out->head);
	size_t left;

	if (bytes.len < sizeof(out->head)) {
		return false;
	}
	memcpy(&out->head, bytes.ptr, sizeof(out->head));
	left = bytes.len - sizeof(out->head);
	if (out->head.magic != BUS_MAGIC || out->head.kind >= BUS_KIND_COUNT ||
	    out->head.type == OM_MSG_NONE || out->head.type >= OM_MSG_COUNT ||
	    out->head.role > OM_ROLE_OPERATOR || out->head.peer_len > OM_PEER_MAX ||
	    out->head.network_len > OM_NETWORK_MAX ||
	    (size_t)out->head.peer_len + out->head.network_len > left) {
		return false;
	}
	out->caller.role = (enum om_role)out->head.role;
	memcpy(out->caller.peer, at, out->head.peer_len);
	out->caller.peer[out->head.peer_len] = '\0';
	at += out->head.peer_len;
	memcpy(out->caller.network, at, out->head.network_len);
	out->caller.network[out->head.network_len] = '\0';
	at += out->head.network_len;
	if (out->head.len > (size_t)(bytes.ptr + bytes.len - at)) {
		return false;
	}
	out->body = (struct om_bin){ at, out->head.len };
	out->size = (size_t)(at - bytes.ptr) + out->head.len;
	return true;
}
