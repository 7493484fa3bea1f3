/* SPDX-License-Identifier: ISC */
/* The checks, with a world made up for each case. */
#include "daemon/doctor.h"
#include "net/wireguard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char debian[] = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";

/* The made-up world; each test changes what it is about. */
static struct {
	bool libvirt, private_libvirtd, programs, runs, image, kvm_tried, kvm, tun, dirs, net_admin;
	const char *wireguard;
	int64_t disk, mem, wall;
	bool in_memory;
} world;

static enum om_err
fake_libvirt(const char *uri, char *version, size_t size, struct om_why *why)
{
	(void)uri;
	if (!world.libvirt) {
		return om_why_set(why, OM_ERR_MISSING, "no socket");
	}
	snprintf(version, size, "9.0.0");
	return OM_OK;
}

static bool
fake_program(const char *name, char *path, size_t size)
{
	snprintf(path, size, "/usr/sbin/%s", name);
	return world.programs;
}

static bool
fake_private_libvirtd(char *path, size_t size)
{
	snprintf(path, size, "/usr/libexec/omerta/private-libvirtd");
	return world.private_libvirtd;
}

static enum om_err
fake_version(const char *path, char *out, size_t size)
{
	snprintf(out, size, "%s v1.0.6", path);
	return world.runs ? OM_OK : OM_ERR_MISSING;
}

static enum om_err
fake_kvm(const struct om_config *config, bool *works, char *text, size_t size)
{
	(void)config;
	*works = world.kvm;
	snprintf(text, size, world.kvm ? "works, hello in 0.3 s" : "guest silent for 5 s");
	return world.kvm_tried ? OM_OK : OM_ERR_NOT_FOUND;
}

static enum om_err
fake_image(const struct om_config *config, char *text, size_t size, struct om_why *why)
{
	(void)config;
	if (!world.image) {
		return om_why_set(why, OM_ERR_MISSING, "there is no image");
	}
	snprintf(text, size, "6.1 26 MB");
	return OM_OK;
}

static const char *
fake_wireguard(enum om_wg_backend want)
{
	bool has_kernel =
	    strcmp(world.wireguard, "none") != 0 && strcmp(world.wireguard, "userspace") != 0;
	bool has_program =
	    strcmp(world.wireguard, "both") == 0 || strcmp(world.wireguard, "userspace") == 0;
	enum om_wg_backend backend;

	(void)!om_wg_choose(want, has_kernel, has_program, &backend, NULL);
	return om_wg_backend_name(backend);
}

static enum om_err
fake_writable(const char *path, bool make, struct om_why *why)
{
	return (make ? world.dirs : world.tun)
		   ? OM_OK
		   : om_why_set(why, OM_ERR_DENIED, "%s cannot be opened", path);
}

static int64_t
fake_disk(const char *path)
{
	(void)path;
	return world.disk;
}

static bool
fake_in_memory(const char *path)
{
	(void)path;
	return world.in_memory;
}

static int64_t
fake_mem(void)
{
	return world.mem;
}

static bool
fake_net_admin(void)
{
	return world.net_admin;
}

static int64_t
fake_wall(void)
{
	return world.wall;
}

static struct om_doctor_probes probes = {
	.libvirt = fake_libvirt,
	.program = fake_program,
	.private_libvirtd = fake_private_libvirtd,
	.version = fake_version,
	.kvm = fake_kvm,
	.image = fake_image,
	.wireguard = fake_wireguard,
	.writable = fake_writable,
	.disk_free_mib = fake_disk,
	.in_memory = fake_in_memory,
	.mem_available_mib = fake_mem,
	.has_net_admin = fake_net_admin,
	.wall_s = fake_wall,
	.os_release = debian,
	.cores = 2,
};

static struct om_check_result results[OM_DOCTOR_MAX];
static size_t count;

static int
good_world(void **state)
{
	(void)state;
	memset(&world, 1, sizeof(world)); /* all true */
	world.wireguard = "kernel";
	world.disk = 100000;
	world.mem = 8000;
	world.wall = INT64_C(1795448000);
	return 0;
}

static void
diagnose(const char *key, const char *value)
{
	struct om_conf_flag flag = { key, value, "test" };
	struct om_conf_sources sources = { .flags = &flag, .flag_count = key != NULL };
	struct om_config *config = NULL;

	assert_int_equal(om_config_load(&sources, &config, NULL), OM_OK);
	count = om_doctor_run(&probes, config, results);
	om_config_free(config);
}

