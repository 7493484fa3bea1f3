/* SPDX-License-Identifier: ISC */
/*
 * Writing to the guest.  Short commands go into `out` at once; a job (script, files, START, stdin)
 * is turned into frames one by one as the socket takes them, so a job of 100 MiB costs one chunk
 * of memory.  A command that comes while a job is being loaded (stop) goes between two frames.
 */
#include "vm/guest_channel_impl.h"

#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/secret.h"

#define CHAN_PROCS_MAX  4096
#define CHAN_NOFILE_MAX 65536
#define CHAN_SIZE_MAX   (UINT64_C(1) << 32) /* bytes of a script, a file in or stdin */

void
chan_frame_begin(struct om_guest_channel *ch, unsigned type, size_t elements)
{
	static const uint8_t no_length[4];

	om_buf_drop_front(&ch->out, ch->out_at);
	ch->out_at = ch->out.len; /* meanwhile: where the frame begins */
	om_buf_add(&ch->out, no_length, sizeof(no_length));
	om_mp_put_array(&ch->out, elements);
	om_mp_put_u64(&ch->out, type);
}

void
chan_frame_end(struct om_guest_channel *ch)
{
	size_t at = ch->out_at;
	size_t len;

	ch->out_at = 0;
	if (ch->out.failed) {
		return;
	}
	len = ch->out.len - at - 4;
	OM_ASSERT(len > 0 && len <= OM_GUEST_FRAME_MAX);
	ch->out.data[at] = (uint8_t)(len >> 24);
	ch->out.data[at + 1] = (uint8_t)(len >> 16);
	ch->out.data[at + 2] = (uint8_t)(len >> 8);
	ch->out.data[at + 3] = (uint8_t)len;
}

/* --- checks --------------------------------------------------------------------------------------- */

static bool
chan_has_nul(struct om_str s)
{
	return s.len > 0 && memchr(s.ptr, 0, s.len) != NULL;
}

static bool
chan_path_ok(struct om_str path)
{
	struct om_str rest = path;

	if (path.len == 0 || path.len > OM_GUEST_PATH_MAX || path.ptr[0] == '/' ||
	    path.ptr[path.len - 1] == '/' || chan_has_nul(path)) {
		return false;
	}
	while (rest.len > 0) {
		const char *slash = memchr(rest.ptr, '/', rest.len);
		size_t n = slash != NULL ? (size_t)(slash - rest.ptr) : rest.len;
		size_t step = n + (slash != NULL);

		if (n == 0 || om_str_is((struct om_str){ rest.ptr, n }, "..") ||
		    om_str_is((struct om_str){ rest.ptr, n }, ".")) {
			return false;
		}
		rest.ptr += step;
		rest.len -= step;
	}
	return true;
}

static bool
chan_env_name_ok(struct om_str name)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = name.ptr[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

		if (!letter && (i == 0 || c < '0' || c > '9')) {
			return false;
		}
	}
	return name.len > 0;
}

static enum om_err
chan_check_strings(const struct om_guest_job *job, struct om_why *why)
{
	/* Some bytes for the head of each string. */
	size_t total = 16 * (job->arg_count + 2 * job->env_count + job->file_out_count);

	for (size_t i = 0; i < job->arg_count; i++) {
		total += job->args[i].len;
		if (chan_has_nul(job->args[i])) {
			return om_why_set(why, OM_ERR_INVALID, "argument %zu holds a NUL", i);
		}
	}
	for (size_t i = 0; i < job->env_count; i++) {
		total += job->env[i].name.len + job->env[i].value.len;
		if (!chan_env_name_ok(job->env[i].name) || chan_has_nul(job->env[i].value)) {
			return om_why_set(why, OM_ERR_INVALID, "environment variable %zu", i);
		}
	}
	for (size_t i = 0; i < job->file_out_count; i++) {
		total += job->files_out[i].len;
		if (!chan_path_ok(job->files_out[i])) {
			return om_why_set(why, OM_ERR_INVALID, "name of file out %zu", i);
		}
	}
	if (total > OM_GUEST_ARGV_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "arguments and environment over %d bytes",
				  OM_GUEST_ARGV_MAX);
	}
	return OM_OK;
}

