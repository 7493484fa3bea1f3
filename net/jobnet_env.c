/* SPDX-License-Identifier: ISC */
/* What a daemon sets up once, and what it cleans up once: the environment and the sweep. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/parse.h"
#include "net/jobnet_impl.h"
#include "net/link.h"
#include "net/wireguard.h"

#define HYPERVISOR_USER "libvirt-qemu"
#define FNV_OFFSET      2166136261u
#define FNV_PRIME       16777619u
#define SWEEP_LINKS_MAX 4096
#define CMDLINE_MAX     512
#define INOTIFY_LIMIT   "/proc/sys/fs/inotify/max_user_instances"
#define INOTIFY_WANTED  8192
#define KILL_WAIT_MS    5000
#define OWN_FRESH_MS    1000

/* FNV-1a, folded to 16 bits: enough to keep the daemons of one machine apart. */
static void
instance_of(const char *state_dir, char out[OM_INSTANCE_LEN + 1])
{
	uint32_t h = FNV_OFFSET;

	for (const char *p = state_dir; *p != '\0'; p++) {
		h = (h ^ (uint8_t)*p) * FNV_PRIME;
	}
	(void)snprintf(out, OM_INSTANCE_LEN + 1, "%04x", (unsigned)((h >> 16 ^ h) & 0xffff));
}

/* Guards policy.own, own_count and own_at of every environment: it is held for microseconds. */
static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;

static enum om_err
own_read(struct om_jobnet_env *env, struct om_why *why)
{
	struct om_nl nl = { .sock = NULL };
	struct om_mono now = om_mono_now();
	enum om_err err;

	err = om_nl_open(&nl, NETLINK_ROUTE, why);
	if (err == OM_OK) {
		err = om_addr_networks(&nl, env->policy.own, OM_ENDPOINT_OWN_MAX,
				       &env->policy.own_count, why);
	}
	om_nl_close(&nl);
	/* A reading that failed half-way is no list: the next one to ask reads again. */
	env->own_at = err == OM_OK ? now : (struct om_mono){ 0 };
	return err;
}

enum om_err
om_jobnet_env_refresh(struct om_jobnet_env *env, struct om_why *why)
{
	enum om_err err;

	(void)pthread_mutex_lock(&own_lock);
	err = own_read(env, why);
	(void)pthread_mutex_unlock(&own_lock);
	return err;
}

enum om_err
om_jobnet_endpoint_check(struct om_jobnet_env *env, const struct om_endpoint *ep,
			 struct om_why *why)
{
	enum om_err err = OM_OK;

	(void)pthread_mutex_lock(&own_lock);
	if (env->own_at.ns == 0 || om_mono_ms_between(env->own_at, om_mono_now()) > OWN_FRESH_MS) {
		err = own_read(env, why);
	}
	if (err == OM_OK) {
		err = om_endpoint_check(&env->policy, ep, why);
	}
	(void)pthread_mutex_unlock(&own_lock);
	return err;
}

/*
 * Each wireguard-go holds an inotify instance, and Linux allows a user 128 of them: the next tunnel
 * would not start.  An instance costs about a kilobyte of kernel memory.
 */
static void
inotify_make_room(void)
{
	char text[16] = "";
	uint64_t now;
	ssize_t n;
	int fd;

	fd = open(INOTIFY_LIMIT, O_RDWR | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n > 0 &&
	    om_parse_u64(om_str_trim((struct om_str){ text, (size_t)n - 1 }), 0, INT32_MAX, &now) ==
		OM_OK &&
	    now >= INOTIFY_WANTED) {
		goto out;
	}
	n = snprintf(text, sizeof(text), "%d", INOTIFY_WANTED);
	if (fd >= 0 && pwrite(fd, text, (size_t)n, 0) == n) {
		om_info("net.inotify_raised", INOTIFY_LIMIT " is %d now", INOTIFY_WANTED);
	} else {
		om_warn("net.inotify_limit",
			"cannot raise " INOTIFY_LIMIT ": about as many tunnels at once as it says");
	}
out:
	if (fd >= 0) {
		(void)close(fd);
	}
}

enum om_err
om_jobnet_env_init(struct om_jobnet_env *env, const char *state_dir, enum om_wg_backend want,
		   struct om_why *why)
{
	const struct passwd *pw = getpwnam(HYPERVISOR_USER);
	enum om_err err;

	memset(env, 0, sizeof(*env));
	instance_of(state_dir, env->instance);
	env->noise = OM_NOISE_DEFAULT;
	env->tap_uid = pw != NULL ? pw->pw_uid : 0;
	env->tap_gid = pw != NULL ? pw->pw_gid : 0;
	err = om_wg_probe(want, &env->backend, env->wireguard_go, sizeof(env->wireguard_go), why);
	if (err == OM_OK && env->backend == OM_WG_BACKEND_USERSPACE) {
		inotify_make_room();
	}
	return err == OM_OK ? om_jobnet_env_refresh(env, why) : err;
}

/* --- sweep --------------------------------------------------------------------------------------------------- */

static bool
is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* A name as om_jobnet_name makes it, of this instance. */
static bool
is_ours(const struct om_jobnet_env *env, const char *name, size_t len)
{
	if (len != OM_IFNAME_MAX - 1 || strncmp(name, "om", 2) != 0 ||
	    (name[2] != 't' && name[2] != 'w') ||
	    strncmp(name + 3, env->instance, OM_INSTANCE_LEN) != 0) {
		return false;
	}
	for (size_t i = 3 + OM_INSTANCE_LEN; i < len; i++) {
		if (!is_hex(name[i])) {
			return false;
		}
	}
	return true;
}

