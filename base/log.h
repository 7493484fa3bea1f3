/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_LOG_H
#define OM_BASE_LOG_H

#include <stdbool.h>
#include "base/err.h"

/*
 * Log lines on stderr: "<time> <level> <event> <text>", or one JSON object a line.  The event is a
 * stable name ("job.started") that a script can match; the text is for people.  One write(2) a
 * line, so lines of several threads do not mix.  Never pass a secret or a script body.
 * Under systemd (JOURNAL_STREAM is set) a line starts with "<N>", the syslog priority.
 */
enum om_log_level { OM_LOG_DEBUG, OM_LOG_INFO, OM_LOG_WARN, OM_LOG_ERROR };

/* One thread, before the others start. */
void om_log_init(enum om_log_level least, int json);

/* Any thread.  Lines under this level are not written. */
void om_log_set_level(enum om_log_level least);

/* Any thread.  Are such lines written?  For callers whose text costs something to come by. */
bool om_log_is_on(enum om_log_level level);

/* Any thread.  Control bytes in the text are escaped: a name from a peer cannot forge a line. */
void om_log(enum om_log_level level, const char *event, const char *fmt, ...) OM_PRINTF(3, 4);

#define om_debug(...) om_log(OM_LOG_DEBUG, __VA_ARGS__)
#define om_info(...)  om_log(OM_LOG_INFO, __VA_ARGS__)
#define om_warn(...)  om_log(OM_LOG_WARN, __VA_ARGS__)
#define om_error(...) om_log(OM_LOG_ERROR, __VA_ARGS__)

/* Any thread.  "debug" "info" "warn" "error"; OM_ERR_INVALID for anything else. */
enum om_err om_log_level_parse(const char *text, enum om_log_level *out) OM_MUST_CHECK;

#endif /* OM_BASE_LOG_H */
