/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_ERR_H
#define OM_BASE_ERR_H

/*
 * Errors that a caller can handle.  The wire code is stable: scripts match on it, so a name is
 * never reused.  Our own bugs are not errors: they end in OM_ASSERT (base/assert.h).
 */
#include <stdarg.h>
#include <stddef.h>

#define OM_MUST_CHECK      __attribute__((warn_unused_result))
#define OM_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define OM_COUNT(array)    (sizeof(array) / sizeof((array)[0]))

/*      NAME           wire code           what it says to a person */
#define OM_ERR_TABLE(X)                                                                       \
	X(OM_ERR_NOMEM, "no_memory", "out of memory")                                         \
	X(OM_ERR_FULL, "full", "a bounded queue is full")                                     \
	X(OM_ERR_INVALID, "invalid", "the input is not valid")                                \
	X(OM_ERR_UNKNOWN_FIELD, "unknown_field", "the message has a field that is not known") \
	X(OM_ERR_UNKNOWN_TYPE, "unknown_type", "the message type is not known")               \
	X(OM_ERR_VERSION, "version", "the protocol version is not supported")                 \
	X(OM_ERR_TOO_BIG, "too_big", "the input is over its size limit")                      \
	X(OM_ERR_STATE, "wrong_state", "not possible in the present state")                   \
	X(OM_ERR_NOT_FOUND, "not_found", "no such thing")                                     \
	X(OM_ERR_EXISTS, "exists", "it exists already, and differs")                          \
	X(OM_ERR_DENIED, "denied", "the caller has no permission for this")                   \
	X(OM_ERR_REJECTED, "rejected", "the operator's rules reject the job")                 \
	X(OM_ERR_TIMEOUT, "timeout", "no answer in time")                                     \
	X(OM_ERR_GONE, "gone", "the actor that should answer has ended")                      \
	X(OM_ERR_STALE, "stale", "the handle names an actor that has ended")                  \
	X(OM_ERR_CANCELLED, "cancelled", "cancelled")                                         \
	X(OM_ERR_SHUTDOWN, "shutting_down", "the service is shutting down")                   \
	X(OM_ERR_DRAINING, "draining", "no new jobs are taken")                               \
	X(OM_ERR_LIMIT, "limit", "a configured limit is reached")                             \
	X(OM_ERR_RATE, "rate_limited", "too many requests in a short time")                   \
	X(OM_ERR_UNSUPPORTED, "unsupported", "not supported here")                            \
	X(OM_ERR_IO, "io", "an input/output operation failed")                                \
	X(OM_ERR_DISK, "disk", "the store cannot be written")                                 \
	X(OM_ERR_CORRUPT, "corrupt", "stored data is damaged")                                \
	X(OM_ERR_KEYS_LOST, "keys_lost", "the keys of the job's tunnel are gone")             \
	X(OM_ERR_VM, "vm", "the hypervisor reported an error")                                \
	X(OM_ERR_NET, "net", "the network could not be set up")                               \
	X(OM_ERR_GUEST, "guest", "the guest agent broke its protocol or is gone")             \
	X(OM_ERR_MISSING, "missing", "something required is not installed or not running")    \
	X(OM_ERR_INTERNAL, "internal", "an internal error; the log has more")

enum om_err {
	OM_OK = 0,
#define OM_ERR_ENUM(name, code, text) name,
	OM_ERR_TABLE(OM_ERR_ENUM)
#undef OM_ERR_ENUM
	    OM_ERR_COUNT
};

#define OM_WHY_MAX 256

/*
 * The reason behind an error, in words for a person; travels beside enum om_err where an operator
 * needs it.  Caller's memory.  A NULL pointer is accepted everywhere and drops the text.
 */
struct om_why {
	char text[OM_WHY_MAX];
};

/* Any thread.  The stable wire code ("queue_full"), "ok" for OM_OK, "internal" if out of range. */
const char *om_err_code(enum om_err err);

/* Any thread.  One sentence for a person. */
const char *om_err_text(enum om_err err);

/* Any thread.  The error with this wire code, OM_ERR_INTERNAL if there is none. */
enum om_err om_err_from_code(const char *code, size_t len);

/* Any thread.  The closest error to an errno value. */
enum om_err om_err_from_errno(int errnum);

/*
 * Any thread.  Formats the reason (cut at OM_WHY_MAX) and returns err, so that a failing branch is
 * one line: `return om_why_set(why, OM_ERR_VM, "start domain: %s", text);`
 */
enum om_err om_why_set(struct om_why *why, enum om_err err, const char *fmt, ...) OM_PRINTF(3, 4);

/* The same, and appends ": " strerror(errno). */
enum om_err om_why_errno(struct om_why *why, enum om_err err, const char *fmt, ...) OM_PRINTF(3, 4);

#endif /* OM_BASE_ERR_H */
