/* SPDX-License-Identifier: ISC */
#ifndef OM_CLIENT_CLI_WG_H
#define OM_CLIENT_CLI_WG_H

/* A wg-quick(8) file becomes the `vpn` of a job. */
#include "client/cli_impl.h"

/* $OMERTA_WG, or wg.conf in the user's configuration directory when it is there; NULL: neither. */
const char *om_cli_wg_default(char *out, size_t out_size);

/* Reads the file into a body of "vpn_config".  False after a message, which never holds a key. */
bool om_cli_wg_read(struct om_cli *cli, const char *path, struct omerta_body *vpn);

#endif /* OM_CLIENT_CLI_WG_H */
