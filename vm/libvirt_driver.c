/* SPDX-License-Identifier: ISC */
/*
 * The driver of the product: transient domains on libvirt's QEMU driver.
 *
 * Domains are made with AUTODESTROY: when our connection ends, also by kill -9, libvirtd destroys
 * them.  What survives all the same (libvirtd itself died) is found by list() at the next start.
 *
 * destroy() sends SIGKILL before it asks libvirt: a guest's disk is thrown away, so there is
 * nothing to flush, and libvirt's own destroy would wait in steps of 200 ms for qemu to go.
 */
#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/libvirt_conn.h"

#define DRIVER_KILL_WAIT_MS 2000 /* qemu is gone 5-10 ms after SIGKILL */
#define DRIVER_PATIENCE_MS  10000 /* a create waits so long for a libvirtd that was restarted */
#define DRIVER_TEXT_MAX     160
#define DRIVER_BURY_STEPS   40
#define DRIVER_BURY_STEP_NS 500000

void
libvirt_last_line(const char *text, char *out, size_t size)
{
	size_t end = strlen(text), from;

	while (end > 0 && (unsigned char)text[end - 1] <= ' ') {
		end--;
	}
	for (from = end; from > 0 && text[from - 1] != '\n' && text[from - 1] != '\r'; from--) {
	}
	if (end - from < size) {
		(void)snprintf(out, size, "%.*s", (int)(end - from), text + from);
	} else {
		(void)snprintf(out, size, "...%.*s", (int)(size - 4), text + end - (size - 4));
	}
}

/*
 * libvirt's last error of this thread as ours, in one line: libvirt quotes all that qemu said, and the
 * cause is in its last line.
 */
static enum om_err
driver_error(struct om_why *why, const char *what, const char *name)
{
	enum om_err err = OM_ERR_VM;
	char text[DRIVER_TEXT_MAX];

	libvirt_last_line(virGetLastErrorMessage(), text, sizeof(text));
	switch (virGetLastErrorCode()) {
	case VIR_ERR_NO_DOMAIN:
		err = OM_ERR_NOT_FOUND;
		break;
	case VIR_ERR_DOM_EXIST:
		err = OM_ERR_EXISTS;
		break;
	case VIR_ERR_NO_MEMORY:
		err = OM_ERR_NOMEM;
		break;
	default:
		break;
	}
	return om_why_set(why, err, "%s %s: %s", what, name, text);
}

static enum om_err
driver_open(const struct om_vm_config *config, void **state, struct om_why *why)
{
	struct libvirt_conn *lv = NULL;
	enum om_err err = libvirt_conn_open(config, &lv, why);

	if (err == OM_OK) {
		*state = lv;
	}
	return err;
}

static void
driver_close(void *state)
{
	libvirt_conn_close(state);
}

/* A reference to the domain and to its connection; both NULL on failure. */
static enum om_err
driver_find(struct libvirt_conn *lv, const char *name, virConnectPtr *conn, virDomainPtr *dom,
	    struct om_why *why)
{
	enum om_err err;

	*dom = NULL;
	*conn = libvirt_conn_get(lv, 0);
	if (*conn == NULL) {
		return om_why_set(why, OM_ERR_VM, "no connection to libvirtd");
	}
	*dom = virDomainLookupByName(*conn, name);
	if (*dom != NULL) {
		return OM_OK;
	}
	err = driver_error(why, "find", name);
	virConnectClose(*conn);
	*conn = NULL;
	return err;
}

static void
driver_put(virConnectPtr conn, virDomainPtr dom)
{
	if (dom != NULL) {
		virDomainFree(dom);
	}
	if (conn != NULL) {
		virConnectClose(conn);
	}
}

/* --- create -------------------------------------------------------------------------------------- */

/*
 * Where the host permits it.  Not in the XML: libvirt would then raise RLIMIT_MEMLOCK too, which
 * fails without CAP_SYS_RESOURCE.  Without the limit the guest is still held to its memory by
 * qemu; what is missing is the bound on qemu's own.
 */
static void
driver_limit_memory(virDomainPtr dom, const struct om_vm_spec *spec)
{
	virTypedParameterPtr params = NULL;
	int count = 0, max = 0;
	unsigned long long kib = (spec->mem_mib + OM_VM_MEM_HEADROOM_MIB) << 10;

	if (virTypedParamsAddULLong(&params, &count, &max, VIR_DOMAIN_MEMORY_HARD_LIMIT, kib) < 0 ||
	    virDomainSetMemoryParameters(dom, params, count, VIR_DOMAIN_AFFECT_LIVE) < 0) {
		om_debug("vm.memory_limit", "%s: %s", spec->name, virGetLastErrorMessage());
	}
	virTypedParamsFree(params, count);
}

