/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_ID_H
#define OM_BASE_ID_H

#include "base/err.h"

#define OM_JOB_ID_LEN 12 /* hex digits of a generated id */
#define OM_JOB_ID_MAX 64 /* bytes of any id, also one that a client chose */

/* One id everywhere: on the wire, in the ledger, in names of domains and files.  NUL-terminated. */
struct om_job_id {
	char text[OM_JOB_ID_MAX + 1];
};

/* Any thread.  Random bytes from the kernel; OM_ASSERTs that getrandom(2) works. */
void om_random(void *out, size_t len);

/*
 * Any thread.  A fresh id of OM_JOB_ID_LEN lower-case hex digits: unique for practical purposes (the
 * ledger refuses a second one), not a secret.  Ids of one thread come in runs of neighbours.
 */
struct om_job_id om_job_id_new(void);

/*
 * Any thread.  Takes an id that a client chose: 1 to OM_JOB_ID_MAX bytes of [A-Za-z0-9._-], the
 * first alphanumeric (it appears in file names).  OM_ERR_INVALID otherwise.
 */
enum om_err om_job_id_parse(const char *text, size_t len, struct om_job_id *out) OM_MUST_CHECK;

#endif /* OM_BASE_ID_H */
