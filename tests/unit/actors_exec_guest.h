/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_EXEC_GUEST_H
#define OM_TESTS_ACTORS_EXEC_GUEST_H

/* The guest of the executor's tests: a thread that plays it at the other end of the agent's socket. */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/assert.h"
#include "base/mp.h"
#include "vm/guest_proto.h"

#define OUT_BYTES 300000 /* of PLAY_MUCH_OUTPUT */

/* What the guest does once the job is started. */
enum play {
	PLAY_EXIT_0,
	PLAY_EXIT_3,
	PLAY_SIGNAL,
	PLAY_OOM,
	PLAY_MUCH_OUTPUT,
	PLAY_RUN_UNTIL_STOPPED,
	PLAY_DEAF, /* runs on, does not obey a stop */
	PLAY_GARBAGE,
	PLAY_SILENT, /* no hello */
	PLAY_HANG_UP,
	PLAY_NEVER_STARTS, /* hello, and then nothing */
	PLAY_ENDLESS_FILES, /* it exits, and is never done */
	PLAY_FULL, /* output up to its limit, and it is killed */
	PLAY_NO_FILE, /* it exits, and its file is not there */
};

struct exec_guest {
	enum play play;
	bool tunnel; /* its job has a network: the host tells it first */
	uint64_t stop_grace_ms; /* what it was given; its own until it is joined */
	int listen_fd;
	pthread_t thread;
	bool started;
};

static void
guest_frame(int fd, const struct om_buf *body)
{
	uint8_t head[4] = { (uint8_t)(body->len >> 24), (uint8_t)(body->len >> 16),
			    (uint8_t)(body->len >> 8), (uint8_t)body->len };
	size_t at = 0;

	(void)!send(fd, head, sizeof(head), MSG_NOSIGNAL);
	while (at < body->len) {
		ssize_t n = send(fd, body->data + at, body->len - at, MSG_NOSIGNAL);

		if (n <= 0) {
			return;
		}
		at += (size_t)n;
	}
}

static void
guest_say(int fd, unsigned type, size_t count, const uint64_t *numbers)
{
	struct om_buf b = { 0 };
	size_t i;

	om_mp_put_array(&b, count + 1);
	om_mp_put_u64(&b, type);
	for (i = 0; i < count; i++) {
		om_mp_put_u64(&b, numbers[i]);
	}
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_hello(int fd)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 6);
	om_mp_put_u64(&b, OM_GUEST_HELLO);
	om_mp_put_u64(&b, OM_GUEST_VERSION);
	om_mp_put_u64(&b, 900);
	om_mp_put_u64(&b, 500000);
	om_mp_put_cstr(&b, "6.1");
	om_mp_put_array(&b, 1);
	om_mp_put_cstr(&b, "python");
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_output(int fd, const char *data, size_t len)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 3);
	om_mp_put_u64(&b, OM_GUEST_OUTPUT);
	om_mp_put_u64(&b, 1);
	om_mp_put_bin(&b, (struct om_bin){ (const uint8_t *)data, len });
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

/* Exit status, signal, CPU us, two peaks in KiB, dropped (2), OOM kills, refused forks, stopped. */
static void
guest_exit_only(int fd, uint64_t status, uint64_t sig, uint64_t oom, uint64_t stopped)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 11);
	om_mp_put_u64(&b, OM_GUEST_EXIT);
	om_mp_put_i64(&b, sig != 0 ? -1 : (int64_t)status);
	om_mp_put_u64(&b, sig);
	om_mp_put_u64(&b, UINT64_C(3600000000));
	om_mp_put_u64(&b, 9000);
	om_mp_put_u64(&b, 9000);
	om_mp_put_u64(&b, 0);
	om_mp_put_u64(&b, 0);
	om_mp_put_u64(&b, oom);
	om_mp_put_u64(&b, 0);
	om_mp_put_bool(&b, stopped != 0);
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_exit(int fd, uint64_t status, uint64_t sig, uint64_t oom, uint64_t stopped)
{
	guest_exit_only(fd, status, sig, oom, stopped);
	guest_say(fd, OM_GUEST_DONE, 0, NULL);
}

