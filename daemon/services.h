/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_SERVICES_H
#define OM_DAEMON_SERVICES_H

/*
 * The services of omertad and the order of their lives: each starts after those that it asks at its
 * start, a failure restarts it and those after it, and they stop in reverse.
 */
#include "daemon/control.h"
#include "net/jobnet.h"
#include "runtime/supervisor.h"
#include "vm/driver.h"
#include "vm/image.h"

#define OM_SERVICES_MAX_RESTARTS 5 /* in the window: more, and the daemon ends */
#define OM_SERVICES_WINDOW_MS    60000

/* All borrowed for the life of the system. */
struct om_services_in {
	const struct om_config *config;
	struct om_bus *bus;
	const struct om_vm_driver *driver; /* NULL: the null executor */
	const struct om_vm_image *image;
	bool use_kvm;
	struct om_jobnet_env *net; /* NULL: jobs have no network */
	const char *jobs_dir;
	const uint8_t *seal_key; /* OM_LEDGER_SEAL_LEN bytes, borrowed for the services' life */
	const struct om_control_conf *control;
};

struct om_services;

/* Any thread.  Gives the configuration of each service.  NOMEM. */
enum om_err om_services_new(const struct om_services_in *in,
			    struct om_services **out) OM_MUST_CHECK;
/* After the system has stopped.  NULL is fine. */
void om_services_free(struct om_services *services);
const struct om_supervisor_spec *om_services_spec(const struct om_services *services);

/* What the provider lends, for the banner. */
uint64_t om_services_cores(const struct om_services *services);
uint64_t om_services_mem_mib(const struct om_services *services);

#endif /* OM_DAEMON_SERVICES_H */
