/* SPDX-License-Identifier: ISC */
/*
 * Requests in flight.
 *
 * 1. A slot is WAITING or DONE while its ticket is valid, and is freed by finish, next or forget.  If
 *    broken: a request ends twice or never.
 * 2. A ticket is (sequence << 10 | slot), so an answer that comes too late finds another sequence in
 *    the slot and is dropped.  If broken: an answer goes to another request.
 * 3. Every wait looks at a deadline.  If broken: a silent daemon blocks the caller for ever.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>
#include "base/assert.h"
#include "base/secret.h"
#include "client/client_impl.h"

#define SLOT_BITS   10
#define SLOT_MASK   (OMERTA_IN_FLIGHT_MAX - 1)
#define DRAIN_BATCH 256 /* frames taken before deadlines are looked at again */

_Static_assert(OMERTA_IN_FLIGHT_MAX == 1 << SLOT_BITS, "a ticket's low bits are its slot");

/* --- slots --------------------------------------------------------------------------------------- */

static struct om_client_slot *
slot_find(struct omerta *o, uint64_t ticket)
{
	struct om_client_slot *slot = &o->slots[ticket & SLOT_MASK];

	return slot->state != SLOT_FREE && slot->ticket == ticket ? slot : NULL;
}

static struct om_client_slot *
slot_take(struct omerta *o, enum om_msg_type type, int64_t deadline_ms)
{
	struct om_client_slot *slot;
	uint16_t i;

	if (o->free_count == 0) {
		return NULL;
	}
	i = o->free_slots[--o->free_count];
	slot = &o->slots[i];
	slot->ticket = ++o->sequence << SLOT_BITS | i;
	slot->state = SLOT_WAITING;
	slot->type = type;
	slot->deadline_ms = deadline_ms;
	slot->lost = NULL;
	if (o->waiting++ == 0 || deadline_ms < o->next_deadline_ms) {
		o->next_deadline_ms = deadline_ms;
	}
	return slot;
}

/* The request has ended: `lost` is why there is no answer, NULL when slot->frame is one. */
static void
slot_end(struct omerta *o, struct om_client_slot *slot, const char *lost)
{
	uint16_t i = (uint16_t)(slot - o->slots);

	OM_ASSERT(slot->state == SLOT_WAITING);
	slot->state = SLOT_DONE;
	slot->lost = lost;
	slot->prev = o->done_last;
	slot->next = OM_CLIENT_NO_SLOT;
	if (o->done_last != OM_CLIENT_NO_SLOT) {
		o->slots[o->done_last].next = i;
	} else {
		o->done_first = i;
	}
	o->done_last = i;
	o->waiting--;
	o->done++;
}

void
om_client_slot_release(struct omerta *o, struct om_client_slot *slot)
{
	uint16_t i = (uint16_t)(slot - o->slots);

	if (slot->state == SLOT_WAITING) {
		o->waiting--;
	} else {
		if (slot->prev != OM_CLIENT_NO_SLOT) {
			o->slots[slot->prev].next = slot->next;
		} else {
			o->done_first = slot->next;
		}
		if (slot->next != OM_CLIENT_NO_SLOT) {
			o->slots[slot->next].prev = slot->prev;
		} else {
			o->done_last = slot->prev;
		}
		if (slot->lost == NULL) {
			(void)zmq_msg_close(&slot->frame);
		}
		o->done--;
	}
	slot->state = SLOT_FREE;
	o->free_slots[o->free_count++] = i;
}

/* The connection is gone, and the answers with it. */
void
om_client_slots_lose(struct omerta *o)
{
	for (size_t i = 0; o->waiting > 0; i++) {
		if (o->slots[i].state == SLOT_WAITING) {
			slot_end(o, &o->slots[i], "disconnected");
		}
	}
}

/* Ends what is over its deadline; returns the earliest deadline that is left. */
static int64_t
slots_expire(struct omerta *o, int64_t now_ms)
{
	int64_t earliest = INT64_MAX;
	size_t left = o->waiting;

	for (size_t i = 0; left > 0; i++) {
		struct om_client_slot *slot = &o->slots[i];

		if (slot->state != SLOT_WAITING) {
			continue;
		}
		left--;
		if (slot->deadline_ms <= now_ms) {
			slot_end(o, slot, "timeout");
		} else if (slot->deadline_ms < earliest) {
			earliest = slot->deadline_ms;
		}
	}
	return earliest;
}

