/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_DAEMON_IMPL_H
#define OM_DAEMON_DAEMON_IMPL_H

/* Shared by the daemon/daemon*.c files only. */
#include <pthread.h>
#include "actors/ledger.h"
#include "daemon/control.h"
#include "daemon/daemon.h"
#include "daemon/doctor.h"
#include "daemon/libvirtd.h"
#include "daemon/services.h"
#include "daemon/signals.h"
#include "net/jobnet.h"
#include "runtime/supervisor.h"
#include "runtime/system.h"
#include "vm/image.h"
#include "vm/kvm_probe.h"

/* What actors tell the main thread; a bit each. */
#define DAEMON_READY    1u
#define DAEMON_DRAINING 2u
#define DAEMON_DRAINED  4u
#define DAEMON_STOP_NOW 8u
#define DAEMON_FAILED   16u

struct daemon_mail {
	pthread_mutex_t lock; /* bits, text */
	int fd; /* eventfd: there are new bits */
	unsigned bits;
	char text[OM_WHY_MAX];
};

struct daemon {
	const struct om_config *config;
	const struct om_conf_sources *sources;
	const struct om_settings *s;
	int state_lock, run_lock, jobs_lock;
	uint8_t seal_key[OM_LEDGER_SEAL_LEN]; /* of the private keys in the ledger */
	char jobs_dir[OM_VM_PATH_MAX];
	struct om_check_result checks[OM_DOCTOR_MAX];
	size_t check_count;
	bool wants_tcp;

	/* The machine. */
	struct om_libvirtd libvirtd;
	struct om_vm_driver driver; /* state NULL: not open */
	struct om_vm_image image;
	struct om_vm_kvm_answer kvm;
	struct om_jobnet_env net;
	bool has_net;

	/* The actors. */
	struct daemon_mail mail;
	struct om_system *sys;
	struct om_bus *bus;
	struct om_services *services;
	struct om_signals_conf signals;
	struct om_control_conf control;
	struct om_control_live control_live;
	struct om_actor_id supervisor, watch;
};

/* --- daemon_prepare.c: all block, main thread; an error is in why ------------------------------ */

/* Directories, and the locks that keep a second daemon away. */
enum om_err daemon_lock(struct daemon *d, struct om_why *why) OM_MUST_CHECK;
void daemon_unlock(struct daemon *d);
/* Runs the checks; MISSING when one fails (they are in d->checks). */
enum om_err daemon_doctor(struct daemon *d, struct om_why *why) OM_MUST_CHECK;
/* libvirtd, driver, image, KVM, network back end; then removes what an earlier life left. */
enum om_err daemon_open_machine(struct daemon *d, struct om_why *why) OM_MUST_CHECK;
void daemon_close_machine(struct daemon *d);

#endif /* OM_DAEMON_DAEMON_IMPL_H */
