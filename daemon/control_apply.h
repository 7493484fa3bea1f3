/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_CONTROL_APPLY_H
#define OM_DAEMON_CONTROL_APPLY_H

/* A configuration that was read and checked becomes the one in force: for control_config.c. */
#include "daemon/control_impl.h"

#define CHANGE_MAGIC 0x6f6d4368u

struct control_change {
	uint32_t magic;
	uint64_t cookie; /* 0: nobody waits */
	char by[OM_PEER_MAX + 1];
	const struct om_conf_sources *sources;
	const struct om_config *current; /* held: control may be restarted meanwhile */
	/* config.set and config.unset only */
	bool set;
	enum om_conf_item item;
	char *value; /* NULL: unset */
	char *live_file;
	/* what came of it */
	struct om_config *config;
	struct om_auth *auth;
	struct om_why why;
	/* what is different then, in words */
	struct om_arena arena;
	struct om_str *told;
	size_t told_count;
};

/* Takes the change, with its configuration; answers and ends it.  Owner thread. */
void control_change_take(struct om_service *sv, struct control *c, struct control_change *ch);
/* Owner thread.  Takes ch: nothing was changed, for the reason in its `why`. */
void control_change_refuse(struct om_service *sv, struct control *c, struct control_change *ch,
			   enum om_err err);
/* Any thread.  A struct control_change; NULL is fine. */
void control_change_free(void *arg);

#endif /* OM_DAEMON_CONTROL_APPLY_H */
