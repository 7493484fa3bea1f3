/* SPDX-License-Identifier: ISC */
/*
 * Waiting for a job with its output and progress: up to four requests in flight on one connection, the
 * two streams, the end, and now and then the state.  Each is a long poll that is asked again when it
 * ends; a lost daemon is looked for as omerta_wait does.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "client/cli_impl.h"

#define TICK_MS       250 /* the progress line's clock */
#define STATE_MS      1000 /* how often the state is asked for */
#define EMPTY_STEP_MS 100 /* an empty piece that came at once is not asked for in a tight loop */
#define SILENT_MAX    8 /* long polls in a row without any answer */
#define STATE_SIZE    25

enum { STREAM_OUT, STREAM_ERR, STREAMS };

struct stream {
	const char *name;
	FILE *to;
	bool open;
	uint64_t offset, ticket;
	uint64_t attempt; /* that offset counts in; 0: not known */
	int64_t not_before_ms;
};

struct follow {
	struct om_cli *cli;
	const struct om_cli_follow *how;
	struct stream streams[STREAMS];
	uint64_t wait_ticket, get_ticket;
	struct omerta_body *info; /* the end */
	int64_t next_get_ms, state_since_ms;
	int64_t heard_ms; /* when the daemon was last there; 0: never */
	int silent;
	char state[STATE_SIZE];
	uint64_t boot_ms;
	bool line; /* a progress line is on the terminal */
};

/* --- an interrupt leaves the job running, and says so --------------------------------------------- */

static char interrupt_text[256];

static void
follow_on_interrupt(int signum)
{
	(void)!write(STDERR_FILENO, interrupt_text, strlen(interrupt_text));
	_exit(128 + signum);
}

static void
follow_catch_interrupt(const struct follow *f, struct sigaction *old)
{
	struct sigaction action = { .sa_handler = follow_on_interrupt };

	(void)snprintf(interrupt_text, sizeof(interrupt_text),
		       "\njob %s goes on; `%s wait %s` comes back to it, `%s cancel %s` ends it\n",
		       f->how->id, f->cli->program, f->how->id, f->cli->program, f->how->id);
	(void)sigaction(SIGINT, &action, old);
}

/* --- progress -------------------------------------------------------------------------------------- */

static void
follow_clear_line(struct follow *f)
{
	if (f->line) {
		(void)fputs("\r\033[K", f->cli->err);
		(void)fflush(f->cli->err);
		f->line = false;
	}
}

static void
follow_progress(struct follow *f, bool changed)
{
	struct om_cli *cli = f->cli;
	char id[OMERTA_ID_SIZE], span[OM_CLI_TEXT], clock[OM_CLI_TEXT];

	if (!f->how->progress || f->state[0] == '\0' || (!cli->err_tty && !changed)) {
		return;
	}
	(void)om_cli_short_id(cli, f->how->id, id);
	(void)fprintf(cli->err, "%sjob %s  ", cli->err_tty ? "\r\033[K" : "", id);
	if (f->boot_ms > 0 && strcmp(f->state, "running") == 0) {
		(void)fprintf(cli->err, "booted %s  ", om_cli_span((int64_t)f->boot_ms, span));
	}
	(void)fputs(om_cli_paint(cli, cli->err_tty, om_cli_state_colour(f->state)), cli->err);
	om_cli_clean(cli->err, f->state);
	(void)fputs(om_cli_paint(cli, cli->err_tty, OM_CLI_PLAIN), cli->err);
	if (cli->err_tty) {
		(void)fprintf(cli->err, " %s",
			      om_cli_clock(om_client_now_ms() - f->state_since_ms, clock));
		f->line = true;
	} else {
		(void)fputc('\n', cli->err);
	}
	(void)fflush(cli->err);
}

static void
follow_take_state(struct follow *f, const struct omerta_body *info)
{
	const char *state = omerta_get_str(info, "state");

	f->boot_ms = omerta_get_u64(info, "boot_ms");
	if (strcmp(f->state, state) != 0 && !omerta_state_is_final(state)) {
		(void)snprintf(f->state, sizeof(f->state), "%s", state);
		f->state_since_ms = om_client_now_ms();
		follow_progress(f, true);
	}
}

/* --- requests -------------------------------------------------------------------------------------- */

static int
follow_ask_stream(struct follow *f, struct stream *s)
{
	struct omerta_body *query = omerta_body_new("job.output");
	int rc;

	omerta_set_str(query, "job", f->how->id);
	omerta_set_str(query, "stream", s->name);
	omerta_set_u64(query, "offset", s->offset);
	omerta_set_bool(query, "follow", f->info == NULL);
	if (s->attempt != 0) {
		omerta_set_u64(query, "attempt", s->attempt);
	}
	rc = omerta_start(f->cli->o, "job.output", query, OM_CLIENT_SLICE_MS, &s->ticket);
	omerta_body_free(query);
	return rc;
}

