/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_ZONE_H
#define OM_ACTORS_ZONE_H

/*
 * A time zone by its name (Europe/Berlin), as /usr/share/zoneinfo has it: the C library knows one zone for
 * the whole process, and rules may have several.  Reads a TZif file (RFC 8536) once; version 1, which ends
 * in 2037 and has no rule for later, is refused.
 */
#include "base/buf.h"
#include "base/err.h"

#define OM_ZONE_NAME_MAX 64

struct om_zone; /* opaque, never changes */

/* Blocks on a small file.  OM_ERR_NOT_FOUND: there is no such zone; INVALID: the file makes no sense. */
enum om_err om_zone_open(struct om_str name, struct om_zone **out) OM_MUST_CHECK;
/* Seconds east of UTC at that moment.  Any thread. */
int32_t om_zone_offset(const struct om_zone *zone, int64_t unix_s);
void om_zone_free(struct om_zone *zone); /* NULL is fine */

#endif /* OM_ACTORS_ZONE_H */
