/* SPDX-License-Identifier: ISC */
/*
 * The probe: boot the image with KVM, wait for the hello.  The answer is kept in a file of one
 * line, "<key> yes|no <text>"; the key names all that the answer depends on, so a change of kernel,
 * qemu or image asks again.
 */
#include "vm/kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "vm/guest_channel.h"

#define PROBE_QEMU     "/usr/bin/qemu-system-x86_64"
#define PROBE_KEY_MAX  320
#define PROBE_LINE_MAX (PROBE_KEY_MAX + OM_VM_REASON_MAX + 16)
#define PROBE_MEM_MIB  256
#define PROBE_DISK_MIB 16

/* --- the remembered answer ------------------------------------------------------------------------ */

static void
probe_key(const struct om_vm_image *image, char key[PROBE_KEY_MAX])
{
	struct utsname uts;
	struct stat st = { 0 };

	(void)uname(&uts);
	(void)stat(PROBE_QEMU, &st);
	snprintf(key, PROBE_KEY_MAX, "kernel=%s qemu=%lld.%lld image=%.16s", uts.release,
		 (long long)st.st_mtime, (long long)st.st_size, image->recipe);
}

static bool
probe_recall(const char *file, const char *key, struct om_vm_kvm_answer *out)
{
	char line[PROBE_LINE_MAX];
	size_t len = strlen(key);
	FILE *f = fopen(file, "re");
	bool known = false;

	if (f == NULL) {
		return false;
	}
	if (fgets(line, sizeof(line), f) != NULL && strncmp(line, key, len) == 0) {
		line[strcspn(line, "\n")] = '\0';
		out->works = strncmp(line + len, " yes ", 5) == 0;
		known = out->works || strncmp(line + len, " no ", 4) == 0;
		snprintf(out->text, sizeof(out->text), "%s", line + len + (out->works ? 5 : 4));
	}
	fclose(f);
	out->remembered = known;
	return known;
}

/* Not being able to remember costs a probe at the next start, no more. */
static void
probe_remember(const char *file, const char *key, const struct om_vm_kvm_answer *answer)
{
	char temp[OM_VM_PATH_MAX + 8];
	bool ok;
	FILE *f;

	snprintf(temp, sizeof(temp), "%s.tmp", file);
	f = fopen(temp, "we");
	ok = f != NULL &&
	     fprintf(f, "%s %s %s\n", key, answer->works ? "yes" : "no", answer->text) > 0;
	if (f != NULL && fclose(f) == EOF) {
		ok = false;
	}
	if (!ok || rename(temp, file) < 0) {
		om_warn("kvm.remember", "%s: %s", file, strerror(errno));
	}
}

/* --- the boot --------------------------------------------------------------------------------------- */

static int
probe_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* True: the agent said hello before `until`. */
static bool
probe_wait_hello(int fd, int pidfd, struct om_mono until, struct om_vm_kvm_answer *out)
{
	struct om_guest_channel *ch = om_guest_channel_new();
	struct om_guest_event ev;
	uint8_t bytes[4096];
	bool is_up = false;

	snprintf(out->text, sizeof(out->text), "no hello within %d ms", OM_VM_KVM_DEADLINE_MS);
	while (ch != NULL && !is_up) {
		struct pollfd p[2] = { { fd, POLLIN, 0 }, { pidfd, POLLIN, 0 } };
		int64_t left = om_mono_ms_between(om_mono_now(), until);
		ssize_t n;

		if (left <= 0 || poll(p, 2, (int)left) <= 0) {
			break;
		}
		n = read(fd, bytes, sizeof(bytes));
		if (n <= 0 || om_guest_channel_feed(ch, bytes, (size_t)n) != OM_OK) {
			snprintf(out->text, sizeof(out->text), "qemu ended while booting");
			break;
		}
		is_up = om_guest_channel_next(ch, &ev) && ev.kind == OM_GUEST_EV_HELLO;
	}
	om_guest_channel_free(ch);
	return is_up;
}

