/* SPDX-License-Identifier: ISC */
/*
 * The steps of a job_run that touch files and the hypervisor, and its watch.  All that blocks is
 * offloaded; a piece of work owns copies of what it needs, because the actor may be gone when the
 * work ends (a shutdown): then drop() undoes what the work had done.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "actors/job_run_impl.h"
#include "actors/names.h"
#include "actors/rogue_connection_detector.h"
#include "base/assert.h"
#include "base/log.h"

struct vm_work {
	struct om_vm_driver driver;
	char name[OM_VM_NAME_MAX + 1];
	char dir[RUN_PATH_MAX];
	struct om_why why;
	/* create */
	const struct om_vm_image *image;
	char scratch[RUN_PATH_MAX + 16];
	char channel[RUN_PATH_MAX + 16];
	char tap[16];
	char mac[20];
	unsigned mtu;
	unsigned cores;
	uint64_t mem_mib, scratch_mib;
	bool use_kvm, has_nic;
	bool created;
	struct om_vm_handle vm;
};

static struct vm_work *
work_new(const struct run *run)
{
	struct vm_work *w = calloc(1, sizeof(*w));

	if (w != NULL) {
		w->driver = *run->conf->driver;
		memcpy(w->name, run->vm_name, sizeof(w->name));
		memcpy(w->dir, run->dir, sizeof(w->dir));
		om_vm_handle_init(&w->vm);
	}
	return w;
}

static void
work_free(void *arg)
{
	struct vm_work *w = arg;

	om_vm_handle_fini(&w->vm);
	free(w);
}

/* --- files ----------------------------------------------------------------------------------- */

static enum om_err
work_make_dir(void *arg)
{
	struct vm_work *w = arg;

	if (mkdir(w->dir, 0711) != 0 && errno != EEXIST) {
		return om_why_errno(&w->why, om_err_from_errno(errno), "make %s", w->dir);
	}
	/* umask may have taken bits that the hypervisor's user needs. */
	if (chmod(w->dir, 0711) != 0) {
		return om_why_errno(&w->why, OM_ERR_IO, "chmod %s", w->dir);
	}
	return OM_OK;
}

enum om_err
om_job_dir_remove(const char *path, struct om_why *why)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(path);
	if (dir == NULL) {
		return errno == ENOENT ? OM_OK : om_why_errno(why, OM_ERR_IO, "open %s", path);
	}
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
		}
	}
	(void)closedir(dir);
	if (rmdir(path) != 0 && errno != ENOENT) {
		return om_why_errno(why, OM_ERR_IO, "remove %s", path);
	}
	return OM_OK;
}

static enum om_err
work_remove_dir(void *arg)
{
	struct vm_work *w = arg;

	return om_job_dir_remove(w->dir, &w->why);
}

static void
drop_dir(void *arg)
{
	(void)work_remove_dir(arg);
	work_free(arg);
}

static void
on_dir_made(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct vm_work *w = arg;
	struct om_why why = w->why;

	work_free(w);
	run_entered(cx, state, result, &why);
}

void
enter_files(struct om_ctx *cx, struct run *run)
{
	struct vm_work *w = work_new(run);

	if (w == NULL ||
	    om_offload_to(cx, OM_POOL_FILES, work_make_dir, w, on_dir_made, drop_dir) != OM_OK) {
		free(w);
		run_entered(cx, run, OM_ERR_NOMEM, NULL);
	}
}

static void
on_dir_removed(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct vm_work *w = arg;

	if (result != OM_OK) {
		om_warn("job.files_left", "%s",
			w->why.text); /* the sweep at the next start finds it */
	}
	work_free(w);
	run_undone(cx, state);
}

void
undo_files(struct om_ctx *cx, struct run *run)
{
	struct vm_work *w = work_new(run);

	if (w == NULL || om_offload_to(cx, OM_POOL_FILES, work_remove_dir, w, on_dir_removed,
				       drop_dir) != OM_OK) {
		free(w);
		om_warn("job.files_left", "%s: out of memory", run->dir);
		run_undone(cx, run);
	}
}

/* --- the VM ---------------------------------------------------------------------------------- */

static enum om_err
work_create(void *arg)
{
	struct vm_work *w = arg;
	struct om_vm_nic nic = { .tap = w->tap, .mac = w->mac, .mtu = w->mtu };
	struct om_vm_spec spec = {
		.name = w->name,
		.cores = w->cores,
		.mem_mib = w->mem_mib,
		.kernel = w->image->kernel,
		.initrd = w->image->initrd,
		.root = w->image->root,
		.scratch_path = w->scratch,
		.scratch_mib = w->scratch_mib,
		.channel_path = w->channel,
		.nic = w->has_nic ? &nic : NULL,
		.start_paused = w->has_nic,
		.use_kvm = w->use_kvm,
	};
	enum om_err err;

	err = w->driver.ops->create(w->driver.state, &spec, &w->vm, &w->why);
	w->created = err == OM_OK;
	return err;
}

