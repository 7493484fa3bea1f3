/* SPDX-License-Identifier: ISC */
/*
 * The connection to libvirtd and what comes out of it.
 *
 * libvirtd may be restarted under us (a package upgrade does).  Registered callbacks are gone then,
 * and so is auto-destroy.  A thread of ours, the keeper, sleeps until the close callback wakes it,
 * connects again with back-off, registers again, and looks which of the watched VMs have ended
 * meanwhile: each of them gets its event ("lost"), later than otherwise but never not at all.
 *
 * 1. `conn` is read and replaced under `lock`; users hold a reference of their own.
 * 2. The event callback is called under `calling`, one at a time, never under `lock`.
 * 3. A watched name is told as ended once: whoever takes it off the list tells it.
 * 4. The close callback does nothing for a connection that is not `conn` yet, so whoever publishes one
 *    looks whether it is alive afterwards.  If broken: a dead one is used for ever.
 */
#include "vm/libvirt_conn.h"

#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"

#define CONN_MAGIC         0x6c766331 /* "lvc1" */
#define CONN_KEEPALIVE_S   5 /* between two pings */
#define CONN_KEEPALIVE_MAX 3 /* unanswered pings before the connection counts as lost */
#define CONN_RETRY_MIN_MS  100
#define CONN_RETRY_MAX_MS  5000
#define CONN_DEFAULT_URI   "qemu:///system"
#define CONN_DEFAULT_RUN   "/run/libvirt"

struct watched {
	struct watched *next;
	char name[OM_VM_NAME_MAX + 1];
};

struct libvirt_conn {
	unsigned magic;
	/* Written at open only. */
	char *uri;
	char run_dir[OM_VM_PATH_MAX];
	struct libvirt_host host;
	om_vm_event_fn on_event;
	void *arg;
	pthread_t keeper;

	pthread_mutex_t calling;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* CLOCK_MONOTONIC */
	virConnectPtr conn; /* NULL: lost */
	virConnectPtr lost; /* to be closed by the keeper: not inside libvirt\'s own callback */
	int lifecycle_id;
	bool is_closing;
	struct watched *watched;
};

static void
conn_tell(struct libvirt_conn *lv, enum om_vm_event_kind kind, const char *name, const char *reason)
{
	struct om_vm_event event = { .kind = kind, .name = name, .reason = reason };

	if (lv->on_event == NULL) {
		return;
	}
	pthread_mutex_lock(&lv->calling);
	lv->on_event(lv->arg, &event);
	pthread_mutex_unlock(&lv->calling);
}

/* --- watched names ------------------------------------------------------------------------------ */

enum om_err
libvirt_conn_watch(struct libvirt_conn *lv, const char *name)
{
	struct watched *w = calloc(1, sizeof(*w));

	if (w == NULL) {
		return OM_ERR_NOMEM;
	}
	snprintf(w->name, sizeof(w->name), "%s", name);
	pthread_mutex_lock(&lv->lock);
	w->next = lv->watched;
	lv->watched = w;
	pthread_mutex_unlock(&lv->lock);
	return OM_OK;
}

static bool
conn_take(struct libvirt_conn *lv, const char *name)
{
	struct watched **at, *w = NULL;

	pthread_mutex_lock(&lv->lock);
	for (at = &lv->watched; *at != NULL && w == NULL;) {
		if (strcmp((*at)->name, name) == 0) {
			w = *at;
			*at = w->next;
		} else {
			at = &(*at)->next;
		}
	}
	pthread_mutex_unlock(&lv->lock);
	free(w);
	return w != NULL;
}

void
libvirt_conn_unwatch(struct libvirt_conn *lv, const char *name)
{
	(void)conn_take(lv, name);
}

/* --- callbacks (event loop thread) ---------------------------------------------------------------- */

/* False: the event is not the end of a domain. */
static bool
conn_end_of(int event, int detail, enum om_vm_event_kind *kind, const char **reason)
{
	if (event == VIR_DOMAIN_EVENT_CRASHED) {
		*kind = OM_VM_EVENT_CRASHED;
		*reason = "guest panic";
		return true;
	}
	if (event != VIR_DOMAIN_EVENT_STOPPED) {
		return false;
	}
	*kind = OM_VM_EVENT_STOPPED;
	switch (detail) {
	case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
		*reason = "shutdown";
		break;
	case VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
		*reason = "destroyed";
		break;
	default:
		/* qemu is gone and nobody asked: a crash, the OOM killer, our own kill(). */
		*kind = OM_VM_EVENT_CRASHED;
		*reason = "killed or crashed";
	}
	return true;
}