static enum om_err
chan_check_files(const struct om_guest_job *job, struct om_why *why)
{
	for (size_t i = 0; i < job->file_in_count; i++) {
		if (!chan_path_ok(job->files_in[i].path) || job->files_in[i].mode > 0777) {
			return om_why_set(why, OM_ERR_INVALID, "name or mode of file %zu", i);
		}
		if (job->files_in[i].data.len > CHAN_SIZE_MAX) {
			return om_why_set(why, OM_ERR_TOO_BIG, "file %zu", i);
		}
	}
	if (job->script.len > CHAN_SIZE_MAX || job->stdin_data.len > CHAN_SIZE_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "script or stdin");
	}
	return OM_OK;
}

enum om_err
om_guest_job_check(const struct om_guest_job *job, struct om_why *why)
{
	enum om_err err;

	if (job->interpreter.len == 0 || job->interpreter.len > OM_GUEST_NAME_MAX ||
	    memchr(job->interpreter.ptr, '/', job->interpreter.len) != NULL ||
	    chan_has_nul(job->interpreter)) {
		return om_why_set(why, OM_ERR_INVALID, "interpreter: a name of 1 to %d bytes",
				  OM_GUEST_NAME_MAX);
	}
	if (job->arg_count > OM_GUEST_ARGS_MAX || job->env_count > OM_GUEST_ENV_MAX ||
	    job->file_in_count > OM_GUEST_FILES_MAX || job->file_out_count > OM_GUEST_FILES_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG,
				  "at most %d arguments, %d variables, %d files in and out",
				  OM_GUEST_ARGS_MAX, OM_GUEST_ENV_MAX, OM_GUEST_FILES_MAX);
	}
	if (job->files_out_max > OM_GUEST_FILES_LIMIT || job->procs_max > CHAN_PROCS_MAX ||
	    job->nofile_max > CHAN_NOFILE_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "a limit over its own limit");
	}
	err = chan_check_strings(job, why);
	return err == OM_OK ? chan_check_files(job, why) : err;
}

/* --- commands ------------------------------------------------------------------------------------- */

static enum om_err
chan_out_result(const struct om_guest_channel *ch)
{
	return ch->out.failed ? OM_ERR_NOMEM : OM_OK;
}

/* Before the first command: clock and entropy, as fresh as can be. */
static void
chan_setup(struct om_guest_channel *ch)
{
	uint8_t seed[OM_GUEST_SEED_LEN];

	if (ch->is_setup) {
		return;
	}
	ch->is_setup = true;
	om_random(seed, sizeof(seed));
	chan_frame_begin(ch, OM_GUEST_SETUP, 4);
	om_mp_put_u64(&ch->out, OM_GUEST_VERSION);
	om_mp_put_u64(&ch->out, (uint64_t)om_wall_now().ns);
	om_mp_put_bin(&ch->out, (struct om_bin){ seed, sizeof(seed) });
	chan_frame_end(ch);
	om_secret_wipe(seed, sizeof(seed));
}

enum om_err
om_guest_channel_prime(struct om_guest_channel *ch)
{
	if (ch->state != CHAN_READY || ch->is_priming) {
		return OM_ERR_STATE;
	}
	chan_setup(ch);
	chan_frame_begin(ch, OM_GUEST_PRIME, 1);
	chan_frame_end(ch);
	ch->is_priming = true;
	return chan_out_result(ch);
}

enum om_err
om_guest_channel_net(struct om_guest_channel *ch, const struct om_guest_net *net,
		     struct om_why *why)
{
	size_t dns = 0;

