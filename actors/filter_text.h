/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_FILTER_TEXT_H
#define OM_ACTORS_FILTER_TEXT_H

/*
 * Finding keywords in a description, in any script.  Any thread.
 *
 * Case is folded one code point to one (upper, then lower case by the C library's C.UTF-8 tables):
 * it equates Ä and ä, Σ, σ and ς, I, i, İ and ı; it does not equate ß and ss.
 */
#include "base/buf.h"

/* Bytes that folding needs at most: a two-byte code point may become one of three bytes. */
#define OM_TEXT_FOLDED_MAX(len) ((len) + (len) / 2 + 1)

/* Folds into out, which has OM_TEXT_FOLDED_MAX(s.len) bytes; gives the length.  No NUL is added. */
size_t om_text_fold(struct om_str s, char *out);

/*
 * Which pairs of bytes a text has, as a Bloom filter: most keywords of most rules are not in most
 * texts, and this says so without a search.  Never false for a keyword that is in the text.
 */
#define OM_TEXT_PAIRS 4096
struct om_text_pairs {
	uint64_t bits[OM_TEXT_PAIRS / 64];
};
void om_text_pairs(struct om_str text, struct om_text_pairs *out);
bool om_text_maybe(const struct om_text_pairs *pairs, struct om_str keyword);

/*
 * Does the folded text contain the folded keyword?  As a word: neither letter nor digit of any
 * script may stand beside it ("ml" is in "ml, training" and not in "html").
 */
bool om_text_contains(struct om_str text, struct om_str keyword, bool as_word);

#endif /* OM_ACTORS_FILTER_TEXT_H */
