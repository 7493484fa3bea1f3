/* SPDX-License-Identifier: ISC */
/*
 * What a job_run tells the ledger, in order and one at a time, and the relay through the executor.
 *
 * A write that the ledger cannot take now (its disk is full) is tried again for as long as it
 * takes: the guest is read no further meanwhile, so a job stalls rather than lose output.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "actors/job_run_impl.h"
#include "actors/names.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/secret.h"
#include "msg/codec.h"

/* These two carry the tunnel's private key. */
static void
body_fini(enum om_msg_type type, struct om_buf *body)
{
	if (body->data != NULL && (type == OM_MSG_VPN_UP || type == OM_MSG_LEDGER_SPEC)) {
		om_secret_wipe(body->data, body->cap);
	}
	om_buf_fini(body);
}

void
om_jr_relay_free(void *relay)
{
	struct om_jr_relay *r = relay;

	if (r != NULL) {
		body_fini(r->type, &r->body);
		free(r);
	}
}

void
om_jr_relayed_free(void *relayed)
{
	struct om_jr_relayed *r = relayed;

	if (r != NULL) {
		body_fini(r->type, &r->body);
		free(r);
	}
}

void
om_jr_end_free(void *end)
{
	struct om_jr_end *e = end;

	if (e != NULL) {
		om_buf_fini(&e->evidence);
		free(e);
	}
}

static void
on_relayed(struct om_ctx *cx, void *state, const struct om_answer *answer)
{
	struct om_jr_relayed failed = { .err = answer->err };
	const struct om_jr_relayed *a = &failed;
	/* The continuation travels in the cookie; a function pointer fits in 64 bits here. */
	run_relayed_fn fn = (run_relayed_fn)(uintptr_t)answer->cookie;

	if (answer->err == OM_OK) {
		a = om_msg_obj(answer->msg);
	} else {
		(void)om_why_set(&failed.why, answer->err, "%s", om_err_text(answer->err));
	}
	fn(cx, state, a);
}

/* Takes body (the buffer is empty afterwards). */
static enum om_err
relay_raw(struct om_ctx *cx, struct run *run, const char *to, enum om_msg_type type,
	  struct om_buf *body, uint64_t timeout_ms, run_relayed_fn fn)
{
	struct om_jr_relay *r;
	struct om_msg *msg;
	enum om_err err;

	r = calloc(1, sizeof(*r));
	if (r == NULL) {
		om_buf_fini(body);
		return OM_ERR_NOMEM;
	}
	(void)snprintf(r->to, sizeof(r->to), "%s", to);
	r->type = type;
	r->timeout_ms = timeout_ms;
	r->body = *body;
	*body = (struct om_buf){ 0 };
	msg = om_msg_new_owner(cx, OM_JR_RELAY, r, om_jr_relay_free);
	if (msg == NULL) {
		om_jr_relay_free(r);
		return OM_ERR_NOMEM;
	}
	/* The executor's own limit is timeout_ms; ours only guards against its end. */
	err =
	    om_ask(cx, run->executor, &msg, timeout_ms + 5000, on_relayed, (uint64_t)(uintptr_t)fn);
	om_msg_free(cx, msg);
	return err;
}

enum om_err
run_relay(struct om_ctx *cx, struct run *run, const char *to, enum om_msg_type type,
	  const void *body, uint64_t timeout_ms, run_relayed_fn fn)
{
	struct om_buf buf = { 0 };
	enum om_err err;

	err = om_body_encode(om_msg_info(type)->body, body, &buf);
	if (err != OM_OK) {
		om_buf_fini(&buf);
		return err;
	}
	return relay_raw(cx, run, to, type, &buf, timeout_ms, fn);
}

static void
write_free(struct run_write *w)
{
	if (w != NULL) {
		om_buf_fini(&w->body);
		free(w);
	}
}

void
run_writes_fini(struct run *run)
{
	while (run->writes != NULL) {
		struct run_write *w = run->writes;

		run->writes = w->next;
		write_free(w);
	}
	run->writes_tail = &run->writes;
}

