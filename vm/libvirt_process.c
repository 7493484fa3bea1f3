/* SPDX-License-Identifier: ISC */
/* What the driver does beside libvirt's API: qemu's process and the scratch disk. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/spawn.h"
#include "vm/libvirt_impl.h"

#define PROCESS_MKFS            "/sbin/mkfs.ext4"
#define PROCESS_MKFS_TIMEOUT_MS 60000
#define PROCESS_CMDLINE_MAX     4096
#define SCRATCH_KEEP_PART       20 /* of the file system stays with the host: 1/20 */

/* qemu's arguments hold "guest=NAME," or, at the end of the argument, "guest=NAME". */
static bool
process_is_guest(pid_t pid, const char *name)
{
	char path[64], text[PROCESS_CMDLINE_MAX], want[OM_VM_NAME_MAX + 8];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	n = om_file_head(AT_FDCWD, path, text, sizeof(text));
	snprintf(want, sizeof(want), "guest=%s", name);
	for (const char *at = text; n > 0 && at < text + n; at += strlen(at) + 1) {
		if (strncmp(at, want, strlen(want)) == 0 &&
		    (at[strlen(want)] == '\0' || at[strlen(want)] == ',')) {
			return true;
		}
	}
	return false;
}

enum om_err
libvirt_find_process(const char *run_dir, const char *name, struct om_vm_handle *out,
		     struct om_why *why)
{
	char path[OM_VM_PATH_MAX + OM_VM_NAME_MAX + 16], text[32];
	long pid;
	int fd;

	snprintf(path, sizeof(path), "%s/qemu/%s.pid", run_dir, name);
	if (om_file_head(AT_FDCWD, path, text, sizeof(text)) <= 0) {
		return om_why_errno(why, OM_ERR_VM, "no pid of %s in %s", name, path);
	}
	pid = strtol(text, NULL, 10);
	if (pid <= 1 || pid > INT32_MAX) {
		return om_why_set(why, OM_ERR_VM, "%s holds no pid", path);
	}
	fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_VM, "qemu of %s (pid %ld)", name, pid);
	}
	/* Looked at after the pidfd is open: the number can no longer change its owner. */
	if (!process_is_guest((pid_t)pid, name)) {
		close(fd);
		return om_why_set(why, OM_ERR_VM, "pid %ld is not the qemu of %s", pid, name);
	}
	out->pid = (pid_t)pid;
	out->pidfd = fd;
	return OM_OK;
}

static enum om_err
scratch_format(const char *path, struct om_why *why)
{
	/*
	 * No journal and no reserve: the disk lives as long as one job.  No initialised inode
	 * tables: little is written, and this takes 10 ms whatever the size.
	 */
	const char *const argv[] = { PROCESS_MKFS,
				     "-q",
				     "-F",
				     "-O",
				     "^has_journal,^resize_inode",
				     "-m",
				     "0",
				     "-E",
				     "lazy_itable_init=1,nodiscard,root_owner=0:0",
				     path,
				     NULL };
	struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
	struct om_buf text = { .max = 512 };
	enum om_err err;
	int status = 0;

	err = om_spawn_run(&how, PROCESS_MKFS_TIMEOUT_MS, &text, &status, why);
	if (err == OM_OK && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
		const char *said = om_buf_cstr(&text);

		err = om_why_set(why, OM_ERR_IO, "mkfs.ext4: %s", said != NULL ? said : "failed");
	}
	om_buf_fini(&text);
	return err;
}

/*
 * The whole disk is allocated now: what all guests may write together is there, and a part of the
 * file system stays free for the host (the ledger, or all of /run).  A sparse file would promise
 * the same bytes to everyone.
 */
static enum om_err
scratch_allocate(int fd, const struct om_vm_spec *spec, struct om_why *why)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	const uint64_t size = spec->scratch_mib << 20;
	enum om_err err = OM_OK;
	struct statvfs fs;
	uint64_t avail, keep;

	pthread_mutex_lock(&one_at_a_time);
	if (fstatvfs(fd, &fs) < 0) {
		err = om_why_errno(why, om_err_from_errno(errno), "%s", spec->scratch_path);
		goto out;
	}
	avail = (uint64_t)fs.f_bavail * fs.f_frsize;
	keep = (uint64_t)fs.f_blocks * fs.f_frsize / SCRATCH_KEEP_PART;
	if (avail < keep || avail - keep < size) {
		err = om_why_set(why, OM_ERR_DISK,
				 "disk of %" PRIu64 " MiB: %" PRIu64
				 " MiB are free, of which %" PRIu64 " stay free",
				 spec->scratch_mib, avail >> 20, keep >> 20);
		goto out;
	}
	/* A file system that cannot allocate ahead gives a sparse file, as good as it gets there. */
	if (ftruncate(fd, (off_t)size) < 0 ||
	    (fallocate(fd, 0, 0, (off_t)size) < 0 && errno != EOPNOTSUPP)) {
		err = om_why_errno(why, om_err_from_errno(errno), "size of %s", spec->scratch_path);
	}
out:
	pthread_mutex_unlock(&one_at_a_time);
	return err;
}

/* "+64055:+110" */
static bool
scratch_owner(const char *label, uid_t *uid, gid_t *gid)
{
	return sscanf(label, "+%u:+%u", uid, gid) == 2;
}

enum om_err
libvirt_make_scratch(const struct om_vm_spec *spec, const char *label, struct om_why *why)
{
	enum om_err err;
	uid_t uid;
	gid_t gid;
	int fd;

	fd = open(spec->scratch_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "create %s", spec->scratch_path);
	}
	err = scratch_allocate(fd, spec, why);
	if (err != OM_OK) {
		goto out;
	}
	err = scratch_format(spec->scratch_path, why);
	if (err == OM_OK && scratch_owner(label, &uid, &gid) && fchown(fd, uid, gid) < 0) {
		err =
		    om_why_errno(why, om_err_from_errno(errno), "owner of %s", spec->scratch_path);
	}
out:
	close(fd);
	if (err != OM_OK) {
		(void)unlink(spec->scratch_path);
	}
	return err;
}