	if (ch->state != CHAN_READY || ch->is_net_pending) {
		return om_why_set(why, OM_ERR_STATE, "network: before the job, once");
	}
	while (dns < OM_GUEST_DNS_MAX && net->dns[dns] != NULL) {
		dns++;
	}
	chan_setup(ch);
	chan_frame_begin(ch, OM_GUEST_NET, 5);
	om_mp_put_cstr(&ch->out, net->address);
	om_mp_put_cstr(&ch->out, net->gateway);
	om_mp_put_u64(&ch->out, net->mtu);
	om_mp_put_array(&ch->out, dns);
	for (size_t i = 0; i < dns; i++) {
		om_mp_put_cstr(&ch->out, net->dns[i]);
	}
	chan_frame_end(ch);
	ch->is_net_pending = true;
	return chan_out_result(ch);
}

enum om_err
om_guest_channel_start(struct om_guest_channel *ch, const struct om_guest_job *job,
		       struct om_why *why)
{
	enum om_err err;

	if (ch->state != CHAN_READY) {
		return om_why_set(why, OM_ERR_STATE, "start: after hello, once");
	}
	err = om_guest_job_check(job, why);
	if (err != OM_OK) {
		return err;
	}
	chan_setup(ch);
	ch->job = job;
	ch->output_max = job->output_max != 0 ? job->output_max : OM_GUEST_OUTPUT_DEFAULT;
	ch->files_left = job->files_out_max != 0 ? job->files_out_max : OM_GUEST_FILES_DEFAULT;
	ch->stdin_credit = OM_GUEST_STDIN_WINDOW;
	ch->step = STEP_PUT;
	ch->state = CHAN_LOADING;
	return chan_out_result(ch);
}

enum om_err
om_guest_channel_stop(struct om_guest_channel *ch, uint32_t grace_ms)
{
	/* A START that is not out yet would be overtaken: the VM is destroyed instead. */
	if (ch->state != CHAN_RUNNING) {
		return OM_ERR_STATE;
	}
	chan_frame_begin(ch, OM_GUEST_STOP, 2);
	om_mp_put_u64(&ch->out, grace_ms);
	chan_frame_end(ch);
	return chan_out_result(ch);
}

/* --- the job, frame by frame ---------------------------------------------------------------------- */

static void
chan_put_data_frame(struct om_guest_channel *ch, enum om_guest_cmd type, struct om_bin data)
{
	chan_frame_begin(ch, type, 2);
	om_mp_put_bin(&ch->out, data);
	chan_frame_end(ch);
}

static struct om_bin
chan_put_source(const struct om_guest_channel *ch)
{
	return ch->put_index == 0 ? ch->job->script : ch->job->files_in[ch->put_index - 1].data;
}

static void
chan_step_put(struct om_guest_channel *ch)
{
	bool is_script = ch->put_index == 0;

	chan_frame_begin(ch, OM_GUEST_PUT, 4);
	om_mp_put_str(&ch->out, is_script ? OM_STR("") : ch->job->files_in[ch->put_index - 1].path);
	om_mp_put_u64(&ch->out, is_script ? 0755 : ch->job->files_in[ch->put_index - 1].mode);
	om_mp_put_u64(&ch->out, chan_put_source(ch).len);
	chan_frame_end(ch);
	ch->put_at = 0;
	ch->step = STEP_DATA;
}

static void
chan_step_data(struct om_guest_channel *ch)
{
	struct om_bin data = chan_put_source(ch);
	size_t n = data.len - ch->put_at;

	if (n > OM_GUEST_CHUNK_MAX) {
		n = OM_GUEST_CHUNK_MAX;
	}
	if (n > 0) {
		chan_put_data_frame(ch, OM_GUEST_DATA, (struct om_bin){ data.ptr + ch->put_at, n });
		ch->put_at += n;
		return;
	}
	ch->put_index++;
	ch->step = ch->put_index <= ch->job->file_in_count ? STEP_PUT : STEP_START;
}