static void
write_retry_later(struct om_ctx *cx, struct run *run)
{
	if (run->retry_timer == 0 &&
	    om_timer_start(cx, RUN_RETRY_MS, 0, TIMER_RETRY, &run->retry_timer) != OM_OK) {
		om_fail(cx, OM_ERR_NOMEM);
	}
}

/* Not this write is refused but every one, for now: no room, too many at once, nobody there. */
static bool
may_pass(enum om_err err)
{
	return err == OM_ERR_DISK || err == OM_ERR_FULL || err == OM_ERR_LIMIT ||
	       err == OM_ERR_NOMEM || err == OM_ERR_TIMEOUT || err == OM_ERR_GONE;
}

static void
on_written(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct run_write *w = run->writes;
	bool is_final;

	OM_ASSERT(w != NULL && run->write_in_flight);
	run->write_in_flight = false;
	if (may_pass(a->err)) {
		write_retry_later(cx, run);
		return;
	}
	if (a->err != OM_OK) {
		om_error("job.record_failed", "%s: %s: %s", run->job.text,
			 om_msg_info(w->type)->name, a->why.text);
	}
	is_final = w->is_final;
	run->writes = w->next;
	if (run->writes == NULL) {
		run->writes_tail = &run->writes;
	}
	run->write_bytes -= w->body.len;
	write_free(w);
	if (is_final) {
		run_final_written(cx, run);
		return;
	}
	run_retry(cx, run);
	run_flush_output(cx, run);
	if (run->reading_stopped && run->write_bytes < RUN_WRITES_MAX / 2) {
		run_resume_reading(cx, run);
	}
}

/* Sends the oldest write, unless one is on its way. */
void
run_retry(struct om_ctx *cx, struct run *run)
{
	struct run_write *w = run->writes;
	struct om_buf copy = { 0 };

	if (w == NULL || run->write_in_flight) {
		return;
	}
	om_buf_add(&copy, w->body.data, w->body.len);
	if (copy.failed ||
	    relay_raw(cx, run, OM_LEDGER, w->type, &copy, RUN_LEDGER_MS, on_written) != OM_OK) {
		om_buf_fini(&copy);
		write_retry_later(cx, run);
		return;
	}
	run->write_in_flight = true;
}

void
run_write(struct om_ctx *cx, struct run *run, enum om_msg_type type, const void *body,
	  bool is_final)
{
	struct run_write *w = calloc(1, sizeof(*w));

	if (w == NULL || om_body_encode(om_msg_info(type)->body, body, &w->body) != OM_OK) {
		write_free(w);
		om_error("job.record_failed", "%s: out of memory", run->job.text);
		om_fail(cx, OM_ERR_NOMEM); /* the executor records the end in our place */
		return;
	}
	w->type = type;
	w->is_final = is_final;
	*run->writes_tail = w;
	run->writes_tail = &w->next;
	run->write_bytes += w->body.len;
	run_retry(cx, run);
}

void
run_write_state(struct om_ctx *cx, struct run *run, enum om_job_state state)
{
	struct om_ledger_move m = { 0 };

	OM_SET(&m, ledger_move, job, om_str_of(run->job.text));
	OM_SET(&m, ledger_move, state, om_str_of(om_job_state_text(state)));
	run_write(cx, run, OM_MSG_LEDGER_MOVE, &m, false);
}

/*
 * The guest measures its CPU time with a clock that it calibrated while the host was busy: an
 * emulated guest has been seen to be wrong by a factor of 25.  No job uses more than all of its
 * cores for all of its time, so that is the most that is recorded.
 */
static uint64_t
plausible_cpu_ms(const struct run *run)
{
	uint64_t cpu_ms = run->exit.cpu_us / 1000;
	uint64_t wall_ms = run_ran_ms(run);
	uint64_t most_ms = wall_ms * run->spec.cores;

	if (cpu_ms <= most_ms) {
		return cpu_ms;
	}
	om_warn("job.cpu_time", "%s: the guest says %llu ms, more than %llu ms is not possible",
		run->job.text, (unsigned long long)cpu_ms, (unsigned long long)most_ms);
	return most_ms;
}

