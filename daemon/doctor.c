/* SPDX-License-Identifier: ISC */
/* The checks.  What they ask of the world comes through struct om_doctor_probes. */
#include "daemon/doctor.h"

#include <stdio.h>
#include <string.h>
#include "base/parse.h"
#include "daemon/json.h"
#include "daemon/libvirtd.h"

#define DISK_WARN_MIB      1024
#define DISK_FAIL_MIB      64
#define MEM_WARN_MIB       1024
#define MEM_FAIL_MIB       256
#define BUILT_YEAR_SECONDS INT64_C(1767225600) /* 2026-01-01: no right clock shows less */
#define FAR_FUTURE_SECONDS INT64_C(4102444800) /* 2100-01-01 */

struct doctor {
	const struct om_doctor_probes *probes;
	const struct om_config *config;
	const struct om_settings *s;
	struct om_check_result *out; /* of the check that runs */
};

static void OM_PRINTF(3, 4) tell(struct doctor *d, enum om_check_level level, const char *fmt, ...)
{
	va_list ap;

	d->out->level = level;
	va_start(ap, fmt);
	vsnprintf(d->out->text, sizeof(d->out->text), fmt, ap);
	va_end(ap);
}

static void OM_PRINTF(2, 3) hint(struct doctor *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->out->hint, sizeof(d->out->hint), fmt, ap);
	va_end(ap);
}

static void
hint_install(struct doctor *d, const char *package)
{
	om_doctor_install(d->probes->os_release, package, d->out->hint, sizeof(d->out->hint));
}

/* --- hints ----------------------------------------------------------------------------------- */

enum pkg_tool { TOOL_APT, TOOL_DNF, TOOL_PACMAN, TOOL_ZYPPER, TOOL_COUNT };

static const char *const tool_command[TOOL_COUNT] = {
	[TOOL_APT] = "apt-get install",
	[TOOL_DNF] = "dnf install",
	[TOOL_PACMAN] = "pacman -S",
	[TOOL_ZYPPER] = "zypper install",
};

static const struct {
	const char *id; /* a word of ID or ID_LIKE */
	enum pkg_tool tool;
} distros[] = {
	{ "debian", TOOL_APT },
	{ "ubuntu", TOOL_APT },
	{ "fedora", TOOL_DNF },
	{ "rhel", TOOL_DNF },
	{ "centos", TOOL_DNF },
	{ "arch", TOOL_PACMAN },
	{ "opensuse", TOOL_ZYPPER },
	{ "suse", TOOL_ZYPPER },
	{ "sles", TOOL_ZYPPER },
	{ "opensuse-leap", TOOL_ZYPPER },
	{ "opensuse-tumbleweed", TOOL_ZYPPER },
};

/* Names that differ from Debian's; the order is that of enum pkg_tool. */
static const char *const packages[][TOOL_COUNT] = {
	{ "libvirt-daemon-system", "libvirt-daemon", "libvirt", "libvirt-daemon" },
	{ "qemu-system-x86", "qemu-kvm", "qemu-base", "qemu-x86" },
	{ "wireguard-go", "wireguard-tools", "wireguard-go", "wireguard-tools" },
	{ "mmdebstrap squashfs-tools", "mmdebstrap squashfs-tools", "squashfs-tools",
	  "mmdebstrap squashfs" },
};

/* A word of the value of `key` in os-release is a distribution that we know. */
static bool
distro_find(const char *os_release, const char *key, enum pkg_tool *out)
{
	struct om_str rest = om_str_of(os_release), line, word;
	size_t key_len = strlen(key);

	while (om_str_next(&rest, '\n', &line)) {
		if (line.len <= key_len || strncmp(line.ptr, key, key_len) != 0 ||
		    line.ptr[key_len] != '=') {
			continue;
		}
		line.ptr += key_len + 1;
		line.len -= key_len + 1;
		if (line.len >= 2 && (line.ptr[0] == '"' || line.ptr[0] == '\'')) {
			line.ptr++;
			line.len -= 2;
		}
		while (om_str_next(&line, ' ', &word)) {
			for (size_t i = 0; i < OM_COUNT(distros); i++) {
				if (om_str_is(word, distros[i].id)) {
					*out = distros[i].tool;
					return true;
				}
			}
		}
	}
	return false;
}

