/* SPDX-License-Identifier: ISC */
/* Jobs: submit, wait, output.  What takes long is asked in slices, and asked again after a loss. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/client_impl.h"

#define IDLE_STEP_MS 100 /* a daemon that answers "nothing" at once is not asked in a tight loop */

static bool
jobs_is_lost(const struct omerta *o)
{
	return omerta_error_is(o, "disconnected") || omerta_error_is(o, "unreachable") ||
	       omerta_error_is(o, "shutting_down");
}

int
om_client_ask_long(struct omerta *o, const char *type, const struct omerta_body *body,
		   int64_t timeout_ms, struct omerta_body **answer)
{
	int64_t now = om_client_now_ms();
	int64_t until = timeout_ms < 0 ? INT64_MAX : now + timeout_ms;
	int64_t heard_ms = now; /* when the daemon was last there */
	bool was_there = o->connected;
	int silent = 0;

	for (;; now = om_client_now_ms()) {
		int64_t left = until - now;
		uint64_t ticket;

		if (left <= 0) {
			return om_client_fail(o, "timeout", "not yet, after %lld ms",
					      (long long)timeout_ms);
		}
		if (omerta_start(o, type, body,
				 left < OM_CLIENT_SLICE_MS ? left : OM_CLIENT_SLICE_MS,
				 &ticket) == 0) {
			was_there = true;
			heard_ms = om_client_now_ms();
			if (omerta_finish(o, ticket, answer) == 0) {
				return 0;
			}
		}
		if (omerta_error_is(o, "timeout")) {
			silent = o->answered ? 0 : silent + 1;
			if (silent == OM_CLIENT_SILENT_MAX) {
				return -1;
			}
		} else if (was_there && jobs_is_lost(o) &&
			   om_client_now_ms() - heard_ms < OM_CLIENT_REDIAL_MS) {
			(void)poll(NULL, 0,
				   (int)(left < OM_CLIENT_REDIAL_STEP_MS
					     ? left
					     : OM_CLIENT_REDIAL_STEP_MS));
		} else {
			return -1;
		}
	}
}

int
omerta_submit_body(struct omerta *o, const struct omerta_body *job, struct omerta_body **accepted)
{
	return omerta_call(o, "job.submit", job, accepted);
}

int
omerta_submit(struct omerta *o, const struct omerta_body *job, char id[OMERTA_ID_SIZE])
{
	struct omerta_body *accepted = NULL;

	id[0] = '\0';
	if (omerta_submit_body(o, job, &accepted) != 0) {
		return -1;
	}
	(void)snprintf(id, OMERTA_ID_SIZE, "%s", omerta_get_str(accepted, "job"));
	omerta_body_free(accepted);
	return 0;
}

int
omerta_job_add_file(struct omerta *o, struct omerta_body *job, const char *name, const char *path)
{
	struct omerta_body *file;
	struct om_buf data = { .max = OM_CLIENT_FILE_MAX };
	char piece[65536];
	FILE *in = fopen(path, "rbe");
	size_t n;
	int rc = 0;

	om_client_clear(o);
	if (in == NULL) {
		return om_client_fail_err(o, om_err_from_errno(errno), "%s: %s", path,
					  strerror(errno));
	}
	while ((n = fread(piece, 1, sizeof(piece), in)) > 0 && !data.failed) {
		om_buf_add(&data, piece, n);
	}
	if (ferror(in)) {
		rc = om_client_fail_err(o, OM_ERR_IO, "%s: %s", path, strerror(errno));
	} else if (data.failed) {
		rc = om_client_fail_err(o, OM_ERR_TOO_BIG, "%s is over %d MiB", path,
					OM_CLIENT_FILE_MAX >> 20);
	} else {
		file = omerta_add_body(job, "files");
		omerta_set_str(file, "name", name);
		omerta_set_bin(file, "data", data.data, data.len);
	}
	(void)fclose(in);
	om_buf_fini(&data);
	return rc;
}

int
omerta_wait(struct omerta *o, const char *id, int64_t timeout_ms, struct omerta_body **info)
{
	return omerta_wait_change(o, id, NULL, timeout_ms, info);
}

int
omerta_wait_change(struct omerta *o, const char *id, const char *from, int64_t timeout_ms,
		   struct omerta_body **info)
{
	struct omerta_body *ref = omerta_body_new("job.wait");
	int rc;

	omerta_set_str(ref, "job", id);
	if (from != NULL) {
		omerta_set_str(ref, "from", from);
	}
	rc = om_client_ask_long(o, "job.wait", ref, timeout_ms, info);
	omerta_body_free(ref);
	return rc;
}