static virDomainPtr
driver_create_domain(virConnectPtr conn, const struct om_vm_spec *spec, const char *xml,
		     struct om_why *why, enum om_err *err)
{
	unsigned flags = VIR_DOMAIN_START_AUTODESTROY;
	virDomainPtr dom;

	if (spec->start_paused) {
		flags |= VIR_DOMAIN_START_PAUSED;
	}
	dom = virDomainCreateXML(conn, xml, flags);
	if (dom == NULL) {
		*err = driver_error(why, "create", spec->name);
		if (strstr(virGetLastErrorMessage(), "already exists") != NULL) {
			*err = OM_ERR_EXISTS; /* the code is a general one for transient domains */
		}
	}
	return dom;
}

static enum om_err
driver_create(void *state, const struct om_vm_spec *spec, struct om_vm_handle *out,
	      struct om_why *why)
{
	struct libvirt_conn *lv = state;
	const struct libvirt_host *host = libvirt_conn_host(lv);
	struct om_buf xml = { .max = 16384 };
	virConnectPtr conn = NULL;
	virDomainPtr dom = NULL;
	bool has_scratch = false, is_watched = false;
	enum om_err err;

	om_vm_handle_init(out);
	err = om_vm_spec_check(spec, why);
	if (err != OM_OK) {
		return err;
	}
	conn = libvirt_conn_get(lv, DRIVER_PATIENCE_MS);
	if (conn == NULL) {
		return om_why_set(why, OM_ERR_VM, "no connection to libvirtd");
	}
	err = libvirt_xml_build(&xml, spec, host, why);
	if (err != OM_OK) {
		goto out;
	}
	err = libvirt_make_scratch(spec, host->label, why);
	if (err != OM_OK) {
		goto out;
	}
	has_scratch = true;
	/* Before it exists: its end must not come before the watch. */
	err = libvirt_conn_watch(lv, spec->name);
	if (err != OM_OK) {
		goto out;
	}
	is_watched = true;
	dom = driver_create_domain(conn, spec, om_buf_cstr(&xml), why, &err);
	if (dom == NULL) {
		goto out;
	}
	err = libvirt_find_process(libvirt_conn_run_dir(lv), spec->name, out, why);
	if (err != OM_OK) {
		(void)virDomainDestroy(dom);
		goto out;
	}
	driver_limit_memory(dom, spec);
out:
	if (err != OM_OK && is_watched) {
		libvirt_conn_unwatch(lv, spec->name);
	}
	if (err != OM_OK && has_scratch) {
		(void)unlink(spec->scratch_path);
	}
	om_buf_fini(&xml);
	driver_put(conn, dom);
	return err;
}

/* --- the rest ------------------------------------------------------------------------------------ */

static enum om_err
driver_resume(void *state, const char *name, struct om_why *why)
{
	virConnectPtr conn;
	virDomainPtr dom;
	enum om_err err = driver_find(state, name, &conn, &dom, why);

	if (err == OM_OK && virDomainResume(dom) < 0) {
		err = driver_error(why, "resume", name);
	}
	driver_put(conn, dom);
	return err;
}

static enum om_err
driver_suspend(void *state, const char *name, struct om_why *why)
{
	virConnectPtr conn;
	virDomainPtr dom;
	enum om_err err = driver_find(state, name, &conn, &dom, why);

	if (err == OM_OK && virDomainSuspend(dom) < 0) {
		err = driver_error(why, "suspend", name);
	}
	driver_put(conn, dom);
	return err;
}

static enum om_err
driver_kill(void *state, const struct om_vm_handle *vm)
{
	(void)state;
	if (vm->pidfd < 0) {
		return OM_ERR_NOT_FOUND;
	}
	if (syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0) < 0) {
		return errno == ESRCH ? OM_ERR_NOT_FOUND : om_err_from_errno(errno);
	}
	return OM_OK;
}

/*
 * Until qemu is gone and buried: libvirt takes a zombie for alive and then sleeps 200 ms.  Where
 * nobody buries at once (no systemd, no subreaper) we stop waiting, and libvirt waits instead.
 */
static void
driver_kill_and_wait(struct libvirt_conn *lv, const char *name)
{
	const struct timespec step = { 0, DRIVER_BURY_STEP_NS };
	struct om_vm_handle vm;

	om_vm_handle_init(&vm);
	if (libvirt_find_process(libvirt_conn_run_dir(lv), name, &vm, NULL) == OM_OK) {
		struct pollfd p = { .fd = vm.pidfd, .events = POLLIN };

		(void)driver_kill(lv, &vm);
		(void)poll(&p, 1, DRIVER_KILL_WAIT_MS);
		for (int i = 0; i < DRIVER_BURY_STEPS; i++) {
			if (syscall(SYS_pidfd_send_signal, vm.pidfd, 0, NULL, 0) < 0) {
				break;
			}
			nanosleep(&step, NULL);
		}
	}
	om_vm_handle_fini(&vm);
}

