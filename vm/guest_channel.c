/* SPDX-License-Identifier: ISC */
/*
 * Reading what the guest says.
 *
 * 1. A frame is decoded only when it is whole and its length is within OM_GUEST_FRAME_MAX; so at
 *    most one frame and what one feed brings is held.
 * 2. A message is accepted only in a state of chan_accepts[]; anything else is a violation.
 * 3. Totals (output, files out, stdin credit) are counted here, whatever the guest says of them.
 * 4. After a violation the state is CHAN_OVER: the channel gives no event any more.
 * If one is broken: a guest makes the host spend memory, or tells of a job what did not happen.
 */
#include "vm/guest_channel_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define CHAN_IN_MAX  (2U * OM_GUEST_FRAME_MAX + 8)
#define CHAN_CPU_MAX (UINT64_C(1) << 60)

typedef enum om_err (*chan_fn)(struct om_guest_channel *ch, struct om_mp *mp,
			       struct om_guest_event *out);

struct om_guest_channel *
om_guest_channel_new(void)
{
	struct om_guest_channel *ch = calloc(1, sizeof(*ch));

	if (ch != NULL) {
		ch->magic = CHAN_MAGIC;
		ch->in.max = CHAN_IN_MAX;
	}
	return ch;
}

void
om_guest_channel_free(struct om_guest_channel *ch)
{
	if (ch == NULL) {
		return;
	}
	OM_ASSERT(ch->magic == CHAN_MAGIC);
	ch->magic = 0;
	om_buf_fini(&ch->in);
	om_buf_fini(&ch->file);
	om_buf_fini(&ch->out);
	free(ch);
}

/* --- messages: the type and the element count are checked already --------------------------------- */

static bool
chan_text(struct om_mp *mp, size_t max, struct om_str *out)
{
	return om_mp_str(mp, out) == OM_OK && out->len <= max;
}

static enum om_err
chan_on_hello(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	struct om_guest_hello *h = &out->hello;
	uint64_t version;

	if (om_mp_u64(mp, &version) != OM_OK || version != OM_GUEST_VERSION ||
	    om_mp_u64(mp, &h->boot_ms) != OM_OK || om_mp_u64(mp, &h->mem_kib) != OM_OK ||
	    !chan_text(mp, OM_GUEST_TEXT_MAX, &h->kernel) ||
	    om_mp_array(mp, &h->lang_count) != OM_OK || h->lang_count > OM_GUEST_LANGS_MAX) {
		return OM_ERR_GUEST;
	}
	for (size_t i = 0; i < h->lang_count; i++) {
		if (!chan_text(mp, OM_GUEST_NAME_MAX, &h->langs[i])) {
			return OM_ERR_GUEST;
		}
	}
	out->kind = OM_GUEST_EV_HELLO;
	ch->state = CHAN_READY;
	return OM_OK;
}

static enum om_err
chan_on_primed(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	(void)mp;
	if (!ch->is_priming) {
		return OM_ERR_GUEST;
	}
	ch->is_priming = false;
	out->kind = OM_GUEST_EV_PRIMED;
	return OM_OK;
}

static enum om_err
chan_on_net_up(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	(void)mp;
	if (!ch->is_net_pending) {
		return OM_ERR_GUEST;
	}
	ch->is_net_pending = false;
	out->kind = OM_GUEST_EV_NET_UP;
	return OM_OK;
}

static enum om_err
chan_on_started(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	(void)mp;
	if (ch->step != STEP_STDIN && ch->step != STEP_END) {
		return OM_ERR_GUEST; /* we have not even sent START */
	}
	ch->state = CHAN_RUNNING;
	out->kind = OM_GUEST_EV_STARTED;
	return OM_OK;
}

/* Gives an event only for bytes within the limit: kind 0 with no data is skipped by the caller. */
static enum om_err
chan_on_output(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	struct om_bin data;
	uint64_t stream, left;

	if (om_mp_u64(mp, &stream) != OM_OK || stream < 1 || stream > 2 ||
	    om_mp_bin(mp, &data) != OM_OK || data.len == 0 || data.len > OM_GUEST_CHUNK_MAX) {
		return OM_ERR_GUEST;
	}
	left = ch->output_max - ch->output_bytes;
	if (data.len > left) {
		/* Our agent stops by itself; the limit holds against one that does not. */
		ch->dropped[stream - 1] += data.len - left;
		data.len = (size_t)left;
	}
	ch->output_bytes += data.len;
	out->kind = OM_GUEST_EV_OUTPUT;
	out->output.stream = (int)stream;
	out->output.data = data;
	return OM_OK;
}

static enum om_err
chan_on_credit(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	uint64_t n;

	(void)out;
	if (om_mp_u64(mp, &n) != OM_OK || n > OM_GUEST_STDIN_WINDOW - ch->stdin_credit) {
		return OM_ERR_GUEST;
	}
	ch->stdin_credit += n;
	return OM_OK;
}