static int
follow_ask_ref(struct follow *f, const char *type, int64_t life_ms, uint64_t *ticket)
{
	struct omerta_body *ref = omerta_body_new(type);
	int rc;

	omerta_set_str(ref, "job", f->how->id);
	rc = omerta_start(f->cli->o, type, ref, life_ms, ticket);
	omerta_body_free(ref);
	return rc;
}

/* Every request that should be in flight and is not. */
static int
follow_ask(struct follow *f, int64_t now_ms)
{
	int rc = 0;

	for (int i = 0; rc == 0 && i < STREAMS; i++) {
		struct stream *s = &f->streams[i];

		if (s->open && s->ticket == 0 && now_ms >= s->not_before_ms) {
			rc = follow_ask_stream(f, s);
		}
	}
	if (rc == 0 && f->info == NULL && f->wait_ticket == 0) {
		rc = follow_ask_ref(f, "job.wait", OM_CLIENT_SLICE_MS, &f->wait_ticket);
	}
	if (rc == 0 && f->info == NULL && f->how->progress && f->get_ticket == 0 &&
	    now_ms >= f->next_get_ms) {
		f->next_get_ms = now_ms + STATE_MS;
		rc = follow_ask_ref(f, "job.get", 0, &f->get_ticket);
	}
	if (f->cli->o->connected) {
		f->heard_ms = now_ms;
	}
	return rc;
}

static int
follow_take_piece(struct follow *f, struct stream *s, const struct omerta_body *piece)
{
	size_t len;
	const void *data = omerta_get_bin(piece, "data", &len);
	const uint64_t attempt = omerta_get_u64(piece, "attempt");

	if (s->attempt != 0 && attempt != s->attempt && s->offset > 0) {
		s->offset = 0;
		follow_clear_line(f);
		(void)fprintf(f->cli->err, "%s: attempt %llu: its %s follows\n", f->cli->program,
			      (unsigned long long)attempt, s->name);
	}
	s->attempt = attempt;
	if (len > 0 && omerta_get_u64(piece, "offset") != s->offset) {
		return om_client_fail(f->cli->o, "protocol",
				      "a piece of output from another place");
	}
	if (len > 0 && f->cli->json) {
		json_t *object = om_cli_json(piece);

		(void)json_object_set_new(object, "job", json_string(f->how->id));
		(void)json_object_set_new(object, "stream", json_string(s->name));
		om_cli_print_json(f->cli, "output.data", object);
	} else if (len > 0) {
		follow_clear_line(f);
		if (fwrite(data, 1, len, s->to) != len || fflush(s->to) != 0) {
			return om_client_fail(f->cli->o, "io", "the output could not be written");
		}
	}
	s->offset += len;
	if (omerta_get_bool(piece, "end") || (len == 0 && f->info != NULL)) {
		s->open = false;
	}
	s->not_before_ms = len == 0 ? om_client_now_ms() + EMPTY_STEP_MS : 0;
	return 0;
}

static struct stream *
follow_stream_of(struct follow *f, uint64_t ticket)
{
	for (int i = 0; i < STREAMS; i++) {
		if (f->streams[i].ticket == ticket) {
			return &f->streams[i];
		}
	}
	return NULL;
}

/* An answer.  Takes the body. */
static int
follow_take(struct follow *f, uint64_t ticket, struct omerta_body *body)
{
	struct stream *s = follow_stream_of(f, ticket);
	int rc = 0;

	f->silent = 0;
	if (s != NULL) {
		s->ticket = 0;
		rc = follow_take_piece(f, s, body);
	} else if (ticket == f->wait_ticket) {
		f->wait_ticket = 0;
		f->info = body;
		body = NULL;
	} else if (ticket == f->get_ticket) {
		f->get_ticket = 0;
		follow_take_state(f, body);
	}
	omerta_body_free(body);
	return rc;
}

/* A request that ended without its answer, or could not be sent (ticket 0).  -1: give up. */
static int
follow_lost(struct follow *f, uint64_t ticket)
{
	struct omerta *o = f->cli->o;
	struct stream *s = ticket != 0 ? follow_stream_of(f, ticket) : NULL;
	bool is_get = ticket != 0 && ticket == f->get_ticket;

	if (s != NULL) {
		s->ticket = 0;
	} else if (ticket != 0 && ticket == f->wait_ticket) {
		f->wait_ticket = 0;
	} else if (is_get) {
		f->get_ticket = 0;
	}
	if (omerta_error_is(o, "timeout")) {
		f->silent = o->answered ? 0 : f->silent + 1;
		return f->silent < SILENT_MAX ? 0 : -1;
	}
	if (omerta_error_is(o, "disconnected") || omerta_error_is(o, "unreachable") ||
	    omerta_error_is(o, "shutting_down")) {
		if (f->heard_ms == 0 || om_client_now_ms() - f->heard_ms > OM_CLIENT_REDIAL_MS) {
			return -1;
		}
		(void)poll(NULL, 0, OM_CLIENT_REDIAL_STEP_MS);
		return 0;
	}
	if (s != NULL && f->info != NULL) {
		s->open = false; /* a job that never ran has no output to tell */
		return 0;
	}
	return is_get ? 0 : -1;
}

