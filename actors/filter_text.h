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
 * Does the folded text contain the folded keyword?  As a word: neither letter nor digit of any
 * script may stand beside it ("ml" is in "ml, training" and not in "html").
 */
bool om_text_contains(struct om_str text, struct om_str keyword, bool as_word);

#endif /* OM_ACTORS_FILTER_TEXT_H */
