/* SPDX-License-Identifier: ISC */
#ifndef OM_BASE_FILE_H
#define OM_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Any thread.  The beginning of a small file, as those of /proc and /sys are: one read of at most
 * size - 1 bytes, and a '\0' behind them.  A relative path begins at the folder dir_fd, or at our own
 * (AT_FDCWD).  The count, which is 0 or -1 (see errno) when out is "".
 */
ssize_t om_file_head(int dir_fd, const char *path, char *out, size_t size);

#endif /* OM_BASE_FILE_H */
