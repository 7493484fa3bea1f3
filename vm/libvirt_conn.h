/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_LIBVIRT_CONN_H
#define OM_VM_LIBVIRT_CONN_H

/* Shared by the vm/libvirt_*.c files; nobody else includes it. */
#include <libvirt/libvirt.h>
#include "vm/libvirt_impl.h"

struct libvirt_conn;

/* Blocks.  Connects and keeps connected: a lost connection is opened again with back-off. */
enum om_err libvirt_conn_open(const struct om_vm_config *config, struct libvirt_conn **out,
			      struct om_why *why) OM_MUST_CHECK;

/* Blocks.  No callback runs after it.  NULL is fine. */
void libvirt_conn_close(struct libvirt_conn *lv);

/*
 * Any thread.  Gives a counted reference (virConnectClose), NULL while the connection is lost.  With
 * patience_ms > 0 it blocks, at most so long, until it is there again.
 */
virConnectPtr libvirt_conn_get(struct libvirt_conn *lv, int64_t patience_ms);

/* Any thread.  What was found out when the connection was made; does not change. */
const struct libvirt_host *libvirt_conn_host(const struct libvirt_conn *lv);
const char *libvirt_conn_run_dir(const struct libvirt_conn *lv);

/* Any thread.  Names whose end must be told even if it happened while the connection was lost. */
enum om_err libvirt_conn_watch(struct libvirt_conn *lv, const char *name) OM_MUST_CHECK;
void libvirt_conn_unwatch(struct libvirt_conn *lv, const char *name);

#endif /* OM_VM_LIBVIRT_CONN_H */