static void
conn_on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *opaque)
{
	struct libvirt_conn *lv = opaque;
	const char *name = virDomainGetName(dom);
	enum om_vm_event_kind kind;
	const char *reason;

	(void)conn;
	OM_ASSERT(lv->magic == CONN_MAGIC);
	if (name == NULL || strncmp(name, OM_VM_PREFIX, sizeof(OM_VM_PREFIX) - 1) != 0 ||
	    !conn_end_of(event, detail, &kind, &reason)) {
		return;
	}
	if (conn_take(lv, name)) {
		conn_tell(lv, kind, name, reason);
	}
}

static void
conn_on_close(virConnectPtr conn, int why, void *opaque)
{
	struct libvirt_conn *lv = opaque;
	bool is_ours = false;

	OM_ASSERT(lv->magic == CONN_MAGIC);
	if (why == VIR_CONNECT_CLOSE_REASON_CLIENT) {
		return;
	}
	pthread_mutex_lock(&lv->lock);
	if (lv->conn == conn) {
		is_ours = true;
		lv->lost = lv->conn;
		lv->conn = NULL;
		pthread_cond_broadcast(&lv->changed);
	}
	pthread_mutex_unlock(&lv->lock);
	if (is_ours) {
		conn_tell(lv, OM_VM_EVENT_DRIVER_DOWN, "", "connection to libvirtd lost");
	}
}

/* --- connecting ---------------------------------------------------------------------------------- */

static virConnectPtr
conn_connect(struct libvirt_conn *lv, int *lifecycle_id, struct om_why *why)
{
	virConnectPtr conn = virConnectOpen(lv->uri);
	int id = -1;

	if (conn == NULL) {
		goto fail;
	}
	if (virConnectSetKeepAlive(conn, CONN_KEEPALIVE_S, CONN_KEEPALIVE_MAX) < 0 ||
	    virConnectRegisterCloseCallback(conn, conn_on_close, lv, NULL) < 0) {
		goto fail;
	}
	id = virConnectDomainEventRegisterAny(conn, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
					      VIR_DOMAIN_EVENT_CALLBACK(conn_on_lifecycle), lv,
					      NULL);
	if (id < 0) {
		(void)virConnectUnregisterCloseCallback(conn, conn_on_close);
		goto fail;
	}
	*lifecycle_id = id;
	return conn;
fail:
	(void)om_why_set(why, OM_ERR_VM, "connect to %s: %s", lv->uri, virGetLastErrorMessage());
	if (conn != NULL) {
		virConnectClose(conn);
	}
	return NULL;
}

static void
conn_disconnect(virConnectPtr conn, int lifecycle_id)
{
	(void)virConnectDomainEventDeregisterAny(conn, lifecycle_id);
	(void)virConnectUnregisterCloseCallback(conn, conn_on_close);
	virConnectClose(conn);
}

/* Under `lock`.  false: it died before it was `conn`, and the callback did not know it. */
static bool
conn_publish(struct libvirt_conn *lv, virConnectPtr conn, int lifecycle_id)
{
	lv->conn = conn;
	lv->lifecycle_id = lifecycle_id;
	if (virConnectIsAlive(conn) == 1) {
		return true;
	}
	lv->conn = NULL;
	return false;
}

/* A copy of the watched names.  OM_ERR_NOMEM: of none. */
static enum om_err
conn_copy_watched(struct libvirt_conn *lv, struct watched **out)
{
	struct watched *all, *w, *copy = NULL;
	enum om_err err = OM_OK;

	pthread_mutex_lock(&lv->lock);
	for (all = lv->watched; all != NULL && err == OM_OK; all = all->next) {
		w = malloc(sizeof(*w));
		if (w == NULL) {
			err = OM_ERR_NOMEM;
			break;
		}
		*w = *all;
		w->next = copy;
		copy = w;
	}
	pthread_mutex_unlock(&lv->lock);
	while (err != OM_OK && (w = copy) != NULL) {
		copy = w->next;
		free(w);
	}
	*out = copy;
	return err;
}