static enum om_err
work_destroy(void *arg)
{
	struct vm_work *w = arg;

	return w->driver.ops->destroy(w->driver.state, w->name, &w->why);
}

static enum om_err
work_resume(void *arg)
{
	struct vm_work *w = arg;

	return w->driver.ops->resume(w->driver.state, w->name, &w->why);
}

static void
drop_create(void *arg)
{
	struct vm_work *w = arg;

	if (w->created) {
		(void)work_destroy(w);
	}
	drop_dir(w);
}

/*
 * Disks are allocated in full, and the queue does not count them: other jobs may have all the room
 * now.  true: create is tried again later.
 */
static bool
disk_wait(struct om_ctx *cx, struct run *run, const struct om_why *why)
{
	struct om_mono now = om_now(cx);

	if (run->disk_since.ns == 0) {
		run->disk_since = now;
		om_warn("job.disk_waits", "%s: %s", run->job.text, why->text);
	}
	return om_mono_ms_between(run->disk_since, now) < RUN_DISK_WAIT_MS &&
	       om_timer_start(cx, RUN_RETRY_MS, 0, TIMER_DISK, &run->disk_timer) == OM_OK;
}

void
run_on_disk_timer(struct om_ctx *cx, struct run *run)
{
	run->disk_timer = 0;
	enter_vm(cx, run);
}

static void on_destroyed(struct om_ctx *cx, void *state, void *arg, enum om_err result);

/* Nobody waits for it any more: what there is of it goes, and the files that it made in between. */
static enum om_err
work_undo_create(void *arg)
{
	struct vm_work *w = arg;
	enum om_err err = w->created ? work_destroy(w) : OM_OK;
	enum om_err files = work_remove_dir(w);

	return err != OM_OK ? err : files;
}

static void
abandoned_created(struct om_ctx *cx, struct run *run, struct vm_work *w)
{
	if (om_offload_to(cx, OM_POOL_VM, work_undo_create, w, on_destroyed, drop_create) !=
	    OM_OK) {
		on_destroyed(cx, run, w, work_undo_create(w)); /* blocks, but leaves nothing */
	}
}

static void
on_created(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct vm_work *w = arg;
	struct om_why why = w->why;
	struct run *run = state;

	if (run->destroying) {
		abandoned_created(cx, run, w);
		return;
	}
	if (result == OM_ERR_DISK && disk_wait(cx, run, &why)) {
		work_free(w);
		return;
	}
	if (result == OM_OK) {
		run->vm = w->vm;
		om_vm_handle_init(&w->vm); /* the pidfd is the run's now */
		if (run->vm.pidfd >= 0 && om_io_watch(cx, run->vm.pidfd, OM_IO_READ, WATCH_PIDFD,
						      &run->pidfd_watch) != OM_OK) {
			run->pidfd_watch = 0; /* the driver's events tell the same, later */
		}
	}
	work_free(w);
	run_entered(cx, run, result, &why);
}

void
enter_vm(struct om_ctx *cx, struct run *run)
{
	struct vm_work *w = work_new(run);

	if (w == NULL) {
		run_entered(cx, run, OM_ERR_NOMEM, NULL);
		return;
	}
	w->image = run->conf->image;
	w->use_kvm = run->conf->use_kvm;
	w->cores = (unsigned)run->spec.cores;
	w->mem_mib = run->spec.mem_mib;
	w->scratch_mib = run->spec.disk_mib;
	(void)snprintf(w->scratch, sizeof(w->scratch), "%s/scratch.img", run->dir);
	(void)snprintf(w->channel, sizeof(w->channel), "%s/agent.sock", run->dir);
	if (run->net != NULL) {
		w->has_nic = true;
		w->mtu = (unsigned)run->net->mtu;
		if (om_str_copy(run->net->tap, w->tap, sizeof(w->tap)) != OM_OK ||
		    om_str_copy(run->net->mac, w->mac, sizeof(w->mac)) != OM_OK) {
			work_free(w);
			run_entered(cx, run, OM_ERR_INTERNAL, NULL);
			return;
		}
	}
	if (om_offload_to(cx, OM_POOL_VM, work_create, w, on_created, drop_create) != OM_OK) {
		work_free(w);
		run_entered(cx, run, OM_ERR_NOMEM, NULL);
	}
}

/*
 * The job ends while its VM is being created, and libvirt may take long for that.  The way back
 * begins now; only the teardown waits for the VM, which starts paused when it has a network and has
 * no job to run when it has none.
 */
void
run_abandon_vm(struct om_ctx *cx, struct run *run)
{
	run->destroying = run->disk_timer == 0;
	om_timer_cancel(cx, run->disk_timer);
	run->disk_timer = 0;
	run_entered(cx, run, OM_ERR_CANCELLED, NULL);
}

void
run_kill_vm(struct run *run)
{
	if (run->vm.pid != 0 && run->conf->driver != NULL) {
		(void)run->conf->driver->ops->kill(run->conf->driver->state, &run->vm);
	}
}

