/* SPDX-License-Identifier: ISC */
/* The doctor's questions to the real world. */
#include "daemon/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/parse.h"
#include "base/spawn.h"
#include "daemon/libvirtd.h"
#include "net/jobnet.h"
#include "net/wireguard.h"
#include "vm/image.h"
#include "vm/kvm_probe.h"

#define VERSION_TIMEOUT_MS 5000
#define CAP_NET_ADMIN_BIT  12 /* linux/capability.h */

/* libvirt prints errors on stderr unless someone takes them. */
static void
probe_ignore_libvirt(void *arg, virErrorPtr error)
{
	(void)arg;
	(void)error;
}

static enum om_err
probe_libvirt(const char *uri, char *version, size_t size, struct om_why *why)
{
	unsigned long number = 0;
	virConnectPtr conn;
	enum om_err err = OM_OK;

	virSetErrorFunc(NULL, probe_ignore_libvirt);
	conn = virConnectOpen(uri);
	if (conn == NULL || virConnectGetLibVersion(conn, &number) != 0) {
		err = om_why_set(why, OM_ERR_MISSING, "%s", virGetLastErrorMessage());
	} else {
		snprintf(version, size, "%lu.%lu.%lu", number / 1000000, number / 1000 % 1000,
			 number % 1000);
	}
	if (conn != NULL) {
		virConnectClose(conn);
	}
	return err;
}

static bool
probe_program(const char *name, char *path, size_t size)
{
	static const char *const dirs[] = { "/usr/sbin",   "/usr/bin",        "/sbin",
					    "/bin",        "/usr/local/sbin", "/usr/local/bin",
					    "/usr/libexec" };

	for (size_t i = 0; i < OM_COUNT(dirs); i++) {
		snprintf(path, size, "%s/%s", dirs[i], name);
		if (access(path, X_OK) == 0) {
			return true;
		}
	}
	return false;
}

static bool
probe_private_libvirtd(char *path, size_t size)
{
	return om_libvirtd_find(path, size) == OM_OK;
}

static enum om_err
probe_version(const char *path, char *out, size_t size)
{
	const char *argv[] = { path, "--version", NULL };
	const struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
	struct om_buf text = { 0 };
	struct om_str rest, line;
	int status = -1;
	enum om_err err;

	err = om_spawn_run(&how, VERSION_TIMEOUT_MS, &text, &status, NULL);
	rest = (struct om_str){ (const char *)text.data, text.len };
	if (err == OM_OK &&
	    (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !om_str_next(&rest, '\n', &line))) {
		err = OM_ERR_MISSING;
	}
	if (err == OM_OK) {
		snprintf(out, size, "%.*s", (int)line.len, line.ptr);
	}
	om_buf_fini(&text);
	return err;
}

/* "26 MB (built 3 minutes ago)" */
static enum om_err
probe_image(const struct om_config *config, char *text, size_t size, struct om_why *why)
{
	struct om_vm_image image;
	int64_t age;
	enum om_err err;

	err = om_vm_image_find(om_config_image_dir(config), &image, why);
	if (err == OM_OK && om_config_settings(config)->vm_verify_image) {
		err = om_vm_image_verify(&image, why);
	}
	if (err != OM_OK) {
		return err;
	}
	age = time(NULL) - image.built_at_s;
	snprintf(text, size, "%s %llu MB (built %lld %s ago)", image.release,
		 (unsigned long long)(image.bytes / 1000000),
		 (long long)(age < 7200     ? age / 60
			     : age < 172800 ? age / 3600
					    : age / 86400),
		 age < 7200     ? "minutes"
		 : age < 172800 ? "hours"
				: "days");
	return OM_OK;
}