static const struct om_check_result *
result_of(const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(results[i].name, name) == 0) {
			return &results[i];
		}
	}
	fail_msg("no check %s", name);
	return NULL;
}

static void
expect(const char *name, enum om_check_level level, const char *text, const char *hint)
{
	const struct om_check_result *r = result_of(name);

	assert_string_equal(om_check_level_text(r->level), om_check_level_text(level));
	if (strstr(r->text, text) == NULL || strstr(r->hint, hint) == NULL) {
		fail_msg("%s: '%s' (hint '%s')", name, r->text, r->hint);
	}
}

static void
test_all_is_well(void **state)
{
	(void)state;
	diagnose(NULL, NULL);
	assert_int_equal(om_doctor_failures(results, count), 0);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(results[i].level, OM_CHECK_OK);
		assert_string_equal(results[i].hint, "");
	}
	expect("libvirt", OM_CHECK_OK, "libvirt 9.0.0 qemu:///system", "");
}

static void
test_nothing_is_there(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	world.wireguard = "none";
	world.disk = 3;
	world.mem = 10;
	diagnose(NULL, NULL);
	expect("state_dir", OM_CHECK_FAIL, "/var/lib/omertad cannot be opened", "root");
	expect("libvirt", OM_CHECK_FAIL, "not installed", "apt-get install libvirt-daemon-system");
	expect("qemu", OM_CHECK_FAIL, "not installed", "apt-get install qemu-system-x86");
	expect("image", OM_CHECK_FAIL, "there is no image", "make image");
	expect("net_admin", OM_CHECK_FAIL, "CAP_NET_ADMIN", "root");
	expect("tun", OM_CHECK_FAIL, "/dev/net/tun", "modprobe tun");
	expect("nftables", OM_CHECK_WARN, "nft", "apt-get install nftables");
	expect("wireguard", OM_CHECK_FAIL, "wireguard-go", "apt-get install wireguard-go");
	expect("memory", OM_CHECK_FAIL, "10 MiB", "");
	expect("clock", OM_CHECK_WARN, "wrong", "date");
	expect("kvm", OM_CHECK_OK, "at start", "");
	assert_true(om_doctor_failures(results, count) >= 8);
}

static void
test_kvm(void **state)
{
	(void)state;
	world.kvm = false;
	diagnose(NULL, NULL);
	expect("kvm", OM_CHECK_WARN, "(guest silent for 5 s), using TCG", "");
	diagnose("vm.accelerator", "kvm");
	expect("kvm", OM_CHECK_FAIL, "guest silent", "");
	diagnose("vm.accelerator", "tcg");
	expect("kvm", OM_CHECK_WARN, "not used", "");
}

/* Each job failed at its start, and the doctor was content. */
static void
test_mkfs(void **state)
{
	(void)state;
	diagnose(NULL, NULL);
	expect("mkfs", OM_CHECK_OK, "/mkfs.ext4", "");
	world.programs = false;
	diagnose(NULL, NULL);
	expect("mkfs", OM_CHECK_FAIL, "mkfs.ext4 is not installed", "apt-get install e2fsprogs");
}

static void
test_private_libvirtd(void **state)
{
	(void)state;
	world.libvirt = false;
	diagnose(NULL, NULL);
	expect("libvirt", OM_CHECK_OK, "a private /usr/sbin/libvirtd is started", "");
	diagnose("libvirt.private", "no");
	expect("libvirt", OM_CHECK_FAIL, "no socket", "systemctl start libvirtd");
	/* A connection that was asked for by name is never replaced by another. */
	diagnose("libvirt.uri", "qemu+ssh://elsewhere/system");
	expect("libvirt", OM_CHECK_FAIL, "elsewhere", "");
	world.libvirt = true;
	diagnose("libvirt.private", "yes");
	expect("libvirt", OM_CHECK_OK, "private", "");
	world.private_libvirtd = false; /* it said that one is started, and the start failed */
	diagnose("libvirt.private", "yes");
	expect("libvirt", OM_CHECK_FAIL, "private-libvirtd is not installed", "make install");
}

static void
test_without_network_or_vm(void **state)
{
	(void)state;
	world.wireguard = "none";
	world.tun = false;
	world.net_admin = false;
	diagnose("network.wireguard", "none");
	assert_int_equal(om_doctor_failures(results, count), 0);
	expect("wireguard", OM_CHECK_SKIP, "", "");
	world.libvirt = world.image = world.programs = false;
	diagnose("vm.driver", "null");
	assert_int_equal(om_doctor_failures(results, count), 0);
	expect("image", OM_CHECK_SKIP, "", "");
}

