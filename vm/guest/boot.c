/* SPDX-License-Identifier: ISC */
/*
 * From the kernel's first breath to a system that can run a job, without udev, modprobe or a
 * shell.  Order matters: modules make the devices appear, the devices carry the root.
 *
 * The root that the job sees is an overlay: the shared squashfs below, the job's own scratch disk
 * above it.  The disk's size is the quota, so everything that a job writes counts against it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "vm/guest/agent.h"

#define BOOT_DEVICE_WAIT_MS 3000
#define BOOT_DEVICE_STEP_NS 1000000 /* 1 ms; devices appear while modules load, so rarely at all */

void
boot_die(const char *what)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		dprintf(fd, "<2>omerta-agent: %s (%s)\n", what, strerror(errno));
	}
	/* The hypervisor runs with no-reboot: this ends the VM. */
	reboot(RB_AUTOBOOT);
	_exit(1);
}

bool
boot_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_CREAT, 0644);
	ssize_t n = -1;

	if (fd >= 0) {
		n = write(fd, text, strlen(text));
		close(fd);
	}
	return n == (ssize_t)strlen(text);
}

static void
boot_mount(const char *what, const char *where, const char *type, unsigned long flags,
	   const char *options)
{
	(void)mkdir(where, 0755);
	if (mount(what, where, type, flags, options) < 0) {
		boot_die(where);
	}
}

/* --- modules ------------------------------------------------------------------------------------ */

static bool
boot_dir_has_entries(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	bool found = false;

	while (dir != NULL && (e = readdir(dir)) != NULL) {
		found = found || e->d_name[0] != '.';
	}
	if (dir != NULL) {
		closedir(dir);
	}
	return found;
}

/* virtio device id 1 is a network card. */
static bool
boot_has_nic(void)
{
	DIR *dir = opendir("/sys/bus/virtio/devices");
	struct dirent *e;
	bool found = false;

	while (dir != NULL && (e = readdir(dir)) != NULL) {
		char path[300], id[32];

		snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/device", e->d_name);
		found = found || (om_file_head(AT_FDCWD, path, id, sizeof(id)) > 0 &&
				  strtoul(id, NULL, 0) == 1);
	}
	if (dir != NULL) {
		closedir(dir);
	}
	return found;
}

static bool
boot_wants(const char *when, bool has_pci)
{
	if (strcmp(when, "pci") == 0) {
		return has_pci;
	}
	if (strcmp(when, "mmio") == 0) {
		return !has_pci;
	}
	return strcmp(when, "net") != 0 || boot_has_nic();
}

/* /modules/order: lines of "when file", made by vm/image/build.sh. */
static void
boot_load_modules(void)
{
	bool has_pci = boot_dir_has_entries("/sys/bus/pci/devices");
	char when[16], name[64], path[128];
	FILE *order = fopen("/modules/order", "re");

	if (order == NULL) {
		boot_die("no list of modules");
	}
	while (fscanf(order, "%15s %63s", when, name) == 2) {
		int fd;

		if (!boot_wants(when, has_pci)) {
			continue;
		}
		snprintf(path, sizeof(path), "/modules/%s", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) {
			boot_die(path);
		}
		close(fd);
	}
	fclose(order);
}

/* --- devices ------------------------------------------------------------------------------------ */

/* The disk that is read-only is the root, the other one the scratch: bus order says nothing. */
static bool
boot_find_disks(char root[32], char scratch[32])
{
	root[0] = scratch[0] = '\0';
	for (char c = 'a'; c <= 'd'; c++) {
		char path[64], ro[8];

		snprintf(path, sizeof(path), "/sys/block/vd%c/ro", c);
		if (om_file_head(AT_FDCWD, path, ro, sizeof(ro)) > 0) {
			snprintf(ro[0] == '1' ? root : scratch, 32, "/dev/vd%c", c);
		}
	}
	return root[0] != '\0' && scratch[0] != '\0' && access(root, R_OK) == 0 &&
	       access(scratch, R_OK) == 0;
}

