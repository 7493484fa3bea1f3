/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "vm/driver_mem.h"
#include "vm/libvirt_impl.h"

static struct om_vm_spec
plain_spec(void)
{
	return (struct om_vm_spec){
		.name = "omerta-abc123",
		.cores = 2,
		.mem_mib = 512,
		.kernel = "/img/vmlinux",
		.initrd = "/img/initramfs",
		.root = "/img/root.sqfs",
		.scratch_path = "/run/omerta/abc.img",
		.scratch_mib = 64,
		.channel_path = "/run/omerta/abc.sock",
	};
}

/* --- spec ------------------------------------------------------------------------------------------ */

static void
test_spec_limits(void **state)
{
	struct om_vm_nic nic = { "tap0", "52:54:00:01:02:03", 1420 };
	struct om_vm_spec s = plain_spec();
	char long_path[OM_VM_SOCKET_MAX + 1];
	struct om_why why;

	(void)state;
	assert_int_equal(om_vm_spec_check(&s, &why), OM_OK);
	s.nic = &nic;
	assert_int_equal(om_vm_spec_check(&s, &why), OM_OK);
	nic.tap = "a-name-of-16-bytes";
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	nic.tap = "tap0";
	nic.mac = "52:54:00:01:02:0g";
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	s = plain_spec();
	s.name = "other-abc";
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	s.name = "omerta-../x";
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	s = plain_spec();
	s.cores = 0;
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	s = plain_spec();
	s.mem_mib = OM_VM_MEM_MIN_MIB - 1;
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	s = plain_spec();
	s.scratch_mib = UINT64_MAX;
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	s = plain_spec();
	memset(long_path, 'a', sizeof(long_path));
	long_path[0] = '/';
	long_path[sizeof(long_path) - 1] = '\0';
	s.channel_path = long_path;
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
	s = plain_spec();
	s.root = "relative";
	assert_int_equal(om_vm_spec_check(&s, &why), OM_ERR_INVALID);
}

/* --- XML ------------------------------------------------------------------------------------------- */

static const char golden[] =
    "<domain type='qemu'>\n"
    "  <name>omerta-abc123</name>\n"
    "  <memory unit='MiB'>512</memory>\n"
    "  <vcpu>2</vcpu>\n"
    "  <cpu mode='maximum'><feature policy='disable' name='erms'/>"
    "<feature policy='disable' name='la57'/></cpu>\n"
    "  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>/img/vmlinux</kernel>"
    "<initrd>/img/initramfs</initrd><cmdline>quiet loglevel=1 panic=-1 reboot=t tsc=reliable "
    "no_timer_check mitigations=off ipv6.disable=1 audit=0 nokaslr cryptomgr.notests "
    "random.trust_cpu=on</cmdline></os>\n"
    "  <features><acpi/><tcg><tb-cache unit='MiB'>128</tb-cache></tcg></features>\n"
    "  <clock offset='utc'/>\n"
    "  <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot>"
    "<on_crash>destroy</on_crash>\n"
    "  <devices>\n"
    "    <controller type='usb' model='none'/>\n"
    "    <controller type='virtio-serial'></controller>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='raw'/>"
    "<source file='/img/root.sqfs'/><target dev='vda' bus='virtio'/><readonly/></disk>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe' "
    "discard='unmap'/><source file='/run/omerta/abc.img'/><target dev='vdb' bus='virtio'/></disk>\n"
    "    <interface type='ethernet'><mac address='52:54:00:01:02:03'/>"
    "<target dev='tap0' managed='no'/><model type='virtio'/><mtu size='1420'/>"
    "<rom enabled='no'/></interface>\n"
    "    <channel type='unix'><source mode='bind' path='/run/omerta/abc.sock'/>"
    "<target type='virtio' name='org.omerta.agent'/></channel>\n"
    "    <memballoon model='none'/>\n"
    "  </devices>\n"
    "  <seclabel type='static' model='dac' relabel='no'><label>+64055:+110</label></seclabel>\n"
    "</domain>\n";

static void
test_xml_golden(void **state)
{
	const struct om_vm_nic nic = { "tap0", "52:54:00:01:02:03", 1420 };
	const struct libvirt_host host = { .label = "+64055:+110" };
	struct om_vm_spec s = plain_spec();
	struct om_buf xml = { 0 };

	(void)state;
	s.nic = &nic;
	assert_int_equal(libvirt_xml_build(&xml, &s, &host, NULL), OM_OK);
	assert_string_equal(om_buf_cstr(&xml), golden);
	om_buf_fini(&xml);
}

