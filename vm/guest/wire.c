/* SPDX-License-Identifier: ISC */
/*
 * Frames over the virtio-serial port.  The port is nonblocking: a job that prints faster than the
 * host reads is held up by its pipe, never the agent by the port.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vm/guest/agent.h"

/* Output that may wait in the agent: beyond it no pipe of the job is read. */
#define WIRE_OUT_HIGH (4U * OM_GUEST_CHUNK_MAX)

void
wire_init(struct wire *w, int fd)
{
	memset(w, 0, sizeof(*w));
	w->fd = fd;
}

static void
wire_compact(struct om_buf *buf, size_t *at)
{
	om_buf_drop_front(buf, *at);
	*at = 0;
}

bool
wire_fill(struct wire *w)
{
	ssize_t n;

	wire_compact(&w->in, &w->in_at);
	if (om_buf_reserve(&w->in, OM_GUEST_CHUNK_MAX) != OM_OK) {
		boot_die("out of memory");
	}
	n = read(w->fd, w->in.data + w->in.len, OM_GUEST_CHUNK_MAX);
	if (n > 0) {
		w->connected = true;
		w->in.len += (size_t)n;
		return true;
	}
	/* The port reads as 0 while no host is connected. */
	return n < 0 ? errno == EAGAIN || errno == EINTR : !w->connected;
}

int
wire_next(struct wire *w, struct om_mp *frame)
{
	const uint8_t *at = w->in.data + w->in_at;
	size_t have = w->in.len - w->in_at;
	size_t len;

	if (have < 4) {
		return 0;
	}
	len = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
	if (len == 0 || len > OM_GUEST_FRAME_MAX) {
		return -1;
	}
	if (have - 4 < len) {
		return 0;
	}
	om_mp_init(frame, at + 4, len);
	w->in_at += 4 + len;
	return 1;
}

void
wire_begin(struct wire *w, unsigned type, size_t elements)
{
	static const uint8_t no_length[4];

	if (w->out_at == w->out.len) {
		om_buf_reset(&w->out);
		w->out_at = 0;
	}
	w->frame_at = w->out.len;
	om_buf_add(&w->out, no_length, sizeof(no_length));
	om_mp_put_array(&w->out, elements);
	om_mp_put_u64(&w->out, type);
}

void
wire_end(struct wire *w)
{
	size_t len;
	uint8_t *at;

	if (w->out.failed) {
		boot_die("out of memory");
	}
	at = w->out.data + w->frame_at;
	len = w->out.len - w->frame_at - 4;
	at[0] = (uint8_t)(len >> 24);
	at[1] = (uint8_t)(len >> 16);
	at[2] = (uint8_t)(len >> 8);
	at[3] = (uint8_t)len;
}

bool
wire_flush(struct wire *w)
{
	while (w->out_at < w->out.len) {
		ssize_t n = write(w->fd, w->out.data + w->out_at, w->out.len - w->out_at);

		if (n > 0) {
			w->connected = true;
			w->out_at += (size_t)n;
			continue;
		}
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	}
	return true;
}

bool
wire_pending(const struct wire *w)
{
	return w->out_at < w->out.len;
}

bool
wire_has_room(const struct wire *w)
{
	return w->out.len - w->out_at < WIRE_OUT_HIGH;
}
