/* SPDX-License-Identifier: ISC */
/*
 * libvirt's event loop.  Its default implementation is one for the whole process, cannot be
 * unregistered, and must be registered before the first connection; someone has to turn it for
 * ever, or keepalive closes the connections.  It wakes only for its own fds and timers, so a timer
 * is the bell that ends it.
 */
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>

#include "vm/libvirt_impl.h"

static struct {
	pthread_mutex_t lock;
	bool is_running;
	bool is_registered;
	pthread_t thread;
	int timer;
	bool stop; /* written and read on the loop's thread, or while it does not run */
} loop = { .lock = PTHREAD_MUTEX_INITIALIZER, .timer = -1 };

/* libvirt prints every error to stderr by default; ours travel in om_why. */
static void
loop_no_print(void *arg, virErrorPtr error)
{
	(void)arg;
	(void)error;
}

static void
loop_on_timer(int timer, void *arg)
{
	(void)timer;
	(void)arg;
	loop.stop = true;
}

static void *
loop_run(void *arg)
{
	(void)arg;
	while (!loop.stop) {
		(void)virEventRunDefaultImpl();
	}
	return NULL;
}

static enum om_err
loop_start(struct om_why *why)
{
	if (!loop.is_registered) {
		virSetErrorFunc(NULL, loop_no_print);
		if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0) {
			return om_why_set(why, OM_ERR_VM, "libvirt: %s", virGetLastErrorMessage());
		}
		loop.is_registered = true;
	}
	loop.stop = false;
	loop.timer = virEventAddTimeout(-1, loop_on_timer, NULL, NULL);
	if (loop.timer < 0) {
		return om_why_set(why, OM_ERR_VM, "libvirt timer: %s", virGetLastErrorMessage());
	}
	if (pthread_create(&loop.thread, NULL, loop_run, NULL) != 0) {
		(void)virEventRemoveTimeout(loop.timer);
		return om_why_set(why, OM_ERR_NOMEM, "no thread for libvirt's events");
	}
	return OM_OK;
}

enum om_err
libvirt_loop_start(struct om_why *why)
{
	enum om_err err;

	pthread_mutex_lock(&loop.lock);
	if (loop.is_running) {
		err = om_why_set(why, OM_ERR_STATE, "a libvirt driver is open already");
	} else {
		err = loop_start(why);
		loop.is_running = err == OM_OK;
	}
	pthread_mutex_unlock(&loop.lock);
	return err;
}

void
libvirt_loop_stop(void)
{
	pthread_mutex_lock(&loop.lock);
	virEventUpdateTimeout(loop.timer, 0);
	pthread_join(loop.thread, NULL);
	(void)virEventRemoveTimeout(loop.timer);
	loop.timer = -1;
	loop.is_running = false;
	pthread_mutex_unlock(&loop.lock);
}
