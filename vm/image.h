/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_IMAGE_H
#define OM_VM_IMAGE_H

/*
 * The guest image: kernel, initramfs with our agent, read-only root.  Made by vm/image/build.sh from
 * Debian packages, kept under DIR/<recipe>/ with a manifest; DIR/current names the one in use and
 * is replaced atomically.  A recipe is the hash of the build script, the package list and the agent
 * binary, so a change of any of them makes a new image and leaves running VMs their old files.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "vm/driver.h"

#define OM_VM_IMAGE_DIR "/var/cache/omertad/images"

struct om_vm_image {
	char dir[OM_VM_PATH_MAX]; /* the image's own directory */
	char kernel[OM_VM_PATH_MAX]; /* vmlinux */
	char initrd[OM_VM_PATH_MAX];
	char root[OM_VM_PATH_MAX]; /* squashfs */
	char recipe[65]; /* sha256 of the inputs, hex */
	char release[64]; /* kernel release */
	int64_t built_at_s; /* seconds since 1970 */
	uint64_t bytes; /* of the three files together */
};

/*
 * Any thread.  Reads DIR/current and its manifest; the three files exist.
 * OM_ERR_MISSING when there is no image (why says how to build one), OM_ERR_CORRUPT for a
 * manifest that makes no sense.
 */
enum om_err om_vm_image_find(const char *dir, struct om_vm_image *out,
			     struct om_why *why) OM_MUST_CHECK;

/* Any thread; blocks (0.3 s).  Hashes the three files.  OM_ERR_CORRUPT names the one that differs. */
enum om_err om_vm_image_verify(const struct om_vm_image *image, struct om_why *why) OM_MUST_CHECK;

#endif /* OM_VM_IMAGE_H */
