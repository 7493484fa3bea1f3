/* SPDX-License-Identifier: ISC */
#include "daemon/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/parse.h"

void
om_notify(const char *fmt, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t len = path != NULL ? strlen(path) : 0;
	char text[512];
	va_list ap;
	int fd;

	if (len < 2 || len >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@')) {
		return;
	}
	memcpy(addr.sun_path, path, len);
	if (path[0] == '@') {
		addr.sun_path[0] = '\0'; /* an abstract address */
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		/* Nobody can be told when this fails. */
		(void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&addr,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
		close(fd);
	}
}

uint64_t
om_notify_watchdog_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t us = 0, wanted = 0;

	if (usec == NULL || om_parse_u64(om_str_of(usec), 1, UINT64_MAX, &us) != OM_OK) {
		return 0;
	}
	if (pid != NULL && (om_parse_u64(om_str_of(pid), 1, UINT32_MAX, &wanted) != OM_OK ||
			    wanted != (uint64_t)getpid())) {
		return 0;
	}
	return us / 1000;
}
