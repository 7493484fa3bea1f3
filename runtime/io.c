/* SPDX-License-Identifier: ISC */
/*
 * One thread for fds, timers and the watchdog.  It blocks in epoll_wait without a time-out when no
 * timer is armed and no worker is busy: an idle system makes no wake-ups.
 *
 * Watches are one-shot (EPOLLONESHOT), so a watch has at most one message in a mailbox, which lies
 * inside it.  epoll may still hand out a pointer to a watch that was just dropped: dropped watches
 * are freed by the I/O thread itself, between two calls of epoll_wait.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "runtime/runtime_impl.h"

#define IO_BATCH 64

struct watch {
	struct om_node node;
	struct watch *next_free;
	uint64_t owner, key, cookie;
	int fd;
	uint32_t ready;
	bool queued; /* node is in the mailbox */
	bool dead;
	bool closed; /* the I/O thread will not see it again */
};

struct om_io {
	pthread_mutex_t lock;
	int epoll_fd, poke_fd;
	uint32_t quit;
	bool started;
	pthread_t thread;
	struct om_ctx *cx;
	struct watch *dropped; /* under lock */
};

void
om_io_poke(struct om_system *sys)
{
	uint64_t one = 1;
	ssize_t n;

	if (sys->sim) {
		return;
	}
	do {
		n = write(sys->io->poke_fd, &one, sizeof(one)); /* EAGAIN: it is poked already */
	} while (n < 0 && errno == EINTR);
}

/* Frees dropped watches whose node is in no mailbox.  I/O thread, outside epoll_wait. */
static void
io_sweep(struct om_io *io)
{
	struct watch **at, *w;

	(void)pthread_mutex_lock(&io->lock);
	at = &io->dropped;
	while ((w = *at) != NULL) {
		*at = w->next_free;
		if (w->queued) {
			w->closed = true; /* om_io_on_message or om_io_discard frees it */
		} else {
			free(w);
		}
	}
	(void)pthread_mutex_unlock(&io->lock);
}

static uint32_t
io_from_epoll(uint32_t events)
{
	uint32_t ready = 0;

	ready |= (events & (EPOLLIN | EPOLLRDHUP)) != 0 ? OM_IO_READ : 0;
	ready |= (events & EPOLLOUT) != 0 ? OM_IO_WRITE : 0;
	ready |= (events & (EPOLLERR | EPOLLHUP)) != 0 ? OM_IO_ERROR : 0;
	return ready;
}

/* I/O thread or sim.  One round of epoll_wait; true: something was delivered. */
bool
om_io_poll(struct om_ctx *cx, int timeout_ms)
{
	struct om_io *io = cx->sys->io;
	struct epoll_event events[IO_BATCH];
	int n = epoll_wait(io->epoll_fd, events, IO_BATCH, timeout_ms);
	bool delivered = false;

	for (int i = 0; i < n; i++) {
		struct watch *w = events[i].data.ptr;
		uint64_t drain;

		if (w == NULL) {
			if (read(io->poke_fd, &drain, sizeof(drain)) < 0) {
				continue; /* EAGAIN: somebody read it; nothing is lost */
			}
			continue;
		}
		(void)pthread_mutex_lock(&io->lock);
		if (!w->dead && !w->queued) {
			w->ready = io_from_epoll(events[i].events);
			w->queued = true;
			/* The owner is alive: its end would have to take this lock for this watch. */
			w->queued = om_mbox_push_node(cx, w->owner, &w->node) == OM_OK;
			delivered = true;
		}
		(void)pthread_mutex_unlock(&io->lock);
	}
	io_sweep(io);
	return delivered;
}

static void *
io_main(void *arg)
{
	struct om_ctx *cx = arg;
	struct om_system *sys = cx->sys;
	bool watching;
	int64_t left;
	int timeout;

	om_tls_ctx = cx;
	while (om_shared_load(&sys->io->quit) == 0) {
		left = om_timer_fire(cx, om_system_now(sys).ns);
		watching = om_sched_watchdog(cx);
		timeout = -1;
		if (left >= 0) {
			int64_t ms = (left + OM_NS_PER_MS - 1) / OM_NS_PER_MS;

			timeout = ms > INT32_MAX ? INT32_MAX : (int)ms;
		}
		if (watching && (timeout < 0 || timeout > OM_WATCHDOG_TICK_MS)) {
			timeout = OM_WATCHDOG_TICK_MS;
		}
		(void)om_io_poll(cx, timeout);
	}
	om_tls_ctx = NULL;
	return NULL;
}

/* --- what an actor asks for --------------------------------------------------------------------------- */

static uint32_t
io_to_epoll(uint32_t events)
{
	uint32_t want = EPOLLONESHOT;

	want |= (events & OM_IO_READ) != 0 ? EPOLLIN | EPOLLRDHUP : 0;
	want |= (events & OM_IO_WRITE) != 0 ? EPOLLOUT : 0;
	return want;
}

