/* SPDX-License-Identifier: ISC */
#include "daemon/lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum om_err
om_lock_file(const char *dir, const char *name, int *out, struct om_why *why)
{
	char path[512], pid[16] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_IO, "%s", path);
	}
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		n = pread(fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? n : 0] = '\0';
		pid[strcspn(pid, "\n")] = '\0';
		close(fd);
		return om_why_set(why, OM_ERR_EXISTS, "another omertad (pid %s) uses %s",
				  pid[0] != '\0' ? pid : "?", dir);
	}
	n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
		close(fd);
		return om_why_errno(why, OM_ERR_IO, "%s", path);
	}
	*out = fd;
	return OM_OK;
}

/* What mkfs puts into a file system that was made for the jobs does not count. */
static bool
counts(const char *name)
{
	return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, "lost+found") != 0;
}

enum om_err
om_lock_jobs_dir(const char *dir, int *out, struct om_why *why)
{
	const struct dirent *entry;
	char found[256] = "";
	struct stat st;
	DIR *d = opendir(dir);
	bool marked;

	if (d == NULL) {
		return om_why_errno(why, OM_ERR_IO, "%s", dir);
	}
	marked = fstatat(dirfd(d), OM_LOCK_JOBS_MARKER, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		 S_ISREG(st.st_mode);
	while (!marked && found[0] == '\0' && (entry = readdir(d)) != NULL) {
		if (counts(entry->d_name)) {
			snprintf(found, sizeof(found), "%s", entry->d_name);
		}
	}
	closedir(d);
	if (found[0] != '\0') {
		return om_why_set(
		    why, OM_ERR_INVALID,
		    "%.60s is no directory of jobs of omertad: it holds %.60s and no %s; "
		    "empty it, or set vm.jobs_dir",
		    dir, found, OM_LOCK_JOBS_MARKER);
	}
	return om_lock_file(dir, OM_LOCK_JOBS_MARKER, out, why);
}
