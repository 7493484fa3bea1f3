/* SPDX-License-Identifier: ISC */
#include "daemon/services.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "actors/activity_logger.h"
#include "actors/executor.h"
#include "actors/filter_manager.h"
#include "actors/job_queue.h"
#include "actors/ledger.h"
#include "actors/provider.h"
#include "actors/rogue_connection_detector.h"
#include "actors/vpn_manager.h"
#include "base/assert.h"

#define SERVICES_MAX     12
#define STOP_MS          5000
#define EXECUTOR_STOP_MS 20000 /* what still runs is killed; files of many jobs are removed */
#define LEDGER_STOP_MS   20000 /* the last transaction, on a slow disk */
#define DETAILS_MAX      128

struct om_services {
	uint64_t cores, mem_mib;
	char ledger_path[512], details[DETAILS_MAX], default_action[64];
	const char **trusted, **trusted_peers, **blocked;
	struct om_ledger_conf ledger;
	struct om_filter_manager_conf filter;
	struct om_activity_logger_conf logger;
	struct om_vpn_manager_conf vpn;
	struct om_executor_conf executor;
	struct om_job_queue_conf queue;
	struct om_provider_conf provider;
	/* what was changed in the running daemon, for an actor that is restarted */
	struct om_filter_live filter_live;
	struct om_job_queue_live queue_live;
	struct om_provider_live provider_live;
	struct om_service_arg args[SERVICES_MAX];
	struct om_child_spec children[SERVICES_MAX];
	size_t count;
	struct om_supervisor_spec spec;
};

/* All but what stays with the host; at least one core and a quarter of the memory. */
static void
services_lend(struct om_services *sv, const struct om_settings *s)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	uint64_t cores = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t mem = (uint64_t)pages / 1024 * (uint64_t)page / 1024;

	sv->cores = s->jobs_lend_cores;
	if (sv->cores == 0) {
		sv->cores = cores > s->jobs_keep_cores + 1 ? cores - s->jobs_keep_cores : 1;
	}
	sv->mem_mib = s->jobs_lend_memory;
	if (sv->mem_mib == 0) {
		sv->mem_mib = mem > s->jobs_keep_memory ? mem - s->jobs_keep_memory : 0;
		sv->mem_mib = sv->mem_mib > mem / 4 ? sv->mem_mib : mem / 4;
	}
}

/* The lists' strings end with NUL (the arena of the configuration sees to it). */
static enum om_err
services_list(const struct om_strs *list, const char ***out)
{
	*out = calloc(list->n + 1, sizeof(**out));
	if (*out == NULL) {
		return OM_ERR_NOMEM;
	}
	for (size_t i = 0; i < list->n; i++) {
		(*out)[i] = list->v[i].ptr;
	}
	return OM_OK;
}

static enum om_err
services_policy(struct om_services *sv, const struct om_services_in *in)
{
	const struct om_settings *s = om_config_settings(in->config);
	enum om_err err = services_list(&s->jobs_trusted_networks, &sv->trusted);

	if (err == OM_OK) {
		err = services_list(&s->jobs_trusted_peers, &sv->trusted_peers);
	}
	if (err == OM_OK) {
		err = services_list(&s->jobs_blocked_peers, &sv->blocked);
	}
	sv->filter = (struct om_filter_manager_conf){
		.owner_peer = s->jobs_owner_peer,
		.default_action = om_config_choice(in->config, OM_CONF_jobs_default_action,
						   sv->default_action, sizeof(sv->default_action)),
		.trusted = sv->trusted,
		.trusted_count = s->jobs_trusted_networks.n,
		.trusted_peers = sv->trusted_peers,
		.trusted_peer_count = s->jobs_trusted_peers.n,
		.blocked = sv->blocked,
		.blocked_count = s->jobs_blocked_peers.n,
		.live = &sv->filter_live,
	};
	sv->filter.rules = om_config_rules(in->config, &sv->filter.rule_count);
	sv->provider = (struct om_provider_conf){
		.owner_peer = s->jobs_owner_peer,
		.tunnel_offered = in->net != NULL,
		.net = in->net,
		.gpu_offered = s->jobs_gpu,
		.hold_expiry_ms = s->jobs_approval_expiry,
		.jobs_max = s->jobs_queue_max,
		.peer_jobs_max = s->jobs_peer_max,
		.output_max = s->jobs_max_output * 1024 * 1024,
		.cores_total = sv->cores,
		.mem_mib_total = sv->mem_mib,
		.live = &sv->provider_live,
	};
	sv->queue = (struct om_job_queue_conf){
		.max_jobs = s->jobs_max_jobs,
		.cores_total = sv->cores,
		.mem_mib_total = sv->mem_mib,
		.age_ms = s->jobs_age_after,
		.wait_for_recovery = true,
		.live = &sv->queue_live,
	};
	return err;
}

