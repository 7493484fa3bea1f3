/* SPDX-License-Identifier: ISC */
/*
 * The start of an executor after another one that failed.  Every directory in run_dir is a job's
 * that nobody runs any more: its VM is destroyed, then the directory is removed.  The networks are
 * vpn_manager's, who is told to take all of them down; then the detector, to watch nobody.
 *
 * (At the start of the daemon daemon/recover.c has done this already, and nothing is found.)
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "actors/executor_impl.h"
#include "actors/names.h"
#include "base/log.h"

#define SWEEP_NETWORK_MS 30000

struct sweep {
	struct om_vm_driver driver;
	char dir[OM_VM_PATH_MAX];
};

static void
sweep_one(const struct sweep *s, const struct om_job_id *job)
{
	char path[OM_VM_PATH_MAX + OM_JOB_ID_MAX + 2], name[OM_VM_NAME_MAX + 1];
	struct om_why why = { "" };

	om_warn("exec.left", "%s: left by an executor that failed; removed", job->text);
	(void)snprintf(name, sizeof(name), OM_VM_PREFIX "%s", job->text);
	(void)snprintf(path, sizeof(path), "%s/%s", s->dir, job->text);
	if (s->driver.ops->destroy(s->driver.state, name, &why) != OM_OK ||
	    om_job_dir_remove(path, &why) != OM_OK) {
		om_error("exec.cleanup", "%s: %s", job->text, why.text);
	}
}

/* Offload thread. */
static enum om_err
sweep_work(void *arg)
{
	const struct sweep *s = arg;
	DIR *dir = opendir(s->dir);
	struct dirent *entry;
	struct om_job_id job;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (om_job_id_parse(entry->d_name, strlen(entry->d_name), &job) == OM_OK) {
			sweep_one(s, &job);
		}
	}
	if (dir != NULL) {
		(void)closedir(dir);
	}
	return OM_OK;
}

static void
on_swept(struct om_ctx *cx, void *actor_state, void *arg, enum om_err result)
{
	(void)result;
	free(arg);
	om_exec_swept(om_service_of_actor(cx, actor_state));
}

static void
on_all_unwatched(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)state;
	if (answer->err != OM_OK) {
		om_error("exec.cleanup", "watches of an earlier executor: %s", answer->text);
	}
	om_exec_swept(sv);
}

/*
 * An executor that died between the end of a network and the end of its watch leaves the watch, and
 * with it the namespace that its socket holds.
 */
static void
on_networks_down(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct om_rogue_unwatch all = { 0 };

	(void)state;
	if (answer->err != OM_OK) {
		om_error("exec.cleanup", "networks of an earlier executor: %s", answer->text);
	}
	OM_SET(&all, rogue_unwatch, job, OM_STR("*"));
	if (om_service_ask(sv, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &all, NULL,
			   SWEEP_NETWORK_MS, on_all_unwatched, 0) != OM_OK) {
		om_exec_swept(sv); /* no detector: it watches nobody */
	}
}

static bool
has_jobs(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	struct om_job_id job;
	bool found = false;

	while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
		found = om_job_id_parse(entry->d_name, strlen(entry->d_name), &job) == OM_OK;
	}
	if (dir != NULL) {
		(void)closedir(dir);
	}
	return found;
}

unsigned
om_exec_sweep(struct om_service *sv, const struct om_executor_conf *conf)
{
	struct om_job_ref all = { 0 };
	struct sweep *s = NULL;
	unsigned count = 0;

	OM_SET(&all, job_ref, job, OM_STR("*"));
	if (om_service_ask(sv, OM_VPN_MANAGER, OM_MSG_VPN_DOWN, &all, NULL, SWEEP_NETWORK_MS,
			   on_networks_down, 0) == OM_OK) {
		count++; /* else there is no manager: no networks */
	}
	if (!has_jobs(conf->run_dir)) {
		return count;
	}
	s = calloc(1, sizeof(*s));
	if (s != NULL) {
		s->driver = *conf->driver;
		(void)snprintf(s->dir, sizeof(s->dir), "%s", conf->run_dir);
	}
	if (s == NULL ||
	    om_offload_to(om_service_cx(sv), OM_POOL_VM, sweep_work, s, on_swept, free) != OM_OK) {
		free(s);
		om_error("exec.cleanup", "out of memory");
		return count;
	}
	return count + 1;
}
