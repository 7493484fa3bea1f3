/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_LEDGER_IMPL_H
#define OM_ACTORS_LEDGER_IMPL_H

/* Shared by ledger.c (life), ledger_group.c, ledger_write.c, ledger_read.c, ledger_audit.c, ledger_info.c (rows as
 * messages), ledger_live.c (tunnels of running jobs), ledger_tell.c.  Nobody else includes it. */
#include <sys/queue.h>
#include "actors/job_level.h"
#include "actors/ledger.h"
#include "actors/name_table.h"
#include "actors/names.h"
#include "base/assert.h"
#include "store/sqlite.h"

#define LEDGER_MAGIC UINT32_C(0x6c656467)
/* Writes in one transaction, then it is committed: while its answers bring the next requests, the
 * group behind it is worked on.  Larger groups make everybody wait for everybody. */
#define LEDGER_GROUP_MAX     512
#define LEDGER_GROUP_BYTES   (UINT64_C(16) << 20) /* the same, by what they bring */
#define LEDGER_TICK_MS       1000 /* followers' time, events that wait */
#define LEDGER_FOLLOWERS_MAX 1024
#define LEDGER_FOLLOW_MS     60000 /* a follower is answered after this, with nothing */
#define LEDGER_FILES_MAX     64 /* files of a job that are named in its row */
#define LEDGER_EVIDENCE_MAX  8192 /* bytes kept of what a rogue job was caught with */
#define LEDGER_LIST_DEFAULT  100
#define LEDGER_COMMIT_EDGES  12 /* of the histogram; the last is beyond all */
#define LEDGER_LIST_MAX      1000

/* An answer that waits for the commit. */
struct ledger_answer {
	STAILQ_ENTRY(ledger_answer) link;
	struct om_bus_request rq;
	enum om_msg_type type; /* of the answer */
	bool ok; /* the answer is a plain ok */
	const void *body; /* in the group's arena */
};

/* A job's new state, to be told after the commit. */
struct ledger_event {
	STAILQ_ENTRY(ledger_event) link;
	struct om_job_event body; /* strings in the group's arena */
};

STAILQ_HEAD(ledger_answers, ledger_answer);
STAILQ_HEAD(ledger_events, ledger_event);

/* A group that a thread of the pool makes durable. */
struct ledger_sent_work;
struct ledger_sent {
	struct ledger_sent_work *work; /* NULL: none is sent */
	struct om_mono began;
	struct om_arena arena;
	struct ledger_answers answers;
	struct ledger_events events;
	size_t group;
	uint64_t moves[OM_JOB_STATES];
};

/* An event that the provider had no room for: made anew from the row when it has. */
struct ledger_unsent {
	STAILQ_ENTRY(ledger_unsent) link;
	struct om_job_id id;
	enum om_job_state from, to;
	struct om_wall at;
};

/* A job.output with `follow` that has nothing to tell yet. */
struct ledger_follower {
	TAILQ_ENTRY(ledger_follower) link;
	struct om_bus_request rq;
	struct om_job_id job;
	enum om_out_kind kind;
	char file[OM_OUT_NAME_MAX + 1];
	uint64_t offset, limit;
	uint64_t attempt; /* that offset counts in; 0: whichever there is */
	struct om_mono until;
	bool due; /* something was stored for it in this group */
};

struct ledger_verify {
	STAILQ_ENTRY(ledger_verify) link;
	struct om_bus_request rq;
};

struct ledger {
	uint32_t magic;
	const struct om_ledger_conf *conf;
	struct om_store *store;

	/* the group */
	bool in_tx;
	bool
	    degraded; /* the last group failed: each write is a group of its own, until one works */
	struct om_arena arena; /* all that is made for the group's answers */
	struct ledger_answers answers;
	struct ledger_events events;
	size_t group;
	uint64_t group_bytes;
	struct ledger_sent sent;

	bool unheard; /* nobody listens to events: only what the provider needs is told */
	STAILQ_HEAD(, ledger_unsent) unsent;
	bool audit_behind; /* some were not */
	uint64_t audit_sent; /* entries up to here were told to the activity_logger */
	TAILQ_HEAD(, ledger_follower) followers;
	size_t follower_count;

	/* for the metrics, since the start */
	uint64_t moves[OM_JOB_STATES],
	    group_moves[OM_JOB_STATES]; /* group_moves: not committed yet */
	uint64_t commits, commits_refused, commit_us;
	uint64_t commit_le[LEDGER_COMMIT_EDGES]; /* by the first edge that it was not over */

	STAILQ_HEAD(, ledger_verify) verifying;
	struct om_audit_check check;

	struct om_name_table live; /* ledger_live.c */

	struct om_out_info outs[LEDGER_FILES_MAX + OM_OUT_FILE]; /* scratch of ledger_info_full */
	uint64_t tick_timer, step_timer, purge_timer, wipe_timer, fold_timer;
	bool purging, purge_soon; /* soon: purge_timer runs because of a write */
	uint8_t seal_key[OM_LEDGER_SEAL_LEN];
	bool keys_left; /* of a job that ended: in the store's log */
	bool fold_failed;
	uint64_t commits_folded; /* commits when the last fold began */
};