static void
test_wireguard_backends(void **state)
{
	(void)state;
	world.wireguard = "userspace";
	diagnose(NULL, NULL);
	expect("wireguard", OM_CHECK_OK, "userspace", "");
	diagnose("network.wireguard", "kernel");
	expect("wireguard", OM_CHECK_FAIL, "the kernel has none", "module wireguard");
	world.wireguard = "both";
	diagnose(NULL, NULL);
	expect("wireguard", OM_CHECK_OK, "kernel", "");
	diagnose("network.wireguard", "userspace");
	expect("wireguard", OM_CHECK_OK, "userspace", "");
	world.wireguard = "kernel";
	diagnose("network.wireguard", "userspace");
	expect("wireguard", OM_CHECK_FAIL, "wireguard-go is not there", "apt-get install");
}

static void
test_retention(void **state)
{
	(void)state;
	diagnose(NULL, NULL);
	expect("retention", OM_CHECK_OK, "below 16384 MiB", "");
	diagnose("store.keep_size", "0");
	expect("retention", OM_CHECK_WARN, "no bound", "store.keep_size");
}

static void
test_where_the_keys_key_is(void **state)
{
	(void)state;
	diagnose(NULL, NULL);
	expect("keys", OM_CHECK_OK, "in memory", "");
	world.in_memory = false;
	diagnose(NULL, NULL);
	expect("keys", OM_CHECK_WARN, "on a disk", "tmpfs");
}

static void
test_room(void **state)
{
	(void)state;
	world.disk = 500;
	world.mem = 600;
	diagnose(NULL, NULL);
	expect("state_dir", OM_CHECK_WARN, "only 500 MiB free", "make room");
	expect("memory", OM_CHECK_WARN, "only 600 MiB", "");
	world.disk = -1;
	world.mem = -1;
	diagnose(NULL, NULL);
	expect("cache_dir", OM_CHECK_WARN, "not known", "");
	expect("memory", OM_CHECK_WARN, "not known", "");
}

static void
test_hints_by_distribution(void **state)
{
	static const struct {
		const char *os_release, *want;
	} cases[] = {
		{ debian, "apt-get install libvirt-daemon-system" },
		{ "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
		  "apt-get install libvirt-daemon-system" },
		{ "NAME=Fedora\nID=fedora\n", "dnf install libvirt-daemon" },
		{ "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "dnf install libvirt-daemon" },
		{ "ID=arch\n", "pacman -S libvirt" },
		{ "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n",
		  "zypper install libvirt-daemon" },
		{ "ID=plan9\n", "install libvirt-daemon-system (its Debian name)" },
		{ "garbage", "install libvirt-daemon-system (its Debian name)" },
		{ NULL, "install libvirt-daemon-system (its Debian name)" },
	};
	char out[128];

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		assert_string_equal(om_doctor_install(cases[i].os_release, "libvirt-daemon-system",
						      out, sizeof(out)),
				    cases[i].want);
	}
	assert_string_equal(om_doctor_install(debian, "nftables", out, sizeof(out)),
			    "apt-get install nftables");
}

static void
test_printed(void **state)
{
	struct om_buf out = { 0 };

	(void)state;
	world.tun = false;
	diagnose(NULL, NULL);
	om_doctor_print(results, count, false, &out);
	assert_non_null(strstr(om_buf_cstr(&out), "  fail  /dev/net/tun cannot be opened\n"
						  "        -> modprobe tun"));
	om_buf_reset(&out);
	om_doctor_print_json(results, count, &out);
	assert_non_null(strstr(om_buf_cstr(&out), "{\"version\":1,\"ok\":false,"));
	assert_non_null(strstr(om_buf_cstr(&out), "{\"name\":\"tun\",\"level\":\"fail\","));
	om_buf_fini(&out);
}

#define TEST(fn) cmocka_unit_test_setup(fn, good_world)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_all_is_well),
		TEST(test_nothing_is_there),
		TEST(test_kvm),
		TEST(test_mkfs),
		TEST(test_private_libvirtd),
		TEST(test_without_network_or_vm),
		TEST(test_wireguard_backends),
		TEST(test_retention),
		TEST(test_where_the_keys_key_is),
		TEST(test_room),
		TEST(test_hints_by_distribution),
		TEST(test_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
