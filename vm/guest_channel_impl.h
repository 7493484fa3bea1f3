/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_GUEST_CHANNEL_IMPL_H
#define OM_VM_GUEST_CHANNEL_IMPL_H

/* Shared by the vm/guest_channel*.c files; nobody else includes it. */
#include "base/mp.h"
#include "vm/guest_channel.h"

enum chan_state {
	CHAN_BOOTING, /* before HELLO */
	CHAN_READY,
	CHAN_LOADING, /* start() was called: script, files and START are on their way */
	CHAN_RUNNING,
	CHAN_EXITED, /* files out follow */
	CHAN_OVER, /* DONE, FAILED or BROKEN */
	CHAN_STATE_COUNT
};

/* Where the writer is in the job; each step makes one frame or moves on. */
enum chan_step {
	STEP_NONE,
	STEP_PUT, /* the head of put_index: 0 is the script, then files_in */
	STEP_DATA,
	STEP_START,
	STEP_STDIN,
	STEP_END,
};

struct om_guest_channel {
	unsigned magic;
	enum chan_state state;

	/* reading */
	struct om_buf in;
	size_t in_at;
	uint64_t output_bytes, dropped[2];
	struct om_buf file; /* the file out under way */
	size_t file_index, files_told;
	uint64_t file_left, files_left;
	uint32_t file_mode;
	bool is_priming, is_net_pending, is_setup;

	/* writing */
	struct om_buf out;
	size_t out_at;
	enum chan_step step;
	const struct om_guest_job *job;
	uint64_t output_max;
	size_t put_index, put_at;
	uint64_t stdin_at, stdin_credit;
};

#define CHAN_MAGIC 0x67636831 /* "gch1" */

void chan_frame_begin(struct om_guest_channel *ch, unsigned type, size_t elements);
void chan_frame_end(struct om_guest_channel *ch);

#endif /* OM_VM_GUEST_CHANNEL_IMPL_H */
