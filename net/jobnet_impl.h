/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_JOBNET_IMPL_H
#define OM_NET_JOBNET_IMPL_H

#include "net/jobnet.h"

/* "om", kind ('t': tap, 'w': WireGuard), instance, tag (8 bytes): 15 bytes. */
void om_jobnet_name(char kind, const char *instance, const char *tag, char out[OM_IFNAME_MAX]);

#endif /* OM_NET_JOBNET_IMPL_H */
