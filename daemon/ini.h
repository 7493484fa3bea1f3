/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_INI_H
#define OM_DAEMON_INI_H

/*
 * The syntax of omertad.conf, nothing of its meaning:
 *
 *	# comment		; comment
 *	[section]		[section NAME]
 *	key = value		key: value	; a blank before ; or # starts a comment
 *	key = "quoted value"	kept as it is between the quotes
 *
 * Why not libinih: as Debian builds it, it tells no line numbers, and it cuts lines at 200 bytes
 * and section names at 49 without a word.
 */
#include "base/buf.h"

#define OM_INI_LINE_MAX 8192
#define OM_INI_FILE_MAX (1024 * 1024)

/* One `key = value`.  Views are borrowed until the callback returns. */
struct om_ini_entry {
	struct om_str section; /* "rule" of [rule night]; empty before the first section */
	struct om_str name; /* "night"; empty when the section has none */
	struct om_str key;
	struct om_str value;
	unsigned line;
};

struct om_ini {
	void (*entry)(void *arg, const struct om_ini_entry *entry);
	/* A section begins, also one that stays empty.  May be NULL. */
	void (*section)(void *arg, struct om_str section, struct om_str name, unsigned line);
	void (*error)(void *arg, unsigned line, const char *text);
	void *arg;
};

/* Any thread.  Reads all of text; an error does not end it, so that all are told at once. */
void om_ini_parse(struct om_str text, const struct om_ini *ini);

#endif /* OM_DAEMON_INI_H */
