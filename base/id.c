/* SPDX-License-Identifier: ISC */
#include "base/id.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include "base/assert.h"
#include "base/parse.h"
#include "base/short.h"

void
om_random(void *out, size_t len)
{
	unsigned char *at = out;

	while (len > 0) {
		ssize_t n = getrandom(at, len, 0);

		OM_ASSERT(n > 0 || (n < 0 && errno == EINTR));
		if (n > 0) {
			at += n;
			len -= (size_t)n;
		}
	}
}

/*
 * Ids that are drawn one after the other are neighbours: a run of 256 shares its first byte, the
 * second counts, the rest is random.  So a group of new jobs enters a few pages of the ledger's index
 * on ids instead of one page each (with 200,000 jobs stored, 100,000 submits a second instead of
 * 20,000), and four digits tell the jobs of a run apart.
 */
#define ID_RUN    256
#define ID_RANDOM 64 /* ids' worth of random bytes in one system call */
#define ID_TAIL   (OM_JOB_ID_LEN / 2 - 2) /* bytes behind head and count */

struct om_job_id
om_job_id_new(void)
{
	static _Thread_local struct {
		unsigned char head;
		unsigned used;
		unsigned char tails[ID_RANDOM][ID_TAIL];
	} run = { .used = ID_RUN };
	struct om_job_id id = { .text = "" };
	unsigned char raw[OM_JOB_ID_LEN / 2];

	if (run.used == ID_RUN) {
		om_random(&run.head, sizeof(run.head));
		run.used = 0;
	}
	if (run.used % ID_RANDOM == 0) {
		om_random(run.tails, sizeof(run.tails));
	}
	raw[0] = run.head;
	raw[1] = (unsigned char)run.used;
	memcpy(raw + 2, run.tails[run.used++ % ID_RANDOM], ID_TAIL);
	om_hex(raw, sizeof(raw), id.text);
	return id;
}

/* What an id is made of; it starts with none of the last three. */
static const bool id_char[256] = {
	['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true,
	['.'] = true,         ['_'] = true,         ['-'] = true,
};

enum om_err
om_job_id_parse(const char *text, size_t len, struct om_job_id *out)
{
	struct om_job_id id = { .text = "" };

	if (len == 0 || len > OM_JOB_ID_MAX || text[0] == '.' || text[0] == '_' || text[0] == '-') {
		return OM_ERR_INVALID;
	}
	for (size_t i = 0; i < len; i++) {
		if (!id_char[(uint8_t)text[i]]) {
			return OM_ERR_INVALID;
		}
	}
	om_short_copy_any(id.text, text, len);
	*out = id;
	return OM_OK;
}
