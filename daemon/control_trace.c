/* SPDX-License-Identifier: ISC */
/*
 * daemon.trace: actors are traced, or no longer; the answer is what the ring holds.  The ring knows
 * actors by number, so the names of those that live go before it.  "job_run" is all of them, a job's id
 * the one that runs this job.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <string.h>
#include <unistd.h>
#include "actors/names.h"
#include "base/id.h"
#include "daemon/control_impl.h"
#include "msg/codec.h"
#include "runtime/stats.h"

#define TRACE_TEXT_MAX   (1u << 20) /* what the answer's field takes */
#define TRACE_MEMORY_MAX 4096 /* of the request's body */

struct trace_call {
	struct om_system *sys;
	struct om_str actor;
	bool on;
	size_t matched;
	struct om_buf text;
};

/* One that ends just now is none of them. */
static void
trace_set(struct trace_call *t, struct om_actor_id id)
{
	if (om_trace_actor(t->sys, id, t->on) == OM_OK) {
		t->matched++;
	}
}

static void
trace_visit(const struct om_actor_stats *stats, void *arg)
{
	struct trace_call *t = arg;

	om_buf_printf(&t->text, "actor=%llu.%llu name=%s\n",
		      (unsigned long long)(stats->id.v & ((1u << OM_TRACE_SLOT_BITS) - 1)),
		      (unsigned long long)(stats->id.v >> OM_TRACE_SLOT_BITS), stats->name);
	if (om_str_is(t->actor, stats->name) ||
	    om_str_eq(t->actor, (struct om_str){ stats->name, control_actor_kind(stats->name) })) {
		trace_set(t, stats->id);
	}
}

static void
trace_job(struct trace_call *t)
{
	char name[sizeof(OM_JOB_RUN_NAME) + OM_JOB_ID_MAX];
	struct om_actor_id id;

	(void)snprintf(name, sizeof(name), OM_JOB_RUN_NAME "%.*s", OM_STR_ARG(t->actor));
	id = om_whereis(t->sys, name);
	if (!om_actor_id_eq(id, OM_NOBODY)) {
		trace_set(t, id);
	}
}

/* The newest lines that fit. */
static void
trace_add_ring(struct om_buf *text, struct om_system *sys)
{
	int fd = memfd_create("trace", MFD_CLOEXEC);
	size_t room = TRACE_TEXT_MAX - text->len;
	const char *ring, *from;
	struct stat st;
	size_t len;

	if (fd < 0) {
		text->failed = true;
		return;
	}
	om_trace_dump(sys, fd);
	if (fstat(fd, &st) != 0 || st.st_size == 0) {
		goto out;
	}
	len = (size_t)st.st_size;
	ring = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (ring == MAP_FAILED) {
		text->failed = true;
		goto out;
	}
	from = ring;
	if (len > room) {
		from = memchr(ring + len - room, '\n', room);
		from = from != NULL ? from + 1 : ring + len;
	}
	om_buf_add(text, from, len - (size_t)(from - ring));
	(void)munmap((void *)(uintptr_t)ring, len);
out:
	(void)close(fd);
}

enum om_err
control_verb_trace(struct om_service *sv, struct control *c, const struct control_call *call,
		   struct om_why *why)
{
	struct trace_call t = { .sys = om_ctx_system(om_service_cx(sv)),
				.text = { .max = TRACE_TEXT_MAX } };
	struct om_arena arena = { .max = TRACE_MEMORY_MAX };
	struct om_daemon_trace body = { 0 };
	struct om_trace_lines answer = { 0 };
	enum om_err err = om_body_decode(OM_BODY_daemon_trace, call->body, &body, &arena, why);

	if (err != OM_OK) {
		goto out;
	}
	t.actor = body.actor;
	t.on = !body.off;
	om_system_actors(t.sys, trace_visit, &t);
	trace_job(&t);
	if (t.actor.len > 0 && t.matched == 0) {
		err = om_why_set(why, OM_ERR_NOT_FOUND,
				 "no actor has this name (daemon.actors), no running job this id");
		goto out;
	}
	trace_add_ring(&t.text, t.sys);
	if (t.text.failed) {
		err = om_why_set(why, OM_ERR_NOMEM, "the trace does not fit into memory");
		goto out;
	}
	OM_SET(&answer, trace_lines, text,
	       ((struct om_str){ (const char *)t.text.data, t.text.len }));
	control_answer(sv, c, call->cookie, OM_MSG_TRACE_TEXT, &answer);
out:
	om_buf_fini(&t.text);
	om_arena_fini(&arena);
	return err;
}
