/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_AUTH_H
#define OM_DAEMON_AUTH_H

/*
 * Who is at the other end.  Always from what the kernel or CURVE says of the connection, never from
 * a message: on ipc the peer's uid (SO_PEERCRED), on tcp its CURVE key, which the file of
 * authorized peers maps to a peer id, a network and a role.
 *
 * An om_auth does not change; a reload makes a new one.
 */
#include <sys/types.h>
#include "daemon/config.h"
#include "msg/bus.h"

#define OM_AUTH_KEY_LEN       40 /* of a public key in Z85 */
#define OM_AUTH_PEERS_MAX     100000
#define OM_AUTH_LOCAL_NETWORK "local" /* the network of those who come by ipc */
#define OM_AUTH_OPEN_PEER     "tcp" /* who comes by tcp without CURVE */

struct om_auth;

/*
 * Any thread; blocks (files, user data base).  A missing file of peers means none.  INVALID with
 * a line for each problem in `problems`: a bad line, a file that others may write, a user that does
 * not exist.
 */
enum om_err om_auth_load(const struct om_settings *settings, struct om_auth **out,
			 struct om_buf *problems) OM_MUST_CHECK;
void om_auth_free(struct om_auth *auth); /* NULL is fine */
size_t om_auth_peer_count(const struct om_auth *auth);
/* The groups of control.socket_group and control.operator_group; NULL: there is none of that name. */
const gid_t *om_auth_socket_gid(const struct om_auth *auth);
const gid_t *om_auth_operator_gid(const struct om_auth *auth);

/* Any thread.  From ZeroMQ's Peer-Address "host:uid:gid:pid"; DENIED when it is none. */
enum om_err om_auth_local(const struct om_auth *auth, const char *peer_address,
			  struct om_caller *out) OM_MUST_CHECK;
/* Any thread.  From a public key in Z85; DENIED when it is not authorized. */
enum om_err om_auth_key(const struct om_auth *auth, const char *key,
			struct om_caller *out) OM_MUST_CHECK;

/*
 * Any thread; blocks.  The provider's own key pair, Z85 and NUL: reads "public = ..." and
 * "secret = ..." lines, or makes the file (0600) and FILE.pub when it is not there.  The caller
 * wipes the secret.  DENIED: others may read the file.
 */
enum om_err om_auth_server_key(const char *path, char public_key[OM_AUTH_KEY_LEN + 1],
			       char secret_key[OM_AUTH_KEY_LEN + 1],
			       struct om_why *why) OM_MUST_CHECK;

#endif /* OM_DAEMON_AUTH_H */
