/* SPDX-License-Identifier: ISC */
/*
 * Files in (before the job runs, so nobody interferes) and out (after all of its processes are
 * dead).  Names are relative to the job's directory.  Files out are opened below it without
 * following any link: what the job planted there cannot lead elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vm/guest/agent.h"

static bool
files_name_ok(struct om_str path)
{
	struct om_str rest = path;
	bool more = path.len > 0 && path.len <= OM_GUEST_PATH_MAX && path.ptr[0] != '/';

	if (!more || memchr(path.ptr, 0, path.len) != NULL) {
		return false;
	}
	while (rest.len > 0) {
		const char *slash = memchr(rest.ptr, '/', rest.len);
		size_t n = slash != NULL ? (size_t)(slash - rest.ptr) : rest.len;

		if (n == 0 || om_str_is((struct om_str){ rest.ptr, n }, "..")) {
			return false;
		}
		rest.ptr += n + (slash != NULL);
		rest.len -= n + (slash != NULL);
	}
	return true;
}

/* Makes the directories that lead to `path` (absolute, below the job's directory). */
static void
files_make_dirs(char *path, size_t from)
{
	for (char *at = path + from; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		if (mkdir(path, 0755) == 0) {
			(void)!chown(path, GUEST_UID, GUEST_GID);
		}
		*at = '/';
	}
}

bool
files_on_put(struct agent *a, struct om_mp *frame)
{
	struct job *j = &a->job;
	const size_t base = sizeof(GUEST_ROOT GUEST_JOB "/") - 1;
	char path[sizeof(GUEST_ROOT GUEST_JOB "/") + OM_GUEST_PATH_MAX];
	struct om_str name;
	uint64_t mode, size;
	bool is_script;

	if (j->state != JOB_NONE || j->file_left > 0 || om_mp_str(frame, &name) != OM_OK ||
	    om_mp_u64(frame, &mode) != OM_OK || om_mp_u64(frame, &size) != OM_OK) {
		return false;
	}
	is_script = name.len == 0;
	if (is_script) {
		name = om_str_of(GUEST_SCRIPT);
		mode = 0755;
	}
	if (!files_name_ok(name)) {
		return false;
	}
	snprintf(path, sizeof(path), GUEST_ROOT GUEST_JOB "/%.*s", OM_STR_ARG(name));
	files_make_dirs(path, base);
	j->file_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (j->file_fd < 0 || fchown(j->file_fd, GUEST_UID, GUEST_GID) < 0 ||
	    fchmod(j->file_fd, (mode_t)mode & 0777) < 0) {
		agent_send_failed(a, "disk", strerror(errno));
		return true;
	}
	j->file_left = size;
	if (size == 0) {
		close(j->file_fd);
		j->file_fd = -1;
	}
	return true;
}

bool
files_on_data(struct agent *a, struct om_mp *frame)
{
	struct job *j = &a->job;
	struct om_bin data;

	if (om_mp_bin(frame, &data) != OM_OK || data.len == 0 || data.len > j->file_left) {
		return false;
	}
	while (data.len > 0) {
		ssize_t n = write(j->file_fd, data.ptr, data.len);

		if (n <= 0) {
			agent_send_failed(a, "disk", "files in do not fit on the job's disk");
			return true;
		}
		data.ptr += n;
		data.len -= (size_t)n;
		j->file_left -= (size_t)n;
	}
	if (j->file_left == 0) {
		close(j->file_fd);
		j->file_fd = -1;
	}
	return true;
}

/* --- out ---------------------------------------------------------------------------------------- */

static int
files_open_out(const char *name)
{
	struct open_how how = {
		.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, /* a FIFO must not hold us */
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	int dir = open(GUEST_ROOT GUEST_JOB, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = -1;

	if (dir >= 0) {
		fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));
		close(dir);
	}
	return fd;
}

static void
files_begin_out(struct agent *a)
{
	struct job *j = &a->job;
	const char *error = "";
	struct stat st = { 0 };

	j->file_fd = files_open_out(j->files_out[j->file_index]);
	if (j->file_fd < 0 || fstat(j->file_fd, &st) < 0) {
		error = strerror(errno);
	} else if (!S_ISREG(st.st_mode)) {
		error = "not a regular file";
	} else if ((uint64_t)st.st_size > j->files_out_max) {
		error = "over the limit of bytes for files out";
	}
	j->file_left = error[0] == '\0' ? (uint64_t)st.st_size : 0;
	j->files_out_max -= j->file_left;
	wire_begin(&a->wire, OM_GUEST_FILE, 5);
	om_mp_put_u64(&a->wire.out, j->file_index);
	om_mp_put_u64(&a->wire.out, st.st_mode & 0777);
	om_mp_put_u64(&a->wire.out, j->file_left);
	om_mp_put_cstr(&a->wire.out, error);
	wire_end(&a->wire);
}

static void
files_next_chunk(struct agent *a)
{
	static uint8_t chunk[OM_GUEST_CHUNK_MAX];
	struct job *j = &a->job;
	size_t want = j->file_left < sizeof(chunk) ? (size_t)j->file_left : sizeof(chunk);
	ssize_t n = read(j->file_fd, chunk, want);

	if (n <= 0) {
		boot_die("a file out cannot be read"); /* its size is announced: no way back */
	}
	j->file_left -= (size_t)n;
	wire_begin(&a->wire, OM_GUEST_FILE_DATA, 2);
	om_mp_put_bin(&a->wire.out, (struct om_bin){ chunk, (size_t)n });
	wire_end(&a->wire);
}

void
files_pump(struct agent *a)
{
	struct job *j = &a->job;

	while (j->state == JOB_FILES && wire_has_room(&a->wire)) {
		if (j->file_left > 0) {
			files_next_chunk(a);
		} else if (j->file_index < j->file_out_count && j->file_fd < 0) {
			files_begin_out(a);
		}
		if (j->file_left > 0) {
			continue;
		}
		if (j->file_fd >= 0) {
			close(j->file_fd);
			j->file_fd = -1;
		}
		if (j->file_index < j->file_out_count) {
			j->file_index++;
		} else {
			wire_begin(&a->wire, OM_GUEST_DONE, 1);
			wire_end(&a->wire);
			j->state = JOB_DONE;
		}
	}
}
