/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_AUDIT_PACK_H
#define OM_STORE_AUDIT_PACK_H

/*
 * Audit rows as a table keeps them: several in one, as JSON, which SQLite's own functions and every
 * script can read.
 *
 *	[[seq, at, event, actor, job, requester, network, activity, details, hash], ...]
 *
 * at: nanoseconds since 1970; an absent text is null; hash: lower-case hex.
 */
#include "store/audit.h"

#define OM_AUDIT_PACK_ROWS 64 /* at most in one */

/* Appends one row, valid UTF-8 all of it, to buf.  A failure shows in buf->failed. */
void om_audit_pack_put(struct om_buf *buf, const struct om_audit_row *row);

/* A pack that is read. */
struct om_audit_pack {
	void *rows;
	size_t count;
};

/* false: text is no pack.  NOMEM is that too.  fini after a success. */
bool om_audit_pack_open(struct om_audit_pack *pack, struct om_str text);
void om_audit_pack_fini(struct om_audit_pack *pack);
/*
 * Row i; its texts are borrowed from the pack.  What is not as it should be is zero or absent, so that
 * its hash is wrong.
 */
void om_audit_pack_row(const struct om_audit_pack *pack, size_t i, struct om_audit_row *row);

#endif /* OM_STORE_AUDIT_PACK_H */