/* The last of the array's jobs that has not ended: likely the last to end, so few questions are asked. */
static int
jobs_array_live(struct omerta *o, const char *id, struct omerta_body **table,
		char last[OMERTA_ID_SIZE])
{
	struct omerta_body *query = omerta_body_new("job.list");
	int rc;

	last[0] = '\0';
	omerta_set_str(query, "array", id);
	omerta_set_u64(query, "limit", OMERTA_ARRAY_MAX);
	rc = omerta_list(o, query, table);
	omerta_body_free(query);
	for (size_t i = 0; rc == 0 && i < omerta_count(*table, "jobs"); i++) {
		const struct omerta_body *job = omerta_body_at(*table, "jobs", i);

		if (!omerta_state_is_final(omerta_get_str(job, "state"))) {
			(void)snprintf(last, OMERTA_ID_SIZE, "%s", omerta_get_str(job, "job"));
		}
	}
	return rc;
}

int
omerta_wait_array(struct omerta *o, const char *id, int64_t timeout_ms, struct omerta_body **table)
{
	int64_t until = timeout_ms < 0 ? INT64_MAX : om_client_now_ms() + timeout_ms;
	char last[OMERTA_ID_SIZE];

	for (;;) {
		struct omerta_body *info = NULL;
		int64_t left = until - om_client_now_ms();

		if (jobs_array_live(o, id, table, last) != 0) {
			return -1;
		}
		if (last[0] == '\0') {
			return 0;
		}
		omerta_body_free(*table);
		*table = NULL;
		if (omerta_wait(o, last,
				timeout_ms < 0 ? OMERTA_FOREVER
				: left > 0     ? left
					       : 0,
				&info) != 0) {
			return -1;
		}
		omerta_body_free(info);
	}
}

/* One piece.  1: go on, 0: all there is, -1: error. */
static int
jobs_piece(struct omerta *o, const struct omerta_body *query, bool follow, uint64_t *offset,
	   uint64_t *attempt, omerta_sink_fn *sink, void *arg)
{
	struct omerta_body *piece = NULL;
	const void *data;
	size_t len;
	int rc;

	if (om_client_ask_long(o, "job.output", query, follow ? OMERTA_FOREVER : o->timeout_ms,
			       &piece) != 0) {
		return -1;
	}
	data = omerta_get_bin(piece, "data", &len);
	if (*attempt != 0 && omerta_get_u64(piece, "attempt") != *attempt && *offset > 0) {
		*offset = 0;
		if (sink(arg, NULL, 0) != 0) {
			omerta_body_free(piece);
			return om_client_fail(o, "cancelled", "stopped by the receiver");
		}
	}
	*attempt = omerta_get_u64(piece, "attempt");
	if (len > 0 && omerta_get_u64(piece, "offset") != *offset) {
		rc = om_client_fail(o, "protocol", "a piece of output from another place");
	} else if (len > 0 && sink(arg, data, len) != 0) {
		rc = om_client_fail(o, "cancelled", "stopped by the receiver");
	} else {
		*offset += len;
		rc = 1;
		if (omerta_get_bool(piece, "end") ||
		    (!follow && (len == 0 || *offset >= omerta_get_u64(piece, "size")))) {
			rc = 0;
		} else if (len == 0) {
			(void)poll(NULL, 0, IDLE_STEP_MS);
		}
	}
	omerta_body_free(piece);
	return rc;
}

static int
jobs_transfer(struct omerta *o, const char *id, const char *kind, const char *name, bool follow,
	      uint64_t *offset, omerta_sink_fn *sink, void *arg)
{
	uint64_t at = 0, attempt = 0;
	int rc = 1;

	if (offset == NULL) {
		offset = &at;
	}
	while (rc > 0) {
		struct omerta_body *query = omerta_body_new("job.output");

		omerta_set_str(query, "job", id);
		omerta_set_str(query, kind, name);
		omerta_set_u64(query, "offset", *offset);
		omerta_set_u64(query, "limit", OM_CLIENT_CHUNK);
		omerta_set_bool(query, "follow", follow);
		if (attempt != 0) {
			omerta_set_u64(query, "attempt", attempt);
		}
		rc = jobs_piece(o, query, follow, offset, &attempt, sink, arg);
		omerta_body_free(query);
	}
	return rc;
}

int
omerta_output(struct omerta *o, const char *id, const char *stream, bool follow, uint64_t *offset,
	      omerta_sink_fn *sink, void *arg)
{
	return jobs_transfer(o, id, "stream", stream, follow, offset, sink, arg);
}

int
omerta_file(struct omerta *o, const char *id, const char *name, uint64_t *offset,
	    omerta_sink_fn *sink, void *arg)
{
	return jobs_transfer(o, id, "file", name, false, offset, sink, arg);
}

bool
omerta_state_is_final(const char *state)
{
	static const char *const going[] = { "received", "pending_approval", "queued",
					     "provisioning", "running" };

	for (size_t i = 0; i < OM_COUNT(going); i++) {
		if (strcmp(state, going[i]) == 0) {
			return false;
		}
	}
	return true;
}