size_t
omerta_in_flight(const struct omerta *o)
{
	return o->waiting + o->done;
}

/* --- requests ------------------------------------------------------------------------------------ */

static void
call_free_frame(void *data, void *hint)
{
	/* A submit holds the key of a tunnel. */
	om_secret_wipe(data, (size_t)(uintptr_t)hint);
	free(data);
}

/* Takes one frame from the daemon to the slot that waits for it. */
static void
call_on_frame(struct omerta *o, zmq_msg_t *frame)
{
	struct om_bin data = { zmq_msg_data(frame), zmq_msg_size(frame) };
	struct om_envelope envelope;
	struct om_client_slot *slot;

	/* An id alone will do: a version that we do not speak still ends the request. */
	envelope.id = 0;
	if (om_envelope_decode(data, &envelope, NULL) != OM_OK && envelope.id == 0) {
		o->strays++;
		return;
	}
	slot = slot_find(o, envelope.id);
	if (slot == NULL || slot->state != SLOT_WAITING) {
		o->strays++;
		return;
	}
	(void)zmq_msg_init(&slot->frame);
	(void)zmq_msg_move(&slot->frame, frame);
	slot_end(o, slot, NULL);
}

/*
 * Takes what is there; waits for something when nothing is, until `until_ms` or the next deadline.
 * Deadlines are looked at after the answers: one that has come in time counts, even if we are late.
 */
static void
call_pump(struct omerta *o, int64_t until_ms)
{
	zmq_pollitem_t items[2] = { { o->socket, 0, ZMQ_POLLIN, 0 },
				    { o->monitor, 0, ZMQ_POLLIN, 0 } };
	int64_t now = om_client_now_ms();
	zmq_msg_t frame;

	OM_ASSERT(o->socket != NULL); /* requests wait only while there is a connection */
	until_ms = o->next_deadline_ms < until_ms ? o->next_deadline_ms : until_ms;
	if (zmq_poll(items, 2, until_ms > now ? (long)(until_ms - now) : 0) < 0) {
		return; /* EINTR: the caller looks at its deadline */
	}
	for (int i = 0; i < DRAIN_BATCH; i++) {
		(void)zmq_msg_init(&frame);
		if (zmq_msg_recv(&frame, o->socket, ZMQ_DONTWAIT) < 0) {
			(void)zmq_msg_close(&frame);
			break;
		}
		call_on_frame(o, &frame);
		(void)zmq_msg_close(&frame);
	}
	/* Answers first: those that came before the end of the connection still count. */
	if ((items[1].revents & ZMQ_POLLIN) != 0 && om_client_on_monitor(o) < 0) {
		om_client_close(o);
	}
	o->next_deadline_ms = slots_expire(o, om_client_now_ms());
}

static int
call_send(struct omerta *o, struct om_buf *buf, int64_t until_ms)
{
	zmq_msg_t msg;
	int rc;

	if (zmq_msg_init_data(&msg, buf->data, buf->len, call_free_frame,
			      (void *)(uintptr_t)buf->len) != 0) {
		return om_client_fail(o, "no_memory", "out of memory");
	}
	*buf = (struct om_buf){ 0 }; /* the message owns the memory now */
	while ((rc = zmq_msg_send(&msg, o->socket, ZMQ_DONTWAIT)) < 0) {
		zmq_pollitem_t items[2] = { { o->socket, 0, ZMQ_POLLOUT, 0 },
					    { o->monitor, 0, ZMQ_POLLIN, 0 } };
		int64_t left = until_ms - om_client_now_ms();

		if (errno != EAGAIN && errno != EINTR) {
			(void)om_client_fail(o, "disconnected", "ZeroMQ: %s", zmq_strerror(errno));
			break;
		}
		if (left <= 0) {
			(void)om_client_fail(o, "timeout", "the daemon takes no more requests");
			break;
		}
		(void)zmq_poll(items, 2, (long)left);
		if ((items[1].revents & ZMQ_POLLIN) != 0 && om_client_on_monitor(o) < 0) {
			om_client_close(o);
			break;
		}
	}
	(void)zmq_msg_close(&msg);
	return rc < 0 ? -1 : 0;
}

