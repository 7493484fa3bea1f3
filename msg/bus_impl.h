/* SPDX-License-Identifier: ISC */
#ifndef OM_MSG_BUS_IMPL_H
#define OM_MSG_BUS_IMPL_H

/* Shared by bus.c (services, links, frames), bus_table.c, bus_service.c and bus_call.c. */
#include <pthread.h>
#include <stdalign.h>
#include <zmq.h>

#include "base/assert.h"
#include "base/counter.h"
#include "msg/bus.h"
#include "runtime/mailbox.h"

/* --- records with a number -------------------------------------------------------------------- */

/* First member of each record.  id 0: free. */
struct bus_row {
	uint64_t id;
	uint32_t next_free;
};
struct bus_table {
	char *rows;
	size_t row_size;
	uint32_t cap;
	uint32_t count;
	uint32_t free; /* index + 1; 0: none */
};
#define BUS_ROW_BITS 20 /* low bits of an id: the index */
_Static_assert(OM_BUS_ASKS_MAX == 1u << BUS_ROW_BITS, "a row's index is part of its id");

/* Owner thread.  A zeroed record with a fresh id made from seq (> 0); moves the others.  NULL: no
 * memory, or OM_BUS_ASKS_MAX reached. */
void *bus_table_add(struct bus_table *t, uint64_t seq);
/* Owner thread.  NULL: there is none (any more). */
void *bus_table_find(const struct bus_table *t, uint64_t id);
/* Owner thread.  Record number i < cap; NULL if it is free. */
void *bus_table_at(const struct bus_table *t, uint32_t i);
void bus_table_remove(struct bus_table *t, void *row);
void bus_table_fini(struct bus_table *t);

/* --- frames ----------------------------------------------------------------------------------- */

enum bus_kind {
	BUS_SEND,
	BUS_ASK,
	BUS_ASK_OUTSIDE, /* for somebody outside: the receiver checks the permission again */
	BUS_ANSWER,
	BUS_KIND_COUNT
};

/* Before the body: this, the caller's peer, its network.  Native byte order: one machine. */
struct bus_head {
	uint32_t magic;
	uint32_t len; /* of the body */
	uint64_t id; /* the asker's number of this ask; 0: a plain send */
	uint64_t deadline_ms;
	uint16_t type;
	uint8_t kind;
	uint8_t role;
	uint8_t peer_len;
	uint8_t network_len;
};
#define BUS_MAGIC        UINT32_C(0x6f6d6231)
#define SERVICE_MAGIC    UINT32_C(0x6f6d7376)
#define IN_MAGIC         UINT32_C(0x6f6d696e)
#define BUS_HANDOVER_MIN 65536 /* bytes from which frames give their buffer away, not a copy */
#define BUS_KEEP_MAX \
	(4u * 1024 * 1024) /* of those: up to which the next has as much room at once */
#define BUS_PACK_MAX 16384 /* bytes from which frames wait for no others */
#define BUS_NO_LIFE  UINT64_MAX /* in bus_asked.actor: it was never asked */

/* A message whose frames are not all taken. */
struct bus_inbox {
	bool open;
	zmq_msg_t msg;
	struct om_bin bytes; /* of msg: what is not taken */
};

/* --- services --------------------------------------------------------------------------------- */

enum bus_count {
	BUS_HANDLED,
	BUS_SENT,
	BUS_LOST,
	BUS_ASKS,
	BUS_ASKS_FAILED,
	BUS_LATE,
	BUS_REFUSED,
	BUS_BAD,
	BUS_UNANSWERED,
	BUS_COUNT_COUNT
};

/*
 * A service, whether it runs at the moment or not.  Sockets and what waits in them belong to it and
 * not to the actor, so a restart loses nothing.
 */
struct bus_slot {
	/* Constant once published. */
	struct om_bus *bus;
	const struct om_service_def *def;
	struct om_actor_def actor_def;
	uint32_t index;
	uint32_t backlog;
	uint8_t handler[OM_MSG_COUNT]; /* number in def->on, then on_raw, plus 1; 0: none */
	struct om_bell *bell[OM_SERVICE_MAX]; /* one for each possible sender */
	struct om_bell *tail; /* rung by the service itself: behind all that rings now */

	/* The running actor. */
	void *push[OM_SERVICE_MAX]; /* to each peer; NULL: not written to yet */
	uint64_t next_seq; /* of asks and of requests put off; never repeats */
	struct bus_inbox inbox[OM_SERVICE_MAX]; /* from each peer */

	/* By the sender, before it rings for the first time; read by the actor after that ring. */
	void *pull[OM_SERVICE_MAX];

	struct bus_slot *known[OM_SERVICE_MAX]; /* peers it has looked up */
	uint32_t known_count;

	/* The actor writes, anybody reads. */
	struct om_counter
	    ready[OM_SERVICE_MAX]; /* frames that were rung and not taken, by sender */
	struct om_counter actor; /* om_actor_id of the present life; 0: none yet */
	struct om_counter counts[BUS_COUNT_COUNT];
};

struct om_bus {
	struct om_system *sys;
	void *zmq;
	pthread_mutex_t lock; /* what follows */
	struct bus_slot *slots[OM_SERVICE_MAX];
	uint32_t slot_count;
};

