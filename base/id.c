/* SPDX-License-Identifier: ISC */
#include "base/id.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include "base/assert.h"
#include "base/parse.h"

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

struct om_job_id
om_job_id_new(void)
{
	struct om_job_id id = { .text = "" };
	unsigned char raw[OM_JOB_ID_LEN / 2];

	om_random(raw, sizeof(raw));
	om_hex(raw, sizeof(raw), id.text);
	return id;
}

static bool
is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

enum om_err
om_job_id_parse(const char *text, size_t len, struct om_job_id *out)
{
	struct om_job_id id = { .text = "" };

	if (len == 0 || len > OM_JOB_ID_MAX || !is_alnum(text[0])) {
		return OM_ERR_INVALID;
	}
	for (size_t i = 0; i < len; i++) {
		if (!is_alnum(text[i]) && text[i] != '.' && text[i] != '_' && text[i] != '-') {
			return OM_ERR_INVALID;
		}
		id.text[i] = text[i];
	}
	*out = id;
	return OM_OK;
}
