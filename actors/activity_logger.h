/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_ACTIVITY_LOGGER_H
#define OM_ACTORS_ACTIVITY_LOGGER_H

/*
 * The activity logger: the audit trail as people see it.  The ledger writes the entries (a job's
 * state and its audit entry are one transaction) and sends the last of each commit as audit.appended;
 * this service reads what it has not seen and logs it, answers audit.list (also following) and audit.verify, and adds the entries that
 * are about the daemon itself: daemon_started and daemon_stopped.
 */
#include "msg/bus.h"

/* Start arg; borrowed for the life of the system. */
struct om_activity_logger_conf {
	bool log_lines; /* each entry also as a log line */
	const char *details; /* for the daemon_started entry: version, configuration; may be NULL */
};

extern const struct om_service_def om_activity_logger_service;

#endif /* OM_ACTORS_ACTIVITY_LOGGER_H */
