/* SPDX-License-Identifier: ISC */
/* What has to be there before the first actor starts. */
#include "daemon/daemon_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "actors/executor.h"
#include "base/id.h"
#include "base/log.h"
#include "daemon/auth.h"
#include "daemon/lock.h"
#include "daemon/recover.h"

#define DEFAULT_RUN_DIR  "/run/omerta" /* as in config.tbl: a tmpfs on most machines */
#define DEFAULT_JOBS_DIR "/var/lib/omertad-jobs"

#define OS_RELEASE_MAX 8192

#define SEAL_KEY_FILE "keys.seal"

/* --- the key of the ledger's private keys ------------------------------------------------------ */

/*
 * In the run directory: there after a restart of the daemon, not after one of the machine, and on no
 * disk where that directory is a tmpfs (doctor says whether it is).
 */
static enum om_err
daemon_seal_key(struct daemon *d, struct om_why *why)
{
	char path[512];
	enum om_err err = OM_OK;
	int fd;

	snprintf(path, sizeof(path), "%s/" SEAL_KEY_FILE, d->s->daemon_run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_IO, "%s", path);
	}
	if (read(fd, d->seal_key, sizeof(d->seal_key)) != (ssize_t)sizeof(d->seal_key)) {
		om_random(d->seal_key, sizeof(d->seal_key));
		if (pwrite(fd, d->seal_key, sizeof(d->seal_key), 0) !=
		    (ssize_t)sizeof(d->seal_key)) {
			err = om_why_errno(why, OM_ERR_IO, "write %s", path);
		}
	}
	close(fd);
	return err;
}

/* --- locks ------------------------------------------------------------------------------------ */

enum om_err
daemon_lock(struct daemon *d, struct om_why *why)
{
	enum om_err err;

	/* The ledger holds other people's jobs and keys. */
	if (chmod(d->s->daemon_state_dir, 0700) != 0) {
		return om_why_errno(why, OM_ERR_IO, "chmod %s", d->s->daemon_state_dir);
	}
	/* Two daemons never share one: what is found in it at a start is an orphan of ours. */
	if (d->s->vm_jobs_dir[0] != '\0') {
		snprintf(d->jobs_dir, sizeof(d->jobs_dir), "%s", d->s->vm_jobs_dir);
	} else if (strcmp(d->s->daemon_run_dir, DEFAULT_RUN_DIR) == 0) {
		snprintf(d->jobs_dir, sizeof(d->jobs_dir), "%s", DEFAULT_JOBS_DIR);
	} else {
		snprintf(d->jobs_dir, sizeof(d->jobs_dir), "%s/jobs", d->s->daemon_run_dir);
	}
	/* 0711: qemu's user passes through to the files that are its own. */
	if (mkdir(d->jobs_dir, 0711) != 0 && errno != EEXIST) {
		return om_why_errno(why, OM_ERR_IO, "%s", d->jobs_dir);
	}
	err = om_lock_file(d->s->daemon_state_dir, "lock", &d->state_lock, why);
	if (err == OM_OK) {
		err = om_lock_file(d->s->daemon_run_dir, "omertad.pid", &d->run_lock, why);
	}
	if (err == OM_OK) {
		err = om_lock_jobs_dir(d->jobs_dir, &d->jobs_lock, why);
	}
	return err == OM_OK ? daemon_seal_key(d, why) : err;
}

void
daemon_unlock(struct daemon *d)
{
	char path[512];

	if (d->jobs_lock >= 0) {
		close(d->jobs_lock); /* the file stays, as the mark that the directory is ours */
	}
	if (d->run_lock >= 0) {
		snprintf(path, sizeof(path), "%s/omertad.pid", d->s->daemon_run_dir);
		unlink(path);
		close(d->run_lock);
	}
	if (d->state_lock >= 0) {
		close(d->state_lock); /* the file stays: an unlinked one could be locked twice */
	}
}

/* --- checks ----------------------------------------------------------------------------------- */

static enum om_err
kvm_not_tried(const struct om_config *config, bool *works, char *text, size_t size)
{
	(void)config;
	(void)works;
	(void)text;
	(void)size;
	return OM_ERR_NOT_FOUND;
}

static void
read_os_release(char out[OS_RELEASE_MAX])
{
	FILE *f = fopen("/etc/os-release", "re");
	size_t n = 0;

	if (f != NULL) {
		n = fread(out, 1, OS_RELEASE_MAX - 1, f);
		fclose(f);
	}
	out[n] = '\0';
}

