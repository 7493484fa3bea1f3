/* SPDX-License-Identifier: ISC */
/*
 * The domain as libvirt wants it: https://libvirt.org/formatdomain.html
 *
 * Machine type.  q35.  microvm (no PCI bus, no firmware) starts up to 0.3 s earlier on an idle
 * machine, but under TCG on a busy one 12 of 24 of its boots hung for ever, and 0 of 22 of q35's.  The
 * cause is inferred from a disassembly only: calibrate_delay, waiting for a tick of the PIT.
 * libvirt accepts it when every virtio device says that it sits on virtio-mmio.
 *
 * Not here on purpose: a console (nothing that a job prints may be taken for a status), USB,
 * graphics, a balloon, <memtune> (it makes libvirt raise RLIMIT_MEMLOCK, which needs a capability
 * that containers lack: the limit is set after the start, where permitted).
 */
#include "vm/libvirt_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vm/guest_proto.h"

/*
 * Kernel command line.  panic=-1 with on_reboot=destroy: the VM ends when the agent does.
 * tsc=reliable, no_timer_check: no calibration loops on an emulated CPU.  ipv6.disable: the tunnel is IPv4 and the kernel
 * would send router solicitations by itself.  mitigations=off: the guest has one tenant; the host's
 * own mitigations protect the host.
 */
#define XML_CMDLINE                                                                       \
	"quiet loglevel=1 panic=-1 reboot=t tsc=reliable no_timer_check mitigations=off " \
	"ipv6.disable=1 audit=0 nokaslr cryptomgr.notests random.trust_cpu=on"

#define XML_TB_CACHE_MIB 128

struct xml {
	struct om_buf *buf;
	bool is_microvm;
	bool bad;
};

/* Appends text of others. */
static void
xml_text(struct xml *x, const char *text)
{
	for (const char *c = text; *c != '\0'; c++) {
		switch (*c) {
		case '&':
			om_buf_add_str(x->buf, "&amp;");
			break;
		case '<':
			om_buf_add_str(x->buf, "&lt;");
			break;
		case '>':
			om_buf_add_str(x->buf, "&gt;");
			break;
		case '\'':
			om_buf_add_str(x->buf, "&apos;");
			break;
		case '"':
			om_buf_add_str(x->buf, "&quot;");
			break;
		default:
			/* XML 1.0 has no way to write a control byte, escaped or not. */
			x->bad = x->bad || (unsigned char)*c < 0x20 || *c == 0x7f;
			om_buf_add(x->buf, c, 1);
		}
	}
}

static void
xml_add(struct xml *x, const char *before, const char *text, const char *after)
{
	om_buf_add_str(x->buf, before);
	xml_text(x, text);
	om_buf_add_str(x->buf, after);
}

/* Devices of a microvm sit on virtio-mmio; elsewhere libvirt chooses PCI addresses. */
static void
xml_address(struct xml *x)
{
	if (x->is_microvm) {
		om_buf_add_str(x->buf, "<address type='virtio-mmio'/>");
	}
}

static void
xml_disk(struct xml *x, const char *path, const char *target, bool is_root)
{
	/*
	 * The scratch dies with the VM, so the host never has to flush it (cache='unsafe'); blocks
	 * that the guest frees go back to the host (discard).
	 */
	om_buf_add_str(x->buf,
		       "    <disk type='file' device='disk'><driver name='qemu' type='raw'");
	om_buf_add_str(x->buf, is_root ? "/>" : " cache='unsafe' discard='unmap'/>");
	xml_add(x, "<source file='", path, "'/>");
	om_buf_printf(x->buf, "<target dev='%s' bus='virtio'/>", target);
	om_buf_add_str(x->buf, is_root ? "<readonly/>" : "");
	xml_address(x);
	om_buf_add_str(x->buf, "</disk>\n");
}

static void
xml_nic(struct xml *x, const struct om_vm_nic *nic)
{
	xml_add(x, "    <interface type='ethernet'><mac address='", nic->mac, "'/>");
	xml_add(x, "<target dev='", nic->tap, "' managed='no'/><model type='virtio'/>");
	if (nic->mtu != 0) {
		om_buf_printf(x->buf, "<mtu size='%u'/>", nic->mtu);
	}
	/* No option ROM: nobody boots from the network. */
	om_buf_add_str(x->buf, x->is_microvm ? "" : "<rom enabled='no'/>");
	xml_address(x);
	om_buf_add_str(x->buf, "</interface>\n");
}

