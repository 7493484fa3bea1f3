/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/image.h"

#define RECIPE "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

struct tree {
	char dir[64];
	char image[160];
};

static void
write_file(const char *dir, const char *name, const char *text)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int
setup(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));
	char command[512], link[128];

	snprintf(t->dir, sizeof(t->dir), "/tmp/omerta-image-test.XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->image, sizeof(t->image), "%s/%s", t->dir, RECIPE);
	assert_int_equal(mkdir(t->image, 0755), 0);
	write_file(t->image, "vmlinux", "kernel");
	write_file(t->image, "initramfs", "agent");
	write_file(t->image, "root.sqfs", "root");
	write_file(t->image, "MANIFEST",
		   "recipe " RECIPE
		   "\nrelease 6.1.0-test\nbuilt 1700000000\nbytes 15\nlater yes\n");
	snprintf(command, sizeof(command),
		 "cd %s && sha256sum vmlinux initramfs root.sqfs MANIFEST > SHA256SUMS", t->image);
	assert_int_equal(system(command), 0);
	snprintf(link, sizeof(link), "%s/current", t->dir);
	assert_int_equal(symlink(RECIPE, link), 0);
	*state = t;
	return 0;
}

static int
teardown(void **state)
{
	struct tree *t = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", t->dir);
	assert_int_equal(system(command), 0);
	free(t);
	return 0;
}

static void
test_find_and_verify(void **state)
{
	struct tree *t = *state;
	struct om_vm_image image;
	struct om_why why;

	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_OK);
	assert_string_equal(image.recipe, RECIPE);
	assert_string_equal(image.release, "6.1.0-test");
	assert_int_equal(image.built_at_s, 1700000000);
	assert_int_equal(image.bytes, 15);
	assert_non_null(strstr(image.kernel, RECIPE "/vmlinux"));
	assert_int_equal(om_vm_image_verify(&image, &why), OM_OK);
}

static void
test_changed_file_is_found(void **state)
{
	struct tree *t = *state;
	struct om_vm_image image;
	struct om_why why;

	write_file(t->image, "initramfs", "other");
	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_OK);
	assert_int_equal(om_vm_image_verify(&image, &why), OM_ERR_CORRUPT);
	assert_non_null(strstr(why.text, "initramfs"));
}

static void
test_missing_parts(void **state)
{
	struct tree *t = *state;
	struct om_vm_image image;
	struct om_why why;
	char path[300];

	assert_int_equal(om_vm_image_find("/nonexistent", &image, &why), OM_ERR_MISSING);
	assert_non_null(strstr(why.text, "make image"));
	write_file(t->image, "MANIFEST", "recipe " RECIPE "\nrelease x\n");
	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_ERR_CORRUPT);
	write_file(t->image, "MANIFEST", "recipe short\nrelease x\nbytes 5\n");
	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_ERR_CORRUPT);
	write_file(t->image, "MANIFEST", "recipe " RECIPE "\nrelease x\nbytes 99x\n");
	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_ERR_CORRUPT);
	write_file(t->image, "MANIFEST", "recipe " RECIPE "\nrelease x\nbytes 5\n");
	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_OK);
	snprintf(path, sizeof(path), "%s/root.sqfs", t->image);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_ERR_MISSING);
}

/* A link out of the directory is not followed. */
static void
test_link_elsewhere(void **state)
{
	struct tree *t = *state;
	struct om_vm_image image;
	struct om_why why;
	char link[128];

	snprintf(link, sizeof(link), "%s/current", t->dir);
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink("../elsewhere", link), 0);
	assert_int_equal(om_vm_image_find(t->dir, &image, &why), OM_ERR_CORRUPT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_find_and_verify, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_file_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link_elsewhere, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
