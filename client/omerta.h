/* SPDX-License-Identifier: ISC */
#ifndef OMERTA_H
#define OMERTA_H

/*
 * libomerta-client: talk to an omertad from C.
 *
 *	struct omerta *o = omerta_new();
 *	struct omerta_body *job = omerta_body_new("job.submit"), *info = NULL;
 *	char id[OMERTA_ID_SIZE];
 *
 *	omerta_set_str(job, "lang", "python");
 *	omerta_set_str(job, "script", "print('hi')");
 *	omerta_set_str(job, "network", "none");
 *	if (omerta_submit(o, job, id) != 0 || omerta_wait(o, id, OMERTA_FOREVER, &info) != 0) {
 *		fprintf(stderr, "%s: %s\n", omerta_error_code(o), omerta_error_text(o));
 *	}
 *
 * Threads: a handle (struct omerta, struct omerta_events) and a body belong to one thread at a time;
 * the library has no global state, so threads with a handle each need no lock.  A handle made before
 * fork(2) must not be used in the child.
 *
 * Errors: a function that returns int gives 0, or -1 with the reason in the handle
 * (omerta_error_code, omerta_error_text) until the next call on that handle.  Codes are the wire's
 * (docs/protocol.md) and these of the library: "unreachable" (no daemon there), "disconnected" (the
 * connection ended before the answer), "timeout", "unauthorized" (the daemon does not know our key),
 * "usage" (a field or an argument that does not exist), "protocol" (the answer makes no sense).
 *
 * Time: no call blocks for ever.  Every wait has a limit in milliseconds; OMERTA_FOREVER means as
 * long as the daemon goes on answering (it is asked again every few seconds).
 *
 * Connection: made at the first call and, when it is lost, made again by the next one.  Requests that
 * were in flight then end with "disconnected"; omerta_wait and the output functions ask again by
 * themselves.  A submit that carries a "job" id of the caller may be repeated without harm.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OMERTA_VERSION          0x000100 /* 0.1.0 */
#define OMERTA_DEFAULT_ENDPOINT "ipc:///run/omerta/control.sock"
#define OMERTA_ID_SIZE          65 /* bytes of a job id with its NUL */
#define OMERTA_IN_FLIGHT_MAX    1024 /* requests of one handle without an answer */
#define OMERTA_FOREVER          (-1)

struct omerta; /* one connection */
struct omerta_body; /* the fields of one request or answer */
struct omerta_events; /* a subscription */

/* Any thread.  Of the library that runs, as OMERTA_VERSION. */
unsigned omerta_version(void);

/* --- a handle ------------------------------------------------------------------------------------ */

/*
 * Gives a handle with the defaults: the endpoint of $OMERTA_ENDPOINT or OMERTA_DEFAULT_ENDPOINT, the
 * keys of $OMERTA_KEY_FILE and $OMERTA_SERVER_KEY where they are set, 10 s for an answer.  Does not
 * connect.  NULL: out of memory.  omerta_free accepts NULL.
 */
struct omerta *omerta_new(void);
void omerta_free(struct omerta *o);

/* Before the first call.  "ipc://PATH", "tcp://HOST:PORT"; a plain absolute path means ipc. */
int omerta_set_endpoint(struct omerta *o, const char *endpoint);

/*
 * Before the first call.  CURVE keys in Z85 (40 characters each), needed for tcp: the daemon's public
 * key and our pair.  They are copied, and wiped by omerta_free.
 */
int omerta_set_keys(struct omerta *o, const char *server_public, const char *own_public,
		    const char *own_secret);

/*
 * The same with our pair from a file of "public = KEY" and "secret = KEY" lines, as `omerta keygen`
 * makes it; the file must be readable by its owner only.
 */
int omerta_set_key_file(struct omerta *o, const char *path, const char *server_public);

/* The time for an answer and for the connection, 1 ms to 1 h; default 10 s. */
int omerta_set_timeout(struct omerta *o, int64_t timeout_ms);

/* Connects if it is not connected.  "unreachable", "denied" (the socket's mode), "unauthorized". */
int omerta_connect(struct omerta *o);

/* The last error of this handle, "" when the last call worked.  Borrows until the next call. */
const char *omerta_error_code(const struct omerta *o);
const char *omerta_error_text(const struct omerta *o);
bool omerta_error_is(const struct omerta *o, const char *code);
/* The `details` of an error answer: NULL when there is none of that name. */
const char *omerta_error_detail(const struct omerta *o, const char *name);
/* Detail by number for those who show them all; false past the last. */
bool omerta_error_detail_at(const struct omerta *o, size_t i, const char **name,
			    const char **value);

