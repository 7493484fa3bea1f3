/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_KVM_PROBE_H
#define OM_VM_KVM_PROBE_H

/*
 * Does KVM work here?  An openable /dev/kvm proves nothing (a nested or paravirtual host opens it
 * and then fails in the first instructions), so the probe boots the real image and waits for the
 * agent's hello.  The answer is remembered per host kernel, qemu (its file's time and size)
 * and image.
 */
#include <stdbool.h>
#include "vm/driver.h"
#include "vm/image.h"

#define OM_VM_KVM_DEADLINE_MS 5000

struct om_vm_kvm_answer {
	bool works;
	bool remembered; /* read from the cache file */
	char text[OM_VM_REASON_MAX]; /* why not, or how long it took: for doctor */
};

/*
 * Any thread; blocks up to OM_VM_KVM_DEADLINE_MS and the destroy.  work_dir is for the socket and the
 * scratch disk (made if missing, 0711), cache_file for the answer.  An error is one of the probe's
 * own (no memory, no driver); "it does not work" is OM_OK with works = false.
 */
enum om_err om_vm_kvm_probe(struct om_vm_driver *driver, const struct om_vm_image *image,
			    const char *work_dir, const char *cache_file,
			    struct om_vm_kvm_answer *out, struct om_why *why) OM_MUST_CHECK;

#endif /* OM_VM_KVM_PROBE_H */