static enum om_err
chan_on_exit(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	struct om_guest_exit *e = &out->exit;
	uint64_t signal, *const numbers[] = { &e->cpu_us,       &e->peak_kib,    &e->group_peak_kib,
					      &e->dropped_out,  &e->dropped_err, &e->oom_kills,
					      &e->refused_forks };
	int64_t code;

	if (om_mp_i64(mp, &code) != OM_OK || code < -1 || code > 255 ||
	    om_mp_u64(mp, &signal) != OM_OK || signal > 64 || (code == -1) != (signal != 0)) {
		return OM_ERR_GUEST;
	}
	for (size_t i = 0; i < OM_COUNT(numbers); i++) {
		/* Bounded, so that whoever adds them up does not overflow. */
		if (om_mp_u64(mp, numbers[i]) != OM_OK || *numbers[i] > CHAN_CPU_MAX) {
			return OM_ERR_GUEST;
		}
	}
	if (om_mp_bool(mp, &e->stopped) != OM_OK) {
		return OM_ERR_GUEST;
	}
	e->exit_code = (int)code;
	e->signal = (int)signal;
	e->dropped_out += ch->dropped[0];
	e->dropped_err += ch->dropped[1];
	ch->state = CHAN_EXITED;
	out->kind = OM_GUEST_EV_EXITED;
	return OM_OK;
}

static void
chan_file_event(struct om_guest_channel *ch, struct om_guest_event *out)
{
	out->kind = OM_GUEST_EV_FILE;
	out->file.index = ch->file_index;
	out->file.mode = ch->file_mode;
	out->file.data = (struct om_bin){ ch->file.data, ch->file.len };
}

static enum om_err
chan_on_file(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	uint64_t index, mode, size;
	struct om_str error;

	if (om_mp_u64(mp, &index) != OM_OK || om_mp_u64(mp, &mode) != OM_OK || mode > 0777 ||
	    om_mp_u64(mp, &size) != OM_OK || !chan_text(mp, OM_GUEST_TEXT_MAX, &error)) {
		return OM_ERR_GUEST;
	}
	/* One after the other, each once, together within the limit. */
	if (ch->file_left > 0 || index != ch->files_told || index >= ch->job->file_out_count ||
	    size > ch->files_left || (error.len > 0 && size > 0)) {
		return OM_ERR_GUEST;
	}
	ch->files_told++;
	ch->files_left -= size;
	ch->file_left = size;
	ch->file_index = (size_t)index;
	ch->file_mode = (uint32_t)mode;
	om_buf_reset(&ch->file);
	if (size == 0) {
		chan_file_event(ch, out);
		out->file.error = error;
	}
	return OM_OK;
}

static enum om_err
chan_on_file_data(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	struct om_bin data;

	if (om_mp_bin(mp, &data) != OM_OK || data.len == 0 || data.len > OM_GUEST_CHUNK_MAX ||
	    data.len > ch->file_left) {
		return OM_ERR_GUEST;
	}
	om_buf_add(&ch->file, data.ptr, data.len);
	if (ch->file.failed) {
		return OM_ERR_NOMEM;
	}
	ch->file_left -= data.len;
	if (ch->file_left == 0) {
		chan_file_event(ch, out);
	}
	return OM_OK;
}

static enum om_err
chan_on_done(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	(void)mp;
	if (ch->file_left > 0 || ch->files_told != ch->job->file_out_count) {
		return OM_ERR_GUEST;
	}
	ch->state = CHAN_OVER;
	out->kind = OM_GUEST_EV_DONE;
	return OM_OK;
}

static enum om_err
chan_on_failed(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	struct om_str code;

	if (!chan_text(mp, OM_GUEST_NAME_MAX, &code) ||
	    !chan_text(mp, OM_GUEST_TEXT_MAX, &out->failed.text)) {
		return OM_ERR_GUEST;
	}
	out->failed.err = om_err_from_code(code.ptr, code.len);
	ch->state = CHAN_OVER;
	out->kind = OM_GUEST_EV_FAILED;
	return OM_OK;
}

#define IN(state) (1U << (state))