static void
test_xml_variants(void **state)
{
	const struct libvirt_host host = { .label = "" };
	struct om_vm_spec s = plain_spec();
	struct om_buf xml = { 0 };
	const char *text;

	(void)state;
	s.use_kvm = true;
	s.machine = OM_VM_MACHINE_MICROVM;
	assert_int_equal(libvirt_xml_build(&xml, &s, &host, NULL), OM_OK);
	text = om_buf_cstr(&xml);
	assert_non_null(strstr(text, "<domain type='kvm'>"));
	assert_non_null(strstr(text, "host-passthrough"));
	assert_non_null(strstr(text, "machine='microvm'"));
	assert_non_null(strstr(text, "<readonly/><address type='virtio-mmio'/>"));
	assert_null(strstr(text, "<tcg>"));
	assert_null(strstr(text, "<interface"));
	assert_null(strstr(text, "<seclabel"));
	om_buf_fini(&xml);
}

/* A path is text: it cannot close an attribute or add an element. */
static void
test_xml_escaping(void **state)
{
	const struct libvirt_host host = { .label = "" };
	struct om_vm_spec s = plain_spec();
	struct om_buf xml = { 0 };
	const char *text;

	(void)state;
	s.root = "/a'/><disk>&\"x";
	assert_int_equal(libvirt_xml_build(&xml, &s, &host, NULL), OM_OK);
	text = om_buf_cstr(&xml);
	assert_non_null(strstr(text, "file='/a&apos;/&gt;&lt;disk&gt;&amp;&quot;x'"));
	om_buf_reset(&xml);
	s.root = "/a\nb";
	assert_int_equal(libvirt_xml_build(&xml, &s, &host, NULL), OM_ERR_INVALID);
	om_buf_fini(&xml);
}

static void
test_xml_find(void **state)
{
	static const char caps[] = "<x><secmodel><model>none</model></secmodel><secmodel>"
				   "<model>dac</model><doi>0</doi>"
				   "<baselabel type='kvm'>+64055:+110</baselabel></secmodel></x>";
	char out[16], tiny[4];

	(void)state;
	assert_true(libvirt_xml_find(caps, "<model>dac</model>", "baselabel", out, sizeof(out)));
	assert_string_equal(out, "+64055:+110");
	assert_false(libvirt_xml_find(caps, "<model>dac</model>", "baselabel", tiny, sizeof(tiny)));
	assert_false(libvirt_xml_find(caps, "<model>apparmor", "baselabel", out, sizeof(out)));
	assert_false(libvirt_xml_find("<a", "<a", "b", out, sizeof(out)));
}

/* --- the scripted driver --------------------------------------------------------------------------- */

struct seen {
	unsigned count;
	enum om_vm_event_kind kind;
	char name[OM_VM_NAME_MAX + 1];
	char reason[OM_VM_REASON_MAX];
};

static void
on_event(void *arg, const struct om_vm_event *ev)
{
	struct seen *seen = arg;

	seen->count++;
	seen->kind = ev->kind;
	strncpy(seen->name, ev->name, sizeof(seen->name) - 1);
	strncpy(seen->reason, ev->reason, sizeof(seen->reason) - 1);
}

static void
test_mem_life(void **state)
{
	struct seen seen = { 0 };
	const struct om_vm_config config = { .on_event = on_event, .arg = &seen };
	const struct om_vm_driver_ops *ops = &om_vm_mem_ops;
	struct om_vm_spec s = plain_spec();
	struct om_vm_handle vm;
	struct om_vm_stats stats = { 5, 6 };
	size_t count = 0;
	char **names = NULL;
	void *m = NULL;

	(void)state;
	s.start_paused = true;
	assert_int_equal(ops->open(&config, &m, NULL), OM_OK);
	assert_int_equal(ops->create(m, &s, &vm, NULL), OM_OK);
	assert_int_equal(ops->create(m, &s, &vm, NULL), OM_ERR_EXISTS);
	assert_false(om_vm_mem_is_running(m, s.name));
	assert_int_equal(ops->resume(m, s.name, NULL), OM_OK);
	assert_true(om_vm_mem_is_running(m, s.name));
	assert_int_equal(ops->suspend(m, s.name, NULL), OM_OK);
	om_vm_mem_set_stats(m, s.name, &stats);
	memset(&stats, 0, sizeof(stats));
	assert_int_equal(ops->stats(m, s.name, &stats, NULL), OM_OK);
	assert_int_equal(stats.cpu_ns, 5);
	assert_int_equal(om_vm_mem_add_orphan(m, "omerta-old"), OM_OK);
	assert_int_equal(ops->list(m, &names, &count, NULL), OM_OK);
	assert_int_equal(count, 2);
	om_vm_names_free(names, count);
	assert_int_equal(ops->destroy(m, "omerta-old", NULL), OM_OK);
	assert_int_equal(seen.count, 1);
	assert_string_equal(seen.name, "omerta-old");
	assert_int_equal(ops->destroy(m, "omerta-old", NULL), OM_OK);
	assert_int_equal(seen.count, 1);
	assert_int_equal(om_vm_mem_end(m, s.name, OM_VM_EVENT_CRASHED, "crashed"), OM_OK);
	assert_int_equal(seen.kind, OM_VM_EVENT_CRASHED);
	assert_int_equal(ops->resume(m, s.name, NULL), OM_ERR_NOT_FOUND);
	assert_int_equal(om_vm_mem_count(m), 0);
	ops->close(m);
	ops->close(NULL);
}