const char *
om_doctor_install(const char *os_release, const char *debian_package, char *out, size_t size)
{
	enum pkg_tool tool;
	const char *name = debian_package;

	if (os_release == NULL ||
	    (!distro_find(os_release, "ID", &tool) && !distro_find(os_release, "ID_LIKE", &tool))) {
		snprintf(out, size, "install %s (its Debian name)", debian_package);
		return out;
	}
	for (size_t i = 0; i < OM_COUNT(packages); i++) {
		if (strcmp(packages[i][TOOL_APT], debian_package) == 0) {
			name = packages[i][tool];
		}
	}
	snprintf(out, size, "%s %s", tool_command[tool], name);
	return out;
}

/* --- checks ---------------------------------------------------------------------------------- */

static bool
needs_vm(const struct doctor *d)
{
	return d->s->vm_driver == OM_CONF_DRIVER_LIBVIRT;
}

static bool
needs_net(const struct doctor *d)
{
	return needs_vm(d) && d->s->network_wireguard != OM_CONF_WG_NONE;
}

static void
check_config(struct doctor *d)
{
	unsigned changed = 0;
	size_t rules;

	for (int i = 0; i < OM_CONF_COUNT; i++) {
		changed += !om_config_is_default(d->config, (enum om_conf_item)i);
	}
	om_config_rules(d->config, &rules);
	tell(d, OM_CHECK_OK, "configuration: %u settings changed, %zu rules", changed, rules);
}

static void
check_directory(struct doctor *d, const char *path, bool room)
{
	struct om_why why = { "" };
	int64_t mib;

	if (d->probes->writable(path, true, &why) != OM_OK) {
		tell(d, OM_CHECK_FAIL, "%s", why.text);
		hint(d, "run as root, or set daemon.state_dir, run_dir and cache_dir");
		return;
	}
	mib = room ? d->probes->disk_free_mib(path) : -1;
	if (!room) {
		tell(d, OM_CHECK_OK, "%s is writable", path);
	} else if (mib < 0) {
		tell(d, OM_CHECK_WARN, "%s: free space is not known", path);
	} else if (mib < DISK_FAIL_MIB) {
		tell(d, OM_CHECK_FAIL, "%s: only %lld MiB free", path, (long long)mib);
		hint(d, "make room on that file system");
	} else if (mib < DISK_WARN_MIB) {
		tell(d, OM_CHECK_WARN, "%s: only %lld MiB free", path, (long long)mib);
		hint(d, "make room on that file system");
	} else {
		tell(d, OM_CHECK_OK, "%s: %lld GiB free", path, (long long)(mib / 1024));
	}
}

static void
check_state_dir(struct doctor *d)
{
	check_directory(d, d->s->daemon_state_dir, true);
}

static void
check_retention(struct doctor *d)
{
	const struct om_settings *s = d->s;

	if (s->store_keep_size == 0) {
		tell(d, OM_CHECK_WARN, "the ledger has no bound: it grows until the disk is full");
		hint(d, "set store.keep_size");
	} else {
		tell(d, OM_CHECK_OK, "the ledger is kept below %llu MiB",
		     (unsigned long long)s->store_keep_size);
	}
}

static void
check_run_dir(struct doctor *d)
{
	check_directory(d, d->s->daemon_run_dir, false);
}

static void
check_keys(struct doctor *d)
{
	if (d->probes->in_memory(d->s->daemon_run_dir)) {
		tell(d, OM_CHECK_OK, "what opens the private keys of jobs is in memory");
	} else {
		tell(d, OM_CHECK_WARN, "what opens the private keys of jobs is on a disk: %s",
		     d->s->daemon_run_dir);
		hint(d, "put daemon.run_dir on a tmpfs, as /run is on most systems");
	}
}

static void
check_cache_dir(struct doctor *d)
{
	check_directory(d, d->s->daemon_cache_dir, true);
}

