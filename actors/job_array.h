/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_ARRAY_H
#define OM_ACTORS_JOB_ARRAY_H

/*
 * Job arrays: many jobs from one body, each with an index of its own.  Any thread.
 *
 * The notation is Slurm's: "0-9", "1,3,5-7", "0-15:4" (a step), and "%N" at the end: at most N of
 * them run at one time.  The jobs of the array `ID` are ID_0, ID_1 ...; each is a job like others.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/id.h"

#define OM_ARRAY_JOBS_MAX  1000 /* jobs of one array */
#define OM_ARRAY_INDEX_MAX 999999
#define OM_ARRAY_ID_MAX    (OM_JOB_ID_MAX - 7) /* of the array: "_" and the index follow */
#define OM_ARRAY_BYTES_MAX (UINT64_C(64) << 20) /* body of one job times their number */

struct om_job_array {
	uint32_t index[OM_ARRAY_JOBS_MAX]; /* as they were named */
	uint32_t count;
	uint32_t limit; /* running at one time; 0: no limit */
};

/* INVALID with the reason: not this notation, an index twice, too many. */
enum om_err om_job_array_parse(struct om_str text, struct om_job_array *out,
			       struct om_why *why) OM_MUST_CHECK;

/* The id of one of its jobs.  INVALID: the array's id is too long. */
enum om_err om_job_array_member(struct om_str array, uint32_t index,
				struct om_job_id *out) OM_MUST_CHECK;

/* The array's id and the index of a member's id.  false: the id is not of that form. */
bool om_job_array_split(struct om_str id, struct om_str *array, uint32_t *index);

#endif /* OM_ACTORS_JOB_ARRAY_H */