static void
follow_forget(struct follow *f)
{
	for (int i = 0; i < STREAMS; i++) {
		omerta_forget(f->cli->o, f->streams[i].ticket);
	}
	omerta_forget(f->cli->o, f->wait_ticket);
	omerta_forget(f->cli->o, f->get_ticket);
}

static bool
follow_is_over(const struct follow *f)
{
	return f->info != NULL && !f->streams[STREAM_OUT].open && !f->streams[STREAM_ERR].open;
}

int
om_cli_follow(struct om_cli *cli, const struct om_cli_follow *how, struct omerta_body **info)
{
	int64_t start = om_client_now_ms();
	struct follow f = { .cli = cli, .how = how };
	struct sigaction old;
	int rc = 0;

	f.streams[STREAM_OUT] = (struct stream){ "stdout", cli->out, how->out, 0, 0, 0, 0 };
	f.streams[STREAM_ERR] = (struct stream){ "stderr", cli->err, how->err, 0, 0, 0, 0 };
	if (how->state != NULL) {
		(void)snprintf(f.state, sizeof(f.state), "%s", how->state);
		f.state_since_ms = start;
	}
	follow_catch_interrupt(&f, &old);
	while (rc == 0 && !follow_is_over(&f)) {
		int64_t now = om_client_now_ms();
		struct omerta_body *body = NULL;
		uint64_t ticket = 0;

		if (how->timeout_ms >= 0 && now - start >= how->timeout_ms) {
			rc = om_client_fail(cli->o, "timeout", "job %s goes on", how->id);
		} else if (follow_ask(&f, now) != 0) {
			rc = follow_lost(&f, 0);
		} else if (omerta_next(cli->o, TICK_MS, &ticket, &body) == 0) {
			rc = follow_take(&f, ticket, body);
		} else if (ticket != 0) {
			rc = follow_lost(&f, ticket);
		}
		if (rc == 0 && f.info == NULL) {
			follow_progress(&f, false);
		}
	}
	follow_clear_line(&f);
	(void)sigaction(SIGINT, &old, NULL);
	if (rc != 0) {
		omerta_body_free(f.info);
		follow_forget(&f); /* does not touch the error */
		return -1;
	}
	follow_forget(&f);
	*info = f.info;
	return 0;
}

/* --- the end --------------------------------------------------------------------------------------- */

static void
summary_measured(FILE *out, const struct omerta_body *info)
{
	char a[OM_CLI_TEXT], b[OM_CLI_TEXT];

	if (omerta_has(info, "exit_code")) {
		(void)fprintf(out, "  exit %" PRId64, omerta_get_i64(info, "exit_code"));
	}
	if (omerta_get_u64(info, "signal") != 0) {
		(void)fprintf(out, "  signal %" PRIu64, omerta_get_u64(info, "signal"));
	}
	if (omerta_has(info, "wall_ms")) {
		(void)fprintf(out, "  %s wall, %s CPU",
			      om_cli_span((int64_t)omerta_get_u64(info, "wall_ms"), a),
			      om_cli_span((int64_t)omerta_get_u64(info, "cpu_ms"), b));
	}
	if (omerta_get_u64(info, "mem_peak_kib") != 0) {
		(void)fprintf(out, ", %" PRIu64 " MiB peak",
			      (omerta_get_u64(info, "mem_peak_kib") + 1023) / 1024);
	}
	if (omerta_get_u64(info, "rx_bytes") + omerta_get_u64(info, "tx_bytes") > 0) {
		(void)fprintf(out, ", %s in, %s out through the tunnel",
			      om_cli_bytes(omerta_get_u64(info, "rx_bytes"), a),
			      om_cli_bytes(omerta_get_u64(info, "tx_bytes"), b));
	}
	if (omerta_get_u64(info, "output_dropped") == 0 &&
	    omerta_get_bool(info, "output_truncated")) {
		(void)fputs(", output cut at its limit", out);
	}
	if (omerta_get_u64(info, "output_dropped") != 0) {
		(void)fprintf(out, ", %s of output over the limit dropped",
			      om_cli_bytes(omerta_get_u64(info, "output_dropped"), a));
	}
}

void
om_cli_summary(struct om_cli *cli, FILE *out, bool tty, const struct omerta_body *info)
{
	const char *state = omerta_get_str(info, "state"), *text = omerta_get_str(info, "text");
	char id[OMERTA_ID_SIZE];

	(void)fprintf(out, "job %s  %s", om_cli_short_id(cli, omerta_get_str(info, "job"), id),
		      om_cli_paint(cli, tty, om_cli_state_colour(state)));
	om_cli_clean(out, state);
	(void)fputs(om_cli_paint(cli, tty, OM_CLI_PLAIN), out);
	summary_measured(out, info);
	if (text != NULL && text[0] != '\0' && strcmp(state, "completed") != 0) {
		(void)fputs("  ", out);
		om_cli_clean(out, text);
	}
	(void)fputc('\n', out);
}
