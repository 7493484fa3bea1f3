/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_DOCTOR_H
#define OM_DAEMON_DOCTOR_H

/*
 * Is everything there that a provider needs?  A table of checks; each gives ok, warn, fail or skip,
 * and what to do about it on this distribution.  `start` refuses when a check fails, with the whole
 * list; `doctor` shows it at any time.
 */
#include "base/buf.h"
#include "daemon/config.h"
#include "net/jobnet.h"

#define OM_DOCTOR_TEXT 192

enum om_check_level {
	OM_CHECK_OK,
	OM_CHECK_WARN, /* works, but not as well as it could */
	OM_CHECK_FAIL, /* omertad does not start */
	OM_CHECK_SKIP, /* not needed with these settings */
};

struct om_check_result {
	const char *name; /* "libvirt" */
	enum om_check_level level;
	char text[OM_DOCTOR_TEXT];
	char hint[OM_DOCTOR_TEXT]; /* "" when nothing is to be done */
};

/* What the checks ask of the world; tests give their own.  All block. */
struct om_doctor_probes {
	/* The version of the libvirt behind uri, as "9.0.0". */
	enum om_err (*libvirt)(const char *uri, char *version, size_t size, struct om_why *why);
	/* Finds a program in the usual directories. */
	bool (*program)(const char *name, char *path, size_t size);
	/* Finds the program that starts a libvirtd of our own. */
	bool (*private_libvirtd)(char *path, size_t size);
	/* First line of what PROGRAM --version prints. */
	enum om_err (*version)(const char *path, char *out, size_t size);
	/* "kvm" works or not, as remembered from a probe boot; NOT_FOUND: it was never tried. */
	enum om_err (*kvm)(const struct om_config *config, bool *works, char *text, size_t size);
	enum om_err (*image)(const struct om_config *config, char *text, size_t size,
			     struct om_why *why);
	/* om_wg_probe's choice: "kernel", "userspace" or "none". */
	const char *(*wireguard)(enum om_wg_backend want);
	/* May this process read and write there?  Makes a directory that is missing when make. */
	enum om_err (*writable)(const char *path, bool make, struct om_why *why);
	/* MiB; -1 when it cannot be told. */
	int64_t (*disk_free_mib)(const char *path);
	/* Is it on a file system that ends with the machine's run?  Also when that cannot be told. */
	bool (*in_memory)(const char *path);
	int64_t (*mem_available_mib)(void);
	bool (*has_net_admin)(void);
	int64_t (*wall_s)(void); /* seconds since 1970 */
	const char *os_release; /* the file's text */
	unsigned cores;
};
extern const struct om_doctor_probes om_doctor_system; /* the real ones; os_release is NULL */

/* What network.wireguard asks om_jobnet_env_init for; not for "none". */
enum om_wg_backend om_doctor_wireguard(const struct om_settings *s);

/*
 * Any thread; blocks for some seconds.  Runs all checks for a configuration that was read.  Gives
 * the number of results, at most OM_DOCTOR_MAX.
 */
#define OM_DOCTOR_MAX 24
size_t om_doctor_run(const struct om_doctor_probes *probes, const struct om_config *config,
		     struct om_check_result out[OM_DOCTOR_MAX]);

/* Any thread. */
const char *om_check_level_text(enum om_check_level level); /* "ok" "warn" "fail" "skip" */
size_t om_doctor_failures(const struct om_check_result *results, size_t count);
/* Append: lines for people (all, or only what is not skipped), or one JSON object. */
void om_doctor_print(const struct om_check_result *results, size_t count, bool hints,
		     struct om_buf *out);
void om_doctor_print_json(const struct om_check_result *results, size_t count, struct om_buf *out);

/*
 * Any thread.  How to install a package (its Debian name) on the system of that os-release text:
 * "apt-get install nftables".  Gives out.
 */
const char *om_doctor_install(const char *os_release, const char *debian_package, char *out,
			      size_t size);

#endif /* OM_DAEMON_DOCTOR_H */
