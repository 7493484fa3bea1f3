/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_WG_QUICK_H
#define OM_NET_WG_QUICK_H

/*
 * Reads a wg-quick(8) file on the client's side.  What only wg-quick would act on is refused by
 * name and line: commands (PreUp, PostUp, PreDown, PostDown), Table, SaveConfig, FwMark and
 * ListenPort (the provider chooses), and every key that is not known.  Exactly one [Interface] and
 * one [Peer].  Needs base/ and net/addr, net/wg_config alone.  Any thread.
 */
#include "net/wg_config.h"

#define OM_WG_QUICK_MAX 65536 /* bytes of a file */

/*
 * OM_ERR_INVALID (a bad value or a missing one), OM_ERR_DENIED (a key that is refused),
 * OM_ERR_UNKNOWN_FIELD, OM_ERR_TOO_BIG; the reason starts with "line N: ".  A reason never holds a
 * key.  An Endpoint with a name is OM_ERR_UNSUPPORTED: the caller looks it up and writes the address.
 * On failure *out is wiped.
 */
enum om_err om_wg_quick_parse(struct om_str text, struct om_wg_config *out,
			      struct om_why *why) OM_MUST_CHECK;

#endif /* OM_NET_WG_QUICK_H */