static inline void
bus_count(struct bus_slot *slot, enum bus_count which)
{
	om_counter_add(&slot->counts[which], 1);
}

/* Those of def->on, then those of def->on_raw. */
static inline const struct om_service_handler *
bus_handler(const struct om_service_def *def, size_t i)
{
	return i < def->on_count ? &def->on[i] : &def->on_raw[i - def->on_count];
}

/* Any thread.  NULL: no such service. */
struct bus_slot *bus_find(struct om_bus *bus, const char *name);
/* Owner thread of `from`.  The same, remembered by `from`. */
struct bus_slot *bus_peer_find(struct bus_slot *from, const char *name);

/*
 * Owner thread of `from`.  Makes sure that the link is there.  LIMIT: no more sockets or files.
 */
enum om_err bus_link(struct bus_slot *from, struct bus_slot *to) OM_MUST_CHECK;

/* A frame taken apart; all is borrowed from the bytes. */
struct bus_frame {
	struct bus_head head;
	struct om_caller caller;
	struct om_bin body;
	size_t size; /* of all of it */
};
/* Any thread.  The first of the bytes; false: no frame of ours. */
bool bus_frame_parse(struct om_bin bytes, struct bus_frame *out);

/* --- a running service (bus_service.c: what it takes; bus_call.c: what it sends) ----------------- */

struct bus_asked {
	struct bus_row row;
	int64_t until_ns; /* monotonic */
	uint64_t actor; /* the life that was asked */
	uint64_t cookie;
	om_bus_answer_fn fn;
	uint32_t to;
	bool raw; /* the answer is not decoded */
};

struct bus_put_off {
	struct bus_row row;
	uint64_t ask; /* the asker's number */
	uint32_t from;
	enum om_msg_type type;
};

struct om_service {
	uint32_t magic;
	struct om_ctx *cx;
	struct bus_slot *slot;
	struct om_buf out; /* frames for pack_to that leave together */
	struct bus_slot *pack_to;
	uint32_t packed; /* frames in `out` */
	size_t body_at; /* in `out`, of the frame that is being put */
	bool packing; /* a turn is on: frames may wait for its end */
	struct om_arena arena; /* of the frame being handled */
	struct bus_table asks;
	struct bus_table later;
	uint64_t ask_timer; /* 0: none */
	int64_t ask_timer_at_ns; /* of ask_timer */
	struct {
		struct om_actor_id actor; /* monitored life of that peer */
		uint64_t ref;
	} peer[OM_SERVICE_MAX];
	uint32_t turn; /* link that the next tail begins with */
	bool tail_rung;
	bool batch; /* frames, or ends of asks, were handled since on_batch_end */
	bool stale_asks; /* some ask a life that another has followed */
	bool leaving;
	alignas(16) unsigned char state[];
};

/* What om_in.priv points to. */
struct bus_in {
	uint32_t magic;
	uint32_t from;
	uint64_t ask;
	enum om_msg_type type;
	bool due; /* an answer must still be given */
	struct om_in in;
};

/* A peer from which a ring has come: the slot was published before that. */
static inline struct bus_slot *
bus_peer(const struct om_service *sv, uint32_t index)
{
	return sv->slot->bus->slots[index];
}

static inline void
bus_ring_tail(struct om_service *sv)
{
	if (!sv->tail_rung && om_bell_reserve_force(sv->slot->tail) == OM_OK) {
		sv->tail_rung = true;
		om_bell_ring(sv->slot->tail);
	}
}

/* Owner thread, all. */

/*
 * Starts a frame for a peer in sv->out, behind those that wait for the same peer; those for another
 * leave first.  `as` NULL: the service itself.  Gives where it begins.
 */
size_t bus_frame_begin(struct om_service *sv, struct bus_slot *to, const struct bus_head *head,
		       const struct om_caller *as);
/*
 * The body is in place, or could not be made (err).  A reservation on the bell is used up in any case.
 * OM_OK: it leaves now, or at the end of the turn; an ask for which that fails then ends as GONE.
 */
enum om_err bus_frame_end(struct om_service *sv, size_t from, enum om_err err) OM_MUST_CHECK;
/* What waits in sv->out leaves. */
void bus_flush(struct om_service *sv);

/*
 * err != OM_OK: an error answer with this text (NULL: that of err).  When the asker has ended there
 * is nobody to tell.
 */
void bus_answer(struct om_service *sv, uint32_t from, uint64_t ask, enum om_msg_type type,
		const void *body, enum om_err err, const char *text);
/* The asks whose time is over end; the timer waits for the next. */
void bus_asks_expire(struct om_service *sv);
/* Removes the record, runs its continuation; sets answer->cookie. */
void bus_complete(struct om_service *sv, struct bus_asked *ask, struct om_bus_answer *answer);
void bus_complete_err(struct om_service *sv, struct bus_asked *ask, enum om_err err);
/* Ends the asks of a life that is over; of all lives that another has followed. */
void bus_asks_gone(struct om_service *sv, uint32_t to, uint64_t actor);
void bus_stale_asks_gone(struct om_service *sv);

/* The actor definition behind a service (bus_service.c). */
void bus_service_actor_def(const struct om_service_def *def, struct om_actor_def *out);

#endif /* OM_MSG_BUS_IMPL_H */