/* Reads frames until one of this type; false when the host hung up. */
static bool
guest_hear(struct exec_guest *g, int fd, unsigned type)
{
	for (;;) {
		uint8_t head[4];
		uint8_t *body;
		struct om_mp mp;
		size_t len, count;
		uint64_t got = 0;

		if (recv(fd, head, 4, MSG_WAITALL) != 4) {
			return false;
		}
		len =
		    (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
		body = malloc(len);
		if (recv(fd, body, len, MSG_WAITALL) != (ssize_t)len) {
			free(body);
			return false;
		}
		om_mp_init(&mp, body, len);
		if (om_mp_array(&mp, &count) != OM_OK || om_mp_u64(&mp, &got) != OM_OK) {
			got = 0;
		}
		if (got == OM_GUEST_STOP && om_mp_u64(&mp, &g->stop_grace_ms) != OM_OK) {
			g->stop_grace_ms = UINT64_MAX;
		}
		free(body);
		if (got == type) {
			return true;
		}
	}
}

static void
guest_no_file(int fd)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 5);
	om_mp_put_u64(&b, OM_GUEST_FILE);
	om_mp_put_u64(&b, 0); /* the first */
	om_mp_put_u64(&b, 0);
	om_mp_put_u64(&b, 0);
	om_mp_put_cstr(&b, "No such file");
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_play(struct exec_guest *g, int fd)
{
	char line[1000];
	int i;

	memset(line, 'x', sizeof(line));
	switch (g->play) {
	case PLAY_EXIT_0:
		guest_output(fd, "hi\n", 3);
		guest_exit(fd, 0, 0, 0, 0);
		break;
	case PLAY_EXIT_3:
		guest_exit(fd, 3, 0, 0, 0);
		break;
	case PLAY_SIGNAL:
		guest_exit(fd, 0, 9, 0, 0);
		break;
	case PLAY_OOM:
		guest_exit(fd, 0, 9, 1, 0);
		break;
	case PLAY_MUCH_OUTPUT:
		for (i = 0; i < OUT_BYTES / (int)sizeof(line); i++) {
			guest_output(fd, line, sizeof(line));
		}
		guest_exit(fd, 0, 0, 0, 0);
		break;
	case PLAY_RUN_UNTIL_STOPPED:
		guest_output(fd, "partial\n", 8);
		if (guest_hear(g, fd, OM_GUEST_STOP)) {
			guest_exit(fd, 0, 15, 0, 1);
		}
		break;
	case PLAY_DEAF:
		guest_output(fd, "partial\n", 8);
		break;
	case PLAY_GARBAGE:
		(void)!send(fd, "\xff\xff\xff\xff garbage", 12, MSG_NOSIGNAL);
		break;
	case PLAY_HANG_UP:
		guest_output(fd, "last words\n", 11);
		return;
	case PLAY_ENDLESS_FILES:
		guest_exit_only(fd, 0, 0, 0, 0);
		break;
	case PLAY_FULL:
		for (i = 0; i < 10; i++) {
			guest_output(fd, line, sizeof(line));
		}
		break;
	case PLAY_NO_FILE:
		guest_exit_only(fd, 0, 0, 0, 0);
		guest_no_file(fd);
		guest_say(fd, OM_GUEST_DONE, 0, NULL);
		break;
	case PLAY_SILENT:
	case PLAY_NEVER_STARTS:
		break;
	}
	(void)guest_hear(g, fd, 0xffff); /* until the host hangs up */
}

static void *
guest_main(void *arg)
{
	struct exec_guest *g = arg;
	int fd = accept(g->listen_fd, NULL, NULL);

	if (fd < 0) {
		return NULL;
	}
	if (g->play != PLAY_SILENT) {
		guest_hello(fd);
	}
	if (g->tunnel && guest_hear(g, fd, OM_GUEST_NET)) {
		guest_say(fd, OM_GUEST_NET_UP, 0, NULL);
	}
	if (g->play == PLAY_SILENT || guest_hear(g, fd, OM_GUEST_START)) {
		if (g->play != PLAY_SILENT && g->play != PLAY_NEVER_STARTS) {
			guest_say(fd, OM_GUEST_STARTED, 0, NULL);
		}
		guest_play(g, fd);
	}
	(void)close(fd);
	return NULL;
}

/* As qemu would: it listens before this returns. */
static void
guest_start(struct exec_guest *g, const char *dir)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/agent.sock", dir);
	g->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OM_ASSERT(bind(g->listen_fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0);
	OM_ASSERT(listen(g->listen_fd, 1) == 0);
	OM_ASSERT(pthread_create(&g->thread, NULL, guest_main, g) == 0);
	g->started = true;
}

static void
guest_join(struct exec_guest *g)
{
	if (g->started) {
		/* Nobody may have called it: the job ended before. */
		(void)shutdown(g->listen_fd, SHUT_RDWR);
		pthread_join(g->thread, NULL);
		(void)close(g->listen_fd);
	}
}

#endif /* OM_TESTS_ACTORS_EXEC_GUEST_H */
