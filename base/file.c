/* SPDX-License-Identifier: ISC */
#include "base/file.h"

#include <fcntl.h>
#include <unistd.h>

ssize_t
om_file_head(int dir_fd, const char *path, char *out, size_t size)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, out, size - 1);
		close(fd);
	}
	out[n > 0 ? n : 0] = '\0';
	return n;
}
