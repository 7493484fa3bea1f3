/* SPDX-License-Identifier: ISC */
/* beanstalkd, started with -b DIR -f0.  It keeps no results: a cycle is put, reserve, delete. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include "peer.h"

struct conn {
	int fd;
	char in[1 << 18];
	size_t from, to;
	unsigned long long ids[IN_FLIGHT_MAX];
	char out[IN_FLIGHT_MAX * (BODY_BYTES + 64)];
};

static void *
peer_open(const char *endpoint)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				  .sin_port = htons((unsigned short)atoi(endpoint)) };
	struct conn *c = calloc(1, sizeof(*c));
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(c->fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
		fail("beanstalkd", "cannot connect");
	}
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return c;
}

static void
put_all(struct conn *c, size_t len)
{
	size_t at = 0;

	while (at < len) {
		const ssize_t n = write(c->fd, c->out + at, len - at);

		if (n <= 0) {
			fail("beanstalkd", "write");
		}
		at += (size_t)n;
	}
}

static void
fill(struct conn *c)
{
	ssize_t n;

	if (c->from > 0) {
		memmove(c->in, c->in + c->from, c->to - c->from);
		c->to -= c->from;
		c->from = 0;
	}
	n = read(c->fd, c->in + c->to, sizeof(c->in) - c->to - 1);
	if (n <= 0) {
		fail("beanstalkd", "read");
	}
	c->to += (size_t)n;
}

/* One line, without its end. */
static char *
line(struct conn *c)
{
	char *end;

	for (;;) {
		c->in[c->to] = '\0';
		end = strstr(c->in + c->from, "\r\n");
		if (end != NULL) {
			char *start = c->in + c->from;

			*end = '\0';
			c->from = (size_t)(end + 2 - c->in);
			return start;
		}
		fill(c);
	}
}

static void
skip(struct conn *c, size_t len)
{
	while (c->to - c->from < len) {
		fill(c);
	}
	c->from += len;
}

static void
peer_submit(void *conn, size_t count)
{
	struct conn *c = conn;
	size_t i, len = 0;

	for (i = 0; i < count; i++) {
		len += (size_t)sprintf(c->out + len, "put 0 0 60 %d\r\n%s\r\n", BODY_BYTES, body);
	}
	put_all(c, len);
	for (i = 0; i < count; i++) {
		char *answer = line(c);

		if (strncmp(answer, "INSERTED ", 9) != 0) {
			fail("put", answer);
		}
	}
}

static void
peer_work(void *conn, size_t count)
{
	struct conn *c = conn;
	size_t i, len = 0, bytes;

	for (i = 0; i < count; i++) {
		len += (size_t)sprintf(c->out + len, "reserve\r\n");
	}
	put_all(c, len);
	for (i = 0; i < count; i++) {
		char *answer = line(c);

		if (sscanf(answer, "RESERVED %llu %zu", &c->ids[i], &bytes) != 2) {
			fail("reserve", answer);
		}
		skip(c, bytes + 2);
	}
	for (i = 0, len = 0; i < count; i++) {
		len += (size_t)sprintf(c->out + len, "delete %llu\r\n", c->ids[i]);
	}
	put_all(c, len);
	for (i = 0; i < count; i++) {
		char *answer = line(c);

		if (strcmp(answer, "DELETED") != 0) {
			fail("delete", answer);
		}
	}
}
