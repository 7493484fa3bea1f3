/* SPDX-License-Identifier: ISC */
#include "actors/job_level.h"

#include "base/assert.h"

static const struct {
	const char *text;
	unsigned priority;
} levels[OM_LEVELS] = {
	[OM_LEVEL_OWNER] = { "owner", 100 },
	[OM_LEVEL_NETWORK] = { "network", 50 },
	[OM_LEVEL_EXTERNAL] = { "external", 10 },
};

const char *
om_job_level_text(enum om_job_level level)
{
	OM_ASSERT((unsigned)level < OM_LEVELS);
	return levels[level].text;
}

unsigned
om_job_level_priority(enum om_job_level level)
{
	OM_ASSERT((unsigned)level < OM_LEVELS);
	return levels[level].priority;
}

enum om_err
om_job_level_parse(struct om_str text, enum om_job_level *out)
{
	for (unsigned i = 0; i < OM_LEVELS; i++) {
		if (om_str_is(text, levels[i].text)) {
			*out = (enum om_job_level)i;
			return OM_OK;
		}
	}
	return OM_ERR_INVALID;
}
