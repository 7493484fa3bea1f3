/* SPDX-License-Identifier: ISC */
/* What is the same for every driver: the limits of a spec, handles, names. */
#include "vm/driver.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VM_TAP_MAX 15 /* IFNAMSIZ - 1 */
#define VM_MAC_LEN 17
#define VM_MTU_MIN 576
#define VM_MTU_MAX 9000

static enum om_err
spec_check_path(const char *what, const char *path, size_t size, struct om_why *why)
{
	if (path == NULL || path[0] != '/') {
		return om_why_set(why, OM_ERR_INVALID, "%s: not an absolute path", what);
	}
	if (strlen(path) >= size) {
		return om_why_set(why, OM_ERR_INVALID, "%s: path over %zu bytes", what, size - 1);
	}
	return OM_OK;
}

static enum om_err
spec_check_nic(const struct om_vm_nic *nic, struct om_why *why)
{
	if (nic->tap == NULL || nic->tap[0] == '\0' || strlen(nic->tap) > VM_TAP_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "tap: 1 to %d bytes", VM_TAP_MAX);
	}
	if (nic->mac == NULL || strlen(nic->mac) != VM_MAC_LEN) {
		return om_why_set(why, OM_ERR_INVALID, "mac: not aa:bb:cc:dd:ee:ff");
	}
	for (size_t i = 0; i < VM_MAC_LEN; i++) {
		bool ok = i % 3 == 2 ? nic->mac[i] == ':'
				     : strchr("0123456789abcdefABCDEF", nic->mac[i]) != NULL;

		if (!ok) {
			return om_why_set(why, OM_ERR_INVALID, "mac: not aa:bb:cc:dd:ee:ff");
		}
	}
	if (nic->mtu != 0 && (nic->mtu < VM_MTU_MIN || nic->mtu > VM_MTU_MAX)) {
		return om_why_set(why, OM_ERR_INVALID, "mtu: %d to %d", VM_MTU_MIN, VM_MTU_MAX);
	}
	return OM_OK;
}

static enum om_err
spec_check_name(const char *name, struct om_why *why)
{
	const size_t prefix = sizeof(OM_VM_PREFIX) - 1;
	struct om_job_id id;

	if (name == NULL || strncmp(name, OM_VM_PREFIX, prefix) != 0 ||
	    om_job_id_parse(name + prefix, strlen(name + prefix), &id) != OM_OK) {
		return om_why_set(why, OM_ERR_INVALID, "name: not %s and a job id", OM_VM_PREFIX);
	}
	return OM_OK;
}

enum om_err
om_vm_spec_check(const struct om_vm_spec *spec, struct om_why *why)
{
	const struct {
		const char *what;
		const char *path;
		size_t size;
	} paths[] = {
		{ "kernel", spec->kernel, OM_VM_PATH_MAX },
		{ "initrd", spec->initrd, OM_VM_PATH_MAX },
		{ "root", spec->root, OM_VM_PATH_MAX },
		{ "scratch", spec->scratch_path, OM_VM_PATH_MAX },
		{ "channel", spec->channel_path, OM_VM_SOCKET_MAX },
	};
	enum om_err err = spec_check_name(spec->name, why);

	for (size_t i = 0; err == OM_OK && i < OM_COUNT(paths); i++) {
		err = spec_check_path(paths[i].what, paths[i].path, paths[i].size, why);
	}
	if (err != OM_OK) {
		return err;
	}
	if (spec->cores < 1 || spec->cores > OM_VM_CORES_MAX) {
		return om_why_set(why, OM_ERR_INVALID, "cores: 1 to %d", OM_VM_CORES_MAX);
	}
	if (spec->mem_mib < OM_VM_MEM_MIN_MIB || spec->mem_mib > OM_VM_MEM_MAX_MIB) {
		return om_why_set(why, OM_ERR_INVALID, "memory: %d to %u MiB", OM_VM_MEM_MIN_MIB,
				  OM_VM_MEM_MAX_MIB);
	}
	if (spec->scratch_mib < OM_VM_DISK_MIN_MIB || spec->scratch_mib > OM_VM_DISK_MAX_MIB) {
		return om_why_set(why, OM_ERR_INVALID, "disk: %d to %u MiB", OM_VM_DISK_MIN_MIB,
				  OM_VM_DISK_MAX_MIB);
	}
	return spec->nic != NULL ? spec_check_nic(spec->nic, why) : OM_OK;
}

void
om_vm_handle_init(struct om_vm_handle *vm)
{
	vm->pid = 0;
	vm->pidfd = -1;
}

void
om_vm_handle_fini(struct om_vm_handle *vm)
{
	if (vm == NULL) {
		return;
	}
	if (vm->pidfd >= 0 && vm->pid > 0) {
		close(vm->pidfd);
	}
	om_vm_handle_init(vm);
}

void
om_vm_names_free(char **names, size_t count)
{
	for (size_t i = 0; names != NULL && i < count; i++) {
		free(names[i]);
	}
	free(names);
}

const char *
om_vm_event_name(enum om_vm_event_kind kind)
{
	switch (kind) {
	case OM_VM_EVENT_STOPPED:
		return "stopped";
	case OM_VM_EVENT_CRASHED:
		return "crashed";
	case OM_VM_EVENT_DRIVER_DOWN:
		return "driver_down";
	case OM_VM_EVENT_DRIVER_UP:
		return "driver_up";
	}
	return "unknown";
}
