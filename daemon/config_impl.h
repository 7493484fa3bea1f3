/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_CONFIG_IMPL_H
#define OM_DAEMON_CONFIG_IMPL_H

/* Shared by config.c, config_value.c and config_load.c only. */
#include <pthread.h>
#include "daemon/config.h"
#include "daemon/ini.h"

enum conf_rank { RANK_DEFAULT, RANK_FILE, RANK_DROPIN, RANK_LIVE, RANK_ENV, RANK_FLAG };

struct conf_value {
	const char *text; /* as it was written, list entries joined by ", " */
	const char *origin;
	enum conf_rank rank;
	unsigned source; /* number of the file that it came from; lists add within one */
};

struct om_config {
	pthread_mutex_t lock; /* of refs alone: the rest does not change after the load */
	unsigned refs;
	struct om_arena arena;
	struct om_settings settings;
	struct conf_value values[OM_CONF_COUNT];
	struct om_rule rules[OM_CONFIG_RULES_MAX];
	unsigned rule_source[OM_CONFIG_RULES_MAX];
	const char *rule_origin[OM_CONFIG_RULES_MAX];
	size_t rule_count;
	const char *control_socket, *events_socket, *server_key, *image_dir, *live_file;
};

/* Parses into settings; texts go into the arena.  `add`: a list gets more entries. */
enum om_err conf_value_set(struct om_config *config, enum om_conf_item item, struct om_str text,
			   bool add, struct om_why *why) OM_MUST_CHECK;

/* Same name when case, - and _ are left out. */
bool conf_name_eq(struct om_str a, const char *b);

#endif /* OM_DAEMON_CONFIG_IMPL_H */