static void
test_mem_script(void **state)
{
	const struct om_vm_config config = { 0 };
	const struct om_vm_driver_ops *ops = &om_vm_mem_ops;
	struct om_vm_spec s = plain_spec();
	struct om_vm_handle vm;
	struct om_why why;
	void *m = NULL;

	(void)state;
	assert_int_equal(ops->open(&config, &m, NULL), OM_OK);
	om_vm_mem_fail(m, OM_VM_MEM_CREATE, OM_ERR_VM, 1, 1);
	assert_int_equal(ops->create(m, &s, &vm, &why), OM_OK);
	assert_int_equal(ops->kill(m, &vm), OM_OK);
	assert_int_equal(ops->kill(m, &vm), OM_ERR_NOT_FOUND);
	assert_int_equal(ops->create(m, &s, &vm, &why), OM_ERR_VM);
	assert_string_equal(why.text, "scripted failure");
	assert_int_equal(ops->create(m, &s, &vm, &why), OM_OK);
	assert_int_equal(om_vm_mem_calls(m, OM_VM_MEM_CREATE), 3);
	om_vm_handle_fini(&vm);
	ops->close(m);
}

/* --- scratch ---------------------------------------------------------------------------------------- */

/* A sparse file let the guests together fill the host's file system. */
static void
test_scratch_is_paid_for_at_once(void **state)
{
	char dir[] = "/tmp/omerta-scratch.XXXXXX", path[64];
	struct om_vm_spec spec = plain_spec();
	struct statvfs fs;
	struct om_why why;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s.img", dir);
	spec.scratch_path = path;
	assert_int_equal(libvirt_make_scratch(&spec, "", &why), OM_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, INT64_C(64) << 20);
	assert_true(st.st_blocks * 512 >= st.st_size);
	assert_int_equal(unlink(path), 0);

	/* All that is free: the host and the ledger would have nothing left. */
	assert_int_equal(statvfs(dir, &fs), 0);
	spec.scratch_mib = fs.f_bavail * fs.f_frsize >> 20;
	assert_int_equal(libvirt_make_scratch(&spec, "", &why), OM_ERR_DISK);
	assert_non_null(strstr(why.text, "MiB"));
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rmdir(dir), 0);
}

/* What a person reads is one line, and the cause: libvirt quotes qemu's output with it. */
static void
test_error_is_its_last_line(void **state)
{
	char out[16];

	(void)state;
	libvirt_last_line("internal error: qemu said:\nwarning\r\nno memory\n \t\n", out,
			  sizeof(out));
	assert_string_equal(out, "no memory");
	libvirt_last_line("one line", out, sizeof(out));
	assert_string_equal(out, "one line");
	libvirt_last_line("first\nabcdefghijklmnopqrstuvwxyz", out, sizeof(out));
	assert_string_equal(out, "...opqrstuvwxyz");
	libvirt_last_line("a\n123456789012345", out, sizeof(out));
	assert_string_equal(out, "123456789012345");
	libvirt_last_line("\n\n", out, sizeof(out));
	assert_string_equal(out, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spec_limits),
		cmocka_unit_test(test_xml_golden),
		cmocka_unit_test(test_xml_variants),
		cmocka_unit_test(test_xml_escaping),
		cmocka_unit_test(test_xml_find),
		cmocka_unit_test(test_error_is_its_last_line),
		cmocka_unit_test(test_mem_life),
		cmocka_unit_test(test_mem_script),
		cmocka_unit_test(test_scratch_is_paid_for_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
