/* SPDX-License-Identifier: ISC */
#ifndef OM_CLIENT_IMPL_H
#define OM_CLIENT_IMPL_H

/* Shared by the files of the library and, in this tree, by the CLI.  Not installed. */
#include <sys/types.h>
#include <zmq.h>
#include "client/omerta.h"
#include "base/buf.h"
#include "msg/envelope.h"
#include "msg/schema.h"

#define OM_CLIENT_CODE_MAX       33
#define OM_CLIENT_TEXT_MAX       513
#define OM_CLIENT_TIMEOUT_MS     10000 /* default time for an answer */
#define OM_CLIENT_TIMEOUT_MAX    3600000 /* longest time for one answer */
#define OM_CLIENT_GRACE_MS       500 /* the daemon's own time-out answer comes within this */
#define OM_CLIENT_CANCEL_MS      5000 /* the grace of a cancel that names none */
#define OM_CLIENT_SLICE_MS       10000 /* one long poll of wait and follow */
#define OM_CLIENT_SILENT_MAX     3 /* long polls without any answer before we give up */
#define OM_CLIENT_REDIAL_MS      30000 /* wait and follow look for a lost daemon this long */
#define OM_CLIENT_REDIAL_STEP_MS 250
#define OM_CLIENT_FILE_MAX       (32 * 1024 * 1024) /* one input file */
#define OM_CLIENT_CHUNK          262144 /* bytes asked for in one piece of output */
#define OM_CLIENT_KEY_LEN        40 /* Z85 */
#define OM_CLIENT_ENDPOINT_MAX   256

/* --- lib_body.c ---------------------------------------------------------------------------------- */

#define OMERTA_BODY_MAGIC 0x6f6d626fu

struct om_client_kids {
	struct omerta_body **v;
	size_t n;
};

/*
 * A body is the schema's struct plus a wrapper, so that fields can be named by strings; nested bodies
 * have wrappers of their own.  All memory is the root's arena.
 */
struct omerta_body {
	uint32_t magic;
	enum om_body_type type;
	void *m; /* struct om_<body> */
	struct omerta_body_root *root;
	struct om_client_kids *kids; /* one for each field; NULL when no field is a body */
};

struct omerta_body_root {
	struct omerta_body body; /* first: a root body is its root */
	struct om_arena arena;
	struct om_buf stripped; /* an answer without its unknown fields */
	uint8_t *frame; /* what the views point into */
	char error[OM_WHY_MAX]; /* "" for none */
};

/* The bits of the fields that are there; the place of a field; the field of that name or NULL (as in a NULL body). */
uint64_t *om_client_body_has(const struct omerta_body *b);
void *om_client_body_at(const struct omerta_body *b, const struct om_field_info *f);
const struct om_field_info *om_client_body_find(const struct omerta_body *b, const char *field,
						size_t *index);
/* One more wrapper under field i, around m (NULL: a new struct).  NULL: out of memory. */
struct omerta_body *om_client_body_add_kid(struct omerta_body *b, size_t i, enum om_body_type type,
					   void *m);

/* NULL: out of memory.  An empty body, all fields absent. */
struct omerta_body *om_client_body_new(enum om_body_type type);

/* NULL or the first required field that is not set, as "files.name". */
const char *om_client_body_missing(const struct omerta_body *body, char *out, size_t out_size);

/* Decodes an answer; fields that this version does not know are left out.  Gives *out. */
enum om_err om_client_body_decode(enum om_body_type type, struct om_bin data,
				  struct omerta_body **out, struct om_why *why) OM_MUST_CHECK;

#define OM_CLIENT_NO_SLOT UINT16_MAX

/* --- lib_handle.c -------------------------------------------------------------------------------- */

struct om_client_keys {
	char server[OM_CLIENT_KEY_LEN + 1];
	char own_public[OM_CLIENT_KEY_LEN + 1];
	char own_secret[OM_CLIENT_KEY_LEN + 1];
	bool set;
};

enum om_client_slot_state { SLOT_FREE, SLOT_WAITING, SLOT_DONE };

struct om_client_slot {
	uint64_t ticket;
	enum om_client_slot_state state;
	enum om_msg_type type;
	int64_t deadline_ms; /* monotonic; when we stop waiting */
	const char *lost; /* DONE without an answer: "timeout" or "disconnected" */
	zmq_msg_t frame; /* DONE with an answer */
	uint16_t prev, next; /* in the list of DONE slots */
};

struct omerta {
	uint32_t magic;
	pid_t pid;
	char endpoint[OM_CLIENT_ENDPOINT_MAX];
	struct om_client_keys keys;
	int64_t timeout_ms;
	struct om_why bad_setup; /* the environment held something unusable */

	void *zmq, *socket, *monitor;
	bool connected;

	uint64_t sequence;
	size_t waiting, done;
	int64_t next_deadline_ms; /* of the WAITING slots; may be too early, never too late */
	uint16_t done_first, done_last;
	uint16_t free_slots[OMERTA_IN_FLIGHT_MAX];
	size_t free_count;
	struct om_client_slot slots[OMERTA_IN_FLIGHT_MAX];
	uint64_t strays; /* frames that were no answer to anything */

	bool answered;
	char code[OM_CLIENT_CODE_MAX];
	char text[OM_CLIENT_TEXT_MAX];
	struct omerta_body *error; /* the error answer, for its details */
};

/* Sets the handle's error and returns -1. */
int om_client_fail(struct omerta *o, const char *code, const char *fmt, ...) OM_PRINTF(3, 4);
int om_client_fail_err(struct omerta *o, enum om_err err, const char *fmt, ...) OM_PRINTF(3, 4);
void om_client_clear(struct omerta *o);

/* --- lib_conn.c ---------------------------------------------------------------------------------- */

int64_t om_client_now_ms(void);
/* Ends the connection; what waits ends with "disconnected". */
void om_client_close(struct omerta *o);
/*
 * Takes one event of the monitor.  1: nothing to do, 0: connected, -1: refused or lost (the reason is
 * set, the connection not yet closed).
 */
int om_client_on_monitor(struct omerta *o);

/* --- lib_call.c ---------------------------------------------------------------------------------- */

void om_client_slots_lose(struct omerta *o);
void om_client_slot_release(struct omerta *o, struct om_client_slot *slot);

/* --- lib_verbs.c --------------------------------------------------------------------------------- */

/*
 * Asks until there is an answer: after a "timeout" and a lost connection the same request again, so
 * only for requests that may be repeated.  Ends with -1 after timeout_ms (OMERTA_FOREVER: no limit),
 * on any other error, and when the daemon stays silent or away.
 */
int om_client_ask_long(struct omerta *o, const char *type, const struct omerta_body *body,
		       int64_t timeout_ms, struct omerta_body **answer);

/* --- lib_keys.c ---------------------------------------------------------------------------------- */

/* Applies CURVE to a socket. */
int om_client_keys_apply(const struct om_client_keys *keys, void *socket);

/* Reads "public = Z85" and "secret = Z85" lines; the file must not be readable by others. */
enum om_err om_client_keys_read(const char *path, struct om_client_keys *keys,
				struct om_why *why) OM_MUST_CHECK;
/* Makes a pair and writes such a file with mode 0600; it must not exist yet. */
enum om_err om_client_keys_make(const char *path, struct om_client_keys *keys,
				struct om_why *why) OM_MUST_CHECK;

#endif /* OM_CLIENT_IMPL_H */
