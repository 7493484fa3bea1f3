/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_WIREGUARD_H
#define OM_NET_WIREGUARD_H

/*
 * One WireGuard link in a job's namespace whose UDP socket belongs to the host's, with two back ends
 * behind one interface: the kernel's (generic netlink), and a wireguard-go child (UAPI socket).
 * Blocking, one thread at a time.
 */
#include <stdbool.h>
#include "base/clock.h"
#include "net/jobnet.h"

#define OM_WG_SOCKET_DIR "/run/wireguard" /* where wireguard-go and wg(8) look */

struct om_wg_stats {
	uint64_t tx_bytes;
	uint64_t rx_bytes;
	struct om_wall handshake_at; /* 0: there was none yet */
	struct om_endpoint endpoint; /* where the peer is now; family 0: not known */
};

struct om_wg; /* opaque */

/*
 * Tries the kernel in a namespace made for it, then looks for the program, and takes what is wanted;
 * OM_WG_BACKEND_NONE: the kernel's, or else the program.  path gets the program's path ("" with the
 * kernel's).  OM_ERR_MISSING names what is not there.
 */
enum om_err om_wg_probe(enum om_wg_backend want, enum om_wg_backend *backend, char *path,
			size_t path_size, struct om_why *why) OM_MUST_CHECK;

/*
 * Makes link `name` in the namespace of netns_fd, up, with this MTU; not configured yet.  The caller
 * stands in the host's namespace.  program: path of wireguard-go, for the userspace back end.
 */
enum om_err om_wg_new(enum om_wg_backend backend, const char *program, const char *name,
		      int netns_fd, uint16_t mtu, struct om_wg **out,
		      struct om_why *why) OM_MUST_CHECK;

/* Sets keys, peer, endpoint, allowed addresses.  Nothing of cfg is kept. */
enum om_err om_wg_configure(struct om_wg *wg, const struct om_wg_config *cfg,
			    struct om_why *why) OM_MUST_CHECK;
enum om_err om_wg_get_stats(struct om_wg *wg, struct om_wg_stats *out,
			    struct om_why *why) OM_MUST_CHECK;
/* Borrowed; -1 with the kernel's back end. */
int om_wg_pidfd(const struct om_wg *wg);
/* After a failure: has the wireguard-go child ended?  Waits a moment for it; then this is why. */
bool om_wg_has_ended(const struct om_wg *wg);
/* The link's index in the namespace. */
int om_wg_index(const struct om_wg *wg);
/* Ends the child and waits for it, removes its socket and the link.  Takes *wgp; NULL is accepted. */
void om_wg_free(struct om_wg **wgp);

/* The plain halves, for tests. */

enum om_err om_wg_choose(enum om_wg_backend want, bool has_kernel, bool has_program,
			 enum om_wg_backend *backend, struct om_why *why) OM_MUST_CHECK;

#define OM_WG_UAPI_MAX 16384 /* bytes of one request or answer: 64 allowed addresses need 4 KiB */
/* The "set" request of the UAPI; the caller wipes out.  OM_ERR_TOO_BIG. */
enum om_err om_wg_uapi_encode(const struct om_wg_config *cfg, char *out, size_t size,
			      size_t *len) OM_MUST_CHECK;
/* The answer to "get"; OM_ERR_CORRUPT, OM_ERR_NET with errno=N in it. */
enum om_err om_wg_uapi_stats(struct om_str text, struct om_wg_stats *out) OM_MUST_CHECK;
/* The "errno=N" of any answer: 0, a positive errno, or -1 when there is none. */
int om_wg_uapi_errno(struct om_str text);

#endif /* OM_NET_WIREGUARD_H */