enum om_err
om_io_watch(struct om_ctx *cx, int fd, uint32_t events, uint64_t cookie, uint64_t *watch)
{
	struct om_actor_ext *ext = om_actor_ext(cx->self);
	struct watch *w = aligned_alloc(16, (sizeof(*w) + 15) & ~(size_t)15);
	struct epoll_event ev = { .events = io_to_epoll(events), .data.ptr = w };
	enum om_err err;

	if (ext == NULL || w == NULL) {
		free(w);
		return OM_ERR_NOMEM;
	}
	memset(w, 0, sizeof(*w));
	om_mbox_node_init(&w->node, OM_KIND_IO, OM_SYS_IO, sizeof(struct om_io_ready));
	w->owner = cx->self_id;
	w->cookie = cookie;
	w->fd = fd;
	w->key = om_slotmap_add(&ext->watches, w);
	if (w->key == 0) {
		free(w);
		return OM_ERR_NOMEM;
	}
	if (epoll_ctl(cx->sys->io->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
		err = errno == EPERM ? OM_ERR_UNSUPPORTED : om_err_from_errno(errno);
		(void)om_slotmap_del(&ext->watches, w->key);
		free(w);
		return err;
	}
	*watch = w->key;
	return OM_OK;
}

enum om_err
om_io_rearm(struct om_ctx *cx, uint64_t watch, uint32_t events)
{
	struct om_actor_ext *ext = cx->self->ext;
	struct watch *w = ext != NULL ? om_slotmap_get(&ext->watches, watch) : NULL;
	struct epoll_event ev = { .events = io_to_epoll(events), .data.ptr = w };

	if (w == NULL) {
		return OM_ERR_NOT_FOUND;
	}
	if (epoll_ctl(cx->sys->io->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) != 0) {
		return om_err_from_errno(errno);
	}
	return OM_OK;
}

static void
watch_drop(struct om_system *sys, struct watch *w)
{
	struct om_io *io = sys->io;

	/* Fails when the owner closed the fd too early, which took it out of the set. */
	(void)epoll_ctl(io->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	(void)pthread_mutex_lock(&io->lock);
	w->dead = true;
	w->next_free = io->dropped;
	io->dropped = w;
	(void)pthread_mutex_unlock(&io->lock);
}

void
om_io_unwatch(struct om_ctx *cx, uint64_t watch)
{
	struct om_actor_ext *ext = cx->self->ext;
	struct watch *w = ext != NULL ? om_slotmap_del(&ext->watches, watch) : NULL;

	if (w != NULL) {
		watch_drop(cx->sys, w);
	}
}

/* The node came out of the mailbox; true: it is still wanted. */
static bool
watch_dequeued(struct om_system *sys, struct watch *w, struct om_io_ready *ready)
{
	bool wanted, ours;

	(void)pthread_mutex_lock(&sys->io->lock);
	w->queued = false;
	wanted = !w->dead;
	ours = w->closed;
	*ready = (struct om_io_ready){
		.watch = w->key, .cookie = w->cookie, .fd = w->fd, .events = w->ready
	};
	(void)pthread_mutex_unlock(&sys->io->lock);
	if (ours) {
		free(w);
	}
	return wanted;
}

void
om_io_on_message(struct om_ctx *cx, struct om_actor *a, struct om_msg *msg)
{
	struct om_io_ready ready;

	if (watch_dequeued(cx->sys, om_container_of(msg, struct watch, node.msg), &ready)) {
		om_actor_deliver(cx, a, OM_SYS_IO, &ready, sizeof(ready));
	}
}

void
om_io_discard(struct om_ctx *cx, struct om_msg *msg)
{
	struct om_io_ready ready;

	(void)watch_dequeued(cx->sys, om_container_of(msg, struct watch, node.msg), &ready);
}

void
om_io_end(struct om_ctx *cx, struct om_actor *a)
{
	struct om_slotmap *map = &a->ext->watches;

	for (uint32_t i = 0; i < map->used; i++) {
		uint64_t key = om_slotmap_key(map, i);

		if (key != 0) {
			watch_drop(cx->sys, om_slotmap_del(map, key));
		}
	}
}

/* --- life ---------------------------------------------------------------------------------------------- */

enum om_err
om_io_init(struct om_system *sys)
{
	struct om_io *io = calloc(1, sizeof(*io));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };

	if (io == NULL) {
		return OM_ERR_NOMEM;
	}
	sys->io = io;
	(void)pthread_mutex_init(&io->lock, NULL);
	io->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	io->poke_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	io->cx = om_ctx_new(sys, OM_CTX_IO, UINT8_MAX);
	if (io->cx == NULL) {
		return OM_ERR_NOMEM;
	}
	if (io->epoll_fd < 0 || io->poke_fd < 0 ||
	    epoll_ctl(io->epoll_fd, EPOLL_CTL_ADD, io->poke_fd, &ev) != 0) {
		return om_err_from_errno(errno);
	}
	return OM_OK;
}

enum om_err
om_io_start(struct om_system *sys)
{
	if (pthread_create(&sys->io->thread, NULL, io_main, sys->io->cx) != 0) {
		return OM_ERR_NOMEM;
	}
	sys->io->started = true;
	return OM_OK;
}

void
om_io_stop(struct om_system *sys)
{
	if (sys->io != NULL && sys->io->started) {
		om_shared_store(&sys->io->quit, 1);
		om_io_poke(sys);
		(void)pthread_join(sys->io->thread, NULL);
		sys->io->started = false;
	}
}

void
om_io_fini(struct om_system *sys)
{
	struct om_io *io = sys->io;

	if (io == NULL) {
		return;
	}
	io_sweep(io);
	if (io->epoll_fd >= 0) {
		(void)close(io->epoll_fd);
	}
	if (io->poke_fd >= 0) {
		(void)close(io->poke_fd);
	}
	om_ctx_free(io->cx);
	(void)pthread_mutex_destroy(&io->lock);
	free(io);
}