static void
check_memory(struct doctor *d)
{
	int64_t mib = d->probes->mem_available_mib();

	if (mib < 0) {
		tell(d, OM_CHECK_WARN, "free memory is not known");
	} else if (mib < MEM_FAIL_MIB && needs_vm(d)) {
		tell(d, OM_CHECK_FAIL, "only %lld MiB of memory free: no job fits", (long long)mib);
	} else if (mib < MEM_WARN_MIB) {
		tell(d, OM_CHECK_WARN, "only %lld MiB of memory free", (long long)mib);
	} else {
		tell(d, OM_CHECK_OK, "%lld GiB of memory free, %u cores", (long long)(mib / 1024),
		     d->probes->cores);
	}
}

static void
check_clock(struct doctor *d)
{
	int64_t now = d->probes->wall_s();

	if (now < BUILT_YEAR_SECONDS || now > FAR_FUTURE_SECONDS) {
		tell(d, OM_CHECK_WARN, "the clock is wrong: %lld seconds since 1970",
		     (long long)now);
		hint(d, "set the date; quiet hours, the audit trail and expiry depend on it");
	} else {
		tell(d, OM_CHECK_OK, "clock");
	}
}

static void
check_libvirt(struct doctor *d)
{
	const char *uri = d->s->libvirt_uri[0] != '\0' ? d->s->libvirt_uri : "qemu:///system";
	struct om_why why = { "" };
	char version[32], path[128], program[512];
	bool have_libvirtd, is_private;

	if (!needs_vm(d)) {
		tell(d, OM_CHECK_SKIP, "libvirt: vm.driver is null");
		return;
	}
	if (d->s->libvirt_private != OM_CONF_YES &&
	    d->probes->libvirt(uri, version, sizeof(version), &why) == OM_OK) {
		tell(d, OM_CHECK_OK, "libvirt %s %s", version, uri);
		return;
	}
	have_libvirtd = d->probes->program("libvirtd", path, sizeof(path));
	is_private = d->s->libvirt_private == OM_CONF_YES ||
		     (d->s->libvirt_private == OM_CONF_AUTO && d->s->libvirt_uri[0] == '\0');
	if (have_libvirtd && is_private && !d->probes->private_libvirtd(program, sizeof(program))) {
		tell(d, OM_CHECK_FAIL, "libvirt: " OM_LIBVIRTD_PROGRAM " is not installed");
		hint(d, "make install puts it in place; or start the system's libvirtd");
	} else if (have_libvirtd && is_private) {
		tell(d, OM_CHECK_OK, "libvirt: a private %s is started", path);
	} else if (have_libvirtd) {
		tell(d, OM_CHECK_FAIL, "libvirt: %s: %s", uri, why.text);
		hint(d, "start libvirtd (systemctl start libvirtd), or set libvirt.private = yes");
	} else {
		tell(d, OM_CHECK_FAIL, "libvirt: libvirtd is not installed");
		hint_install(d, "libvirt-daemon-system");
	}
}

static void
check_qemu(struct doctor *d)
{
	char path[128], version[OM_DOCTOR_TEXT];

	if (!needs_vm(d)) {
		tell(d, OM_CHECK_SKIP, "qemu: vm.driver is null");
	} else if (!d->probes->program("qemu-system-x86_64", path, sizeof(path)) &&
		   !d->probes->program("qemu-kvm", path, sizeof(path))) {
		tell(d, OM_CHECK_FAIL, "qemu is not installed");
		hint_install(d, "qemu-system-x86");
	} else if (d->probes->version(path, version, sizeof(version)) != OM_OK) {
		tell(d, OM_CHECK_FAIL, "qemu: %s does not run", path);
		hint_install(d, "qemu-system-x86");
	} else {
		tell(d, OM_CHECK_OK, "%.120s", version);
	}
}

/* It formats the jobs' disks. */
static void
check_mkfs(struct doctor *d)
{
	char path[128];

	if (!needs_vm(d)) {
		tell(d, OM_CHECK_SKIP, "mkfs.ext4: vm.driver is null");
	} else if (!d->probes->program("mkfs.ext4", path, sizeof(path))) {
		tell(d, OM_CHECK_FAIL, "mkfs.ext4 is not installed");
		hint_install(d, "e2fsprogs");
	} else {
		tell(d, OM_CHECK_OK, "%.120s", path);
	}
}

