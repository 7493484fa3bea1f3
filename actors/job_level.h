/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_LEVEL_H
#define OM_ACTORS_JOB_LEVEL_H

/* Levels of priority, the highest first. */
#include "base/buf.h"

enum om_job_level {
	OM_LEVEL_OWNER, /* priority 100 */
	OM_LEVEL_NETWORK, /* 50: a member of a trusted network */
	OM_LEVEL_EXTERNAL, /* 10: anyone else, and low priority by rule */
	OM_LEVELS,
};

/* Any thread.  "owner", "network", "external". */
const char *om_job_level_text(enum om_job_level level);
/* Any thread.  100, 50, 10. */
unsigned om_job_level_priority(enum om_job_level level);
/* Any thread.  OM_ERR_INVALID. */
enum om_err om_job_level_parse(struct om_str text, enum om_job_level *out) OM_MUST_CHECK;

#endif /* OM_ACTORS_JOB_LEVEL_H */
