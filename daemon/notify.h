/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_NOTIFY_H
#define OM_DAEMON_NOTIFY_H

/*
 * systemd's notification protocol (sd_notify(3)), which is one datagram to $NOTIFY_SOCKET.  Does
 * nothing where there is no systemd.  Any thread.
 */
#include <stdint.h>
#include "base/err.h"

/* "READY=1\nSTATUS=..." */
void om_notify(const char *fmt, ...) OM_PRINTF(1, 2);

/* Milliseconds between two WATCHDOG=1 that systemd waits for; 0: it does not watch us. */
uint64_t om_notify_watchdog_ms(void);

#endif /* OM_DAEMON_NOTIFY_H */
