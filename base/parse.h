/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_PARSE_H
#define OM_BASE_PARSE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"

/*
 * Text to values.  Any thread.  All take the whole text (no trailing bytes), reject overflow, and
 * leave *out alone on OM_ERR_INVALID.
 */
enum om_err om_parse_u64(struct om_str s, uint64_t min, uint64_t max, uint64_t *out) OM_MUST_CHECK;
enum om_err om_parse_bool(struct om_str s,
			  bool *out) OM_MUST_CHECK; /* yes no true false on off 1 0 */
/* "512M" "16G" "1048576K" "512" (MiB when no suffix) to MiB; must be a whole number of MiB. */
enum om_err om_parse_mib(struct om_str s, uint64_t *out) OM_MUST_CHECK;
/* "90s" "10m" "2h" "1d" "500ms" "90" (seconds when no suffix) to milliseconds. */
enum om_err om_parse_ms(struct om_str s, uint64_t *out) OM_MUST_CHECK;
/* RFC 4648 base64 with padding, exactly out_len bytes of result. */
enum om_err om_parse_base64(struct om_str s, uint8_t *out, size_t out_len) OM_MUST_CHECK;
enum om_err om_parse_hex(struct om_str s, uint8_t *out, size_t out_len) OM_MUST_CHECK;
void om_hex(const void *data, size_t len, char *out); /* out has 2*len+1 bytes */
bool om_utf8_valid(struct om_str s);
void om_utf8_clean(char *text, size_t len); /* bytes that are no UTF-8 become '?' */

/* Edit distance (Levenshtein) for "did you mean"; strings over 64 bytes count as far away. */
unsigned om_edit_distance(const char *a, const char *b);
/* The nearest of names[] within distance 3 and half the word's length, NULL if none. */
const char *om_nearest(const char *word, const char *const *names, size_t count);

/*
 * Trims blanks at both ends.  Next piece before `sep`; false at the end.  N separators make N+1
 * pieces, empty ones included ("a,,b", and one empty piece of ""); the absent view has none.
 */
struct om_str om_str_trim(struct om_str s);
bool om_str_next(struct om_str *rest, char sep, struct om_str *piece);

#endif /* OM_BASE_PARSE_H */