static bool
call_needs_fields(const struct om_msg_info *info)
{
	const struct om_body_info *body = om_body_info(info->body);

	for (size_t i = 0; i < body->field_count; i++) {
		if (body->fields[i].required) {
			return true;
		}
	}
	return false;
}

static int
call_check_body(struct omerta *o, const char *name, const struct om_msg_info *info,
		const struct omerta_body *body)
{
	char missing[OM_WHY_MAX];
	const char *error = omerta_body_error(body);

	if (error != NULL) {
		return om_client_fail(o, "usage", "%s", error);
	}
	if (body == NULL) {
		return call_needs_fields(info) ? om_client_fail(o, "usage", "%s needs a body", name)
					       : 0;
	}
	if (body->type != info->body) {
		return om_client_fail(o, "usage", "the body is of %s, %s takes %s",
				      om_body_info(body->type)->name, name,
				      om_body_info(info->body)->name);
	}
	if (om_client_body_missing(body, missing, sizeof(missing)) != NULL) {
		return om_client_fail(o, "usage", "%s needs the field \"%s\"", name, missing);
	}
	return 0;
}

/*
 * How long the answer may take when nobody said.  A running job's cancel is answered when the job has
 * ended, so its grace comes on top.
 */
static int64_t
call_life(const struct omerta *o, enum om_msg_type type, const struct omerta_body *body)
{
	int64_t life = o->timeout_ms;

	if (type == OM_MSG_JOB_CANCEL) {
		life += body != NULL && omerta_has(body, "grace_ms")
			    ? (int64_t)omerta_get_u64(body, "grace_ms")
			    : OM_CLIENT_CANCEL_MS;
	}
	return life;
}

int
omerta_start(struct omerta *o, const char *name, const struct omerta_body *body, int64_t timeout_ms,
	     uint64_t *ticket)
{
	enum om_msg_type type = om_msg_type_find(om_str_of(name));
	int64_t life = timeout_ms > 0 ? timeout_ms : call_life(o, type, body);
	struct om_buf buf = { 0 };
	struct omerta_body *empty = NULL;
	struct om_client_slot *slot;
	enum om_err err;
	int rc = -1;

	*ticket = 0;
	om_client_clear(o);
	if (type == OM_MSG_NONE || om_msg_info(type)->answer == OM_MSG_NONE) {
		return om_client_fail(o, "usage", "there is no request \"%s\"", name);
	}
	if (call_check_body(o, name, om_msg_info(type), body) != 0 || omerta_connect(o) != 0) {
		return -1;
	}
	if (body == NULL && (body = empty = om_client_body_new(om_msg_info(type)->body)) == NULL) {
		return om_client_fail(o, "no_memory", "out of memory");
	}
	slot = slot_take(o, type, om_client_now_ms() + life + OM_CLIENT_GRACE_MS);
	if (slot == NULL) {
		(void)om_client_fail(o, "limit", "%d requests are in flight", OMERTA_IN_FLIGHT_MAX);
		goto out;
	}
	err = om_envelope_encode(type, slot->ticket, (uint64_t)life, body->m, &buf);
	if (err == OM_OK && buf.len > OM_FRAME_MAX) {
		err = OM_ERR_TOO_BIG;
	}
	if (err != OM_OK) {
		(void)om_client_fail_err(o, err, "%s: %s", name, om_err_text(err));
		om_client_slot_release(o, slot);
		goto out;
	}
	*ticket = slot->ticket;
	if (call_send(o, &buf, slot->deadline_ms) != 0) {
		om_client_slot_release(o, slot);
		*ticket = 0;
		goto out;
	}
	rc = 0;
out:
	if (buf.data != NULL) {
		om_secret_wipe(buf.data, buf.cap);
	}
	om_buf_fini(&buf);
	omerta_body_free(empty);
	return rc;
}

