/* SPDX-License-Identifier: ISC */
#include "daemon/recover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/file.h"
#include "base/log.h"

#define WALK_FDS    16
#define CMDLINE_MAX 65536 /* qemu's is some 5,000 bytes */
#define KILL_MS     5000

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

/* --- VMs that libvirt does not know ------------------------------------------------------------ */

/*
 * One of qemu's arguments is "guest=omerta-ID" or begins with that and a comma, another names a file
 * of that job in our directory of jobs.  Other people's guests may have such a name.
 */
static bool
is_our_guest(pid_t pid, const char *jobs_dir)
{
	char path[64], mine[OM_VM_PATH_MAX + OM_JOB_ID_MAX + 3], *text = malloc(CMDLINE_MAX);
	static const char guest[] = "guest=" OM_VM_PREFIX;
	const char *at, *id = NULL;
	bool is_mine = false;
	ssize_t n = -1;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (text != NULL) {
		n = om_file_head(AT_FDCWD, path, text, CMDLINE_MAX);
	}
	for (at = text; n > 0 && at < text + n && id == NULL; at += strlen(at) + 1) {
		if (strncmp(at, guest, sizeof(guest) - 1) == 0) {
			id = at + sizeof(guest) - 1;
		}
	}
	if (id != NULL) {
		snprintf(mine, sizeof(mine), "%s/%.*s/", jobs_dir,
			 (int)(strcspn(id, ",") < OM_JOB_ID_MAX ? strcspn(id, ",") : OM_JOB_ID_MAX),
			 id);
		for (at = text; at < text + n && !is_mine; at += strlen(at) + 1) {
			is_mine = strstr(at, mine) != NULL;
		}
	}
	free(text);
	return is_mine;
}

static enum om_err
kill_guest(pid_t pid, const char *jobs_dir, unsigned *count, struct om_why *why)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { fd, POLLIN, 0 };
	enum om_err err = OM_OK;

	/* Looked at after the pidfd is open: the number can no longer change its owner. */
	if (fd >= 0 && is_our_guest(pid, jobs_dir)) {
		om_warn("recover.qemu",
			"qemu %d is a VM of an earlier life that libvirt does not know; "
			"killed",
			(int)pid);
		if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) != 0 && errno != ESRCH) {
			err = om_why_errno(why, OM_ERR_VM, "kill qemu %d", (int)pid);
		} else if (poll(&p, 1, KILL_MS) <= 0) {
			err = om_why_set(why, OM_ERR_VM, "qemu %d does not end", (int)pid);
		}
		*count += err == OM_OK;
	}
	if (fd >= 0) {
		close(fd);
	}
	return err;
}

static enum om_err
recover_processes(const char *jobs_dir, unsigned *count, struct om_why *why)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	enum om_err err = OM_OK;

	while (proc != NULL && err == OM_OK && (entry = readdir(proc)) != NULL) {
		long pid = strtol(entry->d_name, NULL, 10);

		if (pid > 1 && pid <= INT_MAX) {
			err = kill_guest((pid_t)pid, jobs_dir, count, why);
		}
	}
	if (proc != NULL) {
		closedir(proc);
	}
	return err;
}

/* --- directories ------------------------------------------------------------------------------- */

/* Removed are the directories that carry a job's id, and nothing else that somebody put there. */
static bool
is_of_a_job(const char *jobs_dir, const char *name, char *path, size_t size)
{
	struct om_job_id id;
	struct stat st;

	snprintf(path, size, "%s/%s", jobs_dir, name);
	return om_job_id_parse(name, strlen(name), &id) == OM_OK && lstat(path, &st) == 0 &&
	       S_ISDIR(st.st_mode);
}

/* A VM is ours when its job's directory is. */
static enum om_err
recover_vms(const struct om_vm_driver *driver, const char *jobs_dir, unsigned *count,
	    struct om_why *why)
{
	char path[OM_VM_PATH_MAX + OM_VM_NAME_MAX + 2];
	char **names = NULL;
	size_t n = 0;
	enum om_err err;

	err = driver->ops->list(driver->state, &names, &n, why);
	for (size_t i = 0; err == OM_OK && i < n; i++) {
		if (strncmp(names[i], OM_VM_PREFIX, sizeof(OM_VM_PREFIX) - 1) != 0) {
			continue;
		}
		snprintf(path, sizeof(path), "%s/%s", jobs_dir,
			 names[i] + sizeof(OM_VM_PREFIX) - 1);
		if (access(path, F_OK) != 0) {
			om_warn("recover.foreign", "VM %s is not of this daemon; left alone",
				names[i]);
			continue;
		}
		om_warn("recover.vm", "%s is left from an earlier life; destroyed", names[i]);
		err = driver->ops->destroy(driver->state, names[i], why);
		*count += err == OM_OK;
	}
	om_vm_names_free(names, n);
	return err;
}

static enum om_err
recover_directories(const char *jobs_dir, unsigned *count, struct om_why *why)
{
	char path[OM_VM_PATH_MAX + 300];
	enum om_err err = OM_OK;
	struct dirent *entry;
	DIR *dir = opendir(jobs_dir);

	if (dir == NULL) {
		return errno == ENOENT ? OM_OK : om_why_errno(why, OM_ERR_IO, "%s", jobs_dir);
	}
	while (err == OM_OK && (entry = readdir(dir)) != NULL) {
		if (!is_of_a_job(jobs_dir, entry->d_name, path, sizeof(path))) {
			continue;
		}
		/* Neither through links nor into other file systems. */
		if (nftw(path, remove_one, WALK_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0) {
			err = om_why_errno(why, OM_ERR_IO, "remove %s", path);
		} else {
			(*count)++;
		}
	}
	closedir(dir);
	return err;
}

enum om_err
om_recover(const struct om_vm_driver *driver, const struct om_jobnet_env *net, const char *jobs_dir,
	   struct om_recovered *out, struct om_why *why)
{
	enum om_err err = OM_OK;

	memset(out, 0, sizeof(*out));
	if (driver != NULL) {
		err = recover_vms(driver, jobs_dir, &out->vms, why);
	}
	if (err == OM_OK && driver != NULL) {
		err = recover_processes(jobs_dir, &out->vms, why);
	}
	if (err == OM_OK) {
		err = recover_directories(jobs_dir, &out->directories, why);
	}
	if (err == OM_OK && net != NULL) {
		err = om_jobnet_sweep(net, &out->net, why);
	}
	return err;
}