/*
 * libvirt keeps a log of every name that it has ever seen.  Ours are used once, so after a million
 * jobs there would be a million files.  The system's logs are in /var/log/libvirt, a private
 * libvirtd's beside its run directory (tools/private_libvirtd.c).
 */
static void
driver_remove_log(const struct libvirt_conn *lv, const char *name)
{
	const char *run = libvirt_conn_run_dir(lv);
	const char *slash = strrchr(run, '/');
	char path[OM_VM_PATH_MAX + OM_VM_NAME_MAX + 32];

	if (slash != NULL && strcmp(slash, "/run") == 0) {
		snprintf(path, sizeof(path), "%.*s/log/qemu/%s.log", (int)(slash - run), run, name);
	} else {
		snprintf(path, sizeof(path), "/var/log/libvirt/qemu/%s.log", name);
	}
	if (unlink(path) < 0 && errno != ENOENT) {
		om_debug("vm.log_left", "%s: %s", path, strerror(errno));
	}
}

static enum om_err
driver_destroy(void *state, const char *name, struct om_why *why)
{
	struct libvirt_conn *lv = state;
	virConnectPtr conn;
	virDomainPtr dom;
	enum om_err err;

	driver_kill_and_wait(lv, name);
	err = driver_find(lv, name, &conn, &dom, why);
	if (err == OM_OK && virDomainDestroy(dom) < 0) {
		err = driver_error(why, "destroy", name);
		/* It ended while we asked: a transient domain vanishes with its end. */
		if (virGetLastErrorCode() == VIR_ERR_OPERATION_INVALID) {
			err = OM_OK;
		}
	}
	driver_put(conn, dom);
	err = err == OM_ERR_NOT_FOUND ? OM_OK : err;
	if (err == OM_OK) {
		driver_remove_log(lv, name);
	}
	return err;
}

static enum om_err
driver_list(void *state, char ***names, size_t *count, struct om_why *why)
{
	virConnectPtr conn = libvirt_conn_get(state, 0);
	virDomainPtr *doms = NULL;
	enum om_err err = OM_OK;
	size_t n = 0;
	char **out = NULL;
	int total;

	if (conn == NULL) {
		return om_why_set(why, OM_ERR_VM, "no connection to libvirtd");
	}
	total = virConnectListAllDomains(conn, &doms, 0);
	if (total < 0) {
		err = driver_error(why, "list", "domains");
		goto out;
	}
	out = calloc((size_t)total + 1, sizeof(*out));
	for (int i = 0; out != NULL && i < total && n < OM_VM_LIST_MAX; i++) {
		const char *name = virDomainGetName(doms[i]);

		if (strncmp(name, OM_VM_PREFIX, sizeof(OM_VM_PREFIX) - 1) == 0) {
			out[n] = strdup(name);
			n += out[n] != NULL;
		}
	}
	if (out == NULL) {
		err = om_why_set(why, OM_ERR_NOMEM, "out of memory");
		goto out;
	}
	*names = out;
	*count = n;
out:
	for (int i = 0; i < total; i++) {
		virDomainFree(doms[i]);
	}
	free(doms);
	virConnectClose(conn);
	return err;
}

static enum om_err
driver_stats(void *state, const char *name, struct om_vm_stats *out, struct om_why *why)
{
	virDomainMemoryStatStruct mem[VIR_DOMAIN_MEMORY_STAT_NR];
	virConnectPtr conn;
	virDomainPtr dom;
	virDomainInfo info;
	enum om_err err = driver_find(state, name, &conn, &dom, why);
	int n;

	if (err != OM_OK) {
		return err;
	}
	if (virDomainGetInfo(dom, &info) < 0) {
		err = driver_error(why, "stats of", name);
		goto out;
	}
	memset(out, 0, sizeof(*out));
	out->cpu_ns = info.cpuTime;
	n = virDomainMemoryStats(dom, mem, VIR_DOMAIN_MEMORY_STAT_NR, 0);
	for (int i = 0; i < n; i++) {
		if (mem[i].tag == VIR_DOMAIN_MEMORY_STAT_RSS) {
			out->rss_kib = mem[i].val;
		}
	}
out:
	driver_put(conn, dom);
	return err;
}

const struct om_vm_driver_ops om_vm_libvirt_ops = {
	.name = "libvirt",
	.open = driver_open,
	.close = driver_close,
	.create = driver_create,
	.resume = driver_resume,
	.suspend = driver_suspend,
	.destroy = driver_destroy,
	.kill = driver_kill,
	.list = driver_list,
	.stats = driver_stats,
};
