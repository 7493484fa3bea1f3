/* SPDX-License-Identifier: ISC */
/*
 * A guest that says anything at all.  The input's first byte chooses the job and how the bytes are
 * cut into feeds; the rest is what the guest sends.  A valid HELLO and STARTED come first in half of
 * the runs, so that the fuzzer need not invent them.
 *
 *	clang -fsanitize=fuzzer,address,undefined ... vm/guest_channel*.c base/...  (make fuzz)
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "vm/guest_channel.h"

#define FUZZ_OUTPUT_MAX 1000
#define FUZZ_FILES_MAX  2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t hello[] = { 0, 0, 0, 7, 0x96, 65, 1, 0, 0, 0xa0, 0x90 };
static const uint8_t started[] = { 0, 0, 0, 2, 0x91, 68 };

struct totals {
	uint64_t output, files;
	size_t file_count;
	bool is_over;
};

/* What must hold whatever the guest says. */
static void
take(struct om_guest_channel *ch, struct totals *t)
{
	struct om_guest_event ev;

	while (om_guest_channel_next(ch, &ev)) {
		OM_ASSERT(!t->is_over);
		switch (ev.kind) {
		case OM_GUEST_EV_OUTPUT:
			OM_ASSERT(ev.output.stream == 1 || ev.output.stream == 2);
			t->output += ev.output.data.len;
			OM_ASSERT(t->output <= FUZZ_OUTPUT_MAX);
			break;
		case OM_GUEST_EV_FILE:
			OM_ASSERT(ev.file.index == t->file_count);
			t->file_count++;
			t->files += ev.file.data.len;
			OM_ASSERT(t->files <= FUZZ_FILES_MAX);
			break;
		case OM_GUEST_EV_DONE:
			OM_ASSERT(t->file_count == 2);
			t->is_over = true;
			break;
		case OM_GUEST_EV_FAILED:
		case OM_GUEST_EV_BROKEN:
			OM_ASSERT(ev.failed.err != OM_OK);
			t->is_over = true;
			break;
		default:
			break;
		}
	}
}

static void
drain(struct om_guest_channel *ch)
{
	struct om_bin out;

	while (om_guest_channel_output(ch, &out)) {
		om_guest_channel_sent(ch, out.len);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct om_str names[] = { { "a", 1 }, { "b", 1 } };
	static const uint8_t input[100000];
	const struct om_guest_job job = { .interpreter = { "sh", 2 },
					  .script = { input, 10 },
					  .stdin_data = { input, sizeof(input) },
					  .files_out = names,
					  .file_out_count = 2,
					  .output_max = FUZZ_OUTPUT_MAX,
					  .files_out_max = FUZZ_FILES_MAX };
	struct om_guest_channel *ch;
	struct totals t = { 0 };
	size_t step;

	if (size == 0 || (ch = om_guest_channel_new()) == NULL) {
		return 0;
	}
	step = (data[0] & 0x7f) + 1U;
	if (data[0] & 0x80) {
		OM_ASSERT(om_guest_channel_feed(ch, hello, sizeof(hello)) == OM_OK);
		take(ch, &t);
		OM_ASSERT(om_guest_channel_start(ch, &job, NULL) == OM_OK);
		drain(ch);
		OM_ASSERT(om_guest_channel_feed(ch, started, sizeof(started)) == OM_OK);
		take(ch, &t);
	}
	for (size_t at = 1; at < size; at += step) {
		size_t n = size - at < step ? size - at : step;

		OM_ASSERT(om_guest_channel_feed(ch, data + at, n) == OM_OK);
		take(ch, &t);
		drain(ch);
	}
	om_guest_channel_free(ch);
	return 0;
}
