/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_SECRET_H
#define OM_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

/* Any thread.  Wipes memory; the compiler cannot remove it. */
void om_secret_wipe(void *mem, size_t len);

/* Any thread.  Compares in time that depends on len alone. */
bool om_secret_eq(const void *a, const void *b, size_t len);

#endif /* OM_BASE_SECRET_H */