static void
chan_step_start(struct om_guest_channel *ch)
{
	const struct om_guest_job *job = ch->job;

	chan_frame_begin(ch, OM_GUEST_START, 6);
	om_mp_put_str(&ch->out, job->interpreter);
	om_mp_put_array(&ch->out, job->arg_count);
	for (size_t i = 0; i < job->arg_count; i++) {
		om_mp_put_str(&ch->out, job->args[i]);
	}
	om_mp_put_array(&ch->out, job->env_count);
	for (size_t i = 0; i < job->env_count; i++) {
		om_mp_put_array(&ch->out, 2);
		om_mp_put_str(&ch->out, job->env[i].name);
		om_mp_put_str(&ch->out, job->env[i].value);
	}
	om_mp_put_array(&ch->out, job->file_out_count);
	for (size_t i = 0; i < job->file_out_count; i++) {
		om_mp_put_str(&ch->out, job->files_out[i]);
	}
	om_mp_put_array(&ch->out, OM_GUEST_LIMIT_COUNT);
	om_mp_put_u64(&ch->out, ch->output_max);
	om_mp_put_u64(&ch->out, ch->files_left);
	om_mp_put_u64(&ch->out, job->procs_max != 0 ? job->procs_max : OM_GUEST_PROCS_DEFAULT);
	om_mp_put_u64(&ch->out, job->nofile_max != 0 ? job->nofile_max : OM_GUEST_NOFILE_DEFAULT);
	om_mp_put_u64(&ch->out, job->stdin_data.len);
	chan_frame_end(ch);
	ch->step = job->stdin_data.len > 0 ? STEP_STDIN : STEP_END;
}

/* False: no credit, the job has to read first. */
static bool
chan_step_stdin(struct om_guest_channel *ch)
{
	struct om_bin data = ch->job->stdin_data;
	uint64_t left = data.len - ch->stdin_at;
	size_t n = left < OM_GUEST_CHUNK_MAX ? (size_t)left : OM_GUEST_CHUNK_MAX;

	if (ch->state != CHAN_LOADING && ch->state != CHAN_RUNNING) {
		ch->step = STEP_END; /* it has ended without reading all */
		return false;
	}
	if (left > 0 && ch->stdin_credit == 0) {
		return false;
	}
	if (n > ch->stdin_credit) {
		n = (size_t)ch->stdin_credit;
	}
	/* No bytes left: an empty frame is the end of file. */
	chan_put_data_frame(ch, OM_GUEST_STDIN, (struct om_bin){ data.ptr + ch->stdin_at, n });
	ch->stdin_at += n;
	ch->stdin_credit -= n;
	if (n == 0) {
		ch->step = STEP_END;
	}
	return true;
}

/* Makes the job's next frames until there is one; false when there is nothing to say. */
static bool
chan_produce(struct om_guest_channel *ch)
{
	while (ch->out.len == ch->out_at) {
		switch (ch->step) {
		case STEP_PUT:
			chan_step_put(ch);
			break;
		case STEP_DATA:
			chan_step_data(ch);
			break;
		case STEP_START:
			chan_step_start(ch);
			break;
		case STEP_STDIN:
			if (!chan_step_stdin(ch)) {
				return false;
			}
			break;
		case STEP_NONE:
		case STEP_END:
			return false;
		}
		if (ch->out.failed) {
			return false;
		}
	}
	return true;
}

bool
om_guest_channel_output(struct om_guest_channel *ch, struct om_bin *out)
{
	OM_ASSERT(ch->magic == CHAN_MAGIC);
	if (ch->state == CHAN_OVER || ch->out.failed || !chan_produce(ch)) {
		return false;
	}
	*out = (struct om_bin){ ch->out.data + ch->out_at, ch->out.len - ch->out_at };
	return true;
}

void
om_guest_channel_sent(struct om_guest_channel *ch, size_t len)
{
	OM_ASSERT(ch->magic == CHAN_MAGIC && len <= ch->out.len - ch->out_at);
	ch->out_at += len;
	if (ch->out_at == ch->out.len) {
		om_buf_reset(&ch->out);
		ch->out_at = 0;
	}
}