static void
services_machine(struct om_services *sv, const struct om_services_in *in)
{
	const struct om_settings *s = om_config_settings(in->config);

	snprintf(sv->ledger_path, sizeof(sv->ledger_path), "%s/ledger.db", s->daemon_state_dir);
	sv->ledger = (struct om_ledger_conf){
		.path = sv->ledger_path,
		.wal_bytes = s->store_wal_size * 1024 * 1024,
		.cache_kib = (uint32_t)(s->store_cache * 1024),
		.keep_ms = s->store_keep_jobs,
		.keep_bytes = s->store_keep_size * 1024 * 1024,
		.audit_keep_ms = s->store_keep_audit,
		.seal_key = in->seal_key,
	};
	snprintf(sv->details, sizeof(sv->details), "omertad %s, pid %ld, accelerator %s",
		 OM_VERSION, (long)getpid(), in->control->accelerator);
	sv->logger = (struct om_activity_logger_conf){ .log_lines = true, .details = sv->details };
	sv->vpn = (struct om_vpn_manager_conf){
		.env = in->net,
		.health = { .no_reply_ms = (int64_t)s->network_no_reply,
			    .handshake_max_ms = (int64_t)s->network_handshake_max,
			    .handshake_retry_ms = (int64_t)s->network_handshake_retry },
		.sample_ms = s->network_health_every,
		.rate_max_kbit = s->network_max_bandwidth,
	};
	sv->executor = (struct om_executor_conf){
		.driver = in->driver,
		.image = in->image,
		.run_dir = in->jobs_dir,
		.use_kvm = in->use_kvm,
		.boot_timeout_ms = s->vm_boot_timeout,
	};
}

static enum om_err
services_add(struct om_services *sv, const struct om_services_in *in,
	     const struct om_service_def *def, const void *arg, uint32_t stop_ms)
{
	struct om_service_arg *service;
	struct om_child_spec *child;

	OM_ASSERT(sv->count < SERVICES_MAX);
	service = &sv->args[sv->count];
	child = &sv->children[sv->count++];
	*service = (struct om_service_arg){ .bus = in->bus, .def = def, .arg = arg };
	*child = (struct om_child_spec){
		.def = om_service_actor(in->bus, def),
		.arg = service,
		.name = def->name, /* vpn_manager and the driver find their actor by it */
		.restart = OM_RESTART_ALWAYS,
		.stop_timeout_ms = stop_ms,
	};
	return child->def != NULL ? OM_OK : OM_ERR_NOMEM;
}

static enum om_err
services_children(struct om_services *sv, const struct om_services_in *in)
{
	const struct {
		const struct om_service_def *def;
		const void *arg;
		uint32_t stop_ms;
	} order[] = {
		/* actors/names.h says why in this order. */
		{ &om_ledger_service, &sv->ledger, LEDGER_STOP_MS },
		{ &om_filter_manager_service, &sv->filter, STOP_MS },
		{ &om_activity_logger_service, &sv->logger, STOP_MS },
		{ &om_vpn_manager_service, &sv->vpn, STOP_MS },
		{ &om_rogue_connection_detector_service, NULL, STOP_MS },
		{ &om_executor_service, &sv->executor, EXECUTOR_STOP_MS },
		{ &om_job_queue_service, &sv->queue, STOP_MS },
		{ &om_provider_service, &sv->provider, STOP_MS },
		{ &om_control_service, in->control, STOP_MS },
	};
	enum om_err err = OM_OK;

	for (size_t i = 0; err == OM_OK && i < OM_COUNT(order); i++) {
		err = services_add(sv, in, order[i].def, order[i].arg, order[i].stop_ms);
	}
	sv->spec = (struct om_supervisor_spec){
		.name = "omertad",
		.strategy = OM_REST_FOR_ONE,
		.max_restarts = OM_SERVICES_MAX_RESTARTS,
		.window_ms = OM_SERVICES_WINDOW_MS,
		.backoff_min_ms = 100,
		.backoff_max_ms = 5000,
		.children = sv->children,
		.child_count = sv->count,
	};
	return err;
}

enum om_err
om_services_new(const struct om_services_in *in, struct om_services **out)
{
	struct om_services *sv = calloc(1, sizeof(*sv));
	enum om_err err;

	if (sv == NULL) {
		return OM_ERR_NOMEM;
	}
	services_lend(sv, om_config_settings(in->config));
	err = services_policy(sv, in);
	if (err == OM_OK) {
		services_machine(sv, in);
		err = services_children(sv, in);
	}
	if (err != OM_OK) {
		om_services_free(sv);
		return err;
	}
	*out = sv;
	return OM_OK;
}

void
om_services_free(struct om_services *services)
{
	if (services != NULL) {
		om_filter_live_fini(&services->filter_live);
		free(services->trusted);
		free(services->trusted_peers);
		free(services->blocked);
		free(services);
	}
}

const struct om_supervisor_spec *
om_services_spec(const struct om_services *services)
{
	return &services->spec;
}

uint64_t
om_services_cores(const struct om_services *services)
{
	return services->cores;
}

uint64_t
om_services_mem_mib(const struct om_services *services)
{
	return services->mem_mib;
}