static size_t
run_doctor(const struct om_config *config, bool boot, struct om_check_result *out)
{
	struct om_doctor_probes probes = om_doctor_system;
	char os_release[OS_RELEASE_MAX];

	read_os_release(os_release);
	probes.os_release = os_release;
	probes.cores = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	if (!boot) {
		probes.kvm = kvm_not_tried; /* daemon_open_machine does */
	}
	return om_doctor_run(&probes, config, out);
}

enum om_err
daemon_doctor(struct daemon *d, struct om_why *why)
{
	struct om_buf problems = { 0 };
	struct om_auth *auth = NULL;
	enum om_err err;
	size_t failures;

	d->check_count = run_doctor(d->config, false, d->checks);
	failures = om_doctor_failures(d->checks, d->check_count);
	if (failures > 0) {
		return om_why_set(why, OM_ERR_MISSING,
				  "%zu of %zu checks failed; `omertad doctor` shows them all",
				  failures, d->check_count);
	}
	err = om_auth_load(d->s, &auth, &problems);
	if (err != OM_OK) {
		om_why_set(why, err, "%s", problems.len > 0 ? om_buf_cstr(&problems) : "");
	} else {
		d->wants_tcp = om_control_wants_tcp(d->config, om_auth_peer_count(auth));
	}
	om_auth_free(auth);
	om_buf_fini(&problems);
	return err;
}

int
om_daemon_check(const struct om_config *config, bool json)
{
	struct om_check_result results[OM_DOCTOR_MAX];
	size_t count = run_doctor(config, true, results);
	struct om_buf out = { 0 };

	if (json) {
		om_doctor_print_json(results, count, &out);
	} else {
		om_doctor_print(results, count, true, &out);
	}
	fwrite(out.data, 1, out.len, stdout);
	om_buf_fini(&out);
	return om_doctor_failures(results, count) == 0 ? 0 : 1;
}

static void
check_replace(struct daemon *d, const char *name, enum om_check_level level, const char *text)
{
	for (size_t i = 0; i < d->check_count; i++) {
		if (strcmp(d->checks[i].name, name) == 0) {
			d->checks[i].level = level;
			snprintf(d->checks[i].text, sizeof(d->checks[i].text), "%s", text);
		}
	}
}

/* --- the machine ------------------------------------------------------------------------------ */

static bool
libvirt_answers(void)
{
	struct om_why why = { "" };
	char version[32];

	return om_doctor_system.libvirt("qemu:///system", version, sizeof(version), &why) == OM_OK;
}

static enum om_err
open_libvirtd(struct daemon *d, struct om_why *why)
{
	const struct om_settings *s = d->s;
	char dir[256], text[OM_DOCTOR_TEXT];
	enum om_err err;

	if (s->libvirt_private == OM_CONF_NO ||
	    (s->libvirt_private == OM_CONF_AUTO &&
	     (s->libvirt_uri[0] != '\0' || libvirt_answers()))) {
		return OM_OK;
	}
	snprintf(dir, sizeof(dir), "%s/libvirt", s->daemon_run_dir);
	om_info("libvirtd.start", "a private one in %s", dir);
	err = om_libvirtd_start(dir, &d->libvirtd, why);
	if (err == OM_OK) {
		snprintf(text, sizeof(text), "libvirt: private %.150s", d->libvirtd.uri);
		check_replace(d, "libvirt", OM_CHECK_OK, text);
	}
	return err;
}

static enum om_err
open_driver(struct daemon *d, struct om_why *why)
{
	const struct om_settings *s = d->s;
	const struct om_vm_config config = {
		.uri = d->libvirtd.pid > 0         ? d->libvirtd.uri
		       : s->libvirt_uri[0] != '\0' ? s->libvirt_uri
						   : NULL,
		.on_event = om_executor_vm_event,
		.arg = d->sys,
	};

	d->driver.ops = &om_vm_libvirt_ops;
	return d->driver.ops->open(&config, &d->driver.state, why);
}

static enum om_err
probe_kvm(struct daemon *d, struct om_why *why)
{
	const struct om_settings *s = d->s;
	char work[OM_VM_PATH_MAX], cache[OM_VM_PATH_MAX], text[OM_DOCTOR_TEXT];
	enum om_err err;

	if (s->vm_accelerator == OM_CONF_ACCEL_TCG) {
		return OM_OK;
	}
	snprintf(work, sizeof(work), "%s/probe", s->daemon_run_dir);
	snprintf(cache, sizeof(cache), "%s/kvm", s->daemon_cache_dir);
	err = om_vm_kvm_probe(&d->driver, &d->image, work, cache, &d->kvm, why);
	if (err != OM_OK) {
		return err;
	}
	if (d->kvm.works) {
		snprintf(text, sizeof(text), "KVM: %.120s", d->kvm.text);
		check_replace(d, "kvm", OM_CHECK_OK, text);
	} else if (s->vm_accelerator == OM_CONF_ACCEL_KVM) {
		return om_why_set(why, OM_ERR_MISSING, "vm.accelerator = kvm, but %s", d->kvm.text);
	} else {
		snprintf(text, sizeof(text),
			 "KVM: probe boot failed (%.90s), using TCG, about 20 times slower",
			 d->kvm.text);
		check_replace(d, "kvm", OM_CHECK_WARN, text);
	}
	return OM_OK;
}

