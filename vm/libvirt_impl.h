/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_LIBVIRT_IMPL_H
#define OM_VM_LIBVIRT_IMPL_H

/* Shared by the vm/libvirt_*.c files; nobody else includes it. */
#include "base/buf.h"
#include "vm/driver.h"

/* What the XML needs beside the spec. */
struct libvirt_host {
	/*
	 * DAC label of the hypervisor's user, "+64055:+110".  Given as a static label without
	 * relabelling: libvirt then chowns nothing, so that a qemu that a guest has taken over does
	 * not own the kernel and the root of the next one.  "": libvirt's default.
	 */
	char label[64];
};

/*
 * Any thread.  Appends the domain's XML.  Text from outside is escaped; OM_ERR_INVALID when it
 * holds what XML cannot (control bytes).
 */
enum om_err libvirt_xml_build(struct om_buf *xml, const struct om_vm_spec *spec,
			      const struct libvirt_host *host, struct om_why *why) OM_MUST_CHECK;

/* Any thread.  The content of the first element `name` after `from` in XML text of libvirt's own. */
bool libvirt_xml_find(const char *xml, const char *from, const char *name, char *out, size_t size);

/*
 * Any thread.  The last line of a text, without what is not printed at its end.  Of one that is too
 * long the end is kept, after "...".  size: at least 8 bytes.
 */
void libvirt_last_line(const char *text, char *out, size_t size);

/*
 * Any thread; blocks.  The process-wide event loop thread.  It is registered before any connection,
 * as libvirt asks.  One driver at a time (OM_ERR_STATE): so stop() can promise that no callback
 * runs after it.
 */
enum om_err libvirt_loop_start(struct om_why *why) OM_MUST_CHECK;
void libvirt_loop_stop(void);

/*
 * Any thread; blocks.  qemu's process by libvirtd's pid file, checked against its command line;
 * a pidfd keeps it ours.  run_dir is libvirtd's, e.g. /run/libvirt.
 */
enum om_err libvirt_find_process(const char *run_dir, const char *name, struct om_vm_handle *out,
				 struct om_why *why) OM_MUST_CHECK;

/* Any thread; blocks.  An ext4 of the size, allocated in full, owned by uid:gid (as in a DAC label; "": root). */
enum om_err libvirt_make_scratch(const struct om_vm_spec *spec, const char *label,
				 struct om_why *why) OM_MUST_CHECK;

#endif /* OM_VM_LIBVIRT_IMPL_H */
