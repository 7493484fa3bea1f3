/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_CONTROL_CONFIG_H
#define OM_DAEMON_CONTROL_CONFIG_H

/* config.show, config.set, config.unset, config.reload: control's own, used by control_verbs.c only. */
#include "daemon/control_impl.h"

enum om_err control_verb_config_show(struct om_service *sv, struct control *c,
				     const struct control_call *call, struct om_why *why);
enum om_err control_verb_config_set(struct om_service *sv, struct control *c,
				    const struct control_call *call, struct om_why *why);
enum om_err control_verb_config_unset(struct om_service *sv, struct control *c,
				      const struct control_call *call, struct om_why *why);
enum om_err control_verb_config_reload(struct om_service *sv, struct control *c,
				       const struct control_call *call, struct om_why *why);

#endif /* OM_DAEMON_CONTROL_CONFIG_H */
