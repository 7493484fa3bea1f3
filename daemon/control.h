/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_CONTROL_H
#define OM_DAEMON_CONTROL_H

/*
 * The control endpoint: the only way into the daemon from outside.
 *
 *	client --DEALER--> ROUTER control.sock (ipc), tcp with CURVE
 *	                     identity from the connection, permission by the schema, limits,
 *	                     then the body goes as it came to the service that the schema names
 *	operator <--SUB--- PUB events.sock: [job id][envelope of job.event]
 *
 * Every request gets exactly one answer, or its client is cut off because it does not read.  The
 * sockets are bound when the provider has answered a ping, that is, when recovery has finished.
 *
 * Verbs that control answers itself: ping, daemon.*, config.show, set and reload.
 */
#include "daemon/auth.h"
#include "daemon/config.h"
#include "msg/bus.h"

#define OM_CONTROL_GROUP        "omertad.control" /* a u64 OM_CONTROL_SIGNAL goes to its members */
#define OM_CONTROL_SIGNAL       UINT32_C(0x0c010001)
#define OM_CONTROL_DEADLINE_MAX UINT64_C(86400000) /* ms; a request that asks for more gets this */

enum om_control_signal {
	OM_CONTROL_DRAIN, /* stop when the running jobs have ended */
	OM_CONTROL_DRAIN_NOW, /* end them */
	OM_CONTROL_RELOAD,
};

enum om_control_event {
	OM_CONTROL_READY, /* the sockets are bound */
	OM_CONTROL_DRAINING, /* a stop was asked for; text: for at most so many ms */
	OM_CONTROL_DRAINED, /* no job runs any more: the daemon may end */
	OM_CONTROL_FAILED, /* the sockets cannot be bound; the text says why */
};

/* What outlives a restart of the actor, which alone uses it.  Zeroed: nothing was changed. */
struct om_control_live {
	const struct om_config *config; /* in force; whoever made this frees it at the end */
};

/* Borrowed for the life of the system. */
struct om_control_conf {
	const struct om_config *config;
	struct om_control_live *live; /* NULL: a restart of the actor undoes what was changed */
	const struct om_conf_sources *sources; /* for a reload; NULL: there is none */
	/* The control actor's thread.  Tells main; must not block.  May be NULL. */
	void (*on_event)(void *arg, enum om_control_event event, const char *text);
	void *arg;
	const char *accelerator; /* for daemon.status: "kvm", "tcg", "none" */
	const char *wireguard; /* "kernel", "userspace", "none" */
};

/* Any thread.  Will there be a tcp endpoint, with so many authorized peers? */
bool om_control_wants_tcp(const struct om_config *config, size_t peers);

/* The start arg is a struct om_control_conf. */
extern const struct om_service_def om_control_service;

#endif /* OM_DAEMON_CONTROL_H */
