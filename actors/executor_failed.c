/* SPDX-License-Identifier: ISC */
/*
 * A job_run that failed: its VM and files are removed in its place, its network is let go, and its end
 * is recorded.  What that needs was allocated with the job: memory is what a job_run fails for.
 */
#include <stdio.h>
#include <stdlib.h>
#include "actors/executor_impl.h"
#include "actors/names.h"
#include "base/assert.h"
#include "base/log.h"

struct om_exec_cleanup {
	struct om_vm_driver driver;
	struct om_job_id id;
	char dir[OM_VM_PATH_MAX];
	bool cleaned;
};

enum om_err
om_exec_cleanup_new(const struct om_executor_conf *conf, const struct om_job_id *id,
		    struct om_exec_cleanup **out)
{
	struct om_exec_cleanup *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		return OM_ERR_NOMEM;
	}
	c->driver = *conf->driver;
	c->id = *id;
	(void)snprintf(c->dir, sizeof(c->dir), "%s/%s", conf->run_dir, id->text);
	*out = c;
	return OM_OK;
}

/* Offload thread.  What the child's undo list would have done for VM and files. */
static enum om_err
cleanup_work(void *arg)
{
	struct om_exec_cleanup *c = arg;
	char name[OM_VM_NAME_MAX + 1];
	struct om_why why;

	(void)snprintf(name, sizeof(name), OM_VM_PREFIX "%s", c->id.text);
	if (c->driver.ops->destroy(c->driver.state, name, &why) != OM_OK) {
		om_error("exec.cleanup", "%s: %s", name, why.text);
	}
	if (om_job_dir_remove(c->dir, &why) != OM_OK) {
		om_error("exec.cleanup", "%s", why.text);
	}
	c->cleaned = true;
	return OM_OK;
}

/* We end before it is done, perhaps before it has begun: a disk in full size would stay. */
static void
cleanup_drop(void *arg)
{
	struct om_exec_cleanup *c = arg;

	if (!c->cleaned) {
		(void)cleanup_work(c);
	}
	free(c);
}

static void
on_failed_recorded(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct executor *ex = state;
	struct om_name_walk walk = { 0 };
	struct om_name_node *node;

	if (answer->err != OM_OK) {
		om_error("exec.record_failed", "%s", answer->text);
	}
	while ((node = om_name_table_next(&ex->jobs, &walk)) != NULL) {
		if (om_exec_job_of(node)->monitor == answer->cookie) {
			om_exec_job_done(sv, ex, om_exec_job_of(node));
			return;
		}
	}
}

/* Takes c. */
static void
cleaned(struct om_service *sv, struct executor *ex, struct om_exec_cleanup *c)
{
	struct om_name_node *node = om_name_table_find(&ex->jobs, om_str_of(c->id.text));
	struct exec_job *job = om_exec_job_of(node);
	struct om_ledger_move m = { 0 };
	struct om_rogue_unwatch unwatch = { 0 };
	struct om_job_ref ref = { 0 };

	OM_ASSERT(node != NULL);
	OM_SET(&ref, job_ref, job, om_str_of(job->id.text));
	OM_SET(&unwatch, rogue_unwatch, job, om_str_of(job->id.text));
	if (om_service_send(sv, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_UNWATCH, &unwatch) !=
	    OM_OK) {
		om_warn("exec.cleanup", "%s: it is watched on", job->id.text);
	}
	if (om_service_send(sv, OM_VPN_MANAGER, OM_MSG_VPN_DOWN, &ref) != OM_OK) {
		om_warn("exec.cleanup", "%s: its network was not let go", job->id.text);
	}
	job->state = OM_JOB_FAILED;
	OM_SET(&m, ledger_move, job, om_str_of(job->id.text));
	OM_SET(&m, ledger_move, state, om_str_of("failed"));
	OM_SET(&m, ledger_move, reason, om_str_of("internal"));
	OM_SET(&m, ledger_move, text, om_str_of("the provider failed while it ran the job"));
	if (om_service_ask(sv, OM_LEDGER, OM_MSG_LEDGER_MOVE, &m, NULL, EXEC_LEDGER_MS,
			   on_failed_recorded, job->monitor) != OM_OK) {
		om_exec_job_done(sv, ex, job); /* the next start finds it provisioning: lost */
	}
	free(c);
}

static void
on_cleaned(struct om_ctx *cx, void *actor_state, void *arg, enum om_err result)
{
	struct om_service *sv = om_service_of_actor(cx, actor_state);

	(void)result;
	cleaned(sv, om_service_state(sv), arg);
}

void
om_exec_job_failed(struct om_service *sv, struct executor *ex, struct exec_job *job,
		   enum om_err why)
{
	struct om_exec_cleanup *c = job->cleanup;

	om_error("exec.job_failed", "%s: its actor ended: %s", job->id.text, om_err_text(why));
	OM_ASSERT(c != NULL);
	job->cleanup = NULL;
	if (om_offload_to(om_service_cx(sv), OM_POOL_VM, cleanup_work, c, on_cleaned,
			  cleanup_drop) != OM_OK) {
		(void)cleanup_work(c); /* blocks, but leaves nothing */
		cleaned(sv, ex, c);
	}
}