static void
check_image(struct doctor *d)
{
	struct om_why why = { "" };
	char text[OM_DOCTOR_TEXT];

	if (!needs_vm(d)) {
		tell(d, OM_CHECK_SKIP, "guest image: vm.driver is null");
	} else if (d->probes->image(d->config, text, sizeof(text), &why) != OM_OK) {
		tell(d, OM_CHECK_FAIL, "guest image: %.150s", why.text);
		hint(d, "build it with: make image");
	} else {
		tell(d, OM_CHECK_OK, "guest image %.150s", text);
	}
}

static void
check_kvm(struct doctor *d)
{
	char text[OM_DOCTOR_TEXT] = "";
	bool works = false;
	enum om_err err;

	if (!needs_vm(d)) {
		tell(d, OM_CHECK_SKIP, "KVM: vm.driver is null");
		return;
	}
	if (d->s->vm_accelerator == OM_CONF_ACCEL_TCG) {
		tell(d, OM_CHECK_WARN,
		     "KVM: not used (vm.accelerator = tcg); TCG is about 20 "
		     "times slower");
		return;
	}
	err = d->probes->kvm(d->config, &works, text, sizeof(text));
	if (err == OM_ERR_NOT_FOUND) {
		tell(d, OM_CHECK_OK, "KVM: a probe boot at start will tell");
	} else if (works) {
		tell(d, OM_CHECK_OK, "KVM: %.150s", text);
	} else if (d->s->vm_accelerator == OM_CONF_ACCEL_KVM) {
		tell(d, OM_CHECK_FAIL, "KVM: %.120s, and vm.accelerator = kvm", text);
	} else {
		tell(d, OM_CHECK_WARN,
		     "KVM: probe boot failed (%.90s), using TCG, about 20 times slower", text);
	}
}

static void
check_net_admin(struct doctor *d)
{
	if (!needs_net(d)) {
		tell(d, OM_CHECK_SKIP, "CAP_NET_ADMIN: jobs have no network here");
	} else if (!d->probes->has_net_admin()) {
		tell(d, OM_CHECK_FAIL, "CAP_NET_ADMIN is missing: no tunnel can be made");
		hint(d, "run as root, or set network.wireguard = none for jobs without a network");
	} else {
		tell(d, OM_CHECK_OK, "CAP_NET_ADMIN");
	}
}

static void
check_tun(struct doctor *d)
{
	struct om_why why = { "" };

	if (!needs_net(d)) {
		tell(d, OM_CHECK_SKIP, "/dev/net/tun: jobs have no network here");
	} else if (d->probes->writable("/dev/net/tun", false, &why) != OM_OK) {
		tell(d, OM_CHECK_FAIL, "%s", why.text);
		hint(d, "modprobe tun, or let this container have the device");
	} else {
		tell(d, OM_CHECK_OK, "/dev/net/tun");
	}
}

static void
check_nft(struct doctor *d)
{
	char path[128], version[OM_DOCTOR_TEXT];

	if (!needs_net(d)) {
		tell(d, OM_CHECK_SKIP, "nftables: jobs have no network here");
	} else if (!d->probes->program("nft", path, sizeof(path)) ||
		   d->probes->version(path, version, sizeof(version)) != OM_OK) {
		/* The daemon speaks netlink itself; nft is how a person looks at the rules. */
		tell(d, OM_CHECK_WARN, "nftables: the program nft is not installed");
		hint_install(d, "nftables");
	} else {
		tell(d, OM_CHECK_OK, "%.120s", version);
	}
}

enum om_wg_backend
om_doctor_wireguard(const struct om_settings *s)
{
	switch ((enum om_conf_wireguard)s->network_wireguard) {
	case OM_CONF_WG_KERNEL:
		return OM_WG_BACKEND_KERNEL;
	case OM_CONF_WG_USERSPACE:
		return OM_WG_BACKEND_USERSPACE;
	case OM_CONF_WG_AUTO:
	case OM_CONF_WG_NONE:
		break;
	}
	return OM_WG_BACKEND_NONE;
}

