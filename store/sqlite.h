/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_SQLITE_H
#define OM_STORE_SQLITE_H

#include "store/store.h"

struct om_sqlite_conf {
	const char *path; /* of the file; made (0600) if it is not there, its folder is not */
	uint64_t wal_bytes; /* size SQLite's log is preallocated to and cut back to; 0: 16 MiB */
	uint64_t
	    log_bytes; /* of the commit log, folded into the tables when it is full; 0: 4 MiB */
	uint32_t cache_kib; /* page cache; 0: 64 MiB */
	uint32_t busy_ms; /* wait for another process's lock; 0: 2,000 */
	const char *vfs; /* NULL: the system's own; tests pass one that fails */
	bool
	    read_only; /* to look or to verify, as of the last fold: a running daemon has a later one */
	bool skip_check; /* no integrity check at the open */
};

/*
 * Any thread; the store then belongs to the caller's thread.  Makes or migrates the schema and
 * checks the file.  OM_ERR_VERSION: written by a newer omertad.  OM_ERR_STATE: another process has
 * it.  OM_ERR_CORRUPT, OM_ERR_DISK: with the reason.
 */
enum om_err om_sqlite_open(const struct om_sqlite_conf *conf, struct om_store **out,
			   struct om_why *why) OM_MUST_CHECK;

#endif /* OM_STORE_SQLITE_H */
