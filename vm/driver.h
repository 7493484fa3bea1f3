/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_DRIVER_H
#define OM_VM_DRIVER_H

/*
 * What the executor knows of a hypervisor: an ops table.  vm/libvirt_driver.c is the product,
 * vm/driver_mem.c a scripted one for unit and simulation tests.
 *
 * Threads: every op marked "blocks" waits for another process (libvirtd) and is called on the
 * offload pool, never in a handler; they may run at the same time, also for one VM.  kill() does
 * not block.  The event callback runs on the driver's event thread: it may only post a message (a
 * call back into the driver from there would wait for itself).
 *
 * A VM is known by its name.  Names of ours start with OM_VM_PREFIX: what carries the prefix and
 * belongs to no running job is an orphan of a crash and may be destroyed.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/err.h"
#include "base/id.h"

#define OM_VM_PREFIX       "omerta-"
#define OM_VM_NAME_MAX     (sizeof(OM_VM_PREFIX) - 1 + OM_JOB_ID_MAX) /* bytes, without the NUL */
#define OM_VM_REASON_MAX   128
#define OM_VM_CORES_MAX    256
#define OM_VM_MEM_MIN_MIB  128 /* the image boots with less, python does not */
#define OM_VM_MEM_MAX_MIB  (4U << 20)
#define OM_VM_DISK_MIN_MIB 8
#define OM_VM_DISK_MAX_MIB (16U << 20)
#define OM_VM_PATH_MAX     256 /* bytes of a file's path, with the NUL */
#define OM_VM_SOCKET_MAX   108 /* bytes of a unix socket's path, with the NUL: sockaddr_un */
#define OM_VM_LIST_MAX     4096 /* domains of ours that one listing returns */

/* Host memory that qemu itself may need beyond the guest's (TCG code cache, buffers); measured. */
#define OM_VM_MEM_HEADROOM_MIB 450

/* What happened to a VM without us asking, or because we asked.  Names: om_vm_event_name(). */
enum om_vm_event_kind {
	OM_VM_EVENT_STOPPED, /* powered off by itself or destroyed; reason says which */
	OM_VM_EVENT_CRASHED, /* guest panic, or qemu died or was killed */
	OM_VM_EVENT_DRIVER_DOWN, /* the connection to libvirtd is lost; name is "" */
	OM_VM_EVENT_DRIVER_UP, /* it is back, events are registered again; name is "" */
};

/* Borrows name and reason until the callback returns. */
struct om_vm_event {
	enum om_vm_event_kind kind;
	const char *name;
	const char
	    *reason; /* "shutdown", "destroyed", "crashed", "killed", "lost", "autodestroy" ... */
};

typedef void (*om_vm_event_fn)(void *arg, const struct om_vm_event *event);

struct om_vm_config {
	/* NULL: "qemu:///system".  A private libvirtd: "qemu+unix:///system?socket=DIR/run/libvirt-sock" */
	const char *uri;
	om_vm_event_fn on_event; /* NULL: nobody listens */
	void *arg;
};

/* A tap that exists already; the driver never creates or configures one (managed='no'). */
struct om_vm_nic {
	const char *tap; /* interface name, at most 15 bytes */
	const char *mac; /* "52:54:00:xx:xx:xx" */
	unsigned mtu; /* bytes; 0: not told to the guest */
};

enum om_vm_machine {
	OM_VM_MACHINE_AUTO, /* the fastest that boots every time: q35 */
	OM_VM_MACHINE_MICROVM, /* hangs under TCG on a busy host: docs/guest.md */
	OM_VM_MACHINE_Q35,
};

/* All strings are borrowed for the time of the call. */
struct om_vm_spec {
	const char *name; /* OM_VM_PREFIX + job id */
	unsigned cores;
	uint64_t mem_mib;

	/* om_vm_image (vm/image.h) has these three. */
	const char *kernel;
	const char *initrd;
	const char *root; /* squashfs, read-only, shared by all VMs */

