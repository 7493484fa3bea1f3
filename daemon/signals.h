/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_SIGNALS_H
#define OM_DAEMON_SIGNALS_H

/*
 * Signals as messages, and the daemon's pulse.
 *
 *	TERM, INT	the first one drains (control), the second one stops at once
 *	HUP		reload (control)
 *
 * The actor also monitors the supervisor: its end is the daemon's end.  And it answers
 * OM_SIGNALS_PULSE, so that a watchdog outside sees whether the scheduler still runs.
 */
#include "runtime/actor.h"

#define OM_SIGNALS_PULSE UINT32_C(0x0c010010) /* answered with a u64 */

enum om_signals_event {
	OM_SIGNALS_STOP_NOW,
	OM_SIGNALS_SUPERVISOR_DOWN,
};

/* Start arg; borrowed for the life of the system. */
struct om_signals_conf {
	int fd; /* of om_signals_block */
	struct om_actor_id supervisor;
	void (*on_event)(void *arg, enum om_signals_event event); /* must not block */
	void *arg;
};

/* One thread, before the others start: blocks the signals and gives a signalfd, -1 with errno. */
int om_signals_block(void);

extern const struct om_actor_def om_signals_def;

#endif /* OM_DAEMON_SIGNALS_H */