/* Boots the image once under KVM, when that was not done before and libvirt is there. */
static enum om_err
probe_kvm(const struct om_config *config, bool *works, char *text, size_t size)
{
	const struct om_settings *s = om_config_settings(config);
	const struct om_vm_config vm = { .uri = s->libvirt_uri[0] != '\0' ? s->libvirt_uri : NULL };
	struct om_vm_driver driver = { &om_vm_libvirt_ops, NULL };
	struct om_vm_kvm_answer answer;
	struct om_vm_image image;
	struct om_why why = { "" };
	char work[OM_VM_PATH_MAX], cache[OM_VM_PATH_MAX];
	enum om_err err;

	if (s->libvirt_private == OM_CONF_YES ||
	    om_vm_image_find(om_config_image_dir(config), &image, &why) != OM_OK ||
	    driver.ops->open(&vm, &driver.state, &why) != OM_OK) {
		return OM_ERR_NOT_FOUND;
	}
	snprintf(work, sizeof(work), "%s/probe", s->daemon_run_dir);
	snprintf(cache, sizeof(cache), "%s/kvm", s->daemon_cache_dir);
	err = om_vm_kvm_probe(&driver, &image, work, cache, &answer, &why);
	driver.ops->close(driver.state);
	if (err != OM_OK) {
		*works = false;
		snprintf(text, size, "%s", why.text);
		return OM_OK;
	}
	*works = answer.works;
	snprintf(text, size, "%s", answer.text);
	return OM_OK;
}

static const char *
probe_wireguard(enum om_wg_backend want)
{
	enum om_wg_backend backend;
	struct om_why why = { "" };
	char path[128];

	if (om_wg_probe(want, &backend, path, sizeof(path), &why) != OM_OK) {
		return "none";
	}
	return om_wg_backend_name(backend);
}

/* mkdir -p; the last one 0755 less the umask. */
static int
make_path(const char *path)
{
	char part[OM_VM_PATH_MAX];
	size_t len = strlen(path);

	if (len >= sizeof(part)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (size_t i = 1; i <= len; i++) {
		if (path[i] == '/' || path[i] == '\0') {
			memcpy(part, path, i);
			part[i] = '\0';
			if (mkdir(part, 0755) != 0 && errno != EEXIST) {
				return -1;
			}
		}
	}
	return 0;
}

static enum om_err
probe_writable(const char *path, bool make, struct om_why *why)
{
	int fd;

	if (make) {
		if (make_path(path) != 0) {
			return om_why_errno(why, OM_ERR_DENIED, "%s cannot be made", path);
		}
		if (access(path, R_OK | W_OK | X_OK) != 0) {
			return om_why_errno(why, OM_ERR_DENIED, "%s is not writable", path);
		}
		return OM_OK;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_MISSING, "%s cannot be opened", path);
	}
	close(fd);
	return OM_OK;
}

static int64_t
probe_disk_free(const char *path)
{
	struct statvfs st;

	if (statvfs(path, &st) != 0) {
		return -1;
	}
	return (int64_t)(st.f_bavail * (st.f_frsize / 1024) / 1024);
}

static bool
probe_in_memory(const char *path)
{
	struct statfs st;

	return statfs(path, &st) != 0 || st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC;
}

/* The number behind `key` in a file of "key: number" lines; -1 when it is not there. */
static int64_t
file_number(const char *path, const char *key, int base)
{
	char line[256];
	int64_t value = -1;
	FILE *f = fopen(path, "re");

	if (f == NULL) {
		return -1;
	}
	while (fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, key, strlen(key)) == 0) {
			value = (int64_t)strtoull(line + strlen(key), NULL, base);
			break;
		}
	}
	fclose(f);
	return value;
}

static int64_t
probe_mem_available(void)
{
	int64_t kib = file_number("/proc/meminfo", "MemAvailable:", 10);

	return kib < 0 ? -1 : kib / 1024;
}

static bool
probe_net_admin(void)
{
	return (file_number("/proc/self/status", "CapEff:", 16) >> CAP_NET_ADMIN_BIT) & 1;
}

static int64_t
probe_wall(void)
{
	return time(NULL);
}

const struct om_doctor_probes om_doctor_system = {
	.libvirt = probe_libvirt,
	.program = probe_program,
	.private_libvirtd = probe_private_libvirtd,
	.version = probe_version,
	.kvm = probe_kvm,
	.image = probe_image,
	.wireguard = probe_wireguard,
	.writable = probe_writable,
	.disk_free_mib = probe_disk_free,
	.in_memory = probe_in_memory,
	.mem_available_mib = probe_mem_available,
	.has_net_admin = probe_net_admin,
	.wall_s = probe_wall,
};