static void
on_destroyed(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct vm_work *w = arg;
	struct run *run = state;

	if (result != OM_OK) {
		om_warn("job.vm_left", "%s: %s", w->name, w->why.text);
	}
	work_free(w);
	run->destroying = false;
	if (run->teardown_waits) {
		run->teardown_waits = false;
		run_undone(cx, run);
	}
}

static void
drop_destroy(void *arg)
{
	(void)work_destroy(arg);
	work_free(arg);
}

/* SIGKILL is on its way to the guest when this returns; libvirt tidies up behind our back. */
void
undo_vm(struct om_ctx *cx, struct run *run)
{
	struct vm_work *w = work_new(run);

	if (run->pidfd_watch != 0) {
		om_io_unwatch(cx, run->pidfd_watch);
		run->pidfd_watch = 0;
	}
	run_kill_vm(run);
	if (w == NULL ||
	    om_offload_to(cx, OM_POOL_VM, work_destroy, w, on_destroyed, drop_destroy) != OM_OK) {
		free(w);
		om_warn("job.vm_left", "%s: out of memory", run->vm_name);
	} else {
		run->destroying = true;
	}
	run_undone(cx, run);
}

void
undo_teardown(struct om_ctx *cx, struct run *run)
{
	if (run->destroying) {
		run->teardown_waits = true;
		return;
	}
	run_undone(cx, run);
}

/* --- the walls around it --------------------------------------------------------------------- */

static void
on_resumed(struct om_ctx *cx, void *state, void *arg, enum om_err result)
{
	struct vm_work *w = arg;
	struct om_why why = w->why;

	work_free(w);
	run_entered(cx, state, result, &why);
}

static void
on_watched(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct vm_work *w;

	if (a->err != OM_OK) {
		run_entered(cx, run, a->err, &a->why);
		return;
	}
	run->guest_ran = true; /* perhaps: a resume that fails may have begun */
	w = work_new(run);
	if (w == NULL ||
	    om_offload_to(cx, OM_POOL_VM, work_resume, w, on_resumed, work_free) != OM_OK) {
		free(w);
		run_entered(cx, run, OM_ERR_NOMEM, NULL);
	}
}

/* The detector gets a descriptor of its own: it kills before it asks anyone. */
static enum om_err
send_guard(struct om_ctx *cx, const struct run *run)
{
	struct om_rogue_guard *g = calloc(1, sizeof(*g));
	struct om_msg *msg = NULL;
	enum om_err err;

	if (g == NULL) {
		return OM_ERR_NOMEM;
	}
	g->job = run->job;
	g->pidfd = fcntl(run->vm.pidfd, F_DUPFD_CLOEXEC, 0);
	msg = g->pidfd < 0 ? NULL : om_msg_new_owner(cx, OM_ROGUE_GUARD, g, om_rogue_guard_free);
	if (msg == NULL) {
		err = g->pidfd < 0 ? OM_ERR_LIMIT : OM_ERR_NOMEM;
		om_rogue_guard_free(g);
		return err;
	}
	err = om_send_urgent(cx, om_whereis(om_ctx_system(cx), OM_ROGUE_CONNECTION_DETECTOR), &msg);
	om_msg_free(cx, msg);
	return err;
}

static void
on_attached(struct om_ctx *cx, struct run *run, const struct om_jr_relayed *a)
{
	struct om_rogue_watch m = { 0 };
	enum om_err err = a->err;

	if (err == OM_OK && run->vm.pidfd >= 0) {
		err = send_guard(cx, run); /* without one the detector refuses to watch */
	}
	if (err == OM_OK) {
		OM_SET(&m, rogue_watch, job, om_str_of(run->job.text));
		OM_SET(&m, rogue_watch, netns, run->net->netns);
		OM_SET(&m, rogue_watch, qemu_pid, (uint64_t)run->vm.pid);
		err = run_relay(cx, run, OM_ROGUE_CONNECTION_DETECTOR, OM_MSG_ROGUE_WATCH, &m,
				RUN_NETWORK_MS, on_watched);
		if (err == OM_OK) {
			return;
		}
	}
	run_entered(cx, run, err, &a->why);
}

/* The VM is paused until the tap is behind the walls and someone watches them. */
void
enter_watch(struct om_ctx *cx, struct run *run)
{
	struct om_job_ref ref = { 0 };
	enum om_err err;

	if (run->net == NULL) {
		run_entered(cx, run, OM_OK, NULL);
		return;
	}
	OM_SET(&ref, job_ref, job, om_str_of(run->job.text));
	err = run_relay(cx, run, OM_VPN_MANAGER, OM_MSG_VPN_ATTACH, &ref, RUN_NETWORK_MS,
			on_attached);
	if (err != OM_OK) {
		run_entered(cx, run, err, NULL);
	}
}

/*
 * First the VM, then its network, then its watch (undo_network): there is no moment with a guest
 * that nobody watches, and the walls' last counters are there when the watch ends.
 */
void
undo_watch(struct om_ctx *cx, struct run *run)
{
	run_kill_vm(run);
	run_undone(cx, run);
}