/* --- bodies -------------------------------------------------------------------------------------- */

/*
 * A body knows its message's fields (docs/protocol.md lists them).  Setting an unknown field, or one
 * of another kind, is remembered: the call that sends the body fails with "usage" and names the
 * field, so setters need no check one by one.  omerta_body_error tells it before (NULL: none).
 * NULL from new: no such message, or out of memory.  free accepts NULL, wipes keys, and ends the
 * nested bodies too.
 */
struct omerta_body *omerta_body_new(const char *type);
void omerta_body_free(struct omerta_body *body);
const char *omerta_body_error(const struct omerta_body *body);

/* All copy what they are given.  A NULL body is ignored, so one check at the end is enough. */
void omerta_set_str(struct omerta_body *body, const char *field, const char *value);
void omerta_set_bin(struct omerta_body *body, const char *field, const void *data, size_t len);
void omerta_set_u64(struct omerta_body *body, const char *field, uint64_t value);
void omerta_set_bool(struct omerta_body *body, const char *field, bool value);
/* Appends to a list of strings; sets one pair of a map. */
void omerta_add_str(struct omerta_body *body, const char *field, const char *value);
void omerta_add_pair(struct omerta_body *body, const char *field, const char *key,
		     const char *value);
/*
 * A nested body ("vpn") or one more element of a list of bodies ("files"), to be filled.  Belongs to
 * its parent.  NULL after an error, which the setters then ignore.
 */
struct omerta_body *omerta_add_body(struct omerta_body *body, const char *field);

/*
 * Reading.  All borrow until the body is freed and all return the "nothing" value for a field that is
 * absent, of another kind or not of this body: NULL, 0, false.
 */
bool omerta_has(const struct omerta_body *body, const char *field);
const char *omerta_get_str(const struct omerta_body *body, const char *field);
const void *omerta_get_bin(const struct omerta_body *body, const char *field, size_t *len);
uint64_t omerta_get_u64(const struct omerta_body *body, const char *field);
int64_t omerta_get_i64(const struct omerta_body *body, const char *field); /* also of a U64 field */
double omerta_get_f64(const struct omerta_body *body, const char *field);
bool omerta_get_bool(const struct omerta_body *body, const char *field);
/* Elements of a list of strings, a map, or a list of bodies; 0 or 1 for a nested body. */
size_t omerta_count(const struct omerta_body *body, const char *field);
const char *omerta_str_at(const struct omerta_body *body, const char *field, size_t i);
bool omerta_pair_at(const struct omerta_body *body, const char *field, size_t i, const char **key,
		    const char **value);
const struct omerta_body *omerta_body_at(const struct omerta_body *body, const char *field,
					 size_t i);

/* --- any message --------------------------------------------------------------------------------- */

/*
 * Sends `type` with `body` (NULL: no fields) and waits for the answer.  With answer not NULL gives a
 * body that the caller frees.  This is all of the protocol; what follows are conveniences.
 */
int omerta_call(struct omerta *o, const char *type, const struct omerta_body *body,
		struct omerta_body **answer);

/*
 * Several at a time: start sends and gives a ticket, finish waits for that answer, next for whichever
 * comes first (of those that finish is not called for).  timeout_ms limits the request's life from
 * the start, 0: the handle's default (for job.cancel its grace comes on top).  Every ticket ends exactly once: answer, error, "timeout" or
 * "disconnected"; next then returns -1 with *ticket set.  When nothing is in flight, or wait_ms has
 * passed, next returns -1 with *ticket = 0 and the code "idle" or "timeout".
 * "limit": OMERTA_IN_FLIGHT_MAX is reached.
 */
int omerta_start(struct omerta *o, const char *type, const struct omerta_body *body,
		 int64_t timeout_ms, uint64_t *ticket);
int omerta_finish(struct omerta *o, uint64_t ticket, struct omerta_body **answer);
int omerta_next(struct omerta *o, int64_t wait_ms, uint64_t *ticket, struct omerta_body **answer);
/* Nobody wants this answer any more: it is dropped when it comes. */
void omerta_forget(struct omerta *o, uint64_t ticket);
size_t omerta_in_flight(const struct omerta *o);