static inline struct ledger *
ledger_of(void *state)
{
	struct ledger *l = state;

	OM_ASSERT(l->magic == LEDGER_MAGIC);
	return l;
}

static inline struct om_wall
ledger_now(const struct ledger *l)
{
	return l->conf->wall != NULL ? l->conf->wall() : om_wall_now();
}

static inline uint64_t
ledger_ms(struct om_wall at)
{
	return at.ns <= 0 ? 0 : (uint64_t)(at.ns / OM_NS_PER_MS);
}

static inline struct om_wall
ledger_wall(uint64_t ms)
{
	return (struct om_wall){ ms > INT64_MAX / OM_NS_PER_MS ? INT64_MAX
							       : (int64_t)ms * OM_NS_PER_MS };
}

/* ledger.c */
/* Something was written: the limits of retention are looked at soon. */
void ledger_purge_soon(struct om_service *sv, struct ledger *l);

/* ledger_group.c */
void ledger_group_init(struct ledger *l, size_t arena_max);
void ledger_group_fini(struct ledger *l);
/* Arms the timers of what has to be looked at again; else we sleep. */
void ledger_tick_when_needed(struct om_service *sv, struct ledger *l);
/* Undoes the open group, in which nobody waits for an answer yet. */
void ledger_group_undo(struct ledger *l);

/* ledger_tell.c */
void ledger_tell_group(struct om_service *sv, struct ledger *l, const struct ledger_events *events);
void ledger_tell_unsent(struct om_service *sv, struct ledger *l); /* those that found no room */
void ledger_tell_audit(struct om_service *sv, struct ledger *l);
/* Opens the group's transaction if none is open. */
enum om_err ledger_begin(struct ledger *l) OM_MUST_CHECK;
/*
 * Commits the group, answers, tells; a large one is sent, and the rest follows.  While one is sent the
 * next one gathers.  Fine without a group.
 */
void ledger_flush(struct om_service *sv, struct ledger *l);
/* The same, and nothing is open or sent afterwards. */
void ledger_finish(struct om_service *sv, struct ledger *l);
/* The message is answered with this after the commit.  NOMEM: answered at once with that. */
enum om_err ledger_answer_later(struct om_service *sv, struct ledger *l, const struct om_in *in,
				enum om_msg_type type, const void *body) OM_MUST_CHECK;
enum om_err ledger_ok_later(struct om_service *sv, struct ledger *l,
			    const struct om_in *in) OM_MUST_CHECK;
/* A read's answer: at once, or after the commit when a group is open (it may have seen its rows). */
enum om_err ledger_answer_read(struct om_service *sv, struct ledger *l, const struct om_in *in,
			       enum om_msg_type type, const void *body) OM_MUST_CHECK;
/* The same with a plain ok: it is as was asked, perhaps by what is not durable yet. */
enum om_err ledger_ok_read(struct om_service *sv, struct ledger *l,
			   const struct om_in *in) OM_MUST_CHECK;
/* The error of a store call as the answer, with the store's reason. */
enum om_err ledger_refuse(struct om_service *sv, struct ledger *l, const struct om_in *in,
			  enum om_err err) OM_MUST_CHECK;
/* Asks for another ledger_step soon. */
void ledger_step_soon(struct om_service *sv, struct ledger *l);

