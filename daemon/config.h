/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_CONFIG_H
#define OM_DAEMON_CONFIG_H

/*
 * The settings of omertad: daemon/config.tbl as a struct, and where each value came from.
 *
 * Precedence, highest first: flag, environment OMERTAD_SECTION_NAME, live (`config set`, kept in
 * live.conf of the state directory), drop-ins FILE.d/ *.conf in order of their names, FILE, default.
 * A list from a higher source replaces one from a lower; within one file a repeated key adds to it.
 * A `[rule NAME]` from a higher source replaces the rule of that name.
 *
 * Unknown keys, bad values and repeated keys are errors; all of them are collected, one a line with
 * file and line number, and nothing is taken from a configuration that has one.
 */
#include "msg/schema.h"

#define OM_CONFIG_FILE        "/etc/omertad/omertad.conf"
#define OM_CONFIG_ENV         "OMERTAD_"
#define OM_CONFIG_LIVE_FILE   "live.conf"
#define OM_CONFIG_ORIGIN_MAX  256
#define OM_CONFIG_DROPINS_MAX 128
#define OM_CONFIG_RULES_MAX   1000
#define OM_CONFIG_LIST_MAX    100000 /* entries of one list */
#define OM_CONFIG_MEMORY_MAX  (64u * 1024 * 1024)

enum om_conf_kind {
	OM_CONF_TEXT,
	OM_CONF_PATH,
	OM_CONF_U64,
	OM_CONF_BOOL,
	OM_CONF_MIB,
	OM_CONF_MS,
	OM_CONF_CHOICE,
	OM_CONF_LIST,
};
#define OM_CONF_RESTART 0u
#define OM_CONF_LIVE    1u
#define OM_CONF_HIDDEN  2u
#define OM_CONF_RELOAD  4u

/* Values of the CHOICE settings, in the order of the table. */
enum om_conf_auto { OM_CONF_AUTO, OM_CONF_YES, OM_CONF_NO };
enum om_conf_log { OM_CONF_LOG_TEXT, OM_CONF_LOG_JSON };
enum om_conf_driver { OM_CONF_DRIVER_LIBVIRT, OM_CONF_DRIVER_NULL };
enum om_conf_accel { OM_CONF_ACCEL_AUTO, OM_CONF_ACCEL_KVM, OM_CONF_ACCEL_TCG };
enum om_conf_wireguard {
	OM_CONF_WG_AUTO,
	OM_CONF_WG_KERNEL,
	OM_CONF_WG_USERSPACE,
	OM_CONF_WG_NONE,
};

#define OM_CONF_C_TEXT   const char *
#define OM_CONF_C_PATH   const char *
#define OM_CONF_C_U64    uint64_t
#define OM_CONF_C_BOOL   bool
#define OM_CONF_C_MIB    uint64_t
#define OM_CONF_C_MS     uint64_t
#define OM_CONF_C_CHOICE unsigned
#define OM_CONF_C_LIST   struct om_strs

/* settings->jobs_max_jobs, settings->control_socket ... */
struct om_settings {
#define OM_CONF(section, name, kind, def, least, most, flags, choices, help) \
	OM_CONF_C_##kind section##_##name;
#include "daemon/config.tbl"
};

enum om_conf_item {
#define OM_CONF(section, name, kind, def, least, most, flags, choices, help) \
	OM_CONF_##section##_##name,
#include "daemon/config.tbl"
	OM_CONF_COUNT
};

struct om_conf_info {
	const char *section;
	const char *name;
	const char *key; /* "section.name" */
	enum om_conf_kind kind;
	const char *def;
	uint64_t least, most;
	unsigned flags;
	const char *choices; /* "a|b|c", "" for other kinds */
	const char *help;
	size_t offset; /* in struct om_settings */
};

/* A flag of the command line, or `--set section.name=value`. */
struct om_conf_flag {
	const char *key; /* "jobs.max_jobs", or an old name */
	const char *value;
	const char *origin; /* "--max-jobs" */
};

/* Says whether a rule makes sense; the filter knows.  Any thread. */
typedef enum om_err (*om_conf_rule_check_fn)(const struct om_rule *rule, struct om_why *why);

/* Where to read from.  NULL members are skipped. */
struct om_conf_sources {
	const char *file; /* its drop-ins are in FILE.d */
	bool file_must_exist;
	bool with_live; /* live.conf of the state directory that results from the rest */
	char *const *env; /* environ */
	const struct om_conf_flag *flags;
	size_t flag_count;
	om_conf_rule_check_fn check_rule;
};

struct om_config;

/*
 * Any thread; blocks (reads files).  Gives *out, or OM_ERR_INVALID with a line for each problem in
 * `problems` (may be NULL).  OM_ERR_NOMEM.
 */
enum om_err om_config_load(const struct om_conf_sources *sources, struct om_config **out,
			   struct om_buf *problems) OM_MUST_CHECK;
/* Any thread.  One holder more, and one less: the last one frees it.  NULL is fine. */
const struct om_config *om_config_ref(const struct om_config *config);
void om_config_free(const struct om_config *config);

/* Any thread; all borrow from the configuration, which does not change after the load. */
const struct om_settings *om_config_settings(const struct om_config *config);
const struct om_rule *om_config_rules(const struct om_config *config, size_t *count);
const char *om_config_text(const struct om_config *config, enum om_conf_item item);
/* The word of a CHOICE as the table writes it, whatever alias was used; gives out. */
const char *om_config_choice(const struct om_config *config, enum om_conf_item item, char *out,
			     size_t size);
const char *om_config_origin(const struct om_config *config, enum om_conf_item item);
bool om_config_is_default(const struct om_config *config, enum om_conf_item item);
/* A flag or the environment fixes the value: a live change would not survive, and is refused. */
bool om_config_is_pinned(const struct om_config *config, enum om_conf_item item);
/* "DIR/FILE" of two settings, or the setting `path` when it is not empty.  Borrows. */
const char *om_config_control_socket(const struct om_config *config);
const char *om_config_events_socket(const struct om_config *config);
const char *om_config_server_key(const struct om_config *config);
const char *om_config_image_dir(const struct om_config *config);
const char *om_config_live_file(const struct om_config *config);

/* Any thread. */
const struct om_conf_info *om_conf_info(enum om_conf_item item);
/* "section.name"; - and _ and case do not matter, old names are known.  false: none. */
bool om_conf_find(struct om_str key, enum om_conf_item *out);
/* The nearest known "section.name", or NULL. */
const char *om_conf_nearest(struct om_str key);
/* Is this a value for the setting?  INVALID with the reason. */
enum om_err om_conf_check(enum om_conf_item item, struct om_str value,
			  struct om_why *why) OM_MUST_CHECK;

/* --- daemon/config_print.c --------------------------------------------------------------------- */

/* Any thread; append. */
void om_config_print(const struct om_config *config, bool origin, struct om_buf *out);
void om_config_print_json(const struct om_config *config, struct om_buf *out);
/* A commented sample of everything, as /etc/omertad/omertad.conf. */
void om_config_generate(struct om_buf *out);
/* The settings' part of omertad.conf(5), mdoc source. */
void om_config_generate_man(struct om_buf *out);

/*
 * Any thread; blocks.  Writes one key of live.conf, or removes it (value absent): a new file, synced
 * and renamed.  The other keys stay.  INVALID when the file as it is cannot be read.
 */
enum om_err om_config_write_live(const char *path, enum om_conf_item item, struct om_str value,
				 struct om_why *why) OM_MUST_CHECK;

#endif /* OM_DAEMON_CONFIG_H */
