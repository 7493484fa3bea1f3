/* SPDX-License-Identifier: ISC */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/short.h"
#include "store/audit_chain.h"

#define CHAIN_TAG    "omerta-audit-1"
#define CHAIN_ABSENT UINT32_C(0xffffffff)
#define CHAIN_FIELDS 7
/* Everything but the texts; a row within its limits always fits. */
#define CHAIN_FIXED    (sizeof(CHAIN_TAG) - 1 + OM_HASH_LEN + 8 + 8 + CHAIN_FIELDS * 4)
#define CHAIN_TEXT_MAX 4096

struct om_hasher {
	EVP_MD *md;
	EVP_MD_CTX *cx;
	uint8_t row[CHAIN_FIXED + CHAIN_TEXT_MAX];
};

struct om_hasher *
om_hasher_new(void)
{
	struct om_hasher *hasher = calloc(1, sizeof(*hasher));

	if (hasher == NULL) {
		return NULL;
	}
	/* Fetched once: a fetch by name costs more than hashing one row. */
	hasher->md = EVP_MD_fetch(NULL, "SHA256", NULL);
	hasher->cx = EVP_MD_CTX_new();
	if (hasher->md == NULL || hasher->cx == NULL) {
		om_hasher_free(hasher);
		return NULL;
	}
	return hasher;
}

void
om_hasher_free(struct om_hasher *hasher)
{
	if (hasher != NULL) {
		EVP_MD_CTX_free(hasher->cx);
		EVP_MD_free(hasher->md);
		free(hasher);
	}
}

bool
om_hash(struct om_hasher *hasher, struct om_bin data, uint8_t out[OM_HASH_LEN])
{
	return EVP_DigestInit_ex2(hasher->cx, hasher->md, NULL) == 1 &&
	       EVP_DigestUpdate(hasher->cx, data.ptr, data.len) == 1 &&
	       EVP_DigestFinal_ex(hasher->cx, out, NULL) == 1;
}

static uint8_t *
put_u32(uint8_t *at, uint32_t v)
{
	int i;

	for (i = 0; i < 4; i++) {
		*at++ = (uint8_t)(v >> (24 - 8 * i));
	}
	return at;
}

static uint8_t *
put_u64(uint8_t *at, uint64_t v)
{
	return put_u32(put_u32(at, (uint32_t)(v >> 32)), (uint32_t)v);
}

bool
om_audit_hash(struct om_hasher *hasher, const uint8_t prev[OM_HASH_LEN],
	      const struct om_audit_row *row, uint8_t out[OM_HASH_LEN])
{
	const struct om_str fields[CHAIN_FIELDS] = { row->event,     row->actor,   row->job,
						     row->requester, row->network, row->activity,
						     row->details };
	uint8_t *at = hasher->row;
	size_t i, texts = 0;

	for (i = 0; i < CHAIN_FIELDS; i++) {
		texts += fields[i].len;
		if (fields[i].len > CHAIN_TEXT_MAX || texts > CHAIN_TEXT_MAX) {
			return false; /* no row of ours is so long: somebody else wrote it */
		}
	}
	memcpy(at, CHAIN_TAG, sizeof(CHAIN_TAG) - 1);
	at += sizeof(CHAIN_TAG) - 1;
	memcpy(at, prev, OM_HASH_LEN);
	at += OM_HASH_LEN;
	at = put_u64(at, row->seq);
	at = put_u64(at, (uint64_t)row->at.ns);
	for (i = 0; i < CHAIN_FIELDS; i++) {
		if (fields[i].ptr == NULL) {
			at = put_u32(at, CHAIN_ABSENT);
			continue;
		}
		at = put_u32(at, (uint32_t)fields[i].len);
		om_short_copy_any(at, fields[i].ptr, fields[i].len);
		at += fields[i].len;
	}
	return om_hash(hasher, (struct om_bin){ hasher->row, (size_t)(at - hasher->row) }, out);
}

static bool OM_PRINTF(3, 4)
    check_broken(struct om_audit_check *check, uint64_t bad_seq, const char *fmt, ...)
{
	va_list va;

	check->broken = true;
	check->done = true;
	check->bad_seq = bad_seq;
	va_start(va, fmt);
	(void)vsnprintf(check->text, sizeof(check->text), fmt, va);
	va_end(va);
	return false;
}

bool
om_audit_check_row(struct om_hasher *hasher, struct om_audit_check *check,
		   const struct om_audit_row *row)
{
	const uint64_t want = check->at.seq + 1;
	uint8_t hash[OM_HASH_LEN];

	if (row->seq != want) {
		return check_broken(check, want, "row %llu was removed", (unsigned long long)want);
	}
	if (!om_audit_hash(hasher, check->at.hash, row, hash) ||
	    memcmp(hash, row->hash, OM_HASH_LEN) != 0) {
		return check_broken(check, want,
				    "row %llu was changed, or does not belong after row %llu",
				    (unsigned long long)want, (unsigned long long)check->at.seq);
	}
	if (row->seq == check->known.seq && memcmp(hash, check->known.hash, OM_HASH_LEN) != 0) {
		return check_broken(
		    check, want,
		    "row %llu is not the one that the given mark was taken from: the chain was "
		    "rewritten up to there",
		    (unsigned long long)want);
	}
	if (check->rows++ == 0) {
		check->first = row->at;
	}
	check->last = row->at;
	check->at.seq = row->seq;
	memcpy(check->at.hash, hash, OM_HASH_LEN);
	return true;
}

void
om_audit_check_end(struct om_audit_check *check, const struct om_audit_mark *head)
{
	const uint64_t last = check->at.seq;

	check->done = true;
	if (last < head->seq) {
		(void)check_broken(check, last + 1, "rows %llu to %llu were cut off the end",
				   (unsigned long long)last + 1, (unsigned long long)head->seq);
	} else if (last > head->seq) {
		(void)check_broken(check, head->seq + 1,
				   "rows %llu to %llu were added behind the end",
				   (unsigned long long)head->seq + 1, (unsigned long long)last);
	} else if (memcmp(check->at.hash, head->hash, OM_HASH_LEN) != 0) {
		(void)check_broken(check, last, "row %llu was replaced together with its hash",
				   (unsigned long long)last);
	} else if (check->known.seq > last) {
		(void)check_broken(check, last + 1,
				   "the given mark is of row %llu, the chain ends at %llu",
				   (unsigned long long)check->known.seq, (unsigned long long)last);
	}
}