/*
 * For an event loop: readable when something may have come (ZeroMQ's edge-triggered fd: then call
 * omerta_next with wait_ms 0 until it says "timeout" or "idle").  -1 when not connected.
 */
int omerta_fd(const struct omerta *o);

/* --- jobs ---------------------------------------------------------------------------------------- */

/* `id` anywhere below: a job's id, or the beginning of one that fits no other job. */

/* job: a body of "job.submit".  Returns when the job is durable. */
int omerta_submit(struct omerta *o, const struct omerta_body *job, char id[OMERTA_ID_SIZE]);
/* The same; gives the whole answer (state, position ...). */
int omerta_submit_body(struct omerta *o, const struct omerta_body *job,
		       struct omerta_body **accepted);
/* Adds a file to a job: reads PATH, at most 32 MiB, and puts it there as `name`. */
int omerta_job_add_file(struct omerta *o, struct omerta_body *job, const char *name,
			const char *path);
/* Gives "job.info". */
int omerta_get(struct omerta *o, const char *id, struct omerta_body **info);
/*
 * query: a body of "job.list" or NULL.  Gives "job.table"; its `next` goes into `cursor`.  A page with
 * `next` may be short, or empty: the daemon looks at so many jobs at a time.  Without `next` it is the end.
 */
int omerta_list(struct omerta *o, const struct omerta_body *query, struct omerta_body **table);
/* Gives "job.info" when the job has ended; "timeout" when it goes on after timeout_ms. */
int omerta_wait(struct omerta *o, const char *id, int64_t timeout_ms, struct omerta_body **info);
/*
 * The same as soon as the job's state is another than `from`: called again with the state that it gave,
 * until that is final, it tells each change, such as what became of a job that waits for approval.  Of
 * changes that follow fast only the last may be told.  from NULL: omerta_wait.
 */
int omerta_wait_change(struct omerta *o, const char *id, const char *from, int64_t timeout_ms,
		       struct omerta_body **info);

/*
 * Waits until all jobs of an array (`array` in job.submit) have ended; gives their rows, a job.table in
 * order of the indices.  Limit of an array: OMERTA_ARRAY_MAX jobs.
 */
#define OMERTA_ARRAY_MAX 1000
int omerta_wait_array(struct omerta *o, const char *id, int64_t timeout_ms,
		      struct omerta_body **table);
int omerta_cancel(struct omerta *o, const char *id, const char *reason);
/* query: a body of "job.cancel" (grace, or many jobs by state, peer, level). */
int omerta_cancel_many(struct omerta *o, const struct omerta_body *query, uint64_t *count);

/* True for a state that a job does not leave. */
bool omerta_state_is_final(const char *state);

/*
 * Gets bytes; a return value that is not 0 stops the transfer with the code "cancelled".  It must not
 * use the handle.  data NULL: another attempt of the job has begun, whose output follows from its start;
 * that of the attempt before is not in force any more.
 */
typedef int omerta_sink_fn(void *arg, const void *data, size_t len);

/*
 * Output from `*offset` on; *offset is moved on with every piece, so a transfer that failed can go on
 * where it was (offset NULL: from the start).  stream: "stdout" or "stderr".  follow: until the job
 * has ended and all is there; otherwise what there is now.
 */
int omerta_output(struct omerta *o, const char *id, const char *stream, bool follow,
		  uint64_t *offset, omerta_sink_fn *sink, void *arg);
/* A file that the job named in `outputs`. */
int omerta_file(struct omerta *o, const char *id, const char *name, uint64_t *offset,
		omerta_sink_fn *sink, void *arg);

/* --- the other verbs ----------------------------------------------------------------------------- */

int omerta_ping(struct omerta *o);
/*
 * Of several jobs: *count says for how many it was done, less than n when it was not for some; which and
 * why is in the `failed` of the answer that omerta_call gives.  None: -1 with the last one's error.
 */
int omerta_hold(struct omerta *o, const char *const *ids, size_t n, uint64_t *count);
int omerta_release(struct omerta *o, const char *const *ids, size_t n, uint64_t *count);
/* One more attempt for jobs that failed, timed out, were lost or are dead. */
int omerta_retry(struct omerta *o, const char *const *ids, size_t n, uint64_t *count);
/* query: a body of "job.purge": ids, or for the operator states and age; at most 10,000 a call. */
int omerta_purge(struct omerta *o, const struct omerta_body *query, uint64_t *count);
/* batch: a body of "job.submit_batch".  Gives "job.batch": a result for each job, in its order. */
int omerta_submit_batch(struct omerta *o, const struct omerta_body *batch,
			struct omerta_body **results);