	/*
	 * create() makes this file, allocated in full, and puts an empty ext4 on it: its size is the
	 * job's quota.  The caller removes it after destroy(), together with channel_path.  Both
	 * directories must let the hypervisor's user through (mode 0711).
	 */
	const char *scratch_path;
	uint64_t scratch_mib;

	const char *channel_path; /* unix socket that qemu listens on; shorter than 108 bytes */
	const struct om_vm_nic *nic; /* NULL: the VM has no network card at all */
	bool start_paused; /* created, not running: resume() when the tap is in place */
	bool use_kvm; /* om_vm_kvm_probe() says whether it works */
	enum om_vm_machine machine;
};

/* A created VM.  The caller owns pidfd (om_vm_handle_fini). */
struct om_vm_handle {
	pid_t pid; /* of qemu; 0 when the driver has no process for it */
	int pidfd; /* readable when qemu is gone; -1 when there is none */
};

struct om_vm_stats {
	uint64_t cpu_ns; /* CPU time of the VM on the host, all its threads */
	uint64_t rss_kib; /* resident memory of qemu on the host; 0: not known */
};

struct om_vm_driver_ops {
	const char *name; /* "libvirt", "mem" */

	/* Blocks.  Gives *state.  The event callback may run from here on until close() returns. */
	enum om_err (*open)(const struct om_vm_config *config, void **state, struct om_why *why);

	/* Blocks.  Running VMs die (auto-destroy).  No callback runs after it.  NULL is fine. */
	void (*close)(void *state);

	/*
	 * Blocks (about 0.3 s).  Makes the scratch disk and the VM, running or paused.  On error
	 * nothing is left, scratch file included.  OM_ERR_EXISTS when the name is in use,
	 * OM_ERR_INVALID for a spec out of its limits, OM_ERR_VM with libvirt's text otherwise.
	 */
	enum om_err (*create)(void *state, const struct om_vm_spec *spec, struct om_vm_handle *out,
			      struct om_why *why);

	/* Block.  OM_ERR_NOT_FOUND when there is no such VM. */
	enum om_err (*resume)(void *state, const char *name, struct om_why *why);
	enum om_err (*suspend)(void *state, const char *name, struct om_why *why);

	/* Blocks (about 0.2 s).  Ends the VM for sure; one that is gone already is a success. */
	enum om_err (*destroy)(void *state, const char *name, struct om_why *why);

	/*
	 * Any thread, does not block.  SIGKILL at once, through the pidfd: the guest runs no more
	 * instruction, destroy() tidies up later.  OM_ERR_NOT_FOUND when qemu is gone already.
	 */
	enum om_err (*kill)(void *state, const struct om_vm_handle *vm);

	/*
	 * Blocks.  Gives the names of the VMs that are ours (OM_VM_PREFIX), also those of an earlier
	 * life of the daemon: an array of *count strings, freed with om_vm_names_free().
	 */
	enum om_err (*list)(void *state, char ***names, size_t *count, struct om_why *why);

	/* Blocks.  OM_ERR_NOT_FOUND when there is no such VM. */
	enum om_err (*stats)(void *state, const char *name, struct om_vm_stats *out,
			     struct om_why *why);
};

/* A driver in use: the table and its state. */
struct om_vm_driver {
	const struct om_vm_driver_ops *ops;
	void *state;
};

extern const struct om_vm_driver_ops om_vm_libvirt_ops;

/* Any thread.  Checks limits, name, paths and their lengths; what every driver refuses. */
enum om_err om_vm_spec_check(const struct om_vm_spec *spec, struct om_why *why) OM_MUST_CHECK;

/* Any thread.  Closes the pidfd and resets; NULL and a zeroed-by-init handle are fine. */
void om_vm_handle_init(struct om_vm_handle *vm);
void om_vm_handle_fini(struct om_vm_handle *vm);

/* Any thread.  NULL is fine. */
void om_vm_names_free(char **names, size_t count);

/* Any thread.  "stopped", "crashed", "driver_down", "driver_up". */
const char *om_vm_event_name(enum om_vm_event_kind kind);

#endif /* OM_VM_DRIVER_H */
