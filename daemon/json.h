/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_JSON_H
#define OM_DAEMON_JSON_H

/* Writing JSON text.  Any thread; append. */
#include "base/buf.h"

/* A quoted string.  Bytes that are no UTF-8 become U+FFFD. */
void om_json_str(struct om_buf *out, struct om_str s);
/* "name":"value", with a comma before it unless it is the first. */
void om_json_member(struct om_buf *out, const char *name, const char *value, bool first);

#endif /* OM_DAEMON_JSON_H */