static const struct {
	chan_fn fn;
	uint8_t elements; /* type included */
	uint8_t states;
} chan_accepts[] = {
	[OM_GUEST_HELLO - OM_GUEST_HELLO] = { chan_on_hello, 6, IN(CHAN_BOOTING) },
	[OM_GUEST_PRIMED -
	    OM_GUEST_HELLO] = { chan_on_primed, 1, IN(CHAN_READY) | IN(CHAN_LOADING) },
	[OM_GUEST_NET_UP -
	    OM_GUEST_HELLO] = { chan_on_net_up, 1, IN(CHAN_READY) | IN(CHAN_LOADING) },
	[OM_GUEST_STARTED - OM_GUEST_HELLO] = { chan_on_started, 1, IN(CHAN_LOADING) },
	[OM_GUEST_OUTPUT - OM_GUEST_HELLO] = { chan_on_output, 3, IN(CHAN_RUNNING) },
	[OM_GUEST_CREDIT -
	    OM_GUEST_HELLO] = { chan_on_credit, 2, IN(CHAN_RUNNING) | IN(CHAN_EXITED) },
	[OM_GUEST_EXIT - OM_GUEST_HELLO] = { chan_on_exit, 11, IN(CHAN_RUNNING) },
	[OM_GUEST_FILE - OM_GUEST_HELLO] = { chan_on_file, 5, IN(CHAN_EXITED) },
	[OM_GUEST_FILE_DATA - OM_GUEST_HELLO] = { chan_on_file_data, 2, IN(CHAN_EXITED) },
	[OM_GUEST_DONE - OM_GUEST_HELLO] = { chan_on_done, 1, IN(CHAN_EXITED) },
	[OM_GUEST_FAILED -
	    OM_GUEST_HELLO] = { chan_on_failed, 3, IN(CHAN_READY) | IN(CHAN_LOADING) },
};

/* --- frames --------------------------------------------------------------------------------------- */

static enum om_err
chan_decode(struct om_guest_channel *ch, struct om_mp *mp, struct om_guest_event *out)
{
	size_t elements;
	uint64_t type;
	enum om_err err;

	if (om_mp_array(mp, &elements) != OM_OK || om_mp_u64(mp, &type) != OM_OK ||
	    type < OM_GUEST_HELLO || type - OM_GUEST_HELLO >= OM_COUNT(chan_accepts)) {
		return OM_ERR_GUEST;
	}
	type -= OM_GUEST_HELLO;
	if (elements != chan_accepts[type].elements ||
	    (chan_accepts[type].states & IN(ch->state)) == 0) {
		return OM_ERR_GUEST;
	}
	err = chan_accepts[type].fn(ch, mp, out);
	return err == OM_OK && !om_mp_done(mp) ? OM_ERR_GUEST : err;
}

/* The next whole frame; OM_ERR_NOT_FOUND when there is none yet. */
static enum om_err
chan_frame(struct om_guest_channel *ch, struct om_mp *mp)
{
	const uint8_t *at = ch->in.data + ch->in_at;
	size_t have = ch->in.len - ch->in_at;
	size_t len;

	if (have < 4) {
		return OM_ERR_NOT_FOUND;
	}
	len = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
	if (len == 0 || len > OM_GUEST_FRAME_MAX) {
		return OM_ERR_GUEST;
	}
	if (have - 4 < len) {
		return OM_ERR_NOT_FOUND;
	}
	om_mp_init(mp, at + 4, len);
	ch->in_at += 4 + len;
	return OM_OK;
}

enum om_err
om_guest_channel_feed(struct om_guest_channel *ch, const void *data, size_t len)
{
	OM_ASSERT(ch->magic == CHAN_MAGIC);
	if (ch->state == CHAN_OVER) {
		return OM_OK; /* nobody is interested any more */
	}
	om_buf_drop_front(&ch->in, ch->in_at);
	ch->in_at = 0;
	if (len > CHAN_IN_MAX - ch->in.len) {
		return OM_ERR_TOO_BIG;
	}
	om_buf_add(&ch->in, data, len);
	return ch->in.failed ? OM_ERR_NOMEM : OM_OK;
}

bool
om_guest_channel_next(struct om_guest_channel *ch, struct om_guest_event *out)
{
	OM_ASSERT(ch->magic == CHAN_MAGIC);
	while (ch->state != CHAN_OVER) {
		struct om_mp mp;
		enum om_err err = chan_frame(ch, &mp);

		if (err == OM_ERR_NOT_FOUND) {
			return false;
		}
		memset(out, 0, sizeof(*out));
		out->kind = OM_GUEST_EV_BROKEN;
		if (err == OM_OK) {
			err = chan_decode(ch, &mp, out);
		}
		if (err != OM_OK) {
			ch->state = CHAN_OVER;
			memset(out, 0, sizeof(*out));
			out->kind = OM_GUEST_EV_BROKEN;
			out->failed.err = err;
			out->failed.text = om_str_of("the guest agent broke its protocol");
			return true;
		}
		/* Still BROKEN: a frame that is no event (credit, part of a file). */
		if (out->kind == OM_GUEST_EV_BROKEN ||
		    (out->kind == OM_GUEST_EV_OUTPUT && out->output.data.len == 0)) {
			continue;
		}
		return true;
	}
	return false;
}

uint64_t
om_guest_channel_output_bytes(const struct om_guest_channel *ch)
{
	return ch->output_bytes;
}

uint64_t
om_guest_channel_output_max(const struct om_guest_channel *ch)
{
	return ch->output_max;
}

uint64_t
om_guest_channel_dropped_bytes(const struct om_guest_channel *ch)
{
	return ch->dropped[0] + ch->dropped[1];
}
