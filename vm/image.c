/* SPDX-License-Identifier: ISC */
/*
 * Finding and checking the image.  The hashes are made and checked by sha256sum (coreutils, there on
 * every Debian), so that script and daemon agree on one file, SHA256SUMS.
 */
#include "vm/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/parse.h"
#include "base/spawn.h"

#define IMAGE_MANIFEST_MAX    4096
#define IMAGE_HASH_TIMEOUT_MS 60000
#define IMAGE_RECIPE_LEN      64

static enum om_err
image_path(char out[OM_VM_PATH_MAX], const char *dir, const char *name, struct om_why *why)
{
	int n = snprintf(out, OM_VM_PATH_MAX, "%s/%s", dir, name);

	if (n < 0 || n >= OM_VM_PATH_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "image: path over %d bytes", OM_VM_PATH_MAX);
	}
	return OM_OK;
}

/* --- manifest: lines of "key value" ------------------------------------------------------------------ */

static enum om_err
manifest_line(struct om_vm_image *image, struct om_str key, struct om_str value)
{
	uint64_t n;

	if (om_str_is(key, "recipe")) {
		return om_str_copy(value, image->recipe, sizeof(image->recipe));
	}
	if (om_str_is(key, "release")) {
		return om_str_copy(value, image->release, sizeof(image->release));
	}
	if (om_str_is(key, "built")) {
		enum om_err err = om_parse_u64(value, 0, INT64_MAX, &n);

		image->built_at_s = err == OM_OK ? (int64_t)n : 0;
		return err;
	}
	if (om_str_is(key, "bytes")) {
		return om_parse_u64(value, 1, UINT64_MAX, &image->bytes);
	}
	return OM_OK; /* a newer script may say more */
}

static enum om_err
manifest_parse(struct om_vm_image *image, struct om_str text, struct om_why *why)
{
	struct om_str line, key;

	while (om_str_next(&text, '\n', &line)) {
		if (line.len == 0) {
			continue;
		}
		if (!om_str_next(&line, ' ', &key) || manifest_line(image, key, line) != OM_OK) {
			return om_why_set(why, OM_ERR_CORRUPT, "manifest of the image in %s",
					  image->dir);
		}
	}
	if (strlen(image->recipe) != IMAGE_RECIPE_LEN || image->release[0] == '\0' ||
	    image->bytes == 0) {
		return om_why_set(why, OM_ERR_CORRUPT,
				  "manifest of the image in %s is not complete", image->dir);
	}
	return OM_OK;
}

static enum om_err
manifest_read(struct om_vm_image *image, struct om_why *why)
{
	char path[OM_VM_PATH_MAX], text[IMAGE_MANIFEST_MAX];
	enum om_err err = image_path(path, image->dir, "MANIFEST", why);
	ssize_t n;
	int fd;

	if (err != OM_OK) {
		return err;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_MISSING, "open %s", path);
	}
	n = read(fd, text, sizeof(text));
	close(fd);
	if (n < 0 || n == (ssize_t)sizeof(text)) {
		return om_why_set(why, OM_ERR_CORRUPT, "%s cannot be read or is too long", path);
	}
	return manifest_parse(image, (struct om_str){ text, (size_t)n }, why);
}

/* --- find, verify, build ------------------------------------------------------------------------------ */

enum om_err
om_vm_image_find(const char *dir, struct om_vm_image *out, struct om_why *why)
{
	char link[OM_VM_PATH_MAX], target[OM_VM_PATH_MAX];
	enum om_err err = image_path(link, dir, "current", why);
	ssize_t n;

	memset(out, 0, sizeof(*out));
	if (err != OM_OK) {
		return err;
	}
	/* The link's target, not the link: a VM that starts later has files of one and the same image. */
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0) {
		return om_why_set(why, OM_ERR_MISSING,
				  "no guest image in %s: build it with `make image`", dir);
	}
	target[n] = '\0';
	if (strchr(target, '/') != NULL) {
		return om_why_set(why, OM_ERR_CORRUPT, "%s points elsewhere", link);
	}
	err = image_path(out->dir, dir, target, why);
	if (err == OM_OK) {
		err = image_path(out->kernel, out->dir, "vmlinux", why);
	}
	if (err == OM_OK) {
		err = image_path(out->initrd, out->dir, "initramfs", why);
	}
	if (err == OM_OK) {
		err = image_path(out->root, out->dir, "root.sqfs", why);
	}
	if (err == OM_OK) {
		err = manifest_read(out, why);
	}
	if (err == OM_OK && (access(out->kernel, R_OK) < 0 || access(out->initrd, R_OK) < 0 ||
			     access(out->root, R_OK) < 0)) {
		err = om_why_errno(why, OM_ERR_MISSING, "guest image in %s", out->dir);
	}
	return err;
}

enum om_err
om_vm_image_verify(const struct om_vm_image *image, struct om_why *why)
{
	const char *const argv[] = { "/usr/bin/sha256sum", "--check", "--strict", "--quiet",
				     "SHA256SUMS",         NULL };
	struct om_spawn how = {
		.argv = argv, .cwd = image->dir, .in_fd = -1, .out_fd = -1, .err_fd = -1
	};
	struct om_buf text = { .max = 65536 };
	enum om_err err;
	int status = 0;

	err = om_spawn_run(&how, IMAGE_HASH_TIMEOUT_MS, &text, &status, why);
	if (err == OM_OK && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
		struct om_str said =
		    om_str_trim((struct om_str){ (const char *)text.data, text.len });

		if (said.len > OM_WHY_MAX / 2) {
			said.ptr += said.len - OM_WHY_MAX / 2;
			said.len = OM_WHY_MAX / 2;
		}
		err = om_why_set(why, OM_ERR_CORRUPT, "%.*s", OM_STR_ARG(said));
	}
	om_buf_fini(&text);
	return err;
}
