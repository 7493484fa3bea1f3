/* SPDX-License-Identifier: ISC */
/*
 * Error names and reasons.  No allocation, no lock: the guest agent links this file too.
 */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct err_row {
	const char *code;
	const char *text;
};

static const struct err_row err_rows[OM_ERR_COUNT] = { [OM_OK] = { "ok", "no error" },
#define ERR_ROW(name, code_, text_) [name] = { code_, text_ },
						       OM_ERR_TABLE(ERR_ROW)
#undef ERR_ROW
};

static const struct err_row *
err_row(enum om_err err)
{
	/* Values outside the enum (OM_AGAIN leaking out of a handler) are our own error. */
	if ((int)err < 0 || err >= OM_ERR_COUNT) {
		err = OM_ERR_INTERNAL;
	}
	return &err_rows[err];
}

const char *
om_err_code(enum om_err err)
{
	return err_row(err)->code;
}

const char *
om_err_text(enum om_err err)
{
	return err_row(err)->text;
}

enum om_err
om_err_from_code(const char *code, size_t len)
{
	for (size_t i = 0; i < OM_ERR_COUNT; i++) {
		if (strlen(err_rows[i].code) == len && memcmp(err_rows[i].code, code, len) == 0) {
			return (enum om_err)i;
		}
	}
	return OM_ERR_INTERNAL;
}

enum om_err
om_err_from_errno(int errnum)
{
	switch (errnum) {
	case 0:
		return OM_OK;
	case ENOMEM:
		return OM_ERR_NOMEM;
	case EAGAIN:
	case ENOBUFS:
		return OM_ERR_FULL;
	case EINVAL:
	case EDOM:
	case EILSEQ:
		return OM_ERR_INVALID;
	case E2BIG:
	case EMSGSIZE:
	case EFBIG:
	case ENAMETOOLONG:
	case EOVERFLOW:
	case ERANGE:
		return OM_ERR_TOO_BIG;
	case ENOENT:
	case ESRCH:
	case ENODEV:
	case ENXIO:
		return OM_ERR_NOT_FOUND;
	case EEXIST:
	case EADDRINUSE:
		return OM_ERR_EXISTS;
	case EPERM:
	case EACCES:
		return OM_ERR_DENIED;
	case ETIMEDOUT:
		return OM_ERR_TIMEOUT;
	case ECANCELED:
		return OM_ERR_CANCELLED;
	case EMFILE:
	case ENFILE:
	case EDQUOT:
		return OM_ERR_LIMIT;
	case ENOSYS:
	case EOPNOTSUPP:
	case EPROTONOSUPPORT:
	case EAFNOSUPPORT:
		return OM_ERR_UNSUPPORTED;
	case ENOSPC:
	case EROFS:
		return OM_ERR_DISK;
	case EBUSY:
	case EALREADY:
	case EISCONN:
		return OM_ERR_STATE;
	default:
		return OM_ERR_IO;
	}
}

/* The arguments may point into why->text (a reason around a reason), so it is written last. */
static void
why_format(struct om_why *why, const char *fmt, va_list ap)
{
	char text[OM_WHY_MAX];

	if (why == NULL) {
		return;
	}
	if (vsnprintf(text, sizeof(text), fmt, ap) < 0) {
		text[0] = '\0';
	}
	memcpy(why->text, text, sizeof(text));
}

enum om_err
om_why_set(struct om_why *why, enum om_err err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	why_format(why, fmt, ap);
	va_end(ap);
	return err;
}

enum om_err
om_why_errno(struct om_why *why, enum om_err err, const char *fmt, ...)
{
	int errnum = errno;
	char scratch[128];
	va_list ap;
	size_t len;

	if (why == NULL) {
		return err;
	}
	va_start(ap, fmt);
	why_format(why, fmt, ap);
	va_end(ap);
	len = strlen(why->text);
	(void)snprintf(why->text + len, sizeof(why->text) - len, ": %s",
		       strerror_r(errnum, scratch, sizeof(scratch)));
	errno = errnum;
	return err;
}