/* A list of networks to the policy's; the reason names the setting. */
static enum om_err
policy_list(struct om_strs words, const char *setting, struct om_cidr *list, uint16_t *count,
	    struct om_why *why)
{
	struct om_cidr cidr;
	enum om_err err;
	size_t i;

	for (i = 0; i < words.n; i++) {
		if (om_cidr_parse(words.v[i], &cidr) != OM_OK) {
			return om_why_set(why, OM_ERR_INVALID, "%s: %.*s is no network", setting,
					  OM_STR_ARG(words.v[i]));
		}
		err = om_endpoint_policy_add(list, count, &cidr);
		if (err != OM_OK) {
			return om_why_set(why, err, "%s: at most %d networks", setting,
					  OM_ENDPOINT_RULES_MAX);
		}
	}
	return OM_OK;
}

static enum om_err
net_policy(struct daemon *d, struct om_why *why)
{
	struct om_endpoint_policy *policy = &d->net.policy;
	uint32_t one;
	enum om_err err;
	size_t i;

	policy->allow_private = d->s->network_private_endpoints;
	err = policy_list(d->s->network_allow_endpoints, "network.allow_endpoints", policy->allow,
			  &policy->allow_count, why);
	if (err == OM_OK) {
		err = policy_list(d->s->network_deny_endpoints, "network.deny_endpoints",
				  policy->deny, &policy->deny_count, why);
	}
	d->net.noise = 0;
	for (i = 0; i < d->s->network_noise.n && err == OM_OK; i++) {
		err = om_noise_parse(d->s->network_noise.v[i], &one, why);
		d->net.noise |= err == OM_OK ? one : 0;
	}
	return err;
}

static enum om_err
open_net(struct daemon *d, struct om_why *why)
{
	char buf[16384];
	struct passwd pw, *found = NULL;
	enum om_err err;

	if (d->s->network_wireguard == OM_CONF_WG_NONE) {
		return OM_OK;
	}
	err = om_jobnet_env_init(&d->net, d->s->daemon_state_dir, om_doctor_wireguard(d->s), why);
	if (err != OM_OK) {
		return err;
	}
	if (getpwnam_r(d->s->network_vm_user, &pw, buf, sizeof(buf), &found) == 0 &&
	    found != NULL) {
		d->net.tap_uid = pw.pw_uid;
		d->net.tap_gid = pw.pw_gid;
	} else {
		om_warn("net.vm_user", "there is no user %s", d->s->network_vm_user);
	}
	d->has_net = true;
	return net_policy(d, why);
}

enum om_err
daemon_open_machine(struct daemon *d, struct om_why *why)
{
	struct om_recovered found;
	enum om_err err = OM_OK;

	if (d->s->vm_driver == OM_CONF_DRIVER_LIBVIRT) {
		err = open_libvirtd(d, why);
		if (err == OM_OK) {
			err = open_driver(d, why);
		}
		if (err == OM_OK) {
			err = om_vm_image_find(om_config_image_dir(d->config), &d->image, why);
		}
		if (err == OM_OK) {
			err = open_net(d, why);
		}
	}
	if (err != OM_OK) {
		return err;
	}
	err = om_recover(d->driver.state != NULL ? &d->driver : NULL, d->has_net ? &d->net : NULL,
			 d->jobs_dir, &found, why);
	if (err == OM_OK && d->driver.state != NULL) {
		err = probe_kvm(d, why);
	}
	if (err == OM_OK && (found.vms | found.directories | found.net.links | found.net.processes |
			     found.net.sockets) != 0) {
		om_warn("recover.done",
			"removed what an earlier life left: %u VMs, %u job directories, %u links, "
			"%u tunnel processes, %u sockets",
			found.vms, found.directories, found.net.links, found.net.processes,
			found.net.sockets);
	}
	return err;
}

void
daemon_close_machine(struct daemon *d)
{
	if (d->driver.state != NULL) {
		d->driver.ops->close(d->driver.state);
		d->driver.state = NULL;
	}
	om_libvirtd_stop(&d->libvirtd);
}