static void
xml_devices(struct xml *x, const struct om_vm_spec *spec)
{
	om_buf_add_str(x->buf, "  <devices>\n");
	om_buf_add_str(x->buf, "    <controller type='usb' model='none'/>\n");
	om_buf_add_str(x->buf, "    <controller type='virtio-serial'>");
	xml_address(x);
	om_buf_add_str(x->buf, "</controller>\n");
	xml_disk(x, spec->root, "vda", true);
	xml_disk(x, spec->scratch_path, "vdb", false);
	if (spec->nic != NULL) {
		xml_nic(x, spec->nic);
	}
	xml_add(x, "    <channel type='unix'><source mode='bind' path='", spec->channel_path,
		"'/>");
	om_buf_printf(x->buf, "<target type='virtio' name='%s'/></channel>\n", OM_GUEST_PORT);
	om_buf_add_str(x->buf, "    <memballoon model='none'/>\n");
	om_buf_add_str(x->buf, "  </devices>\n");
}

static void
xml_cpu(struct xml *x, const struct om_vm_spec *spec)
{
	om_buf_printf(x->buf, "  <vcpu>%u</vcpu>\n", spec->cores);
	if (spec->use_kvm) {
		om_buf_add_str(x->buf, "  <cpu mode='host-passthrough'/>\n");
		return;
	}
	/*
	 * TCG: everything that qemu can emulate, above all RDRAND, without which python waits 1 s.  But
	 * not ERMS, which tells the guest that `rep movsb` is the fast way to copy: an emulator does it
	 * byte by byte.  Nor LA57: page tables of five levels are a longer walk for each TLB miss.
	 */
	om_buf_add_str(x->buf, "  <cpu mode='maximum'><feature policy='disable' name='erms'/>"
			       "<feature policy='disable' name='la57'/></cpu>\n");
}

enum om_err
libvirt_xml_build(struct om_buf *buf, const struct om_vm_spec *spec,
		  const struct libvirt_host *host, struct om_why *why)
{
	struct xml x = { .buf = buf };

	x.is_microvm = spec->machine == OM_VM_MACHINE_MICROVM;
	om_buf_printf(buf, "<domain type='%s'>\n", spec->use_kvm ? "kvm" : "qemu");
	xml_add(&x, "  <name>", spec->name, "</name>\n");
	om_buf_printf(buf, "  <memory unit='MiB'>%" PRIu64 "</memory>\n", spec->mem_mib);
	xml_cpu(&x, spec);
	om_buf_printf(buf, "  <os><type arch='x86_64' machine='%s'>hvm</type>",
		      x.is_microvm ? "microvm" : "q35");
	xml_add(&x, "<kernel>", spec->kernel, "</kernel>");
	xml_add(&x, "<initrd>", spec->initrd, "</initrd>");
	om_buf_add_str(buf, "<cmdline>" XML_CMDLINE "</cmdline></os>\n");
	om_buf_add_str(buf, "  <features><acpi/>");
	if (!spec->use_kvm) {
		/* Translated code is held to a known size: qemu's default is 1 GiB. */
		om_buf_printf(buf, "<tcg><tb-cache unit='MiB'>%d</tb-cache></tcg>",
			      XML_TB_CACHE_MIB);
	}
	om_buf_add_str(buf, "</features>\n"
			    "  <clock offset='utc'/>\n"
			    "  <on_poweroff>destroy</on_poweroff>"
			    "<on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>\n");
	xml_devices(&x, spec);
	if (host->label[0] != '\0') {
		xml_add(&x, "  <seclabel type='static' model='dac' relabel='no'><label>",
			host->label, "</label></seclabel>\n");
	}
	om_buf_add_str(buf, "</domain>\n");
	if (x.bad) {
		return om_why_set(why, OM_ERR_INVALID, "a path or name holds a control byte");
	}
	return buf->failed ? om_why_set(why, OM_ERR_NOMEM, "out of memory") : OM_OK;
}

bool
libvirt_xml_find(const char *xml, const char *from, const char *name, char *out, size_t size)
{
	const char *at = strstr(xml, from), *end;
	char tag[64];

	snprintf(tag, sizeof(tag), "<%s", name);
	at = at != NULL ? strstr(at, tag) : NULL;
	at = at != NULL ? strchr(at, '>') : NULL;
	end = at != NULL ? strchr(at, '<') : NULL;
	if (end == NULL || (size_t)(end - at) > size) {
		return false;
	}
	memcpy(out, at + 1, (size_t)(end - at) - 1);
	out[end - at - 1] = '\0';
	return true;
}