/* After a reconnect: watched VMs that are not there any more have ended unheard. */
static enum om_err
conn_reconcile(struct libvirt_conn *lv, virConnectPtr conn)
{
	struct watched *w, *copy;
	enum om_err err = conn_copy_watched(lv, &copy);

	while ((w = copy) != NULL) {
		virDomainPtr dom = virDomainLookupByName(conn, w->name);

		copy = w->next;
		if (dom != NULL) {
			virDomainFree(dom);
		} else if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN && conn_take(lv, w->name)) {
			conn_tell(lv, OM_VM_EVENT_CRASHED, w->name, "lost");
		}
		free(w);
	}
	return err;
}

/* Under `lock`. */
static void
conn_wait(struct libvirt_conn *lv, int64_t ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (ms % 1000) * 1000000;
	if (until.tv_nsec >= OM_NS_PER_S) {
		until.tv_sec++;
		until.tv_nsec -= OM_NS_PER_S;
	}
	(void)pthread_cond_timedwait(&lv->changed, &lv->lock, &until);
}

/*
 * Under `lock`, which it leaves meanwhile.  Connects and looks after what has ended unheard; false: not
 * connected, or no memory for the latter, and all of it is to be done again.
 */
static bool
conn_again(struct libvirt_conn *lv)
{
	virConnectPtr conn, lost = lv->lost;
	enum om_err err;
	int id = -1;

	lv->lost = NULL;
	pthread_mutex_unlock(&lv->lock);
	if (lost != NULL) {
		virConnectClose(lost);
	}
	conn = conn_connect(lv, &id, NULL);
	pthread_mutex_lock(&lv->lock);
	if (conn == NULL) {
		return false;
	}
	if (!conn_publish(lv, conn, id)) {
		pthread_mutex_unlock(&lv->lock);
		conn_disconnect(conn, id);
		pthread_mutex_lock(&lv->lock);
		return false;
	}
	virConnectRef(conn);
	pthread_mutex_unlock(&lv->lock);
	err = conn_reconcile(lv, conn);
	if (err == OM_OK) {
		conn_tell(lv, OM_VM_EVENT_DRIVER_UP, "", "connected to libvirtd again");
	}
	virConnectClose(conn);
	pthread_mutex_lock(&lv->lock);
	if (err != OM_OK && lv->conn == conn) {
		lv->conn = NULL;
		pthread_mutex_unlock(&lv->lock);
		conn_disconnect(conn, id);
		pthread_mutex_lock(&lv->lock);
	}
	return err == OM_OK;
}

static void *
conn_keep(void *arg)
{
	struct libvirt_conn *lv = arg;
	int64_t retry_ms = CONN_RETRY_MIN_MS;

	pthread_mutex_lock(&lv->lock);
	while (!lv->is_closing) {
		if (lv->conn != NULL) {
			pthread_cond_wait(&lv->changed, &lv->lock);
		} else if (conn_again(lv)) {
			retry_ms = CONN_RETRY_MIN_MS;
		} else {
			conn_wait(lv, retry_ms);
			retry_ms =
			    retry_ms < CONN_RETRY_MAX_MS / 2 ? retry_ms * 2 : CONN_RETRY_MAX_MS;
		}
	}
	pthread_mutex_unlock(&lv->lock);
	return NULL;
}

/* --- open and close ------------------------------------------------------------------------------- */

/* "...?socket=/dir/libvirt-sock": a private libvirtd keeps its pid files beside its socket. */
static void
conn_set_run_dir(struct libvirt_conn *lv)
{
	const char *at = strstr(lv->uri, "socket=");
	size_t len = at != NULL ? strcspn(at + 7, "&") : 0;

	snprintf(lv->run_dir, sizeof(lv->run_dir), "%s", CONN_DEFAULT_RUN);
	while (len > 1 && at[7 + len - 1] != '/') {
		len--;
	}
	if (len > 1 && len <= sizeof(lv->run_dir)) {
		snprintf(lv->run_dir, sizeof(lv->run_dir), "%.*s", (int)len - 1, at + 7);
	}
}

