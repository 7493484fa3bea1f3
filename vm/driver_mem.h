/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_DRIVER_MEM_H
#define OM_VM_DRIVER_MEM_H

/*
 * A driver without VMs, for unit and simulation tests: a table of names behind the real ops, with
 * scripted failures and ends.  It has no threads and no clock: a delay is the test's own, through
 * on_call.  It keeps what it was asked, so that a test can look.
 *
 * om_vm_config.uri is not used; om_vm_config.on_event is called by om_vm_mem_end() on the
 * caller's thread.
 */
#include "vm/driver.h"

extern const struct om_vm_driver_ops om_vm_mem_ops;

enum om_vm_mem_op {
	OM_VM_MEM_CREATE,
	OM_VM_MEM_RESUME,
	OM_VM_MEM_SUSPEND,
	OM_VM_MEM_DESTROY,
	OM_VM_MEM_KILL,
	OM_VM_MEM_LIST,
	OM_VM_MEM_STATS,
	OM_VM_MEM_OP_COUNT
};

/*
 * Any thread (all).  `state` is what ops->open gave.
 *
 * The next `times` calls of `op` fail with err, after `after` more that work.
 */
void om_vm_mem_fail(void *state, enum om_vm_mem_op op, enum om_err err, unsigned after,
		    unsigned times);

/*
 * Called at the start of every op, before the table is touched and without a lock: a test waits
 * here, or ends a VM in the middle of another call.  pidfd ops give the name "".
 */
void om_vm_mem_on_call(void *state,
		       void (*on_call)(void *arg, enum om_vm_mem_op op, const char *name),
		       void *arg);

/* The VM ends by itself: the event, and no such VM afterwards.  OM_ERR_NOT_FOUND. */
enum om_err om_vm_mem_end(void *state, const char *name, enum om_vm_event_kind kind,
			  const char *reason);

/* Adds a VM that "an earlier life" left behind. */
enum om_err om_vm_mem_add_orphan(void *state, const char *name) OM_MUST_CHECK;

/* Figures of the VM that stats() gives. */
void om_vm_mem_set_stats(void *state, const char *name, const struct om_vm_stats *stats);

/* How many calls of op there were, and how many VMs exist; is_running is false for a paused one. */
unsigned om_vm_mem_calls(void *state, enum om_vm_mem_op op);
size_t om_vm_mem_count(void *state);
bool om_vm_mem_is_running(void *state, const char *name);

#endif /* OM_VM_DRIVER_MEM_H */