int omerta_queue_stats(struct omerta *o, struct omerta_body **stats);
int omerta_status(struct omerta *o, struct omerta_body **status);

/* Operator.  Strings may be NULL where they are a reason. */
/* trust: NULL; or "peer" or "network", who is trusted from now on. */
int omerta_approve(struct omerta *o, const char *const *ids, size_t n, const char *trust,
		   uint64_t *count);
int omerta_deny(struct omerta *o, const char *const *ids, size_t n, const char *reason,
		uint64_t *count);
/* move: a body of "job.move". */
int omerta_move(struct omerta *o, const struct omerta_body *move, uint64_t *count);
int omerta_queue_usage(struct omerta *o, struct omerta_body **table);
int omerta_queue_pause(struct omerta *o, const char *reason);
int omerta_queue_drain(struct omerta *o, const char *reason); /* no new jobs */
int omerta_queue_resume(struct omerta *o); /* after either */
int omerta_queue_limit(struct omerta *o, uint64_t max_jobs);
int omerta_stop(struct omerta *o, bool now, int64_t drain_ms, const char *reason);
int omerta_actors(struct omerta *o, struct omerta_body **table);
/*
 * All actors of this name, or the one of the running job of this id, are traced from now on, or no
 * longer; NULL: only the answer, in `text`.
 */
int omerta_trace(struct omerta *o, const char *actor, bool off, struct omerta_body **lines);
int omerta_metrics(struct omerta *o, struct omerta_body **metrics); /* Prometheus text in `text` */
int omerta_config(struct omerta *o, struct omerta_body **table);
int omerta_config_set(struct omerta *o, const char *key, const char *value);
int omerta_config_unset(struct omerta *o, const char *key);
int omerta_config_reload(struct omerta *o, struct omerta_body **changes); /* in words */
int omerta_trust(struct omerta *o, const char *network);
int omerta_untrust(struct omerta *o, const char *network);
int omerta_trusted(struct omerta *o, struct omerta_body **list);
int omerta_trust_peer(struct omerta *o, const char *peer);
int omerta_untrust_peer(struct omerta *o, const char *peer);
int omerta_trusted_peers(struct omerta *o, struct omerta_body **list);
int omerta_block(struct omerta *o, const char *peer);
int omerta_unblock(struct omerta *o, const char *peer);
int omerta_blocked(struct omerta *o, struct omerta_body **list);
int omerta_rules(struct omerta *o, struct omerta_body **table);
int omerta_rule_add(struct omerta *o, const struct omerta_body *rule);
int omerta_rule_change(struct omerta *o, const struct omerta_body *rule);
int omerta_rule_remove(struct omerta *o, const char *name);
int omerta_rule_enable(struct omerta *o, const char *name, bool enabled);
int omerta_rules_test(struct omerta *o, const struct omerta_body *request,
		      struct omerta_body **decision);
int omerta_filter_stats(struct omerta *o, struct omerta_body **stats);
int omerta_filter_reset(struct omerta *o);
/* The next page: `after_seq` = the answer's `scanned`, as long as it says `more`; one may be empty. */
int omerta_audit(struct omerta *o, const struct omerta_body *query, struct omerta_body **table);
int omerta_audit_verify(struct omerta *o, struct omerta_body **report);

/* --- events -------------------------------------------------------------------------------------- */

/*
 * Subscribes to the daemon's events (its PUB socket).  endpoint NULL: $OMERTA_EVENTS or
 * "ipc:///run/omerta/events.sock"; keys as set in `o`.  Events before this call, and during a lost
 * connection, are not seen: read the state with omerta_get or omerta_list after it.
 */
struct omerta_events *omerta_events_new(struct omerta *o, const char *endpoint);
/* Before omerta_free of its handle. */
void omerta_events_free(struct omerta_events *events);
/* Gives "job.event".  0: one came; 1: none in wait_ms; -1: error (omerta_error_code of `o`). */
int omerta_events_next(struct omerta_events *events, int64_t wait_ms, struct omerta_body **event);

#ifdef __cplusplus
}
#endif

#endif /* OMERTA_H */