static void
conn_look_around(struct libvirt_conn *lv)
{
	char *caps = virConnectGetCapabilities(lv->conn);

	if (caps == NULL || !libvirt_xml_find(caps, "<model>dac</model>", "baselabel",
					      lv->host.label, sizeof(lv->host.label))) {
		lv->host.label[0] = '\0';
	}
	free(caps);
}

static void
conn_free(struct libvirt_conn *lv)
{
	while (lv->watched != NULL) {
		struct watched *w = lv->watched;

		lv->watched = w->next;
		free(w);
	}
	pthread_cond_destroy(&lv->changed);
	pthread_mutex_destroy(&lv->lock);
	pthread_mutex_destroy(&lv->calling);
	free(lv->uri);
	free(lv);
}

static struct libvirt_conn *
conn_new(const struct om_vm_config *config)
{
	struct libvirt_conn *lv = calloc(1, sizeof(*lv));
	pthread_condattr_t attr;

	if (lv == NULL) {
		return NULL;
	}
	lv->magic = CONN_MAGIC;
	lv->on_event = config->on_event;
	lv->arg = config->arg;
	lv->uri = strdup(config->uri != NULL ? config->uri : CONN_DEFAULT_URI);
	pthread_mutex_init(&lv->calling, NULL);
	pthread_mutex_init(&lv->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&lv->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (lv->uri == NULL) {
		conn_free(lv);
		return NULL;
	}
	conn_set_run_dir(lv);
	return lv;
}

enum om_err
libvirt_conn_open(const struct om_vm_config *config, struct libvirt_conn **out, struct om_why *why)
{
	struct libvirt_conn *lv = conn_new(config);
	virConnectPtr conn;
	bool is_alive;
	enum om_err err;
	int id = -1;

	if (lv == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	err = libvirt_loop_start(why);
	if (err != OM_OK) {
		conn_free(lv);
		return err;
	}
	conn = conn_connect(lv, &id, why);
	if (conn == NULL) {
		err = OM_ERR_MISSING;
		goto fail;
	}
	pthread_mutex_lock(&lv->lock);
	is_alive = conn_publish(lv, conn, id);
	pthread_mutex_unlock(&lv->lock);
	if (!is_alive) {
		err = om_why_set(why, OM_ERR_MISSING, "%s: libvirtd ended", lv->uri);
		conn_disconnect(conn, id);
		goto fail;
	}
	conn_look_around(lv);
	if (pthread_create(&lv->keeper, NULL, conn_keep, lv) != 0) {
		err = om_why_set(why, OM_ERR_NOMEM, "no thread for the connection to libvirtd");
		conn_disconnect(lv->conn, lv->lifecycle_id);
		goto fail;
	}
	*out = lv;
	return OM_OK;
fail:
	libvirt_loop_stop();
	conn_free(lv);
	return err;
}

void
libvirt_conn_close(struct libvirt_conn *lv)
{
	if (lv == NULL) {
		return;
	}
	pthread_mutex_lock(&lv->lock);
	lv->is_closing = true;
	pthread_cond_broadcast(&lv->changed);
	pthread_mutex_unlock(&lv->lock);
	pthread_join(lv->keeper, NULL);
	if (lv->conn != NULL) {
		conn_disconnect(lv->conn, lv->lifecycle_id);
	}
	if (lv->lost != NULL) {
		virConnectClose(lv->lost);
	}
	libvirt_loop_stop();
	lv->magic = 0;
	conn_free(lv);
}

virConnectPtr
libvirt_conn_get(struct libvirt_conn *lv, int64_t patience_ms)
{
	int64_t until = om_mono_now().ns + patience_ms * OM_NS_PER_MS;
	virConnectPtr conn;

	pthread_mutex_lock(&lv->lock);
	while (lv->conn == NULL && !lv->is_closing && om_mono_now().ns < until) {
		conn_wait(lv, CONN_RETRY_MIN_MS); /* conn_keep is at it */
	}
	conn = lv->conn;
	if (conn != NULL) {
		virConnectRef(conn);
	}
	pthread_mutex_unlock(&lv->lock);
	return conn;
}

const struct libvirt_host *
libvirt_conn_host(const struct libvirt_conn *lv)
{
	return &lv->host;
}

const char *
libvirt_conn_run_dir(const struct libvirt_conn *lv)
{
	return lv->run_dir;
}