static void
probe_boot(struct om_vm_driver *driver, const struct om_vm_spec *spec, struct om_vm_kvm_answer *out)
{
	struct om_mono start = om_mono_now();
	struct om_mono until = { start.ns + OM_VM_KVM_DEADLINE_MS * OM_NS_PER_MS };
	struct om_vm_handle vm;
	struct om_why why = { "" };
	int fd = -1;

	om_vm_handle_init(&vm);
	if (driver->ops->create(driver->state, spec, &vm, &why) != OM_OK) {
		size_t len = strlen(why.text);

		/* The end of the text: there is the cause. */
		snprintf(out->text, sizeof(out->text), "%.*s", OM_VM_REASON_MAX - 1,
			 len < OM_VM_REASON_MAX ? why.text : why.text + len - OM_VM_REASON_MAX + 1);
		goto out;
	}
	fd = probe_connect(spec->channel_path);
	if (fd < 0) {
		snprintf(out->text, sizeof(out->text), "qemu ended at once");
		goto out;
	}
	out->works = probe_wait_hello(fd, vm.pidfd, until, out);
	if (out->works) {
		snprintf(out->text, sizeof(out->text), "booted in %lld ms",
			 (long long)om_mono_ms_between(start, om_mono_now()));
	}
out:
	if (fd >= 0) {
		close(fd);
	}
	if (driver->ops->destroy(driver->state, spec->name, &why) != OM_OK) {
		om_warn("kvm.destroy", "%s: %s", spec->name, why.text);
	}
	om_vm_handle_fini(&vm);
}

/* One line of printable text: it goes into a file of one line. */
static void
probe_clean(char *text)
{
	for (; *text != '\0'; text++) {
		if ((unsigned char)*text < 0x20) {
			*text = ' ';
		}
	}
}

enum om_err
om_vm_kvm_probe(struct om_vm_driver *driver, const struct om_vm_image *image, const char *work_dir,
		const char *cache_file, struct om_vm_kvm_answer *out, struct om_why *why)
{
	struct om_job_id id = om_job_id_new();
	char name[OM_VM_NAME_MAX + 1], channel[OM_VM_PATH_MAX], scratch[OM_VM_PATH_MAX];
	char key[PROBE_KEY_MAX];
	struct om_vm_spec spec = {
		.name = name,
		.cores = 1,
		.mem_mib = PROBE_MEM_MIB,
		.kernel = image->kernel,
		.initrd = image->initrd,
		.root = image->root,
		.scratch_path = scratch,
		.scratch_mib = PROBE_DISK_MIB,
		.channel_path = channel,
		.use_kvm = true,
	};

	memset(out, 0, sizeof(*out));
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		snprintf(out->text, sizeof(out->text), "/dev/kvm: %s", strerror(errno));
		return OM_OK; /* cheap to find out: not remembered */
	}
	probe_key(image, key);
	if (probe_recall(cache_file, key, out)) {
		return OM_OK;
	}
	if (mkdir(work_dir, 0711) < 0 && errno != EEXIST) {
		return om_why_errno(why, om_err_from_errno(errno), "make %s", work_dir);
	}
	snprintf(name, sizeof(name), OM_VM_PREFIX "kvm-%.*s", OM_JOB_ID_LEN, id.text);
	if (snprintf(channel, sizeof(channel), "%s/%s.sock", work_dir, name) >= OM_VM_SOCKET_MAX ||
	    snprintf(scratch, sizeof(scratch), "%s/%s.img", work_dir, name) >= OM_VM_PATH_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "%s is too long for a socket's path",
				  work_dir);
	}
	probe_boot(driver, &spec, out);
	(void)unlink(channel);
	(void)unlink(scratch);
	probe_clean(out->text);
	probe_remember(cache_file, key, out);
	return OM_OK;
}
