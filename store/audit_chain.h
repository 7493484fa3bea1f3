/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_AUDIT_CHAIN_H
#define OM_STORE_AUDIT_CHAIN_H

/*
 * The hash chain of the audit, the same for every backend.
 *
 * hash(row) = SHA-256("omerta-audit-1" | hash(row - 1) | seq | at | fields), integers as 8 bytes
 * big-endian, each text field as a 4-byte big-endian length and its bytes (0xffffffff: absent), in
 * the order event actor job requester network activity details.  The row before the first has a hash
 * of 32 zero bytes.  Lengths in front of every field: no two rows have the same encoding.
 */
#include "store/audit.h"

struct om_hasher; /* SHA-256 of libcrypto (it uses the CPU's own instructions) */

/* Any thread; a hasher is used by one thread at a time.  NULL: libcrypto refuses. */
struct om_hasher *om_hasher_new(void);
void om_hasher_free(struct om_hasher *hasher); /* NULL is fine */

/* SHA-256 of data.  false: libcrypto failed (no memory). */
bool om_hash(struct om_hasher *hasher, struct om_bin data, uint8_t out[OM_HASH_LEN]);

/* The hash of row (row->hash is not read) after a row whose hash is prev. */
bool om_audit_hash(struct om_hasher *hasher, const uint8_t prev[OM_HASH_LEN],
		   const struct om_audit_row *row, uint8_t out[OM_HASH_LEN]);

/*
 * One step of a verification: row must follow check->at.  Moves check on, or marks it broken and
 * done with the row and the reason.
 */
bool om_audit_check_row(struct om_hasher *hasher, struct om_audit_check *check,
			const struct om_audit_row *row);

/* The end: head is what the store keeps beside the rows. */
void om_audit_check_end(struct om_audit_check *check, const struct om_audit_mark *head);

#endif /* OM_STORE_AUDIT_CHAIN_H */