/* ledger_write.c */
enum om_err ledger_on_submit(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_move(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_output(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_set(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_append(struct om_service *sv, void *state, const struct om_in *in);
/* The job.submit inside a body, in the group's arena.  NULL: it is none. */
const struct om_job_submit *ledger_spec_decode(struct ledger *l, struct om_bin spec);
/*
 * A job's next state with all that belongs to it: evidence, the attempt that follows, its events,
 * the end of its keys.  row: as it is, then as it becomes.  m may be NULL.
 */
enum om_err ledger_move_apply(struct ledger *l, const struct om_job_id *id,
			      const struct om_job_change *change, const struct om_ledger_move *m,
			      struct om_job_row *row) OM_MUST_CHECK;

struct om_job_array;
/*
 * One new job in the open group, with its event.  array: it is one of it; NULL: of none.  EXISTS: the
 * id is another job's.
 */
enum om_err ledger_submit_put(struct ledger *l, const struct om_ledger_submit *m,
			      const struct om_job_submit *submit, const struct om_job_array *array,
			      bool *existed, struct om_job_row *row) OM_MUST_CHECK;
enum om_err ledger_submit_one(struct om_service *sv, struct ledger *l,
			      const struct om_in *in) OM_MUST_CHECK;

/* ledger_many.c */
enum om_err ledger_on_submit_many(struct om_service *sv, void *state, const struct om_in *in);

/* ledger_stats.c */
enum om_err ledger_on_ran(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_stats(struct om_service *sv, void *state, const struct om_in *in);
/* Of a group that is durable. */
void ledger_count_moves(struct ledger *l, const uint64_t moves[OM_JOB_STATES]);
void ledger_count_commit(struct ledger *l, enum om_err err, int64_t took_ns);

/* ledger_array.c */
/* All jobs of an array, or none. */
enum om_err ledger_submit_array(struct om_service *sv, struct ledger *l,
				const struct om_in *in) OM_MUST_CHECK;
/* Removes those of an array that have ended.  STATE: none has. */
enum om_err ledger_array_remove(struct ledger *l, const struct om_job_id *array,
				struct om_str owner, uint64_t *removed) OM_MUST_CHECK;
/* The array whose id `text` is or, if nothing else does, begins.  owner as in om_store_job_find. */
bool ledger_array_find(struct ledger *l, struct om_str text, struct om_str owner,
		       struct om_job_id *out);

/* ledger_again.c */
/* The state that follows the row's own, which it came to from `from`; its own: none follows. */
enum om_job_state ledger_again_plan(const struct om_job_row *row, enum om_job_state from);
/* Moves it on to that: queued with its back-off, or dead. */
enum om_err ledger_again(struct ledger *l, struct om_job_row *row, enum om_job_state to,
			 struct om_wall at) OM_MUST_CHECK;
/* Takes the private keys out of the body. */
void ledger_keys_init(struct ledger *l); /* after l->conf */
void ledger_keys_fini(struct ledger *l);
/*
 * The body as it is stored: its keys in a box.  Only for a body that has keys.  INVALID, NOMEM: the
 * store's why says more; *out is the caller's in any case.
 */
enum om_err ledger_keys_seal(struct ledger *l, struct om_bin body,
			     struct om_buf *out) OM_MUST_CHECK;
/* Makes a stored body the submitted one.  KEYS_LOST, CORRUPT, NOMEM: it stays as it was. */
enum om_err ledger_keys_open(struct ledger *l, struct om_buf *stored) OM_MUST_CHECK;
bool ledger_keys_are_sealed(const struct om_buf *stored);
/* A view: the stored body without its box. */
struct om_bin ledger_keys_body(const struct om_buf *stored);
enum om_err ledger_scrub(struct ledger *l, const struct om_job_id *id) OM_MUST_CHECK;
/* Frees a stored body, which may hold keys: wiped first. */
void ledger_body_fini(struct om_buf *body);
/* false: it needs keys that are no longer there. */
bool ledger_may_run_again(struct ledger *l, const struct om_job_id *id);
/* Jobs that a crash left in the middle.  In a transaction of its own. */
enum om_err ledger_recover_lost(struct ledger *l) OM_MUST_CHECK;

/* ledger_place.c */
enum om_err ledger_on_place(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_after(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_purge(struct om_service *sv, void *state, const struct om_in *in);

/* ledger_read.c */
enum om_err ledger_on_get(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_list(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_job_output(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_spec_get(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_recover(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_entries(struct om_service *sv, void *state, const struct om_in *in);
/* The rows of one answer. */
size_t ledger_limit(uint64_t asked);
/* Something was stored for this job, or it ended: its followers are looked at after the commit. */
void ledger_followers_due(struct ledger *l, const struct om_job_id *id);
void ledger_followers_answer(struct om_service *sv, struct ledger *l, bool all_late);
void ledger_followers_drop(struct om_service *sv, struct ledger *l);

/* ledger_audit.c */
enum om_err ledger_on_count(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_audit(struct om_service *sv, void *state, const struct om_in *in);
enum om_err ledger_on_audit_verify(struct om_service *sv, void *state, const struct om_in *in);
void ledger_verify_step(struct om_service *sv, struct ledger *l);

/* ledger_live.c: the tunnels of running jobs */
void ledger_live_init(struct ledger *l);
void ledger_live_fini(struct ledger *l);
enum om_err ledger_on_tunnel(struct om_service *sv, void *state, const struct om_in *in);
/* Its tunnel is gone. */
void ledger_live_drop(struct ledger *l, const struct om_job_id *job);
/* Adds what its tunnel carried so far, if it has one. */
void ledger_live_show(const struct ledger *l, struct om_mono now, struct om_job_info *info);

/* ledger_info.c */
/* A row as a message; strings are copied to the arena.  NULL: no memory. */
struct om_job_info *ledger_info(struct ledger *l, const struct om_job_row *row);
/* The same with sizes and names of its output and the evidence. */
struct om_job_info *ledger_info_full(struct ledger *l, const struct om_job_row *row);
struct om_str ledger_keep(struct ledger *l, const char *text);
/* Fills an event from a row; retry: more follows at once.  false: no memory. */
bool ledger_event_fill(struct ledger *l, const struct om_job_row *row, enum om_job_state from,
		       struct om_wall at, bool retry, struct om_job_event *out);
/* The entry as a message; strings are borrowed from the row, the hash goes to hex. */
void ledger_audit_entry(const struct om_audit_row *row, char hex[2 * OM_HASH_LEN + 1],
			struct om_audit_entry *out);
/* The name of the audit entry for this move. */
struct om_str ledger_event_name(enum om_job_state from, enum om_job_state to);

#endif /* OM_ACTORS_LEDGER_IMPL_H */