/* What the DONE slot holds becomes the call's result; the slot is freed. */
static int
call_collect(struct omerta *o, struct om_client_slot *slot, struct omerta_body **answer)
{
	const struct om_msg_info *info = om_msg_info(slot->type);
	struct om_envelope envelope = { .id = 0 };
	struct omerta_body *body = NULL;
	struct om_why why = { "" };
	enum om_err err;
	int rc = 0;

	om_client_clear(o);
	if (slot->lost != NULL) {
		rc = strcmp(slot->lost, "timeout") == 0
			 ? om_client_fail(o, "timeout", "the daemon did not answer %s in time",
					  info->name)
			 : om_client_fail(o, "disconnected",
					  "the connection ended before the answer");
		om_client_slot_release(o, slot);
		return rc;
	}
	err = om_envelope_decode(
	    (struct om_bin){ zmq_msg_data(&slot->frame), zmq_msg_size(&slot->frame) }, &envelope,
	    &why);
	if (err == OM_OK && envelope.type != info->answer && envelope.type != OM_MSG_ERROR) {
		err = om_why_set(&why, OM_ERR_INVALID, "%s is no answer to %s",
				 om_msg_info(envelope.type)->name, info->name);
	}
	if (err == OM_OK) {
		err = om_client_body_decode(om_msg_info(envelope.type)->body, envelope.body, &body,
					    &why);
	}
	if (err != OM_OK) {
		rc = om_client_fail(o, err == OM_ERR_NOMEM ? "no_memory" : "protocol",
				    "the answer to %s: %s", info->name,
				    why.text[0] != '\0' ? why.text : om_err_text(err));
	} else if (envelope.type == OM_MSG_ERROR) {
		const char *text = omerta_get_str(body, "text");

		rc = om_client_fail(o, omerta_get_str(body, "code"), "%s",
				    text != NULL ? text : omerta_get_str(body, "code"));
		o->error = body;
		body = NULL;
	}
	o->answered = err == OM_OK;
	if (rc == 0 && answer != NULL) {
		*answer = body;
		body = NULL;
	}
	omerta_body_free(body);
	om_client_slot_release(o, slot);
	return rc;
}

int
omerta_finish(struct omerta *o, uint64_t ticket, struct omerta_body **answer)
{
	struct om_client_slot *slot = slot_find(o, ticket);

	om_client_clear(o);
	if (slot == NULL) {
		return om_client_fail(o, "usage", "this ticket is not in flight");
	}
	while (slot->state == SLOT_WAITING) {
		call_pump(o, INT64_MAX);
	}
	return call_collect(o, slot, answer);
}

int
omerta_next(struct omerta *o, int64_t wait_ms, uint64_t *ticket, struct omerta_body **answer)
{
	int64_t now = om_client_now_ms();
	int64_t until = wait_ms < 0 ? INT64_MAX : now + wait_ms;

	om_client_clear(o);
	*ticket = 0;
	if (o->waiting > 0) {
		call_pump(o, now); /* what is there already, in the order in which it came */
	}
	while (o->done == 0 && o->waiting > 0 && om_client_now_ms() < until) {
		call_pump(o, until);
	}
	if (o->done == 0) {
		return om_client_fail(o, o->waiting > 0 ? "timeout" : "idle",
				      o->waiting > 0 ? "no answer yet" : "nothing is in flight");
	}
	*ticket = o->slots[o->done_first].ticket;
	return call_collect(o, &o->slots[o->done_first], answer);
}

void
omerta_forget(struct omerta *o, uint64_t ticket)
{
	struct om_client_slot *slot = slot_find(o, ticket);

	if (slot != NULL) {
		om_client_slot_release(o, slot);
	}
}

int
omerta_call(struct omerta *o, const char *type, const struct omerta_body *body,
	    struct omerta_body **answer)
{
	uint64_t ticket;

	if (omerta_start(o, type, body, 0, &ticket) != 0) {
		return -1;
	}
	return omerta_finish(o, ticket, answer);
}