struct link_list {
	const struct om_jobnet_env *env;
	char (*names)[OM_IFNAME_MAX];
	size_t count;
};

static void
sweep_on_link(const struct om_link *link, void *arg)
{
	struct link_list *list = arg;

	if (list->count < SWEEP_LINKS_MAX && is_ours(list->env, link->name, strlen(link->name)) &&
	    (strcmp(link->kind, "tun") == 0 || strcmp(link->kind, "wireguard") == 0)) {
		(void)snprintf(list->names[list->count++], OM_IFNAME_MAX, "%s", link->name);
	}
}

static enum om_err
sweep_links(const struct om_jobnet_env *env, struct om_jobnet_sweep *out, struct om_why *why)
{
	struct link_list list = { .env = env };
	struct om_nl nl = { .sock = NULL };
	enum om_err err;

	list.names = calloc(SWEEP_LINKS_MAX, sizeof(*list.names));
	if (list.names == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "sweep: out of memory");
	}
	err = om_nl_open(&nl, NETLINK_ROUTE, why);
	if (err == OM_OK) {
		err = om_link_each(&nl, sweep_on_link, &list, why);
	}
	for (size_t i = 0; err == OM_OK && i < list.count; i++) {
		err = om_link_delete(&nl, list.names[i], why);
		out->links += err == OM_OK ? 1 : 0;
	}
	om_nl_close(&nl);
	free(list.names);
	return err;
}

/* Reads "wireguard-go\0-f\0omw...\0" of a process; true when it is a wireguard-go of ours. */
static bool
is_our_wireguard_go(const struct om_jobnet_env *env, int proc, const char *pid)
{
	static const char program[] = "wireguard-go";
	char path[32], text[CMDLINE_MAX];
	const char *slash, *flag, *name;
	size_t len0;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/cmdline", pid);
	n = om_file_head(proc, path, text, sizeof(text));
	if (n <= 0) {
		return false;
	}
	len0 = strlen(text);
	slash = strrchr(text, '/');
	if (strcmp(slash != NULL ? slash + 1 : text, program) != 0) {
		return false;
	}
	flag = text + len0 + 1;
	if (flag >= text + n || strcmp(flag, "-f") != 0) {
		return false;
	}
	name = flag + strlen(flag) + 1;
	return name < text + n && is_ours(env, name, strlen(name));
}

/* Kills by descriptor, and checks again after it is open: the pid cannot change hands any more. */
static bool
sweep_process(const struct om_jobnet_env *env, int proc, const char *pid_text, pid_t pid)
{
	struct pollfd end = { .fd = pidfd_open(pid, 0), .events = POLLIN };
	bool killed = false;

	if (end.fd < 0) {
		return false;
	}
	if (is_our_wireguard_go(env, proc, pid_text) &&
	    pidfd_send_signal(end.fd, SIGKILL, NULL, 0) == 0) {
		killed = poll(&end, 1, KILL_WAIT_MS) == 1;
	}
	(void)close(end.fd);
	return killed;
}

static enum om_err
sweep_processes(const struct om_jobnet_env *env, struct om_jobnet_sweep *out, struct om_why *why)
{
	DIR *dir = opendir("/proc");
	const struct dirent *entry;

	if (dir == NULL) {
		return om_why_errno(why, om_err_from_errno(errno), "open /proc");
	}
	while ((entry = readdir(dir)) != NULL) {
		uint64_t pid;

		if (om_parse_u64(om_str_of(entry->d_name), 2, INT32_MAX, &pid) == OM_OK &&
		    is_our_wireguard_go(env, dirfd(dir), entry->d_name) &&
		    sweep_process(env, dirfd(dir), entry->d_name, (pid_t)pid)) {
			out->processes++;
		}
	}
	(void)closedir(dir);
	return OM_OK;
}

static enum om_err
sweep_sockets(const struct om_jobnet_env *env, struct om_jobnet_sweep *out, struct om_why *why)
{
	static const char suffix[] = ".sock";
	DIR *dir = opendir(OM_WG_SOCKET_DIR);
	const struct dirent *entry;
	enum om_err err = OM_OK;

	if (dir == NULL) {
		return errno == ENOENT
			   ? OM_OK
			   : om_why_errno(why, om_err_from_errno(errno), "open " OM_WG_SOCKET_DIR);
	}
	while (err == OM_OK && (entry = readdir(dir)) != NULL) {
		size_t len = strlen(entry->d_name);

		if (len != OM_IFNAME_MAX - 1 + sizeof(suffix) - 1 ||
		    strcmp(entry->d_name + OM_IFNAME_MAX - 1, suffix) != 0 ||
		    !is_ours(env, entry->d_name, OM_IFNAME_MAX - 1)) {
			continue;
		}
		if (unlinkat(dirfd(dir), entry->d_name, 0) == 0) {
			out->sockets++;
		} else if (errno != ENOENT) {
			err =
			    om_why_errno(why, om_err_from_errno(errno), "remove %s", entry->d_name);
		}
	}
	(void)closedir(dir);
	return err;
}

enum om_err
om_jobnet_sweep(const struct om_jobnet_env *env, struct om_jobnet_sweep *out, struct om_why *why)
{
	enum om_err err;

	memset(out, 0, sizeof(*out));
	/* Processes first: a dying wireguard-go takes its tun along. */
	err = sweep_processes(env, out, why);
	if (err == OM_OK) {
		err = sweep_links(env, out, why);
	}
	if (err == OM_OK) {
		err = sweep_sockets(env, out, why);
	}
	if (err == OM_OK && out->links + out->processes + out->sockets > 0) {
		om_info("net.swept", "links %u, processes %u, sockets %u", out->links,
			out->processes, out->sockets);
	}
	return err;
}