static int
boot_open_port(void)
{
	DIR *dir = opendir("/sys/class/virtio-ports");
	struct dirent *e;
	int fd = -1;

	while (dir != NULL && fd < 0 && (e = readdir(dir)) != NULL) {
		char path[300], name[64];

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", e->d_name);
		if (om_file_head(AT_FDCWD, path, name, sizeof(name)) <= 0 ||
		    strncmp(name, OM_GUEST_PORT, strlen(OM_GUEST_PORT)) != 0) {
			continue;
		}
		snprintf(path, sizeof(path), "/dev/%s", e->d_name);
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (dir != NULL) {
		closedir(dir);
	}
	return fd;
}

static int
boot_wait_devices(char root[32], char scratch[32])
{
	const struct timespec step = { 0, BOOT_DEVICE_STEP_NS };
	int fd = -1;

	for (int i = 0; i < BOOT_DEVICE_WAIT_MS; i++) {
		if (fd < 0) {
			fd = boot_open_port();
		}
		if (fd >= 0 && boot_find_disks(root, scratch)) {
			return fd;
		}
		nanosleep(&step, NULL);
	}
	boot_die("no port or no disk");
}

/* --- the job's root ----------------------------------------------------------------------------- */

static void
boot_make_node(const char *path, unsigned minor_nr)
{
	if (mknod(path, S_IFCHR | 0666, makedev(1, minor_nr)) < 0 || chmod(path, 0666) < 0) {
		boot_die(path);
	}
}

/* A /dev of its own: the real one has the port, the disks and /dev/kmsg. */
static void
boot_make_dev(void)
{
	boot_mount("dev", GUEST_ROOT "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k");
	boot_make_node(GUEST_ROOT "/dev/null", 3);
	boot_make_node(GUEST_ROOT "/dev/zero", 5);
	boot_make_node(GUEST_ROOT "/dev/full", 7);
	boot_make_node(GUEST_ROOT "/dev/random", 8);
	boot_make_node(GUEST_ROOT "/dev/urandom", 9);
	boot_mount("pts", GUEST_ROOT "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		   "newinstance,ptmxmode=0666,mode=0620,gid=5");
	boot_mount("shm", GUEST_ROOT "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	if (symlink("pts/ptmx", GUEST_ROOT "/dev/ptmx") < 0 ||
	    symlink("/proc/self/fd", GUEST_ROOT "/dev/fd") < 0 ||
	    symlink("/proc/self/fd/0", GUEST_ROOT "/dev/stdin") < 0 ||
	    symlink("/proc/self/fd/1", GUEST_ROOT "/dev/stdout") < 0 ||
	    symlink("/proc/self/fd/2", GUEST_ROOT "/dev/stderr") < 0) {
		boot_die("links in /dev");
	}
}

static void
boot_make_root(const char *root, const char *scratch)
{
	const unsigned long safe = MS_NOSUID | MS_NODEV;

	boot_mount(root, "/disk/ro", "squashfs", MS_RDONLY | safe, NULL);
	boot_mount(scratch, "/disk/rw", "ext4", MS_NOATIME | safe, NULL);
	(void)mkdir("/disk/rw/upper", 0755);
	(void)mkdir("/disk/rw/work", 0755);
	boot_mount("root", GUEST_ROOT, "overlay", MS_NOATIME | safe,
		   "lowerdir=/disk/ro,upperdir=/disk/rw/upper,workdir=/disk/rw/work");
	boot_make_dev();
	/* hidepid: the job sees its own processes, not the agent's. */
	boot_mount("proc", GUEST_ROOT "/proc", "proc", safe | MS_NOEXEC, "hidepid=2");
	boot_mount("sys", GUEST_ROOT "/sys", "sysfs", MS_RDONLY | safe | MS_NOEXEC, NULL);
	boot_mount("run", GUEST_ROOT "/run", "tmpfs", safe, "mode=0755,size=1m");
}

/* The agent cannot be starved or chosen by the OOM killer; the job's cgroup has its limits. */
static void
boot_protect_agent(void)
{
	boot_mount("cgroup", "/cg", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (!boot_write_file("/cg/cgroup.subtree_control", "+pids +memory") ||
	    mkdir(GUEST_CGROUP, 0755) < 0 || mkdir(GUEST_PRIME_CGROUP, 0755) < 0 ||
	    !boot_write_file("/proc/self/oom_score_adj", "-1000")) {
		boot_die("cgroup");
	}
	setpriority(PRIO_PROCESS, 0, -20);
}

int
boot_system(void)
{
	char root[32], scratch[32];
	int fd;

	boot_mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL);
	boot_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	boot_mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	boot_load_modules();
	fd = boot_wait_devices(root, scratch);
	boot_make_root(root, scratch);
	boot_protect_agent();
	(void)sethostname("guest", 5);
	return fd;
}