static void
check_wireguard(struct doctor *d)
{
	const char *backend;

	if (!needs_net(d)) {
		tell(d, OM_CHECK_SKIP, "WireGuard: jobs have no network here");
		return;
	}
	backend = d->probes->wireguard(om_doctor_wireguard(d->s));
	if (strcmp(backend, "kernel") == 0) {
		tell(d, OM_CHECK_OK, "WireGuard: kernel");
	} else if (strcmp(backend, "userspace") == 0) {
		tell(d, OM_CHECK_OK, "WireGuard: userspace (wireguard-go)%s",
		     d->s->network_wireguard == OM_CONF_WG_AUTO ? "; kernel module not available"
								: "");
	} else if (d->s->network_wireguard == OM_CONF_WG_KERNEL) {
		tell(d, OM_CHECK_FAIL,
		     "WireGuard: the kernel has none (network.wireguard = kernel)");
		hint(d, "load the module wireguard, or set network.wireguard = auto");
	} else {
		tell(d, OM_CHECK_FAIL,
		     d->s->network_wireguard == OM_CONF_WG_USERSPACE
			 ? "WireGuard: wireguard-go is not there (network.wireguard = userspace)"
			 : "WireGuard: neither the kernel's nor wireguard-go is there");
		hint_install(d, "wireguard-go");
	}
}

static const struct {
	const char *name;
	void (*run)(struct doctor *d);
} checks[] = {
	{ "config", check_config },       { "state_dir", check_state_dir },
	{ "run_dir", check_run_dir },     { "keys", check_keys },
	{ "cache_dir", check_cache_dir }, { "memory", check_memory },
	{ "clock", check_clock },         { "libvirt", check_libvirt },
	{ "qemu", check_qemu },           { "mkfs", check_mkfs },
	{ "image", check_image },         { "kvm", check_kvm },
	{ "net_admin", check_net_admin }, { "tun", check_tun },
	{ "nftables", check_nft },        { "wireguard", check_wireguard },
	{ "retention", check_retention },
};
_Static_assert(OM_COUNT(checks) <= OM_DOCTOR_MAX, "results have no room");

size_t
om_doctor_run(const struct om_doctor_probes *probes, const struct om_config *config,
	      struct om_check_result out[OM_DOCTOR_MAX])
{
	struct doctor d = {
		.probes = probes,
		.config = config,
		.s = om_config_settings(config),
	};

	for (size_t i = 0; i < OM_COUNT(checks); i++) {
		d.out = &out[i];
		memset(d.out, 0, sizeof(*d.out));
		d.out->name = checks[i].name;
		checks[i].run(&d);
	}
	return OM_COUNT(checks);
}

/* --- telling --------------------------------------------------------------------------------- */

const char *
om_check_level_text(enum om_check_level level)
{
	static const char *const texts[] = { "ok", "warn", "fail", "skip" };

	return (unsigned)level < OM_COUNT(texts) ? texts[level] : "?";
}

size_t
om_doctor_failures(const struct om_check_result *results, size_t count)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		n += results[i].level == OM_CHECK_FAIL;
	}
	return n;
}

void
om_doctor_print(const struct om_check_result *results, size_t count, bool hints, struct om_buf *out)
{
	for (size_t i = 0; i < count; i++) {
		if (results[i].level == OM_CHECK_SKIP && !hints) {
			continue;
		}
		om_buf_printf(out, "  %-5s %s\n", om_check_level_text(results[i].level),
			      results[i].text);
		if (results[i].hint[0] != '\0' && (hints || results[i].level == OM_CHECK_FAIL)) {
			om_buf_printf(out, "        -> %s\n", results[i].hint);
		}
	}
}

void
om_doctor_print_json(const struct om_check_result *results, size_t count, struct om_buf *out)
{
	om_buf_printf(out, "{\"version\":1,\"ok\":%s,\"checks\":[",
		      om_doctor_failures(results, count) == 0 ? "true" : "false");
	for (size_t i = 0; i < count; i++) {
		om_buf_add_str(out, i == 0 ? "\n{" : ",\n{");
		om_json_member(out, "name", results[i].name, true);
		om_json_member(out, "level", om_check_level_text(results[i].level), false);
		om_json_member(out, "text", results[i].text, false);
		om_json_member(out, "hint", results[i].hint, false);
		om_buf_add_str(out, "}");
	}
	om_buf_add_str(out, "]}\n");
}