/* Who is killed does not say how much the agent dropped; that there was no more room is known. */
static bool
output_is_truncated(const struct run *run)
{
	if (run->exited) {
		return run->exit.dropped_out + run->exit.dropped_err > 0;
	}
	return run->channel != NULL && run->started &&
	       om_guest_channel_output_bytes(run->channel) >=
		   om_guest_channel_output_max(run->channel);
}

static void
result_fill(struct run *run, struct om_job_info *r)
{
	OM_SET(r, job_info, job, om_str_of(run->job.text));
	OM_SET(r, job_info, state, om_str_of(om_job_state_text(run->state)));
	if (run->started) {
		OM_SET(r, job_info, boot_ms,
		       (uint64_t)om_mono_ms_between(run->provisioning_at, run->started_at));
		OM_SET(r, job_info, wall_ms, run_ran_ms(run));
	}
	if (run->exited) {
		const struct om_guest_exit *e = &run->exit;

		if (e->exit_code >= 0) {
			OM_SET(r, job_info, exit_code, (int64_t)e->exit_code);
		}
		if (e->signal > 0) {
			OM_SET(r, job_info, signal, (uint64_t)e->signal);
		}
		OM_SET(r, job_info, cpu_ms, plausible_cpu_ms(run));
		OM_SET(r, job_info, mem_peak_kib, e->peak_kib);
		OM_SET(r, job_info, output_dropped, e->dropped_out + e->dropped_err);
	} else if (run->channel != NULL) {
		OM_SET(r, job_info, output_dropped, om_guest_channel_dropped_bytes(run->channel));
	}
	if (output_is_truncated(run)) {
		OM_SET(r, job_info, output_truncated, true);
	}
	if (run->missing_count > 0) {
		OM_SET(r, job_info, files_missing,
		       ((struct om_pairs){ run->missing, run->missing_count }));
	}
	if (run->has_traffic) {
		OM_SET(r, job_info, rx_bytes, run->rx_bytes);
		OM_SET(r, job_info, tx_bytes, run->tx_bytes);
		if (run->handshake_ms != 0) {
			OM_SET(r, job_info, handshake_ms, run->handshake_ms);
		}
	}
}

/* The evidence arrived as an encoded map of strings; a row takes it as pairs. */
static void
evidence_fill(struct run *run, struct om_job_info *r)
{
	struct om_rogue_caught *m;
	struct om_why why;

	if (run->evidence.len == 0) {
		return;
	}
	m = om_arena_alloc(&run->arena, sizeof(*m));
	if (m != NULL && om_body_decode(OM_BODY_rogue_caught,
					(struct om_bin){ run->evidence.data, run->evidence.len }, m,
					&run->arena, &why) == OM_OK) {
		OM_SET(r, job_info, evidence, m->evidence);
	}
}

/* Texts end where their buffers do, perhaps inside a character; libvirt's may hold anything. */
struct om_str
run_clean_text(char *text)
{
	const size_t len = strlen(text);

	om_utf8_clean(text, len);
	return (struct om_str){ text, len };
}

void
run_write_final(struct om_ctx *cx, struct run *run)
{
	struct om_ledger_move m = { 0 };
	struct om_job_info result = { 0 };

	result_fill(run, &result);
	evidence_fill(run, &result);
	OM_SET(&m, ledger_move, job, om_str_of(run->job.text));
	OM_SET(&m, ledger_move, state, om_str_of(om_job_state_text(run->state)));
	OM_SET(&m, ledger_move, reason, om_str_of(run->reason));
	OM_SET(&m, ledger_move, text, run_clean_text(run->text));
	if (run->by[0] != '\0') {
		OM_SET(&m, ledger_move, by, om_str_of(run->by));
	}
	OM_SET(&m, ledger_move, result, &result);
	run_write(cx, run, OM_MSG_LEDGER_MOVE, &m, true);
}
