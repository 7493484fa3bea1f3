/* SPDX-License-Identifier: ISC */
#ifndef OM_MSG_CODEC_IMPL_H
#define OM_MSG_CODEC_IMPL_H

/* Shared by codec.c (bytes to structs) and codec_encode.c (structs to bytes). */
#include <stddef.h>

/* All om_<body>_list structs have this shape. */
struct any_list {
	void *v;
	size_t n;
};

#endif /* OM_MSG_CODEC_IMPL_H */
